/* SPDX-License-Identifier: MIT */
/* test_shm_limits.c - shared memory at the edge: no space, no descriptors, no permission, and what a bus takes. */
#include "actors.h"

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statfs.h>

/* ---------------------------------------------------------------- no space */

/* Puts a small file system over the scratch directory, in a name space of this process: 0, or -1 where that is forbidden. */
static int mount_small(uint64_t size)
{
    char options[64];
    static int entered;
    if (!entered) {
        /* Without root a user name space gives the right to mount. */
        if (unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return -1;
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            return -1;
        entered = 1;
    }
    snprintf(options, sizeof options, "size=%llu,mode=0700", (unsigned long long)size);
    return mount("tmpfs", scratch_path, "tmpfs", 0, options);
}

static int64_t free_bytes(void)
{
    struct statfs fs;
    return statfs(scratch_path, &fs) == 0 ? (int64_t)fs.f_bfree * (int64_t)fs.f_bsize : -1;
}

static int names_numbers(void) { return strpbrk(ps_errmsg(), "123456789") != NULL; }

struct space {
    struct stage *stage;
    int64_t bus, lane;                  /* what they take */
};

/* A bus of every size up to what fits, on one file system after another: an error with numbers, or it works. */
static int no_space_child(void *arg)
{
    const struct space *sp = arg;
    struct stage *s = sp->stage;
    for (int step = 0; step < 40; step++) {
        ps_bus *a = NULL, *b = NULL;
        void *loan = NULL;
        uint64_t size = (uint64_t)(sp->bus + 3 * sp->lane) * (uint64_t)(step + 1) / 32 & ~(uint64_t)4095;
        if (mount_small(size) != 0)
            return EXIT_SKIP;
        int64_t room = free_bytes();
        s->rc[1] = step;
        int rc = ps_open(&a, s->url);
        if (rc != 0) {
            s->rc[0] = rc;
            CHILD_CHECK(s, rc == PS_ENOSPC && names_numbers() && a == NULL);
            CHILD_CHECK(s, scratch_count(scratch_path, NULL) == 0);
            s->number[0]++;
        } else {
            CHILD_CHECK(s, ps_open(&b, s->url) == 0);
            CHILD_CHECK(s, ps_subscribe(b, "#", inbox_take, &s->inbox[0], NULL, NULL) == 0);
            uint64_t before = s->inbox[0].count;
            int sent = 0;
            for (int i = 0; i < 100; i++) {
                rc = ps_publish(a, "t", s->url, 40);
                s->rc[0] = rc;
                CHILD_CHECK(s, rc == 1 || (rc == PS_ENOSPC && names_numbers()));
                sent += rc == 1;
            }
            s->number[sent ? 2 : 1]++;
            CHILD_CHECK(s, sent == 0 || sent == 100);
            rc = ps_loan(a, "t", 1000, &loan);
            s->rc[0] = rc;
            CHILD_CHECK(s, rc == 0 || (rc == PS_ENOSPC && names_numbers()));
            if (rc == 0) {
                memset(loan, 7, 1000);
                CHILD_CHECK(s, ps_commit(a, loan, 1000) == 1);
                sent++;
            }
            /* More filters than the small table likes; without space for the large one it stays right. */
            for (unsigned i = 0; i < 5000; i++) {
                char topic[32];
                snprintf(topic, sizeof topic, "many/%u", i);
                CHILD_CHECK(s, ps_subscribe(a, topic, inbox_take, &s->inbox[1], NULL, NULL) == 0);
            }
            CHILD_CHECK(s, ps_wanted(b, "many/4999") >= 1);
            rc = ps_publish(b, "many/77", "x", 1);
            CHILD_CHECK(s, rc >= 1 || rc == PS_ENOSPC);
            CHILD_CHECK(s, ps_dispatch(b, 0, 0) >= 0 && ps_dispatch(a, 0, 0) >= 0);
            CHILD_CHECK(s, s->inbox[0].count - before == (uint64_t)sent + (rc >= 1));
            CHILD_CHECK(s, ps_close(a) == 0 && ps_close(b) == 0);
        }
        CHILD_CHECK(s, scratch_count(scratch_path, NULL) == 0);
        CHILD_CHECK(s, free_bytes() == room);
        CHILD_CHECK(s, umount2(scratch_path, MNT_DETACH) == 0);
    }
    return 0;
}

#define assert_child_or_skip(stage, child) do { \
    int code_ = reap_child(child); \
    if (code_ == EXIT_SKIP) \
        SKIP_TEST("no right to mount a small file system here"); \
    if (code_ != 0) \
        fail_msg("child ended with %d; its line %d; result %d, step %d", code_, (int)(stage)->line, (int)(stage)->rc[0], \
                 (int)(stage)->rc[1]); \
} while (0)

