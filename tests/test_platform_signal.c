/* SPDX-License-Identifier: MIT */
/*
 * test_platform_signal.c - a signal handler that forks at the worst moment: a thread is about to be given its number, and has just
 * asked the kernel who it is. A program of its own, because it stands between the library and syscall(2).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../lib/base/base.h"

#include "support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Thread_local int armed;         /* raise the signal behind the next question */
static volatile pid_t child = -1;

/* In place of the C library's. All that this library asks by number has no more than five arguments. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    va_list list;
    long a[5];
    va_start(list, number);
    for (int i = 0; i < 5; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    long result = real(number, a[0], a[1], a[2], a[3], a[4]);
    if (number == SYS_gettid && armed) {
        armed = 0;
        raise(SIGUSR1);
    }
    return result;
}

static void fork_now(int number)
{
    (void)number;
    child = fork();
}

static void *number_of_thread(void *out)
{
    *(unsigned *)out = ps__thread_number();
    return NULL;
}

static void *first_call(void *unused)
{
    (void)unused;
    armed = 1;
    unsigned own = ps__thread_number(), other = own;
    if (child == 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, number_of_thread, &other) != 0 || pthread_join(thread, NULL) != 0)
            _exit(1);
        _exit(own == other ? 2 : ps__thread_number() != own ? 3 : 0);
    }
    return NULL;
}

/* In the child the thread is another one to the kernel: the number it is given there must be held by what it is there. */
static void test_thread_number_forked_in_a_signal_is_nobody_elses(void **state)
{
    (void)state;
    struct sigaction action = { .sa_handler = fork_now }, old;
    pthread_t thread;
    if (PS_TSAN)
        skip();                         /* it defers signals, and forbids fork in their handlers */
    assert_ok(ps__process_init());
    (void)ps__thread_number();
    assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
    assert_int_equal(pthread_create(&thread, NULL, first_call, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
    assert_true(child > 0);
    assert_int_equal(support_reap(child, DEADLINE_MS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thread_number_forked_in_a_signal_is_nobody_elses),
    };
    return cmocka_run_group_tests_name("platform_signal", tests, NULL, NULL);
}
