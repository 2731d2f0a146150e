/* SPDX-License-Identifier: MIT */
/*
 * transport.c - the table of backends: those of the library, and those a program registers.
 *
 * Tables are copied, cut or extended with zeros to this version's size, so that the core may look at every field. Entries are
 * only ever added, so a pointer that was found stays good.
 */
#include "internal.h"
#include <pthread.h>
#include <stdio.h>

#define TRANSPORT_MOST 16

static pthread_mutex_t transport_lock = PTHREAD_MUTEX_INITIALIZER;
static ps_transport transport_added[TRANSPORT_MOST];
static ps__a32 transport_count;

static const ps_transport *const transport_own[] = { &ps__inproc_transport, &ps__shm_transport, &ps__remote_transport };
#define TRANSPORT_OWN (sizeof transport_own / sizeof transport_own[0])

static const ps_transport *transport_at(size_t i)
{
    return i < TRANSPORT_OWN ? transport_own[i] : &transport_added[i - TRANSPORT_OWN];
}

const ps_transport *ps__transport_find(const char *scheme)
{
    size_t count = TRANSPORT_OWN + ps__load_acq(&transport_count);      /* SYNC(register): entries below it are complete */
    for (size_t i = 0; i < count; i++)
        if (strcmp(transport_at(i)->scheme, scheme) == 0) return transport_at(i);
    return NULL;
}

void ps__transport_list(char *text, size_t size)
{
    size_t count = TRANSPORT_OWN + ps__load_acq(&transport_count), used = 0;
    if (size) text[0] = '\0';
    for (size_t i = 0; i < count && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s", i ? ", " : "", transport_at(i)->scheme);
        if (n > 0) used += (size_t)n;
    }
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
    int err = 0;
    pthread_mutex_lock(&transport_lock);
    uint32_t count = ps__load_rlx(&transport_count);
    if (ps__transport_find(table.scheme)) {
        err = ps__fail(PS_EBUSY, "scheme %s is taken", table.scheme);
    } else if (count == TRANSPORT_MOST) {
        err = ps__fail(PS_EFULL, "%d transports are registered", TRANSPORT_MOST);
    } else {
        transport_added[count] = table;
        ps__store_rel(&transport_count, count + 1);     /* SYNC(register) */
    }
    pthread_mutex_unlock(&transport_lock);
    return err;
}

#undef TRANSPORT_MOST
#undef TRANSPORT_OWN
