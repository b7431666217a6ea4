/* "UID[:GID]" of the command line, strictly decimal: names are for the caller to look up (CVE-2026-30892). */
#ifndef ISOLATE_USER_H
#define ISOLATE_USER_H

#include "common/error.h"

#include <sys/types.h>

/* Without ":GID" the group is left as it is. Refuses signs, blanks, leading zeros, hexadecimal and overflow. */
int user_from_text(const char *text, uid_t *uid, gid_t *gid, struct error *error);

/* One decimal id from 0 to 4294967294. */
int id_from_text(const char *text, size_t length, unsigned *id);

#endif
