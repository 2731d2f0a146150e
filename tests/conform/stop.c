/* SPDX-License-Identifier: MIT */
/* stop.c - conformance: ps_run and ps_stop, from everywhere; signals. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

#include <signal.h>

/* ThreadSanitizer keeps a signal back until the thread's next intercepted call, which may be after the next message only. */
#if defined __SANITIZE_THREAD__
#define STOP_SIGNALS_DEFERRED
#elif defined __has_feature
#if __has_feature(thread_sanitizer)
#define STOP_SIGNALS_DEFERRED
#endif
#endif

static ps_bus *stop_bus;

static void stop_on_signal(int number)
{
    if (number == SIGUSR1)
        ps_stop(stop_bus);
}

static void *stop_run_body(void *arg)
{
    struct conform_dispatcher *d = arg;

    d->answer = ps_run(d->bus);
    atomic_store(&d->done, 1);
    return NULL;
}

static void test_stop_before_the_wait_remembered_once(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL), *pull = conform_open(NULL);
    const ps_msg *msg;
    uint64_t start;

    (void)state;
    conform_subscribe(bus, "t", &log);
    conform_subscribe(pull, "u", NULL);
    ps_stop(bus);
    assert_int_equal(ps_dispatch(bus, 0, -1), 0);
    /* Used up: the next one waits its time. */
    start = support_now_ms();
    assert_int_equal(ps_dispatch(bus, 0, 30), 0);
    assert_true(support_now_ms() - start >= 29);
    ps_stop(bus);
    assert_int_equal(ps_run(bus), 0);
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, -1), 1);
    ps_stop(pull);
    assert_int_equal(ps_next(pull, &msg, -1), 0);
    assert_null(msg);
    start = support_now_ms();
    assert_int_equal(ps_next(pull, &msg, 30), 0);
    assert_true(support_now_ms() - start >= 29);
    conform_close(bus);
    conform_close(pull);
}

struct stop_at {
    ps_bus *bus;
    int     runs, at;
};

static void stop_at(const ps_msg *msg, void *user)
{
    struct stop_at *s = user;

    (void)msg;
    if (++s->runs == s->at)
        ps_stop(s->bus);
}

static void test_stop_in_handler_ends_at_next_message(void **state)
{
    struct stop_at s = { conform_open(NULL), 0, 2 };

    (void)state;
    assert_ok(ps_subscribe(s.bus, "t", stop_at, &s, NULL, NULL));
    for (int i = 0; i < 6; i++)
        conform_say(s.bus, "t", "x");
    assert_int_equal(ps_dispatch(s.bus, 0, -1), 2);
    assert_int_equal(s.runs, 2);
    s.at = 4;
    assert_int_equal(ps_run(s.bus), 0);
    assert_int_equal(s.runs, 4);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 2);
    conform_close(s.bus);
}

static void stop_at_and_feed(const ps_msg *msg, void *user)
{
    struct stop_at *s = user;

    (void)ps_publish(s->bus, msg->topic, "x", 2);
    stop_at(msg, user);
}

/* A stop from before the call ends only who would wait; one that comes during the call is heard nevertheless. */
static void test_stop_in_handler_heard_while_an_earlier_one_is_pending(void **state)
{
    struct stop_at s = { conform_open(NULL), 0, 3 };

    (void)state;
    assert_ok(ps_subscribe(s.bus, "t", stop_at_and_feed, &s, NULL, NULL));
    conform_say(s.bus, "t", "x");
    ps_stop(s.bus);
    ps_stop(s.bus);
    assert_int_equal(ps_dispatch(s.bus, 1000, -1), 3);
    /* Both are used up. */
    assert_int_equal(ps_dispatch(s.bus, 10, -1), 10);
    s.at = s.runs + 5;
    assert_int_equal(ps_dispatch(s.bus, 1000, -1), 5);
    conform_close(s.bus);
}

static void test_stop_from_another_thread_ends_run(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d = { b, 0, 0, 0, -1, 0 };

    (void)state;
    conform_subscribe(b, "t", &log);
    for (int i = 0; i < 20; i++) {
        conform_start(&d.thread, stop_run_body, &d);
        conform_say(a, "t", "x");
        assert_true(conform_reached(&log.count, i + 1));
        if (i % 2)
            assert_true(conform_asleep(a, 1));
        ps_stop(b);
        conform_join(d.thread);
        assert_int_equal(d.answer, 0);
    }
    conform_close(a);
    conform_close(b);
}

