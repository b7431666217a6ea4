/*
 * Control group hierarchies of this host (cgroups(7)): which exist, where they are mounted, where a process stands.
 * legacy: only v1 hierarchies. hybrid: v1 controllers and a v2 tree without controllers. unified: only v2.
 */
#ifndef COMMON_CGROUP_H
#define COMMON_CGROUP_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { CGROUP_HIERARCHIES_MAX = 24 };

enum cgroup_mode { CGROUP_NONE, CGROUP_LEGACY, CGROUP_HYBRID, CGROUP_UNIFIED };

struct cgroup_hierarchy {
    bool v2;
    char *controllers; /* "memory", "cpu,cpuacct", "name=systemd"; "" for v2 */
    char *path;        /* where the process stands, absolute, as in /proc/PID/cgroup */
    char *mount;       /* host directory of the hierarchy's root as mounted; NULL when it is not mounted */
};

struct cgroup_layout {
    enum cgroup_mode mode;
    size_t count;
    struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX];
};

/* Reads /proc/self/cgroup and finds the mounts: first at the conventional places, then in /proc/self/mountinfo. */
int cgroup_layout_detect(struct cgroup_layout *layout, struct error *error);
void cgroup_layout_free(struct cgroup_layout *layout);
#define cleanup_cgroup_layout __attribute__((cleanup(cgroup_layout_free)))

/* Hierarchy that carries a controller ("memory"), or NULL; "" asks for the v2 tree. */
const struct cgroup_hierarchy *cgroup_find(const struct cgroup_layout *layout, const char *controller);

/* True when a comma-separated list such as "cpu,cpuacct" holds `name`. */
bool cgroup_list_has(const char *list, const char *name);

/* Parses the text of /proc/PID/cgroup ("4:memory:/a/b" a line); fills controllers, path and v2. */
int cgroup_parse_membership(const char *text, struct cgroup_layout *layout, struct error *error);

/* Parses the text of /proc/PID/mountinfo and fills `mount` of the hierarchies that lack it. */
int cgroup_parse_mounts(const char *text, struct cgroup_layout *layout, struct error *error);

#endif
