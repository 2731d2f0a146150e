/* SPDX-License-Identifier: MIT */
/*
 * test_transport_calls.c - the contract between the core and a backend, call by call: what the header's section "a transport of
 * your own" promises whoever writes one.
 */
#include "fake.h"

#include "../lib/core/bus.h"

#include <pthread.h>
#include <unistd.h>

static void take(const ps_msg *msg, void *user)
{
    (void)msg;
    ++*(int *)user;
}

static void fake_send(ps_bus *bus, const char *topic)
{
    assert_int_equal(ps_publish(bus, topic, "x", 1), 3);
}

/* ---------------------------------------------------------------- publish */

static void test_publish_gets_hashes_of_the_seed_that_open_set(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    fake_send(bus, "a/b/c");
    assert_int_equal(fake.topic_hash, ps__hash("a/b/c", 5, FAKE_SEED));
    assert_int_equal(fake.prefix[0], ps__prefix_hash("", 0, 0, FAKE_SEED));
    assert_int_equal(fake.prefix[1], ps__prefix_hash("a", 1, 1, FAKE_SEED));
    assert_int_equal(fake.prefix[2], ps__prefix_hash("a/b", 3, 2, FAKE_SEED));
    fake_send(bus, "a/b");
    assert_int_not_equal(fake.prefix[2], 0);
    assert_int_equal(fake.prefix[3], 0);                /* it has fewer levels */
    assert_int_equal(ps_publish(bus, "t", NULL, 0), 3); /* data is never NULL */
    assert_int_equal(fake.data_given, 1);
    assert_int_equal(fake.publish_wait, 1);
    assert_int_equal(ps_publish(bus, "a/+", "x", 1), PS_EINVAL);
    assert_int_equal(fake.published, 3);
    fake_do.publish_code = PS_ENOTCONN;
    assert_int_equal(ps_publish(bus, "t", "x", 1), PS_ENOTCONN);
    assert_ok(ps_close(bus));
}

static void publish_again(const ps_msg *msg, void *user)
{
    (void)msg;
    *(int *)user = ps_publish(fake_do.bus, "other", "x", 1);
}

static void test_publish_in_handler_may_not_wait(void **state)
{
    (void)state;
    int answer = 0;
    ps_bus *bus = fake_bus();
    assert_ok(ps_subscribe(bus, "t", publish_again, &answer, NULL, NULL));
    fake_send(bus, "t");
    assert_int_equal(ps_dispatch(bus, 1, 0), 1);
    assert_int_equal(answer, 3);
    assert_int_equal(fake.publish_wait, 0);
    assert_ok(ps_close(bus));
}

struct blocked {
    ps_bus *bus;
    int code;
    char text[128];
};

static void *blocked_thread(void *arg)
{
    struct blocked *b = arg;
    b->code = ps_publish(b->bus, "t", "x", 1);
    snprintf(b->text, sizeof b->text, "%s", ps_errmsg());
    return NULL;
}

static int is_blocked(void *arg)
{
    (void)arg;
    return fake.blocked;
}

static void test_publish_waiting_learns_of_close_and_is_waited_for(void **state)
{
    (void)state;
    struct blocked b = { fake_bus(), 0, "" };
    pthread_t thread;
    fake_do.publish_blocks = 1;
    assert_int_equal(pthread_create(&thread, NULL, blocked_thread, &b), 0);
    int began = support_wait(is_blocked, NULL, DEADLINE_MS);
    int closed = ps_close(b.bus);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(began, 1);
    assert_int_equal(closed, 0);
    assert_int_equal(b.code, PS_ECLOSED);
    assert_string_equal(b.text, "closed while the fake was waiting");
    assert_true(fake.closed == 1);
}

/* ---------------------------------------------------------------- subscribe and unsubscribe */

