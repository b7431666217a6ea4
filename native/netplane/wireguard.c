#include "netplane/wireguard.h"
#include "common/fd.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <linux/genetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <string.h>

_Static_assert(WG_KEY_LEN == TUNNEL_KEY_BYTES, "a key of Curve25519");

enum { DUMP_TRIES_MAX = 5 }; /* until one is seen that nobody changed under way */

static const uint8_t no_key[TUNNEL_KEY_BYTES]; /* a preshared key of zeros is none (linux/wireguard.h) */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool key_from_text(const char *text, uint8_t out[static TUNNEL_KEY_BYTES])
{
    if (strlen(text) != KEY_TEXT_BYTES || text[KEY_TEXT_BYTES - 1] != '=')
        return false;
    uint32_t bits = 0;
    size_t held = 0, length = 0;
    for (size_t i = 0; i < KEY_TEXT_BYTES - 1; i++) {
        const char *digit = strchr(digits, text[i]);
        if (digit == NULL)
            return false;
        bits = bits << 6 | (uint32_t)(digit - digits);
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[length++] = (uint8_t)(bits >> held);
        }
    }
    /* 43 digits hold two bits more than 32 bytes: they are zero in the one spelling that counts. */
    return length == TUNNEL_KEY_BYTES && (bits & 3u) == 0;
}

void key_to_text(const uint8_t key[static TUNNEL_KEY_BYTES], char out[static KEY_TEXT_BYTES + 1])
{
    uint32_t bits = 0;
    size_t held = 0, length = 0;
    for (size_t i = 0; i < TUNNEL_KEY_BYTES; i++) {
        bits = bits << 8 | key[i];
        for (held += 8; held >= 6;) {
            held -= 6;
            out[length++] = digits[bits >> held & 63u];
        }
    }
    out[length++] = digits[bits << (6 - held) & 63u];
    out[length++] = '=';
    out[length] = '\0';
}

static void begin(struct outgoing *out, uint16_t family, uint8_t command, uint16_t flags, uint32_t owner)
{
    struct genlmsghdr header = {.cmd = command, .version = WG_GENL_VERSION};
    out_begin(out, family, flags, &header, sizeof header, owner);
}

static int read_family(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct nlattr *attributes[CTRL_ATTR_FAMILY_ID + 1];
    message_attributes(message, sizeof(struct genlmsghdr), attributes, CTRL_ATTR_FAMILY_ID);
    uint16_t family = attribute_u16(attributes[CTRL_ATTR_FAMILY_ID]);
    if (family < NLMSG_MIN_TYPE)
        return fail(error, EBADMSG, "read the number of the wireguard family");
    *(uint16_t *)context = family;
    return 0;
}

int wireguard_family(struct netlink *generic, uint16_t *out, struct error *error)
{
    struct outgoing question = {0};
    struct genlmsghdr header = {.cmd = CTRL_CMD_GETFAMILY, .version = 1};
    out_begin(&question, GENL_ID_CTRL, 0, &header, sizeof header, 0);
    out_put_text(&question, CTRL_ATTR_FAMILY_NAME, WG_GENL_NAME);
    out_end(&question);
    int result = netlink_get(generic, &question, read_family, out, error);
    out_release(&question);
    if (result < 0 && error->number == ENOENT)
        return fail(error, EOPNOTSUPP, "the kernel has no WireGuard");
    return result;
}

void put_wireguard_set(struct outgoing *out, uint16_t family, const struct tunnel_fields *tunnel, uint32_t owner)
{
    begin(out, family, WG_CMD_SET_DEVICE, 0, owner);
    out_put_text(out, WGDEVICE_A_IFNAME, tunnel->link);
    if (tunnel->key_set)
        out_put(out, WGDEVICE_A_PRIVATE_KEY, tunnel->key, TUNNEL_KEY_BYTES);
    if (tunnel->port != 0)
        out_put(out, WGDEVICE_A_LISTEN_PORT, &tunnel->port, sizeof tunnel->port);
    out_put_u32(out, WGDEVICE_A_FWMARK, 0);
    out_end(out);
}

static void put_endpoint(struct outgoing *out, const struct ip *ip, uint16_t port)
{
    if (ip->family == AF_INET) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&address.sin_addr, ip->bytes, sizeof address.sin_addr);
        out_put(out, WGPEER_A_ENDPOINT, &address, sizeof address);
    } else {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&address.sin6_addr, ip->bytes, sizeof address.sin6_addr);
        out_put(out, WGPEER_A_ENDPOINT, &address, sizeof address);
    }
}

static void put_allowed(struct outgoing *out, const struct value *list)
{
    size_t all = out_nest(out, WGPEER_A_ALLOWEDIPS);
    for (const struct value *item = value_first(list); item != NULL; item = item->next) {
        struct prefix prefix;
        if (!prefix_from_text(item->string, &prefix))
            continue; /* it was one when the request was decoded */
        size_t one = out_nest(out, 0);
        uint16_t ip_family = prefix.ip.family;
        out_put(out, WGALLOWEDIP_A_FAMILY, &ip_family, sizeof ip_family);
        out_put(out, WGALLOWEDIP_A_IPADDR, prefix.ip.bytes, ip_size(&prefix.ip));
        out_put_u8(out, WGALLOWEDIP_A_CIDR_MASK, prefix.length);
        out_nest_end(out, one);
    }
    out_nest_end(out, all);
}