/* What an empty bus takes, and what its first publisher adds. */
static void measure(const char *options, int64_t *empty, int64_t *lane)
{
    struct inbox *in = support_shared(sizeof *in);
    ps_bus *bus;
    assert_ok(ps_open(&bus, scratch_url("measure", options)));
    assert_ok(ps_subscribe(bus, "#", inbox_take, in, NULL, NULL));
    *empty = file_bytes(scratch_file("measure"));
    assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
    *lane = file_bytes(scratch_file("measure")) - *empty;
    assert_true(*empty > 0 && *lane > 0);
    assert_ok(ps_close(bus));
}

static void test_p8_no_space_is_enospc_with_numbers_at_open_or_first_publish(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=512&bytes=256k&members=8"));
    struct space sp = { .stage = s };
    measure("depth=512&bytes=256k&members=8", &sp.bus, &sp.lane);
    pid_t child = start_child(no_space_child, &sp);
    assert_child_or_skip(s, child);
    assert_true(s->number[0] > 0);      /* some had no room for the bus, */
    assert_true(s->number[1] > 0);      /* some none for the lane, */
    assert_true(s->number[2] > 0);      /* and some for everything */
}

/* A file system that is full to the last page: who comes then reads no page that was never reserved (that is a SIGBUS). */
static int full_disk_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *a, *b;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    ps_member m[8] = { PS_MEMBER_INIT };
    char page[4096] = { 0 };
    if (mount_small(32 << 20) != 0)
        return EXIT_SKIP;
    CHILD_CHECK(s, ps_open(&a, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(a, "#", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, say(a, "t", 1, 0, 64) == 1);
    int fd = open(scratch_file("filler"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHILD_CHECK(s, fd >= 0);
    while (write(fd, page, sizeof page) == sizeof page)
        ;
    close(fd);
    CHILD_CHECK(s, free_bytes() == 0);
    CHILD_CHECK(s, ps_open(&b, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(b, "t", inbox_take, &s->inbox[1], NULL, NULL) == 0);
    s->rc[0] = ps_publish(b, "t", "x", 1);
    CHILD_CHECK(s, s->rc[0] == PS_ENOSPC && names_numbers());
    for (uint64_t i = 1; i < 2000; i++) {
        s->rc[0] = say(a, "t", 1, i, 64 + i % 300);
        CHILD_CHECK(s, s->rc[0] == 2);
        CHILD_CHECK(s, ps_dispatch(a, 0, 0) >= 0 && ps_dispatch(b, 0, 0) >= 0);
    }
    CHILD_CHECK(s, hear(b, &s->inbox[1], 1999) == 0 && hear(a, &s->inbox[0], 2000) == 0);
    CHILD_CHECK(s, ps_stats(b, &st) == 0 && ps_members(b, "t", m, 8) == 2);
    CHILD_CHECK(s, ps_dispatch(b, 0, 20) == 0);
    CHILD_CHECK(s, unlink(scratch_file("filler")) == 0);
    s->rc[0] = ps_publish(b, "t", "x", 1);          /* and with room again it works */
    CHILD_CHECK(s, s->rc[0] == 2);
    CHILD_CHECK(s, ps_close(a) == 0 && ps_close(b) == 0);
    return scratch_count(scratch_path, NULL) == 0 ? 0 : 2;
}

/* As in a container that has nothing in /dev. */
static int no_dev_shm_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    if (mount_small(1 << 20) != 0 || mount(scratch_path, "/dev", NULL, MS_BIND, NULL) != 0)
        return EXIT_SKIP;
    s->rc[0] = ps_open(&bus, "shm://nowhere");
    CHILD_CHECK(s, s->rc[0] == PS_ENOENT && strstr(ps_errmsg(), "cannot make /dev/shm/psbus-") != NULL);
    s->rc[0] = ps_open(&bus, "shm://nowhere?create=0");
    CHILD_CHECK(s, s->rc[0] == PS_ENOENT && strstr(ps_errmsg(), "no bus /dev/shm/psbus-") != NULL);
    return ps_open(&bus, "shm:") == 0 && ps_close(bus) == 0 ? 0 : 2;
}

static void test_shm_without_dev_shm_is_a_named_error(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_child_or_skip(s, start_child(no_dev_shm_child, s));
}

/* A fresh file system over the old one, and the file in it has the same number. */
static int same_number_child(void *arg)
{
    struct stage *s = arg;
    struct stat first, second;
    ps_bus *bus, *other;
    if (mount_small(8 << 20) != 0)
        return EXIT_SKIP;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0 && stat(scratch_file("bus"), &first) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, mount_small(8 << 20) == 0);
    CHILD_CHECK(s, ps_open(&other, s->url) == 0 && stat(scratch_file("bus"), &second) == 0);
    if (first.st_ino != second.st_ino)
        return EXIT_SKIP;
    s->rc[0] = ps_publish(bus, "t", "x", 1);
    CHILD_CHECK(s, s->rc[0] == PS_EUNLINKED);
    return ps_close(bus) == 0 && ps_close(other) == 0 ? 0 : 2;
}

static void test_p8_replaced_file_of_the_same_number_is_reported(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_child_or_skip(s, start_child(same_number_child, s));
}

static void test_p8_full_file_system_stops_only_who_needs_more(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_child_or_skip(s, start_child(full_disk_child, s));
}

/* A ring so large that it is reserved piece by piece: the pieces of a reservation that failed are given back. */
static int large_ring_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *a, *b;
    if (mount_small(100 << 20) != 0)
        return EXIT_SKIP;
    CHILD_CHECK(s, ps_open(&a, s->url) == 0 && ps_open(&b, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(a, "#", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, say(a, "t", 1, 0, 64) == 1);
    int64_t room = free_bytes();
    for (int i = 0; i < 3; i++) {
        s->rc[0] = ps_publish(b, "t", "x", 1);
        CHILD_CHECK(s, s->rc[0] == PS_ENOSPC && names_numbers());
        CHILD_CHECK(s, free_bytes() == room);
    }
    CHILD_CHECK(s, say(a, "t", 1, 1, 1000) == 1 && hear(a, &s->inbox[0], 2) == 0);
    CHILD_CHECK(s, ps_close(a) == 0 && ps_close(b) == 0);
    return scratch_count(scratch_path, NULL) == 0 ? 0 : 2;
}

static void test_p8_failed_reservation_gives_back_what_it_took(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "bytes=64M&members=4"));
    assert_child_or_skip(s, start_child(large_ring_child, s));
}

/* ---------------------------------------------------------------- what a bus takes */

#define DOCKER_SHM (64u << 20)

static int dozen_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus[64];
    int n = 0, refused = 0;
    if (mount_small(DOCKER_SHM) != 0)
        return EXIT_SKIP;
    for (; n < 40 && !refused; n++) {
        s->rc[1] = n;
        s->rc[0] = ps_open(&bus[n], s->url);
        CHILD_CHECK(s, s->rc[0] == 0);
        if (n == 0)
            CHILD_CHECK(s, ps_subscribe(bus[0], "#", inbox_take, &s->inbox[0], NULL, NULL) == 0);
        s->rc[0] = ps_publish(bus[n], "t", "x", 1);
        refused = s->rc[0] == PS_ENOSPC && names_numbers();
        CHILD_CHECK(s, s->rc[0] == 1 || refused);
    }
    s->number[0] = (uint64_t)(n - refused);
    CHILD_CHECK(s, n - refused >= 12);
    /* One too many failed at its first publish, and nothing else did. */
    for (int i = 0; i < n - refused; i++)
        CHILD_CHECK(s, ps_publish(bus[i], "t", "x", 1) == 1);
    CHILD_CHECK(s, hear(bus[0], &s->inbox[0], 2 * s->number[0]) == 0);
    for (int i = 0; i < n; i++)
        CHILD_CHECK(s, ps_close(bus[i]) == 0);
    return scratch_count(scratch_path, NULL) == 0 ? 0 : 2;
}

