/* SPDX-License-Identifier: MIT */
/*
 * bus.h - a handle, as the files of the core see it.
 *
 * Field           who                                          how
 *   inside        every call, its own thread's slot            SYNC(inside): store, light fence, closing; the closer: closing,
 *                                                              heavy fence, inside
 *   owner         the dispatching thread; 1 for maintenance    compare-and-swap; released by a store
 *   running       the dispatching thread                       SYNC(running): store, light fence, sub->dead; who ends a
 *                                                              subscription: dead, heavy fence, running
 *   subs          under subs.lock; the dispatching thread reads the table without it, see subscription.c
 *   closing       any thread                                   swap
 *   stopping      ps_stop in any thread; the dispatching one   add; swap to 0
 *   mode          whoever subscribes first, under subs.lock    store
 *   kind          the dispatching thread; set under subs.lock  store
 *   waits_for, waits_sub    a thread in a handler              under bus_waiting, in bus.c
 *   delivered, close_pending, message    the dispatching thread
 *   everything else is written before ps_open or ps_after_fork returns
 */
#ifndef PS_BUS_H
#define PS_BUS_H

#include "../base/base.h"
#include <pthread.h>

#define PS__INSIDE (PS__THREADS_SMALL + 1)      /* the last one is shared by the threads that have no slot of their own */

struct ps__table;                       /* subscription.c: buckets */

struct ps_sub {
    ps_bus *bus;
    struct ps_sub *_Atomic next;        /* in its bucket */
    struct ps_sub *grave;               /* freed when no dispatch can hold it */
    ps_filter filter;                   /* text is the array below */
    uint64_t number;                    /* order of subscription, and of delivery */
    ps_handler handler;
    void *user;
    void (*destroy)(void *user);
    uint16_t flags;
    uint16_t literal;                   /* bytes of the filter before its first wildcard: whole levels */
    ps__a32 dead;                       /* no handler starts any more: SYNC(running) */
    int destroy_after;                  /* ended by its own handler: destroy when that returns */
    char text[];
};

struct ps__subs {
    pthread_mutex_t lock;
    struct ps__table *_Atomic table;
    ps__a64 version;                    /* odd while the table changes */
    uint64_t number;
    uint32_t count;
    uint32_t depth_count[PS__PREFIX_LEVELS + 1];
    ps__a32 depths;                     /* bit d: wildcard filters with a prefix of d levels exist */
    ps__a64 root;                       /* hash of the prefix of no level: of all filters that begin with a wildcard */
    ps__a32 unswept;                    /* a hint that the next two are not empty */
    struct ps_sub *graves;
    uint32_t grave_count;
    struct ps__table *old_tables;
    struct ps__table *larger;           /* if it is not the table, subscriptions are moving there, this one just now: */
    struct ps_sub *moving;
    uint32_t promised;                  /* matches that there is, or will be, room for */
    struct ps_sub **_Atomic spare;      /* a larger match array for the dispatching thread; [-1] is its capacity */
    /* of the dispatching thread */
    struct ps_sub **match;
    uint32_t match_count, match_next, match_room;
    uint64_t last_version;              /* of the table, when these were found in it: */
    const struct ps_sub *last[PS__PREFIX_LEVELS + 1];   /* the wildcard filter of each depth that matched last; NULL: none */
};

enum { PS__UNDECIDED, PS__PUSH, PS__PULL };

struct ps_bus {
    ps_host host;                       /* first: a host is its handle */
    const ps_transport *transport;
    void *state;
    uint64_t generation;                /* of the process it belongs to */
    uint64_t topic_key;                 /* of host.seed: topic.h */
    ps__a32 closing;                    /* 1: calls get PS_ECLOSED */
    ps__a32 mode;
    ps__a64 stopping;                   /* calls of ps_stop() since somebody has returned because of one; too large to wrap */
    ps__a64 owner;                      /* 0 nobody, 1 maintenance, thread number + 2 */
    struct ps_sub *_Atomic running;
    int close_pending;                  /* a handler of this handle closed it */
    ps__a32 kind;                       /* the mode that a call in progress needs, begun before there was one */
    ps_bus *waits_for;                  /* under the global lock in bus.c: the handle whose handler this one's waits for, */
    const struct ps_sub *waits_sub;     /* and which one's; NULL: for all that is inside */
    ps_msg message;                     /* a pull handle's */
    ps__a64 delivered;
    struct ps__url *url;                /* during ps_open only */
    struct ps__subs subs;
    struct { _Alignas(64) ps__a32 count; } inside[PS__INSIDE];
};

