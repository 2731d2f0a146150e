/* SPDX-License-Identifier: MIT */
/*
 * bus.c - a handle: open and close, messages out, and asking. It checks what the caller gave and hands it to the transport.
 *
 * Every call marks itself inside while it runs, so that ps_close can wait for it: each thread counts in a slot of its own by
 * plain stores, and the closer pays for the order with a heavy fence (SYNC(inside)). The last slot is shared by the threads
 * whose number is too large, with locked operations.
 */
#include "bus.h"
#include "../base/topic.h"
#include <errno.h>
#include <stdlib.h>
#include <stdarg.h>
#include <stdio.h>

/* ------------------------------------------------------------------ inside */

/* A thread that has no slot of its own. */
void ps__enter_shared(ps_bus *bus)
{
    ps__add_sc(&bus->inside[PS__INSIDE - 1].count, 1);
    ps__fence_light();
}

/* Off the path: why ps__enter lets nobody in. */
int ps__enter_forked(void)
{
    return ps__fail(PS_EFORKED, "opened by the parent: ps_after_fork makes it the child's");
}

int ps__enter_closing(ps_bus *bus)
{
    ps__leave(bus);                     /* from here on the closer may have freed it */
    return ps__fail(PS_ECLOSED, "the handle is being closed");
}

PS_COLD int ps__enter(ps_bus *bus) { return ps__enter_inline(bus, ps__thread_number()); }
PS_COLD void ps__leave(ps_bus *bus) { ps__leave_inline(bus, ps__thread_number()); }

/* Waits until no call is inside. closing is set. */
PS_COLD static void bus_quiet(ps_bus *bus)
{
    ps__fence_heavy();                  /* SYNC(inside) */
    for (unsigned i = 0, step = 0; i < PS__INSIDE;) {
        if (ps__load_acq(&bus->inside[i].count) == 0) {
            i++;
            continue;
        }
        bus->transport->wake(bus->state);       /* again: it may have gone to sleep since */
        ps__wait_step(&step);
    }
}

/* ------------------------------------------------------------------ waiting for handlers */

static pthread_mutex_t bus_waiting = PTHREAD_MUTEX_INITIALIZER;

/* A thread that is not here may hold it. */
PS_COLD static void bus_in_child(struct ps__fork_entry *entry)
{
    (void)entry;
    pthread_mutex_init(&bus_waiting, NULL);
}

static struct ps__fork_entry bus_fork = { NULL, NULL, bus_in_child };

PS_COLD static int bus_runs_here(const ps_bus *bus)
{
    for (struct ps__frame *f = ps__frames; f; f = f->outer)
        if (f->bus == bus) return 1;
    return 0;
}

/*
 * Follows who waits for whom, under bus_waiting. A wait for a handler that has ended is over, though its thread may not have
 * noticed: nobody on the way can go on, else, for whoever waits takes the lock before his own handler goes on.
 */
PS_COLD static int bus_circle(const ps_bus *bus, const struct ps_sub *sub)
{
    while (bus && (!sub || ps__load_acq(&bus->running) == sub)) {
        if (bus_runs_here(bus)) return 1;
        sub = bus->waits_sub;
        bus = bus->waits_for;
    }
    return 0;
}

/* A thread that runs no handler can be in no circle. */
PS_COLD int ps__wait_begin(ps_bus *bus, const struct ps_sub *sub, int *busy)
{
    int circle = 0;
    if (ps__frames) {
        pthread_mutex_lock(&bus_waiting);
        circle = bus_circle(bus, sub);
    }
    if (!circle && !sub) *busy = ps__swap_ar(&bus->closing, 1) != 0;
    for (struct ps__frame *f = circle ? NULL : ps__frames; f; f = f->outer) {
        if (!f->bus) continue;
        f->bus->waits_for = bus;
        f->bus->waits_sub = sub;
    }
    if (ps__frames) pthread_mutex_unlock(&bus_waiting);
    return circle;
}

PS_COLD void ps__wait_end(void)
{
    if (!ps__frames) return;
    pthread_mutex_lock(&bus_waiting);
    for (struct ps__frame *f = ps__frames; f; f = f->outer)
        if (f->bus) f->bus->waits_for = NULL;
    pthread_mutex_unlock(&bus_waiting);
}