static void test_p8_dozen_default_publishers_fit_64_megabytes_and_one_too_many_fails_alone(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_child_or_skip(s, start_child(dozen_child, s));
    print_message("%d default publishers fit 64 MiB\n", (int)s->number[0]);
}

static void test_p8_default_bus_with_two_publishers_takes_at_most_8_mebibytes(void **state)
{
    (void)state;
    struct inbox *in = support_shared(sizeof *in);
    ps_bus_stats st = PS_BUS_STATS_INIT;
    ps_bus *a, *b;
    assert_ok(ps_open(&a, scratch_url("bus", "")));
    assert_ok(ps_open(&b, scratch_url("bus", "")));
    assert_ok(ps_subscribe(a, "#", inbox_take, in, NULL, NULL));
    assert_ok(ps_subscribe(b, "#", inbox_take, in, NULL, NULL));
    /* Enough to have touched every page of both rings. */
    assert_ok(ps_stats(a, &st));
    for (uint64_t i = 0; i < 2 * st.depth; i++) {
        assert_int_equal(say(a, "t", 1, i, 64 + i % 2048), 2);
        assert_int_equal(say(b, "t", 2, i, 64 + i % 2048), 2);
        assert_true(ps_dispatch(a, 0, 0) > 0);
        assert_true(ps_dispatch(b, 0, 0) > 0);
    }
    int64_t bytes = file_bytes(scratch_file("bus"));
    print_message("default bus, two publishers: %lld KiB\n", (long long)bytes / 1024);
    assert_true(bytes <= 8 << 20);
    assert_ok(ps_stats(a, &st));
    assert_true(st.memory <= 8 << 20);
    assert_true(st.memory >= (uint64_t)bytes / 2);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
}

