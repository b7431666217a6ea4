/*
 * Paths inside a directory that somebody else controls.
 * Every lookup goes through openat2(2) with RESOLVE_IN_ROOT (kernel 5.6), so that `..`, absolute links and links
 * planted during the call all end inside the root. What comes back is a descriptor, and all further work happens on
 * it: no string is resolved twice.
 */
#ifndef COMMON_PATH_H
#define COMMON_PATH_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* openat2(2) with O_CLOEXEC; `resolve` is a set of RESOLVE_*. EAGAIN (a racing rename) is retried a bounded time. Returns the descriptor or -1 with errno set. */
int open_resolved(int dir_fd, const char *path, uint64_t flags, mode_t mode, uint64_t resolve);

/* O_PATH of an existing object below the root. Returns the descriptor or -1 with errno set. */
int open_in_root(int root_fd, const char *path, uint64_t flags);

/* mkdir -p below the root; `*out` is an O_PATH descriptor of the directory. Links on the way are followed in-root. */
int make_directory_in_root(int root_fd, const char *path, mode_t mode, int *out, struct error *error);

/* The parent directory (made when missing) and the last name of `path`; `name` points into `path`'s copy in `buffer`. */
int make_parent_in_root(int root_fd, const char *path, mode_t mode, int *parent_fd, char *buffer, size_t room,
                        const char **name, struct error *error);

/* An empty regular file below the root unless something exists there; `*out` is an O_PATH descriptor of what is there. */
int make_file_in_root(int root_fd, const char *path, mode_t mode, int *out, struct error *error);

/* Lexical clean of an absolute or relative path: no `.`, no empty parts, `..` removed with its parent and never above the start. Result has no leading slash. */
int clean_path(const char *path, char *out, size_t room, struct error *error);

#endif
