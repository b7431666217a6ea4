/* update: new limits for a running container, from an OCI resources object and from options. */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/options.h"
#include "isolate/runtime.h"
#include "isolate/verbs.h"

#include <fcntl.h>
#include <string.h>

static const struct {
    const char *option, *group, *key;
    bool text;
} limits[] = {
    {"cpu-period", "cpu", "period", false},
    {"cpu-quota", "cpu", "quota", false},
    {"cpu-burst", "cpu", "burst", false},
    {"cpu-share", "cpu", "shares", false},
    {"cpu-rt-period", "cpu", "realtimePeriod", false},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", false},
    {"cpu-idle", "cpu", "idle", false},
    {"cpuset-cpus", "cpu", "cpus", true},
    {"cpuset-mems", "cpu", "mems", true},
    {"memory", "memory", "limit", false},
    {"memory-reservation", "memory", "reservation", false},
    {"memory-swap", "memory", "swap", false},
    {"kernel-memory", "memory", "kernel", false},
    {"kernel-memory-tcp", "memory", "kernelTCP", false},
    {"pids-limit", "pids", "limit", false},
    {"blkio-weight", "blockIO", "weight", false},
};
enum { LIMITS = sizeof limits / sizeof *limits };

static int parse_number(const char *text, const char *option, int64_t *out, struct error *error)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == ' ')
        return fail(error, EINVAL, "--%s \"%.64s\" is not a number", option, text);
    *out = value;
    return 0;
}

static int set_limit(struct json_object *resources, size_t index, const char *text, struct error *error)
{
    struct json_object *group = json_get(resources, limits[index].group);
    int64_t value = 0;
    if (group == NULL) {
        group = json_object_new_object();
        if (json_add(resources, limits[index].group, group, error) < 0)
            return -1;
    }
    if (limits[index].text)
        return json_add(group, limits[index].key, json_object_new_string(text), error);
    if (parse_number(text, limits[index].option, &value, error) < 0)
        return -1;
    return json_add(group, limits[index].key, json_object_new_int64(value), error);
}

static int read_resources(const char *file, struct json_object **out, struct error *error)
{
    cleanup_free char *text = NULL;
    size_t length = 0;
    if (file == NULL) {
        *out = json_object_new_object();
        return *out == NULL ? fail(error, ENOMEM, "read the limits") : 0;
    }
    if (strcmp(file, "-") != 0)
        return json_load_at(AT_FDCWD, file, out, error);
    return read_all(STDIN_FILENO, JSON_BYTES_MAX, &text, &length, "standard input", error) < 0
               ? -1
               : json_parse(text, length, out, error);
}

int verb_update(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    cleanup_json struct json_object *resources = NULL;
    const char *file = NULL, *values[LIMITS] = {NULL};
    struct option_spec specs[LIMITS + 1];
    int next = 0;
    for (size_t i = 0; i < LIMITS; i++)
        specs[i] = (struct option_spec){limits[i].option, NULL, OPTION_TEXT, &values[i]};
    specs[LIMITS] = (struct option_spec){"resources", "r", OPTION_TEXT, &file};
    /* runc takes the options after the id as well as before it. */
    if (options_read(specs, LIMITS + 1, invocation->argc, invocation->argv, &next, error) < 0)
        return -1;
    if (next >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    const char *id = invocation->argv[next++];
    if (options_read(specs, LIMITS + 1, invocation->argc, invocation->argv, &next, error) < 0)
        return -1;
    if (next < invocation->argc)
        return fail(error, EINVAL, "unexpected argument \"%s\"", invocation->argv[next]);
    if (read_resources(file, &resources, error) < 0)
        return -1;
    if (!json_object_is_type(resources, json_type_object))
        return fail(error, EINVAL, "the resources must be an object");
    for (size_t i = 0; i < LIMITS; i++)
        if (values[i] != NULL && set_limit(resources, i, values[i], error) < 0)
            return -1;
    return runtime_load(invocation->root, id, &container, error) < 0 ? -1 : runtime_update(&container, resources, error);
}
