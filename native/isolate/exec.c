/* exec: another process in a running container, by the same rules as its first one. */
#include "common/fd.h"
#include "common/json.h"
#include "common/path.h"
#include "isolate/cgroup.h"
#include "isolate/config.h"
#include "isolate/faults.h"
#include "isolate/namespaces.h"
#include "isolate/process.h"
#include "isolate/runtime.h"
#include "isolate/seccomp.h"
#include "isolate/setup.h"
#include "isolate/state.h"
#include "isolate/terminal.h"
#include "isolate/user.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct exec_setup {
    const struct container *container;
    struct exec_options *options;
    struct process_config process;
    struct seccomp_program seccomp;
    struct cgroup *cgroup;  /* to join */
    struct cgroup below;    /* it, when --cgroup asks for one further down */
    const char **env;     /* merged; the vector is ours, the strings are not */
    gid_t *groups;
    int namespaces;       /* CLONE_NEW* flags that differ from the runtime's */
    bool user_namespace;
    int proc_fd;
    int control_fd;
    int console_fd;
    struct timings *timings;
};

/* ---- the process to run ---- */

static int merge_env(struct exec_setup *setup, const char *const *added, struct error *error)
{
    size_t extra = 0, count = 0;
    while (added != NULL && added[extra] != NULL)
        extra++;
    setup->env = calloc(setup->process.env_count + extra + 1, sizeof *setup->env);
    if (setup->env == NULL)
        return fail(error, ENOMEM, "build the environment");
    for (size_t i = 0; i < setup->process.env_count; i++) {
        size_t name = strcspn(setup->process.env[i], "=");
        bool replaced = false;
        for (size_t k = 0; k < extra; k++)
            replaced = replaced || (strncmp(added[k], setup->process.env[i], name) == 0 && added[k][name] == '=');
        if (!replaced)
            setup->env[count++] = setup->process.env[i];
    }
    for (size_t i = 0; i < extra; i++)
        setup->env[count++] = added[i];
    free(setup->process.env);
    setup->process.env = setup->env;
    setup->process.env_count = count;
    setup->env = NULL;
    return 0;
}

static int add_capabilities(struct process_config *process, const char *const *names, struct error *error)
{
    for (; names != NULL && *names != NULL; names++) {
        int number = capability_from_name(*names);
        if (number < 0)
            return fail(error, EINVAL, "exec --cap: \"%.64s\" is not a capability", *names);
        uint64_t bit = 1ull << number;
        /* CVE-2022-29162: never inheritable. */
        process->capabilities.bounding |= bit;
        process->capabilities.permitted |= bit;
        process->capabilities.effective |= bit;
        process->has_capabilities = true;
    }
    return 0;
}

static int add_groups(struct exec_setup *setup, struct error *error)
{
    const struct exec_options *options = setup->options;
    struct process_config *process = &setup->process;
    if (options->additional_gid_count == 0)
        return 0;
    gid_t *grown = realloc(process->groups, (process->group_count + options->additional_gid_count) * sizeof *grown);
    if (grown == NULL)
        return fail(error, ENOMEM, "collect the additional groups");
    for (size_t i = 0; i < options->additional_gid_count; i++)
        grown[process->group_count++] = options->additional_gids[i];
    process->groups = grown;
    return 0;
}

/* The container's own process, or the one given, with the command line's changes on top. `*owned` keeps its JSON alive. */
static int choose_process(struct exec_setup *setup, struct json_object **owned, struct error *error)
{
    struct exec_options *options = setup->options;
    const struct config *config = setup->container->config;
    struct process_config *process = &setup->process;
    struct json_object *json = options->process;
    if (options->process_file != NULL) {
        if (json_load_at(AT_FDCWD, options->process_file, owned, error) < 0)
            return -1;
        json = *owned;
    }
    bool given = json != NULL;
    if (json == NULL && !config->has_process)
        return fail(error, EINVAL, "exec: the configuration has no process to start from");
    if (process_config_parse(given ? json : config->process.json, process, error) < 0)
        return fail_in(error, "exec");
    if (!given) {
        /* The command line starts from the container's settings, but for its terminal. */
        process->terminal = options->tty;
        if (options->args != NULL) {
            free(process->args);
            size_t count = 0;
            while (options->args[count] != NULL)
                count++;
            process->args = calloc(count + 1, sizeof *process->args);
            if (process->args == NULL)
                return fail(error, ENOMEM, "exec");
            for (size_t i = 0; i < count; i++)
                process->args[i] = options->args[i];
        }
    } else if (options->tty_set) {
        process->terminal = options->tty;
    }
    if (process->args == NULL || process->args[0] == NULL)
        return fail(error, EINVAL, "exec: process.args is missing");
    if (options->cwd != NULL) {
        if (options->cwd[0] != '/')
            return fail(error, EINVAL, "exec: --cwd must be an absolute path");
        process->cwd = options->cwd;
    }
    if (options->user != NULL && user_from_text(options->user, &process->uid, &process->gid, error) < 0)
        return -1;
    if (options->apparmor != NULL)
        process->apparmor = options->apparmor;
    if (options->process_label != NULL)
        process->selinux = options->process_label;
    if (options->no_new_privs)
        process->no_new_privileges = true;
    return merge_env(setup, options->env, error) < 0 || add_capabilities(process, options->caps, error) < 0 ||
                   add_groups(setup, error) < 0
               ? -1
               : 0;
}

