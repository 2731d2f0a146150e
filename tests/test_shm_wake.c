/* SPDX-License-Identifier: MIT */
/*
 * test_shm_wake.c - a sleeper in another process is always woken. The test variant of the library has no insurance (no look
 * without a ring), so a lost wake-up is a sleep to the end.
 */
#include "forge.h"

#include <poll.h>
#include <pthread.h>

#define WAKE_ROUNDS 15000
#define WAKE_MS     5000                /* far beyond any wake: who sleeps that long was forgotten */

enum { DISPATCH_ALL, DISPATCH_ONE, POLL_FD, WAYS };

struct sleeper {
    struct stage *stage;
    int way;
};

/* Sleeps until count messages came: 0, or -1 when one sleep lasted too long. */
static int sleep_until(ps_bus *bus, int way, const struct inbox *in, uint64_t count)
{
    while (in->count < count) {
        struct pollfd p = { way == POLL_FD ? ps_fd(bus) : -1, POLLIN, 0 };
        if (way == POLL_FD && poll(&p, 1, WAKE_MS) != 1)
            return -1;
        int rc = ps_dispatch(bus, way == DISPATCH_ONE, way == POLL_FD ? 0 : WAKE_MS);
        if (rc < 0 || (rc == 0 && way != POLL_FD))
            return -1;
    }
    return 0;
}

static int answering_child(void *arg)
{
    const struct sleeper *me = arg;
    struct stage *s = me->stage;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "ping")) != NULL);
    for (uint64_t i = 0; i < WAKE_ROUNDS; i++) {
        CHILD_CHECK(s, sleep_until(bus, me->way, &s->inbox[0], i + 1) == 0);
        CHILD_CHECK(s, say(bus, "pong", 2, i, 40) == 1);
    }
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p3_sleepers_in_two_processes_are_always_woken(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct stage *s = stage_new(scratch_url("bus", ""));
        struct sleeper other = { s, way };
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        assert_ok(ps_subscribe(bus, "pong", inbox_take, &s->inbox[1], NULL, NULL));
        pid_t child = start_child(answering_child, &other);
        assert_true(wait_word(&s->ready, 1));
        for (uint64_t i = 0; i < WAKE_ROUNDS; i++) {
            assert_int_equal(say(bus, "ping", 1, i, 40), 1);
            if (sleep_until(bus, way, &s->inbox[1], i + 1) != 0)
                fail_msg("way %d, round %d: a sleep of %d ms with a message there (child's line %d)", way, (int)i, WAKE_MS,
                         (int)s->line);
        }
        s->done = 1;
        assert_child(s, child);
        assert_ok(ps_close(bus));
    }
}

/* ---------------------------------------------------------------- publishing just when the other side falls asleep */

#define RACE_ROUNDS 40000

static int dozing_child(void *arg)
{
    const struct sleeper *me = arg;
    struct stage *s = me->stage;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "ping")) != NULL);
    for (uint64_t i = 1; i <= RACE_ROUNDS; i++) {
        CHILD_CHECK(s, sleep_until(bus, me->way, &s->inbox[0], i) == 0);
        s->go = i;
    }
    return ps_close(bus) == 0 ? 0 : 2;
}

static int beats(const struct stage *s, uint64_t count)
{
    uint64_t end = support_now_ms() + 2 * WAKE_MS;
    for (uint64_t turn = 1; s->go < count; turn++) {
        /* On one processor the other side needs it; on two this must not sleep, or the race is over before it begins. */
        if (turn % 4096 == 0)
            sched_yield();
        if (turn % (1 << 20) == 0 && support_now_ms() > end)
            return 0;
    }
    return 1;
}

static void test_p3_message_that_comes_while_the_reader_falls_asleep_wakes_it(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct stage *s = stage_new(scratch_url("bus", ""));
        struct sleeper other = { s, way };
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        pid_t child = start_child(dozing_child, &other);
        assert_true(wait_word(&s->ready, 1));
        for (uint64_t i = 0; i < RACE_ROUNDS; i++) {
            if (!beats(s, i))
                fail_msg("way %d, round %d: a sleep with a message there (child's line %d)", way, (int)i, (int)s->line);
            /* From at once to a few microseconds later: the time it takes to arm and look. */
            for (volatile uint64_t spin = support_random() % 2000; spin; spin--)
                ;
            assert_int_equal(say(bus, "ping", 1, i, 40), 1);
        }
        assert_child(s, child);
        assert_ok(ps_close(bus));
    }
}

/* ---------------------------------------------------------------- two threads that need the bell for the first time */

#define FIRST_ROUNDS 500

struct first_sleep {
    ps_bus *bus;
    atomic_int meet;
    int rc;
};

static void *first_sleep(void *arg)
{
    struct first_sleep *f = arg;
    atomic_fetch_add(&f->meet, 1);
    while (atomic_load(&f->meet) < 2)
        ;
    f->rc = ps_dispatch(f->bus, 1, WAKE_MS);
    return NULL;
}

