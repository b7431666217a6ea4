/**
 * Who we are to a registry: basic credentials, or a bearer token that its token service gives for them
 * (distribution specification, "Token Authentication").
 */
import { RegistryDenied, RegistryRefused } from "../core/errors.ts";
import { type HttpClient, readBody, type TlsTrust } from "./http.ts";

/** As Docker's X-Registry-Auth carries them. */
export interface Credentials {
  readonly username?: string;
  readonly password?: string;
  /** An OAuth2 refresh token instead of a password. */
  readonly identityToken?: string;
  /** A bearer token to be used as it is. */
  readonly registryToken?: string;
}

export interface Challenge {
  readonly scheme: "basic" | "bearer";
  readonly realm: string;
  readonly service: string;
  readonly scope: string;
}

const tokenBytesMax = 1024 * 1024;

/** Reads WWW-Authenticate (RFC 9110 §11.6.1): the first challenge that we can answer. */
export function parseChallenge(header: string): Challenge | undefined {
  for (const match of header.slice(0, 8192).matchAll(/(basic|bearer)\s+((?:[a-z_]+=(?:"[^"]*"|[^\s",]+)[,\s]*)*)/gi)) {
    const fields = new Map<string, string>();
    for (const [, key, quoted, plain] of (match[2] ?? "").matchAll(/([a-z_]+)=(?:"([^"]*)"|([^\s",]+))/gi)) {
      fields.set((key ?? "").toLowerCase(), quoted ?? plain ?? "");
    }
    const scheme = (match[1] ?? "").toLowerCase() as "basic" | "bearer";
    if (scheme === "bearer" && !fields.has("realm")) continue;
    return {
      scheme,
      realm: fields.get("realm") ?? "",
      service: fields.get("service") ?? "",
      scope: fields.get("scope") ?? "",
    };
  }
  return undefined;
}

export function basicAuthorization(credentials: Credentials): string | undefined {
  if (credentials.username === undefined || credentials.username === "") return undefined;
  const pair = `${credentials.username}:${credentials.password ?? ""}`;
  return `Basic ${Buffer.from(pair, "utf8").toString("base64")}`;
}

/**
 * Asks the token service for a bearer token.
 * The realm is the registry's word, so it is hostile: only https, or http where the operator has listed the host.
 */
export async function fetchToken(
  http: HttpClient,
  options: {
    readonly act: string;
    readonly challenge: Challenge;
    readonly scope: string;
    readonly credentials: Credentials;
    readonly trustOf: (host: string) => TlsTrust;
    readonly silenceMs: number;
    readonly signal: AbortSignal | undefined;
  },
): Promise<string> {
  const { act, challenge, credentials } = options;
  let url: URL;
  try {
    url = new URL(challenge.realm);
  } catch {
    throw new RegistryDenied(act, "the registry names a token service that is no address");
  }
  const trust = options.trustOf(url.host);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && trust.insecure)) {
    throw new RegistryDenied(
      act,
      `the registry names a token service at ${url.protocol}//, which would see the credentials`,
    );
  }
  const refresh = credentials.identityToken;
  const headers: Record<string, string> = { accept: "application/json" };
  let body: Uint8Array | undefined;
  if (refresh !== undefined && refresh !== "") {
    headers["content-type"] = "application/x-www-form-urlencoded";
    const form = {
      grant_type: "refresh_token",
      service: challenge.service,
      scope: options.scope,
      client_id: "skep",
      refresh_token: refresh,
    };
    body = Buffer.from(new URLSearchParams(form).toString(), "utf8");
    headers["content-length"] = String(body.length);
  } else {
    if (challenge.service !== "") url.searchParams.set("service", challenge.service);
    url.searchParams.set("scope", options.scope);
    const basic = basicAuthorization(credentials);
    if (basic !== undefined) headers["authorization"] = basic;
  }
  const response = await http.send({
    act,
    method: body === undefined ? "GET" : "POST",
    url,
    headers,
    ...(body === undefined ? {} : { body }),
    trust,
    silenceMs: options.silenceMs,
    signal: options.signal,
  });
  const answer = await readBody(response, act, tokenBytesMax);
  if (response.statusCode === 401 || response.statusCode === 403)
    throw new RegistryDenied(act, "wrong user name or password");
  if (response.statusCode !== 200) throw new RegistryRefused(act, response.statusCode ?? 0, "no token was given");
  let token: unknown;
  try {
    const parsed = JSON.parse(answer.toString("utf8")) as Record<string, unknown> | null;
    token = parsed?.["token"] ?? parsed?.["access_token"];
  } catch {
    token = undefined;
  }
  // A header line of our own making must not be split by what a stranger sent.
  if (typeof token !== "string" || !/^[\x21-\x7e]{1,65536}$/.test(token)) {
    throw new RegistryDenied(act, "the token service's answer holds no token");
  }
  return token;
}
