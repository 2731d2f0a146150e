/* SPDX-License-Identifier: MIT */
/*
 * zero_copy.c - frames of a megabyte between two processes, without a copy at either end.
 *
 *   zero_copy [--frames N] [--size BYTES] [shm-URL]          2000 frames of 1 MiB on an anonymous bus, if not given
 *
 * The sender draws each frame where it will be read: ps_loan() hands out memory of the bus, ps_commit() publishes it. The
 * receiver subscribes with PS_BORROW, so msg->data is that memory itself, and the sender cannot use it again before the handler
 * returns. Frames carry a number and a checksum. When the receiver is slower, the loan area fills up and ps_loan() answers
 * PS_EAGAIN: the sender sleeps in ps_dispatch() until there is room.
 *
 * That nothing was copied is shown, not claimed: the sender writes into each frame at which offset of the bus's file it lies
 * (/proc/self/maps knows), and the receiver, another process with mappings of its own, finds it at the same offset.
 */
#define _GNU_SOURCE

#include <psbus.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 10000                   /* for what the other process does next */

struct frame {
    uint64_t number, inode, offset;     /* where the sender has it: which file, and where in it */
    uint64_t checksum;                  /* of the words that follow */
    uint64_t words[];
};

/* One mapping of a shared file, as /proc/self/maps has it. The last one used is kept: frames lie in a few only. */
struct mapping {
    uintptr_t start, end;
    uint64_t  inode, offset;
};

struct receiver {
    ps_bus  *bus;
    size_t   size;
    uint64_t expected, received, in_place;
    int      damaged;
};

static const char *who = "sender";

static void die(const char *what, int rc)
{
    fprintf(stderr, "zero_copy: %s: %s: %s (%s)\n", who, what, ps_strerror(rc), ps_errmsg());
    exit(1);
}

static void die_plainly(const char *what)
{
    fprintf(stderr, "zero_copy: %s: %s\n", who, what);
    exit(1);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ where an address lies */

/* Fills in inode and offset of the byte at this address; 0 if it is not in a shared mapping of a file. */
static int locate(const void *address, uint64_t *inode, uint64_t *offset)
{
    static struct mapping kept;
    uintptr_t at = (uintptr_t)address;

    if (at < kept.start || at >= kept.end) {
        char line[512], access[8];
        FILE *maps = fopen("/proc/self/maps", "r");

        kept = (struct mapping){ 0 };
        while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
            struct mapping m;

            if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %" SCNx64 " %*s %" SCNu64, &m.start, &m.end, access, &m.offset,
                       &m.inode) == 5 && at >= m.start && at < m.end && access[3] == 's' && m.inode != 0)
                kept = m;
        }
        if (maps != NULL)
            fclose(maps);
    }
    *inode = kept.inode;
    *offset = kept.offset + (at - kept.start);
    return kept.inode != 0;
}

/* ------------------------------------------------------------------ frames */