#ifdef STOP_SIGNALS_DEFERRED
static int stop_returned(void *done)
{
    return atomic_load((atomic_int *)done);
}
#endif

static void test_stop_from_signal_handler_ends_run(void **state)
{
    static struct conform_log log;
    struct sigaction action, before;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d = { b, 0, 0, 0, -1, 0 };

    (void)state;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop_on_signal;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    stop_bus = b;
    conform_subscribe(b, "t", &log);
    for (int i = 0; i < 10; i++) {
        conform_start(&d.thread, stop_run_body, &d);
        if (i % 2)
            assert_true(conform_asleep(a, 1));
        assert_int_equal(pthread_kill(d.thread, SIGUSR1), 0);
#ifdef STOP_SIGNALS_DEFERRED
        while (!support_wait(stop_returned, &d.done, 100))
            assert_int_equal(pthread_kill(d.thread, SIGUSR1), 0);
#endif
        conform_join(d.thread);
        assert_int_equal(d.answer, 0);
        atomic_store(&d.done, 0);
#ifdef STOP_SIGNALS_DEFERRED
        ps_stop(b);             /* and use up what one signal too many may have left */
        assert_int_equal(ps_dispatch(b, 0, -1), 0);
#endif
    }
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    conform_close(a);
    conform_close(b);
}

/* EINTR is no reason to return: only time, messages and ps_stop() are. */
static void test_dispatch_asleep_signal_does_not_end_it(void **state)
{
    static struct conform_log log;
    struct sigaction action, before;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    struct conform_dispatcher d;

    (void)state;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop_on_signal;
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    conform_subscribe(b, "t", &log);
    conform_dispatch_start(&d, b, 0, -1);
    for (int i = 0; i < 10; i++) {
        assert_true(conform_asleep(a, 1));
        assert_int_equal(pthread_kill(d.thread, SIGUSR2), 0);
        conform_pause_ms(1);
        assert_int_equal(atomic_load(&d.done), 0);
    }
    conform_say(a, "t", "x");
    assert_int_equal(conform_dispatch_join(&d), 1);
    assert_int_equal(sigaction(SIGUSR2, &before, NULL), 0);
    conform_close(a);
    conform_close(b);
}

struct stop_loop {
    ps_bus    *bus;
    int        timeout_ms, errors;
    atomic_int turns;
};

static void *stop_loop(void *arg)
{
    struct stop_loop *l = arg;

    for (;;) {
        l->errors += ps_dispatch(l->bus, 0, l->timeout_ms) < 0;
        atomic_fetch_add(&l->turns, 1);
        pthread_testcancel();
    }
    return NULL;
}

/* No call is a place where a thread is cancelled: it would take the handle with it, and ps_close would wait for ever. */
static void test_dispatch_thread_cancelled_handle_goes_on(void **state)
{
    static struct conform_log log;
    struct stop_loop l;
    pthread_t thread;

    (void)state;
    memset(&l, 0, sizeof l);
    l.bus = conform_open(NULL);
    conform_subscribe(l.bus, "t", &log);
    for (int round = 0; round < 40; round++) {
        if (round == 20)                /* from now on each dispatch has to do with descriptors */
            assert_ok(ps_fd(l.bus));
        l.timeout_ms = round % 2;
        atomic_store(&l.turns, 0);
        conform_start(&thread, stop_loop, &l);
        assert_true(conform_reached(&l.turns, 1 + round % 5));
        assert_int_equal(pthread_cancel(thread), 0);
        conform_join(thread);
        assert_int_equal(l.errors, 0);
        conform_say(l.bus, "t", "x");
        assert_int_equal(ps_dispatch(l.bus, 0, 0), 1);
    }
    assert_int_equal(log.bad, 0);
    conform_close(l.bus);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_stop_before_the_wait_remembered_once),
    conform_test(test_stop_in_handler_ends_at_next_message),
    conform_test(test_stop_in_handler_heard_while_an_earlier_one_is_pending),
    conform_test(test_stop_from_another_thread_ends_run),
    conform_test(test_stop_from_signal_handler_ends_run),
    conform_test(test_dispatch_asleep_signal_does_not_end_it),
    conform_test(test_dispatch_thread_cancelled_handle_goes_on),
};
CONFORM_AREA(conform_stop_area);
