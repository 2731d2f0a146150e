/* SPDX-License-Identifier: MIT */
/*
 * soak.c - all features for a long time, and nothing grows: memory, descriptors, the bus's file.
 *
 *   SOAK_SECONDS=600   how long
 *
 * Over shm each member is a process; some are killed with kill -9 and started again all the time. Over inproc the same roles
 * are threads of one process. A line a minute, a verdict, and the exit status: 0 if nothing grew, nobody stood still and every
 * message was as it should be. What happens in the first quarter is warm-up; the second quarter is compared with the last.
 */
#include "soak.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STANDSTILL_MS 30000
#define KIB_ALLOWED   192

struct soak *soak;

void soak_nap_us(long us)
{
    struct timespec t = { us / 1000000, us % 1000000 * 1000 };
    nanosleep(&t, NULL);
}

uint64_t soak_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void soak_wrong(const char *format, ...)
{
    int nobody = 0;
    if (atomic_compare_exchange_strong(&soak->wrong, &nobody, 1)) {
        va_list args;
        va_start(args, format);
        vsnprintf(soak->text, sizeof soak->text, format, args);
        va_end(args);
        soak->wrong = 2;
    }
    _exit(3);
}

/* ---------------------------------------------------------------- who takes part */

struct part { const char *name; soak_role run; const char *options; int killed; };

#define PUBLISHING "&block=200"

/* Both as processes and as threads. */
#define PARTS \
    { "publisher", role_publish, PUBLISHING, 0 }, \
    { "lender", role_lend, PUBLISHING, 0 }, \
    { "reader", role_read, "", 0 }, \
    { "lossy reader", role_read_slowly, "&lossy=1", 0 }, \
    { "pulling reader", role_pull, "", 0 }, \
    { "borrowing reader", role_borrow, "", 0 }, \
    { "polling reader", role_poll, "", 0 }, \
    { "churning reader", role_churn, "", 0 }

static const struct part processes[] = {
    PARTS,
    { "forking member", role_fork, "", 0 },
    { "killed publisher", role_publish, PUBLISHING, 1 },
    { "killed lender", role_lend, PUBLISHING, 1 },
    { "killed reader", role_read, "", 1 },
    { "killed borrower", role_borrow, "", 1 },
};
static const struct part threads[] = {
    PARTS,
    { "second publisher", role_publish, PUBLISHING, 0 },
};
#define PROCESSES (sizeof processes / sizeof *processes)
#define THREADS   (sizeof threads / sizeof *threads)
#define MEMBERS   (PROCESSES + 1)       /* processes, the one with the threads last */

/*
 * Room for little, so that rings wrap and fill. Which places members get is chance, so at the beginning all that are free are
 * filled, many times: every page is in use before the comparison begins.
 */
#define GEOMETRY "depth=512&bytes=256k&loans=256k&members=18&evict=20000"

struct member {
    const char *name;
    pid_t pid;
    uint64_t beat, beat_ms, die_ms;
    struct watch kib, fds;
};
static struct member member[MEMBERS];
static char path[64];

static void *thread_main(void *arg)
{
    size_t i = (size_t)(uintptr_t)arg;
    threads[i].run(&soak->actor[PROCESSES + i]);
    return NULL;
}

static void run_threads(void)
{
    pthread_t thread[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, thread_main, (void *)(uintptr_t)i) != 0)
            soak_wrong("pthread_create failed");
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
}

static void start(size_t i)
{
    pid_t me = getpid();
    fflush(NULL);
    member[i].name = i < PROCESSES ? processes[i].name : "inproc process";
    member[i].pid = fork();
    if (member[i].pid < 0)
        soak_wrong("fork: %s", strerror(errno));
    member[i].beat_ms = soak_now_ms();
    if (member[i].pid > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != me)
        _exit(1);
    if (i < PROCESSES)
        processes[i].run(&soak->actor[i]);
    else
        run_threads();
    _exit(0);
}

static void start_all(void)
{
    for (size_t i = 0; i < PROCESSES + THREADS; i++) {
        struct actor *actor = &soak->actor[i];
        const struct part *part = i < PROCESSES ? &processes[i] : &threads[i - PROCESSES];
        actor->seed = (unsigned)i * 7919 + (unsigned)getpid();
        if (i < PROCESSES)
            snprintf(actor->url, sizeof actor->url, "shm://%s?" GEOMETRY "%s", path, part->options);
        else
            snprintf(actor->url, sizeof actor->url, "inproc://soak?" GEOMETRY "%s", part->options);
    }
    for (size_t i = 0; i < MEMBERS; i++) {
        member[i].kib = member[i].fds = (struct watch)WATCH_INIT;
        start(i);
    }
}

