/* SPDX-License-Identifier: MIT */
/*
 * event_loop.c - a bus is one descriptor of your own loop: two buses, a timer, standard input and signals in one epoll.
 *
 *   event_loop [--count N] [--seconds S] [--every MS] [CHAT-URL [CLOCK-URL]]
 *
 * Each line typed is published to the bus CHAT (shm://chat if not given), on topic "line". Every MS milliseconds (1000) the
 * timer publishes to the bus CLOCK (shm://clock) how long the program runs and what it has seen. Messages of both buses are
 * shown, also those of other programs: start it twice. It ends at the end of input when all of it is sent, on Ctrl-C, when its
 * terminal is closed, after N messages shown, or after S seconds.
 *
 * The three rules of ps_fd: when it is readable, dispatch; never read it; take it out of the loop before ps_close. A fourth for
 * publishers: after PS_EAGAIN it also becomes readable when a retry may succeed. Here that stops the reading of standard input,
 * so whoever types faster than the bus takes it waits, and nothing is dropped and nothing spins.
 */
#define _GNU_SOURCE

#include <psbus.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum source { SOURCE_CHAT, SOURCE_CLOCK, SOURCE_TIMER, SOURCE_INPUT, SOURCE_SIGNAL };

struct loop {
    int      epoll, timer, signal;
    ps_bus  *bus[2];                    /* SOURCE_CHAT, SOURCE_CLOCK */
    char     line[4096];                /* line_len bytes, typed and not yet sent; a longer line goes in pieces */
    size_t   line_len;
    int      input_watched, input_ended, held_up;
    int      input_always;              /* standard input is a file, which epoll does not take: it is always readable */
    uint64_t shown, ticks, every_ms;
    uint64_t count, limit_ms;           /* 0: without limit */
    int      stopping;
};

static struct loop the_loop = { .epoll = -1, .every_ms = 1000 };

/* Not even an error leaves a bus behind: the last one to close it removes it. */
static void give_up(void)
{
    if (the_loop.epoll >= 0)
        close(the_loop.epoll);          /* with all that it watches */
    for (int source = SOURCE_CHAT; source <= SOURCE_CLOCK; source++)
        ps_close(the_loop.bus[source]);
    exit(1);
}

static void die(const char *what, int rc)
{
    fprintf(stderr, "event_loop: %s: %s (%s)\n", what, ps_strerror(rc), ps_errmsg());
    give_up();
}

static void die_system(const char *what)
{
    fprintf(stderr, "event_loop: %s: %s\n", what, strerror(errno));
    give_up();
}

static void watch(struct loop *loop, int fd, enum source source)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = source };

    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die_system("epoll_ctl");
}

/* ------------------------------------------------------------------ the buses */

static void on_message(const ps_msg *msg, void *user)
{
    struct loop *loop = user;

    if (loop->count != 0 && loop->shown == loop->count)
        return;                         /* we are stopping; ps_dispatch() handles what was there */
    if (msg->lost > 0)
        printf("(%" PRIu64 " messages missed)\n", msg->lost);
    printf("%s: %.*s\n", msg->topic, (int)msg->size, (const char *)msg->data);
    loop->shown++;
    if (loop->shown == loop->count)
        loop->stopping = 1;
}

static void bus_open(struct loop *loop, enum source source, const char *url)
{
    int rc = ps_open(&loop->bus[source], url), fd;

    if (rc < 0)
        die(url, rc);
    if ((rc = ps_subscribe(loop->bus[source], "#", on_message, loop, NULL, NULL)) < 0)
        die(url, rc);
    if ((fd = ps_fd(loop->bus[source])) < 0)
        die(url, fd);
    watch(loop, fd, source);
}

/* timeout 0: the loop does the waiting. What was there is handled, what comes meanwhile makes the descriptor readable again. */
static void bus_dispatch(struct loop *loop, enum source source)
{
    int rc = ps_dispatch(loop->bus[source], 0, 0);

    if (rc < 0)
        die("dispatch", rc);
}

static void bus_close(struct loop *loop, enum source source)
{
    int rc;

    if (epoll_ctl(loop->epoll, EPOLL_CTL_DEL, ps_fd(loop->bus[source]), NULL) < 0)
        die_system("epoll_ctl");
    rc = ps_close(loop->bus[source]);
    loop->bus[source] = NULL;
    if (rc < 0)
        die("ps_close", rc);
}

/* ------------------------------------------------------------------ standard input */

/* Reads on, or not, while a line is held up. */
static void input_watch(struct loop *loop, int wanted)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = SOURCE_INPUT };

    if (loop->input_watched == wanted)
        return;
    loop->input_watched = wanted;
    if (loop->input_always || epoll_ctl(loop->epoll, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, STDIN_FILENO, &event) == 0)
        return;
    if (errno != EPERM)
        die_system("standard input");
    loop->input_always = 1;
}

/* Sends the lines that are complete; what is left when the bus is full waits for its descriptor. */
static void input_send(struct loop *loop)
{
    char *end;

    loop->held_up = 0;
    while (loop->line_len > 0) {
        end = memchr(loop->line, '\n', loop->line_len);
        if (end == NULL && !loop->input_ended && loop->line_len < sizeof loop->line)
            break;                      /* the rest of the line is still to come */
        size_t len = end != NULL ? (size_t)(end - loop->line) : loop->line_len, used = len + (end != NULL);
        int rc = ps_publish(loop->bus[SOURCE_CHAT], "line", loop->line, len);
        if (rc == PS_EAGAIN) {
            loop->held_up = 1;
            break;
        }
        if (rc < 0)
            die("line", rc);
        loop->line_len -= used;
        memmove(loop->line, loop->line + used, loop->line_len);
    }
    input_watch(loop, !loop->held_up && !loop->input_ended);
}

