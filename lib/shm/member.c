/* SPDX-License-Identifier: MIT */
/*
 * member.c - slots: who lives where, moving in after the dead, mapping lanes.
 *
 * Whoever holds the lock of a slot's byte owns the slot, and the kernel drops the lock with the process, so nothing here goes
 * by pid or time. There is no lock that everybody needs: a process stopped while it held one would stop every other.
 */
#include "shm.h"
#include "../ring/interest.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMBER_CLEAN 4096               /* the second byte of a slot, behind the first bytes of all */

/* F_OFD_SETLK or F_OFD_GETLK of some slots' bytes: 0, or -1 with errno. type: wanted, and for the latter what is there. */
static int member_lock(const struct ps__shm *shm, int command, off_t slot, off_t count, struct flock *lock)
{
    lock->l_whence = SEEK_SET;
    lock->l_start = PS__SHM_LOCKS + slot;
    lock->l_len = count;
    return fcntl(ps__kept_fd(&shm->lock), command, lock);
}

static int member_set(const struct ps__shm *shm, off_t slot, off_t count, short type)
{
    struct flock lock = { .l_type = type };
    return member_lock(shm, F_OFD_SETLK, slot, count, &lock);
}

/* 1: the byte is ours now. */
static int member_try(struct ps__shm *shm, unsigned slot)
{
    return ps__kept_valid(&shm->lock) && member_set(shm, slot, 1, F_WRLCK) == 0;
}

void ps__slot_drop(struct ps__shm *shm, unsigned slot)
{
    if (!ps__kept_valid(&shm->lock)) return;
    (void)member_set(shm, MEMBER_CLEAN + slot, 1, F_UNLCK);     /* first, so that the next owner finds it free */
    (void)member_set(shm, slot, 1, F_UNLCK);
}

/* The slot is clean: from now on what stands in it counts. */
static int member_declare(struct ps__shm *shm)
{
    if (member_set(shm, MEMBER_CLEAN + (off_t)shm->port.slot, 1, F_WRLCK) == 0) return 0;
    return ps__fail(PS_EBUSY, "slot %u is locked by somebody who does not own it", shm->port.slot);
}

int ps__slot_last(struct ps__shm *shm)
{
    return ps__kept_valid(&shm->lock) && member_set(shm, 0, shm->header.members, F_WRLCK) == 0; /* a failure changes nothing */
}

/*
 * Does what stands in the slot belong to a living process? Its second byte tells: it is locked once the slot is clean. With the
 * first byte alone, a newcomer stopped before it has cleaned up would keep a dead reader's gate closed for as long.
 * Not to be asked of the own slot: one's own description always says "free".
 */
int ps__slot_alive(struct ps__shm *shm, unsigned slot)
{
    struct flock lock = { .l_type = F_WRLCK };
    if (!ps__kept_valid(&shm->lock)) return 1;                  /* cannot ask, so nobody is declared dead */
    if (member_lock(shm, F_OFD_GETLK, MEMBER_CLEAN + slot, 1, &lock)) return 1;
    return lock.l_type != F_UNLCK;
}

/* Does one lock cover more than a slot? Then the last member is removing the file. */
static int member_taken_down(struct ps__shm *shm)
{
    struct flock lock = { .l_type = F_WRLCK };
    if (member_lock(shm, F_OFD_GETLK, 0, shm->header.members, &lock) || lock.l_type == F_UNLCK)
        return 1;                       /* or done with it just now */
    return lock.l_len > 1;
}

/*
 * A locked slot that belongs to nobody who lives is in passage: being repaired, or taken by somebody who has yet to clean it up,
 * or the last member of a bus of one is leaving.
 */
int ps__slot_passing(struct ps__shm *shm)
{
    for (unsigned slot = 0; slot < shm->header.members; slot++)
        if (!ps__slot_alive(shm, slot)) return 1;
    return 0;
}

int ps__slot_take(struct ps__shm *shm)
{
    for (unsigned slot = 0; slot < shm->header.members; slot++) {
        if (member_set(shm, slot, 1, F_WRLCK) == 0) return (int)slot;
        if (errno == EINVAL) return ps__fail(PS_ENOTSUP, "this kernel has no open file description locks");
        if (errno != EAGAIN && errno != EACCES) return ps__fail_sys(errno, "locking a slot");
    }
    if (shm->header.members > 1 && member_taken_down(shm)) return PS_EAGAIN;
    return ps__fail(PS_EFULL, "%s has its %u members (members=, fixed by who created it)",
                    shm->path[0] ? shm->path : "the anonymous bus", shm->header.members);
}

/* ------------------------------------------------------------------ lanes */

int ps__shm_know_geometry(struct ps__shm *shm, int fix)
{
    struct ps__geometry g;
    int err = 0;
    pthread_mutex_lock(&shm->geometry_lock);
    if (!shm->geometry_known) {
        err = fix ? ps__geometry_fix(shm->port.words, &g) : ps__geometry_unpack(ps__load_acq(&shm->port.words->geometry), &g);
        if (!err && !g.fixed) err = ps__fail(PS_ECORRUPT, "a lane without a geometry");
        if (!err) {
            shm->geometry = g;
            shm->geometry_known = 1;
        }
    }
    pthread_mutex_unlock(&shm->geometry_lock);
    return err;
}

/* ------------------------------------------------------------------ mapping lanes */

