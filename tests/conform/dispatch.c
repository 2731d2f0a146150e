/* SPDX-License-Identifier: MIT */
/* dispatch.c - conformance: ps_dispatch and ps_next, and what wakes them. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

static void test_dispatch_nothing_there_answers_0(void **state)
{
    static struct conform_log log;
    ps_bus *push = conform_open(NULL), *pull = conform_open(NULL), *none = conform_open(NULL);
    const ps_msg *msg = (const ps_msg *)&log;

    (void)state;
    conform_subscribe(push, "t", &log);
    conform_subscribe(pull, "t", NULL);
    assert_int_equal(ps_dispatch(push, 0, 0), 0);
    assert_int_equal(ps_dispatch(push, 5, 0), 0);
    assert_int_equal(ps_next(pull, &msg, 0), 0);
    assert_null(msg);
    /* A handle that has not decided yet may do either, and stays undecided. */
    assert_int_equal(ps_dispatch(none, 0, 0), 0);
    assert_int_equal(ps_next(none, &msg, 0), 0);
    assert_int_equal(ps_dispatch(none, 0, 0), 0);
    conform_subscribe(none, "t", NULL);
    assert_int_equal(ps_next(none, NULL, 0), PS_EINVAL);
    conform_close(push);
    conform_close(pull);
    conform_close(none);
}

static void test_dispatch_timeout_waits_that_long_and_answers_0(void **state)
{
    static struct conform_log log;
    ps_bus *push = conform_open(NULL), *pull = conform_open("lossy=1");
    const ps_msg *msg;
    uint64_t start;

    (void)state;
    conform_subscribe(push, "t", &log);
    conform_subscribe(pull, "t", NULL);
    start = support_now_ms();
    assert_int_equal(ps_dispatch(push, 0, 60), 0);
    assert_true(support_now_ms() - start >= 59);
    start = support_now_ms();
    assert_int_equal(ps_next(pull, &msg, 60), 0);
    assert_true(support_now_ms() - start >= 59);
    conform_close(push);
    conform_close(pull);
}

/* The time is for the first message only: with one there, nothing is waited for. */
static void test_dispatch_message_there_returns_at_once(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    conform_subscribe(bus, "t", &log);
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 10, -1), 1);
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, -1), 1);
    conform_close(bus);
}

static void test_dispatch_max_counts_messages_not_deliveries(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL), *other = conform_open(NULL);

    (void)state;
    conform_subscribe(bus, "t", &log);
    conform_subscribe(bus, "#", &log);
    conform_subscribe(other, "unwanted", &log);
    for (int i = 0; i < 10; i++)
        conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 3, 0), 3);
    assert_int_equal(atomic_load(&log.count), 6);
    assert_int_equal(ps_dispatch(bus, 1, -1), 1);
    assert_int_equal(ps_dispatch(bus, -1, 0), 6);
    assert_int_equal(ps_dispatch(bus, 1, 0), 0);
    conform_close(bus);
    conform_close(other);
}

/* What another handle wants and this one does not is stepped over without counting. */
static void test_dispatch_unwanted_stepped_over_uncounted(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL), *c = conform_open(NULL);

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(b, "mine", &log);
    conform_subscribe(c, "#", &log);
    for (int i = 0; i < 10; i++)
        conform_say(a, i % 5 == 4 ? "mine" : "unwanted", "x");
    assert_int_equal(ps_dispatch(b, 2, 0), 2);
    assert_int_equal(log.lost, 0);
    assert_int_equal(log.seen[1].sequence - log.seen[0].sequence, 5);
    conform_say(a, "unwanted", "x");
    assert_int_equal(ps_dispatch(b, 0, 0), 0);
    assert_int_equal(conform_stats(b).delivered, 2);
    if (conform_has_ring())
        assert_int_equal(conform_stats(b).unwanted, 9);
    assert_int_equal(conform_drain(c), 11);
    conform_close(a);
    conform_close(b);
    conform_close(c);
}

