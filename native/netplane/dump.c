/* What the kernel has, in the words of the operations that make it; members that have their default are left out. */
#include "common/fd.h"
#include "netplane/links.h"

#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>

enum { DUMP_TRIES_MAX = 5 };

static void copy_text(char *out, size_t room, const struct nlattr *attribute)
{
    size_t length = attribute == NULL ? 0 : strnlen(attribute_data(attribute), attribute_length(attribute));
    length = length < room ? length : room - 1;
    if (length > 0)
        memcpy(out, attribute_data(attribute), length);
    out[length] = '\0';
}

static bool read_ip(const struct nlattr *attribute, uint8_t family, struct ip *out)
{
    *out = (struct ip){.family = family};
    if (attribute == NULL || attribute_length(attribute) != ip_size(out))
        return false;
    memcpy(out->bytes, attribute_data(attribute), ip_size(out));
    return true;
}

static void read_vxlan(const struct nlattr *data, struct link_row *out)
{
    const struct nlattr *attributes[IFLA_VXLAN_LOCAL6 + 1];
    attributes_read(attribute_data(data), attribute_length(data), attributes, IFLA_VXLAN_LOCAL6);
    out->vni = attribute_u32(attributes[IFLA_VXLAN_ID]);
    out->port = ntohs(attribute_u16(attributes[IFLA_VXLAN_PORT]));
    out->learning = attribute_u8(attributes[IFLA_VXLAN_LEARNING]) != 0;
    out->lower = attribute_u32(attributes[IFLA_VXLAN_LINK]);
    if (!read_ip(attributes[IFLA_VXLAN_LOCAL], AF_INET, &out->local) &&
        !read_ip(attributes[IFLA_VXLAN_LOCAL6], AF_INET6, &out->local))
        out->local = (struct ip){0};
}

bool read_link(const struct nlmsghdr *message, struct link_row *out)
{
    const struct ifinfomsg *header = message_header(message, sizeof *header);
    if (header == NULL || header->ifi_family != AF_UNSPEC)
        return false;
    _Static_assert(IFLA_IFALIAS > IFLA_LINKINFO, "the last that is looked at");
    const struct nlattr *attributes[IFLA_IFALIAS + 1];
    message_attributes(message, sizeof *header, attributes, IFLA_IFALIAS);
    *out = (struct link_row){
        .index = (uint32_t)header->ifi_index,
        .up = (header->ifi_flags & IFF_UP) != 0,
        .mtu = attribute_u32(attributes[IFLA_MTU]),
        .master = attribute_u32(attributes[IFLA_MASTER]),
    };
    copy_text(out->name, sizeof out->name, attributes[IFLA_IFNAME]);
    copy_text(out->alias, sizeof out->alias, attributes[IFLA_IFALIAS]);
    out->own = strncmp(out->alias, OWN_ALIAS, strlen(OWN_ALIAS)) == 0;
    const struct nlattr *mac = attributes[IFLA_ADDRESS];
    if (mac != NULL && attribute_length(mac) == MAC_BYTES) {
        out->mac_set = true;
        memcpy(out->mac, attribute_data(mac), MAC_BYTES);
    }
    const struct nlattr *info[IFLA_INFO_DATA + 1];
    if (attributes[IFLA_LINKINFO] == NULL)
        return true;
    attributes_read(attribute_data(attributes[IFLA_LINKINFO]), attribute_length(attributes[IFLA_LINKINFO]), info, IFLA_INFO_DATA);
    copy_text(out->kind, sizeof out->kind, info[IFLA_INFO_KIND]);
    if (strcmp(out->kind, "vxlan") == 0 && info[IFLA_INFO_DATA] != NULL)
        read_vxlan(info[IFLA_INFO_DATA], out);
    return true;
}

static int add_link(void *context, const struct nlmsghdr *message, struct error *error)
{
    struct link_table *table = context;
    if (table->count == table->room) {
        size_t room = table->room == 0 ? 64 : table->room * 2;
        struct link_row *grown = realloc(table->rows, room * sizeof *grown);
        if (grown == NULL)
            return fail(error, ENOMEM, "read links");
        table->rows = grown;
        table->room = room;
    }
    if (message->nlmsg_type == RTM_NEWLINK && read_link(message, &table->rows[table->count]))
        table->count++;
    return 0;
}

