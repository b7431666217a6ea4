#include "isolate/mount_options.h"
#include "common/fd.h"

#include <string.h>
#include <sys/mount.h>

enum { DATA_BYTES_MAX = 4095 }; /* the kernel takes one page, mount(2) */

enum action {
    NOTHING,
    ATTRIBUTE,           /* set the bits of the mount */
    ATTRIBUTE_CLEAR,
    RECURSIVE,           /* set them for the whole tree, mount_setattr(2) AT_RECURSIVE */
    RECURSIVE_CLEAR,
    PROPAGATION,
    PROPAGATION_RECURSIVE,
    SUPERBLOCK,
    SUPERBLOCK_CLEAR,
    BIND,
    BIND_RECURSIVE,
    REMOUNT,
    IDMAP,
    IDMAP_RECURSIVE,
};

/* In the order of the table in OCI config.md. */
static const struct option {
    const char *name;
    enum action action;
    uint64_t bits;
} known[] = {
    {"async", SUPERBLOCK_CLEAR, MS_SYNCHRONOUS},
    {"atime", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOATIME},
    {"bind", BIND, 0},
    {"defaults", NOTHING, 0},
    {"dev", ATTRIBUTE_CLEAR, MOUNT_ATTR_NODEV},
    {"diratime", ATTRIBUTE_CLEAR, MOUNT_ATTR_NODIRATIME},
    {"dirsync", SUPERBLOCK, MS_DIRSYNC},
    {"exec", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOEXEC},
    {"iversion", SUPERBLOCK, MS_I_VERSION},
    {"lazytime", SUPERBLOCK, MS_LAZYTIME},
    {"loud", SUPERBLOCK_CLEAR, MS_SILENT},
    {"mand", SUPERBLOCK, MS_MANDLOCK},
    {"noatime", ATTRIBUTE, MOUNT_ATTR_NOATIME},
    {"nodev", ATTRIBUTE, MOUNT_ATTR_NODEV},
    {"nodiratime", ATTRIBUTE, MOUNT_ATTR_NODIRATIME},
    {"noexec", ATTRIBUTE, MOUNT_ATTR_NOEXEC},
    {"noiversion", SUPERBLOCK_CLEAR, MS_I_VERSION},
    {"nolazytime", SUPERBLOCK_CLEAR, MS_LAZYTIME},
    {"nomand", SUPERBLOCK_CLEAR, MS_MANDLOCK},
    {"norelatime", ATTRIBUTE_CLEAR, MOUNT_ATTR_RELATIME},
    {"nostrictatime", ATTRIBUTE_CLEAR, MOUNT_ATTR_STRICTATIME},
    {"nosuid", ATTRIBUTE, MOUNT_ATTR_NOSUID},
    {"nosymfollow", ATTRIBUTE, MOUNT_ATTR_NOSYMFOLLOW},
    {"private", PROPAGATION, MS_PRIVATE},
    {"ratime", RECURSIVE_CLEAR, MOUNT_ATTR_NOATIME},
    {"rbind", BIND_RECURSIVE, 0},
    {"rdev", RECURSIVE_CLEAR, MOUNT_ATTR_NODEV},
    {"rdiratime", RECURSIVE_CLEAR, MOUNT_ATTR_NODIRATIME},
    {"relatime", ATTRIBUTE, MOUNT_ATTR_RELATIME},
    {"remount", REMOUNT, 0},
    {"rexec", RECURSIVE_CLEAR, MOUNT_ATTR_NOEXEC},
    {"rnoatime", RECURSIVE, MOUNT_ATTR_NOATIME},
    {"rnodev", RECURSIVE, MOUNT_ATTR_NODEV},
    {"rnodiratime", RECURSIVE, MOUNT_ATTR_NODIRATIME},
    {"rnoexec", RECURSIVE, MOUNT_ATTR_NOEXEC},
    {"rnorelatime", RECURSIVE_CLEAR, MOUNT_ATTR_RELATIME},
    {"rnostrictatime", RECURSIVE_CLEAR, MOUNT_ATTR_STRICTATIME},
    {"rnosuid", RECURSIVE, MOUNT_ATTR_NOSUID},
    {"rnosymfollow", RECURSIVE, MOUNT_ATTR_NOSYMFOLLOW},
    {"ro", ATTRIBUTE, MOUNT_ATTR_RDONLY},
    {"rprivate", PROPAGATION_RECURSIVE, MS_PRIVATE},
    {"rrelatime", RECURSIVE, MOUNT_ATTR_RELATIME},
    {"rro", RECURSIVE, MOUNT_ATTR_RDONLY},
    {"rrw", RECURSIVE_CLEAR, MOUNT_ATTR_RDONLY},
    {"rshared", PROPAGATION_RECURSIVE, MS_SHARED},
    {"rslave", PROPAGATION_RECURSIVE, MS_SLAVE},
    {"rstrictatime", RECURSIVE, MOUNT_ATTR_STRICTATIME},
    {"rsuid", RECURSIVE_CLEAR, MOUNT_ATTR_NOSUID},
    {"rsymfollow", RECURSIVE_CLEAR, MOUNT_ATTR_NOSYMFOLLOW},
    {"runbindable", PROPAGATION_RECURSIVE, MS_UNBINDABLE},
    {"rw", ATTRIBUTE_CLEAR, MOUNT_ATTR_RDONLY},
    {"shared", PROPAGATION, MS_SHARED},
    {"silent", SUPERBLOCK, MS_SILENT},
    {"slave", PROPAGATION, MS_SLAVE},
    {"strictatime", ATTRIBUTE, MOUNT_ATTR_STRICTATIME},
    {"suid", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOSUID},
    {"symfollow", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOSYMFOLLOW},
    {"sync", SUPERBLOCK, MS_SYNCHRONOUS},
    {"unbindable", PROPAGATION, MS_UNBINDABLE},
    {"idmap", IDMAP, 0},
    {"ridmap", IDMAP_RECURSIVE, 0},
};
enum { OPTIONS_KNOWN = sizeof known / sizeof *known };

