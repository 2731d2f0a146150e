/* SPDX-License-Identifier: MIT */
/*
 * test_shm_calls.c - shared memory when a call to the system fails, or somebody else comes in right behind it.
 *
 * The library is linked statically, so its calls come to the functions of the same names here.
 */
#include "forge.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/socket.h>

/* What the next calls meet; 0 and NULL: nothing. */
static int bind_error;
static void (*bind_behind)(const char *path);   /* called once, right behind a bind to a name */

/* By its symbol: <sys/socket.h> may declare it with a union in the place of the pointer. */
int calls_bind(int fd, const struct sockaddr *address, socklen_t size) __asm__("bind");
int calls_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "bind");
    if (bind_error) {
        errno = bind_error;
        return -1;
    }
    int rc = real(fd, address, size);
    if (rc == 0 && bind_behind && address->sa_data[0] == '/') {
        void (*behind)(const char *) = bind_behind;
        bind_behind = NULL;
        behind(address->sa_data);
    }
    return rc;
}

static int send_error;                          /* of the next one only */

ssize_t calls_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
    __asm__("sendto");
ssize_t calls_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sendto");
    if (send_error) {
        errno = send_error;
        send_error = 0;
        return -1;
    }
    return real(fd, data, size, flags, to, length);
}

static int reserve_error;

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    static int (*real)(int, int, off_t, off_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "fallocate64");
    if (reserve_error && mode == 0) {
        errno = reserve_error;
        return -1;
    }
    return real(fd, mode, offset, size);
}

static int naps;
static void (*nap_before)(void);                /* called once, before a nap */

int nanosleep(const struct timespec *time, struct timespec *left)
{
    naps++;
    if (nap_before) {
        void (*before)(void) = nap_before;
        nap_before = NULL;
        before();
    }
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, time, left);
    errno = error ? error : errno;
    return error ? -1 : 0;
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode & 07777 : ~0u;
}

/* ---------------------------------------------------------------- bells */

static void plant_link(const char *path)
{
    if (symlink(scratch_file("private"), scratch_file("link")) != 0 || rename(scratch_file("link"), path) != 0)
        perror("plant_link");
}

/* Who may write the directory puts a link to a file of the victim's in the socket's place. */
static void test_p9_link_in_the_place_of_a_doorbell_is_not_followed(void **state)
{
    (void)state;
    int fd = open(scratch_file("private"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600), sockets;
    assert_true(fd >= 0);
    close(fd);
    ps_bus *bus;
    mode_t before = umask(077);                 /* so that the socket's mode is not right from the start */
    assert_ok(ps_open(&bus, scratch_url("bus", "mode=0666")));
    bind_behind = plant_link;
    int rc = ps_dispatch(bus, 0, 1);
    assert_null(bind_behind);
    assert_int_equal(rc, 0);
    assert_int_equal(mode_of(scratch_file("private")), 0600);
    assert_int_equal(scratch_count(scratch_path, &sockets), 3);         /* bus, file and link */
    assert_int_equal(sockets, 0);
    /* The next sleep has a bell of its own again. */
    assert_int_equal(ps_dispatch(bus, 0, 1), 0);
    umask(before);
    assert_int_equal(scratch_count(scratch_path, &sockets), 2);
    assert_int_equal(sockets, 1);
    assert_int_equal(mode_of(scratch_file("private")), 0600);
    assert_ok(ps_close(bus));
}

static int one_message_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, say(bus, "t", 1, 0, 40) == 1);
    return ps_close(bus) != 0;
}

