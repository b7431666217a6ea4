#include "isolate/cgroup.h"
#include "common/fd.h"
#include "common/json.h"
#include "common/path.h"
#include "isolate/config.h"
#include "isolate/device_filter.h"
#include "isolate/faults.h"
#include "isolate/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { CONTROL_BYTES_MAX = 4 * 1024 * 1024, REMOVE_WAIT_MS = 5000, FREEZE_WAIT_MS = 5000, GROUP_DEPTH_MAX = 32 };

static void sleep_us(unsigned us)
{
    struct timespec span = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&span, NULL);
}

const struct cgroup_entry *cgroup_entry(const struct cgroup *cgroup, const char *controller)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_entry *entry = &cgroup->entries[i];
        if (*controller == '\0' ? entry->v2 : !entry->v2 && cgroup_list_has(entry->controllers, controller))
            return entry;
    }
    return NULL;
}

const struct cgroup_entry *cgroup_processes_entry(const struct cgroup *cgroup)
{
    const struct cgroup_entry *unified = cgroup_entry(cgroup, "");
    if (unified != NULL)
        return unified;
    return cgroup->count == 0 ? NULL : &cgroup->entries[0];
}

int cgroup_clone_fd(const struct cgroup *cgroup)
{
    const struct cgroup_entry *unified = cgroup_entry(cgroup, "");
    /*
     * Linux 6.18 kills whoever is cloned into a group in which cgroup.kill was ever written: it compares the group's
     * count of kills with that of the caller's group (cgroup_css_set_fork). Only a group that was made for this
     * container is known to be free of that.
     */
    return unified == NULL || unified->created == 0 ? -1 : unified->fd;
}

/* ---- creation ---- */

/* cpuset(7): a fresh group has no CPUs and no memory nodes, and refuses processes until it inherits both. */
static int inherit_cpuset(int parent_fd, int child_fd, struct error *error)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    for (size_t i = 0; i < 2; i++) {
        cleanup_free char *own = NULL, *inherited = NULL;
        if (read_file_at(child_fd, files[i], CONTROL_BYTES_MAX, &own, NULL, error) < 0)
            return -1;
        if (*own != '\n' && *own != '\0')
            continue;
        if (read_file_at(parent_fd, files[i], CONTROL_BYTES_MAX, &inherited, NULL, error) < 0)
            return -1;
        inherited[strcspn(inherited, "\n")] = '\0';
        if (*inherited != '\0' && write_control_at(child_fd, files[i], inherited, error) < 0)
            return -1;
    }
    return 0;
}

/* True when a key of resources.unified belongs to the controller, as "hugetlb.2MB.max" to hugetlb. */
static bool is_asked_for(struct json_object *unified, const char *controller)
{
    size_t length = strlen(controller);
    if (unified == NULL)
        return false;
    json_object_object_foreach(unified, file, value) {
        (void)value;
        if (strncmp(file, controller, length) == 0 && file[length] == '.')
            return true;
    }
    return false;
}

/*
 * cgroups(7): a controller is usable in a v2 group when its parent's subtree_control lists it. On a hybrid host the v2
 * tree is left without controllers but those that resources.unified names: other programs expect it bare (crun refuses
 * to work otherwise).
 */
static void enable_controllers(int parent_fd, bool all, struct json_object *unified)
{
    cleanup_free char *available = NULL;
    struct error ignored; /* a limit that then cannot be written is the error, and names its file */
    if (read_file_at(parent_fd, "cgroup.controllers", CONTROL_BYTES_MAX, &available, NULL, &ignored) < 0)
        return;
    char *rest = available;
    for (char *name = strsep(&rest, " \n"); name != NULL; name = strsep(&rest, " \n")) {
        char text[64];
        if (*name == '\0' || (!all && !is_asked_for(unified, name)) ||
            (size_t)snprintf(text, sizeof text, "+%s", name) >= sizeof text)
            continue;
        if (write_control_at(parent_fd, "cgroup.subtree_control", text, &ignored) < 0)
            log_debug("cgroup: %s", ignored.text);
    }
}

/* An existing group must be empty and thawed: joining another container's group would mix the two. */
static int check_existing(const struct cgroup_entry *entry, int fd, struct error *error)
{
    cleanup_free char *processes = NULL, *state = NULL;
    struct error ignored;
    if (read_file_at(fd, "cgroup.procs", CONTROL_BYTES_MAX, &processes, NULL, error) < 0)
        return -1;
    if (*processes != '\0')
        return fail(error, EBUSY, "use cgroup %s, which holds processes already", entry->path);
    const char *file = entry->v2 ? "cgroup.freeze" : "freezer.state";
    if (read_file_at(fd, file, CONTROL_BYTES_MAX, &state, NULL, &ignored) == 0 &&
        (strcmp(state, "1\n") == 0 || strncmp(state, "FR", 2) == 0))
        return fail(error, EBUSY, "use cgroup %s, which is frozen", entry->path);
    return 0;
}