struct dispatch_echo {
    ps_bus *bus;
    int     runs, bad;
};

static void dispatch_echo(const ps_msg *msg, void *user)
{
    struct dispatch_echo *echo = user;

    echo->runs++;
    echo->bad += ps_publish(echo->bus, msg->topic, msg->data, msg->size) != 1;
}

/* A handler that answers on its own topic must not keep its caller for ever. */
static void test_dispatch_handler_feeds_itself_call_ends(void **state)
{
    struct dispatch_echo echo = { conform_open(NULL), 0, 0 };

    (void)state;
    assert_ok(ps_subscribe(echo.bus, "t", dispatch_echo, &echo, NULL, NULL));
    for (int i = 0; i < 3; i++)
        conform_say(echo.bus, "t", "x");
    assert_int_equal(ps_dispatch(echo.bus, 0, 0), 3);
    assert_int_equal(ps_dispatch(echo.bus, 0, -1), 3);
    assert_int_equal(ps_dispatch(echo.bus, -5, DEADLINE_MS), 3);
    assert_int_equal(ps_dispatch(echo.bus, 100, 0), 100);       /* max says how many */
    assert_int_equal(echo.runs, 109);
    assert_int_equal(echo.bad, 0);
    conform_close(echo.bus);
}

struct dispatch_nested {
    ps_bus    *bus;
    int        dispatch, run, next;
    atomic_int inside, leave;
};

static void dispatch_nested(const ps_msg *msg, void *user)
{
    struct dispatch_nested *n = user;
    const ps_msg *other;

    (void)msg;
    n->dispatch = ps_dispatch(n->bus, 1, -1);
    n->run = ps_run(n->bus);
    n->next = ps_next(n->bus, &other, -1);
    atomic_store(&n->inside, 1);
    (void)conform_reached(&n->leave, 1);
}

static void test_dispatch_in_handler_and_by_second_thread_busy(void **state)
{
    static struct dispatch_nested n;
    struct conform_dispatcher d;

    (void)state;
    n.bus = conform_open(NULL);
    assert_ok(ps_subscribe(n.bus, "t", dispatch_nested, &n, NULL, NULL));
    conform_say(n.bus, "t", "x");
    conform_say(n.bus, "t", "y");
    conform_dispatch_start(&d, n.bus, 1, -1);
    assert_true(conform_reached(&n.inside, 1));
    /* The handler of the other thread is running. */
    assert_int_equal(ps_dispatch(n.bus, 0, 0), PS_EBUSY);
    assert_int_equal(ps_dispatch(n.bus, 0, -1), PS_EBUSY);
    assert_int_equal(ps_run(n.bus), PS_EBUSY);
    atomic_store(&n.leave, 1);
    assert_int_equal(conform_dispatch_join(&d), 1);
    assert_int_equal(n.dispatch, PS_EBUSY);
    assert_int_equal(n.run, PS_EBUSY);
    assert_true(n.next == PS_EBUSY || n.next == PS_EINVAL);
    assert_int_equal(ps_dispatch(n.bus, 0, 0), 1);
    conform_close(n.bus);
}

static int dispatch_is_busy(void *arg)
{
    return ps_dispatch(arg, 0, 0) == PS_EBUSY;
}

static void *dispatch_until_not_busy(void *arg)
{
    struct conform_dispatcher *d = arg;

    do
        d->answer = ps_dispatch(d->bus, d->max, d->timeout_ms);
    while (d->answer == PS_EBUSY);
    return NULL;
}

static void test_dispatch_while_another_thread_waits_busy(void **state)
{
    static struct conform_log log;
    struct conform_dispatcher d;

    (void)state;
    d.bus = conform_open(NULL);
    d.max = 0;
    d.timeout_ms = -1;
    conform_subscribe(d.bus, "t", &log);
    conform_start(&d.thread, dispatch_until_not_busy, &d);
    assert_true(support_wait(dispatch_is_busy, d.bus, DEADLINE_MS));
    conform_say(d.bus, "t", "x");
    conform_join(d.thread);
    assert_int_equal(d.answer, 1);
    conform_close(d.bus);
}

