/*
 * What network tests ask of a namespace: answer with one's name and the address that was seen, ask somebody, hold a
 * connection open, send a datagram. One small program, since a process is started for every question.
 *
 *   net-probe serve NAME PORT [ADDRESS|both]   answers on tcp and udp until it is killed; prints "ready"; both: by IPv4 and IPv6;
 *                                              told to end (SIGTERM) it takes what the kernel has taken for it, and no more,
 *                                              and ends with the last of its connections
 *   net-probe get ADDRESS PORT [-u] [-p SOURCEPORT] [-s SOURCEADDRESS] [-l BYTES] [-d] [-w WAITMS]
 *                                              prints the answer, or "ERR what"; waits 700 ms at most for each step, or WAITMS;
 *                                              -l: so long a datagram, that anybody may cut, -d: nobody
 *   net-probe hold ADDRESS PORT [-u] [-p SOURCEPORT] [-w WAITMS]
 *                                              asks again on the same connection for each line of input; prints each answer
 *   net-probe send ADDRESS PORT TEXT [-s SOURCEADDRESS]
 *                                              one datagram
 *   net-probe receive|receive6 PORT            prints each datagram that arrives, until it is killed
 *   net-probe bind PORT                        holds a tcp port that listens, until it is killed; prints "ready"
 *   net-probe sctp-serve NAME PORT [ADDRESS]   answers the first packet of an SCTP association, and no more of it: kernels
 *                                              without SCTP carry it all the same; prints "ready"
 *   net-probe sctp-get ADDRESS PORT            sends such a packet; prints the answer, or "ERR what"
 *   net-probe claim6 router|neighbour LINK ADDRESS
 *                                              tells all on a link to be a router, of ADDRESS's prefix, or to have ADDRESS
 *   net-probe many ADDRESS PORT COUNT          connections one after the other; prints each answer or ERR
 *   net-probe asks                             a question for each line of input, `tcp|udp ADDRESS PORT WAITMS`, one after
 *                                              the other; prints each answer or ERR
 *   net-probe first ADDRESS PORT               tries until somebody answers; prints when that was, in ms of the epoch, and
 *                                              the answer
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Shorter than the second after which a lost packet is sent again; `many` waits for that. */
static int wait_ms = 700;

static const char *source_address;
static int source_port, is_udp, is_whole;
static size_t length = 1;

static int failed(const char *what)
{
    printf("ERR %s: %s\n", what, strerror(errno));
    return 1;
}

/* Of either family. */
struct endpoint {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
    socklen_t size;
};

static struct sockaddr_in address_of(const char *text, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        exit(2);
    return address;
}

static struct endpoint endpoint_of(const char *text, int port)
{
    struct endpoint found = { .size = sizeof found.v4 };
    if (strchr(text, ':') == NULL) {
        found.v4 = address_of(text, port);
        return found;
    }
    found.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    found.size = sizeof found.v6;
    if (inet_pton(AF_INET6, text, &found.v6.sin6_addr) != 1)
        exit(2);
    return found;
}

static int ready(int fd, short events)
{
    struct pollfd one = { .fd = fd, .events = events };
    int count = poll(&one, 1, wait_ms);
    if (count == 0)
        errno = ETIMEDOUT;
    return count == 1 ? 0 : -1;
}

