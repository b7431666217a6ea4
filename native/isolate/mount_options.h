/* Mount option strings (OCI config.md, "Linux mount options") to what mount_setattr(2) and fsconfig(2) take. */
#ifndef ISOLATE_MOUNT_OPTIONS_H
#define ISOLATE_MOUNT_OPTIONS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mount_options {
    uint64_t set, clear;                     /* MOUNT_ATTR_* of the mount itself */
    uint64_t recursive_set, recursive_clear; /* MOUNT_ATTR_* of the mount and all below it */
    uint64_t propagation;                    /* MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, or 0 */
    unsigned long superblock;                /* MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME, MS_MANDLOCK, MS_I_VERSION, MS_SILENT */
    bool propagation_recursive;
    bool bind, bind_recursive;
    bool remount;
    bool idmap, idmap_recursive;
    char *data;                              /* filesystem-specific rest, comma-separated; "" when there is none */
};

int mount_options_parse(const char *const *options, size_t count, struct mount_options *out, struct error *error);
void mount_options_free(struct mount_options *options);

/* The n-th option that is known by name, for `features`; NULL past the last. */
const char *mount_option_name(size_t index);

#endif
