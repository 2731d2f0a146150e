/* SPDX-License-Identifier: MIT */
/*
 * subscribe.c - how subscriptions begin and end: ps_subscribe, ps_unsubscribe. Where they are kept: subscription.c.
 *
 * Ending one waits for its handler, if that runs on another thread, and then nobody looks at `user` any more. Its memory is freed
 * by the dispatching thread, which may hold it in a list of matches, or by who finds that there is no dispatch.
 */
#include "bus.h"
#include <errno.h>
#include <stdlib.h>

#define SUBSCRIBE_GRAVES 256u           /* a dispatch that sleeps is woken to free so many */

/* ------------------------------------------------------------------ options */

PS_COLD static int subscribe_options(const ps_sub_options *given, ps_sub_options *options)
{
    memset(options, 0, sizeof *options);
    if (!given) return 0;
    if (given->size == 0) return ps__fail(PS_EINVAL, "ps_sub_options.size is 0");
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    for (size_t i = sizeof *options; i < given->size; i++)
        if (((const unsigned char *)given)[i]) return ps__fail(PS_ENOTSUP, "subscription options of a newer version");
    if (options->flags & ~(PS_EXACT | PS_BORROW)) return ps__fail(PS_ENOTSUP, "unknown flags 0x%x", options->flags);
    if (options->reserved) return ps__fail(PS_ENOTSUP, "ps_sub_options.reserved is not 0");
    return 0;
}

/* ------------------------------------------------------------------ subscribe */

PS_COLD static int subscribe_add(ps_bus *bus, struct ps_sub *sub, ps_sub **out)
{
    struct ps__subs *subs = &bus->subs;
    uint32_t mode = sub->handler ? PS__PUSH : PS__PULL, now = ps__load_rlx(&bus->mode);
    if (now != PS__UNDECIDED && now != mode)
        return ps__fail(PS_EINVAL, "this is a %s handle", now == PS__PUSH ? "push (handlers)" : "pull (ps_next)");
    uint32_t kind = ps__load_rlx(&bus->kind);           /* of a call in progress: see dispatch_claim_undecided */
    if (kind != PS__UNDECIDED && kind != mode)
        return ps__fail(PS_EINVAL, "%s is in progress on this handle", kind == PS__PUSH ? "ps_dispatch or ps_run" : "ps_next");
    int err = ps__subs_room(subs);
    if (!err) err = bus->transport->subscribe(bus->state, &sub->filter, sub->flags, subs->count == 0);
    if (err) return err;
    ps__store_rlx(&bus->mode, mode);
    sub->number = ++subs->number;
    if (out) *out = sub;
    ps__subs_put(subs, sub);
    return 0;
}

PS_COLD int ps_subscribe(ps_bus *bus, const char *filter, ps_handler handler, void *user, const ps_sub_options *given,
                         ps_sub **out)
{
    ps_sub_options options;
    ps_filter parsed;
    if (out) *out = NULL;
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    int error = errno, cancel = ps__cancel_off(), err = subscribe_options(given, &options);
    if (!err) err = ps__filter_parse(filter, (options.flags & PS_EXACT) != 0, bus->host.seed, &parsed);
    if (!err && options.flags & PS_BORROW && !(bus->transport->can & PS_CAN_BORROW))
        err = ps__fail(PS_ENOTSUP, "%s has no PS_BORROW", bus->transport->scheme);
    if (!err) err = ps__enter(bus);
    if (err) {
        ps__cancel_restore(cancel);
        return err;
    }
    struct ps_sub *sub = calloc(1, sizeof *sub + parsed.len + 1);
    if (!sub) {
        err = ps__fail(PS_ENOMEM, "no memory for a subscription");
    } else {
        memcpy(sub->text, parsed.text, parsed.len + 1);
        sub->bus = bus;
        sub->filter = parsed;
        sub->filter.text = sub->text;
        sub->literal = parsed.wild ? (uint16_t)strcspn(parsed.text, "+#") : 0;
        sub->handler = handler;
        sub->user = user;
        sub->destroy = options.destroy;
        sub->flags = (uint16_t)options.flags;
        pthread_mutex_lock(&bus->subs.lock);
        err = subscribe_add(bus, sub, out);
        pthread_mutex_unlock(&bus->subs.lock);
        if (err) free(sub);
    }
    ps__leave(bus);
    ps__cancel_restore(cancel);
    errno = error;
    return err;
}

/* ------------------------------------------------------------------ unsubscribe */

/* Takes it out. Idle: no dispatch is in progress, and none starts until we are done. */
PS_COLD static void subscribe_remove(ps_bus *bus, struct ps_sub *sub)
{
    struct ps__subs *subs = &bus->subs;
    uint64_t nobody = 0;
    int idle;
    unsigned step = 0;
    /* Who else maintains is a few instructions from done; a dispatch would be told that it is there, and do the rest. */
    while (!(idle = ps__cas_acq(&bus->owner, &nobody, 1)) && nobody == 1) {
        ps__wait_step(&step);
        nobody = 0;
    }
    pthread_mutex_lock(&subs->lock);
    uint32_t graves = ps__subs_take(subs, sub);
    if (!idle && graves % SUBSCRIBE_GRAVES == 0) bus->transport->wake(bus->state);
    bus->transport->unsubscribe(bus->state, &sub->filter, sub->flags, subs->count == 0, idle);
    pthread_mutex_unlock(&subs->lock);
    if (!idle) return;
    /* A pull handle's list of matches may still name it; then the next ps_next sweeps. */
    if (subs->match_next >= subs->match_count) ps__subs_sweep(subs);
    ps__store_rel(&bus->owner, 0);
}

PS_COLD int ps_unsubscribe(ps_sub *sub)
{
    if (!sub) return ps__fail(PS_EINVAL, "subscription is NULL");
    ps_bus *bus = sub->bus;
    int err = ps__enter(bus);
    if (err) return err;
    int error = errno, cancel = ps__cancel_off(), inside = ps__own_dispatch(bus);
    void (*destroy)(void *) = sub->destroy;
    void *user = sub->user;
    ps__store_rlx(&sub->dead, 1);
    if (!inside) ps__fence_heavy();             /* SYNC(running) other end dispatch_deliver */
    if (ps__load_acq(&bus->running) == sub) {
        if (inside) {                           /* by its own handler */
            sub->destroy_after = 1;
            destroy = NULL;
        } else {
            if (ps__wait_begin(bus, sub, NULL)) {
                ps__store_rlx(&sub->dead, 0);   /* its handler runs all the while: no message was passed over */
                ps__leave(bus);
                ps__cancel_restore(cancel);
                return ps__fail(PS_EBUSY, "two handlers would wait for each other");
            }
            for (unsigned step = 0; ps__load_acq(&bus->running) == sub;) ps__wait_step(&step);
            ps__wait_end();
        }
    }
    subscribe_remove(bus, sub);
    ps__leave(bus);                             /* destroy may close the bus */
    ps__cancel_restore(cancel);
    if (destroy) destroy(user);
    errno = error;
    return 0;
}

#undef SUBSCRIBE_GRAVES
