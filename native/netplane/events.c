#include "netplane/events.h"
#include "common/fd.h"
#include "netplane/links.h"
#include "netplane/namespaces.h"

#include <arpa/inet.h>
#include <linux/fib_rules.h>
#include <linux/filter.h>
#include <linux/neighbour.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { EVENT_BYTES = 64 * 1024, WATCH_SOCKET_BYTES = 4 * 1024 * 1024 };

static const char *const change_names[] = {"link", "address", "route", "neighbour", "fdb", "rule", "nft"};

/* Links change in ways that mean nothing to us (carrier, statistics): what counts is summed up in `digest`. */
struct watched_link {
    uint32_t index;
    bool own;
    uint64_t digest;
};

struct watch {
    uint64_t id;
    int route_fd;
    int filter_fd;
    struct watched_link *links;
    size_t count;
    size_t room;
    unsigned changes;
    bool stale; /* what is known of links may be wrong: something was left out, and they could not be read since */
    uint64_t due_ns; /* 0: nothing to tell */
    uint64_t told_ns;
};

static uint64_t digest_bytes(uint64_t hash, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3;
    return hash;
}

static uint64_t digest_of(const struct link_row *row)
{
    uint64_t hash = 0xcbf29ce484222325;
    hash = digest_bytes(hash, row->name, strlen(row->name) + 1);
    hash = digest_bytes(hash, row->alias, strlen(row->alias) + 1);
    hash = digest_bytes(hash, row->mac, sizeof row->mac);
    hash = digest_bytes(hash, &row->mtu, sizeof row->mtu);
    hash = digest_bytes(hash, &row->master, sizeof row->master);
    return digest_bytes(hash, &row->up, sizeof row->up);
}

static struct watched_link *find_link(struct watch *watch, uint32_t index)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->links[i].index == index)
            return &watch->links[i];
    return NULL;
}

static bool is_own(struct watch *watch, uint32_t index)
{
    const struct watched_link *link = find_link(watch, index);
    return link != NULL && link->own;
}

/* Whether it is a change of a link of ours. */
static bool note_link(struct watch *watch, const struct link_row *row, bool gone)
{
    struct watched_link *known = find_link(watch, row->index);
    if (gone) {
        bool own = known != NULL && known->own;
        if (known != NULL)
            *known = watch->links[--watch->count];
        return own;
    }
    struct watched_link now = {row->index, row->own, digest_of(row)};
    if (known != NULL) {
        bool changed = (known->own || now.own) && known->digest != now.digest;
        *known = now;
        return changed;
    }
    if (watch->count == watch->room) {
        size_t room = watch->room == 0 ? 32 : watch->room * 2;
        struct watched_link *grown = realloc(watch->links, room * sizeof *grown);
        if (grown == NULL)
            return true;
        watch->links = grown;
        watch->room = room;
    }
    watch->links[watch->count++] = now;
    return now.own;
}

static int note_all_links(struct namespaces *namespaces, struct namespace *namespace, struct error *error)
{
    struct netlink *route;
    cleanup_links struct link_table table = {0};
    if (namespace_route(namespaces, namespace, &route, error) < 0 || links_read(route, &table, error) < 0)
        return -1;
    namespace->watch->count = 0;
    for (size_t i = 0; i < table.count; i++)
        (void)note_link(namespace->watch, &table.rows[i], false);
    return 0;
}

static void attach(int fd, struct sock_filter *filter, unsigned short length, struct error *error, int *result)
{
    struct sock_fprog program = {length, filter};
    if (*result == 0 && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
        *result = fail(error, errno, "filter events");
}

static int join(int fd, const unsigned *groups, size_t count, struct error *error)
{
    for (size_t i = 0; i < count; i++)
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]) < 0)
            return fail(error, errno, "ask for events of group %u", groups[i]);
    return 0;
}

/* socket(7) SO_ATTACH_FILTER: loads are big-endian, netlink's fields are not. nlmsg_type is at 4, nlmsg_pid at 12. */
#define PASS BPF_STMT(BPF_RET | BPF_K, 0xffffffff)
#define DROP BPF_STMT(BPF_RET | BPF_K, 0)

/* Routes of others would be a flood on a host with a routing daemon: rtm_protocol is at 16 + 5. */
static int open_route_watch(uint32_t own_port, int *out, struct error *error)
{
    static const unsigned groups[] = {RTNLGRP_LINK,       RTNLGRP_NEIGH,       RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                                      RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE};
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(own_port), 6, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWROUTE), 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELROUTE), 0, 2),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 21),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_PROTOCOL, 0, 1),
        PASS,
        DROP,
    };
    struct netlink opened;
    int result = netlink_open(NETLINK_ROUTE, &opened, error);
    if (result < 0)
        return -1;
    attach(opened.fd, filter, sizeof filter / sizeof *filter, error, &result);
    if (result == 0)
        result = join(opened.fd, groups, sizeof groups / sizeof *groups, error);
    if (result < 0)
        netlink_close(&opened);
    *out = opened.fd;
    return result;
}

