/* SPDX-License-Identifier: MIT */
/*
 * psbus.h - publish/subscribe inside a process, between the processes of a host, and beyond.
 *
 *   open, close            ps_open ps_close
 *   messages out           ps_publish ps_wanted   ps_loan ps_commit ps_cancel
 *   messages in            ps_subscribe ps_unsubscribe   ps_dispatch ps_run ps_stop ps_next   ps_fd
 *   who and how much       ps_stats ps_members
 *   after fork(2)          ps_after_fork
 *   topics and filters     ps_topic_valid ps_filter_valid ps_topic_match ps_topic_escape
 *   results                PS_E… ps_strerror ps_errmsg ps_version
 *   a backend of your own  ps_transport ps_transport_register
 *
 * The library makes no thread, installs no signal handler, prints nothing, never aborts and leaves errno as it was.
 * Every comment below has the same labels; "never" stands where a label does not apply.
 */
#ifndef PSBUS_H
#define PSBUS_H

#include <stddef.h>
#include <stdint.h>

#define PS_VERSION_MAJOR 0
#define PS_VERSION_MINOR 1
#define PS_VERSION_PATCH 0

#define PS_TOPIC_MAX   255      /* bytes of a topic or a filter, the NUL not counted */
#define PS_NAME_MAX    64       /* bytes of a bus name and of a handle's label */
#define PS_MEMBERS_MAX 256      /* handles on one bus */
#define PS_LOANS_MAX   64       /* loans a handle has out at once */

/*
 * PS_PREFIX renames every function at link level, so that two copies of the library, or another library with a
 * ps_publish of its own, fit into one program: compile the library (as the vendored pair, whose other symbols are
 * static) and its callers with -DPS_PREFIX=acme_ and go on writing ps_open. Types and constants keep their names.
 */
#ifdef PS_PREFIX
#define PS_JOIN_(a, b) a##b
#define PS_JOIN(a, b)  PS_JOIN_(a, b)
#define ps_open               PS_JOIN(PS_PREFIX, ps_open)
#define ps_close              PS_JOIN(PS_PREFIX, ps_close)
#define ps_publish            PS_JOIN(PS_PREFIX, ps_publish)
#define ps_subscribe          PS_JOIN(PS_PREFIX, ps_subscribe)
#define ps_unsubscribe        PS_JOIN(PS_PREFIX, ps_unsubscribe)
#define ps_dispatch           PS_JOIN(PS_PREFIX, ps_dispatch)
#define ps_next               PS_JOIN(PS_PREFIX, ps_next)
#define ps_run                PS_JOIN(PS_PREFIX, ps_run)
#define ps_stop               PS_JOIN(PS_PREFIX, ps_stop)
#define ps_fd                 PS_JOIN(PS_PREFIX, ps_fd)
#define ps_loan               PS_JOIN(PS_PREFIX, ps_loan)
#define ps_commit             PS_JOIN(PS_PREFIX, ps_commit)
#define ps_cancel             PS_JOIN(PS_PREFIX, ps_cancel)
#define ps_stats              PS_JOIN(PS_PREFIX, ps_stats)
#define ps_members            PS_JOIN(PS_PREFIX, ps_members)
#define ps_wanted             PS_JOIN(PS_PREFIX, ps_wanted)
#define ps_after_fork         PS_JOIN(PS_PREFIX, ps_after_fork)
#define ps_topic_valid        PS_JOIN(PS_PREFIX, ps_topic_valid)
#define ps_filter_valid       PS_JOIN(PS_PREFIX, ps_filter_valid)
#define ps_topic_match        PS_JOIN(PS_PREFIX, ps_topic_match)
#define ps_topic_escape       PS_JOIN(PS_PREFIX, ps_topic_escape)
#define ps_transport_register PS_JOIN(PS_PREFIX, ps_transport_register)
#define ps_strerror           PS_JOIN(PS_PREFIX, ps_strerror)
#define ps_errmsg             PS_JOIN(PS_PREFIX, ps_errmsg)
#define ps_version            PS_JOIN(PS_PREFIX, ps_version)
#endif

/*
 * PS_STATIC keeps a copy of the library inside one file: define it and have #include "psbus.c" (the vendored pair's) before
 * any other include. What the file does not call is no reason for a warning.
 */
#ifndef PS_API
#if defined PS_STATIC && defined __GNUC__
#define PS_API static __attribute__((unused))
#elif defined PS_STATIC
#define PS_API static
#elif defined __GNUC__
#define PS_API __attribute__((visibility("default")))
#else
#define PS_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ results
 *
 * Functions that return int answer 0 or a count on success and one of these on failure. Values never change.
 * A failed call changes nothing unless its comment says otherwise, and sets its out-parameter to NULL.
 */
#define PS_ERRORS(X)                                                                                        \
    X(PS_EINVAL,    -1,  "invalid argument")                                                                \
    X(PS_ENOMEM,    -2,  "out of memory")                                                                   \
    X(PS_EAGAIN,    -3,  "the ring is full: a reader that must not lose messages is behind")                \
    X(PS_EMSGSIZE,  -4,  "the message is larger than the bus allows")                                       \
    X(PS_ENOSPC,    -5,  "no space for the bus's memory")                                                   \
    X(PS_EFULL,     -6,  "no place is left")                                                               \
    X(PS_EACCES,    -7,  "permission denied")                                                               \
    X(PS_ECLOSED,   -8,  "the handle is being closed")                                                      \
    X(PS_EBUSY,     -9,  "another call is in the way")                                                      \
    X(PS_EFORKED,   -10, "the handle belongs to the parent process")                                        \
    X(PS_ENOENT,    -11, "no such bus")                                                                     \
    X(PS_ENOTSUP,   -12, "not supported here")                                                              \
    X(PS_EVERSION,  -13, "the bus was made by an incompatible version")                                     \
    X(PS_EGEOMETRY, -14, "the bus exists with less room than asked for")                                    \
    X(PS_ECORRUPT,  -15, "the bus's memory is damaged")                                                     \
    X(PS_EUNLINKED, -16, "the bus's file was deleted or replaced")                                          \
    X(PS_EFENCED,   -17, "another member has taken this handle's slot")                                    \
    X(PS_ENOTCONN,  -18, "not connected")                                                                   \
    X(PS_ESYS,      -19, "the operating system refused")

