/*
 * Elements of nft sets and maps, as text ("tcp . 8080 : goto tcp3") and as the kernel compares them.
 * A key of one field has that field's bytes; in a concatenation each field is filled up to a multiple of four bytes
 * (nf_tables registers). The same holds for data.
 */
#ifndef NETPLANE_ELEMENT_H
#define NETPLANE_ELEMENT_H

#include "common/error.h"
#include "netplane/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FIELDS_MAX = 8,
    ELEMENT_BYTES_MAX = 64, /* NFT_DATA_VALUE_MAXLEN */
    ELEMENT_TEXT_MAX = 512,
    NFT_NAME_BYTES = 128, /* of names that we take, with the NUL */
};

enum field {
    FIELD_IPV4_ADDR,
    FIELD_IPV6_ADDR,
    FIELD_ETHER_ADDR,
    FIELD_INET_PROTO,
    FIELD_INET_SERVICE,
    FIELD_INTEGER,
    FIELD_MARK,
    FIELD_CT_ZONE,
    FIELD_IFNAME,
    FIELD_VERDICT, /* as data only, and alone */
    FIELD_COUNT,
};

struct element_set {
    uint8_t family; /* NFPROTO_* */
    const char *table;
    const char *name;
    uint8_t key_count;
    uint8_t data_count; /* 0: a set */
    uint8_t key[FIELDS_MAX];
    uint8_t data[FIELDS_MAX];
    uint8_t key_length;  /* in bytes */
    uint8_t data_length; /* 0 for verdicts */
    bool interval;
};

struct element {
    uint8_t key[ELEMENT_BYTES_MAX];
    uint8_t key_end[ELEMENT_BYTES_MAX]; /* the last that belongs to it; equal to `key` unless it is a range */
    uint8_t data[ELEMENT_BYTES_MAX];
    int32_t verdict;            /* NF_DROP, NF_ACCEPT, NFT_GOTO, ...; for FIELD_VERDICT */
    char chain[NFT_NAME_BYTES]; /* of goto and jump */
};

/* -1 when there is no such type. */
int field_from_text(const char *name);

/* Fills the lengths, and refuses what the kernel or we could not express. */
int element_set_check(struct element_set *set, struct error *error);

bool nft_name_valid(const char *name);

/* `with_data` false: the key alone, as for a deletion. */
int element_parse(const struct element_set *set, const char *text, bool with_data, struct element *out,
                  struct error *error);

/* As nft spells it, without quotes; `with_data` as above. */
void element_print(const struct element_set *set, const struct element *element, bool with_data, struct text *out);

/* Adds one to a number of big-endian bytes; false when it was the largest. */
bool bytes_increment(uint8_t *bytes, size_t length);
/* Takes one away; false when it was 0. */
bool bytes_decrement(uint8_t *bytes, size_t length);

#endif
