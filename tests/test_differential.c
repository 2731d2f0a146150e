/* SPDX-License-Identifier: MIT */
/*
 * test_differential.c - random programs of subscribe, unsubscribe, publish, dispatch, close and open, run over shm, inproc, the
 * datagram sockets of examples/custom_transport, and a model of a few lines. What each handle gets has to be the same.
 *
 * The rings share their code and no backend shares any with the sockets but the core; the model shares nothing, not even the
 * matching. A program that fails is cut down as far as it still fails, and printed; PS_TEST_SEED brings it back.
 *
 * What is compared: for each reader and publisher, which subscriptions got which messages, in order. Left open by the API, and
 * so kept out: how two publishers' messages mix (shm orders each by itself), and whether a new subscription sees messages that
 * its handle had not dispatched yet.
 */
#include "../examples/custom_transport/unixgram.c"

#include "support.h"

enum { HANDLES = 4, SLOTS = 6, OPS = 300, PROGRAMS = 300, BACKLOG = 8, DELIVERIES = 40000, SIZE_MOST = 3000 };

enum op_kind { OP_SUBSCRIBE, OP_UNSUBSCRIBE, OP_PUBLISH, OP_WANTED, OP_DRAIN, OP_PARTIAL, OP_REOPEN, OP_KINDS };

struct op {
    enum op_kind kind;
    unsigned     handle, slot;
    const char  *text;                  /* a filter or a topic */
    uint32_t     flags;                 /* subscribe: PS_EXACT */
    unsigned     number;                /* publish: bytes of payload; partial: messages */
    int          left_out;
};

struct program {
    struct op ops[OPS];
    int       pull[HANDLES], echo[HANDLES];
};

static const char *const topics[] = {
    "a", "b", "a/b", "a/a", "b/a/b", "a/b/a/b", "/a", "a/", "a//b", "$a/b", "a*b", "user:1", "/",
};
static const char *const filters[] = {
    "a", "a/b", "/a", "a/", "a//b", "user:1", "$a/b", "+", "#", "a/#", "a/+", "+/b", "+/+", "a/b/#", "/+", "+/", "$a/#", "$a/+",
    "a/+/#", "b/#", "+/a/+", "+/b/a/#", "a/+/+/b", "/#",
};
#define COUNT(array) (sizeof array / sizeof array[0])

/* One delivery. reader, publisher: the life of a handle, from open to close, has a number; sub: the op that subscribed. */
struct delivery {
    unsigned reader, publisher, sub, number, at;
};

struct result {
    struct delivery delivery[DELIVERIES];
    unsigned        count;
    char            wrong[200];         /* the first thing that was wrong by itself; "" if nothing */
};

/* ------------------------------------------------------------------ programs */

static void program_make(struct program *p)
{
    static const struct { enum op_kind kind; unsigned upto; } chance[] = {      /* of 100 */
        { OP_SUBSCRIBE, 18 }, { OP_UNSUBSCRIBE, 30 }, { OP_WANTED, 35 },
        { OP_DRAIN, 47 }, { OP_PARTIAL, 57 }, { OP_REOPEN, 60 }, { OP_PUBLISH, 100 },
    };

    for (unsigned i = 0; i < HANDLES; i++) {
        p->pull[i] = support_random() % 3 == 0;
        p->echo[i] = support_random() % 3 != 0;
    }
    for (unsigned i = 0; i < OPS; i++) {
        struct op *op = &p->ops[i];
        unsigned dice = (unsigned)(support_random() % 100), which = 0;

        while (dice >= chance[which].upto)
            which++;
        *op = (struct op){ .kind = chance[which].kind };
        op->handle = (unsigned)(support_random() % HANDLES);
        op->slot = (unsigned)(support_random() % SLOTS);
        op->number = (unsigned)(support_random() % (op->kind == OP_PARTIAL ? 4 : support_random() % 8 ? 100 : SIZE_MOST)) + 1;
        op->text = topics[support_random() % COUNT(topics)];
        if (op->kind == OP_SUBSCRIBE && support_random() % 4 == 0)
            op->flags = PS_EXACT;
        else if (op->kind == OP_SUBSCRIBE)
            op->text = filters[support_random() % COUNT(filters)];
    }
}

static void program_print(const struct program *p)
{
    static const char *const name[OP_KINDS] = { "subscribe", "unsubscribe", "publish", "wanted", "drain", "partial", "reopen" };

    for (unsigned i = 0; i < HANDLES; i++)
        print_error("handle %u: %s%s\n", i, p->pull[i] ? "pull" : "push", p->echo[i] ? "" : ", echo=0");
    for (unsigned i = 0; i < OPS; i++) {
        const struct op *op = &p->ops[i];

        if (!op->left_out)
            print_error("%4u: handle %u %-11s slot %u %s%s, %u\n", i, op->handle, name[op->kind], op->slot, op->text,
                        op->flags ? " (exact)" : "", op->number);
    }
}

