/* SPDX-License-Identifier: MIT */
/*
 * machine.h - two sides on two cores, and what the machine takes without a library: bare cache lines that go to and fro, and a
 * bare ring of one producer and one consumer.
 */
#ifndef PS_BENCH_MACHINE_H
#define PS_BENCH_MACHINE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double limit_s = 0.25;

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

static inline void pin(size_t core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* ---------------------------------------------------------------- two sides on two cores */

struct control {
    _Alignas(128) _Atomic int ready, seen, fin, done;
    _Alignas(128) _Atomic uint64_t acked;
    _Alignas(128) _Atomic uint64_t total, last_ns, lost, bad;
    _Alignas(128) _Atomic uint64_t line_a;
    _Alignas(128) _Atomic uint64_t line_b;
};

static struct control *control;
static int processes;                   /* the other side is a process, else a thread */
static void (*other_side)(void);
static pthread_t other_thread;
static pid_t other_process;

static inline void *thread_main(void *arg)
{
    (void)arg;
    pin(1);
    other_side();
    return NULL;
}

static inline void start_other(void (*side)(void))
{
    memset(control, 0, sizeof *control);
    other_side = side;
    fflush(NULL);
    if (processes) {
        other_process = fork();
        if (other_process < 0) {
            perror("bench: fork");
            exit(1);
        }
        if (other_process == 0) {
            pin(1);
            side();
            _exit(0);
        }
    } else if (pthread_create(&other_thread, NULL, thread_main, NULL) != 0) {
        perror("bench: pthread_create");
        exit(1);
    }
    pin(0);
}

static inline void join_other(void)
{
    int status = 0;
    if (!processes) {
        pthread_join(other_thread, NULL);
    } else if (waitpid(other_process, &status, 0) != other_process || status != 0) {
        fprintf(stderr, "bench: the other process ended with status %d\n", status);
        exit(1);
    }
}

static inline int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline double quantile(double *v, size_t n, double q)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof *v, compare);
    return v[(size_t)((double)(n - 1) * q)];
}

static double samples[1 << 20];
#define SAMPLES (sizeof samples / sizeof *samples)

/* ---------------------------------------------------------------- the machine itself */

static inline void two_lines_side(void)
{
    for (uint64_t i = 1; !control->fin; i++) {
        while (atomic_load_explicit(&control->line_a, memory_order_acquire) != i)
            if (atomic_load_explicit(&control->fin, memory_order_relaxed))
                return;
        atomic_store_explicit(&control->line_b, i, memory_order_release);
    }
}

static inline void one_line_side(void)
{
    for (uint64_t i = 1; !control->fin; i += 2) {
        while (atomic_load_explicit(&control->line_a, memory_order_acquire) != i)
            if (atomic_load_explicit(&control->fin, memory_order_relaxed))
                return;
        atomic_store_explicit(&control->line_a, i + 1, memory_order_release);
    }
}

#define CHUNK 200u

/* One way: the median over chunks of round trips, so that a side that lost its core for a while does not count. */
static inline double ping_pong(int lines, uint64_t chunks)
{
    size_t n = 0;
    uint64_t i = 1;
    start_other(lines == 2 ? two_lines_side : one_line_side);
    for (chunks = chunks < SAMPLES ? chunks : SAMPLES; n < chunks; n++) {
        uint64_t begin = now_ns();
        for (uint64_t end = i + CHUNK; i < end; i++) {
            if (lines == 2) {
                atomic_store_explicit(&control->line_a, i, memory_order_release);
                while (atomic_load_explicit(&control->line_b, memory_order_acquire) != i)
                    ;
            } else {
                atomic_store_explicit(&control->line_a, 2 * i - 1, memory_order_release);
                while (atomic_load_explicit(&control->line_a, memory_order_acquire) != 2 * i)
                    ;
            }
        }
        samples[n] = (double)(now_ns() - begin) / CHUNK / 2;
    }
    control->fin = 1;
    join_other();
    return quantile(samples, n, 0.5);
}

static inline double probe(void)
{
    int before = processes;
    processes = 0;
    double ns = ping_pong(2, 200);
    processes = before;
    return ns;
}

static inline double bare_one_line(void) { return ping_pong(1, (uint64_t)(limit_s * 2e4)); }
static inline double bare_two_lines(void) { return ping_pong(2, (uint64_t)(limit_s * 2e4)); }

/* One producer, one consumer, 64 bytes a message, each keeps the last index it saw of the other. */
#define CELLS 4096u
struct bare_ring {
    _Alignas(128) _Atomic uint64_t head;
    _Alignas(128) _Atomic uint64_t tail;
    _Alignas(128) uint64_t cell[CELLS][8];
};
static struct bare_ring *bare;

static inline void bare_side(void)
{
    uint64_t at = 0, seen = 0, sum = 0;
    for (;;) {
        while ((seen = atomic_load_explicit(&bare->head, memory_order_acquire)) == at)
            if (atomic_load_explicit(&control->fin, memory_order_acquire) && at == control->total)
                goto end;
        for (; at < seen; at++) {
            for (int k = 0; k < 8; k++)
                sum += bare->cell[at % CELLS][k];
        }
        atomic_store_explicit(&bare->tail, at, memory_order_release);
    }
end:
    control->last_ns = now_ns();
    control->lost = sum;
}

static inline double bare_ring(void)
{
    uint64_t at = 0, seen = 0, sum = 0;
    memset(bare, 0, sizeof *bare);
    start_other(bare_side);
    nap_us(5000);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(limit_s * 1e9);
    do {
        for (int i = 0; i < 256; i++, at++) {
            while (at - seen >= CELLS)
                seen = atomic_load_explicit(&bare->tail, memory_order_acquire);
            for (uint64_t k = 0; k < 8; k++)
                bare->cell[at % CELLS][k] = at + k;
            sum += 8 * at + 28;
            atomic_store_explicit(&bare->head, at + 1, memory_order_release);
        }
    } while (now_ns() < end);
    control->total = at;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_other();
    if (control->lost != sum)
        fprintf(stderr, "bench: the bare ring's sum is wrong\n");
    return (double)at / ((double)(control->last_ns - begin) / 1e3);
}

#endif