/* A ring that failed for want of memory was none: the next message rings again, and who polls is told. */
static void test_p3_ring_that_failed_is_tried_again_with_the_next_message(void **state)
{
    (void)state;
    static const int error[] = { ENOBUFS, ENOMEM };
    struct inbox *in = support_shared(sizeof *in);
    ps_bus *sleeper, *ringer;
    assert_ok(ps_open(&sleeper, scratch_url("bus", "")));
    assert_ok(ps_open(&ringer, scratch_url("bus", "")));
    assert_ok(ps_subscribe(sleeper, "t", inbox_take, in, NULL, NULL));
    struct pollfd p = { ps_fd(sleeper), POLLIN, 0 };
    assert_ok(p.fd);
    for (uint64_t i = 0; i < sizeof error / sizeof *error; i++) {
        while (ps_dispatch(sleeper, 0, 0) > 0)
            ;
        assert_int_equal(poll(&p, 1, 0), 0);
        send_error = error[i];
        assert_int_equal(say(ringer, "t", 1, 2 * i, 40), 1);
        assert_int_equal(send_error, 0);
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(say(ringer, "t", 1, 2 * i + 1, 40), 1);
        if (poll(&p, 1, DEADLINE_MS) != 1)
            fail_msg("%s: never rung again", strerror(error[i]));
        assert_int_equal(ps_dispatch(sleeper, 0, 0), 2);
    }
    /* Nobody there, or we may not: once a sleep is enough, or each message would call the system in vain. */
    static const int in_vain[] = { ENOENT, EACCES };
    for (uint64_t i = 0; i < 2; i++) {
        send_error = in_vain[i];
        assert_int_equal(say(ringer, "t", 1, 4 + 2 * i, 40), 1);
        assert_int_equal(send_error, 0);
        send_error = ENOBUFS;
        assert_int_equal(say(ringer, "t", 1, 5 + 2 * i, 40), 1);
        assert_int_equal(send_error, ENOBUFS);
        send_error = 0;
        assert_int_equal(ps_dispatch(sleeper, 0, 0), 2);
    }
    assert_ok(ps_close(ringer));
    assert_ok(ps_close(sleeper));
}

/* On a full file system, or after the program gave up its rights, there is no name for a bell: who sleeps looks now and then. */
static void test_p3_sleeper_that_cannot_name_its_doorbell_hears_all_the_same(void **state)
{
    (void)state;
    static const int error[] = { ENOSPC, EDQUOT, EACCES, ENOENT, EADDRINUSE };
    for (size_t i = 0; i < sizeof error / sizeof *error; i++) {
        struct stage *s = stage_new(scratch_url("bus", ""));
        ps_bus *bus;
        assert_ok(ps_open(&bus, s->url));
        assert_ok(ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL));
        bind_error = error[i];
        int rc = ps_dispatch(bus, 0, 1);
        pid_t child = start_child(one_message_child, s);
        int heard = hear(bus, &s->inbox[0], 1), fd = ps_fd(bus);
        bind_error = 0;
        if (rc != 0 || heard != 0 || fd < 0)
            fail_msg("%s: slept %d, heard %d, fd %d (%s)", strerror(error[i]), rc, heard, fd, ps_errmsg());
        assert_child(s, child);
        /* And has a bell when there can be one. */
        int sockets;
        assert_int_equal(ps_dispatch(bus, 0, 1), 0);
        scratch_count(scratch_path, &sockets);
        assert_int_equal(sockets, 1);
        assert_ok(ps_close(bus));
    }
}

/* ---------------------------------------------------------------- slots in passage */

static int repairer = -1;

static int slot_lock(int fd, unsigned slot, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = PS__SHM_LOCKS + slot, .l_len = 1 };
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static void repair_ends(void)
{
    close(repairer);
    repairer = -1;
}

