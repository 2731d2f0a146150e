/* SPDX-License-Identifier: MIT */
/*
 * test_sift.c - a reader that wants little asks digests instead of cells: it gets every message that it wants, in order, and
 * counts the others to the message, whatever digests are there; and it does not look at the cells it steps over.
 */
#include "forge.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

extern uint64_t ps__test_start_sequence;        /* in the test variant of the library: where a fresh lane starts */

#define NONE UINT64_C(0)                /* no digest */
#define ALL  UINT64_C(0xffffffff)       /* in a digest: nobody wants it */
#define FEW  100                        /* unwanted messages that make a reader sift */

struct sift {
    ps_bus *from, *reader, *rest;       /* rest wants everything, or it would not be sent */
    uint64_t next;                      /* the number of the next message */
    uint64_t wanted[8192];              /* numbers of those that the reader wants */
    unsigned sent, seen, wrong, taken;
    uint64_t lost;
};

static void sift_take(const ps_msg *msg, void *user)
{
    struct sift *s = user;
    s->taken++;
    s->lost += msg->lost;
    while (s->lost && s->seen < s->sent && s->wanted[s->seen] < msg->sequence)
        s->seen++;                      /* was among the lost */
    s->wrong += s->seen == s->sent || s->wanted[s->seen] != msg->sequence || strcmp(msg->topic, "wanted") != 0;
    s->seen++;
}

static void sift_rest(const ps_msg *msg, void *user) { (void)msg, (void)user; }
static void sift_count(const ps_msg *msg, void *user) { (void)msg, ++*(unsigned *)user; }

static void sift_open_with(struct sift *s, const char *scheme, const char *options, const char *reader, ps_handler take)
{
    char url[256], lossy[300];
    memset(s, 0, sizeof *s);
    snprintf(url, sizeof url, "%s", support_url(scheme, "sift", options));
    snprintf(lossy, sizeof lossy, "%s&lossy=1", url);
    assert_ok(ps_open(&s->from, url));
    assert_ok(ps_open(&s->rest, lossy));
    assert_ok(ps_subscribe(s->rest, "#", sift_rest, NULL, NULL, NULL));
    snprintf(lossy, sizeof lossy, "%s%s", url, reader);
    assert_ok(ps_open(&s->reader, lossy));
    assert_ok(ps_subscribe(s->reader, "wanted", take, s, NULL, NULL));
}

static void sift_open(struct sift *s, const char *scheme, const char *options, const char *reader)
{
    sift_open_with(s, scheme, options, reader, sift_take);
}

static void sift_close(struct sift *s)
{
    assert_ok(ps_close(s->reader));
    assert_ok(ps_close(s->rest));
    assert_ok(ps_close(s->from));
}

static void sift_publish(struct sift *s, int wanted)
{
    if (wanted)
        s->wanted[s->sent++] = s->next;
    assert_true(ps_publish(s->from, wanted ? "wanted" : "unwanted", "x", 1) > 0);
    s->next++;
}

static void sift_publish_unwanted(struct sift *s, unsigned count)
{
    while (count--)
        sift_publish(s, 0);
}

static uint64_t sift_unwanted(struct sift *s) { return forge_stats(s->reader).unwanted; }

/* Nothing of what it looked at last was copied, and that was not little. */
static int sifts(struct sift *s)
{
    const struct ps__port *port = &forge_shm(s->reader)->port;
    return port->window.looked >= 16 && port->window.count == 0;
}

/* From here on the reader sifts. */
static void sift_begin(struct sift *s)
{
    sift_publish_unwanted(s, FEW);
    assert_int_equal(ps_dispatch(s->reader, 0, 0), 0);
    assert_int_equal(sift_unwanted(s), FEW);
    assert_true(sifts(s));
}

static ps__a64 *sift_digest(struct sift *s, uint64_t number)
{
    const struct ps__view *own = &forge_shm(s->from)->port.own;
    return &own->digest[number & (own->cells - 1)];
}

