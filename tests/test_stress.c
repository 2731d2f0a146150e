/* SPDX-License-Identifier: MIT */
/*
 * test_stress.c - many threads, and many processes, at once: nothing lost for those who must not lose, nothing twice,
 * nothing out of order, nothing damaged, and exact losses for those who may lose (promises 4, 5 and 7).
 *
 * PS_TEST_SCALE in the environment is a percentage of the usual number of messages; sanitizers take less by themselves.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define HANG_S 100

#if defined __has_feature
#if __has_feature(thread_sanitizer)
#define STRESS_THREAD_SANITIZER
#elif __has_feature(address_sanitizer)
#define STRESS_ADDRESS_SANITIZER
#endif
#endif
#if defined __SANITIZE_THREAD__ || defined STRESS_THREAD_SANITIZER
#define STRESS_MESSAGES 5000
#elif defined __SANITIZE_ADDRESS__ || defined STRESS_ADDRESS_SANITIZER
#define STRESS_MESSAGES 25000
#else
#define STRESS_MESSAGES 100000
#endif

enum { PUBLISHERS = 4, READERS = 4, STREAMS = 8, LARGEST = 16000 };

/* What one reader has seen. In memory that processes share, where they are processes. */
struct tally {
    uint64_t delivered, lost;
    uint64_t damaged, repeated, missing, gaps;  /* gaps: `lost` does not fit the numbers of the stream */
    uint64_t next[PUBLISHERS];
    uint64_t from[PUBLISHERS];                  /* messages */
    struct { uint64_t key, sequence; } stream[STREAMS];
    int      streams, error, lossy;
    uint64_t stats_lost;
    int      shared_stream;                     /* all publishers have one */
};

struct stage {
    const char *url;
    uint64_t    messages;                       /* of each publisher */
    atomic_int  ready, go, publishing;          /* readers that listen; publishers that have not finished */
};

struct actor {
    struct stage *stage;
    ps_bus       *bus;                          /* publishers: shared by several, or NULL for one of its own */
    const char   *options;
    int           number, pull, error;
    struct tally *tally;
    pthread_t     thread;
};

static uint64_t stress_messages(void)
{
    const char *scale = getenv("PS_TEST_SCALE");
    long percent = scale == NULL ? 100 : strtol(scale, NULL, 10);

    return percent <= 0 ? STRESS_MESSAGES : (uint64_t)STRESS_MESSAGES * (uint64_t)percent / 100 + 1;
}

static int has_gone(void *arg)
{
    return atomic_load((atomic_int *)arg) != 0;
}

static const char *stress_url(const struct stage *stage, const char *options, char *text, size_t size)
{
    snprintf(text, size, "%s?depth=256&bytes=64k&loans=64k&%s", stage->url, options);
    return text;
}

/* ------------------------------------------------------------------ publishers */

static int publish_one(ps_bus *bus, const char *topic, unsigned char *buffer, size_t size, uint64_t who, uint64_t number)
{
    void *loan;
    int rc;

    if (number % 8 != 3) {
        support_compose(buffer, size, who, number);
        return ps_publish(bus, topic, buffer, size);
    }
    rc = ps_loan(bus, topic, size, &loan);
    if (rc < 0)
        return rc;
    support_compose(loan, size, who, number);
    rc = ps_commit(bus, loan, size);
    if (rc < 0)
        (void)ps_cancel(bus, loan);
    return rc;
}

static int publish_all(struct actor *a)
{
    unsigned char *buffer = malloc(LARGEST);
    char topic[64], url[256];
    ps_bus *bus = a->bus;
    int error = buffer == NULL ? PS_ENOMEM : 0;

    if (bus == NULL && error == 0)
        error = ps_open(&bus, stress_url(a->stage, a->options, url, sizeof url));
    if (error == 0 && !support_wait(has_gone, &a->stage->go, DEADLINE_MS))
        error = 1;
    for (uint64_t i = 0; i < a->stage->messages && error == 0; i++) {
        uint64_t dice = support_random();
        size_t size = sizeof (struct support_message) + (size_t)(dice % (dice >> 32 & 15 ? 150 : LARGEST - sizeof (struct support_message)));
        int rc;

        snprintf(topic, sizeof topic, "stress/%d/%d", a->number, (int)(dice >> 40 & 63));
        rc = publish_one(bus, topic, buffer, size, (uint64_t)a->number, i);
        if (rc < 1)
            error = rc < 0 ? rc : 2;
    }
    atomic_fetch_sub(&a->stage->publishing, 1);
    if (a->bus == NULL && bus != NULL && ps_close(bus) != 0 && error == 0)
        error = 3;
    free(buffer);
    return error;
}

