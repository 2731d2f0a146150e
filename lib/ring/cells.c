/* SPDX-License-Identifier: MIT */
/*
 * cells.c - the window: private copies of a lane's next cells, as many as are there, believed at once. PROTOCOL 2.
 *
 * tail's line is the producers', and a look at it costs both sides a transfer. So it is asked only by who has read all that it
 * knew of, and by who comes so late that limit has passed the cells. The lines of cells that are not claimed yet are the
 * producers', too: only what is known to be claimed is looked at. What nobody here wants is not copied, and the cursor passes
 * over a run of such cells at once. Where that is half of them, their digests are asked first, eight in a line, and the cells
 * stay where they are.
 *
 *   copy[at .. count)    cells of its lane that are wanted; next[lane] is the number of the first of them
 *   copy[count].stamp    where the next one would be: all numbers before it were looked at
 *
 * A window outlives its dispatch, for nothing in it can be overwritten any more. It goes when the cursor goes elsewhere: with an
 * eviction too, which counts what was left in it as lost.
 */
#include "cells.h"

#define CELLS_MOST 256u                 /* looked at at once: a microsecond or two in which the cursor stands */
#define CELLS_MOST_SIFTED 1024u         /* the same by digests */
#define CELLS_AHEAD 12u                 /* so far ahead cells are fetched */
#define CELLS_DIGESTS 8u                /* in a line */
#define CELLS_DIGESTS_AHEAD 128u        /* so far ahead those are fetched */
#define CELLS_SPARSE 2u                 /* at most half was wanted, */
#define CELLS_SPARSE_LEAST 16u          /* of so many messages: sift the next ones */

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
    struct ps__window *window = &port->window;
    window->lane = lane;
    window->tail = port->next[lane];
    window->every = port->view[lane].cells / 8 < PS__BATCH ? port->view[lane].cells / 8 : PS__BATCH;
    window->cursor = ps__has_slot(port) ? &port->reader[port->slot]->cursor[lane] : &window->no_cursor;
}

/* Copies are believed: those from window.at to count, of the cells from the cursor up to c. */
static PS_NOINLINE void cells_believe(struct ps__port *port, uint64_t c, unsigned count)
{
    struct ps__window *window = &port->window;
    const unsigned lane = window->lane;
    const uint64_t first = port->next[lane];
    window->copy[count].stamp = c + 1;
    window->count = count;
    port->lag.got += (unsigned)(c - first);     /* wanted or not: lag.c */
    port->turn_left -= count && count < port->turn_left ? count : port->turn_left;
    window->show = port->shown[lane] + window->every;
    window->looked = (unsigned)(c - first);
    window->missed = window->at;                /* those were overwritten */
    const uint64_t next = window->copy[window->at].stamp - 1;
    if (next != first) {
        ps__cells_pass(port, next);
        ps__cells_unwanted(port, next - first);
    }
}

/*
 * In a shared lane an answer goes behind its question. Where this thread's own last message stands before this one, it likely
 * answers it as well, and will wait for tail: that line is fetched now. (Not those of the cell behind: who waits for the answer
 * looks at them all the time, and would take them away before they are written.)
 */
static void cells_expect_answer(struct ps__port *port, struct ps__lane *lane, uint64_t first, struct ps__cell *behind)
{
    ps__store_rlx(&port->guess, behind);
    if (ps__claim_run.next_by != port->memo.odd[0] || ps__claim_run.next != (uint32_t)first) return;
    ps__prefetch_write(&lane->tail);
}

/*
 * The first message after nothing was there, alone and wholly in its cell: what it says of itself is enough, and the line of
 * tail stays where it is. Nor is anybody told that its cell is free again, for nobody waits for that (PROTOCOL 6), and the fence
 * would wait for the look at the cell behind. 0: it is none of that, or was overwritten.
 */
