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

const chunkBytesMax = mebibyte / 4;

/**
 * What the distance between the managers asks of their connections. The timings tell it: a heartbeat is at least three
 * round trips (raft.md §3.1). With the presets: silence of 0.8 or 6 s, and 50 MB/s on a round trip of 17 or 100 ms.
 * @returns limits of the transport, and the window that a manager's server should give on its streams
 */
export function limitsOfDistance(timings: { readonly heartbeatMs: number; readonly electionMs: number }): {
  readonly transport: Pick<TransportLimits, "silentMsMax" | "handshakeTimeoutMs" | "snapshotWindow">;
  readonly windowBytes: number;
} {
  const roundTripMs = timings.heartbeatMs / 3;
  const bytesUnderWay = Math.round((defaultTransportLimits.snapshotBytesPerSecond * roundTripMs) / 1000);
  const { handshakeTimeoutMs, snapshotWindow } = defaultTransportLimits;
  return {
    transport: {
      silentMsMax: 2 * timings.electionMs,
      // TCP, TLS, HTTP/2 and the hello are five round trips or more.
      handshakeTimeoutMs: Math.max(handshakeTimeoutMs, timings.electionMs),
      snapshotWindow: Math.max(snapshotWindow, Math.ceil(bytesUnderWay / chunkBytesMax)),
    },
    windowBytes: Math.max(mebibyte, bytesUnderWay),
  };
}

/** The largest frame: one append of 512 KiB, or of a single entry of 1 MiB, with room to spare. */
export const raftMessageBytesMax = 4 * mebibyte;
