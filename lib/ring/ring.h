/* SPDX-License-Identifier: MIT */
/*
 * ring.h - the lock-free machinery under inproc and shm: a handle's private side of a bus, and what it does with it.
 *
 * One algorithm for heap and shared memory. A bus has members; each member has a slot: an area that it alone writes (its
 * cursors, its interest), and in shm a lane: a ring that it alone writes. In inproc there is one lane, number 0, into which
 * every member publishes. What lies in that memory is in words.h. The protocol, every access with its order, is
 * tests/models/PROTOCOL.md; "PROTOCOL n" in comments is its section n, "m3.4" mutant 4 of its model 3.
 */
#ifndef PS_RING_H
#define PS_RING_H

#include "claim.h"
#include "words.h"
#include <pthread.h>

#define PS__BATCH      64u              /* messages from one lane before the next has its turn; waiters are told as often */
#define PS__TALLIES    16u              /* threads of a handle that count without a lock */
#define PS__COPIES     64u              /* cells a reader copies at once: not more than a batch */
#define PS__SLICE_MS   10               /* a dropped lock rings nobody: the longest sleep of who depends on one */

/* ------------------------------------------------------------------ a handle's private side */

struct ps__port;

/* What the memory's owner (inproc.c, shm.c) does for the ring. */
struct ps__env {
    /* Maps a lane whose ring word is set; fills view->cell, payload, loan. 0 or an error. The dispatching thread only. */
    int  (*lane_open)(struct ps__port *port, unsigned lane);
    /* Reserves this handle's own ring and fills port->own; under port->setup. */
    int  (*lane_reserve)(struct ps__port *port);
    /* Reserves its loan area and fills port->own.loan; under port->setup. */
    int  (*loan_reserve)(struct ps__port *port);
    /* A zeroed large filter for this handle, writable; NULL: no room, the small one stays. */
    ps__a64 *(*big_reserve)(struct ps__port *port);
    /* The large filter of a slot whose about.big is set; NULL: cannot be read. Any thread. */
    const ps__a64 *(*big_of)(struct ps__port *port, unsigned slot);
    /* Does a living process hold the slot? Never asked of port->slot. */
    int  (*alive)(struct ps__port *port, unsigned slot);
    /* A lane has stood before an unfinished claim: if its owner is dead, turn what it left into holes. 1: done. */
    int  (*repair)(struct ps__port *port, unsigned lane);
    /* Bells: which is PS__BELL_MESSAGE or PS__BELL_SPACE. */
    int  (*bell)(struct ps__port *port, int which);     /* own, made at the first call: a descriptor, or -errno */
    int  (*drain)(struct ps__port *port, int which);    /* 1: it had been rung */
    int  (*ring)(struct ps__port *port, unsigned slot, int which);      /* 1: rung, or its owner is gone; 0: try again later */
    /* Is everything still in place? At most once a second: 0, PS_EUNLINKED, … */
    int  (*check)(struct ps__port *port);
    /* Bytes reserved for a slot alone, or for the bus (PS_MEMBERS_MAX); no system call. */
    uint64_t (*memory)(struct ps__port *port, unsigned slot);
};
#define PS__BELL_MESSAGE 0
#define PS__BELL_SPACE   1

struct ps__view {                       /* a lane as this process sees it; geometry is private and checked */
    struct ps__lane *lane;
    struct ps__cell *cell;              /* NULL: not mapped (yet) */
    unsigned char *payload;
    ps__a64 *digest;                    /* of each cell */
    unsigned char *loan;                /* NULL: not mapped (yet) */
    uint32_t cells, units;              /* powers of two */
    uint64_t loan_bytes;
};

static inline struct ps__cell *ps__cell_of(const struct ps__view *view, uint64_t number)
{
    return &view->cell[number & (view->cells - 1)];
}
/* Fills in what lies in a ring of that geometry, the cells last. (geometry.c) */
PS_PRIVATE void ps__view_ring(struct ps__view *view, unsigned char *ring, const struct ps__geometry *g);

struct ps__clock {                      /* how long a reader has stood still, see ps__evict_look in evict.c */
    uint64_t join, cursor, all;         /* its cursor in this lane, and the sum of those in all lanes, when last looked at */
    uint64_t came;                      /* that sum when it was last seen to move in this lane */
    uint64_t last_ns, credit_ns, asked_ns;
};

