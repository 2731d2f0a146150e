/* SPDX-License-Identifier: MIT */
/*
 * test_topic.c - names, filters, matching and hashes: the tables of MQTT 3.1.1 section 4.7, every byte in every place, and
 * the matcher beside a naive one over all short texts of a small alphabet.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL 5                                 /* longest text of the exhaustive tests */

/* ------------------------------------------------------------------ legal names */

static void test_topic_ordinary_names_valid(void **state)
{
    (void)state;
    static const char *const names[] = { "a", "/", "//", "/a", "a/", "a//b", "..", "../../etc", "user:1001", "$SYS/x", "a*b",
                                         "\xc3\xa4\xff\x80", "!", "~", "\"", "$", "*", "a$", "Accounts\\payable", "a'b;c" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!ps_topic_valid(names[i]))
            fail_msg("%s", names[i]);
        assert_int_equal(ps__topic_length(names[i]), strlen(names[i]));
    }
}

static void test_topic_every_byte_everywhere_judged_alike(void **state)
{
    (void)state;
    char text[48];
    for (size_t len = 1; len <= 40; len++)
        for (size_t at = 0; at < len; at++)
            for (int c = 1; c < 256; c++) {
                /* Neighbours from both ends of the legal range, so that a carry between bytes would show. */
                memset(text, len % 3 == 0 ? '!' : len % 3 == 1 ? '~' : 0xff, len);
                text[len] = '\0';
                text[at] = (char)c;
                int legal = c > 0x20 && c != 0x7f && c != '+' && c != '#';
                if (ps_topic_valid(text) != legal)
                    fail_msg("byte %d at %zu of %zu", c, at, len);
            }
}

static void test_topic_length_limits_kept(void **state)
{
    (void)state;
    char text[10001];
    ps_topic topic;
    ps_filter filter;
    memset(text, '/', sizeof text);
    text[10000] = '\0';                         /* ten thousand separators */
    assert_false(ps_topic_valid(text));
    assert_false(ps_filter_valid(text));
    assert_int_equal(ps__topic_parse(text, 0, &topic), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "longer than 255"));
    assert_int_equal(ps__filter_parse(text, 1, 0, &filter), PS_EINVAL);
    text[256] = '\0';
    assert_false(ps_topic_valid(text));
    assert_false(ps_filter_valid(text));
    text[255] = '\0';
    assert_true(ps_topic_valid(text));
    assert_true(ps_filter_valid(text));
    assert_ok(ps__topic_parse(text, 0, &topic));
    assert_int_equal(topic.len, 255);
    assert_false(ps_topic_valid(""));
    assert_false(ps_topic_valid(NULL));
    assert_false(ps_filter_valid(""));
    assert_false(ps_filter_valid(NULL));
}

static void test_topic_parse_illegal_explained(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "", "empty" }, { "a b", "byte 2" }, { "sensor/+", "wildcard" }, { "a#", "wildcard" }, { "a\n", "control" },
        { "0123456789 ", "byte 11" },
    };
    ps_topic topic;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(ps__topic_parse(cases[i][0], 0, &topic), PS_EINVAL);
        if (!strstr(ps_errmsg(), cases[i][1]))
            fail_msg("\"%s\": %s", cases[i][0], ps_errmsg());
    }
    assert_int_equal(ps__topic_parse(NULL, 0, &topic), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "NULL"));
}

static void test_topic_at_end_of_page_not_overread(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    memset(pages, 'x', page);
    pages[page - 1] = '\0';
    for (size_t len = 1; len <= PS_TOPIC_MAX; len++) {
        const char *text = pages + page - 1 - len;
        ps_topic topic;
        ps_filter filter;
        assert_int_equal(ps__topic_parse(text, 1, &topic), 0);
        assert_int_equal(ps__filter_parse(text, 0, 1, &filter), 0);
        assert_true(ps_topic_match(text, text));
        assert_true(topic.hash == filter.hash);
    }
    munmap(pages, 2 * page);
}

/* ------------------------------------------------------------------ filters */