static void *publisher_thread(void *arg)
{
    struct actor *a = arg;

    a->error = publish_all(a);
    return NULL;
}

static int publisher_process(void *arg)
{
    return publish_all(arg) == 0 ? 0 : 1;
}

/* ------------------------------------------------------------------ readers */

static void take(const ps_msg *msg, void *user)
{
    struct tally *t = user;
    struct support_message head;
    uint64_t key = t->shared_stream ? 1 : msg->publisher;
    int at = 0;

    t->delivered++;
    t->lost += msg->lost;
    if (support_verify(msg->data, msg->size, &head) != 0 || head.publisher >= PUBLISHERS) {
        t->damaged++;
        return;
    }
    if (head.number < t->next[head.publisher])
        t->repeated++;                          /* or out of order */
    else if (!t->lossy && head.number > t->next[head.publisher])
        t->missing++;
    t->next[head.publisher] = head.number + 1;
    t->from[head.publisher]++;
    while (at < t->streams && t->stream[at].key != key)
        at++;
    if (at == STREAMS) {
        t->gaps++;
        return;
    }
    if (at == t->streams)
        t->stream[t->streams++].key = key;
    else if (msg->sequence - t->stream[at].sequence - 1 != msg->lost)
        t->gaps++;
    t->stream[at].sequence = msg->sequence;
}

static int read_some(struct actor *a, ps_bus *bus)
{
    const ps_msg *msg;
    int rc;

    if (!a->pull)
        return ps_dispatch(bus, 1 + (int)(support_random() % 300), 20);
    rc = ps_next(bus, &msg, 20);
    if (rc > 0)
        take(msg, msg->user);
    return rc;
}

static int read_all(struct actor *a)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    char url[256];
    ps_bus *bus = NULL;
    int rc = ps_open(&bus, stress_url(a->stage, a->options, url, sizeof url));

    if (rc == 0)
        rc = ps_subscribe(bus, "stress/#", a->pull ? NULL : take, a->tally, NULL, NULL);
    atomic_fetch_add(&a->stage->ready, 1);
    while (rc >= 0) {
        int over = atomic_load(&a->stage->publishing) == 0;

        rc = read_some(a, bus);
        /* What was published before the last one finished is there now. */
        if (rc <= 0 && over)
            break;
        if (a->tally->lossy && rc > 0 && support_random() % 16 == 0)
            nanosleep(&(struct timespec){ 0, 300000 }, NULL);   /* slow now and then, or it would lose nothing */
    }
    if (rc == 0)
        rc = ps_stats(bus, &stats);
    a->tally->stats_lost = stats.lost;
    a->tally->error = rc;
    return ps_close(bus) == 0 && rc == 0 ? 0 : 1;
}

static void *reader_thread(void *arg)
{
    (void)read_all(arg);
    return NULL;
}

static int reader_process(void *arg)
{
    return read_all(arg);
}

/* Subscriptions that come and go: what it sees depends on chance, but is whole, in order and never seen twice. */
static void take_loosely(const ps_msg *msg, void *user)
{
    struct tally *t = user;
    struct support_message head;

    t->delivered++;
    if (support_verify(msg->data, msg->size, &head) != 0 || head.publisher >= PUBLISHERS)
        t->damaged++;
    else if (head.number < t->next[head.publisher])
        t->repeated++;
    else
        t->next[head.publisher] = head.number + 1;
    t->lost += msg->lost;
}

