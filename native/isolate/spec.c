/* spec: a sane configuration to start from; features: what this runtime knows (OCI features.md). */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/caps.h"
#include "isolate/mount_options.h"
#include "isolate/options.h"
#include "isolate/runtime.h"
#include "isolate/seccomp.h"
#include "isolate/verbs.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The default of the peers: a shell in a terminal, three capabilities, a read-only root, no network. */
static const char template[] =
    "{\"ociVersion\":\"" OCI_VERSION "\","
    "\"process\":{\"terminal\":true,\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"sh\"],"
    "\"env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\"TERM=xterm\"],\"cwd\":\"/\","
    "\"capabilities\":{\"bounding\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"],"
    "\"effective\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"],"
    "\"permitted\":[\"CAP_AUDIT_WRITE\",\"CAP_KILL\",\"CAP_NET_BIND_SERVICE\"]},"
    "\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024}],\"noNewPrivileges\":true},"
    "\"root\":{\"path\":\"rootfs\",\"readonly\":true},\"hostname\":\"isolate\","
    "\"mounts\":["
    "{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\",\"options\":[\"nosuid\",\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]},"
    "{\"destination\":\"/dev/shm\",\"type\":\"tmpfs\",\"source\":\"shm\",\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"mode=1777\",\"size=65536k\"]},"
    "{\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
    "{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\",\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"ro\"]},"
    "{\"destination\":\"/sys/fs/cgroup\",\"type\":\"cgroup\",\"source\":\"cgroup\",\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"relatime\",\"ro\"]}],"
    "\"linux\":{\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]},"
    "\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"network\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"},{\"type\":\"cgroup\"}],"
    "\"maskedPaths\":[\"/proc/acpi\",\"/proc/asound\",\"/proc/interrupts\",\"/proc/kcore\",\"/proc/keys\",\"/proc/latency_stats\",\"/proc/sched_debug\",\"/proc/scsi\",\"/proc/timer_list\",\"/proc/timer_stats\",\"/sys/devices/virtual/powercap\",\"/sys/firmware\"],"
    "\"readonlyPaths\":[\"/proc/bus\",\"/proc/fs\",\"/proc/irq\",\"/proc/sys\",\"/proc/sysrq-trigger\"]}}";

static int add_map(struct json_object *linux_json, const char *key, unsigned host, struct error *error)
{
    struct json_object *array = json_object_new_array(), *entry = json_object_new_object();
    if (array == NULL || entry == NULL || json_object_array_add(array, entry) < 0)
        return fail(error, ENOMEM, "write the configuration");
    return json_add(entry, "containerID", json_object_new_int(0), error) < 0 ||
                   json_add(entry, "hostID", json_object_new_int64(host), error) < 0 ||
                   json_add(entry, "size", json_object_new_int(1), error) < 0
               ? -1
               : json_add(linux_json, key, array, error);
}

/* An ordinary user: a user namespace with himself as root, the host's network, no cgroups, no gid that he cannot map. */
static int make_rootless(struct json_object *config, struct error *error)
{
    struct json_object *linux_json = json_get(config, "linux"), *kept = json_object_new_array();
    struct json_object *mounts = json_get(config, "mounts"), *kept_mounts = json_object_new_array();
    struct json_object *namespaces = json_get(linux_json, "namespaces");
    if (kept == NULL || kept_mounts == NULL)
        return fail(error, ENOMEM, "write the configuration");
    for (size_t i = 0; i < json_object_array_length(namespaces); i++) {
        struct json_object *entry = json_object_array_get_idx(namespaces, i);
        if (strcmp(json_object_get_string(json_get(entry, "type")), "network") != 0)
            json_object_array_add(kept, json_object_get(entry));
    }
    struct json_object *user = json_object_new_object();
    if (json_add(user, "type", json_object_new_string("user"), error) < 0 || json_object_array_add(kept, user) < 0)
        return -1;
    for (size_t i = 0; i < json_object_array_length(mounts); i++) {
        struct json_object *entry = json_object_array_get_idx(mounts, i);
        const char *type = json_object_get_string(json_get(entry, "type"));
        if (strcmp(type, "cgroup") == 0)
            continue;
        if (strcmp(type, "devpts") == 0) {
            struct json_object *options = json_get(entry, "options");
            size_t last = json_object_array_length(options) - 1; /* gid=5 */
            json_object_array_del_idx(options, last, 1);
        } else if (strcmp(type, "sysfs") == 0) {
            /* sysfs wants a network namespace of one's own: the host's is bound, read-only. */
            struct json_object *options = json_object_new_array();
            static const char *const names[] = {"rbind", "nosuid", "noexec", "nodev", "rro"};
            for (size_t k = 0; k < 5; k++)
                json_object_array_add(options, json_object_new_string(names[k]));
            if (json_add(entry, "type", json_object_new_string("none"), error) < 0 ||
                json_add(entry, "source", json_object_new_string("/sys"), error) < 0 ||
                json_add(entry, "options", options, error) < 0)
                return -1;
        }
        json_object_array_add(kept_mounts, json_object_get(entry));
    }
    json_object_object_del(linux_json, "resources");
    return json_add(config, "mounts", kept_mounts, error) < 0 || json_add(linux_json, "namespaces", kept, error) < 0 ||
                   add_map(linux_json, "uidMappings", geteuid(), error) < 0 ||
                   add_map(linux_json, "gidMappings", getegid(), error) < 0
               ? -1
               : 0;
}

