/* SPDX-License-Identifier: MIT */
/*
 * test_lanes.c - a reader of several publishers' lanes: what one lane does to it is nothing to the others.
 */
#include "forge.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct heard {
    ps_bus *bus;
    unsigned from[2], lost;             /* by what the message says of its publisher */
    uint64_t lost_inside;               /* as ps_stats said in the first handler */
    int runs;
};

static void heard_take(const ps_msg *msg, void *user)
{
    struct heard *h = user;
    h->from[*(const char *)msg->data == 'y']++;
    h->lost += (unsigned)msg->lost;
    if (h->runs++ == 0)
        h->lost_inside = forge_stats(h->bus).lost;
}

static void lanes_open(const char *options, const char *x_options, const char *y_options, const char *r_options, ps_bus **x,
                       ps_bus **y, struct heard *h)
{
    char url[300];
    const char *base = support_url("shm", "lanes", options);
    memset(h, 0, sizeof *h);
    snprintf(url, sizeof url, "%s%s", base, x_options);
    assert_ok(ps_open(x, url));
    snprintf(url, sizeof url, "%s%s", base, y_options);
    assert_ok(ps_open(y, url));
    snprintf(url, sizeof url, "%s%s", base, r_options);
    assert_ok(ps_open(&h->bus, url));
    assert_ok(ps_subscribe(h->bus, "t", heard_take, h, NULL, NULL));
}

static void lanes_close(ps_bus *x, ps_bus *y, struct heard *h)
{
    assert_ok(ps_close(h->bus));
    assert_ok(ps_close(x));
    assert_ok(ps_close(y));
}

/* While it takes its turn in one lane, it stands still in the other, for longer than that one's publisher has patience. */
static void test_p5_reader_that_moves_in_another_lane_is_not_evicted(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *y;
    lanes_open("depth=64&evict=30", "", "", "", &x, &y, &h);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(ps_publish(x, "t", "x", 1), 1);
        assert_int_equal(ps_publish(y, "t", "y", 1), 1);
    }
    for (uint64_t begin = support_now_ms(); support_now_ms() - begin < 120 && h.from[0] + h.from[1] < 60;) {
        nap_us(2000);
        (void)ps_publish(x, "t", "x", 1);
        (void)ps_publish(y, "t", "y", 1);
        assert_int_equal(ps_dispatch(h.bus, 1, 0), 1);
    }
    assert_int_equal(forge_stats(x).evictions + forge_stats(y).evictions, 0);
    lanes_close(x, y, &h);
}

/* But not for ever: one that goes on elsewhere and never comes round, as it cannot map this lane, say, holds nobody. */
static void test_p5_reader_that_never_comes_round_is_evicted(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *y;
    lanes_open("depth=64&evict=3", "", "", "", &x, &y, &h);
    assert_int_equal(ps_publish(x, "t", "x", 1), 1);
    for (int i = 0; i < 64; i++)
        assert_int_equal(ps_publish(y, "t", "y", 1), 1);
    struct ps__port *reader = &forge_shm(h.bus)->port;
    ps__a64 *elsewhere = &reader->reader[reader->slot]->cursor[forge_shm(x)->port.slot];
    for (uint64_t begin = support_now_ms(); ps_publish(y, "t", "y", 1) == PS_EAGAIN;) {
        assert_true(support_now_ms() - begin < DEADLINE_MS);
        ps__store_rel(elsewhere, ps__load_rlx(elsewhere) + 1);
        nap_us(500);
    }
    assert_int_equal(forge_stats(y).evictions, 1);
    lanes_close(x, y, &h);
}

/* Evicted by x, it joins again; y has waited for it all the while. */
static void test_p5_evicted_by_one_publisher_loses_nothing_of_another(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *y;
    lanes_open("depth=64", "&evict=-1", "&evict=0", "", &y, &x, &h);     /* it looks at the second lane first */
    for (int i = 0; i < 50; i++)
        assert_int_equal(ps_publish(y, "t", "y", 1), 1);
    for (int i = 0; i < 70; i++)
        assert_true(ps_publish(x, "t", "x", 1) >= 0);
    assert_int_equal(forge_stats(x).evictions, 1);
    assert_int_equal(forge_stats(y).evictions, 0);
    while (ps_dispatch(h.bus, 0, 0) > 0) { }
    assert_int_equal(h.from[1], 50);
    assert_int_equal(h.from[0] + h.lost, 70);
    /* And y waits for it in its new join as well. */
    unsigned sent = 0;
    for (int rc; (rc = ps_publish(y, "t", "y", 1)) != PS_EAGAIN; sent++)
        assert_int_equal(rc, 1);
    assert_int_equal(sent, 64);
    lanes_close(x, y, &h);
}

