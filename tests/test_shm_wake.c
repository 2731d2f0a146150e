/* SPDX-License-Identifier: MIT */
/*
 * test_shm_wake.c - a sleeper in another process is always woken. The test variant of the library has no insurance (no look
 * without a ring), so a lost wake-up is a sleep to the end.
 */
#include "actors.h"

#include <poll.h>

#define WAKE_ROUNDS 15000
#define WAKE_MS     5000                /* far beyond any wake: who sleeps that long was forgotten */

enum { DISPATCH_ALL, DISPATCH_ONE, POLL_FD, WAYS };

struct sleeper {
    struct stage *stage;
    int way;
};

/* Sleeps until count messages came: 0, or -1 when one sleep lasted too long. */
static int sleep_until(ps_bus *bus, int way, const struct inbox *in, uint64_t count)
{
    while (in->count < count) {
        struct pollfd p = { way == POLL_FD ? ps_fd(bus) : -1, POLLIN, 0 };
        if (way == POLL_FD && poll(&p, 1, WAKE_MS) != 1)
            return -1;
        int rc = ps_dispatch(bus, way == DISPATCH_ONE, way == POLL_FD ? 0 : WAKE_MS);
        if (rc < 0 || (rc == 0 && way != POLL_FD))
            return -1;
    }
    return 0;
}

static int answering_child(void *arg)
{
    const struct sleeper *me = arg;
    struct stage *s = me->stage;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "ping", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    s->ready = 1;
    for (uint64_t i = 0; i < WAKE_ROUNDS; i++) {
        CHILD_CHECK(s, sleep_until(bus, me->way, &s->inbox[0], i + 1) == 0);
        CHILD_CHECK(s, say(bus, "pong", 2, i, 40) == 1);
    }
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p3_sleepers_in_two_processes_are_always_woken(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct stage *s = stage_new(scratch_url("bus", ""));
        struct sleeper other = { s, way };
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        assert_ok(ps_subscribe(bus, "pong", inbox_take, &s->inbox[1], NULL, NULL));
        pid_t child = start_child(answering_child, &other);
        assert_true(wait_word(&s->ready, 1));
        for (uint64_t i = 0; i < WAKE_ROUNDS; i++) {
            assert_int_equal(say(bus, "ping", 1, i, 40), 1);
            if (sleep_until(bus, way, &s->inbox[1], i + 1) != 0)
                fail_msg("way %d, round %d: a sleep of %d ms with a message there (child's line %d)", way, (int)i, WAKE_MS,
                         (int)s->line);
        }
        s->done = 1;
        assert_child(s, child);
        assert_ok(ps_close(bus));
    }
}

/* ---------------------------------------------------------------- publishing just when the other side falls asleep */

#define RACE_ROUNDS 40000

static int dozing_child(void *arg)
{
    const struct sleeper *me = arg;
    struct stage *s = me->stage;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "ping", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    s->ready = 1;
    for (uint64_t i = 1; i <= RACE_ROUNDS; i++) {
        CHILD_CHECK(s, sleep_until(bus, me->way, &s->inbox[0], i) == 0);
        s->go = i;
    }
    return ps_close(bus) == 0 ? 0 : 2;
}

static int beats(const struct stage *s, uint64_t count)
{
    uint64_t end = support_now_ms() + 2 * WAKE_MS;
    for (uint64_t turn = 1; s->go < count; turn++) {
        /* On one processor the other side needs it; on two this must not sleep, or the race is over before it begins. */
        if (turn % 4096 == 0)
            sched_yield();
        if (turn % (1 << 20) == 0 && support_now_ms() > end)
            return 0;
    }
    return 1;
}

static void test_p3_message_that_comes_while_the_reader_falls_asleep_wakes_it(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct stage *s = stage_new(scratch_url("bus", ""));
        struct sleeper other = { s, way };
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        pid_t child = start_child(dozing_child, &other);
        assert_true(wait_word(&s->ready, 1));
        for (uint64_t i = 0; i < RACE_ROUNDS; i++) {
            if (!beats(s, i))
                fail_msg("way %d, round %d: a sleep with a message there (child's line %d)", way, (int)i, (int)s->line);
            /* From at once to a few microseconds later: the time it takes to arm and look. */
            for (volatile uint64_t spin = support_random() % 2000; spin; spin--)
                ;
            assert_int_equal(say(bus, "ping", 1, i, 40), 1);
        }
        assert_child(s, child);
        assert_ok(ps_close(bus));
    }
}

#define WAKE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WAKE_TEST(test_p3_sleepers_in_two_processes_are_always_woken),
        WAKE_TEST(test_p3_message_that_comes_while_the_reader_falls_asleep_wakes_it),
    };
    return cmocka_run_group_tests_name("shm_wake", tests, NULL, NULL);
}
