/* SPDX-License-Identifier: MIT */
/*
 * test_hostile.c - promise 9 while the members work: somebody who may write the file scribbles over it, floods or deletes the
 * doorbells, or locks everything.
 */
#include "victim.h"

#include <poll.h>

#include <sys/socket.h>
#include <sys/un.h>

/* ---------------------------------------------------------------- live: somebody scribbles while others work */

struct scribble {
    struct scene *scene;
    int style;
};

static int scribbler(void *arg)
{
    const struct scribble *how = arg;
    struct scene *sc = how->scene;
    while (!sc->stop) {
        uint64_t fresh = sc->fresh;
        size_t words;
        uint64_t *map = map_file(&words);
        if (!map) {
            nap_us(500);
            continue;
        }
        while (!sc->stop && sc->fresh == fresh) {
            /* Mostly where the control words are: the head of each page of the front part. */
            size_t range = support_random() % 4 ? (words < 32768 ? words : 32768) : words;
            size_t at = support_random() % range;
            if (support_random() % 2)
                at = at / 512 * 512 + support_random() % 64 % 512;
            _Atomic uint64_t *word = (_Atomic uint64_t *)(map + at);
            uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
            atomic_store_explicit(word, evil(old, (unsigned)(support_random() % EVILS)), memory_order_relaxed);
            sc->scribbled++;
            if (how->style == 0)
                nap_us(20);
            else if (how->style == 1 && support_random() % 64 == 0)
                nap_us(1000);
        }
        munmap(map, words * 8);
    }
    return 0;
}

static int living_victim(void *arg)
{
    struct scene *sc = arg;
    struct house h = { .scene = sc };
    uint64_t since = support_now_ms();
    limit_memory();
    while (!sc->stop) {
        if (house_round(&h))
            house_mend(&h);
        /* A bus so damaged that nothing moves teaches little. */
        if (support_now_ms() - since > 30) {
            since = support_now_ms();
            house_close(&h);
            unlink(scratch_file("bus"));
            sc->fresh++;
        }
    }
    house_close(&h);
    return 0;
}

static void test_p9_scribbler_over_the_live_file_crashes_and_hangs_nobody(void **state)
{
    (void)state;
    for (int style = 0; style < 3; style++) {
        struct scene *sc = scene_new();
        struct scribble how = { sc, style };
        pid_t victim = start_child(living_victim, sc), vandal = start_child(scribbler, &how);
        int code = watch(sc, victim, 2000);
        kill_child(vandal);
        print_message("style %d: %llu words, %llu operations, %llu delivered, %llu resets\n", style,
                      (unsigned long long)sc->scribbled, (unsigned long long)sc->beat, (unsigned long long)sc->delivered,
                      (unsigned long long)sc->resets);
        assert_victim(sc, code);
        scratch_empty();
    }
}

/* ---------------------------------------------------------------- doorbells */

/* Rings every bell there is as fast as it can, with datagrams of every size. */
static int flooder(void *arg)
{
    struct scene *sc = arg;
    static char noise[2048];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    while (!sc->stop && fd >= 0) {
        DIR *dir = opendir(scratch_path);
        if (!dir)
            continue;
        for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
            struct sockaddr_un to = { .sun_family = AF_UNIX };
            int length = snprintf(to.sun_path, sizeof to.sun_path, "%s/%s", scratch_path, e->d_name);
            if (length < 0 || (size_t)length >= sizeof to.sun_path)
                continue;
            for (int i = 0; i < 50; i++)
                sc->scribbled += sendto(fd, noise, support_random() % sizeof noise, 0, (struct sockaddr *)&to, sizeof to) >= 0;
        }
        closedir(dir);
    }
    return 0;
}

/* Two handles in one process that talk and sleep in turn; counts are exact, whoever rings. */
static int sleeper(void *arg)
{
    struct scene *sc = arg;
    struct inbox *in = calloc(1, sizeof *in);
    ps_bus *a, *b;
    uint64_t n = 0;
    if (!in || ps_open(&a, sc->url) != 0 || ps_open(&b, sc->url) != 0 || ps_subscribe(b, "t", inbox_take, in, NULL, NULL) != 0 ||
        ps_fd(b) < 0)
        return 1;
    while (!sc->stop || n == 0) {
        int rc = ps_dispatch(b, 0, 2);
        expect(sc, rc, __LINE__);
        rc = say(a, "t", 1, n++, 64);
        expect(sc, rc, __LINE__);
        rc = hear(b, in, n);
        expect(sc, rc, __LINE__);
        sc->delivered = n;
    }
    if (in->damaged + in->skipped + in->repeated + in->lost != 0)
        return 2;
    return ps_close(a) != 0 || ps_close(b) != 0;
}

