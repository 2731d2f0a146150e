/* SPDX-License-Identifier: MIT */
/*
 * count.c - the program whose instructions are counted: count KIND URL. valgrind counts inside measured() only; what is called
 * there, and how often, is printed as one number on standard output.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <psbus.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 8
#define COUNT  500

static const char text[64] = "sixty-four bytes of payload, the size that the benchmark uses.";
static ps_bus *publisher, *reader;
static const char *topic = "user/0123456789a";
static unsigned handled;

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "count: %s (%s)\n", ps_strerror(rc), ps_errmsg());
        exit(1);
    }
}

static void take(const ps_msg *msg, void *user)
{
    (void)msg, (void)user;
    handled++;
}

static void publish_all(void)
{
    for (int i = 0; i < COUNT; i++)
        must(ps_publish(publisher, topic, text, sizeof text));
}

static void publish_one(void) { must(ps_publish(publisher, topic, text, sizeof text)); }
static void dispatch_all(void) { must(ps_dispatch(reader, 0, 0)); }
static void dispatch_one(void) { must(ps_dispatch(reader, 1, 0)); }
static void dispatch_none(void)
{
    for (int i = 0; i < COUNT; i++)
        must(ps_dispatch(reader, 0, 0));
}
static void nothing(void) { }

/* Called through a pointer that the compiler cannot see through, so that it stays a function of its own. */
__attribute__((noinline)) void measured(void (*what)(void));
void measured(void (*what)(void))
{
    what();
    __asm__ volatile("" ::: "memory");
}

struct kind {
    const char *name, *topic;
    void (*before)(void), (*what)(void), (*after)(void);
    int repeat;         /* times a round */
    int each;           /* messages that one call of `what` is worth */
    unsigned handled;   /* handlers run in a round */
    int sent;           /* 1: somebody else wants the topic, and holds nobody back */
};

static const struct kind kinds[] = {
    { "publish-wanted", "user/0123456789a", nothing, publish_all, dispatch_all, 1, COUNT, COUNT, 0 },
    { "publish-unwanted", "user/0123456789b", nothing, publish_all, nothing, 1, COUNT, 0, 0 },
    { "dispatch-many", "user/0123456789a", publish_all, dispatch_all, nothing, 1, COUNT, COUNT, 0 },
    { "dispatch-one", "user/0123456789a", publish_one, dispatch_one, nothing, COUNT, 1, COUNT, 0 },
    { "dispatch-unwanted", "user/0123456789b", publish_all, dispatch_all, nothing, 1, COUNT, 0, 1 },
    { "dispatch-empty", "user/0123456789a", nothing, dispatch_none, nothing, 1, COUNT, 0, 0 },
};

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    for (size_t i = 0; argc == 3 && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            kind = &kinds[i];
    if (!kind) {
        fprintf(stderr, "count: is run by instructions.sh\n");
        return 2;
    }
    ps_bus *other = NULL;
    char lossy[200];
    snprintf(lossy, sizeof lossy, "%s?lossy=1", argv[2]);
    must(ps_open(&publisher, argv[2]));
    must(ps_open(&reader, argv[2]));
    must(ps_subscribe(reader, "user/0123456789a", take, NULL, NULL, NULL));
    topic = kind->topic;
    if (kind->sent) {
        must(ps_open(&other, lossy));
        must(ps_subscribe(other, topic, take, NULL, NULL, NULL));
    }
    /* The first half warms up: first publishes map memory and fill caches of topics. */
    for (int round = 0; round < 2 * ROUNDS; round++) {
        handled = 0;
        for (int i = 0; i < kind->repeat; i++) {
            kind->before();
            if (round < ROUNDS)
                kind->what();
            else
                measured(kind->what);
            kind->after();
        }
        if (handled != kind->handled) {
            fprintf(stderr, "count: %u messages handled instead of %u\n", handled, kind->handled);
            return 1;
        }
    }
    if (other)
        must(ps_close(other));
    must(ps_close(reader));
    must(ps_close(publisher));
    printf("%d\n", ROUNDS * kind->repeat * kind->each);
    return 0;
}
