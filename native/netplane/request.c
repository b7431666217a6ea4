#include "netplane/request.h"
#include "common/fd.h"
#include "netplane/wireguard.h"

#include <linux/fib_rules.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

/*
 * Reads the members of one object. The first mistake is remembered and the rest then reads as missing, so that a decoder is
 * a list of its fields; `finish` refuses members that nobody asked for, which would otherwise be mistakes without a sign.
 */
struct reader {
    const struct value *object;
    uint32_t taken;
    bool failed;
    struct error *error;
};

#define wrong(reader, ...) ((reader)->failed ? (void)0 : ((reader)->failed = true, (void)fail((reader)->error, EINVAL, __VA_ARGS__)))

static const struct value *take(struct reader *reader, const char *key, enum value_kind kind, bool required)
{
    if (reader->failed)
        return NULL;
    const struct value *member = value_member(reader->object, key);
    if (member == NULL) {
        if (required)
            wrong(reader, "property %s is required", key);
        return NULL;
    }
    reader->taken++;
    if (member->kind != kind) {
        wrong(reader, "property %s must be of type %s", key, value_kind_name(kind));
        return NULL;
    }
    return member;
}

static void finish(struct reader *reader)
{
    if (!reader->failed && reader->object->count != reader->taken)
        wrong(reader, "it has a property that is not known, or not for this kind");
}

/* A string of `min` to `max` bytes, or NULL. */
static const char *take_text(struct reader *reader, const char *key, size_t min, size_t max, bool required)
{
    const struct value *member = take(reader, key, VALUE_STRING, required);
    if (member == NULL)
        return NULL;
    if (member->count >= min && member->count <= max)
        return member->string;
    wrong(reader, "property %s has %u bytes: from %zu to %zu are accepted", key, member->count, min, max);
    return NULL;
}

static uint64_t take_number(struct reader *reader, const char *key, uint64_t min, uint64_t max, uint64_t otherwise, bool required)
{
    const struct value *member = take(reader, key, VALUE_INTEGER, required);
    if (member == NULL)
        return otherwise;
    if (member->integer >= 0 && (uint64_t)member->integer >= min && (uint64_t)member->integer <= max)
        return (uint64_t)member->integer;
    wrong(reader, "property %s must be from %llu to %llu", key, (unsigned long long)min, (unsigned long long)max);
    return otherwise;
}

static int8_t take_flag(struct reader *reader, const char *key, int8_t otherwise)
{
    const struct value *member = take(reader, key, VALUE_BOOLEAN, false);
    return member == NULL ? otherwise : member->boolean;
}

/* netdevice(7), dev_valid_name(): no slash, colon or white space, not "." or "..". Ours are printable besides. */
static bool link_name_valid(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (name[i] <= ' ' || name[i] == 0x7f || strchr("/:%", name[i]) != NULL)
            return false;
    return true;
}

static const char *take_link(struct reader *reader, const char *key, bool required)
{
    const char *name = take_text(reader, key, 1, IFNAMSIZ - 1, required);
    if (name != NULL && !link_name_valid(name))
        wrong(reader, "property %s is no name of a link", key);
    return name;
}

/* An absolute path without `..`: a namespace file of ours, whose folder only root can write. */
static const char *take_path(struct reader *reader, const char *key, bool own, bool required)
{
    const char *path = take_text(reader, key, own ? 0 : 1, NAMESPACE_PATH_MAX, required);
    if (path == NULL || *path == '\0')
        return path;
    if (*path != '/' || strstr(path, "/../") != NULL || path[strlen(path) - 1] == '/')
        wrong(reader, "property %s must be an absolute path", key);
    return path;
}

static struct ip take_ip(struct reader *reader, const char *key, bool required)
{
    struct ip ip = {0};
    const char *text = take_text(reader, key, 1, INET6_ADDRSTRLEN, required);
    if (text != NULL && !ip_from_text(text, &ip))
        wrong(reader, "property %s is no address: \"%.50s\"", key, text);
    return ip;
}

