/* SPDX-License-Identifier: MIT */
/*
 * join.c - a reader becomes a gate of every lane, shows how far it is, learns that it was evicted, leaves. PROTOCOL 3.
 *
 * On the dispatching thread, except a join, which runs on the subscribing one while `joined` is 0 and nobody else touches the
 * cursors. A handle joins with its first subscription and leaves with its last.
 */
#include "cells.h"
#include <errno.h>

uint64_t ps__lane_tail(struct ps__lane *lane)
{
    uint64_t base = ps__load_acq(&lane->base), tail = ps__load_acq(&lane->tail);        /* base first: it is never beyond tail */
    if (ps__load_rlx(&lane->base) - base >= (uint64_t)1 << 31) {        /* slept through half a turn of the low word */
        base = ps__load_acq(&lane->base);
        tail = ps__load_acq(&lane->tail);
    }
    return ps__expand(base, ps__seq(tail));
}

/* Publishes the cursor: producers may use what lies before it. */
void ps__reader_show(struct ps__port *port, unsigned lane)
{
    if (port->shown[lane] == port->next[lane]) return;
    port->shown[lane] = port->next[lane];
    if (!ps__has_slot(port)) return;
    /* SYNC(cursor) release, other end ring_room: everything read of those cells was read before. m2.5 */
    ps__store_rel(&port->reader[port->slot]->cursor[lane], port->next[lane]);
    if (port->lossy) return;
    ps__fence_sc();                             /* SYNC(space) other end space_arm. m6.4 */
    ps__wake_waiters(port, lane);
}

/* ------------------------------------------------------------------ join and leave */

/* Lanes that may hold anything. What is beyond has never been written, may not even be reserved, and begins at number 0. */
static unsigned join_high(const struct ps__port *port) { return port->shared_lane ? 1 : ps__lanes_high(port); }

PS_COLD static uint64_t join_next_number(struct ps__port *port)
{
    uint64_t number = ps__load_rlx(&port->reader[port->slot]->join_last);
    unsigned high = join_high(port);
    for (unsigned l = 0; l < high; l++) {
        uint64_t evicted = ps__load_rlx(&port->view[l].lane->evicted[port->slot]);
        if (evicted > number && evicted <= PS__JOIN_HOSTILE) number = evicted;
    }
    return number + 1;
}

/*
 * Makes this handle a gate of every lane, whether reserved or not, from cursors that stand in next[]. A publisher that does
 * not see it has raised horizon before its fence, and then we see that and begin behind it (m3.2, m3.3).
 *
 * was: its join before, 0 for none. A lane that has not evicted that one has been gated all the while, and goes on being: who
 * evicts it from now on sees the new number behind his fence (m16). There nothing is lost.
 */
PS_COLD static void join_gates(struct ps__port *port, uint64_t was)
{
    struct ps__reader *reader = ps__has_slot(port) ? port->reader[port->slot] : NULL;
    if (reader) {
        /* SYNC(cursor) release, other end ring_room: of a lane that is gated already. */
        for (unsigned l = 0; l < port->lanes; l++) ps__store_rel(&reader->cursor[l], port->next[l]);
        /* A number also for who is no gate: publishers that took the slot for dead see that somebody new lives there. */
        port->join_number = join_next_number(port);
        ps__store_rlx(&reader->join_last, port->join_number);
        if (!port->lossy) {
            ps__store_rel(&reader->join, port->join_number);    /* SYNC(join) release, other end ring_gates */
        }
    }
    ps__fence_sc();                             /* SYNC(join) other end ring_room */
    /* Looked at behind the fence (m3.13): it is raised before a lane's first claim (m3.14), so before room's fence, and a horizon
     * that we have to see is that of a lane we come to. */
    unsigned high = join_high(port);
    for (unsigned l = 0; l < high; l++) {
        if (was && ps__load_rlx(&port->view[l].lane->evicted[port->slot]) < was) continue;      /* behind the fence: m16.2 */
        int32_t behind = ps__diff((uint32_t)ps__load_rlx(&port->view[l].lane->horizon), (uint32_t)port->next[l]);
        if (behind > 0 && !port->lossy) {
            port->next[l] += (uint32_t)behind;
            if (reader) ps__store_rel(&reader->cursor[l], port->next[l]);
        }
    }
    for (unsigned l = 0; l < port->lanes; l++) port->shown[l] = port->next[l];
}

