/* SPDX-License-Identifier: MIT */
/* full.c - conformance: the full ring. PS_EAGAIN, block=, lossy=1, and who holds whom back (promises 5 and 6). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

/* Publishes number i on "t" until it is taken, dispatching the reader in between. */
static void full_insist(ps_bus *publisher, ps_bus *reader, uint64_t i)
{
    int rc;

    while ((rc = ps_publish(publisher, "t", &i, sizeof i)) == PS_EAGAIN)
        assert_ok(ps_dispatch(reader, 1, 0));
    assert_ok(rc);
}

static void test_p5_full_ring_refuses_and_loses_nothing(void **state)
{
    struct support_numbers row = { 0, 0, 0, 0 };
    ps_bus *a, *b;
    int taken;
    uint64_t refused;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=2&evict=-1");
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", support_take_number, &row, NULL, NULL));
    taken = conform_fill(a, "t", 0, 100);
    assert_int_equal(conform_stats(a).depth, 2);
    assert_int_equal(taken, 2);
    for (int i = 0; i < 100; i++)               /* a refused message is not there, however often it was tried */
        assert_int_equal(ps_publish(a, "t", "refused!", 8), PS_EAGAIN);
    refused = conform_stats(a).refused;
    assert_true(refused >= 100);
    assert_int_equal(conform_stats(a).published, taken);
    for (uint64_t i = (uint64_t)taken; i < 1000; i++)
        full_insist(a, b, i);
    conform_drain(b);
    assert_int_equal(row.next, 1000);
    assert_int_equal(row.wrong, 0);
    assert_int_equal(row.lost, 0);
    assert_int_equal(conform_stats(b).lost, 0);
    assert_int_equal(conform_stats(a).published, 1000);
    conform_close(a);
    conform_close(b);
}

/* The payload ring can be full before the messages are too many. */
static void test_p5_full_payload_ring_refuses_and_loses_nothing(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    size_t max;
    unsigned char *data;
    int taken = 0, all = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=1024&bytes=64k&evict=-1");
    b = conform_open(NULL);
    max = (size_t)conform_stats(a).message_max;
    data = calloc(1, max);
    assert_non_null(data);
    conform_subscribe(b, "t", &log);
    for (int round = 0; round < 10; round++) {
        for (taken = 0; taken < 1024; taken++) {
            int rc = ps_publish(a, "t", data, max - (size_t)(round * 100));

            if (rc == PS_EAGAIN)
                break;
            assert_int_equal(rc, 1);
        }
        assert_true(taken >= 1 && taken < 1024);
        all += taken;
        assert_int_equal(conform_drain(b), taken);
    }
    assert_int_equal(atomic_load(&log.count), all);
    assert_int_equal(log.bad, 0);
    assert_int_equal(log.lost, 0);
    free(data);
    conform_close(a);
    conform_close(b);
}

/* ------------------------------------------------------------------ block= */

struct full_blocker {
    ps_bus    *bus;
    int        count, error;
    atomic_int done;
};

static void *full_blocker(void *arg)
{
    struct full_blocker *p = arg;

    for (uint64_t i = 0; i < (uint64_t)p->count && p->error == 0; i++) {
        int rc = ps_publish(p->bus, "t", &i, sizeof i);

        if (rc != 1)
            p->error = rc < 0 ? rc : 1;
        atomic_fetch_add(&p->done, 1);
    }
    return NULL;
}

static void test_full_block_waits_until_reader_makes_room(void **state)
{
    static struct full_blocker p;
    struct support_numbers row = { 0, 0, 0, 0 };
    ps_bus *b;
    pthread_t thread;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    p.bus = conform_open("depth=2&block=-1&evict=-1");
    p.count = 2000;
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", support_take_number, &row, NULL, NULL));
    conform_start(&thread, full_blocker, &p);
    assert_true(conform_reached(&p.done, 2));
    conform_pause_ms(20);
    assert_int_equal(atomic_load(&p.done), 2);  /* the third waits, and is not refused */
    while (row.next < (uint64_t)p.count)
        assert_ok(ps_dispatch(b, 1, DEADLINE_MS));
    conform_join(thread);
    assert_int_equal(p.error, 0);
    assert_int_equal(row.wrong, 0);
    assert_int_equal(row.lost, 0);
    conform_close(p.bus);
    conform_close(b);
}

