/* SPDX-License-Identifier: MIT */
/*
 * tool.h - what the commands of psbus share: words for errors, numbers, options, stopping. One file per command; main.c has
 * the list of them. The tool uses the public API, and in proc.c, sockets.c, ls.c the names under FILES in psbus(7).
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

extern const struct tool_command tool_pub, tool_sub, tool_ls, tool_top, tool_doctor, tool_why, tool_bench;

/* The command that runs, for the front of every message. */
extern const struct tool_command *tool_command;

/*
 * One line on stderr, "psbus COMMAND: …". tool_fail adds what the library says to rc, and answers TOOL_ERROR, or TOOL_USAGE when
 * that is PS_EINVAL: what the library refuses so is what was typed, a URL, a topic, a filter.
 */
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
/*
 * The end of a command that wrote to standard output: flushes, and answers status, or TOOL_ERROR after a line about what could
 * not be written. A reader who has gone had enough: that is no error.
 */
int tool_output(int status);
/* Has whoever reads our output gone? Otherwise that would show only when there is something to write. */
int tool_output_gone(void);

/* 1 and the number, or 0 after a tool_usage() that names the option. Seconds and rates may have a fraction. */
int tool_count(const char *option, const char *text, uint64_t *value);
int tool_real(const char *option, const char *text, double *value);

/*
 * First of all: on whichever of the descriptors 0, 1, 2 is closed /dev/null is opened, or the next file, a bus perhaps, would be
 * taken for our input or get our output. Reading, writing there stays an error. 0 or TOOL_ERROR.
 */
int tool_descriptors(void);

/*
 * Stopping. SIGINT, SIGTERM and SIGHUP set tool_stopped(), end a waiting ps_next() or ps_dispatch() of the handle, and end
 * tool_wait(). SIGHUP only unless whoever started us has it ignored (nohup). A closed pipe is an error of the write, not a
 * signal.
 */
int tool_signals(void);                         /* 0 or TOOL_ERROR */
int tool_signal(int number);                    /* one more that stops, unless it is ignored */
void tool_stop_bus(ps_bus *bus);                /* the handle that signals stop; NULL before it is closed */
int tool_stopped(void);
/* Until the descriptor is readable (-1: none), a signal has come or milliseconds are over (-1: never). 1 readable, else 0. */
int tool_wait(int fd, int timeout_ms);

double tool_now(void);                          /* seconds, monotonic */

/* ------------------------------------------------------------------ looking at a bus: view.c */

/* The URL with an option more, unless it names that option already; to be freed. NULL after a line about memory. */
char *tool_url(const char *url, const char *option, const char *value);
/* ps_open() with observe=1: takes no slot, counts nowhere. */
int tool_observe(const char *url, ps_bus **bus);
/*
 * Whoever may write a bus's file can cut it or punch a hole that a full file system does not fill again: then reading it is a
 * SIGBUS. From now on that is one line about the URL, and exit status 1. leave, or NULL, runs before, inside the signal handler.
 */
void tool_guard(const char *url, void (*leave)(void));
/* Who is there, at most PS_MEMBERS_MAX; *list is to be freed. The number, or an error of ps_members(). */
int tool_members(ps_bus *bus, const char *topic, ps_member **list);
/* A message that matches two filters comes twice; 1: it is the one of before. */
struct tool_last {
    uint64_t publisher, sequence;
};
int tool_again(struct tool_last *last, const ps_msg *msg);

/* One message as a line of JSON on standard output: json.c. */
void tool_json(const ps_msg *msg);

/* For people. All answer dst: a text of others without what a terminal would obey; bytes as 12.3M; "publisher,reader,lossy";
 * "dead", "stopped", "asleep" and so on. */
#define TOOL_TEXT 96
const char *tool_text(char dst[TOOL_TEXT], const char *text);
const char *tool_bytes(char dst[TOOL_TEXT], uint64_t bytes);
const char *tool_kind(char dst[TOOL_TEXT], const ps_member *member);
const char *tool_state(char dst[TOOL_TEXT], const ps_member *member);

/* ------------------------------------------------------------------ looking at processes: proc.c */

/* The letter of /proc/PID/stat: R runs, S sleeps, T is stopped, t is traced, Z … ; 0: there is no such process here. */
char tool_process(int pid);
/* The file of a shm:// URL; 0: it has none. */
int tool_file(const char *url, char *path, size_t size);
/*
 * The directory of that file, to be closed; -1 if there is none. It is opened once, so that nobody puts another one in its place
 * between a look and what follows.
 */
int tool_parent(const char *path);
/* NULL if this user may remove the file of that name there, as far as that is to be seen; otherwise who may, in words. */
const char *tool_removers(int dir, const char *name, char text[TOOL_TEXT]);
/* The same, only if it is the one of this user's buses. */
int tool_directory(const char *path);
/* Calls visit for each process of this user that still has a deleted file of that name mapped. */
void tool_deleted(const char *path, void (*visit)(void *arg, int pid), void *arg);
/*
 * Sockets beside the file of a bus in this user's directory at which nobody answers: how many there are, or with remove, how
 * many are gone now. alive: there is a bus of the name; then only those that are certainly not its own.
 */
int tool_sockets(const char *path, int alive, int remove);
/* Calls visit for each anonymous bus that a process of this user has, with a URL to look at it. */
void tool_anonymous(void (*visit)(void *arg, const char *url), void *arg);

#endif
