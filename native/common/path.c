#include "common/path.h"
#include "common/fd.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int open_resolved(int dir_fd, const char *path, uint64_t flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    /* openat2(2): EAGAIN means that a rename raced with `..`; an attacker can keep that up, hence the bound. */
    for (int attempt = 0;; attempt++) {
        long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
        if (fd >= 0)
            return (int)fd;
        if ((errno != EAGAIN && errno != EINTR) || attempt >= 128)
            return -1;
    }
}

int open_in_root(int root_fd, const char *path, uint64_t flags)
{
    while (*path == '/')
        path++;
    return open_resolved(root_fd, *path == '\0' ? "." : path, flags | O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/*
 * One step of mkdir -p. The prefix is resolved anew from the root for each part, because a link in it may leave and
 * re-enter; the new directory is then made by its last name below a descriptor, where no link is followed.
 */
int make_directory_in_root(int root_fd, const char *path, mode_t mode, int *out, struct error *error)
{
    char prefix[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof prefix)
        return fail(error, ENAMETOOLONG, "make directory %.64s...", path);
    cleanup_fd int existing = open_in_root(root_fd, path, O_DIRECTORY);
    if (existing >= 0) {
        *out = take_fd(&existing);
        return 0;
    }
    if (errno != ENOENT)
        return fail(error, errno, "open directory %s in the root", path);
    cleanup_fd int current = open_in_root(root_fd, "/", O_DIRECTORY);
    if (current < 0)
        return fail(error, errno, "open the root directory");
    for (size_t end = 0; end < length;) {
        size_t start = end;
        while (start < length && path[start] == '/')
            start++;
        end = start;
        while (end < length && path[end] != '/')
            end++;
        if (end == start)
            break;
        memcpy(prefix, path, end);
        prefix[end] = '\0';
        int next = open_in_root(root_fd, prefix, O_DIRECTORY);
        if (next < 0 && errno == ENOENT) {
            const char *name = prefix + start;
            if (strcmp(name, "..") == 0 || strcmp(name, ".") == 0)
                return fail(error, EINVAL, "make directory %s: %s after a missing part", path, name);
            if (mkdirat(current, name, mode) < 0 && errno != EEXIST)
                return fail(error, errno, "make directory %s in the root", prefix);
            /* O_NOFOLLOW: a link put here since then, or a dangling one that stood here, is refused. */
            next = open_resolved(current, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, RESOLVE_BENEATH);
        }
        if (next < 0)
            return fail(error, errno, "open directory %s in the root", prefix);
        close(current);
        current = next;
    }
    *out = take_fd(&current);
    return 0;
}

int make_parent_in_root(int root_fd, const char *path, mode_t mode, int *parent_fd, char *buffer, size_t room,
                        const char **name, struct error *error)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length >= room)
        return fail(error, length == 0 ? EINVAL : ENAMETOOLONG, "resolve \"%.64s\" in the root", path);
    memcpy(buffer, path, length);
    buffer[length] = '\0';
    char *slash = strrchr(buffer, '/');
    const char *last = slash == NULL ? buffer : slash + 1;
    if (*last == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return fail(error, EINVAL, "resolve \"%s\" in the root: it must end in a name", path);
    if (slash != NULL)
        *slash = '\0';
    *name = last;
    return make_directory_in_root(root_fd, slash == NULL ? "/" : buffer, mode, parent_fd, error);
}

int make_file_in_root(int root_fd, const char *path, mode_t mode, int *out, struct error *error)
{
    cleanup_fd int existing = open_in_root(root_fd, path, 0);
    if (existing >= 0) {
        *out = take_fd(&existing);
        return 0;
    }
    if (errno != ENOENT)
        return fail(error, errno, "open %s in the root", path);
    char buffer[PATH_MAX];
    const char *name;
    cleanup_fd int parent = -1;
    if (make_parent_in_root(root_fd, path, 0755, &parent, buffer, sizeof buffer, &name, error) < 0)
        return -1;
    /* O_EXCL does not follow a link at the last name, and RESOLVE_BENEATH keeps the name below its parent. */
    cleanup_fd int made = open_resolved(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, mode, RESOLVE_BENEATH);
    if (made < 0)
        return fail(error, errno, "create file %s in the root", path);
    int again = open_resolved(parent, name, O_PATH | O_NOFOLLOW, 0, RESOLVE_BENEATH);
    if (again < 0)
        return fail(error, errno, "open file %s in the root", path);
    *out = again;
    return 0;
}

int clean_path(const char *path, char *out, size_t room, struct error *error)
{
    size_t used = 0;
    if (room == 0)
        return fail(error, ENAMETOOLONG, "clean path \"%.64s\"", path);
    while (*path != '\0') {
        while (*path == '/')
            path++;
        size_t length = strcspn(path, "/");
        if (length == 0)
            break;
        if (length == 2 && memcmp(path, "..", 2) == 0) {
            while (used > 0 && out[used - 1] != '/')
                used--;
            if (used > 0)
                used--;
        } else if (!(length == 1 && *path == '.')) {
            if (used + length + 2 > room)
                return fail(error, ENAMETOOLONG, "clean path \"%.64s\"", path);
            if (used > 0)
                out[used++] = '/';
            memcpy(out + used, path, length);
            used += length;
        }
        path += length;
    }
    out[used] = '\0';
    return 0;
}
