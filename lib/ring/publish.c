/* SPDX-License-Identifier: MIT */
/*
 * publish.c - the sending side of a handle: who wants it, put it into the lane, wake who sleeps, wait for room if asked to.
 */
#include "interest.h"

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
            ps__store_rlx(&port->message_max, ps__message_max((uint64_t)port->own.units * PS__UNIT));
            struct ps__about *about = port->about[port->slot];
            ps__store_rlx(&about->flags, ps__load_rlx(&about->flags) | PS__ABOUT_SENDS);
            ps__store_rel(&port->ready, 1);                     /* SYNC(setup) release */
        }
    }
    pthread_mutex_unlock(&port->setup);
    ps__cancel_restore(cancel);
    return err;
}

/* Writer's fence: a member that lost its lock while it lived must not write into another's lane. */
static int publish_fenced(struct ps__port *port)
{
    if (port->shared_lane || PS_LIKELY(ps__load_rlx(&port->own.lane->epoch) == port->publisher)) return 0;
    return ps__fail(PS_EFENCED, "slot %u of the bus has another owner now", port->slot);
}

/* Each thread counts in a place of its own, without a locked operation; those that came too late share the last one. */
static void publish_tally(struct ps__port *port)
{
    unsigned thread = ps__thread_number();
    if (PS_LIKELY(thread < PS__TALLIES - 1)) ps__bump(&port->published[thread].count, 1);
    else ps__add_rlx(&port->published[PS__TALLIES - 1].count, 1);
}

/* One attempt. The count of receivers, or PS_EAGAIN. words: see ps__interest_set. */
static PS_ALWAYS_INLINE int publish_attempt(struct ps__port *port, const struct ps__message *m, unsigned words)
{
    uint64_t set[PS__SET_WORDS], stamp;
    if (PS_LIKELY(ps__load_acq(&port->ready))) {        /* readers had these lines last: fetch them while looking who wants it */
        struct ps__cell *cell = &port->own.cell[ps__load_rlx(&port->guess) & (port->own.cells - 1)];
        ps__prefetch_write(&port->own.lane->tail);
        ps__prefetch_write(cell);
        ps__prefetch_write((char *)cell + PS__LINE / 2);
    }
    uint64_t epoch = ps__interest_epoch(port, m->topic);
    if (!ps__interest_set(port, m->topic, epoch, words, set)) return 0;
    int err = ps__port_ready(port);
    if (PS_UNLIKELY(err)) return err;
    if (PS_UNLIKELY(publish_fenced(port))) return PS_EFENCED;
    if (PS_UNLIKELY(!m->lease && m->size > ps__load_rlx(&port->message_max)))      /* the bus's word said more */
        return ps__message_too_large(m->size, ps__load_rlx(&port->message_max));
    err = m->lease ? ps__loans_put(port, m, &stamp) : ps__ring_put(port, m, &stamp);
    if (PS_UNLIKELY(err)) return err;
    if (port->shared_lane) publish_tally(port);         /* in a lane of its own the numbers tell */

    /* SYNC(sleep) the commit before the looks at armed; other end sleep_arm. acq_rel is not enough: m5.2, m5.3. */
    ps__fence_sc();
    uint64_t again = ps__interest_epoch(port, m->topic);
    if (PS_UNLIKELY(again != epoch)) ps__interest_set(port, m->topic, again, words, set);      /* behind the fence: m5.6 */
    int count = ps__interest_count(set, words);
    /* A commit also uncovers what a fellow producer committed behind it: somebody rung for that stopped here (m9.2). Whoever
     * sleeps is rung then, whatever it wants (m9.5 holds). The look stands behind the fence (m9.4). */
    struct ps__cell *behind = &port->own.cell[stamp & (port->own.cells - 1)];
    if (PS_UNLIKELY(ps__load_acq(&behind->stamp) == stamp + 1))
        for (unsigned w = 0; w < words; w++) set[w] = ~(uint64_t)0;
    ps__wake_readers(port, set, words);
    ps__wake_waiters(port, port->lane);         /* this claim has gated its fellows (m6.5) */
    return count;
}

static int publish_once(struct ps__port *port, const struct ps__message *m)
{
    return PS_LIKELY(port->set_words == 1) ? publish_attempt(port, m, 1) : publish_attempt(port, m, port->set_words);
}

/* Publishes, and waits for room where the URL and the caller allow it. */
int ps__port_send(struct ps__port *port, const struct ps__message *m, int wait)
{
    int result = publish_once(port, m);
    if (PS_LIKELY(result != PS_EAGAIN)) return result;
    uint32_t units = ps__message_units(m->lease ? PS__KIND_LOAN : PS__KIND_RING, m->size, m->topic->len);
    if (wait && port->block_ms) {
        uint64_t deadline = ps__deadline_ns(port->block_ms);
        while (ps__space_wait(port, units, deadline)) {
            if (port->host->closing(port->host)) return ps__fail(PS_ECLOSED, "closed while waiting for room");
            result = publish_once(port, m);
            if (result != PS_EAGAIN) return result;
        }
    }
    ps__add_rlx(&port->refused, 1);
    ps__space_refused(port, units);
    return ps__fail(PS_EAGAIN, "the ring is full: a reader is behind, or a fellow publish is unfinished");
}

int ps__port_publish(void *state, const ps_topic *topic, const void *data, size_t size, int wait)
{
    struct ps__port *port = state;
    if (PS_UNLIKELY(port->observe)) return ps__fail(PS_ENOTSUP, "a handle with observe=1 sends nothing");
    uint64_t most = ps__load_rlx(&port->message_max);
    if (PS_UNLIKELY(size > most) && size > PS__MESSAGE_LEAST) {         /* or the lane is not reserved yet */
        struct ps__geometry g;
        ps__port_geometry(port, &g);
        if (!most) most = ps__message_max(ps__payload_size(&g));
        if (size > most) return ps__message_too_large(size, most);
    }
    struct ps__message m = { topic, data, size, NULL };
    return ps__port_send(port, &m, wait);
}

int ps__port_wanted(void *state, const ps_topic *topic)
{
    struct ps__port *port = state;
    uint64_t set[PS__SET_WORDS];
    if (!ps__interest_set(port, topic, ps__interest_epoch(port, topic), port->set_words, set)) return 0;
    return ps__interest_count(set, port->set_words);
}
