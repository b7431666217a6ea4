/*
 * WireGuard links by generic netlink (linux/wireguard.h): their keys, their peers, and what the kernel tells of them. A
 * private key goes to the kernel and is never told by anyone: listings carry public keys only, and whether a peer has a
 * preshared one. What we set has neither that nor a mark: both are taken away from what somebody else gave them to.
 */
#ifndef NETPLANE_WIREGUARD_H
#define NETPLANE_WIREGUARD_H

#include "netplane/netlink.h"
#include "netplane/request.h"
#include "netplane/text.h"

enum { KEY_TEXT_BYTES = 44 }; /* base64 of 32 bytes */

/* Base64 as wg(8) writes it. Only the one spelling of each key is accepted. */
bool key_from_text(const char *text, uint8_t out[static TUNNEL_KEY_BYTES]);
void key_to_text(const uint8_t key[static TUNNEL_KEY_BYTES], char out[static KEY_TEXT_BYTES + 1]);

/* The number of the family in this kernel. EOPNOTSUPP: it has no WireGuard. It may load the module. */
int wireguard_family(struct netlink *generic, uint16_t *out, struct error *error);

void put_wireguard_set(struct outgoing *out, uint16_t family, const struct tunnel_fields *tunnel, uint32_t owner);
void put_wireguard_peer(struct outgoing *out, uint16_t family, const struct tunnel_fields *tunnel, bool remove, uint32_t owner);

/* `{"publicKey":...,"listenPort":...,"mark":...,"peers":[...]}`; a mark of 0 is left out. ENODEV: no such link; EOPNOTSUPP: it is of another kind. */
int wireguard_list(struct netlink *generic, uint16_t family, const char *link, struct text *out, struct error *error);

/* One message of a listing, as part of `"peers":[`; for tests and fuzzing as well. */
struct tunnel_listing {
    struct text *peers; /* the peers' objects, with commas */
    uint8_t public_key[TUNNEL_KEY_BYTES];
    bool has_key;
    uint16_t port;
    uint32_t mark; /* of the packets that it sends; 0: none */
};
int wireguard_read(void *listing, const struct nlmsghdr *message, struct error *error);

#endif
