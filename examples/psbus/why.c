/* SPDX-License-Identifier: MIT */
/* why.c - psbus why: who would receive a publish of this topic, who would not, and why. Sends nothing. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHY_TEXT 512

static void why_add(char text[WHY_TEXT], const char *more)
{
    size_t length = strlen(text);

    snprintf(text + length, WHY_TEXT - length, "%s%s", length > 0 ? "; " : "", more);
}

/* "yes", "late", "no" or "dead"; the reason in text. */
static const char *why_member(const ps_member *m, char text[WHY_TEXT])
{
    char process = tool_process(m->pid), line[128];
    int several = m->filter_count > 1;

    text[0] = '\0';
    if (m->flags & PS_MEMBER_DEAD) {
        why_add(text, "its process is gone");
        if (m->wants)
            why_add(text, "counts as a receiver until a publisher finds that out");
        return "dead";
    }
    if (!(m->flags & PS_MEMBER_READER) || m->filter_count == 0) {
        why_add(text, m->flags & PS_MEMBER_PUBLISHER ? "it only publishes" : "it has no subscription");
        return "no";
    }
    if (!m->wants) {
        snprintf(line, sizeof line, several ? "none of its %llu filters matches" : "its filter does not match",
                 (unsigned long long)m->filter_count);
        why_add(text, line);
        return "no";
    }
    snprintf(line, sizeof line, several ? "one of its %llu filters matches" : "its filter matches",
             (unsigned long long)m->filter_count);
    why_add(text, line);
    if (m->flags & PS_MEMBER_NO_ECHO)
        why_add(text, "what it publishes itself does not reach it (echo=0)");
    if (m->flags & PS_MEMBER_LOSSY)
        why_add(text, "lossy: misses it if it falls a ring behind");
    if (process == 'T' || process == 't')
        why_add(text, process == 'T' ? "its process is stopped" : "a debugger holds its process");
    if (m->flags & PS_MEMBER_EVICTED) {
        why_add(text, "evicted for stalling: misses it unless it reads in time, and is told how many it lost");
        return "late";
    }
    if (m->full >= 100) {
        why_add(text, "a publisher's ring is full of what it has not read: that publisher gets PS_EAGAIN until it reads or is "
                      "evicted");
        return "late";
    }
    if (process == 'T' || process == 't')
        return "late";
    /* Asleep it may lie behind messages that it does not want. */
    if (m->flags & PS_MEMBER_ASLEEP) {
        why_add(text, "asleep: will be woken");
    } else if (m->lag > 0) {
        snprintf(line, sizeof line, "behind %llu that it has not read yet", (unsigned long long)m->lag);
        why_add(text, line);
    }
    return "yes";
}

static int why_look(const char *url, const char *topic)
{
    char text[WHY_TEXT], label[TOOL_TEXT];
    ps_member *members = NULL;
    ps_bus *bus;
    int rc, count, wanted;

    tool_guard(url, NULL);
    if ((rc = tool_observe(url, &bus)) < 0)
        return tool_fail(rc, "%s", url);
    /* This handle is none of those that it asks about. */
    count = tool_members(bus, topic, &members);
    wanted = count < 0 ? count : ps_wanted(bus, topic);
    if (wanted < 0) {
        rc = wanted == PS_EINVAL ? tool_fail(wanted, "topic '%s'", topic) : tool_fail(wanted, "%s", url);
    } else {
        if (count > 0)
            printf("%-4s %8s %-20s %s\n", "GETS", "PID", "LABEL", "WHY");
        for (int i = 0; i < count; i++)
            if (!(members[i].flags & PS_MEMBER_SELF)) {
                const char *gets = why_member(&members[i], text);
                printf("%-4s %8d %-20s %s\n", gets, (int)members[i].pid,
                       members[i].name[0] != '\0' ? tool_text(label, members[i].name) : "-", text);
            }
        if (wanted == 0)
            puts("a publisher would get 0: nobody wants it, nothing is written");
        else
            printf("a publisher whose ring has room would get %d\n", wanted);
        rc = tool_output(TOOL_OK);
    }
    free(members);
    ps_close(bus);
    return rc;
}

static int why_main(int argc, char **argv)
{
    static const struct option options[] = { { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
    int c;

    opterr = 0;
    if ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1)
        return c == 'h' ? tool_help(&tool_why) : tool_bad_option(c, argv, options);
    if (argc - optind < 2)
        return tool_usage("a URL and a topic are needed");
    if (argc - optind > 2)
        return tool_usage("'%s' is one argument too many", argv[optind + 2]);
    return why_look(argv[optind], argv[optind + 1]);
}

const struct tool_command tool_why = {
    "why", "URL TOPIC", "who would receive a publish of this topic, who would not, and why",
    "  --help             this text\n"
    "\n"
    "Nothing is sent. GETS is yes; late, if at all: WHY says what it waits for; no; dead.\n"
    "What a member wants is shown to others as a hash: 'no' is certain, 'yes' is wrong for less than one topic in a hundred.\n",
    why_main,
};
