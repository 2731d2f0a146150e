/* SPDX-License-Identifier: MIT */
/* test_tool_doctor.c - the tool psbus: doctor. Each thing that can be wrong with a bus is found, and what can be repaired is. */
#include "tool.h"

#include <glob.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#define HEADER_VERSION 12               /* offset of the layout's number in a bus's file */

static int doctor(struct tool *t, const char *url)
{
    return tool_run(t, NULL, "doctor", url);
}

static int repair(struct tool *t, const char *url)
{
    return tool_run(t, NULL, "doctor", "--repair", url);
}

/* Asks doctor again until it says the word: for a second a reader may be just busy. What it said stays in t. */
struct doctor_says {
    struct tool *t;
    const char *url, *word;
};

static int doctor_said(void *arg)
{
    struct doctor_says *d = arg;

    if (d->t->pid != 0)
        tool_done(d->t);
    (void)doctor(d->t, d->url);
    return strstr(tool_out(d->t), d->word) != NULL;
}

static int doctor_says(struct tool *t, const char *url, const char *word)
{
    struct doctor_says d = { t, url, word };

    t->pid = 0;
    return support_wait(doctor_said, &d, DEADLINE_MS);
}

/* "pid 123" of a tool. */
static const char *pid_of(const struct tool *t)
{
    static char text[32];

    snprintf(text, sizeof text, "pid %d", (int)t->pid);
    return text;
}

static void test_tool_doctor_healthy_bus_is_status_0(void **state)
{
    const char *url = support_url("shm", "doctor-ok", NULL);
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_reader(&sub, bus, url, "lossy=0", "t");
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    for (int mend = 0; mend < 2; mend++) {
        assert_status(&t, mend ? repair(&t, url) : doctor(&t, url), 0);
        assert_says(tool_out(&t), ": nothing is wrong\n");
        assert_int_equal(tool_lines(tool_out(&t)), 1);
        assert_string_equal(tool_err(&t), "");
        tool_done(&t);
    }
    tool_kill(&sub);
    assert_ok(ps_close(bus));
}

static void test_tool_doctor_no_bus(void **state)
{
    const char *url = support_url("shm", "doctor-none", NULL);
    struct tool t;

    (void)state;
    for (int mend = 0; mend < 2; mend++) {
        assert_status(&t, mend ? repair(&t, url) : doctor(&t, url), 1);
        assert_one_line(&t, "psbus doctor: shm://");
        assert_says(tool_err(&t), ": no such bus");
        assert_string_equal(tool_out(&t), "");
        tool_done(&t);
    }
    assert_int_equal(access(support_file(url), F_OK), -1);
}

static void test_tool_doctor_dead_members_found_and_repaired(void **state)
{
    enum { DEAD = 3 };
    const char *url = support_url("shm", "doctor-dead", NULL);
    struct tool t, subs[DEAD];
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    for (int i = 0; i < DEAD; i++) {
        tool_start(&subs[i], "sub", url, "t");
        assert_true(tool_members(bus, PS_MEMBER_READER, i + 1));
    }
    for (int i = 0; i < DEAD; i++)
        support_kill(subs[i].pid);
    assert_true(ps_wanted(bus, "t") > 0);
    assert_status(&t, doctor(&t, url), 1);
    for (int i = 0; i < DEAD; i++) {
        assert_says(tool_out(&t), pid_of(&subs[i]));
        tool_done(&subs[i]);
    }
    assert_says(tool_out(&t), ": dead; its place waits for the next member, and its filters");
    assert_says(tool_out(&t), "to do: psbus doctor --repair shm://");
    assert_says(tool_out(&t), ": 3 problems\n");
    tool_done(&t);
    assert_true(tool_members(bus, PS_MEMBER_DEAD, DEAD));       /* looking has changed nothing */
    assert_status(&t, repair(&t, url), 0);
    assert_says(tool_out(&t), "repaired: 3 dead members' places");
    assert_says(tool_out(&t), ": nothing is wrong\n");
    assert_string_equal(tool_err(&t), "");
    tool_done(&t);
    assert_int_equal(ps_members(bus, NULL, NULL, 0), 1);
    assert_int_equal(ps_wanted(bus, "t"), 0);
    assert_ok(ps_close(bus));
}

