#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef fail
#undef fail_in

int fail(struct error *error, int number, const char *format, ...)
{
    if (error == NULL)
        return -1;
    error->number = number;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    if (number != 0 && length >= 0 && (size_t)length < sizeof error->text) {
        const char *reason = strerrordesc_np(number);
        if (reason == NULL)
            reason = "unknown error";
        snprintf(error->text + length, sizeof error->text - (size_t)length, ": %s", reason);
    }
    return -1;
}

int fail_in(struct error *error, const char *format, ...)
{
    if (error == NULL)
        return -1;
    char tail[ERROR_TEXT_MAX];
    memcpy(tail, error->text, sizeof tail);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof error->text)
        snprintf(error->text + length, sizeof error->text - (size_t)length, ": %s", tail);
    return -1;
}
