/* SPDX-License-Identifier: MIT */
/*
 * actors.h - for the tests that need several processes: children that are killed when a test fails, words to wait for, a
 * directory of one's own, and an inbox that tells loss, repetition, reorder and damage apart.
 *
 * What children touch lies in memory from support_shared(), as _Atomic words.
 */
#ifndef PS_TEST_ACTORS_H
#define PS_TEST_ACTORS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define ACTORS_SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ACTORS_SANITIZED 1
#endif
#endif
#ifndef ACTORS_SANITIZED
#define ACTORS_SANITIZED 0
#endif

#define SKIP_TEST(reason) do { print_message("skipped: %s\n", (reason)); skip(); } while (0)
#define EXIT_SKIP 77                    /* a child that cannot do what it is for here */

/* ---------------------------------------------------------------- children */

static pid_t actors_child[64];

struct actors_role {
    int (*body)(void *arg);
    void *arg;
};

/* cmocka catches these to go on with the next test, and a child that inherits that would run the rest of the group. */
static inline int actors_begin(void *arg)
{
    static const int caught[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGABRT };
    const struct actors_role *role = arg;
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        signal(caught[i], SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return role->body(role->arg);
}

/* support_child, and remembered until stop_child or end_child: the teardown kills what a failed test left behind. */
static inline pid_t start_child(int (*body)(void *arg), void *arg)
{
    struct actors_role role = { body, arg };
    pid_t child = support_child(actors_begin, &role);
    for (size_t i = 0; i < sizeof actors_child / sizeof *actors_child; i++) {
        if (actors_child[i] == 0) {
            actors_child[i] = child;
            break;
        }
    }
    return child;
}

static inline void actors_forget(pid_t child)
{
    for (size_t i = 0; i < sizeof actors_child / sizeof *actors_child; i++) {
        if (actors_child[i] == child)
            actors_child[i] = 0;
    }
}

static inline void kill_child(pid_t child)
{
    actors_forget(child);
    support_kill(child);
}

static inline int reap_child(pid_t child)
{
    int code = support_reap(child, DEADLINE_MS);
    actors_forget(child);
    return code;
}

/* ---------------------------------------------------------------- words */

struct actors_word {
    const _Atomic uint64_t *word;
    uint64_t value;
};

static inline int actors_reached(void *arg)
{
    const struct actors_word *w = arg;
    return atomic_load(w->word) >= w->value;
}

/* Waits until *word is at least value: 1, or 0 at the deadline. */
static inline int wait_word(const _Atomic uint64_t *word, uint64_t value)
{
    struct actors_word w = { word, value };
    return support_wait(actors_reached, &w, DEADLINE_MS);
}

/* All n come, then all go; round counts from 1 and is the same for everybody. 0 at the deadline. */
static inline int meet(_Atomic uint64_t *word, uint64_t n, uint64_t round)
{
    atomic_fetch_add(word, 1);
    return wait_word(word, n * round);
}

static inline void nap_us(long us)
{
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    nanosleep(&t, NULL);
}

/* ---------------------------------------------------------------- a directory of one's own */

static char scratch_path[64];

static inline int scratch_setup(void **state)
{
    (void)state;
    snprintf(scratch_path, sizeof scratch_path, "/dev/shm/pstest-XXXXXX");
    return mkdtemp(scratch_path) ? 0 : -1;
}

/* Entries of the directory, sockets apart; -1 if it cannot be read. */
static inline int scratch_count(const char *directory, int *sockets)
{
    DIR *dir = opendir(directory);
    int count = 0;
    if (sockets)
        *sockets = 0;
    if (!dir)
        return -1;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (sockets && S_ISSOCK(st.st_mode))
            (*sockets)++;
        else
            count++;
    }
    closedir(dir);
    return count;
}

static inline void scratch_empty(void)
{
    DIR *dir = opendir(scratch_path);
    if (!dir)
        return;
    for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlinkat(dirfd(dir), e->d_name, 0) != 0)
            unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

static inline int scratch_teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof actors_child / sizeof *actors_child; i++) {
        if (actors_child[i] > 0)
            kill_child(actors_child[i]);
    }
    scratch_empty();
    return rmdir(scratch_path);
}

/* A file in the directory, and the URL of a bus in it. Static, 16 in rotation. */
static inline const char *scratch_file(const char *name)
{
    static char text[16][128];
    static unsigned next;
    char *t = text[next++ % 16];
    snprintf(t, sizeof text[0], "%s/%s", scratch_path, name);
    return t;
}

static inline const char *scratch_url(const char *name, const char *options)
{
    static char text[16][256];
    static unsigned next;
    char *t = text[next++ % 16];
    snprintf(t, sizeof text[0], "shm://%s/%s%s%s", scratch_path, name, options && *options ? "?" : "", options ? options : "");
    return t;
}

