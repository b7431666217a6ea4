/*
 * Links, addresses, neighbours, FDB entries, routes and rules: operations become messages (rtnetlink(7)), and messages of dumps
 * become the same words again. Routes and rules carry protocol 200, links of ours an alias.
 */
#ifndef NETPLANE_LINKS_H
#define NETPLANE_LINKS_H

#include "netplane/netlink.h"
#include "netplane/request.h"
#include "netplane/text.h"

#include <net/if.h>

enum { OWN_PROTOCOL = 200 };
#define OWN_ALIAS "skep:"

/* What a message needs of the world besides its operation. */
struct message_context {
    uint32_t owner;
    uint32_t link; /* index of the operation's link */
    uint32_t master;
    uint32_t lower; /* index of the link that carries a vxlan's frames; 0: the routes decide */
    int namespace_fd; /* the peer's or the target's; -1: none */
};

void put_link_add(struct outgoing *out, const struct link_fields *link, const struct message_context *context);
void put_link_set(struct outgoing *out, const struct link_fields *link, const struct message_context *context);
/* One of a link's settings for IPv4 (IPV4_DEVCONF_*), the same as its file below /proc/sys/net/ipv4/conf. */
struct link_setting {
    uint16_t setting;
    uint32_t value;
};
void put_link_settings(struct outgoing *out, const char *link, const struct link_setting *settings, size_t count, uint32_t owner);
void put_link_delete(struct outgoing *out, const char *name, uint32_t owner);
/*
 * A link whose other end was just opened drops what it is to send until the kernel's own worker has looked at it, which may
 * take long on a busy machine. Asked about the link, the kernel looks at once (rtnl_getlink, since Linux 6.8); the answer is
 * of no interest.
 */
void put_link_settle(struct outgoing *out, const char *name, uint32_t owner);
void put_address(struct outgoing *out, const struct address_fields *address, bool remove, const struct message_context *context);
void put_route(struct outgoing *out, const struct route_fields *route, enum operation_kind kind, const struct message_context *context);
void put_neighbour(struct outgoing *out, const struct neighbour_fields *neighbour, bool remove, const struct message_context *context);
void put_fdb(struct outgoing *out, const struct neighbour_fields *entry, bool remove, const struct message_context *context);
void put_rule(struct outgoing *out, const struct rule_fields *rule, bool remove, const struct message_context *context);

/* A link as it was last seen. */
struct link_row {
    uint32_t index;
    uint32_t master;
    uint32_t mtu;
    bool up;
    bool own;
    bool mac_set;
    uint8_t mac[MAC_BYTES];
    char name[IFNAMSIZ];
    char kind[16];
    char alias[ALIAS_MAX + 1];
    uint32_t vni; /* vxlan */
    uint32_t lower; /* in the namespace of its socket */
    uint16_t port;
    bool learning;
    struct ip local;
};

struct link_table {
    struct link_row *rows; /* by index, ascending */
    size_t count;
    size_t room;
};

/* RTM_NEWLINK. False when it is not about a link as a whole (a bridge's port). */
bool read_link(const struct nlmsghdr *message, struct link_row *out);
int links_read(struct netlink *route, struct link_table *out, struct error *error);
const struct link_row *links_find(const struct link_table *table, uint32_t index);
void links_release(struct link_table *table);
#define cleanup_links __attribute__((cleanup(links_release)))

/* `{"links":[...],...}` of what is asked for. */
int dump_write(struct netlink *route, unsigned parts, bool all, struct text *out, struct error *error);

#endif
