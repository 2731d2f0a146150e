/* SPDX-License-Identifier: MIT */
/*
 * test_recover.c - what becomes of a lane whose owner died at any instruction: claims that were never committed become holes,
 * everything committed stays, and a lane that cannot be true is given up as a whole.
 */
#include "heap_port.h"

#define CELLS 16u
#define UNITS 64u

struct scene {
    struct heap_port *heap;
    uint64_t first;
    unsigned count;
    uint32_t begin, start[CELLS], end[CELLS];   /* of the payload of each message, padding before it not counted */
};

struct image { unsigned char cell[CELLS][PS__LINE], lane[sizeof(struct ps__lane)]; };

static void image_take(const struct scene *s, struct image *image)
{
    memcpy(image->cell, (const void *)s->heap->port.own.cell, sizeof image->cell);
    memcpy(image->lane, (const void *)s->heap->port.own.lane, sizeof image->lane);
}

static void image_put(const struct scene *s, const struct image *image)
{
    memcpy((void *)s->heap->port.own.cell, image->cell, sizeof image->cell);
    memcpy((void *)s->heap->port.own.lane, image->lane, sizeof image->lane);
}

static int recover(const struct scene *s) { return ps__ring_recover(&s->heap->port, &s->heap->port.own); }

/* A lane with some messages in it, of chance sizes, of which a subscribed handle has read none. */
static struct scene scene_new(unsigned count)
{
    static const uint64_t begins[] = { 0, 7, 0xfffffff8u, 0x7ffffff3u, UINT64_C(0x1fffffffa), UINT64_C(0xffffffffff0) };
    static unsigned char data[10 * PS__UNIT];
    struct scene s = { .first = begins[support_random() % 6], .begin = (uint32_t)support_random() };
    s.heap = heap_open(3, 4, 6, s.first, s.begin);
    ps_filter everything;
    assert_ok(ps__filter_parse("#", 0, HEAP_SEED, &everything));
    assert_ok(ps__port_subscribe(&s.heap->port, &everything, 0, 1));
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    while (s.count < count) {
        size_t size = support_random() % 3 ? support_random() % sizeof data : support_random() % 90;
        if (heap_put(s.heap, "topic", data, size, NULL))
            break;                      /* its units are full */
        struct ps__cell *cell = heap_cell(s.heap, s.first + s.count);
        ps__store_rlx(&s.heap->port.own.digest[(s.first + s.count) & (CELLS - 1)], UINT64_MAX);
        uint32_t meta = ps__load_rlx(&cell->meta);
        s.start[s.count] = ps__load_rlx(&cell->pos);
        s.end[s.count++] = ps__load_rlx(&cell->pos) + ps__message_units(meta & 0xff, size, meta >> 8);
    }
    assert_int_equal(ps__seq(ps__load_rlx(&s.heap->port.own.lane->limit)), (uint32_t)s.first);
    return s;
}

/* The owner got as far as the claim, and may have written anything but the stamp. */
static void uncommit(const struct scene *s, unsigned i)
{
    struct ps__cell *cell = heap_cell(s->heap, s->first + i);
    ps__store_rlx(&cell->stamp, support_random() % 2 && s->first > CELLS ? s->first + i + 1 - CELLS : 0);
    if (support_random() % 2) {
        ps__store_rlx(&cell->pos, (uint32_t)support_random());
        ps__store_rlx(&cell->size, (uint32_t)support_random());
        ps__store_rlx(&cell->meta, (uint32_t)support_random());
    }
}

/* Each hole reaches from what was before it to the next committed message; the first of several neighbours takes it all. */
static void assert_recovered(const struct scene *s, unsigned holes, const struct image *before)
{
    uint32_t pos = s->begin;
    for (unsigned i = 0; i < s->count; i++) {
        struct ps__cell *cell = heap_cell(s->heap, s->first + i);
        assert_int_equal(ps__load_rlx(&cell->stamp), s->first + i + 1);
        if (!(holes >> i & 1)) {
            assert_memory_equal(cell, before->cell[(s->first + i) & (CELLS - 1)], PS__LINE);
            pos = s->end[i];
            continue;
        }
        unsigned next = i;
        while (next < s->count && holes >> next & 1)
            next++;
        uint32_t end = next < s->count ? s->start[next] : s->end[s->count - 1];
        assert_int_equal(ps__load_rlx(&cell->meta), PS__KIND_HOLE);
        assert_int_equal(ps__load_rlx(&s->heap->port.own.digest[(s->first + i) & (CELLS - 1)]), 0);
        assert_int_equal(ps__load_rlx(&cell->pos), pos);
        assert_int_equal(ps__load_rlx(&cell->size), end - pos);
        pos = end;
    }
}

