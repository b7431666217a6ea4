/*
 * State of containers on disk: `<root>/<id>/` (0700) with
 *   state.json   what struct container holds, rewritten as a whole
 *   config.json  the configuration as it was at create, byte by byte (OCI runtime.md: later changes have no effect)
 *   start.sock   the first process listens here until it runs the user's program
 * The directory is made exclusively and so reserves the id.
 */
#ifndef ISOLATE_STATE_H
#define ISOLATE_STATE_H

#include "isolate/runtime.h"

struct json_object;

/* Reserves the id. EEXIST in error->number when it is taken. */
int state_reserve(const char *root, const char *id, int *state_fd, struct error *error);

/* Writes state.json of a container. */
int state_save(const struct container *container, struct error *error);

/* Removes the directory and all in it. */
int state_remove(const char *root, const char *id, struct error *error);

/* The text for hooks: the OCI state with this status and pid. The caller frees. */
int state_text(const struct container *container, const char *status, pid_t pid, char **out, struct error *error);

/* Field 22 of /proc/PID/stat, or 0 when there is no such process; `*zombie` when it has ended and waits for its parent. */
uint64_t process_start_time(pid_t pid, bool *zombie);

/* Ids below a state folder; the caller frees each and the array. */
int state_list(const char *root, char ***ids, size_t *count, struct error *error);

#endif
