/* Does what a request asks, batch after batch, and writes the answer. */
#ifndef NETPLANE_RUN_H
#define NETPLANE_RUN_H

#include "netplane/namespaces.h"
#include "netplane/request.h"
#include "netplane/text.h"

struct runner {
    struct namespaces namespaces;
    struct outgoing route;    /* messages that are not sent yet */
    struct outgoing elements; /* the transaction that is not committed yet */
    int epoll_fd;
};

/* Decodes, does and answers one request. The answer is always one; only memory that runs out keeps it from being whole. */
void run_request(struct runner *runner, char *bytes, size_t length, struct text *answer);

#endif
