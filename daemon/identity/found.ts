/** A new cluster: its root, and this node as its first manager. */
import { randomBytes, randomFillSync } from "node:crypto";

import { newId, newMemberId } from "../../lib/pure/id.ts";
import {
  Authority,
  createAuthority,
  createRequest,
  formatUnlockKey,
  generatePrivateKey,
  makeUnlockKey,
} from "../../lib/pki/index.ts";
import type { Clock } from "../../lib/runtime/index.ts";
import type { Bootstrap } from "../../manager/ca/index.ts";
import { nodeLifeOf, skep } from "../../proto/index.ts";
import { frameAddressIn, type IdentityFolder, type SwarmSettings } from "./folder.ts";
import { SwarmIdentity } from "./identity.ts";

export interface FoundOptions {
  readonly folder: IdentityFolder;
  readonly clock: Clock;
  readonly settings: SwarmSettings;
  /** An encoded skep.objects.ClusterSpec. */
  readonly spec: Uint8Array;
  readonly defaultAddrPool: readonly string[];
  readonly subnetSize: number;
  readonly dataPathPort: number;
  readonly hostname: string;
  readonly availability: "active" | "pause" | "drain";
}

export interface Founded {
  readonly identity: SwarmIdentity;
  /** For the manager that makes the cluster; holds the root's key, so it is given on standard input and kept nowhere. */
  readonly bootstrap: Bootstrap;
  /** Present when the spec asks for locked managers: the manager is started with it, and the user is told it. */
  readonly unlockKey: string | undefined;
  /**
   * Call it when the cluster object exists. Before, this node is in no swarm after a restart: the root's key was nowhere
   * but in memory, so what is left of a founding that was cut short is of no use.
   */
  readonly keep: () => void;
}

/** @throws MessageUnreadable on a spec that is none, and errors of the disk */
export async function found(options: FoundOptions): Promise<Founded> {
  const { folder, clock, settings } = options;
  const spec = skep.objects.ClusterSpec.decode(options.spec);
  const fill = (bytes: Uint8Array): void => void randomFillSync(bytes);
  const [clusterId, nodeId, memberId] = [newId(fill), newId(fill), newMemberId(fill)];
  const nowMs = clock.wallMs();
  const root = await createAuthority(clusterId, nowMs);
  const privateKeyPem = await generatePrivateKey();
  const certificatePem = await new Authority(root).issue(
    await createRequest(privateKeyPem),
    { nodeId, clusterId, role: "manager", memberId },
    { nowMs, lifeMs: nodeLifeOf(spec) },
  );
  const locked = spec.encryptionConfig?.autoLockManagers === true;
  const unlockKey = locked ? formatUnlockKey(makeUnlockKey((count) => randomBytes(count))) : undefined;
  const material = { certificatePem, privateKeyPem, rootsPem: root.certificatePem };
  folder.wipe();
  folder.writeNew(material, unlockKey);
  const managers = [{ nodeId, addr: settings.advertiseAddr }];
  const state = { format: 1, nodeId, clusterId, settings, managers } as const;
  const identity = new SwarmIdentity(folder, material, state, unlockKey);
  return {
    identity,
    unlockKey,
    bootstrap: {
      clusterId,
      rootCert: root.certificatePem,
      rootKey: root.privateKeyPem,
      nodeId,
      memberId,
      spec: Buffer.from(options.spec).toString("base64"),
      defaultAddrPool: options.defaultAddrPool,
      subnetSize: options.subnetSize,
      dataPathPort: options.dataPathPort,
      advertise: settings.advertiseAddr,
      frameAddr: frameAddressIn(settings),
      hostname: options.hostname,
      availability: options.availability,
    },
    keep: () => folder.writeState(state),
  };
}
