/* Parsers of untrusted text, case by case: what is accepted, what is refused, and that each refusal names its cause. */
#include "test/check.h"

#include "common/cgroup.h"
#include "common/fd.h"
#include "common/json.h"
#include "common/path.h"
#include "isolate/config.h"
#include "isolate/device_filter.h"
#include "isolate/hash.h"
#include "isolate/runtime.h"
#include "isolate/user.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static struct error error;

static int parse(const char *text)
{
    struct json_object *json = NULL;
    error.text[0] = '\0';
    int result = json_parse(text, strlen(text), &json, &error);
    json_object_put(json);
    return result;
}

static void test_json(void)
{
    CHECK(parse("{}") == 0);
    CHECK(parse(" [1, 2] \n") == 0);
    CHECK(parse("7") == 0);
    CHECK(parse("{\"a\":{\"a\":1},\"b\":\"x:y\"}") == 0);
    CHECK(parse("{\"a\":1,\"a\":1}") < 0);
    CHECK(strstr(error.text, "same key twice") != NULL);
    CHECK(parse("{\"a\":{\"b\":1,\"b\":{\"c\":1}}}") < 0);
    CHECK(parse("{\"a\":\"\\u0000\"}") < 0);
    CHECK(parse("{\"a\":\"\\\\u0000\"}") == 0); /* a backslash and a word */
    CHECK(parse("{\"a\":1}x") < 0);
    CHECK(parse("{\"a\":1") < 0);
    CHECK(parse("{\"a\":1,}") < 0);
    CHECK(parse("{'a':1}") < 0);
    CHECK(parse("{\"a\":NaN}") < 0);
    CHECK(parse("{\"a\":-Infinity}") < 0);
    CHECK(parse("[1E5,-0.5e+2,true,false,null]") == 0);
    CHECK(parse("/* c */{}") < 0);
    CHECK(parse("\"\xff\"") < 0);
    CHECK(parse("") < 0);
    char deep[2 * JSON_DEPTH_MAX + 8] = "";
    for (int i = 0; i < JSON_DEPTH_MAX + 1; i++)
        strcat(deep, "[");
    CHECK(parse(deep) < 0);
    struct json_object *json = NULL;
    CHECK(json_parse("{\"a\":\0}", 7, &json, &error) < 0);
    const char *numbers = "{\"big\":18446744073709551615,\"edge\":9223372036854775807,\"above\":9223372036854775808,\"minus\":-1,\"real\":1.5}";
    CHECK(json_parse(numbers, strlen(numbers), &json, &error) == 0);
    int64_t value = 0;
    uint64_t wide = 0;
    bool set = false;
    CHECK(json_get_int(json, "edge", 0, INT64_MAX, &value, &set, &error) == 0 && set && value == INT64_MAX);
    CHECK(json_get_int(json, "above", INT64_MIN, INT64_MAX, &value, NULL, &error) < 0);
    CHECK(json_get_uint(json, "big", UINT64_MAX, &wide, NULL, &error) == 0 && wide == UINT64_MAX);
    CHECK(json_get_uint(json, "minus", UINT64_MAX, &wide, NULL, &error) < 0);
    CHECK(json_get_int(json, "real", 0, 10, &value, NULL, &error) < 0);
    CHECK(json_get_int(json, "missing", 0, 10, &value, NULL, &error) == 0 && value == INT64_MAX);
    json_object_put(json);
}

