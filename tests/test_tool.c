/* SPDX-License-Identifier: MIT */
/* test_tool.c - the tool psbus: its words. Help, completion, mistakes in the call, output that cannot be written. */
#include "tool.h"

static const char *const commands[] = { "pub", "sub", "ls", "top", "doctor", "why", "bench" };
#define COMMANDS (sizeof commands / sizeof commands[0])

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Copies the options that a text names, sorted, each once, between blanks: " --count --help ". */
static void options_in(const char *text, size_t size, char *list, size_t room)
{
    char found[32][32];
    size_t count = 0;

    for (size_t at = 0; at + 2 < size; at++) {
        size_t length = 2;
        if (text[at] != '-' || text[at + 1] != '-' || (at > 0 && (text[at - 1] == '-' || isalnum((unsigned char)text[at - 1]))))
            continue;
        while (at + length < size && (islower((unsigned char)text[at + length]) || text[at + length] == '-'))
            length++;
        if (length == 2 || length >= sizeof found[0])
            continue;
        size_t i;
        for (i = 0; i < count && (strlen(found[i]) != length || strncmp(found[i], text + at, length) != 0); i++) { }
        if (i < count)
            continue;
        assert_true(count < sizeof found / sizeof found[0]);
        memcpy(found[count], text + at, length);
        found[count++][length] = '\0';
        at += length - 1;
    }
    qsort(found, count, sizeof found[0], by_text);
    size_t at = (size_t)snprintf(list, room, " ");
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(list + at, room - at, "%s ", found[i]);
}

static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');

    return end != NULL ? end + 1 : NULL;
}

/* Of a command's help: only the lines that introduce an option. */
static void options_of_help(const char *command, char *list, size_t room)
{
    struct tool t;
    char lines[2048] = "";
    size_t used = 0;

    assert_status(&t, tool_run(&t, NULL, command, "--help"), 0);
    for (const char *line = tool_out(&t); line != NULL && *line != '\0'; line = next_line(line))
        if (strncmp(line, "  --", 4) == 0)
            used += (size_t)snprintf(lines + used, sizeof lines - used, "%.*s\n", (int)strcspn(line + 2, " ") , line + 2);
    options_in(lines, used, list, room);
    tool_done(&t);
}

static void test_tool_version_is_the_librarys(void **state)
{
    struct tool t;
    char expected[64];

    (void)state;
    snprintf(expected, sizeof expected, "psbus %s\n", ps_version());
    assert_status(&t, tool_run(&t, NULL, "--version"), 0);
    assert_string_equal(tool_out(&t), expected);
    assert_string_equal(tool_err(&t), "");
    tool_done(&t);
}

static void test_tool_without_a_command_help_and_usage_status(void **state)
{
    struct tool t;

    (void)state;
    assert_status(&t, tool_run_input(&t, NULL, (const char *const[]){ "psbus", NULL }), 2);
    assert_string_equal(tool_out(&t), "");
    assert_says(tool_err(&t), "psbus pub");
    tool_done(&t);
}

static void test_tool_help_names_every_command(void **state)
{
    static const char *const ways[] = { "--help", "-h", "help" };
    struct tool t;
    char line[64];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_status(&t, tool_run(&t, NULL, ways[i]), 0);
        for (size_t c = 0; c < COMMANDS; c++) {
            snprintf(line, sizeof line, "\n  psbus %s ", commands[c]);
            assert_says(tool_out(&t), line);
        }
        tool_done(&t);
    }
}

static void test_tool_help_of_a_command_both_ways(void **state)
{
    struct tool t, other;
    char usage[64];

    (void)state;
    for (size_t c = 0; c < COMMANDS; c++) {
        assert_status(&t, tool_run(&t, NULL, commands[c], "--help"), 0);
        assert_status(&other, tool_run(&other, NULL, "help", commands[c]), 0);
        assert_string_equal(tool_out(&t), tool_out(&other));
        snprintf(usage, sizeof usage, "usage: psbus %s ", commands[c]);
        assert_int_equal(strncmp(tool_out(&t), usage, strlen(usage)), 0);
        tool_done(&t);
        tool_done(&other);
    }
}

