/* Addresses as text and as the kernel has them. */
#ifndef NETPLANE_ADDRESS_H
#define NETPLANE_ADDRESS_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IP_BYTES_MAX = 16, MAC_BYTES = 6, PREFIX_TEXT_MAX = INET6_ADDRSTRLEN + 4, MAC_TEXT_MAX = 18 };

struct ip {
    uint8_t family; /* AF_INET or AF_INET6; 0: none */
    uint8_t bytes[IP_BYTES_MAX];
};

struct prefix {
    struct ip ip;
    uint8_t length; /* in bits */
};

struct mac {
    bool set;
    uint8_t bytes[MAC_BYTES];
};

/* 4, 16, or 0 for no address. */
static inline uint8_t ip_size(const struct ip *ip)
{
    return ip->family == AF_INET ? 4 : ip->family == AF_INET6 ? 16 : 0;
}

static inline uint8_t ip_bits(const struct ip *ip)
{
    return (uint8_t)(ip_size(ip) * 8);
}

/* These say whether the text is one. A length is decimal without a sign or a zero in front; without one, the whole address. */
bool ip_from_text(const char *text, struct ip *out);
bool prefix_from_text(const char *text, struct prefix *out);
bool mac_from_text(const char *text, struct mac *out);

/* Decimal without a sign or zeros in front, at most `max`. */
bool number_from_text(const char *text, uint64_t max, uint64_t *out);

const char *ip_to_text(const struct ip *ip, char out[static INET6_ADDRSTRLEN]);
const char *prefix_to_text(const struct prefix *prefix, char out[static PREFIX_TEXT_MAX]);
const char *mac_to_text(const uint8_t bytes[static MAC_BYTES], char out[static MAC_TEXT_MAX]);

#endif
