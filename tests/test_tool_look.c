/* SPDX-License-Identifier: MIT */
/* test_tool_look.c - the tool psbus: ls, top, why. They look on: nobody counts them, and nothing they look at must live. */
#include "tool.h"

#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <termios.h>

/* The line of a text that holds a word; static, "" if there is none. */
static const char *line_with(const char *text, const char *word)
{
    static char line[512];
    const char *at = strstr(text, word), *from = at;

    if (at == NULL)
        return "";
    while (from > text && from[-1] != '\n')
        from--;
    snprintf(line, sizeof line, "%.*s", (int)strcspn(from, "\n"), from);
    return line;
}

/* As line_with(), with runs of blanks as one. */
static const char *row_with(const char *text, const char *word)
{
    static char row[512];
    size_t at = 0;

    for (const char *from = line_with(text, word); *from != '\0'; from++)
        if (*from != ' ' || (at > 0 && row[at - 1] != ' '))
            row[at++] = *from;
    row[at] = '\0';
    return row;
}

/* ------------------------------------------------------------------ ls */

static void test_tool_ls_shows_buses_and_what_became_of_them(void **state)
{
    const char *url = support_url("shm", "tool-ls", NULL), *damaged = support_url("shm", "tool-ls-bad", NULL);
    char expected[256];
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    bus = tool_open(url, "members=9");
    FILE *file = fopen(support_file(damaged), "we");
    assert_non_null(file);
    assert_int_equal(fputs("this is no bus, but it is long enough to be taken for one: some bytes more\n", file) < 0, 0);
    assert_int_equal(fclose(file), 0);

    tool_reader(&sub, bus, url, "lossy=0", "t");
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    assert_status(&t, tool_run_input(&t, NULL, (const char *const[]){ "psbus", "ls", NULL }), 0);
    assert_string_equal(tool_err(&t), "");
    snprintf(expected, sizeof expected, "%s 2/9 1 1 ", url);
    assert_says(row_with(tool_out(&t), url), expected);
    assert_says(row_with(tool_out(&t), url), " ok");
    snprintf(expected, sizeof expected, "%s - - - - damaged", damaged);
    assert_string_equal(row_with(tool_out(&t), damaged), expected);
    assert_silent_about(tool_out(&t), "@");             /* sockets lie there, too */
    tool_done(&t);

    tool_kill(&sub);
    assert_true(tool_members(bus, PS_MEMBER_DEAD, 1));
    assert_status(&t, tool_run_input(&t, NULL, (const char *const[]){ "psbus", "ls", NULL }), 0);
    snprintf(expected, sizeof expected, "%s 1/9 1 0 ", url);
    assert_says(row_with(tool_out(&t), url), expected);
    assert_says(row_with(tool_out(&t), url), " 1 dead");
    tool_done(&t);
    assert_int_equal(unlink(support_file(damaged)), 0);
    assert_ok(ps_close(bus));

    /* Everybody dead: the file is left behind. */
    tool_start(&sub, "sub", url, "t");
    assert_true(support_wait(tool_bus_there, (void *)(uintptr_t)url, DEADLINE_MS));
    tool_kill(&sub);
    assert_status(&t, tool_run_input(&t, NULL, (const char *const[]){ "psbus", "ls", NULL }), 0);
    assert_says(row_with(tool_out(&t), url), " 0/64 ");
    assert_says(row_with(tool_out(&t), url), " left behind");
    tool_done(&t);
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_close(bus));
}

/* In a child: /dev/shm and /proc are empty for it, then for root or for somebody else it is the tool. 77: that cannot be had. */
static int ls_of_nothing(void *arg)
{
    static char program[4096];
    const int *out = arg;

    if (realpath(tool_program(), program) == NULL || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/dev/shm", "tmpfs", 0, NULL) < 0 ||
        mount("none", "/proc", "tmpfs", 0, NULL) < 0)
        return 77;
    int file = open(program, O_RDONLY);         /* where it lies may be closed to others */
    if (file < 0 || dup2(out[0], 2) < 0 || (out[1] != 0 && (setgid((gid_t)out[1]) < 0 || setuid((uid_t)out[1]) < 0)))
        return 78;
    fexecve(file, (char *const[]){ (char[]){ "psbus" }, (char[]){ "ls" }, NULL }, environ);
    return 79;
}

