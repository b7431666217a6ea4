/* Capabilities (capabilities(7), OCI config.md "capabilities"): names to sets, and the drop before execve. */
#ifndef ISOLATE_CAPS_H
#define ISOLATE_CAPS_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

struct capability_sets {
    uint64_t bounding, effective, inheritable, permitted, ambient;
};

/* "CAP_CHOWN" or "chown" to its number, or -1. */
int capability_from_name(const char *name);
/* The name of a number, or NULL past the last one that we know. */
const char *capability_name(unsigned number);

/* Reads the five arrays; an unknown name is a warning, as the specification asks, never an error. */
int capabilities_parse(struct json_object *object, struct capability_sets *sets, struct error *error);

/* Takes out what this process cannot grant, with one warning each. */
int capabilities_limit_to_grantable(struct capability_sets *sets, struct error *error);

/* Narrows the bounding set, while CAP_SETPCAP is still held. */
int capabilities_drop_bounding(const struct capability_sets *sets, struct error *error);

/*
 * Switches to the user with all capabilities kept, for the steps between the change of user and execve.
 */
int capabilities_keep_over_setuid(uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, bool set_groups,
                                  struct error *error);

/* Applies the final sets; `extra` is kept besides in permitted and effective until execve. */
int capabilities_apply(const struct capability_sets *sets, uint64_t extra, struct error *error);

#endif
