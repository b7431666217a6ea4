/**
 * Transport: carries messages, snapshots and forwarded requests between the members of one cluster.
 * Uses:  ports.ts, core/types.ts, proto, lib.   Used by: the raft driver.   Design: docs/design/transport.md
 */
export type {
  ForwardOptions,
  ForwardOutcome,
  LocalMember,
  MemberAddress,
  PeerMetrics,
  RaftTransport,
  RemoteMember,
  Standing,
  TransportHandlers,
} from "./types.ts";
