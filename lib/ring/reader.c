/* SPDX-License-Identifier: MIT */
/*
 * reader.c - the receiving side of a handle: take the next message out of the lanes, and tell what was lost. PROTOCOL 2.
 *
 * Everything here runs on the dispatching thread. Lossy and reliable readers do the same: copy, then check against the lane's
 * tail whether the copy may be believed. Bytes in shared memory are not trusted: each field is read once, into the copy of its
 * cell, checked against private geometry, and only then used; every loop has a private bound.
 */
#include "interest.h"
#include <errno.h>
#include <stdlib.h>

#define READER_RESYNCS 64                       /* jumps over garbage in one call */

/* ps__port.marked. */
enum { READER_MARK_NONE, READER_MARK_DUE, READER_MARK_TAKEN };

/* What became of a look at a lane; errors are negative. */
enum { READER_NOTHING, READER_SKIPPED, READER_DONE };

/* ------------------------------------------------------------------ copies of cells */

/*
 * Copies the committed cells from the cursor on, 64 at most, and asks the lane's tail once whether all of them may be believed:
 * the tail's line is the producers', and a look at each message would cost both sides a transfer. 0: the first was overwritten.
 */
static int reader_fill(struct ps__port *port, unsigned lane)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t first = port->next[lane];
    int member = ps__has_slot(port);            /* who only observes shows no interest */
    unsigned count = 0;
    for (; count < PS__COPIES; count++) {
        struct ps__cell *cell = &view->cell[(first + count) & (view->cells - 1)];
        /* SYNC(commit) acquire, other end ps__ring_put. m1.5 */
        if (ps__load_acq(&cell->stamp) != first + count + 1) break;
        /* What nobody here wants is a hole for us, and its second line stays where it is. Decided here for good, because a
         * subscription that comes before it is taken is no business of what was published before. */
        if (member && ps__interest_lacks(port, ps__load_rlx(&cell->hash))) {
            ps__copy_out(&port->copy[count], cell, offsetof(struct ps__copy, data));
            port->copy[count].meta = PS__KIND_HOLE;
        } else {
            ps__copy_out(&port->copy[count], cell, sizeof port->copy[0]);
        }
    }
    /* SYNC(claim) acquire fence, other end ps__ring_put: if a byte of a copy was of a later message, its claim is seen in
     * tail now. An acquire load of tail in its place is not enough: m1.3, m7.2. */
    ps__fence_acq();
    uint32_t tail_seq = ps__seq(ps__load_rlx(&view->lane->tail));
    port->copy_tail = tail_seq;
    port->copy_at = 0;
    port->copy_lane = lane;
    port->copy_count = 0;
    uint32_t claimed = tail_seq - (uint32_t)first;
    if (claimed > view->cells) return 0;        /* of the oldest; the others are younger */
    if (count > claimed) count = claimed;       /* stamps of what nobody has claimed yet are garbage, and nothing to step over */
    /* The second look is for a sleep of 2^32 messages inside the copy: then the first cell has another stamp too. */
    if (count == 0 || ps__load_rlx(&view->cell[first & (view->cells - 1)].stamp) != first + 1) return 0;
    port->copy_count = count;
    return 1;
}

/* The copy of the message at the cursor, if there is one. */
static struct ps__copy *reader_copy(struct ps__port *port, unsigned lane)
{
    if (port->copy_lane != lane || port->copy_at >= port->copy_count) return NULL;
    struct ps__copy *copy = &port->copy[port->copy_at];
    return copy->stamp == port->next[lane] + 1 ? copy : NULL;
}

/* May what was copied from a payload be believed? Behind that copy. */
static int reader_intact(struct ps__port *port, unsigned lane, const struct ps__copy *m)
{
    const struct ps__view *view = &port->view[lane];
    struct ps__lane *words = view->lane;
    uint64_t c = m->stamp - 1;
    uint32_t kind = m->meta & 0xff;
    ps__fence_acq();                            /* SYNC(claim) as in reader_fill; SYNC(loan) other end loan_try */
    uint64_t tail = ps__load_rlx(&words->tail);
    port->copy_tail = ps__seq(tail);
    if (ps__seq(tail) - (uint32_t)c > view->cells) return 0;
    if (ps__message_units(kind, m->size, m->meta >> 8) && ps__pos(tail) - m->pos > view->units) return 0;
    if (kind == PS__KIND_LOAN && (int64_t)(ps__load_rlx(&words->loan_floor) - c) > 0) return 0;
    return ps__load_rlx(&view->cell[c & (view->cells - 1)].stamp) == m->stamp;
}

