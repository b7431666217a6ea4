/* Texts of the kernel that a container can shape in part: /proc/PID/cgroup, then after an empty line mountinfo. */
#include "common/cgroup.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cgroup_layout layout = {0};
    struct error error;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *mounts = strstr(text, "\n\n");
    if (mounts != NULL) {
        mounts[1] = '\0';
        mounts += 2;
    }
    if (cgroup_parse_membership(text, &layout, &error) == 0 && mounts != NULL &&
        cgroup_parse_mounts(mounts, &layout, &error) == 0)
        (void)cgroup_find(&layout, "memory");
    cgroup_layout_free(&layout);
    free(text);
    return 0;
}
