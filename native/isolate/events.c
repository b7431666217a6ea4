/* events: statistics in the shape of runc's `events --stats`, and notices of the OOM killer. */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/cgroup.h"
#include "isolate/config.h"
#include "isolate/options.h"
#include "isolate/runtime.h"
#include "isolate/verbs.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

typedef unsigned long long number;

static number read_number(const struct cgroup_entry *entry, const char *file)
{
    number value = 0;
    struct error ignored; /* a file that this kernel lacks counts nothing */
    if (entry == NULL || entry->fd < 0 || cgroup_read_number(entry, file, &value, &ignored) < 0)
        return 0;
    return value;
}

/* The number after `key ` in a file of lines such as "user_usec 12". */
static number read_keyed(const struct cgroup_entry *entry, const char *file, const char *key)
{
    cleanup_free char *text = NULL;
    struct error ignored;
    size_t length = strlen(key);
    if (entry == NULL || entry->fd < 0 || cgroup_read_text(entry, file, &text, &ignored) < 0)
        return 0;
    for (const char *line = text; *line != '\0';) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return strtoull(line + length + 1, NULL, 10);
        line += strcspn(line, "\n");
        if (*line == '\n')
            line++;
    }
    return 0;
}

static struct json_object *object_of(struct json_object *parent, const char *key, struct error *error)
{
    struct json_object *object = json_object_new_object();
    return object == NULL || json_add(parent, key, object, error) < 0 ? NULL : object;
}

static int put(struct json_object *object, const char *key, number value, struct error *error)
{
    return json_add(object, key, json_object_new_uint64(value), error);
}

/* Every "key value" line, as runc's `raw`. */
static int put_raw(struct json_object *object, const struct cgroup_entry *entry, const char *file, struct error *error)
{
    cleanup_free char *text = NULL;
    struct error ignored;
    struct json_object *raw = object_of(object, "raw", error);
    if (raw == NULL)
        return -1;
    if (entry == NULL || entry->fd < 0 || cgroup_read_text(entry, file, &text, &ignored) < 0)
        return 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *blank = strchr(line, ' ');
        if (blank == NULL)
            continue;
        *blank = '\0';
        if (put(raw, line, strtoull(blank + 1, NULL, 10), error) < 0)
            return -1;
    }
    return 0;
}

static int put_cpu(struct json_object *data, const struct cgroup *cgroup, struct error *error)
{
    bool v2 = cgroup->mode == CGROUP_UNIFIED;
    const struct cgroup_entry *cpu = cgroup_entry(cgroup, v2 ? "" : "cpu"), *acct = cgroup_entry(cgroup, v2 ? "" : "cpuacct");
    struct json_object *object = object_of(data, "cpu", error);
    struct json_object *usage = object == NULL ? NULL : object_of(object, "usage", error);
    struct json_object *throttling = object == NULL ? NULL : object_of(object, "throttling", error);
    if (usage == NULL || throttling == NULL)
        return -1;
    number total = v2 ? read_keyed(cpu, "cpu.stat", "usage_usec") * 1000 : read_number(acct, "cpuacct.usage");
    number user = v2 ? read_keyed(cpu, "cpu.stat", "user_usec") * 1000 : read_number(acct, "cpuacct.usage_user");
    number kernel = v2 ? read_keyed(cpu, "cpu.stat", "system_usec") * 1000 : read_number(acct, "cpuacct.usage_sys");
    if (put(usage, "total", total, error) < 0 || put(usage, "kernel", kernel, error) < 0 ||
        put(usage, "user", user, error) < 0 ||
        put(throttling, "periods", read_keyed(cpu, "cpu.stat", "nr_periods"), error) < 0 ||
        put(throttling, "throttledPeriods", read_keyed(cpu, "cpu.stat", "nr_throttled"), error) < 0 ||
        put(throttling, "throttledTime",
            v2 ? read_keyed(cpu, "cpu.stat", "throttled_usec") * 1000 : read_keyed(cpu, "cpu.stat", "throttled_time"), error) < 0)
        return -1;
    cleanup_free char *text = NULL;
    struct error ignored;
    if (v2 || acct == NULL || cgroup_read_text(acct, "cpuacct.usage_percpu", &text, &ignored) < 0)
        return 0;
    struct json_object *percpu = json_object_new_array();
    char *rest = text;
    for (char *word = strsep(&rest, " \n"); percpu != NULL && word != NULL; word = strsep(&rest, " \n"))
        if (*word != '\0')
            json_object_array_add(percpu, json_object_new_uint64(strtoull(word, NULL, 10)));
    return json_add(usage, "percpu", percpu, error);
}

