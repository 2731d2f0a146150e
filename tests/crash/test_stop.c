/* SPDX-License-Identifier: MIT */
/*
 * test_stop.c - one member dies or stops at a chosen place: what the others notice, and when. Deadlines are against hangs; the
 * times that passed are printed.
 */
#include "../actors.h"

#include <poll.h>
#include <pthread.h>

#define SIZE 400                        /* of a message: too large for a cell, so that a borrow has something to borrow */

/* Publishes until the ring answers PS_EAGAIN: messages accepted, or an error. */
static int fill(ps_bus *bus, const char *topic, uint64_t *number)
{
    unsigned char text[SIZE];
    for (int n = 0; n < 100000; n++) {
        support_compose(text, sizeof text, 1, *number);
        int rc = ps_publish(bus, topic, text, sizeof text);
        if (rc == PS_EAGAIN)
            return n;
        if (rc < 0)
            return rc;
        ++*number;
    }
    return PS_EINVAL;
}

/* ---------------------------------------------------------------- dead readers */

enum { BUSY, ASLEEP, IN_HANDLER, IN_BORROW, JUST_JOINED, POLLING, PLACES };
static const char *const place_name[] = { "between calls", "asleep", "in a handler", "in a borrow", "just joined", "armed by ps_fd" };

struct reader {
    struct stage *stage;
    int place;
};

static void take_and_wait(const ps_msg *msg, void *user)
{
    struct stage *s = user;
    inbox_take(msg, &s->inbox[0]);
    s->ready = 1;
    while (!s->done)
        nap_us(1000);
}

static int reader_child(void *arg)
{
    const struct reader *r = arg;
    struct stage *s = r->stage;
    ps_sub_options borrow = PS_SUB_OPTIONS_INIT;
    ps_bus *bus;
    borrow.flags = PS_BORROW;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", r->place == IN_HANDLER || r->place == IN_BORROW ? take_and_wait : inbox_take,
                                r->place == IN_HANDLER || r->place == IN_BORROW ? (void *)s : (void *)&s->inbox[0],
                                r->place == IN_BORROW ? &borrow : NULL, NULL) == 0);
    s->go = 1;
    if (r->place == JUST_JOINED)
        s->ready = 1;
    if (r->place == POLLING)
        CHILD_CHECK(s, ps_fd(bus) >= 0);
    if (r->place != JUST_JOINED)
        CHILD_CHECK(s, ps_dispatch(bus, 1, DEADLINE_MS) == 1);
    if (r->place == ASLEEP) {
        CHILD_CHECK(s, ps_dispatch(bus, 0, 0) >= 0);
        s->ready = 1;
        for (;;)
            CHILD_CHECK(s, ps_dispatch(bus, 0, -1) >= 0);
    }
    s->ready = 1;
    for (;;)
        nap_us(1000);
}

static void test_p7_reader_killed_at_any_place_stops_holding_others_back(void **state)
{
    (void)state;
    for (int place = 0; place < PLACES; place++) {
        struct stage *s = stage_new(scratch_url("bus", "depth=16&bytes=16k&evict=-1"));
        struct reader r = { s, place };
        uint64_t number = 0, begin, took;
        ps_bus_stats st = PS_BUS_STATS_INIT;
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        pid_t child = start_child(reader_child, &r);
        assert_true(wait_word(&s->go, 1));
        if (place != JUST_JOINED)
            assert_int_equal(say(bus, "t", 1, number++, SIZE), 1);
        assert_true(wait_word(&s->ready, 1));
        if (place == ASLEEP)
            kill(child, SIGSTOP);       /* or it would wake and read what fills the ring */
        int filled = fill(bus, "t", &number);
        assert_in_range(filled, 14, 16);
        /* A live one keeps its right, whatever the time. */
        for (int i = 0; i < 30; i++) {
            nap_us(1000);
            assert_int_equal(ps_publish(bus, "t", "x", 1), PS_EAGAIN);
        }
        kill_child(child);
        begin = support_now_ms();
        assert_int_equal(say(bus, "t", 1, number++, SIZE) >= 0, 1);
        took = support_now_ms() - begin;
        for (int i = 0; i < 100; i++)
            assert_true(say(bus, "t", 1, number++, SIZE) >= 0);
        assert_ok(ps_stats(bus, &st));
        assert_int_equal(st.evictions, 1);
        print_message("reader killed %s: publishing goes on after %d ms\n", place_name[place], (int)took);
        assert_ok(ps_close(bus));
        assert_int_equal(scratch_count(scratch_path, NULL), 0);
    }
}

