/* SPDX-License-Identifier: MIT */
/* barrier.c - conformance: what is published after ps_subscribe() returned is seen, from wherever (promise 3). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

struct barrier {
    ps_bus    *bus;
    atomic_int turn;            /* odd: the subscriber may go on; even: the publisher */
    int        rounds, errors;
    struct conform_log log;
};

static int barrier_wait(struct barrier *b, int turn)
{
    return conform_reached(&b->turn, turn) ? 0 : -1;
}

static void *barrier_body(void *arg)
{
    struct barrier *b = arg;
    ps_sub *last = NULL;
    char topic[32];

    for (int i = 0; i < b->rounds; i++) {
        if (barrier_wait(b, 2 * i + 1) != 0)
            break;
        snprintf(topic, sizeof topic, "barrier/%d", i);
        if (last != NULL)
            b->errors += ps_unsubscribe(last) != 0;
        last = NULL;
        b->errors += ps_subscribe(b->bus, topic, conform_record, &b->log, NULL, &last) != 0;
        atomic_store(&b->turn, 2 * i + 2);
    }
    return NULL;
}

/* A message to a name that was subscribed to a moment ago: the publisher must not trust what it remembers of the name. */
static void test_p3_subscribe_is_a_barrier_between_threads(void **state)
{
    static struct barrier b;
    ps_bus *publisher;
    pthread_t thread;
    char topic[32];

    (void)state;
    conform_need(PS_CAN_BARRIER);
    publisher = conform_open(NULL);
    b.bus = conform_open(NULL);
    b.rounds = 3000;
    conform_start(&thread, barrier_body, &b);
    for (int i = 0; i < b.rounds; i++) {
        snprintf(topic, sizeof topic, "barrier/%d", i);
        if (i % 2)              /* once with something to remember, once without */
            b.errors += ps_publish(publisher, topic, "x", 1) < 0;
        atomic_store(&b.turn, 2 * i + 1);
        if (barrier_wait(&b, 2 * i + 2) != 0 || ps_publish(publisher, topic, "x", 1) < 1 ||
            ps_dispatch(b.bus, 0, 0) != 1) {
            b.errors++;
            break;
        }
    }
    atomic_store(&b.turn, 2 * b.rounds);
    b.errors += atomic_load(&b.log.count) != b.rounds;
    conform_join(thread);
    assert_int_equal(b.errors, 0);
    conform_close(publisher);
    conform_close(b.bus);
}

/*
 * The last subscription goes and another comes while the handle's dispatch sleeps: leaving and joining again must not lose
 * what is published to the new one, nor deliver anything of the old one.
 */
static void test_p3_subscribe_last_one_replaced_under_sleeping_dispatch(void **state)
{
    static struct barrier b;
    struct conform_dispatcher d;
    ps_bus *publisher;

    (void)state;
    conform_need(PS_CAN_BARRIER);
    publisher = conform_open(NULL);
    b.bus = conform_open(NULL);
    for (int i = 0; i < 500; i++) {
        ps_sub *sub;

        conform_dispatch_start(&d, b.bus, 1, DEADLINE_MS);
        sub = conform_subscribe(b.bus, "old", &b.log);
        if (i % 2)
            assert_int_equal(ps_publish(publisher, "unrelated", "x", 1), 0);
        assert_int_equal(ps_unsubscribe(sub), 0);
        sub = conform_subscribe(b.bus, i % 3 ? "new" : "+/#", &b.log);
        assert_int_equal(ps_unsubscribe(sub), 0);
        sub = conform_subscribe(b.bus, "new", &b.log);
        assert_true(ps_publish(publisher, "new", "x", 1) >= 1);
        assert_int_equal(conform_dispatch_join(&d), 1);
        assert_int_equal(ps_unsubscribe(sub), 0);
        assert_int_equal(ps_publish(publisher, "new", "x", 1), 0);
    }
    assert_int_equal(atomic_load(&b.log.count), 500);
    assert_int_equal(b.log.bad, 0);
    assert_int_equal(b.log.lost, 0);
    conform_close(publisher);
    conform_close(b.bus);
}

struct barrier_child {
    const char *url;
    int         pipes[2][2];
    int         rounds;
};