/* ------------------------------------------------------------------ waking */

static void test_dispatch_asleep_woken_by_publish(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d;

    (void)state;
    conform_subscribe(b, "t", &log);
    for (int i = 0; i < 20; i++) {
        conform_dispatch_start(&d, b, 0, -1);
        if (i % 2)              /* asleep for certain, or somewhere on its way there */
            assert_true(conform_asleep(a, 1));
        conform_say(a, "t", "x");
        assert_int_equal(conform_dispatch_join(&d), 1);
    }
    conform_close(a);
    conform_close(b);
}

struct ping {
    ps_bus     *bus;
    const char *answer;
    int         rounds, error;
};

static void *ping_body(void *arg)
{
    struct ping *p = arg;
    const ps_msg *msg;

    for (int i = 0; i < p->rounds && p->error == 0; i++) {
        int rc = ps_next(p->bus, &msg, -1);

        if (rc != 1 || !conform_good(msg) || *(const unsigned char *)msg->data != (unsigned char)i)
            p->error = 1;
        else if (p->answer != NULL && ps_publish(p->bus, p->answer, msg->data, 1) != 1)
            p->error = 2;
    }
    return NULL;
}

/* Each waits for the other's message and for nothing else: one wake-up that gets lost, and this never ends. */
static void test_next_asleep_ping_pong_loses_no_wakeup(void **state)
{
    struct ping p = { conform_open(NULL), "pong", 3000, 0 };
    ps_bus *bus = conform_open(NULL);
    const ps_msg *msg;
    pthread_t thread;

    (void)state;
    conform_subscribe(p.bus, "ping", NULL);
    conform_subscribe(bus, "pong", NULL);
    conform_start(&thread, ping_body, &p);
    for (int i = 0; i < p.rounds; i++) {
        unsigned char byte = (unsigned char)i;

        assert_int_equal(ps_publish(bus, "ping", &byte, 1), 1);
        assert_int_equal(ps_next(bus, &msg, -1), 1);
        assert_int_equal(*(const unsigned char *)msg->data, byte);
    }
    conform_join(thread);
    assert_int_equal(p.error, 0);
    conform_close(bus);
    conform_close(p.bus);
}

static void test_dispatch_asleep_sees_subscribe_of_another_thread(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d;

    (void)state;
    conform_dispatch_start(&d, b, 0, -1);
    assert_true(conform_asleep(a, 1));
    conform_subscribe(b, "t", &log);
    conform_say(a, "t", "x");
    assert_int_equal(conform_dispatch_join(&d), 1);
    /* The same when it slept for another topic. */
    conform_dispatch_start(&d, b, 0, -1);
    assert_true(conform_asleep(a, 1));
    conform_subscribe(b, "u", &log);
    conform_say(a, "u", "x");
    assert_int_equal(conform_dispatch_join(&d), 1);
    assert_int_equal(atomic_load(&log.count), 2);
    conform_close(a);
    conform_close(b);
}

static void test_dispatch_asleep_unsubscribe_does_not_wait_for_it(void **state)
{
    static struct conform_log gone, stays;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d;
    ps_sub *sub;

    (void)state;
    sub = conform_subscribe(b, "t", &gone);
    conform_subscribe(b, "u", &stays);
    conform_dispatch_start(&d, b, 0, -1);
    assert_true(conform_asleep(a, 1));
    assert_int_equal(ps_unsubscribe(sub), 0);   /* would hang here, if it waited for the dispatch */
    assert_int_equal(ps_publish(a, "t", "x", 1), 0);
    assert_int_equal(atomic_load(&d.done), 0);
    conform_say(a, "u", "x");
    assert_int_equal(conform_dispatch_join(&d), 1);
    assert_int_equal(atomic_load(&gone.count), 0);
    assert_int_equal(atomic_load(&stays.count), 1);
    conform_close(a);
    conform_close(b);
}

