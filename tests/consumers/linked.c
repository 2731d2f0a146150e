/* SPDX-License-Identifier: MIT */
/* linked.c - a program that links the library and is built as its header and its library say. Usage: linked URL… */
#include <psbus.h>

#include "exchange.h"

int main(int argc, char **argv)
{
    char version[64];

    (void)snprintf(version, sizeof version, "%d.%d.%d", PS_VERSION_MAJOR, PS_VERSION_MINOR, PS_VERSION_PATCH);
    if (strcmp(version, ps_version()) != 0) {
        fprintf(stderr, "the header is of %s, the library of %s\n", version, ps_version());
        return 1;
    }
    for (int i = 1; i < argc; i++)
        if (exchange(argv[i]) != 0)
            return 1;
    return argc > 1 ? 0 : 2;
}