/* A digest is believed if it is of that message, and only then. */
static void test_sift_believes_the_digest_of_that_message_only(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=256", "");
    sift_begin(&s);
    sift_publish_unwanted(&s, 20);
    uint64_t first = s.next;
    for (int i = 0; i < 6; i++)
        sift_publish(&s, 1);
    sift_publish_unwanted(&s, 20);
    uint64_t own = ps__set_bit(forge_shm(s.reader)->port.slot);
    assert_int_equal(ps__load_rlx(sift_digest(&s, first - 1)) & own, own);      /* of "unwanted" */
    assert_int_equal(ps__load_rlx(sift_digest(&s, first)) & own, 0);
    const uint64_t digest[] = {
        (first + 1) << 32 | own, NONE, (first + 3 + 256) << 32 | ALL, (first + 4 - 256) << 32 | ALL, (first + 4) << 32 | ALL,
        (first + 6) << 32 | (ALL & ~own),
    };
    for (unsigned i = 0; i < 6; i++)
        ps__store_rlx(sift_digest(&s, first + i), digest[i]);
    s.seen = 1;                         /* the first one is passed over: its cell is not looked at */
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 5);
    assert_int_equal(s.seen, 6);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(sift_unwanted(&s), FEW + 41);
    sift_close(&s);
}

/* Whoever dies behind the commit and before the digest has sent a message, wanted or not. */
static void test_sift_without_digests_asks_the_cells(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=256", "");
    for (int round = 0; round < 3; round++) {
        sift_publish_unwanted(&s, FEW);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
        assert_true(sifts(&s));
        for (int i = 0; i < 100; i++)
            sift_publish(&s, i % 10 == 9);
        for (uint64_t number = s.next - 100; number != s.next; number++)
            ps__store_rlx(sift_digest(&s, number), round ? NONE : (number + 1 - 256) << 32 | ALL);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 10);
        assert_int_equal(s.wrong, 0);
        assert_int_equal(sift_unwanted(&s), (uint64_t)(round + 1) * (FEW + 90));
    }
    sift_close(&s);
}

/* A claim that is not committed ends the look, also where later ones are there; then all of them come. */
static void test_sift_stops_before_an_unfinished_message(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=256", "");
    sift_begin(&s);
    sift_publish_unwanted(&s, 30);
    uint64_t gap = s.next;
    sift_publish_unwanted(&s, 1);
    sift_publish(&s, 1);
    sift_publish_unwanted(&s, 30);
    struct ps__cell *cell = forge_cell(s.from, (unsigned)(gap & 255));
    uint64_t digest = ps__load_rlx(sift_digest(&s, gap));
    ps__store_rlx(&cell->stamp, gap + 1 - 256);
    ps__store_rlx(sift_digest(&s, gap), NONE);
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
    assert_int_equal(sift_unwanted(&s), FEW + 30);
    ps__store_rel(&cell->stamp, gap + 1);
    ps__store_rel(sift_digest(&s, gap), digest);
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 1);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(sift_unwanted(&s), FEW + 61);
    sift_close(&s);
}

/* What is published behind a subscribe comes, though the reader sifted the same topic away just before. */
static void test_sift_new_subscription_gets_what_comes_behind_it(void **state)
{
    (void)state;
    struct sift s;
    ps_sub *sub;
    sift_open(&s, "shm", "depth=8192", "");
    for (int round = 0; round < 10; round++) {
        sift_publish_unwanted(&s, FEW);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
        assert_true(sifts(&s));
        assert_ok(ps_subscribe(s.reader, "unwanted", sift_rest, NULL, NULL, &sub));
        sift_publish_unwanted(&s, FEW);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), FEW);
        assert_ok(ps_unsubscribe(sub));
    }
    assert_int_equal(sift_unwanted(&s), 10 * FEW);
    sift_close(&s);
}

/* So that a reader who polls does not chase a flood that is not for it, and slow down who sends it. */
static void test_sift_what_is_passed_over_counts_for_staying_behind(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=256", "");
    for (unsigned round = 1; round < 4; round++) {
        forge_shm(s.reader)->port.lag.got = 0;
        sift_publish_unwanted(&s, FEW);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
        assert_int_equal(forge_shm(s.reader)->port.lag.got, FEW);
    }
    sift_close(&s);
}

