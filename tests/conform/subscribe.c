/* SPDX-License-Identifier: MIT */
/* subscribe.c - conformance: who gets what, and how many may want it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

static void subscribe_refused(ps_bus *bus, const char *filter, const ps_sub_options *options, int code)
{
    ps_sub *sub = (ps_sub *)&sub;
    int rc = ps_subscribe(bus, filter, conform_record, NULL, options, &sub);

    if (rc != code)
        fail_msg("\"%s\": %s instead of %s", filter == NULL ? "NULL" : filter, ps_strerror(rc), ps_strerror(code));
    assert_null(sub);
}

static void test_subscribe_bad_filter_refused(void **state)
{
    static const char *const bad[] = { "", "a b", "a\tb", "a\x01", "a#", "#/a", "a/#/b", "##", "a+", "+a", "a/+b/c", "++", "*", "a/*", "a*b" };
    char longest[PS_TOPIC_MAX + 2];
    ps_bus *bus = conform_open(NULL);

    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[PS_TOPIC_MAX + 1] = '\0';
    subscribe_refused(bus, NULL, NULL, PS_EINVAL);
    subscribe_refused(bus, longest, NULL, PS_EINVAL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        subscribe_refused(bus, bad[i], NULL, PS_EINVAL);
        assert_true(ps_errmsg()[0] != '\0');
    }
    /* Nothing of that counts as a first subscription: the handle may still become a pull handle. */
    assert_int_equal(ps_wanted(bus, "x"), 0);
    conform_subscribe(bus, "x", NULL);
    conform_close(bus);
}

static void test_subscribe_star_refused_with_hint(void **state)
{
    ps_bus *bus = conform_open(NULL);

    (void)state;
    subscribe_refused(bus, "a/*", NULL, PS_EINVAL);
    assert_non_null(strstr(ps_errmsg(), "wildcards are + and #"));
    conform_close(bus);
}

static void test_subscribe_exact_takes_wildcards_for_mistakes(void **state)
{
    static struct conform_log log;
    ps_sub_options exact = PS_SUB_OPTIONS_INIT;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    exact.flags = PS_EXACT;
    subscribe_refused(bus, "a/+", &exact, PS_EINVAL);
    subscribe_refused(bus, "a/#", &exact, PS_EINVAL);
    subscribe_refused(bus, "#", &exact, PS_EINVAL);
    subscribe_refused(bus, "+", &exact, PS_EINVAL);
    subscribe_refused(bus, "a+b", &exact, PS_EINVAL);
    subscribe_refused(bus, "", &exact, PS_EINVAL);
    subscribe_refused(bus, "a b", &exact, PS_EINVAL);
    /* '*' is an ordinary character of a name. */
    assert_ok(ps_subscribe(bus, "user:*", conform_record, &log, &exact, NULL));
    assert_int_equal(ps_publish(bus, "user:1", "x", 1), 0);
    conform_say(bus, "user:*", "x");
    assert_int_equal(conform_drain(bus), 1);
    conform_close(bus);
}

static void test_subscribe_options_size_and_unknown_parts_checked(void **state)
{
    static struct conform_log log;
    struct { ps_sub_options known; char more[24]; } larger;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    options.size = 0;
    subscribe_refused(bus, "t", &options, PS_EINVAL);
    options.size = sizeof options;
    options.flags = 0x40000000u;
    subscribe_refused(bus, "t", &options, PS_ENOTSUP);
    options.flags = PS_EXACT | 0x4u;
    subscribe_refused(bus, "t", &options, PS_ENOTSUP);
    memset(&larger, 0, sizeof larger);
    larger.known.size = sizeof larger;
    larger.more[23] = 1;
    subscribe_refused(bus, "t", &larger.known, PS_ENOTSUP);
    larger.more[23] = 0;
    assert_ok(ps_subscribe(bus, "t", conform_record, &log, &larger.known, NULL));
    /* An older caller's struct: what lies behind its size is not looked at. */
    options.size = offsetof(ps_sub_options, destroy);
    options.flags = PS_EXACT;
    memset(&options.destroy, 0x5a, sizeof options.destroy);
    assert_ok(ps_subscribe(bus, "t", conform_record, &log, &options, NULL));
    conform_say(bus, "t", "x");
    assert_int_equal(conform_drain(bus), 1);
    assert_int_equal(atomic_load(&log.count), 2);
    conform_close(bus);
}

