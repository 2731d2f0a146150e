/* SPDX-License-Identifier: MIT */
/*
 * test_fork.c - promise 11: in a child every call on an inherited handle answers PS_EFORKED, ps_after_fork() makes it a
 * member of its own, and the parent notices nothing of either.
 *
 * Run over shm with a name, shm without one, and inproc. Children never assert: need() prints what was wrong and ends them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HANG_S 100

struct kind {
    const char *scheme;         /* NULL: anonymous */
    int         members;        /* ps_after_fork() works */
};
static struct kind inproc = { "inproc", 0 }, named = { "shm", 1 }, anonymous = { NULL, 1 };

static const char *kind_url(const struct kind *kind, const char *options)
{
    static char text[256];

    if (kind->scheme != NULL)
        return support_url(kind->scheme, "fork", options);
    snprintf(text, sizeof text, "shm:%s%s", options == NULL ? "" : "?", options == NULL ? "" : options);
    return text;
}

/* In a child: 1 is the exit code of what went wrong. */
#define need(condition) do { if (!(condition)) { \
    fprintf(stderr, "child: line %d: %s (%s)\n", __LINE__, #condition, ps_errmsg()); return 1; } } while (0)

/* What the processes of a test share. */
struct shared {
    atomic_int            step;
    atomic_uint_least64_t publisher;
};

static int first_step_done(void *arg)
{
    return atomic_load(&((struct shared *)arg)->step) >= 1;
}

struct heard {
    int      count, destroyed;
    uint64_t publisher, lost;
    char     text[32];
};

static void hear(const ps_msg *msg, void *user)
{
    struct heard *h = user;

    h->count++;
    h->publisher = msg->publisher;
    h->lost += msg->lost;
    snprintf(h->text, sizeof h->text, "%s", (const char *)msg->data);
}

static void hear_destroy(void *user)
{
    struct heard *h = user;

    h->destroyed++;
}

static const ps_sub_options with_destroy = { sizeof (ps_sub_options), 0, 0, hear_destroy };

static int say(ps_bus *bus, const char *topic, const char *text)
{
    return ps_publish(bus, topic, text, strlen(text) + 1);
}

static int drain(ps_bus *bus)
{
    int sum = 0, rc;

    while ((rc = ps_dispatch(bus, 0, 0)) > 0)
        sum += rc;
    return rc < 0 ? rc : sum;
}

/* What a test starts with, and its child inherits. */
struct scene {
    const struct kind *kind;
    const char        *url;
    ps_bus            *bus;
    ps_sub            *sub;
    void              *loan;
    struct heard       heard;
    struct shared     *shared;
    int                descriptors;     /* before the bus */
    uint64_t           publisher;
};

static void scene_open(struct scene *s, void **state, const char *options)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;

    memset(s, 0, sizeof *s);
    s->kind = *state;
    s->shared = support_shared(sizeof *s->shared);
    s->descriptors = support_fd_count();
    s->url = kind_url(s->kind, options);
    assert_ok(ps_open(&s->bus, s->url));
    assert_ok(ps_subscribe(s->bus, "t", hear, &s->heard, &with_destroy, &s->sub));
    assert_ok(ps_fd(s->bus));
    assert_ok(ps_loan(s->bus, "t", 64, &s->loan));
    assert_ok(ps_stats(s->bus, &stats));
    s->publisher = stats.publisher;
}

/* The parent's handle is as good as ever, and alone on its bus. */
static void scene_check_and_close(struct scene *s)
{
    int before = s->heard.count;

    assert_int_equal(ps_members(s->bus, NULL, NULL, 0), 1);
    assert_int_equal(s->heard.destroyed, 0);
    memcpy(s->loan, "on loan", 8);
    assert_int_equal(ps_commit(s->bus, s->loan, 8), 1);
    assert_int_equal(say(s->bus, "t", "after"), 1);
    assert_int_equal(drain(s->bus), 2);
    assert_int_equal(s->heard.count, before + 2);
    assert_string_equal(s->heard.text, "after");
    assert_int_equal(s->heard.lost, 0);
    assert_int_equal(ps_close(s->bus), 0);
    assert_int_equal(s->heard.destroyed, 1);
    assert_int_equal(support_fd_count(), s->descriptors);
}

/* ------------------------------------------------------------------ the inherited handle */

