#include "common/json.h"
#include "common/fd.h"

#include <string.h>

/*
 * Walks the raw text once, before json-c sees it: refuses NUL in both its forms and counts the members, since json-c
 * keeps the last of two equal keys in silence. A colon outside a string stands for one member exactly when the text
 * is valid JSON, which json-c then proves.
 */
static int scan_text(const char *text, size_t length, size_t *members, struct error *error)
{
    bool in_string = false;
    *members = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '\0')
            return fail(error, 0, "JSON holds a NUL byte at offset %zu", i);
        if (in_string && c == '\\') {
            if (length - i > 5 && memcmp(text + i, "\\u0000", 6) == 0)
                return fail(error, 0, "JSON holds an escaped NUL at offset %zu", i);
            i++;
            if (i < length && text[i] == '\0')
                return fail(error, 0, "JSON holds a NUL byte at offset %zu", i);
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string) {
            /* json-c takes single quotes, NaN and Infinity even when told to be strict: none of their letters is JSON. */
            if (strchr("{}[],: \t\r\n0123456789+-.eEtrufalsn", c) == NULL)
                return fail(error, 0, "JSON is not valid at offset %zu: unexpected character", i);
            *members += c == ':';
        }
    }
    return 0;
}

/* The depth was bounded by the tokener, so the recursion is. */
// NOLINTNEXTLINE(misc-no-recursion)
static size_t count_members(struct json_object *value)
{
    size_t members = 0;
    if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, key, member) {
            (void)key;
            members += 1 + count_members(member);
        }
    } else if (json_object_is_type(value, json_type_array)) {
        size_t length = json_object_array_length(value);
        for (size_t i = 0; i < length; i++)
            members += count_members(json_object_array_get_idx(value, i));
    }
    return members;
}

static void free_tokener(struct json_tokener **tokener)
{
    if (*tokener != NULL)
        json_tokener_free(*tokener);
}

int json_parse_within(const char *text, size_t length, size_t bytes_max, struct json_object **out, struct error *error)
{
    size_t members;
    if (length > bytes_max)
        return fail(error, 0, "JSON of %zu bytes: at most %zu are accepted", length, bytes_max);
    if (scan_text(text, length, &members, error) < 0)
        return -1;
    __attribute__((cleanup(free_tokener))) struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (tokener == NULL)
        return fail(error, ENOMEM, "parse JSON");
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    cleanup_json struct json_object *parsed = json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error status = json_tokener_get_error(tokener);
    if (status == json_tokener_continue && parsed == NULL) {
        /* A bare number ends only with the text: feed the terminator. */
        parsed = json_tokener_parse_ex(tokener, "", 1);
        status = json_tokener_get_error(tokener);
        if (status != json_tokener_success)
            return fail(error, 0, "JSON ends too early, after %zu bytes", length);
    } else if (status != json_tokener_success) {
        return fail(error, 0, "JSON is not valid at offset %zu: %s", json_tokener_get_parse_end(tokener),
                    json_tokener_error_desc(status));
    } else {
        for (size_t i = json_tokener_get_parse_end(tokener); i < length; i++)
            if (strchr(" \t\r\n", text[i]) == NULL)
                return fail(error, 0, "JSON is followed by something else at offset %zu", i);
    }
    if (count_members(parsed) != members)
        return fail(error, 0, "JSON has the same key twice in one object");
    *out = parsed;
    parsed = NULL;
    return 0;
}

int json_parse(const char *text, size_t length, struct json_object **out, struct error *error)
{
    return json_parse_within(text, length, JSON_BYTES_MAX, out, error);
}

int json_load_at(int dir_fd, const char *name, struct json_object **out, struct error *error)
{
    cleanup_free char *text = NULL;
    size_t length = 0;
    if (read_file_at(dir_fd, name, JSON_BYTES_MAX, &text, &length, error) < 0)
        return -1;
    if (json_parse(text, length, out, error) < 0)
        return fail_in(error, "parse %s", name);
    return 0;
}