int ps__cells_lone(struct ps__port *port, unsigned lane)
{
    const struct ps__view *view = &port->view[lane];
    const uint64_t first = port->next[lane];
    struct ps__cell *cell = ps__cell_of(view, first), *behind = ps__cell_of(view, first + 1);
    struct ps__copy *copy = port->window.copy;
    __builtin_prefetch((const char *)cell + PS__LINE / 2);
    if (port->shared_lane) cells_expect_answer(port, view->lane, first, behind);
    if (ps__load_rlx(&behind->stamp) == first + 2 || ps__kind(ps__load_rlx(&cell->meta)) != PS__KIND_INLINE) return 0;
    if (ps__load_rlx(&cell->publisher) == port->mute) return 0;
    if (port->window.lane != lane) cells_turn(port, lane);
    ps__cells_drop(port);
    port->window.sifted = 0;
    ps__copy_out(copy, cell, sizeof *cell);
    copy->stamp = first + 1;
    /* SYNC(claim) acquire fence, other end ps__put, as in ps__cells_fill. */
    ps__fence_acq();
    if (!ps__cells_kept(view, first, first + 1)) return 0;
    port->window.tail = first + 1;
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
    while (gone != count && (int64_t)(port->window.copy[gone].stamp - oldest) <= 0) gone++;
    ps__reader_skip_lost(port, port->window.lane, oldest - port->next[port->window.lane]);      /* exact: numbers have no gaps */
    return gone;
}

/* ------------------------------------------------------------------ a window's worth of cells, not yet believed */

enum { CELLS_NOT_YET, CELLS_UNWANTED, CELLS_WANTED };

/*
 * bits and wild: what this handle shows of its interest, NULL: everything is wanted. "No" is for good, because a subscription
 * that comes before it would be taken is no business of what was published before; "yes" is asked again, and in a sifted window
 * reader_stale looks whether it still goes with the "no" of its neighbours.
 */
static PS_ALWAYS_INLINE int cells_ask(struct ps__cell *cell, uint64_t stamp, const ps__a64 *bits, const ps__a64 *wild,
                                      uint64_t mute, uint64_t *hash)
{
    /* SYNC(commit) acquire, other end ps__put. m1.5 */
    if (ps__load_acq(&cell->stamp) != stamp) return CELLS_NOT_YET;
    *hash = ps__load_rlx(&cell->hash);
    if (bits && ps__interest_lacks(bits, wild, *hash)) return CELLS_UNWANTED;
    return PS_UNLIKELY(ps__load_rlx(&cell->publisher) == mute) ? CELLS_UNWANTED : CELLS_WANTED;
}

static PS_ALWAYS_INLINE void cells_copy(struct ps__copy *copy, const struct ps__cell *cell, uint64_t stamp, uint64_t hash)
{
    copy->stamp = stamp;                        /* not what stands there by now: the cursor follows it */
    copy->hash = hash;
    ps__copy_out((char *)copy + CELLS_REST, (const char *)cell + CELLS_REST, sizeof *copy - CELLS_REST);
}

/* Copies what is wanted of the cells from c up to `end`; how many in *count. Answers where it stopped. */
static PS_NOINLINE uint64_t cells_gather(struct ps__port *port, unsigned lane, uint64_t c, uint64_t end, unsigned *count)
{
    struct ps__cell *const cells = port->view[lane].cell;
    const int member = ps__has_slot(port);      /* who only observes shows no interest */
    const ps__a64 *const bits = member ? port->bits[port->slot] : NULL;
    const ps__a64 *const wild = member ? &port->about[port->slot]->wild : NULL;
    const uint64_t mask = port->view[lane].cells - 1, mute = port->mute;
    struct ps__copy *copy = port->window.copy;
    unsigned room = PS__COPIES;
    while (c != end && room) {
        uint64_t hash;
        struct ps__cell *cell = &cells[c & mask];
        int asked = cells_ask(cell, c + 1, bits, wild, mute, &hash);
        if (asked == CELLS_NOT_YET) break;
        c++;
        if (asked == CELLS_UNWANTED) continue;
        /* The hardware by itself comes too late. Lines that are not claimed yet stay with their producer. */
        const char *next = (const char *)&cells[(c + CELLS_AHEAD < end ? c + CELLS_AHEAD : c - 1) & mask];
        __builtin_prefetch(next);
        __builtin_prefetch(next + PS__LINE / 2);
        cells_copy(copy++, cell, c, hash);
        room--;
    }
    port->at_head = room != 0;
    *count = PS__COPIES - room;
    return c;
}