/* ---------------------------------------------------------------- no descriptors, no file size, no leaks */

/* Everything a handle does once; 0 or the first error. */
static int whole_life(const char *url, struct inbox *in)
{
    ps_bus *bus;
    void *loan;
    int rc = ps_open(&bus, url);
    if (rc < 0)
        return bus == NULL ? rc : 1;
    if ((rc = ps_subscribe(bus, "t", inbox_take, in, NULL, NULL)) == 0 && (rc = ps_publish(bus, "t", "x", 1)) >= 0 &&
        (rc = ps_loan(bus, "t", 100, &loan)) == 0 && (rc = ps_commit(bus, loan, 100)) >= 0 &&
        (rc = ps_dispatch(bus, 0, 1)) >= 0 && (rc = ps_dispatch(bus, 0, 1)) >= 0 && (rc = ps_fd(bus)) >= 0)
        rc = 0;
    int closed = ps_close(bus);
    return closed == 0 ? rc : 2;
}

static int few_descriptors_child(void *arg)
{
    struct stage *s = arg;
    int first = dup(2), good = 0;
    CHILD_CHECK(s, first >= 0);
    close(first);
    int fds = support_fd_count();
    for (int extra = 0; extra < 40; extra++) {
        struct rlimit few = { (rlim_t)(first + extra), (rlim_t)(first + 1000) }, many = { (rlim_t)(first + 200), (rlim_t)(first + 1000) };
        CHILD_CHECK(s, setrlimit(RLIMIT_NOFILE, &few) == 0);
        int rc = whole_life(s->url, &s->inbox[0]);
        CHILD_CHECK(s, setrlimit(RLIMIT_NOFILE, &many) == 0);
        s->rc[0] = rc;
        s->rc[1] = extra;
        CHILD_CHECK(s, rc == 0 || rc == PS_ESYS);
        CHILD_CHECK(s, support_fd_count() == fds);
        CHILD_CHECK(s, s->url[4] == '\0' || scratch_count(scratch_path, NULL) == 0);
        good += rc == 0;
        /* Once there are enough, more do no harm. */
        CHILD_CHECK(s, rc == 0 || good == 0);
        s->number[rc == 0]++;
    }
    return good ? 0 : 2;
}

static void test_shm_out_of_descriptors_at_any_step_is_an_error_without_a_leak(void **state)
{
    (void)state;
    const char *url[] = { scratch_url("bus", ""), "shm:" };
    for (int i = 0; i < 2; i++) {
        struct stage *s = stage_new(url[i]);
        pid_t child = start_child(few_descriptors_child, s);
        int code = reap_child(child);
        if (code != 0)
            fail_msg("%s: child ended with %d, line %d, result %d with %d descriptors", url[i], code, (int)s->line,
                     (int)s->rc[0], (int)s->rc[1]);
        assert_true(s->number[0] > 0);
    }
}

static int small_files_child(void *arg)
{
    struct stage *s = arg;
    for (uint64_t size = 1; size <= 64u << 20; size *= 2) {
        struct rlimit limit = { size, RLIM_INFINITY };
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            return EXIT_SKIP;
        int rc = whole_life(s->url, &s->inbox[0]);
        s->rc[0] = rc;
        s->rc[1] = (int64_t)size;
        CHILD_CHECK(s, rc == 0 || rc == PS_ENOSPC || rc == PS_ESYS);
        CHILD_CHECK(s, scratch_count(scratch_path, NULL) == 0);
        s->number[rc == 0]++;
    }
    return 0;
}

