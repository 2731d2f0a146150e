/* SPDX-License-Identifier: MIT */
/*
 * wake.c - sleep and wake. For messages here (PROTOCOL 5), for space in space.c (PROTOCOL 6).
 *
 * Two words a member, `armed` and `waiting`, odd while it sleeps, each sleep with a number of its own; two bells, so that
 * nobody drains a bell whose word he did not arm (m10). Whoever changes what a sleeper waits for fences, looks at the word,
 * and rings once per sleep; the number it rang for is private to the handle, and the word is the sleeper's alone.
 *
 * A third descriptor, the event, is private to the handle: wake(), ps_stop(), and "something was left" of ps_fd().
 *
 * SYNC(sleep) sleeper: drain, armed, own bit, fence, look (m5.5, m5.10, m5.12, m5b.2). Publisher: commit, fence, look at bit
 * and armed (publish_fast).
 */
#include "ring.h"
#include <errno.h>
#include <time.h>

#define WAKE_INSURANCE_MS 1000          /* longest sleep without a look; tests go without it, so that a lost wake hangs */

/* ------------------------------------------------------------------ ringing */

/* Off the fast path: somebody sleeps. The number is remembered only after the bell rang (m5.4). */
PS_COLD static int wake_ring(struct ps__port *port, unsigned r, int which)
{
    int error = errno, cancel = ps__cancel_off();
    int rung = port->env->ring(port, r, which);
    ps__cancel_restore(cancel);
    errno = error;
    if (rung) ps__add_rlx(&port->wakes, 1);
    return rung;
}

void ps__wake_reader(struct ps__port *port, unsigned r)
{
    uint64_t armed = ps__load_rlx(&port->reader[r]->armed);
    if (!(armed & 1) || ps__load_rlx(&port->rung[r]) == armed) return;
    if (wake_ring(port, r, PS__BELL_MESSAGE)) ps__store_rlx(&port->rung[r], armed);
}

void ps__wake_asleep(struct ps__port *port, unsigned w, uint64_t asleep)
{
    while (asleep) {
        unsigned r = w * 64 + (unsigned)__builtin_ctzll(asleep);
        asleep &= asleep - 1;
        if (r < port->members) ps__wake_reader(port, r);
    }
}

/* Whoever sleeps, whatever it wants. */
void ps__wake_all(struct ps__port *port)
{
    for (unsigned w = 0; w < port->set_words; w++) ps__wake_asleep(port, w, ps__load_rlx(&port->words->sleepers[w]));
}

void ps__wake_waiters_slow(struct ps__port *port, unsigned lane)
{
    for (unsigned w = 0; w < port->set_words; w++) {
        uint64_t waiting = ps__load_rlx(&port->words->waiters[w]);
        if (!port->shared_lane) waiting &= lane / 64 == w ? ps__set_bit(lane) : 0;
        while (waiting) {
            unsigned r = w * 64 + (unsigned)__builtin_ctzll(waiting);
            waiting &= waiting - 1;
            if (r >= port->members) break;
            uint64_t number = ps__load_rlx(&port->reader[r]->waiting);
            if (!(number & 1) || ps__load_rlx(&port->rung_space[r]) == number) continue;
            if (wake_ring(port, r, PS__BELL_SPACE)) ps__store_rlx(&port->rung_space[r], number);
        }
    }
}

/* ------------------------------------------------------------------ the event */

PS_COLD void ps__wake_signal(struct ps__port *port)
{
    if (!ps__kept_valid(&port->sleep.event)) return;
    ps__event_signal(ps__kept_fd(&port->sleep.event));
    ps__store_rel(&port->sleep.event_set, 1);   /* behind the signal: who clears for it clears a signal that was there */
}

static void wake_clear(struct ps__port *port)
{
    if (!ps__load_rlx(&port->sleep.event_set)) return;
    ps__store_rlx(&port->sleep.event_set, 0);
    if (ps__kept_valid(&port->sleep.event)) ps__event_clear(ps__kept_fd(&port->sleep.event));
}

PS_COLD void ps__port_wake(void *state)
{
    struct ps__port *port = state;
    ps__store_rlx(&port->sleep.woken, 1);
    ps__fence_sc();                             /* either the event is there, or ps__port_wait sees woken behind making it */
    ps__wake_signal(port);
}