/* A publisher that waits, by block= or in ps_dispatch or in poll, is told, though a dead reader rings nobody. */
static void test_p7_publisher_that_waits_for_space_goes_on_when_the_reader_dies(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct stage *s = stage_new(scratch_url("bus", way == 0 ? "depth=16&bytes=16k&evict=-1&block=-1" : "depth=16&bytes=16k&evict=-1"));
        struct reader r = { s, JUST_JOINED };
        ps_bus *bus;
        int rc, fd;
        assert_ok(ps_open(&bus, s->url));
        fd = way == 2 ? ps_fd(bus) : -1;
        pid_t child = start_child(reader_child, &r);
        assert_true(wait_word(&s->ready, 1));
        for (int i = 0; i < 16; i++)
            assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        kill(child, SIGKILL);
        uint64_t begin = support_now_ms();
        while ((rc = ps_publish(bus, "t", "x", 1)) == PS_EAGAIN && support_now_ms() - begin < DEADLINE_MS) {
            struct pollfd p = { fd, POLLIN, 0 };
            if (way == 2)
                assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
            assert_int_equal(ps_dispatch(bus, 0, way == 2 ? 0 : DEADLINE_MS), 0);
        }
        assert_true(rc >= 0);
        if (support_now_ms() - begin > DEADLINE_MS / 2)
            fail_msg("way %d: told after %d ms", way, (int)(support_now_ms() - begin));
        kill_child(child);
        assert_ok(ps_close(bus));
    }
}

/* ---------------------------------------------------------------- forked children do not keep the dead alive */

enum { FORKED, EXECUTED };

static int fathering_child(void *arg)
{
    const struct reader *r = arg;
    struct stage *s = r->stage;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) >= 1);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 1) >= 0 && ps_dispatch(bus, 0, 1) >= 0);
    pid_t grandchild = fork();
    if (grandchild == 0) {
        alarm(60);                      /* should the test forget it */
        if (r->place == EXECUTED)
            execlp("sleep", "sleep", "60", (char *)NULL);
        s->ready = 1;
        for (;;)
            pause();
    }
    CHILD_CHECK(s, grandchild > 0);
    s->number[0] = (uint64_t)grandchild;
    s->go = 1;
    for (;;)
        pause();
}

