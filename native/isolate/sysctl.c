#include "isolate/sysctl.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/config.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>

/*
 * ipc_namespaces(7), uts_namespaces(7). An exact list: names are never compared by prefix except below net, where the
 * whole tree belongs to the network namespace, and fs.mqueue likewise to ipc.
 */
static const struct {
    const char *key;
    int flag;
} namespaced[] = {
    {"kernel.msgmax", CLONE_NEWIPC},        {"kernel.msgmnb", CLONE_NEWIPC},     {"kernel.msgmni", CLONE_NEWIPC},
    {"kernel.msg_next_id", CLONE_NEWIPC},   {"kernel.sem", CLONE_NEWIPC},        {"kernel.sem_next_id", CLONE_NEWIPC},
    {"kernel.shmall", CLONE_NEWIPC},        {"kernel.shmmax", CLONE_NEWIPC},     {"kernel.shmmni", CLONE_NEWIPC},
    {"kernel.shm_next_id", CLONE_NEWIPC},   {"kernel.shm_rmid_forced", CLONE_NEWIPC},
    {"fs.mqueue.msg_default", CLONE_NEWIPC}, {"fs.mqueue.msg_max", CLONE_NEWIPC},
    {"fs.mqueue.msgsize_default", CLONE_NEWIPC}, {"fs.mqueue.msgsize_max", CLONE_NEWIPC},
    {"fs.mqueue.queues_max", CLONE_NEWIPC},
    {"kernel.domainname", CLONE_NEWUTS},    {"kernel.hostname", CLONE_NEWUTS},
};

/*
 * A key to a path below /proc/sys as sysctl(8) does: the first separator decides, so that `net.ipv4.conf.eth0/1.x`
 * reaches the interface "eth0.1". The parts may not be empty, `.` or `..`.
 */
static int key_to_path(const char *key, char *path, size_t room, struct error *error)
{
    size_t length = strlen(key);
    if (length == 0 || length >= room)
        return fail(error, EINVAL, "linux.sysctl: key \"%.64s\" is not valid", key);
    memset(path, 0, room);
    bool dots = key[strcspn(key, "./")] != '/';
    for (size_t i = 0; i <= length; i++)
        path[i] = dots && key[i] == '.' ? '/' : dots && key[i] == '/' ? '.' : key[i];
    for (const char *part = path;;) {
        size_t size = strcspn(part, "/");
        if (size == 0 || (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.'))
            return fail(error, EINVAL, "linux.sysctl: key \"%.64s\" is not valid", key);
        part += size;
        if (*part == '\0')
            return 0;
        part++;
    }
}

static int flag_of_path(const char *path)
{
    if (strncmp(path, "net/", 4) == 0)
        return CLONE_NEWNET;
    char dotted[256];
    size_t length = strlen(path);
    if (length >= sizeof dotted)
        return 0;
    for (size_t i = 0; i <= length; i++)
        dotted[i] = path[i] == '/' ? '.' : path[i];
    for (size_t i = 0; i < sizeof namespaced / sizeof *namespaced; i++)
        if (strcmp(dotted, namespaced[i].key) == 0)
            return namespaced[i].flag;
    return 0;
}

int sysctl_check(struct json_object *sysctl, const struct config *config, struct error *error)
{
    char path[256];
    json_object_object_foreach(sysctl, key, value) {
        if (key_to_path(key, path, sizeof path, error) < 0)
            return -1;
        int flag = flag_of_path(path);
        if (flag == 0)
            return fail(error, EPERM, "linux.sysctl: \"%.64s\" is not a parameter of a namespace", key);
        const struct namespace_config *own = config_namespace(config, flag);
        if (own == NULL)
            return fail(error, EPERM, "linux.sysctl: \"%.64s\" would change the host, for the container shares its namespace", key);
        if (!json_object_is_type(value, json_type_string))
            return fail(error, EINVAL, "linux.sysctl: value of \"%.64s\" must be a string", key);
    }
    return 0;
}

int sysctl_apply(struct json_object *sysctl, int proc_fd, struct error *error)
{
    json_object_object_foreach(sysctl, key, value) {
        char path[256], full[272];
        if (key_to_path(key, path, sizeof path, error) < 0)
            return -1;
        snprintf(full, sizeof full, "sys/%s", path);
        /* CVE-2025-52881: no link and no other mount between our procfs and the file. */
        cleanup_fd int fd = open_resolved(proc_fd, full, O_WRONLY, 0,
                                          RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
        if (fd < 0)
            return fail(error, errno, "open kernel parameter %s", key);
        const char *text = json_object_get_string(value);
        if (write_all(fd, text, strlen(text), key, error) < 0)
            return fail_in(error, "set kernel parameter %s to \"%s\"", key, text);
    }
    return 0;
}
