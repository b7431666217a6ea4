/* Device nodes and the links of /dev (OCI config-linux.md "Devices", runtime-linux.md). */
#ifndef ISOLATE_DEVICES_H
#define ISOLATE_DEVICES_H

#include "common/error.h"

struct setup;

int devices_make(const struct setup *setup, int root_fd, struct error *error);

#endif