static int bound(int type, const char *address, int port)
{
    int is_both = strcmp(address, "both") == 0, is_one = !is_both, on = 1;
    struct endpoint own = endpoint_of(is_both ? "::" : address, port);
    int fd = socket(own.any.sa_family, type | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (own.any.sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &is_one, sizeof is_one);
    if (fd < 0 || bind(fd, &own.any, own.size) < 0)
        return -1;
    return fd;
}

static int open_to(const char *address, int port)
{
    struct endpoint there = endpoint_of(address, port);
    const char *own = source_address ? source_address : there.any.sa_family == AF_INET6 ? "::" : "0.0.0.0";
    int fd = bound(is_udp ? SOCK_DGRAM : SOCK_STREAM, own, source_port);
    if (fd < 0)
        return -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (length > 1) {
        int how = is_whole ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT;
        setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof how);
    }
    if (connect(fd, &there.any, there.size) < 0) {
        int error = 0;
        socklen_t size = sizeof error;
        if (errno != EINPROGRESS || ready(fd, POLLOUT) < 0)
            return -1;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return fd;
}

/* Of a question with its answer, what has failed; NULL if nothing has. */
static const char *exchange(int fd, char *answer, size_t size)
{
    static const char question[65536];
    ssize_t got;
    if (send(fd, question, length, MSG_NOSIGNAL) != (ssize_t)length)
        return "send";
    if (ready(fd, POLLIN) < 0)
        return "answer";
    got = recv(fd, answer, size - 1, 0);
    if (got <= 0) {
        if (got == 0)
            errno = ECONNRESET;
        return "receive";
    }
    answer[got] = '\0';
    return NULL;
}

static int ask(int fd)
{
    char answer[256];
    const char *what = exchange(fd, answer, sizeof answer);
    if (what != NULL)
        return failed(what);
    fputs(answer, stdout);
    fflush(stdout);
    return 0;
}

/* On a connection of its own. */
static int ask_once(const char *address, int port)
{
    int fd = open_to(address, port);
    if (fd < 0)
        return failed("connect");
    int result = ask(fd);
    close(fd);
    return result;
}

static int ask_each_line(void)
{
    char line[128], kind[8], address[64];
    int port;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%7s %63s %d %d", kind, address, &port, &wait_ms) != 4)
            return 2;
        is_udp = strcmp(kind, "udp") == 0;
        ask_once(address, port);
    }
    return 0;
}

static void say_ready(void)
{
    puts("ready");
    fflush(stdout);
}

/* A refusal comes at once and costs little, so that it may ask often. */
static int ask_until_answered(const char *address, int port)
{
    char answer[256];
    struct timespec now;
    for (;;) {
        /* Who waits for an answer that is lost misses the moment. A connection needs no process. */
        wait_ms = 20;
        int fd = open_to(address, port);
        wait_ms = 5000;
        const char *what = fd < 0 ? "connect" : exchange(fd, answer, sizeof answer);
        clock_gettime(CLOCK_REALTIME, &now);
        if (fd >= 0)
            close(fd);
        if (what == NULL)
            break;
        usleep(4000);
    }
    printf("%lld.%03ld %s", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, now.tv_nsec / 1000 % 1000, answer);
    return 0;
}

static void answer(int fd, const char *name, int datagrams)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        struct endpoint peer = { .size = sizeof peer.v6 };
        char text[256], buffer[65536], from[INET6_ADDRSTRLEN];
        ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, &peer.any, &peer.size);
        if (got <= 0 && !datagrams)
            exit(0);
        if (got < 0)
            continue;
        if (!datagrams) {
            peer.size = sizeof peer.v6;
            getpeername(fd, &peer.any, &peer.size);
        }
        /* A socket of both families has those of IPv4 inside of IPv6 (RFC 4291 §2.5.5.2). */
        int is_mapped = peer.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.v6.sin6_addr);
        int is_v6 = peer.any.sa_family == AF_INET6 && !is_mapped;
        const void *address = is_v6 ? (const void *)&peer.v6.sin6_addr : is_mapped ? &peer.v6.sin6_addr.s6_addr[12] : (const void *)&peer.v4.sin_addr;
        inet_ntop(is_v6 ? AF_INET6 : AF_INET, address, from, sizeof from);
        int length = snprintf(text, sizeof text, is_v6 ? "%s peer=[%s]:%d\n" : "%s peer=%s:%d\n", name, from, ntohs(peer.v4.sin_port));
        if (sendto(fd, text, (size_t)length, MSG_NOSIGNAL, &peer.any, datagrams ? peer.size : 0) < 0 && !datagrams)
            exit(0);
    }
}

static int listener;

/* accept returns, now or whenever it is called; what waits in the backlog is still taken. */
static void end_listening(int number)
{
    (void)number;
    fcntl(listener, F_SETFL, O_NONBLOCK);
}

