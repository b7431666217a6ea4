/**
 * Channels: one HTTP/2 connection each to one node, mutual TLS, with connection attempts, keepalive and limits that fit a
 * cluster rather than the internet (grpc-js' own back-off is 1 s to 120 s).
 */
import { Client, Metadata, connectivityState, credentials, type ServiceError } from "@grpc/grpc-js";

import {
  readCertificate,
  type Certificate,
  type PeerExpectation,
  type Stranger,
  type TlsIdentity,
} from "../pki/index.ts";
import { ClusterError } from "../pure/errors.ts";
import { RpcUnavailable } from "./errors.ts";
import { asBuffer, type BidiMethod, type UnaryMethod } from "./method.ts";
import { OpenStreams } from "./open-streams.ts";
import { fromStatus } from "./status.ts";
import { CallerStream, type RpcStream, type StreamEvents } from "./stream.ts";

export interface ChannelOptions {
  /** HOST:PORT */
  readonly address: string;
  /** A node's, or a stranger's who wants to become one. */
  readonly tls: TlsIdentity | Stranger;
  /** Whom the certificate at the other end must name. */
  readonly expect: PeerExpectation;
  /** Largest message either way; 4 MiB unless said. */
  readonly messageBytesMax?: number;
  /** How much the other end may send ahead on one stream before this one reads; 64 KiB unless said. */
  readonly windowBytes?: number;
  /** How often it is asked whether it lives, by who has no better way to know; 1 s unless said. */
  readonly pingMs?: number;
  /** A connection whose other end does not answer a ping for so long is given up; 1 s unless said. */
  readonly silenceMs?: number;
  /** Calls that have failed for so long without a connection have it begun anew, by another client; 10 s unless said. */
  readonly anewMs?: number;
}

/** raft.md §3.1. Keepalive frees dead connections; whether a peer is alive is told by its answers. */
export const keepaliveMs = 1000;
const reconnectMinMs = 50;
const reconnectMaxMs = 1000;
/** Longer than any handshake takes that still comes to something. */
const anewDefaultMs = 10_000;
export const serverName = "swarm-manager";
export const messageBytesMaxDefault = 4 * 1024 * 1024;

/** Uses the certificate that is current when it is made: open a new one after a renewal, since connections reconnect. */
export class Channel implements Disposable {
  #client: Client;
  readonly #makeClient: () => Client;
  readonly #address: string;
  readonly #anewMs: number;
  readonly #streams = new OpenStreams();
  #refusal: ClusterError | undefined;
  /** By the process's own clock: the first of the failures in a row, since the client was made, that had no connection. */
  #failingSinceMs: number | undefined;
  #closed = false;

  constructor(options: ChannelOptions) {
    this.#address = options.address;
    this.#anewMs = options.anewMs ?? anewDefaultMs;
    const check = options.tls.serverCheck(options.expect);
    const secure = credentials.createFromSecureContext(options.tls.context, {
      ...("trustsAnybody" in options.tls && options.tls.trustsAnybody ? { rejectUnauthorized: false } : {}),
      // gRPC makes a text of this error; the typed one is kept for those who call.
      checkServerIdentity: (host, certificate) => {
        const error = check(host, certificate);
        this.#refusal = error instanceof ClusterError ? error : undefined;
        return error;
      },
    });
    const messageBytesMax = options.messageBytesMax ?? messageBytesMaxDefault;
    const settings = {
      // One connection of its own, not shared with other channels to the same address.
      "grpc.use_local_subchannel_pool": 1,
      "grpc.keepalive_time_ms": options.pingMs ?? keepaliveMs,
      "grpc.keepalive_timeout_ms": options.silenceMs ?? keepaliveMs,
      "grpc.keepalive_permit_without_calls": 1,
      "grpc.initial_reconnect_backoff_ms": reconnectMinMs,
      "grpc.max_reconnect_backoff_ms": reconnectMaxMs,
      "grpc.max_send_message_length": messageBytesMax,
      "grpc.max_receive_message_length": messageBytesMax,
      // TLS wants a name that is no address (RFC 6066 §3); which name does not matter, since serverCheck looks elsewhere.
      "grpc.ssl_target_name_override": serverName,
      // A proxy named in the environment is not for the traffic inside a cluster.
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0,
      "grpc.enable_channelz": 0,
      "grpc.service_config_disable_resolution": 1,
      ...(options.windowBytes === undefined ? {} : { "grpc-node.flow_control_window": options.windowBytes }),
    };
    this.#makeClient = () => new Client(options.address, secure, settings);
    this.#client = this.#makeClient();
  }

  get address(): string {
    return this.#address;
  }

  /** @throws what the other end answered, RpcUnavailable, RpcDeadlineExceeded, or the signal's reason */
  call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<Response> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => call.cancel();
      const client = this.#client;
      const call = client.makeUnaryRequest<Uint8Array, Buffer>(
        method.path,
        asBuffer,
        (bytes) => bytes,
        method.request.encode(request),
        new Metadata(),
        { deadline: Date.now() + options.timeoutMs },
        (error, response) => {
          signal.removeEventListener("abort", onAbort);
          if (error === null) this.#failingSinceMs = undefined;
          else if (!signal.aborted) this.#failed(client);
          if (signal.aborted) reject(signal.reason as Error);
          else if (error !== null) reject(this.#error(error, method.path));
          else {
            try {
              resolve(method.response.decode(response ?? Buffer.alloc(0)));
            } catch (malformed) {
              reject(malformed);
            }
          }
        },
      );
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Opens a stream. It ends when either end wants, when the connection breaks, or with the channel. */
  open<Request, Response>(
    method: BidiMethod<Request, Response>,
    events: StreamEvents<Response>,
  ): RpcStream<Request> & { abort(error: ClusterError | undefined): void } {
    const call = this.#client.makeBidiStreamRequest<Uint8Array, Buffer>(
      method.path,
      asBuffer,
      (bytes) => bytes,
      new Metadata(),
    );
    const where = { address: this.#address, path: method.path, failure: () => this.#takeRefusal() };
    const codec = { out: method.request, in: method.response };
    return this.#streams.add(events, (watched) => new CallerStream(call, codec, where, readPeer, watched));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    // gRPC lets them go on, on a connection that says goodbye to the other end; only a ping that fails would end them.
    this.#streams.abort(new RpcUnavailable(this.#address, "its channel was closed"));
    this.#client.close();
  }

  /**
   * grpc-js waits without end for a TLS handshake that nobody answers, and is told nothing where the connection had ended
   * before the handshake began: until then every call fails at once, though the other end is well.
   */
  #failed(client: Client): void {
    if (client !== this.#client || this.#closed) return;
    if (client.getChannel().getConnectivityState(false) === connectivityState.READY) {
      this.#failingSinceMs = undefined;
      return;
    }
    const nowMs = performance.now();
    this.#failingSinceMs ??= nowMs;
    if (nowMs - this.#failingSinceMs < this.#anewMs) return;
    this.#failingSinceMs = undefined;
    this.#client = this.#makeClient();
    // Streams of the old one, if any are left, have no connection either, and end by themselves.
    client.close();
  }

  #error(error: ServiceError, path: string): ClusterError {
    return this.#takeRefusal() ?? fromStatus(error, { address: this.#address, path });
  }

  #takeRefusal(): ClusterError | undefined {
    const refusal = this.#refusal;
    this.#refusal = undefined;
    return refusal;
  }
}

function readPeer(der: Uint8Array): Certificate {
  return readCertificate(der);
}
