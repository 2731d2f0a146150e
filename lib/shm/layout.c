/* SPDX-License-Identifier: MIT */
/*
 * layout.c - where the file of a shm bus is, where in it everything lies, and space for it.
 *
 * Space is reserved with fallocate(2) itself before anybody uses it, so a full file system is an error here and not a SIGBUS
 * later.
 */
#include "shm.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define LAYOUT_STAGGER 1024u            /* cursors and armed words of all members must not share a cache set */
#define LAYOUT_CHUNK   ((uint64_t)16 << 20)

/* ------------------------------------------------------------------ offsets and sizes */

static uint64_t layout_up(uint64_t size, uint64_t to) { return (size + to - 1) / to * to; }

/* What a member has for each other stands last in lane and reader, and no more of them than there are members. */
static uint64_t layout_lane_size(unsigned members)
{
    return layout_up(offsetof(struct ps__lane, evicted) + members * sizeof(ps__a64), PS__LINE);
}

static uint64_t layout_reader_size(unsigned members)
{
    return layout_up(offsetof(struct ps__reader, cursor) + members * sizeof(ps__a64), PS__LINE);
}

static uint64_t layout_used(unsigned members)
{
    return layout_lane_size(members) + layout_reader_size(members) + sizeof(struct ps__about) + PS__SMALL_BITS / 8;
}

uint64_t ps__shm_slot_size(unsigned members)
{
    return layout_up(layout_used(members) + LAYOUT_STAGGER, 4096);
}

uint64_t ps__shm_lane_offset(unsigned members, unsigned slot)
{
    uint64_t size = ps__shm_slot_size(members), room = size - layout_used(members);
    return PS__SHM_SLOTS + slot * size + slot * PS__LINE % (room - room % PS__LINE);
}

uint64_t ps__shm_big_offset(unsigned members, unsigned slot)
{
    return layout_up(PS__SHM_SLOTS + members * ps__shm_slot_size(members), PS__SHM_ALIGN) + slot * (PS__BIG_BITS / 8);
}

uint64_t ps__shm_fixed_size(unsigned members)
{
    return ps__shm_big_offset(members, members);
}

static uint64_t layout_align(uint64_t size) { return layout_up(size, PS__SHM_ALIGN); }

size_t ps__shm_ring_size(const struct ps__shm *shm)
{
    return ps__ring_size(&shm->geometry);
}

uint64_t ps__shm_ring_offset(const struct ps__shm *shm, unsigned slot)
{
    uint64_t stride = layout_align(ps__shm_ring_size(shm)) + layout_align(ps__loans_size(&shm->geometry));
    return ps__shm_fixed_size(shm->port.members) + slot * stride;
}

uint64_t ps__shm_loan_offset(const struct ps__shm *shm, unsigned slot)
{
    return ps__shm_ring_offset(shm, slot) + layout_align(ps__shm_ring_size(shm));
}

void ps__shm_point(struct ps__shm *shm)
{
    struct ps__port *port = &shm->port;
    port->words = (struct ps__words *)(void *)(shm->base + PS__SHM_WORDS);
    for (unsigned i = 0; i < port->members; i++) {
        unsigned char *at = shm->base + ps__shm_lane_offset(port->members, i);
        port->view[i].lane = (struct ps__lane *)(void *)at;
        port->reader[i] = (struct ps__reader *)(void *)(at += layout_lane_size(port->members));
        port->about[i] = (struct ps__about *)(void *)(at += layout_reader_size(port->members));
        port->bits[i] = (ps__a64 *)(void *)(at + sizeof(struct ps__about));
    }
}

/* ------------------------------------------------------------------ reserving space */

/* Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ besides the error: blocked, and ours taken away again. */
struct layout_guard {
    sigset_t old;
    int had;                            /* one was pending already, and is the program's */
};

static void layout_guard_begin(struct layout_guard *guard)
{
    sigset_t all, pending;
    sigfillset(&all);
    sigpending(&pending);
    guard->had = sigismember(&pending, SIGXFSZ);
    pthread_sigmask(SIG_SETMASK, &all, &guard->old);
}

static void layout_guard_end(struct layout_guard *guard, int error)
{
    if (error == EFBIG && !guard->had) {
        sigset_t one;
        struct timespec zero = { 0, 0 };
        sigemptyset(&one);
        sigaddset(&one, SIGXFSZ);
        while (sigtimedwait(&one, NULL, &zero) < 0 && errno == EINTR) { }
    }
    pthread_sigmask(SIG_SETMASK, &guard->old, NULL);
}

