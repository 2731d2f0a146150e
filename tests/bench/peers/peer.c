/* SPDX-License-Identifier: MIT */
/*
 * peer.c - the measurements of a peer, the same for all: between processes, each message made and checked as ours are. A peer
 * brings threads of its own, so its sides are not pinned.
 */
#include "peer.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_READERS 64

struct peer *peers;

void peer_add(struct peer *peer)
{
    peer->next = peers;
    peers = peer;
}

void peer_failed(const char *peer, const char *what, const char *why)
{
    fprintf(stderr, "bench: %s: %s: %s\n", peer, what, why);
    exit(1);
}

/* ---------------------------------------------------------------- one measurement */

static struct peer *peer;       /* of the row in progress */
static char channel[64];
static int readers;
static size_t size;

static void begin_row(struct row *row, int count, size_t bytes)
{
    for (peer = peers; strcmp(peer->name, row->where) != 0; peer = peer->next)
        ;
    snprintf(channel, sizeof channel, "psbench.%d", (int)getpid());
    readers = count;
    size = bytes;
}

static void unpin(void)
{
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
}

static void take(void *user, const void *data, size_t bytes) { check_message(user, data, bytes); }

static void reading_side(int number)
{
    static struct receipt receipt[MOST_READERS];
    void *handle[MOST_READERS];
    uint64_t acked = 0;
    (void)number;
    unpin();
    for (int i = 0; i < readers; i++)
        handle[i] = peer->reader(channel);
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (;;) {
        uint64_t least = HELLO, greeted = HELLO;
        int any = 0;
        for (int i = 0; i < readers; i++) {
            any += peer->read(handle[i], readers == 1 ? 20 : 0, take, &receipt[i]);
            least = receipt[i].next < least ? receipt[i].next : least;
            greeted = receipt[i].hello < greeted ? receipt[i].hello : greeted;
        }
        if (least != acked) {
            acked = least;
            atomic_store_explicit(&control->acked, acked, memory_order_release);
        }
        if (greeted)
            atomic_store_explicit(&control->seen, 1, memory_order_release);
        if (atomic_load_explicit(&control->fin, memory_order_acquire) && acked == control->total)
            break;
        if (!any)
            sched_yield();
    }
    control->last_ns = now_ns();
    for (int i = 0; i < readers; i++) {
        control->lost += receipt[i].lost;
        control->bad += receipt[i].bad;
        peer->close(handle[i]);
    }
}

static void *meet(char *text)
{
    uint64_t hello = HELLO, begin = now_ns();
    start_sides(1, reading_side);
    unpin();
    void *publisher = peer->publisher(channel);
    wait_ready(1);
    memcpy(text, &hello, 8);
    while (!atomic_load_explicit(&control->seen, memory_order_acquire)) {
        peer->publish(publisher, text, size);
        if (peer->flush)
            peer->flush(publisher);
        nap_us(1000);
        if (now_ns() - begin > 10000000000u)
            peer_failed(peer->name, "meeting the readers", "no message within 10 seconds");
    }
    nap_us(20000);
    return publisher;
}

static void send_one(void *publisher, char *text, uint64_t at)
{
    if (peer->window) {
        /* Large ones would fill the memory. */
        uint64_t window = size > 65536 ? 16 : peer->window;
        while (at - atomic_load_explicit(&control->acked, memory_order_acquire) >= window) {
            if (peer->flush)
                peer->flush(publisher);
            sched_yield();
        }
    }
    compose(text, size, at);
    peer->publish(publisher, text, size);
}

static void leave(void *publisher, uint64_t total)
{
    if (peer->flush)
        peer->flush(publisher);
    control->total = total;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    /* Whoever loses the last message would be waited for for ever. */
    for (uint64_t begin = now_ns(); atomic_load(&control->last_ns) == 0; nap_us(200)) {
        if (now_ns() - begin > 10000000000u)
            peer_failed(peer->name, "end", "messages are missing");
        if (peer->flush)
            peer->flush(publisher);
    }
    join_sides();
    peer->close(publisher);
    if (control->lost || control->bad)
        fprintf(stderr, "bench: %s: %d lost, %d damaged\n", peer->name, (int)control->lost, (int)control->bad);
}

/* ---------------------------------------------------------------- rows */

/* Messages in nanoseconds. */
static double flood(void)
{
    char *text = calloc(1, size);
    uint64_t at = 0;
    if (!text)
        give_up("calloc");
    void *publisher = meet(text);
    uint64_t begin = now_ns(), end = end_ns(begin);
    do {
        for (int i = 0; i < (size > PAYLOAD ? 1 : 64); i++)
            send_one(publisher, text, at++);
    } while (now_ns() < end);
    leave(publisher, at);
    free(text);
    return (double)at / (double)(control->last_ns - begin);
}

/* Not every peer survives a fork of a process that has used it, so each measurement has a process that has not. */
static double isolated(struct row *row, double (*measure)(struct row *row))
{
    static double *result;
    int status;
    if (!result)
        result = shared_memory(sizeof *result);
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        *result = measure(row);
        fflush(NULL);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "bench: %s ended with status %d\n", row->where, status);
        exit(1);
    }
    return *result;
}

