/* SPDX-License-Identifier: MIT */
/* component.h - what two parts of a program offer, each with a copy of the library that the other does not see. */
#ifndef PS_TEST_COMPONENT_H
#define PS_TEST_COMPONENT_H

struct component {
    int (*listen)(const char *url);
    int (*send)(const char *text);
    const char *(*hear)(void);          /* the text of the next message; "" if none came */
    int (*leave)(void);
};

extern const struct component acme_part, zeta_part;

/* Of a library that has nothing to do with this one. */
int ps_publish(int number);
int ps_open(void);

#endif
