#include "monitor/frame.h"

#include <errno.h>
#include <unistd.h>

static void put_le(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

void frame_encode(const struct frame *frame, uint8_t out[static FRAME_HEADER_BYTES])
{
    put_le(out, frame->length, 4);
    out[4] = frame->stream;
    out[5] = frame->flags;
    put_le(out + 6, FRAME_MAGIC, 2);
    put_le(out + 8, frame->time_ns, 8);
}

bool frame_decode(const uint8_t in[static FRAME_HEADER_BYTES], struct frame *frame)
{
    frame->length = (uint32_t)get_le(in, 4);
    frame->stream = in[4];
    frame->flags = in[5];
    frame->time_ns = get_le(in + 8, 8);
    return get_le(in + 6, 2) == FRAME_MAGIC && frame->length <= FRAME_PAYLOAD_MAX && frame->stream >= FRAME_STDOUT &&
           frame->stream <= FRAME_SYSTEM;
}

size_t frame_scan(const uint8_t *bytes, size_t length, bool *damaged)
{
    size_t at = 0;
    *damaged = false;
    while (length - at >= FRAME_HEADER_BYTES) {
        struct frame frame;
        if (!frame_decode(bytes + at, &frame)) {
            *damaged = true;
            return at;
        }
        if (length - at - FRAME_HEADER_BYTES < frame.length)
            return at;
        at += FRAME_HEADER_BYTES + frame.length;
    }
    return at;
}

/* Follows the chain of headers from `at`; returns where it stops. One pread a frame. */
static int64_t follow_chain(int fd, int64_t at, int64_t size)
{
    while (size - at >= FRAME_HEADER_BYTES) {
        uint8_t header[FRAME_HEADER_BYTES];
        ssize_t got = pread(fd, header, sizeof header, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        struct frame frame;
        if (got < FRAME_HEADER_BYTES || !frame_decode(header, &frame) ||
            size - at - FRAME_HEADER_BYTES < (int64_t)frame.length)
            return at;
        at += FRAME_HEADER_BYTES + (int64_t)frame.length;
    }
    return at;
}

int64_t frame_end_of_file(int fd, int64_t size)
{
    /*
     * The usual case is a file that ends with a whole frame: a header in its last part from which the chain reaches the
     * end exactly. A payload that imitates headers can only make this find an end that is the true one.
     */
    uint8_t tail[4096];
    int64_t start = size > (int64_t)sizeof tail ? size - (int64_t)sizeof tail : 0;
    ssize_t got = pread(fd, tail, (size_t)(size - start), start);
    if (got < 0)
        return -1;
    for (ssize_t i = 0; i + FRAME_HEADER_BYTES <= got; i++) {
        struct frame frame;
        if (!frame_decode(tail + i, &frame))
            continue;
        int64_t end = follow_chain(fd, start + i, size);
        if (end < 0)
            return -1;
        if (end == size)
            return size;
    }
    return follow_chain(fd, 0, size);
}
