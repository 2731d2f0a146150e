/* SPDX-License-Identifier: MIT */
/*
 * Model 14: beside the cell stands its digest, {number, who does not want it}, and a reader asks that first: a message that spares
 * it is passed over without a look at the cell. The reader begins without interest; another thread of its process subscribes.
 *
 * The publisher looks up who wants the message (epoch, bits), claims, commits, makes its fence and looks at the epoch once more;
 * if that has changed it asks the bits anew. Of the set that it has then it makes the digest, and the count that it answers.
 *
 * The reader believes digests only from the tail on that it saw, behind a fence, after it had noticed its last subscription
 * (`interests`, odd while one is being added); what lies before, and what has no digest, it asks by the cell and the bits.
 *
 * Claims: a digest of number c is behind the stamp of c, so the look at the last stamp of a window finds it; no message is passed
 * over that was published behind the subscribe, or by a digest if its publisher has counted the reader for it; and none behind one
 * that was delivered: a subscription begins somewhere, and has no gaps.
 *
 * Mutants   1 digest before the stamp     2 digest before the fence     3 no fence before the look at the last stamp
 *           4 a digest is believed whatever its number is     5 the digest is made of the set from before the commit
 *           6 `interests` is not looked at again behind the digest     7 no fence before the look at tail
 *           8 `interests` is raised once, behind the epoch     9 digests are believed from the first message on
 * -DCELLS=1: the second message laps the first.
 */
#include "model.h"
#define MESSAGES 2
#ifndef CELLS
#define CELLS 2
#endif
static a64 stamp[CELLS], digest[CELLS], tail, bits, epoch, interests, cursor;   /* digest: number + 1, << 8 if it spares */
static int behind[MESSAGES], counted[MESSAGES], passed[MESSAGES], spared[MESSAGES], delivered[MESSAGES];
static void *subscriber(void *arg) {
    (void)arg;
    if (!IS(8)) ST(interests, 1, RLX);
    FENCE(REL);
    ST(bits, 1, RLX);
    ADD(epoch, 1, REL);
    ST(interests, 2, REL);
    return NULL;
}
static void *publisher(void *arg) {
    (void)arg;
    for (u64 c = 0; c < MESSAGES; c++) {
        ASSUME(c < CELLS || LD(cursor, ACQ) >= c + 1 - CELLS);  /* the reader gates */
        u64 e = LD(epoch, ACQ), set = LD(bits, RLX), old = set;
        behind[c] = e != 0;
        ST(tail, c + 1, RLX);
        FENCE(REL);
        if (IS(1)) ST(digest[c % CELLS], set ? c + 1 : (c + 1) << 8, RLX);
        ST(stamp[c % CELLS], c + 1, REL);
        if (IS(2)) ST(digest[c % CELLS], set ? c + 1 : (c + 1) << 8, RLX);
        FENCE(SEQ_CST);
        if (LD(epoch, ACQ) != e) set = LD(bits, RLX);
        counted[c] = (int)set;
        if (IS(5)) set = old;
        if (!IS(1) && !IS(2)) ST(digest[c % CELLS], set ? c + 1 : (c + 1) << 8, RLX);
    }
    return NULL;
}
static void *reader(void *arg) {
    (void)arg;
    u64 known = 0, from = 0;
    for (u64 c = 0; c < MESSAGES; c++) {
        u64 now = LD(interests, ACQ), spares = 0;
        if (now != known && !(now & 1)) {
            if (!IS(7)) FENCE(SEQ_CST);
            from = IS(9) ? 0 : LD(tail, RLX);
            known = now;
        }
        if (!(now & 1) && c >= from) {
            u64 d = LD(digest[c % CELLS], RLX);
            spares = IS(4) ? d >> 8 != 0 : d == (c + 1) << 8;
            if (!IS(3)) FENCE(ACQ);
            if (spares && !IS(6) && LD(interests, RLX) != now) spares = 0;
        }
        if (spares) {
            passed[c] = spared[c] = 1;
            assert(LD(stamp[c % CELLS], RLX) == c + 1);
        } else {
            if (LD(stamp[c % CELLS], ACQ) != c + 1) return NULL;
            if (LD(bits, RLX)) delivered[c] = 1; else passed[c] = 1;
        }
        ST(cursor, c + 1, REL);
    }
    return NULL;
}
int main(void) {
    pthread_t s, p, r;
    pthread_create(&s, NULL, subscriber, NULL);
    pthread_create(&p, NULL, publisher, NULL);
    pthread_create(&r, NULL, reader, NULL);
    pthread_join(s, NULL);
    pthread_join(p, NULL);
    pthread_join(r, NULL);
    for (int c = 0; c < MESSAGES; c++) assert(!(passed[c] && behind[c]) && !(spared[c] && counted[c]));
    assert(!delivered[0] || !passed[1]);
    return 0;
}
