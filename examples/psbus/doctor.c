/* SPDX-License-Identifier: MIT */
/*
 * doctor.c - psbus doctor: what is wrong with a bus, and what to do about it. Looking is an observer's; --repair does what any
 * member may do (joining cleans up after the dead) and removes a file only if the kernel says that nobody holds it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DOCTOR_IDLE_MS 1000             /* a full reader that has not looked for so long is stuck, not just busy */
#define DOCTOR_PATH    512

struct doctor {
    const char *url;
    char        path[DOCTOR_PATH];      /* "": the bus has no file with a name */
    const char *name;                   /* its last part */
    unsigned    problems;
    int         dead, alive;            /* members */
    uint64_t    rings;                  /* messages that all publishers' rings hold together */
    uint64_t    depth;                  /* and each */
    int         opened;                 /* what ps_open() answered */
    int         gone, stale;            /* members whose file was deleted; sockets of nobody */
    int         own;                    /* the file lies in the directory of this user's buses */
};

/* ------------------------------------------------------------------ findings */

static void words(const char *front, const char *format, va_list arguments)
{
    printf("%s: ", front);
    vprintf(format, arguments);
    putchar('\n');
}

static void problem(struct doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct doctor *doctor, const char *format, ...)
{
    va_list arguments;

    doctor->problems++;
    va_start(arguments, format);
    words("problem", format, arguments);
    va_end(arguments);
}

