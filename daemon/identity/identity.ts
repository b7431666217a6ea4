/** One node's place in its swarm, in use: everything that speaks TLS follows when it is renewed, moved or locked. */
import { createRequest, generatePrivateKey, issuerOf, TlsIdentity, type NodeRole } from "../../lib/pki/index.ts";
import type { skep } from "../../proto/index.ts";
import {
  IdentityDamaged,
  type IdentityFolder,
  type ManagerAddress,
  type Material,
  type State,
  type SwarmSettings,
} from "./folder.ts";

export type IdentityChange = "certificate" | "roots" | "lock";

export class SwarmIdentity {
  readonly folder: IdentityFolder;
  /** For channels and servers; follows renewals. */
  readonly tls: TlsIdentity;
  #material: Material;
  #state: State;
  #unlockKey: string | undefined;
  /** Unlock keys with which the manager's log may still be locked, beside `#unlockKey`. */
  #unlockKeysBefore: readonly string[];
  /** Waits for its certificate. */
  #nextKeyPem: string | undefined;
  #hasUnwrittenRoots = false;
  readonly #listeners = new Set<(change: IdentityChange) => void>();

  /**
   * The identity on disk; undefined for a node in no swarm. An expired certificate is no error here: the clock may be
   * wrong, and the renewer tells.
   * @throws IdentityDamaged, NodeKeyLocked, UnlockKeyWrong, UnlockKeyInvalid
   */
  static open(folder: IdentityFolder, unlockKey?: string): SwarmIdentity | undefined {
    const found = folder.read(unlockKey);
    if (found === undefined) return undefined;
    try {
      const { material, state } = found;
      return new SwarmIdentity(folder, material, state, found.unlockKey, found.unlockKeysBefore);
    } catch (error) {
      throw new IdentityDamaged(folder.path, "key, certificate and root do not fit together", error);
    }
  }

  /** By `open`, `found` and `join`. @throws CertificateInvalid, PrivateKeyInvalid */
  constructor(
    folder: IdentityFolder,
    material: Material,
    state: State,
    unlockKey: string | undefined,
    unlockKeysBefore: readonly string[] = [],
  ) {
    this.folder = folder;
    this.tls = new TlsIdentity(material);
    this.#material = material;
    this.#state = state;
    this.#unlockKey = unlockKey;
    this.#unlockKeysBefore = unlockKeysBefore;
  }

  get nodeId(): string {
    return this.#state.nodeId;
  }

  get clusterId(): string {
    return this.#state.clusterId;
  }

  /** As the certificate says. */
  get role(): NodeRole {
    return this.tls.certificate.identity.role;
  }

  /** Managers only: the consensus member that this node is. */
  get memberId(): number | undefined {
    return this.tls.certificate.identity.memberId;
  }

  get settings(): SwarmSettings {
    return this.#state.settings;
  }

  /** Managers that were known last, for a node that starts. */
  get managers(): readonly ManagerAddress[] {
    return this.#state.managers;
  }

  /** The key with which the files on disk are sealed; undefined while they are not. */
  get unlockKey(): string | undefined {
    return this.#unlockKey;
  }

  /** What else may open the manager's log, while its lock is being taken off; kept on disk until it is off. */
  get unlockKeyBefore(): string | undefined {
    return this.#unlockKeysBefore[0];
  }

  /** The roots trusted, PEM; two while the root is being rotated. */
  get rootsPem(): string {
    return this.#material.rootsPem;
  }

