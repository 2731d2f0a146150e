/* SPDX-License-Identifier: MIT */
/*
 * roles.c - what the members of the bus do, over shm and inproc alike. Every message carries its publisher's own count, its size
 * and a pattern, so that loss without a word, a second delivery, a wrong order and damage are told apart.
 */
#include "soak.h"

#include <psbus.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY     UINT64_C(0x9e3779b97f4a7c15)
#define SMALL   2000
#define LARGE   30000
#define STREAMS 4096u
#define SUBS    24

static void must_(int rc, const char *what, const char *url)
{
    if (rc < 0)
        soak_wrong("%s: %s: %s (%s)", url, what, ps_strerror(rc), ps_errmsg());
}
#define MUST(call) must_((call), #call, actor->url)

static unsigned draw(struct actor *actor, unsigned below) { return (unsigned)rand_r(&actor->seed) % below; }

/* At the head of each role's loop; rests there when its time has come. */
static int going(struct actor *actor, int rest)
{
    actor->beat++;
    while (soak->rest >= rest && !soak->stop) {
        actor->resting = 1;
        soak_nap_us(1000);
        actor->beat++;
    }
    actor->resting = 0;
    return !soak->stop;
}

/* ---------------------------------------------------------------- messages */

struct head { uint64_t sequence, key; };

static void fill(void *data, size_t size, uint64_t sequence)
{
    struct head head = { sequence, (sequence ^ size) * KEY };
    memcpy(data, &head, sizeof head);
    memset((char *)data + sizeof head, (int)sequence, size - sizeof head);
}

static uint64_t check(const ps_msg *msg)
{
    struct head head;
    const char *body = (const char *)msg->data + sizeof head;
    if (msg->size < sizeof head)
        soak_wrong("a message of %zu bytes on %s", msg->size, msg->topic);
    memcpy(&head, msg->data, sizeof head);
    if (head.key != (head.sequence ^ msg->size) * KEY)
        soak_wrong("a damaged message on %s", msg->topic);
    size_t size = msg->size - sizeof head;
    if (size && (body[0] != (char)head.sequence || memcmp(body, body + 1, size - 1) != 0))
        soak_wrong("a damaged payload of %zu bytes on %s", msg->size, msg->topic);
    return head.sequence;
}

static size_t some_size(struct actor *actor)
{
    return sizeof(struct head) + draw(actor, draw(actor, 40) ? SMALL : LARGE);
}

static void some_topic(struct actor *actor, char *topic)
{
    snprintf(topic, 32, "soak/%u/%u", draw(actor, 10), draw(actor, 100));
}

/* ---------------------------------------------------------------- publishers */

/* While role_fill_places() holds all places there is none, but not for long. */
static ps_bus *open_bus(struct actor *actor)
{
    ps_bus *bus;
    int rc = ps_open(&bus, actor->url);
    for (int i = 0; rc == PS_EFULL && i < 500; i++) {
        soak_nap_us(10000);
        rc = ps_open(&bus, actor->url);
    }
    MUST(rc);
    return bus;
}

/* A count is used up only by a message that somebody was to have. */
static void sent(struct actor *actor, int rc, uint64_t *sequence)
{
    actor->refused += rc == PS_EAGAIN;
    if (rc == PS_EAGAIN)
        return;
    MUST(rc);
    *sequence += rc > 0;
    actor->sent += rc > 0;
}

void role_publish(struct actor *actor)
{
    char topic[32], data[sizeof(struct head) + LARGE];
    ps_bus *bus = open_bus(actor);
    for (uint64_t sequence = 0; going(actor, REST_ALL); soak_nap_us(200 + (long)draw(actor, 1000))) {
        for (int i = 0; i < 30 && soak->rest < REST_ALL; i++) {
            size_t size = some_size(actor);
            some_topic(actor, topic);
            fill(data, size, sequence);
            sent(actor, ps_publish(bus, topic, data, size), &sequence);
        }
    }
    MUST(ps_close(bus));
}

void role_lend(struct actor *actor)
{
    char topic[32];
    ps_bus *bus = open_bus(actor);
    for (uint64_t sequence = 0; going(actor, REST_ALL); soak_nap_us(200 + (long)draw(actor, 1000))) {
        for (int i = 0; i < 10 && soak->rest < REST_ALL; i++) {
            size_t size = some_size(actor);
            void *data;
            some_topic(actor, topic);
            int rc = ps_loan(bus, topic, size + draw(actor, 100), &data);
            actor->refused += rc == PS_EAGAIN;
            if (rc == PS_EAGAIN)
                continue;
            MUST(rc);
            fill(data, size, sequence);
            rc = draw(actor, 10) ? ps_commit(bus, data, size) : PS_EAGAIN;
            if (rc == PS_EAGAIN)
                MUST(ps_cancel(bus, data));
            sent(actor, rc, &sequence);
        }
    }
    MUST(ps_close(bus));
}

