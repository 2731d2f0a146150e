/* SPDX-License-Identifier: MIT */
/*
 * interest.c - which handles want a topic. PROTOCOL 4.
 *
 * Each handle shows its filters in a Bloom filter of its own: an exact name by its hash, a wildcard filter by the hash of its
 * literal prefix, with one bit per prefix depth in use. Six bits a name in 4 KiB, and in 128 KiB from some 3000 names on: below
 * 1 % wrong answers up to 100 000 names. Wrong answers are "yes" only; the reader drops what it did not want. Counters by bit,
 * private to the handle, let names go again.
 *
 * A publisher remembers the set per topic, in entries {tag, set} that several threads read and write without a lock: the tag
 * mixes topic, epoch and set, so a torn entry is a miss (m4.7). The epoch is the sum of the topic's word and the common one;
 * both only rise, so the sum never repeats.
 *
 * SYNC(interest) subscriber: bits, then the epoch, release (m4.2, m4.4, m4.5). Publisher: the epoch, acquire, then the bits
 * (m4.1, m4.3). A publish that happens after ps_subscribe() returned sees the new epoch and thereby the bits.
 */
#include "interest.h"

#define INTEREST_BITS    6u             /* per name */
#define INTEREST_UPGRADE 3000u          /* names from which the small filter would say "yes" too often */

PS_COLD static void interest_put(uint16_t *count, ps__a64 *bits, uint32_t size, uint64_t hash)
{
    for (unsigned i = 0; i < INTEREST_BITS; i++) {
        uint32_t b = ps__interest_bit(hash, i, size);
        if (count[b] != UINT16_MAX) count[b]++;         /* a counter that is full stays: a wrong "yes" at worst */
        ps__store_rlx(&bits[b / 64], ps__load_rlx(&bits[b / 64]) | (uint64_t)1 << (b % 64));
    }
}

PS_COLD static void interest_take(uint16_t *count, ps__a64 *bits, uint32_t size, uint64_t hash)
{
    for (unsigned i = 0; i < INTEREST_BITS; i++) {
        uint32_t b = ps__interest_bit(hash, i, size);
        if (count[b] == UINT16_MAX || --count[b]) continue;
        ps__store_rlx(&bits[b / 64], ps__load_rlx(&bits[b / 64]) & ~((uint64_t)1 << (b % 64)));
    }
}

static int interest_has(const ps__a64 *bits, uint32_t size, uint64_t hash)
{
    for (unsigned i = 0; i < INTEREST_BITS; i++) {
        uint32_t b = ps__interest_bit(hash, i, size);
        if (!(ps__load_rlx(&bits[b / 64]) >> (b % 64) & 1)) return 0;
    }
    return 1;
}

PS_COLD static void interest_visit(void *arg, const ps_filter *filter, uint32_t flags)
{
    struct ps__port *port = arg;
    (void)flags;
    interest_put(port->bloom.big_count, port->bloom.big, PS__BIG_BITS, filter->hash);
}

/* Goes over to the large filter. Without room for it the small one stays, right but saying "yes" more often. */
PS_COLD static void interest_upgrade(struct ps__port *port)
{
    uint16_t *count = ps__pages(PS__BIG_BITS * sizeof *count);
    ps__a64 *big = count ? port->env->big_reserve(port) : NULL;
    if (!big) {
        if (count) ps__pages_free(count, PS__BIG_BITS * sizeof *count);
        return;
    }
    port->bloom.big_count = count;
    port->bloom.big = big;
    port->host->each(port->host, interest_visit, port);
    ps__store_rel(&port->about[port->slot]->big, 1);    /* SYNC(reserve) other end ps__interest_of */
    ps__add_rel(ps__interest_word(port->words, 1, 0), 1);
}

PS_COLD int ps__interest_prepare(struct ps__port *port)
{
    if (!port->bloom.count) port->bloom.count = ps__pages(PS__SMALL_BITS * sizeof *port->bloom.count);
    return port->bloom.count ? 0 : ps__fail(PS_ENOMEM, "no memory for a handle's interest");
}

PS_COLD void ps__interest_add(struct ps__port *port, const ps_filter *filter)
{
    struct ps__bloom *bloom = &port->bloom;
    if (bloom->filters == INTEREST_UPGRADE && !bloom->big) interest_upgrade(port);
    struct ps__about *about = port->about[port->slot];
    if (bloom->big) interest_put(bloom->big_count, bloom->big, PS__BIG_BITS, filter->hash);
    interest_put(bloom->count, port->bits[port->slot], PS__SMALL_BITS, filter->hash);
    if (filter->wild && bloom->wild_count[filter->depth]++ == 0)
        ps__store_rlx(&about->wild, ps__load_rlx(&about->wild) | (uint64_t)1 << filter->depth);
    ps__store_rlx(&about->filters, ++bloom->filters);
    ps__add_rel(ps__interest_word(port->words, filter->wild, filter->hash), 1);     /* SYNC(interest) release */
}

PS_COLD void ps__interest_remove(struct ps__port *port, const ps_filter *filter)
{
    struct ps__bloom *bloom = &port->bloom;
    struct ps__about *about = port->about[port->slot];
    if (bloom->big) interest_take(bloom->big_count, bloom->big, PS__BIG_BITS, filter->hash);
    interest_take(bloom->count, port->bits[port->slot], PS__SMALL_BITS, filter->hash);
    if (filter->wild && --bloom->wild_count[filter->depth] == 0)
        ps__store_rlx(&about->wild, ps__load_rlx(&about->wild) & ~((uint64_t)1 << filter->depth));
    ps__store_rlx(&about->filters, --bloom->filters);
    ps__add_rel(ps__interest_word(port->words, filter->wild, filter->hash), 1);     /* SYNC(interest) release */
}

