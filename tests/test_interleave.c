/* SPDX-License-Identifier: MIT */
/*
 * test_interleave.c - orders of events that need a thread to stop at one place: it is held where it calls the system.
 *
 * The library is linked statically, so its calls come to the functions of the same names here.
 */
#include "actors.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/syscall.h>

/* ---------------------------------------------------------------- held threads */

struct gate {
    atomic_int reached, open;
};

/* Where this thread is held next. */
static _Thread_local struct gate *hold_clock, *hold_free_answer, *hold_declare;

static int reached(void *arg) { return atomic_load(&((struct gate *)arg)->reached); }
static int opened(void *arg) { return atomic_load(&((struct gate *)arg)->open); }

/* A thread that waits for ever would hide what it is held for: it goes on at the deadline. */
static void hold_at(struct gate **where)
{
    struct gate *gate = *where;
    *where = NULL;
    if (!gate)
        return;
    atomic_store(&gate->reached, 1);
    support_wait(opened, gate, DEADLINE_MS);
}

/* The locks of slots, as member.c has them. */
#define LOCKS_CLEAN (((off_t)1 << 40) + 4096)

int fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *arg = va_arg(args, void *);
    va_end(args);
    const struct flock *lock = arg;
    if (command == F_OFD_SETLK && lock->l_type == F_WRLCK && lock->l_start >= LOCKS_CLEAN)
        hold_at(&hold_declare);
    int rc = (int)syscall(SYS_fcntl, fd, command, arg);
    if (command == F_OFD_GETLK && rc == 0 && lock->l_type == F_UNLCK)
        hold_at(&hold_free_answer);
    return rc;
}

int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));

int clock_gettime(clockid_t clock, struct timespec *now)
{
    hold_at(&hold_clock);
    return (int)syscall(SYS_clock_gettime, clock, now);
}

/* ---------------------------------------------------------------- a newcomer in a dead reader's place */

struct publisher {
    ps_bus *bus;
    struct gate *at_clock, *at_answer;
    int rc;
};

static void *publisher_body(void *arg)
{
    struct publisher *p = arg;
    uint64_t end = support_now_ms() + DEADLINE_MS;
    hold_clock = p->at_clock;
    hold_free_answer = p->at_answer;
    while ((p->rc = ps_publish(p->bus, "t", "x", 1)) == PS_EAGAIN && support_now_ms() < end)
        sched_yield();
    hold_clock = hold_free_answer = NULL;
    return NULL;
}

struct newcomer {
    const char *url;
    struct gate *at_declare;
    ps_bus *bus;
    atomic_int messages;
    int rc;
};

static void newcomer_take(const ps_msg *msg, void *user)
{
    (void)msg;
    atomic_fetch_add(&((struct newcomer *)user)->messages, 1);
}

static void *newcomer_body(void *arg)
{
    struct newcomer *n = arg;
    hold_declare = n->at_declare;
    n->rc = ps_open(&n->bus, n->url);
    hold_declare = NULL;
    if (n->rc == 0)
        n->rc = ps_subscribe(n->bus, "t", newcomer_take, n, NULL, NULL);
    return NULL;
}

static int later_than(void *arg) { return support_now_ms() > *(uint64_t *)arg; }

/*
 * A full ring, and in the way a reader that is dead. The kernel is asked about a reader once a millisecond at most, and the
 * ring was found full just before it died.
 */
static ps_bus *bus_with_a_dead_reader(void)
{
    uint64_t asked;
    struct stage *s = stage_new(scratch_url("bus", "depth=8&evict=-1&members=4"));
    ps_bus *bus;
    int rc;
    assert_ok(ps_open(&bus, s->url));
    pid_t child = start_child(idle_reader_child, s);
    assert_true(wait_word(&s->ready, 1));
    while ((rc = ps_publish(bus, "t", "x", 1)) == 1)
        ;
    assert_int_equal(rc, PS_EAGAIN);
    asked = support_now_ms() + 1;
    kill_child(child);
    assert_true(support_wait(later_than, &asked, DEADLINE_MS));
    return bus;
}

static void newcomer_is_served(ps_bus *bus, struct newcomer *n)
{
    assert_int_equal(ps_wanted(bus, "t"), 1);
    while (ps_dispatch(n->bus, 0, 0) > 0)
        ;
    atomic_store(&n->messages, 0);
    for (int i = 1; i <= 100; i++) {
        assert_int_equal(ps_publish(bus, "t", "x", 1), 1);
        assert_int_equal(ps_dispatch(n->bus, 0, DEADLINE_MS), 1);
        assert_int_equal(atomic_load(&n->messages), i);
    }
    assert_ok(ps_close(n->bus));
    assert_ok(ps_close(bus));
}