static void test_filter_table_judged(void **state)
{
    (void)state;
    static const struct { const char *text; int wild, exact; } cases[] = {
        /* MQTT 3.1.1, 4.7.1.2 and 4.7.1.3 */
        { "sport/tennis/player1/#", 1, 0 }, { "sport/#", 1, 0 }, { "#", 1, 0 }, { "sport/tennis/#", 1, 0 },
        { "sport/tennis#", 0, 0 }, { "sport/tennis/#/ranking", 0, 0 }, { "+", 1, 0 }, { "+/tennis/#", 1, 0 },
        { "sport+", 0, 0 }, { "sport/+/player1", 1, 0 }, { "/finance", 1, 1 }, { "+/+", 1, 0 }, { "/+", 1, 0 },
        { "+/", 1, 0 }, { "+//+", 1, 0 }, { "/#", 1, 0 }, { "//#", 1, 0 }, { "$SYS/#", 1, 0 }, { "$SYS/+", 1, 0 },
        { "a", 1, 1 }, { "/", 1, 1 }, { "a//b", 1, 1 }, { "+a", 0, 0 }, { "a/+b/c", 0, 0 }, { "++", 0, 0 }, { "##", 0, 0 },
        { "#/", 0, 0 }, { "#/#", 0, 0 }, { "+#", 0, 0 }, { "#+", 0, 0 }, { "a/#b", 0, 0 }, { "a /b", 0, 0 }, { "a\tb", 0, 0 },
        { "a\x7f", 0, 0 }, { "*", 0, 1 }, { "a/*", 0, 1 }, { "*a*a*a*a*", 0, 1 }, { "\xff/+", 1, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ps_filter filter;
        const char *text = cases[i].text;
        if (ps_filter_valid(text) != cases[i].wild || (ps__filter_parse(text, 0, 0, &filter) == 0) != cases[i].wild ||
            (ps__filter_parse(text, 1, 0, &filter) == 0) != cases[i].exact)
            fail_msg("%s", text);
    }
}

static void test_filter_star_refused_with_hint(void **state)
{
    (void)state;
    ps_filter filter;
    assert_int_equal(ps__filter_parse("user/*", 0, 0, &filter), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "wildcards are + and #"));
    assert_int_equal(ps__filter_parse("user/+x", 0, 0, &filter), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "fill its level"));
    assert_int_equal(ps__filter_parse("#/x", 0, 0, &filter), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "last level"));
    assert_int_equal(ps__filter_parse(NULL, 0, 0, &filter), PS_EINVAL);
}

static void test_filter_parse_fills_depth_and_hash(void **state)
{
    (void)state;
    static const struct { const char *text; int depth; const char *prefix; } cases[] = {
        { "#", 0, "" }, { "+/a", 0, "" }, { "/+", 1, "" }, { "a/#", 1, "a" }, { "a/+/c/#", 1, "a" }, { "a/b/+", 2, "a/b" },
        { "//+", 2, "/" }, { "1/2/3/4/5/6/7/8/#", 8, "1/2/3/4/5/6/7/8" }, { "1/2/3/4/5/6/7/8/9/+", 8, "1/2/3/4/5/6/7/8" },
    };
    ps_filter filter;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(ps__filter_parse(cases[i].text, 0, 99, &filter));
        assert_int_equal(filter.wild, 1);
        assert_int_equal(filter.depth, cases[i].depth);
        assert_true(filter.hash == ps__prefix_hash(cases[i].prefix, strlen(cases[i].prefix), cases[i].depth, 99));
    }
    assert_ok(ps__filter_parse("a/b", 0, 99, &filter));
    assert_int_equal(filter.wild, 0);
    assert_int_equal(filter.depth, 0);
    assert_true(filter.hash == ps__hash("a/b", 3, 99));
}

/* Whatever a wildcard filter lets through has the filter's prefix: publishers find it by that. */
static void test_filter_prefix_found_in_every_match(void **state)
{
    (void)state;
    static const char *const filters[] = { "#", "+", "+/#", "a/#", "a/+", "/#", "/+", "//#", "a/b/+/#", "a//+",
                                           "1/2/3/4/5/6/7/8/9/#" };
    static const char *const topics[] = { "a", "/", "//", "a/", "a/b", "a/b/c", "a/b/c/d", "/x", "a//", "b",
                                          "1/2/3/4/5/6/7/8/9" };
    int matches = 0;
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
        for (size_t j = 0; j < sizeof topics / sizeof topics[0]; j++) {
            ps_filter filter;
            size_t len = strlen(topics[j]);
            assert_ok(ps__filter_parse(filters[i], 0, 5, &filter));
            if (!ps_topic_match(filters[i], topics[j]))
                continue;
            size_t prefix = ps__topic_prefix(topics[j], len, filter.depth);
            assert_true(prefix != (size_t)-1);
            assert_true(ps__prefix_hash(topics[j], prefix, filter.depth, 5) == filter.hash);
            matches++;
        }
    assert_true(matches > 30);
}

