/** A real registry (Debian's docker-registry) on loopback, with the ways of logging in that registries have. */
import { spawn, execFileSync } from "node:child_process";
import { createHash, createSign, randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

export const registryProgram = "/usr/bin/docker-registry";

export interface RegistryOptions {
  readonly folder: string;
  readonly auth?: "basic" | "token";
  readonly tls?: boolean;
}

export interface TestRegistry extends AsyncDisposable {
  /** host:port */
  readonly host: string;
  /** PEM of the certificate, with `tls`. */
  readonly ca: string | undefined;
  /** Requests that the token service has answered. */
  readonly tokensGiven: () => number;
}

/** What tokens are good for. */
const service = "registry.test";

export const registryUser = { username: "bee", password: "honey:comb" };

/** A reason not to run, or false. */
export function registryMissing(): string | false {
  return existsSync(registryProgram) && existsSync("/usr/bin/skopeo")
    ? false
    : "needs Debian's docker-registry and skopeo";
}

export async function startRegistry(options: RegistryOptions): Promise<TestRegistry> {
  mkdirSync(options.folder, { recursive: true });
  const cert = join(options.folder, "cert.pem");
  const key = join(options.folder, "key.pem");
  if (options.tls === true || options.auth === "token") makeCertificate(cert, key);
  const config: string[] = [
    "version: 0.1",
    "log: {level: info}",
    `storage: {filesystem: {rootdirectory: ${join(options.folder, "data")}}, delete: {enabled: true}}`,
    // The kernel chooses a port, and the registry says which.
    `http: {addr: "127.0.0.1:0"${options.tls === true ? `, tls: {certificate: ${cert}, key: ${key}}` : ""}}`,
  ];
  let tokens: { server: Server; given: () => number } | undefined;
  if (options.auth === "basic") {
    const passwords = join(options.folder, "htpasswd");
    execFileSync("htpasswd", ["-Bbc", passwords, registryUser.username, registryUser.password], { stdio: "ignore" });
    config.push(`auth: {htpasswd: {realm: test, path: ${passwords}}}`);
  } else if (options.auth === "token") {
    tokens = await startTokenService(cert, key);
    const realm = `http://127.0.0.1:${(tokens.server.address() as AddressInfo).port}/token`;
    config.push(`auth: {token: {realm: "${realm}", service: "${service}", issuer: test, rootcertbundle: ${cert}}}`);
  }
  const file = join(options.folder, "config.yml");
  writeFileSync(file, `${config.join("\n")}\n`);
  const child = spawn(registryProgram, ["serve", file], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { PATH: "/usr/bin" },
  });
  const said: string[] = [];
  const ready = Promise.withResolvers<string>();
  createInterface(child.stderr).on("line", (line) => {
    if (said.length < 50) said.push(line);
    const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
    if (host !== undefined) ready.resolve(host);
  });
  child.once("exit", (code) => ready.reject(new Error(`docker-registry ended with ${code}: ${said.join("\n")}`)));
  const host = await ready.promise;
  return {
    host,
    ca: existsSync(cert) ? readFileSync(cert, "utf8") : undefined,
    tokensGiven: () => tokens?.given() ?? 0,
    [Symbol.asyncDispose]: async () => {
      child.removeAllListeners("exit");
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
      tokens?.server.closeAllConnections();
      tokens?.server.close();
    },
  };
}

function makeCertificate(cert: string, key: string): void {
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync(
    "openssl",
    ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject, "-keyout", key, "-out", cert],
    {
      stdio: "ignore",
    },
  );
}

/** Gives tokens for right credentials, as the distribution specification's token service does. */
async function startTokenService(cert: string, key: string): Promise<{ server: Server; given: () => number }> {
  let given = 0;
  const expected = `Basic ${Buffer.from(`${registryUser.username}:${registryUser.password}`).toString("base64")}`;
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://token");
    if (request.headers.authorization !== expected) {
      response.writeHead(401).end();
      return;
    }
    const [type, name, actions] = (url.searchParams.get("scope") ?? "::").split(":");
    const access = [{ type, name, actions: (actions ?? "").split(",") }];
    given++;
    const token = signToken({ service, cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8"), access });
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token, expires_in: 300 }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, given: () => given };
}

function signToken(options: { service: string; cert: string; key: string; access: unknown }): string {
  const der = options.cert.replace(/-----[A-Z ]+-----|\s/g, "");
  const now = Math.floor(Date.now() / 1000);
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const head = encode({ typ: "JWT", alg: "RS256", x5c: [der], kid: createHash("sha256").update(der).digest("hex") });
  const claims = {
    iss: "test",
    sub: "bee",
    aud: options.service,
    exp: now + 300,
    nbf: now - 10,
    iat: now,
    jti: randomUUID(),
  };
  const body = `${head}.${encode({ ...claims, access: options.access })}`;
  return `${body}.${createSign("RSA-SHA256").update(body).sign(options.key).toString("base64url")}`;
}
