#include "netplane/document.h"
#include "netplane/text.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES_A_VALUE = 12, BLOCK_MIN = 32, BLOCK_MAX = 4096 };

struct value_block {
    struct value_block *next;
    size_t used;
    size_t room;
    struct value values[];
};

/* An array or object that is not closed yet. */
struct opened {
    struct value *value;
    const struct value **tail; /* where the next value of it is hung */
};

struct reading {
    char *begin;
    char *at;
    char *end;
    struct document *document;
    struct opened opened[DEPTH_MAX];
    size_t depth;
    const char *key; /* of the value that comes */
    struct error *error;
};

static int refuse(struct reading *reading, const char *why)
{
    return fail(reading->error, 0, "JSON is not valid at offset %zu: %s", (size_t)(reading->at - reading->begin), why);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The next character that says something; 0: there is none. NUL itself is no character of JSON. */
static char peek(struct reading *reading)
{
    while (reading->at < reading->end && is_space(*reading->at))
        reading->at++;
    return reading->at < reading->end ? *reading->at : '\0';
}

static struct value *new_value(struct reading *reading)
{
    struct value_block *block = reading->document->blocks;
    if (block == NULL || block->used == block->room) {
        size_t guess = block == NULL ? (size_t)(reading->end - reading->begin) / BYTES_A_VALUE : block->room * 2;
        size_t room = guess < BLOCK_MIN ? BLOCK_MIN : guess > BLOCK_MAX ? BLOCK_MAX : guess;
        struct value_block *added = malloc(sizeof *added + room * sizeof *added->values);
        if (added == NULL) {
            fail(reading->error, ENOMEM, "parse JSON");
            return NULL;
        }
        added->next = block;
        added->used = 0;
        added->room = room;
        reading->document->blocks = block = added;
    }
    struct value *value = &block->values[block->used++];
    *value = (struct value){0};
    return value;
}

/* The four digits of an escape, or -1. */
static int32_t read_hex(const char *at, const char *end)
{
    int32_t number = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i], lower = (char)(c | 0x20);
        if (!is_digit(c) && (lower < 'a' || lower > 'f'))
            return -1;
        number = number << 4 | (is_digit(c) ? c - '0' : lower - 'a' + 10);
    }
    return number;
}

/* RFC 3629. Never more bytes than the escape has. */
static char *put_character(char *to, uint32_t character)
{
    if (character < 0x80) {
        *to++ = (char)character;
    } else if (character < 0x800) {
        *to++ = (char)(0xc0 | character >> 6);
        *to++ = (char)(0x80 | (character & 0x3f));
    } else if (character < 0x10000) {
        *to++ = (char)(0xe0 | character >> 12);
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    } else {
        *to++ = (char)(0xf0 | character >> 18);
        *to++ = (char)(0x80 | (character >> 12 & 0x3f));
        *to++ = (char)(0x80 | (character >> 6 & 0x3f));
        *to++ = (char)(0x80 | (character & 0x3f));
    }
    return to;
}

/* After `\u`: a character, of which JSON writes those past 16 bits as two halves. */
static int read_code(struct reading *reading, uint32_t *out)
{
    int32_t first = read_hex(reading->at, reading->end);
    if (first <= 0)
        return refuse(reading, first < 0 ? "an escape without four digits" : "an escaped NUL");
    reading->at += 4;
    *out = (uint32_t)first;
    if (first < 0xd800 || first > 0xdfff)
        return 0;
    int32_t second = reading->end - reading->at > 2 && reading->at[0] == '\\' && reading->at[1] == 'u' ? read_hex(reading->at + 2, reading->end) : -1;
    if (first > 0xdbff || second < 0xdc00 || second > 0xdfff)
        return refuse(reading, "half a character");
    reading->at += 6;
    *out = 0x10000 + ((uint32_t)(first & 0x3ff) << 10 | (uint32_t)(second & 0x3ff));
    return 0;
}

