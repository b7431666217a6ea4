#include "isolate/config.h"
#include "common/fd.h"
#include "common/json.h"
#include "isolate/log.h"
#include "isolate/seccomp.h"
#include "isolate/sysctl.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* linux/sched.h has it, and cannot be included beside sched.h. */
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

int container_id_check(const char *id, struct error *error)
{
    size_t length = id == NULL ? 0 : strlen(id);
    if (length == 0)
        return fail(error, EINVAL, "container id is missing");
    if (length > 1024)
        return fail(error, EINVAL, "container id of %zu bytes: at most 1024 are accepted", length);
    for (size_t i = 0; i < length; i++) {
        char c = id[i];
        bool valid = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '+' ||
                     c == '.' || c == '-';
        if (!valid)
            return fail(error, EINVAL, "container id \"%.64s\" may hold only letters, digits and _+.-", id);
    }
    if (strcmp(id, ".") == 0 || strncmp(id, "..", 2) == 0)
        return fail(error, EINVAL, "container id \"%.64s\" is a path, not a name", id);
    return 0;
}

/* SemVer 2.0.0: three numbers without leading zeros, then -pre and +build of letters, digits, dots and hyphens. */
static int check_version(const char *version, struct error *error)
{
    const char *at = version;
    for (int part = 0; part < 3; part++) {
        size_t digits = strspn(at, "0123456789");
        if (digits == 0 || digits > 9 || (digits > 1 && *at == '0'))
            return fail(error, EINVAL, "ociVersion \"%.64s\" is not a semantic version", version);
        if (part == 0 && (digits != 1 || *at != '1'))
            return fail(error, EINVAL, "ociVersion \"%.64s\" is not supported: this runtime implements 1.x", version);
        at += digits;
        if (part < 2 && *at++ != '.')
            return fail(error, EINVAL, "ociVersion \"%.64s\" is not a semantic version", version);
    }
    if (*at == '-' || *at == '+') {
        static const char rest[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-+";
        if (at[1] == '\0' || strspn(at, rest) != strlen(at))
            return fail(error, EINVAL, "ociVersion \"%.64s\" is not a semantic version", version);
    } else if (*at != '\0') {
        return fail(error, EINVAL, "ociVersion \"%.64s\" is not a semantic version", version);
    }
    return 0;
}

static bool is_empty(struct json_object *value)
{
    if (value == NULL)
        return true;
    if (json_object_is_type(value, json_type_object))
        return json_object_object_length(value) == 0;
    if (json_object_is_type(value, json_type_array))
        return json_object_array_length(value) == 0;
    return json_object_is_type(value, json_type_string) && json_object_get_string_len(value) == 0;
}

/* Properties that we know and do not implement: an error by name, for a container must not start with less than asked. */
static int refuse(struct json_object *object, const char *const *keys, const char *where, struct error *error)
{
    for (; *keys != NULL; keys++)
        if (!is_empty(json_get(object, *keys)))
            return fail(error, ENOTSUP, "%s%s is not supported by this runtime", where, *keys);
    return 0;
}

/* ---- process ---- */

static const struct {
    const char *name;
    int resource;
} rlimit_names[] = {
    {"RLIMIT_AS", RLIMIT_AS},
    {"RLIMIT_CORE", RLIMIT_CORE},
    {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},
    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
    {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
    {"RLIMIT_NPROC", RLIMIT_NPROC},
    {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
};

static int parse_rlimits(struct json_object *json, struct process_config *process, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(json, "rlimits", &array, RLIM_NLIMITS, error) < 0)
        return -1;
    for (size_t i = 0; array != NULL && i < json_object_array_length(array); i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        const char *type = NULL;
        uint64_t soft = 0, hard = 0;
        if (json_required(entry, "type", error) < 0 || json_get_string(entry, "type", &type, error) < 0 ||
            json_required(entry, "soft", error) < 0 || json_required(entry, "hard", error) < 0 ||
            json_get_uint(entry, "soft", UINT64_MAX, &soft, NULL, error) < 0 ||
            json_get_uint(entry, "hard", UINT64_MAX, &hard, NULL, error) < 0)
            return fail_in(error, "process.rlimits[%zu]", i);
        int resource = -1;
        for (size_t k = 0; k < sizeof rlimit_names / sizeof *rlimit_names; k++)
            if (strcmp(type, rlimit_names[k].name) == 0)
                resource = rlimit_names[k].resource;
        if (resource < 0)
            return fail(error, EINVAL, "process.rlimits[%zu]: \"%s\" is not a resource of getrlimit(2)", i, type);
        if (soft > hard)
            return fail(error, EINVAL, "process.rlimits[%zu]: soft limit of %s is above the hard one", i, type);
        for (size_t k = 0; k < process->rlimit_count; k++)
            if (process->rlimits[k].resource == resource)
                return fail(error, EINVAL, "process.rlimits has %s twice", type);
        process->rlimits[process->rlimit_count++] =
            (struct rlimit_config){resource, {.rlim_cur = (rlim_t)soft, .rlim_max = (rlim_t)hard}};
    }
    return 0;
}

static int parse_user(struct json_object *json, struct process_config *process, struct error *error)
{
    struct json_object *user = NULL, *groups = NULL;
    uint64_t uid = 0, gid = 0, umask_bits = 0;
    /* (uid_t)-1 means "no change" to setresuid(2), so it is not an id. */
    if (json_get_object(json, "user", &user, error) < 0 || json_get_uint(user, "uid", UINT32_MAX - 1, &uid, NULL, error) < 0 ||
        json_get_uint(user, "gid", UINT32_MAX - 1, &gid, NULL, error) < 0 ||
        json_get_uint(user, "umask", 0777, &umask_bits, &process->has_umask, error) < 0 ||
        json_get_array(user, "additionalGids", &groups, GROUPS_MAX, error) < 0)
        return fail_in(error, "process.user");
    process->uid = (uid_t)uid;
    process->gid = (gid_t)gid;
    process->umask = (mode_t)umask_bits;
    size_t count = groups == NULL ? 0 : json_object_array_length(groups);
    if (count > 0) {
        process->groups = calloc(count, sizeof *process->groups);
        if (process->groups == NULL)
            return fail(error, ENOMEM, "read process.user.additionalGids");
    }
    for (size_t i = 0; i < count; i++) {
        struct json_object *group = json_object_array_get_idx(groups, i);
        if (!json_object_is_type(group, json_type_int) || json_object_get_int64(group) < 0 ||
            json_object_get_int64(group) > UINT32_MAX - 1)
            return fail(error, EINVAL, "process.user.additionalGids[%zu] must be a group id", i);
        process->groups[process->group_count++] = (gid_t)json_object_get_int64(group);
    }
    return 0;
}

int process_config_parse(struct json_object *json, struct process_config *process, struct error *error)
{
    static const char *const unsupported[] = {"scheduler", "ioPriority", "execCPUAffinity", NULL};
    struct json_object *console = NULL, *capabilities = NULL;
    uint64_t height = 0, width = 0;
    int64_t score = 0;
    size_t arg_count = 0;
    memset(process, 0, sizeof *process);
    process->json = json;
    if (refuse(json, unsupported, "process.", error) < 0 ||
        json_get_bool(json, "terminal", &process->terminal, error) < 0 ||
        json_get_object(json, "consoleSize", &console, error) < 0 ||
        json_get_uint(console, "height", USHRT_MAX, &height, NULL, error) < 0 ||
        json_get_uint(console, "width", USHRT_MAX, &width, NULL, error) < 0 ||
        json_get_string(json, "cwd", &process->cwd, error) < 0 ||
        json_get_strings(json, "args", &process->args, &arg_count, ARGS_MAX, error) < 0 ||
        json_get_strings(json, "env", &process->env, &process->env_count, ARGS_MAX, error) < 0 ||
        parse_user(json, process, error) < 0 || parse_rlimits(json, process, error) < 0 ||
        json_get_object(json, "capabilities", &capabilities, error) < 0 ||
        json_get_bool(json, "noNewPrivileges", &process->no_new_privileges, error) < 0 ||
        json_get_int(json, "oomScoreAdj", -1000, 1000, &score, &process->has_oom_score_adj, error) < 0 ||
        json_get_string(json, "apparmorProfile", &process->apparmor, error) < 0 ||
        json_get_string(json, "selinuxLabel", &process->selinux, error) < 0)
        goto failed;
    if (capabilities != NULL) {
        process->has_capabilities = true;
        if (capabilities_parse(capabilities, &process->capabilities, error) < 0)
            goto failed;
    }
    process->height = (unsigned short)height;
    process->width = (unsigned short)width;
    process->oom_score_adj = (int)score;
    if (process->args != NULL && arg_count == 0) {
        fail(error, EINVAL, "process.args must hold at least one entry");
        goto failed;
    }
    if (process->cwd == NULL || process->cwd[0] != '/') {
        fail(error, EINVAL, "process.cwd must be an absolute path");
        goto failed;
    }
    if (process->apparmor != NULL && *process->apparmor == '\0')
        process->apparmor = NULL;
    if (process->selinux != NULL && *process->selinux == '\0')
        process->selinux = NULL;
    return 0;
failed:
    process_config_free(process);
    return -1;
}

void process_config_free(struct process_config *process)
{
    free(process->args);
    free(process->env);
    free(process->groups);
    process->args = process->env = NULL;
    process->groups = NULL;
}

/* ---- mounts ---- */

static int parse_mount(struct json_object *entry, struct mount_config *mount, struct error *error)
{
    cleanup_free const char **options = NULL;
    size_t count = 0;
    if (json_required(entry, "destination", error) < 0 ||
        json_get_string(entry, "destination", &mount->destination, error) < 0 ||
        json_get_string(entry, "source", &mount->source, error) < 0 ||
        json_get_string(entry, "type", &mount->type, error) < 0 ||
        json_get_strings(entry, "options", &options, &count, 1024, error) < 0 ||
        mount_options_parse(options, count, &mount->options, error) < 0 ||
        id_map_parse(entry, "uidMappings", &mount->uids, error) < 0 ||
        id_map_parse(entry, "gidMappings", &mount->gids, error) < 0)
        return -1;
    if (*mount->destination == '\0')
        return fail(error, EINVAL, "destination is empty");
    if (mount->type != NULL && (strcmp(mount->type, "bind") == 0 || strcmp(mount->type, "rbind") == 0)) {
        /* Callers write the type of a bind mount in all three ways. */
        mount->options.bind = true;
        if (strcmp(mount->type, "rbind") == 0)
            mount->options.bind_recursive = true;
    }
    if (mount->options.bind && !mount->options.remount && (mount->source == NULL || *mount->source == '\0'))
        return fail(error, EINVAL, "a bind mount needs a source");
    if (!mount->options.bind && !mount->options.remount && (mount->type == NULL || *mount->type == '\0'))
        return fail(error, EINVAL, "a mount that is no bind mount needs a type");
    if ((mount->uids.count > 0) != (mount->gids.count > 0))
        return fail(error, EINVAL, "uidMappings and gidMappings must be given together");
    if (mount->uids.count > 0)
        mount->options.idmap = true;
    if (mount->options.idmap && !mount->options.bind)
        return fail(error, ENOTSUP, "id mappings are supported for bind mounts only");
    return 0;
}

static int parse_mounts(struct json_object *json, struct config *config, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(json, "mounts", &array, MOUNTS_MAX, error) < 0)
        return -1;
    if (array == NULL)
        return 0;
    size_t count = json_object_array_length(array);
    config->mounts = calloc(count + 1, sizeof *config->mounts);
    if (config->mounts == NULL)
        return fail(error, ENOMEM, "read mounts");
    for (size_t i = 0; i < count; i++) {
        config->mount_count = i + 1; /* also of a half-read one, which is freed with the rest */
        if (parse_mount(json_object_array_get_idx(array, i), &config->mounts[i], error) < 0)
            return fail_in(error, "mounts[%zu]", i);
    }
    return 0;
}

/* ---- namespaces ---- */

static const struct {
    const char *name;
    int flag;
} namespace_names[] = {
    {"pid", CLONE_NEWPID},   {"network", CLONE_NEWNET}, {"mount", CLONE_NEWNS},      {"ipc", CLONE_NEWIPC},
    {"uts", CLONE_NEWUTS},   {"user", CLONE_NEWUSER},   {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME},
};

const struct namespace_config *config_namespace(const struct config *config, int flag)
{
    for (size_t i = 0; i < config->namespace_count; i++)
        if (config->namespaces[i].flag == flag)
            return &config->namespaces[i];
    return NULL;
}

bool config_has_new_namespace(const struct config *config, int flag)
{
    const struct namespace_config *found = config_namespace(config, flag);
    return found != NULL && found->path == NULL;
}

static int parse_namespaces(struct json_object *linux_json, struct config *config, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(linux_json, "namespaces", &array, 64, error) < 0)
        return -1;
    for (size_t i = 0; array != NULL && i < json_object_array_length(array); i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        const char *type = NULL, *path = NULL;
        int flag = 0;
        if (json_required(entry, "type", error) < 0 || json_get_string(entry, "type", &type, error) < 0 ||
            json_get_string(entry, "path", &path, error) < 0)
            return fail_in(error, "linux.namespaces[%zu]", i);
        for (size_t k = 0; k < NAMESPACE_KINDS; k++)
            if (strcmp(type, namespace_names[k].name) == 0)
                flag = namespace_names[k].flag;
        if (flag == 0)
            return fail(error, EINVAL, "linux.namespaces[%zu]: type \"%s\" is not known", i, type);
        if (config_namespace(config, flag) != NULL)
            return fail(error, EINVAL, "linux.namespaces has type \"%s\" twice", type);
        if (path != NULL && *path == '\0')
            path = NULL;
        if (path != NULL && *path != '/')
            return fail(error, EINVAL, "linux.namespaces[%zu]: path \"%s\" must be absolute", i, path);
        config->namespaces[config->namespace_count++] = (struct namespace_config){flag, path};
    }
    return 0;
}

