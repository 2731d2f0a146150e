/* SPDX-License-Identifier: MIT */
/*
 * test_wrap.c - counters that wrap change nothing: lanes that start just before 2^32 (and 2^33) messages and 2^32 payload
 * units, small rings, all kinds of payload, reliable, lossy, joining, evicted and loaning handles.
 */
#include "actors.h"

#include <pthread.h>

/* In the test variant of the library: where a fresh lane starts; 0: at its usual place. */
extern uint64_t ps__test_start_sequence;
extern uint32_t ps__test_start_position;

struct start {
    const char *scheme;
    uint64_t sequence;
    uint32_t position;
};

static const struct start starts[] = {
    { "inproc", UINT64_C(0xfffffffd), 0xfffffffdu },
    { "shm", UINT64_C(0xfffffffd), 0xfffffffdu },
    { "inproc", UINT64_C(0x1fffffffd), 0xfffffff0u },
    { "shm", UINT64_C(0x1fffffffd), 0xfffffff0u },
    /* a packed word is wrapped in one half long before the other, and at the sign change of a 32-bit difference */
    { "shm", UINT64_C(0x7ffffffd), 0x7ffffffdu },
    { "shm", UINT64_C(0xffffffe0), 1 },
    { "inproc", UINT64_C(0xfffffffffffd), 0xffffffffu },
};
#define STARTS (sizeof starts / sizeof *starts)

static const char *const depths[] = { "depth=2&bytes=4k", "depth=8&bytes=8k", "depth=64&bytes=16k" };
static const uint64_t depth_of[] = { 2, 8, 64 };

static const char *wrap_url(const struct start *start, const char *depth, const char *more)
{
    char options[128];
    ps__test_start_sequence = start->sequence;
    ps__test_start_position = start->position;
    snprintf(options, sizeof options, "%s%s%s", depth, *more ? "&" : "", more);
    return support_url(start->scheme, "wrap", options);
}

static int wrap_teardown(void **state)
{
    (void)state;
    ps__test_start_sequence = 0;
    ps__test_start_position = 0;
    return 0;
}

/* Sizes for the three homes of a payload: in the cell, in the payload ring, and as large as goes, which wraps it often. */
enum { SMALL, RING, LARGE, MIXED };

static size_t pick_size(int kind, uint64_t message_max)
{
    size_t least = sizeof(struct support_message);
    switch (kind) {
    case SMALL: return least + support_random() % 24;
    case RING: return 200 + support_random() % 300;
    case LARGE: return message_max - support_random() % 200;
    default: return support_random() % 3 == 0 ? pick_size(LARGE, message_max) : pick_size((int)(support_random() % 2), message_max);
    }
}

static uint64_t message_max(ps_bus *bus)
{
    ps_bus_stats st = PS_BUS_STATS_INIT;
    assert_ok(ps_stats(bus, &st));
    return st.message_max < 1 << 16 ? st.message_max : 1 << 16;
}

/* Numbers of one stream follow each other; what is missing in between is in lost. */
struct stream {
    struct inbox in;
    uint64_t expected, wrong;           /* the sequence that should come next; 0: not known yet */
};

static void stream_take(const ps_msg *msg, void *user)
{
    struct stream *st = user;
    if (st->expected && msg->sequence - msg->lost != st->expected)
        st->wrong++;
    st->expected = msg->sequence + 1;
    inbox_take(msg, &st->in);
}

static void assert_whole(const struct stream *st, uint64_t count)
{
    assert_int_equal(st->in.damaged, 0);
    assert_int_equal(st->in.skipped, 0);
    assert_int_equal(st->in.repeated, 0);
    assert_int_equal(st->in.lost, 0);
    assert_int_equal(st->wrong, 0);
    assert_int_equal(st->in.count, count);
}

/* ---------------------------------------------------------------- reliable traffic */

