/*
 * isolate: an OCI runtime with runc's command line, and the monitor of one container.
 *   isolate [global options] create|start|state|kill|delete|run|exec|ps|pause|resume|update|events|list|features|spec ...
 *   isolate monitor ...
 *   isolate launcher [PROGRAM]       starts monitors for a caller, and keeps the sealed image for it
 * Errors end with a status other than 0, a line on standard error, and a line in --log.
 */
#include "common/fd.h"
#include "common/json.h"
#include "isolate/config.h"
#include "isolate/log.h"
#include "isolate/options.h"
#include "isolate/runtime.h"
#include "isolate/self.h"
#include "isolate/state.h"
#include "isolate/terminal.h"
#include "isolate/user.h"
#include "isolate/verbs.h"
#include "monitor/launch.h"
#include "monitor/monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int one_id(const struct invocation *invocation, int at, const char **id, struct error *error)
{
    if (at >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    if (at + 1 < invocation->argc)
        return fail(error, EINVAL, "unexpected argument \"%s\"", invocation->argv[at + 1]);
    *id = invocation->argv[at];
    return 0;
}

static int read_count(const char *text, unsigned *out, struct error *error)
{
    if (text != NULL && id_from_text(text, strlen(text), out) < 0)
        return fail(error, EINVAL, "\"%s\" is not a count", text);
    return 0;
}

/* Exit status as a shell tells it. */
static int reap(int pidfd, struct error *error)
{
    siginfo_t info = {0};
    if (TEMP_FAILURE_RETRY(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED)) < 0)
        return fail(error, errno, "wait for the process");
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

/* ---- create and run ---- */

struct create_arguments {
    struct create_options options;
    const char *id;
    bool detach, keep;
    int pause_fd; /* -1: none */
};

static int read_create(const struct invocation *invocation, struct create_arguments *out, struct error *error)
{
    const char *preserve = NULL, *pause = NULL;
    bool no_subreaper = false;
    int next = 0;
    const struct option_spec specs[] = {
        {"pause-fd", NULL, OPTION_TEXT, &pause},
        {"bundle", "b", OPTION_TEXT, &out->options.bundle},
        {"console-socket", NULL, OPTION_TEXT, &out->options.console_socket},
        {"pid-file", NULL, OPTION_TEXT, &out->options.pid_file},
        {"no-pivot", NULL, OPTION_FLAG, &out->options.no_pivot},
        {"no-new-keyring", NULL, OPTION_FLAG, &out->options.no_new_keyring},
        {"preserve-fds", NULL, OPTION_TEXT, &preserve},
        {"detach", "d", OPTION_FLAG, &out->detach},
        {"keep", NULL, OPTION_FLAG, &out->keep},
        {"no-subreaper", NULL, OPTION_FLAG, &no_subreaper},
    };
    if (options_read(specs, COUNT(specs), invocation->argc, invocation->argv, &next, error) < 0 ||
        one_id(invocation, next, &out->id, error) < 0 || read_count(preserve, &out->options.preserve_fds, error) < 0)
        return -1;
    unsigned number = 0;
    if (read_count(pause, &number, error) < 0)
        return -1;
    out->pause_fd = pause == NULL ? -1 : (int)number;
    const char *listen = getenv("LISTEN_FDS");
    unsigned handed = 0;
    if (listen != NULL && id_from_text(listen, strlen(listen), &handed) == 0)
        out->options.preserve_fds += handed;
    out->options.root = invocation->root;
    out->options.id = out->id;
    out->options.rootless = invocation->rootless;
    out->options.timings = invocation->timings;
    out->options.stdio[0] = out->options.stdio[1] = out->options.stdio[2] = -1;
    return 0;
}

static int verb_create(const struct invocation *invocation, struct error *error)
{
    struct create_arguments arguments = {0};
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    if (read_create(invocation, &arguments, error) < 0 || runtime_create(&arguments.options, &container, error) < 0)
        return -1;
    if (container.terminal_master >= 0) {
        struct error ignored;
        (void)runtime_delete(&container, true, &ignored);
        return fail(error, EINVAL, "create with process.terminal needs --console-socket");
    }
    return 0;
}

/*
 * Between create and start: the monitor, at the other end of this socket, takes up what was created, and has it started.
 * Without the monitor nothing is.
 */
static int pause_for_monitor(int fd, struct error *error)
{
    char byte = 'c';
    if (TEMP_FAILURE_RETRY(send(fd, &byte, 1, MSG_NOSIGNAL)) != 1 || TEMP_FAILURE_RETRY(recv(fd, &byte, 1, 0)) != 1)
        return fail(error, EPIPE, "start the container: its monitor is gone");
    return 0;
}

static int verb_run(const struct invocation *invocation, struct error *error)
{
    struct create_arguments arguments = {0};
    struct error ignored;
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    if (read_create(invocation, &arguments, error) < 0)
        return -1;
    arguments.options.hold_start = true;
    if (!arguments.detach)
        terminal_block_signals();
    if (arguments.pause_fd >= 0 && fcntl(arguments.pause_fd, F_SETFD, FD_CLOEXEC) < 0)
        return fail(error, errno, "use descriptor %d", arguments.pause_fd);
    if (runtime_create(&arguments.options, &container, error) < 0)
        return -1;
    if (arguments.detach && container.terminal_master >= 0) {
        (void)runtime_delete(&container, true, &ignored);
        return fail(error, EINVAL, "run --detach with process.terminal needs --console-socket");
    }
    if ((arguments.pause_fd >= 0 && pause_for_monitor(arguments.pause_fd, error) < 0) || runtime_start(&container, error) < 0) {
        (void)runtime_delete(&container, true, &ignored);
        return -1;
    }
    if (arguments.detach)
        return 0;
    int status = terminal_accompany(container.terminal_master, container.pidfd, error);
    if (status == 0)
        status = reap(container.pidfd, error);
    if (!arguments.keep && runtime_delete(&container, true, status < 0 ? &ignored : error) < 0 && status >= 0)
        return -1;
    return status;
}

/* ---- exec ---- */

static int read_groups(const struct option_list *list, unsigned **out, struct error *error)
{
    *out = calloc(list->count + 1, sizeof **out);
    if (*out == NULL)
        return fail(error, ENOMEM, "read --additional-gids");
    for (size_t i = 0; i < list->count; i++)
        if (id_from_text(list->values[i], strlen(list->values[i]), &(*out)[i]) < 0)
            return fail(error, EINVAL, "--additional-gids \"%s\" is not a group id", list->values[i]);
    return 0;
}

static int exec_and_wait(const struct invocation *invocation, const char *id, struct exec_options *options, bool detach,
                         struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    pid_t pid = 0;
    cleanup_fd int pidfd = -1;
    if (runtime_load(invocation->root, id, &container, error) < 0)
        return -1;
    if (!detach)
        terminal_block_signals();
    if (runtime_exec(&container, options, &pid, &pidfd, error) < 0)
        return -1;
    cleanup_fd int master = options->terminal_master;
    if (detach) {
        if (master < 0)
            return 0;
        kill(pid, SIGKILL);
        return fail(error, EINVAL, "exec --detach with a terminal needs --console-socket");
    }
    return terminal_accompany(master, pidfd, error) < 0 ? -1 : reap(pidfd, error);
}

static int verb_exec(const struct invocation *invocation, struct error *error)
{
    struct exec_options options = {.stdio = {-1, -1, -1}, .terminal_master = -1};
    struct option_list env = {0}, groups = {0}, caps = {0};
    const char *preserve = NULL, *unused = NULL;
    bool detach = false, tty = false;
    int next = 0;
    const struct option_spec specs[] = {
        {"process", "p", OPTION_TEXT, &options.process_file},
        {"console-socket", NULL, OPTION_TEXT, &options.console_socket},
        {"pid-file", NULL, OPTION_TEXT, &options.pid_file},
        {"detach", "d", OPTION_FLAG, &detach},
        {"tty", "t", OPTION_FLAG, &tty},
        {"user", "u", OPTION_TEXT, &options.user},
        {"cwd", NULL, OPTION_TEXT, &options.cwd},
        {"env", "e", OPTION_LIST, &env},
        {"additional-gids", "g", OPTION_LIST, &groups},
        {"cap", "c", OPTION_LIST, &caps},
        {"apparmor", NULL, OPTION_TEXT, &options.apparmor},
        {"process-label", NULL, OPTION_TEXT, &options.process_label},
        {"no-new-privs", NULL, OPTION_FLAG, &options.no_new_privs},
        {"preserve-fds", NULL, OPTION_TEXT, &preserve},
        {"ignore-paused", NULL, OPTION_FLAG, &options.ignore_paused},
        {"cgroup", NULL, OPTION_TEXT, &options.cgroup},
        {"no-subreaper", NULL, OPTION_TEXT, &unused},
    };
    if (options_read(specs, COUNT(specs) - 1, invocation->argc, invocation->argv, &next, error) < 0)
        return -1;
    if (next >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    const char *id = invocation->argv[next++];
    if (next < invocation->argc && strcmp(invocation->argv[next], "--") == 0)
        next++;
    cleanup_free unsigned *gids = NULL;
    cleanup_free const char **env_values = env.values, **cap_values = caps.values, **group_values = groups.values;
    (void)group_values; /* only to be freed */
    if (read_count(preserve, &options.preserve_fds, error) < 0 || read_groups(&groups, &gids, error) < 0)
        return -1;
    if (next < invocation->argc)
        options.args = (const char *const *)(uintptr_t)&invocation->argv[next];
    else if (options.process_file == NULL)
        return fail(error, EINVAL, "exec needs a program or --process");
    options.env = env_values;
    options.caps = cap_values;
    options.additional_gids = gids;
    options.additional_gid_count = groups.count;
    options.tty = tty;
    options.tty_set = tty;
    return exec_and_wait(invocation, id, &options, detach, error);
}

/* ---- the short verbs ---- */

static int load(const struct invocation *invocation, int at, struct container *container, struct error *error)
{
    const char *id = NULL;
    return one_id(invocation, at, &id, error) < 0 ? -1 : runtime_load(invocation->root, id, container, error);
}

static int verb_start(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    return load(invocation, 0, &container, error) < 0 ? -1 : runtime_start(&container, error);
}

static int verb_state(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    cleanup_json struct json_object *state = NULL;
    enum container_status status;
    if (load(invocation, 0, &container, error) < 0 || runtime_status(&container, &status, error) < 0 ||
        runtime_state(&container, status, &state, error) < 0)
        return -1;
    puts(json_object_to_json_string_ext(state, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    return 0;
}

static int verb_kill(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    bool all = false;
    int next = 0;
    const struct option_spec specs[] = {{"all", "a", OPTION_FLAG, &all}};
    if (options_read(specs, COUNT(specs), invocation->argc, invocation->argv, &next, error) < 0)
        return -1;
    if (next >= invocation->argc)
        return fail(error, EINVAL, "the container's id is missing");
    if (next + 2 < invocation->argc)
        return fail(error, EINVAL, "unexpected argument \"%s\"", invocation->argv[next + 2]);
    const char *name = next + 1 < invocation->argc ? invocation->argv[next + 1] : "SIGTERM";
    int number = signal_from_text(name);
    if (number < 0)
        return fail(error, EINVAL, "\"%.64s\" is not a signal", name);
    if (runtime_load(invocation->root, invocation->argv[next], &container, error) < 0)
        return -1;
    return runtime_kill(&container, number, all, error);
}

static int verb_delete(const struct invocation *invocation, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    bool force = false;
    int next = 0;
    const struct option_spec specs[] = {{"force", "f", OPTION_FLAG, &force}};
    if (options_read(specs, COUNT(specs), invocation->argc, invocation->argv, &next, error) < 0)
        return -1;
    if (load(invocation, next, &container, error) < 0)
        return force && error->number == ENOENT ? 0 : -1; /* as the peers: --force on nothing is nothing */
    return runtime_delete(&container, force, error);
}

static int freeze(const struct invocation *invocation, bool pause, struct error *error)
{
    cleanup_container struct container container = {.state_fd = -1, .pidfd = -1, .control_fd = -1, .terminal_master = -1};
    return load(invocation, 0, &container, error) < 0 ? -1 : runtime_pause(&container, pause, error);
}

static int verb_pause(const struct invocation *invocation, struct error *error)
{
    return freeze(invocation, true, error);
}

static int verb_resume(const struct invocation *invocation, struct error *error)
{
    return freeze(invocation, false, error);
}

static int verb_unsupported(const struct invocation *invocation, struct error *error)
{
    (void)invocation;
    return fail(error, ENOTSUP, "checkpoint and restore are not supported by this runtime");
}

static int verb_launcher(const struct invocation *invocation, struct error *error)
{
    if (invocation->argc > 1)
        return fail(error, EINVAL, "unexpected argument \"%s\"", invocation->argv[1]);
    return launcher_run(invocation->argc > 0 ? invocation->argv[0] : NULL, error);
}

static int verb_version(const struct invocation *invocation, struct error *error)
{
    (void)invocation;
    (void)error;
    printf("isolate version %s\nspec: %s\n", ISOLATE_VERSION, OCI_VERSION);
    return 0;
}

static const struct verb {
    const char *name;
    int (*run)(const struct invocation *, struct error *);
    bool enters_container; /* the program's image must be sealed before */
} verbs[] = {
    {"create", verb_create, true},   {"start", verb_start, false},       {"state", verb_state, false},
    {"kill", verb_kill, false},      {"delete", verb_delete, false},     {"run", verb_run, true},
    {"exec", verb_exec, true},       {"ps", verb_ps, false},             {"pause", verb_pause, false},
    {"resume", verb_resume, false},  {"update", verb_update, false},     {"events", verb_events, false},
    {"list", verb_list, false},      {"features", verb_features, false}, {"spec", verb_spec, false},
    {"launcher", verb_launcher, true}, {"version", verb_version, false}, {"checkpoint", verb_unsupported, false}, {"restore", verb_unsupported, false},
};

static const char usage[] =
    "usage: isolate [--root DIR] [--log FILE] [--log-format text|json] [--debug] [--rootless true|false|auto] VERB ...\n"
    "verbs: create start state kill delete run exec ps pause resume update events list features spec monitor\n";

static int run_verb(int argc, char **argv, struct error *error)
{
    const char *root = NULL, *log = NULL, *format = "text", *rootless = "auto", *criu = NULL;
    bool debug = false, systemd = false, version = false, help = false, timings = false;
    int next = 1;
    const struct option_spec specs[] = {
        {"root", NULL, OPTION_TEXT, &root},           {"log", NULL, OPTION_TEXT, &log},
        {"log-format", NULL, OPTION_TEXT, &format},   {"debug", NULL, OPTION_FLAG, &debug},
        {"systemd-cgroup", NULL, OPTION_FLAG, &systemd}, {"rootless", NULL, OPTION_TEXT, &rootless},
        {"criu", NULL, OPTION_TEXT, &criu},           {"version", "v", OPTION_FLAG, &version},
        {"help", "h", OPTION_FLAG, &help},            {"timings", NULL, OPTION_FLAG, &timings},
    };
    if (options_read(specs, COUNT(specs), argc, argv, &next, error) < 0)
        return -1;
    if (strcmp(format, "text") != 0 && strcmp(format, "json") != 0)
        return fail(error, EINVAL, "--log-format is text or json, not \"%s\"", format);
    if (log_open(log, strcmp(format, "json") == 0 ? LOG_JSON : LOG_TEXT, debug, error) < 0)
        return -1;
    if (version)
        return verb_version(NULL, error);
    if (help || next >= argc) {
        fputs(usage, help ? stdout : stderr);
        return help ? 0 : 1;
    }
    if (systemd)
        return fail(error, ENOTSUP, "--systemd-cgroup is not supported by this runtime: use the cgroupfs driver");
    if (strcmp(rootless, "true") != 0 && strcmp(rootless, "false") != 0 && strcmp(rootless, "auto") != 0)
        return fail(error, EINVAL, "--rootless is true, false or auto, not \"%s\"", rootless);
    struct invocation invocation = {
        .root = root != NULL ? root : runtime_default_root(),
        .rootless = strcmp(rootless, "true") == 0 || (strcmp(rootless, "auto") == 0 && geteuid() != 0),
        .timings = timings,
        .argc = argc - next - 1,
        .argv = argv + next + 1,
    };
    for (size_t i = 0; i < COUNT(verbs); i++) {
        if (strcmp(argv[next], verbs[i].name) != 0)
            continue;
        if (verbs[i].enters_container && self_seal(argv, error) < 0)
            return -1;
        return verbs[i].run(&invocation, error);
    }
    return fail(error, EINVAL, "verb \"%s\" is not known", argv[next]);
}

/* Also called by the monitor in a process that it forked, so that a verb needs no second program. */
int isolate_main(int argc, char **argv)
{
    struct error error = {0};
    int status = run_verb(argc, argv, &error);
    if (status < 0) {
        log_error("%s", error.text);
        status = 1;
    }
    return fflush(stdout) == 0 ? status : 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "monitor") == 0)
        return monitor_main(argc - 1, argv + 1);
    return isolate_main(argc, argv);
}