/* ------------------------------------------------------------------ a call before the first subscription */

static int early_dispatch(ps_bus *bus)
{
    return ps_dispatch(bus, 0, -1);
}

static int early_next(ps_bus *bus)
{
    const ps_msg *msg;
    int rc = ps_next(bus, &msg, -1);

    return rc == 1 && !conform_good(msg) ? 99 : rc;
}

static int (*const early_calls[])(ps_bus *) = { early_dispatch, ps_run, early_next };

struct early {
    ps_bus    *bus;
    int        call;            /* of early_calls */
    atomic_int waits;
    int        answer;
    pthread_t  thread;
};

static void *early_body(void *arg)
{
    struct early *e = arg;

    atomic_store(&e->waits, conform_thread_id());
    e->answer = early_calls[e->call](e->bus);
    return NULL;
}

static int early_subscribe(ps_bus *bus, int pull, struct conform_log *log, ps_sub **sub)
{
    return ps_subscribe(bus, "t", pull ? NULL : conform_record, pull ? NULL : log, NULL, sub);
}

/* A call that waits is of one kind, and a first subscription of the other kind comes too late: its messages would go to that call. */
static void test_dispatch_asleep_first_subscription_of_the_other_kind_refused(void **state)
{
    static struct conform_log log;

    (void)state;
    for (int call = 0; call < 3; call++) {
        struct early e = { conform_open(NULL), call, 0, -1, 0 };
        ps_bus *a = conform_open(NULL);
        ps_sub *sub = (ps_sub *)&log;
        const ps_msg *msg;
        int pull = call == 2;

        memset(&log, 0, sizeof log);
        conform_start(&e.thread, early_body, &e);
        assert_true(conform_blocked(&e.waits));
        assert_int_equal(early_subscribe(e.bus, !pull, &log, &sub), PS_EINVAL);
        assert_null(sub);
        assert_int_equal(ps_publish(a, "t", "x", 2), 0);        /* nothing is left of it */
        assert_ok(early_subscribe(e.bus, pull, &log, &sub));
        conform_say(a, "t", "x");
        if (!pull)
            assert_true(conform_reached(&log.count, 1));
        if (call == 1)
            ps_stop(e.bus);
        conform_join(e.thread);
        assert_int_equal(e.answer, call == 1 ? 0 : 1);
        assert_int_equal(ps_dispatch(e.bus, 0, 0), pull ? PS_EINVAL : 0);
        assert_int_equal(ps_next(e.bus, &msg, 0), pull ? 0 : PS_EINVAL);
        conform_close(a);
        conform_close(e.bus);
    }
}

/* It lasts as long as the call, however that ends. */
static void test_dispatch_over_before_the_first_subscription_of_either_kind(void **state)
{
    static struct conform_log log;
    const ps_msg *msg;

    (void)state;
    for (int way = 0; way < 4; way++) {
        ps_bus *bus = conform_open(NULL);
        int pull = way % 2;

        for (int i = 0; i < 2; i++) {
            assert_int_equal(pull ? ps_dispatch(bus, 0, 0) : ps_next(bus, &msg, 0), 0);
            if (way >= 2)
                ps_stop(bus);
            assert_int_equal(pull ? ps_dispatch(bus, 0, way < 2 ? 1 : -1) : ps_next(bus, &msg, way < 2 ? 1 : -1), 0);
        }
        assert_ok(early_subscribe(bus, pull, &log, NULL));
        conform_say(bus, "t", "x");
        assert_int_equal(pull ? ps_next(bus, &msg, 0) : ps_dispatch(bus, 0, 0), 1);
        conform_close(bus);
    }
}

