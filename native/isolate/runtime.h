/*
 * The OCI operations as calls, for the command line (main.c) and for the monitor, which makes a container's first
 * process its own child: create is a fork without exec, so no verb needs a second program.
 *
 * Order:  runtime_create -> runtime_start -> (runtime_exec, runtime_kill)* -> the caller reaps -> runtime_delete.
 * All calls are for a single-threaded caller. After a failed call nothing of it remains: no process, cgroup, mount,
 * state directory or descriptor. Descriptors that they hand out are O_CLOEXEC and owned by the caller's struct.
 */
#ifndef ISOLATE_RUNTIME_H
#define ISOLATE_RUNTIME_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

#define ISOLATE_VERSION "0.1.0"
#define OCI_VERSION "1.3.0"

enum container_status { CONTAINER_CREATING, CONTAINER_CREATED, CONTAINER_RUNNING, CONTAINER_PAUSED, CONTAINER_STOPPED };
const char *container_status_name(enum container_status status);

/* A container as its state directory tells; see state.h for the file. Free with container_close(). */
struct container {
    char *id;
    char *root;           /* the runtime's state folder */
    int state_fd;         /* O_DIRECTORY of `root`/`id`, -1 when closed */
    char *bundle;         /* absolute */
    char *rootfs;         /* absolute, as seen by the host */
    char *created;        /* RFC 3339 */
    pid_t pid;            /* first process, as seen by the runtime */
    uint64_t start_time;  /* field 22 of /proc/PID/stat: with the pid it names the process for one boot */
    int pidfd;            /* of the first process; -1 when it is gone or the container was loaded after its end */
    int terminal_master;  /* after create with a terminal and no console socket; else -1 */
    int control_fd;       /* after create with `hold_start`: the channel that runtime_start() uses; else -1 */
    uid_t owner;
    bool creating;        /* create has not ended yet */
    struct config *config;   /* after a load only what later verbs need: process, hooks, annotations */
    char *seccomp_key;       /* of the finished filter in the cache; NULL: the container has no filter */
    unsigned seccomp_flags;
    struct cgroup *cgroup;
};

struct create_options {
    const char *root;           /* state folder; NULL: runtime_default_root() */
    const char *id;
    const char *bundle;         /* NULL: the working directory */
    const char *pid_file;       /* NULL: none */
    const char *console_socket; /* NULL: none */
    int stdio[3];               /* descriptors for 0, 1 and 2 of the first process; -1 keeps the caller's */
    unsigned preserve_fds;      /* 3 .. 3+n-1 stay open in the container */
    bool no_pivot;
    bool no_new_keyring;
    bool hold_start;            /* start comes from this same process: no start socket is made */
    bool rootless;              /* cgroup refusals are tolerated when no limit was asked for */
    bool timings;               /* print microseconds of each phase to standard error */
};

/* Which user, which folder: overrides of the command line on top of a process object (OCI config.md, process). */
struct exec_options {
    const char *process_file;   /* JSON of an OCI process, "-" is refused; NULL: start from the container's own */
    struct json_object *process; /* the same already parsed (borrowed); used when process_file is NULL */
    const char *const *args;    /* replaces args when not NULL; NULL-terminated */
    const char *const *env;     /* added; NULL-terminated or NULL */
    const char *cwd;
    const char *user;           /* "UID[:GID]", decimal */
    const char *const *caps;    /* added to every set but inheritable; NULL-terminated or NULL */
    const unsigned *additional_gids;
    size_t additional_gid_count;
    const char *apparmor;
    const char *process_label;
    const char *pid_file;
    const char *console_socket;
    const char *cgroup;         /* sub-cgroup below the container's own; NULL: the container's */
    int stdio[3];               /* -1 keeps the caller's */
    int terminal_master;        /* out: with a terminal and no console socket, the master; else -1 */
    unsigned preserve_fds;
    bool tty;
    bool tty_set;               /* `tty` counts */
    bool no_new_privs;
    bool ignore_paused;
    bool timings;
};

/* /run/isolate for root, $XDG_RUNTIME_DIR/isolate for others. The text lives as long as the process. */
const char *runtime_default_root(void);

/* Makes a container up to `created` (OCI runtime.md, create). Fills `container`. */
int runtime_create(const struct create_options *options, struct container *container, struct error *error);

/* Runs the user's program, with its hooks around it (OCI runtime.md, start). */
int runtime_start(struct container *container, struct error *error);

/* Loads a container by its id from the state folder. ENOENT in error->number: no such container. */
int runtime_load(const char *root, const char *id, struct container *container, struct error *error);

/* What the container's first process does now. */
int runtime_status(const struct container *container, enum container_status *status, struct error *error);

/* The OCI state as a JSON object that the caller puts. */
int runtime_state(const struct container *container, enum container_status status, struct json_object **out,
                  struct error *error);

/* Starts another process in a running container; the caller is its parent and reaps it. */
int runtime_exec(const struct container *container, struct exec_options *options, pid_t *pid, int *pidfd,
                 struct error *error);

/* Signals the first process, or with `all` every process of its cgroup. */
int runtime_kill(const struct container *container, int signal, bool all, struct error *error);

/* Freezes or thaws every process of the container. */
int runtime_pause(const struct container *container, bool pause, struct error *error);

/* Applies an OCI linux.resources object to the container's cgroups; nothing is left half applied when it is invalid. */
int runtime_update(struct container *container, struct json_object *resources, struct error *error);

/* Removes cgroups, state and remaining processes of a stopped container; with `force` kills it first. Runs poststop hooks. */
int runtime_delete(struct container *container, bool force, struct error *error);

/* Waits for the first process to be gone, and reaps it when it is our child. Gives up after ten seconds. */
int runtime_await_death(const struct container *container, struct error *error);

/* Statistics in the shape of runc's `events --stats` data; the caller puts the object. */
int runtime_stats(const struct container *container, struct json_object **out, struct error *error);

/* Pids in the container's cgroup, as seen by the runtime; the caller frees `*pids`. */
int runtime_processes(const struct container *container, pid_t **pids, size_t *count, struct error *error);

/* Host directory of the cgroup that carries `controller` ("memory"; "" is the v2 tree), or NULL. For OOM notices. */
const char *runtime_cgroup_path(const struct container *container, const char *controller);

/* "TERM", "SIGTERM", "15", "RTMIN+1" to a number, or -1. */
int signal_from_text(const char *text);

/* Frees and closes what the struct holds; the container lives on. Twice is fine. */
void container_close(struct container *container);
#define cleanup_container __attribute__((cleanup(container_close)))


#endif
