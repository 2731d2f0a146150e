/* SPDX-License-Identifier: MIT */
/*
 * loan.c - zero-copy publish: chunks of the lane's loan area, handed out, pointed to by a cell, and taken back. PROTOCOL 8.
 *
 * A loan holds no claim: a claim held by user code would stop the lane. The cell is claimed at commit, under this file's
 * mutex, so that chunks are in flight in the order of their numbers. A chunk is free again once `limit` has passed its cell;
 * before it is handed out, loan_floor is raised beyond that cell, and a reader that copies from it re-checks loan_floor
 * behind its copy. All of the list is private memory; an offset read from a cell is only ever checked, never used to write.
 */
#include "ring.h"
#include <stdlib.h>

struct loan_extent { uint64_t offset, bytes; };
struct loan_flight { uint64_t offset, bytes, number; };

struct ps__loans {
    pthread_mutex_t lock;               /* all this and the leases; held while waiting only for a turn to claim */
    struct loan_extent *free;           /* by offset, never adjacent */
    uint32_t free_count, free_room;
    struct loan_flight *flight;         /* committed chunks, oldest first; a ring of cells entries */
    uint32_t first, count, room;        /* room: a power of two */
    uint64_t gives;                     /* counts what came back */
};

PS_COLD struct ps__loans *ps__loans_new(void)
{
    struct ps__loans *loans = calloc(1, sizeof *loans);
    if (loans && pthread_mutex_init(&loans->lock, NULL)) {
        free(loans);
        loans = NULL;
    }
    return loans;
}

PS_COLD void ps__loans_free(struct ps__loans *loans)
{
    if (!loans) return;
    pthread_mutex_destroy(&loans->lock);
    free(loans->free);
    free(loans->flight);
    free(loans);
}

/* ------------------------------------------------------------------ extents */

/* Cannot fail: there is an entry for every chunk that can exist. */
static void loan_give(struct ps__loans *loans, uint64_t offset, uint64_t bytes)
{
    uint32_t at = 0;
    loans->gives++;
    while (at < loans->free_count && loans->free[at].offset < offset) at++;
    int joins_left = at > 0 && loans->free[at - 1].offset + loans->free[at - 1].bytes == offset;
    int joins_right = at < loans->free_count && offset + bytes == loans->free[at].offset;
    if (joins_left && joins_right) {
        loans->free[at - 1].bytes += bytes + loans->free[at].bytes;
        memmove(&loans->free[at], &loans->free[at + 1], (--loans->free_count - at) * sizeof *loans->free);
    } else if (joins_left) {
        loans->free[at - 1].bytes += bytes;
    } else if (joins_right) {
        loans->free[at].offset = offset;
        loans->free[at].bytes += bytes;
    } else {
        memmove(&loans->free[at + 1], &loans->free[at], (loans->free_count++ - at) * sizeof *loans->free);
        loans->free[at] = (struct loan_extent){ offset, bytes };
    }
}

static int loan_take(struct ps__loans *loans, uint64_t bytes, uint64_t *offset)
{
    for (uint32_t i = 0; i < loans->free_count; i++) {
        struct loan_extent *extent = &loans->free[i];
        if (extent->bytes < bytes) continue;
        *offset = extent->offset;
        extent->offset += bytes;
        extent->bytes -= bytes;
        if (!extent->bytes) memmove(extent, extent + 1, (--loans->free_count - i) * sizeof *extent);
        return 1;
    }
    return 0;
}

/* Chunks of cells before it may be written again from now on. */
static void loan_floor(struct ps__lane *lane, uint64_t number)
{
    if ((int64_t)(number - ps__load_rlx(&lane->loan_floor)) > 0) ps__store_rlx(&lane->loan_floor, number);
}

