/* SPDX-License-Identifier: MIT */
/* hello.c - the first program: one handle that subscribes to a topic and publishes to it. Usage: hello [URL] */
#include <psbus.h>

#include <stdio.h>
#include <string.h>

static void on_greeting(const ps_msg *msg, void *user)
{
    (void)user;
    printf("%s: %.*s\n", msg->topic, (int)msg->size, (const char *)msg->data);
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "inproc://hello";
    const char *text = "hello, world";
    ps_bus *bus;

    int rc = ps_open(&bus, url);
    if (rc == 0)
        rc = ps_subscribe(bus, "greeting/+", on_greeting, NULL, NULL, NULL);
    if (rc == 0)
        rc = ps_publish(bus, "greeting/english", text, strlen(text));
    if (rc >= 0)
        rc = ps_dispatch(bus, 1, 1000);
    if (rc < 0)
        fprintf(stderr, "hello: %s: %s (%s)\n", url, ps_strerror(rc), ps_errmsg());
    else if (rc == 0)
        fprintf(stderr, "hello: %s: nothing arrived within a second\n", url);

    int closed = ps_close(bus);
    if (closed < 0)
        fprintf(stderr, "hello: closing: %s\n", ps_strerror(closed));
    return rc == 1 && closed == 0 && fflush(stdout) == 0 ? 0 : 1;
}
