/* SPDX-License-Identifier: MIT */
/*
 * first.h - what the program `first` shares with the benchmark that starts it, in a file both map.
 */
#ifndef PS_BENCH_FIRST_H
#define PS_BENCH_FIRST_H

#include <stdatomic.h>
#include <stdint.h>

struct first {
    _Atomic uint64_t seen_ns;           /* when the reader had its first message */
    _Atomic uint64_t resident_kib;      /* of the publisher; set last */
    _Atomic int finish;
};

#endif
