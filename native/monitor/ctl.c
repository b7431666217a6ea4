#include "monitor/ctl.h"

#include <string.h>

struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static uint64_t get(struct reader *reader, size_t bytes)
{
    if (reader->left < bytes) {
        reader->bad = true;
        reader->left = 0;
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += bytes;
    reader->left -= bytes;
    return value;
}

/* Ids become file names, so they are checked here, at the border: letters, digits, `_`, `-`; never a dot. */
static void get_id(struct reader *reader, char id[static CTL_ID_MAX + 1])
{
    size_t length = (size_t)get(reader, 2);
    if (reader->bad || length == 0 || length > CTL_ID_MAX || length > reader->left) {
        reader->bad = true;
        return;
    }
    for (size_t i = 0; i < length; i++) {
        uint8_t c = reader->at[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!fine) {
            reader->bad = true;
            return;
        }
        id[i] = (char)c;
    }
    id[length] = '\0';
    reader->at += length;
    reader->left -= length;
}

int ctl_decode(const uint8_t *bytes, size_t length, struct ctl_request *request, const char **why)
{
    memset(request, 0, sizeof *request);
    if (length < CTL_HEADER_BYTES || length > CTL_MESSAGE_MAX) {
        *why = "the message is shorter than its header or longer than 64 KiB";
        return -1;
    }
    struct reader reader = {.at = bytes, .left = length};
    request->type = (uint8_t)get(&reader, 1);
    (void)get(&reader, 1);
    request->tag = (uint16_t)get(&reader, 2);
    switch (request->type) {
    case CTL_KILL:
        request->signal = (uint32_t)get(&reader, 4);
        request->all = get(&reader, 1) != 0;
        break;
    case CTL_RESIZE:
        request->rows = (uint16_t)get(&reader, 2);
        request->columns = (uint16_t)get(&reader, 2);
        break;
    case CTL_ATTACH:
        request->offset = get(&reader, 8);
        request->flags = (uint8_t)get(&reader, 1);
        break;
    case CTL_EXEC: {
        get_id(&reader, request->id);
        request->flags = (uint8_t)get(&reader, 1);
        request->rows = (uint16_t)get(&reader, 2);
        request->columns = (uint16_t)get(&reader, 2);
        size_t document = (size_t)get(&reader, 4);
        if (reader.bad || document > reader.left) {
            reader.bad = true;
            break;
        }
        request->bytes = reader.at;
        request->bytes_length = document;
        break;
    }
    case CTL_EXEC_RESIZE:
        get_id(&reader, request->id);
        request->rows = (uint16_t)get(&reader, 2);
        request->columns = (uint16_t)get(&reader, 2);
        break;
    case CTL_EXEC_KILL:
        get_id(&reader, request->id);
        request->signal = (uint32_t)get(&reader, 4);
        break;
    case CTL_STDIN:
        request->bytes = reader.at;
        request->bytes_length = reader.left;
        break;
    default:
        break;
    }
    if (reader.bad) {
        *why = "a field is missing or out of its range";
        return -1;
    }
    return 0;
}

void ctl_begin(struct ctl_writer *writer, uint8_t *out, size_t size, uint8_t type, uint16_t tag)
{
    *writer = (struct ctl_writer){.out = out, .size = size};
    ctl_put(writer, type, 1);
    ctl_put(writer, 0, 1);
    ctl_put(writer, tag, 2);
}

void ctl_put(struct ctl_writer *writer, uint64_t value, size_t bytes)
{
    if (writer->size - writer->length < bytes) {
        writer->overflow = true;
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        writer->out[writer->length++] = (uint8_t)(value >> (8 * i));
}

void ctl_put_bytes(struct ctl_writer *writer, const void *bytes, size_t length)
{
    if (writer->size - writer->length < length) {
        writer->overflow = true;
        return;
    }
    if (length > 0)
        memcpy(writer->out + writer->length, bytes, length);
    writer->length += length;
}

void ctl_put_string(struct ctl_writer *writer, const char *text)
{
    size_t length = strlen(text);
    if (length > UINT16_MAX)
        length = UINT16_MAX;
    ctl_put(writer, length, 2);
    ctl_put_bytes(writer, text, length);
}

size_t ctl_encode_request(const struct ctl_request *request, uint8_t *out, size_t size)
{
    struct ctl_writer writer;
    ctl_begin(&writer, out, size, request->type, request->tag);
    switch (request->type) {
    case CTL_KILL:
        ctl_put(&writer, request->signal, 4);
        ctl_put(&writer, request->all ? 1 : 0, 1);
        break;
    case CTL_RESIZE:
        ctl_put(&writer, request->rows, 2);
        ctl_put(&writer, request->columns, 2);
        break;
    case CTL_ATTACH:
        ctl_put(&writer, request->offset, 8);
        ctl_put(&writer, request->flags, 1);
        break;
    case CTL_EXEC:
        ctl_put_string(&writer, request->id);
        ctl_put(&writer, request->flags, 1);
        ctl_put(&writer, request->rows, 2);
        ctl_put(&writer, request->columns, 2);
        ctl_put(&writer, request->bytes_length, 4);
        ctl_put_bytes(&writer, request->bytes, request->bytes_length);
        break;
    case CTL_EXEC_RESIZE:
        ctl_put_string(&writer, request->id);
        ctl_put(&writer, request->rows, 2);
        ctl_put(&writer, request->columns, 2);
        break;
    case CTL_EXEC_KILL:
        ctl_put_string(&writer, request->id);
        ctl_put(&writer, request->signal, 4);
        break;
    case CTL_STDIN:
        ctl_put_bytes(&writer, request->bytes, request->bytes_length);
        break;
    default:
        break;
    }
    return writer.overflow ? 0 : writer.length;
}