static int parse_time_offset(struct json_object *offsets, const char *clock, struct time_offset *out,
                             struct error *error)
{
    struct json_object *entry = NULL;
    uint64_t nanoseconds = 0;
    if (json_get_object(offsets, clock, &entry, error) < 0)
        return -1;
    if (entry == NULL)
        return 0;
    out->set = true;
    if (json_get_int(entry, "secs", INT64_MIN, INT64_MAX, &out->seconds, NULL, error) < 0 ||
        json_get_uint(entry, "nanosecs", 999999999, &nanoseconds, NULL, error) < 0)
        return fail_in(error, "linux.timeOffsets.%s", clock);
    out->nanoseconds = (uint32_t)nanoseconds;
    return 0;
}

static int parse_time_offsets(struct json_object *linux_json, struct config *config, struct error *error)
{
    struct json_object *offsets = NULL;
    if (json_get_object(linux_json, "timeOffsets", &offsets, error) < 0)
        return -1;
    if (is_empty(offsets))
        return 0;
    json_object_object_foreach(offsets, clock, value) {
        (void)value;
        if (strcmp(clock, "monotonic") != 0 && strcmp(clock, "boottime") != 0)
            return fail(error, EINVAL, "linux.timeOffsets: clock \"%s\" is not known", clock);
    }
    if (parse_time_offset(offsets, "monotonic", &config->monotonic, error) < 0 ||
        parse_time_offset(offsets, "boottime", &config->boottime, error) < 0)
        return -1;
    if (!config_has_new_namespace(config, CLONE_NEWTIME))
        return fail(error, EINVAL, "linux.timeOffsets needs a new time namespace");
    return 0;
}