int verb_spec(const struct invocation *invocation, struct error *error)
{
    const char *bundle = ".";
    bool rootless = false;
    int next = 0;
    const struct option_spec specs[] = {{"bundle", "b", OPTION_TEXT, &bundle}, {"rootless", NULL, OPTION_FLAG, &rootless}};
    cleanup_json struct json_object *config = NULL;
    if (options_read(specs, 2, invocation->argc, invocation->argv, &next, error) < 0 ||
        json_parse(template, sizeof template - 1, &config, error) < 0 || (rootless && make_rootless(config, error) < 0))
        return -1;
    cleanup_fd int folder = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_fd int fd = folder < 0 ? -1 : openat(folder, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(error, errno, "create config.json in %s", bundle);
    const char *text = json_object_to_json_string_ext(config, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
    return write_all(fd, text, strlen(text), "config.json", error);
}

/* ---- features ---- */

static int add_names(struct json_object *object, const char *key, const char *(*name)(size_t), struct error *error)
{
    struct json_object *array = json_object_new_array();
    for (size_t i = 0; array != NULL && name(i) != NULL; i++)
        json_object_array_add(array, json_object_new_string(name(i)));
    return array == NULL ? fail(error, ENOMEM, "tell the features") : json_add(object, key, array, error);
}

static const char *capability_at(size_t index)
{
    return capability_name((unsigned)index);
}

static const char *hook_at(size_t index)
{
    static const char *const names[] = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", NULL};
    return names[index];
}

static const char *namespace_at(size_t index)
{
    static const char *const names[] = {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts", NULL};
    return names[index];
}

int verb_features(const struct invocation *invocation, struct error *error)
{
    static const char rest[] =
        "{\"ociVersionMin\":\"1.0.0\",\"ociVersionMax\":\"" OCI_VERSION "\","
        "\"linux\":{\"cgroup\":{\"v1\":true,\"v2\":true,\"systemd\":false,\"systemdUser\":false,\"rdma\":false},"
        "\"seccomp\":{\"enabled\":true},\"apparmor\":{\"enabled\":true},\"selinux\":{\"enabled\":true},"
        "\"intelRdt\":{\"enabled\":false},\"mountExtensions\":{\"idmap\":{\"enabled\":true}},\"netDevices\":{\"enabled\":false}},"
        "\"annotations\":{\"dev.skep.isolate.version\":\"" ISOLATE_VERSION "\"},"
        "\"potentiallyUnsafeConfigAnnotations\":[\"dev.skep.rootfs\"]}";
    cleanup_json struct json_object *features = NULL;
    (void)invocation;
    if (json_parse(rest, sizeof rest - 1, &features, error) < 0)
        return -1;
    struct json_object *linux_json = json_get(features, "linux"), *seccomp = json_get(linux_json, "seccomp");
    if (add_names(features, "hooks", hook_at, error) < 0 || add_names(features, "mountOptions", mount_option_name, error) < 0 ||
        add_names(linux_json, "namespaces", namespace_at, error) < 0 ||
        add_names(linux_json, "capabilities", capability_at, error) < 0 ||
        add_names(seccomp, "actions", seccomp_action_name, error) < 0 ||
        add_names(seccomp, "operators", seccomp_operator_name, error) < 0 ||
        add_names(seccomp, "archs", seccomp_arch_name, error) < 0 ||
        add_names(seccomp, "knownFlags", seccomp_flag_name, error) < 0 ||
        add_names(seccomp, "supportedFlags", seccomp_flag_name, error) < 0)
        return -1;
    puts(json_object_to_json_string_ext(features, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    return 0;
}
