#include "isolate/faults.h"

#ifdef ISOLATE_FAULTS
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fault_at(const char *point, struct error *error)
{
    const char *wanted = getenv("ISOLATE_FAULT");
    size_t length = strlen(point);
    if (wanted == NULL || strncmp(wanted, point, length) != 0)
        return 0;
    if (strcmp(wanted + length, ":kill") == 0) {
        kill(getpid(), SIGKILL);
        _exit(137); /* the first process of a pid namespace is immune to its own signals */
    }
    while (strcmp(wanted + length, ":hang") == 0)
        pause();
    if (wanted[length] != '\0')
        return 0;
    return fail(error, EIO, "injected fault at \"%s\"", point);
}
#else
typedef int faults_are_not_compiled_in; /* ISO C wants a declaration in every file */
#endif
