/* SPDX-License-Identifier: MIT */
/*
 * test_ring.c - one lane: who may claim, where a message's payload comes to lie, and when there is room for one more. What recovery makes of a
 * lane whose owner died is in test_recover.c.
 */
#include "../lib/ring/cells.h"

#include "heap_port.h"

#include <sched.h>

#define CELLS 16u                       /* of most lanes here */
#define UNITS 64u
#define TOPIC "some/topic/whose/name/has/forty/two/bytes"

static unsigned char bytes[4096];

static uint64_t tail_of(struct heap_port *heap) { return ps__load_rlx(&heap->port.own.lane->tail); }
static uint64_t limit_of(struct heap_port *heap) { return ps__load_rlx(&heap->port.own.lane->limit); }

/* A message of that many units; the topic is too long for 64 bytes of data to share a cell with it. */
static int put_units(struct heap_port *heap, unsigned units)
{
    return heap_put(heap, TOPIC, bytes, units ? (size_t)units * PS__UNIT : 8, NULL);
}

/* ---------------------------------------------------------------- who may claim */

#define CLAIMS 20000u

#define SOME 2000u

struct claimer {
    struct heap_port *heap;
    pthread_t thread;
    ps__a32 *go;
    unsigned failed, turns, done;
    uint32_t since;
    int owned, cpu;
    ps__a32 numbered;
};

static void *claim_some(void *arg)
{
    struct claimer *c = arg;
    (void)ps__thread_number();          /* given, and not that of a thread that has ended meanwhile */
    ps__store_rel(&c->numbered, 1);
    while (!ps__load_acq(c->go)) sched_yield();
    for (unsigned i = 0; i < SOME; i++)
        c->failed += heap_put(c->heap, "t", &i, sizeof i, NULL) != 0;
    return NULL;
}

static void *claim_thread(void *arg)
{
    for (unsigned i = 0; i < CLAIMS / SOME; i++)
        (void)claim_some(arg);
    return NULL;
}

static uint32_t owner_of(struct heap_port *heap) { return (uint32_t)ps__load_acq(&heap->port.claim->owner); }

/* The thread that reserved the lane owns the claim; another one comes while it claims. No number is given out twice. */
static void test_claim_changes_hands_while_threads_claim(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct heap_port *heap = heap_open(2, 17, 6, 0, 0);
        ps__a32 go = 0;
        struct claimer c = { .heap = heap, .go = &go };
        assert_int_equal(owner_of(heap), ps__thread_number() + 1);
        assert_int_equal(pthread_create(&c.thread, NULL, claim_thread, &c), 0);
        unsigned failed = 0;
        for (unsigned i = 0; i < CLAIMS; i++) {
            if (i == CLAIMS / 40 * round)
                ps__store_rel(&go, 1);
            failed += heap_put(heap, "t", &i, sizeof i, NULL) != 0;
        }
        pthread_join(c.thread, NULL);
        assert_int_equal(failed + c.failed, 0);
        assert_int_equal(ps__seq(tail_of(heap)), 2 * CLAIMS);
        for (uint64_t number = 0; number < 2 * CLAIMS; number++)
            assert_int_equal(ps__load_acq(&heap_cell(heap, number)->stamp), number + 1);
        for (unsigned i = 0; i < PS__SEATS; i++)
            assert_int_equal(ps__load_rlx(&heap->port.claim->seat[i].inside), 0);
        heap_close(heap);
    }
}

/* More threads than seats: some never own, and in the end all swap. */
static void test_claim_of_more_threads_than_seats(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 17, 6, 0, 0);
    struct claimer c[PS__SEATS + 4];
    ps__a32 go = 0;
    unsigned failed = 0;
    for (unsigned i = 0; i < PS__SEATS + 4; i++) {
        c[i] = (struct claimer){ .heap = heap, .go = &go };
        assert_int_equal(pthread_create(&c[i].thread, NULL, claim_some, &c[i]), 0);
    }
    for (unsigned i = 0; i < PS__SEATS + 4; i++)
        while (!ps__load_acq(&c[i].numbered)) sched_yield();
    ps__store_rel(&go, 1);
    for (unsigned i = 0; i < PS__SEATS + 4; i++) {
        pthread_join(c[i].thread, NULL);
        failed += c[i].failed;
    }
    assert_int_equal(failed, 0);
    assert_int_equal(ps__seq(tail_of(heap)), (PS__SEATS + 4) * SOME);
    for (uint64_t number = 0; number < (PS__SEATS + 4) * SOME; number++)
        assert_int_equal(ps__load_acq(&heap_cell(heap, number)->stamp), number + 1);
    assert_int_equal(owner_of(heap), PS__CLAIM_SHARED);
    heap_close(heap);
}

static void *claim_once(void *arg)
{
    struct claimer *c = arg;
    c->failed = heap_put(c->heap, "t", "", 0, NULL) != 0;
    c->owned = owner_of(c->heap) == ps__thread_number() + 1;
    return NULL;
}

static void claim_once_elsewhere(struct claimer *c)
{
    assert_int_equal(pthread_create(&c->thread, NULL, claim_once, c), 0);
    pthread_join(c->thread, NULL);
    assert_int_equal(c->failed, 0);
}