/* ------------------------------------------------------------------ the host: what transports call */

PS_COLD static int bus_host_fail(struct ps_host *host, int code, const char *format, ...)
{
    char text[256];
    va_list args;
    (void)host;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ps__fail(code, "%s", text);
}

static uint64_t bus_host_prefix(struct ps_host *host, const ps_topic *topic, int depth)
{
    return ps__topic_prefix_hash(topic, depth, host->seed);
}

static int bus_host_closing(struct ps_host *host)
{
    return (int)ps__load_rlx(&((ps_bus *)(void *)host)->closing);
}

PS_COLD static const char *bus_host_option(struct ps_host *host, const char *key)
{
    const struct ps__url *url = ((ps_bus *)(void *)host)->url;
    for (int i = 0; url && i < url->extra_count; i++)
        if (strcmp(url->extra[i].key, key) == 0) return url->extra[i].value;
    return NULL;
}

PS_COLD static int bus_host_topic(struct ps_host *host, const char *text, ps_topic *topic)
{
    return ps__topic_parse(text, host->seed, topic);
}

/* ------------------------------------------------------------------ open, close, fork */

/* This process is known from now on, and its children will be. */
PS_COLD static int bus_process(void)
{
    int error = ps__process_init();
    return error ? ps__fail_sys(error, "pthread_atfork") : 0;
}

PS_COLD static void *bus_zeroed(size_t size, size_t alignment)
{
    size = (size + alignment - 1) & ~(alignment - 1);
    void *memory = aligned_alloc(alignment, size ? size : alignment);
    if (memory) memset(memory, 0, size);
    return memory;
}

PS_COLD static int bus_open(ps_bus *bus, const char *text)
{
    char scheme[32], list[256];
    int err = ps__url_scheme(text, scheme);
    if (err) return err;
    bus->transport = ps__transport_find(scheme);
    if (!bus->transport) {
        ps__transport_list(list, sizeof list);
        return ps__fail(PS_ENOTSUP, "no transport for %s: there is %s", scheme, list);
    }
    if ((err = ps__url_parse(text, bus->transport->options, bus->url))) return err;
    if (bus->url->url.observe && !(bus->transport->can & PS_CAN_OBSERVE))
        return ps__fail(PS_ENOTSUP, "%s cannot observe (observe=1)", bus->transport->scheme);
    if (!(bus->state = bus_zeroed(bus->transport->state_size, 128))) return ps__fail(PS_ENOMEM, "no memory for a handle");
    if ((err = ps__subs_open(&bus->subs))) return err;
    if ((err = bus->transport->open(bus->state, &bus->host, &bus->url->url))) ps__subs_close(&bus->subs);
    bus->topic_key = ps__topic_key(bus->host.seed);     /* which open may have set */
    return err;
}

PS_COLD int ps_open(ps_bus **out, const char *url)
{
    if (!out) return ps__fail(PS_EINVAL, "bus is NULL");
    *out = NULL;
    if (!url) return ps__fail(PS_EINVAL, "url is NULL");
    int error = errno, cancel = ps__cancel_off(), err = bus_process();
    ps__fork_add(&bus_fork);
    ps_bus *bus = err ? NULL : bus_zeroed(sizeof *bus, 64);
    struct ps__url *parsed = calloc(1, sizeof *parsed);
    if (!err && bus && parsed) {
        bus->host = (ps_host){ sizeof bus->host, 0, bus_host_fail, ps__subs_match, ps__subs_borrows, bus_host_prefix,
                               ps__subs_each, bus_host_closing, bus_host_option, bus_host_topic };
        ps__random(&bus->host.seed, sizeof bus->host.seed);
        bus->generation = ps__process_generation();
        bus->url = parsed;
        err = bus_open(bus, url);
        bus->url = NULL;
    } else if (!err) {
        err = ps__fail(PS_ENOMEM, "no memory for a handle");
    }
    free(parsed);
    if (err && bus) {
        free(bus->state);
        free(bus);
    }
    ps__cancel_restore(cancel);
    errno = error;
    if (!err) *out = bus;
    return err;
}

