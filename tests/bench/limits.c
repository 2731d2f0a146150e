/* SPDX-License-Identifier: MIT */
/*
 * limits.c - bare cache lines between two cores, a bare ring of one producer and one consumer that knows nothing of topics, other
 * readers or dying peers, pipes, and bare buffers. What a library does comes on top. Bare cells: cells.c.
 *
 * The ring: 64-byte cells, head and tail on lines of their own, each side keeps the last index it saw of the other, the reader
 * says how far it is once for all that was there. Messages are made and checked as those of the library's measurements are.
 */
#include "limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

double limit_one_line(struct row *row) { (void)row; return ping_pong(1, (uint64_t)(limit_s * 2e4)); }
double limit_two_lines(struct row *row) { (void)row; return ping_pong(2, (uint64_t)(limit_s * 2e4)); }

/* ---------------------------------------------------------------- the ring */

#define RING_CELLS 4096u

struct ring {
    _Alignas(128) _Atomic uint64_t head;
    _Alignas(128) _Atomic uint64_t tail;
    _Alignas(128) _Atomic uint32_t bell;
    _Atomic uint32_t sleeping;
    _Alignas(128) char cell[RING_CELLS][PAYLOAD];
};

struct end { struct ring *ring; uint64_t at, other; };

static struct ring *ring;       /* two, one each way */

static void rings_empty(void)
{
    if (!ring)
        ring = shared_memory(2 * sizeof *ring);
    memset(ring, 0, 2 * sizeof *ring);
}

static inline void ring_send(struct end *e, const void *data)
{
    while (__builtin_expect(e->at - e->other >= RING_CELLS, 0)) {
        relax();
        e->other = atomic_load_explicit(&e->ring->tail, memory_order_acquire);
    }
    memcpy(e->ring->cell[e->at % RING_CELLS], data, PAYLOAD);
    atomic_store_explicit(&e->ring->head, ++e->at, memory_order_release);
}

