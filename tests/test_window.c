/* SPDX-License-Identifier: MIT */
/*
 * test_window.c - what a reader takes out of a lane at once: runs that nobody wants are counted to the message, what is left in
 * the window outlives the dispatch, what its handlers publish belongs to the next one, and nothing overwritten is believed.
 */
#include "forge.h"

#include <stdio.h>
#include <string.h>

/* Runs of unwanted messages, each with a wanted one behind it; the longest are longer than what is looked at at once. */
static const unsigned runs[] = { 0, 0, 1, 63, 64, 65, 0, 255, 256, 257, 3, 0, 600 };
#define RUNS (sizeof runs / sizeof *runs)
#define BEHIND 70                       /* unwanted ones behind the last */

struct seen {
    ps_bus *bus, *answers;              /* answers: published on by each handler, or NULL */
    unsigned count;
    uint64_t expected;                  /* the number of the next wanted one */
    int wrong;
};

static uint64_t unwanted_of(ps_bus *bus)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    assert_ok(ps_stats(bus, &stats));
    return stats.unwanted;
}

static void seen_take(const ps_msg *msg, void *user)
{
    struct seen *s = user;
    unsigned number = 0;
    if (msg->size == sizeof number)
        memcpy(&number, msg->data, sizeof number);
    s->wrong += number != s->count || msg->sequence != s->expected || msg->lost != 0 || strcmp(msg->topic, "wanted") != 0;
    s->wrong += (uintptr_t)msg->data % 16 != 0;
    s->count++;
    s->expected += 1 + (s->count < RUNS ? runs[s->count] : 0);
    if (s->answers && ps_publish(s->answers, "wanted", &s->count, sizeof s->count) != 1)
        s->wrong++;
}

/* Also one that wants everything else, or it would not be sent at all. */
static void window_open(const char *scheme, ps_bus **from, ps_bus **other, struct seen *s)
{
    char lossy[200];
    const char *url = support_url(scheme, "window", "depth=8192");
    memset(s, 0, sizeof *s);
    assert_ok(ps_open(from, url));
    assert_ok(ps_open(&s->bus, url));
    assert_ok(ps_subscribe(s->bus, "wanted", seen_take, s, NULL, NULL));
    s->expected = runs[0];
    snprintf(lossy, sizeof lossy, "%s&lossy=1", url);
    assert_ok(ps_open(other, lossy));
    assert_ok(ps_subscribe(*other, "unwanted", seen_take, NULL, NULL, NULL));
}

/* A publisher, and a reader of "more". */
static void open_reader(const char *scheme, const char *options, ps_bus **from, struct seen *s, ps_sub **sub)
{
    const char *url = support_url(scheme, "window", options);
    memset(s, 0, sizeof *s);
    assert_ok(ps_open(from, url));
    assert_ok(ps_open(&s->bus, url));
    assert_ok(ps_subscribe(s->bus, "more", seen_take, s, NULL, sub));
}

static void publish_more(ps_bus *from, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        assert_int_equal(ps_publish(from, "more", &i, sizeof i), 1);
}

/* A publisher, and a reader that it does not wait for; nor for itself. */
static void open_lossy(const char *scheme, const char *options, ps_bus **from, ps_bus **reader)
{
    char lossy[200];
    const char *url = support_url(scheme, "window", options);
    snprintf(lossy, sizeof lossy, "%s&lossy=1", url);
    assert_ok(ps_open(from, lossy));
    assert_ok(ps_open(reader, lossy));
}

static void publish_runs(ps_bus *from)
{
    for (unsigned i = 0; i <= RUNS; i++) {
        for (unsigned k = 0; k < (i < RUNS ? runs[i] : BEHIND); k++)
            assert_int_equal(ps_publish(from, "unwanted", "", 0), 1);
        if (i < RUNS)
            assert_int_equal(ps_publish(from, "wanted", &i, sizeof i), 1);
    }
}

