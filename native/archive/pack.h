/* Writes what stands below the process's own root directory as a tar stream, or compares it. */
#ifndef SKEP_ARCHIVE_PACK_H
#define SKEP_ARCHIVE_PACK_H

#include <stdbool.h>

#include "common/error.h"

struct pack_options {
    const char *path; /* what to pack, resolved in the root; its last name is not followed */
    const char *name; /* its name in the archive; NULL: its own, "" : its content without itself */
    bool layer;       /* an overlay's upper directory: its marks become whiteouts */
};

int pack_archive(const struct pack_options *options, int out_fd, struct error *error);

/* One JSON line {"name","size","mode","mtime","linkTarget"}: mode is st_mode, mtime seconds with nanoseconds as text. */
int print_stat(const char *path, struct error *error);

/* JSON lines {"kind":0 changed | 1 added | 2 removed,"path"} of an overlay: upper and lowers are below the root. */
int print_changes(const char *upper, char *const *lowers, size_t lowers_count, struct error *error);

#endif
