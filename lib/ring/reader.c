/* SPDX-License-Identifier: MIT */
/*
 * reader.c - the receiving side of a handle: take the next message out of the lanes, and tell what was lost. PROTOCOL 2.
 *
 * Everything here runs on the dispatching thread. Lossy and reliable readers do the same: copy, then check against the lane's
 * limit, and if need be its tail, whether the copy may be believed; cells.c does it for many cells at once. Bytes in shared
 * memory are not trusted: what is read is checked against private geometry, in the copy of its cell, and only then used; every
 * loop has a private bound.
 */
#include "cells.h"
#include <stdlib.h>

#define READER_RESYNCS 64                       /* jumps over garbage in one call */

/* What became of a look at a lane, or at a message; errors are negative. */
enum { READER_NOTHING, READER_DONE, READER_SKIPPED };

/* ------------------------------------------------------------------ one message */

/* Room for a payload; grows only by messages that passed the size check. */
PS_COLD static int reader_buffer(struct ps__port *port, size_t size)
{
    if (size <= port->buffer_size) return 0;
    size_t room = port->buffer_size ? port->buffer_size : 4096;
    while (room < size) room *= 2;
    unsigned char *buffer = aligned_alloc(64, room);
    if (!buffer) return ps__fail(PS_ENOMEM, "no memory for a message of %zu bytes", size);
    unsigned char *old = port->buffer;
    port->buffer = buffer;
    port->buffer_size = room;
    free(old);                          /* last: a child that is forked meanwhile frees what it finds here */
    return 0;
}

/* Where data and topic lie outside of a cell: in its copy, or in shared memory that is checked behind the use. */
struct reader_place {
    unsigned char *topic;
    const unsigned char *data;
    int topic_shared;
};

/* 0 if the fields contradict each other or the private geometry. */
static int reader_locate(struct ps__port *port, unsigned lane, struct ps__copy *m, struct reader_place *at)
{
    const struct ps__view *view = &port->view[lane];
    uint32_t kind = ps__kind(m->meta), unit = m->pos & (view->units - 1);
    size_t topic_len = ps__topic_len(m->meta);
    if (topic_len == 0 || topic_len > PS_TOPIC_MAX) return 0;          /* so is an inline message that does not fit */
    unsigned char *payload = view->payload + (size_t)unit * PS__UNIT;
    if (kind == PS__KIND_RING && m->size > (uint64_t)view->units * PS__UNIT / 4) return 0;     /* nobody may send more */
    if (ps__message_units(kind, m->size, topic_len) > view->units - unit) return 0;
    if (kind == PS__KIND_RING) {
        int far = topic_len > PS__INLINE;
        *at = (struct reader_place){ far ? payload + ps__topic_offset(m->size) : m->data, payload, far };
        return 1;
    }
    if (kind != PS__KIND_LOAN) return 0;
    uint64_t offset;
    int far = topic_len > PS__INLINE - 8;
    memcpy(&offset, m->data, 8);
    if (!view->loan && port->env->lane_open(port, lane)) return 0;
    if (!view->loan || offset % PS__UNIT || offset > view->loan_bytes || m->size > view->loan_bytes - offset) return 0;
    *at = (struct reader_place){ far ? payload : m->data + 8, view->loan + offset, far };
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
    if (ps__load_rlx(&port->view[lane].lane->evicted[port->slot]) >= port->join_number || !ps__reader_intact(port, lane, m)) {
        ps__store_rel(&reader->borrow, 0);
        return 0;
    }
    port->borrowing = (int)lane + 1;
    return 1;
}

/* Behind a message: to the next one that is wanted. Publishers see the cursor move, also when the handler is slow. */
static PS_ALWAYS_INLINE void reader_advance(struct ps__port *port, const struct ps__copy *m)
{
    uint64_t next = m[1].stamp - 1;
    port->window.at++;
    ps__cells_pass(port, next);
    if (PS_UNLIKELY(next != m->stamp)) ps__cells_unwanted(port, next - m->stamp);
}