static void test_p9_flooded_doorbells_disturb_nobody(void **state)
{
    (void)state;
    struct scene *sc = scene_new();
    pid_t victim = start_child(sleeper, sc), vandal = start_child(flooder, sc);
    int code = watch(sc, victim, 1000);
    kill_child(vandal);
    print_message("%llu false rings, %llu messages\n", (unsigned long long)sc->scribbled, (unsigned long long)sc->delivered);
    assert_victim(sc, code);
    assert_true(sc->scribbled > 0);
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

static int has_socket(void *arg)
{
    int sockets;
    (void)arg;
    return scratch_count(scratch_path, &sockets) >= 0 && sockets > 0;
}

static void delete_sockets(void)
{
    DIR *dir = opendir(scratch_path);
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode))
            unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
}

static void test_p9_sleeper_whose_doorbell_was_deleted_makes_a_new_one(void **state)
{
    (void)state;
    struct scene *sc = scene_new();
    pid_t victim = start_child(sleeper, sc);
    assert_true(wait_word(&sc->delivered, 1));
    for (int round = 0; round < 50; round++) {
        assert_true(support_wait(has_socket, NULL, DEADLINE_MS));
        delete_sockets();
        assert_true(wait_word(&sc->delivered, sc->delivered + 2));
    }
    assert_victim(sc, watch(sc, victim, 1));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

static void count_one(const ps_msg *msg, void *user)
{
    (void)msg;
    ++*(int *)user;
}

/* A dispatch looks for its socket once a second. */
static int dispatched_to_a_socket(void *bus) { return ps_dispatch(bus, 0, 0) == 0 && has_socket(NULL); }

static void test_p9_event_loop_whose_doorbell_was_deleted_makes_a_new_one(void **state)
{
    (void)state;
    ps_bus *a, *b;
    int heard = 0;
    assert_ok(ps_open(&a, scratch_url("bus", "")));
    assert_ok(ps_open(&b, scratch_url("bus", "")));
    assert_ok(ps_subscribe(b, "t", count_one, &heard, NULL, NULL));
    struct pollfd p = { ps_fd(b), POLLIN, 0 };
    assert_true(p.fd >= 0);
    for (int round = 0; round < 2; round++) {
        assert_true(support_wait(dispatched_to_a_socket, b, DEADLINE_MS));
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(ps_publish(a, "t", "x", 1), 1);
        assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
        assert_int_equal(ps_dispatch(b, 0, 0), 1);
        delete_sockets();
    }
    assert_int_equal(heard, 2);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
}

/* ---------------------------------------------------------------- locks */

static int leaver(void *arg)
{
    struct scene *sc = arg;
    ps_bus *bus;
    return ps_open(&bus, sc->url) != 0;
}

static int locker(void *arg)
{
    struct scene *sc = arg;
    struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &all) != 0)
        return 1;
    sc->beat = 1;
    return !wait_word(&sc->stop, 1);
}

static void test_p9_locker_of_everything_gets_openers_an_error_in_time(void **state)
{
    (void)state;
    struct scene *sc = scene_new();
    ps_bus *bus = (ps_bus *)state;
    assert_int_equal(reap_child(start_child(leaver, sc)), 0);
    pid_t vandal = start_child(locker, sc);
    assert_true(wait_word(&sc->beat, 1));
    uint64_t begin = support_now_ms();
    int rc = ps_open(&bus, sc->url);
    assert_true(rc == PS_EBUSY || rc == PS_EFULL);
    assert_null(bus);
    assert_true(support_now_ms() - begin < DEADLINE_MS / 2);
    sc->stop = 1;
    assert_int_equal(reap_child(vandal), 0);
    assert_ok(ps_open(&bus, sc->url));
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

#define HOSTILE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(test_p9_scribbler_over_the_live_file_crashes_and_hangs_nobody),
        HOSTILE_TEST(test_p9_flooded_doorbells_disturb_nobody),
        HOSTILE_TEST(test_p9_sleeper_whose_doorbell_was_deleted_makes_a_new_one),
        HOSTILE_TEST(test_p9_event_loop_whose_doorbell_was_deleted_makes_a_new_one),
        HOSTILE_TEST(test_p9_locker_of_everything_gets_openers_an_error_in_time),
    };
    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