static char *file_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = calloc(1, 65536);

    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, file) > 100);
    fclose(file);
    return text;
}

/* An option that the command takes is one that help names: by the source. */
static void test_tool_options_are_in_help(void **state)
{
    char path[64], list[512], taken[2048], help[512];

    (void)state;
    for (size_t c = 0; c < COMMANDS; c++) {
        size_t used = 0;
        snprintf(path, sizeof path, "examples/psbus/%s.c", commands[c]);
        char *text = file_text(path);
        for (const char *at = text; (at = strstr(at, "{ \"")) != NULL; at += 3) {
            int length = (int)strspn(at + 3, "abcdefghijklmnopqrstuvwxyz-");
            const char *behind = at + 3 + length;
            if (strncmp(behind, "\", no_argument", 14) == 0 || strncmp(behind, "\", required_argument", 20) == 0)
                used += (size_t)snprintf(taken + used, sizeof taken - used, "--%.*s ", length, at + 3);
        }
        free(text);
        options_in(taken, used, list, sizeof list);
        options_of_help(commands[c], help, sizeof help);
        if (strcmp(list, help) != 0)
            fail_msg("%s takes%sbut help has%s", commands[c], list, help);
    }
}

/* An option that help names is one that the command takes. */
static void test_tool_help_options_are_taken(void **state)
{
    struct tool t;
    char list[512], option[64];

    (void)state;
    for (size_t c = 0; c < COMMANDS; c++) {
        options_of_help(commands[c], list, sizeof list);
        assert_says(list, " --help ");
        for (char *at = strtok(list, " "); at != NULL; at = strtok(NULL, " ")) {
            if (strcmp(at, "--help") == 0)
                continue;
            /* Too many arguments behind it: whatever the option, the command complains of those. */
            snprintf(option, sizeof option, "%s", at);
            int status = tool_run(&t, NULL, commands[c], option, "1", "--help");
            assert_status(&t, status, 0);
            tool_done(&t);
        }
    }
}

/* ------------------------------------------------------------------ completion */

static void test_tool_completions_name_exactly_the_options_of_help(void **state)
{
    static const char *const files[] = { "examples/psbus/psbus.bash", "examples/psbus/_psbus" };
    char help[512], named[512], label[32];

    (void)state;
    for (size_t f = 0; f < 2; f++) {
        char *text = file_text(files[f]);
        for (size_t c = 0; c < COMMANDS; c++) {
            snprintf(label, sizeof label, "\n    %s)", commands[c]);
            char *from = strstr(text, label), *to = from != NULL ? strstr(from, ";;") : NULL;
            if (to == NULL)
                fail_msg("%s has no block for %s", files[f], commands[c]);
            else
                options_in(from, (size_t)(to - from), named, sizeof named);
            options_of_help(commands[c], help, sizeof help);
            if (strcmp(help, named) != 0)
                fail_msg("%s: options of %s are%sbut help has%s", files[f], commands[c], named, help);
        }
        free(text);
    }
}

static int have(const char *program)
{
    char command[128];

    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
    return system(command) == 0;
}

/* What bash would offer behind that line. */
static void bash_offers(const char *line, const char *expected)
{
    struct tool t;
    const char *const argv[] = {
        "bash", "-c",
        "source examples/psbus/psbus.bash; COMP_LINE=$0; COMP_POINT=${#0}; _psbus; echo \"${COMPREPLY[*]}\"", line, NULL,
    };

    tool_exec(&t, "/bin/bash", 0, -1, -1, argv);
    assert_status(&t, tool_wait(&t), 0);
    if (strcmp(tool_out(&t), expected) != 0)
        fail_msg("behind \"%s\" bash offers: %s", line, tool_out(&t));
    assert_string_equal(tool_err(&t), "");
    tool_done(&t);
}