static int child_all_forked(struct scene *s)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member member = PS_MEMBER_INIT;
    const ps_msg *msg = (const ps_msg *)s;
    ps_sub *sub = (ps_sub *)s;
    void *data = s;

    need(ps_publish(s->bus, "t", "x", 1) == PS_EFORKED);
    need(ps_publish(s->bus, "nobody", "x", 1) == PS_EFORKED);
    need(ps_wanted(s->bus, "t") == PS_EFORKED);
    need(ps_subscribe(s->bus, "u", hear, &s->heard, &with_destroy, &sub) == PS_EFORKED);
    need(sub == NULL);
    need(ps_unsubscribe(s->sub) == PS_EFORKED);
    need(ps_dispatch(s->bus, 0, 0) == PS_EFORKED);
    need(ps_dispatch(s->bus, 0, -1) == PS_EFORKED);
    need(ps_next(s->bus, &msg, 0) < 0 && msg == NULL);
    need(ps_run(s->bus) == PS_EFORKED);
    need(ps_fd(s->bus) == PS_EFORKED);
    need(ps_loan(s->bus, "t", 1, &data) == PS_EFORKED);
    need(data == NULL);
    need(ps_commit(s->bus, s->loan, 8) == PS_EFORKED);
    need(ps_cancel(s->bus, s->loan) == PS_EFORKED);
    need(ps_stats(s->bus, &stats) == PS_EFORKED);
    need(ps_members(s->bus, NULL, &member, 1) == PS_EFORKED);
    ps_stop(s->bus);
    need(s->heard.destroyed == 0);
    return 0;
}

static int child_forked_then_exit(void *arg)
{
    return child_all_forked(arg);
}

static int child_forked_then_close(void *arg)
{
    struct scene *s = arg;

    if (child_all_forked(s) != 0)
        return 1;
    need(ps_close(s->bus) == 0);
    need(s->heard.destroyed == 1);              /* in the child's copy of memory */
    need(support_fd_count() == s->descriptors); /* nothing of the parent's is held open */
    return 0;
}

static void test_p11_child_every_call_forked(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    assert_int_equal(support_reap(support_child(child_forked_then_exit, &s), DEADLINE_MS), 0);
    scene_check_and_close(&s);
}

static void test_p11_child_may_close(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(support_reap(support_child(child_forked_then_close, &s), DEADLINE_MS), 0);
    scene_check_and_close(&s);
}

/* clone(2) without fork handlers: nobody told the library, and it knows all the same. */
static void test_p11_child_of_raw_clone_forked(void **state)
{
    struct scene s;
    long child;

    scene_open(&s, state, NULL);
    fflush(NULL);
    child = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    assert_true(child >= 0);
    if (child == 0) {
        alarm(HANG_S);
        _exit(child_all_forked(&s) != 0 || ps_close(s.bus) != 0 || s.heard.destroyed != 1);
    }
    assert_int_equal(support_reap((pid_t)child, DEADLINE_MS), 0);
    scene_check_and_close(&s);
}

/* A doorbell is a thing of the kernel that parent and child may come to share: the child must not touch it. */
static void test_p11_parent_still_woken_after_child_closed(void **state)
{
    struct scene s;
    struct pollfd p;

    scene_open(&s, state, NULL);
    assert_int_equal(drain(s.bus), 0);
    p.fd = ps_fd(s.bus);
    p.events = POLLIN;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(support_reap(support_child(i % 2 ? child_forked_then_close : child_forked_then_exit, &s), DEADLINE_MS), 0);
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(say(s.bus, "t", "wake up"), 1);
        assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
        assert_int_equal(drain(s.bus), 1);
    }
    scene_check_and_close(&s);
}

static void *dispatch_body(void *arg)
{
    return (void *)(intptr_t)ps_dispatch(arg, 0, -1);
}

static void test_p11_parent_asleep_in_another_thread_still_woken(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    for (int i = 0; i < 6; i++) {
        pthread_t thread;
        void *answer;

        assert_int_equal(pthread_create(&thread, NULL, dispatch_body, s.bus), 0);
        assert_int_equal(support_reap(support_child(i % 2 ? child_forked_then_close : child_forked_then_exit, &s), DEADLINE_MS), 0);
        assert_int_equal(say(s.bus, "t", "wake up"), 1);
        assert_int_equal(pthread_join(thread, &answer), 0);
        assert_int_equal((intptr_t)answer, 1);
    }
    scene_check_and_close(&s);
}