/* Chunks whose cells limit has passed are free. */
static void loan_reclaim(struct ps__port *port)
{
    struct ps__loans *loans = port->loans;
    struct ps__lane *lane = port->own.lane;
    uint32_t limit = ps__seq(ps__load_acq(&lane->limit));       /* SYNC(limit) */
    uint64_t floor = 0;
    int any = 0;
    while (loans->count && ps__diff((uint32_t)loans->flight[loans->first].number, limit) < 0) {
        struct loan_flight *oldest = &loans->flight[loans->first];
        loan_give(loans, oldest->offset, oldest->bytes);
        floor = oldest->number + 1;
        any = 1;
        loans->first = (loans->first + 1) & (loans->room - 1);
        loans->count--;
    }
    if (any) loan_floor(lane, floor);
}

static void loan_fly(struct ps__loans *loans, uint64_t offset, uint64_t bytes, uint64_t number)
{
    loans->flight[(loans->first + loans->count++) & (loans->room - 1)] = (struct loan_flight){ offset, bytes, number };
}

/* What a chunk takes of the area: never empty, so one byte more than asked for, and never more than there is. */
static uint64_t loan_extent_of(const struct ps__view *view, uint64_t size)
{
    uint64_t bytes = (size + PS__UNIT) & ~(uint64_t)(PS__UNIT - 1);
    return bytes < view->loan_bytes ? bytes : view->loan_bytes;
}

/* The list of a fresh area, or of one that a former owner used: what cells between limit and tail point to is in flight. */
PS_COLD static int loan_rebuild(struct ps__port *port)
{
    struct ps__loans *loans = port->loans;
    const struct ps__view *view = &port->own;
    loans->room = view->cells;
    loans->free_room = view->cells + PS_LOANS_MAX * PS_MEMBERS_MAX + 2;
    loans->flight = calloc(loans->room, sizeof *loans->flight);
    loans->free = calloc(loans->free_room, sizeof *loans->free);
    if (!loans->flight || !loans->free) {
        free(loans->flight);
        free(loans->free);
        loans->flight = NULL;
        loans->free = NULL;
        return ps__fail(PS_ENOMEM, "no memory for the list of loans");
    }
    loans->first = loans->count = 0;
    loans->free_count = 1;
    loans->free[0] = (struct loan_extent){ 0, view->loan_bytes };
    uint64_t base = ps__load_rlx(&view->lane->base);
    uint32_t seq = ps__seq(ps__load_acq(&view->lane->limit)), end = ps__seq(ps__load_rlx(&view->lane->tail));
    uint64_t number = ps__nearest(base, seq);
    loan_floor(view->lane, number);             /* all that limit has passed is handed out as free */
    for (uint32_t i = 0; i < view->cells && seq != end; i++, seq++, number++) {
        struct ps__cell *cell = ps__cell_of(view, seq);
        if ((uint32_t)ps__load_acq(&cell->stamp) != seq + 1 || ps__kind(ps__load_rlx(&cell->meta)) != PS__KIND_LOAN) continue;
        uint64_t offset, bytes = loan_extent_of(view, ps__load_rlx(&cell->size));
        ps__copy_out(&offset, cell->data, 8);
        uint32_t at = 0;                /* the free extent it lies in: none, or sticking out, is garbage */
        while (at < loans->free_count && loans->free[at].offset + loans->free[at].bytes <= offset) at++;
        if (at == loans->free_count || loans->free[at].offset > offset || offset % PS__UNIT ||
            bytes > loans->free[at].offset + loans->free[at].bytes - offset) {
            ps__bump(&port->corrupt, 1);
            ps__store_rel(&cell->meta, PS__KIND_HOLE);
            ps__store_rlx(&cell->size, 0);
            continue;
        }
        struct loan_extent hit = loans->free[at];
        memmove(&loans->free[at], &loans->free[at + 1], (--loans->free_count - at) * sizeof hit);
        if (offset > hit.offset) loan_give(loans, hit.offset, offset - hit.offset);
        if (hit.offset + hit.bytes > offset + bytes) loan_give(loans, offset + bytes, hit.offset + hit.bytes - offset - bytes);
        loan_fly(loans, offset, bytes, number);
    }
    return 0;
}

/* ------------------------------------------------------------------ the transport operations */

