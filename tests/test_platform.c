/* SPDX-License-Identifier: MIT */
/*
 * test_platform.c - clocks, numbers and descriptors that the rest of the library stands on. Fences are in
 * test_platform_fence.c, and what fork does in test_platform_fork.c.
 */
#include "../lib/base/base.h"

#include "forbid.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ------------------------------------------------------------------ time */

static void test_clocks_only_go_forward(void **state)
{
    (void)state;
    uint64_t last = ps__now_ns(), coarse = ps__now_coarse_ms();
    assert_true(coarse <= last / 1000000 + 1 && coarse + 100 > last / 1000000);
    for (int i = 0; i < 1000; i++) {
        uint64_t now = ps__now_ns(), now_coarse = ps__now_coarse_ms();
        assert_true(now >= last && now_coarse >= coarse);
        last = now;
        coarse = now_coarse;
    }
}

static void test_deadline_counts_as_poll_does(void **state)
{
    (void)state;
    assert_int_equal(ps__deadline_ns(-1), 0);
    assert_int_equal(ps__deadline_ns(INT_MIN), 0);
    assert_int_equal(ps__left_ms(0), -1);
    uint64_t before = ps__now_ns(), deadline = ps__deadline_ns(0);
    assert_true(deadline >= before && deadline != 0);
    assert_int_equal(ps__left_ms(deadline), 0);
    assert_int_equal(ps__left_ms(1), 0);
    deadline = ps__deadline_ns(100000);
    int left = ps__left_ms(deadline);
    assert_true(left > 100000 - DEADLINE_MS && left <= 100000);
    assert_true(ps__left_ms(ps__deadline_ns(INT_MAX)) > INT_MAX - DEADLINE_MS);
    assert_int_equal(ps__left_ms(UINT64_MAX), INT_MAX);
    /* Rounded up: a little less than 10 s is 10 s, or who waits would wake early and spin. */
    int most = 0;
    for (int i = 0; i < 100; i++) {
        left = ps__left_ms(ps__now_ns() + 10000000000u);
        most = left > most ? left : most;
    }
    assert_int_equal(most, 10000);
}

/* ------------------------------------------------------------------ poll and descriptors */

static void nothing(int signal)
{
    (void)signal;
}

static int poll_through_signals(void *unused)
{
    (void)unused;
    struct sigaction action = { .sa_handler = nothing };        /* no SA_RESTART: every signal is an EINTR */
    struct itimerval every = { { 0, 2000 }, { 0, 2000 } };
    int fd = ps__event_open();
    struct pollfd poll = { .fd = fd, .events = POLLIN };
    if (fd < 0 || sigaction(SIGVTALRM, &action, NULL) != 0 || sigaction(SIGALRM, &action, NULL) != 0)
        return 1;
    if (setitimer(ITIMER_REAL, &every, NULL) != 0)
        return 2;
    uint64_t deadline = ps__deadline_ns(60);
    errno = 99;
    int result = ps__poll(&poll, 1, deadline);
    if (result != 0 || ps__now_ns() < deadline)
        return 3;
    return errno == 99 ? 0 : 4;
}

static void test_poll_interrupted_by_signals_lasts_to_deadline(void **state)
{
    (void)state;
    assert_int_equal(support_reap(support_child(poll_through_signals, NULL), DEADLINE_MS), 0);
}

