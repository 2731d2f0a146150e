/* SPDX-License-Identifier: MIT */
/*
 * posix.c - the part of platform.h that POSIX has: clocks, threads, poll, memory, and knowing that fork(2) happened.
 *
 * Knowing about fork. Every handle remembers the generation of the process that opened it. The generation is one word in
 * a page that the kernel zeroes in every child, also in one made by a raw clone(2) that runs no fork handler. 0 is no
 * valid generation, so a child's inherited handles differ at once. The child's fork handler, or without one the child's
 * next ps__process_init(), gives the word a new value. Values need to differ along a line of descent only, so a counter
 * that children inherit is enough. Where the kernel cannot zero the page, the fork handler alone does the work.
 *
 * Setting up must itself survive a fork in another thread: pthread_once() starts over in a child that was born in the
 * middle, and registering the fork handlers twice does no harm.
 */
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if PS_TSAN
PS_PRIVATE ps__a64 ps__tsan_fence;
#endif

/* ------------------------------------------------------------------ time */

static uint64_t posix_clock(clockid_t id)
{
    struct timespec now = { 0, 0 };
    (void)clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t ps__now_ns(void)
{
    return posix_clock(CLOCK_MONOTONIC);
}

uint64_t ps__now_coarse_ms(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    return posix_clock(CLOCK_MONOTONIC_COARSE) / 1000000u;
#else
    return posix_clock(CLOCK_MONOTONIC) / 1000000u;
#endif
}

uint64_t ps__deadline_ns(int timeout_ms)
{
    if (timeout_ms < 0)
        return 0;
    uint64_t deadline = ps__now_ns() + (uint64_t)timeout_ms * 1000000u;
    return deadline != 0 ? deadline : 1;
}

int ps__left_ms(uint64_t deadline_ns)
{
    if (deadline_ns == 0)
        return -1;
    uint64_t now = ps__now_ns();
    if (now >= deadline_ns)
        return 0;
    /* Rounded up, so that who waits this long does not wake just before the deadline and spin through the rest. */
    uint64_t left = (deadline_ns - now - 1) / 1000000u + 1;
    return left < INT_MAX ? (int)left : INT_MAX;
}

/* ------------------------------------------------------------------ threads */

PS_COLD void ps__wait_step(unsigned *step)
{
    if ((*step)++ < 32) {
        sched_yield();
        return;
    }
    long ns = *step < 64 ? 50000 : 500000;
    struct timespec t = { 0, ns };
    nanosleep(&t, NULL);
}

int ps__cancel_off(void)
{
    int state = PTHREAD_CANCEL_ENABLE;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    return state;
}

void ps__cancel_restore(int state)
{
    int ignored;
    (void)pthread_setcancelstate(state, &ignored);
}

/* ------------------------------------------------------------------ fork */

static ps__a64 posix_word;                      /* the generation where there is no page for it */
PS_PRIVATE _Atomic(ps__a64 *) ps__generation_word = &posix_word;
static ps__a64 posix_last_generation;           /* an ordinary variable: a child goes on where its parent was */

static pthread_once_t posix_once = PTHREAD_ONCE_INIT;
static _Atomic int posix_atfork_done;

/*
 * The list of those who want to hear of a fork. Its mutex is held across fork, so that the child finds it whole, and keeps
 * forks away (ps__fork_hold). A signal handler may fork while this very thread has it or waits for it: posix_holding tells,
 * the lock is then left alone, and both changes are written so that the list can be walked after each of their steps.
 */
static pthread_mutex_t posix_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ps__fork_entry *posix_entries;
static PS__TLS volatile int posix_holding;    /* 2: this thread has the mutex, 1: it waits for it, or has just given it back */
static PS__TLS int posix_nested;              /* ps__fork_hold inside another, or in a fork handler of the program's */
static PS__TLS int posix_cancel;              /* ps__cancel_off's answer, meanwhile */
static PS__TLS int posix_forking;             /* fork handlers of this thread's fork that have yet to finish */

/* Descriptors that are open during a call, under the mutex: ps__fd_passing. A thread is told by where its posix_holding lies. */
#define POSIX_PASSING 16
static struct { struct ps__kept kept; const volatile void *whose; } posix_passing[POSIX_PASSING];

/* ------------------------------------------------------------------ numbers of threads */

/* Is this a child that ran no fork handler, and has not opened a handle since? */
static int posix_cloned(void)
{
    ps__a64 *word = ps__load_rlx(&ps__generation_word);
    return word != &posix_word && ps__load_acq(word) == 0;
}

PS_PRIVATE PS__TLS unsigned ps__thread_self;

/*
 * Who holds the small numbers, {how often it changed hands, the kernel's number of the thread}. A thread does not say that it
 * ends, for there must be no destructor of ours in a program that has unloaded us: who needs a number asks the kernel.
 */
static ps__a64 posix_holder[PS__THREADS_SMALL];

#define POSIX_FOR_EVER UINT32_MAX               /* held by a thread that nobody can ask for */

PS_COLD unsigned ps__thread_first(void)
{
    static _Atomic unsigned rest;
    uint32_t id = posix_cloned() ? 0 : ps__thread_id();
    for (unsigned n = 0; id && n < PS__THREADS_SMALL; n++) {
        uint64_t holder = ps__load_rlx(&posix_holder[n]);
        uint32_t whose = (uint32_t)holder;
        /* One that had our id has ended as well. */
        if (whose == POSIX_FOR_EVER || (whose && whose != id && !ps__thread_ended(whose))) continue;
        /* It ended before the kernel told us, and the kernel may have given its id again since: the count tells. */
        if (!ps__cas_rlx(&posix_holder[n], &holder, ((holder >> 32) + 1) << 32 | id)) continue;
        /* What it wrote lies before the kernel's answer, or before the kernel gave us its id. */
        ps__fence_sc();
        ps__thread_self = n + 1;
        ps__fence_compiler();
        if (ps__thread_id() == id) return n;
        ps__thread_self = 0;                    /* a signal handler forked in between, and the child has only just learnt of us */
        return ps__thread_first();
    }
    unsigned number = PS__THREADS_SMALL + ps__add_rlx(&rest, 1);        /* relaxed: only that no two are equal matters */
    if (number >= PS__THREAD_LAST) {
        ps__store_rlx(&rest, PS__THREAD_LAST - PS__THREADS_SMALL);      /* or it would begin anew */
        number = PS__THREAD_LAST;
    }
    ps__thread_self = number + 1;
    return number;
}

/* In a child: of its parent's threads there is but this one; or it may be another, and nobody knows which there were. */
PS_COLD static void posix_threads_forked(int known)
{
    uint32_t id = known ? ps__thread_id() : POSIX_FOR_EVER;
    for (unsigned n = 0; n < PS__THREADS_SMALL; n++)
        ps__store_rlx(&posix_holder[n], !known || n + 1 == ps__thread_self ? id : 0);
}

#undef POSIX_FOR_EVER

/* ------------------------------------------------------------------ fork handlers */

/* Gives the word a valid value if it has none. */
PS_COLD static void posix_generation_renew(ps__a64 *word)
{
    uint64_t none = 0;
    (void)ps__cas_ar(word, &none, ps__add_rlx(&posix_last_generation, 1) + 1);
}

PS_COLD static void posix_fork_prepare(void)
{
    if (posix_forking++ == 0 && !posix_holding)
        (void)pthread_mutex_lock(&posix_mutex);
}

PS_COLD static void posix_fork_parent(void)
{
    if (--posix_forking == 0 && !posix_holding)
        (void)pthread_mutex_unlock(&posix_mutex);
}

/* In a child: those of threads that are not here, closed or not. Its own goes on, for the call may. */
PS_COLD static void posix_passing_forked(int close)
{
    for (int i = 0; i < POSIX_PASSING; i++) {
        if (!posix_passing[i].whose || posix_passing[i].whose == &posix_holding) continue;
        if (close) ps__kept_close(&posix_passing[i].kept);
        posix_passing[i].whose = NULL;
    }
}

PS_COLD static void posix_fork_child(void)
{
    if (--posix_forking != 0)
        return;
    ps__a64 *word = ps__load_rlx(&ps__generation_word);
    if (word == &posix_word)
        ps__store_rlx(word, 0);                 /* what the kernel has done to a page */
    posix_threads_forked(1);
    posix_generation_renew(word);
    for (struct ps__fork_entry *entry = posix_entries; entry; entry = entry->next)
        entry->in_child(entry);
    posix_passing_forked(1);
    if (!posix_holding)
        (void)pthread_mutex_unlock(&posix_mutex);
    else if (posix_holding < 2)                 /* whoever has it is not here */
        (void)pthread_mutex_init(&posix_mutex, NULL);
}

PS_COLD static void posix_init_once(void)
{
    ps__a64 *page = ps__wiped_page();
    ps__a64 *word = page ? page : &posix_word;
    posix_generation_renew(word);
    ps__store_rlx(&ps__generation_word, word);
    ps__fence_init();
}

PS_COLD int ps__process_init(void)
{
    (void)pthread_once(&posix_once, posix_init_once);

    ps__a64 *word = ps__load_rlx(&ps__generation_word);
    if (PS_UNLIKELY(ps__load_rlx(word) == 0)) {
        /*
         * A child that ran no fork handler. The mutex may be held by a thread that does not exist here. The entries are
         * not told: their descriptors may have been closed meanwhile, and the numbers may be somebody else's by now.
         */
        (void)pthread_mutex_init(&posix_mutex, NULL);
        posix_passing_forked(0);
        posix_threads_forked(0);
        posix_generation_renew(word);
    }
    if (PS_UNLIKELY(!ps__load_acq(&posix_atfork_done))) {
        int error = pthread_atfork(posix_fork_prepare, posix_fork_parent, posix_fork_child);
        if (error != 0)
            return error;
        ps__store_rel(&posix_atfork_done, 1);
    }
    return 0;
}

PS_COLD void ps__fork_hold(void)
{
    if (posix_holding > 1 || posix_forking) {
        posix_nested++;
        return;
    }
    int cancel = ps__cancel_off();
    posix_holding = 1;
    (void)pthread_mutex_lock(&posix_mutex);
    posix_holding = 2;
    posix_cancel = cancel;
}

PS_COLD void ps__fork_release(void)
{
    if (posix_nested) {
        posix_nested--;
        return;
    }
    int cancel = posix_cancel;
    posix_holding = 1;
    (void)pthread_mutex_unlock(&posix_mutex);
    posix_holding = 0;
    ps__cancel_restore(cancel);
}

PS_COLD void ps__fork_add(struct ps__fork_entry *entry)
{
    ps__fork_hold();
    if (!entry->link) {
        entry->next = posix_entries;
        entry->link = &posix_entries;
        ps__fence_compiler();                   /* an entry that can be found is complete */
        if (entry->next)
            entry->next->link = &entry->next;
        posix_entries = entry;
    }
    ps__fork_release();
}

PS_COLD void ps__fork_remove(struct ps__fork_entry *entry)
{
    ps__fork_hold();
    if (entry->link) {
        *entry->link = entry->next;
        if (entry->next)
            entry->next->link = entry->link;
        ps__fence_compiler();                   /* a walker that stands on the entry still finds the rest */
        entry->link = NULL;
    }
    ps__fork_release();
}

/* ------------------------------------------------------------------ descriptors */

int ps__poll(struct pollfd *fds, unsigned n, uint64_t deadline_ns)
{
    int saved = errno;
    int result;
    for (;;) {
        int left = ps__left_ms(deadline_ns);
        result = poll(fds, n, left);
        if (result > 0)
            break;
        if (result < 0 && errno != EINTR) {
            result = -errno;
            break;
        }
        if (left == 0) {                        /* the last look was taken after the deadline */
            result = 0;
            break;
        }
    }
    errno = saved;
    return result;
}

PS_COLD void ps__close_fd(int fd)
{
    if (fd < 0)
        return;
    int saved = errno;
    (void)close(fd);                            /* after EINTR the number is free, and may be another thread's already */
    errno = saved;
}

PS_COLD int ps__fd_private(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int private = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), error = errno;
    (void)close(fd);
    errno = error;
    return private;
}

