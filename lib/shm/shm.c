/* SPDX-License-Identifier: MIT */
/*
 * shm.c - shm://NAME, shm:///PATH, shm: - the processes of one host, without a daemon.
 *
 * One file; a slot a handle; a lane a publisher. This file ties the ring (lib/ring) to the file (segment.c), the slots
 * (member.c) and the bells (doorbell.c), and says what happens at a fork.
 */
#include "shm.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* ------------------------------------------------------------------ what the ring asks for */

static int shm_lane_open(struct ps__port *port, unsigned lane)
{
    struct ps__shm *shm = ps__shm_of(port);
    struct ps__view *view = &port->view[lane];
    int error = errno, cancel = ps__cancel_off(), err = 0;
    if (!view->cell) {
        if (!(err = ps__slot_map(shm, lane, 0, view))) shm->mapped[lane].ring = view->cell;
    }
    if (!err && !view->loan && ps__load_acq(&view->lane->loan)) {       /* SYNC(reserve) */
        if (!(err = ps__slot_map_loan(shm, lane, 0, view))) shm->mapped[lane].loan = view->loan;
    }
    ps__cancel_restore(cancel);
    errno = error;
    return err;
}

/* The file may have been deleted since: then nobody new would ever find what is published now. */
static int shm_unlinked(struct ps__shm *shm)
{
    struct stat st, named;
    if (!shm->path[0] || shm->proc || !ps__kept_valid(&shm->lock)) return 0;
    if (fstat(ps__kept_fd(&shm->lock), &st)) return 0;
    /* That the name cannot be looked at, after the program gave up its rights, says nothing of the file. */
    int found = lstat(shm->path, &named) == 0, hidden = !found && errno != ENOENT;
    if (st.st_nlink > 0 && (hidden || (found && named.st_ino == st.st_ino && named.st_dev == st.st_dev))) return 0;
    return ps__fail(PS_EUNLINKED, "%s was deleted or replaced", shm->path);
}

static int shm_lane_reserve(struct ps__port *port)
{
    struct ps__shm *shm = ps__shm_of(port);
    struct ps__lane *lane = port->view[port->slot].lane;
    if (port->own.cell) return 0;       /* taken over with what the last owner reserved */
    int error = errno, err = shm_unlinked(shm);
    if (!err) err = ps__shm_know_geometry(shm, 1);
    int fd = err ? -1 : ps__shm_data_fd(shm);
    if (!err && fd < 0) err = PS_ESYS;
    if (!err) err = ps__shm_reserve(fd, ps__shm_ring_offset(shm, port->slot), ps__shm_ring_size(shm), "a publisher's ring");
    ps__fd_passed(fd);
    if (!err) err = ps__slot_map(shm, port->slot, 1, &port->own);
    if (!err) {
        /* A lane that was used, and lost its word to damage. */
        if (ps__load_acq(&lane->tail) != ps__load_acq(&lane->limit) && ps__ring_recover(port, &port->own))
            ps__bump(&port->corrupt, 1);
        ps__raise(&port->words->lanes_high, port->slot + 1);    /* before its first commit */
        ps__store_rel(&lane->ring, ps__geometry_pack(&shm->geometry));  /* SYNC(reserve) release, other end reader_lane */
    }
    errno = error;
    return err;
}

static int shm_loan_reserve(struct ps__port *port)
{
    struct ps__shm *shm = ps__shm_of(port);
    struct ps__lane *lane = port->own.lane;
    if (port->own.loan) return 0;       /* by an attempt that then found no memory for the list */
    int error = errno, err = 0;
    int fd = ps__shm_data_fd(shm);
    uint64_t offset = ps__shm_loan_offset(shm, port->slot), size = ps__loans_size(&shm->geometry);
    if (fd < 0) err = PS_ESYS;
    /* Whatever the word says: reserving again what a former owner reserved is nothing. But readers still have messages there. */
    else if (ps__load_acq(&lane->loan)) err = ps__shm_reserve_shared(fd, offset, size, "a loan area");
    else err = ps__shm_reserve(fd, offset, size, "a loan area");
    ps__fd_passed(fd);
    struct ps__view loan = { 0 };
    if (!err) err = ps__slot_map_loan(shm, port->slot, 1, &loan);
    if (!err) {                         /* the two fields only: other threads are publishing with the rest */
        port->own.loan = loan.loan;
        port->own.loan_bytes = loan.loan_bytes;
        ps__store_rel(&lane->loan, ps__geometry_pack(&shm->geometry));  /* SYNC(reserve) release */
    }
    errno = error;
    return err;
}

