/* SPDX-License-Identifier: MIT */
/*
 * test_unixgram.c - the transport of examples/custom_transport beyond the conformance suite: members that are killed, what is
 * left behind, how much is lost, and datagrams from strangers.
 */
#include "../examples/custom_transport/unixgram.c"

#include "support.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>

#define MEMBERS 3
#define ROUNDS  200

static const char *unixgram_url(void)
{
    return support_url("unixgram", "/tmp/unixgram", NULL);
}

static ps_bus *member(const char *url, const char *filter, ps_handler handler, void *user)
{
    ps_bus *bus;

    assert_ok(ps_open(&bus, url));
    if (filter != NULL)
        assert_ok(ps_subscribe(bus, filter, handler, user, NULL, NULL));
    return bus;
}

static int entries(const char *url)
{
    return support_file_count(support_file(url), "");
}

/* ------------------------------------------------------------------ losses */

static void test_p5_full_queue_next_message_tells_exactly_how_many_were_lost(void **state)
{
    const char *url = unixgram_url();
    struct support_numbers seen = { 0, 0, 0, 0 }, quick = { 0, 0, 0, 0 };
    ps_bus *a = member(url, NULL, NULL, NULL), *b = member(url, "t", support_take_number, &seen);
    ps_bus *c = member(url, "t", support_take_number, &quick);
    ps_bus_stats stats = PS_BUS_STATS_INIT;

    (void)state;
    assert_ok(ps_stats(a, &stats));
    for (uint64_t i = 0; i < 100 * stats.depth; i++) {
        assert_int_equal(ps_publish(a, "t", &i, sizeof i), 2);
        assert_int_equal(ps_dispatch(c, 0, 0), 1);
        if (i % (3 * stats.depth) == 0)
            assert_true(ps_dispatch(b, 0, 0) > 0);
    }
    assert_true(ps_dispatch(b, 0, 0) > 0);
    assert_int_equal(seen.wrong, 0);
    assert_true(seen.lost > 0);
    assert_int_equal(seen.delivered + seen.lost, seen.next);
    assert_ok(ps_stats(b, &stats));
    assert_int_equal(stats.lost, seen.lost);
    /* Who reads loses nothing through somebody who does not. */
    assert_int_equal(quick.wrong, 0);
    assert_int_equal(quick.lost, 0);
    assert_int_equal(ps_close(a), 0);
    assert_int_equal(ps_close(b), 0);
    assert_int_equal(ps_close(c), 0);
}

/* ------------------------------------------------------------------ the killed */

struct victim {
    const char *url;
    atomic_int *ready;
};

/* Joins, leaves, subscribes and unsubscribes until it is killed. */
static int victim(void *arg)
{
    struct victim *v = arg;

    for (;;) {
        struct support_numbers seen = { 0, 0, 0, 0 };
        ps_bus *bus;
        ps_sub *sub;

        if (ps_open(&bus, v->url) < 0)
            return 1;
        for (int i = 0; i < 3; i++)
            if (ps_subscribe(bus, "killed", support_take_number, &seen, NULL, &sub) < 0 ||
                ps_subscribe(bus, "t", support_take_number, &seen, NULL, NULL) < 0 || ps_unsubscribe(sub) < 0)
                return 2;
        atomic_fetch_add(v->ready, 1);
        if (ps_close(bus) < 0)
            return 3;
    }
}

static int victim_ready(void *ready)
{
    return atomic_load((atomic_int *)ready) > 0;
}

static void test_p7_p8_members_killed_at_random_hinder_nobody_and_leave_nothing(void **state)
{
    const char *url = unixgram_url();
    struct victim v = { url, support_shared(sizeof(atomic_int)) };
    struct support_numbers seen = { 0, 0, 0, 0 };
    ps_bus *a = member(url, NULL, NULL, NULL), *b = member(url, "t", support_take_number, &seen);

    (void)state;
    for (uint64_t round = 0, number = 0; round < ROUNDS; round++) {
        pid_t child[MEMBERS];

        atomic_store(v.ready, 0);
        for (int i = 0; i < MEMBERS; i++)
            child[i] = support_child(victim, &v);
        assert_true(support_wait(victim_ready, v.ready, DEADLINE_MS));
        for (int i = (int)(support_random() % 20); i >= 0; i--, number++) {
            assert_true(ps_publish(a, "t", &number, sizeof number) >= 1);
            assert_int_equal(ps_dispatch(b, 0, 0), 1);
        }
        for (int i = 0; i < MEMBERS; i++)
            support_kill(child[i]);
        /* The dead are found out: nobody is told that they were reached. */
        assert_int_equal(ps_publish(a, "killed", "x", 1), 0);
        assert_int_equal(ps_publish(a, "t", &number, sizeof number), 1);
        assert_int_equal(ps_dispatch(b, 0, 0), 1);
        number++;
    }
    assert_int_equal(seen.wrong, 0);
    assert_int_equal(seen.lost, 0);
    /* Two sockets and two files of filters; whoever opens sweeps away what no publish has met. */
    assert_int_equal(ps_close(member(url, NULL, NULL, NULL)), 0);
    assert_int_equal(entries(url), 4);
    assert_int_equal(ps_close(a), 0);
    assert_int_equal(ps_close(b), 0);
    assert_int_equal(access(support_file(url), F_OK), -1);
    assert_int_equal(munmap(v.ready, sizeof(atomic_int)), 0);
}

