/*
 * See pack.h. The tree may belong to a running container that changes it meanwhile: every step goes from a descriptor by
 * one name that is not followed, a file that shrinks is filled with zeros, and one that grows is cut at its header's size.
 */
#include "archive/pack.h"

#include "archive/tar.h"
#include "common/fd.h"
#include "common/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define DEPTH_MAX 512
#define CHILDREN_MAX (4 * 1024 * 1024)
#define OPAQUE_XATTR "trusted.overlay.opaque"

/* The first name of a file that has several. */
struct first_name {
    dev_t device;
    ino_t inode;
    char path[];
};

struct packer {
    struct tar_writer writer;
    bool layer;
    void *first_names; /* tsearch(3) */
    char path[TAR_PATH_MAX + 2];
};

static int compare_first_names(const void *left, const void *right)
{
    const struct first_name *a = left;
    const struct first_name *b = right;
    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

/* The path under which this inode went out before, or NULL; remembers it then. */
static int look_up_first_name(struct packer *packer, const struct stat *facts, const char **out, struct error *error)
{
    size_t length = strlen(packer->path) + 1;
    struct first_name *fresh = malloc(sizeof *fresh + length);
    if (fresh == NULL)
        return fail(error, ENOMEM, "remember a hard link");
    fresh->device = facts->st_dev;
    fresh->inode = facts->st_ino;
    memcpy(fresh->path, packer->path, length);
    struct first_name **found = tsearch(fresh, &packer->first_names, compare_first_names);
    if (found == NULL) {
        free(fresh);
        return fail(error, ENOMEM, "remember a hard link");
    }
    if (*found == fresh) {
        *out = NULL;
        return 0;
    }
    free(fresh);
    *out = (*found)->path;
    return 0;
}

static bool is_wanted_xattr(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 ||
           strncmp(name, "system.posix_acl_", 17) == 0;
}

/* Attributes of the object `name` in the directory that the process stands in. */
static int read_xattrs(const char *name, struct tar_entry *entry, struct error *error)
{
    char names[64 * 1024];
    ssize_t length = llistxattr(name, names, sizeof names);
    if (length < 0)
        return errno == ENOTSUP || errno == ENOENT || errno == EPERM || errno == EACCES
                   ? 0
                   : fail(error, errno, "list extended attributes of \"%s\"", name);
    for (const char *at = names; at < names + length; at += strlen(at) + 1) {
        if (!is_wanted_xattr(at))
            continue;
        if (entry->xattrs_count >= TAR_XATTRS_MAX)
            return fail(error, 0, "\"%s\" has more than %d extended attributes", name, TAR_XATTRS_MAX);
        uint8_t value[64 * 1024];
        ssize_t size = lgetxattr(name, at, value, sizeof value);
        if (size < 0) {
            if (errno == ENODATA || errno == ENOENT)
                continue; /* gone since it was listed */
            return fail(error, errno, "read extended attribute %s of \"%s\"", at, name);
        }
        struct tar_xattr *xattr = &entry->xattrs[entry->xattrs_count];
        xattr->name = strdup(at);
        xattr->value = malloc((size_t)size + 1);
        xattr->length = (size_t)size;
        entry->xattrs_count++;
        if (xattr->name == NULL || xattr->value == NULL)
            return fail(error, ENOMEM, "keep an extended attribute");
        memcpy(xattr->value, value, (size_t)size);
    }
    return 0;
}

static int copy_file(struct packer *packer, int fd, uint64_t size, struct error *error)
{
    static uint8_t buffer[64 * 1024];
    uint64_t left = size;
    while (left > 0) {
        size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
        ssize_t got = read(fd, buffer, piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(error, errno, "read \"%s\"", packer->path);
        if (got == 0) { /* it shrank */
            memset(buffer, 0, piece);
            got = (ssize_t)piece;
        }
        if (tar_write_data(&packer->writer, buffer, (size_t)got, error) < 0)
            return -1;
        left -= (uint64_t)got;
    }
    return tar_write_padding(&packer->writer, size, error);
}

static int pack_object(struct packer *packer, int dir_fd, const char *name, int depth, struct error *error);

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The names in a directory, sorted, so that equal trees give equal archives. */
static int list_names(int dir_fd, char ***out, size_t *out_count, struct error *error)
{
    cleanup_fd int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(error, errno, "open a directory");
    DIR *dir = fdopendir(fd);
    if (dir == NULL)
        return fail(error, errno, "read a directory");
    (void)take_fd(&fd); /* now the listing's */
    char **names = NULL;
    size_t count = 0;
    size_t room = 0;
    int done = 0;
    for (;;) {
        errno = 0;
        struct dirent *child = readdir(dir);
        if (child == NULL) {
            done = errno == 0 ? 0 : fail(error, errno, "read a directory");
            break;
        }
        if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
            continue;
        if (count == room) {
            room = room == 0 ? 32 : room * 2;
            char **grown = room > CHILDREN_MAX ? NULL : reallocarray(names, room, sizeof *names);
            if (grown == NULL) {
                done = fail(error, ENOMEM, "list a directory");
                break;
            }
            names = grown;
        }
        names[count] = strdup(child->d_name);
        if (names[count] == NULL) {
            done = fail(error, ENOMEM, "list a directory");
            break;
        }
        count++;
    }
    closedir(dir);
    if (count > 0)
        qsort(names, count, sizeof *names, compare_names);
    *out = names;
    *out_count = count;
    return done;
}

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static int pack_children(struct packer *packer, int fd, int depth, struct error *error)
{
    if (depth >= DEPTH_MAX)
        return fail(error, 0, "\"%.200s\" is nested deeper than %d directories", packer->path, DEPTH_MAX);
    char **names = NULL;
    size_t count = 0;
    int done = list_names(fd, &names, &count, error);
    size_t length = strlen(packer->path);
    for (size_t i = 0; done == 0 && i < count; i++) {
        size_t name_length = strlen(names[i]);
        if (length + name_length + 2 > sizeof packer->path - 8) {
            done = fail(error, ENAMETOOLONG, "\"%.200s...\"", packer->path);
            break;
        }
        memcpy(packer->path + length, names[i], name_length + 1);
        done = pack_object(packer, fd, names[i], depth + 1, error);
        packer->path[length] = '\0';
    }
    free_names(names, count);
    return done;
}

static int write_whiteout(struct packer *packer, const char *name, const struct stat *facts, struct error *error)
{
    size_t length = strlen(packer->path);
    size_t start = length - strlen(name);
    char path[sizeof packer->path + 8];
    snprintf(path, sizeof path, "%.*s.wh.%s", (int)start, packer->path, name);
    struct tar_entry entry = {.type = TAR_FILE, .path = path, .mtime_seconds = facts->st_mtim.tv_sec};
    return tar_write_header(&packer->writer, &entry, error);
}

static bool is_opaque(int fd)
{
    char value[2];
    return fgetxattr(fd, OPAQUE_XATTR, value, sizeof value) == 1 && value[0] == 'y';
}

static int pack_directory(struct packer *packer, int dir_fd, const char *name, int depth, struct tar_entry *entry,
                          struct error *error)
{
    cleanup_fd int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail(error, errno, "open \"%s\"", packer->path);
    size_t length = strlen(packer->path);
    if (length > 0) { /* the top without a name of its own has no entry */
        packer->path[length] = '/';
        packer->path[length + 1] = '\0';
        if (tar_write_header(&packer->writer, entry, error) < 0)
            return -1;
    }
    if (packer->layer && is_opaque(fd)) {
        char path[sizeof packer->path + 16];
        snprintf(path, sizeof path, "%s.wh..wh..opq", packer->path);
        struct tar_entry mark = {.type = TAR_FILE, .path = path, .mtime_seconds = entry->mtime_seconds};
        if (tar_write_header(&packer->writer, &mark, error) < 0)
            return -1;
    }
    int done = pack_children(packer, fd, depth, error);
    packer->path[length] = '\0';
    return done;
}

static int pack_regular(struct packer *packer, int dir_fd, const char *name, struct tar_entry *entry,
                        struct error *error)
{
    /* O_NONBLOCK: if a pipe stands here by now, opening it must not wait for a writer. */
    cleanup_fd int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat facts;
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP ? 0 : fail(error, errno, "open \"%s\"", packer->path);
    if (fstat(fd, &facts) < 0)
        return fail(error, errno, "look at \"%s\"", packer->path);
    if (!S_ISREG(facts.st_mode))
        return 0; /* exchanged meanwhile */
    entry->size = (uint64_t)facts.st_size;
    const char *first = NULL;
    if (facts.st_nlink > 1 && look_up_first_name(packer, &facts, &first, error) < 0)
        return -1;
    if (first != NULL) {
        entry->type = TAR_HARDLINK;
        entry->link = (char *)first;
        int done = tar_write_header(&packer->writer, entry, error);
        entry->link = NULL;
        return done;
    }
    if (tar_write_header(&packer->writer, entry, error) < 0)
        return -1;
    return copy_file(packer, fd, entry->size, error);
}

static int pack_by_kind(struct packer *packer, int dir_fd, const char *name, const struct stat *facts, int depth,
                        struct tar_entry *entry, struct error *error)
{
    switch (facts->st_mode & S_IFMT) {
    case S_IFDIR:
        entry->type = TAR_DIRECTORY;
        return pack_directory(packer, dir_fd, name, depth, entry, error);
    case S_IFREG:
        entry->type = TAR_FILE;
        return pack_regular(packer, dir_fd, name, entry, error);
    case S_IFLNK: {
        char target[TAR_PATH_MAX + 1];
        ssize_t length = readlinkat(dir_fd, name, target, sizeof target - 1);
        if (length < 0)
            return errno == ENOENT || errno == EINVAL ? 0 : fail(error, errno, "read the link \"%s\"", packer->path);
        target[length] = '\0';
        entry->type = TAR_SYMLINK;
        entry->link = target;
        int done = tar_write_header(&packer->writer, entry, error);
        entry->link = NULL;
        return done;
    }
    case S_IFCHR:
    case S_IFBLK:
        if (packer->layer && S_ISCHR(facts->st_mode) && facts->st_rdev == 0)
            return write_whiteout(packer, name, facts, error);
        entry->type = S_ISCHR(facts->st_mode) ? TAR_CHAR : TAR_BLOCKDEV;
        entry->device_major = major(facts->st_rdev);
        entry->device_minor = minor(facts->st_rdev);
        return tar_write_header(&packer->writer, entry, error);
    case S_IFIFO:
        entry->type = TAR_FIFO;
        return tar_write_header(&packer->writer, entry, error);
    default:
        return 0; /* sockets mean nothing outside their process; tar(5) has no place for them */
    }
}

static int pack_object(struct packer *packer, int dir_fd, const char *name, int depth, struct error *error)
{
    struct stat facts;
    if (fstatat(dir_fd, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(error, errno, "look at \"%s\"", packer->path); /* gone since it was listed */
    struct tar_entry *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return fail(error, ENOMEM, "pack \"%s\"", packer->path);
    entry->path = packer->path;
    entry->mode = facts.st_mode & 07777;
    entry->uid = facts.st_uid;
    entry->gid = facts.st_gid;
    entry->mtime_seconds = facts.st_mtim.tv_sec;
    entry->mtime_nanos = (uint32_t)facts.st_mtim.tv_nsec;
    int done = fchdir(dir_fd) < 0 ? fail(error, errno, "enter a directory") : read_xattrs(name, entry, error);
    if (done == 0)
        done = pack_by_kind(packer, dir_fd, name, &facts, depth, entry, error);
    for (size_t i = 0; i < entry->xattrs_count; i++) {
        free(entry->xattrs[i].name);
        free(entry->xattrs[i].value);
    }
    free(entry);
    return done;
}

/* The parent of `path` below /, and its last name; "." for the root itself. */
static int open_parent(const char *path, int *parent_fd, char *name, size_t room, struct error *error)
{
    char clean[TAR_PATH_MAX + 2];
    if (clean_path(path, clean, sizeof clean, error) < 0)
        return -1;
    const char *slash = strrchr(clean, '/');
    const char *last = clean[0] == '\0' ? "." : slash == NULL ? clean : slash + 1;
    if (strlen(last) >= room)
        return fail(error, ENAMETOOLONG, "look at \"%.64s...\"", path);
    memcpy(name, last, strlen(last) + 1);
    char parent[sizeof clean];
    snprintf(parent, sizeof parent, "/%.*s", slash == NULL ? 0 : (int)(slash - clean), clean);
    cleanup_fd int root_fd = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return fail(error, errno, "open /");
    *parent_fd = open_in_root(root_fd, parent, O_DIRECTORY);
    return *parent_fd < 0 ? fail(error, errno, "open \"%s\"", parent) : 0;
}

int pack_archive(const struct pack_options *options, int out_fd, struct error *error)
{
    char name[256];
    cleanup_fd int parent_fd = -1;
    if (open_parent(options->path, &parent_fd, name, sizeof name, error) < 0)
        return -1;
    struct stat facts;
    if (fstatat(parent_fd, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(error, errno, "look at \"%s\"", options->path);
    struct packer *packer = calloc(1, sizeof *packer);
    if (packer == NULL)
        return fail(error, ENOMEM, "pack \"%s\"", options->path);
    tar_writer_init(&packer->writer, out_fd);
    packer->layer = options->layer;
    const char *shown = options->name != NULL ? options->name : strcmp(name, ".") == 0 ? "" : name;
    snprintf(packer->path, sizeof packer->path, "%s", shown);
    int done = pack_object(packer, parent_fd, name, 0, error);
    if (done == 0)
        done = tar_write_end(&packer->writer, error);
    tdestroy(packer->first_names, free);
    free(packer);
    return done;
}

static int print_json(struct json_object *object, struct error *error)
{
    const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);
    if (text == NULL)
        return fail(error, ENOMEM, "print JSON");
    if (write_all(STDOUT_FILENO, text, strlen(text), "the answer", error) < 0)
        return -1;
    return write_all(STDOUT_FILENO, "\n", 1, "the answer", error);
}

int print_stat(const char *path, struct error *error)
{
    char name[256];
    cleanup_fd int parent_fd = -1;
    struct stat facts;
    if (open_parent(path, &parent_fd, name, sizeof name, error) < 0)
        return -1;
    if (fstatat(parent_fd, name, &facts, AT_SYMLINK_NOFOLLOW) < 0)
        return fail(error, errno, "look at \"%s\"", path);
    char target[TAR_PATH_MAX + 1] = "";
    if (S_ISLNK(facts.st_mode)) {
        ssize_t length = readlinkat(parent_fd, name, target, sizeof target - 1);
        if (length < 0)
            return fail(error, errno, "read the link \"%s\"", path);
        target[length] = '\0';
    }
    char mtime[48];
    snprintf(mtime, sizeof mtime, "%lld.%09ld", (long long)facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
    struct json_object *answer = json_object_new_object();
    json_object_object_add(answer, "name", json_object_new_string(strcmp(name, ".") == 0 ? "/" : name));
    json_object_object_add(answer, "size", json_object_new_int64(facts.st_size));
    json_object_object_add(answer, "mode", json_object_new_int64(facts.st_mode));
    json_object_object_add(answer, "mtime", json_object_new_string(mtime));
    json_object_object_add(answer, "linkTarget", json_object_new_string(target));
    int done = print_json(answer, error);
    json_object_put(answer);
    return done;
}

struct comparison {
    int *lower_fds;
    size_t lowers_count;
    char path[TAR_PATH_MAX + 2];
};

/* Whether a lower layer shows the path: the topmost that has it decides, a whiteout or a hidden parent says no. */
static bool exists_below(const struct comparison *comparison)
{
    for (size_t i = 0; i < comparison->lowers_count; i++) {
        cleanup_fd int fd = open_in_root(comparison->lower_fds[i], comparison->path, O_NOFOLLOW);
        if (fd < 0)
            continue;
        struct stat facts;
        if (fstat(fd, &facts) < 0)
            continue;
        return !(S_ISCHR(facts.st_mode) && facts.st_rdev == 0);
    }
    return false;
}

static int print_change(const struct comparison *comparison, int kind, struct error *error)
{
    struct json_object *line = json_object_new_object();
    json_object_object_add(line, "kind", json_object_new_int(kind));
    json_object_object_add(line, "path", json_object_new_string(comparison->path));
    int done = print_json(line, error);
    json_object_put(line);
    return done;
}

static int compare_directory(struct comparison *comparison, int fd, int depth, struct error *error)
{
    if (depth >= DEPTH_MAX)
        return fail(error, 0, "\"%.200s\" is nested deeper than %d directories", comparison->path, DEPTH_MAX);
    char **names = NULL;
    size_t count = 0;
    int done = list_names(fd, &names, &count, error);
    size_t length = strlen(comparison->path);
    for (size_t i = 0; done == 0 && i < count; i++) {
        struct stat facts;
        if (length + strlen(names[i]) + 2 > sizeof comparison->path) {
            done = fail(error, ENAMETOOLONG, "\"%.200s...\"", comparison->path);
            break;
        }
        if (fstatat(fd, names[i], &facts, AT_SYMLINK_NOFOLLOW) < 0)
            continue; /* gone since it was listed */
        comparison->path[length] = '/';
        strcpy(comparison->path + length + 1, names[i]);
        bool below = exists_below(comparison);
        bool whiteout = S_ISCHR(facts.st_mode) && facts.st_rdev == 0;
        if (!whiteout || below)
            done = print_change(comparison, whiteout ? 2 : below ? 0 : 1, error);
        if (done == 0 && S_ISDIR(facts.st_mode)) {
            cleanup_fd int child = openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (child >= 0)
                done = compare_directory(comparison, child, depth + 1, error);
        }
        comparison->path[length] = '\0';
    }
    free_names(names, count);
    return done;
}

int print_changes(const char *upper, char *const *lowers, size_t lowers_count, struct error *error)
{
    cleanup_fd int upper_fd = openat(AT_FDCWD, upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (upper_fd < 0)
        return fail(error, errno, "open \"%s\"", upper);
    int *fds = calloc(lowers_count + 1, sizeof *fds);
    if (fds == NULL)
        return fail(error, ENOMEM, "compare layers");
    struct comparison comparison = {.lower_fds = fds};
    int done = 0;
    for (size_t i = 0; done == 0 && i < lowers_count; i++) {
        fds[i] = openat(AT_FDCWD, lowers[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fds[i] < 0)
            done = fail(error, errno, "open \"%s\"", lowers[i]);
        else
            comparison.lowers_count++;
    }
    if (done == 0)
        done = compare_directory(&comparison, upper_fd, 0, error);
    for (size_t i = 0; i < comparison.lowers_count; i++)
        close(fds[i]);
    free(fds);
    return done;
}