static int put_usage(struct json_object *parent, const char *key, number limit, number usage, number max, number failures,
                     struct error *error)
{
    struct json_object *object = object_of(parent, key, error);
    if (object == NULL)
        return -1;
    return put(object, "limit", limit, error) < 0 || put(object, "usage", usage, error) < 0 ||
                   put(object, "max", max, error) < 0
               ? -1
               : put(object, "failcnt", failures, error);
}

static int put_memory(struct json_object *data, const struct cgroup *cgroup, struct error *error)
{
    bool v2 = cgroup->mode == CGROUP_UNIFIED;
    const struct cgroup_entry *entry = cgroup_entry(cgroup, v2 ? "" : "memory");
    struct json_object *memory = object_of(data, "memory", error);
    if (memory == NULL)
        return -1;
    if (v2) {
        number usage = read_number(entry, "memory.current"), limit = read_number(entry, "memory.max");
        number swap = read_number(entry, "memory.swap.current"), swap_limit = read_number(entry, "memory.swap.max");
        bool endless = limit == UINT64_MAX || swap_limit == UINT64_MAX;
        if (put(memory, "cache", read_keyed(entry, "memory.stat", "file"), error) < 0 ||
            put_usage(memory, "usage", limit, usage, read_number(entry, "memory.peak"), read_keyed(entry, "memory.events", "max"), error) < 0 ||
            put_usage(memory, "swap", endless ? UINT64_MAX : limit + swap_limit, usage + swap, 0, 0, error) < 0)
            return -1;
    } else {
        if (put(memory, "cache", read_keyed(entry, "memory.stat", "cache"), error) < 0 ||
            put_usage(memory, "usage", read_number(entry, "memory.limit_in_bytes"), read_number(entry, "memory.usage_in_bytes"),
                      read_number(entry, "memory.max_usage_in_bytes"), read_number(entry, "memory.failcnt"), error) < 0 ||
            put_usage(memory, "swap", read_number(entry, "memory.memsw.limit_in_bytes"),
                      read_number(entry, "memory.memsw.usage_in_bytes"), read_number(entry, "memory.memsw.max_usage_in_bytes"),
                      read_number(entry, "memory.memsw.failcnt"), error) < 0 ||
            put_usage(memory, "kernel", read_number(entry, "memory.kmem.limit_in_bytes"), read_number(entry, "memory.kmem.usage_in_bytes"),
                      read_number(entry, "memory.kmem.max_usage_in_bytes"), read_number(entry, "memory.kmem.failcnt"), error) < 0)
            return -1;
    }
    number kills = v2 ? read_keyed(entry, "memory.events", "oom_kill") : read_keyed(entry, "memory.oom_control", "oom_kill");
    return put(memory, "oomKills", kills, error) < 0 ? -1 : put_raw(memory, entry, "memory.stat", error);
}

/* v1: "8:0 Read 4096" a line; v2 io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4". */
static int add_io(struct json_object *array, const char *device, const char *operation, number value, struct error *error)
{
    unsigned major = 0, minor = 0;
    if (sscanf(device, "%u:%u", &major, &minor) != 2)
        return 0;
    struct json_object *entry = json_object_new_object();
    if (entry == NULL || json_object_array_add(array, entry) < 0)
        return fail(error, ENOMEM, "tell the I/O statistics");
    return put(entry, "major", major, error) < 0 || put(entry, "minor", minor, error) < 0 ||
                   json_add(entry, "op", json_object_new_string(operation), error) < 0
               ? -1
               : put(entry, "value", value, error);
}

static int put_io_v1(struct json_object *io, const char *key, const struct cgroup_entry *entry, const char *file,
                     struct error *error)
{
    cleanup_free char *text = NULL;
    struct error ignored;
    struct json_object *array = json_object_new_array();
    if (array == NULL || json_add(io, key, array, error) < 0)
        return fail(error, ENOMEM, "tell the I/O statistics");
    if (entry == NULL || entry->fd < 0 || cgroup_read_text(entry, file, &text, &ignored) < 0)
        return 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *device = strsep(&line, " "), *operation = strsep(&line, " ");
        if (operation != NULL && line != NULL && add_io(array, device, operation, strtoull(line, NULL, 10), error) < 0)
            return -1;
    }
    return 0;
}