/* Bytes the file takes, holes not counted; -1 if there is none. */
static inline int64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_blocks * 512 : -1;
}

/* Lines of /proc/self/maps that name the file. */
static inline int mapping_count(const char *name)
{
    char line[1024];
    int count = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    while (f && fgets(line, sizeof line, f))
        count += strstr(line, name) != NULL;
    if (f)
        fclose(f);
    return count;
}

/* ---------------------------------------------------------------- messages */

#define INBOX_PUBLISHERS 4096

/* What a handler saw. skipped and repeated are numbers of support_message, lost is what the library admitted. */
struct inbox {
    _Atomic uint64_t count, damaged, skipped, repeated, lost, changed_hands;
    uint64_t sequence, publisher, message_lost;         /* of the last one */
    uint64_t next[INBOX_PUBLISHERS];
};

static inline void inbox_take(const ps_msg *msg, void *user)
{
    struct inbox *in = user;
    struct support_message m;
    in->lost += msg->lost;
    if (in->publisher && in->publisher != msg->publisher)
        in->changed_hands++;
    in->sequence = msg->sequence;
    in->publisher = msg->publisher;
    in->message_lost = msg->lost;
    if (support_verify(msg->data, msg->size, &m) != 0 || m.publisher >= INBOX_PUBLISHERS || strlen(msg->topic) != msg->topic_len) {
        in->damaged++;
    } else if (m.number < in->next[m.publisher]) {
        in->repeated++;
    } else {
        in->skipped += m.number - in->next[m.publisher];
        in->next[m.publisher] = m.number + 1;
    }
    in->count++;
}

/* Publishes one self-checking message and tries again while the ring is full: what ps_publish answered last. */
static inline int say(ps_bus *bus, const char *topic, uint64_t publisher, uint64_t number, size_t size)
{
    static _Thread_local unsigned char text[1 << 16];
    uint64_t end = support_now_ms() + DEADLINE_MS;
    int rc;
    support_compose(text, size, publisher, number);
    while ((rc = ps_publish(bus, topic, text, size)) == PS_EAGAIN && support_now_ms() < end)
        sched_yield();
    return rc;
}

/* Members that live; the dead stay listed until somebody takes their place. */
static inline int living_members(ps_bus *bus)
{
    ps_member m[PS_MEMBERS_MAX] = { PS_MEMBER_INIT };
    int n = ps_members(bus, NULL, m, PS_MEMBERS_MAX), living = 0;
    for (int i = 0; i < n; i++)
        living += !(m[i].flags & PS_MEMBER_DEAD);
    return n < 0 ? n : living;
}

/* Dispatches until the inbox holds count messages: 0, an error, or PS_EAGAIN when the deadline is over. */
static inline int hear(ps_bus *bus, struct inbox *in, uint64_t count)
{
    uint64_t end = support_now_ms() + DEADLINE_MS;
    while (in->count < count) {
        int rc = ps_dispatch(bus, 0, 50);
        if (rc < 0)
            return rc;
        if (support_now_ms() > end)
            return PS_EAGAIN;
    }
    return 0;
}

/* ---------------------------------------------------------------- what a test and its children share */

/* What a test and its children share. Each test takes a fresh one. */
struct stage {
    _Atomic uint64_t ready, go, done, line;
    _Atomic int64_t rc[16];
    _Atomic uint64_t number[16];
    char url[256];
    struct inbox inbox[4];
};

static inline struct stage *stage_new(const char *url)
{
    struct stage *s = support_shared(sizeof *s);
    assert_non_null(s);
    snprintf(s->url, sizeof s->url, "%s", url);
    return s;
}

/* In a child: ends its body with 1 and keeps the line for the test's message. */
#define CHILD_CHECK(stage, condition) do { \
    if (!(condition)) { \
        (stage)->line = __LINE__; \
        return 1; \
    } \
} while (0)

#define assert_child(stage, child) do { \
    int code_ = reap_child(child); \
    if (code_ != 0) \
        fail_msg("child ended with %d; its line %d", code_, (int)(stage)->line); \
} while (0)

/* In a child: a handle that hears the filter with the first inbox, which the stage is told; NULL: it failed. */
static inline ps_bus *join_bus(struct stage *s, const char *filter)
{
    ps_bus *bus;
    if (ps_open(&bus, s->url) < 0 || ps_subscribe(bus, filter, inbox_take, &s->inbox[0], NULL, NULL) < 0)
        return NULL;
    s->ready = 1;
    return bus;
}

/* For start_child: subscribes to "t", says so, and reads nothing until it is killed. */
static inline int idle_reader_child(void *stage)
{
    struct stage *s = stage;
    ps_bus *bus;
    CHILD_CHECK(s, (bus = join_bus(s, "t")) != NULL);
    for (;;)
        nap_us(1000);
}

#endif
