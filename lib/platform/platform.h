/* SPDX-License-Identifier: MIT */
/*
 * platform.h - what an operating system must give. posix.c holds what POSIX has, linux.c what only Linux has.
 */
#ifndef PS_PLATFORM_H
#define PS_PLATFORM_H

#include "atomic.h"
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- time: monotonic, for relative waits and diagnostics only */
PS_PRIVATE uint64_t ps__now_ns(void);
PS_PRIVATE uint64_t ps__now_coarse_ms(void);            /* cheap, a few ms late */
/* Milliseconds left of a deadline for poll(2), rounded up; deadline_ns 0: -1, for ever. */
PS_PRIVATE int ps__left_ms(uint64_t deadline_ns);
/* The deadline of a timeout as poll(2) counts it; 0 for ever. */
PS_PRIVATE uint64_t ps__deadline_ns(int timeout_ms);

/* ---- randomness for ids and seeds; never fails, falls back to time and addresses */
PS_PRIVATE void ps__random(void *bytes, size_t size);

/* ---- threads */
#if defined __GLIBC__
#define PS__TLS _Thread_local __attribute__((tls_model("initial-exec")))
#else
#define PS__TLS _Thread_local
#endif
PS_PRIVATE_OBJECT PS__TLS unsigned ps__thread_self;     /* one more than the number; 0: not given yet */
PS_PRIVATE unsigned ps__thread_first(void);
#define PS__THREADS_SMALL 63u                           /* numbers below it come back when their thread has ended */
#define PS__THREAD_LAST (UINT32_MAX / 2 - 3)            /* the number of all that come after so many: months of threads */
/*
 * The number of this thread, as small as can be: no other that lives has it. Whoever gets the number of one that has ended sees
 * all that that one wrote.
 */
static inline unsigned ps__thread_number(void)
{
    unsigned self = ps__thread_self;
    return PS_LIKELY(self != 0) ? self - 1 : ps__thread_first();
}
/* In linux.c: the kernel's number of this thread, 0: unknown; and has the thread of this process that had such a one ended? */
PS_PRIVATE uint32_t ps__thread_id(void);
PS_PRIVATE int ps__thread_ended(uint32_t id);
/* Between two looks at what one waits for: yields first, then sleeps in growing slices. */
PS_PRIVATE void ps__wait_step(unsigned *step);
/* Switches thread cancellation off; the result goes to ps__cancel_restore. */
PS_PRIVATE int ps__cancel_off(void);
PS_PRIVATE void ps__cancel_restore(int state);

/*
 * An asymmetric pair of fences: light on the path that runs often, heavy on the other. Between them they order as two
 * seq_cst fences do. Light is a compiler barrier where the kernel can interrupt every running thread of the process
 * (membarrier(2), private expedited), else a seq_cst fence.
 */
PS_PRIVATE_OBJECT ps__a32 ps__light_is_free;
PS_PRIVATE void ps__fence_heavy(void);
#define ps__fence_light() \
    do { if (PS_LIKELY(ps__load_rlx(&ps__light_is_free))) ps__fence_compiler(); else ps__fence_sc(); } while (0)

/* ---- fork: which process does a handle belong to? */
PS_PRIVATE void *ps__wiped_page(void);                  /* zeroed memory that is zero again in a child; NULL: not here */
PS_PRIVATE void ps__fence_init(void);                   /* decides ps__light_is_free */
/* Called by every ps_open: sets up the machinery below once. 0, or an error of errno. */
PS_PRIVATE int ps__process_init(void);
PS_PRIVATE_OBJECT _Atomic(ps__a64 *) ps__generation_word;      /* set once, before the first handle exists */
/* A number that differs in a forked child, also one made by a raw clone(2). */
static inline uint64_t ps__process_generation(void)
{
    /* Relaxed: whoever asks with a handle got it after the pointer was set; the word changes only by fork. */
    return ps__load_rlx(ps__load_rlx(&ps__generation_word));
}

/* What is done in a forked child at once, closing descriptors (never unlocking) above all: a list entry inside the owner. */
struct ps__fork_entry {
    struct ps__fork_entry *next, **link;
    void (*in_child)(struct ps__fork_entry *entry);     /* async-signal-safe calls only */
};
PS_PRIVATE void ps__fork_add(struct ps__fork_entry *entry);     /* one that is in the list already stays where it is */
PS_PRIVATE void ps__fork_remove(struct ps__fork_entry *entry);
/*
 * Between the two no other thread forks, and this one cannot be cancelled: for the few system calls between making what a child
 * must not keep, a descriptor or a mapping, and saying so. May be nested. errno is untouched. A signal handler of this very
 * thread may fork all the same; then the child comes back into the middle of it as well.
 */