/* The owner stands still inside its claim: whoever takes the claim away waits for it, and begins where it ended. */
static void test_claim_is_not_taken_before_its_owner_is_outside(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__claim *claim = heap->port.claim;
    struct claimer c = { .heap = heap };
    ps__a32 *inside = &claim->seat[ps__load_rlx(&claim->owner) >> 32].inside;
    ps__store_rlx(inside, 1);
    assert_int_equal(pthread_create(&c.thread, NULL, claim_once, &c), 0);
    uint64_t deadline = ps__deadline_ns(10000);
    while (owner_of(heap) != PS__CLAIM_TAKEN && ps__now_ns() < deadline) sched_yield();
    assert_int_equal(owner_of(heap), PS__CLAIM_TAKEN);
    for (int i = 0; i < 1000; i++)
        sched_yield();                                  /* time to do the wrong thing */
    ps__store_rlx(&heap->port.own.lane->tail, ps__pack(1, 0));
    ps__store_rel(inside, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.failed, 0);
    assert_true(c.owned);
    assert_int_equal(ps__seq(tail_of(heap)), 2);
    heap_close(heap);
}

/* Threads that take turns message by message gain nothing by owning: after a few times they swap. */
static void test_claim_is_shared_where_turns_are_short(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 10, 6, 0, 0);
    struct claimer c = { .heap = heap };
    unsigned turns = 0;
    while (owner_of(heap) != PS__CLAIM_SHARED && turns++ < 100) {
        claim_once_elsewhere(&c);
        assert_ok(heap_put(heap, "t", "", 0, NULL));
    }
    assert_in_range(turns, 3, 10);
    assert_ok(heap_put(heap, "t", "", 0, NULL));
    assert_int_equal(ps__seq(tail_of(heap)), 2 * turns + 1);
    heap_close(heap);
}

/* A ring that is full ends turns early: that is no reason to share. */
static void test_claim_stays_owned_where_the_ring_is_full(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct claimer c = { .heap = heap };
    heap->port.evict_ms = -1;
    heap_gate(heap, 1, 0);
    for (unsigned i = 0; i < CELLS; i++)
        assert_ok(heap_put(heap, "t", "", 0, NULL));
    for (int i = 0; i < 12; i++) {
        assert_int_equal(heap_put(heap, "t", "", 0, NULL), PS_EAGAIN);
        assert_int_equal(pthread_create(&c.thread, NULL, claim_once, &c), 0);
        pthread_join(c.thread, NULL);
        assert_true(c.failed);
        assert_int_equal(ps__load_rlx(&heap->port.claim->offences), 0);
    }
    heap_close(heap);
}

/* Its owner is asked and nobody takes what it gives: it goes on, and owns the claim as before. */
static void test_claim_that_nobody_takes_is_its_owners_again(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__claim *claim = heap->port.claim;
    uint64_t owner = ps__load_rlx(&claim->owner);
    for (unsigned i = 0; i < 3; i++)
        assert_ok(heap_put(heap, "t", "", 0, NULL));
    ps__store_rlx(&claim->owner, owner | PS__CLAIM_ASKED);
    assert_ok(heap_put(heap, "t", "", 0, NULL));
    assert_int_equal(ps__load_rlx(&claim->owner), owner);
    assert_int_equal(ps__load_rlx(&claim->since), 3);   /* a turn of its own */
    assert_int_equal(ps__seq(tail_of(heap)), 4);
    heap_close(heap);
}

/* Publishes until both threads have had their share, or for 20 seconds. EAGAIN: the other one stands between claim and commit. */
static void *claim_in_turn(void *arg)
{
    struct claimer *c = arg;
    uint64_t deadline = ps__deadline_ns(20000);
    if (c->cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((unsigned)c->cpu, &set);
        c->failed += sched_setaffinity(0, sizeof set, &set) != 0;
    }
    while (ps__load_rlx(c->go) < 2 && ps__now_ns() < deadline) {
        int rc = heap_put(c->heap, "t", "", 0, NULL);
        if (rc == PS_EAGAIN)
            continue;
        c->failed += rc != 0;
        uint32_t now = ps__load_rlx(&c->heap->port.claim->since);
        if (owner_of(c->heap) == ps__thread_number() + 1 && (!c->turns || now != c->since)) {
            c->since = now;
            c->turns++;
        }
        if (++c->done == SOME)
            ps__add_rlx(c->go, 1);
    }
    return NULL;
}

