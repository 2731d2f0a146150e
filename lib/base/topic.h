/* SPDX-License-Identifier: MIT */
/*
 * topic.h - a topic's name: is it legal, and what is its hash? A header, because every publish asks: bus.c compiles it in.
 *
 * Names are examined in vectors of 16 bytes and hashed in words of 8. Nothing is read beyond a name's last byte: the last piece
 * of a name overlaps the one before, and names under 8 bytes are put together. A name means the same on every machine that
 * shares a bus, so words are little-endian whatever the processor is.
 */
#ifndef PS_TOPIC_H
#define PS_TOPIC_H

#include "base.h"

#include <string.h>

/* Odd numbers without structure; part of what members of a bus must agree on. */
#define PS__TOPIC_K0 UINT64_C(0x9e3779b97f4a7c15)
#define PS__TOPIC_K1 UINT64_C(0xd6e8feb86659fd93)
#define PS__TOPIC_K2 UINT64_C(0xa0761d6478bd642f)

/* ------------------------------------------------------------------ words */

/*
 * The compiler forgets what it knows of a text. Where the library is inlined into its caller (PS_STATIC, -flto) it knows the
 * caller's literal, and warns of the words that only longer names have.
 */
#define PS__TOPIC_FORGET(text) __asm__("" : "+r"(text))

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

static inline uint64_t ps__topic_key(uint64_t seed) { return topic_fold(seed ^ PS__TOPIC_K0, PS__TOPIC_K1); }

/*
 * One multiplication for 16 bytes, both of its sides under the seed, so that nobody who does not know the seed can choose
 * names that make a side zero. The length, mixed in at the end, tells names apart whose overlapping words are equal. key: what
 * ps__topic_key makes of the seed.
 */
static inline uint64_t topic_hash(const char *text, size_t len, uint64_t seed, uint64_t key)
{
    PS__TOPIC_FORGET(text);
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
    return topic_fold(low ^ PS__TOPIC_K2 ^ len, high ^ key);
}

/* ------------------------------------------------------------------ which names are legal */

typedef unsigned char topic_vector __attribute__((vector_size(16)));

/* A byte of the result is 0 where a topic may have it: above 0x20, not 0x7f, neither '+' nor '#', which differ in one bit. */
static inline topic_vector topic_bad_bytes(topic_vector bytes)
{
    return (topic_vector)(bytes <= 0x20) | (topic_vector)(bytes == 0x7f) | (topic_vector)((bytes & 0xf7) == 0x23);
}

/* Is one of them not 0? All are 0 or 0xff. */
static inline int topic_any(topic_vector bytes)
{
#ifdef __SSE2__
    typedef char signs __attribute__((vector_size(16)));
    return __builtin_ia32_pmovmskb128((signs)bytes) != 0;
#endif
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

/* Length of a legal topic, else 0. */
static PS_ALWAYS_INLINE size_t topic_legal(const char *topic)
{
    PS__TOPIC_FORGET(topic);
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

/* What is wrong with it, in ps_errmsg. PS_EINVAL. */
PS_PRIVATE int ps__topic_refuse(const char *topic) PS_COLD;

/* ps__topic_parse, compiled into its caller. Seed and key are read behind the call of strnlen: fewer registers to save. */
static PS_ALWAYS_INLINE int ps__topic_read(const char *topic, const uint64_t *seed, const uint64_t *key, ps_topic *out)
{
    size_t len = PS_LIKELY(topic != NULL) ? topic_legal(topic) : 0;
    if (PS_UNLIKELY(len == 0))
        return ps__topic_refuse(topic);
    out->text = topic;
    out->len = len;
    out->hash = topic_hash(topic, len, *seed, *key);
    return 0;
}

#endif
