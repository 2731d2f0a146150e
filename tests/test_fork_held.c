/* SPDX-License-Identifier: MIT */
/*
 * test_fork_held.c - promise 11, step by step: a process forks while another of its threads is in the middle of a call, and its
 * child closes the handle, begins anew with it, or calls the same.
 */
#include "held.h"

#include "../lib/core/bus.h"

/* ------------------------------------------------------------------ a fork at every step */

struct trial {
    const char *url;
    void *(*call)(void *);              /* the other thread */
    int (*child)(void *);
    ps_bus *bus;
    struct hold hold;
    int steps, code;                    /* how many there were; 0, or what the child said that was forked at the last one */
};

static void *trial_thread(void *arg)
{
    struct trial *t = arg;
    held = &t->hold;
    t->call(t);
    held = NULL;
    atomic_store(&t->hold.done, 1);
    return NULL;
}

/* The call in another thread up to that step, and there a fork. 1: there is such a step. */
static int trial_step(struct trial *t, int at)
{
    pthread_t thread;
    t->hold = (struct hold){ .at = at };
    if (pthread_create(&thread, NULL, trial_thread, t)) {
        t->code = 99;
        return 0;
    }
    support_wait(is_there, &t->hold, DEADLINE_MS);
    int more = atomic_load(&t->hold.reached);
    atomic_store(&current, &t->hold);
    pid_t child = support_child(t->child, t);
    t->code = support_reap(child, HANG_S * 1000);
    atomic_store(&current, NULL);
    atomic_store(&t->hold.over, 1);
    pthread_join(thread, NULL);
    return more;
}

/* On a new handle each time. */
static void trial_run(struct trial *t)
{
    int more = 1;
    for (t->steps = 0; more && t->code == 0; t->steps++) {
        if (t->url)
            assert_ok(ps_open(&t->bus, t->url));
        more = trial_step(t, t->steps);
        if (t->url)
            assert_ok(ps_close(t->bus));
    }
    if (t->code)
        fail_msg("the child of a fork at step %d ended with %d", t->steps - 1, t->code);
}

/* ------------------------------------------------------------------ ps_close in the child */

static void ignore(const ps_msg *msg, void *user)
{
    (void)msg;
    (void)user;
}

static void *use(void *arg)
{
    struct trial *t = arg;
    ps_sub *sub;
    void *loan;
    (void)ps_subscribe(t->bus, "a", ignore, NULL, NULL, NULL);
    (void)ps_fd(t->bus);
    (void)ps_publish(t->bus, "a", "x", 1);
    (void)ps_dispatch(t->bus, 1, DEADLINE_MS);
    if (ps_loan(t->bus, "a", 100, &loan) == 0)
        (void)ps_commit(t->bus, loan, 100);
    if (ps_subscribe(t->bus, "b", ignore, NULL, NULL, &sub) == 0)
        (void)ps_unsubscribe(sub);
    (void)ps_dispatch(t->bus, 0, 0);
    return NULL;
}

static int close_in_child(void *arg)
{
    struct trial *t = arg;
    return ps_close(t->bus) != 0;
}

static void test_p11_thread_in_a_call_child_may_close(void **state)
{
    struct trial t = { .url = support_url(*state, "held", "depth=8&bytes=4k"), .call = use, .child = close_in_child };
    trial_run(&t);
    assert_true(t.steps >= HELD_STEPS(20));
}

static int begin_anew_in_child(void *arg)
{
    struct trial *t = arg;
    need(ps_after_fork(t->bus) == 0);
    need(ps_subscribe(t->bus, "mine", ignore, NULL, NULL, NULL) == 0);
    need(ps_publish(t->bus, "mine", "x", 1) == 1);
    need(ps_dispatch(t->bus, 1, DEADLINE_MS) == 1);
    return ps_close(t->bus) != 0;
}

static void test_p11_thread_in_a_call_child_may_begin_anew(void **state)
{
    struct trial t = { .url = support_url(*state, "anew", "depth=8&bytes=4k"), .call = use, .child = begin_anew_in_child };
    trial_run(&t);
    assert_true(t.steps >= HELD_STEPS(20));
}

/* On a handle without subscriptions; the child's first one is not of that kind. */
static void *look_early(void *arg)
{
    struct trial *t = arg;
    const ps_msg *msg;
    (void)ps_next(t->bus, &msg, 1);
    return NULL;
}

static void test_p11_thread_in_ps_next_child_may_begin_anew_with_handlers(void **state)
{
    struct trial t = { .url = support_url(*state, "early", "depth=8&bytes=4k"), .call = look_early, .child = begin_anew_in_child };
    trial_run(&t);
    assert_true(t.steps >= HELD_STEPS(3));
}

/* ------------------------------------------------------------------ a table that grows */

/* Subscriptions at most; a table grows at 16, 64, 256, ... ThreadSanitizer forks with locks of its own held. */
enum { GROWN = PS_TSAN ? 0 : 65536 };

static int grown_destroyed;

static void grown_destroy(void *user)
{
    (void)user;
    grown_destroyed++;
}

struct grown {
    ps_bus *bus;
    int count, rc;
    atomic_int done;
};

static int grown_add(struct grown *g)
{
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    char topic[32];
    options.destroy = grown_destroy;
    snprintf(topic, sizeof topic, "t/%d", g->count++);
    return ps_subscribe(g->bus, topic, ignore, NULL, &options, NULL);
}

static void *grown_thread(void *arg)
{
    struct grown *g = arg;
    g->rc = grown_add(g);
    atomic_store(&g->done, 1);
    return NULL;
}

