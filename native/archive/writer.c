/* Writes tar streams (tar.h): ustar where it fits, a pax header before what does not. */
#include "archive/tar.h"

#include "common/fd.h"

#include <string.h>

void tar_writer_init(struct tar_writer *writer, int fd)
{
    writer->fd = fd;
    writer->used = 0;
}

static int flush(struct tar_writer *writer, struct error *error)
{
    size_t used = writer->used;
    writer->used = 0;
    return write_all(writer->fd, writer->buffer, used, "the archive", error);
}

int tar_write_data(struct tar_writer *writer, const void *data, size_t length, struct error *error)
{
    const uint8_t *bytes = data;
    while (length > 0) {
        if (writer->used == sizeof writer->buffer && flush(writer, error) < 0)
            return -1;
        size_t room = sizeof writer->buffer - writer->used;
        size_t piece = length < room ? length : room;
        memcpy(writer->buffer + writer->used, bytes, piece);
        writer->used += piece;
        bytes += piece;
        length -= piece;
    }
    return 0;
}

int tar_write_padding(struct tar_writer *writer, uint64_t size, struct error *error)
{
    static const uint8_t zeros[TAR_BLOCK];
    return tar_write_data(writer, zeros, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK, error);
}

int tar_write_end(struct tar_writer *writer, struct error *error)
{
    static const uint8_t zeros[TAR_BLOCK * 2];
    if (tar_write_data(writer, zeros, sizeof zeros, error) < 0)
        return -1;
    return flush(writer, error);
}

/* Octal with a terminating NUL; what does not fit goes into the pax header, and here stands 0. */
static bool put_octal(uint8_t *field, size_t length, uint64_t value)
{
    size_t digits = length - 1;
    bool fits = digits * 3 >= 64 || value >> (digits * 3) == 0;
    if (!fits)
        value = 0;
    field[digits] = '\0';
    for (size_t i = digits; i > 0; i--) {
        field[i - 1] = (uint8_t)('0' + (value & 7));
        value >>= 3;
    }
    return fits;
}

struct pax {
    char *text;
    size_t used;
    size_t room;
    bool failed;
};

static void add_pax(struct pax *pax, const char *key, const void *value, size_t length)
{
    size_t body = strlen(key) + length + 3; /* space, equals sign, line end */
    size_t total = body;
    char digits[24];
    for (;;) { /* the length counts its own digits */
        size_t next = body + (size_t)snprintf(digits, sizeof digits, "%zu", total);
        if (next == total)
            break;
        total = next;
    }
    if (pax->failed || total > TAR_PAX_MAX - pax->used) {
        pax->failed = true;
        return;
    }
    if (pax->text == NULL || pax->used + total > pax->room) {
        size_t room = (pax->used + total) * 2;
        char *grown = realloc(pax->text, room);
        if (grown == NULL) {
            pax->failed = true;
            return;
        }
        pax->text = grown;
        pax->room = room;
    }
    char *at = pax->text + pax->used;
    at += sprintf(at, "%zu %s=", total, key);
    memcpy(at, value, length);
    at[length] = '\n';
    pax->used += total;
}

static void add_pax_number(struct pax *pax, const char *key, uint64_t value)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    add_pax(pax, key, text, (size_t)length);
}

static bool is_ascii(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

/* Splits a path over the fields prefix and name at a slash (tar(5)); false when no slash fits. */
static bool put_path(uint8_t *block, const char *path)
{
    size_t length = strlen(path);
    if (length <= 100) {
        memcpy(block, path, length);
        return true;
    }
    for (size_t cut = length - 1; cut > 0; cut--) {
        if (path[cut] != '/' || cut > 155 || length - cut - 1 > 100 || length - cut - 1 == 0)
            continue;
        memcpy(block + 345, path, cut);
        memcpy(block, path + cut + 1, length - cut - 1);
        return true;
    }
    return false;
}

static const char typeflags[] = {
    [TAR_FILE] = '0', [TAR_HARDLINK] = '1', [TAR_SYMLINK] = '2', [TAR_CHAR] = '3',
    [TAR_BLOCKDEV] = '4', [TAR_DIRECTORY] = '5', [TAR_FIFO] = '6',
};

static void finish_block(uint8_t *block, char typeflag)
{
    block[156] = (uint8_t)typeflag;
    memcpy(block + 257, "ustar\00000", 8);
    memset(block + 148, ' ', 8);
    uint64_t sum = 0;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += block[i];
    put_octal(block + 148, 7, sum);
}

int tar_write_header(struct tar_writer *writer, const struct tar_entry *entry, struct error *error)
{
    uint8_t block[TAR_BLOCK] = {0};
    struct pax pax = {0};
    if (!put_path(block, entry->path) || !is_ascii(entry->path))
        add_pax(&pax, "path", entry->path, strlen(entry->path));
    const char *link = entry->link == NULL ? "" : entry->link;
    size_t link_length = strlen(link);
    memcpy(block + 157, link, link_length < 100 ? link_length : 100);
    if (link_length > 100 || !is_ascii(link))
        add_pax(&pax, "linkpath", link, link_length);
    put_octal(block + 100, 8, entry->mode & 07777);
    if (!put_octal(block + 108, 8, entry->uid))
        add_pax_number(&pax, "uid", entry->uid);
    if (!put_octal(block + 116, 8, entry->gid))
        add_pax_number(&pax, "gid", entry->gid);
    uint64_t size = entry->type == TAR_FILE ? entry->size : 0;
    if (!put_octal(block + 124, 12, size))
        add_pax_number(&pax, "size", size);
    put_octal(block + 136, 12, entry->mtime_seconds < 0 ? 0 : (uint64_t)entry->mtime_seconds);
    if (entry->mtime_nanos != 0 && entry->mtime_seconds >= 0) {
        char text[40];
        int length = snprintf(text, sizeof text, "%lld.%09u", (long long)entry->mtime_seconds, entry->mtime_nanos);
        add_pax(&pax, "mtime", text, (size_t)length);
    }
    put_octal(block + 329, 8, entry->device_major);
    put_octal(block + 337, 8, entry->device_minor);
    for (size_t i = 0; i < entry->xattrs_count; i++) {
        char key[300];
        snprintf(key, sizeof key, "SCHILY.xattr.%s", entry->xattrs[i].name);
        add_pax(&pax, key, entry->xattrs[i].value, entry->xattrs[i].length);
    }
    cleanup_free char *text = pax.text;
    if (pax.failed)
        return fail(error, ENOMEM, "TAR_MEMORY: build an extended header");
    if (pax.used > 0) {
        uint8_t before[TAR_BLOCK] = {0};
        memcpy(before, "PaxHeaders/entry", 16);
        put_octal(before + 100, 8, 0644);
        put_octal(before + 108, 8, 0);
        put_octal(before + 116, 8, 0);
        put_octal(before + 124, 12, pax.used);
        put_octal(before + 136, 12, 0);
        finish_block(before, 'x');
        if (tar_write_data(writer, before, sizeof before, error) < 0 ||
            tar_write_data(writer, text, pax.used, error) < 0 || tar_write_padding(writer, pax.used, error) < 0)
            return -1;
    }
    finish_block(block, typeflags[entry->type]);
    return tar_write_data(writer, block, sizeof block, error);
}