static void test_tool_ls_without_any_bus_says_so(void **state)
{
    static const struct { int user; const char *says; } users[] = {
        { 0, "psbus ls: nobody has a bus\n" }, { 65534, "psbus ls: this user has no bus\n" },
    };

    (void)state;
    if (geteuid() != 0)
        skip();
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    skip();                             /* sanitizers do not start without /proc */
#endif
    for (size_t i = 0; i < 2; i++) {
        int with[2] = { tool_memory("", 0), users[i].user };
        int status = support_reap(support_child(ls_of_nothing, with), DEADLINE_MS);
        if (status == 77)
            skip();
        assert_int_equal(status, 0);
        assert_string_equal(tool_read(with[0]), users[i].says);
        close(with[0]);
    }
}

/*
 * In a child, on a small /dev/shm of its own: two buses left behind, of which one lost its pages and cannot have them again, as
 * the file system is full. Then it is the tool, which gets the words. 77: that cannot be had.
 */
struct hole {
    int out, err;
    const char *const *words;
};

static int hole_leave(void *url)
{
    ps_bus *bus;

    return ps_open(&bus, url);
}

static int hole_look(void *arg)
{
    static char program[4096], page[4096];
    const struct hole *hole = arg;

    if (realpath(tool_program(), program) == NULL || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/dev/shm", "tmpfs", 0, "size=4m") < 0)
        return 77;
    if (support_reap(support_child(hole_leave, (char[]){ "shm://bad" }), DEADLINE_MS) != 0 ||
        support_reap(support_child(hole_leave, (char[]){ "shm://good" }), DEADLINE_MS) != 0)
        return 78;
    int bad = open("/dev/shm/psbus-0/bad", O_RDWR | O_CLOEXEC), rest = open("/dev/shm/rest", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (bad < 0 || rest < 0 || fallocate(bad, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4 << 20) < 0)
        return 79;
    while (write(rest, page, sizeof page) > 0) { }
    if (dup2(hole->out, 1) < 0 || dup2(hole->err, 2) < 0)
        return 80;
    execv(program, (char *const *)(uintptr_t)hole->words);
    return 81;
}

/* Everybody may do that to a bus of his own, and root looks at all of them. */
static void test_tool_memory_that_is_missing_is_damage_and_no_signal(void **state)
{
    static const struct { const char *words[5]; int status; } calls[] = {
        { { "psbus", "ls" }, 0 }, { { "psbus", "ls", "shm://bad" }, 1 }, { { "psbus", "doctor", "shm://bad" }, 1 },
        { { "psbus", "doctor", "--repair", "shm://bad" }, 1 }, { { "psbus", "why", "shm://bad", "t" }, 1 },
        { { "psbus", "top", "--count=1", "shm://bad" }, 1 },
    };

    (void)state;
    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct hole hole = { tool_memory("", 0), tool_memory("", 0), calls[i].words };
        struct tool t = { .out = hole.out, .err = hole.err };
        int status = support_reap(support_child(hole_look, &hole), DEADLINE_MS);
        if (status == 77)
            skip();
        assert_status(&t, status, calls[i].status);
        if (i == 0) {
            assert_says(row_with(tool_out(&t), "shm://bad "), " damaged");
            assert_says(row_with(tool_out(&t), "shm://good "), " left behind");
            assert_string_equal(tool_err(&t), "");
        } else {
            assert_says(tool_err(&t), "shm://bad: the bus's memory is damaged: ");
            assert_int_equal(tool_lines(tool_err(&t)), 1);
        }
        tool_done(&t);
    }
}

static void test_tool_ls_of_a_bus_shows_its_members(void **state)
{
    const char *url = support_url("shm", "tool-rows", "depth=8&evict=-1");
    struct tool t, sub, lossy;
    char expected[256];
    ps_bus *bus;

    (void)state;
    bus = tool_open(url, "name=the%20publisher");
    tool_reader(&sub, bus, url, "lossy=0&name=reader-1", "t");
    tool_start(&lossy, "sub", url, "t", "u/#", "v");
    assert_true(tool_members(bus, PS_MEMBER_LOSSY, 1) && tool_wanted(bus, "v"));
    tool_stop(&sub);
    for (int i = 0; i < 8; i++)
        assert_int_equal(ps_publish(bus, "t", "x", 1), 2);
    assert_status(&t, tool_run(&t, NULL, "ls", url), 0);
    assert_string_equal(tool_err(&t), "");
    assert_int_equal(tool_lines(tool_out(&t)), 4);
    snprintf(expected, sizeof expected, "0 %d awake publisher 0 0 0 0 ", (int)getpid());
    assert_int_equal(strncmp(row_with(tool_out(&t), "the publisher"), expected, strlen(expected)), 0);
    snprintf(expected, sizeof expected, "1 %d stopped reader 1 8 0 0 ", (int)sub.pid);
    assert_int_equal(strncmp(row_with(tool_out(&t), "reader-1"), expected, strlen(expected)), 0);
    snprintf(expected, sizeof expected, "2 %d ", (int)lossy.pid);
    assert_int_equal(strncmp(row_with(tool_out(&t), "lossy"), expected, strlen(expected)), 0);
    assert_says(row_with(tool_out(&t), "lossy"), " reader,lossy 3 ");
    tool_done(&t);
    tool_kill(&sub);
    tool_kill(&lossy);
    assert_status(&t, tool_run(&t, NULL, "ls", url), 0);
    assert_says(line_with(tool_out(&t), "reader-1"), " dead ");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

/* Looking on is no receiver, takes no place, and keeps no bus alive. */
static void test_tool_looking_on_counts_nowhere(void **state)
{
    const char *url = support_url("shm", "tool-look", "members=1");
    struct tool t, top;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_start(&top, "top", "--interval", "0.02", url, "#", "t");
    assert_true(tool_expect(top.out, "MESSAGES/S"));
    for (int i = 0; i < 3; i++) {
        static const char *const command[] = { "ls", "doctor", "why" };
        int rc = i == 2 ? tool_run(&t, NULL, "why", url, "t") : tool_run(&t, NULL, command[i], url);
        /* The only place of this bus is taken, which doctor calls a problem. */
        assert_status(&t, rc, i == 1 ? 1 : 0);
        tool_done(&t);
        assert_int_equal(ps_wanted(bus, "t"), 0);
        assert_int_equal(ps_publish(bus, "t", "x", 1), 0);
        assert_int_equal(ps_members(bus, NULL, NULL, 0), 1);
    }
    assert_ok(ps_close(bus));
    assert_int_equal(access(support_file(url), F_OK), -1);
    (void)tool_signal(&top, SIGINT);    /* its bus is gone: it may have noticed before the signal */
    tool_done(&top);
}

/* ------------------------------------------------------------------ anonymous buses */

static void test_tool_anonymous_bus_found_and_looked_at(void **state)
{
    char mine[64], url[256] = "";
    struct tool t;
    ps_bus *bus;
    ps_sub *sub;

    (void)state;
    assert_ok(ps_open(&bus, "shm:?name=parent&members=7"));
    assert_ok(ps_subscribe(bus, "user/7", NULL, NULL, NULL, &sub));
    assert_status(&t, tool_run_input(&t, NULL, (const char *const[]){ "psbus", "ls", NULL }), 0);
    snprintf(mine, sizeof mine, "shm:///proc/%d/fd/", (int)getpid());
    assert_says(row_with(tool_out(&t), mine), " 1/7 0 1 ");
    assert_int_equal(sscanf(line_with(tool_out(&t), mine), "%255s", url), 1);
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "ls", url), 0);
    assert_says(row_with(tool_out(&t), "parent"), " reader 1 ");
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "why", url, "user/7"), 0);
    assert_says(line_with(tool_out(&t), "parent"), "its filter matches");
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "doctor", url), 0);
    tool_done(&t);
    assert_status(&t, tool_run(&t, NULL, "top", "--count=1", "--interval=0.01", url), 0);
    assert_says(tool_out(&t), "parent");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

