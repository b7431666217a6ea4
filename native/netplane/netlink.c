#include "netplane/netlink.h"
#include "common/fd.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

enum {
    SOCKET_SEND_BYTES = 64 * 1024 * 1024, /* a transaction is one send, so it must fit */
    SOCKET_RECEIVE_BYTES = 8 * 1024 * 1024,
    RECEIVE_BYTES = 64 * 1024, /* the kernel puts at most 32 KiB into one datagram of a dump */
    DUMP_SECONDS_MAX = 10,     /* a dump that stands still for so long will not go on */
    KEPT_BYTES = 256 * 1024,
};

static void set_option(int fd, int level, int option, int value)
{
    /* Without the right to force a size, or on a kernel that lacks the option, what is there must do. */
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

int netlink_open(int protocol, struct netlink *out, struct error *error)
{
    cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        return fail(error, errno, "open a netlink socket of protocol %d", protocol);
    set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_SEND_BYTES);
    set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_RECEIVE_BYTES);
    set_option(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);        /* words for refusals (4.12) */
    set_option(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);        /* refusals without a copy of the message (4.2) */
    set_option(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1); /* dumps filtered in the kernel (4.20) */
    struct timeval patience = {.tv_sec = DUMP_SECONDS_MAX};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return fail(error, errno, "limit the wait of a netlink socket");
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof address;
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return fail(error, errno, "bind a netlink socket of protocol %d", protocol);
    *out = (struct netlink){.fd = take_fd(&fd), .port = address.nl_pid};
    return 0;
}

void netlink_close(struct netlink *netlink)
{
    close_fd(&netlink->fd);
}

/* Room for `more` bytes, filled up to a multiple of four; NULL after memory ran out. */
static uint8_t *extend(struct outgoing *out, size_t more)
{
    size_t aligned = align4(more);
    if (out->failed)
        return NULL;
    if (out->length + aligned > out->room) {
        size_t room = out->room == 0 ? 4096 : out->room;
        while (room < out->length + aligned)
            room *= 2;
        uint8_t *grown = room > SOCKET_SEND_BYTES ? NULL : realloc(out->bytes, room);
        if (grown == NULL) {
            out->failed = true;
            return NULL;
        }
        out->bytes = grown;
        out->room = room;
    }
    uint8_t *at = out->bytes + out->length;
    memset(at + more, 0, aligned - more);
    out->length += aligned;
    return at;
}

