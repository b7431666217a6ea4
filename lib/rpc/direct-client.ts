/**
 * A channel without grpc-js: an HTTP/2 connection over mutual TLS, and gRPC's streams on it by hand. For those who open a
 * stream, keep it, and dial anew by themselves when it ends: nothing here tries twice.
 */
import {
  connect as connectHttp2,
  constants,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders,
} from "node:http2";
import { connect as connectTls } from "node:tls";
import { Metadata, status } from "@grpc/grpc-js";

import { readCertificate, type Certificate } from "../pki/index.ts";
import { hostOf, portOf } from "../pure/address.ts";
import { ClusterError } from "../pure/errors.ts";
import { keepaliveMs, messageBytesMaxDefault, serverName, type ChannelOptions } from "./client.ts";
import { DirectStream, type DirectOptions } from "./direct-stream.ts";
import { RpcFailed, RpcUnavailable } from "./errors.ts";
import type { BidiMethod } from "./method.ts";
import { OpenStreams } from "./open-streams.ts";
import { fromStatus } from "./status.ts";
import type { RpcStream, StreamEvents } from "./stream.ts";

/**
 * Silence is waited for in so many parts, each a round of the event loop at least: if it was this process that stood still,
 * what the other end has said meanwhile is read before the last of them is over.
 */
const silenceParts = 5;

/** It uses the certificate that is current when its first stream opens, and connects once. */
export class DirectChannel implements Disposable {
  readonly #options: ChannelOptions;
  readonly #streams = new OpenStreams();
  #session: ClientHttp2Session | undefined;
  /** Why the connection did not come about or broke. */
  #failure: ClusterError | undefined;
  #closed = false;

  constructor(options: ChannelOptions) {
    this.#options = options;
  }

  get address(): string {
    return this.#options.address;
  }

  /** Opens a stream. It ends when either end wants, when the connection breaks, or with the channel. */
  open<Request, Response>(
    method: BidiMethod<Request, Response>,
    events: StreamEvents<Response>,
  ): RpcStream<Request> & { abort(error: ClusterError | undefined): void } {
    const { address, messageBytesMax } = this.#options;
    this.#session ??= this.#connect();
    const http = this.#session.request(
      {
        ":method": "POST",
        ":path": method.path,
        "content-type": "application/grpc",
        te: "trailers",
        "grpc-accept-encoding": "identity",
      },
      { endStream: false },
    );
    const options = {
      path: method.path,
      codec: { out: method.request, in: method.response },
      messageBytesMax: messageBytesMax ?? messageBytesMaxDefault,
      address,
      failure: () => this.#failure,
    };
    return this.#streams.add(events, (watched) => new DialledStream(http, options, watched));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#streams.abort(new RpcUnavailable(this.address, "its channel was closed"));
    this.#session?.destroy();
  }

  #connect(): ClientHttp2Session {
    const { address, tls, expect, windowBytes, pingMs, silenceMs } = this.#options;
    const check = tls.serverCheck(expect);
    const socket = connectTls({
      host: hostOf(address),
      port: portOf(address),
      ALPNProtocols: ["h2"],
      servername: serverName,
      secureContext: tls.context,
      rejectUnauthorized: !("trustsAnybody" in tls && tls.trustsAnybody),
      checkServerIdentity: (host, certificate) => {
        const error = check(host, certificate);
        if (error instanceof ClusterError) this.#failure = error;
        return error;
      },
    });
    const broke = (error: Error): void => {
      this.#failure ??= new RpcUnavailable(address, error.message, error);
    };
    // Before the session hears of it, and ends its streams.
    socket.on("error", broke);
    const session = connectHttp2(`https://${serverName}`, {
      createConnection: () => socket,
      settings: { enablePush: false, ...(windowBytes === undefined ? {} : { initialWindowSize: windowBytes }) },
    });
    session.on("error", broke);
    session.on("goaway", () => {
      this.#failure ??= new RpcUnavailable(address, "it said goodbye");
    });
    if (windowBytes !== undefined) session.once("connect", () => session.setLocalWindowSize(windowBytes));
    keepAlive(session, pingMs ?? keepaliveMs, silenceMs ?? keepaliveMs, (silentMs) => {
      this.#failure ??= new RpcUnavailable(address, `a ping was not answered for ${silentMs} ms`);
    });
    return session;
  }
}

