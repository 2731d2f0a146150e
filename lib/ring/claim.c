/* SPDX-License-Identifier: MIT */
/*
 * claim.c - whose turn it is to claim: the slow ways into a claim. The quick one, which each publish takes, is in put.h.
 * PROTOCOL 1, model 13.
 *
 *   free     whoever wants it takes it
 *   owned    its owner, one thread, moves tail by plain stores
 *   asked    the same, and somebody waits: the owner gives it away at its next publish
 *   taken    the owner did not publish any more, or is not running: somebody takes it away, and is alone in that
 *   shared   all threads swap, for good
 *
 * Threads that publish without a pause would hand each other the lines of tail and of the cells at every message. In turns each
 * has them in its cache for some hundred. Where turns do not pay, because threads publish now and then, or one at a time, they
 * are an offence each, and after a few the claim is shared. So it is when it is owned by threads of more numbers than there are
 * seats. A thread that has the number of one that has ended owns what that one owned.
 */
#include "put.h"
#include <errno.h>
#include <sched.h>

#define CLAIM_TURN_NS     6000u         /* so long an owner is left alone */
#define CLAIM_ANSWER_NS   2000u         /* who publishes without a pause, or waits for its turn, answers sooner */
#define CLAIM_PATIENCE_NS 30000u        /* with an owner that does not: it may be interrupted, or waits for this processor */
#define CLAIM_TURN_LEAST  32u           /* messages of a turn that was worth handing the lines over; fewer are an offence */
#define CLAIM_TAKE_LEAST  8192u         /* the same for taking it away, which interrupts all processors */
#define CLAIM_OFFENCE     8u            /* against one turn that was worth it */
#define CLAIM_OFFENCES    80u           /* more, and the claim is shared */
#define CLAIM_CROWDED_NS  1000u         /* shared: between messages of a thread that publishes without a pause */
#define CLAIM_AWAY_NS     3000u         /* some hundred messages of the others */
#define CLAIM_WALK        8u            /* committed cells that a swap looks at: its own, and those of some fellows */

/* The owner's word when this thread owns the claim; shared when it cannot: all seats are other threads', or were. */
static uint64_t claim_seat(struct ps__claim *claim)
{
    uint32_t self = ps__thread_number() + 1;
    if (self > PS__THREAD_LAST) return PS__CLAIM_SHARED;
    for (uint64_t s = 0; s < PS__SEATS; s++) {
        uint32_t whose = ps__load_rlx(&claim->seat[s].thread);
        if (whose == self || (!whose && ps__cas_rlx(&claim->seat[s].thread, &whose, self))) return s << 32 | self;
    }
    return PS__CLAIM_SHARED;
}

/* A turn that began at claim->since ends at tail. What comes next: so many offences, and the claim is shared. */
static uint64_t claim_judge(struct ps__claim *claim, uint32_t tail, uint32_t least, uint64_t next)
{
    uint32_t offences = ps__load_rlx(&claim->offences);
    if (tail - ps__load_rlx(&claim->since) < least) offences += CLAIM_OFFENCE;
    else if (offences) offences--;
    ps__store_rlx(&claim->offences, offences);
    return offences > CLAIM_OFFENCES ? PS__CLAIM_SHARED : next;
}

/* The owner was asked. It is outside, and has committed all that it claimed. */
static void claim_give(struct ps__port *port, uint64_t owner)
{
    struct ps__claim *claim = port->claim;
    uint64_t next = claim_judge(claim, ps__seq(ps__load_rlx(&port->own.lane->tail)), CLAIM_TURN_LEAST, PS__CLAIM_FREE);
    /* SYNC(own) release, other end ps__claim_take: m13.8. It fails where somebody takes the claim away just now. */
    (void)ps__cas_ar(&claim->owner, &owner, next);
}

void ps__claim_take(struct ps__port *port)
{
    struct ps__claim *claim = port->claim;
    uint64_t owner = PS__CLAIM_FREE;
    /* SYNC(own) acquire, other end claim_give: this turn begins where that one ended, and its cells are committed. m13.9 */
    if (!ps__cas_ar(&claim->owner, &owner, claim_seat(claim))) return;
    uint32_t tail = ps__seq(ps__load_rlx(&port->own.lane->tail));
    ps__store_rlx(&claim->since, tail);
    for (uint32_t i = 0; i < PS__PREFETCH; i++)
        put_prefetch_cell(ps__cell_of(&port->own, tail + i), PS__LINE / 2);     /* others' till now */
}

