/* Kernel parameters of a container (OCI config-linux.md "sysctl"): only those that belong to its own namespaces. */
#ifndef ISOLATE_SYSCTL_H
#define ISOLATE_SYSCTL_H

#include "common/error.h"

struct config;
struct json_object;

/* Refuses every key that is not namespaced, or whose namespace the container shares with the host (CVE-2022-0811). */
int sysctl_check(struct json_object *sysctl, const struct config *config, struct error *error);

/* Writes them through `proc_fd`, a procfs that we trust. */
int sysctl_apply(struct json_object *sysctl, int proc_fd, struct error *error);

#endif
