/* SPDX-License-Identifier: MIT */
/*
 * sockets.c - the sockets that members of a bus leave beside its file: NAME@ID.SLOT, removed by whoever leaves last, and by
 * nobody once the file was deleted or is damaged.
 *
 * Only in the directory that is ours, only what is a socket of that name, and only if nobody answers there. Should a member
 * come to its place at that moment, no harm is done: it finds the name gone before it sleeps, and makes it again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKETS_ID   8                  /* hexadecimal digits */
#define SOCKETS_MOST 4096

struct found {
    char name[256];
    char id[SOCKETS_ID + 1];
    int  answers;
};

/* "NAME@ID.SLOT"? */
static int sockets_match(const char *entry, const char *name, char id[SOCKETS_ID + 1])
{
    size_t length = strlen(name);
    const char *slot = entry + length + 1 + SOCKETS_ID;

    if (strncmp(entry, name, length) != 0 || entry[length] != '@' ||
        strspn(entry + length + 1, "0123456789abcdef") != SOCKETS_ID)
        return 0;
    memcpy(id, entry + length + 1, SOCKETS_ID);
    id[SOCKETS_ID] = '\0';
    return slot[0] == '.' && slot[1] != '\0' && slot[1 + strspn(slot + 1, "0123456789")] == '\0';
}

/* 0 only if it is certain that nobody has this socket. */
static int sockets_answers(int dir, const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), refused, n;

    if (fd < 0)
        return 1;
    n = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dir, name);
    refused = n > 0 && (size_t)n < sizeof address.sun_path &&
              connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return !refused;
}

int tool_directory(const char *path)
{
    char own[64];
    struct stat st;
    int n = snprintf(own, sizeof own, "/dev/shm/psbus-%lu/", (unsigned long)geteuid()), fd;

    if (strncmp(path, own, (size_t)n) != 0 || path[n] == '\0' || strchr(path + n, '/') != NULL)
        return -1;
    own[n - 1] = '\0';
    fd = open(own, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid())) {
        close(fd);
        return -1;
    }
    return fd;
}

/* All sockets of the name; their number. */
static size_t sockets_list(DIR *dir, const char *name, struct found *list)
{
    struct stat st;
    size_t count = 0;

    for (struct dirent *entry; count < SOCKETS_MOST && (entry = readdir(dir)) != NULL;) {
        struct found *found = &list[count];
        if (!sockets_match(entry->d_name, name, found->id) ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode))
            continue;
        snprintf(found->name, sizeof found->name, "%s", entry->d_name);
        found->answers = sockets_answers(dirfd(dir), entry->d_name);
        count++;
    }
    return count;
}

int tool_sockets(const char *path, int alive, int remove)
{
    int fd = tool_directory(path), stale = 0;
    struct found *list = fd < 0 ? NULL : malloc(SOCKETS_MOST * sizeof *list);
    DIR *dir = list == NULL ? NULL : fdopendir(fd);
    size_t count, answer = 0;

    if (dir == NULL) {
        free(list);
        if (fd >= 0)
            close(fd);
        return 0;
    }
    count = sockets_list(dir, strrchr(path, '/') + 1, list);
    for (size_t i = 0; i < count; i++)
        answer += list[i].answers != 0;
    for (size_t i = 0; i < count && (!alive || answer > 0); i++) {
        int used = list[i].answers;
        for (size_t k = 0; alive && k < count && !used; k++)
            used = list[k].answers && strcmp(list[k].id, list[i].id) == 0;
        if (!used && (!remove || unlinkat(dirfd(dir), list[i].name, 0) == 0))
            stale++;
    }
    closedir(dir);
    free(list);
    return stale;
}
