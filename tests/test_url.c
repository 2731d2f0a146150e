/* SPDX-License-Identifier: MIT */
/*
 * test_url.c - bus URLs: what is legal, and that each mistake is named.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <stdio.h>

static struct ps__url url;                      /* 8 KiB: not on every stack */

static void parse(const char *text)
{
    memset(&url, 0xa5, sizeof url);
    if (ps__url_parse(text, "auth db", &url) != 0)
        fail_msg("%s: %s", text, ps_errmsg());
}

/* The mistake is refused, and its text holds all the words, divided by '|'. */
static void refuse(const char *text, const char *words)
{
    memset(&url, 0xa5, sizeof url);
    if (ps__url_parse(text, "auth db", &url) != PS_EINVAL)
        fail_msg("%s: accepted", text);
    while (*words) {
        char word[128];
        size_t len = strcspn(words, "|");
        (void)snprintf(word, sizeof word, "%.*s", (int)len, words);
        if (!strstr(ps_errmsg(), word))
            fail_msg("%s: \"%s\" lacks \"%s\"", text, ps_errmsg(), word);
        words += len + (words[len] != '\0');
    }
    (void)ps__fail(PS_EINVAL, "stale");
}

/* ------------------------------------------------------------------ what is legal */

static void test_url_without_options_has_defaults(void **state)
{
    (void)state;
    parse("shm://orders");
    assert_int_equal(url.url.size, sizeof(ps_url));
    assert_string_equal(url.url.text, "shm://orders");
    assert_string_equal(url.url.scheme, "shm");
    assert_string_equal(url.url.address, "orders");
    assert_string_equal(url.url.name, "");
    assert_true(url.url.depth == 0 && url.url.bytes == 0 && url.url.loans == 0 && url.url.members == 0);
    assert_int_equal(url.url.mode, -1);
    assert_int_equal(url.url.block_ms, 0);
    assert_int_equal(url.url.evict_ms, 1000);
    assert_int_equal(url.url.spin_us, 0);
    assert_true(!url.url.lossy && url.url.echo && url.url.create && !url.url.observe);
    assert_int_equal(url.extra_count, 0);
}

static void test_url_every_option_taken(void **state)
{
    (void)state;
    parse("ShM+x-1.0:///dev/shm/a%20b/c%3f?depth=4096&bytes=3M&loans=64k&members=256&mode=0660&lossy=1&echo=0&create=0"
          "&observe=0&block=-1&evict=250&spin=20&name=web%26worker=1?&auth=p%40ss&db=7");
    assert_string_equal(url.url.scheme, "shm+x-1.0");
    assert_string_equal(url.url.address, "/dev/shm/a b/c?");
    assert_true(url.url.depth == 4096 && url.url.bytes == 3u << 20 && url.url.loans == 65536 && url.url.members == 256);
    assert_int_equal(url.url.mode, 0660);
    assert_true(url.url.lossy == 1 && url.url.echo == 0 && url.url.create == 0 && url.url.observe == 0);
    assert_int_equal(url.url.block_ms, -1);
    assert_int_equal(url.url.evict_ms, 250);
    assert_int_equal(url.url.spin_us, 20);
    assert_string_equal(url.url.name, "web&worker=1?");
    assert_int_equal(url.extra_count, 2);
    assert_string_equal(url.extra[0].key, "auth");
    assert_string_equal(url.extra[0].value, "p@ss");
    assert_string_equal(url.extra[1].key, "db");
    assert_string_equal(url.extra[1].value, "7");
}

static void test_url_anonymous_has_no_address(void **state)
{
    (void)state;
    parse("shm:");
    assert_null(url.url.address);
    parse("shm:?depth=2&name=x");
    assert_null(url.url.address);
    assert_int_equal(url.url.depth, 2);
}

