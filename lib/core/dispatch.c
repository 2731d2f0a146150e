/* SPDX-License-Identifier: MIT */
/*
 * dispatch.c - messages in: ps_dispatch, ps_run, ps_next, ps_stop, ps_fd.
 *
 * One thread at a time owns a handle's dispatch. It asks the transport for the next record, looks up who wants it, and runs
 * the handlers with no lock held. A handler may do anything, also close the handle, fork, or end any subscription: after each
 * one the loop looks whether the ground is still there.
 */
#include "bus.h"
#include <errno.h>
#include <sched.h>

PS_PRIVATE PS__TLS struct ps__frame *ps__frames;

/* How the loop of one call ends. */
struct dispatch_run {
    int max;                            /* messages; 0: no bound but the mark */
    int marked;                         /* what was there when the call began */
    int timeout_ms;
    int forever;                        /* ps_run: time and space never end it */
    int pull;
};

static int dispatch_claim(ps_bus *bus)
{
    uint64_t me = ps__thread_number() + 2u, seen = 0;
    while (!ps__cas_acq(&bus->owner, &seen, me)) {
        if (seen != 1) return ps__fail(PS_EBUSY, seen == me ? "ps_dispatch inside a handler of this handle"
                                                           : "another thread dispatches this handle");
        sched_yield();                  /* maintenance is a few instructions */
        seen = 0;
    }
    return 0;
}

/* Only one thread runs a handle's handlers; which ones a message has was looked up by ps__subs_match. */
static void dispatch_deliver(ps_bus *bus, const ps_record *record)
{
    struct ps__subs *subs = &bus->subs;
    ps_msg msg = { record->topic.text, record->topic.len, record->data, record->size, record->sequence, record->lost,
                   record->publisher, NULL, NULL };
    struct ps__frame frame = { bus, ps__frames };
    uint64_t generation = bus->generation;
    ps__frames = &frame;
    while (subs->match_next < subs->match_count) {
        struct ps_sub *sub = subs->match[subs->match_next++];
        atomic_store_explicit(&bus->running, sub, memory_order_relaxed);
        ps__fence_light();              /* SYNC(running) other end ps_unsubscribe: dead, heavy fence, running */
        if (!ps__load_rlx(&sub->dead)) {
            msg.user = sub->user;
            msg.sub = sub;
            ps__bump(&bus->delivered, 1);
            sub->handler(&msg, sub->user);
        }
        /* release: whoever waits for it sees what the handler did */
        atomic_store_explicit(&bus->running, NULL, memory_order_release);
        if (PS_UNLIKELY(bus->generation != generation)) break;  /* a child's ps_after_fork: the subscription is gone */
        if (PS_UNLIKELY(sub->destroy_after)) {
            sub->destroy_after = 0;
            if (sub->destroy) sub->destroy(sub->user);
        }
        if (PS_UNLIKELY(ps__load_rlx(&bus->closing) || ps__forked(bus))) break;
    }
    ps__frames = frame.outer;
}

/* The next of a pull handle's matches that is still subscribed. */
static int dispatch_pull(ps_bus *bus, const ps_msg **msg)
{
    struct ps__subs *subs = &bus->subs;
    while (subs->match_next < subs->match_count) {
        struct ps_sub *sub = subs->match[subs->match_next++];
        if (ps__load_rlx(&sub->dead)) continue;
        bus->message.user = sub->user;
        bus->message.sub = sub;
        ps__bump(&bus->delivered, 1);
        *msg = &bus->message;
        return 1;
    }
    return 0;
}

static int dispatch_stopped(ps_bus *bus) { return ps__load_rlx(&bus->stopping) && ps__swap_ar(&bus->stopping, 0); }

