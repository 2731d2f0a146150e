/* SPDX-License-Identifier: MIT */
/*
 * redis.c - Redis through hiredis and a socket file: PUBLISH in pipelines of 64, SUBSCRIBE. The server is started for the run.
 */
#include "peer.h"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPELINE 64

struct handle { redisContext *context; int pending; char channel[96]; };

static char socket_path[64];
static pid_t server, owner;

static void must(int good, redisContext *context, const char *what)
{
    if (!good)
        peer_failed("redis", what, context ? context->errstr : "no context");
}

static redisContext *connect_server(void)
{
    return redisConnectUnix(socket_path);
}

static void stop(void)
{
    /* Not from a side that gives up. */
    if (server > 0 && owner == getpid()) {
        kill(server, SIGTERM);
        waitpid(server, NULL, 0);
        unlink(socket_path);
    }
    server = 0;
}

static int start(void)
{
    snprintf(socket_path, sizeof socket_path, "/tmp/psbench.%d.redis", (int)getpid());
    owner = getpid();
    server = fork();
    if (server < 0)
        give_up("fork");
    if (server == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "", "--appendonly", "no",
               "--client-output-buffer-limit", "pubsub 0 0 0", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 200; i++, nap_us(10000)) {
        redisContext *context = connect_server();
        int good = context && !context->err;
        if (context)
            redisFree(context);
        if (good) {
            atexit(stop);
            return 0;
        }
        if (waitpid(server, NULL, WNOHANG) == server) {
            server = 0;
            break;
        }
    }
    stop();
    fprintf(stderr, "bench: redis: redis-server does not start here; left out\n");
    return -1;
}

static struct handle *make(const char *channel)
{
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        give_up("calloc");
    snprintf(h->channel, sizeof h->channel, "%s", channel);
    h->context = connect_server();
    must(h->context && !h->context->err, h->context, "connect");
    return h;
}

static void *publisher(const char *channel) { return make(channel); }

static void *reader(const char *channel)
{
    struct handle *h = make(channel);
    redisReply *reply = redisCommand(h->context, "SUBSCRIBE %s", h->channel);
    must(reply != NULL, h->context, "subscribe");
    freeReplyObject(reply);
    return h;
}

static void flush(void *publisher)
{
    struct handle *h = publisher;
    for (; h->pending; h->pending--) {
        void *reply;
        must(redisGetReply(h->context, &reply) == REDIS_OK, h->context, "reply");
        freeReplyObject(reply);
    }
}

static void publish(void *publisher, const void *data, size_t size)
{
    struct handle *h = publisher;
    must(redisAppendCommand(h->context, "PUBLISH %s %b", h->channel, data, size) == REDIS_OK, h->context, "publish");
    /* Replies of large messages are waited for one by one, or the pipeline would hold 64 of them. */
    if (++h->pending >= PIPELINE || size > 65536)
        flush(h);
}

static int take_replies(struct handle *h, peer_take take, void *user)
{
    int n = 0;
    while (n < 512) {
        void *object;
        must(redisGetReplyFromReader(h->context, &object) == REDIS_OK, h->context, "read");
        redisReply *reply = object;
        if (!reply)
            break;
        if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 && reply->element[2]->type == REDIS_REPLY_STRING) {
            take(user, reply->element[2]->str, reply->element[2]->len);
            n++;
        }
        freeReplyObject(reply);
    }
    return n;
}

static int read_some(void *reader, int wait_ms, peer_take take, void *user)
{
    struct handle *h = reader;
    int n = take_replies(h, take, user);
    struct pollfd ready = { h->context->fd, POLLIN, 0 };
    if (n == 0 && poll(&ready, 1, wait_ms) > 0) {
        must(redisBufferRead(h->context) == REDIS_OK, h->context, "read");
        n = take_replies(h, take, user);
    }
    return n;
}

static void close_handle(void *handle)
{
    struct handle *h = handle;
    redisFree(h->context);
    free(h);
}

static struct peer redis = { .name = "redis", .start = start, .stop = stop, .publisher = publisher, .reader = reader,
                             .publish = publish, .flush = flush, .read = read_some, .close = close_handle, .window = 20000 };

__attribute__((constructor)) static void add(void) { peer_add(&redis); }