static void test_full_block_time_over_refused(void **state)
{
    struct support_numbers row = { 0, 0, 0, 0 };
    ps_bus *a, *b;
    uint64_t start;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=2&block=60&evict=-1");
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", support_take_number, &row, NULL, NULL));
    assert_int_equal(conform_fill(a, "t", 0, 2), 2);
    start = support_now_ms();
    assert_int_equal(ps_publish(a, "t", "refused!", 8), PS_EAGAIN);
    assert_true(support_now_ms() - start >= 59);
    conform_drain(b);
    assert_int_equal(row.next, 2);
    assert_int_equal(conform_fill(a, "t", 2, 1), 1);
    conform_close(a);
    conform_close(b);
}

struct full_in_handler {
    ps_bus *bus;
    int     last, taken;
};

static void full_in_handler(const ps_msg *msg, void *user)
{
    struct full_in_handler *h = user;
    void *loan;

    (void)msg;
    for (h->taken = 0; h->taken < 100 && (h->last = ps_publish(h->bus, "t", "x", 1)) >= 0; h->taken++)
        continue;
    if (h->last == PS_EAGAIN && ps_loan(h->bus, "t", 1, &loan) == 0) {
        h->last = ps_commit(h->bus, loan, 1);
        (void)ps_cancel(h->bus, loan);
    }
}

/* Whoever waits in a handler for its own dispatch waits for ever: there block= does not count. */
static void test_p6_full_in_handler_refused_at_once_despite_block(void **state)
{
    struct full_in_handler h = { NULL, 0, 0 };

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    h.bus = conform_open("depth=4&block=-1&evict=-1");
    assert_ok(ps_subscribe(h.bus, "go", full_in_handler, &h, NULL, NULL));
    conform_subscribe(h.bus, "t", &(struct conform_log){ 0 });
    conform_say(h.bus, "go", "x");
    assert_int_equal(ps_dispatch(h.bus, 1, 0), 1);
    assert_int_equal(h.last, PS_EAGAIN);
    assert_true(h.taken >= 1 && h.taken <= 4);
    conform_close(h.bus);
}

/* ------------------------------------------------------------------ lossy */

enum { FULL_STREAMS = 4 };

/* Exact losses: in each stream the gap in the numbers is what `lost` says. */
struct full_lossy {
    uint64_t delivered, lost, in_stats_first;
    int      wrong, streams;
    struct { uint64_t publisher, sequence; } stream[FULL_STREAMS];
    ps_bus  *bus;
};

static void full_lossy(const ps_msg *msg, void *user)
{
    struct full_lossy *l = user;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    /* One stream for all publishers, or one for each. */
    uint64_t key = conform_backend->can & PS_CAN_TOTAL_ORDER ? 1 : msg->publisher;
    int at = 0;

    l->delivered++;
    l->lost += msg->lost;
    while (at < l->streams && l->stream[at].publisher != key)
        at++;
    if (at == FULL_STREAMS) {
        l->wrong++;
        return;
    }
    if (at == l->streams)
        l->stream[l->streams++].publisher = key;
    else if (msg->sequence - l->stream[at].sequence - 1 != msg->lost)
        l->wrong++;
    l->stream[at].sequence = msg->sequence;
    /* The loss is in the statistics before the handler hears of it. */
    if (ps_stats(l->bus, &stats) != 0 || stats.lost < l->lost)
        l->wrong++;
}

