/*
 * create and start (OCI runtime.md "Lifecycle").
 *
 *   runtime                                   first process
 *   read and check config.json
 *   reserve the id, copy config.json
 *   make cgroups, write limits
 *   clone3 ─────────────────────────────────► wait for the id maps (user namespace)
 *   write id maps, pids limit ──── "go" ────► join cgroups and namespaces
 *                                             build the root filesystem
 *   prestart, createRuntime hooks ◄─ "built"─ (only with hooks)
 *                              ─── "go" ────► createContainer hooks
 *                                             pivot_root, limits, user, capabilities
 *   save the state ◄──────────── "ready" ──── wait at start.sock, or at the same socket with hold_start
 *   start ──────────────────────── "go" ────► startContainer hooks, seccomp, execve
 *   poststart hooks ◄────── end of file ─────
 *
 * The channel is a SOCK_SEQPACKET pair that closes on execve: its end without a message is success, a message is the
 * error. Whatever goes wrong, the runtime kills the child (and with its pid namespace all that is in it) and undoes
 * its own steps in reverse.
 */
#include "common/fd.h"
#include "common/json.h"
#include "common/path.h"
#include "isolate/cgroup.h"
#include "isolate/config.h"
#include "isolate/faults.h"
#include "isolate/hooks.h"
#include "isolate/log.h"
#include "isolate/mounts.h"
#include "isolate/namespaces.h"
#include "isolate/process.h"
#include "isolate/rootfs.h"
#include "isolate/seccomp.h"
#include "isolate/setup.h"
#include "isolate/state.h"
#include "isolate/sysctl.h"
#include "isolate/terminal.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

enum message { MESSAGE_GO = 'g', MESSAGE_BUILT = 'b', MESSAGE_READY = 'r', MESSAGE_ERROR = 'e' };

struct packet {
    char kind; /* enum message */
    struct error error;
};

void timings_mark(struct timings *timings, const char *phase)
{
    if (timings == NULL || timings->count == TIMINGS_MAX)
        return;
    timings->marks[timings->count].phase = phase;
    timings->marks[timings->count].ns = monotonic_ns();
    timings->count++;
}

static void timings_print(const struct timings *timings)
{
    for (size_t i = 1; timings != NULL && i < timings->count; i++)
        dprintf(STDERR_FILENO, "%8.1f us  %s\n", (double)(timings->marks[i].ns - timings->marks[i - 1].ns) / 1000.0,
                timings->marks[i].phase);
    if (timings != NULL && timings->count > 1)
        dprintf(STDERR_FILENO, "%8.1f us  total\n",
                (double)(timings->marks[timings->count - 1].ns - timings->marks[0].ns) / 1000.0);
}

/* ---- the channel ---- */

static int send_kind(int fd, char kind, const int *fds, size_t count, struct error *error)
{
    return send_fds(fd, &kind, 1, fds, count, error);
}

static void send_error(int fd, const struct error *what)
{
    struct packet packet = {.kind = MESSAGE_ERROR, .error = *what};
    /* When nobody listens any more there is nobody to tell. */
    (void)TEMP_FAILURE_RETRY(send(fd, &packet, sizeof packet, MSG_NOSIGNAL));
}

/* Waits for `wanted`. End of file answers 0 in `*got`; the other side's error becomes ours. */
static int receive_kind(int fd, char *got, int *passed_fd, struct error *error)
{
    struct packet packet = {0};
    int fds[1] = {-1};
    size_t count = 1;
    ssize_t length = receive_fds(fd, &packet, sizeof packet, fds, &count, error);
    if (length < 0) {
        if (error->number != ECONNRESET)
            return -1;
        length = 0;
    }
    if (count == 1 && length >= 0 && passed_fd != NULL && *passed_fd < 0)
        *passed_fd = fds[0];
    else if (count == 1 && fds[0] >= 0)
        close(fds[0]);
    if (length == 0) {
        *got = 0;
        return 0;
    }
    if (packet.kind == MESSAGE_ERROR) {
        packet.error.text[sizeof packet.error.text - 1] = '\0';
        *error = packet.error;
        return -1;
    }
    *got = packet.kind;
    return 0;
}

