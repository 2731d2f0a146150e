/* SPDX-License-Identifier: MIT */
/*
 * bus.c - a publisher on the main side, readers on another, in processes or threads.
 */
#include "bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct bus_setup bus_setup;
char bus_url[160];

void bus_failed(const char *what, int rc)
{
    fprintf(stderr, "bench: %s: %s (%s)\n", what, ps_strerror(rc), ps_errmsg());
    exit(1);
}

void bus_new_url(const char *options)
{
    static int number;
    snprintf(bus_url, sizeof bus_url, "%s://bench.%d.%d%s", processes ? "shm" : "inproc", (int)getpid(), number++, options);
}

void bus_topic(char *topic, int number) { snprintf(topic, 24, "user/%011d", number); }

void bus_take(const ps_msg *msg, void *user)
{
    struct bus_reader *reader = user;
    check_message(&reader->receipt, msg->data, msg->size);
    if (bus_setup.touch)
        reader->sum += read_all(msg->data, msg->size);
}

static void subscribe_all(struct bus_reader *reader)
{
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    char topic[24];
    options.flags = bus_setup.flags;
    memset(reader, 0, sizeof *reader);
    MUST(ps_open(&reader->bus, bus_url));
    for (int k = 0; k < bus_setup.topics; k++) {
        bus_topic(topic, k);
        MUST(ps_subscribe(reader->bus, topic, bus_take, reader, &options, NULL));
    }
}

/* Reads with one handle or many, in bursts, and tells how far all of them are. */
static void reading_side(int number)
{
    static struct bus_reader reader[MAX_SUBSCRIBERS];
    uint64_t acked = 0;
    (void)number;
    for (int i = 0; i < bus_setup.subscribers; i++)
        subscribe_all(&reader[i]);
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (;;) {
        uint64_t least = HELLO, greeted = HELLO;
        for (int i = 0; i < bus_setup.subscribers; i++) {
            const struct receipt *r = &reader[i].receipt;
            MUST(ps_dispatch(reader[i].bus, 256, 0));
            least = r->next < least ? r->next : least;
            greeted = r->hello < greeted ? r->hello : greeted;
        }
        if (least != acked) {
            acked = least;
            atomic_store_explicit(&control->acked, acked, memory_order_release);
        }
        if (greeted && !control->seen)
            atomic_store_explicit(&control->seen, 1, memory_order_release);
        if (atomic_load_explicit(&control->fin, memory_order_acquire) && acked == control->total)
            break;
    }
    control->last_ns = now_ns();
    for (int i = 0; i < bus_setup.subscribers; i++) {
        control->lost += reader[i].receipt.lost;
        control->bad += reader[i].receipt.bad;
        MUST(ps_close(reader[i].bus));
    }
}

ps_bus *bus_meet_readers(void)
{
    char topic[24], *text = calloc(1, bus_setup.size);
    uint64_t hello = HELLO;
    ps_bus *bus;
    if (!text)
        give_up("calloc");
    bus_topic(topic, bus_setup.topics - 1);
    MUST(ps_open(&bus, bus_url));
    start_sides(1, reading_side);
    wait_ready(1);
    memcpy(text, &hello, 8);
    while (!atomic_load_explicit(&control->seen, memory_order_acquire)) {
        MUST(ps_publish(bus, topic, text, bus_setup.size));
        nap_us(500);
    }
    free(text);
    nap_us(10000);
    return bus;
}

double bus_finish(ps_bus *bus, uint64_t total, uint64_t begin)
{
    control->total = total;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_sides();
    if (control->lost || control->bad) {
        fprintf(stderr, "bench: %d lost, %d damaged\n", (int)control->lost, (int)control->bad);
        exit(1);
    }
    MUST(ps_close(bus));
    return (double)(control->last_ns - begin);
}