void put_wireguard_peer(struct outgoing *out, uint16_t family, const struct tunnel_fields *tunnel, bool remove, uint32_t owner)
{
    begin(out, family, WG_CMD_SET_DEVICE, 0, owner);
    out_put_text(out, WGDEVICE_A_IFNAME, tunnel->link);
    size_t peers = out_nest(out, WGDEVICE_A_PEERS);
    size_t peer = out_nest(out, 0);
    out_put(out, WGPEER_A_PUBLIC_KEY, tunnel->key, TUNNEL_KEY_BYTES);
    out_put_u32(out, WGPEER_A_FLAGS, remove ? WGPEER_F_REMOVE_ME : WGPEER_F_REPLACE_ALLOWEDIPS);
    if (!remove) {
        if (tunnel->endpoint.family != 0)
            put_endpoint(out, &tunnel->endpoint, tunnel->port);
        put_allowed(out, tunnel->allowed);
        out_put(out, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &tunnel->keepalive_seconds, sizeof tunnel->keepalive_seconds);
        out_put(out, WGPEER_A_PRESHARED_KEY, no_key, sizeof no_key);
    }
    out_nest_end(out, peer);
    out_nest_end(out, peers);
    out_end(out);
}

/* The next of the attributes in a nest, or NULL; `*at` and `*left` move on. */
static const struct nlattr *next_attribute(const uint8_t **at, size_t *left)
{
    if (*left < ATTRIBUTE_HEADER)
        return NULL;
    const struct nlattr *attribute = (const struct nlattr *)*at;
    if (attribute->nla_len < ATTRIBUTE_HEADER || attribute->nla_len > *left)
        return NULL;
    size_t step = align4(attribute->nla_len);
    step = step < *left ? step : *left;
    *at += step;
    *left -= step;
    return attribute;
}

static void write_endpoint(struct text *out, const struct nlattr *attribute)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    struct ip ip = {0};
    char text[INET6_ADDRSTRLEN];
    uint16_t port = 0;
    if (attribute != NULL && attribute_length(attribute) == sizeof four) {
        memcpy(&four, attribute_data(attribute), sizeof four);
        ip.family = four.sin_family == AF_INET ? AF_INET : 0;
        port = ntohs(four.sin_port);
        memcpy(ip.bytes, &four.sin_addr, sizeof four.sin_addr);
    } else if (attribute != NULL && attribute_length(attribute) == sizeof six) {
        memcpy(&six, attribute_data(attribute), sizeof six);
        ip.family = six.sin6_family == AF_INET6 ? AF_INET6 : 0;
        port = ntohs(six.sin6_port);
        memcpy(ip.bytes, &six.sin6_addr, sizeof six.sin6_addr);
    }
    if (ip.family == 0)
        return;
    text_key(out, "endpoint");
    text_format(out, "\"%s\"", ip_to_text(&ip, text));
    text_key(out, "port");
    text_format(out, "%u", port);
}

static void write_allowed(struct text *out, const struct nlattr *list)
{
    text_key(out, "allowed");
    text_puts(out, "[");
    if (list != NULL) {
        const uint8_t *at = attribute_data(list);
        size_t left = attribute_length(list);
        for (const struct nlattr *one; (one = next_attribute(&at, &left)) != NULL;) {
            const struct nlattr *parts[WGALLOWEDIP_A_CIDR_MASK + 1];
            attributes_read(attribute_data(one), attribute_length(one), parts, WGALLOWEDIP_A_CIDR_MASK);
            uint16_t family = attribute_u16(parts[WGALLOWEDIP_A_FAMILY]);
            struct prefix prefix = {.ip = {.family = (uint8_t)(family == AF_INET || family == AF_INET6 ? family : 0)},
                                    .length = attribute_u8(parts[WGALLOWEDIP_A_CIDR_MASK])};
            const struct nlattr *address = parts[WGALLOWEDIP_A_IPADDR];
            char text[PREFIX_TEXT_MAX];
            if (prefix.ip.family == 0 || address == NULL || attribute_length(address) != ip_size(&prefix.ip) ||
                prefix.length > ip_bits(&prefix.ip))
                continue;
            memcpy(prefix.ip.bytes, attribute_data(address), ip_size(&prefix.ip));
            text_comma(out);
            text_format(out, "\"%s\"", prefix_to_text(&prefix, text));
        }
    }
    text_puts(out, "]");
}

static uint64_t attribute_u64(const struct nlattr *attribute)
{
    uint64_t value = 0;
    if (attribute != NULL && attribute_length(attribute) >= sizeof value)
        memcpy(&value, attribute_data(attribute), sizeof value);
    return value;
}