/* The owner was asked and has not answered. */
static void claim_seize(struct ps__port *port, uint64_t owner)
{
    struct ps__claim *claim = port->claim;
    const ps__a32 *inside = &claim->seat[owner >> 32].inside;
    uint64_t next = claim_seat(claim);
    if (!ps__cas_rlx(&claim->owner, &owner, PS__CLAIM_TAKEN)) return;           /* from here on alone: m13.5 */
    ps__fence_heavy();                  /* SYNC(own) other end put_inside: m13.3 */
    /* SYNC(own) acquire, other end put_outside: m13.4. It is a few instructions long, but the owner may not run just now. */
    for (unsigned step = 0; ps__load_acq(inside);) ps__wait_step(&step);
    uint32_t tail = ps__seq(ps__load_rlx(&port->own.lane->tail));
    next = claim_judge(claim, tail, CLAIM_TAKE_LEAST, next);
    ps__store_rlx(&claim->unsure, tail);        /* who owned it may be filling the cell that it claimed last: m13.10 */
    ps__store_rlx(&claim->since, tail);
    ps__store_rel(&claim->owner, next);         /* SYNC(own) release, other end claim_wait, ps__claim_goes_on: m13.6 */
}

/* Until the claim is likely this thread's. 0: all swap. */
static int claim_wait(struct ps__port *port)
{
    struct ps__claim *claim = port->claim;
    uint32_t self = ps__thread_number() + 1;
    uint64_t owner = ps__load_acq(&claim->owner), seen = owner, turn = 0;
    int gave = (uint32_t)owner == (self | PS__CLAIM_ASKED);
    if (gave) {
        claim_give(port, owner);
        seen = PS__CLAIM_FREE;
        turn = CLAIM_TURN_NS;
    }
    unsigned step = 0;
    for (uint64_t since = ps__now_ns();;) {
        owner = ps__load_acq(&claim->owner);    /* SYNC(own) acquire, other end claim_seize: m13.6 */
        const uint32_t who = (uint32_t)owner;
        if (who == PS__CLAIM_SHARED) return 0;
        if ((who & ~PS__CLAIM_ASKED) == self) return 1;
        if (who == PS__CLAIM_TAKEN) {
            ps__wait_step(&step);
            continue;
        }
        uint64_t now = ps__now_ns(), patience = 0;
        if (owner != seen) {            /* the claim goes round: only who comes first asks at once */
            seen = owner;
            since = now;
            turn = CLAIM_TURN_NS;
        }
        if (who != PS__CLAIM_FREE) gave = 0;
        if (gave) patience = CLAIM_ANSWER_NS;
        else if (who & PS__CLAIM_ASKED) patience = CLAIM_PATIENCE_NS;
        else if (who != PS__CLAIM_FREE) patience = turn;

        if (now - since >= patience) {
            if (who == PS__CLAIM_FREE) ps__claim_take(port);
            else if (who & PS__CLAIM_ASKED) claim_seize(port, owner);
            else (void)ps__cas_rlx(&claim->owner, &owner, owner | PS__CLAIM_ASKED);
        } else if (gave || ((who & PS__CLAIM_ASKED) && now - since >= CLAIM_ANSWER_NS)) {
            sched_yield();              /* whose turn it is may need this processor */
        } else {
            ps__pause();
        }
    }
}

/* The claim is this thread's until put_outside(the answer); waits for its turn. NULL: all swap, and so may this thread. */
static ps__a32 *claim_enter(struct ps__port *port)
{
    struct ps__claim *claim = port->claim;
    const uint32_t self = ps__thread_number() + 1;
    ps__a32 *inside = put_inside(claim, self, 0);
    if (inside) return inside;
    if ((uint32_t)ps__load_acq(&claim->owner) == PS__CLAIM_SHARED) return NULL; /* SYNC(own) acquire, as in claim_wait */
    int error = errno, cancel = ps__cancel_off();
    /* Who was given it claims once, though it be asked again: or threads could hand it round and nobody publishes. */
    while (!inside && claim_wait(port)) inside = put_inside(claim, self, PS__CLAIM_ASKED);
    ps__cancel_restore(cancel);
    errno = error;
    return inside;
}

