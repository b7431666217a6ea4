#include "isolate/device_filter.h"
#include "common/fd.h"
#include "isolate/config.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>

enum { INSNS_PER_RULE = 12, PROLOGUE = 6 };

static struct bpf_insn insn(int code, int dst, int src, int off, int imm)
{
    return (struct bpf_insn){.code = (uint8_t)code,
                             .dst_reg = (uint8_t)(dst & 0xf),
                             .src_reg = (uint8_t)(src & 0xf),
                             .off = (int16_t)off,
                             .imm = imm};
}

/*
 * struct bpf_cgroup_dev_ctx: access_type holds (BPF_DEVCG_ACC_* << 16) | BPF_DEVCG_DEV_*, then major and minor.
 * r2: device kind, r3: wanted access, r4: major, r5: minor. Rules are tried from the last to the first, so that the
 * first hit is the last matching rule. A deny rule hits when any wanted letter is in it, an allow rule when all are.
 */
int device_filter_compile(const struct device_rule *rules, size_t count, struct bpf_insn **out, size_t *length,
                          struct error *error)
{
    struct bpf_insn *code = calloc(count * INSNS_PER_RULE + PROLOGUE + 2, sizeof *code);
    if (code == NULL)
        return fail(error, ENOMEM, "compile the device rules");
    size_t n = 0;
    bool decided = false;
    code[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 2, 1, (int)offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
    code[n++] = insn(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0);
    code[n++] = insn(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
    code[n++] = insn(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
    code[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 4, 1, (int)offsetof(struct bpf_cgroup_dev_ctx, major), 0);
    code[n++] = insn(BPF_LDX | BPF_MEM | BPF_W, 5, 1, (int)offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
    for (size_t i = count; i-- > 0 && !decided;) {
        const struct device_rule *rule = &rules[i];
        int access = (rule->read ? BPF_DEVCG_ACC_READ : 0) | (rule->write ? BPF_DEVCG_ACC_WRITE : 0) |
                     (rule->mknod ? BPF_DEVCG_ACC_MKNOD : 0);
        int all = BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE | BPF_DEVCG_ACC_MKNOD;
        size_t skips[4], skip_count = 0;
        if (rule->type != 'a') {
            skips[skip_count++] = n;
            code[n++] = insn(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 0, rule->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK);
        }
        if (rule->major >= 0) {
            skips[skip_count++] = n;
            code[n++] = insn(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 0, (int)rule->major);
        }
        if (rule->minor >= 0) {
            skips[skip_count++] = n;
            code[n++] = insn(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 0, (int)rule->minor);
        }
        if (access != all) {
            code[n++] = insn(BPF_ALU | BPF_MOV | BPF_X, 0, 3, 0, 0);
            code[n++] = insn(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0, rule->allow ? all & ~access : access);
            skips[skip_count++] = n;
            code[n++] = insn(BPF_JMP | (rule->allow ? BPF_JNE : BPF_JEQ) | BPF_K, 0, 0, 0, 0);
        }
        code[n++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, rule->allow ? 1 : 0);
        code[n++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        for (size_t k = 0; k < skip_count; k++)
            code[skips[k]].off = (int16_t)(n - skips[k] - 1);
        decided = skip_count == 0; /* it matches everything: the verifier refuses code that cannot be reached */
    }
    if (!decided) {
        code[n++] = insn(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
        code[n++] = insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }
    *out = code;
    *length = n;
    return 0;
}

static long bpf(int command, union bpf_attr *attributes)
{
    return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

int device_filter_attach(int cgroup_fd, const struct device_rule *rules, size_t count, struct error *error)
{
    cleanup_free struct bpf_insn *code = NULL;
    size_t length = 0;
    if (device_filter_compile(rules, count, &code, &length, error) < 0)
        return -1;
    union bpf_attr load = {0};
    load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    load.insn_cnt = (uint32_t)length;
    load.insns = (uint64_t)(uintptr_t)code;
    load.license = (uint64_t)(uintptr_t)"Apache-2.0";
    cleanup_fd int program = (int)bpf(BPF_PROG_LOAD, &load);
    if (program < 0)
        return fail(error, errno, "load the device filter of %zu instructions", length);
    union bpf_attr attach = {0};
    attach.target_fd = (uint32_t)cgroup_fd;
    attach.attach_bpf_fd = (uint32_t)program;
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    /* The programs that were there are taken off after the new one is on, so that no moment is without a filter. */
    uint32_t old[64] = {0};
    union bpf_attr query = {0};
    query.query.target_fd = (uint32_t)cgroup_fd;
    query.query.attach_type = BPF_CGROUP_DEVICE;
    query.query.prog_ids = (uint64_t)(uintptr_t)old;
    query.query.prog_cnt = sizeof old / sizeof *old;
    bool listed = bpf(BPF_PROG_QUERY, &query) == 0;
    if (bpf(BPF_PROG_ATTACH, &attach) < 0)
        return fail(error, errno, "attach the device filter to the cgroup");
    for (uint32_t i = 0; listed && i < query.query.prog_cnt; i++) {
        union bpf_attr get = {0};
        get.prog_id = old[i];
        cleanup_fd int previous = (int)bpf(BPF_PROG_GET_FD_BY_ID, &get);
        if (previous < 0)
            continue;
        union bpf_attr detach = {0};
        detach.target_fd = (uint32_t)cgroup_fd;
        detach.attach_bpf_fd = (uint32_t)previous;
        detach.attach_type = BPF_CGROUP_DEVICE;
        if (bpf(BPF_PROG_DETACH, &detach) < 0)
            return fail(error, errno, "take the earlier device filter off the cgroup");
    }
    return 0;
}