/* Makes `path` below the hierarchy's mount, part by part, each by its own name below its parent's descriptor. */
static int make_parts(struct cgroup_entry *entry, const char *relative, bool all_controllers, const struct config *config,
                      unsigned attempt, struct error *error)
{
    cleanup_fd int current = open(entry->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (current < 0)
        return fail(error, errno, "open cgroup hierarchy %s", entry->mount);
    char part[NAME_MAX + 1];
    entry->created = 0;
    (void)attempt; /* for the fault below */
    for (const char *at = relative; *at != '\0';) {
        size_t length = strcspn(at, "/");
        if (length > NAME_MAX)
            return fail(error, ENAMETOOLONG, "make cgroup %s", entry->path);
        memcpy(part, at, length);
        part[length] = '\0';
        if (entry->v2)
            enable_controllers(current, all_controllers, config == NULL ? NULL : config->resources.unified);
        bool made = mkdirat(current, part, 0755) == 0;
        if (!made && errno != EEXIST)
            return fail(error, errno, "make cgroup %s", entry->path);
        if (made)
            entry->created++;
        else
            entry->created = 0; /* only an unbroken run up to the leaf is ours */
        int next = openat(current, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return fail(error, errno, "open cgroup %s", entry->path);
        FAULT_OR("parent", if (attempt == 0)(void)unlinkat(current, part, AT_REMOVEDIR));
        /* Also on levels that were there: an empty one would refuse every process below it. */
        if (cgroup_list_has(entry->controllers, "cpuset") && inherit_cpuset(current, next, error) < 0) {
            close(next);
            return -1;
        }
        close(current);
        current = next;
        at += length;
        while (*at == '/')
            at++;
    }
    if (entry->created == 0 && check_existing(entry, current, error) < 0)
        return -1;
    const char *join_file = entry->v2 ? "cgroup.procs" : "tasks";
    entry->join_fd = openat(current, join_file, O_WRONLY | O_CLOEXEC);
    if (entry->join_fd < 0)
        return fail(error, errno, "open %s of cgroup %s", join_file, entry->path);
    entry->fd = take_fd(&current);
    return 0;
}

/* The end of another container removes a parent that both have as long as nothing stands below it: then all is made anew. */
static int make_entry(struct cgroup_entry *entry, const char *relative, bool all_controllers, const struct config *config,
                      struct error *error)
{
    for (unsigned attempt = 0;; attempt++) {
        int result = make_parts(entry, relative, all_controllers, config, attempt, error);
        /* ENODEV: a file of a group that is gone (kernfs). */
        if (result == 0 || (error->number != ENOENT && error->number != ENODEV) || attempt == 16)
            return result;
    }
}

static bool wants_limits(const struct config *config)
{
    const struct resources *r = &config->resources;
    return r->memory_limit.set || r->memory_reservation.set || r->memory_swap.set || r->cpu_shares.set ||
           r->cpu_quota.set || r->cpus != NULL || r->mems != NULL || r->pids_limit.set || r->io_weight.set ||
           r->unified != NULL;
}

/*
 * Where in the hierarchy: an absolute cgroupsPath counts from the root as mounted, a relative one from /isolate
 * (OCI config-linux.md lets the runtime choose). `slice:prefix:name`, the systemd form, becomes slice/prefix-name.
 */
static int relative_path(const char *cgroups_path, const char *id, char *out, size_t room, struct error *error)
{
    cleanup_free char *wanted = NULL;
    if (cgroups_path == NULL || *cgroups_path == '\0') {
        wanted = format_text("/isolate/%s", id);
    } else {
        size_t colons = 0;
        for (const char *at = cgroups_path; *at != '\0'; at++)
            colons += *at == ':';
        if (colons == 2 && *cgroups_path != '/') {
            const char *first = strchr(cgroups_path, ':'), *second = strchr(first + 1, ':');
            wanted = format_text("/%.*s/%.*s-%s", (int)(first - cgroups_path), cgroups_path, (int)(second - first - 1),
                                 first + 1, second + 1);
        } else {
            wanted = *cgroups_path == '/' ? strdup(cgroups_path) : format_text("/isolate/%s", cgroups_path);
        }
    }
    if (wanted == NULL)
        return fail(error, ENOMEM, "name the cgroup");
    /* A path that climbs is refused rather than cleaned: nobody writes one by accident. */
    for (const char *part = wanted; *part != '\0';) {
        size_t length = strcspn(part, "/");
        if (length == 2 && memcmp(part, "..", 2) == 0)
            return fail(error, EINVAL, "linux.cgroupsPath \"%.128s\" must not hold \"..\"", wanted);
        if (memchr(part, '\n', length) != NULL)
            return fail(error, EINVAL, "linux.cgroupsPath must not hold a line break");
        part += length;
        while (*part == '/')
            part++;
    }
    if (clean_path(wanted, out, room, error) < 0)
        return fail_in(error, "linux.cgroupsPath");
    if (*out == '\0')
        return fail(error, EINVAL, "linux.cgroupsPath \"%s\" is the root of the hierarchy", wanted);
    return 0;
}

/* A group that is not there yet, or that nobody has open. */
static int name_entry(const struct cgroup_hierarchy *hierarchy, const char *relative, struct cgroup_entry *entry,
                      struct error *error)
{
    *entry = (struct cgroup_entry){.v2 = hierarchy->v2, .fd = -1, .join_fd = -1};
    entry->controllers = strdup(hierarchy->controllers);
    entry->mount = strdup(hierarchy->mount);
    entry->path = format_text("%s/%s", hierarchy->mount, relative);
    bool named = entry->controllers != NULL && entry->mount != NULL && entry->path != NULL;
    return named ? 0 : fail(error, ENOMEM, "name the cgroup");
}

int cgroup_create(const char *cgroups_path, const char *id, const struct config *config, bool rootless,
                  struct cgroup *cgroup, struct error *error)
{
    cleanup_cgroup_layout struct cgroup_layout layout = {0};
    char relative[PATH_MAX];
    memset(cgroup, 0, sizeof *cgroup);
    if (relative_path(cgroups_path, id, relative, sizeof relative, error) < 0 || cgroup_layout_detect(&layout, error) < 0)
        return -1;
    cgroup->mode = layout.mode;
    for (size_t i = 0; i < layout.count; i++) {
        const struct cgroup_hierarchy *hierarchy = &layout.hierarchies[i];
        if (hierarchy->mount == NULL)
            continue;
        struct cgroup_entry *entry = &cgroup->entries[cgroup->count++];
        if (name_entry(hierarchy, relative, entry, error) < 0)
            goto failed;
        if (make_entry(entry, relative, layout.mode == CGROUP_UNIFIED, config, error) == 0)
            continue;
        bool refused = error->number == EACCES || error->number == EPERM || error->number == EROFS;
        if (!rootless || !refused || (config != NULL && wants_limits(config)))
            goto failed;
        /* Without privilege and without limits a group is a convenience; go on without this one. */
        struct cgroup part = {.count = 1, .entries = {*entry}};
        struct error ignored;
        (void)cgroup_remove(&part, &ignored);
        cgroup_free(&part);
        cgroup->count--;
        memset(&cgroup->entries[cgroup->count], 0, sizeof cgroup->entries[0]);
    }
    if (cgroup->count == 0 && !rootless && layout.mode == CGROUP_NONE)
        log_warning("this host has no cgroup hierarchy: the container runs without one");
    return 0;
failed:;
    struct error ignored;
    (void)cgroup_remove(cgroup, &ignored); /* the first error is the one to tell */
    cgroup_free(cgroup);
    return -1;
}

int cgroup_find_unsaved(const char *cgroups_path, const char *id, struct cgroup *cgroup, struct error *error)
{
    cleanup_cgroup_layout struct cgroup_layout layout = {0};
    char relative[PATH_MAX];
    memset(cgroup, 0, sizeof *cgroup);
    if (relative_path(cgroups_path, id, relative, sizeof relative, error) < 0 || cgroup_layout_detect(&layout, error) < 0)
        return -1;
    cgroup->mode = layout.mode;
    for (size_t i = 0; i < layout.count; i++) {
        const struct cgroup_hierarchy *hierarchy = &layout.hierarchies[i];
        if (hierarchy->mount == NULL)
            continue;
        /* Only the leaf is taken for ours: create refuses a group that holds processes, so nobody else's are in it. */
        struct cgroup_entry *entry = &cgroup->entries[cgroup->count++];
        if (name_entry(hierarchy, relative, entry, error) < 0)
            return -1;
        entry->created = 1;
    }
    return 0;
}

int cgroup_join(const struct cgroup *cgroup, bool v2, struct error *error)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_entry *entry = &cgroup->entries[i];
        if (entry->v2 && !v2)
            continue;
        if (TEMP_FAILURE_RETRY(write(entry->join_fd, "0", 1)) != 1)
            return fail(error, errno, "join cgroup %s", entry->path);
    }
    return 0;
}

