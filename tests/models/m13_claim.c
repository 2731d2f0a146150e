/* SPDX-License-Identifier: MIT */
/*
 * Whose turn it is to claim: the owner moves tail by a plain store. Who else wants to claim asks; the owner gives the claim away
 * at its next publish; if it does not, it is taken away from it, by one thread at a time. In the end all may swap. PROTOCOL 1.
 *
 * An owner's light fence is none at all; who takes the claim away interrupts it instead (ASYM 1, as in m5_wake.c). Where that
 * makes too many executions both fences are full ones: no two light fences have to order anything. Timers are left out: a
 * thread takes away as soon as it may (KIND 1), or waits for ever (KIND 0); NEXT_SHARED: what was taken away is shared.
 * Checked: no number is given out twice, none is left out, and an owner knows that the claims from `unsure` on are committed,
 * for it lets limit pass them without a look.
 *
 * Mutants   1 the owner does not look again behind saying `inside`      2 it says `outside` by a relaxed store
 *           3 no heavy fence     4 nobody waits for the owner            5 who takes it away is the owner at once
 *           6 `shared` is read without acquire      7 the owner's second look comes before `inside`
 *           8 given away without release   9 free, and taken without acquire    10 taken away, and `unsure` stays
 *           11 all threads say `inside` in one place      12 asked for, it is given away before the commit
 */
#include "model.h"
#ifndef C0
#define C0 2                                            /* claims of each thread */
#endif
#ifndef C1
#define C1 1
#endif
#ifndef C2
#define C2 1
#endif
#ifndef KIND0
#define KIND0 1
#endif
#ifndef KIND1
#define KIND1 1
#endif
#ifndef KIND2
#define KIND2 1
#endif
#ifndef NEXT_SHARED
#define NEXT_SHARED 0                                   /* taken away it is shared */
#endif
#ifndef TRIES0                                          /* looks at the owner's word, while it waits */
#define TRIES0 3
#endif
#ifndef TRIES1
#define TRIES1 3
#endif
#ifndef TRIES2
#define TRIES2 3
#endif
#ifndef ASYM
#define ASYM 0
#endif
#define ALL    (C0 + C1 + C2)
#define FREE   0
#define TAKEN  14
#define SHARED 15
#define ASKED  16
/* thread + 1, and how often it became the owner: that is for the barrier here, and not in the word of the library */
#define OWNER(me, turn) ((u64)(me) + 1 + 32 * (u64)(turn))
#define WHO(w) ((w) & 15)

static a64 owner = OWNER(0, 1), tail, unsure, inside[3], given[ALL], committed[ALL];
static a64 ask[3], left[3];                             /* of the barrier: by whom takes, by whom it is taken from */
static a64 answered[3];
static const int kind[3] = {KIND0, KIND1, KIND2};
static const int tries[3] = {TRIES0, TRIES1, TRIES2};
static int turn[3] = {1, 0, 0};                         /* each thread's own */

static a64 *flag(int me) { return &inside[IS(11) ? 0 : me]; }

/* An interrupt may land between any two instructions of the owner and makes it run a full fence there. */
static void interrupt(int me) {
    for (int i = 1; i < 3 && ASYM; i++)
        if (i != me && LD(ask[i], ACQ) == (u64)me + 1 && !LD(answered[i], RLX)) {
            FENCE(SEQ_CST);
            ST(answered[i], 1, REL);
        }
}
/* Behind a claim the owner is interrupted wherever it waits: it says so beforehand, once for each turn. */
static void heavy_fence(int me, int whom, u64 which) {
    FENCE(SEQ_CST);
    if (!ASYM) return;
    ST(ask[me], (u64)whom + 1, REL);
    ASSUME(LD(answered[me], ACQ) || LD(left[whom], ACQ) >= which);
    FENCE(SEQ_CST);
}
static void light_fence(int me) { if (ASYM) interrupt(me); else FENCE(SEQ_CST); }
static void give(u64 number) {
    u64 before = ADD(given[number], 1, RLX);
    assert(before == 0);
}