static double rate_in_child(struct row *row)
{
    begin_row(row, 1, PAYLOAD);
    return flood() * 1e3;
}

static double large_in_child(struct row *row)
{
    begin_row(row, 1, (size_t)row->x);
    return flood() * (double)row->x;
}

static double burst_in_child(struct row *row)
{
    char text[PAYLOAD] = { 0 };
    uint64_t at = 0;
    size_t n = 0;
    begin_row(row, (int)row->x, PAYLOAD);
    void *publisher = meet(text);
    uint64_t end = end_ns(now_ns());
    while (n < SAMPLES && (now_ns() < end || n < 20)) {
        uint64_t begin = now_ns();
        for (int i = 0; i < 32; i++)
            send_one(publisher, text, at++);
        if (peer->flush)
            peer->flush(publisher);
        samples[n++] = (double)(now_ns() - begin) / 32;
        for (begin = now_ns(); atomic_load_explicit(&control->acked, memory_order_acquire) < at; sched_yield())
            if (now_ns() - begin > 10000000000u)
                peer_failed(peer->name, "burst", "messages are missing");
    }
    leave(publisher, at);
    return quantile(samples, n, 0.5);
}

static void answering_side(int number)
{
    char back[80], text[PAYLOAD] = { 0 };
    struct receipt receipt = { 0 };
    uint64_t answered = 0;
    (void)number;
    unpin();
    snprintf(back, sizeof back, "%s.back", channel);
    void *in = peer->reader(channel), *out = peer->publisher(back);
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire)) {
        uint64_t hello = receipt.hello;
        peer->read(in, 20, take, &receipt);
        if (receipt.hello != hello) {
            memcpy(text, &(uint64_t){ HELLO }, 8);
            peer->publish(out, text, PAYLOAD);
        }
        for (; answered < receipt.next; answered++) {
            compose(text, PAYLOAD, answered);
            peer->publish(out, text, PAYLOAD);
        }
        if (peer->flush)
            peer->flush(out);
    }
    peer->close(in);
    peer->close(out);
}

static double latency_in_child(struct row *row)
{
    char back[80], text[PAYLOAD] = { 0 };
    struct receipt receipt = { 0 };
    uint64_t hello = HELLO, begin = now_ns(), end, after;
    size_t n = 0;
    begin_row(row, 1, PAYLOAD);
    snprintf(back, sizeof back, "%s.back", channel);
    start_sides(1, answering_side);
    unpin();
    void *out = peer->publisher(channel), *in = peer->reader(back);
    wait_ready(1);
    for (memcpy(text, &hello, 8); !receipt.hello; peer->read(in, 5, take, &receipt)) {
        peer->publish(out, text, PAYLOAD);
        if (peer->flush)
            peer->flush(out);
        if (now_ns() - begin > 10000000000u)
            peer_failed(peer->name, "meeting", "no answer within 10 seconds");
    }
    nap_us(20000);
    end = end_ns(now_ns());
    do {
        begin = now_ns();
        compose(text, PAYLOAD, n);
        peer->publish(out, text, PAYLOAD);
        if (peer->flush)
            peer->flush(out);
        while (receipt.next <= n)
            peer->read(in, 20, take, &receipt);
        after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
    } while (after < end && n < SAMPLES);
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    peer->close(in);
    peer->close(out);
    histogram_add(row, samples + n / 10, n - n / 10);
    return quantile(samples + n / 10, n - n / 10, 0.5);
}

static double peer_rate(struct row *row) { return isolated(row, rate_in_child); }
static double peer_large(struct row *row) { return isolated(row, large_in_child); }
static double peer_burst(struct row *row) { return isolated(row, burst_in_child); }
static double peer_latency(struct row *row) { return isolated(row, latency_in_child); }

void peer_rows(struct peer *which, struct row *rows)
{
    static const struct { const char *key, *what, *unit; double (*measure)(struct row *); long x; int flags; } kinds[] = {
        { "rate", "messages, 64 bytes", "M/s", peer_rate, PAYLOAD, 0 },
        { "sleeping", "latency, sleeping, median", "ns", peer_latency, 0, HISTOGRAM },
        { "fan-out.1", "publish in bursts, 1 subscriber", "ns", peer_burst, 1, 0 },
        { "fan-out.64", "publish in bursts, 64 subscribers", "ns", peer_burst, 64, 0 },
        { "copied.1m", "1 MiB", "GB/s", peer_large, 1048576, 0 },
    };
    _Static_assert(sizeof kinds / sizeof *kinds == PEER_ROWS - 1, "and a heading");
    rows[0] = (struct row){ .what = which->name };
    for (int i = 0; i < PEER_ROWS - 1; i++) {
        char *key = malloc(64);
        if (!key)
            give_up("malloc");
        snprintf(key, 64, "%s.%s", kinds[i].key, which->name);
        rows[i + 1] = (struct row){ .key = key, .what = kinds[i].what, .where = which->name, .unit = kinds[i].unit,
                                    .measure = kinds[i].measure, .x = kinds[i].x, .flags = PROCESSES | kinds[i].flags };
    }
}
