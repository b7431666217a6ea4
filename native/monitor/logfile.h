/*
 * The log file of one container: appended by the monitor alone, rotated by it, read by anybody.
 * Readers follow by inode: a rotated file keeps its inode and gets the name NAME.1, NAME.2, ...
 */
#ifndef MONITOR_LOGFILE_H
#define MONITOR_LOGFILE_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum log_format {
    LOG_FRAMED, /* frames of frame.h; the format that attach can catch up from */
    LOG_RAW,    /* the container's bytes and nothing else */
    LOG_K8S,    /* `2016-10-06T00:17:09.669794202Z stdout F line`, the format of the Kubernetes CRI */
};

struct log_options {
    enum log_format format;
    uint64_t max_size;  /* bytes after which a file is rotated; 0: never */
    unsigned max_files; /* files kept, the current one included; at least 1 */
};

struct logfile {
    int directory; /* owned */
    char name[256];
    struct log_options options;
    int fd;
    int previous_fd; /* the file before the last rotation, kept for attach clients that are behind; or -1 */
    /* Offsets are counted over all files that this monitor wrote: byte `base` is the first of the current file. */
    uint64_t base;
    uint64_t previous_base;
    uint64_t size; /* bytes in the current file */
    uint64_t written;
    uint64_t dropped;         /* payload bytes that never reached a file */
    uint64_t dropped_to_tell; /* those not yet told in a system frame */
};

/* Opens or creates the file below the directory `path`'s parent; cuts off a torn last frame. */
int logfile_open(struct logfile *log, const char *path, const struct log_options *options, struct error *error);

/*
 * Appends one chunk with the time `now_ns`. Never fails: what cannot be written (disk full) is counted in `dropped`, and
 * told in a system frame as soon as there is room again.
 */
void logfile_write(struct logfile *log, uint8_t stream, uint64_t now_ns, const uint8_t *bytes, size_t length);

static inline uint64_t logfile_end(const struct logfile *log)
{
    return log->base + log->size;
}

/* Reads stored bytes at an offset; 0 at the end, -1 when the offset is in a file that is no longer at hand. */
int64_t logfile_read(const struct logfile *log, uint64_t offset, uint8_t *out, size_t size);

/* fsync and close. The one fsync of a log, with the one at each rotation. */
void logfile_close(struct logfile *log);

#endif