const char *mount_option_name(size_t index)
{
    return index < OPTIONS_KNOWN ? known[index].name : NULL;
}

void mount_options_free(struct mount_options *options)
{
    free(options->data);
    options->data = NULL;
}

/*
 * Access times are one value of three behind MOUNT_ATTR__ATIME, and RELATIME is its zero (mount_setattr(2)): setting
 * one of them clears the field first, and "clearing" one means a return to relatime, the kernel's default.
 */
static void apply_attribute(uint64_t bits, bool on, uint64_t *set, uint64_t *clear)
{
    const uint64_t access_times = MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME;
    if (bits == MOUNT_ATTR_RELATIME || (bits & access_times) != 0) {
        if (!on && bits != MOUNT_ATTR_RELATIME && (*set & access_times & ~bits) != 0)
            return; /* "nostrictatime" after "noatime" changes nothing */
        *set &= ~access_times;
        *clear |= MOUNT_ATTR__ATIME;
        if (on)
            *set |= bits;
        return;
    }
    if (on) {
        *set |= bits;
        *clear &= ~bits;
    } else {
        *set &= ~bits;
        *clear |= bits;
    }
}

static int append_data(char **data, size_t *length, const char *option, struct error *error)
{
    size_t size = strlen(option);
    if (*length + size + 2 > DATA_BYTES_MAX)
        return fail(error, E2BIG, "mount options are longer than %d bytes", DATA_BYTES_MAX);
    char *grown = realloc(*data, *length + size + 2);
    if (grown == NULL)
        return fail(error, ENOMEM, "collect mount options");
    if (*length > 0)
        grown[(*length)++] = ',';
    memcpy(grown + *length, option, size + 1);
    *length += size;
    *data = grown;
    return 0;
}

static void apply_known(const struct option *option, struct mount_options *out)
{
    switch (option->action) {
    case NOTHING:
        break;
    case ATTRIBUTE:
    case ATTRIBUTE_CLEAR:
        apply_attribute(option->bits, option->action == ATTRIBUTE, &out->set, &out->clear);
        break;
    case RECURSIVE:
    case RECURSIVE_CLEAR:
        apply_attribute(option->bits, option->action == RECURSIVE, &out->recursive_set, &out->recursive_clear);
        break;
    case PROPAGATION:
    case PROPAGATION_RECURSIVE:
        out->propagation = option->bits;
        out->propagation_recursive = option->action == PROPAGATION_RECURSIVE;
        break;
    case SUPERBLOCK:
        out->superblock |= option->bits;
        break;
    case SUPERBLOCK_CLEAR:
        out->superblock &= ~option->bits;
        break;
    case BIND:
        out->bind = true;
        break;
    case BIND_RECURSIVE:
        out->bind = out->bind_recursive = true;
        break;
    case REMOUNT:
        out->remount = true;
        break;
    case IDMAP:
        out->idmap = true;
        break;
    case IDMAP_RECURSIVE:
        out->idmap = out->idmap_recursive = true;
        break;
    }
}

int mount_options_parse(const char *const *options, size_t count, struct mount_options *out, struct error *error)
{
    size_t length = 0;
    memset(out, 0, sizeof *out);
    out->data = strdup("");
    if (out->data == NULL)
        return fail(error, ENOMEM, "collect mount options");
    for (size_t i = 0; i < count; i++) {
        const struct option *match = NULL;
        for (size_t k = 0; k < OPTIONS_KNOWN && match == NULL; k++)
            if (strcmp(options[i], known[k].name) == 0)
                match = &known[k];
        if (strcmp(options[i], "tmpcopyup") == 0) {
            mount_options_free(out);
            return fail(error, ENOTSUP, "mount option tmpcopyup is not supported by this runtime");
        }
        if (match != NULL)
            apply_known(match, out);
        else if (*options[i] != '\0' && append_data(&out->data, &length, options[i], error) < 0) {
            mount_options_free(out);
            return -1;
        }
    }
    return 0;
}
