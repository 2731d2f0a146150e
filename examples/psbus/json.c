/* SPDX-License-Identifier: MIT */
/* json.c - a message as a line of JSON. What is not UTF-8 goes as base64 under another key: nothing is changed or left out. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 character at text, 0 if it is none (RFC 3629: no surrogates, nothing longer than needed). */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    static const struct { unsigned char first, last, low, high, length; } rows[] = {
        { 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (*text < rows[i].first || *text > rows[i].last)
            continue;
        if (rows[i].length > left || (rows[i].length > 1 && (text[1] < rows[i].low || text[1] > rows[i].high)))
            return 0;
        for (size_t k = 2; k < rows[i].length; k++)
            if ((text[k] & 0xc0) != 0x80)
                return 0;
        return rows[i].length;
    }
    return 0;
}

static int is_utf8(const unsigned char *text, size_t size)
{
    size_t length;

    for (size_t at = 0; at < size; at += length)
        if ((length = utf8_length(text + at, size - at)) == 0)
            return 0;
    return 1;
}

static void put_string(const unsigned char *text, size_t size)
{
    size_t from = 0;

    putc('"', stdout);
    for (size_t at = 0; at < size; at++) {
        if (text[at] >= 0x20 && text[at] != '"' && text[at] != '\\' && text[at] != 0x7f)
            continue;
        fwrite(text + from, 1, at - from, stdout);
        from = at + 1;
        switch (text[at]) {
        case '"':  fputs("\\\"", stdout); break;
        case '\\': fputs("\\\\", stdout); break;
        case '\n': fputs("\\n", stdout); break;
        case '\t': fputs("\\t", stdout); break;
        default:   printf("\\u%04x", text[at]);
        }
    }
    fwrite(text + from, 1, size - from, stdout);
    putc('"', stdout);
}

static void put_base64(const unsigned char *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    putc('"', stdout);
    for (size_t at = 0; at < size; at += 3) {
        size_t have = size - at < 3 ? size - at : 3;
        unsigned long three = (unsigned long)bytes[at] << 16;
        if (have > 1)
            three |= (unsigned long)bytes[at + 1] << 8;
        if (have > 2)
            three |= bytes[at + 2];
        for (size_t k = 0; k < 4; k++)
            putc(k > have ? '=' : digits[three >> (18 - 6 * k) & 63], stdout);
    }
    putc('"', stdout);
}

static void put_member(const char *key, const void *bytes, size_t size)
{
    int text = is_utf8(bytes, size);

    printf("\"%s%s\":", key, text ? "" : "_base64");
    if (text)
        put_string(bytes, size);
    else
        put_base64(bytes, size);
}

void tool_json(const ps_msg *msg)
{
    putc('{', stdout);
    put_member("topic", msg->topic, msg->topic_len);
    putc(',', stdout);
    put_member("payload", msg->data, msg->size);
    printf(",\"size\":%zu,\"sequence\":%llu,\"publisher\":%llu,\"lost\":%llu}\n", msg->size,
           (unsigned long long)msg->sequence, (unsigned long long)msg->publisher, (unsigned long long)msg->lost);
}
