/**
 * The managers of a simulated cluster over the real consensus: the member's shell and core, the real log engine over a disk
 * that tears and forgets, a network that cuts, all under the world's virtual clock. What each manager applies is compared.
 */
import { crc32 } from "node:zlib";

import type { Random } from "../../lib/pure/prng.ts";
import type { Members } from "../../manager/ca/index.ts";
import type { VirtualClock } from "../../lib/runtime/index.ts";
import { bootstrapState, joinerState } from "../../manager/raft/core/index.ts";
import type { ConfChangeStep, MemberId, Message, SnapshotRequest } from "../../manager/raft/core/types.ts";
import { defaultLimits } from "../../manager/raft/member-config.ts";
import { Member, type ChangeOutcome, type MemberEvents } from "../../manager/raft/member.ts";
import { MemberTable, type MemberRecord } from "../../manager/raft/member-table.ts";
import type { LogStorage, SnapshotStore, Transport } from "../../manager/raft/ports.ts";
import { TableThenState } from "../../manager/raft/snapshot-frame.ts";
import {
  ObjectStore,
  clusterSchema,
  supportedLevel,
  type ClusterSchema,
  type Leadership,
  type ReplicatedLog,
} from "../../manager/store/index.ts";
import type { Consensus, ManagerPlace } from "../support/swarm-world.ts";
import { SimDisk, type Founding, type Job } from "./disk.ts";
import { SimFailure } from "./failure.ts";
import type { Loss } from "./faults.ts";

export interface RaftManagersOptions {
  readonly seed: number;
  readonly clock: VirtualClock;
  readonly random: Random;
  /** Machines that may be managers; the first `founders` are. */
  readonly machines: number;
  readonly founders: number;
  /** A write of the log takes at most about so long, and a message between managers. */
  readonly diskMs: number;
  readonly linkMs: number;
  readonly snapshotEntries: number;
}

const timings = { tickMs: 100, heartbeatMs: 100, electionMs: 600 };
const retryMs = 100;
const sliceBytes = 4096;
/** As raft.ts has it. */
const readPatienceMs = 4 * timings.electionMs;

export class RaftManagers implements Consensus {
  readonly options: RaftManagersOptions;
  readonly places: RaftPlace[] = [];
  /** Pairs of names between which nothing passes. */
  readonly #cuts = new Set<string>();
  readonly #arrivals = new Map<string, number>();
  /** By log index: what was applied there, and the state after it, whoever applied it first. */
  readonly #commands = new Map<number, number>();
  readonly #hashes = new Map<number, string>();
  /** By member: terms are the leaders', each one's own. */
  readonly #leaders = new Map<number, MemberId>();
  readonly #owned = new Set<MemberId>();
  #members = 0;
  /** What went wrong where nobody catches. */
  failure: SimFailure | undefined;

  constructor(options: RaftManagersOptions) {
    this.options = options;
    const ids = Array.from({ length: options.founders }, () => this.newMemberId());
    const founding = foundingOf(ids);
    for (let at = 1; at <= options.machines; at++) {
      const place = new RaftPlace(this, `manager${at}`);
      this.places.push(place);
      const id = ids[at - 1];
      if (id !== undefined) place.own(id, founding);
    }
  }

  newMemberId(): MemberId {
    return ++this.#members;
  }

  /** Who leads the newest term, with all that was committed before applied. */
  leader(): RaftPlace | undefined {
    let found: RaftPlace | undefined;
    for (const place of this.places)
      if (place.leadership.leading && (found === undefined || place.leadership.term > found.leadership.term))
        found = place;
    return found;
  }

  /** Whether that member had a disk once. */
  wasOwned(id: MemberId): boolean {
    return this.#owned.has(id);
  }

  owned(id: MemberId): void {
    this.#owned.add(id);
  }

  /** Whether that member was taken out, and can never be one again. */
  isBuried(id: MemberId): boolean {
    return this.places.some((place) => place.buried(id));
  }

  placeOf(id: MemberId): RaftPlace | undefined {
    return this.places.find(({ memberId }) => memberId === id);
  }

  // ------------------------------------------------------------------------------------------------------------ network

  cut(one: string, other: string): void {
    this.#cuts.add(pairOf(one, other));
  }

  heal(): void {
    this.#cuts.clear();
  }

