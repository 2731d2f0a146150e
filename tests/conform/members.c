/* SPDX-License-Identifier: MIT */
/* members.c - conformance: ps_members. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

static int members_all(ps_bus *bus, const char *topic, ps_member *members, int n)
{
    int count;

    memset(members, 0, (size_t)n * sizeof members[0]);
    members[0].size = sizeof members[0];
    count = ps_members(bus, topic, members, (size_t)n);
    assert_ok(count);
    return count;
}

static const ps_member *members_find(const ps_member *members, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(members[i].name, name) == 0)
            return &members[i];
    fail_msg("no member is called \"%s\"", name);
    return NULL;
}

static void test_members_unsupported_said_so(void **state)
{
    ps_member member = PS_MEMBER_INIT;
    ps_bus *bus;

    (void)state;
    if (conform_backend->can & PS_CAN_MEMBERS)
        skip();
    bus = conform_open(NULL);
    assert_int_equal(ps_members(bus, NULL, &member, 1), PS_ENOTSUP);
    conform_close(bus);
}

static void test_members_bad_arguments_refused(void **state)
{
    ps_member member = PS_MEMBER_INIT;
    ps_bus *bus;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    bus = conform_open(NULL);
    assert_int_equal(ps_members(bus, NULL, NULL, 1), PS_EINVAL);
    assert_int_equal(ps_members(bus, "a b", &member, 1), PS_EINVAL);
    assert_int_equal(ps_members(bus, "a/+", &member, 1), PS_EINVAL);
    assert_int_equal(ps_members(bus, "", &member, 1), PS_EINVAL);
    member.size = 0;
    assert_int_equal(ps_members(bus, NULL, &member, 1), PS_EINVAL);
    assert_int_equal(ps_members(bus, NULL, NULL, 0), 1);
    assert_int_equal(ps_members(bus, "t", NULL, 0), 1);
    conform_close(bus);
}

static void test_members_show_who_is_there(void **state)
{
    static struct conform_log log;
    ps_member m[8];
    const ps_member *one;
    ps_bus *a, *b, *c;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open("name=sender");
    b = conform_open("name=the%20reader%2f1");
    c = conform_open("name=lossy&lossy=1");
    conform_subscribe(b, "t", &log);
    conform_subscribe(b, "u/#", &log);
    conform_subscribe(c, "t", &log);
    for (int i = 0; i < 3; i++)
        conform_say(a, "t", "x");
    conform_say(a, "u/1", "x");
    conform_say(a, "u/2", "x");
    assert_int_equal(members_all(a, "u/3", m, 8), 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(m[i].pid, getpid());
        assert_int_equal(m[i].flags & (PS_MEMBER_DEAD | PS_MEMBER_EVICTED | PS_MEMBER_ASLEEP), 0);
        assert_true(i == 0 || m[i].slot > m[i - 1].slot);
        assert_true(m[i].idle_ms < 10 * DEADLINE_MS);
    }
    one = members_find(m, 3, "sender");
    assert_int_equal(one->flags & (PS_MEMBER_SELF | PS_MEMBER_PUBLISHER | PS_MEMBER_READER | PS_MEMBER_LOSSY),
                     PS_MEMBER_SELF | PS_MEMBER_PUBLISHER);
    assert_int_equal(one->filter_count, 0);
    assert_int_equal(one->published, 5);
    assert_int_equal(one->wants, 0);
    assert_int_equal(one->publisher, conform_stats(a).publisher);
    one = members_find(m, 3, "the reader/1");
    assert_int_equal(one->flags & (PS_MEMBER_SELF | PS_MEMBER_PUBLISHER | PS_MEMBER_READER | PS_MEMBER_LOSSY), PS_MEMBER_READER);
    assert_int_equal(one->filter_count, 2);
    assert_int_equal(one->lag, 5);
    assert_int_equal(one->wants, 1);
    assert_int_equal(one->lost, 0);
    assert_int_equal(one->published, 0);
    one = members_find(m, 3, "lossy");
    assert_int_equal(one->flags & (PS_MEMBER_SELF | PS_MEMBER_READER | PS_MEMBER_LOSSY), PS_MEMBER_READER | PS_MEMBER_LOSSY);
    assert_int_equal(one->wants, 0);
    conform_drain(b);
    assert_int_equal(ps_dispatch(c, 0, 0), 3);
    conform_drain(c);
    assert_int_equal(members_all(b, "t", m, 8), 3);
    one = members_find(m, 3, "the reader/1");
    assert_true(one->flags & PS_MEMBER_SELF);
    assert_int_equal(one->lag, 0);
    assert_int_equal(one->wants, 1);
    one = members_find(m, 3, "lossy");
    assert_int_equal(one->wants, 1);
    assert_int_equal(one->lag, 0);
    assert_int_equal(one->unwanted, 2);
    assert_int_equal(members_find(m, 3, "sender")->flags & PS_MEMBER_SELF, 0);
    conform_close(c);
    assert_int_equal(members_all(b, NULL, m, 8), 2);
    conform_close(a);
    conform_close(b);
}

/* What of the fullest ring waits for a reader, so that tools find who holds publishers back. */
static void test_members_full_tells_who_holds_publishers_back(void **state)
{
    static struct conform_log log;
    ps_member m[8];
    ps_bus *a, *b, *c;
    int big;

    (void)state;
    conform_need(PS_CAN_MEMBERS | PS_CAN_RELIABLE);
    a = conform_open("name=sender&depth=4&bytes=64k&evict=-1");
    b = conform_open("name=stuck");
    c = conform_open("name=lossy&lossy=1");
    conform_subscribe(b, "t", &log);
    conform_subscribe(c, "t", &log);
    conform_say(a, "t", "x");
    assert_int_equal(members_all(a, NULL, m, 8), 3);
    assert_int_equal(members_find(m, 3, "stuck")->full, 25);
    assert_int_equal(members_find(m, 3, "sender")->full, 0);
    assert_int_equal(conform_fill(a, "t", 1, 100), 3);
    assert_int_equal(members_all(b, NULL, m, 8), 3);
    assert_int_equal(members_find(m, 3, "stuck")->full, 100);
    assert_int_equal(members_find(m, 3, "lossy")->full, 0);
    assert_int_equal(members_find(m, 3, "sender")->full, 0);
    conform_drain(b);
    assert_int_equal(members_all(a, NULL, m, 8), 3);
    assert_int_equal(members_find(m, 3, "stuck")->full, 0);
    /* Few messages, many bytes. */
    conform_close(a);
    conform_close(b);
    conform_close(c);
    a = conform_open("name=sender&depth=64&bytes=64k&evict=-1");
    b = conform_open("name=stuck");
    conform_subscribe(b, "t", &log);
    for (big = 0; big < 64 && ps_publish(a, "t", log.seen, sizeof log.seen > 16000 ? 16000 : sizeof log.seen) > 0; big++) { }
    assert_true(big >= 3 && big < 16);
    assert_int_equal(members_all(a, NULL, m, 8), 2);
    assert_true(members_find(m, 2, "stuck")->full >= 75);
    conform_close(a);
    conform_close(b);
}

