#include "isolate/mounts.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/setup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* fsconfig(2) takes at most this many bytes in a string value, with its end. */
enum { FSCONFIG_VALUE_MAX = 256 };

/* ---- building blocks ---- */

int mount_set(int tree_fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation, const char *name,
              struct error *error)
{
    struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
    if (set == 0 && clear == 0 && propagation == 0)
        return 0;
    if (mount_setattr(tree_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attributes, sizeof attributes) < 0)
        return fail(error, errno, "set the attributes of the mount on %s", name);
    return 0;
}

int mount_clone(int fd, bool recursive, int *out, const char *name, struct error *error)
{
    *out = open_tree(fd, "", (unsigned)AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u));
    if (*out < 0)
        return fail(error, errno, "clone the mount of %s", name);
    return 0;
}

int mount_attach(int tree_fd, int target_fd, const char *name, struct error *error)
{
    if (move_mount(tree_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return fail(error, errno, "mount on %s", name);
    return 0;
}

/* The kernel explains a failed fsconfig(2) on the context's descriptor, one message a read. */
static int fail_with_log(int context, int number, const char *what, const char *type, struct error *error)
{
    char message[200];
    ssize_t length = read(context, message, sizeof message - 1);
    if (length > 2) {
        message[length] = '\0';
        message[strcspn(message, "\n")] = '\0';
        return fail(error, number, "%s of a %s filesystem (%s)", what, type, message + 2);
    }
    return fail(error, number, "%s of a %s filesystem", what, type);
}

static int set_option(int context, char *option, const char *type, struct error *error)
{
    char *value = strchr(option, '=');
    int status;
    if (value != NULL) {
        *value++ = '\0';
        if (strlen(value) >= FSCONFIG_VALUE_MAX)
            return fail(error, E2BIG, "set option %s of a %s filesystem: longer than %d bytes", option, type, FSCONFIG_VALUE_MAX - 1);
        status = fsconfig(context, FSCONFIG_SET_STRING, option, value, 0);
    } else {
        status = fsconfig(context, FSCONFIG_SET_FLAG, option, NULL, 0);
    }
    if (status < 0) {
        char what[96];
        snprintf(what, sizeof what, "set option %.64s", option);
        return fail_with_log(context, errno, what, type, error);
    }
    return 0;
}

/* Splits at commas outside quotes, as SELinux contexts have commas inside them. */
static int set_options(int context, const char *options, const char *type, struct error *error)
{
    cleanup_free char *copy = strdup(options);
    if (copy == NULL)
        return fail(error, ENOMEM, "mount a %s filesystem", type);
    for (char *at = copy; *at != '\0';) {
        char *write_at = at, *start = at;
        bool quoted = false, more = false;
        for (; *at != '\0'; at++) {
            if (*at == '"') {
                quoted = !quoted;
                continue;
            }
            if (*at == ',' && !quoted) {
                more = true;
                break;
            }
            *write_at++ = *at;
        }
        if (more)
            at++;
        *write_at = '\0';
        if (*start != '\0' && set_option(context, start, type, error) < 0)
            return -1;
    }
    return 0;
}

int mount_open_filesystem(const char *type, const char *source, const char *options, unsigned long superblock,
                          uint64_t attributes, int *out, struct error *error)
{
    static const struct {
        unsigned long bit;
        const char *name;
    } flags[] = {{MS_SYNCHRONOUS, "sync"}, {MS_DIRSYNC, "dirsync"}, {MS_LAZYTIME, "lazytime"}, {MS_MANDLOCK, "mand"}, {MS_RDONLY, "ro"}};
    cleanup_fd int context = fsopen(type, FSOPEN_CLOEXEC);
    if (context < 0)
        return fail(error, errno, "open filesystem type %s", type);
    if (source != NULL && *source != '\0' && strlen(source) < FSCONFIG_VALUE_MAX &&
        fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0)
        return fail_with_log(context, errno, "set the source", type, error);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if ((superblock & flags[i].bit) != 0 && fsconfig(context, FSCONFIG_SET_FLAG, flags[i].name, NULL, 0) < 0)
            return fail_with_log(context, errno, "set a flag", type, error);
    if (set_options(context, options, type, error) < 0)
        return -1;
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail_with_log(context, errno, "make the superblock", type, error);
    *out = fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
    if (*out < 0)
        return fail_with_log(context, errno, "make the mount", type, error);
    return 0;
}

/* ---- bind mounts ---- */

static int set_id_map(int tree_fd, const struct mount_config *wanted, const struct config *config, struct error *error)
{
    const struct id_map *uids = wanted->uids.count > 0 ? &wanted->uids : &config->uids;
    const struct id_map *gids = wanted->gids.count > 0 ? &wanted->gids : &config->gids;
    const struct namespace_config *user = config_namespace(config, CLONE_NEWUSER);
    cleanup_fd int user_fd = -1;
    if (wanted->uids.count == 0 && user != NULL && user->path != NULL) {
        user_fd = open(user->path, O_RDONLY | O_CLOEXEC);
        if (user_fd < 0)
            return fail(error, errno, "open user namespace %s", user->path);
    } else if (id_map_namespace(uids, gids, &user_fd, error) < 0) {
        return -1;
    }
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)user_fd};
    unsigned flags = AT_EMPTY_PATH | (wanted->options.idmap_recursive ? AT_RECURSIVE : 0);
    if (mount_setattr(tree_fd, "", flags, &attributes, sizeof attributes) < 0)
        return fail(error, errno, "map the ids of the mount on %s", wanted->destination);
    return 0;
}

