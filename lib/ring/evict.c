/* SPDX-License-Identifier: MIT */
/*
 * evict.c - when a reader that holds a full ring may be passed over. PROTOCOL 3.
 *
 * A dead reader at once: the kernel says so by the lock of its slot. A living one only when it has not moved for evict=MS,
 * measured in several looks of which each counts for a third at most: a publisher that slept itself evicts nobody. Nothing
 * foreign is written: the lane raises its own evicted[r] to the number of the reader's join, so a late evictor cannot hit the
 * same reader's next join (m7.3).
 */
#include "ring.h"

#define EVICT_ASK_NS 1000000u           /* the kernel is asked about a reader once per ms at most */

static void evict_raise(struct ps__port *port, unsigned r, uint64_t join)
{
    struct ps__lane *lane = port->own.lane;
    if (ps__load_rlx(&lane->evicted[r]) < join) ps__add_rlx(&port->evictions, 1);
    ps__raise(&lane->evicted[r], join);         /* the look at borrow stands behind room's next fence (m11.3) */
    ps__fence_sc();                             /* SYNC(space) other end space_arm (m6.6) */
    ps__wake_waiters(port, port->lane);
}

void ps__evict_forget(struct ps__port *port, unsigned r)
{
    ps__store_rlx(&port->dead[r], 0);
    ps__and_rlx(&port->dead_set[r / 64], ~ps__set_bit(r));
}

/* Marks the dead: its borrow counts no more, and neither does its interest, until somebody joins in its slot. */
static void evict_dead(struct ps__port *port, unsigned r, uint64_t join, uint64_t last)
{
    ps__store_rlx(&port->dead[r], ps__dead_mark(last));
    ps__or_rlx(&port->dead_set[r / 64], ps__set_bit(r));
    /* A newcomer may have moved in meanwhile, and its subscriptions been looked at before the mark was there. */
    ps__fence_sc();
    if (ps__load_rlx(&port->reader[r]->join_last) != last) ps__evict_forget(port, r);
    evict_raise(port, r, join > last || last > PS__JOIN_HOSTILE ? join : last);
}

/*
 * Whether a reader moves: in this lane, or in another one, for there it takes its turn. But it has to come round: once it has
 * gone on by as much as all rings hold and not been here, it cannot read this lane, or will not.
 */
static int evict_moves(struct ps__port *port, struct ps__clock *clock, const struct ps__reader *reader, uint64_t join)
{
    const unsigned high = ps__lanes_high(port);
    uint64_t all = 0, cursor = ps__load_rlx(&reader->cursor[port->lane]);
    for (unsigned l = 0; l < high; l++) all += ps__load_rlx(&reader->cursor[l]);
    int here = clock->last_ns == 0 || clock->join != join || clock->cursor != cursor;
    int elsewhere = clock->all != all;
    clock->join = join;
    clock->cursor = cursor;
    clock->all = all;
    if (here) clock->came = all;
    return here || (elsewhere && all - clock->came <= (uint64_t)high * port->own.cells);
}

int ps__evict_look(struct ps__port *port, unsigned r)
{
    /* One thread at a time measures; another one's failing publish is measured by it too. */
    if (r == port->slot || pthread_mutex_trylock(&port->patience)) return 0;
    struct ps__clock *clock = &port->clock[r];
    struct ps__reader *reader = port->reader[r];
    uint64_t now = ps__now_ns(), join = ps__load_acq(&reader->join);
    int freed = 0;
    if (now - clock->asked_ns >= EVICT_ASK_NS) {
        /* Read before the kernel is asked: the slot's next owner, and its join, are not meant. */
        uint64_t last = ps__load_acq(&reader->join_last);
        clock->asked_ns = now;
        if (!port->env->alive(port, r)) {
            evict_dead(port, r, join, last);
            freed = 1;
            goto out;
        }
    }
    if (evict_moves(port, clock, reader, join)) {
        clock->last_ns = now;
        clock->credit_ns = 0;
    } else if (port->evict_ms >= 0) {
        uint64_t patience = (uint64_t)port->evict_ms * 1000000u, waited = now - clock->last_ns;
        clock->credit_ns += waited < patience / 3 + 1 ? waited : patience / 3 + 1;
        clock->last_ns = now;
    }
    if (port->evict_ms >= 0 && clock->credit_ns >= (uint64_t)port->evict_ms * 1000000u && join != 0 &&
        ps__load_acq(&reader->borrow) != port->lane + 1u && ps__load_rlx(&port->own.lane->evicted[r]) < join) {
        evict_raise(port, r, join);
        clock->last_ns = 0;
        freed = 1;
    }
out:
    pthread_mutex_unlock(&port->patience);
    return freed;
}

#undef EVICT_ASK_NS
