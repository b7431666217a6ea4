/*
 * Seccomp (OCI config-linux.md "seccomp", seccomp(2)): a profile to a BPF program by libseccomp, kept in a cache.
 * Compilation costs 11 to 15 ms for Docker's default profile, loading a finished program 0.2 ms; hence the cache,
 * keyed by a hash over the checked profile, the architecture and the versions of libseccomp and of this program.
 */
#ifndef ISOLATE_SECCOMP_H
#define ISOLATE_SECCOMP_H

#include "common/error.h"

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct seccomp_config;

struct seccomp_program {
    struct sock_filter *filters; /* NULL: no filter */
    unsigned short count;
    unsigned flags;              /* SECCOMP_FILTER_FLAG_* */
    char key[65];                /* name in the cache, hexadecimal; "" when it never came by */
};

int seccomp_parse(struct json_object *json, struct seccomp_config **out, struct error *error);
void seccomp_config_free(struct seccomp_config *config);

/* Compiles without the cache. */
int seccomp_compile(const struct seccomp_config *config, struct seccomp_program *out, struct error *error);

/* From the cache, or compiled and put there; a cache that cannot be trusted or written is passed over. */
int seccomp_prepare(const struct seccomp_config *config, struct seccomp_program *out, struct error *error);

/* The program of a key that seccomp_prepare() told, or false when the cache does not have it any more. */
bool seccomp_recall(const char *key, unsigned filter_flags, struct seccomp_program *out);

/* Loads the filter into this process; the last step but execve. */
int seccomp_install(const struct seccomp_program *program, struct error *error);

void seccomp_program_free(struct seccomp_program *program);

/* Names for `features`, NULL past the last. */
const char *seccomp_action_name(size_t index);
const char *seccomp_operator_name(size_t index);
const char *seccomp_arch_name(size_t index);
const char *seccomp_flag_name(size_t index);

#endif
