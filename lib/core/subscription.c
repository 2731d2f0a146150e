/* SPDX-License-Identifier: MIT */
/*
 * subscription.c - a handle's subscriptions: the table that finds them by a message's topic. How they begin and end: subscribe.c.
 *
 * One hash table holds both kinds: an exact filter under the hash of its name, a wildcard filter under the hash of its
 * literal prefix, so a topic is looked up once, and once more for each prefix depth in use. Changes happen under subs.lock.
 * The dispatching thread looks up without it: `version` is odd during a change, and a look-up during which it moved is done
 * again under the lock. Subscriptions and tables that were taken out are freed only where no look-up and no list of matches
 * can hold them (ps__subs_sweep).
 *
 * SYNC(table) writer: version odd, release fence, change, version even with release. Reader: version with acquire, look-up,
 * acquire fence, version again. New subscriptions are linked in with release and followed with acquire.
 */
#include "bus.h"
#include <stdlib.h>

#define SUBSCRIPTION_BUCKETS 16u        /* of a first table */

struct ps__table {
    struct ps__table *older;
    uint32_t mask;
    struct ps_sub *_Atomic bucket[];
};

PS_COLD static struct ps__table *subscription_table(uint32_t buckets)
{
    struct ps__table *table = calloc(1, sizeof *table + buckets * sizeof table->bucket[0]);
    if (table) table->mask = buckets - 1;
    return table;
}

PS_COLD int ps__subs_open(struct ps__subs *subs)
{
    struct ps__table *table = subscription_table(SUBSCRIPTION_BUCKETS);
    if (!table) return ps__fail(PS_ENOMEM, "no memory for a handle");
    ps__store_rlx(&subs->table, table);
    pthread_mutex_init(&subs->lock, NULL);
    return 0;
}

/* ------------------------------------------------------------------ look-up */

static void subscription_sift(struct ps_sub **match, uint32_t at, uint32_t count)
{
    struct ps_sub *sub = match[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && match[child + 1]->number > match[child]->number) child++;
        if (match[child]->number <= sub->number) break;
        match[at] = match[child];
    }
    match[at] = sub;
}

/* Delivered in the order of subscription. In place, for dispatch allocates nothing. */
static void subscription_sort(struct ps__subs *subs)
{
    struct ps_sub **match = subs->match;
    uint32_t count = subs->match_count;
    if (PS_LIKELY(count < 2)) return;
    for (uint32_t i = count / 2; i-- > 0;) subscription_sift(match, i, count);
    while (--count > 0) {
        struct ps_sub *last = match[count];
        match[count] = match[0];
        match[0] = last;
        subscription_sift(match, 0, count);
    }
}

/* Names of equal length. By hand, because most are short and a call costs as much as they do. */
static inline int subscription_same(const char *a, const char *b, size_t len)
{
    uint64_t x, y;
    if (PS_UNLIKELY(len < 8)) {
        for (size_t i = 0; i < len; i++)
            if (a[i] != b[i]) return 0;
        return 1;
    }
    for (size_t i = 0; i + 8 < len; i += 8) {
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        if (x != y) return 0;
    }
    memcpy(&x, a + len - 8, 8);
    memcpy(&y, b + len - 8, 8);
    return x == y;
}

/* Its prefix has the topic's hash; most filters have their only wildcard behind it. */
static inline int subscription_lets(const struct ps_sub *sub, const ps_topic *topic)
{
    const ps_filter *filter = &sub->filter;
    const size_t literal = sub->literal;
    if (PS_UNLIKELY(literal == 0 || topic->len < literal))     /* the rules for '$', and for "a" under "a/#" */
        return ps__match(filter->text, filter->len, topic->text, topic->len);
    if (!subscription_same(filter->text, topic->text, literal)) return 0;
    if (PS_LIKELY(filter->text[literal] == '#')) return 1;
    return ps__match_levels(filter->text + literal, filter->len - literal, topic->text + literal, topic->len - literal);
}

/*
 * The hash of the topic's first levels. Topics that come one after the other often share them, and then the filter that matched
 * last knows it.
 */
static inline uint64_t subscription_prefix(const ps_bus *bus, const ps_topic *topic, int depth)
{
    const struct ps_sub *last = bus->subs.last[depth];
    if (PS_LIKELY(last && topic->len >= last->literal && subscription_same(last->filter.text, topic->text, last->literal)))
        return last->filter.hash;
    return ps__topic_prefix_hash(topic, depth, bus->host.seed);
}

