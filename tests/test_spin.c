/* SPDX-License-Identifier: MIT */
/*
 * test_spin.c - spin=US: whoever waits looks for that long before it sleeps, and whatever ends a sleep ends that too.
 */
#include "support.h"

#include <pthread.h>

#define ROUNDS 300

struct player {
    ps_bus *bus;
    const char *answers;                /* the topic it sends on */
    int left, code;
};

static void play(const ps_msg *msg, void *user)
{
    struct player *p = user;
    (void)msg;
    int rc = ps_publish(p->bus, p->answers, "x", 1);
    if (rc < 0)
        p->code = rc;
    p->left--;
}

static void *player_thread(void *arg)
{
    struct player *p = arg;
    while (p->left > 0 && !p->code) {
        int rc = ps_dispatch(p->bus, 1, DEADLINE_MS);
        if (rc <= 0)
            p->code = rc < 0 ? rc : PS_EAGAIN;
    }
    return NULL;
}

static uint64_t sleeps_of(ps_bus *bus)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    assert_ok(ps_stats(bus, &stats));
    return stats.sleeps;
}

/* Sleeps of both players of a game, each of whose moves is waited for. */
static uint64_t game(const char *scheme, const char *options)
{
    struct player a = { .answers = "pong", .left = ROUNDS }, b = { .answers = "ping", .left = ROUNDS };
    const char *url = support_url(scheme, "spin", options);
    pthread_t thread;
    assert_ok(ps_open(&a.bus, url));
    assert_ok(ps_open(&b.bus, url));
    assert_ok(ps_subscribe(a.bus, "ping", play, &a, NULL, NULL));
    assert_ok(ps_subscribe(b.bus, "pong", play, &b, NULL, NULL));
    assert_int_equal(ps_publish(b.bus, "ping", "x", 1), 1);
    assert_int_equal(pthread_create(&thread, NULL, player_thread, &a), 0);
    player_thread(&b);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(a.code, 0);
    assert_int_equal(b.code, 0);
    uint64_t sleeps = sleeps_of(a.bus) + sleeps_of(b.bus);
    assert_ok(ps_close(a.bus));
    assert_ok(ps_close(b.bus));
    return sleeps;
}

static void test_spin_message_in_time_costs_no_sleep(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int i = 0; i < 2; i++) {
        /* A machine with much else to do may keep one side away for longer than the other looks; not half of the time. */
        assert_true(game(schemes[i], "spin=1000000") < ROUNDS);
    }
}

static void test_spin_nothing_in_time_sleeps_until_the_timeout(void **state)
{
    (void)state;
    ps_bus *bus;
    int none = 0;
    assert_ok(ps_open(&bus, support_url("inproc", "spin", "spin=1000")));
    assert_ok(ps_subscribe(bus, "t", play, &none, NULL, NULL));
    uint64_t began = support_now_ms();
    assert_int_equal(ps_dispatch(bus, 0, 30), 0);
    assert_true(support_now_ms() - began >= 29);
    assert_true(sleeps_of(bus) >= 1);
    assert_ok(ps_close(bus));
}

static void *stop_thread(void *arg)
{
    ps_stop(arg);
    return NULL;
}

static void test_spin_stopped_ends_without_a_sleep_to_the_end(void **state)
{
    (void)state;
    ps_bus *bus;
    int none = 0;
    assert_ok(ps_open(&bus, support_url("shm", "spin", "spin=1000000")));
    assert_ok(ps_subscribe(bus, "t", play, &none, NULL, NULL));
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stop_thread, bus), 0);
        int rc = ps_run(bus);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(rc, 0);
    }
    assert_ok(ps_close(bus));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spin_message_in_time_costs_no_sleep),
        cmocka_unit_test(test_spin_nothing_in_time_sleeps_until_the_timeout),
        cmocka_unit_test(test_spin_stopped_ends_without_a_sleep_to_the_end),
    };
    return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
