/*
 * The protocol between the agent and a monitor. A monitor outlives the agent that started it, so the protocol only grows:
 * a number is never given a second meaning, a field is only added at the end, and a reader ignores what follows the fields
 * it knows.
 *
 * A message is   u8 type | u8 zero | u16 tag | fields.   The answer carries the tag of its request. Integers are
 * little-endian; a string is u16 length and bytes. On the SOCK_SEQPACKET socket `ctl` a packet is a message; on the
 * SOCK_STREAM socket `stream` (for programs that cannot speak SEQPACKET, such as Node.js) each is preceded by u32 length.
 */
#ifndef MONITOR_CTL_H
#define MONITOR_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CTL_PROTOCOL = 1,
    CTL_HEADER_BYTES = 4,
    CTL_MESSAGE_MAX = 64 * 1024,
    CTL_ID_MAX = 64,
};

enum ctl_type {
    CTL_HELLO = 1,        /* -                                                            -> HELLO_OK */
    CTL_START = 2,        /* -                                                            -> OK */
    CTL_KILL = 3,         /* u32 signal, u8 all                                           -> OK */
    CTL_RESIZE = 4,       /* u16 rows, u16 columns                                        -> OK */
    CTL_ATTACH = 5,       /* u64 offset (CTL_FROM_NOW: from here on), u8 flags            -> ATTACHED, DATA..., END */
    CTL_EXEC = 6,         /* string id, u8 flags, u16 rows, u16 columns, u32 n, process   -> EXEC_OK, EXEC_DATA..., EXEC_EXIT */
    CTL_EXEC_RESIZE = 7,  /* string id, u16 rows, u16 columns                             -> OK */
    CTL_STATS = 8,        /* -                                                            -> TEXT (JSON) */
    CTL_OOM_STATE = 9,    /* -                                                            -> OOM */
    CTL_WAIT = 10,        /* -                                                            -> OOM when it happens, EXIT */
    CTL_DETACH = 11,      /* -                                                            -> END */
    CTL_STDIN = 12,       /* bytes, for the stream that this connection is attached to; no answer */
    CTL_CLOSE_STDIN = 13, /* -                                                            no answer */
    CTL_EXEC_KILL = 14,   /* string id, u32 signal                                        -> OK */

    CTL_OK = 128,
    CTL_ERROR = 129,     /* u32 errno, string text */
    CTL_HELLO_OK = 130,  /* u32 protocol, u32 pid, u64 start time, string boot id, u8 state, u64 log offset, u64 log inode */
    CTL_ATTACHED = 131,  /* u64 offset of the first byte that follows */
    CTL_DATA = 132,      /* bytes: whole or cut log frames, in order */
    CTL_END = 133,       /* string reason */
    CTL_EXEC_OK = 134,   /* u32 pid; with CTL_EXEC_FDS also descriptors: tty, or stdin (if asked), stdout, stderr */
    CTL_EXEC_DATA = 135, /* u8 stream (FRAME_STDOUT or FRAME_STDERR), bytes */
    CTL_EXEC_EXIT = 136, /* u32 code, u32 signal */
    CTL_TEXT = 137,      /* string */
    CTL_OOM = 138,       /* u64 count of processes killed */
    CTL_EXIT = 139,      /* u32 code, u32 signal, u8 OOM killed */
};

enum { CTL_ATTACH_STDIN = 1, CTL_ATTACH_OUTPUT = 2 };
enum { CTL_EXEC_TTY = 1, CTL_EXEC_STDIN = 2, CTL_EXEC_RELAY = 4, CTL_EXEC_FDS = 8 };
enum ctl_state { CTL_STATE_CREATED = 1, CTL_STATE_RUNNING = 2, CTL_STATE_EXITED = 3 };

#define CTL_FROM_NOW UINT64_MAX

/* A decoded request. Pointers lead into the bytes that were decoded. */
struct ctl_request {
    uint8_t type;
    uint16_t tag;
    char id[CTL_ID_MAX + 1];
    uint32_t signal;
    bool all;
    uint8_t flags;
    uint16_t rows;
    uint16_t columns;
    uint64_t offset;
    const uint8_t *bytes;
    size_t bytes_length;
};

/* Returns 0, or -1 with *why when the bytes are no request of this protocol. An unknown type decodes, with no fields. */
int ctl_decode(const uint8_t *bytes, size_t length, struct ctl_request *request, const char **why);

/* Encodes a request as a client does; the inverse of ctl_decode. Returns its length, or 0 if it does not fit. */
size_t ctl_encode_request(const struct ctl_request *request, uint8_t *out, size_t size);

/* Builds an answer in a buffer; what does not fit sets `overflow`, which the sender treats as a bug. */
struct ctl_writer {
    uint8_t *out;
    size_t size;
    size_t length;
    bool overflow;
};

void ctl_begin(struct ctl_writer *writer, uint8_t *out, size_t size, uint8_t type, uint16_t tag);
void ctl_put(struct ctl_writer *writer, uint64_t value, size_t bytes);
void ctl_put_bytes(struct ctl_writer *writer, const void *bytes, size_t length);
void ctl_put_string(struct ctl_writer *writer, const char *text);

#endif
