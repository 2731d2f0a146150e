/* SPDX-License-Identifier: MIT */
/* descriptor.c - conformance: ps_fd, the one descriptor of an event loop (promise 12). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

#include <fcntl.h>

static void test_p12_fd_same_every_time_close_on_exec(void **state)
{
    ps_bus *bus = conform_open(NULL), *other = conform_open(NULL);
    int fd = ps_fd(bus);

    (void)state;
    assert_ok(fd);
    assert_int_equal(ps_fd(bus), fd);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_not_equal(ps_fd(other), fd);
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    assert_int_equal(ps_fd(bus), fd);
    conform_close(bus);
    conform_close(other);
}

/* Messages may have come before anybody asked for the descriptor. */
static void test_p12_fd_first_call_readable_at_once(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL), *idle = conform_open(NULL);
    int fd;

    (void)state;
    conform_subscribe(bus, "t", &log);
    conform_say(bus, "t", "x");
    fd = ps_fd(bus);
    assert_true(conform_readable(fd, 0));
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    conform_drain(bus);
    assert_false(conform_readable(fd, 0));
    /* Also if nothing has come: one look too many is cheaper than a message overlooked. */
    fd = ps_fd(idle);
    assert_true(conform_readable(fd, 0));
    assert_int_equal(ps_dispatch(idle, 0, 0), 0);
    assert_false(conform_readable(fd, 0));
    conform_close(bus);
    conform_close(idle);
}

static void test_p12_fd_level_triggered_until_nothing_left(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    int fd;

    (void)state;
    conform_subscribe(b, "t", &log);
    fd = ps_fd(b);
    conform_drain(b);
    assert_false(conform_readable(fd, 0));
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 5; i++)
            conform_say(a, "t", "x");
        assert_true(conform_readable(fd, DEADLINE_MS));
        assert_true(conform_readable(fd, 0));           /* asking changes nothing */
        assert_int_equal(ps_dispatch(b, 2, 0), 2);
        assert_true(conform_readable(fd, 0));           /* max left something */
        assert_true(conform_readable(fd, 0));
        assert_int_equal(ps_dispatch(b, 3, 0), 3);
        conform_drain(b);
        assert_false(conform_readable(fd, 0));
        assert_int_equal(ps_dispatch(b, 0, 0), 0);
        assert_false(conform_readable(fd, 0));
        /* A single dispatch that leaves nothing is enough. */
        conform_say(a, "t", "x");
        assert_int_equal(ps_dispatch(b, 0, 0), 1);
        assert_false(conform_readable(fd, 0));
    }
    conform_close(a);
    conform_close(b);
}

static void test_p12_fd_pull_handle_until_next_answers_0(void **state)
{
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    const ps_msg *msg;
    int fd;

    (void)state;
    conform_subscribe(b, "t", NULL);
    conform_subscribe(b, "#", NULL);
    fd = ps_fd(b);
    assert_int_equal(ps_next(b, &msg, 0), 0);
    assert_false(conform_readable(fd, 0));
    for (int round = 0; round < 20; round++) {
        conform_say(a, "t", "x");
        for (int delivery = 0; delivery < 2; delivery++) {
            assert_true(conform_readable(fd, DEADLINE_MS));     /* the second delivery of one message is something left, too */
            assert_int_equal(ps_next(b, &msg, 0), 1);
        }
        assert_int_equal(ps_next(b, &msg, 0), 0);
        assert_false(conform_readable(fd, 0));
    }
    conform_close(a);
    conform_close(b);
}

static void test_p12_fd_stop_makes_it_readable(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);
    int fd;

    (void)state;
    conform_subscribe(bus, "t", &log);
    fd = ps_fd(bus);
    conform_drain(bus);
    assert_false(conform_readable(fd, 0));
    ps_stop(bus);
    assert_true(conform_readable(fd, DEADLINE_MS));
    assert_int_equal(ps_dispatch(bus, 0, -1), 0);
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    assert_false(conform_readable(fd, 0));
    conform_close(bus);
}

static void test_p12_fd_blocking_dispatch_after_it_still_works(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d;
    int fd;

    (void)state;
    conform_subscribe(b, "t", &log);
    fd = ps_fd(b);
    for (int i = 0; i < 20; i++) {
        conform_dispatch_start(&d, b, 1, -1);
        if (i % 2)
            assert_true(conform_asleep(a, 1));
        conform_say(a, "t", "x");
        conform_say(a, "t", "y");
        assert_int_equal(conform_dispatch_join(&d), 1);
        assert_true(conform_readable(fd, DEADLINE_MS));
        assert_int_equal(conform_drain(b), 1);
        assert_false(conform_readable(fd, 0));
    }
    conform_close(a);
    conform_close(b);
}

/* An event loop that is never told by anything but the descriptor; a lost doorbell stops the exchange for good. */
struct descriptor_loop {
    ps_bus *bus;
    int     rounds, error;
    struct conform_log log;
};