struct ps__lease {                      /* a loan that is out */
    unsigned char *data;                /* NULL: free */
    uint64_t offset, bytes;             /* the chunk, in the loan area */
    size_t size;                        /* asked for */
    int busy, sent;                     /* a commit is in progress; it went into the lane */
    uint64_t hash;
    size_t topic_len;
    char topic[PS_TOPIC_MAX + 1];
};

struct ps__tally {
    _Alignas(64) ps__a64 count;
    ps__a32 thread;                     /* whose it is, for good: number + 1; 0: nobody's */
};

struct ps__loans;                       /* loan.c: the free list of a lane's loan area */

/* What a publisher remembers of who wants which topic: interest.c. */
struct ps__memo {
    ps__a64 *entry;                     /* PS__MEMO_ENTRIES x (set_words + 1) */
    uint64_t odd[2];                    /* random */
};

/* The copies that a reader delivers next: cells.c. */
struct ps__window {
    struct ps__copy copy[PS__COPIES + 1];
    unsigned lane, at, count;           /* of that lane; those from `at` to count are left */
    unsigned looked, missed;            /* cells that were looked at for it; copies that nobody wants after all */
    int sifted;                         /* by digests, while port.interests had that value: */
    uint32_t interests;
    uint64_t tail;                      /* what the lane had claimed when that was last asked */
    uint64_t show;                      /* the number at which waiters are told of its cursor, */
    uint64_t every;                     /* so many behind the last time */
    ps__a64 *cursor, no_cursor;         /* the word that shows it; for who only observes, one that nobody reads */
};

/* Staying behind on purpose: lag.c. */
struct ps__lag {
    unsigned got;                       /* cells looked at since the last time at the head */
    unsigned ns, paused;                /* how long a pause is now, 0: none; the last time at the head there was one */
    unsigned wait, try;                 /* times at the head without a try; so many of them lie between two */
};

/* Asleep for messages, or polled: wake.c. */
struct ps__sleep {
    struct ps__kept event;              /* readable: wake() was called, work was left, or room came about */
    _Atomic int pollset;                /* what ps_fd() answers, or -1; ours while ps__sleep_pollset says so */
    _Atomic int timer;                  /* in the set: a look in a while, where it may be that nobody rings */
    pthread_mutex_t fds;                /* making the three, setting the timer; in shm also the directory, and a bell made anew */
    ps__a32 woken;                      /* wake() was called, and no wait has ended by it since */
    ps__a32 event_set;                  /* the event is readable, or will be at once */
    ps__a32 in_wait, fd_used;           /* a dispatch sleeps, or is about to; ps_fd() was called */
    ps__a32 timer_runs;                 /* or ran out: set under fds; a look without it stops the timer too late at worst */
    int armed, told;                    /* by the dispatching thread; told: this dispatch says that room came about */
    ps__a32 deaf;                       /* nobody can ring us: sleep in slices. Set by env.bell */
    uint64_t number;                    /* of the last sleep; even while awake */
};

/* Waiting for room: space.c. */
struct ps__space {
    pthread_mutex_t lock;               /* guards the next six: one leader polls, further threads queue */
    pthread_cond_t cond;
    _Atomic int leader;
    int armed;
    ps__a32 polled;                     /* its bell is in the pollset */
    _Atomic int fd;                     /* its bell, or -1 */
    uint64_t number;                    /* of the last wait; even while nobody waits */
    ps__a32 units;                      /* what the refused publish needed; or PS__WANT_LOAN */
    uint64_t gives;                     /* of the loans, when one found no room; under their lock */
    ps__a32 wanted;                     /* a publish was refused, and nobody was told since that it may be tried again */
    ps__a32 event;                      /* it may be tried again */
};

/* The filters behind the interest that a handle shows: interest.c, under the core's subscription lock. */
struct ps__bloom {
    uint16_t *count;                    /* by bit */
    uint16_t *big_count;
    ps__a64 *big;                       /* own large filter, once in use */
    uint32_t wild_count[PS__PREFIX_LEVELS + 1];
    uint64_t filters;
};

