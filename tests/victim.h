/* SPDX-License-Identifier: MIT */
/*
 * victim.h - a process whose bus is damaged under its hands, for the tests of promise 9: members may lose messages or answer
 * errors, but they do not crash, hang, read out of bounds or allocate without end.
 *
 * Victims are children that show a heartbeat, so that a crash or a hang is told with the operation that met it.
 */
#ifndef PS_TEST_VICTIM_H
#define PS_TEST_VICTIM_H

#include "actors.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define BUS_OPTIONS "depth=32&bytes=16k&loans=16k&members=6&evict=1"
#define HANG_MS     10000

struct scene {
    _Atomic uint64_t beat, stop, offset, value, op, fresh, scribbled, delivered, resets, wrong, wrong_line, wrong_op;
    char wrong_text[200];
    _Atomic int64_t wrong_rc;
    uint64_t from;
    char url[256];
};

static inline struct scene *scene_new(void)
{
    struct scene *sc = support_shared(sizeof *sc);
    (void)support_random();             /* the seed is drawn here, and the children go on from it */
    snprintf(sc->url, sizeof sc->url, "%s", scratch_url("bus", BUS_OPTIONS));
    return sc;
}

static inline void wrong(struct scene *sc, int rc, int line)
{
    sc->wrong_rc = rc;
    sc->wrong_line = (uint64_t)line;
    sc->wrong_op = sc->op;
    snprintf(sc->wrong_text, sizeof sc->wrong_text, "%s", ps_errmsg());
    sc->wrong++;
}

/* ---------------------------------------------------------------- guards */

/*
 * Behind each file that the library maps lies a page nobody may touch, so that a read beyond the end is a crash and not a look
 * at the neighbour. The library is linked statically, so its calls come here. A sanitizer has an mmap of its own.
 */
#if !ACTORS_SANITIZED
#define GUARD 4096u
static struct { char *area; size_t size; } guarded[1024];

static inline size_t guard_whole(size_t size) { return (size + GUARD - 1) & ~(size_t)(GUARD - 1); }

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    unsigned slot = 0;
    char *area;
    while (slot < sizeof guarded / sizeof *guarded && guarded[slot].area)
        slot++;
    if (!(flags & MAP_SHARED) || (flags & MAP_FIXED) || fd < 0 || slot == sizeof guarded / sizeof *guarded)
        return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
    area = (void *)syscall(SYS_mmap, NULL, guard_whole(size) + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, (off_t)0);
    if (area == MAP_FAILED)
        return area;
    if ((void *)syscall(SYS_mmap, area, size, protection, flags | MAP_FIXED, fd, offset) == MAP_FAILED) {
        int error = errno;
        syscall(SYS_munmap, area, guard_whole(size) + GUARD);
        errno = error;
        return MAP_FAILED;
    }
    guarded[slot].area = area;
    guarded[slot].size = size;
    return area;
}

/* What the library's calls are named where it asks for 64-bit offsets. */
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset) __attribute__((alias("mmap")));

int munmap(void *address, size_t size)
{
    for (unsigned i = 0; i < sizeof guarded / sizeof *guarded; i++) {
        if (guarded[i].area != address || guarded[i].size != size)
            continue;
        guarded[i].area = NULL;
        size = guard_whole(size) + GUARD;
        break;
    }
    return (int)syscall(SYS_munmap, address, size);
}
#endif

/* ---------------------------------------------------------------- a victim */

#define HANDLES 4                       /* publisher and push reader, reader, lossy reader, pull reader */

struct house {
    struct scene *scene;
    ps_bus *bus[HANDLES];
    uint64_t rounds;
};

static _Atomic uint64_t touched;        /* keeps the reads */

static inline void look(struct scene *sc, const ps_msg *msg)
{
    uint64_t sum = 0;
    if (!msg->data || !msg->topic || msg->topic_len > PS_TOPIC_MAX || msg->topic[msg->topic_len] != '\0')
        wrong(sc, 0, __LINE__);
    else if (msg->size > 1 << 26)       /* the file cannot be that large */
        wrong(sc, 1, __LINE__);
    else
        for (size_t i = 0; i < msg->size; i++)
            sum += ((const unsigned char *)msg->data)[i];
    touched = sum;
    sc->delivered++;
}

static inline void look_handler(const ps_msg *msg, void *user) { look(user, msg); }