static void *churn_thread(void *arg)
{
    struct actor *a = arg;
    char url[256], filter[32];
    ps_bus *bus = NULL;
    int rc = 0;

    for (int i = 0; rc >= 0 && atomic_load(&a->stage->publishing) > 0; i++) {
        ps_sub *sub;

        if (i % 50 == 0) {
            if (bus != NULL && ps_close(bus) != 0)
                a->error = 1;
            rc = ps_open(&bus, stress_url(a->stage, a->options, url, sizeof url));
            if (rc < 0)
                break;
        }
        if (i % 3 == 0)
            snprintf(filter, sizeof filter, "stress/%d/#", i % PUBLISHERS);
        else
            snprintf(filter, sizeof filter, "stress/%d/%d", i % PUBLISHERS, (int)(support_random() & 63));
        rc = ps_subscribe(bus, filter, take_loosely, a->tally, NULL, &sub);
        for (int n = 0; n < 3 && rc >= 0; n++)
            rc = ps_dispatch(bus, 0, n == 2);
        if (rc >= 0)
            rc = ps_unsubscribe(sub);
    }
    if (rc < 0)
        a->error = rc;
    if (ps_close(bus) != 0)
        a->error = 2;
    return NULL;
}

/* ------------------------------------------------------------------ */

static void check_reader(const struct tally *t, uint64_t messages)
{
    uint64_t all = messages * PUBLISHERS;

    if (t->damaged || t->repeated || t->missing || t->gaps || t->error || t->delivered + t->lost != all || t->stats_lost != t->lost)
        fail_msg("%s reader: %llu of %llu, lost %llu (statistics: %llu), damaged %llu, repeated or out of order %llu, missing "
                 "%llu, lost does not fit the numbers %llu, error %d", t->lossy ? "lossy" : "reliable",
                 (unsigned long long)t->delivered, (unsigned long long)all, (unsigned long long)t->lost,
                 (unsigned long long)t->stats_lost, (unsigned long long)t->damaged, (unsigned long long)t->repeated,
                 (unsigned long long)t->missing, (unsigned long long)t->gaps, t->error);
    if (!t->lossy)
        assert_int_equal(t->lost, 0);
}

static void stage_init(struct stage *stage, struct tally *tallies, struct actor *readers, struct actor *publishers,
                       const char *scheme)
{
    static const char *const reader_options[READERS] = { "name=reliable", "lossy=1", "name=pull", "lossy=1" };

    stage->url = support_url(scheme, "stress", NULL);
    stage->messages = stress_messages();
    atomic_store(&stage->publishing, PUBLISHERS);
    memset(readers, 0, READERS * sizeof *readers);
    memset(publishers, 0, PUBLISHERS * sizeof *publishers);
    for (int i = 0; i < READERS; i++) {
        tallies[i].lossy = i % 2;
        tallies[i].shared_stream = strcmp(scheme, "inproc") == 0;
        readers[i].stage = stage;
        readers[i].options = reader_options[i];
        readers[i].pull = i / 2;
        readers[i].tally = &tallies[i];
    }
    for (int i = 0; i < PUBLISHERS; i++) {
        publishers[i].stage = stage;
        publishers[i].options = "block=60000&evict=-1";
        publishers[i].number = i;
    }
}

static int readers_ready(void *arg)
{
    return atomic_load((atomic_int *)arg) >= READERS;
}