static void test_signals(void)
{
    CHECK(signal_from_text("TERM") == SIGTERM);
    CHECK(signal_from_text("sigterm") == SIGTERM);
    CHECK(signal_from_text("15") == SIGTERM);
    CHECK(signal_from_text("SIGRTMIN+3") == SIGRTMIN + 3);
    CHECK(signal_from_text("RTMAX-2") == SIGRTMAX - 2);
    CHECK(signal_from_text("64") == 64);
    static const char *const wrong[] = {"", "0", "65", "-1", "1x", " 15", "SIG", "SIGNOPE", "RTMIN+99", "RTMIN-1", "TERM ", "99999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(signal_from_text(wrong[i]) == -1);
}

static void test_users(void)
{
    uid_t uid = 7;
    gid_t gid = 8;
    CHECK(user_from_text("1000", &uid, &gid, &error) == 0 && uid == 1000 && gid == 8);
    CHECK(user_from_text("0:4294967294", &uid, &gid, &error) == 0 && uid == 0 && gid == 4294967294u);
    static const char *const wrong[] = {"", ":", "1:", ":1", "01", "0x1", "-1", "+1", " 1", "1 ", "1:2:3", "4294967295", "99999999999", "root"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(user_from_text(wrong[i], &uid, &gid, &error) < 0);
}

static void test_ids(void)
{
    static const char *const good[] = {"a", "A-b_c+d.9", "...a" + 2, ".hidden"};
    static const char *const wrong[] = {"", ".", "..", "..a", "a/b", "a b", "a\n", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(container_id_check(good[i], &error) == 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(container_id_check(wrong[i], &error) < 0);
    char longest[1026];
    memset(longest, 'a', sizeof longest);
    longest[1024] = '\0';
    CHECK(container_id_check(longest, &error) == 0);
    longest[1024] = 'a';
    longest[1025] = '\0';
    CHECK(container_id_check(longest, &error) < 0);
}

static void check_clean(const char *path, const char *expected)
{
    char out[64];
    CHECK(clean_path(path, out, sizeof out, &error) == 0);
    CHECK_TEXT(out, expected);
}

static void test_paths(void)
{
    check_clean("/", "");
    check_clean("", "");
    check_clean("/a/b", "a/b");
    check_clean("//a//./b/", "a/b");
    check_clean("/a/../../b", "b");
    check_clean("/a/b/..", "a");
    check_clean("../..", "");
    check_clean("a/..b", "a/..b");
    char small[4];
    CHECK(clean_path("/abcdef", small, sizeof small, &error) < 0);
}

static void test_in_root(void)
{
    char folder[] = "/tmp/isolate-test-XXXXXX";
    CHECK(mkdtemp(folder) != NULL);
    int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
    CHECK(root >= 0);
    CHECK(symlinkat("/etc", root, "out") == 0);
    CHECK(symlinkat("../../../../../../etc", root, "up") == 0);
    CHECK(open_in_root(root, "out/passwd", 0) < 0);
    CHECK(open_in_root(root, "up/passwd", 0) < 0);
    CHECK(make_directory_in_root(root, "/a/b/c", 0755, &fd, &error) == 0);
    close(fd);
    CHECK(faccessat(root, "a/b/c", F_OK, 0) == 0);
    CHECK(make_directory_in_root(root, "/a/x/../y", 0755, &fd, &error) == 0);
    close(fd);
    CHECK(faccessat(root, "a/y", F_OK, 0) == 0);
    CHECK(make_file_in_root(root, "/a/b/f", 0644, &fd, &error) == 0);
    close(fd);
    CHECK(make_directory_in_root(root, "/a/b/f/g", 0755, &fd, &error) < 0);
    /* A dangling link is not followed to make something elsewhere. */
    CHECK(symlinkat("/tmp/isolate-test-never", root, "dangling") == 0);
    CHECK(make_directory_in_root(root, "/dangling", 0755, &fd, &error) < 0);
    CHECK(make_file_in_root(root, "/dangling", 0644, &fd, &error) < 0);
    CHECK(access("/tmp/isolate-test-never", F_OK) < 0);
    close(root);
    char *command = format_text("rm -rf %s", folder);
    CHECK(command != NULL && system(command) == 0);
    free(command);
}

static void test_mount_options(void)
{
    static const char *const list[] = {"ro", "nosuid", "noatime", "rbind", "rshared", "size=1m", "mode=755", "rro"};
    struct mount_options o;
    CHECK(mount_options_parse(list, 8, &o, &error) == 0);
    CHECK(o.set == (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOATIME));
    CHECK(o.bind && o.bind_recursive);
    CHECK(o.propagation == MS_SHARED && o.propagation_recursive);
    CHECK(o.recursive_set == MOUNT_ATTR_RDONLY);
    CHECK_TEXT(o.data, "size=1m,mode=755");
    mount_options_free(&o);
    static const char *const undone[] = {"ro", "rw", "noatime", "strictatime", "nosuid", "suid"};
    CHECK(mount_options_parse(undone, 6, &o, &error) == 0);
    CHECK((o.set & MOUNT_ATTR_RDONLY) == 0 && (o.clear & MOUNT_ATTR_RDONLY) != 0);
    CHECK((o.set & MOUNT_ATTR__ATIME) == MOUNT_ATTR_STRICTATIME);
    mount_options_free(&o);
    static const char *const refused[] = {"tmpcopyup"};
    CHECK(mount_options_parse(refused, 1, &o, &error) < 0);
    char *longest = malloc(5000);
    if (longest != NULL) {
        memset(longest, 'x', 4999);
        longest[4999] = '\0';
        const char *const lists[] = {longest};
        CHECK(mount_options_parse(lists, 1, &o, &error) < 0);
        free(longest);
    }
}

static void test_cgroup_files(void)
{
    struct cgroup_layout layout = {0};
    CHECK(cgroup_parse_membership("4:memory:/a:b\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/u\n", &layout, &error) == 0);
    CHECK(layout.count == 4);
    CHECK_TEXT(layout.hierarchies[0].path, "/a:b");
    CHECK(layout.hierarchies[3].v2);
    CHECK(cgroup_parse_mounts("31 23 0:28 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n"
                              "32 23 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
                              "33 23 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
                              "34 23 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
                              "35 23 0:32 / /tmp rw - tmpfs memory rw,memory\n"
                              "broken line\n- cgroup\n",
                              &layout, &error) == 0);
    CHECK_TEXT(cgroup_find(&layout, "memory")->mount, "/sys/fs/cgroup/memory");
    CHECK_TEXT(cgroup_find(&layout, "cpuacct")->mount, "/sys/fs/cgroup/cpu");
    CHECK_TEXT(cgroup_find(&layout, "name=systemd")->mount, "/sys/fs/cgroup/systemd");
    CHECK_TEXT(cgroup_find(&layout, "")->mount, "/sys/fs/cgroup/unified");
    CHECK(cgroup_find(&layout, "mem") == NULL);
    cgroup_layout_free(&layout);
    CHECK(cgroup_parse_membership("nonsense\n", &layout, &error) < 0);
    cgroup_layout_free(&layout);
    CHECK(cgroup_parse_membership("1:memory:relative\n", &layout, &error) < 0);
    cgroup_layout_free(&layout);
}

static void hash_of(const char *text, char out[2 * HASH_BYTES + 1])
{
    struct hash hash;
    uint8_t bytes[HASH_BYTES];
    hash_start(&hash);
    hash_bytes(&hash, text, strlen(text));
    hash_finish(&hash, bytes);
    for (int i = 0; i < HASH_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void test_hash(void)
{
    /* b2sum -l 256 of the same texts. */
    char got[2 * HASH_BYTES + 1], longer[301];
    hash_of("", got);
    CHECK_TEXT(got, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    hash_of("abc", got);
    CHECK_TEXT(got, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    memset(longer, 'a', 300);
    longer[300] = '\0';
    hash_of(longer, got);
    CHECK(strlen(got) == 64);
}

/* A plain reading of the rules, last match wins, as the oracle of the BPF program. */
static bool oracle(const struct device_rule *rules, size_t count, char type, unsigned major, unsigned minor, int access)
{
    for (size_t i = count; i-- > 0;) {
        const struct device_rule *r = &rules[i];
        int in_rule = (r->mknod ? BPF_DEVCG_ACC_MKNOD : 0) | (r->read ? BPF_DEVCG_ACC_READ : 0) | (r->write ? BPF_DEVCG_ACC_WRITE : 0);
        if ((r->type != 'a' && r->type != type) || (r->major >= 0 && r->major != major) || (r->minor >= 0 && r->minor != minor))
            continue;
        if (r->allow ? (access & ~in_rule) == 0 : (access & in_rule) != 0)
            return r->allow;
    }
    return false;
}

/* Just the instructions that the compiler uses. */
static long run(const struct bpf_insn *code, size_t length, const struct bpf_cgroup_dev_ctx *context)
{
    uint64_t r[11] = {0};
    r[1] = (uint64_t)(uintptr_t)context;
    for (size_t pc = 0; pc < length; pc++) {
        const struct bpf_insn *i = &code[pc];
        uint64_t operand = BPF_SRC(i->code) == BPF_X ? r[i->src_reg] : (uint64_t)(int64_t)i->imm;
        if (BPF_CLASS(i->code) == BPF_LDX)
            r[i->dst_reg] = *(const uint32_t *)(const void *)((const char *)context + i->off);
        else if (BPF_CLASS(i->code) == BPF_JMP && BPF_OP(i->code) == BPF_EXIT)
            return (long)r[0];
        else if (BPF_CLASS(i->code) == BPF_JMP)
            pc += (BPF_OP(i->code) == BPF_JEQ) == (r[i->dst_reg] == operand) ? (size_t)i->off : 0;
        else if (BPF_OP(i->code) == BPF_MOV)
            r[i->dst_reg] = operand;
        else if (BPF_OP(i->code) == BPF_AND)
            r[i->dst_reg] &= operand;
        else if (BPF_OP(i->code) == BPF_RSH)
            r[i->dst_reg] >>= operand;
    }
    return -1;
}

static void test_device_filter(void)
{
    const struct device_rule rules[] = {
        {false, 'a', -1, -1, true, true, true}, {true, 'c', -1, -1, false, false, true}, {true, 'c', 1, 3, true, true, true},
        {true, 'b', 8, -1, true, false, false}, {false, 'b', 8, 1, true, false, false},  {true, 'c', 136, -1, true, true, true},
    };
    for (size_t count = 0; count <= sizeof rules / sizeof *rules; count++) {
        struct bpf_insn *code = NULL;
        size_t length = 0;
        int wrong = 0;
        CHECK(device_filter_compile(rules, count, &code, &length, &error) == 0);
        static const struct {
            char type;
            unsigned major, minor;
        } devices[] = {{'c', 1, 3}, {'c', 1, 4}, {'b', 8, 0}, {'b', 8, 1}, {'b', 1, 3}, {'c', 136, 7}, {'c', 8, 0}};
        for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
            for (int access = 1; access < 8; access++) {
                struct bpf_cgroup_dev_ctx context = {
                    .access_type = (uint32_t)access << 16 | (devices[d].type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK),
                    .major = devices[d].major,
                    .minor = devices[d].minor};
                bool expected = oracle(rules, count, devices[d].type, devices[d].major, devices[d].minor, access);
                wrong += (run(code, length, &context) == 1) != expected;
            }
        CHECK(wrong == 0);
        free(code);
    }
}

int main(void)
{
    test_json();
    test_signals();
    test_users();
    test_ids();
    test_paths();
    test_in_root();
    test_mount_options();
    test_cgroup_files();
    test_hash();
    test_device_filter();
    return checks_end("parsers");
}
