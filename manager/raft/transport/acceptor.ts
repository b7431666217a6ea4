/**
 * The serving end of the four streams: hears the hello, checks it against the certificate, answers, and hands what follows
 * to the one whose stream it is. One stream of a kind and member at a time: a newer one takes the older one's place, so
 * that a half-open connection does not hold its place for long.
 */
import { CertificateExpired, signStatement, type TlsIdentity } from "../../../lib/pki/index.ts";
import { ClusterError } from "../../../lib/pure/errors.ts";
import type { RpcServer, RpcStream } from "../../../lib/rpc/index.ts";
import type { Clock } from "../../../lib/runtime/index.ts";
import { decodeFrame } from "./codec.ts";
import type { MemberId } from "../core/types.ts";
import { HandshakeExpected, PeerRemoved, StreamReplaced, TransportClosed } from "./errors.ts";
import { checkHello, protocol, refusalOf } from "./handshake.ts";
import type { Down, StreamMethod } from "./methods.ts";
import type { LocalMember, RemoteMember, Standing } from "./types.ts";

export interface IncomingEvents {
  /** May throw a ClusterError: the stream ends with it, and the peer is told. */
  message(bytes: Uint8Array): void;
  drain?(): void;
  closed(): void;
}

export interface AcceptorOptions {
  readonly local: LocalMember;
  readonly tls: TlsIdentity;
  readonly clock: Clock;
  readonly standing: (peer: RemoteMember) => Standing;
  /** A stream was refused: for the log. */
  readonly refused: (peer: MemberId | undefined, error: ClusterError) => void;
}

interface Live {
  readonly peer: RemoteMember;
  /** When its certificate ends. */
  readonly notAfterMs: number;
  readonly end: (error: ClusterError) => void;
}

/** Longer than the dialling end waits: whoever is slower than that has gone. */
const helloTimeoutMs = 5000;
const helloBytesMax = 4096;

/** What a member signs when it tells a removed one so. */
export const removedStatement = "raft member removed";

export class Acceptor implements Disposable {
  readonly #options: AcceptorOptions;
  readonly #live = new Map<string, Live>();
  readonly #greeting = new Set<(error: ClusterError) => void>();
  #closed = false;

  constructor(options: AcceptorOptions) {
    this.#options = options;
  }

  /** Serves one kind of stream. `open` is called for each that has been accepted. */
  serve<D extends Down>(
    server: RpcServer,
    method: StreamMethod<D>,
    open: (peer: RemoteMember, stream: RpcStream<D>) => IncomingEvents,
  ): void {
    server.bidi(method, (stream) => {
      let events: IncomingEvents | undefined;
      let key: string | undefined;
      let over = false;
      // Both kinds of answer stand in every Down message under the same names.
      const end = (error: ClusterError): void => {
        if (over) return;
        over = true;
        timer.cancel();
        this.#greeting.delete(end);
        stream.write({ refused: refusalOf(error, this.#statementFor(error, stream.peer?.identity.memberId)) } as D);
        stream.end();
        release();
      };
      const release = (): void => {
        if (key !== undefined && this.#live.get(key) === live) this.#live.delete(key);
        key = undefined;
        const ended = events;
        events = undefined;
        ended?.closed();
      };
      let live: Live | undefined;
      const timer = this.#options.clock.after(helloTimeoutMs, () =>
        end(new HandshakeExpected("no hello came in time")),
      );
      this.#greeting.add(end);
      const greet = (bytes: Uint8Array): void => {
        try {
          if (this.#closed) throw new TransportClosed();
          const peer = this.#check(bytes, stream);
          timer.cancel();
          this.#greeting.delete(end);
          key = `${method.path} ${peer.id}`;
          this.#live.get(key)?.end(new StreamReplaced(peer.id));
          live = { peer, notAfterMs: stream.peer?.notAfterMs ?? 0, end };
          this.#live.set(key, live);
          stream.write({ accepted: { protocol } } as D);
          events = open(peer, stream);
        } catch (error) {
          if (!(error instanceof ClusterError)) throw error;
          this.#options.refused(stream.peer?.identity.memberId, error);
          end(error);
        }
      };
      return {
        message: (bytes) => {
          if (events !== undefined) events.message(bytes);
          else if (!over && key === undefined) greet(bytes);
        },
        drain: () => events?.drain?.(),
        finished: () => {
          over = true;
          stream.end();
        },
        closed: () => {
          over = true;
          timer.cancel();
          this.#greeting.delete(end);
          release();
        },
      };
    });
  }

  /** Whether `peer` has a stream of this kind open to us. */
  has(method: { readonly path: string }, peer: MemberId): boolean {
    return this.#live.has(`${method.path} ${peer}`);
  }

  /** Membership has changed: streams of those who may not talk to us any more are ended, and they are told why. */
  recheck(): void {
    for (const { peer, end } of this.#live.values()) {
      const standing = this.#options.standing(peer);
      if (standing === "removed") end(new PeerRemoved(peer.id));
    }
  }

  /** Ends streams that have outlived the certificate with which they were opened; a renewed one opens the next. */
  endExpired(): void {
    const nowMs = this.#options.clock.wallMs();
    for (const { notAfterMs, end } of this.#live.values()) {
      if (nowMs > notAfterMs) end(new CertificateExpired("the certificate of the stream", notAfterMs));
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    for (const end of this.#greeting) end(new TransportClosed());
    for (const { end } of this.#live.values()) end(new TransportClosed());
  }

  #check(bytes: Uint8Array, stream: { readonly peer: RpcStream<unknown>["peer"] }): RemoteMember {
    const { local } = this.#options;
    if (bytes.length > helloBytesMax) throw new HandshakeExpected(`its first message has ${bytes.length} bytes`);
    const decoded = decodeFrame(bytes, 0, local.id);
    if (decoded.kind !== "hello") throw new HandshakeExpected("its first message is not a hello");
    return checkHello(decoded.hello, stream.peer, local, this.#options.standing);
  }

  /** To be believed by a member that cannot ask the cluster any more: it holds no address that is not stale. */
  #statementFor(error: ClusterError, subject: MemberId | undefined): Uint8Array | undefined {
    if (!(error instanceof PeerRemoved)) return undefined;
    const { local, tls, clock } = this.#options;
    const { clusterId } = local;
    return signStatement(
      { kind: removedStatement, clusterId, subject: String(subject), issuedMs: clock.wallMs() },
      tls,
    );
  }
}