/* Of a transaction only its end is let through; the elements of a large one would overrun the socket. */
static int open_filter_watch(uint32_t own_port, int *out, struct error *error)
{
    static const unsigned groups[] = {NFNLGRP_NFTABLES};
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(own_port), 3, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN), 0, 1),
        PASS,
        DROP,
    };
    struct netlink opened;
    int result = netlink_open(NETLINK_NETFILTER, &opened, error);
    if (result < 0)
        return -1;
    attach(opened.fd, filter, sizeof filter / sizeof *filter, error, &result);
    if (result == 0)
        result = join(opened.fd, groups, 1, error);
    if (result < 0)
        netlink_close(&opened);
    *out = opened.fd;
    return result;
}

static int open_sockets(struct namespaces *namespaces, struct namespace *namespace, int epoll_fd, struct error *error)
{
    struct watch *watch = namespace->watch;
    struct netlink *route, *filter;
    if (namespace_route(namespaces, namespace, &route, error) < 0 || namespace_filter(namespaces, namespace, &filter, error) < 0 ||
        namespace_enter(namespace, error) < 0)
        return -1;
    int result = open_route_watch(route->port, &watch->route_fd, error);
    if (result == 0)
        result = open_filter_watch(filter->port, &watch->filter_fd, error);
    namespace_leave(namespaces);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = watch->id};
    if (result == 0 && (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->route_fd, &event) < 0 ||
                        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->filter_fd, &event) < 0))
        result = fail(error, errno, "wait for events");
    return result;
}

int watch_begin(struct namespaces *namespaces, struct namespace *namespace, int epoll_fd, struct error *error)
{
    static uint64_t last_id;
    size_t watches = 0;
    if (namespace->watch != NULL)
        return 0;
    for (size_t i = 0; i < namespaces->count; i++)
        watches += namespaces->all[i]->watch != NULL;
    if (watches >= WATCHES_MAX)
        return fail(error, EMFILE, "watch more than %d namespaces", WATCHES_MAX);
    namespace->watch = calloc(1, sizeof *namespace->watch);
    if (namespace->watch == NULL)
        return fail(error, ENOMEM, "watch a namespace");
    *namespace->watch = (struct watch){.id = ++last_id, .route_fd = -1, .filter_fd = -1};
    if (open_sockets(namespaces, namespace, epoll_fd, error) == 0 && note_all_links(namespaces, namespace, error) == 0)
        return 0;
    watch_end(namespace);
    return fail_in(error, "watch namespace %s", namespace->path);
}

void watch_end(struct namespace *namespace)
{
    struct watch *watch = namespace->watch;
    if (watch == NULL)
        return;
    close_fd(&watch->route_fd);
    close_fd(&watch->filter_fd);
    free(watch->links);
    free(watch);
    namespace->watch = NULL;
}

/*
 * Neighbours come and go on their own. Ours are permanent, and one that somebody deletes is first told to have failed, with
 * the number of who did it.
 */
static unsigned judge_neighbour(struct watch *watch, const struct nlmsghdr *message)
{
    const struct ndmsg *header = message_header(message, sizeof *header);
    if (header == NULL || !is_own(watch, (uint32_t)header->ndm_ifindex))
        return 0;
    if (header->ndm_family == AF_BRIDGE)
        return CHANGE_FDB;
    bool told = (header->ndm_state & NUD_PERMANENT) != 0 ||
                ((header->ndm_state & NUD_FAILED) != 0 && message->nlmsg_pid != 0);
    return told && message->nlmsg_type == RTM_NEWNEIGH ? CHANGE_NEIGHBOUR : 0;
}

static unsigned judge_address(struct watch *watch, const struct nlmsghdr *message)
{
    const struct ifaddrmsg *header = message_header(message, sizeof *header);
    if (header == NULL || (header->ifa_family == AF_INET6 && header->ifa_scope == RT_SCOPE_LINK))
        return 0;
    return is_own(watch, header->ifa_index) ? CHANGE_ADDRESS : 0;
}

static unsigned judge_link(struct watch *watch, const struct nlmsghdr *message)
{
    struct link_row row;
    return read_link(message, &row) && note_link(watch, &row, message->nlmsg_type == RTM_DELLINK) ? CHANGE_LINK : 0;
}