struct ps__port {
    ps_host *host;
    const struct ps__env *env;
    struct ps__words *words;
    struct ps__reader *reader[PS_MEMBERS_MAX];
    struct ps__about *about[PS_MEMBERS_MAX];
    ps__a64 *bits[PS_MEMBERS_MAX];      /* small filters */
    struct ps__view view[PS_MEMBERS_MAX];       /* lanes to read: `lane` is for any thread, the rest for the dispatching one */
    unsigned members, set_words;
    unsigned lanes;                     /* members, or 1 when the lane is shared */
    unsigned slot;                      /* own; PS_MEMBERS_MAX when the handle only observes */
    unsigned lane;                      /* the one it publishes into: its slot, or 0 when the lane is shared */
    int shared_lane;                    /* inproc */
    uint32_t publisher;                 /* own number, in every cell */
    int observe, lossy, echo;
    int block_ms, evict_ms, spin_us;

    /* publishing: any thread */
    struct ps__view own;                /* the lane this handle writes */
    struct ps__claim *claim;            /* of that lane; shared by the handles of an inproc bus, else the next */
    struct ps__claim claim_own;
    ps__a32 ready, loans_ready;         /* own.cell, own.loan are there: SYNC(setup) */
    pthread_mutex_t setup;              /* reserving */
    pthread_mutex_t patience;           /* the clocks; only ever tried */
    struct ps__cell *_Atomic guess;     /* the cell that is likely claimed next: what to fetch early */
    uint32_t inline_most;               /* bytes of topic and data that go the short way; 0: this handle sends nothing */
    ps__a64 *_Atomic token;             /* a word that holds `publisher` while this handle may write its lane: SYNC(setup) */
    ps__a64 token_own;                  /* that word in a shared lane, and, with another value, before the lane is reserved */
    ps__a64 message_end;                /* sizes below it go; 0 until the lane is reserved: SYNC(setup) */
    ps__a32 mark_seq, mark_pos;         /* when to look for room ahead of need */
    struct ps__memo memo;
    ps__a64 rung[PS_MEMBERS_MAX], rung_space[PS_MEMBERS_MAX];  /* sleep it was rung for, by bell */
    ps__a64 dead[PS_MEMBERS_MAX];       /* ps__dead_mark of the join_last of a reader found dead, else 0 */
    ps__a64 dead_set[PS__SET_WORDS];
    struct ps__clock clock[PS_MEMBERS_MAX];
    struct ps__loans *loans;            /* of the lane; shared by the handles of an inproc bus */
    struct ps__lease *lease;            /* PS_LOANS_MAX, at the first loan */
    ps__a64 refused, evictions, wakes;
    struct ps__tally published[PS__TALLIES];    /* in a shared lane, by thread */
    ps__a64 published_rest;
    uint64_t first_number;              /* in a lane of its own: where it began */
    struct ps__space space;

    /* reading: the dispatching thread, or whoever joins while joined is 0 */
    ps__a32 joined;                     /* SYNC(joined): cursors below are valid */
    ps__a32 leave_pending;              /* one of the two below: SYNC(leave) */
    uint64_t join_number;
    uint64_t next[PS_MEMBERS_MAX];      /* the next number to read, by lane */
    uint64_t shown[PS_MEMBERS_MAX];     /* the same when waiters were last told */
    uint64_t moved[PS__SET_WORDS];      /* lanes of which next may be beyond shown, and waiters are told */
    int any_moved;
    uint64_t stop[PS_MEMBERS_MAX];      /* ps_dispatch(max <= 0) reads up to here */
    uint64_t pending_lost[PS_MEMBERS_MAX];
    unsigned turn, turn_left, stop_high;        /* the lane that has its turn; lanes that have a stop */
    uint64_t stepped;                   /* messages this dispatch has stepped over: bounded */
    unsigned at_head;                   /* the last look took all there was */
    struct ps__lag lag;
    int marked, borrowing;              /* borrowing: lane + 1 whose record is out in place */
    uint64_t stuck_ms;                  /* when lanes were looked at that stand before an unfinished claim */
    unsigned char *buffer;              /* payloads that are not inline, 64-byte aligned */
    size_t buffer_size;
    uint64_t mute;                      /* the publisher whose messages in a shared lane are passed over; beyond 32 bits: none */
    struct ps__window window;
    ps__a32 interests;                  /* counts subscriptions; odd while one is being added: SYNC(sift) */
    struct { uint64_t from; uint32_t interests; } sift[PS_MEMBERS_MAX];         /* of each lane: cells.c */
    struct { uint64_t end; unsigned lane, pos; } flee;  /* that lane's payloads before pos, of numbers before end, are given up */
    ps__a32 reading;                    /* a dispatch is in progress: cursors lag */
    ps__a32 held, held_lane;            /* between dispatches: numbers in the window, which cannot be lost any more */
    char topic_copy[PS_TOPIC_MAX + 1];  /* of a topic that did not fit into its cell */
    ps__a64 lost, unwanted, evicted, corrupt, sleeps;
    ps__a64 lost_told;                  /* the most that ps_stats() ever said */
    uint64_t checked_ms;
    int unlinked_told;
    struct ps__sleep sleep;
    struct ps__bloom bloom;
};

