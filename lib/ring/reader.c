/* SPDX-License-Identifier: MIT */
/*
 * reader.c - the receiving side of a handle: join the gates, take the next message out of the lanes, tell what was lost.
 * PROTOCOL 2 and 3.
 *
 * Everything here runs on the dispatching thread, except a join, which runs on the subscribing one while `joined` is 0 and
 * nobody else touches the cursors. Lossy and reliable readers do the same: copy, then check against the lane's tail whether
 * the copy may be believed. Bytes in shared memory are not trusted: each field is read once, checked against private
 * geometry, and only then used; every loop has a private bound.
 */
#include "ring.h"
#include <stdlib.h>

#define READER_HOSTILE ((uint64_t)1 << 62)      /* an evicted[] beyond this is no join of anybody */
#define READER_RESYNCS 64                       /* jumps over garbage in one call */

uint64_t ps__lane_tail(struct ps__lane *lane)
{
    uint64_t base = ps__load_acq(&lane->base), tail = ps__load_acq(&lane->tail);        /* base first: it is never beyond tail */
    if (ps__load_rlx(&lane->base) - base >= (uint64_t)1 << 31) {        /* slept through half a turn of the low word */
        base = ps__load_acq(&lane->base);
        tail = ps__load_acq(&lane->tail);
    }
    return ps__expand(base, ps__seq(tail));
}

static int reader_has_slot(const struct ps__port *port) { return port->slot < PS_MEMBERS_MAX; }

/* Publishes the cursor: producers may use what lies before it. */
static void reader_show(struct ps__port *port, unsigned lane)
{
    if (port->shown[lane] == port->next[lane]) return;
    port->shown[lane] = port->next[lane];
    if (!reader_has_slot(port)) return;
    /* SYNC(cursor) release, other end ps__ring_room: everything read of those cells was read before. m2.5 */
    ps__store_rel(&port->reader[port->slot]->cursor[lane], port->next[lane]);
    if (port->lossy) return;
    ps__fence_sc();                             /* SYNC(space) other end ps__space_wait. m6.4 */
    ps__wake_waiters(port, lane);
}

/* ------------------------------------------------------------------ join and leave */

static uint64_t reader_next_join(struct ps__port *port)
{
    uint64_t number = ps__load_rlx(&port->reader[port->slot]->join_last);
    for (unsigned l = 0; l < port->lanes; l++) {
        uint64_t evicted = ps__load_rlx(&port->view[l].lane->evicted[port->slot]);
        if (evicted > number && evicted <= READER_HOSTILE) number = evicted;
    }
    return number + 1;
}

/*
 * Makes this handle a gate of every lane, whether reserved or not, from cursors that stand in next[]. A publisher that does
 * not see it has raised horizon before its fence, and then we see that and begin behind it (m3.2, m3.3).
 */
static void reader_join(struct ps__port *port)
{
    struct ps__reader *reader = reader_has_slot(port) ? port->reader[port->slot] : NULL;
    if (reader) {
        for (unsigned l = 0; l < port->lanes; l++) ps__store_rlx(&reader->cursor[l], port->next[l]);
        if (!port->lossy) {
            port->join_number = reader_next_join(port);
            ps__store_rlx(&reader->join_last, port->join_number);
            ps__store_rel(&reader->join, port->join_number);    /* SYNC(join) release, other end ring_gates */
        }
    }
    ps__fence_sc();                             /* SYNC(join) other end ps__ring_room */
    for (unsigned l = 0; l < port->lanes; l++) {
        int32_t behind = ps__diff((uint32_t)ps__load_rlx(&port->view[l].lane->horizon), (uint32_t)port->next[l]);
        if (behind > 0 && !port->lossy) {
            port->next[l] += (uint32_t)behind;
            if (reader) ps__store_rel(&reader->cursor[l], port->next[l]);
        }
        port->shown[l] = port->next[l];
    }
}

