/* SPDX-License-Identifier: MIT */
/*
 * main.c - the table of all measurements with their goals, and the loop that fills it: libpsbus beside what the machine takes for
 * the same. Everything in one run, because cores, clocks and neighbours change between runs.
 *
 *   PS_BENCH_REPS=5      repetitions; the table shows medians
 *   PS_BENCH_MS=200      time for each measurement
 *   PS_BENCH_ONLY=TEXT   only rows whose key contains one of these texts, divided by commas, and what their goals need
 *   bench LIBRARY FIRST DIRECTORY     the shared library whose text is counted, the program `first`, where the CSV goes
 *
 * Two virtual cores may lie near each other or far apart, and move: a probe runs before and behind each measurement.
 */
#include "limits.h"
#include "peers/peer.h"
#include "report.h"
#include "scenarios.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RATE(bytes, w, f)    { .key = "size." w "." #bytes, .what = "messages of " #bytes " bytes", .where = w, \
                               .unit = "M/s", .measure = rate, .x = bytes, .flags = (f) | HALF | HIDDEN }
#define BURST(n)             { .key = "burst." #n, .what = "publish, " #n " subscribers", .where = "shm", .unit = "ns", \
                               .measure = burst, .x = n, .flags = PROCESSES | HALF | HIDDEN }
#define TOPICS(n)            { .key = "topics." #n, .what = "message, " #n " topics", .where = "shm", .unit = "ns", \
                               .measure = topics, .x = n, .flags = PROCESSES | HALF | HIDDEN }
#define MANY(n, w, f)        { .key = "many." w "." #n, .what = "publishers and readers, " #n " each", .where = w, \
                               .unit = "M/s", .measure = many_to_many, .x = n, .flags = (f) | HALF }

static struct row own_rows[] = {
    { .what = "the machine" },
    { .key = "line", .what = "one line there and back, one way", .where = "processes", .unit = "ns",
      .measure = limit_one_line, .flags = PROCESSES },
    { .key = "lines", .what = "two lines, one each way, one way", .where = "processes", .unit = "ns",
      .measure = limit_two_lines, .flags = PROCESSES },
    { .key = "ring.shm", .what = "bare ring, 64 bytes, one to one", .where = "processes", .unit = "M/s",
      .measure = limit_ring, .flags = PROCESSES },
    { .key = "ring.inproc", .what = "bare ring, 64 bytes, one to one", .where = "threads", .unit = "M/s",
      .measure = limit_ring },
    { .key = "cells", .what = "bare cells of two lines, polling, one way", .where = "processes", .unit = "ns",
      .measure = limit_cells, .flags = PROCESSES },
    { .key = "cells.tail", .what = "bare cells, polling, 99.9 %", .where = "processes", .unit = "ns", .x = 0 },
    { .key = "cells.rate", .what = "bare cells with a fence, 64 bytes, one to one", .where = "processes", .unit = "M/s",
      .measure = limit_cells_rate, .flags = PROCESSES },
    { .key = "cells.burst", .what = "bare cells with a fence, in bursts of 32", .where = "processes", .unit = "ns",
      .measure = limit_cells_burst, .x = 32, .flags = PROCESSES },
    { .key = "ring.sleeping", .what = "bare ring with futexes, sleeping, one way", .where = "processes", .unit = "ns",
      .measure = limit_ring_sleeping, .flags = PROCESSES | BLOCKING | HISTOGRAM },
    { .key = "pipe", .what = "pipe, sleeping, one way", .where = "processes", .unit = "ns",
      .measure = limit_pipe, .flags = PROCESSES | BLOCKING },
    { .key = "touched.64k", .what = "64 KiB written there and read here", .where = "processes", .unit = "GB/s",
      .measure = limit_touched, .x = 65536, .flags = PROCESSES },
    { .key = "touched.1m", .what = "1 MiB written there and read here", .where = "processes", .unit = "GB/s",
      .measure = limit_touched, .x = 1048576, .flags = PROCESSES },
    { .key = "bare.copied.64k", .what = "the same, copied in and out, 64 KiB", .where = "processes", .unit = "GB/s",
      .measure = limit_copied, .x = 65536, .flags = PROCESSES },
    { .key = "bare.copied.1m", .what = "the same, copied in and out, 1 MiB", .where = "processes", .unit = "GB/s",
      .measure = limit_copied, .x = 1048576, .flags = PROCESSES },
    { .key = "reserved", .what = "3 MiB of a file in memory allocated", .where = "processes", .unit = "us",
      .measure = limit_reserved, .x = 3 << 20, .flags = PROCESSES },
    { .key = "first.ring", .what = "fork, exec, first message through a bare ring", .where = "processes", .unit = "us",
      .measure = first_message, .x = 0, .flags = PROCESSES },

