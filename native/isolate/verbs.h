/* The verbs of the command line that are more than one call: each takes its own arguments, returns the exit status. */
#ifndef ISOLATE_VERBS_H
#define ISOLATE_VERBS_H

#include "common/error.h"

#include <stdbool.h>

/* Global options, read before the verb. */
struct invocation {
    const char *root;
    bool rootless;
    bool timings;
    int argc;     /* arguments after the verb */
    char **argv;
};

int verb_ps(const struct invocation *invocation, struct error *error);
int verb_list(const struct invocation *invocation, struct error *error);
int verb_events(const struct invocation *invocation, struct error *error);
int verb_update(const struct invocation *invocation, struct error *error);
int verb_spec(const struct invocation *invocation, struct error *error);
int verb_features(const struct invocation *invocation, struct error *error);

#endif