static void test_url_limits_of_ranges_taken(void **state)
{
    (void)state;
    parse("x://y?depth=1048576&bytes=1&loans=1&members=1&block=0&evict=-1&spin=0&mode=600");
    assert_true(url.url.depth == 1u << 20 && url.url.bytes == 1 && url.url.loans == 1 && url.url.members == 1);
    assert_true(url.url.block_ms == 0 && url.url.evict_ms == -1 && url.url.mode == 0600);
    parse("x://y?bytes=128G&loans=137438953472&block=2147483647&evict=2147483647&spin=1000000&mode=0666");
    assert_true(url.url.bytes == UINT64_C(1) << 37 && url.url.loans == UINT64_C(1) << 37 && url.url.mode == 0666);
    assert_true(url.url.block_ms == INT32_MAX && url.url.evict_ms == INT32_MAX && url.url.spin_us == 1000000);
    parse("x://y?bytes=1K&loans=1k&mode=660");
    assert_true(url.url.bytes == 1024 && url.url.loans == 1024 && url.url.mode == 0660);
}

static void test_url_observe_implies_lossy_and_no_creation(void **state)
{
    (void)state;
    parse("shm://x?observe=1");
    assert_true(url.url.observe == 1 && url.url.create == 0 && url.url.lossy == 1);
    parse("shm://x?create=0&observe=1");
    assert_true(url.url.observe == 1 && url.url.create == 0 && url.url.lossy == 1);
    refuse("shm://x?create=1&observe=1", "observe=1|create=1");
    refuse("shm://x?observe=1&create=1", "observe=1|create=1");
}

static void test_url_pieces_survive_the_callers_text(void **state)
{
    (void)state;
    char text[] = "shm://abc?name=def&auth=ghi";
    parse(text);
    memset(text, 'z', sizeof text - 1);
    assert_string_equal(url.url.text, "shm://abc?name=def&auth=ghi");
    assert_string_equal(url.url.address, "abc");
    assert_string_equal(url.url.name, "def");
    assert_string_equal(url.extra[0].value, "ghi");
}

/* ------------------------------------------------------------------ mistakes */

static void test_url_mistakes_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "", "scheme" }, { "orders", "scheme|orders" }, { "//orders", "scheme" }, { "://orders", "scheme" },
        { "my bus://x", "scheme" }, { "sch\xc3\xa4me://x", "scheme" }, { "/dev/shm/x:1", "scheme" },
        { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa://x", "scheme|31" }, { "shm://", "address" }, { "shm://?depth=2", "address" },
        { "shm:orders", "//|shm:" }, { "shm:/orders", "//" }, { "shm://a%0ab", "address|control" }, { "shm://a\tb", "control" },
        { "shm://a%7f", "control" }, { "shm://%00", "%00|address" }, { "shm://a%", "%|address" }, { "shm://a%2", "hexa" },
        { "shm://a%zz", "hexa" }, { "shm://a%+1", "hexa" }, { "shm://a?name=%00", "%00|name" }, { "shm://a?name=x%4", "hexa|name" },
        { "shm://a?auth=%00", "%00|auth" }, { "shm://a?depth=%ff", "depth" },
        { "shm://a?", "empty option" }, { "shm://a?depth=2&", "empty option" }, { "shm://a?&depth=2", "empty option" },
        { "shm://a?=2", "without a name" }, { "shm://a?depth", "depth|'='" }, { "shm://a?depth=", "depth|empty value" },
        { "shm://a?name=", "name|empty value" }, { "shm://a?auth=", "auth|empty value" },
        { "shm://a?depth=2&depth=2", "depth|twice" }, { "shm://a?name=a&name=b", "name|twice" },
        { "shm://a?db=1&auth=2&db=3", "db|twice" },
        { "shm://a?mode=0644", "mode|0644|0600, 0660 or 0666" }, { "shm://a?mode=384", "mode" }, { "shm://a?mode=00600", "mode" },
        { "shm://a?mode=-600", "mode" }, { "shm://a?lossy=2", "lossy|0 or 1" }, { "shm://a?echo=yes", "echo|0 or 1" },
        { "shm://a?create=01", "create|0 or 1" }, { "shm://a?observe=-1", "observe|0 or 1" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refuse(cases[i][0], cases[i][1]);
    assert_int_equal(ps__url_parse(NULL, NULL, &url), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "NULL"));
}

