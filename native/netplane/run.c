#include "netplane/run.h"
#include "common/fd.h"
#include "netplane/conntrack.h"
#include "netplane/events.h"
#include "netplane/links.h"
#include "netplane/nft.h"
#include "netplane/ruleset.h"
#include "netplane/wireguard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/ip.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>
#include <string.h>

enum {
    SENT_TOGETHER_MAX = 4096, /* messages: their refusals must fit into the socket's queue */
    SENT_BYTES_MAX = 1024 * 1024,
    SYSCTL_READ_MAX = 4096,
    TOUCHED_MAX = 64, /* other namespaces that a batch reaches into, as far as events care */
};

/* One batch under way. Owners of messages are places in the request's operations. */
struct run {
    struct runner *runner;
    struct namespace *namespace;
    const struct request *request;
    const struct batch *batch;
    size_t batch_index;
    uint32_t current;    /* the operation being done */
    uint32_t failed;     /* the one at fault */
    bool links_change;   /* among what is not sent yet are operations that make, rename or delete links */
    bool names_other;    /* what is not sent yet names the descriptor of another namespace, good until another one is opened */
    uint32_t settings_end; /* operations before it are among the settings that stand side by side and are asked for already */
    bool counted;        /* the namespace's generation is that of our own last change */
    struct text *answer; /* results, as they come */
    struct namespace *touched[TOUCHED_MAX];
    size_t touched_count;
    /* Of connections-delete operations that stand side by side: the first not answered yet, and what each has deleted. */
    uint64_t deleted[CONNECTIONS_WANTED_MAX];
    uint32_t deleted_first, deleted_end;
    struct error *error;
};

static const struct operation *operation_of(const struct run *run, uint32_t owner)
{
    return &run->request->operations[owner];
}

static bool is_fine(const struct operation *operation, int number)
{
    /* A link without IPv6, of a kernel or an MTU without it, has no address of it either. */
    if (number == EAFNOSUPPORT && (operation->kind == OP_LINK_ADD || operation->kind == OP_LINK_SET) && operation->link.link_local == 0)
        return true;
    for (size_t i = 0; i < IGNORED_MAX; i++)
        if (number != 0 && operation->ignored[i] == number)
            return true;
    return false;
}

struct judgement {
    struct run *run;
    bool refused;
};

static bool judge_refusal(void *context, const struct refusal *refusal)
{
    struct judgement *judgement = context;
    const struct operation *operation = operation_of(judgement->run, refusal->owner);
    if (is_fine(operation, refusal->number))
        return true;
    if (!judgement->refused) {
        judgement->refused = true;
        judgement->run->failed = refusal->owner;
        fail(judgement->run->error, refusal->number, "%s%s%s", operation_name(operation->kind),
             refusal->explanation == NULL ? "" : ": ", refusal->explanation == NULL ? "" : refusal->explanation);
    }
    return false;
}

/* What the kernel does with a message beyond what bears our number: all that is on a link goes with it, for one. */
static unsigned consequences(const struct outgoing *out)
{
    unsigned changes = 0;
    for (size_t i = 0; i < out->count; i++) {
        const struct nlmsghdr *message = (const struct nlmsghdr *)(out->bytes + out->places[i].offset);
        switch (message->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_SETLINK:
        case RTM_DELLINK:
            return CHANGE_ALL;
        case RTM_NEWADDR:
        case RTM_DELADDR:
            changes |= CHANGE_ADDRESS | CHANGE_ROUTE;
            break;
        case RTM_NEWNEIGH:
        case RTM_DELNEIGH:
            changes |= ((const struct ndmsg *)NLMSG_DATA(message))->ndm_family == AF_BRIDGE ? CHANGE_FDB : 0;
            break;
        default:
            break;
        }
    }
    return changes;
}

/* What follows from our own doing is not news. */
static void read_touched(struct run *run, unsigned ours)
{
    watch_read(&run->runner->namespaces, run->namespace, ours);
    for (size_t i = 0; i < run->touched_count; i++)
        watch_read(&run->runner->namespaces, run->touched[i], ours);
}

