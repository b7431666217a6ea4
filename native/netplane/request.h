/*
 * Requests, decoded and checked whole before anything is done. worker/network/netplane-types.ts is their reference.
 * Strings belong to the parsed JSON, which the request owns.
 */
#ifndef NETPLANE_REQUEST_H
#define NETPLANE_REQUEST_H

#include "common/error.h"
#include "netplane/document.h"
#include "netplane/address.h"
#include "netplane/element.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REQUEST_BYTES_MAX = 16 * 1024 * 1024,
    BATCHES_MAX = 1024,       /* in a request */
    OPERATIONS_MAX = 100000,  /* in a request */
    ELEMENTS_MAX = 300000,    /* in an operation */
    IGNORED_MAX = 4,          /* errors that are fine, an operation */
    NAMESPACE_PATH_MAX = 1000,
    ALIAS_MAX = 255, /* IFALIASZ */
    SYSCTL_NAME_MAX = 200,
    SYSCTL_VALUE_MAX = 255,
    RULESET_BYTES_MAX = 4 * 1024 * 1024,
    TUNNEL_KEY_BYTES = 32, /* WireGuard's */
    ALLOWED_MAX = 64,      /* prefixes that a WireGuard peer may send from */
};

enum operation_kind {
    OP_NAMESPACE_ADD,
    OP_NAMESPACE_DELETE,
    OP_LINK_ADD,
    OP_LINK_SET,
    OP_LINK_DELETE,
    OP_LINK_SETTLE,
    OP_ADDRESS_SET,
    OP_ADDRESS_DELETE,
    OP_ROUTE_ADD,
    OP_ROUTE_REPLACE,
    OP_ROUTE_DELETE,
    OP_NEIGHBOUR_SET,
    OP_NEIGHBOUR_DELETE,
    OP_FDB_SET,
    OP_FDB_DELETE,
    OP_RULE_ADD,
    OP_RULE_DELETE,
    OP_SYSCTL_WRITE,
    OP_SYSCTL_READ,
    OP_RULESET,
    OP_RULESET_LIST,
    OP_ELEMENTS,
    OP_ELEMENTS_LIST,
    OP_BALANCE,
    OP_CHAIN_DELETE,
    OP_GENERATION,
    OP_CONNECTIONS_DELETE,
    OP_PORT_RESERVE,
    OP_PORT_RELEASE,
    OP_DUMP,
    OP_WATCH,
    OP_UNWATCH,
    OP_WIREGUARD_PROBE,
    OP_WIREGUARD_SET,
    OP_WIREGUARD_PEER_SET,
    OP_WIREGUARD_PEER_DELETE,
    OP_WIREGUARD_LIST,
    OP_COUNT,
};

enum link_kind { LINK_DUMMY, LINK_BRIDGE, LINK_WIREGUARD, LINK_VETH, LINK_VXLAN };

struct link_fields {
    const char *name;
    const char *master; /* "": out of its bridge */
    const char *alias;
    const char *rename;
    const char *target;         /* namespace; NULL: the batch's */
    const char *peer_name;      /* veth */
    const char *peer_namespace; /* NULL: the batch's */
    const char *lower;          /* vxlan: its frames leave by this link of the batch's namespace; NULL: by the routes */
    enum link_kind kind;
    uint32_t mtu; /* 0: not given */
    uint32_t peer_mtu;
    uint32_t vni;
    uint16_t port;
    int8_t up; /* -1: not given */
    int8_t link_local; /* 0: IPv6 makes no address of its own; -1: not given */
    bool learning;
    struct mac mac;
    struct mac peer_mac;
    struct ip local;
};

struct address_fields {
    const char *link;
    struct prefix address;
    bool no_prefix_route;
};

struct route_fields {
    const char *link;
    struct prefix destination;
    struct ip via;
    struct ip source;
    uint32_t table;
    uint32_t metric;
    uint8_t type; /* RTN_* */
    uint8_t scope;
    bool scope_set;
    bool onlink;
};

