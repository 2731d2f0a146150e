/* SPDX-License-Identifier: MIT */
/*
 * stub.c - remote://HOST[:PORT]: the smallest complete remote transport, and the pattern to copy for a new one.
 *
 * It checks its address, connects to nothing, and answers PS_ENOTSUP: at ps_open, so that nobody believes he is connected. The
 * rest of the table is there nevertheless, each function with what it owes the core, so that a copy becomes a backend by
 * filling in one function after the other:
 *
 *   1. Rename the file, the functions and the scheme; put what belongs to a connection into struct stub_state. Outside of this
 *      library include <psbus.h> and <string.h> instead of base.h, and leave out PS_PRIVATE.
 *   2. open: connect, or begin to. Return 0. Everything acquired so far is given back on failure, since close is not called.
 *   3. subscribe, unsubscribe: tell the engine. The core matches filters itself; the engine may send too much, not too little.
 *   4. publish: never block unless wait is set and the URL says block=MS. A remote engine that cannot count answers 1, not 0.
 *   5. next: one message that has arrived, valid until the next next() or end(); 0 if there is none.
 *   6. wait: sleep until next() may have something, time is over, or wake() was called. fd: the same as a descriptor.
 *   7. Run the conformance suite over it: tests/conform_custom.c shows how, with the flags of `can` that are true.
 *
 * Registered by a program with ps_transport_register(); the library's own are listed in lib/core/transport.c.
 */
#include "../base/base.h"

struct stub_state {
    ps_host *host;                      /* the way up: host->fail puts a text behind an error code */
};

static int stub_refuse(struct stub_state *state)
{
    return state->host->fail(state->host, PS_ENOTSUP, "remote:// is a stub: no engine is built in");
}

/* HOST or HOST:PORT, so that a mistake in a URL is told apart from a missing backend. */
static int stub_address(ps_host *host, const char *address)
{
    const char *colon = address ? strrchr(address, ':') : NULL;
    size_t host_len = !address ? 0 : colon ? (size_t)(colon - address) : strlen(address);
    if (host_len == 0) return host->fail(host, PS_EINVAL, "remote:// needs HOST or HOST:PORT");
    if (!colon) return 0;
    unsigned port = 0;
    for (const char *p = colon + 1; *p; p++) {
        if (*p < '0' || *p > '9' || (port = port * 10 + (unsigned)(*p - '0')) > 65535)
            return host->fail(host, PS_EINVAL, "port '%s' is no number up to 65535", colon + 1);
    }
    return port ? 0 : host->fail(host, PS_EINVAL, "port missing behind ':'");
}

static int stub_open(void *memory, ps_host *host, const ps_url *url)
{
    struct stub_state *state = memory;  /* zeroed, of the size the table asks for, freed by the core */
    int err = stub_address(host, url->address);
    if (err) return err;
    state->host = host;
    return stub_refuse(state);
}

/* No call is inside. forked: the child of a process that had the connection; close descriptors, say nothing on them. */
static void stub_close(void *memory, int forked)
{
    (void)memory;
    (void)forked;
}

static int stub_publish(void *memory, const ps_topic *topic, const void *data, size_t size, int wait)
{
    (void)topic;
    (void)data;                         /* the caller's: to be copied before this returns */
    (void)size;
    (void)wait;
    return stub_refuse(memory);
}

static int stub_subscribe(void *memory, const ps_filter *filter, uint32_t flags, int first)
{
    (void)filter;                       /* after a reconnect host->each() lists them all */
    (void)flags;
    (void)first;
    return stub_refuse(memory);
}

static void stub_unsubscribe(void *memory, const ps_filter *filter, uint32_t flags, int last, int idle)
{
    (void)memory;                       /* cannot fail: a connection that is gone has no subscriptions either */
    (void)filter;
    (void)flags;
    (void)last;
    (void)idle;
}

static int stub_begin(void *memory, int marked)
{
    (void)memory;
    (void)marked;                       /* next() shall then stop at what has arrived by now */
    return 0;
}

static int stub_next(void *memory, ps_record *record)
{
    (void)memory;
    (void)record;       /* topic by host->topic(), asked for with host->match(); data 16-byte aligned, never NULL */
    return 0;
}

static void stub_end(void *memory, int flags)
{
    (void)memory;
    (void)flags;
}

static int stub_wait(void *memory, int timeout_ms)
{
    (void)timeout_ms;                   /* poll(2)'s meaning: -1 for ever */
    return stub_refuse(memory);
}

static void stub_wake(void *memory)
{
    (void)memory;                       /* async-signal-safe: a write to an eventfd or pipe that wait() polls */
}

/*
 * Left out: wanted, fd, loan, members, after_fork, which the core answers with PS_ENOTSUP; commit and cancel, with PS_EINVAL, for
 * there is no loan; and stats, to which it has nothing to add.
 */
PS_PRIVATE const ps_transport ps__remote_transport = {
    .size = sizeof(ps_transport),
    .version = PS_TRANSPORT_VERSION,
    .can = PS_CAN_PROCESSES,
    .scheme = "remote",
    .options = NULL,                    /* "user password timeout": further options, read with host->option() */
    .state_size = sizeof(struct stub_state),
    .open = stub_open,
    .close = stub_close,
    .publish = stub_publish,
    .subscribe = stub_subscribe,
    .unsubscribe = stub_unsubscribe,
    .begin = stub_begin,
    .next = stub_next,
    .end = stub_end,
    .wait = stub_wait,
    .wake = stub_wake,
};
