/* SPDX-License-Identifier: MIT */
/*
 * space.c - waiting for room in the own lane, or for a loan. PROTOCOL 6.
 *
 * A publish with block= waits in its own call. Of one that was refused the handle remembers it, and its next dispatch, or its
 * descriptor, tells when it may be tried again.
 *
 * SYNC(space) waiter: drain, waiting, own bit, fence, room (m6.1, m6.2). Others: change, fence, look (ps__wake_waiters).
 */
#include "ring.h"
#include <errno.h>
#include <time.h>

#define SPACE_SPIN_NS 50000u            /* a wake costs as much on both sides together */

/* Under port->space.lock, without a leader. 1: it was not armed before, so what came before must be looked at. */
PS_COLD static int space_arm(struct ps__port *port)
{
    if (port->space.armed) return 0;
    int fd = ps__load_rlx(&port->space.fd);
    if (fd < 0) ps__store_rlx(&port->space.fd, fd = port->env->bell(port, PS__BELL_SPACE));
    if (fd < 0) return 1;                       /* no descriptor: slices will do */
    int set = ps__load_rlx(&port->space.polled) ? -1 : ps__sleep_pollset(port);
    if (set >= 0) ps__store_rlx(&port->space.polled, ps__pollset_add(set, fd) == 0);
    port->env->drain(port, PS__BELL_SPACE);
    ps__store_rlx(&port->reader[port->slot]->waiting, ++port->space.number);
    ps__or_rlx(&port->words->waiters[port->slot / 64], ps__set_bit(port->slot));
    ps__fence_sc();                             /* SYNC(space) other ends: whoever calls ps__wake_waiters */
    port->space.armed = 1;
    return 1;
}

PS_COLD static void space_disarm(struct ps__port *port)
{
    if (!port->space.armed) return;
    port->space.armed = 0;
    ps__store_rlx(&port->reader[port->slot]->waiting, ++port->space.number);
    ps__and_rlx(&port->words->waiters[port->slot / 64], ~ps__set_bit(port->slot));
}

PS_COLD static int space_room(struct ps__port *port, uint32_t units, int full)
{
    if (units == PS__WANT_LOAN) return ps__loans_again(port);
    uint64_t tail = ps__load_rlx(&port->own.lane->tail);
    return ps__ring_room(port, tail, ps__ring_extent(&port->own, tail, units), full);
}

/*
 * Room for an eighth of the ring at once, within some microseconds: a reader that runs makes it in that time, and then neither
 * side pays for a bell. 0: not so, sleep.
 */
static int space_spin(struct ps__port *port, uint32_t units, uint64_t deadline_ns)
{
    uint32_t eighth = port->own.units / 8;
    if (units > eighth) return 0;               /* a loan, too */
    uint64_t until = ps__now_ns() + SPACE_SPIN_NS;
    if (deadline_ns && deadline_ns < until) until = deadline_ns;
    do {
        for (int i = 0; i < 64; i++) ps__pause();
        uint64_t tail = ps__load_rlx(&port->own.lane->tail);
        if (space_room(port, eighth, 0) &&
            ps__seq(tail) - ps__seq(ps__load_acq(&port->own.lane->limit)) <= port->own.cells - port->own.cells / 8)
            return 1;
    } while (ps__now_ns() < until);
    return 0;
}

/* A publish that was refused may be tried again. */
static void space_tell(struct ps__port *port)
{
    ps__store_rlx(&port->space.event, 1);
    ps__wake_signal(port);
}

/* One leader polls the bell; further threads of the handle queue behind it and retry with it. 0: time is over. */
PS_COLD static int space_wait(struct ps__port *port, uint32_t units, uint64_t deadline_ns)
{
    uint64_t now = ps__now_ns(), slice = now + (uint64_t)PS__SLICE_MS * 1000000u;
    if (deadline_ns && now >= deadline_ns) return 0;
    if (deadline_ns && deadline_ns < slice) slice = deadline_ns;
    if (!ps__load_rlx(&port->space.leader) && space_spin(port, units, deadline_ns)) return 1;
    int error = errno, cancel = ps__cancel_off();
    pthread_mutex_lock(&port->space.lock);
    if (ps__load_rlx(&port->space.leader)) {
        struct timespec until = { (time_t)(slice / 1000000000u), (long)(slice % 1000000000u) };
        pthread_cond_timedwait(&port->space.cond, &port->space.lock, &until);
        pthread_mutex_unlock(&port->space.lock);
    } else {
        ps__store_rlx(&port->space.leader, 1);
        space_disarm(port);                     /* a number of its own for this wait */
        space_arm(port);
        pthread_mutex_unlock(&port->space.lock);
        if (!space_room(port, units, 1) && !port->host->closing(port->host)) {
            struct pollfd fd = { ps__load_rlx(&port->space.fd), POLLIN, 0 };
            ps__poll(&fd, fd.fd >= 0, slice);
        }
        pthread_mutex_lock(&port->space.lock);
        space_disarm(port);
        ps__store_rlx(&port->space.leader, 0);
        pthread_cond_broadcast(&port->space.cond);
        pthread_mutex_unlock(&port->space.lock);
        if (ps__load_rlx(&port->space.wanted)) space_tell(port);        /* this bell may have been for the refused one too */
    }
    ps__cancel_restore(cancel);
    errno = error;
    return 1;
}

