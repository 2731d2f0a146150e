/* SPDX-License-Identifier: MIT */
/*
 * Model 12: chunks of a loan area that are handed out again while a reader still copies from them. PROTOCOL 8.
 *
 * Two messages are in the ring, each with a chunk of its own; limit has passed both cells (the reader is lossy). Two threads of
 * the owner take a chunk each, under the list's lock: the first to come finds both cells passed and raises the floor for both.
 * Then each writes its chunk, outside the lock, and publishes it.
 *
 * Claim: a copy that the reader believes is of the message it belongs to.
 *
 * Mutants   1 the reader does not look at the floor               2 no acquire fence between copy and floor
 *           3 no release fence between floor and data             4 only the thread that raised the floor fences
 *           5 the floor is raised behind the data                 6 the floor is raised to the cell, not beyond it
 */
#include "model.h"
#define N 2
static a64 tail, floor_, lock_;
static a64 chunk[2];                                        /* the loan area */
static struct { a64 stamp, where; } cell[N];
static int raised;                                          /* under the lock: both chunks are on the free list */
static a64 taken;                                           /* under the lock */

static void *loaner(void *arg) {
    u64 v = 10 + (u64)*(int *)arg, zero = 0, mine;
    int raises = 0;
    ASSUME(atomic_compare_exchange_strong_explicit(&lock_, &zero, 1, ACQ, RLX));
    if (!raised) { raised = raises = 1; if (!IS(5)) ST(floor_, IS(6) ? 1 : 2, RLX); }
    mine = LD(taken, RLX);
    ST(taken, mine + 1, RLX);
    ST(lock_, 0, REL);
    if (!IS(3) && !(IS(4) && !raises)) FENCE(REL);
    ST(chunk[mine], v, RLX);                                /* the program writes its data */
    if (IS(5) && raises) ST(floor_, 2, RLX);
    u64 s = LD(tail, RLX);
    while (!CAS(tail, s, s + 1, RLX)) {}
    FENCE(REL);
    ST(cell[s % N].where, mine, RLX);
    ST(cell[s % N].stamp, s + 1, REL);
    return NULL;
}
static void *reader(void *arg) {
    (void)arg;
    u64 c = 1;                                              /* message 1, in cell 1 and chunk 1 */
    if (LD(cell[c % N].stamp, ACQ) != c + 1) return NULL;
    u64 d = LD(chunk[LD(cell[c % N].where, RLX)], RLX);
    if (!IS(2)) FENCE(ACQ);
    if (LD(tail, RLX) - c > N) return NULL;
    if (!IS(1) && LD(floor_, RLX) > c) return NULL;
    if (LD(cell[c % N].stamp, RLX) != c + 1) return NULL;
    assert(d == 1);
    return NULL;
}
int main(void) {
    static int id[2] = {0, 1};
    pthread_t a, b, r;
    for (u64 s = 0; s < 2; s++) { ST(chunk[s], s, RLX); ST(cell[s].where, s, RLX); ST(cell[s].stamp, s + 1, REL); }
    ST(tail, 2, RLX);
    pthread_create(&a, NULL, loaner, &id[0]);
    pthread_create(&b, NULL, loaner, &id[1]);
    pthread_create(&r, NULL, reader, NULL);
    pthread_join(a, NULL); pthread_join(b, NULL); pthread_join(r, NULL);
    return 0;
}
