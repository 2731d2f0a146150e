/* SPDX-License-Identifier: MIT */
/*
 * port.c - a handle's private side as a whole: set up and torn down, its counters, and who else is on the bus.
 *
 * inproc.c and shm.c allocate the shared memory, point the port into it, and use the functions of this folder as their
 * transport operations.
 */
#include "interest.h"
#include <stdlib.h>
#include <unistd.h>

/* The caller has set words, reader[], about[], bits[], view[].lane, members, slot, lane, shared_lane, publisher. */
int ps__port_open(struct ps__port *port, ps_host *host, const ps_url *url, const struct ps__env *env)
{
    port->host = host;
    port->env = env;
    port->set_words = port->members <= 64 ? 1 : PS__SET_WORDS;
    port->lanes = port->shared_lane ? 1 : port->members;
    port->observe = url->observe;
    port->lossy = url->lossy || url->observe;
    port->echo = url->echo;
    port->block_ms = url->block_ms;
    port->evict_ms = url->evict_ms;
    port->spin_us = url->spin_us;
    if (!port->claim) port->claim = &port->claim_own;
    if (!port->observe) {
        port->inline_most = PS__INLINE;
        port->own.lane = port->view[port->lane].lane;
    }
    ps__store_rlx(&port->token_own, UINT64_MAX);        /* no publisher's number */
    ps__store_rlx(&port->token, &port->token_own);
    ps__store_rlx(&port->guess, (struct ps__cell *)(void *)port->window.copy);  /* memory of ours, until the lane is reserved */
    int err = ps__memo_open(port);
    if (err) return err;
    if ((err = ps__wake_open(port))) {
        ps__memo_close(port);
        return err;
    }
    pthread_mutex_init(&port->setup, NULL);
    pthread_mutex_init(&port->patience, NULL);
    return 0;
}

void ps__port_close(struct ps__port *port, int forked)
{
    ps__wake_close(port, forked);
    pthread_mutex_destroy(&port->setup);
    pthread_mutex_destroy(&port->patience);
    ps__interest_forget(port);
    ps__memo_close(port);
    free(port->buffer);
    free(port->lease);
    port->buffer = NULL;
    port->lease = NULL;
}

/* What a slot's new owner says of itself; what the last one left is overwritten. */
void ps__port_introduce(struct ps__port *port, const char *name)
{
    struct ps__about *about = port->about[port->slot];
    struct ps__reader *reader = port->reader[port->slot];
    ps__interest_clear(port->words, about, port->bits[port->slot]);
    ps__store_rlx(&reader->join, 0);
    ps__store_rlx(&reader->borrow, 0);
    /* A number of its own even for who never joins: publishers that marked the dead owner see that somebody new is here. */
    ps__store_rlx(&reader->join_last, ps__load_rlx(&reader->join_last) + 1);
    ps__store_rlx(&about->publisher, ps__publisher_id(port->lane, port->publisher));
    ps__store_rlx(&about->pid, (uint64_t)getpid());
    ps__store_rlx(&about->flags, (port->lossy ? PS__ABOUT_LOSSY : 0) | (port->echo ? 0 : PS__ABOUT_NO_ECHO));
    ps__store_rlx(&about->lost, 0);
    ps__store_rlx(&about->unwanted, 0);
    ps__store_rlx(&about->published, 0);
    ps__store_rlx(&about->evicted, 0);
    ps__store_rlx(&about->idle_at_ms, ps__now_coarse_ms());
    char text[sizeof about->name] = { 0 };
    for (size_t i = 0; i < PS_NAME_MAX && name[i]; i++) text[i] = name[i];
    for (size_t i = 0; i < sizeof text / 8; i++) {
        uint64_t word;
        memcpy(&word, text + i * 8, 8);
        ps__store_rlx(&about->name[i], word);
    }
    /* Scans of slots are bounded by this word; raised before anything of the slot counts. */
    ps__raise(&port->words->slots_high, port->slot + 1);
    ps__store_rel(&about->used, 1);
}

