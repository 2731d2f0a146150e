/* SPDX-License-Identifier: MIT */
/* evict.c - conformance: a stalled reader is evicted after evict=MS, and learns what it missed (promises 5 and 7). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

/* A handle that publishes, and one that reads "t". */
static void evict_meet(ps_bus **a, const char *a_options, ps_bus **b, const char *b_options, struct support_numbers *r)
{
    memset(r, 0, sizeof *r);
    *a = conform_open(a_options);
    *b = conform_open(b_options);
    assert_ok(ps_subscribe(*b, "t", support_take_number, r, NULL, NULL));
}

/* Publishes number i on "t", trying again each millisecond while it is refused. How often it was, or an error. */
static int evict_insist(ps_bus *bus, uint64_t i)
{
    int rc, tries = 0;

    while ((rc = ps_publish(bus, "t", &i, sizeof i)) == PS_EAGAIN && tries < DEADLINE_MS) {
        conform_pause_ms(1);
        tries++;
    }
    return rc < 0 ? rc : tries;
}

static uint32_t evict_flags(ps_bus *bus, const char *name)
{
    ps_member members[8];
    int n;

    members[0].size = sizeof members[0];
    n = ps_members(bus, NULL, members, 8);
    assert_ok(n);
    for (int i = 0; i < n && i < 8; i++)
        if (strcmp(members[i].name, name) == 0)
            return members[i].flags;
    fail_msg("no member is called %s", name);
    return 0;
}

static void test_p7_evict_stalled_reader_learns_exact_loss_and_gates_again(void **state)
{
    struct support_numbers r;
    ps_bus *a, *b;
    uint64_t published = 0, moved;
    int tries;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    evict_meet(&a, "depth=4&evict=40", &b, "name=stalled", &r);
    moved = support_now_ms();
    for (uint64_t evicted = 1; evicted <= 3; evicted++) {
        assert_int_equal(conform_fill(a, "t", published, 100), 4);
        published += 4;
        tries = evict_insist(a, published);
        assert_ok(tries);
        published++;
        /* Not before its time, and not ages after it. Tries, not time: the machine may stand still. */
        assert_true(support_now_ms() - moved >= 39);
        assert_true(tries < 2000);
        for (int i = 1; i < 50; i++, published++)       /* far beyond what the ring holds */
            assert_int_equal(evict_insist(a, published), 0);
        assert_int_equal(conform_stats(a).evictions, evicted);
        if (conform_backend->can & PS_CAN_MEMBERS)
            assert_true(evict_flags(a, "stalled") & PS_MEMBER_EVICTED);
        assert_true(conform_stats(b).lost >= evicted * 50);     /* before any dispatch */
        moved = support_now_ms();
        conform_drain(b);
        assert_int_equal(r.wrong, 0);
        assert_int_equal(r.delivered + r.lost, published);
        assert_int_equal(conform_stats(b).lost, r.lost);
        assert_int_equal(conform_stats(b).evicted, evicted);
        if (conform_backend->can & PS_CAN_MEMBERS)
            assert_false(evict_flags(a, "stalled") & PS_MEMBER_EVICTED);
    }
    conform_close(a);
    conform_close(b);
}

/* A single blocking publish sees to it by itself. */
static void test_p7_evict_by_blocked_publish(void **state)
{
    struct support_numbers r;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    evict_meet(&a, "depth=4&evict=40&block=-1", &b, NULL, &r);
    for (uint64_t i = 0; i < 20; i++)
        assert_ok(ps_publish(a, "t", &i, sizeof i));
    conform_drain(b);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(r.delivered + r.lost, 20);
    assert_int_equal(conform_stats(a).evictions, 1);
    conform_close(a);
    conform_close(b);
}

/* An evicted pull handle that still holds a message keeps it whole. */
static void test_p7_evict_message_in_hand_stays_whole(void **state)
{
    ps_bus *a, *b;
    const ps_msg *msg;
    uint64_t number = 4711, lost = 0, seen;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=4&evict=20");
    b = conform_open(NULL);
    conform_subscribe(b, "t", NULL);
    assert_int_equal(ps_publish(a, "t", &number, sizeof number), 1);
    assert_int_equal(ps_next(b, &msg, 0), 1);
    for (uint64_t i = 0; i < 100; i++)
        assert_ok(evict_insist(a, i));
    assert_memory_equal(msg->data, &number, sizeof number);
    assert_string_equal(msg->topic, "t");
    for (seen = 0; ps_next(b, &msg, 0) == 1; seen++)
        lost += msg->lost;
    assert_int_equal(seen + lost, 100);
    conform_close(a);
    conform_close(b);
}

static void test_evict_never_when_told_so(void **state)
{
    struct support_numbers r;
    ps_bus *a, *b;
    uint64_t end;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    evict_meet(&a, "depth=2&evict=-1", &b, NULL, &r);
    assert_int_equal(conform_fill(a, "t", 0, 100), 2);
    for (end = support_now_ms() + 1500; support_now_ms() < end; conform_pause_ms(1))     /* longer than the default */
        assert_int_equal(ps_publish(a, "t", &end, sizeof end), PS_EAGAIN);
    assert_int_equal(conform_drain(b), 2);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(r.lost, 0);
    assert_int_equal(conform_stats(b).evicted, 0);
    conform_close(a);
    conform_close(b);
}

