/* SPDX-License-Identifier: MIT */
/*
 * transport.c - the table of backends: those of the library, and those a program registers.
 *
 * Tables are copied, cut or extended with zeros to this version's size, so that the core may look at every field. Entries are
 * only ever added, so a pointer that was found stays good. There is no lock: a child may be forked while another thread is in
 * here, and it loses at most that thread's copy.
 */
#include "bus.h"
#include <stdio.h>

#define TRANSPORT_MOST 16

static ps_transport transport_copy[TRANSPORT_MOST];
static ps__a32 transport_taken;                 /* bit i: a copy is there, or being made */
static const ps_transport *_Atomic transport_added[TRANSPORT_MOST];     /* without gaps, in the order of registration */

static const ps_transport *const transport_own[] = { &ps__inproc_transport, &ps__shm_transport, &ps__remote_transport };
#define TRANSPORT_OWN (sizeof transport_own / sizeof transport_own[0])

/* NULL: there are no more. */
static const ps_transport *transport_at(size_t i)
{
    if (i < TRANSPORT_OWN) return transport_own[i];
    return i < TRANSPORT_OWN + TRANSPORT_MOST ? ps__load_acq(&transport_added[i - TRANSPORT_OWN]) : NULL;    /* SYNC(register) */
}

const ps_transport *ps__transport_find(const char *scheme)
{
    const ps_transport *t;
    for (size_t i = 0; (t = transport_at(i)) != NULL; i++)
        if (strcmp(t->scheme, scheme) == 0) return t;
    return NULL;
}

void ps__transport_list(char *text, size_t size)
{
    const ps_transport *t;
    size_t used = 0;
    if (size) text[0] = '\0';
    for (size_t i = 0; (t = transport_at(i)) != NULL && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s", i ? ", " : "", t->scheme);
        if (n > 0) used += (size_t)n;
    }
}

/* Room for a copy, or -1. */
static int transport_take(void)
{
    uint32_t taken = ps__load_rlx(&transport_taken);
    for (int i = 0; i < TRANSPORT_MOST;) {
        if (taken >> i & 1) i++;
        else if (ps__cas_acq(&transport_taken, &taken, taken | (uint32_t)1 << i)) return i;
    }
    return -1;
}

/* Behind all others, if none of them has its scheme: 1. */
static int transport_add(const ps_transport *table)
{
    for (int i = 0; i < TRANSPORT_MOST; i++) {
        const ps_transport *there = NULL;
        if (ps__cas_ar(&transport_added[i], &there, table)) return 1;   /* SYNC(register): what is in it is complete */
        if (strcmp(there->scheme, table->scheme) == 0) return 0;
    }
    return 0;
}

static int transport_scheme_legal(const char *scheme)
{
    size_t len = scheme ? strlen(scheme) : 0;
    return len > 0 && len < 32 && strspn(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") == len;
}

int ps_transport_register(const ps_transport *transport)
{
    if (!transport || transport->size < offsetof(ps_transport, open)) return ps__fail(PS_EINVAL, "no transport table");
    if (transport->version > PS_TRANSPORT_VERSION)
        return ps__fail(PS_ENOTSUP, "a transport table of version %d, this library knows %d", transport->version,
                        PS_TRANSPORT_VERSION);
    ps_transport table = { 0 };
    memcpy(&table, transport, transport->size < sizeof table ? transport->size : sizeof table);
    table.size = sizeof table;
    if (!transport_scheme_legal(table.scheme)) return ps__fail(PS_EINVAL, "a transport's scheme is a-z 0-9 + - . only");
    if (table.version < 1 || !table.open || !table.close || !table.publish || !table.subscribe || !table.unsubscribe ||
        !table.begin || !table.next || !table.end || !table.wait || !table.wake)
        return ps__fail(PS_EINVAL, "transport %s lacks a required function", table.scheme);
    if (!!table.loan != !!table.commit || !!table.loan != !!table.cancel)
        return ps__fail(PS_EINVAL, "transport %s: loan, commit and cancel come together", table.scheme);
    int at = -1, taken = ps__transport_find(table.scheme) != NULL;
    if (!taken && (at = transport_take()) < 0) return ps__fail(PS_EFULL, "%d transports are registered", TRANSPORT_MOST);
    if (!taken) {
        transport_copy[at] = table;
        if (transport_add(&transport_copy[at])) return 0;
        ps__and_rel(&transport_taken, ~((uint32_t)1 << at));    /* another thread was faster; other end transport_take */
    }
    return ps__fail(PS_EBUSY, "scheme %s is taken", table.scheme);
}

#undef TRANSPORT_MOST
#undef TRANSPORT_OWN