/* ---- devices ---- */

static int parse_device(struct json_object *entry, struct device_node *node, struct error *error)
{
    const char *type = NULL;
    uint64_t mode = 0666, uid = 0, gid = 0;
    int64_t major = 0, minor = 0;
    bool has_major = false, has_minor = false;
    if (json_required(entry, "type", error) < 0 || json_get_string(entry, "type", &type, error) < 0 ||
        json_required(entry, "path", error) < 0 || json_get_string(entry, "path", &node->path, error) < 0 ||
        json_get_int(entry, "major", 0, 0xfff, &major, &has_major, error) < 0 ||
        json_get_int(entry, "minor", 0, 0xfffff, &minor, &has_minor, error) < 0 ||
        json_get_uint(entry, "fileMode", UINT32_MAX, &mode, NULL, error) < 0 ||
        json_get_uint(entry, "uid", UINT32_MAX - 1, &uid, NULL, error) < 0 ||
        json_get_uint(entry, "gid", UINT32_MAX - 1, &gid, NULL, error) < 0)
        return -1;
    if (strlen(type) != 1 || strchr("cbup", *type) == NULL)
        return fail(error, EINVAL, "type \"%s\" must be one of c, b, u, p", type);
    if (*type != 'p' && !(has_major && has_minor))
        return fail(error, EINVAL, "major and minor are required for type %s", type);
    if (node->path[0] != '/')
        return fail(error, EINVAL, "path \"%s\" must be absolute", node->path);
    node->type = *type == 'u' ? 'c' : *type;
    node->major = (unsigned)major;
    node->minor = (unsigned)minor;
    node->mode = (mode_t)(mode & 07777); /* some callers send the whole st_mode */
    node->uid = (uid_t)uid;
    node->gid = (gid_t)gid;
    return 0;
}