/* Two threads publish through one handle, two have one each; four readers, and one that comes and goes. */
static void stress_threads(const char *scheme)
{
    struct tally tallies[READERS + 1];
    struct actor readers[READERS], publishers[PUBLISHERS], churn;
    struct stage stage;
    char url[256];
    ps_bus *shared;

    memset(tallies, 0, sizeof tallies);
    memset(&stage, 0, sizeof stage);
    memset(&churn, 0, sizeof churn);
    stage_init(&stage, tallies, readers, publishers, scheme);
    churn.stage = &stage;
    churn.options = "name=churn";
    churn.tally = &tallies[READERS];
    assert_ok(ps_open(&shared, stress_url(&stage, publishers[0].options, url, sizeof url)));
    publishers[0].bus = publishers[1].bus = shared;
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_thread, &readers[i]), 0);
    assert_true(support_wait(readers_ready, &stage.ready, DEADLINE_MS));
    for (int i = 0; i < PUBLISHERS; i++)
        assert_int_equal(pthread_create(&publishers[i].thread, NULL, publisher_thread, &publishers[i]), 0);
    assert_int_equal(pthread_create(&churn.thread, NULL, churn_thread, &churn), 0);
    atomic_store(&stage.go, 1);
    for (int i = 0; i < PUBLISHERS; i++)
        assert_int_equal(pthread_join(publishers[i].thread, NULL), 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
    assert_int_equal(pthread_join(churn.thread, NULL), 0);
    for (int i = 0; i < PUBLISHERS; i++)
        assert_int_equal(publishers[i].error, 0);
    for (int i = 0; i < READERS; i++)
        check_reader(&tallies[i], stage.messages);
    assert_int_equal(churn.error, 0);
    assert_int_equal(tallies[READERS].damaged, 0);
    assert_int_equal(tallies[READERS].repeated, 0);
    assert_int_equal(tallies[READERS].lost, 0);
    assert_true(tallies[READERS].delivered > 0);
    print_message("%s: lossy readers lost %llu and %llu of %llu\n", scheme, (unsigned long long)tallies[1].lost,
                  (unsigned long long)tallies[3].lost, (unsigned long long)stage.messages * PUBLISHERS);
    assert_int_equal(ps_close(shared), 0);
}

static void test_p5_threads_over_inproc_nothing_lost_or_told(void **state)
{
    (void)state;
    stress_threads("inproc");
}

static void test_p5_threads_over_shm_nothing_lost_or_told(void **state)
{
    (void)state;
    stress_threads("shm");
}

static void test_p5_processes_over_shm_nothing_lost_or_told(void **state)
{
    struct { struct stage stage; struct tally tallies[READERS]; } *shared = support_shared(sizeof *shared);
    struct actor readers[READERS], publishers[PUBLISHERS];
    pid_t children[READERS + PUBLISHERS];
    int codes[READERS + PUBLISHERS], ready;

    (void)state;
    stage_init(&shared->stage, shared->tallies, readers, publishers, "shm");
    for (int i = 0; i < READERS; i++)
        children[i] = support_child(reader_process, &readers[i]);
    ready = support_wait(readers_ready, &shared->stage.ready, DEADLINE_MS);
    for (int i = 0; i < PUBLISHERS; i++)
        children[READERS + i] = support_child(publisher_process, &publishers[i]);
    atomic_store(&shared->stage.go, 1);
    for (int i = READERS + PUBLISHERS - 1; i >= 0; i--)
        codes[i] = support_reap(children[i], 3 * DEADLINE_MS);
    assert_true(ready);
    for (int i = 0; i < READERS; i++)
        check_reader(&shared->tallies[i], shared->stage.messages);
    for (int i = 0; i < READERS + PUBLISHERS; i++)
        assert_int_equal(codes[i], 0);
    assert_int_not_equal(access(support_file(shared->stage.url), F_OK), 0);
}

static int watch(void **state)
{
    (void)state;
    alarm(HANG_S);
    return 0;
}

/* ------------------------------------------------------------------ more threads than have places of their own */

enum { MANY = 40, OF_EACH = 500 };

struct many {
    ps_bus    *bus;
    atomic_int failed, *go;
};

static void *publish_some(void *arg)
{
    struct many *many = arg;
    while (!atomic_load(many->go))
        sched_yield();
    for (int i = 0; i < OF_EACH; i++)
        if (ps_publish(many->bus, "t", &i, sizeof i) != 1)
            atomic_fetch_add(&many->failed, 1);
    return NULL;
}