/* ------------------------------------------------------------------ why */

static void test_tool_why_names_the_reason_for_each(void **state)
{
    const char *url = support_url("shm", "tool-why", "depth=8&evict=-1");
    struct tool t, one, stopped, dead;
    ps_bus *bus, *deaf, *idle;
    ps_sub *sub;

    (void)state;
    bus = tool_open(url, "name=sender");
    idle = tool_open(url, "name=idle");
    deaf = tool_open(url, "name=deaf&echo=0");
    assert_ok(ps_subscribe(deaf, "a/b", NULL, NULL, NULL, &sub));
    assert_ok(ps_subscribe(deaf, "x", NULL, NULL, NULL, &sub));
    assert_ok(ps_subscribe(deaf, "y", NULL, NULL, NULL, &sub));
    tool_reader(&one, bus, url, "name=reader-1", "a/#");
    assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
    assert_int_equal(ps_publish(bus, "y", "1", 1), 1);
    assert_status(&t, tool_run(&t, NULL, "why", url, "a/b"), 0);
    assert_string_equal(tool_err(&t), "");
    assert_says(row_with(tool_out(&t), "sender"), "no ");
    assert_says(row_with(tool_out(&t), "sender"), "it only publishes");
    assert_says(row_with(tool_out(&t), "idle"), "no subscription");
    assert_says(row_with(tool_out(&t), "deaf"), "yes ");
    assert_says(row_with(tool_out(&t), "deaf"), "one of its 3 filters matches; what it publishes itself does not reach it");
    assert_says(row_with(tool_out(&t), "deaf"), "behind 1 that it has not read yet");
    assert_says(row_with(tool_out(&t), "reader-1"), "yes ");
    assert_says(row_with(tool_out(&t), "reader-1"), "its filter matches; lossy");
    assert_says(row_with(tool_out(&t), "reader-1"), "asleep: will be woken");
    assert_says(tool_out(&t), "a publisher whose ring has room would get 2\n");
    tool_done(&t);

    assert_status(&t, tool_run(&t, NULL, "why", url, "nobody"), 0);
    assert_says(row_with(tool_out(&t), "reader-1"), "no ");
    assert_says(row_with(tool_out(&t), "reader-1"), "its filter does not match");
    assert_says(row_with(tool_out(&t), "deaf"), "none of its 3 filters matches");
    assert_says(tool_out(&t), "a publisher would get 0: nobody wants it");
    tool_done(&t);

    tool_reader(&dead, bus, url, "name=gone", "a/b");
    tool_kill(&dead);
    assert_ok(ps_close(deaf));
    /* In the dead one's place, or lower: what was dead is taken over only when no free place is lower. */
    tool_start(&stopped, "sub", url, "a/b", "other");
    assert_true(tool_wanted(bus, "other"));
    tool_stop(&stopped);
    assert_status(&t, tool_run(&t, NULL, "why", url, "a/b"), 0);
    assert_says(row_with(tool_out(&t), "gone"), "dead ");
    assert_says(row_with(tool_out(&t), "gone"), "its process is gone; counts as a receiver");
    assert_says(row_with(tool_out(&t), "its process is stopped"), "late ");
    tool_done(&t);

    assert_status(&t, tool_run(&t, NULL, "why", url, "a/+"), 2);
    assert_one_line(&t, "psbus why: topic 'a/+': ");
    tool_done(&t);
    tool_kill(&stopped);
    tool_kill(&one);
    assert_ok(ps_close(idle));
    assert_ok(ps_close(bus));
}

