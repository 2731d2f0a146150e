/* SPDX-License-Identifier: MIT */
/*
 * test_hostile_cells.c - promise 9 by hand: single words and cells that were forged with a purpose. (Words set blindly are in
 * test_hostile_words.c.)
 */
#include "forge.h"

#include <poll.h>
#include <sys/mman.h>

#define SMALL "depth=16&bytes=4096&loans=4096"
#define MIB   (1u << 20)

static uint64_t thread_cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void count_take(const ps_msg *msg, void *user)
{
    (void)msg;
    ++*(int *)user;
}

/* ---------------------------------------------------------------- the bus says that it is larger */

/* What a handle writes into has the size that it mapped, whatever the bus's word says since. */
static void test_p9_forged_geometry_lends_and_takes_no_more_than_there_is(void **state)
{
    (void)state;
    for (int lent_before = 0; lent_before < 2; lent_before++) {
        ps_bus *bus, *reader;
        struct ps__geometry g;
        int got = 0;
        void *data = &got, *large = calloc(1, MIB);
        assert_non_null(large);
        assert_ok(ps_open(&bus, scratch_url("bus", SMALL)));
        assert_ok(ps_open(&reader, scratch_url("bus", "")));
        assert_ok(ps_subscribe(reader, "t", count_take, &got, NULL, NULL));
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        if (lent_before) {
            assert_ok(ps_loan(bus, "t", 64, &data));
            assert_ok(ps_cancel(bus, data));
        }
        assert_int_equal(ps__geometry_unpack(ps__load_rlx(&forge_words(bus)->geometry), &g), 0);
        g.units_log = g.loans_log = 20;
        ps__store_rlx(&forge_words(bus)->geometry, ps__geometry_pack(&g));
        assert_int_equal(ps_loan(bus, "t", MIB, &data), PS_EMSGSIZE);
        assert_null(data);
        assert_int_equal(ps_publish(bus, "t", large, MIB), PS_EMSGSIZE);
        assert_int_equal(ps_publish(bus, "t", large, 2000), PS_EMSGSIZE);
        assert_ok(ps_loan(bus, "t", 4096, &data));
        memset(data, 1, 4096);
        assert_int_equal(ps_commit(bus, data, 4096), 1);
        assert_int_equal(ps_publish(bus, "t", large, 1024), 1);
        ps_dispatch(reader, 0, 0);              /* it mapped the lane after the damage, so an error is as good */
        free(large);
        assert_ok(ps_close(bus));
        assert_ok(ps_close(reader));
        scratch_empty();
    }
}

/* ---------------------------------------------------------------- a message that says it is larger */

