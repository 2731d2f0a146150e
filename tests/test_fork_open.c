/* SPDX-License-Identifier: MIT */
/*
 * test_fork_open.c - promises 7 and 11: a process forks while another of its threads is in the middle of ps_open or ps_close. The
 * child has nothing of the handle, so the process counts as dead when it is, however long the child lives.
 */
#include "held.h"

#include <dirent.h>
#include <unistd.h>

/* ------------------------------------------------------------------ ps_open in the other thread */

/* A process opens a handle, forks meanwhile, and is killed; its child lives on. */
struct opener {
    const char *url;
    int at;
    ps_bus *bus;
    atomic_int opened;
    struct hold hold;
    struct {
        atomic_int ready, more, rc, strays, go, gone;
    } *shared;
};

static void *opener_thread(void *arg)
{
    struct opener *o = arg;
    held = &o->hold;
    int rc = ps_open(&o->bus, o->url);
    if (rc == 0) {
        atomic_store(&o->opened, 1);
        rc = ps_fd(o->bus) < 0 ? PS_ESYS : 0;   /* binds its bell */
    }
    atomic_store(&o->shared->rc, rc);
    held = NULL;
    atomic_store(&o->hold.done, 1);
    return NULL;
}

static int flag_set(void *flag) { return atomic_load((atomic_int *)flag); }

/* Descriptors that this process has, beside those that were there before. */
static int descriptors_before;

static int count_strays(void)
{
    int count = -descriptors_before;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return -1;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int outlive_opener(void *arg)
{
    struct opener *o = arg;
    if (atomic_load(&o->opened))
        (void)ps_close(o->bus);                 /* only such a child knows the handle */
    atomic_store(&o->shared->strays, count_strays());
    atomic_fetch_add(&o->shared->ready, 1);
    support_wait(flag_set, &o->shared->go, DEADLINE_MS);
    atomic_store(&o->shared->gone, 1);
    return 0;
}

static int opener_ready(void *arg) { return atomic_load((atomic_int *)arg) == 2; }

static int opener_body(void *arg)
{
    struct opener *o = arg;
    pthread_t thread;
    descriptors_before += count_strays();
    o->hold = (struct hold){ .at = o->at };
    if (pthread_create(&thread, NULL, opener_thread, o))
        return 1;
    support_wait(is_there, &o->hold, DEADLINE_MS);
    atomic_store(&o->shared->more, atomic_load(&o->hold.reached));
    atomic_store(&current, &o->hold);
    (void)support_child(outlive_opener, o);
    atomic_store(&current, NULL);
    atomic_store(&o->hold.over, 1);
    pthread_join(thread, NULL);
    atomic_fetch_add(&o->shared->ready, 1);
    support_wait(flag_set, &o->shared->gone, DEADLINE_MS);      /* killed long before */
    return 2;
}

/* Members of the bus that are neither dead nor the one that asks. */
static int count_alive(ps_bus *bus)
{
    ps_member members[8] = { PS_MEMBER_INIT };
    int alive = 0, count = ps_members(bus, NULL, members, 8);
    for (int i = 0; i < count && i < 8; i++)
        alive += !(members[i].flags & (PS_MEMBER_DEAD | PS_MEMBER_SELF));
    return count < 1 ? -1 : alive;
}

/* The bus is there already; or the process makes it; or it makes one without a name. */
static void open_while_forking(int there, int nameless)
{
    struct opener o = { .url = nameless ? "shm:" : support_url("shm", "held-open", "evict=-1"), .at = 0 };
    ps_bus *bus = NULL;
    int more = 1, alive = 0, strays = 0;
    o.shared = support_shared(sizeof *o.shared);
    if (there)
        assert_ok(ps_open(&bus, o.url));
    for (; more && !alive && !strays; o.at++) {
        memset(o.shared, 0, sizeof *o.shared);
        pid_t process = support_child(opener_body, &o);
        int ready = support_wait(opener_ready, &o.shared->ready, DEADLINE_MS);
        support_kill(process);
        assert_true(ready);
        assert_int_equal(atomic_load(&o.shared->rc), 0);
        strays = atomic_load(&o.shared->strays);
        more = atomic_load(&o.shared->more);
        if (!there && !nameless)
            assert_ok(ps_open(&bus, o.url));
        if (bus)
            alive = count_alive(bus);
        if (!there && !nameless) {
            assert_int_equal(ps_close(bus), 0);
            bus = NULL;
        }
        atomic_store(&o.shared->go, 1);
        assert_true(support_wait(flag_set, &o.shared->gone, DEADLINE_MS));
    }
    if (alive || strays)
        fail_msg("after a fork at step %d the child has %d descriptors of the bus, and %d dead count as alive", o.at - 1, strays,
                 alive);
    assert_true(o.at >= HELD_STEPS(10));
    assert_int_equal(ps_close(bus), 0);
}

static void test_p11_thread_joins_a_bus_child_keeps_nothing(void **state)
{
    (void)state;
    open_while_forking(1, 0);
}

static void test_p11_thread_makes_a_bus_child_keeps_nothing(void **state)
{
    (void)state;
    open_while_forking(0, 0);
}

static void test_p11_thread_makes_a_nameless_bus_child_keeps_nothing(void **state)
{
    (void)state;
    open_while_forking(0, 1);
}

/* ------------------------------------------------------------------ and in ps_close */

enum { FORKS = 300 };

struct closer {
    const char *url;
    atomic_int stop;
    int rc;
};

static void *closer_thread(void *arg)
{
    struct closer *c = arg;
    ps_bus *bus;
    while (!c->rc && !atomic_load(&c->stop))
        if (!(c->rc = ps_open(&bus, c->url)))
            c->rc = ps_close(bus);
    return NULL;
}

static int strays_in_child(void *unused)
{
    (void)unused;
    return count_strays();
}

/* The kernel copies descriptors before memory: one that was closed in between is in the child, and nobody would know it. */
static void test_p11_thread_opens_and_closes_child_keeps_nothing(void **state)
{
    (void)state;
    struct closer c = { .url = support_url("shm", "closer", NULL) };
    pthread_t thread;
    int strays = 0;
    descriptors_before += count_strays();
    assert_int_equal(pthread_create(&thread, NULL, closer_thread, &c), 0);
    for (int i = 0; i < FORKS && strays == 0; i++)
        strays = support_reap(support_child(strays_in_child, NULL), DEADLINE_MS);
    atomic_store(&c.stop, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(c.rc, 0);
    assert_int_equal(strays, 0);
}

/* ------------------------------------------------------------------ */

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p11_thread_joins_a_bus_child_keeps_nothing),
        cmocka_unit_test(test_p11_thread_makes_a_bus_child_keeps_nothing),
        cmocka_unit_test(test_p11_thread_makes_a_nameless_bus_child_keeps_nothing),
        cmocka_unit_test(test_p11_thread_opens_and_closes_child_keeps_nothing),
    };
    return cmocka_run_group_tests_name("fork_open", tests, held_setup, NULL);
}