static void test_shm_file_size_limit_is_an_error_and_no_signal(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", ""));
    assert_child_or_skip(s, start_child(small_files_child, s));
    assert_true(s->number[0] > 0);
}

static void test_shm_hundred_open_and_close_leak_no_descriptor_and_no_mapping(void **state)
{
    (void)state;
    const char *url[] = { scratch_url("bus", ""), "shm:" };
    struct inbox *in = support_shared(sizeof *in);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 3; k++)
            assert_int_equal(whole_life(url[i], in), 0);
        int fds = support_fd_count(), maps = mapping_count("");
        for (int k = 0; k < 100; k++)
            assert_int_equal(whole_life(url[i], in), 0);
        assert_int_equal(support_fd_count(), fds);
        assert_int_equal(mapping_count(scratch_path), 0);
        /* A sanitizer maps memory of its own as it likes. */
        if (!ACTORS_SANITIZED)
            assert_true(mapping_count("") <= maps + 2);
    }
}

/* ---------------------------------------------------------------- closefrom */

#define BAIT 64

/* Closes every descriptor behind the library's back and fills the numbers with pipes nobody may touch. */
static int closefrom_child(void *arg)
{
    struct stage *s = arg;
    unsigned char text[600];
    ps_bus *bus;
    int bait[BAIT];
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "to/child", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, say(bus, "to/parent", 1, 0, 64) == 1);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 1) >= 0);    /* sleeps, so that there is a doorbell to lose */
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    for (int i = 0; i < BAIT; i += 2)
        CHILD_CHECK(s, pipe(&bait[i]) == 0);
    s->ready = 1;
    uint64_t end = support_now_ms() + DEADLINE_MS;
    for (uint64_t i = 1; (i <= 2000 || s->inbox[0].count < 2000) && support_now_ms() < end; ) {
        /* Not say(): who waits for room has to read meanwhile, or both wait. */
        support_compose(text, 64 + i % 500, 1, i);
        int rc = i <= 2000 ? ps_publish(bus, "to/parent", text, 64 + i % 500) : PS_EAGAIN;
        s->rc[0] = rc;
        CHILD_CHECK(s, rc == 1 || rc == PS_EAGAIN);
        i += rc == 1;
        rc = ps_dispatch(bus, 0, 0);
        s->rc[1] = rc;
        CHILD_CHECK(s, rc >= 0);
    }
    CHILD_CHECK(s, s->inbox[0].count == 2000);
    /* A call that would sleep may fail now, but not hang and not read somebody else's descriptor. */
    s->rc[2] = ps_dispatch(bus, 0, 5);
    CHILD_CHECK(s, s->rc[2] == 0 || s->rc[2] == PS_ESYS);
    s->number[0] = 1;
    CHILD_CHECK(s, wait_word(&s->done, 1));
    s->rc[3] = ps_close(bus);
    for (int i = 0; i < BAIT; i += 2) {
        char byte;
        CHILD_CHECK(s, fcntl(bait[i], F_GETFD) >= 0 && fcntl(bait[i + 1], F_GETFD) >= 0);
        CHILD_CHECK(s, fcntl(bait[i], F_SETFL, O_NONBLOCK) == 0);
        CHILD_CHECK(s, read(bait[i], &byte, 1) == -1 && errno == EAGAIN);
    }
    return s->rc[3] == 0 ? 0 : 2;
}

static void closefrom_survives(const char *url)
{
    struct stage *s = stage_new(url);
    ps_bus *bus;
    ps_member m[8] = { PS_MEMBER_INIT };
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_subscribe(bus, "to/parent", inbox_take, &s->inbox[1], NULL, NULL));
    pid_t child = start_child(closefrom_child, s);
    assert_true(wait_word(&s->ready, 1));
    uint64_t end = support_now_ms() + DEADLINE_MS;
    for (uint64_t i = 0; i < 2000 && support_now_ms() < end; ) {
        unsigned char text[64];
        support_compose(text, sizeof text, 1, i);
        int rc = ps_publish(bus, "to/child", text, sizeof text);
        assert_true(rc == 1 || rc == PS_EAGAIN);
        i += rc == 1;
        assert_true(ps_dispatch(bus, 0, 0) >= 0);
    }
    if (hear(bus, &s->inbox[1], 2001) != 0 || !wait_word(&s->number[0], 1))
        fail_msg("child's line %d: publish %d, dispatch %d", (int)s->line, (int)s->rc[0], (int)s->rc[1]);
    assert_int_equal(ps_members(bus, NULL, m, 8), 2);
    assert_int_equal((m[0].flags | m[1].flags) & PS_MEMBER_DEAD, 0);
    s->done = 1;
    assert_child(s, child);
    assert_int_equal(s->inbox[1].damaged + s->inbox[1].skipped + s->inbox[1].lost, 0);
    assert_int_equal(s->inbox[0].damaged + s->inbox[0].skipped + s->inbox[0].lost, 0);
    assert_ok(ps_close(bus));
}