static void test_subscribe_filters_let_through_what_mqtt_says(void **state)
{
    static const struct { const char *filter, *topic; int match; } table[] = {
        { "a", "a", 1 },            { "a", "b", 0 },            { "a", "a/b", 0 },          { "a/b", "a", 0 },
        { "a", "A", 0 },            { "a/b", "a/b", 1 },        { "+", "a", 1 },            { "+", "a/b", 0 },
        { "+", "/a", 0 },           { "+/+", "/a", 1 },         { "/+", "/a", 1 },          { "a/+", "a/b", 1 },
        { "a/+", "a", 0 },          { "a/+", "a/", 1 },         { "a/+", "a/b/c", 0 },      { "a/+/c", "a/b/c", 1 },
        { "a/+/c", "a/b/d", 0 },    { "a/+/c", "a//c", 1 },     { "#", "a", 1 },            { "#", "a/b/c", 1 },
        { "#", "/", 1 },            { "a/#", "a", 1 },          { "a/#", "a/b", 1 },        { "a/#", "a/b/c/d", 1 },
        { "a/#", "ab", 0 },         { "a/#", "b/a", 0 },        { "a/+/#", "a/b", 1 },      { "a/+/#", "a", 0 },
        { "+/b/#", "a/b/c", 1 },    { "+/#", "a", 1 },          { "#", "$SYS/x", 0 },       { "+/x", "$SYS/x", 0 },
        { "$SYS/#", "$SYS/x", 1 },  { "$SYS/+", "$SYS/x", 1 },  { "a/$x/#", "a/$x/y", 1 },  { "a/#", "a/$x", 1 },
        { "a/b/c/d/e/f/g/h/i/j/#", "a/b/c/d/e/f/g/h/i/j/k/l", 1 }, { "a/b/c/d/e/f/g/h/i/j/#", "a/b/c/d/e/f/g/h/i/x/k", 0 },
        { "a/b/c/d/e/f/g/h/i/+", "a/b/c/d/e/f/g/h/i/j", 1 },       { "a/b/c/d/e/f/g/h/i/+", "a/b/c/d/e/f/g/h/x/j", 0 },
    };
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        static struct conform_log log;
        ps_sub *sub = conform_subscribe(b, table[i].filter, &log);
        int rc = ps_publish(a, table[i].topic, "x", 1);

        atomic_store(&log.count, 0);
        assert_ok(rc);
        conform_drain(b);
        if (atomic_load(&log.count) != table[i].match)
            fail_msg("\"%s\" and \"%s\": %d", table[i].filter, table[i].topic, atomic_load(&log.count));
        /* More than the truth is allowed, less never. */
        assert_true(rc >= table[i].match);
        assert_int_equal(ps_unsubscribe(sub), 0);
    }
    conform_close(a);
    conform_close(b);
}

static void test_subscribe_two_matching_two_deliveries(void **state)
{
    static struct conform_log log[3];
    ps_bus *bus = conform_open(NULL);
    ps_sub *sub[3];

    (void)state;
    sub[0] = conform_subscribe(bus, "a/b", &log[0]);
    sub[1] = conform_subscribe(bus, "a/b", &log[1]);
    sub[2] = conform_subscribe(bus, "a/+", &log[2]);
    conform_say(bus, "a/b", "x");
    assert_int_equal(conform_drain(bus), 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(&log[i].count), 1);
        assert_ptr_equal(log[i].seen[0].sub, sub[i]);
        assert_int_equal(log[i].bad, 0);
        assert_int_equal(log[i].seen[0].sequence, log[0].seen[0].sequence);
    }
    assert_int_equal(conform_stats(bus).delivered, 3);
    conform_close(bus);
}

static void test_subscribe_pull_two_matching_two_answers(void **state)
{
    ps_bus *bus = conform_open(NULL);
    ps_sub *s1 = conform_subscribe(bus, "a/b", NULL), *s2 = conform_subscribe(bus, "#", NULL), *first;
    const ps_msg *msg;
    uint64_t sequence;

    (void)state;
    conform_say(bus, "a/b", "x");
    assert_int_equal(ps_next(bus, &msg, 0), 1);
    assert_true(conform_good(msg));
    first = msg->sub;
    sequence = msg->sequence;
    assert_true(first == s1 || first == s2);
    assert_int_equal(ps_next(bus, &msg, 0), 1);
    assert_true(conform_good(msg));
    assert_ptr_equal(msg->sub, first == s1 ? s2 : s1);
    assert_int_equal(msg->sequence, sequence);
    assert_int_equal(ps_next(bus, &msg, 0), 0);
    assert_null(msg);
    /* What ends between two deliveries of one message gets no second one. */
    conform_say(bus, "a/b", "x");
    assert_int_equal(ps_next(bus, &msg, 0), 1);
    assert_int_equal(ps_unsubscribe(msg->sub == s1 ? s2 : s1), 0);
    assert_int_equal(ps_next(bus, &msg, 0), 0);
    assert_null(msg);
    conform_close(bus);
}

