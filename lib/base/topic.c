/* SPDX-License-Identifier: MIT */
/*
 * topic.c - names: what is wrong with illegal ones, filters, and which topics a filter lets through. See topic.h for the rest.
 *
 * Filters follow MQTT 3.1.1 section 4.7. All functions are pure; any thread may call them.
 */
#include "topic.h"

#include <limits.h>
#include <string.h>

/* ------------------------------------------------------------------ hash */

PS_NOINLINE uint64_t ps__hash(const char *text, size_t len, uint64_t seed)
{
    return topic_hash(text, len, seed, ps__topic_key(seed));
}

uint64_t ps__prefix_hash(const char *text, size_t len, int depth, uint64_t seed)
{
    /* A seed of its own for each depth: "" is the prefix of no level, and also of one empty level. */
    return ps__hash(text, len, seed ^ ((uint64_t)depth + 1) * PS__TOPIC_K2);
}

/* ------------------------------------------------------------------ which names are legal */

static int topic_is_control(char c)
{
    return (unsigned char)c <= 0x20 || c == 0x7f;
}

/* What is wrong with a topic, and where; NULL if nothing is. The slow, explaining twin of topic_legal(). */
PS_COLD static const char *topic_fault(const char *text, size_t len, size_t *at)
{
    *at = 0;
    if (len == 0)
        return "is empty";
    if (len > PS_TOPIC_MAX)
        return "is longer than 255 bytes";
    for (*at = 0; *at < len; (*at)++) {
        if (topic_is_control(text[*at]))
            return "has a space or control character";
        if (text[*at] == '+' || text[*at] == '#')
            return "has a wildcard in a literal name";
    }
    return NULL;
}

/* The same for a filter; *depth receives the levels before the first wildcard, or -1 if there is none. */
PS_COLD static const char *topic_filter_fault(const char *text, size_t len, size_t *at, int *depth)
{
    int levels = 0;
    *depth = -1;
    *at = 0;
    if (len == 0)
        return "is empty";
    if (len > PS_TOPIC_MAX)
        return "is longer than 255 bytes";
    for (*at = 0; *at < len; (*at)++) {
        char c = text[*at];
        if (topic_is_control(c))
            return "has a space or control character";
        if (c == '*')
            return "has a '*': wildcards are + and #";
        levels += c == '/';
        if (c != '+' && c != '#')
            continue;
        if (*at > 0 && text[*at - 1] != '/')
            return c == '+' ? "has a '+' that does not fill its level" : "has a '#' that does not fill its level";
        if (c == '#' && *at + 1 < len)
            return text[*at + 1] == '/' ? "has a '#' before its last level" : "has a '#' that does not fill its level";
        if (c == '+' && *at + 1 < len && text[*at + 1] != '/')
            return "has a '+' that does not fill its level";
        if (*depth < 0)
            *depth = levels;
    }
    return NULL;
}

/* Texts that are far too long are not quoted. */
PS_COLD static int topic_fail(const char *kind, const char *text, size_t len, const char *fault, size_t at)
{
    if (len == 0 || len > PS_TOPIC_MAX)
        return ps__fail(PS_EINVAL, "the %s %s", kind, fault);
    return ps__fail(PS_EINVAL, "the %s \"%s\" %s (byte %zu)", kind, text, fault, at + 1);
}

int ps__topic_refuse(const char *topic)
{
    if (!topic)
        return ps__fail(PS_EINVAL, "the topic is NULL");
    size_t at, len = topic_length(topic);
    const char *fault = topic_fault(topic, len, &at);
    return topic_fail("topic", topic, len, fault ? fault : "is illegal", at);
}

PS_COLD int ps__topic_parse(const char *topic, uint64_t seed, ps_topic *out)
{
    uint64_t key = ps__topic_key(seed);
    return ps__topic_read(topic, &seed, &key, out);
}

PS_COLD int ps__filter_parse(const char *filter, int exact, uint64_t seed, ps_filter *out)
{
    if (!filter)
        return ps__fail(PS_EINVAL, "the filter is NULL");
    size_t at, len = topic_length(filter);
    int depth = -1;
    const char *fault = exact ? topic_fault(filter, len, &at) : topic_filter_fault(filter, len, &at, &depth);
    if (fault)
        return topic_fail(exact ? "name" : "filter", filter, len, fault, at);
    out->text = filter;
    out->len = len;
    out->wild = depth >= 0;
    out->depth = 0;
    if (!out->wild) {
        out->hash = ps__hash(filter, len, seed);
        return 0;
    }
    out->depth = depth < PS__PREFIX_LEVELS ? depth : PS__PREFIX_LEVELS;
    out->hash = ps__prefix_hash(filter, ps__topic_prefix(filter, len, out->depth), out->depth, seed);
    return 0;
}