void ps__reader_leave(struct ps__port *port)
{
    if (!ps__load_rlx(&port->joined)) return;
    if (reader_has_slot(port)) {
        struct ps__about *about = port->about[port->slot];
        ps__store_rlx(&about->flags, ps__load_rlx(&about->flags) & ~(uint64_t)PS__ABOUT_READS);
        ps__store_rel(&port->reader[port->slot]->join, 0);      /* a borrow goes on gating by its own word */
        ps__fence_sc();                         /* SYNC(space) other end ps__space_wait. m6.6 */
        for (unsigned l = 0; l < port->lanes; l++) ps__wake_waiters(port, l);
    }
    ps__store_rlx(&port->leave_pending, 0);
    ps__store_rel(&port->joined, 0);            /* SYNC(joined) release: whoever joins next may touch the cursors */
}

int ps__port_subscribe(void *state, const ps_filter *filter, uint32_t flags, int first)
{
    struct ps__port *port = state;
    if (flags & PS_BORROW && (port->lossy || port->observe))
        return ps__fail(PS_EINVAL, "PS_BORROW on a lossy handle: nobody waits for it, so nothing stays in place");
    if (first && ps__load_acq(&port->joined)) {
        ps__store_rlx(&port->leave_pending, 0);         /* not left yet: the old cursors still hold */
    } else if (first) {
        for (unsigned l = 0; l < port->lanes; l++) {
            port->next[l] = ps__lane_tail(port->view[l].lane);
            port->pending_lost[l] = 0;
        }
        reader_join(port);
        if (reader_has_slot(port)) {
            struct ps__about *about = port->about[port->slot];
            ps__store_rlx(&about->flags, ps__load_rlx(&about->flags) | PS__ABOUT_READS);
            ps__store_rlx(&about->idle_at_ms, ps__now_coarse_ms());
        }
        ps__store_rel(&port->joined, 1);                /* SYNC(joined) release, other end ps__port_next */
    }
    int err = 0;
    /* Only now: a publisher that counts this handle really serves it (m3.9). */
    if (reader_has_slot(port)) err = ps__interest_add(port, filter);
    ps__fence_sc();                             /* a program that reads its own state right after is ordered behind it (m4.9) */
    if (err && first) ps__store_rlx(&port->leave_pending, 1);
    return err;
}

void ps__port_unsubscribe(void *state, const ps_filter *filter, uint32_t flags, int last, int idle)
{
    struct ps__port *port = state;
    (void)flags;
    if (reader_has_slot(port)) ps__interest_remove(port, filter);
    if (!last) return;
    if (idle) {
        ps__reader_leave(port);
    } else {
        ps__store_rlx(&port->leave_pending, 1);         /* the dispatching thread leaves; wake it if it sleeps */
        ps__port_wake(port);
    }
}

/* ------------------------------------------------------------------ eviction, as the reader learns it */

static void reader_lose(struct ps__port *port, unsigned lane, uint64_t count)
{
    port->next[lane] += count;
    port->pending_lost[lane] += count;
    ps__bump(&port->lost, count);
    if (reader_has_slot(port)) ps__store_rlx(&port->about[port->slot]->lost, ps__load_rlx(&port->lost));
}

/* Evicted by some lane: add up what is gone there and gate again, under a new number. Never inside a borrow. */
static void reader_rejoin_if_evicted(struct ps__port *port)
{
    if (port->lossy || !reader_has_slot(port)) return;
    unsigned high = (unsigned)ps__load_acq(&port->words->lanes_high), l;
    if (high > port->lanes) high = port->lanes;
    for (l = 0; l < high; l++) {
        uint64_t evicted = ps__load_rlx(&port->view[l].lane->evicted[port->slot]);
        if (evicted >= port->join_number && evicted <= READER_HOSTILE) break;
    }
    if (l == high) return;
    ps__bump(&port->evicted, 1);
    uint64_t before[PS_MEMBERS_MAX];
    for (l = 0; l < port->lanes; l++) {
        if (!port->view[l].cell && ps__load_acq(&port->view[l].lane->ring)) (void)port->env->lane_open(port, l);
        uint64_t tail = ps__lane_tail(port->view[l].lane);
        uint32_t cells = port->view[l].cells;
        if (cells && (int64_t)(tail - port->next[l]) > (int64_t)cells) reader_lose(port, l, tail - cells - port->next[l]);
        before[l] = port->next[l];
    }
    reader_join(port);
    for (l = 0; l < port->lanes; l++) {
        uint64_t skipped = port->next[l] - before[l];   /* what join had to begin behind */
        port->next[l] = before[l];
        reader_lose(port, l, skipped);
        port->shown[l] = port->next[l];
    }
}

