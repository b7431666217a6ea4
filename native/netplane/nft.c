#include "netplane/nft.h"
#include "common/fd.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>
#include <string.h>

enum {
    LIST_BYTES_MAX = 60000,      /* an attribute's length is 16 bits; elements are at most 400 bytes */
    FORGIVEN_ROUNDS_MAX = 64,    /* sendings of one transaction, each without what was found missing */
    DUMP_TRIES_MAX = 5,
    NO_OWNER = UINT32_MAX,
};

/* nfnetlink: the subsystem is the upper byte of the type; of a batch's ends it stands in res_id, in network order. */
static uint16_t nft_type(uint16_t type)
{
    return (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
}

static void put_batch_end(struct outgoing *out, uint16_t type)
{
    struct nfgenmsg header = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
    out_begin(out, type, 0, &header, sizeof header, NO_OWNER);
    /* nfnetlink.h: only if the rules have this number still. 0: whichever they have. */
    if (type == NFNL_MSG_BATCH_BEGIN)
        out_put_be32(out, NFNL_BATCH_GENID, 0);
    out_end(out);
}

static void begin_set_message(struct outgoing *out, uint16_t type, uint16_t flags, const struct element_set *set, uint32_t owner)
{
    struct nfgenmsg header = {.nfgen_family = set->family, .version = NFNETLINK_V0};
    out_begin(out, nft_type(type), flags, &header, sizeof header, owner);
    out_put_text(out, NFTA_SET_ELEM_LIST_TABLE, set->table);
    out_put_text(out, NFTA_SET_ELEM_LIST_SET, set->name);
}

static void put_value(struct outgoing *out, uint16_t type, const uint8_t *bytes, size_t length)
{
    size_t nest = out_nest(out, type);
    out_put(out, NFTA_DATA_VALUE, bytes, length);
    out_nest_end(out, nest);
}

static void put_data(struct outgoing *out, const struct element_set *set, const struct element *element)
{
    if (set->data_count == 0)
        return;
    if (set->data[0] != FIELD_VERDICT) {
        put_value(out, NFTA_SET_ELEM_DATA, element->data, set->data_length);
        return;
    }
    size_t nest = out_nest(out, NFTA_SET_ELEM_DATA), verdict = out_nest(out, NFTA_DATA_VERDICT);
    out_put_be32(out, NFTA_VERDICT_CODE, (uint32_t)element->verdict);
    if (element->chain[0] != '\0')
        out_put_text(out, NFTA_VERDICT_CHAIN, element->chain);
    out_nest_end(out, verdict);
    out_nest_end(out, nest);
}

/*
 * An interval of one field is two elements to the kernel: where it begins, and (flagged) where the next thing begins, unless
 * it reaches to the end of all values. In concatenations one element has both ends.
 */
static void put_element(struct outgoing *out, const struct element_set *set, struct element *element, bool add)
{
    size_t nest = out_nest(out, NFTA_LIST_ELEM);
    put_value(out, NFTA_SET_ELEM_KEY, element->key, set->key_length);
    if (set->interval && set->key_count > 1)
        put_value(out, NFTA_SET_ELEM_KEY_END, element->key_end, set->key_length);
    if (add)
        put_data(out, set, element);
    out_nest_end(out, nest);
    if (!set->interval || set->key_count > 1 || !bytes_increment(element->key_end, set->key_length))
        return;
    nest = out_nest(out, NFTA_LIST_ELEM);
    put_value(out, NFTA_SET_ELEM_KEY, element->key_end, set->key_length);
    out_put_be32(out, NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    out_nest_end(out, nest);
}

/* As many messages as the elements need. `single`: one each, since the kernel looks no further in a message than to a fault. */
static int put_list(struct outgoing *out, const struct element_set *set, const struct value *list, bool add, bool single,
                    uint32_t owner, struct error *error)
{
    for (const struct value *item = value_first(list); item != NULL;) {
        begin_set_message(out, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, add ? NLM_F_CREATE : 0, set, owner);
        size_t nest = out_nest(out, NFTA_SET_ELEM_LIST_ELEMENTS), start = out->length;
        for (; item != NULL && out->length - start < (single ? 1 : LIST_BYTES_MAX) && !out->failed; item = item->next) {
            struct element element;
            if (element_parse(set, item->string, add, &element, error) < 0)
                return -1;
            put_element(out, set, &element, add);
        }
        out_nest_end(out, nest);
        out_end(out);
        if (out->failed)
            return fail(error, ENOMEM, "build a transaction of nftables");
    }
    return 0;
}

int nft_put_elements(struct outgoing *out, const struct operation *operation, uint32_t owner, struct error *error)
{
    const struct element_fields *elements = &operation->elements;
    bool tolerant = operation->ignored[0] != 0;
    if (out->count == 0)
        put_batch_end(out, NFNL_MSG_BATCH_BEGIN);
    if (elements->flush) {
        begin_set_message(out, NFT_MSG_DELSETELEM, 0, elements->set, owner);
        out_end(out);
    }
    if (put_list(out, elements->set, elements->remove, false, tolerant, owner, error) < 0)
        return -1;
    return put_list(out, elements->set, elements->add, true, tolerant, owner, error);
}

/* Of a chain, or of a rule of it. */
static void begin_rule_message(struct outgoing *out, uint16_t type, uint16_t flags, const struct balance_fields *balance, uint32_t owner)
{
    struct nfgenmsg header = {.nfgen_family = balance->family, .version = NFNETLINK_V0};
    bool chain = type == NFT_MSG_NEWCHAIN || type == NFT_MSG_DELCHAIN;
    out_begin(out, nft_type(type), flags, &header, sizeof header, owner);
    out_put_text(out, chain ? NFTA_CHAIN_TABLE : NFTA_RULE_TABLE, balance->table);
    out_put_text(out, chain ? NFTA_CHAIN_NAME : NFTA_RULE_CHAIN, balance->chain);
}

/* One expression of a rule: its attributes are all numbers, but for one text or one value. */
struct attribute {
    uint16_t type;
    uint32_t value;
    const char *text; /* instead of the value */
};

static void put_expression(struct outgoing *out, const char *name, const struct attribute *attributes, size_t count)
{
    size_t element = out_nest(out, NFTA_LIST_ELEM);
    out_put_text(out, NFTA_EXPR_NAME, name);
    size_t data = out_nest(out, NFTA_EXPR_DATA);
    for (size_t i = 0; i < count; i++) {
        if (attributes[i].text != NULL)
            out_put_text(out, attributes[i].type, attributes[i].text);
        else
            out_put_be32(out, attributes[i].type, attributes[i].value);
    }
    out_nest_end(out, data);
    out_nest_end(out, element);
}
#define PUT_EXPRESSION(out, name, ...) \
    put_expression(out, name, (const struct attribute[]){__VA_ARGS__}, sizeof((const struct attribute[]){__VA_ARGS__}) / sizeof(struct attribute))

static void put_protocol_check(struct outgoing *out, uint8_t protocol)
{
    PUT_EXPRESSION(out, "meta", {NFTA_META_KEY, NFT_META_L4PROTO, NULL}, {NFTA_META_DREG, NFT_REG_1, NULL});
    size_t element = out_nest(out, NFTA_LIST_ELEM);
    out_put_text(out, NFTA_EXPR_NAME, "cmp");
    size_t data = out_nest(out, NFTA_EXPR_DATA);
    out_put_be32(out, NFTA_CMP_SREG, NFT_REG_1);
    out_put_be32(out, NFTA_CMP_OP, NFT_CMP_EQ);
    put_value(out, NFTA_CMP_DATA, &protocol, sizeof protocol);
    out_nest_end(out, data);
    out_nest_end(out, element);
}

/*
 * `dnat to ip daddr . numgen random mod SLOTS map @MAP`, or with `tcp dport`, as nft writes it (nft --debug=netlink): what is
 * balanced and the number drawn stand side by side in the registers, and are the key of the map; what it maps to is read
 * from where the key was, with a port in the register after an IPv4 address.
 */
int nft_put_balance(struct outgoing *out, const struct balance_fields *balance, uint32_t owner, struct error *error)
{
    bool port = balance->by == BALANCE_TCP_PORT || balance->by == BALANCE_UDP_PORT, wide = balance->family == NFPROTO_IPV6;
    /* struct iphdr and ip6_hdr: the destination's offset and length. */
    uint32_t base = port ? NFT_PAYLOAD_TRANSPORT_HEADER : NFT_PAYLOAD_NETWORK_HEADER;
    uint32_t offset = port ? 2 : wide ? 24 : 16, length = port ? 2 : wide ? 16 : 4;
    uint32_t drawn = !port && wide ? NFT_REG32_04 : NFT_REG32_01, target_port = wide ? NFT_REG32_04 : NFT_REG32_01;
    if (out->count == 0)
        put_batch_end(out, NFNL_MSG_BATCH_BEGIN);
    begin_rule_message(out, NFT_MSG_NEWCHAIN, NLM_F_CREATE, balance, owner);
    out_end(out);
    begin_rule_message(out, NFT_MSG_DELRULE, 0, balance, owner);
    out_end(out);
    begin_rule_message(out, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, balance, owner);
    size_t list = out_nest(out, NFTA_RULE_EXPRESSIONS);
    if (port)
        put_protocol_check(out, balance->by == BALANCE_TCP_PORT ? IPPROTO_TCP : IPPROTO_UDP);
    PUT_EXPRESSION(out, "payload", {NFTA_PAYLOAD_DREG, NFT_REG_1, NULL}, {NFTA_PAYLOAD_BASE, base, NULL},
                   {NFTA_PAYLOAD_OFFSET, offset, NULL}, {NFTA_PAYLOAD_LEN, length, NULL});
    PUT_EXPRESSION(out, "numgen", {NFTA_NG_DREG, drawn, NULL}, {NFTA_NG_MODULUS, balance->slots, NULL},
                   {NFTA_NG_TYPE, NFT_NG_RANDOM, NULL}, {NFTA_NG_OFFSET, 0, NULL});
    PUT_EXPRESSION(out, "lookup", {NFTA_LOOKUP_SET, 0, balance->map}, {NFTA_LOOKUP_SREG, NFT_REG_1, NULL},
                   {NFTA_LOOKUP_DREG, NFT_REG_1, NULL});
    if (port)
        PUT_EXPRESSION(out, "nat", {NFTA_NAT_TYPE, NFT_NAT_DNAT, NULL}, {NFTA_NAT_FAMILY, balance->family, NULL},
                       {NFTA_NAT_REG_ADDR_MIN, NFT_REG_1, NULL}, {NFTA_NAT_REG_PROTO_MIN, target_port, NULL});
    else
        PUT_EXPRESSION(out, "nat", {NFTA_NAT_TYPE, NFT_NAT_DNAT, NULL}, {NFTA_NAT_FAMILY, balance->family, NULL},
                       {NFTA_NAT_REG_ADDR_MIN, NFT_REG_1, NULL});
    out_nest_end(out, list);
    out_end(out);
    return out->failed ? fail(error, ENOMEM, "build a transaction of nftables") : 0;
}

int nft_put_chain_deletion(struct outgoing *out, const struct balance_fields *chain, uint32_t owner, struct error *error)
{
    if (out->count == 0)
        put_batch_end(out, NFNL_MSG_BATCH_BEGIN);
    begin_rule_message(out, NFT_MSG_DELRULE, 0, chain, owner);
    out_end(out);
    begin_rule_message(out, NFT_MSG_DELCHAIN, 0, chain, owner);
    out_end(out);
    return out->failed ? fail(error, ENOMEM, "build a transaction of nftables") : 0;
}

static struct nlmsghdr *message_at(const struct outgoing *out, size_t index)
{
    return (struct nlmsghdr *)(out->bytes + out->places[index].offset);
}

/* The list of a message of elements, and the element of it at an offset in the message; NULL: the fault is elsewhere. */
static struct nlattr *element_at(struct nlmsghdr *message, size_t offset, struct nlattr **list)
{
    const struct nlattr *attributes[NFTA_SET_ELEM_LIST_ELEMENTS + 1];
    message_attributes(message, sizeof(struct nfgenmsg), attributes, NFTA_SET_ELEM_LIST_ELEMENTS);
    if (offset == 0 || attributes[NFTA_SET_ELEM_LIST_ELEMENTS] == NULL)
        return NULL;
    *list = (struct nlattr *)(uintptr_t)attributes[NFTA_SET_ELEM_LIST_ELEMENTS];
    uint8_t *at = (uint8_t *)*list + ATTRIBUTE_HEADER, *end = (uint8_t *)*list + (*list)->nla_len, *wanted = (uint8_t *)message + offset;
    while (at < end && at <= wanted) {
        struct nlattr *element = (struct nlattr *)at;
        uint8_t *next = at + align4(element->nla_len);
        if (wanted < next)
            return element;
        at = next;
    }
    return NULL;
}

/* Takes bytes out of a message that lies before others in the buffer. */
static void cut_element(struct outgoing *out, size_t index, struct nlattr *list, const struct nlattr *element)
{
    size_t length = align4(element->nla_len);
    uint8_t *at = (uint8_t *)(uintptr_t)element;
    message_at(out, index)->nlmsg_len -= (uint32_t)length;
    list->nla_len = (uint16_t)(list->nla_len - length);
    memmove(at, at + length, (size_t)(out->bytes + out->length - (at + length)));
    out->length -= length;
    for (size_t i = index + 1; i < out->count; i++)
        out->places[i].offset -= length;
}

struct commit {
    struct outgoing *out;
    bool outdated; /* somebody else has changed the rules since their number was known */
    const struct operation *operations;
    struct refusal first; /* the first that is not fine */
    char explanation[128];
    struct refusal *forgiven; /* in the order of messages */
    size_t forgiven_count;
    size_t forgiven_room;
    bool refused;
};

static bool is_ignored(const struct operation *operation, int number)
{
    for (size_t i = 0; i < IGNORED_MAX; i++)
        if (operation->ignored[i] == number && number != 0)
            return true;
    return false;
}

/* All or nothing: an element whose fault is fine makes the kernel refuse the others, too, so all are sent again without it. */
static bool judge(void *context, const struct refusal *refusal)
{
    struct commit *commit = context;
    struct nlattr *list;
    if (refusal->number == ERESTART && refusal->message == 0) {
        commit->outdated = true;
        return true;
    }
    if (refusal->owner != NO_OWNER && is_ignored(&commit->operations[refusal->owner], refusal->number) &&
        element_at(message_at(commit->out, refusal->message), refusal->attribute, &list) != NULL) {
        if (commit->forgiven_count == commit->forgiven_room) {
            size_t room = commit->forgiven_room == 0 ? 16 : commit->forgiven_room * 2;
            struct refusal *grown = realloc(commit->forgiven, room * sizeof *grown);
            if (grown == NULL)
                return false;
            commit->forgiven = grown;
            commit->forgiven_room = room;
        }
        commit->forgiven[commit->forgiven_count++] = *refusal;
        return true;
    }
    if (!commit->refused) {
        commit->refused = true;
        commit->first = *refusal;
        if (refusal->explanation != NULL)
            snprintf(commit->explanation, sizeof commit->explanation, ": %s", refusal->explanation);
    }
    return false;
}

static void cut_forgiven(struct commit *commit)
{
    /* From the last to the first, so that what lies before stays where it is. A message has one refusal at most. */
    while (commit->forgiven_count > 0) {
        const struct refusal *refusal = &commit->forgiven[--commit->forgiven_count];
        struct nlattr *list = NULL, *element = element_at(message_at(commit->out, refusal->message), refusal->attribute, &list);
        if (element != NULL)
            cut_element(commit->out, refusal->message, list, element);
    }
}

static int read_element(const struct element_set *set, const struct nlattr *nest, struct element *out, uint32_t *flags);

/* `ip skep ports, element "tcp . 80 : goto tcp1"` as far as it is known. */
static int fail_commit(const struct commit *commit, struct error *error)
{
    const struct refusal *refusal = &commit->first;
    cleanup_text struct text element = {0};
    const struct element_set *set = NULL;
    struct nlattr *list = NULL, *at = NULL;
    if (refusal->owner != NO_OWNER && commit->operations[refusal->owner].kind != OP_ELEMENTS) {
        const struct operation *operation = &commit->operations[refusal->owner];
        return fail(error, refusal->number, "%s %s %s%s", operation_name(operation->kind), operation->balance.table,
                    operation->balance.chain, commit->explanation);
    }
    if (refusal->owner != NO_OWNER) {
        set = commit->operations[refusal->owner].elements.set;
        at = element_at(message_at(commit->out, refusal->message), refusal->attribute, &list);
    }
    struct element parsed;
    uint32_t flags = 0;
    if (set != NULL && at != NULL && read_element(set, at, &parsed, &flags) == 0) {
        text_puts(&element, ", element ");
        element_print(set, &parsed, false, &element);
    }
    return fail(error, refusal->number, "change elements of %s %s%.*s%s", set == NULL ? "a transaction" : set->table,
                set == NULL ? "" : set->name, (int)element.length, element.bytes == NULL ? "" : element.bytes, commit->explanation);
}

/* The kernel counts no transaction that changes nothing, such as one that adds what is there. */
static bool surely_changes(const struct outgoing *out)
{
    for (size_t i = 0; i < out->count; i++) {
        struct nlmsghdr *message = message_at(out, i);
        const struct nlattr *attributes[NFTA_SET_ELEM_LIST_ELEMENTS + 1];
        if (message->nlmsg_type == nft_type(NFT_MSG_NEWRULE))
            return true;
        if (message->nlmsg_type != nft_type(NFT_MSG_DELSETELEM))
            continue;
        message_attributes(message, sizeof(struct nfgenmsg), attributes, NFTA_SET_ELEM_LIST_ELEMENTS);
        const struct nlattr *list = attributes[NFTA_SET_ELEM_LIST_ELEMENTS];
        if (list != NULL && attribute_length(list) > 0)
            return true;
    }
    return false;
}

static void expect_generation(struct outgoing *out, uint32_t generation)
{
    const struct nlattr *attributes[NFNL_BATCH_MAX + 1];
    message_attributes(message_at(out, 0), sizeof(struct nfgenmsg), attributes, NFNL_BATCH_MAX);
    uint32_t value = htonl(generation);
    memcpy((uint8_t *)(uintptr_t)attributes[NFNL_BATCH_GENID] + ATTRIBUTE_HEADER, &value, sizeof value);
}

int nft_commit(struct netlink *filter, struct outgoing *out, const struct operation *operations, uint32_t *generation,
               uint32_t *owner, struct error *error)
{
    struct commit commit = {.out = out, .operations = operations};
    uint32_t expected = *generation;
    int result = -1;
    *generation = 0;
    if (out->count < 2) /* nothing but its beginning */
        return out->failed ? fail(error, ENOMEM, "build a transaction of nftables") : 0;
    /* The end of a batch is acknowledged only since 6.10, so the message before it is asked to. */
    size_t answered = out->count - 1;
    out_flag_last(out, NLM_F_ACK);
    put_batch_end(out, NFNL_MSG_BATCH_END);
    if (out->failed)
        return fail(error, ENOMEM, "build a transaction of nftables");
    for (int round = 0; round < FORGIVEN_ROUNDS_MAX; round++) {
        commit.refused = false;
        commit.outdated = false;
        expect_generation(out, expected);
        result = netlink_exchange(filter, out, answered, judge, &commit, error);
        if (commit.outdated) {
            expected = 0;
            result = fail(error, ERESTART, "change elements");
            continue;
        }
        /* While something is forgiven, other refusals may be its consequence: what was to be deleted first is still there. */
        if (commit.forgiven_count == 0 || (result < 0 && error->number != 0))
            break;
        cut_forgiven(&commit);
        result = fail(error, ENOENT, "change elements: too many are missing");
    }
    if (result == 0 && expected != 0 && surely_changes(out))
        *generation = expected == UINT32_MAX ? 1 : expected + 1; /* it is never 0 */
    if (result < 0 && commit.refused && error->number == 0) {
        *owner = commit.first.owner == NO_OWNER ? *owner : commit.first.owner;
        result = fail_commit(&commit, error);
    }
    free(commit.forgiven);
    return result;
}

static bool copy_value(const struct nlattr *nest, uint8_t *out, size_t length)
{
    const struct nlattr *attributes[NFTA_DATA_MAX + 1];
    if (nest == NULL)
        return false;
    attributes_read(attribute_data(nest), attribute_length(nest), attributes, NFTA_DATA_MAX);
    const struct nlattr *value = attributes[NFTA_DATA_VALUE];
    if (value == NULL || attribute_length(value) < length)
        return false;
    memcpy(out, attribute_data(value), length);
    return true;
}

static bool copy_verdict(const struct nlattr *nest, struct element *out)
{
    const struct nlattr *attributes[NFTA_DATA_MAX + 1], *verdict[NFTA_VERDICT_MAX + 1];
    if (nest == NULL)
        return false;
    attributes_read(attribute_data(nest), attribute_length(nest), attributes, NFTA_DATA_MAX);
    if (attributes[NFTA_DATA_VERDICT] == NULL)
        return false;
    attributes_read(attribute_data(attributes[NFTA_DATA_VERDICT]), attribute_length(attributes[NFTA_DATA_VERDICT]), verdict,
                    NFTA_VERDICT_MAX);
    const char *chain = attribute_text(verdict[NFTA_VERDICT_CHAIN]);
    out->verdict = (int32_t)ntohl(attribute_u32(verdict[NFTA_VERDICT_CODE]));
    snprintf(out->chain, sizeof out->chain, "%s", chain == NULL ? "" : chain);
    return true;
}

/* -1: the set is not what we were told it is. Data are read if they are there. */
static int read_element(const struct element_set *set, const struct nlattr *nest, struct element *out, uint32_t *flags)
{
    const struct nlattr *attributes[NFTA_SET_ELEM_KEY_END + 1];
    attributes_read(attribute_data(nest), attribute_length(nest), attributes, NFTA_SET_ELEM_KEY_END);
    *flags = ntohl(attribute_u32(attributes[NFTA_SET_ELEM_FLAGS]));
    *out = (struct element){0};
    if (!copy_value(attributes[NFTA_SET_ELEM_KEY], out->key, set->key_length))
        return -1;
    if (!copy_value(attributes[NFTA_SET_ELEM_KEY_END], out->key_end, set->key_length))
        memcpy(out->key_end, out->key, set->key_length);
    const struct nlattr *data = attributes[NFTA_SET_ELEM_DATA];
    if (data == NULL || set->data_count == 0)
        return 0;
    return (set->data[0] == FIELD_VERDICT ? copy_verdict(data, out) : copy_value(data, out->data, set->data_length)) ? 0 : -1;
}

/* An element of an interval set of one field, kept until all ends are known. */
struct edge {
    struct element element;
    size_t key_length;
    bool ends;
};

struct listing {
    const struct element_set *set;
    struct text *out;
    struct text words; /* of one element: a link's name in it may be anything */
    struct edge *edges;
    size_t count;
    size_t room;
};

static void write_element(struct listing *listing, const struct element *element)
{
    listing->words.length = 0;
    element_print(listing->set, element, true, &listing->words);
    text_comma(listing->out);
    text_quote(listing->out, listing->words.bytes, listing->words.length);
}

static int keep_edge(struct listing *listing, const struct element *element, bool ends, struct error *error)
{
    if (listing->count == listing->room) {
        size_t room = listing->room == 0 ? 64 : listing->room * 2;
        struct edge *grown = realloc(listing->edges, room * sizeof *grown);
        if (grown == NULL)
            return fail(error, ENOMEM, "list elements");
        listing->edges = grown;
        listing->room = room;
    }
    listing->edges[listing->count++] = (struct edge){*element, listing->set->key_length, ends};
    return 0;
}

static int list_message(void *context, const struct nlmsghdr *message, struct error *error)
{
    struct listing *listing = context;
    const struct nlattr *attributes[NFTA_SET_ELEM_LIST_ELEMENTS + 1];
    message_attributes(message, sizeof(struct nfgenmsg), attributes, NFTA_SET_ELEM_LIST_ELEMENTS);
    const struct nlattr *list = attributes[NFTA_SET_ELEM_LIST_ELEMENTS];
    if (list == NULL)
        return 0;
    const uint8_t *at = attribute_data(list);
    size_t left = attribute_length(list);
    while (left >= ATTRIBUTE_HEADER) {
        const struct nlattr *nest = (const struct nlattr *)at;
        struct element element;
        uint32_t flags;
        if (nest->nla_len < ATTRIBUTE_HEADER || nest->nla_len > left)
            break;
        if (read_element(listing->set, nest, &element, &flags) < 0)
            return fail(error, EINVAL, "read elements of %s %s: they are of other types", listing->set->table, listing->set->name);
        if (listing->set->interval && listing->set->key_count == 1) {
            if (keep_edge(listing, &element, (flags & NFT_SET_ELEM_INTERVAL_END) != 0, error) < 0)
                return -1;
        } else if ((flags & NFT_SET_ELEM_CATCHALL) == 0) {
            write_element(listing, &element);
        }
        size_t step = align4(nest->nla_len);
        if (step >= left)
            break;
        at += step;
        left -= step;
    }
    return 0;
}

/* By key; what ends at a key comes before what begins there. */
static int by_key(const void *a, const void *b)
{
    const struct edge *left = a, *right = b;
    int order = memcmp(left->element.key, right->element.key, left->key_length);
    return order != 0 ? order : (int)right->ends - (int)left->ends;
}

static void write_intervals(struct listing *listing)
{
    if (listing->count > 0)
        qsort(listing->edges, listing->count, sizeof *listing->edges, by_key);
    for (size_t i = 0; i < listing->count; i++) {
        struct element *element = &listing->edges[i].element;
        if (listing->edges[i].ends)
            continue;
        if (i + 1 < listing->count) {
            memcpy(element->key_end, listing->edges[i + 1].element.key, listing->set->key_length);
            (void)bytes_decrement(element->key_end, listing->set->key_length);
        } else {
            memset(element->key_end, 0xff, listing->set->key_length);
        }
        write_element(listing, element);
    }
}

int nft_list_elements(struct netlink *filter, const struct element_set *set, struct text *out, struct error *error)
{
    struct listing listing = {.set = set, .out = out};
    struct outgoing question = {0};
    size_t start = out->length;
    int result = -1;
    begin_set_message(&question, NFT_MSG_GETSETELEM, NLM_F_DUMP, set, 0);
    out_end(&question);
    for (int tries = 0; tries < DUMP_TRIES_MAX; tries++) {
        out->length = start;
        listing.count = 0;
        text_put(out, "[", 1);
        result = netlink_dump(filter, &question, list_message, &listing, error);
        if (result == 0 || error->number != EINTR)
            break;
    }
    write_intervals(&listing);
    text_put(out, "]", 1);
    out_release(&question);
    free(listing.edges);
    text_release(&listing.words);
    return result < 0 ? fail_in(error, "list elements of %s %s", set->table, set->name) : 0;
}

static int read_generation(void *context, const struct nlmsghdr *message, struct error *error)
{
    const struct nlattr *attributes[NFTA_GEN_MAX + 1];
    (void)error;
    message_attributes(message, sizeof(struct nfgenmsg), attributes, NFTA_GEN_MAX);
    *(uint32_t *)context = ntohl(attribute_u32(attributes[NFTA_GEN_ID]));
    return 0;
}

int nft_generation(struct netlink *filter, uint32_t *out, struct error *error)
{
    struct nfgenmsg header = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0};
    struct outgoing question = {0};
    out_begin(&question, nft_type(NFT_MSG_GETGEN), 0, &header, sizeof header, 0);
    out_end(&question);
    int result = netlink_get(filter, &question, read_generation, out, error);
    out_release(&question);
    return result < 0 ? fail_in(error, "read the number of the ruleset") : 0;
}