static void test_subscribe_first_one_decides_push_or_pull(void **state)
{
    static struct conform_log log;
    ps_bus *push = conform_open(NULL), *pull = conform_open(NULL);
    const ps_msg *msg = (const ps_msg *)&log;
    ps_sub *sub = (ps_sub *)&log, *last;

    (void)state;
    last = conform_subscribe(push, "t", &log);
    assert_int_equal(ps_subscribe(push, "u", NULL, NULL, NULL, &sub), PS_EINVAL);
    assert_null(sub);
    assert_int_equal(ps_next(push, &msg, 0), PS_EINVAL);
    assert_null(msg);
    conform_subscribe(pull, "t", NULL);
    sub = (ps_sub *)&log;
    assert_int_equal(ps_subscribe(pull, "u", conform_record, &log, NULL, &sub), PS_EINVAL);
    assert_null(sub);
    assert_int_equal(ps_dispatch(pull, 0, 0), PS_EINVAL);
    assert_int_equal(ps_run(pull), PS_EINVAL);
    /* For life. */
    assert_int_equal(ps_unsubscribe(last), 0);
    assert_int_equal(ps_subscribe(push, "u", NULL, NULL, NULL, NULL), PS_EINVAL);
    assert_int_equal(ps_next(push, &msg, 0), PS_EINVAL);
    conform_subscribe(push, "u", &log);
    assert_int_equal(ps_next(pull, NULL, 0), PS_EINVAL);
    conform_close(push);
    conform_close(pull);
}

static void test_unsubscribe_messages_on_their_way_not_delivered(void **state)
{
    static struct conform_log gone, stays;
    ps_bus *bus = conform_open(NULL);
    ps_sub *sub = conform_subscribe(bus, "t", &gone);

    (void)state;
    conform_subscribe(bus, "t", &stays);
    conform_say(bus, "t", "x");
    conform_say(bus, "t", "y");
    assert_int_equal(ps_unsubscribe(sub), 0);
    assert_int_equal(conform_drain(bus), 2);
    assert_int_equal(atomic_load(&gone.count), 0);
    assert_int_equal(atomic_load(&stays.count), 2);
    conform_close(bus);
}

/* ------------------------------------------------------------------ many */

struct random_filter {
    char    text[32];
    ps_sub *sub;                /* NULL: not subscribed now */
    int     runs;
};

static void random_handler(const ps_msg *msg, void *user)
{
    struct random_filter *f = user;

    f->runs++;
    if (!ps_topic_match(f->text, msg->topic))
        f->runs += 1000;
}

/*
 * Filters of all shapes come and go by chance; each message goes to exactly those there are, whatever left them has shared
 * with others: a prefix, a bit, a bucket.
 */
struct subscribe_late {
    ps_bus *bus;
    int     subscribed, wrong;
    uint64_t last;              /* number of the last message that arrived */
};

static void subscribe_late_number(const ps_msg *msg, void *user)
{
    struct subscribe_late *l = user;
    uint64_t number[4] = { 0 };

    if (msg->size == sizeof number)
        memcpy(number, msg->data, sizeof number);
    l->wrong += number[0] <= l->last || number[1] != ~number[0] || number[3] != number[0] || strcmp(msg->topic, "late") != 0;
    l->wrong += msg->lost != 0;
    l->last = number[0];
}

static void subscribe_late(const ps_msg *msg, void *user)
{
    struct subscribe_late *l = user;

    (void)msg;
    l->subscribed = ps_subscribe(l->bus, "late", subscribe_late_number, l, NULL, NULL) == 0;
}

