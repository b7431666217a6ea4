#include "monitor/logfile.h"

#include "common/fd.h"
#include "monitor/fault.h"
#include "monitor/frame.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

enum { K8S_LINES_PER_WRITE = 64, K8S_PREFIX_MAX = 48 };

static int open_current(const struct logfile *log)
{
    /* O_NOFOLLOW: the folder is ours, but a link in it would be a surprise worth an error. */
    return openat(log->directory, log->name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
}

int logfile_open(struct logfile *log, const char *path, const struct log_options *options, struct error *error)
{
    *log = (struct logfile){.directory = -1, .fd = -1, .previous_fd = -1, .options = *options};
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash[1] == '\0' || strlen(slash + 1) > sizeof log->name - 16)
        return fail(error, EINVAL, "open log file \"%s\"", path);
    char directory[1024];
    if ((size_t)(slash - path) >= sizeof directory)
        return fail(error, ENAMETOOLONG, "open log file");
    memcpy(directory, path, (size_t)(slash - path));
    directory[slash - path] = '\0';
    snprintf(log->name, sizeof log->name, "%s", slash + 1);
    cleanup_fd int folder = open(*directory == '\0' ? "/" : directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return fail(error, errno, "open the folder of log file %s", path);
    log->directory = take_fd(&folder); /* from here on logfile_close() has it, also when this fails */
    cleanup_fd int fd = open_current(log);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail(error, errno, "open log file %s", path);
    int64_t size = status.st_size;
    if (options->format == LOG_FRAMED && size > 0) {
        int64_t end = frame_end_of_file(fd, size);
        if (end < 0)
            return fail(error, errno, "read log file %s", path);
        if (end < size && ftruncate(fd, end) < 0)
            return fail(error, errno, "cut the torn end off log file %s", path);
        size = end;
    }
    log->size = (uint64_t)size;
    log->fd = take_fd(&fd);
    return 0;
}

static void rotate(struct logfile *log)
{
    char older[300], newer[300];
    /* A crash of the machine may lose what is not yet synced, but never a whole rotated file. */
    (void)fdatasync(log->fd);
    for (unsigned i = log->options.max_files - 1; i >= 1; i--) {
        snprintf(older, sizeof older, "%s.%u", log->name, i);
        if (i == 1)
            snprintf(newer, sizeof newer, "%s", log->name);
        else
            snprintf(newer, sizeof newer, "%s.%u", log->name, i - 1);
        (void)renameat(log->directory, newer, log->directory, older);
    }
    fault_point("log-rotated");
    if (log->options.max_files == 1)
        (void)unlinkat(log->directory, log->name, 0);
    int fd = open_current(log);
    if (fd < 0)
        return; /* no room for a new inode: keep writing to the old file, and try again with the next chunk */
    close_fd(&log->previous_fd);
    log->previous_fd = log->fd;
    log->previous_base = log->base;
    log->base += log->size;
    log->size = 0;
    log->fd = fd;
}

/* One writev for one frame or line batch; a partial write (disk full) is undone, so that the file holds whole frames. */
static bool append(struct logfile *log, const struct iovec *vector, int count, size_t length)
{
    ssize_t written;
    do
        written = writev(log->fd, vector, count);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)length) {
        log->size += length;
        return true;
    }
    if (written > 0 && ftruncate(log->fd, (off_t)log->size) < 0)
        log->size += (uint64_t)written; /* the torn frame stays; readers step over it by its magic and length */
    return false;
}

static bool append_frame(struct logfile *log, uint8_t stream, uint64_t now_ns, const void *bytes, size_t length)
{
    uint8_t header[FRAME_HEADER_BYTES];
    bool partial = length == 0 || ((const uint8_t *)bytes)[length - 1] != '\n';
    frame_encode(&(struct frame){.length = (uint32_t)length,
                                 .stream = stream,
                                 .flags = partial && stream != FRAME_SYSTEM ? FRAME_PARTIAL : 0,
                                 .time_ns = now_ns},
                 header);
    struct iovec vector[2] = {{.iov_base = header, .iov_len = sizeof header},
                              {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length}};
    return append(log, vector, 2, sizeof header + length);
}

