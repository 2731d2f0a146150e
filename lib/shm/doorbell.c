/* SPDX-License-Identifier: MIT */
/*
 * doorbell.c - how one process wakes another: Unix datagram sockets, one byte a ring.
 *
 * A descriptor, because an event loop can poll it; no helper thread; gone with its owner. One socket a handle rings with and is
 * rung on, made at ps_open so that ringing never fails for want of descriptors, bound when the handle first sleeps; a second
 * one for a handle that waits for space; and the directory, where a name is too long for an address. Names derive from slot and
 * the bus's random id and are never read from shared memory: beside the file of a named bus, in the abstract namespace for an
 * anonymous one and for space (whose waits are short slices anyway, so that a bus has one file name per member at most). What a
 * datagram holds is ignored.
 */
#include "shm.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DOORBELL_DRAIN 16               /* datagrams a drain reads: a flood costs no more */

static int doorbell_socket(struct ps__shm *shm)
{
    int fd = ps__fd_private(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd < 0) return -errno;
    /* Each undrained ring stays charged to the ringer: room for one at every member. */
    int room = (int)shm->header.members * 2048;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return fd;
}

/*
 * "NAME@ID.SLOT", beside the file: no bus has such a name. A long NAME is left out, for an address is short. The tool looks for
 * these names: examples/psbus/sockets.c.
 */
static int doorbell_path(const struct ps__shm *shm, unsigned slot, char *path, size_t size)
{
    const char *name = strrchr(shm->path, '/') + 1;
    if (strlen(name) <= PS_NAME_MAX) return snprintf(path, size, "%s@%08x.%u", shm->path, (unsigned)shm->header.id[0], slot);
    return snprintf(path, size, "%.*s@%016llx.%u", (int)(name - shm->path), shm->path,
                    (unsigned long long)shm->header.id[0], slot);
}

static int doorbell_named(const struct ps__shm *shm, int which)
{
    return which == PS__BELL_MESSAGE && shm->path[0] && !shm->proc && !shm->header.anonymous;
}

/* One that is kept. A child that is forked meanwhile finds it, and closes it. */
static int doorbell_make(struct ps__shm *shm, int which)
{
    ps__fork_hold();
    int fd = doorbell_socket(shm), err = fd < 0 ? fd : ps__kept_set(&shm->bell[which], fd);
    ps__fork_release();
    return err;
}

/* One for a while, which ps__fd_passed closes. */
static int doorbell_passing(struct ps__shm *shm)
{
    ps__fork_hold();
    int fd = ps__fd_passing(doorbell_socket(shm));
    ps__fork_release();
    return fd;
}

/* The directory's descriptor, or -errno. */
static int doorbell_directory(struct ps__shm *shm)
{
    int err = 0;
    pthread_mutex_lock(&shm->port.sleep.fds);   /* any thread may ring, when the program has closed what was opened by ps_open */
    if (!ps__kept_valid(&shm->dirfd)) {
        ps__fork_hold();
        int fd = ps__fd_private(open(shm->dir, O_PATH | O_DIRECTORY | O_CLOEXEC));
        err = fd < 0 ? -errno : ps__kept_set(&shm->dirfd, fd);
        ps__fork_release();
    }
    pthread_mutex_unlock(&shm->port.sleep.fds);
    return err ? err : ps__kept_fd(&shm->dirfd);
}