/* Whether bash is told that they are names of files, of which it quotes the blanks. */
static void bash_quotes(const char *line, int files)
{
    struct tool t;
    const char *const argv[] = {
        "bash", "-c",
        "source examples/psbus/psbus.bash; compopt() { echo \"$*\"; }; COMP_LINE=$0; COMP_POINT=${#0}; _psbus; exit 0", line, NULL,
    };

    tool_exec(&t, "/bin/bash", 0, -1, -1, argv);
    assert_status(&t, tool_wait(&t), 0);
    assert_string_equal(tool_out(&t), files ? "-o filenames\n" : "");
    tool_done(&t);
}

static void test_tool_bash_completion_works(void **state)
{
    const char *url = support_url("shm", "tool-complete", NULL);
    char line[256], expected[256];
    ps_bus *bus;

    (void)state;
    if (access("/bin/bash", X_OK) < 0)
        skip();
    bash_offers("psbus to", "top\n");
    bash_offers("psbus --v", "--version\n");
    bash_offers("psbus help w", "why\n");
    bash_offers("psbus pub --w", "--whole --wait\n");
    bash_offers("psbus top --rows ", "\n");
    bash_offers("psbus pub --count 3 shm://x topic Makef", "Makefile\n");
    bash_offers("psbus sub shm://x Makef", "\n");
    bash_quotes("psbus pub shm://x topic Makef", 1);
    bash_quotes("psbus sub --j", 0);
    assert_ok(ps_open(&bus, url));
    assert_true(ps_fd(bus) >= 0);       /* a socket beside the file: not offered */
    assert_true(ps_dispatch(bus, 0, 1) >= 0);
    snprintf(line, sizeof line, "psbus doctor --repair %s", url);
    snprintf(expected, sizeof expected, "%s\n", url + 4);       /* bash has "shm:" on the line already */
    bash_offers(line, expected);
    assert_ok(ps_close(bus));
}

static void test_tool_zsh_completion_is_zsh(void **state)
{
    (void)state;
    if (!have("zsh"))
        skip();
    assert_int_equal(system("zsh -n examples/psbus/_psbus"), 0);
}

/* ------------------------------------------------------------------ mistakes in the call */

struct mistake {
    const char *args[6];
    const char *says[3];
};

