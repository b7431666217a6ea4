/*
 * Points at which a test kills or stops the monitor: MONITOR_FAULT=NAME:kill or NAME:stop. Compiled into test builds only
 * (-DISOLATE_FAULTS); in the program that is installed a point is nothing.
 */
#ifndef MONITOR_FAULT_H
#define MONITOR_FAULT_H

#ifdef ISOLATE_FAULTS
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void fault_point(const char *name)
{
    const char *wanted = getenv("MONITOR_FAULT");
    size_t length = strlen(name);
    if (wanted == NULL || strncmp(wanted, name, length) != 0 || wanted[length] != ':')
        return;
    kill(getpid(), strcmp(wanted + length + 1, "stop") == 0 ? SIGSTOP : SIGKILL);
}
#else
static inline void fault_point(const char *name)
{
    (void)name;
}
#endif

#endif
