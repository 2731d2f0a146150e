/* SPDX-License-Identifier: MIT */
/*
 * test_resources.c - a program that takes the library's resources away: memory at a subscribe, every descriptor by closefrom().
 * (What shm does without descriptors beyond sleeping is in test_shm_limits.c.)
 */
#include "actors.h"

#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

/* ---------------------------------------------------------------- memory */

static int out_of_memory_child(void *arg)
{
    struct stage *s = arg;
    struct rlimit before, none;
    ps_bus *bus, *poor, *lossy;
    char url[300];
    snprintf(url, sizeof url, "%s&lossy=1", s->url);
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && ps_open(&poor, s->url) == 0 && ps_open(&lossy, url) == 0);
    CHILD_CHECK(s, ps_subscribe(lossy, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, getrlimit(RLIMIT_DATA, &before) == 0);
    none = (struct rlimit){ 4096, before.rlim_max };    /* nothing new; what is small comes from what there is */
    CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &none) == 0);
    s->rc[0] = ps_subscribe(poor, "t", inbox_take, &s->inbox[1], NULL, NULL);
    CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &before) == 0);
    CHILD_CHECK(s, s->rc[0] == PS_ENOMEM);
    for (int i = 0; i < 100; i++)       /* a ring of eight */
        CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    CHILD_CHECK(s, ps_subscribe(poor, "t", inbox_take, &s->inbox[1], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 2);
    CHILD_CHECK(s, ps_dispatch(poor, 0, 0) == 1);
    CHILD_CHECK(s, s->inbox[1].count == 1 && s->inbox[1].lost == 0);
    return ps_close(bus) != 0 || ps_close(poor) != 0 || ps_close(lossy) != 0;
}

/* A handle without subscriptions holds nobody back, also if it tried to have one. */
static void test_subscribe_without_memory_leaves_no_gate(void **state)
{
    (void)state;
    if (ACTORS_SANITIZED)
        SKIP_TEST("a sanitizer does not live with so little memory");
    const char *url[] = { scratch_url("bus", "depth=8&evict=-1"), "inproc://poor?depth=8&evict=-1" };
    for (int i = 0; i < 2; i++) {
        struct stage *s = stage_new(url[i]);
        int code = reap_child(start_child(out_of_memory_child, s));
        if (code != 0)
            fail_msg("%s: child ended with %d; its line %d; ps_subscribe %d", url[i], code, (int)s->line, (int)s->rc[0]);
    }
}

static void *running_thread(void *bus)
{
    ps_run(bus);
    return NULL;
}

#define PAIRS 40000

/* Sooner or later: the dispatching thread may have to wait for a processor. */
static int is_swept(void *arg) { return mallinfo2().uordblks <= ((struct stage *)arg)->number[0]; }

static int coming_and_going_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    ps_sub *keep, *sub;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "keep", inbox_take, &s->inbox[0], NULL, &keep) == 0);
    pthread_t thread;
    CHILD_CHECK(s, pthread_create(&thread, NULL, running_thread, bus) == 0);
    s->number[0] = mallinfo2().uordblks + PAIRS * 16;
    for (int i = 0; i < PAIRS; i++) {
        CHILD_CHECK(s, ps_subscribe(bus, "comes/and/goes", inbox_take, &s->inbox[0], NULL, &sub) == 0);
        CHILD_CHECK(s, ps_unsubscribe(sub) == 0);
        if (i % 1000 == 0)
            CHILD_CHECK(s, support_wait(is_swept, s, DEADLINE_MS));
    }
    ps_stop(bus);
    pthread_join(thread, NULL);
    return ps_close(bus) == 0 ? 0 : 2;
}

