/* SPDX-License-Identifier: MIT */
/*
 * test_platform_fence.c - the light and the heavy fence order each other: with membarrier(2), without it, and when it is
 * taken away while the process runs.
 */
#include "../lib/base/base.h"

#include "forbid.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 50000

/*
 * Store buffering: each side raises its word and then looks at the other's. With fences between, one of them at least
 * sees the other. Both sides start a round together, so that the windows overlap.
 */
static struct {
    ps__a64 light, heavy, round[2];
    ps__a64 saw[2];
} litmus;

static void litmus_meet(int side, uint64_t round)
{
    atomic_store(&litmus.round[side], round);
    for (unsigned turns = 0; atomic_load(&litmus.round[!side]) < round; turns++)
        if (turns % 1024 == 1023)
            sched_yield();
}

static void *litmus_light(void *unused)
{
    (void)unused;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        litmus_meet(0, 2 * i);
        ps__store_rlx(&litmus.light, i);
        ps__fence_light();
        ps__store_rlx(&litmus.saw[0], ps__load_rlx(&litmus.heavy));
        litmus_meet(0, 2 * i + 1);
    }
    return NULL;
}

/* How often neither side saw the other. */
static int litmus_failures(void)
{
    pthread_t thread;
    int failures = 0;
    memset(&litmus, 0, sizeof litmus);
    if (pthread_create(&thread, NULL, litmus_light, NULL) != 0)
        return -1;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        litmus_meet(1, 2 * i);
        ps__store_rlx(&litmus.heavy, i);
        ps__fence_heavy();
        uint64_t saw = ps__load_rlx(&litmus.light);
        litmus_meet(1, 2 * i + 1);
        failures += saw != i && ps__load_rlx(&litmus.saw[0]) != i;
    }
    return pthread_join(thread, NULL) == 0 ? failures : -1;
}

static int has_membarrier(void)
{
    return syscall(SYS_membarrier, 0, 0, 0) > 0;
}

static void test_fences_one_side_sees_the_other(void **state)
{
    (void)state;
    assert_int_equal(ps__process_init(), 0);
    assert_int_equal(ps__light_is_free, !PS_TSAN && has_membarrier());
    errno = 99;
    assert_int_equal(litmus_failures(), 0);
    assert_int_equal(errno, 99);
}

static int fences_without_membarrier(void *early)
{
    if (!early && (ps__process_init() != 0 || ps__light_is_free != (!PS_TSAN && has_membarrier())))
        return 1;
    if (forbid(SYS_membarrier) != 0)
        return FORBID_SKIP;
    if (early && (ps__process_init() != 0 || ps__light_is_free))
        return 2;
    errno = 99;
    ps__fence_heavy();
    if (errno != 99 || ps__light_is_free)
        return 3;
    return litmus_failures() == 0 ? 0 : 4;
}

/* Runs first: the child must be the first in its line to set up the process. */
static void test_fences_membarrier_missing_both_sides_full(void **state)
{
    (void)state;
    assert_int_equal(ps__process_generation(), 0);
    forbid_child(fences_without_membarrier, &litmus);
}

static void test_fences_membarrier_withdrawn_both_sides_full(void **state)
{
    (void)state;
    forbid_child(fences_without_membarrier, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fences_membarrier_missing_both_sides_full),
        cmocka_unit_test(test_fences_one_side_sees_the_other),
        cmocka_unit_test(test_fences_membarrier_withdrawn_both_sides_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