/* fallocate(2) itself, in chunks: posix_fallocate may fall back to writing, into memory that others use. */
int ps__shm_reserve_shared(int fd, uint64_t offset, uint64_t size, const char *what)
{
    struct layout_guard guard;
    struct statfs fs;
    int error = 0;
    layout_guard_begin(&guard);
    for (uint64_t done = 0; done < size && !error;) {
        uint64_t chunk = size - done < LAYOUT_CHUNK ? size - done : LAYOUT_CHUNK;
        if (fallocate(fd, 0, (off_t)(offset + done), (off_t)chunk) == 0) done += chunk;
        else if (errno != EINTR) error = errno;
    }
    layout_guard_end(&guard, error);
    if (!error) return 0;
    if (error == ENOSPC && fstatfs(fd, &fs) == 0)
        return ps__fail(PS_ENOSPC, "%llu bytes wanted for %s, the file system has %llu left", (unsigned long long)size, what,
                        (unsigned long long)fs.f_bavail * (unsigned long long)fs.f_bsize);
    return ps__fail_sys(error, "%llu bytes for %s", (unsigned long long)size, what);
}

int ps__shm_reserve(int fd, uint64_t offset, uint64_t size, const char *what)
{
    int err = ps__shm_reserve_shared(fd, offset, size, what);
    /* What was had goes back; nobody has been told of these pages. */
    if (err) (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    return err;
}

int ps__shm_resize(int fd, uint64_t size)
{
    struct layout_guard guard;
    layout_guard_begin(&guard);
    int error = ftruncate(fd, (off_t)size) ? errno : 0;
    layout_guard_end(&guard, error);
    return error ? ps__fail_sys(error, "a bus's file of %llu bytes", (unsigned long long)size) : 0;
}

/* ------------------------------------------------------------------ where the file is */

/*
 * Never chmod(2) of the path: who may write the directory may have put a link to a file of this user's in its place. A
 * descriptor holds what was looked at, and /proc is the one way from it that all kernels have.
 */
int ps__shm_chmod(const char *path, mode_t type, mode_t mode)
{
    char proc[64];
    struct stat st;
    ps__fork_hold();
    int fd = ps__fd_passing(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    ps__fork_release();
    if (fd < 0) return -errno;
    int err = 0;
    if (fstat(fd, &st)) err = -errno;
    else if ((st.st_mode & S_IFMT) != type || st.st_uid != geteuid() || (type == S_IFSOCK && st.st_nlink != 1)) err = -EACCES;
    else if ((st.st_mode & 07777) != mode) {
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
        err = chmod(proc, mode) ? -errno : 0;
    }
    ps__fd_passed(fd);
    return err;
}

int ps__shm_locate(struct ps__shm *shm, const ps_url *url)
{
    const char *address = url->address;
    int n;
    if (!address) {
        if (url->observe || !url->create)
            return ps__fail(PS_ENOENT, "shm: makes a new bus; watch one through shm:///proc/PID/fd/N");
        return 0;
    }
    if (address[0] == '/') {
        n = snprintf(shm->path, sizeof shm->path, "%s", address);
        shm->proc = memcmp(shm->path, "/proc/", 6) == 0;
        if (n < 0 || (size_t)n >= sizeof shm->path - 32)
            return ps__fail(PS_EINVAL, "path longer than %zu bytes", sizeof shm->path - 33);
        if (shm->path[n - 1] == '/') return ps__fail(PS_EINVAL, "'%s' is a directory's name", address);
        memcpy(shm->dir, shm->path, (size_t)n + 1);
        char *slash = strrchr(shm->dir, '/');
        slash[slash == shm->dir] = '\0';
        return 0;
    }
    int err = ps__name_check(address);
    if (err) return err;
    snprintf(shm->dir, sizeof shm->dir, "/dev/shm/psbus-%lu", (unsigned long)geteuid());
    snprintf(shm->path, sizeof shm->path, "%.80s/%.64s", shm->dir, address);
    shm->by_name = 1;
    return 0;
}

/* The directory of a user's named buses: made when needed, gone with the last bus, so it may have to be made again. */
int ps__shm_directory(struct ps__shm *shm, int create)
{
    struct stat st;
    if (!shm->by_name) return 0;
    if (create && mkdir(shm->dir, 0700) == 0) {
        shm->made_dir = 1;
        (void)ps__shm_chmod(shm->dir, S_IFDIR, 0700);   /* a umask that takes it from ourselves would do so for ever */
    } else if (create && errno != EEXIST) {
        return ps__fail_sys(errno, "cannot make %s", shm->dir);
    }
    if (lstat(shm->dir, &st)) {
        if (errno == ENOENT && create) return PS_EAGAIN;
        if (errno == ENOENT) return ps__fail(PS_ENOENT, "no bus %s", shm->path);
        return ps__fail_sys(errno, "%s", shm->dir);
    }
    if (!S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) || st.st_mode & 022)
        return ps__fail(PS_EACCES, "%s is not a directory that only this user can write", shm->dir);
    return 0;
}

#undef LAYOUT_STAGGER
#undef LAYOUT_CHUNK