static void test_p5_reliable_traffic_across_every_wrap_is_whole(void **state)
{
    (void)state;
    static struct stream got;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            for (int kind = SMALL; kind <= MIXED; kind++) {
                ps_bus *a, *b;
                uint64_t sent = 0, total = 6 * depth_of[d] + 60;
                const char *url = wrap_url(&starts[s], depths[d], "");
                memset(&got, 0, sizeof got);
                assert_ok(ps_open(&a, url));
                assert_ok(ps_open(&b, url));
                assert_ok(ps_subscribe(b, "t/+", stream_take, &got, NULL, NULL));
                uint64_t max = message_max(a);
                while (sent < total) {
                    static unsigned char text[1 << 16];
                    size_t size = pick_size(kind, max);
                    support_compose(text, size, 1, sent);
                    int rc = ps_publish(a, "t/1", text, size);
                    if (rc == PS_EAGAIN) {
                        assert_true(ps_dispatch(b, 1 + (int)(support_random() % 3), 0) > 0);
                        continue;
                    }
                    assert_int_equal(rc, 1);
                    if (sent == 0) {
                        assert_int_equal(ps_dispatch(b, 1, 0), 1);
                        /* The hook is in force, or the test proves nothing. */
                        assert_true(got.in.sequence - starts[s].sequence < 4);
                    }
                    sent++;
                }
                assert_int_equal(hear(b, &got.in, total), 0);
                assert_whole(&got, total);
                assert_ok(ps_close(b));
                assert_ok(ps_close(a));
            }
        }
    }
}

/* ---------------------------------------------------------------- lossy: exact numbers */

static void test_p5_lossy_reader_lapped_across_every_wrap_counts_exactly(void **state)
{
    (void)state;
    static struct stream got;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            ps_bus *a, *b;
            uint64_t sent = 0;
            ps_bus_stats st = PS_BUS_STATS_INIT;
            /* The handles of one bus differ in an option: the name is the first one's. */
            char url[200], lossy[256];
            snprintf(url, sizeof url, "%s", wrap_url(&starts[s], depths[d], ""));
            snprintf(lossy, sizeof lossy, "%s&lossy=1", url);
            memset(&got, 0, sizeof got);
            assert_ok(ps_open(&a, url));
            assert_ok(ps_open(&b, lossy));
            assert_ok(ps_subscribe(b, "t/+", stream_take, &got, NULL, NULL));
            assert_int_equal(say(a, "t/1", 1, sent++, 64), 1);
            assert_int_equal(ps_dispatch(b, 0, 0), 1);
            for (int round = 0; round < 12; round++) {
                uint64_t burst = 1 + support_random() % (4 * depth_of[d]);
                for (uint64_t i = 0; i < burst; i++)
                    assert_int_equal(say(a, "t/1", 1, sent++, pick_size(MIXED, 600)), 1);
                while (ps_dispatch(b, 0, 0) > 0)
                    ;
                /* The last one is always there: what was read and what was lost is all there was. */
                assert_int_equal(got.in.count + got.in.lost, sent);
                assert_ok(ps_stats(b, &st));
                assert_int_equal(st.lost, got.in.lost);
            }
            assert_int_equal(got.in.damaged + got.in.repeated, 0);
            assert_int_equal(got.in.skipped, got.in.lost);
            assert_int_equal(got.wrong, 0);
            assert_true(got.in.lost > 0);
            assert_ok(ps_close(b));
            assert_ok(ps_close(a));
        }
    }
}

/* ---------------------------------------------------------------- joins */

