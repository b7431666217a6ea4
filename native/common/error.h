/*
 * Errors: what was attempted, on what, and what the kernel answered.
 * A function that can fail takes a `struct error *` last and returns -1 after `fail()`; whoever can add the wider
 * context does so once with `fail_in()`. Nothing is allocated, so an error can be reported after memory ran out and
 * can cross a process border as bytes.
 */
#ifndef COMMON_ERROR_H
#define COMMON_ERROR_H

#include <errno.h>
#include <stddef.h>

enum { ERROR_TEXT_MAX = 1024 };

struct error {
    int number;                 /* errno of the failed call, or 0 when no system call failed */
    char text[ERROR_TEXT_MAX];  /* `<act> <object>: <errno's text>`, always terminated */
};

/* Fills `error` with the formatted act and, unless `number` is 0, the text of that errno. Always returns -1. */
int fail(struct error *error, int number, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts `<context>: ` before the text already in `error`. Always returns -1. */
int fail_in(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef ANALYZE
/* The analysers read one file at a time and cannot know that these always answer -1. */
#define fail(...) ({ (fail)(__VA_ARGS__); -1; })
#define fail_in(...) ({ (fail_in)(__VA_ARGS__); -1; })
#endif

#endif
