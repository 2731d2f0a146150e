/* SPDX-License-Identifier: MIT */
/*
 * soak.h - what the parts of the soak share. soak.c starts, kills and watches; roles.c is what the members of the bus do; watch.c
 * reads sizes from /proc and says whether they grew.
 */
#ifndef PS_SOAK_H
#define PS_SOAK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One member: a process over shm, a thread over inproc. In memory that all processes share. */
struct actor {
    char url[160];
    unsigned seed;
    _Atomic uint64_t beat;              /* goes up as long as it gets on */
    _Atomic uint64_t sent, read, lost;
    _Atomic uint64_t refused;           /* waited for space, in vain */
    _Atomic int resting;
};

/* Who is to rest: at a place of its loop where what it holds is the same each time. */
enum { REST_NOBODY, REST_READERS, REST_ALL };

struct soak {
    _Atomic int stop, rest;
    _Atomic int wrong;                  /* something was; the first one's words are in `text` */
    char text[400];
    _Atomic uint64_t forks;
    struct actor actor[32];
};
extern struct soak *soak;

/* Says what is wrong, once, and ends the process. */
_Noreturn void soak_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
void soak_nap_us(long us);
uint64_t soak_now_ms(void);

/* roles.c: each returns when soak->stop is set. */
typedef void (*soak_role)(struct actor *actor);
void role_publish(struct actor *actor);
void role_lend(struct actor *actor);
void role_read(struct actor *actor);
void role_read_slowly(struct actor *actor);     /* its URL says lossy=1 */
void role_pull(struct actor *actor);
void role_borrow(struct actor *actor);
void role_poll(struct actor *actor);
void role_churn(struct actor *actor);
void role_fork(struct actor *actor);
void role_fill_places(struct actor *actor);     /* returns when it has done that */

/* watch.c: a number that must not grow from one rest to another. */
struct watch { int64_t early, late; };
void watch_set(struct watch *watch, int late, int64_t value);       /* < 0: could not be known */
int watch_grew(const struct watch *watch, const char *who, const char *what, int64_t allowed);      /* 1, after saying so */

/* What a process has, in KiB; -1: cannot be known. */
struct memory {
    int64_t resident;                   /* with the pages of the bus that it has touched */
    int64_t own;                        /* of it alone: heap, stacks, data */
    int64_t mapped;                     /* addresses, whatever they are for */
};
struct memory memory_of(pid_t pid);
int64_t descriptors(pid_t pid);

#endif