    { .what = "one publisher, one reader" },
    { .key = "rate.shm", .what = "messages, 64 bytes, 16-byte topic", .where = "shm", .unit = "M/s",
      .measure = rate, .x = PAYLOAD, .flags = PROCESSES, .goal = AT_LEAST, .factor = 0.5, .against = "ring.shm" },
    { .key = "rate.inproc", .what = "messages, 64 bytes, 16-byte topic", .where = "inproc", .unit = "M/s",
      .measure = rate, .x = PAYLOAD, .goal = AT_LEAST, .factor = 0.5, .against = "ring.inproc" },
    { .key = "polling.shm", .what = "latency, polling, median", .where = "shm", .unit = "ns",
      .measure = latency, .flags = PROCESSES | HISTOGRAM, .goal = AT_MOST, .factor = 1.05, .against = "lines" },
    { .key = "polling.shm.tail", .what = "latency, polling, 99.9 %", .where = "shm", .unit = "ns",
      .x = 0, .goal = AT_MOST, .factor = 2, .against = "polling.shm" },
    { .key = "polling.inproc", .what = "latency, polling, median", .where = "inproc", .unit = "ns",
      .measure = latency, .flags = HISTOGRAM, .goal = AT_MOST, .factor = 1.05, .against = "lines" },
    { .key = "polling.inproc.tail", .what = "latency, polling, 99.9 %", .where = "inproc", .unit = "ns",
      .x = 0, .goal = AT_MOST, .factor = 2, .against = "polling.inproc" },
    { .key = "sleeping.shm", .what = "latency, sleeping, median", .where = "shm", .unit = "ns",
      .measure = latency, .flags = PROCESSES | BLOCKING | HISTOGRAM,
      .goal = AT_MOST, .factor = 1.25, .against = "ring.sleeping" },
    { .key = "sleeping.shm.tail", .what = "latency, sleeping, 99.9 %", .where = "shm", .unit = "ns", .x = 0 },
    { .key = "sleeping.inproc", .what = "latency, sleeping, median", .where = "inproc", .unit = "ns",
      .measure = latency, .flags = BLOCKING | HISTOGRAM },

    { .what = "large messages, written and read in full" },
    { .key = "in-place.64k", .what = "64 KiB, loan and PS_BORROW", .where = "shm", .unit = "GB/s",
      .measure = large_in_place, .x = 65536, .flags = PROCESSES, .goal = AT_LEAST, .factor = 0.7, .against = "touched.64k" },
    { .key = "in-place.1m", .what = "1 MiB, loan and PS_BORROW", .where = "shm", .unit = "GB/s",
      .measure = large_in_place, .x = 1048576, .flags = PROCESSES, .goal = AT_LEAST, .factor = 0.9, .against = "touched.1m" },
    { .key = "copied.64k", .what = "64 KiB, ps_publish and a copying handler", .where = "shm", .unit = "GB/s",
      .measure = large_copied, .x = 65536, .flags = PROCESSES, .goal = AT_LEAST, .factor = 20 },
    { .key = "copied.1m", .what = "1 MiB, ps_publish and a copying handler", .where = "shm", .unit = "GB/s",
      .measure = large_copied, .x = 1048576, .flags = PROCESSES, .goal = AT_LEAST, .factor = 20 },

