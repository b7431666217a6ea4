#include "isolate/options.h"

#include <stdlib.h>
#include <string.h>

static const struct option_spec *find_option(const struct option_spec *specs, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(specs[i].name) == length && memcmp(specs[i].name, name, length) == 0)
            return &specs[i];
        if (specs[i].letter != NULL && length == 1 && *specs[i].letter == *name)
            return &specs[i];
    }
    return NULL;
}

static int add_value(struct option_list *list, const char *value, struct error *error)
{
    const char **grown = realloc(list->values, (list->count + 2) * sizeof *grown);
    if (grown == NULL)
        return fail(error, ENOMEM, "read the command line");
    grown[list->count++] = value;
    grown[list->count] = NULL;
    list->values = grown;
    return 0;
}

int options_read(const struct option_spec *specs, size_t count, int argc, char *const *argv, int *next,
                 struct error *error)
{
    int i = *next;
    for (; i < argc; i++) {
        const char *argument = argv[i];
        if (strcmp(argument, "--") == 0) {
            i++;
            break;
        }
        if (argument[0] != '-' || argument[1] == '\0')
            break;
        const char *name = argument + (argument[1] == '-' ? 2 : 1);
        size_t length = strcspn(name, "=");
        const char *value = name[length] == '=' ? name + length + 1 : NULL;
        const struct option_spec *spec = find_option(specs, count, name, length);
        if (spec == NULL)
            return fail(error, EINVAL, "option %s is not known", argument);
        if (spec->kind == OPTION_FLAG) {
            if (value != NULL && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
                return fail(error, EINVAL, "option --%s is true or false", spec->name);
            *(bool *)spec->out = value == NULL || strcmp(value, "true") == 0;
            continue;
        }
        if (value == NULL) {
            if (i + 1 >= argc)
                return fail(error, EINVAL, "option %s needs a value", argument);
            value = argv[++i];
        }
        if (spec->kind == OPTION_TEXT)
            *(const char **)spec->out = value;
        else if (add_value(spec->out, value, error) < 0)
            return -1;
    }
    *next = i;
    return 0;
}