static bool append_k8s(struct logfile *log, uint8_t stream, uint64_t now_ns, const uint8_t *bytes, size_t length)
{
    time_t seconds = (time_t)(now_ns / 1000000000u);
    struct tm date;
    gmtime_r(&seconds, &date);
    char stamp[32];
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &date);
    char prefix[2][K8S_PREFIX_MAX];
    const char *name = stream == FRAME_STDERR ? "stderr" : "stdout";
    unsigned nanoseconds = (unsigned)(now_ns % 1000000000u);
    int full = snprintf(prefix[0], K8S_PREFIX_MAX, "%s.%09uZ %s F ", stamp, nanoseconds, name);
    int part = snprintf(prefix[1], K8S_PREFIX_MAX, "%s.%09uZ %s P ", stamp, nanoseconds, name);
    size_t at = 0;
    while (at < length) {
        struct iovec vector[3 * K8S_LINES_PER_WRITE];
        int count = 0;
        size_t total = 0, end = at;
        while (end < length && count + 3 <= 3 * K8S_LINES_PER_WRITE) {
            const uint8_t *newline = memchr(bytes + end, '\n', length - end);
            size_t line = newline != NULL ? (size_t)(newline - (bytes + end)) : length - end;
            vector[count++] = (struct iovec){.iov_base = newline != NULL ? prefix[0] : prefix[1],
                                             .iov_len = (size_t)(newline != NULL ? full : part)};
            vector[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)(bytes + end), .iov_len = line};
            vector[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)"\n", .iov_len = 1};
            total += vector[count - 3].iov_len + line + 1;
            end += line + (newline != NULL ? 1 : 0);
        }
        if (!append(log, vector, count, total))
            return false;
        at = end;
    }
    return true;
}

static void tell_dropped(struct logfile *log, uint64_t now_ns)
{
    char text[96];
    int length = snprintf(text, sizeof text, "{\"event\":\"dropped\",\"bytes\":%llu}\n",
                          (unsigned long long)log->dropped_to_tell);
    if (log->options.format != LOG_FRAMED || append_frame(log, FRAME_SYSTEM, now_ns, text, (size_t)length))
        log->dropped_to_tell = 0;
}

void logfile_write(struct logfile *log, uint8_t stream, uint64_t now_ns, const uint8_t *bytes, size_t length)
{
    if (log->options.max_size > 0 && log->size > 0 &&
        log->size + length + FRAME_HEADER_BYTES > log->options.max_size)
        rotate(log);
    if (log->dropped_to_tell > 0)
        tell_dropped(log, now_ns);
    bool stored = false;
    switch (log->options.format) {
    case LOG_FRAMED:
        stored = append_frame(log, stream, now_ns, bytes, length);
        break;
    case LOG_RAW: {
        struct iovec vector = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
        stored = append(log, &vector, 1, length);
        break;
    }
    case LOG_K8S:
        stored = append_k8s(log, stream, now_ns, bytes, length);
        break;
    }
    if (stored) {
        log->written += length;
    } else {
        log->dropped += length;
        log->dropped_to_tell += length;
    }
}

int64_t logfile_read(const struct logfile *log, uint64_t offset, uint8_t *out, size_t size)
{
    int fd = log->fd;
    uint64_t at;
    if (offset >= log->base) {
        at = offset - log->base;
        if (at >= log->size)
            return 0;
        if (size > log->size - at)
            size = (size_t)(log->size - at);
    } else if (log->previous_fd >= 0 && offset >= log->previous_base) {
        fd = log->previous_fd;
        at = offset - log->previous_base;
        if (size > log->base - offset)
            size = (size_t)(log->base - offset);
    } else {
        return -1;
    }
    ssize_t got = TEMP_FAILURE_RETRY(pread(fd, out, size, (off_t)at));
    return got;
}

void logfile_close(struct logfile *log)
{
    if (log->fd >= 0)
        (void)fdatasync(log->fd); /* best effort: the log was never promised to survive a crash of the machine */
    close_fd(&log->fd);
    close_fd(&log->previous_fd);
    close_fd(&log->directory);
}
