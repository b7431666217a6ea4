/** Carries the rotation of the root through, on the leader: core/rotation.ts says what is next. */
import { digestOfRoot, publicKeyOfRoot, type AuthorityMaterial, type DrawBytes } from "../../lib/pki/index.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import { follow, theCluster, type ClusterSchema, type Store, type Tx, type View, type Watch } from "../store/index.ts";
import { joinTokens } from "./bootstrap.ts";
import { nextRound, whatBegins, type NodeProgress } from "./core/index.ts";

export interface NextRoot extends AuthorityMaterial {
  /** The next root's name and key, signed by the old one. PEM. */
  readonly crossSignedPem: string;
}

/** Keys are made outside: it takes time, and chance. `done` runs once, never inside the call. */
export type MakeRoot = (
  wanted: {
    readonly clusterId: string;
    readonly nowMs: number;
    /** Signs for the next one. */
    readonly old: AuthorityMaterial;
    /** Undefined: a fresh one is made. */
    readonly brought: AuthorityMaterial | undefined;
  },
  done: (error: Error | undefined, next: NextRoot | undefined) => void,
) => void;

export interface RotatorOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly makeRoot: MakeRoot;
  readonly draw: DrawBytes;
}

const { CertificateState } = skep.objects;
type Cluster = Readonly<skep.objects.Cluster>;
const roundMs = 1000;
/** Each renewal is a signature and a commit: a leader does thousands in a second, and has other work. */
const askMax = 50;
const retryMs = 5000;

export class Rotator {
  readonly #options: RotatorOptions;
  #watch: Watch<ClusterSchema> | undefined;
  #rounds: Timer | undefined;
  #again: Timer | undefined;
  #busy = false;
  /** PEM of the next root, and what follows from it. */
  #next = { certificate: "", digest: "", publicKey: Buffer.alloc(0) };