/* On one handle, at once, and the second time by threads that find the places taken by those that ended. */
static void test_many_threads_on_one_inproc_handle_all_counted(void **state)
{
    (void)state;
    ps_bus *bus, *reader;
    atomic_int go = 0;
    int got = 0;
    const ps_msg *msg;
    pthread_t thread[MANY];
    assert_int_equal(ps_open(&bus, "inproc://many?depth=65536"), 0);
    assert_int_equal(ps_open(&reader, "inproc://many"), 0);
    assert_int_equal(ps_subscribe(reader, "t", NULL, NULL, NULL, NULL), 0);
    struct many many = { bus, 0, &go };
    for (int round = 1; round <= 2; round++) {
        atomic_store(&go, 0);
        for (int i = 0; i < MANY; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, publish_some, &many), 0);
        atomic_store(&go, 1);
        for (int i = 0; i < MANY; i++)
            pthread_join(thread[i], NULL);
        assert_int_equal(atomic_load(&many.failed), 0);
        while (ps_next(reader, &msg, 0) == 1)
            got++;
        assert_int_equal(got, round * MANY * OF_EACH);
        ps_bus_stats stats = PS_BUS_STATS_INIT;
        assert_int_equal(ps_stats(bus, &stats), 0);
        assert_int_equal(stats.published, round * MANY * OF_EACH);
    }
    assert_int_equal(ps_close(reader), 0);
    assert_int_equal(ps_close(bus), 0);
}

/* ------------------------------------------------------------------ a thread for each task */

enum { TASKS = 1500, AT_ONCE = 4 };

struct task {
    ps_bus    *bus;
    unsigned   count;
    atomic_int *failed;
};

static void *run_task(void *arg)
{
    struct task *task = arg;
    for (unsigned i = 0; i < task->count; i++)
        if (ps_publish(task->bus, "t", &i, sizeof i) != 1)
            atomic_fetch_add(task->failed, 1);
    return NULL;
}

/* Threads that live for some messages get the numbers of those that have ended, and all that these left: turns, counts, places. */
static void short_threads(const char *scheme)
{
    ps_bus *bus, *reader;
    const ps_msg *msg;
    atomic_int failed = 0;
    uint64_t sent = 0, got = 0;
    const char *url = support_url(scheme, "tasks", "depth=1024");
    assert_int_equal(ps_open(&bus, url), 0);
    assert_int_equal(ps_open(&reader, url), 0);
    assert_int_equal(ps_subscribe(reader, "t", NULL, NULL, NULL, NULL), 0);
    for (int round = 0; round < TASKS; round++) {
        struct task task[AT_ONCE];
        pthread_t thread[AT_ONCE];
        int threads = 1 + round % AT_ONCE, wrong = 0;
        for (int i = 0; i < threads; i++) {
            task[i] = (struct task){ bus, 1 + (unsigned)(support_random() % 40), &failed };
            sent += task[i].count;
            assert_int_equal(pthread_create(&thread[i], NULL, run_task, &task[i]), 0);
        }
        for (int i = 0; i < threads; i++)
            pthread_join(thread[i], NULL);
        while (ps_next(reader, &msg, 0) == 1)
            wrong += msg->sequence != got++ || msg->lost != 0;
        assert_int_equal(wrong, 0);
        assert_int_equal(got, sent);
    }
    assert_int_equal(atomic_load(&failed), 0);
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    assert_int_equal(ps_stats(bus, &stats), 0);
    assert_int_equal(stats.published, sent);
    assert_int_equal(ps_close(reader), 0);
    assert_int_equal(ps_close(bus), 0);
}

static void test_short_threads_over_inproc_nothing_lost(void **state)
{
    (void)state;
    short_threads("inproc");
}

static void test_short_threads_over_shm_nothing_lost(void **state)
{
    (void)state;
    short_threads("shm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_short_threads_over_inproc_nothing_lost, watch),
        cmocka_unit_test_setup(test_short_threads_over_shm_nothing_lost, watch),
        cmocka_unit_test_setup(test_many_threads_on_one_inproc_handle_all_counted, watch),
        cmocka_unit_test_setup(test_p5_threads_over_inproc_nothing_lost_or_told, watch),
        cmocka_unit_test_setup(test_p5_threads_over_shm_nothing_lost_or_told, watch),
        cmocka_unit_test_setup(test_p5_processes_over_shm_nothing_lost_or_told, watch),
    };

    return cmocka_run_group_tests_name("stress", tests, NULL, NULL);
}
