/* SPDX-License-Identifier: MIT */
/*
 * atomic.h - C11 atomics with the memory order in the name, fences, and copies that race on purpose.
 *
 * ThreadSanitizer does not understand fences: under it a fence is a read-modify-write of one global word (which is a
 * fence in its eyes), and copies of memory that may be overwritten meanwhile go word by word through relaxed atomics.
 */
#ifndef PS_ATOMIC_H
#define PS_ATOMIC_H

#include "compiler.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined __SANITIZE_THREAD__
#define PS_TSAN 1
#elif defined __has_feature
#if __has_feature(thread_sanitizer)
#define PS_TSAN 1
#endif
#endif
#ifndef PS_TSAN
#define PS_TSAN 0
#endif

/* Shared memory needs 64-bit atomics that need no lock: libatomic's lock table is private to a process. */
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "psbus needs lock-free 64-bit atomics");

typedef _Atomic uint64_t ps__a64;
typedef _Atomic uint32_t ps__a32;

#define ps__load_rlx(p)       atomic_load_explicit((p), memory_order_relaxed)
#define ps__load_acq(p)       atomic_load_explicit((p), memory_order_acquire)
#define ps__store_rlx(p, v)   atomic_store_explicit((p), (v), memory_order_relaxed)
#define ps__store_rel(p, v)   atomic_store_explicit((p), (v), memory_order_release)
#define ps__add_rlx(p, v)     atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define ps__add_rel(p, v)     atomic_fetch_add_explicit((p), (v), memory_order_release)
#define ps__add_sc(p, v)      atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define ps__sub_sc(p, v)      atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define ps__or_rlx(p, v)      atomic_fetch_or_explicit((p), (v), memory_order_relaxed)
#define ps__and_rlx(p, v)     atomic_fetch_and_explicit((p), (v), memory_order_relaxed)
#define ps__and_rel(p, v)     atomic_fetch_and_explicit((p), (v), memory_order_release)
#define ps__swap_ar(p, v)     atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define ps__cas_rlx(p, e, v)  atomic_compare_exchange_strong_explicit((p), (e), (v), memory_order_relaxed, memory_order_relaxed)
#define ps__cas_acq(p, e, v)  atomic_compare_exchange_strong_explicit((p), (e), (v), memory_order_acquire, memory_order_relaxed)
#define ps__cas_ar(p, e, v)   atomic_compare_exchange_strong_explicit((p), (e), (v), memory_order_acq_rel, memory_order_acquire)

/* One writer at a time: an increment without a locked operation. */
#define ps__bump(p, v)        ps__store_rlx((p), ps__load_rlx(p) + (v))

#if PS_TSAN
PS_PRIVATE_OBJECT ps__a64 ps__tsan_fence;
#define ps__fence_acq() ((void)atomic_fetch_add_explicit(&ps__tsan_fence, 0, memory_order_seq_cst))
#define ps__fence_rel() ((void)atomic_fetch_add_explicit(&ps__tsan_fence, 0, memory_order_seq_cst))
#define ps__fence_sc()  ((void)atomic_fetch_add_explicit(&ps__tsan_fence, 0, memory_order_seq_cst))
#else
#define ps__fence_acq() atomic_thread_fence(memory_order_acquire)
#define ps__fence_rel() atomic_thread_fence(memory_order_release)
#if defined __x86_64__ && defined __GNUC__
/* Any locked operation is a full fence between accesses to ordinary memory, and takes less than half the time of the mfence that
 * clang, and gcc where it optimizes for size, would put here. */
#define ps__fence_sc()  __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc")
#else
#define ps__fence_sc()  atomic_thread_fence(memory_order_seq_cst)
#endif
#endif

/* The compiler may not move memory accesses across; the processor may. */
#define ps__fence_compiler() atomic_signal_fence(memory_order_seq_cst)

/*
 * Copies between private memory and memory that another thread may write or read meanwhile. Whether the result may be
 * used is decided afterwards (PROTOCOL.md 2). The shared side is 8-byte aligned and its size is rounded up to 8.
 */
static inline void ps__copy_in(void *shared, const void *own, size_t size)
{
#if PS_TSAN
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, (const char *)own + i, size - i < 8 ? size - i : 8);
        ps__store_rlx((ps__a64 *)(void *)((char *)shared + i), word);
    }
#else
    memcpy(shared, own, size);
#endif
}

static inline void ps__copy_out(void *own, const void *shared, size_t size)
{
#if PS_TSAN
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = ps__load_rlx((const ps__a64 *)(const void *)((const char *)shared + i));
        memcpy((char *)own + i, &word, size - i < 8 ? size - i : 8);
    }
#else
    memcpy(own, shared, size);
#endif
}

/*
 * Out of memory that a program writes with plain stores: the loan area. Whether the copy may be used is decided afterwards, as
 * with ps__copy_out; but the writer cannot be made atomic, so ThreadSanitizer must not look here.
 */
#if PS_TSAN
__attribute__((no_sanitize("thread")))
#endif
static inline void ps__copy_out_plain(void *own, const void *shared, size_t size)
{
#if PS_TSAN
    volatile const unsigned char *from = shared;        /* a loop, for memcpy is looked into */
    volatile unsigned char *to = own;
    for (size_t i = 0; i < size; i++) to[i] = from[i];
#else
    memcpy(own, shared, size);
#endif
}

/* Raises a word to at least value. Relaxed: callers that need order fence around it. Differences are signed. */
static inline void ps__raise(ps__a64 *word, uint64_t value)
{
    uint64_t seen = ps__load_rlx(word);
    while ((int64_t)(seen - value) < 0 && !ps__cas_rlx(word, &seen, value)) { }
}

#endif
