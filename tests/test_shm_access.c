/* SPDX-License-Identifier: MIT */
/* test_shm_access.c - who may come in: mode bits, owners, read-only files, the sealed anonymous file. */
#include "forge.h"

#include <grp.h>
#include <sys/resource.h>

static void test_shm_mode_gives_exactly_its_bits_under_any_umask(void **state)
{
    (void)state;
    static const struct { const char *options; unsigned bits; } mode[] = {
        { "", 0600 }, { "mode=0600", 0600 }, { "mode=0660", 0660 }, { "mode=0666", 0666 },
    };
    static const mode_t mask[] = { 0, 077, 0777 };
    for (size_t m = 0; m < 3; m++) {
        for (size_t i = 0; i < 4; i++) {
            ps_bus *bus;
            DIR *dir;
            mode_t before = umask(mask[m]);
            int rc = ps_open(&bus, scratch_url("bus", mode[i].options));
            int fd = rc == 0 ? ps_fd(bus) : -1;
            umask(before);
            assert_ok(rc);
            assert_true(fd >= 0);
            assert_true(ps_dispatch(bus, 0, 1) >= 0);
            dir = opendir(scratch_path);
            assert_non_null(dir);
            for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
                struct stat st;
                if (e->d_name[0] == '.' && (e->d_name[1] == '\0' || e->d_name[1] == '.'))
                    continue;
                assert_int_equal(fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
                if ((st.st_mode & 07777) != mode[i].bits)
                    fail_msg("%s has mode %o with \"%s\"", e->d_name, st.st_mode & 07777, mode[i].options);
            }
            closedir(dir);
            assert_ok(ps_close(bus));
        }
    }
}

static void test_shm_hostile_mode_is_refused(void **state)
{
    (void)state;
    static const char *const mode[] = { "mode=0777", "mode=0640", "mode=06660", "mode=0", "mode=rw", "mode=-1",
                                        "mode=0x180", "mode=04600", "mode=", "mode=0602" };
    for (size_t i = 0; i < sizeof mode / sizeof *mode; i++) {
        ps_bus *bus = (ps_bus *)state;
        int rc = ps_open(&bus, scratch_url("bus", mode[i]));
        if (rc != PS_EINVAL || bus != NULL || !strstr(ps_errmsg(), "mode"))
            fail_msg("%s: %d, %s", mode[i], rc, ps_errmsg());
        assert_int_equal(scratch_count(scratch_path, NULL), 0);
    }
}

/* Opens as nobody; holds the bus until done. */
static int nobody_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    prctl(PR_SET_DUMPABLE, 1);          /* as after an exec: /proc/self is one's own again */
    s->rc[0] = ps_open(&bus, s->url);
    s->number[0] = strlen(ps_errmsg());
    s->ready = 1;
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return s->rc[0] == 0 ? ps_close(bus) != 0 : 0;
}

static int open_as_nobody(const char *url, pid_t *child, struct stage **stage)
{
    *stage = stage_new(url);
    *child = start_child(nobody_child, *stage);
    assert_true(wait_word(&(*stage)->ready, 1));
    return (int)(*stage)->rc[0];
}

static void nobody_gets(const char *url, int expected)
{
    pid_t child;
    struct stage *s;
    int rc = open_as_nobody(url, &child, &s);
    s->done = 1;
    assert_child(s, child);
    if (rc != expected)
        fail_msg("%s: nobody got %d, not %d", url, rc, expected);
    assert_true(rc == 0 || s->number[0] > 0);
}

