/*
 * Seccomp profiles: parsed and compiled; the program is then run by a plain interpreter of classic BPF on a few calls,
 * and must end within its length with an action of seccomp(2).
 */
#include "common/json.h"
#include "isolate/seccomp.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t interpret(const struct seccomp_program *program, const struct seccomp_data *call)
{
    uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {0};
    for (size_t pc = 0; pc < program->count; pc++) {
        const struct sock_filter *f = &program->filters[pc];
        uint32_t operand = BPF_SRC(f->code) == BPF_X ? x : f->k;
        bool taken;
        switch (BPF_CLASS(f->code)) {
        case BPF_LD:
            if (f->code == (BPF_LD | BPF_W | BPF_ABS)) {
                if (f->k > sizeof *call - 4 || f->k % 4 != 0)
                    abort();
                memcpy(&a, (const char *)call + f->k, 4);
            } else if (f->code == (BPF_LD | BPF_MEM)) {
                a = memory[f->k];
            } else if (f->code == (BPF_LD | BPF_IMM)) {
                a = f->k;
            } else {
                abort();
            }
            break;
        case BPF_ALU:
            if (BPF_OP(f->code) == BPF_AND)
                a &= operand;
            else if (BPF_OP(f->code) == BPF_OR)
                a |= operand;
            else
                abort();
            break;
        case BPF_ST:
            memory[f->k] = a;
            break;
        case BPF_STX:
            memory[f->k] = x;
            break;
        case BPF_MISC:
            if (BPF_MISCOP(f->code) == BPF_TAX)
                x = a;
            else
                a = x;
            break;
        case BPF_JMP:
            if (BPF_OP(f->code) == BPF_JA) {
                pc += f->k;
                break;
            }
            taken = BPF_OP(f->code) == BPF_JEQ   ? a == operand
                    : BPF_OP(f->code) == BPF_JGT ? a > operand
                    : BPF_OP(f->code) == BPF_JGE ? a >= operand
                                                 : (a & operand) != 0;
            pc += taken ? f->jt : f->jf;
            break;
        case BPF_RET:
            return BPF_RVAL(f->code) == BPF_A ? a : f->k;
        default:
            abort();
        }
    }
    abort(); /* ran past its end */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_object *json = NULL;
    struct seccomp_config *config = NULL;
    struct seccomp_program program = {0};
    struct error error;
    if (json_parse((const char *)data, size, &json, &error) < 0)
        return 0;
    if (seccomp_parse(json, &config, &error) == 0 && seccomp_compile(config, &program, &error) == 0) {
        for (int number = -1; number < 600; number += 7) {
            struct seccomp_data call = {.nr = number, .arch = AUDIT_ARCH_X86_64, .args = {(uint64_t)number, 40, 2, 3, 4, 5}};
            uint32_t action = interpret(&program, &call) & SECCOMP_RET_ACTION_FULL;
            if (action != SECCOMP_RET_ALLOW && action != SECCOMP_RET_ERRNO && action != SECCOMP_RET_KILL_THREAD &&
                action != SECCOMP_RET_KILL_PROCESS && action != SECCOMP_RET_TRAP && action != SECCOMP_RET_TRACE &&
                action != SECCOMP_RET_LOG)
                abort();
        }
    }
    seccomp_program_free(&program);
    seccomp_config_free(config);
    json_object_put(json);
    return 0;
}
