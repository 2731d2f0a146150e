/* SPDX-License-Identifier: MIT */
/*
 * test_fork_life.c - promise 11 over time: children that outlive their parent, a parent whose threads publish while it
 * forks, and a server of forked workers. Over shm; children never assert, need() prints what was wrong and ends them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HANG_S 100

#define need(condition) do { if (!(condition)) { \
    fprintf(stderr, "child: line %d: %s (%s)\n", __LINE__, #condition, ps_errmsg()); return 1; } } while (0)

/* A number that processes share, and waiting for it to rise. */
struct step {
    atomic_int *number;
    int         least;
};

static int step_there(void *arg)
{
    struct step *s = arg;

    return atomic_load(s->number) >= s->least;
}

static int wait_for(atomic_int *number, int least)
{
    struct step s = { number, least };

    return support_wait(step_there, &s, DEADLINE_MS);
}

static void ignore(const ps_msg *msg, void *user)
{
    (void)msg;
    (void)user;
}

/* ------------------------------------------------------------------ a child that outlives its parent */

struct orphan {
    const char *url;
    ps_bus     *bus;
    int         after_fork;     /* the child becomes a member */
    struct {
        atomic_int ready, go, done, orphan;
    } *shared;
};

/* The test's grandchild; nobody waits for it, so it says how it went in shared memory. */
static int orphan_body(struct orphan *o)
{
    uint64_t number = 1;

    need(ps_publish(o->bus, "t", &number, sizeof number) == PS_EFORKED);
    if (o->after_fork)
        need(ps_after_fork(o->bus) == 0);
    atomic_store(&o->shared->ready, 1);
    need(wait_for(&o->shared->go, 1));          /* the parent is dead now */
    if (o->after_fork)                          /* 0, if its death has been noticed: there is no other reader */
        need(ps_publish(o->bus, "t", &number, sizeof number) >= 0);
    else
        need(ps_publish(o->bus, "t", &number, sizeof number) == PS_EFORKED);
    need(ps_close(o->bus) == 0);
    return 0;
}

/* A reader that takes nothing, and forks. */
static int parent_body(void *arg)
{
    struct orphan *o = arg;
    pid_t child;

    need(ps_open(&o->bus, o->url) == 0);
    need(ps_subscribe(o->bus, "t", ignore, NULL, NULL, NULL) == 0);
    child = fork();
    need(child >= 0);
    if (child == 0) {
        alarm(HANG_S);
        atomic_store(&o->shared->orphan, getpid());
        atomic_store(&o->shared->done, orphan_body(o) == 0 ? 1 : 2);
        _exit(0);
    }
    need(wait_for(&o->shared->ready, 1));
    raise(SIGKILL);
    return 1;
}

/*
 * The kernel keeps what a dead process had open for as long as a forked child has it open, too. The dead parent must be
 * known to be dead all the same: it holds the ring as long as it counts as alive.
 */
static void outlive(int after_fork)
{
    struct orphan o;
    ps_bus *bus;
    uint64_t number = 0;
    int rc = 0, taken = 0;
    ps_member members[4];

    memset(&o, 0, sizeof o);
    o.after_fork = after_fork;
    o.shared = support_shared(sizeof *o.shared);
    o.url = support_url("shm", "orphan", "depth=4&evict=-1");
    assert_ok(ps_open(&bus, o.url));
    assert_int_equal(support_reap(support_child(parent_body, &o), DEADLINE_MS), 1000 + SIGKILL);
    assert_int_equal(atomic_load(&o.shared->ready), 1);
    /* The test is the third member: its messages go to the dead reader, who would hold it back for ever. */
    for (int tries = 0; taken < 100 && tries < DEADLINE_MS; tries++) {
        rc = ps_publish(bus, "t", &number, sizeof number);
        if (rc < 0 && rc != PS_EAGAIN)
            break;
        taken += rc >= 0;
        if (rc == PS_EAGAIN)
            nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    }
    atomic_store(&o.shared->go, 1);
    assert_int_equal(taken, 100);
    assert_true(wait_for(&o.shared->done, 1));
    assert_int_equal(atomic_load(&o.shared->done), 1);
    /* And its place is free. */
    members[0].size = sizeof members[0];
    rc = ps_members(bus, NULL, members, 4);
    assert_ok(rc);
    for (int i = 0; i < rc && i < 4; i++)
        assert_true((members[i].flags & PS_MEMBER_DEAD) || (members[i].flags & PS_MEMBER_SELF));
    assert_int_equal(ps_close(bus), 0);
    assert_int_not_equal(access(support_file(o.url), F_OK), 0);
}