static void test_members_evictions_and_memory_counted(void **state)
{
    static struct conform_log log;
    ps_member m[8];
    uint64_t before, small;
    ps_bus *a, *b;
    int n = 0;

    (void)state;
    conform_need(PS_CAN_MEMBERS | PS_CAN_RELIABLE);
    a = conform_open("name=sender&depth=4&evict=20&block=-1");
    b = conform_open("name=reader");
    conform_subscribe(b, "t", &log);
    before = conform_stats(a).memory;
    assert_int_equal(members_all(a, NULL, m, 8), 2);
    small = members_find(m, 2, "sender")->memory;
    assert_true(small > 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(members_all(b, NULL, m, 8), 2);
        assert_int_equal(members_find(m, 2, "reader")->evicted, i);
        for (int k = 0; k < 5; k++)
            conform_say(a, "t", "x");
        n += conform_drain(b);
    }
    assert_true(n >= 3);
    assert_int_equal(members_all(b, NULL, m, 8), 2);
    assert_int_equal(members_find(m, 2, "reader")->evicted, conform_stats(b).evicted);
    /* What the first publish reserved is as announced, and belongs to the sender where each has a ring. */
    if (conform_backend->can & PS_CAN_TOTAL_ORDER) {
        assert_int_equal(conform_stats(a).publisher_memory, 0);
    } else {
        assert_true(conform_stats(a).publisher_memory > 0);
        assert_int_equal(conform_stats(a).memory - before, conform_stats(a).publisher_memory);
        assert_int_equal(members_find(m, 2, "sender")->memory - small, conform_stats(a).publisher_memory);
        assert_int_equal(members_find(m, 2, "reader")->memory, small);
    }
    conform_close(a);
    conform_close(b);
}

/* Who does not hear itself is told apart; its own messages are none that it is behind with. */
static void test_members_no_echo_shown(void **state)
{
    static struct conform_log log;
    ps_member m[8];
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open("name=deaf&echo=0");
    b = conform_open("name=other");
    conform_subscribe(a, "t", &log);
    conform_subscribe(b, "t", &log);
    conform_say(a, "t", "x");
    assert_int_equal(members_all(b, NULL, m, 8), 2);
    assert_true(members_find(m, 2, "deaf")->flags & PS_MEMBER_NO_ECHO);
    assert_false(members_find(m, 2, "other")->flags & PS_MEMBER_NO_ECHO);
    assert_int_equal(members_find(m, 2, "other")->lag, 1);
    if (!(conform_backend->can & PS_CAN_TOTAL_ORDER))
        assert_int_equal(members_find(m, 2, "deaf")->lag, 0);
    conform_close(a);
    conform_close(b);
}

