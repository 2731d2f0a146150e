/* SPDX-License-Identifier: MIT */
/*
 * test_crash.c - members are killed and stopped at random instants; the others go on, lose nothing that was accepted and
 * read nothing that is torn. PS_TEST_KILLS (2500; 800 under a sanitizer) scales it, PS_TEST_SEED repeats the choices.
 */
#include "../actors.h"

#include <pthread.h>

#define VICTIMS 4
#define THREADS 3                       /* publishing threads of a victim */
#define SURVIVAL_MS 10000               /* against hangs: a survivor goes on long before */

static uint64_t kill_budget(void)
{
    const char *text = getenv("PS_TEST_KILLS");
    uint64_t kills = text ? strtoull(text, NULL, 10) : ACTORS_SANITIZED ? 800 : 2500;
    return kills ? kills : 1;
}

/* Whoever publishes has a voice: accepted counts its publishes that returned >= 0, and is raised after each return. */
struct voice {
    _Atomic uint64_t accepted;
    uint64_t next;                      /* the number the test wants to read from it now */
};

/* Roles of a victim. */
enum { PUBLISHER, THREADED, READER, BORROWER, LOSSY, COMER, ROLES };

struct victim {
    struct arena *arena;
    pid_t pid;
    int role;
    uint64_t voice;                     /* its first one; THREADED has three */
};

struct arena {
    char url[256];
    _Atomic uint64_t stop, damaged, reordered, errors, error_line, witness_heard, gone_through, opened;
    _Atomic int64_t error;
    uint64_t lost, voices, largest;
    _Atomic uint64_t used;
    struct victim victim[VICTIMS];
    struct voice voice[];
};

#define VOICE_TEST    0                 /* the test itself */
#define VOICE_WITNESS 1

static struct arena *arena_new(const char *url, uint64_t voices, uint64_t largest)
{
    struct arena *a = support_shared(sizeof *a + voices * sizeof(struct voice));
    snprintf(a->url, sizeof a->url, "%s", url);
    a->voices = voices;
    a->largest = largest;
    a->used = 2;
    return a;
}

static int note(struct arena *a, int rc, int line)
{
    if (rc < 0) {
        a->error = rc;
        a->error_line = (uint64_t)line;
        a->errors++;
    }
    return rc;
}

/* The test's reader stood before any victim: of every voice it reads every number, once, in order. */
static void judge(const ps_msg *msg, void *user)
{
    struct arena *a = user;
    struct support_message m;
    a->lost += msg->lost;
    if (support_verify(msg->data, msg->size, &m) != 0 || m.publisher >= a->voices)
        a->damaged++;
    else if (m.number != a->voice[m.publisher].next)
        a->reordered++;
    else
        a->voice[m.publisher].next++;
}

/* Readers that come and go check that nothing is torn. */
static void glance(const ps_msg *msg, void *user)
{
    struct arena *a = user;
    struct support_message m;
    if (support_verify(msg->data, msg->size, &m) != 0 || m.publisher >= a->voices)
        a->damaged++;
}

/* A publisher's message; *number is raised once it was accepted. style: three ways to meet a full ring. */
static int speak(struct arena *a, ps_bus *bus, uint64_t voice, int style)
{
    static _Thread_local unsigned char text[16384];
    uint64_t number = a->voice[voice].accepted;
    /* Now and then as large as the ring takes: the longest claims, so the likeliest to be died in. */
    size_t size = 32 + (number * 131 + voice * 17) % (number % 8 ? 64 : number % 16 ? a->largest / 12 : a->largest - 31);
    char topic[32];
    snprintf(topic, sizeof topic, "v/%u/%u", (unsigned)(voice % 7), (unsigned)(number % 3));
    void *loan;
    int rc;
    if (number % 5 == 3) {
        rc = ps_loan(bus, topic, size, &loan);
        if (rc == 0) {
            support_compose(loan, size, voice, number);
            rc = ps_commit(bus, loan, size);
            if (rc < 0 && ps_cancel(bus, loan) < 0)
                return PS_EINVAL;
        }
    } else {
        support_compose(text, size, voice, number);
        rc = ps_publish(bus, topic, text, size);
    }
    if (rc >= 0)
        a->voice[voice].accepted = number + 1;
    else if (rc == PS_EAGAIN && style == 1)
        rc = ps_dispatch(bus, 0, 5);
    else if (rc == PS_EAGAIN)
        rc = sched_yield();
    return rc;
}

