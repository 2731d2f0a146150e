/* SPDX-License-Identifier: MIT */
/* open.c - conformance: opening and closing, URLs, who fixes what. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

#include <fcntl.h>

/* ps_open() of a text that must fail: code, and the handle is NULL. */
static void open_refused(const char *url, int code, const char *word)
{
    ps_bus *bus = (ps_bus *)&bus;
    int rc = ps_open(&bus, url);

    if (rc != code)
        fail_msg("%s: %s (%s) instead of %s", url, ps_strerror(rc), ps_errmsg(), ps_strerror(code));
    assert_null(bus);
    if (word != NULL && strstr(ps_errmsg(), word) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", url, ps_errmsg(), word);
}

static void test_open_null_arguments_refused(void **state)
{
    ps_bus *bus = (ps_bus *)&bus;

    (void)state;
    assert_int_equal(ps_open(NULL, conform_url(NULL)), PS_EINVAL);
    assert_int_equal(ps_open(&bus, NULL), PS_EINVAL);
    assert_null(bus);
    assert_int_equal(ps_open(&bus, ""), PS_EINVAL);
    assert_null(bus);
}

/* Every function takes a NULL handle for a mistake of the caller's, not for a reason to crash. */
static void test_null_bus_anywhere_refused(void **state)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member member = PS_MEMBER_INIT;
    const ps_msg *msg = (const ps_msg *)&stats;
    ps_sub *sub = (ps_sub *)&stats;
    void *data = &stats;

    (void)state;
    assert_int_equal(ps_close(NULL), 0);
    ps_stop(NULL);
    assert_int_equal(ps_publish(NULL, "t", "", 0), PS_EINVAL);
    assert_int_equal(ps_wanted(NULL, "t"), PS_EINVAL);
    assert_int_equal(ps_subscribe(NULL, "t", NULL, NULL, NULL, &sub), PS_EINVAL);
    assert_null(sub);
    assert_int_equal(ps_unsubscribe(NULL), PS_EINVAL);
    assert_int_equal(ps_dispatch(NULL, 0, 0), PS_EINVAL);
    assert_int_equal(ps_next(NULL, &msg, 0), PS_EINVAL);
    assert_null(msg);
    assert_int_equal(ps_run(NULL), PS_EINVAL);
    assert_int_equal(ps_fd(NULL), PS_EINVAL);
    assert_int_equal(ps_loan(NULL, "t", 1, &data), PS_EINVAL);
    assert_null(data);
    assert_int_equal(ps_commit(NULL, &stats, 0), PS_EINVAL);
    assert_int_equal(ps_cancel(NULL, &stats), PS_EINVAL);
    assert_int_equal(ps_stats(NULL, &stats), PS_EINVAL);
    assert_int_equal(ps_members(NULL, NULL, &member, 1), PS_EINVAL);
    assert_int_equal(ps_after_fork(NULL), PS_EINVAL);
}

static void test_open_unknown_scheme_named(void **state)
{
    (void)state;
    open_refused("nosuchthing://x", PS_ENOTSUP, "nosuchthing");
}

static void test_open_unknown_option_named_and_known_ones_listed(void **state)
{
    static const char *known[] = {
        "depth", "bytes", "loans", "members", "mode", "lossy", "echo", "spin", "name", "block", "evict", "create", "observe",
    };

    (void)state;
    open_refused(conform_url("colour=red"), PS_EINVAL, "colour");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(ps_errmsg(), known[i]) == NULL)
            fail_msg("\"%s\" does not list %s", ps_errmsg(), known[i]);
}

