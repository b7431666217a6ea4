/* Hooks (OCI config.md "POSIX-platform Hooks"): programs run around the container's life with its state on stdin. */
#ifndef ISOLATE_HOOKS_H
#define ISOLATE_HOOKS_H

#include "common/error.h"

struct hook_list;

/* Runs them in order; the first failure (exit status, signal, timeout) ends it. `state` is the JSON for stdin. */
int hooks_run(const struct hook_list *list, const char *kind, const char *state, struct error *error);

/* Runs them all; each failure is a warning (poststop). */
void hooks_run_tolerant(const struct hook_list *list, const char *kind, const char *state);

#endif
