/* SPDX-License-Identifier: MIT */
/*
 * bench.c - what libpsbus takes, beside what the machine takes for the same: bare cache lines that two cores hand to and fro,
 * and a bare ring of one producer and one consumer. Everything in one run, because cores, clocks and neighbours change between
 * runs. Judges nothing: the goals stand in a column of their own.
 *
 *   PS_BENCH_REPS=5   repetitions; the table shows medians
 *   PS_BENCH_MS=250   time for each measurement
 *   argv[1]           the shared library whose text is counted (build/libpsbus.so)
 *
 * Two virtual cores may lie near each other or far apart, and move: a probe runs before and behind each measurement, and
 * repetitions above 110 ns one way count as FAR and are left out of the median while there are NEAR ones.
 */
#include "machine.h"

#include <psbus.h>

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#define FAR_NS   110.0
#define PAYLOAD  64
#define KEY      UINT64_C(0x5bd1e995a7c3d2f1)
#define HELLO    (~UINT64_C(0))
#define MAX_SUBS 64

static int subscribers, topics, blocking;
static char bus_url[160];

static void die(const char *what, int rc)
{
    fprintf(stderr, "bench: %s: %s (%s)\n", what, ps_strerror(rc), ps_errmsg());
    exit(1);
}

#define MUST(call) do { int rc_ = (call); if (rc_ < 0) die(#call, rc_); } while (0)

/* ---------------------------------------------------------------- the bus */

struct reader {
    ps_bus *bus;
    uint64_t next, hello;
};

static void take(const ps_msg *msg, void *user)
{
    struct reader *r = user;
    uint64_t sequence, key;
    memcpy(&sequence, msg->data, 8);
    memcpy(&key, (const char *)msg->data + msg->size - 8, 8);
    if (sequence == HELLO) {
        r->hello++;
        return;
    }
    if (sequence != r->next)
        control->lost += sequence > r->next ? sequence - r->next : 1;
    if (key != (sequence ^ KEY))
        control->bad++;
    r->next = sequence + 1;
}

static void compose(char *text, uint64_t sequence)
{
    uint64_t key = sequence ^ KEY;
    memcpy(text, &sequence, 8);
    memcpy(text + PAYLOAD - 8, &key, 8);
}

static void topic_name(char *topic, int i) { snprintf(topic, 24, "user/%011d", i); }

/* Reads with one handle or many, each subscribed to all topics there are, in bursts. */
static void reading_side(void)
{
    static struct reader reader[MAX_SUBS];
    uint64_t acked = 0;
    char topic[24];
    for (int i = 0; i < subscribers; i++) {
        reader[i].next = reader[i].hello = 0;
        MUST(ps_open(&reader[i].bus, bus_url));
        for (int k = 0; k < topics; k++) {
            topic_name(topic, k);
            MUST(ps_subscribe(reader[i].bus, topic, take, &reader[i], NULL, NULL));
        }
    }
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    for (;;) {
        uint64_t least = HELLO, greeted = HELLO;
        for (int i = 0; i < subscribers; i++) {
            MUST(ps_dispatch(reader[i].bus, 256, 0));
            least = reader[i].next < least ? reader[i].next : least;
            greeted = reader[i].hello < greeted ? reader[i].hello : greeted;
        }
        if (least != acked) {
            acked = least;
            atomic_store_explicit(&control->acked, acked, memory_order_release);
        }
        if (greeted && !control->seen)
            atomic_store_explicit(&control->seen, 1, memory_order_release);
        if (atomic_load_explicit(&control->fin, memory_order_acquire) && acked == control->total)
            break;
    }
    control->last_ns = now_ns();
    atomic_store_explicit(&control->done, 1, memory_order_release);
    for (int i = 0; i < subscribers; i++)
        MUST(ps_close(reader[i].bus));
}

static void set_url(const char *options)
{
    static int number;
    snprintf(bus_url, sizeof bus_url, "%s://bench.%d.%d%s", processes ? "shm" : "inproc", (int)getpid(), number++, options);
}

