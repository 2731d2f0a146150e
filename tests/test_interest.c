/* SPDX-License-Identifier: MIT */
/*
 * test_interest.c - which handles want a topic: never a wrong "no", few a wrong "yes", and nothing left of what was withdrawn.
 */
#include "heap_port.h"
#include "../lib/ring/interest.h"

#define MANY 100000u

static char name_text[PS_TOPIC_MAX + 1];

static ps_topic user(unsigned number)
{
    snprintf(name_text, sizeof name_text, "user:%u", number);
    return heap_topic(name_text);
}

static ps_filter exact(unsigned number)
{
    ps_topic topic = user(number);
    return (ps_filter){ topic.text, topic.len, topic.hash, 0, 0 };
}

static ps_filter filter(const char *text)
{
    ps_filter parsed;
    assert_ok(ps__filter_parse(text, 0, HEAP_SEED, &parsed));
    return parsed;
}

static int wants(struct heap_port *heap, const char *text)
{
    ps_topic topic = heap_topic(text);
    return ps__interest_of(&heap->port, 0, &topic);
}

static void add(struct heap_port *heap, const char *text)
{
    ps_filter f = filter(text);
    ps__interest_add(&heap->port, &f);
}

static void drop(struct heap_port *heap, const char *text)
{
    ps_filter f = filter(text);
    ps__interest_remove(&heap->port, &f);
}

static unsigned bits_set(const ps__a64 *bits, uint32_t size)
{
    unsigned count = 0;
    for (uint32_t w = 0; w < size / 64; w++)
        count += (unsigned)__builtin_popcountll(ps__load_rlx(&bits[w]));
    return count;
}

static struct heap_port *interest_open(unsigned members)
{
    struct heap_port *heap = heap_open(members, 4, 6, 0, 0);
    assert_ok(ps__interest_prepare(&heap->port));
    return heap;
}

/* ---------------------------------------------------------------- exact names */

static void each_user(struct heap_port *heap, void (*visit)(void *, const ps_filter *, uint32_t), void *arg)
{
    for (unsigned i = 0; i < heap->port.bloom.filters; i++) {
        ps_filter f = exact(i);
        visit(arg, &f, 0);
    }
}

static unsigned wrong_answers(struct heap_port *heap)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < MANY; i++) {
        ps_topic topic = user(10 * MANY + i);
        wrong += (unsigned)ps__interest_of(&heap->port, 0, &topic);
    }
    return wrong;
}

static unsigned missing(struct heap_port *heap, unsigned count)
{
    unsigned none = 0;
    for (unsigned i = 0; i < count; i++) {
        ps_topic topic = user(i);
        none += !ps__interest_of(&heap->port, 0, &topic);
    }
    return none;
}

static void test_interest_hundred_thousand_names_few_wrong_answers_and_no_trace_behind(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(2);
    heap->each = each_user;
    for (unsigned i = 0; i < MANY; i++) {
        ps_filter f = exact(i);
        if (i == 3000) {
            assert_true(wrong_answers(heap) < MANY / 100);
            assert_int_equal(ps__load_rlx(&heap->port.about[0]->big), 0);
        }
        ps__interest_add(&heap->port, &f);
        if (i == 3000) {                                /* one more than the small filter is good for */
            assert_int_equal(ps__load_rlx(&heap->port.about[0]->big), 1);
            assert_int_equal(missing(heap, i + 1), 0);
            assert_true(wrong_answers(heap) < MANY / 10000);
        }
    }
    assert_int_equal(ps__load_rlx(&heap->port.about[0]->filters), MANY);
    assert_int_equal(missing(heap, MANY), 0);
    assert_true(wrong_answers(heap) < MANY / 100);
    for (unsigned i = MANY; i-- > 100;) {
        ps_filter f = exact(i);
        ps__interest_remove(&heap->port, &f);
    }
    assert_int_equal(missing(heap, 100), 0);
    assert_true(wrong_answers(heap) < MANY / 10000);
    for (unsigned i = 0; i < 100; i++) {
        ps_filter f = exact(i);
        ps__interest_remove(&heap->port, &f);
    }
    assert_int_equal(ps__load_rlx(&heap->port.about[0]->filters), 0);
    assert_int_equal(bits_set(heap->port.bloom.big, PS__BIG_BITS), 0);
    heap_close(heap);
}