static void test_subscribe_gets_filter_and_each_shows_the_earlier_ones(void **state)
{
    (void)state;
    static const struct { const char *text; uint32_t flags; int wild, depth; } filters[] = {
        { "a/b", PS_EXACT, 0, 0 }, { "a/b", 0, 0, 0 }, { "+/b", 0, 1, 0 }, { "a/+", PS_BORROW, 1, 1 },
        { "a/b/c/d/e/f/g/h/i/#", 0, 1, 8 },
    };
    enum { COUNT = sizeof filters / sizeof *filters };
    ps_bus *bus = fake_bus();
    ps_sub *sub[COUNT];
    for (int i = 0; i < COUNT; i++) {
        ps_sub_options options = PS_SUB_OPTIONS_INIT;
        options.flags = filters[i].flags;
        assert_ok(ps_subscribe(bus, filters[i].text, NULL, NULL, &options, &sub[i]));
        const struct fake_filter *asked = &fake.asked[i];
        assert_int_equal(fake.asked_count, i + 1);
        assert_string_equal(asked->text, filters[i].text);
        assert_int_equal(asked->flags, filters[i].flags);
        assert_int_equal(asked->edge, i == 0);
        assert_int_equal(asked->filter.wild, filters[i].wild);
        if (filters[i].wild) {
            size_t len = ps__topic_prefix(filters[i].text, strlen(filters[i].text), filters[i].depth);
            assert_int_equal(asked->filter.depth, filters[i].depth);
            assert_int_equal(asked->filter.hash, ps__prefix_hash(filters[i].text, len, filters[i].depth, FAKE_SEED));
        } else {
            assert_int_equal(asked->filter.hash, ps__hash(filters[i].text, strlen(filters[i].text), FAKE_SEED));
        }
        assert_int_equal(fake.visited, i);              /* in whatever order */
        uint64_t found = 0;
        for (int v = 0; v < i; v++)
            for (int k = 0; k < i; k++)
                if (strcmp(fake.seen[v].text, filters[k].text) == 0 && fake.seen[v].flags == filters[k].flags)
                    found |= UINT64_C(1) << k;
        assert_int_equal(found, (UINT64_C(1) << i) - 1);
    }
    for (int i = 0; i < COUNT; i++) {
        assert_ok(ps_unsubscribe(sub[i]));
        assert_string_equal(fake.dropped[i].text, filters[i].text);
        assert_int_equal(fake.dropped[i].flags, filters[i].flags);
        assert_int_equal(fake.dropped[i].edge, i == COUNT - 1);
        assert_int_equal(fake.dropped[i].idle, 1);
    }
    assert_ok(ps_close(bus));
}

static void count_destroy(void *user) { ++*(int *)user; }

static void test_subscribe_refused_by_transport_leaves_nothing(void **state)
{
    (void)state;
    int ran = 0;
    ps_bus *bus = fake_bus();
    ps_sub *sub = (ps_sub *)(void *)&ran;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    options.destroy = count_destroy;
    fake_do.subscribe_code = PS_ENOTCONN;
    assert_int_equal(ps_subscribe(bus, "t", take, &ran, &options, &sub), PS_ENOTCONN);
    assert_null(sub);
    assert_string_equal(ps_errmsg(), "no more of 't'");
    fake_do.subscribe_code = 0;
    fake_send(bus, "t");
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    assert_ok(ps_subscribe(bus, "t", NULL, NULL, NULL, NULL));  /* it has not made this a push handle */
    assert_int_equal(fake.asked[1].edge, 1);
    assert_int_equal(fake.visited, 0);
    assert_ok(ps_close(bus));
    assert_int_equal(ran, 0);
}

static void drop_it(const ps_msg *msg, void *user)
{
    *(int *)user = ps_unsubscribe(msg->sub);
}

static void test_unsubscribe_in_handler_is_not_idle(void **state)
{
    (void)state;
    int answer = 1;
    ps_bus *bus = fake_bus();
    assert_ok(ps_subscribe(bus, "t", drop_it, &answer, NULL, NULL));
    fake_send(bus, "t");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(answer, 0);
    assert_int_equal(fake.dropped_count, 1);
    assert_int_equal(fake.dropped[0].idle, 0);
    assert_int_equal(fake.dropped[0].edge, 1);
    assert_ok(ps_close(bus));
}

struct ending {
    ps_sub *sub;
    _Atomic int begun, code;
};

static void *ending_thread(void *arg)
{
    struct ending *e = arg;
    e->begun = 1;
    e->code = ps_unsubscribe(e->sub);
    return NULL;
}