enum ps_error {
#define PS_ERROR_VALUE_(name, value, text) name = value,
    PS_ERRORS(PS_ERROR_VALUE_)
#undef PS_ERROR_VALUE_
    PS_OK = 0
};

/* ------------------------------------------------------------------ types */

typedef struct ps_bus ps_bus;           /* one handle: one member of a bus */
typedef struct ps_sub ps_sub;           /* one subscription of a handle */

/*
 * A message, made by the library only; the struct grows at its end. Valid during the handler, or until the next ps_next()
 * or ps_close() of the handle.
 *
 * sequence and lost belong to the message's stream: the publisher's lane in shm, the whole bus in inproc. A stream goes on
 * when a new member takes a dead one's lane over: publisher changes, sequence continues.
 */
typedef struct ps_msg {
    const char *topic;          /* NUL-terminated */
    size_t      topic_len;
    const void *data;           /* never NULL; 16-byte aligned, 64-byte when it was a loan */
    size_t      size;           /* bytes at data; may be 0 */
    uint64_t    sequence;       /* the message's number in its stream */
    uint64_t    lost;           /* messages of this stream, whatever their topic, that this handle missed just before */
    uint64_t    publisher;      /* who sent it: never 0 on one host and never used twice on a bus; 0: backend cannot know */
    void       *user;           /* as given to ps_subscribe() */
    ps_sub     *sub;            /* the subscription it matched */
} ps_msg;

typedef void (*ps_handler)(const ps_msg *msg, void *user);

/* Flags of ps_sub_options. */
#define PS_EXACT  0x1u          /* the filter is a literal name, and wildcard characters in it are refused */
#define PS_BORROW 0x2u          /* msg->data is the ring itself: no copy, publishers wait meanwhile; what fits a cell is copied */

/* How to subscribe. Zero is the default everywhere; PS_SUB_OPTIONS_INIT fills in the size. */
typedef struct ps_sub_options {
    size_t   size;              /* sizeof (ps_sub_options) */
    uint32_t flags;             /* PS_EXACT | PS_BORROW */
    uint32_t reserved;          /* 0 */
    void   (*destroy)(void *user);      /* run exactly once when the subscription is gone and no handler runs; or NULL */
} ps_sub_options;
#define PS_SUB_OPTIONS_INIT { sizeof(ps_sub_options), 0, 0, NULL }

/* What ps_stats() fills in. Counters start at 0 when the handle is opened. */
typedef struct ps_bus_stats {
    size_t   size;              /* sizeof (ps_bus_stats) */
    uint64_t publisher;         /* what others see as msg->publisher of this handle; 0: sends nothing (observe=1) */
    uint64_t published;         /* messages this handle sent that somebody wanted */
    uint64_t delivered;         /* handlers run, or messages answered by ps_next() */
    uint64_t unwanted;          /* messages this handle stepped over because no subscription matches, or (inproc) that are its
                                   own, with echo=0 */
    uint64_t lost;              /* messages this handle missed, over all streams, also those it has not come to yet */
    uint64_t refused;           /* publishes and loans of this handle answered PS_EAGAIN */
    uint64_t evicted;           /* times this handle was evicted for stalling */
    uint64_t evictions;         /* readers this handle evicted, the dead included */
    uint64_t wakes;             /* doorbells this handle rang */
    uint64_t sleeps;            /* times this handle went to sleep or armed its descriptor */
    uint64_t corrupt;           /* times this handle met garbage in shared memory and resynchronised */
    uint64_t depth;             /* messages a ring holds */
    uint64_t bytes;             /* bytes of a payload ring */
    uint64_t loans;             /* bytes of a loan area */
    uint64_t message_max;       /* largest size ps_publish() takes */
    uint64_t loan_max;          /* largest size ps_loan() takes */
    uint64_t members;           /* slots on the bus */
    uint64_t memory;            /* bytes reserved for the bus, all members together */
    uint64_t publisher_memory;  /* bytes that each further member reserves at its first publish */
} ps_bus_stats;
#define PS_BUS_STATS_INIT { sizeof(ps_bus_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Flags of ps_member. */
#define PS_MEMBER_SELF      0x01u       /* the handle that asks */
#define PS_MEMBER_PUBLISHER 0x02u       /* has published */
#define PS_MEMBER_READER    0x04u       /* has subscriptions */
#define PS_MEMBER_LOSSY     0x08u       /* never holds publishers back */
#define PS_MEMBER_ASLEEP    0x10u       /* waits for messages */
#define PS_MEMBER_EVICTED   0x20u       /* has been evicted by some publisher and has not read since */
#define PS_MEMBER_DEAD      0x40u       /* its process is gone; its slot is free for the next member */
#define PS_MEMBER_NO_ECHO   0x80u       /* does not hear itself (echo=0) */

