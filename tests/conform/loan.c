/* SPDX-License-Identifier: MIT */
/* loan.c - conformance: ps_loan, ps_commit, ps_cancel. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

static void loan_refused(ps_bus *bus, const char *topic, size_t size, int code)
{
    void *data = &data;

    assert_int_equal(ps_loan(bus, topic, size, &data), code);
    assert_null(data);
}

static void *loan_get(ps_bus *bus, const char *topic, size_t size)
{
    void *data = NULL;

    assert_ok(ps_loan(bus, topic, size, &data));
    assert_non_null(data);
    assert_int_equal((uintptr_t)data % 64, 0);
    return data;
}

static void test_loan_unsupported_said_so(void **state)
{
    ps_bus *bus;

    (void)state;
    if (conform_backend->can & PS_CAN_LOAN)
        skip();
    bus = conform_open(NULL);
    loan_refused(bus, "t", 1, PS_ENOTSUP);
    conform_close(bus);
}

static void test_loan_bad_arguments_refused(void **state)
{
    ps_bus *bus;
    size_t max;

    (void)state;
    conform_need(PS_CAN_LOAN);
    bus = conform_open("loans=64k");
    max = (size_t)conform_stats(bus).loan_max;
    assert_true(max > 0 && max <= conform_stats(bus).loans);
    loan_refused(bus, NULL, 1, PS_EINVAL);
    loan_refused(bus, "", 1, PS_EINVAL);
    loan_refused(bus, "a b", 1, PS_EINVAL);
    loan_refused(bus, "a/+", 1, PS_EINVAL);
    loan_refused(bus, "t", max + 1, PS_EMSGSIZE);
    loan_refused(bus, "t", SIZE_MAX, PS_EMSGSIZE);
    assert_int_equal(ps_loan(bus, "t", 1, NULL), PS_EINVAL);
    assert_int_equal(ps_cancel(bus, loan_get(bus, "t", max)), 0);
    assert_int_equal(ps_cancel(bus, loan_get(bus, "t", 0)), 0);
    conform_close(bus);
}

struct loan_reader {
    unsigned char expected[70000];
    size_t        size;
    int           good, aligned;
};

static void loan_reader(const ps_msg *msg, void *user)
{
    struct loan_reader *r = user;

    r->good += conform_good(msg) && msg->size == r->size && memcmp(msg->data, r->expected, msg->size) == 0;
    r->aligned += (uintptr_t)msg->data % 64 == 0;
}

static void test_loan_committed_arrives_whole_and_aligned(void **state)
{
    static const size_t sizes[] = { 0, 1, 15, 16, 63, 64, 65, 1000, 4096, 4097, 30000 };
    static struct loan_reader r;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_LOAN);
    a = conform_open("loans=256k");
    b = conform_open(NULL);
    memset(&r, 0, sizeof r);
    assert_ok(ps_subscribe(b, "t", loan_reader, &r, NULL, NULL));
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            size_t asked = sizes[i] + (size_t)(round % 3) * 100;        /* some are shrunk */
            unsigned char *data = loan_get(a, "t", asked);

            r.size = sizes[i];
            r.good = r.aligned = 0;
            for (size_t at = 0; at < asked; at++)
                data[at] = (unsigned char)(at * 3 + i + (size_t)round);
            memcpy(r.expected, data, sizes[i]);
            assert_int_equal(ps_commit(a, data, sizes[i]), 1);
            assert_int_equal(conform_drain(b), 1);
            assert_int_equal(r.good, 1);
            assert_int_equal(r.aligned, 1);
        }
    conform_close(a);
    conform_close(b);
}

/* A loan may be larger than any message ps_publish() takes. */
static void test_loan_largest_arrives(void **state)
{
    static struct loan_reader r;
    ps_bus *a, *b;
    unsigned char *data;

    (void)state;
    conform_need(PS_CAN_LOAN);
    a = conform_open("loans=64k&bytes=4k");
    b = conform_open(NULL);
    memset(&r, 0, sizeof r);
    r.size = (size_t)conform_stats(a).loan_max;
    assert_true(r.size > conform_stats(a).message_max);
    assert_true(r.size <= sizeof r.expected);
    assert_ok(ps_subscribe(b, "t", loan_reader, &r, NULL, NULL));
    for (int i = 0; i < 10; i++) {
        data = loan_get(a, "t", r.size);
        memset(data, i + 1, r.size);
        memset(r.expected, i + 1, r.size);
        assert_int_equal(ps_commit(a, data, r.size), 1);
        assert_int_equal(conform_drain(b), 1);
        assert_int_equal(r.good, i + 1);
    }
    conform_close(a);
    conform_close(b);
}

