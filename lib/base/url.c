/* SPDX-License-Identifier: MIT */
/*
 * url.c - a bus URL taken apart: SCHEME:, SCHEME://ADDRESS, each with ?OPTION=VALUE&… behind it.
 *
 * Pure functions of their arguments; nothing of a locale, nothing allocated. Whoever mistypes an option is told which one,
 * and what there is: every mistake has a text of its own. The pieces are decoded into one buffer that is as large as the
 * longest URL; decoding never lengthens a piece, and the dividers that fall away leave the room for the NULs.
 */
#include "base.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define URL_SCHEME_MAX 31

enum url_kind {
    URL_COUNT,                  /* decimal */
    URL_SIZE,                   /* decimal with k, M or G */
    URL_MS,                     /* decimal, or -1 */
    URL_MODE,                   /* one of three octal numbers */
    URL_FLAG,                   /* 0 or 1 */
    URL_TEXT
};

struct url_option {
    const char *key;
    enum url_kind kind;
    int64_t min, max;
    size_t offset, width;       /* of the number in ps_url */
};

#define URL_FIELD(field) offsetof(ps_url, field), sizeof(((ps_url *)0)->field)
static const struct url_option url_options[] = {
    { "depth",   URL_COUNT, 2, INT64_C(1) << 20, URL_FIELD(depth) },
    { "bytes",   URL_SIZE,  1, INT64_C(1) << 37, URL_FIELD(bytes) },
    { "loans",   URL_SIZE,  1, INT64_C(1) << 37, URL_FIELD(loans) },
    { "members", URL_COUNT, 1, PS_MEMBERS_MAX,   URL_FIELD(members) },
    { "mode",    URL_MODE,  0, 0,                URL_FIELD(mode) },
    { "lossy",   URL_FLAG,  0, 1,                URL_FIELD(lossy) },
    { "echo",    URL_FLAG,  0, 1,                URL_FIELD(echo) },
    { "create",  URL_FLAG,  0, 1,                URL_FIELD(create) },
    { "observe", URL_FLAG,  0, 1,                URL_FIELD(observe) },
    { "block",   URL_MS,    -1, INT32_MAX,       URL_FIELD(block_ms) },
    { "evict",   URL_MS,    -1, INT32_MAX,       URL_FIELD(evict_ms) },
    { "spin",    URL_COUNT, 0, 1000000,          URL_FIELD(spin_us) },
    { "name",    URL_TEXT,  1, PS_NAME_MAX,      0, 0 },
};
#define URL_OPTIONS ((int)(sizeof url_options / sizeof url_options[0]))
#define URL_CREATE  7           /* the place of "create" above */

/* ------------------------------------------------------------------ letters */

static int url_has_control(const char *text)
{
    while (*text != '\0' && (unsigned char)*text >= 0x20 && *text != 0x7f)
        text++;
    return *text != '\0';
}

static int url_is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int url_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int url_hex(char c)
{
    if (url_is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes len bytes to *end, adds a NUL and moves *end behind it. what: for the message. */
static int url_decode(const char *from, size_t len, char **end, const char *what)
{
    char *to = *end;
    for (size_t i = 0; i < len; i++) {
        if (from[i] != '%') {
            *to++ = from[i];
            continue;
        }
        int high = i + 1 < len ? url_hex(from[i + 1]) : -1;
        int low = i + 2 < len ? url_hex(from[i + 2]) : -1;
        if (high < 0 || low < 0)
            return ps__fail(PS_EINVAL, "%s of the URL: '%%' without two hexadecimal digits", what);
        if (high == 0 && low == 0)
            return ps__fail(PS_EINVAL, "%s of the URL: %%00 is not allowed", what);
        *to++ = (char)(high << 4 | low);
        i += 2;
    }
    *to++ = '\0';
    *end = to;
    return 0;
}

/* ------------------------------------------------------------------ the names of options */

/* Letters to change, add or drop to make one name of the other. */
static size_t url_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t row[32];
    if (b_len >= sizeof row / sizeof row[0])
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b_len];
}