int cgroup_open(struct cgroup *cgroup, bool for_join, struct error *error)
{
    int result = 0;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_entry *entry = &cgroup->entries[i];
        if (entry->fd < 0) {
            entry->fd = open(entry->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (entry->fd < 0) {
                result = fail(error, errno, "open cgroup %s", entry->path);
                continue; /* the others are opened all the same: delete wants what there is */
            }
        }
        if (for_join && entry->join_fd < 0) {
            entry->join_fd = openat(entry->fd, entry->v2 ? "cgroup.procs" : "tasks", O_WRONLY | O_CLOEXEC);
            if (entry->join_fd < 0)
                result = fail(error, errno, "open cgroup %s to join it", entry->path);
        }
    }
    return result;
}

int cgroup_descend(struct cgroup *cgroup, const char *sub, struct error *error)
{
    char relative[PATH_MAX];
    if (clean_path(sub, relative, sizeof relative, error) < 0)
        return -1;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_entry *entry = &cgroup->entries[i];
        char *deeper = format_text("%s/%s", entry->path, relative);
        if (deeper == NULL)
            return fail(error, ENOMEM, "name the cgroup");
        free(entry->path);
        entry->created = 0; /* somebody else's */
        entry->path = deeper;
        close_fd(&entry->fd);
        close_fd(&entry->join_fd);
    }
    return 0;
}

/* ---- limits ---- */

static int write_number(const struct cgroup_entry *entry, const char *file, int64_t value, struct error *error)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    if (write_control_at(entry->fd, file, text, error) < 0)
        return fail_in(error, "cgroup %s", entry->path);
    return 0;
}

static int write_text(const struct cgroup_entry *entry, const char *file, const char *text, struct error *error)
{
    if (write_control_at(entry->fd, file, text, error) < 0)
        return fail_in(error, "cgroup %s", entry->path);
    return 0;
}

static int write_max(const struct cgroup_entry *entry, const char *file, int64_t value, struct error *error)
{
    return value < 0 ? write_text(entry, file, "max", error) : write_number(entry, file, value, error);
}

static bool has_file(const struct cgroup_entry *entry, const char *file)
{
    return faccessat(entry->fd, file, F_OK, 0) == 0;
}

static int need_entry(const struct cgroup *cgroup, const char *controller, const struct cgroup_entry **out,
                      struct error *error)
{
    *out = cgroup_entry(cgroup, controller);
    if (*out == NULL)
        return fail(error, ENOTSUP, "apply limits: this host has no cgroup controller \"%s\"", controller);
    return 0;
}

/* Memory and memory+swap limits must never cross on the way: the kernel refuses limit > memsw at every moment. */
static int apply_memory_v1(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    int64_t limit = r->memory_limit.set ? r->memory_limit.value : 0;
    int64_t swap = r->memory_swap.set ? r->memory_swap.value : 0;
    const char *limit_file = "memory.limit_in_bytes", *swap_file = "memory.memsw.limit_in_bytes";
    if (r->memory_limit.set && limit == -1 && !r->memory_swap.set && has_file(entry, swap_file))
        swap = -1; /* unlimited memory needs unlimited memory+swap */
    bool swap_first = false;
    if (swap != 0 && has_file(entry, swap_file)) {
        unsigned long long now = 0;
        if (cgroup_read_number(entry, limit_file, &now, error) < 0)
            return -1;
        /* Growing: widen the outer limit first. Shrinking: narrow the inner one first. */
        swap_first = swap == -1 || (uint64_t)swap >= now;
    }
    if (swap_first && write_number(entry, swap_file, swap, error) < 0)
        return -1;
    if (limit != 0 && write_number(entry, limit_file, limit, error) < 0)
        return -1;
    if (!swap_first && swap != 0 && !(swap == -1 && !has_file(entry, swap_file)) &&
        write_number(entry, swap_file, swap, error) < 0)
        return -1;
    if (r->memory_reservation.set && r->memory_reservation.value != 0 &&
        write_number(entry, "memory.soft_limit_in_bytes", r->memory_reservation.value, error) < 0)
        return -1;
    if (r->memory_kernel.set && r->memory_kernel.value > 0 &&
        write_number(entry, "memory.kmem.limit_in_bytes", r->memory_kernel.value, error) < 0)
        return -1;
    if (r->memory_kernel_tcp.set && r->memory_kernel_tcp.value > 0 &&
        write_number(entry, "memory.kmem.tcp.limit_in_bytes", r->memory_kernel_tcp.value, error) < 0)
        return -1;
    if (r->swappiness.set && write_number(entry, "memory.swappiness", r->swappiness.value, error) < 0)
        return -1;
    if (r->disable_oom_killer && write_text(entry, "memory.oom_control", "1", error) < 0)
        return -1;
    return 0;
}