static int parse_devices(struct json_object *linux_json, struct config *config, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(linux_json, "devices", &array, DEVICES_MAX, error) < 0)
        return -1;
    size_t count = array == NULL ? 0 : json_object_array_length(array);
    config->devices = calloc(count + 1, sizeof *config->devices);
    if (config->devices == NULL)
        return fail(error, ENOMEM, "read linux.devices");
    for (size_t i = 0; i < count; i++) {
        if (parse_device(json_object_array_get_idx(array, i), &config->devices[i], error) < 0)
            return fail_in(error, "linux.devices[%zu]", i);
        config->device_count = i + 1;
    }
    return 0;
}

/* ---- resources ---- */

static int get_optional(struct json_object *object, const char *key, int64_t min, int64_t max, struct optional_int *out,
                        struct error *error)
{
    return json_get_int(object, key, min, max, &out->value, &out->set, error);
}

static int parse_device_rules(struct json_object *json, struct resources *resources, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(json, "devices", &array, DEVICES_MAX, error) < 0)
        return -1;
    size_t count = array == NULL ? 0 : json_object_array_length(array);
    resources->devices = calloc(count + 1, sizeof *resources->devices);
    if (resources->devices == NULL)
        return fail(error, ENOMEM, "read resources.devices");
    for (size_t i = 0; i < count; i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        struct device_rule *rule = &resources->devices[i];
        const char *type = "a", *access = "rwm";
        rule->major = rule->minor = -1;
        if (json_required(entry, "allow", error) < 0 || json_get_bool(entry, "allow", &rule->allow, error) < 0 ||
            json_get_string(entry, "type", &type, error) < 0 || json_get_string(entry, "access", &access, error) < 0 ||
            json_get_int(entry, "major", -1, 0xfff, &rule->major, NULL, error) < 0 ||
            json_get_int(entry, "minor", -1, 0xfffff, &rule->minor, NULL, error) < 0)
            return fail_in(error, "resources.devices[%zu]", i);
        if (*type == '\0')
            type = "a";
        if (*access == '\0')
            access = "rwm";
        if (strlen(type) != 1 || strchr("acb", *type) == NULL)
            return fail(error, EINVAL, "resources.devices[%zu]: type \"%s\" must be one of a, c, b", i, type);
        if (strspn(access, "rwm") != strlen(access) || strlen(access) > 3)
            return fail(error, EINVAL, "resources.devices[%zu]: access \"%s\" may hold only r, w and m", i, access);
        rule->type = *type;
        rule->read = strchr(access, 'r') != NULL;
        rule->write = strchr(access, 'w') != NULL;
        rule->mknod = strchr(access, 'm') != NULL;
        resources->device_count = i + 1;
    }
    return 0;
}

