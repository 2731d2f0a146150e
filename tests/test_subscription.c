/* SPDX-License-Identifier: MIT */
/*
 * test_subscription.c - the table that finds a message's subscriptions: all that match and no others, in the order they were
 * made, while it grows and shrinks, also under a look-up of another thread.
 */
#include "fake.h"
#include "../lib/core/bus.h"

#include <pthread.h>

static ps_sub *add(ps_bus *bus, const char *filter)
{
    ps_sub *sub = NULL;
    assert_ok(ps_subscribe(bus, filter, NULL, NULL, NULL, &sub));
    return sub;
}

/* Who is found for a topic, as the dispatching thread would; taken back at once. */
static uint32_t look_up(ps_bus *bus, const char *text)
{
    ps_topic topic = { text, strlen(text), ps__hash(text, strlen(text), bus->host.seed) };
    int any = ps__subs_match(&bus->host, &topic);
    uint32_t count = bus->subs.match_count;
    assert_int_equal(any, count != 0);
    for (uint32_t i = 1; i < count; i++)
        assert_true(bus->subs.match[i - 1]->number < bus->subs.match[i]->number);
    bus->subs.match_count = bus->subs.match_next = 0;
    return count;
}

/* ---------------------------------------------------------------- found, and in order */

#define NAMES 3000

static const char *number_text(const char *format, unsigned number)
{
    static char text[8][64];
    static unsigned turn;
    char *at = text[turn++ % 8];
    snprintf(at, sizeof text[0], format, number % 10, number);
    return at;
}

static void test_table_grown_and_emptied_finds_exactly_what_is_there(void **state)
{
    (void)state;
    static ps_sub *name[NAMES], *wild[NAMES / 10];
    ps_bus *bus = fake_bus();
    for (unsigned i = 0; i < NAMES; i++) {
        name[i] = add(bus, number_text("g%u/n%u", i));
        if (i % 10 == 0)
            wild[i / 10] = add(bus, number_text("g%u/n%u/#", i));
        if ((i & (i - 1)) == 0 || i == NAMES - 1) {     /* around each time the table has grown */
            for (unsigned k = 0; k <= i; k++)
                assert_int_equal(look_up(bus, number_text("g%u/n%u", k)), 1 + (k % 10 == 0));
            assert_int_equal(look_up(bus, number_text("g%u/n%u", i + 1)), 0);
            assert_int_equal(look_up(bus, number_text("g%u/n%u/x", 0)), 1);
            assert_int_equal(look_up(bus, "g"), 0);
        }
    }
    assert_int_equal(bus->subs.count, NAMES + NAMES / 10);
    assert_int_equal(bus->subs.version & 1, 0);
    for (unsigned i = 0; i < NAMES; i++) {
        assert_ok(ps_unsubscribe(name[i]));
        assert_int_equal(look_up(bus, number_text("g%u/n%u", i)), i % 10 == 0);
        assert_int_equal(look_up(bus, number_text("g%u/n%u", NAMES - 1)), i < NAMES - 1);
    }
    for (unsigned i = 0; i < NAMES / 10; i++)
        assert_ok(ps_unsubscribe(wild[i]));
    assert_int_equal(bus->subs.count, 0);
    assert_int_equal(ps__load_rlx(&bus->subs.depths), 0);
    assert_null(bus->subs.graves);                      /* nobody dispatches: freed at once */
    assert_null(bus->subs.old_tables);
    assert_ok(ps_close(bus));
}

static void test_match_compares_names_not_only_hashes(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    (void)add(bus, "one");
    (void)add(bus, "two/#");
    ps_topic topic = { "oneself", 7, ps__hash("one", 3, bus->host.seed) };
    assert_int_equal(ps__subs_match(&bus->host, &topic), 0);
    topic.text = "eno";
    topic.len = 3;
    assert_int_equal(ps__subs_match(&bus->host, &topic), 0);
    topic.text = "one";
    assert_int_equal(ps__subs_match(&bus->host, &topic), 1);
    topic = (ps_topic){ "x", 1, ps__prefix_hash("two", 3, 1, bus->host.seed) };    /* the key of a wildcard filter */
    assert_int_equal(ps__subs_match(&bus->host, &topic), 0);
    bus->subs.match_count = bus->subs.match_next = 0;
    assert_ok(ps_close(bus));
}