static void test_p11_parent_dead_child_a_member_lives_on(void **state)
{
    (void)state;
    outlive(1);
}

static void test_p11_parent_dead_although_idle_child_lives(void **state)
{
    (void)state;
    outlive(0);
}

/* ------------------------------------------------------------------ threads publish while the process forks */

enum { STORM_THREADS = 3, STORM_CHILDREN = 40, STORM_CHILD_MESSAGES = 50, STORM_SILENT = 100 };

/* The exit code of a child that did what it should. */
static int storm_expected(uint64_t publisher)
{
    return publisher % 4 == 0 || publisher % 4 == 3 ? STORM_SILENT : 0;
}

struct storm {
    ps_bus    *bus;
    atomic_int stop;
    uint64_t   publisher, sent;
    int        error;
    pthread_t  thread;
};

static void *storm_publish(void *arg)
{
    struct storm *s = arg;
    unsigned char data[200];

    while (!atomic_load(&s->stop) && s->error == 0) {
        size_t size = sizeof (struct support_message) + (size_t)(s->sent % 150);
        int rc;

        support_compose(data, size, s->publisher, s->sent);
        rc = ps_publish(s->bus, "storm", data, size);
        if (rc >= 1)
            s->sent++;
        else
            s->error = rc < 0 ? rc : 1;
    }
    return NULL;
}

struct storm_reader {
    ps_bus    *bus;
    atomic_int stop;
    uint64_t   next[STORM_THREADS + STORM_CHILDREN];
    int        wrong, error;
    pthread_t  thread;
};

static void storm_handler(const ps_msg *msg, void *user)
{
    struct storm_reader *r = user;
    struct support_message head;

    if (support_verify(msg->data, msg->size, &head) != 0 || head.publisher >= STORM_THREADS + STORM_CHILDREN ||
        msg->lost != 0 || head.number != r->next[head.publisher]) {
        r->wrong++;
        return;
    }
    r->next[head.publisher]++;
}

static void *storm_read(void *arg)
{
    struct storm_reader *r = arg;
    int rc;

    do
        rc = ps_dispatch(r->bus, 256, 5);
    while (rc > 0 || (rc == 0 && !atomic_load(&r->stop)));
    r->error = rc;
    return NULL;
}

struct storm_child {
    ps_bus  *bus;
    uint64_t publisher;
};

static int storm_child(void *arg)
{
    struct storm_child *c = arg;
    unsigned char data[100];

    need(ps_publish(c->bus, "storm", "x", 1) == PS_EFORKED);
    if (c->publisher % 4 == 0)
        return STORM_SILENT;                    /* neither member nor closed: just gone */
    if (c->publisher % 4 == 3) {
        need(ps_close(c->bus) == 0);            /* whatever the parent's threads were doing in it */
        return STORM_SILENT;
    }
    need(ps_after_fork(c->bus) == 0);
    for (uint64_t i = 0; i < STORM_CHILD_MESSAGES; i++) {
        support_compose(data, sizeof data, c->publisher, i);
        need(ps_publish(c->bus, "storm", data, sizeof data) >= 1);
    }
    need(c->publisher % 4 == 1 || ps_close(c->bus) == 0);       /* some leave without a word */
    return 0;
}

static void test_p11_threads_publish_while_forking_nothing_lost(void **state)
{
    const char *url = support_url("shm", "storm", "depth=256&bytes=64k&block=60000&evict=-1");
    static struct storm_reader reader;
    struct storm storms[STORM_THREADS];
    int codes[STORM_CHILDREN], wrong = 0, children = 0;

    (void)state;
    memset(storms, 0, sizeof storms);
    assert_ok(ps_open(&reader.bus, url));
    assert_ok(ps_subscribe(reader.bus, "storm", storm_handler, &reader, NULL, NULL));
    for (int i = 0; i < STORM_THREADS; i++) {
        storms[i].publisher = (uint64_t)i;
        if (i == 0)
            assert_ok(ps_open(&storms[i].bus, url));
        else
            storms[i].bus = storms[0].bus;      /* one handle, so that the child inherits it in the middle of two publishes */
        assert_int_equal(pthread_create(&storms[i].thread, NULL, storm_publish, &storms[i]), 0);
    }
    assert_int_equal(pthread_create(&reader.thread, NULL, storm_read, &reader), 0);
    /* The first child that fails ends it: it may have hung, and so may all the others. */
    for (; children < STORM_CHILDREN && wrong == 0; children++) {
        struct storm_child c = { storms[0].bus, (uint64_t)(STORM_THREADS + children) };

        codes[children] = support_reap(support_child(storm_child, &c), DEADLINE_MS);
        wrong += codes[children] != storm_expected(c.publisher);
    }
    for (int i = 0; i < STORM_THREADS; i++) {
        atomic_store(&storms[i].stop, 1);
        assert_int_equal(pthread_join(storms[i].thread, NULL), 0);
    }
    atomic_store(&reader.stop, 1);
    assert_int_equal(pthread_join(reader.thread, NULL), 0);
    if (wrong != 0)
        fail_msg("child %d ends with %d", children - 1, codes[children - 1]);
    for (int i = 0; i < STORM_CHILDREN; i++)
        assert_int_equal(reader.next[STORM_THREADS + i], codes[i] == 0 ? STORM_CHILD_MESSAGES : 0);
    assert_int_equal(reader.error, 0);
    assert_int_equal(reader.wrong, 0);
    for (int i = 0; i < STORM_THREADS; i++) {
        assert_int_equal(storms[i].error, 0);
        assert_true(storms[i].sent > 0);
        assert_int_equal(reader.next[i], storms[i].sent);
    }
    assert_int_equal(ps_close(storms[0].bus), 0);
    assert_int_equal(ps_close(reader.bus), 0);
    assert_int_not_equal(access(support_file(url), F_OK), 0);
}

