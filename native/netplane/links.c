#include "netplane/links.h"

#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>

static const char *const kind_names[] = {
    [LINK_DUMMY] = "dummy", [LINK_BRIDGE] = "bridge", [LINK_WIREGUARD] = "wireguard", [LINK_VETH] = "veth", [LINK_VXLAN] = "vxlan"};

static void put_ip(struct outgoing *out, uint16_t type, const struct ip *ip)
{
    if (ip->family != 0)
        out_put(out, type, ip->bytes, ip_size(ip));
}

/*
 * A veth that is not told how many queues it has gets one a processor and, before anybody sees it, uses only the first: to
 * take the others out of use the kernel waits for all of RCU (netif_set_real_num_tx_queues()), on each of the two ends.
 */
static void put_one_queue(struct outgoing *out)
{
    out_put_u32(out, IFLA_NUM_TX_QUEUES, 1);
    out_put_u32(out, IFLA_NUM_RX_QUEUES, 1);
}

static void put_link_data(struct outgoing *out, const struct link_fields *link, const struct message_context *context)
{
    size_t data = out_nest(out, IFLA_INFO_DATA);
    if (link->kind == LINK_VXLAN) {
        uint16_t port = htons(link->port);
        out_put_u32(out, IFLA_VXLAN_ID, link->vni);
        put_ip(out, link->local.family == AF_INET6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL, &link->local);
        out_put(out, IFLA_VXLAN_PORT, &port, sizeof port);
        out_put_u8(out, IFLA_VXLAN_LEARNING, link->learning);
        if (context->lower != 0)
            out_put_u32(out, IFLA_VXLAN_LINK, context->lower);
    } else if (link->kind == LINK_VETH) {
        size_t peer = out_nest(out, VETH_INFO_PEER);
        out_raw(out, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg));
        out_put_text(out, IFLA_IFNAME, link->peer_name);
        put_one_queue(out);
        if (link->peer_mtu != 0)
            out_put_u32(out, IFLA_MTU, link->peer_mtu);
        if (link->peer_mac.set)
            out_put(out, IFLA_ADDRESS, link->peer_mac.bytes, MAC_BYTES);
        if (context->namespace_fd >= 0)
            out_put_u32(out, IFLA_NET_NS_FD, (uint32_t)context->namespace_fd);
        out_nest_end(out, peer);
    }
    out_nest_end(out, data);
}

