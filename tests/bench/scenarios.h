/* SPDX-License-Identifier: MIT */
/*
 * scenarios.h - the measurements of libpsbus. Each fills one row of the table; the comment beside its function says what it
 * answers.
 */
#ifndef PS_BENCH_SCENARIOS_H
#define PS_BENCH_SCENARIOS_H

#include "bus.h"

/* rates.c */
double rate(struct row *row);               /* x bytes */
double large_copied(struct row *row);       /* x bytes, touched on both sides */
double large_in_place(struct row *row);
double topics(struct row *row);             /* x topics */
double publishers(struct row *row);         /* x threads */
double many_to_many(struct row *row);       /* x publishers, x readers */

/* latency.c */
double latency(struct row *row);            /* extra[0]: the 99.9th percentile */

/* fanout.c */
double burst(struct row *row);              /* x subscribers */
double nobody(struct row *row);
double one_percent(struct row *row);
double sleepers_burst(struct row *row);     /* x sleeping handles that want something else */
double sleepers_sustained(struct row *row); /* extra[0]: wakes for each half ring */

/* footprint.c */
extern const char *library_path;            /* whose text is counted */
extern const char *first_path;              /* the program that is started */
double first_message(struct row *row);      /* x: 0 a bare ring, 1 the bus; extra[0]: MiB resident of the publisher */
double bus_memory(struct row *row);
double library_text(struct row *row);

#endif
