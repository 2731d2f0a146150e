/* SPDX-License-Identifier: MIT */
/*
 * top.c - psbus top: what a bus is doing now, topic by topic and member by member.
 *
 * It reads along as an observer: no place on the bus, no receiver, nobody waits for it. So it sees what others want, and under
 * a flood it misses some; the members' own counters, which the second table shows, are exact all the same.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define TOP_TOPICS 32768                /* told apart at once; a power of two. What comes beyond is one line together */
#define TOP_ROWS   20                   /* topics shown where there is no terminal to fill */

struct topic {
    char    *name;                      /* NULL: free */
    uint64_t count, bytes;              /* since the last table */
};

struct top {
    ps_bus       *bus;
    const char   *url;
    struct topic *topics;               /* a hash table, TOP_TOPICS places, at most 3/4 of them taken */
    size_t        known;
    struct topic  others;
    uint64_t      missed;
    struct tool_last last;
    struct { uint64_t publisher, published; } before[PS_MEMBERS_MAX];   /* by slot */
    double        since;                /* the last table, or the start */
    int           screen, keys;         /* a terminal to draw on; keys to read */
    double        interval;
    struct termios terminal;            /* as it was, where there are keys */
    uint64_t      rows;                 /* --rows; 0: as many as there is room for */
};

/* ------------------------------------------------------------------ counting */

static struct topic *topic_find(struct top *top, const ps_msg *msg)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t i = 0; i < msg->topic_len; i++)
        hash = (hash ^ (unsigned char)msg->topic[i]) * 0x100000001b3u;
    for (size_t at = (size_t)(hash ^ hash >> 32);; at++) {
        struct topic *topic = &top->topics[at & (TOP_TOPICS - 1)];
        if (topic->name != NULL && strcmp(topic->name, msg->topic) == 0)
            return topic;
        if (topic->name != NULL)
            continue;
        if (top->known >= TOP_TOPICS / 4 * 3 || (topic->name = malloc(msg->topic_len + 1)) == NULL)
            return &top->others;
        memcpy(topic->name, msg->topic, msg->topic_len + 1);
        top->known++;
        return topic;
    }
}

/* Names that were quiet give their places back before there are no more. */
static void topics_forget(struct top *top)
{
    for (size_t i = 0; i < TOP_TOPICS; i++) {
        free(top->topics[i].name);
        top->topics[i] = (struct topic){ NULL, 0, 0 };
    }
    top->known = 0;
}

static int topic_order(const void *a, const void *b)
{
    const struct topic *one = a, *other = b;

    if (one->count != other->count)
        return one->count < other->count ? 1 : -1;
    return strcmp(one->name, other->name);
}

/* ------------------------------------------------------------------ the tables */

static void show_topics(const struct top *top, double seconds, size_t rows)
{
    struct topic *list = malloc((top->known + 1) * sizeof *list);
    char name[TOOL_TEXT], bytes[TOOL_TEXT];
    uint64_t messages = top->others.count, size = top->others.bytes;
    size_t count = 0;

    printf("%12s %9s  %s\n", "MESSAGES/S", "BYTES/S", "TOPIC");
    if (list == NULL)
        return;
    for (size_t i = 0; i < TOP_TOPICS; i++)
        if (top->topics[i].count > 0)
            list[count++] = top->topics[i];
    qsort(list, count, sizeof *list, topic_order);
    for (size_t i = 0; i < count; i++) {
        messages += list[i].count;
        size += list[i].bytes;
        if (i < rows)
            printf("%12.1f %9s  %s\n", (double)list[i].count / seconds,
                   tool_bytes(bytes, (uint64_t)((double)list[i].bytes / seconds)), tool_text(name, list[i].name));
    }
    free(list);
    if (count > rows || top->others.count > 0)
        printf("%12s %9s  (%zu more%s)\n", "", "", count > rows ? count - rows : 0,
               top->others.count > 0 ? ", and what was too much to tell apart" : "");
    printf("%12.1f %9s  (all", (double)messages / seconds, tool_bytes(bytes, (uint64_t)((double)size / seconds)));
    if (top->missed > 0)
        printf("; missed %.1f/s that came too fast", (double)top->missed / seconds);
    printf(")\n");
}