/* What the subscribed handle reads: the numbers of messages, their count. */
static unsigned read_all(const struct scene *s, uint64_t number[], unsigned most)
{
    ps_record record;
    unsigned count = 0;
    assert_ok(ps__port_begin(&s->heap->port, 0));
    for (int rc; (rc = ps__port_next(&s->heap->port, &record)) > 0;) {
        assert_true(count < most);
        for (size_t i = 0; i < record.size; i++)
            assert_int_equal(((const unsigned char *)record.data)[i], (unsigned char)i);
        number[count++] = record.sequence;
    }
    ps__port_end(&s->heap->port, 0);
    return count;
}

/* Laps of the lane, as its next owner publishes them, all of them read. */
static void assert_goes_on(const struct scene *s)
{
    static unsigned char data[200];
    uint64_t got[2], number = 0, last = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    for (unsigned i = 0; i < 4 * CELLS; i++) {
        assert_ok(heap_put(s->heap, "topic", data, (i * 53) % sizeof data, &number));
        assert_int_equal(read_all(s, got, 2), 1);
        assert_int_equal(got[0], number);
        if (i)
            assert_int_equal(number, last + 1);
        last = number;
    }
}

/* ---------------------------------------------------------------- holes */

static void test_recover_holes_of_every_pattern_are_read_over(void **state)
{
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct scene s = scene_new(1 + (unsigned)(support_random() % CELLS));
        /* few, many, none, all; the first and the last as often as those between */
        unsigned all = (1u << s.count) - 1, holes = (unsigned)support_random() & all;
        if (round % 4 == 0) holes &= (unsigned)support_random();
        if (round % 4 == 1) holes |= (unsigned)support_random() & all;
        if (round % 50 == 0) holes = round % 100 ? all : 0;
        static struct image before, after, again;
        uint64_t number[CELLS];
        image_take(&s, &before);
        for (unsigned i = 0; i < s.count; i++)
            if (holes >> i & 1)
                uncommit(&s, i);
        assert_int_equal(recover(&s), 0);
        assert_recovered(&s, holes, &before);
        image_take(&s, &after);
        assert_int_equal(recover(&s), 0);
        image_take(&s, &again);
        assert_memory_equal(&again, &after, sizeof again);

        unsigned want = 0, count = read_all(&s, number, CELLS);
        for (unsigned i = 0; i < s.count; i++) {
            if (holes >> i & 1)
                continue;
            assert_true(want < count);
            assert_int_equal(number[want++], s.first + i);
        }
        assert_int_equal(count, want);
        assert_int_equal(ps__load_rlx(&s.heap->port.lost), 0);  /* nobody was told that those were sent */
        assert_int_equal(ps__load_rlx(&s.heap->port.unwanted), s.count - want);
        assert_int_equal(ps__load_rlx(&s.heap->port.corrupt), 0);
        assert_goes_on(&s);
        heap_close(s.heap);
    }
}

static void test_recover_whose_recoverer_died_too_is_finished_by_the_next(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct scene s = scene_new(CELLS);
        unsigned holes = (unsigned)support_random() & ((1u << s.count) - 1);
        static struct image dead, done, half;
        for (unsigned i = 0; i < s.count; i++)
            if (holes >> i & 1)
                uncommit(&s, i);
        image_take(&s, &dead);
        assert_int_equal(recover(&s), 0);
        image_take(&s, &done);
        for (unsigned k = 0; k <= s.count; k++) {       /* it had got to cell k */
            image_put(&s, &dead);
            for (unsigned i = 0; i < k; i++)
                memcpy((void *)heap_cell(s.heap, s.first + i), done.cell[(s.first + i) & (CELLS - 1)], PS__LINE);
            assert_int_equal(recover(&s), 0);
            image_take(&s, &half);
            assert_memory_equal(half.cell, done.cell, sizeof half.cell);
        }
        heap_close(s.heap);
    }
}

static void test_recover_owner_died_between_limit_and_base(void **state)
{
    (void)state;
    struct scene s = scene_new(6);
    struct ps__lane *lane = s.heap->port.own.lane;
    ps__store_rlx(&s.heap->port.reader[0]->join, 0);
    ps__store_rlx(&lane->limit, ps__pack((uint32_t)(s.first + 2), s.end[1]));
    uncommit(&s, 3);
    assert_int_equal(recover(&s), 0);
    assert_int_equal(ps__load_rlx(&lane->base), s.first + 2);
    assert_int_equal(ps__load_rlx(&heap_cell(s.heap, s.first + 3)->stamp), s.first + 4);
    assert_int_equal(ps__load_rlx(&heap_cell(s.heap, s.first + 3)->meta), PS__KIND_HOLE);
    heap_close(s.heap);
}

