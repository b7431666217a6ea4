#include "isolate/rootfs.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/devices.h"
#include "isolate/faults.h"
#include "isolate/mounts.h"
#include "isolate/setup.h"
#include "isolate/terminal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- overlay ---- */

/* In the options of overlayfs a colon separates layers and a backslash escapes it (kernel Documentation/filesystems/overlayfs). */
static char *join_layers(const char *const *layers, size_t count)
{
    size_t room = 1, used = 0;
    for (size_t i = 0; i < count; i++)
        room += 2 * strlen(layers[i]) + 1;
    char *text = malloc(room);
    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            text[used++] = ':';
        for (const char *at = layers[i]; *at != '\0'; at++) {
            if (*at == ':' || *at == '\\')
                text[used++] = '\\';
            text[used++] = *at;
        }
    }
    text[used] = '\0';
    return text;
}

static int set_string(int context, const char *key, const char *value, struct error *error)
{
    if (fsconfig(context, FSCONFIG_SET_STRING, key, value, 0) < 0)
        return fail(error, errno, "set overlay option %s to %.200s", key, value);
    return 0;
}

/*
 * fsconfig(2) takes values below 256 bytes. Longer lists of layers go one by one ("lowerdir+", Linux 6.5); on older
 * kernels the caller keeps the paths short.
 */
static int set_layers(int context, const struct config *config, struct error *error)
{
    cleanup_free char *all = join_layers(config->overlay_lower, config->overlay_lower_count);
    if (all == NULL)
        return fail(error, ENOMEM, "name the layers of the overlay");
    if (strlen(all) < 256)
        return set_string(context, "lowerdir", all, error);
    for (size_t i = 0; i < config->overlay_lower_count; i++)
        if (set_string(context, "lowerdir+", config->overlay_lower[i], error) < 0)
            return -1;
    return 0;
}

static int open_overlay(const struct config *config, int *out, struct error *error)
{
    cleanup_fd int context = fsopen("overlay", FSOPEN_CLOEXEC);
    if (context < 0)
        return fail(error, errno, "open filesystem type overlay");
    if (set_layers(context, config, error) < 0)
        return -1;
    if (config->overlay_upper != NULL && (set_string(context, "upperdir", config->overlay_upper, error) < 0 ||
                                          set_string(context, "workdir", config->overlay_work, error) < 0))
        return -1;
    if (fsconfig(context, FSCONFIG_SET_STRING, "source", "overlay", 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail(error, errno, "make the overlay of %zu layers on %s", config->overlay_lower_count,
                    config->overlay_upper == NULL ? "nothing" : config->overlay_upper);
    *out = fsmount(context, FSMOUNT_CLOEXEC, 0);
    if (*out < 0)
        return fail(error, errno, "mount the overlay");
    return 0;
}

int rootfs_open_tree(const struct setup *setup, int *out, struct error *error)
{
    if (setup->config->overlay_lower_count > 0)
        return open_overlay(setup->config, out, error);
    cleanup_fd int tree = open_tree(AT_FDCWD, setup->rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    struct stat status;
    if (tree < 0 || fstat(tree, &status) < 0)
        return fail(error, errno, "open root filesystem %s", setup->rootfs);
    if (!S_ISDIR(status.st_mode))
        return fail(error, ENOTDIR, "open root filesystem %s", setup->rootfs);
    *out = take_fd(&tree);
    return 0;
}

/* ---- building ---- */

/* The working directory is made when the image lacks it, as the peers do; a read-only root is no error here. */
static int make_working_directory(const struct setup *setup, int root_fd, struct error *error)
{
    cleanup_fd int made = -1;
    if (!setup->config->has_process)
        return 0;
    if (make_directory_in_root(root_fd, setup->config->process.cwd, 0755, &made, error) < 0 && error->number != EROFS)
        return fail_in(error, "process.cwd");
    return 0;
}

int rootfs_build(const struct setup *setup, int *root_fd, int *console_master, struct error *error)
{
    const struct config *config = setup->config;
    /* Nothing that happens here may reach the host's mounts (mount_namespaces(7)). */
    unsigned long above = config->root_propagation == (MS_PRIVATE | MS_REC) || config->root_propagation == MS_PRIVATE
                              ? MS_PRIVATE | MS_REC
                              : MS_SLAVE | MS_REC;
    if (mount(NULL, "/", NULL, above, NULL) < 0)
        return fail(error, errno, "detach the mounts from the host's");
    cleanup_fd int tree = setup->root_tree;
    if (tree < 0 && rootfs_open_tree(setup, &tree, error) < 0)
        return -1;
    FAULT("root");
    if (config->root_propagation == 0 && mount_set(tree, true, 0, 0, MS_PRIVATE, "/", error) < 0)
        return -1;
    /*
     * The tree goes on top of the namespace's root, which every process can reach, rather than on root.path, whose
     * folders an unprivileged one may not. Lookups from "/" still start at the host's root until pivot_root.
     */
    if (move_mount(tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(error, errno, "attach the root filesystem");
    timings_mark(setup->timings, "root mounted");
    if (mounts_apply(setup, tree, error) < 0)
        return -1;
    FAULT("mounts");
    timings_mark(setup->timings, "mounts");
    if (devices_make(setup, tree, error) < 0)
        return -1;
    FAULT("devices");
    if (config->has_process && config->process.terminal &&
        terminal_open(setup, tree, console_master, error) < 0)
        return -1;
    if (make_working_directory(setup, tree, error) < 0)
        return -1;
    timings_mark(setup->timings, "devices");
    *root_fd = take_fd(&tree);
    return 0;
}

int rootfs_enter(const struct setup *setup, int root_fd, struct error *error)
{
    const struct config *config = setup->config;
    if (mounts_mask(setup, root_fd, error) < 0)
        return -1;
    FAULT("masks");
    timings_mark(setup->timings, "masked and read-only paths");
    if (config->root_readonly && mount_set(root_fd, false, MOUNT_ATTR_RDONLY, 0, 0, "/", error) < 0)
        return -1;
    if (fchdir(root_fd) < 0)
        return fail(error, errno, "enter the root filesystem");
    if (setup->options->no_pivot) {
        if (chroot(".") < 0)
            return fail(error, errno, "change root");
    } else {
        /* pivot_root(2) NOTES: with "." twice the old root ends up on top of the new one, and is detached there. */
        if (syscall(SYS_pivot_root, ".", ".") < 0)
            return fail(error, errno, "pivot to the root filesystem (on an initramfs use --no-pivot)");
        if (umount2(".", MNT_DETACH) < 0)
            return fail(error, errno, "detach the host's root");
    }
    if (chdir("/") < 0)
        return fail(error, errno, "enter the root of the container");
    if (config->root_propagation != 0 &&
        mount_set(root_fd, (config->root_propagation & MS_REC) != 0, 0, 0, config->root_propagation & ~(uint64_t)MS_REC,
                  "/", error) < 0)
        return -1;
    FAULT("pivot");
    timings_mark(setup->timings, "pivot_root");
    return 0;
}