/* One more match; 0: more than the array holds, a change has overtaken this look-up. */
static inline int subscription_found(struct ps__subs *subs, struct ps_sub *sub)
{
    if (PS_UNLIKELY(subs->match_count == subs->match_room)) return 0;
    subs->match[subs->match_count++] = sub;
    if (sub->filter.wild) subs->last[sub->filter.depth] = sub;
    return 1;
}

/* A chain that changes under us may lead anywhere, but never in a circle for ever: bounded by what there can be. */
static int subscription_chain(struct ps__subs *subs, const struct ps__table *table, uint64_t hash, int wild,
                              const ps_topic *topic)
{
    struct ps_sub *sub = ps__load_acq(&table->bucket[hash & table->mask]);       /* SYNC(table) */
    for (uint32_t bound = UINT32_MAX; sub && bound; bound--) {
        if (sub->filter.hash == hash && sub->filter.wild == wild &&
            (wild ? subscription_lets(sub, topic)
                  : sub->filter.len == topic->len && subscription_same(sub->filter.text, topic->text, topic->len)) &&
            !subscription_found(subs, sub))
            return 0;
        sub = ps__load_acq(&sub->next);
    }
    return 1;
}

static int subscription_look_up(ps_bus *bus, const ps_topic *topic)
{
    struct ps__subs *subs = &bus->subs;
    /* SYNC(table) the version before the table: what this version has not any more is not found below, and not remembered. */
    uint64_t version = ps__load_acq(&subs->version);
    const struct ps__table *table = ps__load_acq(&subs->table);
    subs->match_count = 0;
    if (PS_UNLIKELY(subs->last_version != version)) {   /* what was taken out may be freed before the next look-up */
        memset(subs->last, 0, sizeof subs->last);
        subs->last_version = version;
    }
    if (!subscription_chain(subs, table, topic->hash, 0, topic)) return 0;
    uint32_t depths = ps__load_rlx(&subs->depths);
    for (; depths; depths &= depths - 1) {
        int d = __builtin_ctz(depths);
        uint64_t prefix = d ? subscription_prefix(bus, topic, d) : ps__load_rlx(&subs->root);
        if (!prefix) break;
        if (!subscription_chain(subs, table, prefix, 1, topic)) return 0;
    }
    return 1;
}

/* A larger match array, if a subscription asked for one. Between two messages nobody uses the old one. */
static void subscription_take_spare(struct ps__subs *subs)
{
    if (PS_LIKELY(ps__load_rlx(&subs->spare) == NULL)) return;
    struct ps_sub **spare = ps__swap_ar(&subs->spare, NULL), **old = subs->match;
    subs->match = spare;
    subs->match_room = (uint32_t)(uintptr_t)spare[-1];
    if (old) free(old - 1);             /* last: a child that is forked meanwhile frees what it finds here */
}

/* Every kind of subscription, at any time. */
static PS_NOINLINE int subscription_match(ps_bus *bus, const ps_topic *topic)
{
    struct ps__subs *subs = &bus->subs;
    subscription_take_spare(subs);
    uint64_t version = ps__load_acq(&subs->version);    /* SYNC(table) */
    int found = !(version & 1) && subscription_look_up(bus, topic);
    ps__fence_acq();                                    /* SYNC(table) other end subscription_change */
    if (PS_UNLIKELY(!found || ps__load_rlx(&subs->version) != version)) {
        pthread_mutex_lock(&subs->lock);                /* under it the spare is large enough for the table as it is */
        subscription_take_spare(subs);
        (void)subscription_look_up(bus, topic);
        pthread_mutex_unlock(&subs->lock);
    }
    subscription_sort(subs);
    subs->match_next = 0;
    return subs->match_count != 0;
}