static int child_opens_anew(void *arg)
{
    struct scene *s = arg;
    ps_bus *bus;

    need(ps_open(&bus, s->url) == 0);
    need(ps_publish(s->bus, "t", "x", 1) == PS_EFORKED);
    need(say(bus, "t", "from a new handle") == 1);
    need(ps_close(s->bus) == 0);
    need(ps_wanted(bus, "t") == 1);
    return ps_close(bus) == 0 ? 0 : 1;
}

static void test_p11_child_opens_handle_of_its_own(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    assert_int_equal(support_reap(support_child(child_opens_anew, &s), DEADLINE_MS), 0);
    assert_int_equal(drain(s.bus), 1);
    assert_string_equal(s.heard.text, "from a new handle");
    scene_check_and_close(&s);
}

/* ------------------------------------------------------------------ fork inside a handler */

struct forker {
    ps_bus *bus;
    pid_t   child;
    int     runs;
};

static void forker(const ps_msg *msg, void *user)
{
    struct forker *f = user;

    (void)msg;
    if (f->runs++ == 0)
        f->child = fork();
}

/* The child comes back from the handler into a dispatch that is no longer its own. */
static void test_p11_fork_in_handler_childs_dispatch_ends(void **state)
{
    const struct kind *kind = *state;
    struct forker f;
    int rc;

    memset(&f, 0, sizeof f);
    assert_ok(ps_open(&f.bus, kind_url(kind, NULL)));
    assert_ok(ps_subscribe(f.bus, "t", forker, &f, NULL, NULL));
    for (int i = 0; i < 3; i++)
        assert_int_equal(say(f.bus, "t", "x"), 1);
    fflush(NULL);
    rc = ps_dispatch(f.bus, 0, 0);
    if (f.runs > 0 && f.child == 0)
        _exit(rc != PS_EFORKED ? 1 : f.runs != 1 ? 2 : ps_close(f.bus) != 0 ? 3 : 0);
    assert_int_equal(rc, 3);
    assert_int_equal(f.runs, 3);
    assert_int_equal(support_reap(f.child, DEADLINE_MS), 0);
    assert_int_equal(ps_members(f.bus, NULL, NULL, 0), 1);
    assert_int_equal(ps_close(f.bus), 0);
}

/* ------------------------------------------------------------------ ps_after_fork */

static int child_not_supported(void *arg)
{
    struct scene *s = arg;

    need(ps_after_fork(s->bus) == PS_ENOTSUP);
    return child_forked_then_close(s);
}

static void test_p11_after_fork_inproc_not_supported(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    assert_int_equal(support_reap(support_child(child_not_supported, &s), DEADLINE_MS), 0);
    scene_check_and_close(&s);
}

static int child_becomes_member(void *arg)
{
    struct scene *s = arg;
    struct heard heard;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member members[4];
    void *loan;
    int n, self = -1;

    memset(&heard, 0, sizeof heard);
    need(ps_after_fork(s->bus) == 0);
    need(s->heard.destroyed == 1);              /* the parent's subscriptions are none of the child's */
    need(ps_after_fork(s->bus) == 0);           /* once is enough */
    need(ps_stats(s->bus, &stats) == 0);
    need(stats.publisher != 0 && stats.publisher != s->publisher);
    need(stats.published == 0 && stats.delivered == 0 && stats.lost == 0);
    atomic_store(&s->shared->publisher, stats.publisher);
    members[0].size = sizeof members[0];
    n = ps_members(s->bus, NULL, members, 4);
    need(n == 2);
    for (int i = 0; i < n; i++)
        if (members[i].flags & PS_MEMBER_SELF)
            self = i;
        else
            need(members[i].pid == getppid() && members[i].publisher == s->publisher);
    need(self >= 0 && members[self].pid == getpid() && members[self].filter_count == 0);
    need(ps_commit(s->bus, s->loan, 8) == PS_EINVAL);   /* the parent's loan */
    need(drain(s->bus) == 0);
    need(say(s->bus, "t", "from the child") == 1);
    need(ps_loan(s->bus, "t", 16, &loan) == 0);
    memcpy(loan, "lent to a child", 16);
    need(ps_commit(s->bus, loan, 16) == 1);
    need(ps_subscribe(s->bus, "to/child", hear, &heard, &with_destroy, NULL) == 0);
    need(ps_fd(s->bus) >= 0);
    atomic_store(&s->shared->step, 1);
    need(ps_dispatch(s->bus, 1, DEADLINE_MS) == 1);
    need(heard.publisher == s->publisher && strcmp(heard.text, "from the parent") == 0);
    need(ps_close(s->bus) == 0);
    need(heard.destroyed == 1);
    return 0;
}

