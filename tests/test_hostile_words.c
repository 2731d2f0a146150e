/* SPDX-License-Identifier: MIT */
/*
 * test_hostile_words.c - promise 9 word by word: the 8-byte words that a small bus uses are set to hostile values, under members
 * that work and under members that attach. Prints the words that broke something; PS_TEST_SEED repeats the random values.
 */
#include "victim.h"

#define CRASHES 8                       /* so many are told, then the test gives up */

/* A sample that begins anywhere: 3 and 7 meet every field of every structure. PS_TEST_WORDS=1 for every word. */
static unsigned stride(void)
{
    const char *text = getenv("PS_TEST_WORDS");
    unsigned given = text ? (unsigned)strtoul(text, NULL, 10) : 0;
    return given ? given : ACTORS_SANITIZED ? 7 : 3;
}

/* Pages of the file that hold anything but zeros: bit per page. */
static size_t used_pages(const uint64_t *map, size_t words, size_t *page, size_t most)
{
    size_t count = 0;
    for (size_t p = 0; p < words / 512 && count < most; p++) {
        uint64_t any = 0;
        for (size_t i = 0; i < 512; i++)
            any |= map[p * 512 + i];
        if (any)
            page[count++] = p;
    }
    return count;
}

#define MOST_PAGES 256
#define HEALTHY    90                   /* deliveries of a round; 115 when all goes well */

struct field {
    uint64_t *map;
    size_t words, pages, page[MOST_PAGES];
};

/* A fresh bus with some traffic on it, and its bytes. */
static int field_new(struct field *f, struct house *h)
{
    house_close(h);
    if (f->map)
        munmap(f->map, f->words * 8);
    unlink(scratch_file("bus"));
    for (int i = 0; i < 6; i++)
        house_round(h);
    if (house_open(h) != 0 || !(f->map = map_file(&f->words)))
        return -1;
    f->pages = used_pages(f->map, f->words, f->page, MOST_PAGES);
    return 0;
}

/* What a word can do is seen at the next few operations; then it is put back, unless somebody has written it since. */
static int words_victim(void *arg)
{
    struct scene *sc = arg;
    struct house h = { .scene = sc };
    struct field f = { 0 };
    int fresh = 0;
    limit_memory();
    const unsigned step = stride();
    for (uint64_t at = sc->from; ; at += step) {
        sc->offset = at;
        for (unsigned i = 0; i < EVILS; i++) {
            if ((!fresh || (at % 128 < step && i == 0)) && field_new(&f, &h) != 0)
                return 3;
            if (at / 512 >= f.pages) {
                house_close(&h);
                return 0;
            }
            _Atomic uint64_t *word = (_Atomic uint64_t *)(f.map + f.page[at / 512] * 512 + at % 512);
            /* A page of zeros is alike all over. */
            if (atomic_load(word) == 0 && at / step % 64 != 0)
                break;
            /* The lanes are full of messages that nobody has read when it happens. */
            house_fill(&h);
            uint64_t old = atomic_load(word), value = evil(old, i);
            sc->value = value;
            atomic_store(word, value);
            int broken = house_read(&h);
            broken |= house_round(&h);
            atomic_compare_exchange_strong(word, &value, old);
            /* A bus on which little moves any more would hide what the next word does, and one that was left is another file. */
            uint64_t before = sc->delivered;
            broken |= house_round(&h);
            fresh = !broken && sc->delivered - before >= HEALTHY;
        }
    }
}

/* Runs a victim over all words, again behind each word that broke it. */
static void all_words(struct scene *sc, int (*body)(void *arg))
{
    int crashes = 0;
    sc->from = support_random() % stride();
    for (;;) {
        int code = watch(sc, start_child(body, sc), 0);
        if (code == 0)
            break;
        print_error("word %llu set to %llx: ended with %d in operation %d\n", (unsigned long long)sc->offset,
                    (unsigned long long)sc->value, code, (int)sc->op);
        unlink(scratch_file("bus"));
        sc->from = sc->offset + 1;
        if (code == 3 || ++crashes == CRASHES)
            break;
    }
    print_message("%llu words, %llu operations, %llu delivered, %llu resets\n", (unsigned long long)sc->offset,
                  (unsigned long long)sc->beat, (unsigned long long)sc->delivered, (unsigned long long)sc->resets);
    assert_victim(sc, 0);
    assert_int_equal(crashes, 0);
    assert_true(sc->offset > 1000);
}

