/* SPDX-License-Identifier: MIT */
/* static.c - a program that has the whole library inside one of its files. Usage: static URL… */
#define PS_STATIC
#include "psbus.c"

#include "exchange.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (exchange(argv[i]) != 0)
            return 1;
    return argc > 1 ? 0 : 2;
}
