/* SPDX-License-Identifier: MIT */
/* sub.c - psbus sub: print what arrives, and say what did not. */
#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sub {
    int      raw, whole;
    uint64_t count, seen, bytes;
    uint64_t publisher, sequence;       /* of the message seen last */
    uint64_t lost, told;                /* messages lost, and those of them that were spoken of */
    double   told_at;
};

/* The URL, with lossy=1 unless it says something about that: somebody who watches must not hold others up. NULL: no memory. */
static char *sub_url(const char *url)
{
    const char *query = strchr(url, '?'), *option = query;
    size_t size = strlen(url) + sizeof "&lossy=1";
    char *text = malloc(size);

    if (text == NULL)
        return NULL;
    for (; option != NULL; option = strchr(option + 1, '&'))
        if (strncmp(option + 1, "lossy=", 6) == 0)
            break;
    snprintf(text, size, "%s%s", url, option != NULL ? "" : query == NULL ? "?lossy=1" : "&lossy=1");
    return text;
}

/* Tells of losses, at most once a second unless it is the end: under load there may be thousands. */
static void sub_tell_lost(struct sub *sub, int end)
{
    double now = tool_now();

    if (sub->lost > sub->told && (end || now - sub->told_at >= 1)) {
        tool_say("lost %llu messages, of whatever topic", (unsigned long long)(sub->lost - sub->told));
        sub->told = sub->lost;
        sub->told_at = now;
    }
}

/* 0, or -1 when standard output does not take it. */
static int sub_print(const struct sub *sub, const ps_msg *msg)
{
    if (!sub->raw && !sub->whole) {
        fwrite(msg->topic, 1, msg->topic_len, stdout);
        putc('\t', stdout);
    }
    if (msg->size > 0)
        fwrite(msg->data, 1, msg->size, stdout);
    if (!sub->whole)
        putc('\n', stdout);
    return ferror(stdout) ? -1 : 0;
}

/* Has whoever reads our output gone? Otherwise that would show only when there is something to write. */
static int sub_output_gone(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO };

    return poll(&out, 1, 0) > 0 && (out.revents & (POLLERR | POLLNVAL)) != 0;
}

static int sub_output_failed(int error)
{
    tool_say("standard output: %s", strerror(error));
    return TOOL_ERROR;
}

/* A message that matches two filters is delivered twice; it is printed once. */
static int sub_again(struct sub *sub, const ps_msg *msg)
{
    int again = msg->publisher != 0 && msg->publisher == sub->publisher && msg->sequence == sub->sequence;

    sub->publisher = msg->publisher;
    sub->sequence = msg->sequence;
    return again;
}

static int sub_loop(struct sub *sub, ps_bus *bus, double deadline)
{
    while (!tool_stopped() && (sub->count == 0 || sub->seen < sub->count)) {
        double left = deadline > 0 ? deadline - tool_now() : 1;
        const ps_msg *msg;

        if (left <= 0)
            return sub->count > 0 ? TOOL_TIMEOUT : TOOL_OK;
        int rc = ps_next(bus, &msg, 0);
        if (rc == 0) {
            /* Nothing more for now: what was printed goes out, then we wait, and look at our output now and then. */
            if (fflush(stdout) != 0)
                return sub_output_failed(errno);
            sub_tell_lost(sub, 0);
            rc = ps_next(bus, &msg, left > 0.25 ? 250 : (int)(left * 1000) + 1);
            if (rc == 0 && sub_output_gone())
                return sub_output_failed(EPIPE);
        }
        if (rc < 0)
            return tool_fail(rc, "receiving");
        if (rc == 0 || sub_again(sub, msg))
            continue;
        if (msg->lost > 0) {
            sub->lost += msg->lost;
            sub_tell_lost(sub, 0);
        }
        sub->seen++;
        sub->bytes += msg->size;
        if (sub_print(sub, msg) < 0)
            return sub_output_failed(errno);
    }
    return TOOL_OK;
}

static int sub_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "count", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
        { "raw", no_argument, NULL, 'r' },         { "stats", no_argument, NULL, 's' },
        { "timeout", required_argument, NULL, 't' }, { "whole", no_argument, NULL, 'f' },
        { NULL, 0, NULL, 0 },
    };
    static struct sub sub;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    double timeout = 0;
    int show = 0, c, rc;
    ps_bus *bus;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 'n': if (!tool_count("count", optarg, &sub.count)) return TOOL_USAGE; break;
        case 't': if (!tool_real("timeout", optarg, &timeout)) return TOOL_USAGE; break;
        case 'r': sub.raw = 1; break;
        case 'f': sub.whole = 1; break;
        case 's': show = 1; break;
        case 'h': return tool_help(&tool_sub);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 2)
        return tool_usage("a URL and at least one filter are needed");
    if (tool_signals() != TOOL_OK)
        return TOOL_ERROR;

    char *url = sub_url(argv[optind]);
    if (url == NULL) {
        tool_say("out of memory");
        return TOOL_ERROR;
    }
    if ((rc = ps_open(&bus, url)) < 0) {
        free(url);
        return tool_fail(rc, "%s", argv[optind]);
    }
    free(url);
    tool_stop_bus(bus);

    int status = TOOL_OK;
    double started = tool_now();
    for (int i = optind + 1; i < argc && status == TOOL_OK; i++)
        if ((rc = ps_subscribe(bus, argv[i], NULL, NULL, NULL, NULL)) < 0)
            status = tool_fail(rc, "filter '%s'", argv[i]);
    if (status == TOOL_OK)
        status = sub_loop(&sub, bus, timeout > 0 ? started + timeout : 0);
    if (fflush(stdout) != 0 && status != TOOL_ERROR)
        status = sub_output_failed(errno);

    /* The statistics also know what no later message could tell. */
    if ((rc = ps_stats(bus, &stats)) < 0)
        status = tool_fail(rc, "statistics");
    else if (stats.lost > sub.lost)
        sub.lost = stats.lost;
    sub_tell_lost(&sub, 1);
    if (status == TOOL_TIMEOUT)
        tool_say("the time is over after %llu of %llu messages", (unsigned long long)sub.seen, (unsigned long long)sub.count);
    if (show) {
        double seconds = tool_now() - started;
        tool_say("%llu messages, %llu bytes, %.3f s, %.0f/s; lost %llu, stepped over %llu that were not asked for",
                 (unsigned long long)sub.seen, (unsigned long long)sub.bytes, seconds,
                 seconds > 0 ? (double)sub.seen / seconds : 0.0, (unsigned long long)sub.lost,
                 (unsigned long long)stats.unwanted);
    }
    tool_stop_bus(NULL);
    if ((rc = ps_close(bus)) < 0)
        status = tool_fail(rc, "closing");
    return status;
}

const struct tool_command tool_sub = {
    "sub", "[OPTIONS] URL FILTER...", "print what is published, TOPIC<TAB>PAYLOAD a line",
    "  --raw              only the payload, a line\n"
    "  --whole            only the payload's bytes, nothing between messages: what `pub --whole` sent\n"
    "  --count N          stop after N messages\n"
    "  --timeout SECONDS  stop then: exit status 3 if --count was not reached\n"
    "  --stats            say at the end, on stderr, what arrived\n"
    "\n"
    "In a filter '+' stands for one level and '#' for the rest; quote them. sub never holds publishers back, and says how\n"
    "many messages it lost; lossy=0 in the URL makes it reliable. A message that matches two filters is printed once.\n",
    sub_main,
};