/* rtnl_link_ops of inet6: IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE: u8 } }, taken of links that are there. */
static void put_no_link_local(struct outgoing *out, const struct link_fields *link, const struct message_context *context)
{
    struct ifinfomsg header = {.ifi_index = (int)context->link};
    out_begin(out, RTM_NEWLINK, 0, &header, sizeof header, context->owner);
    if (context->link == 0)
        out_put_text(out, IFLA_IFNAME, link->name);
    size_t families = out_nest(out, IFLA_AF_SPEC), family = out_nest(out, AF_INET6);
    out_put_u8(out, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    out_nest_end(out, family);
    out_nest_end(out, families);
    out_end(out);
}

void put_link_add(struct outgoing *out, const struct link_fields *link, const struct message_context *context)
{
    /* An address of IPv6 is made when the link goes up. */
    bool later = link->up == 1 && link->link_local == 0;
    struct ifinfomsg header = {.ifi_change = IFF_UP, .ifi_flags = link->up == 1 && !later ? IFF_UP : 0};
    out_begin(out, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header, context->owner);
    out_put_text(out, IFLA_IFNAME, link->name);
    if (link->mtu != 0)
        out_put_u32(out, IFLA_MTU, link->mtu);
    if (link->mac.set)
        out_put(out, IFLA_ADDRESS, link->mac.bytes, MAC_BYTES);
    if (link->master != NULL)
        out_put_u32(out, IFLA_MASTER, context->master);
    if (link->target != NULL)
        out_put_u32(out, IFLA_NET_NS_FD, (uint32_t)context->namespace_fd);
    if (link->kind == LINK_VETH)
        put_one_queue(out);
    size_t info = out_nest(out, IFLA_LINKINFO);
    out_put_text(out, IFLA_INFO_KIND, kind_names[link->kind]);
    if (link->kind == LINK_VXLAN || link->kind == LINK_VETH)
        put_link_data(out, link, context);
    out_nest_end(out, info);
    out_end(out);
    if (link->link_local == 0)
        put_no_link_local(out, link, &(struct message_context){.owner = context->owner});
    if (link->alias == NULL && !later)
        return;
    /* The kernel takes no alias when it makes a link. */
    header = (struct ifinfomsg){.ifi_change = later ? IFF_UP : 0, .ifi_flags = later ? IFF_UP : 0};
    out_begin(out, RTM_NEWLINK, 0, &header, sizeof header, context->owner);
    out_put_text(out, IFLA_IFNAME, link->name);
    if (link->alias != NULL)
        out_put(out, IFLA_IFALIAS, link->alias, strlen(link->alias));
    out_end(out);
}

void put_link_set(struct outgoing *out, const struct link_fields *link, const struct message_context *context)
{
    struct ifinfomsg header = {.ifi_index = (int)context->link};
    if (link->link_local == 0)
        put_no_link_local(out, link, context);
    if (link->up >= 0) {
        header.ifi_change = IFF_UP;
        header.ifi_flags = link->up == 1 ? IFF_UP : 0;
    }
    out_begin(out, RTM_NEWLINK, 0, &header, sizeof header, context->owner);
    if (link->rename != NULL || context->link == 0)
        out_put_text(out, IFLA_IFNAME, link->rename != NULL ? link->rename : link->name);
    if (link->mtu != 0)
        out_put_u32(out, IFLA_MTU, link->mtu);
    if (link->mac.set)
        out_put(out, IFLA_ADDRESS, link->mac.bytes, MAC_BYTES);
    if (link->master != NULL)
        out_put_u32(out, IFLA_MASTER, context->master);
    if (link->alias != NULL)
        out_put(out, IFLA_IFALIAS, link->alias, strlen(link->alias));
    out_end(out);
}

/* rtnl_link_ops of inet: IFLA_AF_SPEC { AF_INET { IFLA_INET_CONF { setting: u32 } } }, taken of links that are there. */
void put_link_settings(struct outgoing *out, const char *link, const struct link_setting *settings, size_t count, uint32_t owner)
{
    out_begin(out, RTM_NEWLINK, 0, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg), owner);
    out_put_text(out, IFLA_IFNAME, link);
    size_t families = out_nest(out, IFLA_AF_SPEC);
    size_t family = out_nest(out, AF_INET);
    size_t values = out_nest(out, IFLA_INET_CONF);
    for (size_t i = 0; i < count; i++)
        out_put_u32(out, settings[i].setting, settings[i].value);
    out_nest_end(out, values);
    out_nest_end(out, family);
    out_nest_end(out, families);
    out_end(out);
}

void put_link_delete(struct outgoing *out, const char *name, uint32_t owner)
{
    out_begin(out, RTM_DELLINK, 0, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg), owner);
    out_put_text(out, IFLA_IFNAME, name);
    out_end(out);
}

void put_link_settle(struct outgoing *out, const char *name, uint32_t owner)
{
    out_begin(out, RTM_GETLINK, 0, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg), owner);
    out_put_text(out, IFLA_IFNAME, name);
    out_put_u32(out, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    out_end(out);
}

void put_address(struct outgoing *out, const struct address_fields *address, bool remove, const struct message_context *context)
{
    const struct ip *ip = &address->address.ip;
    struct ifaddrmsg header = {
        .ifa_family = ip->family, .ifa_prefixlen = address->address.length, .ifa_index = context->link};
    uint32_t flags = address->no_prefix_route ? IFA_F_NOPREFIXROUTE : 0;
    if (ip->family == AF_INET6)
        flags |= IFA_F_NODAD; /* our addresses are given by a manager: no second of waiting for a twin */
    out_begin(out, remove ? RTM_DELADDR : RTM_NEWADDR, remove ? 0 : NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header,
              context->owner);
    put_ip(out, IFA_LOCAL, ip);
    put_ip(out, IFA_ADDRESS, ip);
    if (!remove)
        out_put_u32(out, IFA_FLAGS, flags);
    out_end(out);
}

/* ip-route(8): what a route without a word about it has. */
static uint8_t usual_scope(const struct route_fields *route)
{
    return route->destination.ip.family == AF_INET6 ? RT_SCOPE_UNIVERSE
           : route->type == RTN_LOCAL               ? RT_SCOPE_HOST
           : route->type == RTN_UNICAST && route->via.family == 0 ? RT_SCOPE_LINK
                                                                  : RT_SCOPE_UNIVERSE;
}

