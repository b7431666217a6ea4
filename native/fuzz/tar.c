/* Fuzz target: the tar reader, on any bytes. Every entry's data is read, some by tar_read() and some by skipping. */
#include "archive/reader.c"

struct span {
    const uint8_t *bytes;
    size_t length;
};

static ssize_t read_span(void *context, void *buffer, size_t length)
{
    struct span *span = context;
    size_t piece = length < span->length ? length : span->length;
    memcpy(buffer, span->bytes, piece);
    span->bytes += piece;
    span->length -= piece;
    return (ssize_t)piece;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span span = {data, size};
    static struct tar_reader reader;
    struct error error = {0};
    tar_reader_init(&reader, (struct tar_source){read_span, &span}, 16 * 1024 * 1024);
    for (int entries = 0; entries < 1000 && tar_next(&reader, &error) == TAR_OK; entries++) {
        uint8_t buffer[4096];
        const struct tar_entry *entry = &reader.entry;
        if (entry->path == NULL || entry->path[0] == '\0' || strlen(entry->path) > TAR_PATH_MAX ||
            strlen(entry->link) > TAR_PATH_MAX || entry->xattrs_count > TAR_XATTRS_MAX)
            __builtin_trap();
        for (size_t i = 0; i < entry->extents_count; i++)
            if (entry->extents[i].offset + entry->extents[i].length > entry->size)
                __builtin_trap();
        if (entries % 2 == 0)
            while (tar_read(&reader, buffer, sizeof buffer, &error) > 0)
                continue;
    }
    tar_reader_release(&reader);
    return 0;
}
