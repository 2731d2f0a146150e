/* SPDX-License-Identifier: MIT */
/*
 * support.c - see support.h. Everything here may be called from threads and from forked children, so nothing asserts:
 * what cannot be had ends the program with a sentence.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SUPPORT_ROTATION 16
#define SUPPORT_TEXT     512
#define SUPPORT_CHILD_S  240            /* a forgotten child ends by itself after that long */
#define SUPPORT_STEP_MS  50

static void support_die(const char *what)
{
    fprintf(stderr, "support: %s: %s\n", what, strerror(errno));
    abort();
}

/* Before main(), so that no test program can forget it. */
static void __attribute__((constructor)) support_filter(void)
{
    const char *pattern = getenv("PS_TEST_FILTER");

    if (pattern != NULL)
        cmocka_set_test_filter(pattern);
}

/* ------------------------------------------------------------------ names */

const char *support_url(const char *scheme, const char *stem, const char *options)
{
    static char text[SUPPORT_ROTATION][SUPPORT_TEXT];
    static atomic_uint calls;
    unsigned number = atomic_fetch_add(&calls, 1u);
    char *url = text[number % SUPPORT_ROTATION];
    int has_options = options != NULL && options[0] != '\0';

    /* A forked child goes on with its parent's numbers; the pid keeps the two apart. */
    snprintf(url, SUPPORT_TEXT, "%s://%s.%ld.%u%s%s", scheme, stem, (long)getpid(), number,
             has_options ? "?" : "", has_options ? options : "");
    return url;
}

const char *support_file(const char *url)
{
    static char text[SUPPORT_ROTATION][SUPPORT_TEXT];
    static atomic_uint calls;
    char *file = text[atomic_fetch_add(&calls, 1u) % SUPPORT_ROTATION];
    const char *name = strstr(url, "://");
    int length;

    name = name == NULL ? url : name + 3;
    length = (int)strcspn(name, "?");
    if (name[0] == '/')
        snprintf(file, SUPPORT_TEXT, "%.*s", length, name);
    else
        snprintf(file, SUPPORT_TEXT, "/dev/shm/psbus-%ld/%.*s", (long)geteuid(), length, name);
    return file;
}

/* ------------------------------------------------------------------ time */

uint64_t support_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void support_pause(long nanoseconds)
{
    struct timespec pause = { 0, nanoseconds };

    nanosleep(&pause, NULL);
}

/*
 * Time as the waiter lives it. A virtual machine may stand still for seconds, and then all the time since is over at once
 * though nobody has had a chance to do anything: a step counts for SUPPORT_STEP_MS at most.
 */
struct support_patience {
    uint64_t last_ms, left_ms;
};

static struct support_patience support_patience(int deadline_ms)
{
    return (struct support_patience){ support_now_ms(), deadline_ms > 0 ? (uint64_t)deadline_ms : 0 };
}

static int support_patient(struct support_patience *p)
{
    uint64_t now = support_now_ms(), step = now - p->last_ms;

    if (step > SUPPORT_STEP_MS)
        step = SUPPORT_STEP_MS;
    p->last_ms = now;
    p->left_ms -= step < p->left_ms ? step : p->left_ms;
    return p->left_ms > 0;
}

int support_wait(int (*check)(void *arg), void *arg, int deadline_ms)
{
    struct support_patience patience = support_patience(deadline_ms);
    int answer, turns = 0;

    while ((answer = check(arg)) == 0 && support_patient(&patience)) {
        /* Mostly the other side needs the processor for a moment only. */
        if (++turns < 64)
            sched_yield();
        else
            support_pause(200000);
    }
    return answer;
}

/* ------------------------------------------------------------------ processes */

void *support_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        support_die("mmap");
    return memory;
}

pid_t support_child(int (*body)(void *arg), void *arg)
{
    pid_t child;

    /* What stdio has not written yet would come out twice. */
    fflush(NULL);
    child = fork();
    if (child < 0)
        support_die("fork");
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(SUPPORT_CHILD_S);
        _exit(body(arg));
    }
    return child;
}