static struct prefix take_prefix(struct reader *reader, const char *key, bool required)
{
    struct prefix prefix = {0};
    const char *text = take_text(reader, key, 1, PREFIX_TEXT_MAX, required);
    if (text != NULL && !prefix_from_text(text, &prefix))
        wrong(reader, "property %s is no prefix: \"%.50s\"", key, text);
    return prefix;
}

static struct mac take_mac(struct reader *reader, const char *key, bool required)
{
    struct mac mac = {0};
    const char *text = take_text(reader, key, 1, MAC_TEXT_MAX, required);
    if (text != NULL && !mac_from_text(text, &mac))
        wrong(reader, "property %s is no hardware address: \"%.50s\"", key, text);
    return mac;
}

/* The place of a string in a list of names that ends with NULL, or -1. */
static int take_choice(struct reader *reader, const char *key, const char *const *names, bool required)
{
    const char *text = take_text(reader, key, 1, 32, required);
    if (text == NULL)
        return -1;
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    wrong(reader, "property %s cannot be \"%s\"", key, text);
    return -1;
}

static uint8_t take_family(struct reader *reader)
{
    static const char *const names[] = {"ip", "ip6", "inet", "netdev", "bridge", "arp", NULL};
    static const uint8_t numbers[] = {NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_INET, NFPROTO_NETDEV, NFPROTO_BRIDGE, NFPROTO_ARP};
    int choice = take_choice(reader, "family", names, true);
    return choice < 0 ? 0 : numbers[choice];
}

static const char *take_nft_name(struct reader *reader, const char *key)
{
    const char *name = take_text(reader, key, 1, NFT_NAME_BYTES - 1, true);
    if (name != NULL && !nft_name_valid(name))
        wrong(reader, "property %s is no name of nftables", key);
    return name;
}

static void decode_peer(struct reader *outer, struct link_fields *link)
{
    const struct value *object = take(outer, "peer", VALUE_OBJECT, true);
    if (object == NULL)
        return;
    struct reader reader = {.object = object, .error = outer->error};
    link->peer_name = take_link(&reader, "name", true);
    link->peer_namespace = take_path(&reader, "namespace", true, false);
    link->peer_mac = take_mac(&reader, "mac", false);
    link->peer_mtu = (uint32_t)take_number(&reader, "mtu", 68, 65535, 0, false);
    finish(&reader);
    outer->failed = reader.failed;
}

static void decode_link(struct reader *reader, struct link_fields *link, bool adds)
{
    static const char *const kinds[] = {"dummy", "bridge", "wireguard", "veth", "vxlan", NULL};
    link->name = take_link(reader, "name", true);
    link->mtu = (uint32_t)take_number(reader, "mtu", 68, 65535, 0, false);
    link->mac = take_mac(reader, "mac", false);
    link->up = take_flag(reader, "up", -1);
    link->link_local = take_flag(reader, "linkLocal", -1);
    link->alias = take_text(reader, "alias", 0, ALIAS_MAX, false);
    link->master = take_text(reader, "master", adds ? 1 : 0, IFNAMSIZ - 1, false);
    if (link->master != NULL && *link->master != '\0' && !link_name_valid(link->master))
        wrong(reader, "property master is no name of a link");
    if (!adds) {
        link->rename = take_link(reader, "rename", false);
        return;
    }
    int kind = take_choice(reader, "kind", kinds, true);
    link->kind = kind < 0 ? LINK_DUMMY : (enum link_kind)kind;
    if (link->kind == LINK_VETH) {
        decode_peer(reader, link);
        return;
    }
    link->target = take_path(reader, "target", true, false);
    if (link->target != NULL && (link->alias != NULL || link->master != NULL || link->up == 1 || link->link_local == 0))
        wrong(reader, "alias, master, up and linkLocal are set in the target namespace afterwards");
    if (link->link_local == 1)
        wrong(reader, "linkLocal is false or left out");
    if (link->kind != LINK_VXLAN)
        return;
    link->vni = (uint32_t)take_number(reader, "vni", 1, 0xffffff, 0, true);
    link->local = take_ip(reader, "local", true);
    link->port = (uint16_t)take_number(reader, "port", 1, 65535, 4789, false);
    link->learning = take_flag(reader, "learning", 0) == 1;
    link->lower = take_link(reader, "link", false);
}