/* A member whose lane lies in a sparse file of gigabytes, with one message of 4 GiB - 1 in it that is not there. */
static int boasting_child(void *arg)
{
    struct stage *s = arg;
    struct ps__geometry g = { 4, 27, 6, 0, 1 };
    struct ps__shm *shm;
    ps_bus *victim, *forger;
    ps_topic topic;
    int got = 0;
    CHILD_CHECK(s, ps_open(&victim, s->url) == 0 && ps_open(&forger, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(victim, "t", count_take, &got, NULL, NULL) == 0);
    shm = forge_shm(forger);
    shm->geometry = g;
    off_t ring = (off_t)ps__shm_ring_offset(shm, shm->port.slot);
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    CHILD_CHECK(s, fd >= 0);
    if (ftruncate(fd, (off_t)ps__shm_loan_offset(shm, shm->port.slot) + PS__SHM_ALIGN) != 0)
        return EXIT_SKIP;
    struct ps__cell *cell = mmap(NULL, PS__SHM_ALIGN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, ring);
    CHILD_CHECK(s, cell != MAP_FAILED);
    CHILD_CHECK(s, ps__topic_parse("t", victim->host.seed, &topic) == 0);
    ps__store_rlx(&cell->hash, topic.hash);
    ps__store_rlx(&cell->publisher, 1);
    ps__store_rlx(&cell->size, UINT32_MAX);
    ps__store_rlx(&cell->meta, PS__KIND_RING | 1u << 8);
    cell->data[0] = 't';
    ps__store_rel(&cell->stamp, 1);
    struct ps__lane *lane = forge_lane(forger);
    ps__store_rlx(&forge_words(forger)->geometry, ps__geometry_pack(&g));
    ps__store_rlx(&lane->tail, ps__pack(1, (uint32_t)1 << 26));
    ps__store_rel(&lane->ring, ps__geometry_pack(&g));
    ps__raise(&forge_words(forger)->lanes_high, shm->port.slot + 1);
    s->rc[0] = ps_dispatch(victim, 0, 0);
    CHILD_CHECK(s, s->rc[0] == 0 || s->rc[0] == PS_ENOMEM);     /* no memory: for the map of such a lane */
    CHILD_CHECK(s, got == 0);
    CHILD_CHECK(s, s->rc[0] != 0 || forge_shm(victim)->port.corrupt > 0);
    return 0;
}

static void test_p9_message_larger_than_anybody_may_send_is_garbage(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    int code = reap_child(start_child(boasting_child, s));
    if (code == EXIT_SKIP)
        SKIP_TEST("no sparse file of so many gigabytes here");
    if (code != 0)
        fail_msg("child ended with %d; its line %d; ps_dispatch %d", code, (int)s->line, (int)s->rc[0]);
}

/* ---------------------------------------------------------------- a stamp for what was never claimed */

/* It is found to be garbage and counted, and neither a sleeper nor an event loop goes round it. */
static void test_p9_forged_stamp_keeps_nobody_awake(void **state)
{
    (void)state;
    static const uint64_t stamps[] = { 2, 77, UINT64_C(1) << 40 };     /* of the next message; beyond it */
    for (size_t i = 0; i < sizeof stamps / sizeof *stamps; i++) {
        ps_bus *bus, *reader;
        int got = 0, turns = 0;
        assert_ok(ps_open(&bus, scratch_url("bus", "depth=64")));
        assert_ok(ps_open(&reader, scratch_url("bus", "")));
        assert_ok(ps_subscribe(reader, "t", count_take, &got, NULL, NULL));
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        assert_int_equal(ps_dispatch(reader, 0, 0), 1);
        ps__store_rel(&forge_cell(bus, 1)->stamp, stamps[i]);
        uint64_t cpu = thread_cpu_ms();
        assert_int_equal(ps_dispatch(reader, 0, 400), 0);
        assert_true(thread_cpu_ms() - cpu < 200);
        assert_true(forge_stats(reader).corrupt > 0);
        struct pollfd p = { ps_fd(reader), POLLIN, 0 };
        for (uint64_t end = support_now_ms() + 200; support_now_ms() < end; turns++) {
            poll(&p, 1, 10);
            assert_int_equal(ps_dispatch(reader, 0, 0), 0);
        }
        assert_true(turns < 100);
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);      /* writes over it */
        assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
        assert_int_equal(ps_dispatch(reader, 0, 0), 1);
        assert_int_equal(got, 2);
        assert_ok(ps_close(bus));
        assert_ok(ps_close(reader));
    }
}

/* ---------------------------------------------------------------- what the next owner of a slot finds */

static int leave_a_stray_word(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && forge_shm(bus)->port.slot == 0);
    s->ready = 1;
    CHILD_CHECK(s, wait_word(&s->go, 1));
    ps__store_rel(&forge_lane(bus)->ring, s->number[0]);
    return 0;
}

