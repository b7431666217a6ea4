/**
 * Keeps consensus members and node objects in step (core/roles.ts decides), on the leader. Wakes when a manager's node or
 * the members change, and looks once a second whom it reaches.
 */
import { Backoff } from "../../lib/pure/backoff.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import { Random } from "../../lib/pure/prng.ts";
import type { Clock, Logger, Timer } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import {
  follow,
  theCluster,
  withRevoked,
  type ClusterSchema,
  type Store,
  type Tx,
  type Watch,
} from "../store/index.ts";
import { reconcileRoles, type MemberFacts, type RoleStep } from "./core/index.ts";

/** Consensus, as this room needs it. Callbacks run once each, never inside the call. */
export interface Members {
  readonly self: number;
  list(): readonly MemberFacts[];
  /** Whether it was a member once and will never be again. */
  wasRemoved(memberId: number): boolean;
  /** Refused while the rest would be without a quorum, and for the last one. */
  remove(memberId: number, done: (error: Error | undefined) => void): void;
  /** Lets another member lead. */
  handOver(done: (error: Error | undefined) => void): void;
  onChange(listener: () => void): () => void;
}

export interface RoleManagerOptions {
  readonly store: Store<ClusterSchema>;
  readonly members: Members;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Spreads the tries of removals that are refused. */
  readonly seed: number | string;
}

const { CertificateState, NodeRole } = skep.objects;
const lookMs = 1000;
const pruneMs = 3_600_000;
const retry = { minMs: 500, maxMs: 5000 };
/** One look without an answer may be chance. */
const missesMax = 2;

export class RoleManager {
  readonly #options: RoleManagerOptions;
  readonly #backoff: Backoff;
  readonly #misses = new Map<number, number>();
  #watch: Watch<ClusterSchema> | undefined;
  #unsubscribe: (() => void) | undefined;
  #looking: Timer | undefined;
  #pruning: Timer | undefined;
  #again: Timer | undefined;
  /** A change of consensus is under way, or waits to be tried again. */
  #changing = false;
  #writing = false;

  constructor(options: RoleManagerOptions) {
    this.#options = options;
    this.#backoff = new Backoff(Random.stream(options.seed, "role manager"), retry);
  }

  start(): void {
    if (this.#watch !== undefined) return;
    const { store, clock, members } = this.#options;
    this.#watch = store.watch({
      kinds: ["node"],
      filter: (change) =>
        change.kind === "node" && (change.before?.role === NodeRole.MANAGER || change.after?.role === NodeRole.MANAGER),
    });
    this.#unsubscribe = members.onChange(() => this.#reconcile());
    this.#looking = clock.every(lookMs, () => this.#look());
    this.#pruning = clock.every(pruneMs, () => this.#prune());
    follow(this.#watch, undefined, () => this.#reconcile());
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    this.#unsubscribe?.();
    for (const timer of [this.#looking, this.#pruning, this.#again]) timer?.cancel();
    this.#changing = false;
    this.#writing = false;
    this.#misses.clear();
  }

  #look(): void {
    for (const { id, reachable } of this.#options.members.list()) {
      this.#misses.set(id, reachable ? 0 : (this.#misses.get(id) ?? 0) + 1);
    }
    this.#reconcile();
  }

  #reconcile(): void {
    const { store, members } = this.#options;
    const watch = this.#watch;
    const view = store.current();
    // A cluster that keeps no objects has no nodes to go by.
    if (watch === undefined || theCluster(view) === undefined) return;
    const facts = members.list().map((member) => ({
      ...member,
      reachable: member.reachable || (this.#misses.get(member.id) ?? 0) < missesMax,
    }));
    const managers = [...view.find("node", "role", String(NodeRole.MANAGER))].map((node) => ({
      id: node.id,
      wish: node.spec?.role ?? NodeRole.WORKER,
      status: node.managerStatus,
    }));
    const wasRemoved = (memberId: number): boolean => members.wasRemoved(memberId);
    const steps = reconcileRoles({ managers, members: facts, self: members.self, wasRemoved });
    this.#write(steps.filter(({ kind }) => kind === "left" || kind === "standing"));
    const change = steps.find(({ kind }) => kind === "remove" || kind === "handOver");
    if (change !== undefined) this.#change(change);
  }

  #write(steps: readonly RoleStep[]): void {
    if (steps.length === 0 || this.#writing) return;
    const watch = this.#watch;
    this.#writing = true;
    const write = (tx: Tx<ClusterSchema>): void => {
      for (const step of steps) writeStep(tx, step);
    };
    const cause = steps.some(({ kind }) => kind === "left") ? "a manager was demoted" : "managers were looked at";
    this.#options.store.transact(write, { actor: "role manager", cause }, (outcome) => {
      if (watch !== this.#watch) return;
      this.#writing = false;
      // Whatever stood in the way passes; the next look tries again.
      if (outcome.kind !== "committed") this.#options.logger.debug("standings not written", { error: outcome.error });
    });
  }