/* ------------------------------------------------------------------ a server of forked workers on an anonymous bus */

enum { WORKERS = 4, WORKER_ROUNDS = 50 };

struct server {
    ps_bus *bus;
    int     worker;
    struct {
        atomic_int ready, finished;
    } *shared;
};

struct worker {
    int got[WORKERS + 1];
    int wrong;
};

static void worker_handler(const ps_msg *msg, void *user)
{
    struct worker *w = user;
    struct support_message head;

    if (support_verify(msg->data, msg->size, &head) != 0 || head.publisher > WORKERS || msg->lost != 0 ||
        head.number != (uint64_t)w->got[head.publisher]++)
        w->wrong++;
}

static int worker_done(const struct worker *w, int self)
{
    int done = 0;

    for (int i = 0; i <= WORKERS; i++)
        done += i == self || w->got[i] == WORKER_ROUNDS;
    return done == WORKERS + 1;
}

/* Everybody, the parent included, writes to everybody else and is through when all have written to it. */
static int worker_body(void *arg)
{
    struct server *s = arg;
    struct worker w;
    char topic[32];
    unsigned char data[100];
    int patience = 1000;

    memset(&w, 0, sizeof w);
    if (s->worker < WORKERS)
        need(ps_after_fork(s->bus) == 0);
    snprintf(topic, sizeof topic, "worker:%d", s->worker);
    need(ps_subscribe(s->bus, topic, worker_handler, &w, NULL, NULL) == 0);
    atomic_fetch_add(&s->shared->ready, 1);
    need(wait_for(&s->shared->ready, WORKERS + 1));
    for (int round = 0; round < WORKER_ROUNDS; round++)
        for (int to = 0; to <= WORKERS; to++) {
            int rc;

            if (to == s->worker)
                continue;
            support_compose(data, sizeof data, (uint64_t)s->worker, (uint64_t)round);
            snprintf(topic, sizeof topic, "worker:%d", to);
            while ((rc = ps_publish(s->bus, topic, data, sizeof data)) == PS_EAGAIN && patience-- > 0)
                need(ps_dispatch(s->bus, 0, 50) >= 0);
            need(rc >= 1);
        }
    while (!worker_done(&w, s->worker) && patience-- > 0)
        need(ps_dispatch(s->bus, 0, 50) >= 0);
    need(w.wrong == 0);
    need(worker_done(&w, s->worker));
    atomic_fetch_add(&s->shared->finished, 1);
    need(wait_for(&s->shared->finished, WORKERS + 1));
    return 0;
}

static void test_p11_workers_on_anonymous_bus_reach_each_other(void **state)
{
    struct server s;
    pid_t workers[WORKERS];
    int descriptors = support_fd_count(), mine, wrong = 0;

    (void)state;
    memset(&s, 0, sizeof s);
    s.shared = support_shared(sizeof *s.shared);
    assert_ok(ps_open(&s.bus, "shm:?depth=64&bytes=64k"));
    for (int i = 0; i < WORKERS; i++) {
        s.worker = i;
        workers[i] = support_child(worker_body, &s);
    }
    s.worker = WORKERS;
    mine = worker_body(&s);
    for (int i = 0; i < WORKERS; i++)
        wrong += support_reap(workers[i], DEADLINE_MS) != 0;
    assert_int_equal(mine, 0);
    assert_int_equal(wrong, 0);
    assert_int_equal(ps_close(s.bus), 0);
    assert_int_equal(support_fd_count(), descriptors);
}

