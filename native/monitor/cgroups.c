#include "monitor/cgroups.h"

#include "common/fd.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

bool membership_parse(char *line, const char **controllers, const char **path)
{
    /* `4:memory:/a/b`, `0::/a/b`, `1:name=systemd:/` */
    char *first = strchr(line, ':');
    char *second = first == NULL ? NULL : strchr(first + 1, ':');
    if (second == NULL || second[1] != '/')
        return false;
    *second = '\0';
    *controllers = first + 1;
    *path = second + 1;
    return strncmp(first + 1, "name=", 5) != 0;
}

bool cgroup_mount_parse(char *line, const char **root, const char **point, bool *version2, const char **options)
{
    /* proc(5): id parent major:minor root point options [optional...] - type source super-options */
    char *separator = strstr(line, " - ");
    if (separator == NULL)
        return false;
    *separator = '\0';
    char *save = NULL;
    const char *field[5] = {0};
    char *token = strtok_r(line, " ", &save);
    for (int i = 0; i < 5 && token != NULL; i++, token = strtok_r(NULL, " ", &save))
        field[i] = token;
    char *rest = NULL;
    const char *type = strtok_r(separator + 3, " ", &rest);
    const char *source = strtok_r(NULL, " ", &rest);
    const char *super = strtok_r(NULL, " \n", &rest);
    if (field[4] == NULL || type == NULL || source == NULL || super == NULL)
        return false;
    *version2 = strcmp(type, "cgroup2") == 0;
    *root = field[3];
    *point = field[4];
    *options = super;
    return *version2 || strcmp(type, "cgroup") == 0;
}

/* Whether a comma-separated list holds the word. */
static bool lists(const char *list, const char *word, size_t length)
{
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* Fills in the mount point of each hierarchy; `place.path` holds the path inside the hierarchy on entry. */
static int resolve_mounts(struct cgroups *groups, struct error *error)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL)
        return fail(error, errno, "open /proc/self/mountinfo");
    bool resolved[CGROUPS_MAX] = {false};
    char line[4096];
    while (fgets(line, sizeof line, mounts) != NULL) {
        const char *root, *point, *options;
        bool version2;
        if (!cgroup_mount_parse(line, &root, &point, &version2, &options))
            continue;
        for (unsigned i = 0; i < groups->count; i++) {
            struct cgroup_place *place = &groups->place[i];
            size_t word = strcspn(place->controllers, ",");
            bool mine = version2 ? word == 0 : word > 0 && lists(options, place->controllers, word);
            if (resolved[i] || !mine)
                continue;
            /* A mount of a part of the hierarchy shows paths below that part. */
            const char *inside = place->path;
            size_t root_length = strcmp(root, "/") == 0 ? 0 : strlen(root);
            if (root_length > 0 && strncmp(inside, root, root_length) == 0 &&
                (inside[root_length] == '/' || inside[root_length] == '\0'))
                inside += root_length;
            char full[CGROUP_PATH_MAX];
            int size = snprintf(full, sizeof full, "%s%s", point, inside);
            if (size < 0 || (size_t)size >= sizeof full)
                continue;
            memcpy(place->path, full, (size_t)size + 1);
            resolved[i] = true;
        }
    }
    fclose(mounts);
    unsigned kept = 0;
    for (unsigned i = 0; i < groups->count; i++) {
        if (!resolved[i])
            continue;
        if (kept != i)
            groups->place[kept] = groups->place[i];
        kept++;
    }
    groups->count = kept;
    return 0;
}

static int memberships(const char *file, struct cgroups *out, struct error *error)
{
    FILE *list = fopen(file, "re");
    if (list == NULL)
        return fail(error, errno, "open %s", file);
    char line[1024];
    out->count = 0;
    while (out->count < CGROUPS_MAX && fgets(line, sizeof line, list) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *controllers, *path;
        if (!membership_parse(line, &controllers, &path))
            continue;
        struct cgroup_place *place = &out->place[out->count];
        int a = snprintf(place->controllers, sizeof place->controllers, "%s", controllers);
        int b = snprintf(place->path, sizeof place->path, "%s", path);
        if (a >= 0 && (size_t)a < sizeof place->controllers && b >= 0 && (size_t)b < sizeof place->path)
            out->count++;
    }
    fclose(list);
    return 0;
}