PS_COLD void ps__finish_close(ps_bus *bus, int forked)
{
    int error = errno, cancel = ps__cancel_off();
    if (forked) {
        pthread_mutex_init(&bus->subs.lock, NULL);      /* a thread that is not here may hold it */
    } else {
        bus_quiet(bus);
        ps__wait_end();                 /* before it is gone: others follow who waits for whom */
    }
    ps__subs_close(&bus->subs);         /* destroy may use other handles, not this one */
    bus->transport->close(bus->state, forked);
    free(bus->state);
    free(bus);
    ps__cancel_restore(cancel);
    errno = error;
}

PS_COLD int ps_close(ps_bus *bus)
{
    if (!bus) return 0;
    int forked = ps__forked(bus);
    if (ps__own_dispatch(bus) && bus_runs_here(bus)) {  /* by a handler: when it returns */
        if (ps__swap_ar(&bus->closing, 1)) return ps__fail(PS_EBUSY, "the handle is being closed already");
        bus->close_pending = 1;
        return 0;
    }
    if (forked) {
        ps__finish_close(bus, 1);
        return 0;
    }
    int busy = 0;
    if (ps__wait_begin(bus, NULL, &busy)) return ps__fail(PS_EBUSY, "two handlers would wait for each other");
    if (!busy) ps__finish_close(bus, 0);
    ps__wait_end();
    return busy ? ps__fail(PS_EBUSY, "the handle is being closed already") : 0;
}

PS_COLD int ps_after_fork(ps_bus *bus)
{
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    if (!ps__forked(bus)) return 0;
    if (!bus->transport->after_fork)
        return ps__fail(PS_ENOTSUP, "%s has no ps_after_fork", bus->transport->scheme);
    int error = errno, cancel = ps__cancel_off(), err = bus_process();
    if (!err) err = bus->transport->after_fork(bus->state, &bus->host);
    if (!err) {
        bus->topic_key = ps__topic_key(bus->host.seed);
        ps__subs_reset(&bus->subs);
        for (unsigned i = 0; i < PS__INSIDE; i++) ps__store_rlx(&bus->inside[i].count, 0);
        ps__store_rlx(&bus->mode, PS__UNDECIDED);
        ps__store_rlx(&bus->kind, PS__UNDECIDED);
        ps__store_rlx(&bus->stopping, 0);
        ps__store_rlx(&bus->delivered, 0);
        ps__store_rlx(&bus->closing, 0);
        ps__store_rlx(&bus->running, NULL);
        bus->waits_for = NULL;
        for (struct ps__frame *f = ps__frames; f; f = f->outer)
            if (f->bus == bus) f->bus = NULL;           /* the dispatch in progress is the parent's */
        bus->close_pending = 0;         /* by a handler, before the fork: that was the parent's handle */
        bus->generation = ps__process_generation();
        ps__store_rel(&bus->owner, 0);
    }
    ps__cancel_restore(cancel);
    errno = error;
    return err;
}

/* ------------------------------------------------------------------ messages out */

int ps_publish(ps_bus *bus, const char *topic, const void *data, size_t size)
{
    ps_topic parsed;
    if (PS_UNLIKELY(!bus)) return ps__fail(PS_EINVAL, "bus is NULL");
    if (PS_UNLIKELY(!data)) {
        if (size) return ps__fail(PS_EINVAL, "data is NULL");
        data = "";
    }
    int result = ps__topic_read(topic, &bus->host.seed, &bus->topic_key, &parsed);
    if (PS_UNLIKELY(result)) return result;
    unsigned thread = ps__thread_number();
    if (PS_UNLIKELY(result = ps__enter_inline(bus, thread))) return result;
    result = bus->transport->publish(bus->state, &parsed, data, size, ps__frames == NULL);
    ps__leave_inline(bus, thread);
    return result;
}

int ps_wanted(ps_bus *bus, const char *topic)
{
    ps_topic parsed;
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    int result = ps__topic_parse(topic, bus->host.seed, &parsed);
    if (!result) result = ps__enter(bus);
    if (result) return result;
    result = bus->transport->wanted ? bus->transport->wanted(bus->state, &parsed)
                                    : ps__fail(PS_ENOTSUP, "%s cannot know", bus->transport->scheme);
    ps__leave(bus);
    return result;
}

