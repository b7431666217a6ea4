#include "isolate/process.h"
#include "common/fd.h"
#include "common/path.h"
#include "isolate/caps.h"
#include "isolate/config.h"
#include "isolate/faults.h"
#include "isolate/log.h"
#include "isolate/seccomp.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

enum { PROC_ROOT_INODE = 1 };

int process_open_proc(int *out, struct error *error)
{
    cleanup_fd int fd = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct statfs filesystem;
    struct stat status;
    if (fd < 0 || fstatfs(fd, &filesystem) < 0 || fstat(fd, &status) < 0)
        return fail(error, errno, "open /proc of the host");
    if (filesystem.f_type != PROC_SUPER_MAGIC || status.st_ino != PROC_ROOT_INODE)
        return fail(error, EINVAL, "open /proc of the host: it is not procfs");
    *out = take_fd(&fd);
    return 0;
}

int process_hide_from_clone(struct error *error)
{
    static const ino_t initial_user_namespace = 0xEFFFFFFD; /* PROC_USER_INIT_INO of linux/proc_ns.h */
    struct stat status;
    if (geteuid() != 0 || stat("/proc/self/ns/user", &status) < 0 || status.st_ino != initial_user_namespace)
        return 0;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(error, errno, "hide this process from the container");
    return 0;
}