/* Only who has published may have left messages. */
static void test_tool_doctor_dead_publisher_may_have_left_messages(void **state)
{
    const char *url = support_url("shm", "doctor-sent", NULL);
    struct tool t, pub;
    ps_bus *bus;
    int ends[2];

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_subscribe(bus, "t", NULL, NULL, NULL, NULL));
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], "x\n", 2), 2);
    tool_exec(&pub, NULL, 0, ends[0], -1, TOOL_ARGS("pub", url, "t"));
    assert_true(tool_members(bus, PS_MEMBER_PUBLISHER, 1));
    tool_kill(&pub);
    close(ends[0]);
    close(ends[1]);
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), ": dead; its place and its last messages wait for the next member\n");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

/* Nobody lives there any more: joining and leaving removes the file, as the last one out does. */
static void test_tool_doctor_bus_left_behind_is_removed(void **state)
{
    const char *url = support_url("shm", "doctor-left", NULL);
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_start(&sub, "sub", url, "t");
    assert_true(tool_wanted(bus, "t"));
    assert_ok(ps_close(bus));
    tool_kill(&sub);
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), "removes the bus, as nobody is there");
    tool_done(&t);
    assert_int_equal(access(support_file(url), F_OK), 0);
    assert_status(&t, repair(&t, url), 0);
    assert_says(tool_out(&t), "repaired: the file ");
    tool_done(&t);
    assert_int_equal(access(support_file(url), F_OK), -1);
}

/* ------------------------------------------------------------------ who holds publishers back */

static void test_tool_doctor_stuck_reader_named_with_its_pid(void **state)
{
    const char *url = support_url("shm", "doctor-stuck", "depth=8&evict=-1");
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_reader(&sub, bus, url, "lossy=0&name=slowpoke", "t");
    tool_stop(&sub);
    assert_status(&t, doctor(&t, url), 1);                      /* stopped, and nobody waits yet */
    assert_says(tool_out(&t), pid_of(&sub));
    assert_says(tool_out(&t), "\"slowpoke\": its process stands still");
    assert_says(tool_out(&t), "kill -CONT ");
    tool_done(&t);
    while (ps_publish(bus, "t", "x", 1) == 1) { }
    assert_true(doctor_says(&t, url, "holds publishers back: "));
    assert_says(tool_out(&t), "\"slowpoke\": holds publishers back: the fullest ring waits for it to 100 %, 8 messages behind");
    assert_says(tool_out(&t), "is stopped");
    assert_says(tool_out(&t), "evict=MS");
    assert_says(tool_out(&t), ", unless it is inside a borrowed message of theirs (PS_BORROW)");
    assert_says(tool_out(&t), ": 1 problem\n");
    tool_done(&t);
    assert_status(&t, repair(&t, url), 1);
    assert_says(tool_out(&t), "nothing of this can be repaired from here");
    tool_done(&t);
    kill(sub.pid, SIGCONT);
    assert_true(tool_expect(sub.out, "t\tx\n"));
    assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
    assert_status(&t, doctor(&t, url), 0);
    tool_done(&t);
    tool_kill(&sub);
    assert_ok(ps_close(bus));
}

/* It runs, but does not read. */
static void test_tool_doctor_evicted_and_idle_reader_named(void **state)
{
    const char *url = support_url("shm", "doctor-evict", NULL);
    struct tool_stuck stuck = tool_stuck(url, "idler");
    struct tool t;

    (void)state;
    assert_true(doctor_says(&t, url, "\"idler\": holds publishers back: "));
    assert_says(tool_out(&t), "does not call ps_dispatch()");
    tool_done(&t);
    tool_stuck_evict(&stuck);
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), "\"idler\": was evicted for stalling");
    tool_done(&t);
    tool_stuck_close(&stuck);
}

