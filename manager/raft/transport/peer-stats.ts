/** What is counted of one peer (PeerMetrics), and what follows from heartbeats and their answers. */
import type { Message } from "../core/types.ts";
import type { PeerMetrics } from "./types.ts";

/** Heartbeats whose answer may still come. */
const roundsRemembered = 16;
/** Weight of the newest round trip, as TCP's (RFC 6298). */
const rttWeight = 1 / 8;

export class PeerStats {
  streamResets = 0;
  connectFailures = 0;
  lastError: string | undefined;
  messagesSent = 0;
  messagesReceived = 0;
  bytesSent = 0;
  bytesReceived = 0;
  messagesDropped = 0;
  messagesUnknown = 0;
  messagesMalformed = 0;
  snapshotBytesSent = 0;
  snapshotBytesReceived = 0;
  snapshotThrottledMs = 0;
  #rttMs: number | undefined;
  #heardMs: number | undefined;
  /** When the first message left that has to be answered, since anything came back. */
  #awaitingSinceMs: number | undefined;
  readonly #rounds = new Map<number, number>();

  sent(message: Message, bytes: number, nowMs: number): void {
    this.messagesSent++;
    this.bytesSent += bytes;
    if (message.type !== "heartbeat" && message.type !== "append") return;
    if (message.type === "heartbeat" && message.unanswered === true) return;
    this.#awaitingSinceMs ??= nowMs;
    if (message.type !== "heartbeat") return;
    this.#rounds.set(message.round, nowMs);
    for (const oldest of this.#rounds.keys()) {
      if (this.#rounds.size <= roundsRemembered) break;
      this.#rounds.delete(oldest);
    }
  }

  received(message: Message, bytes: number, nowMs: number): void {
    this.heard(bytes, nowMs);
    if (message.type !== "heartbeatResponse") return;
    const sentMs = this.#rounds.get(message.round);
    if (sentMs === undefined) return;
    this.#rounds.delete(message.round);
    const rttMs = nowMs - sentMs;
    this.#rttMs = this.#rttMs === undefined ? rttMs : this.#rttMs + rttWeight * (rttMs - this.#rttMs);
  }

  /** Anything at all came from the peer. */
  heard(bytes: number, nowMs: number): void {
    this.messagesReceived++;
    this.bytesReceived += bytes;
    this.#heardMs = nowMs;
    this.#awaitingSinceMs = undefined;
  }

  /** How long an answer has been due; 0 if none is. */
  silentMs(nowMs: number): number {
    return this.#awaitingSinceMs === undefined ? 0 : nowMs - this.#awaitingSinceMs;
  }

  /** Starts the wait anew: the streams are new, or this process was asleep itself. */
  forgive(): void {
    this.#awaitingSinceMs = undefined;
  }

  read(now: { readonly connected: boolean; readonly queuedBytes: number; readonly nowMs: number }): PeerMetrics {
    return {
      connected: now.connected,
      queuedBytes: now.queuedBytes,
      rttMs: this.#rttMs,
      lastHeardMs: this.#heardMs === undefined ? undefined : now.nowMs - this.#heardMs,
      streamResets: this.streamResets,
      connectFailures: this.connectFailures,
      lastError: this.lastError,
      messagesSent: this.messagesSent,
      messagesReceived: this.messagesReceived,
      bytesSent: this.bytesSent,
      bytesReceived: this.bytesReceived,
      messagesDropped: this.messagesDropped,
      messagesUnknown: this.messagesUnknown,
      messagesMalformed: this.messagesMalformed,
      snapshotBytesSent: this.snapshotBytesSent,
      snapshotBytesReceived: this.snapshotBytesReceived,
      snapshotThrottledSeconds: this.snapshotThrottledMs / 1000,
    };
  }
}
