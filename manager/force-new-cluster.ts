/** `manager force-new-cluster`: asks the others first, tells what will be lost, and does it only if that is wished. */
import { basename, join } from "node:path";

import { ClusterError } from "../lib/pure/errors.ts";
import { openPrivateKey, TlsIdentity, type TlsMaterial } from "../lib/pki/index.ts";
import { Channel } from "../lib/rpc/index.ts";
import { nodeFileSystem } from "../lib/runtime/file-system.ts";
import { NotAManager } from "./manager.ts";
import { managersMethods } from "./managers-service.ts";
import { DataFolder, FolderUnusable, NewCluster, type NewClusterPlan } from "./raft/index.ts";

export interface ForceOptions {
  readonly dataDir: string;
  /** Its private key may be sealed with the unlock key. */
  readonly tls: TlsMaterial;
  readonly unlockKey?: string;
  /** Where the copy of the folder goes, as it was before. */
  readonly backupsDir: string;
  /** false rehearses it. */
  readonly really: boolean;
}

export class QuorumAnswers extends ClusterError {
  readonly code = "QUORUM_ANSWERS";
  constructor(answering: number, voters: number) {
    super(`Cannot force a new cluster: ${answering} of its ${voters} voting managers answer, which is a quorum`, {
      fix: "Start this manager as usual; remove the lost ones by `remove` on the leader",
    });
  }
}

const askMs = 3000;

/** @returns what would happen or has happened, as a text for people @throws QuorumAnswers, and what the folder throws */
export async function forceNewCluster(options: ForceOptions): Promise<string> {
  const privateKeyPem = openPrivateKey(options.tls.privateKeyPem, options.unlockKey);
  const tls = new TlsIdentity({ ...options.tls, privateKeyPem });
  const { clusterId, nodeId, memberId } = tls.certificate.identity;
  if (memberId === undefined) throw new NotAManager(nodeId);
  const folder = DataFolder.open(options.dataDir, nodeFileSystem);
  try {
    const access = { folder, ...(options.unlockKey === undefined ? {} : { unlockKey: options.unlockKey }) };
    const cluster = new NewCluster({ clusterId, nodeId, memberId }, access);
    try {
      await refuseWhileQuorumAnswers(cluster.plan, tls);
      if (!options.really) return describe(cluster.plan, undefined);
      const name = `${basename(options.dataDir)}.before-incarnation-${cluster.plan.clusterIncarnation}`;
      const backup = join(options.backupsDir, name);
      cluster.carryOut(backup);
      return describe(cluster.plan, backup);
    } catch (error) {
      throw FolderUnusable.of(options.dataDir, error);
    } finally {
      cluster[Symbol.dispose]();
    }
  } finally {
    folder[Symbol.dispose]();
  }
}

async function refuseWhileQuorumAnswers({ lost, voters }: NewClusterPlan, tls: TlsIdentity): Promise<void> {
  const others = lost.filter(({ id }) => voters.includes(id));
  const answers = await Promise.all(others.map(({ id, address }) => doesAnswer(address, id, tls)));
  const answering = answers.filter(Boolean).length;
  if (answering >= Math.floor(voters.length / 2) + 1) throw new QuorumAnswers(answering, voters.length);
}

async function doesAnswer(address: string, memberId: number, tls: TlsIdentity): Promise<boolean> {
  const channel = new Channel({ address, tls, expect: { role: "manager", memberId } });
  try {
    const signal = AbortSignal.timeout(askMs);
    const status = await channel.call(managersMethods.status, {}, { timeoutMs: askMs, signal });
    return status.state === "running";
  } catch {
    // Whatever the reason: it does not answer.
    return false;
  } finally {
    channel[Symbol.dispose]();
  }
}

function describe(plan: NewClusterPlan, backup: string | undefined): string {
  const did = backup !== undefined;
  return [
    `Manager ${plan.survivor} ${did ? "is now" : "would become"} the only one, in incarnation ${plan.clusterIncarnation} of its cluster.`,
    `Its whole log, up to entry ${plan.lastIndex}, ${did ? "was" : "would be"} kept; what others had committed after that is lost.`,
    `Of the last ${plan.uncertainEntries} entries its disk does not say whether they had been committed; they ${did ? "are" : "would be"} now.`,
    ...plan.lost.map(
      ({ id, address, nodeId }) => `Taken out: manager ${id} (node ${nodeId}, ${address}); it must join anew.`,
    ),
    ...(did ? [`The data folder as it was before: ${backup}`] : []),
  ].join("\n");
}
