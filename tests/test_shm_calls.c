/* SPDX-License-Identifier: MIT */
/*
 * test_shm_calls.c - shared memory when a call to the system fails, or somebody else comes in right behind it.
 *
 * The library is linked statically, so its calls come to the functions of the same names here.
 */
#include "forge.h"

#include <dlfcn.h>
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

#define CALLS_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CALLS_TEST(test_p9_link_in_the_place_of_a_doorbell_is_not_followed),
    };
    return cmocka_run_group_tests_name("shm_calls", tests, NULL, NULL);
}
