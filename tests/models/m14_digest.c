/* SPDX-License-Identifier: MIT */
/*
 * Model 14: a reader asks the digest of a cell, {number, hash}, before the cell, and passes over what its interest lacks without
 * a look at the cell. The ring has one cell, so the second message laps the first. The reader's filter is set by another thread
 * of its process: 0 wants nothing yet.
 *
 * Claims: a digest of number c is behind the stamp of c, so the look at the last stamp of a window, behind the fence, finds it;
 * and a message that was published behind the subscribe is not passed over. (The publisher has seen the new epoch then.)
 *
 * Mutants   1 digest before the stamp     2 relaxed store of the digest     3 relaxed load
 *           4 a digest is believed whatever its number is
 */
#include "model.h"
#define MESSAGES 2
static a64 stamp, digest, bits, epoch, cursor;
static int behind[MESSAGES], passed[MESSAGES];          /* published behind the subscribe; passed over as unwanted */
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
        behind[c] = LD(epoch, ACQ) != 0;
        FENCE(REL);
        if (IS(1)) ST(digest, c + 1, REL);
        ST(stamp, c + 1, REL);
        if (!IS(1)) ST(digest, c + 1, IS(2) ? RLX : REL);
    }
    return NULL;
}
static void *reader(void *arg) {
    (void)arg;
    for (u64 c = 0; c < MESSAGES; c++) {
        u64 d = LD(digest, IS(3) ? RLX : ACQ);
        if ((IS(4) ? d != 0 : d == c + 1) && !LD(bits, RLX)) {
            passed[c] = 1;
        } else {
            if (LD(stamp, ACQ) != c + 1) return NULL;
            if (!LD(bits, RLX)) passed[c] = 1;
        }
        FENCE(ACQ);
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
    for (int c = 0; c < MESSAGES; c++) assert(!(behind[c] && passed[c]));
    return 0;
}