/* They stand still, and what they have lost meanwhile nobody has counted yet. */
static void test_tool_doctor_stopped_readers_will_have_lost(void **state)
{
    enum { SENT = 100 };
    static const char *const options[] = { "lossy=1&name=dozer", "lossy=0&name=dozer" };
    static const char *const says[] = { "\"dozer\": its process stands still; of ", "\"dozer\": was evicted for stalling" };
    const char *url = support_url("shm", "doctor-behind", NULL);
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    for (int i = 0; i < 2; i++) {
        bus = tool_open(url, "depth=8&evict=20&block=60000");
        tool_reader(&sub, bus, url, options[i], "t");
        tool_stop(&sub);
        for (int k = 0; k < 8; k++)
            assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        assert_status(&t, doctor(&t, url), 1);
        assert_silent_about(tool_out(&t), "will have lost");    /* it is all there */
        tool_done(&t);
        for (int k = 8; k < SENT; k++)
            assert_true(ps_publish(bus, "t", "x", 1) >= 0);
        assert_status(&t, doctor(&t, url), 1);
        assert_says(tool_out(&t), says[i]);
        assert_says(tool_out(&t), "; of 100 not read yet it will have lost all but at most the last 8 of each publisher\n");
        tool_done(&t);
        tool_kill(&sub);
        assert_ok(ps_close(bus));
    }
}

/* ------------------------------------------------------------------ the file */

/* The sockets beside the bus's file: with remove, they go. How many there were. */
static int sockets(const char *url, int remove)
{
    char pattern[512];
    glob_t found;
    int count = 0;

    snprintf(pattern, sizeof pattern, "%s@*", support_file(url));
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++, count++)
        if (remove)
            assert_int_equal(unlink(found.gl_pathv[i]), 0);
    globfree(&found);
    return count;
}

/* What a member that was killed leaves. */
static void leave_socket(const char *url)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s@0123abcd.1", support_file(url));
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    close(fd);
    assert_int_equal(sockets(url, 0), 1);
}

static void patch(const char *path, off_t at, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, at), size);
    close(fd);
}

/* Of another version, or damaged: removed only when nobody holds it, which the kernel knows. */
static void test_tool_doctor_other_version_and_damage(void **state)
{
    static const struct { off_t at; const char *bytes; size_t size; const char *says; } damages[] = {
        { HEADER_VERSION, "\x63\0\0\0", 4, "problem: the bus was made by an incompatible version: " },
        { 16, "\xff\xff", 2, "problem: the bus's memory is damaged: " },
        { 0, "garbage!", 8, "problem: the bus's memory is damaged: " },
    };
    struct tool t, sub;

    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        const char *url = support_url("shm", "doctor-bad", NULL);
        ps_bus *bus;

        assert_ok(ps_open(&bus, url));
        tool_start(&sub, "sub", url, "t");
        assert_true(tool_wanted(bus, "t"));
        patch(support_file(url), damages[i].at, damages[i].bytes, damages[i].size);
        assert_status(&t, doctor(&t, url), 1);
        assert_says(tool_out(&t), damages[i].says);
        assert_says(tool_out(&t), support_file(url));
        assert_says(tool_out(&t), "to do: end its members");
        assert_string_equal(tool_err(&t), "");
        tool_done(&t);
        assert_status(&t, repair(&t, url), 1);
        assert_one_line(&t, "psbus doctor: /dev/shm/psbus-");
        assert_says(tool_err(&t), "somebody holds it: not removed");
        tool_done(&t);
        assert_int_equal(access(support_file(url), F_OK), 0);
        /* One dies, the other leaves; the last one out removes it, so it is put back as a crash would leave it. */
        tool_kill(&sub);
        char kept[256];
        snprintf(kept, sizeof kept, "%s.kept", support_file(url));
        assert_int_equal(rename(support_file(url), kept), 0);
        assert_ok(ps_close(bus));
        assert_int_equal(rename(kept, support_file(url)), 0);
        leave_socket(url);
        assert_status(&t, doctor(&t, url), 1);
        tool_done(&t);
        assert_status(&t, repair(&t, url), 0);
        assert_says(tool_out(&t), "repaired: the file ");
        tool_done(&t);
        assert_int_equal(access(support_file(url), F_OK), -1);
        assert_int_equal(sockets(url, 0), 0);
    }
}

