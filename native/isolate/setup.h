/*
 * What the first process of a container needs between clone3 and execve. Made by the parent, inherited by fork; the
 * child changes nothing that the parent reads later.
 */
#ifndef ISOLATE_SETUP_H
#define ISOLATE_SETUP_H

#include "isolate/cgroup.h"
#include "isolate/config.h"
#include "isolate/runtime.h"
#include "isolate/seccomp.h"

enum { TIMINGS_MAX = 48 };

/* In memory shared by parent and child, when --timings asks for it. */
struct timings {
    size_t count;
    struct {
        const char *phase;
        uint64_t ns;
    } marks[TIMINGS_MAX];
};

struct setup {
    const struct config *config;
    const struct create_options *options;
    const struct cgroup *cgroup;
    const struct seccomp_program *seccomp;
    const char *bundle;     /* absolute */
    const char *rootfs;     /* absolute path of root.path on the host */
    const char *state_json; /* for the hooks, without pid and status */
    int bundle_fd;
    int proc_fd;            /* the host's procfs, verified; every procfs write goes through it */
    int control_fd;         /* SOCK_SEQPACKET to the parent */
    int listen_fd;          /* start socket, or -1 */
    int console_fd;         /* connected console socket, or -1: the master goes to the parent */
    int root_tree;          /* detached root mount made by the parent, or -1 */
    int *mount_trees;       /* detached bind mounts made by the parent, by mounts[]; -1: the child makes it */
    int namespace_fds[NAMESPACE_KINDS]; /* of joined namespaces, by config->namespaces[]; -1: new */
    bool new_user_namespace;
    bool in_user_namespace; /* new or joined */
    bool mount_namespace_is_new;
    struct timings *timings; /* NULL: not measured */
};

void timings_mark(struct timings *timings, const char *phase);

#endif