static int by_index(const void *a, const void *b)
{
    uint32_t left = ((const struct link_row *)a)->index, right = ((const struct link_row *)b)->index;
    return left < right ? -1 : left > right;
}

static int dump_of(struct netlink *route, uint16_t type, const void *header, size_t length, uint32_t link_mask,
                   message_handler *handler, void *context, struct error *error)
{
    struct outgoing question = {0};
    out_begin(&question, type, NLM_F_DUMP, header, length, 0);
    if (link_mask != 0)
        out_put_u32(&question, IFLA_EXT_MASK, link_mask);
    out_end(&question);
    int result = netlink_dump(route, &question, handler, context, error);
    out_release(&question);
    return result;
}

int links_read(struct netlink *route, struct link_table *out, struct error *error)
{
    int result = -1;
    for (int tries = 0; tries < DUMP_TRIES_MAX && result < 0; tries++) {
        out->count = 0;
        result = dump_of(route, RTM_GETLINK, &(struct ifinfomsg){0}, sizeof(struct ifinfomsg), RTEXT_FILTER_SKIP_STATS, add_link,
                         out, error);
        if (result < 0 && error->number != EINTR)
            return -1;
    }
    if (result == 0 && out->count > 0)
        qsort(out->rows, out->count, sizeof *out->rows, by_index);
    return result;
}

const struct link_row *links_find(const struct link_table *table, uint32_t index)
{
    struct link_row wanted = {.index = index};
    return table->count == 0 ? NULL : bsearch(&wanted, table->rows, table->count, sizeof wanted, by_index);
}

void links_release(struct link_table *table)
{
    free(table->rows);
    *table = (struct link_table){0};
}

struct dump {
    struct text *out;
    struct link_table links;
    message_handler *write;
    uint8_t family;
    bool all;
};

static void write_text(struct text *out, const char *key, const char *value)
{
    text_key(out, key);
    text_quote(out, value, strlen(value));
}

static void write_number(struct text *out, const char *key, uint64_t value)
{
    text_key(out, key);
    text_format(out, "%llu", (unsigned long long)value);
}

static void write_true(struct text *out, const char *key)
{
    text_key(out, key);
    text_puts(out, "true");
}

static void write_ip(struct text *out, const char *key, const struct ip *ip)
{
    char text[INET6_ADDRSTRLEN];
    write_text(out, key, ip_to_text(ip, text));
}

static void write_prefix(struct text *out, const char *key, const struct prefix *prefix)
{
    char text[PREFIX_TEXT_MAX];
    write_text(out, key, prefix_to_text(prefix, text));
}

static void write_mac(struct text *out, const char *key, const void *bytes)
{
    char text[MAC_TEXT_MAX];
    write_text(out, key, mac_to_text(bytes, text));
}

static void open_object(struct text *out)
{
    text_comma(out);
    text_put(out, "{", 1);
}

static void close_object(struct text *out)
{
    text_put(out, "}", 1);
}

static void write_links(const struct dump *dump)
{
    struct text *out = dump->out;
    for (size_t i = 0; i < dump->links.count; i++) {
        const struct link_row *row = &dump->links.rows[i];
        const struct link_row *master = row->master == 0 ? NULL : links_find(&dump->links, row->master);
        if (!row->own && !dump->all)
            continue;
        open_object(out);
        write_text(out, "name", row->name);
        write_number(out, "index", row->index);
        if (row->kind[0] != '\0')
            write_text(out, "kind", row->kind);
        text_key(out, "up");
        text_puts(out, row->up ? "true" : "false");
        write_number(out, "mtu", row->mtu);
        if (row->mac_set)
            write_mac(out, "mac", row->mac);
        if (master != NULL)
            write_text(out, "master", master->name);
        if (row->alias[0] != '\0')
            write_text(out, "alias", row->alias);
        if (strcmp(row->kind, "vxlan") == 0) {
            write_number(out, "vni", row->vni);
            if (row->local.family != 0)
                write_ip(out, "local", &row->local);
            write_number(out, "port", row->port);
            text_key(out, "learning");
            text_puts(out, row->learning ? "true" : "false");
            if (row->lower != 0)
                write_number(out, "lower", row->lower);
        }
        close_object(out);
    }
}