  isCut(one: string, other: string): boolean {
    return this.#cuts.has(pairOf(one, other));
  }

  /** In order between two, as a stream; what is under way is lost when it is cut. */
  carry(from: RaftPlace, to: RaftPlace | undefined, arrive: () => void, lost: () => void): void {
    const { clock, random, linkMs } = this.options;
    const nowMs = clock.monotonicMs();
    if (to === undefined) return void clock.after(1, lost);
    const key = `${from.name} ${to.name}`;
    const atMs = Math.max(nowMs + random.float() * linkMs, this.#arrivals.get(key) ?? 0);
    this.#arrivals.set(key, atMs);
    clock.after(atMs - nowMs, () => {
      if (to.isUp && !this.isCut(from.name, to.name)) arrive();
      else lost();
    });
  }

  // ------------------------------------------------------------------------------------------------------------ checks

  /** @throws SimFailure if another member applied another command there */
  applied(name: string, index: number, data: Uint8Array): void {
    const content = crc32(data);
    const before = this.#commands.get(index);
    if (before === undefined) this.#commands.set(index, content);
    else if (before !== content) this.fail("L1", "two managers applied different entries", { name, index });
  }

  hashed(name: string, index: number, hash: string): void {
    const before = this.#hashes.get(index);
    if (before === undefined) this.#hashes.set(index, hash);
    else if (before !== hash) this.fail("L2", "the states of two managers differ", { name, index });
  }

  leads(name: string, id: MemberId, term: number): void {
    const before = this.#leaders.get(term);
    if (before !== undefined && before !== id) this.fail("B1", "two leaders of one term", { name, term });
    this.#leaders.set(term, id);
  }

  fail(check: string, what: string, facts: Readonly<Record<string, unknown>>): void {
    this.failure ??= new SimFailure(check, what, facts);
  }
}

/** One machine that may run a manager: its disk, and the life of its process. */
export class RaftPlace implements ManagerPlace {
  readonly name: string;
  readonly #group: RaftManagers;
  #disk: SimDisk | undefined;
  memberId: MemberId = 0;
  #starts = 0;
  #life = 0;
  #member: Member | undefined;
  #store: ObjectStore<ClusterSchema>;
  leadership: Leadership = { leading: false, term: 0, leader: undefined };
  #listeners = new Set<(leadership: Leadership) => void>();
  readonly #memberListeners = new Set<() => void>();
  readonly #jobs: { readonly job: Job; readonly done: (error: Error | undefined) => void }[] = [];
  isRemoved = false;
  isUp = false;
  /** What the next end of its process leaves of writes that are not durable. */
  nextLoss: Loss = "none";

  constructor(group: RaftManagers, name: string) {
    this.#group = group;
    this.name = name;
    this.#store = this.#newStore();
  }

  get store(): ObjectStore<ClusterSchema> {
    return this.#store;
  }

  /** It has a folder of its own and may be started. */
  get isMember(): boolean {
    return this.#disk !== undefined && !this.isRemoved;
  }

  get conf(): Member["conf"] | undefined {
    return this.#member?.conf;
  }

  get appliedIndex(): number {
    return this.#member?.appliedIndex ?? 0;
  }

  /** Gets a disk as that member. */
  own(id: MemberId, founding: Founding = { meta: joinerState().snapshot, source: undefined }): void {
    this.#group.owned(id);
    this.memberId = id;
    this.#starts = 0;
    this.isRemoved = false;
    const { seed } = this.#group.options;
    this.#disk = new SimDisk(id, { seed, cipher: "plain", segmentBytes: 65_536 }, founding);
  }

  /** As a daemon does it that is a worker's by now. */
  wipe(): void {
    this.end();
    this.#disk = undefined;
    this.memberId = 0;
  }

  record(): MemberRecord {
    return {
      id: this.memberId,
      address: this.name,
      nodeId: this.name,
      labels: {},
      autoPromote: true,
      featureLevel: supportedLevel,
      dataIncarnation: "",
    };
  }

