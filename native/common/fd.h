/*
 * Descriptors: cleanup attributes, whole reads and writes, passing over sockets.
 * Every descriptor made here is O_CLOEXEC. Handing one on is two visible lines: `*out = fd; fd = -1;`.
 */
#ifndef COMMON_FD_H
#define COMMON_FD_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static inline void close_fd_at_exit(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}
static inline void free_at_exit(void *pointer)
{
    free(*(void **)pointer);
}
#define cleanup_fd __attribute__((cleanup(close_fd_at_exit)))
#define cleanup_free __attribute__((cleanup(free_at_exit)))

/* Closes *fd if it is open and marks it closed. */
void close_fd(int *fd);

/* Moves ownership out of a cleanup_fd variable. */
static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/*
 * Reads all of `fd` up to `max` bytes into a fresh, NUL-terminated buffer that the caller frees.
 * More than `max` bytes is an error: every file we read has a bound.
 */
int read_all(int fd, size_t max, char **out, size_t *length, const char *name, struct error *error);

/* read_all() of `name` below `dir_fd` (AT_FDCWD for a path of the host). `length` may be NULL. */
int read_file_at(int dir_fd, const char *name, size_t max, char **out, size_t *length, struct error *error);

/* Writes all bytes or fails; for pipes, sockets and ordinary files. */
int write_all(int fd, const void *data, size_t length, const char *name, struct error *error);

/* Opens an existing control file below `dir_fd` and writes `value` in one write, as procfs and cgroupfs want it. */
int write_control_at(int dir_fd, const char *name, const char *value, struct error *error);

/* Replaces `name` below `dir_fd`: temporary file, write, rename. `sync` adds fsync of file and directory. */
int replace_file_at(int dir_fd, const char *name, const void *data, size_t length, mode_t mode, bool sync,
                    struct error *error);

/* Sends `length` bytes (at least one) with `count` descriptors by SCM_RIGHTS (unix(7)); at most 8. */
int send_fds(int socket_fd, const void *data, size_t length, const int *fds, size_t count, struct error *error);

/* Receives one message; `*count` is the room in `fds` and then the number received, each O_CLOEXEC. */
ssize_t receive_fds(int socket_fd, void *data, size_t room, int *fds, size_t *count, struct error *error);

/* "/proc/self/fd/N" for system calls that take only paths. */
struct fd_path {
    char text[32];
};
static inline struct fd_path fd_path(int fd)
{
    struct fd_path path;
    snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
    return path;
}

/* A fresh formatted string, or NULL when memory is out. */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Monotonic time in nanoseconds. */
uint64_t monotonic_ns(void);

#endif
