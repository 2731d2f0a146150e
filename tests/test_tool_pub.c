/* SPDX-License-Identifier: MIT */
/* test_tool_pub.c - the tool psbus: pub and sub. What goes in at one end comes out at the other, or somebody says why not. */
#include "tool.h"

#include <poll.h>

/* A sub that has subscribed; reliable, so that it gets everything. */
static void sub_start(struct tool *t, ps_bus *bus, const char *url, const char *option, const char *filter, const char *count)
{
    char reliable[512];

    snprintf(reliable, sizeof reliable, "%s%clossy=0", url, strchr(url, '?') != NULL ? '&' : '?');
    tool_start(t, "sub", reliable, "--timeout", "60", "--count", count, option, filter);
    assert_true(tool_members(bus, PS_MEMBER_READER, 1));
}

static void test_tool_lines_arrive_in_every_format(void **state)
{
    static const char input[] = "one\n\nthree \xc3\xa4 \"quoted\"\ttab\\\nlast";
    static const struct { const char *option, *expected; } formats[] = {
        { "--stats", "a/b\tone\na/b\t\na/b\tthree \xc3\xa4 \"quoted\"\ttab\\\na/b\tlast\n" },
        { "--raw", "one\n\nthree \xc3\xa4 \"quoted\"\ttab\\\nlast\n" },
        { "--whole", "onethree \xc3\xa4 \"quoted\"\ttab\\last" },
    };
    const char *url = support_url("shm", "tool-lines", NULL);
    struct tool sub, pub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        sub_start(&sub, bus, url, formats[i].option, "a/#", "4");
        assert_status(&pub, tool_run(&pub, input, "pub", url, "a/b"), 0);
        assert_status(&sub, tool_wait(&sub), 0);
        assert_string_equal(tool_out(&sub), formats[i].expected);
        assert_string_equal(tool_err(&pub), "");
        if (i == 0)
            assert_says(tool_err(&sub), "psbus sub: 4 messages, 29 bytes, ");
        tool_done(&sub);
        tool_done(&pub);
    }
    assert_ok(ps_close(bus));
}

/* Every byte through JSON: text as text, everything else as base64, and the rest of the keys. */
static void test_tool_json_is_well_formed_and_complete(void **state)
{
    static const struct { const char *topic, *data; size_t size; const char *json; } messages[] = {
        { "t", "plain", 5, "\"topic\":\"t\",\"payload\":\"plain\",\"size\":5," },
        { "t", "", 0, "\"topic\":\"t\",\"payload\":\"\",\"size\":0," },
        { "t/\"\\", "a\"b\\c\n\t\r\x01\x1f\x7f", 11,
          "\"topic\":\"t/\\\"\\\\\",\"payload\":\"a\\\"b\\\\c\\n\\t\\u000d\\u0001\\u001f\\u007f\",\"size\":11," },
        { "t", "a\0b", 3, "\"topic\":\"t\",\"payload\":\"a\\u0000b\",\"size\":3," },
        { "t", "\xe2\x82\xac\xf0\x9f\x98\x80", 7, "\"topic\":\"t\",\"payload\":\"\xe2\x82\xac\xf0\x9f\x98\x80\",\"size\":7," },
        { "t", "\xff", 1, "\"topic\":\"t\",\"payload_base64\":\"/w==\",\"size\":1," },
        { "t", "\xff\xfe", 2, "\"topic\":\"t\",\"payload_base64\":\"//4=\",\"size\":2," },
        { "t", "\xff\xfe\0", 3, "\"topic\":\"t\",\"payload_base64\":\"//4A\",\"size\":3," },
        { "t", "\xc0\xaf", 2, "\"topic\":\"t\",\"payload_base64\":\"wK8=\",\"size\":2," },             /* longer than needed */
        { "t", "\xed\xa0\x80", 3, "\"topic\":\"t\",\"payload_base64\":\"7aCA\",\"size\":3," },         /* a surrogate */
        { "t", "\xf4\x90\x80\x80", 4, "\"topic\":\"t\",\"payload_base64\":\"9JCAgA==\",\"size\":4," },  /* beyond the last */
        { "t", "\xe2\x82", 2, "\"topic\":\"t\",\"payload_base64\":\"4oI=\",\"size\":2," },             /* cut off */
        { "\xff", "x", 1, "\"topic_base64\":\"/w==\",\"payload\":\"x\",\"size\":1," },
    };
    const size_t count = sizeof messages / sizeof messages[0];
    const char *url = support_url("shm", "tool-json", "echo=0");
    char number[16], expected[512];
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    struct tool sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    snprintf(number, sizeof number, "%zu", count);
    tool_start(&sub, "sub", "--json", "--timeout=60", "--count", number, url, "#");
    assert_true(tool_members(bus, PS_MEMBER_READER, 1));
    for (size_t i = 0; i < count; i++)
        assert_true(ps_publish(bus, messages[i].topic, messages[i].data, messages[i].size) > 0);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_ok(ps_stats(bus, &stats));
    const char *line = tool_out(&sub);
    assert_int_equal(tool_lines(line), count);
    for (size_t i = 0; i < count; i++, line = strchr(line, '\n') + 1) {
        unsigned long long sequence;
        int used = 0, length = snprintf(expected, sizeof expected, "{%s", messages[i].json);
        if (strncmp(line, expected, (size_t)length) != 0)
            fail_msg("message %zu is %.200s", i, line);
        assert_int_equal(sscanf(line + length, "\"sequence\":%llu,%n", &sequence, &used), 1);
        assert_int_equal(sequence, i);
        length += used;
        used = snprintf(expected, sizeof expected, "\"publisher\":%llu,\"lost\":0}\n", (unsigned long long)stats.publisher);
        if (strncmp(line + length, expected, (size_t)used) != 0)
            fail_msg("message %zu ends with %.100s", i, line + length);
    }
    tool_done(&sub);
    assert_ok(ps_close(bus));
}