static int victim_sits(void *arg)
{
    struct victim *v = arg;
    ps_bus *bus;

    if (ps_open(&bus, v->url) < 0 || ps_subscribe(bus, "t", support_take_number, NULL, NULL, NULL) < 0)
        return 1;
    atomic_fetch_add(v->ready, 1);
    for (;;)
        pause();
}

static void test_p8_everybody_killed_next_one_finds_a_clean_bus(void **state)
{
    const char *url = unixgram_url();
    struct victim v = { url, support_shared(sizeof(atomic_int)) };
    char create[256];
    ps_bus *bus;
    pid_t child = support_child(victim_sits, &v);

    (void)state;
    assert_true(support_wait(victim_ready, v.ready, DEADLINE_MS));
    support_kill(child);
    assert_int_equal(entries(url), 2);
    snprintf(create, sizeof create, "%s?create=0", url);
    assert_int_equal(ps_open(&bus, create), PS_ENOENT);
    bus = member(url, NULL, NULL, NULL);
    assert_int_equal(entries(url), 2);
    assert_int_equal(ps_publish(bus, "t", "x", 1), 0);
    assert_int_equal(ps_close(bus), 0);
    assert_int_equal(access(support_file(url), F_OK), -1);
    assert_int_equal(munmap(v.ready, sizeof(atomic_int)), 0);
}

/* ------------------------------------------------------------------ coming and going */

/* The directory comes and goes with the last member; nobody may find himself on a bus that is not there. */
static int comer(void *arg)
{
    struct support_numbers seen = { 0, 0, 0, 0 };

    for (uint64_t i = 0; i < 300; i++) {
        ps_bus *bus;
        int rc = ps_open(&bus, arg);

        if (rc < 0) {
            fprintf(stderr, "open: %s (%s)\n", ps_strerror(rc), ps_errmsg());
            return 1;
        }
        if (ps_subscribe(bus, "own", support_take_number, &seen, NULL, NULL) < 0)
            return 2;
        seen.next = 0;
        uint64_t number = 0;
        if (ps_publish(bus, "own", &number, sizeof number) < 1)
            return 3;                   /* not even we hear it: our names are gone */
        if (ps_dispatch(bus, 0, 0) < 1)
            return 4;
        if (ps_close(bus) < 0)
            return 5;
    }
    return 0;
}

static void test_open_and_close_at_the_same_time_nobody_is_left_without_a_bus(void **state)
{
    const char *url = unixgram_url();
    pid_t child[MEMBERS];

    (void)state;
    for (int i = 0; i < MEMBERS; i++)
        child[i] = support_child(comer, (void *)(uintptr_t)url);
    for (int i = 0; i < MEMBERS; i++)
        assert_int_equal(support_reap(child[i], 3 * DEADLINE_MS), 0);
    assert_int_equal(access(support_file(url), F_OK), -1);
}

/* ------------------------------------------------------------------ strangers */

static void test_p9_datagrams_of_strangers_are_counted_and_dropped(void **state)
{
    const char *url = unixgram_url();
    struct support_numbers seen = { 0, 0, 0, 0 };
    ps_bus *bus = member(url, "#", support_take_number, &seen);
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    static unsigned char data[UNIXGRAM_DATAGRAM + 4096];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 1 << 20;
    uint64_t garbage = 0;

    (void)state;
    assert_true(fd >= 0);
    assert_ok(ps_stats(bus, &stats));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%016llx", support_file(url), (unsigned long long)stats.publisher);
    for (int i = 0; i < 3000; i++) {
        struct unixgram_header *header = (struct unixgram_header *)(void *)data;
        size_t size = (size_t)(support_random() % (i % 100 == 0 ? sizeof data : 200));

        for (size_t at = 0; at < size && at < 400; at++)
            data[at] = (unsigned char)support_random();
        /* Mostly right in front, so that what comes behind is looked at. */
        if (size > sizeof *header && i % 4 != 0) {
            header->magic = UNIXGRAM_MAGIC;
            header->topic_len = (uint32_t)(support_random() % 300);
        }
        data[sizeof data - 1] = 0;
        assert_int_equal(sendto(fd, data, size, 0, (struct sockaddr *)&address, sizeof address), size);
        assert_ok(ps_dispatch(bus, 0, 0));
    }
    assert_ok(ps_stats(bus, &stats));
    garbage = stats.corrupt;
    assert_true(garbage > 1000);
    /* And it goes on. */
    uint64_t number = seen.next = 7;
    seen.wrong = 0;
    assert_int_equal(ps_publish(bus, "t", &number, sizeof number), 1);
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(seen.wrong, 0);
    close(fd);
    assert_int_equal(ps_close(bus), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p5_full_queue_next_message_tells_exactly_how_many_were_lost),
        cmocka_unit_test(test_p7_p8_members_killed_at_random_hinder_nobody_and_leave_nothing),
        cmocka_unit_test(test_p8_everybody_killed_next_one_finds_a_clean_bus),
        cmocka_unit_test(test_open_and_close_at_the_same_time_nobody_is_left_without_a_bus),
        cmocka_unit_test(test_p9_datagrams_of_strangers_are_counted_and_dropped),
    };

    if (ps_transport_register(&unixgram_transport) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
