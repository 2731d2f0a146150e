/* SPDX-License-Identifier: MIT */
/*
 * test_takeover.c - lanes as a dead owner left them: its loans, its unfinished claims, and how far the numbers had come.
 */
#include "forge.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

extern uint64_t ps__test_start_sequence;        /* in the test variant of the library: where a fresh lane starts */

/* What came, all bytes of a message being the same. */
struct seen {
    uint64_t count, lost, torn;
    size_t size;
    char first;
};

static void seen_take(const ps_msg *msg, void *user)
{
    struct seen *s = user;
    const char *data = msg->data;
    s->lost += msg->lost;
    s->size = msg->size;
    s->first = msg->size ? data[0] : '\0';
    for (size_t i = 0; i < msg->size; i++)
        s->torn += data[i] != s->first;
    s->count++;
}

/* A child that has a handle, does something with it, and dies without a word. */
struct part {
    struct stage *stage;
    int (*play)(struct stage *stage, ps_bus *bus);
};

static int play_and_die(void *arg)
{
    const struct part *p = arg;
    ps_bus *bus;
    CHILD_CHECK(p->stage, ps_open(&bus, p->stage->url) == 0);
    return p->play(p->stage, bus);
}

static void play(struct stage *s, int (*part)(struct stage *stage, ps_bus *bus))
{
    struct part p = { s, part };
    assert_child(s, start_child(play_and_die, &p));
}

/* ---------------------------------------------------------------- loans */

#define LOANS "depth=16&bytes=4096&loans=4096"

static int lend(struct stage *s, ps_bus *bus, const char *topic, size_t size, char byte)
{
    void *data;
    CHILD_CHECK(s, ps_loan(bus, topic, size, &data) == 0);
    memset(data, byte, size);
    CHILD_CHECK(s, ps_commit(bus, data, size) >= 1);
    return 0;
}

static int lend_all(struct stage *s, ps_bus *bus) { return lend(s, bus, "t", 4096, 'A'); }

static int find_all_taken(struct stage *s, ps_bus *bus)
{
    void *data;
    CHILD_CHECK(s, ps_loan(bus, "t", 64, &data) == PS_EAGAIN);
    return 0;
}

static void test_p7_loan_of_the_whole_area_survives_its_owner(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", LOANS));
    struct seen seen = { 0 };
    ps_bus *reader;
    assert_ok(ps_open(&reader, s->url));
    assert_ok(ps_subscribe(reader, "t", seen_take, &seen, NULL, NULL));
    play(s, lend_all);
    play(s, find_all_taken);
    assert_int_equal(ps_dispatch(reader, 0, 0), 1);
    assert_int_equal(seen.size, 4096);
    assert_int_equal(seen.first, 'A');
    assert_int_equal(seen.torn + seen.lost + forge_stats(reader).lost, 0);
    assert_ok(ps_close(reader));
}

static int lend_and_pass_it(struct stage *s, ps_bus *bus)
{
    int line = lend(s, bus, "t", 64, 'A');
    for (int i = 0; i < 10; i++)        /* far enough to look for room ahead of need: nobody holds the loan any more */
        CHILD_CHECK(s, ps_publish(bus, "other", "x", 1) == 1);
    return line;
}

static int lend_over_it(struct stage *s, ps_bus *bus)
{
    for (int i = 0; i < 4096 / 128; i++) {
        void *data;
        CHILD_CHECK(s, ps_loan(bus, "t", 64, &data) == 0);
        memset(data, 'Z', 64);
    }
    return 0;
}

/* A lossy reader holds nobody: it may come too late for a loan, but then it is told so. */
static void test_p7_loan_written_by_the_next_owner_is_lost_and_not_torn(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", LOANS));
    struct seen seen = { 0 };
    ps_bus *reader;
    assert_ok(ps_open(&reader, scratch_url("bus", LOANS "&lossy=1")));
    assert_ok(ps_subscribe(reader, "#", seen_take, &seen, NULL, NULL));
    play(s, lend_and_pass_it);
    play(s, lend_over_it);
    assert_int_equal(ps_dispatch(reader, 1, 0), 1);
    assert_int_equal(seen.torn, 0);
    assert_int_not_equal(seen.first, 'Z');
    assert_int_equal(seen.first == 'A' ? seen.lost == 0 : seen.lost == 1, 1);
    assert_int_equal(ps_dispatch(reader, 0, 0) + (int)forge_stats(reader).lost, 10);
    assert_ok(ps_close(reader));
}

/* Since the last loan half of what 32 bits can number has gone by. */
static void test_p5_loan_after_2147483648_messages_without_one_arrives(void **state)
{
    (void)state;
    static const uint64_t starts[] = { 0x7ffffff0u, 0x80000005u, UINT64_C(0x180000005) };
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        struct seen seen = { 0 };
        ps_bus *bus, *reader;
        void *data;
        ps__test_start_sequence = starts[i];
        int rc = ps_open(&bus, scratch_url("bus", LOANS));
        ps__test_start_sequence = 0;
        assert_ok(rc);
        assert_ok(ps_open(&reader, scratch_url("bus", "")));
        assert_ok(ps_subscribe(reader, "t", seen_take, &seen, NULL, NULL));
        assert_ok(ps_loan(bus, "t", 64, &data));
        assert_ok(ps_cancel(bus, data));
        ps__store_rlx(&forge_lane(bus)->loan_floor, 0);         /* as if that had been at the very beginning */
        assert_ok(ps_loan(bus, "t", 64, &data));
        memset(data, 'A', 64);
        assert_int_equal(ps_commit(bus, data, 64), 1);
        assert_int_equal(ps_dispatch(reader, 0, 0), 1);
        assert_int_equal(seen.first, 'A');
        assert_int_equal(seen.torn + forge_stats(reader).lost, 0);
        assert_ok(ps_close(bus));
        assert_ok(ps_close(reader));
    }
}

