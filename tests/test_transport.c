/* SPDX-License-Identifier: MIT */
/*
 * test_transport.c - adding a backend: which tables are taken, and what open, close and the functions a table lacks come to.
 * The calls of a dispatch are in test_transport_calls.c. A process holds 16 added tables; each test says how many it adds.
 */
#include "../lib/core/bus.h"

#include "fake.h"

#include <pthread.h>

static void *const no_function;

/* ---------------------------------------------------------------- what is refused */

static void test_register_null_or_cut_short_refused(void **state)
{
    (void)state;
    ps_transport table = fake_table;
    table.scheme = "short";
    assert_int_equal(ps_transport_register(NULL), PS_EINVAL);
    static const size_t sizes[] = { 0, 1, offsetof(ps_transport, open) - 1, offsetof(ps_transport, open),
                                    offsetof(ps_transport, wake) };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        table.size = sizes[i];
        table.version = sizes[i] < offsetof(ps_transport, open) ? 99 : PS_TRANSPORT_VERSION;    /* not its own: not believed */
        assert_int_equal(ps_transport_register(&table), PS_EINVAL);
        assert_null(ps__transport_find("short"));
    }
}

static void test_register_required_function_missing_refused(void **state)
{
    (void)state;
    static const size_t required[] = {
        offsetof(ps_transport, open), offsetof(ps_transport, close), offsetof(ps_transport, publish),
        offsetof(ps_transport, subscribe), offsetof(ps_transport, unsubscribe), offsetof(ps_transport, begin),
        offsetof(ps_transport, next), offsetof(ps_transport, end), offsetof(ps_transport, wait), offsetof(ps_transport, wake),
    };
    for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
        ps_transport table = fake_table;
        table.scheme = "lacking";
        memcpy((char *)&table + required[i], &no_function, sizeof no_function);
        assert_int_equal(ps_transport_register(&table), PS_EINVAL);
        assert_non_null(strstr(ps_errmsg(), "lacking"));
        assert_null(ps__transport_find("lacking"));
    }
}

static int loan_nothing(void *memory, const ps_topic *topic, size_t size, void **data, int wait)
{
    (void)memory, (void)topic, (void)size, (void)data, (void)wait;
    return PS_EAGAIN;
}

static int commit_nothing(void *memory, void *data, size_t used, int wait)
{
    (void)memory, (void)data, (void)used, (void)wait;
    return PS_EINVAL;
}

static int cancel_nothing(void *memory, void *data)
{
    (void)memory, (void)data;
    return PS_EINVAL;
}

static void test_register_some_of_the_loan_functions_refused(void **state)
{
    (void)state;
    for (int set = 1; set < 7; set++) {
        ps_transport table = fake_table;
        table.scheme = "half";
        if (set & 1) table.loan = loan_nothing;
        if (set & 2) table.commit = commit_nothing;
        if (set & 4) table.cancel = cancel_nothing;
        assert_int_equal(ps_transport_register(&table), PS_EINVAL);
        assert_non_null(strstr(ps_errmsg(), "loan, commit and cancel"));
    }
}

static void test_register_illegal_scheme_refused(void **state)
{
    (void)state;
    static const char *const schemes[] = {
        NULL, "", "Fake", "fa ke", "fa_ke", "fa/ke", "fake:", "f\xc3\xa4ke", "fa%6be", "abcdefghijklmnopqrstuvwxyz012345",
    };
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        ps_transport table = fake_table;
        table.scheme = schemes[i];
        assert_int_equal(ps_transport_register(&table), PS_EINVAL);
    }
}

static void test_register_other_version_refused(void **state)
{
    (void)state;
    ps_transport table = fake_table;
    table.scheme = "later";
    table.version = PS_TRANSPORT_VERSION + 1;
    assert_int_equal(ps_transport_register(&table), PS_ENOTSUP);
    assert_non_null(strstr(ps_errmsg(), "version 2"));
    table.open = NULL;                  /* its fields may mean anything: the version is looked at first */
    table.scheme = NULL;
    assert_int_equal(ps_transport_register(&table), PS_ENOTSUP);
    table = fake_table;
    table.scheme = "later";
    for (table.version = -1; table.version < 1; table.version++)
        assert_int_equal(ps_transport_register(&table), PS_EINVAL);
    assert_null(ps__transport_find("later"));
}

static void test_register_taken_scheme_refused(void **state)
{
    (void)state;
    static const char *const schemes[] = { "inproc", "shm", "remote", "fake" };
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        ps_transport table = fake_table;
        const ps_transport *before = ps__transport_find(schemes[i]);
        table.scheme = schemes[i];
        assert_int_equal(ps_transport_register(&table), PS_EBUSY);
        assert_non_null(strstr(ps_errmsg(), schemes[i]));
        assert_ptr_equal(ps__transport_find(schemes[i]), before);
    }
}

