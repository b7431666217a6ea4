/* Words of the command line: signals, users, ids, paths; what is accepted must print back to the same word. */
#include "common/path.h"
#include "isolate/config.h"
#include "isolate/runtime.h"
#include "isolate/user.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error error;
    char clean[4096], printed[32];
    uid_t uid = 0;
    gid_t gid = 12345;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    int signal = signal_from_text(text);
    if (signal != -1 && (signal < 1 || signal > 64))
        abort();
    if (user_from_text(text, &uid, &gid, &error) == 0) {
        if (strchr(text, ':') != NULL)
            snprintf(printed, sizeof printed, "%u:%u", uid, gid);
        else
            snprintf(printed, sizeof printed, "%u", uid);
        if (strcmp(printed, text) != 0)
            abort();
    }
    if (container_id_check(text, &error) == 0 && (strchr(text, '/') != NULL || strcmp(text, "..") == 0))
        abort();
    if (clean_path(text, clean, sizeof clean, &error) == 0 &&
        (clean[0] == '/' || strstr(clean, "//") != NULL || strcmp(clean, "..") == 0 || strncmp(clean, "../", 3) == 0 || strstr(clean, "/../") != NULL))
        abort();
    free(text);
    return 0;
}