static void test_tool_mistakes_in_the_call_named_in_one_line(void **state)
{
    static const struct mistake mistakes[] = {
        { { "publish" }, { "unknown command 'publish'", "did you mean 'pub'?" } },
        { { "tpo" }, { "unknown command 'tpo'", "did you mean 'top'?" } },
        { { "docter" }, { "did you mean 'doctor'?" } },
        { { "xyzzyx" }, { "unknown command 'xyzzyx'", "--help" } },
        { { "foo" }, { "unknown command 'foo' (see" } },                        /* one letter of "top" is no help */
        { { "pub", "--fog" }, { "unknown option '--fog' (see" } },
        { { "--versoin" }, { "unknown option '--versoin'", "did you mean '--version'?" } },
        { { "help", "subb" }, { "did you mean 'sub'?" } },
        { { "help", "sub", "more" }, { "'more' is one argument too many" } },
        { { "--version", "more" }, { "'more' is one argument too many" } },
        { { "pub", "--cuont", "3" }, { "psbus pub: unknown option '--cuont'", "did you mean '--count'?" } },
        { { "pub", "--keepgoing" }, { "did you mean '--keep-going'?" } },
        { { "sub", "--jsn" }, { "psbus sub: unknown option '--jsn'", "did you mean '--json'?" } },
        { { "ls", "--hlep" }, { "psbus ls: unknown option '--hlep'", "did you mean '--help'?" } },
        { { "top", "--intervall", "1" }, { "did you mean '--interval'?" } },
        { { "doctor", "--repare" }, { "did you mean '--repair'?" } },
        { { "why", "--halp" }, { "did you mean '--help'?" } },
        { { "bench", "--second=1" }, { "a URL is needed" } },                   /* short for --seconds */
        { { "bench", "--sconds", "1" }, { "did you mean '--seconds'?" } },
        { { "sub", "-x" }, { "unknown option '-x'" } },
        { { "sub", "--count" }, { "option '--count' needs a value" } },
        { { "sub", "--raw=1" }, { "option '--raw' takes no value" } },
        { { "sub", "--count", "0", "u", "f" }, { "--count '0' is not a whole number above 0" } },
        { { "sub", "--count", "-1", "u", "f" }, { "--count '-1'" } },
        { { "sub", "--count", "1x", "u", "f" }, { "--count '1x'" } },
        { { "sub", "--count", "99999999999999999999", "u" }, { "--count '99999999999999999999'" } },
        { { "sub", "--timeout", "soon", "u", "f" }, { "--timeout 'soon' is not a number above 0" } },
        { { "sub", "--timeout", "nan", "u", "f" }, { "--timeout 'nan'" } },
        { { "pub", "--rate", "0", "u", "t" }, { "--rate '0'" } },
        { { "top", "--interval", "0", "u" }, { "--interval '0'" } },
        { { "top", "--rows", "none", "u" }, { "--rows 'none'" } },
        { { "bench", "--seconds", "-3", "u" }, { "--seconds '-3'" } },
        { { "sub", "--raw", "--json", "u", "f" }, { "exclude each other" } },
        { { "pub", "shm://x" }, { "psbus pub: a URL and a topic are needed", "psbus pub --help" } },
        { { "sub", "shm://x" }, { "a URL and at least one filter are needed" } },
        { { "top" }, { "a URL is needed" } },
        { { "doctor" }, { "a URL is needed" } },
        { { "why", "shm://x" }, { "a URL and a topic are needed" } },
        { { "bench" }, { "a URL is needed" } },
        { { "pub", "u", "t", "file", "more" }, { "'more' is one argument too many" } },
        { { "ls", "u", "more" }, { "'more' is one argument too many" } },
        { { "doctor", "u", "more" }, { "'more' is one argument too many" } },
        { { "why", "u", "t", "more" }, { "'more' is one argument too many" } },
        { { "bench", "u", "more" }, { "'more' is one argument too many" } },
    };
    struct tool t;

    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        const char *argv[8] = { "psbus" };
        memcpy(argv + 1, mistakes[i].args, sizeof mistakes[i].args);
        assert_status(&t, tool_run_input(&t, NULL, argv), 2);
        assert_string_equal(tool_out(&t), "");
        assert_one_line(&t, "psbus");
        for (size_t k = 0; k < 3 && mistakes[i].says[k] != NULL; k++)
            assert_says(tool_err(&t), mistakes[i].says[k]);
        tool_done(&t);
    }
}

/* A URL that is wrong, for every command; the library's words are passed on. */
static void test_tool_wrong_url_named_in_one_line(void **state)
{
    static const struct { const char *url, *says; int status; } urls[] = {
        { "nonsense", "the URL \"nonsense\" has", 2 }, { "shmm://x", "shmm", 1 }, { "shm://x?depht=4", "depht", 2 },
        { "shm://a..b/../c", "c", 2 }, { "shm://.x", ".x", 2 }, { "shm://x?members=0", "members", 2 }, { "", "", 2 },
        { "remote://host/x", "remote", 1 },
    };
    struct tool t;
    char front[32];

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
        for (size_t c = 0; c < COMMANDS; c++) {
            /* What a command has no use for would be one argument too many. */
            int two = strcmp(commands[c], "pub") == 0 || strcmp(commands[c], "sub") == 0 || strcmp(commands[c], "why") == 0;
            int status = two ? tool_run(&t, "x\n", commands[c], urls[i].url, "t") : tool_run(&t, "", commands[c], urls[i].url);
            assert_status(&t, status, urls[i].status);
            if (strcmp(commands[c], "doctor") != 0 || tool_lines(tool_err(&t)) > 0) {
                snprintf(front, sizeof front, "psbus %s: ", commands[c]);
                assert_one_line(&t, front);
                assert_says(tool_err(&t), urls[i].says);
            } else {
                assert_says(tool_out(&t), "problem: ");
            }
            tool_done(&t);
        }
}