/* Both bind it, and neither may take the other's name away. */
static void test_p3_fd_beside_another_threads_first_sleep_leaves_one_that_rings(void **state)
{
    (void)state;
    struct inbox *in = support_shared(sizeof *in);
    for (uint64_t i = 0; i < FIRST_ROUNDS; i++) {
        struct first_sleep f = { .rc = 0 };
        pthread_t thread;
        ps_bus *ringer;
        assert_ok(ps_open(&f.bus, scratch_url("bus", "")));
        assert_ok(ps_open(&ringer, scratch_url("bus", "")));
        assert_ok(ps_subscribe(f.bus, "t", inbox_take, in, NULL, NULL));
        assert_int_equal(pthread_create(&thread, NULL, first_sleep, &f), 0);
        while (atomic_load(&f.meet) < 1)
            sched_yield();
        atomic_fetch_add(&f.meet, 1);
        for (volatile uint64_t spin = support_random() % 20000; spin; spin--)
            ;
        int fd = ps_fd(f.bus), rc = say(ringer, "t", 1, i, 40);
        pthread_join(thread, NULL);
        assert_ok(fd);
        assert_int_equal(rc, 1);
        if (f.rc != 1)
            fail_msg("round %d: ps_dispatch %d where a message was there", (int)i, f.rc);
        int sockets;
        scratch_count(scratch_path, &sockets);
        assert_true(sockets >= 1);
        assert_ok(ps_close(ringer));
        assert_ok(ps_close(f.bus));
    }
}

/* ---------------------------------------------------------------- names of bells */

/* Two handles of one bus: who sleeps, in both ways there are, is woken by the other. */
static void wakes(const char *sleeper_url, const char *ringer_url, const char *what)
{
    struct inbox *in = support_shared(sizeof *in);
    ps_bus *sleeper, *ringer;
    assert_ok(ps_open(&sleeper, sleeper_url));
    assert_ok(ps_subscribe(sleeper, "t", inbox_take, in, NULL, NULL));
    assert_int_equal(ps_dispatch(sleeper, 0, 1), 0);
    struct pollfd p = { ps_fd(sleeper), POLLIN, 0 };
    assert_ok(p.fd);
    int rc = ps_open(&ringer, ringer_url);
    if (rc < 0)
        fail_msg("%s: %s (%s)", what, ps_strerror(rc), ps_errmsg());
    for (uint64_t i = 0; i < 10; i++) {
        while (ps_dispatch(sleeper, 0, 0) > 0)
            ;
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(say(ringer, "t", 1, i, 40), 1);
        if (poll(&p, 1, WAKE_MS) != 1)
            fail_msg("%s: an event loop is not woken", what);
        assert_int_equal(ps_dispatch(sleeper, 0, 0), 1);
    }
    assert_ok(ps_close(ringer));
    assert_ok(ps_close(sleeper));
}

/* The name of a bell is longer than the bus's, and an address holds 107 bytes. */
static void test_p3_sleeper_on_a_bus_with_a_long_name_is_woken(void **state)
{
    (void)state;
    char long_dir[256], url[600];
    snprintf(long_dir, sizeof long_dir, "%s/%0100d", scratch_path, 1);
    assert_int_equal(mkdir(long_dir, 0700), 0);
    const char *const dirs[] = { scratch_path, long_dir };
    static const int lengths[] = { 1, 64, 65, 80, 102, 255 };
    for (size_t d = 0; d < 2; d++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            snprintf(url, sizeof url, "shm://%s/%0*d", dirs[d], lengths[i], 7);
            wakes(url, url, url);
        }
        assert_int_equal(scratch_count(dirs[d], NULL), d ? 0 : 1);
    }
    assert_int_equal(rmdir(long_dir), 0);
}

/* A way to the file of an anonymous bus: one of its handles' descriptors. */
static int memfd_path(char *path, size_t size)
{
    for (int fd = 3; fd < 256; fd++) {
        char link[32], target[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, target, sizeof target);
        if (n < 8 || memcmp(target, "/memfd:", 7) != 0 || (fcntl(fd, F_GETFL) & O_PATH))
            continue;
        snprintf(path, size, "shm:///proc/%d/fd/%d", (int)getpid(), fd);
        return 1;
    }
    return 0;
}

