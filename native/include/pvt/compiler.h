/* SPDX-License-Identifier: BSD-3-Clause */
/* compiler.h: attributes of the fast paths in these headers. */
#ifndef IVS_COMPILER_H
#define IVS_COMPILER_H

#define IVS_INLINE static inline __attribute__((always_inline))
#define IVS_COLD static __attribute__((noinline, cold, unused)) /* a slow path, kept out of the fast one's code */
#define IVS_NOINLINE static __attribute__((noinline, unused))   /* out of line to limit code size */
#define IVS_LIKELY(x) __builtin_expect(!!(x), 1)
#define IVS_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* In a branch that is rarely taken: keeps it a branch. A conditional move would depend on both values. */
#define IVS_BRANCH() __asm__ volatile("")

#if defined(__SANITIZE_THREAD__)
#define IVS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define IVS_TSAN 1
#endif
#endif

#endif