/* One member of a bus, as ps_members() sees it. Everything but slot is what the member says of itself. */
typedef struct ps_member {
    size_t   size;              /* sizeof (ps_member); of the first element: the stride of the array */
    uint32_t slot;              /* its number on the bus */
    uint32_t flags;             /* PS_MEMBER_… */
    int32_t  pid;               /* for people; nothing is ever decided by it */
    int32_t  wants;             /* 1 if the topic asked for would reach it, else 0 */
    uint64_t publisher;         /* what msg->publisher shows for it */
    uint64_t lag;               /* messages it has not read yet, over all streams */
    uint64_t lost;              /* messages it missed */
    uint64_t unwanted;          /* messages it stepped over because no subscription of it matches */
    uint64_t published;         /* messages in its stream so far (shm); sent by it when it last called ps_members() itself
                                   (inproc), so 0 if it never did */
    uint64_t filter_count;      /* its subscriptions */
    uint64_t idle_ms;           /* since it last called ps_dispatch() or ps_next() */
    char     name[PS_NAME_MAX + 8];     /* the URL's name=, NUL-terminated; "" if none */
    uint64_t memory;            /* bytes reserved for it alone (inproc: the ring is everybody's) */
    uint64_t evicted;           /* times it was evicted for stalling, and has read on since */
    uint64_t full;              /* percent of the fullest ring that waits for it, messages or bytes, 0 if it gates nobody: a
                                   publish that does not fit into the rest is refused */
} ps_member;
#define PS_MEMBER_INIT { sizeof(ps_member), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }, 0, 0, 0 }

/* ------------------------------------------------------------------ open and close */

/*
 * ps_open - become a member of a bus; create the bus if there is none.
 *
 *   bus     receives the handle; NULL after a failure.
 *   url     NUL-terminated; SCHEME://NAME?OPTION=VALUE&… , read during the call only.
 *             inproc://NAME      inside this process
 *             shm://NAME         between this user's processes, in /dev/shm/psbus-UID/
 *             shm:///ABS/PATH    the same, in a file of your choice
 *             shm:               anonymous: for a parent and the children it forks (ps_after_fork)
 *             remote://…         a stub
 *           NAME is [A-Za-z0-9._-]{1,64} without a leading dot; elsewhere %XX stands for a byte. Options, each at most
 *           once; sizes take k, M, G; MS is -1 for ever, 0 at once:
 *             depth=N bytes=SIZE loans=SIZE    messages (8192), payload bytes (2M), loan bytes (as bytes) held per publisher,
 *                                              rounded up: at least; fixed when the first member publishes, of shm: at once
 *             members=N mode=0600|0660|0666    slots (shm 64, inproc 256), who may open (0600): fixed by who creates the bus
 *             lossy=1 echo=0 spin=US name=TEXT this handle: never holds publishers back; does not hear itself; polls US
 *                                              microseconds before it sleeps; label for tools
 *             block=MS evict=MS                this handle's publishes: wait for room (0); evict a reader stuck that long
 *                                              (1000), unless its PS_BORROW handler looks into a message of this publisher
 *             create=0                         PS_ENOENT if there is no bus
 *             observe=1                        for tools: take no slot, count nowhere, hold nobody back
 *
 * Returns    0, or
 *            PS_EINVAL    NULL, or a mistake in the URL; ps_errmsg() names it
 *            PS_ENOMEM    no memory, or no address space
 *            PS_ENOSPC    the file system is full; ps_errmsg() has the numbers
 *            PS_EFULL     every member slot is taken by a living handle
 *            PS_EACCES    permission, or the file belongs to somebody else
 *            PS_EBUSY     the bus is being taken down, for more than 100 ms
 *            PS_ENOENT    create=0 and no bus; or no directory to make one in, as where there is no /dev/shm
 *            PS_ENOTSUP   no such scheme, observe=1 where the backend cannot, or the file system or kernel cannot carry a bus
 *            PS_EVERSION  the file is a bus of another version; untouched
 *            PS_EGEOMETRY the bus has less depth, bytes or loans than asked for
 *            PS_ECORRUPT  the file is no bus, or a damaged one
 *            PS_ESYS      anything else; ps_errmsg() has the text
 *            Nothing is left behind after a failure.
 * Ownership  the handle is the caller's, who ends it with ps_close().
 * Threads    any thread.
 * Blocking   never for long: at most 100 ms while another process takes the same bus down.   Allocates: yes.
 * Signals    not async-signal-safe.      Fork: see ps_after_fork().      Since 0.1
 */
PS_API int ps_open(ps_bus **bus, const char *url);

/*
 * ps_close - leave the bus and free the handle with all its subscriptions and loans.
 *
 *   bus     from ps_open(), or NULL (nothing happens).
 *
 * From a handler of this bus it takes effect when that handler returns: no further handler runs, ps_dispatch() and ps_run()
 * return PS_ECLOSED, and the handle is gone when they do. From elsewhere it wakes the calls that are inside, which return
 * PS_ECLOSED, and waits for them. The destroy functions of the subscriptions run before it returns. The last member out
 * removes the bus.
 *
 * Returns    0, or
 *            PS_EBUSY     waiting would be a deadlock of two handlers, or it is being closed already; nothing happened
 * Ownership  the handle is gone; a call started after ps_close() returned is the caller's error.
 * Threads    any thread, also a handler.
 * Blocking   until the calls inside have returned.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: legal in a child, where it frees the copy only.      Since 0.1
 */
PS_API int ps_close(ps_bus *bus);