PS_PRIVATE void ps__fork_hold(void);
PS_PRIVATE void ps__fork_release(void);

/* ---- descriptors; results are 0 or a descriptor, or -errno */
/*
 * For what open(2) and the like answer, and it answers as they do: the same descriptor, or a copy beyond the numbers of the
 * standard streams. A program may have been started without those, and what it prints must not end up in a bus.
 */
PS_PRIVATE int ps__fd_private(int fd);
/*
 * The same for one that is open during a call only, and then closed by ps__fd_passed, a no-op below 0: a child that another
 * thread forks meanwhile does not keep it. Both that and the call it is made by stand between ps__fork_hold and
 * ps__fork_release.
 */
PS_PRIVATE int ps__fd_passing(int fd);
PS_PRIVATE void ps__fd_passed(int fd);
PS_PRIVATE int ps__event_open(void);                    /* readable while signalled; non-blocking, close-on-exec, can be kept */
PS_PRIVATE void ps__event_signal(int fd);               /* async-signal-safe */
PS_PRIVATE void ps__event_clear(int fd);
PS_PRIVATE int ps__pollset_open(void);                  /* readable while one of its members is */
PS_PRIVATE int ps__pollset_add(int set, int fd);
/* Is set one to which just this fd was added, and not a set or a descriptor that came under its number since? */
PS_PRIVATE int ps__pollset_has(int set, int fd);        /* async-signal-safe */
/* poll(2) that retries EINTR until deadline_ns (0: for ever). > 0 ready, 0 time is over, -errno. */
PS_PRIVATE int ps__poll(struct pollfd *fds, unsigned n, uint64_t deadline_ns);
PS_PRIVATE void ps__close_fd(int fd);                   /* no-op below 0; never retried, errno untouched */
PS_PRIVATE int ps__timer_open(void);                    /* readable when it ran out; not running at first */
PS_PRIVATE void ps__timer_set(int fd, int ms);          /* runs out once, in ms; 0 stops it and makes it unreadable */

/*
 * A descriptor that is kept. The program may close it behind our back (closefrom) and open something else under its number, so
 * it is looked at before each use. By its inode: a set and a timer, which have none of their own, cannot be kept like this
 * (ps__pollset_has). That does not tell two descriptions of one file apart, and each handle of a bus has one, with its lock. But
 * a description has a position of its own: where nobody reads or writes by it, a number that none had before is kept in it.
 */
struct ps__kept {
    _Atomic int fd;                     /* -1: none; set last: ps__kept_fd */
    dev_t dev;
    ino_t ino;
    off_t mark;                         /* its position; 0: anything */
};
/* Its number, or -1. */
static inline int ps__kept_fd(const struct ps__kept *kept) { return ps__load_acq(&kept->fd); }
static inline void ps__kept_none(struct ps__kept *kept) { ps__store_rlx(&kept->fd, -1); }
PS_PRIVATE int ps__kept_set(struct ps__kept *kept, int fd);     /* takes fd; 0 or -errno, then fd is closed */
PS_PRIVATE int ps__kept_set_marked(struct ps__kept *kept, int fd);      /* one just opened, whose position is nobody else's */
PS_PRIVATE int ps__kept_valid(const struct ps__kept *kept);     /* async-signal-safe */
PS_PRIVATE int ps__kept_event(struct ps__kept *kept);           /* an event, kept before anybody forks; 0 or -errno */
PS_PRIVATE void ps__kept_close(struct ps__kept *kept);          /* only if it is still ours; async-signal-safe */

/* Anonymous zeroed memory, given to the program page by page as it is touched. NULL when there is none. */
PS_PRIVATE void *ps__pages(size_t size);
PS_PRIVATE void ps__pages_free(void *pages, size_t size);

/* What different processors write lies so far apart: two cache lines, for the adjacent-line prefetcher fetches pairs. */
#define PS__LINE 128u

/* Fetches a line in order to write it. The compiler's builtin fetches it shared on plain x86-64, and then the write waits. */
#if defined __x86_64__
#define ps__prefetch_write(p) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(p)))
#else
#define ps__prefetch_write(p) __builtin_prefetch((p), 1)
#endif

/* One hint to the processor inside a spinning loop. */
#if defined __x86_64__ || defined __i386__
#define ps__pause() __builtin_ia32_pause()
#elif defined __aarch64__
#define ps__pause() __asm__ volatile("yield")
#else
#define ps__pause() ((void)0)
#endif

#endif
