/** HTTP towards registries: redirects, TLS by host, time-outs for silence, and bounded bodies. */
import { type IncomingMessage, request as httpRequest, Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { RegistryRefused, RegistryUnreachable } from "../core/errors.ts";

export interface TlsTrust {
  /** PEM of the authorities to trust beside the system's. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** The certificate is not checked: only for hosts that the operator listed as insecure. */
  readonly insecure: boolean;
}

export interface HttpRequest {
  /** What this is for, as in "pull busybox:1": errors say "Cannot <act>". */
  readonly act: string;
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable;
  readonly trust: TlsTrust;
  /** No byte either way for so long ends the request. */
  readonly silenceMs: number;
  readonly signal: AbortSignal | undefined;
}

const redirectsMax = 5;

export class HttpClient implements Disposable {
  readonly #plain = new HttpAgent({ keepAlive: true, maxSockets: 8 });
  readonly #secure = new Map<string, HttpsAgent>();

  /** The last answer of a chain of redirects, its body unread. Statuses are the caller's business. */
  async send(request: HttpRequest): Promise<IncomingMessage> {
    let current = request;
    for (let redirects = 0; ; redirects++) {
      const response = await this.#once(current);
      const location = response.headers.location;
      const status = response.statusCode ?? 0;
      const follows =
        [301, 302, 303, 307, 308].includes(status) && (request.method === "GET" || request.method === "HEAD");
      if (!follows || location === undefined) return response;
      response.resume();
      if (redirects >= redirectsMax) throw new RegistryUnreachable(request.act, "too many redirects");
      current = redirect(current, location);
    }
  }

  #once(request: HttpRequest): Promise<IncomingMessage> {
    const { url, trust } = request;
    const isSecure = url.protocol === "https:";
    return new Promise((resolve, reject) => {
      const options = {
        method: request.method,
        headers: { "user-agent": "skep", ...request.headers },
        timeout: request.silenceMs,
        ...(request.signal === undefined ? {} : { signal: request.signal }),
      };
      const outgoing = isSecure
        ? httpsRequest(url, { ...options, agent: this.#agentFor(url.host, trust) })
        : httpRequest(url, { ...options, agent: this.#plain });
      outgoing.once("timeout", () => outgoing.destroy(new Error(`no answer within ${request.silenceMs} ms`)));
      outgoing.once("error", (error) => {
        if (request.signal?.aborted === true) reject(request.signal.reason as Error);
        else reject(new RegistryUnreachable(request.act, `${url.origin}: ${error.message}`, error));
      });
      outgoing.once("response", (response) => {
        // The socket's own timer runs on; a body that stops coming ends like a request that is not answered.
        response.setTimeout(request.silenceMs, () => response.destroy(new Error(`silent for ${request.silenceMs} ms`)));
        resolve(response);
      });
      const body = request.body;
      if (body === undefined) outgoing.end();
      else if (body instanceof Uint8Array) outgoing.end(body);
      else pipeline(body, outgoing).catch((error: unknown) => outgoing.destroy(error as Error));
    });
  }

  #agentFor(host: string, trust: TlsTrust): HttpsAgent {
    const key = `${host} ${trust.insecure}`;
    let agent = this.#secure.get(key);
    if (agent === undefined) {
      agent = new HttpsAgent({
        keepAlive: true,
        maxSockets: 8,
        rejectUnauthorized: !trust.insecure,
        ...(trust.ca === undefined ? {} : { ca: trust.ca }),
        ...(trust.cert === undefined ? {} : { cert: trust.cert }),
        ...(trust.key === undefined ? {} : { key: trust.key }),
      });
      this.#secure.set(key, agent);
    }
    return agent;
  }

  [Symbol.dispose](): void {
    this.#plain.destroy();
    for (const agent of this.#secure.values()) agent.destroy();
  }
}

/** Credentials go to the host they are for, and nothing goes from https to http. */
function redirect(from: HttpRequest, location: string): HttpRequest {
  let url: URL;
  try {
    url = new URL(location, from.url);
  } catch {
    throw new RegistryUnreachable(from.act, "it redirects to something that is no address");
  }
  if (url.protocol !== "https:" && !(url.protocol === "http:" && from.url.protocol === "http:")) {
    throw new RegistryUnreachable(from.act, `it redirects from ${from.url.protocol}// to ${url.protocol}//`);
  }
  const headers = { ...from.headers };
  let trust = from.trust;
  if (url.host !== from.url.host) {
    delete headers["authorization"];
    trust = { insecure: false };
  }
  return { ...from, url, headers, trust };
}

/** The whole body, for documents. */
export async function readBody(response: IncomingMessage, act: string, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response) {
      size += (chunk as Buffer).length;
      if (size > bytesMax) {
        response.destroy();
        throw new RegistryRefused(act, response.statusCode ?? 0, `an answer of more than ${bytesMax} bytes`);
      }
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    if (error instanceof RegistryRefused) throw error;
    throw new RegistryUnreachable(act, "the answer broke off", error);
  }
  return Buffer.concat(chunks);
}
