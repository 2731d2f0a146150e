/* SPDX-License-Identifier: MIT */
/*
 * inproc.c - inproc://NAME: the modules and threads of one process, on one ring.
 *
 * A bus is found by its name in a list of the process and goes with its last handle. It has one lane into which all handles
 * publish, so there is one order for everybody. Slots are given out under the list's lock. Descriptors of a slot stay with
 * the slot until the bus goes, so whoever rings never meets a closed one.
 */
#include "layout.h"
#include "../ring/interest.h"
#include <errno.h>
#include <stdlib.h>

#define INPROC_MEMBERS 256u             /* by default; memory is touched by slots in use only */

struct inproc_bus {
    struct inproc_bus *next;
    char name[PS_NAME_MAX + 1];
    uint64_t generation;                /* the process that made it; a forked child's new handles do not meet here */
    unsigned handles, members;
    unsigned char taken[PS_MEMBERS_MAX];
    uint32_t publishers;                /* numbers given out */
    uint64_t seed;
    unsigned char *memory;              /* words, lane, areas */
    size_t memory_size;
    pthread_mutex_t lock;               /* reserving, making bells */
    unsigned char *ring;                /* cells and payload, once reserved; loans behind their own pointer */
    size_t ring_size;
    unsigned char *loan;
    size_t loan_size;
    struct ps__geometry geometry;
    struct ps__claim claim;             /* the lane is everybody's, so this is */
    struct ps__loans *loans;
    ps__a64 *_Atomic big[PS_MEMBERS_MAX];
    struct ps__kept bell[PS_MEMBERS_MAX][2];
};

struct inproc_state {
    struct ps__port port;               /* first: the ring's functions get this as their state */
    struct inproc_bus *bus;
};

static struct {
    pthread_mutex_t lock;
    struct inproc_bus *first;
} inproc_list = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct inproc_bus *inproc_bus_of(struct ps__port *port) { return ((struct inproc_state *)(void *)port)->bus; }

/* In a forked child another thread may have held the lock for ever; its buses are the parent's. */
static void inproc_in_child(struct ps__fork_entry *entry)
{
    (void)entry;
    pthread_mutex_init(&inproc_list.lock, NULL);
    inproc_list.first = NULL;
}

static struct ps__fork_entry inproc_fork = { NULL, NULL, inproc_in_child };

/* ------------------------------------------------------------------ memory */

static void inproc_free(struct inproc_bus *bus)
{
    for (unsigned i = 0; i < PS_MEMBERS_MAX; i++) {
        if (ps__load_rlx(&bus->big[i])) ps__pages_free((void *)ps__load_rlx(&bus->big[i]), PS__BIG_BITS / 8);
        ps__kept_close(&bus->bell[i][0]);
        ps__kept_close(&bus->bell[i][1]);
    }
    if (bus->ring) ps__pages_free(bus->ring, bus->ring_size);
    if (bus->loan) ps__pages_free(bus->loan, bus->loan_size);
    if (bus->memory) ps__pages_free(bus->memory, bus->memory_size);
    ps__loans_free(bus->loans);
    pthread_mutex_destroy(&bus->lock);
    free(bus);
}

static struct inproc_bus *inproc_new(const ps_url *url, const struct ps__geometry *wanted)
{
    struct inproc_bus *bus = calloc(1, sizeof *bus);
    if (!bus) return NULL;
    pthread_mutex_init(&bus->lock, NULL);
    for (unsigned i = 0; i < PS_MEMBERS_MAX; i++) ps__kept_none(&bus->bell[i][0]), ps__kept_none(&bus->bell[i][1]);
    bus->members = url->members ? url->members : INPROC_MEMBERS;
    bus->memory_size = ps__heap_size(bus->members);
    bus->memory = ps__pages(bus->memory_size);
    bus->loans = ps__loans_new();
    if (!bus->memory || !bus->loans) {
        inproc_free(bus);
        return NULL;
    }
    bus->generation = ps__process_generation();
    memcpy(bus->name, url->address, strlen(url->address) + 1);
    ps__random(&bus->seed, sizeof bus->seed);
    struct ps__words *words = (struct ps__words *)(void *)bus->memory;
    ps__store_rlx(&words->geometry, ps__geometry_pack(wanted));
    ps__lane_init((struct ps__lane *)(void *)(bus->memory + PS__HEAP_LANE));
    return bus;
}

/* ------------------------------------------------------------------ what the ring asks for */

/* Fills a view from the bus. Under bus->lock, or behind the lane's ring word. */
static void inproc_view(struct inproc_bus *bus, struct ps__view *view)
{
    ps__view_ring(view, bus->ring, &bus->geometry);
    if (ps__load_acq(&view->lane->loan)) {
        view->loan = bus->loan;
        view->loan_bytes = bus->loan_size;
    }
}

static int inproc_lane_open(struct ps__port *port, unsigned lane)
{
    inproc_view(inproc_bus_of(port), &port->view[lane]);
    return 0;
}