PS_COLD int ps__fd_passing(int fd)
{
    fd = ps__fd_private(fd);
    int i = 0;
    while (i < POSIX_PASSING && posix_passing[i].whose) i++;
    if (fd < 0 || i == POSIX_PASSING)           /* more at once: a child may keep the number, and nothing else */
        return fd;
    int err = ps__kept_set(&posix_passing[i].kept, fd);
    if (err) {
        errno = -err;
        return -1;
    }
    ps__fence_compiler();
    posix_passing[i].whose = &posix_holding;
    return fd;
}

PS_COLD void ps__fd_passed(int fd)
{
    if (fd < 0)
        return;
    ps__fork_hold();
    for (int i = 0; i < POSIX_PASSING; i++)
        if (posix_passing[i].whose == &posix_holding && ps__kept_fd(&posix_passing[i].kept) == fd) posix_passing[i].whose = NULL;
    ps__close_fd(fd);
    ps__fork_release();
}

#undef POSIX_PASSING

/* ------------------------------------------------------------------ memory */

PS_COLD static int posix_keep(struct ps__kept *kept, int fd, off_t mark)
{
    struct stat st;
    if (fstat(fd, &st)) {
        int error = errno;
        ps__close_fd(fd);
        return -error;
    }
    kept->dev = st.st_dev;
    kept->ino = st.st_ino;
    kept->mark = mark;
    ps__store_rel(&kept->fd, fd);
    return 0;
}

