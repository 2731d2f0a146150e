/* SPDX-License-Identifier: MIT */
/*
 * conform.h - one suite for every backend: what the API promises, whatever moves the messages.
 *
 * A backend is tested by ten lines, conform_SCHEME.c. The suite is conform.c (the runner and the helpers below) and
 * conform/AREA.c, each of which ends in a table of its tests. Every test has a bus of its own, opens and closes its handles
 * through conform_open() and conform_close(), and is checked afterwards for what it left behind.
 */
#ifndef PS_TEST_CONFORM_H
#define PS_TEST_CONFORM_H

#include "support.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct conform_backend {
    const char *scheme;
    const char *options;        /* of every URL, or NULL */
    uint32_t    can;            /* PS_CAN_… of its transport: what it cannot is skipped */
    const char *base;           /* what the names of its buses begin with, a directory; or NULL */
};

/* Runs the suite; the exit status of main(). */
int conform_run(const struct conform_backend *backend);

extern const struct conform_backend *conform_backend;

/* Skips the test; to be called before anything is opened. */
#define conform_need(caps) do { if ((conform_backend->can & (uint32_t)(caps)) != (uint32_t)(caps)) skip(); } while (0)

/*
 * A backend that loses nothing silently has a ring: it keeps what a reader has not read, to a depth and size that the URL sets,
 * and what others want, too. One without PS_CAN_RELIABLE is expected to hold no more than 8 messages for a reader.
 */
#define conform_has_ring() ((conform_backend->can & PS_CAN_RELIABLE) != 0)

/* A URL of this test's bus. Static, 16 in rotation. */
const char *conform_url(const char *options);
/* The same, but of bus number n: other numbers are other buses. 0 is conform_url's. */
const char *conform_other_url(int n, const char *options);
/* A handle of this test's bus; asserts. */
ps_bus *conform_open(const char *options);
ps_bus *conform_open_url(const char *url);
void conform_close(ps_bus *bus);
/* The handle was closed by other means. */
void conform_forget(ps_bus *bus);

/* What a handler saw, with what must hold for every message checked. */
#define CONFORM_SEEN 64
struct conform_seen {
    char     topic[PS_TOPIC_MAX + 1];
    size_t   size;
    uint64_t sequence, lost, publisher;
    ps_sub  *sub;
    unsigned char head[16];     /* the first bytes of data */
};
struct conform_log {
    atomic_int count;           /* messages; may be read from other threads */
    int        bad;             /* of them, messages that break a rule */
    uint64_t   lost;            /* sum */
    struct conform_seen seen[CONFORM_SEEN];     /* the first ones */
};
void conform_record(const ps_msg *msg, void *log);
/* What conform_record() checks; 1: a good message. For pull handles. */
int conform_good(const ps_msg *msg);

ps_sub *conform_subscribe(ps_bus *bus, const char *filter, struct conform_log *log);
/* Publishes text with its NUL; asserts that at least one handle wanted it. */
void conform_say(ps_bus *bus, const char *topic, const char *text);
/* Publishes 8-byte numbers from, from+1, … until one is refused with PS_EAGAIN; how many were taken. At most limit. */
int conform_fill(ps_bus *bus, const char *topic, uint64_t from, int limit);
/* Dispatches until nothing is left; messages handled. */
int conform_drain(ps_bus *bus);
ps_bus_stats conform_stats(ps_bus *bus);

/* Is the descriptor readable, or does it become so within the time? */
int conform_readable(int fd, int timeout_ms);
/* Waits until *count >= least, the deadline being DEADLINE_MS; 1 if so. */
int conform_reached(atomic_int *count, int least);
/* Waits until so many members say that they sleep (at once, if the backend cannot tell); 1 if so. */
int conform_asleep(ps_bus *bus, int least);
/* The kernel's number of this thread; and waits until the thread of that number, once it is set, is blocked in the kernel; 1 if so. */
int conform_thread_id(void);
int conform_blocked(atomic_int *id);
void conform_pause_ms(long ms);
void conform_start(pthread_t *thread, void *(*body)(void *), void *arg);
void conform_join(pthread_t thread);

/* ps_dispatch(bus, max, timeout_ms) in a thread. */
struct conform_dispatcher {
    ps_bus    *bus;
    int        max, timeout_ms;
    atomic_int done;            /* 1: returned */
    int        answer;
    pthread_t  thread;
};
void conform_dispatch_start(struct conform_dispatcher *d, ps_bus *bus, int max, int timeout_ms);
int conform_dispatch_join(struct conform_dispatcher *d);

struct conform_area {
    const struct CMUnitTest *tests;
    size_t                   count;
};
int conform_setup(void **state);
int conform_teardown(void **state);
#define conform_test(f) { #f, f, conform_setup, conform_teardown, NULL }
#define CONFORM_AREA(area) const struct conform_area area = { tests, sizeof tests / sizeof tests[0] }

extern const struct conform_area conform_open_area, conform_publish_area, conform_subscribe_area, conform_barrier_area,
                                 conform_dispatch_area, conform_stop_area, conform_descriptor_area, conform_full_area, conform_evict_area,
                                 conform_patience_area, conform_borrow_area, conform_loan_area, conform_inspect_area,
                                 conform_members_area, conform_life_area, conform_close_area;

#endif