static void test_loan_committed_order_counts_not_loan_order(void **state)
{
    static struct conform_log log;
    ps_bus *bus;
    char *first, *second, *third;

    (void)state;
    conform_need(PS_CAN_LOAN);
    bus = conform_open(NULL);
    conform_subscribe(bus, "#", &log);
    first = loan_get(bus, "t/1", 16);
    second = loan_get(bus, "t/2", 16);
    third = loan_get(bus, "t/3", 16);
    memcpy(first, "first", 6);
    memcpy(second, "second", 7);
    conform_say(bus, "t/0", "before");
    assert_int_equal(ps_commit(bus, second, 7), 1);
    conform_say(bus, "t/0", "between");
    assert_int_equal(ps_commit(bus, first, 6), 1);
    assert_int_equal(ps_cancel(bus, third), 0);
    assert_int_equal(conform_drain(bus), 4);
    assert_string_equal((char *)log.seen[0].head, "before");
    assert_string_equal((char *)log.seen[1].head, "second");
    assert_string_equal((char *)log.seen[2].head, "between");
    assert_string_equal((char *)log.seen[3].head, "first");
    assert_string_equal(log.seen[1].topic, "t/2");
    assert_int_equal(log.seen[3].sequence - log.seen[0].sequence, 3);
    assert_int_equal(log.bad, 0);
    conform_close(bus);
}

static void test_loan_topic_read_during_call_only(void **state)
{
    static struct conform_log log;
    char topic[] = "before";
    ps_bus *bus;
    void *data;

    (void)state;
    conform_need(PS_CAN_LOAN);
    bus = conform_open(NULL);
    conform_subscribe(bus, "before", &log);
    data = loan_get(bus, topic, 1);
    memcpy(topic, "after!", 6);
    assert_int_equal(ps_commit(bus, data, 1), 1);
    assert_int_equal(conform_drain(bus), 1);
    assert_string_equal(log.seen[0].topic, "before");
    conform_close(bus);
}

static void test_loan_wrong_pointer_or_size_refused_loan_kept(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    char here[64], *data;

    (void)state;
    conform_need(PS_CAN_LOAN);
    a = conform_open(NULL);
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    data = loan_get(a, "t", 100);
    assert_int_equal(ps_commit(a, NULL, 0), PS_EINVAL);
    assert_int_equal(ps_commit(a, here, 1), PS_EINVAL);
    assert_int_equal(ps_cancel(a, here), PS_EINVAL);
    assert_int_equal(ps_commit(a, data + 1, 1), PS_EINVAL);
    assert_int_equal(ps_cancel(a, data + 64), PS_EINVAL);
    assert_int_equal(ps_commit(b, data, 1), PS_EINVAL);         /* of another handle */
    assert_int_equal(ps_cancel(b, data), PS_EINVAL);
    assert_int_equal(ps_commit(a, data, 101), PS_EINVAL);       /* more than was asked for */
    assert_int_equal(ps_commit(a, data, SIZE_MAX), PS_EINVAL);
    assert_int_equal(ps_cancel(a, NULL), 0);
    memset(data, 'z', 100);
    assert_int_equal(ps_commit(a, data, 100), 1);               /* all that has changed nothing */
    assert_int_equal(ps_commit(a, data, 100), PS_EINVAL);
    assert_int_equal(ps_cancel(a, data), PS_EINVAL);
    data = loan_get(a, "t", 100);
    assert_int_equal(ps_cancel(a, data), 0);
    assert_int_equal(ps_cancel(a, data), PS_EINVAL);
    assert_int_equal(ps_commit(a, data, 1), PS_EINVAL);
    assert_int_equal(conform_drain(b), 1);
    assert_int_equal(log.seen[0].size, 100);
    conform_close(a);
    conform_close(b);
}

static void test_loan_65th_refused_until_one_comes_back(void **state)
{
    void *data[PS_LOANS_MAX];
    ps_bus *bus;

    (void)state;
    conform_need(PS_CAN_LOAN);
    bus = conform_open("loans=1M");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PS_LOANS_MAX; i++) {
            data[i] = loan_get(bus, "t", 64);
            memset(data[i], i, 64);
        }
        loan_refused(bus, "t", 64, PS_EFULL);
        for (int i = 0; i < PS_LOANS_MAX; i++)          /* nobody's memory is another's */
            for (int at = 0; at < 64; at++)
                assert_int_equal(((unsigned char *)data[i])[at], i);
        assert_int_equal(ps_cancel(bus, data[round]), 0);
        data[round] = loan_get(bus, "t", 64);
        loan_refused(bus, "t", 64, PS_EFULL);
        /* Nobody wants it: 0, and the loan has come back all the same. */
        for (int i = 0; i < PS_LOANS_MAX; i++)
            assert_int_equal(ps_commit(bus, data[i], 64), 0);
        assert_int_equal(conform_stats(bus).published, 0);
    }
    conform_close(bus);
}