static int put_io_v2(struct json_object *io, const struct cgroup_entry *entry, struct error *error)
{
    static const struct {
        const char *word, *operation;
        bool bytes;
    } words[] = {{"rbytes=", "Read", true}, {"wbytes=", "Write", true}, {"rios=", "Read", false}, {"wios=", "Write", false}};
    cleanup_free char *text = NULL;
    struct error ignored;
    struct json_object *bytes = json_object_new_array(), *operations = json_object_new_array();
    if (bytes == NULL || operations == NULL || json_add(io, "ioServiceBytesRecursive", bytes, error) < 0 ||
        json_add(io, "ioServicedRecursive", operations, error) < 0)
        return fail(error, ENOMEM, "tell the I/O statistics");
    if (entry == NULL || entry->fd < 0 || cgroup_read_text(entry, "io.stat", &text, &ignored) < 0)
        return 0;
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *device = strsep(&line, " ");
        for (char *word = strsep(&line, " "); word != NULL; word = strsep(&line, " "))
            for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                if (strncmp(word, words[i].word, strlen(words[i].word)) == 0 &&
                    add_io(words[i].bytes ? bytes : operations, device, words[i].operation,
                           strtoull(word + strlen(words[i].word), NULL, 10), error) < 0)
                    return -1;
    }
    return 0;
}

static int put_pids(struct json_object *data, const struct cgroup *cgroup, struct error *error)
{
    const struct cgroup_entry *entry = cgroup_entry(cgroup, cgroup->mode == CGROUP_UNIFIED ? "" : "pids");
    struct json_object *pids = object_of(data, "pids", error);
    number limit = read_number(entry, "pids.max");
    if (pids == NULL || put(pids, "current", read_number(entry, "pids.current"), error) < 0)
        return -1;
    return put(pids, "limit", limit == UINT64_MAX ? 0 : limit, error); /* 0: none, as runc tells it */
}

int runtime_stats(const struct container *container, struct json_object **out, struct error *error)
{
    const struct cgroup *cgroup = container->cgroup;
    cleanup_json struct json_object *data = json_object_new_object();
    if (data == NULL)
        return fail(error, ENOMEM, "tell the statistics");
    if (cgroup == NULL || cgroup->count == 0)
        return fail(error, ENOTSUP, "tell the statistics: container \"%s\" has no cgroup", container->id);
    struct json_object *io = NULL;
    if (put_cpu(data, cgroup, error) < 0 || put_memory(data, cgroup, error) < 0 || put_pids(data, cgroup, error) < 0 ||
        (io = object_of(data, "blkio", error)) == NULL)
        return -1;
    const struct cgroup_entry *entry = cgroup_entry(cgroup, cgroup->mode == CGROUP_UNIFIED ? "" : "blkio");
    int result = cgroup->mode == CGROUP_UNIFIED
                     ? put_io_v2(io, entry, error)
                     : put_io_v1(io, "ioServiceBytesRecursive", entry, "blkio.throttle.io_service_bytes_recursive", error) < 0
                           ? -1
                           : put_io_v1(io, "ioServicedRecursive", entry, "blkio.throttle.io_serviced_recursive", error);
    if (result < 0)
        return -1;
    *out = data;
    data = NULL;
    return 0;
}

/* ---- the verb ---- */