/* What ends is freed by a dispatch that never ends, too, also by one that sleeps. */
static void test_subscriptions_that_come_and_go_beside_a_run_take_no_memory(void **state)
{
    (void)state;
    if (ACTORS_SANITIZED)
        SKIP_TEST("a sanitizer has an allocator of its own");
    const char *url[] = { scratch_url("bus", ""), "inproc://coming" };
    for (int i = 0; i < 2; i++) {
        struct stage *s = stage_new(url[i]);
        int code = reap_child(start_child(coming_and_going_child, s));
        if (code != 0)
            fail_msg("%s: child ended with %d; its line %d", url[i], code, (int)s->line);
    }
}

static int mappings(void)
{
    char line[512];
    int n = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    while (file && fgets(line, sizeof line, file))
        n++;
    if (file)
        fclose(file);
    return n;
}

static int loan_without_memory_child(void *arg)
{
    struct stage *s = arg;
    struct rlimit before, none;
    ps_bus *bus;
    void *data;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && ps_publish(bus, "t", "", 0) == 0);
    CHILD_CHECK(s, getrlimit(RLIMIT_DATA, &before) == 0);
    none = (struct rlimit){ 4096, before.rlim_max };
    for (int i = 0; i < 5; i++) {
        CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &none) == 0);
        s->rc[0] = ps_loan(bus, "t", 1, &data);
        CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &before) == 0);
        CHILD_CHECK(s, s->rc[0] == PS_ENOMEM);
        if (i == 0)
            s->rc[1] = mappings();
        CHILD_CHECK(s, mappings() == s->rc[1]);
    }
    CHILD_CHECK(s, ps_loan(bus, "t", 1, &data) == 0 && ps_cancel(bus, data) == 0);
    return ps_close(bus) == 0 ? 0 : 2;
}

/* The loan area is mapped at the first attempt, and not once more at each that finds no memory for the list. */
static void test_loan_without_memory_leaves_no_mapping(void **state)
{
    (void)state;
    if (ACTORS_SANITIZED)
        SKIP_TEST("a sanitizer does not live with so little memory");
    struct stage *s = stage_new(scratch_url("bus", "depth=65536&bytes=4k"));
    assert_child(s, start_child(loan_without_memory_child, s));
}

/* ---------------------------------------------------------------- descriptors */

#define FILES 32

static void close_all(void)
{
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
}

