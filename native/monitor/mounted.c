#include "monitor/mounted.h"

#include "common/fd.h"
#include "common/path.h"
#include "monitor/overlay.h"

#include <fcntl.h>
#include <getopt.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { ACTS_MAX = 256, PRINT_BYTES_MAX = 1 << 20 };

struct act {
    enum { ACT_BIND, ACT_MAKE_DIRECTORY, ACT_PRINT } kind;
    const char *path;
    const char *source;
};

struct plan {
    struct overlay_options overlay;
    const char *mount_ns; /* look into a running container instead */
    struct act acts[ACTS_MAX];
    unsigned act_count;
};

static int add_act(struct plan *plan, struct act act, struct error *error)
{
    if (plan->act_count == ACTS_MAX)
        return fail(error, E2BIG, "do more than %d things in one root", ACTS_MAX);
    plan->acts[plan->act_count++] = act;
    return 0;
}

static int parse(int argc, char **argv, struct plan *plan, struct error *error)
{
    enum { LOWER = 256, UPPER, WORK, TARGET, BIND, AT, MAKE, PRINT, MOUNT_NS };
    static const struct option known[] = {
        {"overlay-lower", required_argument, NULL, LOWER}, {"overlay-upper", required_argument, NULL, UPPER},
        {"overlay-work", required_argument, NULL, WORK},   {"overlay-target", required_argument, NULL, TARGET},
        {"bind", required_argument, NULL, BIND},           {"at", required_argument, NULL, AT},
        {"make-directory", required_argument, NULL, MAKE}, {"print", required_argument, NULL, PRINT},
        {"mount-ns", required_argument, NULL, MOUNT_NS},
        {0},
    };
    const char *source = NULL;
    optind = 0;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "+", known, NULL)) != -1;) {
        int result = 0;
        switch (option) {
        case LOWER:
            if (plan->overlay.lower_count == OVERLAY_LOWERS_MAX)
                return fail(error, E2BIG, "stack more than %d layers", OVERLAY_LOWERS_MAX);
            plan->overlay.lowers[plan->overlay.lower_count++] = optarg;
            break;
        case UPPER:
            plan->overlay.upper = optarg;
            break;
        case WORK:
            plan->overlay.work = optarg;
            break;
        case TARGET:
            plan->overlay.target = optarg;
            break;
        case BIND:
            source = optarg;
            break;
        case AT:
            if (source == NULL)
                return fail(error, EINVAL, "take --at without --bind");
            result = add_act(plan, (struct act){.kind = ACT_BIND, .path = optarg, .source = source}, error);
            source = NULL;
            break;
        case MAKE:
            result = add_act(plan, (struct act){.kind = ACT_MAKE_DIRECTORY, .path = optarg}, error);
            break;
        case MOUNT_NS:
            plan->mount_ns = optarg;
            break;
        case PRINT:
            result = add_act(plan, (struct act){.kind = ACT_PRINT, .path = optarg}, error);
            break;
        default:
            return fail(error, EINVAL, "understand option %s", argv[optind - 1]);
        }
        if (result < 0)
            return -1;
    }
    if (plan->mount_ns == NULL && (plan->overlay.target == NULL || plan->overlay.lower_count == 0))
        return fail(error, EINVAL, "do without --overlay-target and --overlay-lower");
    /* In a namespace of a container every path is the container's, and nothing of it may be run. */
    if (plan->mount_ns != NULL && (plan->overlay.target != NULL || optind < argc))
        return fail(error, EINVAL, "run a command or mount an overlay in a running container");
    for (unsigned i = 0; plan->mount_ns != NULL && i < plan->act_count; i++)
        if (plan->acts[i].kind != ACT_PRINT)
            return fail(error, EINVAL, "do more than --print in a running container");
    return 0;
}

static int print_file(int root, const char *path, struct error *error)
{
    cleanup_free char *content = NULL;
    size_t length = 0;
    struct stat status;
    cleanup_fd int found = open_in_root(root, path, 0);
    bool regular = found >= 0 && fstat(found, &status) == 0 && S_ISREG(status.st_mode);
    if (regular) {
        /*
         * O_PATH first: opening a device or a pipe for reading could block or act. The container may replace the file in
         * between: O_NONBLOCK keeps that from blocking us. Not through /proc/self/fd, which may be a fake in there.
         */
        while (*path == '/')
            path++;
        cleanup_fd int readable = open_resolved(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
        if (readable < 0 || fstat(readable, &status) < 0 || !S_ISREG(status.st_mode))
            return fail(error, errno, "print %s", path);
        if (read_all(readable, PRINT_BYTES_MAX, &content, &length, path, error) < 0)
            return -1;
    }
    char head[32];
    int head_length = snprintf(head, sizeof head, "%lld\n", regular ? (long long)length : -1LL);
    if (write_all(STDOUT_FILENO, head, (size_t)head_length, "standard output", error) < 0)
        return -1;
    return regular ? write_all(STDOUT_FILENO, content, length, "standard output", error) : 0;
}

static int bind_into(int root, const struct act *act, struct error *error)
{
    struct stat status;
    if (stat(act->source, &status) < 0)
        return fail(error, errno, "look at volume %s", act->source);
    cleanup_fd int target = -1;
    int made = S_ISDIR(status.st_mode) ? make_directory_in_root(root, act->path, 0755, &target, error)
                                       : make_file_in_root(root, act->path, 0644, &target, error);
    if (made < 0)
        return -1;
    struct fd_path path = fd_path(target);
    if (mount(act->source, path.text, NULL, MS_BIND | MS_REC, NULL) < 0)
        return fail(error, errno, "bind volume %s on %s", act->source, act->path);
    return 0;
}

static int perform(const struct plan *plan, struct error *error)
{
    const char *where = plan->mount_ns != NULL ? "/" : plan->overlay.target;
    if (plan->mount_ns != NULL) {
        cleanup_fd int ns = open(plan->mount_ns, O_RDONLY | O_CLOEXEC);
        if (ns < 0 || setns(ns, CLONE_NEWNS) < 0)
            return fail(error, errno, "enter mount namespace %s", plan->mount_ns);
    } else if (enter_private_mounts(error) < 0 || overlay_mount(&plan->overlay, error) < 0) {
        return -1;
    }
    cleanup_fd int root = open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail(error, errno, "open %s", where);
    for (unsigned i = 0; i < plan->act_count; i++) {
        const struct act *act = &plan->acts[i];
        cleanup_fd int made = -1;
        int result = act->kind == ACT_BIND             ? bind_into(root, act, error)
                     : act->kind == ACT_MAKE_DIRECTORY ? make_directory_in_root(root, act->path, 0755, &made, error)
                                                       : print_file(root, act->path, error);
        if (result < 0)
            return -1;
    }
    return 0;
}

int mounted_main(int argc, char **argv)
{
    static struct plan plan;
    struct error error = {0};
    if (parse(argc, argv, &plan, &error) < 0 || perform(&plan, &error) < 0) {
        fprintf(stderr, "Cannot %s\n", error.text);
        return 1;
    }
    if (optind >= argc)
        return 0;
    execv(argv[optind], argv + optind);
    fprintf(stderr, "Cannot run %s: %s\n", argv[optind], strerror(errno));
    return 127;
}
