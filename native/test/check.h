/* What a C test needs: a claim that names itself when it does not hold, and a count at the end. */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks_failed, checks_done;

#define CHECK(claim)                                                          \
    do {                                                                      \
        checks_done++;                                                        \
        if (!(claim)) {                                                       \
            checks_failed++;                                                  \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #claim); \
        }                                                                     \
    } while (0)

#define CHECK_TEXT(got, expected)                                                                 \
    do {                                                                                          \
        const char *got_ = (got), *expected_ = (expected);                                        \
        checks_done++;                                                                            \
        if (got_ == NULL || strcmp(got_, expected_) != 0) {                                       \
            checks_failed++;                                                                      \
            fprintf(stderr, "%s:%d: \"%s\" is not \"%s\"\n", __FILE__, __LINE__, got_ ? got_ : "(null)", expected_); \
        }                                                                                         \
    } while (0)

static inline int checks_end(const char *name)
{
    printf("%s: %d checks, %d failed\n", name, checks_done, checks_failed);
    return checks_failed == 0 ? 0 : 1;
}

#endif