static void test_url_numbers_read_strictly(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "depth=x", "depth|digits" }, { "depth=+2", "digits" }, { "depth=-2", "digits" }, { "depth= 2", "digits" },
        { "depth=2 ", "digits" }, { "depth=4k", "digits" }, { "depth=0x10", "digits" }, { "depth=2.0", "digits" },
        { "depth=-1", "digits" }, { "spin=-1", "digits" }, { "bytes=1m", "size" }, { "bytes=1g", "size" }, { "bytes=1kB", "size" },
        { "bytes=k", "size" }, { "bytes=-1", "size" }, { "loans=1T", "size" }, { "block=-2", "-1 for ever" }, { "block=--1", "-1" },
        { "evict=1s", "milliseconds" }, { "evict=-01", "milliseconds" }, { "depth=1", "range|2 to 1048576" },
        { "depth=1048577", "range" }, { "bytes=0", "range|1 to 137438953472" }, { "bytes=129G", "range" },
        { "bytes=137438953473", "range" }, { "loans=0k", "range" }, { "members=0", "range|1 to 256" }, { "members=257", "range" },
        { "block=2147483648", "range" }, { "evict=4294967295", "range|-1 to 2147483647" }, { "spin=1000001", "range" },
        { "depth=18446744073709551618", "range" }, { "bytes=18446744073709551616", "range" },
        { "bytes=17179869185G", "range" }, { "bytes=99999999999999999999999999999999G", "range" },
        { "bytes=9223372036854775807G", "range" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[128];
        (void)snprintf(text, sizeof text, "shm://a?%s", cases[i][0]);
        refuse(text, cases[i][1]);
    }
}

static void test_url_unknown_option_listed_and_guessed(void **state)
{
    (void)state;
    refuse("shm://a?dept=2", "\"dept\"|did you mean depth?|there are: depth bytes loans members mode lossy echo create observe "
                             "block evict spin name auth db");
    refuse("shm://a?AUTH=2", "\"AUTH\"|auth db");
    refuse("shm://a?atuh=2", "did you mean auth?");
    refuse("shm://a?dep%74h=2", "unknown");
    refuse("shm://a?d=2", "unknown");
    refuse("shm://a?completely-different", "unknown");
    assert_int_equal(ps__url_parse("shm://a?completely-different=1", NULL, &url), PS_EINVAL);
    assert_null(strstr(ps_errmsg(), "did you mean"));
    assert_null(strstr(ps_errmsg(), "auth"));
    assert_int_equal(ps__url_parse("shm://a?x=1", "  ", &url), PS_EINVAL);
    assert_int_equal(ps__url_parse("shm://a?x=1", " y  x ", &url), 0);
    assert_string_equal(url.extra[0].key, "x");
}

static void test_url_label_limits_kept(void **state)
{
    (void)state;
    char text[256];
    for (int len = 63; len <= 66; len++) {
        (void)snprintf(text, sizeof text, "shm://a?name=%%20%.*s", len - 1,
                       "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        if (len <= PS_NAME_MAX) {
            parse(text);
            assert_int_equal(strlen(url.url.name), len);
        } else {
            refuse(text, "name|64");
        }
    }
    refuse("shm://a?name=a%0Ab", "name|control");
    refuse("shm://a?name=a%7F", "name|control");
}