static inline void house_close(struct house *h)
{
    for (int i = 0; i < HANDLES; i++) {
        h->scene->op = (uint64_t)(90 + i);
        int rc = ps_close(h->bus[i]);
        if (rc != 0)
            wrong(h->scene, rc, __LINE__);
        h->bus[i] = NULL;
        h->scene->beat++;
    }
}

/* Opens what is not open; a bus that lets nobody in any more is thrown away, as an administrator would. */
static inline int house_open(struct house *h)
{
    static const char *const more[HANDLES] = { "", "", "&lossy=1", "&name=pull" };
    struct scene *sc = h->scene;
    ps_sub_options borrow = PS_SUB_OPTIONS_INIT;
    borrow.flags = PS_BORROW;
    for (int tries = 0; tries < 3; tries++) {
        int rc = 0;
        for (int i = 0; i < HANDLES && rc == 0; i++) {
            char url[300];
            if (h->bus[i])
                continue;
            sc->op = (uint64_t)(80 + i);
            snprintf(url, sizeof url, "%s%s", sc->url, more[i]);
            rc = ps_open(&h->bus[i], url);
            sc->beat++;
            if (rc == 0)
                rc = ps_subscribe(h->bus[i], i == 1 ? "t/1" : "#", i == 3 ? NULL : look_handler, sc, i == 1 ? &borrow : NULL, NULL);
            sc->beat++;
        }
        if (rc == 0)
            return 0;
        house_close(h);
        unlink(scratch_file("bus"));
        sc->resets++;
        sc->fresh++;
    }
    return -1;
}

/* A result that no damage excuses. No memory: somebody believed a length. (Too large for the bus is excused: a handle that came
 * after the damage has to take the bus's sizes from its memory.) */
static inline void expect(struct scene *sc, int rc, int line)
{
    if (rc < PS_ESYS || rc == PS_EINVAL || rc == PS_ENOMEM || rc == PS_EFORKED || rc == PS_ECLOSED)
        wrong(sc, rc, line);
    sc->beat++;
}

#define OP(number, call) do { sc->op = (number); rc = (call); expect(sc, rc, __LINE__); \
    broken |= rc == PS_ECORRUPT || rc == PS_EFENCED || rc == PS_ESYS; } while (0)

/* Fills two lanes with messages of every kind and leaves them there. 1: a handle has had enough. */
static inline int house_fill(struct house *h)
{
    static unsigned char text[4096];
    struct scene *sc = h->scene;
    void *loan;
    int rc, broken = 0;
    if (house_open(h) != 0)
        return 1;
    for (uint64_t n = h->rounds++, i = 0; i < 12; i++, n++) {
        OP(1, ps_publish(h->bus[0], "t/1", text, 8 + n % 40));
        OP(2, ps_publish(h->bus[i % 2], "t/2", text, 100 + n % 900));
        if (i == 3)
            OP(3, ps_publish(h->bus[1], "t/1/and/a/topic/that/is/so/long/that/it/does/not/go/into/a/cell/of/the/ring/but/beside/it/"
                             "with/the/message/itself/as/a/topic/of/this/length/has/to/be", text, 3000));
        if (i % 2 == 0)
            continue;
        OP(4, ps_loan(h->bus[0], "t/1", 500, &loan));
        if (rc == 0) {
            memset(loan, 1, 500);
            OP(5, ps_commit(h->bus[0], loan, 400));
            if (rc < 0)
                OP(6, ps_cancel(h->bus[0], loan));
        }
    }
    return broken;
}

/* Reads it all, and asks and changes this and that. */
static inline int house_read(struct house *h)
{
    struct scene *sc = h->scene;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    ps_member m[8] = { PS_MEMBER_INIT };
    const ps_msg *msg;
    uint64_t n = h->rounds;
    int rc, broken = 0;
    if (house_open(h) != 0)
        return 1;
    for (int i = 0; i < 3; i++) {
        OP((uint64_t)(10 + i), ps_dispatch(h->bus[i], 0, 0));
        /* A member that came after the damage may believe in larger rings, but only as large as the file. */
        if (rc > 1 << 16)
            wrong(sc, rc, __LINE__);
    }
    for (int i = 0; i < 100; i++) {
        OP(13, ps_next(h->bus[3], &msg, 0));
        if (rc != 1)
            break;
        look(sc, msg);
    }
    switch (n % 6) {
    case 0: OP(20, ps_stats(h->bus[n / 6 % HANDLES], &st)); break;
    case 1: OP(21, ps_members(h->bus[0], n % 4 ? "t/1" : NULL, m, 8)); if (rc > 6) wrong(sc, rc, __LINE__); break;
    case 2: OP(22, ps_wanted(h->bus[1], "t/3")); if (rc > 6) wrong(sc, rc, __LINE__); break;
    case 3: OP(23, ps_dispatch(h->bus[1], 0, n % 8 == 3)); break;     /* sleeps now and then */
    case 4: {
        ps_sub *sub = NULL;
        OP(24, ps_subscribe(h->bus[0], "other/+", look_handler, sc, NULL, &sub));
        if (rc == 0)
            OP(25, ps_unsubscribe(sub));
        break;
    }
    default:
        if (n % 5 == 0) {
            sc->op = 26;
            int i = (int)(n / 5 % HANDLES);
            rc = ps_close(h->bus[i]);
            if (rc != 0)
                wrong(sc, rc, __LINE__);
            h->bus[i] = NULL;
            broken = 1;
        }
    }
    return broken;
}
#undef OP

