/* The root filesystem of a container: an overlay of image layers and a writable one, mounted in the caller's mount namespace. */
#ifndef MONITOR_OVERLAY_H
#define MONITOR_OVERLAY_H

#include "monitor/options.h"

/* A mount namespace of the caller's own, into which mounts of the host still come, and out of which none goes. */
int enter_private_mounts(struct error *error);

int overlay_mount(const struct overlay_options *overlay, struct error *error);

#endif
