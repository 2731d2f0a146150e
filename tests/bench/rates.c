/* SPDX-License-Identifier: MIT */
/*
 * rates.c - messages in a second: one to one by payload, over many topics, two publishers in one process, large messages written
 * in place or copied, and many publishers to many readers.
 */
#include "scenarios.h"

#include <stdio.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- one to one */

static void flood_small(ps_bus *bus, const char *topic, uint64_t end, uint64_t *at)
{
    static struct ahead ahead;
    ahead_begin(&ahead);
    do {
        for (int i = 0; i < 256; i++, ++*at) {
            MUST(ps_publish(bus, topic, ahead.text[*at % 64], PAYLOAD));
            ahead_next(&ahead, *at);
        }
    } while (now_ns() < end);
}

/* A buffer for each of some messages, so that a copy does not wait for the stores just made into its source. */
static void flood(ps_bus *bus, const char *topic, uint64_t end, uint64_t *at)
{
    const size_t size = bus_setup.size, count = size <= 65536 ? 16 : 2;
    char *text = calloc(count, size);
    if (!text)
        give_up("calloc");
    do {
        for (size_t i = 0; i < count; i++, ++*at) {
            if (bus_setup.touch)
                memset(text + i * size, (int)*at, size);
            compose(text + i * size, size, *at);
            MUST(ps_publish(bus, topic, text + i * size, size));
        }
    } while (now_ns() < end);
    free(text);
}

static void flood_loans(ps_bus *bus, const char *topic, uint64_t end, uint64_t *at)
{
    do {
        void *data;
        MUST(ps_loan(bus, topic, bus_setup.size, &data));
        memset(data, (int)*at, bus_setup.size);
        compose(data, bus_setup.size, (*at)++);
        MUST(ps_commit(bus, data, bus_setup.size));
    } while (now_ns() < end);
}

/* Messages in nanoseconds. */
static double one_to_one(const char *options, void (*send)(ps_bus *, const char *, uint64_t, uint64_t *))
{
    uint64_t at = 0, begin;
    char topic[24];
    bus_new_url(options);
    ps_bus *bus = bus_meet_readers();
    bus_topic(topic, 0);
    begin = now_ns();
    send(bus, topic, end_ns(begin), &at);
    double took = bus_finish(bus, at, begin);
    return (double)at / took;
}

/* From 64 KiB on, a ring with room for more than a few. */
#define OPTIONS(size) ((size) >= 65536 ? "?block=5000&bytes=16M" : "?block=5000")

double rate(struct row *row)
{
    bus_setup = (struct bus_setup){ .subscribers = 1, .topics = 1, .size = (size_t)row->x };
    return one_to_one(OPTIONS(row->x), row->x == PAYLOAD ? flood_small : flood) * 1e3;
}

double large_copied(struct row *row)
{
    bus_setup = (struct bus_setup){ .subscribers = 1, .topics = 1, .size = (size_t)row->x, .touch = 1 };
    return one_to_one(OPTIONS(row->x), flood) * (double)row->x;
}

double large_in_place(struct row *row)
{
    bus_setup = (struct bus_setup){ .subscribers = 1, .topics = 1, .size = (size_t)row->x, .touch = 1, .flags = PS_BORROW };
    return one_to_one("?block=5000&bytes=16M&loans=16M", flood_loans) * (double)row->x;
}

/* Nanoseconds a message, published on each topic in turn. */
double topics(struct row *row)
{
    const int count = (int)row->x;
    _Alignas(64) char text[PAYLOAD] = { 0 };
    char (*name)[24] = calloc((size_t)count, sizeof *name);
    uint64_t at = 0;
    int k = 0;
    if (!name)
        give_up("calloc");
    bus_setup = (struct bus_setup){ .subscribers = 1, .topics = count, .size = PAYLOAD };
    bus_new_url("?block=5000");
    for (int i = 0; i < count; i++)
        bus_topic(name[i], i);
    ps_bus *bus = bus_meet_readers();
    uint64_t begin = now_ns(), end = end_ns(begin);
    do {
        for (int i = 0; i < 64; i++, at++) {
            compose(text, PAYLOAD, at);
            MUST(ps_publish(bus, name[k], text, PAYLOAD));
            k = k + 1 < count ? k + 1 : 0;
        }
    } while (now_ns() < end);
    free(name);
    return bus_finish(bus, at, begin) / (double)at;
}

/* ---------------------------------------------------------------- two threads into one bus */

static uint64_t publish_on(ps_bus *bus, const char *topic, uint64_t end)
{
    struct ahead ahead;
    uint64_t at = 0;
    ahead_begin(&ahead);
    do {
        for (int i = 0; i < 256; i++, at++) {
            MUST(ps_publish(bus, topic, ahead.text[at % 64], PAYLOAD));
            ahead_next(&ahead, at);
        }
    } while (end ? now_ns() < end : !atomic_load_explicit(&control->fin, memory_order_relaxed));
    return at;
}