static void decode_route(struct reader *reader, struct route_fields *route)
{
    static const char *const types[] = {"blackhole", "unreachable", "prohibit", "local", NULL};
    static const uint8_t type_numbers[] = {RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_LOCAL};
    static const char *const scopes[] = {"global", "link", "host", NULL};
    static const uint8_t scope_numbers[] = {RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST};
    route->destination = take_prefix(reader, "destination", true);
    int type = take_choice(reader, "type", types, false);
    route->type = type < 0 ? RTN_UNICAST : type_numbers[type];
    route->link = take_link(reader, "link", false);
    route->via = take_ip(reader, "via", false);
    route->onlink = take_flag(reader, "onlink", 0) == 1;
    route->source = take_ip(reader, "source", false);
    int scope = take_choice(reader, "scope", scopes, false);
    route->scope_set = scope >= 0;
    route->scope = scope < 0 ? 0 : scope_numbers[scope];
    route->table = (uint32_t)take_number(reader, "table", 1, UINT32_MAX, RT_TABLE_MAIN, false);
    route->metric = (uint32_t)take_number(reader, "metric", 0, UINT32_MAX, 0, false);
    uint8_t family = route->destination.ip.family;
    if ((route->via.family != 0 && route->via.family != family) || (route->source.family != 0 && route->source.family != family))
        wrong(reader, "its addresses are not of one family");
}

static void decode_rule(struct reader *reader, struct rule_fields *rule)
{
    static const char *const families[] = {"ip6", NULL};
    rule->preference = (uint32_t)take_number(reader, "preference", 1, UINT32_MAX, 0, true);
    rule->family = take_choice(reader, "family", families, false) == 0 ? AF_INET6 : AF_INET;
    rule->marked = value_member(reader->object, "mark") != NULL;
    rule->mark = (uint32_t)take_number(reader, "mark", 0, UINT32_MAX, 0, false);
    rule->mask = UINT32_MAX;
    if (rule->marked)
        rule->mask = (uint32_t)take_number(reader, "mask", 0, UINT32_MAX, UINT32_MAX, false);
    rule->from = take_prefix(reader, "from", false);
    rule->to = take_prefix(reader, "to", false);
    rule->input_link = take_link(reader, "inputLink", false);
    rule->output_link = take_link(reader, "outputLink", false);
    rule->table = (uint32_t)take_number(reader, "table", 1, UINT32_MAX, 0, true);
    if ((rule->from.ip.family != 0 && rule->from.ip.family != rule->family) ||
        (rule->to.ip.family != 0 && rule->to.ip.family != rule->family))
        wrong(reader, "its addresses are not of its family");
}

static const char *take_sysctl(struct reader *reader)
{
    const char *name = take_text(reader, "name", 5, SYSCTL_NAME_MAX, true);
    if (name == NULL)
        return NULL;
    bool valid = strncmp(name, "net/", 4) == 0;
    for (const char *part = name; valid;) {
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            valid = false;
        if (part[length] == '\0')
            break;
        part += length + 1;
    }
    if (!valid)
        wrong(reader, "property name must be a path that begins with net/");
    return name;
}