/* Lanes that ever held a message, and slots that ever had a member: acquire, so at every look. Shared words, hence bounded. */
static inline unsigned ps__lanes_high(const struct ps__port *port)
{
    uint64_t high = ps__load_acq(&port->words->lanes_high);
    return high < port->lanes ? (unsigned)high : port->lanes;
}
static inline unsigned ps__slots_high(const struct ps__port *port)
{
    uint64_t high = ps__load_acq(&port->words->slots_high);
    return high < port->members ? (unsigned)high : port->members;
}
static inline uint64_t ps__set_bit(unsigned slot) { return (uint64_t)1 << (slot & 63u); }
static inline uint64_t ps__publisher_id(unsigned lane, uint32_t number) { return (uint64_t)(lane + 1) << 32 | number; }

struct ps__message {
    const ps_topic *topic;
    const void *data;                   /* copied, unless it is a loan */
    size_t size;
    struct ps__lease *lease;            /* the loan, or NULL */
};

/* Units a message takes of the payload ring. For a hole, size is its extent. */
static inline uint32_t ps__message_units(uint32_t kind, size_t size, size_t topic_len)
{
    switch (kind) {
    case PS__KIND_RING:
        if (topic_len > PS__INLINE) size = ps__topic_offset(size) + topic_len;
        return (uint32_t)((size + PS__UNIT - 1) / PS__UNIT);
    case PS__KIND_LOAN:
        return topic_len > PS__INLINE - 8 ? (uint32_t)((topic_len + PS__UNIT - 1) / PS__UNIT) : 0;
    case PS__KIND_HOLE:
        return (uint32_t)size;
    default:
        return 0;
    }
}

/* ring.c: room, recovery */
PS_PRIVATE int ps__ring_make_room(struct ps__port *port, uint64_t tail, uint32_t units, int full, int done);
/* Steps over so many committed cells from limit on; answers where the first is that is not, or was not looked at. */
PS_PRIVATE uint64_t ps__ring_walk(struct ps__port *port, uint64_t tail, uint64_t limit, unsigned most);
/* Would a message of `units` fit now? Raises limit, looks at the readers. full: blame those that are in the way. */
PS_PRIVATE int ps__ring_room(struct ps__port *port, uint64_t tail, uint32_t units, int full);
/* What a message of that many units takes, with what is left over at the ring's end. */
PS_PRIVATE uint32_t ps__ring_extent(const struct ps__view *view, uint64_t tail, uint32_t units);
/* The same for a loan area: has limit passed the cell seq? Blames the readers that stand before it. */
PS_PRIVATE int ps__ring_pass(struct ps__port *port, uint32_t seq);
/* Under the dead owner's lock, or by the new owner: what it left becomes holes. 0, or 1: damaged, all of it is given up. */
PS_PRIVATE int ps__ring_recover(struct ps__port *port, const struct ps__view *view);
/* A zeroed lane of a new bus: where its numbers begin. */
PS_PRIVATE void ps__lane_init(struct ps__lane *lane);

/* evict.c */
#define PS__JOIN_HOSTILE ((uint64_t)1 << 62)    /* no join of anybody has a number beyond */
static inline uint64_t ps__dead_mark(uint64_t join_last) { return join_last + 1 ? join_last + 1 : 1; }
PS_PRIVATE void ps__evict_forget(struct ps__port *port, unsigned r);    /* somebody new lives in what was taken for dead */
/* A reader holds back a publish. 1: it no longer does, look again. */
PS_PRIVATE int ps__evict_look(struct ps__port *port, unsigned r);

