/* The control groups of a running container: where they are, out-of-memory events, and killing what is left. */
#ifndef MONITOR_CGROUPS_H
#define MONITOR_CGROUPS_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CGROUPS_MAX = 16, CGROUP_PATH_MAX = 512 };

struct cgroup_place {
    char controllers[64]; /* `memory`, `cpu,cpuacct`; empty for version 2 */
    char path[CGROUP_PATH_MAX];
};

struct cgroups {
    unsigned count;
    struct cgroup_place place[CGROUPS_MAX];
};

/*
 * The groups of `pid`, without those that the monitor is in itself (a container without a group of its own shares ours,
 * and nothing here may ever touch that).
 */
int cgroups_of(pid_t pid, struct cgroups *out, struct error *error);

/* One line of /proc/PID/cgroup and one of mountinfo, apart for the tests and the fuzzer; false when it is not for us. */
bool membership_parse(char *line, const char **controllers, const char **path);
bool cgroup_mount_parse(char *line, const char **root, const char **point, bool *version2, const char **options);

/* The directory that accounts memory, or NULL. */
const struct cgroup_place *cgroups_memory(const struct cgroups *groups, bool *version2);

/*
 * A descriptor that becomes readable when the container runs out of memory: an eventfd on memory.oom_control in version 1,
 * an inotify on memory.events in version 2 (cgroups(7), Documentation/admin-guide/cgroup-v1/memory.rst §10).
 */
int oom_watch(const struct cgroups *groups, int *fd, struct error *error);

/* Processes that the kernel killed for memory in this group so far; 0 when it cannot tell. */
uint64_t oom_kills(const struct cgroups *groups);

/* Kills what is left after the first process has gone: by cgroup.kill (5.14) where there is version 2, else one by one. */
void cgroups_kill(const struct cgroups *groups, int signal);

#endif