static void advice(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void advice(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    words("  to do", format, arguments);
    va_end(arguments);
}

static void repaired(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void repaired(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    words("repaired", format, arguments);
    va_end(arguments);
}

/* The URL for --repair: who is not the owner has to name the file's mode. */
static const char *advised(const struct doctor *doctor, char text[DOCTOR_PATH])
{
    struct stat st;
    char mode[8];

    snprintf(text, DOCTOR_PATH, "%s", doctor->url);
    if (doctor->path[0] == '\0' || lstat(doctor->path, &st) < 0 || st.st_uid == geteuid())
        return text;
    snprintf(mode, sizeof mode, "%04o", (unsigned)(st.st_mode & 0777));
    char *url = tool_url(doctor->url, "mode", mode);
    if (url != NULL)
        snprintf(text, DOCTOR_PATH, "%s", url);
    free(url);
    return text;
}

/* ------------------------------------------------------------------ what there is to find */

struct deleted {
    char text[160];
    int  count;
};

static void deleted_found(void *arg, int pid)
{
    struct deleted *deleted = arg;
    size_t length = strlen(deleted->text);

    deleted->count++;
    snprintf(deleted->text + length, sizeof deleted->text - length, "%s%d", length > 0 ? ", " : "", pid);
}

/* Processes that hold a file of this name which no longer has it: they hear each other, and nobody else hears them. */
static void look_deleted(struct doctor *doctor)
{
    struct deleted deleted = { "", 0 };

    if (doctor->path[0] == '\0')
        return;
    tool_deleted(doctor->path, deleted_found, &deleted);
    doctor->gone = deleted.count;
    if (deleted.count == 0)
        return;
    problem(doctor, "the file %s was deleted or replaced under its members: pid %s", doctor->path, deleted.text);
    advice("start them again; find who deletes it (systemd's RemoveIPC=, a cleaner of /dev/shm)");
}

/*
 * Sockets that nobody will remove. Those of a dead member are its bus's to remove, and those of members whose file was deleted
 * cannot be told from it: then we do not ask.
 */
static void look_sockets(struct doctor *doctor)
{
    if (doctor->dead > 0 || (doctor->opened == 0 && (doctor->alive == 0 || doctor->gone > 0)))
        return;
    doctor->stale = tool_sockets(doctor->path, doctor->opened == 0, 0);
    if (doctor->stale == 0)
        return;
    problem(doctor, "%d socket %s of members long gone, %s@ID.SLOT", doctor->stale, doctor->stale == 1 ? "name" : "names",
            doctor->path);
    advice("psbus doctor --repair %s", doctor->url);
}

/* The bus cannot be opened: why. */
static void look_refused(struct doctor *doctor, int rc)
{
    const char *detail = ps_errmsg();
    struct stat st;

    problem(doctor, "%s%s%s", ps_strerror(rc), *detail ? ": " : "", detail);
    switch (rc) {
    case PS_EVERSION:
        advice("end its members and start them with one version of the library, or use another name");
        break;
    case PS_ECORRUPT:
        if (doctor->own)
            advice("end its members, if there are any, then psbus doctor --repair %s removes the file", doctor->url);
        else
            advice("end its members, if there are any, and remove the file yourself: outside of /dev/shm/psbus-UID/ doctor does "
                   "not, as it may be anybody's");
        break;
    case PS_EACCES:
        if (doctor->path[0] != '\0' && lstat(doctor->path, &st) == 0)
            advice("it belongs to user %lu, mode %04o, and you are user %lu: share a bus by its path, with mode=0660 or 0666 "
                   "in everybody's URL", (unsigned long)st.st_uid, (unsigned)(st.st_mode & 07777), (unsigned long)geteuid());
        else
            advice("look at the owner and the mode of the file and its directory, or ask as its owner");
        break;
    case PS_ENOTSUP:
        if (doctor->path[0] != '\0')
            advice("a bus lies on tmpfs, ext4 or xfs, on Linux with /proc mounted");
        else
            advice("name a bus that can be looked at: shm://NAME, shm:///PATH");
        break;
    default:
        advice("what the system says above");
    }
}

static void who(const ps_member *m, char text[2 * TOOL_TEXT])
{
    char label[TOOL_TEXT];

    snprintf(text, 2 * TOOL_TEXT, "slot %u, pid %d%s%s%s", (unsigned)m->slot, (int)m->pid, m->name[0] ? " \"" : "",
             tool_text(label, m->name), m->name[0] ? "\"" : "");
}

/* What somebody will find lost who is further behind than the rings are deep, or "". Who has left may have had a ring, too. */
static const char *to_be_lost(const struct doctor *doctor, const ps_member *m, char text[2 * TOOL_TEXT])
{
    text[0] = '\0';
    if (doctor->rings > 0 && m->lag > doctor->rings)
        snprintf(text, 2 * TOOL_TEXT, "; of %llu not read yet it will have lost all but at most the last %llu of each publisher",
                 (unsigned long long)m->lag, (unsigned long long)doctor->depth);
    return text;
}

static void look_member(struct doctor *doctor, const ps_member *m)
{
    char text[2 * TOOL_TEXT], lost[2 * TOOL_TEXT], process = tool_process(m->pid);
    int stuck = m->full >= 75 && m->idle_ms >= DOCTOR_IDLE_MS, halted = process == 'T' || process == 't';

    who(m, text);
    if (m->flags & PS_MEMBER_DEAD) {
        doctor->dead++;
        problem(doctor, "%s: dead; its place%s for the next member%s", text,
                m->flags & PS_MEMBER_PUBLISHER ? " and its last messages wait" : " waits",
                m->filter_count > 0 ? ", and its filters may count as a receiver" : "");
        return;
    }
    doctor->alive++;
    if (m->flags & PS_MEMBER_EVICTED)
        problem(doctor, "%s: was evicted for stalling and has not read for %.1f s; %llu messages lost until then%s", text,
                (double)m->idle_ms / 1000, (unsigned long long)m->lost, to_be_lost(doctor, m, lost));
    else if (stuck)
        problem(doctor, "%s: holds publishers back: the fullest ring waits for it to %llu %%, %llu messages behind, not read for "
                "%.1f s", text, (unsigned long long)m->full, (unsigned long long)m->lag, (double)m->idle_ms / 1000);
    else if (halted)
        problem(doctor, "%s: its process stands still%s", text, m->flags & PS_MEMBER_LOSSY ? to_be_lost(doctor, m, lost) : "");
    else
        return;
    if (process == 'T')
        advice("its process is stopped (SIGSTOP or Ctrl-Z): kill -CONT %d, or end it", (int)m->pid);
    else if (process == 't')
        advice("a debugger holds its process: let it go on, or end it");
    else if (process == 0)
        advice("its process is not to be seen from here (another pid namespace): look there");
    else
        advice("its program does not call ps_dispatch(): see what it does (gdb -p %d, /proc/%d/stack), or let it open the bus "
               "with lossy=1", (int)m->pid, (int)m->pid);
    if (stuck)
        advice("publishers go on without it after their evict=MS (1000 if not named; -1: they wait for ever), unless it is "
               "inside a borrowed message of theirs (PS_BORROW): then once its handler returns or it dies");
}

/* Would one more publisher find room? */
static void look_space(struct doctor *doctor, const ps_bus_stats *stats)
{
    struct statvfs fs;
    char need[TOOL_TEXT], left[TOOL_TEXT];

    if (doctor->path[0] == '\0' || stats->publisher_memory == 0)
        return;
    /* The memory of an anonymous file is bounded by no file system. */
    if (statvfs(doctor->path, &fs) < 0 || fs.f_blocks == 0)
        return;
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= stats->publisher_memory)
        return;
    problem(doctor, "too little space: a member's first publish reserves %s, the file system of %s has %s left",
            tool_bytes(need, stats->publisher_memory), doctor->path, tool_bytes(left, room));
    advice("free space there, give it more (mount -o remount,size=…, docker run --shm-size=…), or end the bus's members and "
           "make it anew with a smaller depth= and bytes=");
}

/* 0, or an error of the tool: what it found are problems. */
static int look(struct doctor *doctor)
{
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    ps_member *members = NULL;
    char text[TOOL_TEXT], url[DOCTOR_PATH];
    ps_bus *bus;
    int rc, count;

    doctor->problems = 0;
    doctor->dead = doctor->alive = doctor->gone = doctor->stale = 0;
    tool_guard(doctor->url, NULL);
    doctor->opened = rc = tool_observe(doctor->url, &bus);
    if (rc == PS_EINVAL || rc == PS_ENOMEM)
        return tool_fail(rc, "%s", doctor->url);
    if (rc < 0) {
        if (rc != PS_ENOENT)
            look_refused(doctor, rc);
        look_deleted(doctor);
        if (rc == PS_ENOENT)
            look_sockets(doctor);
        /* No bus, and nothing left of one: not ill, but not there. */
        return doctor->problems > 0 ? TOOL_OK : tool_fail(rc, "%s", doctor->url);
    }
    rc = ps_stats(bus, &stats);
    count = rc < 0 ? rc : tool_members(bus, NULL, &members);
    if (count < 0) {
        rc = tool_fail(count, "%s", doctor->url);
    } else {
        doctor->depth = stats.depth;
        doctor->rings = 0;
        for (int i = 0; i < count; i++)
            doctor->rings += members[i].published > 0 ? stats.depth : 0;
        for (int i = 0; i < count; i++)
            if (!(members[i].flags & PS_MEMBER_SELF))
                look_member(doctor, &members[i]);
        if (count == 0)
            problem(doctor, "nobody is on this bus, and its file is still there");
        int dir = tool_parent(doctor->path);
        const char *others = doctor->alive == 0 ? tool_removers(dir, doctor->name, text) : NULL;
        if (dir >= 0)
            close(dir);
        if (others != NULL)
            advice("%s: psbus doctor --repair %s", others, doctor->url);
        else if (doctor->alive == 0)
            advice("psbus doctor --repair %s removes the bus, as nobody is there, and so does who opens and closes it next",
                   advised(doctor, url));
        else if (doctor->dead > 0)
            advice("psbus doctor --repair %s, or nothing: who opens the bus next takes the first such place over",
                   advised(doctor, url));
        if (stats.members > 0 && (uint64_t)doctor->alive >= stats.members) {
            problem(doctor, "all %llu places are taken: the next ps_open() gets PS_EFULL", (unsigned long long)stats.members);
            advice("members=N is fixed by who creates the bus: end all its members and create it with more (at most %d)",
                   PS_MEMBERS_MAX);
        }
        look_space(doctor, &stats);
        look_deleted(doctor);
        look_sockets(doctor);
        rc = TOOL_OK;
    }
    free(members);
    ps_close(bus);
    return rc;
}

/* ------------------------------------------------------------------ --repair */

static int repair_dead_left(ps_bus *bus)
{
    ps_member *members;
    int count = tool_members(bus, NULL, &members), dead = 0;

    for (int i = 0; i < count; i++)
        dead += (members[i].flags & PS_MEMBER_DEAD) != 0;
    free(members);
    return dead;
}

static int repair_sockets(const struct doctor *doctor, int alive)
{
    int count = tool_sockets(doctor->path, alive, 1);

    if (count > 0)
        repaired("%d socket %s of members long gone %s removed", count, count == 1 ? "name" : "names", count == 1 ? "is" : "are");
    return count;
}

/*
 * Whoever joins takes the lowest free place and cleans up what a dead owner left there. So we join until no dead member is
 * left, and leave again; without a subscription nobody waits for us. If we were the only ones the file goes with us.
 */
static int repair_join(struct doctor *doctor)
{
    static ps_bus *handle[PS_MEMBERS_MAX];
    char *text = tool_url(doctor->url, "create", "0"), *url = text ? tool_url(text, "name", "psbus-doctor") : NULL;
    int count = 0, rc = url ? 0 : PS_ENOMEM, left = 0;

    while (rc == 0 && count < PS_MEMBERS_MAX) {
        rc = ps_open(&handle[count], url);
        if (rc == 0 && (left = repair_dead_left(handle[count++])) == 0)
            break;
    }
    int status = TOOL_OK;
    if (rc < 0 && rc != PS_ENOENT)      /* gone: somebody else was faster */
        status = tool_fail(rc, "joining %s", doctor->url);
    else if (doctor->dead > left)
        repaired("%d dead %s", doctor->dead - left, doctor->dead - left == 1 ? "member's place" : "members' places");
    while (count > 0)
        if ((rc = ps_close(handle[--count])) < 0)
            status = tool_fail(rc, "leaving %s", doctor->url);
    if (doctor->alive == 0 && doctor->path[0] != '\0' && access(doctor->path, F_OK) < 0) {
        repaired("the file %s, which nobody used, is gone", doctor->path);
        repair_sockets(doctor, 0);
    }
    free(text);
    free(url);
    return status;
}

/* Locks are how members hold a file, in every version: who gets a lock on all of it is alone, and nobody can come meanwhile. */
static int repair_remove(const struct doctor *doctor)
{
    struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    const char *others;
    char text[TOOL_TEXT];
    struct stat st, named;
    int status = TOOL_ERROR, dir = doctor->own ? tool_directory(doctor->path) : tool_parent(doctor->path);
    int fd = dir < 0 ? -1 : openat(dir, doctor->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0)
        tool_say("%s: %s", doctor->path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        tool_say("%s is no file: not removed", doctor->path);
    else if (fcntl(fd, F_OFD_SETLK, &all) < 0)
        tool_say("%s: %s: not removed", doctor->path, errno == EAGAIN || errno == EACCES ? "somebody holds it" : strerror(errno));
    else if ((others = tool_removers(dir, doctor->name, text)) != NULL)
        tool_say("%s: %s", doctor->path, others);
    else if (fstatat(dir, doctor->name, &named, AT_SYMLINK_NOFOLLOW) < 0 || named.st_ino != st.st_ino ||
             named.st_dev != st.st_dev)
        tool_say("%s changes under our hands: not removed", doctor->path);
    else {
        repair_sockets(doctor, 0);      /* while nobody can come; without the file nobody would know whose they were */
        if (unlinkat(dir, doctor->name, 0) < 0)
            tool_say("%s: %s", doctor->path, strerror(errno));
        else
            status = TOOL_OK;
    }
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    if (status == TOOL_OK)
        repaired("the file %s, which nobody used, is gone", doctor->path);
    return status;
}

/* Sets *tried if there was something that can be done from here. */
static int repair(struct doctor *doctor, int *tried)
{
    *tried = 1;
    if (doctor->opened == 0 && (doctor->dead > 0 || doctor->alive == 0))
        return repair_join(doctor);
    /* "No bus at all" may be anybody's file: only in the directory that is ours it is a bus's. */
    if (doctor->path[0] != '\0' && (doctor->opened == PS_EVERSION || (doctor->opened == PS_ECORRUPT && doctor->own)))
        return repair_remove(doctor);
    if (doctor->stale > 0 && repair_sockets(doctor, doctor->opened == 0) >= doctor->stale) {
        doctor->problems--;
        return TOOL_OK;
    }
    *tried = 0;
    return TOOL_OK;
}

/* ------------------------------------------------------------------ the command */

static int doctor_main(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' }, { "repair", no_argument, NULL, 'r' }, { NULL, 0, NULL, 0 },
    };
    struct doctor doctor = { .url = "" };
    int c, mend = 0;

    opterr = 0;
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case 'r': mend = 1; break;
        case 'h': return tool_help(&tool_doctor);
        default: return tool_bad_option(c, argv, options);
        }
    }
    if (argc - optind < 1)
        return tool_usage("a URL is needed");
    if (argc - optind > 1)
        return tool_usage("'%s' is one argument too many", argv[optind + 1]);
    doctor.url = argv[optind];
    if (!tool_file(doctor.url, doctor.path, sizeof doctor.path))
        doctor.path[0] = '\0';
    const char *slash = strrchr(doctor.path, '/');
    doctor.name = slash != NULL ? slash + 1 : "";
    int own = tool_directory(doctor.path);
    if ((doctor.own = own >= 0))
        close(own);

    int status = look(&doctor);
    if (status == TOOL_OK && mend && doctor.problems > 0) {
        int tried;
        status = repair(&doctor, &tried);
        if (status == TOOL_OK && !tried)
            puts("nothing of this can be repaired from here");
        else if (status == TOOL_OK && doctor.opened == PS_ENOENT) { }   /* there is nothing more to look at */
        else if (status == TOOL_OK && doctor.alive == 0 && doctor.path[0] != '\0' && access(doctor.path, F_OK) < 0)
            doctor.problems = 0;        /* nobody was on it, and it is gone */
        else if (status == TOOL_OK)
            status = look(&doctor);
    }
    if (status == TOOL_OK && doctor.problems == 0)
        printf("%s: nothing is wrong\n", doctor.url);
    else if (status == TOOL_OK)
        printf("%s: %u %s\n", doctor.url, doctor.problems, doctor.problems == 1 ? "problem" : "problems");
    return tool_output(status == TOOL_OK && doctor.problems > 0 ? TOOL_ERROR : status);
}

const struct tool_command tool_doctor = {
    "doctor", "[--repair] URL", "what is wrong with a bus, and what to do",
    "  --repair           clean up after dead members; remove the file of a bus that nobody is on, also one that is damaged\n"
    "                     or of another version, and sockets that such a bus left. Nothing that somebody uses is touched\n"
    "  --help             this text\n"
    "\n"
    "It finds: dead members; the reader that holds publishers back, with its pid and what its process does; evicted and\n"
    "stopped members; a file of another version, of another user, damaged, or deleted under its members; too little space\n"
    "for one more publisher; no place for one more member; a bus left behind.\n"
    "Exit status: 0 nothing is wrong (any more), 1 there is something, 2 a mistake in the call.\n",
    doctor_main,
};
