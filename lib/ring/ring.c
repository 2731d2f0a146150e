/* SPDX-License-Identifier: MIT */
/*
 * ring.c - one lane: make room; repair what a dead owner left. PROTOCOL 1, 3, 7. What each publish does is in put.h.
 *
 * `limit` is how far cells and payload may be written again: behind every gating reader's cursor and behind the oldest
 * unfinished claim. Nothing here waits, allocates or calls the system, but for ps__evict_look when the ring is full.
 */
#include "put.h"

#ifdef PS_TEST_HOOKS
PS_PRIVATE uint64_t ps__test_start_sequence;
PS_PRIVATE uint32_t ps__test_start_position;
#endif

/* Here and not in claim.c, for gcc's undefined-behaviour sanitizer takes its address in ps__ring_walk for NULL otherwise: the
 * linker puts an instruction that sets no flags in place of the one whose flags the check looks at. */
PS_PRIVATE PS__TLS struct ps__claim_run ps__claim_run;

void ps__lane_init(struct ps__lane *lane)
{
#ifdef PS_TEST_HOOKS
    uint64_t word = ps__pack((uint32_t)ps__test_start_sequence, ps__test_start_position);
    ps__store_rlx(&lane->tail, word);
    ps__store_rlx(&lane->limit, word);
    ps__store_rlx(&lane->horizon, ps__test_start_sequence);
    ps__store_rlx(&lane->base, ps__test_start_sequence);
    ps__store_rlx(&lane->loan_floor, ps__test_start_sequence);
#else
    (void)lane;                         /* zero is where numbers begin */
#endif
}

/* The end of a committed cell's payload. */
static uint32_t ring_cell_end(struct ps__cell *cell)
{
    uint32_t meta = ps__load_rlx(&cell->meta);
    return ps__load_rlx(&cell->pos) + ps__message_units(ps__kind(meta), ps__load_rlx(&cell->size), ps__topic_len(meta));
}

/* ------------------------------------------------------------------ room */

/* What a caller of room needs: units in the ring, or that limit has passed a cell (whose loan it wants back). */
struct ring_need {
    uint32_t units, passed;
    int loan;
};

static int ring_enough(const struct ps__view *view, uint64_t tail, uint64_t limit, const struct ring_need *need)
{
    return need->loan ? ps__diff(ps__seq(limit), need->passed) >= 0 : ps__ring_fits(view, tail, limit, need->units);
}

struct ring_scan {
    uint64_t evicted[PS_MEMBERS_MAX];
    unsigned known;                     /* evicted[] holds that many */
};

/* Does reader r hold this lane back? PROTOCOL 3, gates. */
static int ring_gates(struct ps__port *port, const struct ring_scan *scan, unsigned r)
{
    struct ps__reader *reader = port->reader[r];
    if (r == port->slot && !port->echo && !port->shared_lane) return 0;         /* it never reads its own lane */
    /* SYNC(join) acquire, other end join_gates: with join come the cursors of that join. (For readability, m3.7.) */
    uint64_t join = ps__load_acq(&reader->join);
    /* SYNC(borrow) behind room's fence, and evicted before it (m11.3); other end reader_borrow. */
    uint64_t borrow = ps__load_acq(&reader->borrow);
    uint64_t evicted = r < scan->known ? scan->evicted[r] : 0;
    if ((join <= evicted || join > PS__JOIN_HOSTILE) && borrow != port->lane + 1u) return 0;
    uint64_t dead = ps__load_rlx(&port->dead[r]);
    return dead == 0 || ps__dead_mark(ps__load_rlx(&reader->join_last)) != dead;
}

