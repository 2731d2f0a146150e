/* SPDX-License-Identifier: MIT */
/* ls.c - psbus ls: the buses there are, or the members of one. It looks on and takes part in nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LS_ROOT "/dev/shm"

/* ------------------------------------------------------------------ all buses */

/* What stands in STATE for a bus that cannot be opened. */
static const char *ls_trouble(int rc)
{
    switch (rc) {
    case PS_EVERSION: return "other version";
    case PS_ECORRUPT: return "damaged";
    case PS_EACCES:   return "no permission";
    default:          return ps_strerror(rc);
    }
}

static void ls_bus(void *arg, const char *url)
{
    int *shown = arg, count, alive = 0, publishers = 0, readers = 0, rc;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member *members = NULL;
    char memory[TOOL_TEXT], state[TOOL_TEXT], places[TOOL_TEXT];
    ps_bus *bus;

    if ((rc = tool_observe(url, &bus)) == PS_ENOENT)
        return;                                         /* gone meanwhile */
    if ((*shown)++ == 0)
        printf("%-40s %8s %10s %7s %8s  %s\n", "URL", "MEMBERS", "PUBLISHERS", "READERS", "MEMORY", "STATE");
    if (rc < 0) {
        printf("%-40s %8s %10s %7s %8s  %s\n", url, "-", "-", "-", "-", ls_trouble(rc));
        return;
    }
    rc = ps_stats(bus, &stats);
    count = rc < 0 ? rc : tool_members(bus, NULL, &members);
    for (int i = 0; i < count; i++) {
        int lives = (members[i].flags & PS_MEMBER_DEAD) == 0;
        alive += lives;
        publishers += lives && members[i].flags & PS_MEMBER_PUBLISHER;
        readers += lives && members[i].flags & PS_MEMBER_READER;
    }
    if (count < 0)
        snprintf(state, sizeof state, "%s", ps_strerror(count));
    else if (count == 0 || alive == 0)
        snprintf(state, sizeof state, "left behind");
    else if (alive < count)
        snprintf(state, sizeof state, "%d dead", count - alive);
    else
        snprintf(state, sizeof state, "ok");
    snprintf(places, sizeof places, "%d/%llu", alive, (unsigned long long)stats.members);
    printf("%-40s %8s %10d %7d %8s  %s\n", url, places, publishers, readers, tool_bytes(memory, stats.memory), state);
    free(members);
    ps_close(bus);
}

static int ls_is_name(const char *name)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return name[0] != '.' && name[length] == '\0' && length > 0 && length <= PS_NAME_MAX;
}

/* The buses of a directory: its regular files. Beside each lie the sockets of its members. */
static int ls_directory(const char *directory, int own, int *shown)
{
    struct dirent **list;
    char url[512];
    int count = scandir(directory, &list, NULL, alphasort);

    if (count < 0 && errno == ENOENT)
        return TOOL_OK;
    if (count < 0) {
        tool_say("%s: %s", directory, strerror(errno));
        return TOOL_ERROR;
    }
    for (int i = 0; i < count; i++) {
        struct stat st;
        snprintf(url, sizeof url, "%s/%.255s", directory, list[i]->d_name);
        if (ls_is_name(list[i]->d_name) && lstat(url, &st) == 0 && S_ISREG(st.st_mode)) {
            if (own)
                snprintf(url, sizeof url, "shm://%.64s", list[i]->d_name);
            else
                snprintf(url, sizeof url, "shm://%s/%.64s", directory, list[i]->d_name);
            ls_bus(shown, url);
        }
        free(list[i]);
    }
    free(list);
    return TOOL_OK;
}

static int ls_all(void)
{
    char own[64], directory[sizeof LS_ROOT + 64];
    int shown = 0, status;

    snprintf(own, sizeof own, LS_ROOT "/psbus-%lu", (unsigned long)geteuid());
    status = ls_directory(own, 1, &shown);
    if (geteuid() == 0) {
        struct dirent **list;
        int count = scandir(LS_ROOT, &list, NULL, alphasort);
        for (int i = 0; i < count; i++) {
            const char *name = list[i]->d_name;
            int digits = strncmp(name, "psbus-", 6) == 0 ? (int)strspn(name + 6, "0123456789") : 0;
            snprintf(directory, sizeof directory, LS_ROOT "/%.32s", name);
            if (digits > 0 && digits <= 10 && name[6 + digits] == '\0' && strcmp(directory, own) != 0 &&
                ls_directory(directory, 0, &shown) != TOOL_OK)
                status = TOOL_ERROR;
            free(list[i]);
        }
        if (count >= 0)
            free(list);
    }
    tool_anonymous(ls_bus, &shown);
    if (shown == 0 && status == TOOL_OK)
        tool_say(geteuid() == 0 ? "nobody has a bus" : "this user has no bus");
    return tool_output(status);
}

/* ------------------------------------------------------------------ the members of one */

static int ls_members(const char *url)
{
    char kind[TOOL_TEXT], state[TOOL_TEXT], memory[TOOL_TEXT], label[TOOL_TEXT];
    ps_member *members;
    ps_bus *bus;
    int rc = tool_observe(url, &bus), count;

    if (rc < 0)
        return tool_fail(rc, "%s", url);
    count = tool_members(bus, NULL, &members);
    if (count < 0) {
        rc = tool_fail(count, "%s", url);
    } else {
        printf("%4s %8s %-8s %-22s %7s %9s %9s %7s %7s  %s\n", "SLOT", "PID", "STATE", "KIND", "FILTERS", "LAG", "LOST",
               "EVICTED", "MEMORY", "LABEL");
        for (int i = 0; i < count; i++) {
            const ps_member *m = &members[i];
            printf("%4u %8d %-8s %-22s %7llu %9llu %9llu %7llu %7s  %s\n", (unsigned)m->slot, (int)m->pid,
                   tool_state(state, m), tool_kind(kind, m), (unsigned long long)m->filter_count, (unsigned long long)m->lag,
                   (unsigned long long)m->lost, (unsigned long long)m->evicted, tool_bytes(memory, m->memory),
                   m->name[0] != '\0' ? tool_text(label, m->name) : "-");
        }
        rc = tool_output(TOOL_OK);
    }
    free(members);
    ps_close(bus);
    return rc;
}

static int ls_main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    int c;

    opterr = 0;
    if ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1)
        return c == 'h' ? tool_help(&tool_ls) : tool_bad_option(c, argv, options);
    if (argc - optind > 1)
        return tool_usage("'%s' is one argument too many", argv[optind + 1]);
    return argc == optind ? ls_all() : ls_members(argv[optind]);
}

const struct tool_command tool_ls = {
    "ls", "[URL]", "all buses of this user, or the members of one",
    "  --help             this text\n"
    "\n"
    "Without a URL: the buses in " LS_ROOT "/psbus-UID/ (root: of all users) and the anonymous ones of this user's processes.\n"
    "A bus at a path of your own is not found by itself: name it. STATE is ok, N dead (places that the next members take\n"
    "over), left behind (nobody lives), other version, damaged, no permission; `psbus doctor URL` says what to do.\n"
    "With a URL: a line for each member. STATE is dead, stopped or traced (its process), evicted, full (publishers wait for\n"
    "it), asleep or awake. LAG: messages not read yet. LOST, EVICTED: messages it missed, times it was evicted.\n",
    ls_main,
};