static int inproc_lane_reserve(struct ps__port *port)
{
    struct inproc_bus *bus = inproc_bus_of(port);
    int err = 0;
    pthread_mutex_lock(&bus->lock);
    if (!bus->ring && !(err = ps__geometry_fix(port->words, &bus->geometry))) {
        bus->ring_size = ps__ring_size(&bus->geometry);
        bus->ring = ps__pages(bus->ring_size);
        if (!bus->ring) {
            err = ps__fail(PS_ENOMEM, "no memory for a ring of %zu bytes", bus->ring_size);
        } else {
            ps__raise(&port->words->lanes_high, 1);
            /* SYNC(reserve) release, other end reader_lane: the ring's pointer and geometry are set. */
            ps__store_rel(&port->own.lane->ring, ps__geometry_pack(&bus->geometry));
        }
    }
    if (!err) inproc_view(bus, &port->own);
    pthread_mutex_unlock(&bus->lock);
    return err;
}

static int inproc_loan_reserve(struct ps__port *port)
{
    struct inproc_bus *bus = inproc_bus_of(port);
    int err = 0;
    pthread_mutex_lock(&bus->lock);
    if (!bus->loan) {
        bus->loan_size = ps__loans_size(&bus->geometry);
        bus->loan = ps__pages(bus->loan_size);
        if (bus->loan) ps__store_rel(&port->own.lane->loan, ps__geometry_pack(&bus->geometry));
        else err = ps__fail(PS_ENOMEM, "no memory for a loan area of %zu bytes", bus->loan_size);
    }
    if (!err) {                         /* the two fields only: other threads are publishing with the rest */
        port->own.loan = bus->loan;
        port->own.loan_bytes = bus->loan_size;
    }
    pthread_mutex_unlock(&bus->lock);
    return err;
}

static ps__a64 *inproc_big_reserve(struct ps__port *port)
{
    struct inproc_bus *bus = inproc_bus_of(port);
    ps__a64 *big = ps__load_rlx(&bus->big[port->slot]);
    if (big) {
        for (unsigned i = 0; i < PS__BIG_BITS / 64; i++) ps__store_rlx(&big[i], 0);
        return big;
    }
    big = ps__pages(PS__BIG_BITS / 8);
    ps__store_rel(&bus->big[port->slot], big);
    return big;
}

static const ps__a64 *inproc_big_of(struct ps__port *port, unsigned slot)
{
    return ps__load_acq(&inproc_bus_of(port)->big[slot]);
}

static int inproc_alive(struct ps__port *port, unsigned slot)
{
    (void)port;
    (void)slot;
    return 1;                           /* a thread that ends takes its handle with it only by ps_close */
}

static int inproc_repair(struct ps__port *port, unsigned lane)
{
    (void)port;
    (void)lane;
    return 0;
}

static int inproc_bell(struct ps__port *port, int which)
{
    struct inproc_bus *bus = inproc_bus_of(port);
    struct ps__kept *bell = &bus->bell[port->slot][which];
    pthread_mutex_lock(&bus->lock);
    int err = ps__kept_fd(bell) < 0 ? ps__kept_event(bell) : 0;
    pthread_mutex_unlock(&bus->lock);
    if (err) return err;
    return ps__kept_valid(bell) ? ps__kept_fd(bell) : -EBADF;
}

static int inproc_drain(struct ps__port *port, int which)
{
    struct ps__kept *bell = &inproc_bus_of(port)->bell[port->slot][which];
    struct pollfd p = { ps__kept_fd(bell), POLLIN, 0 };
    if (!ps__kept_valid(bell) || ps__poll(&p, 1, 1) <= 0) return 0;     /* deadline 1: long past */
    ps__event_clear(ps__kept_fd(bell));
    return 1;
}

static int inproc_ring(struct ps__port *port, unsigned slot, int which)
{
    struct ps__kept *bell = &inproc_bus_of(port)->bell[slot][which];
    if (ps__kept_valid(bell)) ps__event_signal(ps__kept_fd(bell));
    return 1;
}

static int inproc_check(struct ps__port *port)
{
    port->checked_ms = ps__now_coarse_ms();
    return 0;
}

static uint64_t inproc_memory(struct ps__port *port, unsigned slot)
{
    struct inproc_bus *bus = inproc_bus_of(port);
    if (slot < port->members) return PS__HEAP_SLOT + (ps__load_rlx(&bus->big[slot]) ? PS__BIG_BITS / 8 : 0);
    uint64_t slots = ps__load_rlx(&port->words->slots_high), memory = PS__HEAP_SLOTS + slots * PS__HEAP_SLOT;
    if (ps__load_acq(&port->view[0].lane->ring)) memory += bus->ring_size;
    if (ps__load_acq(&port->view[0].lane->loan)) memory += bus->loan_size;
    for (unsigned i = 0; i < port->members; i++)
        if (ps__load_rlx(&bus->big[i])) memory += PS__BIG_BITS / 8;
    return memory;
}

