/* SPDX-License-Identifier: MIT */
/*
 * workers.c - a pre-fork server: a parent and its worker processes on one anonymous bus.
 *
 *   workers [WORKERS [USERS]]        4 workers and 100 users if not given
 *
 * Picture a WebSocket server. A user's connection lives in one worker, a message for that user arrives at any worker. Here
 * worker W owns the users U with U % WORKERS == W and subscribes to "user:U" for each; whoever has something for a user
 * publishes to that name and need not know where the user lives.
 *
 * The program shows it by calling the roll: the parent announces a round, every worker asks every user, the worker that owns
 * the user answers, and a worker that has heard of all users tells the parent. One worker is killed in between; the parent
 * starts another in its place, which takes the users over. The exit status is 0 if every round was completed and it could say so.
 */
#define _POSIX_C_SOURCE 200809L

#include <psbus.h>

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64
#define USERS_MAX   10000
#define ROUNDS      5
#define KILL_ROUND  3           /* the round that begins with the death of a worker */
#define RESTARTS_MAX 10         /* a worker that dies again and again has a fault that a restart does not mend */

/*
 * Everything that is sent. All members of this bus are one program, so a struct can travel as it is; what comes in is
 * checked all the same, as everything that another process has written.
 */
enum kind { ROLL, ASK, ANSWER, READY, DONE };
struct letter {
    uint32_t kind, round;
    uint32_t worker;            /* ASK: who asks. READY, DONE: who says so. */
    uint32_t user;              /* ASK, ANSWER */
};

static unsigned workers = 4, users = 100;

/* What signal handlers touch: ps_stop() is made for them. */
static volatile sig_atomic_t stopping;
static _Atomic(ps_bus *) signal_bus;

static void on_stop_signal(int number)
{
    (void)number;
    stopping = 1;
    ps_stop(signal_bus);
}

/* Nothing to remember: the loop asks waitpid() whenever ps_dispatch() returns. */
static void on_child_signal(int number)
{
    (void)number;
    ps_stop(signal_bus);
}

static void die(const char *what, int rc)
{
    fprintf(stderr, "workers[%ld]: %s: %s (%s)\n", (long)getpid(), what, ps_strerror(rc), ps_errmsg());
    exit(1);
}

static void die_system(const char *what)
{
    fprintf(stderr, "workers[%ld]: %s: %s\n", (long)getpid(), what, strerror(errno));
    exit(1);
}

static void signal_catch(int number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL) < 0)
        die_system("sigaction");
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------ sending and receiving letters */

/* The letter in a message, or NULL: not one of ours. data is aligned for any struct. */
static const struct letter *letter_of(const ps_msg *msg)
{
    const struct letter *letter = msg->data;

    return msg->size == sizeof *letter && letter->worker < workers && letter->user < users ? letter : NULL;
}

/*
 * Sends without waiting. > 0: it was made available to somebody; 0: nobody subscribes to that name at the moment;
 * PS_EAGAIN: the ring is full. Every other result is fatal.
 */
static int post(ps_bus *bus, const char *topic, struct letter letter)
{
    int rc = ps_publish(bus, topic, &letter, sizeof letter);

    if (rc < 0 && rc != PS_EAGAIN)
        die(topic, rc);
    return rc;
}

/*
 * The same, for use outside handlers: while the ring is full it goes on reading. A worker that only waited would not read
 * meanwhile, and two workers that wait for each other to read would wait for long; so there is no block=MS in the URL.
 */
static int post_reading(ps_bus *bus, const char *topic, struct letter letter)
{
    int rc, dispatched;

    while ((rc = post(bus, topic, letter)) == PS_EAGAIN && !stopping)
        if ((dispatched = ps_dispatch(bus, 0, 100)) < 0)
            die("dispatch", dispatched);
    return rc;
}

/* ------------------------------------------------------------------ a worker */

struct user {
    struct worker *worker;
    uint32_t number;
};

struct worker {
    ps_bus *bus;
    uint32_t number;
    uint32_t round;             /* the roll call in progress; 0: none yet */
    unsigned missing;           /* users that have not answered in this round */
    unsigned char reached[USERS_MAX];
    struct user user[USERS_MAX];
    unsigned long asked, answers, nobody, refused;
};