PS_COLD static int wake_event(struct ps__port *port)
{
    int err = 0;
    if (ps__kept_fd(&port->sleep.event) < 0) {
        pthread_mutex_lock(&port->sleep.fds);
        if (ps__kept_fd(&port->sleep.event) < 0) err = ps__kept_event(&port->sleep.event);
        pthread_mutex_unlock(&port->sleep.fds);
        ps__fence_sc();                         /* other end ps__port_wake */
    }
    if (err) return ps__fail_sys(-err, "no descriptor to sleep on");
    return ps__kept_valid(&port->sleep.event) ? 0 : ps__fail(PS_ESYS, "the program has closed this handle's descriptors");
}

/* A set and a timer have no inode of their own: the event, which has one, tells the set, and the set tells its timer. */
PS_COLD int ps__sleep_pollset(struct ps__port *port)
{
    int set = ps__load_acq(&port->sleep.pollset);
    return set >= 0 && ps__kept_valid(&port->sleep.event) && ps__pollset_has(set, ps__kept_fd(&port->sleep.event)) ? set : -1;
}

PS_COLD static int sleep_timer_fd(struct ps__port *port)
{
    int set = ps__sleep_pollset(port), timer = ps__load_acq(&port->sleep.timer);
    return set >= 0 && timer >= 0 && ps__pollset_has(set, timer) ? timer : -1;
}

PS_COLD void ps__sleep_timer(struct ps__port *port, int ms)
{
    pthread_mutex_lock(&port->sleep.fds);
    int timer = sleep_timer_fd(port);
    if (timer >= 0) ps__timer_set(timer, ms);
    ps__store_rlx(&port->sleep.timer_runs, ms != 0);
    pthread_mutex_unlock(&port->sleep.fds);
}

/* ------------------------------------------------------------------ asleep for messages */

static void sleep_arm(struct ps__port *port)
{
    struct ps__reader *reader = port->reader[port->slot];
    port->env->drain(port, PS__BELL_MESSAGE);           /* before the last look, never after it: m5b.2 */
    ps__store_rlx(&reader->armed, ++port->sleep.number);        /* odd, and never used before: m5b.1 */
    ps__or_rlx(&port->words->sleepers[port->slot / 64], ps__set_bit(port->slot));       /* a locked operation: m5.11 */
    ps__fence_sc();                             /* SYNC(sleep) other end publish_fast */
    port->sleep.armed = 1;
    ps__bump(&port->sleeps, 1);
}

static void sleep_disarm(struct ps__port *port)
{
    if (!port->sleep.armed) return;
    port->sleep.armed = 0;
    ps__store_rlx(&port->reader[port->slot]->armed, ++port->sleep.number);
    ps__and_rlx(&port->words->sleepers[port->slot / 64], ~ps__set_bit(port->slot));
}

static void sleep_begin(struct ps__port *port)
{
    sleep_disarm(port);
    wake_clear(port);
    /* Whoever set it: what ran out stays readable until it is stopped. Before the look: a refusal behind it sets it anew. */
    if (ps__load_rlx(&port->sleep.timer_runs)) ps__sleep_timer(port, 0);
    if (ps__load_rlx(&port->space.wanted)) {
        int rung = ps__space_came(port, 1);
        if (!rung) ps__sleep_timer(port, PS__SLICE_MS);
        port->sleep.told |= rung;       /* if it would sleep otherwise, it returns */
    }
    if (ps__load_rlx(&port->space.polled) && !ps__load_rlx(&port->space.wanted)) ps__space_quiet(port);
}

static void sleep_end(struct ps__port *port)
{
    unsigned blocked;
    if (ps__reader_look(port, &blocked) <= 0) {
        sleep_arm(port);
        /* Nobody rings the deaf, nor for a claim whose owner died, nor again for a lane that could not be mapped: in a while. */
        int found = ps__reader_look(port, &blocked);
        if (found <= 0) {
            if (found || ps__load_rlx(&port->sleep.deaf) || blocked < PS_MEMBERS_MAX) ps__sleep_timer(port, PS__SLICE_MS);
            return;
        }
        sleep_disarm(port);
    }
    ps__wake_signal(port);
}

