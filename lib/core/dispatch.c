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

PS_PRIVATE PS__TLS struct ps__frame *ps__frames;

/* How the loop of one call ends. */
struct dispatch_run {
    uint64_t max;                       /* messages; UINT64_MAX: no bound but the mark */
    int marked;                         /* what was there when the call began */
    int timeout_ms;
    int forever;                        /* ps_run: time and space never end it */
    uint32_t kind;                      /* the mode of handles that it is for */
    const ps_msg **pulled;              /* ps_next: where its message goes; NULL: handlers get them */
};

/* Owned: by this thread, which runs a handler; by another one; or for maintenance, which is soon over. */
static PS_NOINLINE int dispatch_claim_slow(ps_bus *bus, uint64_t me, uint64_t seen)
{
    int error = errno, cancel = ps__cancel_off(), err = 0;
    unsigned step = 0;
    do {
        if (seen != 1) {
            err = ps__fail(PS_EBUSY, seen == me ? "ps_dispatch inside a handler of this handle"
                                                : "another thread dispatches this handle");
            break;
        }
        ps__wait_step(&step);
        seen = 0;
    } while (!ps__cas_acq(&bus->owner, &seen, me));
    ps__cancel_restore(cancel);
    errno = error;
    return err;
}

static inline int dispatch_claim(ps_bus *bus, unsigned thread)
{
    uint64_t me = thread + 2u, seen = 0;
    return PS_LIKELY(ps__cas_acq(&bus->owner, &seen, me)) ? 0 : dispatch_claim_slow(bus, me, seen);
}

/* kind is the claim's: 0 before it ends, so that the next one finds nothing of ours, nor removes what is not its own. */
static inline void dispatch_release(ps_bus *bus)
{
    ps__store_rlx(&bus->kind, PS__UNDECIDED);
    ps__store_rel(&bus->owner, 0);
}

/*
 * The claim, where it looks as if the handle had no subscription yet, or one of the other kind. If a first one of the other kind
 * came while the call waits, the call would have consumed its message before it knows, and have nobody to give it to. So it says
 * of what kind it is, and ps_subscribe refuses the other kind as long as it lasts.
 *
 * Nothing gets between the two, for this and subscribe_add happen under subs.lock. If the subscription is first, its mode is
 * there, and the call is refused here; if the call is first, its kind is there until it is over, and the subscription is refused
 * there. A mode never changes again, so a call that finds its own needs neither kind nor lock.
 */
PS_COLD static int dispatch_claim_undecided(ps_bus *bus, unsigned thread, const struct dispatch_run *run)
{
    uint32_t mode = ps__load_rlx(&bus->mode);
    if (mode == PS__UNDECIDED || mode == run->kind) {
        int err = dispatch_claim(bus, thread);
        if (err) return err;
        pthread_mutex_lock(&bus->subs.lock);
        mode = ps__load_rlx(&bus->mode);
        if (mode == PS__UNDECIDED) ps__store_rlx(&bus->kind, run->kind);
        pthread_mutex_unlock(&bus->subs.lock);
        if (mode == PS__UNDECIDED || mode == run->kind) return 0;
        dispatch_release(bus);
    }
    return ps__fail(PS_EINVAL, run->pulled ? "a push handle: ps_dispatch" : "a pull handle: ps_next");
}

/*
 * In a forked child, behind a handler: ps_after_fork has made the handle a new one, of which nothing is this call's, nor are its
 * subscriptions; what called it in the handler may even have closed it. If another thread did, our frame does not tell yet.
 */
PS_COLD static int dispatch_disowned(const ps_bus *bus, uint64_t generation)
{
    struct ps__frame *frame = ps__frames;
    if (frame->bus && bus->generation != generation) frame->bus = NULL;
    return !frame->bus;
}

/*
 * Only one thread runs a handle's handlers; which ones a message has was looked up by ps__subs_match. 0, or PS_EFORKED: a handler
 * forked, and this is the child.
 */