/* publish.c: the transport operations of the sending side */
PS_PRIVATE int ps__port_publish(void *state, const ps_topic *topic, const void *data, size_t size, int wait);
PS_PRIVATE int ps__port_wanted(void *state, const ps_topic *topic);
/* The message's number + 1 in *stamp and 0; PS_EAGAIN, nothing done. Of any kind; who sends many compiles ps__put of put.h. */
PS_PRIVATE int ps__ring_put(struct ps__port *port, const struct ps__message *m, uint64_t *stamp);
PS_PRIVATE int ps__port_send(struct ps__port *port, const struct ps__message *m, int wait);
PS_PRIVATE int ps__port_reserve(struct ps__port *port);
static inline int ps__port_ready(struct ps__port *port)         /* the own lane is reserved, or an error */
{
    return PS_LIKELY(ps__load_acq(&port->ready)) ? 0 : ps__port_reserve(port);  /* SYNC(setup) acquire: port->own is filled in */
}

/* loan.c */
PS_PRIVATE int ps__port_loan(void *state, const ps_topic *topic, size_t size, void **data, int wait);
PS_PRIVATE int ps__port_commit(void *state, void *data, size_t used, int wait);
PS_PRIVATE int ps__port_cancel(void *state, void *data);
PS_PRIVATE int ps__loans_put(struct ps__port *port, const struct ps__message *m, uint64_t *stamp);
PS_PRIVATE int ps__loans_again(struct ps__port *port);
PS_PRIVATE struct ps__loans *ps__loans_new(void);
PS_PRIVATE void ps__loans_free(struct ps__loans *loans);
PS_PRIVATE void ps__loans_return(struct ps__port *port);        /* at close */

/* join.c */
static inline int ps__has_slot(const struct ps__port *port) { return port->slot < PS_MEMBERS_MAX; }
PS_PRIVATE void ps__reader_show(struct ps__port *port, unsigned lane);          /* publishes the cursor */
PS_PRIVATE void ps__reader_count_lost(struct ps__port *port, unsigned lane, uint64_t count);
PS_PRIVATE void ps__reader_skip_lost(struct ps__port *port, unsigned lane, uint64_t count);          /* and moves the cursor */
PS_PRIVATE void ps__reader_rejoin_if_evicted(struct ps__port *port);
PS_PRIVATE void ps__reader_leave(struct ps__port *port);        /* at close too */
PS_PRIVATE int ps__reader_leave_now(struct ps__port *port);
PS_PRIVATE int ps__port_subscribe(void *state, const ps_filter *filter, uint32_t flags, int first);
PS_PRIVATE void ps__port_unsubscribe(void *state, const ps_filter *filter, uint32_t flags, int last, int idle);
#define PS__LEAVE_DUE   1u              /* the last subscription has gone: the dispatching thread leaves */
#define PS__LEAVE_TRIED 2u              /* who ended that subscription looks whether a dispatch is in progress: wait */
/* By the dispatching thread, outside of a borrow. 1: it has left. */
static inline int ps__reader_leave_if_pending(struct ps__port *port)
{
    return PS_UNLIKELY(ps__load_rlx(&port->leave_pending)) && ps__reader_leave_now(port);
}
PS_PRIVATE uint64_t ps__lane_tail(struct ps__lane *lane);       /* the 64-bit number of what is claimed next */

/* lag.c */
/* When a reader is at the head: it found nothing; took all there was and found more at once; a dispatch with a mark begins. */
enum ps__lag_at { PS__LAG_EMPTY, PS__LAG_IN_STEP, PS__LAG_BEGIN };
PS_PRIVATE int ps__lag_pause(struct ps__port *port, enum ps__lag_at at);        /* 1: paused, look again */
PS_PRIVATE void ps__lag_failed(struct ps__port *port);

/* reader.c */
PS_PRIVATE int ps__port_begin(void *state, int marked);
PS_PRIVATE int ps__port_next(void *state, ps_record *record);
PS_PRIVATE void ps__port_end(void *state, int flags);
PS_PRIVATE void ps__reader_flush(struct ps__port *port);
PS_PRIVATE int ps__reader_look(struct ps__port *port, unsigned *blocked);