/* Every reader that is in the way of a publish is looked at. 1: one of them no longer is. */
PS_COLD static int ring_blame(struct ps__port *port, const struct ring_scan *scan, unsigned high, uint64_t tail, uint64_t limit,
                      const struct ring_need *need, uint32_t committed)
{
    const struct ps__view *view = &port->own;
    int freed = 0;
    for (unsigned r = 0; r < high; r++) {
        if (!ring_gates(port, scan, r)) continue;
        uint32_t cursor = (uint32_t)ps__load_acq(&port->reader[r]->cursor[port->lane]);
        int32_t ahead = ps__diff(cursor, ps__seq(limit));
        if (ahead > (int32_t)view->cells) continue;
        if (ps__diff(cursor, committed) >= 0) continue;         /* it stands before an unfinished claim: not its fault */
        uint64_t holds = limit;
        if (ahead > 0) holds = ps__pack(cursor, ps__load_rlx(&ps__cell_of(view, cursor)->pos));
        if (!ring_enough(view, tail, holds, need)) freed |= ps__evict_look(port, r);
    }
    return freed;
}

/*
 * Steps over `most` committed cells from limit on, and answers where the first is that it has not seen to be committed. A cell
 * that was seen stays committed until limit passes it, so the thread goes on where it was, with numbers of 64 bits.
 */
uint64_t ps__ring_walk(struct ps__port *port, uint64_t tail, uint64_t limit, unsigned most)
{
    const struct ps__view *view = &port->own;
    struct ps__claim_run *run = &ps__claim_run;
    uint64_t base = ps__load_rlx(&view->lane->base), p = limit;
    uint64_t number = ps__nearest(base, ps__seq(limit));
    if (run->walked_by == port->memo.odd[0] && (int64_t)(run->walked - number) >= 0 &&
        ps__diff((uint32_t)run->walked, ps__seq(tail)) <= 0) {
        number = run->walked;
        p = ps__pack((uint32_t)number, run->walked_pos);
    }
    for (; most && ps__diff(ps__seq(p), ps__seq(tail)) < 0; most--) {
        struct ps__cell *cell = ps__cell_of(view, ps__seq(p));
        /* SYNC(commit) acquire, other end ps__put: the cell's sizes are those of that message. m1.13. The low half
         * tells: a claim cannot be 2^32 messages old. */
        if ((uint32_t)ps__load_acq(&cell->stamp) != ps__seq(p) + 1) break;
        p = ps__pack(ps__seq(p) + 1, ring_cell_end(cell));
        number++;
    }
    run->walked_by = port->memo.odd[0];
    run->walked = number;
    run->walked_pos = ps__pos(p);
    return p;
}

