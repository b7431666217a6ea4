#include "monitor/options.h"

#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTION_ID = 256,
    OPTION_BUNDLE,
    OPTION_STATE,
    OPTION_RUNTIME,
    OPTION_ROOT,
    OPTION_ARGUMENT,
    OPTION_LOG,
    OPTION_FORMAT,
    OPTION_SIZE,
    OPTION_FILES,
    OPTION_MODE,
    OPTION_STDIN,
    OPTION_TTY,
    OPTION_CLEANUP,
    OPTION_HOST_MOUNTS,
    OPTION_TTL,
    OPTION_PATIENCE,
    OPTION_SYNC,
    OPTION_LOWER,
    OPTION_UPPER,
    OPTION_WORK,
    OPTION_ROOTFS,
    OPTION_START,
    OPTION_STAY,
};

static const struct option long_options[] = {
    {"id", required_argument, NULL, OPTION_ID},
    {"bundle", required_argument, NULL, OPTION_BUNDLE},
    {"state-dir", required_argument, NULL, OPTION_STATE},
    {"runtime", required_argument, NULL, OPTION_RUNTIME},
    {"runtime-root", required_argument, NULL, OPTION_ROOT},
    {"runtime-arg", required_argument, NULL, OPTION_ARGUMENT},
    {"log-path", required_argument, NULL, OPTION_LOG},
    {"log-format", required_argument, NULL, OPTION_FORMAT},
    {"log-max-size", required_argument, NULL, OPTION_SIZE},
    {"log-max-file", required_argument, NULL, OPTION_FILES},
    {"log-mode", required_argument, NULL, OPTION_MODE},
    {"stdin", no_argument, NULL, OPTION_STDIN},
    {"tty", no_argument, NULL, OPTION_TTY},
    {"auto-cleanup", no_argument, NULL, OPTION_CLEANUP},
    {"host-mounts", no_argument, NULL, OPTION_HOST_MOUNTS},
    {"created-ttl", required_argument, NULL, OPTION_TTL},
    {"verb-timeout", required_argument, NULL, OPTION_PATIENCE},
    {"sync-fd", required_argument, NULL, OPTION_SYNC},
    {"overlay-lower", required_argument, NULL, OPTION_LOWER},
    {"overlay-upper", required_argument, NULL, OPTION_UPPER},
    {"overlay-work", required_argument, NULL, OPTION_WORK},
    {"overlay-target", required_argument, NULL, OPTION_ROOTFS},
    {"start", no_argument, NULL, OPTION_START},
    {"stay", no_argument, NULL, OPTION_STAY},
    {0},
};

static int parse_number(const char *text, unsigned long long max, unsigned long long *out, struct error *error)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > max)
        return fail(error, EINVAL, "understand number \"%s\"", text);
    *out = value;
    return 0;
}

static int parse_choice(const char *text, const char *const *choices, unsigned *out, struct error *error)
{
    for (unsigned i = 0; choices[i] != NULL; i++)
        if (strcmp(text, choices[i]) == 0) {
            *out = i;
            return 0;
        }
    return fail(error, EINVAL, "understand option value \"%s\"", text);
}