static unsigned lacks_hash(const struct heap_port *heap, uint64_t hash)
{
    const struct ps__port *port = &heap->port;
    return (unsigned)ps__interest_lacks(port->bits[port->slot], &port->about[port->slot]->wild, hash);
}

/* The reader's short-cut: says "lacks" of nearly all that nobody wants, and never of what is wanted. */
static void test_interest_lacks_only_what_no_filter_wants(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(1);
    unsigned lacking = 0;
    for (unsigned i = 0; i < 100; i++) {
        ps_filter f = exact(i);
        ps__interest_add(&heap->port, &f);
    }
    for (unsigned i = 0; i < 10000; i++) {
        unsigned lacks = lacks_hash(heap, user(i).hash);
        assert_true(i >= 100 || !lacks);
        lacking += lacks;
    }
    assert_true(lacking > 9500);
    add(heap, "a/+");                           /* its names cannot be told by their hashes */
    assert_false(lacks_hash(heap, heap_topic("a/b").hash));
    drop(heap, "a/+");
    for (unsigned i = 0; i < 100; i++) {
        ps_filter f = exact(i);
        ps__interest_remove(&heap->port, &f);
    }
    for (unsigned i = 0; i < 100; i++)
        assert_true(lacks_hash(heap, user(i).hash));
    heap_close(heap);
}

static void test_interest_without_room_for_the_large_filter_stays_right(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(2);
    heap->each = each_user;
    heap->big_refused = 1;
    for (unsigned i = 0; i < 6000; i++) {
        ps_filter f = exact(i);
        ps__interest_add(&heap->port, &f);
    }
    assert_int_equal(ps__load_rlx(&heap->port.about[0]->big), 0);
    assert_null(heap->port.bloom.big);
    assert_null(heap->port.bloom.big_count);
    assert_int_equal(missing(heap, 6000), 0);
    for (unsigned i = 0; i < 6000; i++) {
        ps_filter f = exact(i);
        ps__interest_remove(&heap->port, &f);
    }
    assert_int_equal(bits_set(heap->port.bits[0], PS__SMALL_BITS), 0);
    heap_close(heap);
}

static void test_interest_large_filter_that_cannot_be_read_is_a_yes(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(2);
    ps_topic topic = user(1);
    assert_int_equal(ps__interest_of(&heap->port, 1, &topic), 0);
    ps__store_rlx(&heap->port.about[1]->big, 1);        /* slot 1 has none in this process */
    assert_int_equal(ps__interest_of(&heap->port, 1, &topic), 1);
    heap_close(heap);
}

static void test_interest_full_counters_never_become_a_wrong_no(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(2);
    for (int i = 0; i < UINT16_MAX - 1; i++)
        add(heap, "same");
    for (int i = 0; i < UINT16_MAX - 1; i++)
        drop(heap, "same");
    assert_int_equal(wants(heap, "same"), 0);           /* not full: exact */
    for (int i = 0; i < 70000; i++)
        add(heap, "same");
    for (int i = 0; i < 69999; i++)
        drop(heap, "same");
    assert_int_equal(wants(heap, "same"), 1);           /* one is left, though 65535 were counted */
    drop(heap, "same");
    assert_int_equal(wants(heap, "other"), 0);
    heap_close(heap);
}

/* ---------------------------------------------------------------- wildcards */