static inline int house_round(struct house *h)
{
    int broken = house_fill(h);
    return house_read(h) || broken;
}

/* Damaged handles are closed and opened again. */
static inline void house_mend(struct house *h)
{
    for (int i = 0; i < HANDLES; i++) {
        h->scene->op = (uint64_t)(70 + i);
        if (h->bus[i] && ps_close(h->bus[i]) != 0)
            wrong(h->scene, 0, __LINE__);
        h->bus[i] = NULL;
        h->scene->beat++;
    }
}

/* Private memory may grow by this much and no more; a sanitizer needs all it can get. */
static inline void limit_memory(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (ACTORS_SANITIZED || !f)
        return;
    if (fscanf(f, "%*d %*d %*d %*d %*d %ld", &pages) == 1) {
        rlim_t most = (rlim_t)pages * 4096 + (64u << 20);
        struct rlimit limit = { most, most };
        setrlimit(RLIMIT_DATA, &limit);
    }
    fclose(f);
}

/*
 * Watches a victim: its exit code, 1000 + signal, or -1 when its heart stood still. After ms milliseconds (0: never) it is
 * told to stop.
 */
static inline int watch(struct scene *sc, pid_t child, int ms)
{
    uint64_t beat = sc->beat, begin = support_now_ms(), since = begin;
    int status;
    for (;;) {
        uint64_t now = support_now_ms();
        if (waitpid(child, &status, WNOHANG) == child) {
            actors_forget(child);
            return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
        }
        if (sc->beat != beat) {
            beat = sc->beat;
            since = now;
        } else if (now - since > HANG_MS) {
            kill_child(child);
            return -1;
        }
        if (ms && now - begin >= (uint64_t)ms)
            sc->stop = 1;
        nap_us(2000);
    }
}

#define assert_victim(sc, code) do { \
    int code_ = (code); \
    if (code_ != 0 || (sc)->wrong) \
        fail_msg("the victim ended with %d in operation %d; %d wrong results, the last %d of operation %d, line %d (%s)", code_, \
                 (int)(sc)->op, (int)(sc)->wrong, (int)(sc)->wrong_rc, (int)(sc)->wrong_op, (int)(sc)->wrong_line, \
                 (sc)->wrong_text); \
} while (0)

/* ---------------------------------------------------------------- an attacker */

/* The file as an attacker has it. NULL while there is none. */
static inline uint64_t *map_file(size_t *words)
{
    struct stat st;
    int fd = open(scratch_file("bus"), O_RDWR | O_CLOEXEC);
    void *map = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
        map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    *words = map == MAP_FAILED ? 0 : (size_t)st.st_size / 8;
    return map == MAP_FAILED ? NULL : map;
}

#define EVILS 10

/* Values that get past one check and fail the next: mostly a part of the old one stays. */
static inline uint64_t evil(uint64_t old, unsigned which)
{
    const uint64_t low = UINT32_MAX, r = support_random(), small = r % 8192 - 4096;
    switch (which) {
    case 0: return old ? 0 : ~UINT64_C(0);
    case 1: return UINT64_C(1) << 63;
    case 2: return r;
    case 3: return old ^ UINT64_C(1) << r % 64;
    case 4: return old ^ UINT64_C(1) << r % 64 ^ UINT64_C(1) << (r >> 8) % 64;
    case 5: return (old & ~low) | (r & low);
    case 6: return (old & low) | (r & ~low);
    case 7: return (old & ~low) | ((old + small) & low);
    case 8: return (old & low) | ((old + (small << 32)) & ~low);
    default: return (old & ~(UINT64_C(0xff) << r % 8 * 8)) | (r >> 56) << r % 8 * 8;
    }
}

#endif