static int apply_cpu_v1(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    if (r->cpu_shares.set && r->cpu_shares.value != 0 && write_number(entry, "cpu.shares", r->cpu_shares.value, error) < 0)
        return -1;
    if (r->cpu_rt_period.set && r->cpu_rt_period.value != 0 &&
        write_number(entry, "cpu.rt_period_us", r->cpu_rt_period.value, error) < 0)
        return -1;
    if (r->cpu_rt_runtime.set && r->cpu_rt_runtime.value != 0 &&
        write_number(entry, "cpu.rt_runtime_us", r->cpu_rt_runtime.value, error) < 0)
        return -1;
    bool period = r->cpu_period.set && r->cpu_period.value != 0, quota = r->cpu_quota.set && r->cpu_quota.value != 0;
    if (period && write_number(entry, "cpu.cfs_period_us", r->cpu_period.value, error) < 0) {
        /* The old quota may not fit the new period; then the quota goes first. */
        if (!quota || error->number != EINVAL)
            return -1;
        if (write_number(entry, "cpu.cfs_quota_us", r->cpu_quota.value, error) < 0 ||
            write_number(entry, "cpu.cfs_period_us", r->cpu_period.value, error) < 0)
            return -1;
    }
    if (quota && write_number(entry, "cpu.cfs_quota_us", r->cpu_quota.value < 0 ? -1 : r->cpu_quota.value, error) < 0)
        return -1;
    if (r->cpu_burst.set && write_number(entry, "cpu.cfs_burst_us", r->cpu_burst.value, error) < 0)
        return -1;
    if (r->cpu_idle.set && write_number(entry, "cpu.idle", r->cpu_idle.value, error) < 0)
        return -1;
    return 0;
}

static int write_device_value(const struct cgroup_entry *entry, const char *file, const struct device_rate *rate,
                              const char *prefix, struct error *error)
{
    char text[96];
    snprintf(text, sizeof text, "%u:%u %s%llu", rate->major, rate->minor, prefix, (unsigned long long)rate->rate);
    return write_text(entry, file, text, error);
}

static int apply_io_v1(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    static const char *const files[THROTTLES] = {"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
                                                 "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"};
    bool bfq = !has_file(entry, "blkio.weight") && has_file(entry, "blkio.bfq.weight");
    if (r->io_weight.set && r->io_weight.value != 0 &&
        write_number(entry, bfq ? "blkio.bfq.weight" : "blkio.weight", r->io_weight.value, error) < 0)
        return -1;
    if (r->io_leaf_weight.set && r->io_leaf_weight.value != 0 &&
        write_number(entry, "blkio.leaf_weight", r->io_leaf_weight.value, error) < 0)
        return -1;
    for (size_t i = 0; i < r->io_weight_count; i++)
        if (write_device_value(entry, bfq ? "blkio.bfq.weight_device" : "blkio.weight_device", &r->io_weights[i], "", error) < 0)
            return -1;
    for (size_t i = 0; i < r->io_leaf_weight_count; i++)
        if (write_device_value(entry, "blkio.leaf_weight_device", &r->io_leaf_weights[i], "", error) < 0)
            return -1;
    for (int kind = 0; kind < THROTTLES; kind++)
        for (size_t i = 0; i < r->throttle_counts[kind]; i++)
            if (write_device_value(entry, files[kind], &r->throttles[kind][i], "", error) < 0)
                return -1;
    return 0;
}

static bool wants_memory(const struct resources *r)
{
    return r->memory_limit.set || r->memory_reservation.set || r->memory_swap.set || r->memory_kernel.set ||
           r->memory_kernel_tcp.set || r->swappiness.set || r->disable_oom_killer;
}

static bool wants_cpu(const struct resources *r)
{
    return r->cpu_shares.set || r->cpu_quota.set || r->cpu_burst.set || r->cpu_period.set || r->cpu_rt_runtime.set ||
           r->cpu_rt_period.set || r->cpu_idle.set;
}

static bool wants_io(const struct resources *r)
{
    bool throttled = false;
    for (int kind = 0; kind < THROTTLES; kind++)
        throttled = throttled || r->throttle_counts[kind] > 0;
    return throttled || r->io_weight.set || r->io_leaf_weight.set || r->io_weight_count > 0 || r->io_leaf_weight_count > 0;
}

static int apply_unified(const struct cgroup_entry *entry, struct json_object *unified, struct error *error)
{
    json_object_object_foreach(unified, file, value) {
        /* Several lines are several writes: the kernel takes one setting a write (io.max). */
        cleanup_free char *lines = strdup(json_object_get_string(value));
        if (lines == NULL)
            return fail(error, ENOMEM, "write %s", file);
        char *rest = lines;
        for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n"))
            if (*line != '\0' && write_text(entry, file, line, error) < 0)
                return -1;
    }
    return 0;
}

static int apply_v1(const struct cgroup *cgroup, const struct resources *r, struct error *error)
{
    const struct cgroup_entry *entry = NULL;
    if (wants_memory(r) && (need_entry(cgroup, "memory", &entry, error) < 0 || apply_memory_v1(entry, r, error) < 0))
        return -1;
    if (wants_cpu(r) && (need_entry(cgroup, "cpu", &entry, error) < 0 || apply_cpu_v1(entry, r, error) < 0))
        return -1;
    if (r->cpus != NULL && *r->cpus != '\0' &&
        (need_entry(cgroup, "cpuset", &entry, error) < 0 || write_text(entry, "cpuset.cpus", r->cpus, error) < 0))
        return -1;
    if (r->mems != NULL && *r->mems != '\0' &&
        (need_entry(cgroup, "cpuset", &entry, error) < 0 || write_text(entry, "cpuset.mems", r->mems, error) < 0))
        return -1;
    if (wants_io(r) && (need_entry(cgroup, "blkio", &entry, error) < 0 || apply_io_v1(entry, r, error) < 0))
        return -1;
    if (r->unified != NULL) {
        entry = cgroup_entry(cgroup, "");
        if (entry == NULL)
            return fail(error, ENOTSUP, "apply resources.unified: this host has no cgroup v2");
        return apply_unified(entry, r->unified, error);
    }
    return 0;
}

