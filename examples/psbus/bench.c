/* SPDX-License-Identifier: MIT */
/*
 * bench.c - psbus bench: how fast is it here, in ten seconds.
 *
 * Two handles of one bus, in two processes (inproc: in two threads). The partner answers each message on one topic at once, and
 * of a stream on another topic only the last one; so all clocks are on one side. The bus must be empty: who measures on a bus
 * of others holds them up.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BENCH_PING   "psbus/bench/ping" /* answered at once */
#define BENCH_STREAM "psbus/bench/flow" /* answered when the first byte says so */
#define BENCH_PONG   "psbus/bench/pong"
#define BENCH_LATENCIES 1000000
#define BENCH_PATIENCE_S 5              /* for an answer */

struct bench {
    const char *url;                    /* with what we add to it */
    ps_bus     *bus;                    /* ours; it publishes */
    ps_bus     *ear;                    /* hears the answers: the same, or where all share one ring a lossy one, which does not
                                           hold our own publishes back */
    char       *ear_url;                /* of a lossy one; NULL: the same */
    pid_t       child;                  /* the partner: a process, or 0: */
    pthread_t   thread;
    pid_t       parent;
    int         partner_rc;             /* of a thread */
    double      part_s;                 /* for each measurement */
    uint64_t    message_max;
};

/* ------------------------------------------------------------------ the partner */

/* 0 when the bus says goodbye or we are to stop, or an error. */
static int partner_loop(ps_bus *bus, const struct bench *bench)
{
    const ps_msg *msg;
    int rc = ps_subscribe(bus, BENCH_PING, NULL, NULL, NULL, NULL);

    if (rc == 0)
        rc = ps_subscribe(bus, BENCH_STREAM, NULL, NULL, NULL, NULL);
    while (rc >= 0 && !tool_stopped()) {
        rc = ps_next(bus, &msg, 500);
        if (rc == 0 && bench->parent != 0 && getppid() != bench->parent)
            return 0;                   /* nobody is left to answer */
        if (rc <= 0)
            continue;
        char first = msg->size > 0 ? *(const char *)msg->data : 0;
        if (first == 'q')
            return 0;
        if (strcmp(msg->topic, BENCH_PING) == 0 || first == 'l')
            rc = ps_publish(bus, BENCH_PONG, msg->data, msg->size < 64 ? msg->size : 64);
    }
    return rc < 0 && !tool_stopped() ? rc : 0;
}

static void *partner_thread(void *arg)
{
    struct bench *bench = arg;
    ps_bus *bus;

    bench->partner_rc = ps_open(&bus, bench->url);
    if (bench->partner_rc < 0) {
        tool_fail(bench->partner_rc, "the partner");
        return NULL;
    }
    bench->partner_rc = partner_loop(bus, bench);
    if (bench->partner_rc < 0)
        tool_fail(bench->partner_rc, "the partner");
    ps_close(bus);
    return NULL;
}

/* A child is a member of its own, also of an anonymous bus; a backend that cannot do that is opened again. */
static int partner_process(struct bench *bench)
{
    ps_bus *bus = bench->bus;
    int rc = ps_after_fork(bus);

    if (rc == PS_ENOTSUP) {
        ps_close(bus);
        rc = ps_open(&bus, bench->url);
    }
    tool_stop_bus(rc < 0 ? NULL : bus);
    if (rc == 0)
        rc = partner_loop(bus, bench);
    if (rc < 0)
        tool_fail(rc, "the partner");
    tool_stop_bus(NULL);
    ps_close(bus);
    return rc < 0 ? TOOL_ERROR : TOOL_OK;
}

static int partner_start(struct bench *bench)
{
    int error;

    if (bench->ear_url != NULL) {       /* inproc */
        bench->child = 0;
        bench->parent = 0;
        error = pthread_create(&bench->thread, NULL, partner_thread, bench);
        if (error != 0)
            tool_say("a thread: %s", strerror(error));
        return error == 0 ? TOOL_OK : TOOL_ERROR;
    }
    bench->parent = getpid();
    fflush(NULL);
    bench->child = fork();
    if (bench->child == 0)
        _exit(partner_process(bench));
    if (bench->child < 0)
        tool_say("fork: %s", strerror(errno));
    return bench->child < 0 ? TOOL_ERROR : TOOL_OK;
}

static void partner_end(struct bench *bench)
{
    double deadline = tool_now() + 1;

    (void)ps_publish(bench->bus, BENCH_PING, "q", 1);
    if (bench->parent == 0) {
        pthread_join(bench->thread, NULL);
        return;
    }
    while (waitpid(bench->child, NULL, WNOHANG) == 0) {
        if (tool_now() > deadline)
            kill(bench->child, SIGKILL);
        poll(NULL, 0, 1);               /* not tool_wait(): after a signal that returns at once */
    }
}