static void note(const ps_msg *msg, void *user)
{
    uint64_t *last = user;
    if (msg->sub->number <= last[0])
        last[2]++;
    last[0] = msg->sub->number;
    last[1]++;
}

static void test_thousands_with_one_name_delivered_in_order_of_subscription(void **state)
{
    (void)state;
    static const char *const filters[] = { "a/b/c", "#", "a/b/c", "a/+/c", "a/b/c", "a/b/+", "+/b/c", "a/b/c/#", "a/#" };
    static ps_sub *sub[NAMES];
    uint64_t last[3] = { 0 };           /* number, deliveries, out of order */
    ps_bus *bus = fake_bus();
    for (unsigned i = 0; i < NAMES; i++)
        assert_ok(ps_subscribe(bus, filters[i % 9], note, last, NULL, &sub[i]));
    for (int round = 0; round < 5; round++) {
        last[0] = last[1] = 0;
        assert_int_equal(ps_publish(bus, "a/b/c", "x", 1), 3);
        assert_int_equal(ps_dispatch(bus, 0, 0), 1);
        assert_int_equal(last[1], NAMES);
        assert_int_equal(last[2], 0);
        for (unsigned i = 0; i < NAMES / 2; i++) {      /* who comes back comes last */
            unsigned k = (unsigned)(support_random() % NAMES);
            assert_ok(ps_unsubscribe(sub[k]));
            assert_ok(ps_subscribe(bus, filters[support_random() % 9], note, last, NULL, &sub[k]));
        }
    }
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- wildcards */

static void test_depths_tell_which_prefixes_are_looked_up(void **state)
{
    (void)state;
    static const struct { const char *filter; unsigned depth; const char *topic; } cases[] = {
        { "+/x", 0, "a/x" }, { "#", 0, "a" }, { "1/+", 1, "1/x" }, { "1/2/+", 2, "1/2/x" }, { "1/2/3/#", 3, "1/2/3" },
        { "1/2/3/4/+/6", 4, "1/2/3/4/5/6" }, { "1/2/3/4/5/#", 5, "1/2/3/4/5/x/y" }, { "1/2/3/4/5/6/+", 6, "1/2/3/4/5/6/x" },
        { "1/2/3/4/5/6/7/#", 7, "1/2/3/4/5/6/7/x" }, { "1/2/3/4/5/6/7/8/+", 8, "1/2/3/4/5/6/7/8/x" },
        { "1/2/3/4/5/6/7/8/9/10/11/+", 8, "1/2/3/4/5/6/7/8/9/10/11/x" },        /* deeper than what is hashed */
        { "1/2/3/4/5/6/7/8/9/10/11/12/#", 8, "1/2/3/4/5/6/7/8/9/10/11/12" }, { "//+", 2, "//" }, { "/#", 1, "/" },
    };
    enum { COUNT = sizeof cases / sizeof *cases };
    ps_bus *bus = fake_bus();
    ps_sub *sub[COUNT][2];
    for (unsigned i = 0; i < COUNT; i++) {              /* alone, so that nothing else leads there */
        sub[i][0] = add(bus, cases[i].filter);
        assert_int_equal(ps__load_rlx(&bus->subs.depths), 1u << cases[i].depth);
        assert_int_equal(look_up(bus, cases[i].topic), 1);
        assert_int_equal(look_up(bus, "1/2/3/4/5/6/7/8/9/10/11"), strcmp(cases[i].filter, "#") == 0 ||
                         strcmp(cases[i].filter, "1/2/3/#") == 0 || strcmp(cases[i].filter, "1/2/3/4/5/#") == 0 ||
                         strcmp(cases[i].filter, "1/2/3/4/5/6/7/#") == 0);
        assert_ok(ps_unsubscribe(sub[i][0]));
        assert_int_equal(ps__load_rlx(&bus->subs.depths), 0);
        assert_int_equal(look_up(bus, cases[i].topic), 0);
    }
    for (unsigned i = 0; i < COUNT; i++)
        for (int k = 0; k < 2; k++)
            sub[i][k] = add(bus, cases[i].filter);
    assert_int_equal(ps__load_rlx(&bus->subs.depths), 0x1ff);
    for (unsigned i = 0; i < COUNT; i++)
        assert_ok(ps_unsubscribe(sub[i][0]));
    assert_int_equal(ps__load_rlx(&bus->subs.depths), 0x1ff);   /* the twins need them still */
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(look_up(bus, cases[i].topic) >= 1);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- everything at once */

static void visit_count(void *arg, const ps_filter *filter, uint32_t flags)
{
    (void)filter;
    *(unsigned *)arg += flags == PS_EXACT ? 1001 : 1;
}

/* Levels that begin alike, and filters that come and go: what the last topic has left behind changes nothing for the next one. */
static void random_name(char text[64], int filter)
{
    static const char *const level[] = { "a", "ab", "abc", "abcdefghi", "", "$a" };
    size_t at = 0;
    unsigned levels = 1 + (unsigned)(support_random() % 3);
    for (unsigned i = 0; i < levels; i++) {
        const char *part = level[support_random() % 6];
        if (filter && support_random() % 3 == 0)
            part = i + 1 == levels && support_random() % 2 ? "#" : "+";
        at += (size_t)snprintf(text + at, 64 - at, i ? "/%s" : "%s", part);
    }
}

static void test_topics_in_a_row_each_found_as_if_alone(void **state)
{
    (void)state;
    struct { ps_sub *sub; char filter[64]; } live[24] = { { NULL, "" } };
    ps_bus *bus = fake_bus();
    char topic[64];
    unsigned found = 0;
    for (int round = 0; round < 12000; round++) {
        unsigned k = (unsigned)(support_random() % 24), expected = 0;
        if (round % 4 == 0 && live[k].sub) {
            assert_ok(ps_unsubscribe(live[k].sub));
            live[k].sub = NULL;
        } else if (round % 4 == 0) {
            random_name(live[k].filter, 1);
            if (ps_filter_valid(live[k].filter))
                live[k].sub = add(bus, live[k].filter);
        }
        random_name(topic, 0);
        if (!ps_topic_valid(topic))
            continue;
        for (unsigned i = 0; i < 24; i++)
            expected += live[i].sub && ps_topic_match(live[i].filter, topic);
        assert_int_equal(look_up(bus, topic), expected);
        found += expected;
    }
    assert_true(found > 3000);
    assert_ok(ps_close(bus));
}

static void test_each_visits_every_subscription_once(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    ps_sub_options exact = PS_SUB_OPTIONS_INIT;
    unsigned seen = 0;
    exact.flags = PS_EXACT;
    for (unsigned i = 0; i < 300; i++) {                /* whatever bucket they fall into */
        (void)add(bus, number_text("g%u/n%u", i));
        assert_ok(ps_subscribe(bus, number_text("e%u/m%u", i), NULL, NULL, &exact, NULL));
        seen = 0;
        ps__subs_each(&bus->host, visit_count, &seen);
        assert_int_equal(seen, (i + 1) * 1002);
    }
    assert_ok(ps_close(bus));
}

static void count_destroy(void *user) { ++*(int *)user; }

static void test_reset_ends_all_and_begins_anew(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    int destroyed = 0;
    options.destroy = count_destroy;
    for (unsigned i = 0; i < 100; i++)
        assert_ok(ps_subscribe(bus, i % 2 ? "a/+" : "a/b", NULL, &destroyed, &options, NULL));
    assert_int_equal(look_up(bus, "a/b"), 100);
    bus->subs.version |= 1;                             /* a fork in the middle of another thread's change */
    ps__subs_reset(&bus->subs);
    assert_int_equal(destroyed, 100);
    assert_int_equal(look_up(bus, "a/b"), 0);
    assert_int_equal(bus->subs.count, 0);
    assert_int_equal(ps__load_rlx(&bus->subs.depths), 0);
    assert_ok(ps_subscribe(bus, "a/b", NULL, &destroyed, &options, NULL));
    assert_int_equal(look_up(bus, "a/b"), 1);
    assert_ok(ps_close(bus));
    assert_int_equal(destroyed, 101);
}

/* ---------------------------------------------------------------- another thread changes it */

struct changer {
    ps_bus *bus;
    _Atomic int done, code;
};

#define CHANGES 1100                    /* the table grows four times on the way, the last time with a chain of a thousand */

static void *changer_thread(void *arg)
{
    static ps_sub *mine[CHANGES];
    struct changer *c = arg;
    int code = 0;
    for (unsigned i = 0; i < CHANGES && !code; i++)
        code = ps_subscribe(c->bus, i % 30 ? "t" : "+", NULL, NULL, NULL, &mine[i]);
    for (unsigned i = 0; i < CHANGES && !code; i++)
        code = ps_unsubscribe(mine[i]);
    c->code = code;
    c->done = 1;
    return NULL;
}

/* Looks until the other thread is done; how often not just those who stay were found, once each and in order. */
static unsigned look_until_done(struct changer *c, ps_sub *const stays[10])
{
    struct ps__subs *subs = &c->bus->subs;
    ps_topic topic = { "t", 1, ps__hash("t", 1, c->bus->host.seed) };
    unsigned wrong = 0;
    do {
        uint32_t found = 0, disorder = 0;
        (void)ps__subs_match(&c->bus->host, &topic);
        for (uint32_t i = 0; i < subs->match_count; i++) {
            disorder += i > 0 && subs->match[i - 1]->number >= subs->match[i]->number;
            found += found < 10 && subs->match[i] == stays[found];
        }
        wrong += found != 10 || disorder;
        subs->match_count = subs->match_next = 0;
        ps__subs_sweep(subs);
    } while (!c->done);
    return wrong;
}

static void test_look_up_under_changes_finds_who_stays_once_and_in_order(void **state)
{
    (void)state;
    for (int round = 0; round < 25; round++) {
        struct changer c = { .bus = fake_bus() };
        ps_sub *stays[10];
        pthread_t thread;
        for (int i = 0; i < 10; i++)
            stays[i] = add(c.bus, i % 2 ? "t" : "#");
        /* as a dispatch in progress: nothing is freed but by us */
        ps__store_rlx(&c.bus->owner, ps__thread_number() + 2u);
        assert_int_equal(pthread_create(&thread, NULL, changer_thread, &c), 0);
        unsigned wrong = look_until_done(&c, stays);
        assert_int_equal(pthread_join(thread, NULL), 0);
        ps__store_rel(&c.bus->owner, 0);
        assert_int_equal(c.code, 0);
        assert_int_equal(wrong, 0);
        assert_int_equal(look_up(c.bus, "t"), 10);
        assert_ok(ps_close(c.bus));
    }
}

#define FAKE_TEST(name) cmocka_unit_test_setup(name, fake_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAKE_TEST(test_table_grown_and_emptied_finds_exactly_what_is_there),
        FAKE_TEST(test_match_compares_names_not_only_hashes),
        FAKE_TEST(test_thousands_with_one_name_delivered_in_order_of_subscription),
        FAKE_TEST(test_depths_tell_which_prefixes_are_looked_up),
        FAKE_TEST(test_topics_in_a_row_each_found_as_if_alone),
        FAKE_TEST(test_each_visits_every_subscription_once),
        FAKE_TEST(test_reset_ends_all_and_begins_anew),
        FAKE_TEST(test_look_up_under_changes_finds_who_stays_once_and_in_order),
    };
    return cmocka_run_group_tests_name("subscription", tests, NULL, NULL);
}
