/**
 * Consensus in numbers for Prometheus (raft.md §3.4). Counters and histograms are fed as things happen; gauges are read
 * from the status when somebody looks, so that nothing is computed for nobody.
 */
import { Counter, Gauge, Registry } from "prom-client";

import type { LoopWindow } from "./event-loop.ts";
import { LightHistogram, registerCounted } from "./light-histogram.ts";
import type { Measure, MemberState, MemberStatus, Notice } from "./member.ts";
import { noLog, type LogStatus } from "./wal/status.ts";
import { syncBoundsSeconds } from "./wal/sync-times.ts";

export interface PeerTraffic {
  readonly connected: boolean;
  readonly rttMs: number | undefined;
  readonly lastHeardMs: number | undefined;
  readonly streamResets: number;
  readonly messagesDropped: number;
  readonly messagesUnknown: number;
  readonly messagesMalformed: number;
  readonly snapshotThrottledSeconds: number;
}

/** What is looked up at the moment of a scrape. */
export interface MetricsSource {
  state(): MemberState;
  status(): MemberStatus | undefined;
  log(): LogStatus;
  loop(): LoopWindow;
  peers(): ReadonlyMap<number, PeerTraffic>;
}

const latencySeconds = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const inMs = new Set<Measure>(["proposeToCommitMs", "commitToApplyMs", "persistMs", "readMs", "stallMs"]);
const roles = ["follower", "preCandidate", "candidate", "leader"] as const;
const states = ["starting", "running", "quarantined", "removed", "stopped"] as const;

export type ProposalEnd = "committed" | "failed" | "unknown" | "backpressure" | "notLeader" | "tooLarge" | "stopped";
/** "split": it ended without a winner before its time was over. */
export type ElectionEvent = "preVoteStarted" | "preVoteLost" | "started" | "won" | "lost" | "split";
/** Beside what a member notices: what was found when it was opened, and that it is not to be trusted. */
export type Event = Notice | "quarantined" | "snapshotDamaged";

