/*
 * Network namespaces that are held open: their sockets live in them, so that working in one takes no system call but the
 * sending itself. network_namespaces(7), setns(2).
 */
#ifndef NETPLANE_NAMESPACES_H
#define NETPLANE_NAMESPACES_H

#include "common/error.h"
#include "netplane/netlink.h"
#include "netplane/request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
#ifdef ISOLATE_FAULTS
    NAMESPACES_MAX = 32, /* so that tests see what happens when it is full */
#else
    NAMESPACES_MAX = 2048, /* held open; the one unused for longest makes room */
#endif
    PORTS_MAX = 16384,     /* reserved, in all namespaces */
    LINKS_CACHED = 256,
    SPARES_FEW = 16, /* namespaces made in advance: a third of a millisecond and some 100 KB of the kernel's each */
    SPARES_MAX = 64, /* where so many are asked for at once */
    SPARE_IDLE_MS = 2,
};

struct watch; /* events.h */

struct held_port {
    struct held_port *next;
    struct port_fields port;
    int fd;
};

struct cached_link {
    char name[16];
    uint32_t index;
};

struct namespace {
    char *path; /* "": the one that netplane was started in */
    uint64_t hash;
    dev_t device;
    ino_t inode; /* tells whether the path still means this namespace */
    int fd;
    uint64_t used;         /* when last, in turns of `namespaces.turn` */
    struct netlink route;  /* opened at the first need, as the next */
    struct netlink filter; /* nftables and conntrack */
    struct netlink generic; /* WireGuard */
    uint32_t generation;   /* of nftables' rules, as it was last; 0: not known */
    struct watch *watch;   /* NULL: nobody wants to know */
    struct held_port *ports;
    struct cached_link links[LINKS_CACHED]; /* good for one batch */
};

/* A namespace that is bound nowhere yet: its loopback link is up, and its socket open. */
struct fresh_namespace {
    int fd;
    struct netlink route;
};

struct namespaces {
    struct namespace *all[NAMESPACES_MAX];
    size_t count;
    uint64_t turn;
    size_t ports_count;
    struct fresh_namespace spares[SPARES_MAX];
    size_t spares_count;
    size_t spares_wanted; /* none before one was asked for */
    bool spare_due;       /* a namespace has come or gone: who asked for that is busy with the answer, and may ask for the next one then */
    int own_fd;
};

int namespaces_init(struct namespaces *namespaces, struct error *error);
void namespaces_release(struct namespaces *namespaces);

/* The namespace bound at the path. Valid until the next call that is not about the same path. */
int namespaces_open(struct namespaces *namespaces, const char *path, struct namespace **out, struct error *error);

/* Makes one of the namespaces that will be asked for, if one is lacking; to be called while there is nothing else to do. */
int namespaces_spare(struct namespaces *namespaces, struct error *error);
/* For how long nothing shall have come before that; -1: none is lacking. */
int namespaces_spare_wait_ms(const struct namespaces *namespaces);

/* A new namespace, bound at the path. EEXIST: one is bound there. */
int namespaces_add(struct namespaces *namespaces, const char *path, struct error *error);
/* ENOENT: there is no such file. */
int namespaces_delete(struct namespaces *namespaces, const char *path, struct error *error);

int namespace_enter(const struct namespace *namespace, struct error *error);
/* Cannot fail: the process ends rather than going on in the wrong namespace. */
void namespace_leave(const struct namespaces *namespaces);

int namespace_route(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error);
int namespace_filter(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error);
int namespace_generic(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error);

int namespace_reserve(struct namespaces *namespaces, struct namespace *namespace, const struct port_fields *port,
                      struct error *error);
/* ENOENT: it is not held. */
int namespace_release_port(struct namespaces *namespaces, struct namespace *namespace, const struct port_fields *port,
                           struct error *error);

/* The index of a link by name: ENODEV when there is none. */
int namespace_link_index(struct namespaces *namespaces, struct namespace *namespace, const char *name, uint32_t *out,
                         struct error *error);
/* What was learnt of one name, or (NULL) of all, holds no longer. */
void namespace_forget_link(struct namespace *namespace, const char *name);

#endif
