/* SPDX-License-Identifier: MIT */
/*
 * watch.c - sizes of processes, and whether they grow.
 */
#include "soak.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void watch_set(struct watch *watch, int late, int64_t value)
{
    *(late ? &watch->late : &watch->early) = value;
}

int watch_grew(const struct watch *watch, const char *who, const char *what, int64_t allowed)
{
    if (watch->early < 0 || watch->late < 0) {
        printf("soak: %s: %s could not be watched\n", who, what);
        return 1;
    }
    if (watch->late <= watch->early + allowed)
        return 0;
    printf("soak: %s: %s grew from %" PRId64 " to %" PRId64 "\n", who, what, watch->early, watch->late);
    return 1;
}

/* The sum of those lines of a file of `NAME: N kB` that begin with one of two names; -1 if there is none. */
static int64_t sum_of(pid_t pid, const char *file_name, const char *first, const char *second)
{
    char path[64], line[256], name[32];
    int64_t sum = -1, kib;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file_name);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%31[^:]: %" SCNd64, name, &kib) == 2 && (strcmp(name, first) == 0 || strcmp(name, second) == 0))
            sum = sum < 0 ? kib : sum + kib;
    if (file)
        fclose(file);
    return sum;
}

struct memory memory_of(pid_t pid)
{
    return (struct memory){ sum_of(pid, "smaps_rollup", "Rss", "Swap"), sum_of(pid, "smaps_rollup", "Anonymous", "Swap"),
                            sum_of(pid, "status", "VmSize", "VmSize") };
}

int64_t descriptors(pid_t pid)
{
    char path[64];
    int64_t count = -1;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return -1;
    /* The two names that every directory has. */
    for (count = -2; readdir(dir);)
        count++;
    closedir(dir);
    return count;
}