static void test_tool_why_full_and_evicted(void **state)
{
    const char *url = support_url("shm", "tool-late", NULL);
    struct tool_stuck stuck = tool_stuck(url, "stuck");
    struct tool t;

    (void)state;
    assert_status(&t, tool_run(&t, NULL, "why", url, "t"), 0);
    assert_says(row_with(tool_out(&t), "stuck"), "late ");
    assert_says(row_with(tool_out(&t), "stuck"), "a publisher's ring is full of what it has not read: that publisher gets PS_EAGAIN");
    assert_says(tool_out(&t), "a publisher whose ring has room would get 1\n");
    tool_done(&t);
    tool_stuck_evict(&stuck);
    assert_status(&t, tool_run(&t, NULL, "why", url, "t"), 0);
    assert_says(row_with(tool_out(&t), "stuck"), "late ");
    assert_says(row_with(tool_out(&t), "stuck"), "evicted for stalling");
    tool_done(&t);
    tool_stuck_close(&stuck);
}

/* ------------------------------------------------------------------ top */

static void test_tool_top_shows_rates(void **state)
{
    const char *url = support_url("shm", "tool-top", NULL);
    struct tool top, sub, stopped;
    double rate = 0;
    ps_bus *bus;

    (void)state;
    bus = tool_open(url, "name=sender");
    tool_reader(&sub, bus, url, "name=reader", "#");
    tool_start(&stopped, "sub", url, "other");
    assert_true(tool_wanted(bus, "other"));
    tool_stop(&stopped);
    tool_start(&top, "top", "--interval", "0.2", "--count", "40", "--rows", "1", url, "#");
    /* Messages until a table shows them; the machine may stand still for a table or two. */
    for (int i = 0; i < 400 && strstr(tool_out(&top), "  busy/topic\n") == NULL; i++) {
        for (int k = 0; k < 10; k++)
            assert_true(ps_publish(bus, "busy/topic", "12345678", 8) >= 1);
        assert_true(ps_publish(bus, "quiet/topic", "12345678", 8) >= 1);
        usleep(20000);
    }
    assert_int_equal(sscanf(line_with(tool_out(&top), "busy/topic"), "%lf", &rate), 1);
    assert_true(rate >= 1 && rate < 100000);
    assert_says(tool_out(&top), "(1 more)");                    /* --rows 1 */
    assert_says(tool_out(&top), "  (all");
    assert_says(row_with(tool_out(&top), " sender"), " publisher ");
    assert_says(row_with(tool_out(&top), " reader,lossy "), " reader");
    assert_silent_about(tool_out(&top), "\033");                /* no terminal */
    tool_stop(&sub);                                            /* it looks on while everybody stands still */
    assert_status(&top, tool_signal(&top, SIGTERM), 0);
    assert_string_equal(tool_err(&top), "");
    tool_done(&top);
    tool_kill(&sub);
    tool_kill(&stopped);
    assert_ok(ps_close(bus));
}

