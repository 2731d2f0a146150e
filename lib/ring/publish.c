/* SPDX-License-Identifier: MIT */
/*
 * publish.c - the sending side of a handle: who wants it, put it into the lane, wake who sleeps, wait for room if asked to.
 */
#include "interest.h"
#include "put.h"

/* The lane is reserved at the first publish, so that who only subscribes takes no memory. */
PS_COLD int ps__port_reserve(struct ps__port *port)
{
    int cancel = ps__cancel_off(), err = 0;
    pthread_mutex_lock(&port->setup);
    if (!ps__load_rlx(&port->ready)) {
        err = port->env->lane_reserve(port);
        if (!err) {
            uint64_t tail = ps__load_rlx(&port->own.lane->tail);
            ps__store_rlx(&port->mark_seq, ps__seq(tail));
            ps__store_rlx(&port->mark_pos, ps__pos(tail));
            port->first_number = ps__lane_tail(port->own.lane);
            ps__store_rlx(&port->message_end, ps__message_max((uint64_t)port->own.units * PS__UNIT) + 1);
            ps__claim_take(port);
            struct ps__about *about = port->about[port->slot];
            ps__or_rlx(&about->flags, PS__ABOUT_SENDS);
            ps__store_rlx(&port->guess, ps__cell_of(&port->own, ps__seq(tail)));
            /* SYNC(setup) release, other ends publish_fenced, ps__port_ready. In this order: who is ready is not fenced. */
            if (port->shared_lane) ps__store_rel(&port->token_own, port->publisher);
            else ps__store_rel(&port->token, &port->own.lane->epoch);
            ps__store_rel(&port->ready, 1);
        }
    }
    pthread_mutex_unlock(&port->setup);
    ps__cancel_restore(cancel);
    return err;
}

/* Writer's fence: a member that lost its lock while it lived must not write into another's lane. Nor may who has none yet. */
static inline int publish_fenced(struct ps__port *port)
{
    /* SYNC(setup) acquire, other end ps__port_reserve: port->own is filled in. */
    return ps__load_acq(ps__load_acq(&port->token)) != port->publisher;
}

static PS_NOINLINE void publish_tally_slow(struct ps__port *port, uint32_t self)
{
    struct ps__tally *tally = &port->published[self % PS__TALLIES];
    uint32_t nobody = 0;
    if (self <= PS__THREAD_LAST && ps__cas_rlx(&tally->thread, &nobody, self)) ps__bump(&tally->count, 1);
    else ps__add_rlx(&port->published_rest, 1);
}

/* Each thread counts in a place of its own, without a locked operation; who finds another's there shares the rest. */
static inline void publish_tally(struct ps__port *port)
{
    uint32_t self = ps__thread_number() + 1;
    struct ps__tally *tally = &port->published[self % PS__TALLIES];
    if (PS_LIKELY(ps__load_rlx(&tally->thread) == self)) ps__bump(&tally->count, 1);
    else publish_tally_slow(port, self);
}

/* The message is there: tells those who want it, and answers how many they are. The set is the one behind the fence. */
static PS_ALWAYS_INLINE int publish_tell(struct ps__port *port, uint64_t *set, unsigned words, uint64_t stamp)
{
    const struct ps__view *view = &port->own;
    int count = ps__interest_count(set, words);
    /* Relaxed, behind the fence that is behind the stamp, and of a set that is no older: who is spared subscribed later, and is
     * not counted. m14.1, m14.2, m14.5 */
    ps__store_rlx(&view->digest[(stamp - 1) & (view->cells - 1)], ps__digest(stamp, set, words));
    /* A commit also uncovers what a fellow producer committed behind it: somebody rung for that stopped here (m9.2). Whoever
     * sleeps is rung then, whatever it wants (m9.6 holds). The looks stand behind the fence (m9.4, m9.7). tail comes first: a
     * look at a cell that nobody has claimed yet would fetch its line for reading, and the next publish fetch it once more. */
    if (PS_UNLIKELY(ps__seq(ps__load_rlx(&view->lane->tail)) != (uint32_t)stamp) &&
        (int64_t)(ps__load_acq(&ps__cell_of(view, stamp)->stamp) - stamp) > 0)     /* or used again: m9.8 */
        ps__wake_all(port);
    else
        ps__wake_readers(port, set, words);
    ps__wake_waiters(port, port->lane);         /* this claim has gated its fellows (m6.5) */
    return count;
}

/* Who wants it now. The words of the set, 0: nobody. */
static PS_NOINLINE unsigned publish_wanted(struct ps__port *port, const ps_topic *topic, uint64_t *set)
{
    uint64_t epoch = ps__interest_epoch(port, topic);
    unsigned words = ps__set_words(port);
    return ps__interest_set(port, topic, epoch, words, set) ? words : 0;
}

/* The same where the first look is not known, or no longer true: behind the fence (m5.6). */
static PS_NOINLINE int publish_tell_anew(struct ps__port *port, const ps_topic *topic, uint64_t stamp)
{
    uint64_t set[PS__SET_WORDS];
    return publish_tell(port, set, publish_wanted(port, topic, set), stamp);
}

/*
 * One attempt to send a message. The count of receivers, or PS_EAGAIN, also for what comes up seldom, or another error. sets: for
 * how many words of sets, as it was behind the epoch. small, a constant: it is inline in its cell, and compiled into the caller.
 */
