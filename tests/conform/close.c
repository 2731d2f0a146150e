/* SPDX-License-Identifier: MIT */
/* close.c - conformance: closing a handle while calls are inside, from other threads and from its own handler. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

struct close_call {
    ps_bus    *bus;
    int        kind;
    atomic_int entered;                 /* its thread's number, once it is about to call */
    int        answer;
    pthread_t  thread;
};

enum { CLOSE_DISPATCH, CLOSE_RUN, CLOSE_NEXT, CLOSE_PUBLISH, CLOSE_KINDS };

static void *close_call(void *arg)
{
    struct close_call *c = arg;
    const ps_msg *msg;

    atomic_store(&c->entered, conform_thread_id());
    switch (c->kind) {
    case CLOSE_DISPATCH:
        c->answer = ps_dispatch(c->bus, 0, -1);
        break;
    case CLOSE_RUN:
        c->answer = ps_run(c->bus);
        break;
    case CLOSE_NEXT:
        c->answer = ps_next(c->bus, &msg, -1);
        break;
    default:
        c->answer = ps_publish(c->bus, "t", "x", 1);
        break;
    }
    return NULL;
}

/* A call that waits for messages shows itself asleep; of one that waits for room the kernel knows. */
static void test_close_calls_inside_return_closed(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_MEMBERS);
    for (int kind = 0; kind < CLOSE_KINDS; kind++) {
        static struct conform_log log;
        struct close_call c = { NULL, kind, 0, 1, 0 };
        ps_bus *watcher = conform_open("depth=2");

        c.bus = conform_open("block=-1&evict=-1");
        if (kind == CLOSE_PUBLISH) {
            conform_subscribe(watcher, "t", &log);
            assert_int_equal(conform_fill(c.bus, "t", 0, 2), 2);
        } else {
            conform_subscribe(c.bus, "t", kind == CLOSE_NEXT ? NULL : &log);
        }
        conform_start(&c.thread, close_call, &c);
        if (kind == CLOSE_PUBLISH)
            assert_true(conform_blocked(&c.entered));
        else
            assert_true(conform_asleep(watcher, 1));
        conform_close(c.bus);
        conform_join(c.thread);
        assert_int_equal(c.answer, PS_ECLOSED);
        conform_close(watcher);
    }
}

/*
 * Two handles, each dispatched by a thread. The handler of `long_one` waits for `first` of the other handle to end; and then the
 * next handler there waits for `long_one`, whose thread may not have noticed yet that it need not wait any more.
 */
struct close_chain {
    ps_bus    *a, *b;
    ps_sub    *first, *next, *long_one;
    atomic_int first_runs, ended;
    int        first_rc, next_rc;
    atomic_int waits;                   /* the number of the thread that does */
};

static void close_first(const ps_msg *msg, void *user)
{
    struct close_chain *c = user;

    (void)msg;
    atomic_store(&c->first_runs, 1);
    (void)conform_blocked(&c->waits);
}

static void close_next(const ps_msg *msg, void *user)
{
    struct close_chain *c = user;

    (void)msg;
    c->next_rc = ps_unsubscribe(c->long_one);
    atomic_store(&c->ended, 1);
}

static void close_long(const ps_msg *msg, void *user)
{
    struct close_chain *c = user;

    (void)msg;
    (void)conform_reached(&c->first_runs, 1);
    atomic_store(&c->waits, conform_thread_id());
    c->first_rc = ps_unsubscribe(c->first);
}

static void *close_chain_thread(void *arg)
{
    struct close_chain *c = arg;

    while (!atomic_load(&c->ended))
        if (ps_dispatch(c->a, 0, 10) < 0)
            break;
    return NULL;
}

static void test_unsubscribe_waits_where_the_other_wait_is_over(void **state)
{
    (void)state;
    conform_need(0);
    for (int round = 0; round < 20; round++) {
        struct close_chain c = { .first_rc = -1, .next_rc = -1 };
        pthread_t thread;

        c.a = conform_open(NULL);
        c.b = conform_open_url(conform_other_url(1, NULL));
        assert_ok(ps_subscribe(c.a, "first", close_first, &c, NULL, &c.first));
        assert_ok(ps_subscribe(c.a, "next", close_next, &c, NULL, &c.next));
        assert_ok(ps_subscribe(c.b, "long", close_long, &c, NULL, &c.long_one));
        assert_int_equal(ps_publish(c.a, "first", "", 0), 1);
        assert_int_equal(ps_publish(c.a, "next", "", 0), 1);
        assert_int_equal(ps_publish(c.b, "long", "", 0), 1);
        conform_start(&thread, close_chain_thread, &c);
        assert_int_equal(ps_dispatch(c.b, 1, DEADLINE_MS), 1);
        conform_join(thread);
        assert_int_equal(c.first_rc, 0);
        assert_int_equal(c.next_rc, 0);
        conform_close(c.a);
        conform_close(c.b);
    }
}

