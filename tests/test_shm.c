/* SPDX-License-Identifier: MIT */
/* test_shm.c - what only shared memory has: members that are processes, who come, go, inherit and race. */
#include "actors.h"

#include <sys/resource.h>

/* ---------------------------------------------------------------- messages between processes */

#define EXCHANGES 2000

static int echo_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    uint64_t sent = 0;
    CHILD_CHECK(s, (bus = join_bus(s, "ping/#")) != NULL);
    while (sent < EXCHANGES) {
        CHILD_CHECK(s, hear(bus, &s->inbox[0], sent + 1) == 0);
        for (; sent < s->inbox[0].count; sent++)
            CHILD_CHECK(s, say(bus, "pong/x", 2, sent, 32 + sent % 700) >= 1);
    }
    CHILD_CHECK(s, s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].repeated + s->inbox[0].lost == 0);
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) == 0 ? 0 : 2;
}

static void exchange(const char *url)
{
    struct stage *s = stage_new(url);
    ps_bus *bus;
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_subscribe(bus, "pong/#", inbox_take, &s->inbox[1], NULL, NULL));
    pid_t child = start_child(echo_child, s);
    assert_true(wait_word(&s->ready, 1));
    for (uint64_t sent = 0; sent < EXCHANGES; sent++) {
        assert_true(say(bus, "ping/a/b", 1, sent, 32 + sent % 900) >= 1);
        if (sent % 17 == 0)
            assert_int_equal(hear(bus, &s->inbox[1], sent + 1), 0);
    }
    assert_int_equal(hear(bus, &s->inbox[1], EXCHANGES), 0);
    s->done = 1;
    assert_child(s, child);
    assert_int_equal(s->inbox[1].damaged + s->inbox[1].skipped + s->inbox[1].repeated + s->inbox[1].lost, 0);
    assert_ok(ps_close(bus));
}

static void test_p4_exchange_over_a_named_bus_arrives_whole_and_in_order(void **state)
{
    (void)state;
    const char *url = support_url("shm", "exchange", "");
    exchange(url);
    assert_int_equal(access(support_file(url), F_OK), -1);
}