static void test_p7_closefrom_in_a_member_leaves_it_alive_and_touches_no_new_descriptor(void **state)
{
    (void)state;
    closefrom_survives(scratch_url("bus", "depth=256&bytes=256k"));
    /* Whether the last close could still remove the file is the next opener's business. */
    ps_bus *bus;
    assert_ok(ps_open(&bus, scratch_url("bus", NULL)));
    assert_int_equal(living_members(bus), 1);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* Two handles of one bus in this process, the second opened under the numbers that the first one's descriptors had. */
static int closefrom_then_open_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *a, *b;
    int rc = 0;
    CHILD_CHECK(s, ps_open(&a, s->url) == 0);
    CHILD_CHECK(s, ps_publish(a, "t", "x", 1) >= 0);
    for (int fd = 3; fd < 1024; fd++)
        close(fd);
    CHILD_CHECK(s, ps_open(&b, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(b, "t", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    /* The second one reads nothing, so the first is refused, which never counts a living reader as dead. */
    for (int i = 0; i < 20 && rc >= 0; i++)
        rc = ps_publish(a, "t", "x", 1);
    s->rc[0] = rc;
    CHILD_CHECK(s, rc == PS_EAGAIN);
    s->rc[1] = living_members(a);
    CHILD_CHECK(s, s->rc[1] == 3);
    CHILD_CHECK(s, ps_close(a) == 0);
    s->ready = 1;                               /* and the end of the first leaves the second a member */
    CHILD_CHECK(s, wait_word(&s->go, 1));
    s->rc[2] = ps_dispatch(b, 0, 1);
    CHILD_CHECK(s, s->rc[2] > 0);
    s->rc[2] = ps_dispatch(b, 0, 1);
    CHILD_CHECK(s, s->rc[2] == 0);
    return ps_close(b) == 0 ? 0 : 2;
}

static void test_p7_handle_opened_under_the_numbers_of_another_ones_descriptors_is_not_taken_for_it(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=4&bytes=4k&evict=-1"));
    ps_bus *bus;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(closefrom_then_open_child, s);
    if (!wait_word(&s->ready, 1))
        fail_msg("child's line %d: publish %d, members %d", (int)s->line, (int)s->rc[0], (int)s->rc[1]);
    assert_int_equal(living_members(bus), 2);
    s->go = 1;
    assert_child(s, child);
    assert_int_equal(living_members(bus), 1);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

#define SHM_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHM_TEST(test_p8_no_space_is_enospc_with_numbers_at_open_or_first_publish),
        SHM_TEST(test_p8_full_file_system_stops_only_who_needs_more),
        SHM_TEST(test_p8_replaced_file_of_the_same_number_is_reported),
        SHM_TEST(test_shm_without_dev_shm_is_a_named_error),
        SHM_TEST(test_p8_failed_reservation_gives_back_what_it_took),
        SHM_TEST(test_p8_dozen_default_publishers_fit_64_megabytes_and_one_too_many_fails_alone),
        SHM_TEST(test_p8_default_bus_with_two_publishers_takes_at_most_8_mebibytes),
        SHM_TEST(test_shm_out_of_descriptors_at_any_step_is_an_error_without_a_leak),
        SHM_TEST(test_shm_file_size_limit_is_an_error_and_no_signal),
        SHM_TEST(test_shm_hundred_open_and_close_leak_no_descriptor_and_no_mapping),
        SHM_TEST(test_p7_closefrom_in_a_member_leaves_it_alive_and_touches_no_new_descriptor),
        SHM_TEST(test_p7_handle_opened_under_the_numbers_of_another_ones_descriptors_is_not_taken_for_it),
    };
    return cmocka_run_group_tests_name("shm_limits", tests, NULL, NULL);
}