static void test_p3_joining_at_each_number_around_the_wrap_sees_exactly_what_follows(void **state)
{
    (void)state;
    static struct stream old, young;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            ps_bus *a, *b;
            ps_bus *c;
            uint64_t sent = 0;
            char url[200];
            snprintf(url, sizeof url, "%s", wrap_url(&starts[s], depths[d], ""));
            memset(&old, 0, sizeof old);
            assert_ok(ps_open(&a, url));
            assert_ok(ps_open(&b, url));
            assert_ok(ps_subscribe(b, "t/+", stream_take, &old, NULL, NULL));
            for (int round = 0; round < 16; round++) {
                memset(&young, 0, sizeof young);
                assert_ok(ps_open(&c, url));
                assert_ok(ps_subscribe(c, "t/1", stream_take, &young, NULL, NULL));
                young.in.next[1] = sent;
                for (uint64_t i = 0; i < 2; i++)
                    assert_int_equal(say(a, "t/1", 1, sent++, pick_size(MIXED, 900)), 2);
                assert_int_equal(ps_dispatch(c, 0, 0), 2);
                assert_whole(&young, 2);
                assert_int_equal(hear(b, &old.in, sent), 0);
                assert_ok(ps_close(c));
                assert_int_equal(say(a, "t/1", 1, sent++, 64), 1);
                assert_int_equal(hear(b, &old.in, sent), 0);
            }
            assert_whole(&old, sent);
            assert_ok(ps_close(b));
            assert_ok(ps_close(a));
        }
    }
}

/* ---------------------------------------------------------------- evictions */

static void test_p7_eviction_across_every_wrap_counts_exactly(void **state)
{
    (void)state;
    static struct stream slow, quick;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            ps_bus *a, *b, *c;
            uint64_t sent = 0;
            ps_bus_stats st = PS_BUS_STATS_INIT;
            char url[200];
            snprintf(url, sizeof url, "%s", wrap_url(&starts[s], depths[d], "evict=3"));
            memset(&slow, 0, sizeof slow);
            memset(&quick, 0, sizeof quick);
            assert_ok(ps_open(&a, url));
            assert_ok(ps_open(&b, url));
            assert_ok(ps_open(&c, url));
            assert_ok(ps_subscribe(b, "t/+", stream_take, &slow, NULL, NULL));
            assert_ok(ps_subscribe(c, "t/+", stream_take, &quick, NULL, NULL));
            assert_int_equal(say(a, "t/1", 1, sent++, 64), 2);
            assert_int_equal(ps_dispatch(b, 0, 0), 1);
            for (int round = 0; round < 3; round++) {
                uint64_t burst = depth_of[d] + 3 + support_random() % 5;
                for (uint64_t i = 0; i < burst; i++) {
                    assert_true(say(a, "t/1", 1, sent++, 64) >= 1);
                    assert_int_equal(hear(c, &quick.in, sent), 0);
                }
                assert_ok(ps_stats(b, &st));
                while (ps_dispatch(b, 0, 0) > 0)
                    ;
                assert_ok(ps_stats(b, &st));
                assert_int_equal(st.evicted, (uint64_t)round + 1);
                assert_int_equal(slow.in.count + slow.in.lost, sent);
                assert_int_equal(st.lost, slow.in.lost);
            }
            assert_ok(ps_stats(a, &st));
            assert_int_equal(st.evictions, 3);
            assert_int_equal(slow.in.damaged + slow.in.repeated + slow.wrong, 0);
            assert_int_equal(slow.in.skipped, slow.in.lost);
            assert_whole(&quick, sent);
            assert_ok(ps_close(c));
            assert_ok(ps_close(b));
            assert_ok(ps_close(a));
        }
    }
}

/* ---------------------------------------------------------------- loans */

