/* The reader of log frames: it never goes past the bytes, and what it calls whole frames it calls so again. */
#include "monitor/cgroups.h"
#include "monitor/frame.h"
#include "monitor/loop.h"
#include "monitor/process.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool damaged, still;
    size_t whole = frame_scan(data, size, &damaged);
    if (whole > size || frame_scan(data, whole, &still) != whole || still)
        abort();
    /* The small readers of procfs text share this target: their input is a line. */
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    const char *a, *b, *c;
    bool version2;
    uint64_t start;
    pid_t parent;
    memcpy(text, data, size);
    text[size] = '\0';
    (void)process_parse_stat(text, &start, &parent);
    char escaped[64];
    json_escape(escaped, sizeof escaped, text);
    (void)membership_parse(text, &a, &b);
    memcpy(text, data, size);
    text[size] = '\0';
    (void)cgroup_mount_parse(text, &a, &b, &version2, &c);
    free(text);
    return 0;
}