static void test_p4_exchange_over_an_absolute_path_arrives_whole_and_in_order(void **state)
{
    (void)state;
    exchange(scratch_url("bus", NULL));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* The test's handle, as the children inherit it. */
static ps_bus *inherited;

struct worker {
    struct stage *stage;
    unsigned id, workers;
};

/* A worker owns one channel and greets the next one in the circle: any worker reaches any other. */
static int worker_child(void *arg)
{
    const struct worker *w = arg;
    struct stage *s = w->stage;
    char mine[32], next[32];
    ps_bus *bus = inherited;
    snprintf(mine, sizeof mine, "user:%u", w->id);
    snprintf(next, sizeof next, "user:%u", (w->id + 1) % w->workers);
    CHILD_CHECK(s, ps_publish(bus, "boss", "x", 1) == PS_EFORKED);
    CHILD_CHECK(s, ps_subscribe(bus, mine, inbox_take, s, NULL, NULL) == PS_EFORKED);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) == PS_EFORKED);
    CHILD_CHECK(s, ps_after_fork(bus) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, mine, inbox_take, &s->inbox[w->id], NULL, NULL) == 0);
    s->ready++;
    CHILD_CHECK(s, wait_word(&s->ready, w->workers));
    CHILD_CHECK(s, say(bus, next, w->id, 0, 100) == 1);
    CHILD_CHECK(s, say(bus, "boss", w->id, 0, 100) == 1);
    CHILD_CHECK(s, hear(bus, &s->inbox[w->id], 1) == 0);
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p11_anonymous_bus_inherited_by_fork_joins_parent_and_children(void **state)
{
    (void)state;
    struct stage *s = stage_new("");
    struct worker worker[3];
    pid_t child[3];
    int fds = support_fd_count();
    assert_ok(ps_open(&inherited, "shm:"));
    assert_ok(ps_subscribe(inherited, "boss", inbox_take, &s->inbox[3], NULL, NULL));
    for (unsigned i = 0; i < 3; i++) {
        worker[i] = (struct worker){ s, i, 3 };
        child[i] = start_child(worker_child, &worker[i]);
    }
    assert_int_equal(hear(inherited, &s->inbox[3], 3), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_child(s, child[i]);
    assert_int_equal(s->inbox[3].count, 3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(s->inbox[i].damaged + s->inbox[i].skipped + s->inbox[i].lost, 0);
    assert_int_equal(living_members(inherited), 1);
    assert_ok(ps_close(inherited));
    assert_int_equal(support_fd_count(), fds);
}

static void test_p11_two_anonymous_buses_stay_apart(void **state)
{
    (void)state;
    ps_bus *a, *b;
    static struct inbox in;
    memset(&in, 0, sizeof in);
    assert_ok(ps_open(&a, "shm:"));
    assert_ok(ps_open(&b, "shm:"));
    assert_ok(ps_subscribe(a, "#", inbox_take, &in, NULL, NULL));
    assert_int_equal(ps_publish(b, "t", "x", 1), 0);
    assert_int_equal(living_members(a), 1);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
}

/* ---------------------------------------------------------------- subscribe is a barrier */

#define BARRIER_ROUNDS 1000

static int barrier_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    for (uint64_t i = 1; i <= BARRIER_ROUNDS; i++) {
        char topic[32];
        ps_sub *sub;
        snprintf(topic, sizeof topic, "new/%u%s", (unsigned)i, i % 3 ? "" : "/#");
        CHILD_CHECK(s, wait_word(&s->go, i));
        CHILD_CHECK(s, ps_subscribe(bus, topic, inbox_take, &s->inbox[0], NULL, &sub) == 0);
        s->ready = i;                   /* from here on the other process knows: the publish must be seen */
        CHILD_CHECK(s, hear(bus, &s->inbox[0], i) == 0);
        if (i % 2)
            CHILD_CHECK(s, ps_unsubscribe(sub) == 0);
        s->done = i;
    }
    return ps_close(bus) == 0 ? 0 : 2;
}

static void test_p3_subscribe_in_another_process_is_a_barrier(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64&bytes=64k"));
    ps_bus *bus;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(barrier_child, s);
    for (uint64_t i = 1; i <= BARRIER_ROUNDS; i++) {
        char topic[32];
        snprintf(topic, sizeof topic, "new/%u", (unsigned)i);
        /* Sent before the subscription exists, so that a remembered "nobody" would show. */
        assert_true(ps_wanted(bus, topic) >= 0);
        s->go = i;
        assert_true(wait_word(&s->ready, i));
        if (say(bus, topic, 1, i - 1, 64) != 1)
            fail_msg("round %d: the publish did not see the subscription", (int)i);
        assert_true(wait_word(&s->done, i));
    }
    assert_child(s, child);
    assert_int_equal(s->inbox[0].skipped + s->inbox[0].lost + s->inbox[0].repeated, 0);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- a lane passes on */

static int short_lived_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    uint64_t round = s->go;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    for (uint64_t i = 0; i < 5; i++)
        CHILD_CHECK(s, say(bus, "short", round, i, 40 + 100 * i) == 1);
    CHILD_CHECK(s, ps_stats(bus, &st) == 0);
    s->number[round] = st.publisher;
    return round % 2 ? 0 : ps_close(bus) == 0 ? 0 : 2;       /* every second one leaves without a word */
}

static void test_p8_lane_of_a_short_lived_publisher_is_taken_over_with_its_messages(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=256&bytes=256k"));
    ps_bus *bus;
    uint64_t last = 0;
    int64_t bytes = 0;
    assert_ok(ps_open(&bus, s->url));
    assert_ok(ps_subscribe(bus, "short", inbox_take, &s->inbox[0], NULL, NULL));
    for (uint64_t round = 0; round < 12; round++) {
        s->go = round;
        pid_t child = start_child(short_lived_child, s);
        assert_child(s, child);
        /* Every third time two generations lie in the lane before anybody reads. */
        if (round % 3 == 1)
            continue;
        while (s->inbox[0].count < 5 * (round + 1)) {
            assert_int_equal(ps_dispatch(bus, 1, 1000), 1);
            if (last)
                assert_int_equal(s->inbox[0].sequence, last + 1);
            last = s->inbox[0].sequence;
            assert_int_equal(s->inbox[0].publisher, s->number[(s->inbox[0].count - 1) / 5]);
        }
        if (round == 0)
            bytes = file_bytes(scratch_file("bus"));
    }
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].repeated + s->inbox[0].lost, 0);
    assert_int_equal(s->inbox[0].changed_hands, 11);
    for (int i = 0; i < 12; i++) {
        assert_int_not_equal(s->number[i], 0);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(s->number[i], s->number[k]);
    }
    /* One publisher at a time: one lane, however many there were. */
    assert_int_equal(file_bytes(scratch_file("bus")), bytes);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- places */

