/* SPDX-License-Identifier: MIT */
/*
 * lag.c - staying behind a flood on purpose.
 *
 * A reader that chases the head makes every message cost both sides several line transfers: the cell, and tail; also a message
 * that it only steps over. When they come that fast it is better to keep off the lines for a moment: the producer runs on, and
 * the next look finds many at once.
 *
 * It is at the head when it finds nothing, or when it took all there was and finds more at once (both sides in step). There it
 * tries a short pause now and then. As long as a pause yields several messages it pauses longer, up to some microseconds; when
 * it yields none, it delivers at once and tries ever more rarely. So a lone message is never held up but by such a try. What is
 * there when a dispatch begins may have come long before the pause: there a few count as none.
 */
#include "ring.h"

#define LAG_LEAST_NS  250u              /* a pause on purpose */
#define LAG_MOST_NS   4000u
#define LAG_WORTH     3u                /* messages that make a pause worth it */
#define LAG_ENOUGH    256u              /* messages that make a pause long enough */
#define LAG_TRY_LEAST 1u                /* times at the head between two tries */
#define LAG_TRY_MOST  4096u

int ps__lag_pause(struct ps__port *port, enum ps__lag_at at)
{
    struct ps__lag *lag = &port->lag;
    unsigned got = lag->got;
    if (got == 0 || port->marked) return 0;             /* with a mark: at the next begin */
    lag->got = 0;
    if (lag->paused) {
        lag->paused = 0;
        if (got < LAG_WORTH && at == PS__LAG_BEGIN) {
            ps__lag_failed(port);               /* the little there was may have come before the pause */
        } else if (got < LAG_WORTH) {
            lag->ns = 0;
        } else {
            lag->try = LAG_TRY_LEAST;
            if (got < LAG_ENOUGH && lag->ns < LAG_MOST_NS) lag->ns *= 2;
        }
    }
    if (!lag->ns) {
        if (lag->wait++ < (at == PS__LAG_IN_STEP ? LAG_TRY_LEAST : lag->try)) return 0;
        lag->wait = 0;
        lag->ns = LAG_LEAST_NS;
    }
    uint64_t until = ps__now_ns() + lag->ns;
    do {
        for (int i = 0; i < 4; i++) ps__pause();
    } while (ps__now_ns() < until);
    lag->paused = 1;
    return 1;
}

/* A pause that was for nothing: no flood. */
void ps__lag_failed(struct ps__port *port)
{
    struct ps__lag *lag = &port->lag;
    lag->paused = 0;
    lag->ns = 0;
    lag->try = lag->try < LAG_TRY_MOST / 2 ? lag->try * 2 + LAG_TRY_LEAST : LAG_TRY_MOST;
}

#undef LAG_LEAST_NS
#undef LAG_MOST_NS
#undef LAG_WORTH
#undef LAG_ENOUGH
#undef LAG_TRY_LEAST
#undef LAG_TRY_MOST
