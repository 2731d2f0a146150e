/* SPDX-License-Identifier: MIT */
/* actors.c - the publisher and the subscriber processes of the demo. */
#define _GNU_SOURCE                     /* usleep */

#include "demo.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Checksum of everything so far, continued by a line. Order matters to it. */
static uint64_t checksum(uint64_t sum, const char *line, size_t size)
{
    uint64_t word;

    sum ^= size;
    for (; size >= sizeof word; line += sizeof word, size -= sizeof word) {
        memcpy(&word, line, sizeof word);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    word = 0;
    memcpy(&word, line, size);
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 29;
}

/* ------------------------------------------------------------------ a publisher process */

int publisher_main(uint32_t number)
{
    struct publisher *self = &shared->publisher[number];
    struct { struct head head; char text[LINE_MAX_BYTES]; } message;
    uint64_t sum = 0, count = 0, began;
    uint32_t last = 0;
    char name[32];
    ps_bus *bus;
    int rc;

    snprintf(name, sizeof name, "publisher %u", (unsigned)number + 1);
    if ((rc = ps_open(&bus, url)) < 0)
        die(name, "open", rc);
    while (!atomic_load(&shared->go))
        usleep(1000);
    began = now_ns();
    for (size_t i = 0; !last; i = i + 1 < line_count ? i + 1 : 0) {
        const struct line *line = &lines[i];
        size_t size = line->size;

        last = i == 0 && count > 0 && atomic_load_explicit(&shared->end, memory_order_relaxed);
        if (last)
            size = 0;
        message.head = (struct head){ .publisher = number, .last = last, .number = ++count, .before = sum };
        memcpy(message.text, line->text, size);

        /* An exchange: whoever reads a smaller number with one of its own has come before this publish. */
        atomic_exchange(&self->started, count);
        uint64_t before = now_ns();
        rc = ps_publish(bus, topics[line->file], &message, sizeof message.head + size);
        uint64_t took = now_ns() - before;
        /* The part of the plan in which it ended: a publish that is held up has often begun in the one before. */
        enum phase phase = (enum phase)atomic_load_explicit(&shared->phase, memory_order_relaxed);
        if (rc <= 0)
            die(name, rc == 0 ? "nobody wants the text" : "publish", rc);
        if (took > self->held_ns[phase])
            self->held_ns[phase] = took;
        if (!last)
            sum = checksum(sum, line->text, size);
        self->bytes += size;
    }
    self->active_ns = now_ns() - began;
    self->number = count;
    self->checksum = sum;
    if ((rc = ps_close(bus)) < 0)
        die(name, "close", rc);
    return 0;
}

/* ------------------------------------------------------------------ a subscriber process */

static void on_line(const ps_msg *msg, void *user)
{
    struct subscriber *self = user;
    const struct head *head = msg->data;
    struct stream *stream;
    size_t size;

    if (msg->size < sizeof *head || head->publisher >= PUBLISHERS) {
        self->stream[0].damaged++;
        return;
    }
    stream = &self->stream[head->publisher];
    size = msg->size - sizeof *head;
    if (stream->first == 0)
        stream->first = head->number;
    else if (head->number != stream->number + 1 + msg->lost || (msg->lost == 0 && head->before != stream->checksum))
        stream->damaged++;
    stream->lost += msg->lost;
    stream->number = head->number;
    stream->checksum = head->last ? head->before : checksum(head->before, (const char *)(head + 1), size);
    stream->ended = head->last != 0;
    self->messages++;
    self->bytes += size;
}

int subscriber_main(enum role role)
{
    struct subscriber *self = &shared->subscriber[role];
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    uint64_t began;
    ps_bus *bus;
    int rc;

    if ((rc = ps_open(&bus, url)) < 0)
        die(role_name[role], "open", rc);
    if ((rc = ps_subscribe(bus, "text/#", on_line, self, NULL, NULL)) < 0)
        die(role_name[role], "subscribe", rc);
    for (int i = 0; i < PUBLISHERS; i++)
        self->stream[i].at_subscribe = atomic_fetch_add(&shared->publisher[i].started, 0);
    began = now_ns();
    atomic_store(&self->ready, 1);
    while (!(self->stream[0].ended && self->stream[1].ended)) {
        if ((rc = ps_dispatch(bus, 1024, 1000)) < 0)
            die(role_name[role], "dispatch", rc);
        self->active_ns = now_ns() - began;
    }
    if ((rc = ps_stats(bus, &stats)) < 0)
        die(role_name[role], "stats", rc);
    self->stats_lost = stats.lost;
    self->evicted = stats.evicted;
    if ((rc = ps_close(bus)) < 0)
        die(role_name[role], "close", rc);
    return 0;
}