static int executed(void *arg)
{
    char path[64], text[64] = "";
    const struct stage *s = arg;
    snprintf(path, sizeof path, "/proc/%d/comm", (int)s->number[0]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0 && strncmp(text, "sleep", 5) == 0;
}

static void test_p7_member_is_dead_although_what_it_forked_lives(void **state)
{
    (void)state;
    for (int how = FORKED; how <= EXECUTED; how++) {
        struct stage *s = stage_new(scratch_url("bus", "depth=16&bytes=16k&evict=-1"));
        struct reader r = { s, how };
        uint64_t number = 0;
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        pid_t child = start_child(fathering_child, &r);
        assert_true(wait_word(&s->go, 1));
        if (how == FORKED)
            assert_true(wait_word(&s->ready, 1));
        else
            assert_true(support_wait(executed, s, DEADLINE_MS));
        assert_true(fill(bus, "t", &number) >= 14);
        kill_child(child);
        int rc = say(bus, "t", 1, number++, SIZE);
        int alive = kill((pid_t)s->number[0], 0) == 0;
        kill((pid_t)s->number[0], SIGKILL);
        assert_true(alive);
        assert_true(rc >= 0);
        assert_ok(ps_close(bus));
        assert_int_equal(scratch_count(scratch_path, NULL), 0);
    }
}

/* ---------------------------------------------------------------- stopped readers */

static int counting_child(void *arg)
{
    struct stage *s = arg;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "t")) != NULL);
    while (!s->done || s->inbox[0].next[1] < s->number[0]) {
        int rc = ps_dispatch(bus, 1 + (int)(s->inbox[0].count % 7), 5);
        s->rc[0] = rc;
        CHILD_CHECK(s, rc >= 0);
    }
    CHILD_CHECK(s, ps_stats(bus, &st) == 0);
    s->number[1] = st.evicted;
    s->number[2] = st.lost;
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p7_stopped_reader_is_evicted_and_learns_exactly_what_it_lost(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64&bytes=64k&evict=30"));
    ps_bus *bus;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    uint64_t number = 0;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(counting_child, s);
    assert_true(wait_word(&s->ready, 1));
    for (int round = 0; round < 20; round++) {
        /* It is stopped somewhere in the middle of reading. */
        for (uint64_t i = support_random() % 200; i; i--)
            assert_true(say(bus, "t", 1, number++, 40 + i) >= 0);
        kill(child, SIGSTOP);
        for (uint64_t i = 64 + support_random() % 300; i; i--)
            assert_true(say(bus, "t", 1, number++, 40 + i) >= 0);
        uint64_t before = s->inbox[0].count;
        kill(child, SIGCONT);
        for (uint64_t i = support_random() % 200; i; i--)
            assert_true(say(bus, "t", 1, number++, 40 + i) >= 0);
        assert_true(wait_word(&s->inbox[0].count, before + 1));
    }
    s->number[0] = number;
    s->done = 1;
    assert_child(s, child);
    assert_ok(ps_stats(bus, &st));
    assert_true(s->number[1] >= 15);
    assert_true(st.evictions >= s->number[1]);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].repeated, 0);
    assert_int_equal(s->inbox[0].skipped, s->inbox[0].lost);
    assert_int_equal(s->number[2], s->inbox[0].lost);
    assert_int_equal(s->inbox[0].count + s->inbox[0].lost, number);
    print_message("%d evictions, %d of %d messages lost\n", (int)s->number[1], (int)s->inbox[0].lost, (int)number);
    assert_ok(ps_close(bus));
}

static int slow_child(void *arg)
{
    struct stage *s = arg;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "t")) != NULL);
    while (s->inbox[0].count < 40) {
        CHILD_CHECK(s, ps_dispatch(bus, 1, DEADLINE_MS) == 1);
        nap_us(40000);
    }
    CHILD_CHECK(s, ps_stats(bus, &st) == 0);
    s->number[1] = st.evicted + st.lost;
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p7_slow_reader_that_moves_is_never_evicted(void **state)
{
    (void)state;
    /* It is in the way for 32 x 40 ms, longer than the 1000 ms for which it may stand still. */
    struct stage *s = stage_new(scratch_url("bus", "depth=8&bytes=8k&evict=1000"));
    ps_bus *bus;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(slow_child, s);
    assert_true(wait_word(&s->ready, 1));
    for (uint64_t i = 0; i < 40; i++)
        assert_true(say(bus, "t", 1, i, 64) >= 0);
    assert_child(s, child);
    assert_ok(ps_stats(bus, &st));
    assert_int_equal(st.evictions, 0);
    assert_true(st.refused > 0);
    assert_int_equal(s->number[1], 0);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].lost, 0);
    assert_ok(ps_close(bus));
}

