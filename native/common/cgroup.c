#include "common/cgroup.h"
#include "common/fd.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

enum { PROC_CGROUP_BYTES_MAX = 256 * 1024, MOUNTINFO_BYTES_MAX = 16 * 1024 * 1024 };

bool cgroup_list_has(const char *list, const char *name)
{
    size_t wanted = strlen(name);
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        if (length == wanted && memcmp(at, name, length) == 0)
            return true;
        at += length;
        if (*at == '\0')
            return false;
    }
}

void cgroup_layout_free(struct cgroup_layout *layout)
{
    for (size_t i = 0; i < layout->count; i++) {
        free(layout->hierarchies[i].controllers);
        free(layout->hierarchies[i].path);
        free(layout->hierarchies[i].mount);
    }
    memset(layout, 0, sizeof *layout);
}

const struct cgroup_hierarchy *cgroup_find(const struct cgroup_layout *layout, const char *controller)
{
    for (size_t i = 0; i < layout->count; i++) {
        const struct cgroup_hierarchy *hierarchy = &layout->hierarchies[i];
        if (*controller == '\0' ? hierarchy->v2 : !hierarchy->v2 && cgroup_list_has(hierarchy->controllers, controller))
            return hierarchy;
    }
    return NULL;
}

int cgroup_parse_membership(const char *text, struct cgroup_layout *layout, struct error *error)
{
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        const char *controllers = memchr(line, ':', length);
        const char *path = controllers == NULL
                               ? NULL
                               : memchr(controllers + 1, ':', length - (size_t)(controllers + 1 - line));
        if (path == NULL || path[1] != '/')
            return fail(error, EINVAL, "parse the cgroup line \"%.*s\"", (int)(length > 100 ? 100 : length), line);
        if (layout->count == CGROUP_HIERARCHIES_MAX)
            return fail(error, E2BIG, "more than %d cgroup hierarchies", CGROUP_HIERARCHIES_MAX);
        struct cgroup_hierarchy *hierarchy = &layout->hierarchies[layout->count];
        hierarchy->controllers = strndup(controllers + 1, (size_t)(path - controllers - 1));
        hierarchy->path = strndup(path + 1, (size_t)(line + length - path - 1));
        hierarchy->mount = NULL;
        layout->count++;
        if (hierarchy->controllers == NULL || hierarchy->path == NULL)
            return fail(error, ENOMEM, "parse the cgroups of a process");
        hierarchy->v2 = *hierarchy->controllers == '\0';
        line += length;
        if (*line == '\n')
            line++;
    }
    return 0;
}

/* One blank-separated field of a mountinfo line; NULL at its end. */
static const char *next_field(const char **at, const char *end, size_t *length)
{
    while (*at < end && **at == ' ')
        (*at)++;
    const char *field = *at;
    while (*at < end && **at != ' ')
        (*at)++;
    *length = (size_t)(*at - field);
    return *length == 0 ? NULL : field;
}

static bool field_is(const char *field, size_t length, const char *text)
{
    return field != NULL && length == strlen(text) && memcmp(field, text, length) == 0;
}

/* True when the super options of a v1 mount name the hierarchy: its first controller is enough, since none is in two. */
static bool options_name(const char *options, size_t length, const char *controllers)
{
    size_t first = strcspn(controllers, ",");
    for (size_t at = 0; at < length;) {
        size_t end = at;
        while (end < length && options[end] != ',')
            end++;
        if (end - at == first && memcmp(options + at, controllers, first) == 0)
            return true;
        at = end + 1;
    }
    return false;
}