static void test_tool_top_illegal_filter_named(void **state)
{
    const char *url = support_url("shm", "tool-top", NULL);
    struct tool t;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_status(&t, tool_run(&t, NULL, "top", url, "a/#/b"), 2);
    assert_one_line(&t, "psbus top: filter 'a/#/b': ");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

/* The last place of a word, or NULL. */
static const char *last(const char *text, const char *word)
{
    const char *found = NULL;

    for (const char *at = text; (at = strstr(at, word)) != NULL; at++)
        found = at;
    return found;
}

/*
 * With a terminal of its own: draws, gives the terminal back for Ctrl-Z, takes it again, and ends by the key, or the signal,
 * with the terminal as it was.
 */
static void top_on_a_terminal(char key, int number)
{
    const char *url = support_url("shm", "tool-tty", NULL);
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), drawn = 0, resumed = 0, status;
    struct winsize size = { .ws_row = 20, .ws_col = 100 };
    struct termios before, after;
    char seen[65536], name[128];
    size_t have = 0;
    ps_bus *bus;
    pid_t pid;

    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    assert_int_equal(ptsname_r(master, name, sizeof name), 0);
    assert_int_equal(ioctl(master, TIOCSWINSZ, &size), 0);
    assert_int_equal(tcgetattr(master, &before), 0);
    bus = tool_open(url, "name=here");
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(240);
        setsid();
        int tty = open(name, O_RDWR);
        if (tty < 0 || ioctl(tty, TIOCSCTTY, 0) < 0 || dup2(tty, 0) < 0 || dup2(tty, 1) < 0 || dup2(tty, 2) < 0)
            _exit(126);
        execl(tool_program(), "psbus", "top", "--interval", "0.05", url, (char *)NULL);
        _exit(127);
    }
    for (uint64_t begin = support_now_ms(); support_now_ms() - begin < DEADLINE_MS;) {
        struct pollfd p = { master, POLLIN, 0 };
        ssize_t got;
        if (poll(&p, 1, 100) <= 0)
            continue;
        got = read(master, seen + have, sizeof seen - 1 - have);
        if (got <= 0)
            break;                      /* EIO: the other end is closed */
        have += (size_t)got;
        seen[have] = '\0';
        if (!drawn && strstr(seen, "here") != NULL) {
            drawn = 1;
            assert_int_equal(write(master, "x\x1a", 2), 2);
        }
        /* Its process group has no shell to continue it, so the system does not stop it. */
        if (drawn && !resumed && strstr(seen, "\033[?1049l") != NULL &&
            last(seen, "\033[?1049h") > last(seen, "\033[?1049l")) {
            resumed = 1;
            have = 0;
            if (number != 0)
                assert_int_equal(kill(pid, number), 0);
            else
                assert_int_equal(write(master, &key, 1), 1);
        }
        if (have > sizeof seen / 2 && drawn)
            have = 0;
    }
    status = support_reap(pid, DEADLINE_MS);
    seen[have] = '\0';
    assert_int_equal(tcgetattr(master, &after), 0);
    close(master);
    assert_true(drawn && resumed);
    assert_int_equal(status, 0);
    assert_says(seen, "\033[?1049l");
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_ok(ps_close(bus));
}

static void test_tool_top_on_a_terminal_leaves_it_as_it_was(void **state)
{
    (void)state;
    top_on_a_terminal('q', 0);
    top_on_a_terminal('\x1c', 0);                       /* Ctrl-\ */
    top_on_a_terminal(0, SIGHUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_ls_shows_buses_and_what_became_of_them),
        cmocka_unit_test(test_tool_ls_without_any_bus_says_so),
        cmocka_unit_test(test_tool_memory_that_is_missing_is_damage_and_no_signal),
        cmocka_unit_test(test_tool_ls_of_a_bus_shows_its_members),
        cmocka_unit_test(test_tool_looking_on_counts_nowhere),
        cmocka_unit_test(test_tool_anonymous_bus_found_and_looked_at),
        cmocka_unit_test(test_tool_why_names_the_reason_for_each),
        cmocka_unit_test(test_tool_why_full_and_evicted),
        cmocka_unit_test(test_tool_top_shows_rates),
        cmocka_unit_test(test_tool_top_illegal_filter_named),
        cmocka_unit_test(test_tool_top_on_a_terminal_leaves_it_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