static int print_event(const char *type, const struct container *container, struct json_object *data, struct error *error)
{
    cleanup_json struct json_object *event = json_object_new_object();
    if (json_add(event, "type", json_object_new_string(type), error) < 0 ||
        json_add(event, "id", json_object_new_string(container->id), error) < 0 || json_add(event, "data", data, error) < 0)
        return -1;
    puts(json_object_to_json_string_ext(event, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    return fflush(stdout) == 0 ? 0 : fail(error, errno, "write an event");
}

static int print_stats(const struct container *container, struct error *error)
{
    struct json_object *data = NULL;
    return runtime_stats(container, &data, error) < 0 ? -1 : print_event("stats", container, data, error);
}

/* A descriptor that becomes readable with each OOM: v1 by cgroup.event_control (cgroups memory.txt §9), v2 by inotify. */
static int watch_oom(const struct cgroup *cgroup, int *control, struct error *error)
{
    *control = -1;
    if (cgroup->mode == CGROUP_UNIFIED) {
        const struct cgroup_entry *entry = cgroup_entry(cgroup, "");
        cleanup_free char *path = entry == NULL ? NULL : format_text("%s/memory.events", entry->path);
        int fd = inotify_init1(IN_CLOEXEC);
        if (fd >= 0 && (path == NULL || inotify_add_watch(fd, path, IN_MODIFY) < 0)) {
            close(fd);
            return -1;
        }
        return fd;
    }
    const struct cgroup_entry *entry = cgroup_entry(cgroup, "memory");
    char text[40];
    cleanup_fd int event = eventfd(0, EFD_CLOEXEC);
    cleanup_fd int oom = entry == NULL ? -1 : openat(entry->fd, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    if (event < 0 || oom < 0)
        return -1;
    snprintf(text, sizeof text, "%d %d", event, oom);
    if (write_control_at(entry->fd, "cgroup.event_control", text, error) < 0)
        return -1;
    *control = take_fd(&oom);
    return take_fd(&event);
}

static number oom_kills(const struct cgroup *cgroup)
{
    return cgroup->mode == CGROUP_UNIFIED ? read_keyed(cgroup_entry(cgroup, ""), "memory.events", "oom_kill")
                                          : read_keyed(cgroup_entry(cgroup, "memory"), "memory.oom_control", "oom_kill");
}

static int follow(const struct container *container, int interval_ms, struct error *error)
{
    struct error ignored; /* without notices there are still statistics */
    cleanup_fd int control = -1;
    cleanup_fd int oom = watch_oom(container->cgroup, &control, &ignored);
    struct pollfd polled[2] = {{.fd = container->pidfd, .events = POLLIN}, {.fd = oom, .events = POLLIN}};
    number seen = oom_kills(container->cgroup);
    for (;;) {
        int ready = (int)TEMP_FAILURE_RETRY(poll(polled, 2, interval_ms));
        if (ready < 0)
            return fail(error, errno, "wait for events");
        if (polled[1].revents != 0) {
            char buffer[4096];
            (void)!read(oom, buffer, sizeof buffer); /* drained; the counter tells whether it was the killer */
            number now = oom_kills(container->cgroup);
            if (now != seen && print_event("oom", container, NULL, error) < 0)
                return -1;
            seen = now;
        }
        if (polled[0].revents != 0)
            return 0;
        if (ready == 0 && print_stats(container, error) < 0)
            return -1;
    }
}

/* Go's durations as far as they make sense here: 500ms, 5s, 2m. */
static int parse_interval(const char *text, int *out, struct error *error)
{
    char *end = NULL;
    errno = 0;
    long value = strtol(text, &end, 10);
    long scale = strcmp(end, "ms") == 0 ? 1 : strcmp(end, "s") == 0 ? 1000 : strcmp(end, "m") == 0 ? 60000 : 0;
    if (errno != 0 || end == text || scale == 0 || value <= 0 || value > 86400000 / scale)
        return fail(error, EINVAL, "--interval \"%.32s\" must be like 5s", text);
    *out = (int)(value * scale);
    return 0;
}

int verb_events(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    enum container_status status;
    bool once = false;
    const char *interval = "5s";
    int next = 0, interval_ms = 0;
    const struct option_spec specs[] = {{"stats", NULL, OPTION_FLAG, &once}, {"interval", NULL, OPTION_TEXT, &interval}};
    if (options_read(specs, 2, invocation->argc, invocation->argv, &next, error) < 0 ||
        parse_interval(interval, &interval_ms, error) < 0)
        return -1;
    if (next >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    if (runtime_load(invocation->root, invocation->argv[next], &container, error) < 0 ||
        runtime_status(&container, &status, error) < 0)
        return -1;
    if (status == CONTAINER_STOPPED)
        return fail(error, EINVAL, "events of container \"%s\": it is stopped", container.id);
    return once ? print_stats(&container, error) : follow(&container, interval_ms, error);
}
