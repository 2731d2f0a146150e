/* SPDX-License-Identifier: MIT */
/*
 * topic.c - names: which are legal, what their hashes are, which topics a filter lets through.
 *
 * Every publish passes ps__topic_parse(), so names are examined in vectors of 16 bytes and hashed in words of 8. Nothing is read
 * beyond a name's last byte: the last piece of a name overlaps the one before, and names under 8 bytes are put together.
 * A name means the same on every machine that shares a bus, so words are little-endian whatever the processor is.
 *
 * Filters follow MQTT 3.1.1 section 4.7. All functions are pure; any thread may call them.
 */
#include "internal.h"

#include <limits.h>
#include <string.h>

/* Odd numbers without structure; part of what members of a bus must agree on. */
#define TOPIC_K0 UINT64_C(0x9e3779b97f4a7c15)
#define TOPIC_K1 UINT64_C(0xd6e8feb86659fd93)
#define TOPIC_K2 UINT64_C(0xa0761d6478bd642f)

/* ------------------------------------------------------------------ words */

/*
 * The compiler forgets what it knows of a text. Where the library is inlined into its caller (PS_STATIC, -flto) it knows the
 * caller's literal, and warns of the words that only longer names have.
 */
#define TOPIC_FORGET(text) __asm__("" : "+r"(text))