static PS_ALWAYS_INLINE int dispatch_deliver(ps_bus *bus, const ps_record *record, uint64_t generation)
{
    struct ps__subs *subs = &bus->subs;
    /* Volatile: they were stored one by one a moment ago, and if the compiler loaded two at once, as it likes to, that load would
     * wait until both are in the cache. */
    const volatile ps_record *from = record;
    ps_msg msg = { from->topic.text, from->topic.len, from->data, from->size, from->sequence, from->lost, from->publisher, NULL,
                   NULL };
    while (subs->match_next < subs->match_count) {
        struct ps_sub *sub = subs->match[subs->match_next++];
        ps__store_rlx(&bus->running, sub);
        ps__fence_light();              /* SYNC(running) other end ps_unsubscribe: dead, heavy fence, running */
        if (PS_LIKELY(!ps__load_rlx(&sub->dead))) {
            msg.user = sub->user;
            msg.sub = sub;
            ps__bump(&bus->delivered, 1);
            sub->handler(&msg, sub->user);
        }
        int forked = ps__process_generation() != generation;
        if (PS_UNLIKELY(forked) && dispatch_disowned(bus, generation)) return PS_EFORKED;
        /* release: whoever waits for it sees what the handler did */
        ps__store_rel(&bus->running, NULL);
        if (PS_UNLIKELY(sub->destroy_after)) {
            sub->destroy_after = 0;
            if (sub->destroy) sub->destroy(sub->user);
        }
        if (PS_UNLIKELY(forked)) return PS_EFORKED;
        if (PS_UNLIKELY(ps__load_rlx(&bus->closing))) break;
    }
    return 0;
}

/* The next of a pull handle's matches that is still subscribed. */
static PS_NOINLINE int dispatch_pull(ps_bus *bus, const ps_msg **msg)
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

/* The first of a message's. 0: there is none any more. */
static PS_NOINLINE int dispatch_pull_first(ps_bus *bus, const ps_record *record, const ps_msg **msg)
{
    bus->message = (ps_msg){ record->topic.text, record->topic.len, record->data, record->size, record->sequence, record->lost,
                             record->publisher, NULL, NULL };
    return dispatch_pull(bus, msg);
}

/* All that there are: several stops end one call. */
static int dispatch_stopped(ps_bus *bus) { return ps__swap_ar(&bus->stopping, 0) != 0; }
/* The same, if there is one that was not there before. Out of line: in the loop a message of 100 000 topics takes 10 ns more. */
PS_COLD static int dispatch_stopped_anew(ps_bus *bus, uint64_t before)
{
    return ps__load_rlx(&bus->stopping) != before && dispatch_stopped(bus);
}

/* Nothing is there, and the call waits. 1: look again, 0: it is over, or an error. */
static PS_NOINLINE int dispatch_wait(ps_bus *bus, const struct dispatch_run *run, uint64_t *deadline)
{
    if (run->timeout_ms > 0) {          /* who finds something, or does not wait, needs no clock */
        if (!*deadline) *deadline = ps__deadline_ns(run->timeout_ms);
        else if (ps__now_ns() >= *deadline) return 0;
    }
    if (ps__load_rlx(&bus->stopping) && dispatch_stopped(bus)) return 0;
    int rc = bus->transport->wait(bus->state, ps__left_ms(*deadline));
    if (rc < 0 || (rc == 0 && !run->forever)) return rc;
    rc = bus->transport->begin(bus->state, run->marked);
    return rc ? rc : 1;
}

/* The loop. Messages handled, 0, or an error; after PS_ECLOSED and PS_EFORKED nothing of the transport is touched again. */
static PS_NOINLINE int dispatch_loop(ps_bus *bus, const struct dispatch_run *run)
{
    const ps_transport *t = bus->transport;
    uint64_t generation = bus->generation, deadline = 0, handled = 0;
    /* Stops from before end a call that would wait, one more ends it at the next message. */
    uint64_t stopping = run->forever ? 0 : ps__load_rlx(&bus->stopping);
    int rc = t->begin(bus->state, run->marked);
    while (PS_LIKELY(rc >= 0)) {
        ps_record record;
        if (PS_UNLIKELY(ps__load_rlx(&bus->closing))) return PS_ECLOSED;
        if (PS_UNLIKELY(ps__load_rlx(&bus->stopping)) && dispatch_stopped_anew(bus, stopping)) break;
        if (handled >= run->max) break;
        if (PS_UNLIKELY(ps__load_rlx(&bus->subs.unswept))) ps__subs_sweep(&bus->subs);  /* this dispatch may never end */
        rc = t->next(bus->state, &record);
        if (PS_LIKELY(rc > 0)) {
            if (PS_UNLIKELY(run->pulled)) {
                if (!dispatch_pull_first(bus, &record, run->pulled)) continue;
                handled = 1;
                break;          /* before a look at stopping: a stop that came meanwhile is the next call's */
            } else if (PS_UNLIKELY(dispatch_deliver(bus, &record, generation))) {
                return PS_EFORKED;
            }
            handled++;
            continue;
        }
        bus->subs.match_count = bus->subs.match_next = 0;       /* what was matched and not delivered after all */
        if (rc < 0 || (handled && !run->forever) || run->timeout_ms == 0) break;
        rc = dispatch_wait(bus, run, &deadline);
        if (rc <= 0) break;
    }
    if (PS_UNLIKELY(ps__load_rlx(&bus->closing))) return PS_ECLOSED;
    t->end(bus->state, PS_UNLIKELY(run->pulled) && handled ? PS_END_HOLD : 0);
    if (!handled) return rc < 0 ? rc : 0;
    return (int)(handled < INT32_MAX ? handled : INT32_MAX);
}