/* The loop. Messages handled, 0, or an error; after PS_ECLOSED and PS_EFORKED nothing of the transport is touched again. */
static int dispatch_loop(ps_bus *bus, const struct dispatch_run *run, const ps_msg **msg)
{
    const ps_transport *t = bus->transport;
    uint64_t deadline = run->timeout_ms > 0 ? ps__deadline_ns(run->timeout_ms) : 0;    /* who does not wait needs no clock */
    uint32_t stopping = run->forever ? 0 : ps__load_rlx(&bus->stopping);        /* a stop from before ends who would wait */
    int handled = 0, err = t->begin(bus->state, run->marked);
    while (!err) {
        ps_record record;
        int rc = 0;
        if (PS_UNLIKELY(ps__load_rlx(&bus->closing))) return PS_ECLOSED;
        if (PS_UNLIKELY(ps__load_rlx(&bus->stopping)) && !stopping && dispatch_stopped(bus)) break;
        if (!run->max || handled < run->max) rc = t->next(bus->state, &record);
        else break;
        if (PS_LIKELY(rc > 0)) {
            if (run->pull) {
                bus->message = (ps_msg){ record.topic.text, record.topic.len, record.data, record.size, record.sequence,
                                         record.lost, record.publisher, NULL, NULL };
                if (!dispatch_pull(bus, msg)) continue;
            } else {
                uint64_t generation = bus->generation;
                dispatch_deliver(bus, &record);
                if (PS_UNLIKELY(generation != ps__process_generation())) return PS_EFORKED;
            }
            if (handled < INT32_MAX) handled++;
            continue;
        }
        bus->subs.match_count = bus->subs.match_next = 0;       /* what was matched and not delivered after all */
        if (rc < 0) {
            err = rc;
            break;
        }
        if ((handled && !run->forever) || run->timeout_ms == 0) break;
        if (deadline && ps__now_ns() >= deadline) break;
        if (ps__load_rlx(&bus->stopping) && dispatch_stopped(bus)) break;
        rc = t->wait(bus->state, ps__left_ms(deadline));
        if (rc < 0) err = rc;
        else if (rc == 0 && !run->forever) break;
        else err = t->begin(bus->state, run->marked);
    }
    if (PS_UNLIKELY(ps__load_rlx(&bus->closing))) return PS_ECLOSED;
    t->end(bus->state, run->pull && handled ? PS_END_HOLD : 0);
    return handled ? handled : err;
}

static int dispatch_call(ps_bus *bus, const struct dispatch_run *run, const ps_msg **msg)
{
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    int err = ps__enter(bus);
    if (err) return err;
    uint32_t other = run->pull ? PS__PUSH : PS__PULL;
    if (ps__load_rlx(&bus->mode) == other) {
        err = ps__fail(PS_EINVAL, run->pull ? "a push handle: ps_dispatch" : "a pull handle: ps_next");
    } else {
        err = dispatch_claim(bus);
    }
    if (err) {
        ps__leave(bus);
        return err;
    }
    int error = errno, result;
    if (run->pull && dispatch_pull(bus, msg)) {         /* the last record has further subscriptions */
        result = 1;
    } else {
        ps__subs_sweep(&bus->subs);
        result = dispatch_loop(bus, run, msg);
    }
    if (PS_UNLIKELY(result == PS_EFORKED)) {            /* a handler forked, and this is the child */
        if (bus->close_pending) ps__finish_close(bus, 1);
        errno = error;
        return ps__fail(PS_EFORKED, "a handler forked");
    }
    int pending = bus->close_pending, more = bus->subs.match_next < bus->subs.match_count;
    ps__store_rel(&bus->owner, 0);
    if (run->pull && result > 0 && more) bus->transport->wake(bus->state);     /* ps_fd stays readable */
    ps__leave(bus);
    if (PS_UNLIKELY(pending)) ps__finish_close(bus, 0);
    errno = error;
    return result == PS_ECLOSED ? ps__fail(PS_ECLOSED, "the handle is closed") : result;
}

int ps_dispatch(ps_bus *bus, int max, int timeout_ms)
{
    struct dispatch_run run = { max > 0 ? max : 0, max <= 0, timeout_ms, 0, 0 };
    return dispatch_call(bus, &run, NULL);
}

int ps_run(ps_bus *bus)
{
    struct dispatch_run run = { 0, 0, -1, 1, 0 };
    int result = dispatch_call(bus, &run, NULL);
    return result > 0 ? 0 : result;
}

int ps_next(ps_bus *bus, const ps_msg **msg, int timeout_ms)
{
    struct dispatch_run run = { 1, 0, timeout_ms, 0, 1 };
    if (!msg) return ps__fail(PS_EINVAL, "msg is NULL");
    *msg = NULL;
    return dispatch_call(bus, &run, msg);
}

PS_COLD void ps_stop(ps_bus *bus)
{
    if (!bus || ps__forked(bus)) return;
    ps__store_rlx(&bus->stopping, 1);
    bus->transport->wake(bus->state);
}

PS_COLD int ps_fd(ps_bus *bus)
{
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    int err = ps__enter(bus), error = errno, cancel;
    if (err) return err;
    cancel = ps__cancel_off();
    int fd = bus->transport->fd ? bus->transport->fd(bus->state)
                                : ps__fail(PS_ENOTSUP, "%s has no descriptor", bus->transport->scheme);
    ps__leave(bus);
    ps__cancel_restore(cancel);
    errno = error;
    return fd;
}
