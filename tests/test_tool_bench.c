/* SPDX-License-Identifier: MIT */
/* test_tool_bench.c - the tool psbus: bench. It measures, disturbs nobody, and leaves nothing behind. */
#include "tool.h"

static int bus_gone(void *arg)
{
    return access(support_file(arg), F_OK) < 0;
}

static void test_tool_bench_measures(void **state)
{
    static const char *const lines[] = {
        "one way, 64 bytes, the reader asleep", "one way, 64 bytes, polling", "64 bytes, as fast as it goes",
        "1024 bytes, as fast as it goes", "65536 bytes, as fast as it goes", "64 bytes that nobody wants",
    };
    const char *urls[] = { support_url("shm", "tool-bench", NULL), support_url("inproc", "tool-bench", NULL), "shm:" };
    struct tool t;

    (void)state;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        assert_status(&t, tool_run(&t, NULL, "bench", "--seconds", "0.3", urls[i]), 0);
        for (size_t k = 0; k < sizeof lines / sizeof lines[0]; k++)
            assert_says(tool_out(&t), lines[k]);
        assert_int_equal(tool_lines(tool_out(&t)), 6);
        assert_string_equal(tool_err(&t), "");
        tool_done(&t);
    }
    assert_int_equal(access(support_file(urls[0]), F_OK), -1);
}

static void test_tool_bench_leaves_a_bus_of_others_alone(void **state)
{
    const char *url = support_url("shm", "tool-busy", NULL);
    struct tool t;
    ps_bus *bus;

    (void)state;
    assert_ok(ps_open(&bus, url));
    assert_status(&t, tool_run(&t, NULL, "bench", url), 1);
    assert_one_line(&t, "psbus bench: ");
    assert_says(tool_err(&t), "has 1 members");
    assert_int_equal(ps_members(bus, NULL, NULL, 0), 1);
    tool_done(&t);
    assert_ok(ps_close(bus));
}

static void test_tool_bench_stops_on_ctrl_c(void **state)
{
    const char *url = support_url("shm", "tool-benchc", NULL);
    struct tool t;

    (void)state;
    for (int i = 0; i < 3; i++) {
        tool_start(&t, "bench", "--seconds", "100", url);
        /* As soon as it is there, or in the middle of a measurement. */
        assert_true(support_wait(tool_bus_there, (void *)(uintptr_t)url, DEADLINE_MS));
        if (i == 2) {
            char look[512];
            ps_bus *bus;
            snprintf(look, sizeof look, "%s?observe=1", url);
            assert_ok(ps_open(&bus, look));
            assert_true(tool_members(bus, PS_MEMBER_PUBLISHER, 2));
            assert_ok(ps_close(bus));
        }
        assert_status(&t, tool_signal(&t, i == 0 ? SIGTERM : SIGINT), 0);
        assert_string_equal(tool_out(&t), "");
        assert_string_equal(tool_err(&t), "");
        assert_true(support_wait(bus_gone, (void *)(uintptr_t)url, DEADLINE_MS));
        tool_done(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_bench_measures),
        cmocka_unit_test(test_tool_bench_leaves_a_bus_of_others_alone),
        cmocka_unit_test(test_tool_bench_stops_on_ctrl_c),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
