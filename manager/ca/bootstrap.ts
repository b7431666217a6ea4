/** The first change of a new cluster: its own object, with root and tokens, and the node that founded it. */
import { hostOf } from "../../lib/pure/address.ts";
import { digestOfRoot, makeJoinToken, type DrawBytes } from "../../lib/pki/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { nodeLifeOf, skep } from "../../proto/index.ts";
import { theCluster, type ClusterSchema, type Store, type Tx } from "../store/index.ts";
import { BootstrapInvalid } from "./errors.ts";

/** What the daemon that founds a cluster hands its first manager on standard input. PEM texts; it holds the root's key. */
export interface Bootstrap {
  readonly clusterId: string;
  readonly rootCert: string;
  readonly rootKey: string;
  readonly nodeId: string;
  readonly memberId: number;
  /** Base64 of the encoded ClusterSpec. */
  readonly spec: string;
  readonly defaultAddrPool: readonly string[];
  readonly subnetSize: number;
  readonly dataPathPort: number;
  /** HOST:PORT */
  readonly advertise: string;
  /** Where other nodes send its frames, plain; left out: where it is advertised. */
  readonly frameAddr?: string;
  readonly hostname: string;
  readonly availability: "active" | "pause" | "drain";
}

const { NodeAvailability, NodeRole, NodeState, Reachability, CertificateState } = skep.objects;
const availabilities = {
  active: NodeAvailability.ACTIVE,
  pause: NodeAvailability.PAUSE,
  drain: NodeAvailability.DRAIN,
};
const retryMs = 200;

/** @param value  parsed JSON of the daemon @throws BootstrapInvalid */
export function readBootstrap(value: unknown): Bootstrap {
  if (typeof value !== "object" || value === null) throw new BootstrapInvalid("what the daemon sent is no object");
  const given = value as Record<string, unknown>;
  for (const name of ["clusterId", "rootCert", "rootKey", "nodeId", "advertise"] as const) {
    if (typeof given[name] !== "string" || given[name] === "") throw new BootstrapInvalid(`${name} is missing`);
  }
  for (const name of ["spec", "hostname"] as const) {
    if (typeof given[name] !== "string") throw new BootstrapInvalid(`${name} is missing`);
  }
  for (const name of ["memberId", "subnetSize", "dataPathPort"] as const) {
    if (!Number.isSafeInteger(given[name])) throw new BootstrapInvalid(`${name} is not a whole number`);
  }
  const { defaultAddrPool, availability, frameAddr } = given;
  if (frameAddr !== undefined && typeof frameAddr !== "string") throw new BootstrapInvalid("frameAddr is no text");
  if (!Array.isArray(defaultAddrPool) || !defaultAddrPool.every((pool) => typeof pool === "string"))
    throw new BootstrapInvalid("defaultAddrPool is not a list of texts");
  if (availability !== "active" && availability !== "pause" && availability !== "drain")
    throw new BootstrapInvalid("availability is none of active, pause, drain");
  const bootstrap = value as Bootstrap;
  specOf(bootstrap);
  return bootstrap;
}

export interface FounderOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly bootstrap: Bootstrap;
  /** The key that opens the managers' files, when the spec asks for locked ones. */
  readonly unlockKey: Uint8Array | undefined;
  readonly draw: DrawBytes;
}

/** Makes the cluster as soon as this manager leads, unless it is made already. */
export class Founder {
  readonly #options: FounderOptions;
  #timer: Timer | undefined;
  #running = false;

  constructor(options: FounderOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = true;
    this.#found();
  }

  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #found(): void {
    const { store, clock, logger, bootstrap, draw, unlockKey } = this.#options;
    if (theCluster(store.current()) !== undefined) return;
    // Drawn once, outside: the function may run again, and what it writes should be the same.
    const tokens = joinTokens(digestOfRoot(bootstrap.rootCert), draw);
    const write = (tx: Tx<ClusterSchema>): void => createCluster(tx, bootstrap, tokens, unlockKey);
    store.transact(write, { actor: "ca", cause: "swarm init" }, (outcome) => {
      if (outcome.kind === "committed") logger.info("cluster made", { clusterId: bootstrap.clusterId });
      else if (this.#running) {
        logger.warn("the cluster could not be made yet", { error: outcome.error });
        this.#timer = clock.after(retryMs, () => this.#found());
      }
    });
  }
}

export function joinTokens(rootDigest: string, draw: DrawBytes): skep.objects.JoinTokens {
  return skep.objects.JoinTokens.create({
    worker: makeJoinToken(rootDigest, draw),
    manager: makeJoinToken(rootDigest, draw),
  });
}

function createCluster(
  tx: Tx<ClusterSchema>,
  bootstrap: Bootstrap,
  tokens: skep.objects.JoinTokens,
  unlockKey: Uint8Array | undefined,
): void {
  if (theCluster(tx) !== undefined) return;
  const spec = specOf(bootstrap);
  const { clusterId, nodeId, advertise, hostname } = bootstrap;
  const dataPathAddr = bootstrap.frameAddr ?? hostOf(advertise);
  tx.create("cluster", {
    id: clusterId,
    spec,
    rootCa: {
      certificate: bootstrap.rootCert,
      key: bootstrap.rootKey,
      digest: digestOfRoot(bootstrap.rootCert),
      lastForcedRotation: spec.caConfig?.forceRotate ?? 0,
    },
    joinTokens: tokens,
    dataPathPort: bootstrap.dataPathPort,
    defaultAddrPool: [...bootstrap.defaultAddrPool],
    subnetSize: bootstrap.subnetSize,
    ...(unlockKey === undefined ? {} : { unlockKey }),
  });
  tx.create("node", {
    id: nodeId,
    spec: { role: NodeRole.MANAGER, availability: availabilities[bootstrap.availability] },
    role: NodeRole.MANAGER,
    // Where it is the one that is advertised, its status says it.
    description: { hostname, ...(dataPathAddr === hostOf(advertise) ? {} : { network: { dataPathAddr } }) },
    status: { state: NodeState.NODE_UNKNOWN, addr: hostOf(advertise) },
    managerStatus: {
      leader: true,
      reachability: Reachability.REACHABLE,
      addr: advertise,
      memberId: bootstrap.memberId,
    },
    certificate: {
      state: CertificateState.CERTIFICATE_ISSUED,
      role: NodeRole.MANAGER,
      expiresAtUs: tx.timeUs + nodeLifeOf(spec) * 1000,
      issuer: digestOfRoot(bootstrap.rootCert),
    },
  });
}

function specOf({ spec }: Bootstrap): skep.objects.ClusterSpec {
  try {
    const decoded = skep.objects.ClusterSpec.decode(Buffer.from(spec, "base64"));
    // There is exactly one, and it has this name (features: as in Swarm).
    decoded.name = "default";
    return decoded;
  } catch {
    throw new BootstrapInvalid("spec is not an encoded ClusterSpec");
  }
}