/* Chunks must come back when the readers are through with them, or the area is used up some day. */
static void test_loan_area_full_refused_then_free_again(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    int taken = 0, all = 0;

    (void)state;
    conform_need(PS_CAN_LOAN | PS_CAN_RELIABLE);
    a = conform_open("loans=64k&evict=-1&depth=1024");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    for (int round = 0; round < 30; round++) {
        size_t size = 1000 + (size_t)(support_random() % 7000);

        for (taken = 0; taken < 1000; taken++) {
            void *data = NULL;
            int rc = ps_loan(a, "t", size, &data);

            if (rc == PS_EAGAIN) {
                assert_null(data);
                break;
            }
            assert_ok(rc);
            memset(data, round, size);
            assert_int_equal(ps_commit(a, data, size), 1);
        }
        assert_true(taken >= 1 && (size_t)taken * size <= conform_stats(a).loans);
        all += taken;
        assert_int_equal(conform_drain(b), taken);
    }
    assert_int_equal(atomic_load(&log.count), all);
    assert_int_equal(log.bad, 0);
    assert_int_equal(log.lost, 0);
    assert_true(conform_stats(a).refused >= 30);
    conform_close(a);
    conform_close(b);
}

/* One that nobody wants is free again when its commit returns, like one that is given back. */
static void test_loan_refused_is_told_of_one_that_comes_back_unsent(void **state)
{
    static struct conform_log log;

    (void)state;
    conform_need(PS_CAN_LOAN);
    for (int how = 0; how < 4; how++) {
        ps_bus *bus = conform_open("loans=4k"), *watcher = conform_open(NULL);
        size_t max = (size_t)conform_stats(bus).loan_max;
        void *loan = loan_get(bus, "nobody", max);
        struct conform_dispatcher d;

        conform_subscribe(bus, "t", &log);
        loan_refused(bus, "nobody", max, PS_EAGAIN);
        if (how & 1) {                  /* asleep by then, or not yet */
            conform_dispatch_start(&d, bus, 1, DEADLINE_MS);
            assert_true(conform_asleep(watcher, 1));
        }
        assert_int_equal(how & 2 ? ps_cancel(bus, loan) : ps_commit(bus, loan, 1), 0);
        uint64_t start = support_now_ms();
        assert_int_equal(how & 1 ? conform_dispatch_join(&d) : ps_dispatch(bus, 1, DEADLINE_MS), 0);
        assert_true(support_now_ms() - start < DEADLINE_MS / 2);
        assert_int_equal(ps_cancel(bus, loan_get(bus, "nobody", max)), 0);
        conform_close(bus);
        conform_close(watcher);
    }
}

static void test_loan_commit_to_full_ring_refused_loan_kept(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;
    char *data;

    (void)state;
    conform_need(PS_CAN_LOAN | PS_CAN_RELIABLE);
    a = conform_open("depth=2&evict=-1");
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    data = loan_get(a, "t", 16);
    memcpy(data, "patience", 9);
    assert_int_equal(conform_fill(a, "t", 0, 10), 2);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ps_commit(a, data, 9), PS_EAGAIN);
    assert_int_equal(conform_drain(b), 2);
    assert_int_equal(ps_commit(a, data, 9), 1);
    assert_int_equal(conform_drain(b), 1);
    assert_string_equal((char *)log.seen[2].head, "patience");
    assert_int_equal(log.lost, 0);
    conform_close(a);
    conform_close(b);
}

struct loan_thread {
    ps_bus    *bus;
    uint64_t   publisher;
    int        error;
    pthread_t  thread;
};

enum { LOAN_THREADS = 3, LOAN_MESSAGES = 2000 };

static void *loan_thread(void *arg)
{
    struct loan_thread *t = arg;

    for (uint64_t i = 0; i < LOAN_MESSAGES && t->error == 0; i++) {
        size_t size = sizeof (struct support_message) + (size_t)(support_random() % 2000);
        void *data = NULL;
        int rc = ps_loan(t->bus, "t", size + 100, &data);

        if (rc == 0) {
            support_compose(data, size, t->publisher, i);
            rc = ps_commit(t->bus, data, size);
        }
        if (rc != 1)
            t->error = rc < 0 ? rc : 1;
    }
    return NULL;
}