static int parse_rates(struct json_object *io, const char *key, const char *value_key, uint64_t max, bool optional_value,
                       struct device_rate **out, size_t *out_count, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(io, key, &array, DEVICES_MAX, error) < 0)
        return -1;
    size_t count = array == NULL ? 0 : json_object_array_length(array);
    *out = calloc(count + 1, sizeof **out);
    if (*out == NULL)
        return fail(error, ENOMEM, "read resources.blockIO.%s", key);
    for (size_t i = 0; i < count; i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        int64_t major = 0, minor = 0;
        uint64_t value = 0;
        bool set = false;
        if (json_required(entry, "major", error) < 0 || json_required(entry, "minor", error) < 0 ||
            json_get_int(entry, "major", 0, 0xfff, &major, NULL, error) < 0 ||
            json_get_int(entry, "minor", 0, 0xfffff, &minor, NULL, error) < 0 ||
            json_get_uint(entry, value_key, max, &value, &set, error) < 0)
            return fail_in(error, "resources.blockIO.%s[%zu]", key, i);
        if (!set && !optional_value)
            return fail(error, EINVAL, "resources.blockIO.%s[%zu]: %s is required", key, i, value_key);
        if (set)
            (*out)[(*out_count)++] = (struct device_rate){(unsigned)major, (unsigned)minor, value};
    }
    return 0;
}

static int parse_block_io(struct json_object *json, struct resources *resources, struct error *error)
{
    static const char *const throttle_keys[THROTTLES] = {"throttleReadBpsDevice", "throttleWriteBpsDevice",
                                                         "throttleReadIOPSDevice", "throttleWriteIOPSDevice"};
    struct json_object *io = NULL, *weights = NULL;
    if (json_get_object(json, "blockIO", &io, error) < 0 ||
        get_optional(io, "weight", 0, UINT16_MAX, &resources->io_weight, error) < 0 ||
        get_optional(io, "leafWeight", 0, UINT16_MAX, &resources->io_leaf_weight, error) < 0 ||
        parse_rates(io, "weightDevice", "weight", UINT16_MAX, true, &resources->io_weights,
                    &resources->io_weight_count, error) < 0 ||
        parse_rates(io, "weightDevice", "leafWeight", UINT16_MAX, true, &resources->io_leaf_weights,
                    &resources->io_leaf_weight_count, error) < 0 ||
        json_get_array(io, "weightDevice", &weights, DEVICES_MAX, error) < 0)
        return -1;
    for (size_t i = 0; weights != NULL && i < json_object_array_length(weights); i++) {
        struct json_object *entry = json_object_array_get_idx(weights, i);
        if (json_get(entry, "weight") == NULL && json_get(entry, "leafWeight") == NULL)
            return fail(error, EINVAL, "resources.blockIO.weightDevice[%zu]: weight or leafWeight is required", i);
    }
    for (size_t i = 0; i < THROTTLES; i++)
        if (parse_rates(io, throttle_keys[i], "rate", UINT64_MAX, false, &resources->throttles[i],
                        &resources->throttle_counts[i], error) < 0)
            return -1;
    return 0;
}

static int parse_unified(struct json_object *json, struct resources *resources, struct error *error)
{
    struct json_object *unified = NULL;
    if (json_get_object(json, "unified", &unified, error) < 0)
        return -1;
    if (is_empty(unified))
        return 0;
    json_object_object_foreach(unified, file, value) {
        /* A key is one file of the cgroup, never a path out of it. */
        if (*file == '\0' || strchr(file, '/') != NULL || strchr(file, '.') == NULL || *file == '.')
            return fail(error, EINVAL, "resources.unified: \"%s\" is not the name of a cgroup file", file);
        if (!json_object_is_type(value, json_type_string))
            return fail(error, EINVAL, "resources.unified: value of \"%s\" must be a string", file);
    }
    resources->unified = unified;
    return 0;
}

/* cgroups cpuset lists: digits, commas and hyphens, so that nothing else reaches the kernel's file. */
static int check_cpu_list(const char *list, const char *key, struct error *error)
{
    if (list != NULL && (strlen(list) > 4096 || strspn(list, "0123456789,-") != strlen(list)))
        return fail(error, EINVAL, "resources.cpu.%s: \"%.64s\" is not a list such as 0-3,7", key, list);
    return 0;
}