  begin(): boolean {
    if (this.isUp || !this.isMember || this.#disk === undefined) return false;
    const opened = this.#disk.open();
    if (opened.kind !== "log") {
      this.#group.fail("N4", "a disk that only lost what was not durable cannot be opened", {
        name: this.name,
        why: opened.kind === "quarantine" ? opened.reason : opened.error.message,
      });
      return false;
    }
    const { clock, random } = this.#group.options;
    const life = ++this.#life;
    this.isUp = true;
    this.#jobs.length = 0;
    this.leadership = { leading: false, term: 0, leader: undefined };
    this.#listeners = new Set();
    const store = this.#newStore();
    this.#store = store;
    const { machine } = store;
    this.#member = new Member(
      {
        id: this.memberId,
        seed: random.uint32(),
        startNumber: ++this.#starts,
        timings,
        limits: {
          ...defaultLimits,
          snapshotLogEntriesMax: this.#group.options.snapshotEntries,
          trailingEntries: 20,
          trailingBytes: 0,
          trailingLiveBytesMax: 0,
          promoteLagEntriesMax: 4,
        },
        leaseReads: false,
      },
      opened.recovered,
      {
        storage: this.#storage(life),
        snapshots: this.#snapshots(life),
        transport: this.#transport(life),
        stateMachine: {
          apply: (index, data) => {
            this.#group.applied(this.name, index, data);
            const result = machine.apply(index, data);
            if (index % 16 === 0) this.#group.hashed(this.name, index, machine.stateHash());
            return result;
          },
          snapshot: () => machine.snapshot(),
          restore: () => machine.restore(),
          stateHash: () => machine.stateHash(),
        },
        scheduler: {
          defer: (turn) => this.#later(life, 0, turn),
          nowMs: () => clock.monotonicMs(),
        },
      },
      this.#events(life),
    );
    store.attach(this.#log(life, this.#member));
    this.#member.start();
    this.#tick(life);
    return true;
  }

