/* SPDX-License-Identifier: MIT */
/*
 * segment.c - the file of a shm bus: found or created, checked, mapped, removed by the last one out.
 *
 * Creation is atomic: an unnamed file is filled, a slot of it locked, and then it gets its name, or loses the race. The lock
 * descriptor is a second open file description, never the one that is mapped: a mapping would keep the lock alive in a forked
 * child.
 */
#include "shm.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT_MAGIC    0x3173756273707eu      /* "~psbus1" */
#define SEGMENT_ENDIAN   0x01020304u
#define SEGMENT_MEMBERS  64u
#define SEGMENT_PATIENCE_MS 100
#define SEGMENT_TRIES    4              /* before the first nap */
#define SEGMENT_PROC     64             /* bytes of a name in /proc */

static uint64_t segment_check(const struct ps__shm_header *h)
{
    uint64_t hash = 0xcbf29ce484222325u;                /* FNV-1a: damage, not malice */
    const unsigned char *bytes = (const unsigned char *)&h->endian;
    for (size_t i = 0; i < offsetof(struct ps__shm_header, check) - offsetof(struct ps__shm_header, endian); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* ------------------------------------------------------------------ descriptors of it */

/* Others have atomics that do not reach between processes, or locks that nobody keeps. */
static int segment_file_system(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs)) return ps__fail_sys(errno, "fstatfs");
    switch ((unsigned long)fs.f_type) {
    case 0x01021994ul:                  /* tmpfs, memfd */
    case 0x0000ef53ul:                  /* ext4 */
    case 0x58465342ul:                  /* xfs */
        return 0;
    default:
        return ps__fail(PS_ENOTSUP, "file system of type %lx: tmpfs, ext4 or xfs is needed", (unsigned long)fs.f_type);
    }
}

/* The name of a descriptor's file. */
static const char *segment_proc(char path[SEGMENT_PROC], int fd)
{
    snprintf(path, SEGMENT_PROC, "/proc/self/fd/%d", fd);
    return path;
}

/* A second description of a file is had by way of /proc only. */
static int segment_no_proc(const char *path, int error)
{
    if (error == ENOENT || error == ENOTDIR) return ps__fail(PS_ENOTSUP, "%s is not there: is /proc mounted?", path);
    return ps__fail_sys(error, "a second description of the bus's file");
}

/* One that is kept, as the bus's lock or its anchor. */
static int segment_description(struct ps__kept *kept, int fd, int flags)
{
    char proc[SEGMENT_PROC];
    ps__fork_hold();                    /* a child finds it kept, and closes it */
    int other = ps__fd_private(open(segment_proc(proc, fd), flags | O_CLOEXEC)), error = errno;
    int err = other < 0 ? 0 : ps__kept_set_marked(kept, other);
    ps__fork_release();
    if (other < 0) return segment_no_proc(proc, error);
    return err ? ps__fail_sys(-err, "fstat") : 0;
}

/* One that the call does not outlive. As open(2). */
static int segment_passing(const char *path, int flags)
{
    ps__fork_hold();
    int fd = ps__fd_passing(open(path, flags | O_CLOEXEC, 0600));
    ps__fork_release();
    return fd;
}

int ps__shm_data_fd(struct ps__shm *shm)
{
    char proc[SEGMENT_PROC];
    int fd = -1;
    struct stat st;
    if (ps__kept_valid(&shm->lock)) {
        fd = segment_passing(segment_proc(proc, ps__kept_fd(&shm->lock)), shm->port.observe ? O_RDONLY : O_RDWR);
        if (fd < 0 && (errno == EACCES || errno == EPERM)) {
            (void)ps__fail_sys(errno, "the bus's file cannot be opened again (were privileges dropped since ps_open?)");
            return -1;
        }
    } else if (shm->path[0]) {                          /* the program closed it (closefrom): by name, if it is still the file */
        fd = segment_passing(shm->path, O_RDWR | O_NOFOLLOW);
        if (fd >= 0 && (fstat(fd, &st) || st.st_dev != shm->lock.dev || st.st_ino != shm->lock.ino)) {
            ps__fd_passed(fd);
            fd = -1;
            errno = ESTALE;
        }
    } else {
        errno = EBADF;
    }
    if (fd < 0) (void)ps__fail_sys(errno, "the bus's descriptor is gone");
    return fd;
}

/* ------------------------------------------------------------------ mapping */

