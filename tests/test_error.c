/* SPDX-License-Identifier: MIT */
/*
 * test_error.c - codes and their texts, and the detail of each thread's last failure.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>

static void test_strerror_every_code_has_its_text(void **state)
{
    (void)state;
    static const struct { int code, value; const char *text; } codes[] = {
#define CODE(name, value, text) { name, value, text },
        PS_ERRORS(CODE)
#undef CODE
    };
    int count = (int)(sizeof codes / sizeof codes[0]);
    for (int i = 0; i < count; i++) {
        assert_int_equal(codes[i].code, codes[i].value);
        assert_int_equal(codes[i].code, -1 - i);                /* fixed, without gaps */
        assert_string_equal(ps_strerror(codes[i].code), codes[i].text);
    }
    assert_string_equal(ps_strerror(0), "success");
    assert_string_equal(ps_strerror(1), "unknown result");
    assert_string_equal(ps_strerror(-count - 1), "unknown result");
    assert_string_equal(ps_strerror(INT_MIN), "unknown result");
}

static void test_version_is_the_headers(void **state)
{
    (void)state;
    char text[32];
    (void)snprintf(text, sizeof text, "%d.%d.%d", PS_VERSION_MAJOR, PS_VERSION_MINOR, PS_VERSION_PATCH);
    assert_string_equal(ps_version(), text);
}

static void test_errmsg_before_any_failure_empty(void **state)
{
    (void)state;
    assert_string_equal(ps_errmsg(), "");
}

static void test_fail_keeps_text_code_and_errno(void **state)
{
    (void)state;
    errno = 77;
    assert_int_equal(ps__fail(PS_EBUSY, "%s has %d legs", "a spider", 8), PS_EBUSY);
    assert_int_equal(errno, 77);
    assert_string_equal(ps_errmsg(), "a spider has 8 legs");
    assert_int_equal(ps__fail(PS_EINVAL, "%s, not %d", ps_errmsg(), 6), PS_EINVAL);
    assert_string_equal(ps_errmsg(), "a spider has 8 legs, not 6");
    (void)ps__fail(PS_EINVAL, "%s", "two\nlines\x7f\xc3\xa4");
    assert_string_equal(ps_errmsg(), "two?lines?\xc3\xa4");
}

static void test_fail_long_text_cut(void **state)
{
    (void)state;
    char text[4000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_int_equal(ps__fail(PS_EINVAL, "%s", text), PS_EINVAL);
    assert_true(strlen(ps_errmsg()) >= 255 && strlen(ps_errmsg()) < sizeof text - 1);
    assert_int_equal(ps__fail_sys(ENOENT, "%s", text), PS_ENOENT);
    assert_true(strlen(ps_errmsg()) >= 255 && strlen(ps_errmsg()) < sizeof text - 1);
}

static void test_fail_sys_maps_errors(void **state)
{
    (void)state;
    static const struct { int error, code; } cases[] = {
        { ENOMEM, PS_ENOMEM }, { ENOSPC, PS_ENOSPC }, { EDQUOT, PS_ENOSPC }, { EFBIG, PS_ENOSPC }, { EACCES, PS_EACCES },
        { EPERM, PS_EACCES }, { EROFS, PS_EACCES }, { ENOENT, PS_ENOENT }, { EMFILE, PS_ESYS }, { EIO, PS_ESYS },
        { 123456, PS_ESYS },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        errno = 78;
        assert_int_equal(ps__fail_sys(cases[i].error, "open %s", "/x"), cases[i].code);
        assert_int_equal(errno, 78);
        (void)snprintf(text, sizeof text, "open /x: %s", strerror(cases[i].error));
        assert_string_equal(ps_errmsg(), text);
    }
}

static void *other_thread(void *wrong)
{
    if (ps_errmsg()[0] != '\0')
        ++*(int *)wrong;
    (void)ps__fail(PS_EINVAL, "from the other thread");
    if (strcmp(ps_errmsg(), "from the other thread") != 0)
        ++*(int *)wrong;
    return NULL;
}

static void test_errmsg_each_thread_its_own(void **state)
{
    (void)state;
    pthread_t thread;
    int wrong = 0;
    (void)ps__fail(PS_EINVAL, "from the first thread");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &wrong), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_string_equal(ps_errmsg(), "from the first thread");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errmsg_before_any_failure_empty),
        cmocka_unit_test(test_strerror_every_code_has_its_text),
        cmocka_unit_test(test_version_is_the_headers),
        cmocka_unit_test(test_fail_keeps_text_code_and_errno),
        cmocka_unit_test(test_fail_long_text_cut),
        cmocka_unit_test(test_fail_sys_maps_errors),
        cmocka_unit_test(test_errmsg_each_thread_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
