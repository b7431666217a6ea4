/* Tracked connections: those that agree with a filter are forgotten, so that their next packet is a new connection's. */
#ifndef NETPLANE_CONNTRACK_H
#define NETPLANE_CONNTRACK_H

#include "netplane/netlink.h"
#include "netplane/request.h"

int connections_delete(struct netlink *filter, const struct connection_fields *wanted, uint64_t *deleted, struct error *error);

#endif
