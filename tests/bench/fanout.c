/* SPDX-License-Identifier: MIT */
/*
 * fanout.c - what a publish costs the publisher by who else is there: readers that want the message, nobody, sleepers that want
 * something else; and what traffic costs a reader that wants little of it.
 */
#include "scenarios.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define OURS  "user/00000000000"
#define OTHER "user/00000000001"

/* ---------------------------------------------------------------- readers that want it */

/* Publisher's time for a message in bursts that every ring can hold, the readers having read everything before. */
double burst(struct row *row)
{
    _Alignas(64) char text[PAYLOAD] = { 0 };
    uint64_t at = 0;
    size_t n = 0;
    bus_setup = (struct bus_setup){ .subscribers = (int)row->x, .topics = 1, .size = PAYLOAD };
    bus_new_url("?block=5000&members=128");
    ps_bus *bus = bus_meet_readers();
    uint64_t end = end_ns(now_ns());
    while (n < SAMPLES && (now_ns() < end || n < 50)) {
        uint64_t begin = now_ns();
        for (int i = 0; i < 32; i++, at++) {
            compose(text, PAYLOAD, at);
            MUST(ps_publish(bus, OURS, text, PAYLOAD));
        }
        samples[n++] = (double)(now_ns() - begin) / 32;
        while (atomic_load_explicit(&control->acked, memory_order_acquire) < at)
            ;
        nap_us(50);
    }
    bus_finish(bus, at, 0);
    return quantile(samples, n, 0.5);
}

/* ---------------------------------------------------------------- nobody */

double nobody(struct row *row)
{
    ps_bus *bus, *other;
    _Alignas(64) char text[PAYLOAD] = { 0 };
    uint64_t count = 0;
    struct bus_reader reader = { 0 };
    (void)row;
    bus_new_url("");
    MUST(ps_open(&bus, bus_url));
    MUST(ps_open(&other, bus_url));
    MUST(ps_subscribe(other, OTHER, bus_take, &reader, NULL, NULL));
    pin(0);
    uint64_t begin = now_ns(), end = end_ns(begin), after;
    do {
        for (int i = 0; i < 1000; i++, count++)
            MUST(ps_publish(bus, OURS, text, PAYLOAD));
        after = now_ns();
    } while (after < end);
    MUST(ps_close(other));
    MUST(ps_close(bus));
    return (double)(after - begin) / (double)count;
}

/* ---------------------------------------------------------------- a reader that wants one topic of a hundred */

#define PART  100
#define ROUND 2000

static int picky_wild;          /* it has a wildcard filter, too */

/* Reads a round when it is told that it is there, and says how long it took: the lines come from the other core. */
static void picky_side(int number)
{
    struct bus_reader reader = { 0 };
    uint64_t round = 0, took = 0;
    ps_bus *bus;
    (void)number;
    MUST(ps_open(&bus, bus_url));
    MUST(ps_subscribe(bus, OURS, bus_take, &reader, NULL, NULL));
    if (picky_wild)
        MUST(ps_subscribe(bus, "room/#", bus_take, &reader, NULL, NULL));
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire)) {
        if (atomic_load_explicit(&control->line_a, memory_order_acquire) == round)
            continue;
        round++;
        uint64_t begin = now_ns();
        while (reader.receipt.next < round * (ROUND / PART))
            MUST(ps_dispatch(bus, 0, 0));
        took = now_ns() - begin;
        control->total = took;
        atomic_store_explicit(&control->line_b, round, memory_order_release);
    }
    control->bad = reader.receipt.bad + reader.receipt.lost;
    MUST(ps_close(bus));
}

/* The time for a round divided by its messages, so the few that are wanted and handled are paid for too. */
double one_percent(struct row *row)
{
    struct bus_reader all = { 0 };
    _Alignas(64) char text[PAYLOAD] = { 0 };
    char lossy[200], topic[PART][24];
    uint64_t sequence = 0, round = 0;
    size_t n = 0;
    ps_bus *bus;
    picky_wild = row->x != 0;
    bus_setup = (struct bus_setup){ 0 };
    bus_new_url("?depth=8192");
    MUST(ps_open(&bus, bus_url));
    /* Somebody wants the rest, or it would not be sent at all. */
    snprintf(lossy, sizeof lossy, "%s&lossy=1", bus_url);
    MUST(ps_open(&all.bus, lossy));
    for (int i = 0; i < PART; i++) {
        bus_topic(topic[i], (PART - i) % PART);
        MUST(ps_subscribe(all.bus, topic[i], bus_take, &all, NULL, NULL));
    }
    start_sides(1, picky_side);
    wait_ready(1);
    nap_us(5000);
    uint64_t end = end_ns(now_ns());
    while (n < SAMPLES && (now_ns() < end || n < 20)) {
        /* The wanted one is the last of a hundred, so that whoever has it has stepped over the others. */
        for (int i = 0; i < ROUND; i++) {
            if (i % PART == PART - 1)
                compose(text, PAYLOAD, sequence++);
            MUST(ps_publish(bus, topic[(i + 1) % PART], text, PAYLOAD));
        }
        atomic_store_explicit(&control->line_a, ++round, memory_order_release);
        while (atomic_load_explicit(&control->line_b, memory_order_acquire) != round)
            ;
        samples[n++] = (double)control->total / ROUND;
    }
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (control->bad)
        fprintf(stderr, "bench: messages were lost or damaged\n"), exit(1);
    MUST(ps_close(all.bus));
    MUST(ps_close(bus));
    return quantile(samples, n, 0.5);
}

