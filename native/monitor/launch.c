#include "monitor/launch.h"

#include "common/fd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* The text at *at, which ends before `end`; NULL when there is none. */
static char *next_text(char **at, const char *end)
{
    char *text = *at;
    if (text == end)
        return NULL;
    *at = text + strlen(text) + 1; /* launch_parse() has seen that the last byte is a NUL */
    return text;
}

static int parse_mode(const char *text, mode_t *out, struct error *error)
{
    unsigned mode = 0;
    size_t length = strspn(text, "01234567");
    if (length == 0 || length > 4 || text[length] != '\0')
        return fail(error, EINVAL, "understand mode \"%.16s\"", text);
    for (size_t i = 0; i < length; i++)
        mode = mode * 8 + (unsigned)(text[i] - '0');
    *out = mode;
    return 0;
}

static int parse_step(const char *kind, char **at, const char *end, struct launch *out, struct error *error)
{
    if (out->step_count == LAUNCH_STEPS_MAX)
        return fail(error, E2BIG, "prepare more than %d files", LAUNCH_STEPS_MAX);
    struct launch_step *step = &out->steps[out->step_count];
    *step = (struct launch_step){.path = next_text(at, end), .mode = 0755};
    if (step->path == NULL || step->path[0] != '/')
        return fail(error, EINVAL, "prepare \"%.64s\": the path is not absolute", step->path == NULL ? "" : step->path);
    if (*kind == 'f') {
        const char *mode = next_text(at, end);
        step->content = next_text(at, end);
        if (step->content == NULL)
            return fail(error, EINVAL, "write %.64s without mode and content", step->path);
        if (parse_mode(mode, &step->mode, error) < 0)
            return -1;
    }
    out->step_count++;
    return 0;
}

int launch_parse(char *texts, size_t length, struct launch *out, struct error *error)
{
    char *at = texts;
    const char *end = texts + length;
    *out = (struct launch){0};
    if (length == 0 || texts[length - 1] != '\0')
        return fail(error, EINVAL, "understand a request: its last text does not end");
    for (;;) {
        const char *kind = next_text(&at, end);
        if (kind == NULL)
            return fail(error, EINVAL, "understand a request: it starts no monitor");
        if (strcmp(kind, "m") == 0)
            break;
        if (strcmp(kind, "d") != 0 && strcmp(kind, "f") != 0)
            return fail(error, EINVAL, "understand \"%.64s\" in a request", kind);
        if (parse_step(kind, &at, end, out, error) < 0)
            return -1;
    }
    static char program[] = "isolate", verb[] = "monitor", option[] = "--sync-fd", number[] = "3", stay[] = "--stay";
    out->arguments[out->argument_count++] = program;
    out->arguments[out->argument_count++] = verb;
    for (char *argument = next_text(&at, end); argument != NULL; argument = next_text(&at, end)) {
        if (out->argument_count == LAUNCH_ARGUMENTS_MAX)
            return fail(error, E2BIG, "start a monitor with more than %d arguments", LAUNCH_ARGUMENTS_MAX);
        out->arguments[out->argument_count++] = argument;
    }
    out->arguments[out->argument_count++] = option;
    out->arguments[out->argument_count++] = number;
    /* The launcher has forked already, and waits for nobody. */
    out->arguments[out->argument_count++] = stay;
    return 0;
}

static int write_file(const struct launch_step *step, struct error *error)
{
    /* In place: it may be bound into the container, which sees the new content then. */
    cleanup_fd int fd = open(step->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, step->mode);
    if (fd < 0)
        return fail(error, errno, "open %s", step->path);
    return write_all(fd, step->content, strlen(step->content), step->path, error);
}

int launch_prepare(const struct launch *launch, struct error *error)
{
    for (unsigned i = 0; i < launch->step_count; i++) {
        const struct launch_step *step = &launch->steps[i];
        if (step->content != NULL) {
            if (write_file(step, error) < 0)
                return -1;
        } else if (mkdir(step->path, step->mode) < 0 && errno != EEXIST) {
            return fail(error, errno, "make directory %s", step->path);
        }
    }
    return 0;
}