/* ------------------------------------------------------------------ publish */

/*
 * ps_publish - hand one message to every handle that wants its topic.
 *
 *   bus     from ps_open(); not NULL.
 *   topic   NUL-terminated, 1..PS_TOPIC_MAX bytes; no space, control character, '+' or '#'.
 *   data    size bytes, read during the call only; may be NULL when size is 0.
 *   size    bytes, at most ps_bus_stats.message_max.
 *
 * Returns    handles on this host it was made available to (>= 0). 0 is certain: nobody wants it, nothing was written.
 *            More is an upper estimate and no receipt. Or
 *            PS_EINVAL    NULL or an illegal topic; nothing was sent
 *            PS_EMSGSIZE  size is over the limit, also if nobody wants it; nothing was sent
 *            PS_EAGAIN    the ring is full, and stayed so for block=MS; nothing was sent. Try again behind a ps_dispatch()
 *                         or ps_next(): one that waits returns 0 for that, or ps_fd() asks for one; see there
 *            PS_ENOSPC    first publish: no room for this member's ring; nothing was sent
 *            PS_ENOMEM    first publish: no address space; nothing was sent
 *            PS_ECLOSED   the handle is being closed; nothing was sent
 *            PS_EFORKED   a handle of the parent; nothing was sent
 *            PS_ENOTSUP   the handle observes only; nothing was sent
 *            PS_EFENCED   another member has taken this handle's slot; the handle is of no more use
 *            PS_EUNLINKED the bus's file was deleted, found at the first publish; nothing was sent
 *            PS_ECORRUPT  the bus's memory is damaged; nothing was sent
 *            PS_ESYS      first publish: the system refused; nothing was sent
 * Ownership  data stays the caller's.
 * Threads    any thread, also from a handler. Threads that publish on one handle (inproc: on one bus) take turns of some
 *            microseconds; in shm a handle each is faster.
 * Blocking   never but for its turn, unless the URL says block=MS: then until there is room, MS are over or the handle is closed,
 *            whatever signals come; never in a handler.   Allocates: at the first publish.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_publish(ps_bus *bus, const char *topic, const void *data, size_t size);

/*
 * ps_wanted - what ps_publish() would answer for this topic now; sends nothing.
 *
 *   bus     from ps_open(); not NULL.
 *   topic   as for ps_publish().
 *
 * Returns    handles that want it (>= 0, 0 is certain), or
 *            PS_ENOTSUP   the backend cannot know
 *            PS_EINVAL, PS_ECLOSED, PS_EFORKED    as ps_publish()
 * Ownership  nothing changes hands.
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_wanted(ps_bus *bus, const char *topic);

/*
 * ps_loan - borrow memory of the bus to write a message in place; ps_commit() publishes it without a copy.
 *
 *   bus     from ps_open(); not NULL.
 *   topic   as for ps_publish(); read during the call only.
 *   size    bytes wanted, at most ps_bus_stats.loan_max; 0 is legal.
 *   data    receives the memory, 64-byte aligned, contents undefined; NULL after a failure.
 *
 * A loan has no place in the order until it is committed, and holds nobody up.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL or an illegal topic
 *            PS_EMSGSIZE  size is over the limit
 *            PS_EFULL     PS_LOANS_MAX loans are out
 *            PS_EAGAIN    readers hold the loan area, and did so for block=MS
 *            PS_ENOTSUP   the backend has no loans, or the handle observes only
 *            PS_ENOSPC, PS_ENOMEM, PS_ECLOSED, PS_EFORKED, PS_EFENCED, PS_EUNLINKED, PS_ECORRUPT, PS_ESYS  as ps_publish()
 *            Nothing is on loan after a failure.
 * Ownership  the memory is the caller's to write until ps_commit(), ps_cancel() or ps_close().
 * Threads    any thread, also from a handler; the loan may be committed by another one.
 * Blocking   never, unless the URL says block=MS; never in a handler.   Allocates: at the first loan.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_loan(ps_bus *bus, const char *topic, size_t size, void **data);

/*
 * ps_commit - publish a loan.
 *
 *   bus     the handle that lent it; not NULL.
 *   data    from ps_loan().
 *   used    bytes of it to send, at most what was asked for.
 *
 * Returns    as ps_publish(): handles it was made available to; 0: nobody wants it, the loan is given back. Or
 *            PS_EINVAL    data is no loan of this handle, or used is more than was asked for
 *            PS_EAGAIN, PS_ECLOSED, PS_EFORKED, PS_EFENCED, PS_ECORRUPT    as ps_publish()
 *            After a failure the loan is still the caller's: try again, or ps_cancel() it.
 * Ownership  on success the memory is the bus's again.
 * Threads    any thread, also from a handler; they take turns, as for ps_publish().
 * Blocking   never but for its turn, unless the URL says block=MS; never in a handler.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_commit(ps_bus *bus, void *data, size_t used);

/*
 * ps_cancel - give a loan back unsent.
 *
 *   bus     the handle that lent it; not NULL.
 *   data    from ps_loan(), or NULL (nothing happens).
 *
 * Returns    0, or
 *            PS_EINVAL    data is no loan of this handle
 *            PS_ECLOSED, PS_EFORKED    as ps_publish()
 * Ownership  the memory is the bus's again.
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_cancel(ps_bus *bus, void *data);

/* ------------------------------------------------------------------ subscribe and dispatch */