/* wake.c */
PS_PRIVATE void ps__wake_reader(struct ps__port *port, unsigned r);
PS_PRIVATE void ps__wake_asleep(struct ps__port *port, unsigned w, uint64_t asleep);
PS_PRIVATE void ps__wake_all(struct ps__port *port);
PS_PRIVATE void ps__wake_waiters_slow(struct ps__port *port, unsigned lane);
/* Behind the caller's fence: a message for these is there. */
static PS_ALWAYS_INLINE void ps__wake_readers(struct ps__port *port, const uint64_t *set, unsigned words)
{
    for (unsigned w = 0; w < words; w++) {
        uint64_t asleep = set[w] & ps__load_rlx(&port->words->sleepers[w]);
        if (PS_UNLIKELY(asleep)) ps__wake_asleep(port, w, asleep);
    }
}
/* Behind the caller's fence: room may have come about in this lane. Who waits for it: its owner, or in inproc anybody. */
static inline void ps__wake_waiters(struct ps__port *port, unsigned lane)
{
    struct ps__words *words = port->words;
    uint64_t waiting = ps__load_rlx(&words->waiters[0]);
    /* Behind the fence as well: who waits raised slots_high long before. */
    if (PS_UNLIKELY(ps__load_rlx(&words->slots_high) > 64))
        for (unsigned w = 1; w < PS__SET_WORDS; w++) waiting |= ps__load_rlx(&words->waiters[w]);
    if (PS_UNLIKELY(waiting)) ps__wake_waiters_slow(port, lane);
}
PS_PRIVATE int ps__port_wait(void *state, int timeout_ms);
PS_PRIVATE int ps__port_fd(void *state);
PS_PRIVATE void ps__port_wake(void *state);
PS_PRIVATE void ps__wake_signal(struct ps__port *port);         /* makes the event readable */
/* Their numbers while they are ours, else -1. */
PS_PRIVATE int ps__sleep_pollset(struct ps__port *port);
/* The descriptor, if somebody polls it, is readable in ms at the latest; 0 stops that. */
PS_PRIVATE void ps__sleep_timer(struct ps__port *port, int ms);
PS_PRIVATE void ps__sleep_begin(struct ps__port *port);         /* a dispatch begins: awake */
PS_PRIVATE void ps__sleep_end(struct ps__port *port);           /* it ends: arm, if a descriptor is watched */
PS_PRIVATE int ps__wake_open(struct ps__port *port);
PS_PRIVATE void ps__wake_close(struct ps__port *port, int forked);

/* space.c */
#define PS__WANT_LOAN UINT32_MAX        /* in place of units */
PS_PRIVATE int ps__space_retry(struct ps__port *port, uint32_t units, int wait, uint64_t *deadline, const char *full);
PS_PRIVATE int ps__space_came(struct ps__port *port, int look);
PS_PRIVATE void ps__space_watch(struct ps__port *port);
PS_PRIVATE void ps__space_quiet(struct ps__port *port);

/* port.c */
PS_PRIVATE int ps__port_open(struct ps__port *port, ps_host *host, const ps_url *url, const struct ps__env *env);
/* Frees what the port owns; nothing shared is touched. */
PS_PRIVATE void ps__port_close(struct ps__port *port, int forked);
PS_PRIVATE void ps__port_stats(void *state, ps_bus_stats *stats);
PS_PRIVATE int ps__port_members(void *state, const ps_topic *topic, ps_member *members, size_t n);
PS_PRIVATE void ps__port_introduce(struct ps__port *port, const char *name);    /* fills in about[slot] */
PS_PRIVATE void ps__port_retire(struct ps__port *port);         /* leaves, and is seen no more; its slot may have a next owner */
PS_PRIVATE void ps__port_geometry(struct ps__port *port, struct ps__geometry *g);

#ifdef PS_TEST_HOOKS
PS_PRIVATE_OBJECT uint64_t ps__test_start_sequence;     /* where a fresh lane begins: tests of wrap-around */
PS_PRIVATE_OBJECT uint32_t ps__test_start_position;
#endif

#endif
