/* SPDX-License-Identifier: MIT */
/* conform_custom.c - the conformance suite over a transport that is not the library's: the one of examples/custom_transport. */
#include "../examples/custom_transport/unixgram.c"

#include "conform.h"

int main(void)
{
    static const struct conform_backend backend = {
        .scheme = "unixgram",
        .can = PS_CAN_COUNT | PS_CAN_PROCESSES | PS_CAN_BARRIER,
        .base = "/tmp/",
    };
    int rc = ps_transport_register(&unixgram_transport);

    if (rc < 0)
        fprintf(stderr, "conform_custom: %s (%s)\n", ps_strerror(rc), ps_errmsg());
    return rc < 0 ? 1 : conform_run(&backend);
}