static int resident_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    s->rc[0] = ps_open(&bus, s->url);
    s->ready++;
    wait_word(&s->done, 1);
    return 0;
}

static void test_p8_members_more_than_places_get_efull_and_dead_ones_make_room(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "members=3"));
    ps_bus *a, *b, *c = (ps_bus *)&a;
    assert_ok(ps_open(&a, s->url));
    assert_ok(ps_open(&b, s->url));
    pid_t child = start_child(resident_child, s);
    assert_true(wait_word(&s->ready, 1));
    assert_int_equal(s->rc[0], 0);
    assert_int_equal(living_members(a), 3);
    assert_int_equal(ps_open(&c, s->url), PS_EFULL);
    assert_null(c);
    assert_true(strlen(ps_errmsg()) > 0);
    kill_child(child);
    for (int i = 0; i < 20; i++) {
        child = start_child(resident_child, s);
        assert_true(wait_word(&s->ready, (uint64_t)i + 2));
        assert_int_equal(s->rc[0], 0);
        kill_child(child);
    }
    assert_ok(ps_open(&c, s->url));
    assert_ok(ps_close(a));
    assert_ok(ps_open(&a, s->url));
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
    assert_ok(ps_close(c));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

static void test_p8_handles_of_one_process_close_in_any_order(void **state)
{
    (void)state;
    static const int order[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    static struct inbox in[3];
    for (int o = 0; o < 6; o++) {
        const char *url = scratch_url("bus", "depth=16&bytes=16k");
        ps_bus *bus[3];
        uint64_t heard = 0;
        memset(in, 0, sizeof in);
        for (int i = 0; i < 3; i++) {
            assert_ok(ps_open(&bus[i], url));
            assert_ok(ps_subscribe(bus[i], "all", inbox_take, &in[i], NULL, NULL));
        }
        for (int gone = 0; gone < 3; gone++) {
            /* Closing any descriptor of a file drops a process's classic locks on it; ours must not care. */
            int fd = open(scratch_file("bus"), O_RDONLY | O_CLOEXEC);
            assert_true(fd >= 0);
            close(fd);
            heard++;
            int sender = order[o][2];
            assert_int_equal(say(bus[sender], "all", 1, heard - 1, 64), 3 - gone);
            for (int i = gone; i < 3; i++)
                assert_int_equal(hear(bus[order[o][i]], &in[order[o][i]], heard), 0);
            assert_int_equal(living_members(bus[sender]), 3 - gone);
            assert_ok(ps_close(bus[order[o][gone]]));
        }
        assert_int_equal(scratch_count(scratch_path, NULL), 0);
    }
}

/* ---------------------------------------------------------------- races of coming and going */

#define RACERS 6
#define RACE_ROUNDS 200

static int racer_child(void *arg)
{
    struct stage *s = arg;
    for (uint64_t round = 1; round <= RACE_ROUNDS; round++) {
        ps_bus *bus;
        CHILD_CHECK(s, wait_word(&s->go, round));
        int rc = ps_open(&bus, s->url);
        if (rc != 0) {
            s->rc[0] = rc;
            CHILD_CHECK(s, rc == 0);
        }
        CHILD_CHECK(s, meet(&s->ready, RACERS, round));
        s->rc[1] = living_members(bus);
        CHILD_CHECK(s, s->rc[1] == RACERS);
        CHILD_CHECK(s, meet(&s->number[0], RACERS, round));
        CHILD_CHECK(s, ps_close(bus) == 0);
        CHILD_CHECK(s, meet(&s->number[1], RACERS, round));
        s->done++;
    }
    return 0;
}

/* Once the last one has left: nothing under the bus's name. */
static int is_gone(const char *url) { return access(support_file(url), F_OK) != 0; }

static void race_of_creators(const char *url)
{
    struct stage *s = stage_new(url);
    pid_t child[RACERS];
    for (int i = 0; i < RACERS; i++)
        child[i] = start_child(racer_child, s);
    for (uint64_t round = 1; round <= RACE_ROUNDS; round++) {
        s->go = round;
        if (!wait_word(&s->done, RACERS * round))
            fail_msg("round %d: line %d, open %d, members %d", (int)round, (int)s->line, (int)s->rc[0], (int)s->rc[1]);
        assert_true(is_gone(url));
    }
    for (int i = 0; i < RACERS; i++)
        assert_child(s, child[i]);
}

static void test_p8_racing_creators_make_one_bus(void **state)
{
    (void)state;
    race_of_creators(scratch_url("bus", "members=16"));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
    race_of_creators(support_url("shm", "race", "members=16"));
}

#define LEAVE_ROUNDS 1500

/* Opens while the test closes what may be the last handle. */
static int arriving_child(void *arg)
{
    struct stage *s = arg;
    for (uint64_t round = 1; round <= LEAVE_ROUNDS; round++) {
        ps_bus *bus;
        CHILD_CHECK(s, wait_word(&s->go, round));
        for (volatile uint64_t spin = round * 7919 % 3000; spin; spin--)
            ;
        s->rc[0] = ps_open(&bus, s->url);
        CHILD_CHECK(s, s->rc[0] == 0);
        CHILD_CHECK(s, ps_subscribe(bus, "hello", inbox_take, &s->inbox[0], NULL, NULL) == 0);
        s->ready = round;
        s->rc[1] = hear(bus, &s->inbox[0], round);
        CHILD_CHECK(s, s->rc[1] == 0);
        CHILD_CHECK(s, ps_close(bus) == 0);
        s->done = round;
    }
    return 0;
}

static void race_with_the_last(const char *url)
{
    struct stage *s = stage_new(url);
    pid_t child = start_child(arriving_child, s);
    for (uint64_t round = 1; round <= LEAVE_ROUNDS; round++) {
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        s->go = round;
        for (volatile uint64_t spin = support_random() % 60000; spin; spin--)
            ;
        assert_ok(ps_close(bus));
        if (!wait_word(&s->ready, round))
            fail_msg("%s: round %d: line %d, open %s", url, (int)round, (int)s->line, ps_strerror((int)s->rc[0]));
        assert_ok(ps_open(&bus, s->url));
        /* One bus and not two: who comes third meets who came second. */
        assert_int_equal(living_members(bus), 2);
        assert_int_equal(say(bus, "hello", 1, round - 1, 48), 1);
        assert_true(wait_word(&s->done, round));
        assert_ok(ps_close(bus));
        assert_true(is_gone(url));
    }
    assert_child(s, child);
    assert_int_equal(s->inbox[0].skipped + s->inbox[0].damaged, 0);
}

static void test_p8_attach_racing_with_last_close_never_splits_the_bus(void **state)
{
    (void)state;
    race_with_the_last(scratch_url("bus", "depth=16&bytes=16k&members=8"));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
    race_with_the_last(support_url("shm", "leave", "depth=16&bytes=16k&members=8"));
}

/* ---------------------------------------------------------------- a message too large for the reader's memory */

#define LARGE ((size_t)12 << 20)

static int poor_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *a, *b;
    const ps_msg *msg = NULL;
    struct rlimit before, none = { 4096, 0 };     /* to Linux 0 is the hard limit */
    struct support_message m;
    unsigned char *text = malloc(LARGE);
    CHILD_CHECK(s, text != NULL && getrlimit(RLIMIT_DATA, &before) == 0);
    CHILD_CHECK(s, ps_open(&a, s->url) == 0 && ps_open(&b, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(b, "#", NULL, NULL, NULL, NULL) == 0);
    CHILD_CHECK(s, say(a, "small", 1, 0, 64) == 1 && ps_next(b, &msg, 0) == 1);
    support_compose(text, LARGE, 1, 1);
    CHILD_CHECK(s, ps_publish(a, "large", text, LARGE) == 1 && say(a, "small/again", 1, 2, 64) == 1);
    none.rlim_max = before.rlim_max;
    CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &none) == 0);
    for (int i = 0; i < 3; i++) {
        s->rc[i] = ps_next(b, &msg, 0);
        CHILD_CHECK(s, s->rc[i] == PS_ENOMEM && msg == NULL);
    }
    CHILD_CHECK(s, setrlimit(RLIMIT_DATA, &before) == 0);
    CHILD_CHECK(s, ps_next(b, &msg, 0) == 1 && !strcmp(msg->topic, "large") && msg->lost == 0);
    CHILD_CHECK(s, support_verify(msg->data, msg->size, &m) == 0 && m.number == 1);
    CHILD_CHECK(s, ps_next(b, &msg, 0) == 1 && !strcmp(msg->topic, "small/again") && msg->lost == 0);
    CHILD_CHECK(s, ps_close(a) == 0 && ps_close(b) == 0);
    return 0;
}

