/* SPDX-License-Identifier: MIT */
/*
 * test_examples.c - every example does what it says, as a program of its own: its output, its exit status, and nothing left
 * behind. Of demo, which takes as long as all of these together and is `make demo`, only how it ends before its time; nor the tool
 * psbus.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGS_MOST 8

struct example {
    const char *args[ARGS_MOST + 1];    /* [0]: the program's name */
    const char *input;                  /* a file to be its standard input; NULL: a pipe */
    int         no_input;               /* its standard input is closed */
    const char *output;                 /* a file to be its standard output; NULL: our pipe */
    pid_t       pid;
    int         in, out;                /* our ends of its standard input and output */
    char        text[1 << 16];          /* what it has written, on both */
    size_t      len;
};

/* ------------------------------------------------------------------ running one */

struct start {
    struct example *example;
    int             in, out;
};

/* In the child. */
static int example_exec(void *arg)
{
    struct start *start = arg;
    const char *build = getenv("PS_BUILD");
    char path[512], *args[ARGS_MOST + 1];

    snprintf(path, sizeof path, "%s/examples/%s", build == NULL ? "build" : build, start->example->args[0]);
    memcpy(args, start->example->args, sizeof args);
    if (dup2(start->in, STDIN_FILENO) < 0 || dup2(start->out, STDOUT_FILENO) < 0 || dup2(start->out, STDERR_FILENO) < 0)
        return 120;
    if (start->example->no_input)
        close(STDIN_FILENO);
    if (start->example->output != NULL && dup2(open(start->example->output, O_WRONLY | O_CLOEXEC), STDOUT_FILENO) < 0)
        return 120;
    signal(SIGPIPE, SIG_DFL);           /* as a shell does */
    execv(path, args);
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    return 121;
}

static void example_start(struct example *e)
{
    struct start start = { e, -1, -1 };
    int in[2], out[2];

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    if (e->input != NULL) {
        close(in[0]);
        in[0] = open(e->input, O_RDONLY | O_CLOEXEC);
        assert_true(in[0] >= 0);
    }
    start.in = in[0];
    start.out = out[1];
    e->len = 0;
    e->text[0] = '\0';
    e->in = in[1];
    e->out = out[0];
    e->pid = support_child(example_exec, &start);
    close(in[0]);
    close(out[1]);
}

/* Reads what it writes until the word is there; word NULL: until it has closed its output. 1, or 0 after the deadline. */
static int example_says(struct example *e, const char *word)
{
    uint64_t end = support_now_ms() + DEADLINE_MS;

    while (word == NULL || strstr(e->text, word) == NULL) {
        struct pollfd p = { e->out, POLLIN, 0 };
        uint64_t now = support_now_ms();
        ssize_t got;

        if (now >= end || poll(&p, 1, (int)(end - now)) == 0 || e->len == sizeof e->text - 1)
            return 0;
        got = read(e->out, e->text + e->len, sizeof e->text - 1 - e->len);
        if (got <= 0)
            return word == NULL;
        e->len += (size_t)got;
        e->text[e->len] = '\0';
    }
    return 1;
}

/* Ends its input, and waits for its end: with this status. */
static void example_ends(struct example *e, int status)
{
    int closed, ended;

    if (e->in >= 0)
        close(e->in);
    e->in = -1;
    closed = example_says(e, NULL);
    ended = support_reap(e->pid, DEADLINE_MS);
    close(e->out);
    if (!closed || ended != status)
        fail_msg("%s ended with %d instead of %d, having said:\n%s", e->args[0], ended, status, e->text);
}

static void example_said(const struct example *e, const char *word)
{
    if (strstr(e->text, word) == NULL)
        fail_msg("%s does not say \"%s\":\n%s", e->args[0], word, e->text);
}

static void example_write(struct example *e, const char *text)
{
    assert_int_equal(write(e->in, text, strlen(text)), strlen(text));
}

/* The bus of a URL is gone. */
static void nothing_left(const char *url)
{
    const char *file = support_file(url);

    if (access(file, F_OK) == 0)
        fail_msg("%s is left behind", file);
}

/* ------------------------------------------------------------------ the examples */

static void test_hello_says_hello_over_each_backend(void **state)
{
    const char *url[] = { support_url("inproc", "examples", NULL), support_url("shm", "examples", NULL), "shm:" };
    static struct example e;

    (void)state;
    for (int i = 0; i < 3; i++) {
        e = (struct example){ .args = { "hello", url[i] } };
        example_start(&e);
        example_ends(&e, 0);
        assert_string_equal(e.text, "greeting/english: hello, world\n");
    }
    nothing_left(url[1]);
    e = (struct example){ .args = { "hello", "nosuchthing://x" } };
    example_start(&e);
    example_ends(&e, 1);
    example_said(&e, "nosuchthing");
}

static void test_workers_complete_every_round_though_one_is_killed(void **state)
{
    static struct example e = { .args = { "workers", "3", "20" } };

    (void)state;
    example_start(&e);
    example_ends(&e, 0);
    example_said(&e, "was killed by signal 9");
    example_said(&e, "takes the users over");
}

