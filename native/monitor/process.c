#include "monitor/process.h"

#include "common/fd.h"

#include <fcntl.h>
#include <string.h>

/* Reads a small file into a fixed buffer: the monitor does not allocate. */
static ssize_t read_small(int directory, const char *name, char *out, size_t size)
{
    cleanup_fd int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    ssize_t got = TEMP_FAILURE_RETRY(read(fd, out, size - 1));
    if (got >= 0)
        out[got] = '\0';
    return got;
}

int process_parse_stat(const char *text, uint64_t *start_time, pid_t *parent)
{
    const char *at = strrchr(text, ')');
    if (at == NULL)
        return -1;
    int parent_pid;
    unsigned long long start;
    /* Field 3 is the state, 4 the parent, 22 the start time. */
    if (sscanf(at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &parent_pid,
               &start) != 2)
        return -1;
    *start_time = start;
    *parent = parent_pid;
    return 0;
}

int process_identity(pid_t pid, uint64_t *start_time, pid_t *parent, struct error *error)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_small(AT_FDCWD, path, text, sizeof text) < 0)
        return fail(error, errno, "read %s", path);
    if (process_parse_stat(text, start_time, parent) < 0)
        return fail(error, EINVAL, "understand %s", path);
    return 0;
}

int read_boot_id(char id[static BOOT_ID_BYTES + 1], struct error *error)
{
    char text[64];
    ssize_t got = read_small(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof text);
    if (got < BOOT_ID_BYTES)
        return fail(error, got < 0 ? errno : EINVAL, "read the boot id");
    memcpy(id, text, BOOT_ID_BYTES);
    id[BOOT_ID_BYTES] = '\0';
    return 0;
}

int read_pid_file(int directory, const char *name, pid_t *pid, struct error *error)
{
    char text[32];
    ssize_t got = read_small(directory, name, text, sizeof text);
    if (got < 0)
        return fail(error, errno, "read pid file %s", name);
    long value = 0;
    size_t digits = 0;
    while (digits < 10 && text[digits] >= '0' && text[digits] <= '9')
        value = value * 10 + (text[digits++] - '0');
    if (digits == 0 || value <= 1 || value > 4194304 || (text[digits] != '\0' && text[digits] != '\n'))
        return fail(error, EINVAL, "understand pid file %s", name);
    *pid = (pid_t)value;
    return 0;
}
