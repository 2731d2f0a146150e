/* SPDX-License-Identifier: MIT */
/*
 * words.h - the memory that the members of a bus share: its words, lanes, cells, and what each member says of itself. Every
 * layout here is part of PS__SHM_VERSION; what is private to a handle is in ring.h, but for the copy that looks like its cell.
 *
 * Words and their writers. All are atomics; what follows from each order stands where it is used, tagged SYNC(…).
 *
 *   field                    written by                          read by
 *   words.epoch              everybody, fetch_add                publishers                           SYNC(interest)
 *   words.sleepers           everybody, own bit                  publishers                           SYNC(sleep)
 *   words.waiters            everybody, own bit                  who makes room                       SYNC(space)
 *   words.lanes_high, slots_high   raised by CAS                 everybody
 *   words.geometry           CAS until fixed                     everybody
 *   lane.tail                CAS by the lane's producers, or     readers, producers                   SYNC(claim), SYNC(own)
 *                            a store by the owner of the claim
 *   lane.limit               CAS by the lane's producers         producers, readers                   SYNC(limit)
 *   lane.horizon             raised by the lane's producers      joiners                              SYNC(join)
 *   lane.base                raised behind limit                 joiners
 *   lane.loan_floor          its producers, only rises           readers of loans                     SYNC(loan)
 *   lane.evicted             raised by the lane's producers      its reader, producers                SYNC(borrow)
 *   lane.epoch               the member who takes the slot       its owner                            fencing
 *   lane.ring, lane.loan     the owner, once reserved            readers                              SYNC(reserve)
 *   cell.stamp               the producer that claimed it, or    everybody                            SYNC(commit)
 *                            who repairs the lane
 *   digests                  the same                            readers                              SYNC(digest)
 *   reader.*, about.*        that member only                    producers, tools
 *
 * What the words are called, here and in PROTOCOL:
 *   member, slot    a handle on the bus, and its number there; slots are given to the next when their member is gone
 *   lane            a ring of cells, its payload and its loan area: of one member in shm, of all in inproc
 *   claim, commit   a producer takes the next cell by moving tail, and says by the cell's stamp that it is filled
 *   number          of a message in its lane, 64 bits; tail and limit hold its low half. "seq" is that half
 *   cursor          the next number that a reader will read in a lane
 *   gate            a reader whose cursor holds limit back: a reliable one, from its join until it leaves or is evicted
 *   limit           cells and payload before it may be written again; horizon: no limit in the making is beyond
 *   hole            what a producer claimed that died before the commit; readers step over it
 *   interest        which topics a member wants, as a Bloom filter; epoch: counts its changes
 *   set             the members that want a topic, a bit each; memo: a publisher's table of those
 *   digest          who does not want the message in a cell, beside the cell; to sift: to ask those instead of the cells
 *   window          a reader's private copies of the cells that it delivers next
 *   mark            where ps_dispatch(max <= 0) stops; or, of a publisher, where it looks for room ahead of need
 *   armed, waiting  asleep for messages, for room; a bell wakes
 *   deaf            a member that nobody can ring, for it has no bell: it sleeps in slices
 *   mute            a publisher that a reader passes over: itself, with echo=0
 */
#ifndef PS_WORDS_H
#define PS_WORDS_H

#include "../base/base.h"

#define PS__UNIT       64u              /* bytes of a payload unit */
#define PS__INLINE     95u              /* bytes of topic and data that fit into a cell */
#define PS__SET_WORDS  (PS_MEMBERS_MAX / 64)
#define PS__EPOCHS     256u             /* by topic hash; one more for wildcards and size changes */

struct ps__words {
    ps__a64 epoch[PS__EPOCHS + 1];
    _Alignas(PS__LINE) ps__a64 sleepers[PS__SET_WORDS];
    _Alignas(PS__LINE) ps__a64 waiters[PS__SET_WORDS];
    _Alignas(PS__LINE) ps__a64 lanes_high;
    ps__a64 slots_high;
    ps__a64 geometry;                   /* struct ps__geometry, packed */
};
_Static_assert(sizeof(struct ps__words) <= 4096, "the shared words fit a page");

