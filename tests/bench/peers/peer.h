/* SPDX-License-Identifier: MIT */
/*
 * peer.h - what a library beside ours must do to be measured. `make bench-peers` compiles the adapters of those that pkg-config
 * finds; `make bench` compiles none.
 */
#ifndef PS_BENCH_PEER_H
#define PS_BENCH_PEER_H

#include "../measure.h"

typedef void (*peer_take)(void *user, const void *data, size_t size);

struct peer {
    const char *name;
    int   (*start)(void);       /* what all its handles need, a server; 0, or -1 after saying why that cannot be; or NULL */
    void  (*stop)(void);        /* or NULL */
    void *(*publisher)(const char *channel);        /* gives up with a word when it cannot */
    void *(*reader)(const char *channel);
    void  (*publish)(void *publisher, const void *data, size_t size);
    void  (*flush)(void *publisher);                /* whatever was held back is on its way; or NULL */
    int   (*read)(void *reader, int wait_ms, peer_take take, void *user);   /* messages taken, 256 at most or so */
    void  (*close)(void *handle);
    uint64_t window;            /* messages under way at most, where it drops instead of waiting; 0: it waits */
    struct peer *next;
};

extern struct peer *peers;
void peer_add(struct peer *peer);       /* from a constructor of the adapter */

#define PEER_ROWS 6
void peer_rows(struct peer *peer, struct row *rows);

_Noreturn void peer_failed(const char *peer, const char *what, const char *why);

#endif