/* The same, not compiled into its caller. */
static PS_NOINLINE void reader_pass(struct ps__port *port, const struct ps__copy *m)
{
    reader_advance(port, m);
}

static PS_NOINLINE void reader_release(struct ps__port *port)
{
    unsigned lane = (unsigned)port->borrowing - 1;
    port->borrowing = 0;
    ps__store_rel(&port->reader[port->slot]->borrow, 0);        /* SYNC(borrow) release: handlers have done with it */
    reader_pass(port, &port->window.copy[port->window.at]);
    ps__reader_show(port, lane);
}

static PS_NOINLINE int reader_unwanted(struct ps__port *port, const struct ps__copy *m)
{
    port->window.missed++;
    reader_advance(port, m);
    ps__cells_unwanted(port, 1);
    return READER_SKIPPED;
}

static PS_NOINLINE int reader_miss(struct ps__port *port, const struct ps__copy *m)
{
    reader_advance(port, m);
    ps__reader_count_lost(port, port->window.lane, 1);
    return READER_SKIPPED;
}

/* Not delivered after all: it contradicts itself (garbage), or its payload was overwritten. */
PS_COLD static int reader_reject(struct ps__port *port, const struct ps__copy *m, int garbage, int *resyncs)
{
    unsigned lane = port->window.lane;
    uint64_t stamp = m->stamp;
    if (garbage) ps__bump(&port->corrupt, 1);
    ps__cells_drop(port);               /* what is written there next is another message */
    (*resyncs)++;
    if (!garbage) ps__reader_flee(port, lane, m);
    if (!ps__reader_step_over(port, lane, stamp, ps__seq(ps__load_acq(&port->view[lane].lane->tail))))
        port->turn_left = 0;            /* the other lanes first */
    return READER_SKIPPED;
}

static PS_ALWAYS_INLINE void reader_fill_in(struct ps__port *port, const struct ps__copy *m, ps_record *record)
{
    unsigned lane = port->window.lane;
    record->size = m->size;
    record->sequence = m->stamp - 1;
    record->lost = port->pending_lost[lane];
    record->publisher = ps__publisher_id(lane, m->publisher);
    port->pending_lost[lane] = 0;
}

/* In one piece, and its fields agree. */
static PS_ALWAYS_INLINE int reader_is_inline(const struct ps__copy *m)
{
    uint32_t topic_len = ps__topic_len(m->meta);
    return ps__kind(m->meta) == PS__KIND_INLINE && topic_len && (uint64_t)m->size + topic_len <= PS__INLINE;
}

/*
 * A match in a window that was sifted before the last subscription: its neighbours may have been spared that this one would have
 * got. Looks again from here on, by the cells. Behind the match, for whoever is found there has raised interests: m14.6.
 */
static PS_NOINLINE int reader_look_again(struct ps__port *port)
{
    ps__cells_drop(port);
    return READER_SKIPPED;
}
static PS_ALWAYS_INLINE int reader_stale(const struct ps__port *port)
{
    return PS_UNLIKELY(port->window.sifted) && PS_UNLIKELY(ps__load_rlx(&port->interests) != port->window.interests);
}

static PS_ALWAYS_INLINE int reader_take(struct ps__port *port, struct ps__copy *m, ps_record *record)
{
    size_t topic_len = ps__topic_len(m->meta), size = m->size;
    m->data[size + topic_len] = '\0';
    record->topic = (ps_topic){ (const char *)m->data + size, topic_len, m->hash };
    record->data = m->data;
    if (PS_UNLIKELY(!port->host->match(port->host, &record->topic))) return reader_unwanted(port, m);
    if (reader_stale(port)) return reader_look_again(port);
    reader_fill_in(port, m, record);
    reader_advance(port, m);
    return READER_DONE;
}

