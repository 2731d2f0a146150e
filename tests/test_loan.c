/* SPDX-License-Identifier: MIT */
/*
 * test_loan.c - the list of a lane's loan area: chunks are cut, given back and joined again, stay away while a reader may look
 * into them, and are found again by the lane's next owner.
 */
#include "heap_port.h"

#define AREA 4096u
#define LONG_TOPIC "a/topic/that/is/far/too/long/for/the/cell/of/a/loan/and/so/lies/in/the/payload/ring/of/the/lane"

static struct heap_port *loan_open(void)
{
    struct heap_port *heap = heap_open(2, 4, 6, UINT64_C(0xfffffffc), 0);
    ps_filter everything;
    assert_ok(ps__filter_parse("#", 0, HEAP_SEED, &everything));
    assert_ok(ps__port_subscribe(&heap->port, &everything, 0, 1));
    return heap;
}

static int lend(struct heap_port *heap, const char *text, size_t size, void **data)
{
    ps_topic topic = heap_topic(text);
    *data = NULL;
    return ps__port_loan(&heap->port, &topic, size, data, 0);
}

/* A loan that there is room for, and where in the area it lies. */
static size_t lend_at(struct heap_port *heap, size_t size, void **data)
{
    assert_ok(lend(heap, "t", size, data));
    assert_int_equal((uintptr_t)*data % PS__UNIT, 0);
    return (size_t)((unsigned char *)*data - heap->loan);
}

static void give(struct heap_port *heap, void *data) { assert_ok(ps__port_cancel(&heap->port, data)); }

/* All of the area is free, in one piece. */
static void assert_whole(struct heap_port *heap)
{
    void *all;
    assert_int_equal(lend_at(heap, AREA, &all), 0);
    give(heap, all);
}

static int read_one(struct heap_port *heap, unsigned char *data, size_t *size)
{
    ps_record record;
    assert_ok(ps__port_begin(&heap->port, 0));
    int rc = ps__port_next(&heap->port, &record);
    if (rc > 0 && data)
        memcpy(data, record.data, record.size);
    if (rc > 0 && size)
        *size = record.size;
    ps__port_end(&heap->port, 0);
    return rc;
}

/* ---------------------------------------------------------------- cut, given back, joined */

static void test_loan_chunks_are_cut_from_the_front(void **state)
{
    (void)state;
    static const struct { size_t size, bytes; } cases[] = {
        { 0, 64 }, { 1, 64 }, { 63, 64 }, { 64, 128 }, { 65, 128 }, { 127, 128 }, { 128, 192 }, { 1000, 1024 }, { 1023, 1024 },
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    struct heap_port *heap = loan_open();
    void *loan[COUNT], *more;
    size_t at = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(lend_at(heap, cases[i].size, &loan[i]), at);
        memset(loan[i], 0xee, cases[i].size);
        at += cases[i].bytes;
    }
    assert_int_equal(lend(heap, "t", AREA - at, &more), PS_EAGAIN);     /* a byte more than asked for is taken */
    assert_null(more);
    assert_int_equal(lend_at(heap, AREA - at - 1, &more), at);
    assert_int_equal(lend(heap, "t", 0, &loan[0]), PS_EAGAIN);
    assert_int_equal(lend(heap, "t", AREA + 1, &loan[0]), PS_EMSGSIZE);
    heap_close(heap);
}

static void test_loan_given_back_in_any_order_area_is_whole_again(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    unsigned order[6] = { 0, 1, 2, 3, 4, 5 };
    for (int permutation = 0; permutation < 720; permutation++) {
        void *loan[6];
        int code = permutation;
        for (unsigned i = 0; i < 6; i++)
            order[i] = i;
        for (unsigned i = 6; i > 1; i--) {              /* the permutation of that number */
            unsigned k = (unsigned)code % i, swap = order[i - 1];
            code /= (int)i;
            order[i - 1] = order[k];
            order[k] = swap;
        }
        for (unsigned i = 0; i < 6; i++)
            (void)lend_at(heap, i == 5 ? AREA - 5 * 256 - 1 : 255, &loan[i]);
        for (unsigned i = 0; i < 6; i++)
            give(heap, loan[order[i]]);
        assert_whole(heap);
    }
    heap_close(heap);
}

static void test_loan_first_gap_that_fits_is_used_and_its_rest_kept(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    void *a, *b, *c, *d, *small, *rest;
    assert_int_equal(lend_at(heap, 63, &a), 0);
    assert_int_equal(lend_at(heap, 255, &b), 64);
    assert_int_equal(lend_at(heap, 63, &c), 320);
    give(heap, b);
    assert_int_equal(lend_at(heap, 256, &d), 384);      /* too large for the gap by a byte */
    assert_int_equal(lend_at(heap, 10, &small), 64);
    assert_int_equal(lend_at(heap, 191, &rest), 128);   /* just the rest of it */
    give(heap, a);
    give(heap, small);
    assert_int_equal(lend_at(heap, 127, &a), 0);        /* two that lay side by side */
    assert_int_equal(ps__port_cancel(&heap->port, small), PS_EINVAL);   /* no loan any more, though inside one */
    heap_close(heap);
}

