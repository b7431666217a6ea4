#include "netplane/namespaces.h"
#include "common/fd.h"
#include "netplane/events.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* FNV-1a. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3;
    return hash;
}

static void close_namespace(struct namespaces *namespaces, struct namespace *namespace)
{
    watch_end(namespace);
    while (namespace->ports != NULL) {
        struct held_port *port = namespace->ports;
        namespace->ports = port->next;
        close_fd(&port->fd);
        free(port);
        namespaces->ports_count--;
    }
    netlink_close(&namespace->route);
    netlink_close(&namespace->filter);
    netlink_close(&namespace->generic);
    close_fd(&namespace->fd);
    free(namespace->path);
    free(namespace);
}

static void forget_at(struct namespaces *namespaces, size_t place)
{
    close_namespace(namespaces, namespaces->all[place]);
    namespaces->all[place] = namespaces->all[--namespaces->count];
}

static ssize_t find(const struct namespaces *namespaces, const char *path, uint64_t hash)
{
    for (size_t i = 0; i < namespaces->count; i++)
        if (namespaces->all[i]->hash == hash && strcmp(namespaces->all[i]->path, path) == 0)
            return (ssize_t)i;
    return -1;
}

/* The namespace unused for longest makes room; never the own, nor one that holds ports or is watched. */
static int make_room(struct namespaces *namespaces, struct error *error)
{
    if (namespaces->count < NAMESPACES_MAX)
        return 0;
    size_t oldest = NAMESPACES_MAX;
    for (size_t i = 0; i < namespaces->count; i++) {
        const struct namespace *one = namespaces->all[i];
        if (one->path[0] != '\0' && one->watch == NULL && one->ports == NULL &&
            (oldest == NAMESPACES_MAX || one->used < namespaces->all[oldest]->used))
            oldest = i;
    }
    if (oldest == NAMESPACES_MAX)
        return fail(error, EMFILE, "hold more than %d namespaces open", NAMESPACES_MAX);
    forget_at(namespaces, oldest);
    return 0;
}

static int add_opened(struct namespaces *namespaces, const char *path, int *fd, const struct stat *status,
                      struct namespace **out, struct error *error)
{
    if (make_room(namespaces, error) < 0)
        return -1;
    struct namespace *namespace = calloc(1, sizeof *namespace);
    char *copy = strdup(path);
    if (namespace == NULL || copy == NULL) {
        free(namespace);
        free(copy);
        return fail(error, ENOMEM, "open namespace %s", path);
    }
    *namespace = (struct namespace){
        .path = copy,
        .hash = hash_of(path),
        .device = status->st_dev,
        .inode = status->st_ino,
        .fd = take_fd(fd),
        .route = {.fd = -1},
        .filter = {.fd = -1},
        .generic = {.fd = -1},
    };
    namespaces->all[namespaces->count++] = namespace;
    *out = namespace;
    return 0;
}

