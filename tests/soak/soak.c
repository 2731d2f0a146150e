/* SPDX-License-Identifier: MIT */
/*
 * soak.c - all features for a long time, and nothing grows: memory, descriptors, the bus's file.
 *
 *   SOAK_SECONDS=600   how long
 *
 * Over shm each member is a process; some are killed with kill -9 and started again all the time. Over inproc the same roles
 * are threads of one process. A line a minute, a verdict, and the exit status: 0 if nothing grew, nobody stood still and every
 * message was as it should be.
 *
 * Numbers are compared between two rests, one after a quarter of the time, one at the end: what a member has while it works is
 * chance, so a comparison would have to allow much. All that is made or touched at first use is used before the first rest: see
 * run() and rest().
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
#define PATIENCE_MS   120000            /* for what all have to do together */

/* What may differ by chance: the heap keeps some pages that it does not need, and takes addresses 132 KiB at a time. */
#define OWN_KIB_ALLOWED    32
#define MAPPED_KIB_ALLOWED 192

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

enum life { STAYS, COMES_AND_GOES, IS_KILLED };
struct part { const char *name; soak_role run; const char *options; enum life life; };

#define PUBLISHING "&block=200"

/* Both as processes and as threads. */
#define PARTS \
    { "publisher", role_publish, PUBLISHING, STAYS }, \
    { "lender", role_lend, PUBLISHING, STAYS }, \
    { "reader", role_read, "", STAYS }, \
    { "lossy reader", role_read_slowly, "&lossy=1", STAYS }, \
    { "pulling reader", role_pull, "", STAYS }, \
    { "borrowing reader", role_borrow, "", STAYS }, \
    { "polling reader", role_poll, "", STAYS }, \
    { "churning reader", role_churn, "", COMES_AND_GOES }

static const struct part processes[] = {
    PARTS,
    { "forking member", role_fork, "", COMES_AND_GOES },
    { "killed publisher", role_publish, PUBLISHING, IS_KILLED },
    { "killed lender", role_lend, PUBLISHING, IS_KILLED },
    { "killed reader", role_read, "", IS_KILLED },
    { "killed borrower", role_borrow, "", IS_KILLED },
};
static const struct part threads[] = {
    PARTS,
    { "second publisher", role_publish, PUBLISHING, STAYS },
};
#define PROCESSES (sizeof processes / sizeof *processes)
#define THREADS   (sizeof threads / sizeof *threads)
#define MEMBERS   (PROCESSES + 1)       /* processes, the one with the threads last */

/*
 * Room for little, so that rings wrap and fill. Those who stay come first; then all other places are filled, while they read,
 * and only then those come whose places are chance: the file and what readers map of it is complete from then on.
 */
#define GEOMETRY "depth=512&bytes=256k&loans=256k&members=18&evict=20000"

struct member {
    const char *name;
    pid_t pid;
    uint64_t beat, beat_ms, die_ms;
    struct watch own, mapped, fds;
};
static struct member member[MEMBERS];
static struct watch file_kib, file_size;
static char path[64];

static enum life lives(size_t i) { return i < PROCESSES ? processes[i].life : STAYS; }

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

static void make_ready(void)
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
}

static void start_some(enum life life)
{
    for (size_t i = 0; i < MEMBERS; i++)
        if (lives(i) == life)
            start(i);
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
    int status = 0;
    if (filler && waitpid(filler, &status, WNOHANG) == 0)
        return 1;
    filler = 0;
    if (status == 0 && going_on)
        fill_places();
    return status == 0;
}

/* ---------------------------------------------------------------- while it runs */

static uint64_t kills;

/* Kills whose time has come, each 100 to 500 ms after its start, and starts it again. */
static void kill_some(unsigned *seed)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        uint64_t now = soak_now_ms();
        if (lives(i) != IS_KILLED)
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
        if (lives(i) == IS_KILLED || member[i].pid == 0)
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