static int await_go(int fd, struct error *error)
{
    char got = 0;
    if (receive_kind(fd, &got, NULL, error) < 0)
        return -1;
    return got == MESSAGE_GO ? 0 : fail(error, EPIPE, "wait for the runtime: it is gone");
}

/* ---- the first process ---- */

static int become_root_of_namespace(struct error *error)
{
    /* user_namespaces(7): until it takes an id that the map knows, the process is nobody. setgroups may be denied. */
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
        return fail(error, errno, "drop the runtime's groups");
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        return fail(error, errno, "become user 0 of the user namespace");
    return 0;
}

static bool setgroups_is_allowed(const struct setup *setup)
{
    if (!setup->in_user_namespace)
        return true;
    cleanup_fd int fd = openat(setup->proc_fd, "self/setgroups", O_RDONLY | O_CLOEXEC);
    char text[6] = "";
    return fd >= 0 && read(fd, text, 5) > 0 && strncmp(text, "allow", 5) == 0;
}

static int set_names(const struct config *config, struct error *error)
{
    if (config->hostname != NULL && sethostname(config->hostname, strlen(config->hostname)) < 0)
        return fail(error, errno, "set hostname \"%s\"", config->hostname);
    if (config->domainname != NULL && setdomainname(config->domainname, strlen(config->domainname)) < 0)
        return fail(error, errno, "set domainname \"%s\"", config->domainname);
    return 0;
}

/* A container in the runtime's own or in a joined mount namespace is only confined by chroot: it gets no mounts. */
static int enter_root_without_mounts(const struct setup *setup, struct error *error)
{
    const struct config *config = setup->config;
    bool masks = (config->masked_paths != NULL && config->masked_paths[0] != NULL) ||
                 (config->readonly_paths != NULL && config->readonly_paths[0] != NULL);
    if (config->mount_count > 0 || masks || config->root_readonly || config->overlay_lower_count > 0)
        return fail(error, EINVAL, "mounts, maskedPaths, readonlyPaths and root.readonly need a new mount namespace");
    if (config->has_process && config->process.terminal)
        return fail(error, EINVAL, "process.terminal needs a new mount namespace");
    if (chroot(setup->rootfs) < 0 || chdir("/") < 0)
        return fail(error, errno, "change root to %s", setup->rootfs);
    return 0;
}

static int run_container_hooks(const struct setup *setup, enum hook_kind kind, const char *name, const char *status,
                               struct error *error)
{
    const struct hook_list *list = &setup->config->hooks[kind];
    if (list->count == 0)
        return 0;
    /* OCI runtime.md "State": hooks in the container see the pid as the container does. */
    cleanup_json struct json_object *state = NULL;
    if (json_parse(setup->state_json, strlen(setup->state_json), &state, error) < 0 ||
        json_add(state, "status", json_object_new_string(status), error) < 0 ||
        json_add(state, "pid", json_object_new_int(getpid()), error) < 0)
        return -1;
    return hooks_run(list, name, json_object_to_json_string_ext(state, JSON_C_TO_STRING_PLAIN), error);
}

static bool has_create_hooks(const struct config *config)
{
    return config->hooks[HOOK_PRESTART].count + config->hooks[HOOK_CREATE_RUNTIME].count +
               config->hooks[HOOK_CREATE_CONTAINER].count > 0;
}