/* ------------------------------------------------------------------ what is the same for all runs */

/*
 * A program as it is carried out. The rules that keep out what the API leaves open: no handle has more than BACKLOG messages
 * unread, and one that has read some of its messages reads them all before its subscriptions change or it closes.
 */
struct slot {
    unsigned op;                        /* op + 1; 0: an empty one */
    ps_sub  *sub;
};

struct run;

struct handle {
    struct run *run;
    ps_bus     *bus;
    unsigned    life, unread;
    int         partial;
    struct slot slot[SLOTS];
};

struct run {
    const struct program     *program;
    struct result            *result;
    const char               *url;              /* NULL: the model */
    int                       exact;            /* the backend's counts are no estimates */
    struct handle             handle[HANDLES];
    unsigned                  lives, published;
    int                       counts[OPS];      /* what publish and wanted answered */
    unsigned                  born[OPS];        /* of the subscription that the op made */
    struct model_message { unsigned publisher; const char *topic; } message[OPS];
    unsigned                  read[HANDLES];    /* the model: messages up to this one were read */
};

static void run_wrong(struct run *run, const char *what, unsigned at, const char *why)
{
    if (run->result->wrong[0] == '\0')
        snprintf(run->result->wrong, sizeof run->result->wrong, "%s, at %u: %s", what, at, why);
}

static void run_deliver(struct run *run, struct handle *handle, unsigned op, unsigned publisher, unsigned number)
{
    struct result *result = run->result;

    /* A message from before the subscription: may come or not. */
    if (number < run->born[op])
        return;
    if (result->count < DELIVERIES) {
        result->delivery[result->count] = (struct delivery){ handle->life, publisher, op, number, result->count };
        result->count++;
    } else {
        run_wrong(run, "deliveries", op, "too many");
    }
}

/* ------------------------------------------------------------------ the model */