struct newcomer {
    struct sift s;
    atomic_uint go, done;               /* rounds */
    unsigned pause, count, gaps;
    uint64_t last;
    ps_sub *sub;
};

static void newcomer_take(const ps_msg *msg, void *user)
{
    struct newcomer *n = user;
    n->gaps += n->count && msg->sequence != n->last + 1;
    n->last = msg->sequence;
    n->count++;
}

static void *newcomer_main(void *arg)
{
    struct newcomer *n = arg;
    for (unsigned round = 1;; round++) {
        unsigned go;
        while ((go = atomic_load(&n->go)) < round) { }
        if (go == UINT_MAX)
            return NULL;
        for (volatile unsigned i = 0; i < n->pause; i++) { }
        if (ps_subscribe(n->s.reader, "unwanted", newcomer_take, n, NULL, &n->sub) != 0)
            n->s.wrong++;
        atomic_store(&n->done, round);
    }
}

/*
 * A subscription that comes while a backlog of its topic is read begins somewhere in it, and gets all from there on; also where
 * some of it has no digest and is asked by what is wanted now.
 */
static void test_sift_new_subscription_begins_somewhere_and_has_no_gaps(void **state)
{
    (void)state;
    struct newcomer n = { .go = 0 };
    pthread_t thread;
    sift_open(&n.s, "shm", "depth=1024", "");
    assert_int_equal(pthread_create(&thread, NULL, newcomer_main, &n), 0);
    for (unsigned round = 1; round <= 1000; round++) {
        sift_publish_unwanted(&n.s, FEW);
        assert_int_equal(ps_dispatch(n.s.reader, 0, 0), 0);
        uint64_t first = n.s.next;
        sift_publish_unwanted(&n.s, 800);
        for (uint64_t number = first + 5; round % 2 && number < n.s.next; number += 150)
            ps__store_rlx(sift_digest(&n.s, number), NONE);
        n.count = 0;
        n.pause = (unsigned)(support_random() % 3000);
        unsigned pause = (unsigned)(support_random() % 6000);
        atomic_store(&n.go, round);
        for (volatile unsigned i = 0; i < pause; i++) { }
        n.s.wrong += ps_dispatch(n.s.reader, 0, 0) < 0;
        while (atomic_load(&n.done) != round) { }
        while (ps_dispatch(n.s.reader, 0, 0) > 0) { }
        n.gaps += n.count && n.last != n.s.next - 1;
        n.s.wrong += ps_unsubscribe(n.sub) != 0;
    }
    atomic_store(&n.go, UINT_MAX);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n.gaps, 0);
    assert_int_equal(n.s.wrong, 0);
    sift_close(&n.s);
}

struct order {
    unsigned count, wrong;
    uint64_t expected;
};

static void order_take(const ps_msg *msg, void *user)
{
    struct order *o = user;
    o->wrong += msg->sequence != o->expected++;
    o->count++;
}

/*
 * What is left in a window was asked by what was wanted when it was sifted. A subscription that comes before it is taken gets what
 * lies behind it as well, though that was spared: here because it was sent while the topic was not wanted, or has no digest.
 */
