/* SPDX-License-Identifier: MIT */
/*
 * test_callbacks.c - what handlers may do (promise 10), as a matrix:
 *   {publish, subscribe, unsubscribe the first, unsubscribe the second, close the bus}
 *   called from {the first's own handler, the second's handler for the same message, a handler of another bus, another thread
 *   while the first's handler runs}
 * over inproc and shm. Everywhere destroy runs exactly once, never under a running handler, and nothing runs after it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HANG_S 100              /* a test that takes so long hangs: end the program, its name is the last line */

enum action { PUBLISH, SUBSCRIBE, UNSUBSCRIBE_FIRST, UNSUBSCRIBE_SECOND, CLOSE, ACTIONS };
enum place { OWN_HANDLER, OTHER_HANDLER, OTHER_BUS, OTHER_THREAD, PLACES };
enum who { FIRST, SECOND, ADDED, SUBS };

static const char *const schemes[] = { "inproc", "shm" };

struct cell {
    const char *scheme;
    enum action action;
    enum place  place;
    char        name[96];
};

struct subscription {
    struct world *world;
    enum who      who;
    ps_sub       *sub;
    atomic_int    runs, running, destroyed;
    atomic_int    wrong;        /* ran after destroy, or destroyed while running */
};

struct world {
    const struct cell  *cell;
    ps_bus             *target, *peer, *other;
    struct subscription subs[SUBS];
    int                 acted, rc, dispatch_rc;
    int                 runs_then[SUBS];        /* when the call returned */
    atomic_int          inside, entered, returned;
    int                 returned_early;         /* a call that has to wait for the handler did not */
};

static int reached(void *arg)
{
    return atomic_load((atomic_int *)arg) != 0;
}

static int wait_for(atomic_int *flag)
{
    return support_wait(reached, flag, DEADLINE_MS);
}

static void destroy(void *user)
{
    struct subscription *s = user;

    if (atomic_load(&s->running))
        atomic_fetch_add(&s->wrong, 1);
    atomic_fetch_add(&s->destroyed, 1);
}

static const ps_sub_options with_destroy = { sizeof (ps_sub_options), 0, 0, destroy };

static void handler(const ps_msg *msg, void *user);

static void act(struct world *w)
{
    w->acted = 1;
    switch (w->cell->action) {
    case PUBLISH:
        w->rc = ps_publish(w->target, "t", "from the action", 16);
        break;
    case SUBSCRIBE:
        w->rc = ps_subscribe(w->target, "t", handler, &w->subs[ADDED], &with_destroy, &w->subs[ADDED].sub);
        break;
    case UNSUBSCRIBE_FIRST:
        w->rc = ps_unsubscribe(w->subs[FIRST].sub);
        break;
    case UNSUBSCRIBE_SECOND:
        w->rc = ps_unsubscribe(w->subs[SECOND].sub);
        break;
    default:
        w->rc = ps_close(w->target);
        break;
    }
    for (int i = 0; i < SUBS; i++)
        w->runs_then[i] = atomic_load(&w->subs[i].runs);
}

/* Does the call have to wait until the first's handler, which runs on another thread, is through? */
static int has_to_wait(const struct cell *cell)
{
    return cell->action == UNSUBSCRIBE_FIRST || cell->action == CLOSE;
}

static void handler(const ps_msg *msg, void *user)
{
    struct subscription *s = user;
    struct world *w = s->world;
    struct timespec pause = { 0, 20000000 };

    if (atomic_load(&s->destroyed) || msg->user != user)
        atomic_fetch_add(&s->wrong, 1);
    atomic_store(&s->running, 1);
    atomic_fetch_add(&s->runs, 1);
    if (w->cell->place == OWN_HANDLER && s->who == FIRST && !w->acted)
        act(w);
    else if (w->cell->place == OTHER_HANDLER && s->who == SECOND && !w->acted)
        act(w);
    else if (w->cell->place == OTHER_THREAD && s->who == FIRST && !atomic_load(&w->inside)) {
        atomic_store(&w->inside, 1);
        if (has_to_wait(w->cell)) {
            (void)wait_for(&w->entered);
            nanosleep(&pause, NULL);
            w->returned_early = atomic_load(&w->returned);
        } else if (!wait_for(&w->returned)) {
            atomic_fetch_add(&s->wrong, 1);     /* it waited for a handler that is none of its business */
        }
    }
    atomic_store(&s->running, 0);
}

static void handler_of_other_bus(const ps_msg *msg, void *user)
{
    (void)msg;
    act(user);
}

static void *dispatching_thread(void *arg)
{
    struct world *w = arg;

    w->dispatch_rc = ps_dispatch(w->target, 1, DEADLINE_MS);
    return NULL;
}

