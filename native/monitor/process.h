/* What the monitor reads of a process in procfs, and the identity that survives the reuse of a pid. */
#ifndef MONITOR_PROCESS_H
#define MONITOR_PROCESS_H

#include "common/error.h"

#include <stdint.h>
#include <sys/types.h>

enum { BOOT_ID_BYTES = 36 };

/* Start time in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)) and the parent. */
int process_identity(pid_t pid, uint64_t *start_time, pid_t *parent, struct error *error);

/* Parses the text of /proc/PID/stat. The command name may hold spaces and parentheses. */
int process_parse_stat(const char *text, uint64_t *start_time, pid_t *parent);

/* The kernel's random id of this boot, NUL-terminated. */
int read_boot_id(char id[static BOOT_ID_BYTES + 1], struct error *error);

/* A pid from a pid file: decimal digits and nothing else but a newline. */
int read_pid_file(int directory, const char *name, pid_t *pid, struct error *error);

#endif