static uint8_t decode_fields(struct reader *reader, const char *key, bool required, uint8_t *out)
{
    const struct value *array = take(reader, key, VALUE_ARRAY, required);
    size_t count = 0;
    if (array == NULL)
        return 0;
    if (array->count == 0 || array->count > FIELDS_MAX) {
        wrong(reader, "property %s has %u fields: from 1 to %d are accepted", key, array->count, FIELDS_MAX);
        return 0;
    }
    for (const struct value *name = array->first; name != NULL; name = name->next) {
        int field = name->kind == VALUE_STRING ? field_from_text(name->string) : -1;
        if (field < 0) {
            wrong(reader, "property %s[%zu] is no type of a field", key, count);
            return 0;
        }
        out[count++] = (uint8_t)field;
    }
    return (uint8_t)count;
}

static const struct element_set *decode_set(struct reader *outer, struct request *request)
{
    const struct value *object = take(outer, "set", VALUE_OBJECT, true);
    if (object == NULL)
        return NULL;
    struct set_list *item = calloc(1, sizeof *item);
    if (item == NULL) {
        outer->failed = true;
        fail(outer->error, ENOMEM, "read a set");
        return NULL;
    }
    item->next = request->sets;
    request->sets = item;
    struct element_set *set = &item->set;
    struct reader reader = {.object = object, .error = outer->error};
    set->family = take_family(&reader);
    set->table = take_nft_name(&reader, "table");
    set->name = take_nft_name(&reader, "name");
    set->key_count = decode_fields(&reader, "key", true, set->key);
    set->data_count = decode_fields(&reader, "data", false, set->data);
    set->interval = take_flag(&reader, "interval", 0) == 1;
    finish(&reader);
    if (!reader.failed && element_set_check(set, reader.error) < 0)
        reader.failed = true;
    outer->failed = reader.failed;
    return set;
}

/* Each element is parsed here only to be refused in time: it is parsed again, straight into the message to the kernel. */
static const struct value *decode_elements(struct reader *reader, const char *key, const struct element_set *set, bool with_data)
{
    const struct value *array = take(reader, key, VALUE_ARRAY, false);
    if (array == NULL)
        return NULL;
    if (array->count > ELEMENTS_MAX)
        wrong(reader, "property %s has %u entries, at most %d are accepted", key, array->count, ELEMENTS_MAX);
    struct element element;
    size_t at = 0;
    for (const struct value *item = array->first; item != NULL && !reader->failed; item = item->next, at++) {
        if (item->kind != VALUE_STRING)
            wrong(reader, "property %s[%zu] must be a string", key, at);
        else if (element_parse(set, item->string, with_data, &element, reader->error) < 0)
            reader->failed = true;
    }
    return array;
}

static uint8_t take_protocol(struct reader *reader, bool all, bool required)
{
    static const char *const names[] = {"tcp", "udp", "sctp", "icmp", NULL};
    static const char *const ports[] = {"tcp", "udp", "sctp", NULL};
    static const uint8_t numbers[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_ICMP};
    int choice = take_choice(reader, "protocol", all ? names : ports, required);
    return choice < 0 ? 0 : numbers[choice];
}

static void decode_connection(struct reader *reader, struct connection_fields *connection)
{
    connection->original_destination = take_ip(reader, "originalDestination", false);
    connection->original_source = take_ip(reader, "originalSource", false);
    connection->reply_source = take_ip(reader, "replySource", false);
    connection->protocol = take_protocol(reader, true, false);
    connection->port = (uint16_t)take_number(reader, "port", 1, 65535, 0, false);
    connection->unanswered = take_flag(reader, "unanswered", 0) == 1;
    uint8_t families[] = {connection->original_destination.family, connection->original_source.family,
                          connection->reply_source.family};
    uint8_t family = 0;
    for (size_t i = 0; i < sizeof families; i++) {
        if (families[i] != 0 && family != 0 && family != families[i])
            wrong(reader, "its addresses are not of one family");
        family = families[i] != 0 ? families[i] : family;
    }
    if (family == 0)
        wrong(reader, "one address at least is required");
}

