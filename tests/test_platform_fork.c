/* SPDX-License-Identifier: MIT */
/*
 * test_platform_fork.c - how a process knows that it is another one than its parent: after fork(2), after a raw clone(2),
 * on a kernel that cannot wipe pages, while other threads are busy, and from a signal handler.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKS 60

static void init(void **state)
{
    (void)state;
    assert_ok(ps__process_init());
    assert_true(ps__process_generation() != 0);
}

static int expect(int (*body)(void *), void *arg)
{
    return support_reap(support_child(body, arg), DEADLINE_MS);
}

/* ------------------------------------------------------------------ generations */

/* ancestors: the generations of all processes above, ending with 0. 0 if this one's is none of them. */
static int differs(void *ancestors)
{
    uint64_t own = ps__process_generation(), line[8] = { 0 };
    int n = 0;
    if (own == 0)
        return 1;
    for (const uint64_t *at = ancestors; *at; at++) {
        if (*at == own)
            return 2;
        line[n++] = *at;
    }
    if (ps__process_init() != 0 || ps__process_generation() != own)
        return 3;
    if (n == 4)
        return 0;
    line[n] = own;
    int code = expect(differs, line);
    return ps__process_generation() == own ? code : 4;
}

static void test_generation_forked_line_all_different(void **state)
{
    init(state);
    uint64_t line[2] = { ps__process_generation(), 0 };
    assert_int_equal(expect(differs, line), 0);
    assert_true(ps__process_generation() == line[0]);
    assert_ok(ps__process_init());
    assert_true(ps__process_generation() == line[0]);
}

/* A child no fork handler runs in. */
static int clone_and_reap(int (*body)(void *), void *arg)
{
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        syscall(SYS_exit_group, body(arg));
    return child < 0 ? -2 : support_reap(child, DEADLINE_MS);
}

static int cloned(void *parents)
{
    uint64_t line[2] = { *(uint64_t *)parents, 0 };
    if (ps__process_generation() == line[0])
        return 10;
    if (ps__process_init() != 0)
        return 11;
    struct ps__fork_entry entry = { NULL, NULL, NULL };
    ps__fork_add(&entry);                                       /* the list's lock is free again */
    ps__fork_remove(&entry);
    return differs(line);
}

static void test_generation_cloned_child_differs(void **state)
{
    init(state);
    uint64_t own = ps__process_generation();
    assert_int_equal(clone_and_reap(cloned, &own), 0);
    assert_true(ps__process_generation() == own);
}

/* ------------------------------------------------------------------ numbers of threads */

struct numbers {
    unsigned own;                       /* of the thread that forked */
    unsigned other[3];
    pthread_barrier_t all;
};

