/*
 * Netlink (netlink(7)) in the shape that is fast: many messages in one send, and only the last asks to be acknowledged. The
 * kernel does them in order while send(2) runs, tells every failure, and has answered when send(2) returns; so nothing here
 * waits. Each message knows the operation that it belongs to (its owner).
 */
#ifndef NETPLANE_NETLINK_H
#define NETPLANE_NETLINK_H

#include "common/error.h"

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* sizeof struct nlattr and nlmsghdr; the macros of the same meaning are signed. */
#define ATTRIBUTE_HEADER sizeof(struct nlattr)
#define MESSAGE_HEADER sizeof(struct nlmsghdr)

/* Messages and attributes begin at multiples of four bytes. */
static inline size_t align4(size_t length)
{
    return (length + 3) / 4 * 4;
}

struct netlink {
    int fd;        /* -1: not open */
    uint32_t port; /* the kernel puts it in what it tells others about our changes */
    uint32_t sequence;
};

/* Messages to be sent together. */
struct outgoing {
    uint8_t *bytes;
    size_t length; /* of what is complete, and of the message under way once it has begun */
    size_t room;
    size_t message; /* where the message under way begins */
    size_t count;
    size_t places_room;
    struct place *places; /* one a message */
    bool failed;          /* memory ran out */
};

struct place {
    size_t offset;
    uint32_t owner;
};

/* What the kernel refused. */
struct refusal {
    int number;
    uint32_t owner;
    size_t message;          /* which of the messages */
    size_t attribute;        /* offset of the attribute at fault in it, or 0 */
    const char *explanation; /* the kernel's words, or NULL */
};

/* Decides about one refusal: true when it is fine. */
typedef bool refusal_handler(void *context, const struct refusal *refusal);
/* Looks at one message of a dump. -1 ends it. */
typedef int message_handler(void *context, const struct nlmsghdr *message, struct error *error);

/* Opens a socket in the namespace that the thread stands in. */
int netlink_open(int protocol, struct netlink *out, struct error *error);
void netlink_close(struct netlink *netlink);

void out_begin(struct outgoing *out, uint16_t type, uint16_t flags, const void *header, size_t length, uint32_t owner);
void out_put(struct outgoing *out, uint16_t type, const void *data, size_t length);
void out_put_text(struct outgoing *out, uint16_t type, const char *text); /* with its NUL */
void out_put_u8(struct outgoing *out, uint16_t type, uint8_t value);
void out_put_u32(struct outgoing *out, uint16_t type, uint32_t value);
void out_put_be32(struct outgoing *out, uint16_t type, uint32_t value);
/* A nested attribute; `header` bytes of zero come first in it when it has a fixed part. Returns its offset for out_nest_end(). */
size_t out_nest(struct outgoing *out, uint16_t type);
size_t out_nest_end(struct outgoing *out, size_t nest); /* returns its length */
/* Raw bytes without a header: the fixed part of some nested attributes. */
void out_raw(struct outgoing *out, const void *data, size_t length);
void out_end(struct outgoing *out);
/* Adds flags to the message that was ended last. */
void out_flag_last(struct outgoing *out, uint16_t flags);
void out_clear(struct outgoing *out);
/* Gives memory back after an unusually large request. */
void out_shrink(struct outgoing *out);
void out_release(struct outgoing *out);

/*
 * Sends and reads all answers. `answered` is the message that asks for an acknowledgement. 0: everything was done, or what was
 * not is fine to the handler, which is called for each refusal in the order of messages.
 * -1: at least one refusal was not fine, or the exchange itself failed (then error.number is set and `handler` was not asked).
 */
int netlink_exchange(struct netlink *netlink, struct outgoing *out, size_t answered, refusal_handler *handler, void *context,
                     struct error *error);

/* Sends the one message in `out` as a dump and hands each answer to `handler`. EINTR: what was dumped changed meanwhile. */
int netlink_dump(struct netlink *netlink, struct outgoing *out, message_handler *handler, void *context, struct error *error);

/* Sends the one message in `out`, which asks for one object, and hands the answer to `handler`. */
int netlink_get(struct netlink *netlink, struct outgoing *out, message_handler *handler, void *context, struct error *error);

/* Attributes from the kernel: bounded, each taken by type; the last of a type counts. `table` has `max + 1` places. */
void attributes_read(const void *data, size_t length, const struct nlattr **table, size_t max);
static inline const void *attribute_data(const struct nlattr *attribute)
{
    return (const uint8_t *)attribute + ATTRIBUTE_HEADER;
}
static inline size_t attribute_length(const struct nlattr *attribute)
{
    return attribute->nla_len - ATTRIBUTE_HEADER;
}
/* 0 when it is missing or too short. */
uint32_t attribute_u32(const struct nlattr *attribute);
uint16_t attribute_u16(const struct nlattr *attribute);
uint8_t attribute_u8(const struct nlattr *attribute);
/* NULL when it is missing or does not end in a NUL. */
const char *attribute_text(const struct nlattr *attribute);
/* The attributes after a message's fixed header. */
void message_attributes(const struct nlmsghdr *message, size_t header, const struct nlattr **table, size_t max);
/* The fixed header, or NULL when the message is shorter. */
const void *message_header(const struct nlmsghdr *message, size_t header);

#endif