/* The text is a secret, or may be one by mistake: it is in no error. */
static bool take_key(struct reader *reader, const char *key, uint8_t *out, bool required)
{
    const char *text = take_text(reader, key, KEY_TEXT_BYTES, KEY_TEXT_BYTES, required);
    if (text == NULL)
        return false;
    if (key_from_text(text, out))
        return true;
    wrong(reader, "property %s is no key", key);
    return false;
}

static const struct value *decode_allowed(struct reader *reader)
{
    const struct value *array = take(reader, "allowed", VALUE_ARRAY, true);
    if (array != NULL && array->count > ALLOWED_MAX)
        wrong(reader, "property allowed has %u entries, at most %d are accepted", array->count, ALLOWED_MAX);
    size_t at = 0;
    for (const struct value *item = value_first(array); item != NULL && !reader->failed; item = item->next, at++) {
        struct prefix prefix;
        if (item->kind != VALUE_STRING || !prefix_from_text(item->string, &prefix))
            wrong(reader, "property allowed[%zu] is no prefix", at);
    }
    return array;
}

static void decode_tunnel(struct reader *reader, enum operation_kind kind, struct tunnel_fields *tunnel)
{
    tunnel->link = take_link(reader, "link", true);
    if (kind == OP_WIREGUARD_SET) {
        tunnel->key_set = take_key(reader, "privateKey", tunnel->key, false);
        tunnel->port = (uint16_t)take_number(reader, "listenPort", 1, 65535, 0, false);
    } else if (kind != OP_WIREGUARD_LIST) {
        tunnel->key_set = take_key(reader, "publicKey", tunnel->key, true);
    }
    if (kind != OP_WIREGUARD_PEER_SET)
        return;
    tunnel->endpoint = take_ip(reader, "endpoint", false);
    tunnel->port = (uint16_t)take_number(reader, "port", 1, 65535, 0, tunnel->endpoint.family != 0);
    if (tunnel->port != 0 && tunnel->endpoint.family == 0)
        wrong(reader, "a port is that of an endpoint");
    tunnel->keepalive_seconds = (uint16_t)take_number(reader, "keepaliveSeconds", 1, 65535, 0, false);
    tunnel->allowed = decode_allowed(reader);
}

static void decode_dump(struct reader *reader, struct operation *operation)
{
    static const char *const parts[] = {"links", "addresses", "routes", "neighbours", "fdb", "rules", NULL};
    const struct value *array = take(reader, "what", VALUE_ARRAY, true);
    operation->dump.all = take_flag(reader, "all", 0) == 1;
    size_t at = 0;
    for (const struct value *item = value_first(array); item != NULL; item = item->next, at++) {
        const char *name = item->kind == VALUE_STRING ? item->string : "";
        int part = 0;
        while (parts[part] != NULL && strcmp(parts[part], name) != 0)
            part++;
        if (parts[part] == NULL)
            wrong(reader, "property what[%zu] is no part of a dump", at);
        operation->dump.parts |= 1u << part;
    }
}

static void decode_ignored(struct reader *reader, uint8_t *out)
{
    const struct value *array = take(reader, "ignore", VALUE_ARRAY, false);
    if (array != NULL && array->count > IGNORED_MAX)
        wrong(reader, "property ignore has %u entries, at most %d are accepted", array->count, IGNORED_MAX);
    size_t at = 0;
    for (const struct value *item = value_first(array); item != NULL && !reader->failed; item = item->next, at++) {
        const char *name = item->kind == VALUE_STRING ? item->string : "";
        for (int number = 1; number < 134 && out[at] == 0; number++) {
            const char *known = strerrorname_np(number);
            if (known != NULL && strcmp(known, name) == 0)
                out[at] = (uint8_t)number;
        }
        if (out[at] == 0)
            wrong(reader, "property ignore[%zu] is no name of an error", at);
    }
}

static void decode_chain(struct reader *reader, struct balance_fields *chain)
{
    chain->family = take_family(reader);
    chain->table = take_nft_name(reader, "table");
    chain->chain = take_nft_name(reader, "chain");
}