/* With a descriptor both call the system, and a thread that were cancelled there would leave the dispatch owned for ever. */
void ps__sleep_begin(struct ps__port *port)
{
    int cancel = ps__cancel_off();
    sleep_begin(port);
    ps__cancel_restore(cancel);
}

void ps__sleep_end(struct ps__port *port)
{
    int cancel = ps__cancel_off();
    sleep_end(port);
    ps__cancel_restore(cancel);
}

/* ------------------------------------------------------------------ wait, fd */

static int wait_spin(struct ps__port *port, uint64_t deadline_ns)
{
    if (!port->spin_us) return 0;
    uint64_t until = ps__now_ns() + (uint64_t)port->spin_us * 1000u;
    if (deadline_ns && deadline_ns < until) until = deadline_ns;
    do {
        for (int i = 0; i < 32; i++) {
            if (ps__reader_look(port, NULL) || ps__load_rlx(&port->sleep.woken)) return 1;
            ps__pause();
        }
    } while (!ps__load_rlx(&port->space.wanted) && ps__now_ns() < until);       /* room is looked for asleep */
    return 0;
}

/* One sleep. 1 look again, 0 this slice is over, 2 woken, 3 space; or an error. */
static int wait_sleep(struct ps__port *port, uint64_t deadline_ns)
{
    unsigned blocked;
    int has_slot = ps__has_slot(port), bell = -1;
    if (has_slot) {
        bell = port->env->bell(port, PS__BELL_MESSAGE);
        if (bell < 0) return ps__fail_sys(-bell, "no descriptor to sleep on");
        sleep_arm(port);
    }
    int result = 1, space = 0;
    if (ps__reader_look(port, &blocked)) goto awake;
    if (ps__load_rlx(&port->space.wanted)) {
        ps__space_watch(port);
        if (ps__load_rlx(&port->space.event)) ps__wake_signal(port);
        space = 1;
    }
    uint64_t slice = 0;
    if (blocked < PS_MEMBERS_MAX || !has_slot || space || ps__load_rlx(&port->sleep.deaf)) slice = ps__deadline_ns(PS__SLICE_MS);
#ifndef PS_TEST_HOOKS
    else slice = ps__deadline_ns(WAKE_INSURANCE_MS);
#endif
    if (deadline_ns && (!slice || deadline_ns < slice)) slice = deadline_ns;
    struct pollfd fds[3] = { { ps__kept_fd(&port->sleep.event), POLLIN, 0 }, { bell, POLLIN, 0 },
                             { space ? ps__load_rlx(&port->space.fd) : -1, POLLIN, 0 } };
    result = 2;
    if (ps__load_rlx(&port->sleep.woken)) goto awake;
    int ready = ps__poll(fds, 3, slice);
    result = ready < 0 ? ps__fail_sys(-ready, "poll") : ready > 0;
    if (fds[0].revents) wake_clear(port);
    if (space && ps__space_came(port, result == 0)) result = 3;
    if (result == 0 && blocked < PS_MEMBERS_MAX) port->env->repair(port, blocked);
awake:
    if (has_slot) sleep_disarm(port);
    return result;
}

int ps__port_wait(void *state, int timeout_ms)
{
    struct ps__port *port = state;
    uint64_t deadline = ps__deadline_ns(timeout_ms);
    port->marked = 0;                           /* whatever comes ends the sleep, also behind the mark */
    ps__reader_flush(port);
    if (port->sleep.told) {
        port->sleep.told = 0;
        return 0;
    }
    int result = wake_event(port);
    if (result) return result;
    if (!ps__load_rlx(&port->sleep.woken) && wait_spin(port, deadline) && !ps__load_rlx(&port->sleep.woken)) return 1;
    int cancel = ps__cancel_off();
    ps__store_rlx(&port->sleep.in_wait, 1);
    ps__fence_sc();                             /* other end space_refused */
    do {
        if (ps__load_rlx(&port->sleep.woken)) {
            result = 2;
            break;
        }
        result = ps__now_coarse_ms() - port->checked_ms >= 1000 ? port->env->check(port) : 0;
        if (result == 0) result = wait_sleep(port, deadline);
    } while (result == 0 && (deadline == 0 || ps__now_ns() < deadline));
    ps__store_rlx(&port->sleep.in_wait, 0);
    if (result == 2) ps__store_rlx(&port->sleep.woken, 0);
    ps__cancel_restore(cancel);
    return result == 3 ? 0 : result;
}

