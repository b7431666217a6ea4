#include "isolate/state.h"
#include "common/fd.h"
#include "common/json.h"
#include "isolate/cgroup.h"
#include "isolate/config.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { STATE_BYTES_MAX = 4 * 1024 * 1024, STAT_BYTES_MAX = 4096 };

const char *runtime_default_root(void)
{
    static char path[PATH_MAX];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0 || runtime == NULL || *runtime != '/' ||
        (size_t)snprintf(path, sizeof path, "%s/isolate", runtime) >= sizeof path)
        return "/run/isolate";
    return path;
}

const char *container_status_name(enum container_status status)
{
    static const char *const names[] = {"creating", "created", "running", "paused", "stopped"};
    return names[status];
}

uint64_t process_start_time(pid_t pid, bool *zombie)
{
    char path[32];
    cleanup_free char *text = NULL;
    struct error ignored;
    if (zombie != NULL)
        *zombie = false;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (pid <= 0 || read_file_at(AT_FDCWD, path, STAT_BYTES_MAX, &text, NULL, &ignored) < 0)
        return 0;
    /* proc_pid_stat(5): the name in parentheses may hold anything, so count from the last one. */
    const char *at = strrchr(text, ')');
    if (at == NULL)
        return 0;
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
        if (field == 2 && at != NULL && zombie != NULL)
            *zombie = at[1] == 'Z' || at[1] == 'X';
    }
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

int state_reserve(const char *root, const char *id, int *state_fd, struct error *error)
{
    /* mkdir -p with 0700: the state holds sockets that start programs. */
    char path[PATH_MAX];
    size_t length = strlen(root);
    if (length == 0 || length >= sizeof path)
        return fail(error, ENAMETOOLONG, "use state folder \"%.64s\"", root);
    memcpy(path, root, length + 1);
    cleanup_fd int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 && errno == ENOENT) {
        for (size_t i = 1; i <= length; i++) {
            if (path[i] != '/' && path[i] != '\0')
                continue;
            char kept = path[i];
            path[i] = '\0';
            if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return fail(error, errno, "make state folder %s", path);
            path[i] = kept;
        }
        folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (folder < 0)
        return fail(error, errno, "open state folder %s", root);
    if (mkdirat(folder, id, 0700) < 0) {
        if (errno != EEXIST)
            return fail(error, errno, "make the state of container \"%s\"", id);
        fail(error, 0, "container \"%s\" exists already", id);
        error->number = EEXIST;
        return -1;
    }
    *state_fd = openat(folder, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*state_fd < 0) {
        int number = errno;
        unlinkat(folder, id, AT_REMOVEDIR);
        return fail(error, number, "open the state of container \"%s\"", id);
    }
    return 0;
}

static int add_annotations(struct json_object *object, const struct config *config, struct error *error)
{
    if (config == NULL || config->annotations == NULL)
        return 0;
    return json_add(object, "annotations", json_object_get(config->annotations), error);
}

/* Of the configuration what start, exec and delete need: they then read one small file instead of two. */
static int add_brief(struct json_object *object, const struct config *config, struct error *error)
{
    static const char *const kept[] = {"ociVersion", "root", "process", "hooks", "annotations"};
    struct json_object *brief = json_object_new_object();
    if (config == NULL)
        return 0;
    if (brief == NULL)
        return fail(error, ENOMEM, "write the state");
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        struct json_object *value = json_get(config->json, kept[i]);
        if (value != NULL && json_add(brief, kept[i], json_object_get(value), error) < 0) {
            json_object_put(brief);
            return -1;
        }
    }
    return json_add(object, "config", brief, error);
}