static int send_messages(struct run *run)
{
    struct outgoing *out = &run->runner->route;
    struct netlink *route;
    if (out->count == 0 && !out->failed)
        return 0;
    struct judgement judgement = {.run = run};
    struct error told = {0};
    int result = namespace_route(&run->runner->namespaces, run->namespace, &route, run->error);
    if (result == 0) {
        out_flag_last(out, NLM_F_ACK);
        unsigned ours = consequences(out);
        read_touched(run, 0);
        result = netlink_exchange(route, out, out->count - 1, judge_refusal, &judgement, &told);
        read_touched(run, ours);
        run->touched_count = 0;
        if (result < 0 && !judgement.refused)
            *run->error = told;
    }
    out_clear(out);
    run->links_change = false;
    run->names_other = false;
    return result;
}

static int commit_elements(struct run *run)
{
    struct outgoing *out = &run->runner->elements;
    struct netlink *filter;
    if (out->count == 0 && !out->failed)
        return 0;
    run->failed = run->current;
    int result = namespace_filter(&run->runner->namespaces, run->namespace, &filter, run->error);
    if (result == 0)
        result = nft_commit(filter, out, run->request->operations, &run->namespace->generation, &run->failed, run->error);
    run->counted = result == 0 && run->namespace->generation != 0;
    out_shrink(out);
    return result;
}

static int flush(struct run *run)
{
    return send_messages(run) < 0 || commit_elements(run) < 0 ? -1 : 0;
}

/* The index of a link: what was asked for before it must be done first, since it may have made the link. */
static int resolve(struct run *run, const char *name, uint32_t *out)
{
    struct namespaces *namespaces = &run->runner->namespaces;
    if (name == NULL || *name == '\0')
        return 0;
    return (run->links_change && send_messages(run) < 0) ? -1 : namespace_link_index(namespaces, run->namespace, name, out, run->error);
}

static int open_other(struct run *run, const char *path, int *out)
{
    struct namespace *other;
    if (strcmp(path, run->batch->namespace_path) == 0)
        other = run->namespace;
    else if ((run->names_other && send_messages(run) < 0) || namespaces_open(&run->runner->namespaces, path, &other, run->error) < 0)
        return -1;
    *out = other->fd;
    if (other->watch != NULL && run->touched_count < TOUCHED_MAX)
        run->touched[run->touched_count++] = other;
    return 0;
}

static int add_link(struct run *run, const struct link_fields *link)
{
    struct message_context context = {.owner = run->current, .namespace_fd = -1};
    const char *other = link->kind == LINK_VETH ? link->peer_namespace : link->target;
    if (resolve(run, link->master, &context.master) < 0 || resolve(run, link->lower, &context.lower) < 0 ||
        (other != NULL && open_other(run, other, &context.namespace_fd) < 0))
        return -1;
    namespace_forget_link(run->namespace, link->name);
    if (link->peer_name != NULL)
        namespace_forget_link(run->namespace, link->peer_name);
    put_link_add(&run->runner->route, link, &context);
    run->links_change = true;
    run->names_other = run->names_other || context.namespace_fd >= 0;
    return 0;
}

static int set_link(struct run *run, const struct link_fields *link)
{
    struct message_context context = {.owner = run->current, .namespace_fd = -1};
    if (resolve(run, link->master, &context.master) < 0 || (link->rename != NULL && resolve(run, link->name, &context.link) < 0))
        return -1;
    put_link_set(&run->runner->route, link, &context);
    if (link->rename == NULL)
        return 0;
    namespace_forget_link(run->namespace, link->name);
    namespace_forget_link(run->namespace, link->rename);
    return send_messages(run);
}

static int delete_link(struct run *run, const char *name)
{
    namespace_forget_link(run->namespace, NULL); /* a veth takes its other end along */
    put_link_delete(&run->runner->route, name, run->current);
    run->links_change = true;
    return 0;
}

/* Operations that name a link and become one message. */
static int put_message(struct run *run, const struct operation *operation)
{
    struct message_context context = {.owner = run->current, .namespace_fd = -1};
    struct outgoing *out = &run->runner->route;
    switch (operation->kind) {
    case OP_ADDRESS_SET:
    case OP_ADDRESS_DELETE:
        if (resolve(run, operation->address.link, &context.link) < 0)
            return -1;
        put_address(out, &operation->address, operation->kind == OP_ADDRESS_DELETE, &context);
        return 0;
    case OP_ROUTE_ADD:
    case OP_ROUTE_REPLACE:
    case OP_ROUTE_DELETE:
        if (resolve(run, operation->route.link, &context.link) < 0)
            return -1;
        put_route(out, &operation->route, operation->kind, &context);
        return 0;
    case OP_NEIGHBOUR_SET:
    case OP_NEIGHBOUR_DELETE:
        if (resolve(run, operation->neighbour.link, &context.link) < 0)
            return -1;
        put_neighbour(out, &operation->neighbour, operation->kind == OP_NEIGHBOUR_DELETE, &context);
        return 0;
    case OP_FDB_SET:
    case OP_FDB_DELETE:
        if (resolve(run, operation->neighbour.link, &context.link) < 0)
            return -1;
        put_fdb(out, &operation->neighbour, operation->kind == OP_FDB_DELETE, &context);
        return 0;
    default:
        put_rule(out, &operation->rule, operation->kind == OP_RULE_DELETE, &context);
        return 0;
    }
}