/* The address of a slot's bell; its length, or -errno if there is no descriptor to form it with. */
static int doorbell_address(struct ps__shm *shm, unsigned slot, int which, struct sockaddr_un *address)
{
    char path[PS__SHM_PATH + 32];
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (!doorbell_named(shm, which)) {                  /* abstract: a leading NUL, no trailing one */
        int n = snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "psbus-%016llx%016llx-%u%c",
                         (unsigned long long)shm->header.id[0], (unsigned long long)shm->header.id[1], slot, "ms"[which]);
        return (int)offsetof(struct sockaddr_un, sun_path) + 1 + n;
    }
    int n = doorbell_path(shm, slot, path, sizeof path);
    const char *name = path;
    char proc[PS__SHM_PATH + 64];
    if ((size_t)n >= sizeof address->sun_path) {        /* too long for an address: by way of the directory */
        int fd = doorbell_directory(shm);
        if (fd < 0) return fd;
        n = snprintf(proc, sizeof proc, "/proc/self/fd/%d%s", fd, strrchr(path, '/'));
        name = proc;
        if ((size_t)n >= sizeof address->sun_path) return -ENAMETOOLONG;
    }
    memcpy(address->sun_path, name, (size_t)n + 1);
    return (int)offsetof(struct sockaddr_un, sun_path) + n + 1;
}

int ps__bell_open(struct ps__shm *shm)
{
    struct sockaddr_un longest;
    int err = doorbell_make(shm, PS__BELL_MESSAGE);
    int len = err ? err : doorbell_address(shm, PS_MEMBERS_MAX - 1, PS__BELL_MESSAGE, &longest);
    return len < 0 ? len : 0;
}

void ps__bell_unlink(struct ps__shm *shm, unsigned slot)
{
    char path[PS__SHM_PATH + 32];
    if (!doorbell_named(shm, PS__BELL_MESSAGE)) return;
    doorbell_path(shm, slot, path, sizeof path);
    unlink(path);
}

static int doorbell_bind(struct ps__shm *shm, int fd, int which)
{
    struct sockaddr_un address;
    int len = doorbell_address(shm, shm->port.slot, which, &address);
    if (len < 0) return len;
    if (!doorbell_named(shm, which)) return bind(fd, (struct sockaddr *)&address, (socklen_t)len) ? -errno : 0;
    ps__bell_unlink(shm, shm->port.slot);               /* what a dead owner of the slot left */
    struct stat st;
    /* The bus's own mode, from the start: whoever may publish may ring. */
    mode_t mode = ps__kept_valid(&shm->lock) && fstat(ps__kept_fd(&shm->lock), &st) == 0 ? st.st_mode & 0777 : 0600;
    (void)fchmod(fd, mode);
    if (bind(fd, (struct sockaddr *)&address, (socklen_t)len)) return -errno;
    char path[PS__SHM_PATH + 32];
    doorbell_path(shm, shm->port.slot, path, sizeof path);
    /*
     * Where umask took bits away; before the slot shows that somebody sleeps. Somebody may remove or replace the name at any
     * time: then the next sleep finds it gone and binds again. Where there is no /proc it stays as umask made it, and whoever
     * may publish and not ring leaves it to the looks that the sleeper takes without a ring.
     */
    (void)ps__shm_chmod(path, S_IFSOCK, mode);
    return 0;
}

/* A named bell whose name somebody removed or replaced rings no more: a new one under the old descriptor's number. */
static int doorbell_rebind(struct ps__shm *shm, int which)
{
    struct stat st;
    char path[PS__SHM_PATH + 32];
    if (!doorbell_named(shm, which)) return 0;
    doorbell_path(shm, shm->port.slot, path, sizeof path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) return 0;
    int fresh = doorbell_passing(shm);
    if (fresh < 0) return fresh;
    int err = doorbell_bind(shm, fresh, which);
    const int fd = ps__kept_fd(&shm->bell[which]);
    pthread_mutex_lock(&shm->port.sleep.fds);   /* a set that is being made gets the old or the new one, not neither */
    ps__fork_hold();                            /* a child knows it as ours */
    if (!err && dup3(fresh, fd, O_CLOEXEC) < 0) err = -errno;
    if (!err && fstat(fd, &st) == 0) shm->bell[which].ino = st.st_ino;
    ps__fork_release();
    const int set = err ? -1 : ps__sleep_pollset(&shm->port);
    if (set >= 0) err = ps__pollset_add(set, fd);
    pthread_mutex_unlock(&shm->port.sleep.fds);
    ps__fd_passed(fresh);
    return err;
}

