/* SPDX-License-Identifier: MIT */
/* pub.c - psbus pub: lines, or a whole file, become messages. Nothing is left out without a word. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PUB_CHUNK 65536
#define PUB_LIMIT ((size_t)1 << 30)     /* where the bus names no largest message */

/* ------------------------------------------------------------------ the input: lines or the whole */

struct input {
    int         fd;
    const char *name;
    char       *buffer;
    size_t      capacity, begin, end;   /* what was read and not yet handed out is [begin, end) */
    size_t      limit;                  /* the longest message; never much more than that is kept in memory */
    int         ended;
    int         error;                  /* errno of a failed read, or ENOMEM */
    double      deadline;               /* for waiting; 0: none */
};

static int over(double deadline)
{
    return tool_stopped() || (deadline > 0 && tool_now() >= deadline);
}

/* For poll(2): milliseconds until a moment (0: there is none), at most max (-1: no bound). */
static int left_ms(double moment, int max)
{
    double left;

    if (moment <= 0)
        return max;
    left = (moment - tool_now()) * 1e3 + 1;
    if (left < 0)
        left = 0;
    if (left > 1e9)
        left = 1e9;
    return max >= 0 && left > max ? max : (int)left;
}

/* Reads more behind [begin, end): 1, or 0 when the input has ended, failed, or we are to stop. */
static int input_fill(struct input *in)
{
    if (in->ended || in->error != 0)
        return 0;
    if (in->begin > 0) {
        memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    if (in->capacity - in->end < PUB_CHUNK) {
        size_t capacity = in->capacity * 2 + PUB_CHUNK;
        char *buffer = realloc(in->buffer, capacity);
        if (buffer == NULL) {
            in->error = ENOMEM;
            return 0;
        }
        in->buffer = buffer;
        in->capacity = capacity;
    }
    while (!over(in->deadline)) {
        if (!tool_wait(in->fd, left_ms(in->deadline, -1)))
            continue;
        ssize_t got = read(in->fd, in->buffer + in->end, PUB_CHUNK);
        if (got > 0) {
            in->end += (size_t)got;
            return 1;
        }
        if (got == 0)
            in->ended = 1;
        else if (errno == EINTR || errno == EAGAIN)
            continue;
        else
            in->error = errno;
        return 0;
    }
    return 0;
}

/*
 * The next line without its newline; 0 at the end. Of a line that is longer than the limit only the length is known: *data
 * is NULL.
 */
static int input_line(struct input *in, const char **data, size_t *size)
{
    size_t searched = 0, skipped = 0;

    for (;;) {
        char *start = in->buffer ? in->buffer + in->begin : NULL;
        size_t have = in->end - in->begin;
        char *newline = have > searched ? memchr(start + searched, '\n', have - searched) : NULL;

        /* The rest counts as a line only at the true end: after a signal or an error it may be half of one. */
        if (newline != NULL || (in->ended && have + skipped > 0)) {
            size_t length = newline ? (size_t)(newline - start) : have;
            *size = skipped + length;
            *data = *size > in->limit ? NULL : start;
            in->begin += length + (newline != NULL);
            return 1;
        }
        searched = have;
        if (skipped + have > in->limit) {
            skipped += have;
            in->begin = in->end;
            searched = 0;
        }
        if (!input_fill(in) && !in->ended)
            return 0;
        if (in->ended && in->end == in->begin && skipped == 0)
            return 0;
    }
}

/* Everything; 0 if that failed. More than the limit: *data is NULL. */
static int input_whole(struct input *in, const char **data, size_t *size)
{
    while (in->end <= in->limit && input_fill(in)) { }
    if (in->end <= in->limit && !in->ended)
        return 0;
    *size = in->end;
    *data = in->end > in->limit ? NULL : in->buffer ? in->buffer : "";
    return 1;
}

/* ------------------------------------------------------------------ sending */

struct pub {
    ps_bus     *bus;
    const char *topic;
    int         fd;                     /* of the bus, once the ring was full; -1: none */
    int         fd_asked;
    double      started, deadline, rate;
    uint64_t    count, handled;         /* messages to send (0: all); lines come to so far */
    uint64_t    sent, bytes, nobody, waits;
};

/* Publishes, and waits as long as the ring is full. PS_EAGAIN: stopped, or the time is over; it was not sent. */
static int pub_publish(struct pub *pub, const void *data, size_t size)
{
    int rc;

    while ((rc = ps_publish(pub->bus, pub->topic, data, size)) == PS_EAGAIN) {
        if (over(pub->deadline))
            return PS_EAGAIN;
        if (!pub->fd_asked) {
            pub->fd_asked = 1;
            pub->fd = ps_fd(pub->bus);          /* a backend may have none: then we look again every few ms */
        }
        pub->waits++;
        /* The bound: whether a reader is stuck is found out by those who try to publish. */
        tool_wait(pub->fd < 0 ? -1 : pub->fd, left_ms(pub->deadline, pub->fd < 0 ? 5 : 50));
        int dispatched = ps_dispatch(pub->bus, 0, 0);
        if (dispatched < 0)
            return dispatched;
    }
    if (rc >= 0) {
        pub->sent++;
        pub->bytes += size;
        pub->nobody += rc == 0;
    }
    return rc;
}

/* --rate: until the next message is due; 0: stopped, or the time is over. */
static int pub_pace(struct pub *pub)
{
    double due = pub->rate > 0 ? pub->started + (double)pub->sent / pub->rate : 0;

    while (!over(pub->deadline)) {
        if (tool_now() >= due)
            return 1;
        tool_wait(-1, left_ms(pub->deadline > 0 && pub->deadline < due ? pub->deadline : due, -1));
    }
    return 0;
}

/* The end of a run that was cut short. */
static int pub_cut(const struct pub *pub, const char *what)
{
    if (tool_stopped()) {
        tool_say("stopped; %s not sent", what);
        return TOOL_OK;
    }
    if (pub->deadline > 0 && tool_now() >= pub->deadline) {
        tool_say("the time is over; %s not sent", what);
        return TOOL_TIMEOUT;
    }
    return TOOL_ERROR;
}

static int pub_lines(struct pub *pub, struct input *in, int keep_going)
{
    const char *data;
    size_t size;
    char what[64];
    int status = TOOL_OK;

    while (pub->count == 0 || pub->sent < pub->count) {
        if (!input_line(in, &data, &size)) {
            if (in->error != 0) {
                tool_say("%s: %s", in->name, strerror(in->error));
                return TOOL_ERROR;
            }
            /* Ctrl-C is how an endless input ends; half a line that was being typed is not worth a word. */
            return in->ended || tool_stopped() ? status : pub_cut(pub, "the rest was");
        }
        snprintf(what, sizeof what, "line %llu and what follows were", (unsigned long long)pub->handled + 1);
        if (!pub_pace(pub))
            return pub_cut(pub, what);
        pub->handled++;

        int rc = data ? pub_publish(pub, data, size) : PS_EMSGSIZE;
        if (rc == PS_EAGAIN)
            return pub_cut(pub, what);
        if (rc == PS_EMSGSIZE) {
            tool_say("%s: line %llu has %zu bytes, the bus takes %zu: not sent", in->name,
                     (unsigned long long)pub->handled, size, in->limit);
            status = TOOL_ERROR;
            if (!keep_going)
                return status;
        } else if (rc < 0) {
            return tool_fail(rc, "%s: line %llu", in->name, (unsigned long long)pub->handled);
        }
    }
    return status;
}

static int pub_whole(struct pub *pub, struct input *in)
{
    const char *data;
    size_t size;

    if (!input_whole(in, &data, &size)) {
        if (in->error == 0)
            return pub_cut(pub, "it was");
        tool_say("%s: %s", in->name, strerror(in->error));
        return TOOL_ERROR;
    }
    if (data == NULL) {
        tool_say("%s: more than the %zu bytes that the bus takes: not sent", in->name, in->limit);
        return TOOL_ERROR;
    }
    while (pub->sent < (pub->count ? pub->count : 1)) {
        int rc = pub_pace(pub) ? pub_publish(pub, data, size) : PS_EAGAIN;
        if (rc == PS_EAGAIN)
            return pub_cut(pub, pub->sent ? "the rest was" : "it was");
        if (rc < 0)
            return tool_fail(rc, "%s: %zu bytes", in->name, size);
    }
    return TOOL_OK;
}

/* --wait: until somebody wants the topic. */
static int pub_wait(struct pub *pub)
{
    int rc;

    while ((rc = ps_wanted(pub->bus, pub->topic)) == 0) {
        if (over(pub->deadline))
            return pub_cut(pub, "nobody came, and it was");
        tool_wait(-1, left_ms(pub->deadline, 10));
    }
    return rc < 0 ? tool_fail(rc, "--wait %s", pub->topic) : TOOL_OK;
}

/* ------------------------------------------------------------------ the command */

static int pub_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "count", required_argument, NULL, 'n' },   { "help", no_argument, NULL, 'h' },
        { "keep-going", no_argument, NULL, 'k' },    { "rate", required_argument, NULL, 'r' },
        { "stats", no_argument, NULL, 's' },         { "timeout", required_argument, NULL, 't' },
        { "wait", no_argument, NULL, 'w' },          { "whole", no_argument, NULL, 'f' },
        { NULL, 0, NULL, 0 },
    };
    struct pub pub = { .fd = -1 };
    struct input in = { .fd = STDIN_FILENO, .name = "standard input" };
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    double timeout = 0;
    int whole = 0, keep_going = 0, wait = 0, show = 0, c, rc;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 'n': if (!tool_count("count", optarg, &pub.count)) return TOOL_USAGE; break;
        case 'r': if (!tool_real("rate", optarg, &pub.rate)) return TOOL_USAGE; break;
        case 't': if (!tool_real("timeout", optarg, &timeout)) return TOOL_USAGE; break;
        case 'k': keep_going = 1; break;
        case 's': show = 1; break;
        case 'w': wait = 1; break;
        case 'f': whole = 1; break;
        case 'h': return tool_help(&tool_pub);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 2)
        return tool_usage("a URL and a topic are needed");
    if (argc - optind > 3)
        return tool_usage("'%s' is one argument too many", argv[optind + 3]);
    pub.topic = argv[optind + 1];

    if (tool_signals() != TOOL_OK)
        return TOOL_ERROR;
    if (argc - optind == 3 && strcmp(argv[optind + 2], "-") != 0) {
        in.name = argv[optind + 2];
        /* A FIFO without a writer: we wait where a signal and --timeout count, not inside open(). */
        in.fd = open(in.name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (in.fd < 0) {
            tool_say("%s: %s", in.name, strerror(errno));
            return TOOL_ERROR;
        }
    }
    if ((rc = ps_open(&pub.bus, argv[optind])) < 0)
        return tool_fail(rc, "%s", argv[optind]);
    tool_stop_bus(pub.bus);

    int status = TOOL_OK;
    if ((rc = ps_stats(pub.bus, &stats)) < 0)
        status = tool_fail(rc, "%s", argv[optind]);
    else if ((rc = ps_wanted(pub.bus, pub.topic)) < 0 && rc != PS_ENOTSUP)     /* an illegal topic, before any input */
        status = tool_fail(rc, "topic '%s'", pub.topic);
    in.limit = stats.message_max > 0 && stats.message_max < PUB_LIMIT ? (size_t)stats.message_max : PUB_LIMIT;
    pub.started = tool_now();
    pub.deadline = in.deadline = timeout > 0 ? pub.started + timeout : 0;
    if (status == TOOL_OK && wait) {
        status = pub_wait(&pub);
        pub.started = tool_now();
    }
    if (status == TOOL_OK && !tool_stopped())
        status = whole ? pub_whole(&pub, &in) : pub_lines(&pub, &in, keep_going);

    if (show) {
        double seconds = tool_now() - pub.started;
        tool_say("%llu messages, %llu bytes, %.3f s, %.0f/s; %llu wanted by nobody, waited %llu times for room",
                 (unsigned long long)pub.sent, (unsigned long long)pub.bytes, seconds,
                 seconds > 0 ? (double)pub.sent / seconds : 0.0, (unsigned long long)pub.nobody,
                 (unsigned long long)pub.waits);
    }
    free(in.buffer);
    tool_stop_bus(NULL);
    if ((rc = ps_close(pub.bus)) < 0)
        status = tool_fail(rc, "closing %s", argv[optind]);
    return status;
}

const struct tool_command tool_pub = {
    "pub", "[OPTIONS] URL TOPIC [FILE]", "each line of FILE, or of standard input, is a message",
    "  --whole            the file is one message; with --count it is sent so many times\n"
    "  --count N          stop after N messages that were sent\n"
    "  --rate N           N messages a second\n"
    "  --wait             begin when somebody wants the topic\n"
    "  --timeout SECONDS  give up then: exit status 3 if something was not sent\n"
    "  --keep-going       go on after a message that is larger than the bus allows; the exit status is 1 all the same\n"
    "  --stats            say at the end, on stderr, what was sent\n"
    "  --help             this text\n"
    "\n"
    "When a subscriber is behind, pub waits until there is room: nothing is left out. A newline is not part of its message,\n"
    "a last line without one is a message too.\n",
    pub_main,
};
