/*
 * A container's control groups on v1, hybrid and v2 hosts (cgroups(7), OCI config-linux.md "Control groups").
 * On hybrid hosts the container stands in every v1 hierarchy and in the v2 tree besides, which brings cgroup.kill,
 * cgroup.freeze and clone3(CLONE_INTO_CGROUP).
 */
#ifndef ISOLATE_CGROUP_H
#define ISOLATE_CGROUP_H

#include "common/cgroup.h"
#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct json_object;
struct resources;
struct config;

struct cgroup_entry {
    bool v2;
    char *controllers; /* "memory", "cpu,cpuacct", "name=systemd"; "" for v2 */
    char *mount;       /* where the hierarchy is mounted on the host */
    char *path;        /* the container's directory on the host, below `mount` */
    unsigned created;  /* how many levels of `path` were made for this container, counted from the leaf */
    int fd;            /* the directory; -1 when not open */
    int join_fd;       /* v1 "tasks", v2 "cgroup.procs", open for writing; -1 when not open */
};

struct cgroup {
    enum cgroup_mode mode;
    size_t count;
    struct cgroup_entry entries[CGROUP_HIERARCHIES_MAX];
};

/*
 * Makes the directories for `cgroups_path` (NULL: /isolate/ID) and opens them. Refuses paths that leave the hierarchy
 * and groups that already hold processes or are frozen. With `rootless`, a refusal by permissions leaves the
 * container without a group when no limits were asked for. On failure nothing made here remains.
 */
int cgroup_create(const char *cgroups_path, const char *id, const struct config *config, bool rootless,
                  struct cgroup *cgroup, struct error *error);

/* Where cgroup_create() would have put them, for a create that was killed before it could save what it made. */
int cgroup_find_unsaved(const char *cgroups_path, const char *id, struct cgroup *cgroup, struct error *error);

/* Writes the limits. pids.max comes apart, after the first process is in: a limit of 0 or 1 would refuse the clone. */
int cgroup_apply(const struct cgroup *cgroup, const struct resources *resources, struct error *error);
int cgroup_apply_pids(const struct cgroup *cgroup, const struct resources *resources, struct error *error);

/* Device access: v1 device lists, or a BPF program on v2. The devices of linux.devices are allowed besides. */
int cgroup_apply_devices(const struct cgroup *cgroup, const struct config *config, struct error *error);

/* Directory descriptor for clone3(CLONE_INTO_CGROUP), or -1 when there is no v2 tree or the group must be joined by hand. */
int cgroup_clone_fd(const struct cgroup *cgroup);

/*
 * Moves the calling process, which must have one thread, into all v1 groups, and with `v2` into the v2 group.
 * Writing 0 to `tasks` skips the threadgroup lock and with it an RCU grace period (kernel commit 9a3284fad42f).
 */
int cgroup_join(const struct cgroup *cgroup, bool v2, struct error *error);

/* Opens directories and join files again after a load from the state. */
int cgroup_open(struct cgroup *cgroup, bool for_join, struct error *error);

/* The same groups one level further down, for exec --cgroup; they must exist. */
int cgroup_descend(struct cgroup *cgroup, const char *sub, struct error *error);

const struct cgroup_entry *cgroup_entry(const struct cgroup *cgroup, const char *controller);
/* The entry whose cgroup.procs tells all processes; NULL when the container has no group. */
const struct cgroup_entry *cgroup_processes_entry(const struct cgroup *cgroup);

/* All process ids, including those in groups below. The caller frees. */
int cgroup_processes(const struct cgroup *cgroup, pid_t **pids, size_t *count, struct error *error);

int cgroup_freeze(const struct cgroup *cgroup, bool freeze, struct error *error);
int cgroup_is_frozen(const struct cgroup *cgroup, bool *frozen, struct error *error);

/* Signals every process; SIGKILL by cgroup.kill where the kernel has it, else frozen meanwhile and always thawed. */
int cgroup_signal(const struct cgroup *cgroup, int signal, struct error *error);

/* Kills what is left and removes the directories; waits a bounded time for the kernel to let go. */
int cgroup_remove(struct cgroup *cgroup, struct error *error);

/* State file: to and from JSON. */
int cgroup_to_json(const struct cgroup *cgroup, struct json_object **out, struct error *error);
int cgroup_from_json(struct json_object *array, struct cgroup *cgroup, struct error *error);

/* Bounded reads for statistics; a missing file answers -1 with ENOENT. */
int cgroup_read_number(const struct cgroup_entry *entry, const char *file, unsigned long long *out, struct error *error);
int cgroup_read_text(const struct cgroup_entry *entry, const char *file, char **out, struct error *error);

void cgroup_close(struct cgroup *cgroup);
void cgroup_free(struct cgroup *cgroup);

#endif