static void test_tool_whole_file_is_one_message(void **state)
{
    const char *url = support_url("shm", "tool-whole", NULL);
    char text[5001], path[64], thrice[sizeof text * 3];
    struct tool sub, pub;
    ps_bus *bus;
    int fd;

    (void)state;
    for (size_t i = 0; i < sizeof text - 1; i++)
        text[i] = "abc\ndef\n"[support_random() % 8];
    text[sizeof text - 1] = '\0';
    fd = tool_memory(text, sizeof text - 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    assert_ok(ps_open(&bus, url));
    sub_start(&sub, bus, url, "--whole", "t", "3");
    assert_status(&pub, tool_run(&pub, NULL, "pub", "--whole", "--count", "3", "--stats", url, "t", path), 0);
    assert_says(tool_err(&pub), "psbus pub: 3 messages, 15000 bytes");
    assert_status(&sub, tool_wait(&sub), 0);
    snprintf(thrice, sizeof thrice, "%s%s%s", text, text, text);
    assert_string_equal(tool_out(&sub), thrice);
    tool_done(&pub);
    tool_done(&sub);
    close(fd);
    assert_ok(ps_close(bus));
}

static void test_tool_pub_count_rate_and_dash(void **state)
{
    const char *url = support_url("shm", "tool-rate", NULL);
    struct tool sub, pub;
    uint64_t begin;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    sub_start(&sub, bus, url, "--raw", "t", "5");
    begin = support_now_ms();
    assert_status(&pub, tool_run(&pub, "1\n2\n3\n4\n5\n6\n7\n", "pub", "--rate", "50", "--count", "5", url, "t", "-"), 0);
    assert_true(support_now_ms() - begin >= 79);        /* the first at once, then every 20 ms */
    assert_status(&sub, tool_wait(&sub), 0);
    assert_string_equal(tool_out(&sub), "1\n2\n3\n4\n5\n");
    tool_done(&pub);
    tool_done(&sub);
    assert_ok(ps_close(bus));
}

static void test_tool_pub_wait_begins_when_somebody_wants_it(void **state)
{
    const char *url = support_url("shm", "tool-wait", NULL);
    struct tool sub, pub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    int in = tool_memory("hello\n", 6);
    tool_exec(&pub, NULL, 0, in, -1, TOOL_ARGS("pub", "--wait", "--timeout", "60", url, "t"));
    close(in);
    assert_true(tool_members(bus, 0, 2));
    tool_start(&sub, "sub", "--raw", "--count=1", "--timeout=60", url, "t");
    assert_status(&pub, tool_wait(&pub), 0);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_string_equal(tool_out(&sub), "hello\n");
    tool_done(&pub);
    tool_done(&sub);
    assert_ok(ps_close(bus));
}

static void test_tool_timeout_is_status_3(void **state)
{
    const char *url = support_url("shm", "tool-time", NULL);
    struct tool t;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_status(&t, tool_run(&t, NULL, "sub", "--timeout", "0.05", "--count", "1", url, "t"), 3);
    assert_says(tool_err(&t), "the time is over after 0 of 1 messages");
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "sub", "--timeout", "0.05", url, "t"), 0);      /* nothing was asked for */
    assert_string_equal(tool_err(&t), "");
    tool_done(&t);
    assert_status(&t, tool_run(&t, "x\n", "pub", "--wait", "--timeout", "0.05", url, "t"), 3);
    assert_one_line(&t, "psbus pub: the time is over; ");
    tool_done(&t);
    assert_status(&t, tool_run(&t, "1\n2\n", "pub", "--rate", "1", "--timeout", "0.05", url, "t"), 3);
    assert_one_line(&t, "psbus pub: the time is over; line ");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