/* Whatever way a member found the file, it rings where the others listen; or it is no member. */
static void test_p3_member_by_descriptor_is_woken_and_wakes_or_is_refused(void **state)
{
    (void)state;
    ps_bus *bus, *other = (ps_bus *)state;
    char by_descriptor[100], observer[120];
    assert_ok(ps_open(&bus, "shm:"));
    assert_true(memfd_path(by_descriptor, sizeof by_descriptor));
    wakes(by_descriptor, by_descriptor, "anonymous, both by descriptor");
    assert_ok(ps_close(bus));
    /* The bells of a named bus lie beside its file, and a descriptor does not tell where that is. */
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    snprintf(by_descriptor, sizeof by_descriptor, "shm:///proc/%d/fd/%d", (int)getpid(), fd);
    assert_int_equal(ps_open(&other, by_descriptor), PS_EINVAL);
    assert_null(other);
    assert_non_null(strstr(ps_errmsg(), "name"));
    snprintf(observer, sizeof observer, "%s?observe=1", by_descriptor);
    assert_ok(ps_open(&other, observer));               /* it is never rung and rings nobody */
    assert_int_equal(living_members(other), 1);
    assert_ok(ps_close(other));
    close(fd);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

struct heir {
    struct stage *stage;
    ps_bus *bus;
};

/* Handles that were opened by the first one's descriptor and those that inherited it are one bus. */
static int inheriting_child(void *arg)
{
    const struct heir *me = arg;
    struct stage *s = me->stage;
    CHILD_CHECK(s, ps_after_fork(me->bus) == 0);
    CHILD_CHECK(s, ps_subscribe(me->bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    s->ready = 1;
    for (uint64_t i = 0; i < 10; i++) {
        CHILD_CHECK(s, sleep_until(me->bus, i % 2 ? POLL_FD : DISPATCH_ALL, &s->inbox[0], i + 1) == 0);
        s->go = i + 1;
    }
    return ps_close(me->bus) != 0;
}

static void test_p3_member_by_descriptor_wakes_one_that_inherited_the_bus(void **state)
{
    (void)state;
    struct heir me = { stage_new("shm:"), NULL };
    char by_descriptor[100];
    ps_bus *other;
    assert_ok(ps_open(&me.bus, "shm:"));
    assert_true(memfd_path(by_descriptor, sizeof by_descriptor));
    assert_ok(ps_open(&other, by_descriptor));
    pid_t child = start_child(inheriting_child, &me);
    assert_true(wait_word(&me.stage->ready, 1));
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(say(other, "t", 1, i, 40), 1);
        assert_true(wait_word(&me.stage->go, i + 1));
    }
    assert_child(me.stage, child);
    assert_ok(ps_close(other));
    assert_ok(ps_close(me.bus));
}

/* ---------------------------------------------------------------- a refusal that ends without a ring */

/* How often an event loop goes round in ms milliseconds. */
static int turns_of(ps_bus *bus, int ms)
{
    struct pollfd p = { ps_fd(bus), POLLIN, 0 };
    int turns = 0;
    for (uint64_t end = support_now_ms() + (uint64_t)ms; support_now_ms() < end; turns++) {
        poll(&p, 1, ms / 10);
        assert_true(ps_dispatch(bus, 0, 0) >= 0);
    }
    return turns;
}

/* The reader that held the ring dies, and what is rung for its eviction is not rung for ever. */
static void test_p12_event_loop_is_quiet_after_the_reader_that_held_it_back_died(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=8&evict=-1"));
    ps_bus *bus;
    int rc;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(idle_reader_child, s);
    assert_true(wait_word(&s->ready, 1));
    turns_of(bus, 20);
    while ((rc = ps_publish(bus, "t", "x", 1)) == 1)
        ;
    assert_int_equal(rc, PS_EAGAIN);
    turns_of(bus, 20);
    kill_child(child);
    struct pollfd p = { ps_fd(bus), POLLIN, 0 };
    assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);              /* told that a retry may succeed */
    turns_of(bus, 100);
    assert_in_range(turns_of(bus, 200), 1, 100);
    assert_true(ps_publish(bus, "t", "x", 1) >= 0);
    assert_in_range(turns_of(bus, 200), 1, 100);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* Another thread's publish was refused, and before it has set its timer a dispatch tells that there is room. */
static void test_p12_event_loop_is_quiet_after_a_refusal_that_a_dispatch_overtook(void **state)
{
    (void)state;
    ps_bus *bus;
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    struct pollfd p = { ps_fd(bus), POLLIN, 0 };
    int turns = 0;
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    ps__sleep_timer(&forge_shm(bus)->port, 1);
    assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
    for (; turns < 1000 && poll(&p, 1, 50) == 1; turns++)
        assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    assert_in_range(turns, 1, 999);
    assert_ok(ps_close(bus));
}

#define WAKE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WAKE_TEST(test_p3_sleepers_in_two_processes_are_always_woken),
        WAKE_TEST(test_p3_message_that_comes_while_the_reader_falls_asleep_wakes_it),
        WAKE_TEST(test_p3_fd_beside_another_threads_first_sleep_leaves_one_that_rings),
        WAKE_TEST(test_p3_sleeper_on_a_bus_with_a_long_name_is_woken),
        WAKE_TEST(test_p3_member_by_descriptor_is_woken_and_wakes_or_is_refused),
        WAKE_TEST(test_p3_member_by_descriptor_wakes_one_that_inherited_the_bus),
        WAKE_TEST(test_p12_event_loop_is_quiet_after_the_reader_that_held_it_back_died),
        WAKE_TEST(test_p12_event_loop_is_quiet_after_a_refusal_that_a_dispatch_overtook),
    };
    return cmocka_run_group_tests_name("shm_wake", tests, NULL, NULL);
}