void put_route(struct outgoing *out, const struct route_fields *route, enum operation_kind kind, const struct message_context *context)
{
    bool remove = kind == OP_ROUTE_DELETE;
    struct rtmsg header = {
        .rtm_family = route->destination.ip.family,
        .rtm_dst_len = route->destination.length,
        .rtm_table = route->table < 256 ? (uint8_t)route->table : RT_TABLE_UNSPEC,
        .rtm_protocol = OWN_PROTOCOL,
        .rtm_scope = route->scope_set ? route->scope : remove ? RT_SCOPE_NOWHERE : usual_scope(route),
        .rtm_type = remove && route->type == RTN_UNICAST ? RTN_UNSPEC : route->type,
        .rtm_flags = route->onlink ? RTNH_F_ONLINK : 0,
    };
    uint16_t flags = kind == OP_ROUTE_ADD ? NLM_F_CREATE | NLM_F_EXCL : kind == OP_ROUTE_REPLACE ? NLM_F_CREATE | NLM_F_REPLACE : 0;
    out_begin(out, remove ? RTM_DELROUTE : RTM_NEWROUTE, flags, &header, sizeof header, context->owner);
    put_ip(out, RTA_DST, &route->destination.ip);
    put_ip(out, RTA_GATEWAY, &route->via);
    put_ip(out, RTA_PREFSRC, &route->source);
    if (context->link != 0)
        out_put_u32(out, RTA_OIF, context->link);
    if (route->metric != 0)
        out_put_u32(out, RTA_PRIORITY, route->metric);
    if (route->table >= 256)
        out_put_u32(out, RTA_TABLE, route->table);
    out_end(out);
}

void put_neighbour(struct outgoing *out, const struct neighbour_fields *neighbour, bool remove, const struct message_context *context)
{
    struct ndmsg header = {
        .ndm_family = neighbour->address.family, .ndm_ifindex = (int)context->link, .ndm_state = NUD_PERMANENT};
    out_begin(out, remove ? RTM_DELNEIGH : RTM_NEWNEIGH, remove ? 0 : NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header,
              context->owner);
    put_ip(out, NDA_DST, &neighbour->address);
    if (!remove)
        out_put(out, NDA_LLADDR, neighbour->mac.bytes, MAC_BYTES);
    out_end(out);
}

void put_fdb(struct outgoing *out, const struct neighbour_fields *entry, bool remove, const struct message_context *context)
{
    struct ndmsg header = {
        .ndm_family = AF_BRIDGE, .ndm_ifindex = (int)context->link, .ndm_state = NUD_PERMANENT, .ndm_flags = NTF_SELF};
    out_begin(out, remove ? RTM_DELNEIGH : RTM_NEWNEIGH, remove ? 0 : NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header,
              context->owner);
    out_put(out, NDA_LLADDR, entry->mac.bytes, MAC_BYTES);
    put_ip(out, NDA_DST, &entry->address);
    out_end(out);
}

void put_rule(struct outgoing *out, const struct rule_fields *rule, bool remove, const struct message_context *context)
{
    struct fib_rule_hdr header = {
        .family = rule->family,
        .dst_len = rule->to.length,
        .src_len = rule->from.length,
        .table = rule->table < 256 ? (uint8_t)rule->table : RT_TABLE_UNSPEC,
        .action = FR_ACT_TO_TBL,
    };
    out_begin(out, remove ? RTM_DELRULE : RTM_NEWRULE, remove ? 0 : NLM_F_CREATE | NLM_F_EXCL, &header, sizeof header,
              context->owner);
    out_put_u32(out, FRA_PRIORITY, rule->preference);
    out_put_u32(out, FRA_TABLE, rule->table);
    out_put_u8(out, FRA_PROTOCOL, OWN_PROTOCOL);
    if (rule->marked) {
        out_put_u32(out, FRA_FWMARK, rule->mark);
        out_put_u32(out, FRA_FWMASK, rule->mask);
    }
    put_ip(out, FRA_SRC, &rule->from.ip);
    put_ip(out, FRA_DST, &rule->to.ip);
    if (rule->input_link != NULL)
        out_put_text(out, FRA_IIFNAME, rule->input_link);
    if (rule->output_link != NULL)
        out_put_text(out, FRA_OIFNAME, rule->output_link);
    out_end(out);
}
