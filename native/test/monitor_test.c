/* The parts of the monitor that need no container: frames, log files, the control protocol, what it reads of procfs. */
#include "common/fd.h"
#include "monitor/cgroups.h"
#include "monitor/ctl.h"
#include "monitor/frame.h"
#include "monitor/launch.h"
#include "monitor/logfile.h"
#include "monitor/loop.h"
#include "monitor/options.h"
#include "monitor/process.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int failures;

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            failures++;                                                              \
        }                                                                            \
    } while (0)

static char directory[64];

static void in_directory(const char *name, char out[static 128])
{
    snprintf(out, 128, "%s/%s", directory, name);
}

static void frame_headers_come_back_as_they_went(void)
{
    struct frame given = {.length = 77, .stream = FRAME_STDERR, .flags = FRAME_PARTIAL, .time_ns = 1234567890123456789u};
    struct frame found;
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&given, bytes);
    CHECK(frame_decode(bytes, &found));
    CHECK(found.length == 77 && found.stream == FRAME_STDERR && found.flags == FRAME_PARTIAL && found.time_ns == given.time_ns);
    bytes[6] ^= 1;
    CHECK(!frame_decode(bytes, &found));
    given.length = FRAME_PAYLOAD_MAX + 1;
    frame_encode(&given, bytes);
    CHECK(!frame_decode(bytes, &found));
}

static void a_torn_frame_is_cut_off_when_the_log_is_opened(void)
{
    char path[128];
    in_directory("torn", path);
    struct log_options options = {.format = LOG_FRAMED, .max_files = 1};
    struct logfile log;
    struct error error = {0};
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    uint8_t payload[3000];
    for (unsigned i = 0; i < 20; i++) {
        memset(payload, (int)i, sizeof payload);
        logfile_write(&log, FRAME_STDOUT, i, payload, sizeof payload);
    }
    uint64_t whole = log.size;
    logfile_close(&log);
    /* Every possible place of the tear in the last frame. */
    for (uint64_t cut = whole - sizeof payload - FRAME_HEADER_BYTES + 1; cut < whole; cut += 97) {
        CHECK(truncate(path, (off_t)cut) == 0);
        CHECK(logfile_open(&log, path, &options, &error) == 0);
        CHECK(log.size == whole - sizeof payload - FRAME_HEADER_BYTES);
        logfile_write(&log, FRAME_STDOUT, 19, payload, sizeof payload);
        CHECK(log.size == whole);
        logfile_close(&log);
    }
    /* A whole file stays whole, also when its payload looks like headers. */
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    uint8_t imitation[FRAME_HEADER_BYTES * 8];
    for (unsigned i = 0; i < 8; i++)
        frame_encode(&(struct frame){.length = i * 3, .stream = FRAME_STDOUT}, imitation + i * FRAME_HEADER_BYTES);
    logfile_write(&log, FRAME_STDERR, 1, imitation, sizeof imitation);
    uint64_t size = log.size;
    logfile_close(&log);
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    CHECK(log.size == size);
    logfile_close(&log);
}

static void rotation_keeps_so_many_files_and_the_one_before_readable(void)
{
    char path[128], older[128];
    in_directory("rotated", path);
    struct log_options options = {.format = LOG_FRAMED, .max_size = 1000, .max_files = 3};
    struct logfile log;
    struct error error = {0};
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    uint8_t payload[484];
    memset(payload, 'x', sizeof payload);
    for (unsigned i = 0; i < 10; i++)
        logfile_write(&log, FRAME_STDOUT, i, payload, sizeof payload); /* two frames a file */
    CHECK(log.base == 4000 && log.size == 1000 && log.written == 10 * sizeof payload && log.dropped == 0);
    uint8_t read_back[1000];
    CHECK(logfile_read(&log, 4000, read_back, sizeof read_back) == 1000);
    CHECK(logfile_read(&log, 3500, read_back, sizeof read_back) == 500); /* not across files */
    CHECK(logfile_read(&log, 2999, read_back, sizeof read_back) == -1);
    CHECK(logfile_read(&log, 5000, read_back, sizeof read_back) == 0);
    logfile_close(&log);
    for (unsigned i = 1; i <= 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "rotated.%u", i);
        in_directory(name, older);
        CHECK((access(older, F_OK) == 0) == (i < 3));
    }
}