/* A message whose data lies elsewhere, or a hole. After an error it stays. */
static PS_NOINLINE int reader_take_far(struct ps__port *port, struct ps__copy *m, ps_record *record, int *resyncs)
{
    struct reader_place at;
    size_t topic_len = ps__topic_len(m->meta);
    if (ps__kind(m->meta) == PS__KIND_HOLE) return reader_unwanted(port, m);
    if (!reader_locate(port, port->window.lane, m, &at)) return reader_reject(port, m, 1, resyncs);
    int flees = ps__kind(m->meta) == PS__KIND_RING && ps__reader_flees(port, m);
    if (at.topic_shared) {
        if (flees) return reader_miss(port, m);         /* nobody can know whether it was wanted */
        ps__copy_out(port->topic_copy, at.topic, topic_len);
        at.topic = (unsigned char *)port->topic_copy;
    }
    at.topic[topic_len] = '\0';
    record->topic = (ps_topic){ (const char *)at.topic, topic_len, m->hash };
    if (!port->host->match(port->host, &record->topic)) {
        if (at.topic_shared && !ps__reader_intact(port, port->window.lane, m)) return reader_reject(port, m, 0, resyncs);
        return reader_unwanted(port, m);
    }
    if (reader_stale(port)) return reader_look_again(port);
    if (flees) return reader_miss(port, m);
    record->data = at.data;
    if (!m->size || !port->host->borrows(port->host) || !reader_borrow(port, port->window.lane, m)) {
        int err = reader_buffer(port, (size_t)m->size + 1);
        if (err) return err;
        if (ps__kind(m->meta) == PS__KIND_LOAN) ps__copy_out_plain(port->buffer, at.data, m->size);
        else ps__copy_out(port->buffer, at.data, m->size);
        if (!ps__reader_intact(port, port->window.lane, m)) return reader_reject(port, m, 0, resyncs);
        record->data = port->buffer;
    }
    reader_fill_in(port, m, record);
    if (!port->borrowing) reader_pass(port, m);
    return READER_DONE;
}

/* ------------------------------------------------------------------ the next window */

/* A lane that is not mapped yet: can it be read now? */
static PS_NOINLINE int reader_lane(struct ps__port *port, unsigned lane)
{
    if (port->view[lane].cell) return 1;
    /* SYNC(reserve) acquire, other ends shm_lane_reserve and inproc_lane_reserve: no page is read before its word says so. */
    if (!ps__load_acq(&port->view[lane].lane->ring)) return 0;
    int err = port->env->lane_open(port, lane);
    return err ? err : 1;
}

/* A handle with echo=0 never reads its own lane. (In a shared lane it passes over its own messages.) */
static int reader_mute(const struct ps__port *port, unsigned lane)
{
    return PS_UNLIKELY(!port->echo) && lane == port->lane && !port->shared_lane;
}

/*
 * With that stamp in its cell, is the message `next` still to come? Then the cell's second line is fetched as well: who looks
 * again and again has both when they were written, and not one after the other, which takes longer by a transfer.
 */
static PS_ALWAYS_INLINE int reader_absent(const struct ps__view *view, uint64_t next, uint64_t stamp)
{
    if ((int64_t)(stamp - next - 1) >= 0 && stamp != 0) return 0;
    __builtin_prefetch((const char *)ps__cell_of(view, next) + PS__LINE / 2);
    return 1;
}