int resources_parse(struct json_object *json, struct resources *resources, struct error *error)
{
    static const char *const unsupported[] = {"hugepageLimits", "rdma", "network", NULL};
    struct json_object *memory = NULL, *cpu = NULL, *pids = NULL;
    const int64_t max = INT64_MAX;
    memset(resources, 0, sizeof *resources);
    if (refuse(json, unsupported, "linux.resources.", error) < 0 || parse_device_rules(json, resources, error) < 0 ||
        json_get_object(json, "memory", &memory, error) < 0 ||
        get_optional(memory, "limit", -1, max, &resources->memory_limit, error) < 0 ||
        get_optional(memory, "reservation", -1, max, &resources->memory_reservation, error) < 0 ||
        get_optional(memory, "swap", -1, max, &resources->memory_swap, error) < 0 ||
        get_optional(memory, "kernel", -1, max, &resources->memory_kernel, error) < 0 ||
        get_optional(memory, "kernelTCP", -1, max, &resources->memory_kernel_tcp, error) < 0 ||
        get_optional(memory, "swappiness", 0, 100, &resources->swappiness, error) < 0 ||
        json_get_bool(memory, "disableOOMKiller", &resources->disable_oom_killer, error) < 0 ||
        json_get_bool(memory, "checkBeforeUpdate", &resources->check_before_update, error) < 0 ||
        json_get_object(json, "cpu", &cpu, error) < 0 ||
        get_optional(cpu, "shares", 0, max, &resources->cpu_shares, error) < 0 ||
        get_optional(cpu, "quota", INT64_MIN, max, &resources->cpu_quota, error) < 0 ||
        get_optional(cpu, "burst", 0, max, &resources->cpu_burst, error) < 0 ||
        get_optional(cpu, "period", 0, max, &resources->cpu_period, error) < 0 ||
        get_optional(cpu, "realtimeRuntime", INT64_MIN, max, &resources->cpu_rt_runtime, error) < 0 ||
        get_optional(cpu, "realtimePeriod", 0, max, &resources->cpu_rt_period, error) < 0 ||
        get_optional(cpu, "idle", 0, 1, &resources->cpu_idle, error) < 0 ||
        json_get_string(cpu, "cpus", &resources->cpus, error) < 0 ||
        json_get_string(cpu, "mems", &resources->mems, error) < 0 ||
        check_cpu_list(resources->cpus, "cpus", error) < 0 || check_cpu_list(resources->mems, "mems", error) < 0 ||
        json_get_object(json, "pids", &pids, error) < 0 ||
        get_optional(pids, "limit", -1, max, &resources->pids_limit, error) < 0 ||
        parse_block_io(json, resources, error) < 0 || parse_unified(json, resources, error) < 0)
        goto failed;
    if (resources->cpu_burst.set && resources->cpu_quota.set && resources->cpu_quota.value > 0 &&
        resources->cpu_burst.value > resources->cpu_quota.value) {
        fail(error, EINVAL, "resources.cpu.burst must not be above quota");
        goto failed;
    }
    if (resources->memory_swap.set && resources->memory_swap.value > 0 && resources->memory_limit.set &&
        resources->memory_limit.value > resources->memory_swap.value) {
        fail(error, EINVAL, "resources.memory.swap counts memory too and must not be below limit");
        goto failed;
    }
    return 0;
failed:
    resources_free(resources);
    return -1;
}

void resources_free(struct resources *resources)
{
    free(resources->devices);
    free(resources->io_weights);
    free(resources->io_leaf_weights);
    for (size_t i = 0; i < THROTTLES; i++)
        free(resources->throttles[i]);
    memset(resources, 0, sizeof *resources);
}

/* ---- hooks ---- */

static const char *const hook_names[HOOK_KINDS] = {"prestart",       "createRuntime", "createContainer",
                                                   "startContainer", "poststart",     "poststop"};

static int parse_hook(struct json_object *entry, struct hook *hook, struct error *error)
{
    int64_t timeout = 0;
    bool has_timeout = false;
    if (json_required(entry, "path", error) < 0 || json_get_string(entry, "path", &hook->path, error) < 0 ||
        json_get_strings(entry, "args", &hook->args, NULL, ARGS_MAX, error) < 0 ||
        json_get_strings(entry, "env", &hook->env, NULL, ARGS_MAX, error) < 0 ||
        json_get_int(entry, "timeout", 1, INT32_MAX / 1000, &timeout, &has_timeout, error) < 0)
        return -1;
    if (hook->path[0] != '/')
        return fail(error, EINVAL, "path \"%s\" must be absolute", hook->path);
    hook->timeout_seconds = has_timeout ? (int)timeout : 0;
    return 0;
}

static int parse_hooks(struct json_object *json, struct config *config, struct error *error)
{
    struct json_object *hooks = NULL;
    if (json_get_object(json, "hooks", &hooks, error) < 0)
        return -1;
    for (int kind = 0; kind < HOOK_KINDS; kind++) {
        struct json_object *array = NULL;
        struct hook_list *list = &config->hooks[kind];
        if (json_get_array(hooks, hook_names[kind], &array, HOOKS_MAX, error) < 0)
            return fail_in(error, "hooks");
        size_t count = array == NULL ? 0 : json_object_array_length(array);
        if (count == 0)
            continue;
        list->hooks = calloc(count, sizeof *list->hooks);
        if (list->hooks == NULL)
            return fail(error, ENOMEM, "read hooks");
        for (size_t i = 0; i < count; i++) {
            list->count = i + 1;
            if (parse_hook(json_object_array_get_idx(array, i), &list->hooks[i], error) < 0)
                return fail_in(error, "hooks.%s[%zu]", hook_names[kind], i);
        }
    }
    return 0;
}

/* ---- the rest of linux ---- */

