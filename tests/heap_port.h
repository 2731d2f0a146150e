/* SPDX-License-Identifier: MIT */
/*
 * heap_port.h - a handle's port over plain memory, for tests of lib/ring that look into the words: one shared lane as in inproc,
 * a few members, of which slot 0 is the port's own and the others are only words that the test sets. (host->fail) stands in
 * brackets because cmocka has a macro of that name.
 */
#ifndef PS_TEST_HEAP_PORT_H
#define PS_TEST_HEAP_PORT_H

#include "../lib/inproc/layout.h"

#include "support.h"

#include <stdio.h>
#include <stdlib.h>

#define HEAP_SEED UINT64_C(0x6865617073656564)

struct heap_port {
    struct ps__port port;               /* first: the env's functions get it back */
    ps_host host;
    struct ps__geometry geometry;
    void *memory;                       /* words, lane, areas */
    size_t memory_size;
    unsigned char *ring, *loan;
    ps__a64 *big[PS_MEMBERS_MAX];
    int dead[PS_MEMBERS_MAX];           /* whom env->alive says to be gone */
    int rung[PS_MEMBERS_MAX][2];        /* how often env->ring was called */
    int big_refused;                    /* big_reserve finds no room */
    void (*each)(struct heap_port *heap, void (*visit)(void *, const ps_filter *, uint32_t), void *arg);
    uint64_t matched;
    int borrows;                        /* what host->borrows answers */
};

static inline struct heap_port *heap_of(struct ps__port *port) { return (struct heap_port *)(void *)port; }

/* ---------------------------------------------------------------- the core's side */

static inline struct heap_port *heap_of_host(struct ps_host *host)
{
    return (struct heap_port *)(void *)((char *)host - offsetof(struct heap_port, host));
}

static inline int heap_fail(struct ps_host *host, int code, const char *format, ...)
{
    (void)host;
    return ps__fail(code, "%s", format);
}

static inline int heap_match(struct ps_host *host, const ps_topic *topic)
{
    (void)topic;
    heap_of_host(host)->matched++;
    return 1;
}

static inline int heap_borrows(struct ps_host *host) { return heap_of_host(host)->borrows; }

static inline uint64_t heap_prefix(struct ps_host *host, const ps_topic *topic, int depth)
{
    return ps__topic_prefix_hash(topic, depth, host->seed);
}

static inline void heap_each(struct ps_host *host, void (*visit)(void *, const ps_filter *, uint32_t), void *arg)
{
    struct heap_port *heap = heap_of_host(host);
    if (heap->each)
        heap->each(heap, visit, arg);
}

static inline int heap_closing(struct ps_host *host) { (void)host; return 0; }

/* ---------------------------------------------------------------- the memory's owner */

static inline void heap_view(struct heap_port *heap, struct ps__view *view)
{
    view->lane = heap->port.view[0].lane;
    ps__view_ring(view, heap->ring, &heap->geometry);
    if (ps__load_acq(&view->lane->loan)) {
        view->loan = heap->loan;
        view->loan_bytes = ps__loans_size(&heap->geometry);
    }
}

static inline int heap_lane_open(struct ps__port *port, unsigned lane)
{
    heap_view(heap_of(port), &port->view[lane]);
    return 0;
}

static inline int heap_lane_reserve(struct ps__port *port)
{
    heap_view(heap_of(port), &port->own);
    ps__raise(&port->words->lanes_high, 1);
    ps__store_rel(&port->own.lane->ring, ps__geometry_pack(&heap_of(port)->geometry));
    return 0;
}

static inline int heap_loan_reserve(struct ps__port *port)
{
    ps__store_rel(&port->own.lane->loan, ps__geometry_pack(&heap_of(port)->geometry));
    heap_view(heap_of(port), &port->own);
    return 0;
}

static inline ps__a64 *heap_big_reserve(struct ps__port *port)
{
    struct heap_port *heap = heap_of(port);
    if (!heap->big_refused && !heap->big[port->slot])
        heap->big[port->slot] = ps__pages(PS__BIG_BITS / 8);
    return heap->big_refused ? NULL : heap->big[port->slot];
}

static inline const ps__a64 *heap_big_of(struct ps__port *port, unsigned slot) { return heap_of(port)->big[slot]; }
static inline int heap_alive(struct ps__port *port, unsigned slot) { return !heap_of(port)->dead[slot]; }
static inline int heap_repair(struct ps__port *port, unsigned lane) { (void)port, (void)lane; return 0; }
static inline int heap_bell(struct ps__port *port, int which) { (void)port, (void)which; return -1; }
static inline int heap_drain(struct ps__port *port, int which) { (void)port, (void)which; return 0; }