int state_save(const struct container *container, struct error *error)
{
    cleanup_json struct json_object *object = json_object_new_object();
    struct json_object *groups = NULL;
    if (object == NULL)
        return fail(error, ENOMEM, "write the state");
    if (container->cgroup != NULL && cgroup_to_json(container->cgroup, &groups, error) < 0)
        return -1;
    if (json_add(object, "cgroups", groups, error) < 0 ||
        json_add(object, "ociVersion", json_object_new_string(OCI_VERSION), error) < 0 ||
        json_add(object, "id", json_object_new_string(container->id), error) < 0 ||
        json_add(object, "pid", json_object_new_int(container->pid), error) < 0 ||
        json_add(object, "startTime", json_object_new_uint64(container->start_time), error) < 0 ||
        json_add(object, "bundle", json_object_new_string(container->bundle), error) < 0 ||
        json_add(object, "rootfs", json_object_new_string(container->rootfs), error) < 0 ||
        json_add(object, "created", json_object_new_string(container->created), error) < 0 ||
        json_add(object, "owner", json_object_new_int64(container->owner), error) < 0 ||
        json_add(object, "creating", json_object_new_boolean(container->creating), error) < 0 ||
        add_brief(object, container->config, error) < 0 ||
        (container->seccomp_key != NULL &&
         (json_add(object, "seccomp", json_object_new_string(container->seccomp_key), error) < 0 ||
          json_add(object, "seccompFlags", json_object_new_int64(container->seccomp_flags), error) < 0)))
        return -1;
    const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    if (replace_file_at(container->state_fd, "state.json", text, strlen(text), 0600, false, error) < 0)
        return fail_in(error, "save the state of container \"%s\"", container->id);
    return 0;
}

static int build_state(const struct container *container, const char *status, pid_t pid, struct json_object **out,
                       struct error *error)
{
    cleanup_json struct json_object *object = json_object_new_object();
    char owner[24];
    snprintf(owner, sizeof owner, "%u", container->owner);
    if (object == NULL)
        return fail(error, ENOMEM, "tell the state");
    if (json_add(object, "ociVersion", json_object_new_string(OCI_VERSION), error) < 0 ||
        json_add(object, "id", json_object_new_string(container->id), error) < 0 ||
        json_add(object, "status", json_object_new_string(status), error) < 0 ||
        json_add(object, "pid", json_object_new_int(pid), error) < 0 ||
        json_add(object, "bundle", json_object_new_string(container->bundle), error) < 0 ||
        json_add(object, "rootfs", json_object_new_string(container->rootfs), error) < 0 ||
        json_add(object, "created", json_object_new_string(container->created), error) < 0 ||
        json_add(object, "owner", json_object_new_string(owner), error) < 0 ||
        add_annotations(object, container->config, error) < 0)
        return -1;
    *out = object;
    object = NULL;
    return 0;
}

int state_text(const struct container *container, const char *status, pid_t pid, char **out, struct error *error)
{
    cleanup_json struct json_object *object = NULL;
    if (build_state(container, status, pid, &object, error) < 0)
        return -1;
    *out = strdup(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    return *out == NULL ? fail(error, ENOMEM, "tell the state") : 0;
}

int runtime_state(const struct container *container, enum container_status status, struct json_object **out,
                  struct error *error)
{
    pid_t pid = status == CONTAINER_STOPPED ? 0 : container->pid;
    return build_state(container, container_status_name(status), pid, out, error);
}

/* A process listens at start.sock exactly until nothing but execve is left to do (or it is dead). */
static bool waits_for_start(const struct container *container)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start.sock", container->state_fd);
    return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
}

int runtime_status(const struct container *container, enum container_status *status, struct error *error)
{
    bool zombie = false, frozen = false;
    if (container->pid == 0) {
        *status = CONTAINER_STOPPED; /* a create that never got as far as a process */
        return 0;
    }
    uint64_t started = process_start_time(container->pid, &zombie);
    if (started == 0 || started != container->start_time || zombie) {
        *status = CONTAINER_STOPPED;
        return 0;
    }
    if (container->creating) {
        *status = CONTAINER_CREATING;
        return 0;
    }
    if (container->control_fd >= 0 || waits_for_start(container)) {
        *status = CONTAINER_CREATED;
        return 0;
    }
    struct error ignored; /* a group that is gone is not frozen */
    if (container->cgroup != NULL && cgroup_is_frozen(container->cgroup, &frozen, &ignored) < 0)
        frozen = false;
    (void)error;
    *status = frozen ? CONTAINER_PAUSED : CONTAINER_RUNNING;
    return 0;
}