/* ------------------------------------------------------------------ too large, illegal, not there */

static void test_tool_line_over_the_limit_named(void **state)
{
    const char *url = support_url("shm", "tool-limit", "bytes=4k");
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    struct tool sub, pub;
    size_t limit, at = 0;
    char *text, says[128];
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_stats(bus, &stats));
    limit = (size_t)stats.message_max;
    text = calloc(1, 3000000 + 4 * limit);
    assert_non_null(text);
    at += (size_t)sprintf(text + at, "first\n");
    memset(text + at, 'y', limit);                      /* just fits */
    at += limit;
    text[at++] = '\n';
    memset(text + at, 'z', limit + 1);
    at += limit + 1;
    text[at++] = '\n';
    memset(text + at, 'Z', 2000000);                    /* longer than what is kept in memory */
    at += 2000000;
    at += (size_t)sprintf(text + at, "\nlast\n");

    assert_status(&pub, tool_run(&pub, text, "pub", url, "t"), 1);
    snprintf(says, sizeof says, "psbus pub: standard input: line 3 has %zu bytes, the bus takes %zu: not sent", limit + 1, limit);
    assert_one_line(&pub, says);
    tool_done(&pub);

    sub_start(&sub, bus, url, "--raw", "t", "3");
    assert_status(&pub, tool_run(&pub, text, "pub", "--keep-going", url, "t"), 1);
    assert_says(tool_err(&pub), says);
    assert_says(tool_err(&pub), "line 4 has 2000000 bytes");
    assert_int_equal(tool_lines(tool_err(&pub)), 2);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_int_equal(strlen(tool_out(&sub)), 6 + limit + 1 + 5);
    assert_says(tool_out(&sub), "\nlast\n");
    tool_done(&pub);
    tool_done(&sub);

    /* What is not sent is no message of --count. */
    sub_start(&sub, bus, url, "--raw", "t", "3");
    assert_status(&pub, tool_run(&pub, text, "pub", "--keep-going", "--count", "3", url, "t"), 1);
    assert_int_equal(tool_lines(tool_err(&pub)), 2);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_says(tool_out(&sub), "\nlast\n");
    tool_done(&pub);
    tool_done(&sub);
    assert_status(&pub, tool_run(&pub, text, "pub", "--keep-going", "--count", "2", url, "t"), 0);
    assert_string_equal(tool_err(&pub), "");
    tool_done(&pub);

    assert_status(&pub, tool_run(&pub, text, "pub", "--whole", url, "t"), 1);
    assert_one_line(&pub, "psbus pub: standard input: more than the ");
    tool_done(&pub);
    free(text);
    assert_ok(ps_close(bus));
}

static void test_tool_illegal_topics_filters_files_named(void **state)
{
    static const char *const topics[] = { "a/+", "#", "a b", "", "a\tb" };
    static const char *const filters[] = { "a/#/b", "a+", "*", "", "a b" };
    const char *url = support_url("shm", "tool-illegal", NULL);
    struct tool t;

    (void)state;
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        assert_status(&t, tool_run(&t, "x\n", "pub", url, topics[i]), 2);
        assert_one_line(&t, "psbus pub: topic '");
        tool_done(&t);
    }
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        assert_status(&t, tool_run(&t, NULL, "sub", url, "good", filters[i]), 2);
        assert_one_line(&t, "psbus sub: filter '");
        tool_done(&t);
    }
    assert_status(&t, tool_run(&t, NULL, "pub", url, "t", "/nonexistent/file"), 1);
    assert_one_line(&t, "psbus pub: /nonexistent/file: No such file");
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "pub", url, "t", "/"), 1);
    assert_one_line(&t, "psbus pub: /: Is a directory");
    tool_done(&t);
    assert_int_equal(access(support_file(url), F_OK), -1);      /* nothing is left of any of these */
}