static unsigned char *shm_big(struct ps__port *port, unsigned slot)
{
    return ps__shm_of(port)->base + ps__shm_big_offset(port->members, slot);
}

static ps__a64 *shm_big_reserve(struct ps__port *port)
{
    struct ps__shm *shm = ps__shm_of(port);
    unsigned char *big = shm_big(port, port->slot);
    int error = errno, fd = ps__shm_data_fd(shm);
    if (fd < 0) return NULL;
    int err = ps__shm_reserve(fd, (uint64_t)(big - shm->base), PS__BIG_BITS / 8, "a large interest filter");
    ps__fd_passed(fd);
    if (!err && mprotect(big, PS__BIG_BITS / 8, PROT_READ | PROT_WRITE)) err = PS_ESYS;
    ps__a64 *words = (ps__a64 *)(void *)big;
    for (size_t i = 0; !err && i < PS__BIG_BITS / 64; i++) ps__store_rlx(&words[i], 0);        /* a former owner's */
    errno = error;
    return err ? NULL : words;
}

static const ps__a64 *shm_big_of(struct ps__port *port, unsigned slot)
{
    return (const ps__a64 *)(const void *)shm_big(port, slot);
}

static int shm_alive(struct ps__port *port, unsigned slot)
{
    int error = errno, alive = ps__slot_alive(ps__shm_of(port), slot);
    errno = error;
    return alive;
}

static int shm_check(struct ps__port *port)
{
    port->checked_ms = ps__now_coarse_ms();
    if (port->unlinked_told) return 0;
    int err = shm_unlinked(ps__shm_of(port));
    if (err) port->unlinked_told = 1;
    return err;
}

static uint64_t shm_memory(struct ps__port *port, unsigned slot)
{
    struct ps__geometry g;
    ps__port_geometry(port, &g);
    unsigned high = ps__slots_high(port);
    uint64_t memory = slot < port->members ? 0 : PS__SHM_SLOTS;
    for (unsigned i = 0; i < port->members; i++) {
        if (slot < port->members && i != slot) continue;
        memory += ps__shm_slot_size(port->members);
        if (i >= high) continue;                /* never had a member: pages of it need not be touched */
        if (ps__load_acq(&port->view[i].lane->ring)) memory += ps__ring_size(&g);
        if (ps__load_acq(&port->view[i].lane->loan)) memory += ps__loans_size(&g);
        if (ps__load_acq(&port->about[i]->big)) memory += PS__BIG_BITS / 8;
    }
    return memory;
}

static const struct ps__env shm_env = {
    shm_lane_open, shm_lane_reserve, shm_loan_reserve, shm_big_reserve, shm_big_of, shm_alive,
    ps__slot_repair, ps__bell_bind, ps__bell_drain, ps__bell_ring, shm_check, shm_memory,
};

/* ------------------------------------------------------------------ the transport */

/* In a forked child, at once: what would keep the parent alive or its bell answering is closed, and never unlocked. */
static void shm_in_child(struct ps__fork_entry *entry)
{
    struct ps__shm *shm = (struct ps__shm *)(void *)((char *)entry - offsetof(struct ps__shm, fork));
    ps__kept_close(&shm->lock);
    ps__kept_close(&shm->bell[0]);
    ps__kept_close(&shm->bell[1]);
    if (!shm->opened) ps__kept_close(&shm->anchor);     /* nobody in the child will ever close the handle, or go on closing it */
}

/* From a located bus to a member of it. Nothing is held after a failure. */
static int shm_enter(struct ps__shm *shm, ps_host *host, const ps_url *url)
{
    struct ps__port *port = &shm->port;
    ps__kept_none(&shm->lock);
    ps__kept_none(&shm->bell[0]);
    ps__kept_none(&shm->bell[1]);
    ps__kept_none(&shm->dirfd);
    port->observe = url->observe;
    pthread_mutex_init(&shm->geometry_lock, NULL);
    pthread_mutex_init(&shm->bells, NULL);
    shm->fork.in_child = shm_in_child;
    ps__fork_add(&shm->fork);           /* before the lock: a child that is forked meanwhile must not keep it */
    int err = ps__shm_attach(shm, url);
    if (err) {
        ps__fork_remove(&shm->fork);
        return err;
    }
    port->lane = port->slot;
    host->seed = shm->header.seed;
    shm->loans = ps__loans_new();
    port->loans = shm->loans;
    err = shm->loans ? ps__port_open(port, host, url, &shm_env) : ps__fail(PS_ENOMEM, "no memory for a handle");
    if (err) goto fail_attached;
    int bell = port->observe ? 0 : ps__bell_open(shm);
    if (bell) err = ps__fail_sys(-bell, "no descriptor to ring with");
    if (!err && !port->observe) err = ps__slot_move_in(shm);
    if (!err) return 0;
    ps__port_close(port, 0);
fail_attached:
    ps__loans_free(shm->loans);
    ps__shm_detach(shm, 0);
    ps__fork_remove(&shm->fork);
    return err;
}

