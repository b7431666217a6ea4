/**
 * A server for typed methods: who calls is read from the certificate before anything is decoded, each method says whom it
 * serves, and an error reaches the caller with its code and its fix.
 */
import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream, Settings } from "node:http2";
import { createServer, type AddressInfo, type Server as NetServer, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import {
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from "@grpc/grpc-js";

import { checkDates, type Certificate, type NodeIdentity, type TlsIdentity } from "../pki/index.ts";
import { hostOf, portOf } from "../pure/address.ts";
import { ClusterError, isAbort } from "../pure/errors.ts";
import { listening } from "../runtime/index.ts";
import { AcceptedStream, refuseStream, serveBefore, type ServeStream } from "./direct-server.ts";
import { Door } from "./door.ts";
import { ListenFailed, PeerNotAuthenticated, RpcInternal, RpcTooLarge } from "./errors.ts";
import { asBuffer, type BidiMethod, type Caller, type Method, type UnaryMethod } from "./method.ts";
import { toStatus } from "./status.ts";
import { ServingStream, type RpcStream, type StreamEvents } from "./stream.ts";

export interface ServerOptions {
  readonly tls: TlsIdentity;
  /** Wall time, for the dates of certificates on connections that stand longer than those last. */
  readonly wallMs: () => number;
  readonly messageBytesMax?: number;
  /** How much a caller may send ahead on one stream; 64 KiB unless said. */
  readonly windowBytes?: number;
  readonly streamsPerConnectionMax?: number;
  /**
   * What this server is going to serve, if it listens before it can: calls of it are told UNAVAILABLE with this reason
   * until it is served, so that callers try again and do not take the program for one that knows no such method.
   */
  readonly opening?: { readonly methods: readonly Named[]; readonly reason: () => string };
  /** Throws a ClusterError for a caller whose certificate is genuine and who is not served all the same. */
  readonly admit?: (caller: NodeIdentity) => void;
  /** Whether a caller from this host does not wait behind a crowd: the others that make a leader. */
  readonly goesFirst?: (host: string) => boolean;
  /** An error of a handler that is no ClusterError: our bug. The caller is told "internal error" and no more. */
  readonly onBug: (path: string, error: unknown) => void;
}

/** What a method is called, without what it takes and gives. */
export type Named = Pick<Method<never, never>, "kind" | "path">;

export interface CallContext {
  /** Undefined only for methods that "anyone" may call. */
  readonly peer: Certificate | undefined;
  /** IP:PORT of the caller. */
  readonly address: string;
  /** Aborts when the caller has gone or its deadline has passed. */
  readonly signal: AbortSignal;
  /** What is left of the caller's deadline; Infinity without one. */
  readonly timeoutMs: number;
}

const messageBytesMaxDefault = 4 * 1024 * 1024;
const streamsPerConnectionMaxDefault = 256;
const metadataBytesMax = 8 * 1024;
/**
 * Callers ping each second themselves; this only frees what a caller left that is gone without a word. At 1 s it was half of
 * all pings, and a leader has a connection of every agent.
 */
const keepaliveMs = 10_000;
const handshakeTimeoutMs = 5000;

export class RpcServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: ServerOptions;
  readonly #credentials: ReloadableCredentials;
  readonly #peers = new WeakMap<Http2Session, Buffer>();
  /** By path: streams that do not go through grpc-js. */
  readonly #direct = new Map<string, ServeStream>();
  /** HTTP/2 servers of grpc-js that ask for those first. */
  readonly #shared = new WeakSet<object>();
  /** Announced, and not served yet. */
  readonly #awaited = new Set<string>();
  /** Ports that are listened on, and what keeps their connections waiting. */
  readonly #ports: { readonly listener: NetServer; readonly door: Door<Socket> }[] = [];

  constructor(options: ServerOptions) {
    this.#options = options;
    const streamsMax = options.streamsPerConnectionMax ?? streamsPerConnectionMaxDefault;
    this.#credentials = new ReloadableCredentials(options.tls, {
      maxConcurrentStreams: streamsMax,
      ...(options.windowBytes === undefined ? {} : { initialWindowSize: options.windowBytes }),
    });
    const messageBytesMax = options.messageBytesMax ?? messageBytesMaxDefault;
    this.#server = new Server({
      "grpc.max_send_message_length": messageBytesMax,
      "grpc.max_receive_message_length": messageBytesMax,
      "grpc.max_concurrent_streams": streamsMax,
      "grpc.keepalive_time_ms": keepaliveMs,
      "grpc.keepalive_timeout_ms": keepaliveMs,
      "grpc.enable_channelz": 0,
    });
    for (const { path, kind } of options.opening?.methods ?? []) this.#refuse(path, kind === "bidi");
  }

  /** Announced methods that are not served yet. */
  get awaited(): readonly string[] {
    return [...this.#awaited];
  }

  /** @param handler  its error goes to the caller */
  unary<Request, Response>(
    method: UnaryMethod<Request, Response>,
    handler: (request: Request, context: CallContext) => Promise<Response>,
  ): void {
    this.#add(method.path, false, (call: ServerUnaryCall<Buffer, Uint8Array>, done: sendUnaryData<Uint8Array>) => {
      const stop = new AbortController();
      // It is also said of a call that has been answered, and to abort for nobody costs as much as a small request.
      let answered = false;
      call.on("cancelled", () => {
        if (!answered) stop.abort();
      });
      const serve = async (): Promise<Uint8Array> => {
        const peer = this.#admit(asCalled(call), method);
        const context = { peer, address: call.getPeer(), signal: stop.signal, timeoutMs: timeoutOf(call) };
        return method.response.encode(await handler(method.request.decode(call.request), context));
      };
      serve().then(
        (response) => {
          answered = true;
          done(null, response);
        },
        (error: unknown) => {
          answered = true;
          done(this.#statusOf(method.path, error));
        },
      );
    });
  }

  /**
   * @param handler  gives what is to be called for this stream; what it throws ends the stream and goes to the caller
   */
  bidi<Request, Response>(
    method: BidiMethod<Request, Response>,
    handler: (stream: RpcStream<Response>, context: Omit<CallContext, "signal">) => StreamEvents<Request>,
  ): void {
    const codec = { out: method.response, in: method.request };
    const open = (
      context: Omit<CallContext, "signal">,
      make: (events: StreamEvents<Request>) => RpcStream<Response>,
    ): void => {
      const events: { current: StreamEvents<Request> | undefined } = { current: undefined };
      const stream = make({
        message: (message) => this.#guard(method.path, stream, () => events.current?.message(message)),
        drain: () => this.#guard(method.path, stream, () => events.current?.drain?.()),
        finished: () => this.#guard(method.path, stream, () => events.current?.finished?.()),
        closed: (error) => this.#guard(method.path, stream, () => events.current?.closed(error)),
      });
      events.current = handler(stream, context);
    };
    this.#add(method.path, true, (call: ServerDuplexStream<Buffer, Uint8Array>) => {
      try {
        const peer = this.#admit(asCalled(call), method);
        open(
          { peer, address: call.getPeer(), timeoutMs: timeoutOf(call) },
          (events) => new ServingStream(call, codec, peer, events),
        );
      } catch (error) {
        call.on("error", () => {});
        call.emit("error", this.#statusOf(method.path, error));
      }
    });
    if (method.direct !== true) return;
    const messageBytesMax = this.#options.messageBytesMax ?? messageBytesMaxDefault;
    this.#direct.set(method.path, (http, headers) => {
      let stream: AcceptedStream<Response, Request> | undefined;
      try {
        const peer = this.#admit(asStreamed(http, headers), method);
        const { socket } = http.session ?? {};
        const address = `${socket?.remoteAddress}:${socket?.remotePort}`;
        const options = { path: method.path, codec, messageBytesMax };
        open({ peer, address, timeoutMs: Infinity }, (events) => {
          return (stream = new AcceptedStream(http, options, { peer, address }, events));
        });
      } catch (error) {
        const said = this.#statusOf(method.path, error);
        if (stream === undefined) refuseStream(http, said);
        else stream.abort(error instanceof ClusterError ? error : new RpcInternal(method.path));
      }
    });
  }

  /**
   * @param address  HOST:PORT, where port 0 takes a free one, or unix:PATH
   * @returns        the port
   * @throws         ListenFailed
   */
  listen(address: string): Promise<number> {
    return address.startsWith("unix:") ? this.#listenOnSocket(address) : this.#listenOnPort(address);
  }

  async #listenOnPort(address: string): Promise<number> {
    const injector = this.#server.createConnectionInjector(this.#credentials);
    serveBefore(this.#server, (path) => this.#direct.get(path), this.#shared);
    const door = new Door<Socket>({
      admit: (socket) => injector.injectConnection(socket),
      goesFirst: ({ remoteAddress = "", remotePort = 0 }) =>
        this.#options.goesFirst?.(hostOf(`${remoteAddress}:${remotePort}`)) === true,
      nowMs: () => performance.now(),
      after: (ms, act) => void setTimeout(act, ms),
    });
    const listener = createServer({ noDelay: true }, (socket) => {
      // One that breaks while it waits; from then on TLS hears of it.
      socket.on("error", () => {});
      door.knock(socket);
    });
    this.#ports.push({ listener, door });
    const where = { host: hostOf(address), port: portOf(address) };
    try {
      // Whoever could not be let in comes again.
      await listening(listener, where, () => {});
    } catch (error) {
      throw new ListenFailed(address, (error as Error).message);
    }
    return (listener.address() as AddressInfo).port;
  }

  #listenOnSocket(address: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, this.#credentials, (error, port) => {
        if (error === null) resolve(port);
        else reject(new ListenFailed(address, error.message));
      });
    });
  }

  /** Ends every call and connection at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#credentials[Symbol.dispose]();
    for (const { listener, door } of this.#ports) {
      listener.close();
      door.close();
    }
    this.#server.forceShutdown();
    await Promise.resolve();
  }

  #guard(path: string, stream: { abort(error: ClusterError): void }, run: () => void): void {
    try {
      run();
    } catch (error) {
      if (error instanceof ClusterError) stream.abort(error);
      else {
        this.#options.onBug(path, error);
        stream.abort(new RpcInternal(path));
      }
    }
  }

  #refuse(path: string, stream: boolean): void {
    this.#add(path, stream, (call: ServerDuplexStream<Buffer, Uint8Array>, done?: sendUnaryData<Uint8Array>) => {
      const details = this.#options.opening?.reason() ?? "";
      // Without a code of ours: to a caller this is the same as a server that is not up.
      const refusal = Object.assign(new Error(details), { code: status.UNAVAILABLE, details });
      if (done !== undefined) done(refusal);
      else {
        call.on("error", () => {});
        call.emit("error", refusal);
      }
    });
    this.#awaited.add(path);
  }

  #add(path: string, stream: boolean, implementation: (...args: never[]) => void): void {
    if (this.#awaited.delete(path)) this.#server.unregister(path);
    const definition: ServiceDefinition = {
      [path]: {
        path,
        requestStream: stream,
        responseStream: stream,
        requestSerialize: (bytes: Buffer) => bytes,
        requestDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: asBuffer,
        responseDeserialize: (bytes: Buffer) => bytes,
      },
    };
    this.#server.addService(definition, { [path]: implementation } as unknown as UntypedServiceImplementation);
  }

  /** @throws PeerNotAuthenticated, PeerNotTrusted, CertificateInvalid, CertificateExpired, RpcTooLarge, what `admit` says */
  #admit(call: Arrived, method: { readonly path: string; readonly caller: Caller }): Certificate | undefined {
    if (call.metadataBytes > metadataBytesMax) {
      throw new RpcTooLarge(method.path, `${call.metadataBytes} bytes of metadata`);
    }
    const der = this.#peerBytes(call);
    if (der === undefined) {
      if (method.caller === "anyone") return undefined;
      throw new PeerNotAuthenticated(method.path);
    }
    const peer = this.#options.tls.readPeer(der, method.caller === "manager" ? { role: "manager" } : {});
    checkDates(peer, "the caller's certificate", this.#options.wallMs());
    // Only now: strangers send ahead no more than the small window of a whole connection.
    if (this.#options.windowBytes !== undefined) widen(call.session, this.#options.windowBytes);
    return peer;
  }

  /** Reading the certificate off a connection costs more than all else of a small call: once for each connection. */
  #peerBytes({ session, certificate }: Arrived): Buffer | undefined {
    const known = session === undefined ? undefined : this.#peers.get(session);
    if (known !== undefined) return known;
    const der = certificate();
    if (session !== undefined && der !== undefined) this.#peers.set(session, der);
    return der;
  }

  #statusOf(path: string, error: unknown): ReturnType<typeof toStatus> & Error {
    const expected = error instanceof ClusterError || isAbort(error);
    if (!expected) this.#options.onBug(path, error);
    const { code, details, metadata } = toStatus(expected ? error : new RpcInternal(path));
    return Object.assign(new Error(details), { code, details, metadata });
  }
}