/* ---- where to run it ---- */

/*
 * The namespaces in which the first process differs from us. setns(2) with a pidfd enters them in one call
 * (Linux 5.8); naming one that is already ours fails for the user namespace, so only real differences count.
 */
static int find_namespaces(struct exec_setup *setup, struct error *error)
{
    static const struct {
        const char *name;
        int flag;
    } kinds[] = {{"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS},       {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
                 {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},      {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char own[32], theirs[48];
        struct stat mine, other;
        snprintf(own, sizeof own, "self/ns/%s", kinds[i].name);
        snprintf(theirs, sizeof theirs, "%d/ns/%s", (int)setup->container->pid, kinds[i].name);
        if (fstatat(setup->proc_fd, own, &mine, 0) < 0)
            continue; /* a kernel without this kind */
        if (fstatat(setup->proc_fd, theirs, &other, 0) < 0)
            return fail(error, errno, "exec: read the namespaces of the first process");
        if (mine.st_ino != other.st_ino || mine.st_dev != other.st_dev)
            setup->namespaces |= kinds[i].flag;
    }
    setup->user_namespace = (setup->namespaces & CLONE_NEWUSER) != 0;
    return 0;
}

/* The container's own groups, opened to be joined, or a copy one level down. */
static int choose_cgroup(struct exec_setup *setup, struct error *error)
{
    struct json_object *json = NULL;
    if (setup->options->cgroup == NULL) {
        setup->cgroup = setup->container->cgroup;
        return cgroup_open(setup->cgroup, true, error);
    }
    if (cgroup_to_json(setup->container->cgroup, &json, error) < 0)
        return -1;
    int result = cgroup_from_json(json, &setup->below, error);
    json_object_put(json);
    setup->cgroup = &setup->below;
    if (result < 0 || cgroup_descend(setup->cgroup, setup->options->cgroup, error) < 0)
        return -1;
    return cgroup_open(setup->cgroup, true, error);
}

/* The filter of the container: by its key, or compiled once more when the cache was emptied meanwhile. */
static int choose_filter(struct exec_setup *setup, struct error *error)
{
    const struct container *container = setup->container;
    cleanup_json struct json_object *json = NULL;
    struct config *config = NULL;
    if (container->seccomp_key == NULL || seccomp_recall(container->seccomp_key, container->seccomp_flags, &setup->seccomp))
        return 0;
    if (json_load_at(container->state_fd, "config.json", &json, error) < 0)
        return -1;
    struct json_object *taken = json;
    json = NULL;
    if (config_parse(taken, &config, error) < 0)
        return -1;
    int result = config->seccomp == NULL ? fail(error, EINVAL, "exec: the seccomp profile is missing")
                                         : seccomp_prepare(config->seccomp, &setup->seccomp, error);
    config_free(config);
    return result;
}

/* ---- the child ---- */

static bool may_set_groups(const struct exec_setup *setup)
{
    if (!setup->user_namespace)
        return true;
    cleanup_fd int fd = openat(setup->proc_fd, "self/setgroups", O_RDONLY | O_CLOEXEC);
    char text[6] = "";
    return fd >= 0 && read(fd, text, 5) > 0 && strncmp(text, "allow", 5) == 0;
}

static int enter_root(const struct exec_setup *setup, struct error *error)
{
    if ((setup->namespaces & CLONE_NEWNS) != 0)
        return 0; /* setns(2) has moved us to the root of the mount namespace */
    /* The container shares our mount namespace: its root is a chroot. */
    char path[32];
    snprintf(path, sizeof path, "%d/root", (int)setup->container->pid);
    cleanup_fd int root = openat(setup->proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fchdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return fail(error, errno, "exec: enter the root of the container");
    return 0;
}

static int become_process(struct exec_setup *setup, struct error *error)
{
    struct exec_options *options = setup->options;
    const struct process_config *process = &setup->process;
    cleanup_fd int master = -1;
    if (setsid() < 0)
        return fail(error, errno, "start a session");
    if (process_new_keyring(setup->container->id, error) < 0 || enter_root(setup, error) < 0)
        return -1;
    if (setup->user_namespace) {
        if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
            return fail(error, errno, "drop the runtime's groups");
        if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
            return fail(error, errno, "become user 0 of the user namespace");
    }
    if (process->terminal) {
        if (terminal_open_here(process, &master, error) < 0 || terminal_become_stdio(master, process, error) < 0)
            return -1;
        int channel = setup->console_fd >= 0 ? setup->console_fd : setup->control_fd;
        if (terminal_send(channel, master, error) < 0)
            return -1;
        close_fd(&master);
    } else if (process_set_stdio(options->stdio, error) < 0) {
        return -1;
    }
    if (process_limit(process, setup->proc_fd, error) < 0 ||
        process_drop(process, setup->seccomp.filters != NULL, may_set_groups(setup), error) < 0)
        return -1;
    return process_run(process, &setup->seccomp, options->preserve_fds, false, error);
}

static void __attribute__((noreturn)) report_and_end(const struct exec_setup *setup, const struct error *error)
{
    (void)TEMP_FAILURE_RETRY(send(setup->control_fd, error, sizeof *error, MSG_NOSIGNAL));
    _exit(127);
}

static void __attribute__((noreturn)) run_child(struct exec_setup *setup, bool joined)
{
    struct error error = {0};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    /* CVE-2016-9962 */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        fail(&error, errno, "hide the memory of the process");
    else if (cgroup_join(setup->cgroup, joined || cgroup_clone_fd(setup->cgroup) < 0, &error) == 0) {
        int rest = joined ? 0 : setup->namespaces & ~CLONE_NEWPID;
        if (rest != 0 && setns(setup->container->pidfd, rest) < 0)
            fail(&error, errno, "exec: join the namespaces of the container");
        else
            become_process(setup, &error);
    }
    report_and_end(setup, &error);
}

/*
 * With a user namespace of its own the container's other namespaces belong to that user: one process joins them all
 * and clones a sibling, which stands in the pid namespace too.
 */
static int clone_through_intermediate(struct exec_setup *setup, pid_t *pid, int *pidfd, struct error *error)
{
    int pipes[2];
    pid_t sibling = -1;
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return fail(error, errno, "make a pipe");
    cleanup_fd int reading = pipes[0], writing = pipes[1];
    pid_t intermediate = fork();
    if (intermediate < 0)
        return fail(error, errno, "fork");
    if (intermediate == 0) {
        struct error inner = {0};
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || setns(setup->container->pidfd, setup->namespaces) < 0) {
            fail(&inner, errno, "exec: join the namespaces of the container");
            report_and_end(setup, &inner);
        }
        sibling = clone_process(CLONE_PARENT, -1, NULL);
        if (sibling == 0)
            run_child(setup, true);
        if (sibling < 0) {
            fail(&inner, errno, "exec: make a process");
            report_and_end(setup, &inner);
        }
        _exit(write(writing, &sibling, sizeof sibling) == sizeof sibling ? 0 : 1);
    }
    close_fd(&writing);
    ssize_t got = TEMP_FAILURE_RETRY(read(reading, &sibling, sizeof sibling));
    TEMP_FAILURE_RETRY(waitpid(intermediate, NULL, 0));
    if (got != sizeof sibling) {
        *pid = 0; /* the channel has the reason */
        return 0;
    }
    *pid = sibling;
    *pidfd = pidfd_open(sibling, 0);
    return *pidfd < 0 ? fail(error, errno, "exec: open the process") : 0;
}

/* Only the pid namespace is entered here, since it counts for children alone; the child joins the others itself. */
static int clone_directly(struct exec_setup *setup, pid_t *pid, int *pidfd, struct error *error)
{
    bool enter = (setup->namespaces & CLONE_NEWPID) != 0;
    cleanup_fd int own = enter ? openat(setup->proc_fd, "self/ns/pid", O_RDONLY | O_CLOEXEC) : -1;
    if (enter && own < 0)
        return fail(error, errno, "exec: open the runtime's pid namespace");
    if (enter && setns(setup->container->pidfd, CLONE_NEWPID) < 0)
        return fail(error, errno, "exec: join the pid namespace of the container");
    int group = cgroup_clone_fd(setup->cgroup);
    *pid = clone_process(0, group, pidfd);
    int number = errno;
    if (*pid == 0)
        run_child(setup, false);
    if (enter && setns(own, CLONE_NEWPID) < 0) {
        number = errno;
        if (*pid > 0) {
            kill(*pid, SIGKILL);
            TEMP_FAILURE_RETRY(waitpid(*pid, NULL, 0));
        }
        return fail(error, number, "exec: return to the runtime's pid namespace");
    }
    return *pid < 0 ? fail(error, number, "exec: make a process") : 0;
}

/* ---- the runtime's side ---- */

static void exec_close(struct exec_setup *setup)
{
    close_fd(&setup->proc_fd);
    close_fd(&setup->control_fd);
    close_fd(&setup->console_fd);
    process_config_free(&setup->process);
    seccomp_program_free(&setup->seccomp);
    cgroup_free(&setup->below);
}

/* End of the channel without a message is success; a terminal may come first. */
static int await_execve(int channel, struct exec_options *options, struct error *error)
{
    for (;;) {
        struct error told = {0};
        int fds[1] = {-1};
        size_t count = 1;
        ssize_t length = receive_fds(channel, &told, sizeof told, fds, &count, error);
        if (length == 0)
            return 0;
        if (length < 0)
            return -1;
        if (count == 1) {
            close_fd(&options->terminal_master);
            options->terminal_master = fds[0];
            continue;
        }
        told.text[sizeof told.text - 1] = '\0';
        *error = told;
        return -1;
    }
}

static int check_container(const struct container *container, bool ignore_paused, struct error *error)
{
    enum container_status status;
    if (runtime_status(container, &status, error) < 0)
        return -1;
    if (status == CONTAINER_PAUSED && !ignore_paused)
        return fail(error, EBUSY, "exec in container \"%s\": it is paused (--ignore-paused waits until it is resumed)", container->id);
    if (status == CONTAINER_STOPPED || status == CONTAINER_CREATING || container->pidfd < 0)
        return fail(error, EINVAL, "exec in container \"%s\": cannot exec in a %s container", container->id,
                    container_status_name(status));
    return 0;
}

static int write_pid(const char *path, pid_t pid, struct error *error)
{
    char text[16], temporary[PATH_MAX];
    int length = snprintf(text, sizeof text, "%d", (int)pid);
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
        return fail(error, ENAMETOOLONG, "write pid file %s", path);
    cleanup_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write_all(fd, text, (size_t)length, temporary, error) < 0 || rename(temporary, path) < 0)
        return fail(error, errno, "write pid file %s", path);
    return 0;
}

static int exec_in(struct exec_setup *setup, struct json_object **owned, pid_t *pid, int *pidfd, struct error *error)
{
    struct exec_options *options = setup->options;
    int pair[2];
    if (check_container(setup->container, options->ignore_paused, error) < 0 ||
        choose_process(setup, owned, error) < 0 || process_open_proc(&setup->proc_fd, error) < 0 ||
        find_namespaces(setup, error) < 0 || choose_cgroup(setup, error) < 0 || choose_filter(setup, error) < 0)
        return -1;
    if (setup->process.terminal && options->console_socket != NULL &&
        terminal_connect(options->console_socket, &setup->console_fd, error) < 0)
        return -1;
    if (process_hide_from_clone(error) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(error, errno, "exec: make the channel to the process");
    cleanup_fd int channel = pair[0];
    setup->control_fd = pair[1];
    if ((setup->user_namespace ? clone_through_intermediate : clone_directly)(setup, pid, pidfd, error) < 0)
        return -1;
    close_fd(&setup->control_fd);
    if (await_execve(channel, options, error) < 0)
        return -1;
    if (*pid <= 0)
        return fail(error, ECHILD, "exec: the process ended before it began");
    return options->pid_file == NULL ? 0 : write_pid(options->pid_file, *pid, error);
}

int runtime_exec(const struct container *container, struct exec_options *options, pid_t *pid, int *pidfd,
                 struct error *error)
{
    struct exec_setup setup = {.container = container, .options = options, .proc_fd = -1, .control_fd = -1, .console_fd = -1};
    struct json_object *owned = NULL;
    *pid = 0;
    *pidfd = -1;
    options->terminal_master = -1;
    int result = exec_in(&setup, &owned, pid, pidfd, error);
    if (result < 0) {
        if (*pid > 0) {
            kill(*pid, SIGKILL);
            TEMP_FAILURE_RETRY(waitpid(*pid, NULL, 0));
        }
        *pid = 0;
        close_fd(pidfd);
        close_fd(&options->terminal_master);
    }
    exec_close(&setup);
    json_object_put(owned);
    return result;
}