/* ------------------------------------------------------------------ one message */

struct reader_cell {                    /* a cell, each field read once */
    uint64_t stamp, hash;
    uint32_t publisher, pos, size, kind;
    size_t topic_len;
};

/* May what was copied from this cell be believed? Behind the copy. */
static int reader_intact(struct ps__port *port, unsigned lane, const struct reader_cell *m, uint32_t *tail_seq)
{
    const struct ps__view *view = &port->view[lane];
    struct ps__lane *words = view->lane;
    uint64_t c = port->next[lane];
    /* SYNC(claim) acquire fence, other end ps__ring_put: if a byte of the copy was of a later message, its claim is seen in
     * tail now. An acquire load of tail in its place is not enough: m1.3, m7.2. */
    ps__fence_acq();
    uint64_t tail = ps__load_rlx(&words->tail);
    *tail_seq = ps__seq(tail);
    if (ps__seq(tail) - (uint32_t)c > view->cells) return 0;
    if (m->kind == PS__KIND_RING && ps__pos(tail) - m->pos > view->units) return 0;
    if (m->kind == PS__KIND_LOAN) {
        if (ps__diff((uint32_t)ps__load_rlx(&words->loan_floor), (uint32_t)c) > 0) return 0;    /* SYNC(loan) */
        if (m->topic_len > PS__INLINE - 8 && ps__pos(tail) - m->pos > view->units) return 0;
    }
    return ps__load_rlx(&view->cell[c & (view->cells - 1)].stamp) == m->stamp;  /* a sleep of 2^32 messages inside the copy */
}

/* Behind a failed check: lapped by number, or only this message is gone. 0: garbage that leads nowhere. */
static int reader_step_over(struct ps__port *port, unsigned lane, uint64_t stamp, uint32_t tail_seq)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t c = port->next[lane], cells = view->cells;
    uint64_t known = (int64_t)(stamp - (c + 1)) < 0 ? c : stamp - 1;
    uint64_t oldest = ps__expand(known, tail_seq) - cells;
    if (((known - c) & (cells - 1)) == 0 && (int64_t)(oldest - c) > 0) {
        reader_lose(port, lane, oldest - c);    /* exact: numbers have no gaps */
        return 1;
    }
    if ((int32_t)(tail_seq - (uint32_t)c) <= 0) return 0;       /* nothing was claimed here */
    if (stamp != c + 1) ps__bump(&port->corrupt, 1);
    reader_lose(port, lane, 1);
    return 1;
}

/* Room for a payload; grows only by messages that passed the size check. */
static int reader_buffer(struct ps__port *port, size_t size)
{
    if (size <= port->buffer_size) return 0;
    size_t room = port->buffer_size ? port->buffer_size : 4096;
    while (room < size) room *= 2;
    unsigned char *buffer = aligned_alloc(64, room);
    if (!buffer) return ps__fail(PS_ENOMEM, "no memory for a message of %zu bytes", size);
    free(port->buffer);
    port->buffer = buffer;
    port->buffer_size = room;
    return 0;
}

static void reader_load(struct ps__cell *cell, uint64_t stamp, struct reader_cell *m)
{
    m->stamp = stamp;
    m->hash = ps__load_rlx(&cell->hash);
    m->publisher = ps__load_rlx(&cell->publisher);
    m->pos = ps__load_rlx(&cell->pos);
    m->size = ps__load_rlx(&cell->size);
    uint32_t meta = ps__load_rlx(&cell->meta);
    m->kind = meta & 0xff;
    m->topic_len = meta >> 8;
}