/* Four sums side by side, so that the processor can overlap them: the checksum shall not be what is measured. */
static uint64_t checksum(const uint64_t *words, size_t count)
{
    uint64_t sum[4] = { 1, 2, 3, 4 };
    size_t i = 0;

    for (; i + 4 <= count; i += 4)
        for (size_t lane = 0; lane < 4; lane++)
            sum[lane] = (sum[lane] + words[i + lane]) * UINT64_C(0x9e3779b97f4a7c15);
    for (; i < count; i++)
        sum[0] = (sum[0] + words[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return sum[0] ^ sum[1] << 1 ^ sum[2] << 2 ^ sum[3] << 3;
}

static void frame_draw(struct frame *frame, size_t size, uint64_t number)
{
    size_t count = (size - sizeof *frame) / sizeof frame->words[0];

    frame->number = number;
    if (!locate(frame, &frame->inode, &frame->offset))
        die_plainly("the loan lies in no shared file: is this a shm bus?");
    for (size_t i = 0; i < count; i++)
        frame->words[i] = number + i;
    frame->checksum = checksum(frame->words, count);
}

/* ------------------------------------------------------------------ the receiver */

static void on_frame(const ps_msg *msg, void *user)
{
    struct receiver *r = user;
    const struct frame *frame = msg->data;      /* in the bus's memory; nobody writes there before we return */
    uint64_t inode = 0, offset = 0;

    if (msg->size != r->size || frame->number != r->received || msg->lost != 0 ||
        frame->checksum != checksum(frame->words, (msg->size - sizeof *frame) / sizeof frame->words[0]))
        r->damaged = 1;
    else if (locate(frame, &inode, &offset) && inode == frame->inode && offset == frame->offset)
        r->in_place++;
    if (++r->received == r->expected || r->damaged)
        ps_stop(r->bus);
}

static int receive(ps_bus *bus, uint64_t frames, size_t size)
{
    struct receiver r = { .bus = bus, .size = size, .expected = frames };
    ps_sub_options borrow = PS_SUB_OPTIONS_INIT;
    int rc;

    who = "receiver";
    borrow.flags = PS_BORROW;
    /* The inherited handle becomes a member of its own. */
    if ((rc = ps_after_fork(bus)) < 0)
        die("ps_after_fork", rc);
    if ((rc = ps_subscribe(bus, "camera/frame", on_frame, &r, &borrow, NULL)) < 0)
        die("ps_subscribe", rc);
    if ((rc = ps_publish(bus, "camera/ready", NULL, 0)) < 0)
        die("ready", rc);
    while (r.received < frames && !r.damaged) {
        if ((rc = ps_dispatch(bus, 0, WAIT_MS)) < 0)
            die("dispatch", rc);
        if (rc == 0)
            die_plainly("no frame came for ten seconds");
    }
    if (r.damaged)
        die_plainly("a frame is damaged, lost or out of order");
    printf("receiver: %" PRIu64 " frames, every checksum right; %" PRIu64 " read in place, %" PRIu64 " copied\n", r.received,
           r.in_place, r.received - r.in_place);
    if ((rc = ps_close(bus)) < 0)
        die("ps_close", rc);
    return fflush(stdout) == 0 && r.in_place == r.received ? 0 : 1;
}

/* ------------------------------------------------------------------ the sender */

static void on_ready(const ps_msg *msg, void *user)
{
    (void)msg;
    *(int *)user = 1;
}

/* Until a refused ps_loan() or ps_commit() may succeed. The receiver's death ends it, too: the dead hold nobody back. */
static void wait_for_room(ps_bus *bus)
{
    int rc = ps_dispatch(bus, 0, WAIT_MS);

    if (rc < 0)
        die("dispatch", rc);
}

static void send_frame(ps_bus *bus, uint64_t number, size_t size, uint64_t *refused)
{
    void *data;
    int rc;

    while ((rc = ps_loan(bus, "camera/frame", size, &data)) == PS_EAGAIN) {
        ++*refused;
        wait_for_room(bus);
    }
    if (rc < 0)
        die("ps_loan", rc);
    frame_draw(data, size, number);
    while ((rc = ps_commit(bus, data, size)) == PS_EAGAIN) {    /* the loan is still ours */
        ++*refused;
        wait_for_room(bus);
    }
    if (rc < 0)
        die("ps_commit", rc);
    if (rc == 0)
        die_plainly("the receiver is gone");
}

static void send_all(ps_bus *bus, uint64_t frames, size_t size, const int *ready)
{
    uint64_t refused = 0;
    int rc;

    /* To subscribe is a barrier: after this message the receiver sees everything. */
    if ((rc = ps_dispatch(bus, 0, WAIT_MS)) < 0)
        die("dispatch", rc);
    if (!*ready)
        die_plainly("the receiver did not come");
    double start = now_s();
    for (uint64_t number = 0; number < frames; number++)
        send_frame(bus, number, size, &refused);
    double took = now_s() - start;
    printf("sender: %" PRIu64 " frames of %zu bytes in %.2f s, %.2f GB/s drawn and sent; the loan area was full %" PRIu64
           " times\n", frames, size, took, (double)frames * (double)size / took / 1e9, refused);
}

static uint64_t number_of(const char *option, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < least || value > most) {
        fprintf(stderr, "zero_copy: --%s %s is not a number from %" PRIu64 " to %" PRIu64 "\n", option, text, least, most);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "frames", required_argument, NULL, 'f' }, { "size", required_argument, NULL, 's' }, { NULL, 0, NULL, 0 },
    };
    uint64_t frames = 2000;
    size_t size = 1 << 20;
    int letter, rc, ready = 0, status;
    ps_bus *bus;

    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (letter) {
        case 'f': frames = number_of("frames", optarg, 1, UINT32_MAX); break;
        case 's': size = (size_t)number_of("size", optarg, 4096, 1 << 28); break;
        default:
            fprintf(stderr, "usage: zero_copy [--frames N] [--size BYTES] [URL]\n");
            return 2;
        }
    /* Eight frames under way: enough to overlap drawing and reading, few enough to meet a full area. */
    char own[64];
    snprintf(own, sizeof own, "shm:?members=2&depth=64&loans=%zu", size * 8);
    const char *url = optind < argc ? argv[optind] : own;
    if ((rc = ps_open(&bus, url)) < 0)
        die(url, rc);
    if ((rc = ps_subscribe(bus, "camera/ready", on_ready, &ready, NULL, NULL)) < 0)
        die("ps_subscribe", rc);
    pid_t child = fork();
    if (child < 0)
        die_plainly(strerror(errno));
    if (child == 0)
        exit(receive(bus, frames, size));
    send_all(bus, frames, size, &ready);
    if (waitpid(child, &status, 0) != child || status != 0)
        die_plainly("the receiver failed");
    if ((rc = ps_close(bus)) < 0)
        die("ps_close", rc);
    return fflush(stdout) == 0 ? 0 : 1;
}
