#include "isolate/idmap.h"
#include "common/fd.h"
#include "common/json.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MAP_LINE_MAX = 36 };

int id_map_parse(struct json_object *object, const char *key, struct id_map *map, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(object, key, &array, ID_MAPPINGS_MAX, error) < 0)
        return -1;
    if (array == NULL)
        return 0;
    size_t count = json_object_array_length(array);
    map->entries = calloc(count == 0 ? 1 : count, sizeof *map->entries);
    if (map->entries == NULL)
        return fail(error, ENOMEM, "read %s", key);
    for (size_t i = 0; i < count; i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        uint64_t container = 0, host = 0, size = 0;
        if (json_required(entry, "containerID", error) < 0 || json_required(entry, "hostID", error) < 0 ||
            json_required(entry, "size", error) < 0 ||
            json_get_uint(entry, "containerID", UINT32_MAX, &container, NULL, error) < 0 ||
            json_get_uint(entry, "hostID", UINT32_MAX, &host, NULL, error) < 0 ||
            json_get_uint(entry, "size", UINT32_MAX, &size, NULL, error) < 0)
            return fail_in(error, "%s[%zu]", key, i);
        if (size == 0 || container + size > UINT32_MAX || host + size > UINT32_MAX)
            return fail(error, EINVAL, "%s[%zu]: %llu ids from %llu on %llu do not fit", key, i,
                        (unsigned long long)size, (unsigned long long)container, (unsigned long long)host);
        map->entries[i] = (struct id_mapping){(uint32_t)container, (uint32_t)host, (uint32_t)size};
        map->count = i + 1;
    }
    return 0;
}

void id_map_free(struct id_map *map)
{
    free(map->entries);
    map->entries = NULL;
    map->count = 0;
}

bool id_map_to_host(const struct id_map *map, uint32_t container, uint32_t *host)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct id_mapping *entry = &map->entries[i];
        if (container >= entry->container && container - entry->container < entry->size) {
            *host = entry->host + (container - entry->container);
            return true;
        }
    }
    return false;
}

static int map_text(const struct id_map *map, char **out, struct error *error)
{
    size_t room = map->count * MAP_LINE_MAX + 1, used = 0;
    cleanup_free char *text = malloc(room);
    if (text == NULL)
        return fail(error, ENOMEM, "write an id map");
    text[0] = '\0';
    for (size_t i = 0; i < map->count; i++) {
        int length = snprintf(text + used, room - used, "%u %u %u\n", map->entries[i].container, map->entries[i].host,
                              map->entries[i].size);
        if (length < 0 || (size_t)length >= room - used)
            return fail(error, EINVAL, "write an id map: line %zu is too long", i);
        used += (size_t)length;
    }
    *out = text;
    text = NULL;
    return 0;
}

/* newuidmap(1) checks /etc/subuid for an ordinary user, who may map only himself. */
static int run_map_helper(const char *program, pid_t pid, const struct id_map *map, struct error *error)
{
    size_t count = map->count * 3 + 3;
    cleanup_free char *numbers = calloc(map->count * 3 + 1, 12);
    cleanup_free char **arguments = calloc(count, sizeof *arguments);
    char pid_text[16];
    if (numbers == NULL || arguments == NULL)
        return fail(error, ENOMEM, "run %s", program);
    snprintf(pid_text, sizeof pid_text, "%d", (int)pid);
    arguments[0] = (char *)(uintptr_t)program;
    arguments[1] = pid_text;
    for (size_t i = 0; i < map->count * 3; i++) {
        const struct id_mapping *entry = &map->entries[i / 3];
        snprintf(numbers + i * 12, 12, "%u", i % 3 == 0 ? entry->container : i % 3 == 1 ? entry->host : entry->size);
        arguments[2 + i] = numbers + i * 12;
    }
    pid_t helper = fork();
    if (helper < 0)
        return fail(error, errno, "fork for %s", program);
    if (helper == 0) {
        execvp(program, arguments);
        _exit(127);
    }
    int status = 0;
    if (TEMP_FAILURE_RETRY(waitpid(helper, &status, 0)) < 0)
        return fail(error, errno, "wait for %s", program);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(error, EPERM, "%s refused the map (exit status %d)", program, WEXITSTATUS(status));
    return 0;
}

static int write_one_map(int proc_fd, const char *name, const struct id_map *map, struct error *error)
{
    cleanup_free char *text = NULL;
    if (map_text(map, &text, error) < 0)
        return -1;
    /* user_namespaces(7): a map is written once, in one write, before the child changes its ids. */
    return write_control_at(proc_fd, name, text, error);
}

int id_maps_write(pid_t pid, const struct id_map *uids, const struct id_map *gids, struct error *error)
{
    char folder[32];
    snprintf(folder, sizeof folder, "/proc/%d", (int)pid);
    cleanup_fd int proc_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc_fd < 0)
        return fail(error, errno, "open %s", folder);
    if (geteuid() == 0) {
        if (write_one_map(proc_fd, "uid_map", uids, error) < 0 || write_one_map(proc_fd, "gid_map", gids, error) < 0)
            return fail_in(error, "map the ids of the container");
        return 0;
    }
    bool own_uid = uids->count == 1 && uids->entries[0].host == geteuid() && uids->entries[0].size == 1;
    bool own_gid = gids->count == 1 && gids->entries[0].host == getegid() && gids->entries[0].size == 1;
    if (own_uid) {
        if (write_one_map(proc_fd, "uid_map", uids, error) < 0)
            return fail_in(error, "map the user of the container");
    } else if (run_map_helper("newuidmap", pid, uids, error) < 0) {
        return -1;
    }
    if (own_gid) {
        /* Without privilege a group map is allowed only after setgroups(2) is given up (CVE-2014-8989). */
        if (write_control_at(proc_fd, "setgroups", "deny", error) < 0 ||
            write_one_map(proc_fd, "gid_map", gids, error) < 0)
            return fail_in(error, "map the group of the container");
    } else if (run_map_helper("newgidmap", pid, gids, error) < 0) {
        return -1;
    }
    return 0;
}

int id_map_namespace(const struct id_map *uids, const struct id_map *gids, int *out, struct error *error)
{
    /* A user namespace needs a process to be born in: a child that waits to be killed. */
    struct clone_args arguments = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    long child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0)
        return fail(error, errno, "make a user namespace for an id-mapped mount");
    if (child == 0)
        for (;;)
            pause();
    char path[40];
    snprintf(path, sizeof path, "/proc/%ld/ns/user", child);
    int result = id_maps_write((pid_t)child, uids, gids, error);
    cleanup_fd int fd = result < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (result == 0 && fd < 0)
        result = fail(error, errno, "open %s", path);
    kill((pid_t)child, SIGKILL);
    TEMP_FAILURE_RETRY(waitpid((pid_t)child, NULL, 0));
    if (result == 0)
        *out = take_fd(&fd);
    return result;
}