static void *descriptor_loop_body(void *arg)
{
    struct descriptor_loop *l = arg;
    int fd = ps_fd(l->bus), seen = 0;

    while (seen < l->rounds && l->error == 0) {
        int rc;

        if (!conform_readable(fd, DEADLINE_MS)) {
            l->error = 1;
            break;
        }
        rc = ps_dispatch(l->bus, 1 + seen % 3, 0);
        if (rc < 0)
            l->error = rc;
        for (; rc > 0; rc--, seen++)
            if (ps_publish(l->bus, "pong", "x", 1) != 1)
                l->error = 2;
    }
    return NULL;
}

static void test_p12_fd_polling_ping_pong_loses_no_doorbell(void **state)
{
    static struct descriptor_loop l;
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);
    pthread_t thread;
    int fd;

    (void)state;
    l.bus = conform_open(NULL);
    l.rounds = 3000;
    conform_subscribe(l.bus, "ping", &l.log);
    conform_subscribe(bus, "pong", &log);
    fd = ps_fd(bus);
    conform_start(&thread, descriptor_loop_body, &l);
    for (int i = 0; i < l.rounds; i++) {
        conform_say(bus, "ping", "x");
        while (atomic_load(&log.count) <= i) {
            assert_true(conform_readable(fd, DEADLINE_MS));
            assert_ok(ps_dispatch(bus, 0, 0));
        }
    }
    conform_join(thread);
    assert_int_equal(l.error, 0);
    conform_close(bus);
    conform_close(l.bus);
}

static void test_p12_fd_other_topics_leave_it_alone(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL), *c = conform_open(NULL);
    int fd;

    (void)state;
    conform_subscribe(b, "mine", &log);
    conform_subscribe(c, "other", &log);
    fd = ps_fd(b);
    conform_drain(b);
    for (int i = 0; i < 10; i++)
        conform_say(a, "other", "x");
    assert_false(conform_readable(fd, 0));
    conform_say(a, "mine", "x");
    assert_true(conform_readable(fd, DEADLINE_MS));
    assert_int_equal(conform_drain(b), 1);
    assert_false(conform_readable(fd, 0));
    conform_close(a);
    conform_close(b);
    conform_close(c);
}

/* After a refusal the publisher's own descriptor says when to try again: no timer, no busy loop. */
static void test_p12_fd_after_refusal_readable_when_there_is_room(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    int fd;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=2&evict=-1");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    fd = ps_fd(a);
    conform_drain(a);
    for (int round = 0; round < 20; round++) {
        assert_true(conform_fill(a, "t", 0, 100) < 100);
        assert_true(conform_drain(b) > 0);
        assert_true(conform_readable(fd, DEADLINE_MS));
        assert_int_equal(ps_dispatch(a, 0, 0), 0);
        assert_true(conform_fill(a, "t", 0, 1) == 1);
        conform_drain(b);
    }
    conform_close(a);
    conform_close(b);
}

struct descriptor_insist {
    ps_bus    *bus;
    int        error;
    atomic_int waits;                   /* refusals; or the number of the thread that waits in a publish */
};

/* Publishes one message, sleeping after each refusal until told to try again. */
static void *descriptor_insist(void *arg)
{
    struct descriptor_insist *p = arg;
    int rc;

    while ((rc = ps_publish(p->bus, "t", "insist", 7)) == PS_EAGAIN && p->error == 0) {
        atomic_fetch_add(&p->waits, 1);
        p->error = ps_dispatch(p->bus, 0, -1);
    }
    if (rc < 0)
        p->error = rc;
    return NULL;
}

static void test_full_refused_publisher_asleep_woken_when_there_is_room(void **state)
{
    static struct conform_log log;
    struct descriptor_insist p;
    pthread_t thread;
    ps_bus *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&p, 0, sizeof p);
    p.bus = conform_open("depth=2&evict=-1");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    for (int round = 0; round < 300; round++) {
        conform_fill(p.bus, "t", 0, 100);
        conform_start(&thread, descriptor_insist, &p);
        assert_true(conform_reached(&p.waits, 1));
        if (round % 2)                          /* asleep for certain, or somewhere on its way there */
            assert_true(conform_asleep(b, 1));
        assert_true(conform_drain(b) > 0);
        conform_join(thread);
        assert_int_equal(p.error, 0);
        assert_true(atomic_load(&p.waits) < 10);        /* a spurious wake-up is allowed, a busy loop is not */
        atomic_store(&p.waits, 0);
        conform_drain(b);
    }
    conform_close(p.bus);
    conform_close(b);
}

