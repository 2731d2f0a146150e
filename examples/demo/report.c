/* SPDX-License-Identifier: MIT */
/* report.c - judges and prints what the processes of the demo reported. */
#include "demo.h"

#include <stdio.h>

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void row(const char *name, uint64_t messages, uint64_t bytes, uint64_t ns)
{
    printf("  %-12s %11llu %9.1f MB %7.2f M/s", name, (unsigned long long)messages, (double)bytes / 1e6,
           ns ? (double)messages * 1e3 / (double)ns : 0.0);
}

/* What is wrong with a survivor, or NULL. */
static const char *subscriber_fault(enum role role)
{
    const struct subscriber *self = &shared->subscriber[role];
    uint64_t lost = 0, messages = 0;

    for (int i = 0; i < PUBLISHERS; i++) {
        const struct stream *stream = &self->stream[i];
        const struct publisher *publisher = &shared->publisher[i];
        /* The late one counts from its first message on. */
        uint64_t due = publisher->number - (role == LATE ? stream->first - 1 : 0);

        if (stream->damaged > 0)
            return "DAMAGED, repeated or out of order";
        if (role == LATE && stream->first > stream->at_subscribe + 1)
            return "MISSED messages published after it had subscribed";
        if (stream->number != publisher->number || stream->checksum != publisher->checksum)
            return "its CHECKSUM is not the publisher's";
        lost += stream->lost;
        messages += due;
    }
    if (self->messages + lost != messages)
        return "received and lost do not add up to what was published";
    if (role != SLEEPER && (lost != 0 || self->stats_lost != 0))
        return "LOST messages";
    if (role == SLEEPER && (lost == 0 || self->evicted == 0))
        return "was not evicted, so this run has shown nothing about it";
    if (role == SLEEPER && self->stats_lost != lost)
        return "ps_stats() tells another loss than the messages did";
    return NULL;
}

int report_print(void)
{
    static const char *const good[SUBSCRIBERS] = {
        "has everything; checksums agree",
        "killed",
        "has everything but those; checksums agree",
        "has everything since it came; checksums agree",
    };
    uint64_t held[PHASES] = { 0 };
    int fine = 1;

    printf("\n  %-12s %11s %12s %11s %10s\n", "", "messages", "text", "rate", "lost");
    for (int i = 0; i < PUBLISHERS; i++) {
        const struct publisher *publisher = &shared->publisher[i];
        char name[32];
        snprintf(name, sizeof name, "publisher %d", i + 1);
        row(name, publisher->number, publisher->bytes, publisher->active_ns);
        printf("\n");
        for (int phase = 0; phase < PHASES; phase++)
            if (publisher->held_ns[phase] > held[phase])
                held[phase] = publisher->held_ns[phase];
    }
    for (enum role role = STEADY; role < SUBSCRIBERS; role++) {
        const struct subscriber *self = &shared->subscriber[role];
        const char *fault = role == VICTIM ? NULL : subscriber_fault(role);
        uint64_t lost = 0;

        for (int i = 0; i < PUBLISHERS; i++)
            lost += self->stream[i].lost;
        row(role_name[role], self->messages, self->bytes, self->active_ns);
        printf(" %10llu  %s\n", (unsigned long long)lost, fault ? fault : good[role]);
        fine &= fault == NULL;
    }
    printf("\n  A publisher was held up at most %.1f ms before, %.1f ms by the killed reader, %.1f ms by the stopped one\n"
           "  (evict=%d), %.1f ms after.\n",
           ms(held[QUIET]), ms(held[KILLED]), ms(held[STOPPED]), EVICT_MS, ms(held[CONTINUED]));
    return fine;
}