/* Is there room now? A reader that died meanwhile is noticed here. */
static int space_again(struct ps__port *port)
{
    return space_room(port, ps__load_rlx(&port->space.units), 1);
}

/* Makes sure that a dispatch or the descriptor tells when a refused publish may be tried again: right now, perhaps. */
PS_COLD void ps__space_watch(struct ps__port *port)
{
    pthread_mutex_lock(&port->space.lock);
    int armed = !ps__load_rlx(&port->space.leader) && space_arm(port);  /* a leader tells when it is done */
    pthread_mutex_unlock(&port->space.lock);
    if (ps__load_rlx(&port->sleep.fd_used)) ps__sleep_timer(port, PS__SLICE_MS);
    if (armed && space_again(port)) space_tell(port);   /* armed before: then the refusal itself came behind it */
}

/* Nobody waits: a ring that came late would keep the descriptor readable for ever. */
void ps__space_quiet(struct ps__port *port)
{
    pthread_mutex_lock(&port->space.lock);
    if (!ps__load_rlx(&port->space.leader)) {
        space_disarm(port);
        (void)port->env->drain(port, PS__BELL_SPACE);
    }
    pthread_mutex_unlock(&port->space.lock);
}

static void space_refused(struct ps__port *port, uint32_t units)
{
    int error = errno, cancel = ps__cancel_off();
    ps__store_rlx(&port->space.units, units);
    ps__store_rlx(&port->space.wanted, 1);
    ps__fence_sc();                             /* other ends: in_wait in ps__port_wait, fd_used in ps__port_fd */
    if (ps__load_rlx(&port->sleep.fd_used)) {
        ps__space_watch(port);
    } else if (ps__load_rlx(&port->sleep.in_wait)) {
        ps__wake_signal(port);                      /* the sleeper watches for it from now on */
    }
    ps__cancel_restore(cancel);
    errno = error;
}

/* Has the bell for space been rung for nobody but the refused? Then one is told. */
static int space_rung(struct ps__port *port)
{
    int rung = 0;
    if (!ps__load_rlx(&port->space.wanted)) return 0;
    pthread_mutex_lock(&port->space.lock);
    if (ps__load_rlx(&port->space.event)) rung = 1;
    if (!ps__load_rlx(&port->space.leader) && port->space.armed && port->env->drain(port, PS__BELL_SPACE)) {
        space_disarm(port);
        rung = 1;
    }
    if (rung) ps__store_rlx(&port->space.event, 0);
    pthread_mutex_unlock(&port->space.lock);
    return rung;
}

/* May the refused publish be tried again? Whoever asked is told by the answer. look: also where nobody rang. */
int ps__space_came(struct ps__port *port, int look)
{
    int came = space_rung(port) || (look && space_again(port));
    if (came) ps__store_rlx(&port->space.wanted, 0);
    return came;
}

/*
 * The end of an attempt that found no room: waits for some where the URL and the caller allow it. 0: try again; or an error, for
 * which the caller says what is full. *deadline is 0 before the first.
 */
int ps__space_retry(struct ps__port *port, uint32_t units, int wait, uint64_t *deadline, const char *full)
{
    if (wait && port->block_ms) {
        if (!*deadline) *deadline = ps__deadline_ns(port->block_ms);
        if (space_wait(port, units, *deadline))
            return port->host->closing(port->host) ? ps__fail(PS_ECLOSED, "closed while waiting for room") : 0;
    }
    ps__add_rlx(&port->refused, 1);
    space_refused(port, units);
    return ps__fail(PS_EAGAIN, "%s", full);
}

#undef SPACE_SPIN_NS
