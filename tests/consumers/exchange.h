/* SPDX-License-Identifier: MIT */
/* exchange.h - what a program does that only wants to know whether the library in it works: a message to itself. */
#ifndef PS_TEST_EXCHANGE_H
#define PS_TEST_EXCHANGE_H

#include <stdio.h>
#include <string.h>

/* psbus.h comes first, in the way that is tested. */

static inline void exchange_take(const ps_msg *msg, void *user)
{
    int *taken = user;

    if (strcmp(msg->topic, "a/b") == 0 && msg->size == 3 && memcmp(msg->data, "abc", 3) == 0)
        ++*taken;
}

/* 0, or 1 after a line on stderr. */
static inline int exchange(const char *url)
{
    ps_bus *bus;
    int taken = 0, rc = ps_open(&bus, url);

    if (rc == 0)
        rc = ps_subscribe(bus, "a/+", exchange_take, &taken, NULL, NULL);
    if (rc == 0)
        rc = ps_publish(bus, "a/b", "abc", 3);
    if (rc > 0)
        rc = ps_dispatch(bus, 1, 10000);
    if (rc == 1)
        rc = ps_close(bus);
    if (rc != 0 || taken != 1) {
        fprintf(stderr, "%s: %d messages, result %d: %s (%s)\n", url, taken, rc, ps_strerror(rc), ps_errmsg());
        return 1;
    }
    return 0;
}

#endif