void out_begin(struct outgoing *out, uint16_t type, uint16_t flags, const void *header, size_t length, uint32_t owner)
{
    if (out->count == out->places_room) {
        size_t room = out->places_room == 0 ? 64 : out->places_room * 2;
        struct place *grown = realloc(out->places, room * sizeof *grown);
        if (grown == NULL) {
            out->failed = true;
            return;
        }
        out->places = grown;
        out->places_room = room;
    }
    out->message = out->length;
    struct nlmsghdr *message = (struct nlmsghdr *)extend(out, MESSAGE_HEADER + length);
    if (message == NULL)
        return;
    *message = (struct nlmsghdr){.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    memcpy(NLMSG_DATA(message), header, length);
    out->places[out->count++] = (struct place){out->message, owner};
}

void out_put(struct outgoing *out, uint16_t type, const void *data, size_t length)
{
    struct nlattr *attribute = (struct nlattr *)extend(out, ATTRIBUTE_HEADER + length);
    if (attribute == NULL)
        return;
    *attribute = (struct nlattr){.nla_len = (uint16_t)(ATTRIBUTE_HEADER + length), .nla_type = type};
    if (length > 0)
        memcpy((uint8_t *)attribute + ATTRIBUTE_HEADER, data, length);
}

void out_put_text(struct outgoing *out, uint16_t type, const char *text)
{
    out_put(out, type, text, strlen(text) + 1);
}

void out_put_u8(struct outgoing *out, uint16_t type, uint8_t value)
{
    out_put(out, type, &value, sizeof value);
}

void out_put_u32(struct outgoing *out, uint16_t type, uint32_t value)
{
    out_put(out, type, &value, sizeof value);
}

void out_put_be32(struct outgoing *out, uint16_t type, uint32_t value)
{
    out_put_u32(out, type, __builtin_bswap32(value));
}

size_t out_nest(struct outgoing *out, uint16_t type)
{
    size_t nest = out->length;
    out_put(out, type | NLA_F_NESTED, NULL, 0);
    return nest;
}

size_t out_nest_end(struct outgoing *out, size_t nest)
{
    if (out->failed)
        return 0;
    struct nlattr *attribute = (struct nlattr *)(out->bytes + nest);
    attribute->nla_len = (uint16_t)(out->length - nest);
    return out->length - nest;
}

void out_raw(struct outgoing *out, const void *data, size_t length)
{
    uint8_t *at = extend(out, length);
    if (at != NULL)
        memcpy(at, data, length);
}

void out_end(struct outgoing *out)
{
    if (!out->failed)
        ((struct nlmsghdr *)(out->bytes + out->message))->nlmsg_len = (uint32_t)(out->length - out->message);
}

void out_flag_last(struct outgoing *out, uint16_t flags)
{
    if (!out->failed && out->count > 0)
        ((struct nlmsghdr *)(out->bytes + out->places[out->count - 1].offset))->nlmsg_flags |= flags;
}

void out_clear(struct outgoing *out)
{
    out->length = 0;
    out->count = 0;
    out->failed = false;
}

void out_shrink(struct outgoing *out)
{
    out_clear(out);
    if (out->room > KEPT_BYTES)
        out_release(out);
}

void out_release(struct outgoing *out)
{
    free(out->bytes);
    free(out->places);
    *out = (struct outgoing){0};
}

/* Numbers the messages; the first gets the number that is returned. */
static uint32_t number_messages(struct netlink *netlink, const struct outgoing *out)
{
    /* 0 is what the kernel's own messages have. */
    if (netlink->sequence > UINT32_MAX - out->count - 1)
        netlink->sequence = 0;
    uint32_t first = netlink->sequence + 1;
    for (size_t i = 0; i < out->count; i++) {
        struct nlmsghdr *message = (struct nlmsghdr *)(out->bytes + out->places[i].offset);
        message->nlmsg_seq = ++netlink->sequence;
        message->nlmsg_pid = netlink->port;
    }
    return first;
}

static int send_out(struct netlink *netlink, const struct outgoing *out, struct error *error)
{
    if (out->failed)
        return fail(error, ENOMEM, "build messages to the kernel");
    ssize_t sent = TEMP_FAILURE_RETRY(send(netlink->fd, out->bytes, out->length, 0));
    if (sent < 0)
        return fail(error, errno, "send %zu messages to the kernel", out->count);
    if ((size_t)sent != out->length)
        return fail(error, EIO, "the kernel took %zd of %zu bytes", sent, out->length);
    return 0;
}

static _Alignas(struct nlmsghdr) uint8_t received[RECEIVE_BYTES];

/* One datagram into `received`; 0 when there is none (MSG_DONTWAIT). */
static ssize_t receive(struct netlink *netlink, int flags, struct error *error)
{
    ssize_t got = TEMP_FAILURE_RETRY(recv(netlink->fd, received, sizeof received, flags | MSG_TRUNC));
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && (flags & MSG_DONTWAIT) != 0)
        return 0;
    if (got < 0)
        return fail(error, errno == EAGAIN ? ETIMEDOUT : errno, "read the kernel's answer");
    if ((size_t)got > sizeof received)
        return fail(error, EMSGSIZE, "the kernel's answer has %zd bytes", got);
    return got;
}

/* The next message of a datagram, or NULL at its end. */
static const struct nlmsghdr *next_message(const uint8_t **at, size_t *left)
{
    if (*left < MESSAGE_HEADER)
        return NULL;
    const struct nlmsghdr *message = (const struct nlmsghdr *)*at;
    if (message->nlmsg_len < MESSAGE_HEADER || message->nlmsg_len > *left)
        return NULL;
    size_t step = align4(message->nlmsg_len);
    step = step < *left ? step : *left;
    *at += step;
    *left -= step;
    return message;
}

