#include "isolate/devices.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/mounts.h"
#include "isolate/setup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const struct device_node standard[] = {
    {.type = 'c', .path = "/dev/null", .major = 1, .minor = 3, .mode = 0666},
    {.type = 'c', .path = "/dev/zero", .major = 1, .minor = 5, .mode = 0666},
    {.type = 'c', .path = "/dev/full", .major = 1, .minor = 7, .mode = 0666},
    {.type = 'c', .path = "/dev/random", .major = 1, .minor = 8, .mode = 0666},
    {.type = 'c', .path = "/dev/urandom", .major = 1, .minor = 9, .mode = 0666},
    {.type = 'c', .path = "/dev/tty", .major = 5, .minor = 0, .mode = 0666},
};

static mode_t file_type(const struct device_node *node)
{
    return node->type == 'c' ? S_IFCHR : node->type == 'b' ? S_IFBLK : S_IFIFO;
}

/* True when `fd` is the device that the node asks for. */
static bool is_node(int fd, const struct device_node *node)
{
    struct stat status;
    return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == file_type(node) &&
           (node->type == 'p' || status.st_rdev == makedev(node->major, node->minor));
}

/* In a user namespace mknod(2) is refused: the host's node of the same number is bound instead. */
static int bind_node(int parent_fd, const char *name, const struct device_node *node, struct error *error)
{
    cleanup_fd int source = open(node->path, O_PATH | O_CLOEXEC), tree = -1, target = -1;
    if (source < 0)
        return fail(error, errno, "bind device %s: open the host's", node->path);
    if (!is_node(source, node))
        return fail(error, EINVAL, "bind device %s: the host's is another device", node->path);
    cleanup_fd int made = open_resolved(parent_fd, name, O_CREAT | O_RDONLY | O_NOFOLLOW, 0644, RESOLVE_BENEATH);
    if (made < 0)
        return fail(error, errno, "make a place for device %s", node->path);
    target = open_resolved(parent_fd, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH);
    if (target < 0)
        return fail(error, errno, "open the place of device %s", node->path);
    if (mount_clone(source, false, &tree, node->path, error) < 0)
        return -1;
    return mount_attach(tree, target, node->path, error);
}

static int make_node(const struct setup *setup, int root_fd, const struct device_node *node, struct error *error)
{
    char buffer[PATH_MAX];
    const char *name = NULL;
    cleanup_fd int parent = -1;
    if (make_parent_in_root(root_fd, node->path, 0755, &parent, buffer, sizeof buffer, &name, error) < 0)
        return fail_in(error, "device %s", node->path);
    if (setup->in_user_namespace && node->type != 'p')
        return bind_node(parent, name, node, error);
    /* mknodat(2) neither follows nor replaces what stands at the last name. */
    if (mknodat(parent, name, file_type(node) | node->mode, makedev(node->major, node->minor)) < 0) {
        if (errno != EEXIST)
            return fail(error, errno, "make device %s", node->path);
        cleanup_fd int existing = open_resolved(parent, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH);
        if (existing < 0)
            return fail(error, errno, "open what stands at device %s", node->path);
        if (!is_node(existing, node))
            return fail(error, EEXIST, "make device %s: another file stands there", node->path);
        return 0; /* the image brought it, with the mode and owner it wants */
    }
    cleanup_fd int made = open_resolved(parent, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH);
    if (made < 0)
        return fail(error, errno, "open device %s", node->path);
    /* The mode again, for mknod(2) applied the umask. Through procfs, since fchmod(2) refuses O_PATH. */
    if (is_node(made, node) && chmod(fd_path(made).text, node->mode) < 0)
        return fail(error, errno, "set the mode of device %s", node->path);
    if ((node->uid != 0 || node->gid != 0) && fchownat(made, "", node->uid, node->gid, AT_EMPTY_PATH) < 0)
        return fail(error, errno, "set the owner of device %s", node->path);
    return 0;
}

static int link_in_dev(int dev_fd, const char *target, const char *name, struct error *error)
{
    if (symlinkat(target, dev_fd, name) < 0 && errno != EEXIST)
        return fail(error, errno, "link /dev/%s", name);
    return 0;
}

/* runtime-linux.md: links whose source exists once the mounts are done. */
static int make_links(int root_fd, int dev_fd, struct error *error)
{
    cleanup_fd int proc = open_in_root(root_fd, "proc/self/fd", 0);
    if (proc >= 0 && (link_in_dev(dev_fd, "/proc/self/fd", "fd", error) < 0 ||
                      link_in_dev(dev_fd, "/proc/self/fd/0", "stdin", error) < 0 ||
                      link_in_dev(dev_fd, "/proc/self/fd/1", "stdout", error) < 0 ||
                      link_in_dev(dev_fd, "/proc/self/fd/2", "stderr", error) < 0))
        return -1;
    cleanup_fd int core = open_in_root(root_fd, "proc/kcore", 0);
    if (core >= 0 && link_in_dev(dev_fd, "/proc/kcore", "core", error) < 0)
        return -1;
    /* OCI config-linux.md: /dev/ptmx is a link or bind of the container's own devpts, never the host's. */
    if (unlinkat(dev_fd, "ptmx", 0) < 0 && errno != ENOENT)
        return fail(error, errno, "replace /dev/ptmx");
    return link_in_dev(dev_fd, "pts/ptmx", "ptmx", error);
}

/* A bound /dev is the caller's own: nothing is made in it, for it may be the host's. */
static bool dev_is_bound(const struct config *config)
{
    for (size_t i = 0; i < config->mount_count; i++) {
        char clean[PATH_MAX];
        struct error ignored; /* a destination that is too long was refused when it was mounted */
        if (config->mounts[i].options.bind && clean_path(config->mounts[i].destination, clean, sizeof clean, &ignored) == 0 &&
            strcmp(clean, "dev") == 0)
            return true;
    }
    return false;
}

static bool is_listed(const struct config *config, const char *path)
{
    for (size_t i = 0; i < config->device_count; i++)
        if (strcmp(config->devices[i].path, path) == 0)
            return true;
    return false;
}

int devices_make(const struct setup *setup, int root_fd, struct error *error)
{
    const struct config *config = setup->config;
    cleanup_fd int dev = -1;
    if (dev_is_bound(config))
        return 0;
    if (make_directory_in_root(root_fd, "/dev", 0755, &dev, error) < 0)
        return -1;
    for (size_t i = 0; i < sizeof standard / sizeof *standard; i++)
        if (!is_listed(config, standard[i].path) && make_node(setup, root_fd, &standard[i], error) < 0)
            return -1;
    for (size_t i = 0; i < config->device_count; i++)
        if (make_node(setup, root_fd, &config->devices[i], error) < 0)
            return -1;
    return make_links(root_fd, dev, error);
}
