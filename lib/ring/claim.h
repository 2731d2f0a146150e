/* SPDX-License-Identifier: MIT */
/*
 * claim.h - whose turn it is to claim. See claim.c for how, and put.h for what each publish does with it.
 */
#ifndef PS_CLAIM_H
#define PS_CLAIM_H

#include "../base/base.h"

struct ps__port;

#define PS__SEATS 16u                   /* threads that may own a claim in turn */

struct ps__claim {                      /* who may move tail: put.h, claim.c */
    ps__a64 owner;                      /* a thread's number + 1 and its seat << 32, or one of those below */
    ps__a32 unsure;                     /* a thread that is not the owner any more may be filling a cell before this number */
    ps__a32 since;                      /* the number at which the owner's turn began */
    ps__a32 offences;
    unsigned char apart[PS__LINE];      /* who waits reads those above; who owns writes its seat for each message */
    struct {
        ps__a32 inside;                 /* 1 while its thread claims */
        ps__a32 thread;                 /* whose it is, for good: number + 1; 0: nobody's */
        unsigned char apart[PS__LINE - 8];
    } seat[PS__SEATS];
};

#define PS__CLAIM_FREE   0u
#define PS__CLAIM_ASKED  (UINT32_MAX / 2 + 1)   /* with its owner's number: somebody waits */
#define PS__CLAIM_TAKEN  (UINT32_MAX - 1)       /* taken away from its owner, who may be inside still */
#define PS__CLAIM_SHARED UINT32_MAX             /* all swap */
_Static_assert(PS__THREAD_LAST + 1 < (PS__CLAIM_TAKEN & ~PS__CLAIM_ASKED), "a thread's number + 1 is none of these");

/* What a thread remembers of a lane that it shares. */
struct ps__claim_run {
    const struct ps__claim *claim;      /* NULL: it has looked for messages since, so it does not publish without a pause */
    uint64_t crowded_ns;                /* when others were last seen to claim in between its own claims */
    uint32_t next;                      /* where its last swap ended, */
    uint32_t walked_pos;                /* all before this number and position is committed: ps__ring_walk */
    uint64_t walked, walked_by, next_by;        /* 64 bits; by the handle that has this number: memo.odd */
};
PS_PRIVATE_OBJECT PS__TLS struct ps__claim_run ps__claim_run;

/* Of a claim that is free: it is this thread's, or shared. */
PS_PRIVATE void ps__claim_take(struct ps__port *port);
/* Before a claim by swap. */
PS_PRIVATE void ps__claim_shared(struct ps__port *port);

#endif
