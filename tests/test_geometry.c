/* SPDX-License-Identifier: MIT */
/*
 * test_geometry.c - how many cells and bytes a lane gets: rounding, limits, and how wishes of several openers come together.
 */
#include "../lib/ring/ring.h"

#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

static ps_url wish(uint64_t depth, uint64_t bytes, uint64_t loans)
{
    return (ps_url){ .size = sizeof(ps_url), .depth = depth, .bytes = bytes, .loans = loans };
}

static struct ps__geometry wanted(uint64_t depth, uint64_t bytes, uint64_t loans)
{
    ps_url url = wish(depth, bytes, loans);
    struct ps__geometry g;
    assert_ok(ps__geometry_wanted(&url, &g));
    return g;
}

static struct ps__geometry now(struct ps__words *words)
{
    struct ps__geometry g;
    assert_ok(ps__geometry_unpack(ps__load_rlx(&words->geometry), &g));
    return g;
}

#define assert_sizes(g, depth, bytes, loans) do { struct ps__geometry g_ = (g); \
    assert_int_equal(ps__cells_size(&g_), (uint64_t)(depth) * PS__LINE); \
    assert_int_equal(ps__payload_size(&g_), (bytes)); \
    assert_int_equal(ps__loans_size(&g_), (loans)); } while (0)

/* ---------------------------------------------------------------- what a URL comes to */

static void test_wanted_nothing_named_gives_defaults(void **state)
{
    (void)state;
    struct ps__geometry g = wanted(0, 0, 0);
    assert_sizes(g, 8192, 2u << 20, 2u << 20);
    assert_int_equal(g.named, 0);
    assert_int_equal(g.fixed, 0);
    assert_int_equal(ps__message_max(ps__payload_size(&g)), 512u << 10);
}

