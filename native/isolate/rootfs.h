/* The container's root filesystem (OCI config.md "Root"): made, filled, entered. */
#ifndef ISOLATE_ROOTFS_H
#define ISOLATE_ROOTFS_H

#include "common/error.h"

struct setup;

/* The root as a detached tree: a clone of root.path, or the overlay of annotation dev.skep.rootfs. */
int rootfs_open_tree(const struct setup *setup, int *out, struct error *error);

/* Attaches the tree and fills it: mounts, devices, /dev links, masks. `*root_fd` is the root's descriptor. */
int rootfs_build(const struct setup *setup, int *root_fd, int *console_master, struct error *error);

/* Makes the root of this process's mount namespace the container's, and lets go of the host's. */
int rootfs_enter(const struct setup *setup, int root_fd, struct error *error);

#endif