/* The publishing handle, when the readers have heard it once. */
static ps_bus *meet_readers(void)
{
    static char text[PAYLOAD];
    ps_bus *bus;
    char topic[24];
    uint64_t hello = HELLO;
    topic_name(topic, topics - 1);
    MUST(ps_open(&bus, bus_url));
    start_other(reading_side);
    while (!atomic_load_explicit(&control->ready, memory_order_acquire))
        nap_us(200);
    memcpy(text, &hello, 8);
    while (!atomic_load_explicit(&control->seen, memory_order_acquire)) {
        MUST(ps_publish(bus, topic, text, PAYLOAD));
        nap_us(500);
    }
    nap_us(20000);
    return bus;
}

static double finish(ps_bus *bus, uint64_t total, uint64_t begin)
{
    control->total = total;
    atomic_store_explicit(&control->fin, 1, memory_order_release);
    join_other();
    if (control->lost || control->bad)
        fprintf(stderr, "bench: %d lost, %d bad\n", (int)control->lost, (int)control->bad);
    MUST(ps_close(bus));
    return (double)(control->last_ns - begin);
}

/* Messages in millions a second, from the first publish to the last one read. */
static double throughput(void)
{
    static _Alignas(128) char ahead[64][PAYLOAD];
    char topic[24];
    uint64_t at = 0;
    subscribers = topics = 1;
    set_url("?block=5000");
    ps_bus *bus = meet_readers();
    topic_name(topic, 0);
    /* Written 32 messages ahead, so that the copy does not wait for the stores in front of it: the harness's own cost. */
    for (uint64_t i = 0; i < 32; i++)
        compose(ahead[i % 64], i);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(limit_s * 1e9);
    do {
        for (int i = 0; i < 256; i++, at++) {
            MUST(ps_publish(bus, topic, ahead[at % 64], PAYLOAD));
            compose(ahead[(at + 32) % 64], at + 32);
        }
    } while (now_ns() < end);
    return (double)at / (finish(bus, at, begin) / 1e3);
}

/* Nanoseconds a message with so many topics, all subscribed, published in turn. */
static double many_topics(int count)
{
    char text[PAYLOAD] = { 0 };
    char (*name)[24] = calloc((size_t)count, sizeof *name);
    uint64_t at = 0;
    int k = 0;
    if (!name)
        exit(1);
    subscribers = 1;
    topics = count;
    set_url("?block=5000");
    for (int i = 0; i < count; i++)
        topic_name(name[i], i);
    ps_bus *bus = meet_readers();
    uint64_t begin = now_ns(), end = begin + (uint64_t)(limit_s * 1e9);
    do {
        for (int i = 0; i < 64; i++, at++) {
            compose(text, at);
            MUST(ps_publish(bus, name[k], text, PAYLOAD));
            k = k + 1 < count ? k + 1 : 0;
        }
    } while (now_ns() < end);
    free(name);
    return finish(bus, at, begin) / (double)at;
}

static double one_topic(void) { return many_topics(1); }
static double all_topics(void) { return many_topics(100000); }

/* Publisher's time for a message in bursts that every ring can hold, the readers having read everything before. */
static double burst(int count)
{
    char text[PAYLOAD] = { 0 }, topic[24];
    uint64_t at = 0;
    size_t n = 0;
    subscribers = count;
    topics = 1;
    set_url("?block=5000&members=128");
    ps_bus *bus = meet_readers();
    topic_name(topic, 0);
    uint64_t end = now_ns() + (uint64_t)(limit_s * 1e9);
    while (n < SAMPLES && (now_ns() < end || n < 50)) {
        uint64_t begin = now_ns();
        for (int i = 0; i < 32; i++, at++) {
            compose(text, at);
            MUST(ps_publish(bus, topic, text, PAYLOAD));
        }
        samples[n++] = (double)(now_ns() - begin) / 32;
        while (atomic_load_explicit(&control->acked, memory_order_acquire) < at)
            ;
        nap_us(50);
    }
    finish(bus, at, 0);
    return quantile(samples, n, 0.5);
}

static double burst_one(void) { return burst(1); }
static double burst_all(void) { return burst(MAX_SUBS); }

/* ---------------------------------------------------------------- latency */