static int load_fields(struct json_object *object, struct container *container, struct error *error)
{
    const char *bundle = NULL, *rootfs = NULL, *created = NULL;
    int64_t pid = 0, owner = 0;
    if (json_get_int(object, "pid", 0, INT32_MAX, &pid, NULL, error) < 0 ||
        json_get_uint(object, "startTime", UINT64_MAX, &container->start_time, NULL, error) < 0 ||
        json_get_string(object, "bundle", &bundle, error) < 0 || json_get_string(object, "rootfs", &rootfs, error) < 0 ||
        json_get_string(object, "created", &created, error) < 0 ||
        json_get_int(object, "owner", 0, UINT32_MAX, &owner, NULL, error) < 0 ||
        json_get_bool(object, "creating", &container->creating, error) < 0)
        return -1;
    if (bundle == NULL || rootfs == NULL || created == NULL)
        return fail(error, EINVAL, "a property is missing");
    container->pid = (pid_t)pid;
    container->owner = (uid_t)owner;
    container->bundle = strdup(bundle);
    container->rootfs = strdup(rootfs);
    container->created = strdup(created);
    container->cgroup = calloc(1, sizeof *container->cgroup);
    if (container->bundle == NULL || container->rootfs == NULL || container->created == NULL || container->cgroup == NULL)
        return fail(error, ENOMEM, "read the state");
    const char *key = NULL;
    uint64_t flags = 0;
    if (json_get_string(object, "seccomp", &key, error) < 0 ||
        json_get_uint(object, "seccompFlags", UINT32_MAX, &flags, NULL, error) < 0)
        return -1;
    container->seccomp_flags = (unsigned)flags;
    if (key != NULL && (container->seccomp_key = strdup(key)) == NULL)
        return fail(error, ENOMEM, "read the state");
    struct json_object *groups = json_get(object, "cgroups");
    return groups == NULL ? 0 : cgroup_from_json(groups, container->cgroup, error);
}

/* A create that was killed half-way leaves a folder without state.json; delete --force must still find what it made. */
static int load_unfinished(struct container *container, struct error *error)
{
    cleanup_json struct json_object *json = NULL;
    struct config *config = NULL;
    struct error ignored; /* killed before it had copied the configuration: then it had made nothing else either */
    container->bundle = strdup("/");
    container->rootfs = strdup("/");
    container->created = strdup("1970-01-01T00:00:00Z");
    container->cgroup = calloc(1, sizeof *container->cgroup);
    if (container->bundle == NULL || container->rootfs == NULL || container->created == NULL || container->cgroup == NULL)
        return fail(error, ENOMEM, "read the state");
    if (json_load_at(container->state_fd, "config.json", &json, &ignored) < 0)
        return 0;
    struct json_object *taken = json;
    json = NULL;
    if (config_parse(taken, &config, &ignored) < 0)
        return 0;
    int result = cgroup_find_unsaved(config->cgroups_path, container->id, container->cgroup, error);
    config_free(config);
    (void)cgroup_open(container->cgroup, false, &ignored); /* those that were not made yet are missing */
    return result;
}