static int support_status(int status)
{
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int support_reap(pid_t child, int deadline_ms)
{
    struct support_patience patience = support_patience(deadline_ms);
    int status = 0;

    for (;;) {
        pid_t answer = waitpid(child, &status, WNOHANG);

        if (answer == child)
            return support_status(status);
        if (answer < 0 && errno != EINTR)
            return -1;
        if (!support_patient(&patience))
            break;
        support_pause(1000000);
    }
    support_kill(child);
    return -1;
}

void support_kill(pid_t child)
{
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* ------------------------------------------------------------------ what is left behind */

int support_file_count(const char *directory, const char *prefix)
{
    DIR *handle = opendir(directory);
    struct dirent *entry;
    int count = 0;

    if (handle == NULL)
        return 0;
    while ((entry = readdir(handle)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(handle);
    return count;
}

int support_fd_count(void)
{
    return support_file_count("/proc/self/fd", "") - 1;         /* the directory's own descriptor */
}

/* ------------------------------------------------------------------ random numbers */

static _Atomic uint64_t support_state;

static uint64_t support_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void support_seed(void)
{
    const char *given = getenv("PS_TEST_SEED");
    struct timespec now;
    uint64_t seed;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = support_mix((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30 ^ (uint64_t)getpid() << 48);
    if (given != NULL && given[0] != '\0')
        seed = strtoull(given, NULL, 0);
    fprintf(stderr, "PS_TEST_SEED=%llu\n", (unsigned long long)seed);
    atomic_store(&support_state, seed);
}

uint64_t support_random(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, support_seed);
    return support_mix(atomic_fetch_add(&support_state, UINT64_C(0x9e3779b97f4a7c15)) + UINT64_C(0x9e3779b97f4a7c15));
}

/* ------------------------------------------------------------------ messages that check themselves */

/* Over everything but the checksum's own bytes. By words: the stress tests run this over megabytes. */
static uint64_t support_checksum(const unsigned char *bytes, size_t size)
{
    const size_t hole = offsetof(struct support_message, checksum);
    uint64_t sum = UINT64_C(0x6a09e667f3bcc909) ^ size, word;
    size_t at;

    for (at = 0; at + sizeof word <= size; at += sizeof word) {
        if (at == hole)
            continue;
        memcpy(&word, bytes + at, sizeof word);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 29;
    }
    for (; at < size; at++)
        sum = (sum ^ bytes[at]) * UINT64_C(0x100000001b3);
    return support_mix(sum);
}

void support_compose(void *buffer, size_t size, uint64_t publisher, uint64_t number)
{
    struct support_message head = { publisher, number, size, 0 };
    unsigned char *bytes = buffer;
    uint64_t key = support_mix(publisher * UINT64_C(0x9e3779b97f4a7c15) + number), word;
    size_t at;

    for (at = sizeof head; at + sizeof word <= size; at += sizeof word) {
        word = key + at * UINT64_C(0xd6e8feb86659fd93);
        memcpy(bytes + at, &word, sizeof word);
    }
    for (; at < size; at++)
        bytes[at] = (unsigned char)(key >> (at % 8 * 8));
    memcpy(bytes, &head, sizeof head);
    head.checksum = support_checksum(bytes, size);
    memcpy(bytes, &head, sizeof head);
}

int support_verify(const void *buffer, size_t size, struct support_message *out)
{
    if (size < sizeof *out)
        return -1;
    memcpy(out, buffer, sizeof *out);
    return out->size == size && out->checksum == support_checksum(buffer, size) ? 0 : -1;
}

void support_take_number(const ps_msg *msg, void *numbers)
{
    struct support_numbers *n = numbers;
    uint64_t number = 0;

    if (msg->size == sizeof number)
        memcpy(&number, msg->data, sizeof number);
    n->wrong += msg->size != sizeof number || number != n->next + msg->lost;
    n->next = number + 1;
    n->delivered++;
    n->lost += msg->lost;
}