  /** The process is gone, and nothing that it has not made durable is sure. */
  end(): void {
    if (!this.isUp) return;
    const loss = this.nextLoss;
    this.nextLoss = "none";
    this.isUp = false;
    this.#life++;
    this.#member = undefined;
    this.leadership = { leading: false, term: 0, leader: undefined };
    this.#listeners.clear();
    this.#memberListeners.clear();
    this.#disk?.crash(
      this.#jobs.map(({ job }) => job),
      loss,
      this.#group.options.random,
    );
    this.#jobs.length = 0;
  }

  /** Whether that member is in the table of this one. */
  knows(id: MemberId): boolean | undefined {
    return this.#member === undefined ? undefined : this.#member.table.get(id) !== undefined;
  }

  buried(id: MemberId): boolean {
    return this.#member?.table.isRemoved(id) ?? false;
  }

  handOver(): void {
    this.#member?.transfer(undefined, () => {});
  }

  addLearner(record: MemberRecord): void {
    if (this.#member?.table.get(record.id) !== undefined) return;
    this.#member?.changeMembers(
      { steps: [{ act: "addLearner", member: record.id }], records: [record], force: false },
      () => {},
    );
  }

  /** Consensus as the role manager needs it; of this life. */
  get members(): Members {
    const life = this.#life;
    const { clock } = this.#group.options;
    const member = (): Member | undefined => (life === this.#life ? this.#member : undefined);
    const change = (steps: readonly ConfChangeStep[], done: (error: Error | undefined) => void): void => {
      const live = member();
      if (live === undefined) return;
      const settled = (outcome: ChangeOutcome): void => {
        if (life !== this.#life) return;
        const error = outcome.kind === "refused" ? outcome.error : new Error(outcome.kind);
        clock.after(0, () => {
          if (life === this.#life) done(outcome.kind === "changed" ? undefined : error);
        });
      };
      live.changeMembers({ steps, records: [], force: false }, settled);
    };
    return {
      self: this.memberId,
      list: () => {
        const live = member();
        if (live === undefined || live.state === "starting") return [];
        const { leader, peers } = live.status();
        return live.table.list().map(({ id, nodeId, address }) => ({
          id,
          nodeId,
          address,
          leader: id === leader,
          reachable: id === this.memberId || (peers.get(id)?.recentActive ?? false),
        }));
      },
      wasRemoved: (id) => member()?.table.isRemoved(id) ?? false,
      remove: (id, done) => change([{ act: "remove", member: id }], done),
      handOver: (done) => {
        member()?.transfer(undefined, (outcome) => {
          clock.after(0, () => {
            if (life === this.#life) done(outcome.kind === "transferred" ? undefined : new Error(outcome.kind));
          });
        });
      },
      onChange: (listener) => {
        this.#memberListeners.add(listener);
        return () => void this.#memberListeners.delete(listener);
      },
    };
  }

  // ------------------------------------------------------------------------------------------------------------- ports

  #newStore(): ObjectStore<ClusterSchema> {
    return new ObjectStore({
      schema: clusterSchema,
      nowUs: () => this.#group.options.clock.wallMs() * 1000,
      member: this.memberId,
      onHashDisputed: (report) => this.#group.fail("L2", "managers dispute a state", { ...report }),
    });
  }

  #later(life: number, ms: number, act: () => void): void {
    this.#group.options.clock.after(ms, () => {
      if (life === this.#life) act();
    });
  }

  #tick(life: number): void {
    this.#later(life, timings.tickMs, () => {
      this.#member?.elapsed();
      this.#tick(life);
    });
  }

  /** The log as the store has it; raft.ts does the same in production. */
  #log(life: number, member: Member): ReplicatedLog {
    const { clock } = this.#group.options;
    const isLive = (): boolean => life === this.#life;
    const addressOf = (id: MemberId): string | undefined => member.table.get(id)?.address;
    return {
      propose: (data, done) => {
        let inside = true;
        member.propose(data, (outcome) => {
          if (!isLive()) return;
          const tell = (): void => {
            switch (outcome.kind) {
              case "committed":
                return done({ kind: "committed", index: outcome.index, result: outcome.result });
              case "failed":
                return done({ kind: "notLeader", leader: this.leadership.leader });
              case "notLeader":
                return done({ kind: "notLeader", leader: addressOf(outcome.leader) });
              case "unknown":
                return done({ kind: "unknown", cause: "leadership was lost before the entry was applied here" });
              case "backpressure":
                return done(outcome);
              case "stopped":
                return done(outcome);
              case "tooLarge":
                return this.#group.fail("J3", "an entry is too large", { ...outcome });
            }
          };
          if (inside) queueMicrotask(tell);
          else tell();
        });
        inside = false;
      },
      readIndex: (done) => {
        const untilMs = clock.monotonicMs() + readPatienceMs;
        const ask = (): void => {
          if (!isLive()) return;
          member.readIndex((outcome) => {
            if (!isLive()) return;
            if (outcome.kind === "ready") return done({ kind: "applied", index: outcome.index });
            if (outcome.kind === "stopped") return queueMicrotask(() => done({ kind: "stopped" }));
            if (clock.monotonicMs() > untilMs) return done({ kind: "notLeader", leader: this.leadership.leader });
            this.#later(life, retryMs, ask);
          });
        };
        ask();
      },
      forward: (data) => this.#forward(life, member.leader, data),
      leadership: () => this.leadership,
      onLeadership: (listener) => {
        this.#listeners.add(listener);
        return () => void this.#listeners.delete(listener);
      },
    };
  }

  #forward(life: number, to: MemberId, data: Uint8Array): void {
    if (life !== this.#life || to === 0) return;
    const place = this.#group.placeOf(to);
    this.#group.carry(
      this,
      place,
      () => place?.receiveForwarded(data),
      () => {},
    );
  }

  receiveForwarded(data: Uint8Array): void {
    this.#member?.receiveForwarded(data);
  }

  #transport(life: number): Transport {
    return {
      send: (message) => {
        if (life === this.#life) this.#send(life, message);
      },
      sendSnapshot: (request, done) => {
        if (life === this.#life) this.#sendSnapshot(life, request, done);
      },
      forward: (to, data) => this.#forward(life, to, data),
    };
  }

  #send(life: number, message: Message): void {
    const to = this.#group.placeOf(message.to);
    this.#group.carry(
      this,
      to,
      // Another member may live on that machine by now.
      () => {
        if (to?.memberId === message.to) to.#member?.receive(message);
      },
      () => {
        if (life === this.#life) this.#member?.unreachable(message.to);
      },
    );
  }

  #sendSnapshot(life: number, request: SnapshotRequest, done: (error: Error | undefined) => void): void {
    const to = this.#group.placeOf(request.to);
    const tell = (error: Error | undefined): void => {
      if (life === this.#life) done(error);
    };
    const broke = (): void => tell(new Error("the stream broke"));
    const arrive = (): void => {
      if (life !== this.#life || to?.memberId !== request.to || to.#disk === undefined) return broke();
      let reader;
      try {
        reader = this.#disk?.openReader(request.meta);
        if (reader === undefined) return broke();
        const spool = to.#disk.openSpool(request.from, reader.offer);
        while (spool.nextChunk < reader.offer.chunks) spool.write(reader.chunk(spool.nextChunk));
        spool.finish();
      } catch (error) {
        if (!(error instanceof Error && "code" in error)) throw error;
        return tell(error);
      } finally {
        reader?.close();
      }
      to.#member?.receive(request);
      tell(undefined);
    };
    this.#group.carry(this, to, arrive, broke);
  }

  #storage(life: number): LogStorage {
    const queue = (job: Job, done: (error: Error | undefined) => void): void => {
      if (life !== this.#life) return;
      this.#jobs.push({ job, done });
      if (this.#jobs.length === 1) this.#runJob(life);
    };
    return {
      save: (batch, done) => queue({ kind: "save", batch }, done),
      reset: (meta, hardState, done) => queue({ kind: "reset", meta, hardState }, done),
      compact: (index) => queue({ kind: "compact", index }, () => {}),
    };
  }

  #runJob(life: number): void {
    const { random, diskMs } = this.#group.options;
    this.#later(life, random.float() * diskMs, () => {
      const next = this.#jobs[0];
      if (next === undefined) return;
      const failure = this.#disk?.run(next.job);
      this.#jobs.shift();
      if (this.#jobs.length > 0) this.#runJob(life);
      next.done(failure === "full" ? new Error("the disk is full") : failure);
    });
  }

  #snapshots(life: number): SnapshotStore {
    const { random, diskMs } = this.#group.options;
    const waitMs = (): number => random.float() * diskMs;
    return {
      create: (meta, source, done) => {
        this.#later(life, waitMs(), () => {
          const disk = this.#disk;
          if (disk === undefined) return;
          const writer = disk.beginSnapshot(meta);
          for (let chunk = source.next(sliceBytes); chunk !== undefined; chunk = source.next(sliceBytes))
            writer.write(chunk);
          disk.completed(writer);
          this.#later(life, waitMs(), () => done(undefined, disk.finishSnapshot(writer, meta)));
        });
      },
      load: (meta, sink, done) => {
        this.#later(life, waitMs(), () => {
          this.#disk?.loadSnapshot(meta, sink);
          done(undefined);
        });
      },
    };
  }

  #events(life: number): MemberEvents {
    const isLive = (): boolean => life === this.#life;
    return {
      leadership: ({ role, term, leader, ready }) => {
        if (!isLive()) return;
        if (role === "leader") this.#group.leads(this.name, this.memberId, term);
        const address = leader === 0 ? undefined : this.#member?.table.get(leader)?.address;
        const now: Leadership = { leading: ready, term, leader: address };
        this.leadership = now;
        // Listeners may call back: never inside the member's turn.
        queueMicrotask(() => {
          if (isLive()) for (const listener of this.#listeners) listener(now);
        });
      },
      membership: () =>
        queueMicrotask(() => {
          if (isLive()) for (const listener of this.#memberListeners) listener();
        }),
      applied: () => {},
      quarantined: (reason, facts) => {
        if (isLive()) this.#group.fail("L3", `a manager is quarantined: ${reason}`, { name: this.name, ...facts });
      },
      removed: () => {
        if (isLive()) this.isRemoved = true;
      },
      fatal: (error) => {
        if (isLive()) this.#group.fail("L4", `a manager ended: ${error.message}`, { name: this.name });
      },
      noticed: () => {},
      measured: () => {},
    };
  }
}

function foundingOf(ids: readonly MemberId[]): Founding {
  const { snapshot } = bootstrapState(ids);
  const records = ids.map((id, at) => ({
    id,
    address: `manager${at + 1}`,
    nodeId: `manager${at + 1}`,
    labels: {},
    autoPromote: true,
    featureLevel: supportedLevel,
    dataIncarnation: "",
  }));
  const empty = new ObjectStore({ schema: clusterSchema, nowUs: () => 0, member: ids[0] ?? 0 });
  return {
    meta: snapshot,
    source: () => new TableThenState(snapshot.index, new MemberTable(records), empty.machine.snapshot()),
  };
}

function pairOf(one: string, other: string): string {
  return one < other ? `${one} ${other}` : `${other} ${one}`;
}