static void a_full_disk_costs_bytes_that_are_counted_and_told(void)
{
    char path[128];
    in_directory("full", path);
    struct log_options options = {.format = LOG_FRAMED, .max_files = 1};
    struct logfile log;
    struct error error = {0};
    struct rlimit before, small;
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    small = before;
    small.rlim_cur = 2040;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    uint8_t payload[1000] = {0};
    for (unsigned i = 0; i < 5; i++)
        logfile_write(&log, FRAME_STDOUT, i, payload, sizeof payload);
    CHECK(log.dropped == 3000 && log.written == 2000 && log.size == 2032);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    logfile_write(&log, FRAME_STDOUT, 9, payload, sizeof payload);
    uint8_t all[8192];
    ssize_t got = pread(log.fd, all, sizeof all, 0);
    bool damaged;
    CHECK(got > 0 && frame_scan(all, (size_t)got, &damaged) == (size_t)got && !damaged);
    CHECK(memmem(all, (size_t)got, "{\"event\":\"dropped\",\"bytes\":3000}", 31) != NULL);
    logfile_close(&log);
}

static void text_formats_are_what_their_names_say(void)
{
    char path[128], text[512];
    in_directory("k8s", path);
    struct log_options options = {.format = LOG_K8S, .max_files = 1};
    struct logfile log;
    struct error error = {0};
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    logfile_write(&log, FRAME_STDERR, 1475713757669794202u, (const uint8_t *)"one\ntw", 6);
    ssize_t got = pread(log.fd, text, sizeof text - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    CHECK(strcmp(text, "2016-10-06T00:29:17.669794202Z stderr F one\n2016-10-06T00:29:17.669794202Z stderr P tw\n") == 0);
    logfile_close(&log);
    in_directory("raw", path);
    options.format = LOG_RAW;
    CHECK(logfile_open(&log, path, &options, &error) == 0);
    logfile_write(&log, FRAME_STDOUT, 1, (const uint8_t *)"abc", 3);
    CHECK(log.size == 3);
    logfile_close(&log);
}

static void requests_come_back_as_they_went_and_cut_ones_are_refused(void)
{
    static const struct ctl_request requests[] = {
        {.type = CTL_HELLO, .tag = 1},
        {.type = CTL_KILL, .tag = 2, .signal = 9, .all = true},
        {.type = CTL_RESIZE, .tag = 3, .rows = 24, .columns = 80},
        {.type = CTL_ATTACH, .tag = 4, .offset = CTL_FROM_NOW, .flags = CTL_ATTACH_STDIN},
        {.type = CTL_EXEC, .tag = 5, .id = "abc-1", .flags = 7, .rows = 1, .columns = 2, .bytes = (const uint8_t *)"{}", .bytes_length = 2},
        {.type = CTL_EXEC_RESIZE, .tag = 6, .id = "x", .rows = 5, .columns = 6},
        {.type = CTL_EXEC_KILL, .tag = 7, .id = "y_2", .signal = 15},
        {.type = CTL_STDIN, .tag = 65535, .bytes = (const uint8_t *)"in", .bytes_length = 2},
    };
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        const struct ctl_request *given = &requests[i];
        struct ctl_request found;
        uint8_t bytes[256];
        const char *why = NULL;
        size_t length = ctl_encode_request(given, bytes, sizeof bytes);
        CHECK(length > 0 && ctl_decode(bytes, length, &found, &why) == 0);
        CHECK(found.type == given->type && found.tag == given->tag && strcmp(found.id, given->id) == 0);
        CHECK(found.signal == given->signal && found.all == given->all && found.flags == given->flags);
        CHECK(found.rows == given->rows && found.columns == given->columns && found.offset == given->offset);
        CHECK(found.bytes_length == given->bytes_length && (found.bytes_length == 0 || memcmp(found.bytes, given->bytes, found.bytes_length) == 0));
        if (given->type == CTL_STDIN || given->type == CTL_HELLO)
            continue; /* any length is a whole one */
        for (size_t cut = 0; cut < length; cut++)
            CHECK(ctl_decode(bytes, cut, &found, &why) < 0);
        /* The protocol grows at the end. */
        bytes[length] = 0xff;
        CHECK(ctl_decode(bytes, length + 1, &found, &why) == 0);
    }
    struct ctl_request found;
    const char *why;
    uint8_t bytes[128];
    struct ctl_writer w;
    static const char *const bad[] = {"../x", "a/b", ".", "", "a b", "a.json"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ctl_begin(&w, bytes, sizeof bytes, CTL_EXEC_KILL, 1);
        ctl_put_string(&w, bad[i]);
        ctl_put(&w, 9, 4);
        CHECK(ctl_decode(bytes, w.length, &found, &why) < 0);
    }
}

