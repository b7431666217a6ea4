/** The transport's bounds and timings, with raft.md §1 rows 15, 18, 19 and §3.1 as defaults. */

export interface TransportLimits {
  /**
   * Handed over for one peer's appends and not yet taken by its connection; beyond it they are dropped. More than the
   * core keeps in flight (8 MiB, counted without the frames around it), or what the core may send would be dropped here.
   */
  readonly dataBytesMax: number;
  /** The same for small messages: more than a second's worth of them means that nothing gets through. */
  readonly controlBytesMax: number;
  /** From dialling until the peer has answered the hello. */
  readonly handshakeTimeoutMs: number;
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
  /** Heartbeats or appends without any message back for this long: the streams are given up and dialled anew. */
  readonly silentMsMax: number;
  /** Unacknowledged chunks of a snapshot on their way. */
  readonly snapshotWindow: number;
  /** Infinity for no limit. */
  readonly snapshotBytesPerSecond: number;
  /** A transfer is given up when the other end has not taken a chunk for this long. */
  readonly snapshotStallMsMax: number;
  /** Connections in a row that may break without a chunk getting through, before a transfer fails. */
  readonly snapshotAttemptsMax: number;
  /** Forwarded requests without an answer yet, per peer. */
  readonly forwardedMax: number;
  readonly forwardedBytesMax: number;
  /** A forward stream without requests is closed after this. */
  readonly forwardIdleMs: number;
}

const mebibyte = 1024 * 1024;

export const defaultTransportLimits: TransportLimits = {
  dataBytesMax: 10 * mebibyte,
  controlBytesMax: mebibyte / 4,
  handshakeTimeoutMs: 1000,
  reconnectMinMs: 50,
  reconnectMaxMs: 1000,
  silentMsMax: 800,
  snapshotWindow: 4,
  snapshotBytesPerSecond: 50_000_000,
  snapshotStallMsMax: 10_000,
  snapshotAttemptsMax: 5,
  forwardedMax: 10_000,
  forwardedBytesMax: 8 * mebibyte,
  forwardIdleMs: 60_000,
};

/** The largest frame: one append of 512 KiB, or of a single entry of 1 MiB, with room to spare. */
export const raftMessageBytesMax = 4 * mebibyte;