/* A setting of one link that travels with the messages about it: no file is opened, and the namespace is not entered. */
static bool as_link_setting(const char *name, const char *value, char link[IFNAMSIZ], uint16_t *setting, uint32_t *number)
{
    static const struct {
        const char *name;
        uint16_t setting;
    } settings[] = {{"rp_filter", IPV4_DEVCONF_RP_FILTER}, {"route_localnet", IPV4_DEVCONF_ROUTE_LOCALNET}};
    static const char prefix[] = "net/ipv4/conf/";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || value[0] < '0' || value[0] > '9' || value[1] != '\0')
        return false;
    const char *start = name + sizeof prefix - 1, *end = strchr(start, '/');
    size_t length = end == NULL ? 0 : (size_t)(end - start);
    if (length == 0 || length >= IFNAMSIZ)
        return false;
    memcpy(link, start, length);
    link[length] = '\0';
    /* What is for all links, or for those to come, is no link's. */
    if (strcmp(link, "all") == 0 || strcmp(link, "default") == 0)
        return false;
    *number = (uint32_t)(value[0] - '0');
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(end + 1, settings[i].name) == 0) {
            *setting = settings[i].setting;
            return true;
        }
    return false;
}

/* All of one link that stand side by side are one message. False: it is none of these. */
static bool put_link_setting(struct run *run)
{
    enum { SETTINGS_TOGETHER_MAX = 8 };
    struct link_setting settings[SETTINGS_TOGETHER_MAX];
    char link[IFNAMSIZ], next[IFNAMSIZ];
    size_t count = 0, end = run->batch->first + run->batch->count;
    if (run->current < run->settings_end)
        return true;
    for (size_t i = run->current; i < end && count < SETTINGS_TOGETHER_MAX; i++) {
        const struct operation *operation = operation_of(run, (uint32_t)i);
        if (operation->kind != OP_SYSCTL_WRITE ||
            !as_link_setting(operation->sysctl.name, operation->sysctl.value, next, &settings[count].setting, &settings[count].value) ||
            (count > 0 && (strcmp(link, next) != 0 || memcmp(operation->ignored, operation_of(run, run->current)->ignored, sizeof operation->ignored) != 0)))
            break;
        memcpy(link, next, sizeof link);
        count++;
    }
    if (count == 0)
        return false;
    put_link_settings(&run->runner->route, link, settings, count, run->current);
    run->settings_end = run->current + (uint32_t)count;
    return true;
}

/* /proc/sys/net shows the namespace of the thread that opens it. */
static int write_sysctl(struct run *run, const char *name, const char *value)
{
    char path[SYSCTL_NAME_MAX + 16];
    snprintf(path, sizeof path, "/proc/sys/%s", name);
    if (namespace_enter(run->namespace, run->error) < 0)
        return -1;
    int result = write_control_at(AT_FDCWD, path, value, run->error);
    namespace_leave(&run->runner->namespaces);
    return result;
}

static int read_sysctl(struct run *run, const char *name, struct text *out)
{
    char path[SYSCTL_NAME_MAX + 16];
    cleanup_free char *value = NULL;
    size_t length = 0;
    snprintf(path, sizeof path, "/proc/sys/%s", name);
    if (namespace_enter(run->namespace, run->error) < 0)
        return -1;
    int result = read_file_at(AT_FDCWD, path, SYSCTL_READ_MAX, &value, &length, run->error);
    namespace_leave(&run->runner->namespaces);
    if (result < 0)
        return -1;
    while (length > 0 && value[length - 1] == '\n')
        length--;
    text_quote(out, value, length);
    return 0;
}