/* Neighbours, and FDB entries with their destination. */
struct neighbour_fields {
    const char *link;
    struct ip address;
    struct mac mac;
};

struct rule_fields {
    const char *input_link;
    const char *output_link;
    struct prefix from; /* family 0: any */
    struct prefix to;
    uint32_t preference;
    uint32_t mark;
    uint32_t mask;
    uint32_t table;
    uint8_t family;
    bool marked;
};

struct connection_fields {
    struct ip original_destination;
    struct ip original_source;
    struct ip reply_source;
    uint16_t port;    /* 0: any */
    uint8_t protocol; /* 0: any */
    bool unanswered;  /* only those whose other end has said nothing */
};

struct port_fields {
    struct ip address; /* family 0: all */
    uint16_t port;
    uint8_t protocol;
};

/* A WireGuard link, or a peer of it. */
struct tunnel_fields {
    const char *link;
    const struct value *allowed; /* array of strings that are prefixes, or NULL */
    struct ip endpoint;          /* family 0: not given */
    uint16_t port;               /* of the endpoint, or to listen on; 0: not given */
    uint16_t keepalive_seconds;  /* 0: none */
    uint8_t key[TUNNEL_KEY_BYTES]; /* the link's private one, or the peer's public one */
    bool key_set;
};

enum dump_part {
    DUMP_LINKS = 1,
    DUMP_ADDRESSES = 2,
    DUMP_ROUTES = 4,
    DUMP_NEIGHBOURS = 8,
    DUMP_FDB = 16,
    DUMP_RULES = 32,
};

struct element_fields {
    const struct element_set *set; /* in the request's own list */
    const struct value *add;       /* arrays of strings that are elements of the set, or NULL */
    const struct value *remove;
    bool flush;
};

/* What a balancing chain draws a target for. */
enum balanced_by { BALANCE_IP_ADDRESS, BALANCE_IP6_ADDRESS, BALANCE_TCP_PORT, BALANCE_UDP_PORT };

struct balance_fields {
    const char *table;
    const char *chain; /* no more than this far, and the family, is needed to delete it */
    const char *map;
    uint32_t slots;
    enum balanced_by by;
    uint8_t family; /* NFPROTO_IPV4 or NFPROTO_IPV6 */
};

struct operation {
    enum operation_kind kind;
    uint8_t ignored[IGNORED_MAX]; /* errno values, 0: none */
    union {
        const char *path;
        struct link_fields link;
        struct address_fields address;
        struct route_fields route;
        struct neighbour_fields neighbour;
        struct rule_fields rule;
        struct connection_fields connection;
        struct port_fields port;
        struct element_fields elements;
        struct balance_fields balance;
        struct tunnel_fields tunnel;
        struct {
            const char *name;
            const char *value;
        } sysctl;
        struct {
            const char *text;
            const char *table;
            uint8_t family;
        } ruleset;
        struct {
            unsigned parts;
            bool all;
        } dump;
    };
};

struct batch {
    const char *namespace_path; /* "": netplane's own */
    size_t first;               /* of request.operations */
    size_t count;
};

struct set_list {
    struct set_list *next;
    struct element_set set;
};

struct request {
    uint64_t id; /* 0 when it could not be read */
    size_t batches_count;
    size_t operations_count;
    struct batch *batches;
    struct operation *operations;
    struct set_list *sets;
    struct document document; /* what texts and lists of operations lie in */
    /* Where the first mistake is, when decoding fails. */
    size_t failed_batch;
    size_t failed_operation;
};

/* The text is changed, and has to stay until the request is released. On failure `request` tells its id and place if these could be read, and `error.number` is EBADMSG or EINVAL. */
int request_decode(char *text, size_t length, struct request *request, struct error *error);
void request_release(struct request *request);
#define cleanup_request __attribute__((cleanup(request_release)))

/* "link-add" and so on. */
const char *operation_name(enum operation_kind kind);

#endif