int cgroup_parse_mounts(const char *text, struct cgroup_layout *layout, struct error *error)
{
    /* proc_pid_mountinfo(5): id parent major:minor root mount-point options [tags...] - type source super-options */
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n"), size = 0, mount_length = 0;
        const char *end = line + length, *at = line, *field = NULL, *mount = NULL;
        for (int i = 0; i < 5; i++)
            mount = next_field(&at, end, &mount_length);
        do
            field = next_field(&at, end, &size);
        while (field != NULL && !field_is(field, size, "-"));
        const char *type = field == NULL ? NULL : next_field(&at, end, &size);
        bool v2 = field_is(type, size, "cgroup2");
        bool v1 = field_is(type, size, "cgroup");
        if (mount != NULL && (v1 || v2)) {
            (void)next_field(&at, end, &size);
            const char *options = next_field(&at, end, &size);
            for (size_t i = 0; i < layout->count; i++) {
                struct cgroup_hierarchy *hierarchy = &layout->hierarchies[i];
                bool same = v2 ? hierarchy->v2
                               : !hierarchy->v2 && options != NULL && options_name(options, size, hierarchy->controllers);
                if (!same || hierarchy->mount != NULL)
                    continue;
                hierarchy->mount = strndup(mount, mount_length);
                if (hierarchy->mount == NULL)
                    return fail(error, ENOMEM, "parse the mounts of cgroups");
            }
        }
        line += length;
        if (*line == '\n')
            line++;
    }
    return 0;
}

static bool is_filesystem(const char *path, long magic)
{
    struct statfs status;
    return statfs(path, &status) == 0 && status.f_type == magic;
}

/* Tries the places where every distribution mounts them, so that a crowded mount table need not be read. */
static int find_conventional_mounts(struct cgroup_layout *layout, size_t *missing, struct error *error)
{
    *missing = 0;
    for (size_t i = 0; i < layout->count; i++) {
        struct cgroup_hierarchy *hierarchy = &layout->hierarchies[i];
        const char *name = hierarchy->controllers;
        if (hierarchy->v2) {
            if (is_filesystem("/sys/fs/cgroup", CGROUP2_SUPER_MAGIC))
                hierarchy->mount = strdup("/sys/fs/cgroup");
            else if (is_filesystem("/sys/fs/cgroup/unified", CGROUP2_SUPER_MAGIC))
                hierarchy->mount = strdup("/sys/fs/cgroup/unified");
        } else {
            if (strncmp(name, "name=", 5) == 0)
                name += 5;
            cleanup_free char *path = format_text("/sys/fs/cgroup/%s", name);
            if (path == NULL)
                return fail(error, ENOMEM, "find the cgroup mounts");
            if (strchr(name, '/') == NULL && is_filesystem(path, CGROUP_SUPER_MAGIC)) {
                hierarchy->mount = path;
                path = NULL;
            }
        }
        if (hierarchy->mount == NULL)
            (*missing)++;
    }
    return 0;
}

int cgroup_layout_detect(struct cgroup_layout *layout, struct error *error)
{
    cleanup_free char *membership = NULL;
    size_t missing = 0;
    memset(layout, 0, sizeof *layout);
    if (read_file_at(AT_FDCWD, "/proc/self/cgroup", PROC_CGROUP_BYTES_MAX, &membership, NULL, error) < 0 ||
        cgroup_parse_membership(membership, layout, error) < 0 ||
        find_conventional_mounts(layout, &missing, error) < 0)
        goto failed;
    if (missing == layout->count && missing > 0) {
        cleanup_free char *mounts = NULL;
        if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_BYTES_MAX, &mounts, NULL, error) < 0 ||
            cgroup_parse_mounts(mounts, layout, error) < 0)
            goto failed;
    }
    bool v1 = false, v2 = false;
    for (size_t i = 0; i < layout->count; i++) {
        if (layout->hierarchies[i].mount == NULL)
            continue;
        if (layout->hierarchies[i].v2)
            v2 = true;
        else
            v1 = true;
    }
    layout->mode = v1 && v2 ? CGROUP_HYBRID : v1 ? CGROUP_LEGACY : v2 ? CGROUP_UNIFIED : CGROUP_NONE;
    return 0;
failed:
    cgroup_layout_free(layout);
    return -1;
}
