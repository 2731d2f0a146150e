/* SPDX-License-Identifier: MIT */
/*
 * fake.h - a backend that keeps a diary: what the core gave it, and answers as the test tells it. fake_bus() opens a handle of
 * it; a handle is both ends, so what it publishes lies in its inbox until next() hands it up. (host->fail) stands in brackets
 * because cmocka has a macro of that name.
 */
#ifndef PS_TEST_FAKE_H
#define PS_TEST_FAKE_H

#include "../lib/base/base.h"

#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define FAKE_ROOM  64                   /* messages and filters the diary holds */
#define FAKE_STATE 1000u                /* no multiple of the alignment */
#define FAKE_SEED  UINT64_C(0x5eed)

struct fake_filter {
    char text[PS_TOPIC_MAX + 1];
    ps_filter filter;
    uint32_t flags;
    int edge, idle;                     /* first or last */
};

struct fake_message {
    char topic[PS_TOPIC_MAX + 1], data[64];
    size_t size;
    uint64_t lost;
};

/* Told by the test, */
static struct {
    int open_code, publish_code, subscribe_code, begin_code, next_code, after_fork_code;
    int publish_blocks;                 /* until the handle is closed */
    _Atomic int unsubscribe_blocks;     /* while it is set */
    int wait_answer[8];
    void (*on_subscribe)(ps_bus *bus);  /* called inside subscribe, before it answers */
    void (*on_wait)(int number, ps_bus *bus);   /* called inside wait, before it answers */
    void (*on_next)(ps_bus *bus);       /* called inside next, before it answers with a message */
    ps_bus *bus;
} fake_do;

/* and told to the test. */
static struct {
    int opened, closed, forked, state_used, begun, ended, waited, published, borrows, visited;
    _Atomic int woken, blocked;
    void *state;
    size_t host_size;
    ps_url url;
    char address[PS_NAME_MAX + 1], colour[32];
    int colour_given, shape_given;
    int marked, end_flags, timeout_ms[8];
    struct fake_filter asked[FAKE_ROOM], dropped[FAKE_ROOM], seen[FAKE_ROOM];
    int asked_count, dropped_count;
    uint64_t topic_hash, prefix[4];
    int publish_wait, data_given;
    size_t stats_size;
    uint64_t stats_delivered;
} fake;

struct fake_state {
    ps_host *host;
    struct fake_message inbox[FAKE_ROOM];
    unsigned first, last;
    struct fake_message now;
};

static void fake_visit(void *arg, const ps_filter *filter, uint32_t flags)
{
    struct fake_filter *at = &fake.seen[fake.visited++ % FAKE_ROOM];
    (void)arg;
    snprintf(at->text, sizeof at->text, "%s", filter->text);
    at->filter = *filter;
    at->flags = flags;
}

static int fake_open(void *memory, ps_host *host, const ps_url *url)
{
    const unsigned char *bytes = memory;
    struct fake_state *state = calloc(1, sizeof *state);
    fake.opened++;
    fake.state = memory;
    for (size_t i = 0; i < FAKE_STATE; i++)
        fake.state_used += bytes[i] != 0;
    fake.host_size = host->size;
    fake.url = *url;
    snprintf(fake.address, sizeof fake.address, "%s", url->address ? url->address : "");
    const char *colour = host->option(host, "colour");
    fake.colour_given = colour != NULL;
    fake.shape_given = host->option(host, "shape") != NULL || host->option(host, "depth") != NULL;
    snprintf(fake.colour, sizeof fake.colour, "%s", colour ? colour : "");
    if (fake_do.open_code || !state) {
        free(state);
        return (host->fail)(host, fake_do.open_code ? fake_do.open_code : PS_ENOMEM, "the %s is out of %s", "fake", "order");
    }
    host->seed = FAKE_SEED;
    state->host = host;
    memset(memory, 0xff, FAKE_STATE);
    memcpy(memory, &state, sizeof state);
    return 0;
}

static struct fake_state *fake_of(void *memory)
{
    struct fake_state *state;
    memcpy(&state, memory, sizeof state);
    return state;
}

static void fake_close(void *memory, int forked)
{
    fake.closed++;
    fake.forked += forked != 0;
    free(fake_of(memory));
}