/* One message a call: the others wait in the window, and nothing is counted twice, or before it is passed. */
static void test_window_one_by_one_counts_each_unwanted_message_once(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from, *other;
        uint64_t passed = 0;
        window_open(schemes[t], &from, &other, &s);
        publish_runs(from);
        for (unsigned i = 0; i < RUNS; i++) {
            passed += runs[i];
            assert_int_equal(ps_dispatch(s.bus, 1, 0), 1);
            assert_int_equal(s.count, i + 1);
            /* At most the next run more, for the cursor stands before what is wanted. */
            assert_in_range(unwanted_of(s.bus), passed, passed + (i + 1 < RUNS ? runs[i + 1] : BEHIND));
        }
        assert_int_equal(ps_dispatch(s.bus, 0, 0), 0);
        assert_int_equal(unwanted_of(s.bus), passed + BEHIND);
        assert_int_equal(s.wrong, 0);
        assert_ok(ps_close(other));
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* What was left in the window by a call with a bound is there for the next one, and what its handlers publish is not. */
static void test_window_left_over_is_behind_the_mark_and_answers_are_not(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from, *other;
        window_open(schemes[t], &from, &other, &s);
        publish_runs(from);
        assert_int_equal(ps_dispatch(s.bus, 2, 0), 2);
        s.answers = from;
        assert_int_equal(ps_dispatch(s.bus, 0, 0), (int)RUNS - 2);
        s.answers = NULL;
        assert_int_equal(s.wrong, 0);
        assert_int_equal(ps_dispatch(s.bus, 0, 0), (int)RUNS - 2);
        assert_ok(ps_close(other));
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* A call that ended where its window did knows of more; the next one reads all that is there by then. */
static void test_window_call_reads_all_that_is_there_when_it_begins(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from;
        open_reader(schemes[t], "depth=1024", &from, &s, NULL);
        publish_more(from, 0, 300);
        assert_int_equal(ps_dispatch(s.bus, PS__COPIES, 0), PS__COPIES);
        publish_more(from, 300, 350);
        assert_int_equal(ps_dispatch(s.bus, 0, 0), 350 - PS__COPIES);
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* The last subscription goes while the window has something: whoever comes then sees none of it. */
static void test_window_is_gone_with_the_last_subscription(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from;
        ps_sub *sub;
        open_reader(schemes[t], "", &from, &s, &sub);
        publish_more(from, 0, 10);
        assert_int_equal(ps_dispatch(s.bus, 1, 0), 1);
        assert_ok(ps_unsubscribe(sub));
        assert_ok(ps_subscribe(s.bus, "more", seen_take, &s, NULL, NULL));
        assert_int_equal(ps_dispatch(s.bus, 0, 0), 0);
        assert_int_equal(s.count, 1);
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* What was held in the window when the last subscription went hides nothing of what a later one misses. */
static void test_window_gone_with_the_subscription_hides_no_loss(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from;
        ps_sub *sub;
        memset(&s, 0, sizeof s);
        open_lossy(schemes[t], "depth=64", &from, &s.bus);
        assert_ok(ps_subscribe(s.bus, "more", seen_take, &s, NULL, &sub));
        publish_more(from, 0, 32);
        assert_int_equal(ps_dispatch(s.bus, 1, 0), 1);
        assert_ok(ps_unsubscribe(sub));
        assert_ok(ps_subscribe(s.bus, "more", seen_take, &s, NULL, NULL));
        publish_more(from, 0, 64 + 20);
        ps_bus_stats stats = PS_BUS_STATS_INIT;
        assert_ok(ps_stats(s.bus, &stats));
        assert_int_equal(stats.lost, 20);
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* What is held in the window cannot be lost any more, and ps_stats does not say so. */
static void test_window_holds_what_is_not_counted_as_lost(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct seen s;
        ps_bus *from;
        memset(&s, 0, sizeof s);
        open_lossy(schemes[t], "depth=64", &from, &s.bus);
        assert_ok(ps_subscribe(s.bus, "more", seen_take, &s, NULL, NULL));
        publish_more(from, 0, 32);
        assert_int_equal(ps_dispatch(s.bus, 1, 0), 1);
        publish_more(from, 0, 64 + 20);
        assert_int_equal(forge_stats(s.bus).lost, 20);
        while (ps_dispatch(s.bus, 0, 0) > 0) { }
        assert_int_equal(forge_stats(s.bus).lost, 20);
        assert_int_equal(s.count, 32 + 64);
        assert_ok(ps_close(s.bus));
        assert_ok(ps_close(from));
    }
}

/* Evicted by a lane that it has read to its end, while another one always has something: it gates the first one again at once. */
static void test_window_evicted_by_a_quiet_lane_gates_it_again(void **state)
{
    (void)state;
    struct seen s;
    ps_bus *quiet, *busy;
    unsigned number = 0;
    memset(&s, 0, sizeof s);
    const char *url = support_url("shm", "window", "depth=64&evict=-1");
    assert_ok(ps_open(&quiet, url));
    assert_ok(ps_open(&busy, url));
    assert_ok(ps_open(&s.bus, url));
    assert_ok(ps_subscribe(s.bus, "more", seen_take, &s, NULL, NULL));
    assert_int_equal(ps_publish(quiet, "more", &number, sizeof number), 1);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 1);
    assert_int_equal(ps_publish(busy, "more", &number, sizeof number), 1);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 1);
    struct ps__port *port = &forge_shm(s.bus)->port;
    ps__raise(&forge_lane(quiet)->evicted[port->slot], port->join_number);      /* of somebody who thought so long ago */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ps_publish(busy, "more", &number, sizeof number), 1);
        assert_int_equal(ps_dispatch(s.bus, 0, 0), 1);
    }
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(ps_publish(quiet, "more", &i, sizeof i), 1);
    assert_int_equal(ps_publish(quiet, "more", &number, sizeof number), PS_EAGAIN);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 64);
    assert_int_equal(forge_stats(s.bus).lost, 0);
    assert_ok(ps_close(s.bus));
    assert_ok(ps_close(busy));
    assert_ok(ps_close(quiet));
}