static pid_t filler;

static void fill_places(void)
{
    struct actor *actor = &soak->actor[PROCESSES + THREADS];
    snprintf(actor->url, sizeof actor->url, "shm://%s?" GEOMETRY PUBLISHING, path);
    fflush(NULL);
    filler = fork();
    if (filler < 0)
        soak_wrong("fork: %s", strerror(errno));
    if (filler > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    role_fill_places(actor);
    _exit(0);
}

/* Fills again and again while `going_on`; 0 when something is wrong. */
static int keep_filling(int going_on)
{
    int status;
    if (filler == 0 || waitpid(filler, &status, WNOHANG) == 0)
        return 1;
    filler = 0;
    if (status == 0 && going_on)
        fill_places();
    return status == 0;
}

/* ---------------------------------------------------------------- while it runs */

static uint64_t kills;

static int killed(size_t i) { return i < PROCESSES && processes[i].killed; }

/* Kills whose time has come, each 100 to 500 ms after its start, and starts it again. */
static void kill_some(unsigned *seed)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        uint64_t now = soak_now_ms();
        if (!killed(i))
            continue;
        if (member[i].die_ms == 0)
            member[i].die_ms = now + 100 + (unsigned)rand_r(seed) % 400;
        if (now < member[i].die_ms)
            continue;
        int status;
        kill(member[i].pid, SIGKILL);
        if (waitpid(member[i].pid, &status, 0) == member[i].pid && !WIFSIGNALED(status)) {
            printf("soak: %s ended by itself with status %d\n", member[i].name, status);
            soak->wrong = soak->wrong ? soak->wrong : 2;
        }
        kills++;
        member[i].die_ms = 0;
        start(i);
    }
}

static uint64_t beats(size_t i)
{
    uint64_t least = soak->actor[i].beat;
    if (i < PROCESSES)
        return least;
    for (size_t k = 0; k < THREADS; k++)
        least = soak->actor[i + k].beat < least ? soak->actor[i + k].beat : least;
    return least;
}

/* Everybody is there and gets on. */
static int all_well(void)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        uint64_t now = soak_now_ms(), beat = beats(i);
        int status;
        if (killed(i))
            continue;
        if (waitpid(member[i].pid, &status, WNOHANG) != 0) {
            printf("soak: %s ended with status %d\n", member[i].name, status);
            member[i].pid = 0;
            return 0;
        }
        if (beat != member[i].beat) {
            member[i].beat = beat;
            member[i].beat_ms = now;
        } else if (now - member[i].beat_ms > STANDSTILL_MS) {
            printf("soak: %s has stood still for %d s\n", member[i].name, STANDSTILL_MS / 1000);
            return 0;
        }
    }
    return !soak->wrong;
}

struct sums { int64_t kib, fds, file_kib; };
static struct watch file_kib = WATCH_INIT, file_size = WATCH_INIT;

static struct sums sample(int window)
{
    struct sums sums = { 0 };
    struct stat st;
    for (size_t i = 0; i < MEMBERS; i++) {
        if (killed(i))
            continue;
        int64_t kib = resident_kib(member[i].pid), fds = descriptors(member[i].pid);
        watch_add(&member[i].kib, window, kib);
        watch_add(&member[i].fds, window, fds);
        sums.kib += kib;
        sums.fds += fds;
    }
    if (stat(path, &st) == 0) {
        sums.file_kib = st.st_blocks / 2;
        watch_add(&file_kib, window, sums.file_kib);
        watch_add(&file_size, window, st.st_size);
    }
    return sums;
}

static void print_minute(uint64_t seconds, const struct sums *sums)
{
    uint64_t sent = 0, read = 0, lost = 0;
    for (size_t i = 0; i < PROCESSES + THREADS; i++) {
        sent += soak->actor[i].sent;
        read += soak->actor[i].read;
        lost += soak->actor[i].lost;
    }
    printf("soak: %4llu s: %.2f M sent, %.2f M read, %.2f M told as lost, %llu killed, %llu forked; %.1f MiB resident, "
           "%lld descriptors, file %.1f MiB\n", (unsigned long long)seconds, (double)sent / 1e6, (double)read / 1e6,
           (double)lost / 1e6, (unsigned long long)kills, (unsigned long long)soak->forks, (double)sums->kib / 1024,
           (long long)sums->fds, (double)sums->file_kib / 1024);
    fflush(stdout);
}