/* ---------------------------------------------------------------- committed */

static void test_loan_committed_chunk_is_free_when_its_reader_has_passed(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    struct ps__lane *lane = heap->port.own.lane;
    unsigned char data[AREA];
    void *loan, *other;
    size_t size;
    for (unsigned round = 0; round < 3 * 16; round++) {         /* over the ends of the list, the lane and the low word */
        uint64_t number = UINT64_C(0xfffffffc) + round;
        assert_int_equal(lend_at(heap, AREA / 2, &loan), 0);
        memset(loan, (int)round, AREA / 2);
        assert_int_equal(ps__port_commit(&heap->port, loan, AREA / 2, 0), 1);
        assert_int_equal(ps__port_commit(&heap->port, loan, 1, 0), PS_EINVAL);
        assert_int_equal(lend(heap, "t", AREA / 2, &other), PS_EAGAIN);
        assert_int_equal(ps__loans_again(&heap->port), 0);
        assert_int_equal(read_one(heap, data, &size), 1);
        assert_int_equal(size, AREA / 2);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(data[i], (unsigned char)round);
        assert_int_equal(ps__loans_again(&heap->port), 1);
        assert_true(ps__load_rlx(&lane->loan_floor) <= number);
        assert_int_equal(lend_at(heap, AREA / 2, &other), 0);
        assert_int_equal(ps__load_rlx(&lane->loan_floor), number + 1);  /* who still copies from it is warned */
        give(heap, other);
        assert_whole(heap);
    }
    heap_close(heap);
}

static void test_loan_that_nobody_wants_or_that_is_refused_is_not_in_flight(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    ps_filter everything;
    void *loan, *other;
    heap->port.evict_ms = -1;
    assert_ok(ps__filter_parse("#", 0, HEAP_SEED, &everything));
    (void)lend_at(heap, 100, &loan);
    for (unsigned i = 0; i < 16; i++)
        assert_ok(heap_put(heap, "t", "x", 1, NULL));
    assert_int_equal(ps__port_commit(&heap->port, loan, 100, 0), PS_EAGAIN);    /* the ring is full; the loan stays his */
    assert_int_equal(ps__load_rlx(&heap->port.refused), 1);
    assert_int_equal(lend_at(heap, 0, &other), 128);
    assert_int_equal(read_one(heap, NULL, NULL), 1);
    assert_int_equal(ps__port_commit(&heap->port, loan, 7, 0), 1);
    give(heap, other);
    while (read_one(heap, NULL, NULL) > 0)
        ;
    ps__port_unsubscribe(&heap->port, &everything, 0, 1, 1);
    (void)lend_at(heap, AREA, &loan);
    assert_int_equal(ps__port_commit(&heap->port, loan, 100, 0), 0);
    assert_whole(heap);
    heap_close(heap);
}

static void test_loan_long_topic_lies_in_the_payload_ring(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    void *loan;
    ps_record record;
    assert_int_equal(strlen(LONG_TOPIC) > PS__INLINE - 8, 1);
    assert_ok(lend(heap, LONG_TOPIC, 300, &loan));
    memset(loan, 'l', 300);
    assert_int_equal(ps__port_commit(&heap->port, loan, 300, 0), 1);
    assert_int_equal(ps__pos(ps__load_rlx(&heap->port.own.lane->tail)), 2);
    assert_ok(ps__port_begin(&heap->port, 0));
    assert_int_equal(ps__port_next(&heap->port, &record), 1);
    assert_string_equal(record.topic.text, LONG_TOPIC);
    assert_int_equal(record.size, 300);
    assert_int_equal(((const char *)record.data)[299], 'l');
    assert_int_equal((uintptr_t)record.data % 64, 0);
    ps__port_end(&heap->port, 0);
    heap_close(heap);
}

static void test_loan_size_checked_against_what_is_mapped(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    struct ps__geometry g = heap->geometry;
    void *loan;
    g.loans_log = 20;                                   /* what somebody wrote into the shared word */
    ps__store_rlx(&heap->port.words->geometry, ps__geometry_pack(&g));
    assert_int_equal(lend(heap, "t", AREA + 1, &loan), PS_EMSGSIZE);
    assert_int_equal(lend_at(heap, AREA, &loan), 0);
    heap_close(heap);
}

/* ---------------------------------------------------------------- words that lie */

/* Another member writes where it must not: more in flight than there are cells cannot be, and the private list stays whole. */
static void test_loan_words_that_go_back_break_no_list(void **state)
{
    (void)state;
    struct heap_port *heap = heap_open(2, 1, 6, 1000, 0);
    struct ps__lane *lane = heap->port.own.lane;
    ps_filter filter = { "t", 1, heap_topic("t").hash, 0, 0 };
    void *loan;
    heap->port.lossy = 1;
    assert_ok(ps__port_subscribe(&heap->port, &filter, 0, 1));
    for (uint64_t i = 0; i < 8; i++) {
        assert_ok(lend(heap, "t", 1, &loan));
        assert_int_equal(ps__port_commit(&heap->port, loan, 1, 0), 1);
        assert_int_equal(ps__load_rlx(&heap->port.corrupt), i < 2 ? 0 : i - 1);
        uint64_t word = ps__pack(990 - (uint32_t)i, 0);
        ps__store_rlx(&lane->limit, word);
        ps__store_rlx(&lane->tail, i < 1 ? ps__pack(991, 0) : word);
    }
    heap_close(heap);
}

