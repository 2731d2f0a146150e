/* SPDX-License-Identifier: MIT */
/* patience.c - conformance: who moves, or has nothing to move to, is not stalled; who was evicted gates again (promise 7). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

#include <signal.h>

static void *patience_run(void *arg)
{
    return ps_run(arg) == 0 ? NULL : arg;
}

struct patience_slow {
    struct support_numbers r;
    atomic_int delivered, hold;
    int        losses, pause_us;
};

static void patience_slow(const ps_msg *msg, void *user)
{
    struct patience_slow *s = user;
    struct timespec pause = { 0, s->pause_us * 1000L };

    support_take_number(msg, &s->r);
    s->losses += msg->lost != 0;
    atomic_fetch_add(&s->delivered, 1);
    while (atomic_load(&s->hold))
        conform_pause_ms(1);
    nanosleep(&pause, NULL);
}

/* An eighth of the ring takes it longer than evict=, yet each message it takes is seen. */
static void test_p7_evict_slow_reader_of_a_large_ring_never(void **state)
{
    struct patience_slow s;
    ps_bus *a, *b;
    pthread_t thread;
    uint64_t published, end;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&s, 0, sizeof s);
    s.pause_us = 20000;
    a = conform_open("depth=512&evict=1000");
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", patience_slow, &s, NULL, NULL));
    published = (uint64_t)conform_fill(a, "t", 0, 1000);
    conform_start(&thread, patience_run, b);
    for (end = support_now_ms() + 2000; support_now_ms() < end; conform_pause_ms(1))
        published += (uint64_t)conform_fill(a, "t", published, 1);
    ps_stop(b);
    conform_join(thread);
    assert_true(conform_stats(a).refused > 0);
    assert_int_equal(conform_stats(a).evictions, 0);
    assert_int_equal(conform_stats(b).evicted, 0);
    assert_int_equal(s.r.wrong, 0);
    assert_int_equal(s.r.lost, 0);
    conform_close(a);
    conform_close(b);
}

struct patience_flood {
    ps_bus    *bus;
    atomic_int stop;
    uint64_t   published;
    int        error;
};

static void *patience_flood(void *arg)
{
    struct patience_flood *f = arg;

    while (!atomic_load(&f->stop) && f->error == 0) {
        int rc = ps_publish(f->bus, "t", &f->published, sizeof f->published);

        if (rc >= 0)
            f->published++;
        else if (rc != PS_EAGAIN)
            f->error = rc;
    }
    return NULL;
}

/* A loop that always finds more never begins anew, and gates again all the same: its next read says so. */
static void test_p7_evicted_reader_in_a_flood_gates_again(void **state)
{
    struct patience_slow s;
    struct patience_flood f;
    ps_bus *b;
    pthread_t reader, flood;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&s, 0, sizeof s);
    memset(&f, 0, sizeof f);
    s.pause_us = 100;
    atomic_store(&s.hold, 1);
    f.bus = conform_open("depth=64&evict=300");
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", patience_slow, &s, NULL, NULL));
    conform_start(&reader, patience_run, b);
    conform_start(&flood, patience_flood, &f);
    for (uint64_t end = support_now_ms() + DEADLINE_MS; conform_stats(f.bus).evictions == 0 && support_now_ms() < end;)
        conform_pause_ms(1);
    atomic_store(&s.hold, 0);
    assert_true(conform_reached(&s.delivered, 1000));
    atomic_store(&f.stop, 1);
    conform_join(flood);
    ps_stop(b);
    conform_join(reader);
    conform_drain(b);
    assert_int_equal(f.error, 0);
    assert_int_equal(s.r.wrong, 0);
    assert_int_equal(s.r.delivered + s.r.lost, f.published);
    assert_int_equal(conform_stats(b).evicted, conform_stats(f.bus).evictions);
    /* What it missed while it was out, told at once or in two pieces; not again and again from then on. */
    assert_in_range(s.losses, 1, 2 * conform_stats(b).evicted);
    conform_close(f.bus);
    conform_close(b);
}

/* ------------------------------------------------------------------ a fellow thread in the middle of a publish */