/* By a path of one's own it may be anybody's file: never removed. */
/* A file that is no bus. */
static void make_stranger(char path[64])
{
    int fd = mkstemp(strcpy(path, "/dev/shm/psbus-tool.XXXXXX"));
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 100000), 0);
    close(fd);
}

static void test_tool_doctor_never_removes_a_file_that_is_no_bus(void **state)
{
    char path[64], url[128];
    struct tool t;

    (void)state;
    make_stranger(path);
    snprintf(url, sizeof url, "shm://%s", path);
    assert_status(&t, repair(&t, url), 1);
    assert_says(tool_out(&t), "is no bus of psbus");
    assert_says(tool_out(&t), "nothing of this can be repaired from here");
    tool_done(&t);
    assert_int_equal(unlink(path), 0);
}

/* What is advised is what works. */
static void test_tool_doctor_advises_what_it_does(void **state)
{
    const char *url = support_url("shm", "doctor-advice", NULL);
    char path[64], named[192], upper[128];
    struct tool t;

    (void)state;
    make_stranger(path);
    snprintf(named, sizeof named, "shm://%s", path);
    assert_status(&t, doctor(&t, named), 1);
    assert_silent_about(tool_out(&t), "--repair");
    assert_says(tool_out(&t), "to do: end its members, if there are any, and remove the file yourself");
    tool_done(&t);
    assert_int_equal(unlink(path), 0);

    snprintf(named, sizeof named, "shm://%s", support_file(url));       /* the same file, by its path and in another spelling */
    snprintf(upper, sizeof upper, "SHM%s", url + 3);
    for (int i = 0; i < 2; i++) {
        char expected[256];
        ps_bus *bus;
        assert_ok(ps_open(&bus, url));
        char kept[256];
        snprintf(kept, sizeof kept, "%s.kept", support_file(url));
        assert_int_equal(rename(support_file(url), kept), 0);
        assert_ok(ps_close(bus));
        assert_int_equal(rename(kept, support_file(url)), 0);
        patch(support_file(url), 0, "garbage!", 8);
        snprintf(expected, sizeof expected, "then psbus doctor --repair %s removes the file", i == 0 ? named : upper);
        assert_status(&t, doctor(&t, i == 0 ? named : upper), 1);
        assert_says(tool_out(&t), expected);
        tool_done(&t);
        assert_status(&t, repair(&t, i == 0 ? named : upper), 0);
        tool_done(&t);
        assert_int_equal(access(support_file(url), F_OK), -1);
    }

    assert_status(&t, doctor(&t, "remote://x"), 1);
    assert_says(tool_out(&t), "problem: not supported here");
    assert_silent_about(tool_out(&t), "tmpfs");
    tool_done(&t);
}

/* A directory of the test's own, with a copy of the tool that every user may run. */
static void strangers_tool(char directory[64], char program[128])
{
    char command[1024];
    assert_non_null(mkdtemp(directory));
    snprintf(program, 128, "%s/psbus", directory);
    snprintf(command, sizeof command, "cp %s %s && chmod 755 %s", tool_program(), program, program);
    assert_int_equal(system(command), 0);
}

