/** What the worker tells this room about its host. */
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { ContainerId, ContainerRecord } from "./core/types.ts";
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

/** A container's place in its networks, while it runs. */
export interface ContainerNetwork {
  /** Of the network namespace that the container joins. */
  readonly namespacePath: string;
  /** For resolv.conf; undefined: the host's servers. */
  readonly resolver: string | undefined;
  /** Its own, for /etc/hosts. */
  readonly addresses: readonly string[];
  /** By which it reaches the host (`--add-host NAME:host-gateway`); undefined: by none. */
  readonly hostAddress: string | undefined;
  /** `NAME:ADDRESS`, for names that its resolver does not know: links on a network without names. */
  readonly hosts?: readonly string[];
}

/** Puts containers on networks. Modes `host`, `none`, `container:` and `ns:` have no need of it. */
export interface NetworkProvider {
  /** Before each start, and again when the record's networks have changed while it runs: then what differs is done. */
  attach(record: ContainerRecord): Promise<ContainerNetwork>;
  /** It has ended, and no start is to come. Again is harmless. */
  release(id: ContainerId): Promise<void>;
  /** When the worker starts: containers that run and no others. */
  keep(running: ReadonlySet<string>): Promise<void>;
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
  /** Absent: containers have a network of their own with nothing in it. */
  readonly networks?: NetworkProvider;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Patience with `kill` after a stop signal, with a monitor that ends, and so on. */
  readonly defaultStopSeconds: number;
  /** Start the containers that their policy wants running. */
  readonly restartAtBoot: boolean;
  /** More environment for monitors: fault points of tests. */
  readonly monitorEnvironment?: Readonly<Record<string, string>>;
}