/* The numbers of what was closed belong to files of the program now: nothing may be written to them, and nobody closes them. */
static int closefrom_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus, *reader;
    int fd[FILES];
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && ps_open(&reader, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(reader, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_fd(reader) >= 0 && ps_fd(bus) >= 0);
    CHILD_CHECK(s, ps_dispatch(reader, 0, 0) == 0 && ps_dispatch(bus, 0, 0) == 0);      /* their bells are armed */
    close_all();
    for (int i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof name, "file%d", i);
        fd[i] = open(scratch_file(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHILD_CHECK(s, fd[i] >= 0);
    }
    int rc;
    for (uint64_t i = 0; (rc = say(bus, "t", 1, i, 40)) == 1 && i < 4;)
        i++;
    s->rc[0] = rc;
    CHILD_CHECK(s, rc == 1);
    ps_stop(bus);
    s->rc[1] = ps_dispatch(reader, 0, 0);
    CHILD_CHECK(s, s->rc[1] == 5);
    s->rc[2] = ps_dispatch(reader, 0, 5);
    CHILD_CHECK(s, s->rc[2] == 0 || s->rc[2] == PS_ESYS);
    CHILD_CHECK(s, ps_close(reader) == 0 && ps_close(bus) == 0);
    for (int i = 0; i < FILES; i++) {
        struct stat st;
        CHILD_CHECK(s, fstat(fd[i], &st) == 0 && st.st_size == 0);
    }
    return s->inbox[0].count == 5 ? 0 : 2;
}

static void test_closefrom_then_files_of_the_program_stay_as_they_are(void **state)
{
    (void)state;
    const char *url[] = { scratch_url("bus", ""), "inproc://closed" };
    for (int i = 0; i < 2; i++) {
        struct stage *s = stage_new(url[i]);
        int code = reap_child(start_child(closefrom_child, s));
        if (code != 0)
            fail_msg("%s: child ended with %d; its line %d; answers %d, %d, %d", url[i], code, (int)s->line, (int)s->rc[0],
                     (int)s->rc[1], (int)s->rc[2]);
        scratch_empty();
    }
}

enum { OWN_EVENTS, OWN_TIMERS, OWN_LOOP, OWN_KINDS };

struct own_files {
    struct stage *stage;
    int kind;                           /* of what the program has under the numbers of what was closed */
};

/* The same with what has no inode of its own: eventfds, timers, and an event loop with its timers. */
static int own_child(void *arg)
{
    const struct own_files *own = arg;
    struct stage *s = own->stage;
    ps_bus *bus, *reader;
    int fd[FILES], loop, rc = 1;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && ps_open(&reader, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(reader, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_fd(reader) >= 0 && (loop = ps_fd(bus)) >= 0);
    CHILD_CHECK(s, ps_dispatch(reader, 0, 0) == 0 && ps_dispatch(bus, 0, 0) == 0);
    close_all();
    for (int i = 0; i < FILES; i++) {
        if (own->kind == OWN_EVENTS)
            fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        else if (own->kind == OWN_LOOP && i + 3 == loop)
            fd[i] = epoll_create1(EPOLL_CLOEXEC);
        else
            fd[i] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        CHILD_CHECK(s, fd[i] == i + 3);
    }
    for (int i = 0; i < FILES && own->kind == OWN_LOOP; i++) {
        struct epoll_event event = { .events = EPOLLIN };
        CHILD_CHECK(s, fd[i] == loop || epoll_ctl(loop, EPOLL_CTL_ADD, fd[i], &event) == 0);
    }
    while (rc == 1)                     /* until it is refused, for the timer and the other bell */
        rc = ps_publish(bus, "t", "x", 1);
    CHILD_CHECK(s, rc == PS_EAGAIN);
    ps_stop(reader);
    ps_stop(bus);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == 0);
    for (int i = 0; i < FILES; i++) {
        struct itimerspec when = { { 0, 0 }, { 0, 0 } };
        uint64_t count;
        if (own->kind == OWN_EVENTS)
            CHILD_CHECK(s, read(fd[i], &count, sizeof count) < 0 && errno == EAGAIN);
        else if (own->kind == OWN_TIMERS || fd[i] != loop)
            CHILD_CHECK(s, timerfd_gettime(fd[i], &when) == 0 && when.it_value.tv_nsec == 0 &&
                           read(fd[i], &count, sizeof count) < 0 && errno == EAGAIN);
    }
    CHILD_CHECK(s, ps_close(reader) == 0 && ps_close(bus) == 0);
    for (int i = 0; i < FILES; i++)
        CHILD_CHECK(s, fcntl(fd[i], F_GETFD) >= 0);
    return 0;
}

static void test_closefrom_then_events_and_timers_of_the_program_stay_as_they_are(void **state)
{
    (void)state;
    const char *url[] = { scratch_url("bus", "depth=8&evict=-1"), "inproc://own?depth=8&evict=-1" };
    for (int i = 0; i < 2 * OWN_KINDS; i++) {
        struct own_files own = { stage_new(url[i % 2]), i / 2 };
        int code = reap_child(start_child(own_child, &own));
        if (code != 0)
            fail_msg("%s, kind %d: child ended with %d; its line %d", url[i % 2], i / 2, code, (int)own.stage->line);
        scratch_empty();
    }
}

/* Ringing must not fail for want of the descriptor it was kept for. */
static int ringing_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_wanted(bus, "t") == 1);
    CHILD_CHECK(s, say(bus, "t", 1, 0, 40) == 1);       /* its lane is there */
    CHILD_CHECK(s, wait_word(&s->go, 1));
    close_all();
    for (uint64_t i = 1; i <= 10; i++) {
        CHILD_CHECK(s, wait_word(&s->go, i));
        CHILD_CHECK(s, say(bus, "t", 1, i, 40) == 1);
    }
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) != 0;
}

