/* SPDX-License-Identifier: MIT */
/*
 * Model 14: beside the cell stands its digest, {number, who does not want it}, and a reader asks that first: a message that spares
 * it is passed over without a look at the cell. The ring has one cell, so the second message laps the first. The reader begins
 * without interest; another thread of its process subscribes.
 *
 * The publisher looks up who wants the message (epoch, bits), commits, makes its fence and looks at the epoch once more; if that
 * has changed it asks the bits anew. Of the set that it has then it makes the digest, and the count that it answers.
 *
 * Claims: a digest of number c is behind the stamp of c, so the look at the last stamp of a window finds it; no message is passed
 * over that was published behind the subscribe, or that its publisher has counted the reader for.
 *
 * Mutants   1 digest before the stamp     2 digest before the fence     3 no fence before the look at the last stamp
 *           4 a digest is believed whatever its number is     5 the digest is made of the set from before the commit
 */
#include "model.h"
#define MESSAGES 2
static a64 stamp, digest, bits, epoch, cursor;          /* digest: number + 1, and << 8 if it spares the reader */
static int behind[MESSAGES], counted[MESSAGES], passed[MESSAGES];
static void *subscriber(void *arg) {
    (void)arg;
    ST(bits, 1, RLX);
    ADD(epoch, 1, REL);
    return NULL;
}
static void *publisher(void *arg) {
    (void)arg;
    for (u64 c = 0; c < MESSAGES; c++) {
        ASSUME(LD(cursor, ACQ) == c);                   /* the reader gates */
        u64 e = LD(epoch, ACQ), set = LD(bits, RLX), old = set;
        behind[c] = e != 0;
        FENCE(REL);
        if (IS(1)) ST(digest, set ? c + 1 : (c + 1) << 8, RLX);
        ST(stamp, c + 1, REL);
        if (IS(2)) ST(digest, set ? c + 1 : (c + 1) << 8, RLX);
        FENCE(SEQ_CST);
        if (LD(epoch, ACQ) != e) set = LD(bits, RLX);
        counted[c] = (int)set;
        if (IS(5)) set = old;
        if (!IS(1) && !IS(2)) ST(digest, set ? c + 1 : (c + 1) << 8, RLX);
    }
    return NULL;
}
static void *reader(void *arg) {
    (void)arg;
    for (u64 c = 0; c < MESSAGES; c++) {
        u64 d = LD(digest, RLX);
        if (IS(4) ? d >> 8 != 0 : d == (c + 1) << 8) {
            passed[c] = 1;
        } else {
            if (LD(stamp, ACQ) != c + 1) return NULL;
        }
        if (!IS(3)) FENCE(ACQ);
        assert(LD(stamp, RLX) == c + 1);
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
    for (int c = 0; c < MESSAGES; c++) assert(!passed[c] || (!behind[c] && !counted[c]));
    return 0;
}