/* Behind a failed check: lapped by number, or only this message is gone. 0: garbage that leads nowhere. */
PS_COLD static int reader_step_over(struct ps__port *port, unsigned lane, uint64_t stamp, uint32_t tail_seq)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t c = port->next[lane], cells = view->cells;
    uint64_t known = (int64_t)(stamp - (c + 1)) < 0 ? c : stamp - 1;
    uint64_t oldest = ps__expand(known, tail_seq) - cells;
    /* The lane's own 64-bit count bounds it: a damaged stamp must not send us where nothing will ever be. */
    if (((known - c) & (cells - 1)) == 0 && (int64_t)(oldest - c) > 0 && (int64_t)(ps__lane_tail(view->lane) - oldest) >= 0) {
        ps__reader_lose(port, lane, oldest - c);        /* exact: numbers have no gaps */
        return 1;
    }
    if ((int32_t)(tail_seq - (uint32_t)c) <= 0) return 0;       /* nothing was claimed here */
    if (stamp != c + 1) ps__bump(&port->corrupt, 1);
    ps__reader_lose(port, lane, 1);
    return 1;
}

/* ------------------------------------------------------------------ one message */

/* Room for a payload; grows only by messages that passed the size check. */
PS_COLD static int reader_buffer(struct ps__port *port, size_t size)
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

/* Where data and topic lie: in the copy, or in shared memory that is checked behind the use. */
struct reader_place {
    const unsigned char *data, *topic;
    int data_shared, topic_shared;
};

/* 0 if the fields contradict each other or the private geometry. */
static int reader_locate(struct ps__port *port, unsigned lane, const struct ps__copy *m, struct reader_place *at)
{
    const struct ps__view *view = &port->view[lane];
    uint32_t kind = m->meta & 0xff, unit = m->pos & (view->units - 1);
    size_t topic_len = m->meta >> 8;
    if (topic_len == 0 || topic_len > PS_TOPIC_MAX) return 0;
    if (kind == PS__KIND_INLINE) {
        if (m->size > PS__INLINE || m->size + topic_len > PS__INLINE) return 0;
        *at = (struct reader_place){ m->data, m->data + m->size, 0, 0 };
        return 1;
    }
    const unsigned char *payload = view->payload + (size_t)unit * PS__UNIT;
    if (kind == PS__KIND_RING && m->size > (uint64_t)view->units * PS__UNIT / 4) return 0;     /* nobody may send more */
    if (ps__message_units(kind, m->size, topic_len) > view->units - unit) return 0;
    if (kind == PS__KIND_RING) {
        int far = topic_len > PS__INLINE;
        *at = (struct reader_place){ payload, far ? payload + (((size_t)m->size + 15) & ~(size_t)15) : m->data, 1, far };
        return 1;
    }
    if (kind != PS__KIND_LOAN) return 0;
    uint64_t offset;
    int far = topic_len > PS__INLINE - 8;
    memcpy(&offset, m->data, 8);
    if (!view->loan && port->env->lane_open(port, lane)) return 0;
    if (!view->loan || offset % PS__UNIT || offset > view->loan_bytes || m->size > view->loan_bytes - offset) return 0;
    *at = (struct reader_place){ view->loan + offset, far ? payload : m->data + 8, 1, far };
    return 1;
}

/* Looks into the ring itself instead of copying. 1: data stays as it is until reader_release. */
static int reader_borrow(struct ps__port *port, unsigned lane, const struct ps__copy *m)
{
    struct ps__reader *reader = port->reader[port->slot];
    /* SYNC(borrow) the word, a fence, then a look at evicted; other end ring_gates: evicted, a fence, then the word. One of
     * the two sees the other. m11.2, m11.4 */
    ps__store_rlx(&reader->borrow, lane + 1u);
    ps__fence_sc();
    if (ps__load_rlx(&port->view[lane].lane->evicted[port->slot]) >= port->join_number || !reader_intact(port, lane, m)) {
        ps__store_rel(&reader->borrow, 0);
        return 0;
    }
    port->borrowing = (int)lane + 1;
    return 1;
}