static PS_ALWAYS_INLINE int publish_fast(struct ps__port *port, const struct ps__message *m, uint64_t epoch, unsigned sets,
                                         int small)
{
    uint64_t set[PS__SET_WORDS], stamp = 0;
    /* Readers had these lines last: fetch them while looking who wants it. */
    ps__prefetch_write(&port->own.lane->tail);
    const size_t last_line = put_last_line(m);
    put_prefetch_cell(ps__load_rlx(&port->guess), last_line);
    if (!ps__interest_set(port, m->topic, epoch, sets, set)) return 0;
    if (PS_UNLIKELY(publish_fenced(port))) return PS_EAGAIN;
    int err = small ? ps__put(port, m, PS__KIND_INLINE, last_line, &stamp) : ps__ring_put(port, m, &stamp);
    if (PS_UNLIKELY(err)) return err;
    if (port->shared_lane) publish_tally(port);         /* in a lane of its own the numbers tell */

    /* SYNC(sleep) the commit before the looks at armed; other end sleep_arm. acq_rel is not enough: m5.2, m5.3.
     * SYNC(digest) and before the digest, and before the set that it tells; other end ps__cells_fill. */
    ps__fence_sc();
    if (PS_UNLIKELY(ps__interest_epoch(port, m->topic) != epoch)) return publish_tell_anew(port, m->topic, stamp);
    return publish_tell(port, set, sets, stamp);
}

/* Not inline, or on a bus that had more than 128 members. message_end is 0 until the lane is reserved. */
static PS_NOINLINE int publish_other(struct ps__port *port, const ps_topic *topic, const void *data, size_t size, uint64_t epoch)
{
    unsigned sets = ps__set_words(port);                /* behind the epoch */
    struct ps__message m = { topic, data, size, NULL };
    if (PS_UNLIKELY(size >= ps__load_rlx(&port->message_end))) return PS_EAGAIN;
    return publish_fast(port, &m, epoch, sets, 0);
}

/* One attempt to send whatever it is: the first, a loan, once more where there was no room. */
static int publish_once(struct ps__port *port, const struct ps__message *m)
{
    uint64_t set[PS__SET_WORDS], stamp = 0;
    if (!publish_wanted(port, m->topic, set)) return 0;
    int err = ps__port_ready(port);
    if (err) return err;
    if (publish_fenced(port)) return ps__fail(PS_EFENCED, "slot %u of the bus has another owner now", port->slot);
    uint64_t end = ps__load_rlx(&port->message_end);
    if (!m->lease && m->size >= end) return ps__message_too_large(m->size, end - 1);    /* the bus's word said more */
    err = m->lease ? ps__loans_put(port, m, &stamp) : ps__ring_put(port, m, &stamp);
    if (err) return err;
    if (port->shared_lane) publish_tally(port);
    ps__fence_sc();                                     /* SYNC(sleep) SYNC(digest) as in publish_fast */
    return publish_tell_anew(port, m->topic, stamp);
}

/* Publishes, and waits for room where the URL and the caller allow it. */
int ps__port_send(struct ps__port *port, const struct ps__message *m, int wait)
{
    const uint32_t units = ps__message_units(m->lease ? PS__KIND_LOAN : PS__KIND_RING, m->size, m->topic->len);
    uint64_t deadline = 0;
    for (;;) {
        int result = publish_once(port, m);
        if (PS_LIKELY(result != PS_EAGAIN)) return result;
        result = ps__space_retry(port, units, wait, &deadline,
                                 "the ring is full: a reader is behind, or a fellow publish is unfinished");
        if (result) return result;
    }
}

static PS_NOINLINE int publish_any(struct ps__port *port, const ps_topic *topic, const void *data, size_t size, int wait)
{
    if (port->observe) return ps__fail(PS_ENOTSUP, "a handle with observe=1 sends nothing");
    uint64_t end = ps__load_rlx(&port->message_end);
    if (size >= end && size > PS__MESSAGE_LEAST) {      /* or the lane is not reserved yet */
        struct ps__geometry g;
        ps__port_geometry(port, &g);
        if (!end) end = ps__message_max(ps__payload_size(&g)) + 1;
        if (size >= end) return ps__message_too_large(size, end - 1);
    }
    struct ps__message m = { topic, data, size, NULL };
    return ps__port_send(port, &m, wait);
}

int ps__port_publish(void *state, const ps_topic *topic, const void *data, size_t size, int wait)
{
    struct ps__port *port = state;
    uint64_t epoch = ps__interest_epoch(port, topic);
    struct ps__message m = { topic, data, size, NULL };
    unsigned sets = PS_LIKELY(size <= PS__INLINE && size + topic->len <= port->inline_most) ? ps__set_words(port) : 0;
    int result;
    if (PS_LIKELY(sets == 1)) result = publish_fast(port, &m, epoch, 1, 1);
    else if (PS_LIKELY(sets == 2)) result = publish_fast(port, &m, epoch, 2, 1);
    else result = publish_other(port, topic, data, size, epoch);
    return PS_LIKELY(result != PS_EAGAIN) ? result : publish_any(port, topic, data, size, wait);
}

int ps__port_wanted(void *state, const ps_topic *topic)
{
    uint64_t set[PS__SET_WORDS];
    unsigned words = publish_wanted(state, topic, set);
    return ps__interest_count(set, words);
}

/* A message of any kind, without a look who wants it. */
int ps__ring_put(struct ps__port *port, const struct ps__message *m, uint64_t *stamp)
{
    uint32_t kind = m->lease ? PS__KIND_LOAN : m->size + m->topic->len <= PS__INLINE ? PS__KIND_INLINE : PS__KIND_RING;
    return ps__put(port, m, kind, put_last_line(m), stamp);
}