static void show_members(struct top *top, const ps_member *members, int count, double seconds)
{
    char kind[TOOL_TEXT], state[TOOL_TEXT], label[TOOL_TEXT];

    printf("\n%8s %-8s %-22s %12s %9s %9s %5s  %s\n", "PID", "STATE", "KIND", "PUBLISHED/S", "LAG", "LOST", "FULL%", "LABEL");
    for (int i = 0; i < count; i++) {
        const ps_member *m = &members[i];
        uint32_t slot = m->slot < PS_MEMBERS_MAX ? m->slot : 0;
        int same = top->before[slot].publisher == m->publisher && m->published >= top->before[slot].published;
        double rate = same ? (double)(m->published - top->before[slot].published) / seconds : 0;
        top->before[slot].publisher = m->publisher;
        top->before[slot].published = m->published;
        if (m->flags & PS_MEMBER_SELF)
            continue;
        printf("%8d %-8s %-22s %12.1f %9llu %9llu %5llu  %s\n", (int)m->pid, tool_state(state, m), tool_kind(kind, m), rate,
               (unsigned long long)m->lag, (unsigned long long)m->lost, (unsigned long long)m->full,
               m->name[0] != '\0' ? tool_text(label, m->name) : "-");
    }
}

/* Topics that fit on the terminal beside everything else. */
static size_t rows_left(const struct top *top, int members)
{
    struct winsize size;

    if (top->rows > 0)
        return (size_t)top->rows;
    if (!top->screen || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0)
        return TOP_ROWS;
    return size.ws_row > members + 8 ? (size_t)(size.ws_row - members - 8) : 1;
}

/* 1, 0 when standard output takes no more, or an error. */
static int show(struct top *top)
{
    double now = tool_now(), seconds = now - top->since;
    ps_member *members = NULL;
    int count = tool_members(top->bus, NULL, &members);

    if (count < 0 && count != PS_ENOTSUP) {
        free(members);
        return count;
    }
    if (top->screen)
        printf("\033[H\033[J%s  %d members%s\n\n", top->url, count < 0 ? 0 : count, top->keys ? "  (q quits)" : "");
    show_topics(top, seconds > 0 ? seconds : 1, rows_left(top, count < 0 ? 0 : count));
    if (count > 0)
        show_members(top, members, count, seconds > 0 ? seconds : 1);
    if (!top->screen)
        putchar('\n');
    free(members);

    for (size_t i = 0; i < TOP_TOPICS; i++)
        top->topics[i].count = top->topics[i].bytes = 0;
    if (top->known >= TOP_TOPICS / 2)
        topics_forget(top);
    top->others.count = top->others.bytes = 0;
    top->missed = 0;
    top->since = now;
    return fflush(stdout) == 0;
}

/* ------------------------------------------------------------------ the terminal */

static volatile sig_atomic_t top_suspended;

static void top_on_suspend(int number)
{
    (void)number;
    top_suspended = 1;
}

/* Ctrl-Z: what it does, or our own answer to it. */
static void suspend_by(void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = handler;
    sigaction(SIGTSTP, &action, NULL);
}

