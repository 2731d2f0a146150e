/* SPDX-License-Identifier: MIT */
/*
 * linux.c - the part of platform.h that only Linux has: one-descriptor pipes, epoll, timerfd, membarrier, getrandom,
 * MADV_WIPEONFORK.
 *
 * System calls younger than the C libraries in use are made by number. Constants of the kernel's interface are written out
 * where headers may lack them; their values never change.
 */
#include "platform.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------ randomness */

#define LINUX_GRND_NONBLOCK 1

void ps__random(void *bytes, size_t size)
{
    unsigned char *out = bytes;
    size_t done = 0;
    int saved = errno;
#ifdef SYS_getrandom
    /* Never waits for entropy: early at boot the fallback takes over. */
    while (done < size) {
        long got = syscall(SYS_getrandom, out + done, size - done, LINUX_GRND_NONBLOCK);
        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
#endif
    if (done < size) {
        /* Differs between processes, threads, calls and boots, which is what ids and seeds need most. */
        static ps__a64 calls;
        struct timespec wall = { 0, 0 };
        (void)clock_gettime(CLOCK_REALTIME, &wall);
        uint64_t state = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec;
        state ^= ps__now_ns() * UINT64_C(0x9e3779b97f4a7c15);
        state ^= (uint64_t)getpid() << 40;
        state ^= (uint64_t)(uintptr_t)&state ^ (uint64_t)(uintptr_t)&calls << 20;
        state += ps__add_rlx(&calls, 1) * UINT64_C(0xd1342543de82ef95);
        while (done < size) {
            state += UINT64_C(0x9e3779b97f4a7c15);
            uint64_t mixed = (state ^ (state >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
            mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
            out[done++] = (unsigned char)(mixed >> 56);
        }
    }
    errno = saved;
}

#undef LINUX_GRND_NONBLOCK

/* ------------------------------------------------------------------ fences */

PS_PRIVATE ps__a32 ps__light_is_free;

#if PS_TSAN

/* ThreadSanitizer does not see the barrier that the kernel makes, so both sides use real fences. */
void ps__fence_init(void)
{
}

void ps__fence_heavy(void)
{
    ps__fence_sc();
}

#else

static int linux_membarrier(int command)
{
#ifdef SYS_membarrier
    return (int)syscall(SYS_membarrier, command, 0, 0);
#else
    (void)command;
    errno = ENOSYS;
    return -1;
#endif
}

/* 0 when every running thread of this process has passed a full fence. */
static int linux_interrupt_all(void)
{
    return linux_membarrier(1 << 3);            /* MEMBARRIER_CMD_PRIVATE_EXPEDITED */
}

static int linux_interrupt_register(void)
{
    return linux_membarrier(1 << 4);            /* MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED */
}

void ps__fence_init(void)
{
    int saved = errno;
    /* Tried once for real: a filter of system calls may allow the one and not the other. */
    ps__store_rlx(&ps__light_is_free, linux_interrupt_register() == 0 && linux_interrupt_all() == 0);
    errno = saved;
}

/*
 * The kernel has taken membarrier away after light fences began to rely on it (a seccomp filter installed late). From here
 * on light fences are real ones. Those that looked at the flag before need a barrier still: withdrawing a page that is in
 * use makes the kernel interrupt every processor that runs this process. That holds on x86; elsewhere processors may be
 * told to forget a page without an interrupt, and nothing better is left.
 */
static void linux_interrupt_otherwise(void)
{
    /* After withdrawn, which ps__fence_heavy() reads next. */
    ps__store_rel(&ps__light_is_free, 0);
    ps__fence_sc();
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    volatile char *page = ps__pages(size);
    if (page) {
        *page = 1;                              /* a page that was never touched is withdrawn silently */
        (void)mprotect((void *)page, size, PROT_READ);
        ps__pages_free((void *)page, size);
    }
    ps__fence_sc();
}

void ps__fence_heavy(void)
{
    static _Atomic int withdrawn;               /* for good: a light fence may have read the flag any time ago */
    ps__fence_sc();
    if (!ps__load_acq(&ps__light_is_free) && !ps__load_rlx(&withdrawn))
        return;
    int saved = errno;
    /* A child inherits the registration, but no manual says so: registering again costs nothing when it was not lost. */
    if (linux_interrupt_all() != 0 && (linux_interrupt_register() != 0 || linux_interrupt_all() != 0)) {
        ps__store_rlx(&withdrawn, 1);
        linux_interrupt_otherwise();
    }
    errno = saved;
}

#endif

/* ------------------------------------------------------------------ threads */

uint32_t ps__thread_id(void)
{
    int saved = errno;
    long id = syscall(SYS_gettid);
    errno = saved;
    return id > 0 ? (uint32_t)id : 0;
}

/* A signal that is none: only asks. Of one that cannot be asked for, it has not ended. */
int ps__thread_ended(uint32_t id)
{
    int saved = errno, ended = syscall(SYS_tgkill, getpid(), id, 0) != 0 && errno == ESRCH;
    errno = saved;
    return ended;
}

/* ------------------------------------------------------------------ a page that fork empties */

#define LINUX_MADV_WIPEONFORK 18                /* Linux 4.14 */

void *ps__wiped_page(void)
{
    int saved = errno;
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = ps__pages(size);
    if (page && madvise(page, size, LINUX_MADV_WIPEONFORK) != 0) {
        ps__pages_free(page, size);
        page = NULL;
    }
    errno = saved;
    return page;
}

#undef LINUX_MADV_WIPEONFORK

/* ------------------------------------------------------------------ descriptors */

/* A descriptor, or -errno, with errno as it was. */
static int linux_result(int result, int saved)
{
    if (result < 0)
        result = -errno;
    errno = saved;
    return result;
}

/*
 * A pipe opened anew for both directions: one descriptor, and an inode of its own, by which it is known again, where all
 * eventfds of the system share one. Where /proc does not lead to it, an eventfd has to do.
 */
PS_COLD int ps__event_open(void)
{
    int saved = errno, ends[2], fd = pipe2(ends, O_NONBLOCK | O_CLOEXEC);
    if (fd == 0) {
        char name[32];
        (void)close(ends[1]);
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
        fd = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        int error = errno;
        (void)close(ends[0]);
        errno = error;
        if (fd < 0 && errno != EMFILE && errno != ENFILE) fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    return linux_result(ps__fd_private(fd), saved);
}

void ps__event_signal(int fd)
{
    int saved = errno;
    uint64_t one = 1;
    /* What an eventfd wants. The only way to fail is a pipe or a counter that is full, and that is signalled already. */
    ssize_t ignored = write(fd, &one, sizeof one);
    (void)ignored;
    errno = saved;
}

void ps__event_clear(int fd)
{
    int saved = errno;
    unsigned char signals[512];
    while (read(fd, signals, sizeof signals) == (ssize_t)sizeof signals) { }
    errno = saved;
}

int ps__pollset_open(void)
{
    int saved = errno;
    return linux_result(ps__fd_private(epoll_create1(EPOLL_CLOEXEC)), saved);
}

int ps__pollset_add(int set, int fd)
{
    int saved = errno;
    struct epoll_event event = { .events = EPOLLIN, .data = { .fd = fd } };
    return linux_result(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), saved);
}

int ps__pollset_has(int set, int fd)
{
    int saved = errno;
    struct epoll_event event = { .events = EPOLLIN, .data = { .fd = fd } };
    int has = epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) == 0;
    errno = saved;
    return has;
}

int ps__timer_open(void)
{
    int saved = errno;
    return linux_result(ps__fd_private(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)), saved);
}

void ps__timer_set(int fd, int ms)
{
    int saved = errno;
    struct itimerspec when = { { 0, 0 }, { ms / 1000, ms % 1000 * 1000000L } };
    (void)timerfd_settime(fd, 0, &when, NULL);
    errno = saved;
}

#else
typedef int linux_is_elsewhere;                 /* ISO C wants a declaration in every file */
#endif
