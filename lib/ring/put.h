/* SPDX-License-Identifier: MIT */
/*
 * put.h - one message into the lane: claim, fill, commit. PROTOCOL 1. A header, because every publish passes here: publish.c
 * compiles it into the one function that it is.
 *
 * A producer claims {sequence, payload units} by moving `tail`, fills its cell and its payload, and commits by the cell's stamp.
 *
 * The claim has an owner as a rule: one thread, which moves tail by a plain store, for a fifth of what a swap costs. It says
 * `inside` while it does so, in a seat of its own, and looks whether it still owns. Who wants to claim as well asks for it, and
 * gets it at the owner's next publish; or takes it away: says so, makes a heavy fence, and waits until the owner is outside.
 * SYNC(own). Where that does not pay the claim is shared, and all swap: claim.c.
 */
#ifndef PS_PUT_H
#define PS_PUT_H

#include "ring.h"

#define PS__PREFETCH 8u                 /* cells ahead */
#define PS__PREFETCH_AGAIN 2u           /* and once more */
#define PS__PREFETCH_DIGEST 32u         /* cells ahead, for their digests: four lines */
#define PS__PREFETCH_UNITS 40u          /* units of payload ahead */
#define PS__PREFETCH_LEAST 16u          /* payloads of no more units: the hardware does better alone */
#define PS__PREFETCH_MOST  64u          /* payloads of more units: they fetch for themselves while they are copied */

/* A payload is contiguous: what does not fit before the end of the ring begins at its start. */
static inline uint32_t ps__ring_pad(uint32_t pos, uint32_t units, uint32_t ring)
{
    uint32_t at = pos & (ring - 1);
    return units && at + units > ring ? ring - at : 0;
}

/* Who takes no units needs none, though the words contradict each other: the next payload finds that. */
static inline int ps__ring_fits(const struct ps__view *view, uint64_t tail, uint64_t limit, uint32_t units)
{
    return ps__seq(tail) + 1 - ps__seq(limit) <= view->cells &&
           (!units || ps__pos(tail) + units - ps__pos(limit) <= view->units);
}

/* ------------------------------------------------------------------ claim */

/*
 * This thread alone may claim until put_outside(the answer). NULL: it does not own the claim, or was asked to give it away.
 * asked, a constant: PS__CLAIM_ASKED if that does not matter.
 */
static PS_ALWAYS_INLINE ps__a32 *put_inside(struct ps__claim *claim, uint32_t self, uint32_t asked)
{
    uint64_t owner = ps__load_rlx(&claim->owner) & ~(uint64_t)asked;
    if (PS_UNLIKELY((uint32_t)owner != self)) return NULL;
    ps__a32 *inside = &claim->seat[owner >> 32].inside;
    ps__store_rlx(inside, 1);
    ps__fence_light();                  /* SYNC(own) other end claim_seize: owner, heavy fence, inside. m13.1, m13.7 */
    if (PS_LIKELY((ps__load_rlx(&claim->owner) & ~(uint64_t)asked) == owner)) return inside;
    ps__store_rel(inside, 0);
    return NULL;
}

/* SYNC(own) release, other end claim_seize: whoever claims next begins where this claim ended. m13.2 */
static PS_ALWAYS_INLINE void put_outside(ps__a32 *inside) { ps__store_rel(inside, 0); }

/* A mark is passed: time to look for room ahead of need, so that sleepers are back before it is full. */
static PS_ALWAYS_INLINE int put_marked(const struct ps__port *port, uint64_t tail, uint32_t units)
{
    return ps__diff(ps__seq(tail), ps__load_rlx(&port->mark_seq)) >= 0 ||
           (units && ps__diff(ps__pos(tail), ps__load_rlx(&port->mark_pos)) >= 0);
}

/*
 * Nobody has claimed since this thread's last swap. What it committed itself in this lane, it need not look at any more:
 * ps__ring_walk. By this handle, because the last swap may have been into another lane that stands at the same number.
 */
static inline int ps__claim_goes_on(const struct ps__port *port, uint64_t tail)
{
    struct ps__claim_run *run = &ps__claim_run;
    if (run->claim != port->claim || ps__seq(tail) != run->next) return 0;
    /* SYNC(own) acquire, other end claim_seize: m13.6 */
    if (PS_UNLIKELY((uint32_t)ps__load_acq(&run->claim->owner) != PS__CLAIM_SHARED)) return 0;
    if (run->walked_by == port->memo.odd[0] && run->next_by == run->walked_by && (uint32_t)run->walked + 1 == run->next) {
        run->walked++;
        run->walked_pos = ps__pos(tail);
    }
    return 1;
}

