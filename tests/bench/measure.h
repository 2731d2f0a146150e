/* SPDX-License-Identifier: MIT */
/*
 * measure.h - what all measurements share: time, cores, a block of memory that the sides see, sides that run on cores of their
 * own (processes or threads), medians, and the row of the table that a measurement fills.
 */
#ifndef PS_BENCH_MEASURE_H
#define PS_BENCH_MEASURE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define HELLO     (~UINT64_C(0))        /* the sequence of a message that only says that the way is open */
#define KEY       UINT64_C(0x5bd1e995a7c3d2f1)
#define PAYLOAD   64
#define SIDES     32
#define MOST_REPS 25

/* ---------------------------------------------------------------- rows */

enum {
    PROCESSES = 0x1,        /* the sides are processes, else threads */
    BLOCKING  = 0x2,        /* whoever waits sleeps, else polls */
    ONCE      = 0x4,        /* no time: measured once, without a probe */
    HALF      = 0x8,        /* a point of a curve: half the time is enough */
    HISTOGRAM = 0x10,       /* keeps all samples of all repetitions, sorted into bins */
    HIDDEN    = 0x20,       /* in the CSV and the plots, not in the table */
};

enum { NO_GOAL, AT_MOST, AT_LEAST };

struct row {
    const char *key;        /* its name: for PS_BENCH_ONLY, the CSV and other rows' goals; NULL: a heading */
    const char *what, *where, *unit;
    double (*measure)(struct row *row);     /* NULL: the value comes from `extra` of the row before */
    long x;                 /* what the measurement varies: bytes, subscribers, topics; or the index in `extra` */
    int flags;
    int goal;               /* AT_MOST or AT_LEAST `factor`, times the row `against` if there is one */
    double factor;
    const char *against;

    int wanted, measured;   /* by PS_BENCH_ONLY; repetitions done */
    double value[MOST_REPS], far[MOST_REPS];
    uint64_t *bins;
};

#define BINS           160
#define BINS_PER_DECADE 20.0        /* bin 0 begins at 10 ns */

/* What a measurement learnt beside its value. */
extern double extra[4];

/* ---------------------------------------------------------------- time and cores */

extern double limit_s;              /* time for the measurement in progress */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void nap_us(long us)
{
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    nanosleep(&t, NULL);
}

/* When the measurement that begins now has to end. */
static inline uint64_t end_ns(uint64_t begin) { return begin + (uint64_t)(limit_s * 1e9); }

/* Between two looks at a line that the other side is about to write: looking all the time takes the line away from it. */
static inline void relax(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

int cores(void);                    /* that this program may use */
void pin(int side);                 /* to the side's core */

/* ---------------------------------------------------------------- sides */

/* What the sides share. The main side has number 0, the others 1, 2, … */
struct control {
    _Alignas(128) _Atomic int ready, seen, fin, done;
    _Alignas(128) _Atomic uint64_t acked;
    _Alignas(128) _Atomic uint64_t total, last_ns, lost, bad;
    _Alignas(128) _Atomic uint64_t line_a;
    _Alignas(128) _Atomic uint64_t line_b;
    struct { _Alignas(128) _Atomic uint64_t count; } side[SIDES];
};

extern struct control *control;
extern int processes, blocking;     /* of the row in progress */

void start_sides(int count, void (*side)(int number));      /* numbers 1 to count; the caller is pinned as number 0 */
void join_sides(void);
void wait_ready(int count);         /* until so many sides have said so */
void *shared_memory(size_t size);   /* zeroed, seen by the sides started later, for ever */
_Noreturn void give_up(const char *what);       /* with errno's text */

/* ---------------------------------------------------------------- messages and statistics */

/* The payload's first and last eight bytes carry its number, so that a lost, doubled or torn message shows. */
static inline void compose(char *text, size_t size, uint64_t sequence)
{
    uint64_t key = sequence ^ KEY;
    memcpy(text, &sequence, 8);
    memcpy(text + size - 8, &key, 8);
}

struct receipt { uint64_t next, hello, lost, bad; };

static inline void check_message(struct receipt *r, const void *data, size_t size)
{
    uint64_t sequence, key;
    memcpy(&sequence, data, 8);
    memcpy(&key, (const char *)data + size - 8, 8);
    if (__builtin_expect(sequence == HELLO, 0)) {
        r->hello++;
        return;
    }
    if (__builtin_expect(sequence != r->next, 0))
        r->lost += sequence > r->next ? sequence - r->next : 1;
    if (__builtin_expect(key != (sequence ^ KEY), 0))
        r->bad++;
    r->next = sequence + 1;
}

/* Messages written 32 before they are sent, so that the copy does not wait for the stores before it: the harness's own cost. */
struct ahead { _Alignas(128) char text[64][PAYLOAD]; };
void ahead_begin(struct ahead *a);
static inline void ahead_next(struct ahead *a, uint64_t at) { compose(a->text[(at + 32) % 64], PAYLOAD, at + 32); }

/* Writes all bytes; reads all bytes, as fast as the processor can. */
uint64_t read_all(const void *data, size_t size);

#define SAMPLES ((size_t)1 << 20)
extern double samples[SAMPLES];
double quantile(double *v, size_t n, double q);     /* sorts v */
void histogram_add(struct row *row, const double *v, size_t n);

/* One way between two cores, now: tells near cores from far ones. */
double probe(void);
double ping_pong(int lines, uint64_t chunks);

#endif