static void worker_report(struct worker *worker)
{
    struct letter done = { .kind = DONE, .round = worker->round, .worker = worker->number };

    /* If the ring is full the report is not made: the parent calls the round again, and then it is. */
    if (post(worker->bus, "parent", done) == PS_EAGAIN)
        worker->refused++;
}

/* "roll": a new round begins, or the parent misses our report of the old one. */
static void on_roll(const ps_msg *msg, void *user)
{
    struct worker *worker = user;
    const struct letter *roll = letter_of(msg);

    if (roll == NULL || roll->kind != ROLL)
        return;
    if (roll->round != worker->round) {
        worker->round = roll->round;
        worker->missing = users;
        memset(worker->reached, 0, sizeof worker->reached);
    } else if (worker->missing == 0) {
        worker_report(worker);
    }
}

/* "user:U": somebody has something for a user of ours. A server would write it to the user's connection. */
static void on_ask(const ps_msg *msg, void *user)
{
    struct user *me = user;
    const struct letter *ask = letter_of(msg);
    char topic[32];

    if (ask == NULL || ask->kind != ASK)
        return;
    snprintf(topic, sizeof topic, "worker:%u", (unsigned)ask->worker);
    struct letter answer = { .kind = ANSWER, .round = ask->round, .worker = ask->worker, .user = me->number };
    /* Inside a handler nothing ever waits. The asker asks again. */
    if (post(me->worker->bus, topic, answer) == PS_EAGAIN)
        me->worker->refused++;
}

/* "worker:W": an answer for us. */
static void on_answer(const ps_msg *msg, void *user)
{
    struct worker *worker = user;
    const struct letter *answer = letter_of(msg);

    if (answer == NULL || answer->kind != ANSWER || answer->round != worker->round || worker->reached[answer->user])
        return;
    worker->reached[answer->user] = 1;
    worker->answers++;
    if (--worker->missing == 0)
        worker_report(worker);
}

/* Asks every user who has not answered yet. */
static void worker_ask(struct worker *worker)
{
    uint32_t round = worker->round;

    /* A new round may begin while we send; the next call takes care of it. */
    for (uint32_t number = 0; number < users && round == worker->round && !stopping; number++) {
        struct letter ask = { .kind = ASK, .round = round, .worker = worker->number, .user = number };
        char topic[32];

        if (worker->reached[number])
            continue;
        snprintf(topic, sizeof topic, "user:%u", (unsigned)number);
        worker->asked++;
        if (post_reading(worker->bus, topic, ask) == 0)
            worker->nobody++;           /* the user's worker is dead; its successor is not there yet */
    }
}

static void worker_subscribe(struct worker *worker)
{
    /* Names with a user's part in them are subscribed to with PS_EXACT: a '#' in one would be an error, not a wildcard. */
    ps_sub_options exact = PS_SUB_OPTIONS_INIT;
    char topic[32];
    int rc;

    exact.flags = PS_EXACT;
    for (uint32_t number = worker->number; number < users; number += workers) {
        worker->user[number] = (struct user){ worker, number };
        snprintf(topic, sizeof topic, "user:%u", (unsigned)number);
        if ((rc = ps_subscribe(worker->bus, topic, on_ask, &worker->user[number], &exact, NULL)) < 0)
            die(topic, rc);
    }
    snprintf(topic, sizeof topic, "worker:%u", (unsigned)worker->number);
    if ((rc = ps_subscribe(worker->bus, topic, on_answer, worker, &exact, NULL)) < 0)
        die(topic, rc);
    if ((rc = ps_subscribe(worker->bus, "roll", on_roll, worker, &exact, NULL)) < 0)
        die("roll", rc);
}

