#include "isolate/seccomp.h"
#include "common/fd.h"
#include "common/json.h"
#include "isolate/hash.h"
#include "isolate/log.h"
#include "isolate/runtime.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

enum { SYSCALLS_MAX = 8192, NAMES_MAX = 4096, SECCOMP_ARGS_MAX = 6, ARCHS_MAX = 32, FILTERS_MAX = 65535 };

struct rule {
    const char **names;
    size_t name_count;
    uint32_t action; /* SCMP_ACT_* with its errno */
    struct scmp_arg_cmp args[64];
    unsigned arg_count;
};

struct seccomp_config {
    uint32_t default_action;
    uint32_t archs[ARCHS_MAX];
    size_t arch_count;
    unsigned flags;
    struct rule *rules;
    size_t rule_count;
};

static const struct {
    const char *name;
    uint32_t action;
    bool takes_errno;
} actions[] = {
    {"SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS, false},
    {"SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD, false},
    {"SCMP_ACT_TRAP", SCMP_ACT_TRAP, false},
    {"SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0), true},
    {"SCMP_ACT_TRACE", SCMP_ACT_TRACE(0), true},
    {"SCMP_ACT_ALLOW", SCMP_ACT_ALLOW, false},
    {"SCMP_ACT_LOG", SCMP_ACT_LOG, false},
};

static const struct {
    const char *name;
    enum scmp_compare op;
} operators[] = {
    {"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT}, {"SCMP_CMP_LE", SCMP_CMP_LE},
    {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE}, {"SCMP_CMP_GT", SCMP_CMP_GT},
    {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
};

static const struct {
    const char *name;
    uint32_t arch;
} archs[] = {
    {"SCMP_ARCH_X86", SCMP_ARCH_X86},
    {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
    {"SCMP_ARCH_X32", SCMP_ARCH_X32},
    {"SCMP_ARCH_ARM", SCMP_ARCH_ARM},
    {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
    {"SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
    {"SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64},
    {"SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
    {"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL},
    {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
    {"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32},
    {"SCMP_ARCH_PPC", SCMP_ARCH_PPC},
    {"SCMP_ARCH_PPC64", SCMP_ARCH_PPC64},
    {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
    {"SCMP_ARCH_S390", SCMP_ARCH_S390},
    {"SCMP_ARCH_S390X", SCMP_ARCH_S390X},
    {"SCMP_ARCH_PARISC", SCMP_ARCH_PARISC},
    {"SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64},
    {"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64},
};

static const struct {
    const char *name;
    unsigned flag;
} flags[] = {
    {"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
    {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
    {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
};

#define NAME_OF(table, index) ((index) < sizeof(table) / sizeof *(table) ? (table)[index].name : NULL)
const char *seccomp_action_name(size_t index) { return NAME_OF(actions, index); }
const char *seccomp_operator_name(size_t index) { return NAME_OF(operators, index); }
const char *seccomp_arch_name(size_t index) { return NAME_OF(archs, index); }
const char *seccomp_flag_name(size_t index) { return NAME_OF(flags, index); }

static int parse_action(struct json_object *object, const char *action_key, const char *errno_key, uint32_t *out,
                        struct error *error)
{
    const char *name = NULL;
    uint64_t number = EPERM;
    bool has_errno = false;
    if (json_required(object, action_key, error) < 0 || json_get_string(object, action_key, &name, error) < 0 ||
        json_get_uint(object, errno_key, UINT16_MAX, &number, &has_errno, error) < 0)
        return -1;
    if (strcmp(name, "SCMP_ACT_NOTIFY") == 0)
        return fail(error, ENOTSUP, "%s SCMP_ACT_NOTIFY is not supported by this runtime", action_key);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(name, actions[i].name) != 0)
            continue;
        if (has_errno && !actions[i].takes_errno)
            return fail(error, EINVAL, "%s %s takes no %s", action_key, name, errno_key);
        *out = actions[i].takes_errno ? actions[i].action | (uint32_t)number : actions[i].action;
        return 0;
    }
    return fail(error, EINVAL, "%s \"%.64s\" is not known", action_key, name);
}

static int parse_args(struct json_object *entry, struct rule *rule, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(entry, "args", &array, sizeof rule->args / sizeof *rule->args, error) < 0)
        return -1;
    for (size_t i = 0; array != NULL && i < json_object_array_length(array); i++) {
        struct json_object *item = json_object_array_get_idx(array, i);
        uint64_t index = 0, value = 0, second = 0;
        const char *op = NULL;
        size_t k = 0;
        if (json_required(item, "index", error) < 0 || json_required(item, "value", error) < 0 ||
            json_required(item, "op", error) < 0 ||
            json_get_uint(item, "index", SECCOMP_ARGS_MAX - 1, &index, NULL, error) < 0 ||
            json_get_uint(item, "value", UINT64_MAX, &value, NULL, error) < 0 ||
            json_get_uint(item, "valueTwo", UINT64_MAX, &second, NULL, error) < 0 ||
            json_get_string(item, "op", &op, error) < 0)
            return fail_in(error, "args[%zu]", i);
        while (k < sizeof operators / sizeof *operators && strcmp(op, operators[k].name) != 0)
            k++;
        if (k == sizeof operators / sizeof *operators)
            return fail(error, EINVAL, "args[%zu]: op \"%.64s\" is not known", i, op);
        rule->args[rule->arg_count++] =
            (struct scmp_arg_cmp){.arg = (unsigned)index, .op = operators[k].op, .datum_a = value, .datum_b = second};
    }
    return 0;
}

static int parse_rules(struct json_object *json, struct seccomp_config *config, struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(json, "syscalls", &array, SYSCALLS_MAX, error) < 0)
        return -1;
    size_t count = array == NULL ? 0 : json_object_array_length(array);
    config->rules = calloc(count + 1, sizeof *config->rules);
    if (config->rules == NULL)
        return fail(error, ENOMEM, "read the syscalls");
    for (size_t i = 0; i < count; i++) {
        struct json_object *entry = json_object_array_get_idx(array, i);
        struct rule *rule = &config->rules[i];
        config->rule_count = i + 1;
        if (json_required(entry, "names", error) < 0 ||
            json_get_strings(entry, "names", &rule->names, &rule->name_count, NAMES_MAX, error) < 0 ||
            parse_action(entry, "action", "errnoRet", &rule->action, error) < 0 || parse_args(entry, rule, error) < 0)
            return fail_in(error, "syscalls[%zu]", i);
        if (rule->name_count == 0)
            return fail(error, EINVAL, "syscalls[%zu]: names must hold at least one entry", i);
    }
    return 0;
}

static int parse_archs_and_flags(struct json_object *json, struct seccomp_config *config, struct error *error)
{
    cleanup_free const char **arch_names = NULL, **flag_names = NULL;
    size_t arch_count = 0, flag_count = 0;
    if (json_get_strings(json, "architectures", &arch_names, &arch_count, ARCHS_MAX, error) < 0 ||
        json_get_strings(json, "flags", &flag_names, &flag_count, 16, error) < 0)
        return -1;
    for (size_t i = 0; i < arch_count; i++) {
        size_t k = 0;
        while (k < sizeof archs / sizeof *archs && strcmp(arch_names[i], archs[k].name) != 0)
            k++;
        if (k < sizeof archs / sizeof *archs)
            config->archs[config->arch_count++] = archs[k].arch;
        else if (strncmp(arch_names[i], "SCMP_ARCH_", 10) == 0)
            /* A later libseccomp knows it; no program of that architecture can run here. */
            log_warning("seccomp architecture %s is not known to this libseccomp and is left out", arch_names[i]);
        else
            return fail(error, EINVAL, "architectures[%zu] \"%.64s\" is not known", i, arch_names[i]);
    }
    for (size_t i = 0; i < flag_count; i++) {
        size_t k = 0;
        while (k < sizeof flags / sizeof *flags && strcmp(flag_names[i], flags[k].name) != 0)
            k++;
        if (k < sizeof flags / sizeof *flags)
            config->flags |= flags[k].flag;
        else if (strcmp(flag_names[i], "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") == 0)
            return fail(error, ENOTSUP, "flags[%zu] %s needs SCMP_ACT_NOTIFY, which is not supported", i, flag_names[i]);
        else
            return fail(error, EINVAL, "flags[%zu] \"%.64s\" is not known", i, flag_names[i]);
    }
    return 0;
}

int seccomp_parse(struct json_object *json, struct seccomp_config **out, struct error *error)
{
    const char *listener = NULL, *metadata = NULL;
    struct seccomp_config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return fail(error, ENOMEM, "read the profile");
    if (parse_action(json, "defaultAction", "defaultErrnoRet", &config->default_action, error) < 0 ||
        parse_archs_and_flags(json, config, error) < 0 ||
        json_get_string(json, "listenerPath", &listener, error) < 0 ||
        json_get_string(json, "listenerMetadata", &metadata, error) < 0 || parse_rules(json, config, error) < 0)
        goto failed;
    if (metadata != NULL && *metadata != '\0' && (listener == NULL || *listener == '\0')) {
        fail(error, EINVAL, "listenerMetadata needs listenerPath");
        goto failed;
    }
    *out = config;
    return 0;
failed:
    seccomp_config_free(config);
    return -1;
}

void seccomp_config_free(struct seccomp_config *config)
{
    if (config == NULL)
        return;
    for (size_t i = 0; i < config->rule_count; i++)
        free(config->rules[i].names);
    free(config->rules);
    free(config);
}

static void release_context(scmp_filter_ctx *context)
{
    if (*context != NULL)
        seccomp_release(*context);
}

/*
 * libseccomp takes at most one comparison per argument in a rule, and a rule's comparisons hold together. Two of them
 * on one argument are alternatives, as the peers read it: one rule each.
 */
static int add_rule(scmp_filter_ctx context, const struct rule *rule, int number, const char *name, struct error *error)
{
    bool alternatives = false;
    for (unsigned i = 0; i < rule->arg_count; i++)
        for (unsigned k = i + 1; k < rule->arg_count; k++)
            alternatives = alternatives || rule->args[i].arg == rule->args[k].arg;
    if (!alternatives) {
        int status = seccomp_rule_add_array(context, rule->action, number, rule->arg_count, rule->args);
        /* -EEXIST: the same rule again. */
        if (status < 0 && status != -EEXIST)
            return fail(error, -status, "add the seccomp rule for %s", name);
        return 0;
    }
    for (unsigned i = 0; i < rule->arg_count; i++) {
        int status = seccomp_rule_add_array(context, rule->action, number, 1, &rule->args[i]);
        if (status < 0 && status != -EEXIST)
            return fail(error, -status, "add the seccomp rule for %s", name);
    }
    return 0;
}

int seccomp_compile(const struct seccomp_config *config, struct seccomp_program *out, struct error *error)
{
    __attribute__((cleanup(release_context))) scmp_filter_ctx context = seccomp_init(config->default_action);
    if (context == NULL)
        return fail(error, EINVAL, "start a seccomp filter with default action %#x", config->default_action);
    /* A binary tree of system calls instead of a list: fewer instructions a call. Older libseccomp has none. */
    (void)seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    /* no_new_privs is process.noNewPrivileges' business. */
    (void)seccomp_attr_set(context, SCMP_FLTATR_CTL_NNP, 0);
    for (size_t i = 0; i < config->arch_count; i++) {
        int status = seccomp_arch_add(context, config->archs[i]);
        if (status < 0 && status != -EEXIST)
            return fail(error, -status, "add seccomp architecture %#x", config->archs[i]);
    }
    for (size_t i = 0; i < config->rule_count; i++) {
        const struct rule *rule = &config->rules[i];
        if (rule->action == config->default_action)
            continue; /* says nothing new, and libseccomp refuses it */
        for (size_t k = 0; k < rule->name_count; k++) {
            int number = seccomp_syscall_resolve_name(rule->names[k]);
            /* Profiles name calls of later kernels and of other architectures. */
            if (number == __NR_SCMP_ERROR)
                continue;
            if (add_rule(context, rule, number, rule->names[k], error) < 0)
                return -1;
        }
    }
    cleanup_fd int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0)
        return fail(error, errno, "make a memory file for the seccomp program");
    int status = seccomp_export_bpf(context, fd);
    if (status < 0)
        return fail(error, -status, "compile the seccomp profile");
    char *bytes = NULL;
    size_t length = 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return fail(error, errno, "read the seccomp program");
    if (read_all(fd, FILTERS_MAX * sizeof(struct sock_filter), &bytes, &length, "the seccomp program", error) < 0)
        return -1;
    out->filters = (struct sock_filter *)(void *)bytes;
    out->count = (unsigned short)(length / sizeof(struct sock_filter));
    out->flags = config->flags;
    return 0;
}

/* ---- cache ---- */

static const char cache_magic[8] = "skepbpf2";

struct cache_header {
    char magic[8];
    uint8_t key[HASH_BYTES];
    uint8_t content[HASH_BYTES]; /* of the program: a torn or damaged file is not loaded */
    uint32_t count;
    uint32_t reserved;
};

static void cache_key(const struct seccomp_config *config, uint8_t key[HASH_BYTES])
{
    struct hash hash;
    const struct scmp_version *version = seccomp_version();
    hash_start(&hash);
    hash_text(&hash, ISOLATE_VERSION);
    hash_number(&hash, version->major);
    hash_number(&hash, version->minor);
    hash_number(&hash, version->micro);
    hash_number(&hash, seccomp_arch_native());
    /* libseccomp asks the kernel which actions exist; the release stands for the answer and costs one call. */
    struct utsname kernel;
    hash_text(&hash, uname(&kernel) == 0 ? kernel.release : "");
    hash_number(&hash, config->default_action);
    hash_number(&hash, config->arch_count);
    hash_bytes(&hash, config->archs, config->arch_count * sizeof *config->archs);
    hash_number(&hash, config->rule_count);
    for (size_t i = 0; i < config->rule_count; i++) {
        const struct rule *rule = &config->rules[i];
        hash_number(&hash, rule->action);
        hash_number(&hash, rule->name_count);
        for (size_t k = 0; k < rule->name_count; k++)
            hash_text(&hash, rule->names[k]);
        hash_number(&hash, rule->arg_count);
        for (unsigned k = 0; k < rule->arg_count; k++) {
            hash_number(&hash, rule->args[k].arg);
            hash_number(&hash, (uint64_t)rule->args[k].op);
            hash_number(&hash, rule->args[k].datum_a);
            hash_number(&hash, rule->args[k].datum_b);
        }
    }
    hash_finish(&hash, key);
}

static void content_hash(const struct sock_filter *filters, size_t count, uint8_t out[HASH_BYTES])
{
    struct hash hash;
    hash_start(&hash);
    hash_bytes(&hash, filters, count * sizeof *filters);
    hash_finish(&hash, out);
}

/* The cache folder: /run/isolate-seccomp for root, below XDG_RUNTIME_DIR for others; 0700 and ours, or not used. */
static int open_cache(void)
{
    char path[512];
    if (geteuid() == 0) {
        snprintf(path, sizeof path, "/run/isolate-seccomp");
    } else {
        const char *runtime = getenv("XDG_RUNTIME_DIR");
        if (runtime == NULL || *runtime != '/' ||
            (size_t)snprintf(path, sizeof path, "%s/isolate-seccomp", runtime) >= sizeof path)
            return -1;
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -1;
    cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0 || status.st_uid != geteuid() || (status.st_mode & 077) != 0)
        return -1;
    return take_fd(&fd);
}

static bool load_cached(int cache_fd, const char *name, const uint8_t key[HASH_BYTES], struct seccomp_program *out)
{
    cleanup_fd int fd = openat(cache_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat status;
    struct cache_header header;
    uint8_t content[HASH_BYTES];
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
        (status.st_mode & 07777) != 0600)
        return false;
    if (TEMP_FAILURE_RETRY(read(fd, &header, sizeof header)) != sizeof header ||
        memcmp(header.magic, cache_magic, sizeof header.magic) != 0 || memcmp(header.key, key, HASH_BYTES) != 0 ||
        header.count == 0 || header.count > FILTERS_MAX)
        return false;
    size_t bytes = header.count * sizeof(struct sock_filter);
    if ((size_t)status.st_size != sizeof header + bytes)
        return false;
    struct sock_filter *filters = malloc(bytes);
    if (filters == NULL)
        return false;
    if (TEMP_FAILURE_RETRY(read(fd, filters, bytes)) != (ssize_t)bytes) {
        free(filters);
        return false;
    }
    content_hash(filters, header.count, content);
    if (memcmp(content, header.content, HASH_BYTES) != 0) {
        free(filters);
        return false;
    }
    out->filters = filters;
    out->count = (unsigned short)header.count;
    return true;
}

static void store_cached(int cache_fd, const char *name, const uint8_t key[HASH_BYTES],
                         const struct seccomp_program *program)
{
    struct cache_header header = {.count = program->count};
    size_t bytes = program->count * sizeof *program->filters;
    cleanup_free char *file = malloc(sizeof header + bytes);
    struct error error;
    if (file == NULL)
        return;
    memcpy(header.magic, cache_magic, sizeof header.magic);
    memcpy(header.key, key, HASH_BYTES);
    content_hash(program->filters, program->count, header.content);
    memcpy(file, &header, sizeof header);
    memcpy(file + sizeof header, program->filters, bytes);
    if (replace_file_at(cache_fd, name, file, sizeof header + bytes, 0600, false, &error) < 0)
        log_debug("seccomp cache: %s", error.text); /* the next container compiles again, nothing else */
}

int seccomp_prepare(const struct seccomp_config *config, struct seccomp_program *out, struct error *error)
{
    uint8_t key[HASH_BYTES];
    char name[2 * HASH_BYTES + 1];
    memset(out, 0, sizeof *out);
    cache_key(config, key);
    for (size_t i = 0; i < HASH_BYTES; i++)
        snprintf(name + 2 * i, 3, "%02x", key[i]);
    cleanup_fd int cache_fd = open_cache();
    if (cache_fd >= 0 && load_cached(cache_fd, name, key, out)) {
        out->flags = config->flags;
        memcpy(out->key, name, sizeof out->key);
        return 0;
    }
    if (seccomp_compile(config, out, error) < 0)
        return -1;
    memcpy(out->key, name, sizeof out->key);
    if (cache_fd >= 0)
        store_cached(cache_fd, name, key, out);
    return 0;
}

bool seccomp_recall(const char *key, unsigned filter_flags, struct seccomp_program *out)
{
    uint8_t bytes[HASH_BYTES];
    memset(out, 0, sizeof *out);
    if (strlen(key) != (size_t)2 * HASH_BYTES || strspn(key, "0123456789abcdef") != (size_t)2 * HASH_BYTES)
        return false;
    for (size_t i = 0; i < HASH_BYTES; i++) {
        char pair[3] = {key[2 * i], key[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    cleanup_fd int cache_fd = open_cache();
    if (cache_fd < 0 || !load_cached(cache_fd, key, bytes, out))
        return false;
    out->flags = filter_flags;
    return true;
}

int seccomp_install(const struct seccomp_program *program, struct error *error)
{
    if (program->filters == NULL)
        return 0;
    struct sock_fprog filter = {.len = program->count, .filter = program->filters};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, program->flags, &filter) < 0)
        return fail(error, errno, "load the seccomp filter of %u instructions", program->count);
    return 0;
}

void seccomp_program_free(struct seccomp_program *program)
{
    free(program->filters);
    memset(program, 0, sizeof *program);
}
