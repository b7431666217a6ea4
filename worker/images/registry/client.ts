/** The distribution API v2 towards one registry: manifests and blobs, with authentication, retries and resumption. */
import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import { Backoff } from "../../../lib/pure/backoff.ts";
import { ClusterError } from "../../../lib/pure/errors.ts";
import type { Random } from "../../../lib/pure/prng.ts";
import { type Clock, sleep } from "../../../lib/runtime/index.ts";
import type { Ingest } from "../blobs.ts";
import { ImageContentInvalid, RegistryDenied, RegistryRefused, RegistryUnreachable } from "../core/errors.ts";
import { manifestAccept, manifestBytesMax } from "../core/manifest.ts";
import type { Digest } from "../core/reference.ts";
import { basicAuthorization, type Credentials, fetchToken, parseChallenge } from "./auth.ts";
import { HttpClient, readBody, type TlsTrust } from "./http.ts";

export interface RegistryOptions {
  /** Hosts (with port, or CIDR-less names) that may be spoken to without TLS or with an unknown certificate. */
  readonly insecureRegistries: readonly string[];
  /** Base addresses tried before Docker Hub. */
  readonly mirrors: readonly string[];
  /** Authorities and client certificates by host, as Docker's certs.d folder gives them. */
  readonly trustOf: (host: string) => Omit<TlsTrust, "insecure"> | undefined;
  readonly silenceMs: number;
  readonly attemptsMax: number;
}

export const defaultRegistryOptions: RegistryOptions = {
  insecureRegistries: [],
  mirrors: [],
  trustOf: () => undefined,
  silenceMs: 60_000,
  attemptsMax: 5,
};

export interface RegistryPorts {
  readonly clock: Clock;
  readonly random: Random;
}

/** Loopback is always insecure in this sense, as in Docker: nobody else can be there. */
export function isInsecure(host: string, listed: readonly string[]): boolean {
  const name = host.startsWith("[") ? host.slice(0, host.indexOf("]") + 1) : (host.split(":")[0] ?? "");
  return (
    listed.includes(host) ||
    listed.includes(name) ||
    name === "localhost" ||
    name === "[::1]" ||
    /^127\.\d+\.\d+\.\d+$/.test(name)
  );
}

/** Docker Hub's API does not live under its name. */
function apiHost(registry: string): string {
  return registry === "docker.io" ? "registry-1.docker.io" : registry;
}

export class RegistryClient implements Disposable {
  readonly #http = new HttpClient();
  readonly #registry: string;
  readonly #repository: string;
  readonly #credentials: Credentials;
  readonly #options: RegistryOptions;
  readonly #ports: RegistryPorts;
  readonly #host: string;
  /** Authorization by scope, once the registry has asked for it. */
  readonly #authorizations = new Map<string, string>();
  #base: URL | undefined;

  constructor(
    target: { readonly registry: string; readonly repository: string; readonly mirror?: string },
    credentials: Credentials,
    options: RegistryOptions,
    ports: RegistryPorts,
  ) {
    this.#registry = target.registry;
    this.#repository = target.repository;
    this.#credentials = credentials;
    this.#options = options;
    this.#ports = ports;
    this.#host = target.mirror === undefined ? apiHost(target.registry) : new URL(target.mirror).host;
    if (target.mirror !== undefined) this.#base = new URL(target.mirror);
  }