/* ---------------------------------------------------------------- what is taken */

/* Adds one: a table that ends behind wake, as one compiled against an older header would. */
static void test_register_older_table_what_follows_is_zero(void **state)
{
    (void)state;
    ps_transport table = fake_table;
    ps_bus *bus;
    void *loan;
    memset((char *)&table + offsetof(ps_transport, loan), 0xaa, sizeof table - offsetof(ps_transport, loan));
    table.size = offsetof(ps_transport, loan);
    table.scheme = "older";
    assert_ok(ps_transport_register(&table));
    const ps_transport *kept = ps__transport_find("older");
    assert_int_equal(kept->size, sizeof table);
    assert_true(kept->wake == fake_table.wake && !kept->loan && !kept->commit && !kept->cancel && !kept->stats &&
                !kept->members && !kept->after_fork);
    assert_ok(ps_open(&bus, "older://here"));
    assert_int_equal(ps_loan(bus, "t", 1, &loan), PS_ENOTSUP);
    assert_int_equal(ps_members(bus, NULL, NULL, 0), PS_ENOTSUP);
    assert_int_equal(ps_publish(bus, "t", "x", 1), 3);
    assert_ok(ps_close(bus));
}

/* Adds one: a table that knows more than this library, under the longest scheme there is. */
static void test_register_larger_table_and_longest_scheme_taken(void **state)
{
    (void)state;
    static struct { ps_transport table; void *more[4]; } larger;
    ps_bus *bus;
    larger.table = fake_table;
    larger.table.size = sizeof larger;
    larger.table.scheme = "abcdefghijklmnopqrstuvwxyz+-.01";
    memset(larger.more, 0xaa, sizeof larger.more);
    assert_int_equal(strlen(larger.table.scheme), 31);
    assert_ok(ps_transport_register(&larger.table));
    assert_ok(ps_open(&bus, "ABCDEFGHIJKLMNOPQRSTUVWXYZ+-.01://here"));
    assert_int_equal(fake.opened, 1);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- open and close */

static void test_open_gets_zeroed_aligned_state_and_parsed_url(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        ps_bus *bus;
        void *dirt[4];
        for (int d = 0; d < 4; d++) {                   /* what malloc gives next has been used */
            dirt[d] = malloc(1024);
            memset(dirt[d], 0xee, 1024);
        }
        for (int d = 0; d < 4; d++)
            free(dirt[d]);
        assert_ok(ps_open(&bus, "FAKE://he%72e?depth=8&evict=-1&lossy=1&colour=dark%20red"));
        assert_int_equal((uintptr_t)fake.state % 128, 0);
        assert_int_equal(fake.state_used, 0);
        assert_int_equal(fake.host_size, sizeof(ps_host));
        assert_int_equal(fake.url.size, sizeof(ps_url));
        assert_int_equal(fake.url.depth, 8);
        assert_int_equal(fake.url.evict_ms, -1);
        assert_int_equal(fake.url.lossy, 1);
        assert_int_equal(fake.url.echo, 1);
        assert_string_equal(fake.address, "here");
        assert_string_equal(fake.colour, "dark red");
        assert_int_equal(fake.colour_given, 1);
        assert_int_equal(fake.shape_given, 0);          /* not in the URL; and depth is not an option of its own */
        assert_ok(ps_close(bus));
        assert_int_equal(fake.closed, i + 1);
    }
    assert_int_equal(fake.forked, 0);
}

static void test_open_option_of_another_transport_refused(void **state)
{
    (void)state;
    ps_bus *bus;
    assert_int_equal(ps_open(&bus, "fake://here?taste=1"), PS_EINVAL);
    assert_null(bus);
    assert_non_null(strstr(ps_errmsg(), "taste"));
    assert_non_null(strstr(ps_errmsg(), "colour"));
    assert_int_equal(ps_open(&bus, "inproc://here?colour=red"), PS_EINVAL);
    assert_int_equal(ps_open(&bus, "fake://here?colour=red&colour=red"), PS_EINVAL);
    assert_int_equal(fake.opened, 0);
}

static void test_open_error_told_and_close_not_called(void **state)
{
    (void)state;
    static const int codes[] = { PS_ENOTCONN, PS_ENOMEM, PS_EVERSION };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        ps_bus *bus = (ps_bus *)(void *)&fake_do;
        fake_do.open_code = codes[i];
        assert_int_equal(ps_open(&bus, "fake://here"), codes[i]);
        assert_null(bus);
        assert_string_equal(ps_errmsg(), "the fake is out of order");
    }
    assert_int_equal(fake.opened, 3);
    assert_int_equal(fake.closed, 0);
}