static void test_interest_wildcards_found_by_prefix_of_each_depth(void **state)
{
    (void)state;
    static const struct { const char *filter; int depth; const char *yes[3], *no[3]; } cases[] = {
        { "+", 0, { "a", "a/b", "b" }, { "$a", "$SYS/x" } },    /* depth 0 lets everything through but $ */
        { "#", 0, { "a", "a/b", "x/y/z" }, { "$a" } },
        { "$SYS/#", 1, { "$SYS/x", "$SYS", "$SYS/x/y" }, { "a", "$SYSX/x", "SYS/x" } },
        { "a/+", 1, { "a/b", "a/c", "a" }, { "b/b", "ab/c", "/a" } },
        { "a/b/+/d", 2, { "a/b/c/d", "a/b/x" }, { "a/c/c/d", "a", "ab/c" } },
        { "a//#", 2, { "a//x", "a/" }, { "a/b", "a" } },
        { "1/2/3/+", 3, { "1/2/3/4" }, { "1/2/4/4", "1/2" } },
        { "1/2/3/4/#", 4, { "1/2/3/4/5" }, { "1/2/3/5/5", "1/2/3" } },
        { "1/2/3/4/5/#", 5, { "1/2/3/4/5/6" }, { "1/2/3/4/6/6" } },
        { "1/2/3/4/5/6/#", 6, { "1/2/3/4/5/6" }, { "1/2/3/4/5/7" } },
        { "1/2/3/4/5/6/7/#", 7, { "1/2/3/4/5/6/7/8" }, { "1/2/3/4/5/6/8/8" } },
        { "1/2/3/4/5/6/7/8/#", 8, { "1/2/3/4/5/6/7/8/9" }, { "1/2/3/4/5/6/7/9/9", "1/2/3/4/5/6/7" } },
        /* no more than 8 levels are hashed: deeper ones are told apart by the reader */
        { "1/2/3/4/5/6/7/8/9/+", 8, { "1/2/3/4/5/6/7/8/9/10", "1/2/3/4/5/6/7/8/x" }, { "1/2/3/4/5/6/7/9/9/10" } },
    };
    struct heap_port *heap = interest_open(2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ps_filter f = filter(cases[i].filter);
        assert_int_equal(f.depth, cases[i].depth);
        ps__interest_add(&heap->port, &f);
        assert_int_equal(ps__load_rlx(&heap->port.about[0]->wild), UINT64_C(1) << cases[i].depth);
        for (int k = 0; k < 3 && cases[i].yes[k]; k++)
            assert_int_equal(wants(heap, cases[i].yes[k]), 1);
        for (int k = 0; k < 3 && cases[i].no[k]; k++)
            assert_int_equal(wants(heap, cases[i].no[k]), 0);
        ps__interest_remove(&heap->port, &f);
        for (int k = 0; k < 3 && cases[i].yes[k]; k++)
            assert_int_equal(wants(heap, cases[i].yes[k]), 0);
        assert_int_equal(ps__load_rlx(&heap->port.about[0]->wild), 0);
    }
    add(heap, "a/+");
    add(heap, "a/b/c/#");                               /* depths in between and beyond a topic's levels are stepped over */
    add(heap, "b/+");
    assert_int_equal(wants(heap, "a/b/c/d"), 1);
    assert_int_equal(wants(heap, "b/x"), 1);
    assert_int_equal(wants(heap, "c/x/y/z"), 0);
    drop(heap, "a/+");
    assert_int_equal(ps__load_rlx(&heap->port.about[0]->wild), 1u << 1 | 1u << 3);      /* b/+ still has depth 1 */
    assert_int_equal(wants(heap, "b/x"), 1);
    assert_int_equal(wants(heap, "a/x"), 0);
    assert_int_equal(wants(heap, "a/b/c/d"), 1);
    heap_close(heap);
}

static void test_interest_clear_leaves_nothing_and_moves_the_epoch(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(2);
    ps_topic topic = user(1);
    add(heap, "a/+");
    add(heap, "b");
    uint64_t epoch = ps__interest_epoch(&heap->port, &topic);
    ps__interest_clear(heap->port.words, heap->port.about[0], heap->port.bits[0]);
    assert_true(ps__interest_epoch(&heap->port, &topic) > epoch);
    assert_int_equal(bits_set(heap->port.bits[0], PS__SMALL_BITS), 0);
    assert_int_equal(ps__load_rlx(&heap->port.about[0]->wild) | ps__load_rlx(&heap->port.about[0]->filters), 0);
    ps__interest_forget(&heap->port);
    assert_null(heap->port.bloom.count);
    assert_int_equal(heap->port.bloom.filters + heap->port.bloom.wild_count[1], 0);
    heap_close(heap);
}

/* ---------------------------------------------------------------- the publisher's memory */

/* Member r wants everything. */
static void wants_all(struct heap_port *heap, unsigned r)
{
    ps__store_rlx(&heap->port.about[r]->wild, 1);
    ps__store_rlx(&heap->port.about[r]->filters, 1);
}

static int set_of(struct heap_port *heap, const ps_topic *topic, uint64_t *set)
{
    uint64_t epoch = ps__interest_epoch(&heap->port, topic);
    unsigned words = ps__set_words(&heap->port);
    int any = ps__interest_set(&heap->port, topic, epoch, words, set);
    int count = ps__interest_count(set, any ? words : 0);
    assert_int_equal(any, count > 0);
    return count;
}

