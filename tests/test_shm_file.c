/* SPDX-License-Identifier: MIT */
/* test_shm_file.c - the file of a shared-memory bus: what it leaves behind, what it refuses, whom it lets in. */
#include "actors.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

/* ---------------------------------------------------------------- no residue */

static void test_p8_last_close_removes_everything(void **state)
{
    (void)state;
    ps_bus *bus[4];
    int sockets;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            assert_ok(ps_open(&bus[i], scratch_url("bus", "")));
            assert_ok(ps_subscribe(bus[i], "#", inbox_take, support_shared(sizeof(struct inbox)), NULL, NULL));
            assert_true(ps_fd(bus[i]) >= 0);
            assert_true(ps_dispatch(bus[i], 0, 1) >= 0);
            assert_true(say(bus[i], "t", 1, (uint64_t)i, 64) >= 1);
        }
        assert_int_equal(scratch_count(scratch_path, &sockets), 1);
        assert_true(sockets <= 4);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(scratch_count(scratch_path, &sockets), 1);
            assert_true(sockets <= 4 - i);
            assert_ok(ps_close(bus[(i + round) % 4]));
        }
        assert_int_equal(scratch_count(scratch_path, &sockets), 0);
        assert_int_equal(sockets, 0);
    }
}

/* The directory of an absolute path is its owner's, whatever its name looks like. */
static void test_p8_last_close_leaves_the_directory_of_an_absolute_path(void **state)
{
    (void)state;
    char directory[] = "/dev/shm/psbus-XXXXXX", url[64];
    ps_bus *bus;
    assert_non_null(mkdtemp(directory));
    snprintf(url, sizeof url, "shm://%s/bus", directory);
    assert_ok(ps_open(&bus, url));
    assert_ok(ps_close(bus));
    assert_int_equal(rmdir(directory), 0);
}

static void test_p1_many_topics_make_no_file_descriptor_or_mapping(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64"));
    ps_bus *a, *b;
    char topic[64];
    assert_ok(ps_open(&a, s->url));
    assert_ok(ps_open(&b, s->url));
    assert_ok(ps_subscribe(b, "first", inbox_take, &s->inbox[0], NULL, NULL));
    assert_int_equal(say(a, "first", 1, 0, 64), 1);
    assert_int_equal(hear(b, &s->inbox[0], 1), 0);
    int sockets, fds = support_fd_count(), maps = mapping_count(scratch_file("bus"));
    int entries = scratch_count(scratch_path, &sockets) + sockets;
    for (uint64_t i = 1; i <= 20000; i++) {
        snprintf(topic, sizeof topic, "user/%u/inbox", (unsigned)i);
        assert_ok(ps_subscribe(b, topic, inbox_take, &s->inbox[0], NULL, NULL));
        assert_int_equal(say(a, topic, 1, i, 64), 1);
        if (i % 32 == 0)
            assert_int_equal(hear(b, &s->inbox[0], i + 1), 0);
    }
    assert_int_equal(hear(b, &s->inbox[0], 20001), 0);
    assert_int_equal(support_fd_count(), fds);
    assert_int_equal(scratch_count(scratch_path, &sockets) + sockets, entries);
    assert_true(sockets <= 2);
    /* The interest of a handle may move to its larger region once; nothing grows with the topics. */
    assert_true(mapping_count(scratch_file("bus")) <= maps + 4);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
    assert_int_equal(mapping_count(scratch_file("bus")), 0);
}

static void test_p1_publish_nobody_wants_writes_nothing(void **state)
{
    (void)state;
    ps_bus *a, *b;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    assert_ok(ps_open(&a, scratch_url("bus", "")));
    assert_ok(ps_open(&b, scratch_url("bus", "")));
    assert_ok(ps_subscribe(b, "other", inbox_take, support_shared(sizeof(struct inbox)), NULL, NULL));
    int64_t bytes = file_bytes(scratch_file("bus"));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ps_publish(a, "unwanted", "x", 1), 0);
    assert_ok(ps_stats(a, &st));
    assert_int_equal(st.published, 0);
    assert_int_equal(st.wakes, 0);
    assert_ok(ps_stats(b, &st));
    assert_int_equal(st.unwanted, 0);
    /* Not even the ring is reserved. */
    assert_int_equal(file_bytes(scratch_file("bus")), bytes);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
}

static int doomed_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    uint64_t me = s->number[0]++;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "t/#", inbox_take, &s->inbox[me % 2], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_publish(bus, "t/1", "x", 1) >= 1);
    CHILD_CHECK(s, ps_dispatch(bus, 0, 0) >= 0);
    CHILD_CHECK(s, ps_fd(bus) >= 0);
    s->ready++;
    for (;;)
        CHILD_CHECK(s, ps_dispatch(bus, 0, 1000) >= 0);
}