static int parse_paths(struct json_object *linux_json, const char *key, const char ***out, struct error *error)
{
    if (json_get_strings(linux_json, key, out, NULL, PATHS_MAX, error) < 0)
        return -1;
    for (size_t i = 0; *out != NULL && (*out)[i] != NULL; i++)
        if ((*out)[i][0] != '/')
            return fail(error, EINVAL, "linux.%s[%zu] \"%s\" must be absolute", key, i, (*out)[i]);
    return 0;
}

static int parse_propagation(struct json_object *linux_json, struct config *config, struct error *error)
{
    static const struct {
        const char *name;
        uint64_t flag;
    } kinds[] = {{"shared", MS_SHARED},       {"rshared", MS_SHARED | MS_REC},
                 {"slave", MS_SLAVE},         {"rslave", MS_SLAVE | MS_REC},
                 {"private", MS_PRIVATE},     {"rprivate", MS_PRIVATE | MS_REC},
                 {"unbindable", MS_UNBINDABLE}, {"runbindable", MS_UNBINDABLE | MS_REC}};
    const char *name = NULL;
    if (json_get_string(linux_json, "rootfsPropagation", &name, error) < 0)
        return -1;
    if (name == NULL || *name == '\0')
        return 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(name, kinds[i].name) == 0)
            config->root_propagation = kinds[i].flag;
    if (config->root_propagation == 0)
        return fail(error, EINVAL, "linux.rootfsPropagation \"%s\" is not known", name);
    return 0;
}

static int parse_linux(struct json_object *json, struct config *config, struct error *error)
{
    static const char *const unsupported[] = {"intelRdt", "netDevices", "memoryPolicy", "personality", NULL};
    struct json_object *linux_json = NULL, *resources = NULL, *sysctl = NULL, *seccomp = NULL;
    if (json_get_object(json, "linux", &linux_json, error) < 0 || refuse(linux_json, unsupported, "linux.", error) < 0 ||
        parse_namespaces(linux_json, config, error) < 0 || id_map_parse(linux_json, "uidMappings", &config->uids, error) < 0 ||
        id_map_parse(linux_json, "gidMappings", &config->gids, error) < 0 ||
        parse_time_offsets(linux_json, config, error) < 0 || parse_devices(linux_json, config, error) < 0 ||
        json_get_string(linux_json, "cgroupsPath", &config->cgroups_path, error) < 0 ||
        json_get_object(linux_json, "resources", &resources, error) < 0 ||
        resources_parse(resources, &config->resources, error) < 0 ||
        json_get_object(linux_json, "sysctl", &sysctl, error) < 0 ||
        json_get_object(linux_json, "seccomp", &seccomp, error) < 0 || parse_propagation(linux_json, config, error) < 0 ||
        parse_paths(linux_json, "maskedPaths", &config->masked_paths, error) < 0 ||
        parse_paths(linux_json, "readonlyPaths", &config->readonly_paths, error) < 0 ||
        json_get_string(linux_json, "mountLabel", &config->mount_label, error) < 0)
        return -1;
    config->has_resources = resources != NULL;
    if (config->mount_label != NULL && *config->mount_label == '\0')
        config->mount_label = NULL;
    if (config->mount_label != NULL && strpbrk(config->mount_label, "\"\\") != NULL)
        return fail(error, EINVAL, "linux.mountLabel may hold neither quotes nor backslashes");
    if (!is_empty(sysctl)) {
        if (sysctl_check(sysctl, config, error) < 0)
            return -1;
        config->sysctl = sysctl;
    }
    if (!is_empty(seccomp) && seccomp_parse(seccomp, &config->seccomp, error) < 0)
        return fail_in(error, "linux.seccomp");
    bool maps = config->uids.count > 0 || config->gids.count > 0;
    const struct namespace_config *user = config_namespace(config, CLONE_NEWUSER);
    if (maps && user == NULL)
        return fail(error, EINVAL, "linux.uidMappings and gidMappings need a user namespace");
    if (user != NULL && user->path == NULL && (config->uids.count == 0 || config->gids.count == 0))
        return fail(error, EINVAL, "a new user namespace needs linux.uidMappings and gidMappings");
    return 0;
}

static int check_overlay_path(const char *path, const char *what, struct error *error)
{
    if (path == NULL || path[0] != '/')
        return fail(error, EINVAL, "annotation dev.skep.rootfs: %s must be an absolute path", what);
    return 0;
}

