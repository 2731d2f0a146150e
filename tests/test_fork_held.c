/* SPDX-License-Identifier: MIT */
/*
 * test_fork_held.c - promise 11, step by step: a process forks while another of its threads is in the middle of a call, at every
 * place where that thread takes or has left a lock, or calls the system for a descriptor or a mapping.
 *
 * The library is linked statically, so its calls come to the functions of the same names here. ThreadSanitizer has to see
 * them itself.
 */
#include "../lib/core/internal.h"

#include "support.h"

#if PS_TSAN
static void test_p11_thread_in_a_call_not_with_this_sanitizer(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_p11_thread_in_a_call_not_with_this_sanitizer) };
    return cmocka_run_group_tests_name("fork_held", tests, NULL, NULL);
}
#else

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HANG_S 10

/* ------------------------------------------------------------------ held threads */

/* A thread is held at its step number `at`. */
struct hold {
    int at;
    atomic_int reached, go, done;
};

static _Thread_local struct hold *held;
/* The one that is held while the process forks, and the lock that keeps forks away: who has it is let go. */
static struct hold *_Atomic current;
static pthread_mutex_t *fork_lock, *last_lock;

static int gone_on(void *hold) { return atomic_load(&((struct hold *)hold)->go); }

static void step(void)
{
    struct hold *hold = held;
    if (!hold || hold->at-- != 0)
        return;
    held = NULL;
    atomic_store(&hold->reached, 1);
    support_wait(gone_on, hold, DEADLINE_MS);
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*lock)(pthread_mutex_t *);
    struct hold *hold = atomic_load(&current);
    if (!lock)
        *(void **)&lock = real("pthread_mutex_lock");
    step();
    if (hold && mutex == fork_lock) {
        if (pthread_mutex_trylock(mutex) == 0)
            return 0;
        atomic_store(&hold->go, 1);
    }
    int rc = lock(mutex);
    if (!hold)
        last_lock = mutex;
    step();
    return rc;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    static int (*unlock)(pthread_mutex_t *);
    if (!unlock)
        *(void **)&unlock = real("pthread_mutex_unlock");
    int rc = unlock(mutex);
    step();
    return rc;
}

static int setup(void **state)
{
    struct ps__fork_entry entry = { NULL, NULL, NULL };
    (void)state;
    if (ps__process_init())
        return -1;
    ps__fork_add(&entry);
    ps__fork_remove(&entry);
    fork_lock = last_lock;
    return 0;
}

/* ------------------------------------------------------------------ a fork at every step */

struct trial {
    const char *url;
    void *(*call)(void *);              /* the other thread */
    int (*child)(void *);
    ps_bus *bus;
    struct hold hold;
    int steps, code;                    /* how many there were; 0, or what the child said that was forked at the last one */
};

/* In a child: the line of what went wrong, from 1 to 100. */
#define need(condition) do { if (!(condition)) { \
    fprintf(stderr, "child: line %d: %s (%s)\n", __LINE__, #condition, ps_errmsg()); return 1; } } while (0)

static void *trial_thread(void *arg)
{
    struct trial *t = arg;
    held = &t->hold;
    t->call(t);
    held = NULL;
    atomic_store(&t->hold.done, 1);
    return NULL;
}

static int trial_there(void *arg)
{
    struct trial *t = arg;
    return atomic_load(&t->hold.reached) || atomic_load(&t->hold.done);
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
    support_wait(trial_there, t, DEADLINE_MS);
    int more = atomic_load(&t->hold.reached);
    atomic_store(&current, &t->hold);
    pid_t child = support_child(t->child, t);
    t->code = support_reap(child, HANG_S * 1000);
    atomic_store(&current, NULL);
    atomic_store(&t->hold.go, 1);
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
    assert_true(t.steps > 20);
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
    assert_true(t.steps > 20);
}

/* ------------------------------------------------------------------ */

#define over(scheme, f) { #f "_" scheme, f, NULL, NULL, scheme }

int main(void)
{
    const struct CMUnitTest tests[] = {
        over("inproc", test_p11_thread_in_a_call_child_may_close),
        over("shm", test_p11_thread_in_a_call_child_may_close),
        over("shm", test_p11_thread_in_a_call_child_may_begin_anew),
    };
    return cmocka_run_group_tests_name("fork_held", tests, setup, NULL);
}

#endif
