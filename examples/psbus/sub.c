/* SPDX-License-Identifier: MIT */
/* sub.c - psbus sub: print what arrives, and say what did not. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

struct sub {
    int      raw, whole, json;
    uint64_t count, seen, bytes;
    struct tool_last last;
    uint64_t lost, told;                /* messages lost, and those of them that were spoken of */
    double   told_at;
};

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
    if (sub->json) {
        tool_json(msg);
        return ferror(stdout) ? -1 : 0;
    }
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
                return TOOL_OK;         /* the end of the command has the words for it */
            sub_tell_lost(sub, 0);
            rc = ps_next(bus, &msg, left > 0.25 ? 250 : (int)(left * 1000) + 1);
            if (rc == 0 && tool_output_gone())
                return TOOL_OK;
        }
        if (rc < 0)
            return tool_fail(rc, "receiving");
        if (rc == 0 || tool_again(&sub->last, msg))
            continue;
        if (msg->lost > 0) {
            sub->lost += msg->lost;
            sub_tell_lost(sub, 0);
        }
        sub->seen++;
        sub->bytes += msg->size;
        if (sub_print(sub, msg) < 0)
            return TOOL_OK;
    }
    return TOOL_OK;
}

static int sub_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "count", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
        { "json", no_argument, NULL, 'j' },        { "raw", no_argument, NULL, 'r' },
        { "stats", no_argument, NULL, 's' },       { "timeout", required_argument, NULL, 't' },
        { "whole", no_argument, NULL, 'f' },       { NULL, 0, NULL, 0 },
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
        case 'j': sub.json = 1; break;
        case 'r': sub.raw = 1; break;
        case 'f': sub.whole = 1; break;
        case 's': show = 1; break;
        case 'h': return tool_help(&tool_sub);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 2)
        return tool_usage("a URL and at least one filter are needed");
    if (sub.json + sub.raw + sub.whole > 1)
        return tool_usage("--json, --raw and --whole exclude each other");
    if (tool_signals() != TOOL_OK)
        return TOOL_ERROR;

    /* Somebody who watches must not hold others up. */
    char *url = tool_url(argv[optind], "lossy", "1");
    if (url == NULL)
        return TOOL_ERROR;
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
    status = tool_output(status);

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
    "  --json             an object a line: topic, payload, size, sequence, publisher, lost; a topic or payload that is not\n"
    "                     UTF-8 is topic_base64, payload_base64\n"
    "  --whole            only the payload's bytes, nothing between messages: what `pub --whole` sent\n"
    "  --count N          stop after N messages\n"
    "  --timeout SECONDS  stop then: exit status 3 if --count was not reached\n"
    "  --stats            say at the end, on stderr, what arrived\n"
    "  --help             this text\n"
    "\n"
    "In a filter '+' stands for one level and '#' for the rest; quote them. sub never holds publishers back, and says how\n"
    "many messages it lost; lossy=0 in the URL makes it reliable. A message that matches two filters is printed once.\n",
    sub_main,
};
