/* SPDX-License-Identifier: MIT */
/*
 * shm.h - the file of a shm bus and a handle's share in it, as layout.c, segment.c, member.c and shm.c see them.
 *
 * The file. What is there from the start lies together, so that one call reserves it; what is mapped by itself begins at a
 * multiple of 64 KiB, whatever the page size:
 *
 *   0                     struct ps__shm_header  immutable once the file has a name; read with pread(2), once
 *   4 KiB                 struct ps__words       mapped writable by every member
 *   8 KiB   + slot*8K     lane, reader, about, small filter      writable by the slot's owner, read-only to the others;
 *                                                12K with more than 128 members, whose words of each other need room
 *   then    + slot*128K   large interest filter          reserved when it is needed
 *   then    + slot*stride cells, payload, digests; loans reserved at the owner's first publish, first loan
 *
 * Locks lie far beyond the data, two bytes a slot; whoever holds the first owns the slot, and while the second is locked what
 * stands in the slot belongs to a living process: so says the kernel.
 */
#ifndef PS_SHM_H
#define PS_SHM_H

#include "../ring/ring.h"
#include <sys/stat.h>
#include <sys/types.h>

#define PS__SHM_VERSION   4u
#define PS__SHM_ALIGN     65536u
#define PS__SHM_WORDS     4096u         /* offsets */
#define PS__SHM_RESERVED  8184u         /* behind the words: members, once the slots of all are reserved */
#define PS__SHM_SLOTS     8192u
#define PS__SHM_LOCKS     ((off_t)1 << 40)
#define PS__SHM_PATH      512

struct ps__shm_header {
    uint64_t magic;                     /* written last */
    uint32_t endian, version;
    uint32_t members, anonymous;
    uint64_t seed;                      /* of topic hashes */
    uint64_t id[2];                     /* random: names of bells derive from it */
    uint64_t check;                     /* over all of the above but magic */
};
_Static_assert(sizeof(struct ps__shm_header) == 56, "the header's layout is that of version 4");
_Static_assert(PS__SHM_WORDS + sizeof(struct ps__words) <= PS__SHM_RESERVED && sizeof(struct ps__about) == 384 &&
               PS__SMALL_BITS == 32768, "the layout of version 4");
_Static_assert(offsetof(struct ps__words, sleepers) == 2176 && offsetof(struct ps__words, geometry) == 2448 &&
               offsetof(struct ps__lane, limit) == 128 && offsetof(struct ps__lane, horizon) == 256 &&
               offsetof(struct ps__lane, epoch) == 280 && offsetof(struct ps__lane, loan) == 296 &&
               offsetof(struct ps__lane, evicted) == 384 && offsetof(struct ps__reader, armed) == 128 &&
               offsetof(struct ps__reader, cursor) == 256 && offsetof(struct ps__about, wild) == 256 &&
               offsetof(struct ps__cell, meta) == 28, "the layout of version 4, on every architecture");

struct ps__shm {
    struct ps__port port;               /* first: the ring's functions get this as their state */
    struct ps__fork_entry fork;

    /* where it is; written by ps__shm_locate */
    char path[PS__SHM_PATH];            /* of the file; "" for an anonymous bus */
    char dir[PS__SHM_PATH];             /* of the file */
    int by_name;                        /* in this user's directory, which goes with its last bus */
    int made_dir;                       /* by this handle's ps_open, which takes it away again if it fails */
    int proc;                           /* the path leads through /proc to somebody's descriptor */
    int mode;                           /* -1: not named */
    char label[PS_NAME_MAX + 1];
    int opened;                         /* and not being closed: a child that is forked now knows the handle */
    ps_url url;                         /* numbers of it, for ps_after_fork; no pointers */

    /* the file */
    struct ps__kept lock;               /* a description of its own, never the one that is mapped */
    struct ps__kept anchor;             /* anonymous: O_PATH, the way back to the file */
    void *pin;                          /* a page mapped through lock, gone in a fork: no closefrom() drops the lock */
    unsigned char *base;                /* the fixed part, read-only but for words and the own slot */
    size_t base_size;
    struct ps__shm_header header;
    struct ps__geometry geometry;       /* private and checked; never changes once known */
    pthread_mutex_t geometry_lock;      /* getting to know it: a publishing and the dispatching thread may both */
    int geometry_known;
    struct { void *ring, *loan; } mapped[PS_MEMBERS_MAX];       /* foreign lanes, by the dispatching thread */
    struct ps__loans *loans;

    /* bells: doorbell.c */
    struct ps__kept bell[2];
    pthread_mutex_t bells;      /* making and binding them: ps_fd and a sleep may be two threads'; port.sleep.fds inside */
    int bound[2];
    struct ps__kept dirfd;              /* for names too long for an address */
};

static inline struct ps__shm *ps__shm_of(struct ps__port *port) { return (struct ps__shm *)(void *)port; }

/* ------------------------------------------------------------------ layout.c: where it is, what lies where, and space for it */

