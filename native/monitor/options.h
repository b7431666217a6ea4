/* The command line of `isolate monitor`, written by the agent. */
#ifndef MONITOR_OPTIONS_H
#define MONITOR_OPTIONS_H

#include "common/error.h"
#include "monitor/logfile.h"

#include <stdbool.h>

enum { RUNTIME_ARGUMENTS_MAX = 8, OVERLAY_LOWERS_MAX = 256, STATE_PATH_MAX = 1024 };

struct overlay_options {
    const char *lowers[OVERLAY_LOWERS_MAX]; /* the topmost first */
    unsigned lower_count;
    const char *upper; /* NULL: read-only */
    const char *work;
    const char *target; /* NULL: nothing to mount */
};

struct monitor_options {
    const char *id;
    const char *bundle;
    const char *state_directory;
    const char *runtime; /* `builtin` or the path of an OCI runtime */
    const char *runtime_root;
    const char *runtime_arguments[RUNTIME_ARGUMENTS_MAX];
    unsigned runtime_argument_count;
    const char *log_path; /* NULL: no log; attach works all the same */
    struct log_options log;
    bool drop; /* back-pressure: a slow attach client loses bytes; otherwise it is let go */
    bool open_stdin;
    bool terminal;
    bool auto_cleanup;
    bool start_at_once; /* the answer to the agent is that the container runs, and not that it is created */
    bool stay;          /* be the monitor in this process, which nobody waits for; otherwise in a fork of it */
    bool host_mounts; /* stay in the host's mount namespace: needed when a volume shares its mounts with the host */
    unsigned created_seconds; /* life of a container that is created and never started */
    unsigned verb_seconds;    /* patience with one call of the runtime */
    int sync_fd;
    struct overlay_options overlay;
};

int monitor_parse_options(int argc, char **argv, struct monitor_options *out, struct error *error);

#endif