/* done: as for ps__ring_make_room. */
static int ring_room(struct ps__port *port, uint64_t tail, const struct ring_need *need, int full, int done)
{
    const struct ps__view *view = &port->own;
    struct ps__lane *lane = view->lane;
    struct ring_scan scan;
again:
    scan.known = ps__slots_high(port);
    for (unsigned r = 0; r < scan.known; r++)
        scan.evicted[r] = ps__load_rlx(&lane->evicted[r]);      /* before the fence: m11.3; an old value is too careful */

    /* SYNC(limit) acquire, other end the swap below by another producer: what it saw read is read for us too. m1.11, m2.1 */
    uint64_t limit = ps__load_acq(&lane->limit), p = done ? tail : ps__ring_walk(port, tail, limit, UINT32_MAX);
    uint32_t committed = ps__seq(p);
    /* SYNC(join) a joiner that is not seen below will see horizon, and begins behind it. A compare-and-swap, never a plain
     * store (m3.4); before the fence (m3.6); the fence always (m3.1, m3.5). Other end: join_gates. */
    uint64_t horizon = ps__load_rlx(&lane->horizon);
    while (ps__diff((uint32_t)horizon, ps__seq(p)) < 0 && !ps__cas_rlx(&lane->horizon, &horizon, ps__seq(p))) { }
    ps__fence_sc();

    unsigned high = ps__slots_high(port);
    for (unsigned r = 0; r < high; r++) {
        if (!ring_gates(port, &scan, r)) continue;
        /* SYNC(cursor) acquire, other end ps__reader_show: before it publishes a cursor the reader has done with the cells. */
        uint32_t cursor = (uint32_t)ps__load_acq(&port->reader[r]->cursor[port->lane]);
        int32_t ahead = ps__diff(cursor, ps__seq(limit));
        if (ahead > (int32_t)view->cells) {
            /* No reader can stand there: garbage. But if limit has moved since it was looked at, so may the reader have. */
            if (ps__load_rlx(&lane->limit) == limit) ps__add_rlx(&port->corrupt, 1);
            continue;
        }
        if (ps__diff(ps__seq(tail), cursor) > (int32_t)(view->cells / 2) || ps__pos(tail) - ps__pos(limit) > view->units / 2)
            ps__wake_reader(port, r);           /* it may sleep on other topics, yet its cursor gates (PROTOCOL 6) */
        if (ahead <= 0) {
            /* Also a stale cursor behind limit, of a joiner preempted before its stores: its cell's position is not ours
             * to read, and limit must not fall (m3.12). */
            p = limit;
        } else if (ps__diff(cursor, ps__seq(p)) < 0) {
            p = ps__pack(cursor, ps__load_rlx(&ps__cell_of(view, cursor)->pos));
        }
    }
    if (ps__diff(ps__seq(p), ps__seq(limit)) > 0) {
        /* SYNC(limit) release, other end every load of limit; a failing swap acquires too, since p is dropped for what
         * another producer saw. m1.12, m1.15, m2.4 */
        uint64_t seen = limit;
        if (ps__cas_ar(&lane->limit, &seen, p)) {
            uint64_t base = ps__load_rlx(&lane->base);
            int32_t step = ps__diff(ps__seq(p), (uint32_t)base);
            if (step > 0) ps__raise(&lane->base, base + (uint32_t)step);
        } else {
            p = seen;
        }
    } else {
        p = limit;
    }
    uint32_t used = ps__seq(tail) - ps__seq(p), eighth = view->cells / 8 + 1;
    ps__store_rlx(&port->mark_seq, used >= view->cells / 2 ? ps__seq(tail) + eighth : ps__seq(p) + view->cells / 2);
    uint32_t bytes_used = ps__pos(tail) - ps__pos(p);
    ps__store_rlx(&port->mark_pos, bytes_used >= view->units / 2 ? ps__pos(tail) + view->units / 8
                                                                 : ps__pos(p) + view->units / 2);

    if (ring_enough(view, tail, p, need)) return 1;
    if (full && ring_blame(port, &scan, high, tail, p, need, committed)) goto again;
    return 0;
}

int ps__ring_room(struct ps__port *port, uint64_t tail, uint32_t units, int full)
{
    struct ring_need need = { units, 0, 0 };
    return ring_room(port, tail, &need, full, 0);
}

/*
 * A claim has passed a mark, or found the ring full. 0: look again. done: all before tail is committed, the caller knows. A look
 * at each of those cells would cost as much as filling it.
 */
int ps__ring_make_room(struct ps__port *port, uint64_t tail, uint32_t units, int full, int done)
{
    struct ps__lane *lane = port->own.lane;
    const struct ps__view *view = &port->own;
    struct ring_need need = { units, 0, 0 };
    if (ring_room(port, tail, &need, full, done) || !full || ps__load_rlx(&lane->tail) != tail) return 0;
    uint64_t limit = ps__load_acq(&lane->limit);
    if (ps__load_acq(&lane->tail) != tail ||            /* fellows went on meanwhile */
        (ps__seq(tail) - ps__seq(limit) <= view->cells && ps__pos(tail) - ps__pos(limit) <= view->units))
        return PS_EAGAIN;
    return ps__fail(PS_ECORRUPT, "the words of this handle's lane contradict each other");
}

uint32_t ps__ring_extent(const struct ps__view *view, uint64_t tail, uint32_t units)
{
    return ps__ring_pad(ps__pos(tail), units, view->units) + units;
}

int ps__ring_pass(struct ps__port *port, uint32_t seq)
{
    struct ring_need need = { 0, seq + 1, 1 };
    return ring_room(port, ps__load_rlx(&port->own.lane->tail), &need, 1, 0);
}

/* ------------------------------------------------------------------ recovery */

