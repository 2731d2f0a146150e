/* SPDX-License-Identifier: MIT */
/*
 * base.h - what every part of the library stands on: results in words, topics and filters, URLs.
 */
#ifndef PS_BASE_H
#define PS_BASE_H

#include "../platform/platform.h"
#include "../../include/psbus.h"

/* ------------------------------------------------------------------ error.c */

/* Keeps a text for ps_errmsg() of this thread and returns code. errno is untouched. */
PS_PRIVATE int ps__fail(int code, const char *format, ...) PS_PRINTF(2, 3) PS_COLD;
/* The same for a failed system call: "what: strerror(error)"; code is chosen from error (ENOMEM, ENOSPC, EACCES, …). */
PS_PRIVATE int ps__fail_sys(int error, const char *format, ...) PS_PRINTF(2, 3) PS_COLD;

/* ------------------------------------------------------------------ topic.c */

#define PS__PREFIX_LEVELS 8             /* levels of a wildcard filter's literal prefix that are hashed */

/* 64-bit hash of a name under a seed. Not for untrusted tables without the seed being secret. */
PS_PRIVATE uint64_t ps__hash(const char *text, size_t len, uint64_t seed);
/* Length of a legal topic, 0 for an illegal one (also NULL). Says nothing to ps_errmsg. */
PS_PRIVATE size_t ps__topic_length(const char *topic);
/* Fills in *out, or PS_EINVAL with the detail in ps_errmsg: which rule, which byte. */
PS_PRIVATE int ps__topic_parse(const char *topic, uint64_t seed, ps_topic *out);
PS_PRIVATE int ps__filter_parse(const char *filter, int exact, uint64_t seed, ps_filter *out);
/* Bytes of the first depth levels of a topic ("a/b/c": 0 "", 1 "a", 2 "a/b"); (size_t)-1 if it has fewer levels. */
PS_PRIVATE size_t ps__topic_prefix(const char *topic, size_t len, int depth);
/* Hash of a literal prefix of depth levels: the key of wildcard filters. Differs from ps__hash of the same text. */
PS_PRIVATE uint64_t ps__prefix_hash(const char *text, size_t len, int depth, uint64_t seed);
/* The same of a topic's first levels; 0 if it has fewer. */
PS_PRIVATE uint64_t ps__topic_prefix_hash(const ps_topic *topic, int depth, uint64_t seed);
/* Both legal: does the wildcard filter let the topic through? Linear, no recursion. */
PS_PRIVATE int ps__match(const char *filter, size_t filter_len, const char *topic, size_t topic_len);
/* The same for what lies behind equal levels of both. */
PS_PRIVATE int ps__match_levels(const char *filter, size_t filter_len, const char *topic, size_t topic_len);

/* ------------------------------------------------------------------ url.c */

#define PS__URL_MAX 4096

/* An option of a transport's own (ps_transport.options), as written in the URL. */
struct ps__extra {
    const char *key, *value;
};

struct ps__url {
    ps_url   url;                       /* what a transport sees; points into text */
    struct ps__extra extra[16];
    int      extra_count;
    char     text[PS__URL_MAX];         /* the pieces, decoded, each NUL-terminated */
    char     whole[PS__URL_MAX];
};

/* Only the scheme, lower case, into scheme[32]; PS_EINVAL with detail. */
PS_PRIVATE int ps__url_scheme(const char *text, char scheme[32]);
/* The whole. extra_options: further option names divided by spaces, or NULL. PS_EINVAL with detail for every mistake. */
PS_PRIVATE int ps__url_parse(const char *text, const char *extra_options, struct ps__url *out);
/* [A-Za-z0-9._-]{1,64} without a leading dot; PS_EINVAL with detail otherwise (also NULL). */
PS_PRIVATE int ps__name_check(const char *name);

/* ------------------------------------------------------------------ the backends */

/* Each by its own part of the library; lib/core/transport.c lists them. */
PS_PRIVATE_OBJECT const ps_transport ps__inproc_transport;
PS_PRIVATE_OBJECT const ps_transport ps__shm_transport;
PS_PRIVATE_OBJECT const ps_transport ps__remote_transport;

#endif