static void test_p8_stale_file_is_reused_and_never_grows(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64&bytes=64k"));
    ps_bus *bus;
    int64_t bytes = 0;
    int sockets = 0;
    ino_t inode = 0;
    for (uint64_t round = 1; round <= 200; round++) {
        struct stat st;
        pid_t one = start_child(doomed_child, s), two = start_child(doomed_child, s);
        if (!wait_word(&s->ready, 2 * round))
            fail_msg("round %d: nobody could open the stale bus; line %d", (int)round, (int)s->line);
        kill_child(one);
        kill_child(two);
        assert_int_equal(stat(scratch_file("bus"), &st), 0);
        if (round == 1) {
            bytes = file_bytes(scratch_file("bus"));
            inode = st.st_ino;
        }
        assert_int_equal(st.st_ino, inode);
        assert_int_equal(file_bytes(scratch_file("bus")), bytes);
        assert_int_equal(scratch_count(scratch_path, &sockets), 1);
        assert_true(sockets <= 2);
    }
    assert_ok(ps_open(&bus, s->url));
    assert_int_equal(living_members(bus), 1);
    assert_ok(ps_subscribe(bus, "t/#", inbox_take, &s->inbox[2], NULL, NULL));
    for (uint64_t i = 0; i < 200; i++) {                        /* the dead hold nobody back */
        assert_true(say(bus, "t/1", 1, i, 64) >= 1);
        assert_int_equal(hear(bus, &s->inbox[2], i + 1), 0);
    }
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, &sockets), 0);
    assert_int_equal(sockets, 0);
}

/* ---------------------------------------------------------------- deleted and replaced */

/* Dispatches until it is told, with a deadline. */
static int wait_unlinked(ps_bus *bus)
{
    uint64_t end = support_now_ms() + DEADLINE_MS;
    int rc = 0;
    while (rc >= 0 && support_now_ms() < end)
        rc = ps_dispatch(bus, 0, 100);
    return rc;
}