static void test_topic_prefix_levels_counted(void **state)
{
    (void)state;
    static const struct { const char *topic; int depth; long end; } cases[] = {
        { "a/b/c", 0, 0 }, { "a/b/c", 1, 1 }, { "a/b/c", 2, 3 }, { "a/b/c", 3, 5 }, { "a/b/c", 4, -1 }, { "/", 1, 0 },
        { "/", 2, 1 }, { "/", 3, -1 }, { "a", 1, 1 }, { "a", 2, -1 }, { "a//b", 2, 2 }, { "a//b", 3, 4 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_true(ps__topic_prefix(cases[i].topic, strlen(cases[i].topic), cases[i].depth) == (size_t)cases[i].end);
}

/* ------------------------------------------------------------------ matching */

static void test_match_mqtt_table_agrees(void **state)
{
    (void)state;
    static const struct { const char *filter, *topic; int match; } cases[] = {
        { "sport/tennis/player1/#", "sport/tennis/player1", 1 }, { "sport/tennis/player1/#", "sport/tennis/player1/ranking", 1 },
        { "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", 1 }, { "sport/#", "sport", 1 },
        { "sport/tennis/+", "sport/tennis/player1", 1 }, { "sport/tennis/+", "sport/tennis/player1/ranking", 0 },
        { "sport/+", "sport", 0 }, { "sport/+", "sport/", 1 }, { "+/+", "/finance", 1 }, { "/+", "/finance", 1 },
        { "+", "/finance", 0 }, { "#", "$SYS/x", 0 }, { "+/monitor/Clients", "$SYS/monitor/Clients", 0 },
        { "$SYS/#", "$SYS/x", 1 }, { "$SYS/monitor/+", "$SYS/monitor/Clients", 1 }, { "ACCOUNTS", "Accounts", 0 },
        { "/finance", "finance", 0 }, { "a//b", "a/b", 0 }, { "a/+/b", "a//b", 1 }, { "#", "a/b/c", 1 }, { "#", "/", 1 },
        { "sport/#", "sports", 0 }, { "a/b", "a/b/", 0 }, { "+/#", "a", 1 }, { "a/$b/+", "a/$b/c", 1 }, { "a/+", "a/$b", 1 },
        { "a*", "ab", 0 }, { "a*", "a*", 0 }, { "a", "a+", 0 }, { "a", "", 0 }, { "", "a", 0 }, { NULL, "a", 0 }, { "a", NULL, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (ps_topic_match(cases[i].filter, cases[i].topic) != cases[i].match)
            fail_msg("%s | %s", cases[i].filter, cases[i].topic);
}

/* Level by level and recursive, straight from the rules; texts after the last level are NULL. */
static int naive_levels(const char *filter, const char *topic)
{
    if (!filter)
        return !topic;
    if (strcmp(filter, "#") == 0)
        return 1;
    if (!topic)
        return 0;
    size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");
    if (!(f == 1 && filter[0] == '+') && (f != t || strncmp(filter, topic, f) != 0))
        return 0;
    return naive_levels(filter[f] ? filter + f + 1 : NULL, topic[t] ? topic + t + 1 : NULL);
}

static int naive_filter_legal(const char *filter)
{
    for (const char *level = filter; level;) {
        size_t len = strcspn(level, "/");
        if (len > 1 && (memchr(level, '+', len) || memchr(level, '#', len)))
            return 0;
        if (level[0] == '#' && level[len])
            return 0;
        level = level[len] ? level + len + 1 : NULL;
    }
    return filter[0] != '\0';
}

static void small_text(unsigned number, char *text)
{
    for (; number > 0; number = (number - 1) / 5)
        *text++ = "a/+#$"[(number - 1) % 5];
    *text = '\0';
}

static void test_match_all_short_texts_as_naive_matcher(void **state)
{
    (void)state;
    unsigned count = 0, matches = 0, legal = 0;
    for (unsigned power = 1, i = 0; i <= SMALL; i++, power *= 5)
        count += power;
    for (unsigned i = 0; i < count; i++) {
        char filter[SMALL + 1], topic[SMALL + 1];
        small_text(i, filter);
        if (ps_filter_valid(filter) != naive_filter_legal(filter))
            fail_msg("%s", filter);
        if (!naive_filter_legal(filter))
            continue;
        legal++;
        for (unsigned j = 1; j < count; j++) {
            small_text(j, topic);
            if (strpbrk(topic, "+#"))
                continue;
            int expected = naive_levels(filter, topic) && !(topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'));
            if (ps__match(filter, strlen(filter), topic, strlen(topic)) != expected)
                fail_msg("%s | %s", filter, topic);
            matches += (unsigned)expected;
        }
    }
    /* Counted by another program: the loops above were not empty. */
    assert_int_equal(legal, 547);
    assert_int_equal(matches, 2967);
}

static void test_match_pathological_pattern_linear(void **state)
{
    (void)state;
    char filter[PS_TOPIC_MAX + 1], topic[PS_TOPIC_MAX + 1];
    for (size_t i = 0; i < PS_TOPIC_MAX; i++) {
        filter[i] = i % 2 == 0 ? '+' : '/';
        topic[i] = i % 2 == 0 ? 'a' : '/';
    }
    filter[PS_TOPIC_MAX] = topic[PS_TOPIC_MAX] = '\0';
    filter[PS_TOPIC_MAX - 1] = 'b';             /* found out at the last byte; a matcher that goes back never ends */
    for (int i = 0; i < 10000; i++)
        assert_int_equal(ps__match(filter, PS_TOPIC_MAX, topic, PS_TOPIC_MAX), 0);
    filter[PS_TOPIC_MAX - 1] = '#';
    assert_int_equal(ps__match(filter, PS_TOPIC_MAX, topic, PS_TOPIC_MAX), 1);
}

/* ------------------------------------------------------------------ escape */

static void test_escape_foreign_text_becomes_one_level(void **state)
{
    (void)state;
    char text[64], tight[8];
    assert_int_equal(ps_topic_escape(text, sizeof text, "a/b+c#d*e%f$ \n\x7f", 15), 15 + 2 * 9);
    assert_string_equal(text, "a%2Fb%2Bc%23d%2Ae%25f%24%20%0A%7F");
    assert_true(ps_topic_valid(text) && ps_filter_valid(text) && !strchr(text, '/'));
    assert_int_equal(ps_topic_escape(text, sizeof text, "a\0b", 3), 5);
    assert_string_equal(text, "a%00b");
    assert_int_equal(ps_topic_escape(text, sizeof text, "\xc3\xa4-_.:~", 7), 7);
    assert_string_equal(text, "\xc3\xa4-_.:~");
    assert_int_equal(ps_topic_escape(text, sizeof text, "", 0), 0);
    assert_string_equal(text, "");
    /* Cut before an escape that does not fit whole, and nothing after it. */
    for (size_t cap = 1; cap <= sizeof tight; cap++) {
        static const char *const cut[] = { "", "a", "a", "a", "a%2F", "a%2Fb", "a%2Fbc", "a%2Fbc" };
        memset(tight, 'X', sizeof tight);
        assert_int_equal(ps_topic_escape(tight, cap, "a/bc", 4), 6);
        assert_string_equal(tight, cut[cap - 1]);
    }
    assert_int_equal(ps_topic_escape(NULL, 0, "a/bc", 4), 6);
    assert_int_equal(ps_topic_escape(NULL, 1, "a", 1), PS_EINVAL);
    assert_int_equal(ps_topic_escape(text, sizeof text, NULL, 1), PS_EINVAL);
    assert_int_equal(ps_topic_escape(text, sizeof text, "a", (size_t)INT_MAX + 1), PS_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topic_ordinary_names_valid),
        cmocka_unit_test(test_topic_every_byte_everywhere_judged_alike),
        cmocka_unit_test(test_topic_length_limits_kept),
        cmocka_unit_test(test_topic_parse_illegal_explained),
        cmocka_unit_test(test_topic_at_end_of_page_not_overread),
        cmocka_unit_test(test_filter_table_judged),
        cmocka_unit_test(test_filter_star_refused_with_hint),
        cmocka_unit_test(test_filter_parse_fills_depth_and_hash),
        cmocka_unit_test(test_filter_prefix_found_in_every_match),
        cmocka_unit_test(test_topic_prefix_levels_counted),
        cmocka_unit_test(test_match_mqtt_table_agrees),
        cmocka_unit_test(test_match_all_short_texts_as_naive_matcher),
        cmocka_unit_test(test_match_pathological_pattern_linear),
        cmocka_unit_test(test_escape_foreign_text_becomes_one_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
