/**
 * Renews the node's certificate at a random moment between half and four fifths of its life, and at once when a manager
 * tells that the role has changed or the root is being rotated. With one that has ended nothing can be asked any more; then
 * the node shows it and asks to be reinstated, less and less often, because the clock of this host may be what is wrong.
 */
import { CertificateExpired, renewalMs } from "../../lib/pki/index.ts";
import { Backoff } from "../../lib/pure/backoff.ts";
import { ClusterError, isAbort } from "../../lib/pure/errors.ts";
import type { Random } from "../../lib/pure/prng.ts";
import { Channel } from "../../lib/rpc/index.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import { certificateRole, skep } from "../../proto/index.ts";
import { askReinstatement } from "../../proto/reinstate.ts";
import type { SwarmIdentity } from "./identity.ts";

/** One request to one manager. */
export type AskRenewal = (
  address: string,
  request: skep.ca.IRenewRequest,
  signal: AbortSignal,
) => Promise<skep.ca.IRenewResponse>;

export interface RenewerOptions {
  readonly identity: SwarmIdentity;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Where to ask, best first: the node's own manager (`unix:PATH`), then the managers known. */
  readonly addresses: () => readonly string[];
  /** After each failure: the cluster has removed this node (NODE_REVOKED, NODE_UNKNOWN), nobody answers, it has expired. */
  readonly onFailure?: (error: ClusterError) => void;
  /** Whether this node asks to be reinstated when its certificate has ended; true unless said. */
  readonly reinstates?: () => boolean;
  /** In place of a channel to the address. */
  readonly ask?: AskRenewal;
  readonly askAfterEnd?: AskRenewal;
}

const { CertificateState, NodeRole } = skep.objects;
const refusals: ReadonlySet<string> = new Set(["NODE_REVOKED", "NODE_UNKNOWN", "REINSTATEMENT_REFUSED"]);
const callMs = 10_000;
/** Swarm's, for renewals that are due or overdue. */
const patiently = { minMs: 5000, maxMs: 3_600_000 };
/** For changes that somebody waits for. */
const eagerly = { minMs: 250, maxMs: 10_000 };
/** Dates are the wall clock's, which may jump or stand still with the machine: looked at anew at least so often. */
const lookMsMax = 600_000;
/** After a refusal of the disk. */
const writeAgainMs = 1000;

export class Renewer {
  readonly #options: RenewerOptions;
  readonly #patient: Backoff;
  readonly #eager: Backoff;
  #chance: number;
  #timer: Timer | undefined;
  #work: AbortController | undefined;
  #running = false;
  /** Changes told of, and those that the certificate in force or under way knows of. */
  #wishes = 0;
  #granted = 0;
  /** As told last. */
  #roots = "";

  constructor(options: RenewerOptions) {
    this.#options = options;
    this.#patient = new Backoff(options.random, patiently);
    this.#eager = new Backoff(options.random, eagerly);
    this.#chance = options.random.float();
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#plan();
  }

  stop(): void {
    this.#running = false;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#work?.abort();
    this.#work = undefined;
  }

  /** What the dispatcher told of this node. */
  heard({ node, roots }: skep.dispatcher.NodeUpdate.$Properties): void {
    const { identity } = this.#options;
    if (roots) {
      this.#roots = roots;
      this.#trust(roots);
    }
    if (node == null) return;
    const wanted = certificateRole(node) === NodeRole.MANAGER ? "manager" : "worker";
    const rotate = node.certificate?.state === CertificateState.CERTIFICATE_ROTATE;
    if (wanted !== identity.role || rotate) this.renewNow();
  }

  /** On a disk that takes them; the ones told last count. */
  #trust(roots: string): void {
    const { identity, clock, logger } = this.#options;
    try {
      identity.trust(roots);
    } catch (error) {
      if (error instanceof ClusterError) {
        logger.error("the roots sent do not vouch for this node's certificate", { error });
        return;
      }
      logger.error("the roots of the cluster could not be written yet", { error });
      clock.after(writeAgainMs, () => {
        if (this.#running && this.#roots === roots) this.#trust(roots);
      });
    }
  }

  /** Again and again until it is done; once more is harmless. */
  renewNow(): void {
    this.#wishes++;
    this.#eager.reset();
    if (!this.#running || this.#work !== undefined) return;
    this.#timer?.cancel();
    this.#renew();
  }

  get #wanted(): boolean {
    return this.#wishes > this.#granted;
  }