/* The i-th name there is: ours first, then the transport's, which are divided by spaces. NULL: no more. */
static const char *url_name(int i, const char *extra, size_t *len)
{
    if (i < URL_OPTIONS) {
        *len = strlen(url_options[i].key);
        return url_options[i].key;
    }
    for (i -= URL_OPTIONS; extra; i--) {
        extra += strspn(extra, " ");
        *len = strcspn(extra, " ");
        if (*len == 0)
            return NULL;
        if (i == 0)
            return extra;
        extra += *len;
    }
    return NULL;
}

static int url_unknown(const char *key, size_t key_len, const char *extra)
{
    char list[256] = "", hint[64] = "";
    size_t used = 0, len, nearest = 3;          /* more than two letters off is another word */
    const char *name;
    for (int i = 0; (name = url_name(i, extra, &len)) != NULL; i++) {
        if (used + len + 2 < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, " %.*s", (int)len, name);
        size_t distance = key_len < 32 ? url_distance(key, key_len, name, len) : SIZE_MAX;
        if (distance < nearest && distance < len) {
            nearest = distance;
            (void)snprintf(hint, sizeof hint, ", did you mean %.*s?", (int)len, name);
        }
    }
    return ps__fail(PS_EINVAL, "unknown URL option \"%.*s\"%s; there are:%s",
                    (int)(key_len < 64 ? key_len : 64), key, hint, list);
}

/* ------------------------------------------------------------------ the values of options */

/* Digits and nothing else; what is too large for any option stays too large. */
static const char *url_digits(const char *text, int64_t *value)
{
    const char *at = text;
    int64_t number = 0;
    for (; url_is_digit(*at); at++)
        number = number < INT64_MAX / 16 ? number * 10 + (*at - '0') : INT64_MAX;
    *value = number;
    return at == text ? NULL : at;
}

static int url_number(const struct url_option *option, const char *text, int64_t *value)
{
    int64_t unit = 1;
    const char *end = url_digits(text, value);
    if (end && option->kind == URL_SIZE && *end != '\0') {
        unit = *end == 'k' || *end == 'K' ? 1 << 10 : *end == 'M' ? 1 << 20 : *end == 'G' ? 1 << 30 : 0;
        end = unit != 0 ? end + 1 : NULL;
    }
    if (!end || *end != '\0') {
        const char *form = option->kind == URL_SIZE ? "a size: digits, then k, M or G at most"
                         : option->kind == URL_MS   ? "milliseconds: digits, or -1 for ever"
                                                    : "a number: digits only";
        return ps__fail(PS_EINVAL, "URL option %s=%s is not %s", option->key, text, form);
    }
    *value = *value <= INT64_MAX / unit ? *value * unit : INT64_MAX;
    if (*value < option->min || *value > option->max)
        return ps__fail(PS_EINVAL, "URL option %s=%s is out of range, which is %lld to %lld", option->key, text,
                        (long long)option->min, (long long)option->max);
    return 0;
}

static int url_mode(const char *text, int64_t *value)
{
    const char *digits = text[0] == '0' ? text + 1 : text;
    *value = strcmp(digits, "600") == 0 ? 0600 : strcmp(digits, "660") == 0 ? 0660 : strcmp(digits, "666") == 0 ? 0666 : 0;
    return *value != 0 ? 0 : ps__fail(PS_EINVAL, "URL option mode=%s must be 0600, 0660 or 0666", text);
}

static int url_label(const char *text)
{
    if (strlen(text) > PS_NAME_MAX)
        return ps__fail(PS_EINVAL, "URL option name= is longer than %d bytes", PS_NAME_MAX);
    return url_has_control(text) ? ps__fail(PS_EINVAL, "URL option name= has a control character") : 0;
}