/*
 * The same where little is wanted: digests tell which cells to look at. Those are fetched meanwhile, and then copied as above.
 * A digest that is not this message's is no answer: its cell is asked.
 */
static PS_NOINLINE uint64_t cells_sift(struct ps__port *port, unsigned lane, uint64_t c, uint64_t end, unsigned *count)
{
    const struct ps__view *view = &port->view[lane];
    const ps__a64 *const bits = port->bits[port->slot], *const wild = &port->about[port->slot]->wild;
    const uint64_t mask = view->cells - 1;
    uint64_t found[PS__COPIES], hash;
    unsigned n = 0, copied = 0;
    for (; c != end && n != PS__COPIES; c++) {
        if (c % CELLS_DIGESTS == 0 && c + CELLS_DIGESTS_AHEAD < end)
            __builtin_prefetch((const char *)&view->digest[(c + CELLS_DIGESTS_AHEAD) & mask]);
        if (ps__digest_spares(ps__load_rlx(&view->digest[c & mask]), c + 1, port->slot)) continue;
        const char *cell = (const char *)&view->cell[c & mask];
        __builtin_prefetch(cell);
        __builtin_prefetch(cell + PS__LINE / 2);
        found[n++] = c;
    }
    port->at_head = c == end;           /* or it stopped for want of room */
    __builtin_prefetch(&view->cell[(c - 1) & mask]);    /* for the last look */
    for (unsigned i = 0; i < n; i++) {
        struct ps__cell *cell = &view->cell[found[i] & mask];
        int asked = cells_ask(cell, found[i] + 1, bits, wild, port->mute, &hash);
        if (asked == CELLS_NOT_YET) {
            c = found[i];
            break;
        }
        if (asked == CELLS_WANTED) cells_copy(&port->window.copy[copied++], cell, found[i] + 1, hash);
    }
    *count = copied;
    return c;
}

/* ------------------------------------------------------------------ the window */

/* Was little wanted of what was looked at last? Some of it may be to come. */
static int cells_sparse(const struct ps__port *port)
{
    const struct ps__window *window = &port->window;
    unsigned looked = window->looked, unwanted = looked - window->count + window->missed;
    return looked >= CELLS_SPARSE_LEAST && unwanted >= looked - looked / CELLS_SPARSE && ps__has_slot(port);
}

/*
 * May digests decide from `first` on? Their publishers must have known all that this handle wants now. What was sent before its
 * last subscription is asked by the cells, as always: a subscription gets what is there from one message on, and not some of it.
 */
static int cells_may_sift(struct ps__port *port, unsigned lane, uint64_t first, uint32_t *interests)
{
    /* SYNC(sift) acquire, other end ps__port_subscribe. */
    *interests = ps__load_acq(&port->interests);
    if (*interests & 1) return 0;
    if (PS_UNLIKELY(port->sift[lane].interests != *interests)) {
        /* SYNC(sift) the epoch that the subscription raised, this fence, tail; other end publish_fast: tail, its fence, the
         * epoch. Whoever claims behind this look knows of it. m14.7 */
        ps__fence_sc();
        port->sift[lane].from = ps__lane_tail(port->view[lane].lane);
        port->sift[lane].interests = *interests;
    }
    return (int64_t)(first - port->sift[lane].from) >= 0;
}

/* Looks at what is there from `first` up to `known`, `most` of it; by digests, or the cells. Answers where it stopped. */
static uint64_t cells_look(struct ps__port *port, unsigned lane, uint64_t first, uint64_t known, uint64_t most, int sift,
                           unsigned *count)
{
    const uint64_t at_once = sift ? CELLS_MOST_SIFTED : CELLS_MOST, limit = first + (most < at_once ? most : at_once);
    const uint64_t end = (int64_t)(known - limit) < 0 ? known : limit;
    uint64_t c = (sift ? cells_sift : cells_gather)(port, lane, first, end, count);
    if (c == limit) port->at_head = 0;
    return c;
}