/* The handles whose handlers run on this thread, innermost first. */
struct ps__frame {
    ps_bus *bus;                        /* NULL: a new one since ps_after_fork, and not this call's */
    struct ps__frame *outer;
};
PS_PRIVATE_OBJECT PS__TLS struct ps__frame *ps__frames;

/* bus.c */
/* Every public call on a handle is between the two. 0, PS_EFORKED or PS_ECLOSED (then no leave). */
PS_PRIVATE int ps__enter(ps_bus *bus);
PS_PRIVATE void ps__leave(ps_bus *bus);
PS_PRIVATE void ps__enter_shared(ps_bus *bus) PS_COLD;
PS_PRIVATE int ps__enter_forked(void) PS_COLD;                  /* never inside */
PS_PRIVATE int ps__enter_closing(ps_bus *bus) PS_COLD;          /* inside, but not any more */
static inline int ps__forked(const ps_bus *bus) { return bus->generation != ps__process_generation(); }

/* The two once more, for the calls that every message passes; thread: ps__thread_number(), asked once. */
static PS_ALWAYS_INLINE void ps__leave_inline(ps_bus *bus, unsigned thread)
{
    /* The last touch of the handle. */
    if (PS_LIKELY(thread < PS__INSIDE - 1))
        ps__store_rel(&bus->inside[thread].count, ps__load_rlx(&bus->inside[thread].count) - 1);
    else ps__sub_sc(&bus->inside[PS__INSIDE - 1].count, 1);
}

static PS_ALWAYS_INLINE int ps__enter_inline(ps_bus *bus, unsigned thread)
{
    if (PS_UNLIKELY(ps__forked(bus))) return ps__enter_forked();
    if (PS_LIKELY(thread < PS__INSIDE - 1)) {
        ps__bump(&bus->inside[thread].count, 1);
        ps__fence_light();              /* SYNC(inside) other end bus_quiet: closing, heavy fence, count */
    } else {
        ps__enter_shared(bus);
    }
    return PS_LIKELY(!ps__load_rlx(&bus->closing)) ? 0 : ps__enter_closing(bus);
}

static inline int ps__own_dispatch(ps_bus *bus) { return ps__load_rlx(&bus->owner) == ps__thread_number() + 2u; }
/*
 * Before waiting for the handler of sub to end; sub NULL: to close bus, which is marked in the same step, so that whoever is
 * refused because of us finds it closing. 1: it would be for ever.
 */
PS_PRIVATE int ps__wait_begin(ps_bus *bus, const struct ps_sub *sub, int *busy);
PS_PRIVATE void ps__wait_end(void);
/* A closed handle is freed, once every other call has left. */
PS_PRIVATE void ps__finish_close(ps_bus *bus, int forked);

/* transport.c */
/* The table of a scheme, or NULL. */
PS_PRIVATE const ps_transport *ps__transport_find(const char *scheme);
/* The schemes there are, "inproc, shm, …", for a message. */
PS_PRIVATE void ps__transport_list(char *text, size_t size);

/* subscription.c */
PS_PRIVATE int ps__subs_open(struct ps__subs *subs);
PS_PRIVATE void ps__subs_close(struct ps__subs *subs);          /* runs every destroy */
PS_PRIVATE void ps__subs_reset(struct ps__subs *subs);          /* in a forked child: the same, and ready again */
PS_PRIVATE void ps__subs_sweep(struct ps__subs *subs);          /* frees what ended; the dispatching thread, not in handlers */
/* Under subs.lock. Room for one more, before anything changes; in; out, and how many wait to be freed. */
PS_PRIVATE int ps__subs_room(struct ps__subs *subs);
PS_PRIVATE void ps__subs_put(struct ps__subs *subs, struct ps_sub *sub);
PS_PRIVATE uint32_t ps__subs_take(struct ps__subs *subs, struct ps_sub *sub);
PS_PRIVATE int ps__subs_match(struct ps_host *host, const ps_topic *topic);
PS_PRIVATE int ps__subs_borrows(struct ps_host *host);
PS_PRIVATE void ps__subs_each(struct ps_host *host, void (*visit)(void *, const ps_filter *, uint32_t), void *arg);

#endif