static int serve(const char *name, int port, const char *address)
{
    struct sigaction ending = { .sa_handler = end_listening };
    pid_t datagrams;
    int tcp = bound(SOCK_STREAM, address, port), udp = bound(SOCK_DGRAM, address, port), on = 1;
    if (tcp < 0 || udp < 0 || listen(tcp, 512) < 0)
        return failed("serve");
    if ((datagrams = fork()) == 0) {
        close(tcp);
        answer(udp, name, 1);
    }
    listener = tcp;
    sigaction(SIGTERM, &ending, NULL);
    say_ready();
    for (;;) {
        int fd = accept4(tcp, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            break;
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (fork() == 0) {
            signal(SIGTERM, SIG_DFL);
            close(tcp);
            answer(fd, name, 0);
        }
        close(fd);
    }
    close(tcp);
    kill(datagrams, SIGKILL);
    while (wait(NULL) > 0)
        continue;
    return 0;
}

/* RFC 9260 §3: the common header, and one INIT or INIT ACK with a state cookie in it, which here is text. */
struct sctp_packet {
    struct {
        uint16_t source, destination;
        uint32_t tag, checksum;
    } common;
    struct {
        uint8_t type, flags;
        uint16_t length;
        uint32_t tag, window;
        uint16_t streams_out, streams_in;
        uint32_t first;
    } init;
    struct {
        uint16_t type, length;
        char text[64];
    } cookie;
};
enum { SCTP_INIT = 1, SCTP_INIT_ACK = 2, SCTP_COOKIE = 7 };

/* CRC32c, RFC 9260 appendix A. */
static uint32_t sctp_checksum(const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint32_t sum = 0xffffffff;
    while (count-- > 0) {
        sum ^= *at++;
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0x82f63b78 : 0);
    }
    return htole32(~sum);
}

static int sctp_send(int fd, const struct endpoint *to, int from_port, int to_port, uint32_t tag, int type, const char *text)
{
    struct sctp_packet packet = {
        .common = {.source = htons((uint16_t)from_port), .destination = htons((uint16_t)to_port), .tag = tag},
        .init = {.type = (uint8_t)type, .tag = htonl(7), .window = htonl(65536), .streams_out = htons(1), .streams_in = htons(1)},
        .cookie = {.type = htons(SCTP_COOKIE), .length = htons(sizeof packet.cookie)},
    };
    size_t size = sizeof packet.common + sizeof packet.init + (text ? sizeof packet.cookie : 0);
    packet.init.length = htons((uint16_t)(size - sizeof packet.common));
    if (text)
        snprintf(packet.cookie.text, sizeof packet.cookie.text, "%s", text);
    packet.common.checksum = sctp_checksum(&packet, size);
    struct endpoint host = *to;
    /* A raw socket has no ports (ip(7), ipv6(7)); both families have theirs in one place. */
    host.v4.sin_port = 0;
    return sendto(fd, &packet, size, 0, &host.any, host.size) < 0 ? -1 : 0;
}

/* One that is whole and of this type; -1: nothing came. */
static int sctp_receive(int fd, int type, struct sctp_packet *packet, struct endpoint *from)
{
    unsigned char buffer[2048];
    for (;;) {
        from->size = sizeof from->v6;
        ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, &from->any, &from->size);
        if (got < 0)
            return -1;
        /* Of IPv6 the header is not told. */
        size_t head = from->any.sa_family == AF_INET6 ? 0 : (buffer[0] & 15u) * 4u, size = (size_t)got - head;
        if ((size_t)got < head + sizeof packet->common + sizeof packet->init || size > sizeof *packet)
            continue;
        memset(packet, 0, sizeof *packet);
        memcpy(packet, buffer + head, size);
        uint32_t said = packet->common.checksum;
        packet->common.checksum = 0;
        if (packet->init.type == type && sctp_checksum(packet, size) == said)
            return 0;
    }
}

static const void *host_of(const struct endpoint *end)
{
    return end->any.sa_family == AF_INET6 ? (const void *)&end->v6.sin6_addr : &end->v4.sin_addr;
}