static void test_wanted_sizes_rounded_up_to_powers_of_two(void **state)
{
    (void)state;
    static const struct { uint64_t depth, cells, bytes, payload, loans, area; } cases[] = {
        { 2, 2, 1, 4096, 1, 4096 },
        { 3, 4, 4095, 4096, 4096, 4096 },
        { 4, 4, 4097, 8192, 4097, 8192 },
        { 5, 8, 8191, 8192, 8193, 16384 },
        { 8192, 8192, (1u << 20) + 1, 2u << 20, 3u << 20, 4u << 20 },
        { 8193, 16384, 1u << 20, 1u << 20, (uint64_t)5 << 30, (uint64_t)8 << 30 },
        { 1u << 20, 1u << 20, 512u << 10, 512u << 10, (uint64_t)128 << 30, (uint64_t)128 << 30 },
        { 4, 4, ((uint64_t)64 << 30) + 1, (uint64_t)128 << 30, 1, 4096 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ps__geometry g = wanted(cases[i].depth, cases[i].bytes, cases[i].loans);
        assert_sizes(g, cases[i].cells, cases[i].payload, cases[i].area);
        assert_int_equal(g.named, 7);
    }
    assert_sizes(wanted(0, 64u << 10, 0), 8192, 64u << 10, 64u << 10);  /* loans like bytes */
    assert_int_equal(wanted(0, 4096, 0).named, 2);
    assert_int_equal(wanted(2, 0, 4096).named, 5);
}

static void test_wanted_more_than_can_be_numbered_names_both(void **state)
{
    (void)state;
    /* A ring of messages may not take more than 2^32 units with all its padding: depth times a quarter of the ring, roughly. */
    for (unsigned depth_log = 1; depth_log <= 20; depth_log++) {
        unsigned units_log = 33 - depth_log > 31 ? 31 : 33 - depth_log;
        ps_url url = wish((uint64_t)1 << depth_log, (uint64_t)PS__UNIT << units_log, 0);
        struct ps__geometry g;
        char depth[40], bytes[40];
        assert_ok(ps__geometry_wanted(&url, &g));
        if (units_log == 31)
            continue;
        url.bytes++;
        assert_int_equal(ps__geometry_wanted(&url, &g), PS_EINVAL);
        snprintf(depth, sizeof depth, "depth=%llu ", 1ull << depth_log);
        snprintf(bytes, sizeof bytes, "bytes=%llu:", (unsigned long long)PS__UNIT << (units_log + 1));
        assert_non_null(strstr(ps_errmsg(), depth));
        assert_non_null(strstr(ps_errmsg(), bytes));
    }
}

static void test_message_max_quarter_of_the_ring_and_below_4_gib(void **state)
{
    (void)state;
    struct ps__geometry g = wanted(2, 4096, 0);
    assert_int_equal(ps__message_max(ps__payload_size(&g)), 1024);
    g = wanted(2, (uint64_t)8 << 30, 0);
    assert_int_equal(ps__message_max(ps__payload_size(&g)), (uint64_t)2 << 30);
    g = wanted(2, (uint64_t)16 << 30, 0);
    assert_int_equal(ps__message_max(ps__payload_size(&g)), (uint64_t)UINT32_MAX - 65535);
    g = wanted(2, (uint64_t)128 << 30, 0);
    assert_int_equal(ps__message_max(ps__payload_size(&g)), (uint64_t)UINT32_MAX - 65535);
}

/* ---------------------------------------------------------------- the packed word */

static void test_word_packed_and_unpacked_is_the_same(void **state)
{
    (void)state;
    for (unsigned depth = 1; depth <= 20; depth++)
        for (unsigned units = 6; units <= 31; units++) {
            struct ps__geometry g = { depth, units, 6 + (depth + units) % 26, (depth ^ units) & 7, (int)(units & 1) }, back;
            int err = ps__geometry_unpack(ps__geometry_pack(&g), &back);
            assert_int_equal(err, depth + units > 33 ? PS_ECORRUPT : 0);
            assert_memory_equal(&back, &g, sizeof g);
        }
}

static void test_word_out_of_range_is_corrupt(void **state)
{
    (void)state;
    static const struct ps__geometry cases[] = {
        { 0, 6, 6, 0, 0 }, { 21, 6, 6, 0, 0 }, { 255, 6, 6, 0, 0 }, { 1, 5, 6, 0, 0 }, { 1, 32, 6, 0, 0 }, { 1, 0, 6, 0, 0 },
        { 1, 6, 5, 0, 0 }, { 1, 6, 32, 0, 0 }, { 1, 6, 0, 0, 0 }, { 20, 14, 6, 0, 1 }, { 3, 31, 6, 0, 0 }, { 1, 255, 255, 0, 0 },
    };
    struct ps__geometry g = wanted(0, 0, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(ps__geometry_unpack(ps__geometry_pack(&cases[i]), &g), PS_ECORRUPT);
    assert_int_equal(ps__geometry_unpack(0, &g), PS_ECORRUPT);  /* never written */
    g = wanted(0, 0, 0);
    uint64_t word = ps__geometry_pack(&g) & ~((uint64_t)1 << 33);
    assert_int_equal(ps__geometry_unpack(word, &g), PS_ECORRUPT);
    assert_non_null(strstr(ps_errmsg(), "damaged"));
    for (int i = 0; i < 100000; i++) {
        if (ps__geometry_unpack(support_random() & support_random() & support_random(), &g) == 0) {
            assert_in_range(g.depth_log, 1, 20);
            assert_in_range(g.units_log, 6, 31);
            assert_in_range(g.loans_log, 6, 31);
        }
    }
}

/* ---------------------------------------------------------------- several openers */

static int propose(struct ps__words *words, uint64_t depth, uint64_t bytes, uint64_t loans)
{
    struct ps__geometry g = wanted(depth, bytes, loans);
    return ps__geometry_propose(words, &g);
}

static void words_begin(struct ps__words *words, uint64_t depth, uint64_t bytes, uint64_t loans)
{
    struct ps__geometry g = wanted(depth, bytes, loans);
    memset(words, 0, sizeof *words);
    ps__store_rlx(&words->geometry, ps__geometry_pack(&g));
}

static void test_propose_before_it_is_fixed_the_named_and_larger_counts(void **state)
{
    (void)state;
    static struct ps__words words;
    words_begin(&words, 0, 0, 0);
    assert_ok(propose(&words, 0, 0, 0));
    assert_sizes(now(&words), 8192, 2u << 20, 2u << 20);
    assert_ok(propose(&words, 16, 0, 0));               /* named, so the default is no claim */
    assert_sizes(now(&words), 16, 2u << 20, 2u << 20);
    assert_ok(propose(&words, 0, 0, 0));
    assert_ok(propose(&words, 4, 0, 0));                /* who asks for less is served by more */
    assert_sizes(now(&words), 16, 2u << 20, 2u << 20);
    assert_ok(propose(&words, 33, 64u << 10, 0));
    assert_sizes(now(&words), 64, 64u << 10, 64u << 10);        /* loans go with bytes */
    assert_ok(propose(&words, 0, 0, 8192));
    assert_sizes(now(&words), 64, 64u << 10, 8192);
    assert_ok(propose(&words, 0, 128u << 10, 0));       /* and no longer, once somebody has named them */
    assert_sizes(now(&words), 64, 128u << 10, 8192);
    assert_int_equal(now(&words).named, 7);
    assert_int_equal(now(&words).fixed, 0);
}

static void test_propose_two_wishes_too_much_together_refused(void **state)
{
    (void)state;
    static struct ps__words words;
    words_begin(&words, 1u << 20, 4096, 0);
    assert_ok(propose(&words, 0, 512u << 10, 0));       /* the most that so many messages can share */
    assert_int_equal(propose(&words, 0, 1u << 20, 0), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "depth=1048576 "));
    assert_non_null(strstr(ps_errmsg(), "bytes=1048576,"));
    assert_sizes(now(&words), 1u << 20, 512u << 10, 512u << 10);        /* the refused wish has left no trace */
}

static void test_propose_after_it_is_fixed_more_is_refused_with_both_numbers(void **state)
{
    (void)state;
    static struct ps__words words;
    struct ps__geometry g;
    words_begin(&words, 64, 64u << 10, 8192);
    assert_ok(ps__geometry_fix(&words, &g));
    assert_int_equal(g.fixed, 1);
    uint64_t word = ps__load_rlx(&words.geometry);
    assert_ok(propose(&words, 0, 0, 0));
    assert_ok(propose(&words, 64, 64u << 10, 8192));
    assert_ok(propose(&words, 2, 4096, 4096));
    assert_int_equal(propose(&words, 65, 0, 0), PS_EGEOMETRY);
    assert_string_equal(ps_errmsg(), "depth=128 was asked for, the bus has 64");
    assert_int_equal(propose(&words, 0, 65537, 0), PS_EGEOMETRY);
    assert_string_equal(ps_errmsg(), "bytes=131072 was asked for, the bus has 65536");
    assert_int_equal(propose(&words, 64, 64u << 10, 8193), PS_EGEOMETRY);
    assert_string_equal(ps_errmsg(), "loans=16384 was asked for, the bus has 8192");
    assert_int_equal(ps__load_rlx(&words.geometry), word);
    assert_ok(ps__geometry_fix(&words, &g));            /* again: the same */
    assert_int_equal(ps__load_rlx(&words.geometry), word);
    assert_sizes(g, 64, 64u << 10, 8192);
}

static void test_propose_and_fix_on_a_damaged_word_change_nothing(void **state)
{
    (void)state;
    static struct ps__words words;
    struct ps__geometry g;
    memset(&words, 0, sizeof words);
    ps__store_rlx(&words.geometry, UINT64_C(0x2ffffffff));
    assert_int_equal(propose(&words, 64, 0, 0), PS_ECORRUPT);
    assert_int_equal(ps__geometry_fix(&words, &g), PS_ECORRUPT);
    assert_int_equal(ps__load_rlx(&words.geometry), UINT64_C(0x2ffffffff));
}

#define ROUNDS 50000

struct opener {
    struct ps__words words;
    struct ps__geometry wish;
    _Atomic uint32_t round, done;       /* raised when the words are ready for it, and when the wish is made */
    int code;
};

/* Both sides look as fast as they can, so that they meet; but they may have one processor together. */
static void await(_Atomic uint32_t *word, uint32_t value)
{
    for (unsigned looks = 1; *word < value; looks++)
        if (looks % 2000 == 0)
            sched_yield();
}

static void *opener_thread(void *arg)
{
    struct opener *o = arg;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        await(&o->round, round);
        int err = ps__geometry_propose(&o->words, &o->wish);
        if (err)
            o->code = err;
        o->done = round;
    }
    return NULL;
}