static void reader_release(struct ps__port *port)
{
    if (PS_LIKELY(!port->borrowing)) return;
    unsigned lane = (unsigned)port->borrowing - 1;
    port->borrowing = 0;
    ps__store_rel(&port->reader[port->slot]->borrow, 0);        /* SYNC(borrow) release: handlers have done with it */
    port->copy_at++;
    port->next[lane]++;
    ps__reader_show(port, lane);
}

/*
 * Each message moves the cursor that publishers see, so that a reader with a slow handler is seen to move. The fence, and the
 * look who waits for room, come every 64 messages or an eighth of the ring: who waits looks every 10 ms by itself.
 */
static void reader_advance(struct ps__port *port, unsigned lane)
{
    port->next[lane]++;
    port->copy_at++;
    uint64_t unshown = port->next[lane] - port->shown[lane];
    if (unshown >= PS__BATCH || unshown >= port->view[lane].cells / 8) ps__reader_show(port, lane);
    /* SYNC(cursor) release, as in ps__reader_show. */
    else if (ps__has_slot(port)) ps__store_rel(&port->reader[port->slot]->cursor[lane], port->next[lane]);
}

static int reader_unwanted(struct ps__port *port, unsigned lane)
{
    reader_advance(port, lane);
    ps__bump(&port->unwanted, 1);
    if (port->budget) port->budget--;
    return READER_SKIPPED;
}

/* The message at the cursor, of which m is a copy that may be believed. After an error it stays. */
static int reader_take(struct ps__port *port, unsigned lane, const struct ps__copy *m, ps_record *record, int *resyncs)
{
    struct reader_place at;
    size_t topic_len = m->meta >> 8;
    if ((m->meta & 0xff) == PS__KIND_HOLE || (port->shared_lane && !port->echo && m->publisher == port->publisher))
        return reader_unwanted(port, lane);
    if (!reader_locate(port, lane, m, &at)) goto garbage;
    if (at.topic_shared) ps__copy_out(port->topic_copy, at.topic, topic_len);
    else memcpy(port->topic_copy, at.topic, topic_len);
    port->topic_copy[topic_len] = '\0';
    record->topic = (ps_topic){ port->topic_copy, topic_len, m->hash };
    if (!port->host->match(port->host, &record->topic)) {
        if (at.topic_shared && !reader_intact(port, lane, m)) goto gone;
        return reader_unwanted(port, lane);
    }
    record->data = at.data;
    if (at.data_shared) {
        if (!m->size || !port->host->borrows(port->host) || !reader_borrow(port, lane, m)) {
            int err = reader_buffer(port, (size_t)m->size + 1);
            if (err) return err;
            if ((m->meta & 0xff) == PS__KIND_LOAN) ps__copy_out_plain(port->buffer, at.data, m->size);
            else ps__copy_out(port->buffer, at.data, m->size);
            if (!reader_intact(port, lane, m)) goto gone;
            record->data = port->buffer;
        }
    }
    record->size = m->size;
    record->sequence = m->stamp - 1;
    record->publisher = ps__publisher_id(lane, m->publisher);
    record->lost = port->pending_lost[lane];
    port->pending_lost[lane] = 0;
    if (!port->borrowing) reader_advance(port, lane);
    return READER_DONE;
garbage:
    ps__bump(&port->corrupt, 1);
    port->copy_count = 0;               /* what is written there next is another message */
gone:
    (*resyncs)++;
    return reader_step_over(port, lane, m->stamp, ps__seq(ps__load_acq(&port->view[lane].lane->tail))) ? READER_SKIPPED
                                                                                                      : READER_NOTHING;
}

/* What is there now is all that this dispatch reads. Taken at the first message: a look at tail in each empty poll would cost
 * producers its line. */
static void reader_mark(struct ps__port *port)
{
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) port->stop[l] = ps__lane_tail(port->view[l].lane);
    port->stop_high = high;
    port->marked = READER_MARK_TAKEN;
}

