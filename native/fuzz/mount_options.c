/* Mount options, one a line: parsed into flags that never ask to set and clear the same attribute. */
#include "isolate/mount_options.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *options[256];
    size_t count = 0;
    struct mount_options parsed;
    struct error error;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *rest = text;
    for (char *line = strsep(&rest, "\n"); line != NULL && count < 256; line = strsep(&rest, "\n"))
        options[count++] = line;
    if (mount_options_parse(options, count, &parsed, &error) == 0) {
        if ((parsed.set & parsed.clear & ~(uint64_t)MOUNT_ATTR__ATIME) != 0 || strlen(parsed.data) > 4095)
            abort();
        mount_options_free(&parsed);
    }
    free(text);
    return 0;
}
