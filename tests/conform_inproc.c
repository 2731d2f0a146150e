/* SPDX-License-Identifier: MIT */
/* conform_inproc.c - the conformance suite over inproc, inside one process. */
#include "conform.h"

int main(void)
{
    static const struct conform_backend backend = {
        .scheme = "inproc",
        .can = PS_CAN_COUNT | PS_CAN_LOAN | PS_CAN_BORROW | PS_CAN_MEMBERS | PS_CAN_RELIABLE | PS_CAN_BARRIER | PS_CAN_TOTAL_ORDER |
               PS_CAN_OBSERVE,
    };

    return conform_run(&backend);
}