static unsigned judge_rule(const struct nlmsghdr *message)
{
    const struct fib_rule_hdr *header = message_header(message, sizeof *header);
    const struct nlattr *attributes[FRA_PROTOCOL + 1];
    if (header == NULL)
        return 0;
    message_attributes(message, sizeof *header, attributes, FRA_PROTOCOL);
    return attribute_u8(attributes[FRA_PROTOCOL]) == OWN_PROTOCOL ? CHANGE_RULE : 0;
}

static unsigned judge(struct watch *watch, const struct nlmsghdr *message)
{
    switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return judge_link(watch, message);
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return judge_address(watch, message);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        return judge_neighbour(watch, message);
    case RTM_NEWRULE:
    case RTM_DELRULE:
        return judge_rule(message);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return CHANGE_ROUTE;
    default:
        return 0;
    }
}

/* What one of the sockets holds; *lost when the kernel had to leave something out. */
static unsigned read_socket(struct watch *watch, int fd, bool filter, bool *lost)
{
    static _Alignas(struct nlmsghdr) uint8_t bytes[EVENT_BYTES];
    unsigned changes = 0;
    for (;;) {
        ssize_t got = TEMP_FAILURE_RETRY(recv(fd, bytes, sizeof bytes, MSG_DONTWAIT));
        if (got < 0 && errno == ENOBUFS) {
            *lost = true;
            continue;
        }
        if (got <= 0)
            return changes;
        size_t left = (size_t)got;
        for (const uint8_t *at = bytes; left >= MESSAGE_HEADER;) {
            const struct nlmsghdr *message = (const struct nlmsghdr *)at;
            size_t step = align4(message->nlmsg_len);
            if (message->nlmsg_len < MESSAGE_HEADER || message->nlmsg_len > left)
                break;
            changes |= filter ? CHANGE_NFT : judge(watch, message);
            if (step >= left)
                break;
            at += step;
            left -= step;
        }
    }
}

void watch_read(struct namespaces *namespaces, struct namespace *namespace, unsigned ours)
{
    struct watch *watch = namespace->watch;
    bool lost = false;
    if (watch == NULL)
        return;
    unsigned changes = read_socket(watch, watch->route_fd, false, &lost) | read_socket(watch, watch->filter_fd, true, &lost);
    struct error ignored; /* the links are then read at the next change */
    watch->stale = watch->stale || lost;
    if (watch->stale && note_all_links(namespaces, namespace, &ignored) == 0)
        watch->stale = false;
    watch->changes |= (lost ? (unsigned)CHANGE_ALL : changes) & ~ours;
    if (watch->changes == 0 || watch->due_ns != 0)
        return;
    uint64_t now = monotonic_ns(), pause = watch->told_ns + EVENT_PAUSE_MS * 1000000ull;
    watch->due_ns = now + EVENT_DELAY_MS * 1000000ull;
    if (watch->due_ns < pause)
        watch->due_ns = pause;
}

struct namespace *watch_find(const struct namespaces *namespaces, uint64_t id)
{
    for (size_t i = 0; i < namespaces->count; i++)
        if (namespaces->all[i]->watch != NULL && namespaces->all[i]->watch->id == id)
            return namespaces->all[i];
    return NULL;
}

int watches_wait_ms(const struct namespaces *namespaces, uint64_t now_ns)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < namespaces->count; i++) {
        const struct watch *watch = namespaces->all[i]->watch;
        if (watch != NULL && watch->due_ns != 0 && watch->due_ns < first)
            first = watch->due_ns;
    }
    return first == UINT64_MAX ? -1 : first <= now_ns ? 0 : (int)((first - now_ns) / 1000000) + 1;
}

bool watches_next(struct namespaces *namespaces, uint64_t now_ns, struct text *out)
{
    for (size_t i = 0; i < namespaces->count; i++) {
        struct watch *watch = namespaces->all[i]->watch;
        if (watch == NULL || watch->due_ns == 0 || watch->due_ns > now_ns)
            continue;
        text_puts(out, "{\"event\":\"changed\",\"namespace\":");
        text_quote(out, namespaces->all[i]->path, strlen(namespaces->all[i]->path));
        text_puts(out, ",\"kinds\":[");
        for (size_t kind = 0; kind < sizeof change_names / sizeof *change_names; kind++)
            if ((watch->changes & 1u << kind) != 0) {
                text_comma(out);
                text_format(out, "\"%s\"", change_names[kind]);
            }
        text_puts(out, "]}");
        watch->changes = 0;
        watch->due_ns = 0;
        watch->told_ns = now_ns;
        return true;
    }
    return false;
}
