/* SPDX-License-Identifier: MIT */
/*
 * report.h - rows in, table and CSV files out.
 */
#ifndef PS_BENCH_REPORT_H
#define PS_BENCH_REPORT_H

#include "measure.h"

#define FAR_NS 110.0        /* a repetition with a probe above this counts as FAR */

struct row *row_find(struct row *rows, size_t count, const char *key);
/* One that PS_BENCH_ONLY does not ask for may be needed for another's goal. */
void report_table(struct row *rows, size_t count);
/* results.csv and, for the rows with bins, latency.csv; gives up where it cannot write. */
void report_csv(struct row *rows, size_t count, const char *directory);

#endif