static inline int heap_ring(struct ps__port *port, unsigned slot, int which)
{
    heap_of(port)->rung[slot][which]++;
    return 1;
}

static inline int heap_check(struct ps__port *port) { (void)port; return 0; }
static inline uint64_t heap_memory(struct ps__port *port, unsigned slot) { (void)port, (void)slot; return 0; }

/* ---------------------------------------------------------------- set up and taken down */

/* A port of so many members, with its lane reserved. A fresh lane begins at sequence and position. */
static inline struct heap_port *heap_open(unsigned members, unsigned depth_log, unsigned units_log, uint64_t sequence,
                                          uint32_t position)
{
    static const struct ps__env env = {
        heap_lane_open, heap_lane_reserve, heap_loan_reserve, heap_big_reserve, heap_big_of, heap_alive,
        heap_repair, heap_bell, heap_drain, heap_ring, heap_check, heap_memory,
    };
    ps_url url = { .size = sizeof url, .address = "heap", .name = "", .evict_ms = 0, .echo = 1, .create = 1 };
    struct heap_port *heap = aligned_alloc(128, (sizeof *heap + 127) / 128 * 128);
    assert_non_null(heap);
    memset(heap, 0, sizeof *heap);
    assert_ok(ps__process_init());
    heap->geometry = (struct ps__geometry){ depth_log, units_log, units_log, 7, 1 };
    heap->memory_size = ps__heap_size(members);
    heap->memory = ps__pages(heap->memory_size);
    heap->ring = ps__pages(ps__ring_size(&heap->geometry));
    heap->loan = ps__pages(ps__loans_size(&heap->geometry));
    assert_true(heap->memory && heap->ring && heap->loan);
    heap->host = (ps_host){ .size = sizeof heap->host, .seed = HEAP_SEED, .fail = heap_fail, .match = heap_match,
                            .borrows = heap_borrows, .prefix = heap_prefix, .each = heap_each, .closing = heap_closing };

    struct ps__port *port = &heap->port;
    port->members = members;
    ps__heap_point(port, heap->memory);
    port->shared_lane = 1;
    port->publisher = 1;
    port->loans = ps__loans_new();
    assert_non_null(port->loans);
    ps__store_rlx(&port->words->geometry, ps__geometry_pack(&heap->geometry));
    ps__test_start_sequence = sequence;
    ps__test_start_position = position;
    ps__lane_init(port->view[0].lane);
    ps__test_start_sequence = 0;
    ps__test_start_position = 0;
    assert_ok(ps__port_open(port, &heap->host, &url, &env));
    ps__port_introduce(port, "heap");
    ps__raise(&port->words->slots_high, members);
    assert_ok(ps__port_ready(port));
    return heap;
}

static inline void heap_close(struct heap_port *heap)
{
    ps__loans_return(&heap->port);
    ps__port_close(&heap->port, 0);
    ps__loans_free(heap->port.loans);
    for (unsigned i = 0; i < heap->port.members; i++)
        if (heap->big[i])
            ps__pages_free((void *)heap->big[i], PS__BIG_BITS / 8);
    ps__pages_free(heap->memory, heap->memory_size);
    ps__pages_free(heap->ring, ps__ring_size(&heap->geometry));
    ps__pages_free(heap->loan, ps__loans_size(&heap->geometry));
    free(heap);
}

/* ---------------------------------------------------------------- what tests do with it */

/* Member r becomes a gate that stands at a number. */
static inline void heap_gate(struct heap_port *heap, unsigned r, uint64_t cursor)
{
    struct ps__reader *reader = heap->port.reader[r];
    ps__store_rlx(&reader->cursor[0], cursor);
    ps__store_rlx(&reader->join_last, ps__load_rlx(&reader->join_last) + 1);
    ps__store_rel(&reader->join, ps__load_rlx(&reader->join_last));
}

static inline ps_topic heap_topic(const char *text)
{
    return (ps_topic){ text, strlen(text), ps__hash(text, strlen(text), HEAP_SEED) };
}

/* Puts a message straight into the lane; its number in *number. */
static inline int heap_put(struct heap_port *heap, const char *text, const void *data, size_t size, uint64_t *number)
{
    ps_topic topic = heap_topic(text);
    struct ps__message m = { &topic, data, size, NULL };
    uint64_t stamp = 0;
    int err = ps__ring_put(&heap->port, &m, &stamp);
    if (number)
        *number = stamp - 1;
    return err;
}

static inline struct ps__cell *heap_cell(struct heap_port *heap, uint64_t number)
{
    return &heap->port.own.cell[number & (heap->port.own.cells - 1)];
}

#endif