static void answering_side(void)
{
    struct reader r = { 0 };
    char text[PAYLOAD] = { 0 };
    uint64_t answered = 0;
    ps_bus *bus;
    MUST(ps_open(&bus, bus_url));
    r.bus = bus;
    MUST(ps_subscribe(bus, "ping/0123456789a", take, &r, NULL, NULL));
    atomic_store_explicit(&control->ready, 1, memory_order_release);
    while (!atomic_load_explicit(&control->fin, memory_order_acquire)) {
        MUST(ps_dispatch(bus, 0, blocking ? 100 : 0));
        for (; answered < r.next; answered++) {
            compose(text, answered);
            MUST(ps_publish(bus, "pong/0123456789a", text, PAYLOAD));
        }
    }
    MUST(ps_close(bus));
}

static double latency_p999;

static double latency(void)
{
    struct reader r = { 0 };
    char text[PAYLOAD] = { 0 };
    size_t n = 0;
    ps_bus *bus;
    set_url("");
    MUST(ps_open(&bus, bus_url));
    r.bus = bus;
    MUST(ps_subscribe(bus, "pong/0123456789a", take, &r, NULL, NULL));
    start_other(answering_side);
    while (!atomic_load_explicit(&control->ready, memory_order_acquire))
        nap_us(200);
    nap_us(10000);
    uint64_t end = now_ns() + (uint64_t)(limit_s * 1e9);
    for (uint64_t i = 0; n < SAMPLES; i++) {
        uint64_t begin = now_ns();
        compose(text, i);
        MUST(ps_publish(bus, "ping/0123456789a", text, PAYLOAD));
        while (r.next <= i)
            MUST(ps_dispatch(bus, 0, blocking ? 100 : 0));
        uint64_t after = now_ns();
        samples[n++] = (double)(after - begin) / 2;
        if (after > end)
            break;
    }
    control->fin = 1;
    join_other();
    MUST(ps_close(bus));
    /* The first tenth warms things up. */
    latency_p999 = quantile(samples + n / 10, n - n / 10, 0.999);
    return quantile(samples + n / 10, n - n / 10, 0.5);
}

static double latency_tail(void) { return latency_p999; }

/* ---------------------------------------------------------------- what needs no second side */

static double nobody(void)
{
    ps_bus *bus, *other;
    char text[PAYLOAD] = { 0 };
    uint64_t count = 0;
    struct reader r = { 0 };
    set_url("");
    MUST(ps_open(&bus, bus_url));
    MUST(ps_open(&other, bus_url));
    MUST(ps_subscribe(other, "somebody/else", take, &r, NULL, NULL));
    pin(0);
    uint64_t begin = now_ns(), end = begin + (uint64_t)(limit_s * 1e9 / 2), after;
    do {
        for (int i = 0; i < 1000; i++, count++)
            MUST(ps_publish(bus, "user/0123456789a", text, PAYLOAD));
        after = now_ns();
    } while (after < end);
    MUST(ps_close(other));
    MUST(ps_close(bus));
    return (double)(after - begin) / (double)count;
}

/* MiB of the file of a default bus when two members publish and have touched all they have. */
static double memory(void)
{
    struct reader r = { 0 };
    ps_bus *bus[2];
    char path[128], text[PAYLOAD];
    struct stat st;
    compose(text, 0);
    set_url("");
    snprintf(path, sizeof path, "/dev/shm/bench.%d.bus", (int)getpid());
    snprintf(bus_url, sizeof bus_url, "shm://%s", path);
    for (int i = 0; i < 2; i++) {
        MUST(ps_open(&bus[i], bus_url));
        MUST(ps_subscribe(bus[i], "#", take, &r, NULL, NULL));
    }
    for (int i = 0; i < 20000; i++) {
        MUST(ps_publish(bus[i % 2], "t", text, PAYLOAD));
        MUST(ps_dispatch(bus[0], 0, 0));
        MUST(ps_dispatch(bus[1], 0, 0));
    }
    double mib = stat(path, &st) == 0 ? (double)st.st_blocks * 512 / 1048576 : 0;
    MUST(ps_close(bus[0]));
    MUST(ps_close(bus[1]));
    return mib;
}

static const char *library = "build/libpsbus.so";