/* One look at a lane. READER_DONE: the window has something. */
static int reader_step(struct ps__port *port, unsigned lane, int *resyncs)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t next = port->next[lane], most = UINT64_MAX;
    if (reader_mute(port, lane)) return READER_NOTHING;
    if (ps__reader_evicted(port, lane)) {       /* gate again before going on, whatever is marked: ps_run may never begin anew */
        (*resyncs)++;
        ps__reader_rejoin_if_evicted(port);
        return READER_SKIPPED;
    }
    if (port->marked == PS__MARK_TAKEN) {
        most = lane < port->stop_high ? port->stop[lane] - next : 0;
        if ((int64_t)most <= 0) return READER_NOTHING;
    }
    if (PS_UNLIKELY(!view->cell)) {
        int rc = reader_lane(port, lane);
        if (rc <= 0) return rc;
    }
    uint64_t stamp = ps__load_acq(&ps__cell_of(view, next)->stamp);
    if (reader_absent(view, next, stamp)) return READER_NOTHING;
    if (PS_LIKELY(stamp == next + 1)) {
        const int head = port->at_head && port->window.lane == lane;
        /* There is more by now. */
        if (head && port->lag.got && ps__lag_pause(port, PS__LAG_IN_STEP)) port->window.tail = next;
        int lone = !head && (port->window.lane != lane || (int64_t)(port->window.tail - next) <= 0) &&
                   ps__cells_lone(port, lane);
        if (lone || PS_LIKELY(ps__cells_fill(port, lane, most))) {
            if (port->marked == PS__MARK_DUE) ps__cells_mark(port, lane);
            return ps__cells_left(port) ? READER_DONE : READER_SKIPPED;
        }
        port->at_head = 0;
    }
    if (port->marked == PS__MARK_DUE) ps__cells_mark(port, PS_MEMBERS_MAX);
    (*resyncs)++;
    return ps__reader_step_over(port, lane, stamp, ps__seq(ps__load_acq(&view->lane->tail))) ? READER_SKIPPED : READER_NOTHING;
}

/* A dispatch steps over all that can be there, and some; not for ever over what a hostile member pretends. */
static int reader_spent(const struct ps__port *port, unsigned high)
{
    if (PS_LIKELY(!port->stepped)) return 0;
    unsigned log = ps__geometry_depth_log(ps__load_rlx(&port->words->geometry));        /* a shared word: bounded here */
    return port->stepped > ((uint64_t)high << (log < 20 ? log : 20)) + 65536;
}

/* Fills the window from the next lane that has something. 1, 0: there is nothing; or the error of a lane, where no other has. */
static int reader_scan(struct ps__port *port, int *resyncs)
{
    /* lanes_high is raised before a lane's first commit. */
    unsigned high = ps__lanes_high(port);
    if (!port->turn_left) {
        port->turn++;
        port->turn_left = PS__BATCH;
    }
    int failed = 0;
    for (unsigned tried = 0; tried < high && *resyncs < READER_RESYNCS && !reader_spent(port, high);) {
        if (port->turn >= high) port->turn = 0;
        int rc = reader_step(port, port->turn, resyncs);
        if (rc == READER_DONE) return rc;
        if (PS_UNLIKELY(rc < 0)) failed = rc;
        tried = rc == READER_SKIPPED ? 0 : tried + 1;
        if (rc == READER_SKIPPED && port->turn_left) continue;
        port->turn++;
        port->turn_left = PS__BATCH;
    }
    return failed;
}

/* At the head. It may pay to stay behind a flood. */
static PS_NOINLINE int reader_scan_again(struct ps__port *port, int *resyncs)
{
    int rc = 0;
    if (port->lag.got) {
        if (ps__lag_pause(port, PS__LAG_EMPTY) && (rc = reader_scan(port, resyncs)) == 0) ps__lag_failed(port);
    } else if (port->marked) {
        ps__lag_failed(port);
    }
    return rc;
}

/* ------------------------------------------------------------------ the transport operations */

/* With a descriptor that somebody watches. */
PS_COLD static int reader_begin_watched(struct ps__port *port)
{
    if (ps__now_coarse_ms() - port->checked_ms < 1000) return 0;
    int cancel = ps__cancel_off(), err = port->env->check(port);
    (void)port->env->bell(port, PS__BELL_MESSAGE);      /* made again if somebody removed its name */
    ps__cancel_restore(cancel);
    return err;
}

