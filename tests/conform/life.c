/* SPDX-License-Identifier: MIT */
/* life.c - conformance: destroy exactly once, handlers that change subscriptions, errno and messages of errors. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

/* A subscription that counts its end, and the order of things. */
struct life {
    ps_bus     *bus;
    ps_sub     *sub, *other;
    atomic_int  runs, destroyed, ended;
    int         running, destroyed_while_running, rc;
    enum {
        LIFE_NOTHING, LIFE_UNSUBSCRIBE_SELF, LIFE_UNSUBSCRIBE_OTHER, LIFE_SUBSCRIBE, LIFE_CLOSE,
        LIFE_END_AND_CLOSE, LIFE_END_AND_BE_CLOSED,
    } act;
};

static void life_destroy(void *user)
{
    struct life *l = user;

    atomic_fetch_add(&l->destroyed, 1);
    l->destroyed_while_running += l->running;
}

static const ps_sub_options life_options = { sizeof (ps_sub_options), 0, 0, life_destroy };

static void life_handler(const ps_msg *msg, void *user)
{
    struct life *l = user;

    l->running = 1;
    atomic_fetch_add(&l->runs, 1);
    switch (l->act) {
    case LIFE_UNSUBSCRIBE_SELF:
        l->rc = ps_unsubscribe(msg->sub);
        break;
    case LIFE_UNSUBSCRIBE_OTHER:
        l->rc = ps_unsubscribe(l->other);
        break;
    case LIFE_SUBSCRIBE:
        l->act = LIFE_NOTHING;
        l->rc = ps_subscribe(l->bus, msg->topic, life_handler, user, NULL, &l->other);
        break;
    case LIFE_CLOSE:
        l->rc = ps_close(l->bus);
        break;
    case LIFE_END_AND_CLOSE:
        l->rc = ps_unsubscribe(msg->sub);
        if (l->rc == 0)
            l->rc = ps_close(l->bus);
        break;
    case LIFE_END_AND_BE_CLOSED:
        l->rc = ps_unsubscribe(msg->sub);
        atomic_store(&l->ended, 1);
        while (ps_wanted(l->bus, "t") != PS_ECLOSED)
            sched_yield();
        break;
    case LIFE_NOTHING:
        break;
    }
    l->running = 0;
}

static void life_subscribe(struct life *l, ps_bus *bus, const char *filter)
{
    memset(l, 0, sizeof *l);
    l->bus = bus;
    assert_ok(ps_subscribe(bus, filter, life_handler, l, &life_options, &l->sub));
}

static void test_destroy_once_on_unsubscribe_and_close(void **state)
{
    static struct life l[4];
    ps_bus *bus = conform_open(NULL);

    (void)state;
    for (int i = 0; i < 4; i++)
        life_subscribe(&l[i], bus, i % 2 ? "a/+" : "a/b");
    assert_int_equal(ps_unsubscribe(l[0].sub), 0);
    assert_int_equal(atomic_load(&l[0].destroyed), 1);          /* before it returns */
    assert_int_equal(ps_unsubscribe(l[1].sub), 0);
    assert_int_equal(atomic_load(&l[1].destroyed), 1);
    conform_say(bus, "a/b", "x");
    assert_int_equal(conform_drain(bus), 1);
    assert_int_equal(atomic_load(&l[2].destroyed) + atomic_load(&l[3].destroyed), 0);
    conform_close(bus);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(atomic_load(&l[i].destroyed), 1);
        assert_int_equal(atomic_load(&l[i].runs), i < 2 ? 0 : 1);
    }
}

static void test_destroy_not_after_failed_subscribe(void **state)
{
    static struct life l;
    ps_sub_options options = life_options;
    ps_bus *push = conform_open(NULL), *pull = conform_open(NULL);

    (void)state;
    memset(&l, 0, sizeof l);
    conform_subscribe(pull, "t", NULL);
    assert_int_equal(ps_subscribe(push, "bad filter", life_handler, &l, &life_options, NULL), PS_EINVAL);
    assert_int_equal(ps_subscribe(push, "a/*", life_handler, &l, &life_options, NULL), PS_EINVAL);
    assert_int_equal(ps_subscribe(push, NULL, life_handler, &l, &life_options, NULL), PS_EINVAL);
    assert_int_equal(ps_subscribe(NULL, "t", life_handler, &l, &life_options, NULL), PS_EINVAL);
    assert_int_equal(ps_subscribe(pull, "t", life_handler, &l, &life_options, NULL), PS_EINVAL);
    options.flags = 0x10000000;
    assert_int_equal(ps_subscribe(push, "t", life_handler, &l, &options, NULL), PS_ENOTSUP);
    options.flags = PS_EXACT;
    assert_int_equal(ps_subscribe(push, "t/#", life_handler, &l, &options, NULL), PS_EINVAL);
    conform_close(push);
    conform_close(pull);
    assert_int_equal(atomic_load(&l.destroyed), 0);
}