static void test_p5_lossy_reader_told_exactly_what_it_lost(void **state)
{
    static const size_t sizes[] = { 8, 64, 700, 16000 };
    ps_bus *a, *b;
    struct full_lossy l;
    unsigned char *data;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    data = calloc(1, 16000);
    assert_non_null(data);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint64_t published = 0;

        memset(&l, 0, sizeof l);
        a = conform_open("depth=64&bytes=64k");
        b = l.bus = conform_open("lossy=1");
        assert_ok(ps_subscribe(b, "t", full_lossy, &l, NULL, NULL));
        /* A first message, so that the stream's first number is known. */
        assert_int_equal(ps_publish(a, "t", data, sizes[s]), 1);
        published++;
        assert_int_equal(ps_dispatch(b, 0, 0), 1);
        for (int round = 0; round < 300; round++) {
            int burst = (int)(support_random() % 200);

            for (int i = 0; i < burst; i++, published++)
                assert_int_equal(ps_publish(a, "t", data, sizes[s]), 1);        /* never refused */
            assert_ok(ps_dispatch(b, (int)(support_random() % 40), 0));
        }
        conform_drain(b);
        assert_int_equal(l.wrong, 0);
        assert_int_equal(l.delivered + l.lost, published);
        assert_true(l.lost > 0);
        assert_int_equal(conform_stats(b).lost, l.lost);
        assert_int_equal(conform_stats(a).refused, 0);
        conform_close(a);
        conform_close(b);
    }
    free(data);
}

/* What was overwritten is counted although the reader has not come to it yet. */
static void test_p5_lossy_lost_in_stats_before_dispatch(void **state)
{
    struct full_lossy l;
    ps_bus *a, *b;
    uint64_t early;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=16");
    b = conform_open("lossy=1");
    memset(&l, 0, sizeof l);
    l.bus = b;
    assert_ok(ps_subscribe(b, "t", full_lossy, &l, NULL, NULL));
    assert_int_equal(conform_fill(a, "t", 0, 1000), 1000);
    early = conform_stats(b).lost;
    assert_true(early >= 1000 - 16 && early <= 1000);
    conform_drain(b);
    assert_int_equal(l.delivered + l.lost, 1000);
    assert_int_equal(conform_stats(b).lost, l.lost);
    assert_true(l.lost >= early);
    assert_int_equal(l.wrong, 0);
    conform_close(a);
    conform_close(b);
}

static void test_p5_lossy_several_publishers_each_stream_exact(void **state)
{
    struct full_lossy l;
    ps_bus *p[3], *b;
    uint64_t published = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&l, 0, sizeof l);
    for (int i = 0; i < 3; i++)
        p[i] = conform_open("depth=32&bytes=64k");
    b = l.bus = conform_open("lossy=1");
    assert_ok(ps_subscribe(b, "t", full_lossy, &l, NULL, NULL));
    for (int i = 0; i < 3; i++, published++)
        conform_say(p[i], "t", "x");
    assert_int_equal(conform_drain(b), 3);
    for (int round = 0; round < 300; round++) {
        for (int i = (int)(support_random() % 100); i > 0; i--, published++)
            conform_say(p[support_random() % 3], "t", "x");
        assert_ok(ps_dispatch(b, (int)(support_random() % 40), 0));
    }
    conform_drain(b);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(l.delivered + l.lost, published);
    assert_int_equal(conform_stats(b).lost, l.lost);
    for (int i = 0; i < 3; i++)
        conform_close(p[i]);
    conform_close(b);
}

/* `lost` stands on every delivery of the message it belongs to. */
static void test_p5_lossy_lost_told_in_each_delivery(void **state)
{
    static struct conform_log log[2];
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=4");
    b = conform_open("lossy=1");
    memset(log, 0, sizeof log);
    conform_subscribe(b, "t", &log[0]);
    conform_subscribe(b, "#", &log[1]);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    conform_drain(b);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(log[i].lost + (uint64_t)atomic_load(&log[i].count), 100);
        assert_true(log[i].seen[0].lost >= 96);
    }
    assert_int_equal(conform_stats(b).lost, log[0].lost);
    conform_close(a);
    conform_close(b);
}

/* ------------------------------------------------------------------ who holds back */

