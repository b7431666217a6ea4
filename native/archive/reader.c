/* Reads tar streams (tar.h). Nothing here touches a file system. */
#include "archive/tar.h"

#include <stdlib.h>
#include <string.h>

#include "common/fd.h"

/* tar(5), "POSIX ustar Archives" and "GNU tar Archives". */
struct header {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char typeflag;
    char linkname[100];
    char magic[6];
    char version[2];
    char uname[32];
    char gname[32];
    char devmajor[8];
    char devminor[8];
    char prefix[155];
    char rest[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a tar header is one block");

/* Fields of an old GNU sparse header, from offset 345 on. */
enum { GNU_SPARSE_AT = 386, GNU_SPARSE_SLOTS = 4, GNU_SPARSE_MORE_AT = 482, GNU_REAL_SIZE_AT = 483 };
enum { GNU_SPARSE_NEXT_SLOTS = 21, GNU_SPARSE_NEXT_MORE_AT = 504, GNU_SPARSE_SLOT = 24 };

/* What pax and GNU headers before an entry said of it. */
struct overrides {
    char *path;
    char *link;
    bool size_set, uid_set, gid_set, mtime_set;
    uint64_t size, uid, gid;
    int64_t mtime_seconds;
    uint32_t mtime_nanos;
    bool sparse_set; /* a GNU.sparse.* key was seen */
    int sparse_major; /* 1.0 keeps the map in front of the data; 0.0 and 0.1 keep it here */
    bool real_size_set;
    uint64_t real_size;
    char *sparse_name;
    size_t extents_count;
    struct tar_extent *extents;
    bool offset_pending;
    uint64_t pending_offset;
    size_t xattrs_count;
    struct tar_xattr xattrs[TAR_XATTRS_MAX];
};

static void release_xattrs(struct tar_xattr *xattrs, size_t *count)
{
    for (size_t i = 0; i < *count; i++) {
        free(xattrs[i].name);
        free(xattrs[i].value);
    }
    *count = 0;
}

static void release_overrides(struct overrides *overrides)
{
    free(overrides->path);
    free(overrides->link);
    free(overrides->sparse_name);
    free(overrides->extents);
    release_xattrs(overrides->xattrs, &overrides->xattrs_count);
    memset(overrides, 0, sizeof *overrides);
}

static void release_entry(struct tar_entry *entry)
{
    free(entry->path);
    free(entry->link);
    free(entry->extents);
    release_xattrs(entry->xattrs, &entry->xattrs_count);
    memset(entry, 0, sizeof *entry);
}

void tar_reader_init(struct tar_reader *reader, struct tar_source source, uint64_t bytes_max)
{
    memset(reader, 0, sizeof *reader);
    reader->source = source;
    reader->consumed_max = bytes_max;
}

void tar_reader_release(struct tar_reader *reader)
{
    release_entry(&reader->entry);
}

/* Reads until `length` bytes are there or the stream ends; returns the count. */
static ssize_t read_up_to(struct tar_reader *reader, void *buffer, size_t length, struct error *error)
{
    size_t got = 0;
    while (got < length) {
        if (reader->consumed >= reader->consumed_max)
            return fail(error, 0, "TAR_TOO_LARGE: the archive has more than %llu bytes",
                        (unsigned long long)reader->consumed_max);
        size_t want = length - got;
        if (want > reader->consumed_max - reader->consumed)
            want = (size_t)(reader->consumed_max - reader->consumed);
        ssize_t count = reader->source.read(reader->source.context, (uint8_t *)buffer + got, want);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail(error, errno, "TAR_READ: read the archive");
        if (count == 0)
            break;
        got += (size_t)count;
        reader->consumed += (uint64_t)count;
    }
    return (ssize_t)got;
}

static int read_exactly(struct tar_reader *reader, void *buffer, size_t length, struct error *error)
{
    ssize_t got = read_up_to(reader, buffer, length, error);
    if (got < 0)
        return -1;
    if ((size_t)got != length)
        return fail(error, 0, "TAR_TRUNCATED: the archive ends inside an entry, after %llu bytes",
                    (unsigned long long)reader->consumed);
    return 0;
}

static int skip(struct tar_reader *reader, uint64_t length, struct error *error)
{
    uint8_t buffer[16 * 1024];
    while (length > 0) {
        size_t piece = length < sizeof buffer ? (size_t)length : sizeof buffer;
        if (read_exactly(reader, buffer, piece, error) < 0)
            return -1;
        length -= piece;
    }
    return 0;
}

static uint64_t padding_of(uint64_t size)
{
    return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

/* Octal text, or base-256 when the first byte has its high bit set (GNU). Negative numbers are refused but for times. */
static int parse_number(const char *field, size_t length, bool may_be_negative, int64_t *out, const char *what,
                        struct error *error)
{
    const uint8_t *bytes = (const uint8_t *)field;
    if (bytes[0] & 0x80) {
        bool negative = (bytes[0] & 0x40) != 0;
        if (negative && !may_be_negative)
            return fail(error, 0, "TAR_MALFORMED: negative %s", what);
        uint64_t value = negative ? UINT64_MAX : 0;
        for (size_t i = 0; i < length; i++) {
            uint8_t byte = i == 0 ? (uint8_t)((bytes[0] & 0x3f) | (negative ? 0xc0 : 0)) : bytes[i];
            uint64_t top = value >> 55;
            if (negative ? top != 0x1ff : top != 0)
                return fail(error, 0, "TAR_MALFORMED: %s does not fit 63 bits", what);
            value = (value << 8) | byte;
        }
        *out = (int64_t)value;
        return 0;
    }
    size_t i = 0;
    while (i < length && (field[i] == ' '))
        i++;
    uint64_t value = 0;
    for (; i < length && field[i] >= '0' && field[i] <= '7'; i++) {
        if (value >> 60)
            return fail(error, 0, "TAR_MALFORMED: %s does not fit 63 bits", what);
        value = value * 8 + (uint64_t)(field[i] - '0');
    }
    if (i < length && field[i] != ' ' && field[i] != '\0')
        return fail(error, 0, "TAR_MALFORMED: %s is not an octal number", what);
    *out = (int64_t)value;
    return 0;
}

static int parse_unsigned(const char *field, size_t length, uint64_t *out, const char *what, struct error *error)
{
    int64_t value = 0;
    if (parse_number(field, length, false, &value, what, error) < 0)
        return -1;
    *out = (uint64_t)value;
    return 0;
}

static bool checksum_matches(const struct header *header)
{
    const uint8_t *bytes = (const uint8_t *)header;
    uint64_t sum = 0;
    int64_t signed_sum = 0; /* some old writers added signed characters */
    for (size_t i = 0; i < TAR_BLOCK; i++) {
        bool inside = i >= offsetof(struct header, checksum) && i < offsetof(struct header, typeflag);
        sum += inside ? ' ' : bytes[i];
        signed_sum += inside ? ' ' : (int8_t)bytes[i];
    }
    struct error ignored; /* a checksum that is no number does not match */
    int64_t told = 0;
    if (parse_number(header->checksum, sizeof header->checksum, false, &told, "checksum", &ignored) < 0)
        return false;
    return (uint64_t)told == sum || told == signed_sum;
}

static bool is_zero_block(const void *block)
{
    static const uint8_t zeros[TAR_BLOCK];
    return memcmp(block, zeros, TAR_BLOCK) == 0;
}

static char *copy_field(const char *field, size_t length)
{
    return strndup(field, length);
}

/* A name is bytes without NUL, not empty and of bounded length. Takes ownership of `value`. */
static int take_name(char **slot, char *value, size_t length, const char *what, struct error *error)
{
    if (value == NULL)
        return fail(error, ENOMEM, "TAR_MEMORY: keep the %s", what);
    if (length > TAR_PATH_MAX) {
        free(value);
        return fail(error, 0, "TAR_MALFORMED: %s of %zu bytes", what, length);
    }
    if (strlen(value) != length) {
        free(value);
        return fail(error, 0, "TAR_MALFORMED: %s holds a NUL byte", what);
    }
    free(*slot);
    *slot = value;
    return 0;
}

/* The body of a header that describes the next entry (pax, GNU long names), NUL-terminated. */
static int read_body(struct tar_reader *reader, uint64_t size, char **out, struct error *error)
{
    if (size > TAR_PAX_MAX)
        return fail(error, 0, "TAR_MALFORMED: extended header of %llu bytes, at most %d are read",
                    (unsigned long long)size, TAR_PAX_MAX);
    cleanup_free char *body = malloc((size_t)size + 1);
    if (body == NULL)
        return fail(error, ENOMEM, "TAR_MEMORY: read an extended header");
    if (read_exactly(reader, body, (size_t)size, error) < 0 || skip(reader, padding_of(size), error) < 0)
        return -1;
    body[size] = '\0';
    *out = body;
    body = NULL;
    return 0;
}

static int parse_decimal(const char *text, size_t length, uint64_t *out, const char *what, struct error *error)
{
    uint64_t value = 0;
    if (length == 0 || length > 19)
        return fail(error, 0, "TAR_MALFORMED: %s is not a number", what);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return fail(error, 0, "TAR_MALFORMED: %s is not a number", what);
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (value > INT64_MAX)
        return fail(error, 0, "TAR_MALFORMED: %s does not fit 63 bits", what);
    *out = value;
    return 0;
}

/* pax mtime: seconds with an optional sign and fraction. */
static int parse_pax_time(const char *text, size_t length, struct overrides *overrides, struct error *error)
{
    bool negative = length > 0 && text[0] == '-';
    const char *digits = negative ? text + 1 : text;
    size_t left = negative ? length - 1 : length;
    const char *dot = memchr(digits, '.', left);
    size_t whole = dot == NULL ? left : (size_t)(dot - digits);
    uint64_t seconds = 0;
    if (parse_decimal(digits, whole, &seconds, "mtime", error) < 0)
        return -1;
    uint32_t nanos = 0;
    uint32_t unit = 100000000;
    for (size_t i = whole + 1; i < left; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return fail(error, 0, "TAR_MALFORMED: mtime is not a number");
        nanos += (uint32_t)(digits[i] - '0') * unit;
        unit /= 10;
    }
    overrides->mtime_set = true;
    overrides->mtime_seconds = negative ? -(int64_t)seconds - (nanos > 0 ? 1 : 0) : (int64_t)seconds;
    overrides->mtime_nanos = negative && nanos > 0 ? 1000000000 - nanos : nanos;
    return 0;
}

static int add_extent(struct tar_extent **extents, size_t *count, uint64_t offset, uint64_t length, struct error *error)
{
    if (*count >= TAR_SPARSE_MAX)
        return fail(error, 0, "TAR_MALFORMED: sparse file of more than %d pieces", TAR_SPARSE_MAX);
    if ((*count & (*count - 1)) == 0) { /* grow at powers of two */
        size_t room = *count == 0 ? 1 : *count * 2;
        struct tar_extent *grown = reallocarray(*extents, room, sizeof **extents);
        if (grown == NULL)
            return fail(error, ENOMEM, "TAR_MEMORY: keep a sparse map");
        *extents = grown;
    }
    (*extents)[(*count)++] = (struct tar_extent){.offset = offset, .length = length};
    return 0;
}

static int parse_sparse_map(const char *text, size_t length, struct overrides *overrides, struct error *error)
{
    const char *end = text + length;
    uint64_t offset = 0;
    bool have_offset = false;
    while (text < end) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma == NULL ? end : comma;
        uint64_t value = 0;
        if (parse_decimal(text, (size_t)(stop - text), &value, "sparse map", error) < 0)
            return -1;
        if (have_offset && add_extent(&overrides->extents, &overrides->extents_count, offset, value, error) < 0)
            return -1;
        offset = value;
        have_offset = !have_offset;
        text = comma == NULL ? end : comma + 1;
    }
    return have_offset ? fail(error, 0, "TAR_MALFORMED: sparse map of an odd count") : 0;
}

static int add_xattr(struct overrides *overrides, const char *name, size_t name_length, const char *value,
                     size_t length, struct error *error)
{
    if (overrides->xattrs_count >= TAR_XATTRS_MAX)
        return fail(error, 0, "TAR_MALFORMED: more than %d extended attributes", TAR_XATTRS_MAX);
    if (name_length == 0 || name_length > 255 || length > 64 * 1024 || memchr(name, '\0', name_length) != NULL)
        return fail(error, 0, "TAR_MALFORMED: extended attribute out of bounds");
    struct tar_xattr xattr = {.name = strndup(name, name_length), .value = malloc(length + 1), .length = length};
    if (xattr.name == NULL || xattr.value == NULL) {
        free(xattr.name);
        free(xattr.value);
        return fail(error, ENOMEM, "TAR_MEMORY: keep an extended attribute");
    }
    memcpy(xattr.value, value, length);
    for (size_t i = 0; i < overrides->xattrs_count; i++) {
        if (strcmp(overrides->xattrs[i].name, xattr.name) == 0) { /* the later record wins (pax) */
            free(overrides->xattrs[i].name);
            free(overrides->xattrs[i].value);
            overrides->xattrs[i] = xattr;
            return 0;
        }
    }
    overrides->xattrs[overrides->xattrs_count++] = xattr;
    return 0;
}

static bool key_is(const char *key, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(key, name, length) == 0;
}

static int apply_pax_record(struct overrides *overrides, const char *key, size_t key_length, const char *value,
                            size_t length, struct error *error)
{
    static const char xattr_prefix[] = "SCHILY.xattr.";
    size_t prefix = sizeof xattr_prefix - 1;
    uint64_t number = 0;
    if (key_is(key, key_length, "path"))
        return length == 0 ? 0 : take_name(&overrides->path, strndup(value, length), length, "path", error);
    if (key_is(key, key_length, "linkpath"))
        return length == 0 ? 0 : take_name(&overrides->link, strndup(value, length), length, "link path", error);
    if (key_is(key, key_length, "size")) {
        overrides->size_set = true;
        return parse_decimal(value, length, &overrides->size, "size", error);
    }
    if (key_is(key, key_length, "uid")) {
        overrides->uid_set = true;
        return parse_decimal(value, length, &overrides->uid, "uid", error);
    }
    if (key_is(key, key_length, "gid")) {
        overrides->gid_set = true;
        return parse_decimal(value, length, &overrides->gid, "gid", error);
    }
    if (key_is(key, key_length, "mtime"))
        return parse_pax_time(value, length, overrides, error);
    if (key_length > prefix && memcmp(key, xattr_prefix, prefix) == 0)
        return add_xattr(overrides, key + prefix, key_length - prefix, value, length, error);
    if (key_is(key, key_length, "GNU.sparse.major")) {
        overrides->sparse_set = true;
        if (parse_decimal(value, length, &number, "sparse version", error) < 0)
            return -1;
        overrides->sparse_major = number > 1 ? 2 : (int)number;
        return 0;
    }
    if (key_is(key, key_length, "GNU.sparse.name"))
        return take_name(&overrides->sparse_name, strndup(value, length), length, "path", error);
    if (key_is(key, key_length, "GNU.sparse.realsize") || key_is(key, key_length, "GNU.sparse.size")) {
        overrides->sparse_set = true;
        overrides->real_size_set = true;
        return parse_decimal(value, length, &overrides->real_size, "sparse size", error);
    }
    if (key_is(key, key_length, "GNU.sparse.map"))
        return parse_sparse_map(value, length, overrides, error);
    if (key_is(key, key_length, "GNU.sparse.offset")) {
        overrides->offset_pending = true;
        return parse_decimal(value, length, &overrides->pending_offset, "sparse offset", error);
    }
    if (key_is(key, key_length, "GNU.sparse.numbytes")) {
        if (parse_decimal(value, length, &number, "sparse length", error) < 0)
            return -1;
        if (!overrides->offset_pending)
            return fail(error, 0, "TAR_MALFORMED: sparse length without an offset");
        overrides->offset_pending = false;
        return add_extent(&overrides->extents, &overrides->extents_count, overrides->pending_offset, number, error);
    }
    return 0; /* atime, ctime, comments, other vendors' keys */
}

/* Records "LENGTH KEY=VALUE\n", LENGTH counting itself (POSIX.1-2017 pax, "pax Extended Header"). */
static int parse_pax(struct overrides *overrides, const char *body, size_t size, struct error *error)
{
    size_t at = 0;
    while (at < size) {
        const char *record = body + at;
        const char *space = memchr(record, ' ', size - at < 20 ? size - at : 20);
        uint64_t length = 0;
        if (space == NULL)
            return fail(error, 0, "TAR_MALFORMED: pax record without a length");
        if (parse_decimal(record, (size_t)(space - record), &length, "pax record length", error) < 0)
            return -1;
        size_t digits = (size_t)(space - record) + 1;
        if (length <= digits + 1 || length > size - at || record[length - 1] != '\n')
            return fail(error, 0, "TAR_MALFORMED: pax record does not end where it says");
        const char *key = record + digits;
        size_t rest = (size_t)length - digits - 1;
        const char *equals = memchr(key, '=', rest);
        if (equals == NULL)
            return fail(error, 0, "TAR_MALFORMED: pax record without \"=\"");
        size_t key_length = (size_t)(equals - key);
        if (apply_pax_record(overrides, key, key_length, equals + 1, rest - key_length - 1, error) < 0)
            return -1;
        at += (size_t)length;
    }
    return 0;
}

/* GNU 1.0: the map stands in front of the data as decimal lines, padded to a block. */
static int read_sparse_1_0(struct tar_reader *reader, uint64_t *stored, struct tar_entry *entry, struct error *error)
{
    uint64_t wanted = UINT64_MAX; /* count of numbers after the first line */
    uint64_t seen = 0;
    uint64_t number = 0;
    size_t digits = 0;
    uint64_t offset = 0;
    char block[TAR_BLOCK];
    for (;;) {
        if (*stored < TAR_BLOCK)
            return fail(error, 0, "TAR_MALFORMED: sparse map is longer than its file");
        if (read_exactly(reader, block, TAR_BLOCK, error) < 0)
            return -1;
        *stored -= TAR_BLOCK;
        for (size_t i = 0; i < TAR_BLOCK; i++) {
            if (block[i] != '\n') {
                if (block[i] < '0' || block[i] > '9' || ++digits > 18)
                    return fail(error, 0, "TAR_MALFORMED: sparse map is not a number");
                number = number * 10 + (uint64_t)(block[i] - '0');
                continue;
            }
            if (digits == 0)
                return fail(error, 0, "TAR_MALFORMED: empty line in a sparse map");
            if (wanted == UINT64_MAX) {
                if (number > TAR_SPARSE_MAX)
                    return fail(error, 0, "TAR_MALFORMED: sparse file of more than %d pieces", TAR_SPARSE_MAX);
                wanted = number * 2;
            } else {
                if (seen % 2 == 0)
                    offset = number;
                else if (add_extent(&entry->extents, &entry->extents_count, offset, number, error) < 0)
                    return -1;
                seen++;
            }
            number = 0;
            digits = 0;
            if (seen == wanted)
                return 0;
        }
    }
}

static int read_old_sparse(struct tar_reader *reader, const uint8_t *header, struct tar_entry *entry,
                           struct error *error)
{
    if (parse_unsigned((const char *)header + GNU_REAL_SIZE_AT, 12, &entry->size, "sparse size", error) < 0)
        return -1;
    uint8_t block[TAR_BLOCK];
    memcpy(block, header, TAR_BLOCK);
    size_t at = GNU_SPARSE_AT;
    size_t slots = GNU_SPARSE_SLOTS;
    bool more = header[GNU_SPARSE_MORE_AT] != 0;
    for (;;) {
        for (size_t slot = 0; slot < slots; slot++) {
            const char *field = (const char *)block + at + slot * GNU_SPARSE_SLOT;
            if (field[0] == '\0')
                break;
            uint64_t offset = 0;
            uint64_t length = 0;
            if (parse_unsigned(field, 12, &offset, "sparse offset", error) < 0 ||
                parse_unsigned(field + 12, 12, &length, "sparse length", error) < 0 ||
                add_extent(&entry->extents, &entry->extents_count, offset, length, error) < 0)
                return -1;
        }
        if (!more)
            return 0;
        if (read_exactly(reader, block, TAR_BLOCK, error) < 0)
            return -1;
        at = 0;
        slots = GNU_SPARSE_NEXT_SLOTS;
        more = block[GNU_SPARSE_NEXT_MORE_AT] != 0;
    }
}

/* Pieces in order, apart, inside the file, and together as long as what is stored: otherwise sizes lie. */
static int check_extents(const struct tar_entry *entry, uint64_t stored, struct error *error)
{
    uint64_t end = 0;
    uint64_t total = 0;
    for (size_t i = 0; i < entry->extents_count; i++) {
        const struct tar_extent *extent = &entry->extents[i];
        if (extent->offset < end || extent->length > INT64_MAX - extent->offset ||
            extent->offset + extent->length > entry->size)
            return fail(error, 0, "TAR_MALFORMED: pieces of a sparse file overlap or leave the file");
        end = extent->offset + extent->length;
        total += extent->length;
    }
    if (total != stored)
        return fail(error, 0, "TAR_MALFORMED: sparse file stores %llu bytes, its map says %llu",
                    (unsigned long long)stored, (unsigned long long)total);
    return 0;
}

static int fill_entry(struct tar_reader *reader, const struct header *header, struct overrides *overrides,
                      struct error *error)
{
    struct tar_entry *entry = &reader->entry;
    uint64_t mode = 0;
    uint64_t major = 0;
    uint64_t minor = 0;
    uint64_t stored = 0;
    int64_t mtime = 0;
    if (parse_unsigned(header->mode, sizeof header->mode, &mode, "mode", error) < 0 ||
        parse_unsigned(header->uid, sizeof header->uid, &entry->uid, "uid", error) < 0 ||
        parse_unsigned(header->gid, sizeof header->gid, &entry->gid, "gid", error) < 0 ||
        parse_unsigned(header->size, sizeof header->size, &stored, "size", error) < 0 ||
        parse_number(header->mtime, sizeof header->mtime, true, &mtime, "mtime", error) < 0)
        return -1;
    entry->mode = (uint32_t)(mode & 07777);
    entry->mtime_seconds = mtime;

    bool gnu = memcmp(header->magic, "ustar  ", 7) == 0;
    bool ustar = !gnu && memcmp(header->magic, "ustar", 5) == 0;
    char name[sizeof header->prefix + sizeof header->name + 2];
    if (ustar && header->prefix[0] != '\0')
        snprintf(name, sizeof name, "%.*s/%.*s", (int)sizeof header->prefix, header->prefix, (int)sizeof header->name,
                 header->name);
    else
        snprintf(name, sizeof name, "%.*s", (int)sizeof header->name, header->name);

    char flag = header->typeflag;
    bool old_sparse = false;
    switch (flag) {
    case '\0':
    case '0':
    case '7': /* contiguous file */
        entry->type = TAR_FILE;
        break;
    case 'S':
        entry->type = TAR_FILE;
        old_sparse = true;
        break;
    case '1':
        entry->type = TAR_HARDLINK;
        break;
    case '2':
        entry->type = TAR_SYMLINK;
        break;
    case '3':
        entry->type = TAR_CHAR;
        break;
    case '4':
        entry->type = TAR_BLOCKDEV;
        break;
    case '5':
        entry->type = TAR_DIRECTORY;
        break;
    case '6':
        entry->type = TAR_FIFO;
        break;
    default:
        return fail(error, 0, "TAR_UNSUPPORTED: entry type 0x%02x", (unsigned)(unsigned char)flag);
    }
    if (entry->type == TAR_CHAR || entry->type == TAR_BLOCKDEV) {
        if (parse_unsigned(header->devmajor, sizeof header->devmajor, &major, "device", error) < 0 ||
            parse_unsigned(header->devminor, sizeof header->devminor, &minor, "device", error) < 0)
            return -1;
        if (major > 0xfff || minor > 0xfffff)
            return fail(error, 0, "TAR_MALFORMED: device %llu:%llu", (unsigned long long)major,
                        (unsigned long long)minor);
        entry->device_major = (uint32_t)major;
        entry->device_minor = (uint32_t)minor;
    }

    if (overrides->size_set)
        stored = overrides->size;
    if (overrides->uid_set)
        entry->uid = overrides->uid;
    if (overrides->gid_set)
        entry->gid = overrides->gid;
    if (overrides->mtime_set) {
        entry->mtime_seconds = overrides->mtime_seconds;
        entry->mtime_nanos = overrides->mtime_nanos;
    }
    /* 2^32-1 is "no change" to chown(2). */
    if (entry->uid >= UINT32_MAX || entry->gid >= UINT32_MAX)
        return fail(error, 0, "TAR_MALFORMED: owner %llu:%llu", (unsigned long long)entry->uid,
                    (unsigned long long)entry->gid);
    char *path = overrides->sparse_name != NULL ? overrides->sparse_name : overrides->path;
    entry->path = path != NULL ? strdup(path) : strdup(name);
    entry->link = overrides->link != NULL ? strdup(overrides->link)
                                          : copy_field(header->linkname, sizeof header->linkname);
    if (entry->path == NULL || entry->link == NULL)
        return fail(error, ENOMEM, "TAR_MEMORY: keep a path");
    if (entry->path[0] == '\0')
        return fail(error, 0, "TAR_MALFORMED: entry without a name");
    if (entry->type == TAR_FILE && !old_sparse && entry->path[strlen(entry->path) - 1] == '/')
        entry->type = TAR_DIRECTORY; /* before ustar */
    entry->xattrs_count = overrides->xattrs_count;
    memcpy(entry->xattrs, overrides->xattrs, sizeof entry->xattrs);
    overrides->xattrs_count = 0;

    /* Only regular files have data; a size on anything else is skipped with it, as GNU tar does. */
    entry->size = entry->type == TAR_FILE ? stored : 0;
    uint64_t padding = padding_of(stored);
    if (old_sparse) {
        entry->sparse = true;
        if (read_old_sparse(reader, (const uint8_t *)header, entry, error) < 0)
            return -1;
    } else if (overrides->sparse_set && entry->type == TAR_FILE) {
        if (overrides->sparse_major > 1)
            return fail(error, 0, "TAR_UNSUPPORTED: sparse format newer than 1.0");
        if (!overrides->real_size_set)
            return fail(error, 0, "TAR_MALFORMED: sparse file without its size");
        entry->sparse = true;
        entry->size = overrides->real_size;
        if (overrides->sparse_major == 1) {
            if (read_sparse_1_0(reader, &stored, entry, error) < 0)
                return -1;
        } else {
            entry->extents = overrides->extents;
            entry->extents_count = overrides->extents_count;
            overrides->extents = NULL;
        }
    }
    if (entry->sparse && check_extents(entry, stored, error) < 0)
        return -1;
    reader->data_left = stored;
    reader->padding = padding;
    return 0;
}

static enum tar_status next_with(struct tar_reader *reader, struct overrides *overrides, struct error *error)
{
    /* An archive may put any number of these before an entry; a real one puts two or three. */
    for (int extra = 0; extra < 16; extra++) {
        struct header header;
        ssize_t got = read_up_to(reader, &header, sizeof header, error);
        if (got < 0)
            return TAR_FAILED;
        if (got == 0 || (got == sizeof header && is_zero_block(&header))) {
            /* The end mark is two zero blocks; streams without it are common, so the end of input counts as well. */
            if (extra > 0)
                return (void)fail(error, 0, "TAR_TRUNCATED: the archive ends after an extended header"), TAR_FAILED;
            reader->ended = true;
            return TAR_END;
        }
        if (got != sizeof header)
            return (void)fail(error, 0, "TAR_TRUNCATED: the archive ends inside a header"), TAR_FAILED;
        if (!checksum_matches(&header))
            return (void)fail(error, 0, "TAR_MALFORMED: header with a wrong checksum at byte %llu: this is no tar archive, or a damaged one",
                              (unsigned long long)(reader->consumed - TAR_BLOCK)),
                   TAR_FAILED;
        if (strchr("xgLK", header.typeflag) == NULL || header.typeflag == '\0')
            return fill_entry(reader, &header, overrides, error) < 0 ? TAR_FAILED : TAR_OK;

        uint64_t size = 0;
        cleanup_free char *body = NULL;
        if (parse_unsigned(header.size, sizeof header.size, &size, "size", error) < 0 ||
            read_body(reader, size, &body, error) < 0)
            return TAR_FAILED;
        int done = 0;
        if (header.typeflag == 'x')
            done = parse_pax(overrides, body, (size_t)size, error);
        else if (header.typeflag == 'L')
            done = take_name(&overrides->path, strdup(body), strlen(body), "path", error);
        else if (header.typeflag == 'K')
            done = take_name(&overrides->link, strdup(body), strlen(body), "link path", error);
        /* 'g': global records carry comments (git) and vendor keys; none of ours may be set for a whole archive. */
        if (done < 0)
            return TAR_FAILED;
    }
    return (void)fail(error, 0, "TAR_MALFORMED: too many extended headers in a row"), TAR_FAILED;
}

enum tar_status tar_next(struct tar_reader *reader, struct error *error)
{
    if (reader->ended)
        return TAR_END;
    if (skip(reader, reader->data_left, error) < 0 || skip(reader, reader->padding, error) < 0)
        return TAR_FAILED;
    reader->data_left = 0;
    reader->padding = 0;
    release_entry(&reader->entry);
    struct overrides overrides = {0};
    enum tar_status status = next_with(reader, &overrides, error);
    release_overrides(&overrides);
    return status;
}

ssize_t tar_read(struct tar_reader *reader, void *buffer, size_t length, struct error *error)
{
    if (length > reader->data_left)
        length = (size_t)reader->data_left;
    if (length == 0)
        return 0;
    if (read_exactly(reader, buffer, length, error) < 0)
        return -1;
    reader->data_left -= length;
    return (ssize_t)length;
}

int tar_drain(struct tar_reader *reader, struct error *error)
{
    uint8_t buffer[16 * 1024];
    for (;;) {
        ssize_t got = read_up_to(reader, buffer, sizeof buffer, error);
        if (got < 0)
            return -1;
        if ((size_t)got < sizeof buffer)
            return 0;
    }
}