static void test_recover_wakes_who_sleeps_before_the_hole(void **state)
{
    (void)state;
    struct scene s = scene_new(2);
    ps__store_rlx(&s.heap->port.reader[1]->armed, 3);
    ps__store_rlx(&s.heap->port.reader[2]->armed, 4);   /* awake */
    uncommit(&s, 0);
    assert_int_equal(recover(&s), 0);
    assert_int_equal(s.heap->rung[1][PS__BELL_MESSAGE], 1);
    assert_int_equal(s.heap->rung[2][PS__BELL_MESSAGE], 0);
    heap_close(s.heap);
}

/* ---------------------------------------------------------------- damage */

enum { TAIL_FAR, TAIL_BEHIND, POS_FAR, LIMIT_BEYOND_TAIL, BASE_BEYOND_LIMIT, CELL_EARLY, CELL_LATE, CELL_HUGE, DAMAGES };

static void damage(const struct scene *s, int kind)
{
    struct ps__lane *lane = s->heap->port.own.lane;
    uint64_t tail = ps__load_rlx(&lane->tail);
    struct ps__cell *cell = heap_cell(s->heap, s->first + s->count / 2);
    switch (kind) {
    case TAIL_FAR: ps__store_rlx(&lane->tail, ps__pack(ps__seq(tail) + 100, ps__pos(tail))); break;
    case TAIL_BEHIND: ps__store_rlx(&lane->tail, ps__pack(ps__seq(tail) - 100, ps__pos(tail))); break;
    case POS_FAR: ps__store_rlx(&lane->tail, ps__pack(ps__seq(tail), s->begin + UNITS + 1)); break;
    case LIMIT_BEYOND_TAIL: ps__store_rlx(&lane->limit, ps__pack(ps__seq(tail) + 1, ps__pos(tail))); break;
    case BASE_BEYOND_LIMIT: ps__store_rlx(&lane->base, s->first + 1); break;
    case CELL_EARLY: ps__store_rlx(&cell->pos, s->begin - 1); break;
    case CELL_LATE: ps__store_rlx(&heap_cell(s->heap, s->first + s->count - 1)->pos, ps__pos(tail) + 1); break;
    default:
        ps__store_rlx(&cell->meta, PS__KIND_RING | 5u << 8);
        ps__store_rlx(&cell->size, 100000);
    }
}

static void test_recover_damaged_lane_given_up_and_used_again(void **state)
{
    (void)state;
    for (int round = 0; round < 40 * DAMAGES; round++) {
        struct scene s = scene_new(3 + (unsigned)(support_random() % 8));
        struct ps__port *port = &s.heap->port;
        struct ps__lane *lane = port->own.lane;
        uint64_t number[CELLS], tail;
        heap_gate(s.heap, 2, s.first);
        if (round % DAMAGES == TAIL_BEHIND && s.first < 1000) {         /* there is nothing before it */
            heap_close(s.heap);
            continue;
        }
        damage(&s, round % DAMAGES);
        tail = ps__load_rlx(&lane->tail);
        assert_int_equal(recover(&s), 1);
        assert_int_equal(ps__load_rlx(&lane->limit), tail);
        assert_int_equal((uint32_t)ps__load_rlx(&lane->base), ps__seq(tail));
        assert_int_equal((uint32_t)ps__load_rlx(&lane->horizon), ps__seq(tail));
        for (uint32_t i = 1; i <= CELLS; i++) {
            struct ps__cell *cell = &port->own.cell[(ps__seq(tail) - i) & (CELLS - 1)];
            assert_int_equal((uint32_t)ps__load_rlx(&cell->stamp), ps__seq(tail) - i + 1);
            assert_int_equal(ps__load_rlx(&cell->meta), PS__KIND_HOLE);
            assert_int_equal(ps__load_rlx(&cell->size), 0);
        }
        for (unsigned r = 0; r < 3; r++)                /* no cursor means anything any more */
            assert_int_equal(ps__load_rlx(&lane->evicted[r]), ps__load_rlx(&port->reader[r]->join_last));
        assert_int_equal(recover(&s), 0);               /* and now it is in order */
        (void)read_all(&s, number, CELLS);              /* the reader learns of it, whatever it had copied */
        assert_int_equal(ps__load_rlx(&port->evicted), 1);
        assert_goes_on(&s);
        heap_close(s.heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recover_holes_of_every_pattern_are_read_over),
        cmocka_unit_test(test_recover_whose_recoverer_died_too_is_finished_by_the_next),
        cmocka_unit_test(test_recover_owner_died_between_limit_and_base),
        cmocka_unit_test(test_recover_wakes_who_sleeps_before_the_hole),
        cmocka_unit_test(test_recover_damaged_lane_given_up_and_used_again),
    };
    return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
