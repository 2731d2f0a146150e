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
 * 1: no subscription of the handle whose small filter and about.wild these are wants a topic of that hash. The reader's
 * short-cut: one look at the first bit, which tells nearly all where it matters, and costs those it lets through little. By that
 * member, behind the acquire of the message's stamp: what was published behind a subscribe brings that one's bits with it.
 */
static inline int ps__interest_lacks(const ps__a64 *bits, const ps__a64 *wild, uint64_t hash)
{
    uint32_t b = ps__interest_bit(hash, 0, PS__SMALL_BITS);
    return !(ps__load_rlx(&bits[b / 64]) >> (b % 64) & 1) && !ps__load_rlx(wild);
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
    struct ps__words *words = port->words;
    /* SYNC(interest) acquire, other end ps__interest_add: whoever sees the new epoch sees the bits. */
    return ps__load_acq(ps__interest_word(words, 0, topic->hash)) + ps__load_acq(ps__interest_word(words, 1, 0));
}

/*
 * Sets have a word for each 64 slots, but one or two say it all while no slot above the first 64 or 128 was ever taken. Asked
 * behind the epoch: who takes such a slot raises slots_high before it shows an interest, so the epoch that says so brings this
 * with it.
 */
static inline unsigned ps__set_words(const struct ps__port *port)
{
    uint64_t high = ps__load_rlx(&port->words->slots_high);
    if (PS_LIKELY(high <= 64)) return 1;
    return high <= 128 && port->set_words > 1 ? 2 : port->set_words;
}

/*
 * An entry is {tag, set words}. The tag is made of topic, epoch and each word by products with odd numbers that are random to
 * this handle and known to nobody else, so a mixture of two entries has the right one by chance only, whatever topics and sets
 * are in the game; and so do sets of another number of words.
 */
static inline ps__a64 *ps__memo_entry(const struct ps__port *port, const ps_topic *topic)
{
    return port->memo.entry + (topic->hash & (PS__MEMO_ENTRIES - 1)) * (port->set_words + 1);
}
static inline uint64_t ps__memo_key(const struct ps__port *port, const ps_topic *topic, uint64_t epoch)
{
    return topic->hash + epoch * port->memo.odd[0];
}
static inline uint64_t ps__memo_tag(const struct ps__port *port, uint64_t tag, uint64_t set)
{
    return (tag << 23 | tag >> 41) ^ set * port->memo.odd[1];
}

/* Asks every member, and remembers the answer under the key. */
PS_PRIVATE void ps__interest_ask(struct ps__port *port, const ps_topic *topic, uint64_t key, unsigned words, uint64_t *set);

/* A word of a set without those of its `dead` that are, behind the epoch. */
PS_PRIVATE uint64_t ps__interest_living(const struct ps__port *port, unsigned w, uint64_t set, uint64_t dead);

/*
 * Who wants it: the set under that epoch, from memory if it is known; 0 if empty. words: what ps__set_words said, here and below;
 * where it is a constant the loops cost nothing.
 */
static PS_ALWAYS_INLINE int ps__interest_set(struct ps__port *port, const ps_topic *topic, uint64_t epoch, unsigned words,
                                             uint64_t *set)
{
    ps__a64 *entry = ps__memo_entry(port, topic);
    uint64_t key = ps__memo_key(port, topic, epoch), tag = key, any = 0;
    for (unsigned w = 0; w < words; w++) {
        set[w] = ps__load_rlx(&entry[1 + w]);
        tag = ps__memo_tag(port, tag, set[w]);
    }
    if (PS_UNLIKELY(ps__load_rlx(&entry[0]) != tag)) ps__interest_ask(port, topic, key, words, set);
    for (unsigned w = 0; w < words; w++) {
        uint64_t dead = set[w] & ps__load_rlx(&port->dead_set[w]);
        if (PS_UNLIKELY(dead)) set[w] = ps__interest_living(port, w, set[w], dead);
        any |= set[w];
    }
    return any != 0;
}

/* How many a set has: at least one, or no words. */
static PS_ALWAYS_INLINE int ps__interest_count(const uint64_t *set, unsigned words)
{
    uint64_t count = 0;
    for (unsigned w = 0; w < words; w++) {
        if (PS_LIKELY((set[w] & (set[w] - 1)) == 0)) {
            count += words == 1 || set[w] != 0;
            continue;
        }
        /* By hand: without an instruction for it the compiler calls a function. */
        uint64_t x = set[w] - (set[w] >> 1 & 0x5555555555555555u);
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        count += ((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56;
    }
    return (int)count;
}

#endif