static void decode_balance(struct reader *reader, struct balance_fields *balance)
{
    static const char *const names[] = {"ip daddr", "ip6 daddr", "tcp dport", "udp dport", NULL};
    decode_chain(reader, balance);
    balance->map = take_nft_name(reader, "map");
    balance->slots = (uint32_t)take_number(reader, "slots", 1, 65536, 0, true);
    int by = take_choice(reader, "by", names, true);
    balance->by = by < 0 ? BALANCE_IP_ADDRESS : (enum balanced_by)by;
    bool ip = balance->family == NFPROTO_IPV4, ip6 = balance->family == NFPROTO_IPV6;
    if ((!ip && !ip6) || (ip6 && balance->by == BALANCE_IP_ADDRESS) || (ip && balance->by == BALANCE_IP6_ADDRESS))
        wrong(reader, "its table is of another family");
}

static const char *const operation_names[] = {
    [OP_NAMESPACE_ADD] = "namespace-add", [OP_NAMESPACE_DELETE] = "namespace-delete",
    [OP_LINK_ADD] = "link-add",           [OP_LINK_SET] = "link-set",
    [OP_LINK_DELETE] = "link-delete",     [OP_LINK_SETTLE] = "link-settle",
    [OP_ADDRESS_SET] = "address-set",
    [OP_ADDRESS_DELETE] = "address-delete", [OP_ROUTE_ADD] = "route-add",
    [OP_ROUTE_REPLACE] = "route-replace", [OP_ROUTE_DELETE] = "route-delete",
    [OP_NEIGHBOUR_SET] = "neighbour-set", [OP_NEIGHBOUR_DELETE] = "neighbour-delete",
    [OP_FDB_SET] = "fdb-set",             [OP_FDB_DELETE] = "fdb-delete",
    [OP_RULE_ADD] = "rule-add",           [OP_RULE_DELETE] = "rule-delete",
    [OP_SYSCTL_WRITE] = "sysctl-write",   [OP_SYSCTL_READ] = "sysctl-read",
    [OP_RULESET] = "ruleset",             [OP_RULESET_LIST] = "ruleset-list",
    [OP_ELEMENTS] = "elements",           [OP_ELEMENTS_LIST] = "elements-list",
    [OP_BALANCE] = "balance",             [OP_CHAIN_DELETE] = "chain-delete",
    [OP_GENERATION] = "generation",       [OP_CONNECTIONS_DELETE] = "connections-delete",
    [OP_PORT_RESERVE] = "port-reserve",   [OP_PORT_RELEASE] = "port-release",
    [OP_DUMP] = "dump",                   [OP_WATCH] = "watch",
    [OP_UNWATCH] = "unwatch",             [OP_WIREGUARD_PROBE] = "wireguard-probe",
    [OP_WIREGUARD_SET] = "wireguard-set", [OP_WIREGUARD_PEER_SET] = "wireguard-peer-set",
    [OP_WIREGUARD_PEER_DELETE] = "wireguard-peer-delete", [OP_WIREGUARD_LIST] = "wireguard-list",
    [OP_COUNT] = NULL,
};

const char *operation_name(enum operation_kind kind)
{
    return operation_names[kind];
}

