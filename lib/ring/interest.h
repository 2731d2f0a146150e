/* SPDX-License-Identifier: MIT */
/*
 * interest.h - which handles want a topic: what subscribers show of it, and what a publisher remembers. See interest.c for how.
 * What every publish does stands here, so that it is compiled into it.
 */
#ifndef PS_INTEREST_H
#define PS_INTEREST_H

#include "ring.h"

/* ------------------------------------------------------------------ what a handle shows */

/* What can fail comes first; then a filter more, or one less. */
PS_PRIVATE int ps__interest_prepare(struct ps__port *port);
PS_PRIVATE void ps__interest_add(struct ps__port *port, const ps_filter *filter);
PS_PRIVATE void ps__interest_remove(struct ps__port *port, const ps_filter *filter);
PS_PRIVATE void ps__interest_clear(struct ps__words *words, struct ps__about *about, ps__a64 *bits);
PS_PRIVATE void ps__interest_forget(struct ps__port *port);
/* Does the member in that slot want it? "Yes" may be wrong, "no" never. */
PS_PRIVATE int ps__interest_of(struct ps__port *port, unsigned slot, const ps_topic *topic);

/* The i-th bit of a hash in a filter of so many bits. */
static inline uint32_t ps__interest_bit(uint64_t hash, unsigned i, uint32_t bits)
{
    return ((uint32_t)hash + i * ((uint32_t)(hash >> 32) | 1u)) & (bits - 1);
}

/*
 * 1: no subscription of this handle wants a topic of that hash. The reader's short-cut: it looks at the first bit only, which
 * tells nearly all where it matters, and costs those it lets through little. By a member, behind the acquire of the message's
 * stamp: what was published behind a subscribe brings that one's bits with it.
 */
static inline int ps__interest_lacks(const struct ps__port *port, uint64_t hash)
{
    uint32_t b = ps__interest_bit(hash, 0, PS__SMALL_BITS);
    return !(ps__load_rlx(&port->bits[port->slot][b / 64]) >> (b % 64) & 1) && !ps__load_rlx(&port->about[port->slot]->wild);
}

/* ------------------------------------------------------------------ what a publisher remembers */

#define PS__MEMO_ENTRIES 131072u        /* virtual; a page is real once a topic falls into it */

PS_PRIVATE int ps__memo_open(struct ps__port *port);
PS_PRIVATE void ps__memo_close(struct ps__port *port);

/* The word by which publishers notice that the answer may have changed. */
static inline ps__a64 *ps__interest_word(struct ps__words *words, int common, uint64_t hash)
{
    return &words->epoch[common ? PS__EPOCHS : hash >> 56];
}

static inline uint64_t ps__interest_epoch(struct ps__port *port, const ps_topic *topic)
{
    /* SYNC(interest) acquire, other end ps__interest_add: whoever sees the new epoch sees the bits. */
    return ps__load_acq(ps__interest_word(port->words, 0, topic->hash)) + ps__load_acq(ps__interest_word(port->words, 1, 0));
}

/* A bijection of 64 bits: small numbers and sets with few bits must not cancel each other out. */
static inline uint64_t ps__memo_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ x >> 29;
}

/* {set words, tag}. words: port->set_words, here and below, because a loop whose length is a constant costs nothing. */
static inline ps__a64 *ps__memo_entry(const struct ps__port *port, const ps_topic *topic, unsigned words)
{
    return port->memo + (topic->hash & (PS__MEMO_ENTRIES - 1)) * (words + 1);
}

/* Asks every member, and remembers the answer under the key. */
PS_PRIVATE void ps__interest_ask(struct ps__port *port, const ps_topic *topic, uint64_t key, uint64_t *set);

/* Who wants it: the set under that epoch, from memory if it is known; 0 if empty. */
static inline int ps__interest_set(struct ps__port *port, const ps_topic *topic, uint64_t epoch, unsigned words, uint64_t *set)
{
    ps__a64 *entry = ps__memo_entry(port, topic, words);
    uint64_t key = ps__memo_mix(topic->hash ^ port->memo_seed) + epoch, tag = ps__memo_mix(key), any = 0;
    for (unsigned w = 0; w < words; w++) {
        set[w] = ps__load_rlx(&entry[w]);
        tag = ps__memo_mix(tag ^ set[w]);
    }
    if (PS_UNLIKELY(ps__load_rlx(&entry[words]) != tag)) ps__interest_ask(port, topic, key, set);
    for (unsigned w = 0; w < words; w++) {
        set[w] &= ~ps__load_rlx(&port->dead_set[w]);
        any |= set[w];
    }
    return any != 0;
}

static inline int ps__interest_count(const uint64_t *set, unsigned words)
{
    uint64_t count = 0;
    for (unsigned w = 0; w < words; w++) {      /* by hand: without an instruction for it the compiler calls a function */
        uint64_t x = set[w] - (set[w] >> 1 & 0x5555555555555555u);
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        count += ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
    }
    return (int)count;
}

#endif
