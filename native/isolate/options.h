/* Command lines as runc's: `--name value`, `--name=value`, `-name`, one table of options for each verb. */
#ifndef ISOLATE_OPTIONS_H
#define ISOLATE_OPTIONS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_LIST };

struct option_list {
    const char **values; /* NULL-terminated; NULL while empty */
    size_t count;
};

struct option_spec {
    const char *name;   /* without dashes */
    const char *letter; /* one-letter form or NULL */
    enum option_kind kind;
    void *out;          /* bool *, const char **, struct option_list * */
};

/*
 * Reads options up to the first other argument or "--"; `*next` is its index. A flag may be written --flag=false.
 */
int options_read(const struct option_spec *specs, size_t count, int argc, char *const *argv, int *next,
                 struct error *error);

#endif
