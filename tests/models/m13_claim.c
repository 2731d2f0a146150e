/* SPDX-License-Identifier: MIT */
/*
 * Who may claim: the owner moves tail by a plain store until another thread takes the claim away; then all swap. PROTOCOL 1.
 *
 * One owner, two others. The owner's light fence is none at all; who takes the claim away interrupts it instead (membarrier,
 * as in m5_wake.c). Checked: no number is given out twice, none is left out.
 *
 * Mutants   1 the owner does not look again behind saying `inside`      2 it says `outside` by a relaxed store
 *           3 no heavy fence     4 nobody waits for the owner            5 taken and shared are one state
 *           6 `shared` is read without acquire, stored without release   7 the owner's second look comes before `inside`
 */
#include "model.h"
#define OWNER  1
#define TAKEN  2
#define SHARED 3
#ifndef CLAIMS
#define CLAIMS 2                                        /* of the owner */
#endif

static a64 tail, owner = OWNER, inside, given[CLAIMS + 2];
static a64 ask[2], answered[2], gone;                   /* the barrier of each taker */

/* An interrupt may land between any two instructions of the owner and makes it run a full fence there. */
static void interrupt(void) {
    for (int i = 0; i < 2; i++)
        if (LD(ask[i], ACQ) && !LD(answered[i], RLX)) { FENCE(SEQ_CST); ST(answered[i], 1, REL); }
}
static void heavy_fence(int me) {
    FENCE(SEQ_CST);
    ST(ask[me], 1, REL);
    ASSUME(LD(answered[me], ACQ) || LD(gone, ACQ));
    FENCE(SEQ_CST);
}
static void give(u64 number) {
    u64 before = ADD(given[number], 1, RLX);
    assert(before == 0);
}
static void claim_shared(int me) {
    if (me >= 0 && LD(owner, IS(6) ? RLX : ACQ) != SHARED) {
        ST(owner, IS(5) ? SHARED : TAKEN, RLX);
        if (!IS(3)) heavy_fence(me);
        if (!IS(4)) ASSUME(LD(inside, ACQ) == 0);
        ST(owner, SHARED, IS(6) ? RLX : REL);
    }
    u64 t = LD(tail, RLX);
    while (!CAS(tail, t, t + 1, RLX)) {}
    give(t);
}
static void *owning(void *arg) {
    (void)arg;
    for (int i = 0; i < CLAIMS; i++) {
        int mine = LD(owner, RLX) == OWNER;
        interrupt();
        if (mine) {
            if (IS(7)) mine = LD(owner, RLX) == OWNER;
            interrupt();
            ST(inside, 1, RLX);
            interrupt();
            if (!IS(1) && !IS(7)) mine = LD(owner, RLX) == OWNER;
            interrupt();
            u64 t = LD(tail, RLX);
            interrupt();
            if (mine) ST(tail, t + 1, RLX);
            interrupt();
            ST(inside, 0, IS(2) ? RLX : REL);
            interrupt();
            if (mine) { give(t); continue; }
        }
        claim_shared(-1);                               /* it is outside itself: nobody to wait for */
        interrupt();
    }
    FENCE(SEQ_CST);
    ST(gone, 1, REL);
    return NULL;
}
static void *other(void *arg) { claim_shared(*(int *)arg); return NULL; }

int main(void) {
    static int id[2] = {0, 1};
    pthread_t o, a, b;
    pthread_create(&o, NULL, owning, NULL);
    pthread_create(&a, NULL, other, &id[0]);
    pthread_create(&b, NULL, other, &id[1]);
    pthread_join(o, NULL); pthread_join(a, NULL); pthread_join(b, NULL);
    assert(LD(tail, RLX) == CLAIMS + 2);
    return 0;
}