static void test_p4_pull_reader_without_memory_for_a_message_keeps_it(void **state)
{
    (void)state;
    if (ACTORS_SANITIZED)
        SKIP_TEST("a sanitizer does not live with so little memory");
    struct stage *s = stage_new(scratch_url("bus", "bytes=64M&members=4"));
    int code = reap_child(start_child(poor_child, s));
    if (code != 0)
        fail_msg("child ended with %d; its line %d; ps_next answered %d, %d, %d", code, (int)s->line, (int)s->rc[0], (int)s->rc[1],
                 (int)s->rc[2]);
}

#define SHM_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHM_TEST(test_p4_exchange_over_a_named_bus_arrives_whole_and_in_order),
        SHM_TEST(test_p4_exchange_over_an_absolute_path_arrives_whole_and_in_order),
        SHM_TEST(test_p11_anonymous_bus_inherited_by_fork_joins_parent_and_children),
        SHM_TEST(test_p11_two_anonymous_buses_stay_apart),
        SHM_TEST(test_p3_subscribe_in_another_process_is_a_barrier),
        SHM_TEST(test_p8_lane_of_a_short_lived_publisher_is_taken_over_with_its_messages),
        SHM_TEST(test_p8_members_more_than_places_get_efull_and_dead_ones_make_room),
        SHM_TEST(test_p8_handles_of_one_process_close_in_any_order),
        SHM_TEST(test_p8_racing_creators_make_one_bus),
        SHM_TEST(test_p8_attach_racing_with_last_close_never_splits_the_bus),
        SHM_TEST(test_p4_pull_reader_without_memory_for_a_message_keeps_it),
    };
    return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