PS_COLD int ps__kept_set(struct ps__kept *kept, int fd)
{
    return posix_keep(kept, fd, 0);
}

PS_COLD int ps__kept_set_marked(struct ps__kept *kept, int fd)
{
    static ps__a64 marks;
    off_t mark = (off_t)ps__add_rlx(&marks, 1) + 1;     /* relaxed: only that no two are equal matters */
    return posix_keep(kept, fd, lseek(fd, mark, SEEK_SET) == mark ? mark : 0);
}

PS_COLD int ps__kept_event(struct ps__kept *kept)
{
    ps__fork_hold();
    int fd = ps__event_open(), err = fd < 0 ? fd : ps__kept_set(kept, fd);
    ps__fork_release();
    return err;
}

int ps__kept_valid(const struct ps__kept *kept)
{
    struct stat st;
    int saved = errno, fd = ps__kept_fd(kept);
    int valid = fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == kept->dev && st.st_ino == kept->ino &&
                (!kept->mark || lseek(fd, 0, SEEK_CUR) == kept->mark);
    errno = saved;
    return valid;
}

PS_COLD void ps__kept_close(struct ps__kept *kept)
{
    if (ps__kept_valid(kept)) ps__close_fd(ps__kept_fd(kept));
    ps__kept_none(kept);
}

PS_COLD void *ps__pages(size_t size)
{
    int saved = errno;
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = saved;
    return pages == MAP_FAILED ? NULL : pages;
}

PS_COLD void ps__pages_free(void *pages, size_t size)
{
    if (!pages)
        return;
    int saved = errno;
    (void)munmap(pages, size);
    errno = saved;
}