static int fake_publish(void *memory, const ps_topic *topic, const void *data, size_t size, int wait)
{
    struct fake_state *state = fake_of(memory);
    struct fake_message *m = &state->inbox[state->last % FAKE_ROOM];
    fake.published++;
    fake.publish_wait = wait;
    fake.data_given = data != NULL;
    fake.topic_hash = topic->hash;
    for (int d = 0; d < 4; d++)
        fake.prefix[d] = state->host->prefix(state->host, topic, d);
    if (fake_do.publish_blocks) {
        fake.blocked = 1;
        while (!state->host->closing(state->host))
            ps__pause();
        return (state->host->fail)(state->host, PS_ECLOSED, "closed while the fake was waiting");
    }
    if (fake_do.publish_code)
        return fake_do.publish_code;
    state->last++;
    snprintf(m->topic, sizeof m->topic, "%s", topic->text);
    m->size = size < sizeof m->data ? size : sizeof m->data;
    memcpy(m->data, data, m->size);
    return 3;
}

static void fake_note(struct fake_filter *at, const ps_filter *filter, uint32_t flags, int edge, int idle)
{
    snprintf(at->text, sizeof at->text, "%s", filter->text);
    at->filter = *filter;
    at->flags = flags;
    at->edge = edge;
    at->idle = idle;
}

static int fake_subscribe(void *memory, const ps_filter *filter, uint32_t flags, int first)
{
    struct fake_state *state = fake_of(memory);
    fake.visited = 0;
    state->host->each(state->host, fake_visit, NULL);
    fake_note(&fake.asked[fake.asked_count++ % FAKE_ROOM], filter, flags, first, 0);
    if (fake_do.on_subscribe)
        fake_do.on_subscribe(fake_do.bus);
    return fake_do.subscribe_code ? (state->host->fail)(state->host, fake_do.subscribe_code, "no more of '%s'", filter->text) : 0;
}

static void fake_unsubscribe(void *memory, const ps_filter *filter, uint32_t flags, int last, int idle)
{
    (void)memory;
    if (fake_do.unsubscribe_blocks)
        fake.blocked = 1;
    while (fake_do.unsubscribe_blocks)
        ps__pause();
    fake_note(&fake.dropped[fake.dropped_count++ % FAKE_ROOM], filter, flags, last, idle);
}

static int fake_begin(void *memory, int marked)
{
    (void)memory;
    fake.begun++;
    fake.marked = marked;
    return fake_do.begin_code;
}

static int fake_next(void *memory, ps_record *record)
{
    struct fake_state *state = fake_of(memory);
    if (fake_do.next_code)
        return fake_do.next_code;
    while (state->first != state->last) {
        unsigned number = state->first++;
        state->now = state->inbox[number % FAKE_ROOM];
        struct fake_message *m = &state->now;
        size_t len = strlen(m->topic);
        ps_topic topic = { m->topic, len, ps__hash(m->topic, len, state->host->seed) };
        if (!state->host->match(state->host, &topic))
            continue;
        fake.borrows += state->host->borrows(state->host);
        *record = (ps_record){ topic, m->data, m->size, 1000 + number, m->lost, 7 };
        if (fake_do.on_next)
            fake_do.on_next(fake_do.bus);
        return 1;
    }
    return 0;
}

static void fake_end(void *memory, int flags)
{
    (void)memory;
    fake.ended++;
    fake.end_flags = flags;
}

static int fake_wait(void *memory, int timeout_ms)
{
    (void)memory;
    int number = fake.waited++;
    if (number < 8)
        fake.timeout_ms[number] = timeout_ms;
    if (fake_do.on_wait)
        fake_do.on_wait(number, fake_do.bus);
    return number < 8 ? fake_do.wait_answer[number] : 0;
}

static void fake_wake(void *memory)
{
    (void)memory;
    fake.woken++;
}

static ps_transport fake_table = {
    .size = sizeof(ps_transport),
    .version = PS_TRANSPORT_VERSION,
    .can = PS_CAN_BORROW,
    .scheme = "fake",
    .options = "colour shape",
    .state_size = FAKE_STATE,
    .open = fake_open,
    .close = fake_close,
    .publish = fake_publish,
    .subscribe = fake_subscribe,
    .unsubscribe = fake_unsubscribe,
    .begin = fake_begin,
    .next = fake_next,
    .end = fake_end,
    .wait = fake_wait,
    .wake = fake_wake,
};

static int fake_setup(void **state)
{
    (void)state;
    memset(&fake_do, 0, sizeof fake_do);
    memset(&fake, 0, sizeof fake);
    int err = ps_transport_register(&fake_table);
    return err == PS_EBUSY ? 0 : err;
}

static inline ps_bus *fake_bus(void)
{
    ps_bus *bus = NULL;
    assert_ok(ps_open(&bus, "fake://here"));
    fake_do.bus = bus;
    return bus;
}

#endif
