/** Why a peer is not served, or does not serve us. The code travels in the answer to the hello. */
import { ClusterError } from "../../../lib/pure/errors.ts";
import type { MemberId } from "../core/types.ts";

const reinstall = "Check that both managers run compatible releases";

export class WrongCluster extends ClusterError {
  readonly code = "RAFT_WRONG_CLUSTER";
  constructor(theirs: string, ours: string) {
    super(`Cannot accept the member: it belongs to cluster "${theirs.slice(0, 64)}", this is "${ours}"`, {
      fix: "Give each cluster addresses of its own; this one belongs to another cluster",
    });
  }
}

export class WrongClusterIncarnation extends ClusterError {
  readonly code = "RAFT_WRONG_INCARNATION";
  constructor(theirs: number, ours: number) {
    super(`Cannot accept the member: it is of incarnation ${theirs} of this cluster, which is now at ${ours}`, {
      fix: "The cluster was re-formed without this manager: join it again with an empty data folder",
    });
  }
}

/** What the hello claims is not what the certificate says. */
export class WrongSender extends ClusterError {
  readonly code = "RAFT_WRONG_SENDER";
  constructor(claimed: MemberId, certified: MemberId | undefined) {
    super(`Cannot accept the member: it claims to be ${claimed}, its certificate says ${certified ?? "no member"}`, {
      fix: "Start the manager with the certificate and the data folder of the same node",
    });
  }
}

export class WrongReceiver extends ClusterError {
  readonly code = "RAFT_WRONG_RECEIVER";
  constructor(meant: MemberId, ours: MemberId) {
    super(`Cannot accept the stream: it is meant for member ${meant}, this is ${ours}`, {
      fix: "Two managers were given the same address, or one has moved: correct its advertised address",
    });
  }
}

export class ProtocolUnsupported extends ClusterError {
  readonly code = "RAFT_PROTOCOL_UNSUPPORTED";
  constructor(theirs: number, ours: number) {
    super(`Cannot accept the member: it speaks protocol ${theirs}, this one ${ours}`, { fix: reinstall });
  }
}

export class HandshakeExpected extends ClusterError {
  readonly code = "RAFT_HANDSHAKE_EXPECTED";
  constructor(found: string) {
    super(`Cannot accept the stream: ${found}`, { fix: reinstall });
  }
}

export class HandshakeTimeout extends ClusterError {
  readonly code = "RAFT_HANDSHAKE_TIMEOUT";
  constructor(address: string, timeoutMs: number) {
    super(`Cannot reach the member at ${address}: no answer in ${timeoutMs} ms`, {
      fix: "Check that the host is up and reachable at this address and port",
    });
  }
}

export class PeerRemoved extends ClusterError {
  readonly code = "RAFT_PEER_REMOVED";
  constructor(id: MemberId) {
    super(`Cannot accept member ${id}: it has been removed from the cluster`, {
      fix: "Move its data folder away and let the node join again; the old member is never let in",
    });
  }
}

export class PeerReplaced extends ClusterError {
  readonly code = "RAFT_PEER_REPLACED";
  constructor(id: MemberId) {
    super(`Cannot accept member ${id}: its data folder is not the one that it joined with`, {
      fix: "Bring the old data folder back, or remove the member and let the node join as a new one",
    });
  }
}

export class PeerUnknown extends ClusterError {
  readonly code = "RAFT_PEER_UNKNOWN";
  constructor(id: MemberId) {
    super(`Cannot accept member ${id}: the cluster has no such member`, {
      fix: "Wait until the join is complete; if it goes on, join the node again",
    });
  }
}

/** The stream to a peer is given up because nothing came back, although something should have. */
export class PeerSilent extends ClusterError {
  readonly code = "RAFT_PEER_SILENT";
  constructor(id: MemberId, silentMs: number) {
    super(`Cannot go on with member ${id}: no answer for ${Math.round(silentMs)} ms`, {
      fix: "Check the network between the two hosts in both directions, and how busy the other one is",
    });
  }
}

/** A newer stream of the same kind from the same member has taken the place of this one. */
export class StreamReplaced extends ClusterError {
  readonly code = "RAFT_STREAM_REPLACED";
  constructor(id: MemberId) {
    super(`Cannot go on with this stream: member ${id} has opened a newer one`, {
      fix: "None needed: the newer stream serves",
    });
  }
}

export class NotConnected extends ClusterError {
  readonly code = "RAFT_NOT_CONNECTED";
  constructor(id: MemberId) {
    super(`Cannot send to member ${id}: there is no connection to it`, {
      fix: "Check that the manager is up; it is dialled again all the time",
    });
  }
}

/** One snapshot at a time leaves a leader, and one arrives at a follower. */
export class SnapshotBusy extends ClusterError {
  readonly code = "RAFT_SNAPSHOT_BUSY";
  constructor(found: string) {
    super(`Cannot transfer the snapshot now: ${found}`, { fix: "None needed: it is tried again" });
  }
}

export class SnapshotStalled extends ClusterError {
  readonly code = "RAFT_SNAPSHOT_STALLED";
  constructor(stalledMs: number) {
    super(`Cannot finish the snapshot: the other end has not taken a chunk for ${Math.round(stalledMs)} ms`, {
      fix: "Check the disk and the network of the receiving manager; the transfer resumes where it stopped",
    });
  }
}

export class TransportClosed extends ClusterError {
  readonly code = "RAFT_TRANSPORT_CLOSED";
  constructor() {
    super("Cannot send: the transport is closed", { fix: "Start the manager again" });
  }
}
