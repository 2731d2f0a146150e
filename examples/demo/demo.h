/* SPDX-License-Identifier: MIT */
/* demo.h - what the files of the demo share: the plan, the messages, and what the processes report. main.c says what it shows. */
#ifndef PSBUS_DEMO_H
#define PSBUS_DEMO_H

#include <psbus.h>

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PUBLISHERS 2
#define EVICT_MS   500                  /* how long the publishers put up with a reader that stands still */
#define BLOCK_MS   5000
#define LINE_MAX_BYTES 4096             /* longer lines are sent in pieces */

/* The plan, in ms from the start. */
#define AT_KILL     1000
#define AT_STOP     1500
#define AT_LATE     2200
#define AT_CONTINUE 3000                /* stopped for 1.5 s, three times evict */
#define AT_END      4500
#define DEADLINE    15000

/* What a message says before the text of its line. */
struct head {
    uint32_t publisher;
    uint32_t last;                      /* 1: the stream ends here, and there is no text */
    uint64_t number;                    /* 1, 2, 3 … */
    uint64_t before;                    /* the checksum of all lines before this one */
};

/* Where we are in the plan; publishers note how long they were held up in each part. */
enum phase { QUIET, KILLED, STOPPED, CONTINUED, PHASES };

/* What children report, in memory that all share. Each struct has one writer; the others read it when it has ended. */
struct publisher {
    _Alignas(128) _Atomic uint64_t started;     /* the number being published, raised before ps_publish() is called */
    uint64_t number, bytes, checksum;
    uint64_t held_ns[PHASES];           /* the longest ps_publish() */
    uint64_t active_ns;
};

enum role { STEADY, VICTIM, SLEEPER, LATE, SUBSCRIBERS };
extern const char *const role_name[SUBSCRIBERS];

struct stream {
    uint64_t first, number, checksum;   /* the first and the last message seen; the checksum behind the last */
    uint64_t lost, damaged;
    uint64_t at_subscribe;              /* published when ps_subscribe() had returned */
    int      ended;
};

struct subscriber {
    _Alignas(128) _Atomic int ready;
    struct stream stream[PUBLISHERS];
    uint64_t messages, bytes, active_ns;
    uint64_t stats_lost, evicted;
};

struct shared {
    _Atomic int phase, go, end;
    struct publisher publisher[PUBLISHERS];
    struct subscriber subscriber[SUBSCRIBERS];
};

extern struct shared *shared;
extern char url[128];

/* ------------------------------------------------------------------ text.c */

struct line {
    const char *text;
    uint32_t size, file;                /* file: index into topics */
};

extern struct line *lines;
extern char (*topics)[PS_TOPIC_MAX + 1];        /* of each file: "text/" and its path */
extern size_t line_count, file_count, text_bytes;

/* Reads a file, or all files below a directory. */
void text_read(const char *path);

/* ------------------------------------------------------------------ actors.c: what the child processes do; their exit status */

int publisher_main(uint32_t number);
int subscriber_main(enum role role);

/* ------------------------------------------------------------------ report.c */

/* Prints the table; 1 if everything is as promised. */
int report_print(void);

/* ------------------------------------------------------------------ main.c */

uint64_t now_ns(void);
/* In the parent the children and the bus go with it. */
_Noreturn void die(const char *who, const char *what, int rc);  /* with what the library says to rc */
_Noreturn void die_system(const char *what);                    /* with errno's text */

#endif