/* What a member that is gone has shown. By the slot's next owner, or by the one who leaves. */
PS_COLD void ps__interest_clear(struct ps__words *words, struct ps__about *about, ps__a64 *bits)
{
    ps__store_rlx(&about->wild, 0);
    ps__store_rlx(&about->big, 0);
    ps__store_rlx(&about->filters, 0);
    for (unsigned i = 0; i < PS__SMALL_BITS / 64; i++) ps__store_rlx(&bits[i], 0);
    ps__add_rel(ps__interest_word(words, 1, 0), 1);
}

/* The private half, at close. */
PS_COLD void ps__interest_forget(struct ps__port *port)
{
    struct ps__bloom *bloom = &port->bloom;
    if (bloom->count) ps__pages_free(bloom->count, PS__SMALL_BITS * sizeof *bloom->count);
    if (bloom->big_count) ps__pages_free(bloom->big_count, PS__BIG_BITS * sizeof *bloom->big_count);
    bloom->count = bloom->big_count = NULL;
    bloom->big = NULL;
    bloom->filters = 0;
    memset(bloom->wild_count, 0, sizeof bloom->wild_count);
}

int ps__interest_of(struct ps__port *port, unsigned slot, const ps_topic *topic)
{
    struct ps__about *about = port->about[slot];
    uint64_t wild = ps__load_rlx(&about->wild);
    const ps__a64 *bits = port->bits[slot];
    uint32_t size = PS__SMALL_BITS;
    if (ps__load_acq(&about->big)) {    /* SYNC(reserve) acquire: its pages are there */
        const ps__a64 *big = port->env->big_of(port, slot);
        if (!big) return 1;             /* cannot be read: a wrong "yes" is allowed */
        bits = big;
        size = PS__BIG_BITS;
    }
    if (interest_has(bits, size, topic->hash)) return 1;
    if (wild & 1 && topic->text[0] != '$') return 1;
    for (int d = 1; d <= PS__PREFIX_LEVELS; d++) {
        if (!(wild >> d & 1)) continue;
        uint64_t prefix = port->host->prefix(port->host, topic, d);
        if (!prefix) break;             /* the topic has fewer levels */
        if (interest_has(bits, size, prefix)) return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------ the publisher's memory */

PS_COLD int ps__memo_open(struct ps__port *port)
{
    ps__random(port->memo.odd, sizeof port->memo.odd);
    port->memo.odd[0] |= 1;
    port->memo.odd[1] |= 1;
    port->memo.entry = ps__pages(PS__MEMO_ENTRIES * sizeof *port->memo.entry * (port->set_words + 1));
    return port->memo.entry ? 0 : ps__fail(PS_ENOMEM, "no address space for a publisher's memory of topics");
}

PS_COLD void ps__memo_close(struct ps__port *port)
{
    if (port->memo.entry) ps__pages_free(port->memo.entry, PS__MEMO_ENTRIES * sizeof *port->memo.entry * (port->set_words + 1));
    port->memo.entry = NULL;
}

static void interest_scan(struct ps__port *port, const ps_topic *topic, unsigned words, uint64_t *set)
{
    unsigned high = ps__slots_high(port);
    if (high > words * 64) high = words * 64;           /* somebody came just now: his epoch is not ours */
    for (unsigned w = 0; w < words; w++) set[w] = 0;
    for (unsigned r = 0; r < high; r++) {
        if (r == port->slot && !port->echo) continue;
        if (ps__load_rlx(&port->about[r]->filters) && ps__interest_of(port, r, topic)) set[r / 64] |= ps__set_bit(r);
        uint64_t dead = ps__load_rlx(&port->dead[r]);
        if (dead && ps__dead_mark(ps__load_rlx(&port->reader[r]->join_last)) != dead) ps__evict_forget(port, r);
    }
}

void ps__interest_ask(struct ps__port *port, const ps_topic *topic, uint64_t key, unsigned words, uint64_t *set)
{
    ps__a64 *entry = ps__memo_entry(port, topic);
    uint64_t tag = key;
    interest_scan(port, topic, words, set);
    for (unsigned w = 0; w < words; w++) {
        ps__store_rlx(&entry[1 + w], set[w]);
        tag = ps__memo_tag(port, tag, set[w]);
    }
    ps__store_rlx(&entry[0], tag);
}

/*
 * Who marks a dead reader asks the kernel first, and somebody new may have moved in since. He joined before he showed an
 * interest, so the epoch that brought it brings his join_last.
 */
PS_COLD uint64_t ps__interest_living(const struct ps__port *port, unsigned w, uint64_t set, uint64_t dead)
{
    for (; dead; dead &= dead - 1) {
        unsigned r = w * 64 + (unsigned)__builtin_ctzll(dead);
        if (ps__dead_mark(ps__load_rlx(&port->reader[r]->join_last)) == ps__load_rlx(&port->dead[r])) set &= ~ps__set_bit(r);
    }
    return set;
}

#undef INTEREST_BITS
#undef INTEREST_UPGRADE
