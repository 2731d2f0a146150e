/* SPDX-License-Identifier: MIT */
/* conform_shm.c - the conformance suite over shm, between the processes of one host. */
#include "conform.h"

int main(void)
{
    static const struct conform_backend backend = {
        .scheme = "shm",
        .can = PS_CAN_COUNT | PS_CAN_LOAN | PS_CAN_BORROW | PS_CAN_MEMBERS | PS_CAN_RELIABLE | PS_CAN_BARRIER | PS_CAN_FORK | PS_CAN_PROCESSES |
               PS_CAN_OBSERVE,
    };

    return conform_run(&backend);
}
