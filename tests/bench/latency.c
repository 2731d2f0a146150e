/* SPDX-License-Identifier: MIT */
/*
 * latency.c - a message there and one back, polling or sleeping; half the round trip counts as one way.
 */
#include "scenarios.h"

#include <stdio.h>
#include <stdlib.h>

#define PING "ping/0123456789a"
#define PONG "pong/0123456789a"

static void answering_side(int number)
{
    struct bus_reader reader = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    uint64_t answered = 0;
    ps_bus *bus;
    (void)number;
    MUST(ps_open(&bus, bus_url));
    MUST(ps_subscribe(bus, PING, bus_take, &reader, NULL, NULL));
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire)) {
        MUST(ps_dispatch(bus, 0, blocking ? 100 : 0));
        for (; answered < reader.receipt.next; answered++) {
            compose(text, PAYLOAD, answered);
            MUST(ps_publish(bus, PONG, text, PAYLOAD));
        }
    }
    control->bad = reader.receipt.bad + reader.receipt.lost;
    MUST(ps_close(bus));
}

double latency(struct row *row)
{
    struct bus_reader reader = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    size_t n = 0;
    ps_bus *bus;
    bus_setup = (struct bus_setup){ 0 };
    bus_new_url("");
    MUST(ps_open(&bus, bus_url));
    MUST(ps_subscribe(bus, PONG, bus_take, &reader, NULL, NULL));
    start_sides(1, answering_side);
    wait_ready(1);
    nap_us(10000);
    uint64_t end = end_ns(now_ns()), after;
    do {
        uint64_t begin = now_ns();
        compose(text, PAYLOAD, n);
        MUST(ps_publish(bus, PING, text, PAYLOAD));
        while (reader.receipt.next <= n)
            MUST(ps_dispatch(bus, 0, blocking ? 100 : 0));
        after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
    } while (after < end && n < SAMPLES);
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (control->bad || reader.receipt.bad || reader.receipt.lost)
        fprintf(stderr, "bench: messages were lost or damaged\n"), exit(1);
    MUST(ps_close(bus));
    /* The first tenth warms things up. */
    double *warm = samples + n / 10;
    histogram_add(row, warm, n - n / 10);
    extra[0] = quantile(warm, n - n / 10, 0.999);
    return quantile(warm, n - n / 10, 0.5);
}