/* The exception that its author chose: borrowed memory holds publishers back for as long as the process lives. */
static void test_p7_reader_stopped_in_a_borrow_holds_back_until_it_dies(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=16&bytes=16k&evict=20"));
    struct reader r = { s, IN_BORROW };
    uint64_t number = 0;
    ps_bus *bus;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(reader_child, &r);
    assert_true(wait_word(&s->go, 1));
    assert_int_equal(say(bus, "t", 1, number++, SIZE), 1);
    assert_true(wait_word(&s->ready, 1));
    kill(child, SIGSTOP);
    assert_true(fill(bus, "t", &number) >= 14);
    for (int i = 0; i < 100; i++) {
        nap_us(2000);
        assert_int_equal(ps_publish(bus, "t", "x", 1), PS_EAGAIN);
    }
    kill_child(child);
    assert_true(say(bus, "t", 1, number++, SIZE) >= 0);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- stopped publishers */

struct talk {
    struct stage *stage;
    ps_bus *bus;
    uint64_t id;
};

static void *talk_thread(void *arg)
{
    const struct talk *t = arg;
    int rc = 0;
    for (uint64_t n = 0; !t->stage->done && rc >= 0; n++) {
        rc = say(t->bus, "t", t->id, n, 64 + n % 400);
        if (rc >= 0)
            t->stage->number[t->id] = n + 1;
    }
    t->stage->rc[t->id] = rc;
    return NULL;
}

static int talking_child(void *arg)
{
    struct stage *s = arg;
    struct talk talk[3];
    pthread_t thread[3];
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    s->ready = 1;
    for (uint64_t i = 0; i < 3; i++) {
        talk[i] = (struct talk){ s, bus, i };
        CHILD_CHECK(s, pthread_create(&thread[i], NULL, talk_thread, &talk[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(thread[i], NULL);
        CHILD_CHECK(s, s->rc[i] >= 0);
    }
    return ps_close(bus) == 0 ? 0 : 2;
}

/* Dispatches until *word reaches goal: 0, or -1 at the deadline or after an error. */
static int dispatch_until(ps_bus *bus, const uint64_t *word, uint64_t goal)
{
    uint64_t end = support_now_ms() + DEADLINE_MS;
    while (*word < goal) {
        if (ps_dispatch(bus, 0, 100) < 0 || support_now_ms() > end)
            return -1;
    }
    return 0;
}

static void test_p7_publisher_stopped_in_the_middle_holds_nobody_back(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=32&bytes=32k&evict=-1"));
    ps_bus *bus;
    uint64_t number = 0;
    assert_ok(ps_open(&bus, s->url));
    assert_ok(ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL));
    pid_t child = start_child(talking_child, s);
    assert_true(wait_word(&s->ready, 1));
    for (int round = 0; round < 200; round++) {
        assert_int_equal(dispatch_until(bus, &s->inbox[0].next[0], s->inbox[0].next[0] + 1 + support_random() % 50), 0);
        kill(child, SIGSTOP);
        /* Three laps of my own lane while three of its threads stand anywhere. */
        for (int i = 0; i < 100; i++) {
            assert_true(say(bus, "t", 3, number++, SIZE) >= 1);
            if (i % 16 == 15)
                assert_int_equal(dispatch_until(bus, &s->inbox[0].next[3], number), 0);
        }
        kill(child, SIGCONT);
    }
    s->done = 1;
    uint64_t end = support_now_ms() + DEADLINE_MS;
    while (waitpid(child, NULL, WNOHANG) == 0) {
        assert_true(ps_dispatch(bus, 0, 1) >= 0);
        assert_true(support_now_ms() < end);
    }
    actors_forget(child);
    while (ps_dispatch(bus, 0, 0) > 0)
        ;
    for (int i = 0; i < 3; i++) {
        assert_true(s->rc[i] >= 0);
        assert_int_equal(s->inbox[0].next[i], s->number[i]);
    }
    assert_int_equal(s->inbox[0].next[3], number);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].repeated + s->inbox[0].lost, 0);
    assert_ok(ps_close(bus));
}

#define STOP_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STOP_TEST(test_p7_reader_killed_at_any_place_stops_holding_others_back),
        STOP_TEST(test_p7_publisher_that_waits_for_space_goes_on_when_the_reader_dies),
        STOP_TEST(test_p7_member_is_dead_although_what_it_forked_lives),
        STOP_TEST(test_p7_stopped_reader_is_evicted_and_learns_exactly_what_it_lost),
        STOP_TEST(test_p7_slow_reader_that_moves_is_never_evicted),
        STOP_TEST(test_p7_reader_stopped_in_a_borrow_holds_back_until_it_dies),
        STOP_TEST(test_p7_publisher_stopped_in_the_middle_holds_nobody_back),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