static void claim_in_turns(int cpu)
{
    struct heap_port *heap = heap_open(2, 17, 6, 0, 0);
    ps__a32 satisfied = 0;
    struct claimer c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = (struct claimer){ .heap = heap, .go = &satisfied, .cpu = cpu };
        assert_int_equal(pthread_create(&c[i].thread, NULL, claim_in_turn, &c[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(c[i].thread, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(c[i].failed, 0);
        assert_true(c[i].done >= SOME);
        assert_true(c[i].turns >= 1 || owner_of(heap) == PS__CLAIM_SHARED);
    }
    heap_close(heap);
}

/* Two threads that publish without a pause own the claim in turn, unless the machine is so busy that it does not pay. */
static void test_claim_goes_to_and_fro(void **state)
{
    (void)state;
    claim_in_turns(-1);
}

/* On one processor, where a thread that does not let the other one run would own it for ever. */
static void test_claim_goes_to_and_fro_on_one_processor(void **state)
{
    (void)state;
    claim_in_turns(sched_getcpu());
}

/* ---------------------------------------------------------------- where a payload lies */

static void test_units_of_each_kind_rounded_up(void **state)
{
    (void)state;
    static const struct { uint32_t kind; size_t size, topic; uint32_t units; } cases[] = {
        { PS__KIND_INLINE, 95, 0, 0 }, { PS__KIND_INLINE, 0, 95, 0 },
        { PS__KIND_RING, 96, 1, 2 }, { PS__KIND_RING, 1, 95, 1 }, { PS__KIND_RING, 64, 95, 1 }, { PS__KIND_RING, 65, 95, 2 },
        { PS__KIND_RING, 0, 96, 2 },    /* a long topic lies behind the data, from a multiple of 16 on */
        { PS__KIND_RING, 1, 112, 2 }, { PS__KIND_RING, 1, 113, 3 }, { PS__KIND_RING, 17, 255, 5 },
        { PS__KIND_RING, UINT32_MAX - 65535, 255, 67107844 },
        { PS__KIND_LOAN, 1000000, 1, 0 }, { PS__KIND_LOAN, 0, 87, 0 }, { PS__KIND_LOAN, 0, 88, 2 }, { PS__KIND_LOAN, 0, 255, 4 },
        { PS__KIND_HOLE, 7, 99, 7 }, { PS__KIND_HOLE, 0, 99, 0 }, { 0, 1000, 1, 0 }, { 99, 1000, 1, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(ps__message_units(cases[i].kind, cases[i].size, cases[i].topic), cases[i].units);
}

static void test_put_message_lies_in_its_cell_or_behind_it(void **state)
{
    (void)state;
    static const struct { size_t size, topic; uint32_t kind; } cases[] = {
        { 0, 1, PS__KIND_INLINE }, { 94, 1, PS__KIND_INLINE }, { 95, 1, PS__KIND_RING }, { 0, 95, PS__KIND_INLINE },
        { 1, 95, PS__KIND_RING }, { 0, 96, PS__KIND_RING }, { 41, 255, PS__KIND_RING }, { 1000, 20, PS__KIND_RING },
        { 31, 7, PS__KIND_INLINE }, { 32, 33, PS__KIND_INLINE }, { 33, 32, PS__KIND_INLINE }, { 7, 8, PS__KIND_INLINE },
    };
    struct heap_port *heap = heap_open(2, 4, 6, 1000, 0xffffffe0u);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char topic[PS_TOPIC_MAX + 1] = { 0 };
        uint64_t number;
        for (size_t k = 0; k < cases[i].topic; k++)
            topic[k] = (char)('a' + k % 26);
        assert_ok(heap_put(heap, topic, bytes, cases[i].size, &number));
        assert_int_equal(number, 1000 + i);
        struct ps__cell *cell = heap_cell(heap, number);
        assert_int_equal(ps__load_rlx(&cell->stamp), number + 1);
        assert_int_equal(ps__load_rlx(&cell->meta), cases[i].kind | (uint32_t)cases[i].topic << 8);
        assert_int_equal(ps__load_rlx(&cell->size), cases[i].size);
        assert_int_equal(ps__load_rlx(&cell->publisher), 1);
        assert_int_equal(ps__load_rlx(&cell->hash), ps__hash(topic, cases[i].topic, HEAP_SEED));
        const unsigned char *payload = heap->port.own.payload + (ps__load_rlx(&cell->pos) & (UNITS - 1)) * PS__UNIT;
        if (cases[i].kind == PS__KIND_INLINE) {
            assert_memory_equal(cell->data, bytes, cases[i].size);
            assert_memory_equal(cell->data + cases[i].size, topic, cases[i].topic);
        } else {
            size_t behind = (cases[i].size + 15) & ~(size_t)15;
            assert_memory_equal(payload, bytes, cases[i].size);
            assert_memory_equal(cases[i].topic > PS__INLINE ? payload + behind : cell->data, topic, cases[i].topic);
        }
    }
    heap_close(heap);
}

/* A message that is small enough leaves its cell's second line where it is: with its reader. */
static void test_put_small_message_writes_one_line(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    for (size_t size = 30; size <= 32; size++) {
        unsigned char *second = (unsigned char *)heap_cell(heap, size - 30) + PS__LINE / 2;
        memset(second, 0xa5, PS__LINE / 2);
        assert_ok(heap_put(heap, "t", bytes, size, NULL));
        unsigned written = 0;
        for (unsigned i = 0; i < PS__LINE / 2; i++)
            written += second[i] != 0xa5;
        assert_true((written > 0) == (size == 32));     /* whole words, in a build for ThreadSanitizer */
    }
    heap_close(heap);
}

static void test_pad_payload_never_goes_over_the_rings_end(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    const struct ps__view *own = &heap->port.own;
    for (uint32_t at = 0; at < UNITS; at++) {
        for (uint32_t units = 0; units <= 16; units++) {
            uint32_t pad = units && at + units > UNITS ? UNITS - at : 0;
            assert_int_equal(ps__ring_extent(own, ps__pack(5, at), units), pad + units);
            assert_int_equal(ps__ring_extent(own, ps__pack(5, 0xffffffc0u + at), units), pad + units);
        }
    }
    for (int i = 0; i < 200; i++) {                     /* nobody reads: the ring is overwritten for ever */
        unsigned units = (unsigned)(support_random() % 17);
        uint32_t pos = ps__pos(tail_of(heap));
        assert_ok(put_units(heap, units));
        struct ps__cell *cell = heap_cell(heap, (uint64_t)i);
        uint32_t start = ps__load_rlx(&cell->pos);
        assert_true((start & (UNITS - 1)) + units <= UNITS);
        assert_int_equal(ps__pos(tail_of(heap)), start + units);
        assert_true(start == pos || (start & (UNITS - 1)) == 0);
    }
    heap_close(heap);
}

/* ---------------------------------------------------------------- room */

static void test_room_reader_holds_cells_one_by_one(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(3, 4, 6, 0xfffffff8u, 0);
    uint64_t first = 0xfffffff8u;
    heap->port.evict_ms = -1;
    heap_gate(heap, 2, first);
    for (unsigned i = 0; i < CELLS; i++)
        assert_ok(put_units(heap, 0));
    for (unsigned i = 1; i < 40; i++) {
        uint64_t tail = tail_of(heap);
        assert_int_equal(put_units(heap, 0), PS_EAGAIN);
        assert_int_equal(tail_of(heap), tail);          /* nothing done */
        ps__store_rel(&heap->port.reader[2]->cursor[0], first + i);
        assert_ok(put_units(heap, 0));
        assert_int_equal(ps__seq(limit_of(heap)), (uint32_t)(first + i));
    }
    ps__store_rel(&heap->port.reader[2]->join, 0);      /* it leaves */
    for (unsigned i = 0; i < 2 * CELLS; i++)
        assert_ok(put_units(heap, 0));
    heap_close(heap);
}

static void test_room_reader_holds_units_and_padding(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    heap->port.evict_ms = -1;
    heap_gate(heap, 1, 0);
    for (int i = 0; i < 4; i++)
        assert_ok(put_units(heap, 15));
    assert_int_equal(put_units(heap, 5), PS_EAGAIN);    /* 4 are left, at the end */
    assert_ok(put_units(heap, 4));
    assert_ok(put_units(heap, 0));                      /* what fits its cell needs no unit */
    assert_int_equal(put_units(heap, 2), PS_EAGAIN);
    ps__store_rel(&heap->port.reader[1]->cursor[0], 1); /* 15 at the start */
    assert_int_equal(put_units(heap, 16), PS_EAGAIN);
    assert_ok(put_units(heap, 10));
    assert_int_equal(put_units(heap, 6), PS_EAGAIN);
    assert_ok(put_units(heap, 5));
    ps__store_rel(&heap->port.reader[1]->cursor[0], 6);
    assert_ok(put_units(heap, 16));                     /* 15 to 30; then 30 to 46 */
    assert_ok(put_units(heap, 16));
    assert_ok(put_units(heap, 16));
    assert_int_equal(put_units(heap, 3), PS_EAGAIN);    /* 2 are left: padded, it would need 5, and 15 of the start are held */
    heap_close(heap);
}

static void test_room_stops_before_an_unfinished_claim_and_blames_no_reader(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__lane *lane = heap->port.own.lane;
    heap->port.evict_ms = 0;
    heap_gate(heap, 1, 0);
    ps__store_rlx(&heap->port.claim->owner, PS__CLAIM_SHARED);
    ps__store_rlx(&lane->tail, ps__pack(1, 2));         /* number 0, two units: claimed by a fellow, not committed */
    for (unsigned i = 1; i < CELLS; i++)
        assert_ok(put_units(heap, 1));
    assert_int_equal(put_units(heap, 1), PS_EAGAIN);
    assert_int_equal(ps__load_rlx(&lane->evicted[1]), 0);       /* it could not have read on */
    ps__store_rlx(&heap->port.reader[1]->join, 0);
    assert_int_equal(put_units(heap, 1), PS_EAGAIN);    /* and without it the claim still stands there */
    struct ps__cell *cell = heap_cell(heap, 0);
    ps__store_rlx(&cell->size, 2 * PS__UNIT);
    ps__store_rlx(&cell->meta, PS__KIND_RING | 1u << 8);
    ps__store_rel(&cell->stamp, 1);
    assert_ok(put_units(heap, 1));
    assert_int_equal(limit_of(heap), ps__pack(CELLS, CELLS + 1));
    heap_close(heap);
}

static void *fill_behind_a_former_owner(void *arg)
{
    struct claimer *c = arg;
    for (unsigned i = 0; i + 1 < CELLS; i++)
        c->failed += put_units(c->heap, 1) != 0;
    c->owned = owner_of(c->heap) == ps__thread_number() + 1;
    c->failed += put_units(c->heap, 1) != PS_EAGAIN;
    return NULL;
}

/* The owner was stopped between claim and commit, and another thread owns the claim now: it does not take that for committed. */
static void test_room_stops_before_the_unfinished_claim_of_a_former_owner(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 1000, 0);
    struct claimer c = { .heap = heap };
    assert_ok(put_units(heap, 1));
    uint64_t tail = tail_of(heap);
    ps__store_rlx(&heap->port.own.lane->tail, ps__pack(ps__seq(tail) + 1, ps__pos(tail) + 2));  /* claimed, not committed */
    assert_int_equal(pthread_create(&c.thread, NULL, fill_behind_a_former_owner, &c), 0);
    pthread_join(c.thread, NULL);
    assert_true(c.owned);
    assert_int_equal(c.failed, 0);
    assert_int_equal(limit_of(heap), tail);
    heap_close(heap);
}

/* In a lane that is shared a thread goes on where it last looked; not in another one, where numbers are the same. */
static void test_room_walk_goes_on_where_it_ended(void **state)
{
    (void)state;
    struct heap_port *heap[2];
    for (int h = 0; h < 2; h++) {
        heap[h] = heap_open(2, 4, 6, 0xffffffe0u, h ? 0xffffff00u : 7);
        ps__store_rlx(&heap[h]->port.claim->owner, PS__CLAIM_SHARED);
    }
    for (unsigned i = 0; i < 200; i++) {                /* laps of both, and round the 32 bits of numbers */
        for (unsigned k = 0; k < 6; k++)
            assert_ok(put_units(heap[k < 3], 1 + (i * 7 + k) % 4));
        ps__claim_run.claim = NULL;                     /* as before a claim, if the thread has read meanwhile */
        ps__claim_shared(&heap[0]->port);               /* walks up to tail */
        for (unsigned k = 0; k < 2; k++) {
            struct heap_port *at = heap[(i + k) % 2];
            assert_int_equal(ps__ring_room(&at->port, tail_of(at), 1, 0), 1);
            assert_int_equal(limit_of(at), tail_of(at));        /* nobody holds anything */
        }
    }
    for (int h = 0; h < 2; h++)
        heap_close(heap[h]);
}

static void *fill_but_one(void *arg)
{
    int failed = 0;
    for (unsigned i = 0; i + 1 < CELLS; i++)
        failed += put_units(arg, 0) != 0;
    return failed ? arg : NULL;
}

/* The last swap was into another lane, which stands at the same number: it says nothing of what was committed in this one. */
static void test_room_walk_stops_where_another_lane_goes_on(void **state)
{
    (void)state;
    struct heap_port *full = heap_open(2, 4, 6, 0, 0), *other = heap_open(2, 4, 6, 0, 0);
    pthread_t thread;
    void *failed;
    unsigned accepted = 0;
    ps__store_rlx(&full->port.claim->owner, PS__CLAIM_SHARED);
    ps__store_rlx(&other->port.claim->owner, PS__CLAIM_SHARED);
    full->port.evict_ms = -1;
    heap_gate(full, 1, 0);
    assert_int_equal(pthread_create(&thread, NULL, fill_but_one, full), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    ps__store_rlx(&full->port.own.lane->tail, ps__pack(CELLS, 0));      /* the last one: claimed by a fellow, not committed */
    for (unsigned i = 0; i < CELLS; i++)
        assert_ok(put_units(other, 0));
    for (int i = 0; i < 3; i++)
        assert_int_equal(put_units(full, 0), PS_EAGAIN);
    ps__store_rlx(&full->port.reader[1]->join, 0);
    while (accepted < 10 * CELLS && put_units(full, 0) == 0)
        accepted++;
    assert_int_equal(accepted, CELLS - 1);
    heap_close(other);
    heap_close(full);
}

static void test_room_full_ring_evicts_the_impatient_and_marks_the_dead(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(4, 4, 6, 0, 0);
    struct ps__lane *lane = heap->port.own.lane;
    heap->port.evict_ms = 0;
    heap_gate(heap, 1, 0);
    heap_gate(heap, 2, 0);
    heap_gate(heap, 3, 8);                              /* in nobody's way yet */
    heap->dead[2] = 1;
    ps__store_rlx(&heap->port.reader[2]->borrow, 1);    /* died inside a borrow */
    for (unsigned i = 0; i <= CELLS; i++)
        assert_ok(put_units(heap, 0));
    assert_int_equal(ps__load_rlx(&lane->evicted[1]), 1);
    assert_int_equal(ps__load_rlx(&heap->port.dead[1]), 0);
    assert_int_equal(ps__load_rlx(&lane->evicted[2]), 1);
    assert_int_equal(ps__load_rlx(&heap->port.dead[2]), 2);
    assert_int_equal(ps__load_rlx(&heap->port.dead_set[0]), ps__set_bit(2));
    assert_int_equal(ps__load_rlx(&lane->evicted[3]), 0);
    assert_int_equal(ps__load_rlx(&heap->port.evictions), 2);
    heap_gate(heap, 1, CELLS + 1);                      /* it gates again under a new number */
    ps__store_rlx(&heap->port.reader[1]->borrow, 1);    /* and what it borrows is never taken from it */
    ps__store_rlx(&heap->port.reader[3]->join, 0);
    for (unsigned i = 0; i < CELLS; i++)
        assert_ok(put_units(heap, 0));
    for (int i = 0; i < 3; i++)
        assert_int_equal(put_units(heap, 0), PS_EAGAIN);
    assert_int_equal(ps__load_rlx(&lane->evicted[1]), 1);
    ps__store_rlx(&lane->evicted[1], 2);                /* not even if it was evicted just before it borrowed */
    assert_int_equal(put_units(heap, 0), PS_EAGAIN);
    ps__store_rlx(&heap->port.reader[1]->borrow, 0);
    assert_ok(put_units(heap, 0));
    heap_close(heap);
}

static void test_room_sleeper_is_rung_once_when_half_the_ring_is_used(void **state)
{
    (void)state;
    for (int by_units = 0; by_units < 2; by_units++) {
        struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
        unsigned half = by_units ? 4 : CELLS / 2;       /* 8 units a message, or none */
        heap->port.evict_ms = -1;
        heap_gate(heap, 1, 0);
        ps__store_rlx(&heap->port.reader[1]->armed, 7); /* asleep, on topics that are not these */
        for (unsigned i = 0; i < half; i++)
            assert_ok(put_units(heap, by_units ? 8 : 0));
        assert_int_equal(heap->rung[1][PS__BELL_MESSAGE], 0);
        for (unsigned i = 0; i < half; i++)
            assert_ok(put_units(heap, by_units ? 8 : 0));
        assert_int_equal(heap->rung[1][PS__BELL_MESSAGE], 1);
        assert_int_equal(put_units(heap, by_units ? 8 : 0), PS_EAGAIN);
        assert_int_equal(heap->rung[1][PS__BELL_MESSAGE], 1);
        ps__store_rlx(&heap->port.reader[1]->armed, 9); /* another sleep */
        assert_int_equal(put_units(heap, by_units ? 8 : 0), PS_EAGAIN);
        assert_int_equal(heap->rung[1][PS__BELL_MESSAGE], 2);
        heap_close(heap);
    }
}

static void test_room_garbage_in_shared_words_told_and_survived(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__lane *lane = heap->port.own.lane;
    heap->port.evict_ms = -1;
    heap_gate(heap, 1, 1000);                           /* nobody can stand there */
    for (unsigned i = 0; i < 3 * CELLS; i++)
        assert_ok(put_units(heap, 0));
    assert_true(ps__load_rlx(&heap->port.corrupt) > 0);
    heap_gate(heap, 1, 3 * CELLS);
    ps__store_rlx(&lane->limit, ps__pack(4 * CELLS, 0));         /* beyond what was ever claimed */
    uint64_t tail = tail_of(heap);
    assert_int_equal(put_units(heap, 0), PS_ECORRUPT);
    assert_int_equal(tail_of(heap), tail);
    heap_close(heap);
}

/* ---------------------------------------------------------------- a loan's cell */

static void test_pass_says_whether_limit_is_beyond_a_cell(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    heap->port.evict_ms = -1;
    heap_gate(heap, 1, 0);
    for (int i = 0; i < 5; i++)
        assert_ok(put_units(heap, 0));
    assert_int_equal(ps__ring_pass(&heap->port, 0), 0);
    ps__store_rel(&heap->port.reader[1]->cursor[0], 3);
    assert_int_equal(ps__ring_pass(&heap->port, 2), 1);
    assert_int_equal(ps__ring_pass(&heap->port, 3), 0);
    heap->port.evict_ms = 0;                            /* who stands before a loan is in the way as in a full ring */
    assert_int_equal(ps__ring_pass(&heap->port, 4), 1);
    assert_int_equal(ps__load_rlx(&heap->port.own.lane->evicted[1]), 1);
    heap_close(heap);
}

/* ---------------------------------------------------------------- who waits for room is told */

/* A dispatch that reads one message, while member 1 waits anew. 1: it was rung for that. */
static int read_one_rings(struct heap_port *heap)
{
    ps_record record;
    int before = heap->rung[1][PS__BELL_SPACE];
    ps__store_rlx(&heap->port.reader[1]->waiting, ps__load_rlx(&heap->port.reader[1]->waiting) + 2);
    assert_ok(ps__port_begin(&heap->port, 0));
    assert_int_equal(ps__port_next(&heap->port, &record), 1);
    ps__port_end(&heap->port, 0);
    return heap->rung[1][PS__BELL_SPACE] - before;
}

/* One by one out of a window that holds them all. Whoever is alone in its cell frees nothing that somebody waits for. */
static void test_told_of_each_dispatch_that_frees_what_may_be_waited_for(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 9, 6, 0, 0);
    ps_filter filter = { TOPIC, strlen(TOPIC), heap_topic(TOPIC).hash, 0, 0 }, small = { "t", 1, heap_topic("t").hash, 0, 0 };
    ps_record record;
    assert_ok(ps__port_subscribe(&heap->port, &filter, 0, 1));
    assert_ok(ps__port_subscribe(&heap->port, &small, 0, 0));
    ps__or_rlx(&heap->port.words->waiters[0], ps__set_bit(1));
    ps__store_rlx(&heap->port.reader[1]->waiting, 1);
    for (int i = 0; i < 3; i++)
        assert_ok(put_units(heap, 2));
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_one_rings(heap), 1);
    assert_ok(ps__port_begin(&heap->port, 0));
    assert_int_equal(ps__port_next(&heap->port, &record), 0);
    ps__port_end(&heap->port, 0);
    assert_ok(heap_put(heap, "t", "", 0, NULL));
    assert_int_equal(read_one_rings(heap), 0);
    assert_ok(put_units(heap, 2));
    assert_int_equal(read_one_rings(heap), 1);
    heap_close(heap);
}

/* A claim gates its fellows, and a reader that leaves gates nobody any more: who waits for room is rung by either. */
static void test_told_of_a_commit_and_of_a_reader_that_leaves(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__port *port = &heap->port;
    ps_topic topic = heap_topic("t");
    ps_filter filter = { "t", 1, topic.hash, 0, 0 };
    ps__or_rlx(&port->words->waiters[0], ps__set_bit(1));
    assert_ok(ps__port_subscribe(port, &filter, 0, 1));
    for (unsigned i = 0; i < 3; i++) {
        ps__store_rlx(&port->reader[1]->waiting, 2 * i + 1);
        assert_int_equal(ps__port_publish(port, &topic, "x", 1, 0), 1);
        assert_int_equal(heap->rung[1][PS__BELL_SPACE], i + 1);
    }
    ps__store_rlx(&port->reader[1]->waiting, 7);
    ps__port_unsubscribe(port, &filter, 0, 1, 1);
    assert_int_equal(heap->rung[1][PS__BELL_SPACE], 4);
    heap_close(heap);
}

/* Words of a slot that no join ever had: they hold nobody up, and not in an endless loop; nor where their owner is dead. */
static void test_room_hostile_join_holds_nobody(void **state)
{
    (void)state;
    static const uint64_t words[][2] = {        /* join, join_last */
        { UINT64_MAX, 5 }, { (uint64_t)1 << 63 | 5, (uint64_t)1 << 63 | 5 }, { 5, UINT64_MAX }, { UINT64_MAX, UINT64_MAX },
    };
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        for (int dead = 0; dead < 2; dead++) {
            struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
            struct ps__port *port = &heap->port;
            ps_topic topic = heap_topic("t");
            struct ps__message m = { &topic, "x", 1, NULL };
            uint64_t stamp;
            heap->dead[1] = dead;
            ps__raise(&port->words->slots_high, 2);
            ps__store_rlx(&port->reader[1]->join, words[i][0]);
            ps__store_rlx(&port->reader[1]->join_last, words[i][1]);
            assert_ok(ps__port_ready(port));
            for (int n = 0; n < 40; n++)
                assert_ok(ps__ring_put(port, &m, &stamp));
            heap_close(heap);
        }
    }
}

/* A word that names no join of anybody evicts nobody. */
static void test_evicted_by_a_number_that_is_no_join_reads_on(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__port *port = &heap->port;
    ps_topic topic = heap_topic("t");
    ps_filter filter = { "t", 1, topic.hash, 0, 0 };
    ps_record record;
    assert_ok(ps__port_subscribe(port, &filter, 0, 1));
    assert_int_equal(ps__port_publish(port, &topic, "x", 1, 0), 1);
    ps__store_rlx(&port->own.lane->evicted[0], UINT64_MAX);
    assert_ok(ps__port_begin(port, 0));
    assert_int_equal(ps__port_next(port, &record), 1);
    ps__port_end(port, 0);
    heap_close(heap);
}

/* Whoever was evicted while the message lay in its window holds nobody back, so it gets a copy. */
static void test_borrow_of_an_evicted_reader_is_a_copy(void **state)
{
    (void)state;
    for (int evicted = 0; evicted < 2; evicted++) {
        struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
        struct ps__port *port = &heap->port;
        ps_filter filter = { TOPIC, strlen(TOPIC), heap_topic(TOPIC).hash, 0, 0 };
        ps_record record;
        assert_ok(ps__port_subscribe(port, &filter, 0, 1));
        assert_ok(put_units(heap, 2));
        assert_ok(put_units(heap, 2));
        assert_ok(ps__port_begin(port, 0));
        assert_int_equal(ps__port_next(port, &record), 1);
        heap->borrows = 1;
        if (evicted)
            ps__store_rlx(&port->own.lane->evicted[0], port->join_number);
        assert_int_equal(ps__port_next(port, &record), 1);
        assert_int_equal(port->borrowing != 0, !evicted);
        assert_int_equal(ps__load_rlx(&port->reader[0]->borrow), !evicted);
        assert_true((record.data == port->buffer) == evicted);
        ps__port_end(port, 0);
        heap_close(heap);
    }
}

/* ---------------------------------------------------------------- what a dispatch takes */

/* Whoever joins when a dispatch has begun already gets what is there then, and not what comes while it is handled. */
static void test_mark_is_that_of_who_joins_in_the_middle_too(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    ps_filter filter = { "t", 1, heap_topic("t").hash, 0, 0 };
    ps_record record;
    assert_ok(ps__port_begin(&heap->port, 1));
    assert_ok(ps__port_subscribe(&heap->port, &filter, 0, 1));
    assert_ok(heap_put(heap, "t", "", 0, NULL));
    assert_int_equal(ps__port_next(&heap->port, &record), 1);
    assert_ok(heap_put(heap, "t", "", 0, NULL));
    assert_int_equal(ps__port_next(&heap->port, &record), 0);
    ps__port_end(&heap->port, 0);
    heap_close(heap);
}

/* Who ends the last subscription when the last dispatch is over already leaves itself, for nobody else may ever come. */
static void test_leave_needs_no_dispatch_that_is_over(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 4, 6, 0, 0);
    struct ps__port *port = &heap->port;
    ps_filter filter = { "t", 1, heap_topic("t").hash, 0, 0 };
    for (int inside = 0; inside < 2; inside++) {
        assert_ok(ps__port_subscribe(port, &filter, 0, 1));
        assert_ok(ps__port_begin(port, 1));
        if (!inside)
            ps__port_end(port, 0);
        ps__port_unsubscribe(port, &filter, 0, 1, 0);
        assert_int_equal(ps__load_rlx(&port->joined), inside);
        if (inside)
            ps__port_end(port, 0);
        assert_int_equal(ps__load_rlx(&port->joined), 0);
        assert_int_equal(ps__load_rlx(&port->leave_pending), 0);
        assert_true(ps__load_rlx(&port->reader[0]->join) == 0);
    }
    heap_close(heap);
}