static void second_publisher(int number)
{
    ps_bus *bus;
    (void)number;
    MUST(ps_open(&bus, bus_url));
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->seen, memory_order_acquire))
        ;
    control->total = publish_on(bus, "user/00000000002", 0);
    MUST(ps_close(bus));
}

/* What x threads publish together while a lossy reader wants it and does not read. */
double publishers(struct row *row)
{
    struct bus_reader reader = { 0 };
    ps_bus *bus;
    bus_setup = (struct bus_setup){ 0 };
    bus_new_url("?block=5000");          /* who is interrupted between claim and commit stops the other */
    MUST(ps_open(&bus, bus_url));
    char lossy[200];
    snprintf(lossy, sizeof lossy, "%s&lossy=1", bus_url);
    MUST(ps_open(&reader.bus, lossy));
    MUST(ps_subscribe(reader.bus, "#", bus_take, &reader, NULL, NULL));
    start_sides((int)row->x - 1, second_publisher);
    wait_ready((int)row->x - 1);
    atomic_store_explicit(&control->seen, 1, memory_order_release);
    uint64_t begin = now_ns(), count = publish_on(bus, "user/00000000001", end_ns(begin));
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    uint64_t took = now_ns() - begin;
    join_sides();
    MUST(ps_close(bus));
    MUST(ps_close(reader.bus));
    return (double)(count + control->total) / (double)took * 1e3;
}

/* ---------------------------------------------------------------- many to many */

static int many;        /* publishers, and as many readers */

struct many_reader { struct receipt from[SIDES]; };

/* Byte 8 says who sent it. */
static void take_from_many(const ps_msg *msg, void *user)
{
    struct many_reader *reader = user;
    check_message(&reader->from[((const unsigned char *)msg->data)[8] % SIDES], msg->data, msg->size);
}

static void many_publish(int number)
{
    struct ahead ahead;
    char topic[24];
    uint64_t at = 0, end;
    ps_bus *bus;
    MUST(ps_open(&bus, bus_url));
    bus_topic(topic, number);
    ahead_begin(&ahead);
    for (int i = 0; i < 64; i++)
        ahead.text[i][8] = (char)number;
    atomic_fetch_add(&control->ready, 1);
    while (atomic_load_explicit(&control->ready, memory_order_acquire) < 2 * many)
        nap_us(50);
    end = end_ns(now_ns());
    do {
        for (int i = 0; i < 256; i++, at++) {
            MUST(ps_publish(bus, topic, ahead.text[at % 64], PAYLOAD));
            ahead_next(&ahead, at);
        }
    } while (now_ns() < end);
    control->side[number].count = at;
    atomic_fetch_add(&control->fin, 1);
    /* Leaving costs something too, which is not asked for here. */
    while (atomic_load_explicit(&control->done, memory_order_acquire) < many)
        nap_us(50);
    MUST(ps_close(bus));
}

static int many_have_all(const struct many_reader *reader)
{
    if (atomic_load_explicit(&control->fin, memory_order_acquire) < many)
        return 0;
    for (int i = 0; i < many; i++)
        if (reader->from[i].next != control->side[i].count)
            return 0;
    return 1;
}

static void many_read(void)
{
    struct many_reader *reader = calloc(1, sizeof *reader);
    ps_bus *bus;
    if (!reader)
        give_up("calloc");
    MUST(ps_open(&bus, bus_url));
    MUST(ps_subscribe(bus, "user/#", take_from_many, reader, NULL, NULL));
    atomic_fetch_add(&control->ready, 1);
    while (!many_have_all(reader))
        MUST(ps_dispatch(bus, 256, 0));
    control->last_ns = now_ns();
    for (int i = 0; i < many; i++) {
        control->lost += reader->from[i].lost;
        control->bad += reader->from[i].bad;
    }
    atomic_fetch_add(&control->done, 1);
    MUST(ps_close(bus));
    free(reader);
}

static void many_side(int number)
{
    if (number < many)
        many_publish(number);
    else
        many_read();
}

/* Messages in millions a second, all publishers together, each message read by all readers. */
double many_to_many(struct row *row)
{
    many = (int)row->x;
    bus_new_url("?block=5000");
    start_sides(2 * many - 1, many_side);
    uint64_t total = 0, begin;
    while (atomic_load_explicit(&control->ready, memory_order_acquire) < 2 * many - 1)
        nap_us(50);
    begin = now_ns();
    many_publish(0);
    join_sides();
    if (control->lost || control->bad) {
        fprintf(stderr, "bench: %d lost, %d damaged\n", (int)control->lost, (int)control->bad);
        exit(1);
    }
    for (int i = 0; i < many; i++)
        total += control->side[i].count;
    return (double)total / (double)(control->last_ns - begin) * 1e3;
}