static int build_container(const struct setup *setup, int *master, struct error *error)
{
    const struct config *config = setup->config;
    int root_fd = -1;
    /*
     * CVE-2016-9962: before any namespace is shared, nobody may trace us or open our descriptors and memory. A runtime
     * without privilege must still be able to open uid_map, which belongs to root once we are hidden; it is then the
     * only one who could look.
     */
    if (!setup->new_user_namespace && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(error, errno, "hide the memory of the first process");
    umask(0022);
    if (setup->in_user_namespace) {
        if (await_go(setup->control_fd, error) < 0 || become_root_of_namespace(error) < 0)
            return -1;
        /* Taking the ids made the memory visible to them again. */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
            return fail(error, errno, "hide the memory of the first process");
    }
    timings_mark(setup->timings, "first process runs");
    FAULT("child");
    if (cgroup_join(setup->cgroup, !namespaces_clone_joins_cgroup(setup), error) < 0)
        return -1;
    FAULT("join");
    timings_mark(setup->timings, "cgroup join");
    if (namespaces_finish(setup, error) < 0 || set_names(config, error) < 0)
        return -1;
    FAULT("namespaces");
    /* A session of its own, so that no terminal of the host can signal it. */
    if (setsid() < 0)
        return fail(error, errno, "start a session");
    if (!setup->options->no_new_keyring && process_new_keyring(setup->options->id, error) < 0)
        return -1;
    if (setup->mount_namespace_is_new && rootfs_build(setup, &root_fd, master, error) < 0)
        return -1;
    if (config->sysctl != NULL && sysctl_apply(config->sysctl, setup->proc_fd, error) < 0)
        return -1;
    if (has_create_hooks(config)) {
        if (send_kind(setup->control_fd, MESSAGE_BUILT, NULL, 0, error) < 0 || await_go(setup->control_fd, error) < 0 ||
            run_container_hooks(setup, HOOK_CREATE_CONTAINER, "createContainer", "creating", error) < 0)
            return -1;
    }
    int entered = setup->mount_namespace_is_new ? rootfs_enter(setup, root_fd, error)
                                                : enter_root_without_mounts(setup, error);
    close_fd(&root_fd);
    return entered;
}

static int prepare_process(const struct setup *setup, int master, struct error *error)
{
    const struct process_config *process = &setup->config->process;
    if (master >= 0) {
        if (terminal_become_stdio(master, process, error) < 0)
            return -1;
    } else if (process_set_stdio(setup->options->stdio, error) < 0) {
        return -1;
    }
    if (process_limit(process, setup->proc_fd, error) < 0 ||
        process_drop(process, setup->seccomp->filters != NULL, setgroups_is_allowed(setup), error) < 0)
        return -1;
    FAULT("drop");
    timings_mark(setup->timings, "user and capabilities");
    return 0;
}

/* Waits for start; returns the descriptor to report to. Whoever connects and leaves only asked for the status. */
static int await_start(const struct setup *setup, int *report_fd, struct error *error)
{
    if (setup->listen_fd < 0) {
        *report_fd = setup->control_fd;
        return await_go(setup->control_fd, error);
    }
    for (;;) {
        int fd = (int)TEMP_FAILURE_RETRY(accept4(setup->listen_fd, NULL, NULL, SOCK_CLOEXEC));
        if (fd < 0)
            return fail(error, errno, "wait for start");
        char got = 0;
        struct error ignored; /* a caller that dies while it asks */
        if (receive_kind(fd, &got, NULL, &ignored) == 0 && got == MESSAGE_GO) {
            *report_fd = fd;
            return 0;
        }
        close(fd);
    }
}

/* Everything between clone3 and execve. Never returns. */
static void __attribute__((noreturn)) run_first_process(struct setup *setup)
{
    struct error error = {0};
    cleanup_fd int master = -1;
    int report_fd = setup->control_fd;
    /* The runtime may have blocked or ignored signals; the program starts with neither (signal(7)). */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    if (build_container(setup, &master, &error) < 0)
        goto failed;
    if (setup->config->has_process && prepare_process(setup, master, &error) < 0)
        goto failed;
    if (master >= 0 && setup->console_fd >= 0 && terminal_send(setup->console_fd, master, &error) < 0)
        goto failed;
    bool pass_master = master >= 0 && setup->console_fd < 0;
    if (send_kind(setup->control_fd, MESSAGE_READY, &master, pass_master ? 1 : 0, &error) < 0)
        goto failed;
    close_fd(&master);
    if (setup->listen_fd >= 0) {
        /* From here the container does not depend on the program that made it. */
        close(setup->control_fd);
        report_fd = -1;
    }
    if (await_start(setup, &report_fd, &error) < 0)
        goto failed;
    if (!setup->config->has_process) {
        fail(&error, EINVAL, "start: the configuration has no process");
        goto failed;
    }
    if (run_container_hooks(setup, HOOK_START_CONTAINER, "startContainer", "created", &error) < 0)
        goto failed;
    timings_mark(setup->timings, "started");
    /*
     * Execve closes descriptors one after the other: whoever waits for the end of the report could see the listener still
     * there, and be told "created" after start.
     */
    close_fd(&setup->listen_fd);
    process_run(&setup->config->process, setup->seccomp, setup->options->preserve_fds, true, &error);
failed:
    if (report_fd >= 0)
        send_error(report_fd, &error);
    _exit(127);
}

/* ---- the runtime's side ---- */

static int load_bundle(const char *bundle, int *bundle_fd, char **absolute, char **text, size_t *length,
                       struct error *error)
{
    *bundle_fd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*bundle_fd < 0)
        return fail(error, errno, "open bundle %s", bundle);
    *absolute = realpath(bundle, NULL);
    if (*absolute == NULL)
        return fail(error, errno, "name bundle %s", bundle);
    if (read_file_at(*bundle_fd, "config.json", JSON_BYTES_MAX, text, length, error) < 0)
        return fail_in(error, "bundle %s", *absolute);
    return 0;
}