int namespaces_init(struct namespaces *namespaces, struct error *error)
{
    struct stat status;
    struct namespace *own;
    namespaces->own_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    cleanup_fd int fd = namespaces->own_fd < 0 ? -1 : fcntl(namespaces->own_fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail(error, errno, "open the network namespace of this process");
    return add_opened(namespaces, "", &fd, &status, &own, error);
}

static void close_fresh(struct fresh_namespace *fresh)
{
    netlink_close(&fresh->route);
    close_fd(&fresh->fd);
}

void namespaces_release(struct namespaces *namespaces)
{
    while (namespaces->count > 0)
        forget_at(namespaces, namespaces->count - 1);
    while (namespaces->spares_count > 0)
        close_fresh(&namespaces->spares[--namespaces->spares_count]);
    close_fd(&namespaces->own_fd);
}

/* Opened by way of /proc, so that what is held is the namespace and not its mount: whoever unmounts it does not find it busy. */
static int reopen(const struct namespaces *namespaces, const char *path, int *fd, struct error *error)
{
    if (setns(*fd, CLONE_NEWNET) < 0)
        return fail(error, errno, "enter namespace %s", path);
    int again = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int number = errno;
    namespace_leave(namespaces);
    if (again < 0)
        return fail(error, number, "open namespace %s", path);
    close_fd(fd);
    *fd = again;
    return 0;
}

int namespaces_open(struct namespaces *namespaces, const char *path, struct namespace **out, struct error *error)
{
    struct stat status;
    ssize_t place = find(namespaces, path, hash_of(path));
    if (place >= 0 && path[0] != '\0' &&
        (stat(path, &status) < 0 || status.st_ino != namespaces->all[place]->inode ||
         status.st_dev != namespaces->all[place]->device)) {
        forget_at(namespaces, (size_t)place);
        place = -1;
    }
    if (place < 0) {
        cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct statfs system;
        if (fd < 0 || fstat(fd, &status) < 0 || fstatfs(fd, &system) < 0)
            return fail(error, errno, "open namespace %s", path);
        if (system.f_type != NSFS_MAGIC)
            return fail(error, EINVAL, "open namespace %s: the file is none", path);
        if (reopen(namespaces, path, &fd, error) < 0 || add_opened(namespaces, path, &fd, &status, out, error) < 0)
            return -1;
    } else {
        *out = namespaces->all[place];
    }
    (*out)->used = ++namespaces->turn;
    return 0;
}

int namespace_enter(const struct namespace *namespace, struct error *error)
{
    if (setns(namespace->fd, CLONE_NEWNET) < 0)
        return fail(error, errno, "enter namespace %s", namespace->path);
    return 0;
}

void namespace_leave(const struct namespaces *namespaces)
{
    if (setns(namespaces->own_fd, CLONE_NEWNET) < 0)
        abort();
}

/* netdevice(7): nobody is in the way of these, and where they fail who needs them finds out. */
static void prepare_fresh(struct fresh_namespace *fresh)
{
    struct error ignored;
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (netlink_open(NETLINK_ROUTE, &fresh->route, &ignored) == 0)
        (void)ioctl(fresh->route.fd, SIOCSIFFLAGS, &loopback);
}

/* The thread stands in the fresh namespace for as long as preparing it takes. */
static int make_fresh(const struct namespaces *namespaces, struct fresh_namespace *out, struct error *error)
{
    if (unshare(CLONE_NEWNET) < 0)
        return fail(error, errno, "make a network namespace");
    *out = (struct fresh_namespace){.fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), .route = {.fd = -1}};
    int number = errno;
    if (out->fd >= 0)
        prepare_fresh(out);
    namespace_leave(namespaces);
    return out->fd < 0 ? fail(error, number, "open a fresh network namespace") : 0;
}

int namespaces_spare(struct namespaces *namespaces, struct error *error)
{
    if (namespaces->spares_count == namespaces->spares_wanted)
        return 0;
    if (make_fresh(namespaces, &namespaces->spares[namespaces->spares_count], error) < 0) {
        namespaces->spares_wanted = 0; /* until one is asked for again */
        return -1;
    }
    namespaces->spares_count++;
    namespaces->spare_due = false;
    return 0;
}

int namespaces_spare_wait_ms(const struct namespaces *namespaces)
{
    if (namespaces->spares_count >= namespaces->spares_wanted)
        return -1;
    return namespaces->spare_due ? 0 : SPARE_IDLE_MS;
}