static void test_tool_no_permission_said(void **state)
{
    const char *url = support_url("shm", "tool-mode", NULL);
    char path[256], copy[64] = "/tmp/psbus-tool.XXXXXX", program[96], command[1024];
    struct tool t;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    /* A symbolic link may be anybody's: refused for everybody. */
    assert_non_null(mkdtemp(copy));
    snprintf(path, sizeof path, "%s/link", copy);
    assert_int_equal(symlink(support_file(url), path), 0);
    char linked[300];
    snprintf(linked, sizeof linked, "shm://%s", path);
    assert_status(&t, tool_run(&t, "x\n", "pub", linked, "t"), 1);
    assert_one_line(&t, "psbus pub: shm:///tmp/psbus-tool.");
    assert_says(tool_err(&t), ps_strerror(PS_EACCES));
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "ls", linked), 1);
    assert_says(tool_err(&t), ps_strerror(PS_EACCES));
    tool_done(&t);
    unlink(path);
    /* Another user: the tool is copied to where he can run it. */
    snprintf(program, sizeof program, "%s/psbus", copy);
    snprintf(command, sizeof command, "chmod 755 %s && cp %s %s && chmod 755 %s", copy, tool_program(), program, program);
    if (geteuid() == 0 && system(command) == 0) {
        snprintf(path, sizeof path, "shm://%s", support_file(url));
        for (int i = 0; i < 3; i++) {
            const char *const lines[][5] = { { "psbus", "sub", path, "t" }, { "psbus", "ls", path }, { "psbus", "top", path } };
            tool_exec(&t, program, 65534, -1, -1, lines[i]);
            assert_status(&t, tool_wait(&t), 1);
            assert_one_line(&t, "psbus ");
            assert_says(tool_err(&t), ps_strerror(PS_EACCES));
            tool_done(&t);
        }
    }
    unlink(program);
    assert_int_equal(rmdir(copy), 0);
    assert_ok(ps_close(bus));
}

/* No empty input, and no descriptor of our own in its place. */
static void test_tool_pub_closed_input_is_an_error(void **state)
{
    const char *url = support_url("shm", "tool-closed", NULL);
    const char *const lines[][6] = {
        { "psbus", "pub", url, "t" }, { "psbus", "pub", url, "t", "-" }, { "psbus", "pub", "--whole", url, "t" },
    };
    struct tool t;

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        tool_exec(&t, NULL, 0, TOOL_CLOSED, -1, lines[i]);
        assert_status(&t, tool_wait(&t), 1);
        assert_one_line(&t, "psbus pub: standard input: Bad file descriptor");
        tool_done(&t);
    }
    tool_exec(&t, NULL, 0, TOOL_CLOSED, -1, TOOL_ARGS("pub", url, "t", "/dev/null"));
    assert_status(&t, tool_wait(&t), 0);                        /* not asked for, so not missed */
    assert_string_equal(tool_err(&t), "");
    tool_done(&t);
    assert_int_equal(access(support_file(url), F_OK), -1);
}

/* ------------------------------------------------------------------ stopping, losing, standing still */

static void test_tool_signals_end_pub_and_sub_cleanly(void **state)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    const char *url = support_url("shm", "tool-stop", NULL);
    struct tool t;
    ps_bus *bus;
    int ends[2];

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    for (int i = 0; i < 3; i++) {
        tool_start(&t, "sub", url, "t");                        /* asleep on the bus */
        assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
        assert_status(&t, tool_signal(&t, signals[i]), 0);
        assert_string_equal(tool_err(&t), "");
        tool_done(&t);
        tool_exec(&t, NULL, 0, ends[0], -1, TOOL_ARGS("pub", url, "t"));        /* waiting for input */
        assert_true(tool_members(bus, 0, 2));
        assert_status(&t, tool_signal(&t, signals[i]), 0);
        tool_done(&t);
        tool_start(&t, "pub", "--wait", url, "t");              /* waiting for a subscriber */
        assert_true(tool_members(bus, 0, 2));
        assert_status(&t, tool_signal(&t, signals[i]), 0);
        assert_one_line(&t, "psbus pub: stopped; ");
        tool_done(&t);
        assert_true(tool_members(bus, 0, 1));                   /* left, not died */
    }
    close(ends[0]);
    close(ends[1]);
    assert_ok(ps_close(bus));
}

