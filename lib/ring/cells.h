/* SPDX-License-Identifier: MIT */
/*
 * cells.h - the window of a reader, for the files of the receiving side. See cells.c for what it is.
 */
#ifndef PS_CELLS_H
#define PS_CELLS_H

#include "interest.h"

enum { PS__MARK_NONE, PS__MARK_DUE, PS__MARK_TAKEN };    /* ps__port.marked */

/* The message at the cursor, where the look before found nothing. 0: it is none for this short way. See cells.c. */
PS_PRIVATE int ps__cells_lone(struct ps__port *port, unsigned lane);
/*
 * The committed cells from the cursor on, `most` of them. 1: the cursor has moved, or there is something in the window; 0: what
 * stands there cannot be believed, the first of them was overwritten.
 */
PS_PRIVATE int ps__cells_fill(struct ps__port *port, unsigned lane, uint64_t most);
/*
 * What is there now is all that this dispatch reads. Taken when the first message is found: a look at tail in each empty poll
 * would cost producers its line. The lane it was found in, if any, has just been asked; where nothing stands at the cursor, there
 * is nothing, and tail is left alone as well.
 */
PS_PRIVATE void ps__cells_mark(struct ps__port *port, unsigned found);
/* So many were stepped over because nobody wants them. */
PS_PRIVATE void ps__cells_unwanted(struct ps__port *port, uint64_t count);
static inline int ps__cells_left(const struct ps__port *port) { return port->window.at < port->window.count; }
/* The cursor goes elsewhere, or nobody wants anything any more. What a handler, or a pull handle, looks at stays as it is. */
static inline void ps__cells_drop(struct ps__port *port) { port->window.at = port->window.count = port->window.looked = 0; }

/* Who waits for room is told of this lane's cursor when the dispatch ends. */
static inline void ps__cells_owe(struct ps__port *port, unsigned lane)
{
    port->moved[lane / 64] |= ps__set_bit(lane);
    port->any_moved = 1;
}

/* The cursor of the window moves, and publishers see that, also when the handler is slow. */
static inline void ps__cells_pass(struct ps__port *port, uint64_t next)
{
    port->next[port->window.lane] = next;
    /* The fence, and the look who waits for room, come only so often: who waits looks every 10 ms by itself. */
    if (PS_UNLIKELY((int64_t)(next - port->window.show) >= 0)) ps__reader_show(port, port->window.lane);
    else ps__store_rel(port->window.cursor, next);      /* SYNC(cursor) release, as in ps__reader_show */
}

/* late.c */
/* May what was copied from the payload of m be believed? Behind that copy. */
PS_PRIVATE int ps__reader_intact(struct ps__port *port, unsigned lane, const struct ps__copy *m);
/* Behind a failed check: lapped by number, or only this message is gone. 0: garbage that leads nowhere. */
PS_PRIVATE int ps__reader_step_over(struct ps__port *port, unsigned lane, uint64_t stamp, uint32_t tail_seq);
/*
 * The payload of m was overwritten, and who publishes does not wait for this handle: so near behind the oldest a flood would
 * overtake every message while it is copied. From now on those that lie in what is the oldest quarter of the payload ring, of
 * the messages that are there now, are given up without a try: ps__reader_flees.
 */
PS_PRIVATE void ps__reader_flee(struct ps__port *port, unsigned lane, const struct ps__copy *m);
static inline int ps__reader_flees(const struct ps__port *port, const struct ps__copy *m)
{
    return PS_UNLIKELY((int64_t)(m->stamp - port->flee.end) <= 0) && port->window.lane == port->flee.lane &&
           ps__diff(m->pos, port->flee.pos) < 0;
}

/* stuck.c */
PS_PRIVATE void ps__reader_unstick(struct ps__port *port, uint64_t now);

/* Has this lane evicted the handle's present join? Who only observes is lossy as well. */
static inline int ps__reader_evicted(const struct ps__port *port, unsigned lane)
{
    if (port->lossy) return 0;
    uint64_t evicted = ps__load_rlx(&port->view[lane].lane->evicted[port->slot]);
    return PS_UNLIKELY(evicted >= port->join_number) && evicted <= PS__JOIN_HOSTILE;
}

/*
 * Behind a copy and an acquire fence: limit has not passed cell c, so nobody may have overwritten it, its payload, or what
 * lies behind it. SYNC(limit) other end put_next: who overwrites has seen limit beyond it, before his release fence, and who
 * sees a byte of his sees that too (m1 -DBYLIMIT=1, m7.4; a limit read before the copy is not enough: m1.16, m7.5). limit moves
 * once in an eighth of the ring, tail with each message. 0 is no answer: then tail tells. stamp, of a cell from c on, is for who
 * slept through 2^31 messages.
 */
static inline int ps__cells_kept(const struct ps__view *view, uint64_t c, uint64_t stamp)
{
    return ps__diff(ps__seq(ps__load_rlx(&view->lane->limit)), (uint32_t)c) <= 0 &&
           ps__load_rlx(&ps__cell_of(view, stamp - 1)->stamp) == stamp;
}

#endif