/* What was published before may arrive or not, but what arrives is whole; what is published behind it arrives. */
static void test_subscribe_in_handler_earlier_messages_whole_later_ones_all(void **state)
{
    static struct conform_log log;
    struct subscribe_late l = { 0 };
    ps_bus *a, *other;
    ps_sub *before;

    (void)state;
    conform_need(PS_CAN_RELIABLE);
    a = conform_open("depth=128");
    other = conform_open(NULL);
    l.bus = conform_open(NULL);
    conform_subscribe(other, "late", &log);             /* somebody wants them, so they are sent */
    assert_ok(ps_subscribe(l.bus, "first", subscribe_late, &l, NULL, NULL));
    assert_ok(ps_subscribe(l.bus, "late", subscribe_late_number, &l, NULL, &before));
    for (uint64_t i = 1; i <= 160; i++) {
        uint64_t number[4] = { i, ~i, 0, i };

        if (i == 101) {         /* what it has read of them lies about everywhere by now */
            assert_int_equal(conform_drain(l.bus), 100);
            assert_ok(ps_unsubscribe(before));
            conform_drain(other);
            conform_say(a, "first", "x");
        }
        assert_true(ps_publish(a, "late", number, sizeof number) >= 1);
        if (i == 130)
            assert_true(ps_dispatch(l.bus, 1, 0) == 1 && l.subscribed);
    }
    conform_drain(l.bus);
    assert_int_equal(l.wrong, 0);
    assert_int_equal(l.last, 160);
    assert_int_equal(conform_drain(other), 60);
    conform_close(a);
    conform_close(other);
    conform_close(l.bus);
}

static void test_subscribe_by_chance_exactly_the_matching_ones_run(void **state)
{
    enum { FILTERS = 120, STEPS = 6000 };
    static struct random_filter f[FILTERS];
    static const char *const shapes[] = { "%c/%c/%c", "%c/%c", "%c", "%c/+/%c", "%c/#", "+/%c/#", "%c/%c/#", "%c/%c/+", "+/+", "#" };
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);

    (void)state;
    for (int i = 0; i < FILTERS; i++) {
        const char *shape = shapes[i % 10];
        char letters[3];

        for (int l = 0; l < 3; l++)
            letters[l] = (char)('a' + support_random() % 3);
        snprintf(f[i].text, sizeof f[i].text, shape, letters[0], letters[1], letters[2]);
    }
    for (int step = 0; step < STEPS; step++) {
        struct random_filter *one = &f[support_random() % FILTERS];
        int wanted = 0, rc;
        char topic[16];

        /* Few at a time, so that the last of a kind goes often. */
        if (one->sub != NULL) {
            assert_int_equal(ps_unsubscribe(one->sub), 0);
            one->sub = NULL;
        } else if (support_random() % 8 == 0) {
            assert_ok(ps_subscribe(b, one->text, random_handler, one, NULL, &one->sub));
        }
        snprintf(topic, sizeof topic, support_random() % 2 ? "%c/%c/%c" : "%c/%c", (int)('a' + support_random() % 3),
                 (int)('a' + support_random() % 3), (int)('a' + support_random() % 3));
        for (int i = 0; i < FILTERS; i++)
            wanted += f[i].sub != NULL && ps_topic_match(f[i].text, topic);
        rc = ps_publish(a, topic, "x", 1);
        assert_ok(rc);
        if (wanted > 0 && rc == 0)
            fail_msg("step %d: nobody wants \"%s\", but %d do", step, topic, wanted);
        assert_int_equal(ps_dispatch(b, 0, 0), wanted > 0);
        for (int i = 0; i < FILTERS; i++) {
            if (f[i].runs != (f[i].sub != NULL && ps_topic_match(f[i].text, topic)))
                fail_msg("step %d: \"%s\" and \"%s\": %d", step, f[i].text, topic, f[i].runs);
            f[i].runs = 0;
        }
    }
    conform_close(a);
    conform_close(b);
}

static uint64_t subscribe_filter_count(ps_bus *bus)
{
    ps_member members[4];
    int n;

    members[0].size = sizeof members[0];
    n = ps_members(bus, NULL, members, 4);
    assert_ok(n);
    for (int i = 0; i < n && i < 4; i++)
        if (members[i].flags & PS_MEMBER_SELF)
            return members[i].filter_count;
    fail_msg("no member says that it is me");
    return 0;
}