/* ------------------------------------------------------------------ measuring */

static int publish(struct bench *bench, const char *topic, const void *data, size_t size)
{
    int rc;

    while ((rc = ps_publish(bench->bus, topic, data, size)) == PS_EAGAIN && !tool_stopped()) { }
    return rc < 0 && rc != PS_EAGAIN ? tool_fail(rc, "publishing %zu bytes", size) : TOOL_OK;
}

static int answer(struct bench *bench)
{
    double deadline = tool_now() + BENCH_PATIENCE_S;
    const ps_msg *msg;
    int rc;

    /* 0 is also what a stopped wait answers, or one for room. */
    while ((rc = ps_next(bench->ear, &msg, 100)) == 0 && !tool_stopped())
        if (tool_now() > deadline) {
            tool_say("the partner does not answer");
            return TOOL_ERROR;
        }
    return rc < 0 ? tool_fail(rc, "receiving") : TOOL_OK;
}

static int latency_order(const void *a, const void *b)
{
    float one = *(const float *)a, other = *(const float *)b;

    return one < other ? -1 : one > other;
}

/* There and back, halved; pause_ms before each, so that the partner sleeps. */
static int latency(struct bench *bench, const char *what, int pause_ms)
{
    float *all = malloc(BENCH_LATENCIES * sizeof *all);
    char data[64] = "p";
    size_t count = 0;
    int status = TOOL_OK;

    if (all == NULL) {
        tool_say("out of memory");
        return TOOL_ERROR;
    }
    double begin = tool_now();
    while (status == TOOL_OK && !tool_stopped() && count < BENCH_LATENCIES &&
           (count == 0 || tool_now() - begin < bench->part_s)) {
        if (pause_ms > 0)
            tool_wait(-1, pause_ms);
        double sent = tool_now();
        status = publish(bench, BENCH_PING, data, sizeof data);
        if (status == TOOL_OK)
            status = answer(bench);
        all[count++] = (float)((tool_now() - sent) / 2 * 1e6);
    }
    if (status == TOOL_OK && !tool_stopped()) {
        qsort(all, count, sizeof *all, latency_order);
        printf("%-36s %9.2f us, 99 %% within %.2f us\n", what, (double)all[count / 2], (double)all[count * 99 / 100]);
        fflush(stdout);
    }
    free(all);
    return status;
}

/* Messages a second, until the partner has read the last one. */
static int stream(struct bench *bench, size_t size)
{
    char *data = calloc(1, size), bytes[TOOL_TEXT], what[TOOL_TEXT];
    uint64_t count = 0;
    int status = TOOL_OK;

    if (data == NULL) {
        tool_say("out of memory");
        return TOOL_ERROR;
    }
    double begin = tool_now();
    while (status == TOOL_OK && !tool_stopped() && (count % 64 != 0 || tool_now() - begin < bench->part_s)) {
        status = publish(bench, BENCH_STREAM, data, size);
        count++;
    }
    data[0] = 'l';
    if (status == TOOL_OK && !tool_stopped())
        status = publish(bench, BENCH_STREAM, data, size);
    if (status == TOOL_OK && !tool_stopped())
        status = answer(bench);
    double seconds = tool_now() - begin;
    free(data);
    if (status != TOOL_OK || tool_stopped())
        return status;
    snprintf(what, sizeof what, "%zu bytes, as fast as it goes", size);
    printf("%-36s %9.0f messages/s, %s bytes/s\n", what, (double)(count + 1) / seconds,
           tool_bytes(bytes, (uint64_t)((double)(count + 1) * (double)size / seconds)));
    fflush(stdout);
    return TOOL_OK;
}

static int nobody(struct bench *bench)
{
    char data[64] = "";
    uint64_t count = 0;
    int status = TOOL_OK;

    double begin = tool_now();
    while (status == TOOL_OK && !tool_stopped() && (count % 1024 != 0 || tool_now() - begin < bench->part_s)) {
        status = publish(bench, "psbus/bench/nobody", data, sizeof data);
        count++;
    }
    if (status == TOOL_OK && !tool_stopped())
        printf("%-36s %9.1f ns each\n", "64 bytes that nobody wants", (tool_now() - begin) / (double)count * 1e9);
    return status;
}

/* ------------------------------------------------------------------ the command */

