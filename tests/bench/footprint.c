/* SPDX-License-Identifier: MIT */
/*
 * footprint.c - what a program pays to be there: time from fork and exec to the first message, resident memory, the bus's file,
 * the library's text.
 */
#include "scenarios.h"
#include "first.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *library_path = "build/libpsbus.so", *first_path = "build/tests/bench/start/first";

/* ---------------------------------------------------------------- first message */

static pid_t start(int side, const char *kind, const char *what, const char *where, const char *shared)
{
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(side);
        execl(first_path, first_path, kind, what, where, shared, (char *)NULL);
        perror(first_path);
        _exit(1);
    }
    return pid;
}

static _Noreturn void give_up_first(const char *shared_path, const char *why)
{
    unlink(shared_path);
    fprintf(stderr, "bench: %s: %s\n", first_path, why);
    exit(1);
}

static int has_ended(pid_t pid)
{
    siginfo_t info = { 0 };
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

/* Microseconds from the first fork until the reader has had a message; the median of some starts. */
double first_message(struct row *row)
{
    const char *kind = row->x ? "bus" : "ring";
    char shared_path[64], where[sizeof bus_url];
    double kib[64], us[64];
    size_t n = 0;
    snprintf(shared_path, sizeof shared_path, "/dev/shm/bench.first.%d", (int)getpid());
    int fd = open(shared_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(struct first)) != 0)
        give_up(shared_path);
    struct first *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED)
        give_up("mmap");
    for (uint64_t end = end_ns(now_ns()); n < 64 && (now_ns() < end || n < 3); n++) {
        snprintf(where, sizeof where, "/dev/shm/bench.ring.%d", (int)getpid());
        if (row->x) {
            bus_new_url("");
            memcpy(where, bus_url, sizeof where);
        }
        memset(shared, 0, sizeof *shared);
        uint64_t begin = now_ns();
        pid_t reader = start(1, kind, "read", where, shared_path), publisher = start(0, kind, "publish", where, shared_path);
        while (!shared->resident_kib) {
            nap_us(200);
            if (has_ended(reader) || has_ended(publisher))
                give_up_first(shared_path, "ended too early");
            if (now_ns() - begin > 10000000000u)
                give_up_first(shared_path, "no message within 10 seconds");
        }
        shared->finish = 1;
        int status[2];
        if (waitpid(publisher, &status[0], 0) != publisher || waitpid(reader, &status[1], 0) != reader || status[0] || status[1])
            give_up_first(shared_path, "ended badly");
        us[n] = (double)(shared->seen_ns - begin) / 1e3;
        kib[n] = (double)shared->resident_kib;
        if (!row->x)
            unlink(where);
    }
    munmap(shared, sizeof *shared);
    unlink(shared_path);
    extra[0] = quantile(kib, n, 0.5) / 1024;
    return quantile(us, n, 0.5);
}

/* ---------------------------------------------------------------- sizes */

/* MiB of the file of a default bus when two members publish and have touched all they have. */
double bus_memory(struct row *row)
{
    struct bus_reader reader = { 0 };
    ps_bus *bus[2];
    char path[128], text[PAYLOAD] = { 0 };
    struct stat st;
    (void)row;
    snprintf(path, sizeof path, "/dev/shm/bench.%d.bus", (int)getpid());
    snprintf(bus_url, sizeof bus_url, "shm://%s", path);
    for (int i = 0; i < 2; i++) {
        MUST(ps_open(&bus[i], bus_url));
        MUST(ps_subscribe(bus[i], "#", bus_take, &reader, NULL, NULL));
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

static double sections_size(const char *file, size_t size)
{
    const Elf64_Ehdr *head = (const void *)file;
    double sum = 0;
    if (size < sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_ident[EI_CLASS] != ELFCLASS64 ||
        head->e_shoff + (uint64_t)head->e_shnum * sizeof(Elf64_Shdr) > size)
        return 0;
    const Elf64_Shdr *section = (const void *)(file + head->e_shoff);
    for (int i = 0; i < head->e_shnum; i++) {
        if ((section[i].sh_flags & SHF_ALLOC) && !(section[i].sh_flags & SHF_WRITE) && section[i].sh_type != SHT_NOBITS)
            sum += (double)section[i].sh_size;
    }
    return sum;
}

/* KB of the sections that are loaded and not writable: what size(1) calls text. 0 where there is no such library. */
double library_text(struct row *row)
{
    struct stat st;
    (void)row;
    int fd = open(library_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    void *map = fstat(fd, &st) != 0 || st.st_size <= 0 ? MAP_FAILED
                    : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return 0;
    double bytes = sections_size(map, (size_t)st.st_size);
    munmap(map, (size_t)st.st_size);
    return bytes / 1000;
}