static void test_p5_loans_across_every_wrap_are_whole(void **state)
{
    (void)state;
    static struct stream got;
    for (size_t s = 0; s < STARTS; s++) {
        ps_bus *a, *b;
        const char *url = wrap_url(&starts[s], "depth=8&bytes=8k&loans=16k", "");
        uint64_t sent = 0;
        memset(&got, 0, sizeof got);
        assert_ok(ps_open(&a, url));
        assert_ok(ps_open(&b, url));
        assert_ok(ps_subscribe(b, "t/+", stream_take, &got, NULL, NULL));
        while (sent < 100) {
            void *loan = NULL;
            size_t size = pick_size(MIXED, 3000);
            int rc = support_random() % 3 ? ps_loan(a, "t/1", size, &loan) : 1;
            if (rc == 0) {
                support_compose(loan, size, 1, sent);
                rc = ps_commit(a, loan, size);
                if (rc == PS_EAGAIN)
                    assert_ok(ps_cancel(a, loan));
            } else if (rc == 1) {
                rc = say(a, "t/1", 1, sent, 64);
            }
            assert_true(rc == 1 || rc == PS_EAGAIN);
            sent += rc == 1;
            if (rc == PS_EAGAIN || support_random() % 3 == 0)
                assert_true(ps_dispatch(b, 0, 0) >= 0);
            if (got.in.count + 6 < sent)
                assert_int_equal(hear(b, &got.in, sent), 0);
        }
        assert_int_equal(hear(b, &got.in, sent), 0);
        assert_whole(&got, sent);
        assert_ok(ps_close(b));
        assert_ok(ps_close(a));
    }
}

/* ---------------------------------------------------------------- several publishing threads */

#define THREADS 3
#define EACH 400

struct thread_arg {
    ps_bus *bus;
    uint64_t id;
    _Atomic int rc;
};

static void *publish_thread(void *arg)
{
    struct thread_arg *t = arg;
    int rc = 1;
    for (uint64_t i = 0; i < EACH && rc > 0; i++)
        rc = say(t->bus, "t/1", t->id, i, 32 + (i * 37 + t->id) % 700);
    t->rc = rc;
    return NULL;
}

static void test_p5_publishing_threads_across_every_wrap_lose_nothing(void **state)
{
    (void)state;
    static struct stream got;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            ps_bus *a, *b;
            pthread_t thread[THREADS];
            struct thread_arg arg[THREADS];
            const char *url = wrap_url(&starts[s], depths[d], "");
            memset(&got, 0, sizeof got);
            assert_ok(ps_open(&a, url));
            assert_ok(ps_open(&b, url));
            assert_ok(ps_subscribe(b, "t/+", stream_take, &got, NULL, NULL));
            for (uint64_t i = 0; i < THREADS; i++) {
                arg[i] = (struct thread_arg){ a, i, 0 };
                assert_int_equal(pthread_create(&thread[i], NULL, publish_thread, &arg[i]), 0);
            }
            int rc = hear(b, &got.in, THREADS * EACH);
            for (int i = 0; i < THREADS; i++) {
                pthread_join(thread[i], NULL);
                assert_int_equal(arg[i].rc, 1);
            }
            assert_int_equal(rc, 0);
            assert_whole(&got, THREADS * EACH);
            assert_ok(ps_close(b));
            assert_ok(ps_close(a));
        }
    }
}

/* ---------------------------------------------------------------- joins under load */

struct flood {
    ps_bus *bus;
    _Atomic int stop, rc;
};

static void *flood_thread(void *arg)
{
    struct flood *f = arg;
    int rc = 1;
    for (uint64_t i = 0; !f->stop && rc >= 0; i++) {
        rc = say(f->bus, "t/1", 1, i, 32 + i % 200);
        if (i % 64 == 0)
            sched_yield();
    }
    f->rc = rc;
    return NULL;
}

static void late_take(const ps_msg *msg, void *user)
{
    struct stream *st = user;
    struct support_message m;
    if (support_verify(msg->data, msg->size, &m) != 0)
        st->in.damaged++;
    if (st->expected && (msg->sequence != st->expected || m.number != st->in.next[1]))
        st->wrong++;
    st->in.lost += msg->lost;
    st->in.next[1] = m.number + 1;
    st->expected = msg->sequence + 1;
    st->in.count++;
}