/*
 * ps_subscribe - receive the messages whose topic matches a filter.
 *
 *   bus      from ps_open(); not NULL.
 *   filter   NUL-terminated, 1..PS_TOPIC_MAX bytes; levels are divided by '/', '+' stands for one level, '#' for the rest
 *            (MQTT 3.1.1 section 4.7; "a/#" matches "a"; a leading wildcard does not match a topic that begins with '$').
 *            Read during the call only.
 *   handler  runs inside ps_dispatch() or ps_run() for each matching message; may call anything here, also ps_close().
 *            NULL makes a pull subscription, read by ps_next().
 *   user     handed to the handler.
 *   options  or NULL.
 *   sub      receives the subscription, NULL after a failure; or NULL.
 *
 * The first subscription makes the handle push (handlers) or pull (ps_next) for life; while ps_dispatch(), ps_run() or
 * ps_next() is in progress, it must be of that kind. Every publish on this host, in any process, that happens after
 * ps_subscribe() returned is seen. Two matching subscriptions are two deliveries, in the order in which they were made.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL, an illegal filter, options of size 0, the other kind of subscription (than the first, or
 *                         than the call in progress), or PS_BORROW on a lossy handle; ps_errmsg() says which
 *            PS_ENOTSUP   options or flags this version does not know, or the backend cannot do
 *            PS_ENOMEM    no memory
 *            PS_ECLOSED, PS_EFORKED    as ps_publish()
 *            PS_ESYS      the system refused
 *            destroy does not run after a failure.
 * Ownership  user stays the caller's until destroy runs; the subscription ends with ps_unsubscribe() or ps_close().
 * Threads    any thread, also from a handler; takes effect in a dispatch that is blocked.
 * Blocking   never.   Allocates: yes.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_subscribe(ps_bus *bus, const char *filter, ps_handler handler, void *user,
                        const ps_sub_options *options, ps_sub **sub);

/*
 * ps_unsubscribe - end a subscription.
 *
 *   sub     from ps_subscribe(); not NULL.
 *
 * When it returns the handler is not running and never will, unless it is called by that very handler. It waits for a
 * handler that is running on another thread, so hold no lock which that handler takes. destroy(user) runs before it
 * returns, or after the handler when called inside it.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL
 *            PS_EBUSY     waiting would be a deadlock of two handlers; still subscribed
 *            PS_ECLOSED, PS_EFORKED    as ps_publish(); ps_close() ends the subscription
 * Ownership  the subscription is gone, user is the caller's again.
 * Threads    any thread, also from a handler, its own or another's.
 * Blocking   while the handler runs on another thread.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_unsubscribe(ps_sub *sub);

/*
 * ps_dispatch - run the handlers of the messages that are there.
 *
 *   bus         from ps_open(), with push subscriptions or none yet; not NULL.
 *   max         messages to handle at most; <= 0: those that were there when the call began.
 *   timeout_ms  how long to wait for the first one: negative for ever, 0 not at all.
 *
 * Returns    messages handled (> 0); 0: time is over, ps_stop(), or a refused publish may be tried again; or
 *            PS_EINVAL    NULL, or a pull handle
 *            PS_EBUSY     another thread dispatches this handle, or this is a handler of it
 *            PS_ENOMEM    no memory for a large message; it stays where it is
 *            PS_ECLOSED   the handle is being closed, or was closed by a handler and is gone
 *            PS_EFORKED   a handle of the parent
 *            PS_ECORRUPT  the bus's memory is damaged beyond resynchronising
 *            PS_EFENCED   another member has taken this handle's slot
 *            PS_EUNLINKED the bus's file was deleted or replaced; told once, what is in memory can still be read
 *            PS_EACCES, PS_ENOSPC    it would wait, and cannot make a socket to be woken by: as ps_fd()
 *            PS_ESYS      the system refused; ps_errmsg() has the text
 * Ownership  messages belong to the library and are valid while their handler runs.
 * Threads    one at a time.
 * Blocking   for timeout_ms; EINTR is retried.   Allocates: when a message is larger than any before.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_dispatch(ps_bus *bus, int max, int timeout_ms);

/*
 * ps_next - the next message of a pull handle.
 *
 *   bus         from ps_open(), with pull subscriptions or none yet; not NULL.
 *   msg         receives the message, NULL if none.
 *   timeout_ms  negative for ever, 0 not at all.
 *
 * Returns    1 a message; 0: time is over, ps_stop(), or a refused publish may be tried again; or
 *            PS_EINVAL    NULL, or a push handle
 *            PS_EBUSY, PS_ENOMEM, PS_ECLOSED, PS_EFORKED, PS_ECORRUPT, PS_EFENCED, PS_EUNLINKED, PS_EACCES, PS_ENOSPC,
 *            PS_ESYS      as ps_dispatch()
 * Ownership  the message is the library's, valid until the next ps_next() or ps_close() of this handle.
 * Threads    one at a time.
 * Blocking   for timeout_ms; EINTR is retried.   Allocates: when a message is larger than any before.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_next(ps_bus *bus, const ps_msg **msg, int timeout_ms);

/*
 * ps_run - dispatch until stopped.
 *
 *   bus     as for ps_dispatch().
 *
 * Returns    0 after ps_stop(), or an error of ps_dispatch()
 * Ownership  as ps_dispatch().
 * Threads    one at a time.
 * Blocking   until ps_stop(), ps_close() or an error.   Allocates: as ps_dispatch().
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_run(ps_bus *bus);

/*
 * ps_stop - end the ps_run(), ps_dispatch() or ps_next() in progress at the next message, or the next one that would wait.
 *
 *   bus     from ps_open(), or NULL (nothing happens).
 *
 * Remembered until one of them has returned because of it; several are as one.
 *
 * Returns    nothing.
 * Ownership  nothing changes hands; the handle must not be closed while this runs.
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: does nothing in a child.      Since 0.1
 */