static void test_sift_new_subscription_gets_a_window_that_is_left_as_a_whole(void **state)
{
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        struct sift s;
        struct order order = { 0, 0, 0 };
        unsigned count = 0;
        ps_sub *sub;
        sift_open(&s, "shm", "depth=1024", "");
        assert_ok(ps_subscribe(s.reader, "room/+/x", sift_count, &count, NULL, NULL));
        assert_ok(ps_subscribe(s.reader, "x", sift_count, &count, NULL, &sub));
        for (int i = 0; i < 3; i++) {
            sift_publish_unwanted(&s, FEW);
            assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
        }
        assert_true(sifts(&s));
        sift_publish_unwanted(&s, 20);
        sift_publish(&s, 1);
        order.expected = s.next;
        if (variant)
            assert_ok(ps_unsubscribe(sub));
        assert_true(ps_publish(s.from, "x", "", 0) > 0);
        if (variant)
            ps__store_rlx(sift_digest(&s, s.next), NONE);
        else
            assert_ok(ps_unsubscribe(sub));
        assert_true(ps_publish(s.from, "x", "", 0) > 0);
        assert_true(ps_publish(s.from, "x", "", 0) > 0);
        assert_int_equal(ps_dispatch(s.reader, 1, 0), 1);
        assert_int_equal(s.seen, 1);
        assert_ok(ps_subscribe(s.reader, "x", order_take, &order, NULL, NULL));
        assert_true(ps_publish(s.from, "x", "", 0) > 0);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 4);
        assert_int_equal(order.count, 4);
        assert_int_equal(order.wrong, 0);
        sift_close(&s);
    }
}

/* A wildcard filter cannot be asked by a hash, so that all is copied at first; but the publisher knows who wants what. */
static void test_sift_wildcard_reader_sifts_as_well(void **state)
{
    (void)state;
    static const char *const schemes[] = { "shm", "inproc" };
    for (int t = 0; t < 2; t++) {
        struct sift s;
        unsigned count = 0;
        sift_open(&s, schemes[t], "depth=1024", "");
        assert_ok(ps_subscribe(s.reader, "room/+/x", sift_count, &count, NULL, NULL));
        for (unsigned round = 1; round <= 8; round++) {
            sift_publish_unwanted(&s, FEW);
            assert_true(ps_publish(s.from, "room/1/x", "", 0) > 0);
            assert_true(ps_publish(s.from, "room/1/y", "", 0) > 0);     /* by its prefix it might be wanted */
            s.next += 2;
            sift_publish(&s, 1);
            assert_int_equal(ps_dispatch(s.reader, 0, 0), 2);
            sift_publish_unwanted(&s, FEW);
            assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
            assert_true(sifts(&s));
            assert_int_equal(sift_unwanted(&s), round * (2 * FEW + 1));
            assert_int_equal(count, round);
            assert_int_equal(s.wrong, 0);
        }
        sift_close(&s);
    }
}

/* On a bus of more members than bits, and than words, those that share a bit get what they want, and are told of no more. */
static void test_sift_members_that_share_a_bit_get_their_own(void **state)
{
    (void)state;
    static const unsigned members[] = { 40, 70, 200 };
    for (unsigned t = 0; t < 3; t++) {
        static ps_bus *bus[200];
        static unsigned count[200];
        char url[200], topic[16];
        ps_bus *from;
        snprintf(url, sizeof url, "%s", support_url("inproc", "sift", "members=256&depth=1024"));
        memset(count, 0, sizeof count);
        assert_ok(ps_open(&from, url));
        for (unsigned i = 0; i < members[t]; i++) {
            snprintf(topic, sizeof topic, "user/%u", i);
            assert_ok(ps_open(&bus[i], url));
            assert_ok(ps_subscribe(bus[i], topic, sift_count, &count[i], NULL, NULL));
        }
        for (unsigned round = 0; round < 4; round++) {
            for (unsigned i = 0; i < members[t]; i++) {
                snprintf(topic, sizeof topic, "user/%u", i);
                for (unsigned k = 0; k < 3; k++)
                    assert_int_equal(ps_publish(from, topic, "", 0), 1);
            }
            for (unsigned i = 0; i < members[t]; i++)
                assert_int_equal(ps_dispatch(bus[i], 0, 0), 3);
        }
        for (unsigned i = 0; i < members[t]; i++) {
            assert_int_equal(count[i], 12);
            assert_int_equal(forge_stats(bus[i]).unwanted, 12 * (members[t] - 1));
            assert_ok(ps_close(bus[i]));
        }
        assert_ok(ps_close(from));
    }
}