static atomic_int patience_held, patience_released;

static void patience_hold(int number)
{
    (void)number;
    atomic_store(&patience_held, 1);
    while (!atomic_load(&patience_released))
        conform_pause_ms(1);
}

struct patience_large {
    ps_bus        *bus;
    unsigned char *data;
    size_t         size;
    atomic_int     done;
    int            rc;
};

static void *patience_large(void *arg)
{
    struct patience_large *l = arg;

    l->rc = ps_publish(l->bus, "t", l->data, l->size);
    atomic_store(&l->done, 1);
    while (!atomic_load(&patience_held))        /* the signal is on its way, and finds a thread */
        conform_pause_ms(1);
    return NULL;
}

static uint64_t patience_lag(ps_bus *bus)
{
    ps_member members[4];
    uint64_t lag = 0;
    int n;

    members[0].size = sizeof members[0];
    n = ps_members(bus, NULL, members, 4);
    for (int i = 0; i < n && i < 4; i++)
        if (members[i].flags & PS_MEMBER_READER)
            lag = members[i].lag;
    return lag;
}

/* Stops a thread between claim and commit: 1, or 0 when it was through too early. */
static int patience_stop_publishing(pthread_t *thread, struct patience_large *l)
{
    atomic_store(&patience_held, 0);
    atomic_store(&patience_released, 0);
    atomic_store(&l->done, 0);
    conform_start(thread, patience_large, l);
    while (patience_lag(l->bus) == 0 && !atomic_load(&l->done))
        sched_yield();
    pthread_kill(*thread, SIGUSR1);
    assert_true(conform_reached(&patience_held, 1));
    return !atomic_load(&l->done);
}

static void patience_skip(const ps_msg *msg, void *user)
{
    uint64_t *lost = user;

    *lost += msg->lost;
}

static void test_p7_evict_reader_before_an_unfinished_publish_never(void **state)
{
    struct patience_large l;
    struct sigaction action, before;
    uint64_t lost = 0, end;
    ps_bus *b;
    pthread_t thread;
    int stopped = 0, refused = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_MEMBERS);
    memset(&l, 0, sizeof l);
    memset(&action, 0, sizeof action);
    action.sa_handler = patience_hold;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    l.bus = conform_open("depth=16&bytes=32M&evict=30");
    b = conform_open(NULL);
    l.size = (size_t)conform_stats(l.bus).message_max;
    l.data = calloc(1, l.size);
    assert_non_null(l.data);
    memset(l.data, 1, l.size);
    assert_ok(ps_subscribe(b, "t", patience_skip, &lost, NULL, NULL));
    for (int tries = 0; tries < 100 && !stopped; tries++) {
        stopped = patience_stop_publishing(&thread, &l);
        if (!stopped) {
            atomic_store(&patience_released, 1);
            conform_join(thread);
            conform_drain(b);
        }
    }
    assert_true(stopped);
    /* Its fellow goes on until the ring is full, and is refused for long; the reader reads whatever it can. */
    for (end = support_now_ms() + 300; support_now_ms() < end;) {
        int rc = ps_publish(l.bus, "t", "x", 1);

        refused += rc == PS_EAGAIN;
        assert_true(rc == 1 || rc == PS_EAGAIN);
        assert_ok(ps_dispatch(b, 0, 0));
        if (rc == PS_EAGAIN)
            conform_pause_ms(1);
    }
    atomic_store(&patience_released, 1);
    conform_join(thread);
    conform_drain(b);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_true(refused > 0);
    assert_int_equal(l.rc, 1);
    assert_int_equal(lost, 0);
    assert_int_equal(conform_stats(l.bus).evictions, 0);
    assert_int_equal(conform_stats(b).evicted, 0);
    free(l.data);
    conform_close(l.bus);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_p7_evict_slow_reader_of_a_large_ring_never),
    conform_test(test_p7_evicted_reader_in_a_flood_gates_again),
    conform_test(test_p7_evict_reader_before_an_unfinished_publish_never),
};
CONFORM_AREA(conform_patience_area);