static void test_zero_copy_reads_every_frame_in_place(void **state)
{
    const char *named = support_url("shm", "examples", "members=2&depth=4&loans=300k");
    static struct example e;

    (void)state;
    e = (struct example){ .args = { "zero_copy", "--frames", "100" } };
    example_start(&e);
    example_ends(&e, 0);
    example_said(&e, "receiver: 100 frames, every checksum right; 100 read in place, 0 copied\n");
    example_said(&e, "sender: 100 frames of 1048576 bytes");
    /* Room for a few frames only, so the area is met full. */
    e = (struct example){ .args = { "zero_copy", "--frames", "300", "--size", "100000", named } };
    example_start(&e);
    example_ends(&e, 0);
    example_said(&e, "300 read in place, 0 copied\n");
    if (strstr(e.text, "was full 0 times") != NULL)
        fail_msg("the loan area was never full:\n%s", e.text);
    nothing_left(named);
    e = (struct example){ .args = { "zero_copy", "--size", "1" } };
    example_start(&e);
    example_ends(&e, 2);
}

static void test_custom_transport_two_processes_talk(void **state)
{
    const char *url = support_url("unixgram", "/tmp/examples", NULL);
    static struct example e;

    (void)state;
    for (int own = 0; own < 2; own++) {
        e = (struct example){ .args = { "custom_transport", own ? NULL : url } };
        example_start(&e);
        example_ends(&e, 0);
        example_said(&e, "question: stressed\n");
        example_said(&e, ": desserts\n");
        example_said(&e, ": reward\n");
        example_said(&e, ": evil\n");
    }
    nothing_left(url);
}

/* Whatever was done: who asked for words has not got them. */
static void test_examples_output_that_cannot_be_written_is_an_error(void **state)
{
    const char *const args[][4] = {
        { "hello" }, { "workers", "2", "3" }, { "zero_copy", "--frames", "1" }, { "custom_transport" }, { "event_loop", "shm:", "shm:" },
        { "demo", "examples" },
    };
    static struct example e;

    (void)state;
    for (size_t i = 0; i < sizeof args / sizeof args[0]; i++) {
        e = (struct example){ .output = "/dev/full" };
        memcpy(e.args, args[i], sizeof args[i]);
        example_start(&e);
        example_ends(&e, 1);
        if (strcmp(args[i][0], "demo") == 0)
            example_said(&e, "demo: standard output: No space left on device\n");
    }
}

/* ------------------------------------------------------------------ demo */

/* Who reads its output has gone, its terminal is closed, Ctrl-C: it ends its processes and removes the bus. */
static void test_demo_cut_short_leaves_nothing_behind(void **state)
{
    static const int signals[] = { SIGPIPE, SIGHUP, SIGINT };
    static struct example e;
    char url[64];

    (void)state;
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        e = (struct example){ .args = { "demo", "examples" } };
        example_start(&e);
        assert_true(example_says(&e, " are at work\n"));
        close(e.in);
        if (signals[i] == SIGPIPE) {
            close(e.out);
            assert_int_equal(support_reap(e.pid, DEADLINE_MS), 128 + SIGPIPE);
        } else {
            e.in = -1;
            assert_int_equal(kill(e.pid, signals[i]), 0);
            example_ends(&e, 128 + signals[i]);
            example_said(&e, "Nothing is left of the bus.\ninterrupted\n");
        }
        snprintf(url, sizeof url, "shm://demo-%ld", (long)e.pid);
        nothing_left(url);
    }
}

/* ------------------------------------------------------------------ event_loop */

static void loop_start(struct example *e, const char *chat, const char *clock, const char *input)
{
    *e = (struct example){ .args = { "event_loop", "--every", "20", chat, clock }, .input = input };
    example_start(e);
}

/* A bus that takes two messages at a time: reading has to stop and go on, hundreds of times. */
static void test_event_loop_input_all_lines_shown_in_order(void **state)
{
    enum { LINES = 500 };
    const char *chat = support_url("shm", "examples", "depth=2"), *clock = support_url("shm", "examples", NULL);
    static char lines[LINES * 8], file[64];
    static struct example e;
    size_t len = 0;
    int fd;

    (void)state;
    for (int i = 0; i < LINES; i++)
        len += (size_t)snprintf(lines + len, sizeof lines - len, "%d%s", i, i == LINES - 1 ? "" : "\n");
    snprintf(file, sizeof file, "/tmp/examples.%ld.XXXXXX", (long)getpid());
    fd = mkstemp(file);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, lines, len), len);
    close(fd);
    for (int as_file = 0; as_file < 2; as_file++) {
        int next = 0;

        loop_start(&e, chat, clock, as_file ? file : NULL);
        if (!as_file)
            example_write(&e, lines);
        example_ends(&e, 0);
        for (const char *at = e.text; (at = strstr(at, "line: ")) != NULL; at++)
            assert_int_equal(atoi(at + 6), next++);
        assert_int_equal(next, LINES);
    }
    unlink(file);
    nothing_left(chat);
    nothing_left(clock);
}

