/*
 * Rulesets as text, by libnftables in a child process of its own (docs/adr/0040): the library keeps memory of what it did and
 * may end its process, and its socket must be opened in the namespace. Tables are rare, and a fork is cheap.
 */
#ifndef NETPLANE_RULESET_H
#define NETPLANE_RULESET_H

#include "netplane/namespaces.h"
#include "netplane/text.h"

/* Runs commands of nft(8) as one transaction. What they print is added to `out` if it is not NULL. */
int ruleset_run(const struct namespace *namespace, const char *commands, struct text *out, struct error *error);

#endif