/* KB of the sections that are loaded and not writable: what size(1) calls text. 0 where there is no such library. */
static double text_size(void)
{
    struct stat st;
    double sum = 0;
    int fd = open(library, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    void *map = fstat(fd, &st) == 0 && st.st_size > (off_t)sizeof(Elf64_Ehdr)
                    ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED)
        return 0;
    const Elf64_Ehdr *head = map;
    if (memcmp(head->e_ident, ELFMAG, SELFMAG) == 0 && head->e_ident[EI_CLASS] == ELFCLASS64 &&
        head->e_shoff + (uint64_t)head->e_shnum * sizeof(Elf64_Shdr) <= (uint64_t)st.st_size) {
        const Elf64_Shdr *section = (const void *)((const char *)map + head->e_shoff);
        for (int i = 0; i < head->e_shnum; i++) {
            if ((section[i].sh_flags & SHF_ALLOC) && !(section[i].sh_flags & SHF_WRITE) && section[i].sh_type != SHT_NOBITS)
                sum += (double)section[i].sh_size;
        }
    }
    munmap(map, (size_t)st.st_size);
    return sum / 1000;
}

/* ---------------------------------------------------------------- the table */

#define MOST_REPS 25

struct row {
    const char *what, *where, *unit;
    double (*measure)(void);
    int processes, blocking, once;
    /* the goal: at most (or at least, if less is negative) factor times the row `against`, or an absolute number */
    int against;
    double goal;
    int at_least;
    double value[MOST_REPS], far[MOST_REPS];
};

enum { ONE_LINE, TWO_LINES, BARE_RING, SHM_RATE, INPROC_RATE, SHM_BUSY, SHM_TAIL, INPROC_BUSY, INPROC_TAIL, SHM_BLOCK,
       SHM_BLOCK_TAIL, BURST_ONE, BURST_ALL, TOPIC_ONE, TOPIC_ALL, NOBODY, NOBODY_INPROC, MEMORY, TEXT, ROWS };
#define NONE (-1)