static void test_event_loop_two_programs_hear_each_other_until_signals(void **state)
{
    const char *chat = support_url("shm", "examples", NULL), *clock = support_url("shm", "examples", NULL);
    static struct example a, b;
    char tick[64];

    (void)state;
    loop_start(&a, chat, clock, NULL);
    loop_start(&b, chat, clock, NULL);
    snprintf(tick, sizeof tick, "tick: pid %ld:", (long)b.pid);
    assert_true(example_says(&a, tick));
    snprintf(tick, sizeof tick, "tick: pid %ld:", (long)a.pid);
    assert_true(example_says(&b, tick));
    example_write(&a, "from a\n");
    assert_true(example_says(&b, "line: from a\n"));
    assert_true(example_says(&a, "line: from a\n"));
    example_write(&b, "from b\n");
    assert_true(example_says(&a, "line: from b\n"));
    assert_int_equal(kill(a.pid, SIGINT), 0);
    assert_int_equal(kill(b.pid, SIGTERM), 0);
    assert_true(example_says(&a, "messages shown\n"));         /* its input is still open */
    assert_true(example_says(&b, "messages shown\n"));
    example_ends(&a, 0);
    example_ends(&b, 0);
    nothing_left(chat);
    nothing_left(clock);
}

static void test_event_loop_count_and_time_end_it(void **state)
{
    const char *chat = support_url("shm", "examples", NULL), *clock = support_url("shm", "examples", NULL);
    static struct example e;

    (void)state;
    e = (struct example){ .args = { "event_loop", "--count", "3", "--every", "10", chat, clock } };
    example_start(&e);
    assert_true(example_says(&e, "\n3 messages shown\n"));
    example_ends(&e, 0);
    e = (struct example){ .args = { "event_loop", "--seconds", "1", chat, clock } };
    example_start(&e);
    assert_true(example_says(&e, "messages shown\n"));
    example_ends(&e, 0);
    e = (struct example){ .args = { "event_loop", "--count", "none", chat, clock } };
    example_start(&e);
    example_ends(&e, 2);
    example_said(&e, "none");
    nothing_left(chat);
    nothing_left(clock);
}

/* A closed terminal is an end like any other, unless whoever started it wants it to go on. */
static void test_event_loop_hangup_ends_it_but_not_under_nohup(void **state)
{
    const char *chat = support_url("shm", "examples", NULL), *clock = support_url("shm", "examples", NULL);
    static struct example e;

    (void)state;
    for (int ignored = 0; ignored < 2; ignored++) {
        signal(SIGHUP, ignored ? SIG_IGN : SIG_DFL);
        loop_start(&e, chat, clock, NULL);
        signal(SIGHUP, SIG_DFL);
        assert_true(example_says(&e, "tick: "));
        assert_int_equal(kill(e.pid, SIGHUP), 0);
        if (ignored) {
            example_write(&e, "it goes on\n");
            assert_true(example_says(&e, "line: it goes on\n"));
        } else {
            assert_true(example_says(&e, "messages shown\n"));
        }
        example_ends(&e, 0);
        nothing_left(chat);
        nothing_left(clock);
    }
}

/* Whatever it fails of, both buses are closed. */
static void test_event_loop_errors_leave_nothing_behind(void **state)
{
    const char *chat = support_url("shm", "examples", NULL), *clock = support_url("shm", "examples", NULL);
    static struct example e;

    (void)state;
    e = (struct example){ .args = { "event_loop", chat, "nosuchthing://x" } };
    example_start(&e);
    example_ends(&e, 1);
    example_said(&e, "nosuchthing");
    nothing_left(chat);
    loop_start(&e, chat, clock, NULL);
    assert_true(example_says(&e, "tick: "));
    close(e.out);                       /* who read its output has gone */
    assert_int_equal(support_reap(e.pid, DEADLINE_MS), 1);
    close(e.in);
    nothing_left(chat);
    nothing_left(clock);
}

static void test_event_loop_closed_input_is_an_error(void **state)
{
    const char *chat = support_url("shm", "examples", NULL), *clock = support_url("shm", "examples", NULL);
    static struct example e;

    (void)state;
    e = (struct example){ .args = { "event_loop", chat, clock }, .no_input = 1 };
    example_start(&e);
    example_ends(&e, 1);
    example_said(&e, "standard input: Bad file descriptor\n");
    nothing_left(chat);
    nothing_left(clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_says_hello_over_each_backend),
        cmocka_unit_test(test_workers_complete_every_round_though_one_is_killed),
        cmocka_unit_test(test_zero_copy_reads_every_frame_in_place),
        cmocka_unit_test(test_custom_transport_two_processes_talk),
        cmocka_unit_test(test_examples_output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(test_demo_cut_short_leaves_nothing_behind),
        cmocka_unit_test(test_event_loop_input_all_lines_shown_in_order),
        cmocka_unit_test(test_event_loop_two_programs_hear_each_other_until_signals),
        cmocka_unit_test(test_event_loop_count_and_time_end_it),
        cmocka_unit_test(test_event_loop_hangup_ends_it_but_not_under_nohup),
        cmocka_unit_test(test_event_loop_errors_leave_nothing_behind),
        cmocka_unit_test(test_event_loop_closed_input_is_an_error),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