/* A FIFO that nobody writes to yet: pub waits for lines, not for open(2). */
static void test_tool_pub_waits_at_a_fifo_without_a_writer(void **state)
{
    const char *url = support_url("shm", "tool-fifo", NULL);
    char directory[] = "/tmp/psbus-tool.XXXXXX", fifo[64];
    struct tool pub, sub;
    ps_bus *bus;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_ok(ps_open(&bus, url));
    assert_status(&pub, tool_run(&pub, NULL, "pub", "--timeout", "0.2", url, "t", fifo), 3);
    assert_one_line(&pub, "psbus pub: the time is over; ");
    tool_done(&pub);
    tool_start(&pub, "pub", url, "t", fifo);
    assert_true(tool_members(bus, 0, 2));
    assert_status(&pub, tool_signal(&pub, SIGINT), 0);
    assert_string_equal(tool_err(&pub), "");
    tool_done(&pub);

    sub_start(&sub, bus, url, "--raw", "t", "2");
    tool_start(&pub, "pub", url, "t", fifo);
    fd = open(fifo, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "one\ntwo\n", 8), 8);
    close(fd);
    assert_status(&pub, tool_wait(&pub), 0);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_string_equal(tool_out(&sub), "one\ntwo\n");
    tool_done(&pub);
    tool_done(&sub);
    assert_ok(ps_close(bus));
    assert_int_equal(unlink(fifo), 0);
    assert_int_equal(rmdir(directory), 0);
}

/* A pipe that takes no more. */
static int pipe_full(void *arg)
{
    struct pollfd out = { .fd = *(int *)arg, .events = POLLOUT };

    return poll(&out, 1, 0) == 0;
}

/* Whoever reads what sub prints stands still: one signal ends it all the same. */
static void test_tool_sub_stopped_before_a_full_pipe_ends(void **state)
{
    enum { SIZE = 1 << 20 };
    const char *url = support_url("shm", "tool-pipe", "bytes=8M");
    char *payload = calloc(1, SIZE);
    struct tool sub;
    ps_bus *bus;
    int ends[2];

    (void)state;
    assert_non_null(payload);
    assert_ok(ps_open(&bus, url));
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    tool_exec(&sub, NULL, 0, -1, ends[1], TOOL_ARGS("sub", "--whole", url, "t"));
    assert_true(tool_wanted(bus, "t"));
    assert_int_equal(ps_publish(bus, "t", payload, SIZE), 1);
    assert_true(support_wait(pipe_full, &ends[1], DEADLINE_MS));
    assert_status(&sub, tool_signal(&sub, SIGINT), 0);
    assert_one_line(&sub, "psbus sub: stopped; ");
    tool_done(&sub);
    close(ends[0]);
    free(payload);
    assert_ok(ps_close(bus));
}

/* What is printed and what is said to be lost are all there was. */
static void test_tool_sub_says_how_many_it_lost(void **state)
{
    enum { SENT = 1000 };
    const char *url = support_url("shm", "tool-lost", "depth=8");
    unsigned long long lost = 0;
    struct tool sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_start(&sub, "sub", "--raw", url, "t");
    assert_true(tool_members(bus, PS_MEMBER_READER, 1));
    tool_stop(&sub);
    for (int i = 1; i < SENT; i++)
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    assert_int_equal(ps_publish(bus, "t", "last", 4), 1);
    kill(sub.pid, SIGCONT);
    assert_true(tool_expect(sub.err, "psbus sub: lost "));
    assert_true(tool_expect(sub.out, "last"));
    kill(sub.pid, SIGINT);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_one_line(&sub, "psbus sub: lost ");
    assert_int_equal(sscanf(tool_err(&sub), "psbus sub: lost %llu messages", &lost), 1);
    assert_int_equal(lost + (unsigned)tool_lines(tool_out(&sub)), SENT);
    tool_done(&sub);
    assert_ok(ps_close(bus));
}