struct speaker {
    struct arena *arena;
    ps_bus *bus;
    uint64_t voice;
};

static void *speak_for_ever(void *arg)
{
    const struct speaker *s = arg;
    while (!s->arena->stop && note(s->arena, speak(s->arena, s->bus, s->voice, 0), __LINE__) >= 0)
        ;
    return NULL;
}

static int victim_body(void *arg)
{
    const struct victim *me = arg;
    struct arena *a = me->arena;
    ps_sub_options borrow = PS_SUB_OPTIONS_INIT;
    char url[300];
    ps_bus *bus = NULL;
    borrow.flags = PS_BORROW;
    snprintf(url, sizeof url, "%s%s", a->url, me->role == LOSSY ? "&lossy=1" : me->voice % 2 ? "&block=20" : "");
    do {
        /* 100 ms of a full house or of a stopped closer are no error here. */
        int rc = ps_open(&bus, url);
        if (rc == PS_EFULL || rc == PS_EBUSY)
            continue;
        if (note(a, rc, __LINE__) < 0)
            return 1;
        if (me->role >= READER)
            note(a, ps_subscribe(bus, me->voice % 2 ? "v/#" : "v/3/+", glance, a, me->role == BORROWER ? &borrow : NULL, NULL),
                 __LINE__);
        a->opened++;
        if (me->role == THREADED) {
            struct speaker s[THREADS];
            pthread_t thread[THREADS];
            for (uint64_t i = 0; i < THREADS; i++) {
                s[i] = (struct speaker){ a, bus, me->voice + i };
                if (pthread_create(&thread[i], NULL, speak_for_ever, &s[i]) != 0)
                    return 1;
            }
            for (int i = 0; i < THREADS; i++)
                pthread_join(thread[i], NULL);
        } else if (me->role == PUBLISHER) {
            while (!a->stop && note(a, speak(a, bus, me->voice, me->voice % 4 == 2), __LINE__) >= 0)
                ;
        } else if (me->role == COMER) {
            /* Another life, another lane perhaps: order holds for one handle, so it takes a voice of its own. */
            uint64_t voice = a->used++;
            for (int i = 0; i < 3 && voice < a->voices; i++)
                note(a, speak(a, bus, voice, 0), __LINE__);
            note(a, ps_dispatch(bus, 10, 0), __LINE__);
        } else {
            ps_sub *sub;
            while (!a->stop && note(a, ps_dispatch(bus, 0, 20), __LINE__) >= 0) {
                if (me->role == READER && note(a, ps_subscribe(bus, "v/1/+", glance, a, NULL, &sub), __LINE__) >= 0)
                    note(a, ps_unsubscribe(sub), __LINE__);
            }
        }
        a->gone_through++;
        note(a, ps_close(bus), __LINE__);
    } while (me->role == COMER && !a->stop);
    return 0;
}

static pid_t spawn(struct arena *a, int seat, int role)
{
    struct victim *v = &a->victim[seat];
    *v = (struct victim){ a, 0, role, atomic_fetch_add(&a->used, THREADS) };
    if (a->used >= a->voices)
        v->role = READER;               /* out of voices: somebody who only listens */
    return v->pid = start_child(victim_body, v);
}

/* Lives through everything: publishes, and reads the test's own messages. */
static void witness_take(const ps_msg *msg, void *user)
{
    struct arena *a = user;
    struct support_message m;
    if (support_verify(msg->data, msg->size, &m) != 0)
        a->damaged++;
    else if (m.publisher == VOICE_TEST && m.number != a->witness_heard)
        a->reordered++;
    else if (m.publisher == VOICE_TEST)
        a->witness_heard++;
}

static int witness_body(void *arg)
{
    struct arena *a = arg;
    ps_bus *bus;
    if (note(a, ps_open(&bus, a->url), __LINE__) < 0 ||
        note(a, ps_subscribe(bus, "v/#", witness_take, a, NULL, NULL), __LINE__) < 0)
        return 1;
    a->opened++;
    while (!a->stop) {
        for (int i = 0; i < 4; i++)
            note(a, speak(a, bus, VOICE_WITNESS, 0), __LINE__);
        note(a, ps_dispatch(bus, 0, 1), __LINE__);
    }
    return note(a, ps_close(bus), __LINE__) < 0;
}