/* By the twin, which is smaller. */
PS_COLD size_t ps__topic_length(const char *topic)
{
    size_t at, len = topic ? topic_length(topic) : 0;
    return topic_fault(topic, len, &at) ? 0 : len;
}

PS_COLD int ps_topic_valid(const char *topic)
{
    return ps__topic_length(topic) != 0;
}

PS_COLD int ps_filter_valid(const char *filter)
{
    size_t at;
    int depth;
    return filter && !topic_filter_fault(filter, topic_length(filter), &at, &depth);
}

/* ------------------------------------------------------------------ which topics a filter lets through */

uint64_t ps__topic_prefix_hash(const ps_topic *topic, int depth, uint64_t seed)
{
    size_t len = ps__topic_prefix(topic->text, topic->len, depth);
    return len == (size_t)-1 ? 0 : ps__prefix_hash(topic->text, len, depth, seed);
}

size_t ps__topic_prefix(const char *topic, size_t len, int depth)
{
    size_t end = 0;
    for (int level = 0; level < depth; level++) {
        if (level > 0) {
            if (end == len)
                return (size_t)-1;
            end++;                              /* the '/' that ended the level before */
        }
        const char *slash = memchr(topic + end, '/', len - end);
        end = slash ? (size_t)(slash - topic) : len;
    }
    return end;
}

int ps__match_levels(const char *filter, size_t filter_len, const char *topic, size_t topic_len)
{
    size_t f = 0, t = 0;
    /* One level a turn; both indices only grow. */
    for (;;) {
        if (f < filter_len && filter[f] == '#')
            return 1;
        if (f < filter_len && filter[f] == '+') {
            const char *slash = memchr(topic + t, '/', topic_len - t);
            f++;
            t = slash ? (size_t)(slash - topic) : topic_len;
        } else {
            for (; f < filter_len && filter[f] != '/'; f++, t++)
                if (t == topic_len || topic[t] != filter[f])
                    return 0;
            if (t < topic_len && topic[t] != '/')
                return 0;
        }
        if (f == filter_len)
            return t == topic_len;
        if (t == topic_len)                     /* "a/#" lets "a" through, too */
            return filter_len - f == 2 && filter[f + 1] == '#';
        f++;
        t++;
    }
}

int ps__match(const char *filter, size_t filter_len, const char *topic, size_t topic_len)
{
    /* Names that begin with '$' are the bus's own affairs: who asks for everything does not mean them. */
    if (topic_len > 0 && topic[0] == '$' && filter_len > 0 && (filter[0] == '+' || filter[0] == '#'))
        return 0;
    return ps__match_levels(filter, filter_len, topic, topic_len);
}

PS_COLD int ps_topic_match(const char *filter, const char *topic)
{
    size_t len = ps__topic_length(topic);
    return len != 0 && ps_filter_valid(filter) && ps__match(filter, topic_length(filter), topic, len);
}

/* ------------------------------------------------------------------ foreign text */

static int topic_needs_escape(char c)
{
    return topic_is_control(c) || c == '/' || c == '+' || c == '#' || c == '*' || c == '%' || c == '$';
}

PS_COLD int ps_topic_escape(char *dst, size_t cap, const char *part, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    if (!part || (!dst && cap > 0) || len > INT_MAX)
        return PS_EINVAL;                       /* without a text: this function is async-signal-safe */
    size_t total = 0;
    for (size_t i = 0; i < len; i++)
        total += topic_needs_escape(part[i]) ? 3 : 1;
    if (total > INT_MAX)
        return PS_EINVAL;

    size_t at = 0;
    for (size_t i = 0; cap > 0 && i < len; i++) {
        unsigned char c = (unsigned char)part[i];
        size_t width = topic_needs_escape(part[i]) ? 3 : 1;
        if (width >= cap - at)                  /* a byte stays for the NUL */
            break;
        if (width == 1) {
            dst[at++] = part[i];
        } else {
            dst[at++] = '%';
            dst[at++] = digits[c >> 4];
            dst[at++] = digits[c & 15];
        }
    }
    if (cap > 0)
        dst[at] = '\0';
    return (int)total;
}
