/* SPDX-License-Identifier: MIT */
/*
 * held.h - a thread that is held in the middle of a call, at every place where it takes or has left a lock, or calls the system for
 * what a child might inherit, while another one forks.
 *
 * The library is linked statically, so its calls come to the functions of the same names here. ThreadSanitizer has to see them
 * itself: under it nobody is held, and the fork comes after the call.
 */
#ifndef PS_TEST_HELD_H
#define PS_TEST_HELD_H

#include "../lib/base/base.h"

#include "support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HANG_S 10

/* A thread is held at its step number `at`, until the fork is over. */
struct hold {
    int at;
    atomic_int reached, let_go, over, done;
};

static _Thread_local struct hold *held;

/* Its thread stands at the step, or the call had fewer. */
static inline int is_there(void *hold)
{
    return atomic_load(&((struct hold *)hold)->reached) || atomic_load(&((struct hold *)hold)->done);
}

/* The one that is held while the process forks. The lock that keeps forks away: who has it goes on until it gives it back. */
static struct hold *_Atomic current;

#if PS_TSAN
#define HELD_STEPS(least) 1
/* A thread that has ended, and is joined after the fork, is none of the child's. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "report_thread_leaks=0"; }
#else
#define HELD_STEPS(least) (least)

static pthread_mutex_t *fork_lock, *last_lock;

static _Thread_local struct hold *was_held;

static int is_over(void *hold) { return atomic_load(&((struct hold *)hold)->over); }
static int is_free(void *hold) { return is_over(hold) || atomic_load(&((struct hold *)hold)->let_go); }

static void step(void)
{
    struct hold *hold = held;
    if (!hold || hold->at-- != 0)
        return;
    held = NULL;
    was_held = hold;
    atomic_store(&hold->reached, 1);
    support_wait(is_free, hold, DEADLINE_MS);
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
        atomic_store(&hold->let_go, 1);
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
    if (was_held && mutex == fork_lock)
        support_wait(is_over, was_held, DEADLINE_MS);
    step();
    return rc;
}

int fstat(int fd, struct stat *st)
{
    static int (*call)(int, struct stat *);
    if (!call)
        *(void **)&call = real("fstat64");
    step();
    int rc = call(fd, st);
    step();
    return rc;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    static void *(*call)(void *, size_t, int, int, int, off_t);
    if (!call)
        *(void **)&call = real("mmap64");
    void *memory = call(at, size, protection, flags, fd, offset);
    step();
    return memory;
}

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
    static int (*call)(int, int, int, struct epoll_event *);
    if (!call)
        *(void **)&call = real("epoll_ctl");
    int rc = call(set, operation, fd, event);
    step();
    return rc;
}

int madvise(void *at, size_t size, int advice)
{
    static int (*call)(void *, size_t, int);
    if (!call)
        *(void **)&call = real("madvise");
    int rc = call(at, size, advice);
    step();
    return rc;
}

#endif

/* The setup of a group of such tests. */
static int held_setup(void **state)
{
    struct ps__fork_entry entry = { NULL, NULL, NULL };
    (void)state;
    if (ps__process_init())
        return -1;
    ps__fork_add(&entry);
    ps__fork_remove(&entry);
#if !PS_TSAN
    fork_lock = last_lock;
#endif
    return 0;
}

/* In a child: it says what went wrong, and ends with 1. */
#define need(condition) do { if (!(condition)) { \
    fprintf(stderr, "child: line %d: %s (%s)\n", __LINE__, #condition, ps_errmsg()); return 1; } } while (0)

#endif
