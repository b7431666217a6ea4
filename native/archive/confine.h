/*
 * Confinement: what reads a hostile archive can reach one directory and a handful of system calls, nothing else.
 */
#ifndef SKEP_ARCHIVE_CONFINE_H
#define SKEP_ARCHIVE_CONFINE_H

#include <stdbool.h>

#include "common/error.h"

struct confinement {
    const char *root;     /* becomes "/" */
    const char *mount_ns; /* or: the mount namespace of a container (a path such as /proc/PID/ns/mnt), with its own "/" */
    bool writes;          /* false: nothing may be changed */
    bool overlay;         /* trusted.overlay.* attributes are set or read, which needs CAP_SYS_ADMIN */
};

int confine(const struct confinement *confinement, struct error *error);

#endif
