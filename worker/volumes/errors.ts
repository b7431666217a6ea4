/** What can go wrong with a volume. Messages follow the Engine API's where its clients match on them. */
import { ClusterError } from "../../lib/pure/errors.ts";

export class VolumeNotFound extends ClusterError {
  readonly code = "VOLUME_NOT_FOUND";
  constructor(name: string) {
    super(`get ${name}: no such volume`, { fix: "List the volumes of this node with `skep volume ls`" });
  }
}

export class VolumeInUse extends ClusterError {
  readonly code = "VOLUME_IN_USE";
  constructor(name: string, containers: readonly string[]) {
    super(`remove ${name}: volume is in use - [${containers.join(", ")}]`, {
      fix: "Remove the containers that use it first",
    });
  }
}

export class VolumeInvalid extends ClusterError {
  readonly code = "VOLUME_INVALID";
  constructor(name: string, why: string) {
    super(`create ${name}: ${why}`, { fix: "Correct the name or the option that the message names" });
  }
}

export class VolumeDriverUnknown extends ClusterError {
  readonly code = "VOLUME_DRIVER_UNKNOWN";
  constructor(driver: string) {
    super(`plugin "${driver}" not found`, { fix: "Use the driver local" });
  }
}

export class VolumeMountFailed extends ClusterError {
  readonly code = "VOLUME_MOUNT_FAILED";
  /** Never tells the options: they may hold a password. */
  constructor(name: string, act: "mount" | "unmount", found: string) {
    super(`Cannot ${act} volume ${name}: ${found}`, {
      fix: "Check type, device and options of the volume, and that what they name can be reached from this node",
    });
  }
}