PS_API void ps_stop(ps_bus *bus);

/*
 * ps_fd - a descriptor to poll for reading; when it is readable, call ps_dispatch() or ps_next(). Never read it.
 *
 *   bus     from ps_open(); not NULL.
 *
 * Level-triggered: it stays readable while a dispatch left something; now and then it is readable for nothing. After a publish
 * answered PS_EAGAIN it also becomes readable when a retry may succeed, and some 100 times a second until it does. A dispatch
 * makes it unreadable: also a program that only publishes calls ps_dispatch(bus, 0, 0) then, and tries again. What no message
 * tells (PS_EUNLINKED) is found by a dispatch, so have one every minute or so. Take it out of the loop before ps_close().
 *
 * Returns    the descriptor (>= 0), always the same, close-on-exec; or
 *            PS_EINVAL    NULL
 *            PS_ENOTSUP   the handle observes only, or the backend has none
 *            PS_EACCES    no permission to make a socket in the directory of the bus's file
 *            PS_ENOSPC    no room for one there
 *            PS_ESYS      no descriptor to be had
 *            PS_ECLOSED, PS_EFORKED    as ps_publish()
 * Ownership  the bus's; closed by ps_close().
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: a descriptor or four, at the first call.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_fd(ps_bus *bus);

/* ------------------------------------------------------------------ who and how much */

/*
 * ps_stats - counters and limits of this handle; makes no system call.
 *
 *   bus     from ps_open(); not NULL.
 *   stats   stats->size says how much the caller knows; what both know is filled in, the rest zeroed.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL, or size 0
 *            PS_ECLOSED, PS_EFORKED    as ps_publish()
 * Ownership  stats is the caller's.
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_stats(ps_bus *bus, ps_bus_stats *stats);

/*
 * ps_members - who is on this bus.
 *
 *   bus      from ps_open(); not NULL.
 *   topic    ask who wants this topic (ps_member.wants); or NULL.
 *   members  n elements, written in slot order; members[0].size is the stride. May be NULL when n is 0.
 *   n        elements that fit.
 *
 * Returns    how many members there are, also if that is more than n, the asker included unless it observes; or
 *            PS_EINVAL    NULL, an illegal topic, or size 0
 *            PS_ENOTSUP   the backend cannot know
 *            PS_ENOMEM    no memory, when members[0].size is not this version's
 *            PS_ECLOSED, PS_EFORKED    as ps_publish()
 *            PS_ESYS      the system refused
 * Ownership  members is the caller's.
 * Threads    any thread, also from a handler.
 * Blocking   never.   Allocates: only when members[0].size is not this version's.
 * Signals    not async-signal-safe.      Fork: PS_EFORKED in a child.      Since 0.1
 */
PS_API int ps_members(ps_bus *bus, const char *topic, ps_member *members, size_t n);

/* ------------------------------------------------------------------ fork */

/*
 * ps_after_fork - in a forked child: make an inherited handle a member of its own.
 *
 *   bus     from ps_open() in the parent; not NULL.
 *
 * The child's handle has no subscriptions (their destroy runs, in the child's copy of memory) and no loans. The parent
 * notices nothing. In the process that opened the handle it does nothing and answers 0. In a handler that forked, the
 * ps_dispatch() in progress answers PS_EFORKED then and leaves the handle alone, also if the handler closes it.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL
 *            PS_ENOTSUP   the backend lives inside one process (inproc)
 *            an error of ps_open(); the handle still answers PS_EFORKED
 * Ownership  the handle stays the caller's.
 * Threads    one, before any other call on the handle.
 * Blocking   as ps_open().   Allocates: yes.
 * Signals    not async-signal-safe.      Fork: this is what it is for.      Since 0.1
 */
PS_API int ps_after_fork(ps_bus *bus);

/* ------------------------------------------------------------------ topics and filters */

/*
 * ps_topic_valid - may a message be published under this name?
 *
 *   topic   NUL-terminated; or NULL.
 *
 * Returns    1 or 0: 1..PS_TOPIC_MAX bytes, no space, no control character, no '+' or '#'. Bytes from 0x80 up are not examined.
 * Ownership  nothing changes hands.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API int ps_topic_valid(const char *topic);

/*
 * ps_filter_valid - may this be subscribed to, without PS_EXACT?
 *
 *   filter  NUL-terminated; or NULL.
 *
 * Returns    1 or 0: as ps_topic_valid(), but '+' may fill a level and '#' the last one; '*' is refused, because whoever
 *            writes it means '+' or '#'.
 * Ownership  nothing changes hands.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API int ps_filter_valid(const char *filter);

/*
 * ps_topic_match - does the filter let the topic through? (MQTT 3.1.1 section 4.7)
 *
 *   filter  NUL-terminated; or NULL.
 *   topic   NUL-terminated; or NULL.
 *
 * Returns    1 or 0; 0 also if either is NULL or illegal.
 * Ownership  nothing changes hands.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API int ps_topic_match(const char *filter, const char *topic);

/*
 * ps_topic_escape - make one level of a topic from foreign text: a user's name, a file's.
 *
 *   dst     receives the text, NUL-terminated, if cap > 0; cut at cap - 1 bytes, never inside an escape. May be NULL if cap is 0.
 *   cap     bytes at dst.
 *   part    len bytes; may hold NUL.
 *   len     bytes.
 *
 * '/', '+', '#', '*', '%', '$', space and control characters become %XX; everything else stays.
 *
 * Returns    bytes of the whole result, the NUL not counted, as snprintf does: it was cut if that is cap or more; or
 *            PS_EINVAL    NULL, or a length over INT_MAX
 * Ownership  nothing changes hands.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API int ps_topic_escape(char *dst, size_t cap, const char *part, size_t len);

/* ------------------------------------------------------------------ results in words */

