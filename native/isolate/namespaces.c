#include "isolate/namespaces.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/setup.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* From linux/sched.h, which cannot be included beside sched.h. */
struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};
#define CLONE_INTO_CGROUP_FLAG 0x200000000ull

pid_t clone_process(uint64_t flags, int cgroup_fd, int *pidfd)
{
    struct clone_arguments arguments = {.flags = flags};
    if ((flags & CLONE_PARENT) == 0)
        arguments.exit_signal = SIGCHLD;
    if (pidfd != NULL) {
        arguments.flags |= CLONE_PIDFD;
        arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
    }
    if (cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP_FLAG;
        arguments.cgroup = (uint64_t)cgroup_fd;
    }
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

int namespaces_open(const struct config *config, int *fds, struct error *error)
{
    for (size_t i = 0; i < NAMESPACE_KINDS; i++)
        fds[i] = -1;
    for (size_t i = 0; i < config->namespace_count; i++) {
        const struct namespace_config *wanted = &config->namespaces[i];
        if (wanted->path == NULL)
            continue;
        fds[i] = open(wanted->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fds[i] < 0)
            return fail(error, errno, "open namespace %s", wanted->path);
        int type = ioctl(fds[i], NS_GET_NSTYPE);
        if (type < 0)
            return fail(error, errno, "join %s: it is not a namespace", wanted->path);
        if (type != wanted->flag)
            return fail(error, EINVAL, "join %s: it is a namespace of another type", wanted->path);
    }
    return 0;
}

static uint64_t new_flags(const struct config *config)
{
    uint64_t flags = 0;
    for (size_t i = 0; i < config->namespace_count; i++)
        if (config->namespaces[i].path == NULL)
            flags |= (uint64_t)(unsigned)config->namespaces[i].flag;
    /* The cgroup namespace's root is the group of the moment, so it comes after the join; the time namespace after its offsets. */
    return flags & ~(uint64_t)(CLONE_NEWCGROUP | CLONE_NEWTIME);
}

static bool joins_any(const struct setup *setup, int besides)
{
    for (size_t i = 0; i < setup->config->namespace_count; i++)
        if (setup->namespace_fds[i] >= 0 && setup->config->namespaces[i].flag != besides)
            return true;
    return false;
}

static int joined_fd(const struct setup *setup, int flag)
{
    for (size_t i = 0; i < setup->config->namespace_count; i++)
        if (setup->config->namespaces[i].flag == flag)
            return setup->namespace_fds[i];
    return -1;
}

/* A user namespace takes the rights over namespaces of the host; those are joined before, in a process of their own. */
static bool needs_intermediate(const struct setup *setup)
{
    return joined_fd(setup, CLONE_NEWUSER) >= 0 || (setup->new_user_namespace && joins_any(setup, 0));
}

bool namespaces_clone_joins_cgroup(const struct setup *setup)
{
    return !needs_intermediate(setup) && cgroup_clone_fd(setup->cgroup) >= 0;
}

static int join(int fd, int flag, struct error *error)
{
    if (setns(fd, flag) < 0)
        return fail(error, errno, "join a namespace (type %#x)", (unsigned)flag);
    return 0;
}

/* In the intermediate process. Namespaces that the host's user may join come first, those of the joined user after it. */
static int join_all(const struct setup *setup, struct error *error)
{
    bool later[NAMESPACE_KINDS] = {false};
    int user = joined_fd(setup, CLONE_NEWUSER);
    for (size_t i = 0; i < setup->config->namespace_count; i++) {
        int flag = setup->config->namespaces[i].flag, fd = setup->namespace_fds[i];
        if (fd < 0 || flag == CLONE_NEWUSER)
            continue;
        if (join(fd, flag, error) < 0) {
            if (user < 0 || error->number != EPERM)
                return -1;
            later[i] = true;
        }
    }
    if (user >= 0 && join(user, CLONE_NEWUSER, error) < 0)
        return -1;
    for (size_t i = 0; i < setup->config->namespace_count; i++)
        if (later[i] && join(setup->namespace_fds[i], setup->config->namespaces[i].flag, error) < 0)
            return -1;
    return 0;
}

/* What the intermediate process tells its parent: the pid of the sibling, or why there is none. */
struct intermediate_report {
    pid_t pid;
    struct error error;
};

static int clone_sibling(const struct setup *setup, int report_fd, struct error *error)
{
    struct intermediate_report report = {.pid = -1};
    if (join_all(setup, &report.error) == 0) {
        /* CLONE_PARENT: the first process becomes a child of the runtime, which reaps it. */
        report.pid = clone_process(new_flags(setup->config) | CLONE_PARENT, -1, NULL);
        if (report.pid == 0)
            return 0;
        if (report.pid < 0)
            fail(&report.error, errno, "make the first process and its namespaces");
    }
    (void)write_all(report_fd, &report, sizeof report, "the runtime", error);
    _exit(0);
}

static int clone_through_intermediate(const struct setup *setup, pid_t *pid, int *pidfd, struct error *error)
{
    int pipes[2];
    struct intermediate_report report = {.pid = -1};
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return fail(error, errno, "make a pipe");
    cleanup_fd int reading = pipes[0], writing = pipes[1];
    pid_t intermediate = fork();
    if (intermediate < 0)
        return fail(error, errno, "fork");
    if (intermediate == 0) {
        *pid = 0;
        return clone_sibling(setup, writing, error);
    }
    close_fd(&writing);
    ssize_t got = TEMP_FAILURE_RETRY(read(reading, &report, sizeof report));
    TEMP_FAILURE_RETRY(waitpid(intermediate, NULL, 0));
    if (got != sizeof report)
        return fail(error, EPIPE, "join the namespaces: the process that does it ended");
    if (report.pid < 0) {
        *error = report.error;
        return -1;
    }
    *pid = report.pid;
    *pidfd = pidfd_open(report.pid, 0); /* our unreaped child: the pid cannot have been given to another */
    if (*pidfd < 0)
        return fail(error, errno, "open the first process");
    return 0;
}

int namespaces_clone(const struct setup *setup, int cgroup_fd, pid_t *pid, int *pidfd, struct error *error)
{
    if (needs_intermediate(setup))
        return clone_through_intermediate(setup, pid, pidfd, error);
    int pid_namespace = joined_fd(setup, CLONE_NEWPID);
    cleanup_fd int own = -1;
    if (pid_namespace >= 0) {
        own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (own < 0)
            return fail(error, errno, "open the runtime's pid namespace");
        if (join(pid_namespace, CLONE_NEWPID, error) < 0)
            return -1;
    }
    *pid = clone_process(new_flags(setup->config), cgroup_fd, pidfd);
    int number = errno;
    if (*pid == 0)
        return 0;
    if (own >= 0 && join(own, CLONE_NEWPID, error) < 0) {
        if (*pid > 0)
            kill(*pid, SIGKILL);
        return fail_in(error, "return to the runtime's pid namespace");
    }
    if (*pid < 0)
        return fail(error, number, "make the first process and its namespaces");
    return 0;
}

/* time_namespaces(7): offsets are written while nobody is inside; then this process moves in. */
static int enter_time_namespace(const struct setup *setup, struct error *error)
{
    const struct config *config = setup->config;
    char text[160];
    int length = 0;
    if (unshare(CLONE_NEWTIME) < 0)
        return fail(error, errno, "make a time namespace");
    if (config->monotonic.set)
        length += snprintf(text, sizeof text, "monotonic %lld %u\n", (long long)config->monotonic.seconds, config->monotonic.nanoseconds);
    if (config->boottime.set)
        length += snprintf(text + length, sizeof text - (size_t)length, "boottime %lld %u\n", (long long)config->boottime.seconds, config->boottime.nanoseconds);
    if (length > 0) {
        cleanup_fd int fd = open_resolved(setup->proc_fd, "self/timens_offsets", O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
        if (fd < 0)
            return fail(error, errno, "open the offsets of the time namespace");
        if (write_all(fd, text, (size_t)length, "timens_offsets", error) < 0)
            return fail_in(error, "linux.timeOffsets");
    }
    cleanup_fd int fresh = open_resolved(setup->proc_fd, "self/ns/time_for_children", O_RDONLY, 0, 0);
    if (fresh < 0)
        return fail(error, errno, "open the time namespace");
    return join(fresh, CLONE_NEWTIME, error);
}

int namespaces_finish(const struct setup *setup, struct error *error)
{
    if (!needs_intermediate(setup))
        for (size_t i = 0; i < setup->config->namespace_count; i++) {
            int flag = setup->config->namespaces[i].flag;
            if (setup->namespace_fds[i] >= 0 && flag != CLONE_NEWPID && join(setup->namespace_fds[i], flag, error) < 0)
                return -1;
        }
    if (config_has_new_namespace(setup->config, CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return fail(error, errno, "make a cgroup namespace");
    if (config_has_new_namespace(setup->config, CLONE_NEWTIME) && enter_time_namespace(setup, error) < 0)
        return -1;
    return 0;
}