/* Somebody repairs a dead member's lane: the place is taken, and free a moment later. */
static void passing_slot_is_waited_for(unsigned members)
{
    char options[32];
    ps_bus *bus[4], *late = NULL;
    snprintf(options, sizeof options, "members=%u", members);
    const char *url = scratch_url("bus", options);
    for (unsigned i = 0; i < members; i++)
        assert_ok(ps_open(&bus[i], url));
    /* Nothing passes on a bus whose members all live: the answer comes at once. */
    naps = 0;
    assert_int_equal(ps_open(&late, url), PS_EFULL);
    assert_int_equal(naps, 0);
    /* As the last one would be after a kill, but for the file, which stays. */
    unsigned dead = members - 1;
    assert_int_equal(link(scratch_file("bus"), scratch_file("kept")), 0);
    assert_ok(ps_close(bus[dead]));
    if (dead == 0)
        assert_int_equal(link(scratch_file("kept"), scratch_file("bus")), 0);
    assert_int_equal(unlink(scratch_file("kept")), 0);
    repairer = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    assert_int_equal(slot_lock(repairer, dead, F_WRLCK), 0);
    nap_before = repair_ends;
    int rc = ps_open(&late, url);
    nap_before = NULL;
    if (rc != 0)
        fail_msg("members=%u: %d (%s)", members, rc, ps_errmsg());
    assert_int_equal(repairer, -1);
    assert_ok(ps_close(late));
    for (unsigned i = 0; i < dead; i++)
        assert_ok(ps_close(bus[i]));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

static void test_p8_slot_that_is_being_repaired_is_waited_for(void **state)
{
    (void)state;
    passing_slot_is_waited_for(3);
    passing_slot_is_waited_for(1);
}

/* It is not waited for longer than for anything else. */
static void test_p8_slot_whose_repairer_was_stopped_is_efull(void **state)
{
    (void)state;
    ps_bus *bus, *late = (ps_bus *)state;
    assert_ok(ps_open(&bus, scratch_url("bus", "members=2")));
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    assert_int_equal(slot_lock(fd, 1, F_WRLCK), 0);
    assert_int_equal(ps_open(&late, scratch_url("bus", "")), PS_EFULL);
    assert_null(late);
    assert_non_null(strstr(ps_errmsg(), "2 members"));
    close(fd);
    assert_ok(ps_open(&late, scratch_url("bus", "")));
    assert_ok(ps_close(late));
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- space */

/* Publishes from loaned memory, and dies. */
static int lending_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    void *loan;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    for (uint64_t i = 0; i < 3; i++) {
        CHILD_CHECK(s, ps_loan(bus, "t", 5000, &loan) == 0);
        support_compose(loan, 5000, 1, i);
        CHILD_CHECK(s, ps_commit(bus, loan, 5000) == 1);
    }
    return 0;
}

/* Whose place it was may have left messages in the loan area: who cannot reserve it again gives nothing of it back. */
static void test_p4_failed_reservation_of_a_dead_members_loans_leaves_its_messages_whole(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "members=2"));
    ps_bus *reader, *heir;
    void *loan = NULL;
    assert_ok(ps_open(&reader, s->url));
    assert_ok(ps_subscribe(reader, "t", inbox_take, &s->inbox[0], NULL, NULL));
    assert_child(s, start_child(lending_child, s));
    assert_ok(ps_open(&heir, s->url));
    reserve_error = ENOSPC;
    int rc = ps_loan(heir, "t", 5000, &loan);
    reserve_error = 0;
    assert_int_equal(rc, PS_ENOSPC);
    assert_int_equal(hear(reader, &s->inbox[0], 3), 0);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].lost, 0);
    assert_ok(ps_loan(heir, "t", 5000, &loan));
    support_compose(loan, 5000, 1, 3);
    assert_int_equal(ps_commit(heir, loan, 5000), 1);
    assert_int_equal(hear(reader, &s->inbox[0], 4), 0);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].lost, 0);
    assert_ok(ps_close(heir));
    assert_ok(ps_close(reader));
}

#define CALLS_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CALLS_TEST(test_p9_link_in_the_place_of_a_doorbell_is_not_followed),
        CALLS_TEST(test_p3_ring_that_failed_is_tried_again_with_the_next_message),
        CALLS_TEST(test_p3_sleeper_that_cannot_name_its_doorbell_hears_all_the_same),
        CALLS_TEST(test_p8_slot_that_is_being_repaired_is_waited_for),
        CALLS_TEST(test_p8_slot_whose_repairer_was_stopped_is_efull),
        CALLS_TEST(test_p4_failed_reservation_of_a_dead_members_loans_leaves_its_messages_whole),
    };
    return cmocka_run_group_tests_name("shm_calls", tests, NULL, NULL);
}