/* Two name different things at the same moment: both must stand there afterwards. */
static void test_propose_by_two_at_once_no_wish_is_lost(void **state)
{
    (void)state;
    static struct opener other;
    struct ps__geometry own = wanted(64, 0, 8192);
    pthread_t thread;
    unsigned lost = 0;
    int code = 0;
    other.wish = wanted(0, 64u << 10, 0);
    words_begin(&other.words, 0, 0, 0);
    uint64_t fresh = ps__load_rlx(&other.words.geometry);
    assert_int_equal(pthread_create(&thread, NULL, opener_thread, &other), 0);
    for (uint32_t r = 1; r <= ROUNDS; r++) {
        struct ps__geometry g = { 0 };
        ps__store_rlx(&other.words.geometry, fresh);
        other.round = r;
        for (uint32_t wait = 0; wait < r % 32; wait++)  /* it takes the other a moment to see that */
            ps__fence_sc();
        int err = ps__geometry_propose(&other.words, &own);
        if (err)
            code = err;
        await(&other.done, r);
        lost += ps__geometry_unpack(ps__load_rlx(&other.words.geometry), &g) || g.depth_log != 6 || g.units_log != 10 ||
                g.loans_log != 7 || g.named != 7;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(code, 0);
    assert_int_equal(other.code, 0);
    assert_int_equal(lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wanted_nothing_named_gives_defaults),
        cmocka_unit_test(test_wanted_sizes_rounded_up_to_powers_of_two),
        cmocka_unit_test(test_wanted_more_than_can_be_numbered_names_both),
        cmocka_unit_test(test_message_max_quarter_of_the_ring_and_below_4_gib),
        cmocka_unit_test(test_word_packed_and_unpacked_is_the_same),
        cmocka_unit_test(test_word_out_of_range_is_corrupt),
        cmocka_unit_test(test_propose_before_it_is_fixed_the_named_and_larger_counts),
        cmocka_unit_test(test_propose_two_wishes_too_much_together_refused),
        cmocka_unit_test(test_propose_after_it_is_fixed_more_is_refused_with_both_numbers),
        cmocka_unit_test(test_propose_and_fix_on_a_damaged_word_change_nothing),
        cmocka_unit_test(test_propose_by_two_at_once_no_wish_is_lost),
    };
    return cmocka_run_group_tests_name("geometry", tests, NULL, NULL);
}