PS_COLD void ps__reader_leave(struct ps__port *port)
{
    if (!ps__load_rlx(&port->joined)) return;
    ps__cells_drop(port);                       /* what is in the window is for nobody any more */
    ps__store_rlx(&port->held, 0);
    if (ps__has_slot(port)) {
        struct ps__about *about = port->about[port->slot];
        ps__and_rlx(&about->flags, ~(uint64_t)PS__ABOUT_READS);     /* a thread that reserves the lane sets another */
        ps__store_rel(&port->reader[port->slot]->join, 0);      /* a borrow goes on gating by its own word */
        ps__fence_sc();                         /* SYNC(space) other end space_arm. m6.6 */
        for (unsigned l = 0; l < port->lanes; l++) ps__wake_waiters(port, l);
    }
    ps__store_rel(&port->joined, 0);            /* SYNC(joined) release: whoever joins next may touch the cursors */
}

int ps__reader_leave_now(struct ps__port *port)
{
    if (port->borrowing) return 0;
    uint32_t pending = PS__LEAVE_DUE;
    int error = errno, cancel = ps__cancel_off();
    for (unsigned step = 0; ps__load_acq(&port->leave_pending) == PS__LEAVE_TRIED;) ps__wait_step(&step);   /* m15.4 */
    ps__cancel_restore(cancel);
    errno = error;
    if (!ps__cas_ar(&port->leave_pending, &pending, 0)) return 0;
    ps__reader_leave(port);
    return 1;
}

PS_COLD int ps__port_subscribe(void *state, const ps_filter *filter, uint32_t flags, int first)
{
    struct ps__port *port = state;
    if (flags & PS_BORROW && (port->lossy || port->observe))
        return ps__fail(PS_EINVAL, "PS_BORROW on a lossy handle: nobody waits for it, so nothing stays in place");
    int err = ps__has_slot(port) ? ps__interest_prepare(port) : 0;
    if (err) return err;
    /* Not left yet: whoever takes the mark back first decides, this call that stays, or the dispatching thread that leaves. If
     * it was that one, it is a few instructions from being out. */
    int stays = first && ps__load_acq(&port->joined) && ps__swap_ar(&port->leave_pending, 0);
    if (first && !stays) {
        for (unsigned step = 0; ps__load_acq(&port->joined);) ps__wait_step(&step);
        unsigned high = join_high(port);
        for (unsigned l = 0; l < port->lanes; l++) {
            port->next[l] = l < high ? ps__lane_tail(port->view[l].lane) : 0;
            port->pending_lost[l] = 0;
        }
        join_gates(port, 0);
        port->window.lane = PS_MEMBERS_MAX;     /* nothing is known of any lane; the window is empty since it left */
        port->mute = port->shared_lane && !port->echo ? port->publisher : UINT64_MAX;
        if (ps__has_slot(port)) {
            struct ps__about *about = port->about[port->slot];
            ps__or_rlx(&about->flags, PS__ABOUT_READS);
            ps__store_rlx(&about->idle_at_ms, ps__now_coarse_ms());
        }
        ps__store_rel(&port->joined, 1);                /* SYNC(joined) release, other end reader_next */
    }
    /* Only now: a publisher that counts this handle really serves it (m3.9). */
    if (ps__has_slot(port)) {
        /* SYNC(sift) release on both sides of it, other ends cells_may_sift and ps__cells_fill. m14.6, m14.8 */
        ps__store_rlx(&port->interests, ps__load_rlx(&port->interests) + 1);
        ps__fence_rel();
        ps__interest_add(port, filter);
        ps__store_rel(&port->interests, ps__load_rlx(&port->interests) + 1);
    }
    ps__fence_sc();                             /* a program that reads its own state right after is ordered behind it (m4.9) */
    return 0;
}