static void decode_fields_of(struct reader *reader, struct request *request, struct operation *operation)
{
    switch (operation->kind) {
    case OP_NAMESPACE_ADD:
    case OP_NAMESPACE_DELETE:
        operation->path = take_path(reader, "path", false, true);
        break;
    case OP_LINK_ADD:
    case OP_LINK_SET:
        decode_link(reader, &operation->link, operation->kind == OP_LINK_ADD);
        break;
    case OP_LINK_DELETE:
    case OP_LINK_SETTLE:
        operation->link.name = take_link(reader, "name", true);
        break;
    case OP_ADDRESS_SET:
    case OP_ADDRESS_DELETE:
        operation->address.address = take_prefix(reader, "address", true);
        operation->address.link = take_link(reader, "link", true);
        if (operation->kind == OP_ADDRESS_SET)
            operation->address.no_prefix_route = take_flag(reader, "noPrefixRoute", 0) == 1;
        break;
    case OP_ROUTE_ADD:
    case OP_ROUTE_REPLACE:
    case OP_ROUTE_DELETE:
        decode_route(reader, &operation->route);
        break;
    case OP_NEIGHBOUR_SET:
    case OP_NEIGHBOUR_DELETE:
        operation->neighbour.address = take_ip(reader, "address", true);
        operation->neighbour.link = take_link(reader, "link", true);
        if (operation->kind == OP_NEIGHBOUR_SET)
            operation->neighbour.mac = take_mac(reader, "mac", true);
        break;
    case OP_FDB_SET:
    case OP_FDB_DELETE:
        operation->neighbour.mac = take_mac(reader, "mac", true);
        operation->neighbour.link = take_link(reader, "link", true);
        operation->neighbour.address = take_ip(reader, "destination", true);
        break;
    case OP_RULE_ADD:
    case OP_RULE_DELETE:
        decode_rule(reader, &operation->rule);
        break;
    case OP_SYSCTL_WRITE:
    case OP_SYSCTL_READ:
        operation->sysctl.name = take_sysctl(reader);
        if (operation->kind == OP_SYSCTL_WRITE)
            operation->sysctl.value = take_text(reader, "value", 1, SYSCTL_VALUE_MAX, true);
        break;
    case OP_RULESET:
        operation->ruleset.text = take_text(reader, "text", 1, RULESET_BYTES_MAX, true);
        break;
    case OP_RULESET_LIST:
        operation->ruleset.family = take_family(reader);
        operation->ruleset.table = take_nft_name(reader, "table");
        break;
    case OP_ELEMENTS:
    case OP_ELEMENTS_LIST: {
        const struct element_set *set = decode_set(reader, request);
        operation->elements.set = set;
        if (operation->kind == OP_ELEMENTS_LIST || set == NULL)
            break;
        operation->elements.flush = take_flag(reader, "flush", 0) == 1;
        operation->elements.remove = decode_elements(reader, "delete", set, false);
        operation->elements.add = decode_elements(reader, "add", set, true);
        break;
    }
    case OP_BALANCE:
        decode_balance(reader, &operation->balance);
        break;
    case OP_CHAIN_DELETE:
        decode_chain(reader, &operation->balance);
        break;
    case OP_CONNECTIONS_DELETE:
        decode_connection(reader, &operation->connection);
        break;
    case OP_PORT_RESERVE:
    case OP_PORT_RELEASE:
        operation->port.protocol = take_protocol(reader, false, true);
        operation->port.port = (uint16_t)take_number(reader, "port", 1, 65535, 0, true);
        operation->port.address = take_ip(reader, "address", false);
        break;
    case OP_DUMP:
        decode_dump(reader, operation);
        break;
    case OP_WIREGUARD_SET:
    case OP_WIREGUARD_PEER_SET:
    case OP_WIREGUARD_PEER_DELETE:
    case OP_WIREGUARD_LIST:
        decode_tunnel(reader, operation->kind, &operation->tunnel);
        break;
    case OP_GENERATION:
    case OP_WATCH:
    case OP_UNWATCH:
    case OP_WIREGUARD_PROBE:
    case OP_COUNT:
        break;
    }
}

static int decode_operation(const struct value *object, struct request *request, struct operation *operation, struct error *error)
{
    struct reader reader = {.object = object, .error = error};
    if (object->kind != VALUE_OBJECT)
        return fail(error, EINVAL, "an operation must be an object");
    int kind = take_choice(&reader, "op", operation_names, true);
    if (kind < 0)
        return -1;
    operation->kind = (enum operation_kind)kind;
    decode_ignored(&reader, operation->ignored);
    decode_fields_of(&reader, request, operation);
    finish(&reader);
    return reader.failed ? fail_in(error, "%s", operation_name(operation->kind)) : 0;
}

