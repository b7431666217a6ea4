/**
 * Transport: carries messages, snapshots and forwarded requests between the members of one cluster.
 * In:    messages of the core, snapshots, requests for the leader.   Out: the same at the other member, or a report of loss.
 * grpc-transport    between processes: mutual TLS, a control and a data connection to each peer (peer, link, session),
 *                   the serving end (acceptor, handshake), snapshots (snapshot-sender, snapshot-receiver), requests for
 *                   the leader (forwarder, forward-service)
 * memory-transport  within one process; the same conformance suite
 * Uses:  ports.ts, core/types.ts, snapshot/transfer.ts, proto, lib.   Used by: the manager process, tests.
 * Design: docs/design/transport.md
 */
export { GrpcTransport, type GrpcTransportOptions } from "./grpc-transport.ts";
export { defaultTransportLimits, limitsOfDistance, raftMessageBytesMax, type TransportLimits } from "./limits.ts";
export { raftMethods } from "./methods.ts";
export { MemoryNetwork, type MemoryNetworkOptions } from "./memory-transport.ts";
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