/* ps_close() waits for a handler that runs, and for nothing else of it afterwards. */
struct close_slow {
    atomic_int inside, leave, left, destroyed;
};

static void close_slow(const ps_msg *msg, void *user)
{
    struct close_slow *s = user;

    (void)msg;
    atomic_store(&s->inside, 1);
    (void)conform_reached(&s->leave, 1);
    atomic_store(&s->left, 1);
}

static void close_slow_destroy(void *user)
{
    struct close_slow *s = user;

    atomic_fetch_add(&s->destroyed, atomic_load(&s->left) ? 1 : 100);
}

struct close_closer {
    ps_bus    *bus;
    atomic_int entered, done;
    int        answer;
};

static void *close_closer(void *arg)
{
    struct close_closer *c = arg;

    atomic_store(&c->entered, 1);
    c->answer = ps_close(c->bus);
    atomic_store(&c->done, 1);
    return NULL;
}

static int close_seen_closed(void *arg)
{
    return ps_wanted(arg, "t") == PS_ECLOSED;
}

static void test_close_waits_for_handler_of_another_thread(void **state)
{
    static struct close_slow slow;
    static struct close_closer closer;
    ps_sub_options options = { sizeof options, 0, 0, close_slow_destroy };
    ps_bus *bus = conform_open(NULL);
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    struct conform_dispatcher d;
    pthread_t thread;
    ps_sub *sub = (ps_sub *)&slow;

    (void)state;
    assert_ok(ps_subscribe(bus, "t", close_slow, &slow, &options, NULL));
    conform_say(bus, "t", "x");
    conform_say(bus, "t", "y");
    conform_dispatch_start(&d, bus, 0, -1);
    assert_true(conform_reached(&slow.inside, 1));
    closer.bus = bus;
    conform_start(&thread, close_closer, &closer);
    /* The handle lives on as long as the handler runs, but every call is told. */
    assert_true(support_wait(close_seen_closed, bus, DEADLINE_MS));
    assert_int_equal(atomic_load(&closer.done), 0);
    assert_int_equal(ps_publish(bus, "t", "x", 1), PS_ECLOSED);
    assert_int_equal(ps_subscribe(bus, "t", conform_record, NULL, NULL, &sub), PS_ECLOSED);
    assert_null(sub);
    assert_int_equal(ps_stats(bus, &stats), PS_ECLOSED);
    assert_int_equal(ps_fd(bus), PS_ECLOSED);
    assert_int_equal(ps_members(bus, NULL, NULL, 0), PS_ECLOSED);
    assert_int_equal(ps_close(bus), PS_EBUSY);
    assert_int_equal(atomic_load(&slow.destroyed), 0);
    atomic_store(&slow.leave, 1);
    conform_join(thread);
    assert_int_equal(closer.answer, 0);
    assert_int_equal(conform_dispatch_join(&d), PS_ECLOSED);
    assert_int_equal(atomic_load(&slow.destroyed), 1);
    conform_forget(bus);
}

struct close_inside {
    ps_bus *bus;
    ps_sub *sub;
    int     close, again, publish, wanted, subscribe, unsubscribe, dispatch, stats, fd;
};

static void close_inside(const ps_msg *msg, void *user)
{
    struct close_inside *c = user;
    ps_bus_stats stats = PS_BUS_STATS_INIT;

    (void)msg;
    c->close = ps_close(c->bus);
    c->again = ps_close(c->bus);
    c->publish = ps_publish(c->bus, "t", "x", 1);
    c->wanted = ps_wanted(c->bus, "t");
    c->subscribe = ps_subscribe(c->bus, "t", close_inside, user, NULL, NULL);
    c->unsubscribe = ps_unsubscribe(c->sub);
    c->dispatch = ps_dispatch(c->bus, 0, 0);
    c->stats = ps_stats(c->bus, &stats);
    c->fd = ps_fd(c->bus);
    ps_stop(c->bus);
}