static void test_destroy_pull_subscription_too(void **state)
{
    static struct life l[2];
    ps_bus *bus = conform_open(NULL);
    const ps_msg *msg;
    ps_sub *sub;

    (void)state;
    assert_ok(ps_subscribe(bus, "t", NULL, &l[0], &life_options, &sub));
    assert_ok(ps_subscribe(bus, "t", NULL, &l[1], &life_options, NULL));
    conform_say(bus, "t", "x");
    assert_int_equal(ps_next(bus, &msg, 0), 1);
    assert_true(msg->user == &l[0] || msg->user == &l[1]);
    assert_int_equal(ps_unsubscribe(sub), 0);
    assert_int_equal(atomic_load(&l[0].destroyed), 1);
    conform_close(bus);
    assert_int_equal(atomic_load(&l[0].destroyed), 1);
    assert_int_equal(atomic_load(&l[1].destroyed), 1);
}

static void test_p10_unsubscribe_self_in_handler_destroyed_after_it(void **state)
{
    static struct life l;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    life_subscribe(&l, bus, "t");
    l.act = LIFE_UNSUBSCRIBE_SELF;
    for (int i = 0; i < 5; i++)
        conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);        /* the rest has nobody left to go to */
    assert_int_equal(atomic_load(&l.runs), 1);
    assert_int_equal(l.rc, 0);
    assert_int_equal(atomic_load(&l.destroyed), 1);
    assert_int_equal(l.destroyed_while_running, 0);
    assert_int_equal(conform_drain(bus), 0);
    assert_int_equal(ps_wanted(bus, "t"), 0);
    conform_close(bus);
    assert_int_equal(atomic_load(&l.destroyed), 1);
}

/* Two subscriptions of one message end each other: whoever comes first is the only one. */
static void test_p10_unsubscribe_other_in_handler_it_never_runs(void **state)
{
    static struct life l[2];
    ps_bus *bus = conform_open(NULL);

    (void)state;
    life_subscribe(&l[0], bus, "t");
    life_subscribe(&l[1], bus, "t");
    for (int i = 0; i < 2; i++) {
        l[i].act = LIFE_UNSUBSCRIBE_OTHER;
        l[i].other = l[!i].sub;
    }
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(atomic_load(&l[0].runs) + atomic_load(&l[1].runs), 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(atomic_load(&l[i].destroyed), !atomic_load(&l[i].runs));
        assert_int_equal(l[i].destroyed_while_running, 0);
        l[i].act = LIFE_NOTHING;
    }
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(atomic_load(&l[0].runs) + atomic_load(&l[1].runs), 2);
    conform_close(bus);
    assert_int_equal(atomic_load(&l[0].destroyed), 1);
    assert_int_equal(atomic_load(&l[1].destroyed), 1);
}

static void test_p10_subscribe_in_handler_sees_what_comes_next(void **state)
{
    static struct life l;
    ps_bus *bus = conform_open(NULL);
    int runs;

    (void)state;
    life_subscribe(&l, bus, "t");
    l.act = LIFE_SUBSCRIBE;
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(l.rc, 0);
    runs = atomic_load(&l.runs);
    assert_true(runs == 1 || runs == 2);        /* the message in hand: either way */
    conform_say(bus, "t", "x");
    assert_int_equal(ps_dispatch(bus, 0, 0), 1);
    assert_int_equal(atomic_load(&l.runs), runs + 2);
    conform_close(bus);
    assert_int_equal(atomic_load(&l.destroyed), 1);
}

struct life_again {
    ps_bus *bus;
    int     runs, rc;
};

static void life_again(const ps_msg *msg, void *user)
{
    struct life_again *a = user;

    a->runs++;
    a->rc |= ps_unsubscribe(msg->sub);          /* the handle's only one */
    a->rc |= ps_subscribe(a->bus, "t", life_again, user, NULL, NULL);
}