PS_COLD void ps__port_retire(struct ps__port *port)
{
    if (port->borrowing) ps__store_rel(&port->reader[port->slot]->borrow, 0);
    ps__reader_leave(port);
    ps__interest_clear(port->words, port->about[port->slot], port->bits[port->slot]);
    ps__store_rel(&port->about[port->slot]->used, 0);
    ps__fence_sc();                     /* SYNC(space): a borrow has ended, loans came back */
    for (unsigned l = 0; l < port->lanes; l++) ps__wake_waiters(port, l);
}

void ps__port_geometry(struct ps__port *port, struct ps__geometry *g)
{
    if (ps__geometry_unpack(ps__load_rlx(&port->words->geometry), g)) memset(g, 0, sizeof *g);
}

/* Messages of a lane that a cursor has not come to; what is overwritten counts as well. */
static uint64_t port_behind(struct ps__lane *lane, uint64_t cursor)
{
    uint64_t tail = ps__lane_tail(lane);
    return (int64_t)(tail - cursor) > 0 ? tail - cursor : 0;
}

static uint64_t port_published(struct ps__port *port)
{
    if (port->shared_lane) {
        uint64_t sum = ps__load_rlx(&port->published_rest);
        for (unsigned i = 0; i < PS__TALLIES; i++) sum += ps__load_rlx(&port->published[i].count);
        return sum;
    }
    return ps__load_acq(&port->ready) ? ps__lane_tail(port->own.lane) - port->first_number : 0;
}

/* Overwritten, but not come to yet: told at once, because no later message may ever tell it. 0 while a dispatch comes to it. */
static uint64_t port_overtaken(struct ps__port *port, const struct ps__geometry *g)
{
    uint64_t sum = 0, depth = (uint64_t)1 << g->depth_log;
    int moved = 0;
    if (!ps__has_slot(port) || !g->fixed || !ps__load_acq(&port->joined) || ps__load_acq(&port->reading)) return 0;
    unsigned high = ps__lanes_high(port);
    for (unsigned l = 0; l < high; l++) {
        if (l == port->lane && !port->echo && !port->shared_lane) continue;
        const ps__a64 *word = &port->reader[port->slot]->cursor[l];
        uint64_t cursor = ps__load_acq(word), held = l == ps__load_rlx(&port->held_lane) ? ps__load_rlx(&port->held) : 0;
        uint64_t behind = port_behind(port->view[l].lane, cursor + held);
        if (behind > depth) sum += behind - depth;
        ps__fence_acq();                        /* cursor and held are of one time */
        moved |= ps__load_rlx(word) != cursor || ps__load_rlx(&port->reading);
    }
    return moved ? 0 : sum;
}

void ps__port_stats(void *state, ps_bus_stats *stats)
{
    struct ps__port *port = state;
    struct ps__geometry g;
    stats->publisher = port->observe ? 0 : ps__publisher_id(port->lane, port->publisher);
    stats->published = port_published(port);
    stats->unwanted = ps__load_rlx(&port->unwanted);
    stats->lost = ps__load_rlx(&port->lost);
    stats->refused = ps__load_rlx(&port->refused);
    stats->evicted = ps__load_rlx(&port->evicted);
    stats->evictions = ps__load_rlx(&port->evictions);
    stats->wakes = ps__load_rlx(&port->wakes);
    stats->sleeps = ps__load_rlx(&port->sleeps);
    stats->corrupt = ps__load_rlx(&port->corrupt);
    stats->members = port->members;
    stats->memory = port->env->memory(port, PS_MEMBERS_MAX);
    ps__port_geometry(port, &g);
    stats->depth = (uint64_t)1 << g.depth_log;
    stats->bytes = ps__payload_size(&g);
    stats->loans = ps__loans_size(&g);
    stats->publisher_memory = port->shared_lane ? 0 : ps__ring_size(&g);
    stats->message_max = ps__message_max(ps__payload_size(&g));
    stats->loan_max = ps__loan_max(ps__loans_size(&g));
    stats->lost += port_overtaken(port, &g);
    ps__raise(&port->lost_told, stats->lost);
    stats->lost = ps__load_rlx(&port->lost_told);       /* what is lost stays so, also while a dispatch comes to it */
}

/* Percent of a lane's ring that waits for a reader. Its place in the payload is known only while it stands at limit, where its
 * publisher finds it as soon as it runs out of room. */