static void test_p11_after_fork_child_is_member_of_its_own(void **state)
{
    struct scene s;
    uint64_t last = 0;

    scene_open(&s, state, NULL);
    for (int i = 0; i < 3; i++) {
        pid_t child;

        atomic_store(&s.shared->step, 0);
        child = support_child(child_becomes_member, &s);
        if (!support_wait(first_step_done, s.shared, DEADLINE_MS)) {
            assert_int_equal(support_reap(child, DEADLINE_MS), 0);
            fail();
        }
        assert_int_equal(ps_members(s.bus, NULL, NULL, 0), 2);
        s.heard.count = 0;
        assert_int_equal(drain(s.bus), 2);
        assert_string_equal(s.heard.text, "lent to a child");
        assert_int_equal(s.heard.publisher, atomic_load(&s.shared->publisher));
        assert_int_not_equal(s.heard.publisher, s.publisher);
        assert_int_not_equal(s.heard.publisher, last);
        last = s.heard.publisher;
        assert_int_equal(say(s.bus, "to/child", "from the parent"), 1);
        assert_int_equal(support_reap(child, DEADLINE_MS), 0);
    }
    scene_check_and_close(&s);
}

static int grandchild(void *arg)
{
    struct scene *s = arg;

    if (child_all_forked(s) != 0)
        return 1;
    need(ps_after_fork(s->bus) == 0);
    need(say(s->bus, "t", "grandchild") == 1);
    return ps_close(s->bus) == 0 ? 0 : 1;
}

static int child_of_two_generations(void *arg)
{
    struct scene *s = arg;

    need(ps_after_fork(s->bus) == 0);
    s->heard.destroyed = 0;
    need(ps_subscribe(s->bus, "t", hear, &s->heard, NULL, &s->sub) == 0);
    need(ps_loan(s->bus, "t", 64, &s->loan) == 0);
    need(ps_unsubscribe(s->sub) == 0);
    need(ps_subscribe(s->bus, "u", hear, &s->heard, NULL, &s->sub) == 0);
    need(support_reap(support_child(grandchild, s), DEADLINE_MS) == 0);
    need(say(s->bus, "t", "child") == 1);
    return ps_close(s->bus) == 0 ? 0 : 1;
}

static void test_p11_after_fork_and_fork_again(void **state)
{
    struct scene s;

    scene_open(&s, state, NULL);
    assert_int_equal(support_reap(support_child(child_of_two_generations, &s), DEADLINE_MS), 0);
    assert_int_equal(drain(s.bus), 2);          /* of two publishers: in either order */
    scene_check_and_close(&s);
}

/* ------------------------------------------------------------------ */

static int watch(void **state)
{
    (void)state;
    alarm(HANG_S);
    return 0;
}

#define over_inproc(f) { #f "_inproc", f, watch, NULL, &inproc }
#define over_named(f) { #f "_shm", f, watch, NULL, &named }
#define over_anonymous(f) { #f "_anonymous", f, watch, NULL, &anonymous }
#define over_all(f) over_inproc(f), over_named(f), over_anonymous(f)
#define over_shm(f) over_named(f), over_anonymous(f)

int main(void)
{
    const struct CMUnitTest tests[] = {
        over_all(test_p11_child_every_call_forked),
        over_all(test_p11_child_may_close),
        over_all(test_p11_child_of_raw_clone_forked),
        over_all(test_p11_parent_still_woken_after_child_closed),
        over_all(test_p11_parent_asleep_in_another_thread_still_woken),
        over_named(test_p11_child_opens_handle_of_its_own),
        over_all(test_p11_fork_in_handler_childs_dispatch_ends),
        over_inproc(test_p11_after_fork_inproc_not_supported),
        over_shm(test_p11_after_fork_child_is_member_of_its_own),
        over_shm(test_p11_after_fork_and_fork_again),
    };

    return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