/* NLMSG_ERROR: struct nlmsgerr, then (with NLM_F_CAPPED, and without a copy of the message) attributes that explain. */
static bool read_refusal(const struct nlmsghdr *message, struct refusal *out)
{
    const struct nlmsgerr *answer = message_header(message, sizeof *answer);
    if (answer == NULL)
        return false;
    *out = (struct refusal){.number = -answer->error};
    size_t skipped = sizeof *answer;
    if ((message->nlmsg_flags & NLM_F_CAPPED) == 0 && answer->msg.nlmsg_len > MESSAGE_HEADER)
        skipped += answer->msg.nlmsg_len - MESSAGE_HEADER;
    if ((message->nlmsg_flags & NLM_F_ACK_TLVS) != 0 && message->nlmsg_len >= MESSAGE_HEADER + skipped) {
        const struct nlattr *attributes[NLMSGERR_ATTR_OFFS + 1];
        message_attributes(message, skipped, attributes, NLMSGERR_ATTR_OFFS);
        out->explanation = attribute_text(attributes[NLMSGERR_ATTR_MSG]);
        out->attribute = attribute_u32(attributes[NLMSGERR_ATTR_OFFS]);
    }
    return true;
}

int netlink_exchange(struct netlink *netlink, struct outgoing *out, size_t answered, refusal_handler *handler, void *context,
                     struct error *error)
{
    uint32_t first = number_messages(netlink, out);
    if (send_out(netlink, out, error) < 0)
        return -1;
    bool acknowledged = false, refused = false;
    for (bool more = true; more;) {
        ssize_t got = receive(netlink, MSG_DONTWAIT, error);
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        const uint8_t *at = received;
        size_t left = (size_t)got;
        for (const struct nlmsghdr *message; (message = next_message(&at, &left)) != NULL;) {
            struct refusal refusal = {.number = EBADMSG};
            size_t index = message->nlmsg_seq - first;
            if (message->nlmsg_type != NLMSG_ERROR || index >= out->count || !read_refusal(message, &refusal))
                continue; /* of an exchange that was given up */
            acknowledged = acknowledged || index == answered;
            refusal.message = index;
            refusal.owner = out->places[index].owner;
            /* Nothing comes after what the last one is told. */
            more = more && index != answered;
            if (refusal.number == 0)
                continue;
            /* A transaction that was not even begun is answered by its first message alone. */
            acknowledged = true;
            refused = !handler(context, &refusal) || refused;
        }
    }
    if (refused) {
        error->number = 0;
        return -1;
    }
    return acknowledged ? 0 : fail(error, EIO, "the kernel did not answer %zu messages", out->count);
}

/* A dump that fails after it has begun tells so in its last message (net/netlink/af_netlink.c, netlink_dump_done()). */
static int read_end(const struct nlmsghdr *message, bool interrupted, struct error *error)
{
    const int *ended = message_header(message, sizeof *ended);
    if (ended != NULL && *ended < 0)
        return fail(error, -*ended, "list objects of the kernel");
    return interrupted ? fail(error, EINTR, "list objects of the kernel") : 0;
}