/*
 * Takes every place that is free, and fills the rings and the loan area of each, on a topic that all long-lived readers want.
 * Small loans: behind the last large one that fits, the end of the area would stay untouched.
 */
void role_fill_places(struct actor *actor)
{
    ps_bus *bus[PS_MEMBERS_MAX];
    static char data[SMALL];
    int count = 0, rc;
    while ((rc = ps_open(&bus[count], actor->url)) != PS_EFULL) {
        MUST(rc);
        count++;
    }
    for (int i = 0; i < count; i++) {
        ps_bus_stats stats = PS_BUS_STATS_INIT;
        uint64_t sequence = 0, lent = 0;
        MUST(ps_stats(bus[i], &stats));
        while (sequence < 2 * stats.depth || sequence * sizeof data < 2 * stats.bytes || lent < 2 * stats.loans) {
            void *loan;
            fill(data, sizeof data, sequence);
            sent(actor, ps_publish(bus[i], "soak/1/1", data, sizeof data), &sequence);
            if (ps_loan(bus[i], "soak/1/1", SMALL, &loan) < 0)
                continue;
            fill(loan, SMALL, sequence);
            rc = ps_commit(bus[i], loan, SMALL);
            lent += rc > 0 ? SMALL : 0;
            if (rc == PS_EAGAIN)
                MUST(ps_cancel(bus[i], loan));
            sent(actor, rc, &sequence);
        }
    }
    for (int i = 0; i < count; i++)
        MUST(ps_close(bus[i]));
}

/* ---------------------------------------------------------------- readers of everything */

struct reader {
    struct actor *actor;
    uint64_t told;                      /* messages that said that others before them were lost */
    struct { uint64_t publisher, next, told; } stream[STREAMS];
};

static void take(const ps_msg *msg, void *user)
{
    struct reader *reader = user;
    uint64_t sequence = check(msg);
    if (msg->lost) {
        reader->told++;
        reader->actor->lost += msg->lost;
    }
    size_t at = (size_t)(msg->publisher * KEY >> 32) % STREAMS;
    if (reader->stream[at].publisher == msg->publisher) {
        if (sequence < reader->stream[at].next)
            soak_wrong("%s: message %llu of %llx came after %llu", reader->actor->url, (unsigned long long)sequence,
                       (unsigned long long)msg->publisher, (unsigned long long)reader->stream[at].next - 1);
        if (sequence > reader->stream[at].next && reader->stream[at].told == reader->told)
            soak_wrong("%s: messages %llu to %llu of %llx were lost without a word", reader->actor->url,
                       (unsigned long long)reader->stream[at].next, (unsigned long long)sequence - 1,
                       (unsigned long long)msg->publisher);
    }
    reader->stream[at].publisher = msg->publisher;
    reader->stream[at].next = sequence + 1;
    reader->stream[at].told = reader->told;
    reader->actor->read++;
}

static struct reader *new_reader(struct actor *actor)
{
    struct reader *reader = calloc(1, sizeof *reader);
    if (!reader)
        soak_wrong("no memory");
    reader->actor = actor;
    return reader;
}

static void read_all(struct actor *actor, unsigned flags, int slowly)
{
    struct reader *reader = new_reader(actor);
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    ps_bus *bus = open_bus(actor);
    options.flags = flags;
    MUST(ps_subscribe(bus, "#", take, reader, &options, NULL));
    while (going(actor, REST_READERS)) {
        MUST(ps_dispatch(bus, 100, 50));
        if (slowly && draw(actor, 20) == 0)
            soak_nap_us(50000);
    }
    MUST(ps_close(bus));
    free(reader);
}

void role_read(struct actor *actor) { read_all(actor, 0, 0); }
void role_read_slowly(struct actor *actor) { read_all(actor, 0, 1); }
void role_borrow(struct actor *actor) { read_all(actor, PS_BORROW, 0); }

void role_pull(struct actor *actor)
{
    struct reader *reader = new_reader(actor);
    ps_bus *bus = open_bus(actor);
    MUST(ps_subscribe(bus, "#", NULL, reader, NULL, NULL));
    while (going(actor, REST_READERS)) {
        const ps_msg *msg;
        int rc = ps_next(bus, &msg, 50);
        MUST(rc);
        if (rc == 1)
            take(msg, reader);
    }
    MUST(ps_close(bus));
    free(reader);
}