static int list_ruleset(struct run *run, uint8_t family, const char *table, struct text *out)
{
    static const char *const names[NFPROTO_NUMPROTO] = {
        [NFPROTO_IPV4] = "ip",         [NFPROTO_IPV6] = "ip6",     [NFPROTO_INET] = "inet",
        [NFPROTO_NETDEV] = "netdev",   [NFPROTO_BRIDGE] = "bridge", [NFPROTO_ARP] = "arp",
    };
    char command[NFT_NAME_BYTES + 32];
    snprintf(command, sizeof command, "list table %s %s", names[family], table);
    return ruleset_run(run->namespace, command, out, run->error);
}

static int change_ruleset(struct run *run, const char *text)
{
    watch_read(&run->runner->namespaces, run->namespace, 0);
    int result = ruleset_run(run->namespace, text, NULL, run->error);
    run->namespace->generation = 0;
    run->counted = false;
    watch_read(&run->runner->namespaces, run->namespace, CHANGE_NFT);
    return result;
}

/* Made and taken away again. EEXIST means that one could be made before. */
static int probe_wireguard(struct run *run, struct text *out)
{
    static const struct link_fields probe = {.name = "skepwgprobe", .kind = LINK_WIREGUARD, .up = -1};
    struct message_context context = {.owner = run->current, .namespace_fd = -1};
    struct error refused = {0};
    struct run silent = *run;
    silent.error = &refused;
    put_link_add(&run->runner->route, &probe, &context);
    int made = send_messages(&silent);
    if (made < 0 && refused.number != EOPNOTSUPP && refused.number != EEXIST) {
        *run->error = refused;
        return -1;
    }
    text_puts(out, made == 0 || refused.number == EEXIST ? "true" : "false");
    if (made < 0)
        return 0;
    put_link_delete(&run->runner->route, probe.name, run->current);
    return send_messages(run);
}

static int open_wireguard(struct run *run, struct netlink **generic, uint16_t *family)
{
    if (namespace_generic(&run->runner->namespaces, run->namespace, generic, run->error) < 0)
        return -1;
    return wireguard_family(*generic, family, run->error);
}

static bool keep_refusal(void *context, const struct refusal *refusal)
{
    struct error *error = context;
    fail(error, refusal->number, "%s", refusal->explanation == NULL ? "refused" : refusal->explanation);
    return false;
}

/* One message of its own: these are rare, and a key shall not wait in a buffer. */
static int change_wireguard(struct run *run, const struct operation *operation)
{
    struct netlink *generic;
    uint16_t family = 0;
    if (open_wireguard(run, &generic, &family) < 0)
        return -1;
    struct outgoing out = {0};
    struct error refused = {0};
    if (operation->kind == OP_WIREGUARD_SET)
        put_wireguard_set(&out, family, &operation->tunnel, run->current);
    else
        put_wireguard_peer(&out, family, &operation->tunnel, operation->kind == OP_WIREGUARD_PEER_DELETE, run->current);
    out_flag_last(&out, NLM_F_ACK);
    int result = netlink_exchange(generic, &out, out.count - 1, keep_refusal, &refused, run->error);
    if (result < 0 && run->error->number == 0)
        fail(run->error, refused.number, "%s of %s", operation_name(operation->kind), operation->tunnel.link);
    if (out.bytes != NULL)
        explicit_bzero(out.bytes, out.room);
    out_release(&out);
    return result;
}

static int list_wireguard(struct run *run, const char *link, struct text *out)
{
    struct netlink *generic;
    uint16_t family = 0;
    return open_wireguard(run, &generic, &family) < 0 ? -1 : wireguard_list(generic, family, link, out, run->error);
}

/* All that stand side by side are done with the first of them. */
static int delete_connections(struct run *run, struct text *out)
{
    const struct connection_fields *wanted[CONNECTIONS_WANTED_MAX];
    if (run->current >= run->deleted_end) {
        struct netlink *filter;
        size_t count = 0, end = run->batch->first + run->batch->count;
        for (size_t i = run->current; i < end && count < CONNECTIONS_WANTED_MAX; i++) {
            const struct operation *operation = operation_of(run, (uint32_t)i);
            if (operation->kind != OP_CONNECTIONS_DELETE)
                break;
            wanted[count++] = &operation->connection;
        }
        if (namespace_filter(&run->runner->namespaces, run->namespace, &filter, run->error) < 0 ||
            connections_delete(filter, wanted, count, run->deleted, run->error) < 0)
            return -1;
        run->deleted_first = run->current;
        run->deleted_end = run->current + (uint32_t)count;
    }
    text_format(out, "%" PRIu64, run->deleted[run->current - run->deleted_first]);
    return 0;
}