/* With handles of its own, so that `spin` is what it shall be: the first or the second half of the measurements. */
static int half(struct bench *bench, int spinning)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    int rc = ps_open(&bench->bus, bench->url), status;

    bench->ear = bench->bus;
    if (rc == 0 && bench->ear_url != NULL)
        rc = ps_open(&bench->ear, bench->ear_url);
    if (rc == 0 && (rc = ps_subscribe(bench->ear, BENCH_PONG, NULL, NULL, NULL, NULL)) == 0)
        rc = ps_stats(bench->bus, &stats);
    if (rc < 0) {
        status = tool_fail(rc, "%s", bench->url);
        if (bench->ear != bench->bus)
            ps_close(bench->ear);
        ps_close(bench->bus);
        return status;
    }
    bench->message_max = stats.message_max;
    status = partner_start(bench);
    if (status == TOOL_OK) {
        double deadline = tool_now() + BENCH_PATIENCE_S;
        tool_stop_bus(bench->ear);
        while ((rc = ps_wanted(bench->bus, BENCH_STREAM)) == 0 && !tool_stopped() && tool_now() < deadline)
            tool_wait(-1, 1);
        if (rc == 0 && !tool_stopped()) {
            tool_say("the partner does not come");
            status = TOOL_ERROR;
        }
        if (spinning) {
            if (status == TOOL_OK)
                status = latency(bench, "one way, 64 bytes, polling", 0);
        } else {
            if (status == TOOL_OK)
                status = latency(bench, "one way, 64 bytes, the reader asleep", 1);
            static const size_t sizes[] = { 64, 1024, 65536 };
            for (size_t i = 0; i < 3 && status == TOOL_OK && !tool_stopped(); i++)
                if (bench->message_max == 0 || sizes[i] <= bench->message_max)
                    status = stream(bench, sizes[i]);
            if (status == TOOL_OK && !tool_stopped())
                status = nobody(bench);
        }
        partner_end(bench);
        tool_stop_bus(NULL);
    }
    if (bench->ear != bench->bus)
        ps_close(bench->ear);
    if ((rc = ps_close(bench->bus)) < 0 && status == TOOL_OK)
        status = tool_fail(rc, "closing %s", bench->url);
    return status;
}

/* Nobody may be there: they would have to keep up with us. TOOL_OK also where a backend cannot tell. */
static int check_empty(const char *url)
{
    ps_member *members = NULL;
    ps_bus *bus;
    int rc = tool_observe(url, &bus), alive = 0;

    if (rc < 0)
        return TOOL_OK;                 /* not there yet; or opening it will say what is wrong */
    rc = tool_members(bus, NULL, &members);
    for (int i = 0; i < rc; i++)
        alive += (members[i].flags & (PS_MEMBER_DEAD | PS_MEMBER_SELF)) == 0;
    free(members);
    ps_close(bus);
    if (alive == 0)
        return TOOL_OK;
    tool_say("%s has %d members, whom this would hold up: take a name that is free, as shm://bench", url, alive);
    return TOOL_ERROR;
}

static int bench_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' }, { "seconds", required_argument, NULL, 's' }, { NULL, 0, NULL, 0 },
    };
    struct bench bench = { 0 };
    double seconds = 10;
    int c, status;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 's': if (!tool_real("seconds", optarg, &seconds)) return TOOL_USAGE; break;
        case 'h': return tool_help(&tool_bench);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 1)
        return tool_usage("a URL is needed");
    if (argc - optind > 1)
        return tool_usage("'%s' is one argument too many", argv[optind + 1]);
    if (tool_signals() != TOOL_OK)
        return TOOL_ERROR;
    if ((status = check_empty(argv[optind])) != TOOL_OK)
        return status;

    int threads = strncmp(argv[optind], "inproc:", 7) == 0;
    char *quiet = tool_url(argv[optind], "echo", "0"), *url = quiet ? tool_url(quiet, "block", "1000") : NULL;
    bench.part_s = seconds / 6;
    status = TOOL_ERROR;
    for (int polling = 0; polling < 2 && url != NULL; polling++) {
        char *whole = polling ? tool_url(url, "spin", "1000") : tool_url(url, "spin", "0");
        bench.url = whole;
        bench.ear_url = whole && threads ? tool_url(whole, "lossy", "1") : NULL;
        status = whole && (!threads || bench.ear_url) ? half(&bench, polling) : TOOL_ERROR;
        free(bench.ear_url);
        free(whole);
        if (status != TOOL_OK || tool_stopped())
            break;
    }
    free(url);
    free(quiet);
    return tool_output(status);
}

const struct tool_command tool_bench = {
    "bench", "[--seconds N] URL", "how fast is it here, in ten seconds",
    "  --seconds N        in N seconds instead\n"
    "  --help             this text\n"
    "\n"
    "Two processes (inproc: two threads) on a bus of their own, which must be empty: time from one to the other when the\n"
    "reader sleeps and when both poll, messages a second by size, and what a message costs that nobody wants. Options in the\n"
    "URL count: depth=, bytes=, spin= and so on. Numbers depend on which processors the two get: run it more than once.\n",
    bench_main,
};
