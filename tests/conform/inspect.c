/* SPDX-License-Identifier: MIT */
/* inspect.c - conformance: ps_stats, observers. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

/* ------------------------------------------------------------------ ps_stats */

static void test_stats_null_or_size_0_refused(void **state)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    assert_int_equal(ps_stats(bus, NULL), PS_EINVAL);
    stats.size = 0;
    assert_int_equal(ps_stats(bus, &stats), PS_EINVAL);
    conform_close(bus);
}

/* An older caller's smaller struct is filled as far as it goes; a newer caller's larger one is zeroed beyond. */
static void test_stats_other_sizes_filled_as_far_as_both_know(void **state)
{
    union { ps_bus_stats stats; unsigned char bytes[sizeof (ps_bus_stats) + 64]; } u;
    const size_t small = offsetof(ps_bus_stats, delivered);
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    conform_subscribe(bus, "t", &log);
    conform_say(bus, "t", "x");
    memset(&u, 0xa5, sizeof u);
    u.stats.size = small;
    assert_int_equal(ps_stats(bus, &u.stats), 0);
    assert_int_equal(u.stats.published, 1);
    assert_int_equal(u.stats.publisher, conform_stats(bus).publisher);
    for (size_t at = small; at < sizeof u; at++)
        assert_int_equal(u.bytes[at], 0xa5);
    memset(&u, 0xa5, sizeof u);
    u.stats.size = sizeof (ps_bus_stats) + 32;
    assert_int_equal(ps_stats(bus, &u.stats), 0);
    assert_int_equal(u.stats.published, 1);
    assert_int_equal(u.stats.memory, conform_stats(bus).memory);
    for (size_t at = sizeof (ps_bus_stats); at < sizeof (ps_bus_stats) + 32; at++)
        assert_int_equal(u.bytes[at], 0);
    for (size_t at = sizeof (ps_bus_stats) + 32; at < sizeof u; at++)
        assert_int_equal(u.bytes[at], 0xa5);
    conform_close(bus);
}

static void test_stats_fresh_handle_counters_0_limits_not(void **state)
{
    ps_bus *bus = conform_open("depth=100&bytes=100k&members=7");
    ps_bus_stats stats = conform_stats(bus);

    (void)state;
    assert_int_not_equal(stats.publisher, 0);
    assert_int_equal(stats.published | stats.delivered | stats.unwanted | stats.lost | stats.refused | stats.evicted |
                     stats.evictions | stats.wakes | stats.sleeps | stats.corrupt, 0);
    assert_true(stats.depth > 0);
    assert_true(stats.message_max >= 100 * 1024 / 4);
    if (conform_has_ring()) {
        assert_true(stats.depth >= 100 && stats.depth <= 200);      /* rounded up */
        assert_true(stats.bytes >= 100 * 1024);
        assert_int_equal(stats.members, 7);
        assert_true(stats.memory > 0);
    }
    conform_close(bus);
}

static void test_stats_count_what_happened(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open("depth=4&evict=-1"), *b = conform_open(NULL);

    (void)state;
    conform_subscribe(b, "t", &log);
    conform_subscribe(b, "t", &log);
    assert_int_equal(ps_publish(a, "other", "x", 1), 0);
    assert_int_equal(conform_fill(a, "t", 0, conform_has_ring() ? 100 : 4), 4);
    assert_int_equal(conform_stats(a).published, 4);
    assert_int_equal(conform_stats(a).refused, conform_has_ring());
    assert_int_equal(conform_stats(b).published, 0);
    assert_int_equal(conform_drain(b), 4);
    assert_int_equal(conform_stats(b).delivered, 8);
    assert_int_equal(conform_stats(a).delivered, 0);
    assert_int_equal(conform_stats(b).lost, 0);
    assert_int_equal(conform_stats(a).corrupt | conform_stats(b).corrupt, 0);
    conform_close(a);
    conform_close(b);
}