static int apply_memory_v2(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    if (r->swappiness.set || r->disable_oom_killer || (r->memory_kernel.set && r->memory_kernel.value > 0) ||
        (r->memory_kernel_tcp.set && r->memory_kernel_tcp.value > 0))
        return fail(error, ENOTSUP, "apply memory limits: swappiness, disableOOMKiller, kernel and kernelTCP have no equal on cgroup v2");
    if (r->check_before_update && r->memory_limit.set && r->memory_limit.value > 0) {
        unsigned long long usage = 0;
        if (cgroup_read_number(entry, "memory.current", &usage, error) == 0 && usage > (uint64_t)r->memory_limit.value)
            return fail(error, EBUSY, "lower the memory limit to %lld: %llu bytes are in use",
                        (long long)r->memory_limit.value, usage);
    }
    if (r->memory_swap.set && r->memory_swap.value != 0) {
        /* v1 counts memory+swap, v2 swap alone. */
        int64_t swap = r->memory_swap.value;
        if (swap > 0 && (!r->memory_limit.set || r->memory_limit.value <= 0))
            return fail(error, EINVAL, "apply memory limits: swap needs limit, of which it is the sum with");
        if (write_max(entry, "memory.swap.max", swap < 0 ? -1 : swap - r->memory_limit.value, error) < 0)
            return -1;
    } else if (r->memory_limit.set && r->memory_limit.value == -1 && has_file(entry, "memory.swap.max") &&
               write_text(entry, "memory.swap.max", "max", error) < 0) {
        return -1;
    }
    if (r->memory_limit.set && r->memory_limit.value != 0 && write_max(entry, "memory.max", r->memory_limit.value, error) < 0)
        return -1;
    if (r->memory_reservation.set && r->memory_reservation.value != 0 &&
        write_max(entry, "memory.low", r->memory_reservation.value, error) < 0)
        return -1;
    return 0;
}

static int apply_cpu_v2(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    if ((r->cpu_rt_runtime.set && r->cpu_rt_runtime.value != 0) || (r->cpu_rt_period.set && r->cpu_rt_period.value != 0))
        return fail(error, ENOTSUP, "apply CPU limits: realtimeRuntime and realtimePeriod have no equal on cgroup v2");
    if (r->cpu_idle.set && write_number(entry, "cpu.idle", r->cpu_idle.value, error) < 0)
        return -1;
    if (r->cpu_shares.set && r->cpu_shares.value != 0) {
        /* The scale of OCI runtimes: shares 2..262144 onto weight 1..10000. */
        int64_t shares = r->cpu_shares.value < 2 ? 2 : r->cpu_shares.value > 262144 ? 262144 : r->cpu_shares.value;
        if (write_number(entry, "cpu.weight", 1 + (shares - 2) * 9999 / 262142, error) < 0)
            return -1;
    }
    if ((r->cpu_quota.set && r->cpu_quota.value != 0) || (r->cpu_period.set && r->cpu_period.value != 0)) {
        char text[64], quota[24] = "max";
        if (r->cpu_quota.set && r->cpu_quota.value > 0)
            snprintf(quota, sizeof quota, "%lld", (long long)r->cpu_quota.value);
        snprintf(text, sizeof text, "%s %lld", quota,
                 (long long)(r->cpu_period.set && r->cpu_period.value != 0 ? r->cpu_period.value : 100000));
        if (write_text(entry, "cpu.max", text, error) < 0)
            return -1;
    }
    if (r->cpu_burst.set && write_number(entry, "cpu.max.burst", r->cpu_burst.value, error) < 0)
        return -1;
    return 0;
}

static int apply_io_v2(const struct cgroup_entry *entry, const struct resources *r, struct error *error)
{
    static const char *const prefixes[THROTTLES] = {"rbps=", "wbps=", "riops=", "wiops="};
    if (r->io_leaf_weight.set || r->io_leaf_weight_count > 0)
        return fail(error, ENOTSUP, "apply I/O limits: leafWeight has no equal on cgroup v2");
    bool bfq = has_file(entry, "io.bfq.weight");
    if (r->io_weight.set && r->io_weight.value != 0) {
        int64_t weight = bfq ? r->io_weight.value : 1 + (r->io_weight.value - 10) * 9999 / 990;
        if (write_number(entry, bfq ? "io.bfq.weight" : "io.weight", weight < 1 ? 1 : weight, error) < 0)
            return -1;
    }
    for (size_t i = 0; i < r->io_weight_count; i++)
        if (write_device_value(entry, bfq ? "io.bfq.weight" : "io.weight", &r->io_weights[i], "", error) < 0)
            return -1;
    for (int kind = 0; kind < THROTTLES; kind++)
        for (size_t i = 0; i < r->throttle_counts[kind]; i++)
            if (write_device_value(entry, "io.max", &r->throttles[kind][i], prefixes[kind], error) < 0)
                return -1;
    return 0;
}

static int apply_v2(const struct cgroup *cgroup, const struct resources *r, struct error *error)
{
    const struct cgroup_entry *entry = NULL;
    if (need_entry(cgroup, "", &entry, error) < 0)
        return -1;
    if ((wants_memory(r) && apply_memory_v2(entry, r, error) < 0) || (wants_cpu(r) && apply_cpu_v2(entry, r, error) < 0) ||
        (r->cpus != NULL && *r->cpus != '\0' && write_text(entry, "cpuset.cpus", r->cpus, error) < 0) ||
        (r->mems != NULL && *r->mems != '\0' && write_text(entry, "cpuset.mems", r->mems, error) < 0) ||
        (wants_io(r) && apply_io_v2(entry, r, error) < 0) ||
        (r->unified != NULL && apply_unified(entry, r->unified, error) < 0))
        return -1;
    return 0;
}

int cgroup_apply(const struct cgroup *cgroup, const struct resources *resources, struct error *error)
{
    bool any = wants_memory(resources) || wants_cpu(resources) || wants_io(resources) || resources->cpus != NULL ||
               resources->mems != NULL || resources->unified != NULL;
    if (!any)
        return 0;
    if (cgroup->count == 0)
        return fail(error, ENOTSUP, "apply limits: the container has no cgroup");
    return cgroup->mode == CGROUP_UNIFIED ? apply_v2(cgroup, resources, error) : apply_v1(cgroup, resources, error);
}