static int set_bind_attributes(int tree_fd, const struct mount_config *wanted, struct error *error)
{
    const struct mount_options *o = &wanted->options;
    const char *name = wanted->destination;
    /* Without a wish the mount is private: what happens on the host later does not appear in the container. */
    uint64_t propagation = o->propagation == 0 ? MS_PRIVATE : o->propagation;
    bool recursive_propagation = o->propagation == 0 || o->propagation_recursive;
    if (mount_set(tree_fd, true, o->recursive_set, o->recursive_clear, 0, name, error) < 0 ||
        mount_set(tree_fd, false, o->set, o->clear, 0, name, error) < 0)
        return -1;
    return mount_set(tree_fd, recursive_propagation, 0, 0, propagation, name, error);
}

int mount_open_bind(const struct mount_config *wanted, const struct config *config, const char *bundle, int *out,
                    struct error *error)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (wanted->options.bind_recursive ? AT_RECURSIVE : 0u);
    /* By name, not below a descriptor of the bundle: that one stands in the host's mount namespace, where we cannot clone. */
    cleanup_free char *path = wanted->source[0] == '/' ? strdup(wanted->source) : format_text("%s/%s", bundle, wanted->source);
    if (path == NULL)
        return fail(error, ENOMEM, "open bind source %s", wanted->source);
    cleanup_fd int tree = open_tree(AT_FDCWD, path, flags);
    if (tree < 0)
        return fail(error, errno, "open bind source %s", wanted->source);
    if (wanted->options.idmap && set_id_map(tree, wanted, config, error) < 0)
        return -1;
    if (set_bind_attributes(tree, wanted, error) < 0)
        return -1;
    *out = take_fd(&tree);
    return 0;
}

/* ---- destinations ---- */

/* What lxcfs and the like put over single files of procfs; everything else there would let a volume fake the kernel's word. */
static bool is_allowed_in_proc(const char *clean)
{
    static const char *const allowed[] = {"proc/cpuinfo", "proc/diskstats", "proc/meminfo", "proc/stat",
                                          "proc/swaps",   "proc/uptime",    "proc/loadavg", "proc/slabinfo",
                                          "proc/net/dev", "proc/sys/kernel/ns_last_pid", "proc/sys/crypto/fips_enabled"};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (strcmp(clean, allowed[i]) == 0)
            return true;
    return false;
}