static void write_peer(struct text *out, const struct nlattr *peer)
{
    const struct nlattr *parts[WGPEER_A_PROTOCOL_VERSION + 1];
    attributes_read(attribute_data(peer), attribute_length(peer), parts, WGPEER_A_PROTOCOL_VERSION);
    const struct nlattr *key = parts[WGPEER_A_PUBLIC_KEY], *handshake = parts[WGPEER_A_LAST_HANDSHAKE_TIME];
    char text[KEY_TEXT_BYTES + 1];
    if (key == NULL || attribute_length(key) != TUNNEL_KEY_BYTES)
        return;
    key_to_text(attribute_data(key), text);
    text_comma(out);
    text_puts(out, "{");
    text_key(out, "publicKey");
    text_format(out, "\"%s\"", text);
    write_endpoint(out, parts[WGPEER_A_ENDPOINT]);
    write_allowed(out, parts[WGPEER_A_ALLOWEDIPS]);
    uint16_t keepalive = attribute_u16(parts[WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL]);
    if (keepalive != 0) {
        text_key(out, "keepaliveSeconds");
        text_format(out, "%u", keepalive);
    }
    const struct nlattr *preshared = parts[WGPEER_A_PRESHARED_KEY];
    if (preshared != NULL && attribute_length(preshared) == sizeof no_key &&
        memcmp(attribute_data(preshared), no_key, sizeof no_key) != 0) {
        text_key(out, "preshared");
        text_puts(out, "true");
    }
    struct __kernel_timespec shaken = {0};
    if (handshake != NULL && attribute_length(handshake) == sizeof shaken)
        memcpy(&shaken, attribute_data(handshake), sizeof shaken);
    if (shaken.tv_sec > 0) {
        text_key(out, "handshakeSeconds");
        text_format(out, "%lld", (long long)shaken.tv_sec);
    }
    text_key(out, "receivedBytes");
    text_format(out, "%" PRIu64, attribute_u64(parts[WGPEER_A_RX_BYTES]));
    text_key(out, "sentBytes");
    text_format(out, "%" PRIu64, attribute_u64(parts[WGPEER_A_TX_BYTES]));
    text_puts(out, "}");
}

int wireguard_read(void *context, const struct nlmsghdr *message, struct error *error)
{
    struct tunnel_listing *listing = context;
    const struct nlattr *attributes[WGDEVICE_A_PEERS + 1];
    if (message_header(message, sizeof(struct genlmsghdr)) == NULL)
        return fail(error, EBADMSG, "read a wireguard link");
    message_attributes(message, sizeof(struct genlmsghdr), attributes, WGDEVICE_A_PEERS);
    const struct nlattr *key = attributes[WGDEVICE_A_PUBLIC_KEY], *peers = attributes[WGDEVICE_A_PEERS];
    /* WGDEVICE_A_PRIVATE_KEY stands beside it and is not looked at. */
    if (key != NULL && attribute_length(key) == TUNNEL_KEY_BYTES) {
        listing->has_key = true;
        memcpy(listing->public_key, attribute_data(key), TUNNEL_KEY_BYTES);
    }
    if (attributes[WGDEVICE_A_LISTEN_PORT] != NULL)
        listing->port = attribute_u16(attributes[WGDEVICE_A_LISTEN_PORT]);
    if (attributes[WGDEVICE_A_FWMARK] != NULL)
        listing->mark = attribute_u32(attributes[WGDEVICE_A_FWMARK]);
    if (peers == NULL)
        return 0;
    const uint8_t *at = attribute_data(peers);
    size_t left = attribute_length(peers);
    for (const struct nlattr *peer; (peer = next_attribute(&at, &left)) != NULL;)
        write_peer(listing->peers, peer);
    return 0;
}

int wireguard_list(struct netlink *generic, uint16_t family, const char *link, struct text *out, struct error *error)
{
    cleanup_text struct text peers = {0};
    struct tunnel_listing listing;
    struct outgoing question = {0};
    begin(&question, family, WG_CMD_GET_DEVICE, NLM_F_DUMP, 0);
    out_put_text(&question, WGDEVICE_A_IFNAME, link);
    out_end(&question);
    int result = -1;
    for (int tries = 0; tries < DUMP_TRIES_MAX; tries++) {
        listing = (struct tunnel_listing){.peers = &peers};
        peers.length = 0;
        text_puts(&peers, "[");
        result = netlink_dump(generic, &question, wireguard_read, &listing, error);
        if (result == 0 || error->number != EINTR)
            break;
    }
    out_release(&question);
    if (result < 0)
        return fail_in(error, "link %s", link);
    text_puts(out, "{");
    if (listing.has_key) {
        char text[KEY_TEXT_BYTES + 1];
        key_to_text(listing.public_key, text);
        text_key(out, "publicKey");
        text_format(out, "\"%s\"", text);
    }
    text_key(out, "listenPort");
    text_format(out, "%u", listing.port);
    if (listing.mark != 0) {
        text_key(out, "mark");
        text_format(out, "%" PRIu32, listing.mark);
    }
    text_key(out, "peers");
    text_put(out, peers.bytes, peers.length);
    text_puts(out, "]}");
    return peers.failed ? fail(error, ENOMEM, "list the peers of %s", link) : 0;
}