/* One more message each way between the test and the witness; 0 at the deadline. */
static int survivors_go_on(struct arena *a, ps_bus *bus)
{
    uint64_t end = support_now_ms() + SURVIVAL_MS;
    uint64_t heard = a->voice[VOICE_WITNESS].accepted, said = a->voice[VOICE_TEST].accepted;
    while (a->voice[VOICE_WITNESS].next <= heard || a->witness_heard <= said) {
        if (a->voice[VOICE_TEST].accepted == said && speak(a, bus, VOICE_TEST, 0) < 0)
            return 0;
        if (ps_dispatch(bus, 0, 1) < 0 || support_now_ms() > end)
            return 0;
    }
    return 1;
}

static void dispatch_for(ps_bus *bus, uint64_t us)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t end = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000 + us, now;
    do {
        ps_dispatch(bus, 0, 0);
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
    } while (now < end);
}

/* Reads on until the child has ended: its status, -1 at the deadline. */
static int farewell(ps_bus *bus, pid_t child, uint64_t end)
{
    int status = -1;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (ps_dispatch(bus, 0, 1) < 0 || support_now_ms() > end)
            return -1;
    }
    actors_forget(child);
    return status;
}

static void assert_arena(const struct arena *a)
{
    if (a->errors)
        fail_msg("%d errors in members, the last %s at line %d", (int)a->errors, ps_strerror((int)a->error), (int)a->error_line);
    assert_int_equal(a->damaged, 0);
    assert_int_equal(a->reordered, 0);
    assert_int_equal(a->lost, 0);
}

static void test_p7_members_killed_at_random_lose_nothing_accepted_and_hinder_nobody(void **state)
{
    (void)state;
    uint64_t kills = kill_budget();
    /* evict=-1: only the kernel's word makes a reader go away here. */
    struct arena *a = arena_new(scratch_url("bus", "depth=128&bytes=64k&evict=-1&members=16"), (kills + 100) * 1000, 16384);
    ps_bus *bus;
    ps_bus_stats st = PS_BUS_STATS_INIT;
    uint64_t slowest = 0, read = 0;
    assert_ok(ps_open(&bus, a->url));
    assert_ok(ps_subscribe(bus, "v/#", judge, a, NULL, NULL));
    pid_t witness = start_child(witness_body, a);
    assert_true(wait_word(&a->opened, 1));
    for (int i = 0; i < VICTIMS; i++)
        spawn(a, i, i % ROLES);
    for (uint64_t k = 0; k < kills; k++) {
        int seat = (int)(support_random() % VICTIMS), stopped = support_random() % 4 == 0;
        const struct victim *v = &a->victim[seat];
        /* Some are hit before they are through ps_open, most in the middle of their work. */
        dispatch_for(bus, support_random() % (support_random() % 3 ? 3000 : 300));
        uint64_t begin = support_now_ms();
        if (stopped) {
            kill(v->pid, SIGSTOP);
            /* Nobody is declared dead, and only a reliable reader may hold others back. */
            if (v->role == PUBLISHER || v->role == THREADED || v->role == LOSSY) {
                if (!survivors_go_on(a, bus))
                    fail_msg("kill %d: survivors wait for a stopped member of role %d", (int)k, v->role);
            } else {
                dispatch_for(bus, support_random() % 5000);
            }
            kill(v->pid, SIGCONT);
        }
        if (!stopped || support_random() % 2) {
            int role = (int)(support_random() % ROLES), status;
            /* Nobody ends by himself: that would be a sanitizer's word, or an error. */
            if (waitpid(v->pid, &status, WNOHANG) != 0) {
                actors_forget(v->pid);
                fail_msg("kill %d: role %d had ended with status %x; %d errors, the last %s at line %d", (int)k, v->role, status,
                         (int)a->errors, ps_strerror((int)a->error), (int)a->error_line);
            }
            int was = v->role;
            kill_child(v->pid);
            /* Either the readers mend what it left, or the next one in its place. */
            if (k % 2)
                spawn(a, seat, role);
            if (!survivors_go_on(a, bus))
                fail_msg("kill %d: survivors wait for a dead member of role %d", (int)k, was);
            if (k % 2 == 0)
                spawn(a, seat, role);
        }
        if (support_now_ms() - begin > slowest)
            slowest = support_now_ms() - begin;
        assert_arena(a);
    }
    a->stop = 1;
    uint64_t end = support_now_ms() + SURVIVAL_MS;
    for (int i = 0; i < VICTIMS; i++)
        assert_int_equal(farewell(bus, a->victim[i].pid, end), 0);
    assert_int_equal(farewell(bus, witness, end), 0);
    while (ps_dispatch(bus, 0, 0) > 0)
        ;
    assert_arena(a);
    for (uint64_t i = 0; i < a->used && i < a->voices; i++) {
        /* One more than recorded: killed between the return and the record, or between the commit and the return. */
        if (a->voice[i].next < a->voice[i].accepted || a->voice[i].next > a->voice[i].accepted + 1)
            fail_msg("voice %d: %d accepted, %d read", (int)i, (int)a->voice[i].accepted, (int)a->voice[i].next);
        read += a->voice[i].next;
    }
    assert_ok(ps_stats(bus, &st));
    assert_int_equal(st.lost + st.corrupt + st.evicted, 0);
    print_message("%d kills and stops, %d messages, slowest step %d ms\n", (int)kills, (int)read, (int)slowest);
    assert_ok(ps_close(bus));
    int sockets;
    assert_int_equal(scratch_count(scratch_path, &sockets), 0);
    assert_int_equal(sockets, 0);
}

