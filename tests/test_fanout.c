/* SPDX-License-Identifier: MIT */
/*
 * test_fanout.c - publishing costs the same for 1 subscriber and for 64: not measured in time, but in what a publish uses. And
 * a message that a handle wants many times costs it so many times, which has to be measured.
 */
#include "support.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define MANY 64

static void count_message(const ps_msg *msg, void *user)
{
    (void)msg;
    ++*(int *)user;
}

/* With that many subscribers: the messages a ring takes before it is full, the memory of the bus, the bells rung. */
static void fill_ring(const char *scheme, int subscribers, int *taken, uint64_t *memory, uint64_t *wakes)
{
    const char *url = support_url(scheme, "fanout", "depth=32&bytes=4096&members=80&evict=-1");
    ps_bus *reader[MANY], *publisher;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    int heard[MANY] = { 0 }, rc;
    for (int i = 0; i < subscribers; i++) {
        assert_ok(ps_open(&reader[i], url));
        assert_ok(ps_subscribe(reader[i], "t", count_message, &heard[i], NULL, NULL));
    }
    assert_ok(ps_open(&publisher, url));
    for (*taken = 0; (rc = ps_publish(publisher, "t", "0123456789", 10)) >= 0; ++*taken)
        assert_int_equal(rc, subscribers);
    assert_int_equal(rc, PS_EAGAIN);
    assert_ok(ps_stats(publisher, &stats));
    *memory = stats.memory;
    *wakes = stats.wakes;
    for (int i = 0; i < subscribers; i++) {
        assert_int_equal(ps_dispatch(reader[i], 0, 0), *taken);
        assert_int_equal(heard[i], *taken);
        assert_ok(ps_close(reader[i]));
    }
    assert_ok(ps_close(publisher));
}

/* A message lies in the ring once, whoever wants it: no place, byte or bell more for 64 than for 1. */
static void fanout_is_flat(const char *scheme)
{
    int taken_one, taken_many;
    uint64_t memory_one, memory_many, wakes_one, wakes_many;
    fill_ring(scheme, 1, &taken_one, &memory_one, &wakes_one);
    fill_ring(scheme, MANY, &taken_many, &memory_many, &wakes_many);
    assert_int_equal(taken_one, 32);
    assert_int_equal(taken_many, 32);
    assert_int_equal(wakes_one, 0);
    assert_int_equal(wakes_many, 0);
    if (strcmp(scheme, "shm") == 0) assert_int_equal(memory_one, memory_many);  /* in inproc the readers' areas count */
}

static void test_p2_message_is_stored_once_for_64_subscribers_shm(void **state)
{
    (void)state;
    fanout_is_flat("shm");
}

static void test_p2_message_is_stored_once_for_64_subscribers_inproc(void **state)
{
    (void)state;
    fanout_is_flat("inproc");
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The least processor time that one message takes its handle. */
static uint64_t cost_of_message(int subscriptions)
{
    ps_bus *bus;
    uint64_t least = UINT64_MAX;
    int heard = 0;
    assert_ok(ps_open(&bus, support_url("inproc", "fanout", "")));
    for (int i = 0; i < subscriptions; i++)
        assert_ok(ps_subscribe(bus, "t", count_message, &heard, NULL, NULL));
    for (int round = 0; round < 6; round++) {
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        uint64_t begin = cpu_ns(), took;
        assert_int_equal(ps_dispatch(bus, 0, 0), 1);
        took = cpu_ns() - begin;
        least = took < least ? took : least;
    }
    assert_int_equal(heard, 6 * subscriptions);
    assert_ok(ps_close(bus));
    return least;
}

/* 16 times as many cost 16 times as much and a little, far from the 256 times of their square. */
static void test_dispatch_to_many_subscriptions_of_one_topic_costs_their_number(void **state)
{
    (void)state;
    uint64_t few = cost_of_message(2000), many = cost_of_message(32000);
    print_message("2000 subscriptions: %llu ns, 32000: %llu ns\n", (unsigned long long)few, (unsigned long long)many);
    assert_true(many < 100 * few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p2_message_is_stored_once_for_64_subscribers_shm),
        cmocka_unit_test(test_p2_message_is_stored_once_for_64_subscribers_inproc),
        cmocka_unit_test(test_dispatch_to_many_subscriptions_of_one_topic_costs_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