static inline uint64_t topic_load8(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
#if defined __BYTE_ORDER__ && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint64_t topic_load4(const char *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
#if defined __BYTE_ORDER__ && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

/* The 1 to 7 bytes of a short name in one word, some of them twice. With the length it tells the names apart. */
static inline uint64_t topic_load_short(const char *text, size_t len)
{
    if (len >= 4)
        return topic_load4(text) | topic_load4(text + len - 4) << 32;
    uint64_t first = (unsigned char)text[0], middle = (unsigned char)text[len / 2], last = (unsigned char)text[len - 1];
    uint64_t three = first | middle << 8 | last << 16;
    return three | three << 24 | last << 48 | last << 56;
}

/* ------------------------------------------------------------------ hash */

/* The 128 bits of a product. */
static inline void topic_multiply(uint64_t *a, uint64_t *b)
{
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 topic_wide;
    topic_wide product = (topic_wide)*a * *b;
    *a = (uint64_t)product;
    *b = (uint64_t)(product >> 64);
#else
    uint64_t a0 = (uint32_t)*a, a1 = *a >> 32, b0 = (uint32_t)*b, b1 = *b >> 32;
    uint64_t low = a0 * b0, left = a1 * b0, right = a0 * b1, high = a1 * b1;
    uint64_t middle = (low >> 32) + (uint32_t)left + (uint32_t)right;
    *a = middle << 32 | (uint32_t)low;
    *b = high + (left >> 32) + (right >> 32) + (middle >> 32);
#endif
}

static inline uint64_t topic_fold(uint64_t a, uint64_t b)
{
    topic_multiply(&a, &b);
    return a ^ b;
}

/*
 * One multiplication for 16 bytes, both of its sides under the seed, so that nobody who does not know the seed can choose
 * names that make a side zero. The length, mixed in at the end, tells names apart whose overlapping words are equal. Inline for
 * ps__topic_parse, which every publish passes.
 */
static inline uint64_t topic_hash(const char *text, size_t len, uint64_t seed)
{
    TOPIC_FORGET(text);
    uint64_t key = topic_fold(seed ^ TOPIC_K0, TOPIC_K1);
    uint64_t state = key ^ seed, low = 0, high = 0;
    if (len >= 8) {
        size_t at = 0;
        for (; len - at > 16; at += 16)
            state = topic_fold(topic_load8(text + at) ^ state, topic_load8(text + at + 8) ^ key);
        low = len < 16 ? topic_load8(text) : topic_load8(text + len - 16);
        high = topic_load8(text + len - 8);
    } else if (len > 0) {
        low = topic_load_short(text, len);
    }
    low ^= state;
    high ^= key;
    topic_multiply(&low, &high);
    return topic_fold(low ^ TOPIC_K2 ^ len, high ^ key);
}

PS_NOINLINE uint64_t ps__hash(const char *text, size_t len, uint64_t seed)
{
    return topic_hash(text, len, seed);
}

uint64_t ps__prefix_hash(const char *text, size_t len, int depth, uint64_t seed)
{
    /* A seed of its own for each depth: "" is the prefix of no level, and also of one empty level. */
    return ps__hash(text, len, seed ^ ((uint64_t)depth + 1) * TOPIC_K2);
}

/* ------------------------------------------------------------------ which names are legal */

typedef unsigned char topic_vector __attribute__((vector_size(16)));

/* A byte of the result is 0 where a topic may have it: above 0x20, not 0x7f, neither '+' nor '#', which differ in one bit. */
static inline topic_vector topic_bad_bytes(topic_vector bytes)
{
    return (topic_vector)(bytes <= 0x20) | (topic_vector)(bytes == 0x7f) | (topic_vector)((bytes & 0xf7) == 0x23);
}

static inline int topic_any(topic_vector bytes)
{
    uint64_t half[2];
    memcpy(half, &bytes, sizeof half);
    return (half[0] | half[1]) != 0;
}

static inline topic_vector topic_load16(const char *at)
{
    topic_vector bytes;
    memcpy(&bytes, at, sizeof bytes);
    return bytes;
}

/* strnlen: a text that is far too long is not read to its end. */
static inline size_t topic_length(const char *text)
{
    return strnlen(text, PS_TOPIC_MAX + 1);
}

/* Length of a legal topic, else 0. Inline for ps__topic_parse, which every publish passes. */
static PS_ALWAYS_INLINE size_t topic_legal(const char *topic)
{
    TOPIC_FORGET(topic);
    size_t len = topic_length(topic);
    if (PS_UNLIKELY(len - 1 >= PS_TOPIC_MAX))
        return 0;
    topic_vector bad;
    if (len >= 16) {                            /* the last 16 bytes, of which the ones before may have had some already */
        bad = topic_bad_bytes(topic_load16(topic + len - 16));
        for (size_t at = 0; at + 16 < len; at += 16)
            bad |= topic_bad_bytes(topic_load16(topic + at));
    } else {
        uint64_t word[2];
        if (len >= 8) {
            memcpy(&word[0], topic, 8);
            memcpy(&word[1], topic + len - 8, 8);
        } else {
            word[0] = word[1] = topic_load_short(topic, len);
        }
        bad = topic_bad_bytes(topic_load16((const char *)word));
    }
    return PS_LIKELY(!topic_any(bad)) ? len : 0;
}

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

static PS_NOINLINE int topic_refuse(const char *topic)
{
    size_t at, len = topic_length(topic);
    const char *fault = topic_fault(topic, len, &at);
    return topic_fail("topic", topic, len, fault ? fault : "is illegal", at);
}

int ps__topic_parse(const char *topic, uint64_t seed, ps_topic *out)
{
    if (PS_UNLIKELY(!topic))
        return ps__fail(PS_EINVAL, "the topic is NULL");
    size_t len = topic_legal(topic);
    if (PS_UNLIKELY(len == 0))
        return topic_refuse(topic);
    out->text = topic;
    out->len = len;
    out->hash = topic_hash(topic, len, seed);
    return 0;
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

int ps__match(const char *filter, size_t filter_len, const char *topic, size_t topic_len)
{
    size_t f = 0, t = 0;
    /* Names that begin with '$' are the bus's own affairs: who asks for everything does not mean them. */
    if (topic_len > 0 && topic[0] == '$' && filter_len > 0 && (filter[0] == '+' || filter[0] == '#'))
        return 0;
    /* One level a turn; both indices only grow. */
    for (;;) {
        if (f < filter_len && filter[f] == '#')
            return 1;
        if (f < filter_len && filter[f] == '+') {
            f++;
            while (t < topic_len && topic[t] != '/')
                t++;
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

#undef TOPIC_FORGET
#undef TOPIC_K0
#undef TOPIC_K1
#undef TOPIC_K2
