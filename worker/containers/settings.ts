/** What the worker tells this room about its host. */
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { RootfsProvider } from "./rootfs.ts";

export interface Programs {
  /** The native program: monitor, and OCI runtime `builtin`. */
  readonly isolate: string;
  readonly archive: string;
  /** Path of another OCI runtime (runc, crun), or `builtin`. */
  readonly runtime: string;
  /** For containers with `Init`; absent: `Init` is refused. */
  readonly init?: string;
}

export interface ContainerSettings {
  /** Survives a reboot: records, logs, writable layers. */
  readonly dataDirectory: string;
  /** Does not have to: sockets and state of running containers. Short, since sockets live in it. */
  readonly runDirectory: string;
  readonly programs: Programs;
  /** Cgroup under which all containers are, in each hierarchy: `/skep`. */
  readonly cgroupParent: string;
  readonly rootfs: RootfsProvider;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Patience with `kill` after a stop signal, with a monitor that ends, and so on. */
  readonly defaultStopSeconds: number;
  /** Start the containers that their policy wants running. */
  readonly restartAtBoot: boolean;
  /** More environment for monitors: fault points of tests. */
  readonly monitorEnvironment?: Readonly<Record<string, string>>;
}