static void test_p7_sleeper_is_woken_by_a_publisher_that_has_lost_its_descriptors(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    ps_bus *reader;
    assert_ok(ps_open(&reader, s->url));
    assert_ok(ps_subscribe(reader, "t", inbox_take, &s->inbox[0], NULL, NULL));
    pid_t child = start_child(ringing_child, s);
    assert_int_equal(hear(reader, &s->inbox[0], 1), 0);
    struct pollfd p = { ps_fd(reader), POLLIN, 0 };
    for (uint64_t i = 1; i <= 10; i++) {
        while (ps_dispatch(reader, 0, 0) > 0)
            ;
        assert_int_equal(s->inbox[0].count, i);
        s->go = i;
        if (poll(&p, 1, DEADLINE_MS / 4) != 1)
            fail_msg("message %d does not wake its reader", (int)i);
        assert_int_equal(hear(reader, &s->inbox[0], i + 1), 0);
    }
    s->done = 1;
    assert_child(s, child);
    assert_ok(ps_close(reader));
}

/* Takes every descriptor that is left; how many. */
static int take_all(int *taken, int most)
{
    struct rlimit few;
    int n = 0;
    if (getrlimit(RLIMIT_NOFILE, &few) != 0)
        return -1;
    few.rlim_cur = (rlim_t)most;
    if (setrlimit(RLIMIT_NOFILE, &few) != 0)
        return -1;
    while (n < most && (taken[n] = dup(2)) >= 0)
        n++;
    return n;
}

static void give_back(const int *taken, int n)
{
    while (n > 0)
        close(taken[--n]);
}

/* A publisher's lane is to be mapped just when no descriptor is left, and who published is not going to ring again. */
static int poor_reader_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    int taken[64], n;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    struct pollfd p = { ps_fd(bus), POLLIN, 0 };
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == 0);
    CHILD_CHECK(s, (n = take_all(taken, 64)) > 0);
    s->ready = 1;
    CHILD_CHECK(s, poll(&p, 1, DEADLINE_MS) == 1);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == PS_ESYS);
    give_back(taken, n);
    CHILD_CHECK(s, poll(&p, 1, DEADLINE_MS / 4) == 1);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == 1);
    while (poll(&p, 1, 50) == 1)        /* and then it is silent */
        CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == 0);
    return ps_close(bus) != 0;
}

static void test_p12_fd_readable_when_a_lane_can_be_mapped_at_last(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    ps_bus *bus;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(poor_reader_child, s);
    assert_true(wait_word(&s->ready, 1));
    assert_int_equal(say(bus, "t", 1, 0, 40), 1);
    assert_child(s, child);
    assert_ok(ps_close(bus));
}

/* Closes what leads to the directory of the bus, what was inherited too; how many. */
static int close_directory(const struct stage *s)
{
    size_t len = (size_t)(strrchr(s->url, '/') - s->url) - strlen("shm://");
    int closed = 0;
    for (int fd = 3; fd < 64; fd++) {
        char link[32], target[256];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, target, sizeof target);
        if (n == (ssize_t)len && memcmp(target, s->url + strlen("shm://"), len) == 0)
            closed += close(fd) == 0;
    }
    return closed;
}

/* A name too long for an address, and no descriptor to find another way just when it is to be rung for the first time. */
static int poor_ringer_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    int taken[64], n;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, say(bus, "t", 1, 0, 40) == 1);       /* its lane is there */
    s->ready = 1;
    CHILD_CHECK(s, wait_word(&s->go, 1));
    CHILD_CHECK(s, (n = take_all(taken, 64)) > 0);
    CHILD_CHECK(s, say(bus, "t", 1, 1, 40) == 1);
    CHILD_CHECK(s, wait_word(&s->go, 2));
    /* Who could not ring tries again at the next message. */
    CHILD_CHECK(s, close_directory(s) > 0);
    while ((taken[n] = dup(2)) >= 0)
        n++;
    CHILD_CHECK(s, say(bus, "t", 1, 2, 40) == 1);
    give_back(taken, n);
    CHILD_CHECK(s, say(bus, "t", 1, 3, 40) == 1);
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) != 0;
}