static void *number_and_wait(void *arg)
{
    struct numbers *n = arg;
    unsigned own = ps__thread_number();
    for (int i = 0, at = 0; at == 0; i++) {
        unsigned none = UINT_MAX;
        at = __atomic_compare_exchange_n(&n->other[i], &none, own, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    pthread_barrier_wait(&n->all);
    return NULL;
}

/* New threads in a child that may ask for numbers before and after the library knows of it: none gets the forking thread's. */
static int numbers_in_child(void *arg)
{
    struct numbers *n = arg;
    for (int round = 0; round < 2; round++) {
        pthread_t thread[3];
        memset(n->other, 0xff, sizeof n->other);
        pthread_barrier_init(&n->all, NULL, 3);
        for (int i = 0; i < 3; i++)
            if (pthread_create(&thread[i], NULL, number_and_wait, n) != 0)
                return 1;
        for (int i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
        if (ps__thread_number() != n->own)
            return 2;
        for (int i = 0; i < 3; i++)
            if (n->other[i] == n->own || n->other[i] == n->other[(i + 1) % 3])
                return 3;
        if (ps__process_init() != 0)
            return 4;
    }
    return 0;
}

/* The thread that forks is a second one: in the child it is alone, and the numbers of the others are free. */
static void *fork_with_number(void *arg)
{
    struct numbers n = { .own = ps__thread_number() };
    int (*run)(int (*)(void *), void *) = *(int (**)(int (*)(void *), void *))arg;
    return (void *)(intptr_t)run(numbers_in_child, &n);
}

static void numbers_after(void **state, int (*run)(int (*)(void *), void *))
{
    pthread_t thread;
    void *code = NULL;
    init(state);
    (void)ps__thread_number();
    assert_int_equal(pthread_create(&thread, NULL, fork_with_number, &run), 0);
    assert_int_equal(pthread_join(thread, &code), 0);
    assert_int_equal((intptr_t)code, 0);
}

static void test_thread_numbers_forked_child_shares_none(void **state)
{
    numbers_after(state, expect);
}

static void test_thread_numbers_cloned_child_shares_none(void **state)
{
    numbers_after(state, clone_and_reap);
}

static int wiping_refused(void *unused)
{
    (void)unused;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 18, 0, 1),          /* MADV_WIPEONFORK */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 77;
    if (ps__process_init() != 0)
        return 20;
    uint64_t line[2] = { ps__process_generation(), 0 };
    /* The filter works: a child without fork handlers cannot tell. */
    uint64_t same = line[0];
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        syscall(SYS_exit_group, ps__process_generation() == same ? 0 : 1);
    if (support_reap(child, DEADLINE_MS) != 0)
        return 21;
    return expect(differs, line);
}

/* Runs first: the child must be the first in its line to set up the process. */
static void test_generation_without_wiped_page_fork_handler_does_it(void **state)
{
    (void)state;
    assert_int_equal(ps__process_generation(), 0);
    int code = expect(wiping_refused, NULL);
    if (code == 77)
        skip();
    assert_int_equal(code, 0);
}

/* ------------------------------------------------------------------ entries */

struct owner {
    struct ps__fork_entry entry;                                /* first */
    volatile int calls;
};

static void note_call(struct ps__fork_entry *entry)
{
    ((struct owner *)(void *)entry)->calls++;
}

static struct owner owners[4] = {
    { { NULL, NULL, note_call }, 0 }, { { NULL, NULL, note_call }, 0 },
    { { NULL, NULL, note_call }, 0 }, { { NULL, NULL, note_call }, 0 },
};

/* owners[removed] was taken out. */
static int check_calls(void *removed)
{
    for (int i = 0; i < 4; i++)
        if (owners[i].calls != (i != *(int *)removed))
            return 30 + i;
    return 0;
}

static int check_calls_and_remove(void *removed)
{
    int code = check_calls(removed);
    for (int i = 3; i >= 0; i--)                                /* also the one that is out already */
        ps__fork_remove(&owners[i].entry);
    for (int i = 0; i < 4; i++)
        owners[i].calls = i != *(int *)removed;
    return code != 0 ? code : expect(check_calls, removed);     /* nobody is called a second time */
}

static void test_entries_called_once_in_child_only(void **state)
{
    init(state);
    for (int removed = 0; removed < 4; removed++) {
        for (int i = 0; i < 4; i++)
            ps__fork_add(&owners[i].entry);
        ps__fork_remove(&owners[removed].entry);
        assert_int_equal(expect(check_calls, &removed), 0);
        assert_int_equal(expect(check_calls_and_remove, &removed), 0);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(owners[i].calls, 0);
            ps__fork_remove(&owners[i].entry);
        }
    }
}

static _Atomic int busy_stop;

static void *busy(void *unused)
{
    (void)unused;
    struct owner own[3] = { { { NULL, NULL, note_call }, 0 }, { { NULL, NULL, note_call }, 0 }, { { NULL, NULL, note_call }, 0 } };
    while (!atomic_load(&busy_stop)) {
        for (int i = 0; i < 3; i++)
            ps__fork_add(&own[i].entry);
        for (int i = 0; i < 3; i++)
            ps__fork_remove(&own[(i + 1) % 3].entry);
    }
    return NULL;
}

static int use_list(void *removed)
{
    int code = check_calls(removed);
    struct ps__fork_entry entry = { NULL, NULL, note_call };
    ps__fork_add(&entry);
    ps__fork_remove(&entry);
    return code;
}

static void test_entries_changed_while_forking_list_whole(void **state)
{
    init(state);
    pthread_t threads[2];
    int none = -1, wrong = 0;
    uint64_t own = ps__process_generation();
    for (int i = 0; i < 4; i++)
        ps__fork_add(&owners[i].entry);
    atomic_store(&busy_stop, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, NULL), 0);
    for (int i = 0; i < FORKS; i++) {
        wrong += expect(use_list, &none) != 0;
        /* ThreadSanitizer does not see a raw clone, and takes the parent's threads for the child's. */
        if (!PS_TSAN)
            wrong += clone_and_reap(cloned, &own) != 0;
    }
    atomic_store(&busy_stop, 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 4; i++)
        ps__fork_remove(&owners[i].entry);
    assert_int_equal(wrong, 0);
}

#if !PS_TSAN    /* It defers signals, and forbids fork in their handlers. */
static volatile sig_atomic_t signal_forks;

static void fork_in_handler(int number)
{
    (void)number;
    int saved = errno;
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    /* Where a fork takes longer than the timer, the interrupted code would not come to run at all. */
    if (++signal_forks == FORKS)
        (void)setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL);
    errno = saved;
}