PS_COLD void ps__port_unsubscribe(void *state, const ps_filter *filter, uint32_t flags, int last, int idle)
{
    struct ps__port *port = state;
    (void)flags;
    if (ps__has_slot(port)) ps__interest_remove(port, filter);
    if (!last) return;
    if (idle && !port->borrowing) {     /* a pull handle may still look into the ring: then its next call leaves */
        ps__reader_leave(port);
        return;
    }
    ps__store_rlx(&port->leave_pending, PS__LEAVE_TRIED);
    /* SYNC(leave) other ends ps__port_begin, ps__port_end: reading, light fence, the mark. m15.3 */
    ps__fence_heavy();
    if (!ps__load_acq(&port->reading) && !port->borrowing) {    /* that dispatch is over by now, and the next one waits for us */
        ps__reader_leave(port);
        ps__store_rel(&port->leave_pending, 0);
    } else {
        ps__store_rel(&port->leave_pending, PS__LEAVE_DUE);     /* the dispatching thread leaves; wake it if it sleeps */
        ps__port_wake(port);
    }
}

/* ------------------------------------------------------------------ what is lost; eviction, as the reader learns it */

void ps__reader_count_lost(struct ps__port *port, unsigned lane, uint64_t count)
{
    port->pending_lost[lane] += count;
    ps__bump(&port->lost, count);
    if (ps__has_slot(port)) ps__store_rlx(&port->about[port->slot]->lost, ps__load_rlx(&port->lost));
}

void ps__reader_skip_lost(struct ps__port *port, unsigned lane, uint64_t count)
{
    if (!count) return;
    if (lane == port->window.lane) ps__cells_drop(port);
    port->next[lane] += count;
    ps__cells_owe(port, lane);
    ps__reader_count_lost(port, lane, count);
}

/* Adds up what is gone, and gates again, under a new number. */
PS_COLD static void join_again(struct ps__port *port, unsigned high)
{
    unsigned l;
    ps__bump(&port->evicted, 1);
    ps__store_rlx(&port->about[port->slot]->evicted, ps__load_rlx(&port->evicted));
    uint64_t before[PS_MEMBERS_MAX];
    memcpy(before, port->next, sizeof before);          /* of lanes beyond high */
    for (l = 0; l < high; l++) {
        if (!port->view[l].cell && ps__load_acq(&port->view[l].lane->ring)) (void)port->env->lane_open(port, l);
        uint64_t tail = ps__lane_tail(port->view[l].lane);
        uint32_t cells = port->view[l].cells;
        if (cells && (int64_t)(tail - port->next[l]) > (int64_t)cells)
            ps__reader_skip_lost(port, l, tail - cells - port->next[l]);
        before[l] = port->next[l];
    }
    join_gates(port, port->join_number);
    /* Who evicted us may have taken us for dead, and left us out since: it looks again, and its digests count from then on. */
    ps__add_rel(ps__interest_word(port->words, 1, 0), 1);
    for (l = 0; l < port->lanes; l++) port->sift[l].interests = 1;      /* odd, so of no time */
    for (l = 0; l < port->lanes; l++) {
        uint64_t skipped = port->next[l] - before[l];   /* what join had to begin behind */
        port->next[l] = before[l];
        ps__reader_skip_lost(port, l, skipped);
        port->shown[l] = port->next[l];
    }
}

/* By some lane? Never inside a borrow. */
void ps__reader_rejoin_if_evicted(struct ps__port *port)
{
    if (port->lossy || !ps__has_slot(port)) return;
    unsigned high = ps__lanes_high(port), l;
    for (l = 0; l < high && !ps__reader_evicted(port, l); l++) { }
    if (l < high) join_again(port, high);
}
