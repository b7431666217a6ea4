/* Device access on cgroup v2: a BPF program of type CGROUP_DEVICE made from the rules of the device list. */
#ifndef ISOLATE_DEVICE_FILTER_H
#define ISOLATE_DEVICE_FILTER_H

#include "common/error.h"

#include <stddef.h>

struct device_rule;
struct bpf_insn;

/* Instructions that answer 1 (allowed) or 0 as the last matching rule says; 0 without a match. The caller frees. */
int device_filter_compile(const struct device_rule *rules, size_t count, struct bpf_insn **out, size_t *length,
                          struct error *error);

/* Compiles, loads and attaches to a v2 cgroup directory, in place of an earlier program of ours. */
int device_filter_attach(int cgroup_fd, const struct device_rule *rules, size_t count, struct error *error);

#endif