static int name_rootfs(const struct config *config, const char *bundle, char **out, struct error *error)
{
    cleanup_free char *joined = config->root_path[0] == '/' ? strdup(config->root_path)
                                                            : format_text("%s/%s", bundle, config->root_path);
    if (joined == NULL)
        return fail(error, ENOMEM, "name the root filesystem");
    if (config->overlay_lower_count > 0) {
        /* With the overlay of the annotation root.path is a name only; it need not exist. */
        *out = joined;
        joined = NULL;
        return 0;
    }
    *out = realpath(joined, NULL);
    if (*out == NULL)
        return fail(error, errno, "open root filesystem %s", joined);
    return 0;
}

static int check_preserved(unsigned count, struct error *error)
{
    for (unsigned fd = 3; fd < 3 + count; fd++)
        if (count > 4096 || fcntl((int)fd, F_GETFD) < 0)
            return fail(error, EBADF, "preserve %u descriptors: %u is not open", count, fd);
    return 0;
}

static int open_start_socket(int state_fd, int *out, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(error, errno, "make the start socket");
    /* By descriptor, for a long state path does not fit into a socket address (unix(7)). */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start.sock", state_fd);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 16) < 0)
        return fail(error, errno, "bind the start socket");
    *out = take_fd(&fd);
    return 0;
}

static char *now_text(void)
{
    struct timespec now;
    struct tm utc;
    char text[40] = "";
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        return NULL;
    return format_text("%s.%09ldZ", text, now.tv_nsec);
}

/* With a user namespace the child may neither reach the sources of bind mounts nor map their ids: the runtime does. */
static int prepare_mounts(struct setup *setup, struct error *error)
{
    const struct config *config = setup->config;
    if (!setup->in_user_namespace || !setup->mount_namespace_is_new || geteuid() != 0) {
        for (size_t i = 0; i < config->mount_count; i++)
            if (config->mounts[i].options.idmap)
                goto prepare; /* MOUNT_ATTR_IDMAP needs procfs of the host for its namespace */
        return 0;
    }
    if (rootfs_open_tree(setup, &setup->root_tree, error) < 0 ||
        mount_set(setup->root_tree, true, 0, 0, MS_PRIVATE, "/", error) < 0)
        return -1;
prepare:
    setup->mount_trees = calloc(config->mount_count + 1, sizeof *setup->mount_trees);
    if (setup->mount_trees == NULL)
        return fail(error, ENOMEM, "prepare the mounts");
    for (size_t i = 0; i < config->mount_count; i++)
        setup->mount_trees[i] = -1;
    for (size_t i = 0; i < config->mount_count; i++)
        if (config->mounts[i].options.bind && !config->mounts[i].options.remount &&
            (setup->root_tree >= 0 || config->mounts[i].options.idmap) &&
            mount_open_bind(&config->mounts[i], config, setup->bundle, &setup->mount_trees[i], error) < 0)
            return fail_in(error, "mounts[%zu]", i);
    return 0;
}

static void setup_close(struct setup *setup)
{
    close_fd(&setup->bundle_fd);
    close_fd(&setup->proc_fd);
    close_fd(&setup->control_fd);
    close_fd(&setup->listen_fd);
    close_fd(&setup->console_fd);
    close_fd(&setup->root_tree);
    for (size_t i = 0; setup->mount_trees != NULL && i < setup->config->mount_count; i++)
        close_fd(&setup->mount_trees[i]);
    free(setup->mount_trees);
    setup->mount_trees = NULL;
    for (size_t i = 0; i < NAMESPACE_KINDS; i++)
        close_fd(&setup->namespace_fds[i]);
    if (setup->timings != NULL)
        munmap(setup->timings, sizeof *setup->timings);
    setup->timings = NULL;
}