static void subscribe(struct world *w, enum who who)
{
    assert_ok(ps_subscribe(w->target, "t", handler, &w->subs[who], &with_destroy, &w->subs[who].sub));
}

static void say(ps_bus *bus)
{
    assert_true(ps_publish(bus, "t", "x", 2) >= 1);
}

static void drain(ps_bus *bus)
{
    int rc;

    while ((rc = ps_dispatch(bus, 0, 0)) > 0)
        continue;
    assert_ok(rc);
}

static void test_cell(void **state)
{
    const struct cell *cell = *state;
    struct world w;
    const char *url = support_url(cell->scheme, "cell", NULL);
    int expected[SUBS] = { 1, 1, cell->action == SUBSCRIBE }, closed = cell->action == CLOSE;
    pthread_t thread;

    memset(&w, 0, sizeof w);
    w.cell = cell;
    for (int i = 0; i < SUBS; i++) {
        w.subs[i].world = &w;
        w.subs[i].who = (enum who)i;
    }
    assert_ok(ps_open(&w.target, url));
    assert_ok(ps_open(&w.peer, url));
    assert_ok(ps_open(&w.other, support_url(cell->scheme, "cell-other", NULL)));
    subscribe(&w, FIRST);
    subscribe(&w, SECOND);
    say(w.peer);
    switch (cell->place) {
    case OTHER_BUS:
        assert_ok(ps_subscribe(w.other, "t", handler_of_other_bus, &w, NULL, NULL));
        say(w.other);
        assert_int_equal(ps_dispatch(w.other, 1, 0), 1);
        break;
    case OTHER_THREAD:
        assert_int_equal(pthread_create(&thread, NULL, dispatching_thread, &w), 0);
        assert_true(wait_for(&w.inside));
        atomic_store(&w.entered, 1);
        act(&w);
        atomic_store(&w.returned, 1);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(w.dispatch_rc, closed ? PS_ECLOSED : 1);
        assert_int_equal(w.returned_early, 0);
        break;
    default:
        assert_int_equal(ps_dispatch(w.target, 1, 0), closed ? PS_ECLOSED : 1);
        break;
    }
    assert_true(w.acted);
    assert_int_equal(w.rc, cell->action == PUBLISH ? 1 : 0);
    if (cell->action == UNSUBSCRIBE_FIRST || cell->action == UNSUBSCRIBE_SECOND) {
        enum who gone = cell->action == UNSUBSCRIBE_FIRST ? FIRST : SECOND;

        expected[gone] = 0;
        assert_int_equal(atomic_load(&w.subs[gone].destroyed), 1);
        assert_int_equal(atomic_load(&w.subs[gone].runs), w.runs_then[gone]);
    }
    if (closed) {
        assert_int_equal(ps_wanted(w.peer, "t"), 0);
        for (int i = 0; i < ADDED; i++)
            assert_int_equal(atomic_load(&w.subs[i].runs), w.runs_then[i]);
    } else {
        int before[SUBS];

        /* Life goes on: everybody who is left gets the next message, once. */
        drain(w.target);
        for (int i = 0; i < SUBS; i++)
            before[i] = atomic_load(&w.subs[i].runs);
        say(w.peer);
        assert_int_equal(ps_dispatch(w.target, 0, 0), 1);
        for (int i = 0; i < SUBS; i++)
            assert_int_equal(atomic_load(&w.subs[i].runs) - before[i], expected[i]);
        assert_int_equal(ps_close(w.target), 0);
    }
    for (int i = 0; i < SUBS; i++) {
        assert_int_equal(atomic_load(&w.subs[i].destroyed), i != ADDED || cell->action == SUBSCRIBE);
        assert_int_equal(atomic_load(&w.subs[i].wrong), 0);
    }
    assert_int_equal(ps_close(w.peer), 0);
    assert_int_equal(ps_close(w.other), 0);
}

/* ------------------------------------------------------------------ recursion */

struct recursion {
    ps_bus *first, *second;
    int     runs, depth, deepest, rc[2], outer;
};

static void recursion_handler(const ps_msg *msg, void *user)
{
    struct recursion *r = user;

    (void)msg;
    r->runs++;
    if (++r->depth > r->deepest)
        r->deepest = r->depth;
    if (r->depth < 100) {
        int first = ps_dispatch(r->first, 0, 0), second = ps_dispatch(r->second, 0, 0);

        if (r->deepest == r->depth) {
            r->rc[0] = first;
            r->rc[1] = second;
        }
    }
    (void)ps_publish(r->first, "t", "x", 1);
    (void)ps_publish(r->second, "t", "x", 1);
    r->depth--;
}

