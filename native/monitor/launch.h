/*
 * What the launcher is asked for: one container's directories and files, then its monitor. A request is
 *
 *   u32 length of what follows | u32 tag | texts, each ended by a NUL
 *
 * little-endian, the texts being, in this order: `d` PATH and `f` PATH MODE CONTENT, any number of both, then `m` and the
 * arguments of `isolate monitor`. An answer is
 *
 *   u32 tag | u32 length | bytes
 *
 * and a length of 0 ends the answer to that tag. Tags begin with 1: the answer to 0, which nobody asked for, comes first and
 * is the path of the sealed image, or empty.
 */
#ifndef MONITOR_LAUNCH_H
#define MONITOR_LAUNCH_H

#include "common/error.h"

#include <stdint.h>
#include <sys/types.h>

enum {
    LAUNCH_HEAD_BYTES = 8,
    LAUNCH_BYTES_MAX = 8 * 1024 * 1024,
    LAUNCH_STEPS_MAX = 32,
    LAUNCH_ARGUMENTS_MAX = 640, /* OVERLAY_LOWERS_MAX twice, and the rest */
};

struct launch_step {
    const char *path;
    const char *content; /* NULL: a directory */
    mode_t mode;
};

/* Points into the request. */
struct launch {
    struct launch_step steps[LAUNCH_STEPS_MAX];
    unsigned step_count;
    char *arguments[LAUNCH_ARGUMENTS_MAX + 6]; /* `isolate`, `monitor`, then theirs, `--sync-fd`, its number, `--stay`, NULL */
    unsigned argument_count;
};

/* Of the texts of a request. Nothing is taken as it comes: paths are absolute, modes octal. */
int launch_parse(char *texts, size_t length, struct launch *out, struct error *error);

/* Makes the directories and writes the files. What is there is kept, or replaced in place. */
int launch_prepare(const struct launch *launch, struct error *error);

/*
 * `isolate launcher [PROGRAM]`: starts monitors for an agent, whose own process is large and slow to fork, until its standard
 * input ends. Monitors are nobody's children: they go on. PROGRAM is executed in the place of this one, for a test that
 * watches monitors.
 */
int launcher_run(const char *program, struct error *error);

#endif