int ps__cells_fill(struct ps__port *port, unsigned lane, uint64_t most)
{
    struct ps__window *window = &port->window;
    if (window->lane != lane) cells_turn(port, lane);
    ps__cells_owe(port, lane);
    const uint64_t first = port->next[lane], mask = port->view[lane].cells - 1;
    struct ps__cell *const cells = port->view[lane].cell;
    ps__a64 *const tail = &port->view[lane].lane->tail;
    uint64_t known = window->tail;
    /* Relaxed, and not to be believed: how far to look. A mark that is due shall cover all that is there now. */
    if ((int64_t)(known - first) <= 0 || port->marked == PS__MARK_DUE) {
        int32_t ahead = ps__diff(ps__seq(ps__load_rlx(tail)), (uint32_t)first);
        known = first + (uint32_t)(ahead > 0 ? ahead : 0);
    }
    uint64_t c = first;
    uint32_t interests;
    unsigned count;
    if (cells_may_sift(port, lane, first, &interests) && cells_sparse(port)) {
        c = cells_look(port, lane, first, known, most, 1, &count);
        ps__fence_acq();                /* SYNC(sift) as in cells_may_sift; m14.6 */
        if (PS_UNLIKELY(ps__load_rlx(&port->interests) != interests)) c = first;
    }
    window->sifted = c != first;
    window->interests = interests;
    if (c == first) c = cells_look(port, lane, first, known, most, 0, &count);
    /* SYNC(claim) acquire fence, other end ps__put: if anything above was of a later message, its claim is seen in tail now,
     * and that limit has passed it. An acquire load of tail in its place is not enough: m1.3, m7.2.
     * SYNC(digest) the same fence, other end publish_fast: who was told by a digest sees its stamp now. m14.3 */
    ps__fence_acq();
    if (PS_LIKELY(c != first && ps__cells_kept(&port->view[lane], first, c))) {
        window->tail = known;
        ps__cells_drop(port);
        cells_believe(port, c, count);
        return 1;
    }
    const uint32_t claimed = ps__seq(ps__load_rlx(tail)) - (uint32_t)first;
    window->tail = first + claimed;
    ps__cells_drop(port);
    uint64_t oldest = first;
    if (PS_UNLIKELY(claimed > mask + 1)) oldest += claimed - (mask + 1);
    if (PS_UNLIKELY(c - first > claimed)) {     /* stamps of what nobody has claimed are garbage, and nothing to step over */
        for (c = first + claimed; count && (int64_t)(window->copy[count - 1].stamp - c) > 0;) count--;
    }
    /* The second look is for a sleep of 2^32 messages in between: then the last cell has another stamp too. */
    if ((int64_t)(c - oldest) <= 0 || ps__load_rlx(&cells[(c - 1) & mask].stamp) != c) return 0;
    if (PS_UNLIKELY(oldest != first)) window->at = cells_lapped(port, oldest, count);
    cells_believe(port, c, count);
    return 1;
}

void ps__cells_mark(struct ps__port *port, unsigned found)
{
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        const struct ps__view *view = &port->view[l];
        uint64_t next = port->next[l];
        if (l == found) port->stop[l] = port->window.tail;
        /* Relaxed: only whether. */
        else if (view->cell && (int64_t)(ps__load_rlx(&ps__cell_of(view, next)->stamp) - next - 1) < 0)
            port->stop[l] = next;
        else port->stop[l] = ps__lane_tail(view->lane);
    }
    port->stop_high = high;
    port->marked = PS__MARK_TAKEN;
}

#undef CELLS_MOST
#undef CELLS_AHEAD
#undef CELLS_MOST_SIFTED
#undef CELLS_DIGESTS
#undef CELLS_DIGESTS_AHEAD
#undef CELLS_SPARSE
#undef CELLS_SPARSE_LEAST
#undef CELLS_REST