static PS_ALWAYS_INLINE void put_swapped(const struct ps__port *port, uint64_t next)
{
    ps__claim_run.next = ps__seq(next);
    ps__claim_run.next_by = port->memo.odd[0];
}

/* There is no room; there is, but it is time to look for more ahead of need; it fits. */
enum { PUT_FULL, PUT_MARKED, PUT_FITS };

/* What a claim of so many units at tail would make of it, and its first unit. */
static PS_ALWAYS_INLINE int put_next(const struct ps__port *port, struct ps__lane *lane, uint64_t tail, uint32_t units,
                                     uint64_t *next, uint32_t *first)
{
    const struct ps__view *view = &port->own;
    uint64_t limit = ps__load_acq(&lane->limit);        /* SYNC(limit) acquire: see ring_room, ps__cells_kept */
    uint32_t pad = ps__ring_pad(ps__pos(tail), units, view->units);
    *first = ps__pos(tail) + pad;
    *next = ps__pack(ps__seq(tail) + 1, *first + units);
    if (PS_UNLIKELY(!ps__ring_fits(view, tail, limit, units + pad))) return PUT_FULL;
    return PS_UNLIKELY(put_marked(port, tail, units)) ? PUT_MARKED : PUT_FITS;
}

/* In claim.c. The tail before the claim in *claimed, its payload's first unit in *first. 0, PS_EAGAIN, PS_ECORRUPT. */
PS_PRIVATE int ps__put_claim(struct ps__port *port, uint32_t units, uint64_t *claimed, uint32_t *first);

/* The same, by the owner while there is room: nearly always. */
static PS_ALWAYS_INLINE int put_claim(struct ps__port *port, uint32_t units, uint64_t *claimed, uint32_t *first)
{
    struct ps__lane *lane = port->own.lane;
    ps__a32 *inside = put_inside(port->claim, ps__thread_number() + 1, 0);
    if (PS_LIKELY(inside != NULL)) {
        uint64_t tail = ps__load_rlx(&lane->tail), next;
        if (PS_LIKELY(put_next(port, lane, tail, units, &next, first) == PUT_FITS)) {
            ps__store_rlx(&lane->tail, next);
            put_outside(inside);
            *claimed = tail;
            return 0;
        }
        put_outside(inside);
    }
    return ps__put_claim(port, units, claimed, first);
}

/* ------------------------------------------------------------------ fill */

/* Page faults happen before the claim, not inside it: a claim holds up the lane's fellows. */
static inline void put_touch(const void *data, size_t size)
{
    const volatile unsigned char *bytes = data;
    for (size_t i = 0; i < size; i += 4096) (void)bytes[i];
    if (size) (void)bytes[size - 1];
}

#if !PS_TSAN
typedef unsigned char put_vector __attribute__((vector_size(16)));

/* A few bytes, without a call, from the back: words of which two may overlap. */
static PS_ALWAYS_INLINE void put_copy_small(unsigned char *to, const void *from, size_t size)
{
    const unsigned char *bytes = from;
    put_vector high, low;
    if (size >= 32) {
        for (size_t i = size; i > 32; i -= 32) {
            memcpy(&high, bytes + i - 16, 16);
            memcpy(&low, bytes + i - 32, 16);
            memcpy(to + i - 16, &high, 16);
            memcpy(to + i - 32, &low, 16);
        }
        memcpy(&high, bytes + 16, 16);
        memcpy(&low, bytes, 16);
        memcpy(to + 16, &high, 16);
        memcpy(to, &low, 16);
    } else if (size >= 16) {
        memcpy(&high, bytes + size - 16, 16);
        memcpy(&low, bytes, 16);
        memcpy(to + size - 16, &high, 16);
        memcpy(to, &low, 16);
    } else if (size >= 8) {
        uint64_t last, first;
        memcpy(&last, bytes + size - 8, 8);
        memcpy(&first, bytes, 8);
        memcpy(to + size - 8, &last, 8);
        memcpy(to, &first, 8);
    } else {
        for (size_t i = 0; i < size; i++) to[i] = bytes[i];
    }
}
#endif