/* The whole life of a worker; its exit status. parent is who forked it. */
static int worker_main(ps_bus *bus, uint32_t number, pid_t parent)
{
    static struct worker worker;
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    uint32_t asked_round = 0;
    int rc;

    signal_catch(SIGCHLD, SIG_DFL);
    signal_catch(SIGINT, SIG_IGN);      /* Ctrl-C reaches the whole group; the parent decides and sends SIGTERM */

    /* The inherited handle becomes a member of its own. It has no subscriptions yet. */
    if ((rc = ps_after_fork(bus)) < 0)
        die("ps_after_fork", rc);
    worker.bus = bus;
    worker.number = number;
    worker_subscribe(&worker);

    /* Subscribing is a barrier: what anybody publishes after this report reaches us. */
    post_reading(bus, "parent", (struct letter){ .kind = READY, .worker = number });

    /* A worker without a parent has nobody who would end it. */
    while (!stopping && getppid() == parent) {
        if ((rc = ps_dispatch(bus, 0, worker.round != 0 && worker.missing > 0 ? 50 : 500)) < 0)
            die("dispatch", rc);
        /* Ask when a round begins, and again whenever it has become quiet and somebody is missing. */
        if (worker.round != 0 && worker.missing > 0 && (rc == 0 || asked_round != worker.round)) {
            asked_round = worker.round;
            worker_ask(&worker);
        }
    }

    if ((rc = ps_stats(bus, &stats)) < 0)
        die("ps_stats", rc);
    printf("  worker %u: asked %lu times, %lu answers; nobody there %lu times, ring full %lu times, lost %llu\n",
           (unsigned)number, worker.asked, worker.answers, worker.nobody, worker.refused, (unsigned long long)stats.lost);
    signal_bus = NULL;
    if ((rc = ps_close(bus)) < 0)
        die("ps_close", rc);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

/* ------------------------------------------------------------------ the parent */

struct parent {
    ps_bus *bus;
    pid_t pid[WORKERS_MAX];             /* 0: not running */
    int ready[WORKERS_MAX];
    uint32_t done[WORKERS_MAX];         /* the last round it completed */
    uint32_t round;
    unsigned restarts;
    int failed;
};

/* "parent": what workers report. */
static void on_report(const ps_msg *msg, void *user)
{
    struct parent *parent = user;
    const struct letter *report = letter_of(msg);

    if (report != NULL && report->kind == READY)
        parent->ready[report->worker] = 1;
    else if (report != NULL && report->kind == DONE)
        parent->done[report->worker] = report->round;
}

static void parent_spawn(struct parent *parent, uint32_t number)
{
    pid_t self = getpid();

    parent->ready[number] = 0;
    parent->done[number] = 0;
    parent->pid[number] = fork();
    if (parent->pid[number] < 0)
        die_system("fork");
    if (parent->pid[number] == 0)
        exit(worker_main(parent->bus, number, self));
}

/* Collects workers that have ended. Unless we are stopping, another one takes the place. */
static void parent_reap(struct parent *parent)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        uint32_t number = 0;
        while (number < workers && parent->pid[number] != pid)
            number++;
        if (number == workers)
            continue;
        parent->pid[number] = 0;
        if (stopping) {
            parent->failed |= status != 0;
            continue;
        }
        if (WIFSIGNALED(status))
            printf("worker %u (pid %ld) was killed by signal %d\n", (unsigned)number, (long)pid, WTERMSIG(status));
        else
            printf("worker %u (pid %ld) ended with status %d\n", (unsigned)number, (long)pid, WEXITSTATUS(status));
        if (++parent->restarts > RESTARTS_MAX) {
            printf("giving up after %d restarts\n", RESTARTS_MAX);
            parent->failed = 1;
            stopping = 1;
            return;
        }
        parent_spawn(parent, number);
        printf("worker %u is pid %ld now and takes the users over\n", (unsigned)number, (long)parent->pid[number]);
    }
}

static int parent_all_ready(const struct parent *parent)
{
    for (unsigned i = 0; i < workers; i++)
        if (!parent->ready[i])
            return 0;
    return 1;
}

static int parent_all_done(const struct parent *parent)
{
    for (unsigned i = 0; i < workers; i++)
        if (parent->done[i] != parent->round)
            return 0;
    return 1;
}