/** Ends a connection whose other end is gone without a word. */
function keepAlive(
  session: ClientHttp2Session,
  pingMs: number,
  silenceMs: number,
  onSilence: (silentMs: number) => void,
): void {
  let silence: NodeJS.Timeout | undefined;
  const wait = (left: number): void => {
    silence = setTimeout(() => {
      if (left > 1) {
        wait(left - 1);
        return;
      }
      onSilence(silenceMs);
      session.destroy();
    }, silenceMs / silenceParts);
  };
  const ping = (): void => {
    if (session.destroyed || session.connecting || silence !== undefined) return;
    wait(silenceParts);
    session.ping(() => {
      clearTimeout(silence);
      silence = undefined;
    });
  };
  const pings = setInterval(ping, pingMs).unref();
  session.once("close", () => {
    clearInterval(pings);
    clearTimeout(silence);
  });
}

interface DialledOptions<Out, In> extends DirectOptions<Out, In> {
  readonly address: string;
  /** What is known of the connection's end. */
  readonly failure: () => ClusterError | undefined;
}

class DialledStream<Out, In> extends DirectStream<Out, In> implements RpcStream<Out> {
  readonly #options: DialledOptions<Out, In>;
  #httpStatus = 200;
  /** The headers that say how it ended. */
  #trailers: IncomingHttpHeaders | undefined;

  constructor(http: ClientHttp2Stream, options: DialledOptions<Out, In>, events: StreamEvents<In>) {
    super(http, options, events);
    this.#options = options;
    // What it says stands in the session's error too, or in the trailers.
    http.on("error", () => {});
    http.on("response", (headers) => {
      this.#httpStatus = headers[":status"] ?? 0;
      // Without a body the first headers are the last.
      if (headers["grpc-status"] !== undefined) this.#trailers = headers;
    });
    http.on("trailers", (headers) => (this.#trailers = headers));
    http.on("end", () => {
      this.finishedByPeer();
      if (!http.writableEnded) http.end();
      if (this.#trailers !== undefined) this.close(this.#ended(this.#trailers));
    });
    http.on("close", () => this.close(this.#broken()));
  }

  get peer(): Certificate | undefined {
    const socket = this.http.session?.socket as { getPeerCertificate?: () => { raw?: Buffer } } | undefined;
    const der = socket?.getPeerCertificate?.().raw;
    return der === undefined ? undefined : readCertificate(der);
  }

  end(): void {
    if (!this.http.writableEnded) this.http.end();
  }

  abort(error: ClusterError | undefined): void {
    if (!this.http.closed) this.http.close(constants.NGHTTP2_CANCEL);
    this.close(error);
  }

  #broken(): ClusterError | undefined {
    if (this.#trailers !== undefined) return this.#ended(this.#trailers);
    const { address, path, failure } = this.#options;
    if (this.#httpStatus !== 200) return new RpcFailed(path, `it answers with HTTP status ${this.#httpStatus}`);
    const { rstCode } = this.http;
    const isOurs = rstCode === undefined || rstCode === constants.NGHTTP2_NO_ERROR;
    const unknown = isOurs || rstCode === constants.NGHTTP2_CANCEL;
    return failure() ?? new RpcUnavailable(address, unknown ? "the stream broke" : `HTTP/2 says ${rstCode}`);
  }

  #ended(trailers: IncomingHttpHeaders): ClusterError | undefined {
    const code = readStatus(trailers["grpc-status"]);
    if (code === status.OK) return undefined;
    return fromStatus(
      { code, details: readDetails(trailers["grpc-message"]), metadata: readMetadata(trailers) },
      this.#options,
    );
  }
}

function readStatus(text: string | readonly string[] | undefined): status {
  for (const known of Object.values(status)) if (typeof known !== "string" && String(known) === text) return known;
  return status.UNKNOWN;
}

/** Percent-encoded, as gRPC has it; what is not stays as it is. */
function readDetails(message: string | readonly string[] | undefined): string {
  const encoded = typeof message === "string" ? message : "";
  try {
    return decodeURI(encoded);
  } catch {
    return encoded;
  }
}

function readMetadata(trailers: IncomingHttpHeaders): Metadata {
  try {
    return Metadata.fromHttp2Headers(trailers);
  } catch {
    return new Metadata(); // what cannot be read is as good as nothing
  }
}