static void test_p8_deleted_file_is_reported_and_the_next_opener_gets_a_fresh_bus(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64&bytes=64k"));
    ps_bus *a, *b, *quiet, *fresh;
    struct stat st;
    assert_ok(ps_open(&a, s->url));
    assert_ok(ps_open(&b, s->url));
    assert_ok(ps_open(&quiet, s->url));
    assert_ok(ps_subscribe(b, "t", inbox_take, &s->inbox[0], NULL, NULL));
    assert_int_equal(say(a, "t", 1, 0, 64), 1);
    assert_int_equal(unlink(scratch_file("bus")), 0);
    assert_int_equal(say(a, "t", 1, 1, 64), 1);
    assert_int_equal(wait_unlinked(b), PS_EUNLINKED);
    assert_int_equal(s->inbox[0].count, 2);
    assert_true(strlen(ps_errmsg()) > 0);
    /* Told once; the members that are there go on talking. */
    for (uint64_t i = 2; i < 20; i++) {
        assert_int_equal(say(a, "t", 1, i, 64), 1);
        assert_int_equal(hear(b, &s->inbox[0], i + 1), 0);
    }
    /* Who has no ring yet gets none in a file that has no name. */
    assert_int_equal(ps_publish(quiet, "t", "x", 1), PS_EUNLINKED);
    assert_ok(ps_open(&fresh, s->url));
    assert_int_equal(living_members(fresh), 1);
    assert_int_equal(ps_publish(fresh, "t", "x", 1), 0);
    assert_int_equal(stat(scratch_file("bus"), &st), 0);
    assert_ok(ps_close(a));
    assert_ok(ps_close(b));
    assert_ok(ps_close(quiet));
    /* The last one out of the old bus must not take the new bus's file along. */
    assert_int_equal(access(scratch_file("bus"), F_OK), 0);
    assert_ok(ps_open(&a, s->url));
    assert_int_equal(living_members(a), 2);
    assert_ok(ps_close(a));
    assert_ok(ps_close(fresh));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* Who looks for the processes of a bus, also of one that was deleted, finds them all by the name in /proc/PID/maps. */
static void test_p8_creator_maps_the_file_by_its_name(void **state)
{
    (void)state;
    ps_bus *bus;
    char deleted[160];
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    snprintf(deleted, sizeof deleted, "%s (deleted)", scratch_file("bus"));
    assert_true(mapping_count(scratch_file("bus")) > 0);
    assert_int_equal(mapping_count(deleted), 0);
    assert_int_equal(unlink(scratch_file("bus")), 0);
    assert_true(mapping_count(deleted) > 0);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

/* With the directory of its bell: who sleeps is told what happened, once, and goes on, looking now and then. */
static void test_p8_removed_directory_is_reported_and_who_is_there_goes_on(void **state)
{
    (void)state;
    char url[200], file[200];
    snprintf(file, sizeof file, "%s/sub", scratch_path);
    assert_int_equal(mkdir(file, 0700), 0);
    snprintf(url, sizeof url, "shm://%s/sub/bus?depth=64&bytes=64k", scratch_path);
    struct stage *s = stage_new(url);
    for (int slept = 0; slept < 2; slept++) {
        ps_bus *a, *b;
        assert_ok(ps_open(&a, s->url));
        assert_ok(ps_open(&b, s->url));
        assert_ok(ps_subscribe(b, "t", inbox_take, &s->inbox[slept], NULL, NULL));
        assert_int_equal(say(a, "t", 1, 0, 64), 1);
        assert_int_equal(hear(b, &s->inbox[slept], 1), 0);
        if (slept)
            assert_int_equal(ps_dispatch(b, 0, 1), 0);
        char path[300];
        snprintf(path, sizeof path, "%s/bus", file);
        assert_int_equal(unlink(path), 0);
        DIR *dir = opendir(file);               /* the bell's name, if it has slept */
        for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
            (void)unlinkat(dirfd(dir), e->d_name, 0);
        assert_int_equal(closedir(dir), 0);
        assert_int_equal(rmdir(file), 0);
        assert_int_equal(wait_unlinked(b), PS_EUNLINKED);
        assert_int_equal(ps_dispatch(b, 0, 30), 0);
        assert_int_equal(say(a, "t", 1, 1, 64), 1);
        assert_int_equal(hear(b, &s->inbox[slept], 2), 0);
        assert_ok(ps_close(a));
        assert_ok(ps_close(b));
        assert_int_equal(mkdir(file, 0700), 0);
    }
    assert_int_equal(rmdir(file), 0);
}

static void test_p6_publish_into_a_bus_that_was_moved_leaves_errno_alone(void **state)
{
    (void)state;
    struct inbox *in = support_shared(sizeof *in);
    ps_bus *bus;
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    assert_ok(ps_subscribe(bus, "t", inbox_take, in, NULL, NULL));
    assert_int_equal(rename(scratch_file("bus"), scratch_file("moved")), 0);
    errno = 4711;
    int rc = ps_publish(bus, "t", "x", 1);      /* looks for the file before it reserves its lane */
    assert_int_equal(errno, 4711);
    assert_int_equal(rc, PS_EUNLINKED);
    assert_ok(ps_close(bus));
}

static void test_p8_replaced_file_is_reported_and_the_replacement_left_alone(void **state)
{
    (void)state;
    struct stage *s = stage_new(scratch_url("bus", "depth=64&bytes=64k"));
    ps_bus *a;
    char text[16] = "";
    assert_ok(ps_open(&a, s->url));
    assert_ok(ps_subscribe(a, "t", inbox_take, &s->inbox[0], NULL, NULL));
    int fd = open(scratch_file("other"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "not a bus", 9), 9);
    assert_int_equal(rename(scratch_file("other"), scratch_file("bus")), 0);
    assert_int_equal(wait_unlinked(a), PS_EUNLINKED);
    assert_ok(ps_close(a));
    assert_int_equal(pread(fd, text, sizeof text, 0), 9);
    assert_string_equal(text, "not a bus");
    close(fd);
    assert_int_equal(access(scratch_file("bus"), F_OK), 0);
    assert_int_equal(scratch_count(scratch_path, NULL), 1);
}

/* ---------------------------------------------------------------- what is no bus */

static uint64_t digest_of(const void *bytes, size_t size)
{
    const unsigned char *b = bytes;
    uint64_t sum = 14695981039346656037u ^ size;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ b[i]) * 1099511628211u;
    return sum;
}

/* Content, size, owner and bits of whatever is there. */
static uint64_t file_digest(const char *path)
{
    struct stat st;
    uint64_t sum;
    if (lstat(path, &st) != 0)
        return 0;
    sum = (uint64_t)st.st_mode * 31 + (uint64_t)st.st_size * 17 + (uint64_t)st.st_ino * 7 + (uint64_t)st.st_nlink;
    if (S_ISREG(st.st_mode) && st.st_size > 0) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        sum ^= map == MAP_FAILED ? 0 : digest_of(map, (size_t)st.st_size);
        munmap(map, (size_t)st.st_size);
        close(fd);
    }
    return sum;
}

