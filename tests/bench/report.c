/* SPDX-License-Identifier: MIT */
/*
 * report.c - medians of the repetitions that count, the verdict on a goal, the table for people and the CSV for programs.
 *
 * A repetition is NEAR or FAR by the probes around it. The NEAR ones count, or all when there is none. A goal that is a multiple
 * of another row is judged by the repetitions in which both rows were NEAR, else by those in which both were alike, else by all.
 */
#include "report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct row *row_find(struct row *rows, size_t count, const char *key)
{
    for (size_t i = 0; key && i < count; i++)
        if (rows[i].key && strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

static int is_near(const struct row *row, int i) { return row->far[i] <= FAR_NS; }

static int near_count(const struct row *row)
{
    int n = 0;
    for (int i = 0; i < row->measured; i++)
        n += is_near(row, i);
    return n;
}

static double row_median(const struct row *row)
{
    double v[MOST_REPS];
    size_t n = 0;
    int near = near_count(row);
    for (int i = 0; i < row->measured; i++)
        if (near == 0 || is_near(row, i))
            v[n++] = row->value[i];
    return quantile(v, n, 0.5);
}

/* The middle of both rows over repetitions that can be compared. */
static void medians_together(const struct row *a, const struct row *b, double *of_a, double *of_b)
{
    int reps = a->measured < b->measured ? a->measured : b->measured;
    for (int choice = 0; choice < 3; choice++) {
        double v[MOST_REPS], w[MOST_REPS];
        size_t n = 0;
        for (int i = 0; i < reps; i++) {
            int alike = is_near(a, i) == is_near(b, i);
            if (choice == 2 || (alike && (choice == 1 || is_near(a, i)))) {
                v[n] = a->value[i];
                w[n++] = b->value[i];
            }
        }
        *of_a = quantile(v, n, 0.5);
        *of_b = quantile(w, n, 0.5);
        if (n > 0)
            return;
    }
}

struct verdict { double value, against, bound; int judged, met; };

static struct verdict judge(struct row *rows, size_t count, const struct row *row)
{
    struct verdict v = { row_median(row), 0, row->factor, 0, 0 };
    const struct row *against = row_find(rows, count, row->against);
    if (row->goal == NO_GOAL || (row->against && (!against || !against->measured)))
        return v;
    if (against) {
        medians_together(row, against, &v.value, &v.against);
        v.bound = row->factor * v.against;
    }
    v.judged = 1;
    v.met = row->goal == AT_MOST ? v.value <= v.bound : v.value >= v.bound;
    return v;
}

static void range_of(const struct row *row, double *least, double *most)
{
    *least = INFINITY;
    *most = 0;
    for (int i = 0; i < row->measured; i++) {
        *least = fmin(*least, row->value[i]);
        *most = fmax(*most, row->value[i]);
    }
}

/* Four digits, without an exponent. */
static const char *number(char *text, size_t size, double v)
{
    snprintf(text, size, "%.*f", v >= 1000 ? 0 : v >= 100 ? 1 : v >= 10 ? 2 : 3, v);
    return text;
}

static void goal_text(char *text, size_t size, const struct row *row, const struct verdict *v)
{
    const char *sign = row->goal == AT_MOST ? "<=" : ">=", *word = v->met ? "met" : "MISSED";
    char bound[32];
    text[0] = '\0';
    if (v->judged && row->against)
        snprintf(text, size, "%s %.4g x %s = %s: %.2f x, %s", sign, row->factor, row->against,
                 number(bound, sizeof bound, v->bound), v->against > 0 ? v->value / v->against : 0, word);
    else if (v->judged)
        snprintf(text, size, "%s %g: %s", sign, row->factor, word);
}

void report_table(struct row *rows, size_t count)
{
    int met = 0, missed = 0;
    printf("%-50s %-9s %9s %-4s %-19s %-9s %s\n", "", "where", "median", "", "least - most", "cores", "goal");
    for (size_t i = 0; i < count; i++) {
        const struct row *r = &rows[i];
        int any = 0;
        for (size_t k = i + 1; !r->key && k < count && rows[k].key; k++)
            any |= rows[k].measured && !(rows[k].flags & HIDDEN);
        if (any)
            printf("\n%s\n", r->what);
        if (!r->key || !r->measured || (r->flags & HIDDEN))
            continue;
        double least, most;
        int near = near_count(r);
        char middle[32], from[32], to[32], range[72] = "", place[24] = "", goal[96];
        struct verdict v = judge(rows, count, r);
        range_of(r, &least, &most);
        if (!(r->flags & ONCE)) {
            snprintf(range, sizeof range, "%s - %s", number(from, sizeof from, least), number(to, sizeof to, most));
            snprintf(place, sizeof place, "%s %d/%d", near ? "NEAR" : "FAR", near ? near : r->measured, r->measured);
        }
        goal_text(goal, sizeof goal, r, &v);
        met += v.judged && v.met;
        missed += v.judged && !v.met;
        printf("  %-48s %-9s %9s %-4s %-19s %-9s %s\n", r->what, r->where, number(middle, sizeof middle, row_median(r)), r->unit,
               range, place, goal);
    }
    if (met + missed)
        printf("\n%d goals met, %d missed\n", met, missed);
}

static FILE *create(const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (!file)
        give_up(path);
    return file;
}

static void finish(FILE *file, const char *directory, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (ferror(file) | fclose(file))
        give_up(path);
}

void report_csv(struct row *rows, size_t count, const char *directory)
{
    FILE *file = create(directory, "results.csv");
    fprintf(file, "key,what,where,x,unit,median,least,most,near,repetitions,goal,bound,verdict\n");
    for (size_t i = 0; i < count; i++) {
        const struct row *r = &rows[i];
        double least, most;
        if (!r->key || !r->measured)
            continue;
        struct verdict v = judge(rows, count, r);
        range_of(r, &least, &most);
        fprintf(file, "%s,\"%s\",%s,%ld,%s,%.6g,%.6g,%.6g,%d,%d,", r->key, r->what, r->where, r->measure ? r->x : 0, r->unit,
                row_median(r), least, most, near_count(r), r->measured);
        if (v.judged)
            fprintf(file, "%s,%.6g,%s\n", r->goal == AT_MOST ? "at most" : "at least", v.bound, v.met ? "met" : "MISSED");
        else
            fprintf(file, ",,\n");
    }
    finish(file, directory, "results.csv");

    file = create(directory, "latency.csv");
    fprintf(file, "key,ns,part\n");
    for (size_t i = 0; i < count; i++) {
        double all = 0;
        int first = BINS, last = -1;
        for (int k = 0; rows[i].bins && k < BINS; k++) {
            all += (double)rows[i].bins[k];
            first = rows[i].bins[k] && k < first ? k : first;
            last = rows[i].bins[k] ? k : last;
        }
        for (int k = first; k <= last; k++)
            fprintf(file, "%s,%.6g,%.6g\n", rows[i].key, 10 * pow(10, (k + 0.5) / BINS_PER_DECADE),
                    (double)rows[i].bins[k] / all);
    }
    finish(file, directory, "latency.csv");
}