static void procfs_lines_are_understood_whatever_the_program_is_called(void)
{
    uint64_t start;
    pid_t parent;
    CHECK(process_parse_stat("12 (a) (b) R) S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2", &start, &parent) == 0);
    CHECK(start == 987654 && parent == 7);
    CHECK(process_parse_stat("12 no parenthesis", &start, &parent) < 0);
    const char *controllers, *path, *root, *point, *options;
    bool version2;
    char line[256];
    strcpy(line, "4:cpu,cpuacct:/a:b");
    CHECK(membership_parse(line, &controllers, &path) && strcmp(controllers, "cpu,cpuacct") == 0 && strcmp(path, "/a:b") == 0);
    strcpy(line, "0::/x");
    CHECK(membership_parse(line, &controllers, &path) && *controllers == '\0');
    strcpy(line, "1:name=systemd:/x");
    CHECK(!membership_parse(line, &controllers, &path));
    strcpy(line, "35 28 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n");
    CHECK(cgroup_mount_parse(line, &root, &point, &version2, &options) && !version2);
    CHECK(strcmp(point, "/sys/fs/cgroup/memory") == 0 && strcmp(options, "rw,memory") == 0 && strcmp(root, "/") == 0);
    strcpy(line, "35 28 0:30 / /proc rw - proc proc rw\n");
    CHECK(!cgroup_mount_parse(line, &root, &point, &version2, &options));
    struct cgroups own;
    struct error error = {0};
    CHECK(cgroups_of(getpid(), &own, &error) == 0 && own.count == 0); /* never our own */
}

static void pid_files_hold_a_number_and_nothing_else(void)
{
    static const struct {
        const char *text;
        pid_t pid;
    } cases[] = {{"123", 123}, {"99\n", 99}, {"", -1}, {"1", -1}, {"-5", -1}, {"12x", -1}, {"99999999999", -1}, {" 7", -1}};
    cleanup_fd int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error = {0};
        pid_t pid = -1;
        CHECK(replace_file_at(folder, "pid", cases[i].text, strlen(cases[i].text), 0600, false, &error) == 0);
        CHECK((read_pid_file(folder, "pid", &pid, &error) == 0 ? pid : -1) == cases[i].pid);
    }
}

static void json_texts_stay_whole_and_ascii(void)
{
    char out[32];
    json_escape(out, sizeof out, "a\"\\\n\xff");
    CHECK(strcmp(out, "a\\\"\\\\\\u000a\\u00ff") == 0);
    json_escape(out, sizeof out, "0123456789012345678901234567890123456789");
    CHECK(strlen(out) < sizeof out);
}