/* Publishes one message for each byte that comes in, and answers with the receiver count. */
static int barrier_child(void *arg)
{
    struct barrier_child *c = arg;
    ps_bus *bus;
    char topic[32], byte;

    if (ps_open(&bus, c->url) != 0)
        return 1;
    for (int i = 0; i < c->rounds; i++) {
        int rc;

        if (read(c->pipes[0][0], &byte, 1) != 1)
            return 2;
        snprintf(topic, sizeof topic, "barrier/%d", i);
        rc = ps_publish(bus, topic, "x", 1);
        byte = (char)rc;
        if (write(c->pipes[1][1], &byte, 1) != 1)
            return 3;
    }
    return ps_close(bus) == 0 ? 0 : 4;
}

static void test_p3_subscribe_is_a_barrier_between_processes(void **state)
{
    static struct conform_log log;
    struct barrier_child c;
    ps_sub *sub = NULL;
    ps_bus *bus;
    pid_t child;
    char topic[32], byte;

    (void)state;
    conform_need(PS_CAN_BARRIER | PS_CAN_PROCESSES);
    c.url = conform_url(NULL);
    c.rounds = 1000;
    assert_int_equal(pipe(c.pipes[0]), 0);
    assert_int_equal(pipe(c.pipes[1]), 0);
    bus = conform_open(NULL);
    child = support_child(barrier_child, &c);
    for (int i = 0; i < c.rounds; i++) {
        snprintf(topic, sizeof topic, "barrier/%d", i);
        if (sub != NULL)
            assert_int_equal(ps_unsubscribe(sub), 0);
        sub = conform_subscribe(bus, topic, &log);
        assert_int_equal(write(c.pipes[0][1], "x", 1), 1);
        assert_int_equal(read(c.pipes[1][0], &byte, 1), 1);
        assert_int_equal(byte, 1);
        assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    }
    assert_int_equal(support_reap(child, DEADLINE_MS), 0);
    assert_int_equal(atomic_load(&log.count), c.rounds);
    for (int i = 0; i < 4; i++)
        assert_int_equal(close(c.pipes[i / 2][i % 2]), 0);
    conform_close(bus);
}

/* ------------------------------------------------------------------ a table that grows under a look-up */

#define BARRIER_OLD 512                 /* one more, and the dispatching thread needs a larger list of matches */

struct barrier_crowd {
    ps_bus    *bus;
    atomic_int turns, stop;
    int        old, skipped, errors;
};

static void barrier_count(const ps_msg *msg, void *user)
{
    struct barrier_crowd *c = user;

    (void)msg;
    c->old++;
}

static void barrier_ignore(const ps_msg *msg, void *user)
{
    (void)msg;
    (void)user;
}

static void *barrier_crowd(void *arg)
{
    struct barrier_crowd *c = arg;

    while (!atomic_load(&c->stop)) {
        c->old = 0;
        c->errors += ps_publish(c->bus, "t", "x", 1) < 1;
        c->errors += ps_dispatch(c->bus, 1, 0) != 1;
        c->skipped += c->old != BARRIER_OLD;
        atomic_fetch_add(&c->turns, 1);
    }
    return NULL;
}

/* Subscribing beside a dispatch takes no message from those that were there before. */
static void test_p5_subscribe_beside_a_dispatch_skips_no_old_subscription(void **state)
{
    struct barrier_crowd c;
    pthread_t thread;

    (void)state;
    memset(&c, 0, sizeof c);
    for (int round = 0; round < 60; round++) {
        atomic_store(&c.stop, 0);
        atomic_store(&c.turns, 0);
        c.bus = conform_open(NULL);
        for (int i = 0; i < BARRIER_OLD; i++)
            assert_ok(ps_subscribe(c.bus, "t", barrier_count, &c, NULL, NULL));
        conform_start(&thread, barrier_crowd, &c);
        assert_true(conform_reached(&c.turns, 3));
        assert_ok(ps_subscribe(c.bus, "t", barrier_ignore, NULL, NULL, NULL));
        assert_true(conform_reached(&c.turns, atomic_load(&c.turns) + 3));
        atomic_store(&c.stop, 1);
        conform_join(thread);
        conform_close(c.bus);
    }
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.skipped, 0);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_p3_subscribe_is_a_barrier_between_threads),
    conform_test(test_p3_subscribe_last_one_replaced_under_sleeping_dispatch),
    conform_test(test_p3_subscribe_is_a_barrier_between_processes),
    conform_test(test_p5_subscribe_beside_a_dispatch_skips_no_old_subscription),
};
CONFORM_AREA(conform_barrier_area);