/* After a change of ours it is that of the change, so that nobody else's hides in it, and need not be asked for. */
static int read_generation(struct run *run, struct text *out)
{
    struct netlink *filter;
    if (!run->counted && (namespace_filter(&run->runner->namespaces, run->namespace, &filter, run->error) < 0 ||
                          nft_generation(filter, &run->namespace->generation, run->error) < 0))
        return -1;
    text_format(out, "%" PRIu32, run->namespace->generation);
    return 0;
}

static int list_elements(struct run *run, const struct element_set *set, struct text *out)
{
    struct netlink *filter;
    if (namespace_filter(&run->runner->namespaces, run->namespace, &filter, run->error) < 0)
        return -1;
    return nft_list_elements(filter, set, out, run->error);
}

static int write_dump(struct run *run, const struct operation *operation, struct text *out)
{
    struct netlink *route;
    if (namespace_route(&run->runner->namespaces, run->namespace, &route, run->error) < 0)
        return -1;
    return dump_write(route, operation->dump.parts, operation->dump.all, out, run->error);
}

/* Operations that answer something: `out` gets the value. */
static int ask(struct run *run, const struct operation *operation, struct text *out)
{
    switch (operation->kind) {
    case OP_SYSCTL_READ:
        return read_sysctl(run, operation->sysctl.name, out);
    case OP_RULESET_LIST:
        return list_ruleset(run, operation->ruleset.family, operation->ruleset.table, out);
    case OP_ELEMENTS_LIST:
        return list_elements(run, operation->elements.set, out);
    case OP_GENERATION:
        return read_generation(run, out);
    case OP_CONNECTIONS_DELETE:
        return delete_connections(run, out);
    case OP_DUMP:
        return write_dump(run, operation, out);
    case OP_WIREGUARD_LIST:
        return list_wireguard(run, operation->tunnel.link, out);
    default:
        return probe_wireguard(run, out);
    }
}

static int answer_question(struct run *run, const struct operation *operation)
{
    struct text *answer = run->answer;
    size_t start = answer->length;
    text_comma(answer);
    text_format(answer, "{\"batch\":%zu,\"operation\":%zu,\"value\":", run->batch_index, run->current - run->batch->first);
    if (ask(run, operation, answer) < 0) {
        answer->length = start; /* the failure may be fine, and then nothing is answered */
        return -1;
    }
    text_put(answer, "}", 1);
    return answer->failed ? fail(run->error, EMSGSIZE, "%s: the answer is too long", operation_name(operation->kind)) : 0;
}

static int change_namespaces(struct run *run, const struct operation *operation)
{
    struct namespaces *namespaces = &run->runner->namespaces;
    if (strcmp(operation->path, run->batch->namespace_path) == 0)
        return fail(run->error, EINVAL, "%s: it is the namespace of the batch itself", operation_name(operation->kind));
    int result = operation->kind == OP_NAMESPACE_ADD ? namespaces_add(namespaces, operation->path, run->error)
                                                     : namespaces_delete(namespaces, operation->path, run->error);
    return result;
}

static int do_alone(struct run *run, const struct operation *operation)
{
    struct namespaces *namespaces = &run->runner->namespaces;
    if (flush(run) < 0)
        return -1;
    run->failed = run->current;
    switch (operation->kind) {
    case OP_NAMESPACE_ADD:
    case OP_NAMESPACE_DELETE:
        return change_namespaces(run, operation);
    case OP_SYSCTL_WRITE:
        return write_sysctl(run, operation->sysctl.name, operation->sysctl.value);
    case OP_RULESET:
        return change_ruleset(run, operation->ruleset.text);
    case OP_PORT_RESERVE:
        return namespace_reserve(namespaces, run->namespace, &operation->port, run->error);
    case OP_PORT_RELEASE:
        return namespace_release_port(namespaces, run->namespace, &operation->port, run->error);
    case OP_WATCH:
        return watch_begin(namespaces, run->namespace, run->runner->epoll_fd, run->error);
    case OP_UNWATCH:
        watch_end(run->namespace);
        return 0;
    case OP_WIREGUARD_SET:
    case OP_WIREGUARD_PEER_SET:
    case OP_WIREGUARD_PEER_DELETE:
        return change_wireguard(run, operation);
    default:
        return answer_question(run, operation);
    }
}