static void the_command_line_is_checked(void)
{
    struct monitor_options options;
    struct error error = {0};
    char *good[] = {"monitor", "--id", "a-1", "--bundle", "/b", "--state-dir", "/s", "--runtime-root", "/r", "--log-max-size", "10", "--log-format", "k8s", NULL};
    CHECK(monitor_parse_options(13, good, &options, &error) == 0);
    CHECK(options.log.max_size == 10 && options.log.format == LOG_K8S && options.log.max_files == 1 && options.created_seconds == 60);
    static char *const wrong[][2] = {{"--id", "../x"}, {"--bundle", "b"}, {"--runtime", "runc"}, {"--log-max-size", "-1"}, {"--log-max-size", "1k"},
                                     {"--log-max-file", "0"}, {"--log-mode", "fast"}, {"--created-ttl", "99999999"}, {"--unknown", "x"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *argv[] = {"monitor", "--id", "a", "--bundle", "/b", "--state-dir", "/s", "--runtime-root", "/r", wrong[i][0], wrong[i][1], NULL};
        CHECK(monitor_parse_options(11, argv, &options, &error) < 0);
    }
}

static void the_launcher_takes_whole_requests_only(void)
{
    static struct launch launch;
    struct error error = {0};
    /* The end of each literal is the end of its last text. */
    char good[] = "d\0/a/b\0f\0/a/b/c\0" "640\0text\0f\0/e\0" "0\0\0m\0--id\0x";
    CHECK(launch_parse(good, sizeof good, &launch, &error) == 0);
    CHECK(launch.step_count == 3 && launch.steps[0].content == NULL && strcmp(launch.steps[0].path, "/a/b") == 0);
    CHECK(launch.steps[1].mode == 0640 && strcmp(launch.steps[1].content, "text") == 0 && *launch.steps[2].content == '\0');
    static const char *const expected[] = {"isolate", "monitor", "--id", "x", "--sync-fd", "3", "--stay"};
    CHECK(launch.argument_count == 7 && launch.arguments[7] == NULL);
    for (unsigned i = 0; i < 7; i++)
        CHECK(strcmp(launch.arguments[i], expected[i]) == 0);
    static const struct {
        const char *texts;
        size_t length;
    } wrong[] = {
#define TEXTS(literal) {literal, sizeof literal}
        {"", 0},                       /* nothing */
        {"m", 1},                      /* no end */
        TEXTS("d\0/a"),                /* no monitor */
        TEXTS("d\0a\0m"),              /* a relative path */
        TEXTS("d"),                    /* no path */
        TEXTS("f\0/a\0" "600\0m"),     /* `m` is its content, and nothing follows */
        TEXTS("f\0/a\0" "8\0x\0m"),    /* no mode */
        TEXTS("f\0/a\0" "60000\0x\0m"), /* a mode of five digits */
        TEXTS("x\0/a\0m"),             /* an unknown kind */
#undef TEXTS
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char texts[32];
        memcpy(texts, wrong[i].texts, wrong[i].length);
        CHECK(launch_parse(texts, wrong[i].length, &launch, &error) < 0);
    }
}

static void the_launcher_keeps_what_is_there_and_replaces_files_in_place(void)
{
    char inside[128], file[160], text[16] = "";
    struct stat before, after;
    struct error error = {0};
    in_directory("launch", inside);
    snprintf(file, sizeof file, "%s/hosts", inside);
    static struct launch launch;
    launch = (struct launch){
        .steps = {{.path = inside, .mode = 0755}, {.path = file, .content = "longer", .mode = 0600}}, .step_count = 2};
    CHECK(launch_prepare(&launch, &error) == 0 && stat(file, &before) == 0);
    launch.steps[1].content = "short";
    CHECK(launch_prepare(&launch, &error) == 0 && stat(file, &after) == 0);
    CHECK(before.st_ino == after.st_ino && after.st_size == 5 && (after.st_mode & 07777) == 0600);
    cleanup_fd int fd = open(file, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof text - 1) == 5 && strcmp(text, "short") == 0);
    launch.steps[0].path = "/proc/nowhere/at/all";
    CHECK(launch_prepare(&launch, &error) < 0 && strstr(error.text, "/proc/nowhere") != NULL);
}

int main(void)
{
    snprintf(directory, sizeof directory, "/tmp/monitor-test-XXXXXX");
    if (mkdtemp(directory) == NULL) {
        perror("mkdtemp");
        return 1;
    }
    frame_headers_come_back_as_they_went();
    a_torn_frame_is_cut_off_when_the_log_is_opened();
    rotation_keeps_so_many_files_and_the_one_before_readable();
    a_full_disk_costs_bytes_that_are_counted_and_told();
    text_formats_are_what_their_names_say();
    requests_come_back_as_they_went_and_cut_ones_are_refused();
    procfs_lines_are_understood_whatever_the_program_is_called();
    pid_files_hold_a_number_and_nothing_else();
    json_texts_stay_whole_and_ascii();
    the_command_line_is_checked();
    the_launcher_takes_whole_requests_only();
    the_launcher_keeps_what_is_there_and_replaces_files_in_place();
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command) != 0)
        failures++;
    printf("monitor_test: %s\n", failures == 0 ? "ok" : "FAILED");
    return failures == 0 ? 0 : 1;
}