/* ---------------------------------------------------------------- an unfinished claim */

/* As if one of its threads were stopped between claim and commit of the second; killed when the reader has come to it. */
static int leave_a_claim(struct stage *s, ps_bus *bus)
{
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    ps__store_rel(&forge_cell(bus, 1)->stamp, 0);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    s->ready = 1;
    return !wait_word(&s->go, 1);
}

enum { EVENT_LOOP, SLEEPING, BUSY, WAYS };

static void test_p7_message_behind_a_dead_publishers_claim_arrives(void **state)
{
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct stage *s = stage_new(scratch_url("bus", "depth=64"));
        struct part owner = { s, leave_a_claim };
        struct seen seen = { 0 }, noise = { 0 };
        ps_bus *reader, *busy;
        assert_ok(ps_open(&reader, s->url));
        assert_ok(ps_open(&busy, s->url));
        assert_ok(ps_subscribe(reader, "t", seen_take, &seen, NULL, NULL));
        assert_ok(ps_subscribe(reader, "noise", seen_take, &noise, NULL, NULL));
        struct pollfd p = { way == EVENT_LOOP ? ps_fd(reader) : -1, POLLIN, 0 };
        pid_t child = start_child(play_and_die, &owner);
        assert_true(wait_word(&s->ready, 1));
        while (ps_dispatch(reader, 0, 0) > 0)
            ;
        assert_int_equal(seen.count, 1);
        s->go = 1;
        assert_child(s, child);
        for (uint64_t end = support_now_ms() + DEADLINE_MS; seen.count < 2 && support_now_ms() < end;) {
            if (way == EVENT_LOOP)
                assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
            else if (way == BUSY)               /* never left in peace for as long as a sleeper waits before it looks around */
                assert_true(ps_publish(busy, "noise", "x", 1) == 1);
            assert_true(ps_dispatch(reader, 0, way == SLEEPING ? 100 : 0) >= 0);
        }
        if (seen.count != 2)
            fail_msg("way %d: %d of 2 messages", way, (int)seen.count);
        assert_int_equal(seen.lost, 0);
        assert_ok(ps_close(busy));
        assert_ok(ps_close(reader));
    }
}

/* ---------------------------------------------------------------- a first look at a lane */

/* However many messages of others lie before it. */
static void test_dispatch_first_message_behind_a_long_lane_of_unwanted_ones_found_at_once(void **state)
{
    (void)state;
    struct seen seen = { 0 }, other = { 0 };
    ps_bus *bus, *reader, *lossy;
    assert_ok(ps_open(&bus, scratch_url("bus", "depth=131072&bytes=4096")));
    assert_ok(ps_open(&reader, scratch_url("bus", "")));
    assert_ok(ps_open(&lossy, scratch_url("bus", "lossy=1")));
    assert_ok(ps_subscribe(reader, "t", seen_take, &seen, NULL, NULL));
    assert_ok(ps_subscribe(lossy, "other", seen_take, &other, NULL, NULL));
    for (int i = 0; i < 100000; i++)
        assert_int_equal(ps_publish(bus, "other", "x", 1), 1);
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    assert_int_equal(ps_dispatch(reader, 0, 0), 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(forge_stats(reader).unwanted, 100000);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(reader));
    assert_ok(ps_close(lossy));
}

/* ---------------------------------------------------------------- a creator that died before the slots were reserved */

static int play_nothing(struct stage *s, ps_bus *bus)
{
    (void)s, (void)bus;
    return 0;
}

static void test_p7_slots_that_a_dead_creator_did_not_reserve_are_reserved_by_the_next(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "members=200"));
    struct seen seen = { 0 };
    ps_bus *bus, *reader;
    uint64_t none = 0;
    play(s, play_nothing);
    int64_t whole = file_bytes(scratch_file("bus")), slots = (int64_t)(200 * ps__shm_slot_size(200));
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);     /* back to where it was when it got its name */
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &none, sizeof none, PS__SHM_RESERVED), sizeof none);
    assert_int_equal(pwrite(fd, &none, sizeof none, PS__SHM_WORDS + offsetof(struct ps__words, slots_high)), sizeof none);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PS__SHM_SLOTS, slots), 0);
    close(fd);
    assert_int_equal(file_bytes(scratch_file("bus")), whole - slots);
    assert_ok(ps_open(&bus, s->url));
    assert_int_equal(file_bytes(scratch_file("bus")), whole);
    assert_ok(ps_open(&reader, s->url));
    assert_int_equal(file_bytes(scratch_file("bus")), whole);
    assert_ok(ps_subscribe(reader, "t", seen_take, &seen, NULL, NULL));
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    assert_int_equal(ps_dispatch(reader, 0, 0), 1);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(reader));
    assert_int_equal(file_bytes(scratch_file("bus")), -1);
}

#define TAKEOVER_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TAKEOVER_TEST(test_p7_loan_of_the_whole_area_survives_its_owner),
        TAKEOVER_TEST(test_p7_loan_written_by_the_next_owner_is_lost_and_not_torn),
        TAKEOVER_TEST(test_p5_loan_after_2147483648_messages_without_one_arrives),
        TAKEOVER_TEST(test_p7_message_behind_a_dead_publishers_claim_arrives),
        TAKEOVER_TEST(test_p7_slots_that_a_dead_creator_did_not_reserve_are_reserved_by_the_next),
        TAKEOVER_TEST(test_dispatch_first_message_behind_a_long_lane_of_unwanted_ones_found_at_once),
    };
    return cmocka_run_group_tests_name("takeover", tests, NULL, NULL);
}