/*
 * ps_strerror - the text of a result code.
 *
 *   code    a PS_E… value, 0, or anything.
 *
 * Returns    a constant text; for what is no code, "unknown result".
 * Ownership  the library's, for ever.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API const char *ps_strerror(int code);

/*
 * ps_errmsg - the detail of this thread's last failed call: which URL option, which file, how many bytes were missing. Of all
 * calls but ps_topic_escape(), which leaves none.
 *
 * Returns    a text; "" if nothing failed yet.
 * Ownership  the library's, until this thread's next failed call.
 * Threads    any thread; each has its own.
 * Blocking   never.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API const char *ps_errmsg(void);

/*
 * ps_version - the version of the library that runs, "MAJOR.MINOR.PATCH".
 *
 * Returns    a constant text.
 * Ownership  the library's, for ever.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    async-signal-safe.      Fork: works.      Since 0.1
 */
PS_API const char *ps_version(void);

/* ------------------------------------------------------------------ a transport of your own
 *
 * A backend is one table of functions, found by the URL's scheme. Copy lib/remote/stub.c and fill it in. The core checks
 * arguments, matches filters, keeps subscriptions and runs handlers; a transport moves messages. Tables and structs carry
 * their size first and only grow at the end; zero is always a legal value of what a table does not know yet.
 *
 * The core calls                from thread            may block      with it runs in parallel
 *   open                        ps_open's              yes            nothing
 *   close                       ps_close's             yes            nothing
 *   publish wanted              any                    publish: if wait   everything but open, close, after_fork
 *   loan commit cancel          any                    if wait        the same
 *   subscribe unsubscribe       any, one at a time     no             the same
 *   begin next end              the dispatching one    no             the same, not each other
 *   wait                        the dispatching one    yes            the same
 *   fd stats members            any                    no             the same
 *   wake                        any, signal handlers   no             the same
 *   after_fork                  the child's only one   yes            nothing
 *
 * publish, wanted, commit, cancel, stats and wake leave errno as it was; around the others the core does that. No thread may be
 * cancelled (pthread_cancel) inside: begin, next, end, wait, publish, wanted, loan, commit and cancel switch that off around
 * what could be a place for it; around open, close, subscribe, unsubscribe, fd, members and after_fork the core does; stats and
 * wake must contain no such place.
 */
#define PS_TRANSPORT_VERSION 1

/* A bus URL, taken apart and checked. Valid during open() only. */
typedef struct ps_url {
    size_t      size;
    const char *text;           /* the whole */
    const char *scheme;         /* lower case */
    const char *address;        /* between "://" and '?', %XX decoded; NULL for "scheme:" without "//" */
    const char *name;           /* name=, decoded; "" if not given */
    uint64_t    depth;          /* 0: not given */
    uint64_t    bytes;          /* 0: not given */
    uint64_t    loans;          /* 0: not given */
    uint32_t    members;        /* 0: not given */
    int32_t     mode;           /* -1: not given */
    int32_t     block_ms;       /* 0 if not given */
    int32_t     evict_ms;       /* 1000 if not given */
    int32_t     spin_us;        /* 0 if not given */
    int32_t     lossy, echo, create, observe;   /* 0 or 1; 0, 1, 1, 0 if not given */
} ps_url;

/* A name with its length and its hash, which is seeded by ps_host.seed. */
typedef struct ps_topic {
    const char *text;           /* NUL-terminated */
    size_t      len;
    uint64_t    hash;
} ps_topic;

/* A filter. Wildcard filters are found by their literal prefix: its first levels, 8 at most, without a wildcard. */
typedef struct ps_filter {
    const char *text;           /* NUL-terminated */
    size_t      len;
    uint64_t    hash;           /* exact: hash of the text; wildcard: hash of the prefix, see ps_host.prefix */
    int32_t     wild;           /* 0: a literal name */
    int32_t     depth;          /* wild: levels of the prefix, 0..8 */
} ps_filter;

/* A message on its way up. Valid until the next next() or end(). */
typedef struct ps_record {
    ps_topic    topic;
    const void *data;
    size_t      size;
    uint64_t    sequence, lost, publisher;
} ps_record;

/* The core's side, handed to open(). One per handle, valid until close() returned. */
typedef struct ps_host {
    size_t   size;
    uint64_t seed;              /* of all topic hashes of this handle. A transport may set it in open(), and only there. */
    /* Puts a text behind the code, for ps_errmsg(); returns code. Callable from everywhere. */
    int    (*fail)(struct ps_host *host, int code, const char *format, ...);
    /* Does a subscription want this topic? next() asks it for every record it answers, and skips those it says 0 for: the
     * core delivers to the subscriptions found by the last call. */
    int    (*match)(struct ps_host *host, const ps_topic *topic);
    /* Is a subscription of this handle interested in data itself (PS_BORROW)? After match() answered 1. */
    int    (*borrows)(struct ps_host *host);
    /* Hash of the topic's first depth levels; 0 if it has fewer. */
    uint64_t (*prefix)(struct ps_host *host, const ps_topic *topic, int depth);
    /* Calls visit for every subscription. From subscribe(), before the new one is among them, and from after_fork(). */
    void   (*each)(struct ps_host *host, void (*visit)(void *arg, const ps_filter *filter, uint32_t flags), void *arg);
    /* 1 once ps_close() was called: give up waiting with PS_ECLOSED. */
    int    (*closing)(struct ps_host *host);
    /* The value of an option that is named in ps_transport.options, decoded; NULL if it was not given. From open() only. */
    const char *(*option)(struct ps_host *host, const char *key);
    /* Makes a topic, with its hash, of a text that came from elsewhere; 0, or PS_EINVAL if it is none. topic->text is text. */
    int    (*topic)(struct ps_host *host, const char *text, ps_topic *topic);
} ps_host;