/* Where data and topic lie. 0 if the fields contradict each other or the private geometry. */
static int reader_locate(struct ps__port *port, unsigned lane, struct ps__cell *cell, const struct reader_cell *m,
                         const unsigned char **data, const unsigned char **topic)
{
    const struct ps__view *view = &port->view[lane];
    if (m->topic_len == 0 || m->topic_len > PS_TOPIC_MAX) return 0;
    uint32_t at = m->pos & (view->units - 1), units = ps__message_units(m->kind, m->size, m->topic_len);
    const unsigned char *payload = view->payload + (size_t)at * PS__UNIT;
    switch (m->kind) {
    case PS__KIND_INLINE:
        if (m->size > PS__INLINE || m->size + m->topic_len > PS__INLINE) return 0;
        ps__copy_out(port->inline_copy, cell->data, m->size + m->topic_len);
        *data = port->inline_copy;
        *topic = port->inline_copy + m->size;
        return 1;
    case PS__KIND_RING:
        if (m->size > (uint64_t)view->units * PS__UNIT || units > view->units - at) return 0;
        *data = payload;
        *topic = m->topic_len <= PS__INLINE ? cell->data : payload + (((size_t)m->size + 15) & ~(size_t)15);
        return 1;
    case PS__KIND_LOAN: {
        uint64_t offset;
        ps__copy_out(&offset, cell->data, 8);
        if (!view->loan && port->env->lane_open(port, lane)) return 0;
        if (!view->loan || offset % PS__UNIT || offset > view->loan_bytes || m->size > view->loan_bytes - offset) return 0;
        if (units > view->units - at) return 0;
        *data = view->loan + offset;
        *topic = m->topic_len <= PS__INLINE - 8 ? cell->data + 8 : payload;
        return 1;
    }
    default:
        return 0;
    }
}

/* Looks into the ring itself instead of copying. 1: data stays as it is until reader_release. */
static int reader_borrow(struct ps__port *port, unsigned lane, const struct reader_cell *m)
{
    struct ps__reader *reader = port->reader[port->slot];
    uint32_t tail_seq;
    /* SYNC(borrow) the word, a fence, then a look at evicted; other end ring_gates: evicted, a fence, then the word. One of
     * the two sees the other. m11.2, m11.4 */
    ps__store_rlx(&reader->borrow, lane + 1u);
    ps__fence_sc();
    if (ps__load_rlx(&port->view[lane].lane->evicted[port->slot]) >= port->join_number ||
        !reader_intact(port, lane, m, &tail_seq)) {
        ps__store_rel(&reader->borrow, 0);
        return 0;
    }
    port->borrowing = (int)lane + 1;
    return 1;
}

static void reader_release(struct ps__port *port)
{
    if (!port->borrowing) return;
    unsigned lane = (unsigned)port->borrowing - 1;
    port->borrowing = 0;
    ps__store_rel(&port->reader[port->slot]->borrow, 0);        /* SYNC(borrow) release: handlers have done with it */
    port->next[lane]++;
    reader_show(port, lane);
}

/* Publishes the cursor often enough: every 64 messages or an eighth, at each when more than a quarter behind. */
static void reader_advance(struct ps__port *port, unsigned lane, uint32_t tail_seq)
{
    uint32_t cells = port->view[lane].cells;
    port->next[lane]++;
    uint64_t unshown = port->next[lane] - port->shown[lane];
    uint32_t behind = tail_seq - (uint32_t)port->next[lane];
    if (unshown >= PS__BATCH || unshown >= cells / 8 || behind > cells / 4) reader_show(port, lane);
}

static void reader_unwanted(struct ps__port *port)
{
    ps__bump(&port->unwanted, 1);
    if (port->budget) port->budget--;
}

/* What became of a look at a lane; errors are negative. */
enum { READER_NOTHING, READER_SKIPPED, READER_DONE };