/* One look at a lane that is readable. */
static int reader_step(struct ps__port *port, unsigned lane, ps_record *record, int *resyncs)
{
    const struct ps__copy *copy = reader_copy(port, lane);
    if (PS_LIKELY(copy != NULL)) {
        if (PS_UNLIKELY(port->marked == READER_MARK_DUE)) reader_mark(port);
        return reader_take(port, lane, copy, record, resyncs);
    }
    const struct ps__view *view = &port->view[lane];
    if (PS_UNLIKELY(ps__reader_evicted(port, lane))) {          /* gate again before going on: ps_run may never begin anew */
        (*resyncs)++;
        ps__reader_rejoin_if_evicted(port);
        return READER_SKIPPED;
    }
    uint64_t stamp = ps__load_acq(&view->cell[port->next[lane] & (view->cells - 1)].stamp), want = port->next[lane] + 1;
    if (stamp == 0 || (int64_t)(stamp - want) < 0) return READER_NOTHING;
    if (PS_UNLIKELY(port->marked == READER_MARK_DUE)) reader_mark(port);
    if (stamp == want) {
        if (port->at_head) (void)ps__lag_pause(port, 1);
        int filled = reader_fill(port, lane);
        port->at_head = filled && port->copy_count < PS__COPIES;
        if (filled) return reader_take(port, lane, &port->copy[0], record, resyncs);
    }
    (*resyncs)++;
    uint32_t tail_seq = ps__seq(ps__load_acq(&view->lane->tail));
    return reader_step_over(port, lane, stamp, tail_seq) ? READER_SKIPPED : READER_NOTHING;
}

/* ------------------------------------------------------------------ the transport operations */

int ps__port_begin(void *state, int marked)
{
    struct ps__port *port = state;
    ps__sleep_begin(port);
    ps__store_rlx(&port->reading, 1);
    reader_release(port);                       /* a pull handle's message of last time */
    if (ps__load_rlx(&port->fd_used) && ps__now_coarse_ms() - port->checked_ms >= 1000) {
        int cancel = ps__cancel_off(), err = port->env->check(port);
        (void)port->env->bell(port, PS__BELL_MESSAGE);  /* made again if somebody removed its name */
        ps__cancel_restore(cancel);
        if (err) return err;
    }
    if (!ps__load_acq(&port->joined)) return 0;
    if (ps__reader_leave_if_pending(port)) return 0;
    ps__reader_rejoin_if_evicted(port);
    unsigned high = ps__lanes_high(port);
    if (marked) (void)ps__lag_pause(port, 0);      /* behind the mark there is nothing to wait for: before it, then */
    port->marked = marked ? READER_MARK_DUE : READER_MARK_NONE;
    unsigned log = ps__geometry_depth_log(ps__load_rlx(&port->words->geometry));        /* a shared word: bounded below */
    port->budget = ((uint64_t)high << (log < 20 ? log : 20)) + 65536;   /* all that can be there, and some */
    return 0;
}

/* A lane that can be read: mapped, with something of ours in it. */
static int reader_lane(struct ps__port *port, unsigned lane)
{
    if (lane == port->lane && !port->echo && !port->shared_lane) return 0;
    if (port->marked == READER_MARK_TAKEN && (lane >= port->stop_high || (int64_t)(port->stop[lane] - port->next[lane]) <= 0))
        return 0;
    struct ps__view *view = &port->view[lane];
    if (PS_LIKELY(view->cell != NULL)) return 1;
    /* SYNC(reserve) acquire, other ends shm_lane_reserve and inproc_lane_reserve: no page is read before its word says so. */
    if (!ps__load_acq(&view->lane->ring)) return 0;
    int err = port->env->lane_open(port, lane);
    return err ? err : 1;
}

/* One round over the lanes. */
static int reader_scan(struct ps__port *port, ps_record *record)
{
    int resyncs = 0;
    /* lanes_high is raised before a lane's first commit. */
    unsigned high = ps__lanes_high(port), tried = 0;
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

int ps__port_next(void *state, ps_record *record)
{
    struct ps__port *port = state;
    reader_release(port);
    if (PS_UNLIKELY(!ps__load_acq(&port->joined))) return 0;    /* SYNC(joined) acquire: the cursors are valid */
    int rc = reader_scan(port, record);
    if (rc == 0) {
        port->at_head = 0;
        if (port->marked && port->lag_paused && !port->lag_got) ps__lag_failed(port);
        if (ps__lag_pause(port, 0) && (rc = reader_scan(port, record)) == 0) ps__lag_failed(port);
    }
    if (rc > 0) port->lag_got++;
    return rc;
}

/* A cursor beyond what the lane has claimed comes of words that were damaged: back to where the lane is. */
PS_COLD static void reader_resync(struct ps__port *port)
{
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high && !port->borrowing; l++) {
        uint64_t tail = ps__lane_tail(port->view[l].lane);
        if ((int64_t)(port->next[l] - tail) <= 0) continue;
        ps__bump(&port->corrupt, 1);
        port->copy_count = 0;
        port->next[l] = tail - 1;
        ps__reader_lose(port, l, 1);            /* how many were missed nobody can know any more: not none */
        ps__reader_show(port, l);
    }
}