/* MQTT 3.1.1 section 4.7, by the book. */
static int model_match(const char *filter, const char *topic, int first)
{
    size_t f = strcspn(filter, "/"), t = strcspn(topic, "/");

    if (first && topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
        return 0;
    if (strcmp(filter, "#") == 0)
        return 1;
    if (strncmp(filter, "+", f) != 0 ? f != t || strncmp(filter, topic, f) != 0 : f != 1 && t != 0)
        return 0;
    if (filter[f] == '\0' || topic[t] == '\0')
        return topic[t] == '\0' && (filter[f] == '\0' || strcmp(filter + f, "/#") == 0);
    return model_match(filter + f + 1, topic + t + 1, 0);
}

static int model_wants(const struct run *run, const struct slot *slot, const char *topic)
{
    const struct op *op = slot->op == 0 ? NULL : &run->program->ops[slot->op - 1];

    return op != NULL && (op->flags ? strcmp(op->text, topic) == 0 : model_match(op->text, topic, 1));
}

static int model_publish(struct run *run, unsigned at)
{
    const struct op *op = &run->program->ops[at];
    int count = 0;

    for (unsigned i = 0; i < HANDLES; i++) {
        int wants = 0;

        for (unsigned s = 0; s < SLOTS; s++)
            wants |= model_wants(run, &run->handle[i].slot[s], op->text);
        count += wants && (i != op->handle || run->program->echo[i]);
    }
    return count;
}

/* The API delivers in the order of subscription. */
static void model_deliver(struct run *run, unsigned handle, unsigned number)
{
    struct handle *h = &run->handle[handle];
    const struct model_message *message = &run->message[number];

    if (message->publisher == h->life && !run->program->echo[handle])
        return;
    for (unsigned op = 0; op < OPS; op++)
        for (unsigned s = 0; s < SLOTS; s++)
            if (h->slot[s].op == op + 1 && model_wants(run, &h->slot[s], message->topic))
                run_deliver(run, h, op, message->publisher, number);
}

/* To read some is nothing here: it makes no difference to what is read in all. */
static void model_drain(struct run *run, unsigned handle, int most)
{
    for (; most == 0 && run->read[handle] < run->published; run->read[handle]++)
        model_deliver(run, handle, run->read[handle]);
}

/* ------------------------------------------------------------------ a backend */

static void bus_seen(const ps_msg *msg, void *user)
{
    struct handle *handle = user;
    struct run *run = handle->run;
    struct support_message head;
    unsigned slot = 0;

    if (support_verify(msg->data, msg->size, &head) != 0 || head.number >= run->published) {
        run_wrong(run, "message", handle->life, "damaged");
        return;
    }
    while (slot < SLOTS && (handle->slot[slot].op == 0 || handle->slot[slot].sub != msg->sub))
        slot++;
    if (slot == SLOTS)
        run_wrong(run, "message", (unsigned)head.number, "for a subscription that is none");
    else if (strcmp(msg->topic, run->message[head.number].topic) != 0 || msg->lost != 0)
        run_wrong(run, "message", (unsigned)head.number, "of another topic, or with losses");
    else
        run_deliver(run, handle, handle->slot[slot].op - 1, (unsigned)head.publisher, (unsigned)head.number);
}

static int bus_subscribe(struct run *run, unsigned at)
{
    const struct op *op = &run->program->ops[at];
    struct handle *handle = &run->handle[op->handle];
    ps_sub_options options = PS_SUB_OPTIONS_INIT;

    options.flags = op->flags;
    return ps_subscribe(handle->bus, op->text, run->program->pull[op->handle] ? NULL : bus_seen, handle, &options,
                        &handle->slot[op->slot].sub);
}

static int bus_publish(struct run *run, unsigned at, int send)
{
    static unsigned char data[SIZE_MOST + sizeof(struct support_message)];
    const struct op *op = &run->program->ops[at];
    struct handle *handle = &run->handle[op->handle];
    size_t size = op->number + sizeof(struct support_message);

    support_compose(data, size, handle->life, run->published);
    int rc = send ? ps_publish(handle->bus, op->text, data, size) : ps_wanted(handle->bus, op->text);
    if (rc < 0)
        run_wrong(run, "publish", at, ps_errmsg());
    return rc;
}

static void bus_drain(struct run *run, unsigned handle, int most)
{
    struct handle *h = &run->handle[handle];
    const ps_msg *msg;
    int rc, seen = 0;

    if (!run->program->pull[handle]) {
        while ((rc = ps_dispatch(h->bus, most, 0)) > 0 && most == 0)
            continue;
    } else {
        while ((rc = most == 0 || seen < most ? ps_next(h->bus, &msg, 0) : 0) > 0) {
            bus_seen(msg, h);
            seen++;
        }
    }
    if (rc < 0)
        run_wrong(run, "dispatch", handle, ps_errmsg());
}

/* ------------------------------------------------------------------ carrying out */

static void run_drain(struct run *run, unsigned handle)
{
    (run->url == NULL ? model_drain : bus_drain)(run, handle, 0);
    run->handle[handle].unread = 0;
    run->handle[handle].partial = 0;
}

static void run_open(struct run *run, unsigned handle)
{
    struct handle *h = &run->handle[handle];
    char url[300];

    memset(h, 0, sizeof *h);
    h->run = run;
    h->life = run->lives++;
    run->read[handle] = run->published;
    if (run->url == NULL)
        return;
    snprintf(url, sizeof url, "%s?depth=64&bytes=64k%s", run->url, run->program->echo[handle] ? "" : "&echo=0");
    if (ps_open(&h->bus, url) < 0)
        run_wrong(run, "open", handle, ps_errmsg());
}

static void run_close(struct run *run, unsigned handle)
{
    if (ps_close(run->handle[handle].bus) < 0)
        run_wrong(run, "close", handle, ps_errmsg());
}

static void run_op(struct run *run, unsigned at)
{
    const struct op *op = &run->program->ops[at];
    struct handle *handle = &run->handle[op->handle];
    struct slot *slot = &handle->slot[op->slot];

    if (handle->partial && (op->kind == OP_SUBSCRIBE || op->kind == OP_UNSUBSCRIBE || op->kind == OP_REOPEN))
        run_drain(run, op->handle);
    switch (op->kind) {
    case OP_SUBSCRIBE:
        if (slot->op != 0)
            break;
        if (run->url != NULL && bus_subscribe(run, at) < 0)
            run_wrong(run, "subscribe", at, ps_errmsg());
        slot->op = at + 1;
        run->born[at] = run->published;
        break;
    case OP_UNSUBSCRIBE:
        if (slot->op == 0)
            break;
        if (run->url != NULL && ps_unsubscribe(slot->sub) < 0)
            run_wrong(run, "unsubscribe", at, ps_errmsg());
        slot->op = 0;
        break;
    case OP_PUBLISH:
        run->message[run->published] = (struct model_message){ handle->life, op->text };
        run->counts[at] = run->url == NULL ? model_publish(run, at) : bus_publish(run, at, 1);
        run->published++;
        for (unsigned i = 0; i < HANDLES; i++)
            if (++run->handle[i].unread == BACKLOG)
                run_drain(run, i);
        break;
    case OP_WANTED:
        run->counts[at] = run->url == NULL ? model_publish(run, at) : bus_publish(run, at, 0);
        break;
    case OP_DRAIN:
        run_drain(run, op->handle);
        break;
    case OP_PARTIAL:
        handle->partial = 1;
        (run->url == NULL ? model_drain : bus_drain)(run, op->handle, (int)op->number);
        break;
    default:
        run_close(run, op->handle);
        run_open(run, op->handle);
        break;
    }
}

static int run_compare(const void *one, const void *other)
{
    const struct delivery *a = one, *b = other;

    if (a->reader != b->reader || a->publisher != b->publisher)
        return a->reader < b->reader || (a->reader == b->reader && a->publisher < b->publisher) ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;
}

static void run_all(struct run *run)
{
    run->result->count = 0;
    run->result->wrong[0] = '\0';
    for (unsigned i = 0; i < HANDLES; i++)
        run_open(run, i);
    for (unsigned at = 0; at < OPS && run->result->wrong[0] == '\0'; at++)
        if (!run->program->ops[at].left_out)
            run_op(run, at);
    for (unsigned i = 0; i < HANDLES; i++) {
        if (run->result->wrong[0] == '\0')
            run_drain(run, i);
        run_close(run, i);
    }
    qsort(run->result->delivery, run->result->count, sizeof run->result->delivery[0], run_compare);
}

/* ------------------------------------------------------------------ the comparison */

static const struct { const char *scheme, *stem; int exact; } backend[] = {
    { "inproc", "differential", 0 }, { "shm", "differential", 0 }, { "unixgram", "/tmp/differential", 1 },
};

static void differ_counts(const struct run *model, struct run *run)
{
    for (unsigned at = 0; at < OPS; at++) {
        int told = run->counts[at], wanted = model->counts[at];

        if (told < wanted || told > HANDLES || (run->exact && told != wanted))
            run_wrong(run, "count", at, "not the model's");             /* the rings estimate upwards */
    }
}

static void differ_deliveries(const struct result *model, struct run *run)
{
    struct result *result = run->result;

    for (unsigned i = 0; i < model->count || i < result->count; i++) {
        const struct delivery *m = &model->delivery[i], *r = &result->delivery[i];
        char why[120];

        if (i < model->count && i < result->count && m->reader == r->reader && m->publisher == r->publisher &&
            m->sub == r->sub && m->number == r->number)
            continue;
        snprintf(why, sizeof why, "%s: life %u from %u, sub %u, message %u; the model: %u, %u, %u, %u",
                 i >= model->count ? "one too many" : i >= result->count ? "one is missing" : "another one", r->reader,
                 r->publisher, r->sub, r->number, m->reader, m->publisher, m->sub, m->number);
        run_wrong(run, "delivery", i, why);
        return;
    }
}

/* 1 if they differ; says why in text. */
static int differ(const struct program *program, char *text, size_t size, unsigned *deliveries)
{
    static struct run model, run;
    static struct result model_result, result;

    memset(&model, 0, sizeof model);
    model.program = program;
    model.result = &model_result;
    run_all(&model);
    *deliveries = model_result.count;
    for (size_t b = 0; b < COUNT(backend); b++) {
        memset(&run, 0, sizeof run);
        run.program = program;
        run.result = &result;
        run.url = support_url(backend[b].scheme, backend[b].stem, NULL);
        run.exact = backend[b].exact;
        run_all(&run);
        differ_counts(&model, &run);
        differ_deliveries(&model_result, &run);
        if (result.wrong[0] != '\0') {
            snprintf(text, size, "%s: %s", backend[b].scheme, result.wrong);
            return 1;
        }
    }
    return 0;
}

/* Leaves out whatever can be left out, first many ops at a time. */
static void differ_shrink(struct program *program)
{
    char text[300];
    unsigned deliveries;

    for (unsigned chunk = OPS / 2; chunk > 0; chunk /= 2)
        for (unsigned from = 0; from < OPS; from += chunk) {
            struct program less = *program;

            for (unsigned at = from; at < from + chunk && at < OPS; at++)
                less.ops[at].left_out = 1;
            if (differ(&less, text, sizeof text, &deliveries))
                *program = less;
        }
}

static void test_p3_p4_p5_random_programs_deliver_the_same_over_all_backends(void **state)
{
    static struct program program;
    unsigned long long all = 0;

    (void)state;
    for (int i = 0; i < PROGRAMS; i++) {
        char text[300];
        unsigned deliveries;

        program_make(&program);
        if (differ(&program, text, sizeof text, &deliveries)) {
            differ_shrink(&program);
            if (!differ(&program, text, sizeof text, &deliveries))
                snprintf(text, sizeof text, "it differs only sometimes");
            program_print(&program);
            fail_msg("program %d: %s", i, text);
        }
        all += deliveries;
    }
    /* A test that compares nothing is none. */
    assert_true(all > PROGRAMS * 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_p3_p4_p5_random_programs_deliver_the_same_over_all_backends),
    };

    if (ps_transport_register(&unixgram_transport) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
