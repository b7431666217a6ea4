#include "isolate/user.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

int id_from_text(const char *text, size_t length, unsigned *id)
{
    uint64_t value = 0;
    if (length == 0 || length > 10 || (length > 1 && text[0] == '0'))
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (value >= UINT32_MAX) /* the last one means "no change" to setresuid(2) */
        return -1;
    *id = (unsigned)value;
    return 0;
}

int user_from_text(const char *text, uid_t *uid, gid_t *gid, struct error *error)
{
    size_t length = strcspn(text, ":");
    unsigned user = 0, group = 0;
    bool has_group = text[length] == ':';
    if (id_from_text(text, length, &user) < 0 ||
        (has_group && id_from_text(text + length + 1, strlen(text + length + 1), &group) < 0))
        return fail(error, EINVAL, "user \"%.64s\" must be UID or UID:GID in decimal", text);
    *uid = user;
    if (has_group)
        *gid = group;
    return 0;
}
