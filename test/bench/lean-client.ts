/**
 * A lean gRPC caller for unary calls: frames over one HTTP/2 connection, nothing else, the same for the peer and for us,
 * so that what is measured is the server.
 */
import { connect, type ClientHttp2Session } from "node:http2";
import type { ConnectionOptions } from "node:tls";

export class LeanClient {
  readonly #session: ClientHttp2Session;

  private constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  /** @param origin  "https://127.0.0.1:2379" */
  static open(origin: string, tls: ConnectionOptions): Promise<LeanClient> {
    return new Promise((resolve, reject) => {
      const session = connect(origin, tls);
      session.once("error", reject);
      session.once("connect", () => {
        session.off("error", reject);
        session.on("error", () => {});
        resolve(new LeanClient(session));
      });
    });
  }

  /** @returns the answer's message; rejects unless grpc-status is 0 */
  call(path: string, message: Uint8Array): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const stream = this.#session.request(
        { ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
        { endStream: false },
      );
      const chunks: Buffer[] = [];
      let status: unknown;
      stream.on("response", (headers) => (status = headers["grpc-status"] ?? status));
      stream.on("trailers", (trailers) => (status = trailers["grpc-status"]));
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", reject);
      stream.on("end", () => {
        if (Number(status) === 0) resolve(Buffer.concat(chunks).subarray(5));
        else reject(new Error(`${path}: grpc-status ${String(status)}`));
      });
      const frame = Buffer.allocUnsafe(5 + message.length);
      frame[0] = 0;
      frame.writeUInt32BE(message.length, 1);
      frame.set(message, 5);
      stream.end(frame);
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#session.destroyed) resolve();
      else {
        this.#session.once("close", resolve);
        this.#session.destroy();
      }
    });
  }
}
