#include "netplane/conntrack.h"
#include "common/fd.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

enum { DELETED_TOGETHER_MAX = 1024 };

/* Bits of CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS (5.8, net/netfilter/nf_conntrack_netlink.c: they are in no header). */
enum { BY_SOURCE = 1 << 0, BY_DESTINATION = 1 << 1 };

struct side {
    const struct nlattr *tuple; /* CTA_TUPLE_ORIG or CTA_TUPLE_REPLY */
    struct ip source;
    struct ip destination;
    uint8_t protocol;
    uint16_t port; /* of the destination */
};

struct search {
    const struct connection_fields *const *wanted;
    size_t count;
    uint64_t *found; /* of each that is wanted */
    struct outgoing deletions; /* one message a connection */
};

static uint16_t conntrack_type(uint16_t type)
{
    return (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
}

static bool copy_ip(const struct nlattr *attribute, uint8_t family, struct ip *out)
{
    *out = (struct ip){.family = family};
    if (attribute == NULL || attribute_length(attribute) != ip_size(out))
        return false;
    memcpy(out->bytes, attribute_data(attribute), ip_size(out));
    return true;
}

static bool read_side(const struct nlattr *tuple, uint8_t family, struct side *out)
{
    const struct nlattr *parts[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1], *protocol[CTA_PROTO_MAX + 1];
    if (tuple == NULL)
        return false;
    attributes_read(attribute_data(tuple), attribute_length(tuple), parts, CTA_TUPLE_MAX);
    if (parts[CTA_TUPLE_IP] == NULL || parts[CTA_TUPLE_PROTO] == NULL)
        return false;
    attributes_read(attribute_data(parts[CTA_TUPLE_IP]), attribute_length(parts[CTA_TUPLE_IP]), ip, CTA_IP_MAX);
    attributes_read(attribute_data(parts[CTA_TUPLE_PROTO]), attribute_length(parts[CTA_TUPLE_PROTO]), protocol, CTA_PROTO_MAX);
    bool four = family == AF_INET;
    out->tuple = tuple;
    out->protocol = attribute_u8(protocol[CTA_PROTO_NUM]);
    out->port = ntohs(attribute_u16(protocol[CTA_PROTO_DST_PORT]));
    return copy_ip(ip[four ? CTA_IP_V4_SRC : CTA_IP_V6_SRC], family, &out->source) &&
           copy_ip(ip[four ? CTA_IP_V4_DST : CTA_IP_V6_DST], family, &out->destination);
}

static bool agrees(const struct ip *wanted, const struct ip *found)
{
    return wanted->family == 0 || (wanted->family == found->family && memcmp(wanted->bytes, found->bytes, ip_size(wanted)) == 0);
}

static bool is_wanted(const struct connection_fields *wanted, const struct side *original, const struct side *reply,
                      bool is_answered)
{
    return (!wanted->unanswered || !is_answered) && agrees(&wanted->original_destination, &original->destination) && agrees(&wanted->original_source, &original->source) &&
           agrees(&wanted->reply_source, &reply->source) && (wanted->protocol == 0 || wanted->protocol == original->protocol) &&
           (wanted->port == 0 || wanted->port == original->port);
}

static int collect(void *context, const struct nlmsghdr *message, struct error *error)
{
    struct search *search = context;
    const struct nfgenmsg *header = message_header(message, sizeof *header);
    const struct nlattr *attributes[CTA_MAX + 1];
    struct side original, reply;
    if (header == NULL)
        return fail(error, EBADMSG, "read a tracked connection");
    message_attributes(message, sizeof *header, attributes, CTA_MAX);
    if (!read_side(attributes[CTA_TUPLE_ORIG], header->nfgen_family, &original) ||
        !read_side(attributes[CTA_TUPLE_REPLY], header->nfgen_family, &reply))
        return 0;
    bool is_answered = (ntohl(attribute_u32(attributes[CTA_STATUS])) & IPS_SEEN_REPLY) != 0;
    size_t which = 0;
    while (which < search->count && !is_wanted(search->wanted[which], &original, &reply, is_answered))
        which++;
    if (which == search->count)
        return 0;
    struct nfgenmsg deletion = {.nfgen_family = header->nfgen_family, .version = NFNETLINK_V0};
    struct outgoing *out = &search->deletions;
    out_begin(out, conntrack_type(IPCTNL_MSG_CT_DELETE), 0, &deletion, sizeof deletion, 0);
    out_put(out, CTA_TUPLE_ORIG | NLA_F_NESTED, attribute_data(original.tuple), attribute_length(original.tuple));
    /* Its zone, and its id: another connection of the same addresses that came meanwhile is not meant. */
    static const uint16_t kept[] = {CTA_ZONE, CTA_ID};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (attributes[kept[i]] != NULL)
            out_put(out, kept[i], attribute_data(attributes[kept[i]]), attribute_length(attributes[kept[i]]));
    out_end(out);
    search->found[which]++;
    return out->failed ? fail(error, ENOMEM, "delete tracked connections") : 0;
}

static void put_filter_side(struct outgoing *out, uint16_t type, const struct ip *source, const struct ip *destination)
{
    size_t tuple = out_nest(out, type), ip = out_nest(out, CTA_TUPLE_IP);
    if (source->family != 0)
        out_put(out, source->family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, source->bytes, ip_size(source));
    if (destination->family != 0)
        out_put(out, destination->family == AF_INET ? CTA_IP_V4_DST : CTA_IP_V6_DST, destination->bytes, ip_size(destination));
    out_nest_end(out, ip);
    out_nest_end(out, tuple);
}

/* The kernel leaves out what does not agree, where it knows how; what it tells is compared again. */
static void put_question(struct outgoing *out, const struct connection_fields *wanted, bool filtered)
{
    static const struct ip any = {0};
    uint8_t family = wanted->original_destination.family != 0 ? wanted->original_destination.family
                     : wanted->original_source.family != 0    ? wanted->original_source.family
                                                              : wanted->reply_source.family;
    struct nfgenmsg header = {.nfgen_family = filtered ? family : AF_UNSPEC, .version = NFNETLINK_V0};
    uint32_t original = (wanted->original_source.family != 0 ? BY_SOURCE : 0) |
                        (wanted->original_destination.family != 0 ? BY_DESTINATION : 0);
    uint32_t reply = wanted->reply_source.family != 0 ? BY_SOURCE : 0;
    out_begin(out, conntrack_type(IPCTNL_MSG_CT_GET), NLM_F_DUMP, &header, sizeof header, 0);
    if (filtered) {
        if (original != 0)
            put_filter_side(out, CTA_TUPLE_ORIG, &wanted->original_source, &wanted->original_destination);
        if (reply != 0)
            put_filter_side(out, CTA_TUPLE_REPLY, &wanted->reply_source, &any);
        size_t filter = out_nest(out, CTA_FILTER);
        out_put_u32(out, CTA_FILTER_ORIG_FLAGS, original);
        out_put_u32(out, CTA_FILTER_REPLY_FLAGS, reply);
        out_nest_end(out, filter);
    }
    out_end(out);
}

static int find(struct netlink *filter, struct search *search, struct error *error)
{
    int result = -1;
    for (int tries = 0; tries < 2 && result < 0; tries++) {
        struct outgoing question = {0};
        out_clear(&search->deletions);
        memset(search->found, 0, search->count * sizeof *search->found);
        put_question(&question, search->wanted[0], tries == 0 && search->count == 1);
        result = netlink_dump(filter, &question, collect, search, error);
        out_release(&question);
    }
    return result;
}

/* It may have ended by itself meanwhile. */
static bool forgive_missing(void *context, const struct refusal *refusal)
{
    int *number = context;
    if (refusal->number == ENOENT)
        return true;
    *number = refusal->number;
    return false;
}

/* Sends the deletions in pieces, so that the answers to one piece fit into the socket. */
static int delete_found(struct netlink *filter, struct outgoing *all, struct error *error)
{
    struct outgoing piece = {0};
    int result = 0, number = 0;
    for (size_t i = 0; i < all->count && result == 0;) {
        out_clear(&piece);
        for (; i < all->count && piece.count < DELETED_TOGETHER_MAX; i++) {
            const struct nlmsghdr *message = (const struct nlmsghdr *)(all->bytes + all->places[i].offset);
            out_begin(&piece, message->nlmsg_type, 0, NLMSG_DATA(message), message->nlmsg_len - MESSAGE_HEADER, 0);
            out_end(&piece);
        }
        out_flag_last(&piece, NLM_F_ACK);
        result = netlink_exchange(filter, &piece, piece.count - 1, forgive_missing, &number, error);
        if (result < 0 && error->number == 0)
            fail(error, number, "delete tracked connections");
    }
    out_release(&piece);
    return result;
}

int connections_delete(struct netlink *filter, const struct connection_fields *const *wanted, size_t count, uint64_t *deleted,
                       struct error *error)
{
    struct search search = {.wanted = wanted, .count = count, .found = deleted};
    int result = find(filter, &search, error);
    if (result == 0)
        result = delete_found(filter, &search.deletions, error);
    out_release(&search.deletions);
    return result < 0 ? fail_in(error, "tracked connections") : 0;
}
