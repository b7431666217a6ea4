/*
 * Telling that somebody else changed a watched namespace. What we change ourselves is not told: the kernel is asked to leave
 * out what bears our socket's number, and what it does in consequence (an address that goes with its link, FDB entries, which
 * bear no number) is taken from the queue right after our own sending: only the kinds that it can have, since somebody else may
 * change something at that very moment.
 */
#ifndef NETPLANE_EVENTS_H
#define NETPLANE_EVENTS_H

#include "common/error.h"
#include "netplane/text.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    WATCHES_MAX = 512,
    EVENT_DELAY_MS = 10,  /* from the first change to telling: changes come in groups */
    EVENT_PAUSE_MS = 50,  /* between two tellings about one namespace */
};

struct namespace;
struct namespaces;

/* Watching what is watched is fine. */
int watch_begin(struct namespaces *namespaces, struct namespace *namespace, int epoll_fd, struct error *error);
void watch_end(struct namespace *namespace);

enum change {
    CHANGE_LINK = 1,
    CHANGE_ADDRESS = 2,
    CHANGE_ROUTE = 4,
    CHANGE_NEIGHBOUR = 8,
    CHANGE_FDB = 16,
    CHANGE_RULE = 32,
    CHANGE_NFT = 64,
    CHANGE_ALL = 127,
};

/* Reads what the kernel told. `ours`: changes that may be the consequence of what we have just done. */
void watch_read(struct namespaces *namespaces, struct namespace *namespace, unsigned ours);
/* The namespace of an event of epoll, or NULL when its watch has ended. */
struct namespace *watch_find(const struct namespaces *namespaces, uint64_t id);

/* Milliseconds until something is to be told, or -1. */
int watches_wait_ms(const struct namespaces *namespaces, uint64_t now_ns);
/* The next event that is due, as JSON. False when there is none. */
bool watches_next(struct namespaces *namespaces, uint64_t now_ns, struct text *out);

#endif
