/* SPDX-License-Identifier: MIT */
/*
 * main.c - the demo: the main job on real input, under fire. Run by `make demo`.
 *
 *   demo [FILE-OR-DIRECTORY…]        include lib examples tests if not given
 *
 * Two publisher processes stream the lines of the given files over shm://, again and again for some seconds, to three
 * subscriber processes: "steady", "victim" and "sleeper". In the middle the victim is killed, the sleeper is stopped for longer
 * than evict=MS and then continued, and a new subscriber, "late", comes. Each message carries its publisher's running checksum
 * over all lines before it, so every subscriber can tell loss, repetition, reorder and damage apart. At the end
 *
 *   steady   must have everything,
 *   sleeper  everything but exactly as many messages as it was told it lost,
 *   late     everything from its first message on, and that message must be no later than the first one published after its
 *            ps_subscribe() returned,
 *
 * and nothing may be left of the bus. The exit status is 0 if all of that is so and could be written.
 */
#define _GNU_SOURCE                     /* MAP_ANONYMOUS, usleep */

#include "demo.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

struct shared *shared;
char url[128];
const char *const role_name[SUBSCRIBERS] = { "steady", "victim", "sleeper", "late" };

/* ------------------------------------------------------------------ small things */

static volatile sig_atomic_t interrupted;       /* the signal; who reads our output and leaves sends one, too */

static void on_signal(int number)
{
    interrupted = number;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ------------------------------------------------------------------ the parent: processes by pid */

enum { CHILDREN = PUBLISHERS + SUBSCRIBERS };   /* publishers first */
static pid_t children[CHILDREN];        /* all 0 in a child */
static ps_bus *keeper;                  /* the parent's own handle: it is the last one out, and removes the bus */
static int output_error;                /* errno of a line that could not be written */

static void children_kill(void)
{
    for (int i = 0; i < CHILDREN; i++)
        if (children[i] > 0) {
            kill(children[i], SIGKILL);         /* also ends one that is stopped */
            waitpid(children[i], NULL, 0);
            children[i] = 0;
        }
}

static _Noreturn void give_up(void)
{
    children_kill();
    ps_close(keeper);
    exit(1);
}

void die(const char *who, const char *what, int rc)
{
    fprintf(stderr, "demo: %s: %s: %s (%s)\n", who, what, ps_strerror(rc), ps_errmsg());
    give_up();
}

void die_system(const char *what)
{
    fprintf(stderr, "demo: %s: %s\n", what, strerror(errno));
    give_up();
}

static void output_flush(void)
{
    if (fflush(stdout) != 0 && output_error == 0)
        output_error = errno;
}

static void child_start(int index)
{
    pid_t parent = getpid();

    output_flush();
    children[index] = fork();
    if (children[index] < 0)
        die_system("fork");
    if (children[index] > 0)
        return;
    signal(SIGINT, SIG_IGN);            /* Ctrl-C reaches the whole group, and so does SIGHUP; the parent cleans up */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);   /* not even a killed parent leaves a process behind */
#endif
    if (getppid() != parent)
        _exit(1);
    ps_close(keeper);                   /* the parent's handle is of no use here: this frees the copy */
    keeper = NULL;
    memset(children, 0, sizeof children);
    int status = index < PUBLISHERS ? publisher_main((uint32_t)index) : subscriber_main((enum role)(index - PUBLISHERS));
    fflush(stdout);
    _exit(status);
}

static const char *child_name(int index)
{
    static char name[32];

    if (index >= PUBLISHERS)
        return role_name[index - PUBLISHERS];
    snprintf(name, sizeof name, "publisher %d", index + 1);
    return name;
}

/* Collects one child if it has ended: 1 it has, 0 it runs; anything but a clean end is told and counted in *failed. */
static int child_ended(int index, int *failed)
{
    int status;

    if (children[index] == 0)
        return 1;
    if (waitpid(children[index], &status, WNOHANG) != children[index])
        return 0;
    children[index] = 0;
    if (status != 0) {
        if (WIFSIGNALED(status))
            printf("%s was killed by signal %d\n", child_name(index), WTERMSIG(status));
        else
            printf("%s ended with status %d\n", child_name(index), WEXITSTATUS(status));
        *failed = 1;
    }
    return 1;
}

/* Sleeps until a moment of the plan; 0 if something has gone wrong meanwhile. */
static int plan_until(uint64_t began, uint64_t at_ms)
{
    int failed = 0;

    while (!interrupted && !output_error && !failed && now_ns() < began + at_ms * 1000000u) {
        usleep(2000);
        for (int i = 0; i < CHILDREN; i++)
            if (children[i] > 0)
                failed |= child_ended(i, &failed);
    }
    return !interrupted && !output_error && !failed;
}