/* The message at the cursor of a lane, whose stamp is there. After an error it stays. */
static int reader_take(struct ps__port *port, unsigned lane, struct ps__cell *cell, uint64_t stamp, ps_record *record,
                       int *resyncs)
{
    struct reader_cell m;
    const unsigned char *data, *topic;
    uint32_t tail_seq;
    reader_load(cell, stamp, &m);
    if (m.kind == PS__KIND_HOLE || (port->shared_lane && !port->echo && m.publisher == port->publisher)) {
        if (reader_intact(port, lane, &m, &tail_seq)) {
            reader_advance(port, lane, tail_seq);
            reader_unwanted(port);
            return READER_SKIPPED;
        }
        goto gone;
    }
    if (!reader_locate(port, lane, cell, &m, &data, &topic)) {
        if (reader_intact(port, lane, &m, &tail_seq)) ps__bump(&port->corrupt, 1);      /* nobody overwrote it: garbage */
        goto gone;
    }
    if (m.kind == PS__KIND_INLINE) memcpy(port->topic_copy, topic, m.topic_len);        /* private already */
    else ps__copy_out(port->topic_copy, topic, m.topic_len);
    port->topic_copy[m.topic_len] = '\0';
    record->topic = (ps_topic){ port->topic_copy, m.topic_len, m.hash };
    if (!port->host->match(port->host, &record->topic)) {
        if (!reader_intact(port, lane, &m, &tail_seq)) goto gone;
        reader_advance(port, lane, tail_seq);
        reader_unwanted(port);
        return READER_SKIPPED;
    }
    if (m.kind != PS__KIND_INLINE && m.size) {
        if (port->host->borrows(port->host) && reader_borrow(port, lane, &m)) {
            record->data = data;
            goto deliver;
        }
        int err = reader_buffer(port, m.size);
        if (err) return err;
        ps__copy_out(port->buffer, data, m.size);
        data = port->buffer;
    } else {
        data = port->inline_copy;
    }
    if (!reader_intact(port, lane, &m, &tail_seq)) goto gone;
    record->data = data;
    reader_advance(port, lane, tail_seq);
deliver:
    record->size = m.size;
    record->sequence = stamp - 1;
    record->publisher = ps__publisher_id(lane, m.publisher);
    record->lost = port->pending_lost[lane];
    port->pending_lost[lane] = 0;
    return READER_DONE;
gone:
    tail_seq = ps__seq(ps__load_acq(&port->view[lane].lane->tail));
    (*resyncs)++;
    return reader_step_over(port, lane, stamp, tail_seq) ? READER_SKIPPED : READER_NOTHING;
}

/* One look at a lane that is readable. */
static int reader_step(struct ps__port *port, unsigned lane, ps_record *record, int *resyncs)
{
    const struct ps__view *view = &port->view[lane];
    struct ps__cell *cell = &view->cell[port->next[lane] & (view->cells - 1)];
    /* SYNC(commit) acquire, other end ps__ring_put. m1.5 */
    uint64_t stamp = ps__load_acq(&cell->stamp), want = port->next[lane] + 1;
    if (PS_LIKELY(stamp == want)) return reader_take(port, lane, cell, stamp, record, resyncs);
    if (stamp == 0 || (int64_t)(stamp - want) < 0) return READER_NOTHING;
    (*resyncs)++;
    uint32_t tail_seq = ps__seq(ps__load_acq(&view->lane->tail));
    return reader_step_over(port, lane, stamp, tail_seq) ? READER_SKIPPED : READER_NOTHING;
}

/* ------------------------------------------------------------------ the transport operations */

int ps__port_begin(void *state, int marked)
{
    struct ps__port *port = state;
    ps__sleep_begin(port);
    reader_release(port);                       /* a pull handle's message of last time */
    if (!ps__load_acq(&port->joined)) return 0;
    if (ps__load_rlx(&port->leave_pending)) {
        ps__reader_leave(port);
        return 0;
    }
    reader_rejoin_if_evicted(port);
    unsigned high = (unsigned)ps__load_acq(&port->words->lanes_high);
    if (high > port->lanes) high = port->lanes;
    port->marked = marked;
    port->stop_high = high;
    if (marked) for (unsigned l = 0; l < high; l++) port->stop[l] = ps__lane_tail(port->view[l].lane);
    port->budget = (uint64_t)high * port->view[port->turn].cells + 65536;
    return 0;
}

/* A lane that can be read: mapped, with something of ours in it. */
static int reader_lane(struct ps__port *port, unsigned lane)
{
    if (lane == port->lane && !port->echo && !port->shared_lane) return 0;
    if (port->marked && (lane >= port->stop_high || (int64_t)(port->stop[lane] - port->next[lane]) <= 0)) return 0;
    struct ps__view *view = &port->view[lane];
    if (PS_LIKELY(view->cell != NULL)) return 1;
    /* SYNC(reserve) acquire, other end lane_reserve: no page is read before its word says that it is there. */
    if (!ps__load_acq(&view->lane->ring)) return 0;
    int err = port->env->lane_open(port, lane);
    return err ? err : 1;
}

