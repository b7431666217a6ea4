/*
 * JSON from outside: bounded, and strict where json-c is lenient.
 * On top of json-c's own checks a text is refused when it is larger than JSON_BYTES_MAX, nested deeper than
 * JSON_DEPTH_MAX, holds a NUL (raw or escaped, which would cut a C string short), holds the same key twice in one
 * object (two readers could see two values), has an integer outside 64 bits, or has anything after its end.
 *
 * Getters take the object and a key, and tell the full name of the offending property. A missing or null property
 * leaves `*out` as it was; the `_required` twins refuse it.
 */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include "common/error.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_BYTES_MAX = 4 * 1024 * 1024, JSON_DEPTH_MAX = 64 };

static inline void put_json_at_exit(struct json_object **object)
{
    json_object_put(*object);
}
#define cleanup_json __attribute__((cleanup(put_json_at_exit)))

/* Parses an untrusted text. The caller owns `*out`. */
int json_parse(const char *text, size_t length, struct json_object **out, struct error *error);

/* json_parse() with another bound on the bytes. */
int json_parse_within(const char *text, size_t length, size_t bytes_max, struct json_object **out, struct error *error);

/* json_parse() of a file below `dir_fd`. */
int json_load_at(int dir_fd, const char *name, struct json_object **out, struct error *error);

/* The member, or NULL when it is missing or null. */
struct json_object *json_get(struct json_object *object, const char *key);

int json_get_object(struct json_object *object, const char *key, struct json_object **out, struct error *error);
int json_get_array(struct json_object *object, const char *key, struct json_object **out, size_t max,
                   struct error *error);
/* The string belongs to the parsed tree and lives as long as it. */
int json_get_string(struct json_object *object, const char *key, const char **out, struct error *error);
int json_get_bool(struct json_object *object, const char *key, bool *out, struct error *error);
/* `*set` (may be NULL) tells whether the property was there. */
int json_get_int(struct json_object *object, const char *key, int64_t min, int64_t max, int64_t *out, bool *set,
                 struct error *error);
int json_get_uint(struct json_object *object, const char *key, uint64_t max, uint64_t *out, bool *set,
                  struct error *error);
int json_required(struct json_object *object, const char *key, struct error *error);
/* An array of strings as a NULL-terminated vector in the caller's heap; the strings belong to the tree. */
int json_get_strings(struct json_object *object, const char *key, const char ***out, size_t *count, size_t max,
                     struct error *error);

/* Adds a member to an object under construction; NULL values are left out. Fails only when memory is out. */
int json_add(struct json_object *object, const char *key, struct json_object *value, struct error *error);

#endif