  #change(step: RoleStep): void {
    if (this.#changing || (step.kind !== "remove" && step.kind !== "handOver")) return;
    const { members, clock, logger } = this.#options;
    const watch = this.#watch;
    const { memberId, nodeId, why } = step;
    this.#changing = true;
    const done = (error: Error | undefined): void => {
      if (watch !== this.#watch) return;
      if (error === undefined) {
        this.#backoff.reset();
        this.#changing = false;
        logger.info("a manager left consensus", { memberId, nodeId, why });
        return this.#reconcile();
      }
      const waitMs = this.#backoff.next();
      const code = error instanceof ClusterError ? error.code : "";
      logger.warn("a manager cannot leave consensus yet", { memberId, nodeId, why, code, error });
      this.#again = clock.after(waitMs, () => {
        this.#changing = false;
        this.#reconcile();
      });
    };
    if (step.kind === "remove") members.remove(memberId, done);
    else members.handOver(done);
  }

  /** Nodes removed long ago need not be refused any more: their certificates have ended. */
  #prune(): void {
    const { store } = this.#options;
    const { timeUs } = store.current();
    const ended = theCluster(store.current())?.revokedNodes.some(({ expiresAtUs }) => (expiresAtUs ?? 0) <= timeUs);
    if (ended !== true) return;
    const prune = (tx: Tx<ClusterSchema>): void => {
      const cluster = theCluster(tx);
      if (cluster === undefined) return;
      tx.edit("cluster", cluster.id, (draft) => {
        draft.revokedNodes = withRevoked(draft.revokedNodes, undefined, tx.timeUs);
      });
    };
    // Nothing depends on it; the next hour tries again.
    store.transact(
      prune,
      { actor: "role manager", cause: "certificates of removed nodes have ended" },
      () => undefined,
    );
  }
}

/** The world may have moved since the look: a node that is gone, or another member by now, is left as it is. */
function writeStep(tx: Tx<ClusterSchema>, step: RoleStep): void {
  if (step.kind !== "left" && step.kind !== "standing") return;
  const node = tx.get("node", step.nodeId);
  if (node?.role !== NodeRole.MANAGER) return;
  if (step.kind === "standing") {
    const { status } = step;
    if (node.managerStatus?.memberId !== status.memberId) return;
    tx.edit("node", step.nodeId, (draft) => {
      draft.managerStatus = skep.objects.ManagerStatus.create(status);
    });
    return;
  }
  tx.edit("node", step.nodeId, (draft) => {
    draft.role = NodeRole.WORKER;
    draft.managerStatus = null;
    // Wished back meanwhile: it needs a certificate of another member, which it is told to ask for.
    if (step.again && draft.certificate != null)
      draft.certificate = skep.objects.NodeCertificate.create({
        ...draft.certificate,
        state: CertificateState.CERTIFICATE_ROTATE,
      });
  });
}