static int wait_ready(int first, int last, uint64_t timeout_ms)
{
    uint64_t began = now_ns();

    for (int i = first; i <= last; i++)
        while (!atomic_load(&shared->subscriber[i].ready))
            if (!plan_until(now_ns(), 2) || now_ns() - began > timeout_ms * 1000000u)
                return 0;
    return 1;
}

static void tell(uint64_t began, const char *what)
{
    printf("%6.2f s  %s\n", (double)(now_ns() - began) / 1e9, what);
    output_flush();
}

/* Carries the plan out; 1 when every process that should has ended by itself. */
static int plan_run(void)
{
    int status, failed = 0;

    for (int i = 0; i < CHILDREN; i++)
        if (i != PUBLISHERS + LATE)
            child_start(i);
    if (!wait_ready(STEADY, SLEEPER, 5000))
        return 0;
    atomic_store(&shared->go, 1);
    uint64_t began = now_ns();
    tell(began, "2 publishers and the subscribers steady, victim and sleeper are at work");

    if (!plan_until(began, AT_KILL))
        return 0;
    atomic_store(&shared->phase, KILLED);
    kill(children[PUBLISHERS + VICTIM], SIGKILL);
    waitpid(children[PUBLISHERS + VICTIM], &status, 0);
    children[PUBLISHERS + VICTIM] = 0;
    tell(began, "victim is killed (SIGKILL)");

    if (!plan_until(began, AT_STOP))
        return 0;
    atomic_store(&shared->phase, STOPPED);
    kill(children[PUBLISHERS + SLEEPER], SIGSTOP);
    tell(began, "sleeper is stopped (SIGSTOP)");

    if (!plan_until(began, AT_LATE))
        return 0;
    child_start(PUBLISHERS + LATE);
    if (!wait_ready(LATE, LATE, 5000))
        return 0;
    tell(began, "late has subscribed");

    if (!plan_until(began, AT_CONTINUE))
        return 0;
    atomic_store(&shared->phase, CONTINUED);
    kill(children[PUBLISHERS + SLEEPER], SIGCONT);
    tell(began, "sleeper goes on (SIGCONT)");

    if (!plan_until(began, AT_END))
        return 0;
    atomic_store(&shared->end, 1);
    for (int i = 0; i < CHILDREN && !failed; i++)
        while (!child_ended(i, &failed)) {
            if (interrupted || now_ns() > began + DEADLINE * 1000000ull) {
                printf("%s does not come to an end\n", child_name(i));
                return 0;
            }
            usleep(2000);
        }
    tell(began, "the end of the text has reached everybody");
    return !failed;
}

/* The bus must be gone when its last member has closed: 1. */
static int nothing_left(void)
{
    char again[sizeof url + 16];
    ps_bus *bus;

    snprintf(again, sizeof again, "%s&create=0", url);
    int rc = ps_open(&bus, again);
    if (rc == 0)
        ps_close(bus);
    printf("  %s\n", rc == PS_ENOENT ? "Nothing is left of the bus." : "The bus is STILL THERE.");
    return rc == PS_ENOENT;
}

int main(int argc, char **argv)
{
    static char *everything[] = { "include", "lib", "examples", "tests", NULL };
    char **paths = argc > 1 ? argv + 1 : everything;
    struct sigaction action = { .sa_handler = on_signal }, hangup;
    int rc;

    for (; *paths != NULL; paths++)
        text_read(*paths);
    if (line_count == 0) {
        fprintf(stderr, "demo: there is no text in what was given\n");
        return 1;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die_system("mmap");
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGPIPE, &action, NULL) < 0 ||
        sigaction(SIGHUP, NULL, &hangup) < 0 ||
        (hangup.sa_handler != SIG_IGN && sigaction(SIGHUP, &action, NULL) < 0))         /* ignored: nohup */
        die_system("sigaction");

    snprintf(url, sizeof url, "shm://demo-%ld?block=%d&evict=%d", (long)getpid(), BLOCK_MS, EVICT_MS);
    if ((rc = ps_open(&keeper, url)) < 0)
        die("parent", url, rc);
    printf("libpsbus %s: %zu files, %zu lines, %.1f MB of text, over and over, on %s\n", ps_version(), file_count, line_count,
           (double)text_bytes / 1e6, url);

    int fine = plan_run();
    children_kill();
    if (fine)
        fine = report_print();
    rc = ps_close(keeper);
    keeper = NULL;
    if (rc < 0)
        die("parent", "close", rc);
    fine &= nothing_left();
    if (interrupted)
        printf("interrupted\n");
    else
        printf("%s\n", fine ? "Nobody else noticed: all as promised." : "FAILED");
    output_flush();
    if (interrupted)
        return 128 + interrupted;
    if (output_error == 0 && !ferror(stdout))
        return fine ? 0 : 1;
    fprintf(stderr, "demo: standard output: %s\n", output_error ? strerror(output_error) : "not everything could be written");
    return 1;
}
