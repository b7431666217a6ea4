/**
 * Volumes: directories of this node that outlive containers, with what the `local` driver mounts on them.
 * In:    wishes of users and containers.
 * Out:   host paths. Records in `level`; contents beside them, one folder a volume.
 * core/  names, options, fstab lines. Pure.
 * Uses:  lib, mount(8).   Used by: containers (as its VolumeProvider), executor, api.   Design: docs/design/executor.md
 * Never: removes what a container refers to, or a directory that it has no record of.
 */
export * from "./errors.ts";
export {
  anonymousLabel,
  Volumes,
  type VolumeEvent,
  type VolumeRecord,
  type VolumesOptions,
  type VolumeWish,
} from "./volumes.ts";
