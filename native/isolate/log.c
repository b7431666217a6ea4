#include "isolate/log.h"
#include "common/fd.h"
#include "common/json.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

/* The only globals of the program: where messages go. */
static int log_fd = -1;
static enum log_format log_file_format = LOG_TEXT;
static bool log_debugging;

int log_open(const char *path, enum log_format format, bool debug, struct error *error)
{
    log_debugging = debug;
    log_file_format = format;
    if (path == NULL || *path == '\0')
        return 0;
    log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
    if (log_fd < 0)
        return fail(error, errno, "open log file %s", path);
    return 0;
}

static void write_json_line(const char *level, const char *text, const char *now)
{
    cleanup_json struct json_object *line = json_object_new_object();
    struct error ignored; /* a message that cannot be built cannot be reported either */
    if (line == NULL || json_add(line, "level", json_object_new_string(level), &ignored) < 0 ||
        json_add(line, "msg", json_object_new_string(text), &ignored) < 0 ||
        json_add(line, "time", json_object_new_string(now), &ignored) < 0)
        return;
    const char *serialized = json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    dprintf(log_fd, "%s\n", serialized);
}

static void emit(const char *level, bool to_stderr, const char *format, va_list arguments)
{
    char text[ERROR_TEXT_MAX + 256];
    vsnprintf(text, sizeof text, format, arguments);
    if (to_stderr)
        dprintf(STDERR_FILENO, "isolate: %s%s\n", strcmp(level, "warning") == 0 ? "warning: " : "", text);
    if (log_fd < 0)
        return;
    char now[40] = "";
    struct tm utc;
    time_t seconds = time(NULL);
    if (gmtime_r(&seconds, &utc) != NULL)
        strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (log_file_format == LOG_JSON)
        write_json_line(level, text, now);
    else
        dprintf(log_fd, "time=\"%s\" level=%s msg=\"%s\"\n", now, level, text);
}

void log_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    emit("error", true, format, arguments);
    va_end(arguments);
}

void log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    emit("warning", log_fd < 0, format, arguments);
    va_end(arguments);
}

void log_debug(const char *format, ...)
{
    if (!log_debugging)
        return;
    va_list arguments;
    va_start(arguments, format);
    emit("debug", log_fd < 0, format, arguments);
    va_end(arguments);
}
