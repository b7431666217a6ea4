/*
 * Messages for people and for the caller's log file (`--log`, `--log-format`): warnings of the OCI specification and
 * the one error with which a verb fails. containerd reads the last JSON line of the file to build its own message.
 */
#ifndef ISOLATE_LOG_H
#define ISOLATE_LOG_H

#include "common/error.h"

#include <stdbool.h>

enum log_format { LOG_TEXT, LOG_JSON };

/* `path` NULL: only standard error. The file is opened once, appended to, and never inherited by a container. */
int log_open(const char *path, enum log_format format, bool debug, struct error *error);

void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