  /** @returns the manifest's bytes as they came; whoever asked by digest compares it. */
  async manifest(
    reference: string,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly bytes: Uint8Array; readonly contentType: string | undefined }> {
    const act = `fetch the manifest of ${this.#name(reference)}`;
    return this.#retry(signal, async () => {
      const response = await this.#call(
        act,
        "GET",
        `manifests/${reference}`,
        { accept: manifestAccept },
        "pull",
        signal,
      );
      await this.#expect(response, act, [200]);
      return { bytes: await readBody(response, act, manifestBytesMax), contentType: response.headers["content-type"] };
    });
  }

  /** Digest of what a tag names, without fetching it; undefined when the registry does not say. */
  async manifestDigest(reference: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const act = `look up ${this.#name(reference)}`;
    const response = await this.#call(
      act,
      "HEAD",
      `manifests/${reference}`,
      { accept: manifestAccept },
      "pull",
      signal,
    );
    await this.#expect(response, act, [200]);
    response.resume();
    return response.headers["docker-content-digest"] as string | undefined;
  }

  /** Fills `ingest`, going on where an attempt before broke off, now or in an earlier life. */
  async fetchBlob(
    digest: Digest,
    size: number,
    ingest: Ingest,
    onProgress: (bytesDone: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const act = `fetch blob ${digest} of ${this.#name("")}`;
    await this.#retry(signal, async () => {
      if (ingest.size === size) return;
      const headers: Record<string, string> = ingest.size > 0 ? { range: `bytes=${ingest.size}-` } : {};
      const response = await this.#call(act, "GET", `blobs/${digest}`, headers, "pull", signal);
      await this.#expect(response, act, [200, 206, 416]);
      if (response.statusCode === 416 || (response.statusCode === 206 && !startsAt(response, ingest.size))) {
        response.resume();
        await ingest.restart();
        throw new RegistryUnreachable(act, "it cannot go on where the last attempt ended");
      }
      if (response.statusCode === 200 && ingest.size > 0) await ingest.restart();
      try {
        for await (const chunk of response) {
          await ingest.append(chunk as Buffer);
          onProgress(ingest.size);
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof ClusterError) throw error;
        throw new RegistryUnreachable(act, `the transfer broke off after ${ingest.size} of ${size} bytes`, error);
      }
      if (ingest.size < size)
        throw new RegistryUnreachable(act, `the transfer ended after ${ingest.size} of ${size} bytes`);
    });
  }

  /** Whether it lets us in. */
  async ping(signal: AbortSignal | undefined): Promise<void> {
    const act = `log in to ${this.#registry}`;
    const url = new URL("/v2/", await this.#baseUrl(act, signal));
    const response = await this.#request(act, "GET", url, {}, "pull", signal);
    await this.#expect(response, act, [200]);
    response.resume();
  }

  async hasBlob(digest: Digest, signal: AbortSignal | undefined): Promise<boolean> {
    const act = `look for blob ${digest} of ${this.#name("")}`;
    return this.#retry(signal, async () => {
      const response = await this.#call(act, "HEAD", `blobs/${digest}`, {}, "pull,push", signal);
      await this.#expect(response, act, [200, 404]);
      response.resume();
      return response.statusCode === 200;
    });
  }

  /** Uploads in one go; a broken upload starts over, since registries forget what they had. */
  async pushBlob(
    blob: { readonly digest: Digest; readonly size: number; readonly open: () => Readable },
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const act = `push blob ${blob.digest} to ${this.#name("")}`;
    await this.#retry(signal, async () => {
      const started = await this.#call(act, "POST", "blobs/uploads/", { "content-length": "0" }, "pull,push", signal);
      await this.#expect(started, act, [202]);
      started.resume();
      const location = started.headers.location;
      if (location === undefined) throw new RegistryRefused(act, 202, "it does not say where to upload to");
      const url = new URL(location, await this.#baseUrl(act, signal));
      if (url.host !== (await this.#baseUrl(act, signal)).host)
        throw new RegistryRefused(act, 202, "it wants the upload at another host");
      url.searchParams.set("digest", blob.digest);
      const headers = { "content-type": "application/octet-stream", "content-length": String(blob.size) };
      const done = await this.#request(act, "PUT", url, headers, "pull,push", signal, blob.open());
      await this.#expect(done, act, [201]);
      done.resume();
    });
  }

  /** @returns the digest by which the registry keeps it */
  async pushManifest(
    reference: string,
    bytes: Uint8Array,
    mediaType: string,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const act = `push the manifest of ${this.#name(reference)}`;
    await this.#retry(signal, async () => {
      const headers = { "content-type": mediaType, "content-length": String(bytes.length) };
      const url = this.#route(`manifests/${reference}`, await this.#baseUrl(act, signal));
      const response = await this.#request(act, "PUT", url, headers, "pull,push", signal, bytes);
      await this.#expect(response, act, [201]);
      response.resume();
    });
  }

  #name(reference: string): string {
    const tail = reference === "" ? "" : reference.startsWith("sha256:") ? `@${reference}` : `:${reference}`;
    return `${this.#registry}/${this.#repository}${tail}`;
  }

  #route(path: string, base: URL): URL {
    return new URL(`/v2/${this.#repository}/${path}`, base);
  }

  #trust(host: string): TlsTrust {
    return { ...this.#options.trustOf(host), insecure: isInsecure(host, this.#options.insecureRegistries) };
  }

  /** https, and for insecure registries http when nothing there speaks TLS (Docker's order). */
  async #baseUrl(act: string, signal: AbortSignal | undefined): Promise<URL> {
    if (this.#base !== undefined) return this.#base;
    const secure = new URL(`https://${this.#host}`);
    const trust = this.#trust(this.#host);
    if (!trust.insecure) return (this.#base = secure);
    const probe = { act, method: "GET", headers: {}, trust, silenceMs: this.#options.silenceMs, signal };
    try {
      const response = await this.#http.send({ ...probe, url: new URL("/v2/", secure) });
      response.resume();
      this.#base = secure;
    } catch (error) {
      if (!(error instanceof RegistryUnreachable)) throw error;
      this.#base = new URL(`http://${this.#host}`);
    }
    return this.#base;
  }

  async #call(
    act: string,
    method: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    actions: string,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage> {
    return this.#request(act, method, this.#route(path, await this.#baseUrl(act, signal)), headers, actions, signal);
  }

  async #request(
    act: string,
    method: string,
    url: URL,
    headers: Readonly<Record<string, string>>,
    actions: string,
    signal: AbortSignal | undefined,
    body?: Uint8Array | Readable,
  ): Promise<IncomingMessage> {
    const scope = `repository:${this.#repository}:${actions}`;
    if (body !== undefined && !(body instanceof Uint8Array) && !this.#authorizations.has(scope)) {
      // A stream cannot be sent twice, so the registry is asked who we must be before it is sent.
      await this.#authorize(act, scope, signal);
    }
    const send = (): Promise<IncomingMessage> => {
      const authorization = this.#authorizations.get(scope);
      return this.#http.send({
        act,
        method,
        url,
        headers: authorization === undefined || authorization === "" ? headers : { ...headers, authorization },
        ...(body === undefined ? {} : { body }),
        trust: this.#trust(url.host),
        silenceMs: this.#options.silenceMs,
        signal,
      });
    };
    const response = await send();
    if (response.statusCode !== 401) return response;
    response.resume();
    if (body !== undefined && !(body instanceof Uint8Array)) {
      this.#authorizations.delete(scope);
      throw new RegistryUnreachable(act, "the registry asks for a new token");
    }
    await this.#answerChallenge(act, scope, response.headers["www-authenticate"], signal);
    return send();
  }

  async #authorize(act: string, scope: string, signal: AbortSignal | undefined): Promise<void> {
    const base = await this.#baseUrl(act, signal);
    const url = new URL("/v2/", base);
    const response = await this.#http.send({
      act,
      method: "GET",
      url,
      headers: {},
      trust: this.#trust(base.host),
      silenceMs: this.#options.silenceMs,
      signal,
    });
    response.resume();
    if (response.statusCode === 401)
      await this.#answerChallenge(act, scope, response.headers["www-authenticate"], signal);
    else this.#authorizations.set(scope, "");
  }

  async #answerChallenge(
    act: string,
    scope: string,
    header: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const challenge = header === undefined ? undefined : parseChallenge(header);
    if (challenge === undefined) throw new RegistryDenied(act, "the registry does not say how to log in");
    if (challenge.scheme === "basic") {
      const basic = basicAuthorization(this.#credentials);
      if (basic === undefined) throw new RegistryDenied(act, "the registry wants a user name and password");
      if (this.#authorizations.get(scope) === basic) throw new RegistryDenied(act, "wrong user name or password");
      this.#authorizations.set(scope, basic);
      return;
    }
    const ready = this.#credentials.registryToken;
    const token =
      ready !== undefined && ready !== ""
        ? ready
        : await fetchToken(this.#http, {
            act,
            challenge,
            scope,
            credentials: this.#credentials,
            trustOf: (host) => this.#trust(host),
            silenceMs: this.#options.silenceMs,
            signal,
          });
    this.#authorizations.set(scope, `Bearer ${token}`);
  }

  async #expect(response: IncomingMessage, act: string, statuses: readonly number[]): Promise<void> {
    const status = response.statusCode ?? 0;
    if (statuses.includes(status)) return;
    const said = errorText(await readBody(response, act, 64 * 1024).catch(() => Buffer.alloc(0)));
    if (status === 401 || status === 403) {
      throw new RegistryDenied(act, said === "" ? `the registry answered ${status}` : said);
    }
    throw new RegistryRefused(act, status, said);
  }

  /** Tries again what may go better next time: broken transfers, 408, 429 and 5xx. */
  async #retry<T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> {
    const backoff = new Backoff(this.#ports.random, { minMs: 200, maxMs: 10_000 });
    for (let left = this.#options.attemptsMax - 1; ; left--) {
      try {
        return await attempt();
      } catch (error) {
        signal?.throwIfAborted();
        const status = error instanceof RegistryRefused ? error.status : 0;
        const passing = error instanceof RegistryUnreachable || status === 408 || status === 429 || status >= 500;
        if (!passing || left <= 0 || error instanceof ImageContentInvalid) throw error;
        await sleep(this.#ports.clock, backoff.next(), signal);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#http[Symbol.dispose]();
  }
}

function startsAt(response: IncomingMessage, offset: number): boolean {
  return /^bytes (\d+)-/.exec(response.headers["content-range"] ?? "")?.[1] === String(offset);
}

/** The registry's own words, for people; bounded, one line, and never a command to a terminal. */
function errorText(body: Buffer): string {
  try {
    const parsed = JSON.parse(body.toString("utf8")) as { errors?: { code?: unknown; message?: unknown }[] };
    const first = parsed.errors?.[0];
    const words = [first?.code, first?.message].filter((word) => typeof word === "string").join(": ");
    return words.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
  } catch {
    return "";
  }
}