static int member_map(struct ps__shm *shm, uint64_t offset, size_t size, int writable, unsigned char **out)
{
    struct stat st;
    int err = 0, fd = ps__shm_data_fd(shm);
    if (fd < 0) return PS_ESYS;
    if (fstat(fd, &st) || (uint64_t)st.st_size < offset + size) {       /* beyond the end is SIGBUS */
        err = ps__fail(PS_ECORRUPT, "a lane beyond the end of the bus's file");
    } else {
        void *memory = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, (off_t)offset);
        if (memory == MAP_FAILED) {
            err = ps__fail(PS_ENOMEM, "cannot map %zu bytes of a lane", size);
        } else {
            madvise(memory, size, MADV_DONTDUMP);
            *out = memory;
        }
    }
    ps__fd_passed(fd);
    return err;
}

static int member_word_matches(struct ps__shm *shm, ps__a64 *word)
{
    struct ps__geometry g;
    return !ps__geometry_unpack(ps__load_acq(word), &g) && g.depth_log == shm->geometry.depth_log &&
           g.units_log == shm->geometry.units_log && g.loans_log == shm->geometry.loans_log;
}

int ps__slot_map(struct ps__shm *shm, unsigned slot, int writable, struct ps__view *view)
{
    int err = ps__shm_know_geometry(shm, 0);
    if (err) return err;
    unsigned char *memory = NULL;
    if ((err = member_map(shm, ps__shm_ring_offset(shm, slot), ps__shm_ring_size(shm), writable, &memory))) return err;
    ps__view_ring(view, memory, &shm->geometry);
    return 0;
}

int ps__slot_map_loan(struct ps__shm *shm, unsigned slot, int writable, struct ps__view *view)
{
    unsigned char *memory = NULL;
    int err = member_map(shm, ps__shm_loan_offset(shm, slot), ps__loans_size(&shm->geometry), writable, &memory);
    if (err) return err;
    view->loan_bytes = ps__loans_size(&shm->geometry);
    view->loan = memory;
    return 0;
}

/* ------------------------------------------------------------------ moving in and out */

static int member_reserve(struct ps__shm *shm)
{
    struct stat st;
    uint64_t offset = ps__shm_ring_offset(shm, shm->port.slot);
    size_t size = ps__shm_ring_size(shm);
    int fd = ps__shm_data_fd(shm), err = fd < 0 ? PS_ESYS : 0;
    if (!err && (fstat(fd, &st) || (uint64_t)st.st_size < offset + size)) err = PS_ECORRUPT;
    if (!err) err = ps__shm_reserve_shared(fd, offset, size, "a publisher's ring");
    ps__fd_passed(fd);
    return err;
}

/*
 * The slot may have had an owner who died anywhere, also in here: everything is done again by the next one. The lane goes on
 * where the old owner stopped, behind its old messages and gated by the same readers.
 */
int ps__slot_move_in(struct ps__shm *shm)
{
    struct ps__port *port = &shm->port;
    struct ps__lane *lane = port->own.lane;
    uint64_t epoch = ps__load_rlx(&lane->epoch) + 1;
    if ((uint32_t)epoch == 0) epoch++;
    ps__store_rel(&lane->epoch, (uint32_t)epoch);       /* an owner that lost its lock alive sees it at its next publish */
    port->publisher = (uint32_t)epoch;
    if (ps__load_acq(&lane->ring)) {
        int err = ps__shm_know_geometry(shm, 0);
        if (!err) err = member_reserve(shm);    /* nothing, if the word is true */
        if (!err) err = ps__slot_map(shm, port->slot, 1, &port->own);
        if (err && err != PS_ECORRUPT) return err;
        if (err) {
            ps__store_rel(&lane->ring, 0);      /* a stray word: there is no lane. The first publish reserves one */
            ps__bump(&port->corrupt, 1);
        } else {
            if (ps__ring_recover(port, &port->own) || !member_word_matches(shm, &lane->ring)) ps__bump(&port->corrupt, 1);
            ps__store_rel(&lane->ring, ps__geometry_pack(&shm->geometry));
        }
    }
    ps__port_introduce(port, shm->label);
    int err = member_declare(shm);
    if (err) return err;
    ps__fence_sc();                     /* SYNC(space): the old owner no longer gates; whoever waits for it looks again */
    for (unsigned l = 0; l < port->lanes; l++) ps__wake_waiters(port, l);
    return 0;
}

int ps__slot_repair(struct ps__port *port, unsigned slot)
{
    struct ps__shm *shm = ps__shm_of(port);
    if (port->observe || slot == port->slot) return 0;
    if (!member_try(shm, slot)) return 0;             /* its owner lives, or somebody else takes it or repairs it */
    struct ps__view view = { 0 };
    int done = 0, fd = ps__shm_data_fd(shm);
    uint64_t at = ps__shm_lane_offset(port->members, slot), begin = at - at % PS__SHM_ALIGN;
    size_t size = at - begin + offsetof(struct ps__lane, evicted) + port->members * sizeof(ps__a64);
    void *page = MAP_FAILED;
    if (fd >= 0) page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)begin);
    ps__fd_passed(fd);
    if (page != MAP_FAILED) {
        view.lane = (struct ps__lane *)(void *)((unsigned char *)page + (at - begin));
        if (ps__load_acq(&view.lane->ring) && !ps__slot_map(shm, slot, 1, &view)) {
            if (ps__ring_recover(port, &view)) ps__bump(&port->corrupt, 1);
            munmap(view.cell, ps__shm_ring_size(shm));
            done = 1;
        }
        munmap(page, size);
    }
    ps__slot_drop(shm, slot);
    return done;
}

#undef MEMBER_CLEAN
