/* SPDX-License-Identifier: MIT */
/*
 * geometry.c - how many cells and bytes a lane has: wished by openers, fixed when the first lane is reserved.
 *
 * One packed word, so that wishes are put together by compare-and-swap: depth, bytes and loans as powers of two, which of
 * them somebody asked for, and whether it is fixed. Whoever asks for more than is there raises it while nothing is fixed;
 * afterwards he gets PS_EGEOMETRY. Read once by each member, checked, and kept privately.
 */
#include "ring.h"

#define GEOMETRY_DEPTH 8192u            /* defaults: 1 MiB of cells and 2 MiB of payload a publisher, */
#define GEOMETRY_BYTES (2u << 20)       /* so that some twenty fit into the 64 MB that a container has */
#define GEOMETRY_LEAST 4096u            /* smallest payload ring and loan area */
_Static_assert(GEOMETRY_LEAST / 4 >= PS__MESSAGE_LEAST, "publish relies on it");
#define GEOMETRY_FIXED ((uint64_t)1 << 32)
#define GEOMETRY_SET   ((uint64_t)1 << 33)      /* a word that was written at all */

uint64_t ps__geometry_pack(const struct ps__geometry *g)
{
    return g->depth_log | (uint64_t)g->units_log << 8 | (uint64_t)g->loans_log << 16 | (uint64_t)g->named << 24 |
           (g->fixed ? GEOMETRY_FIXED : 0) | GEOMETRY_SET;
}

/* Positions are 32 bits: they must not come round within a ring of messages, padding at the ring's end included. */
static int geometry_numbers(const struct ps__geometry *g)
{
    return g->depth_log + g->units_log - 2 <= 31;
}

/* What has 32 bits of address cannot map all that there may be, and its sizes would not even say so. */
static int geometry_fits(const struct ps__geometry *g)
{
    const uint64_t most = SIZE_MAX / 4, payload = (uint64_t)PS__UNIT << g->units_log, loans = (uint64_t)PS__UNIT << g->loans_log;
    if (payload <= most && loans <= most) return 0;     /* cells are 128 MiB at most */
    return ps__fail(PS_ENOMEM, "bytes=%llu with loans=%llu: no address space for that",
                    (unsigned long long)payload, (unsigned long long)loans);
}

int ps__geometry_unpack(uint64_t word, struct ps__geometry *g)
{
    g->depth_log = ps__geometry_depth_log(word);
    g->units_log = word >> 8 & 0xff;
    g->loans_log = word >> 16 & 0xff;
    g->named = word >> 24 & 7;
    g->fixed = (word & GEOMETRY_FIXED) != 0;
    if (!(word & GEOMETRY_SET) || g->depth_log < 1 || g->depth_log > 20 || g->units_log < 6 || g->units_log > 31 ||
        g->loans_log < 6 || g->loans_log > 31 || !geometry_numbers(g))
        return ps__fail(PS_ECORRUPT, "the bus's geometry is damaged (%llx)", (unsigned long long)word);
    return geometry_fits(g);
}

static unsigned geometry_log(uint64_t value)
{
    unsigned log = 0;
    while (((uint64_t)1 << log) < value) log++;
    return log;
}

static unsigned geometry_units(uint64_t bytes)
{
    if (bytes < GEOMETRY_LEAST) bytes = GEOMETRY_LEAST;
    return geometry_log(bytes / PS__UNIT + (bytes % PS__UNIT != 0));
}

int ps__geometry_wanted(const ps_url *url, struct ps__geometry *g)
{
    g->depth_log = geometry_log(url->depth ? url->depth : GEOMETRY_DEPTH);
    g->units_log = geometry_units(url->bytes ? url->bytes : GEOMETRY_BYTES);
    g->loans_log = url->loans ? geometry_units(url->loans) : g->units_log;
    g->named = (url->depth ? 1u : 0u) | (url->bytes ? 2u : 0u) | (url->loans ? 4u : 0u);
    g->fixed = 0;
    if (!geometry_numbers(g))
        return ps__fail(PS_EINVAL, "depth=%llu with bytes=%llu: too much to number, make one of them smaller",
                        1ull << g->depth_log, (unsigned long long)PS__UNIT << g->units_log);
    return geometry_fits(g);
}

