/*
 * archive: what touches tar archives and container file systems on behalf of the worker, confined to one directory.
 *   archive unpack --root DIR | --mount-ns FILE [--into PATH] [--layer] [--sync] [--max-bytes N] [--max-entries N]
 *                  [--reserve-bytes N]      tar on standard input
 *   archive pack   --root DIR | --mount-ns FILE --path PATH [--name NAME] [--layer]      tar on standard output
 *   archive stat   --root DIR | --mount-ns FILE --path PATH
 *   archive changes --root DIR --upper DIR [--lower DIR ...]      directories as seen below the root
 * Success: exit 0; unpack prints {"entries","bytes","xattrsIgnored"}. Failure: exit 1 and {"code","message"} on
 * standard error. Wrong usage: exit 2.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "archive/apply.h"
#include "archive/confine.h"
#include "archive/pack.h"
#include "common/fd.h"

#define LOWERS_MAX 256

struct options {
    struct confinement confinement;
    struct apply_options apply;
    struct pack_options pack;
    uint64_t bytes_max;
    bool sync;
    const char *upper;
    size_t lowers_count;
    char *lowers[LOWERS_MAX];
};

static int usage(const char *what)
{
    fprintf(stderr, "archive: %s\nusage: archive unpack|pack|stat|changes --root DIR [options]\n", what);
    return 2;
}

static bool parse_count(const char *text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    if (text[0] < '0' || text[0] > '9')
        return false;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *out <= INT64_MAX;
}

static int parse_options(int argc, char **argv, struct options *options)
{
    enum { ROOT = 1000, MOUNT_NS, INTO, LAYER, SYNC, MAX_BYTES, MAX_ENTRIES, RESERVE, PATH, NAME, UPPER, LOWER };
    static const struct option known[] = {
        {"root", required_argument, NULL, ROOT},           {"mount-ns", required_argument, NULL, MOUNT_NS},
        {"into", required_argument, NULL, INTO},           {"layer", no_argument, NULL, LAYER},
        {"sync", no_argument, NULL, SYNC},                 {"max-bytes", required_argument, NULL, MAX_BYTES},
        {"max-entries", required_argument, NULL, MAX_ENTRIES}, {"reserve-bytes", required_argument, NULL, RESERVE},
        {"path", required_argument, NULL, PATH},           {"name", required_argument, NULL, NAME},
        {"upper", required_argument, NULL, UPPER},         {"lower", required_argument, NULL, LOWER},
        {0},
    };
    options->bytes_max = INT64_MAX;
    options->apply.entries_max = 4 * 1024 * 1024;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        bool valid = true;
        switch (option) {
        case ROOT: options->confinement.root = optarg; break;
        case MOUNT_NS: options->confinement.mount_ns = optarg; break;
        case INTO: options->apply.into = optarg; break;
        case LAYER: options->apply.layer = options->pack.layer = options->confinement.overlay = true; break;
        case SYNC: options->sync = true; break;
        case MAX_BYTES: valid = parse_count(optarg, &options->bytes_max); break;
        case MAX_ENTRIES: valid = parse_count(optarg, &options->apply.entries_max); break;
        case RESERVE: valid = parse_count(optarg, &options->apply.reserve_bytes); break;
        case PATH: options->pack.path = optarg; break;
        case NAME: options->pack.name = optarg; break;
        case UPPER: options->upper = optarg; break;
        case LOWER:
            if (options->lowers_count >= LOWERS_MAX)
                return usage("too many --lower");
            options->lowers[options->lowers_count++] = optarg;
            break;
        default: return usage("unknown option");
        }
        if (!valid)
            return usage("a limit is not a number");
    }
    if (optind != argc)
        return usage("unexpected argument");
    if ((options->confinement.root == NULL) == (options->confinement.mount_ns == NULL))
        return usage("give either --root or --mount-ns");
    return 0;
}

static ssize_t read_stdin(void *context, void *buffer, size_t length)
{
    (void)context;
    return read(STDIN_FILENO, buffer, length);
}

static int unpack(struct options *options, struct error *error)
{
    options->confinement.writes = true;
    if (confine(&options->confinement, error) < 0)
        return -1;
    struct tar_reader *reader = malloc(sizeof *reader);
    if (reader == NULL)
        return fail(error, ENOMEM, "read the archive");
    struct apply_result result = {0};
    tar_reader_init(reader, (struct tar_source){.read = read_stdin}, options->bytes_max);
    int done = apply_archive(reader, &options->apply, &result, error);
    tar_reader_release(reader);
    free(reader);
    if (done < 0)
        return -1;
    if (options->sync) {
        cleanup_fd int fd = openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || syncfs(fd) < 0)
            return fail(error, errno, "make the files durable");
    }
    char text[160];
    int length = snprintf(text, sizeof text, "{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"xattrsIgnored\":%" PRIu64 "}\n",
                          result.entries, result.bytes, result.xattrs_ignored);
    return write_all(STDOUT_FILENO, text, (size_t)length, "the answer", error);
}

static int run(const char *verb, struct options *options, struct error *error)
{
    if (strcmp(verb, "unpack") == 0)
        return unpack(options, error);
    if (confine(&options->confinement, error) < 0)
        return -1;
    if (strcmp(verb, "pack") == 0)
        return pack_archive(&options->pack, STDOUT_FILENO, error);
    if (strcmp(verb, "stat") == 0)
        return print_stat(options->pack.path, error);
    return print_changes(options->upper, options->lowers, options->lowers_count, error);
}

/* Errors about the archive carry their code in front ("TAR_TRUNCATED: ..."); all others are the system's. */
static void print_failure(const struct error *error)
{
    const char *mark = strstr(error->text, "TAR_");
    char code[32] = "ARCHIVE_FAILED";
    char message[ERROR_TEXT_MAX];
    snprintf(message, sizeof message, "%s", error->text);
    size_t length = mark == NULL ? 0 : strspn(mark, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    if (length > 4 && length < sizeof code && mark[length] == ':' && mark[length + 1] == ' ') {
        snprintf(code, sizeof code, "%.*s", (int)length, mark);
        snprintf(message, sizeof message, "%.*s%s", (int)(mark - error->text), error->text, mark + length + 2);
    }
    if (error->number == ENOSPC)
        snprintf(code, sizeof code, "TAR_NO_SPACE");
    if (error->number == ENOENT && mark == NULL)
        snprintf(code, sizeof code, "ARCHIVE_NOT_FOUND");
    struct json_object *line = json_object_new_object();
    json_object_object_add(line, "code", json_object_new_string(code));
    json_object_object_add(line, "message", json_object_new_string(message));
    const char *text = json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN);
    struct error ignored; /* there is nobody left to tell */
    if (write_all(STDERR_FILENO, text, strlen(text), "the error", &ignored) == 0)
        (void)write_all(STDERR_FILENO, "\n", 1, "the error", &ignored);
    json_object_put(line);
}

int main(int argc, char **argv)
{
    static struct options options;
    if (argc < 2)
        return usage("say what to do");
    const char *verb = argv[1];
    bool packs = strcmp(verb, "pack") == 0 || strcmp(verb, "stat") == 0;
    bool changes = strcmp(verb, "changes") == 0;
    if (!packs && !changes && strcmp(verb, "unpack") != 0)
        return usage("unknown verb");
    int wrong = parse_options(argc - 1, argv + 1, &options);
    if (wrong != 0)
        return wrong;
    if (packs && options.pack.path == NULL)
        return usage("--path is missing");
    if (changes && options.upper == NULL)
        return usage("--upper is missing");
    struct error error = {0};
    if (run(verb, &options, &error) == 0)
        return 0;
    print_failure(&error);
    return 1;
}
