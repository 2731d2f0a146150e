/* SPDX-License-Identifier: MIT */
/*
 * cells.c - the window: private copies of a lane's next cells, as many as are there, believed at once. PROTOCOL 2.
 *
 * tail's line is the producers', and a look at it costs both sides a transfer. So it is asked only by who has read all that it
 * knew of, and by who comes so late that limit has passed the cells. The lines of cells that are not claimed yet are the
 * producers', too: only what is known to be claimed is looked at. What nobody here wants is not copied: its second line stays
 * where it is, and the cursor passes over a run of such cells at once.
 *
 *   copy[copy_at .. copy_count)   cells of copy_lane that are wanted; next[copy_lane] is the number of the first of them
 *   copy[copy_count].stamp        where the next one would be: all numbers before it were looked at
 *
 * A window outlives its dispatch, for nothing in it can be overwritten any more. It goes when the cursor goes elsewhere: with an
 * eviction too, which counts what was left in it as lost.
 */
#include "cells.h"

#define CELLS_MOST 256u                 /* looked at at once: some hundred nanoseconds in which the cursor stands */
#define CELLS_AHEAD 12u                 /* so far ahead cells are fetched */
#define CELLS_AHEAD_UNWANTED 24u        /* and the first lines of what may be unwanted: the hardware fetches pairs */

#define CELLS_REST offsetof(struct ps__copy, publisher)         /* behind stamp and hash; in vectors that no line divides */

void ps__cells_unwanted(struct ps__port *port, uint64_t count)
{
    ps__bump(&port->unwanted, count);
    port->stepped += count;
    if (ps__has_slot(port)) ps__store_rlx(&port->about[port->slot]->unwanted, ps__load_rlx(&port->unwanted));
}

/* From another lane than before. */
static PS_NOINLINE void cells_turn(struct ps__port *port, unsigned lane)
{
    port->copy_lane = lane;
    port->copy_tail = port->next[lane];
    port->copy_every = port->view[lane].cells / 8 < PS__BATCH ? port->view[lane].cells / 8 : PS__BATCH;
    port->copy_cursor = ps__has_slot(port) ? &port->reader[port->slot]->cursor[lane] : &port->no_cursor;
}

/* Copies are believed: those from copy_at to count, of the cells from the cursor up to c. */
static PS_NOINLINE void cells_believe(struct ps__port *port, uint64_t c, unsigned count)
{
    const unsigned lane = port->copy_lane;
    const uint64_t first = port->next[lane];
    port->copy[count].stamp = c + 1;
    port->copy_count = count;
    port->lag_got += count;
    port->turn_left -= count && count < port->turn_left ? count : port->turn_left;
    port->copy_show = port->shown[lane] + port->copy_every;
    port->moved[lane / 64] |= ps__set_bit(lane);
    port->any_moved = 1;
    const uint64_t next = port->copy[port->copy_at].stamp - 1;
    if (next != first) {
        ps__cells_pass(port, next);
        ps__cells_unwanted(port, next - first);
    }
}

/*
 * The first message after nothing was there, alone and wholly in its cell: what it says of itself is enough, and the line of
 * tail stays where it is. 0: it is none of that, or was overwritten.
 */
int ps__cells_lone(struct ps__port *port, unsigned lane)
{
    const struct ps__view *view = &port->view[lane];
    const uint64_t first = port->next[lane], mask = view->cells - 1;
    struct ps__cell *cell = &view->cell[first & mask], *behind = &view->cell[(first + 1) & mask];
    struct ps__copy *copy = port->copy;
    __builtin_prefetch((const char *)cell + PS__LINE / 2);
    if (ps__load_rlx(&behind->stamp) == first + 2 || (ps__load_rlx(&cell->meta) & 0xff) != PS__KIND_INLINE) return 0;
    if (ps__load_rlx(&cell->publisher) == port->mute) return 0;
    if (port->copy_lane != lane) cells_turn(port, lane);
    ps__cells_drop(port);
    ps__copy_out(copy, cell, sizeof *cell);
    copy->stamp = first + 1;
    /* SYNC(claim) acquire fence, other end ps__put, as in ps__cells_fill. */
    ps__fence_acq();
    if (!ps__cells_kept(view, first, first + 1)) return 0;
    if (port->shared_lane) ps__store_rlx(&port->guess, (uint32_t)first + 1);    /* an answer would come behind it */
    port->copy_tail = first + 1;
    port->at_head = 1;
    cells_believe(port, first + 1, 1);
    return 1;
}

/*
 * Producers of a lane that does not wait for us have lapped the first of the cells up to c while they were looked at. The younger
 * ones are as good as ever: whoever reads where a flood overwrites would seldom get a whole window. How many copies are gone.
 */
static PS_NOINLINE unsigned cells_lapped(struct ps__port *port, uint64_t oldest, unsigned count)
{
    unsigned gone = 0;
    while (gone != count && (int64_t)(port->copy[gone].stamp - oldest) <= 0) gone++;
    ps__reader_lose(port, port->copy_lane, oldest - port->next[port->copy_lane]);       /* exact: numbers have no gaps */
    return gone;
}