static struct sums sum_up(void)
{
    struct sums sums = { 0 };
    struct stat st;
    for (size_t i = 0; i < MEMBERS; i++) {
        if (lives(i) == IS_KILLED)
            continue;
        sums.kib += memory_of(member[i].pid).resident;
        sums.fds += descriptors(member[i].pid);
    }
    if (stat(path, &st) == 0)
        sums.file_kib = st.st_blocks / 2;
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

/* ---------------------------------------------------------------- what stands still can be compared */

static int look_after_all(int filling)
{
    soak_nap_us(20000);
    if (!keep_filling(filling)) {
        printf("soak: filling all places failed\n");
        return 0;
    }
    return all_well();
}

static int wait_until(int (*done)(void), const char *what)
{
    for (uint64_t end = soak_now_ms() + PATIENCE_MS; !done();) {
        if (!look_after_all(0))
            return 0;
        if (soak_now_ms() > end) {
            printf("soak: waited in vain until %s\n", what);
            return 0;
        }
    }
    return 1;
}

static int no_filler(void) { return filler == 0; }

static int all_there(void)
{
    for (size_t i = 0; i < MEMBERS; i++)
        if (member[i].pid && beats(i) == 0)
            return 0;
    return 1;
}

static uint64_t refused[PROCESSES + THREADS];

static int everybody(int may_be_refused)
{
    for (size_t i = 0; i < PROCESSES + THREADS; i++)
        if (lives(i) != IS_KILLED && !soak->actor[i].resting &&
            !(may_be_refused && soak->actor[i].refused != refused[i]))
            return 0;
    return 1;
}
static int all_held_up(void) { return everybody(1); }
static int all_resting(void) { return everybody(0); }

static void watch_all(int late)
{
    struct stat st;
    for (size_t i = 0; i < MEMBERS; i++) {
        if (lives(i) == IS_KILLED)
            continue;
        struct memory memory = memory_of(member[i].pid);
        watch_set(&member[i].own, late, memory.own);
        watch_set(&member[i].mapped, late, memory.mapped);
        watch_set(&member[i].fds, late, descriptors(member[i].pid));
    }
    int there = stat(path, &st) == 0;
    watch_set(&file_kib, late, there ? st.st_blocks / 2 : -1);
    watch_set(&file_size, late, there ? st.st_size : -1);
}

/*
 * Readers first, and publishers only after each has waited for room in vain: the bell for that is made then. Nobody is killed
 * meanwhile; it is over long before a reader is evicted.
 */
static int rest(int late)
{
    if (!wait_until(no_filler, "all places were filled"))
        return 0;
    for (size_t i = 0; i < PROCESSES + THREADS; i++)
        refused[i] = soak->actor[i].refused;
    soak->rest = REST_READERS;
    if (!wait_until(all_held_up, "readers rested and publishers were held up"))
        return 0;
    soak->rest = REST_ALL;
    if (!wait_until(all_resting, "everybody rested"))
        return 0;
    watch_all(late);
    soak->rest = REST_NOBODY;
    return 1;
}

static int run(uint64_t seconds)
{
    uint64_t begin = soak_now_ms(), next_minute = 60, passed = 0;
    unsigned seed = (unsigned)getpid();
    int rested = 0;
    start_some(STAYS);
    if (!wait_until(all_there, "all who stay were there"))
        return 0;
    fill_places();
    if (!wait_until(no_filler, "all places were filled"))
        return 0;
    start_some(COMES_AND_GOES);
    start_some(IS_KILLED);
    while (passed < seconds) {
        kill_some(&seed);
        if (!look_after_all(passed * 5 < seconds))
            return 0;
        passed = (soak_now_ms() - begin) / 1000;
        if (!rested && passed * 4 >= seconds) {
            if (!rest(0))
                return 0;
            rested = 1;
        }
        if (passed < next_minute && passed < seconds)
            continue;
        next_minute += 60;
        struct sums sums = sum_up();
        print_minute(passed, &sums);
    }
    return rest(1);
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
        if (lives(i) == IS_KILLED)
            continue;
        grew |= watch_grew(&member[i].own, member[i].name, "KiB of its own", OWN_KIB_ALLOWED);
        grew |= watch_grew(&member[i].mapped, member[i].name, "KiB mapped", MAPPED_KIB_ALLOWED);
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
    make_ready();
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
