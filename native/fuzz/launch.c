/* Requests of the launcher: whatever comes, what is accepted points into the request, ends there, and is absolute. */
#include "monitor/launch.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void must_lie_in(const char *text, const char *begin, const char *end)
{
    if (text < begin || text >= end || memchr(text, '\0', (size_t)(end - text)) == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct launch launch;
    struct error error;
    /* Of exactly this size, so that the sanitizer sees a step beyond it. */
    char *texts = malloc(size == 0 ? 1 : size);
    if (texts == NULL)
        return 0;
    memcpy(texts, data, size);
    if (launch_parse(texts, size, &launch, &error) == 0) {
        if (launch.step_count > LAUNCH_STEPS_MAX || launch.argument_count > LAUNCH_ARGUMENTS_MAX + 4 ||
            launch.arguments[launch.argument_count] != NULL)
            abort();
        for (unsigned i = 0; i < launch.step_count; i++) {
            must_lie_in(launch.steps[i].path, texts, texts + size);
            if (launch.steps[i].path[0] != '/' || launch.steps[i].mode > 07777)
                abort();
            if (launch.steps[i].content != NULL)
                must_lie_in(launch.steps[i].content, texts, texts + size);
        }
        for (unsigned i = 2; i + 2 < launch.argument_count; i++)
            must_lie_in(launch.arguments[i], texts, texts + size);
    }
    free(texts);
    return 0;
}