static int apply(int option, const char *value, struct monitor_options *out, struct error *error)
{
    unsigned long long number = 0;
    unsigned choice = 0;
    switch (option) {
    case OPTION_ID:
        out->id = value;
        return 0;
    case OPTION_BUNDLE:
        out->bundle = value;
        return 0;
    case OPTION_STATE:
        out->state_directory = value;
        return 0;
    case OPTION_RUNTIME:
        out->runtime = value;
        return 0;
    case OPTION_ROOT:
        out->runtime_root = value;
        return 0;
    case OPTION_ARGUMENT:
        if (out->runtime_argument_count == RUNTIME_ARGUMENTS_MAX)
            return fail(error, E2BIG, "take more than %d --runtime-arg", RUNTIME_ARGUMENTS_MAX);
        out->runtime_arguments[out->runtime_argument_count++] = value;
        return 0;
    case OPTION_LOG:
        out->log_path = value;
        return 0;
    case OPTION_FORMAT:
        if (parse_choice(value, (const char *const[]){"framed", "raw", "k8s", NULL}, &choice, error) < 0)
            return -1;
        out->log.format = (enum log_format)choice;
        return 0;
    case OPTION_SIZE:
        if (parse_number(value, INT64_MAX, &number, error) < 0)
            return -1;
        out->log.max_size = number;
        return 0;
    case OPTION_FILES:
        if (parse_number(value, 1000, &number, error) < 0)
            return -1;
        if (number == 0)
            return fail(error, EINVAL, "keep 0 log files");
        out->log.max_files = (unsigned)number;
        return 0;
    case OPTION_MODE:
        if (parse_choice(value, (const char *const[]){"block", "drop", NULL}, &choice, error) < 0)
            return -1;
        out->drop = choice == 1;
        return 0;
    case OPTION_STDIN:
        out->open_stdin = true;
        return 0;
    case OPTION_TTY:
        out->terminal = true;
        return 0;
    case OPTION_START:
        out->start_at_once = true;
        return 0;
    case OPTION_STAY:
        out->stay = true;
        return 0;
    case OPTION_CLEANUP:
        out->auto_cleanup = true;
        return 0;
    case OPTION_HOST_MOUNTS:
        out->host_mounts = true;
        return 0;
    case OPTION_TTL:
        if (parse_number(value, 86400, &number, error) < 0)
            return -1;
        out->created_seconds = (unsigned)number;
        return 0;
    case OPTION_PATIENCE:
        if (parse_number(value, 3600, &number, error) < 0)
            return -1;
        out->verb_seconds = (unsigned)number;
        return 0;
    case OPTION_SYNC:
        if (parse_number(value, 1024, &number, error) < 0)
            return -1;
        out->sync_fd = (int)number;
        return 0;
    case OPTION_LOWER:
        if (out->overlay.lower_count == OVERLAY_LOWERS_MAX)
            return fail(error, E2BIG, "stack more than %d layers", OVERLAY_LOWERS_MAX);
        out->overlay.lowers[out->overlay.lower_count++] = value;
        return 0;
    case OPTION_UPPER:
        out->overlay.upper = value;
        return 0;
    case OPTION_WORK:
        out->overlay.work = value;
        return 0;
    case OPTION_ROOTFS:
        out->overlay.target = value;
        return 0;
    default:
        return fail(error, EINVAL, "understand the command line");
    }
}

/* The runtimes allow more; here the id is also the name of files and cgroups. */
static bool is_fine_id(const char *id)
{
    size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return length > 0 && length <= 128 && id[length] == '\0';
}

int monitor_parse_options(int argc, char **argv, struct monitor_options *out, struct error *error)
{
    *out = (struct monitor_options){
        .runtime = "builtin", .created_seconds = 60, .verb_seconds = 120, .sync_fd = -1, .log = {.max_files = 1}};
    opterr = 0;
    optind = 0; /* getopt(3): starts over, also when the caller has parsed a command line of its own */
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        if (apply(option, optarg, out, error) < 0)
            return fail_in(error, "option %s", argv[optind - 1]);
    if (optind != argc)
        return fail(error, EINVAL, "understand argument \"%s\"", argv[optind]);
    if (out->id == NULL || out->bundle == NULL || out->state_directory == NULL || out->runtime_root == NULL)
        return fail(error, EINVAL, "do without --id, --bundle, --state-dir and --runtime-root");
    if (!is_fine_id(out->id))
        return fail(error, EINVAL, "take id \"%.64s\"", out->id);
    const char *paths[] = {out->bundle, out->state_directory, out->runtime_root, out->log_path};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (paths[i] != NULL && (*paths[i] != '/' || strlen(paths[i]) >= STATE_PATH_MAX))
            return fail(error, EINVAL, "take path \"%.64s\": it is relative, or longer than %d bytes", paths[i], STATE_PATH_MAX);
    if (strcmp(out->runtime, "builtin") != 0 && *out->runtime != '/')
        return fail(error, EINVAL, "take runtime \"%.64s\": give its path, or `builtin`", out->runtime);
    if (out->overlay.target != NULL && out->overlay.lower_count == 0)
        return fail(error, EINVAL, "mount an overlay without a layer");
    return 0;
}