/* Whether the monitor is in that group itself, or below it. */
static int is_shared(const struct cgroup_place *place, bool *shared, struct error *error)
{
    FILE *list = fopen("/proc/self/cgroup", "re");
    if (list == NULL)
        return fail(error, errno, "open /proc/self/cgroup");
    char line[1024];
    size_t length = strlen(place->path);
    *shared = strcmp(place->path, "/") == 0;
    while (!*shared && fgets(line, sizeof line, list) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *controllers, *own;
        *shared = membership_parse(line, &controllers, &own) && strcmp(controllers, place->controllers) == 0 &&
                  strncmp(own, place->path, length) == 0 && (own[length] == '\0' || own[length] == '/');
    }
    fclose(list);
    return 0;
}

int cgroups_of(pid_t pid, struct cgroups *out, struct error *error)
{
    char file[32];
    snprintf(file, sizeof file, "/proc/%d/cgroup", (int)pid);
    if (memberships(file, out, error) < 0)
        return -1;
    unsigned kept = 0;
    for (unsigned i = 0; i < out->count; i++) {
        bool shared;
        if (is_shared(&out->place[i], &shared, error) < 0)
            return -1;
        if (shared)
            continue;
        if (kept != i)
            out->place[kept] = out->place[i];
        kept++;
    }
    out->count = kept;
    return resolve_mounts(out, error);
}

static bool has_file(const struct cgroup_place *place, const char *name)
{
    char path[CGROUP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", place->path, name);
    return access(path, F_OK) == 0;
}

const struct cgroup_place *cgroups_memory(const struct cgroups *groups, bool *version2)
{
    for (unsigned i = 0; i < groups->count; i++) {
        const struct cgroup_place *place = &groups->place[i];
        *version2 = place->controllers[0] == '\0';
        if (*version2 ? has_file(place, "memory.events") : lists(place->controllers, "memory", 6))
            return place;
    }
    return NULL;
}

int oom_watch(const struct cgroups *groups, int *fd, struct error *error)
{
    bool version2;
    const struct cgroup_place *place = cgroups_memory(groups, &version2);
    *fd = -1;
    if (place == NULL)
        return 0;
    if (version2) {
        char path[CGROUP_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/memory.events", place->path);
        cleanup_fd int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (watch < 0 || inotify_add_watch(watch, path, IN_MODIFY) < 0)
            return fail(error, errno, "watch %s", path);
        *fd = take_fd(&watch);
        return 0;
    }
    cleanup_fd int directory = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return fail(error, errno, "open %s", place->path);
    cleanup_fd int control = openat(directory, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    cleanup_fd int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (control < 0 || event < 0)
        return fail(error, errno, "open %s/memory.oom_control", place->path);
    char text[32];
    snprintf(text, sizeof text, "%d %d", event, control);
    if (write_control_at(directory, "cgroup.event_control", text, error) < 0)
        return -1;
    *fd = take_fd(&event);
    return 0;
}

uint64_t oom_kills(const struct cgroups *groups)
{
    bool version2;
    const struct cgroup_place *place = cgroups_memory(groups, &version2);
    if (place == NULL)
        return 0;
    char path[CGROUP_PATH_MAX + 32], line[128];
    snprintf(path, sizeof path, "%s/%s", place->path, version2 ? "memory.events" : "memory.oom_control");
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    unsigned long long count = 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "oom_kill %llu", &count) == 1)
            break;
    fclose(file);
    return count;
}

void cgroups_kill(const struct cgroups *groups, int signal)
{
    struct error ignored;
    for (unsigned i = 0; i < groups->count && signal == SIGKILL; i++) {
        cleanup_fd int directory = open(groups->place[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory >= 0 && groups->place[i].controllers[0] == '\0' &&
            write_control_at(directory, "cgroup.kill", "1", &ignored) == 0)
            return;
    }
    for (unsigned i = 0; i < groups->count; i++) {
        char path[CGROUP_PATH_MAX + 32], line[32];
        snprintf(path, sizeof path, "%s/cgroup.procs", groups->place[i].path);
        FILE *list = fopen(path, "re");
        if (list == NULL)
            continue;
        /* A group of the container's own holds nothing but its processes, and a pid in it cannot leave it unseen. */
        while (fgets(line, sizeof line, list) != NULL) {
            int pid = atoi(line);
            if (pid > 1)
                (void)kill(pid, signal);
        }
        fclose(list);
        return;
    }
}