static void test_url_too_long_or_too_many_refused(void **state)
{
    (void)state;
    char text[PS__URL_MAX + 2], options[256] = "";
    memset(text, 'a', sizeof text);
    memcpy(text, "shm://", 6);
    text[PS__URL_MAX] = '\0';
    refuse(text, "longer than 4095");
    text[PS__URL_MAX - 1] = '\0';
    parse(text);
    assert_int_equal(strlen(url.url.address), PS__URL_MAX - 7);

    size_t used = (size_t)snprintf(text, sizeof text, "shm:?");
    for (int i = 0; i < 17; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%so%d=1", i > 0 ? "&" : "", i);
        (void)snprintf(options + strlen(options), sizeof options - strlen(options), "o%d ", i);
        assert_int_equal(ps__url_parse(text, options, &url), i < 16 ? 0 : PS_EINVAL);
    }
    assert_non_null(strstr(ps_errmsg(), "o16"));
}

/* Nothing is asked of the answer but that it is one; sanitizers watch the rest. */
static void test_url_random_texts_answered(void **state)
{
    (void)state;
    static const char *const pieces[] = { "shm", ":", "//", "?", "&", "=", "%", "%41", "%00", "depth", "bytes", "name", "auth", "1",
                                          "k", "-", "a", "/", "\xff", "mode", "0600", " ", "\n", "observe=1", "&&" };
    for (int round = 0; round < 20000; round++) {
        char text[256] = "";
        size_t used = 0;
        for (int n = (int)(support_random() % 16); n > 0; n--)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s",
                                     pieces[support_random() % (sizeof pieces / sizeof pieces[0])]);
        int rc = ps__url_parse(text, "auth", &url);
        assert_true(rc == 0 || rc == PS_EINVAL);
        if (rc == 0)
            assert_true(url.url.scheme[0] != '\0' && (!url.url.address || url.url.address[0] != '\0'));
    }
}

/* ------------------------------------------------------------------ the small ones */

static void test_scheme_alone_lowered(void **state)
{
    (void)state;
    char scheme[32];
    assert_int_equal(ps__url_scheme("InProc://x?nonsense", scheme), 0);
    assert_string_equal(scheme, "inproc");
    assert_int_equal(ps__url_scheme("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:", scheme), 0);
    assert_int_equal(strlen(scheme), 31);
    assert_int_equal(ps__url_scheme(NULL, scheme), PS_EINVAL);
    assert_int_equal(ps__url_scheme("shm", scheme), PS_EINVAL);
}

static void test_name_rules_kept(void **state)
{
    (void)state;
    static const char *const good[] = { "a", "A-z_0.9", "-", "_", "a..", "0" };
    static const char *const bad[] = { "", ".", "..", ".a", "a/b", "a b", "a%", "\xc3\xa4", "a\n", "a+b" };
    char text[80];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_ok(ps__name_check(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(ps__name_check(bad[i]), PS_EINVAL);
    assert_int_equal(ps__name_check(NULL), PS_EINVAL);
    memset(text, 'x', sizeof text);
    text[65] = '\0';
    assert_int_equal(ps__name_check(text), PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "64"));
    text[64] = '\0';
    assert_ok(ps__name_check(text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url_without_options_has_defaults),
        cmocka_unit_test(test_url_every_option_taken),
        cmocka_unit_test(test_url_anonymous_has_no_address),
        cmocka_unit_test(test_url_limits_of_ranges_taken),
        cmocka_unit_test(test_url_observe_implies_lossy_and_no_creation),
        cmocka_unit_test(test_url_pieces_survive_the_callers_text),
        cmocka_unit_test(test_url_mistakes_named),
        cmocka_unit_test(test_url_numbers_read_strictly),
        cmocka_unit_test(test_url_unknown_option_listed_and_guessed),
        cmocka_unit_test(test_url_label_limits_kept),
        cmocka_unit_test(test_url_too_long_or_too_many_refused),
        cmocka_unit_test(test_url_random_texts_answered),
        cmocka_unit_test(test_scheme_alone_lowered),
        cmocka_unit_test(test_name_rules_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
