/** Certificates of a cluster for tests: one authority, as many managers and workers as are asked for. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import {
  Authority,
  createAuthority,
  createRequest,
  generatePrivateKey,
  type TlsMaterial,
} from "../../lib/pki/index.ts";

export interface CertificateFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

export class TestAuthority {
  readonly clusterId: string;
  readonly #authority: Authority;
  readonly rootsPem: string;

  private constructor(clusterId: string, authority: Authority, rootsPem: string) {
    this.clusterId = clusterId;
    this.#authority = authority;
    this.rootsPem = rootsPem;
  }

  static async create(clusterId: string): Promise<TestAuthority> {
    const material = await createAuthority(clusterId, Date.now());
    return new TestAuthority(clusterId, new Authority(material), material.certificatePem);
  }

  async issue(nodeId: string, memberId: number | undefined): Promise<TlsMaterial> {
    const privateKeyPem = await generatePrivateKey();
    const role = memberId === undefined ? "worker" : "manager";
    const certificatePem = await this.#authority.issue(
      await createRequest(privateKeyPem),
      { nodeId, clusterId: this.clusterId, role, memberId },
      { nowMs: Date.now() },
    );
    return { certificatePem, privateKeyPem, rootsPem: this.rootsPem };
  }

  /** Workers by the thousand, all with one key: to make keys takes longer than all else of it. */
  async issueWorkers(nodeIds: readonly string[]): Promise<{ privateKeyPem: string; certificates: string[] }> {
    const privateKeyPem = await generatePrivateKey();
    const request = await createRequest(privateKeyPem);
    const certificates: string[] = [];
    for (const nodeId of nodeIds) {
      const identity = { nodeId, clusterId: this.clusterId, role: "worker", memberId: undefined } as const;
      certificates.push(await this.#authority.issue(request, identity, { nowMs: Date.now() }));
    }
    return { privateKeyPem, certificates };
  }

  /** Writes what a process is told by file name. */
  async issueFiles(folder: string, nodeId: string, memberId: number | undefined): Promise<CertificateFiles> {
    const material = await this.issue(nodeId, memberId);
    mkdirSync(folder, { recursive: true });
    const files = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem"), ca: join(folder, "ca.pem") };
    // On the disk before anything is asked of the process: a soak may cut its power at any moment.
    writeFileSync(files.cert, material.certificatePem, { flush: true });
    writeFileSync(files.key, material.privateKeyPem, { mode: 0o600, flush: true });
    writeFileSync(files.ca, material.rootsPem, { flush: true });
    return files;
  }
}