/* What must not be sent together with what was collected so far is preceded by sending that. */
static int do_operation(struct run *run, const struct operation *operation)
{
    switch (operation->kind) {
    case OP_SYSCTL_WRITE:
        if (commit_elements(run) < 0)
            return -1;
        return put_link_setting(run) ? 0 : do_alone(run, operation);
    case OP_LINK_ADD:
        return commit_elements(run) < 0 ? -1 : add_link(run, &operation->link);
    case OP_LINK_SET:
        return commit_elements(run) < 0 ? -1 : set_link(run, &operation->link);
    case OP_LINK_DELETE:
        return commit_elements(run) < 0 ? -1 : delete_link(run, operation->link.name);
    case OP_LINK_SETTLE:
        if (commit_elements(run) < 0)
            return -1;
        put_link_settle(&run->runner->route, operation->link.name, run->current);
        return 0;
    case OP_ADDRESS_SET:
    case OP_ADDRESS_DELETE:
    case OP_ROUTE_ADD:
    case OP_ROUTE_REPLACE:
    case OP_ROUTE_DELETE:
    case OP_NEIGHBOUR_SET:
    case OP_NEIGHBOUR_DELETE:
    case OP_FDB_SET:
    case OP_FDB_DELETE:
    case OP_RULE_ADD:
    case OP_RULE_DELETE:
        return commit_elements(run) < 0 ? -1 : put_message(run, operation);
    case OP_ELEMENTS:
        if (send_messages(run) < 0)
            return -1;
        return nft_put_elements(&run->runner->elements, operation, run->current, run->error);
    case OP_BALANCE:
        if (send_messages(run) < 0)
            return -1;
        return nft_put_balance(&run->runner->elements, &operation->balance, run->current, run->error);
    case OP_CHAIN_DELETE:
        if (send_messages(run) < 0)
            return -1;
        return nft_put_chain_deletion(&run->runner->elements, &operation->balance, run->current, run->error);
    default:
        return do_alone(run, operation);
    }
}

static int do_batch(struct run *run)
{
    struct outgoing *route = &run->runner->route;
    if (namespaces_open(&run->runner->namespaces, run->batch->namespace_path, &run->namespace, run->error) < 0)
        return -1;
    namespace_forget_link(run->namespace, NULL);
    for (size_t i = 0; i < run->batch->count; i++) {
        run->current = (uint32_t)(run->batch->first + i);
        run->failed = run->current;
        const struct operation *operation = operation_of(run, run->current);
        if (do_operation(run, operation) < 0) {
            bool own = run->failed == run->current;
            if (!own || !is_fine(operation, run->error->number))
                return -1;
            *run->error = (struct error){0};
        }
        if ((route->count >= SENT_TOGETHER_MAX || route->length >= SENT_BYTES_MAX) && send_messages(run) < 0)
            return -1;
    }
    return flush(run);
}

static void write_failure(struct text *answer, const struct request *request, size_t batch, size_t operation, const struct error *error)
{
    const char *name = error->number == 0 ? "EIO" : strerrorname_np(error->number);
    answer->length = 0;
    answer->failed = false;
    text_format(answer, "{\"id\":%" PRIu64 ",\"failed\":{\"batch\":%zu,\"operation\":%zu,\"errno\":\"%s\",\"text\":", request->id, batch,
                operation, name == NULL ? "EIO" : name);
    text_quote(answer, error->text, strlen(error->text));
    text_puts(answer, "}}");
}

void run_request(struct runner *runner, char *bytes, size_t length, struct text *answer)
{
    cleanup_request struct request request;
    struct error error = {0};
    uint64_t begun_ns = monotonic_ns();
    if (request_decode(bytes, length, &request, &error) < 0) {
        write_failure(answer, &request, request.failed_batch, request.failed_operation, &error);
        return;
    }
    text_format(answer, "{\"id\":%" PRIu64 ",\"results\":[", request.id);
    for (size_t i = 0; i < request.batches_count; i++) {
        struct run run = {
            .runner = runner, .request = &request, .batch = &request.batches[i], .batch_index = i, .answer = answer, .error = &error};
        run.current = run.failed = (uint32_t)run.batch->first;
        if (do_batch(&run) < 0) {
            out_shrink(&runner->route);
            out_shrink(&runner->elements);
            write_failure(answer, &request, i, run.failed - run.batch->first, &error);
            return;
        }
    }
    out_shrink(&runner->route);
    text_format(answer, "],\"ns\":%" PRIu64 "}", monotonic_ns() - begun_ns);
}