/* Behind a reader that stands still pub waits, and leaves nothing out; when the reader dies, it goes on. */
static void test_tool_pub_waits_for_a_stopped_reader(void **state)
{
    const char *url = support_url("shm", "tool-wait", "depth=8&evict=-1");
    char lines[2000] = "";
    struct tool sub, pub;
    ps_bus *bus;

    (void)state;
    for (size_t i = 0, at = 0; i < 300; i++)
        at += (size_t)sprintf(lines + at, "%zu\n", i);
    assert_ok(ps_open(&bus, url));
    for (int killed = 0; killed < 2; killed++) {
        char reliable[512];
        snprintf(reliable, sizeof reliable, "%s&lossy=0", url);
        tool_start(&sub, "sub", "--raw", "--count", "300", reliable, "t");
        assert_true(tool_members(bus, PS_MEMBER_READER, 1));
        tool_stop(&sub);
        int in = tool_memory(lines, strlen(lines));
        tool_exec(&pub, NULL, 0, in, -1, TOOL_ARGS("pub", "--stats", url, "t"));
        close(in);
        assert_true(tool_members(bus, PS_MEMBER_PUBLISHER, 1));
        if (killed) {
            tool_kill(&sub);
        } else {
            kill(sub.pid, SIGCONT);
            assert_status(&sub, tool_wait(&sub), 0);
            assert_string_equal(tool_out(&sub), lines);
            tool_done(&sub);
        }
        assert_status(&pub, tool_wait(&pub), 0);
        tool_done(&pub);
    }
    assert_ok(ps_close(bus));
}

static void test_tool_message_of_two_filters_printed_once(void **state)
{
    const char *url = support_url("shm", "tool-twice", NULL);
    struct tool sub, pub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_start(&sub, "sub", "--count", "2", url, "#", "t/+");
    assert_true(tool_wanted(bus, "t/1") && tool_members(bus, PS_MEMBER_ASLEEP, 1));
    assert_status(&pub, tool_run(&pub, "1\n2\n", "pub", url, "t/1"), 0);
    assert_status(&sub, tool_wait(&sub), 0);
    assert_string_equal(tool_out(&sub), "t/1\t1\nt/1\t2\n");
    tool_done(&pub);
    tool_done(&sub);
    assert_ok(ps_close(bus));
}

static void test_tool_sub_output_that_cannot_be_written_is_an_error(void **state)
{
    const char *url = support_url("shm", "tool-sub-full", NULL);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct tool sub;
    ps_bus *bus;

    (void)state;
    assert_true(full >= 0);
    assert_ok(ps_open(&bus, url));
    for (int closed = 0; closed < 2; closed++) {
        tool_exec(&sub, NULL, 0, -1, closed ? TOOL_CLOSED : full, TOOL_ARGS("sub", url, "t"));
        assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        assert_status(&sub, tool_wait(&sub), 1);
        assert_one_line(&sub, "psbus sub: standard output: ");
        tool_done(&sub);
        assert_true(tool_members(bus, 0, 1));           /* it has left, and the bus is whole */
    }
    assert_ok(ps_close(bus));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_lines_arrive_in_every_format),
        cmocka_unit_test(test_tool_json_is_well_formed_and_complete),
        cmocka_unit_test(test_tool_whole_file_is_one_message),
        cmocka_unit_test(test_tool_pub_count_rate_and_dash),
        cmocka_unit_test(test_tool_pub_wait_begins_when_somebody_wants_it),
        cmocka_unit_test(test_tool_timeout_is_status_3),
        cmocka_unit_test(test_tool_line_over_the_limit_named),
        cmocka_unit_test(test_tool_illegal_topics_filters_files_named),
        cmocka_unit_test(test_tool_no_permission_said),
        cmocka_unit_test(test_tool_pub_closed_input_is_an_error),
        cmocka_unit_test(test_tool_signals_end_pub_and_sub_cleanly),
        cmocka_unit_test(test_tool_pub_waits_at_a_fifo_without_a_writer),
        cmocka_unit_test(test_tool_sub_stopped_before_a_full_pipe_ends),
        cmocka_unit_test(test_tool_sub_says_how_many_it_lost),
        cmocka_unit_test(test_tool_pub_waits_for_a_stopped_reader),
        cmocka_unit_test(test_tool_message_of_two_filters_printed_once),
        cmocka_unit_test(test_tool_sub_output_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