/* Are the words of a lane, and its committed cells, such as a producer could have left them? */
PS_COLD static int ring_sane(const struct ps__view *view, uint64_t limit, uint64_t tail, uint64_t first)
{
    uint32_t count = ps__seq(tail) - ps__seq(limit), pos = ps__pos(limit);
    if (count > view->cells || ps__pos(tail) - ps__pos(limit) > view->units) return 0;
    for (uint32_t i = 0; i < count; i++) {
        struct ps__cell *cell = ps__cell_of(view, ps__seq(limit) + i);
        if (ps__load_acq(&cell->stamp) != first + i + 1) continue;
        uint32_t start = ps__load_rlx(&cell->pos), end = ring_cell_end(cell);
        if (end - start > view->units || ps__diff(start, pos) < 0 || ps__diff(ps__pos(tail), end) < 0) return 0;
        pos = end;
    }
    return 1;
}

PS_COLD static void ring_hole(const struct ps__view *view, uint64_t number, uint32_t pos, uint32_t extent)
{
    struct ps__cell *cell = ps__cell_of(view, number);
    ps__fence_rel();                    /* limit before the cell, as a publish does */
    ps__store_rlx(&view->digest[number & (view->cells - 1)], 0);        /* in a damaged lane numbers may come again */
    ps__store_rlx(&cell->hash, 0);
    ps__store_rlx(&cell->pos, pos);
    ps__store_rlx(&cell->size, extent);
    ps__store_rlx(&cell->meta, PS__KIND_HOLE);
    ps__store_rel(&cell->stamp, number + 1);            /* SYNC(commit) release, as a publish does; m8.2 */
}

/*
 * Only when every thread of the old owner is gone: the kernel has dropped its lock, which happens before our taking it. With
 * one still running a committed message could become a hole (m8.5). Idempotent: the recoverer may die and be followed.
 */
PS_COLD int ps__ring_recover(struct ps__port *port, const struct ps__view *view)
{
    struct ps__lane *lane = view->lane;
    uint64_t tail = ps__load_acq(&lane->tail), limit = ps__load_acq(&lane->limit), base = ps__load_rlx(&lane->base);
    int32_t behind = ps__diff(ps__seq(limit), (uint32_t)base);
    uint64_t first = ps__nearest(base, ps__seq(limit));
    int damaged = behind < 0 || !ring_sane(view, limit, tail, first);
    if (damaged) {
        for (unsigned r = 0; r < port->members; r++)    /* nobody's cursor means anything here any more */
            ps__raise(&lane->evicted[r], ps__load_rlx(&port->reader[r]->join_last));
        uint32_t t = ps__seq(tail);
        if (behind < 0) first = base;
        uint64_t end = ps__expand(first, t);
        for (uint32_t i = 0; i < view->cells; i++) {
            uint64_t number = end - view->cells + i;
            ring_hole(view, number, ps__pos(tail), 0);
        }
        ps__store_rel(&lane->limit, tail);
        ps__raise(&lane->base, end);
        if (ps__diff((uint32_t)ps__load_rlx(&lane->horizon), t) != 0) ps__store_rel(&lane->horizon, t);
    } else {
        if (behind > 0) ps__raise(&lane->base, first);  /* the owner died between limit and base */
        uint32_t count = ps__seq(tail) - ps__seq(limit), pos = ps__pos(limit), end = ps__pos(tail), k = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct ps__cell *cell = ps__cell_of(view, ps__seq(limit) + i);
            if (ps__load_acq(&cell->stamp) != first + i + 1) {
                /* Its extent: up to the next committed cell, which neighbouring holes share, or to tail. */
                for (k = k > i ? k : i + 1; k < count; k++) {
                    struct ps__cell *later = ps__cell_of(view, ps__seq(limit) + k);
                    end = ps__load_rlx(&later->pos);
                    if (ps__load_acq(&later->stamp) == first + k + 1) break;
                }
                if (k == count) end = ps__pos(tail);
                ring_hole(view, first + i, pos, end - pos);
            }
            pos = ring_cell_end(cell);
        }
    }
    ps__fence_sc();                     /* SYNC(sleep): who armed before it is rung, who arms later sees the holes */
    for (unsigned r = 0; r < port->members; r++) ps__wake_reader(port, r);
    return damaged;
}