PS_COLD static int loan_ready(struct ps__port *port)
{
    if (ps__load_acq(&port->loans_ready)) return 0;     /* SYNC(setup) */
    int cancel = ps__cancel_off(), err = 0;
    pthread_mutex_lock(&port->setup);
    if (!ps__load_rlx(&port->loans_ready)) {
        if (!port->lease) port->lease = calloc(PS_LOANS_MAX, sizeof *port->lease);
        err = port->lease ? port->env->loan_reserve(port) : ps__fail(PS_ENOMEM, "no memory for loans");
        if (!err) {
            pthread_mutex_lock(&port->loans->lock);
            if (!port->loans->free) err = loan_rebuild(port);
            pthread_mutex_unlock(&port->loans->lock);
        }
        if (!err) ps__store_rel(&port->loans_ready, 1);
    }
    pthread_mutex_unlock(&port->setup);
    ps__cancel_restore(cancel);
    return err;
}

/* One attempt: 0, PS_EFULL, or PS_EAGAIN; *waits: for the chunk of cell *oldest at least. */
static int loan_try(struct ps__port *port, const ps_topic *topic, size_t size, void **data, int *waits, uint32_t *oldest)
{
    struct ps__loans *loans = port->loans;
    struct ps__lease *lease = NULL;
    uint64_t offset = 0, bytes = loan_extent_of(&port->own, size);
    int cancel = ps__cancel_off(), err = 0;
    *waits = 0;
    pthread_mutex_lock(&loans->lock);
    for (unsigned i = 0; i < PS_LOANS_MAX && !lease; i++)
        if (!port->lease[i].data) lease = &port->lease[i];
    if (!lease) {
        err = ps__fail(PS_EFULL, "%d loans are out", PS_LOANS_MAX);
    } else {
        loan_reclaim(port);
        if (!loan_take(loans, bytes, &offset)) {
            err = PS_EAGAIN;
            port->space.gives = loans->gives;
            *waits = loans->count != 0;
            if (*waits) *oldest = (uint32_t)loans->flight[loans->first].number;
        }
    }
    if (!err) {
        lease->offset = offset;
        lease->bytes = bytes;
        lease->size = size;
        lease->busy = lease->sent = 0;
        lease->hash = topic->hash;
        lease->topic_len = topic->len;
        memcpy(lease->topic, topic->text, topic->len + 1);
        lease->data = port->own.loan + offset;
        *data = lease->data;
        /* SYNC(loan) release fence, other end ps__reader_intact: who has seen a byte of the new data sees the floor. By everybody
         * who is handed a chunk, not only by the one that raised the floor for it: m12.3, m12.4. */
        ps__fence_rel();
    }
    pthread_mutex_unlock(&loans->lock);
    ps__cancel_restore(cancel);
    return err;
}

/* When nothing fits it behaves like a full ring: whoever stands before the oldest chunk is in the way. */
static int loan_once(struct ps__port *port, const ps_topic *topic, size_t size, void **data)
{
    int waits, err;
    uint32_t oldest = 0;
    do {
        err = loan_try(port, topic, size, data, &waits, &oldest);
    } while (err == PS_EAGAIN && waits && ps__ring_pass(port, oldest));
    return err;
}

int ps__port_loan(void *state, const ps_topic *topic, size_t size, void **data, int wait)
{
    struct ps__port *port = state;
    if (port->observe) return ps__fail(PS_ENOTSUP, "a handle with observe=1 sends nothing");
    struct ps__geometry g;
    ps__port_geometry(port, &g);
    uint64_t most = ps__loan_max(ps__loans_size(&g));
    if (size > most) return ps__loan_too_large(size, most);
    int err = ps__port_ready(port);
    if (!err) err = loan_ready(port);
    if (err) return err;
    if (size > port->own.loan_bytes) return ps__loan_too_large(size, port->own.loan_bytes);
    for (uint64_t deadline = 0;;) {
        err = loan_once(port, topic, size, data);
        if (err != PS_EAGAIN) return err;
        err = ps__space_retry(port, PS__WANT_LOAN, wait, &deadline,
                              "the loan area is full: readers hold it, or loans that are out");
        if (err) return err;
    }
}