/* ------------------------------------------------------------------ a child that begins anew inside the handler */

struct anew {
    ps_bus *bus;
    pid_t   parent, child;
    int     rc;
    struct {
        atomic_int destroyed, went_on;
    } *shared;
};

static void anew_destroy(void *user)
{
    struct anew *a = user;

    if (getpid() != a->parent)
        atomic_fetch_add(&a->shared->destroyed, 1);
}

/* Takes all the memory that was freed just now, so that who still looks into it finds something else. */
static void anew_take_memory(void)
{
    for (size_t size = 16; size <= 512; size += 16)
        for (int i = 0; i < 8; i++) {
            void *memory = malloc(size);

            if (memory != NULL)
                memset(memory, 0x5a, size);
        }
}

static void anew_handler(const ps_msg *msg, void *user)
{
    struct anew *a = user;

    (void)msg;
    fflush(NULL);
    a->child = fork();
    if (a->child != 0)
        return;
    signal(SIGSEGV, SIG_DFL);
    alarm(HANG_S);
    a->rc = ps_after_fork(a->bus);
    anew_take_memory();
}

/* What the child's dispatch has to answer, and that the handle is its own. */
static int anew_in_child(struct anew *a, int answer)
{
    need(a->rc == 0);
    need(answer == PS_EFORKED);
    need(atomic_load(&a->shared->destroyed) == 2);
    need(ps_subscribe(a->bus, "mine", ignore, NULL, NULL, NULL) == 0);
    need(ps_publish(a->bus, "mine", "x", 1) == 1);
    need(ps_dispatch(a->bus, 0, 0) == 1);
    need(ps_close(a->bus) == 0);
    return 0;
}

/* ps_after_fork ends the inherited subscriptions, also the one whose handler calls it. */
static void test_p11_after_fork_in_handler_subscription_destroyed_once(void **state)
{
    struct anew a;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    int answer;

    (void)state;
    memset(&a, 0, sizeof a);
    a.shared = support_shared(sizeof *a.shared);
    a.parent = getpid();
    options.destroy = anew_destroy;
    assert_ok(ps_open(&a.bus, "shm:?depth=64&bytes=64k"));
    assert_ok(ps_subscribe(a.bus, "t", anew_handler, &a, &options, NULL));
    assert_ok(ps_subscribe(a.bus, "other", anew_handler, &a, &options, NULL));
    assert_int_equal(ps_publish(a.bus, "t", "x", 1), 1);
    answer = ps_dispatch(a.bus, 0, 0);
    if (getpid() != a.parent)
        _exit(anew_in_child(&a, answer));
    assert_int_equal(answer, 1);
    assert_int_equal(support_reap(a.child, DEADLINE_MS), 0);
    assert_int_equal(ps_close(a.bus), 0);
}

/* ------------------------------------------------------------------ another bus of that name */

static int latecomer_body(void *arg)
{
    need(ps_after_fork(arg) == PS_EUNLINKED);
    need(ps_publish(arg, "t", "x", 1) == PS_EFORKED);
    need(ps_close(arg) == 0);
    return 0;
}

static void test_p11_after_fork_when_the_name_is_another_bus_refused(void **state)
{
    const char *url = support_url("shm", "another", NULL);
    ps_bus *first, *second;

    (void)state;
    assert_ok(ps_open(&first, url));
    assert_int_equal(unlink(support_file(url)), 0);
    assert_ok(ps_open(&second, url));
    assert_int_equal(support_reap(support_child(latecomer_body, first), DEADLINE_MS), 0);
    assert_int_equal(ps_members(second, NULL, NULL, 0), 1);
    assert_int_equal(ps_close(first), 0);
    assert_int_equal(ps_close(second), 0);
}

/* ------------------------------------------------------------------ */

static int watch(void **state)
{
    (void)state;
    alarm(HANG_S);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_p11_parent_dead_child_a_member_lives_on, watch),
        cmocka_unit_test_setup(test_p11_parent_dead_although_idle_child_lives, watch),
        cmocka_unit_test_setup(test_p11_threads_publish_while_forking_nothing_lost, watch),
        cmocka_unit_test_setup(test_p11_workers_on_anonymous_bus_reach_each_other, watch),
        cmocka_unit_test_setup(test_p11_after_fork_in_handler_subscription_destroyed_once, watch),
        cmocka_unit_test_setup(test_p11_after_fork_when_the_name_is_another_bus_refused, watch),
    };

    return cmocka_run_group_tests_name("fork_life", tests, NULL, NULL);
}
