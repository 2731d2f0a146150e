/* SPDX-License-Identifier: MIT */
/* borrow.c - conformance: PS_BORROW, handlers that look into the ring itself. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

struct borrow {
    ps_bus   *publisher;
    ps_sub   *sub;              /* to end inside the handler, or NULL */
    uint64_t  number;
    uint64_t  taken, held_ms;
    int       runs, wrong, refused;
};

static void borrow_handler(const ps_msg *msg, void *user)
{
    struct borrow *h = user;
    unsigned char copy[400];
    uint64_t start = support_now_ms();

    if (h->runs++ > 0)
        return;
    if (msg->size != sizeof copy || !conform_good(msg)) {
        h->wrong++;
        return;
    }
    memcpy(copy, msg->data, sizeof copy);
    if (h->sub != NULL)
        h->wrong += ps_unsubscribe(h->sub) != 0;
    /* Long beyond evict=, with a message that would be written over this one sooner or later. */
    while (support_now_ms() - start < 120 || h->refused < 10) {
        unsigned char data[400];
        int rc;

        memset(data, 0xee, sizeof data);
        rc = ps_publish(h->publisher, "t", data, sizeof data);
        h->refused += rc == PS_EAGAIN;
        h->taken += rc >= 0;
        h->wrong += rc < 0 && rc != PS_EAGAIN;
        if (h->sub != NULL && rc == 0)
            break;                              /* nobody wants it any more */
    }
    h->wrong += memcmp(copy, msg->data, sizeof copy) != 0 || strcmp(msg->topic, "t") != 0;
}

static void borrow_run(int unsubscribe)
{
    static struct conform_log lossy_log;
    struct borrow h;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    unsigned char data[400];
    ps_bus *b, *lossy;
    ps_sub *sub;

    memset(&h, 0, sizeof h);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    h.publisher = conform_open("depth=4&bytes=4k&evict=20");
    b = conform_open(NULL);
    lossy = conform_open("lossy=1");
    options.flags = PS_BORROW;
    assert_ok(ps_subscribe(b, "t", borrow_handler, &h, &options, &sub));
    if (unsubscribe) {
        /* Somebody has to want the messages that would overwrite the borrowed one. */
        h.sub = sub;
        conform_subscribe(lossy, "t", &lossy_log);
    }
    assert_int_equal(ps_publish(h.publisher, "t", data, sizeof data), unsubscribe ? 2 : 1);
    assert_int_equal(ps_dispatch(b, 1, 0), 1);
    assert_int_equal(h.runs, 1);
    assert_int_equal(h.wrong, 0);
    assert_true(h.refused > 0);
    assert_true(h.taken <= 4);
    assert_int_equal(conform_stats(h.publisher).evictions, 0);
    assert_int_equal(conform_stats(b).lost, 0);
    /* Over: the ring moves on. */
    conform_drain(b);
    assert_int_equal(ps_publish(h.publisher, "t", data, sizeof data), 1);
    conform_close(h.publisher);
    conform_close(b);
    conform_close(lossy);
}

static void test_borrow_handler_runs_nothing_moves_under_it(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_BORROW);
    borrow_run(0);
}

static void test_borrow_unsubscribed_in_handler_still_holds(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_BORROW);
    borrow_run(1);
}

static void test_borrow_pull_holds_until_next_call(void **state)
{
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    ps_bus *a, *b;
    const ps_msg *msg;
    int taken = 0;
    unsigned char data[400], other[400];        /* too large for a cell: what fits there may be copied */
    uint64_t end;

    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_BORROW);
    memset(data, 7, sizeof data);
    memset(other, 0xee, sizeof other);
    a = conform_open("depth=4&bytes=4k&evict=20");
    b = conform_open(NULL);
    options.flags = PS_BORROW;
    assert_ok(ps_subscribe(b, "t", NULL, NULL, &options, NULL));
    assert_int_equal(ps_publish(a, "t", data, sizeof data), 1);
    assert_int_equal(ps_next(b, &msg, 0), 1);
    while (taken < 100 && ps_publish(a, "t", other, sizeof other) == 1)
        taken++;
    assert_true(taken <= 4);
    for (end = support_now_ms() + 100; support_now_ms() < end; conform_pause_ms(1))
        assert_int_equal(ps_publish(a, "t", other, sizeof other), PS_EAGAIN);
    assert_int_equal(msg->size, sizeof data);
    assert_memory_equal(msg->data, data, sizeof data);
    while (ps_next(b, &msg, 0) == 1)
        assert_int_equal(msg->lost, 0);
    assert_int_equal(conform_fill(a, "t", 0, 1), 1);
    conform_close(a);
    conform_close(b);
}

/* What a pull handle borrowed stays, whatever becomes of its subscriptions: it joins anew only in its next ps_next(). */
static void test_borrow_pull_subscribed_anew_still_holds(void **state)
{
    static struct conform_log lossy_log;
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    unsigned char data[1000], other[1000];     /* four of them fill the ring */
    ps_bus *a, *b, *lossy;
    const ps_msg *msg;
    ps_sub *sub;
    int taken = 0;

    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_BORROW);
    memset(data, 7, sizeof data);
    memset(other, 0xee, sizeof other);
    a = conform_open("depth=16&bytes=4k&evict=-1");
    b = conform_open(NULL);
    lossy = conform_open("lossy=1");            /* wants what would overwrite the borrowed message */
    conform_subscribe(lossy, "t", &lossy_log);
    options.flags = PS_BORROW;
    assert_ok(ps_subscribe(b, "t", NULL, NULL, &options, &sub));
    assert_int_equal(ps_publish(a, "t", data, sizeof data), 2);
    assert_int_equal(ps_next(b, &msg, 0), 1);
    assert_ok(ps_unsubscribe(sub));
    assert_ok(ps_subscribe(b, "u", NULL, NULL, &options, NULL));
    while (taken < 100 && ps_publish(a, "t", other, sizeof other) >= 0)
        taken++;
    assert_true(taken <= 4);
    assert_memory_equal(msg->data, data, sizeof data);
    assert_int_equal(ps_next(b, &msg, 0), 0);
    for (int i = 0; i < 20; i++) {              /* it holds nothing any more, but what it has not read */
        assert_int_equal(ps_publish(a, "t", other, sizeof other), 1);
        assert_int_equal(ps_next(b, &msg, 0), 0);
    }
    conform_close(a);
    conform_close(b);
    conform_close(lossy);
}

static void test_borrow_on_lossy_handle_refused(void **state)
{
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    ps_bus *bus;
    ps_sub *sub = (ps_sub *)&bus;

    (void)state;
    conform_need(PS_CAN_BORROW);
    bus = conform_open("lossy=1");
    options.flags = PS_BORROW;
    assert_int_equal(ps_subscribe(bus, "t", conform_record, NULL, &options, &sub), PS_EINVAL);
    assert_null(sub);
    assert_true(ps_errmsg()[0] != '\0');
    conform_close(bus);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_borrow_handler_runs_nothing_moves_under_it),
    conform_test(test_borrow_unsubscribed_in_handler_still_holds),
    conform_test(test_borrow_pull_holds_until_next_call),
    conform_test(test_borrow_pull_subscribed_anew_still_holds),
    conform_test(test_borrow_on_lossy_handle_refused),
};
CONFORM_AREA(conform_borrow_area);