/* A reader that joins while the ring is overwritten as fast as it goes begins at a place nobody overwrites any more. */
static void test_p5_joining_under_load_across_every_wrap_loses_nothing(void **state)
{
    (void)state;
    static struct stream got;
    static struct inbox rest;
    for (size_t s = 0; s < STARTS; s++) {
        for (int d = 0; d < 3; d++) {
            ps_bus *a, *b, *c;
            char url[200], lossy[256];
            pthread_t thread;
            snprintf(url, sizeof url, "%s", wrap_url(&starts[s], depths[d], "evict=-1"));
            snprintf(lossy, sizeof lossy, "%s&lossy=1", url);
            assert_ok(ps_open(&a, url));
            assert_ok(ps_open(&b, url));
            assert_ok(ps_open(&c, lossy));
            assert_ok(ps_subscribe(c, "t/+", inbox_take, &rest, NULL, NULL));       /* somebody wants it, and holds nothing */
            struct flood flood = { a, 0, 0 };
            assert_int_equal(pthread_create(&thread, NULL, flood_thread, &flood), 0);
            int rc = 0, bad = 0;
            for (int i = 0; i < 300 && rc >= 0; i++) {
                ps_sub *sub;
                memset(&got, 0, sizeof got);
                rc = ps_subscribe(b, "t/1", late_take, &got, NULL, &sub);
                uint64_t end = support_now_ms() + DEADLINE_MS;
                while (rc >= 0 && got.in.count < 3 && support_now_ms() < end)
                    rc = ps_dispatch(b, 0, 100);
                if (rc >= 0)
                    rc = ps_unsubscribe(sub);
                bad += got.in.damaged + got.in.lost + got.wrong > 0 || got.in.count == 0;
            }
            flood.stop = 1;
            pthread_join(thread, NULL);
            assert_ok(rc);
            assert_ok(flood.rc);
            assert_int_equal(bad, 0);
            assert_ok(ps_close(c));
            assert_ok(ps_close(b));
            assert_ok(ps_close(a));
        }
    }
}

/* ---------------------------------------------------------------- a lane passes on */

static int heir_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    for (int i = 0; i < 3; i++)
        CHILD_CHECK(s, say(bus, "t/1", 1, s->number[0]++, 32 + support_random() % 500) == 1);
    return 0;                           /* without a close, so that the next one takes the lane over as it lies there */
}

static void test_p8_lane_taken_over_around_the_wrap_goes_on(void **state)
{
    (void)state;
    static struct stream got;
    for (size_t s = 0; s < STARTS; s++) {
        ps_bus *b;
        if (strcmp(starts[s].scheme, "shm") != 0)
            continue;
        struct stage *stage = stage_new(wrap_url(&starts[s], "depth=16&bytes=16k", ""));
        memset(&got, 0, sizeof got);
        assert_ok(ps_open(&b, stage->url));
        assert_ok(ps_subscribe(b, "t/+", stream_take, &got, NULL, NULL));
        for (uint64_t round = 1; round <= 10; round++) {
            assert_child(stage, start_child(heir_child, stage));
            if (round % 2 == 0)
                assert_int_equal(hear(b, &got.in, 3 * round), 0);
        }
        assert_whole(&got, 30);
        assert_int_equal(got.in.changed_hands, 9);
        assert_ok(ps_close(b));
    }
}

#define WRAP_TEST(name) cmocka_unit_test_teardown(name, wrap_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WRAP_TEST(test_p5_reliable_traffic_across_every_wrap_is_whole),
        WRAP_TEST(test_p5_lossy_reader_lapped_across_every_wrap_counts_exactly),
        WRAP_TEST(test_p3_joining_at_each_number_around_the_wrap_sees_exactly_what_follows),
        WRAP_TEST(test_p7_eviction_across_every_wrap_counts_exactly),
        WRAP_TEST(test_p5_loans_across_every_wrap_are_whole),
        WRAP_TEST(test_p5_publishing_threads_across_every_wrap_lose_nothing),
        WRAP_TEST(test_p5_joining_under_load_across_every_wrap_loses_nothing),
        WRAP_TEST(test_p8_lane_taken_over_around_the_wrap_goes_on),
    };
    return cmocka_run_group_tests_name("wrap", tests, NULL, NULL);
}