/* Is there a batch behind the cursor already? Then it is not at the head, and there is nothing to wait for. */
static int reader_behind(struct ps__port *port)
{
    unsigned lane = port->window.lane;
    if (lane >= port->lanes) return 0;
    const struct ps__view *view = &port->view[lane];
    uint64_t c = port->next[lane] + PS__BATCH;
    /* Relaxed: only whether. */
    return PS__BATCH < view->cells && ps__load_rlx(&ps__cell_of(view, c)->stamp) == c + 1;
}

/* The window still has something of the last dispatch. */
static PS_NOINLINE void reader_begin_left(struct ps__port *port)
{
    ps__cells_owe(port, port->window.lane);
    ps__reader_rejoin_if_evicted(port);
    if (port->marked == PS__MARK_DUE) ps__cells_mark(port, PS_MEMBERS_MAX);
}

int ps__port_begin(void *state, int marked)
{
    struct ps__port *port = state;
    int watched = (int)ps__load_rlx(&port->sleep.fd_used), err;
    if (PS_UNLIKELY(watched)) ps__sleep_begin(port);
    ps__store_rlx(&port->reading, 1);
    ps__fence_light();                  /* SYNC(leave) other end ps__port_unsubscribe: the mark, heavy fence, reading. m15.1 */
    if (PS_UNLIKELY(port->borrowing)) reader_release(port);     /* a pull handle's message of last time */
    if (PS_UNLIKELY(watched) && (err = reader_begin_watched(port))) return err;
    (void)ps__reader_leave_if_pending(port);
    int reads = (int)ps__load_acq(&port->joined);       /* behind it: another thread may have left in our place */
    port->at_head = 0;                  /* who knows when what is there now has come */
    /* Before the mark, or never. */
    if (reads && marked && port->lag.got && !reader_behind(port)) (void)ps__lag_pause(port, PS__LAG_BEGIN);
    port->marked = marked ? PS__MARK_DUE : PS__MARK_NONE;      /* also of who joins from now on */
    port->stepped = 0;
    if (reads && ps__cells_left(port)) reader_begin_left(port);
    return 0;
}

/* What is not an inline message of the window. */
static PS_NOINLINE int reader_next(struct ps__port *port, ps_record *record)
{
    int rc, resyncs = 0;
    ps__claim_run.claim = NULL;
    if (PS_UNLIKELY(port->borrowing)) reader_release(port);
    do {
        while (ps__cells_left(port)) {
            struct ps__copy *m = &port->window.copy[port->window.at];
            if (PS_LIKELY(reader_is_inline(m))) rc = reader_take(port, m, record);
            else rc = reader_take_far(port, m, record, &resyncs);
            if (PS_LIKELY(rc != READER_SKIPPED)) return rc;
        }
        if (PS_UNLIKELY(!ps__load_acq(&port->joined))) return 0;        /* SYNC(joined) acquire: the cursors are valid */
        rc = reader_scan(port, &resyncs);
        if (rc == 0) {
            port->at_head = 0;
            if (PS_UNLIKELY(port->lag.got | port->lag.paused)) rc = reader_scan_again(port, &resyncs);
        }
    } while (rc > 0);
    return rc;
}

/* The usual case, which needs fewer registers. */
static PS_NOINLINE int reader_next_inline(struct ps__port *port, struct ps__copy *m, ps_record *record)
{
    int rc = reader_take(port, m, record);
    return PS_LIKELY(rc == READER_DONE) ? rc : reader_next(port, record);
}

int ps__port_next(void *state, ps_record *record)
{
    struct ps__port *port = state;
    struct ps__copy *m = &port->window.copy[port->window.at];
    if (!ps__cells_left(port) || PS_UNLIKELY(!reader_is_inline(m) || port->borrowing)) return reader_next(port, record);
    return reader_next_inline(port, m, record);
}