/* Reads reports until check says yes: 1; 0: stopped, or the time is over. check NULL: for all that time. */
static int parent_until(struct parent *parent, int (*check)(const struct parent *), int timeout_ms)
{
    uint64_t deadline = now_ms() + (uint64_t)timeout_ms, call_at = 0;

    while (!stopping && now_ms() < deadline) {
        /* The roll is called again and again: a worker that was born in the middle of the round has not heard it. */
        if (check == parent_all_done && now_ms() >= call_at) {
            post(parent->bus, "roll", (struct letter){ .kind = ROLL, .round = parent->round });
            call_at = now_ms() + 100;
        }
        int rc = ps_dispatch(parent->bus, 0, 50);
        if (rc < 0)
            die("dispatch", rc);
        parent_reap(parent);
        if (check != NULL && check(parent))
            return 1;
    }
    return 0;
}

/* Starts the workers and calls the roll; non-zero when every round was completed. */
static int parent_rounds(struct parent *parent)
{
    for (uint32_t i = 0; i < workers; i++)
        parent_spawn(parent, i);
    if (!parent_until(parent, parent_all_ready, 10000))
        return 0;
    printf("%u workers own %u users, on one anonymous bus\n", workers, users);

    for (parent->round = 1; parent->round <= ROUNDS; parent->round++) {
        uint64_t started = now_ms();
        if (parent->round == KILL_ROUND) {
            uint32_t victim = workers / 2;
            printf("killing worker %u (pid %ld)\n", (unsigned)victim, (long)parent->pid[victim]);
            if (kill(parent->pid[victim], SIGKILL) < 0)
                die_system("kill");
        }
        if (!parent_until(parent, parent_all_done, 10000)) {
            if (!stopping)
                printf("round %u: not every worker reached every user within 10 s\n", (unsigned)parent->round);
            return 0;
        }
        printf("round %u: every worker reached all %u users, %llu ms\n", (unsigned)parent->round, users,
               (unsigned long long)(now_ms() - started));
        parent_until(parent, NULL, 300);
    }
    return !stopping;
}

/* Asks the workers to end, and kills those that do not within 5 s. */
static void parent_stop_workers(struct parent *parent)
{
    uint64_t deadline = now_ms() + 5000;
    unsigned running;

    stopping = 1;
    for (unsigned i = 0; i < workers; i++)
        if (parent->pid[i] > 0)
            kill(parent->pid[i], SIGTERM);
    do {
        int rc = ps_dispatch(parent->bus, 0, 50);       /* a parent that did not read would hold the workers up */
        if (rc < 0)
            die("dispatch", rc);
        parent_reap(parent);
        running = 0;
        for (unsigned i = 0; i < workers; i++) {
            if (parent->pid[i] > 0 && now_ms() > deadline)
                kill(parent->pid[i], SIGKILL);
            running += parent->pid[i] > 0;
        }
    } while (running > 0);
}

static unsigned number_of(const char *text, unsigned max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value < 1 || value > max) {
        fprintf(stderr, "workers: '%s' is not a number from 1 to %u\nusage: workers [WORKERS [USERS]]\n", text, max);
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    static struct parent parent;
    char url[64];
    int rc;

    if (argc > 1)
        workers = number_of(argv[1], WORKERS_MAX);
    if (argc > 2)
        users = number_of(argv[2], USERS_MAX);
    setvbuf(stdout, NULL, _IOLBF, 0);   /* whole lines, and nothing in the buffer that a child would inherit */

    /* The anonymous bus has no name and no file: only this process and its children can reach it. */
    snprintf(url, sizeof url, "shm:?members=%u", workers + 1);
    if ((rc = ps_open(&parent.bus, url)) < 0)
        die(url, rc);
    if ((rc = ps_subscribe(parent.bus, "parent", on_report, &parent, NULL, NULL)) < 0)
        die("parent", rc);

    signal_bus = parent.bus;
    signal_catch(SIGINT, on_stop_signal);
    signal_catch(SIGTERM, on_stop_signal);
    signal_catch(SIGCHLD, on_child_signal);

    int completed = parent_rounds(&parent);
    int interrupted = stopping && !parent.failed;
    parent_stop_workers(&parent);
    signal_bus = NULL;
    if ((rc = ps_close(parent.bus)) < 0)
        die("ps_close", rc);

    if (interrupted) {
        printf("interrupted\n");
        return 130;
    }
    printf("%s\n", completed && !parent.failed ? "all rounds completed" : "FAILED");
    return completed && !parent.failed && fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
