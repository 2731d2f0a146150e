/* SPDX-License-Identifier: MIT */
/* other.c - another library, with a ps_publish and a ps_open of its own. */
#include "component.h"

int ps_publish(int number)
{
    return number + 1;
}

int ps_open(void)
{
    return 41;
}
