/* SPDX-License-Identifier: MIT */
/* forbid.h - children from which the kernel withholds one system call, as in a container with an old profile. */
#ifndef PS_TEST_FORBID_H
#define PS_TEST_FORBID_H

#include "support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define FORBID_SKIP 77                  /* what such a child ends with where there is no seccomp */

/* From here on this process gets ENOSYS for that system call: 0, or -1. */
static inline int forbid(unsigned number)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Runs the body in a child; asserts that it ends with 0. */
static inline void forbid_child(int (*body)(void *), void *arg)
{
    int code = support_reap(support_child(body, arg), DEADLINE_MS);
    if (code == FORBID_SKIP)
        skip();
    assert_int_equal(code, 0);
}

#endif
