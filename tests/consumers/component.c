/* SPDX-License-Identifier: MIT */
/*
 * component.c - a part of a program that has a copy of the library under names of its own. Compiled with -DPS_PREFIX=acme_
 * it offers acme_part, with another prefix another one.
 */
#include "component.h"

#include <psbus.h>

#include <string.h>

static ps_bus *component_bus;
static char component_text[32];

static void component_take(const ps_msg *msg, void *user)
{
    (void)user;
    memcpy(component_text, msg->data, msg->size < sizeof component_text ? msg->size : sizeof component_text - 1);
}

static int component_listen(const char *url)
{
    int rc = ps_open(&component_bus, url);

    return rc ? rc : ps_subscribe(component_bus, "#", component_take, NULL, NULL, NULL);
}

static int component_send(const char *text)
{
    return ps_publish(component_bus, "a", text, strlen(text) + 1);
}

static const char *component_hear(void)
{
    component_text[0] = '\0';
    return ps_dispatch(component_bus, 1, 10000) == 1 ? component_text : "";
}

static int component_leave(void)
{
    return ps_close(component_bus);
}

#define COMPONENT_NAME PS_JOIN(PS_PREFIX, part)
const struct component COMPONENT_NAME = { component_listen, component_send, component_hear, component_leave };
