/*
 * Ports that are held so that nobody else binds them. tcp(7), udp(7), sctp(7).
 *
 * A published port is answered by nftables before any socket is looked at, so the socket must exist and must not serve. For
 * TCP that takes a dance: with SO_REUSEADDR connections in TIME_WAIT do not stand in the way of binding; listening makes the
 * kernel forget that the port may be shared (inet_csk_listen_start); ending that at once leaves the port bound and lets it
 * answer with RST; and without SO_REUSEADDR from then on, others conflict with it even when they have it. A UDP socket takes
 * what comes to its port, and the sender waits for an answer; so once it is bound it is tied to a link that nobody has, and
 * whoever asks is told that the port is unreachable. It still keeps the port from all but who ties a socket to a link himself.
 * SCTP needs none of it: a bound socket that does not listen refuses whoever comes (RFC 9260 §8.4). A kernel may have no SCTP:
 * EPROTONOSUPPORT.
 */
#include "common/fd.h"
#include "netplane/namespaces.h"

#include <limits.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static bool same_port(const struct port_fields *a, const struct port_fields *b)
{
    return a->protocol == b->protocol && a->port == b->port && a->address.family == b->address.family &&
           memcmp(a->address.bytes, b->address.bytes, ip_size(&a->address)) == 0;
}

static struct held_port **find_port(struct namespace *namespace, const struct port_fields *port)
{
    struct held_port **at = &namespace->ports;
    while (*at != NULL && !same_port(&(*at)->port, port))
        at = &(*at)->next;
    return at;
}

static socklen_t socket_address(const struct port_fields *port, struct sockaddr_storage *out)
{
    *out = (struct sockaddr_storage){0};
    if (port->address.family == AF_INET6) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port->port)};
        memcpy(&address.sin6_addr, port->address.bytes, sizeof address.sin6_addr);
        memcpy(out, &address, sizeof address);
        return sizeof address;
    }
    /* No address: all of IPv4, which also keeps away who binds IPv6's wildcard for both. */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port->port)};
    memcpy(&address.sin_addr, port->address.bytes, sizeof address.sin_addr);
    memcpy(out, &address, sizeof address);
    return sizeof address;
}

static const char *protocol_name(const struct port_fields *port)
{
    return port->protocol == IPPROTO_TCP ? "tcp" : port->protocol == IPPROTO_UDP ? "udp" : "sctp";
}

static int hold(const struct port_fields *port, int *out)
{
    struct sockaddr_storage address;
    socklen_t length = socket_address(port, &address);
    bool stream = port->protocol != IPPROTO_UDP;
    static const int yes = 1, no = 0;
    /* Indexes are given out from 1 on; SO_BINDTOIFINDEX (Linux 5.0) does not ask whether there is such a link. */
    static const int no_link = INT_MAX;
    cleanup_fd int fd = socket(address.ss_family, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, port->protocol);
    if (fd < 0)
        return -1;
    if (address.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes) < 0)
        return -1;
    /* ip(7): the address may come later than the port (a host-mode port bound to an address that is not up yet). */
    if (setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &yes, sizeof yes) < 0)
        return -1;
    if (port->protocol == IPPROTO_SCTP) {
        if (bind(fd, (const struct sockaddr *)&address, length) < 0)
            return -1;
    } else if (!stream) {
        if (bind(fd, (const struct sockaddr *)&address, length) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &no_link, sizeof no_link) < 0)
            return -1;
    } else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
               bind(fd, (const struct sockaddr *)&address, length) < 0 || listen(fd, 0) < 0 ||
               shutdown(fd, SHUT_RDWR) < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &no, sizeof no) < 0) {
        return -1;
    }
    *out = take_fd(&fd);
    return 0;
}

int namespace_reserve(struct namespaces *namespaces, struct namespace *namespace, const struct port_fields *port,
                      struct error *error)
{
    if (*find_port(namespace, port) != NULL)
        return 0;
    if (namespaces->ports_count >= PORTS_MAX)
        return fail(error, EMFILE, "hold more than %d ports", PORTS_MAX);
    struct held_port *held = calloc(1, sizeof *held);
    if (held == NULL)
        return fail(error, ENOMEM, "hold port %u", port->port);
    *held = (struct held_port){.port = *port, .fd = -1};
    int result = namespace_enter(namespace, error);
    if (result == 0) {
        result = hold(port, &held->fd) < 0
                     ? fail(error, errno, "hold %s port %u", protocol_name(port), port->port)
                     : 0;
        namespace_leave(namespaces);
    }
    if (result < 0) {
        free(held);
        return -1;
    }
    held->next = namespace->ports;
    namespace->ports = held;
    namespaces->ports_count++;
    return 0;
}

int namespace_release_port(struct namespaces *namespaces, struct namespace *namespace, const struct port_fields *port,
                           struct error *error)
{
    struct held_port **at = find_port(namespace, port);
    struct held_port *held = *at;
    if (held == NULL)
        return fail(error, ENOENT, "let go of %s port %u", protocol_name(port), port->port);
    *at = held->next;
    close_fd(&held->fd);
    free(held);
    namespaces->ports_count--;
    return 0;
}