/* Who comes after a crash of everybody: the bus works, with no message of the dead in the way. */
static int heir_body(void *arg)
{
    struct arena *a = arg;
    struct inbox *in = calloc(1, sizeof *in);
    ps_bus *bus;
    if (!in || note(a, ps_open(&bus, a->url), __LINE__) < 0)
        return 1;
    if (note(a, ps_subscribe(bus, "#", inbox_take, in, NULL, NULL), __LINE__) < 0)
        return 2;
    for (uint64_t i = 0; i < 40; i++) {
        if (note(a, say(bus, "v/1", 1, i, 40 + 10 * i), __LINE__) < 1 || hear(bus, in, i + 1) != 0)
            return 3;
    }
    if (in->damaged + in->skipped + in->repeated + in->lost != 0)
        return 4;
    /* Mostly it goes as the others went, so that crash upon crash has to be mended. */
    return a->stop ? note(a, ps_close(bus), __LINE__) < 0 ? 5 : 0 : 0;
}

static void test_p8_everybody_killed_at_random_the_next_opener_repairs_it(void **state)
{
    (void)state;
    uint64_t rounds = kill_budget() / 2 + 1;
    struct arena *a = arena_new(scratch_url("bus", "depth=16&bytes=16k&members=8"), (rounds + 100) * 1000, 4096);
    int64_t most = 0;
    int sockets;
    for (uint64_t round = 0; round < rounds; round++) {
        a->stop = 0;
        for (int i = 0; i < VICTIMS; i++)
            spawn(a, i, (int)(support_random() % ROLES));
        nap_us((long)(support_random() % (support_random() % 2 ? 6000 : 600)));
        for (int i = 0; i < VICTIMS; i++)
            kill(a->victim[i].pid, SIGKILL);
        for (int i = 0; i < VICTIMS; i++)
            kill_child(a->victim[i].pid);
        assert_true(scratch_count(scratch_path, &sockets) <= 1);
        assert_true(sockets <= 8);
        int64_t bytes = file_bytes(scratch_file("bus"));
        most = bytes > most ? bytes : most;
        a->stop = round % 4 == 3 || round == rounds - 1;
        int code = reap_child(start_child(heir_body, a));
        if (code != 0 || a->errors || a->damaged)
            fail_msg("round %d: %d; %d errors, the last %s at line %d; %d damaged", (int)round, code, (int)a->errors,
                     ps_strerror((int)a->error), (int)a->error_line, (int)a->damaged);
        assert_int_equal(scratch_count(scratch_path, &sockets), a->stop ? 0 : 1);
        assert_true(!a->stop || sockets == 0);
    }
    print_message("%d rounds, largest file %d KiB\n", (int)rounds, (int)(most / 1024));
}

#define CRASH_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CRASH_TEST(test_p7_members_killed_at_random_lose_nothing_accepted_and_hinder_nobody),
        CRASH_TEST(test_p8_everybody_killed_at_random_the_next_opener_repairs_it),
    };
    return cmocka_run_group_tests_name("crash", tests, NULL, NULL);
}