/* Two buses whose handlers feed and dispatch each other: as deep as there are buses, and no deeper. */
static void test_p10_recursion_over_two_buses_bounded(void **state)
{
    (void)state;
    for (int s = 0; s < 2; s++) {
        struct recursion r;

        memset(&r, 0, sizeof r);
        assert_ok(ps_open(&r.first, support_url(schemes[s], "recursion", "depth=256")));
        assert_ok(ps_open(&r.second, support_url(schemes[s], "recursion", "depth=256")));
        assert_ok(ps_subscribe(r.first, "t", recursion_handler, &r, NULL, NULL));
        assert_ok(ps_subscribe(r.second, "t", recursion_handler, &r, NULL, NULL));
        say(r.first);
        say(r.second);
        for (int i = 0; i < 20; i++)
            assert_ok(ps_dispatch(i % 2 ? r.first : r.second, 3, 0));
        assert_int_equal(r.deepest, 2);
        assert_int_equal(r.rc[0], PS_EBUSY);
        assert_int_equal(r.rc[1], PS_EBUSY);
        assert_int_equal(ps_close(r.first), 0);
        assert_int_equal(ps_close(r.second), 0);
    }
}

/* ------------------------------------------------------------------ two handlers against each other */

struct duel {
    ps_bus      *bus;
    ps_sub      *sub;
    struct duel *enemy;
    atomic_int  *inside;        /* of both */
    int          close, armed, rc, dispatch_rc;
    atomic_int   runs, destroyed;
};

static void duel_destroy(void *user)
{
    struct duel *d = user;

    atomic_fetch_add(&d->destroyed, 1);
}

static int both_inside(void *arg)
{
    return atomic_load((atomic_int *)arg) >= 2;
}

static void duel_handler(const ps_msg *msg, void *user)
{
    struct duel *d = user;

    (void)msg;
    atomic_fetch_add(&d->runs, 1);
    if (!d->armed)
        return;
    d->armed = 0;
    atomic_fetch_add(d->inside, 1);
    (void)support_wait(both_inside, d->inside, DEADLINE_MS);
    d->rc = d->close ? ps_close(d->enemy->bus) : ps_unsubscribe(d->enemy->sub);
}

static void *duel_thread(void *arg)
{
    struct duel *d = arg;

    d->dispatch_rc = ps_dispatch(d->bus, 1, DEADLINE_MS);
    return NULL;
}

static void duel_run(const char *scheme, int close_instead)
{
    static const ps_sub_options options = { sizeof (ps_sub_options), 0, 0, duel_destroy };

    for (int round = 0; round < 20; round++) {
        const char *url = support_url(scheme, "duel", NULL);
        struct duel d[2];
        atomic_int inside = 0;
        pthread_t threads[2];
        int loser;

        memset(d, 0, sizeof d);
        for (int i = 0; i < 2; i++) {
            d[i].enemy = &d[!i];
            d[i].inside = &inside;
            d[i].close = close_instead;
            d[i].armed = 1;
            assert_ok(ps_open(&d[i].bus, url));
            assert_ok(ps_subscribe(d[i].bus, "t", duel_handler, &d[i], &options, &d[i].sub));
        }
        assert_int_equal(ps_publish(d[0].bus, "t", "x", 1), 2);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, duel_thread, &d[i]), 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true((d[0].rc == 0 && d[1].rc == PS_EBUSY) || (d[0].rc == PS_EBUSY && d[1].rc == 0));
        /* Who was answered 0 has ended the other; who was told PS_EBUSY has changed nothing. */
        loser = d[0].rc == 0;
        assert_int_equal(atomic_load(&d[loser].destroyed), 1);
        assert_int_equal(atomic_load(&d[!loser].destroyed), 0);
        assert_int_equal(d[!loser].dispatch_rc, 1);
        assert_int_equal(d[loser].dispatch_rc, close_instead ? PS_ECLOSED : 1);
        assert_int_equal(ps_publish(d[!loser].bus, "t", "x", 1), 1);
        assert_int_equal(ps_dispatch(d[!loser].bus, 0, 0), 1);
        assert_int_equal(atomic_load(&d[!loser].runs), 2);
        if (!close_instead)
            assert_int_equal(ps_close(d[loser].bus), 0);
        assert_int_equal(ps_close(d[!loser].bus), 0);
        assert_int_equal(atomic_load(&d[loser].destroyed), 1);
        assert_int_equal(atomic_load(&d[!loser].destroyed), 1);
    }
}

static void test_p10_two_handlers_unsubscribe_each_other_one_told_busy(void **state)
{
    (void)state;
    for (int s = 0; s < 2; s++)
        duel_run(schemes[s], 0);
}

static void test_p10_two_handlers_close_each_other_one_told_busy(void **state)
{
    (void)state;
    for (int s = 0; s < 2; s++)
        duel_run(schemes[s], 1);
}