static void test_shm_permission_of_other_users_is_what_mode_says(void **state)
{
    (void)state;
    struct stage *s;
    pid_t child;
    ps_bus *bus, *other;
    if (geteuid() != 0)
        SKIP_TEST("needs root, to be two users");
    assert_int_equal(chmod(scratch_path, 0755), 0);
    /* root's bus */
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    nobody_gets(scratch_url("bus", ""), PS_EACCES);
    nobody_gets(scratch_url("new", ""), PS_EACCES);             /* a directory that is not his */
    assert_ok(ps_close(bus));
    assert_int_equal(chmod(scratch_path, 01777), 0);
    assert_ok(ps_open(&bus, scratch_url("bus", "mode=0666")));
    nobody_gets(scratch_url("bus", ""), 0);                     /* root's file needs no word of consent */
    assert_ok(ps_close(bus));
    /* nobody's bus: others say that they mean it, with exactly its bits */
    assert_int_equal(open_as_nobody(scratch_url("his", "mode=0666"), &child, &s), 0);
    assert_int_equal(ps_open(&other, scratch_url("his", "")), PS_EACCES);
    assert_true(strlen(ps_errmsg()) > 0);
    assert_int_equal(ps_open(&other, scratch_url("his", "mode=0660")), PS_EACCES);
    assert_int_equal(ps_open(&other, scratch_url("his", "mode=0666")), 0);
    assert_int_equal(living_members(other), 2);
    assert_ok(ps_close(other));
    s->done = 1;
    assert_child(s, child);
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* A user of a number of his own who reads, asleep. */
static int sleeping_user(void *arg)
{
    struct stage *s = arg;
    uid_t user = (uid_t)s->number[1];
    ps_bus *bus;
    CHILD_CHECK(s, setgroups(0, NULL) == 0 && setgid(user) == 0 && setuid(user) == 0);
    prctl(PR_SET_DUMPABLE, 1);
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    s->rc[1] = ps_dispatch(bus, 0, 20);
    CHILD_CHECK(s, s->rc[1] == 0);
    s->ready++;
    while (s->inbox[0].count == 0) {
        s->rc[1] = ps_dispatch(bus, 0, DEADLINE_MS);
        CHILD_CHECK(s, s->rc[1] >= 0);
    }
    CHILD_CHECK(s, wait_word(&s->done, 1));
    return ps_close(bus) != 0;
}

/* In a directory like /tmp nobody may remove a dead stranger's bell: who has his slot sleeps all the same, and is reached. */
static void test_p7_slot_of_another_users_dead_member_can_be_slept_in(void **state)
{
    (void)state;
    if (geteuid() != 0)
        SKIP_TEST("needs root, to be two users");
    struct stage *s = stage_new(scratch_url("bus", "mode=0666"));
    ps_bus *bus, *first;
    ps_member m[4] = { PS_MEMBER_INIT };
    assert_int_equal(chmod(scratch_path, 01777), 0);
    assert_ok(ps_open(&first, s->url));
    s->number[1] = 65533;
    pid_t child = start_child(sleeping_user, s);
    assert_true(wait_word(&s->ready, 1));
    kill_child(child);
    s->number[1] = 65534;
    child = start_child(sleeping_user, s);
    if (!wait_word(&s->ready, 2))
        fail_msg("child's line %d, ps_dispatch %d", (int)s->line, (int)s->rc[1]);
    assert_ok(ps_open(&bus, s->url));
    assert_int_equal(ps_members(bus, NULL, m, 4), 3);
    uint64_t begin = support_now_ms();
    assert_int_equal(say(bus, "t", 1, 0, 64), 1);
    assert_true(wait_word(&s->inbox[0].count, 1));
    assert_true(support_now_ms() - begin < DEADLINE_MS / 2);
    s->done = 1;
    assert_child(s, child);
    assert_ok(ps_close(bus));
    assert_ok(ps_close(first));
}

/* ---------------------------------------------------------------- a member that gives up its rights */

static int dropping_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "t")) != NULL);
    CHILD_CHECK(s, hear(bus, &s->inbox[0], 1) == 0);
    CHILD_CHECK(s, setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    prctl(PR_SET_DUMPABLE, 1);
    forge_shm(bus)->port.checked_ms -= 2000;    /* it looks at its file once a second */
    s->rc[0] = ps_dispatch(bus, 0, 20);
    CHILD_CHECK(s, s->rc[0] == 0);
    /* It has no ring, and cannot open the file again to map one. */
    s->rc[0] = ps_publish(bus, "t", "x", 1);
    CHILD_CHECK(s, s->rc[0] < 0 && s->rc[0] != PS_EUNLINKED && strstr(ps_errmsg(), "privileges"));
    s->go = 1;
    CHILD_CHECK(s, hear(bus, &s->inbox[0], 2) == 0);
    return ps_close(bus) != 0;
}

static void test_p8_file_is_not_taken_for_deleted_by_a_member_that_gave_up_its_rights(void **state)
{
    (void)state;
    if (geteuid() != 0)
        SKIP_TEST("needs root, to be two users");
    struct stage *s = stage_new(scratch_url("bus", ""));
    ps_bus *bus;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(dropping_child, s);
    assert_true(wait_word(&s->ready, 1));
    assert_int_equal(say(bus, "t", 1, 0, 64), 1);
    if (!wait_word(&s->go, 1))
        fail_msg("child's line %d: %d", (int)s->line, (int)s->rc[0]);
    assert_int_equal(say(bus, "t", 1, 1, 64), 1);
    assert_child(s, child);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- the directory of a user's named buses */

/* A user who has no bus yet, and so no directory: 0, and its name. */
static int become_nobodys_neighbour(char *directory, size_t size)
{
    uid_t user = geteuid() == 0 ? 60000 + (uid_t)getpid() % 5000 : geteuid();
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(user) != 0 || setuid(user) != 0))
        return -1;
    prctl(PR_SET_DUMPABLE, 1);
    snprintf(directory, size, "/dev/shm/psbus-%lu", (unsigned long)user);
    return access("/dev/shm", W_OK) == 0 && access(directory, F_OK) != 0 ? 0 : -1;
}