static int sctp_serve(const char *name, int port, const char *address)
{
    int fd = socket(endpoint_of(address, 0).any.sa_family, SOCK_RAW, IPPROTO_SCTP);
    struct endpoint peer;
    struct sctp_packet packet;
    if (fd < 0)
        return failed("serve");
    say_ready();
    while (sctp_receive(fd, SCTP_INIT, &packet, &peer) == 0) {
        char text[128], from[INET6_ADDRSTRLEN];
        inet_ntop(peer.any.sa_family, host_of(&peer), from, sizeof from);
        snprintf(text, sizeof text, peer.any.sa_family == AF_INET6 ? "%.12s peer=[%s]:%d" : "%.20s peer=%s:%d", name, from,
                 ntohs(packet.common.source));
        if (ntohs(packet.common.destination) == port)
            sctp_send(fd, &peer, port, ntohs(packet.common.source), packet.init.tag, SCTP_INIT_ACK, text);
    }
    return 0;
}

static int sctp_get(const char *address, int port)
{
    struct endpoint there = endpoint_of(address, 0), peer;
    int fd = socket(there.any.sa_family, SOCK_RAW, IPPROTO_SCTP), own = 20000 + getpid() % 20000;
    struct timeval limit = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    struct sctp_packet packet;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
        sctp_send(fd, &there, own, port, 0, SCTP_INIT, NULL) < 0)
        return failed("send");
    do {
        if (sctp_receive(fd, SCTP_INIT_ACK, &packet, &peer) < 0)
            return failed("answer");
    } while (ntohs(packet.common.destination) != own || ntohs(packet.common.source) != port ||
             memcmp(host_of(&peer), host_of(&there), there.any.sa_family == AF_INET6 ? 16 : 4) != 0);
    packet.cookie.text[sizeof packet.cookie.text - 1] = '\0';
    puts(packet.cookie.text);
    return 0;
}

/* RFC 4861 §4.2 and §4.4, with the hop limit that both ask for. */
static int claim6(const char *what, const char *link, const char *address)
{
    union {
        struct nd_router_advert router;
        struct nd_neighbor_advert neighbour;
    } head = { 0 };
    struct __attribute__((packed)) {
        uint8_t type, units, mac[6];
    } own = { .units = 1 };
    struct nd_opt_prefix_info prefix = { .nd_opt_pi_type = ND_OPT_PREFIX_INFORMATION,
                                         .nd_opt_pi_len = 4,
                                         .nd_opt_pi_prefix_len = 64,
                                         .nd_opt_pi_flags_reserved = ND_OPT_PI_FLAG_ONLINK | ND_OPT_PI_FLAG_AUTO,
                                         .nd_opt_pi_valid_time = htonl(3600),
                                         .nd_opt_pi_preferred_time = htonl(3600) };
    struct endpoint claimed = endpoint_of(address, 0), all = endpoint_of("ff02::1", 0);
    struct ifreq name = { 0 };
    int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), hops = 255, none = 0, is_router = strcmp(what, "router") == 0;
    unsigned char packet[128];
    size_t size = 0;
    snprintf(name.ifr_name, sizeof name.ifr_name, "%s", link);
    /* Others are to hear it, not the one who says it. */
    if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &name) < 0 ||
        setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &none, sizeof none) < 0 ||
        setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops) < 0)
        return failed("claim");
    memcpy(own.mac, name.ifr_hwaddr.sa_data, sizeof own.mac);
    own.type = is_router ? ND_OPT_SOURCE_LINKADDR : ND_OPT_TARGET_LINKADDR;
    if (is_router) {
        head.router.nd_ra_type = ND_ROUTER_ADVERT;
        head.router.nd_ra_router_lifetime = htons(1800);
        prefix.nd_opt_pi_prefix = claimed.v6.sin6_addr;
        memset(prefix.nd_opt_pi_prefix.s6_addr + 8, 0, 8);
        memcpy(packet, &head.router, size = sizeof head.router);
        memcpy(packet + size, &prefix, sizeof prefix);
        size += sizeof prefix;
    } else {
        head.neighbour.nd_na_type = ND_NEIGHBOR_ADVERT;
        head.neighbour.nd_na_flags_reserved = ND_NA_FLAG_OVERRIDE | ND_NA_FLAG_ROUTER;
        head.neighbour.nd_na_target = claimed.v6.sin6_addr;
        memcpy(packet, &head.neighbour, size = sizeof head.neighbour);
    }
    memcpy(packet + size, &own, sizeof own);
    size += sizeof own;
    all.v6.sin6_scope_id = if_nametoindex(link);
    return sendto(fd, packet, size, 0, &all.any, all.size) == (ssize_t)size ? 0 : failed("claim");
}