/* Root is asked for a mode, as everybody is who does not own the file. */
static void test_tool_doctor_of_another_users_bus_names_the_mode(void **state)
{
    enum { OWNER = 12345 };
    char directory[64] = "/dev/shm/psbus-tool.XXXXXX", program[128], path[128], url[160], expected[256];
    char mend[192];
    struct tool t, sub;

    (void)state;
    if (geteuid() != 0)
        skip();
    strangers_tool(directory, program);
    snprintf(path, sizeof path, "%s/bus", directory);
    snprintf(url, sizeof url, "shm://%s", path);
    snprintf(mend, sizeof mend, "%s?mode=0600", url);
    assert_true(chown(directory, OWNER, 0) == 0 && chmod(directory, 0755) == 0);
    tool_exec(&sub, program, OWNER, -1, -1, TOOL_ARGS("sub", url, "t"));
    assert_true(support_wait(tool_bus_there, url, DEADLINE_MS));
    tool_kill(&sub);
    assert_status(&t, doctor(&t, url), 1);
    snprintf(expected, sizeof expected, "to do: psbus doctor --repair %s removes the bus", mend);
    assert_says(tool_out(&t), expected);
    tool_done(&t);
    assert_status(&t, repair(&t, mend), 0);
    tool_done(&t);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(unlink(program), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void test_tool_doctor_permission_and_owner(void **state)
{
    const char *url = support_url("shm", "doctor-mode", NULL);
    char directory[64] = "/dev/shm/psbus-tool.XXXXXX", path[128], program[128], command[1024], foreign[160];
    struct tool t;
    ps_bus *bus;

    (void)state;
    assert_non_null(mkdtemp(directory));
    assert_ok(ps_open(&bus, url));
    snprintf(path, sizeof path, "%s/link", directory);
    assert_int_equal(symlink(support_file(url), path), 0);
    snprintf(foreign, sizeof foreign, "shm://%s", path);
    assert_status(&t, repair(&t, foreign), 1);
    assert_says(tool_out(&t), "problem: permission denied: ");
    assert_says(tool_out(&t), "is a symbolic link");
    tool_done(&t);
    assert_int_equal(unlink(path), 0);
    assert_ok(ps_close(bus));

    /* As nobody: root's private bus. */
    snprintf(path, sizeof path, "%s/bus", directory);
    snprintf(program, sizeof program, "%s/psbus", directory);
    snprintf(command, sizeof command, "chmod 755 %s && cp %s %s && chmod 755 %s", directory, tool_program(), program, program);
    if (geteuid() == 0 && system(command) == 0) {
        snprintf(foreign, sizeof foreign, "shm://%s", path);
        assert_ok(ps_open(&bus, foreign));
        tool_exec(&t, program, 65534, -1, -1, TOOL_ARGS("doctor", foreign));
        assert_status(&t, tool_wait(&t), 1);
        assert_says(tool_out(&t), "problem: permission denied: ");
        assert_says(tool_out(&t), "to do: it belongs to user 0, mode 0600, and you are user 65534");
        tool_done(&t);
        assert_ok(ps_close(bus));
    }
    unlink(program);
    assert_int_equal(rmdir(directory), 0);
}

/* A bus of everybody, left behind in the directory of somebody else: who may take part may not always remove it. */
static void test_tool_doctor_removing_is_for_who_may(void **state)
{
    enum { OWNER = 12345, NOBODY = 65534 };
    static const struct { uid_t owner; mode_t mode; const char *says; } directories[] = {
        { 0, 0755, "to do: only root can remove it: psbus doctor --repair shm://" }, { 0, 01777, "to do: only root can remove it: " },
        { OWNER, 0755, "to do: only user 12345 or root can remove it: " }, { OWNER, 0777, NULL },
    };
    char directory[64] = "/dev/shm/psbus-tool.XXXXXX", program[128], path[128], bus[160], url[192];
    struct tool t, sub;

    (void)state;
    if (geteuid() != 0)
        skip();
    strangers_tool(directory, program);
    snprintf(path, sizeof path, "%s/bus", directory);
    snprintf(bus, sizeof bus, "shm://%s", path);
    snprintf(url, sizeof url, "%s?mode=0666", bus);
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++) {
        assert_true(chown(directory, directories[i].owner, 0) == 0 && chmod(directory, directories[i].mode) == 0);
        tool_start(&sub, "sub", url, "t");
        assert_true(support_wait(tool_bus_there, bus, DEADLINE_MS));
        tool_kill(&sub);
        for (int mend = 0; mend < 2; mend++) {
            tool_exec(&t, program, NOBODY, -1, -1, mend ? TOOL_ARGS("doctor", "--repair", url) : TOOL_ARGS("doctor", url));
            assert_status(&t, tool_wait(&t), directories[i].says == NULL && mend ? 0 : 1);
            if (directories[i].says != NULL) {
                assert_says(tool_out(&t), directories[i].says);
                assert_silent_about(tool_out(&t), "removes the bus");
            }
            tool_done(&t);
        }
        assert_int_equal(access(path, F_OK), directories[i].says == NULL ? -1 : 0);
        if (directories[i].says != NULL) {                      /* of another version, too */
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            char version[4];
            assert_true(fd >= 0 && pread(fd, version, 4, HEADER_VERSION) == 4);
            close(fd);
            patch(path, HEADER_VERSION, "\x63\0\0\0", 4);
            tool_exec(&t, program, NOBODY, -1, -1, TOOL_ARGS("doctor", "--repair", url));
            assert_status(&t, tool_wait(&t), 1);
            assert_one_line(&t, "psbus doctor: /dev/shm/psbus-tool.");
            assert_says(tool_err(&t), "/bus: only ");
            tool_done(&t);
            patch(path, HEADER_VERSION, version, 4);
        }
        assert_status(&t, repair(&t, url), directories[i].says == NULL ? 1 : 0);        /* as root */
        tool_done(&t);
        assert_int_equal(access(path, F_OK), -1);
    }
    assert_int_equal(unlink(program), 0);
    assert_int_equal(rmdir(directory), 0);
}

static int socket_there(void *url) { return sockets(url, 0) > 0; }

/* The name is gone, the members are not: they are named, also when there is a new bus of the name. */
static void test_tool_doctor_deleted_file_and_who_still_has_it(void **state)
{
    char *url = (char *)support_url("shm", "doctor-gone", NULL);
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    tool_reader(&sub, bus, url, "name=lost", "t");
    assert_true(support_wait(socket_there, url, DEADLINE_MS));  /* it sleeps, so it has all that it leaves */
    assert_int_equal(kill(sub.pid, SIGSTOP), 0);        /* or it might notice that the file is gone, and go */
    assert_int_equal(unlink(support_file(url)), 0);
    assert_ok(ps_close(bus));
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), "was deleted or replaced under its members: pid ");
    assert_says(tool_out(&t), pid_of(&sub));
    tool_done(&t);
    assert_ok(ps_open(&bus, url));
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), pid_of(&sub));
    assert_says(tool_out(&t), ": 1 problem\n");
    tool_done(&t);
    tool_kill(&sub);
    assert_status(&t, doctor(&t, url), 0);
    tool_done(&t);
    assert_true(sockets(url, 1) > 0);
    assert_ok(ps_close(bus));
}