/* The pages of a part, writable; where they are larger than 4 KiB, more than the part. */
static int segment_writable(struct ps__shm *shm, uint64_t offset, uint64_t size)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin = offset - offset % page;
    uint64_t end = (offset + size + page - 1) / page * page;
    return mprotect(shm->base + begin, end - begin, PROT_READ | PROT_WRITE) ? ps__fail_sys(errno, "mprotect") : 0;
}

/* The fixed part, all of it read-only: a stray pointer cannot damage what others own. Then words and the own slot writable. */
static int segment_map(struct ps__shm *shm, int fd)
{
    shm->base_size = ps__shm_fixed_size(shm->header.members);
    void *base = mmap(NULL, shm->base_size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) return ps__fail(PS_ENOMEM, "cannot map %zu bytes: %s", shm->base_size, strerror(errno));
    shm->base = base;
    madvise(base, shm->base_size, MADV_DONTDUMP);
    shm->port.members = shm->header.members;
    ps__shm_point(shm);
    if (shm->port.observe) return 0;
    int err = segment_writable(shm, PS__SHM_WORDS, 4096);
    uint64_t size = ps__shm_slot_size(shm->port.members);
    if (!err) err = segment_writable(shm, PS__SHM_SLOTS + shm->port.slot * size, size);
    if (err) return err;
    /* The lock survives closefrom() through this page, and does not survive in a forked child. */
    ps__fork_hold();
    void *pin = mmap(NULL, 4096, PROT_READ, MAP_SHARED, ps__kept_fd(&shm->lock), 0);
    int error = errno, mapped = pin != MAP_FAILED, kept = mapped && madvise(pin, 4096, MADV_DONTFORK) == 0;
    if (kept) shm->pin = pin;
    else if (mapped) error = errno, munmap(pin, 4096);
    ps__fork_release();
    if (!mapped) return ps__fail(PS_ENOMEM, "cannot map a page: %s", strerror(error));
    return kept ? 0 : ps__fail_sys(error, "madvise");
}

/*
 * The slots of all members, by whoever comes before it is said that they are there: the creator at first, behind its link, so
 * that who starts at the same time finds a file to join instead of making one in vain. Dying in the middle leaves it to the
 * next, who does it again, which is nothing. Who only observes touches no slot that nobody ever had.
 */
static int segment_reserve(struct ps__shm *shm, int fd)
{
    unsigned members = shm->port.members;
    ps__a64 *reserved = (ps__a64 *)(void *)(shm->base + PS__SHM_RESERVED);
    if (shm->port.observe || ps__load_acq(reserved) == members) return 0;
    int err = ps__shm_reserve_shared(fd, PS__SHM_SLOTS, members * ps__shm_slot_size(members), "a bus's members");
    if (!err) ps__store_rel(reserved, members);
    return err;
}

/* ------------------------------------------------------------------ create */

#ifdef PS_TEST_HOOKS
/* Tests of wrap-around: lanes that begin elsewhere than at zero, so that a joiner has to look at them. */
static int segment_fill_lanes(int fd, unsigned members)
{
    struct ps__lane lane;
    uint64_t high = members;
    memset(&lane, 0, sizeof lane);
    ps__lane_init(&lane);
    if (ps__load_rlx(&lane.tail) == 0 && ps__load_rlx(&lane.base) == 0) return 0;
    if (pwrite(fd, &high, 8, PS__SHM_WORDS + (off_t)offsetof(struct ps__words, lanes_high)) != 8)
        return ps__fail_sys(errno, "writing a bus's words");
    for (unsigned i = 0; i < members; i++)
        if (pwrite(fd, &lane, offsetof(struct ps__lane, evicted), (off_t)ps__shm_lane_offset(members, i)) < 0)
            return ps__fail_sys(errno, "writing a lane");
    return 0;
}
#endif

/* What must be there when the file gets its name. */
static int segment_fill(struct ps__shm *shm, int fd, const ps_url *url, const struct ps__geometry *wanted)
{
    struct ps__shm_header *h = &shm->header;
    unsigned members = url->members ? url->members : SEGMENT_MEMBERS;
    *h = (struct ps__shm_header){ 0, SEGMENT_ENDIAN, PS__SHM_VERSION, members, !shm->path[0], 0, { 0, 0 }, 0 };
    ps__random(&h->seed, sizeof h->seed);
    ps__random(h->id, sizeof h->id);
    h->check = segment_check(h);
    int err = ps__shm_resize(fd, ps__shm_fixed_size(members));
    if (!err) err = ps__shm_reserve(fd, 0, PS__SHM_SLOTS, "a bus");
    if (err) return err;
    shm->port.members = members;
    struct ps__geometry g = *wanted;
    g.fixed = !shm->path[0];            /* an anonymous file is sealed at its full size */
    uint64_t word = ps__geometry_pack(&g);
    if (pwrite(fd, &word, 8, PS__SHM_WORDS + (off_t)offsetof(struct ps__words, geometry)) != 8)
        return ps__fail_sys(errno, "writing a bus's geometry");
#ifdef PS_TEST_HOOKS
    if ((err = segment_fill_lanes(fd, members))) return err;
#endif
    h->magic = SEGMENT_MAGIC;           /* nobody reads the file before it has its name */
    struct ps__shm_header whole = *h;
    if (pwrite(fd, &whole, sizeof whole, 0) != (ssize_t)sizeof whole) return ps__fail_sys(errno, "writing a bus's header");
    return 0;
}