static int shm_open_bus(void *memory, ps_host *host, const ps_url *url)
{
    struct ps__shm *shm = memory;
    ps__kept_none(&shm->anchor);
    shm->mode = url->mode;
    shm->port.observe = url->observe;
    memcpy(shm->label, url->name, strlen(url->name) + 1);
    shm->url = *url;
    shm->url.text = shm->url.scheme = shm->url.address = shm->url.name = NULL;
    int err = ps__shm_locate(shm, url);
    if (!err) err = shm_enter(shm, host, url);
    if (err) ps__kept_close(&shm->anchor);
    else shm->opened = 1;
    return err;
}

static void shm_close_bus(void *memory, int forked)
{
    struct ps__shm *shm = memory;
    struct ps__port *port = &shm->port;
    shm->opened = 0;
    if (!forked && !port->observe) {
        ps__loans_return(port);
        ps__port_retire(port);
    }
    ps__port_close(port, forked);
    ps__loans_free(shm->loans);
    ps__shm_detach(shm, forked);
    ps__fork_hold();                    /* as with the lock */
    ps__kept_close(&shm->anchor);
    ps__fork_release();
    ps__fork_remove(&shm->fork);
}

/* A membership of its own for the child: everything inherited is put aside, and comes back if there is no room. */
static int shm_after_fork(void *memory, ps_host *host)
{
    struct ps__shm *shm = memory, *inherited = calloc(1, sizeof *inherited);
    uint64_t seed = host->seed;
    if (!inherited) return ps__fail(PS_ENOMEM, "no memory for a handle");
    ps__fork_remove(&shm->fork);
    memcpy(inherited, shm, sizeof *shm);
    memset(&shm->port, 0, sizeof shm->port);
    memset(shm->mapped, 0, sizeof shm->mapped);
    memset(&shm->geometry, 0, sizeof shm->geometry);
    shm->geometry_known = 0;
    shm->base = NULL;
    shm->pin = NULL;
    shm->bound[0] = shm->bound[1] = 0;
    ps_url url = inherited->url;
    url.create = 0;
    url.depth = url.bytes = url.loans = 0;      /* what the bus has */
    url.name = shm->label;
    int err = shm_enter(shm, host, &url);
    if (!err && (shm->header.id[0] != inherited->header.id[0] || shm->header.id[1] != inherited->header.id[1])) {
        shm_close_bus(shm, 0);
        err = ps__fail(PS_EUNLINKED, "%s is another bus by now", inherited->path);
    }
    if (err) {
        memcpy(shm, inherited, sizeof *shm);
        host->seed = seed;
        ps__fork_add(&shm->fork);
    } else {
        ps__kept_none(&inherited->anchor);              /* kept by the new one */
        ps__port_close(&inherited->port, 1);
        ps__loans_free(inherited->loans);
        ps__shm_detach(inherited, 1);
    }
    free(inherited);
    return err;
}

PS_PRIVATE const ps_transport ps__shm_transport = {
    .size = sizeof(ps_transport),
    .version = PS_TRANSPORT_VERSION,
    .can = PS_CAN_COUNT | PS_CAN_LOAN | PS_CAN_BORROW | PS_CAN_MEMBERS | PS_CAN_RELIABLE | PS_CAN_FORK | PS_CAN_PROCESSES |
           PS_CAN_BARRIER | PS_CAN_OBSERVE,
    .scheme = "shm",
    .state_size = sizeof(struct ps__shm),
    .open = shm_open_bus,
    .close = shm_close_bus,
    .publish = ps__port_publish,
    .wanted = ps__port_wanted,
    .subscribe = ps__port_subscribe,
    .unsubscribe = ps__port_unsubscribe,
    .begin = ps__port_begin,
    .next = ps__port_next,
    .end = ps__port_end,
    .wait = ps__port_wait,
    .fd = ps__port_fd,
    .wake = ps__port_wake,
    .loan = ps__port_loan,
    .commit = ps__port_commit,
    .cancel = ps__port_cancel,
    .stats = ps__port_stats,
    .members = ps__port_members,
    .after_fork = shm_after_fork,
};
