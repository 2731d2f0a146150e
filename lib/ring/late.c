/* SPDX-License-Identifier: MIT */
/*
 * late.c - a reader that comes too late: what was overwritten under it, and where it goes on. PROTOCOL 2.
 */
#include "cells.h"

int ps__reader_intact(struct ps__port *port, unsigned lane, const struct ps__copy *m)
{
    const struct ps__view *view = &port->view[lane];
    struct ps__lane *words = view->lane;
    uint64_t c = m->stamp - 1;
    uint32_t kind = ps__kind(m->meta);
    ps__fence_acq();                            /* SYNC(claim) as in ps__cells_fill; SYNC(loan) other end loan_try */
    if (PS_LIKELY(kind != PS__KIND_LOAN && ps__cells_kept(view, c, m->stamp))) return 1;
    uint64_t tail = ps__load_rlx(&words->tail);
    if (ps__seq(tail) - (uint32_t)c > view->cells) return 0;
    if (ps__message_units(kind, m->size, ps__topic_len(m->meta)) && ps__pos(tail) - m->pos > view->units) return 0;
    if (kind == PS__KIND_LOAN && (int64_t)(ps__load_rlx(&words->loan_floor) - c) > 0) return 0;
    return ps__load_rlx(&ps__cell_of(view, c)->stamp) == m->stamp;
}

PS_COLD int ps__reader_step_over(struct ps__port *port, unsigned lane, uint64_t stamp, uint32_t tail_seq)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t c = port->next[lane], cells = view->cells;
    uint64_t known = (int64_t)(stamp - (c + 1)) < 0 ? c : stamp - 1;
    uint64_t oldest = ps__expand(known, tail_seq) - cells;
    /* The lane's own 64-bit count bounds it: a damaged stamp must not send us where nothing will ever be. */
    if (((known - c) & (cells - 1)) == 0 && (int64_t)(oldest - c) > 0 && (int64_t)(ps__lane_tail(view->lane) - oldest) >= 0) {
        ps__reader_skip_lost(port, lane, oldest - c);        /* exact: numbers have no gaps */
        return 1;
    }
    if ((int32_t)(tail_seq - (uint32_t)c) <= 0) return 0;       /* nothing was claimed here */
    if (stamp != c + 1) ps__bump(&port->corrupt, 1);
    ps__reader_skip_lost(port, lane, 1);
    return 1;
}

PS_COLD void ps__reader_flee(struct ps__port *port, unsigned lane, const struct ps__copy *m)
{
    const struct ps__view *view = &port->view[lane];
    uint64_t tail = ps__load_acq(&view->lane->tail), c = m->stamp - 1;
    if (!port->lossy || ps__kind(m->meta) != PS__KIND_RING || ps__seq(tail) - (uint32_t)c > view->cells) return;
    port->flee.lane = lane;
    port->flee.end = ps__expand(c, ps__seq(tail));
    port->flee.pos = ps__pos(tail) - (view->units - view->units / 4);
}