static void test_full_gates_only_reliable_handles_with_subscriptions(void **state)
{
    static struct conform_log log;
    ps_bus *a, *lossy, *idle, *reader, *observer;
    ps_sub *sub;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=4&evict=-1");
    lossy = conform_open("lossy=1");
    idle = conform_open(NULL);
    reader = conform_open(NULL);
    conform_subscribe(lossy, "t", &log);
    assert_int_equal(ps_dispatch(idle, 0, 0), 0);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    observer = conform_open("observe=1");
    conform_subscribe(observer, "#", &log);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    /* A reliable one holds back by messages it does not want, too, until it dispatches. */
    sub = conform_subscribe(reader, "another", &log);
    assert_int_equal(conform_fill(a, "t", 0, 100), 4);
    assert_int_equal(ps_dispatch(reader, 0, 0), 0);
    assert_int_equal(conform_fill(a, "t", 0, 100), 4);
    /* Without subscriptions it does not. */
    assert_int_equal(ps_unsubscribe(sub), 0);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    /* It begins anew where the ring is now, and ends when it closes. */
    conform_subscribe(reader, "t", &log);
    assert_int_equal(conform_fill(a, "t", 0, 100), 4);
    conform_close(reader);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    conform_close(a);
    conform_close(lossy);
    conform_close(idle);
    conform_close(observer);
}

static void test_full_echo_off_own_messages_neither_seen_nor_counted(void **state)
{
    static struct conform_log own, others;
    ps_bus *a = conform_open("echo=0"), *b = conform_open("lossy=1");

    (void)state;
    memset(&own, 0, sizeof own);
    conform_subscribe(a, "#", &own);
    assert_int_equal(ps_publish(a, "t", "x", 1), 0);
    conform_subscribe(b, "#", &others);
    assert_int_equal(ps_publish(a, "t", "mine", 5), 1);
    assert_int_equal(ps_publish(b, "t", "theirs", 7), 2);
    assert_int_equal(ps_publish(a, "t", "mine", 5), 1);
    assert_int_equal(conform_drain(a), 1);
    assert_string_equal((char *)own.seen[0].head, "theirs");
    assert_int_equal(own.bad, 0);
    assert_int_equal(own.lost, 0);
    assert_int_equal(conform_drain(b), 3);
    conform_close(a);
    conform_close(b);
}

/* It steps over its own messages unread, so it cannot stand in its own way for ever. */
static void test_full_echo_off_does_not_stand_in_its_own_way(void **state)
{
    static struct conform_log own, others;
    ps_bus *a, *b;
    int taken = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("echo=0&depth=4&evict=-1");
    b = conform_open("lossy=1");
    conform_subscribe(a, "#", &own);
    conform_subscribe(b, "#", &others);
    for (int round = 0; round < 100; round++) {
        taken += conform_fill(a, "t", 0, 1 + round % 3);
        assert_int_equal(ps_dispatch(a, 0, 0), 0);
    }
    assert_int_equal(taken, 199);
    assert_int_equal(atomic_load(&own.count), 0);
    conform_close(a);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_p5_full_ring_refuses_and_loses_nothing),
    conform_test(test_p5_full_payload_ring_refuses_and_loses_nothing),
    conform_test(test_full_block_waits_until_reader_makes_room),
    conform_test(test_full_block_time_over_refused),
    conform_test(test_p6_full_in_handler_refused_at_once_despite_block),
    conform_test(test_p5_lossy_reader_told_exactly_what_it_lost),
    conform_test(test_p5_lossy_lost_in_stats_before_dispatch),
    conform_test(test_p5_lossy_several_publishers_each_stream_exact),
    conform_test(test_p5_lossy_lost_told_in_each_delivery),
    conform_test(test_full_gates_only_reliable_handles_with_subscriptions),
    conform_test(test_full_echo_off_own_messages_neither_seen_nor_counted),
    conform_test(test_full_echo_off_does_not_stand_in_its_own_way),
};
CONFORM_AREA(conform_full_area);