/* The link of an object that is to be told, or NULL. */
static const struct link_row *wanted_link(const struct dump *dump, uint32_t index)
{
    const struct link_row *link = links_find(&dump->links, index);
    return link != NULL && (link->own || dump->all) ? link : NULL;
}

static int write_address(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct dump *dump = context;
    const struct ifaddrmsg *header = message_header(message, sizeof *header);
    if (header == NULL || message->nlmsg_type != RTM_NEWADDR)
        return fail(error, EBADMSG, "read an address");
    const struct link_row *link = wanted_link(dump, header->ifa_index);
    const struct nlattr *attributes[IFA_FLAGS + 1];
    message_attributes(message, sizeof *header, attributes, IFA_FLAGS);
    struct prefix prefix = {.length = header->ifa_prefixlen};
    /* fe80::/64 of the kernel's own making is nobody's wish. */
    bool automatic = header->ifa_family == AF_INET6 && header->ifa_scope == RT_SCOPE_LINK;
    if (link == NULL || (automatic && !dump->all) ||
        (!read_ip(attributes[IFA_LOCAL], header->ifa_family, &prefix.ip) &&
         !read_ip(attributes[IFA_ADDRESS], header->ifa_family, &prefix.ip)))
        return 0;
    open_object(dump->out);
    write_prefix(dump->out, "address", &prefix);
    write_text(dump->out, "link", link->name);
    if ((attribute_u32(attributes[IFA_FLAGS]) & IFA_F_NOPREFIXROUTE) != 0)
        write_true(dump->out, "noPrefixRoute");
    close_object(dump->out);
    return 0;
}

static const char *type_name(uint8_t type)
{
    return type == RTN_BLACKHOLE     ? "blackhole"
           : type == RTN_UNREACHABLE ? "unreachable"
           : type == RTN_PROHIBIT    ? "prohibit"
           : type == RTN_LOCAL       ? "local"
                                     : NULL;
}

/* The scope as far as it is not what a route of this kind has anyway. */
static void write_scope(struct text *out, const struct rtmsg *header, bool via)
{
    uint8_t usual = header->rtm_type == RTN_LOCAL ? RT_SCOPE_HOST : header->rtm_type == RTN_UNICAST && !via ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    if (header->rtm_family != AF_INET || header->rtm_scope == usual)
        return;
    if (header->rtm_scope == RT_SCOPE_UNIVERSE || header->rtm_scope == RT_SCOPE_LINK || header->rtm_scope == RT_SCOPE_HOST)
        write_text(out, "scope", header->rtm_scope == RT_SCOPE_UNIVERSE ? "global" : header->rtm_scope == RT_SCOPE_LINK ? "link" : "host");
}

static int write_route(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct dump *dump = context;
    const struct rtmsg *header = message_header(message, sizeof *header);
    if (header == NULL || message->nlmsg_type != RTM_NEWROUTE)
        return fail(error, EBADMSG, "read a route");
    const struct nlattr *attributes[RTA_TABLE + 1];
    message_attributes(message, sizeof *header, attributes, RTA_TABLE);
    uint32_t table = attributes[RTA_TABLE] != NULL ? attribute_u32(attributes[RTA_TABLE]) : header->rtm_table;
    bool own = header->rtm_protocol == OWN_PROTOCOL;
    if ((!own && (!dump->all || table == RT_TABLE_LOCAL)) || (header->rtm_flags & RTM_F_CLONED) != 0 ||
        (header->rtm_type != RTN_UNICAST && type_name(header->rtm_type) == NULL))
        return 0;
    struct prefix destination = {.length = header->rtm_dst_len, .ip = {.family = header->rtm_family}};
    struct ip via, source;
    (void)read_ip(attributes[RTA_DST], header->rtm_family, &destination.ip); /* the default route has none */
    bool has_via = read_ip(attributes[RTA_GATEWAY], header->rtm_family, &via);
    uint32_t index = attribute_u32(attributes[RTA_OIF]), metric = attribute_u32(attributes[RTA_PRIORITY]);
    const struct link_row *link = index == 0 ? NULL : links_find(&dump->links, index);
    struct text *out = dump->out;
    open_object(out);
    write_prefix(out, "destination", &destination);
    if (header->rtm_type != RTN_UNICAST)
        write_text(out, "type", type_name(header->rtm_type));
    /* IPv6 ties what leads nowhere to the loopback link. */
    if (link != NULL && (header->rtm_type == RTN_UNICAST || header->rtm_type == RTN_LOCAL))
        write_text(out, "link", link->name);
    if (has_via)
        write_ip(out, "via", &via);
    if ((header->rtm_flags & RTNH_F_ONLINK) != 0)
        write_true(out, "onlink");
    if (read_ip(attributes[RTA_PREFSRC], header->rtm_family, &source))
        write_ip(out, "source", &source);
    write_scope(out, header, has_via);
    if (table != RT_TABLE_MAIN)
        write_number(out, "table", table);
    if (metric != 0 && (header->rtm_family == AF_INET || metric != 1024)) /* IPV6_ROUTE: 1024 stands for none */
        write_number(out, "metric", metric);
    if (dump->all && !own)
        write_number(out, "protocol", header->rtm_protocol);
    close_object(out);
    return 0;
}

