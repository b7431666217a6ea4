#include "isolate/caps.h"
#include "common/fd.h"
#include "common/json.h"
#include "isolate/log.h"

#include <grp.h>
#include <linux/capability.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static const char *const names[] = {
    "CAP_CHOWN",           "CAP_DAC_OVERRIDE",     "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
    "CAP_FSETID",          "CAP_KILL",             "CAP_SETGID",          "CAP_SETUID",
    "CAP_SETPCAP",         "CAP_LINUX_IMMUTABLE",  "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",       "CAP_NET_RAW",          "CAP_IPC_LOCK",        "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",      "CAP_SYS_RAWIO",        "CAP_SYS_CHROOT",      "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",       "CAP_SYS_ADMIN",        "CAP_SYS_BOOT",        "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",    "CAP_SYS_TIME",         "CAP_SYS_TTY_CONFIG",  "CAP_MKNOD",
    "CAP_LEASE",           "CAP_AUDIT_WRITE",      "CAP_AUDIT_CONTROL",   "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",    "CAP_MAC_ADMIN",        "CAP_SYSLOG",          "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",   "CAP_AUDIT_READ",       "CAP_PERFMON",         "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
};
enum { CAPABILITIES_KNOWN = sizeof names / sizeof *names };

const char *capability_name(unsigned number)
{
    return number < CAPABILITIES_KNOWN ? names[number] : NULL;
}

int capability_from_name(const char *name)
{
    for (int i = 0; i < CAPABILITIES_KNOWN; i++)
        if (strcasecmp(name, names[i]) == 0 || strcasecmp(name, names[i] + 4) == 0)
            return i;
    return -1;
}

static int parse_set(struct json_object *object, const char *key, uint64_t *set, struct error *error)
{
    cleanup_free const char **list = NULL;
    size_t count = 0;
    if (json_get_strings(object, key, &list, &count, 256, error) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        int number = capability_from_name(list[i]);
        if (number < 0)
            log_warning("capability \"%s\" in %s is not known and is left out", list[i], key);
        else
            *set |= 1ull << number;
    }
    return 0;
}

int capabilities_parse(struct json_object *object, struct capability_sets *sets, struct error *error)
{
    memset(sets, 0, sizeof *sets);
    if (parse_set(object, "bounding", &sets->bounding, error) < 0 ||
        parse_set(object, "effective", &sets->effective, error) < 0 ||
        parse_set(object, "inheritable", &sets->inheritable, error) < 0 ||
        parse_set(object, "permitted", &sets->permitted, error) < 0 ||
        parse_set(object, "ambient", &sets->ambient, error) < 0)
        return -1;
    return 0;
}

static int capability_get(uint64_t *permitted, struct error *error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    if (syscall(SYS_capget, &header, data) < 0)
        return fail(error, errno, "read the capabilities of this process");
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return 0;
}

static int capability_set(uint64_t effective, uint64_t permitted, uint64_t inheritable, struct error *error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    if (syscall(SYS_capset, &header, data) < 0)
        return fail(error, errno, "set capabilities (effective %llx, permitted %llx, inheritable %llx)",
                    (unsigned long long)effective, (unsigned long long)permitted, (unsigned long long)inheritable);
    return 0;
}

int capabilities_limit_to_grantable(struct capability_sets *sets, struct error *error)
{
    uint64_t permitted, bounding = 0;
    if (capability_get(&permitted, error) < 0)
        return -1;
    for (unsigned i = 0; i < 64; i++)
        if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
            bounding |= 1ull << i;
        else if (i >= CAPABILITIES_KNOWN)
            break;
    uint64_t grantable = permitted & bounding;
    uint64_t wanted = sets->bounding | sets->effective | sets->inheritable | sets->permitted | sets->ambient;
    for (unsigned i = 0; i < CAPABILITIES_KNOWN; i++)
        if ((wanted & ~grantable) >> i & 1)
            log_warning("capability %s cannot be granted: this runtime does not hold it", names[i]);
    sets->bounding &= grantable;
    sets->permitted &= grantable;
    sets->inheritable &= sets->bounding;
    sets->effective &= sets->permitted;
    /* capabilities(7): an ambient capability must be both permitted and inheritable. */
    if (sets->ambient & ~(sets->permitted & sets->inheritable))
        log_warning("ambient capabilities that are not both permitted and inheritable are left out");
    sets->ambient &= sets->permitted & sets->inheritable;
    return 0;
}

int capabilities_drop_bounding(const struct capability_sets *sets, struct error *error)
{
    for (unsigned i = 0; i < 64; i++) {
        if (sets->bounding >> i & 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the kernel's last capability */
                break;
            return fail(error, errno, "drop capability %u from the bounding set", i);
        }
    }
    return 0;
}

int capabilities_keep_over_setuid(uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, bool set_groups,
                                  struct error *error)
{
    uint64_t permitted;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return fail(error, errno, "keep capabilities over the change of user");
    /* The raw calls: glibc's wrappers signal other threads, of which there are none. */
    if (set_groups && syscall(SYS_setgroups, group_count, groups) < 0)
        return fail(error, errno, "set %zu additional groups", group_count);
    if (syscall(SYS_setresgid, gid, gid, gid) < 0)
        return fail(error, errno, "change to group %u", gid);
    if (syscall(SYS_setresuid, uid, uid, uid) < 0)
        return fail(error, errno, "change to user %u", uid);
    if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        return fail(error, errno, "stop keeping capabilities");
    /* The change of user emptied the effective set and kept the permitted one. */
    return capability_get(&permitted, error) < 0 ? -1 : capability_set(permitted, permitted, 0, error);
}

int capabilities_apply(const struct capability_sets *sets, uint64_t extra, struct error *error)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return fail(error, errno, "clear the ambient capabilities");
    if (capability_set(sets->effective | extra, sets->permitted | extra, sets->inheritable, error) < 0)
        return -1;
    for (unsigned i = 0; i < CAPABILITIES_KNOWN; i++)
        if (sets->ambient >> i & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
            return fail(error, errno, "raise ambient capability %s", names[i]);
    return 0;
}
