/* SPDX-License-Identifier: MIT */
/*
 * main.c - two processes talk over a transport that the library does not know: unixgram.c, beside this file.
 *
 *   custom_transport [URL]           unixgram:///path/of/a/directory, which need not exist
 *
 * A program registers the table once, before its first ps_open() with that scheme; everything else is as with any other bus.
 */
#define _DEFAULT_SOURCE

#include <psbus.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 10000                   /* for what the other process does next */

extern const ps_transport unixgram_transport;

static void die(const char *what, int rc)
{
    fprintf(stderr, "custom_transport[%ld]: %s: %s (%s)\n", (long)getpid(), what, ps_strerror(rc), ps_errmsg());
    exit(1);
}

static ps_bus *join(const char *url, const char *filter, ps_handler handler)
{
    ps_bus *bus;
    int rc = ps_open(&bus, url);

    if (rc < 0)
        die(url, rc);
    if ((rc = ps_subscribe(bus, filter, handler, bus, NULL, NULL)) < 0)
        die(filter, rc);
    return bus;
}

static void say(ps_bus *bus, const char *topic, const void *data, size_t size)
{
    int rc = ps_publish(bus, topic, data, size);

    if (rc < 0)
        die(topic, rc);
    if (rc == 0) {
        fprintf(stderr, "custom_transport[%ld]: nobody listens to %s\n", (long)getpid(), topic);
        exit(1);
    }
}

/* Handles what comes until one message has been handled. */
static void hear(ps_bus *bus)
{
    int rc = ps_dispatch(bus, 1, WAIT_MS);

    if (rc < 0)
        die("dispatch", rc);
    if (rc == 0) {
        fprintf(stderr, "custom_transport[%ld]: nothing came within %d s\n", (long)getpid(), WAIT_MS / 1000);
        exit(1);
    }
}

/* In the child: turns a word round. */
static void on_question(const ps_msg *msg, void *user)
{
    char answer[64];
    size_t len = msg->size < sizeof answer ? msg->size : sizeof answer;

    for (size_t i = 0; i < len; i++)
        answer[i] = ((const char *)msg->data)[len - 1 - i];
    say(user, "answer", answer, len);
}

static void on_answer(const ps_msg *msg, void *user)
{
    (void)user;
    printf("%s from %016llx: %.*s\n", msg->topic, (unsigned long long)msg->publisher, (int)msg->size, (const char *)msg->data);
}

int main(int argc, char **argv)
{
    static const char *const question[] = { "stressed", "drawer", "live" };
    const int questions = sizeof question / sizeof question[0];
    char own[] = "unixgram:///tmp/custom_transport.XXXXXX";
    const char *url = argc > 1 ? argv[1] : own;
    int status = 0, rc = ps_transport_register(&unixgram_transport);

    if (rc < 0)
        die("ps_transport_register", rc);
    if (argc < 2 && mkdtemp(strchr(own, '/') + 2) == NULL) {
        perror("custom_transport: mkdtemp");
        return 1;
    }
    ps_bus *bus = join(url, "answer", on_answer);
    pid_t child = fork();
    if (child < 0) {
        perror("custom_transport: fork");
        return 1;
    }
    if (child == 0) {
        ps_close(bus);                  /* only the copy; the parent's handle lives on */
        bus = join(url, "question", on_question);
        say(bus, "answer", "I am there", strlen("I am there"));
        for (int i = 0; i < questions; i++)
            hear(bus);
        return ps_close(bus) < 0;
    }
    hear(bus);                          /* subscribe is a barrier: from now on the child hears us */
    for (int i = 0; i < questions; i++) {
        printf("question: %s\n", question[i]);
        say(bus, "question", question[i], strlen(question[i]));
        hear(bus);
    }
    if ((rc = ps_close(bus)) < 0)
        die("ps_close", rc);
    if (waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "custom_transport: the child failed\n");
        return 1;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
