/* BLAKE2b with 32 bytes of result (RFC 7693), as the key of the seccomp cache. */
#ifndef ISOLATE_HASH_H
#define ISOLATE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { HASH_BYTES = 32 };

struct hash {
    uint64_t state[8];
    uint64_t length;
    uint8_t block[128];
    size_t used;
};

void hash_start(struct hash *hash);
void hash_bytes(struct hash *hash, const void *data, size_t length);
/* Length first, so that no two sequences of fields give the same bytes. */
void hash_text(struct hash *hash, const char *text);
void hash_number(struct hash *hash, uint64_t number);
void hash_finish(struct hash *hash, uint8_t out[HASH_BYTES]);

#endif