/* It moves in while the publisher holds the kernel's answer that nobody lives there. */
static void test_p7_newcomer_after_the_answer_about_the_dead_is_served(void **state)
{
    (void)state;
    for (int lossy = 0; lossy < 2; lossy++) {
        struct gate answer = { 0 };
        struct publisher p = { bus_with_a_dead_reader(), NULL, &answer, 0 };
        struct newcomer n = { .url = scratch_url("bus", lossy ? "lossy=1" : "") };
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, publisher_body, &p), 0);
        assert_true(support_wait(reached, &answer, DEADLINE_MS));
        newcomer_body(&n);
        atomic_store(&answer.open, 1);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(n.rc, 0);
        assert_true(p.rc >= 0);
        newcomer_is_served(p.bus, &n);
    }
}

/* It has said who it is, and not yet that what stands there is true, when the publisher asks. */
static void test_p7_newcomer_before_the_question_about_the_dead_is_served(void **state)
{
    (void)state;
    for (int lossy = 0; lossy < 2; lossy++) {
        struct gate clock = { 0 }, declare = { 0 };
        struct publisher p = { bus_with_a_dead_reader(), &clock, NULL, 0 };
        struct newcomer n = { .url = scratch_url("bus", lossy ? "lossy=1" : ""), .at_declare = &declare };
        pthread_t publisher, newcomer;
        assert_int_equal(pthread_create(&publisher, NULL, publisher_body, &p), 0);
        assert_true(support_wait(reached, &clock, DEADLINE_MS));
        assert_int_equal(pthread_create(&newcomer, NULL, newcomer_body, &n), 0);
        assert_true(support_wait(reached, &declare, DEADLINE_MS));
        atomic_store(&clock.open, 1);
        assert_int_equal(pthread_join(publisher, NULL), 0);
        atomic_store(&declare.open, 1);
        assert_int_equal(pthread_join(newcomer, NULL), 0);
        assert_int_equal(n.rc, 0);
        assert_true(p.rc >= 0);
        newcomer_is_served(p.bus, &n);
    }
}

/* ---------------------------------------------------------------- publishers that stop anywhere in a full ring */

struct crowd {
    ps_bus *bus, *reader;
    atomic_int stop;
    atomic_long sent, full, wrong;
};

static void crowd_ignore(const ps_msg *msg, void *user)
{
    (void)msg;
    (void)user;
}

static void *crowd_publish(void *arg)
{
    struct crowd *c = arg;
    while (!c->stop) {
        int rc = ps_publish(c->bus, "t", "x", 1);
        atomic_fetch_add(rc == PS_EAGAIN ? &c->full : rc < 0 ? &c->wrong : &c->sent, 1);
    }
    return NULL;
}

static void *crowd_read(void *arg)
{
    struct crowd *c = arg;
    while (!c->stop)
        if (ps_dispatch(c->reader, 0, 0) < 0)
            atomic_fetch_add(&c->wrong, 1);
    return NULL;
}

static void crowd_stop_a_moment(int number)
{
    int error = errno;
    (void)number;
    nap_us(50);
    errno = error;
}

/* Words that were read at different times contradict each other, and that is no damage. */
static void test_p7_publisher_stopped_before_a_full_ring_takes_no_fellow_for_damage(void **state)
{
    (void)state;
    struct crowd c = { 0 };
    struct sigaction stop = { .sa_handler = crowd_stop_a_moment }, before;
    pthread_t thread[4];
    const char *url = support_url("inproc", "interleave", "depth=2&evict=-1");
    assert_int_equal(sigaction(SIGUSR1, &stop, &before), 0);
    assert_ok(ps_open(&c.bus, url));
    assert_ok(ps_open(&c.reader, url));
    assert_ok(ps_subscribe(c.reader, "t", crowd_ignore, NULL, NULL, NULL));
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, i ? crowd_publish : crowd_read, &c), 0);
    for (uint64_t end = support_now_ms() + 1500, n = 0; support_now_ms() < end; n++) {
        pthread_kill(thread[1 + n % 3], SIGUSR1);
        nap_us(20);
    }
    c.stop = 1;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    print_message("%ld sent, %ld refused\n", (long)c.sent, (long)c.full);
    assert_int_equal(c.wrong, 0);
    assert_true(c.sent > 0 && c.full > 0);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_ok(ps_close(c.bus));
    assert_ok(ps_close(c.reader));
}