/* Bound by its descriptor (mount_namespaces(7): namespaces may be bound from anywhere), and known from now on. */
static int bind_fresh(struct namespaces *namespaces, const char *path, struct error *error)
{
    char source[32];
    struct stat status;
    struct namespace *added;
    struct fresh_namespace fresh;
    namespaces->spare_due = true;
    if (namespaces->spares_count > 0) {
        fresh = namespaces->spares[--namespaces->spares_count];
        namespaces->spares_wanted = namespaces->spares_wanted < SPARES_FEW ? SPARES_FEW : namespaces->spares_wanted;
    } else {
        if (make_fresh(namespaces, &fresh, error) < 0)
            return -1;
        /* Who asks for more than there were will do so again. */
        size_t wanted = namespaces->spares_wanted == 0 ? SPARES_FEW : namespaces->spares_wanted * 2;
        namespaces->spares_wanted = wanted < SPARES_MAX ? wanted : SPARES_MAX;
    }
    snprintf(source, sizeof source, "/proc/self/fd/%d", fresh.fd);
    if (fstat(fresh.fd, &status) < 0 || mount(source, path, "none", MS_BIND, NULL) < 0) {
        int number = errno;
        close_fresh(&fresh);
        return fail(error, number, "bind a network namespace at %s", path);
    }
    ssize_t place = find(namespaces, path, hash_of(path));
    if (place >= 0)
        forget_at(namespaces, (size_t)place);
    /* Without room for it now it is opened when it is needed. */
    struct error ignored;
    if (add_opened(namespaces, path, &fresh.fd, &status, &added, &ignored) == 0)
        added->route = fresh.route;
    else
        close_fresh(&fresh);
    return 0;
}

int namespaces_add(struct namespaces *namespaces, const char *path, struct error *error)
{
    struct statfs system;
    /* An empty file that is there is what a crash between the two steps leaves. */
    cleanup_fd int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0444);
    if (fd < 0 || fstatfs(fd, &system) < 0)
        return fail(error, errno, "make namespace %s", path);
    if (system.f_type == NSFS_MAGIC)
        return fail(error, EEXIST, "make namespace %s", path);
    if (bind_fresh(namespaces, path, error) == 0)
        return 0;
    (void)unlink(path); /* the first error counts */
    return -1;
}

int namespaces_delete(struct namespaces *namespaces, const char *path, struct error *error)
{
    ssize_t place = find(namespaces, path, hash_of(path));
    if (place >= 0)
        forget_at(namespaces, (size_t)place);
    /* EINVAL: nothing is mounted there, so only the file is to go. */
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return fail(error, errno, "unmount namespace %s", path);
    if (unlink(path) < 0)
        return fail(error, errno, "remove namespace %s", path);
    namespaces->spare_due = true;
    return 0;
}

static int open_in(struct namespaces *namespaces, struct namespace *namespace, int protocol, struct netlink *netlink,
                   struct error *error)
{
    if (netlink->fd >= 0)
        return 0;
    if (namespace_enter(namespace, error) < 0)
        return -1;
    int result = netlink_open(protocol, netlink, error);
    namespace_leave(namespaces);
    return result;
}

int namespace_route(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error)
{
    *out = &namespace->route;
    return open_in(namespaces, namespace, NETLINK_ROUTE, &namespace->route, error);
}

int namespace_filter(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error)
{
    *out = &namespace->filter;
    return open_in(namespaces, namespace, NETLINK_NETFILTER, &namespace->filter, error);
}

int namespace_generic(struct namespaces *namespaces, struct namespace *namespace, struct netlink **out, struct error *error)
{
    *out = &namespace->generic;
    return open_in(namespaces, namespace, NETLINK_GENERIC, &namespace->generic, error);
}

/* netdevice(7) SIOCGIFINDEX, which every socket answers for its own namespace: RTM_GETLINK would describe the whole link. */
int namespace_link_index(struct namespaces *namespaces, struct namespace *namespace, const char *name, uint32_t *out,
                         struct error *error)
{
    struct cached_link *cached = &namespace->links[hash_of(name) % LINKS_CACHED];
    if (cached->index != 0 && strcmp(cached->name, name) == 0) {
        *out = cached->index;
        return 0;
    }
    struct netlink *route;
    struct ifreq request = {0};
    if (namespace_route(namespaces, namespace, &route, error) < 0)
        return -1;
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    if (ioctl(route->fd, SIOCGIFINDEX, &request) < 0)
        return fail(error, errno, "find link %s", name);
    *out = (uint32_t)request.ifr_ifindex;
    *cached = (struct cached_link){.index = *out};
    strncpy(cached->name, name, sizeof cached->name - 1);
    return 0;
}

void namespace_forget_link(struct namespace *namespace, const char *name)
{
    if (name == NULL)
        memset(namespace->links, 0, sizeof namespace->links);
    else
        namespace->links[hash_of(name) % LINKS_CACHED].index = 0;
}
