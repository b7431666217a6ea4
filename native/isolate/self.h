/*
 * The program's own image (CVE-2019-5736): a container's process must not be able to write the file that runs on the
 * host. Whoever enters a container runs from a sealed memfd; a caller that executes one already saves the copy.
 */
#ifndef ISOLATE_SELF_H
#define ISOLATE_SELF_H

#include "common/error.h"

/* Returns at once when the running image is sealed; else copies it, and executes the copy with the same arguments. */
int self_seal(char *const *argv, struct error *error);

#endif