static int parse_overlay(struct config *config, struct error *error)
{
    const char *text = NULL;
    struct json_object *parsed = NULL;
    if (json_get_string(config->annotations, "dev.skep.rootfs", &text, error) < 0)
        return -1;
    if (text == NULL)
        return 0;
    if (json_parse(text, strlen(text), &parsed, error) < 0)
        return fail_in(error, "annotation dev.skep.rootfs");
    /* The tree joins the main one, so that its strings live as long as the configuration. */
    if (json_add(config->json, "\x01" "overlay", parsed, error) < 0 ||
        json_get_strings(parsed, "lower", &config->overlay_lower, &config->overlay_lower_count, LOWER_DIRECTORIES_MAX,
                         error) < 0 ||
        json_get_string(parsed, "upper", &config->overlay_upper, error) < 0 ||
        json_get_string(parsed, "work", &config->overlay_work, error) < 0)
        return fail_in(error, "annotation dev.skep.rootfs");
    if (config->overlay_lower_count == 0)
        return fail(error, EINVAL, "annotation dev.skep.rootfs: lower must name at least one directory");
    for (size_t i = 0; i < config->overlay_lower_count; i++)
        if (check_overlay_path(config->overlay_lower[i], "each lower", error) < 0)
            return -1;
    if ((config->overlay_upper != NULL) != (config->overlay_work != NULL))
        return fail(error, EINVAL, "annotation dev.skep.rootfs: upper and work are given together or not at all");
    if (config->overlay_upper != NULL && (check_overlay_path(config->overlay_upper, "upper", error) < 0 ||
                                          check_overlay_path(config->overlay_work, "work", error) < 0))
        return -1;
    return 0;
}

static int parse_annotations(struct json_object *json, struct config *config, struct error *error)
{
    if (json_get_object(json, "annotations", &config->annotations, error) < 0)
        return -1;
    if (config->annotations == NULL)
        return 0;
    json_object_object_foreach(config->annotations, key, value) {
        if (*key == '\0')
            return fail(error, EINVAL, "annotations: a key must not be empty");
        if (!json_object_is_type(value, json_type_string))
            return fail(error, EINVAL, "annotations: value of \"%.64s\" must be a string", key);
    }
    return parse_overlay(config, error);
}

static int check_id_mapped_mounts(const struct config *config, struct error *error)
{
    bool own_user_namespace = config_namespace(config, CLONE_NEWUSER) != NULL;
    for (size_t i = 0; i < config->mount_count; i++)
        if (config->mounts[i].options.idmap && config->mounts[i].uids.count == 0 && !own_user_namespace)
            return fail(error, EINVAL, "mounts[%zu]: idmap needs mappings, or a user namespace to take them from", i);
    return 0;
}

int config_parse(struct json_object *json, struct config **out, struct error *error)
{
    struct json_object *root = NULL, *process = NULL;
    struct config *config = calloc(1, sizeof *config);
    if (config == NULL) {
        json_object_put(json);
        return fail(error, ENOMEM, "read the configuration");
    }
    config->json = json;
    if (!json_object_is_type(json, json_type_object)) {
        fail(error, EINVAL, "the configuration must be an object");
        goto failed;
    }
    if (json_required(json, "ociVersion", error) < 0 ||
        json_get_string(json, "ociVersion", &config->oci_version, error) < 0 ||
        check_version(config->oci_version, error) < 0 || json_required(json, "root", error) < 0 ||
        json_get_object(json, "root", &root, error) < 0 || json_required(root, "path", error) < 0 ||
        json_get_string(root, "path", &config->root_path, error) < 0 ||
        json_get_bool(root, "readonly", &config->root_readonly, error) < 0 ||
        json_get_string(json, "hostname", &config->hostname, error) < 0 ||
        json_get_string(json, "domainname", &config->domainname, error) < 0 || parse_annotations(json, config, error) < 0 ||
        json_get_object(json, "process", &process, error) < 0 || parse_mounts(json, config, error) < 0 ||
        parse_hooks(json, config, error) < 0 || parse_linux(json, config, error) < 0 ||
        check_id_mapped_mounts(config, error) < 0)
        goto failed;
    if (*config->root_path == '\0') {
        fail(error, EINVAL, "root.path is empty");
        goto failed;
    }
    if (process != NULL) {
        if (process_config_parse(process, &config->process, error) < 0)
            goto failed;
        config->has_process = true;
    }
    if (config->hostname != NULL && *config->hostname == '\0')
        config->hostname = NULL;
    if (config->domainname != NULL && *config->domainname == '\0')
        config->domainname = NULL;
    if ((config->hostname != NULL || config->domainname != NULL) && config_namespace(config, CLONE_NEWUTS) == NULL) {
        fail(error, EINVAL, "hostname and domainname need a uts namespace: without one they would change the host's");
        goto failed;
    }
    *out = config;
    return 0;
failed:
    config_free(config);
    return -1;
}

void config_free(struct config *config)
{
    if (config == NULL)
        return;
    process_config_free(&config->process);
    for (size_t i = 0; i < config->mount_count; i++) {
        mount_options_free(&config->mounts[i].options);
        id_map_free(&config->mounts[i].uids);
        id_map_free(&config->mounts[i].gids);
    }
    free(config->mounts);
    id_map_free(&config->uids);
    id_map_free(&config->gids);
    free(config->devices);
    resources_free(&config->resources);
    for (int kind = 0; kind < HOOK_KINDS; kind++) {
        for (size_t i = 0; i < config->hooks[kind].count; i++) {
            free(config->hooks[kind].hooks[i].args);
            free(config->hooks[kind].hooks[i].env);
        }
        free(config->hooks[kind].hooks);
    }
    free(config->masked_paths);
    free(config->readonly_paths);
    free(config->overlay_lower);
    seccomp_config_free(config->seccomp);
    json_object_put(config->json);
    free(config);
}