static int run(uint64_t seconds)
{
    uint64_t begin = soak_now_ms(), next_sample = begin + 1000, passed = 0;
    unsigned seed = (unsigned)getpid();
    fill_places();
    while (passed < seconds) {
        soak_nap_us(20000);
        kill_some(&seed);
        if (!keep_filling(passed * 5 < seconds)) {
            printf("soak: filling all places failed\n");
            return 0;
        }
        if (!all_well())
            return 0;
        if (soak_now_ms() < next_sample)
            continue;
        next_sample += 1000;
        passed = (soak_now_ms() - begin) / 1000;
        int window = passed * 4 < seconds ? 0 : passed * 2 < seconds ? WATCH_EARLY : passed * 4 >= seconds * 3 ? WATCH_LATE : 0;
        struct sums sums = sample(window);
        if (passed % 60 == 0 || passed >= seconds)
            print_minute(passed, &sums);
    }
    return 1;
}

/* ---------------------------------------------------------------- the end */

static int stop_all(void)
{
    int good = 1;
    soak->stop = 1;
    for (uint64_t end = soak_now_ms() + STANDSTILL_MS, left = MEMBERS; left && soak_now_ms() < end; soak_nap_us(10000)) {
        left = 0;
        for (size_t i = 0; i < MEMBERS; i++) {
            int status;
            if (member[i].pid <= 0)
                continue;
            if (waitpid(member[i].pid, &status, WNOHANG) == 0) {
                left++;
                continue;
            }
            member[i].pid = 0;
            if (status != 0) {
                printf("soak: %s ended with status %d\n", member[i].name, status);
                good = 0;
            }
        }
    }
    if (filler > 0) {
        kill(filler, SIGKILL);
        waitpid(filler, NULL, 0);
    }
    for (size_t i = 0; i < MEMBERS; i++) {
        if (member[i].pid <= 0)
            continue;
        printf("soak: %s does not end\n", member[i].name);
        kill(member[i].pid, SIGKILL);
        waitpid(member[i].pid, NULL, 0);
        good = 0;
    }
    if (good && access(path, F_OK) == 0) {
        printf("soak: the last member left and %s is still there\n", path);
        good = 0;
    }
    unlink(path);
    return good;
}

static int nothing_grew(void)
{
    int grew = watch_grew(&file_size, "bus", "bytes of the file", 0) | watch_grew(&file_kib, "bus", "KiB of the file", 0);
    for (size_t i = 0; i < MEMBERS; i++) {
        if (killed(i))
            continue;
        grew |= watch_grew(&member[i].kib, member[i].name, "resident KiB", KIB_ALLOWED);
        grew |= watch_grew(&member[i].fds, member[i].name, "descriptors", 0);
    }
    return !grew;
}

int main(void)
{
    const char *text = getenv("SOAK_SECONDS");
    char *end = NULL;
    unsigned long seconds = text && *text ? strtoul(text, &end, 10) : 600;
    if ((end && *end) || seconds < 60 || seconds > 1000000) {
        fprintf(stderr, "soak: SOAK_SECONDS=%s: 60 to 1000000, please\n", text);
        return 2;
    }
    soak = mmap(NULL, sizeof *soak, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (soak == MAP_FAILED) {
        perror("soak: mmap");
        return 1;
    }
    snprintf(path, sizeof path, "/dev/shm/soak.%d.bus", (int)getpid());
    printf("soak: %lu s, %zu processes over shm, some killed again and again, %zu threads over inproc\n", seconds,
           PROCESSES, THREADS);
    fflush(stdout);
    start_all();
    int good = run(seconds);
    good &= stop_all();
    if (soak->wrong) {
        printf("soak: %s\n", soak->text[0] ? soak->text : "a killed member ended by itself");
        good = 0;
    }
    good = good && nothing_grew();
    printf("soak: %s\n", good ? "nothing grew, nobody stood still, every message was right" : "FAILED");
    return !good;
}