/* Neighbours of both families and, with family AF_BRIDGE, FDB entries. */
static int write_neighbour(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct dump *dump = context;
    const struct ndmsg *header = message_header(message, sizeof *header);
    if (header == NULL || message->nlmsg_type != RTM_NEWNEIGH)
        return fail(error, EBADMSG, "read a neighbour");
    bool fdb = header->ndm_family == AF_BRIDGE;
    const struct link_row *link = wanted_link(dump, (uint32_t)header->ndm_ifindex);
    const struct nlattr *attributes[NDA_LLADDR + 1];
    message_attributes(message, sizeof *header, attributes, NDA_LLADDR);
    const struct nlattr *mac = attributes[NDA_LLADDR], *address = attributes[NDA_DST];
    struct ip ip;
    if (link == NULL || mac == NULL || address == NULL || attribute_length(mac) != MAC_BYTES ||
        (header->ndm_state & NUD_PERMANENT) == 0 ||
        !read_ip(address, attribute_length(address) == 4 ? AF_INET : AF_INET6, &ip))
        return 0;
    open_object(dump->out);
    if (!fdb)
        write_ip(dump->out, "address", &ip);
    write_mac(dump->out, "mac", attribute_data(mac));
    write_text(dump->out, "link", link->name);
    if (fdb)
        write_ip(dump->out, "destination", &ip);
    close_object(dump->out);
    return 0;
}

static int write_rule(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct dump *dump = context;
    const struct fib_rule_hdr *header = message_header(message, sizeof *header);
    if (header == NULL || message->nlmsg_type != RTM_NEWRULE)
        return fail(error, EBADMSG, "read a rule");
    const struct nlattr *attributes[FRA_PROTOCOL + 1];
    message_attributes(message, sizeof *header, attributes, FRA_PROTOCOL);
    uint8_t protocol = attribute_u8(attributes[FRA_PROTOCOL]);
    bool own = protocol == OWN_PROTOCOL;
    if ((!own && !dump->all) || header->action != FR_ACT_TO_TBL)
        return 0;
    struct prefix from = {.length = header->src_len}, to = {.length = header->dst_len};
    const char *input = attribute_text(attributes[FRA_IIFNAME]), *output = attribute_text(attributes[FRA_OIFNAME]);
    uint32_t mask = attribute_u32(attributes[FRA_FWMASK]);
    struct text *out = dump->out;
    open_object(out);
    write_number(out, "preference", attribute_u32(attributes[FRA_PRIORITY]));
    if (header->family == AF_INET6)
        write_text(out, "family", "ip6");
    if (attributes[FRA_FWMARK] != NULL || mask != 0) {
        write_number(out, "mark", attribute_u32(attributes[FRA_FWMARK]));
        if (mask != UINT32_MAX)
            write_number(out, "mask", mask);
    }
    if (read_ip(attributes[FRA_SRC], header->family, &from.ip))
        write_prefix(out, "from", &from);
    if (read_ip(attributes[FRA_DST], header->family, &to.ip))
        write_prefix(out, "to", &to);
    if (input != NULL)
        write_text(out, "inputLink", input);
    if (output != NULL)
        write_text(out, "outputLink", output);
    write_number(out, "table", attributes[FRA_TABLE] != NULL ? attribute_u32(attributes[FRA_TABLE]) : header->table);
    if (dump->all && !own)
        write_number(out, "protocol", protocol);
    close_object(out);
    return 0;
}