/* A member says of its lane what is not so. The others' messages are read all the same, and the error is told when there are none. */
static void test_p9_lane_that_cannot_be_mapped_keeps_no_other_from_being_read(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *bad;
    lanes_open("depth=64", "", "", "", &x, &bad, &h);
    struct ps__port *port = &forge_shm(bad)->port;
    assert_int_equal(ps_publish(x, "t", "x", 1), 1);
    ps__raise(&port->words->lanes_high, port->slot + 1);
    ps__store_rel(&port->own.lane->ring, ps__load_acq(&forge_shm(x)->port.own.lane->ring));
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(ps_publish(x, "t", "x", 1), 1);
        assert_true(ps_dispatch(h.bus, 0, 0) > 0);
        assert_int_equal(h.from[0], i + 2);
    }
    assert_true(ps_dispatch(h.bus, 0, 0) < 0);
    ps__store_rel(&port->own.lane->ring, 0);
    lanes_close(x, bad, &h);
}

/* What was lost once stays so, also while a dispatch comes to it, lane by lane. */
static void test_p5_lost_of_many_lanes_never_falls(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *y;
    lanes_open("depth=16", "", "", "&lossy=1", &x, &y, &h);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ps_publish(x, "t", "x", 1), 1);
        assert_int_equal(ps_publish(y, "t", "y", 1), 1);
    }
    uint64_t before = forge_stats(h.bus).lost;
    assert_int_equal(before, 2 * (100 - 16));
    assert_int_equal(ps_dispatch(h.bus, 0, 0), 32);
    assert_int_equal(h.lost_inside, before);
    assert_int_equal(forge_stats(h.bus).lost, before);
    lanes_close(x, y, &h);
}

/* A dispatch that learns of room handles messages as well. The next one that waits says so. */
static void test_full_told_behind_a_dispatch_that_handled_something(void **state)
{
    (void)state;
    struct heard h;
    ps_bus *x, *y;
    lanes_open("depth=2", "", "", "", &x, &y, &h);
    assert_ok(ps_subscribe(x, "in", heard_take, &h, NULL, NULL));
    assert_true(ps_fd(x) >= 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ps_publish(x, "t", "x", 1), 1);
    assert_int_equal(ps_dispatch(x, 0, 0), 0);
    assert_int_equal(ps_publish(x, "t", "x", 1), PS_EAGAIN);
    assert_int_equal(ps_dispatch(h.bus, 0, 0), 2);
    assert_int_equal(ps_publish(y, "in", "y", 1), 1);
    assert_int_equal(ps_dispatch(x, 0, DEADLINE_MS), 1);
    assert_int_equal(ps_dispatch(x, 0, -1), 0);
    assert_int_equal(ps_publish(x, "t", "x", 1), 1);
    lanes_close(x, y, &h);
}

/* In a child, which would go on for minutes if it spun for as long as it may. */
static int spinner(void *arg)
{
    ps_bus *bus;
    int rc = 0;
    if (ps_open(&bus, arg) || ps_subscribe(bus, "t", heard_take, NULL, NULL, NULL))
        return 1;
    for (int i = 0; i < 200 && rc == 0; i++)
        rc = ps_dispatch(bus, 0, 1);
    return rc != 0 || ps_close(bus) != 0;
}

static void test_spin_ends_with_the_time_that_was_given(void **state)
{
    (void)state;
    char url[200];
    snprintf(url, sizeof url, "%s", support_url("shm", "spin", "spin=1000000"));
    assert_int_equal(support_reap(support_child(spinner, url), DEADLINE_MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p5_reader_that_moves_in_another_lane_is_not_evicted),
        cmocka_unit_test(test_p5_reader_that_never_comes_round_is_evicted),
        cmocka_unit_test(test_p5_evicted_by_one_publisher_loses_nothing_of_another),
        cmocka_unit_test(test_p9_lane_that_cannot_be_mapped_keeps_no_other_from_being_read),
        cmocka_unit_test(test_p5_lost_of_many_lanes_never_falls),
        cmocka_unit_test(test_full_told_behind_a_dispatch_that_handled_something),
        cmocka_unit_test(test_spin_ends_with_the_time_that_was_given),
    };
    return cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
}