/* Both at once: one of the two is refused, and who is not gets what it wants. */
static void test_dispatch_and_first_subscription_of_the_other_kind_at_once_one_refused(void **state)
{
    static struct conform_log log;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct early e = { conform_open(NULL), round % 3, 0, -1, 0 };
        int rc, pull = e.call == 2;

        conform_start(&e.thread, early_body, &e);
        if (round % 2)
            while (!atomic_load(&e.waits))
                sched_yield();
        for (int i = 0; i < round / 6; i++)
            (void)atomic_load(&e.waits);        /* a little later each time */
        rc = early_subscribe(e.bus, !pull, &log, NULL);
        (void)ps_publish(e.bus, "t", "x", 2);
        if (rc != 0)
            ps_stop(e.bus);
        conform_join(e.thread);
        assert_true(rc == 0 || rc == PS_EINVAL);
        assert_int_equal(e.answer, rc == 0 ? PS_EINVAL : 0);
        conform_close(e.bus);
    }
}

/* ------------------------------------------------------------------ ps_next */

static void test_next_message_stays_until_next_call(void **state)
{
    static const char *const options[] = { "depth=4", "depth=4&lossy=1" };

    (void)state;
    for (int i = 0; i < 2; i++) {
        ps_bus *reader = conform_open(options[i]), *publisher = conform_open(NULL);
        unsigned char data[300], copy[300];
        const ps_msg *msg, *second;

        for (size_t at = 0; at < sizeof data; at++)
            data[at] = (unsigned char)at;
        memcpy(copy, data, sizeof data);
        conform_subscribe(reader, "#", NULL);
        assert_int_equal(ps_publish(publisher, "first", data, sizeof data), 1);
        assert_int_equal(ps_next(reader, &msg, 0), 1);
        memset(data, 0xee, sizeof data);
        for (int n = 0; n < 50; n++) {          /* many times round the ring for the lossy one */
            int rc = ps_publish(publisher, "other", data, sizeof data);

            assert_true(rc == 1 || (i == 0 && rc == PS_EAGAIN));
        }
        assert_true(conform_good(msg));
        assert_string_equal(msg->topic, "first");
        assert_int_equal(msg->size, sizeof copy);
        assert_memory_equal(msg->data, copy, sizeof copy);
        assert_int_equal(ps_next(reader, &second, 0), 1);
        assert_string_equal(second->topic, "other");
        conform_close(reader);
        conform_close(publisher);
    }
}

static void test_next_asleep_woken_by_publish(void **state)
{
    struct ping p = { conform_open(NULL), NULL, 1, 0 };
    ps_bus *bus = conform_open(NULL);
    pthread_t thread;

    (void)state;
    conform_subscribe(p.bus, "t", NULL);
    conform_start(&thread, ping_body, &p);
    assert_true(conform_asleep(bus, 1));
    assert_int_equal(ps_publish(bus, "t", "", 1), 1);
    conform_join(thread);
    assert_int_equal(p.error, 0);
    conform_close(bus);
    conform_close(p.bus);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_dispatch_nothing_there_answers_0),
    conform_test(test_dispatch_timeout_waits_that_long_and_answers_0),
    conform_test(test_dispatch_message_there_returns_at_once),
    conform_test(test_dispatch_max_counts_messages_not_deliveries),
    conform_test(test_dispatch_unwanted_stepped_over_uncounted),
    conform_test(test_dispatch_handler_feeds_itself_call_ends),
    conform_test(test_dispatch_in_handler_and_by_second_thread_busy),
    conform_test(test_dispatch_while_another_thread_waits_busy),
    conform_test(test_dispatch_asleep_woken_by_publish),
    conform_test(test_next_asleep_ping_pong_loses_no_wakeup),
    conform_test(test_dispatch_asleep_sees_subscribe_of_another_thread),
    conform_test(test_dispatch_asleep_unsubscribe_does_not_wait_for_it),
    conform_test(test_dispatch_asleep_first_subscription_of_the_other_kind_refused),
    conform_test(test_dispatch_over_before_the_first_subscription_of_either_kind),
    conform_test(test_dispatch_and_first_subscription_of_the_other_kind_at_once_one_refused),
    conform_test(test_next_message_stays_until_next_call),
    conform_test(test_next_asleep_woken_by_publish),
};
CONFORM_AREA(conform_dispatch_area);