/* ---------------------------------------------------------------- the next owner */

/* The owner dies with all that it knew; the lane's words stay. */
static void heir(struct heap_port *heap)
{
    ps__loans_free(heap->port.loans);
    heap->port.loans = ps__loans_new();
    assert_non_null(heap->port.loans);
    free(heap->port.lease);
    heap->port.lease = NULL;
    ps__store_rlx(&heap->port.loans_ready, 0);
}

static void test_heir_keeps_off_what_is_in_flight(void **state)
{
    (void)state;
    struct heap_port *heap = loan_open();
    unsigned char data[AREA];
    void *out[5], *got[80];
    size_t size;
    assert_ok(heap_put(heap, "t", "inline", 6, NULL));
    for (int i = 0; i < 5; i++)
        (void)lend_at(heap, 300, &out[i]);              /* 320 bytes each */
    for (int i = 1; i < 5; i += 2) {                    /* 1 and 3 are sent, the others die with their owner */
        memset(out[i], 'A' + i, 300);
        assert_int_equal(ps__port_commit(&heap->port, out[i], 300, 0), 1);
        assert_ok(heap_put(heap, "t", "inline", 6, NULL));
    }
    heir(heap);
    unsigned count = 0;
    while (count < 64 && lend(heap, "t", 63, &got[count]) == 0) {
        size_t at = (size_t)((unsigned char *)got[count] - heap->loan);
        assert_true(at + 64 <= 320 || (at >= 640 && at + 64 <= 960) || at >= 1280);
        memset(got[count++], 0, 64);
    }
    assert_int_equal(count, (AREA - 2 * 320) / 64);
    while (count > 0)
        give(heap, got[--count]);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(read_one(heap, data, &size), 1);
        if (i % 2 == 0)
            continue;
        assert_int_equal(size, 300);
        for (size_t k = 0; k < size; k++)
            assert_int_equal(data[k], 'A' + i);
    }
    assert_whole(heap);                                 /* and they come back, when limit has passed them */
    assert_int_equal(ps__load_rlx(&heap->port.corrupt), 0);
    heap_close(heap);
}

static void test_heir_makes_holes_of_loans_that_cannot_be(void **state)
{
    (void)state;
    static const struct { uint64_t offset; uint32_t size; } wrong[] = {
        { 320 + 1, 300 },               /* begins inside a unit */
        { 0, 300 },                     /* of the first one, which is good */
        { 256, 10 },                    /* its end */
        { AREA, 0 }, { AREA - 64, 64 }, { UINT64_MAX - 63, 300 }, { (uint64_t)1 << 32, 300 },
        { 64, UINT32_MAX },
    };
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        struct heap_port *heap = loan_open();
        void *loan, *after;
        size_t size;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(lend_at(heap, 300, &loan), (size_t)i * 320);
            assert_int_equal(ps__port_commit(&heap->port, loan, 300, 0), 1);
        }
        struct ps__cell *cell = heap_cell(heap, UINT64_C(0xfffffffd));
        memcpy(cell->data, &wrong[w].offset, 8);
        ps__store_rlx(&cell->size, wrong[w].size);
        heir(heap);
        assert_int_equal(lend_at(heap, 100, &after), 320);      /* the area of the damaged one is free, the first one's is not */
        assert_int_equal(ps__load_rlx(&heap->port.corrupt), 1);
        assert_int_equal(ps__load_rlx(&cell->meta), PS__KIND_HOLE);
        give(heap, after);
        assert_int_equal(read_one(heap, NULL, &size), 1);
        assert_int_equal(size, 300);
        assert_int_equal(read_one(heap, NULL, &size), 0);
        assert_whole(heap);
        heap_close(heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loan_chunks_are_cut_from_the_front),
        cmocka_unit_test(test_loan_given_back_in_any_order_area_is_whole_again),
        cmocka_unit_test(test_loan_first_gap_that_fits_is_used_and_its_rest_kept),
        cmocka_unit_test(test_loan_committed_chunk_is_free_when_its_reader_has_passed),
        cmocka_unit_test(test_loan_that_nobody_wants_or_that_is_refused_is_not_in_flight),
        cmocka_unit_test(test_loan_long_topic_lies_in_the_payload_ring),
        cmocka_unit_test(test_loan_size_checked_against_what_is_mapped),
        cmocka_unit_test(test_loan_words_that_go_back_break_no_list),
        cmocka_unit_test(test_heir_keeps_off_what_is_in_flight),
        cmocka_unit_test(test_heir_makes_holes_of_loans_that_cannot_be),
    };
    return cmocka_run_group_tests_name("loan", tests, NULL, NULL);
}