/* Between the last subscription and the next one the handle wants nothing; that must not make it forget the others. */
static void test_p10_unsubscribe_last_and_subscribe_in_handler_goes_on(void **state)
{
    struct life_again a = { conform_open(NULL), 0, 0 };
    ps_bus *peer = conform_open(NULL);

    (void)state;
    assert_ok(ps_subscribe(a.bus, "t", life_again, &a, NULL, NULL));
    for (int i = 1; i <= 100; i++) {
        conform_say(peer, "t", "x");
        assert_int_equal(ps_dispatch(a.bus, 0, 0), 1);
        assert_int_equal(a.runs, i);
        assert_int_equal(a.rc, 0);
    }
    assert_int_equal(conform_stats(a.bus).lost, 0);
    conform_close(a.bus);
    conform_close(peer);
}

static void test_p10_close_in_handler_dispatch_tells_and_handle_is_gone(void **state)
{
    static struct life l[3];

    (void)state;
    for (int run = 0; run < 2; run++) {
        ps_bus *bus = conform_open(NULL);

        for (int i = 0; i < 3; i++) {
            life_subscribe(&l[i], bus, "t");
            l[i].act = LIFE_CLOSE;
        }
        for (int i = 0; i < 5; i++)
            conform_say(bus, "t", "x");
        conform_forget(bus);
        assert_int_equal(run ? ps_run(bus) : ps_dispatch(bus, 0, 0), PS_ECLOSED);
        assert_int_equal(atomic_load(&l[0].runs) + atomic_load(&l[1].runs) + atomic_load(&l[2].runs), 1);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(atomic_load(&l[i].destroyed), 1);
            assert_int_equal(l[i].destroyed_while_running, 0);
            assert_int_equal(l[i].rc, 0);
        }
    }
}

static void *life_close(void *arg)
{
    struct life *l = arg;

    if (conform_reached(&l->ended, 1))
        l->rc = ps_close(l->bus);
    return NULL;
}

/* A handler that ends its own subscription is owed destroy when it returns, also if the handle ends with it. */
static void test_p10_unsubscribe_self_and_close_destroyed_once(void **state)
{
    static struct life l;
    pthread_t thread;

    (void)state;
    for (int run = 0; run < 2; run++) {
        ps_bus *bus = conform_open(NULL);

        life_subscribe(&l, bus, "t");
        l.act = run ? LIFE_END_AND_BE_CLOSED : LIFE_END_AND_CLOSE;
        l.rc = -1;
        conform_say(bus, "t", "x");
        conform_forget(bus);
        if (run)
            conform_start(&thread, life_close, &l);
        assert_int_equal(ps_dispatch(bus, 0, 0), PS_ECLOSED);
        if (run)
            conform_join(thread);
        assert_int_equal(l.rc, 0);
        assert_int_equal(atomic_load(&l.runs), 1);
        assert_int_equal(atomic_load(&l.destroyed), 1);
        assert_int_equal(l.destroyed_while_running, 0);
    }
}

/* ------------------------------------------------------------------ errno, error texts */

static void life_errno_handler(const ps_msg *msg, void *user)
{
    ps_bus *bus = user;

    (void)ps_publish(bus, "nobody", msg->data, msg->size);
    (void)ps_publish(bus, "bad topic", NULL, 0);
    errno = 4711;
}

#define life_keeps_errno(call) do { \
    errno = 4711; \
    (void)(call); \
    if (errno != 4711) \
        fail_msg("%s sets errno to %d", #call, errno); \
} while (0)

