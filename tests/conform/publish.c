/* SPDX-License-Identifier: MIT */
/* publish.c - conformance: what is sent arrives, whole, in order, numbered and counted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../conform.h"

static void test_publish_bad_arguments_refused(void **state)
{
    static struct conform_log log;
    static const char *const bad[] = { "", "a b", "a\tb", "a\nb", "a\x01", "+", "a/+", "a+b", "#", "a/#", "a#" };
    char longest[PS_TOPIC_MAX + 2];
    ps_bus *bus = conform_open(NULL);

    (void)state;
    conform_subscribe(bus, "#", &log);
    memset(longest, 'x', sizeof longest);
    longest[PS_TOPIC_MAX + 1] = '\0';
    assert_int_equal(ps_publish(bus, NULL, "x", 1), PS_EINVAL);
    assert_int_equal(ps_publish(bus, longest, "x", 1), PS_EINVAL);
    assert_int_equal(ps_wanted(bus, NULL), PS_EINVAL);
    assert_int_equal(ps_wanted(bus, longest), PS_EINVAL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ps_publish(bus, bad[i], "x", 1), PS_EINVAL);
        assert_true(ps_errmsg()[0] != '\0');
        assert_int_equal(ps_wanted(bus, bad[i]), PS_EINVAL);
    }
    assert_int_equal(ps_publish(bus, "t", NULL, 1), PS_EINVAL);
    assert_int_equal(conform_drain(bus), 0);
    assert_int_equal(conform_stats(bus).published, 0);
    conform_close(bus);
}

static void test_publish_longest_and_odd_topics_arrive(void **state)
{
    static struct conform_log log;
    static const char *const good[] = { "t", "/", "//", "/a", "a/", "a*b", "*", "a%b", "\xff\xfe", "\xc3\xa4/\xc3\xb6", "a/b/c/d/e/f/g/h/i/j/k" };
    const int count = sizeof good / sizeof good[0];
    char longest[PS_TOPIC_MAX + 1];
    ps_bus *bus = conform_open(NULL);

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(bus, "#", &log);
    memset(longest, 'x', PS_TOPIC_MAX);
    longest[PS_TOPIC_MAX] = '\0';
    for (int i = 0; i < count; i++) {
        conform_say(bus, good[i], good[i]);
        if (i % 8 == 7)
            assert_int_equal(conform_drain(bus), 8);
    }
    conform_say(bus, longest, "long");
    assert_int_equal(conform_drain(bus), count % 8 + 1);
    assert_int_equal(log.bad, 0);
    for (int i = 0; i < count; i++)
        assert_string_equal(log.seen[i].topic, good[i]);
    assert_string_equal(log.seen[count].topic, longest);
    assert_int_equal(memcmp(log.seen[count].head, "long", 5), 0);
    conform_close(bus);
}

struct publish_sizes {
    const unsigned char *expected;
    size_t               size;
    int                  good;
};

static void publish_compare(const ps_msg *msg, void *user)
{
    struct publish_sizes *sizes = user;

    sizes->good += conform_good(msg) && msg->size == sizes->size && memcmp(msg->data, sizes->expected, msg->size) == 0;
}

static void test_publish_every_size_arrives_whole_and_aligned(void **state)
{
    static const size_t sizes[] = { 0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 87, 88, 89, 95, 96,
                                    97, 111, 112, 113, 127, 128, 129, 255, 256, 257, 1000, 4095, 4096, 4097 };
    const size_t count = sizeof sizes / sizeof sizes[0];
    static const char *const topics[] = { "t", "a/topic/of/some/length/that/hardly/fits/where/a/short/one/does/0123456789/0123456789" };
    ps_bus *a = conform_open("bytes=256k"), *b = conform_open(NULL);
    size_t max = (size_t)conform_stats(a).message_max;
    unsigned char *data = malloc(max + 1);
    struct publish_sizes expected = { data, 0, 0 };

    (void)state;
    assert_non_null(data);
    assert_true(max >= 256 * 1024 / 4);
    assert_ok(ps_subscribe(b, "#", publish_compare, &expected, NULL, NULL));
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < count + 4; i++) {
            size_t size = i < count ? sizes[i] : max - (count + 3 - i);

            for (size_t at = 0; at < size; at++)
                data[at] = (unsigned char)(at * 7 + i + (at >> 8));
            expected.size = size;
            expected.good = 0;
            assert_int_equal(ps_publish(a, topics[t], data, size), 1);
            memset(data, 0xa5, size);           /* the call is over: the data are the caller's again */
            for (size_t at = 0; at < size; at++)
                data[at] = (unsigned char)(at * 7 + i + (at >> 8));
            assert_int_equal(conform_drain(b), 1);
            if (expected.good != 1)
                fail_msg("%zu bytes on \"%s\" arrive damaged", size, topics[t]);
        }
    free(data);
    conform_close(a);
    conform_close(b);
}

