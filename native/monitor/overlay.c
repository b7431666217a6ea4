#include "monitor/overlay.h"

#include "common/fd.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

int enter_private_mounts(struct error *error)
{
    if (unshare(CLONE_NEWNS) < 0)
        return fail(error, errno, "enter a mount namespace");
    if (mount("none", "/", "none", MS_REC | MS_SLAVE, NULL) < 0)
        return fail(error, errno, "make all mounts slaves of the host's");
    return 0;
}

static int set(int context, const char *key, const char *value, struct error *error)
{
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, key, value, 0) < 0)
        return fail(error, errno, "set overlay option %s=%s", key, value);
    return 0;
}

/* `lowerdir+` (6.5) takes one layer at a time, so that neither their number nor a colon in a path matters. */
static int mount_by_layers(const struct overlay_options *overlay, struct error *error)
{
    cleanup_fd int context = (int)syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (context < 0)
        return fail(error, errno, "open an overlay filesystem");
    for (unsigned i = 0; i < overlay->lower_count; i++)
        if (set(context, "lowerdir+", overlay->lowers[i], error) < 0)
            return -1;
    if (overlay->upper != NULL &&
        (set(context, "upperdir", overlay->upper, error) < 0 || set(context, "workdir", overlay->work, error) < 0))
        return -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return fail(error, errno, "create an overlay filesystem");
    cleanup_fd int tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    if (tree < 0)
        return fail(error, errno, "prepare the overlay mount");
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, overlay->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return fail(error, errno, "mount the overlay on %s", overlay->target);
    return 0;
}

int overlay_mount(const struct overlay_options *overlay, struct error *error)
{
    if (overlay->lower_count == 1 && overlay->upper == NULL) {
        /* Overlay wants two layers; a bind mount of one is the same thing. */
        if (mount(overlay->lowers[0], overlay->target, "none", MS_BIND, NULL) < 0)
            return fail(error, errno, "bind %s on %s", overlay->lowers[0], overlay->target);
        return 0;
    }
    /* mount(2) takes one page of options; it works on every kernel, so it goes first when they fit. */
    char options[4096];
    size_t used = (size_t)snprintf(options, sizeof options, "lowerdir=");
    bool fits = true;
    for (unsigned i = 0; i < overlay->lower_count && fits; i++) {
        fits = strpbrk(overlay->lowers[i], ":\\,") == NULL;
        int size = snprintf(options + used, sizeof options - used, "%s%s", i == 0 ? "" : ":", overlay->lowers[i]);
        fits &= size >= 0 && (size_t)size < sizeof options - used;
        used += fits ? (size_t)size : 0;
    }
    if (fits && overlay->upper != NULL) {
        fits = strpbrk(overlay->upper, ":\\,") == NULL && strpbrk(overlay->work, ":\\,") == NULL;
        int size = snprintf(options + used, sizeof options - used, ",upperdir=%s,workdir=%s", overlay->upper, overlay->work);
        fits &= size >= 0 && (size_t)size < sizeof options - used;
    }
    if (!fits)
        return mount_by_layers(overlay, error);
    if (mount("overlay", overlay->target, "overlay", 0, options) < 0)
        return fail(error, errno, "mount the overlay on %s", overlay->target);
    return 0;
}