/* ---------------------------------------------------------------- payloads that were overwritten */

#define FAR  512                        /* bytes of a message that does not fit into its cell */
#define SENT 200
#define ROOM 128                        /* so many the payload ring holds */

struct whole {
    unsigned count;
    uint64_t first, lost;
    int torn;
};

static void whole_take(const ps_msg *msg, void *user)
{
    struct whole *w = user;
    const unsigned char *bytes = msg->data;
    if (w->count++ == 0)
        w->first = msg->sequence;
    w->lost += msg->lost;
    w->torn += msg->size != FAR;
    for (size_t i = 0; i < msg->size; i++)
        w->torn += bytes[i] != (unsigned char)msg->sequence;
}

static void publish_far(ps_bus *bus, unsigned from, unsigned count)
{
    unsigned char bytes[FAR];
    for (unsigned i = from; i < from + count; i++) {
        memset(bytes, (int)i, sizeof bytes);
        assert_int_equal(ps_publish(bus, "far", bytes, sizeof bytes), 1);
    }
}

/* Next to the oldest it would be overtaken again and again while it copies, and see nothing as long as a flood lasts. */
static void test_window_lossy_reader_gives_up_the_oldest_payloads(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm" };
    for (int t = 0; t < 2; t++) {
        struct whole w = { 0 };
        ps_bus *from, *bus;
        open_lossy(schemes[t], "depth=8192&bytes=64k", &from, &bus);
        assert_ok(ps_subscribe(bus, "far", whole_take, &w, NULL, NULL));
        publish_far(from, 0, SENT);
        assert_int_equal(ps_dispatch(bus, 0, 0), ROOM - ROOM / 4);
        assert_int_equal(w.first, SENT - (ROOM - ROOM / 4));
        assert_int_equal(w.lost, SENT - (ROOM - ROOM / 4));
        publish_far(from, SENT, 10);                    /* that is over then */
        assert_int_equal(ps_dispatch(bus, 0, 0), 10);
        assert_int_equal(w.lost, SENT - (ROOM - ROOM / 4));
        assert_int_equal(w.torn, 0);
        assert_ok(ps_close(bus));
        assert_ok(ps_close(from));
    }
}

struct mixed {
    unsigned frames, notes;
    uint64_t lost;
};

static void mixed_take(const ps_msg *msg, void *user)
{
    struct mixed *m = user;
    m->frames += msg->size > 64;
    m->notes += msg->size <= 64;
    m->lost += msg->lost;
}

/* What lies in the cells themselves is not given up with the payloads around it. */
static void test_window_lossy_reader_without_a_payload_loses_no_small_message(void **state)
{
    (void)state;
    unsigned char frame[4096] = { 0 };
    struct mixed m = { 0 };
    ps_bus *from, *bus;
    open_lossy("inproc", "depth=8192&bytes=64k", &from, &bus);
    assert_ok(ps_subscribe(bus, "#", mixed_take, &m, NULL, NULL));
    for (int i = 0; i < 17; i++) {                      /* one more than there is room for */
        assert_int_equal(ps_publish(from, "frame", frame, sizeof frame), 1);
        for (int k = 0; k < 200; k++)
            assert_int_equal(ps_publish(from, "note", &k, sizeof k), 1);
    }
    assert_int_equal(ps_dispatch(bus, 0, 0), 17 * 200 + 12);
    assert_int_equal(m.notes, 17 * 200);
    assert_int_equal(m.frames, 12);
    assert_int_equal(m.lost, 5);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(from));
}

/* A wildcard lets foreign messages into its window: those whose payload is gone are unwanted, and not lost. */
static void test_window_lossy_reader_misses_no_payload_that_it_does_not_want(void **state)
{
    (void)state;
    unsigned char bytes[FAR] = { 0 };
    struct whole w = { 0 };
    ps_bus *from, *bus;
    open_lossy("shm", "depth=8192&bytes=64k", &from, &bus);
    assert_ok(ps_subscribe(bus, "note/#", whole_take, &w, NULL, NULL));
    assert_ok(ps_subscribe(from, "far", whole_take, NULL, NULL, NULL));         /* never reads them */
    assert_true(ps_publish(from, "note/1", bytes, sizeof bytes) > 0);
    for (unsigned i = 0; i < SENT; i++)
        assert_true(ps_publish(from, "far", bytes, sizeof bytes) > 0);
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    ps_bus_stats stats = forge_stats(bus);
    assert_int_equal(stats.lost, 1);                    /* the note, by which it learnt what is gone */
    assert_int_equal(stats.unwanted, SENT);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(from));
}

