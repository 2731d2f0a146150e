/* SPDX-License-Identifier: MIT */
/*
 * layout.h - where in its memory everything of a bus in the heap lies: the words, its lane, and for each slot the reader, what it
 * says of itself, and its small filter. A header, because the ring's tests stand on the same memory.
 */
#ifndef PS_INPROC_LAYOUT_H
#define PS_INPROC_LAYOUT_H

#include "../ring/ring.h"

#define PS__HEAP_LANE    4096u
#define PS__HEAP_SLOTS   8192u
#define PS__HEAP_STAGGER 4096u          /* cursors and armed words of 64 members must not share a cache set */
#define PS__HEAP_ABOUT   8192u          /* in a slot, behind its reader */
#define PS__HEAP_BITS    (PS__HEAP_ABOUT + 4096u)
#define PS__HEAP_SLOT    (PS__HEAP_BITS + PS__SMALL_BITS / 8)
_Static_assert(sizeof(struct ps__reader) + PS__HEAP_STAGGER <= PS__HEAP_ABOUT, "a staggered reader fits");

static inline size_t ps__heap_size(unsigned members) { return PS__HEAP_SLOTS + (size_t)members * PS__HEAP_SLOT; }

static inline void ps__heap_point(struct ps__port *port, unsigned char *memory)
{
    port->words = (struct ps__words *)(void *)memory;
    port->view[0].lane = (struct ps__lane *)(void *)(memory + PS__HEAP_LANE);
    for (unsigned i = 0; i < port->members; i++) {
        unsigned char *slot = memory + PS__HEAP_SLOTS + (size_t)i * PS__HEAP_SLOT;
        port->reader[i] = (struct ps__reader *)(void *)(slot + (size_t)i * PS__LINE % PS__HEAP_STAGGER);
        port->about[i] = (struct ps__about *)(void *)(slot + PS__HEAP_ABOUT);
        port->bits[i] = (ps__a64 *)(void *)(slot + PS__HEAP_BITS);
    }
}

#endif