static void test_subscribe_thousands_come_and_go_counts_return_to_0(void **state)
{
    enum { N = 5000 };
    static ps_sub *subs[N];
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    char topic[32];
    int wanted = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        snprintf(topic, sizeof topic, i % 10 ? "user:%d" : "room/%d/#", i);
        subs[i] = conform_subscribe(b, topic, &log);
        if (i % 10 && i % 7 == 0)
            assert_int_equal(ps_wanted(a, topic), 1);
    }
    if (conform_backend->can & PS_CAN_MEMBERS)
        assert_int_equal(subscribe_filter_count(b), N);
    for (int i = 0; i < N; i++) {
        int at = (int)((uint64_t)i * 1237 % N);         /* in another order; 1237 and N have no common factor */

        assert_int_equal(ps_unsubscribe(subs[at]), 0);
    }
    if (conform_backend->can & PS_CAN_MEMBERS)
        assert_int_equal(subscribe_filter_count(b), 0);
    for (int i = 0; i < N; i++) {
        snprintf(topic, sizeof topic, i % 10 ? "user:%d" : "room/%d/x", i);
        wanted += ps_publish(a, topic, "x", 1);
    }
    assert_int_equal(wanted, 0);
    /* The same one again and again, with a look from outside at each step. */
    for (int i = 0; i < N; i++) {
        ps_sub *sub = conform_subscribe(b, "user:1", &log);

        assert_int_equal(ps_wanted(a, "user:1"), 1);
        assert_int_equal(ps_unsubscribe(sub), 0);
        assert_int_equal(ps_wanted(a, "user:1"), 0);
    }
    conform_close(a);
    conform_close(b);
}

static void test_p1_subscribe_1000_topics_20000_subscriptions(void **state)
{
    enum { TOPICS = 1000, EACH = 20 };
    static struct conform_log log[EACH];
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);
    int descriptors = support_fd_count(), strangers = 0;
    char topic[32];

    (void)state;
    for (int i = 0; i < TOPICS * EACH; i++) {
        snprintf(topic, sizeof topic, "topic/%d", i / EACH);
        conform_subscribe(b, topic, &log[i % EACH]);
    }
    for (int i = 0; i < TOPICS; i++) {
        snprintf(topic, sizeof topic, "topic/%d", i);
        assert_int_equal(ps_publish(a, topic, topic, strlen(topic) + 1), 1);
        assert_int_equal(ps_dispatch(b, 0, 0), 1);
        snprintf(topic, sizeof topic, "other/%d", i);
        strangers += ps_wanted(a, topic);
    }
    for (int i = 0; i < EACH; i++) {
        assert_int_equal(atomic_load(&log[i].count), TOPICS);
        assert_int_equal(log[i].bad, 0);
    }
    /* Below 1 % are taken for wanted though they are not. */
    assert_true(strangers < TOPICS / 100);
    assert_int_equal(support_fd_count(), descriptors);
    conform_close(a);
    conform_close(b);
}

static void test_p1_100000_topics_need_neither_descriptor_nor_file(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open("depth=64"), *b = conform_open(NULL);
    int descriptors;
    char topic[32];

    (void)state;
    conform_subscribe(b, "live/#", &log);
    conform_say(a, "live/first", "x");
    conform_drain(b);
    descriptors = support_fd_count();
    for (int i = 0; i < 100000; i++) {
        snprintf(topic, sizeof topic, "live/%d", i);
        assert_int_equal(ps_publish(a, topic, topic, 8), 1);
        if (i % (conform_has_ring() ? 50 : 8) == 0)
            assert_true(ps_dispatch(b, 0, 0) > 0);
    }
    conform_drain(b);
    assert_int_equal(atomic_load(&log.count), 100001);
    assert_int_equal(log.lost, 0);
    assert_int_equal(support_fd_count(), descriptors);
    conform_close(a);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_subscribe_bad_filter_refused),
    conform_test(test_subscribe_star_refused_with_hint),
    conform_test(test_subscribe_exact_takes_wildcards_for_mistakes),
    conform_test(test_subscribe_options_size_and_unknown_parts_checked),
    conform_test(test_subscribe_filters_let_through_what_mqtt_says),
    conform_test(test_subscribe_two_matching_two_deliveries),
    conform_test(test_subscribe_pull_two_matching_two_answers),
    conform_test(test_subscribe_first_one_decides_push_or_pull),
    conform_test(test_unsubscribe_messages_on_their_way_not_delivered),
    conform_test(test_subscribe_in_handler_earlier_messages_whole_later_ones_all),
    conform_test(test_subscribe_by_chance_exactly_the_matching_ones_run),
    conform_test(test_subscribe_thousands_come_and_go_counts_return_to_0),
    conform_test(test_p1_subscribe_1000_topics_20000_subscriptions),
    conform_test(test_p1_100000_topics_need_neither_descriptor_nor_file),
};
CONFORM_AREA(conform_subscribe_area);