  constructor(options: RotatorOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#watch !== undefined) return;
    this.#watch = this.#options.store.watch({ kinds: ["cluster"] });
    follow(this.#watch, undefined, () => this.#look());
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#rounds?.cancel();
    this.#rounds = undefined;
    this.#again?.cancel();
    this.#busy = false;
  }

  #look(): void {
    const cluster = theCluster(this.#options.store.current());
    if (this.#watch === undefined || cluster?.rootCa == null) return;
    this.#learn(cluster);
    const rotating = this.#next.certificate !== "";
    if (rotating) this.#rounds ??= this.#options.clock.every(roundMs, () => this.#round());
    else {
      this.#rounds?.cancel();
      this.#rounds = undefined;
    }
    if (!this.#busy) this.#begin(cluster);
  }

  #learn(cluster: Cluster): void {
    const certificate = cluster.rootCa?.rotation?.certificate ?? "";
    if (certificate === this.#next.certificate) return;
    this.#next =
      certificate === ""
        ? { certificate, digest: "", publicKey: Buffer.alloc(0) }
        : { certificate, digest: digestOfRoot(certificate), publicKey: Buffer.from(publicKeyOfRoot(certificate)) };
  }

  // --------------------------------------------------------------------------------------------------------- beginning

  #begin(cluster: Cluster): void {
    const wish = cluster.spec?.caConfig ?? {};
    const root = cluster.rootCa ?? {};
    const broughtPem = wish.signingCaCert ?? "";
    let broughtDigest = "";
    try {
      broughtDigest = broughtPem === "" ? "" : digestOfRoot(broughtPem);
    } catch (error) {
      return this.#failed(error as Error);
    }
    const beginning = whatBegins({ root, wish, broughtDigest, nextDigest: this.#next.digest });
    if (beginning === undefined) return;
    const forced = wish.forceRotate ?? 0;
    if (beginning.kind !== "begin") {
      const abandon = beginning.kind === "abandon";
      this.#commit(abandon ? "the rotation of the root is abandoned" : "the root asked for is in force", (draft) => {
        if (abandon) draft.rotation = null;
        draft.lastForcedRotation = forced;
      });
      return;
    }
    this.#busy = true;
    const watch = this.#watch;
    const { clock, makeRoot } = this.#options;
    const brought = beginning.brought
      ? { certificatePem: broughtPem, privateKeyPem: wish.signingCaKey ?? "" }
      : undefined;
    const old = { certificatePem: root.certificate ?? "", privateKeyPem: root.key ?? "" };
    makeRoot({ clusterId: cluster.id, nowMs: clock.wallMs(), old, brought }, (error, next) => {
      if (watch !== this.#watch) return;
      this.#busy = false;
      if (next === undefined) {
        this.#failed(error);
        const now = theCluster(this.#options.store.current())?.spec?.caConfig;
        if ((now?.forceRotate ?? 0) !== forced || (now?.signingCaCert ?? "") !== broughtPem) this.#look();
        return;
      }
      this.#commit("the root is being rotated", (draft, now) => {
        // Something else was wished, or done, meanwhile: the next look sees.
        const same = (now.spec?.caConfig?.forceRotate ?? 0) === forced;
        if (!same || (now.spec?.caConfig?.signingCaCert ?? "") !== broughtPem) return;
        if (draft.certificate !== old.certificatePem) return;
        draft.lastForcedRotation = forced;
        draft.rotation = skep.objects.RootRotation.create({
          certificate: next.certificatePem,
          key: next.privateKeyPem,
          crossSignedCertificate: next.crossSignedPem,
        });
      });
    });
  }

  /** What was brought cannot be used, or a key could not be made: looked at again when the settings change. */
  #failed(error: Error | undefined): void {
    const code = error instanceof ClusterError ? error.code : "";
    this.#options.logger.error("the root cannot be rotated as the settings ask", { code, error });
  }

  // ------------------------------------------------------------------------------------------------------------ rounds

  #round(): void {
    if (this.#busy || this.#next.certificate === "") return;
    const { store } = this.#options;
    const { ask, finished } = nextRound(this.#progress(store.current()), this.#next.digest, askMax);
    if (finished) return this.#finish();
    if (ask.length === 0) return;
    const askThem = (tx: Tx<ClusterSchema>): void => {
      for (const id of ask) {
        const node = tx.get("node", id);
        if (node === undefined || node.certificate?.issuer === this.#next.digest) continue;
        tx.edit("node", id, (draft) => {
          draft.certificate = skep.objects.NodeCertificate.create({
            ...draft.certificate,
            state: CertificateState.CERTIFICATE_ROTATE,
          });
        });
      }
    };
    this.#transact(`${ask.length} nodes are to renew for the next root`, askThem);
  }

  #finish(): void {
    const { draw, logger } = this.#options;
    const { certificate, digest } = this.#next;
    const tokens = joinTokens(digest, draw);
    const finish = (tx: Tx<ClusterSchema>): void => {
      const cluster = theCluster(tx);
      const rotation = cluster?.rootCa?.rotation;
      if (cluster === undefined || rotation?.certificate !== certificate) return;
      // A node may have come since the look.
      if (!nextRound(this.#progress(tx), digest, askMax).finished) return;
      tx.edit("cluster", cluster.id, (draft) => {
        draft.rootCa = skep.objects.RootCa.create({
          certificate,
          key: rotation.key ?? "",
          digest,
          lastForcedRotation: cluster.rootCa?.lastForcedRotation ?? 0,
        });
        draft.joinTokens = tokens;
      });
    };
    this.#transact("every node uses the next root", finish);
    logger.info("the root is rotated", { digest });
  }

  *#progress(view: View<ClusterSchema>): IterableIterator<NodeProgress> {
    for (const { id, certificate, description } of view.list("node")) {
      const used = description?.tlsInfo?.certIssuerPublicKey;
      yield {
        id,
        issuedBy: certificate?.issuer ?? "",
        asked: certificate?.state === CertificateState.CERTIFICATE_ROTATE,
        done: used != null && this.#next.publicKey.equals(used),
        expired: (certificate?.expiresAtUs ?? 0) > 0 && (certificate?.expiresAtUs ?? 0) < view.timeUs,
      };
    }
  }

  #commit(cause: string, change: (root: skep.objects.RootCa, cluster: Cluster) => void): void {
    this.#transact(cause, (tx) => {
      const cluster = theCluster(tx);
      if (cluster?.rootCa == null) return;
      const root = skep.objects.RootCa.create(cluster.rootCa);
      change(root, cluster);
      tx.edit("cluster", cluster.id, (draft) => {
        draft.rootCa = root;
      });
    });
  }

  #transact(cause: string, change: (tx: Tx<ClusterSchema>) => void): void {
    const watch = this.#watch;
    const { store, clock, logger } = this.#options;
    this.#busy = true;
    store.transact(change, { actor: "ca", cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#busy = false;
      if (outcome.kind === "committed") return this.#look();
      logger.debug("not committed", { cause, error: outcome.error });
      this.#again?.cancel();
      this.#again = clock.after(retryMs, () => this.#look());
    });
  }
}