/* As a reader may meet it: a whole lap later somebody has begun to write where its message lies, alone, and it was told nothing. */
static void test_p7_message_that_is_being_overwritten_is_lost_not_torn(void **state)
{
    (void)state;
    ps_bus *bus, *reader;
    int got = 0;
    assert_ok(ps_open(&bus, scratch_url("bus", SMALL)));
    assert_ok(ps_open(&reader, scratch_url("bus", "lossy=1")));
    assert_ok(ps_subscribe(reader, "t", count_take, &got, NULL, NULL));
    assert_int_equal(ps_dispatch(reader, 0, 0), 0);
    assert_int_equal(ps_publish(bus, "t", "old", 3), 1);
    ps__store_rlx(&forge_lane(bus)->limit, ps__pack(1, 0));
    ps__store_rlx(&forge_lane(bus)->tail, ps__pack(17, 0));
    ps__fence_rel();
    forge_cell(bus, 0)->data[0] = 'n';
    assert_int_equal(ps_dispatch(reader, 0, 0), 0);
    assert_int_equal(got, 0);
    assert_int_equal(forge_stats(reader).lost, 1);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(reader));
    scratch_empty();
}

/* A word that announces a lane where there is none, or none that could be: the slot is as good as any. */
static void test_p9_stray_word_in_a_free_slot_keeps_nobody_out(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct stage *s = stage_new(scratch_url("bus", SMALL));
        struct ps__geometry g;
        ps_bus *reader, *bus[3];
        int got = 0;
        pid_t child = start_child(leave_a_stray_word, s);
        assert_true(wait_word(&s->ready, 1));
        assert_ok(ps_open(&reader, s->url));
        assert_ok(ps_subscribe(reader, "t", count_take, &got, NULL, NULL));
        assert_int_equal(ps__geometry_unpack(ps__load_rlx(&forge_words(reader)->geometry), &g), 0);
        g.fixed = 1;
        s->number[0] = i ? ps__geometry_pack(&g) : 0x1234;
        s->go = 1;
        assert_child(s, child);
        for (int k = 0; k < 3; k++) {
            assert_ok(ps_open(&bus[k], s->url));
            assert_int_equal(forge_shm(bus[k])->port.slot, k ? k + 1 : 0);
            assert_int_equal(ps_publish(bus[k], "t", "x", 1), 1);
        }
        assert_int_equal(ps_dispatch(reader, 0, 0), 3);
        assert_int_equal(got, 3);
        for (int k = 0; k < 3; k++)
            assert_ok(ps_close(bus[k]));
        assert_ok(ps_close(reader));
    }
}

#define MANY 131072

/* A lane full of claims of which not one was committed. */
static int leave_claims_only(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    struct ps__lane *lane = forge_lane(bus);
    ps__store_rlx(&lane->base, 1);
    ps__store_rlx(&lane->limit, ps__pack(1, 0));
    ps__store_rlx(&lane->tail, ps__pack(1 + MANY, 0));
    return 0;
}

static int open_again(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    s->number[0] = forge_shm(bus)->port.slot;
    return ps_close(bus) != 0;
}

/* Repairing it takes as many steps as there are, not their square, which would be minutes. */
static void test_p9_lane_of_unfinished_claims_only_is_taken_over_in_time(void **state)
{
    (void)state;
    char options[64];
    snprintf(options, sizeof options, "depth=%d&bytes=4096", MANY);
    struct stage *s = stage_new(scratch_url("bus", options));
    ps_bus *reader;
    int got = 0;
    assert_ok(ps_open(&reader, s->url));
    assert_ok(ps_subscribe(reader, "t", count_take, &got, NULL, NULL));
    assert_child(s, start_child(leave_claims_only, s));
    assert_child(s, start_child(open_again, s));
    assert_int_equal(s->number[0], 1);          /* the slot that was left so */
    assert_ok(ps_close(reader));
}

#define HOSTILE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(test_p9_forged_geometry_lends_and_takes_no_more_than_there_is),
        HOSTILE_TEST(test_p9_message_larger_than_anybody_may_send_is_garbage),
        HOSTILE_TEST(test_p9_forged_stamp_keeps_nobody_awake),
        HOSTILE_TEST(test_p7_message_that_is_being_overwritten_is_lost_not_torn),
        HOSTILE_TEST(test_p9_stray_word_in_a_free_slot_keeps_nobody_out),
        HOSTILE_TEST(test_p9_lane_of_unfinished_claims_only_is_taken_over_in_time),
    };
    return cmocka_run_group_tests_name("hostile_cells", tests, NULL, NULL);
}