/* put_inside: 1, this thread may claim until it is outside. */
static int go_inside(int me, int though_asked) {
    u64 w = LD(owner, RLX), v;
    interrupt(me);
    if (WHO(w) != (u64)me + 1 || (!though_asked && (w & ASKED))) return 0;
    if (IS(7)) v = LD(owner, RLX);
    light_fence(me);
    ST(*flag(me), 1, RLX);
    light_fence(me);
    if (!IS(7)) v = LD(owner, RLX);
    interrupt(me);
    if (IS(1) || WHO(v) == WHO(w)) return 1;
    ST(*flag(me), 0, REL);
    interrupt(me);
    return 0;
}
static u64 claim_owned(int me) {
    u64 t = LD(tail, RLX), u = LD(unsure, RLX);
    interrupt(me);
    for (u64 i = u; i < t; i++) assert(LD(committed[i], RLX));
    ST(tail, t + 1, RLX);
    interrupt(me);
    ST(*flag(me), 0, IS(2) ? RLX : REL);
    interrupt(me);
    return t;
}
static u64 claim_swapped(void) {
    u64 t = LD(tail, RLX);
    while (!CAS(tail, t, t + 1, RLX)) {}
    return t;
}

/* claim_wait. 1: this thread owns it now, 0: all swap. */
static int get(int me) {
    if (ASYM) {
        FENCE(SEQ_CST);
        ST(left[me], (u64)turn[me], REL);
    }
    u64 w = LD(owner, ACQ);
    if (WHO(w) == (u64)me + 1 && (w & ASKED))
        (void)atomic_compare_exchange_strong_explicit(&owner, &w, FREE, IS(8) ? RLX : REL, RLX);
    for (int i = 0; i < tries[me]; i++) {
        w = LD(owner, IS(6) || IS(9) ? RLX : ACQ);
        if (WHO(w) == SHARED) return 0;
        if (WHO(w) == FREE) {
            if (CAS(owner, w, OWNER(me, turn[me] + 1), IS(9) ? RLX : ACQ)) {
                turn[me]++;
                return 1;
            }
        } else if (WHO(w) == TAKEN) {
            w = LD(owner, RLX);
            ASSUME(WHO(w) != TAKEN);
        } else if (!(w & ASKED)) {
            (void)CAS(owner, w, w | ASKED, RLX);
        } else if (!kind[me]) {
            w = LD(owner, RLX);
            ASSUME(WHO(w) == FREE || WHO(w) == SHARED || WHO(w) == TAKEN);
        } else {
            int whom = (int)WHO(w) - 1;
            u64 which = w / 32, mine = NEXT_SHARED ? SHARED : OWNER(me, turn[me] + 1);
            if (!CAS(owner, w, IS(5) ? mine : TAKEN, RLX)) continue;
            if (!IS(3)) heavy_fence(me, whom, which);
            if (!IS(4)) ASSUME(LD(*flag(whom), ACQ) == 0);
            u64 t = LD(tail, RLX);
            if (!IS(10)) ST(unsure, t, RLX);
            if (!IS(5)) ST(owner, mine, REL);
            if (NEXT_SHARED) return 0;
            turn[me]++;
            return 1;
        }
    }
    ASSUME(0);
    return 0;
}

static void run(int me, int claims) {
    for (int i = 0; i < claims; i++) {
        int mine = go_inside(me, 0);
        for (int again = 0; !mine && again < 1; again++) {
            if (!get(me)) break;
            mine = go_inside(me, 1);
            ASSUME(mine);
        }
        u64 t;
        if (mine) {
            t = claim_owned(me);
        } else {
            assert(WHO(LD(owner, RLX)) == SHARED);
            t = claim_swapped();
        }
        give(t);
        if (IS(12) && mine) {                           /* before the commit */
            u64 w = LD(owner, RLX);
            if (WHO(w) == (u64)me + 1 && (w & ASKED)) (void)CAS(owner, w, FREE, REL);
        }
        interrupt(me);
        ST(committed[t], 1, RLX);
        interrupt(me);
    }
    if (ASYM) {
        FENCE(SEQ_CST);
        ST(left[me], 9, REL);
    }
}
static void *a(void *arg) { (void)arg; run(0, C0); return NULL; }
static void *b(void *arg) { (void)arg; run(1, C1); return NULL; }
static void *c(void *arg) { (void)arg; run(2, C2); return NULL; }

int main(void) {
    pthread_t t[3];
    pthread_create(&t[0], NULL, a, NULL);
    pthread_create(&t[1], NULL, b, NULL);
    pthread_create(&t[2], NULL, c, NULL);
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    assert(LD(tail, RLX) == ALL);
    return 0;
}
