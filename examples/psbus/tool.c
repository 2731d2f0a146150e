/* SPDX-License-Identifier: MIT */
/* tool.c - what the commands of psbus share. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

const struct tool_command *tool_command;

/* ------------------------------------------------------------------ messages */

static void tool_print(const char *format, va_list arguments)
{
    fprintf(stderr, "psbus%s%s: ", tool_command ? " " : "", tool_command ? tool_command->name : "");
    vfprintf(stderr, format, arguments);
}

void tool_say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    tool_print(format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int tool_fail(int rc, const char *format, ...)
{
    const char *detail = ps_errmsg();
    va_list arguments;

    va_start(arguments, format);
    tool_print(format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s%s%s\n", ps_strerror(rc), *detail ? ": " : "", detail);
    return rc == PS_EINVAL ? TOOL_USAGE : TOOL_ERROR;
}

int tool_usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    tool_print(format, arguments);
    va_end(arguments);
    fprintf(stderr, " (see psbus %s%s--help)\n", tool_command ? tool_command->name : "", tool_command ? " " : "");
    return TOOL_USAGE;
}

int tool_help(const struct tool_command *command)
{
    printf("usage: psbus %s %s\n\n%s\n\n%s", command->name, command->arguments, command->summary, command->help);
    return tool_output(TOOL_OK);
}

int tool_output(int status)
{
    int flushed = fflush(stdout) == 0, error = errno;

    if ((flushed && !ferror(stdout)) || tool_output_gone())
        return status;
    if (tool_stopped() && (flushed || error == EINTR)) {
        tool_say("stopped; not everything was written");
        return status;
    }
    /* What failed earlier has left no number behind. */
    tool_say("standard output: %s", flushed ? "not everything could be written" : strerror(error));
    return TOOL_ERROR;
}

int tool_output_gone(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO };

    return poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0;
}

/* ------------------------------------------------------------------ nearest names */

/* Letters to insert, delete, replace, or swap with their neighbour to come from a to b. Both shorter than 64. */
static unsigned tool_distance(const char *a, const char *b)
{
    unsigned rows[3][64], columns = (unsigned)strlen(b), *before = rows[0], *last = rows[1], *row = rows[2];

    for (unsigned j = 0; j <= columns; j++)
        before[j] = row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned *oldest = before;
        before = last;
        last = row;
        row = oldest;
        row[0] = i;
        for (unsigned j = 1; j <= columns; j++) {
            unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (best > last[j] + 1)
                best = last[j] + 1;
            if (best > row[j - 1] + 1)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && best > before[j - 2] + 1)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return row[columns];
}

const char *tool_nearest(const char *word, const char *(*name)(const void *list, size_t i), const void *list)
{
    const char *nearest = NULL, *candidate;
    size_t length = strlen(word);
    unsigned least = 0;

    if (length == 0 || length >= 64)
        return NULL;
    for (size_t i = 0; (candidate = name(list, i)) != NULL; i++) {
        unsigned distance = tool_distance(word, candidate);
        /* "publish" is near "pub", whatever the number of letters between them. */
        if (strncmp(word, candidate, strlen(candidate)) == 0 || strncmp(word, candidate, length) == 0)
            distance = 1;
        else if (2 * distance >= length)
            continue;                   /* something that shares half its letters or fewer is no help */
        if (nearest == NULL || distance < least) {
            nearest = candidate;
            least = distance;
        }
    }
    return nearest;
}

static const char *tool_option_name(const void *list, size_t i)
{
    return ((const struct option *)list)[i].name;
}

int tool_bad_option(int character, char **argv, const struct option *options)
{
    const char *word = argv[optind - 1];
    char name[64];

    if (strncmp(word, "--", 2) != 0) {
        if (character == ':')
            return tool_usage("option '-%c' needs a value", optopt);
        return tool_usage("unknown option '-%c'", optopt ? optopt : '?');
    }
    if (character == ':')
        return tool_usage("option '%s' needs a value", word);
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    for (size_t i = 0; options[i].name != NULL; i++)
        if (strcmp(options[i].name, name) == 0)
            return tool_usage("option '--%s' takes no value", name);
    const char *nearest = tool_nearest(name, tool_option_name, options);
    if (nearest != NULL)
        return tool_usage("unknown option '--%s'; did you mean '--%s'?", name, nearest);
    return tool_usage("unknown option '--%s'", name);
}