int ps__port_next(void *state, ps_record *record)
{
    struct ps__port *port = state;
    int resyncs = 0;
    reader_release(port);
    if (PS_UNLIKELY(!ps__load_acq(&port->joined))) return 0;    /* SYNC(joined) acquire: the cursors are valid */
    /* lanes_high is raised before a lane's first commit. */
    unsigned high = (unsigned)ps__load_acq(&port->words->lanes_high), tried = 0;
    if (high > port->lanes) high = port->lanes;
    while (tried <= high && port->budget && resyncs < READER_RESYNCS) {
        unsigned lane = port->turn;
        int readable = lane < high && port->turn_left ? reader_lane(port, lane) : 0;
        if (PS_UNLIKELY(readable < 0)) return readable;
        if (readable) {
            int rc = reader_step(port, lane, record, &resyncs);
            if (rc == READER_DONE || rc < 0) port->turn_left--;
            if (rc == READER_DONE) return 1;
            if (rc < 0) return rc;
            if (rc == READER_SKIPPED) {
                port->turn_left--;
                tried = 0;
                continue;
            }
        }
        port->turn = lane + 1 >= high ? 0 : lane + 1;
        port->turn_left = PS__BATCH;
        tried++;
    }
    return 0;
}

/* Publishes what was read, and leaves if the last subscription went meanwhile. */
void ps__reader_flush(struct ps__port *port)
{
    if (!ps__load_acq(&port->joined)) return;
    unsigned high = (unsigned)ps__load_acq(&port->words->lanes_high);
    if (high > port->lanes) high = port->lanes;
    for (unsigned l = 0; l < high; l++) {
        if (l == port->lane && !port->echo && !port->shared_lane) port->next[l] = ps__lane_tail(port->view[l].lane);
        if (port->borrowing != (int)l + 1) reader_show(port, l);
    }
    if (reader_has_slot(port)) {
        struct ps__about *about = port->about[port->slot];
        ps__store_rlx(&about->unwanted, ps__load_rlx(&port->unwanted));
        ps__store_rlx(&about->idle_at_ms, ps__now_coarse_ms());
    }
    if (ps__load_rlx(&port->leave_pending) && !port->borrowing) ps__reader_leave(port);
}

void ps__port_end(void *state, int flags)
{
    struct ps__port *port = state;
    if (!(flags & PS_END_HOLD)) reader_release(port);
    port->marked = 0;
    ps__reader_flush(port);
    ps__sleep_end(port);
}

/* Is something there to be read? *blocked: a lane whose next message is claimed and not committed, else PS_MEMBERS_MAX. */
int ps__reader_look(struct ps__port *port, unsigned *blocked)
{
    *blocked = PS_MEMBERS_MAX;
    if (!ps__load_acq(&port->joined)) return 0;
    unsigned high = (unsigned)ps__load_acq(&port->words->lanes_high);
    if (high > port->lanes) high = port->lanes;
    for (unsigned l = 0; l < high; l++) {
        if (reader_lane(port, l) <= 0) continue;        /* an error shows in the next next() */
        const struct ps__view *view = &port->view[l];
        uint64_t stamp = ps__load_acq(&view->cell[port->next[l] & (view->cells - 1)].stamp);
        if (stamp != 0 && (int64_t)(stamp - (port->next[l] + 1)) >= 0) return 1;
        if (port->shared_lane) continue;
        uint32_t claimed = ps__seq(ps__load_rlx(&view->lane->tail)) - (uint32_t)port->next[l];
        if ((int32_t)claimed > 0) *blocked = l;
        /* A claim a whole lap old cannot be unfinished, it gates: the lane is damaged. */
        if ((int32_t)claimed > (int32_t)view->cells && reader_step_over(port, l, stamp, (uint32_t)port->next[l] + claimed))
            return 1;
    }
    return 0;
}

#undef READER_HOSTILE
#undef READER_RESYNCS