/* In a child, because opening a fifo or a device may hang a careless library. */
static int opening_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus = (ps_bus *)arg;
    int rc = ps_open(&bus, s->url);
    s->rc[0] = rc;
    s->rc[1] = bus == NULL;
    s->number[0] = strlen(ps_errmsg());
    if (rc == 0)
        ps_close(bus);
    return 0;
}

static void refused(const char *what, int expected)
{
    struct stage *s = stage_new(scratch_url("thing", ""));
    uint64_t before = file_digest(scratch_file("thing"));
    int entries = scratch_count(scratch_path, NULL);
    pid_t child = start_child(opening_child, s);
    int code = reap_child(child);
    if (code != 0)
        fail_msg("%s: ps_open ended its process with %d", what, code);
    /* What is not even a file may be refused for several good reasons. */
    if (expected ? s->rc[0] != expected : s->rc[0] != PS_ECORRUPT && s->rc[0] != PS_EACCES && s->rc[0] != PS_ENOTSUP)
        fail_msg("%s: ps_open answered %d", what, (int)s->rc[0]);
    assert_int_equal(s->rc[1], 1);
    assert_true(s->number[0] > 0);
    if (file_digest(scratch_file("thing")) != before)
        fail_msg("%s: ps_open changed it", what);
    assert_int_equal(scratch_count(scratch_path, NULL), entries);
    if (unlink(scratch_file("thing")) != 0)
        rmdir(scratch_file("thing"));
}

static void put_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0600), 0);
    if (size)
        assert_int_equal(pwrite(fd, bytes, size, 0), (ssize_t)size);
    close(fd);
}

static void test_shm_open_of_what_is_no_bus_is_a_named_error_and_leaves_it_untouched(void **state)
{
    (void)state;
    size_t size = 1 << 20;
    unsigned char *bytes = calloc(1, size);
    assert_non_null(bytes);
    put_file(scratch_file("thing"), bytes, 0);
    refused("an empty file", PS_ECORRUPT);
    put_file(scratch_file("thing"), "x", 1);
    refused("one byte", PS_ECORRUPT);
    put_file(scratch_file("thing"), bytes, size);
    refused("zeros", PS_ECORRUPT);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)support_random();
    put_file(scratch_file("thing"), bytes, size);
    refused("garbage", PS_ECORRUPT);
    put_file(scratch_file("thing"), bytes, 100);
    refused("a little garbage", PS_ECORRUPT);
    free(bytes);

    assert_int_equal(mkdir(scratch_file("thing"), 0700), 0);
    refused("a directory", 0);
    assert_int_equal(mkfifo(scratch_file("thing"), 0600), 0);
    refused("a fifo", 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    snprintf(name.sun_path, sizeof name.sun_path, "%s", scratch_file("thing"));
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    close(fd);
    refused("a socket", 0);
    assert_int_equal(symlink("nowhere", scratch_file("thing")), 0);
    refused("a dangling link", 0);
    assert_int_equal(scratch_count(scratch_path, NULL), 0);

    ps_bus *bus;
    assert_ok(ps_open(&bus, scratch_url("bus", "")));
    assert_int_equal(symlink("bus", scratch_file("thing")), 0);
    refused("a link to a bus", 0);
    assert_ok(ps_close(bus));
    assert_int_equal(scratch_count(scratch_path, NULL), 0);
}

static int leaving_child(void *arg)
{
    struct stage *s = arg;
    ps_bus *bus;
    CHILD_CHECK(s, ps_open(&bus, s->url) == 0);
    CHILD_CHECK(s, ps_subscribe(bus, "#", inbox_take, &s->inbox[0], NULL, NULL) == 0);
    CHILD_CHECK(s, ps_publish(bus, "t", "x", 1) == 1);
    return 0;                           /* without a close: the file stays */
}

