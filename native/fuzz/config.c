/* Untrusted config.json and resources: parsed, checked and freed, whatever they hold. */
#include "common/json.h"
#include "isolate/config.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_object *json = NULL;
    struct error error;
    if (json_parse((const char *)data, size, &json, &error) < 0)
        return 0;
    struct resources resources;
    if (resources_parse(json, &resources, &error) == 0)
        resources_free(&resources);
    struct config *config = NULL;
    if (config_parse(json, &config, &error) == 0)
        config_free(config);
    return 0;
}
