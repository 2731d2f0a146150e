/* SPDX-License-Identifier: MIT */
/*
 * forge.h - a handle of the shm backend from inside, for tests that write what no honest member would: each member may write
 * its own lane and the words that all share.
 */
#ifndef PS_TEST_FORGE_H
#define PS_TEST_FORGE_H

#include "../lib/core/bus.h"
#include "../lib/shm/shm.h"

#include "actors.h"

static inline struct ps__shm *forge_shm(ps_bus *bus) { return bus->state; }
static inline struct ps__words *forge_words(ps_bus *bus) { return forge_shm(bus)->port.words; }

/* The handle's own lane; its cells are there after its first publish. */
static inline struct ps__lane *forge_lane(ps_bus *bus) { return forge_shm(bus)->port.own.lane; }
static inline struct ps__cell *forge_cell(ps_bus *bus, unsigned at) { return &forge_shm(bus)->port.own.cell[at]; }

static inline ps_bus_stats forge_stats(ps_bus *bus)
{
    ps_bus_stats st = PS_BUS_STATS_INIT;
    assert_ok(ps_stats(bus, &st));
    return st;
}

#endif