static void input_read(struct loop *loop)
{
    ssize_t got = read(STDIN_FILENO, loop->line + loop->line_len, sizeof loop->line - loop->line_len);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got < 0)
        die_system("standard input");
    if (got == 0)
        loop->input_ended = 1;
    loop->line_len += (size_t)got;
    input_send(loop);
}

/* ------------------------------------------------------------------ the timer, and the loop */

static void timer_tick(struct loop *loop)
{
    uint64_t expired;
    char text[100];
    int len, rc;

    if (read(loop->timer, &expired, sizeof expired) != sizeof expired)
        return;
    loop->ticks += expired;
    len = snprintf(text, sizeof text, "pid %ld: %.1f s, %" PRIu64 " messages seen", (long)getpid(),
                   (double)(loop->ticks * loop->every_ms) / 1000, loop->shown);
    rc = ps_publish(loop->bus[SOURCE_CLOCK], "tick", text, (size_t)len);
    /* Full: the next tick has newer news anyway. */
    if (rc < 0 && rc != PS_EAGAIN)
        die("tick", rc);
    if (loop->limit_ms != 0 && loop->ticks * loop->every_ms >= loop->limit_ms)
        loop->stopping = 1;
}

static void loop_open(struct loop *loop, const char *chat, const char *clock)
{
    struct itimerspec period = { 0 };
    struct sigaction hangup;
    sigset_t signals;

    period.it_interval.tv_sec = period.it_value.tv_sec = (time_t)(loop->every_ms / 1000);
    period.it_interval.tv_nsec = period.it_value.tv_nsec = (long)(loop->every_ms % 1000) * 1000000;
    /* Signals become one more thing to read, so none can come between a look at a flag and the wait. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    /* A signalfd also has what is ignored, as nohup wants it. */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(&signals, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        die_system("sigprocmask");
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->signal = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->epoll < 0 || loop->signal < 0 || loop->timer < 0 || timerfd_settime(loop->timer, 0, &period, NULL) < 0)
        die_system("descriptors");
    watch(loop, loop->signal, SOURCE_SIGNAL);
    watch(loop, loop->timer, SOURCE_TIMER);
    bus_open(loop, SOURCE_CHAT, chat);
    bus_open(loop, SOURCE_CLOCK, clock);
    input_watch(loop, 1);
}

static void loop_run(struct loop *loop)
{
    struct epoll_event ready[8];

    while (!loop->stopping && !(loop->input_ended && !loop->held_up)) {
        int always = loop->input_always && loop->input_watched;
        int count = epoll_wait(loop->epoll, ready, 8, always ? 0 : -1);

        if (count < 0 && errno != EINTR)
            die_system("epoll_wait");
        for (int i = 0; i < count; i++)
            switch ((enum source)ready[i].data.u32) {
            case SOURCE_CHAT:
                bus_dispatch(loop, SOURCE_CHAT);
                if (loop->held_up)
                    input_send(loop);
                break;
            case SOURCE_CLOCK: bus_dispatch(loop, SOURCE_CLOCK); break;
            case SOURCE_TIMER: timer_tick(loop); break;
            case SOURCE_INPUT: input_read(loop); break;
            case SOURCE_SIGNAL: loop->stopping = 1; break;
            }
        if (always)
            input_read(loop);
        if (fflush(stdout) != 0)
            die_system("standard output");
    }
    /* What we have sent ourselves is here already. */
    for (int source = SOURCE_CHAT; source <= SOURCE_CLOCK; source++) {
        bus_dispatch(loop, (enum source)source);
        bus_close(loop, (enum source)source);
    }
}

/* ------------------------------------------------------------------ the command line */

/*
 * On whichever of the descriptors 0, 1, 2 is closed /dev/null is opened, or the next thing we open would be taken for standard
 * input or get our output. The wrong way round: reading, writing there stays an error.
 */
static void descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            die_system("/dev/null");
}

static uint64_t number(const char *option, const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value == 0 || value > 1000000000) {
        fprintf(stderr, "event_loop: --%s %s is not a number from 1 to 1000000000\n", option, text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "count", required_argument, NULL, 'c' }, { "seconds", required_argument, NULL, 's' },
        { "every", required_argument, NULL, 'e' }, { NULL, 0, NULL, 0 },
    };
    struct loop *loop = &the_loop;
    int letter;

    descriptors();
    while ((letter = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (letter) {
        case 'c': loop->count = number("count", optarg); break;
        case 's': loop->limit_ms = number("seconds", optarg) * 1000; break;
        case 'e': loop->every_ms = number("every", optarg); break;
        default:
            fprintf(stderr, "usage: event_loop [--count N] [--seconds N] [--every MS] [URL [URL]]\n");
            return 2;
        }
    if (argc - optind > 2) {
        fprintf(stderr, "event_loop: two URLs at most\n");
        return 2;
    }
    if (loop->limit_ms != 0 && loop->every_ms > loop->limit_ms)
        loop->every_ms = loop->limit_ms;
    signal(SIGPIPE, SIG_IGN);           /* who reads our output may leave: that is an error of the write */
    loop_open(loop, optind < argc ? argv[optind] : "shm://chat", optind + 1 < argc ? argv[optind + 1] : "shm://clock");
    loop_run(loop);
    printf("%" PRIu64 " messages shown\n", loop->shown);
    return fflush(stdout) == 0 ? 0 : 1;
}