static void test_p3_sleeper_with_a_long_name_is_woken_by_who_has_no_descriptor_left(void **state)
{
    (void)state;
    char dir[200], url[250];
    snprintf(dir, sizeof dir, "%s/%0100d", scratch_path, 1);
    snprintf(url, sizeof url, "shm://%s/bus", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    struct stage *s = stage_new(url);
    ps_bus *reader;
    assert_ok(ps_open(&reader, url));
    assert_ok(ps_subscribe(reader, "t", inbox_take, &s->inbox[0], NULL, NULL));
    pid_t child = start_child(poor_ringer_child, s);
    assert_true(wait_word(&s->ready, 1));
    struct pollfd p = { ps_fd(reader), POLLIN, 0 };
    for (uint64_t i = 1; i <= 2; i++) {
        while (ps_dispatch(reader, 0, 0) > 0)
            ;
        assert_int_equal(s->inbox[0].count, i);
        s->go = i;
        if (poll(&p, 1, DEADLINE_MS / 4) != 1)
            fail_msg("message %d does not wake its reader; child's line %d", (int)i, (int)s->line);
    }
    assert_int_equal(hear(reader, &s->inbox[0], 4), 0);
    s->done = 1;
    assert_child(s, child);
    assert_ok(ps_close(reader));
    assert_int_equal(rmdir(dir), 0);
}

#define RESOURCES_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

/* Started without standard streams: everything that makes a descriptor, and what is printed goes nowhere. */
static int streamless_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    void *data;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 1) == 0);
    CHILD_CHECK(s, ps_fd(bus) > 2);
    CHILD_CHECK(s, ps_loan(bus, "t", 100000, &data) == 0 && ps_cancel(bus, data) == 0);
    for (int i = 0; i < 8; i++)         /* a full ring, for its timer and its bell */
        CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == PS_EAGAIN);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == 8);
    for (int fd = 0; fd < 3; fd++)
        CHILD_CHECK(s, write(fd, "printed", 7) < 0 && errno == EBADF);
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_without_standard_streams_nothing_is_printed_into_the_bus(void **state)
{
    (void)state;
    const char *url[] = { scratch_url("bus", "depth=8&evict=-1"), "shm:?depth=8&evict=-1", "inproc://streamless?depth=8&evict=-1" };
    for (int i = 0; i < 3; i++) {
        struct stage *s = stage_new(url[i]);
        assert_child(s, start_child(streamless_child, s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESOURCES_TEST(test_subscribe_without_memory_leaves_no_gate),
        RESOURCES_TEST(test_subscriptions_that_come_and_go_beside_a_run_take_no_memory),
        RESOURCES_TEST(test_loan_without_memory_leaves_no_mapping),
        RESOURCES_TEST(test_closefrom_then_files_of_the_program_stay_as_they_are),
        RESOURCES_TEST(test_closefrom_then_events_and_timers_of_the_program_stay_as_they_are),
        RESOURCES_TEST(test_without_standard_streams_nothing_is_printed_into_the_bus),
        RESOURCES_TEST(test_p12_fd_readable_when_a_lane_can_be_mapped_at_last),
        RESOURCES_TEST(test_p3_sleeper_with_a_long_name_is_woken_by_who_has_no_descriptor_left),
        RESOURCES_TEST(test_p7_sleeper_is_woken_by_a_publisher_that_has_lost_its_descriptors),
    };
    return cmocka_run_group_tests_name("resources", tests, NULL, NULL);
}
