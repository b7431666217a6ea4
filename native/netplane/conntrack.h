/* Tracked connections: those that agree with a filter are forgotten, so that their next packet is a new connection's. */
#ifndef NETPLANE_CONNTRACK_H
#define NETPLANE_CONNTRACK_H

#include "netplane/netlink.h"
#include "netplane/request.h"

/* A walk over all connections of all namespaces costs 10 ms and more: many wishes are met by one. */
enum { CONNECTIONS_WANTED_MAX = 256 };

/* One that agrees with several counts for the first of them. */
int connections_delete(struct netlink *filter, const struct connection_fields *const *wanted, size_t count, uint64_t *deleted,
                       struct error *error);

#endif