static void test_tool_no_bus_said_and_not_made(void **state)
{
    static const char *const looking[] = { "ls", "top", "why" };
    const char *url = support_url("shm", "tool-none", NULL);
    struct tool t;
    char front[32];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        int why = strcmp(looking[i], "why") == 0;
        int status = why ? tool_run(&t, NULL, looking[i], url, "t") : tool_run(&t, NULL, looking[i], url);
        assert_status(&t, status, 1);
        snprintf(front, sizeof front, "psbus %s: %s: ", looking[i], url);
        assert_one_line(&t, front);
        assert_says(tool_err(&t), ps_strerror(PS_ENOENT));
        tool_done(&t);
        assert_int_equal(access(support_file(url), F_OK), -1);
    }
    assert_status(&t, tool_run(&t, "x\n", "pub", support_url("shm", "tool-none", "create=0"), "t"), 1);
    assert_says(tool_err(&t), ps_strerror(PS_ENOENT));
    tool_done(&t);
}

/* ------------------------------------------------------------------ output that cannot be written */

static void test_tool_output_that_cannot_be_written_is_an_error(void **state)
{
    const char *url = support_url("shm", "tool-full", NULL);
    const char *const lines[][6] = {
        { "psbus", "--help" }, { "psbus", "--version" }, { "psbus", "help", "pub" }, { "psbus", "ls" }, { "psbus", "ls", url },
        { "psbus", "why", url, "t" }, { "psbus", "doctor", url }, { "psbus", "bench", "--seconds", "0.1", "inproc://b" },
    };
    const char *const top[] = { "psbus", "top", "--count=1", "--interval=0.01", url, NULL };
    ps_bus *bus;
    struct tool t;

    (void)state;
    assert_ok(ps_open(&bus, url));
    for (size_t i = 0; i <= sizeof lines / sizeof lines[0]; i++) {
        int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        assert_true(full >= 0);
        tool_exec(&t, NULL, 0, -1, full, i < sizeof lines / sizeof lines[0] ? lines[i] : top);
        assert_status(&t, tool_wait(&t), 1);
        assert_one_line(&t, "psbus");
        assert_says(tool_err(&t), "standard output: ");
        tool_done(&t);
    }
    assert_ok(ps_close(bus));
}

/* Who reads our output has gone: he had enough. */
static void test_tool_closed_pipe_is_a_quiet_end(void **state)
{
    const char *url = support_url("shm", "tool-pipe", NULL);
    const char *const lines[][6] = {
        { "psbus", "--help" }, { "psbus", "help", "pub" }, { "psbus", "ls" }, { "psbus", "ls", url },
        { "psbus", "why", url, "t" }, { "psbus", "doctor", url }, { "psbus", "top", url }, { "psbus", "sub", url, "#" },
        { "psbus", "top", "--interval=60", url }, { "psbus", "sub", "--json", url, "t" },
    };
    ps_bus *bus;
    struct tool t;

    (void)state;
    assert_ok(ps_open(&bus, url));
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        close(ends[0]);
        tool_exec(&t, NULL, 0, -1, ends[1], lines[i]);
        assert_status(&t, tool_wait(&t), 0);
        assert_string_equal(tool_err(&t), "");
        tool_done(&t);
    }
    assert_ok(ps_close(bus));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_version_is_the_librarys),
        cmocka_unit_test(test_tool_without_a_command_help_and_usage_status),
        cmocka_unit_test(test_tool_help_names_every_command),
        cmocka_unit_test(test_tool_help_of_a_command_both_ways),
        cmocka_unit_test(test_tool_options_are_in_help),
        cmocka_unit_test(test_tool_help_options_are_taken),
        cmocka_unit_test(test_tool_completions_name_exactly_the_options_of_help),
        cmocka_unit_test(test_tool_bash_completion_works),
        cmocka_unit_test(test_tool_zsh_completion_is_zsh),
        cmocka_unit_test(test_tool_mistakes_in_the_call_named_in_one_line),
        cmocka_unit_test(test_tool_wrong_url_named_in_one_line),
        cmocka_unit_test(test_tool_no_bus_said_and_not_made),
        cmocka_unit_test(test_tool_output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(test_tool_closed_pipe_is_a_quiet_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