/* Has a chunk come back since, or is the oldest in flight free by now? Then a loan that found no room may be tried again. */
PS_COLD int ps__loans_again(struct ps__port *port)
{
    struct ps__loans *loans = port->loans;
    uint32_t oldest = 0;
    pthread_mutex_lock(&loans->lock);
    int came = loans->gives != port->space.gives, any = loans->count != 0;
    if (any) oldest = (uint32_t)loans->flight[loans->first].number;
    pthread_mutex_unlock(&loans->lock);
    return came || (any && ps__ring_pass(port, oldest));
}

/* Finds a loan that is out, and keeps others off it. */
static struct ps__lease *loan_find(struct ps__port *port, const void *data)
{
    struct ps__lease *found = NULL;
    if (!ps__load_acq(&port->loans_ready)) return NULL;
    pthread_mutex_lock(&port->loans->lock);
    for (unsigned i = 0; i < PS_LOANS_MAX && !found; i++)
        if (port->lease[i].data == data && !port->lease[i].busy) found = &port->lease[i];
    if (found) found->busy = 1;
    pthread_mutex_unlock(&port->loans->lock);
    return found;
}

static void loan_end(struct ps__port *port, struct ps__lease *lease)
{
    pthread_mutex_lock(&port->loans->lock);
    int sent = lease->sent;
    if (!sent) loan_give(port->loans, lease->offset, lease->bytes);
    lease->data = NULL;
    pthread_mutex_unlock(&port->loans->lock);
    if (sent) return;
    /* Another handle, or thread, may wait for just this chunk. */
    ps__fence_sc();                             /* SYNC(space) other end space_arm */
    ps__wake_waiters(port, port->lane);
}

/* Claims the cell of a loan; numbers and chunks go into flight in the same order. */
int ps__loans_put(struct ps__port *port, const struct ps__message *m, uint64_t *stamp)
{
    struct ps__loans *loans = port->loans;
    pthread_mutex_lock(&loans->lock);
    int err = ps__ring_put(port, m, stamp);
    if (!err) {
        if (loans->count == loans->room) loan_reclaim(port);    /* at most cells of them lie between limit and tail */
        if (PS_LIKELY(loans->count < loans->room)) loan_fly(loans, m->lease->offset, m->lease->bytes, *stamp - 1);
        else ps__bump(&port->corrupt, 1);       /* limit went back: somebody writes where he must not. The chunk is lost */
        m->lease->sent = 1;
    }
    pthread_mutex_unlock(&loans->lock);
    return err;
}

int ps__port_commit(void *state, void *data, size_t used, int wait)
{
    struct ps__port *port = state;
    int cancel = ps__cancel_off();
    struct ps__lease *lease = loan_find(port, data);
    int result;
    if (!lease) {
        result = ps__fail(PS_EINVAL, "no loan of this handle");
    } else if (used > lease->size) {
        result = ps__fail(PS_EINVAL, "%zu bytes of a loan of %zu", used, lease->size);
    } else {
        ps_topic topic = { lease->topic, lease->topic_len, lease->hash };
        struct ps__message m = { &topic, data, used, lease };
        result = ps__port_send(port, &m, wait);
    }
    if (result >= 0) {
        loan_end(port, lease);
    } else if (lease) {
        pthread_mutex_lock(&port->loans->lock);
        lease->busy = 0;
        pthread_mutex_unlock(&port->loans->lock);
    }
    ps__cancel_restore(cancel);
    return result;
}

PS_COLD int ps__port_cancel(void *state, void *data)
{
    struct ps__port *port = state;
    int cancel = ps__cancel_off();
    struct ps__lease *lease = loan_find(port, data);
    if (lease) loan_end(port, lease);
    ps__cancel_restore(cancel);
    return lease ? 0 : ps__fail(PS_EINVAL, "no loan of this handle");
}

/* At close: what is still out goes back to the area, which other handles of an inproc bus go on using. */
PS_COLD void ps__loans_return(struct ps__port *port)
{
    if (!port->lease) return;
    for (unsigned i = 0; i < PS_LOANS_MAX; i++)
        if (port->lease[i].data) loan_end(port, &port->lease[i]);
    free(port->lease);
    port->lease = NULL;
}