/* ---------------------------------------------------------------- a handle that is gone, in a line of who waits for whom */

#if defined __GLIBC__ && !ACTORS_SANITIZED
#define CAN_POISON 1
extern void __libc_free(void *memory);
static void *_Atomic doomed;
static struct gate yielding;
static _Thread_local int tell_yield;

/* The doomed handle is overwritten at once, and held there until the other thread has looked who waits for whom. */
void free(void *memory)
{
    if (memory && memory == atomic_load(&doomed)) {
        atomic_store(&doomed, NULL);
        memset(memory, 0x5a, malloc_usable_size(memory));
        atomic_store(&yielding.open, 1);
        support_wait(reached, &yielding, DEADLINE_MS);
    }
    __libc_free(memory);
}

int sched_yield(void)
{
    if (tell_yield)
        atomic_store(&yielding.reached, 1);
    return (int)syscall(SYS_sched_yield);
}

struct waiting {
    ps_bus *x, *y, *gone;
    ps_sub *sub;
    int close_rc, unsubscribe_rc;
};

static void close_the_other(const ps_msg *msg, void *user)
{
    struct waiting *w = user;
    (void)msg;
    atomic_store(&doomed, w->gone);
    w->close_rc = ps_close(w->gone);
}

static void end_the_running_one(const ps_msg *msg, void *user)
{
    struct waiting *w = user;
    (void)msg;
    if (!support_wait(opened, &yielding, DEADLINE_MS))
        return;
    tell_yield = 1;
    w->unsubscribe_rc = ps_unsubscribe(w->sub);
}

static void *waiting_thread(void *arg)
{
    struct waiting *w = arg;
    return ps_dispatch(w->y, 0, 0) == 1 ? NULL : arg;
}

static int closing_child(void *arg)
{
    struct stage *s = arg;
    struct waiting w = { .close_rc = -1, .unsubscribe_rc = -1 };
    pthread_t thread;
    void *wrong;
    CHILD_CHECK(s, ps_open(&w.x, "inproc://x") == 0 && ps_open(&w.y, "inproc://y") == 0 && ps_open(&w.gone, "inproc://z") == 0);
    CHILD_CHECK(s, ps_subscribe(w.x, "t", close_the_other, &w, NULL, &w.sub) == 0);
    CHILD_CHECK(s, ps_subscribe(w.y, "t", end_the_running_one, &w, NULL, NULL) == 0);
    CHILD_CHECK(s, ps_publish(w.x, "t", "x", 1) == 1 && ps_publish(w.y, "t", "x", 1) == 1);
    CHILD_CHECK(s, pthread_create(&thread, NULL, waiting_thread, &w) == 0);
    CHILD_CHECK(s, ps_dispatch(w.x, 0, 0) == 1);
    CHILD_CHECK(s, pthread_join(thread, &wrong) == 0 && !wrong);
    CHILD_CHECK(s, w.close_rc == 0 && w.unsubscribe_rc == 0 && yielding.open && yielding.reached);
    CHILD_CHECK(s, ps_close(w.x) == 0 && ps_close(w.y) == 0);
    return 0;
}
#endif

/* Who looks for a circle follows a handler that is closing a third handle: not into what is left of that one. */
static void test_p10_line_of_waiting_handlers_does_not_lead_into_a_closed_handle(void **state)
{
    (void)state;
#ifdef CAN_POISON
    struct stage *s = stage_new("");
    assert_child(s, start_child(closing_child, s));
#else
    SKIP_TEST("needs glibc's own allocator");
#endif
}

#define INTERLEAVE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        INTERLEAVE_TEST(test_p7_newcomer_after_the_answer_about_the_dead_is_served),
        INTERLEAVE_TEST(test_p7_newcomer_before_the_question_about_the_dead_is_served),
        INTERLEAVE_TEST(test_p7_publisher_stopped_before_a_full_ring_takes_no_fellow_for_damage),
        INTERLEAVE_TEST(test_p10_line_of_waiting_handlers_does_not_lead_into_a_closed_handle),
    };
    return cmocka_run_group_tests_name("interleave", tests, NULL, NULL);
}