static void test_members_fewer_places_than_members_all_counted(void **state)
{
    ps_bus *bus[5];
    ps_member m[5];

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    for (int i = 0; i < 5; i++)
        bus[i] = conform_open(NULL);
    memset(m, 0xa5, sizeof m);
    m[0].size = sizeof m[0];
    assert_int_equal(ps_members(bus[0], NULL, m, 2), 5);
    assert_int_equal(m[1].pid, getpid());
    for (size_t at = 2 * sizeof m[0]; at < sizeof m; at++)
        assert_int_equal(((unsigned char *)m)[at], 0xa5);
    for (int i = 0; i < 5; i++)
        conform_close(bus[i]);
}

/* The first element's size is the stride, for callers of other versions. */
static void test_members_other_sizes_used_as_stride(void **state)
{
    enum { N = 3 };
    struct wide { ps_member known; unsigned char more[40]; } wide[N];
    const size_t small = offsetof(ps_member, wants);
    union { ps_member member; unsigned char bytes[2 * sizeof (ps_member)]; } narrow;
    ps_bus *a, *b, *c;
    uint32_t slots[N];

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open("name=wide");
    b = conform_open("name=wide");
    c = conform_open("name=wide");
    memset(wide, 0xa5, sizeof wide);
    wide[0].known.size = sizeof wide[0];
    assert_int_equal(ps_members(a, NULL, &wide[0].known, N), N);
    for (int i = 0; i < N; i++) {
        assert_string_equal(wide[i].known.name, "wide");
        assert_int_equal(wide[i].known.pid, getpid());
        slots[i] = wide[i].known.slot;
        for (size_t at = 0; at < sizeof wide[i].more; at++)
            assert_int_equal(wide[i].more[at], 0);
    }
    /* 8 + 4 + 4 + 4 bytes: size, slot, flags, pid; elements follow each other at that distance, so read them by bytes. */
    memset(&narrow, 0xa5, sizeof narrow);
    narrow.member.size = small + 4;             /* a multiple of 8 */
    assert_int_equal(ps_members(a, NULL, &narrow.member, N), N);
    for (size_t i = 0; i < N; i++) {
        uint32_t slot;
        int32_t pid;

        memcpy(&slot, narrow.bytes + i * (small + 4) + offsetof(ps_member, slot), sizeof slot);
        memcpy(&pid, narrow.bytes + i * (small + 4) + offsetof(ps_member, pid), sizeof pid);
        assert_int_equal(slot, slots[i]);
        assert_int_equal(pid, getpid());
    }
    for (size_t at = N * (small + 4); at < sizeof narrow; at++)
        assert_int_equal(narrow.bytes[at], 0xa5);
    conform_close(a);
    conform_close(b);
    conform_close(c);
}

static void test_members_asleep_shown(void **state)
{
    static struct conform_log log;
    struct conform_dispatcher d;
    ps_member m[4];
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open(NULL);
    b = conform_open("name=sleeper");
    conform_subscribe(b, "t", &log);
    conform_dispatch_start(&d, b, 0, -1);
    assert_true(conform_asleep(a, 1));
    members_all(a, NULL, m, 4);
    assert_true(members_find(m, 2, "sleeper")->flags & PS_MEMBER_ASLEEP);
    conform_say(a, "t", "x");
    assert_int_equal(conform_dispatch_join(&d), 1);
    members_all(a, NULL, m, 4);
    assert_false(members_find(m, 2, "sleeper")->flags & PS_MEMBER_ASLEEP);
    conform_close(a);
    conform_close(b);
}

static void test_members_lossy_one_shows_its_loss(void **state)
{
    static struct conform_log log;
    ps_member m[4];
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_MEMBERS);
    a = conform_open("depth=4");
    b = conform_open("lossy=1&name=loser");
    conform_subscribe(b, "t", &log);
    assert_int_equal(conform_fill(a, "t", 0, 100), 100);
    conform_drain(b);
    members_all(a, NULL, m, 4);
    assert_int_equal(members_find(m, 2, "loser")->lost, log.lost);
    conform_close(a);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_members_unsupported_said_so),
    conform_test(test_members_bad_arguments_refused),
    conform_test(test_members_show_who_is_there),
    conform_test(test_members_full_tells_who_holds_publishers_back),
    conform_test(test_members_evictions_and_memory_counted),
    conform_test(test_members_no_echo_shown),
    conform_test(test_members_fewer_places_than_members_all_counted),
    conform_test(test_members_other_sizes_used_as_stride),
    conform_test(test_members_asleep_shown),
    conform_test(test_members_lossy_one_shows_its_loss),
};
CONFORM_AREA(conform_members_area);
