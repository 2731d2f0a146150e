/* SPDX-License-Identifier: MIT */
/*
 * test_lag.c - a reader that stays behind a flood on purpose: when it pauses, for how long, and how it gives that up.
 */
#include "../lib/ring/ring.h"

#include "support.h"

static struct ps__port port;

static int lag_setup(void **state)
{
    (void)state;
    memset(&port, 0, sizeof port);
    return 0;
}

/* At the head after that many messages. */
static int at_head(unsigned got, enum ps__lag_at at)
{
    port.lag.got = got;
    return ps__lag_pause(&port, at);
}

static void test_lag_nothing_read_or_marked_never_pauses(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(at_head(0, (enum ps__lag_at)(i % 3)), 0);
    port.marked = 1;
    for (int i = 0; i < 100; i++)
        assert_int_equal(at_head(1000, (enum ps__lag_at)(i % 3)), 0);
    assert_int_equal(port.lag.got, 1000);               /* left for the look after the mark */
    assert_int_equal(port.lag.ns, 0);
}

static void test_lag_in_step_with_the_producer_tries_every_other_time(void **state)
{
    (void)state;
    assert_int_equal(at_head(1, PS__LAG_IN_STEP), 0);
    assert_int_equal(at_head(1, PS__LAG_IN_STEP), 1);
    assert_int_equal(port.lag.got, 0);
    assert_int_equal(port.lag.ns, 250);
    assert_int_equal(at_head(1, PS__LAG_IN_STEP), 0);                 /* the pause brought one message: not worth it, again later */
    assert_int_equal(at_head(1, PS__LAG_IN_STEP), 1);
}

static void test_lag_grows_while_it_pays_up_to_its_bounds(void **state)
{
    (void)state;
    static const unsigned grown[] = { 250, 500, 1000, 2000, 4000, 4000, 4000 };
    for (size_t i = 0; i < sizeof grown / sizeof *grown; i++) {
        uint64_t began = ps__now_ns();
        assert_int_equal(at_head(200, PS__LAG_EMPTY), 1);
        assert_true(ps__now_ns() - began >= grown[i]);
        assert_int_equal(port.lag.ns, grown[i]);
    }
    lag_setup(NULL);
    for (int i = 0; i < 5; i++)
        assert_int_equal(at_head(256, PS__LAG_EMPTY), 1);           /* enough at once: no longer than that */
    assert_int_equal(port.lag.ns, 250);
    assert_int_equal(at_head(3, PS__LAG_EMPTY), 1);                 /* just worth it */
    assert_int_equal(port.lag.ns, 500);
    port.lag.try = 100;
    assert_int_equal(at_head(2, PS__LAG_EMPTY), 0);                 /* and no more */
    assert_int_equal(port.lag.ns, 0);
    assert_int_equal(port.lag.try, 100);
}

static void test_lag_in_vain_is_tried_ever_more_rarely(void **state)
{
    (void)state;
    static const unsigned tries[] = { 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 4095, 4096, 4096 };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        unsigned waited = 0;
        while (!at_head(1, PS__LAG_EMPTY))
            waited++;
        assert_int_equal(waited, i ? tries[i - 1] : 0);
        ps__lag_failed(&port);
        assert_int_equal(port.lag.try, tries[i]);
        assert_int_equal(port.lag.ns, 0);
    }
    while (!at_head(1, PS__LAG_EMPTY))
        ;
    assert_int_equal(at_head(100, PS__LAG_EMPTY), 1);               /* a flood after all */
    assert_int_equal(port.lag.try, 1);
}

/* Who publishes and dispatches in turn finds one message each time, which was there before the pause. */
static void test_lag_at_a_beginning_little_is_in_vain(void **state)
{
    (void)state;
    static const unsigned tries[] = { 1, 3, 7, 15, 31 };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        while (!at_head(1, PS__LAG_BEGIN))
            ;
        assert_int_equal(at_head(2, PS__LAG_BEGIN), 0);
        assert_int_equal(port.lag.try, tries[i]);
        assert_int_equal(port.lag.paused, 0);
    }
    while (!at_head(1, PS__LAG_BEGIN))
        ;
    assert_int_equal(at_head(3, PS__LAG_BEGIN), 1);
    assert_int_equal(port.lag.try, 1);
}

#define LAG_TEST(name) cmocka_unit_test_setup(name, lag_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAG_TEST(test_lag_nothing_read_or_marked_never_pauses),
        LAG_TEST(test_lag_in_step_with_the_producer_tries_every_other_time),
        LAG_TEST(test_lag_grows_while_it_pays_up_to_its_bounds),
        LAG_TEST(test_lag_in_vain_is_tried_ever_more_rarely),
        LAG_TEST(test_lag_at_a_beginning_little_is_in_vain),
    };
    return cmocka_run_group_tests_name("lag", tests, NULL, NULL);
}
