/* SPDX-License-Identifier: MIT */
/*
 * watch.c - sizes of processes, and whether they grow.
 */
#include "soak.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>

void watch_add(struct watch *watch, int window, int64_t value)
{
    int64_t *least = window == WATCH_EARLY ? &watch->early : &watch->late;
    if (window && value >= 0 && (*least < 0 || value < *least))
        *least = value;
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

int64_t resident_kib(pid_t pid)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Rss: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
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