static void test_publish_data_read_during_call_only(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);
    char data[16] = "before", topic[16] = "t/before";

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(bus, "t/+", &log);
    assert_int_equal(ps_publish(bus, topic, data, sizeof data), 1);
    memcpy(data, "after!", 7);
    memcpy(topic, "t/after!", 9);
    assert_int_equal(conform_drain(bus), 1);
    assert_string_equal((char *)log.seen[0].head, "before");
    assert_string_equal(log.seen[0].topic, "t/before");
    conform_close(bus);
}

static void test_publish_over_limit_refused_even_if_unwanted(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open("bytes=64k");
    size_t max = (size_t)conform_stats(bus).message_max;
    char *data = calloc(1, max + 1);

    (void)state;
    assert_non_null(data);
    assert_int_equal(ps_publish(bus, "t", data, max + 1), PS_EMSGSIZE);
    assert_int_equal(ps_publish(bus, "t", data, SIZE_MAX), PS_EMSGSIZE);
    assert_int_equal(ps_publish(bus, "t", data, (size_t)UINT32_MAX + 1), PS_EMSGSIZE);
    assert_int_equal(ps_publish(bus, "t", data, max), 0);
    conform_subscribe(bus, "t", &log);
    assert_int_equal(ps_publish(bus, "t", data, max + 1), PS_EMSGSIZE);
    assert_int_equal(ps_publish(bus, "t", data, max), 1);
    assert_int_equal(conform_drain(bus), 1);
    assert_int_equal(log.seen[0].size, max);
    /* Before the first message, and once there has been one. */
    assert_int_equal(ps_publish(bus, "t", data, max + 1), PS_EMSGSIZE);
    assert_int_equal(ps_publish(bus, "other", data, max + 1), PS_EMSGSIZE);
    assert_int_equal(conform_drain(bus), 0);
    free(data);
    conform_close(bus);
}

static void test_publish_without_data_delivered_with_pointer(void **state)
{
    static struct conform_log log;
    ps_bus *bus = conform_open(NULL);

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(bus, "t", &log);
    assert_int_equal(ps_publish(bus, "t", NULL, 0), 1);
    assert_int_equal(ps_publish(bus, "t", "x", 0), 1);
    assert_int_equal(conform_drain(bus), 2);
    assert_int_equal(log.bad, 0);               /* conform_good(): never NULL */
    assert_int_equal(log.seen[0].size, 0);
    conform_close(bus);
}

static void test_p1_publish_count_tells_how_many_handles_want_it(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL), *c = conform_open("lossy=1"), *deaf = conform_open("echo=0");
    ps_sub *s1, *s2, *s3;

    (void)state;
    assert_int_equal(ps_publish(a, "t", "x", 1), 0);
    assert_int_equal(ps_wanted(a, "t"), 0);
    s1 = conform_subscribe(b, "t", &log);
    s2 = conform_subscribe(b, "t", &log);
    conform_subscribe(b, "#", &log);
    assert_int_equal(ps_publish(a, "t", "x", 1), 1);            /* handles, not subscriptions */
    conform_subscribe(c, "+", &log);
    assert_int_equal(ps_publish(a, "t", "x", 1), 2);            /* a lossy one counts */
    s3 = conform_subscribe(a, "t", &log);
    assert_int_equal(ps_publish(a, "t", "x", 1), 3);            /* the own handle, too */
    conform_subscribe(deaf, "t", &log);
    assert_int_equal(ps_publish(deaf, "t", "x", 1), 3);         /* but not where it does not hear itself */
    assert_int_equal(ps_wanted(deaf, "t"), 3);
    assert_int_equal(ps_publish(a, "t", "x", 1), 4);
    assert_int_equal(ps_wanted(a, "t"), 4);
    assert_int_equal(ps_unsubscribe(s3), 0);
    assert_int_equal(ps_unsubscribe(s1), 0);
    assert_int_equal(ps_unsubscribe(s2), 0);
    assert_int_equal(ps_wanted(a, "t"), 3);                     /* '#' of b still stands */
    conform_close(b);
    conform_close(c);
    assert_int_equal(ps_wanted(a, "t"), 1);
    conform_close(deaf);
    assert_int_equal(ps_wanted(a, "t"), 0);
    assert_int_equal(ps_publish(a, "t", "x", 1), 0);
    conform_close(a);
}