/* The family is the first byte of each of these headers. A kernel that lacks a family answers with all the others. */
static int write_of_family(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct dump *dump = context;
    const uint8_t *family = message_header(message, 1);
    return family == NULL || *family != dump->family ? 0 : dump->write(context, message, error);
}

/* One dump for each family, until one is seen that nobody changed under way. */
static int write_list(struct netlink *route, struct dump *dump, uint16_t type, const void *headers, size_t length, size_t count,
                      struct error *error)
{
    size_t start = dump->out->length;
    for (int tries = 0; tries < DUMP_TRIES_MAX; tries++) {
        int result = 0;
        dump->out->length = start;
        for (size_t i = 0; i < count && result == 0; i++) {
            const uint8_t *header = (const uint8_t *)headers + i * length;
            dump->family = *header;
            result = dump_of(route, type, header, length, 0, write_of_family, dump, error);
            if (result < 0 && *header == AF_INET6 && (error->number == EOPNOTSUPP || error->number == EAFNOSUPPORT))
                result = 0;
        }
        if (result == 0)
            return 0;
        if (error->number != EINTR)
            return -1;
    }
    return -1;
}

static int write_lists(struct netlink *route, struct dump *dump, unsigned parts, struct error *error)
{
    /* With strict checks the kernel itself leaves out routes of other protocols and tables. */
    uint8_t protocol = dump->all ? 0 : OWN_PROTOCOL;
    const struct ifaddrmsg addresses[] = {{.ifa_family = AF_INET}, {.ifa_family = AF_INET6}};
    const struct rtmsg routes[] = {{.rtm_family = AF_INET, .rtm_protocol = protocol}, {.rtm_family = AF_INET6, .rtm_protocol = protocol}};
    const struct ndmsg neighbours[] = {{.ndm_family = AF_INET}, {.ndm_family = AF_INET6}};
    const struct ndmsg fdb[] = {{.ndm_family = AF_BRIDGE}};
    const struct fib_rule_hdr rules[] = {{.family = AF_INET}, {.family = AF_INET6}};
    const struct {
        unsigned part;
        uint16_t type;
        const char *name;
        const void *headers;
        size_t length;
        size_t count;
        message_handler *handler;
    } lists[] = {
        {DUMP_ADDRESSES, RTM_GETADDR, "addresses", addresses, sizeof *addresses, 2, write_address},
        {DUMP_ROUTES, RTM_GETROUTE, "routes", routes, sizeof *routes, 2, write_route},
        {DUMP_NEIGHBOURS, RTM_GETNEIGH, "neighbours", neighbours, sizeof *neighbours, 2, write_neighbour},
        {DUMP_FDB, RTM_GETNEIGH, "fdb", fdb, sizeof *fdb, 1, write_neighbour},
        {DUMP_RULES, RTM_GETRULE, "rules", rules, sizeof *rules, 2, write_rule},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if ((parts & lists[i].part) == 0)
            continue;
        text_key(dump->out, lists[i].name);
        text_put(dump->out, "[", 1);
        dump->write = lists[i].handler;
        if (write_list(route, dump, lists[i].type, lists[i].headers, lists[i].length, lists[i].count, error) < 0)
            return fail_in(error, "%s", lists[i].name);
        text_put(dump->out, "]", 1);
    }
    return 0;
}

int dump_write(struct netlink *route, unsigned parts, bool all, struct text *out, struct error *error)
{
    struct dump dump = {.out = out, .all = all};
    if (links_read(route, &dump.links, error) < 0) {
        links_release(&dump.links);
        return -1;
    }
    text_put(out, "{", 1);
    if ((parts & DUMP_LINKS) != 0) {
        text_key(out, "links");
        text_put(out, "[", 1);
        write_links(&dump);
        text_put(out, "]", 1);
    }
    int result = write_lists(route, &dump, parts, error);
    text_put(out, "}", 1);
    links_release(&dump.links);
    return result;
}
