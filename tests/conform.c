/* SPDX-License-Identifier: MIT */
/*
 * conform.c - runs the conformance suite over one backend; what its areas share.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "conform.h"

#include <sys/syscall.h>

#define CONFORM_TEXT    1024
#define CONFORM_HANDLES 300
#define CONFORM_HANG_S  100             /* a test that takes so long hangs: end the program, its name is the last line */

const struct conform_backend *conform_backend;

static struct {
    char    url[CONFORM_TEXT];          /* of this test's bus, without options */
    int     others;                     /* highest number of conform_other_url() */
    ps_bus *open[CONFORM_HANDLES];
    int     descriptors;                /* before the test */
    int     finished;                   /* it came to its end */
} conform_test_now;

/* ------------------------------------------------------------------ handles */

const char *conform_other_url(int n, const char *options)
{
    static char text[16][CONFORM_TEXT + 512];
    static atomic_uint calls;
    char *url = text[atomic_fetch_add(&calls, 1u) % 16];
    const char *base = conform_backend->options;
    int has_base = base != NULL && base[0] != '\0', has_more = options != NULL && options[0] != '\0';
    char number[16] = "";

    if (n > conform_test_now.others)
        conform_test_now.others = n;
    if (n > 0)
        snprintf(number, sizeof number, "-%d", n);
    snprintf(url, sizeof text[0], "%s%s%s%s%s%s", conform_test_now.url, number, has_base || has_more ? "?" : "",
             has_base ? base : "", has_base && has_more ? "&" : "", has_more ? options : "");
    return url;
}

const char *conform_url(const char *options)
{
    return conform_other_url(0, options);
}

ps_bus *conform_open_url(const char *url)
{
    ps_bus *bus = NULL;
    int at = 0;

    assert_ok(ps_open(&bus, url));
    assert_non_null(bus);
    while (at < CONFORM_HANDLES && conform_test_now.open[at] != NULL)
        at++;
    assert_true(at < CONFORM_HANDLES);
    conform_test_now.open[at] = bus;
    return bus;
}

ps_bus *conform_open(const char *options)
{
    return conform_open_url(conform_url(options));
}

void conform_forget(ps_bus *bus)
{
    for (int at = 0; at < CONFORM_HANDLES; at++)
        if (conform_test_now.open[at] == bus)
            conform_test_now.open[at] = NULL;
}

void conform_close(ps_bus *bus)
{
    conform_forget(bus);
    assert_int_equal(ps_close(bus), 0);
}

int conform_setup(void **state)
{
    char stem[CONFORM_TEXT / 4];

    (void)state;
    memset(&conform_test_now, 0, sizeof conform_test_now);
    snprintf(stem, sizeof stem, "%sconform", conform_backend->base == NULL ? "" : conform_backend->base);
    snprintf(conform_test_now.url, sizeof conform_test_now.url, "%s", support_url(conform_backend->scheme, stem, NULL));
    conform_test_now.descriptors = support_fd_count();
    alarm(CONFORM_HANG_S);
    return 0;
}

