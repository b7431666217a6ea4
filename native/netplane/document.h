/*
 * JSON (RFC 8259) of a request, read in place: a tree of values in a few blocks of memory, whose strings lie in the text itself.
 * A request has hundreds of values and lives for a millisecond, so an allocation and a hash table for each would cost more than
 * what is asked for. A text is refused when it is nested deeper than DEPTH_MAX, has the same key twice in one object (two
 * readers could see two values), holds a NUL (which would cut a C string short), or is no UTF-8.
 */
#ifndef NETPLANE_DOCUMENT_H
#define NETPLANE_DOCUMENT_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DEPTH_MAX = 64, MEMBERS_MAX = 64 };

enum value_kind { VALUE_NULL, VALUE_BOOLEAN, VALUE_INTEGER, VALUE_FRACTION, VALUE_STRING, VALUE_ARRAY, VALUE_OBJECT };

struct value {
    const struct value *next; /* in the same array or object */
    const char *key;          /* of a member of an object */
    enum value_kind kind;
    uint32_t count; /* of values in an array or object, of bytes in a string */
    union {
        const struct value *first;
        const char *string;
        int64_t integer; /* what does not fit is a fraction */
        bool boolean;
    };
};

struct value_block;

struct document {
    const struct value *root;
    struct value_block *blocks;
};

/* The text is changed, and has to stay as long as the document, which the caller releases in any case. */
int document_parse(char *text, size_t length, struct document *out, struct error *error);
void document_release(struct document *document);

/* NULL: there is none. */
const struct value *value_member(const struct value *object, const char *key);
/* As it is called in messages. */
const char *value_kind_name(enum value_kind kind);

/* The first of a list that may be missing. */
static inline const struct value *value_first(const struct value *list)
{
    return list == NULL ? NULL : list->first;
}

#endif
