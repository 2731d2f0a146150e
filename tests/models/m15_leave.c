/* SPDX-License-Identifier: MIT */
/*
 * Model 15: the last subscription ends while another thread dispatches, or has just ceased to, perhaps for ever. The dispatching
 * thread has the cursors and the window to itself as long as it is `reading`; whoever ends the subscription leaves in its place
 * where it is not.
 *
 * Claim: the handle leaves once, whatever comes first, and never while a dispatch uses the window.
 *
 * Mutants   1 no fence when a dispatch begins    2 none when it ends     3 none at the unsubscriber
 *           4 the mark is DUE at once: the next dispatch does not wait until the unsubscriber has looked
 *           5 a dispatch looks at the mark before it ceases to read, and not behind it
 */
#include "model.h"
enum { DUE = 1, TRIED = 2 };
static a64 reading, pending, left, busy;
static void alone(int leaves) {
    u64 others = ADD(busy, 1, ACQ_REL);
    assert(others == 0);
    if (leaves) ADD(left, 1, ACQ_REL);
    ADD(busy, -1, ACQ_REL);
}
static void leave_if_pending(void) {
    u64 due = DUE;
    if (!LD(pending, RLX)) return;
    ASSUME(LD(pending, ACQ) != TRIED);                      /* a few instructions */
    if (CAS(pending, due, 0, ACQ_REL)) alone(1);
}
static void *dispatcher(void *arg) {                        /* two dispatches */
    (void)arg;
    for (int i = 0; i < 2; i++) {
        ST(reading, 1, RLX);
        if (!IS(1)) FENCE(SEQ_CST);
        leave_if_pending();
        if (!LD(left, ACQ)) alone(0);
        if (IS(5)) leave_if_pending();
        ST(reading, 0, REL);
        if (!IS(2)) FENCE(SEQ_CST);
        if (!IS(5)) leave_if_pending();
    }
    return NULL;
}
static void *unsubscriber(void *arg) {
    (void)arg;
    ST(pending, IS(4) ? DUE : TRIED, RLX);
    if (!IS(3)) FENCE(SEQ_CST);
    if (!LD(reading, ACQ)) { alone(1); ST(pending, 0, REL); }
    else ST(pending, DUE, REL);
    return NULL;
}
int main(void) {
    pthread_t d, u;
    pthread_create(&d, NULL, dispatcher, NULL);
    pthread_create(&u, NULL, unsubscriber, NULL);
    pthread_join(d, NULL); pthread_join(u, NULL);
    assert(LD(left, RLX) == 1);
    return 0;
}