/* ---------------------------------------------------------------- sleepers that want something else */

struct sleeper { ps_bus *bus; pthread_t thread; };

static int sleeper_count;

static void sleeper_woken(const ps_msg *msg, void *user)
{
    (void)msg, (void)user;
    atomic_fetch_add(&control->acked, 1);
}

static void *sleeper_main(void *arg)
{
    struct sleeper *sleeper = arg;
    MUST(ps_run(sleeper->bus));
    return NULL;
}

/* Handles that sleep, each in a thread of its own, all on the core of this side. */
static void sleeping_side(int number)
{
    static struct sleeper sleeper[MAX_SUBSCRIBERS];
    (void)number;
    for (int i = 0; i < sleeper_count; i++) {
        MUST(ps_open(&sleeper[i].bus, bus_url));
        MUST(ps_subscribe(sleeper[i].bus, OTHER, sleeper_woken, NULL, NULL, NULL));
        if (pthread_create(&sleeper[i].thread, NULL, sleeper_main, &sleeper[i]) != 0)
            give_up("pthread_create");
    }
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire))
        nap_us(1000);
    for (int i = 0; i < sleeper_count; i++) {
        ps_stop(sleeper[i].bus);
        pthread_join(sleeper[i].thread, NULL);
        MUST(ps_close(sleeper[i].bus));
    }
}

/* A bus where one reader wants our topic, holds nobody back and is awake, and the others sleep. */
static ps_bus *meet_sleepers(int count, struct bus_reader *reader)
{
    char lossy[200];
    ps_bus *bus;
    sleeper_count = count < MAX_SUBSCRIBERS ? count : MAX_SUBSCRIBERS;
    bus_setup = (struct bus_setup){ 0 };
    bus_new_url("?block=5000&members=128");
    snprintf(lossy, sizeof lossy, "%s&lossy=1", bus_url);
    MUST(ps_open(&bus, bus_url));
    MUST(ps_open(&reader->bus, lossy));
    MUST(ps_subscribe(reader->bus, OURS, bus_take, reader, NULL, NULL));
    start_sides(1, sleeping_side);
    wait_ready(1);
    return bus;
}

static void leave_sleepers(ps_bus *bus, struct bus_reader *reader)
{
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    MUST(ps_close(reader->bus));
    MUST(ps_close(bus));
}

static void until_all_sleep(ps_bus *bus)
{
    static ps_member member[PS_MEMBERS_MAX];
    for (int asleep = -1; asleep < sleeper_count; nap_us(20)) {
        member[0].size = sizeof *member;
        int count = ps_members(bus, NULL, member, PS_MEMBERS_MAX);
        MUST(count);
        asleep = 0;
        for (int i = 0; i < count; i++)
            asleep += (member[i].flags & PS_MEMBER_ASLEEP) != 0;
    }
}

static ps_bus_stats stats_of(ps_bus *bus)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    MUST(ps_stats(bus, &stats));
    return stats;
}

/* Bursts of a quarter of the ring. Between them all are woken by what they want, have read everything and sleep again. */
double sleepers_burst(struct row *row)
{
    struct bus_reader reader = { 0 };
    ps_bus *bus = meet_sleepers((int)row->x, &reader);
    const uint64_t count = stats_of(bus).depth / 4;
    _Alignas(64) char text[PAYLOAD] = { 0 };
    uint64_t end = end_ns(now_ns()), round = 0;
    size_t n = 0;
    while (n < SAMPLES && (now_ns() < end || n < 10)) {
        MUST(ps_publish(bus, OTHER, text, PAYLOAD));
        round++;
        while (atomic_load_explicit(&control->acked, memory_order_acquire) < round * (uint64_t)sleeper_count)
            nap_us(20);
        until_all_sleep(bus);
        uint64_t begin = now_ns();
        for (uint64_t i = 0; i < count; i++)
            MUST(ps_publish(bus, OURS, text, PAYLOAD));
        samples[n++] = (double)(now_ns() - begin) / (double)count;
    }
    leave_sleepers(bus, &reader);
    return quantile(samples, n, 0.5);
}

double sleepers_sustained(struct row *row)
{
    struct bus_reader reader = { 0 };
    ps_bus *bus = meet_sleepers((int)row->x, &reader);
    _Alignas(64) char text[PAYLOAD] = { 0 };
    until_all_sleep(bus);
    ps_bus_stats before = stats_of(bus), after;
    uint64_t begin = now_ns(), end = end_ns(begin), count = 0, took;
    do {
        for (int i = 0; i < 256; i++, count++)
            MUST(ps_publish(bus, OURS, text, PAYLOAD));
        took = now_ns();
    } while (took < end);
    after = stats_of(bus);
    extra[0] = (double)(after.wakes - before.wakes) / ((double)count / ((double)after.depth / 2));
    leave_sleepers(bus, &reader);
    return (double)(took - begin) / (double)count;
}