/*
 * What must not keep anybody from sleeping, for what is in memory can still be read: a stranger who sits on an abstract name,
 * which is free to all, a directory that somebody removed, one that is full, or one that is no longer ours to write.
 */
static int doorbell_deaf(int err)
{
    return err == -EADDRINUSE || err == -ENOENT || err == -ENOSPC || err == -EDQUOT || err == -EACCES;
}

/* Under shm->bells: who binds removes the name that another thread has just bound. A descriptor, or -errno. */
static int doorbell_ready(struct ps__shm *shm, int which)
{
    int err = ps__kept_fd(&shm->bell[which]) < 0 ? doorbell_make(shm, which) : 0;
    if (err) return err;
    if (!ps__kept_valid(&shm->bell[which])) return -EBADF;      /* closed behind our back */
    err = shm->bound[which] ? doorbell_rebind(shm, which) : doorbell_bind(shm, ps__kept_fd(&shm->bell[which]), which);
    const uint32_t deaf = (uint32_t)doorbell_deaf(err);         /* tried again next time */
    if (which == PS__BELL_MESSAGE) ps__store_rlx(&shm->port.sleep.deaf, deaf);
    if (err && !deaf) return err;
    if (!err) shm->bound[which] = 1;
    return ps__kept_fd(&shm->bell[which]);
}

int ps__bell_bind(struct ps__port *port, int which)
{
    struct ps__shm *shm = ps__shm_of(port);
    pthread_mutex_lock(&shm->bells);
    int fd = doorbell_ready(shm, which);
    pthread_mutex_unlock(&shm->bells);
    return fd;
}

int ps__bell_drain(struct ps__port *port, int which)
{
    struct ps__shm *shm = ps__shm_of(port);
    char byte;
    int rung = 0;
    if (!ps__kept_valid(&shm->bell[which])) return 0;
    for (int i = 0; i < DOORBELL_DRAIN && recv(ps__kept_fd(&shm->bell[which]), &byte, 1, MSG_DONTWAIT) >= 0; i++) rung = 1;
    return rung;
}

/* 1: it rang, or need not any more. 0: it has to be tried again. */
static int doorbell_send(int fd, const struct sockaddr_un *address, int len)
{
    if (sendto(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)address, (socklen_t)len) >= 0) return 1;
    if (errno == ENOBUFS || errno == ENOMEM) return 0;
    if (errno != EAGAIN) return 1;      /* its owner is gone, or will bind again and look; or we may not, which stays so */
    /* The sleeper's queue is full: rung already. Or our own buffer is: then it was not. */
    int queued = 0, room = 0;
    socklen_t room_size = sizeof room;
    if (ioctl(fd, SIOCOUTQ, &queued) || getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, &room_size)) return 1;
    return queued < room / 2;
}

int ps__bell_ring(struct ps__port *port, unsigned slot, int which)
{
    struct ps__shm *shm = ps__shm_of(port);
    struct sockaddr_un address;
    struct ps__kept *own = &shm->bell[PS__BELL_MESSAGE];
    int len = doorbell_address(shm, slot, which, &address);
    if (len < 0) return 0;
    if (ps__kept_valid(own)) return doorbell_send(ps__kept_fd(own), &address, len);
    /* The program closed it, or it is being replaced: with one for the occasion. */
    int fd = doorbell_passing(shm);
    if (fd < 0) return 0;
    int rung = doorbell_send(fd, &address, len);
    ps__fd_passed(fd);
    return rung;
}

void ps__bell_close(struct ps__shm *shm)
{
    ps__kept_close(&shm->bell[0]);
    ps__kept_close(&shm->bell[1]);
    ps__kept_close(&shm->dirfd);
    shm->bound[0] = shm->bound[1] = 0;
}

#undef DOORBELL_DRAIN
