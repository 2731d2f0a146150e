/* SPDX-License-Identifier: MIT */
/*
 * error.c - results in words: constant texts for the codes, and a detail for each thread's last failure.
 *
 * The detail lies in thread-local memory of fixed size, so a failure can be reported when there is no memory left, and no
 * thread has anything to free.
 */
#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERROR_TEXT_MAX 384

static PS__TLS char error_text[ERROR_TEXT_MAX];

/* Details quote what the caller gave, and go to logs: one line, whatever was quoted. */
static void error_keep(const char *text)
{
    size_t i = 0;
    for (; i < ERROR_TEXT_MAX - 1 && text[i] != '\0'; i++) {
        unsigned char c = (unsigned char)text[i];
        error_text[i] = text[i];
        if (c < 0x20 || c == 0x7f)
            error_text[i] = '?';
    }
    error_text[i] = '\0';
}

int ps__fail(int code, const char *format, ...)
{
    /* Formatted beside the buffer, because an argument may be the last detail itself. */
    char text[ERROR_TEXT_MAX];
    int saved = errno;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    error_keep(text);
    errno = saved;
    return code;
}

static int error_code(int error)
{
    switch (error) {
    case ENOMEM:
        return PS_ENOMEM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return PS_ENOSPC;
    case EACCES:
    case EPERM:
    case EROFS:
        return PS_EACCES;
    case ENOENT:
        return PS_ENOENT;
    default:
        return PS_ESYS;
    }
}

int ps__fail_sys(int error, const char *format, ...)
{
    char text[ERROR_TEXT_MAX], buffer[128] = "";
    const char *reason = buffer;
    int saved = errno;
#if defined __GLIBC__
    reason = strerror_r(error, buffer, sizeof buffer);          /* GNU: answers the text */
#else
    (void)strerror_r(error, buffer, sizeof buffer);             /* POSIX: fills the buffer */
#endif
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    errno = saved;
    return ps__fail(error_code(error), "%s: %s", text, reason);
}

const char *ps_strerror(int code)
{
    switch (code) {
    case PS_OK:
        return "success";
#define ERROR_CASE(name, value, text) case name: return text;
    PS_ERRORS(ERROR_CASE)
#undef ERROR_CASE
    default:
        return "unknown result";
    }
}

const char *ps_errmsg(void)
{
    return error_text;
}

#define ERROR_WORD_(x) #x
#define ERROR_WORD(x)  ERROR_WORD_(x)

const char *ps_version(void)
{
    return ERROR_WORD(PS_VERSION_MAJOR) "." ERROR_WORD(PS_VERSION_MINOR) "." ERROR_WORD(PS_VERSION_PATCH);
}

#undef ERROR_WORD
#undef ERROR_WORD_
#undef ERROR_TEXT_MAX
