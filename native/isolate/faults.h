/*
 * Fault injection for the tests: `ISOLATE_FAULT=point` makes that step fail, `ISOLATE_FAULT=point:kill` ends the
 * process there, `ISOLATE_FAULT=point:hang` keeps it there until it is killed. Compiled into test builds only; the shipped program has no trace of it.
 */
#ifndef ISOLATE_FAULTS_H
#define ISOLATE_FAULTS_H

#ifdef ISOLATE_FAULTS
#include "common/error.h"

int fault_at(const char *point, struct error *error);
#define FAULT(point)                        \
    do {                                    \
        if (fault_at((point), error) < 0)   \
            return -1;                      \
    } while (0)
#define FAULT_OR(point, statement)          \
    do {                                    \
        if (fault_at((point), error) < 0)   \
            statement;                      \
    } while (0)
#else
#define FAULT(point) \
    do {             \
    } while (0)
#define FAULT_OR(point, statement) \
    do {                           \
    } while (0)
#endif

#endif
