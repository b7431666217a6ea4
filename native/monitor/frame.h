/*
 * Log frames: what a framed log file is made of, and what an attach connection carries.
 *
 *   u32 length | u8 stream | u8 flags | u16 magic | u64 time | payload          (all little-endian, 16 bytes of header)
 *
 * A frame is a chunk as it was read from the container, not a line: splitting lines is the reader's work. The magic and the
 * bound on the length let a reader find a frame that a crash tore.
 */
#ifndef MONITOR_FRAME_H
#define MONITOR_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEADER_BYTES = 16,
    FRAME_MAGIC = 0x5ce9,
    /* The monitor writes at most 64 KiB a frame; readers refuse more than 1 MiB as a sign of damage. */
    FRAME_PAYLOAD_MAX = 1 << 20,
};

enum frame_stream {
    FRAME_STDOUT = 1,
    FRAME_STDERR = 2,
    /* The monitor's own remarks, as JSON: bytes lost, for example. */
    FRAME_SYSTEM = 3,
};

enum {
    /* The chunk does not end with a newline. */
    FRAME_PARTIAL = 1,
};

struct frame {
    uint32_t length;
    uint8_t stream;
    uint8_t flags;
    uint64_t time_ns;
};

void frame_encode(const struct frame *frame, uint8_t out[static FRAME_HEADER_BYTES]);

/* Whether the header is one that this program could have written. */
bool frame_decode(const uint8_t in[static FRAME_HEADER_BYTES], struct frame *frame);

/*
 * Length of the longest prefix of the bytes that is made of whole frames.
 * *damaged tells whether what follows is no frame at all (as against one that is merely not complete).
 */
size_t frame_scan(const uint8_t *bytes, size_t length, bool *damaged);

/*
 * Offset after the last whole frame of an open log file, looked for from its end so that a large file costs little.
 * Returns -1 with errno when the file cannot be read.
 */
int64_t frame_end_of_file(int fd, int64_t size);

#endif