struct loan_check {
    uint64_t next[LOAN_THREADS];
    int      count, wrong;
};

static void loan_check(const ps_msg *msg, void *user)
{
    struct loan_check *c = user;
    struct support_message head;

    c->count++;
    if (support_verify(msg->data, msg->size, &head) != 0 || head.publisher >= LOAN_THREADS ||
        head.number != c->next[head.publisher]) {
        c->wrong++;
        return;
    }
    c->next[head.publisher]++;
}

static void test_loan_by_several_threads_of_one_handle_all_whole(void **state)
{
    struct loan_thread threads[LOAN_THREADS];
    struct loan_check check;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_LOAN | PS_CAN_RELIABLE);
    memset(&check, 0, sizeof check);
    memset(threads, 0, sizeof threads);
    a = conform_open("block=60000&evict=-1&loans=64k&depth=64");
    b = conform_open(NULL);
    assert_ok(ps_subscribe(b, "t", loan_check, &check, NULL, NULL));
    for (int i = 0; i < LOAN_THREADS; i++) {
        threads[i].bus = a;
        threads[i].publisher = (uint64_t)i;
        conform_start(&threads[i].thread, loan_thread, &threads[i]);
    }
    while (check.count < LOAN_THREADS * LOAN_MESSAGES && ps_dispatch(b, 0, 3 * DEADLINE_MS) > 0)
        continue;
    for (int i = 0; i < LOAN_THREADS; i++) {
        conform_join(threads[i].thread);
        assert_int_equal(threads[i].error, 0);
    }
    assert_int_equal(check.count, LOAN_THREADS * LOAN_MESSAGES);
    assert_int_equal(check.wrong, 0);
    conform_close(a);
    conform_close(b);
}

/* Chunks are lent again under a lossy reader: what it delivers is whole, what it missed is counted. */
static void test_p5_loan_lossy_reader_gets_whole_ones_and_exact_losses(void **state)
{
    ps_bus *a, *b;
    uint64_t lost = 0, delivered = 0;
    const ps_msg *msg;

    (void)state;
    conform_need(PS_CAN_LOAN);
    a = conform_open("loans=64k&depth=16");
    b = conform_open("lossy=1");
    conform_subscribe(b, "t", NULL);
    for (uint64_t i = 0; i < 5000; i++) {
        size_t size = sizeof (struct support_message) + (size_t)(support_random() % 8000);
        struct support_message head;
        void *data = loan_get(a, "t", size);

        support_compose(data, size, 1, i);
        assert_int_equal(ps_commit(a, data, size), 1);
        if (support_random() % 4 != 0 || ps_next(b, &msg, 0) != 1)
            continue;
        assert_int_equal(support_verify(msg->data, msg->size, &head), 0);
        assert_int_equal(head.number, delivered + lost + msg->lost);
        delivered++;
        lost += msg->lost;
    }
    while (ps_next(b, &msg, 0) == 1) {
        delivered++;
        lost += msg->lost;
    }
    assert_int_equal(delivered + lost, 5000);
    assert_true(lost > 0);
    conform_close(a);
    conform_close(b);
}

static void test_loan_out_at_close_freed_with_the_handle(void **state)
{
    static struct conform_log log;
    ps_bus *a, *b;

    (void)state;
    conform_need(PS_CAN_LOAN);
    b = conform_open(NULL);
    conform_subscribe(b, "t", &log);
    for (int i = 0; i < 10; i++) {
        a = conform_open("loans=256k");
        for (int n = 0; n < 10; n++)
            loan_get(a, "t", 1000);
        conform_close(a);
    }
    assert_int_equal(conform_drain(b), 0);
    conform_close(b);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_loan_unsupported_said_so),
    conform_test(test_loan_bad_arguments_refused),
    conform_test(test_loan_committed_arrives_whole_and_aligned),
    conform_test(test_loan_largest_arrives),
    conform_test(test_loan_committed_order_counts_not_loan_order),
    conform_test(test_loan_topic_read_during_call_only),
    conform_test(test_loan_wrong_pointer_or_size_refused_loan_kept),
    conform_test(test_loan_65th_refused_until_one_comes_back),
    conform_test(test_loan_area_full_refused_then_free_again),
    conform_test(test_loan_refused_is_told_of_one_that_comes_back_unsent),
    conform_test(test_loan_commit_to_full_ring_refused_loan_kept),
    conform_test(test_loan_by_several_threads_of_one_handle_all_whole),
    conform_test(test_p5_loan_lossy_reader_gets_whole_ones_and_exact_losses),
    conform_test(test_loan_out_at_close_freed_with_the_handle),
};
CONFORM_AREA(conform_loan_area);
