/*
 * A text under construction: answers are written straight into it as JSON. Its failure (no memory, or longer than any answer
 * may be) is remembered, so that a writer need not look after each piece; whoever sends it asks once.
 */
#ifndef NETPLANE_TEXT_H
#define NETPLANE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

enum { TEXT_BYTES_MAX = 128 * 1024 * 1024 };

struct text {
    char *bytes; /* not terminated */
    size_t length;
    size_t room;
    bool failed;
};

void text_put(struct text *text, const char *bytes, size_t length);
void text_puts(struct text *text, const char *string);
void text_format(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes. Bytes that are not UTF-8 (link names may be any) become U+FFFD. */
void text_quote(struct text *text, const char *bytes, size_t length);
/* `"key":` with a comma before it unless it is the first member of its object. */
void text_key(struct text *text, const char *key);
/* Length of the UTF-8 sequence that begins here, or 0 when it is none (RFC 3629: no overlong forms, no surrogates). */
size_t utf8_length(const unsigned char *at, size_t left);
/* A comma unless `text` ends where an array or an object begins. */
void text_comma(struct text *text);

static inline void text_release(struct text *text)
{
    free(text->bytes);
    *text = (struct text){0};
}
#define cleanup_text __attribute__((cleanup(text_release)))

#endif
