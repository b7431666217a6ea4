/*
 * See apply.h. Names come from whoever made the archive: each is cleaned, its parent is opened with RESOLVE_IN_ROOT, and
 * all work happens on that descriptor and one last name that is never followed.
 */
#include "archive/apply.h"

#include "common/fd.h"
#include "common/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define OPAQUE_XATTR "trusted.overlay.opaque"
#define REMOVE_DEPTH_MAX 512
#define HOLE_BYTES 65536
#define FREE_CHECK_BYTES (64ull * 1024 * 1024)

/* Writing into a directory changes its times, so those of directories are set at the end. */
struct directory_time {
    char *path;
    struct timespec mtime;
};

struct applier {
    struct tar_reader *reader;
    const struct apply_options *options;
    struct apply_result *result;
    int root_fd;
    uint64_t written_since_check;
    size_t times_count;
    size_t times_room;
    struct directory_time *times;
};

/* Drops leading slashes, "." and empty parts; refuses "..". "" is the top directory. The result is no longer than `path`. */
static int clean_name(const char *path, char *out, size_t room, struct error *error)
{
    size_t used = 0;
    out[0] = '\0';
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && path[0] == '.' && path[1] == '.')
            return fail(error, 0, "TAR_ESCAPES: the name leaves the archive's root by \"..\"");
        if (length > 255)
            return fail(error, 0, "TAR_MALFORMED: part of a name with %zu bytes", length);
        if (length > 0 && !(length == 1 && path[0] == '.')) {
            if (used + length + 2 > room)
                return fail(error, 0, "TAR_MALFORMED: name of more than %zu bytes", room);
            if (used > 0)
                out[used++] = '/';
            memcpy(out + used, path, length);
            used += length;
            out[used] = '\0';
        }
        path += length;
        path += strspn(path, "/");
    }
    return 0;
}

/* Removes what is at `name`, with everything below it, following nothing. */
static int remove_tree(int dir_fd, const char *name, int depth, struct error *error)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail(error, errno, "remove what was there before");
    if (depth >= REMOVE_DEPTH_MAX)
        return fail(error, 0, "TAR_MALFORMED: directories nested deeper than %d", REMOVE_DEPTH_MAX);
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(error, errno, "open the directory that was there before");
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int number = errno;
        close(fd);
        return fail(error, number, "read the directory that was there before");
    }
    int done = 0;
    for (;;) {
        errno = 0;
        struct dirent *child = readdir(dir);
        if (child == NULL) {
            if (errno != 0)
                done = fail(error, errno, "read the directory that was there before");
            break;
        }
        if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
            continue;
        done = remove_tree(dirfd(dir), child->d_name, depth + 1, error);
        if (done < 0)
            break;
    }
    closedir(dir);
    if (done < 0)
        return -1;
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0)
        return fail(error, errno, "remove the directory that was there before");
    return 0;
}

/*
 * lsetxattr(2) takes a path: the process stands in the parent directory, and the last name is not followed.
 * trusted.* steers overlayfs (trusted.overlay.redirect would graft any directory in), so an archive must not bring it.
 */
static int set_xattrs(struct applier *applier, int parent_fd, const char *name, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    if (entry->xattrs_count == 0)
        return 0;
    if (fchdir(parent_fd) < 0)
        return fail(error, errno, "enter the parent directory");
    for (size_t i = 0; i < entry->xattrs_count; i++) {
        const struct tar_xattr *xattr = &entry->xattrs[i];
        if (strncmp(xattr->name, "trusted.", 8) == 0)
            return fail(error, 0, "TAR_UNSAFE: extended attribute %s", xattr->name);
        bool wanted = strncmp(xattr->name, "user.", 5) == 0 || strcmp(xattr->name, "security.capability") == 0 ||
                      strncmp(xattr->name, "system.posix_acl_", 17) == 0;
        if (!wanted) {
            applier->result->xattrs_ignored++;
            continue;
        }
        if (lsetxattr(name, xattr->name, xattr->value, xattr->length, 0) < 0) {
            bool tolerable = errno == ENOTSUP || (errno == EPERM && strncmp(xattr->name, "user.", 5) == 0);
            if (!tolerable)
                return fail(error, errno, "set extended attribute %s", xattr->name);
            applier->result->xattrs_ignored++;
        }
    }
    return 0;
}

