/*
 * The last steps of a process on its way into the user's program: limits, labels, session, user, capabilities,
 * seccomp, execve. Used by create and by exec alike.
 */
#ifndef ISOLATE_PROCESS_H
#define ISOLATE_PROCESS_H

#include "common/error.h"

#include <stdbool.h>

struct process_config;
struct seccomp_program;

/* The host's procfs as a descriptor, checked to be procfs and its root. */
int process_open_proc(int *out, struct error *error);

/*
 * Makes this process, and so the ones that it clones, invisible to tracing and to /proc/PID/fd and mem: a clone into a
 * pid namespace is in sight of its processes before it could do so itself (CVE-2016-9962). Only for root of the initial
 * user namespace; others would lose their own access to /proc/PID.
 */
int process_hide_from_clone(struct error *error);

/* oom_score_adj of this process or, by `pid_text` other than "self", of a child. */
int process_set_oom_score(int proc_fd, const char *pid_text, int score, struct error *error);

/* Limits, AppArmor and SELinux labels of the coming execve, umask. */
int process_limit(const struct process_config *process, int proc_fd, struct error *error);

/* A fresh session keyring named after the container, so that the host's keys are out of reach. */
int process_new_keyring(const char *id, struct error *error);

/* Descriptors 0, 1 and 2 from `stdio`; -1 keeps what is there, and what is closed becomes /dev/null. */
int process_set_stdio(const int stdio[3], struct error *error);

/* User, groups, working directory, capabilities, no_new_privs; seccomp and execve are left. `extra_capabilities` is for seccomp_install() without no_new_privs. */
int process_drop(const struct process_config *process, bool has_seccomp, bool set_groups, struct error *error);

/*
 * Closes all but stdio and the preserved descriptors on execve, loads the filter, runs the program. Returns only on
 * failure, with the reason.
 */
int process_run(const struct process_config *process, const struct seccomp_program *seccomp, unsigned preserve_fds,
                bool is_init, struct error *error);

#endif