/* The dispatching thread, between two messages. What is not one exact subscription, undisturbed, goes the long way. */
int ps__subs_match(struct ps_host *host, const ps_topic *topic)
{
    ps_bus *bus = (ps_bus *)(void *)host;
    struct ps__subs *subs = &bus->subs;
    struct ps_sub *found = NULL;
    uint64_t version = ps__load_acq(&subs->version), hash = topic->hash;    /* SYNC(table) */
    const struct ps__table *table = ps__load_acq(&subs->table);
    if (PS_UNLIKELY(ps__load_rlx(&subs->depths) || version & 1)) return subscription_match(bus, topic);
    struct ps_sub *sub = ps__load_acq(&table->bucket[hash & table->mask]);   /* SYNC(table) */
    for (uint32_t bound = subs->match_room; sub; sub = ps__load_acq(&sub->next)) {
        if (PS_UNLIKELY(bound-- == 0)) return subscription_match(bus, topic);   /* a circle for a while, or no array yet */
        if (sub->filter.hash != hash) continue;
        if (PS_UNLIKELY(found || sub->filter.len != topic->len ||
                        !subscription_same(sub->filter.text, topic->text, topic->len)))
            return subscription_match(bus, topic);
        found = sub;
    }
    ps__fence_acq();                                    /* SYNC(table) other end subscription_change */
    if (PS_UNLIKELY(ps__load_rlx(&subs->version) != version)) return subscription_match(bus, topic);
    subs->match_count = subs->match_next = 0;
    if (!found) return 0;
    subs->match[0] = found;
    subs->match_count = 1;
    return 1;
}

/* In place for one, in place for all: the others see the same bytes. */
int ps__subs_borrows(struct ps_host *host)
{
    struct ps__subs *subs = &((ps_bus *)(void *)host)->subs;
    for (uint32_t i = 0; i < subs->match_count; i++)
        if (subs->match[i]->flags & PS_BORROW) return 1;
    return 0;
}

PS_COLD void ps__subs_each(struct ps_host *host, void (*visit)(void *, const ps_filter *, uint32_t), void *arg)
{
    struct ps__table *table = ps__load_rlx(&((ps_bus *)(void *)host)->subs.table);
    for (uint32_t b = 0; b <= table->mask; b++)
        for (struct ps_sub *sub = ps__load_rlx(&table->bucket[b]); sub; sub = ps__load_rlx(&sub->next))
            visit(arg, &sub->filter, sub->flags);
}

/* ------------------------------------------------------------------ change, under subs.lock */

static void subscription_change(struct ps__subs *subs, int begin)
{
    if (begin) {
        ps__store_rlx(&subs->version, ps__load_rlx(&subs->version) + 1);
        ps__fence_rel();                                /* SYNC(table) other end ps__subs_match */
    } else {
        ps__store_rel(&subs->version, ps__load_rlx(&subs->version) + 1);
    }
}

PS_COLD static void subscription_link(struct ps__table *table, struct ps_sub *sub)
{
    struct ps_sub *_Atomic *bucket = &table->bucket[sub->filter.hash & table->mask];
    ps__store_rel(&sub->next, ps__load_rlx(bucket));
    ps__store_rel(bucket, sub);         /* SYNC(table) */
}

PS_COLD static void subscription_unlink(struct ps__table *table, struct ps_sub *sub)
{
    struct ps_sub *_Atomic *link = &table->bucket[sub->filter.hash & table->mask];
    while (ps__load_rlx(link) != sub) link = &ps__load_rlx(link)->next;
    ps__store_rel(link, ps__load_rlx(&sub->next));
}

/* To the larger table. A thread that is not here may have begun it, and left what it was moving in no chain. */
PS_COLD static void subscription_move(struct ps__subs *subs)
{
    struct ps__table *table = ps__load_rlx(&subs->table), *larger = subs->larger;
    struct ps_sub *_Atomic *bucket = table->bucket, *sub = subs->moving;
    subscription_change(subs, 1);
    if (sub && ps__load_rlx(&bucket[sub->filter.hash & table->mask]) != sub &&
        ps__load_rlx(&larger->bucket[sub->filter.hash & larger->mask]) != sub) subscription_link(larger, sub);
    for (; bucket <= &table->bucket[table->mask]; bucket++)
        while ((sub = subs->moving = ps__load_rlx(bucket)) != NULL) {
            ps__store_rel(bucket, ps__load_rlx(&sub->next));
            subscription_link(larger, sub);
        }
    table->older = subs->old_tables;                    /* kept until no look-up can be in it */
    ps__store_rel(&subs->table, larger);
    subs->old_tables = table;
    ps__store_rlx(&subs->unswept, 1);
    subscription_change(subs, 0);
}

/* Room before anything changes, so that nothing can fail half-way: a table, and a match array for every possible match. */
PS_COLD int ps__subs_room(struct ps__subs *subs)
{
    struct ps__table *table = ps__load_rlx(&subs->table);
    if (subs->count >= subs->promised) {
        uint32_t room = subs->promised ? subs->promised * 2 : 16;
        struct ps_sub **spare = calloc(room + (size_t)1, sizeof *spare);
        if (!spare) return ps__fail(PS_ENOMEM, "no memory for a subscription");
        spare[0] = (struct ps_sub *)(uintptr_t)room;    /* the slot in front holds the capacity */
        spare = ps__swap_ar(&subs->spare, spare + 1);
        if (spare) free(spare - 1);
        subs->promised = room;
    }
    if (subs->count > table->mask && (subs->larger = subscription_table((table->mask + 1) * 4))) subscription_move(subs);
    return 0;                                           /* or longer chains, still right */
}