int main(int count, char **words)
{
    char *plain[8] = { 0 };
    int at = 0, fd;
    for (int i = 1; i < count && at < 7; i++) {
        if (strcmp(words[i], "-u") == 0)
            is_udp = 1;
        else if (strcmp(words[i], "-d") == 0)
            is_whole = 1;
        else if (strcmp(words[i], "-l") == 0 && i + 1 < count)
            length = strtoul(words[++i], NULL, 10) & 0xffff;
        else if (strcmp(words[i], "-p") == 0 && i + 1 < count)
            source_port = atoi(words[++i]);
        else if (strcmp(words[i], "-w") == 0 && i + 1 < count)
            wait_ms = atoi(words[++i]);
        else if (strcmp(words[i], "-s") == 0 && i + 1 < count)
            source_address = words[++i];
        else
            plain[at++] = words[i];
    }
    /*
     * Nothing is left of a test that is killed. In a container it is not the test that has started us, but somebody who ends
     * when we run: the first process there, and health checks, which ask once, are left alone.
     */
    if (getpid() != 1 && at > 0 && strcmp(plain[0], "get") != 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Children of `serve` go with it: the test kills the group. */
    if (at >= 3 && strcmp(plain[0], "serve") == 0) {
        setpgid(0, 0);
        signal(SIGCHLD, SIG_IGN);
        return serve(plain[1], atoi(plain[2]), at > 3 ? plain[3] : "0.0.0.0");
    }
    if (at >= 3 && strcmp(plain[0], "sctp-serve") == 0)
        return sctp_serve(plain[1], atoi(plain[2]), at > 3 ? plain[3] : "0.0.0.0");
    if (at == 3 && strcmp(plain[0], "sctp-get") == 0)
        return sctp_get(plain[1], atoi(plain[2]));
    if (at == 3 && strcmp(plain[0], "get") == 0)
        return ask_once(plain[1], atoi(plain[2]));
    if (at == 4 && strcmp(plain[0], "claim6") == 0)
        return claim6(plain[1], plain[2], plain[3]);
    if (at == 3 && strcmp(plain[0], "hold") == 0) {
        char line[16];
        fd = open_to(plain[1], atoi(plain[2]));
        if (fd < 0)
            return failed("connect");
        while (fgets(line, sizeof line, stdin))
            if (ask(fd) != 0)
                return 1;
        return 0;
    }
    if (at == 4 && strcmp(plain[0], "many") == 0) {
        wait_ms = 5000;
        for (int left = atoi(plain[3]); left > 0; left--)
            ask_once(plain[1], atoi(plain[2]));
        return 0;
    }
    if (at == 1 && strcmp(plain[0], "asks") == 0)
        return ask_each_line();
    if (at == 3 && strcmp(plain[0], "first") == 0)
        return ask_until_answered(plain[1], atoi(plain[2]));
    if (at == 4 && strcmp(plain[0], "send") == 0) {
        is_udp = 1;
        fd = open_to(plain[1], atoi(plain[2]));
        return fd < 0 || send(fd, plain[3], strlen(plain[3]), 0) < 0 ? failed("send") : 0;
    }
    if (at == 2 && (strcmp(plain[0], "receive") == 0 || strcmp(plain[0], "receive6") == 0)) {
        char buffer[2048];
        ssize_t got;
        fd = bound(SOCK_DGRAM, plain[0][7] == '6' ? "::" : "0.0.0.0", atoi(plain[1]));
        if (fd < 0)
            return failed("receive");
        say_ready();
        while ((got = recv(fd, buffer, sizeof buffer - 1, 0)) >= 0) {
            buffer[got] = '\0';
            puts(buffer);
            fflush(stdout);
        }
        return 0;
    }
    if (at == 2 && strcmp(plain[0], "bind") == 0) {
        fd = bound(SOCK_STREAM, "0.0.0.0", atoi(plain[1]));
        if (fd < 0 || listen(fd, 8) < 0)
            return failed("bind");
        say_ready();
        pause();
    }
    return 2;
}
