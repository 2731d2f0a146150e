/* SPDX-License-Identifier: MIT */
/*
 * measure.c - sides on cores of their own, medians, and the probe that tells near cores from far ones.
 */
#include "measure.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

double limit_s = 0.2, extra[4], samples[SAMPLES];
struct control *control;
int processes, blocking;

void give_up(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---------------------------------------------------------------- cores */

static cpu_set_t allowed;

/* Asked once, before the first pin() narrows it. */
int cores(void)
{
    static int count;
    if (count == 0) {
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
            give_up("sched_getaffinity");
        count = CPU_COUNT(&allowed);
    }
    return count;
}

void pin(int side)
{
    cpu_set_t one;
    int skip = side % cores();
    size_t core = 0;
    while (!CPU_ISSET(core, &allowed) || skip-- > 0)
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0)
        give_up("sched_setaffinity");
}

/* ---------------------------------------------------------------- sides */

static void (*side_main)(int number);
static int side_count;
static pthread_t side_thread[SIDES];
static pid_t side_process[SIDES];

void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        give_up("mmap");
    /* The first touch of a page costs more than what is measured. */
    memset(memory, 0, size);
    return memory;
}

static void *thread_main(void *arg)
{
    int number = (int)(intptr_t)arg;
    pin(number);
    side_main(number);
    return NULL;
}

static void start_process(int number)
{
    pid_t parent = getpid();
    side_process[number] = fork();
    if (side_process[number] < 0)
        give_up("fork");
    if (side_process[number] > 0)
        return;
    /* A side must not go on for ever when the main side gave up. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    pin(number);
    side_main(number);
    fflush(NULL);
    _exit(0);
}

void start_sides(int count, void (*side)(int number))
{
    memset(control, 0, sizeof *control);
    side_main = side;
    side_count = count;
    fflush(NULL);
    for (int i = 1; i <= count; i++) {
        if (processes) {
            start_process(i);
        } else if ((errno = pthread_create(&side_thread[i], NULL, thread_main, (void *)(intptr_t)i)) != 0) {
            give_up("pthread_create");
        }
    }
    pin(0);
}

void join_sides(void)
{
    for (int i = 1; i <= side_count; i++) {
        int status = 0;
        if (!processes) {
            pthread_join(side_thread[i], NULL);
        } else if (waitpid(side_process[i], &status, 0) != side_process[i] || status != 0) {
            fprintf(stderr, "bench: side %d ended with status %d\n", i, status);
            exit(1);
        }
    }
}

void wait_ready(int count)
{
    while (atomic_load_explicit(&control->ready, memory_order_acquire) < count) {
        nap_us(200);
        /* A side that gave up never gets ready; it is left for join_sides() to be waited for only when all went well. */
        for (int i = 1; processes && i <= side_count; i++) {
            siginfo_t info = { 0 };
            if (waitid(P_PID, (id_t)side_process[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
                atomic_load_explicit(&control->ready, memory_order_acquire) < count) {
                fprintf(stderr, "bench: side %d ended before it was ready\n", i);
                exit(1);
            }
        }
    }
}

/* ---------------------------------------------------------------- messages and statistics */

void ahead_begin(struct ahead *a)
{
    memset(a, 0, sizeof *a);
    for (uint64_t i = 0; i < 32; i++)
        compose(a->text[i], PAYLOAD, i);
}

/* Vectors as wide as the processor has, whatever the program was compiled for. */
#if defined __x86_64__ && defined __GNUC__ && !defined __clang__
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t read_all(const void *data, size_t size)
{
    typedef uint64_t line __attribute__((vector_size(64), may_alias));
    const line *from = data;
    line a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
    uint64_t sum = 0;
    for (size_t i = 0; i + 4 <= size / sizeof(line); i += 4) {
        a += from[i];
        b += from[i + 1];
        c += from[i + 2];
        d += from[i + 3];
    }
    a += b + c + d;
    for (int i = 0; i < 8; i++)
        sum += a[i];
    return sum;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double quantile(double *v, size_t n, double q)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof *v, compare);
    return v[(size_t)((double)(n - 1) * q)];
}

void histogram_add(struct row *row, const double *v, size_t n)
{
    if (!(row->flags & HISTOGRAM))
        return;
    for (size_t i = 0; i < n; i++) {
        int bin = (int)(log10(v[i] > 10 ? v[i] / 10 : 1) * BINS_PER_DECADE);
        row->bins[bin < BINS ? bin : BINS - 1]++;
    }
}

/* ---------------------------------------------------------------- lines that go to and fro */

static void two_lines_side(int number)
{
    (void)number;
    for (uint64_t i = 1;; i++) {
        while (atomic_load_explicit(&control->line_a, memory_order_acquire) != i)
            if (atomic_load_explicit(&control->fin, memory_order_relaxed))
                return;
        atomic_store_explicit(&control->line_b, i, memory_order_release);
    }
}

static void one_line_side(int number)
{
    (void)number;
    for (uint64_t i = 1;; i += 2) {
        while (atomic_load_explicit(&control->line_a, memory_order_acquire) != i)
            if (atomic_load_explicit(&control->fin, memory_order_relaxed))
                return;
        atomic_store_explicit(&control->line_a, i + 1, memory_order_release);
    }
}

#define CHUNK 200u

/* One way: the median over chunks of round trips, so that a side that lost its core for a while does not count. */
double ping_pong(int lines, uint64_t chunks)
{
    size_t n = 0;
    uint64_t i = 1;
    start_sides(1, lines == 2 ? two_lines_side : one_line_side);
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
    join_sides();
    return quantile(samples, n, 0.5);
}

double probe(void)
{
    int before = processes;
    processes = 0;
    double ns = ping_pong(2, 100);
    processes = before;
    return ns;
}