  /** For the node's description: what it trusts, and who issued its certificate. */
  get tlsInfo(): skep.objects.TlsInfo.$Properties {
    const { subject, publicKey } = issuerOf(this.#material);
    return { trustRoot: this.#material.rootsPem, certIssuerSubject: subject, certIssuerPublicKey: publicKey };
  }

  /** Calls back after each change of certificate, role or roots, and when the files were locked or unlocked. */
  onChange(listener: (change: IdentityChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Keeps the addresses of the managers for the next start; writes nothing if they are known already. */
  remember(managers: readonly ManagerAddress[]): void {
    if (managers.length === 0 || JSON.stringify(managers) === JSON.stringify(this.#state.managers)) return;
    this.#keepState({ ...this.#state, managers: managers.map(({ nodeId, addr }) => ({ nodeId, addr })) });
  }

  /** New addresses of this node. */
  resettle(settings: SwarmSettings): void {
    this.#keepState({ ...this.#state, settings });
  }

  /** @returns a certificate request in PEM for a fresh key, which waits on disk until `adopt` brings its certificate */
  async request(): Promise<string> {
    const privateKeyPem = await generatePrivateKey();
    const request = await createRequest(privateKeyPem);
    this.folder.writeNextKey(privateKeyPem, this.#seals);
    this.#nextKeyPem = privateKeyPem;
    return request;
  }

  /**
   * Puts another certificate of the key in force in its place, as the node's own manager got it.
   * @throws CertificateInvalid; then everything is as before
   */
  adoptForSameKey(certificatePem: string, rootsPem: string): void {
    // A request that is under way is for a certificate that is not wanted any more.
    this.#nextKeyPem = undefined;
    this.adopt(certificatePem, rootsPem);
  }

  /**
   * Puts what a manager issued for the last `request` in force: in memory only if it is whole, then on disk.
   * @throws CertificateInvalid, PrivateKeyInvalid; then everything is as before
   */
  adopt(certificatePem: string, rootsPem: string): void {
    const privateKeyPem = this.#nextKeyPem ?? this.#material.privateKeyPem;
    const material = { certificatePem, privateKeyPem, rootsPem };
    this.tls.replace(material);
    this.#material = material;
    if (this.#nextKeyPem === undefined) this.folder.writeNextKey(privateKeyPem, this.#seals);
    this.folder.writeRenewed(certificatePem, rootsPem);
    this.#nextKeyPem = undefined;
    this.#tell("certificate");
  }

  /**
   * Trusts these roots from now on.
   * @throws CertificateInvalid; then everything is as before. What the disk refuses is asked for again by the same call
   */
  trust(rootsPem: string): void {
    if (rootsPem === this.#material.rootsPem && !this.#hasUnwrittenRoots) return;
    const material = { ...this.#material, rootsPem };
    this.tls.replace(material);
    this.#material = material;
    this.#hasUnwrittenRoots = true;
    this.folder.writeRoots(rootsPem);
    this.#hasUnwrittenRoots = false;
    this.#tell("roots");
  }

  /**
   * Seals the key file with `unlockKey`, or opens it for good without one. The log of the manager changes its lock only
   * after this file did, and the power may fail between them: so until `settleLock` the key before opens the file too, and
   * when there is no lock any more that key is kept beside the file, so that nobody is asked for it.
   */
  lock(unlockKey: string | undefined): void {
    if (unlockKey === this.#unlockKey) return;
    const before = new Set(this.#unlockKeysBefore);
    if (this.#unlockKey !== undefined) before.add(this.#unlockKey);
    if (unlockKey !== undefined) before.delete(unlockKey);
    if (unlockKey === undefined) this.folder.writeUnlockKeysBefore([...before]);
    this.#unlockKeysBefore = [...before];
    const seals = unlockKey === undefined ? [] : [unlockKey, ...before];
    this.folder.writeKey(this.#material.privateKeyPem, seals);
    if (this.#nextKeyPem !== undefined) this.folder.writeNextKey(this.#nextKeyPem, seals);
    this.#unlockKey = unlockKey;
    this.#tell("lock");
  }

  /** The manager's log has the new lock: nothing needs the unlock key before it any more. Again is fine. */
  settleLock(): void {
    if (this.#unlockKey !== undefined && this.folder.seals > 1) {
      this.folder.writeKey(this.#material.privateKeyPem, [this.#unlockKey]);
    }
    this.folder.forgetUnlockKeysBefore();
    this.#unlockKeysBefore = [];
  }

  /** Leaves nothing of this identity on disk. */
  wipe(): void {
    this.folder.wipe();
  }

  /** With which a key that is written now is sealed, so that whatever opens the log opens it. */
  get #seals(): readonly string[] {
    return this.#unlockKey === undefined ? [] : [this.#unlockKey, ...this.#unlockKeysBefore];
  }

  #keepState(state: State): void {
    this.folder.writeState(state);
    this.#state = state;
  }

  #tell(change: IdentityChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}