/* After a backslash. */
static int read_escape(struct reading *reading, char **to)
{
    static const char escaped[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    uint32_t character = 0;
    char c = reading->at < reading->end ? *reading->at : '\0';
    const char *known = c == '\0' ? NULL : strchr(escaped, c);
    if (known != NULL) {
        reading->at++;
        *(*to)++ = meant[known - escaped];
        return 0;
    }
    if (c != 'u')
        return refuse(reading, "an escape that is none");
    reading->at++;
    if (read_code(reading, &character) < 0)
        return -1;
    *to = put_character(*to, character);
    return 0;
}

/* At its first quote. What was escaped is written where it stood, since it is shorter than its escape. */
static int read_string(struct reading *reading, const char **out, uint32_t *length)
{
    char *start = ++reading->at, *to = start;
    for (;;) {
        if (reading->at == reading->end)
            return refuse(reading, "a string without an end");
        unsigned char c = (unsigned char)*reading->at;
        if (c == '"')
            break;
        if (c == '\\') {
            reading->at++;
            if (read_escape(reading, &to) < 0)
                return -1;
            continue;
        }
        size_t bytes = c < 0x80 ? 1 : utf8_length((const unsigned char *)reading->at, (size_t)(reading->end - reading->at));
        if (c < 0x20 || bytes == 0)
            return refuse(reading, c < 0x20 ? "a control character in a string" : "no UTF-8");
        for (; bytes > 0; bytes--)
            *to++ = *reading->at++;
    }
    *to = '\0'; /* the last quote's place at most */
    reading->at++;
    *out = start;
    *length = (uint32_t)(to - start);
    return 0;
}

static bool skip_digits(struct reading *reading)
{
    const char *start = reading->at;
    while (reading->at < reading->end && is_digit(*reading->at))
        reading->at++;
    return reading->at > start;
}

static int read_number(struct reading *reading, struct value *value)
{
    bool negative = *reading->at == '-', fits = true;
    reading->at += negative;
    const char *start = reading->at;
    if (!skip_digits(reading) || (*start == '0' && reading->at - start > 1))
        return refuse(reading, "no number");
    int64_t number = 0;
    for (const char *digit = start; digit < reading->at; digit++)
        fits = fits && !__builtin_mul_overflow(number, 10, &number) && !__builtin_sub_overflow(number, *digit - '0', &number);
    bool whole = true;
    if (reading->at < reading->end && *reading->at == '.') {
        whole = false;
        reading->at++;
        if (!skip_digits(reading))
            return refuse(reading, "no number");
    }
    if (reading->at < reading->end && (*reading->at == 'e' || *reading->at == 'E')) {
        whole = false;
        reading->at++;
        if (reading->at < reading->end && (*reading->at == '+' || *reading->at == '-'))
            reading->at++;
        if (!skip_digits(reading))
            return refuse(reading, "no number");
    }
    /* Counted below zero, where there is room for one more. */
    fits = fits && (negative || number != INT64_MIN);
    value->kind = whole && fits ? VALUE_INTEGER : VALUE_FRACTION;
    value->integer = !whole || !fits ? 0 : negative ? number : -number;
    return 0;
}

static int read_word(struct reading *reading, struct value *value)
{
    static const struct {
        const char *text;
        enum value_kind kind;
        bool boolean;
    } words[] = {{"true", VALUE_BOOLEAN, true}, {"false", VALUE_BOOLEAN, false}, {"null", VALUE_NULL, false}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i].text);
        if ((size_t)(reading->end - reading->at) < length || memcmp(reading->at, words[i].text, length) != 0)
            continue;
        reading->at += length;
        value->kind = words[i].kind;
        value->boolean = words[i].boolean;
        return 0;
    }
    return refuse(reading, reading->at == reading->end ? "it ends too early" : "no value");
}

static int open_value(struct reading *reading, struct value *value)
{
    if (reading->depth == DEPTH_MAX)
        return refuse(reading, "nested too deep");
    value->kind = *reading->at == '{' ? VALUE_OBJECT : VALUE_ARRAY;
    reading->at++;
    reading->opened[reading->depth++] = (struct opened){value, &value->first};
    return 0;
}

static int read_value(struct reading *reading)
{
    struct value *value = new_value(reading);
    if (value == NULL)
        return -1;
    value->key = reading->key;
    reading->key = NULL;
    if (reading->depth == 0) {
        reading->document->root = value;
    } else {
        struct opened *opened = &reading->opened[reading->depth - 1];
        *opened->tail = value;
        opened->tail = &value->next;
        opened->value->count++;
    }
    char c = peek(reading);
    if (c == '{' || c == '[')
        return open_value(reading, value);
    if (c == '"') {
        value->kind = VALUE_STRING;
        return read_string(reading, &value->string, &value->count);
    }
    return c == '-' || is_digit(c) ? read_number(reading, value) : read_word(reading, value);
}

static int read_key(struct reading *reading, const struct value *object)
{
    uint32_t length;
    if (peek(reading) != '"')
        return refuse(reading, "no key");
    if (object->count == MEMBERS_MAX)
        return refuse(reading, "too many members");
    if (read_string(reading, &reading->key, &length) < 0)
        return -1;
    if (value_member(object, reading->key) != NULL)
        return refuse(reading, "the same key twice in one object");
    if (peek(reading) != ':')
        return refuse(reading, "no colon");
    reading->at++;
    return 0;
}

/* Closes what ends here. 1: another value comes. */
static int read_between(struct reading *reading)
{
    while (reading->depth > 0) {
        const struct value *value = reading->opened[reading->depth - 1].value;
        bool object = value->kind == VALUE_OBJECT;
        char c = peek(reading);
        if (c == (object ? '}' : ']')) {
            reading->at++;
            reading->depth--;
            continue;
        }
        if (value->count > 0) {
            if (c != ',')
                return refuse(reading, c == '\0' ? "it ends too early" : "no comma");
            reading->at++;
        }
        return object && read_key(reading, value) < 0 ? -1 : 1;
    }
    return 0;
}

int document_parse(char *text, size_t length, struct document *out, struct error *error)
{
    struct reading reading = {.begin = text, .at = text, .end = text + length, .document = out, .error = error};
    *out = (struct document){0};
    for (int more = 1; more != 0;) {
        if (read_value(&reading) < 0)
            return -1;
        more = read_between(&reading);
        if (more < 0)
            return -1;
    }
    (void)peek(&reading);
    return reading.at == reading.end ? 0 : refuse(&reading, "it is followed by something else");
}

void document_release(struct document *document)
{
    while (document->blocks != NULL) {
        struct value_block *block = document->blocks;
        document->blocks = block->next;
        free(block);
    }
    *document = (struct document){0};
}

const struct value *value_member(const struct value *object, const char *key)
{
    const struct value *member = object->first;
    while (member != NULL && strcmp(member->key, key) != 0)
        member = member->next;
    return member;
}

const char *value_kind_name(enum value_kind kind)
{
    static const char *const names[] = {
        [VALUE_NULL] = "null",     [VALUE_BOOLEAN] = "boolean", [VALUE_INTEGER] = "int",   [VALUE_FRACTION] = "double",
        [VALUE_STRING] = "string", [VALUE_ARRAY] = "array",     [VALUE_OBJECT] = "object",
    };
    return names[kind];
}
