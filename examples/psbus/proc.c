/* SPDX-License-Identifier: MIT */
/* proc.c - what /proc and a URL tell of processes and files. What it cannot read it passes over: this is for people. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

char tool_process(int pid)
{
    char path[64], line[512];
    FILE *file;
    size_t got;

    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    got = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[got] = '\0';
    /* "PID (NAME) STATE …", and NAME may hold anything. */
    char *end = strrchr(line, ')');
    return end != NULL && end[1] == ' ' ? end[2] : 0;
}

/* ------------------------------------------------------------------ the file of a URL */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

int tool_file(const char *url, char *path, size_t size)
{
    size_t length = strcspn(url, "?"), at = 0;
    int n = 0;

    if (strncasecmp(url, "shm://", 6) != 0 || length == 6)
        return 0;
    if (url[6] != '/')
        n = snprintf(path, size, "/dev/shm/psbus-%lu/", (unsigned long)geteuid());
    at = (size_t)n;
    for (size_t i = 6; i < length; i++) {
        char c = url[i];
        if (c == '%' && i + 2 < length && hex(url[i + 1]) >= 0 && hex(url[i + 2]) >= 0) {
            c = (char)(hex(url[i + 1]) * 16 + hex(url[i + 2]));
            i += 2;
        }
        if (at + 1 >= size || c == '\0')
            return 0;
        path[at++] = c;
    }
    path[at] = '\0';
    return 1;
}

int tool_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char directory[512];

    if (slash == NULL || (size_t)(slash - path) >= sizeof directory)
        return -1;
    snprintf(directory, sizeof directory, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

const char *tool_removers(int dir, const char *name, char text[TOOL_TEXT])
{
    struct stat file, in;

    if (dir < 0 || fstatat(dir, name, &file, AT_SYMLINK_NOFOLLOW) < 0 || fstat(dir, &in) < 0)
        return NULL;
    int writable = faccessat(dir, ".", W_OK | X_OK, 0) == 0, sticky = (in.st_mode & S_ISVTX) != 0;
    if (writable && (!sticky || geteuid() == 0 || geteuid() == file.st_uid || geteuid() == in.st_uid))
        return NULL;
    /* Where others may write the file is its owner's, elsewhere it is the directory's owner who may. */
    uid_t owner = writable ? file.st_uid : in.st_uid;
    if (owner == 0 || owner == geteuid())
        snprintf(text, TOOL_TEXT, "only root can remove it");
    else
        snprintf(text, TOOL_TEXT, "only user %lu or root can remove it", (unsigned long)owner);
    return text;
}

/* ------------------------------------------------------------------ all processes */

static void each_process(void (*visit)(void *arg, int pid), void *arg)
{
    DIR *dir = opendir("/proc");

    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end == '\0' && pid > 0)
            visit(arg, (int)pid);
    }
    closedir(dir);
}

struct deleted {
    const char *path;
    void (*visit)(void *arg, int pid);
    void *arg;
};

static void deleted_visit(void *arg, int pid)
{
    struct deleted *deleted = arg;
    char name[64], *line = NULL;
    size_t room = 0, length = strlen(deleted->path);
    FILE *file;
    ssize_t got;
    int found = 0;

    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    file = fopen(name, "re");
    if (file == NULL)
        return;
    while (!found && (got = getline(&line, &room, file)) > 0) {
        /* "… PATH (deleted)\n" */
        static const char tail[] = " (deleted)\n";
        size_t end = (size_t)got;
        found = end > length + sizeof tail && strcmp(line + end - (sizeof tail - 1), tail) == 0 &&
                memcmp(line + end - (sizeof tail - 1) - length, deleted->path, length) == 0 &&
                line[end - sizeof tail - length] == ' ';
    }
    free(line);
    fclose(file);
    if (found)
        deleted->visit(deleted->arg, pid);
}

void tool_deleted(const char *path, void (*visit)(void *arg, int pid), void *arg)
{
    struct deleted deleted = { path, visit, arg };

    each_process(deleted_visit, &deleted);
}

/* ------------------------------------------------------------------ anonymous buses */

#define ANONYMOUS_MOST 256

struct anonymous {
    void (*visit)(void *arg, const char *url);
    void *arg;
    ino_t seen[ANONYMOUS_MOST];
    dev_t seen_on[ANONYMOUS_MOST];
    int count;
};

static void anonymous_visit(void *arg, int pid)
{
    struct anonymous *all = arg;
    char name[64], target[64], url[sizeof name + 64];
    struct stat st;
    DIR *dir;

    snprintf(name, sizeof name, "/proc/%d/fd", pid);
    dir = opendir(name);
    if (dir == NULL)
        return;
    for (struct dirent *entry; all->count < ANONYMOUS_MOST && (entry = readdir(dir)) != NULL;) {
        ssize_t got = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        int i;
        if (got <= 0)
            continue;
        target[got] = '\0';
        if (strcmp(target, "/memfd:psbus (deleted)") != 0 || fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
            continue;
        for (i = 0; i < all->count && (all->seen[i] != st.st_ino || all->seen_on[i] != st.st_dev); i++) { }
        if (i < all->count)
            continue;
        all->seen[i] = st.st_ino;
        all->seen_on[i] = st.st_dev;
        all->count++;
        snprintf(url, sizeof url, "shm://%s/%.16s", name, entry->d_name);
        all->visit(all->arg, url);
    }
    closedir(dir);
}

void tool_anonymous(void (*visit)(void *arg, const char *url), void *arg)
{
    struct anonymous *all = calloc(1, sizeof *all);

    if (all == NULL)
        return;
    all->visit = visit;
    all->arg = arg;
    each_process(anonymous_visit, all);
    free(all);
}