/* text is decoded. */
static int url_value(const struct url_option *option, const char *text, int64_t *value)
{
    *value = 0;
    switch (option->kind) {
    case URL_MODE:
        return url_mode(text, value);
    case URL_TEXT:
        return url_label(text);
    case URL_FLAG:
        if ((text[0] != '0' && text[0] != '1') || text[1] != '\0')
            return ps__fail(PS_EINVAL, "URL option %s=%s must be 0 or 1", option->key, text);
        *value = text[0] - '0';
        return 0;
    default:
        if (option->kind != URL_MS || strcmp(text, "-1") != 0)
            return url_number(option, text, value);
        *value = -1;
        return 0;
    }
}

/* Ranges keep every number inside its field. */
static void url_set(ps_url *url, const struct url_option *option, int64_t value, const char *text)
{
    uint32_t narrow = (uint32_t)value;
    if (option->kind == URL_TEXT)
        url->name = text;
    else if (option->width == sizeof value)
        memcpy((char *)url + option->offset, &value, sizeof value);
    else
        memcpy((char *)url + option->offset, &narrow, sizeof narrow);
}

/* ------------------------------------------------------------------ one option, and all */

/* Which one, -1 for one of the transport's own, -2 for none. */
static int url_find(const char *key, size_t key_len, const char *extra)
{
    size_t len;
    const char *name;
    for (int i = 0; (name = url_name(i, extra, &len)) != NULL; i++)
        if (len == key_len && memcmp(name, key, len) == 0)
            return i < URL_OPTIONS ? i : -1;
    return -2;
}

static int url_extra(struct ps__url *out, const char *key, const char *value)
{
    for (int i = 0; i < out->extra_count; i++)
        if (strcmp(out->extra[i].key, key) == 0)
            return ps__fail(PS_EINVAL, "URL option %s is given twice", key);
    if (out->extra_count == (int)(sizeof out->extra / sizeof out->extra[0]))
        return ps__fail(PS_EINVAL, "URL option %s is one too many for this scheme", key);
    out->extra[out->extra_count].key = key;
    out->extra[out->extra_count++].value = value;
    return 0;
}

/* at: len bytes, "key=value". given: a bit for each option of ours that was seen. */
static int url_option(struct ps__url *out, const char *at, size_t len, const char *extra, char **end, uint32_t *given)
{
    const char *equals = memchr(at, '=', len);
    size_t key_len = equals ? (size_t)(equals - at) : len;
    int shown = (int)(key_len < 64 ? key_len : 64);
    if (len == 0)
        return ps__fail(PS_EINVAL, "the URL has an empty option: a '?' or '&' with nothing behind it");
    if (key_len == 0)
        return ps__fail(PS_EINVAL, "the URL has an option without a name before its '='");
    int which = url_find(at, key_len, extra);
    if (which == -2)
        return url_unknown(at, key_len, extra);
    if (!equals)
        return ps__fail(PS_EINVAL, "URL option %.*s is without '=' and a value", shown, at);
    if (key_len + 1 == len)
        return ps__fail(PS_EINVAL, "URL option %.*s has an empty value", shown, at);

    char what[80], *key = *end, *value;
    (void)snprintf(what, sizeof what, "option %.*s", shown, at);
    memcpy(key, at, key_len);
    key[key_len] = '\0';
    value = *end = key + key_len + 1;
    int err = url_decode(equals + 1, len - key_len - 1, end, what);
    if (err != 0)
        return err;
    if (which == -1)
        return url_extra(out, key, value);
    if (*given & UINT32_C(1) << which)
        return ps__fail(PS_EINVAL, "URL option %s is given twice", key);
    *given |= UINT32_C(1) << which;
    int64_t number;
    err = url_value(&url_options[which], value, &number);
    if (err == 0)
        url_set(&out->url, &url_options[which], number, value);
    return err;
}

