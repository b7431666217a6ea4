#include "common/fd.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

enum { FDS_PER_MESSAGE = 8 };

void close_fd(int *fd)
{
    close_fd_at_exit(fd);
    *fd = -1;
}

int read_all(int fd, size_t max, char **out, size_t *length, const char *name, struct error *error)
{
    size_t room = 4096, used = 0;
    struct stat status;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
        if ((uint64_t)status.st_size > max)
            return fail(error, EFBIG, "read %s: %lld bytes, at most %zu are accepted", name,
                        (long long)status.st_size, max);
        room = (size_t)status.st_size + 1;
    }
    cleanup_free char *buffer = malloc(room + 1);
    if (buffer == NULL)
        return fail(error, ENOMEM, "read %s", name);
    for (;;) {
        if (used == room) {
            if (room > max)
                return fail(error, EFBIG, "read %s: more than %zu bytes", name, max);
            size_t wider = room * 2;
            char *grown = realloc(buffer, wider + 1);
            if (grown == NULL)
                return fail(error, ENOMEM, "read %s", name);
            buffer = grown;
            room = wider;
        }
        ssize_t got = TEMP_FAILURE_RETRY(read(fd, buffer + used, room - used));
        if (got < 0)
            return fail(error, errno, "read %s", name);
        if (got == 0)
            break;
        used += (size_t)got;
    }
    if (used > max)
        return fail(error, EFBIG, "read %s: more than %zu bytes", name, max);
    buffer[used] = '\0';
    if (length != NULL)
        *length = used;
    *out = buffer;
    buffer = NULL;
    return 0;
}

int read_file_at(int dir_fd, const char *name, size_t max, char **out, size_t *length, struct error *error)
{
    cleanup_fd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail(error, errno, "open %s", name);
    return read_all(fd, max, out, length, name, error);
}

int write_all(int fd, const void *data, size_t length, const char *name, struct error *error)
{
    const char *at = data;
    while (length > 0) {
        ssize_t written = TEMP_FAILURE_RETRY(write(fd, at, length));
        if (written < 0)
            return fail(error, errno, "write to %s", name);
        at += written;
        length -= (size_t)written;
    }
    return 0;
}

int write_control_at(int dir_fd, const char *name, const char *value, struct error *error)
{
    cleanup_fd int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fail(error, errno, "open %s to write \"%s\"", name, value);
    ssize_t written = TEMP_FAILURE_RETRY(write(fd, value, strlen(value)));
    if (written < 0)
        return fail(error, errno, "write \"%s\" to %s", value, name);
    if ((size_t)written != strlen(value))
        return fail(error, EIO, "write to %s stopped after %zd of %zu bytes", name, written, strlen(value));
    return 0;
}

int replace_file_at(int dir_fd, const char *name, const void *data, size_t length, mode_t mode, bool sync,
                    struct error *error)
{
    char temporary[256];
    int size = snprintf(temporary, sizeof temporary, ".%s.%d.tmp", name, (int)getpid());
    if (size < 0 || (size_t)size >= sizeof temporary)
        return fail(error, ENAMETOOLONG, "write %s", name);
    cleanup_fd int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return fail(error, errno, "create %s", temporary);
    if (write_all(fd, data, length, name, error) < 0 ||
        (sync && fsync(fd) < 0 && fail(error, errno, "fsync %s", temporary) < 0) ||
        (renameat(dir_fd, temporary, dir_fd, name) < 0 && fail(error, errno, "rename %s to %s", temporary, name) < 0)) {
        unlinkat(dir_fd, temporary, 0);
        return -1;
    }
    if (sync && fsync(dir_fd) < 0)
        return fail(error, errno, "fsync the folder of %s", name);
    return 0;
}

int send_fds(int socket_fd, const void *data, size_t length, const int *fds, size_t count, struct error *error)
{
    union {
        struct cmsghdr header; /* aligns the buffer */
        char bytes[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    } control = {0};
    struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count > FDS_PER_MESSAGE)
        return fail(error, E2BIG, "send %zu descriptors", count);
    if (count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header == NULL)
            return fail(error, EMSGSIZE, "send %zu descriptors", count);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    }
    ssize_t sent = TEMP_FAILURE_RETRY(sendmsg(socket_fd, &message, MSG_NOSIGNAL));
    if (sent < 0)
        return fail(error, errno, "send a message with %zu descriptors", count);
    if ((size_t)sent != length)
        return fail(error, EIO, "message stopped after %zd of %zu bytes", sent, length);
    return 0;
}

ssize_t receive_fds(int socket_fd, void *data, size_t room, int *fds, size_t *count, struct error *error)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    } control = {0};
    struct iovec vector = {.iov_base = data, .iov_len = room};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t got = TEMP_FAILURE_RETRY(recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC));
    if (got < 0)
        return fail(error, errno, "receive a message");
    size_t kept = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < received; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
            if (count != NULL && kept < *count)
                fds[kept++] = fd;
            else
                close(fd); /* more than the caller has room for: not kept, not leaked */
        }
    }
    if (count != NULL)
        *count = kept;
    return got;
}

char *format_text(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return length < 0 ? NULL : text;
}

uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