static void test_event_signalled_is_readable_until_cleared(void **state)
{
    (void)state;
    int fd = ps__event_open();
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    struct pollfd poll = { .fd = fd, .events = POLLIN };
    uint64_t full = UINT64_MAX - 1;
    errno = 99;
    assert_int_equal(ps__poll(&poll, 1, ps__deadline_ns(0)), 0);
    ps__event_clear(fd);                                        /* nothing to clear: does not block */
    ps__event_signal(fd);
    ps__event_signal(fd);
    assert_int_equal(ps__poll(&poll, 1, 0), 1);
    ps__event_clear(fd);
    assert_int_equal(ps__poll(&poll, 1, ps__deadline_ns(1)), 0);
    while (write(fd, &full, sizeof full) == sizeof full)
        ;
    errno = 99;
    ps__event_signal(fd);                                       /* it is full: does not block */
    assert_int_equal(ps__poll(&poll, 1, 0), 1);
    ps__event_clear(fd);
    assert_int_equal(ps__poll(&poll, 1, ps__deadline_ns(1)), 0);
    ps__event_signal(-1);
    ps__event_clear(-1);
    ps__close_fd(fd);
    ps__close_fd(fd);
    ps__close_fd(-1);
    assert_int_equal(errno, 99);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_pollset_readable_while_a_member_is(void **state)
{
    (void)state;
    int before = support_fd_count();
    int set = ps__pollset_open(), a = ps__event_open(), b = ps__event_open();
    struct pollfd poll = { .fd = set, .events = POLLIN };
    assert_true(set >= 0 && a >= 0 && b >= 0);
    assert_true(fcntl(set, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(ps__pollset_add(set, a), 0);
    assert_int_equal(ps__pollset_add(set, b), 0);
    errno = 99;
    assert_int_equal(ps__pollset_add(set, a), -EEXIST);
    assert_int_equal(ps__pollset_add(set, -1), -EBADF);
    assert_int_equal(ps__poll(&poll, 1, ps__deadline_ns(0)), 0);
    ps__event_signal(b);
    for (int i = 0; i < 3; i++)                                 /* level-triggered */
        assert_int_equal(ps__poll(&poll, 1, 0), 1);
    ps__event_clear(b);
    assert_int_equal(ps__poll(&poll, 1, ps__deadline_ns(0)), 0);
    assert_true(ps__pollset_has(set, a) && ps__pollset_has(set, b));
    assert_false(ps__pollset_has(set, set) || ps__pollset_has(a, b) || ps__pollset_has(-1, a) || ps__pollset_has(set, -1));
    assert_int_equal(errno, 99);
    assert_int_equal(dup2(a, b), b);                            /* another file under a member's number */
    assert_false(ps__pollset_has(set, b));
    ps__close_fd(a);
    ps__close_fd(b);
    ps__close_fd(set);
    assert_int_equal(support_fd_count(), before);
}

static int no_descriptors(void *unused)
{
    (void)unused;
    struct rlimit none = { 0, 0 };
    if (setrlimit(RLIMIT_NOFILE, &none) != 0)
        return 1;
    errno = 99;
    if (ps__event_open() != -EMFILE || ps__pollset_open() != -EMFILE)
        return 2;
    return errno == 99 ? 0 : 3;
}

static void test_descriptors_exhausted_reported(void **state)
{
    (void)state;
    assert_int_equal(support_reap(support_child(no_descriptors, NULL), DEADLINE_MS), 0);
}

/* ------------------------------------------------------------------ memory, randomness */

static void test_pages_zeroed_and_refused_without_errno(void **state)
{
    (void)state;
    size_t size = 3 << 20;
    unsigned char *pages = ps__pages(size);
    assert_non_null(pages);
    for (size_t i = 0; i < size; i += 511)
        assert_int_equal(pages[i], 0);
    memset(pages, 1, size);
    errno = 99;
    ps__pages_free(pages, size);
    ps__pages_free(NULL, size);
    assert_null(ps__pages(SIZE_MAX / 2));
    assert_int_equal(errno, 99);
}

static void random_is_random(void)
{
    unsigned char a[1000] = { 0 }, b[1000] = { 0 };
    uint64_t words[64];
    ps__random(a, sizeof a);
    ps__random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    int bits = 0;
    for (size_t i = 0; i < sizeof a; i++)
        bits += __builtin_popcount(a[i]);
    assert_true(bits > 3500 && bits < 4500);
    assert_true(a[999] != 0 || b[999] != 0 || a[998] != 0 || b[998] != 0);      /* to the last byte */
    for (size_t i = 0; i < 64; i++) {
        ps__random(&words[i], sizeof words[i]);
        for (size_t j = 0; j < i; j++)
            assert_true(words[i] != words[j]);
    }
}

static void test_random_bytes_differ(void **state)
{
    (void)state;
    errno = 99;
    random_is_random();
    ps__random(NULL, 0);
    assert_int_equal(errno, 99);
}

static int random_without_getrandom(void *unused)
{
    (void)unused;
    uint64_t a[4] = { 0 }, b[4] = { 0 };
    if (forbid(SYS_getrandom) != 0)
        return FORBID_SKIP;
    errno = 99;
    ps__random(a, sizeof a);
    ps__random(b, sizeof b);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (a[i] == b[j] || (i != j && a[i] == a[j]) || a[i] == 0)
                return 1;
    return errno == 99 ? 0 : 2;
}

static void test_random_without_system_call_differs_still(void **state)
{
    (void)state;
    forbid_child(random_without_getrandom, NULL);
}

/* ------------------------------------------------------------------ threads */

#define CROWD 80                        /* more than numbers come back */

struct crowd {
    pthread_barrier_t all;              /* everybody has a number, and still lives */
    unsigned number[CROWD];
    atomic_uint next;
};

static void *one_of_crowd(void *arg)
{
    struct crowd *crowd = arg;
    unsigned at = atomic_fetch_add(&crowd->next, 1);
    crowd->number[at] = ps__thread_number();
    pthread_barrier_wait(&crowd->all);
    if (ps__thread_number() != crowd->number[at])
        crowd->number[at] = UINT_MAX;
    return NULL;
}

static int compare_numbers(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

/* Threads that live at once have different numbers, the small ones first; those of threads that have ended come back. */
static void test_thread_numbers_of_ended_threads_come_back(void **state)
{
    (void)state;
    unsigned own = ps__thread_number(), beyond = 0;
    for (int round = 0; round < 20; round++) {
        struct crowd crowd = { .next = 0 };
        pthread_t threads[CROWD];
        unsigned crowded = round % 2 ? CROWD : 8;
        assert_int_equal(pthread_barrier_init(&crowd.all, NULL, crowded), 0);
        for (unsigned i = 0; i < crowded; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, one_of_crowd, &crowd), 0);
        for (unsigned i = 0; i < crowded; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        pthread_barrier_destroy(&crowd.all);
        qsort(crowd.number, crowded, sizeof *crowd.number, compare_numbers);
        for (unsigned i = 0; i < crowded; i++) {
            assert_true(crowd.number[i] != own && crowd.number[i] != UINT_MAX);
            assert_true(i == 0 || crowd.number[i] != crowd.number[i - 1]);
        }
        /* A thread that was joined may not have ended yet as the kernel sees it; few are so slow. */
        beyond += crowded == 8 && crowd.number[7] >= PS__THREADS_SMALL;
        assert_true(crowded == 8 || crowd.number[CROWD - 1] >= PS__THREADS_SMALL);
    }
    assert_true(beyond <= 5);
    assert_int_equal(ps__thread_number(), own);
}

static void *number_of_thread(void *out)
{
    *(unsigned *)out = ps__thread_number();
    return NULL;
}

static int cannot_ask(void *unused)
{
    (void)unused;
    unsigned number[2];
    if (forbid(SYS_tgkill) != 0)
        return FORBID_SKIP;
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, number_of_thread, &number[i]) != 0 || pthread_join(thread, NULL) != 0)
            return 1;
    }
    return number[0] != number[1] ? 0 : 2;
}

static int no_ids(void *unused)
{
    (void)unused;
    unsigned number;
    pthread_t thread;
    if (forbid(SYS_gettid) != 0)
        return FORBID_SKIP;
    errno = 99;
    if (ps__thread_id() != 0 || errno != 99)
        return 1;
    if (pthread_create(&thread, NULL, number_of_thread, &number) != 0 || pthread_join(thread, NULL) != 0)
        return 2;
    return number >= PS__THREADS_SMALL ? 0 : 3;
}

/* And who is not told who it is takes none that may come back. */
static void test_thread_numbers_without_the_kernels_are_not_small(void **state)
{
    (void)state;
    forbid_child(no_ids, NULL);
}

/* Who cannot ask whether a thread has ended believes that it has not. */
static void test_thread_numbers_do_not_come_back_unasked(void **state)
{
    (void)state;
    forbid_child(cannot_ask, NULL);
}

static void test_cancellation_switched_off_and_back(void **state)
{
    (void)state;
    int outer = ps__cancel_off(), inner = ps__cancel_off(), now = -1;
    assert_int_equal(outer, PTHREAD_CANCEL_ENABLE);
    assert_int_equal(inner, PTHREAD_CANCEL_DISABLE);
    ps__cancel_restore(inner);
    assert_int_equal(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &now), 0);
    assert_int_equal(now, PTHREAD_CANCEL_DISABLE);
    ps__cancel_restore(outer);
    assert_int_equal(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &now), 0);
    assert_int_equal(now, PTHREAD_CANCEL_ENABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clocks_only_go_forward),
        cmocka_unit_test(test_deadline_counts_as_poll_does),
        cmocka_unit_test(test_poll_interrupted_by_signals_lasts_to_deadline),
        cmocka_unit_test(test_event_signalled_is_readable_until_cleared),
        cmocka_unit_test(test_pollset_readable_while_a_member_is),
        cmocka_unit_test(test_descriptors_exhausted_reported),
        cmocka_unit_test(test_pages_zeroed_and_refused_without_errno),
        cmocka_unit_test(test_random_bytes_differ),
        cmocka_unit_test(test_random_without_system_call_differs_still),
        cmocka_unit_test(test_thread_numbers_of_ended_threads_come_back),
        cmocka_unit_test(test_thread_numbers_without_the_kernels_are_not_small),
        cmocka_unit_test(test_thread_numbers_do_not_come_back_unasked),
        cmocka_unit_test(test_cancellation_switched_off_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