static void test_close_runs_destroys_and_tells_transport_once(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    ps_sub *sub;
    assert_ok(ps_subscribe(bus, "a", NULL, NULL, NULL, &sub));
    assert_ok(ps_subscribe(bus, "b", NULL, NULL, NULL, NULL));
    assert_ok(ps_unsubscribe(sub));
    assert_ok(ps_close(bus));
    assert_int_equal(fake.closed, 1);
    assert_int_equal(fake.dropped_count, 1);            /* close speaks for those that are left */
}

/* ---------------------------------------------------------------- functions that a table lacks */

static void test_lacking_functions_answered_by_the_core(void **state)
{
    (void)state;
    ps_bus *bus = fake_bus();
    void *loan = bus;
    char word[64];
    ps_bus_stats stats = PS_BUS_STATS_INIT;
    assert_int_equal(ps_wanted(bus, "t"), PS_ENOTSUP);
    assert_non_null(strstr(ps_errmsg(), "fake"));
    assert_int_equal(ps_fd(bus), PS_ENOTSUP);
    assert_int_equal(ps_loan(bus, "t", 1, &loan), PS_ENOTSUP);
    assert_null(loan);
    assert_int_equal(ps_commit(bus, word, 1), PS_EINVAL);
    assert_int_equal(ps_cancel(bus, word), PS_EINVAL);
    assert_int_equal(ps_cancel(bus, NULL), 0);
    assert_int_equal(ps_members(bus, "t", NULL, 0), PS_ENOTSUP);
    stats.published = 99;
    assert_int_equal(ps_stats(bus, &stats), 0);
    assert_int_equal(stats.size, sizeof stats);
    assert_int_equal(stats.published, 0);
    assert_ok(ps_close(bus));
}

/* Adds one: the same without PS_CAN_BORROW. */
static void test_lacking_borrow_refused_before_the_transport(void **state)
{
    (void)state;
    static ps_transport table;
    ps_bus *bus;
    ps_sub_options borrow = PS_SUB_OPTIONS_INIT;
    borrow.flags = PS_BORROW;
    table = fake_table;
    table.scheme = "unborrowed";
    table.can = 0;
    assert_ok(ps_transport_register(&table));
    assert_ok(ps_open(&bus, "unborrowed://here"));
    assert_int_equal(ps_subscribe(bus, "t", NULL, NULL, &borrow, NULL), PS_ENOTSUP);
    assert_int_equal(fake.asked_count, 0);
    assert_ok(ps_close(bus));
}

/* ---------------------------------------------------------------- how many */

/* The last one: adds what is left of the 16. fake, older, abc… and unborrowed are there. */
static void test_register_sixteen_taken_the_next_refused(void **state)
{
    (void)state;
    static ps_transport table[16];
    static char scheme[16][8];
    char list[256];
    for (int i = 4; i < 16; i++) {
        table[i] = fake_table;
        snprintf(scheme[i], sizeof scheme[i], "many%d", i);
        table[i].scheme = scheme[i];
        assert_ok(ps_transport_register(&table[i]));
    }
    ps_transport more = fake_table;
    more.scheme = "more";
    assert_int_equal(ps_transport_register(&more), PS_EFULL);
    assert_non_null(strstr(ps_errmsg(), "16"));
    assert_null(ps__transport_find("more"));
    more.scheme = "many9";
    assert_int_equal(ps_transport_register(&more), PS_EBUSY);
    ps_bus *bus;
    assert_ok(ps_open(&bus, "many15://here"));
    assert_ok(ps_close(bus));
    assert_int_equal(ps_open(&bus, "more://here"), PS_ENOTSUP);
    assert_non_null(strstr(ps_errmsg(), "many15"));     /* it lists those there are */
    ps__transport_list(list, 8);                        /* however little room */
    assert_string_equal(list, "inproc,");
    ps__transport_list(list, 1);
    assert_string_equal(list, "");
}

/* ---------------------------------------------------------------- a message, and the end at the same time */

/* A pull handle with a message, and what happens while it is taken. */
static ps_bus *next_bus(void (*on_next)(ps_bus *))
{
    ps_bus *bus = fake_bus();
    fake_do.bus = bus;
    fake_do.on_next = on_next;
    assert_ok(ps_subscribe(bus, "t", NULL, NULL, NULL, NULL));
    assert_int_equal(ps_publish(bus, "t", "", 0), 3);
    return bus;
}