static int has_begun(void *arg) { return ((struct ending *)arg)->begun; }

/* Nobody dispatches: both learn it, also the one that comes while the other is at it. */
static void test_unsubscribe_by_two_threads_at_once_is_idle_for_both(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    struct ending e[2] = { { .code = 1 }, { .code = 1 } };
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        assert_ok(ps_subscribe(bus, i ? "second" : "first", NULL, NULL, NULL, &e[i].sub));
    fake_do.unsubscribe_blocks = 1;
    assert_int_equal(pthread_create(&thread[0], NULL, ending_thread, &e[0]), 0);
    int began = support_wait(is_blocked, NULL, DEADLINE_MS);
    assert_int_equal(pthread_create(&thread[1], NULL, ending_thread, &e[1]), 0);
    began &= support_wait(has_begun, &e[1], DEADLINE_MS);
    for (int i = 0; i < 100; i++)
        sched_yield();                                  /* time to do the wrong thing */
    fake_do.unsubscribe_blocks = 0;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(began, 1);
    assert_int_equal(fake.dropped_count, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(e[i].code, 0);
        assert_int_equal(fake.dropped[i].idle, 1);
        assert_int_equal(fake.dropped[i].edge, i);
    }
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- a dispatch */

static void keep(const ps_msg *msg, void *user) { *(ps_msg *)user = *msg; }

static void test_dispatch_hands_the_record_up_as_it_is(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    ps_msg got = { 0 };
    ps_sub *sub;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    assert_ok(ps_subscribe(bus, "t/+", keep, &got, NULL, &sub));
    fake_send(bus, "unwanted");
    fake_send(bus, "t/1");
    fake_of(fake.state)->inbox[1].lost = 5;
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_string_equal(got.topic, "t/1");
    assert_int_equal(got.topic_len, 3);
    assert_int_equal(got.size, 1);
    assert_memory_equal(got.data, "x", 1);
    assert_int_equal(got.sequence, 1001);
    assert_int_equal(got.lost, 5);
    assert_int_equal(got.publisher, 7);
    assert_ptr_equal(got.user, &got);
    assert_ptr_equal(got.sub, sub);
    assert_int_equal(fake.borrows, 0);
    options.flags = PS_BORROW;
    assert_ok(ps_subscribe(bus, "t/1", keep, &got, &options, NULL));
    fake_send(bus, "t/2");              /* nobody borrows this one */
    fake_send(bus, "t/1");
    assert_int_equal(ps_dispatch(bus, 0, 0), 2);
    assert_int_equal(fake.borrows, 1);
    assert_ok(ps_close(bus));
}

static void test_dispatch_begins_marked_only_without_a_maximum(void **state)
{
    (void)state;
    int ran = 0;
    ps_bus *bus = fake_bus();
    assert_ok(ps_subscribe(bus, "#", take, &ran, NULL, NULL));
    for (int i = 0; i < 5; i++)
        fake_send(bus, "t");
    assert_int_equal(ps_dispatch(bus, 2, 0), 2);
    assert_int_equal(fake.marked, 0);
    assert_int_equal(ps_dispatch(bus, 0, 0), 3);
    assert_int_equal(fake.marked, 1);
    assert_int_equal(fake.begun, 2);
    assert_int_equal(fake.ended, 2);
    assert_int_equal(fake.end_flags, 0);
    assert_int_equal(fake.waited, 0);                   /* a timeout of 0, or something was there */
    fake_do.begin_code = PS_ENOTCONN;
    assert_int_equal(ps_dispatch(bus, 0, 0), PS_ENOTCONN);
    fake_do.begin_code = 0;
    fake_do.next_code = PS_ECORRUPT;
    assert_int_equal(ps_dispatch(bus, 0, 0), PS_ECORRUPT);
    assert_int_equal(fake.ended, fake.begun);
    assert_int_equal(ran, 5);
    assert_ok(ps_close(bus));
}

static void send_at_third(int number, ps_bus *bus)
{
    if (number == 2)
        (void)ps_publish(bus, "t", "x", 1);
}

static void test_dispatch_wait_1_and_2_look_again_0_ends_it(void **state)
{
    (void)state;
    int ran = 0;
    ps_bus *bus = fake_bus();
    assert_ok(ps_subscribe(bus, "t", take, &ran, NULL, NULL));
    fake_do.on_wait = send_at_third;
    fake_do.wait_answer[0] = fake_do.wait_answer[2] = 1;
    fake_do.wait_answer[1] = 2;                         /* woken, but not by ps_stop */
    assert_int_equal(ps_dispatch(bus, 0, -1), 1);
    assert_int_equal(fake.waited, 3);
    assert_int_equal(fake.begun, 4);                    /* a look begins anew behind each sleep */
    assert_int_equal(fake.ended, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fake.timeout_ms[i], -1);
    assert_int_equal(ps_dispatch(bus, 0, DEADLINE_MS), 0);      /* the fourth answers 0 */
    assert_in_range(fake.timeout_ms[3], DEADLINE_MS / 2, DEADLINE_MS);
    fake_do.wait_answer[4] = PS_ENOTCONN;
    assert_int_equal(ps_dispatch(bus, 0, -1), PS_ENOTCONN);
    assert_int_equal(fake.waited, 5);
    assert_int_equal(fake.ended, 3);
    assert_ok(ps_close(bus));
}

static void stop_at_fifth(int number, ps_bus *bus)
{
    if (number == 4)
        ps_stop(bus);
}

static void test_run_goes_on_over_0_and_ends_by_stop(void **state)
{
    (void)state;
    int ran = 0;
    ps_bus *bus = fake_bus();
    assert_ok(ps_subscribe(bus, "t", take, &ran, NULL, NULL));
    fake_do.on_wait = stop_at_fifth;
    fake_do.wait_answer[2] = 1;
    fake_do.wait_answer[4] = 2;
    assert_int_equal(ps_run(bus), 0);
    assert_int_equal(fake.waited, 5);
    assert_int_equal(fake.woken, 1);
    ps_stop(bus);                                       /* remembered: does not even sleep */
    assert_int_equal(ps_run(bus), 0);
    assert_int_equal(fake.waited, 5);
    fake_do.on_wait = NULL;
    fake_do.wait_answer[5] = PS_EUNLINKED;
    assert_int_equal(ps_run(bus), PS_EUNLINKED);
    assert_ok(ps_close(bus));
}

static pthread_t early_thread;

static void *early_call(void *bus) { return (void *)(intptr_t)ps_dispatch(bus, 0, -1); }

/* Until it has the handle, which says it found no mode when it looked. */
static void early_dispatch(ps_bus *bus)
{
    fake_do.on_subscribe = NULL;
    fake.blocked = pthread_create(&early_thread, NULL, early_call, bus);
    while (!fake.blocked && !ps__load_rlx(&bus->owner))
        ps__pause();
}

/* The handle becomes a pull one between a dispatch's first look at that and its second. */
static void test_dispatch_overtaken_by_the_first_pull_subscription_refused(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    const ps_msg *msg;
    void *answer;
    fake_do.on_subscribe = early_dispatch;
    assert_ok(ps_subscribe(bus, "t", NULL, NULL, NULL, NULL));
    assert_int_equal(fake.blocked, 0);
    assert_int_equal(pthread_join(early_thread, &answer), 0);
    assert_int_equal((intptr_t)answer, PS_EINVAL);
    assert_int_equal(fake.begun, 0);
    fake_send(bus, "t");
    assert_int_equal(ps_next(bus, &msg, 0), 1);         /* the handle is free */
    assert_ok(ps_close(bus));
}

static void test_next_holds_the_record_and_wakes_for_the_rest(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    const ps_msg *msg;
    ps_sub *sub[2];
    assert_ok(ps_subscribe(bus, "t", NULL, NULL, NULL, &sub[0]));
    assert_ok(ps_subscribe(bus, "#", NULL, NULL, NULL, &sub[1]));
    fake_send(bus, "t");
    assert_int_equal(ps_next(bus, &msg, 0), 1);
    assert_ptr_equal(msg->sub, sub[0]);
    assert_int_equal(fake.end_flags, PS_END_HOLD);
    assert_int_equal(fake.woken, 1);                    /* ps_fd stays readable for the second subscription */
    const void *data = msg->data;
    assert_int_equal(ps_next(bus, &msg, 0), 1);         /* of the record that is held: the transport is not asked */
    assert_ptr_equal(msg->sub, sub[1]);
    assert_ptr_equal(msg->data, data);
    assert_int_equal(fake.begun, 1);
    assert_int_equal(fake.ended, 1);
    assert_int_equal(fake.woken, 1);
    assert_int_equal(ps_next(bus, &msg, 0), 0);
    assert_null(msg);
    assert_int_equal(fake.end_flags, 0);
    assert_int_equal(fake.ended, 2);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- stats, fork */

static void full_stats(void *memory, ps_bus_stats *stats)
{
    (void)memory;
    fake.stats_size = stats->size;
    fake.stats_delivered = stats->delivered;
    stats->depth = 77;
}

static int full_after_fork(void *memory, ps_host *host)
{
    (void)memory;
    fake.visited = 0;
    host->each(host, fake_visit, NULL);
    return fake_do.after_fork_code ? (host->fail)(host, fake_do.after_fork_code, "the child is on its own") : 0;
}

static ps_bus *full_bus(void)
{
    static ps_transport table;
    ps_bus *bus = NULL;
    table = fake_table;
    table.scheme = "full";
    table.stats = full_stats;
    table.after_fork = full_after_fork;
    int err = ps_transport_register(&table);
    assert_true(err == 0 || err == PS_EBUSY);
    assert_ok(ps_open(&bus, "full://here"));
    return bus;
}

static void test_stats_finds_size_and_delivered_filled_in(void **state)
{
    (void)state;
    int ran = 0;
    ps_bus *bus = full_bus();
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    assert_ok(ps_subscribe(bus, "t", take, &ran, NULL, NULL));
    fake_send(bus, "t");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_ok(ps_stats(bus, &stats));
    assert_int_equal(fake.stats_size, sizeof stats);
    assert_int_equal(fake.stats_delivered, 1);
    assert_int_equal(stats.depth, 77);
    assert_int_equal(stats.delivered, 1);
    stats.size = offsetof(ps_bus_stats, depth);         /* a caller of an older version: the transport need not care */
    stats.depth = 5;
    assert_ok(ps_stats(bus, &stats));
    assert_int_equal(fake.stats_size, sizeof stats);
    assert_int_equal(stats.size, offsetof(ps_bus_stats, depth));
    assert_int_equal(stats.depth, 5);
    assert_ok(ps_close(bus));
}

struct family {
    ps_bus *bus;
    int destroyed, directly, rc, code;
    pid_t child;
};

#define CHECK(condition) do { if (!(condition)) return __LINE__ % 125 + 1; } while (0)

static int child_closes(void *arg)
{
    struct family *f = arg;
    CHECK(ps_publish(f->bus, "t", "x", 1) == PS_EFORKED && fake.published == 0);
    CHECK(ps_dispatch(f->bus, 0, 0) == PS_EFORKED && fake.begun == 0);
    ps_stop(f->bus);
    CHECK(fake.woken == 0);
    CHECK(ps_close(f->bus) == 0);
    CHECK(fake.closed == 1 && fake.forked == 1 && f->destroyed == 1);
    return 0;
}

static int child_goes_on(void *arg)
{
    struct family *f = arg;
    fake_do.after_fork_code = PS_ENOTCONN;
    CHECK(ps_after_fork(f->bus) == PS_ENOTCONN);
    CHECK(strcmp(ps_errmsg(), "the child is on its own") == 0);
    CHECK(ps_publish(f->bus, "t", "x", 1) == PS_EFORKED && f->destroyed == 0);
    fake_do.after_fork_code = 0;
    CHECK(ps_after_fork(f->bus) == 0);
    CHECK(fake.visited == 1 && strcmp(fake.seen[0].text, "t") == 0);    /* what it inherited */
    CHECK(f->destroyed == 1 && fake.dropped_count == 0);
    CHECK(ps_publish(f->bus, "t", "x", 1) == 3 && ps_dispatch(f->bus, 0, 0) == 0);
    CHECK(ps_subscribe(f->bus, "u", NULL, NULL, NULL, NULL) == 0 && fake.asked[1].edge == 1);
    CHECK(ps_close(f->bus) == 0 && fake.closed == 1 && fake.forked == 0);
    return 0;
}

static void test_fork_child_closes_or_goes_on_parent_notices_nothing(void **state)
{
    (void)state;
    struct family f = { .bus = full_bus() };
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    options.destroy = count_destroy;
    assert_ok(ps_subscribe(f.bus, "t", take, &f.destroyed, &options, NULL));
    assert_int_equal(support_reap(support_child(child_closes, &f), DEADLINE_MS), 0);
    assert_int_equal(support_reap(support_child(child_goes_on, &f), DEADLINE_MS), 0);
    assert_int_equal(f.destroyed, 0);
    fake_send(f.bus, "u");
    assert_ok(ps_close(f.bus));
    assert_int_equal(fake.closed, 1);
    assert_int_equal(fake.forked, 0);
    assert_int_equal(f.destroyed, 1);
}

static void close_and_fork(const ps_msg *msg, void *user)
{
    struct family *f = user;
    (void)msg;
    f->rc = ps_close(f->bus);
    f->child = fork();
    if (f->child)
        f->code = support_reap(f->child, DEADLINE_MS);
    else if (f->rc == 0)
        f->rc = ps_after_fork(f->bus);
}

/* The parent's handle ends with its handler. The child, which comes along here, has begun anew, and keeps its own. */
static int close_was_the_parents(void *arg)
{
    struct family *f = arg;
    CHECK(ps_open(&f->bus, "full://here") == 0);
    CHECK(ps_subscribe(f->bus, "t", close_and_fork, f, NULL, NULL) == 0 && ps_publish(f->bus, "t", "x", 1) == 3);
    int answer = ps_dispatch(f->bus, 0, 0);
    CHECK(f->rc == 0);
    if (f->child) {
        CHECK(answer == PS_ECLOSED && fake.closed == 1 && fake.forked == 0);
        return f->code;
    }
    CHECK(answer == PS_EFORKED && fake.closed == 0);
    CHECK(ps_subscribe(f->bus, "u", take, &f->destroyed, NULL, NULL) == 0 && ps_publish(f->bus, "u", "x", 1) == 3);
    CHECK(ps_dispatch(f->bus, 0, 0) == 1);
    CHECK(ps_close(f->bus) == 0 && fake.closed == 1 && fake.forked == 0);
    return 0;
}

static void test_fork_in_handler_that_closed_child_begins_anew(void **state)
{
    (void)state;
    struct family f = { .code = -1 };
    assert_ok(ps_close(full_bus()));                    /* so that the scheme is known */
    assert_ok(fake_setup(NULL));
    assert_int_equal(support_reap(support_child(close_was_the_parents, &f), DEADLINE_MS), 0);
}

static void close_anew(const ps_msg *msg, void *user)
{
    (void)msg;
    *(int *)user = ps_close(fake_do.bus);
}

/* The child begins anew inside the handler, and its handle is gone when that returns: closed at once, or in a handler of its own. */
static void fork_and_close(const ps_msg *msg, void *user)
{
    struct family *f = user;
    (void)msg;
    if ((f->child = fork())) {
        f->code = support_reap(f->child, DEADLINE_MS);
        return;
    }
    f->rc = ps_after_fork(f->bus);
    if (f->directly) {
        f->rc |= ps_close(f->bus);
        return;
    }
    int closed = 1;
    fake_do.bus = f->bus;
    f->rc |= ps_subscribe(f->bus, "u", close_anew, &closed, NULL, NULL) | (ps_publish(f->bus, "u", "x", 1) != 3);
    f->rc |= (ps_dispatch(f->bus, 0, 0) != PS_ECLOSED) | closed;
}

static int child_closes_in_the_handler(void *arg)
{
    struct family *f = arg;
    CHECK(ps_open(&f->bus, "full://here") == 0);
    CHECK(ps_subscribe(f->bus, "t", fork_and_close, f, NULL, NULL) == 0 && ps_publish(f->bus, "t", "x", 1) == 3);
    int answer = ps_dispatch(f->bus, 0, 0);
    if (f->child) {
        CHECK(answer == 1 && fake.closed == 0 && ps_close(f->bus) == 0);
        return f->code;
    }
    CHECK(f->rc == 0 && answer == PS_EFORKED);
    CHECK(fake.closed == 1 && fake.forked == 0);
    return 0;
}

static void test_fork_in_handler_child_begins_anew_and_closes_in_it(void **state)
{
    (void)state;
    for (int directly = 0; directly < 2; directly++) {
        struct family f = { .directly = directly, .code = -1 };
        assert_ok(ps_close(full_bus()));
        assert_ok(fake_setup(NULL));
        assert_int_equal(support_reap(support_child(child_closes_in_the_handler, &f), DEADLINE_MS), 0);
    }
}

/* ---------------------------------------------------------------- members */

struct asker {
    ps_bus *bus;
    int result;
};

static int members_with_a_place(void *state, const ps_topic *topic, ps_member *members, size_t n)
{
    (void)state;
    (void)topic;
    (void)members;
    (void)n;
    pthread_testcancel();
    return 3;
}

static void *ask_cancelled(void *arg)
{
    struct asker *asker = arg;
    pthread_cancel(pthread_self());
    asker->result = ps_members(asker->bus, NULL, NULL, 0);
    pthread_testcancel();
    return NULL;
}

/* A thread that ended inside would leave a handle that ps_close waits for. */
static void test_members_is_no_place_to_be_cancelled(void **state)
{
    static ps_transport table;
    struct asker asker = { NULL, 0 };
    pthread_t thread;
    void *end;

    (void)state;
    table = fake_table;
    table.scheme = "fakemembers";
    table.can |= PS_CAN_MEMBERS;
    table.members = members_with_a_place;
    assert_ok(ps_transport_register(&table));
    assert_ok(ps_open(&asker.bus, "fakemembers://x"));
    assert_int_equal(pthread_create(&thread, NULL, ask_cancelled, &asker), 0);
    assert_int_equal(pthread_join(thread, &end), 0);
    assert_ptr_equal(end, PTHREAD_CANCELED);
    assert_int_equal(asker.result, 3);
    assert_ok(ps_close(asker.bus));
}

#define FAKE_TEST(name) cmocka_unit_test_setup(name, fake_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAKE_TEST(test_publish_gets_hashes_of_the_seed_that_open_set),
        FAKE_TEST(test_publish_in_handler_may_not_wait),
        FAKE_TEST(test_publish_waiting_learns_of_close_and_is_waited_for),
        FAKE_TEST(test_subscribe_gets_filter_and_each_shows_the_earlier_ones),
        FAKE_TEST(test_subscribe_refused_by_transport_leaves_nothing),
        FAKE_TEST(test_unsubscribe_in_handler_is_not_idle),
        FAKE_TEST(test_unsubscribe_by_two_threads_at_once_is_idle_for_both),
        FAKE_TEST(test_dispatch_hands_the_record_up_as_it_is),
        FAKE_TEST(test_dispatch_begins_marked_only_without_a_maximum),
        FAKE_TEST(test_dispatch_wait_1_and_2_look_again_0_ends_it),
        FAKE_TEST(test_run_goes_on_over_0_and_ends_by_stop),
        FAKE_TEST(test_dispatch_overtaken_by_the_first_pull_subscription_refused),
        FAKE_TEST(test_next_holds_the_record_and_wakes_for_the_rest),
        FAKE_TEST(test_stats_finds_size_and_delivered_filled_in),
        FAKE_TEST(test_fork_child_closes_or_goes_on_parent_notices_nothing),
        FAKE_TEST(test_fork_in_handler_that_closed_child_begins_anew),
        FAKE_TEST(test_fork_in_handler_child_begins_anew_and_closes_in_it),
        FAKE_TEST(test_members_is_no_place_to_be_cancelled),
    };
    return cmocka_run_group_tests_name("transport calls", tests, NULL, NULL);
}