/* The operations of a batch, or NULL; `batch` gets its path. */
static const struct value *decode_batch(const struct value *object, struct batch *batch, struct error *error)
{
    struct reader reader = {.object = object, .error = error};
    if (object->kind != VALUE_OBJECT) {
        fail(error, EINVAL, "a batch must be an object");
        return NULL;
    }
    batch->namespace_path = take_path(&reader, "namespace", true, true);
    const struct value *operations = take(&reader, "operations", VALUE_ARRAY, true);
    finish(&reader);
    return reader.failed ? NULL : operations;
}

static int decode_operations(const struct value *list, struct request *request, const struct batch *batch, struct error *error)
{
    struct operation *operation = &request->operations[batch->first];
    request->failed_operation = 0;
    for (const struct value *item = value_first(list); item != NULL; item = item->next) {
        if (decode_operation(item, request, operation++, error) < 0)
            return -1;
        request->failed_operation++;
    }
    return 0;
}

static int decode_batches(const struct value *array, struct request *request, struct error *error)
{
    request->batches_count = array->count;
    if (request->batches_count > BATCHES_MAX)
        return fail(error, EINVAL, "%zu batches, at most %d are accepted", request->batches_count, BATCHES_MAX);
    request->batches = calloc(request->batches_count + 1, sizeof *request->batches);
    cleanup_free const struct value **lists = calloc(request->batches_count + 1, sizeof *lists);
    if (request->batches == NULL || lists == NULL)
        return fail(error, ENOMEM, "read a request");
    for (const struct value *item = array->first; item != NULL; item = item->next, request->failed_batch++) {
        size_t i = request->failed_batch;
        struct batch *batch = &request->batches[i];
        lists[i] = decode_batch(item, batch, error);
        if (lists[i] == NULL)
            return -1;
        batch->first = request->operations_count;
        batch->count = lists[i]->count;
        request->operations_count += batch->count;
        if (request->operations_count > OPERATIONS_MAX)
            return fail(error, EINVAL, "more than %d operations", OPERATIONS_MAX);
    }
    request->operations = calloc(request->operations_count + 1, sizeof *request->operations);
    if (request->operations == NULL)
        return fail(error, ENOMEM, "read a request");
    for (size_t i = 0; i < request->batches_count; i++) {
        request->failed_batch = i;
        if (decode_operations(lists[i], request, &request->batches[i], error) < 0)
            return -1;
    }
    return 0;
}

int request_decode(char *text, size_t length, struct request *request, struct error *error)
{
    *request = (struct request){0};
    if (length > REQUEST_BYTES_MAX)
        return fail(error, EBADMSG, "JSON of %zu bytes: at most %d are accepted", length, REQUEST_BYTES_MAX);
    if (document_parse(text, length, &request->document, error) < 0) {
        error->number = error->number == 0 ? EBADMSG : error->number;
        return -1;
    }
    struct reader reader = {.object = request->document.root, .error = error};
    if (reader.object->kind != VALUE_OBJECT)
        return fail(error, EBADMSG, "a request must be an object");
    /* 2^53 - 1: what JavaScript counts exactly. */
    request->id = take_number(&reader, "id", 1, (1ull << 53) - 1, 0, true);
    const struct value *batches = take(&reader, "batches", VALUE_ARRAY, true);
    finish(&reader);
    if (reader.failed)
        return -1;
    return decode_batches(batches, request, error);
}

void request_release(struct request *request)
{
    while (request->sets != NULL) {
        struct set_list *item = request->sets;
        request->sets = item->next;
        free(item);
    }
    free(request->batches);
    free(request->operations);
    document_release(&request->document);
    *request = (struct request){0};
}