struct ps__lane {
    _Alignas(PS__LINE) ps__a64 tail;    /* {seq, pos} next to claim; the very word late readers check against */
    _Alignas(PS__LINE) ps__a64 limit;   /* {seq, pos} everything before may be overwritten: what other readers check against */
    _Alignas(PS__LINE) ps__a64 horizon; /* seq: upper bound of any limit in the making */
    ps__a64 base;                       /* 64-bit number at or behind limit */
    ps__a64 loan_floor;                 /* 64-bit number: loan chunks of cells before it may be rewritten */
    ps__a64 epoch;                      /* of the member that owns the lane: its publisher number */
    ps__a64 ring;                       /* the packed geometry once cells and payload are reserved; 0 before */
    ps__a64 loan;                       /* the same for the loan area */
    _Alignas(PS__LINE) ps__a64 evicted[PS_MEMBERS_MAX];    /* number of the join of reader r that is evicted */
};
_Static_assert(sizeof(struct ps__lane) <= 4096, "a lane fits a page");

#define PS__KIND_INLINE 1u              /* data, then the topic, in the cell */
#define PS__KIND_RING   2u              /* data in the payload ring; the topic in the cell, or behind the data */
#define PS__KIND_LOAN   3u              /* data in the loan area; the topic in the cell, or in the payload ring */
#define PS__KIND_HOLE   4u              /* abandoned; size is its extent in units */

static inline uint32_t ps__meta(uint32_t kind, size_t topic_len) { return kind | (uint32_t)topic_len << 8; }
static inline uint32_t ps__kind(uint32_t meta) { return meta & 0xff; }
static inline uint32_t ps__topic_len(uint32_t meta) { return meta >> 8; }
/* Where a topic that does not fit into its cell lies behind so many bytes of data. */
static inline size_t ps__topic_offset(size_t size) { return (size + 15) & ~(size_t)15; }

struct ps__cell {
    ps__a64 stamp;                      /* sequence + 1 once committed */
    ps__a64 hash;                       /* of the topic */
    ps__a32 publisher;
    ps__a32 pos;                        /* first unit of its payload */
    ps__a32 size;                       /* bytes of data */
    ps__a32 meta;                       /* kind and topic length: ps__meta */
    unsigned char data[PS__INLINE + 1]; /* INLINE: data, topic; RING: topic; LOAN: offset (8 bytes), topic. A NUL has room */
};
_Static_assert(sizeof(struct ps__cell) == PS__LINE, "a cell is 128 bytes");
_Static_assert(offsetof(struct ps__cell, data) == 32, "inline data is 16-byte aligned");

/* A cell, copied out: private, so plain fields of the same places. */
struct ps__copy {
    _Alignas(PS__LINE) uint64_t stamp;
    uint64_t hash;
    uint32_t publisher, pos, size, meta;
    unsigned char data[PS__INLINE + 1];
};
_Static_assert(sizeof(struct ps__copy) == sizeof(struct ps__cell) &&
               offsetof(struct ps__copy, meta) == offsetof(struct ps__cell, meta) &&
               offsetof(struct ps__copy, data) == offsetof(struct ps__cell, data), "a copy looks like its cell");

/*
 * Beside each cell, its digest: which message stands there, and who does not want it, in one word; eight of them lie in a line,
 * where a cell takes two. Members are folded into 32 bits: what one of them wants, those that share its bit are not spared. A
 * hint: it comes behind the commit, or never, if its producer dies. 0 spares nobody.
 */
static inline uint64_t ps__digest(uint64_t stamp, const uint64_t *set, unsigned words)
{
    uint64_t wanted = 0;
    for (unsigned w = 0; w < words; w++) wanted |= set[w];
    return stamp << 32 | (uint32_t)~(wanted | wanted >> 32);
}
/* Is it of that message, and is the member in that slot spared? A number comes again after 2^32, as for swaps of tail. */
static inline int ps__digest_spares(uint64_t digest, uint64_t stamp, unsigned slot)
{
    return (uint32_t)(digest >> 32) == (uint32_t)stamp && digest >> slot % 32 & 1;
}

struct ps__reader {
    ps__a64 join;                       /* 0: no gate; else join_last */
    ps__a64 join_last;                  /* never reset */
    ps__a64 borrow;                     /* lane + 1 while handlers look into it */
    _Alignas(PS__LINE) ps__a64 armed;   /* odd while asleep for messages; never repeats */
    ps__a64 waiting;                    /* odd while asleep for space; never repeats */
    _Alignas(PS__LINE) ps__a64 cursor[PS_MEMBERS_MAX];
};

