/** A cluster's certificates for tests: one authority, and the TLS identity of any node of it. */
import {
  Authority,
  TlsIdentity,
  createAuthority,
  createRequest,
  generatePrivateKey,
  type NodeIdentity,
  type TlsMaterial,
} from "../../lib/pki/index.ts";

export interface ClusterPki {
  readonly clusterId: string;
  readonly rootPem: string;
  material(identity: NodeIdentity, lifeMs?: number): Promise<TlsMaterial>;
  /** Node ids are made from the member's number. */
  manager(memberId: number): Promise<TlsIdentity>;
  worker(name?: string): Promise<TlsIdentity>;
}

export async function createClusterPki(clusterId = "c".repeat(25)): Promise<ClusterPki> {
  const nowMs = Date.now();
  const root = await createAuthority(clusterId, nowMs);
  const authority = new Authority(root);
  const material = async (identity: NodeIdentity, lifeMs?: number): Promise<TlsMaterial> => {
    const privateKeyPem = await generatePrivateKey();
    const options = lifeMs === undefined ? { nowMs } : { nowMs, lifeMs };
    const certificatePem = await authority.issue(await createRequest(privateKeyPem), identity, options);
    return { certificatePem, privateKeyPem, rootsPem: root.certificatePem };
  };
  return {
    clusterId,
    rootPem: root.certificatePem,
    material,
    manager: async (memberId) =>
      new TlsIdentity(await material({ nodeId: nodeIdOf(memberId), clusterId, role: "manager", memberId })),
    worker: async (name = "w".repeat(25)) =>
      new TlsIdentity(await material({ nodeId: name, clusterId, role: "worker", memberId: undefined })),
  };
}

export function nodeIdOf(memberId: number): string {
  return `m${memberId.toString(36)}`.padEnd(25, "0");
}