/* From the URL: path or anonymous, checked. */
PS_PRIVATE int ps__shm_locate(struct ps__shm *shm, const ps_url *url);
/* The directory of a bus that is named without a path: checked, and made if need be. PS_EAGAIN: it went away, start over. */
PS_PRIVATE int ps__shm_directory(struct ps__shm *shm, int create);
/* How large a slot is, and where its lane, which is the first thing in it, and its large filter lie in the file. */
PS_PRIVATE uint64_t ps__shm_slot_size(unsigned members);
PS_PRIVATE uint64_t ps__shm_lane_offset(unsigned members, unsigned slot);
PS_PRIVATE uint64_t ps__shm_big_offset(unsigned members, unsigned slot);
/* Where in the file a slot's ring and its loan area lie, and how long a ring is; once the geometry is known. */
PS_PRIVATE uint64_t ps__shm_ring_offset(const struct ps__shm *shm, unsigned slot);
PS_PRIVATE uint64_t ps__shm_loan_offset(const struct ps__shm *shm, unsigned slot);
PS_PRIVATE size_t ps__shm_ring_size(const struct ps__shm *shm);
/* All that does not depend on the geometry. */
PS_PRIVATE uint64_t ps__shm_fixed_size(unsigned members);
/* The port's pointers into the mapped fixed part. */
PS_PRIVATE void ps__shm_point(struct ps__shm *shm);
/* Reserves a region; PS_ENOSPC with numbers. */
PS_PRIVATE int ps__shm_reserve(int fd, uint64_t offset, uint64_t size, const char *what);
/* The same of what others may be reserving too, or have already: nothing goes back. */
PS_PRIVATE int ps__shm_reserve_shared(int fd, uint64_t offset, uint64_t size, const char *what);
PS_PRIVATE int ps__shm_resize(int fd, uint64_t size);
/* Gives a name that was just made its mode, if it is still of that type (S_IFMT) and this user's. 0 or -errno. */
PS_PRIVATE int ps__shm_chmod(const char *path, mode_t type, mode_t mode);

/* ------------------------------------------------------------------ segment.c: the file */

/* Opens or creates the file, takes a slot (not when observing), maps the fixed part. */
PS_PRIVATE int ps__shm_attach(struct ps__shm *shm, const ps_url *url);
/* Unmaps, and if nobody else is there removes the file and its bells. forked: touches nothing but the copy. */
PS_PRIVATE void ps__shm_detach(struct ps__shm *shm, int forked);
/* A fresh description of the file, for mapping; the caller gives it to ps__fd_passed. -1 with ps_errmsg. */
PS_PRIVATE int ps__shm_data_fd(struct ps__shm *shm);

/* ------------------------------------------------------------------ member.c: slots and their locks */

/* The lowest slot whose byte is free: its number, or an error. PS_EAGAIN: the bus is being taken down just now. */
PS_PRIVATE int ps__slot_take(struct ps__shm *shm);
PS_PRIVATE int ps__slot_passing(struct ps__shm *shm);                  /* 1: of a full bus, some slot may soon be free */
PS_PRIVATE int ps__slot_alive(struct ps__shm *shm, unsigned slot);
PS_PRIVATE void ps__slot_drop(struct ps__shm *shm, unsigned slot);
PS_PRIVATE int ps__slot_last(struct ps__shm *shm);                      /* 1: nobody else, and nobody can come */
/* Makes the slot ours: a new epoch, its lane repaired, its area clean. */
PS_PRIVATE int ps__slot_move_in(struct ps__shm *shm);
/* A lane that stands before an unfinished claim: repaired if its owner is dead. */
PS_PRIVATE int ps__slot_repair(struct ps__port *port, unsigned slot);
/* Maps a lane's ring; writable for its owner. 0 or an error. */
PS_PRIVATE int ps__slot_map(struct ps__shm *shm, unsigned slot, int writable, struct ps__view *view);
PS_PRIVATE int ps__slot_map_loan(struct ps__shm *shm, unsigned slot, int writable, struct ps__view *view);
/* Reads it, once, when some lane is reserved; fix: because one is about to be. */
PS_PRIVATE int ps__shm_know_geometry(struct ps__shm *shm, int fix);

/* ------------------------------------------------------------------ doorbell.c: datagram sockets */

PS_PRIVATE int ps__bell_open(struct ps__shm *shm);                      /* the socket to ring with; -errno */
PS_PRIVATE int ps__bell_bind(struct ps__port *port, int which);         /* env.bell */
PS_PRIVATE int ps__bell_drain(struct ps__port *port, int which);        /* env.drain */
PS_PRIVATE int ps__bell_ring(struct ps__port *port, unsigned slot, int which);  /* env.ring */
PS_PRIVATE void ps__bell_unlink(struct ps__shm *shm, unsigned slot);
PS_PRIVATE void ps__bell_close(struct ps__shm *shm);

#endif