/* The room came while nobody waited: the next dispatch says so and does not sleep. */
static void test_full_refused_publisher_told_without_sleeping(void **state)
{
    static struct conform_log log;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ps_bus *a = conform_open("depth=8&evict=-1"), *b = conform_open(NULL);
        uint64_t start;

        conform_subscribe(b, "t", &log);
        if (with_fd) {
            assert_ok(ps_fd(a));
            conform_drain(a);
        }
        assert_true(conform_fill(a, "t", 0, 100) < 100);
        assert_true(conform_drain(b) > 0);
        start = support_now_ms();
        assert_int_equal(ps_dispatch(a, 0, DEADLINE_MS), 0);
        assert_true(support_now_ms() - start < DEADLINE_MS / 2);
        conform_close(a);
        conform_close(b);
    }
}

static void *descriptor_drain_later(void *arg)
{
    struct descriptor_insist *p = arg;

    if (!conform_blocked(&p->waits))    /* the publisher */
        p->error = 1;
    while (ps_dispatch(p->bus, 0, 0) > 0)
        continue;
    return NULL;
}

/* The bell of a publish that waited by block= is not left ringing for the event loop. */
static void test_p12_fd_after_a_blocked_publish_not_readable_for_nothing(void **state)
{
    static struct conform_log log;
    struct descriptor_insist p;
    ps_bus *a;
    pthread_t thread;
    int fd, taken, turns = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&p, 0, sizeof p);
    a = conform_open("depth=8&evict=-1&block=20000");
    p.bus = conform_open(NULL);
    conform_subscribe(p.bus, "t", &log);
    fd = ps_fd(a);
    conform_drain(a);
    assert_false(conform_readable(fd, 0));
    for (int round = 0; round < 3; round++) {
        conform_start(&thread, descriptor_drain_later, &p);
        for (taken = 0; taken < 8; taken++)
            assert_int_equal(ps_publish(a, "t", "x", 1), 1);
        atomic_store(&p.waits, conform_thread_id());
        assert_int_equal(ps_publish(a, "t", "x", 1), 1);
        conform_join(thread);
        assert_int_equal(p.error, 0);
        conform_drain(p.bus);
        atomic_store(&p.waits, 0);
        for (uint64_t end = support_now_ms() + 100; support_now_ms() < end; turns++) {
            if (!conform_readable(fd, 10))
                continue;
            assert_int_equal(ps_dispatch(a, 0, 0), 0);
        }
    }
    assert_true(turns < 100);
    conform_close(a);
    conform_close(p.bus);
}

/* Nothing is left to be told: does the descriptor fall silent? It may be readable for nothing now and then. */
static int descriptor_silent(ps_bus *bus, int fd)
{
    int turns = 0;

    while (turns < 1000 && conform_readable(fd, 50) && ps_dispatch(bus, 0, 0) == 0)
        turns++;
    return turns < 1000;
}

static void *descriptor_told(void *arg)
{
    struct descriptor_insist *p = arg;

    atomic_store(&p->waits, conform_thread_id());
    p->error = ps_dispatch(p->bus, 0, DEADLINE_MS);
    return NULL;
}

/* Told in its sleep: what would have made the descriptor readable is not left behind. */
static void test_p12_fd_after_a_sleeper_was_told_of_room_not_readable_for_ever(void **state)
{
    static struct conform_log log;
    struct descriptor_insist p;
    pthread_t thread;
    ps_bus *b;
    int fd;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    memset(&p, 0, sizeof p);
    p.bus = conform_open("depth=2&evict=-1");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    fd = ps_fd(p.bus);
    conform_drain(p.bus);
    for (int round = 0; round < 5; round++) {
        assert_true(conform_fill(p.bus, "t", 0, 100) < 100);
        conform_start(&thread, descriptor_told, &p);
        assert_true(conform_blocked(&p.waits));
        assert_true(conform_drain(b) > 0);
        conform_join(thread);
        assert_int_equal(p.error, 0);
        atomic_store(&p.waits, 0);
        assert_true(descriptor_silent(p.bus, fd));
    }
    conform_close(p.bus);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_p12_fd_same_every_time_close_on_exec),
    conform_test(test_p12_fd_first_call_readable_at_once),
    conform_test(test_p12_fd_level_triggered_until_nothing_left),
    conform_test(test_p12_fd_pull_handle_until_next_answers_0),
    conform_test(test_p12_fd_stop_makes_it_readable),
    conform_test(test_p12_fd_blocking_dispatch_after_it_still_works),
    conform_test(test_p12_fd_polling_ping_pong_loses_no_doorbell),
    conform_test(test_p12_fd_other_topics_leave_it_alone),
    conform_test(test_p12_fd_after_refusal_readable_when_there_is_room),
    conform_test(test_full_refused_publisher_asleep_woken_when_there_is_room),
    conform_test(test_full_refused_publisher_told_without_sleeping),
    conform_test(test_p12_fd_after_a_blocked_publish_not_readable_for_nothing),
    conform_test(test_p12_fd_after_a_sleeper_was_told_of_room_not_readable_for_ever),
};
CONFORM_AREA(conform_descriptor_area);