export class RaftMetrics {
  readonly registry = new Registry();
  readonly #measures: Readonly<Record<Measure, LightHistogram>>;
  readonly #notices: Counter;
  readonly #elections: Counter;
  readonly #leaderChanges: Counter;
  readonly #snapshotSeconds: LightHistogram;
  readonly #ends: Record<ProposalEnd, number> = {
    committed: 0,
    failed: 0,
    unknown: 0,
    backpressure: 0,
    notLeader: 0,
    tooLarge: 0,
    stopped: 0,
  };

  constructor(source: MetricsSource) {
    const { registry } = this;
    const seconds = (name: string, help: string, bounds = latencySeconds): LightHistogram =>
      new LightHistogram({ name: `skep_raft_${name}`, help, bounds, registry });
    const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
      new Counter({ name: `skep_raft_${name}`, help, labelNames, registers: [registry] });

    this.#measures = {
      proposeToCommitMs: seconds(
        "propose_to_commit_seconds",
        "From a proposal's arrival to its commit, on the leader.",
      ),
      commitToApplyMs: seconds(
        "commit_to_apply_seconds",
        "From the commit of a page of entries to its end in the state.",
      ),
      persistMs: seconds("persist_seconds", "From a write's handing over to its durability, waiting included."),
      readMs: seconds("read_index_seconds", "From a read's arrival to its confirmation by a quorum."),
      stallMs: seconds("stall_seconds", "How long the process stood still, when it did for half an election timeout."),
      batchEntries: seconds(
        "batch_entries",
        "Proposals appended in one turn.",
        [1, 2, 5, 10, 20, 50, 100, 500, 1000, 4000],
      ),
      batchBytes: seconds(
        "batch_bytes",
        "Bytes of entries in one write.",
        [256, 1024, 4096, 16384, 65536, 262144, 1048576],
      ),
      readBatch: seconds("read_batch", "Reads confirmed by one request.", [1, 2, 5, 10, 50, 100, 1000]),
    };
    this.#notices = counter("events_total", "What was worth a line in the log, by kind.", ["kind"]);
    const proposals: Counter = new Counter({
      name: "skep_raft_proposals_total",
      help: "Proposals by how they ended.",
      labelNames: ["outcome"],
      registers: [registry],
      collect: () => {
        proposals.reset();
        for (const [outcome, count] of Object.entries(this.#ends)) proposals.inc({ outcome }, count);
      },
    });
    this.#elections = counter("elections_total", "Campaigns of this member.", ["event"]);
    this.#leaderChanges = counter("leader_changes_total", "Times that another member was seen leading.");
    this.#snapshotSeconds = seconds(
      "snapshot_seconds",
      "Time to write a snapshot.",
      [0.1, 0.5, 1, 2, 5, 10, 30, 60, 120],
    );
    this.#addGauges(source);
  }

  /** Of a manager whose log was not trusted when it was opened: it has no member, and somebody watches it all the same. */
  static ofQuarantined(): RaftMetrics {
    const metrics = new RaftMetrics({
      state: () => "quarantined",
      status: () => undefined,
      log: () => noLog,
      loop: () => ({ p50Ms: 0, p99Ms: 0, maxMs: 0, gcMaxMs: 0, gcCount: 0 }),
      peers: () => new Map(),
    });
    metrics.noticed("quarantined", {});
    return metrics;
  }

  measured(what: Measure, value: number): void {
    this.#measures[what].observe(inMs.has(what) ? value / 1000 : value);
  }

  noticed(what: Event, facts: Readonly<Record<string, unknown>>): void {
    this.#notices.inc({ kind: what });
    if (what === "snapshotCreated" && typeof facts["tookMs"] === "number") {
      this.#snapshotSeconds.observe(facts["tookMs"] / 1000);
    }
  }

  proposalEnded(outcome: ProposalEnd): void {
    this.#ends[outcome]++;
  }

  election(event: ElectionEvent): void {
    this.#elections.inc({ event });
  }

  leaderChanged(): void {
    this.#leaderChanges.inc();
  }

  #addGauges(source: MetricsSource): void {
    const gauge = (name: string, help: string, collect: (set: (value: number) => void) => void): void => {
      const made: Gauge = new Gauge({
        name: `skep_raft_${name}`,
        help,
        registers: [this.registry],
        collect: () => collect((value) => made.set(value)),
      });
    };
    const labelled = (
      name: string,
      help: string,
      labelNames: string[],
      collect: (set: (labels: Record<string, string>, value: number) => void) => void,
    ): void => {
      const made: Gauge = new Gauge({
        name: `skep_raft_${name}`,
        help,
        labelNames,
        registers: [this.registry],
        collect: () => {
          made.reset();
          collect((labels, value) => made.set(labels, value));
        },
      });
    };
    const ofStatus = (name: string, help: string, read: (status: MemberStatus) => number): void =>
      gauge(name, help, (set) => {
        const status = source.status();
        if (status !== undefined) set(read(status));
      });

    ofStatus("term", "Current term.", (status) => status.term);
    ofStatus("leader_id", "Member that leads, 0 if none is known.", (status) => status.leader);
    ofStatus("is_leader", "1 on the leader.", (status) => (status.role === "leader" ? 1 : 0));
    labelled("role", "1 for the role that this member has.", ["role"], (set) => {
      const now = source.status()?.role;
      for (const role of roles) set({ role }, role === now ? 1 : 0);
    });
    labelled("state", "1 for the state of this member.", ["state"], (set) => {
      const now = source.state();
      for (const state of states) set({ state }, state === now ? 1 : 0);
    });
    ofStatus("commit_index", "Last committed entry known here.", (status) => status.commit);
    ofStatus("applied_index", "Last entry in the state.", (status) => status.applied);
    ofStatus("first_index", "First entry still in the log.", (status) => status.firstIndex);
    ofStatus("last_index", "Last entry in the log.", (status) => status.lastIndex);
    ofStatus("durable_index", "Last entry known to be on disk.", (status) => status.durableIndex);
    ofStatus("log_memory_bytes", "Bytes of entries kept in memory.", (status) => status.logBytes);
    ofStatus("apply_lag_entries", "Committed entries not yet in the state.", (status) => status.applyLagEntries);
    ofStatus("apply_lag_bytes", "Bytes of committed entries not yet in the state.", (status) => status.applyLagBytes);
    ofStatus(
      "proposals_pending",
      "Proposals queued or waiting for their commit.",
      (status) => status.proposalsQueued + status.proposalsWaiting,
    );
    ofStatus("reads_pending", "Reads waiting for a quorum or for the state.", (status) => status.readsWaiting);
    ofStatus("snapshot_index", "Index of the newest snapshot.", (status) => status.snapshotIndex);
    ofStatus("snapshot_bytes", "Size of the newest snapshot that this member wrote.", (status) => status.snapshotBytes);

    const perPeer = (name: string, help: string, read: (peer: PeerOf) => number): void =>
      labelled(`peer_${name}`, help, ["peer"], (set) => {
        const status = source.status();
        for (const [id, progress] of status?.peers ?? []) {
          if (id !== status?.id) set({ peer: String(id) }, read(progress));
        }
      });
    perPeer("match_index", "Last entry known to be on the follower's disk.", (peer) => peer.match);
    perPeer("next_index", "Next entry that it is sent.", (peer) => peer.next);
    perPeer("inflight_messages", "Appends without an answer.", (peer) => peer.inflightMsgs);
    perPeer("inflight_bytes", "Bytes of appends without an answer.", (peer) => peer.inflightBytes);
    perPeer("active", "1 if it answered within the last election timeout.", (peer) => (peer.recentActive ? 1 : 0));
    labelled("peer_state", "1 for the state of replication to the follower.", ["peer", "state"], (set) => {
      const status = source.status();
      for (const [id, progress] of status?.peers ?? []) {
        if (id !== status?.id) set({ peer: String(id), state: progress.state }, 1);
      }
    });
    labelled("peer_round_trip_seconds", "Last round trip of a heartbeat.", ["peer"], (set) => {
      for (const [id, peer] of source.peers()) set({ peer: String(id) }, (peer.rttMs ?? 0) / 1000);
    });
    labelled("peer_last_heard_seconds", "Since the last message from the peer.", ["peer"], (set) => {
      for (const [id, peer] of source.peers()) {
        if (peer.lastHeardMs !== undefined) set({ peer: String(id) }, peer.lastHeardMs / 1000);
      }
    });
    labelled("peer_connected", "1 while both streams to the peer are up.", ["peer"], (set) => {
      for (const [id, peer] of source.peers()) set({ peer: String(id) }, peer.connected ? 1 : 0);
    });
    labelled(
      "peer_messages_refused",
      "Messages to the peer that were dropped, and from it that were unknown or malformed.",
      ["peer", "why"],
      (set) => {
        for (const [id, { messagesDropped, messagesUnknown, messagesMalformed }] of source.peers()) {
          const peer = String(id);
          set({ peer, why: "dropped" }, messagesDropped);
          set({ peer, why: "unknown" }, messagesUnknown);
          set({ peer, why: "malformed" }, messagesMalformed);
        }
      },
    );
    labelled(
      "peer_snapshot_throttled_seconds",
      "How long snapshots to it were held back by the rate limit.",
      ["peer"],
      (set) => {
        for (const [id, peer] of source.peers()) set({ peer: String(id) }, peer.snapshotThrottledSeconds);
      },
    );
    labelled("peer_stream_resets", "Times that the streams to the peer broke.", ["peer"], (set) => {
      for (const [id, peer] of source.peers()) set({ peer: String(id) }, peer.streamResets);
    });

    gauge("disk_stall_seconds", "How long the oldest write waits by now.", (set) =>
      set(source.log().oldestPendingMs / 1000),
    );
    gauge("disk_free_bytes", "Space left for the log.", (set) => set(source.log().freeBytes));
    gauge("log_disk_bytes", "Bytes of the log's files.", (set) => set(source.log().sizeBytes));
    gauge("data_keys", "Keys that the files need; more than one while a rotation is under way.", (set) =>
      set(source.log().dataKeys),
    );
    registerCounted({
      name: "skep_raft_fsync_seconds",
      help: "How long the disk took for each fdatasync of the log.",
      bounds: syncBoundsSeconds,
      registry: this.registry,
      read: () => {
        const { syncCounts, syncSecondsTotal } = source.log();
        return { counts: syncCounts, sum: syncSecondsTotal };
      },
    });
    labelled("event_loop_delay_seconds", "Delay of the event loop in the last ten seconds.", ["quantile"], (set) => {
      const { p50Ms, p99Ms, maxMs } = source.loop();
      set({ quantile: "0.5" }, p50Ms / 1000);
      set({ quantile: "0.99" }, p99Ms / 1000);
      set({ quantile: "1" }, maxMs / 1000);
    });
    gauge("gc_pause_seconds_max", "Longest pause for garbage collection in the last ten seconds.", (set) =>
      set(source.loop().gcMaxMs / 1000),
    );
  }
}

type PeerOf = MemberStatus["peers"] extends ReadonlyMap<number, infer Peer> ? Peer : never;