static void test_stats_wakes_and_sleeps_counted_once_per_sleep(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    uint64_t wakes, sleeps;
    int fd;

    (void)state;
    conform_need(PS_CAN_MEMBERS);               /* who sleeps is known */
    a = conform_open(NULL);
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    fd = ps_fd(b);
    assert_ok(fd);
    conform_drain(b);
    wakes = conform_stats(a).wakes;
    sleeps = conform_stats(b).sleeps;
    assert_true(sleeps >= 1);
    for (int i = 0; i < 100; i++)
        conform_say(a, "t", "x");
    assert_int_equal(conform_stats(a).wakes, wakes + 1);        /* rung once, not a hundred times */
    conform_drain(b);
    assert_true(conform_stats(b).sleeps > sleeps);
    conform_say(a, "t", "x");
    assert_int_equal(conform_stats(a).wakes, wakes + 2);
    conform_drain(b);
    conform_close(a);
    conform_close(b);
}

/* ------------------------------------------------------------------ observers */

static void test_observer_unsupported_said_so(void **state)
{
    ps_bus *bus, *observer = (ps_bus *)&bus;

    (void)state;
    if (conform_backend->can & PS_CAN_OBSERVE)
        skip();
    bus = conform_open(NULL);
    assert_int_equal(ps_open(&observer, conform_url("observe=1")), PS_ENOTSUP);
    assert_null(observer);
    assert_non_null(strstr(ps_errmsg(), "observe"));
    conform_close(bus);
}

static void test_observer_sees_and_is_not_seen(void **state)
{
    static struct conform_log log, reader_log;
    ps_bus *a, *b, *observer;
    void *data = &log;

    (void)state;
    conform_need(PS_CAN_OBSERVE);
    a = conform_open("depth=16");
    observer = conform_open("observe=1");
    conform_subscribe(observer, "#", &log);
    /* Only what others want. */
    assert_int_equal(ps_wanted(a, "t"), 0);
    assert_int_equal(ps_publish(a, "t", "x", 1), 0);
    assert_int_equal(conform_drain(observer), 0);
    b = conform_open(NULL);
    conform_subscribe(b, "t", &reader_log);
    assert_int_equal(ps_publish(a, "t", "seen", 5), 1);
    assert_int_equal(conform_drain(b), 1);
    assert_int_equal(conform_drain(observer), 1);
    assert_string_equal((char *)log.seen[0].head, "seen");
    assert_int_equal(log.bad, 0);
    if (conform_backend->can & PS_CAN_MEMBERS) {
        assert_int_equal(ps_members(a, NULL, NULL, 0), 2);
        assert_int_equal(ps_members(observer, NULL, NULL, 0), 2);
    }
    assert_int_equal(ps_wanted(observer, "t"), 1);
    /* It sends nothing. */
    assert_int_equal(ps_publish(observer, "t", "x", 1), PS_ENOTSUP);
    assert_int_equal(ps_fd(observer), PS_ENOTSUP);
    assert_int_equal(ps_loan(observer, "t", 1, &data), PS_ENOTSUP);
    assert_null(data);
    assert_int_equal(conform_stats(observer).publisher, 0);
    /* It holds nobody up, and counts what it misses. */
    for (int i = 0; i < 100; i++) {
        assert_int_equal(conform_fill(a, "t", 0, 10), 10);
        assert_int_equal(conform_drain(b), 10);
    }
    conform_drain(observer);
    assert_int_equal((uint64_t)atomic_load(&log.count) + log.lost, 1001);
    assert_true(log.lost > 0);
    conform_close(a);
    conform_close(b);
    conform_close(observer);
}

/* The bus is its members'; an observer does not keep it alive. */
static void test_observer_alone_is_no_member(void **state)
{
    static struct conform_log log;
    ps_bus *a, *observer;

    (void)state;
    conform_need(PS_CAN_OBSERVE);
    a = conform_open(NULL);
    observer = conform_open("observe=1");
    conform_subscribe(observer, "#", &log);
    conform_close(a);
    a = conform_open(NULL);
    conform_subscribe(a, "t", &log);
    conform_say(a, "t", "x");
    assert_int_equal(conform_drain(a), 1);
    conform_close(a);
    conform_close(observer);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_stats_null_or_size_0_refused),
    conform_test(test_stats_other_sizes_filled_as_far_as_both_know),
    conform_test(test_stats_fresh_handle_counters_0_limits_not),
    conform_test(test_stats_count_what_happened),
    conform_test(test_stats_wakes_and_sleeps_counted_once_per_sleep),
    conform_test(test_observer_unsupported_said_so),
    conform_test(test_observer_sees_and_is_not_seen),
    conform_test(test_observer_alone_is_no_member),
};
CONFORM_AREA(conform_inspect_area);