static const struct ps__env inproc_env = {
    inproc_lane_open, inproc_lane_reserve, inproc_loan_reserve, inproc_big_reserve, inproc_big_of, inproc_alive,
    inproc_repair, inproc_bell, inproc_drain, inproc_ring, inproc_check, inproc_memory,
};

/* ------------------------------------------------------------------ the transport */

/* Leaves the bus; the last one takes it down. In a forked child no lock is taken: its only thread has it to itself. */
static void inproc_leave(struct inproc_bus *bus, unsigned slot, int forked)
{
    if (!forked) pthread_mutex_lock(&inproc_list.lock);
    if (slot < PS_MEMBERS_MAX) bus->taken[slot] = 0;
    int last = --bus->handles == 0;
    if (last && !forked)
        for (struct inproc_bus **link = &inproc_list.first; *link; link = &(*link)->next)
            if (*link == bus) {
                *link = bus->next;
                break;
            }
    if (!forked) pthread_mutex_unlock(&inproc_list.lock);
    if (last) inproc_free(bus);
}

/* Under the list's lock: the bus of that name with a slot for us. */
static int inproc_enter(struct inproc_state *state, const ps_url *url, const struct ps__geometry *wanted)
{
    struct inproc_bus *bus = inproc_list.first;
    while (bus && (strcmp(bus->name, url->address) != 0 || bus->generation != ps__process_generation())) bus = bus->next;
    if (!bus) {
        if (!url->create) return ps__fail(PS_ENOENT, "no bus inproc://%s in this process", url->address);
        bus = inproc_new(url, wanted);
        if (!bus) return ps__fail(PS_ENOMEM, "no memory for a bus");
        bus->next = inproc_list.first;
        inproc_list.first = bus;
    }
    unsigned slot = PS_MEMBERS_MAX;
    if (!url->observe) {
        for (slot = 0; slot < bus->members && bus->taken[slot]; slot++) { }
        if (slot == bus->members)
            return ps__fail(PS_EFULL, "inproc://%s has its %u members (members=)", url->address, bus->members);
    }
    /* Last of what may fail: who is refused has changed nothing. */
    int err = bus->handles ? ps__geometry_propose((struct ps__words *)(void *)bus->memory, wanted) : 0;
    if (err) return err;
    if (slot < PS_MEMBERS_MAX) bus->taken[slot] = 1;
    bus->handles++;
    state->bus = bus;
    state->port.slot = slot;
    state->port.publisher = ++bus->publishers;
    return 0;
}

static int inproc_open(void *memory, ps_host *host, const ps_url *url)
{
    struct inproc_state *state = memory;
    struct ps__geometry wanted;
    int err = ps__name_check(url->address);
    if (!err) err = ps__geometry_wanted(url, &wanted);
    if (err) return err;
    ps__fork_add(&inproc_fork);         /* before the lock is taken for the first time */
    pthread_mutex_lock(&inproc_list.lock);
    err = inproc_enter(state, url, &wanted);
    pthread_mutex_unlock(&inproc_list.lock);
    if (err) return err;
    struct ps__port *port = &state->port;
    port->members = state->bus->members;
    ps__heap_point(port, state->bus->memory);
    port->shared_lane = 1;
    port->lane = 0;
    port->loans = state->bus->loans;
    port->claim = &state->bus->claim;
    host->seed = state->bus->seed;
    if ((err = ps__port_open(port, host, url, &inproc_env))) {
        inproc_leave(state->bus, port->slot, 0);
        return err;
    }
    if (!port->observe) ps__port_introduce(port, url->name);
    return 0;
}

static void inproc_close(void *memory, int forked)
{
    struct inproc_state *state = memory;
    struct ps__port *port = &state->port;
    if (!forked) {
        ps__loans_return(port);
        if (port->observe) ps__reader_leave(port);
        else ps__port_retire(port);
    }
    ps__port_close(port, forked);
    inproc_leave(state->bus, port->slot, forked);
}

PS_PRIVATE const ps_transport ps__inproc_transport = {
    .size = sizeof(ps_transport),
    .version = PS_TRANSPORT_VERSION,
    .can = PS_CAN_COUNT | PS_CAN_LOAN | PS_CAN_BORROW | PS_CAN_MEMBERS | PS_CAN_TOTAL_ORDER | PS_CAN_RELIABLE | PS_CAN_BARRIER |
           PS_CAN_OBSERVE,
    .scheme = "inproc",
    .state_size = sizeof(struct inproc_state),
    .open = inproc_open,
    .close = inproc_close,
    .publish = ps__port_publish,
    .wanted = ps__port_wanted,
    .subscribe = ps__port_subscribe,
    .unsubscribe = ps__port_unsubscribe,
    .begin = ps__port_begin,
    .next = ps__port_next,
    .end = ps__port_end,
    .wait = ps__port_wait,
    .fd = ps__port_fd,
    .wake = ps__port_wake,
    .loan = ps__port_loan,
    .commit = ps__port_commit,
    .cancel = ps__port_cancel,
    .stats = ps__port_stats,
    .members = ps__port_members,
};

#undef INPROC_MEMBERS
