/* SPDX-License-Identifier: MIT */
/*
 * compiler.h - what is asked of the C library and of the compiler: feature macros, visibility, hints. It comes first in every
 * file, by way of the headers that each includes.
 */
#ifndef PS_COMPILER_H
#define PS_COMPILER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64
#endif

#include <limits.h>
#if defined __GLIBC__ && !defined __USE_GNU
#error "a system header came before psbus.c: include psbus.c first, or compile with -D_GNU_SOURCE"
#endif

/*
 * Functions and objects that files of the library share. The vendored pair, which is one file, makes them static; a static
 * object is declared without `extern`, so declarations of objects begin with PS_PRIVATE_OBJECT and definitions with PS_PRIVATE.
 */
#ifndef PS_PRIVATE
#define PS_PRIVATE __attribute__((visibility("hidden")))
#endif
#ifndef PS_PRIVATE_OBJECT
#define PS_PRIVATE_OBJECT extern PS_PRIVATE
#endif

#define PS_LIKELY(x)   __builtin_expect(!!(x), 1)
#define PS_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* For what is written once and compiled once for each constant it is called with. */
#define PS_ALWAYS_INLINE inline __attribute__((always_inline))
/* For what comes up seldom on a path that is taken often: it takes no registers from it. */
#define PS_NOINLINE __attribute__((noinline))
/* Off every path that runs for each message: compiled for size, and a branch that leads there is laid out as unlikely. */
#define PS_COLD __attribute__((cold))
#define PS_PRINTF(f, a) __attribute__((format(printf, f, a)))

#endif