static void test_set_of_256_members_every_one_in_its_place(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(PS_MEMBERS_MAX);
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1);
    int count = 0;
    assert_int_equal(set_of(heap, &topic, set), 0);
    for (unsigned r = 0; r < PS_MEMBERS_MAX; r += 1 + r / 9) {
        wants_all(heap, r);
        ps__add_rel(ps__interest_word(heap->port.words, 1, 0), 1);
        assert_int_equal(set_of(heap, &topic, set), ++count);
        assert_true(set[r / 64] >> (r % 64) & 1);
    }
    heap->port.echo = 0;                                /* not its own */
    ps__add_rel(ps__interest_word(heap->port.words, 1, 0), 1);
    assert_int_equal(set_of(heap, &topic, set), count - 1);
    assert_false(set[0] & 1);
    ps__store_rlx(&heap->port.words->slots_high, UINT64_MAX);   /* a damaged word leads nowhere */
    ps__add_rel(ps__interest_word(heap->port.words, 1, 0), 1);
    assert_int_equal(set_of(heap, &topic, set), count - 1);
    heap_close(heap);
}

static void test_memo_is_asked_until_the_topics_epoch_moves(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(3);
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1);
    assert_int_equal(set_of(heap, &topic, set), 0);
    wants_all(heap, 1);                                 /* without a word about it: what is remembered counts */
    assert_int_equal(set_of(heap, &topic, set), 0);
    unsigned group = (unsigned)(topic.hash >> 56);
    ps__add_rel(&heap->port.words->epoch[(group + 1) % PS__EPOCHS], 1);         /* another topic's */
    assert_int_equal(set_of(heap, &topic, set), 0);
    ps__add_rel(&heap->port.words->epoch[group], 1);
    assert_int_equal(set_of(heap, &topic, set), 1);
    wants_all(heap, 2);
    assert_int_equal(set_of(heap, &topic, set), 1);
    ps__add_rel(&heap->port.words->epoch[PS__EPOCHS], 1);       /* the common one */
    assert_int_equal(set_of(heap, &topic, set), 2);
    heap_close(heap);
}

static void test_memo_torn_or_foreign_entry_is_a_miss(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(PS_MEMBERS_MAX);
    struct ps__port *port = &heap->port;
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1), other = user(2);
    other.hash = topic.hash ^ UINT64_C(1) << 40;        /* falls into the same entry, and the same epoch */
    wants_all(heap, 70);
    assert_int_equal(set_of(heap, &topic, set), 1);
    ps__a64 *entry = port->memo.entry;
    size_t words = (size_t)port->set_words + 1;
    entry += (topic.hash & 131071) * words;
    assert_int_equal(ps__load_rlx(&entry[2]), UINT64_C(1) << 6);        /* this is how it is remembered: a tag, the words */
    for (size_t w = 0; w < words; w++) {
        for (unsigned b = 0; b < 64; b++) {             /* each word as another thread's store could have left it */
            ps__store_rlx(&entry[w], ps__load_rlx(&entry[w]) ^ UINT64_C(1) << b);
            assert_int_equal(set_of(heap, &topic, set), 1);
            assert_int_equal(set[1], UINT64_C(1) << 6);
        }
    }
    for (int i = 0; i < 4; i++) {
        /* by turns in one entry: neither gets the other's set */
        wants_all(heap, 100 + (unsigned)i);
        ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
        assert_int_equal(set_of(heap, &topic, set), 2 + i);
        ps__store_rlx(&port->about[100 + i]->filters, 0);
        assert_int_equal(set_of(heap, &other, set), 1 + i);
        assert_int_equal(set_of(heap, &topic, set), 1 + i);
        ps__store_rlx(&port->about[100 + i]->filters, 1);
    }
    /* and zeros, as fresh memory holds, are no answer "nobody" */
    memset((void *)entry, 0, words * sizeof *entry);
    assert_int_equal(set_of(heap, &topic, set), 5);
    heap_close(heap);
}