static int umask_child(void *arg)
{
    struct stage *s = arg;
    char directory[64];
    struct stat st;
    ps_bus *bus, *second;
    if (become_nobodys_neighbour(directory, sizeof directory) != 0)
        return EXIT_SKIP;
    umask(0777);
    s->rc[0] = ps_open(&bus, s->url);
    if (s->rc[0] != 0)
        rmdir(directory);
    CHILD_CHECK(s, s->rc[0] == 0);
    CHILD_CHECK(s, stat(directory, &st) == 0 && (st.st_mode & 07777) == 0700);
    CHILD_CHECK(s, ps_open(&second, s->url) == 0);
    CHILD_CHECK(s, ps_close(second) == 0 && ps_close(bus) == 0);
    return access(directory, F_OK) == 0;
}

/* Of a process that may make no descriptor more than that many. */
static int failing_open_child(void *arg)
{
    struct stage *s = arg;
    char directory[64];
    ps_bus *bus;
    if (become_nobodys_neighbour(directory, sizeof directory) != 0)
        return EXIT_SKIP;
    int free_fd = dup(STDIN_FILENO), rc = PS_ESYS;
    close(free_fd);
    for (rlim_t more = 0; rc != 0; more++) {
        struct rlimit limit = { (rlim_t)free_fd + more, 0 }, all;
        CHILD_CHECK(s, more < 64 && getrlimit(RLIMIT_NOFILE, &all) == 0);
        limit.rlim_max = all.rlim_max;
        CHILD_CHECK(s, setrlimit(RLIMIT_NOFILE, &limit) == 0);
        rc = ps_open(&bus, s->url);
        s->number[0] = more;
        if (rc != 0) {
            int left = access(directory, F_OK) == 0;
            rmdir(directory);
            CHILD_CHECK(s, !left);
        }
    }
    CHILD_CHECK(s, s->number[0] > 0);
    CHILD_CHECK(s, ps_close(bus) == 0);
    return access(directory, F_OK) == 0;
}

static void of_another_user(int (*body)(void *))
{
    struct stage *s = stage_new(support_url("shm", "first", NULL));
    int code = reap_child(start_child(body, s));
    if (code == EXIT_SKIP)
        SKIP_TEST("no user here without a bus");
    if (code != 0)
        fail_msg("child ended with %d; its line %d; result %d, %d", code, (int)s->line, (int)s->rc[0], (int)s->number[0]);
}

static void test_shm_directory_is_its_users_own_under_any_umask(void **state)
{
    (void)state;
    of_another_user(umask_child);
}

static void test_p8_open_that_fails_leaves_no_directory(void **state)
{
    (void)state;
    of_another_user(failing_open_child);
}

/* ---------------------------------------------------------------- files that may not be written */

static int read_only_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        return EXIT_SKIP;
    prctl(PR_SET_DUMPABLE, 1);
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, chmod(scratch_file("bus"), 0400) == 0);
    ps_bus *second = bus;
    s->rc[0] = ps_open(&second, s->url);
    CHILD_CHECK(s, s->rc[0] == PS_EACCES && second == NULL);
    CHILD_CHECK(s, ps_close(bus) == 0);
    return scratch_count(scratch_path, NULL) == 0 ? 0 : 2;
}

static void test_shm_read_only_file_is_eacces(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_int_equal(chmod(scratch_path, 01777), 0);
    int code = reap_child(start_child(read_only_child, s));
    if (code == EXIT_SKIP)
        SKIP_TEST("cannot become another user here");
    if (code != 0)
        fail_msg("child ended with %d; its line %d; result %d", code, (int)s->line, (int)s->rc[0]);
}

/* The anonymous file has no name to protect it: seals keep anybody who inherits it from cutting it short. */
static void test_p9_anonymous_file_cannot_be_truncated(void **state)
{
    (void)state;
    ps_bus *bus;
    int found = 0;
    DIR *dir;
    assert_ok(ps_open(&bus, "shm:"));
    dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        char link[300], to[256] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%s", e->d_name);
        if (readlink(link, to, sizeof to - 1) < 0 || strncmp(to, "/memfd:", 7) != 0)
            continue;
        int fd = open(link, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(ftruncate(fd, 4096), -1);
        assert_int_equal(ftruncate(fd, st.st_size * 2), -1);
        close(fd);
        found++;
    }
    closedir(dir);
    assert_true(found > 0);
    assert_ok(ps_close(bus));
}

#define SHM_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHM_TEST(test_shm_mode_gives_exactly_its_bits_under_any_umask),
        SHM_TEST(test_shm_hostile_mode_is_refused),
        SHM_TEST(test_shm_permission_of_other_users_is_what_mode_says),
        SHM_TEST(test_p7_slot_of_another_users_dead_member_can_be_slept_in),
        SHM_TEST(test_p8_file_is_not_taken_for_deleted_by_a_member_that_gave_up_its_rights),
        SHM_TEST(test_shm_directory_is_its_users_own_under_any_umask),
        SHM_TEST(test_p8_open_that_fails_leaves_no_directory),
        SHM_TEST(test_shm_read_only_file_is_eacces),
        SHM_TEST(test_p9_anonymous_file_cannot_be_truncated),
    };
    return cmocka_run_group_tests_name("shm_access", tests, NULL, NULL);
}