/* The bytes of a bus whose members are all gone. */
static unsigned char *stale_image(size_t *size)
{
    struct stage *s = stage_new(scratch_url("thing", "depth=16&bytes=16k&members=4"));
    struct stat st;
    assert_child(s, start_child(leaving_child, s));
    int fd = open(scratch_file("thing"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    *size = (size_t)st.st_size;
    unsigned char *bytes = malloc(*size);
    assert_non_null(bytes);
    assert_int_equal(pread(fd, bytes, *size, 0), (ssize_t)*size);
    close(fd);
    unlink(scratch_file("thing"));
    return bytes;
}

static void test_shm_open_of_another_version_size_or_byte_order_is_a_named_error_and_leaves_it_untouched(void **state)
{
    (void)state;
    size_t size, page = 4096;
    unsigned char *bytes = stale_image(&size), *changed = malloc(size);
    ps_bus *bus;
    int versions = 0, corrupt = 0, numbered = 0;
    assert_non_null(changed);

    put_file(scratch_file("thing"), bytes, size);
    assert_ok(ps_open(&bus, scratch_url("thing", "")));       /* the image itself is fine */
    assert_ok(ps_close(bus));

    for (size_t width = 2; width <= 8; width *= 2) {
        memcpy(changed, bytes, size);
        for (size_t at = 0; at < page; at += width) {
            for (size_t i = 0; i < width; i++)
                changed[at + i] = bytes[at + width - 1 - i];
        }
        put_file(scratch_file("thing"), changed, size);
        int rc = ps_open(&bus, scratch_url("thing", ""));
        assert_true(rc == PS_EVERSION || rc == PS_ECORRUPT);
        refused("other byte order", rc);
    }
    for (size_t cut = 1; cut < 4; cut++) {
        put_file(scratch_file("thing"), bytes, size * cut / 4);
        refused("a shorter file", PS_ECORRUPT);
    }
    /* Wherever the version and the magic stand in the head: changing them is noticed, and nothing is written. */
    for (size_t at = 0; at < 128; at += 4) {
        memcpy(changed, bytes, size);
        changed[at] ^= 1;
        put_file(scratch_file("thing"), changed, size);
        uint64_t before = file_digest(scratch_file("thing"));
        int rc = ps_open(&bus, scratch_url("thing", ""));
        versions += rc == PS_EVERSION;
        corrupt += rc == PS_ECORRUPT;
        assert_true(rc == 0 || strlen(ps_errmsg()) > 0);
        numbered += rc == PS_EVERSION && strpbrk(ps_errmsg() + strlen(scratch_file("thing")), "0123456789");
        if (rc == 0)
            assert_ok(ps_close(bus));
        else if (file_digest(scratch_file("thing")) != before)
            fail_msg("ps_open answered %s and changed the file (head byte %d)", ps_strerror(rc), (int)at);
    }
    assert_true(versions >= 1);
    assert_true(numbered >= 1);         /* the message has the two versions */
    assert_true(corrupt >= 1);
    free(bytes);
    free(changed);
}

static void test_shm_open_with_more_than_the_bus_has_is_egeometry_with_both_numbers(void **state)
{
    (void)state;
    ps_bus *a, *b;
    assert_ok(ps_open(&a, scratch_url("bus", "depth=32&bytes=32k")));
    assert_ok(ps_subscribe(a, "t", inbox_take, support_shared(sizeof(struct inbox)), NULL, NULL));
    assert_int_equal(say(a, "t", 1, 0, 64), 1);
    assert_int_equal(ps_open(&b, scratch_url("bus", "depth=4096")), PS_EGEOMETRY);
    assert_non_null(strstr(ps_errmsg(), "4096"));
    assert_non_null(strstr(ps_errmsg(), "32"));
    assert_int_equal(ps_open(&b, scratch_url("bus", "bytes=4M")), PS_EGEOMETRY);
    assert_ok(ps_open(&b, scratch_url("bus", "depth=2&bytes=1k")));
    assert_ok(ps_close(b));
    assert_ok(ps_close(a));
}

#define SHM_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHM_TEST(test_p8_last_close_removes_everything),
        SHM_TEST(test_p8_last_close_leaves_the_directory_of_an_absolute_path),
        SHM_TEST(test_p1_many_topics_make_no_file_descriptor_or_mapping),
        SHM_TEST(test_p1_publish_nobody_wants_writes_nothing),
        SHM_TEST(test_p8_stale_file_is_reused_and_never_grows),
        SHM_TEST(test_p8_deleted_file_is_reported_and_the_next_opener_gets_a_fresh_bus),
        SHM_TEST(test_p8_creator_maps_the_file_by_its_name),
        SHM_TEST(test_p8_removed_directory_is_reported_and_who_is_there_goes_on),
        SHM_TEST(test_p6_publish_into_a_bus_that_was_moved_leaves_errno_alone),
        SHM_TEST(test_p8_replaced_file_is_reported_and_the_replacement_left_alone),
        SHM_TEST(test_shm_open_of_what_is_no_bus_is_a_named_error_and_leaves_it_untouched),
        SHM_TEST(test_shm_open_of_another_version_size_or_byte_order_is_a_named_error_and_leaves_it_untouched),
        SHM_TEST(test_shm_open_with_more_than_the_bus_has_is_egeometry_with_both_numbers),
    };
    return cmocka_run_group_tests_name("shm_file", tests, NULL, NULL);
}