/* Under port->sleep.fds: the set and its timer, which may be needed when there is no descriptor to be had. */
PS_COLD static int fd_make(struct ps__port *port, int bell)
{
    int set = ps__pollset_open(), timer = ps__timer_open(), err = set < 0 ? set : timer < 0 ? timer : 0;
    if (!err) err = ps__pollset_add(set, ps__kept_fd(&port->sleep.event));
    if (!err) err = ps__pollset_add(set, bell);
    if (!err) err = ps__pollset_add(set, timer);
    if (err) {
        ps__close_fd(timer);
        ps__close_fd(set);
        return err;
    }
    ps__store_rel(&port->sleep.timer, timer);
    ps__store_rel(&port->sleep.pollset, set);
    return 0;
}

PS_COLD int ps__port_fd(void *state)
{
    struct ps__port *port = state;
    if (ps__load_acq(&port->sleep.pollset) >= 0) return ps__load_acq(&port->sleep.pollset);
    if (!ps__has_slot(port)) return ps__fail(PS_ENOTSUP, "a handle with observe=1 has no descriptor");
    int err = wake_event(port), bell = port->env->bell(port, PS__BELL_MESSAGE);
    if (err) return err;
    if (bell < 0) return ps__fail_sys(-bell, "no descriptor to sleep on");
    pthread_mutex_lock(&port->sleep.fds);
    ps__fork_hold();                            /* as with the event */
    if (ps__load_acq(&port->sleep.pollset) < 0) err = fd_make(port, bell);
    ps__fork_release();
    pthread_mutex_unlock(&port->sleep.fds);
    if (err) return ps__fail_sys(-err, "no descriptor for ps_fd");
    ps__store_rlx(&port->sleep.fd_used, 1);
    ps__fence_sc();                             /* other end space_refused */
    if (ps__load_rlx(&port->space.wanted)) ps__space_watch(port);
    ps__wake_signal(port);                          /* readable at once: nobody has looked yet */
    return ps__load_acq(&port->sleep.pollset);
}

PS_COLD int ps__wake_open(struct ps__port *port)
{
    ps__kept_none(&port->sleep.event);
    ps__store_rlx(&port->sleep.pollset, -1);
    ps__store_rlx(&port->sleep.timer, -1);
    ps__store_rlx(&port->space.fd, -1);
    if (ps__has_slot(port)) {                   /* numbers go on where the slot's last owner stopped: never the same twice */
        struct ps__reader *reader = port->reader[port->slot];
        port->sleep.number = (ps__load_rlx(&reader->armed) + 1) & ~(uint64_t)1;
        port->space.number = (ps__load_rlx(&reader->waiting) + 1) & ~(uint64_t)1;
        ps__store_rlx(&reader->armed, port->sleep.number);
        ps__store_rlx(&reader->waiting, port->space.number);
        ps__and_rlx(&port->words->sleepers[port->slot / 64], ~ps__set_bit(port->slot));
        ps__and_rlx(&port->words->waiters[port->slot / 64], ~ps__set_bit(port->slot));
    }
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr)) return ps__fail(PS_ENOMEM, "no memory for a condition");
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    int err = pthread_cond_init(&port->space.cond, &attr);
    pthread_condattr_destroy(&attr);
    if (err) return ps__fail(PS_ENOMEM, "no memory for a condition");
    pthread_mutex_init(&port->space.lock, NULL);
    pthread_mutex_init(&port->sleep.fds, NULL);
    return 0;
}

/* The descriptors of this file; the bells belong to the memory's owner. */
PS_COLD void ps__wake_close(struct ps__port *port, int forked)
{
    int timer = sleep_timer_fd(port), set = ps__sleep_pollset(port);
    ps__close_fd(timer);
    ps__close_fd(set);
    ps__kept_close(&port->sleep.event);
    if (forked) return;                 /* threads that are not here may wait on it: destroying it would wait for them */
    pthread_cond_destroy(&port->space.cond);
    pthread_mutex_destroy(&port->space.lock);
    pthread_mutex_destroy(&port->sleep.fds);
}

#undef WAKE_INSURANCE_MS