/* The cell to fetch early, for the hardware by itself comes too late. Lines that are not claimed yet stay with their producer. */
static inline const char *cells_next(const struct ps__cell *cells, uint64_t c, uint64_t ahead, uint64_t end, uint64_t mask)
{
    return (const char *)&cells[(c + ahead < end ? c + ahead : c - 1) & mask];
}

int ps__cells_fill(struct ps__port *port, unsigned lane, uint64_t most)
{
    if (port->copy_lane != lane) cells_turn(port, lane);
    const uint64_t first = port->next[lane], mask = port->view[lane].cells - 1, mute = port->mute;
    struct ps__cell *const cells = port->view[lane].cell;
    ps__a64 *const tail = &port->view[lane].lane->tail;
    const int member = ps__has_slot(port);      /* who only observes shows no interest */
    const ps__a64 *const bits = member ? port->bits[port->slot] : NULL;
    const ps__a64 *const wild = member ? &port->about[port->slot]->wild : NULL;
    uint64_t c = first, known = port->copy_tail;
    if (most > CELLS_MOST) most = CELLS_MOST;
    /* Relaxed, and not to be believed: how far to look. A mark that is due shall cover all that is there now. */
    if ((int64_t)(known - first) <= 0 || port->marked == PS__MARK_DUE) {
        int32_t ahead = ps__diff(ps__seq(ps__load_rlx(tail)), (uint32_t)first);
        known = first + (uint32_t)(ahead > 0 ? ahead : 0);
    }
    const uint64_t limit = first + most, end = (int64_t)(known - limit) < 0 ? known : limit;
    struct ps__copy *copy = port->copy;
    unsigned room = PS__COPIES;
    while (c != end && room) {
        struct ps__cell *cell = &cells[c & mask];
        /* SYNC(commit) acquire, other end ps__put. m1.5 */
        if (ps__load_acq(&cell->stamp) != c + 1) break;
        c++;
        /* Decided here for good, because a subscription that comes before it would be taken is no business of what was published
         * before. */
        uint64_t hash = ps__load_rlx(&cell->hash);
        if (bits && ps__interest_lacks(bits, wild, hash)) {
            __builtin_prefetch(cells_next(cells, c, CELLS_AHEAD_UNWANTED, end, mask), 0, 0);
            continue;
        }
        if (PS_UNLIKELY(ps__load_rlx(&cell->publisher) == mute)) continue;
        const char *next = cells_next(cells, c, CELLS_AHEAD, end, mask);
        __builtin_prefetch(next);
        __builtin_prefetch(next + PS__LINE / 2);
        copy->stamp = c;                        /* not what stands there by now: the cursor follows it */
        copy->hash = hash;
        ps__copy_out((char *)copy + CELLS_REST, (char *)cell + CELLS_REST, sizeof *copy - CELLS_REST);
        copy++;
        room--;
    }
    /* SYNC(claim) acquire fence, other end ps__put: if anything above was of a later message, its claim is seen in tail now,
     * and that limit has passed it. An acquire load of tail in its place is not enough: m1.3, m7.2. */
    ps__fence_acq();
    if (PS_LIKELY(c != first && ps__cells_kept(&port->view[lane], first, c))) {
        port->copy_tail = known;
        ps__cells_drop(port);
        port->at_head = c != limit && room;
        cells_believe(port, c, PS__COPIES - room);
        return 1;
    }
    const uint32_t claimed = ps__seq(ps__load_rlx(tail)) - (uint32_t)first;
    port->copy_tail = first + claimed;
    ps__cells_drop(port);
    uint64_t oldest = first;
    if (PS_UNLIKELY(claimed > mask + 1)) oldest += claimed - (mask + 1);
    if (PS_UNLIKELY(c - first > claimed)) {     /* stamps of what nobody has claimed are garbage, and nothing to step over */
        for (c = first + claimed; copy != port->copy && (int64_t)(copy[-1].stamp - c) > 0; room++) copy--;
    }
    /* The second look is for a sleep of 2^32 messages in between: then the last cell has another stamp too. */
    if ((int64_t)(c - oldest) <= 0 || ps__load_rlx(&cells[(c - 1) & mask].stamp) != c) return 0;
    if (PS_UNLIKELY(oldest != first)) port->copy_at = cells_lapped(port, oldest, PS__COPIES - room);
    port->at_head = c != limit && room;
    cells_believe(port, c, PS__COPIES - room);
    return 1;
}

void ps__cells_mark(struct ps__port *port, unsigned found)
{
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        const struct ps__view *view = &port->view[l];
        uint64_t next = port->next[l];
        if (l == found) port->stop[l] = port->copy_tail;
        /* Relaxed: only whether. */
        else if (view->cell && (int64_t)(ps__load_rlx(&view->cell[next & (view->cells - 1)].stamp) - next - 1) < 0)
            port->stop[l] = next;
        else port->stop[l] = ps__lane_tail(view->lane);
    }
    port->stop_high = high;
    port->marked = PS__MARK_TAKEN;
}

#undef CELLS_MOST
#undef CELLS_AHEAD
#undef CELLS_AHEAD_UNWANTED
#undef CELLS_REST
