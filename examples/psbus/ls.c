/* SPDX-License-Identifier: MIT */
/* ls.c - psbus ls: the buses there are, or the members of one. It looks on and takes part in nothing. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LS_ROOT "/dev/shm"

/* What a child that looked at a bus ends with, besides TOOL_OK and TOOL_ERROR. */
enum { LS_GONE = 10, LS_DAMAGED = 11 };

struct ls {
    int shown;                          /* rows */
    int status;                         /* TOOL_ERROR: there is no more output, and it was said why */
};

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

static void ls_heading(int shown)
{
    if (shown == 0)
        printf("%-40s %8s %10s %7s %8s  %s\n", "URL", "MEMBERS", "PUBLISHERS", "READERS", "MEMORY", "STATE");
}

static void ls_unseen(const char *url, const char *state)
{
    printf("%-40s %8s %10s %7s %8s  %s\n", url, "-", "-", "-", "-", state);
}

/* Looks at a bus, then prints its row. */
static int ls_row(const char *url, int shown)
{
    int count, alive = 0, publishers = 0, readers = 0, rc;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member *members = NULL;
    char memory[TOOL_TEXT], state[TOOL_TEXT], places[TOOL_TEXT];
    ps_bus *bus;

    if ((rc = tool_observe(url, &bus)) == PS_ENOENT)
        return LS_GONE;                                 /* meanwhile */
    if (rc < 0) {
        ls_heading(shown);
        ls_unseen(url, ls_trouble(rc));
        return tool_output(TOOL_OK);
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
    ps_close(bus);
    ls_heading(shown);
    printf("%-40s %8s %10d %7d %8s  %s\n", url, places, publishers, readers, tool_bytes(memory, stats.memory), state);
    free(members);
    return tool_output(TOOL_OK);
}

static void ls_on_signal(int number)
{
    (void)number;
    _exit(LS_DAMAGED);
}

/* In a child: what somebody has done to the file of his bus must not end us (tool_guard). */
static void ls_bus(void *arg, const char *url)
{
    struct ls *ls = arg;
    int status = 0;
    pid_t pid;

    if (ls->status != TOOL_OK)
        return;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        signal(SIGBUS, ls_on_signal);
        _exit(ls_row(url, ls->shown));
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) { }
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == LS_GONE)
        return;
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == TOOL_ERROR) {
        ls->status = TOOL_ERROR;
    } else if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != TOOL_OK) {
        ls_heading(ls->shown);
        ls_unseen(url, pid < 0 ? strerror(errno) : ls_trouble(PS_ECORRUPT));
    }
    ls->shown++;
}

static int ls_is_name(const char *name)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return name[0] != '.' && name[length] == '\0' && length > 0 && length <= PS_NAME_MAX;
}

/* The buses of a directory: its regular files. Beside each lie the sockets of its members. */
static int ls_directory(const char *directory, int own, struct ls *ls)
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
            ls_bus(ls, url);
        }
        free(list[i]);
    }
    free(list);
    return TOOL_OK;
}

static int ls_all(void)
{
    char own[64], directory[sizeof LS_ROOT + 64];
    struct ls ls = { 0, TOOL_OK };
    int status;

    snprintf(own, sizeof own, LS_ROOT "/psbus-%lu", (unsigned long)geteuid());
    status = ls_directory(own, 1, &ls);
    if (geteuid() == 0) {
        struct dirent **list;
        int count = scandir(LS_ROOT, &list, NULL, alphasort);
        for (int i = 0; i < count; i++) {
            const char *name = list[i]->d_name;
            int digits = strncmp(name, "psbus-", 6) == 0 ? (int)strspn(name + 6, "0123456789") : 0;
            snprintf(directory, sizeof directory, LS_ROOT "/%.32s", name);
            if (digits > 0 && digits <= 10 && name[6 + digits] == '\0' && strcmp(directory, own) != 0 &&
                ls_directory(directory, 0, &ls) != TOOL_OK)
                status = TOOL_ERROR;
            free(list[i]);
        }
        if (count >= 0)
            free(list);
    }
    tool_anonymous(ls_bus, &ls);
    if (ls.status != TOOL_OK)
        return ls.status;
    if (ls.shown == 0 && status == TOOL_OK)
        tool_say(geteuid() == 0 ? "nobody has a bus" : "this user has no bus");
    return tool_output(status);
}

/* ------------------------------------------------------------------ the members of one */

static int ls_members(const char *url)
{
    char kind[TOOL_TEXT], state[TOOL_TEXT], memory[TOOL_TEXT], label[TOOL_TEXT];
    ps_member *members;
    ps_bus *bus;
    int rc, count;

    tool_guard(url, NULL);
    if ((rc = tool_observe(url, &bus)) < 0)
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
