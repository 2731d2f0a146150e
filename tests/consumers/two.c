/* SPDX-License-Identifier: MIT */
/*
 * two.c - a program with two copies of the library under two prefixes, and another library that exports ps_publish and
 * ps_open. The copies share nothing inside the process, and meet on a shm bus like any two members. Usage: two URL
 */
#include "component.h"

#include <stdio.h>
#include <string.h>

static int check(int holds, const char *what)
{
    if (!holds)
        fprintf(stderr, "two: %s\n", what);
    return !holds;
}

/* acme says a text; both hear it, or acme alone. */
static int meet(const char *url, int together)
{
    int failed = check(acme_part.listen(url) == 0 && zeta_part.listen(url) == 0, "a copy cannot open the bus");

    if (failed)
        return failed;
    failed += check(acme_part.send("from acme") == (together ? 2 : 1), "the wrong number of members wanted the message");
    failed += check(strcmp(acme_part.hear(), "from acme") == 0, "acme did not hear itself");
    if (together)
        failed += check(strcmp(zeta_part.hear(), "from acme") == 0, "zeta did not hear acme");
    failed += check(acme_part.leave() == 0 && zeta_part.leave() == 0, "a copy cannot leave");
    return failed;
}

int main(int argc, char **argv)
{
    int failed;

    if (argc != 2)
        return 2;
    failed = check(ps_publish(ps_open()) == 42, "the other library's functions are not its own");
    failed += meet(argv[1], 1);
    failed += meet("inproc://two", 0);
    return failed != 0;
}
