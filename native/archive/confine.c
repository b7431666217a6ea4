/* See confine.h. */
#include "archive/confine.h"

#include "common/fd.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* pivot_root(2): "." twice puts the old root on top of the new one, from where it is detached. */
static int enter_root(const struct confinement *confinement, struct error *error)
{
    const char *root = confinement->root;
    if (unshare(CLONE_NEWNS) < 0)
        return fail(error, errno, "make a mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return fail(error, errno, "make mounts private");
    if (mount(root, root, NULL, MS_BIND, NULL) < 0)
        return fail(error, errno, "bind %s", root);
    /* Device nodes and set-uid files are made, never used. */
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOEXEC | MS_NOSUID;
    if (mount(NULL, root, NULL, flags | (confinement->writes ? 0 : MS_RDONLY), NULL) < 0)
        return fail(error, errno, "remount %s", root);
    if (chdir(root) < 0)
        return fail(error, errno, "enter %s", root);
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return fail(error, errno, "pivot_root to %s", root);
    if (umount2(".", MNT_DETACH) < 0)
        return fail(error, errno, "detach the host's root");
    return 0;
}

/* setns(2) with a mount namespace moves root and working directory to its root. */
static int enter_container(const char *path, struct error *error)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(error, errno, "open the mount namespace %s", path);
    if (setns(fd, CLONE_NEWNS) < 0)
        return fail(error, errno, "join the mount namespace %s", path);
    return 0;
}

#define CAP_BIT(cap) (1u << (cap))

static int drop_capabilities(const struct confinement *confinement, struct error *error)
{
    uint32_t keep = CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH);
    if (confinement->writes)
        keep |= CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_SETFCAP);
    if (confinement->overlay)
        keep |= CAP_BIT(CAP_SYS_ADMIN);
    for (int cap = 0; cap <= 63; cap++) {
        bool kept = cap < 32 && (keep & CAP_BIT(cap)) != 0;
        if (!kept && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return fail(error, errno, "drop capability %d from the bounding set", cap);
    }
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{.effective = keep, .permitted = keep}, {0}};
    if (syscall(SYS_capset, &header, data) < 0)
        return fail(error, errno, "set capabilities");
    return 0;
}

static const int reading_calls[] = {
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(openat2),
    SCMP_SYS(openat), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(getdents64),
    SCMP_SYS(readlinkat), SCMP_SYS(fchdir), SCMP_SYS(fgetxattr), SCMP_SYS(flistxattr), SCMP_SYS(lgetxattr),
    SCMP_SYS(llistxattr), SCMP_SYS(fstatfs), SCMP_SYS(fcntl), SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap),
    SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(clock_gettime), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(tgkill),
    SCMP_SYS(restart_syscall), SCMP_SYS(futex), SCMP_SYS(getrandom),
    SCMP_SYS(sysinfo), /* qsort(3) of glibc asks for the size of memory before it sorts a large array */
};

static const int writing_calls[] = {
    SCMP_SYS(mkdirat), SCMP_SYS(mknodat), SCMP_SYS(symlinkat), SCMP_SYS(linkat), SCMP_SYS(unlinkat),
    SCMP_SYS(fchown), SCMP_SYS(fchownat), SCMP_SYS(fchmod), SCMP_SYS(fchmodat), SCMP_SYS(utimensat),
    SCMP_SYS(fsetxattr), SCMP_SYS(lsetxattr), SCMP_SYS(ftruncate), SCMP_SYS(fsync), SCMP_SYS(syncfs),
};

/* Everything else ends the process: whoever takes over the parser finds no execve, socket, mount or ptrace. */
static int restrict_calls(bool writes, struct error *error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == NULL)
        return fail(error, ENOMEM, "make a seccomp filter");
    int done = 0;
    for (size_t i = 0; done == 0 && i < sizeof reading_calls / sizeof *reading_calls; i++)
        done = seccomp_rule_add(filter, SCMP_ACT_ALLOW, reading_calls[i], 0);
    for (size_t i = 0; done == 0 && writes && i < sizeof writing_calls / sizeof *writing_calls; i++)
        done = seccomp_rule_add(filter, SCMP_ACT_ALLOW, writing_calls[i], 0);
    if (done == 0)
        done = seccomp_load(filter);
    seccomp_release(filter);
    return done < 0 ? fail(error, -done, "load the seccomp filter") : 0;
}

int confine(const struct confinement *confinement, struct error *error)
{
    int entered = confinement->mount_ns != NULL ? enter_container(confinement->mount_ns, error)
                                                : enter_root(confinement, error);
    if (entered < 0)
        return -1;
    if (chdir("/") < 0)
        return fail(error, errno, "enter /");
    umask(0);
    if (setgroups(0, NULL) < 0)
        return fail(error, errno, "leave supplementary groups");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(error, errno, "give up new privileges");
    if (drop_capabilities(confinement, error) < 0)
        return -1;
    return restrict_calls(confinement->writes, error);
}
