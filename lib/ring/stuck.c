/* SPDX-License-Identifier: MIT */
/*
 * stuck.c - lanes that stand still for a reader: before a claim whose owner may be dead, or behind words that were damaged.
 */
#include "cells.h"
#include <errno.h>

/* A cursor beyond what the lane has claimed comes of words that were damaged: back to where the lane is. */
static void stuck_resync(struct ps__port *port)
{
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high && !port->borrowing; l++) {
        uint64_t tail = ps__lane_tail(port->view[l].lane);
        if ((int64_t)(port->next[l] - tail) <= 0) continue;
        ps__bump(&port->corrupt, 1);
        ps__cells_drop(port);
        port->next[l] = tail - 1;
        ps__reader_skip_lost(port, l, 1);            /* how many were missed nobody can know any more: not none */
        ps__reader_show(port, l);
    }
}

/* Every 10 ms: lanes that stand before an unfinished claim are repaired if their owner is dead. */
PS_COLD void ps__reader_unstick(struct ps__port *port, uint64_t now)
{
    port->stuck_ms = now;
    stuck_resync(port);
    if (port->shared_lane) return;
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        const struct ps__view *view = &port->view[l];
        if (!view->cell || ps__diff(ps__seq(ps__load_rlx(&view->lane->tail)), (uint32_t)port->next[l]) <= 0) continue;
        if (ps__load_acq(&view->cell[port->next[l] & (view->cells - 1)].stamp) == port->next[l] + 1) continue;
        int error = errno, cancel = ps__cancel_off();
        (void)port->env->repair(port, l);       /* asks the kernel: does anybody hold the owner's lock? */
        ps__cancel_restore(cancel);
        errno = error;
    }
}
