/* SPDX-License-Identifier: MIT */
/*
 * tool.h - the built tool psbus as a child process: arguments and input in, exit status and what it wrote out.
 *
 * Standard output and standard error go to unnamed files, so nobody waits for a reader, and a test can look at them while the
 * tool runs.
 */
#ifndef PS_TEST_TOOL_H
#define PS_TEST_TOOL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

struct tool {
    pid_t pid;
    int   out, err;             /* files */
};

static const char *tool_program(void)
{
    static char path[512];
    const char *build = getenv("PS_BUILD");

    snprintf(path, sizeof path, "%s/examples/psbus", build != NULL ? build : "build");
    return path;
}

static int tool_memory(const char *text, size_t size)
{
    int fd = memfd_create("tool", MFD_CLOEXEC);

    assert_true(fd >= 0);
    for (size_t at = 0; at < size;) {
        ssize_t put = write(fd, text + at, size - at);
        assert_true(put > 0);
        at += (size_t)put;
    }
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

#define TOOL_CLOSED -2

/* in, out: descriptors, or -1 for /dev/null and a file of its own, or TOOL_CLOSED. program NULL: the tool. */
static void tool_exec(struct tool *t, const char *program, uid_t user, int in, int out, const char *const argv[])
{
    const char *path = program != NULL ? program : tool_program();
    int own_in = in < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : in;

    t->out = out < 0 ? tool_memory("", 0) : out;
    t->err = tool_memory("", 0);
    assert_true(own_in >= 0);
    fflush(NULL);
    t->pid = fork();
    assert_true(t->pid >= 0);
    if (t->pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        alarm(240);                     /* goes on in the tool */
        if (dup2(own_in, 0) < 0 || dup2(t->out, 1) < 0 || dup2(t->err, 2) < 0)
            _exit(126);
        if (in == TOOL_CLOSED)
            close(0);
        if (out == TOOL_CLOSED)
            close(1);
        if (user != 0 && (setgid(user) < 0 || setuid(user) < 0))
            _exit(125);
        execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (in < 0)
        close(own_in);
}

/* What it wrote so far. Static, four in rotation. */
static UNUSED const char *tool_read(int fd)
{
    static char *texts[4];
    static unsigned turn;
    struct stat st;
    char **text = &texts[turn++ % 4];

    assert_int_equal(fstat(fd, &st), 0);
    free(*text);
    *text = calloc(1, (size_t)st.st_size + 1);
    assert_non_null(*text);
    assert_int_equal(pread(fd, *text, (size_t)st.st_size, 0), st.st_size);
    return *text;
}

#define tool_out(t) tool_read((t)->out)
#define tool_err(t) tool_read((t)->err)

/* Its exit status, 1000 + signal, -1 at the deadline. */
static UNUSED int tool_wait(struct tool *t)
{
    return support_reap(t->pid, DEADLINE_MS);
}

static UNUSED int tool_ended(void *t)
{
    siginfo_t info = { .si_pid = 0 };

    return waitid(P_PID, (id_t)((struct tool *)t)->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/* Sends a signal and waits. ThreadSanitizer puts handlers off, and now and then for ever: it is sent the signal again. */
static UNUSED int tool_signal(struct tool *t, int number)
{
    kill(t->pid, number);
#ifdef __SANITIZE_THREAD__
    for (int tries = 0; tries < 40 && !support_wait(tool_ended, t, 500); tries++)
        kill(t->pid, number);
#endif
    return tool_wait(t);
}

static UNUSED void tool_done(struct tool *t)
{
    close(t->out);
    close(t->err);
}

#define TOOL_ARGS(...) ((const char *const[]){ "psbus", __VA_ARGS__, NULL })

/* Starts it without input. */
#define tool_start(t, ...) tool_exec(t, NULL, 0, -1, -1, TOOL_ARGS(__VA_ARGS__))

/* Runs it to the end with an input (NULL: none); its exit status. What it wrote stays in t. */
static UNUSED int tool_run_input(struct tool *t, const char *input, const char *const argv[])
{
    int in = input != NULL ? tool_memory(input, strlen(input)) : -1;

    tool_exec(t, NULL, 0, in, -1, argv);
    if (in >= 0)
        close(in);
    return tool_wait(t);
}

#define tool_run(t, input, ...) tool_run_input(t, input, TOOL_ARGS(__VA_ARGS__))

static UNUSED int tool_lines(const char *text)
{
    int lines = 0;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* Fails with all of the text if it does not hold the word. */
#define assert_says(text, word) do { const char *says_ = (text); if (strstr(says_, word) == NULL) \
    fail_msg("\"%s\" is not in: %s", word, says_); } while (0)
#define assert_silent_about(text, word) do { const char *says_ = (text); if (strstr(says_, word) != NULL) \
    fail_msg("\"%s\" is in: %s", word, says_); } while (0)
/* Exactly one line on standard error, from that command. */
#define assert_one_line(t, front) do { const char *line_ = tool_err(t); \
    if (tool_lines(line_) != 1 || strncmp(line_, front, strlen(front)) != 0) \
        fail_msg("not one line that begins with \"%s\": %s", front, line_); } while (0)
#define assert_status(t, status, expected) do { int status_ = (status); if (status_ != (expected)) \
    fail_msg("exit status %d, not %d; standard error: %s", status_, expected, tool_err(t)); } while (0)

/* Waits until a file that the tool writes holds the word; 1 if so. */
struct tool_expect {
    int fd;
    const char *word;
};

static int tool_expected(void *arg)
{
    struct tool_expect *e = arg;

    return strstr(tool_read(e->fd), e->word) != NULL;
}

static UNUSED int tool_expect(int fd, const char *word)
{
    struct tool_expect e = { fd, word };

    return support_wait(tool_expected, &e, DEADLINE_MS);
}

/* Waits until the bus has so many members (dead ones too) with these flags; readers only with a filter. 1 if so. */
struct tool_members {
    ps_bus *bus;
    uint32_t flags;
    int count;
};

static int tool_members_there(void *arg)
{
    struct tool_members *w = arg;
    ps_member m[PS_MEMBERS_MAX] = { PS_MEMBER_INIT };
    int n = ps_members(w->bus, NULL, m, PS_MEMBERS_MAX), with = 0;

    for (int i = 0; i < n && i < PS_MEMBERS_MAX; i++)
        with += (m[i].flags & w->flags) == w->flags && (!(w->flags & PS_MEMBER_READER) || m[i].filter_count > 0);
    return with == w->count;
}

static UNUSED int tool_members(ps_bus *bus, uint32_t flags, int count)
{
    struct tool_members w = { bus, flags, count };

    return support_wait(tool_members_there, &w, DEADLINE_MS);
}

/* Waits until somebody wants the topic; 1 if so. */
struct tool_wanted {
    ps_bus *bus;
    const char *topic;
};

static int tool_wanted_now(void *arg)
{
    struct tool_wanted *w = arg;

    return ps_wanted(w->bus, w->topic) > 0;
}

static UNUSED int tool_wanted(ps_bus *bus, const char *topic)
{
    struct tool_wanted w = { bus, topic };

    return support_wait(tool_wanted_now, &w, DEADLINE_MS);
}

/* A handle of the bus with more options than its URL has. */
static UNUSED ps_bus *tool_open(const char *url, const char *options)
{
    char text[512];
    ps_bus *bus;

    snprintf(text, sizeof text, "%s%s%s", url, strchr(url, '?') ? "&" : "?", options);
    assert_ok(ps_open(&bus, text));
    return bus;
}

struct tool_reader {
    ps_bus *bus;
    pid_t pid;
};

static int tool_reader_there(void *arg)
{
    struct tool_reader *w = arg;
    ps_member m[PS_MEMBERS_MAX] = { PS_MEMBER_INIT };
    int n = ps_members(w->bus, NULL, m, PS_MEMBERS_MAX), there = 0;

    for (int i = 0; i < n && i < PS_MEMBERS_MAX; i++)
        there |= m[i].pid == w->pid && m[i].filter_count > 0;
    return there;
}

/* Starts a sub, and waits until it has subscribed. */
static UNUSED void tool_reader(struct tool *t, ps_bus *bus, const char *url, const char *options, const char *filter)
{
    struct tool_reader w = { bus, 0 };
    char text[512];

    snprintf(text, sizeof text, "%s%s%s", url, strchr(url, '?') ? "&" : "?", options);
    tool_start(t, "sub", text, filter);
    w.pid = t->pid;
    assert_true(support_wait(tool_reader_there, &w, DEADLINE_MS));
}

/* Somebody who publishes on "t", whose ring of four is full, and in this process the reader of that name that does not read. */
struct tool_stuck {
    ps_bus *bus, *reader;
};

static UNUSED struct tool_stuck tool_stuck(const char *url, const char *name)
{
    struct tool_stuck s;
    char options[64];
    ps_sub *sub;

    snprintf(options, sizeof options, "name=%s", name);
    s.bus = tool_open(url, "depth=4&evict=20&block=60000");
    s.reader = tool_open(url, options);
    assert_ok(ps_subscribe(s.reader, "t", NULL, NULL, NULL, &sub));
    for (int i = 0; i < 4; i++)
        assert_int_equal(ps_publish(s.bus, "t", "x", 1), 1);
    return s;
}

/* One message more: waits until the reader is evicted. */
static UNUSED void tool_stuck_evict(struct tool_stuck *s)
{
    int rc = ps_publish(s->bus, "t", "x", 1);

    assert_ok(rc);
}

static UNUSED void tool_stuck_close(struct tool_stuck *s)
{
    assert_ok(ps_close(s->reader));
    assert_ok(ps_close(s->bus));
}

/* For support_wait(): has the bus of this URL (without options) a member? */
static UNUSED int tool_bus_there(void *arg)
{
    char url[512];
    ps_bus *bus;
    int count;

    snprintf(url, sizeof url, "%s?observe=1", (const char *)arg);
    if (ps_open(&bus, url) < 0)
        return 0;
    count = ps_members(bus, NULL, NULL, 0);
    ps_close(bus);
    return count > 0;
}

/* Stops it and waits until it stands. */
static UNUSED void tool_stop(struct tool *t)
{
    int status;

    assert_int_equal(kill(t->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(t->pid, &status, WUNTRACED), t->pid);
    assert_true(WIFSTOPPED(status));
}

static UNUSED void tool_kill(struct tool *t)
{
    support_kill(t->pid);
    tool_done(t);
}

#endif