    { .what = "many readers, many topics, many publishers" },
    { .key = "fan-out.1", .what = "publish in bursts, 1 subscriber", .where = "shm", .unit = "ns",
      .measure = burst, .x = 1, .flags = PROCESSES, .goal = AT_MOST, .factor = 25 },
    { .key = "fan-out.64", .what = "publish in bursts, 64 subscribers", .where = "shm", .unit = "ns",
      .measure = burst, .x = 64, .flags = PROCESSES, .goal = AT_MOST, .factor = 1.15, .against = "fan-out.1" },
    { .key = "message.1", .what = "message, 1 topic, end to end", .where = "shm", .unit = "ns",
      .measure = topics, .x = 1, .flags = PROCESSES },
    { .key = "message.100000", .what = "message, 100 000 topics, all subscribed", .where = "shm", .unit = "ns",
      .measure = topics, .x = 100000, .flags = PROCESSES, .goal = AT_MOST, .factor = 60 },
    { .key = "picky", .what = "reader of 1 % of the traffic, for each message", .where = "shm", .unit = "ns",
      .measure = one_percent, .flags = PROCESSES, .goal = AT_MOST, .factor = 5 },
    { .key = "picky.wild", .what = "the same, with a wildcard filter as well", .where = "shm", .unit = "ns",
      .measure = one_percent, .x = 1, .flags = PROCESSES },
    { .key = "publishers.1", .what = "one thread publishing, its reader does not read", .where = "inproc", .unit = "M/s",
      .measure = publishers, .x = 1 },
    { .key = "publishers.2", .what = "two threads publishing, together", .where = "inproc", .unit = "M/s",
      .measure = publishers, .x = 2, .goal = AT_LEAST, .factor = 0.8, .against = "publishers.1" },
    MANY(1, "shm", PROCESSES), MANY(2, "shm", PROCESSES), MANY(4, "shm", PROCESSES), MANY(8, "shm", PROCESSES),
    MANY(16, "shm", PROCESSES),
    MANY(1, "inproc", 0), MANY(2, "inproc", 0), MANY(4, "inproc", 0), MANY(8, "inproc", 0), MANY(16, "inproc", 0),

    { .what = "publish, and few want it" },
    { .key = "nobody.shm", .what = "publish that nobody wants", .where = "shm", .unit = "ns",
      .measure = nobody, .flags = PROCESSES, .goal = AT_MOST, .factor = 12 },
    { .key = "nobody.inproc", .what = "publish that nobody wants", .where = "inproc", .unit = "ns",
      .measure = nobody, .goal = AT_MOST, .factor = 12 },
    { .key = "sleepers.burst", .what = "64 sleep and do not want it, bursts of 1/4 ring", .where = "shm", .unit = "ns",
      .measure = sleepers_burst, .x = 64, .flags = PROCESSES, .goal = AT_MOST, .factor = 20 },
    { .key = "sleepers.sustained", .what = "the same without a pause", .where = "shm", .unit = "ns",
      .measure = sleepers_sustained, .x = 64, .flags = PROCESSES },
    { .key = "sleepers.wakes", .what = "the same, wakes for each half ring", .where = "shm", .unit = "",
      .x = 0, .goal = AT_MOST, .factor = 64 },

    { .what = "footprint" },
    { .key = "first.bus", .what = "fork, exec, first message", .where = "shm", .unit = "us",
      .measure = first_message, .x = 1, .flags = PROCESSES, .goal = AT_MOST, .factor = 1.1, .against = "first.ring" },
    { .key = "resident", .what = "resident memory of a minimal publisher", .where = "shm", .unit = "MiB",
      .x = 0, .goal = AT_MOST, .factor = 2.2 },
    { .key = "memory", .what = "file of a default bus, two publishers", .where = "shm", .unit = "MiB",
      .measure = bus_memory, .flags = PROCESSES | ONCE, .goal = AT_MOST, .factor = 8 },
    { .key = "text", .what = "library text", .where = "library", .unit = "KB",
      .measure = library_text, .flags = ONCE, .goal = AT_MOST, .factor = 80 },

    { .what = "curves" },
    RATE(16, "shm", PROCESSES), RATE(64, "shm", PROCESSES), RATE(256, "shm", PROCESSES), RATE(1024, "shm", PROCESSES),
    RATE(4096, "shm", PROCESSES), RATE(16384, "shm", PROCESSES), RATE(65536, "shm", PROCESSES), RATE(1048576, "shm", PROCESSES),
    RATE(16, "inproc", 0), RATE(64, "inproc", 0), RATE(256, "inproc", 0), RATE(1024, "inproc", 0),
    RATE(4096, "inproc", 0), RATE(16384, "inproc", 0), RATE(65536, "inproc", 0), RATE(1048576, "inproc", 0),
    BURST(1), BURST(2), BURST(4), BURST(8), BURST(16), BURST(32), BURST(64),
    TOPICS(1), TOPICS(10), TOPICS(100), TOPICS(1000), TOPICS(10000), TOPICS(100000),
};

#define OWN_ROWS (sizeof own_rows / sizeof *own_rows)

/* ---------------------------------------------------------------- what to measure */

static struct row *rows = own_rows;
static size_t row_count = OWN_ROWS;

