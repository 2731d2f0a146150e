/* SPDX-License-Identifier: MIT */
/*
 * support.h - what the tests share: unique names, children that never assert, waiting for a condition with a deadline,
 * self-checking messages.
 *
 * Threads and forked children never call a cmocka assert: they record what they saw in memory (support_shared for
 * children) or end with an exit code, and the test that started them joins and asserts.
 *
 * PS_TEST_FILTER in the environment is a pattern of the names of the tests that a program runs.
 */
#ifndef PS_TEST_SUPPORT_H
#define PS_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include <psbus.h>

#define DEADLINE_MS 20000               /* against hangs; never a measure of speed */

/* A bus URL nobody else uses: SCHEME://STEM.PID.N?OPTIONS (no '?' if options is NULL or ""). Static, 16 in rotation. */
const char *support_url(const char *scheme, const char *stem, const char *options);
/* The file of a shm://NAME url made by support_url. Static, 16 in rotation. */
const char *support_file(const char *url);

uint64_t support_now_ms(void);
/* Calls check(arg) until it answers non-zero or the deadline is over, yielding in between; the last answer. */
int support_wait(int (*check)(void *arg), void *arg, int deadline_ms);

/* Zeroed memory that forked children share with the test; unmapped at exit. */
void *support_shared(size_t size);

/* A child that runs body(arg) and _exits with its answer (0..125). Never asserts in the child. */
pid_t support_child(int (*body)(void *arg), void *arg);
/* Waits for it: its exit code, or 1000 + signal; at the deadline kills it and answers -1. */
int support_reap(pid_t child, int deadline_ms);
/* kill -9 and reap. */
void support_kill(pid_t child);

/* Descriptors this process has open; entries of a directory that begin with prefix. */
int support_fd_count(void);
int support_file_count(const char *directory, const char *prefix);

/* Random numbers whose seed is printed once and may be given by PS_TEST_SEED. */
uint64_t support_random(void);

/*
 * A message that checks itself: publisher, number and a checksum over all of it, so that loss, repetition, reorder and
 * damage are told apart.
 */
struct support_message {
    uint64_t publisher, number, size, checksum;
};
/* Fills buffer (size >= sizeof (struct support_message)) with a message; the filling depends on publisher and number. */
void support_compose(void *buffer, size_t size, uint64_t publisher, uint64_t number);
/* 0 and the header in *out, or -1: damaged. */
int support_verify(const void *buffer, size_t size, struct support_message *out);

/*
 * What a handler saw of one publisher that sends 0, 1, 2, … as 8 bytes each: delivered, admitted as lost, and the number that comes
 * next. wrong: messages whose number did not rise by exactly lost + 1.
 */
struct support_numbers {
    uint64_t delivered, lost, next;
    int      wrong;
};
/* A handler. */
void support_take_number(const ps_msg *msg, void *numbers);

#define assert_ok(call) do { int support_rc_ = (call); if (support_rc_ < 0) \
    fail_msg("%s: %s (%s)", #call, ps_strerror(support_rc_), ps_errmsg()); } while (0)

#endif