/* Chance messages, taken all at once or a few at a time, over many laps, and where 32 bits of numbers come round. */
static void test_sift_chance_messages_all_come(void **state)
{
    (void)state;
    static const struct { const char *scheme, *reader; uint64_t start; unsigned one_in; } cases[] = {
        { "shm", "", 0, 10 },
        { "shm", "", 0, 100 },
        { "inproc", "", 0xfffff000u, 30 },
        { "inproc", "&lossy=1", 0xfffff000u, 5 },
        { "inproc", "", UINT64_C(0x1fffff000), 100 },
    };
    for (unsigned t = 0; t < sizeof cases / sizeof *cases; t++) {
        struct sift s;
        ps__test_start_sequence = cases[t].start;
        sift_open(&s, cases[t].scheme, "depth=512", cases[t].reader);
        ps__test_start_sequence = 0;
        s.next = cases[t].start;
        while (s.next - cases[t].start < 20000) {
            for (unsigned n = 1 + (unsigned)(support_random() % 500); n; n--)
                sift_publish(&s, support_random() % cases[t].one_in == 0);
            int few = support_random() % 2 ? 1 + (int)(support_random() % 3) : 0;
            while (s.seen != s.sent)
                assert_true(ps_dispatch(s.reader, few, 0) > 0);
            assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
            assert_int_equal(s.wrong, 0);
        }
        assert_int_equal(sift_unwanted(&s), s.next - cases[t].start - s.sent);
        assert_int_equal(s.lost, 0);
        sift_close(&s);
    }
}

/* A reader that is lapped before it looks: each number is seen, passed over or lost, and once. */
static void test_sift_lapped_reader_counts_what_it_lost(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=256", "&lossy=1");
    for (int round = 0; round < 50; round++) {
        for (unsigned n = (unsigned)(support_random() % 1000); n; n--)
            sift_publish(&s, support_random() % 20 == 0);
        while (ps_dispatch(s.reader, 0, 0) > 0) { }
    }
    sift_publish(&s, 1);                /* tells of all that was lost before */
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 1);
    assert_int_equal(s.wrong, 0);
    assert_true(s.lost > 0 && sift_unwanted(&s) > 0);
    assert_int_equal(s.lost, forge_stats(s.reader).lost);
    assert_int_equal(s.taken + sift_unwanted(&s) + s.lost, s.next);
    sift_close(&s);
}

#define FLOOD 1000000u

struct flood {
    struct sift s;
    atomic_uint sent, refused;
};

static void *flood_main(void *arg)
{
    struct flood *f = arg;
    for (unsigned i = 0; i < FLOOD; i++) {
        if (ps_publish(f->s.from, i % 37 == 0 ? "wanted" : "unwanted", &i, sizeof i) < 1)
            atomic_fetch_add(&f->refused, 1);
        atomic_store_explicit(&f->sent, i + 1, memory_order_relaxed);
    }
    return NULL;
}

static void flood_take(const ps_msg *msg, void *user)
{
    struct sift *s = user;
    uint32_t number;
    memcpy(&number, msg->data, sizeof number);
    s->wrong += msg->size != sizeof number || number != msg->sequence || number % 37 != 0 || number < s->next;
    s->next = (uint64_t)number + 1;
    s->taken++;
    s->lost += msg->lost;
}

/* And one that is lapped while it looks: it comes when it is late, so it begins where its publisher is about to overwrite. */
static void test_sift_reader_under_a_flood_counts_each_number_once(void **state)
{
    (void)state;
    static const char *const schemes[] = { "shm", "inproc" };
    for (int t = 0; t < 2; t++) {
        struct flood f = { 0 };
        pthread_t thread;
        sift_open_with(&f.s, schemes[t], "depth=512", "&lossy=1", flood_take);
        assert_int_equal(pthread_create(&thread, NULL, flood_main, &f), 0);
        for (unsigned sent = 0, last = 0; sent < FLOOD; last = sent) {
            while ((sent = atomic_load_explicit(&f.sent, memory_order_relaxed)) - last < 600 && sent < FLOOD) { }
            if (ps_dispatch(f.s.reader, 0, 0) < 0)
                f.s.wrong++;
        }
        pthread_join(thread, NULL);
        while (ps_dispatch(f.s.reader, 0, 0) > 0) { }
        assert_int_equal(atomic_load(&f.refused), 0);
        assert_int_equal(f.s.wrong, 0);
        ps_bus_stats stats = forge_stats(f.s.reader);
        assert_int_equal(f.s.taken + stats.unwanted + stats.lost, FLOOD);
        assert_true(stats.unwanted > 0 && stats.lost > 0);
        sift_close(&f.s);
    }
}

