/* User and group id maps (user_namespaces(7)): of a container's user namespace and of id-mapped mounts. */
#ifndef ISOLATE_IDMAP_H
#define ISOLATE_IDMAP_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct json_object;

enum { ID_MAPPINGS_MAX = 340 }; /* the kernel's own limit, user_namespaces(7) */

struct id_mapping {
    uint32_t container, host, size;
};

struct id_map {
    struct id_mapping *entries;
    size_t count;
};

int id_map_parse(struct json_object *object, const char *key, struct id_map *map, struct error *error);
void id_map_free(struct id_map *map);

/* The host's id of a container's id, or false when it is not mapped. */
bool id_map_to_host(const struct id_map *map, uint32_t container, uint32_t *host);

/* Writes both maps of a process that stands in a fresh user namespace; uses newuidmap and newgidmap when not root. */
int id_maps_write(pid_t pid, const struct id_map *uids, const struct id_map *gids, struct error *error);

/* A descriptor of a user namespace with these maps, for mount_setattr(2) MOUNT_ATTR_IDMAP. */
int id_map_namespace(const struct id_map *uids, const struct id_map *gids, int *out, struct error *error);

#endif