/* Between ps_close() in a handler and the handler's end the handle is there, but only to say that it is not. */
static void test_close_in_handler_later_calls_there_closed(void **state)
{
    struct close_inside c;
    static struct conform_log log;

    (void)state;
    memset(&c, 0, sizeof c);
    c.bus = conform_open(NULL);
    conform_subscribe(c.bus, "other", &log);
    assert_ok(ps_subscribe(c.bus, "t", close_inside, &c, NULL, &c.sub));
    conform_say(c.bus, "t", "x");
    conform_forget(c.bus);
    assert_int_equal(ps_dispatch(c.bus, 0, 0), PS_ECLOSED);
    assert_int_equal(c.close, 0);
    assert_int_equal(c.again, PS_EBUSY);
    assert_int_equal(c.publish, PS_ECLOSED);
    assert_int_equal(c.wanted, PS_ECLOSED);
    assert_int_equal(c.subscribe, PS_ECLOSED);
    assert_int_equal(c.unsubscribe, PS_ECLOSED);
    assert_true(c.dispatch == PS_ECLOSED || c.dispatch == PS_EBUSY);
    assert_int_equal(c.stats, PS_ECLOSED);
    assert_int_equal(c.fd, PS_ECLOSED);
}

/*
 * Threads hammer the handle until they are told that it is closing. A call that starts after ps_close() returned would be
 * the caller's error, so a handler that runs all the while keeps the handle until each of them has been told.
 */
struct close_hammer {
    ps_bus     *bus;
    atomic_int *told;
    atomic_int  calls;
    int         last;
    pthread_t   thread;
};

enum { CLOSE_HAMMERS = 3 };

static void *close_hammer(void *arg)
{
    struct close_hammer *h = arg;
    ps_sub *sub;

    for (int i = 0; h->last >= 0 || h->last == PS_EAGAIN; i++) {
        h->last = ps_publish(h->bus, "t", &i, sizeof i);
        if (h->last >= 0 && i % 16 == 0) {
            h->last = ps_subscribe(h->bus, "u", conform_record, NULL, NULL, &sub);
            if (h->last == 0)
                h->last = ps_unsubscribe(sub);
        }
        atomic_fetch_add(&h->calls, 1);
    }
    atomic_fetch_add(h->told, 1);
    return NULL;
}

struct close_hold {
    atomic_int inside, told;
};

static void close_hold(const ps_msg *msg, void *user)
{
    struct close_hold *h = user;

    (void)msg;
    atomic_store(&h->inside, 1);
    (void)conform_reached(&h->told, CLOSE_HAMMERS);
}

static void test_close_while_others_publish_and_subscribe_all_told(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        static struct conform_log log;
        struct close_hammer hammers[CLOSE_HAMMERS];
        struct close_hold hold;
        struct conform_dispatcher d;
        ps_bus *peer = conform_open("lossy=1&depth=64"), *bus = conform_open("lossy=1");

        memset(&hold, 0, sizeof hold);
        memset(hammers, 0, sizeof hammers);
        conform_subscribe(peer, "t", &log);
        assert_ok(ps_subscribe(bus, "hold", close_hold, &hold, NULL, NULL));
        conform_say(peer, "hold", "x");
        conform_dispatch_start(&d, bus, 0, -1);
        assert_true(conform_reached(&hold.inside, 1));
        for (int i = 0; i < CLOSE_HAMMERS; i++) {
            hammers[i].bus = bus;
            hammers[i].told = &hold.told;
            conform_start(&hammers[i].thread, close_hammer, &hammers[i]);
        }
        for (int i = 0; i < CLOSE_HAMMERS; i++)
            assert_true(conform_reached(&hammers[i].calls, 1 + round * 10));
        conform_close(bus);
        for (int i = 0; i < CLOSE_HAMMERS; i++) {
            conform_join(hammers[i].thread);
            assert_int_equal(hammers[i].last, PS_ECLOSED);
        }
        assert_int_equal(conform_dispatch_join(&d), PS_ECLOSED);
        conform_close(peer);
    }
}

static const struct CMUnitTest tests[] = {
    conform_test(test_close_calls_inside_return_closed),
    conform_test(test_unsubscribe_waits_where_the_other_wait_is_over),
    conform_test(test_close_waits_for_handler_of_another_thread),
    conform_test(test_close_in_handler_later_calls_there_closed),
    conform_test(test_close_while_others_publish_and_subscribe_all_told),
};
CONFORM_AREA(conform_close_area);