/* Every 10 ms: lanes that stand before an unfinished claim are repaired if their owner is dead. */
PS_COLD static void reader_unstick(struct ps__port *port, uint64_t now)
{
    if (now - port->stuck_ms < PS__SLICE_MS) return;
    port->stuck_ms = now;
    reader_resync(port);
    if (port->shared_lane) return;
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        const struct ps__view *view = &port->view[l];
        if (!view->cell || ps__diff(ps__seq(ps__load_rlx(&view->lane->tail)), (uint32_t)port->next[l]) <= 0) continue;
        if (ps__load_acq(&view->cell[port->next[l] & (view->cells - 1)].stamp) == port->next[l] + 1) continue;
        int error = errno, cancel = ps__cancel_off();
        (void)port->env->repair(port, l);       /* asks the kernel: does anybody hold the owner's lock? */
        ps__cancel_restore(cancel);
        errno = error;
    }
}

/* Publishes what was read, and leaves if the last subscription went meanwhile. */
void ps__reader_flush(struct ps__port *port)
{
    if (!ps__load_acq(&port->joined)) return;
    uint64_t now = ps__now_coarse_ms();
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        if (l == port->lane && !port->echo && !port->shared_lane) port->next[l] = ps__lane_tail(port->view[l].lane);
        if (port->borrowing != (int)l + 1) ps__reader_show(port, l);
    }
    if (ps__has_slot(port)) {
        struct ps__about *about = port->about[port->slot];
        ps__store_rlx(&about->unwanted, ps__load_rlx(&port->unwanted));
        ps__store_rlx(&about->idle_at_ms, now);
    }
    reader_unstick(port, now);
    (void)ps__reader_leave_if_pending(port);
}

void ps__port_end(void *state, int flags)
{
    struct ps__port *port = state;
    if (!(flags & PS_END_HOLD)) reader_release(port);
    port->marked = 0;
    if (ps__load_acq(&port->joined)) {          /* before the flush may leave: then the cursors are another thread's to set */
        ps__store_rlx(&port->held_lane, port->copy_lane);
        ps__store_rlx(&port->held, reader_copy(port, port->copy_lane) ? port->copy_count - port->copy_at : 0);
    }
    ps__reader_flush(port);
    ps__store_rel(&port->reading, 0);
    ps__sleep_end(port);
}

/* Is something there to be read? *blocked: a lane whose next message is claimed and not committed, else PS_MEMBERS_MAX. */
int ps__reader_look(struct ps__port *port, unsigned *blocked)
{
    *blocked = PS_MEMBERS_MAX;
    if (!ps__load_acq(&port->joined)) return 0;
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        if (reader_lane(port, l) <= 0) continue;        /* an error shows in the next next() */
        const struct ps__view *view = &port->view[l];
        uint64_t stamp = ps__load_acq(&view->cell[port->next[l] & (view->cells - 1)].stamp);
        uint32_t claimed = ps__seq(ps__load_rlx(&view->lane->tail)) - (uint32_t)port->next[l];
        if (stamp != 0 && (int64_t)(stamp - (port->next[l] + 1)) >= 0) {
            if ((int32_t)claimed > 0) return 1;
            ps__bump(&port->corrupt, 1);        /* a stamp of what was never claimed: garbage that leads nowhere */
            continue;
        }
        if (port->shared_lane) continue;
        if ((int32_t)claimed > 0) *blocked = l;
        /* A claim a whole lap old cannot be unfinished, it gates: the lane is damaged. */
        if ((int32_t)claimed > (int32_t)view->cells && reader_step_over(port, l, stamp, (uint32_t)port->next[l] + claimed))
            return 1;
    }
    return 0;
}

#undef READER_RESYNCS
