/** Which daemon: `--host`, a context, `SKEP_HOST`, `DOCKER_HOST`, or the local socket; and its TLS material. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CommandError, messageOf } from "../errors.ts";

export const defaultHost = "unix:///run/skep/skep.sock";

export interface TlsFiles {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** Whether the daemon's certificate is checked. */
  readonly verify: boolean;
}

export interface Endpoint {
  /** As a person writes it. */
  readonly name: string;
  /** For `http.request`. */
  readonly connect: { readonly socketPath: string } | { readonly host: string; readonly port: number };
  readonly hostHeader: string;
  /** For `https.Agent`; undefined for plain HTTP. */
  readonly tls: object | undefined;
}

/** @throws CommandError on a form that is not understood */
export function endpointOf(host: string, tls: TlsFiles | undefined): Endpoint {
  const unix = /^unix:\/\/(.+)$/.exec(host);
  if (unix !== null) {
    return { name: host, connect: { socketPath: unix[1] ?? "" }, hostHeader: "api.skep.localhost", tls: undefined };
  }
  const tcp = /^(?:tcp|http|https):\/\/(\[[0-9a-fA-F:.]+\]|[^:/]+)(?::(\d+))?\/?$/.exec(host);
  if (tcp === null) {
    throw new CommandError(
      `invalid host ${JSON.stringify(host)}: write unix:///PATH/TO/SOCKET or tcp://HOST:PORT (with --tlsverify for TLS)`,
    );
  }
  const secured = tls ?? (host.startsWith("https:") ? { verify: true } : undefined);
  const [, name = "", port = secured === undefined ? "2375" : "2376"] = tcp;
  return {
    name: host,
    connect: { host: name.replace(/^\[|\]$/g, ""), port: Number(port) },
    hostHeader: `${name}:${port}`,
    tls: secured === undefined ? undefined : material(secured),
  };
}

/** The files `ca.pem`, `cert.pem` and `key.pem` of a folder (DOCKER_CERT_PATH). */
export function tlsFilesIn(folder: string, verify: boolean): TlsFiles {
  return { ca: join(folder, "ca.pem"), cert: join(folder, "cert.pem"), key: join(folder, "key.pem"), verify };
}

function material({ ca, cert, key, verify }: TlsFiles): object {
  const read = (what: string, path: string | undefined): Buffer | undefined => {
    if (path === undefined || path === "") return undefined;
    try {
      return readFileSync(path);
    } catch (error) {
      throw new CommandError(`Cannot read the TLS ${what} ${path}: ${messageOf(error)}`);
    }
  };
  return {
    ca: verify ? read("authority", ca) : undefined,
    cert: read("certificate", cert),
    key: read("key", key),
    rejectUnauthorized: verify,
    minVersion: "TLSv1.2",
  };
}
