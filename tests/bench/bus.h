/* SPDX-License-Identifier: MIT */
/*
 * bus.h - what the measurements of libpsbus share: how they open a bus, meet its readers and end.
 */
#ifndef PS_BENCH_BUS_H
#define PS_BENCH_BUS_H

#include "measure.h"

#include <psbus.h>

#define MAX_SUBSCRIBERS 64

/* Of the measurement in progress; the sides started later see it. */
struct bus_setup {
    int subscribers;            /* handles of the reading side */
    int topics;                 /* each handle subscribes to all of them */
    size_t size;                /* bytes of a message */
    unsigned flags;             /* of the subscriptions */
    int touch;                  /* handlers read every byte */
};
extern struct bus_setup bus_setup;
extern char bus_url[160];

_Noreturn void bus_failed(const char *what, int rc);
#define MUST(call) do { int rc_ = (call); if (__builtin_expect(rc_ < 0, 0)) bus_failed(#call, rc_); } while (0)

void bus_new_url(const char *options);          /* a name of its own, shm or inproc as the row says */
void bus_topic(char *topic, int number);        /* 16 bytes; room for 24 */
struct bus_reader { struct receipt receipt; ps_bus *bus; uint64_t sum; };
void bus_take(const ps_msg *msg, void *user);   /* a handler; user: a struct bus_reader */

/* The publishing handle, when the readers of bus_setup have been started and each has heard it. */
ps_bus *bus_meet_readers(void);
/* Ends what that began: waits until the readers have read all. Returns nanoseconds from begin to the last message. */
double bus_finish(ps_bus *bus, uint64_t total, uint64_t begin);

#endif