/*
 * Who finds that others swapped since its own last message, and that it is not for the first time within a microsecond, stays
 * away for a while: a turn after all. Who reads in between answers somebody, and is let alone.
 */
void ps__claim_shared(struct ps__port *port)
{
    struct ps__lane *lane = port->own.lane;
    struct ps__claim_run *run = &ps__claim_run;
    uint64_t tail = ps__load_rlx(&lane->tail);
    if (ps__claim_goes_on(port, tail)) return;
    /* A few at a time: it is what room would do for thousands, while somebody waits. SYNC(limit) acquire, as there. */
    (void)ps__ring_walk(port, tail, ps__load_acq(&lane->limit), CLAIM_WALK);
    if (run->claim != port->claim) {
        run->claim = port->claim;
        run->crowded_ns = 0;
        return;
    }
    uint64_t now = ps__now_ns(), until = now + CLAIM_AWAY_NS;
    if (now - run->crowded_ns < CLAIM_CROWDED_NS)
        for (; now < until; now = ps__now_ns())
            for (int i = 0; i < 8; i++) ps__pause();
    run->crowded_ns = now;
}

/*
 * By the owner, inside: is all before tail committed? It has committed all that it claimed, and so had those who gave the claim
 * away; from whom it was taken away perhaps not, but that is before `unsure`: m13.10. Outside unsure may soon be beyond tail.
 */
static int claim_done(const struct ps__port *port, struct ps__lane *lane, uint64_t tail)
{
    uint32_t sure = ps__seq(tail) - ps__load_rlx(&port->claim->unsure);
    return sure >= ps__seq(tail) - ps__seq(ps__load_acq(&lane->limit));
}

/* A full ring ends the owner's turn early, or makes it wait: no offence. */
static void claim_excuse(struct ps__claim *claim, uint32_t tail)
{
    ps__store_rlx(&claim->since, tail - UINT32_MAX / 2);
}

/* A claim where the short ways end: it makes room, or looks for it ahead of need; or another thread has claimed since. */
static PS_NOINLINE int claim_slow(struct ps__port *port, uint32_t units, uint64_t *claimed, uint32_t *first)
{
    struct ps__lane *lane = port->own.lane;
    ps__a32 *inside = claim_enter(port);
    int looked = 0;
    if (!inside) ps__claim_shared(port);
    for (uint64_t tail = ps__load_rlx(&lane->tail), next;;) {
        int room = put_next(port, lane, tail, units, &next, first);
        if (room == PUT_FULL || (room == PUT_MARKED && !looked)) {
            int done = inside && claim_done(port, lane, tail);
            if (inside) put_outside(inside);
            int err = ps__ring_make_room(port, tail, ps__pos(next) - ps__pos(tail), room == PUT_FULL, done);
            if (err) {
                if (inside) claim_excuse(port->claim, ps__seq(tail));
                return err;
            }
            inside = claim_enter(port);
            tail = ps__load_rlx(&lane->tail);
            looked = 1;
            continue;
        }
        if (inside) {
            ps__store_rlx(&lane->tail, next);
            put_outside(inside);
        } else if (PS_LIKELY(ps__cas_rlx(&lane->tail, &tail, next))) {
            put_swapped(port, next);
        } else {
            continue;
        }
        *claimed = tail;
        return 0;
    }
}

/* By swap, of a thread that goes on where its last claim ended; and all that the short ways leave. */
int ps__put_claim(struct ps__port *port, uint32_t units, uint64_t *claimed, uint32_t *first)
{
    struct ps__lane *lane = port->own.lane;
    uint64_t tail = ps__load_rlx(&lane->tail), next;
    if (PS_LIKELY(ps__claim_goes_on(port, tail) && put_next(port, lane, tail, units, &next, first) == PUT_FITS) &&
        PS_LIKELY(ps__cas_rlx(&lane->tail, &tail, next))) {
        put_swapped(port, next);
        *claimed = tail;
        return 0;
    }
    return claim_slow(port, units, claimed, first);
}

#undef CLAIM_TURN_NS
#undef CLAIM_ANSWER_NS
#undef CLAIM_PATIENCE_NS
#undef CLAIM_TURN_LEAST
#undef CLAIM_TAKE_LEAST
#undef CLAIM_OFFENCE
#undef CLAIM_OFFENCES
#undef CLAIM_CROWDED_NS
#undef CLAIM_AWAY_NS
#undef CLAIM_WALK