/* What was opened is gone without a trace: descriptors here, and the bus itself for whoever asks for it. */
int conform_teardown(void **state)
{
    (void)state;
    alarm(0);
    for (int at = 0; at < CONFORM_HANDLES; at++)
        if (conform_test_now.open[at] != NULL) {
            if (!conform_test_now.finished)
                return 0;               /* it failed, and has said so */
            print_error("the test leaves a handle open\n");
            return -1;
        }
    if (support_fd_count() != conform_test_now.descriptors) {
        print_error("descriptors: %d before the test, %d after it\n", conform_test_now.descriptors, support_fd_count());
        return -1;
    }
    for (int n = 0; n <= conform_test_now.others; n++) {
        ps_bus *bus = NULL;
        int rc = ps_open(&bus, conform_other_url(n, "create=0"));

        if (rc != PS_ENOENT) {
            print_error("the bus outlives its last handle: %s\n", ps_strerror(rc));
            (void)ps_close(bus);
            return -1;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ messages */

int conform_good(const ps_msg *msg)
{
    return msg != NULL && msg->topic != NULL && msg->topic_len > 0 && msg->topic_len <= PS_TOPIC_MAX &&
           strlen(msg->topic) == msg->topic_len && msg->data != NULL && (uintptr_t)msg->data % 16 == 0 &&
           msg->sub != NULL && msg->publisher != 0;
}

void conform_record(const ps_msg *msg, void *user)
{
    struct conform_log *log = user;
    int at = atomic_load(&log->count);

    log->lost += msg->lost;
    if (!conform_good(msg) || msg->user != user) {
        log->bad++;
    } else if (at < CONFORM_SEEN) {
        struct conform_seen *seen = &log->seen[at];

        snprintf(seen->topic, sizeof seen->topic, "%s", msg->topic);
        seen->size = msg->size;
        seen->sequence = msg->sequence;
        seen->lost = msg->lost;
        seen->publisher = msg->publisher;
        seen->sub = msg->sub;
        memcpy(seen->head, msg->data, msg->size < sizeof seen->head ? msg->size : sizeof seen->head);
    }
    atomic_fetch_add(&log->count, 1);
}

ps_sub *conform_subscribe(ps_bus *bus, const char *filter, struct conform_log *log)
{
    ps_sub *sub = NULL;

    assert_ok(ps_subscribe(bus, filter, log == NULL ? NULL : conform_record, log, NULL, &sub));
    assert_non_null(sub);
    return sub;
}

void conform_say(ps_bus *bus, const char *topic, const char *text)
{
    int rc = ps_publish(bus, topic, text, strlen(text) + 1);

    assert_ok(rc);
    assert_true(rc >= 1);
}

int conform_fill(ps_bus *bus, const char *topic, uint64_t from, int limit)
{
    int taken = 0;

    while (taken < limit) {
        uint64_t number = from + (uint64_t)taken;
        int rc = ps_publish(bus, topic, &number, sizeof number);

        if (rc == PS_EAGAIN)
            break;
        assert_ok(rc);
        taken++;
    }
    return taken;
}

int conform_drain(ps_bus *bus)
{
    int sum = 0, rc;

    while ((rc = ps_dispatch(bus, 0, 0)) > 0)
        sum += rc;
    assert_ok(rc);
    return sum;
}

ps_bus_stats conform_stats(ps_bus *bus)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;

    assert_ok(ps_stats(bus, &stats));
    return stats;
}

/* ------------------------------------------------------------------ waiting, threads */

int conform_readable(int fd, int timeout_ms)
{
    struct pollfd p = { fd, POLLIN, 0 };
    int rc;

    do
        rc = poll(&p, 1, timeout_ms);
    while (rc < 0 && errno == EINTR);
    return rc == 1 && (p.revents & POLLIN) != 0;
}

struct conform_least {
    atomic_int *count;
    ps_bus     *bus;
    int         least;
};

static int conform_check_count(void *arg)
{
    struct conform_least *l = arg;

    return atomic_load(l->count) >= l->least;
}

int conform_reached(atomic_int *count, int least)
{
    struct conform_least l = { count, NULL, least };

    return support_wait(conform_check_count, &l, DEADLINE_MS);
}

int conform_thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

/* "PID (NAME) STATE …"; the names of our programs have no brackets. */
static int conform_check_blocked(void *arg)
{
    int id = atomic_load((atomic_int *)arg);
    char path[64], stat[256] = "";

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", id);
    FILE *file = id == 0 ? NULL : fopen(path, "re");
    if (file == NULL)
        return 0;
    size_t length = fread(stat, 1, sizeof stat - 1, file);
    fclose(file);
    stat[length] = '\0';
    const char *state = strstr(stat, ") ");
    return state != NULL && state[2] == 'S';
}

int conform_blocked(atomic_int *id)
{
    return support_wait(conform_check_blocked, id, DEADLINE_MS);
}

static int conform_check_asleep(void *arg)
{
    struct conform_least *l = arg;
    ps_member members[16];
    int n, asleep = 0;

    members[0].size = sizeof members[0];
    n = ps_members(l->bus, NULL, members, 16);
    for (int i = 0; i < n && i < 16; i++)
        asleep += (members[i].flags & PS_MEMBER_ASLEEP) != 0;
    return asleep >= l->least;
}

int conform_asleep(ps_bus *bus, int least)
{
    struct conform_least l = { NULL, bus, least };

    return (conform_backend->can & PS_CAN_MEMBERS) == 0 || support_wait(conform_check_asleep, &l, DEADLINE_MS);
}

void conform_pause_ms(long ms)
{
    struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&pause, NULL);
}

void conform_start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    assert_int_equal(pthread_create(thread, NULL, body, arg), 0);
}

void conform_join(pthread_t thread)
{
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void *conform_dispatch_body(void *arg)
{
    struct conform_dispatcher *d = arg;

    d->answer = ps_dispatch(d->bus, d->max, d->timeout_ms);
    atomic_store(&d->done, 1);
    return NULL;
}

void conform_dispatch_start(struct conform_dispatcher *d, ps_bus *bus, int max, int timeout_ms)
{
    d->bus = bus;
    d->max = max;
    d->timeout_ms = timeout_ms;
    atomic_store(&d->done, 0);
    conform_start(&d->thread, conform_dispatch_body, d);
}

int conform_dispatch_join(struct conform_dispatcher *d)
{
    conform_join(d->thread);
    return d->answer;
}

/* ------------------------------------------------------------------ the runner */

/* The test itself, whose function is the state that it begins with: so teardown knows whether it came to its end. */
static void conform_body(void **state)
{
    const CMUnitTestFunction *test = *state;
    void *none = NULL;

    (*test)(&none);
    conform_test_now.finished = 1;
}

int conform_run(const struct conform_backend *backend)
{
    const struct conform_area *areas[] = {
        &conform_open_area, &conform_publish_area, &conform_subscribe_area, &conform_barrier_area, &conform_dispatch_area,
        &conform_stop_area, &conform_descriptor_area, &conform_full_area, &conform_evict_area, &conform_patience_area,
        &conform_borrow_area, &conform_loan_area, &conform_inspect_area, &conform_members_area, &conform_life_area,
        &conform_close_area,
    };
    static CMUnitTestFunction functions[256];
    struct CMUnitTest tests[256];
    size_t count = 0;

    conform_backend = backend;
    for (size_t i = 0; i < sizeof areas / sizeof areas[0]; i++) {
        if (count + areas[i]->count > sizeof tests / sizeof tests[0])
            abort();
        memcpy(tests + count, areas[i]->tests, areas[i]->count * sizeof tests[0]);
        count += areas[i]->count;
    }
    for (size_t i = 0; i < count; i++) {
        functions[i] = tests[i].test_func;
        tests[i].test_func = conform_body;
        tests[i].initial_state = &functions[i];
    }
    /* The function behind cmocka_run_group_tests_name(), which takes only arrays. */
    return _cmocka_run_group_tests(backend->scheme, tests, count, NULL, NULL);
}