/* ------------------------------------------------------------------ numbers and time */

int tool_count(const char *option, const char *text, uint64_t *value)
{
    char *end;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number == 0) {
        tool_usage("--%s '%s' is not a whole number above 0", option, text);
        return 0;
    }
    *value = number;
    return 1;
}

int tool_real(const char *option, const char *text, double *value)
{
    char *end;
    double number = strtod(text, &end);

    if ((*text != '.' && (*text < '0' || *text > '9')) || *end != '\0' || !(number > 0 && number <= 1e9)) {
        tool_usage("--%s '%s' is not a number above 0", option, text);
        return 0;
    }
    *value = number;
    return 1;
}

double tool_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ descriptors */

int tool_descriptors(void)
{
    /* The wrong way round: what is read or written there fails with EBADF, as it would without. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            tool_say("/dev/null: %s", strerror(errno));
            return TOOL_ERROR;
        }
    return TOOL_OK;
}

/* ------------------------------------------------------------------ stopping */

static volatile sig_atomic_t tool_signalled;
static _Atomic(ps_bus *) tool_bus;
static int tool_pipe[2] = { -1, -1 };

static void tool_on_tick(int number)
{
    (void)number;
}

/*
 * Standard output may be a pipe whose reader stands still. One signal ends a write(2), and stdio begins the next: from now on one
 * comes every half second, and a write that got rid of nothing meanwhile fails.
 */
static void tool_tick(void)
{
    static const struct itimerval often = { { 0, 500000 }, { 0, 500000 } };
    struct sigaction action;

    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = tool_on_tick;
    if (sigaction(SIGALRM, &action, NULL) == 0)
        setitimer(ITIMER_REAL, &often, NULL);
}

static void tool_on_signal(int number)
{
    int error = errno;

    (void)number;
    tool_signalled = 1;
    ps_stop(tool_bus);
    /* A byte in a pipe also ends a poll() that begins only now; the flag alone would come too late for it. */
    if (write(tool_pipe[1], "", 1) < 0) { /* the pipe is full of such bytes already */ }
    tool_tick();
    errno = error;
}

int tool_signals(void)
{
    struct sigaction action;

    if (pipe(tool_pipe) < 0) {
        tool_say("pipe: %s", strerror(errno));
        return TOOL_ERROR;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(tool_pipe[i], F_SETFD, FD_CLOEXEC);
        fcntl(tool_pipe[i], F_SETFL, O_NONBLOCK);
    }
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = tool_on_signal;
    int bad = sigaction(SIGINT, &action, NULL) | sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    if ((bad | sigaction(SIGPIPE, &action, NULL)) != 0) {
        tool_say("sigaction: %s", strerror(errno));
        return TOOL_ERROR;
    }
    return tool_signal(SIGHUP);
}

int tool_signal(int number)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        return TOOL_OK;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = tool_on_signal;
    if (sigaction(number, &action, NULL) == 0)
        return TOOL_OK;
    tool_say("sigaction: %s", strerror(errno));
    return TOOL_ERROR;
}

void tool_stop_bus(ps_bus *bus)
{
    tool_bus = bus;
}

int tool_stopped(void)
{
    return tool_signalled != 0;
}

int tool_wait(int fd, int timeout_ms)
{
    struct pollfd fds[2] = { { .fd = tool_pipe[0], .events = POLLIN }, { .fd = fd, .events = POLLIN } };

    /* A signal that interrupts it has written to the pipe. */
    return poll(fds, fd < 0 ? 1 : 2, timeout_ms) > 0 && fds[1].revents != 0;
}