/* Cursors that moved since publishers were last told. */
static PS_NOINLINE void reader_show_moved(struct ps__port *port)
{
    port->any_moved = 0;
    for (unsigned first = 0; first < port->lanes; first += 64) {
        uint64_t moved = port->moved[first / 64];
        port->moved[first / 64] = 0;
        for (; moved; moved &= moved - 1) {
            unsigned l = first + (unsigned)__builtin_ctzll(moved);
            if (port->borrowing != (int)l + 1) ps__reader_show(port, l);        /* reader_release does, otherwise */
        }
    }
}

/* Publishes what was read. */
static PS_ALWAYS_INLINE void reader_flush(struct ps__port *port)
{
    if (!ps__load_acq(&port->joined)) return;
    if (port->any_moved) reader_show_moved(port);
    if (reader_mute(port, port->lane) && port->lane < ps__lanes_high(port)) {
        port->next[port->lane] = ps__lane_tail(port->view[port->lane].lane);
        ps__reader_show(port, port->lane);
    }
    uint64_t now = ps__now_coarse_ms();
    if (ps__has_slot(port)) ps__store_rlx(&port->about[port->slot]->idle_at_ms, now);
    if (now - port->stuck_ms >= PS__SLICE_MS) ps__reader_unstick(port, now);
}

PS_COLD void ps__reader_flush(struct ps__port *port)
{
    reader_flush(port);
    (void)ps__reader_leave_if_pending(port);
}

void ps__port_end(void *state, int flags)
{
    struct ps__port *port = state;
    if (PS_UNLIKELY(port->borrowing) && !(flags & PS_END_HOLD)) reader_release(port);
    port->marked = 0;
    uint32_t held = 0;
    if (ps__cells_left(port)) held = (uint32_t)(port->window.copy[port->window.count].stamp - 1 - port->next[port->window.lane]);
    if (held || ps__load_rlx(&port->held)) {
        ps__store_rlx(&port->held_lane, port->window.lane);
        ps__store_rlx(&port->held, held);
    }
    reader_flush(port);
    if (PS_UNLIKELY(ps__load_rlx(&port->sleep.fd_used))) ps__sleep_end(port);
    ps__store_rel(&port->reading, 0);
    ps__fence_light();                  /* SYNC(leave) as in ps__port_begin: one of the two sees the other. m15.2 */
    (void)ps__reader_leave_if_pending(port);            /* then the cursors are another thread's to set */
}

/*
 * Is something there to be read? 1, 0; below 0: only in a lane that cannot be mapped now, and the next next() says why. *blocked:
 * a lane whose next message is claimed and not committed, else PS_MEMBERS_MAX. NULL, for who looks again and again: nobody asks,
 * and tail is left alone.
 */
int ps__reader_look(struct ps__port *port, unsigned *blocked)
{
    if (blocked) *blocked = PS_MEMBERS_MAX;
    if (!ps__load_acq(&port->joined)) return 0;
    if (ps__cells_left(port)) return 1;
    unsigned high = ps__lanes_high(port);
    int failed = 0;
    for (unsigned l = 0; l < high; l++) {
        int rc = reader_mute(port, l) ? 0 : reader_lane(port, l);
        if (rc < 0) failed = rc;
        if (rc <= 0) continue;
        const struct ps__view *view = &port->view[l];
        uint64_t next = port->next[l], stamp = ps__load_acq(&ps__cell_of(view, next)->stamp);
        int found = !reader_absent(view, next, stamp);
        if (!found && (!blocked || port->shared_lane)) continue;
        int32_t claimed = ps__diff(ps__seq(ps__load_rlx(&view->lane->tail)), (uint32_t)next);
        if (found) {
            if (claimed > 0) return 1;
            ps__bump(&port->corrupt, 1);        /* a stamp of what was never claimed: garbage that leads nowhere */
            continue;
        }
        if (claimed > 0) *blocked = l;
        /* A claim a whole lap old cannot be unfinished, it gates: the lane is damaged. */
        if (claimed > (int32_t)view->cells && ps__reader_step_over(port, l, stamp, (uint32_t)next + (uint32_t)claimed)) return 1;
    }
    return failed;
}

#undef READER_RESYNCS