/* What nobody wants takes no number: the numbers of the others stay without a gap. */
static void test_p1_publish_nobody_wants_takes_no_number_and_wakes_nobody(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open("depth=2"), *b = conform_open(NULL);
    int fd;

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(b, "wanted", &log);
    fd = ps_fd(b);
    assert_ok(fd);
    for (int i = 0; i < 10; i++) {
        uint64_t wakes;

        conform_say(a, "wanted", "x");
        assert_true(conform_readable(fd, 0));
        assert_int_equal(conform_drain(b), 1);
        assert_false(conform_readable(fd, 0));
        wakes = conform_stats(a).wakes;
        for (int n = 0; n < 1000; n++)          /* many times the ring: none may be refused for want of room */
            assert_int_equal(ps_publish(a, "unwanted", "x", 1), 0);
        assert_int_equal(conform_stats(a).wakes, wakes);
        assert_false(conform_readable(fd, 0));
    }
    assert_int_equal(atomic_load(&log.count), 10);
    for (int i = 1; i < 10; i++)
        assert_int_equal(log.seen[i].sequence, log.seen[0].sequence + (uint64_t)i);
    assert_int_equal(log.lost, 0);
    assert_int_equal(conform_stats(a).published, 10);
    assert_int_equal(conform_stats(b).unwanted, 0);
    conform_close(a);
    conform_close(b);
}

static void test_publish_every_delivery_shows_same_publisher_and_number(void **state)
{
    static struct conform_log log[3];
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);

    (void)state;
    memset(log, 0, sizeof log);
    conform_subscribe(a, "t", &log[0]);
    conform_subscribe(b, "t", &log[1]);
    conform_subscribe(b, "#", &log[2]);
    for (int i = 0; i < 5; i++)
        conform_say(i % 2 ? a : b, "t", "x");
    assert_int_equal(conform_drain(a), 5);
    assert_int_equal(conform_drain(b), 5);      /* messages, not deliveries */
    for (int l = 0; l < 3; l++) {
        assert_int_equal(atomic_load(&log[l].count), 5);
        assert_int_equal(log[l].bad, 0);
        assert_int_equal(log[l].lost, 0);
        for (int i = 0; i < 5; i++) {
            int twin = 0;

            /* Two publishers: their streams may be mixed differently at the two readers. */
            for (int j = 0; j < 5; j++)
                twin += log[l].seen[i].publisher == log[0].seen[j].publisher &&
                        log[l].seen[i].sequence == log[0].seen[j].sequence;
            assert_int_equal(twin, 1);
        }
    }
    assert_int_equal(conform_stats(b).delivered, 10);
    conform_close(a);
    conform_close(b);
}

static void test_publish_publisher_is_the_one_in_stats(void **state)
{
    static struct conform_log log;
    ps_bus *a = conform_open(NULL), *b = conform_open(NULL);

    (void)state;
    memset(&log, 0, sizeof log);
    conform_subscribe(b, "t", &log);
    conform_say(a, "t", "x");
    conform_drain(b);
    conform_say(b, "t", "x");
    conform_drain(b);
    assert_int_not_equal(log.seen[0].publisher, 0);
    assert_int_equal(log.seen[0].publisher, conform_stats(a).publisher);
    assert_int_equal(log.seen[1].publisher, conform_stats(b).publisher);
    assert_int_not_equal(log.seen[0].publisher, log.seen[1].publisher);
    conform_close(a);
    conform_close(b);
}

/* ------------------------------------------------------------------ order */

enum { ORDER_PUBLISHERS = 3, ORDER_READERS = 2, ORDER_MESSAGES = 5000, ORDER_ALL = ORDER_PUBLISHERS * ORDER_MESSAGES };

struct order {
    ps_bus    *bus;
    uint64_t   publisher;       /* number of this thread */
    int        error;
    atomic_int count;           /* readers */
    uint64_t   next[ORDER_PUBLISHERS];
    int        wrong;
    uint32_t  *all;             /* publisher and number of all messages, in the order seen */
};

static void *order_publish(void *arg)
{
    struct order *o = arg;

    for (uint64_t i = 0; i < ORDER_MESSAGES && o->error == 0; i++) {
        uint64_t message[2] = { o->publisher, i };
        int rc = ps_publish(o->bus, "order", message, sizeof message);

        if (rc < 1)
            o->error = rc < 0 ? rc : 1;
    }
    return NULL;
}