/* Somebody else has taken its slot, as happens to who closed the descriptor of its lock: nobody waits for it, nor evicts it. */
static void test_window_reader_without_its_slot_believes_no_overwritten_payload(void **state)
{
    (void)state;
    struct whole w = { 0 };
    ps_bus *from, *bus;
    const char *url = support_url("shm", "window", "depth=8192&bytes=64k");
    assert_ok(ps_open(&from, url));
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_subscribe(bus, "far", whole_take, &w, NULL, NULL));
    struct ps__port *port = &forge_shm(bus)->port;
    ps__store_rel(&port->reader[port->slot]->join, 0);
    publish_far(from, 0, SENT);
    int handled = 0;
    for (int i = 0; i < 3; i++)         /* a call steps over some of what is gone */
        handled += ps_dispatch(bus, 0, 0);
    assert_int_equal(handled, ROOM);
    assert_int_equal(w.lost, SENT - ROOM);
    assert_int_equal(w.torn, 0);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(from));
}

/* The other one: producers go by the cursors that the old owner, still reading, writes into its area. */
static void test_window_new_owner_of_a_slot_believes_no_overwritten_payload(void **state)
{
    (void)state;
    struct whole old = { 0 }, w = { 0 };
    ps_bus *from, *before, *bus;
    const char *url = support_url("shm", "window", "depth=8192&bytes=64k");
    assert_ok(ps_open(&from, url));
    assert_ok(ps_open(&before, url));
    assert_ok(ps_subscribe(before, "far", whole_take, &old, NULL, NULL));
    ps__slot_drop(forge_shm(before), forge_shm(before)->port.slot);
    assert_ok(ps_open(&bus, url));
    assert_int_equal(forge_shm(bus)->port.slot, forge_shm(before)->port.slot);
    assert_ok(ps_subscribe(bus, "far", whole_take, &w, NULL, NULL));
    for (unsigned i = 0; i < SENT; i += 5) {
        publish_far(from, i, 5);
        assert_int_equal(ps_dispatch(before, 0, 0), 5);
    }
    for (int i = 0; i < 3; i++)
        assert_true(ps_dispatch(bus, 0, 0) >= 0);
    assert_int_equal(w.count, ROOM);
    assert_int_equal(w.lost, SENT - ROOM);
    assert_int_equal(w.torn + old.torn, 0);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(before));
    assert_ok(ps_close(from));
}

/* A damaged tail says that nothing was claimed: stamps beyond it are garbage, and what is written there later is not missed. */
static void test_window_stamps_beyond_a_damaged_tail_are_not_believed(void **state)
{
    (void)state;
    struct seen s;
    ps_bus *from;
    memset(&s, 0, sizeof s);
    const char *url = support_url("shm", "window", "depth=64");
    assert_ok(ps_open(&from, url));
    assert_ok(ps_open(&s.bus, url));
    assert_ok(ps_subscribe(s.bus, "wanted", seen_take, &s, NULL, NULL));
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ps_publish(from, "wanted", &i, sizeof i), 1);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 10);
    uint64_t tail = ps__load_rlx(&forge_lane(from)->tail);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ps_publish(from, "wanted", &i, sizeof i), 1);
    ps__store_rlx(&forge_lane(from)->tail, tail - 1);
    assert_int_equal(ps_dispatch(s.bus, 0, 0), 0);
    assert_int_equal(s.count, 10);
    assert_ok(ps_close(s.bus));
    assert_ok(ps_close(from));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_one_by_one_counts_each_unwanted_message_once),
        cmocka_unit_test(test_window_left_over_is_behind_the_mark_and_answers_are_not),
        cmocka_unit_test(test_window_call_reads_all_that_is_there_when_it_begins),
        cmocka_unit_test(test_window_is_gone_with_the_last_subscription),
        cmocka_unit_test(test_window_gone_with_the_subscription_hides_no_loss),
        cmocka_unit_test(test_window_holds_what_is_not_counted_as_lost),
        cmocka_unit_test(test_window_evicted_by_a_quiet_lane_gates_it_again),
        cmocka_unit_test(test_window_lossy_reader_gives_up_the_oldest_payloads),
        cmocka_unit_test(test_window_lossy_reader_without_a_payload_loses_no_small_message),
        cmocka_unit_test(test_window_lossy_reader_misses_no_payload_that_it_does_not_want),
        cmocka_unit_test(test_window_reader_without_its_slot_believes_no_overwritten_payload),
        cmocka_unit_test(test_window_new_owner_of_a_slot_believes_no_overwritten_payload),
        cmocka_unit_test(test_window_stamps_beyond_a_damaged_tail_are_not_believed),
    };
    return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