PS_COLD static void subscription_count(struct ps__subs *subs, const struct ps_sub *sub, int step)
{
    subs->count += (uint32_t)step;
    if (!sub->filter.wild) return;
    uint32_t depth = (uint32_t)sub->filter.depth, bit = (uint32_t)1 << depth;
    subs->depth_count[depth] += (uint32_t)step;
    if (depth == 0) ps__store_rlx(&subs->root, sub->filter.hash);
    uint32_t depths = ps__load_rlx(&subs->depths);
    ps__store_rlx(&subs->depths, subs->depth_count[depth] ? depths | bit : depths & ~bit);
}

PS_COLD void ps__subs_put(struct ps__subs *subs, struct ps_sub *sub)
{
    subscription_change(subs, 1);
    subscription_link(ps__load_rlx(&subs->table), sub);
    subscription_count(subs, sub, 1);
    subscription_change(subs, 0);
}

PS_COLD uint32_t ps__subs_take(struct ps__subs *subs, struct ps_sub *sub)
{
    subscription_change(subs, 1);
    subscription_unlink(ps__load_rlx(&subs->table), sub);
    subscription_count(subs, sub, -1);
    subscription_change(subs, 0);
    sub->grave = subs->graves;
    subs->graves = sub;
    ps__store_rlx(&subs->unswept, 1);
    return ++subs->grave_count;
}

/* The dispatching thread outside of handlers, or whoever keeps it out; with an empty match list. */
PS_COLD void ps__subs_sweep(struct ps__subs *subs)
{
    if (PS_LIKELY(!ps__load_rlx(&subs->unswept))) return;
    pthread_mutex_lock(&subs->lock);
    ps__store_rlx(&subs->unswept, 0);
    struct ps_sub *sub = subs->graves;
    struct ps__table *table = subs->old_tables;
    subs->graves = NULL;
    subs->grave_count = 0;
    subs->old_tables = NULL;
    pthread_mutex_unlock(&subs->lock);
    for (struct ps_sub *next; sub; sub = next) {
        next = sub->grave;
        free(sub);
    }
    for (struct ps__table *next; table; table = next) {
        next = table->older;
        free(table);
    }
}

PS_COLD static void subscription_clear(struct ps__subs *subs)
{
    if (subs->larger && subs->larger != ps__load_rlx(&subs->table)) subscription_move(subs);
    struct ps__table *table = ps__load_rlx(&subs->table);
    for (struct ps_sub *sub = subs->graves; sub; sub = sub->grave)      /* its handler forked, or the like, and never came back */
        if (sub->destroy_after && sub->destroy) sub->destroy(sub->user);
    for (uint32_t b = 0; b <= table->mask; b++)
        for (struct ps_sub *sub; (sub = ps__load_rlx(&table->bucket[b])) != NULL; free(sub)) {
            ps__store_rlx(&table->bucket[b], ps__load_rlx(&sub->next));
            if (sub->destroy) sub->destroy(sub->user);
        }
    ps__subs_sweep(subs);
    subs->count = 0;
    memset(subs->depth_count, 0, sizeof subs->depth_count);
    memset(subs->last, 0, sizeof subs->last);
    ps__store_rlx(&subs->depths, 0);
    subs->match_count = subs->match_next = 0;
}

PS_COLD void ps__subs_close(struct ps__subs *subs)
{
    struct ps_sub **spare = ps__load_rlx(&subs->spare);
    subscription_clear(subs);
    if (spare) free(spare - 1);
    if (subs->match) free(subs->match - 1);
    free(ps__load_rlx(&subs->table));
    pthread_mutex_destroy(&subs->lock);
}

PS_COLD void ps__subs_reset(struct ps__subs *subs)
{
    pthread_mutex_init(&subs->lock, NULL);              /* a thread that is not here may hold it */
    ps__store_rlx(&subs->version, ps__load_rlx(&subs->version) & ~(uint64_t)1);
    subscription_clear(subs);
}

#undef SUBSCRIPTION_BUCKETS
