/* SPDX-License-Identifier: MIT */
/*
 * test_remote.c - the stub of a remote backend: it tells a bad address from a missing engine, and a copy of it is a transport
 * that the core takes.
 */
#include "../lib/base/base.h"

#include "support.h"

#include <stdlib.h>

static void test_remote_good_address_not_supported(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "remote://host", "remote://host:1", "remote://host:65535", "remote://10.0.0.1:6379", "remote://[::1]:6379",
        "REMOTE://host",
        "remote://host:6379?depth=16&lossy=1&name=me",  /* what all backends know is accepted */
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        ps_bus *bus = (ps_bus *)(void *)&urls;
        assert_int_equal(ps_open(&bus, urls[i]), PS_ENOTSUP);
        assert_null(bus);
        assert_string_equal(ps_errmsg(), "remote:// is a stub: no engine is built in");
    }
}

static void test_remote_bad_address_refused(void **state)
{
    (void)state;
    static const struct { const char *url, *says; } cases[] = {
        { "remote:", "HOST" }, { "remote://", "no address" }, { "remote://:80", "HOST" }, { "remote://host:", "port missing" },
        { "remote://host:0", "port missing" }, { "remote://host:65536", "'65536'" }, { "remote://host:80x", "'80x'" },
        { "remote://host:-1", "'-1'" }, { "remote://host:4294967297", "'4294967297'" }, { "remote://host?user=me", "user" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ps_bus *bus;
        assert_int_equal(ps_open(&bus, cases[i].url), PS_EINVAL);
        assert_null(bus);
        assert_non_null(strstr(ps_errmsg(), cases[i].says));
    }
}

static int copy_open(void *memory, ps_host *host, const ps_url *url)
{
    int err = ps__remote_transport.open(memory, host, url);
    return err == PS_ENOTSUP ? 0 : err;                 /* connected, so to speak */
}

static void test_remote_copied_and_opened_answers_every_call(void **state)
{
    (void)state;
    static ps_transport table;
    ps_bus *bus;
    const ps_msg *msg;
    void *loan;
    table = ps__remote_transport;
    table.scheme = "copy";
    table.open = copy_open;
    assert_ok(ps_transport_register(&table));
    assert_int_equal(ps_open(&bus, "copy://host:x"), PS_EINVAL);
    assert_ok(ps_open(&bus, "copy://host"));
    assert_int_equal(ps_publish(bus, "t", "x", 1), PS_ENOTSUP);
    assert_string_equal(ps_errmsg(), "remote:// is a stub: no engine is built in");
    assert_int_equal(ps_subscribe(bus, "t", NULL, NULL, NULL, NULL), PS_ENOTSUP);
    assert_int_equal(ps_dispatch(bus, 0, 0), 0);
    assert_int_equal(ps_dispatch(bus, 0, -1), PS_ENOTSUP);      /* it cannot sleep, and does not pretend to */
    assert_int_equal(ps_next(bus, &msg, 0), 0);
    assert_int_equal(ps_run(bus), PS_ENOTSUP);
    ps_stop(bus);
    assert_int_equal(ps_wanted(bus, "t"), PS_ENOTSUP);
    assert_int_equal(ps_fd(bus), PS_ENOTSUP);
    assert_int_equal(ps_loan(bus, "t", 1, &loan), PS_ENOTSUP);
    assert_int_equal(ps_members(bus, NULL, NULL, 0), PS_ENOTSUP);
    assert_ok(ps_close(bus));
}

/* The two that the core never calls here, because no subscription ever succeeds. */
static void test_remote_unsubscribe_and_close_need_no_connection(void **state)
{
    (void)state;
    void *memory = calloc(1, ps__remote_transport.state_size);
    ps_filter filter = { "t", 1, 0, 0, 0 };
    assert_non_null(memory);
    ps__remote_transport.unsubscribe(memory, &filter, 0, 1, 1);
    ps__remote_transport.close(memory, 0);
    ps__remote_transport.close(memory, 1);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_remote_good_address_not_supported),
        cmocka_unit_test(test_remote_bad_address_refused),
        cmocka_unit_test(test_remote_copied_and_opened_answers_every_call),
        cmocka_unit_test(test_remote_unsubscribe_and_close_need_no_connection),
    };
    return cmocka_run_group_tests_name("remote", tests, NULL, NULL);
}