static void test_p6_errno_untouched_by_every_call(void **state)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member members[4] = { PS_MEMBER_INIT, PS_MEMBER_INIT, PS_MEMBER_INIT, PS_MEMBER_INIT };
    ps_bus *bus = NULL, *other = NULL, *pull = NULL, *fourth = NULL;
    const ps_msg *msg;
    ps_sub *sub = NULL, *second = NULL;
    void *data = NULL;
    char text[16];

    (void)state;
    life_keeps_errno(ps_open(&bus, conform_url("create=0")));
    life_keeps_errno(ps_open(&bus, "nosuchthing://x"));
    life_keeps_errno(ps_open(&bus, conform_url("colour=red")));
    life_keeps_errno(ps_open(&bus, conform_url("depth=2&evict=20&block=30&members=3")));
    assert_non_null(bus);
    life_keeps_errno(ps_open(&other, conform_url(NULL)));
    assert_non_null(other);
    life_keeps_errno(ps_open(&pull, conform_url("lossy=1")));
    assert_non_null(pull);
    life_keeps_errno(ps_open(&fourth, conform_url(NULL)));                              /* PS_EFULL, if there is a limit */
    life_keeps_errno(ps_close(fourth));
    life_keeps_errno(ps_subscribe(bus, "t", life_errno_handler, bus, NULL, &sub));
    assert_non_null(sub);
    life_keeps_errno(ps_subscribe(other, "t", life_errno_handler, other, NULL, &second));
    life_keeps_errno(ps_subscribe(other, "a/*", life_errno_handler, other, NULL, NULL));
    life_keeps_errno(ps_subscribe(pull, "#", NULL, NULL, NULL, NULL));
    life_keeps_errno(ps_fd(other));
    life_keeps_errno(ps_dispatch(other, 0, 0));
    life_keeps_errno(ps_dispatch(other, 0, 2));
    life_keeps_errno(ps_publish(bus, "t", "x", 1));
    life_keeps_errno(ps_publish(bus, "t", "x", 1));
    life_keeps_errno(ps_publish(bus, "t", "x", 1));                                     /* full: waits, asks the kernel, evicts */
    life_keeps_errno(ps_publish(bus, "t", "x", 1));
    life_keeps_errno(ps_publish(bus, "t", "x", SIZE_MAX));
    life_keeps_errno(ps_publish(bus, "bad topic", "x", 1));
    life_keeps_errno(ps_wanted(bus, "t"));
    life_keeps_errno(ps_dispatch(bus, 0, 0));
    life_keeps_errno(ps_dispatch(other, 0, 10));
    life_keeps_errno(ps_next(pull, &msg, 0));
    life_keeps_errno(ps_next(pull, &msg, 1));
    life_keeps_errno(ps_loan(bus, "t", 8, &data));
    if (data != NULL)
        life_keeps_errno(ps_commit(bus, data, 8));
    life_keeps_errno(ps_cancel(bus, text));
    life_keeps_errno(ps_stats(bus, &stats));
    life_keeps_errno(ps_members(bus, "t", members, 4));
    life_keeps_errno(ps_stop(bus));
    life_keeps_errno(ps_run(bus));
    life_keeps_errno(ps_after_fork(bus));
    life_keeps_errno(ps_topic_escape(text, sizeof text, "a/b", 3));
    life_keeps_errno(ps_topic_match("a/#", "a"));
    life_keeps_errno(ps_strerror(-99));
    life_keeps_errno(ps_errmsg());
    life_keeps_errno(ps_unsubscribe(sub));
    life_keeps_errno(ps_close(pull));
    life_keeps_errno(ps_close(other));
    life_keeps_errno(ps_close(bus));
}

static void *life_errmsg_body(void *arg)
{
    char *text = arg;

    (void)ps_publish(NULL, "t", NULL, 0);
    snprintf(text, 256, "%s", ps_errmsg());
    return NULL;
}

static void test_errmsg_each_thread_has_its_own(void **state)
{
    char theirs[256] = "", mine[256];
    ps_bus *bus = NULL;
    pthread_t thread;

    (void)state;
    assert_int_equal(ps_open(&bus, conform_url("colour=red")), PS_EINVAL);
    snprintf(mine, sizeof mine, "%s", ps_errmsg());
    assert_non_null(strstr(mine, "colour"));
    conform_start(&thread, life_errmsg_body, theirs);
    conform_join(thread);
    assert_null(strstr(theirs, "colour"));
    assert_string_equal(ps_errmsg(), mine);
    conform_close(conform_open(NULL));          /* nor does a call that succeeds take it away */
    assert_string_equal(ps_errmsg(), mine);
}

/* ps_after_fork() where nothing forked. */
static void test_after_fork_in_same_process_does_nothing(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);
    uint64_t publisher = conform_stats(bus).publisher;

    (void)state;
    conform_subscribe(bus, "t", &log);
    assert_int_equal(ps_after_fork(bus), 0);
    assert_int_equal(conform_stats(bus).publisher, publisher);
    conform_say(bus, "t", "x");
    assert_int_equal(conform_drain(bus), 1);
    conform_close(bus);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_destroy_once_on_unsubscribe_and_close),
    conform_test(test_destroy_not_after_failed_subscribe),
    conform_test(test_destroy_pull_subscription_too),
    conform_test(test_p10_unsubscribe_self_in_handler_destroyed_after_it),
    conform_test(test_p10_unsubscribe_other_in_handler_it_never_runs),
    conform_test(test_p10_subscribe_in_handler_sees_what_comes_next),
    conform_test(test_p10_unsubscribe_last_and_subscribe_in_handler_goes_on),
    conform_test(test_p10_close_in_handler_dispatch_tells_and_handle_is_gone),
    conform_test(test_p10_unsubscribe_self_and_close_destroyed_once),
    conform_test(test_p6_errno_untouched_by_every_call),
    conform_test(test_errmsg_each_thread_has_its_own),
    conform_test(test_after_fork_in_same_process_does_nothing),
};
CONFORM_AREA(conform_life_area);