/*
 * How a call ends that returns an error. The handle was closed by one of its handlers only if it is PS_ECLOSED or PS_EFORKED.
 * NULL: it is not this call's any more.
 */
PS_COLD static int dispatch_failed(ps_bus *bus, int result, int error)
{
    int pending = bus && bus->close_pending, forked = result == PS_EFORKED;     /* a handler forked, and this is the child */
    if (!forked) {
        dispatch_release(bus);
        ps__leave(bus);
    }
    if (pending) ps__finish_close(bus, forked);
    errno = error;
    if (forked) return ps__fail(PS_EFORKED, "a handler forked");
    return result == PS_ECLOSED ? ps__fail(PS_ECLOSED, "the handle is closed") : result;
}

static PS_NOINLINE int dispatch_call(ps_bus *bus, const struct dispatch_run *run)
{
    if (PS_UNLIKELY(!bus)) return ps__fail(PS_EINVAL, "bus is NULL");
    unsigned thread = ps__thread_number();
    int err = ps__enter_inline(bus, thread);
    if (PS_UNLIKELY(err)) return err;
    err = PS_LIKELY(ps__load_rlx(&bus->mode) == run->kind) ? dispatch_claim(bus, thread)
                                                           : dispatch_claim_undecided(bus, thread, run);
    if (PS_UNLIKELY(err)) {
        ps__leave(bus);
        return err;
    }
    int error = errno, result;
    struct ps__frame frame = { bus, ps__frames };       /* of all handlers that this call runs */
    if (PS_UNLIKELY(run->pulled) && dispatch_pull(bus, run->pulled)) {  /* the last record has further subscriptions */
        result = 1;
    } else {
        if (PS_UNLIKELY(ps__load_rlx(&bus->subs.unswept))) ps__subs_sweep(&bus->subs);
        if (PS_LIKELY(!run->pulled)) ps__frames = &frame;
        result = dispatch_loop(bus, run);
        ps__frames = frame.outer;
    }
    if (PS_UNLIKELY(result < 0)) return dispatch_failed(frame.bus, result, error);
    int more = PS_UNLIKELY(run->pulled) && result > 0 && bus->subs.match_next < bus->subs.match_count;
    dispatch_release(bus);
    if (PS_UNLIKELY(more)) bus->transport->wake(bus->state);            /* ps_fd stays readable */
    ps__leave_inline(bus, thread);
    errno = error;
    return result;
}

int ps_dispatch(ps_bus *bus, int max, int timeout_ms)
{
    struct dispatch_run run = { max > 0 ? (uint64_t)max : UINT64_MAX, max <= 0, timeout_ms, 0, PS__PUSH, NULL };
    return dispatch_call(bus, &run);
}

int ps_run(ps_bus *bus)
{
    struct dispatch_run run = { UINT64_MAX, 0, -1, 1, PS__PUSH, NULL };
    int result = dispatch_call(bus, &run);
    return result > 0 ? 0 : result;
}

int ps_next(ps_bus *bus, const ps_msg **msg, int timeout_ms)
{
    struct dispatch_run run = { 1, 0, timeout_ms, 0, PS__PULL, msg };
    if (!msg) return ps__fail(PS_EINVAL, "msg is NULL");
    *msg = NULL;
    int result = dispatch_call(bus, &run);
    if (PS_UNLIKELY(result < 0)) *msg = NULL;           /* ps_close overtook it: what it had found is gone */
    return result;
}

PS_COLD void ps_stop(ps_bus *bus)
{
    if (!bus || ps__forked(bus)) return;
    ps__add_rlx(&bus->stopping, 1);
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
