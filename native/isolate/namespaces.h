/* Namespaces of a container (namespaces(7), OCI config-linux.md "Namespaces"): new, joined by path, or the runtime's. */
#ifndef ISOLATE_NAMESPACES_H
#define ISOLATE_NAMESPACES_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct config;
struct setup;

/* linux/sched.h has it, and cannot be included beside sched.h. */
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* Opens every joined namespace and checks its type; fds[i] is -1 for a new one. */
int namespaces_open(const struct config *config, int *fds, struct error *error);

/*
 * clone3(2) of the first process with the new namespaces, in the v2 group `cgroup_fd` (or -1). In the child it
 * returns 0. Joined pid namespaces apply to children only, so this process enters and leaves one around the call; a
 * user namespace together with joined ones needs a process between, which joins and then clones a sibling.
 */
int namespaces_clone(const struct setup *setup, int cgroup_fd, pid_t *pid, int *pidfd, struct error *error);

/* True when the clone puts the child into the v2 group by itself. */
bool namespaces_clone_joins_cgroup(const struct setup *setup);

/* The child's part: joins what clone3 could not, after it stands in its cgroups. */
int namespaces_finish(const struct setup *setup, struct error *error);

/* clone3(2) with a pidfd; `flags` may hold CLONE_INTO_CGROUP for `cgroup_fd`. Returns the pid, 0 in the child, -1. */
pid_t clone_process(uint64_t flags, int cgroup_fd, int *pidfd);

#endif