/* A stop that comes while a message is on its way has ended nothing yet: it is the next call's. */
static void test_next_with_a_message_leaves_a_stop_for_the_next(void **state)
{
    (void)state;
    ps_bus *bus = next_bus(ps_stop);
    const ps_msg *msg;
    assert_int_equal(ps_next(bus, &msg, -1), 1);
    assert_non_null(msg);
    assert_int_equal(ps_next(bus, &msg, -1), 0);
    assert_null(msg);
    assert_int_equal(fake.waited, 0);
    assert_ok(ps_close(bus));
}

static void *next_closer(void *bus) { return (void *)(intptr_t)ps_close(bus); }

static pthread_t next_closing;

static void next_close(ps_bus *bus)
{
    ps_host *host = fake_of(fake.state)->host;
    assert_int_equal(pthread_create(&next_closing, NULL, next_closer, bus), 0);
    while (!host->closing(host))
        ps__pause();
}

/* The message was there, but the handle is not any more, nor what the message points to. */
static void test_next_overtaken_by_close_gives_no_message(void **state)
{
    (void)state;
    ps_bus *bus = next_bus(next_close);
    const ps_msg *msg;
    assert_int_equal(ps_next(bus, &msg, -1), PS_ECLOSED);
    assert_null(msg);
    void *closed;
    assert_int_equal(pthread_join(next_closing, &closed), 0);
    assert_int_equal((intptr_t)closed, 0);
}

/* ---------------------------------------------------------------- registering in several threads */

enum { RACERS = 4, RACES = 8 };

static pthread_barrier_t race_start;
static atomic_int race_won[RACES], race_refused;

static void *race_body(void *unused)
{
    for (int i = 0; i < RACES; i++) {
        ps_transport table = fake_table;
        char scheme[] = "race-0";
        scheme[5] = (char)('0' + i);
        table.scheme = strdup(scheme);          /* for ever, as the table's is */
        pthread_barrier_wait(&race_start);
        int rc = table.scheme ? ps_transport_register(&table) : PS_ENOMEM;
        atomic_fetch_add(&race_won[i], rc == 0);
        atomic_fetch_add(&race_refused, rc == PS_EBUSY);
    }
    return unused;
}

/* In a child, which has the tables to itself. */
static int race_in_child(void *unused)
{
    pthread_t threads[RACERS];
    (void)unused;
    pthread_barrier_init(&race_start, NULL, RACERS);
    for (int i = 0; i < RACERS; i++)
        if (pthread_create(&threads[i], NULL, race_body, NULL))
            return 1;
    for (int i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < RACES; i++) {
        char scheme[] = "race-0";
        scheme[5] = (char)('0' + i);
        if (atomic_load(&race_won[i]) != 1 || !ps__transport_find(scheme))
            return 10 + i;
    }
    return atomic_load(&race_refused) == RACES * (RACERS - 1) ? 0 : 2;
}

static void test_register_by_threads_at_once_each_scheme_once(void **state)
{
    (void)state;
    assert_int_equal(support_reap(support_child(race_in_child, NULL), DEADLINE_MS), 0);
}

#define FAKE_TEST(name) cmocka_unit_test_setup(name, fake_setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAKE_TEST(test_register_null_or_cut_short_refused),
        FAKE_TEST(test_register_required_function_missing_refused),
        FAKE_TEST(test_register_some_of_the_loan_functions_refused),
        FAKE_TEST(test_register_illegal_scheme_refused),
        FAKE_TEST(test_register_other_version_refused),
        FAKE_TEST(test_register_taken_scheme_refused),
        FAKE_TEST(test_register_older_table_what_follows_is_zero),
        FAKE_TEST(test_register_larger_table_and_longest_scheme_taken),
        FAKE_TEST(test_register_by_threads_at_once_each_scheme_once),
        FAKE_TEST(test_open_gets_zeroed_aligned_state_and_parsed_url),
        FAKE_TEST(test_open_option_of_another_transport_refused),
        FAKE_TEST(test_open_error_told_and_close_not_called),
        FAKE_TEST(test_close_runs_destroys_and_tells_transport_once),
        FAKE_TEST(test_lacking_functions_answered_by_the_core),
        FAKE_TEST(test_lacking_borrow_refused_before_the_transport),
        FAKE_TEST(test_register_sixteen_taken_the_next_refused),
        FAKE_TEST(test_next_with_a_message_leaves_a_stop_for_the_next),
        FAKE_TEST(test_next_overtaken_by_close_gives_no_message),
    };
    return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
