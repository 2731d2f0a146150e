/* SPDX-License-Identifier: MIT */
/*
 * limits.h - what the machine takes without a library. Each is a measurement of the table.
 */
#ifndef PS_BENCH_LIMITS_H
#define PS_BENCH_LIMITS_H

#include "measure.h"

double limit_one_line(struct row *row);
double limit_two_lines(struct row *row);
double limit_ring(struct row *row);             /* one producer, one consumer, 64 bytes */
double limit_ring_sleeping(struct row *row);    /* round trip through two of them, with futexes */
double limit_cells(struct row *row);            /* round trip through two rings of cells of two lines, polling */
double limit_cells_rate(struct row *row);       /* one producer that fences, one consumer that stays behind */
double limit_cells_burst(struct row *row);      /* bursts of x cells, fenced, to a consumer that polls */
double limit_pipe(struct row *row);             /* round trip through two pipes */
double limit_touched(struct row *row);          /* buffers of x bytes, written there and read here */
double limit_copied(struct row *row);           /* the same, and copied into the buffers and out of them */
double limit_reserved(struct row *row);         /* x bytes of a file in memory are allocated */

/* For those in cells.c: the median of so many samples, the 99.9th percentile in extra[0]; the answering side ends. */
double limit_latency(size_t n);
void limit_answers_end(const struct receipt *receipt);

#endif
