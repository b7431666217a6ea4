/*
 * config.json (OCI config.md and config-linux.md) as a checked structure.
 * Strings point into the parsed JSON tree, which the structure owns. What the specification says MUST be an error is
 * one here, before anything is made; what we do not support is refused by name, never skipped.
 */
#ifndef ISOLATE_CONFIG_H
#define ISOLATE_CONFIG_H

#include "isolate/caps.h"
#include "isolate/idmap.h"
#include "isolate/mount_options.h"

#include <json-c/json.h>
#include <sched.h>
#include <sys/resource.h>

enum {
    ARGS_MAX = 65536,
    MOUNTS_MAX = 8192,
    DEVICES_MAX = 4096,
    GROUPS_MAX = 65536,
    HOOKS_MAX = 1024,
    PATHS_MAX = 8192,
    NAMESPACE_KINDS = 8,
    LOWER_DIRECTORIES_MAX = 500, /* the kernel's own limit is 500 layers, overlayfs OVL_MAX_STACK */
};

struct namespace_config {
    int flag;         /* CLONE_NEW* */
    const char *path; /* join this one; NULL: make a new one */
};

struct mount_config {
    const char *destination, *source, *type;
    struct mount_options options;
    struct id_map uids, gids;
};

struct rlimit_config {
    int resource;
    struct rlimit limit;
};

struct process_config {
    struct json_object *json;
    bool terminal;
    unsigned short height, width; /* of the terminal in characters; 0: leave */
    const char *cwd;
    const char **args, **env; /* NULL-terminated; args NULL when not given */
    size_t env_count;
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t group_count;
    bool has_umask;
    mode_t umask;
    bool has_capabilities;
    struct capability_sets capabilities;
    struct rlimit_config rlimits[RLIM_NLIMITS];
    size_t rlimit_count;
    bool no_new_privileges;
    bool has_oom_score_adj;
    int oom_score_adj;
    const char *apparmor, *selinux;
};

struct device_node {
    char type; /* c, b, p; "u" is read as c */
    const char *path;
    unsigned major, minor;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct device_rule {
    bool allow;
    char type;            /* a, b, c */
    int64_t major, minor; /* -1: all */
    bool read, write, mknod;
};

struct optional_int {
    bool set;
    int64_t value;
};

struct device_rate {
    unsigned major, minor;
    uint64_t rate;
};

enum throttle { THROTTLE_READ_BPS, THROTTLE_WRITE_BPS, THROTTLE_READ_IOPS, THROTTLE_WRITE_IOPS, THROTTLES };

struct resources {
    struct device_rule *devices;
    size_t device_count;
    struct optional_int memory_limit, memory_reservation, memory_swap, memory_kernel, memory_kernel_tcp, swappiness;
    bool disable_oom_killer, check_before_update;
    struct optional_int cpu_shares, cpu_quota, cpu_burst, cpu_period, cpu_rt_runtime, cpu_rt_period, cpu_idle;
    const char *cpus, *mems;
    struct optional_int pids_limit;
    struct optional_int io_weight, io_leaf_weight;
    struct device_rate *io_weights, *io_leaf_weights, *throttles[THROTTLES];
    size_t io_weight_count, io_leaf_weight_count, throttle_counts[THROTTLES];
    struct json_object *unified; /* object of strings, checked; NULL when none */
};

struct hook {
    const char *path;
    const char **args, **env; /* NULL-terminated; NULL when not given */
    int timeout_seconds;      /* 0: none */
};
enum hook_kind { HOOK_PRESTART, HOOK_CREATE_RUNTIME, HOOK_CREATE_CONTAINER, HOOK_START_CONTAINER, HOOK_POSTSTART, HOOK_POSTSTOP, HOOK_KINDS };
struct hook_list {
    struct hook *hooks;
    size_t count;
};

struct seccomp_config;

struct time_offset {
    bool set;
    int64_t seconds;
    uint32_t nanoseconds;
};

struct config {
    struct json_object *json;
    const char *oci_version;
    const char *root_path;
    bool root_readonly;
    const char *hostname, *domainname;
    struct json_object *annotations;
    bool has_process;
    struct process_config process;
    struct mount_config *mounts;
    size_t mount_count;
    struct namespace_config namespaces[NAMESPACE_KINDS];
    size_t namespace_count;
    struct id_map uids, gids;
    struct time_offset monotonic, boottime;
    struct device_node *devices;
    size_t device_count;
    const char *cgroups_path;
    bool has_resources;
    struct resources resources;
    struct json_object *sysctl; /* object of strings, checked */
    struct seccomp_config *seccomp;
    uint64_t root_propagation; /* MS_*; 0 when not given */
    const char **masked_paths, **readonly_paths;
    const char *mount_label;
    struct hook_list hooks[HOOK_KINDS];
    /* Annotation dev.skep.rootfs: {"lower": ["/a", "/b"], "upper": "/u", "work": "/w"} lets the runtime mount the overlay. */
    const char **overlay_lower;
    size_t overlay_lower_count;
    const char *overlay_upper, *overlay_work;
};

/* Takes over `json`, also on failure. */
int config_parse(struct json_object *json, struct config **out, struct error *error);
void config_free(struct config *config);

/* A process object on its own, as `exec --process` gives it; borrows `json`. */
int process_config_parse(struct json_object *json, struct process_config *process, struct error *error);
void process_config_free(struct process_config *process);

/* A resources object on its own, as `update` gives it; borrows `json`. */
int resources_parse(struct json_object *json, struct resources *resources, struct error *error);
void resources_free(struct resources *resources);

/* The namespace entry of a CLONE_NEW* flag, or NULL. */
const struct namespace_config *config_namespace(const struct config *config, int flag);
/* True when the container gets a namespace of this kind of its own. */
bool config_has_new_namespace(const struct config *config, int flag);

/* Id of a container: 1 to 1024 of [A-Za-z0-9_+.-], and it is a name, not a path. */
int container_id_check(const char *id, struct error *error);

#endif