static int read_dump(struct netlink *netlink, uint32_t sequence, message_handler *handler, void *context, struct error *error)
{
    bool interrupted = false;
    for (;;) {
        ssize_t got = receive(netlink, 0, error);
        if (got < 0)
            return -1;
        const uint8_t *at = received;
        size_t left = (size_t)got;
        for (const struct nlmsghdr *message; (message = next_message(&at, &left)) != NULL;) {
            if (message->nlmsg_seq != sequence)
                continue;
            interrupted = interrupted || (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
            if (message->nlmsg_type == NLMSG_DONE)
                return read_end(message, interrupted, error);
            struct refusal refusal = {.number = EBADMSG};
            if (message->nlmsg_type == NLMSG_ERROR) {
                if (!read_refusal(message, &refusal) || refusal.number != 0)
                    return fail(error, refusal.number, "list objects of the kernel%s%s", refusal.explanation == NULL ? "" : ": ",
                                refusal.explanation == NULL ? "" : refusal.explanation);
            } else if (handler(context, message, error) < 0) {
                return -1;
            }
        }
    }
}

/* What is left of an answer that nobody wants. */
static void discard_answers(struct netlink *netlink)
{
    struct error ignored; /* the next exchange will tell */
    while (receive(netlink, MSG_DONTWAIT, &ignored) > 0)
        continue;
}

int netlink_dump(struct netlink *netlink, struct outgoing *out, message_handler *handler, void *context, struct error *error)
{
    uint32_t sequence = number_messages(netlink, out);
    if (send_out(netlink, out, error) < 0)
        return -1;
    int result = read_dump(netlink, sequence, handler, context, error);
    if (result < 0)
        discard_answers(netlink);
    return result;
}

int netlink_get(struct netlink *netlink, struct outgoing *out, message_handler *handler, void *context, struct error *error)
{
    uint32_t sequence = number_messages(netlink, out);
    if (send_out(netlink, out, error) < 0)
        return -1;
    for (;;) {
        ssize_t got = receive(netlink, MSG_DONTWAIT, error);
        if (got < 0)
            return -1;
        if (got == 0)
            return fail(error, EIO, "the kernel did not answer");
        const uint8_t *at = received;
        size_t left = (size_t)got;
        for (const struct nlmsghdr *message; (message = next_message(&at, &left)) != NULL;) {
            if (message->nlmsg_seq != sequence)
                continue;
            struct refusal refusal = {.number = EBADMSG};
            if (message->nlmsg_type != NLMSG_ERROR)
                return handler(context, message, error);
            if (read_refusal(message, &refusal) && refusal.number != 0)
                return fail(error, refusal.number, "look up an object of the kernel");
        }
    }
}

void attributes_read(const void *data, size_t length, const struct nlattr **table, size_t max)
{
    const uint8_t *at = data;
    for (size_t i = 0; i <= max; i++)
        table[i] = NULL;
    while (length >= ATTRIBUTE_HEADER) {
        const struct nlattr *attribute = (const struct nlattr *)at;
        if (attribute->nla_len < ATTRIBUTE_HEADER || attribute->nla_len > length)
            return;
        size_t type = attribute->nla_type & 0x3fffu; /* NLA_TYPE_MASK, unsigned */
        if (type <= max)
            table[type] = attribute;
        size_t step = align4(attribute->nla_len);
        if (step >= length)
            return;
        at += step;
        length -= step;
    }
}

uint32_t attribute_u32(const struct nlattr *attribute)
{
    uint32_t value = 0;
    if (attribute != NULL && attribute_length(attribute) >= sizeof value)
        memcpy(&value, attribute_data(attribute), sizeof value);
    return value;
}

uint16_t attribute_u16(const struct nlattr *attribute)
{
    uint16_t value = 0;
    if (attribute != NULL && attribute_length(attribute) >= sizeof value)
        memcpy(&value, attribute_data(attribute), sizeof value);
    return value;
}

uint8_t attribute_u8(const struct nlattr *attribute)
{
    return attribute != NULL && attribute_length(attribute) >= 1 ? *(const uint8_t *)attribute_data(attribute) : 0;
}

const char *attribute_text(const struct nlattr *attribute)
{
    if (attribute == NULL || memchr(attribute_data(attribute), '\0', attribute_length(attribute)) == NULL)
        return NULL;
    return attribute_data(attribute);
}

void message_attributes(const struct nlmsghdr *message, size_t header, const struct nlattr **table, size_t max)
{
    size_t skipped = align4(MESSAGE_HEADER + header);
    if (message->nlmsg_len < skipped)
        attributes_read(NULL, 0, table, max);
    else
        attributes_read((const uint8_t *)message + skipped, message->nlmsg_len - skipped, table, max);
}

const void *message_header(const struct nlmsghdr *message, size_t header)
{
    return message->nlmsg_len < MESSAGE_HEADER + header ? NULL : (const uint8_t *)message + MESSAGE_HEADER;
}