static int mark_opaque(int parent_fd, const char *name, struct error *error)
{
    if (fchdir(parent_fd) < 0)
        return fail(error, errno, "enter the parent directory");
    if (lsetxattr(name, OPAQUE_XATTR, "y", 1, 0) < 0)
        return fail(error, errno, "make a directory opaque");
    return 0;
}

static int remember_time(struct applier *applier, const char *path, const struct tar_entry *entry, struct error *error)
{
    if (applier->times_count == applier->times_room) {
        size_t room = applier->times_room == 0 ? 256 : applier->times_room * 2;
        struct directory_time *grown = reallocarray(applier->times, room, sizeof *grown);
        if (grown == NULL)
            return fail(error, ENOMEM, "remember the times of directories");
        applier->times = grown;
        applier->times_room = room;
    }
    char *copy = strdup(path);
    if (copy == NULL)
        return fail(error, ENOMEM, "remember the times of directories");
    applier->times[applier->times_count++] = (struct directory_time){
        .path = copy,
        .mtime = {.tv_sec = entry->mtime_seconds, .tv_nsec = entry->mtime_nanos},
    };
    return 0;
}

/* Owner before mode, since chown(2) clears set-user-ID; attributes last, since chown clears file capabilities too. */
static int set_attributes(struct applier *applier, int parent_fd, const char *name, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    if (fchownat(parent_fd, name, (uid_t)entry->uid, (gid_t)entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(error, errno, "give to %llu:%llu", (unsigned long long)entry->uid, (unsigned long long)entry->gid);
    /* Links have no mode of their own; the name was made by us a moment ago in a directory that only we change. */
    if (entry->type != TAR_SYMLINK && fchmodat(parent_fd, name, entry->mode, 0) < 0)
        return fail(error, errno, "set the mode");
    if (set_xattrs(applier, parent_fd, name, error) < 0)
        return -1;
    struct timespec times[2] = {
        {.tv_sec = entry->mtime_seconds, .tv_nsec = entry->mtime_nanos},
        {.tv_sec = entry->mtime_seconds, .tv_nsec = entry->mtime_nanos},
    };
    if (utimensat(parent_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(error, errno, "set the times");
    return 0;
}

static int check_free_space(struct applier *applier, int fd, uint64_t about_to_write, struct error *error)
{
    applier->written_since_check += about_to_write;
    if (applier->written_since_check < FREE_CHECK_BYTES)
        return 0;
    applier->written_since_check = 0;
    struct statfs facts;
    if (fstatfs(fd, &facts) < 0)
        return fail(error, errno, "ask for free space");
    uint64_t free_bytes = (uint64_t)facts.f_bavail * (uint64_t)facts.f_bsize;
    if (free_bytes < applier->options->reserve_bytes)
        return fail(error, ENOSPC, "TAR_NO_SPACE: %llu bytes are left, %llu are reserved",
                    (unsigned long long)free_bytes, (unsigned long long)applier->options->reserve_bytes);
    return 0;
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* One run of data at `offset`; long runs of zeros become holes. */
static int write_run(struct applier *applier, int fd, uint64_t offset, uint64_t length, struct error *error)
{
    static uint8_t buffer[HOLE_BYTES];
    while (length > 0) {
        size_t piece = length < sizeof buffer ? (size_t)length : sizeof buffer;
        size_t got = 0;
        while (got < piece) {
            ssize_t count = tar_read(applier->reader, buffer + got, piece - got, error);
            if (count < 0)
                return -1;
            if (count == 0)
                return fail(error, 0, "TAR_TRUNCATED: the file's data ends early");
            got += (size_t)count;
        }
        if (piece < sizeof buffer || !all_zero(buffer, piece)) {
            if (check_free_space(applier, fd, piece, error) < 0)
                return -1;
            if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
                return fail(error, errno, "seek to %llu", (unsigned long long)offset);
            if (write_all(fd, buffer, piece, "the file", error) < 0)
                return -1;
            applier->result->bytes += piece;
        }
        offset += piece;
        length -= piece;
    }
    return 0;
}

static int write_file(struct applier *applier, int parent_fd, const char *name, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    cleanup_fd int fd = openat(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(error, errno, "create the file");
    if (!entry->sparse) {
        if (write_run(applier, fd, 0, entry->size, error) < 0)
            return -1;
    }
    for (size_t i = 0; i < entry->extents_count; i++)
        if (write_run(applier, fd, entry->extents[i].offset, entry->extents[i].length, error) < 0)
            return -1;
    if (ftruncate(fd, (off_t)entry->size) < 0)
        return fail(error, errno, "set the size to %llu", (unsigned long long)entry->size);
    return 0;
}

static int link_file(struct applier *applier, int parent_fd, const char *name, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    char target[TAR_PATH_MAX + 2];
    if (clean_name(entry->link, target, sizeof target, error) < 0)
        return -1;
    char buffer[TAR_PATH_MAX + 2];
    const char *last = NULL;
    cleanup_fd int target_fd = -1;
    if (target[0] == '\0')
        return fail(error, 0, "TAR_MALFORMED: hard link to the top directory");
    if (make_parent_in_root(applier->root_fd, target, 0755, &target_fd, buffer, sizeof buffer, &last, error) < 0)
        return -1;
    if (linkat(target_fd, last, parent_fd, name, 0) < 0)
        return fail(error, errno, "link to \"%s\"", entry->link);
    return 0;
}

/* Makes the object; what was at its name is gone, except that a directory onto a directory keeps its content. */
static int make_object(struct applier *applier, int parent_fd, const char *name, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    struct stat there;
    bool exists = fstatat(parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0;
    if (!exists && errno != ENOENT)
        return fail(error, errno, "look at what is there");
    bool was_whiteout = exists && applier->options->layer && S_ISCHR(there.st_mode) && there.st_rdev == 0;
    if (exists && !(entry->type == TAR_DIRECTORY && S_ISDIR(there.st_mode)) &&
        remove_tree(parent_fd, name, 0, error) < 0)
        return -1;

    switch (entry->type) {
    case TAR_DIRECTORY:
        if (exists && S_ISDIR(there.st_mode))
            return 0;
        if (mkdirat(parent_fd, name, 0700) < 0)
            return fail(error, errno, "create the directory");
        /* This layer removed the lower one and then made its own: nothing below may shine through. */
        return was_whiteout ? mark_opaque(parent_fd, name, error) : 0;
    case TAR_FILE:
        return write_file(applier, parent_fd, name, error);
    case TAR_HARDLINK:
        return link_file(applier, parent_fd, name, error);
    case TAR_SYMLINK:
        if (entry->link[0] == '\0')
            return fail(error, 0, "TAR_MALFORMED: symbolic link to nothing");
        if (symlinkat(entry->link, parent_fd, name) < 0)
            return fail(error, errno, "create the symbolic link");
        return 0;
    case TAR_CHAR:
    case TAR_BLOCKDEV:
    case TAR_FIFO: {
        mode_t kind = entry->type == TAR_CHAR ? S_IFCHR : entry->type == TAR_BLOCKDEV ? S_IFBLK : S_IFIFO;
        dev_t device = entry->type == TAR_FIFO ? 0 : makedev(entry->device_major, entry->device_minor);
        if (applier->options->layer && entry->type == TAR_CHAR && device == 0)
            return fail(error, 0, "TAR_UNSAFE: device 0:0 is overlayfs's own mark of a removed file");
        if (mknodat(parent_fd, name, kind | 0600, device) < 0)
            return fail(error, errno, "create the device");
        return 0;
    }
    }
    return fail(error, 0, "entry of an unknown kind"); /* not reached: the reader makes only the kinds above */
}

/* OCI image-spec layer.md "Whiteouts": applies to lower layers only, wherever it stands in the archive. */
static int apply_whiteout(int parent_fd, const char *name, struct error *error)
{
    struct stat there;
    if (fstatat(parent_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISDIR(there.st_mode) ? mark_opaque(parent_fd, name, error) : 0;
    if (errno != ENOENT)
        return fail(error, errno, "look at what is there");
    if (mknodat(parent_fd, name, S_IFCHR, 0) < 0)
        return fail(error, errno, "mark as removed");
    return 0;
}

static int apply_entry(struct applier *applier, struct error *error)
{
    const struct tar_entry *entry = &applier->reader->entry;
    char path[TAR_PATH_MAX + 2];
    if (clean_name(entry->path, path, sizeof path, error) < 0)
        return -1;
    if (path[0] == '\0') { /* "./": the top directory itself */
        if (entry->type != TAR_DIRECTORY)
            return fail(error, 0, "TAR_MALFORMED: the top is not a directory");
        if (set_attributes(applier, applier->root_fd, ".", error) < 0)
            return -1;
        return remember_time(applier, ".", entry, error);
    }
    char buffer[TAR_PATH_MAX + 2];
    const char *name = NULL;
    cleanup_fd int parent_fd = -1;
    if (make_parent_in_root(applier->root_fd, path, 0755, &parent_fd, buffer, sizeof buffer, &name, error) < 0)
        return -1;
    if (applier->options->layer && strncmp(name, WHITEOUT_PREFIX, strlen(WHITEOUT_PREFIX)) == 0) {
        if (strcmp(name, WHITEOUT_OPAQUE) == 0)
            return mark_opaque(parent_fd, ".", error);
        const char *removed = name + strlen(WHITEOUT_PREFIX);
        if (strncmp(removed, WHITEOUT_PREFIX, strlen(WHITEOUT_PREFIX)) == 0)
            return 0; /* other marks of aufs (".wh..wh.plnk") mean nothing here */
        if (removed[0] == '\0' || strcmp(removed, ".") == 0 || strcmp(removed, "..") == 0)
            return fail(error, 0, "TAR_ESCAPES: whiteout of \"%s\"", removed);
        return apply_whiteout(parent_fd, removed, error);
    }
    if (make_object(applier, parent_fd, name, error) < 0)
        return -1;
    if (entry->type == TAR_HARDLINK)
        return 0; /* shares everything with its first name */
    if (set_attributes(applier, parent_fd, name, error) < 0)
        return -1;
    return entry->type == TAR_DIRECTORY ? remember_time(applier, path, entry, error) : 0;
}

static int set_directory_times(struct applier *applier, struct error *error)
{
    for (size_t i = applier->times_count; i > 0; i--) {
        const struct directory_time *time = &applier->times[i - 1];
        char buffer[TAR_PATH_MAX + 2];
        const char *name = ".";
        cleanup_fd int parent_fd = -1;
        if (strcmp(time->path, ".") == 0)
            parent_fd = openat(applier->root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        else if (make_parent_in_root(applier->root_fd, time->path, 0755, &parent_fd, buffer, sizeof buffer, &name, error) < 0)
            return -1;
        struct timespec times[2] = {time->mtime, time->mtime};
        /* A later entry may have put something else there; then its own times stand. */
        if (utimensat(parent_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return fail(error, errno, "set the times of \"%s\"", time->path);
    }
    return 0;
}

static int apply_all(struct applier *applier, struct error *error)
{
    for (;;) {
        enum tar_status status = tar_next(applier->reader, error);
        if (status == TAR_FAILED)
            return fail_in(error, "entry %llu", (unsigned long long)applier->result->entries + 1);
        if (status == TAR_END)
            break;
        if (applier->result->entries >= applier->options->entries_max)
            return fail(error, 0, "TAR_TOO_MANY: the archive has more than %llu entries",
                        (unsigned long long)applier->options->entries_max);
        applier->result->entries++;
        if (apply_entry(applier, error) < 0)
            return fail_in(error, "\"%.200s\"", applier->reader->entry.path);
    }
    if (tar_drain(applier->reader, error) < 0)
        return -1;
    return set_directory_times(applier, error);
}

int apply_archive(struct tar_reader *reader, const struct apply_options *options, struct apply_result *result,
                  struct error *error)
{
    cleanup_fd int top_fd = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top_fd < 0)
        return fail(error, errno, "open /");
    cleanup_fd int root_fd = -1;
    if (options->into == NULL || options->into[0] == '\0' || strcmp(options->into, "/") == 0)
        root_fd = take_fd(&top_fd);
    else
        root_fd = open_in_root(top_fd, options->into, O_PATH | O_DIRECTORY);
    if (root_fd < 0)
        return fail(error, errno, "open the directory \"%s\"", options->into);
    struct applier applier = {
        .reader = reader,
        .options = options,
        .result = result,
        .root_fd = root_fd,
        .written_since_check = FREE_CHECK_BYTES, /* the first write looks */
    };
    int done = apply_all(&applier, error);
    for (size_t i = 0; i < applier.times_count; i++)
        free(applier.times[i].path);
    free(applier.times);
    return done;
}