static int segment_take(struct ps__shm *shm)
{
    int slot = ps__slot_take(shm);
    if (slot < 0) return slot;
    shm->port.slot = (unsigned)slot;
    return 0;
}

static int segment_create_anonymous(struct ps__shm *shm, const ps_url *url, const struct ps__geometry *wanted, int *out)
{
    ps__fork_hold();
    /* The tool looks for this name: examples/psbus/proc.c. */
    int fd = ps__fd_passing(memfd_create("psbus", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ps__fork_release();
    if (fd < 0) return ps__fail_sys(errno, "memfd_create");
    *out = fd;
    int err = segment_fill(shm, fd, url, wanted);
    if (err) return err;
    shm->geometry = *wanted;            /* for the offset only; known when it has been read back */
    if ((err = ps__shm_resize(fd, ps__shm_ring_offset(shm, shm->port.members)))) return err;
    if (fchmod(fd, 0600)) return ps__fail_sys(errno, "fchmod");
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) return ps__fail_sys(errno, "sealing");
    err = segment_description(&shm->anchor, fd, O_PATH);
    if (!err) err = segment_description(&shm->lock, fd, O_RDWR);
    return err ? err : segment_take(shm);
}

/*
 * What is mapped is opened by its name: in /proc/PID/maps the file that had none would stand as deleted for ever, and who looks
 * for the processes of a deleted bus would not find its creator. If it is gone already, or cannot be opened, the memory is the
 * same.
 */
static void segment_by_name(struct ps__shm *shm, int *fd)
{
    struct stat st;
    int named = segment_passing(shm->path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW), other = named;
    if (named >= 0 && fstat(named, &st) == 0 && st.st_ino == shm->lock.ino && st.st_dev == shm->lock.dev) {
        other = *fd;
        *fd = named;
    }
    ps__fd_passed(other);
}

/* PS_EAGAIN: somebody else was faster, or the file system would not link it. */
static int segment_create(struct ps__shm *shm, const ps_url *url, const struct ps__geometry *wanted, int *out)
{
    char proc[SEGMENT_PROC];
    int fd = segment_passing(shm->dir, O_TMPFILE | O_RDWR);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        return ps__fail(PS_ENOTSUP, "%s: its file system has no O_TMPFILE", shm->dir);
    if (fd < 0 && errno == ENOENT && shm->by_name) return PS_EAGAIN;
    if (fd < 0) return ps__fail_sys(errno, "cannot make a file in %s", shm->dir);
    *out = fd;
    int err = segment_file_system(fd);
    if (!err && fchmod(fd, shm->mode < 0 ? 0600 : (mode_t)shm->mode)) err = ps__fail_sys(errno, "fchmod");
    if (!err) err = segment_fill(shm, fd, url, wanted);
    if (!err) err = segment_description(&shm->lock, fd, O_RDWR);
    if (!err) err = segment_take(shm);  /* before it has a name: it never looks abandoned */
    if (err) return err;
    if (linkat(AT_FDCWD, segment_proc(proc, fd), AT_FDCWD, shm->path, AT_SYMLINK_FOLLOW) == 0) {
        segment_by_name(shm, out);
        return 0;
    }
    if (errno == EEXIST || (errno == ENOENT && shm->by_name)) return PS_EAGAIN;
    return ps__fail_sys(errno, "cannot name %s", shm->path);
}

/* ------------------------------------------------------------------ open what is there */

static int segment_foreign(const struct ps__shm *shm, const struct stat *st)
{
    if (st->st_uid == geteuid() || st->st_uid == 0 || (geteuid() == 0 && shm->port.observe)) return 0;
    if (shm->path[0] == '/' && shm->mode >= 0 && (st->st_mode & 07777) == (mode_t)shm->mode) return 0;
    return ps__fail(PS_EACCES, "%s belongs to user %lu with mode %04o: name mode=%04o and its path to trust it", shm->path,
                    (unsigned long)st->st_uid, (unsigned)(st->st_mode & 07777), (unsigned)(st->st_mode & 07777));
}

static int segment_read_header(struct ps__shm *shm, int fd, const struct stat *st)
{
    struct ps__shm_header *h = &shm->header;
    const char *name = shm->path[0] ? shm->path : "the anonymous bus";
    if (st->st_size < (off_t)sizeof *h || pread(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h || h->magic != SEGMENT_MAGIC) {
        if (st->st_size >= (off_t)sizeof *h && __builtin_bswap64(h->magic) == SEGMENT_MAGIC)
            return ps__fail(PS_EVERSION, "%s was made by a machine of the other byte order", name);
        return ps__fail(PS_ECORRUPT, "%s is no bus of psbus", name);
    }
    if (h->endian != SEGMENT_ENDIAN) return ps__fail(PS_EVERSION, "%s was made by a machine of another byte order", name);
    if (h->version != PS__SHM_VERSION)
        return ps__fail(PS_EVERSION, "%s has layout %u, this library knows %u", name, h->version, PS__SHM_VERSION);
    if (h->check != segment_check(h) || h->members < 1 || h->members > PS_MEMBERS_MAX ||
        st->st_size < (off_t)ps__shm_fixed_size(h->members))
        return ps__fail(PS_ECORRUPT, "%s: its header is damaged", name);
    return 0;
}

/* PS_ENOENT: there is none. PS_EAGAIN: it went away under us, start over. */
static int segment_open(struct ps__shm *shm, int *out)
{
    struct stat st, named;
    char proc[SEGMENT_PROC];
    const char *path = shm->path;
    int access = shm->port.observe ? O_RDONLY : O_RDWR, follow = shm->proc ? 0 : O_NOFOLLOW;
    if (!path[0]) {
        path = segment_proc(proc, ps__kept_fd(&shm->anchor));
        follow = 0;
    }
    int fd = segment_passing(path, access | O_NONBLOCK | O_NOCTTY | follow);
    if (fd < 0) {
        if (errno == ENOENT) return PS_ENOENT;
        if (errno == ELOOP) return ps__fail(PS_EACCES, "%s is a symbolic link", path);
        if (errno == EISDIR || errno == ENXIO) return ps__fail(PS_ECORRUPT, "%s is no file", path);
        return ps__fail_sys(errno, "%s", path);
    }
    *out = fd;
    if (fstat(fd, &st)) return ps__fail_sys(errno, "fstat");
    if (!S_ISREG(st.st_mode)) return ps__fail(PS_ECORRUPT, "%s is no file", path);
    int err = segment_foreign(shm, &st);
    if (!err) err = segment_file_system(fd);
    if (!err) err = segment_read_header(shm, fd, &st);
    if (err) return err;
    if (shm->proc && !shm->port.observe && !shm->header.anonymous)
        return ps__fail(PS_EINVAL, "%s leads to a bus with a name: open it by that", path);
    int nameless = shm->proc || !shm->path[0];
    if (!nameless && st.st_nlink == 0) return PS_EAGAIN;
    if (!nameless && st.st_nlink > 1) return ps__fail(PS_EACCES, "%s has a second name (hard link)", path);
    if ((err = segment_description(&shm->lock, fd, access))) return err;
    shm->port.members = shm->header.members;
    if (shm->port.observe) return 0;
    if ((err = segment_take(shm))) return err;
    /* Locked: is it still the file of that name? Its last member may have removed it between our open and our lock. */
    if (!nameless && (fstat(fd, &st) || st.st_nlink == 0 || lstat(shm->path, &named) || named.st_ino != st.st_ino ||
                      named.st_dev != st.st_dev))
        return PS_EAGAIN;
    return 0;
}

/* Removes file and bells if nobody else is there, under the lock of all bytes. The own byte goes first, so that of two who leave
 * at once the later one finds nobody. high: slots that ever had a member. */
static void segment_leave(struct ps__shm *shm, unsigned high)
{
    struct stat st;
    if (shm->port.observe || !shm->path[0] || shm->proc || !ps__has_slot(&shm->port)) return;
    ps__bell_unlink(shm, shm->port.slot);
    ps__slot_drop(shm, shm->port.slot);
    if (!ps__slot_last(shm)) return;
    for (unsigned i = 0; i < high; i++) ps__bell_unlink(shm, i);
    /* Only if it is still ours: somebody may have put another file in its place. */
    if (lstat(shm->path, &st) == 0 && st.st_ino == shm->lock.ino && st.st_dev == shm->lock.dev) unlink(shm->path);
    if (shm->by_name) rmdir(shm->dir);  /* succeeds when it is empty */
}

/* No fork comes in between: the kernel copies descriptors before memory, and a child would have one that nobody in it knows. */
static void segment_close(struct ps__shm *shm)
{
    ps__fork_hold();
    ps__bell_close(shm);
    ps__kept_close(&shm->lock);         /* drops the lock, unless the file is open elsewhere: never unlocked by hand */
    ps__fork_release();
}

static void segment_drop(struct ps__shm *shm, int fd)
{
    ps__fd_passed(fd);
    if (shm->pin) munmap(shm->pin, 4096);
    if (shm->base) munmap(shm->base, shm->base_size);
    segment_close(shm);
    shm->pin = NULL;
    shm->base = NULL;
}

int ps__shm_attach(struct ps__shm *shm, const ps_url *url)
{
    struct ps__geometry wanted;
    uint64_t deadline = ps__now_ns() + (uint64_t)SEGMENT_PATIENCE_MS * 1000000u;
    int err = ps__geometry_wanted(url, &wanted);
    if (err) return err;
    for (int tries = 1;; tries++) {
        int fd = -1;
        shm->port.slot = PS_MEMBERS_MAX;
        if (!shm->path[0] && ps__kept_fd(&shm->anchor) < 0) {
            err = segment_create_anonymous(shm, url, &wanted, &fd);
        } else {
            err = ps__shm_directory(shm, url->create);
            if (!err && (err = segment_open(shm, &fd)) == PS_ENOENT && shm->path[0]) {
                if (url->create && !shm->proc) err = segment_create(shm, url, &wanted, &fd);
                else err = ps__fail(PS_ENOENT, "no bus %s", shm->path);
            }
        }
        if (!err) err = segment_map(shm, fd);
        if (!err) err = segment_reserve(shm, fd);
        if (!err) {
            ps__fd_passed(fd);
            break;
        }
        if (err == PS_EFULL && ps__now_ns() <= deadline && ps__slot_passing(shm)) err = PS_EAGAIN;
        if (err != PS_EAGAIN) segment_leave(shm, shm->port.members);    /* who was last may have found us there, and left */
        segment_drop(shm, fd);
        if (err == PS_EAGAIN && ps__now_ns() > deadline)
            err = ps__fail(PS_EBUSY, "%s is being taken down all the time", shm->path);
        if (err != PS_EAGAIN) {
            if (shm->made_dir) rmdir(shm->dir);         /* succeeds when it is empty */
            return err;
        }
        if (tries < SEGMENT_TRIES) continue;            /* two who start at once: the loser finds the winner's file */
        struct timespec nap = { 0, 1000000 };
        nanosleep(&nap, NULL);
    }
    if (!shm->port.observe && (err = ps__geometry_propose(shm->port.words, &wanted))) {
        ps__shm_detach(shm, 0);
        return err;
    }
    return 0;
}

/* ------------------------------------------------------------------ the end */

void ps__shm_detach(struct ps__shm *shm, int forked)
{
    unsigned high = shm->base ? ps__slots_high(&shm->port) : 0;
    for (unsigned i = 0; i < shm->port.members; i++) {
        if (shm->mapped[i].ring) munmap(shm->mapped[i].ring, ps__shm_ring_size(shm));
        if (shm->mapped[i].loan) munmap(shm->mapped[i].loan, ps__loans_size(&shm->geometry));
        shm->mapped[i].ring = shm->mapped[i].loan = NULL;
    }
    if (shm->port.own.cell)
        munmap(shm->port.own.cell, ps__shm_ring_size(shm));
    if (shm->port.own.loan) munmap(shm->port.own.loan, ps__loans_size(&shm->geometry));
    shm->port.own.cell = NULL;
    shm->port.own.loan = NULL;
    if (shm->base) munmap(shm->base, shm->base_size);
    shm->base = NULL;
    if (!forked) segment_leave(shm, high);      /* nobody can take the slot while we could still write: only now */
    if (shm->pin && !forked) munmap(shm->pin, 4096);    /* a forked child never had it */
    shm->pin = NULL;
    segment_close(shm);
}

#undef SEGMENT_MAGIC
#undef SEGMENT_ENDIAN
#undef SEGMENT_MEMBERS
#undef SEGMENT_PATIENCE_MS
#undef SEGMENT_TRIES
#undef SEGMENT_PROC