/* However slow: whoever moves between two refusals is not stalled. */
static void test_evict_slow_but_moving_reader_never(void **state)
{
    struct support_numbers r;
    ps_bus *a, *b;
    uint64_t published;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    evict_meet(&a, "depth=4&evict=100", &b, NULL, &r);
    published = (uint64_t)conform_fill(a, "t", 0, 100);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(ps_publish(a, "t", &published, sizeof published), PS_EAGAIN);
        conform_pause_ms(60);                   /* together far more than the limit */
        assert_int_equal(ps_dispatch(b, 1, 0), 1);
        published += (uint64_t)conform_fill(a, "t", published, 1);
    }
    conform_drain(b);
    assert_int_equal(r.wrong, 0);
    assert_int_equal(r.lost, 0);
    assert_int_equal(r.delivered, published);
    assert_int_equal(conform_stats(b).evicted, 0);
    assert_int_equal(conform_stats(a).evictions, 0);
    conform_close(a);
    conform_close(b);
}

/* A stall is a reader that does not move although somebody is refused: time alone evicts nobody. */
static void test_evict_idle_reader_of_a_quiet_bus_never(void **state)
{
    struct support_numbers r;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    evict_meet(&a, "depth=4&evict=20", &b, NULL, &r);
    assert_int_equal(conform_fill(a, "t", 0, 100), 4);
    conform_pause_ms(100);
    /* The publisher that slept through all of it itself must look again before it judges. */
    assert_int_equal(ps_publish(a, "t", "refused!", 8), PS_EAGAIN);
    conform_drain(b);
    assert_int_equal(r.delivered, 4);
    assert_int_equal(r.lost, 0);
    assert_int_equal(conform_stats(b).evicted, 0);
    conform_close(a);
    conform_close(b);
}

static void test_evict_own_handle_never(void **state)
{
    struct support_numbers r;
    ps_bus *a;
    uint64_t end;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&r, 0, sizeof r);
    a = conform_open("depth=4&evict=20");
    assert_ok(ps_subscribe(a, "t", support_take_number, &r, NULL, NULL));
    assert_int_equal(conform_fill(a, "t", 0, 100), 4);
    for (end = support_now_ms() + 150; support_now_ms() < end; conform_pause_ms(1))
        assert_int_equal(ps_publish(a, "t", &end, sizeof end), PS_EAGAIN);
    assert_int_equal(conform_drain(a), 4);
    assert_int_equal(r.lost, 0);
    assert_int_equal(r.wrong, 0);
    conform_close(a);
}

/* One stalled reader costs the others nothing but the wait. */
static void test_p7_evict_healthy_readers_lose_nothing(void **state)
{
    struct support_numbers stalled, healthy;
    ps_bus *a, *b, *c;
    uint64_t published = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&stalled, 0, sizeof stalled);
    memset(&healthy, 0, sizeof healthy);
    a = conform_open("depth=8&evict=40");
    b = conform_open(NULL);
    c = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", support_take_number, &stalled, NULL, NULL));
    assert_ok(ps_subscribe(c, "t", support_take_number, &healthy, NULL, NULL));
    for (; published < 200; published++) {
        assert_ok(evict_insist(a, published));
        conform_drain(c);
    }
    assert_int_equal(healthy.delivered, 200);
    assert_int_equal(healthy.wrong, 0);
    assert_int_equal(healthy.lost, 0);
    assert_int_equal(conform_stats(c).evicted, 0);
    conform_drain(b);
    assert_int_equal(stalled.wrong, 0);
    assert_int_equal(stalled.delivered + stalled.lost, 200);
    assert_int_equal(conform_stats(a).evictions, 1);
    conform_close(a);
    conform_close(b);
    conform_close(c);
}

/* Subscriptions survive an eviction, and new ones may come in the middle of it. */
static void test_evict_subscriptions_stay(void **state)
{
    static struct conform_log log, second;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=4&evict=20");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    for (uint64_t i = 0; i < 20; i++)
        assert_ok(evict_insist(a, i));
    assert_int_equal(ps_wanted(a, "t"), 1);     /* evicted ones count */
    conform_subscribe(b, "u", &second);
    conform_say(a, "u", "x");
    conform_drain(b);
    assert_int_equal(atomic_load(&second.count), 1);
    assert_int_equal((uint64_t)atomic_load(&log.count) + log.lost + second.lost, 20);
    conform_say(a, "t", "x");
    assert_int_equal(conform_drain(b), 1);
    conform_close(a);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_p7_evict_stalled_reader_learns_exact_loss_and_gates_again),
    conform_test(test_p7_evict_by_blocked_publish),
    conform_test(test_p7_evict_message_in_hand_stays_whole),
    conform_test(test_evict_never_when_told_so),
    conform_test(test_evict_slow_but_moving_reader_never),
    conform_test(test_evict_idle_reader_of_a_quiet_bus_never),
    conform_test(test_evict_own_handle_never),
    conform_test(test_p7_evict_healthy_readers_lose_nothing),
    conform_test(test_evict_subscriptions_stay),
};
CONFORM_AREA(conform_evict_area);