int cgroup_apply_pids(const struct cgroup *cgroup, const struct resources *resources, struct error *error)
{
    const struct cgroup_entry *entry = NULL;
    if (!resources->pids_limit.set)
        return 0;
    if (need_entry(cgroup, cgroup->mode == CGROUP_UNIFIED ? "" : "pids", &entry, error) < 0)
        return -1;
    return write_max(entry, "pids.max", resources->pids_limit.value, error);
}

/* ---- devices ---- */

/*
 * The final list: everything denied, then the caller's entries in order, then what every container must have
 * (OCI config-linux.md "Default Devices"), then linux.devices. mknod is allowed for all, for a node alone gives nothing.
 */
static int effective_rules(const struct config *config, struct device_rule **out, size_t *count, struct error *error)
{
    static const struct device_rule standard[] = {
        {true, 'c', -1, -1, false, false, true}, {true, 'b', -1, -1, false, false, true},
        {true, 'c', 1, 3, true, true, true},     {true, 'c', 1, 5, true, true, true},
        {true, 'c', 1, 7, true, true, true},     {true, 'c', 1, 8, true, true, true},
        {true, 'c', 1, 9, true, true, true},     {true, 'c', 5, 0, true, true, true},
        {true, 'c', 5, 1, true, true, true},     {true, 'c', 5, 2, true, true, true},
        {true, 'c', 136, -1, true, true, true},
    };
    const size_t standards = sizeof standard / sizeof *standard;
    const struct resources *r = &config->resources;
    struct device_rule *rules = calloc(1 + r->device_count + standards + config->device_count, sizeof *rules);
    if (rules == NULL)
        return fail(error, ENOMEM, "collect the device rules");
    size_t used = 0;
    rules[used++] = (struct device_rule){false, 'a', -1, -1, true, true, true};
    for (size_t i = 0; i < r->device_count; i++)
        rules[used++] = r->devices[i];
    for (size_t i = 0; i < standards; i++)
        rules[used++] = standard[i];
    for (size_t i = 0; i < config->device_count; i++)
        if (config->devices[i].type != 'p')
            rules[used++] = (struct device_rule){true, config->devices[i].type, config->devices[i].major,
                                                 config->devices[i].minor, true, true, true};
    *out = rules;
    *count = used;
    return 0;
}

static int format_rule(const struct device_rule *rule, char *text, size_t room)
{
    char major[24] = "*", minor[24] = "*";
    if (rule->type == 'a')
        return snprintf(text, room, "a");
    if (rule->major >= 0)
        snprintf(major, sizeof major, "%lld", (long long)rule->major);
    if (rule->minor >= 0)
        snprintf(minor, sizeof minor, "%lld", (long long)rule->minor);
    return snprintf(text, room, "%c %s:%s %s%s%s", rule->type, major, minor, rule->read ? "r" : "",
                    rule->write ? "w" : "", rule->mknod ? "m" : "");
}

static int apply_devices_v1(const struct cgroup_entry *entry, const struct device_rule *rules, size_t count,
                            struct error *error)
{
    cleanup_fd int deny = openat(entry->fd, "devices.deny", O_WRONLY | O_CLOEXEC);
    cleanup_fd int allow = openat(entry->fd, "devices.allow", O_WRONLY | O_CLOEXEC);
    if (deny < 0 || allow < 0)
        return fail(error, errno, "open the device lists of cgroup %s", entry->path);
    for (size_t i = 0; i < count; i++) {
        char text[80];
        int length = format_rule(&rules[i], text, sizeof text);
        if (rules[i].type == 'a' && !(rules[i].read && rules[i].write && rules[i].mknod)) {
            /* The kernel's "a" ignores the access letters, so name both kinds. */
            struct device_rule kinds[2] = {rules[i], rules[i]};
            kinds[0].type = 'c';
            kinds[1].type = 'b';
            if (apply_devices_v1(entry, kinds, 2, error) < 0)
                return -1;
            continue;
        }
        if (TEMP_FAILURE_RETRY(write(rules[i].allow ? allow : deny, text, (size_t)length)) != length)
            return fail(error, errno, "write \"%s\" to %s of cgroup %s", text,
                        rules[i].allow ? "devices.allow" : "devices.deny", entry->path);
    }
    return 0;
}

int cgroup_apply_devices(const struct cgroup *cgroup, const struct config *config, struct error *error)
{
    cleanup_free struct device_rule *rules = NULL;
    size_t count = 0;
    const struct cgroup_entry *v1 = cgroup_entry(cgroup, "devices");
    const struct cgroup_entry *v2 = cgroup->mode == CGROUP_UNIFIED ? cgroup_entry(cgroup, "") : NULL;
    if (v1 == NULL && v2 == NULL)
        return 0;
    if (effective_rules(config, &rules, &count, error) < 0)
        return -1;
    if (v1 != NULL)
        return apply_devices_v1(v1, rules, count, error);
    return device_filter_attach(v2->fd, rules, count, error);
}

/* ---- processes, freezing, signals ---- */

static int add_pids(const char *text, pid_t **pids, size_t *count, struct error *error)
{
    for (const char *at = text; *at != '\0';) {
        char *end = NULL;
        long value = strtol(at, &end, 10);
        if (end == at || value < 0 || value > INT32_MAX)
            return fail(error, EINVAL, "parse a list of process ids");
        if (value > 0) { /* 0: a process of another pid namespace, which we cannot name */
            pid_t *grown = realloc(*pids, (*count + 1) * sizeof **pids);
            if (grown == NULL)
                return fail(error, ENOMEM, "list the processes");
            grown[(*count)++] = (pid_t)value;
            *pids = grown;
        }
        at = end + strspn(end, "\n");
    }
    return 0;
}