static void terminal_take(const struct top *top)
{
    if (top->keys) {
        struct termios raw = top->terminal;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    if (top->screen) {
        suspend_by(top_on_suspend);
        printf("\033[?1049h\033[H\033[J%s: the first table comes in %g s%s\n", top->url, top->interval,
               top->keys ? " (q quits)" : "");
    }
    fflush(stdout);
}

static void terminal_give(const struct top *top)
{
    if (top->screen) {
        printf("\033[?1049l");
        fflush(stdout);
        suspend_by(SIG_DFL);
    }
    if (top->keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &top->terminal);
}

/* In a signal handler: what terminal_give does, without stdio. */
static const struct top *top_shown;

static void terminal_rescue(void)
{
    static const char back[] = "\033[?1049l";

    if (top_shown->screen && write(STDOUT_FILENO, back, sizeof back - 1) < 0) { /* no terminal any more */ }
    if (top_shown->keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &top_shown->terminal);
}

/* Stopped by Ctrl-Z with the terminal as it was; from here it goes on when a shell continues it. */
static void suspend(const struct top *top)
{
    top_suspended = 0;
    terminal_give(top);
    raise(SIGTSTP);
    terminal_take(top);
}

/* ------------------------------------------------------------------ until somebody has seen enough */

/* A key q, or the end of standard input. */
static int key_quit(const struct top *top)
{
    char key;

    return top->keys && tool_wait(STDIN_FILENO, 0) && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q');
}

/* Reads along until the moment. 1 go on, 0 that is enough, or an error of ps_next(). */
static int watch(struct top *top, double until)
{
    const ps_msg *msg;
    unsigned turns = 0;
    double left;

    while ((left = until - tool_now()) > 0) {
        int rc = ps_next(top->bus, &msg, left > 0.02 ? 20 : (int)(left * 1000) + 1);
        if (rc < 0)
            return rc;
        if (rc == 0 || ++turns % 256 == 0)
            if (tool_stopped() || key_quit(top) || tool_output_gone())
                return 0;
        if (top_suspended)
            suspend(top);
        if (rc == 0)
            continue;
        top->missed += msg->lost;
        if (tool_again(&top->last, msg))
            continue;
        struct topic *topic = topic_find(top, msg);
        topic->count++;
        topic->bytes += msg->size;
    }
    return !tool_stopped();
}

/* 0, or an error; words for it only once the terminal is as before. */
static int loop(struct top *top, double interval, uint64_t tables)
{
    double due = top->since = tool_now();
    ps_member *members = NULL;
    int count = tool_members(top->bus, NULL, &members);

    for (int i = 0; i < count; i++)
        if (members[i].slot < PS_MEMBERS_MAX) {
            top->before[members[i].slot].publisher = members[i].publisher;
            top->before[members[i].slot].published = members[i].published;
        }
    free(members);
    for (uint64_t done = 0; tables == 0 || done < tables; done++) {
        due += interval;
        int rc = watch(top, due);
        if (rc > 0)
            rc = show(top);
        if (rc <= 0)
            return rc;
        if (due < tool_now() - interval)
            due = tool_now();           /* we were stopped: no tables for the time that is gone */
    }
    return 0;
}

static int top_run(struct top *top, char **filters, int filter_count, double interval, uint64_t tables)
{
    int rc = 0;

    for (int i = 0; i < filter_count; i++)
        if ((rc = ps_subscribe(top->bus, filters[i], NULL, NULL, NULL, NULL)) < 0)
            return tool_fail(rc, "filter '%s'", filters[i]);
    if (filter_count == 0 && (rc = ps_subscribe(top->bus, "#", NULL, NULL, NULL, NULL)) < 0)
        return tool_fail(rc, "%s", top->url);

    top->screen = isatty(STDOUT_FILENO);
    /* In the background the terminal is not ours to set: it would stop us. */
    top->keys = top->screen && isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() &&
                tcgetattr(STDIN_FILENO, &top->terminal) == 0;
    top->interval = interval;
    terminal_take(top);
    rc = loop(top, interval, tables);
    terminal_give(top);
    return rc < 0 ? tool_fail(rc, "%s", top->url) : tool_output(TOOL_OK);
}

static int top_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "count", required_argument, NULL, 'n' }, { "help", no_argument, NULL, 'h' },
        { "interval", required_argument, NULL, 'i' }, { "rows", required_argument, NULL, 'r' },
        { NULL, 0, NULL, 0 },
    };
    static struct top top;
    double interval = 1;
    uint64_t tables = 0;
    int c, rc;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 'n': if (!tool_count("count", optarg, &tables)) return TOOL_USAGE; break;
        case 'i': if (!tool_real("interval", optarg, &interval)) return TOOL_USAGE; break;
        case 'r': if (!tool_count("rows", optarg, &top.rows)) return TOOL_USAGE; break;
        case 'h': return tool_help(&tool_top);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 1)
        return tool_usage("a URL is needed");
    if (tool_signals() != TOOL_OK || tool_signal(SIGQUIT) != TOOL_OK)
        return TOOL_ERROR;
    top.topics = calloc(TOP_TOPICS, sizeof *top.topics);
    if (top.topics == NULL) {
        tool_say("out of memory");
        return TOOL_ERROR;
    }
    top.url = argv[optind];
    top_shown = &top;
    tool_guard(top.url, terminal_rescue);
    if ((rc = tool_observe(top.url, &top.bus)) < 0) {
        free(top.topics);
        return tool_fail(rc, "%s", top.url);
    }
    tool_stop_bus(top.bus);
    int status = top_run(&top, argv + optind + 1, argc - optind - 1, interval, tables);
    tool_stop_bus(NULL);
    topics_forget(&top);
    free(top.topics);
    if ((rc = ps_close(top.bus)) < 0)
        status = tool_fail(rc, "closing %s", top.url);
    return status;
}

const struct tool_command tool_top = {
    "top", "[OPTIONS] URL [FILTER...]", "live rates by topic and by member; key q",
    "  --interval SECONDS between two tables; 1 if not given\n"
    "  --count N          stop after N tables\n"
    "  --rows N           topics shown; what fits on the terminal, or 20, if not given\n"
    "  --help             this text\n"
    "\n"
    "Only topics that match a FILTER, if there is one ('$...' topics have to be named). top only looks on: it is no receiver,\n"
    "holds nobody up, and sees what somebody else wants. FULL% is how much of a publisher's ring waits for that reader.\n"
    "Where standard output is no terminal it prints plain tables.\n",
    top_main,
};