static inline void ring_wake(struct end *e)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&e->ring->sleeping, memory_order_relaxed)) {
        atomic_store_explicit(&e->ring->sleeping, 0, memory_order_relaxed);
        atomic_fetch_add(&e->ring->bell, 1);
        syscall(SYS_futex, &e->ring->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

/* Returns whether there was something. */
static inline int ring_read(struct end *e, struct receipt *receipt)
{
    uint64_t head = atomic_load_explicit(&e->ring->head, memory_order_acquire);
    if (head == e->at)
        return 0;
    for (; e->at != head; e->at++)
        check_message(receipt, e->ring->cell[e->at % RING_CELLS], PAYLOAD);
    atomic_store_explicit(&e->ring->tail, e->at, memory_order_release);
    return 1;
}

static void ring_sleep(struct end *e)
{
    const struct timespec most = { 0, 100000000 };
    uint32_t bell = atomic_load_explicit(&e->ring->bell, memory_order_acquire);
    atomic_store(&e->ring->sleeping, 1);
    if (atomic_load(&e->ring->head) == e->at)
        syscall(SYS_futex, &e->ring->bell, FUTEX_WAIT, bell, &most, NULL, 0);
    atomic_store_explicit(&e->ring->sleeping, 0, memory_order_relaxed);
}

/* Compiled for wide vectors too, chosen when the program starts: the limit is the machine's, not the compiler flags'. */
#if defined __x86_64__ && defined __GNUC__ && !defined __clang__
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

WIDE static void ring_side(int number)
{
    struct end in = { ring, 0, 0 };
    struct receipt receipt = { 0 };
    (void)number;
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    do
        if (!ring_read(&in, &receipt))
            relax();
        else    /* as the readers of the other measurements do */
            atomic_store_explicit(&control->acked, in.at, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire) || in.at != control->total);
    control->last_ns = now_ns();
    control->lost = receipt.lost;
    control->bad = receipt.bad;
}

WIDE static uint64_t ring_flood(uint64_t end)
{
    static struct ahead ahead;
    struct end out = { ring, 0, 0 };
    ahead_begin(&ahead);
    do {
        for (int i = 0; i < 64; i++) {
            ring_send(&out, ahead.text[out.at % 64]);
            ahead_next(&ahead, out.at - 1);
        }
    } while (now_ns() < end);
    return out.at;
}

double limit_ring(struct row *row)
{
    (void)row;
    rings_empty();
    start_sides(1, ring_side);
    wait_ready(1);
    nap_us(5000);
    uint64_t begin = now_ns(), total = ring_flood(end_ns(begin));
    control->total = total;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (control->lost || control->bad)
        fprintf(stderr, "bench: the bare ring lost or damaged messages\n"), exit(1);
    return (double)total / ((double)(control->last_ns - begin) / 1e3);
}

/* ---------------------------------------------------------------- sleeping */

static void ring_exchange(struct end *out, const char *text, struct end *in, struct receipt *receipt, uint64_t next)
{
    if (text) {
        ring_send(out, text);
        ring_wake(out);
    }
    while (receipt->next < next && !atomic_load_explicit(&control->fin, memory_order_relaxed)) {
        ring_read(in, receipt);
        if (receipt->next < next)
            ring_sleep(in);
    }
}

static void ring_answering_side(int number)
{
    struct end in = { &ring[0], 0, 0 }, out = { &ring[1], 0, 0 };
    struct receipt receipt = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    (void)number;
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    ring_exchange(&out, NULL, &in, &receipt, 1);
    for (uint64_t i = 0; !atomic_load_explicit(&control->fin, memory_order_relaxed); i++) {
        compose(text, PAYLOAD, i);
        ring_exchange(&out, text, &in, &receipt, i + 2);
    }
}

double limit_latency(size_t n)
{
    /* The first tenth warms things up. */
    extra[0] = quantile(samples + n / 10, n - n / 10, 0.999);
    return quantile(samples + n / 10, n - n / 10, 0.5);
}

void limit_answers_end(const struct receipt *receipt)
{
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (receipt->bad || receipt->lost)
        fprintf(stderr, "bench: answers were lost or damaged\n"), exit(1);
}

double limit_ring_sleeping(struct row *row)
{
    struct end out, in;
    struct receipt receipt = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    size_t n = 0;
    rings_empty();
    out = (struct end){ &ring[0], 0, 0 };
    in = (struct end){ &ring[1], 0, 0 };
    start_sides(1, ring_answering_side);
    wait_ready(1);
    nap_us(5000);
    uint64_t end = end_ns(now_ns()), after;
    do {
        uint64_t begin = now_ns();
        compose(text, PAYLOAD, n);
        ring_exchange(&out, text, &in, &receipt, n + 1);
        after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
    } while (after < end && n < SAMPLES);
    limit_answers_end(&receipt);
    histogram_add(row, samples + n / 10, n - n / 10);
    return limit_latency(n);
}

/* ---------------------------------------------------------------- pipes */

static int pipes[2][2];

static void pipe_side(int number)
{
    char text[PAYLOAD];
    (void)number;
    close(pipes[0][1]);
    while (read(pipes[0][0], text, sizeof text) == (ssize_t)sizeof text)
        if (write(pipes[1][1], text, sizeof text) != (ssize_t)sizeof text)
            give_up("write");
}

double limit_pipe(struct row *row)
{
    char text[PAYLOAD] = { 0 };
    size_t n = 0;
    (void)row;
    if (pipe(pipes[0]) != 0 || pipe(pipes[1]) != 0)
        give_up("pipe");
    start_sides(1, pipe_side);
    uint64_t end = end_ns(now_ns()), after;
    do {
        uint64_t begin = now_ns();
        if (write(pipes[0][1], text, sizeof text) != (ssize_t)sizeof text ||
            read(pipes[1][0], text, sizeof text) != (ssize_t)sizeof text)
            give_up("pipe");
        after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
    } while (after < end && n < SAMPLES);
    /* The other side ends when nobody can write any more. */
    close(pipes[0][1]);
    join_sides();
    close(pipes[0][0]);
    close(pipes[1][0]);
    close(pipes[1][1]);
    return limit_latency(n);
}

/* ---------------------------------------------------------------- buffers */

#define BUFFERS_MOST ((size_t)16 << 20)

static char *buffer;
static size_t buffer_size, buffers;
static int copied;              /* into them and out of them, as a message is that is neither lent nor borrowed */

static void buffers_side(int number)
{
    uint64_t i = 0, sum = 0;
    char *own = NULL;
    (void)number;
    if (copied && !(own = calloc(1, buffer_size)))
        give_up("calloc");
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (;;) {
        while (atomic_load_explicit(&control->line_a, memory_order_acquire) == i) {
            if (atomic_load_explicit(&control->fin, memory_order_acquire) && i == control->total)
                goto end;
            relax();
        }
        const char *data = buffer + i % buffers * buffer_size;
        if (copied)
            data = memcpy(own, data, buffer_size);
        sum += read_all(data, buffer_size);
        atomic_store_explicit(&control->line_b, ++i, memory_order_release);
    }
end:
    control->last_ns = now_ns();
    control->acked = sum;
    free(own);
}

/* A buffer for each of some messages, as the library's measurements have them. */
static void buffers_write(uint64_t end)
{
    const size_t count = buffer_size <= 65536 ? 16 : 2;
    char *text = copied ? calloc(count, buffer_size) : NULL;
    uint64_t at = 0;
    if (copied && !text)
        give_up("calloc");
    do {
        while (at - atomic_load_explicit(&control->line_b, memory_order_acquire) >= buffers)
            relax();
        char *to = buffer + at % buffers * buffer_size, *data = copied ? text + at % count * buffer_size : to;
        memset(data, (int)at, buffer_size);
        if (copied)
            memcpy(to, data, buffer_size);
        atomic_store_explicit(&control->line_a, ++at, memory_order_release);
    } while (now_ns() < end);
    control->total = at;
    free(text);
}

static double buffers_rate(const struct row *row)
{
    if (!buffer)
        buffer = shared_memory(BUFFERS_MOST);
    buffer_size = (size_t)row->x < BUFFERS_MOST ? (size_t)row->x : BUFFERS_MOST;
    start_sides(1, buffers_side);
    wait_ready(1);
    uint64_t begin = now_ns();
    buffers_write(end_ns(begin));
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    return (double)control->total * (double)buffer_size / (double)(control->last_ns - begin);
}

double limit_touched(struct row *row)
{
    copied = 0;
    buffers = 4;
    return buffers_rate(row);
}

/* As much as the ring of large_copied holds. */
double limit_copied(struct row *row)
{
    copied = 1;
    buffers = BUFFERS_MOST / (size_t)row->x;
    return buffers_rate(row);
}

/* ---------------------------------------------------------------- space */

/* Microseconds until so much of a new file in memory is allocated, as a lane is before it is used. */
double limit_reserved(struct row *row)
{
    size_t n = 0;
    for (uint64_t end = end_ns(now_ns()); n < 256 && now_ns() < end; n++) {
        int fd = memfd_create("bench", MFD_CLOEXEC);
        if (fd < 0)
            give_up("memfd_create");
        uint64_t begin = now_ns();
        if (fallocate(fd, 0, 0, row->x) != 0)
            give_up("fallocate");
        samples[n] = (double)(now_ns() - begin) / 1e3;
        close(fd);
    }
    return quantile(samples, n, 0.5);
}