static PS_ALWAYS_INLINE void put_fill(const struct ps__view *view, struct ps__cell *cell, const struct ps__message *m,
                                      uint32_t kind, uint32_t pos)
{
    const ps_topic *topic = m->topic;
    if (kind == PS__KIND_INLINE) {
#if PS_TSAN
        unsigned char both[PS__INLINE + 1];             /* its copy writes whole words */
        memcpy(both, m->data, m->size);
        memcpy(both + m->size, topic->text, topic->len);
        ps__copy_in(cell->data, both, m->size + topic->len);
#else
        put_copy_small(cell->data + m->size, topic->text, topic->len);
        put_copy_small(cell->data, m->data, m->size);
#endif
        return;
    }
    unsigned char *payload = view->payload + (size_t)(pos & (view->units - 1)) * PS__UNIT;
    if (kind == PS__KIND_RING) {
        ps__copy_in(payload, m->data, m->size);
        if (topic->len <= PS__INLINE) ps__copy_in(cell->data, topic->text, topic->len);
        else ps__copy_in(payload + ps__topic_offset(m->size), topic->text, topic->len);
    } else {
        ps__copy_in(cell->data, &m->lease->offset, 8);
        if (topic->len <= PS__INLINE - 8) ps__copy_in(cell->data + 8, topic->text, topic->len);
        else ps__copy_in(payload, topic->text, topic->len);
    }
}

/*
 * Where the last line of its cell is that a message reaches into. A small one has but the first, and is there sooner if its
 * reader may keep the second; the next ones are likely as small.
 */
static PS_ALWAYS_INLINE size_t put_last_line(const struct ps__message *m)
{
    return (size_t)(offsetof(struct ps__cell, data) + m->size + m->topic->len > PS__LINE / 2) * (PS__LINE / 2);
}

static PS_ALWAYS_INLINE void put_prefetch_cell(struct ps__cell *cell, size_t last_line)
{
    ps__prefetch_write((char *)cell);
    ps__prefetch_write((char *)cell + last_line);
}

/*
 * A cell, and a payload, were last touched by their readers: fetching those ahead for writing keeps the next claims from waiting
 * for them. Cells twice, because the hardware of a reader that is near fetches what lies behind the cell that it reads, and so
 * takes it away again.
 */
static PS_ALWAYS_INLINE void put_prefetch(const struct ps__view *view, uint32_t seq, uint32_t pos, uint32_t units,
                                          size_t last_line)
{
    put_prefetch_cell(ps__cell_of(view, seq + PS__PREFETCH), last_line);
    put_prefetch_cell(ps__cell_of(view, seq + PS__PREFETCH_AGAIN), last_line);
    ps__prefetch_write(&view->digest[(seq + PS__PREFETCH_DIGEST) & (view->cells - 1)]);
    if (units <= PS__PREFETCH_LEAST || units > PS__PREFETCH_MOST) return;
    for (uint32_t u = PS__PREFETCH_UNITS; u < PS__PREFETCH_UNITS + units; u++)
        ps__prefetch_write(view->payload + (size_t)((pos + u) & (view->units - 1)) * PS__UNIT);
}

/* ------------------------------------------------------------------ the whole */

/*
 * The message's number + 1 in *stamp and 0; PS_EAGAIN, nothing done. The kind is a constant where this is called; last_line is
 * put_last_line(m), asked once.
 */
static PS_ALWAYS_INLINE int ps__put(struct ps__port *port, const struct ps__message *m, uint32_t kind, size_t last_line,
                                    uint64_t *stamp)
{
    const struct ps__view *view = &port->own;
    struct ps__lane *lane = view->lane;
    uint64_t tail;
    uint32_t pos, units = ps__message_units(kind, m->size, m->topic->len);
    if (kind == PS__KIND_RING) put_touch(m->data, m->size);
    int err = put_claim(port, units, &tail, &pos);
    if (PS_UNLIKELY(err)) return err;
    const uint32_t mask = view->cells - 1;
    struct ps__cell *const cell = &view->cell[ps__seq(tail) & mask];
    put_prefetch(view, ps__seq(tail), pos, units, last_line);
    ps__store_rlx(&port->guess, &view->cell[(ps__seq(tail) + 1) & mask]);
    uint64_t number = ps__nearest(ps__load_rlx(&lane->base), ps__seq(tail));    /* base is behind, by less than 2^31 */
    /* SYNC(claim) release fence, other end the acquire fence before a reader looks at tail: whoever has seen a byte of
     * this message sees the claim. An acq_rel swap is not enough: m1.1, m1.2. */
    ps__fence_rel();
    /* From the back: the line with the stamp, which a waiting reader looks at and so takes away, is written last and at once. */
    put_fill(view, cell, m, kind, pos);
    ps__store_rlx(&cell->hash, m->topic->hash);
    ps__store_rlx(&cell->publisher, port->publisher);
    ps__store_rlx(&cell->pos, pos);
    ps__store_rlx(&cell->size, (uint32_t)m->size);
    ps__store_rlx(&cell->meta, ps__meta(kind, m->topic->len));
    /* SYNC(commit) release, other end every acquire load of a stamp: the cell and its payload are those of this number. */
    ps__store_rel(&cell->stamp, number + 1);
    *stamp = number + 1;
    return 0;
}

#endif
