/* SPDX-License-Identifier: MIT */
/*
 * test_hash.c - the topic hash: fixed values, because processes that share a bus must agree on them; the arithmetic for
 * compilers without 128-bit integers beside the usual one; and what makes it a good hash.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <stdio.h>
#include <stdlib.h>

/* The same file once more, under other names and without 128-bit integers. */
#undef __SIZEOF_INT128__
#define ps__hash         portable_hash
#define ps__prefix_hash  portable_prefix_hash
#define ps__topic_length portable_topic_length
#define ps__topic_parse  portable_topic_parse
#define ps__topic_refuse portable_topic_refuse
#define ps__filter_parse portable_filter_parse
#define ps__topic_prefix portable_topic_prefix
#define ps__match        portable_match
#define ps__match_levels portable_match_levels
#define ps__topic_prefix_hash portable_topic_prefix_hash
#define ps_topic_valid   portable_topic_valid
#define ps_filter_valid  portable_filter_valid
#define ps_topic_match   portable_topic_match
#define ps_topic_escape  portable_topic_escape
size_t portable_topic_prefix(const char *topic, size_t len, int depth);
#include "../lib/base/topic.c"
#undef ps__hash
#undef ps__prefix_hash

#define USERS 100000

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_hash_known_texts_known_values(void **state)
{
    (void)state;
    static const struct { const char *text; uint64_t seed, hash; } cases[] = {
        { "", UINT64_C(0x0), UINT64_C(0x4e06c34230537fa5) },
        { "a", UINT64_C(0x0), UINT64_C(0x36236d329dcf7817) },
        { "ab", UINT64_C(0x1), UINT64_C(0xe916304f7ec2534e) },
        { "abc", UINT64_C(0x1234567890abcdef), UINT64_C(0x74894c1d1ad2db10) },
        { "abcd", UINT64_C(0x0), UINT64_C(0x78ab346cd5ebaf71) },
        { "user:42", UINT64_C(0x7), UINT64_C(0x55ca09470a21214e) },
        { "user:1001", UINT64_C(0xffffffffffffffff), UINT64_C(0x0dabf61edf4afc3e) },
        { "sensors/kitchen/", UINT64_C(0x2), UINT64_C(0xa15f2d206cfc2382) },
        { "sensors/kitchen/t", UINT64_C(0x2), UINT64_C(0xe96681ef4b4df40d) },
        { "\xc3\xbf", UINT64_C(0x3), UINT64_C(0x5dedb54bc4c2b43b) },
    };
    char longest[255];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (ps__hash(cases[i].text, strlen(cases[i].text), cases[i].seed) != cases[i].hash)
            fail_msg("%s", cases[i].text);
    memset(longest, 'x', sizeof longest);
    assert_true(ps__hash(longest, sizeof longest, UINT64_C(1) << 63) == UINT64_C(0x334eb9f1a13bee23));
}

static void test_hash_without_wide_integers_same_values(void **state)
{
    (void)state;
    char text[PS_TOPIC_MAX];
    for (size_t len = 0; len <= sizeof text; len++)
        for (int round = 0; round < 20; round++) {
            uint64_t seed = support_random();
            for (size_t i = 0; i < len; i++)
                text[i] = (char)support_random();
            assert_true(ps__hash(text, len, seed) == portable_hash(text, len, seed));
            assert_true(ps__prefix_hash(text, len, round, seed) == portable_prefix_hash(text, len, round, seed));
        }
}

static void test_hash_alignment_without_influence(void **state)
{
    (void)state;
    char text[PS_TOPIC_MAX], moved[PS_TOPIC_MAX + 16];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('!' + i % 90);
    for (size_t len = 0; len <= sizeof text; len++)
        for (size_t shift = 0; shift < 16; shift++) {
            memset(moved, (int)(shift * 7), sizeof moved);      /* what lies around must not matter either */
            memcpy(moved + shift, text, len);
            assert_true(ps__hash(moved + shift, len, 3) == ps__hash(text, len, 3));
        }
}

static void test_hash_seed_length_and_depth_matter(void **state)
{
    (void)state;
    char text[64] = { 0 };
    uint64_t seen[64 * 12];
    size_t n = 0;
    for (size_t len = 0; len < sizeof text; len++) {            /* equal bytes, different lengths */
        seen[n++] = ps__hash(text, len, 1);
        seen[n++] = ps__hash(text, len, 2);
        for (int depth = 0; depth <= 8; depth++)
            seen[n++] = ps__prefix_hash(text, len, depth, 1);
    }
    qsort(seen, n, sizeof seen[0], compare);
    for (size_t i = 1; i < n; i++)
        assert_true(seen[i] != seen[i - 1]);
}

static void test_hash_hundred_thousand_users_all_different(void **state)
{
    (void)state;
    uint64_t *seen = malloc(USERS * sizeof *seen);
    uint32_t buckets[256] = { 0 }, high[256] = { 0 };
    assert_non_null(seen);
    for (int i = 0; i < USERS; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "user:%d", i);
        seen[i] = ps__hash(text, (size_t)len, 42);
        buckets[seen[i] & 255]++;
        high[seen[i] >> 56]++;
    }
    qsort(seen, USERS, sizeof *seen, compare);
    for (int i = 1; i < USERS; i++)
        assert_true(seen[i] != seen[i - 1]);
    /* 390 are due in each bucket, with a deviation of 20. */
    for (int i = 0; i < 256; i++)
        assert_true(buckets[i] > 270 && buckets[i] < 510 && high[i] > 270 && high[i] < 510);
    free(seen);
}

static void test_hash_one_bit_changes_half_the_result(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 40; len++) {
        unsigned changed = 0, rounds = 0;
        for (size_t bit = 0; bit < len * 8; bit++)
            for (int round = 0; round < 16; round++, rounds++) {
                char text[40];
                uint64_t seed = support_random();
                for (size_t i = 0; i < len; i++)
                    text[i] = (char)support_random();
                uint64_t before = ps__hash(text, len, seed);
                text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
                changed += (unsigned)__builtin_popcountll(before ^ ps__hash(text, len, seed));
            }
        double mean = (double)changed / rounds;
        if (mean < 30 || mean > 34)
            fail_msg("length %zu: %.2f of 64 bits", len, mean);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_known_texts_known_values),
        cmocka_unit_test(test_hash_without_wide_integers_same_values),
        cmocka_unit_test(test_hash_alignment_without_influence),
        cmocka_unit_test(test_hash_seed_length_and_depth_matter),
        cmocka_unit_test(test_hash_hundred_thousand_users_all_different),
        cmocka_unit_test(test_hash_one_bit_changes_half_the_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