static uint64_t port_full(struct ps__lane *lane, uint64_t cursor, const struct ps__geometry *g)
{
    uint64_t behind = port_behind(lane, cursor), limit = ps__load_acq(&lane->limit), tail = ps__load_acq(&lane->tail);
    if (behind == 0) return 0;
    if (behind >> g->depth_log) return 100;
    uint64_t full = behind * 100 >> g->depth_log, bytes = 0;
    if (ps__diff((uint32_t)cursor, ps__seq(limit)) <= 0) bytes = (uint64_t)(ps__pos(tail) - ps__pos(limit)) * 100 >> g->units_log;
    if (bytes > full) full = bytes;
    return full < 100 ? full : 100;
}

static void port_describe(struct ps__port *port, unsigned slot, int alive, const ps_topic *topic, ps_member *member)
{
    struct ps__about *about = port->about[slot];
    struct ps__reader *reader = port->reader[slot];
    uint64_t flags = ps__load_rlx(&about->flags), idle_at = ps__load_rlx(&about->idle_at_ms), now = ps__now_coarse_ms();
    memset(member, 0, sizeof *member);
    member->size = sizeof *member;
    member->slot = slot;
    member->pid = (int32_t)ps__load_rlx(&about->pid);
    member->publisher = ps__load_rlx(&about->publisher);
    member->lost = ps__load_rlx(&about->lost);
    member->unwanted = ps__load_rlx(&about->unwanted);
    member->filter_count = ps__load_rlx(&about->filters);
    member->memory = port->env->memory(port, slot);
    member->evicted = ps__load_rlx(&about->evicted);
    member->idle_ms = now > idle_at ? now - idle_at : 0;
    char text[sizeof about->name];
    for (size_t i = 0; i < sizeof text / 8; i++) {
        uint64_t word = ps__load_rlx(&about->name[i]);
        memcpy(text + i * 8, &word, 8);
    }
    memcpy(member->name, text, PS_NAME_MAX);            /* the rest stays zero, whatever stands in shared memory */
    if (slot == port->slot) {
        member->flags |= PS_MEMBER_SELF;
        member->unwanted = ps__load_rlx(&port->unwanted);
        if (port->shared_lane) ps__store_rlx(&about->published, port_published(port));
    }
    if (flags & PS__ABOUT_SENDS) member->flags |= PS_MEMBER_PUBLISHER;
    if (flags & PS__ABOUT_LOSSY) member->flags |= PS_MEMBER_LOSSY;
    if (flags & PS__ABOUT_NO_ECHO) member->flags |= PS_MEMBER_NO_ECHO;
    if (!alive) member->flags |= PS_MEMBER_DEAD;
    if (ps__load_rlx(&reader->armed) & 1) member->flags |= PS_MEMBER_ASLEEP;
    member->published = port->shared_lane ? ps__load_rlx(&about->published) : ps__lane_tail(port->view[slot].lane);
    if (flags & PS__ABOUT_READS) {
        member->flags |= PS_MEMBER_READER;
        uint64_t join = ps__load_rlx(&reader->join);
        struct ps__geometry g;
        ps__port_geometry(port, &g);
        unsigned high = ps__lanes_high(port);
        for (unsigned l = 0; l < high; l++) {
            struct ps__lane *lane = port->view[l].lane;
            uint64_t cursor = ps__load_rlx(&reader->cursor[l]), full;
            if (flags & PS__ABOUT_NO_ECHO && l == slot && !port->shared_lane) continue;        /* it never reads its own lane */
            member->lag += port_behind(lane, cursor);
            if (join && ps__load_rlx(&lane->evicted[slot]) >= join) member->flags |= PS_MEMBER_EVICTED;
            else if (join && (full = port_full(lane, cursor, &g)) > member->full) member->full = full;
        }
        member->wants = topic && member->filter_count ? ps__interest_of(port, slot, topic) : 0;
    }
}

int ps__port_members(void *state, const ps_topic *topic, ps_member *members, size_t n)
{
    struct ps__port *port = state;
    unsigned high = ps__slots_high(port);
    size_t count = 0;
    for (unsigned slot = 0; slot < high; slot++) {
        if (!ps__load_acq(&port->about[slot]->used)) continue;
        int alive = slot == port->slot || port->env->alive(port, slot);
        if (count < n) port_describe(port, slot, alive, topic, &members[count]);
        count++;
    }
    return (int)count;
}