static void test_open_bad_option_refused_and_named(void **state)
{
    static const char *const bad[][2] = {
        { "depth=4&depth=4", "depth" },     { "depth=", "depth" },      { "depth", "depth" },       { "depth=x", "depth" },
        { "depth=4x", "depth" },            { "depth=-4", "depth" },    { "depth=99999999999999999999", "depth" },
        { "depth=%zz", NULL },              { "bytes=1T", "bytes" },    { "bytes=99999999999G", "bytes" },
        { "members=0", "members" },         { "members=257", "members" },                           { "members=two", "members" },
        { "mode=0777", "mode" },            { "mode=rw", "mode" },      { "lossy=2", "lossy" },     { "lossy=yes", "lossy" },
        { "echo=2", "echo" },               { "create=2", "create" },   { "observe=x", "observe" }, { "spin=-1", "spin" },
        { "block=soon", "block" },          { "evict=1.5", "evict" },   { "depth=4&&lossy=1", NULL }, { "=4", NULL },
        { "&depth=4", NULL },               { "depth=4&", NULL },
        { "name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "name" },      /* 65 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        open_refused(conform_url(bad[i][0]), PS_EINVAL, bad[i][1]);
}

/* A bus name goes into a path: nothing that could leave the directory gets through. */
static void test_open_bad_name_refused(void **state)
{
    static const char *const bad[] = {
        "", ".", "..", ".hidden", "a/b", "../x", "a/../b", "a b", "a%20b", "a%2fb", "%2e%2e", "a\x01z", "a+b", "a#b", "\xc3\xa4",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",        /* 65 */
    };
    char url[160];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(url, sizeof url, "%s://%s", conform_backend->scheme, bad[i]);
        open_refused(url, PS_EINVAL, NULL);
        snprintf(url, sizeof url, "%s://%s?lossy=1", conform_backend->scheme, bad[i]);
        open_refused(url, PS_EINVAL, NULL);
    }
    open_refused(conform_backend->scheme, PS_EINVAL, NULL);
    snprintf(url, sizeof url, "%s:/x", conform_backend->scheme);
    open_refused(url, PS_EINVAL, NULL);
    open_refused("://x", PS_EINVAL, NULL);
}

static void test_open_longest_name_accepted(void **state)
{
    char url[160];
    int at;
    ps_bus *bus;

    (void)state;
    at = snprintf(url, sizeof url, "%s://%s", conform_backend->scheme, conform_backend->base == NULL ? "" : conform_backend->base);
    snprintf(url + at, sizeof url - (size_t)at, "A.z_0-%058ld", (long)getpid());
    assert_int_equal(strlen(url) - (size_t)at, PS_NAME_MAX);
    bus = conform_open_url(url);
    conform_close(bus);
}

/* An option that does not concern a backend is accepted, so that one URL serves several. */
static void test_open_every_known_option_accepted(void **state)
{
    static const char *const good[] = {
        "depth=64&bytes=64k&loans=64K&members=4&mode=0600&echo=0&spin=10&name=a%20label&block=0&evict=1000&create=1&observe=0",
        "block=-1&evict=-1", "evict=0", "lossy=1", "lossy=0&echo=1", "bytes=1M", "name=%C3%A4", "depth=1024", "mode=0660",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        conform_close(conform_open(good[i]));
}

static void test_open_same_name_meets_other_name_does_not(void **state)
{
    static struct conform_log here, there;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL), *c = conform_open_url(conform_other_url(1, NULL));

    (void)state;
    conform_subscribe(b, "t", &here);
    conform_subscribe(c, "t", &there);
    assert_int_equal(ps_publish(a, "t", "x", 2), 1);
    assert_int_equal(conform_drain(b), 1);
    assert_int_equal(conform_drain(c), 0);
    assert_int_equal(atomic_load(&here.count), 1);
    assert_int_equal(atomic_load(&there.count), 0);
    conform_close(a);
    conform_close(b);
    conform_close(c);
}

static void test_open_without_create_and_bus_not_found(void **state)
{
    ps_bus *first, *second;

    (void)state;
    open_refused(conform_url("create=0"), PS_ENOENT, NULL);
    if (conform_backend->can & PS_CAN_OBSERVE)
        open_refused(conform_url("observe=1"), PS_ENOENT, NULL);
    first = conform_open(NULL);
    second = conform_open("create=0");
    conform_close(first);
    conform_close(conform_open("create=0"));
    conform_close(second);
    open_refused(conform_url("create=0"), PS_ENOENT, NULL);
}

static void test_open_members_limit_full_until_one_leaves(void **state)
{
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open("members=2");
    b = conform_open(NULL);
    assert_int_equal(conform_stats(a).members, 2);
    assert_int_equal(conform_stats(b).members, 2);
    open_refused(conform_url(NULL), PS_EFULL, NULL);
    open_refused(conform_url("lossy=1"), PS_EFULL, NULL);
    /* Who is refused has changed nothing. */
    uint64_t depth = conform_stats(a).depth;
    open_refused(conform_url("depth=65536"), PS_EFULL, NULL);
    assert_int_equal(conform_stats(a).depth, depth);
    /* An observer takes no place. */
    conform_close(conform_open("observe=1"));
    open_refused(conform_url(NULL), PS_EFULL, NULL);
    conform_close(b);
    b = conform_open(NULL);
    open_refused(conform_url(NULL), PS_EFULL, NULL);
    conform_close(b);
    conform_close(a);
}

/* Whoever comes first with a subscription only, fixes nothing; the first opener that names a depth does. */
static void test_open_geometry_before_first_lane_set_by_whoever_names_it(void **state)
{
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("lossy=1");
    conform_subscribe(a, "t", NULL);
    b = conform_open("depth=32&bytes=128k");
    conform_say(b, "t", "x");
    assert_int_equal(conform_stats(b).depth, 32);
    assert_int_equal(conform_stats(b).bytes, 128 * 1024);
    assert_int_equal(conform_stats(a).depth, 32);
    conform_close(a);
    conform_close(b);
}

static void test_open_geometry_larger_than_existing_refused_with_both_numbers(void **state)
{
    static const char *const options[] = { "depth", "bytes", "loans" };
    ps_bus *a;
    void *loan;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=64&bytes=128k&loans=128k");
    conform_subscribe(a, "t", NULL);
    conform_say(a, "t", "x");
    if (conform_backend->can & PS_CAN_LOAN) {
        assert_ok(ps_loan(a, "t", 8, &loan));
        assert_int_equal(ps_cancel(a, loan), 0);
    }
    for (int i = 0; i < 3; i++) {
        ps_bus_stats stats = conform_stats(a);
        uint64_t has = i == 0 ? stats.depth : i == 1 ? stats.bytes : stats.loans;
        char option[64], number[32];

        if (i == 2 && (conform_backend->can & PS_CAN_LOAN) == 0)
            continue;
        assert_true(has >= 2);
        snprintf(number, sizeof number, "%llu", (unsigned long long)has * 2);
        snprintf(option, sizeof option, "%s=%s", options[i], number);
        open_refused(conform_url(option), PS_EGEOMETRY, number);
        snprintf(number, sizeof number, "%llu", (unsigned long long)has);
        assert_non_null(strstr(ps_errmsg(), number));
        assert_non_null(strstr(ps_errmsg(), options[i]));
        /* As much as there is, and less, is fine and changes nothing. */
        snprintf(option, sizeof option, "%s=%s", options[i], number);
        conform_close(conform_open(option));
    }
    conform_close(conform_open("depth=2&bytes=4k&loans=4k"));
    assert_int_equal(conform_stats(a).depth, 64);
    conform_close(a);
}

/* Two messages of one bus must never be taken for one because their senders had the same name. */
static void test_open_again_and_again_publisher_ids_never_repeat(void **state)
{
    enum { N = 64 };
    uint64_t ids[N];
    ps_bus *keeper = conform_open(NULL);

    (void)state;
    ids[0] = conform_stats(keeper).publisher;
    for (int i = 1; i < N; i++) {
        ps_bus *bus = conform_open(NULL);

        ids[i] = conform_stats(bus).publisher;
        conform_close(bus);
    }
    for (int i = 0; i < N; i++) {
        assert_int_not_equal(ids[i], 0);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
    conform_close(keeper);
}

/* The bus ends with its last handle: the next one of that name starts empty, and may have another shape. */
static void test_close_last_handle_bus_ends(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open("depth=2&members=2"), *b = conform_open(NULL);

    (void)state;
    conform_subscribe(b, "t", &log);
    conform_say(a, "t", "x");
    conform_close(a);
    conform_close(b);
    b = conform_open("depth=128&members=5");
    conform_subscribe(b, "t", &log);
    assert_int_equal(conform_drain(b), 0);
    conform_say(b, "t", "y");
    if (conform_has_ring()) {
        assert_int_equal(conform_stats(b).depth, 128);
        assert_int_equal(conform_stats(b).members, 5);
    }
    assert_int_equal(conform_drain(b), 1);
    conform_close(b);
}

/* A message outlives its sender. */
static void test_close_publisher_left_messages_arrive(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);

    (void)state;
    conform_subscribe(b, "t", &log);
    conform_say(a, "t", "one");
    conform_say(a, "t", "two");
    conform_close(a);
    assert_int_equal(conform_drain(b), 2);
    assert_int_equal(log.bad, 0);
    assert_string_equal((char *)log.seen[1].head, "two");
    conform_close(b);
}

static void test_open_64_handles_closed_in_any_order_rest_unharmed(void **state)
{
    enum { N = 64 };
    static struct conform_log logs[N];
    ps_bus *bus[N];
    int alive = N;

    (void)state;
    memset(logs, 0, sizeof logs);
    for (int i = 0; i < N; i++) {
        bus[i] = conform_open("depth=16&bytes=64k");     /* 64 lanes of the default size are a lot of memory */
        conform_subscribe(bus[i], "t", &logs[i]);
    }
    while (alive > 1) {
        int victim = (int)(support_random() % (uint64_t)alive), sender;
        ps_bus *gone = bus[victim];

        bus[victim] = bus[--alive];
        conform_close(gone);
        sender = (int)(support_random() % (uint64_t)alive);
        assert_int_equal(ps_publish(bus[sender], "t", "x", 1), alive);
        for (int i = 0; i < alive; i++)
            assert_int_equal(conform_drain(bus[i]), 1);
    }
    conform_close(bus[0]);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_open_null_arguments_refused),
    conform_test(test_null_bus_anywhere_refused),
    conform_test(test_open_unknown_scheme_named),
    conform_test(test_open_unknown_option_named_and_known_ones_listed),
    conform_test(test_open_bad_option_refused_and_named),
    conform_test(test_open_bad_name_refused),
    conform_test(test_open_longest_name_accepted),
    conform_test(test_open_every_known_option_accepted),
    conform_test(test_open_same_name_meets_other_name_does_not),
    conform_test(test_open_without_create_and_bus_not_found),
    conform_test(test_open_members_limit_full_until_one_leaves),
    conform_test(test_open_geometry_before_first_lane_set_by_whoever_names_it),
    conform_test(test_open_geometry_larger_than_existing_refused_with_both_numbers),
    conform_test(test_open_again_and_again_publisher_ids_never_repeat),
    conform_test(test_close_last_handle_bus_ends),
    conform_test(test_close_publisher_left_messages_arrive),
    conform_test(test_open_64_handles_closed_in_any_order_rest_unharmed),
};
CONFORM_AREA(conform_open_area);