void role_poll(struct actor *actor)
{
    struct reader *reader = new_reader(actor);
    ps_bus *bus = open_bus(actor);
    MUST(ps_subscribe(bus, "#", take, reader, NULL, NULL));
    struct pollfd ready = { ps_fd(bus), POLLIN, 0 };
    MUST(ready.fd);
    while (going(actor, REST_READERS)) {
        int rc = poll(&ready, 1, 50);
        if (rc < 0 && errno != EINTR)
            soak_wrong("%s: poll: %s", actor->url, strerror(errno));
        if (rc > 0)
            MUST(ps_dispatch(bus, 0, 0));
    }
    MUST(ps_close(bus));
    free(reader);
}

/* ---------------------------------------------------------------- who comes and goes */

struct churn { struct actor *actor; ps_sub *sub[SUBS]; uint64_t made, destroyed; };

static void churn_take(const ps_msg *msg, void *user)
{
    struct churn *churn = user;
    check(msg);
    churn->actor->read++;
}

static void churn_destroy(void *user)
{
    struct churn *churn = user;
    churn->destroyed++;
}

static void some_filter(struct actor *actor, char *filter)
{
    switch (draw(actor, 4)) {
    case 0: snprintf(filter, 32, "soak/%u/#", draw(actor, 10)); break;
    case 1: snprintf(filter, 32, "soak/+/%u", draw(actor, 100)); break;
    default: some_topic(actor, filter);
    }
}

/* Subscriptions that come and go, on handles that come and go. */
void role_churn(struct actor *actor)
{
    struct churn churn = { .actor = actor };
    ps_sub_options options = PS_SUB_OPTIONS_INIT;
    char filter[32];
    options.destroy = churn_destroy;
    while (going(actor, REST_READERS)) {
        ps_bus *bus = open_bus(actor);
        memset(churn.sub, 0, sizeof churn.sub);
        for (int i = 0; i < 200 && !soak->rest && !soak->stop; i++) {
            ps_sub **sub = &churn.sub[draw(actor, SUBS)];
            if (*sub) {
                MUST(ps_unsubscribe(*sub));
                *sub = NULL;
            } else {
                some_filter(actor, filter);
                MUST(ps_subscribe(bus, filter, churn_take, &churn, &options, sub));
                churn.made++;
            }
            MUST(ps_dispatch(bus, 0, i % 8 == 0));
        }
        MUST(ps_close(bus));
        if (churn.made != churn.destroyed)
            soak_wrong("%s: %llu subscriptions, %llu destroyed", actor->url, (unsigned long long)churn.made,
                       (unsigned long long)churn.destroyed);
    }
}

static void forked_child(struct actor *actor, ps_bus *bus)
{
    struct churn churn = { .actor = actor };
    char data[100];
    int rc = ps_publish(bus, "soak/forked", data, sizeof data);
    if (rc != PS_EFORKED)
        soak_wrong("a forked child's publish answered %d", rc);
    for (int i = 0; (rc = ps_after_fork(bus)) == PS_EFULL && i < 500; i++)
        soak_nap_us(10000);
    MUST(rc);
    MUST(ps_subscribe(bus, "soak/#", churn_take, &churn, NULL, NULL));
    for (uint64_t sequence = 0; sequence < 5; sequence++) {
        fill(data, sizeof data, sequence);
        rc = ps_publish(bus, "soak/forked", data, sizeof data);
        if (rc != PS_EAGAIN)
            MUST(rc);
        else
            break;
    }
    MUST(ps_dispatch(bus, 0, 0));
    MUST(ps_close(bus));
    _exit(0);
}

void role_fork(struct actor *actor)
{
    struct churn churn = { .actor = actor };
    ps_bus *bus = open_bus(actor);
    MUST(ps_subscribe(bus, "soak/1/#", churn_take, &churn, NULL, NULL));
    while (going(actor, REST_READERS)) {
        pid_t me = getpid(), pid = fork();
        int status = 0;
        if (pid < 0)
            soak_wrong("fork: %s", strerror(errno));
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != me)
                _exit(1);
            forked_child(actor, bus);
        }
        while (waitpid(pid, &status, WNOHANG) == 0)
            MUST(ps_dispatch(bus, 0, 1));
        if (status != 0)
            soak_wrong("a forked child ended with status %d", status);
        soak->forks++;
        for (uint64_t until = soak_now_ms() + 50; soak_now_ms() < until;)
            MUST(ps_dispatch(bus, 0, 10));
    }
    MUST(ps_close(bus));
}