/* The bus's file was deleted, then its member killed: the socket's name stays, also beside a new bus of the name. */
static void test_tool_doctor_sockets_of_a_bus_that_is_gone(void **state)
{
    const char *url = support_url("shm", "doctor-socket", NULL);
    char other[512];
    struct tool t, sub;
    ps_bus *bus;

    (void)state;
    for (int again = 0; again < 2; again++) {
        assert_ok(ps_open(&bus, url));
        tool_reader(&sub, bus, url, "lossy=0", "t");
        assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
        assert_int_equal(kill(sub.pid, SIGSTOP), 0);    /* as above */
        assert_int_equal(unlink(support_file(url)), 0);
        assert_ok(ps_close(bus));
        tool_kill(&sub);
        assert_int_equal(sockets(url, 0), 1);
        if (again) {
            assert_ok(ps_open(&bus, url));
            tool_reader(&sub, bus, url, "lossy=0", "t");
            assert_true(tool_members(bus, PS_MEMBER_ASLEEP, 1));
        }
        /* What only looks like it stays. */
        snprintf(other, sizeof other, "%s@0badc0de.1", support_file(url));
        assert_int_equal(mknod(other, S_IFREG | 0600, 0), 0);
        assert_status(&t, doctor(&t, url), 1);
        assert_says(tool_out(&t), "problem: 1 socket name of members long gone");
        assert_says(tool_out(&t), ": 1 problem\n");
        tool_done(&t);
        assert_int_equal(sockets(url, 0), 2 + again);           /* looking has changed nothing */
        assert_status(&t, repair(&t, url), 0);
        assert_says(tool_out(&t), "repaired: 1 socket name");
        assert_says(tool_out(&t), ": nothing is wrong\n");
        tool_done(&t);
        assert_int_equal(access(other, F_OK), 0);
        assert_int_equal(unlink(other), 0);
        assert_int_equal(sockets(url, 0), again);
    }
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);          /* the living are heard and hear as before */
    assert_true(tool_expect(sub.out, "t\tx\n"));
    tool_kill(&sub);
    assert_ok(ps_close(bus));
}