static int run_create_hooks(const struct setup *setup, struct container *container, struct error *error)
{
    cleanup_free char *state = NULL;
    if (state_save(container, error) < 0 || state_text(container, "creating", container->pid, &state, error) < 0)
        return -1;
    if (hooks_run(&setup->config->hooks[HOOK_PRESTART], "prestart", state, error) < 0 ||
        hooks_run(&setup->config->hooks[HOOK_CREATE_RUNTIME], "createRuntime", state, error) < 0)
        return -1;
    return 0;
}

/* The channel closed without a word: something killed the child. Its status is left for whoever reaps it. */
static int fail_early_end(const struct container *container, struct error *error)
{
    siginfo_t info = {0};
    struct pollfd polled = {.fd = container->pidfd, .events = POLLIN};
    if (poll(&polled, 1, 1000) == 1 && waitid(P_PIDFD, (id_t)container->pidfd, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid != 0)
        return fail(error, EPIPE, "make the container: its first process ended early (%s %d)",
                    info.si_code == CLD_EXITED ? "exit status" : "signal", info.si_status);
    return fail(error, EPIPE, "make the container: its first process ended early");
}

/* Speaks with the child until it is ready. */
static int accompany(struct setup *setup, struct container *container, struct error *error)
{
    const struct config *config = setup->config;
    if (setup->new_user_namespace && id_maps_write(container->pid, &config->uids, &config->gids, error) < 0)
        return -1;
    FAULT("maps");
    if (cgroup_apply_pids(container->cgroup, &config->resources, error) < 0)
        return -1;
    if (setup->in_user_namespace && send_kind(container->control_fd, MESSAGE_GO, NULL, 0, error) < 0)
        return -1;
    for (;;) {
        char got = 0;
        if (receive_kind(container->control_fd, &got, &container->terminal_master, error) < 0)
            return -1;
        if (got == MESSAGE_READY)
            return 0;
        if (got != MESSAGE_BUILT)
            return fail_early_end(container, error);
        if (run_create_hooks(setup, container, error) < 0 ||
            send_kind(container->control_fd, MESSAGE_GO, NULL, 0, error) < 0)
            return -1;
    }
}

static int write_pid_file(const char *path, pid_t pid, struct error *error)
{
    char text[16], temporary[PATH_MAX];
    int length = snprintf(text, sizeof text, "%d", (int)pid);
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return fail(error, ENAMETOOLONG, "write pid file %s", path);
    cleanup_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(error, errno, "create pid file %s", temporary);
    if (write_all(fd, text, (size_t)length, temporary, error) < 0 ||
        (rename(temporary, path) < 0 && fail(error, errno, "rename the pid file to %s", path) < 0)) {
        unlink(temporary);
        return -1;
    }
    return 0;
}

static void kill_first_process(struct container *container)
{
    if (container->pid <= 0)
        return;
    if (container->cgroup->count > 0) {
        struct error ignored; /* the process itself is killed below in any case */
        (void)cgroup_signal(container->cgroup, SIGKILL, &ignored);
    }
    /* Our own unreaped child: the number is still its. */
    kill(container->pid, SIGKILL);
    TEMP_FAILURE_RETRY(waitpid(container->pid, NULL, 0));
    container->pid = 0;
}

static int start_first_process(struct setup *setup, struct container *container, struct error *error)
{
    int pair[2];
    if (process_hide_from_clone(error) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(error, errno, "make the channel to the first process");
    container->control_fd = pair[0];
    setup->control_fd = pair[1];
    int cgroup_fd = namespaces_clone_joins_cgroup(setup) ? cgroup_clone_fd(container->cgroup) : -1;
    if (namespaces_clone(setup, cgroup_fd, &container->pid, &container->pidfd, error) < 0) {
        container->pid = container->pid < 0 ? 0 : container->pid;
        return -1;
    }
    if (container->pid == 0) {
        close(container->control_fd);
        run_first_process(setup);
    }
    close_fd(&setup->control_fd);
    timings_mark(setup->timings, "clone3");
    container->start_time = process_start_time(container->pid, NULL);
    return accompany(setup, container, error);
}

static int describe(struct setup *setup, const struct create_options *options, struct container *container,
                    const char *config_text, size_t config_length, struct error *error)
{
    const char *root = options->root == NULL ? runtime_default_root() : options->root;
    container->id = strdup(options->id);
    container->root = strdup(root);
    container->created = now_text();
    container->owner = geteuid();
    container->creating = true;
    if (container->id == NULL || container->root == NULL || container->created == NULL)
        return fail(error, ENOMEM, "describe the container");
    if (name_rootfs(container->config, container->bundle, &container->rootfs, error) < 0 ||
        state_reserve(root, options->id, &container->state_fd, error) < 0)
        return -1;
    setup->rootfs = container->rootfs;
    if (replace_file_at(container->state_fd, "config.json", config_text, config_length, 0600, false, error) < 0)
        return -1;
    return 0;
}

static int make_container(struct setup *setup, const struct create_options *options, struct container *container,
                          struct seccomp_program *program, struct error *error)
{
    const struct config *config = container->config;
    if (namespaces_open(config, setup->namespace_fds, error) < 0 || process_open_proc(&setup->proc_fd, error) < 0 ||
        check_preserved(options->preserve_fds, error) < 0)
        return -1;
    if (config->seccomp != NULL) {
        if (seccomp_prepare(config->seccomp, program, error) < 0)
            return -1;
        container->seccomp_key = strdup(program->key);
        container->seccomp_flags = program->flags;
        if (container->seccomp_key == NULL)
            return fail(error, ENOMEM, "describe the container");
    }
    if (config->has_process && config->process.terminal && options->console_socket != NULL &&
        terminal_connect(options->console_socket, &setup->console_fd, error) < 0)
        return -1;
    FAULT("prepared");
    timings_mark(setup->timings, "seccomp and namespaces ready");
    if (cgroup_create(config->cgroups_path, options->id, config, options->rootless, container->cgroup, error) < 0)
        return -1;
    FAULT("cgroup");
    if (state_save(container, error) < 0)
        return -1;
    timings_mark(setup->timings, "cgroup directories, state");
    if (cgroup_apply(container->cgroup, &config->resources, error) < 0 ||
        cgroup_apply_devices(container->cgroup, config, error) < 0)
        return -1;
    FAULT("limits");
    timings_mark(setup->timings, "limits");
    if (prepare_mounts(setup, error) < 0)
        return -1;
    if (!options->hold_start && open_start_socket(container->state_fd, &setup->listen_fd, error) < 0)
        return -1;
    cleanup_free char *state = NULL;
    if (state_text(container, "creating", 0, &state, error) < 0)
        return -1;
    setup->state_json = state;
    if (start_first_process(setup, container, error) < 0)
        return -1;
    setup->state_json = NULL;
    FAULT("ready");
    container->creating = false;
    if (state_save(container, error) < 0 ||
        (options->pid_file != NULL && write_pid_file(options->pid_file, container->pid, error) < 0))
        return -1;
    FAULT("saved");
    if (!options->hold_start)
        close_fd(&container->control_fd);
    timings_mark(setup->timings, "ready, state saved");
    return 0;
}

/* Undoes what make_container() did, in reverse; the first error stays the one that is told. */
static void unmake_container(const struct create_options *options, struct container *container)
{
    struct error ignored;
    cleanup_free char *state = NULL;
    bool hooked = container->config != NULL && container->pid > 0 && has_create_hooks(container->config);
    kill_first_process(container);
    if (container->cgroup != NULL && cgroup_remove(container->cgroup, &ignored) < 0)
        log_warning("%s", ignored.text);
    /* OCI runtime.md: a failed prestart or create hook goes on at step 12, and so to the poststop hooks. */
    if (hooked && state_text(container, "stopped", 0, &state, &ignored) == 0)
        hooks_run_tolerant(&container->config->hooks[HOOK_POSTSTOP], "poststop", state);
    if (container->state_fd >= 0 && state_remove(container->root, container->id, &ignored) < 0)
        log_warning("%s", ignored.text);
    if (options->pid_file != NULL && container->state_fd >= 0)
        unlink(options->pid_file);
}

int runtime_create(const struct create_options *options, struct container *container, struct error *error)
{
    cleanup_free char *text = NULL;
    size_t length = 0;
    struct json_object *json = NULL;
    struct seccomp_program program = {0};
    struct setup setup = {.options = options, .bundle_fd = -1, .proc_fd = -1, .control_fd = -1, .listen_fd = -1,
                          .console_fd = -1, .root_tree = -1, .seccomp = &program};
    memset(container, 0, sizeof *container);
    container->state_fd = container->pidfd = container->control_fd = container->terminal_master = -1;
    for (size_t i = 0; i < NAMESPACE_KINDS; i++)
        setup.namespace_fds[i] = -1;
    if (options->timings) {
        setup.timings = mmap(NULL, sizeof *setup.timings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (setup.timings == MAP_FAILED)
            setup.timings = NULL;
    }
    timings_mark(setup.timings, "start");
    if (container_id_check(options->id, error) < 0 ||
        load_bundle(options->bundle == NULL ? "." : options->bundle, &setup.bundle_fd, &container->bundle, &text, &length, error) < 0 ||
        json_parse(text, length, &json, error) < 0 || config_parse(json, &container->config, error) < 0)
        goto failed;
    timings_mark(setup.timings, "configuration read");
    const struct config *config = container->config;
    container->cgroup = calloc(1, sizeof *container->cgroup);
    if (container->cgroup == NULL) {
        fail(error, ENOMEM, "describe the container");
        goto failed;
    }
    setup.config = config;
    setup.cgroup = container->cgroup;
    setup.bundle = container->bundle;
    setup.new_user_namespace = config_has_new_namespace(config, CLONE_NEWUSER);
    setup.in_user_namespace = config_namespace(config, CLONE_NEWUSER) != NULL;
    setup.mount_namespace_is_new = config_has_new_namespace(config, CLONE_NEWNS);
    if (describe(&setup, options, container, text, length, error) < 0 ||
        make_container(&setup, options, container, &program, error) < 0)
        goto failed;
    timings_print(setup.timings);
    setup_close(&setup);
    seccomp_program_free(&program);
    return 0;
failed:
    unmake_container(options, container);
    setup_close(&setup);
    seccomp_program_free(&program);
    container_close(container);
    return -1;
}

/* ---- start ---- */

static int connect_to_first_process(const struct container *container, int *out, struct error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(error, errno, "make a socket");
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start.sock", container->state_fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail(error, errno, "reach the first process of container \"%s\"", container->id);
    *out = take_fd(&fd);
    return 0;
}

/* A failed poststart hook stops the container (OCI runtime.md step 9). */
static int run_poststart_hooks(struct container *container, struct error *error)
{
    const struct hook_list *list = &container->config->hooks[HOOK_POSTSTART];
    cleanup_free char *state = NULL;
    if (list->count == 0)
        return 0;
    if (state_text(container, "running", container->pid, &state, error) < 0)
        return -1;
    if (hooks_run(list, "poststart", state, error) == 0)
        return 0;
    struct error ignored;
    if (runtime_kill(container, SIGKILL, true, &ignored) == 0)
        (void)runtime_await_death(container, &ignored); /* the hook's failure is what is told */
    return -1;
}

int runtime_start(struct container *container, struct error *error)
{
    enum container_status status;
    char got = 0;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    if (status != CONTAINER_CREATED)
        return fail(error, EINVAL, "start container \"%s\": it is %s, not created", container->id, container_status_name(status));
    if (!container->config->has_process)
        return fail(error, EINVAL, "start container \"%s\": its configuration has no process", container->id);
    if (!container->config->process.args)
        return fail(error, EINVAL, "start container \"%s\": process.args is missing", container->id);
    cleanup_fd int channel = container->control_fd;
    container->control_fd = -1;
    if (channel < 0 && connect_to_first_process(container, &channel, error) < 0)
        return -1;
    if (send_kind(channel, MESSAGE_GO, NULL, 0, error) < 0 || receive_kind(channel, &got, NULL, error) < 0) {
        /*
         * A container whose start failed is stopped (runtime.md Lifecycle). Its first process ends after it has told why;
         * whoever deletes the container next must find it so: containerd does at once, and without --force.
         */
        struct error ignored;
        (void)runtime_await_death(container, &ignored);
        return fail_in(error, "start container \"%s\"", container->id);
    }
    return run_poststart_hooks(container, error);
}