/* Every destroy function runs once, of the last subscription perhaps, wherever the other thread was. */
static int grown_in_child(void *arg)
{
    struct grown *g = arg;
    need(ps_close(g->bus) == 0);
    need(grown_destroyed == g->count || grown_destroyed == g->count - 1);
    return 0;
}

/* There is no call to hold it at: forked when the table is seen to change, which takes long when it is large. */
static void test_p11_thread_makes_the_table_larger_child_destroys_all(void **state)
{
    struct grown g;
    (void)state;
    memset(&g, 0, sizeof g);
    assert_ok(ps_open(&g.bus, "inproc://held-grown"));
    for (int size = 16; size <= GROWN; size *= 4) {
        pthread_t thread;
        while (g.count < size)
            assert_ok(grown_add(&g));
        atomic_store(&g.done, 0);
        assert_int_equal(pthread_create(&thread, NULL, grown_thread, &g), 0);
        while (!(ps__load_acq(&g.bus->subs.version) & 1) && !atomic_load(&g.done))
            ps__pause();
        int code = support_reap(support_child(grown_in_child, &g), HANG_S * 1000);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_ok(g.rc);
        assert_int_equal(code, 0);
    }
    assert_ok(ps_close(g.bus));
    assert_int_equal(grown_destroyed, g.count);
    grown_destroyed = 0;
}

/* ------------------------------------------------------------------ locks of the process */

/* The first handle of that kind in a process; no handle of the test has been one yet. */
static void *open_first(void *arg)
{
    ps_bus *bus;
    (void)arg;
    if (ps_open(&bus, "inproc://held-first") == 0)
        (void)ps_close(bus);
    return NULL;
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static int open_in_child(void *arg)
{
    ps_bus *bus;
    (void)arg;
    need(ps_open(&bus, "inproc://held-own") == 0);
    need(support_reap(support_child(nothing, NULL), HANG_S * 1000) == 0);       /* which nobody is told of twice */
    need(ps_publish(bus, "t", "x", 1) == 0);
    return ps_close(bus) != 0;
}

/* In a process of its own. 0: there is no such step, 1: all went well. */
static int open_first_in_process(void *arg)
{
    struct trial t = { .call = open_first, .child = open_in_child };
    int more = trial_step(&t, *(int *)arg);
    return t.code ? 2 : more;
}

static void test_p11_thread_opens_the_first_inproc_handle(void **state)
{
    int at = 0, more = 1;
    (void)state;
    for (; more == 1; at++)
        more = support_reap(support_child(open_first_in_process, &at), 2 * HANG_S * 1000);
    if (more)
        fail_msg("the process that forked at step %d ended with %d", at - 1, more);
    assert_true(at >= HELD_STEPS(3));
}

/* A table that is refused, so nobody calls its functions. */
static int register_again(void)
{
    ps_transport table = { .size = sizeof table, .version = PS_TRANSPORT_VERSION, .scheme = "inproc" };
    memset((char *)&table + offsetof(ps_transport, open), 1, offsetof(ps_transport, loan) - offsetof(ps_transport, open));
    return ps_transport_register(&table);
}

static void *register_in_thread(void *arg)
{
    (void)arg;
    (void)register_again();
    return NULL;
}

static int register_in_child(void *arg)
{
    (void)arg;
    need(register_again() == PS_EBUSY);
    return 0;
}

static void test_p11_thread_registers_a_transport(void **state)
{
    struct trial t = { .call = register_in_thread, .child = register_in_child };
    (void)state;
    assert_int_equal(register_again(), PS_EBUSY);
    trial_run(&t);
}

static void close_another(const ps_msg *msg, void *closed)
{
    ps_bus *bus;
    (void)msg;
    *(int *)closed = ps_open(&bus, "inproc://held-other") == 0 && ps_close(bus) == 0;
}

/* On a handle of its own: one of its handlers closes another. */
static int close_in_handler(void)
{
    ps_bus *bus;
    int closed = 0;
    need(ps_open(&bus, "inproc://held-handler") == 0);
    need(ps_subscribe(bus, "t", close_another, &closed, NULL, NULL) == 0);
    need(ps_publish(bus, "t", "x", 1) == 1);
    need(ps_dispatch(bus, 1, DEADLINE_MS) == 1);
    need(closed);
    return ps_close(bus) != 0;
}

static void *handler_in_thread(void *arg)
{
    (void)arg;
    (void)close_in_handler();
    return NULL;
}

static int handler_in_child(void *arg)
{
    (void)arg;
    return close_in_handler();
}

static void test_p11_thread_closes_a_handle_in_a_handler(void **state)
{
    struct trial t = { .call = handler_in_thread, .child = handler_in_child };
    (void)state;
    trial_run(&t);
    assert_true(t.steps >= HELD_STEPS(20));
}

/* ------------------------------------------------------------------ */

#define over(scheme, f) { #f "_" scheme, f, NULL, NULL, scheme }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p11_thread_opens_the_first_inproc_handle),        /* before any other is opened */
        cmocka_unit_test(test_p11_thread_registers_a_transport),
        cmocka_unit_test(test_p11_thread_closes_a_handle_in_a_handler),
        cmocka_unit_test(test_p11_thread_makes_the_table_larger_child_destroys_all),
        over("inproc", test_p11_thread_in_a_call_child_may_close),
        over("shm", test_p11_thread_in_a_call_child_may_close),
        over("shm", test_p11_thread_in_a_call_child_may_begin_anew),
        over("shm", test_p11_thread_in_ps_next_child_may_begin_anew_with_handlers),
    };
    return cmocka_run_group_tests_name("fork_held", tests, held_setup, NULL);
}