/* One word while nobody took a slot above the first 64; whoever does is seen with his epoch. */
static void test_set_of_one_word_until_the_65th_member(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(PS_MEMBERS_MAX);
    struct ps__port *port = &heap->port;
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1);
    ps__store_rlx(&port->words->slots_high, 64);
    wants_all(heap, 63);
    assert_int_equal(ps__set_words(port), 1);
    assert_int_equal(set_of(heap, &topic, set), 1);
    assert_int_equal(set[0], UINT64_C(1) << 63);
    wants_all(heap, 64);                                /* shown, but not said to publishers yet: no slot to look at */
    assert_int_equal(set_of(heap, &topic, set), 1);
    ps__store_rlx(&port->words->slots_high, 65);
    ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
    assert_int_equal(ps__set_words(port), 2);
    assert_int_equal(set_of(heap, &topic, set), 2);
    assert_int_equal(set[1], 1);
    wants_all(heap, 128);
    ps__store_rlx(&port->words->slots_high, 129);
    ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
    assert_int_equal(ps__set_words(port), 4);
    assert_int_equal(set_of(heap, &topic, set), 3);
    assert_int_equal(set[2], 1);
    heap_close(heap);
}

/* Two threads, one of which has seen the 65th member, remember the same topic under the same epoch: neither takes the other's. */
static void test_memo_entry_of_another_number_of_words_is_a_miss(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(PS_MEMBERS_MAX);
    struct ps__port *port = &heap->port;
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1);
    for (int only_above = 0; only_above < 2; only_above++) {
        if (!only_above) wants_all(heap, 3);
        else ps__store_rlx(&port->about[3]->filters, 0);        /* a set whose first word is empty, as that of fresh memory */
        wants_all(heap, 100);
        for (int i = 0; i < 4; i++) {
            ps__store_rlx(&port->words->slots_high, i % 2 ? PS_MEMBERS_MAX : 64);
            if (i == 0) ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
            assert_int_equal(set_of(heap, &topic, set), (only_above ? 0 : 1) + i % 2);
            if (i % 2) assert_int_equal(set[1], UINT64_C(1) << 36);
        }
    }
    heap_close(heap);
}

static void test_set_leaves_the_dead_out_until_somebody_moves_in(void **state)
{
    (void)state;
    struct heap_port *heap = interest_open(3);
    struct ps__port *port = &heap->port;
    uint64_t set[PS__SET_WORDS];
    ps_topic topic = user(1);
    wants_all(heap, 1);
    wants_all(heap, 2);
    heap_gate(heap, 1, 0);
    assert_int_equal(set_of(heap, &topic, set), 2);
    ps__store_rlx(&port->dead[1], ps__load_rlx(&port->reader[1]->join_last) + 1);
    ps__or_rlx(&port->dead_set[0], ps__set_bit(1));
    assert_int_equal(set_of(heap, &topic, set), 1);     /* at once, whatever is remembered */
    ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
    assert_int_equal(set_of(heap, &topic, set), 1);
    heap_gate(heap, 1, 0);                              /* the next owner of the slot */
    assert_int_equal(set_of(heap, &topic, set), 2);     /* whom the mark is not meant for, though it be set only now */
    ps__add_rel(&port->words->epoch[PS__EPOCHS], 1);
    assert_int_equal(set_of(heap, &topic, set), 2);
    assert_int_equal(ps__load_rlx(&port->dead[1]) | ps__load_rlx(&port->dead_set[0]), 0);
    heap_close(heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interest_hundred_thousand_names_few_wrong_answers_and_no_trace_behind),
        cmocka_unit_test(test_interest_lacks_only_what_no_filter_wants),
        cmocka_unit_test(test_interest_without_room_for_the_large_filter_stays_right),
        cmocka_unit_test(test_interest_large_filter_that_cannot_be_read_is_a_yes),
        cmocka_unit_test(test_interest_full_counters_never_become_a_wrong_no),
        cmocka_unit_test(test_interest_wildcards_found_by_prefix_of_each_depth),
        cmocka_unit_test(test_interest_clear_leaves_nothing_and_moves_the_epoch),
        cmocka_unit_test(test_set_of_256_members_every_one_in_its_place),
        cmocka_unit_test(test_memo_is_asked_until_the_topics_epoch_moves),
        cmocka_unit_test(test_memo_torn_or_foreign_entry_is_a_miss),
        cmocka_unit_test(test_set_of_one_word_until_the_65th_member),
        cmocka_unit_test(test_memo_entry_of_another_number_of_words_is_a_miss),
        cmocka_unit_test(test_set_leaves_the_dead_out_until_somebody_moves_in),
    };
    return cmocka_run_group_tests_name("interest", tests, NULL, NULL);
}