static int fork_by_signal(void *unused)
{
    (void)unused;
    struct sigaction action = { .sa_handler = fork_in_handler };
    struct itimerval every = { { 0, 500 }, { 0, 500 } };
    struct owner own = { { NULL, NULL, note_call }, 0 };
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &every, NULL) != 0)
        return 40;
    uint64_t end = ps__deadline_ns(5000);
    while (signal_forks < FORKS && ps__left_ms(end) > 0)
        for (int i = 0; i < 1000; i++) {
            ps__fork_add(&own.entry);
            ps__fork_remove(&own.entry);
        }
    return signal_forks > 0 ? 0 : 41;
}

static void test_entries_changed_and_signal_forks_no_deadlock(void **state)
{
    init(state);
    assert_int_equal(expect(fork_by_signal, NULL), 0);
}
#endif

/* ------------------------------------------------------------------ forks kept away */

struct passing {
    int own, other;                                             /* descriptors; the second is another thread's */
    pthread_barrier_t made, forked;
};

static int passing_open(void)
{
    ps__fork_hold();
    ps__fork_hold();
    int fd = ps__fd_passing(dup(STDERR_FILENO));
    ps__fork_release();
    ps__fork_release();
    return fd;
}

static void *passing_thread(void *arg)
{
    struct passing *p = arg;
    p->other = passing_open();
    pthread_barrier_wait(&p->made);
    pthread_barrier_wait(&p->forked);
    ps__fd_passed(p->other);
    return NULL;
}

/* The thread that forked is here, and may be in the middle of its call; the other is not. */
static int passing_in_child(void *arg)
{
    struct passing *p = arg;
    if (fcntl(p->own, F_GETFD) < 0)
        return 60;
    if (fcntl(p->other, F_GETFD) >= 0)
        return 61;
    ps__fd_passed(p->own);
    return fcntl(p->own, F_GETFD) >= 0 ? 62 : 0;
}

static void test_passing_descriptor_of_another_thread_closed_in_child(void **state)
{
    init(state);
    struct passing p;
    pthread_t thread;
    memset(&p, 0, sizeof p);
    int before = support_fd_count();
    p.own = passing_open();
    assert_true(p.own > STDERR_FILENO);
    pthread_barrier_init(&p.made, NULL, 2);
    pthread_barrier_init(&p.forked, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, passing_thread, &p), 0);
    pthread_barrier_wait(&p.made);
    int code = expect(passing_in_child, &p), open_still = fcntl(p.other, F_GETFD) >= 0;
    pthread_barrier_wait(&p.forked);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ps__fd_passed(p.own);
    assert_int_equal(code, 0);
    assert_true(open_still);
    assert_int_equal(support_fd_count(), before);
}

/* A program's own fork handlers, registered before the library's, run between those. */
static volatile int handlers_on;

static void program_handler(void)
{
    struct ps__fork_entry entry = { NULL, NULL, NULL };
    if (!handlers_on)
        return;
    ps__fork_add(&entry);
    ps__fork_remove(&entry);
}

static int fork_with_handlers(void *unused)
{
    (void)unused;
    handlers_on = 1;
    return expect(differs, &(uint64_t[]){ ps__process_generation(), 0 });
}

static void test_hold_in_fork_handlers_of_the_program_no_deadlock(void **state)
{
    init(state);
    assert_int_equal(expect(fork_with_handlers, NULL), 0);
}

/* ------------------------------------------------------------------ fences */

static int fence_in_child(void *arg)
{
    uint32_t before = *(uint32_t *)arg;
    errno = 99;
    ps__fence_heavy();
    if (ps__load_rlx(&ps__light_is_free) != before || errno != 99)
        return 50;
    return ps__process_init() == 0 && ps__load_rlx(&ps__light_is_free) == before ? 0 : 51;
}

static void test_fences_in_child_as_in_parent(void **state)
{
    init(state);
    uint32_t before = ps__load_rlx(&ps__light_is_free);
    assert_int_equal(expect(fence_in_child, &before), 0);
    assert_int_equal(clone_and_reap(fence_in_child, &before), 0);
}

int main(void)
{
    if (pthread_atfork(program_handler, program_handler, program_handler))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generation_without_wiped_page_fork_handler_does_it),
        cmocka_unit_test(test_generation_forked_line_all_different),
        cmocka_unit_test(test_generation_cloned_child_differs),
        cmocka_unit_test(test_thread_numbers_forked_child_shares_none),
        cmocka_unit_test(test_thread_numbers_cloned_child_shares_none),
        cmocka_unit_test(test_entries_called_once_in_child_only),
        cmocka_unit_test(test_entries_changed_while_forking_list_whole),
#if !PS_TSAN
        cmocka_unit_test(test_entries_changed_and_signal_forks_no_deadlock),
#endif
        cmocka_unit_test(test_passing_descriptor_of_another_thread_closed_in_child),
        cmocka_unit_test(test_hold_in_fork_handlers_of_the_program_no_deadlock),
        cmocka_unit_test(test_fences_in_child_as_in_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