/* CVE-2019-16884, CVE-2025-52881: a write to procfs passes no link and no mount on its way. */
static int write_proc(int proc_fd, const char *path, const char *value, struct error *error)
{
    cleanup_fd int fd = open_resolved(proc_fd, path, O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return fail(error, errno, "open /proc/%s", path);
    return write_all(fd, value, strlen(value), path, error);
}

int process_set_oom_score(int proc_fd, const char *pid_text, int score, struct error *error)
{
    char path[48], value[16];
    snprintf(path, sizeof path, "%s/oom_score_adj", pid_text);
    snprintf(value, sizeof value, "%d", score);
    if (write_proc(proc_fd, path, value, error) < 0)
        return fail_in(error, "set process.oomScoreAdj to %d", score);
    return 0;
}

static int set_label(int proc_fd, const char *module, const char *value, const char *what, struct error *error)
{
    char path[64];
    struct error first;
    snprintf(path, sizeof path, "thread-self/attr/%s/exec", module);
    if (write_proc(proc_fd, path, value, &first) == 0)
        return 0;
    if (first.number == ENOENT && write_proc(proc_fd, "thread-self/attr/exec", value, error) == 0)
        return 0;
    if (first.number != ENOENT)
        *error = first;
    return fail_in(error, "set %s \"%s\" (does this kernel have the security module?)", what, value);
}

static bool is_label_module_on(const char *module)
{
    if (strcmp(module, "apparmor") == 0) {
        cleanup_fd int fd = open("/sys/module/apparmor/parameters/enabled", O_RDONLY | O_CLOEXEC);
        char on = 'N';
        return fd >= 0 && read(fd, &on, 1) == 1 && on == 'Y';
    }
    return access("/sys/fs/selinux/enforce", F_OK) == 0;
}

int process_limit(const struct process_config *process, int proc_fd, struct error *error)
{
    for (size_t i = 0; i < process->rlimit_count; i++)
        if (setrlimit((__rlimit_resource_t)process->rlimits[i].resource, &process->rlimits[i].limit) < 0)
            return fail(error, errno, "set process.rlimits[%zu] to %llu and %llu", i,
                        (unsigned long long)process->rlimits[i].limit.rlim_cur,
                        (unsigned long long)process->rlimits[i].limit.rlim_max);
    if (process->has_oom_score_adj && process_set_oom_score(proc_fd, "thread-self", process->oom_score_adj, error) < 0)
        return -1;
    if (process->apparmor != NULL) {
        cleanup_free char *value = format_text("exec %s", process->apparmor);
        if (value == NULL)
            return fail(error, ENOMEM, "set process.apparmorProfile");
        if (!is_label_module_on("apparmor"))
            return fail(error, ENOTSUP, "set process.apparmorProfile \"%s\": this kernel has no AppArmor", process->apparmor);
        if (set_label(proc_fd, "apparmor", value, "process.apparmorProfile", error) < 0)
            return -1;
    }
    if (process->selinux != NULL) {
        if (!is_label_module_on("selinux"))
            return fail(error, ENOTSUP, "set process.selinuxLabel \"%s\": this kernel has no SELinux", process->selinux);
        if (set_label(proc_fd, "selinux", process->selinux, "process.selinuxLabel", error) < 0)
            return -1;
    }
    if (process->has_umask)
        umask(process->umask);
    return 0;
}

int process_new_keyring(const char *id, struct error *error)
{
    char name[80];
    snprintf(name, sizeof name, "_ses.%.64s", id);
    /* ENOSYS: a kernel without keys has none to protect. EPERM, EDQUOT: no room for one; then at least leave the old. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) >= 0 || errno == ENOSYS)
        return 0;
    return fail(error, errno, "join a session keyring (--no-new-keyring does without)");
}

int process_set_stdio(const int stdio[3], struct error *error)
{
    /* First above 2, so that no target overwrites a source. */
    int moved[3] = {-1, -1, -1};
    for (int i = 0; i < 3; i++) {
        if (stdio[i] < 0)
            continue;
        moved[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);
        if (moved[i] < 0)
            return fail(error, errno, "duplicate descriptor %d for stdio", stdio[i]);
    }
    for (int i = 0; i < 3; i++) {
        if (moved[i] >= 0) {
            if (dup2(moved[i], i) < 0)
                return fail(error, errno, "use descriptor %d as %d", moved[i], i);
            close(moved[i]);
        } else if (fcntl(i, F_GETFD) < 0) {
            /* The next open would land here and could be written to as stdout. */
            int fd = open("/dev/null", O_RDWR);
            if (fd < 0)
                return fail(error, errno, "open /dev/null as descriptor %d", i);
            if (fd != i) {
                if (dup2(fd, i) < 0)
                    return fail(error, errno, "open /dev/null as descriptor %d", i);
                close(fd);
            }
        }
    }
    return 0;
}

/*
 * CVE-2024-21626: the working directory is set after pivot_root and must be reachable from the new root. The kernel
 * says "(unreachable)" for one that is not (getcwd(2)).
 */
static int change_directory(const char *path, struct error *error)
{
    char reached[PATH_MAX];
    if (chdir(path) < 0)
        return fail(error, errno, "change to process.cwd %s", path);
    long length = syscall(SYS_getcwd, reached, sizeof reached);
    if (length < 0 || reached[0] != '/')
        return fail(error, length < 0 ? errno : EPERM, "change to process.cwd %s: it is outside the root of the container", path);
    struct stat by_name, here;
    if (stat(reached, &by_name) < 0 || stat(".", &here) < 0 || by_name.st_dev != here.st_dev || by_name.st_ino != here.st_ino)
        return fail(error, EPERM, "change to process.cwd %s: it cannot be reached by its name", path);
    return 0;
}

int process_drop(const struct process_config *process, bool has_seccomp, bool set_groups, struct error *error)
{
    struct capability_sets sets = process->capabilities;
    if (!process->has_capabilities && process->uid != 0)
        memset(&sets, 0, sizeof sets); /* no capabilities asked for, none given */
    if (capabilities_limit_to_grantable(&sets, error) < 0 || capabilities_drop_bounding(&sets, error) < 0 ||
        capabilities_keep_over_setuid(process->uid, process->gid, process->groups, process->group_count, set_groups, error) < 0 ||
        change_directory(process->cwd, error) < 0)
        return -1;
    /*
     * seccomp(2) wants no_new_privs or CAP_SYS_ADMIN. Without the first the second stays until execve, which takes it
     * by the bounding set; no code of the container runs before.
     */
    uint64_t extra = has_seccomp && !process->no_new_privileges ? 1ull << 21 /* CAP_SYS_ADMIN */ : 0;
    if (capabilities_apply(&sets, extra, error) < 0)
        return -1;
    if (process->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(error, errno, "set process.noNewPrivileges");
    /* CVE-2016-9962: the change of user has made us dumpable by the rules of that user's memory; until execve nobody may look. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(error, errno, "hide the memory of the first process");
    return 0;
}

static const char *environment_value(const char *const *env, const char *name)
{
    size_t length = strlen(name);
    const char *found = NULL;
    for (; env != NULL && *env != NULL; env++)
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
            found = *env + length + 1; /* the last one wins, as in getenv of most libraries' putenv */
    return found;
}

/*
 * Why a program cannot be run, in the words that callers of runc look for ("permission denied" becomes exit status 126 of
 * the docker command, "no such file or directory" 127): errno's text in small letters.
 */
static int fail_exec(struct error *error, int number, const char *name)
{
    char reason[128];
    snprintf(reason, sizeof reason, "%s", strerrordesc_np(number));
    for (char *at = reason; *at != '\0'; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at - 'A' + 'a');
    fail(error, 0, "exec: \"%.512s\": %s", name, reason);
    error->number = number;
    return -1;
}

/* execvp(3) by hand, so that the filter comes between the search and the execve. */
static int find_program(const char *name, const char *path, char *out, size_t room, struct error *error)
{
    int reason = ENOENT;
    if (strchr(name, '/') != NULL) {
        if ((size_t)snprintf(out, room, "%s", name) >= room)
            return fail_exec(error, ENAMETOOLONG, name);
        if (faccessat(AT_FDCWD, out, X_OK, AT_EACCESS) < 0)
            return fail_exec(error, errno, name);
        return 0;
    }
    if (path == NULL)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    while (*name != '\0') {
        size_t length = strcspn(path, ":");
        int size = length == 0 ? snprintf(out, room, "./%s", name) : snprintf(out, room, "%.*s/%s", (int)length, path, name);
        struct stat status;
        if (size > 0 && (size_t)size < room && stat(out, &status) == 0 && S_ISREG(status.st_mode)) {
            if (faccessat(AT_FDCWD, out, X_OK, AT_EACCESS) == 0)
                return 0;
            reason = errno;
        }
        path += length;
        if (*path == '\0')
            break;
        path++;
    }
    if (reason == ENOENT) {
        fail(error, 0, "exec: \"%s\": executable file not found in $PATH", name);
        error->number = ENOENT;
        return -1;
    }
    return fail_exec(error, reason, name);
}

/* sd_listen_fds(3): sockets handed on by --preserve-fds belong to the program that we become. */
static int build_environment(const struct process_config *process, bool is_init, const char ***out, struct error *error)
{
    const char *listen = getenv("LISTEN_FDS");
    const char **env = calloc(process->env_count + 4, sizeof *env);
    size_t count = 0;
    if (env == NULL)
        return fail(error, ENOMEM, "build the environment");
    for (size_t i = 0; i < process->env_count; i++)
        env[count++] = process->env[i];
    if (listen != NULL && is_init) {
        char *fds = format_text("LISTEN_FDS=%s", listen), *pid = format_text("LISTEN_PID=%d", (int)getpid());
        if (fds == NULL || pid == NULL) {
            free(fds);
            free(pid);
            free(env);
            return fail(error, ENOMEM, "build the environment");
        }
        env[count++] = fds;
        env[count++] = pid;
    }
    *out = env;
    return 0;
}

int process_run(const struct process_config *process, const struct seccomp_program *seccomp, unsigned preserve_fds,
                bool is_init, struct error *error)
{
    char program[PATH_MAX];
    const char **env = NULL;
    FAULT("execve");
    if (find_program(process->args[0], environment_value(process->env, "PATH"), program, sizeof program, error) < 0 ||
        build_environment(process, is_init, &env, error) < 0)
        return -1;
    /* From here on every descriptor but stdio and the preserved ones ends with execve, whoever opened it. */
    if (close_range(3 + preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return fail(error, errno, "mark the descriptors to be closed");
    if (seccomp != NULL && seccomp_install(seccomp, error) < 0)
        return -1;
    execve(program, (char *const *)(uintptr_t)process->args, (char *const *)(uintptr_t)env);
    return fail_exec(error, errno, program);
}