int runtime_load(const char *root, const char *id, struct container *container, struct error *error)
{
    cleanup_json struct json_object *object = NULL;
    memset(container, 0, sizeof *container);
    container->state_fd = container->pidfd = container->control_fd = container->terminal_master = -1;
    if (container_id_check(id, error) < 0)
        return -1;
    if (root == NULL)
        root = runtime_default_root();
    cleanup_fd int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int state_fd = folder < 0 ? -1 : openat(folder, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state_fd < 0) {
        int number = errno;
        fail(error, number == ENOENT ? 0 : number, "container \"%s\" does not exist", id);
        error->number = number;
        return -1;
    }
    container->state_fd = state_fd;
    container->id = strdup(id);
    container->root = strdup(root);
    if (container->id == NULL || container->root == NULL) {
        fail(error, ENOMEM, "read the state");
        goto failed;
    }
    if (json_load_at(state_fd, "state.json", &object, error) < 0) {
        if (error->number != ENOENT || load_unfinished(container, error) < 0)
            goto failed;
        return 0;
    }
    if (load_fields(object, container, error) < 0)
        goto failed;
    if (json_get(object, "config") == NULL) {
        fail(error, EINVAL, "the configuration is missing");
        goto failed;
    }
    if (config_parse(json_object_get(json_get(object, "config")), &container->config, error) < 0)
        goto failed;
    /* Directories that are gone (the container ended and something cleaned up) are found missing when they are used. */
    struct error ignored;
    (void)cgroup_open(container->cgroup, false, &ignored);
    bool zombie = false;
    if (container->pid > 0) {
        container->pidfd = pidfd_open(container->pid, 0);
        /* The start time is read after the pidfd exists, so both speak of one process. */
        if (container->pidfd >= 0 && process_start_time(container->pid, &zombie) != container->start_time)
            close_fd(&container->pidfd);
    }
    return 0;
failed:
    fail_in(error, "load container \"%s\"", id);
    container_close(container);
    return -1;
}

/* The folder holds only what we put there: plain files and a socket. */
int state_remove(const char *root, const char *id, struct error *error)
{
    cleanup_fd int folder = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_fd int state = folder < 0 ? -1 : openat(folder, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state < 0)
        return errno == ENOENT ? 0 : fail(error, errno, "open the state of container \"%s\"", id);
    int copy = dup(state);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL) {
        if (copy >= 0)
            close(copy);
        return fail(error, errno, "list the state of container \"%s\"", id);
    }
    int result = 0;
    for (struct dirent *entry = readdir(listing); entry != NULL && result == 0; entry = readdir(listing)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(state, entry->d_name, 0) < 0 && errno != ENOENT)
            result = fail(error, errno, "remove %s of container \"%s\"", entry->d_name, id);
    }
    closedir(listing);
    if (result == 0 && unlinkat(folder, id, AT_REMOVEDIR) < 0 && errno != ENOENT)
        result = fail(error, errno, "remove the state of container \"%s\"", id);
    return result;
}

int state_list(const char *root, char ***ids, size_t *count, struct error *error)
{
    *ids = NULL;
    *count = 0;
    DIR *listing = opendir(root);
    if (listing == NULL)
        return errno == ENOENT ? 0 : fail(error, errno, "list state folder %s", root);
    int result = 0;
    for (struct dirent *entry = readdir(listing); entry != NULL && result == 0; entry = readdir(listing)) {
        struct error ignored; /* what is not named like a container is none */
        if (container_id_check(entry->d_name, &ignored) < 0 || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
            continue;
        char **grown = realloc(*ids, (*count + 1) * sizeof **ids);
        char *id = strdup(entry->d_name);
        if (grown != NULL)
            *ids = grown;
        if (grown == NULL || id == NULL) {
            free(id);
            result = fail(error, ENOMEM, "list state folder %s", root);
        } else {
            grown[(*count)++] = id;
        }
    }
    closedir(listing);
    return result;
}

void container_close(struct container *container)
{
    close_fd(&container->state_fd);
    close_fd(&container->pidfd);
    close_fd(&container->control_fd);
    close_fd(&container->terminal_master);
    if (container->cgroup != NULL)
        cgroup_free(container->cgroup);
    free(container->cgroup);
    config_free(container->config);
    free(container->id);
    free(container->root);
    free(container->bundle);
    free(container->rootfs);
    free(container->created);
    free(container->seccomp_key);
    memset(container, 0, sizeof *container);
    container->state_fd = container->pidfd = container->control_fd = container->terminal_master = -1;
}