static void test_p9_each_word_set_under_working_members_breaks_none(void **state)
{
    (void)state;
    all_words(scene_new(), words_victim);
}

/* ---------------------------------------------------------------- attaching to a damaged file */

static int stale_maker(void *arg)
{
    struct scene *sc = arg;
    struct house h = { .scene = sc };
    if (house_open(&h) != 0)
        return 1;
    for (int i = 0; i < 12; i++)
        house_round(&h);
    return house_open(&h) != 0;         /* and gone without a close */
}

/* The file of a bus whose members are dead, one word changed: the opener refuses it untouched, or makes it good and works. */
static int attaching_victim(void *arg)
{
    struct scene *sc = arg;
    size_t page[MOST_PAGES], words, pages;
    const uint64_t *map = map_file(&words);
    uint64_t *image = malloc(words * 8);
    int fd = -1;
    if (!map || !image)
        return 3;
    limit_memory();
    memcpy(image, map, words * 8);
    pages = used_pages(image, words, page, MOST_PAGES);
    const unsigned step = stride();
    for (uint64_t at = sc->from; at / 512 < pages; at += step) {
        uint64_t old = image[page[at / 512] * 512 + at % 512];
        if (old == 0 && at >= 512 && at / step % 64 != 0)
            continue;
        for (unsigned i = 0; i < (at < 512 ? EVILS : 1u); i++) {
            struct house h = { .scene = sc };
            uint64_t value = evil(old, at < 512 ? i : (unsigned)(support_random() % EVILS));
            sc->offset = at;
            sc->value = value;
            sc->beat++;
            /* A new file each time, only its used pages written. */
            unlink(scratch_file("bus"));
            fd = open(scratch_file("bus"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            if (fd < 0 || ftruncate(fd, (off_t)(words * 8)) != 0)
                return 3;
            for (size_t p = 0; p < pages; p++) {
                if (pwrite(fd, image + page[p] * 512, 4096, (off_t)(page[p] * 4096)) != 4096)
                    return 3;
            }
            if (pwrite(fd, &value, 8, (off_t)((page[at / 512] * 512 + at % 512) * 8)) != 8)
                return 3;
            close(fd);
            uint64_t resets = sc->resets;
            if (house_open(&h) != 0)
                return 3;
            if (resets == sc->resets && house_round(&h) == 0)
                sc->fresh++;
            house_close(&h);
        }
    }
    unlink(scratch_file("bus"));
    return 0;
}

static void test_p9_attaching_to_a_file_with_any_word_changed_is_an_error_or_works(void **state)
{
    (void)state;
    struct scene *sc = scene_new();
    struct { uint64_t *image; size_t words; } keep;
    int crashes = 0;
    assert_int_equal(reap_child(start_child(stale_maker, sc)), 0);
    uint64_t *map = map_file(&keep.words);
    assert_non_null(map);
    keep.image = malloc(keep.words * 8);
    assert_non_null(keep.image);
    memcpy(keep.image, map, keep.words * 8);
    munmap(map, keep.words * 8);
    sc->from = support_random() % stride();
    for (;;) {
        int code = watch(sc, start_child(attaching_victim, sc), 0);
        if (code == 0)
            break;
        print_error("word %llu set to %llx: ended with %d in operation %d\n", (unsigned long long)sc->offset,
                    (unsigned long long)sc->value, code, (int)sc->op);
        sc->from = sc->offset + 1;
        if (code == 3 || ++crashes == CRASHES)
            break;
        /* The next victim wants the image as it was. */
        int fd = open(scratch_file("bus"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, keep.image, keep.words * 8, 0), (ssize_t)(keep.words * 8));
        close(fd);
    }
    free(keep.image);
    print_message("%llu words; refused %llu times, worked %llu times\n", (unsigned long long)sc->offset,
                  (unsigned long long)sc->resets, (unsigned long long)sc->fresh);
    assert_victim(sc, 0);
    assert_int_equal(crashes, 0);
    assert_true(sc->offset > 500);
    assert_true(sc->fresh > 0);
}

/* ---------------------------------------------------------------- damage that is over */

struct marks {
    uint64_t seen;
};

static void mark_take(const ps_msg *msg, void *user)
{
    struct marks *m = user;
    uint64_t number;
    memcpy(&number, msg->data, msg->size >= sizeof number ? sizeof number : 0);
    if (msg->size == sizeof number && number > m->seen && number < UINT32_MAX)
        m->seen = number;
}

static void pair_open(ps_bus *bus[2], const char *url, struct marks *marks)
{
    unlink(scratch_file("bus"));
    marks->seen = 0;
    assert_ok(ps_open(&bus[0], url));
    assert_ok(ps_open(&bus[1], url));
    assert_ok(ps_subscribe(bus[1], "t/#", mark_take, marks, NULL, NULL));
}

/* A handle whose memory was damaged for a moment resynchronises, or says PS_ECORRUPT; it does not fall silent. */
static void test_p9_traffic_goes_on_or_is_refused_after_a_word_was_damaged_for_a_moment(void **state)
{
    (void)state;
    char url[200];
    ps_bus *bus[2];
    struct marks marks;
    uint64_t number = 0, *map = NULL;
    size_t words = 0;
    int silent = 0, flips = 0, fresh = 1;
    snprintf(url, sizeof url, "%s", scratch_url("bus", "depth=16&bytes=16k&members=4&evict=20"));
    const size_t step = stride(), from = support_random() % step;
    for (size_t at = from; at == from || (at < words && silent < CRASHES); at += step) {
        for (unsigned i = 0; i < EVILS; i++) {
            if (fresh) {
                pair_open(bus, url, &marks);
                if (map)
                    munmap(map, words * 8);
                map = NULL;
                fresh = 0;
            }
            for (int k = 0; k < 5; k++) {
                number++;
                assert_true(ps_publish(bus[0], "t/1", &number, sizeof number) >= 0);
            }
            if (!map && !(map = map_file(&words)))
                fail_msg("no file");
            if (at >= words || map[at] == 0)
                break;
            _Atomic uint64_t *word = (_Atomic uint64_t *)&map[at];
            uint64_t old = atomic_load(word), value = evil(old, i), put = value;
            atomic_store(word, value);
            ps_dispatch(bus[1], 0, 0);
            ps_publish(bus[0], "t/1", "damaged?", 7);
            ps_dispatch(bus[1], 0, 0);
            atomic_compare_exchange_strong(word, &value, old);
            uint64_t want = ++number, end = support_now_ms() + 500;
            int out = PS_EAGAIN, in = 0, quiet = 0;
            while (marks.seen < want && out != PS_ECORRUPT && in != PS_ECORRUPT && out != PS_EFENCED && support_now_ms() < end) {
                /* What was sent before the reader found its way again may be lost; what is sent then may not. */
                if (out < 1 || ++quiet % 16 == 0)
                    out = ps_publish(bus[0], "t/1", &want, sizeof want);
                in = ps_dispatch(bus[1], 0, 1);
            }
            flips++;
            fresh = marks.seen < want;
            /* A tail that was moved on a little looks like fellow publishes that are unfinished: refused, not silent. */
            if (fresh && out != PS_EAGAIN && out != PS_ECORRUPT && in != PS_ECORRUPT && out != PS_EFENCED) {
                print_error("byte 0x%zx, %llx set to %llx for a moment: ps_publish answers %d, ps_dispatch %d, for ever\n", at * 8,
                            (unsigned long long)old, (unsigned long long)put, out, in);
                silent++;
            }
            if (fresh) {
                assert_ok(ps_close(bus[0]));
                assert_ok(ps_close(bus[1]));
            } else {
                while (ps_dispatch(bus[1], 0, 0) > 0)
                    ;
            }
        }
        while (!fresh && ps_dispatch(bus[1], 0, 0) > 0)
            ;
    }
    if (!fresh) {
        assert_ok(ps_close(bus[0]));
        assert_ok(ps_close(bus[1]));
    }
    munmap(map, words * 8);
    print_message("%d words set for a moment\n", flips);
    assert_int_equal(silent, 0);
    assert_true(flips > 50);
}

#define HOSTILE_TEST(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(test_p9_each_word_set_under_working_members_breaks_none),
        HOSTILE_TEST(test_p9_attaching_to_a_file_with_any_word_changed_is_an_error_or_works),
        HOSTILE_TEST(test_p9_traffic_goes_on_or_is_refused_after_a_word_was_damaged_for_a_moment),
    };
    return cmocka_run_group_tests_name("hostile_words", tests, NULL, NULL);
}
