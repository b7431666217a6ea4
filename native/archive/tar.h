/*
 * A reader and a writer of tar streams whose fields are bytes, not text: names may be any bytes but NUL and extended
 * attributes are binary (security.capability). Reads ustar, GNU (long names, sparse), pax (with GNU sparse 0.0 to 1.0),
 * base-256 numbers. Every length from the stream is bounded before it is used. tar(5), POSIX.1-2017 pax.
 */
#ifndef SKEP_ARCHIVE_TAR_H
#define SKEP_ARCHIVE_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

#define TAR_BLOCK 512
#define TAR_PATH_MAX 4095
#define TAR_PAX_MAX (1024 * 1024)
#define TAR_XATTRS_MAX 64
#define TAR_SPARSE_MAX 65536

enum tar_type {
    TAR_FILE,
    TAR_HARDLINK,
    TAR_SYMLINK,
    TAR_CHAR,
    TAR_BLOCKDEV,
    TAR_DIRECTORY,
    TAR_FIFO,
};

struct tar_xattr {
    char *name;
    uint8_t *value;
    size_t length;
};

/* A piece of a sparse file that holds data; what lies between pieces is a hole. */
struct tar_extent {
    uint64_t offset;
    uint64_t length;
};

struct tar_entry {
    enum tar_type type;
    char *path; /* as in the stream, not yet cleaned */
    char *link; /* symlink: its text; hard link: the path of the first name */
    uint32_t mode;
    uint64_t uid;
    uint64_t gid;
    uint64_t size; /* logical size of a regular file */
    int64_t mtime_seconds;
    uint32_t mtime_nanos;
    uint32_t device_major;
    uint32_t device_minor;
    size_t xattrs_count;
    struct tar_xattr xattrs[TAR_XATTRS_MAX];
    bool sparse;
    size_t extents_count;
    struct tar_extent *extents;
};

struct tar_source {
    /* Reads at most `length` bytes: the count, 0 at the end, -1 with errno. */
    ssize_t (*read)(void *context, void *buffer, size_t length);
    void *context;
};

struct tar_reader {
    struct tar_source source;
    uint64_t consumed; /* bytes taken from the stream */
    uint64_t consumed_max;
    uint64_t data_left; /* of the current entry's bytes in the stream */
    uint64_t padding;
    bool ended;
    struct tar_entry entry;
};

/* Codes that the caller shows; they stand in docs/errors.md. */
enum tar_status {
    TAR_OK,
    TAR_END,
    TAR_FAILED,
};

void tar_reader_init(struct tar_reader *reader, struct tar_source source, uint64_t bytes_max);
/* The next entry in reader->entry, valid until the next call. The data of the last one is skipped if it was not read. */
enum tar_status tar_next(struct tar_reader *reader, struct error *error);
/* Data as it stands in the stream: for a sparse file the extents one after the other. 0 at its end. */
ssize_t tar_read(struct tar_reader *reader, void *buffer, size_t length, struct error *error);
/* Reads on to the end of the stream, so that whoever hashes it sees every byte. */
int tar_drain(struct tar_reader *reader, struct error *error);
void tar_reader_release(struct tar_reader *reader);

struct tar_writer {
    int fd;
    size_t used;
    uint8_t buffer[64 * 1024];
};

void tar_writer_init(struct tar_writer *writer, int fd);
int tar_write_header(struct tar_writer *writer, const struct tar_entry *entry, struct error *error);
int tar_write_data(struct tar_writer *writer, const void *data, size_t length, struct error *error);
int tar_write_padding(struct tar_writer *writer, uint64_t size, struct error *error);
int tar_write_end(struct tar_writer *writer, struct error *error);

#endif
