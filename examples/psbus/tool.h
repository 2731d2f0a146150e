/* SPDX-License-Identifier: MIT */
/*
 * tool.h - what the commands of psbus share: words for errors, numbers, options, stopping. One file per command; main.c has
 * the list of them. The tool uses the public API alone.
 */
#ifndef PSBUS_TOOL_H
#define PSBUS_TOOL_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <getopt.h>
#include <stddef.h>
#include <stdint.h>

#include <psbus.h>

enum { TOOL_OK = 0, TOOL_ERROR = 1, TOOL_USAGE = 2, TOOL_TIMEOUT = 3 };

struct tool_command {
    const char *name, *arguments, *summary;
    const char *help;                           /* the options, a line each */
    int (*run)(int argc, char **argv);          /* argv[0] is the command's name; the exit status */
};

extern const struct tool_command tool_pub, tool_sub;

/* The command that runs, for the front of every message. */
extern const struct tool_command *tool_command;

/* One line on stderr, "psbus COMMAND: …". tool_fail adds what the library says to rc, and answers TOOL_ERROR. */
void tool_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int tool_fail(int rc, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with a pointer to --help; TOOL_USAGE. */
int tool_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* For the characters '?' and ':' of getopt_long: names the option and the nearest there is; TOOL_USAGE. */
int tool_bad_option(int character, char **argv, const struct option *options);
/* The nearest of the names, or NULL if none is near. name(list, i) is NULL behind the last one. */
const char *tool_nearest(const char *word, const char *(*name)(const void *list, size_t i), const void *list);
/* --help of a command, on stdout; the exit status. */
int tool_help(const struct tool_command *command);

/* 1 and the number, or 0 after a tool_usage() that names the option. Seconds and rates may have a fraction. */
int tool_count(const char *option, const char *text, uint64_t *value);
int tool_real(const char *option, const char *text, double *value);

/*
 * Stopping. SIGINT and SIGTERM set tool_stopped(), end a waiting ps_next() or ps_dispatch() of the handle, and end
 * tool_wait(). A closed pipe is an error of the write, not a signal.
 */
int tool_signals(void);                         /* 0 or TOOL_ERROR */
void tool_stop_bus(ps_bus *bus);                /* the handle that signals stop; NULL before it is closed */
int tool_stopped(void);
/* Until the descriptor is readable (-1: none), a signal has come or milliseconds are over (-1: never). 1 readable, else 0. */
int tool_wait(int fd, int timeout_ms);

double tool_now(void);                          /* seconds, monotonic */

#endif