/* ---------------------------------------------------------------- a window that was lapped at its beginning */

/* Claims of five more have come while it was filled: the first five may be torn, the others are believed. */
static void test_window_lapped_at_its_beginning_keeps_the_younger(void **state)
{
    (void)state;
    for (unsigned unwanted = 0; unwanted <= CELLS; unwanted += CELLS) {
        struct heap_port *heap = heap_open(2, 4, 6, 0xfffffff8u, 0);
        struct ps__port *port = &heap->port;
        ps_filter filter = { "t", 1, heap_topic("t").hash, 0, 0 };
        port->lossy = 1;
        assert_ok(ps__port_subscribe(port, &filter, 0, 1));
        assert_ok(heap_lane_open(port, 0));
        for (unsigned i = 0; i < CELLS; i++)
            assert_ok(heap_put(heap, i < unwanted ? "other" : "t", &i, sizeof i, NULL));
        uint64_t tail = tail_of(heap);
        ps__store_rlx(&port->own.lane->tail, ps__pack(ps__seq(tail) + 5, ps__pos(tail)));
        assert_int_equal(ps__cells_fill(port, 0, UINT64_MAX), 1);
        assert_int_equal(port->window.count - port->window.at, unwanted ? 0 : CELLS - 5);
        assert_true(port->window.copy[port->window.at].stamp == UINT64_C(0xfffffff8) + (unwanted ? CELLS : 5) + 1);
        assert_int_equal(ps__load_rlx(&port->lost), 5);
        assert_int_equal(port->pending_lost[0], 5);
        assert_int_equal(ps__load_rlx(&port->unwanted), unwanted ? CELLS - 5 : 0);
        ps__store_rlx(&port->own.lane->tail, tail);
        heap_close(heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claim_changes_hands_while_threads_claim),
        cmocka_unit_test(test_claim_of_more_threads_than_seats),
        cmocka_unit_test(test_claim_is_not_taken_before_its_owner_is_outside),
        cmocka_unit_test(test_claim_is_shared_where_turns_are_short),
        cmocka_unit_test(test_claim_that_nobody_takes_is_its_owners_again),
        cmocka_unit_test(test_claim_goes_to_and_fro),
        cmocka_unit_test(test_claim_goes_to_and_fro_on_one_processor),
        cmocka_unit_test(test_claim_stays_owned_where_the_ring_is_full),
        cmocka_unit_test(test_units_of_each_kind_rounded_up),
        cmocka_unit_test(test_put_message_lies_in_its_cell_or_behind_it),
        cmocka_unit_test(test_put_small_message_writes_one_line),
        cmocka_unit_test(test_pad_payload_never_goes_over_the_rings_end),
        cmocka_unit_test(test_room_reader_holds_cells_one_by_one),
        cmocka_unit_test(test_room_reader_holds_units_and_padding),
        cmocka_unit_test(test_room_stops_before_an_unfinished_claim_and_blames_no_reader),
        cmocka_unit_test(test_room_stops_before_the_unfinished_claim_of_a_former_owner),
        cmocka_unit_test(test_room_walk_goes_on_where_it_ended),
        cmocka_unit_test(test_room_walk_stops_where_another_lane_goes_on),
        cmocka_unit_test(test_room_full_ring_evicts_the_impatient_and_marks_the_dead),
        cmocka_unit_test(test_room_sleeper_is_rung_once_when_half_the_ring_is_used),
        cmocka_unit_test(test_room_garbage_in_shared_words_told_and_survived),
        cmocka_unit_test(test_pass_says_whether_limit_is_beyond_a_cell),
        cmocka_unit_test(test_told_of_each_dispatch_that_frees_what_may_be_waited_for),
        cmocka_unit_test(test_told_of_a_commit_and_of_a_reader_that_leaves),
        cmocka_unit_test(test_room_hostile_join_holds_nobody),
        cmocka_unit_test(test_evicted_by_a_number_that_is_no_join_reads_on),
        cmocka_unit_test(test_borrow_of_an_evicted_reader_is_a_copy),
        cmocka_unit_test(test_mark_is_that_of_who_joins_in_the_middle_too),
        cmocka_unit_test(test_leave_needs_no_dispatch_that_is_over),
        cmocka_unit_test(test_window_lapped_at_its_beginning_keeps_the_younger),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
