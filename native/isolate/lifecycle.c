/* kill, delete, pause, update and what they need to know (OCI runtime.md "Operations"). */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/cgroup.h"
#include "isolate/config.h"
#include "isolate/hooks.h"
#include "isolate/log.h"
#include "isolate/runtime.h"
#include "isolate/state.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

enum { DEATH_WAIT_MS = 10000 };

static const struct {
    const char *name;
    int number;
} signals[] = {
    {"HUP", SIGHUP},     {"INT", SIGINT},       {"QUIT", SIGQUIT},   {"ILL", SIGILL},   {"TRAP", SIGTRAP},
    {"ABRT", SIGABRT},   {"IOT", SIGIOT},       {"BUS", SIGBUS},     {"FPE", SIGFPE},   {"KILL", SIGKILL},
    {"USR1", SIGUSR1},   {"SEGV", SIGSEGV},     {"USR2", SIGUSR2},   {"PIPE", SIGPIPE}, {"ALRM", SIGALRM},
    {"TERM", SIGTERM},   {"STKFLT", SIGSTKFLT}, {"CHLD", SIGCHLD},   {"CLD", SIGCHLD},  {"CONT", SIGCONT},
    {"STOP", SIGSTOP},   {"TSTP", SIGTSTP},     {"TTIN", SIGTTIN},   {"TTOU", SIGTTOU}, {"URG", SIGURG},
    {"XCPU", SIGXCPU},   {"XFSZ", SIGXFSZ},     {"VTALRM", SIGVTALRM}, {"PROF", SIGPROF}, {"WINCH", SIGWINCH},
    {"IO", SIGIO},       {"POLL", SIGPOLL},     {"PWR", SIGPWR},     {"SYS", SIGSYS},
};

static int bounded_number(const char *text, int max)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 3 || text[digits] != '\0')
        return -1;
    int number = atoi(text);
    return number <= max ? number : -1;
}

int signal_from_text(const char *text)
{
    /* 64 is the last signal of Linux; libc keeps the first real-time ones for itself, hence its own SIGRTMIN. */
    if (*text >= '0' && *text <= '9') {
        int number = bounded_number(text, 64);
        return number > 0 ? number : -1;
    }
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (strcasecmp(text, signals[i].name) == 0)
            return signals[i].number;
    int from = strncasecmp(text, "RTMIN", 5) == 0 ? SIGRTMIN : strncasecmp(text, "RTMAX", 5) == 0 ? SIGRTMAX : -1;
    if (from < 0)
        return -1;
    text += 5;
    if (*text == '\0')
        return from;
    if (*text != '+' && *text != '-')
        return -1;
    int distance = bounded_number(text + 1, 64);
    if (distance < 0)
        return -1;
    int number = *text == '+' ? from + distance : from - distance;
    return number >= SIGRTMIN && number <= SIGRTMAX ? number : -1;
}

int runtime_kill(const struct container *container, int signal, bool all, struct error *error)
{
    enum container_status status;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    if (all && container->cgroup != NULL && container->cgroup->count > 0) {
        if (status == CONTAINER_STOPPED && signal != SIGKILL)
            return fail(error, ESRCH, "signal container \"%s\": container not running", container->id);
        return cgroup_signal(container->cgroup, signal, error);
    }
    if (status == CONTAINER_STOPPED)
        return fail(error, ESRCH, "signal container \"%s\": container not running", container->id);
    if (container->pidfd < 0)
        return fail(error, ESRCH, "signal container \"%s\": container not running", container->id);
    if (pidfd_send_signal(container->pidfd, signal, NULL, 0) < 0)
        return fail(error, errno, "send signal %d to container \"%s\"", signal, container->id);
    /* A frozen process takes even SIGKILL only when thawed (v1 freezer). */
    bool frozen = false;
    struct error ignored;
    if (signal == SIGKILL && status == CONTAINER_PAUSED && cgroup_is_frozen(container->cgroup, &frozen, &ignored) == 0 &&
        frozen && cgroup_freeze(container->cgroup, false, error) < 0)
        return -1;
    return 0;
}

int runtime_pause(const struct container *container, bool pause, struct error *error)
{
    enum container_status status;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    bool fits = pause ? status == CONTAINER_RUNNING || status == CONTAINER_CREATED : status == CONTAINER_PAUSED;
    if (!fits)
        return fail(error, EINVAL, "%s container \"%s\": it is %s", pause ? "pause" : "resume", container->id,
                    container_status_name(status));
    return cgroup_freeze(container->cgroup, pause, error);
}

int runtime_update(struct container *container, struct json_object *json, struct error *error)
{
    struct resources resources;
    enum container_status status;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    if (status == CONTAINER_STOPPED)
        return fail(error, EINVAL, "update container \"%s\": it is stopped", container->id);
    if (resources_parse(json, &resources, error) < 0)
        return -1;
    int result = 0;
    if (json_get(json, "devices") != NULL && json_object_array_length(json_get(json, "devices")) > 0)
        result = fail(error, ENOTSUP, "update container \"%s\": device rules are fixed at create", container->id);
    if (result == 0 && (cgroup_apply(container->cgroup, &resources, error) < 0 ||
                        cgroup_apply_pids(container->cgroup, &resources, error) < 0))
        result = -1;
    resources_free(&resources);
    return result;
}

int runtime_processes(const struct container *container, pid_t **pids, size_t *count, struct error *error)
{
    return cgroup_processes(container->cgroup, pids, count, error);
}

const char *runtime_cgroup_path(const struct container *container, const char *controller)
{
    const struct cgroup_entry *entry = container->cgroup == NULL ? NULL : cgroup_entry(container->cgroup, controller);
    return entry == NULL ? NULL : entry->path;
}

int runtime_await_death(const struct container *container, struct error *error)
{
    if (container->pidfd < 0)
        return 0;
    struct pollfd polled = {.fd = container->pidfd, .events = POLLIN};
    if ((int)TEMP_FAILURE_RETRY(poll(&polled, 1, DEATH_WAIT_MS)) == 0)
        return fail(error, ETIMEDOUT, "end container \"%s\": its first process does not die", container->id);
    siginfo_t ignored = {0};
    /* ECHILD: somebody else's child. WNOWAIT is not used: a reaped child is what a deleted container means. */
    (void)waitid(P_PIDFD, (id_t)container->pidfd, &ignored, WEXITED | WNOHANG);
    return 0;
}

int runtime_delete(struct container *container, bool force, struct error *error)
{
    enum container_status status;
    cleanup_free char *state = NULL;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    if (status != CONTAINER_STOPPED) {
        if (!force)
            return fail(error, EBUSY, "delete container \"%s\": it is %s, not stopped", container->id,
                        container_status_name(status));
        if (container->pidfd >= 0 && pidfd_send_signal(container->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            return fail(error, errno, "kill container \"%s\"", container->id);
    }
    struct error ignored;
    /* Processes can outlive the first one when they share the runtime's pid namespace. */
    if (container->cgroup != NULL && container->cgroup->count > 0 &&
        cgroup_signal(container->cgroup, SIGKILL, &ignored) < 0)
        log_debug("%s", ignored.text); /* the removal below tells what remained */
    if (runtime_await_death(container, error) < 0)
        return -1;
    if (container->cgroup != NULL && cgroup_remove(container->cgroup, error) < 0)
        return -1;
    if (container->config != NULL && container->config->hooks[HOOK_POSTSTOP].count > 0 &&
        state_text(container, "stopped", 0, &state, error) == 0)
        hooks_run_tolerant(&container->config->hooks[HOOK_POSTSTOP], "poststop", state);
    return state_remove(container->root, container->id, error);
}
