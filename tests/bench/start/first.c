/* SPDX-License-Identifier: MIT */
/*
 * first.c - the smallest programs that publish or read, started anew for each measurement:
 *
 *   first bus publish|read URL SHARED      through libpsbus
 *   first ring publish|read FILE SHARED    through a bare ring in a file
 *
 * The publisher sends until the reader has had one message, and tells how much memory it has.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "../first.h"

#include <psbus.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD 64
#define CELLS   4096u
#define TOPIC   "user/0123456789a"

struct ring {
    _Alignas(128) _Atomic uint64_t head;
    _Alignas(128) _Atomic uint64_t tail;
    _Alignas(128) char cell[CELLS][PAYLOAD];
};

static struct first *shared;

static void *map(const char *path, int flags, size_t size)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) != 0) {
        perror(path);
        exit(1);
    }
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) {
        perror("first: mmap");
        exit(1);
    }
    return memory;
}

static void nap_us(long us)
{
    struct timespec t = { 0, us * 1000 };
    nanosleep(&t, NULL);
}

static void seen(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    shared->seen_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t resident_kib(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Rss: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

static void publisher_ends(void)
{
    shared->resident_kib = resident_kib();
    while (!shared->finish)
        nap_us(200);
}

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "first: %s (%s)\n", ps_strerror(rc), ps_errmsg());
        exit(1);
    }
}

static void bus_publish(const char *url)
{
    const char text[PAYLOAD] = { 0 };
    ps_bus *bus;
    must(ps_open(&bus, url));
    while (!shared->seen_ns) {
        must(ps_publish(bus, TOPIC, text, sizeof text));
        nap_us(50);
    }
    publisher_ends();
    must(ps_close(bus));
}

static void bus_seen(const ps_msg *msg, void *user)
{
    (void)msg, (void)user;
    if (!shared->seen_ns)
        seen();
}

static void bus_read(const char *url)
{
    ps_bus *bus;
    must(ps_open(&bus, url));
    must(ps_subscribe(bus, TOPIC, bus_seen, NULL, NULL, NULL));
    while (!shared->seen_ns)
        must(ps_dispatch(bus, 0, 0));
    while (!shared->finish)
        nap_us(200);
    must(ps_close(bus));
}

static void ring_publish(const char *path)
{
    const char text[PAYLOAD] = { 0 };
    struct ring *ring = map(path, O_CREAT, sizeof *ring);
    while (!shared->seen_ns) {
        uint64_t at = ring->head;
        memcpy(ring->cell[at % CELLS], text, PAYLOAD);
        atomic_store_explicit(&ring->head, at + 1, memory_order_release);
        nap_us(50);
    }
    publisher_ends();
}

static void ring_read(const char *path)
{
    struct ring *ring = map(path, O_CREAT, sizeof *ring);
    while (atomic_load_explicit(&ring->head, memory_order_acquire) == 0)
        ;
    seen();
    while (!shared->finish)
        nap_us(200);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "first: is run by the benchmark\n");
        return 2;
    }
    int bus = strcmp(argv[1], "bus") == 0, publish = strcmp(argv[2], "publish") == 0;
    shared = map(argv[4], 0, sizeof *shared);
    (bus ? publish ? bus_publish : bus_read : publish ? ring_publish : ring_read)(argv[3]);
    return 0;
}