/* ps_transport.can */
#define PS_CAN_COUNT       0x01u        /* publish answers 0 exactly when nobody wants the topic */
#define PS_CAN_LOAN        0x02u        /* loan, commit, cancel */
#define PS_CAN_BORROW      0x04u        /* PS_BORROW */
#define PS_CAN_MEMBERS     0x08u        /* members */
#define PS_CAN_TOTAL_ORDER 0x10u        /* all publishers share one order */
#define PS_CAN_RELIABLE    0x20u        /* publish >= 0 means delivered, or told as lost */
#define PS_CAN_FORK        0x40u        /* after_fork */
#define PS_CAN_PROCESSES   0x80u        /* handles of several processes meet */
#define PS_CAN_BARRIER     0x100u       /* subscribe is a barrier */
#define PS_CAN_OBSERVE     0x200u       /* observe=1; without it the core answers PS_ENOTSUP */

#define PS_END_HOLD 1                   /* end(): keep the record that was answered last valid */

typedef struct ps_transport {
    size_t      size;           /* sizeof (ps_transport) */
    int32_t     version;        /* PS_TRANSPORT_VERSION */
    uint32_t    can;            /* PS_CAN_… */
    const char *scheme;         /* lower-case letters, digits, '+', '-', '.'; at most 31 bytes */
    const char *options;        /* names of further URL options, divided by spaces; NULL: none */
    size_t      state_size;     /* zeroed memory the core allocates for each handle, 128-byte aligned: `state` below */

    /* 0 or an error; after an error nothing is held, and close() is not called. */
    int  (*open)(void *state, ps_host *host, const ps_url *url);
    /* No call is inside. forked: this is a child that never called after_fork; free the copy, tell nobody. */
    void (*close)(void *state, int forked);
    /* ps_publish; wait 0: never block. */
    int  (*publish)(void *state, const ps_topic *topic, const void *data, size_t size, int wait);
    /* NULL: as if nobody could know, ps_wanted() is PS_ENOTSUP. */
    int  (*wanted)(void *state, const ps_topic *topic);
    /* Shows and withdraws interest, once per subscription. first, last: the handle had, or has, no other. unsubscribe cannot
     * fail. idle: no dispatch is in progress and none starts until it returned. */
    int  (*subscribe)(void *state, const ps_filter *filter, uint32_t flags, int first);
    void (*unsubscribe)(void *state, const ps_filter *filter, uint32_t flags, int last, int idle);
    /* A dispatch begins; marked: next() shall answer only what is there now. */
    int  (*begin)(void *state, int marked);
    /* 1 and a record, 0 nothing there, or an error. */
    int  (*next)(void *state, ps_record *record);
    /* The dispatch ends: release what was read, make fd() readable if something is left. */
    void (*end)(void *state, int flags);
    /* Between next() and end(). Sleeps: 1 something may be there, 0 time is over or a refused publish may be tried again,
     * 2 wake() was called; or an error. */
    int  (*wait)(void *state, int timeout_ms);
    /* NULL: PS_ENOTSUP. */
    int  (*fd)(void *state);
    /* Makes a wait() in progress, or the next one, return 2, and fd() readable. Async-signal-safe. */
    void (*wake)(void *state);
    /* NULL: PS_ENOTSUP. commit and cancel answer PS_EINVAL for a pointer that is no loan. */
    int  (*loan)(void *state, const ps_topic *topic, size_t size, void **data, int wait);
    int  (*commit)(void *state, void *data, size_t used, int wait);
    int  (*cancel)(void *state, void *data);
    /* Adds what the core cannot know. The core has filled in size and delivered. NULL: nothing to add. */
    void (*stats)(void *state, ps_bus_stats *stats);
    /* ps_members; the elements are ps_member structs as declared here. topic may be NULL. NULL: PS_ENOTSUP. */
    int  (*members)(void *state, const ps_topic *topic, ps_member *members, size_t n);
    /* NULL: PS_ENOTSUP. After an error the state is as before. */
    int  (*after_fork)(void *state, ps_host *host);
} ps_transport;

/*
 * ps_transport_register - add a backend. A scheme can be registered only once.
 *
 *   transport   stays valid for ever; not NULL.
 *
 * Returns    0, or
 *            PS_EINVAL    NULL, a required function is missing, or the scheme is illegal
 *            PS_ENOTSUP   a table of a newer version than this library
 *            PS_EBUSY     the scheme is taken
 *            PS_EFULL     16 transports are registered
 * Ownership  the table stays the caller's and must not change.
 * Threads    any thread.
 * Blocking   never.   Allocates: never.
 * Signals    not async-signal-safe.      Fork: inherited.      Since 0.1
 */
PS_API int ps_transport_register(const ps_transport *transport);

#ifdef __cplusplus
}
#endif
#endif /* PSBUS_H */