/* ------------------------------------------------------------------ too little of something */

static void test_tool_doctor_no_room_for_one_more_publisher(void **state)
{
    char options[64];
    struct statvfs fs;
    uint64_t bytes = (uint64_t)1 << 20;
    struct tool t;
    const char *url;
    ps_bus *bus;

    (void)state;
    assert_int_equal(statvfs("/dev/shm", &fs), 0);
    while (bytes <= (uint64_t)fs.f_bavail * fs.f_frsize)
        bytes *= 2;
    if (bytes > (uint64_t)64 << 30)
        skip();                         /* more than a ring can have */
    snprintf(options, sizeof options, "depth=16&loans=64k&bytes=%lluM", (unsigned long long)(bytes >> 20));
    url = support_url("shm", "doctor-space", options);
    assert_ok(ps_open(&bus, url));
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), "problem: too little space: a member's first publish reserves ");
    assert_says(tool_out(&t), "to do: free space there");
    assert_says(tool_out(&t), "or end the bus's members and make it anew with a smaller depth=");
    assert_says(tool_out(&t), ": 1 problem\n");
    tool_done(&t);
    assert_ok(ps_close(bus));
}

static void test_tool_doctor_every_place_taken(void **state)
{
    const char *url = support_url("shm", "doctor-full", "members=2");
    struct tool t, sub;
    ps_bus *bus, *other;

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_open(&other, url));
    assert_status(&t, doctor(&t, url), 1);
    assert_says(tool_out(&t), "problem: all 2 places are taken");
    tool_done(&t);
    assert_ok(ps_close(other));
    /* A dead one's place is one for the next. */
    tool_reader(&sub, bus, url, "lossy=0", "t");
    tool_kill(&sub);
    assert_status(&t, repair(&t, url), 0);
    tool_done(&t);
    assert_ok(ps_close(bus));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_doctor_healthy_bus_is_status_0),
        cmocka_unit_test(test_tool_doctor_no_bus),
        cmocka_unit_test(test_tool_doctor_dead_members_found_and_repaired),
        cmocka_unit_test(test_tool_doctor_dead_publisher_may_have_left_messages),
        cmocka_unit_test(test_tool_doctor_bus_left_behind_is_removed),
        cmocka_unit_test(test_tool_doctor_stuck_reader_named_with_its_pid),
        cmocka_unit_test(test_tool_doctor_evicted_and_idle_reader_named),
        cmocka_unit_test(test_tool_doctor_stopped_readers_will_have_lost),
        cmocka_unit_test(test_tool_doctor_other_version_and_damage),
        cmocka_unit_test(test_tool_doctor_never_removes_a_file_that_is_no_bus),
        cmocka_unit_test(test_tool_doctor_advises_what_it_does),
        cmocka_unit_test(test_tool_doctor_of_another_users_bus_names_the_mode),
        cmocka_unit_test(test_tool_doctor_permission_and_owner),
        cmocka_unit_test(test_tool_doctor_removing_is_for_who_may),
        cmocka_unit_test(test_tool_doctor_deleted_file_and_who_still_has_it),
        cmocka_unit_test(test_tool_doctor_sockets_of_a_bus_that_is_gone),
        cmocka_unit_test(test_tool_doctor_no_room_for_one_more_publisher),
        cmocka_unit_test(test_tool_doctor_every_place_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