PS_COLD int ps_loan(ps_bus *bus, const char *topic, size_t size, void **data)
{
    ps_topic parsed;
    if (data) *data = NULL;
    if (!bus || !data) return ps__fail(PS_EINVAL, bus ? "data is NULL" : "bus is NULL");
    int error = errno, result = ps__topic_parse(topic, bus->host.seed, &parsed);
    if (!result) result = ps__enter(bus);
    if (result) return result;
    result = bus->transport->loan ? bus->transport->loan(bus->state, &parsed, size, data, ps__frames == NULL)
                                  : ps__fail(PS_ENOTSUP, "%s has no loans", bus->transport->scheme);
    ps__leave(bus);
    errno = error;
    return result;
}

PS_COLD int ps_commit(ps_bus *bus, void *data, size_t used)
{
    if (!bus || !data) return ps__fail(PS_EINVAL, bus ? "data is NULL" : "bus is NULL");
    int result = ps__enter(bus);
    if (result) return result;
    result = bus->transport->commit ? bus->transport->commit(bus->state, data, used, ps__frames == NULL)
                                    : ps__fail(PS_EINVAL, "no loan of this handle");
    ps__leave(bus);
    return result;
}

PS_COLD int ps_cancel(ps_bus *bus, void *data)
{
    if (!bus) return ps__fail(PS_EINVAL, "bus is NULL");
    int result = ps__enter(bus);
    if (result) return result;
    if (data) result = bus->transport->cancel ? bus->transport->cancel(bus->state, data)
                                              : ps__fail(PS_EINVAL, "no loan of this handle");
    ps__leave(bus);
    return result;
}

/* ------------------------------------------------------------------ asking */

PS_COLD int ps_stats(ps_bus *bus, ps_bus_stats *stats)
{
    if (!bus || !stats || !stats->size) return ps__fail(PS_EINVAL, !bus ? "bus is NULL" : "stats is NULL, or its size 0");
    int err = ps__enter(bus);
    if (err) return err;
    ps_bus_stats all = { .size = sizeof all };          /* a transport of a newer version sees how far it may fill in */
    size_t room = stats->size;
    all.delivered = ps__load_rlx(&bus->delivered);
    if (bus->transport->stats) bus->transport->stats(bus->state, &all);
    all.size = room;
    memset(stats, 0, room);
    memcpy(stats, &all, room < sizeof all ? room : sizeof all);
    stats->size = room;
    ps__leave(bus);
    return 0;
}

/* A caller of another version has elements of another size. */
PS_COLD static int bus_members_converted(ps_bus *bus, const ps_topic *topic, ps_member *members, size_t n)
{
    size_t stride = members->size, each = stride < sizeof *members ? stride : sizeof *members;
    if (n > PS_MEMBERS_MAX) n = PS_MEMBERS_MAX;
    ps_member *own = calloc(n, sizeof *own);
    if (!own) return ps__fail(PS_ENOMEM, "no memory for a list of members");
    int count = bus->transport->members(bus->state, topic, own, n);
    for (size_t i = 0; count > 0 && i < n && i < (size_t)count; i++) {
        unsigned char *element = (unsigned char *)members + i * stride;
        memset(element, 0, stride);
        memcpy(element, &own[i], each);
        memcpy(element, &stride, sizeof stride);
    }
    free(own);
    return count;
}

PS_COLD int ps_members(ps_bus *bus, const char *topic, ps_member *members, size_t n)
{
    ps_topic parsed;
    if (!bus || (!members && n) || (n && members->size < sizeof(size_t)))
        return ps__fail(PS_EINVAL, !bus ? "bus is NULL" : "members is NULL, or its size 0");
    int error = errno, result = topic ? ps__topic_parse(topic, bus->host.seed, &parsed) : 0, cancel;
    if (!result) result = ps__enter(bus);
    if (result) return result;
    cancel = ps__cancel_off();
    if (!bus->transport->members) result = ps__fail(PS_ENOTSUP, "%s cannot know", bus->transport->scheme);
    else if (n && members->size != sizeof *members)
        result = bus_members_converted(bus, topic ? &parsed : NULL, members, n);
    else result = bus->transport->members(bus->state, topic ? &parsed : NULL, members, n);
    ps__leave(bus);
    ps__cancel_restore(cancel);
    errno = error;
    return result;
}