struct json_object *json_get(struct json_object *object, const char *key)
{
    struct json_object *member = NULL;
    if (!json_object_is_type(object, json_type_object) || !json_object_object_get_ex(object, key, &member))
        return NULL;
    return member;
}

int json_required(struct json_object *object, const char *key, struct error *error)
{
    return json_get(object, key) != NULL ? 0 : fail(error, EINVAL, "property %s is required", key);
}

int json_get_object(struct json_object *object, const char *key, struct json_object **out, struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_object))
        return fail(error, EINVAL, "property %s must be an object", key);
    *out = member;
    return 0;
}

int json_get_array(struct json_object *object, const char *key, struct json_object **out, size_t max,
                   struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_array))
        return fail(error, EINVAL, "property %s must be an array", key);
    if (json_object_array_length(member) > max)
        return fail(error, EINVAL, "property %s has %zu entries, at most %zu are accepted", key,
                    json_object_array_length(member), max);
    *out = member;
    return 0;
}

int json_get_string(struct json_object *object, const char *key, const char **out, struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_string))
        return fail(error, EINVAL, "property %s must be a string", key);
    *out = json_object_get_string(member);
    return 0;
}

int json_get_bool(struct json_object *object, const char *key, bool *out, struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_boolean))
        return fail(error, EINVAL, "property %s must be true or false", key);
    *out = json_object_get_boolean(member) != 0;
    return 0;
}

int json_get_int(struct json_object *object, const char *key, int64_t min, int64_t max, int64_t *out, bool *set,
                 struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_int))
        return fail(error, EINVAL, "property %s must be an integer", key);
    /* json-c answers a value above INT64_MAX with INT64_MAX, so ask both ways. */
    int64_t value = json_object_get_int64(member);
    bool above = value == INT64_MAX && json_object_get_uint64(member) != (uint64_t)INT64_MAX;
    if (above || value < min || value > max)
        return fail(error, EINVAL, "property %s is %s: must be from %lld to %lld", key, json_object_to_json_string(member),
                    (long long)min, (long long)max);
    *out = value;
    if (set != NULL)
        *set = true;
    return 0;
}

int json_get_uint(struct json_object *object, const char *key, uint64_t max, uint64_t *out, bool *set,
                  struct error *error)
{
    struct json_object *member = json_get(object, key);
    if (member == NULL)
        return 0;
    if (!json_object_is_type(member, json_type_int))
        return fail(error, EINVAL, "property %s must be an integer", key);
    uint64_t value = json_object_get_uint64(member);
    if (json_object_get_int64(member) < 0 || value > max)
        return fail(error, EINVAL, "property %s is %s: must be from 0 to %llu", key, json_object_to_json_string(member),
                    (unsigned long long)max);
    *out = value;
    if (set != NULL)
        *set = true;
    return 0;
}

int json_get_strings(struct json_object *object, const char *key, const char ***out, size_t *count, size_t max,
                     struct error *error)
{
    struct json_object *array = NULL;
    if (json_get_array(object, key, &array, max, error) < 0)
        return -1;
    if (array == NULL)
        return 0;
    size_t length = json_object_array_length(array);
    cleanup_free const char **strings = calloc(length + 1, sizeof *strings);
    if (strings == NULL)
        return fail(error, ENOMEM, "read property %s", key);
    for (size_t i = 0; i < length; i++) {
        struct json_object *item = json_object_array_get_idx(array, i);
        if (!json_object_is_type(item, json_type_string))
            return fail(error, EINVAL, "property %s[%zu] must be a string", key, i);
        strings[i] = json_object_get_string(item);
    }
    free(*out);
    *out = strings;
    strings = NULL;
    if (count != NULL)
        *count = length;
    return 0;
}

int json_add(struct json_object *object, const char *key, struct json_object *value, struct error *error)
{
    if (value == NULL)
        return 0;
    if (json_object_object_add(object, key, value) < 0) {
        json_object_put(value);
        return fail(error, ENOMEM, "add %s to a JSON object", key);
    }
    return 0;
}