// NOLINTNEXTLINE(misc-no-recursion)
static int collect_pids(int dir_fd, int depth, pid_t **pids, size_t *count, struct error *error)
{
    cleanup_free char *text = NULL;
    if (depth > GROUP_DEPTH_MAX)
        return fail(error, ELOOP, "list the processes of cgroups deeper than %d", GROUP_DEPTH_MAX);
    struct error local = {0};
    if (read_file_at(dir_fd, "cgroup.procs", CONTROL_BYTES_MAX, &text, NULL, &local) < 0) {
        if (local.number != ENODEV && local.number != ENOENT && local.number != EOPNOTSUPP) {
            *error = local;
            return -1;
        }
    } else if (add_pids(text, pids, count, error) < 0) {
        return -1;
    }
    int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0)
        return errno == ENOENT ? 0 : fail(error, errno, "open a cgroup");
    DIR *listing = fdopendir(copy);
    if (listing == NULL) {
        close(copy);
        return fail(error, ENOMEM, "list a cgroup");
    }
    int result = 0;
    for (struct dirent *entry = readdir(listing); entry != NULL && result == 0; entry = readdir(listing)) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_fd int below = openat(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            result = collect_pids(below, depth + 1, pids, count, error);
    }
    closedir(listing);
    return result;
}

int cgroup_processes(const struct cgroup *cgroup, pid_t **pids, size_t *count, struct error *error)
{
    const struct cgroup_entry *entry = cgroup_processes_entry(cgroup);
    *pids = NULL;
    *count = 0;
    if (entry == NULL)
        return fail(error, ENOTSUP, "list the processes: the container has no cgroup");
    if (collect_pids(entry->fd, 0, pids, count, error) < 0) {
        free(*pids);
        *pids = NULL;
        return fail_in(error, "cgroup %s", entry->path);
    }
    return 0;
}

static const struct cgroup_entry *freezer_entry(const struct cgroup *cgroup, bool *v2)
{
    const struct cgroup_entry *entry = cgroup_entry(cgroup, "");
    if (entry != NULL && has_file(entry, "cgroup.freeze")) {
        *v2 = true;
        return entry;
    }
    *v2 = false;
    return cgroup_entry(cgroup, "freezer");
}

int cgroup_is_frozen(const struct cgroup *cgroup, bool *frozen, struct error *error)
{
    bool v2;
    cleanup_free char *text = NULL;
    const struct cgroup_entry *entry = freezer_entry(cgroup, &v2);
    *frozen = false;
    if (entry == NULL)
        return 0;
    if (read_file_at(entry->fd, v2 ? "cgroup.freeze" : "freezer.state", CONTROL_BYTES_MAX, &text, NULL, error) < 0)
        return fail_in(error, "cgroup %s", entry->path);
    *frozen = v2 ? text[0] == '1' : strncmp(text, "FR", 2) == 0;
    return 0;
}

/* Waits until the state file tells `wanted`; both freezers work asynchronously. */
static int await_freezer(const struct cgroup_entry *entry, const char *file, const char *wanted, struct error *error)
{
    for (uint64_t end = monotonic_ns() + FREEZE_WAIT_MS * 1000000ull;;) {
        cleanup_free char *text = NULL;
        if (read_file_at(entry->fd, file, CONTROL_BYTES_MAX, &text, NULL, error) < 0)
            return fail_in(error, "cgroup %s", entry->path);
        if (strstr(text, wanted) != NULL)
            return 0;
        if (monotonic_ns() > end)
            return fail(error, ETIMEDOUT, "freeze or thaw cgroup %s", entry->path);
        sleep_us(500);
    }
}

int cgroup_freeze(const struct cgroup *cgroup, bool freeze, struct error *error)
{
    bool v2;
    const struct cgroup_entry *entry = freezer_entry(cgroup, &v2);
    if (entry == NULL)
        return fail(error, ENOTSUP, "freeze the container: it has no freezer cgroup");
    int result;
    if (v2) {
        result = write_control_at(entry->fd, "cgroup.freeze", freeze ? "1" : "0", error) < 0
                     ? -1
                     : await_freezer(entry, "cgroup.events", freeze ? "frozen 1" : "frozen 0", error);
    } else {
        result = write_control_at(entry->fd, "freezer.state", freeze ? "FROZEN" : "THAWED", error) < 0
                     ? -1
                     : await_freezer(entry, "freezer.state", freeze ? "FROZEN" : "THAWED", error);
    }
    if (result < 0 && freeze) {
        /* A half frozen group would hang whoever waits for its processes. */
        struct error ignored;
        (void)write_control_at(entry->fd, v2 ? "cgroup.freeze" : "freezer.state", v2 ? "0" : "THAWED", &ignored);
    }
    return result;
}

int cgroup_signal(const struct cgroup *cgroup, int signal, struct error *error)
{
    const struct cgroup_entry *unified = cgroup_entry(cgroup, "");
    struct error ignored;
    if (signal == SIGKILL && unified != NULL && has_file(unified, "cgroup.kill")) {
        int result = write_control_at(unified->fd, "cgroup.kill", "1", error);
        /* A v1 freezer holds back even SIGKILL. */
        const struct cgroup_entry *freezer = cgroup_entry(cgroup, "freezer");
        if (freezer != NULL)
            (void)write_control_at(freezer->fd, "freezer.state", "THAWED", &ignored);
        return result;
    }
    bool was_frozen = false;
    (void)cgroup_is_frozen(cgroup, &was_frozen, &ignored);
    /* Frozen, no process can fork away between the listing and the signal. Without a freezer, repeat instead. */
    bool froze = !was_frozen && cgroup_freeze(cgroup, true, &ignored) == 0;
    pid_t *pids = NULL;
    size_t count = 0;
    int result = cgroup_processes(cgroup, &pids, &count, error);
    for (size_t i = 0; result == 0 && i < count; i++)
        if (kill(pids[i], signal) < 0 && errno != ESRCH)
            result = fail(error, errno, "send signal %d to process %d", signal, (int)pids[i]);
    free(pids);
    if ((froze || (was_frozen && signal == SIGKILL)) && cgroup_freeze(cgroup, false, &ignored) < 0 && result == 0) {
        *error = ignored;
        result = -1;
    }
    return result;
}

/* ---- removal ---- */