#define PS__ABOUT_LOSSY  1u
#define PS__ABOUT_SENDS  2u
#define PS__ABOUT_READS  4u
#define PS__ABOUT_NO_ECHO 8u

struct ps__about {                      /* what a member says of itself; diagnostics, but for filters, wild and big */
    ps__a64 used;                       /* 1 while the slot is taken */
    ps__a64 publisher, pid, flags, filters, lost, unwanted, published, idle_at_ms;
    ps__a64 name[PS_NAME_MAX / 8 + 1];
    ps__a64 evicted;
    _Alignas(PS__LINE) ps__a64 wild;    /* bit d: there is a wildcard filter with a literal prefix of d levels */
    ps__a64 big;                        /* 1: the large filter counts, not the small one */
};
_Static_assert(sizeof(struct ps__about) <= 4096, "a member's words fit a page");

#define PS__SMALL_BITS (4096u * 8)      /* interest of a handle with up to some 3000 filters */
#define PS__BIG_BITS   (131072u * 8)    /* and with up to 100 000: 10 bits a name */

/* ------------------------------------------------------------------ packed words */

/* {seq, pos}: both only grow, every comparison is a signed 32-bit difference. */
static inline uint64_t ps__pack(uint32_t seq, uint32_t pos) { return (uint64_t)seq | (uint64_t)pos << 32; }
static inline uint32_t ps__seq(uint64_t word) { return (uint32_t)word; }
static inline uint32_t ps__pos(uint64_t word) { return (uint32_t)(word >> 32); }
static inline int32_t ps__diff(uint32_t a, uint32_t b) { return (int32_t)(a - b); }
/* The 64-bit number at or behind `near` whose low half is seq; and the one that is nearest to it, before or behind. */
static inline uint64_t ps__expand(uint64_t near, uint32_t seq) { return near + (uint32_t)(seq - (uint32_t)near); }
static inline uint64_t ps__nearest(uint64_t near, uint32_t seq)
{
    return near + (uint64_t)(int64_t)ps__diff(seq, (uint32_t)near);
}

struct ps__geometry {
    unsigned depth_log, units_log, loans_log;   /* cells, payload units, loan units: powers of two */
    unsigned named;                             /* 1 depth, 2 bytes, 4 loans were asked for by somebody */
    int fixed;
};
PS_PRIVATE uint64_t ps__geometry_pack(const struct ps__geometry *g);
/* 0, PS_ECORRUPT if a field is out of range, or PS_ENOMEM where the address space is smaller than that. */
PS_PRIVATE int ps__geometry_unpack(uint64_t word, struct ps__geometry *g);
/* What the URL asks for, or the defaults; PS_EINVAL if depth and bytes cannot be numbered together, PS_ENOMEM as above. */
PS_PRIVATE int ps__geometry_wanted(const ps_url *url, struct ps__geometry *g);
/* Puts the wishes into words.geometry while nothing is reserved; PS_EGEOMETRY if there is less than asked for. */
PS_PRIVATE int ps__geometry_propose(struct ps__words *words, const struct ps__geometry *wanted);
/* Fixes it and answers what it is. */
PS_PRIVATE int ps__geometry_fix(struct ps__words *words, struct ps__geometry *g);
static inline unsigned ps__geometry_depth_log(uint64_t word) { return word & 0xff; }
static inline size_t ps__cells_size(const struct ps__geometry *g) { return (size_t)PS__LINE << g->depth_log; }
static inline size_t ps__payload_size(const struct ps__geometry *g) { return (size_t)PS__UNIT << g->units_log; }
static inline size_t ps__ring_size(const struct ps__geometry *g)        /* cells, payload, digests */
{
    return ps__cells_size(g) + ps__payload_size(g) + (sizeof(ps__a64) << g->depth_log);
}
static inline size_t ps__loans_size(const struct ps__geometry *g) { return (size_t)PS__UNIT << g->loans_log; }
#define PS__MESSAGE_LEAST 1024u         /* every bus takes that much */
/* The largest message of a payload ring, and the largest loan of an area, of so many bytes; and how a larger one is refused. */
PS_PRIVATE uint64_t ps__message_max(uint64_t payload);
PS_PRIVATE uint64_t ps__loan_max(uint64_t loans);
PS_PRIVATE int ps__message_too_large(size_t size, uint64_t most);
PS_PRIVATE int ps__loan_too_large(size_t size, uint64_t most);

#endif
