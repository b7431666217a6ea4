/* Applies a tar stream below the process's own root directory (it is confined there, confine.h). */
#ifndef SKEP_ARCHIVE_APPLY_H
#define SKEP_ARCHIVE_APPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "archive/tar.h"

struct apply_options {
    const char *into;      /* directory below the root; entries' names are relative to it */
    bool layer;            /* an image layer: whiteouts become overlay's */
    uint64_t entries_max;
    uint64_t reserve_bytes; /* stop while the file system still has this much free */
};

struct apply_result {
    uint64_t entries;
    uint64_t bytes;           /* of file data written, holes not counted */
    uint64_t xattrs_ignored;  /* attributes of other security modules, or that the file system does not keep */
};

int apply_archive(struct tar_reader *reader, const struct apply_options *options, struct apply_result *result,
                  struct error *error);

#endif