/** Asks every client for a certificate, lets those without one in (for joining), and follows replaced material. */
class ReloadableCredentials extends ServerCredentials implements Disposable {
  readonly #watching: Disposable;

  constructor(identity: TlsIdentity, settings: Settings) {
    super(
      { requestCert: true, rejectUnauthorized: false, handshakeTimeout: handshakeTimeoutMs, settings },
      identity.contextOptions,
    );
    this.#watching = identity.watch((options) => this.updateSecureContextOptions(options));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }

  [Symbol.dispose](): void {
    this.#watching[Symbol.dispose]();
  }
}

/** What is looked at before a call or a stream is served, whichever way it came. */
interface Arrived {
  readonly metadataBytes: number;
  readonly session: Http2Session | undefined;
  /** The caller's, if TLS has found it genuine. */
  readonly certificate: () => Buffer | undefined;
}

function asCalled(call: ServerUnaryCall<Buffer, Uint8Array> | ServerDuplexStream<Buffer, Uint8Array>): Arrived {
  return {
    metadataBytes: metadataBytes(call.metadata.toHttp2Headers()),
    session: sessionOf(call),
    certificate: () => call.getAuthContext().sslPeerCertificate?.raw,
  };
}

function asStreamed(http: ServerHttp2Stream, headers: IncomingHttpHeaders): Arrived {
  const { session } = http;
  return {
    metadataBytes: metadataBytes(headers),
    session,
    certificate: () => {
      const socket: unknown = session?.socket;
      return socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate().raw : undefined;
    },
  };
}

/** grpc-js does not show the connection of a call; undefined should a later release look different inside. */
function sessionOf(call: unknown): Http2Session | undefined {
  return (call as { call?: { stream?: { session?: Http2Session } } }).call?.stream?.session;
}

/**
 * The window of the whole connection, which stands at 64 KiB whatever that of its streams is: on a link of 50 ms that
 * would be 1.3 MB/s. grpc-js sets it for its clients only, hence the look inside; without it the small window remains.
 */
function widen(session: Http2Session | undefined, windowBytes: number): void {
  if (session === undefined || session.destroyed) return;
  if ((session.state.effectiveLocalWindowSize ?? 0) < windowBytes) session.setLocalWindowSize(windowBytes);
}

function timeoutOf(call: { getDeadline(): Date | number }): number {
  const deadline = call.getDeadline();
  return Math.max(0, (deadline instanceof Date ? deadline.getTime() : deadline) - Date.now());
}

function metadataBytes(headers: Readonly<Record<string, unknown>>): number {
  let bytes = 0;
  for (const [name, values] of Object.entries(headers)) {
    bytes += name.length + String(values).length;
  }
  return bytes;
}