/* Less than was asked for, in a bus that is fixed? */
static int geometry_less(const char *option, unsigned named, unsigned have, unsigned want, unsigned unit)
{
    if (!named || want <= have) return 0;
    return ps__fail(PS_EGEOMETRY, "%s=%llu was asked for, the bus has %llu", option, (unsigned long long)unit << want,
                    (unsigned long long)unit << have);
}

static unsigned geometry_merge(unsigned bit, unsigned have_named, unsigned have, unsigned want_named, unsigned want)
{
    if (!(want_named & bit)) return have;
    if (!(have_named & bit)) return want;
    return want > have ? want : have;
}

int ps__geometry_propose(struct ps__words *words, const struct ps__geometry *wanted)
{
    uint64_t word = ps__load_rlx(&words->geometry);
    for (;;) {
        struct ps__geometry g, merged;
        int err = ps__geometry_unpack(word, &g);
        if (err) return err;
        if (g.fixed) {
            if ((err = geometry_less("depth", wanted->named & 1, g.depth_log, wanted->depth_log, 1))) return err;
            if ((err = geometry_less("bytes", wanted->named & 2, g.units_log, wanted->units_log, PS__UNIT))) return err;
            return geometry_less("loans", wanted->named & 4, g.loans_log, wanted->loans_log, PS__UNIT);
        }
        merged = g;
        merged.depth_log = geometry_merge(1, g.named, g.depth_log, wanted->named, wanted->depth_log);
        merged.units_log = geometry_merge(2, g.named, g.units_log, wanted->named, wanted->units_log);
        merged.named = g.named | wanted->named;
        merged.loans_log = geometry_merge(4, g.named, g.loans_log, wanted->named, wanted->loans_log);
        if (!(merged.named & 4)) merged.loans_log = merged.units_log;   /* like bytes, unless somebody says otherwise */
        if (!geometry_numbers(&merged))
            return ps__fail(PS_EINVAL, "depth=%llu with bytes=%llu, as others on this bus asked for: too much to number",
                            1ull << merged.depth_log, (unsigned long long)ps__payload_size(&merged));
        if (ps__cas_rlx(&words->geometry, &word, ps__geometry_pack(&merged))) return 0;
    }
}

int ps__geometry_fix(struct ps__words *words, struct ps__geometry *g)
{
    uint64_t word = ps__load_rlx(&words->geometry);
    do {
        int err = ps__geometry_unpack(word, g);
        if (err) return err;
        g->fixed = 1;
    } while (!(word & GEOMETRY_FIXED) && !ps__cas_rlx(&words->geometry, &word, ps__geometry_pack(g)));
    return 0;
}

/* Sizes are 32 bits in a cell. */
uint64_t ps__loan_max(uint64_t loans)
{
    uint64_t most = (uint64_t)UINT32_MAX - 65535;
    return loans < most ? loans : most;
}

void ps__view_ring(struct ps__view *view, unsigned char *ring, const struct ps__geometry *g)
{
    view->payload = ring + ps__cells_size(g);
    view->digest = (ps__a64 *)(void *)(view->payload + ps__payload_size(g));
    view->cells = (uint32_t)1 << g->depth_log;
    view->units = (uint32_t)1 << g->units_log;
    view->cell = (struct ps__cell *)(void *)ring;
}

/* A quarter of the ring, so that several fit however they fall. */
uint64_t ps__message_max(uint64_t payload)
{
    return ps__loan_max(payload / 4);
}

/* Both are asked with what is mapped, wherever something is: the bus's word may say more. */
int ps__message_too_large(size_t size, uint64_t most)
{
    return ps__fail(PS_EMSGSIZE, "%zu bytes; this bus takes %llu (bytes= / 4)", size, (unsigned long long)most);
}

int ps__loan_too_large(size_t size, uint64_t most)
{
    return ps__fail(PS_EMSGSIZE, "%zu bytes; this bus lends %llu (loans=)", size, (unsigned long long)most);
}

#undef GEOMETRY_DEPTH
#undef GEOMETRY_BYTES
#undef GEOMETRY_LEAST
#undef GEOMETRY_FIXED
#undef GEOMETRY_SET