/* ------------------------------------------------------------------ user data freed at once */

struct storm {
    ps_bus    *publisher, *reader;
    atomic_int stop, dispatched;
    int        error;
};

static void storm_handler(const ps_msg *msg, void *user)
{
    int *data = user;

    (void)msg;
    for (int i = 0; i < 16; i++)
        data[i]++;
}

static void *storm_dispatch(void *arg)
{
    struct storm *s = arg;

    while (!atomic_load(&s->stop)) {
        int rc = ps_dispatch(s->reader, 16, 10);

        if (rc < 0)
            s->error = rc;
        if (rc > 0)
            atomic_fetch_add(&s->dispatched, rc);
    }
    return NULL;
}

static void *storm_publish(void *arg)
{
    struct storm *s = arg;

    while (!atomic_load(&s->stop)) {
        int rc = ps_publish(s->publisher, "t", "x", 1);

        if (rc < 0)
            s->error = rc;
    }
    return NULL;
}

/* What ps_unsubscribe() promises its caller: free it now. AddressSanitizer and ThreadSanitizer watch. */
static void test_p10_user_data_freed_right_after_unsubscribe(void **state)
{
    (void)state;
    for (int s = 0; s < 2; s++) {
        static struct storm storm;
        const char *url = support_url(schemes[s], "storm", "depth=64&lossy=1");
        pthread_t threads[2];
        uint64_t end;
        int rounds = 0;

        memset(&storm, 0, sizeof storm);
        assert_ok(ps_open(&storm.publisher, url));
        assert_ok(ps_open(&storm.reader, url));
        assert_int_equal(pthread_create(&threads[0], NULL, storm_dispatch, &storm), 0);
        assert_int_equal(pthread_create(&threads[1], NULL, storm_publish, &storm), 0);
        for (end = support_now_ms() + 700; support_now_ms() < end || (atomic_load(&storm.dispatched) < 100 && rounds < 1000000); rounds++) {
            int *data[4];
            ps_sub *subs[4];

            for (int i = 0; i < 4; i++) {
                data[i] = calloc(16, sizeof *data[i]);
                assert_non_null(data[i]);
                assert_ok(ps_subscribe(storm.reader, i % 2 ? "t" : "+", storm_handler, data[i], NULL, &subs[i]));
            }
            if (rounds % 4 == 0)
                sched_yield();
            for (int i = 0; i < 4; i++) {
                assert_int_equal(ps_unsubscribe(subs[i]), 0);
                memset(data[i], 0xdd, 16 * sizeof *data[i]);
                free(data[i]);
            }
        }
        atomic_store(&storm.stop, 1);
        ps_stop(storm.reader);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(storm.error, 0);
        assert_int_equal(ps_close(storm.publisher), 0);
        assert_int_equal(ps_close(storm.reader), 0);
    }
}

/* ------------------------------------------------------------------ */

static int watch(void **state)
{
    (void)state;
    alarm(HANG_S);
    return 0;
}

int main(void)
{
    static const char *const actions[ACTIONS] = { "publish", "subscribe", "unsubscribe_first", "unsubscribe_second", "close_bus" };
    static const char *const places[PLACES] = { "in_own_handler", "in_handler_of_same_message", "in_handler_of_other_bus",
                                                "in_other_thread_while_it_runs" };
    const struct CMUnitTest others[] = {
        cmocka_unit_test_setup(test_p10_recursion_over_two_buses_bounded, watch),
        cmocka_unit_test_setup(test_p10_two_handlers_unsubscribe_each_other_one_told_busy, watch),
        cmocka_unit_test_setup(test_p10_two_handlers_close_each_other_one_told_busy, watch),
        cmocka_unit_test_setup(test_p10_user_data_freed_right_after_unsubscribe, watch),
    };
    enum { OTHERS = sizeof others / sizeof others[0], CELLS = 2 * ACTIONS * PLACES };
    static struct cell cells[CELLS];
    static struct CMUnitTest tests[CELLS + OTHERS];
    int n = 0;

    for (int s = 0; s < 2; s++)
        for (int a = 0; a < ACTIONS; a++)
            for (int p = 0; p < PLACES; p++, n++) {
                cells[n].scheme = schemes[s];
                cells[n].action = (enum action)a;
                cells[n].place = (enum place)p;
                snprintf(cells[n].name, sizeof cells[n].name, "test_p10_%s_%s_over_%s", actions[a], places[p], schemes[s]);
                tests[n] = (struct CMUnitTest){ cells[n].name, test_cell, watch, NULL, &cells[n] };
            }
    for (int i = 0; i < OTHERS; i++)
        tests[n++] = others[i];
    return cmocka_run_group_tests_name("callbacks", tests, NULL, NULL);
}
