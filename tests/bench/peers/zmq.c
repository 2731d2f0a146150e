/* SPDX-License-Identifier: MIT */
/*
 * zmq.c - ZeroMQ: PUB and SUB over ipc, under names that are no files. XPUB_NODROP makes the publisher wait for a full reader
 * instead of dropping.
 */
#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

struct handle { void *context, *socket; };

static void must(int rc, const char *what)
{
    if (rc < 0)
        peer_failed("zmq", what, zmq_strerror(errno));
}

static struct handle *make(int type, const char *channel, char *address, size_t room)
{
    struct handle *h = calloc(1, sizeof *h);
    const int none = 0;
    if (!h)
        give_up("calloc");
    snprintf(address, room, "ipc://@%s.zmq", channel);
    if (!(h->context = zmq_ctx_new()) || !(h->socket = zmq_socket(h->context, type)))
        peer_failed("zmq", "socket", zmq_strerror(errno));
    must(zmq_setsockopt(h->socket, ZMQ_LINGER, &none, sizeof none), "linger");
    return h;
}

static void *publisher(const char *channel)
{
    char address[128];
    const int one = 1;
    struct handle *h = make(ZMQ_PUB, channel, address, sizeof address);
    must(zmq_setsockopt(h->socket, ZMQ_XPUB_NODROP, &one, sizeof one), "nodrop");
    must(zmq_bind(h->socket, address), "bind");
    return h;
}

static void *reader(const char *channel)
{
    char address[128];
    const int soon = 1;
    struct handle *h = make(ZMQ_SUB, channel, address, sizeof address);
    must(zmq_setsockopt(h->socket, ZMQ_SUBSCRIBE, "", 0), "subscribe");
    must(zmq_setsockopt(h->socket, ZMQ_RECONNECT_IVL, &soon, sizeof soon), "reconnect");
    must(zmq_connect(h->socket, address), "connect");
    return h;
}

static void publish(void *publisher, const void *data, size_t size)
{
    struct handle *h = publisher;
    while (zmq_send(h->socket, data, size, 0) < 0)
        if (errno != EAGAIN && errno != EINTR)
            must(-1, "send");
}

static int read_some(void *reader, int wait_ms, peer_take take, void *user)
{
    struct handle *h = reader;
    zmq_msg_t message;
    int n = 0;
    zmq_msg_init(&message);
    for (; n < 256; n++) {
        if (zmq_msg_recv(&message, h->socket, ZMQ_DONTWAIT) < 0) {
            zmq_pollitem_t item = { h->socket, 0, ZMQ_POLLIN, 0 };
            if (errno != EAGAIN && errno != EINTR)
                must(-1, "recv");
            if (n > 0 || wait_ms == 0 || zmq_poll(&item, 1, wait_ms) <= 0)
                break;
            n--;
            wait_ms = 0;
            continue;
        }
        take(user, zmq_msg_data(&message), zmq_msg_size(&message));
    }
    zmq_msg_close(&message);
    return n;
}

static void close_handle(void *handle)
{
    struct handle *h = handle;
    zmq_close(h->socket);
    zmq_ctx_term(h->context);
    free(h);
}

static struct peer zmq = { .name = "zmq", .publisher = publisher, .reader = reader, .publish = publish, .read = read_some,
                           .close = close_handle };

__attribute__((constructor)) static void add(void) { peer_add(&zmq); }
