/*
 * Mounts of a container (OCI config.md "Mounts"), each made as a detached tree with all its attributes and only then
 * attached to a descriptor inside the root. Needs Linux 5.12 (mount_setattr).
 */
#ifndef ISOLATE_MOUNTS_H
#define ISOLATE_MOUNTS_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct setup;
struct mount_config;
struct config;

/* A bind mount as a detached tree: source cloned, id-mapped, attributes and propagation set. */
int mount_open_bind(const struct mount_config *mount, const struct config *config, const char *bundle, int *out,
                    struct error *error);

/* A fresh filesystem as a detached tree. `options` is comma-separated as for mount(2). */
int mount_open_filesystem(const char *type, const char *source, const char *options, unsigned long superblock,
                          uint64_t attributes, int *out, struct error *error);

/* Attaches a detached tree to an O_PATH descriptor. */
int mount_attach(int tree_fd, int target_fd, const char *name, struct error *error);

/* A detached copy of what a descriptor stands on. */
int mount_clone(int fd, bool recursive, int *out, const char *name, struct error *error);

/* mount_setattr(2) on a tree; `propagation` 0 leaves it. */
int mount_set(int tree_fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation, const char *name,
              struct error *error);

/* All mounts of the configuration, in order, below `root_fd`. */
int mounts_apply(const struct setup *setup, int root_fd, struct error *error);

/* maskedPaths and readonlyPaths. */
int mounts_mask(const struct setup *setup, int root_fd, struct error *error);

#endif