static struct row rows[ROWS] = {
    [ONE_LINE]       = { "bare cache line, there and back, one way", "processes", "ns", bare_one_line, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [TWO_LINES]      = { "bare two lines, one each way, one way", "processes", "ns", bare_two_lines, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [BARE_RING]      = { "bare ring, 64 bytes, one to one", "processes", "M/s", bare_ring, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [SHM_RATE]       = { "messages, 64 bytes, 16-byte topic", "shm", "M/s", throughput, 1, 0, 0, NONE, 20, 1, {0}, {0} },
    [INPROC_RATE]    = { "messages, 64 bytes, 16-byte topic", "inproc", "M/s", throughput, 0, 0, 0, NONE, 0, 0, {0}, {0} },
    [SHM_BUSY]       = { "latency, polling, one way, median", "shm", "ns", latency, 1, 0, 0, TWO_LINES, 2, 0, {0}, {0} },
    [SHM_TAIL]       = { "latency, polling, one way, 99.9 %", "shm", "ns", latency_tail, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [INPROC_BUSY]    = { "latency, polling, one way, median", "inproc", "ns", latency, 0, 0, 0, NONE, 0, 0, {0}, {0} },
    [INPROC_TAIL]    = { "latency, polling, one way, 99.9 %", "inproc", "ns", latency_tail, 0, 0, 0, NONE, 0, 0, {0}, {0} },
    [SHM_BLOCK]      = { "latency, sleeping, one way, median", "shm", "ns", latency, 1, 1, 0, NONE, 0, 0, {0}, {0} },
    [SHM_BLOCK_TAIL] = { "latency, sleeping, one way, 99.9 %", "shm", "ns", latency_tail, 1, 1, 0, NONE, 0, 0, {0}, {0} },
    [BURST_ONE]      = { "publish, 1 subscriber", "shm", "ns", burst_one, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [BURST_ALL]      = { "publish, 64 subscribers", "shm", "ns", burst_all, 1, 0, 0, BURST_ONE, 1.5, 0, {0}, {0} },
    [TOPIC_ONE]      = { "message, 1 topic, end to end", "shm", "ns", one_topic, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [TOPIC_ALL]      = { "message, 100 000 topics, end to end", "shm", "ns", all_topics, 1, 0, 0, TOPIC_ONE, 3, 0, {0}, {0} },
    [NOBODY]         = { "publish that nobody wants", "shm", "ns", nobody, 1, 0, 0, NONE, 0, 0, {0}, {0} },
    [NOBODY_INPROC]  = { "publish that nobody wants", "inproc", "ns", nobody, 0, 0, 0, NONE, 0, 0, {0}, {0} },
    [MEMORY]         = { "default bus, two publishers", "shm", "MiB", memory, 1, 0, 1, NONE, 8, 0, {0}, {0} },
    [TEXT]           = { "library text", "libpsbus.so", "KB", text_size, 1, 0, 1, NONE, 100, 0, {0}, {0} },
};

/* The median of the near repetitions, or of all when there is none. */
static double median(const struct row *r, int reps, int *near)
{
    double v[MOST_REPS];
    size_t n = 0;
    *near = 0;
    for (int i = 0; i < reps; i++)
        *near += r->far[i] <= FAR_NS;
    for (int i = 0; i < reps; i++) {
        if (*near == 0 || r->far[i] <= FAR_NS)
            v[n++] = r->value[i];
    }
    return quantile(v, n, 0.5);
}

static void print_table(int reps)
{
    printf("\n%-42s %-12s %9s %-4s %-17s %-9s %s\n", "what", "where", "median", "", "least - most", "cores", "goal");
    for (int i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];
        int n = r->once ? 1 : reps, near, other;
        double least = 1e300, most = 0, middle = median(r, n, &near), goal = r->goal;
        char range[40], cores[24], text[64] = "";
        for (int k = 0; k < n; k++) {
            least = r->value[k] < least ? r->value[k] : least;
            most = r->value[k] > most ? r->value[k] : most;
        }
        snprintf(range, sizeof range, "%.4g - %.4g", least, most);
        snprintf(cores, sizeof cores, "%s %d/%d", near ? "NEAR" : "FAR", near ? near : n, n);
        if (goal > 0 && r->against != NONE) {
            double base = median(&rows[r->against], reps, &other);
            snprintf(text, sizeof text, "<= %.3g x %.4g = %.4g: %.2f x, %s", goal, base, goal * base, middle / base,
                     middle <= goal * base ? "met" : "MISSED");
        } else if (goal > 0 && middle > 0) {
            snprintf(text, sizeof text, "%s %g: %s", r->at_least ? ">=" : "<=", goal,
                     (r->at_least ? middle >= goal : middle <= goal) ? "met" : "MISSED");
        }
        if (middle > 0)
            printf("%-42s %-12s %9.4g %-4s %-17s %-9s %s\n", r->what, r->where, middle, r->unit, r->once ? "" : range,
                   r->once ? "" : cores, text);
    }
}

int main(int argc, char **argv)
{
    const char *reps_text = getenv("PS_BENCH_REPS"), *ms_text = getenv("PS_BENCH_MS");
    int reps = reps_text ? atoi(reps_text) : 5;
    if (argc > 1)
        library = argv[1];
    if (ms_text && atoi(ms_text) > 0)
        limit_s = atoi(ms_text) / 1e3;
    reps = reps < 1 ? 1 : reps > MOST_REPS ? MOST_REPS : reps;
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bare = mmap(NULL, sizeof *bare, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (control == MAP_FAILED || bare == MAP_FAILED) {
        perror("bench: mmap");
        return 1;
    }
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        printf("one processor only: the two sides take turns, and no figure means much\n");
    printf("libpsbus %s, %d repetitions of %d ms, each side pinned to a core\n", ps_version(), reps, (int)(limit_s * 1e3));
    for (int rep = 0; rep < reps; rep++) {
        for (int i = 0; i < ROWS; i++) {
            struct row *r = &rows[i];
            if (r->once && rep > 0)
                continue;
            processes = r->processes;
            blocking = r->blocking;
            double before = r->once ? 0 : probe();
            r->value[rep] = r->measure();
            double after = r->once ? 0 : probe();
            r->far[rep] = before > after ? before : after;
            if (isatty(2)) fprintf(stderr, "\r%d/%d %-60s", rep + 1, reps, r->what);
        }
    }
    if (isatty(2)) fprintf(stderr, "\r%-70s\r", "");
    print_table(reps);
    return 0;
}