/*
 * A reader that a publisher has taken for dead, though it lives, joins again, and then asks the cells: digests of that time spare
 * it. What was overwritten meanwhile it is told of.
 */
static void test_sift_reader_that_was_taken_for_dead_misses_nothing_that_is_there(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "shm", "depth=1024", "");
    sift_begin(&s);
    struct ps__port *port = &forge_shm(s.from)->port;
    unsigned slot = forge_shm(s.reader)->port.slot;
    ps__slot_drop(forge_shm(s.reader), slot);
    while (!ps__load_rlx(&port->dead_set[0]))
        sift_publish_unwanted(&s, 1);
    sift_publish_unwanted(&s, 400);
    for (int i = 0; i < 3; i++)
        sift_publish(&s, 1);
    sift_publish_unwanted(&s, 20);
    assert_true(ps__load_rlx(sift_digest(&s, s.wanted[0])) >> slot & 1);
    while (ps_dispatch(s.reader, 0, 0) > 0) { }
    assert_int_equal(s.taken, 3);
    assert_int_equal(s.wrong, 0);
    assert_true(s.lost > 0);
    sift_publish_unwanted(&s, FEW);
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 0);
    sift_publish(&s, 1);
    assert_int_equal(ps_dispatch(s.reader, 0, 0), 1);
    assert_int_equal(s.taken + sift_unwanted(&s) + s.lost, s.next);
    sift_close(&s);
}

/* A handle with echo=0 passes over its own messages on a shared lane, sifting or not. */
static void test_sift_own_messages_are_passed_over(void **state)
{
    (void)state;
    struct sift s;
    sift_open(&s, "inproc", "depth=512", "&echo=0");
    for (int round = 0; round < 4; round++) {
        sift_publish_unwanted(&s, 50);
        for (int i = 0; i < 3; i++) {
            assert_true(ps_publish(s.reader, "wanted", "mine", 4) > 0);
            s.next++;
        }
        sift_publish(&s, 1);
        sift_publish_unwanted(&s, 50);
        assert_int_equal(ps_dispatch(s.reader, 0, 0), 1);
        assert_int_equal(s.wrong, 0);
    }
    assert_int_equal(sift_unwanted(&s), s.next - s.sent);
    sift_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sift_believes_the_digest_of_that_message_only),
        cmocka_unit_test(test_sift_without_digests_asks_the_cells),
        cmocka_unit_test(test_sift_stops_before_an_unfinished_message),
        cmocka_unit_test(test_sift_new_subscription_gets_what_comes_behind_it),
        cmocka_unit_test(test_sift_what_is_passed_over_counts_for_staying_behind),
        cmocka_unit_test(test_sift_new_subscription_begins_somewhere_and_has_no_gaps),
        cmocka_unit_test(test_sift_new_subscription_gets_a_window_that_is_left_as_a_whole),
        cmocka_unit_test(test_sift_wildcard_reader_sifts_as_well),
        cmocka_unit_test(test_sift_members_that_share_a_bit_get_their_own),
        cmocka_unit_test(test_sift_chance_messages_all_come),
        cmocka_unit_test(test_sift_lapped_reader_counts_what_it_lost),
        cmocka_unit_test(test_sift_reader_under_a_flood_counts_each_number_once),
        cmocka_unit_test(test_sift_reader_that_was_taken_for_dead_misses_nothing_that_is_there),
        cmocka_unit_test(test_sift_own_messages_are_passed_over),
    };
    return cmocka_run_group_tests_name("sift", tests, NULL, NULL);
}
