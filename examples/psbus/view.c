/* SPDX-License-Identifier: MIT */
/* view.c - what the commands that look at a bus share: opening without taking part, members, words for people. */
#include "tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ URLs */

/* Where the URL names the option: its "option=", or NULL. */
static const char *url_option(const char *url, const char *option)
{
    size_t length = strlen(option);

    for (const char *at = strchr(url, '?'); at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, option, length) == 0 && at[1 + length] == '=')
            return at + 1;
    return NULL;
}

/* What has no scheme stays as it is: then ps_open() refuses it in the words that were typed. */
static char *url_with(const char *url, const char *option, const char *value)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-";
    size_t size = strlen(url) + strlen(option) + strlen(value) + 3, scheme = strspn(url, letters);
    char *text = malloc(size);

    if (text == NULL)
        tool_say("out of memory");
    else if (scheme == 0 || url[scheme] != ':')
        memcpy(text, url, strlen(url) + 1);
    else
        snprintf(text, size, "%s%c%s=%s", url, strchr(url, '?') == NULL ? '?' : '&', option, value);
    return text;
}

char *tool_url(const char *url, const char *option, const char *value)
{
    char *text;

    if (url_option(url, option) == NULL)
        return url_with(url, option, value);
    text = malloc(strlen(url) + 1);
    if (text == NULL)
        tool_say("out of memory");
    else
        memcpy(text, url, strlen(url) + 1);
    return text;
}

/* A URL that says observe=0 is refused by ps_open(), as it has the option twice then: to look on is no choice here. */
int tool_observe(const char *url, ps_bus **bus)
{
    const char *named = url_option(url, "observe");
    char *text;
    int rc;

    *bus = NULL;
    if (named != NULL && strncmp(named, "observe=1", 9) == 0)
        return ps_open(bus, url);
    text = url_with(url, "observe", "1");
    if (text == NULL)
        return PS_ENOMEM;
    rc = ps_open(bus, text);
    free(text);
    return rc;
}

/* ------------------------------------------------------------------ memory that is not there */

static char guard_words[512];
static void (*guard_leave)(void);

static void guard_on_signal(int number)
{
    (void)number;
    if (guard_leave != NULL)
        guard_leave();
    if (write(STDERR_FILENO, guard_words, strlen(guard_words)) < 0) { /* then nobody hears it */ }
    _exit(TOOL_ERROR);
}

void tool_guard(const char *url, void (*leave)(void))
{
    struct sigaction action;

    fflush(stdout);                     /* what was said so far is not lost with us */
    snprintf(guard_words, sizeof guard_words, "psbus %s: %.256s: %s: a part of its file is missing, and nothing can be put in "
             "its place\n", tool_command->name, url, ps_strerror(PS_ECORRUPT));
    guard_leave = leave;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = guard_on_signal;
    sigaction(SIGBUS, &action, NULL);
}

/* ------------------------------------------------------------------ members, messages */

int tool_members(ps_bus *bus, const char *topic, ps_member **list)
{
    ps_member *members = calloc(PS_MEMBERS_MAX, sizeof *members);
    int count;

    *list = members;
    if (members == NULL)
        return PS_ENOMEM;
    members[0].size = sizeof members[0];
    count = ps_members(bus, topic, members, PS_MEMBERS_MAX);
    return count < PS_MEMBERS_MAX ? count : PS_MEMBERS_MAX;
}

int tool_again(struct tool_last *last, const ps_msg *msg)
{
    int again = msg->publisher != 0 && msg->publisher == last->publisher && msg->sequence == last->sequence;

    last->publisher = msg->publisher;
    last->sequence = msg->sequence;
    return again;
}

/* ------------------------------------------------------------------ words */

const char *tool_text(char dst[TOOL_TEXT], const char *text)
{
    size_t i;

    for (i = 0; i < TOOL_TEXT - 1 && text[i] != '\0'; i++)
        dst[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    dst[i] = '\0';
    return dst;
}

const char *tool_bytes(char dst[TOOL_TEXT], uint64_t bytes)
{
    static const char unit[] = "\0kMGTPE";
    double value = (double)bytes;
    int i = 0;

    for (; value >= 1000 && i < 6; i++)
        value /= 1024;
    if (i == 0)
        snprintf(dst, TOOL_TEXT, "%llu", (unsigned long long)bytes);
    else
        snprintf(dst, TOOL_TEXT, value < 9.95 ? "%.1f%c" : "%.0f%c", value, unit[i]);
    return dst;
}

const char *tool_kind(char dst[TOOL_TEXT], const ps_member *member)
{
    int publisher = (member->flags & PS_MEMBER_PUBLISHER) != 0, reader = (member->flags & PS_MEMBER_READER) != 0;
    int lossy = reader && (member->flags & PS_MEMBER_LOSSY) != 0;

    snprintf(dst, TOOL_TEXT, "%s%s%s%s", publisher ? "publisher" : "", publisher && reader ? "," : "",
             reader ? "reader" : publisher ? "" : "-", lossy ? ",lossy" : "");
    return dst;
}

const char *tool_state(char dst[TOOL_TEXT], const ps_member *member)
{
    char process = member->flags & PS_MEMBER_DEAD ? 0 : tool_process(member->pid);
    const char *word = "awake";

    if (member->flags & PS_MEMBER_DEAD)
        word = "dead";
    else if (process == 'T')
        word = "stopped";
    else if (process == 't')
        word = "traced";
    else if (member->flags & PS_MEMBER_EVICTED)
        word = "evicted";
    else if (member->full >= 100)
        word = "full";
    else if (member->flags & PS_MEMBER_ASLEEP)
        word = "asleep";
    snprintf(dst, TOOL_TEXT, "%s", word);
    return dst;
}