static void order_handler(const ps_msg *msg, void *user)
{
    struct order *o = user;
    int at = atomic_load(&o->count);
    uint64_t message[2];

    memcpy(message, msg->data, sizeof message);
    if (msg->size != sizeof message || message[0] >= ORDER_PUBLISHERS || at >= ORDER_ALL || msg->lost != 0) {
        o->wrong++;
        return;
    }
    o->wrong += message[1] != o->next[message[0]];
    o->next[message[0]] = message[1] + 1;
    o->all[at] = (uint32_t)(message[0] << 24 | message[1]);
    atomic_store(&o->count, at + 1);
}

static void *order_read(void *arg)
{
    struct order *o = arg;

    while (o->error == 0 && atomic_load(&o->count) < ORDER_ALL) {
        int rc = ps_dispatch(o->bus, 100, 3 * DEADLINE_MS);

        if (rc <= 0)
            o->error = rc < 0 ? rc : 1;
    }
    return NULL;
}

/* own: each thread has a handle of its own; otherwise all share one. total: the readers must agree on everything. */
static void order_run(int own, int total)
{
    struct order publishers[ORDER_PUBLISHERS], readers[ORDER_READERS];
    pthread_t threads[ORDER_PUBLISHERS + ORDER_READERS];

    memset(publishers, 0, sizeof publishers);
    memset(readers, 0, sizeof readers);
    for (int i = 0; i < ORDER_READERS; i++) {
        readers[i].bus = conform_open("depth=256");
        readers[i].all = calloc(ORDER_ALL, sizeof readers[i].all[0]);
        assert_non_null(readers[i].all);
        assert_ok(ps_subscribe(readers[i].bus, "order", order_handler, &readers[i], NULL, NULL));
        conform_start(&threads[i], order_read, &readers[i]);
    }
    for (int i = 0; i < ORDER_PUBLISHERS; i++) {
        publishers[i].bus = own || i == 0 ? conform_open("block=60000&evict=-1") : publishers[0].bus;
        publishers[i].publisher = (uint64_t)i;
        conform_start(&threads[ORDER_READERS + i], order_publish, &publishers[i]);
    }
    for (int i = 0; i < ORDER_PUBLISHERS + ORDER_READERS; i++)
        conform_join(threads[i]);
    for (int i = 0; i < ORDER_PUBLISHERS; i++) {
        assert_int_equal(publishers[i].error, 0);
        if (own || i == 0)
            conform_close(publishers[i].bus);
    }
    for (int i = 0; i < ORDER_READERS; i++) {
        assert_int_equal(readers[i].error, 0);
        assert_int_equal(readers[i].wrong, 0);
        assert_int_equal(atomic_load(&readers[i].count), ORDER_ALL);
        if (total)
            assert_memory_equal(readers[0].all, readers[i].all, ORDER_ALL * sizeof readers[0].all[0]);
        conform_close(readers[i].bus);
    }
    for (int i = 0; i < ORDER_READERS; i++)
        free(readers[i].all);
}

static void test_p4_order_several_publishers_each_in_order(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE);
    order_run(1, 0);
}

static void test_p4_order_handle_shared_by_threads_one_stream_for_all(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE);
    order_run(0, 1);            /* one handle is one stream, so even here everybody sees the same */
}

static void test_p4_order_total_if_the_backend_says_so(void **state)
{
    (void)state;
    conform_need(PS_CAN_RELIABLE | PS_CAN_TOTAL_ORDER);
    order_run(1, 1);
}

static const struct CMUnitTest tests[] = {
    conform_test(test_publish_bad_arguments_refused),
    conform_test(test_publish_longest_and_odd_topics_arrive),
    conform_test(test_publish_every_size_arrives_whole_and_aligned),
    conform_test(test_publish_data_read_during_call_only),
    conform_test(test_publish_over_limit_refused_even_if_unwanted),
    conform_test(test_publish_without_data_delivered_with_pointer),
    conform_test(test_p1_publish_count_tells_how_many_handles_want_it),
    conform_test(test_p1_publish_nobody_wants_takes_no_number_and_wakes_nobody),
    conform_test(test_publish_every_delivery_shows_same_publisher_and_number),
    conform_test(test_publish_publisher_is_the_one_in_stats),
    conform_test(test_p4_order_several_publishers_each_in_order),
    conform_test(test_p4_order_handle_shared_by_threads_one_stream_for_all),
    conform_test(test_p4_order_total_if_the_backend_says_so),
};
CONFORM_AREA(conform_publish_area);