static bool stands_on(int fd, long magic)
{
    struct statfs status;
    return fstatfs(fd, &status) == 0 && status.f_type == magic;
}

/*
 * CVE-2019-16884, CVE-2019-19921: nothing is mounted over /proc but procfs, nor inside it but the files above. The
 * text is checked because procfs may come later, and the descriptor because a link may lead there.
 */
static int check_proc(const struct mount_config *wanted, const char *clean, int source_fd, int target_fd,
                      struct error *error)
{
    if (strcmp(clean, "proc") == 0) {
        bool procfs = source_fd >= 0 ? stands_on(source_fd, PROC_SUPER_MAGIC)
                                     : wanted->type != NULL && strcmp(wanted->type, "proc") == 0;
        return procfs ? 0 : fail(error, EPERM, "mount on /proc: only procfs may stand there");
    }
    if (strncmp(clean, "proc/", 5) == 0 && !is_allowed_in_proc(clean))
        return fail(error, EPERM, "mount on %s: it is inside /proc", wanted->destination);
    if (target_fd >= 0 && stands_on(target_fd, PROC_SUPER_MAGIC) && strncmp(clean, "proc/", 5) != 0)
        return fail(error, EPERM, "mount on %s: a link leads inside procfs", wanted->destination);
    return 0;
}

static int open_destination(int root_fd, const struct mount_config *wanted, bool directory, int *out, struct error *error)
{
    if (directory)
        return make_directory_in_root(root_fd, wanted->destination, 0755, out, error);
    return make_file_in_root(root_fd, wanted->destination, 0644, out, error);
}

