/* SPDX-License-Identifier: MIT */
/*
 * nng.c - nng: pub0 and sub0 over ipc. It drops what a reader has no room for, so few messages are under way at a time.
 */
#include "peer.h"

#include <nng/nng.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>
#include <stdio.h>
#include <stdlib.h>

static void must(int rc, const char *what)
{
    if (rc != 0)
        peer_failed("nng", what, nng_strerror(rc));
}

static nng_socket *make(const char *channel, char *address, size_t room)
{
    nng_socket *socket = malloc(sizeof *socket);
    if (!socket)
        give_up("malloc");
    snprintf(address, room, "ipc:///tmp/%s.nng", channel);
    return socket;
}

static void *publisher(const char *channel)
{
    char address[128];
    nng_socket *socket = make(channel, address, sizeof address);
    must(nng_pub0_open(socket), "open");
    must(nng_setopt_int(*socket, NNG_OPT_SENDBUF, 4096), "send buffer");
    must(nng_listen(*socket, address, NULL, 0), "listen");
    return socket;
}

static void *reader(const char *channel)
{
    char address[128];
    nng_socket *socket = make(channel, address, sizeof address);
    must(nng_sub0_open(socket), "open");
    must(nng_setopt(*socket, NNG_OPT_SUB_SUBSCRIBE, "", 0), "subscribe");
    must(nng_setopt_int(*socket, NNG_OPT_RECVBUF, 4096), "receive buffer");
    must(nng_setopt_size(*socket, NNG_OPT_RECVMAXSZ, 0), "size");
    must(nng_setopt_ms(*socket, NNG_OPT_RECONNMINT, 1), "reconnect");
    must(nng_dial(*socket, address, NULL, NNG_FLAG_NONBLOCK), "dial");
    return socket;
}

static void publish(void *publisher, const void *data, size_t size)
{
    nng_msg *message;
    must(nng_msg_alloc(&message, size), "message");
    memcpy(nng_msg_body(message), data, size);
    must(nng_sendmsg(*(nng_socket *)publisher, message, 0), "send");
}

static int read_some(void *reader, int wait_ms, peer_take take, void *user)
{
    nng_socket socket = *(nng_socket *)reader;
    nng_msg *message;
    int n = 0;
    if (wait_ms)
        must(nng_setopt_ms(socket, NNG_OPT_RECVTIMEO, wait_ms), "timeout");
    for (; n < 64; n++) {
        int rc = nng_recvmsg(socket, &message, n == 0 && wait_ms ? 0 : NNG_FLAG_NONBLOCK);
        if (rc == NNG_EAGAIN || rc == NNG_ETIMEDOUT)
            break;
        must(rc, "receive");
        take(user, nng_msg_body(message), nng_msg_len(message));
        nng_msg_free(message);
    }
    return n;
}

static void close_handle(void *handle)
{
    nng_close(*(nng_socket *)handle);
    free(handle);
}

static struct peer nng = { .name = "nng", .publisher = publisher, .reader = reader, .publish = publish, .read = read_some,
                           .close = close_handle, .window = 1000 };

__attribute__((constructor)) static void add(void) { peer_add(&nng); }