  #plan(): void {
    if (!this.#running || this.#work !== undefined) return;
    const { identity, clock } = this.#options;
    const dueMs = this.#wanted ? 0 : renewalMs(identity.tls.certificate, this.#chance) - clock.wallMs();
    this.#wait(Math.min(Math.max(0, dueMs), lookMsMax), () => {
      if (dueMs > lookMsMax) this.#plan();
      else this.#renew();
    });
  }

  #wait(ms: number, then: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(ms, then);
  }

  #renew(): void {
    const work = new AbortController();
    this.#work = work;
    const wishes = this.#wishes;
    this.#ask(work.signal).then(
      () => {
        // A wish that came meanwhile may have come too late for this one.
        this.#granted = Math.max(this.#granted, wishes);
        this.#ended(work, undefined);
      },
      (error: unknown) => this.#ended(work, error),
    );
  }

  #ended(work: AbortController, error: unknown): void {
    if (this.#work !== work) return;
    this.#work = undefined;
    if (error === undefined) {
      this.#patient.reset();
      this.#chance = this.#options.random.float();
      this.#plan();
      return;
    }
    const waitMs = (this.#wanted ? this.#eager : this.#patient).next();
    this.#wait(waitMs, () => this.#renew());
    const { logger, onFailure } = this.#options;
    if (isAbort(error)) return;
    logger.warn("the certificate could not be renewed yet", { error, again: `in ${Math.round(waitMs / 1000)} s` });
    if (error instanceof ClusterError) onFailure?.(error);
    else logger.error("renewing failed", { error });
  }

  /** @throws what the last one answered, or CertificateExpired if that is why */
  async #ask(signal: AbortSignal): Promise<void> {
    const { identity, clock, reinstates, ask, askAfterEnd } = this.#options;
    const { notAfterMs } = identity.tls.certificate;
    const csr = await identity.request();
    let last = await this.#askAll(ask ?? this.#call, csr, signal);
    if (last === undefined) return;
    const hasEnded = clock.wallMs() > notAfterMs;
    if (hasEnded && !isRefusal(last) && (reinstates?.() ?? true)) {
      last = await this.#askAll(askAfterEnd ?? this.#callAfterEnd, csr, signal);
      if (last === undefined) return;
    }
    if (hasEnded && !isRefusal(last)) throw new CertificateExpired("the certificate of this node", notAfterMs);
    throw last;
  }

  /** @returns undefined when one has issued it; else what counts of the answers: a refusal, or the last one */
  async #askAll(ask: AskRenewal, csr: string, signal: AbortSignal): Promise<unknown> {
    const { identity, logger } = this.#options;
    let last: unknown;
    for (const address of this.#options.addresses()) {
      try {
        const { certificate, root } = await ask(address, { csr }, signal);
        signal.throwIfAborted();
        identity.adopt(certificate ?? "", root ?? "");
        const { notAfterMs, identity: named } = identity.tls.certificate;
        logger.info("certificate renewed", { role: named.role, until: new Date(notAfterMs) });
        return undefined;
      } catch (error) {
        signal.throwIfAborted();
        if (!isRefusal(last)) last = error;
      }
    }
    return last ?? new NoManagerKnown();
  }

  readonly #callAfterEnd: AskRenewal = async (address, { csr }, signal) => {
    const { tls, rootsPem } = this.#options.identity;
    return askReinstatement(address, { tls, roots: rootsPem, csr: csr ?? "" }, signal);
  };

  readonly #call: AskRenewal = async (address, request, signal) => {
    const { tls } = this.#options.identity;
    const channel = new Channel({ address, tls, expect: { role: "manager" } });
    try {
      return await channel.call(caMethods.renew, request, { timeoutMs: callMs, signal });
    } finally {
      channel[Symbol.dispose]();
    }
  };
}

/** The cluster has decided; another manager would say the same. */
function isRefusal(error: unknown): boolean {
  return error instanceof ClusterError && refusals.has(error.code);
}

class NoManagerKnown extends ClusterError {
  readonly code = "NO_MANAGER_KNOWN";
  constructor() {
    super("Cannot renew the certificate of this node: no manager is known", {
      fix: "Start a manager of this swarm, or leave the swarm with --force and join again",
    });
  }
}