int ps__url_scheme(const char *text, char scheme[32])
{
    size_t len = 0;
    if (!text)
        return ps__fail(PS_EINVAL, "the URL is NULL");
    while (url_is_letter(text[len]) || url_is_digit(text[len]) || (text[len] != '\0' && strchr("+.-", text[len])))
        len++;
    if (len == 0 || text[len] != ':')
        return ps__fail(PS_EINVAL, "the URL \"%.64s\" has no scheme: SCHEME://NAME is expected", text);
    if (len > URL_SCHEME_MAX)
        return ps__fail(PS_EINVAL, "the URL's scheme is longer than %d bytes", URL_SCHEME_MAX);
    for (size_t i = 0; i < len; i++)
        scheme[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
    scheme[len] = '\0';
    return 0;
}

int ps__url_parse(const char *text, const char *extra_options, struct ps__url *out)
{
    char scheme[URL_SCHEME_MAX + 1];
    int err = ps__url_scheme(text, scheme);
    if (err != 0)
        return err;
    size_t len = strnlen(text, PS__URL_MAX);
    if (len == PS__URL_MAX)
        return ps__fail(PS_EINVAL, "the URL is longer than %d bytes", PS__URL_MAX - 1);

    memset(&out->url, 0, sizeof out->url);
    out->extra_count = 0;
    memcpy(out->whole, text, len + 1);
    size_t scheme_len = strlen(scheme);
    char *end = out->text + scheme_len + 1;
    memcpy(out->text, scheme, scheme_len + 1);
    out->url = (ps_url){ .size = sizeof out->url, .text = out->whole, .scheme = out->text, .name = "",
                         .mode = -1, .evict_ms = 1000, .echo = 1, .create = 1 };

    const char *at = text + scheme_len + 1;
    if (at[0] == '/' && at[1] == '/') {
        at += 2;
        size_t address_len = strcspn(at, "?");
        if (address_len == 0)
            return ps__fail(PS_EINVAL, "the URL has no address behind \"://\"");
        out->url.address = end;
        err = url_decode(at, address_len, &end, "address");
        if (err != 0)
            return err;
        if (url_has_control(out->url.address))
            return ps__fail(PS_EINVAL, "the URL's address has a control character");
        at += address_len;
    } else if (at[0] != '\0' && at[0] != '?') {
        return ps__fail(PS_EINVAL, "the URL needs \"//\" or '?' behind \"%s:\"", scheme);
    }

    uint32_t given = 0;
    while (*at != '\0') {                       /* on the '?', or an '&' */
        at++;
        size_t option_len = strcspn(at, "&");
        err = url_option(out, at, option_len, extra_options, &end, &given);
        if (err != 0)
            return err;
        at += option_len;
    }
    if (out->url.observe) {
        if (given & UINT32_C(1) << URL_CREATE && out->url.create)
            return ps__fail(PS_EINVAL, "URL options observe=1 and create=1 exclude each other: who observes creates nothing");
        out->url.create = 0;
        out->url.lossy = 1;
    }
    return 0;
}

int ps__name_check(const char *name)
{
    if (!name || name[0] == '\0')
        return ps__fail(PS_EINVAL, "the bus has no name");
    if (name[0] == '.')
        return ps__fail(PS_EINVAL, "the bus name \"%.64s\" begins with a dot", name);
    size_t len = strnlen(name, PS_NAME_MAX + 1);
    if (len > PS_NAME_MAX)
        return ps__fail(PS_EINVAL, "the bus name is longer than %d bytes", PS_NAME_MAX);
    for (size_t i = 0; i < len; i++)
        if (!url_is_letter(name[i]) && !url_is_digit(name[i]) && !strchr("._-", name[i]))
            return ps__fail(PS_EINVAL, "the bus name \"%s\" may have letters, digits, '.', '_' and '-' only", name);
    return 0;
}

#undef URL_SCHEME_MAX
#undef URL_OPTIONS
#undef URL_FIELD
#undef URL_CREATE