/* Peers put their rows behind ours. */
static void add_peers(void)
{
    size_t more = 0;
    for (const struct peer *peer = peers; peer; peer = peer->next)
        more += PEER_ROWS;
    if (!more)
        return;
    rows = calloc(OWN_ROWS + more, sizeof *rows);
    if (!rows)
        give_up("calloc");
    memcpy(rows, own_rows, sizeof own_rows);
    for (struct peer *peer = peers; peer; peer = peer->next) {
        if (peer->start && peer->start() != 0)
            continue;
        peer_rows(peer, rows + row_count);
        row_count += PEER_ROWS;
    }
}

static int asked_for(const char *key, const char *only)
{
    char text[256];
    snprintf(text, sizeof text, "%s", only);
    for (char *part = strtok(text, ","); part; part = strtok(NULL, ","))
        if (strstr(key, part))
            return 1;
    return 0;
}

static void want(struct row *row)
{
    /* A row that only reports what another measures needs that one. */
    while (!row->measure)
        row--;
    row->wanted = 1;
}

static int choose(const char *only)
{
    int any = 0;
    for (size_t i = 0; i < row_count; i++) {
        struct row *r = &rows[i], *against;
        if (!r->key || (only && !asked_for(r->key, only)))
            continue;
        any = 1;
        want(r);
        if ((against = row_find(rows, row_count, r->against)))
            want(against);
    }
    /* Shared, because a measurement may run in a process of its own. */
    for (size_t i = 0; i < row_count; i++)
        if (rows[i].flags & HISTOGRAM)
            rows[i].bins = shared_memory(BINS * sizeof *rows[i].bins);
    for (size_t i = 0; i < row_count; i++)
        if (rows[i].measure == many_to_many && 2 * rows[i].x > cores())
            rows[i].wanted = 0;
    return any;
}

/* ---------------------------------------------------------------- measuring */

static void measure(struct row *row, int rep, double seconds)
{
    limit_s = row->flags & HALF ? seconds / 2 : seconds;
    processes = (row->flags & PROCESSES) != 0;
    blocking = (row->flags & BLOCKING) != 0;
    int probing = !(row->flags & ONCE);
    double before = probing ? probe() : 0, value = row->measure(row), after = probing ? probe() : 0;
    for (struct row *r = row; r == row || (r < rows + row_count && r->key && !r->measure); r++) {
        r->value[rep] = r == row ? value : extra[r->x];
        r->far[rep] = before > after ? before : after;
        r->measured = rep + 1;
    }
}

static void measure_all(int reps, double seconds)
{
    for (int rep = 0; rep < reps; rep++) {
        for (size_t i = 0; i < row_count; i++) {
            struct row *r = &rows[i];
            if (!r->wanted || ((r->flags & ONCE) && rep > 0))
                continue;
            if (isatty(2))
                fprintf(stderr, "\r%d/%d %-60s", rep + 1, reps, r->what);
            measure(r, rep, seconds);
        }
    }
    if (isatty(2))
        fprintf(stderr, "\r%-70s\r", "");
}

static long setting(const char *name, long otherwise, long most)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return otherwise;
    long v = strtol(text, &end, 10);
    if (*end || v < 1 || v > most) {
        fprintf(stderr, "bench: %s=%s: 1 to %ld, please\n", name, text, most);
        exit(2);
    }
    return v;
}

int main(int argc, char **argv)
{
    int reps = (int)setting("PS_BENCH_REPS", 5, MOST_REPS);
    long ms = setting("PS_BENCH_MS", 200, 60000);
    const char *directory = argc > 3 ? argv[3] : NULL, *only = getenv("PS_BENCH_ONLY");
    if (argc > 1)
        library_path = argv[1];
    if (argc > 2)
        first_path = argv[2];
    control = shared_memory(sizeof *control);
    if (cores() < 2)
        printf("one processor only: the two sides take turns, and no figure means much\n");
    add_peers();
    if (!choose(only && *only ? only : NULL)) {
        fprintf(stderr, "bench: no row has %s in its key\n", only);
        return 2;
    }
    printf("libpsbus %s, %d repetitions of %ld ms, each side pinned to a core, %d cores\n\n", ps_version(), reps, ms, cores());
    fflush(stdout);
    measure_all(reps, (double)ms / 1e3);
    for (struct peer *peer = peers; peer; peer = peer->next)
        if (peer->stop)
            peer->stop();
    report_table(rows, row_count);
    if (directory)
        report_csv(rows, row_count, directory);
    return 0;
}
