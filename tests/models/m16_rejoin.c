/* SPDX-License-Identifier: MIT */
/*
 * Model 16: a reader whose join 1 some lane has evicted joins again, as 2. This is another lane: it has not evicted the reader, or
 * is just about to, for one of its two producers has lost patience with join 1. Where the reader finds that it has not, it goes
 * on at its cursor, as if nothing had happened.
 *
 * Claim: then the cell at its cursor is not overwritten.
 *
 * Mutants   1 no fence in the reader     2 it looks at evicted before it joins
 *           3 the producer's fence before the load of evicted, not between the two loads
 */
#include "model.h"
static a64 join, evicted, cell;                         /* cell: 2 = overwritten */
static int kept;
static int gates(int me) {
    if (me == 0 && LD(join, ACQ) == 1) ST(evicted, 1, RLX);     /* patience is over */
    if (IS(3)) FENCE(SEQ_CST);
    u64 e = LD(evicted, RLX);
    if (!IS(3)) FENCE(SEQ_CST);
    return LD(join, ACQ) > e;
}
static void *producer(void *arg) { if (!gates(*(int *)arg)) ST(cell, 2, RLX); return NULL; }
static void *reader(void *arg) {
    (void)arg;
    u64 e = IS(2) ? LD(evicted, RLX) : 0;
    ST(join, 2, REL);
    if (!IS(1)) FENCE(SEQ_CST);
    if (!IS(2)) e = LD(evicted, RLX);
    kept = e < 1;
    return NULL;
}
int main(void) {
    static int id[2] = {0, 1};
    pthread_t a, b, r;
    ST(join, 1, RLX);
    pthread_create(&a, NULL, producer, &id[0]);
    pthread_create(&b, NULL, producer, &id[1]);
    pthread_create(&r, NULL, reader, NULL);
    pthread_join(a, NULL); pthread_join(b, NULL); pthread_join(r, NULL);
    if (kept) assert(LD(cell, RLX) != 2);
    return 0;
}