// NOLINTNEXTLINE(misc-no-recursion)
static void remove_below(int dir_fd, int depth)
{
    int copy = depth > GROUP_DEPTH_MAX ? -1 : openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL) {
        if (copy >= 0)
            close(copy);
        return;
    }
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        cleanup_fd int below = openat(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            remove_below(below, depth + 1);
        (void)unlinkat(dir_fd, entry->d_name, AT_REMOVEDIR); /* the caller's own rmdir tells when this failed */
    }
    closedir(listing);
}

static int remove_entry(struct cgroup_entry *entry, struct error *error)
{
    if (entry->created == 0)
        return 0; /* it was there before the container: not ours to remove */
    uint64_t end = monotonic_ns() + REMOVE_WAIT_MS * 1000000ull;
    for (unsigned pause_us = 100; rmdir(entry->path) < 0 && errno != ENOENT;) {
        if (errno != EBUSY && errno != ENOTEMPTY)
            return fail(error, errno, "remove cgroup %s", entry->path);
        if (monotonic_ns() > end)
            return fail(error, EBUSY, "remove cgroup %s", entry->path);
        cleanup_fd int fd = open(entry->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0)
            remove_below(fd, 0);
        /* The kernel lets go of a dead process a moment after it was reaped. */
        sleep_us(pause_us);
        if (pause_us < 10000)
            pause_us *= 2;
    }
    cleanup_free char *parent = strdup(entry->path);
    for (unsigned level = 1; parent != NULL && level < entry->created; level++) {
        char *slash = strrchr(parent, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
        if (rmdir(parent) < 0) /* other containers stand below it */
            break;
    }
    entry->created = 0;
    return 0;
}

int cgroup_remove(struct cgroup *cgroup, struct error *error)
{
    int result = 0;
    for (size_t i = 0; i < cgroup->count; i++) {
        struct cgroup_entry *entry = &cgroup->entries[i];
        close_fd(&entry->fd);
        close_fd(&entry->join_fd);
        struct error each;
        if (entry->path != NULL && remove_entry(entry, &each) < 0 && result == 0) {
            *error = each;
            result = -1;
        }
    }
    return result;
}

/* ---- reading and state ---- */

int cgroup_read_text(const struct cgroup_entry *entry, const char *file, char **out, struct error *error)
{
    return read_file_at(entry->fd, file, CONTROL_BYTES_MAX, out, NULL, error);
}

int cgroup_read_number(const struct cgroup_entry *entry, const char *file, unsigned long long *out, struct error *error)
{
    cleanup_free char *text = NULL;
    if (cgroup_read_text(entry, file, &text, error) < 0)
        return -1;
    if (strncmp(text, "max", 3) == 0) {
        *out = UINT64_MAX;
        return 0;
    }
    char *end = NULL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (end == text || errno != 0)
        return fail(error, EINVAL, "read a number from %s of cgroup %s", file, entry->path);
    return 0;
}

int cgroup_to_json(const struct cgroup *cgroup, struct json_object **out, struct error *error)
{
    cleanup_json struct json_object *array = json_object_new_array();
    if (array == NULL)
        return fail(error, ENOMEM, "write the cgroups");
    for (size_t i = 0; i < cgroup->count; i++) {
        const struct cgroup_entry *entry = &cgroup->entries[i];
        struct json_object *object = json_object_new_object();
        if (object == NULL || json_object_array_add(array, object) < 0) {
            json_object_put(object);
            return fail(error, ENOMEM, "write the cgroups");
        }
        if (json_add(object, "v2", json_object_new_boolean(entry->v2), error) < 0 ||
            json_add(object, "controllers", json_object_new_string(entry->controllers), error) < 0 ||
            json_add(object, "mount", json_object_new_string(entry->mount), error) < 0 ||
            json_add(object, "path", json_object_new_string(entry->path), error) < 0 ||
            json_add(object, "created", json_object_new_int((int)entry->created), error) < 0)
            return -1;
    }
    *out = array;
    array = NULL;
    return 0;
}

int cgroup_from_json(struct json_object *array, struct cgroup *cgroup, struct error *error)
{
    memset(cgroup, 0, sizeof *cgroup);
    if (!json_object_is_type(array, json_type_array) || json_object_array_length(array) > CGROUP_HIERARCHIES_MAX)
        return fail(error, EINVAL, "read the cgroups of the state");
    bool v1 = false, v2 = false;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *object = json_object_array_get_idx(array, i);
        struct cgroup_entry *entry = &cgroup->entries[cgroup->count];
        const char *controllers = NULL, *mount = NULL, *path = NULL;
        int64_t created = 0;
        *entry = (struct cgroup_entry){.fd = -1, .join_fd = -1};
        if (json_get_bool(object, "v2", &entry->v2, error) < 0 ||
            json_get_string(object, "controllers", &controllers, error) < 0 ||
            json_get_string(object, "mount", &mount, error) < 0 || json_get_string(object, "path", &path, error) < 0 ||
            json_get_int(object, "created", 0, PATH_MAX, &created, NULL, error) < 0)
            return -1;
        if (controllers == NULL || mount == NULL || path == NULL || *path != '/')
            return fail(error, EINVAL, "read the cgroups of the state");
        entry->created = (unsigned)created;
        entry->controllers = strdup(controllers);
        entry->mount = strdup(mount);
        entry->path = strdup(path);
        cgroup->count++;
        if (entry->controllers == NULL || entry->mount == NULL || entry->path == NULL)
            return fail(error, ENOMEM, "read the cgroups of the state");
        v1 = v1 || !entry->v2;
        v2 = v2 || entry->v2;
    }
    cgroup->mode = v1 && v2 ? CGROUP_HYBRID : v1 ? CGROUP_LEGACY : v2 ? CGROUP_UNIFIED : CGROUP_NONE;
    return 0;
}

void cgroup_close(struct cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->count; i++) {
        close_fd(&cgroup->entries[i].fd);
        close_fd(&cgroup->entries[i].join_fd);
    }
}

void cgroup_free(struct cgroup *cgroup)
{
    cgroup_close(cgroup);
    for (size_t i = 0; i < cgroup->count; i++) {
        free(cgroup->entries[i].controllers);
        free(cgroup->entries[i].mount);
        free(cgroup->entries[i].path);
    }
    memset(cgroup, 0, sizeof *cgroup);
}
