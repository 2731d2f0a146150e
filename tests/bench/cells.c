/* SPDX-License-Identifier: MIT */
/*
 * cells.c - the machine's limits for what the library promises: a message with a topic needs a cell of two lines, and who may
 * wake a sleeper needs a full fence behind it. One producer, one consumer, and nothing else.
 */
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>

/* The stamp says that it is there, and the text reaches into the second line. */
struct cell {
    _Alignas(128) _Atomic uint64_t stamp;
    char head[24], text[PAYLOAD];
};

#define SECOND 32u              /* where in the text the second line begins */
#define CELLS 8192u             /* as many as a lane has */
#define AHEAD 8u                /* so far ahead the producer fetches lines, */
#define PAUSE 16u               /* between two looks of the consumer */
#define BATCH 256u              /* and so many the consumer takes at once */

static struct cell *cells;      /* CELLS each way */

static void cells_empty(void)
{
    if (!cells)
        cells = shared_memory(2 * CELLS * sizeof *cells);
    memset(cells, 0, 2 * CELLS * sizeof *cells);
}

static inline void cell_send(uint64_t at, struct cell *ring_of_cells, const char *text)
{
    struct cell *cell = &ring_of_cells[at % CELLS];
    /* The second line first: the line with the stamp, which the consumer looks at and so takes away, is written at once. */
    memcpy(cell->text + SECOND, text + SECOND, PAYLOAD - SECOND);
    __asm__ volatile("" : : : "memory");
    memcpy(cell->text, text, SECOND);
    atomic_store_explicit(&cell->stamp, at + 1, memory_order_release);
}

/* ---------------------------------------------------------------- polling */

static inline void cell_take(uint64_t at, struct cell *ring_of_cells, struct receipt *receipt)
{
    struct cell *cell = &ring_of_cells[at % CELLS];
    while (atomic_load_explicit(&cell->stamp, memory_order_acquire) != at + 1) {
        __builtin_prefetch(cell->text + SECOND);        /* both lines at once, not one after the other */
        if (atomic_load_explicit(&control->fin, memory_order_relaxed))
            return;
    }
    check_message(receipt, cell->text, PAYLOAD);
}

static void cells_answering_side(int number)
{
    struct receipt receipt = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    (void)number;
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (uint64_t i = 0; !atomic_load_explicit(&control->fin, memory_order_relaxed); i++) {
        cell_take(i, cells, &receipt);
        compose(text, PAYLOAD, i);
        cell_send(i, cells + CELLS, text);
    }
}

double limit_cells(struct row *row)
{
    struct receipt receipt = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    size_t n = 0;
    (void)row;
    cells_empty();
    start_sides(1, cells_answering_side);
    wait_ready(1);
    uint64_t end = end_ns(now_ns()), after;
    do {
        uint64_t begin = now_ns();
        compose(text, PAYLOAD, n);
        cell_send(n, cells, text);
        cell_take(n, cells + CELLS, &receipt);
        after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
    } while (after < end && n < SAMPLES);
    limit_answers_end(&receipt);
    return limit_latency(n);
}

/* ---------------------------------------------------------------- one after the other */

/* A full fence, the cheapest that there is. */
static inline void fence(void)
{
#if defined __x86_64__
    __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void fetch_for_writing(const char *line)
{
#if defined __x86_64__
    __asm__ volatile("prefetchw %0" : : "m"(*line));    /* the compiler would fetch it for reading, for old processors' sake */
#else
    __builtin_prefetch(line, 1);
#endif
}

static inline void cell_send_fenced(uint64_t at, const char *text)
{
    const char *next = (const char *)&cells[(at + AHEAD) % CELLS];
    fetch_for_writing(next);
    fetch_for_writing(next + sizeof *cells / 2);
    cell_send(at, cells, text);
    fence();
}

/* Takes `most` at once, and so stays off the lines that the producer writes; what is left at the end one by one. */
static void cells_reading_side(uint64_t most)
{
    struct receipt receipt = { 0 };
    uint64_t at = 0;
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (;;) {
        uint64_t last = at + most - 1;
        if (atomic_load_explicit(&cells[last % CELLS].stamp, memory_order_acquire) == last + 1) {
            for (; at <= last; at++) {
                const char *next = (const char *)&cells[(at + AHEAD < last ? at + AHEAD : last) % CELLS];
                __builtin_prefetch(next);
                __builtin_prefetch(next + sizeof *cells / 2);
                check_message(&receipt, cells[at % CELLS].text, PAYLOAD);
            }
            atomic_store_explicit(&control->acked, at, memory_order_release);
        } else if (atomic_load_explicit(&control->fin, memory_order_acquire)) {
            if (at == control->total)
                break;
            most = 1;
        } else {
            for (unsigned i = 0; i < PAUSE; i++)
                relax();
        }
    }
    control->last_ns = now_ns();
    control->lost = receipt.lost;
    control->bad = receipt.bad;
}

static void cells_behind_side(int number)
{
    (void)number;
    cells_reading_side(BATCH);
}

static void cells_chasing_side(int number)
{
    (void)number;
    cells_reading_side(1);
}

static void cells_end(uint64_t total)
{
    control->total = total;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (control->lost || control->bad)
        fprintf(stderr, "bench: bare cells were lost or damaged\n"), exit(1);
}

double limit_cells_rate(struct row *row)
{
    static struct ahead ahead;
    uint64_t at = 0, room = CELLS - 2 * AHEAD;
    (void)row;
    cells_empty();
    ahead_begin(&ahead);
    start_sides(1, cells_behind_side);
    wait_ready(1);
    nap_us(5000);
    uint64_t begin = now_ns(), end = end_ns(begin);
    do {
        for (int i = 0; i < 64; i++, at++) {
            while (at >= room)
                room = atomic_load_explicit(&control->acked, memory_order_acquire) + CELLS - 2 * AHEAD;
            cell_send_fenced(at, ahead.text[at % 64]);
            ahead_next(&ahead, at);
        }
    } while (now_ns() < end);
    cells_end(at);
    return (double)at / ((double)(control->last_ns - begin) / 1e3);
}

/* The producer's time for each, the consumer having read everything before. */
double limit_cells_burst(struct row *row)
{
    _Alignas(64) char text[PAYLOAD] = { 0 };
    uint64_t at = 0;
    size_t n = 0;
    cells_empty();
    start_sides(1, cells_chasing_side);
    wait_ready(1);
    nap_us(5000);
    uint64_t end = end_ns(now_ns());
    while (n < SAMPLES && now_ns() < end) {
        uint64_t begin = now_ns();
        for (long i = 0; i < row->x; i++, at++) {
            compose(text, PAYLOAD, at);
            cell_send_fenced(at, text);
        }
        samples[n++] = (double)(now_ns() - begin) / (double)row->x;
        while (atomic_load_explicit(&control->acked, memory_order_acquire) < at)
            ;
        nap_us(50);
    }
    cells_end(at);
    return quantile(samples, n, 0.5);
}
