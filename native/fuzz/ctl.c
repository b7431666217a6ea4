/* The decoder of control messages: whatever comes, it stays in bounds; what it accepts survives encoding and decoding again. */
#include "monitor/ctl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t again[CTL_MESSAGE_MAX];
    struct ctl_request first, second;
    const char *why;
    if (ctl_decode(data, size, &first, &why) < 0)
        return 0;
    size_t length = ctl_encode_request(&first, again, sizeof again);
    if (length == 0 || ctl_decode(again, length, &second, &why) < 0)
        abort();
    if (first.type != second.type || first.tag != second.tag || strcmp(first.id, second.id) != 0 ||
        first.signal != second.signal || first.offset != second.offset || first.bytes_length != second.bytes_length)
        abort();
    if (first.bytes_length > 0 && memcmp(first.bytes, second.bytes, first.bytes_length) != 0)
        abort();
    return 0;
}