/* CVE-2023-27561, CVE-2023-28642: an image's link at /proc or /sys must not decide where the kernel's trees appear. */
static int open_plain_directory(int root_fd, const struct mount_config *wanted, const char *clean, int *out,
                                struct error *error)
{
    cleanup_fd int made = -1;
    if (make_directory_in_root(root_fd, clean, 0755, &made, error) < 0)
        return -1;
    *out = open_resolved(root_fd, clean, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
    if (*out < 0)
        return fail(error, errno, "mount %s on %s: it must be an ordinary directory", wanted->type, wanted->destination);
    return 0;
}

/* ---- filesystems ---- */

static bool is_kernel_tree(const char *type)
{
    static const char *const types[] = {"proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "tmpfs", "ramfs"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

static int with_label(const struct mount_config *wanted, const char *label, char **out, struct error *error)
{
    bool labelled = label != NULL && strcmp(wanted->type, "proc") != 0 && strcmp(wanted->type, "sysfs") != 0;
    const char *data = wanted->options.data;
    *out = labelled ? format_text("%s%scontext=\"%s\"", data, *data == '\0' ? "" : ",", label) : strdup(data);
    return *out == NULL ? fail(error, ENOMEM, "mount on %s", wanted->destination) : 0;
}

static unsigned long legacy_flags(uint64_t attributes)
{
    unsigned long flags = 0;
    if (attributes & MOUNT_ATTR_RDONLY)
        flags |= MS_RDONLY;
    if (attributes & MOUNT_ATTR_NOSUID)
        flags |= MS_NOSUID;
    if (attributes & MOUNT_ATTR_NODEV)
        flags |= MS_NODEV;
    if (attributes & MOUNT_ATTR_NOEXEC)
        flags |= MS_NOEXEC;
    if (attributes & MOUNT_ATTR_NODIRATIME)
        flags |= MS_NODIRATIME;
    if (attributes & MOUNT_ATTR_NOSYMFOLLOW)
        flags |= 256; /* MS_NOSYMFOLLOW, Linux 5.10; not in this libc's header */
    if ((attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_NOATIME)
        flags |= MS_NOATIME;
    else if ((attributes & MOUNT_ATTR__ATIME) == MOUNT_ATTR_STRICTATIME)
        flags |= MS_STRICTATIME;
    return flags;
}

static int mount_filesystem(const struct setup *setup, int root_fd, const struct mount_config *wanted,
                            const char *clean, struct error *error)
{
    const struct mount_options *o = &wanted->options;
    cleanup_fd int target = -1, tree = -1;
    cleanup_free char *data = NULL;
    bool strict = strcmp(wanted->type, "proc") == 0 || strcmp(wanted->type, "sysfs") == 0;
    if (with_label(wanted, setup->config->mount_label, &data, error) < 0 ||
        (strict ? open_plain_directory(root_fd, wanted, clean, &target, error)
                : open_destination(root_fd, wanted, true, &target, error)) < 0 ||
        check_proc(wanted, clean, -1, target, error) < 0)
        return -1;
    unsigned long superblock = o->superblock;
    if ((o->set & MOUNT_ATTR_RDONLY) != 0 && !is_kernel_tree(wanted->type))
        superblock |= MS_RDONLY; /* a read-only device refuses a writable superblock */
    if ((superblock & MS_I_VERSION) != 0) {
        /* fsconfig(2) has no word for it. The parent mount is private, so no propagation is to be set. */
        if (mount(wanted->source, fd_path(target).text, wanted->type, superblock | legacy_flags(o->set), data) < 0)
            return fail(error, errno, "mount %s on %s", wanted->type, wanted->destination);
        return 0;
    }
    if (mount_open_filesystem(wanted->type, wanted->source == NULL ? wanted->type : wanted->source, data, superblock, o->set,
                              &tree, error) < 0 ||
        mount_set(tree, false, 0, 0, o->propagation, wanted->destination, error) < 0)
        return fail_in(error, "mount on %s", wanted->destination);
    return mount_attach(tree, target, wanted->destination, error);
}

static int mount_bind(const struct setup *setup, int root_fd, const struct mount_config *wanted, int prepared,
                      const char *clean, struct error *error)
{
    cleanup_fd int target = -1, tree = prepared;
    struct stat status;
    if (tree < 0 && mount_open_bind(wanted, setup->config, setup->bundle, &tree, error) < 0)
        return -1;
    if (fstat(tree, &status) < 0)
        return fail(error, errno, "read the kind of bind source %s", wanted->source);
    if (check_proc(wanted, clean, tree, -1, error) < 0 ||
        open_destination(root_fd, wanted, S_ISDIR(status.st_mode), &target, error) < 0 ||
        check_proc(wanted, clean, tree, target, error) < 0)
        return -1;
    return mount_attach(tree, target, wanted->destination, error);
}

static int mount_again(int root_fd, const struct mount_config *wanted, struct error *error)
{
    const struct mount_options *o = &wanted->options;
    cleanup_fd int target = open_in_root(root_fd, wanted->destination, 0);
    if (target < 0)
        return fail(error, errno, "remount %s", wanted->destination);
    unsigned long flags = MS_REMOUNT | (o->bind ? MS_BIND : 0) | o->superblock | legacy_flags(o->set);
    if (mount(NULL, fd_path(target).text, NULL, flags, o->data) < 0)
        return fail(error, errno, "remount %s", wanted->destination);
    return 0;
}

/* ---- cgroup ---- */

static int mount_cgroup_v2(const struct setup *setup, const struct cgroup_entry *entry, uint64_t attributes, int *out,
                           struct error *error)
{
    if (entry == NULL || config_namespace(setup->config, CLONE_NEWCGROUP) != NULL)
        return mount_open_filesystem("cgroup2", "cgroup", "", 0, attributes, out, error);
    /* By name: entry->fd stands in the host's mount namespace, where this process cannot clone. */
    *out = open_tree(AT_FDCWD, entry->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (*out < 0)
        return fail(error, errno, "clone cgroup %s", entry->path);
    return mount_set(*out, false, attributes, 0, MS_PRIVATE, entry->path, error);
}

static int mount_cgroup_v1(const struct setup *setup, const struct cgroup_entry *entry, uint64_t attributes, int *out,
                           struct error *error)
{
    if (config_namespace(setup->config, CLONE_NEWCGROUP) == NULL)
        return mount_cgroup_v2(setup, entry, attributes, out, error);
    bool named = strncmp(entry->controllers, "name=", 5) == 0;
    cleanup_free char *options = format_text("%s%s", named ? "none," : "", entry->controllers);
    if (options == NULL)
        return fail(error, ENOMEM, "mount cgroup %s", entry->controllers);
    return mount_open_filesystem("cgroup", "cgroup", options, 0, attributes, out, error);
}

/* The container sees its own groups: by its cgroup namespace, or as bind mounts of its directories. */
static int mount_cgroups(const struct setup *setup, int root_fd, const struct mount_config *wanted, struct error *error)
{
    uint64_t attributes = wanted->options.set;
    bool own_view = config_namespace(setup->config, CLONE_NEWCGROUP) != NULL;
    /* CVE-2023-25809: without a view of its own, a container of a user must not write the host's groups. */
    if (!own_view && setup->in_user_namespace)
        attributes |= MOUNT_ATTR_RDONLY;
    cleanup_fd int target = -1, tree = -1;
    if (open_destination(root_fd, wanted, true, &target, error) < 0)
        return -1;
    if (setup->cgroup->mode == CGROUP_UNIFIED || strcmp(wanted->type, "cgroup2") == 0) {
        const struct cgroup_entry *entry = cgroup_entry(setup->cgroup, "");
        if (entry == NULL && !own_view)
            return fail(error, ENOTSUP, "mount cgroup2 on %s: the container has no v2 group", wanted->destination);
        if (mount_cgroup_v2(setup, entry, attributes, &tree, error) < 0)
            return fail_in(error, "mount on %s", wanted->destination);
        return mount_attach(tree, target, wanted->destination, error);
    }
    if (mount_open_filesystem("tmpfs", "tmpfs", "mode=755,size=1m", 0, attributes & ~(uint64_t)MOUNT_ATTR_RDONLY, &tree, error) < 0 ||
        mount_attach(tree, target, wanted->destination, error) < 0)
        return -1;
    for (size_t i = 0; i < setup->cgroup->count; i++) {
        const struct cgroup_entry *entry = &setup->cgroup->entries[i];
        const char *name = strrchr(entry->mount, '/');
        cleanup_fd int folder = -1, below = -1;
        name = name == NULL ? entry->controllers : name + 1;
        if (make_directory_in_root(tree, name, 0755, &folder, error) < 0 ||
            (entry->v2 ? mount_cgroup_v2 : mount_cgroup_v1)(setup, entry, attributes, &below, error) < 0 ||
            mount_attach(below, folder, name, error) < 0)
            return fail_in(error, "mount cgroup %s on %s", entry->controllers, wanted->destination);
        if (entry->v2 || strchr(entry->controllers, ',') == NULL)
            continue;
        cleanup_free char *list = strdup(entry->controllers);
        char *rest = list;
        for (char *part = list == NULL ? NULL : strsep(&rest, ","); part != NULL; part = strsep(&rest, ","))
            if (strcmp(part, name) != 0 && symlinkat(name, tree, part) < 0 && errno != EEXIST)
                return fail(error, errno, "link cgroup %s", part);
    }
    return mount_set(tree, false, attributes & MOUNT_ATTR_RDONLY, 0, 0, wanted->destination, error);
}

/* ---- all of them ---- */

static int apply_one(const struct setup *setup, int root_fd, const struct mount_config *wanted, int prepared,
                     struct error *error)
{
    char clean[PATH_MAX];
    if (clean_path(wanted->destination, clean, sizeof clean, error) < 0)
        return -1;
    if (*clean == '\0' && !wanted->options.remount)
        return fail(error, EINVAL, "mount on %s: the root comes from root.path", wanted->destination);
    if (wanted->options.remount)
        return mount_again(root_fd, wanted, error);
    if (wanted->options.bind)
        return mount_bind(setup, root_fd, wanted, prepared, clean, error);
    if (strcmp(wanted->type, "cgroup") == 0 || strcmp(wanted->type, "cgroup2") == 0)
        return check_proc(wanted, clean, -1, -1, error) < 0 ? -1 : mount_cgroups(setup, root_fd, wanted, error);
    return mount_filesystem(setup, root_fd, wanted, clean, error);
}

int mounts_apply(const struct setup *setup, int root_fd, struct error *error)
{
    for (size_t i = 0; i < setup->config->mount_count; i++) {
        int prepared = setup->mount_trees == NULL ? -1 : setup->mount_trees[i];
        if (apply_one(setup, root_fd, &setup->config->mounts[i], prepared, error) < 0)
            return fail_in(error, "mounts[%zu]", i);
    }
    return 0;
}

/* ---- masked and read-only paths ---- */

/*
 * CVE-2025-31133: the mask of a file is the host's null device, opened before the container's /dev could be asked,
 * and checked to be 1:3.
 */
static int open_null(int *out, struct error *error)
{
    cleanup_fd int fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail(error, errno, "open the host's /dev/null");
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3))
        return fail(error, EINVAL, "use the host's /dev/null: it is not device 1:3");
    *out = take_fd(&fd);
    return 0;
}

static int mask_one(int root_fd, const char *path, int null_fd, int *empty, struct error *error)
{
    struct stat status;
    cleanup_fd int target = open_in_root(root_fd, path, 0), tree = -1;
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(error, errno, "open masked path %s", path);
    if (fstat(target, &status) < 0)
        return fail(error, errno, "read the kind of masked path %s", path);
    if (!S_ISDIR(status.st_mode)) {
        if (mount_clone(null_fd, false, &tree, "/dev/null", error) < 0)
            return -1;
    } else if (*empty < 0) {
        /* One empty read-only tmpfs stands for every masked directory. */
        if (mount_open_filesystem("tmpfs", "tmpfs", "mode=755,size=4k,nr_inodes=2", 0,
                                  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, empty, error) < 0)
            return -1;
        return mount_attach(*empty, target, path, error);
    } else if (mount_clone(*empty, false, &tree, "an empty tmpfs", error) < 0) {
        return -1;
    }
    return mount_attach(tree, target, path, error);
}

static int protect_one(int root_fd, const char *path, struct error *error)
{
    cleanup_fd int target = open_in_root(root_fd, path, 0), tree = -1;
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(error, errno, "open read-only path %s", path);
    if (mount_clone(target, true, &tree, path, error) < 0 ||
        mount_set(tree, true, MOUNT_ATTR_RDONLY, 0, 0, path, error) < 0)
        return -1;
    return mount_attach(tree, target, path, error);
}

int mounts_mask(const struct setup *setup, int root_fd, struct error *error)
{
    const struct config *config = setup->config;
    for (size_t i = 0; config->readonly_paths != NULL && config->readonly_paths[i] != NULL; i++)
        if (protect_one(root_fd, config->readonly_paths[i], error) < 0)
            return -1;
    if (config->masked_paths == NULL || config->masked_paths[0] == NULL)
        return 0;
    cleanup_fd int null_fd = -1, empty = -1;
    if (open_null(&null_fd, error) < 0)
        return -1;
    for (size_t i = 0; config->masked_paths[i] != NULL; i++)
        if (mask_one(root_fd, config->masked_paths[i], null_fd, &empty, error) < 0)
            return -1;
    return 0;
}
