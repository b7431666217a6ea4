/**
 * What the daemon is told: by flags, by the environment (SKEP_DATA_ROOT for --data-root) and by a file of JSON, with
 * Docker's names where they exist. A directive may stand in one of flags and file only, as with dockerd.
 */
import { readFileSync } from "node:fs";
import { parseArgs, type ParseArgsConfig } from "node:util";

import { ClusterError } from "../lib/pure/errors.ts";
import { logLevels, type LogLevel } from "../lib/runtime/index.ts";

export interface GenericResource {
  readonly kind: string;
  /** A name of a set, or how many there are. */
  readonly value: string | number;
}

export interface AddressPool {
  readonly base: string;
  readonly size: number;
}

export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface DaemonConfig {
  readonly dataRoot: string;
  readonly execRoot: string;
  /** `unix://PATH` and, with TLS, `tcp://HOST:PORT`. */
  readonly hosts: readonly string[];
  readonly group: string;
  readonly pidFile: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly genericResources: readonly GenericResource[];
  readonly defaultAddressPools: readonly AddressPool[];
  readonly defaultAdvertiseAddr: string | undefined;
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  readonly logLevel: LogLevel;
  readonly tls: TlsFiles | undefined;
  readonly runtime: string;
  readonly cgroupParent: string;
  readonly managerUser: string;
  readonly metricsAddr: string | undefined;
  readonly configFile: string;
}

export class ConfigInvalid extends ClusterError {
  readonly code = "CONFIG_INVALID";
  constructor(what: string, fix = "See `skepd --help`") {
    super(what, { fix });
  }
}

export const usage = `usage: skepd [OPTIONS]

  --config-file FILE             configuration as JSON (default /etc/skep/daemon.json); names as the flags'
  --data-root DIR                everything that survives a reboot (default /var/lib/skep)
  --exec-root DIR                sockets and state of what runs (default /run/skep)
  -H, --host ADDRESS             listen there: unix://PATH (default unix:///run/skep/skep.sock), tcp://HOST:PORT
  -G, --group GROUP              group of the unix socket (default skep, if there is one)
  -p, --pidfile FILE             where to write the process id
  --label KEY=VALUE              label of this engine, for constraints on engine.labels.KEY; may be repeated
  --node-generic-resource KIND=VALUE
                                 what this node offers: gpu=2, or gpu=UUID1 for a named one; may be repeated
  --default-address-pool base=CIDR,size=BITS
                                 subnets of networks; may be repeated
  --swarm-default-advertise-addr ADDRESS
                                 address or interface to advertise if \`swarm init\` and \`join\` do not say
  --insecure-registry HOST       registry, or CIDR, without verified TLS; may be repeated
  --registry-mirror URL          mirror of Docker Hub; may be repeated
  --runtime PATH                 another OCI runtime, such as /usr/bin/runc (default builtin)
  --cgroup-parent PATH           cgroup under which containers are (default /skep)
  --manager-user USER            whom the manager process runs as (default skep; without such a user, a number of its own)
  --metrics-addr HOST:PORT       serve the manager's Prometheus metrics on this loopback address
  --tls, --tlsverify             for tcp: both ends show certificates; without it tcp is refused
  --tlscacert, --tlscert, --tlskey FILE
                                 for tcp (default /etc/skep/{ca,cert,key}.pem)
  -l, --log-level LEVEL          ${logLevels.join(", ")} (default info)
  --validate                     check the configuration and end
  -v, --version
  --help

Signals: SIGTERM ends the daemon; containers go on. SIGHUP reads labels and the log level anew from the file.`;

/** By the name in the file, which is that of the flag unless said; lists may be given as one value, too. */
const options = {
  "config-file": { type: "string" },
  "data-root": { type: "string" },
  "exec-root": { type: "string" },
  host: { type: "string", short: "H", multiple: true },
  group: { type: "string", short: "G" },
  pidfile: { type: "string", short: "p" },
  label: { type: "string", multiple: true },
  "node-generic-resource": { type: "string", multiple: true },
  "default-address-pool": { type: "string", multiple: true },
  "swarm-default-advertise-addr": { type: "string" },
  "insecure-registry": { type: "string", multiple: true },
  "registry-mirror": { type: "string", multiple: true },
  runtime: { type: "string" },
  "cgroup-parent": { type: "string" },
  "manager-user": { type: "string" },
  "metrics-addr": { type: "string" },
  tls: { type: "boolean" },
  tlsverify: { type: "boolean" },
  tlscacert: { type: "string" },
  tlscert: { type: "string" },
  tlskey: { type: "string" },
  "log-level": { type: "string", short: "l" },
  validate: { type: "boolean" },
  version: { type: "boolean", short: "v" },
  help: { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

type Name = keyof typeof options;
type Values = Partial<Record<Name, string | boolean | readonly string[]>>;

/** The file's names of lists are plural, as dockerd's. */
const inFile: Readonly<Record<string, Name>> = {
  hosts: "host",
  labels: "label",
  "node-generic-resources": "node-generic-resource",
  "default-address-pools": "default-address-pool",
  "insecure-registries": "insecure-registry",
  "registry-mirrors": "registry-mirror",
};
const onlyFlags = new Set<Name>(["config-file", "validate", "version", "help"]);
const fileBytesMax = 1024 * 1024;
const defaultFile = "/etc/skep/daemon.json";

export interface Invocation {
  readonly act: "run" | "validate" | "version" | "help";
  readonly config: DaemonConfig;
}

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** @returns undefined when there is no such file */
  readonly readFile: (path: string) => string | undefined;
}

/** @throws ConfigInvalid */
export function readConfig(args: readonly string[], { env, readFile }: Surroundings): Invocation {
  let flags: Values;
  try {
    flags = parseArgs({ args: [...args], options, allowPositionals: false }).values;
  } catch (error) {
    throw new ConfigInvalid((error as Error).message);
  }
  const fromEnv = readEnvironment(env);
  const asked = { ...fromEnv, ...flags };
  const configFile = text(asked, "config-file") ?? defaultFile;
  const act = (["help", "version", "validate"] as const).find((name) => flags[name] === true) ?? "run";
  const content = act === "help" || act === "version" ? undefined : readFile(configFile);
  if (content === undefined && asked["config-file"] !== undefined && act !== "help" && act !== "version") {
    throw new ConfigInvalid(`Cannot read the configuration file ${configFile}: it does not exist`);
  }
  const fromFile = content === undefined ? {} : readDirectives(configFile, content);
  const twice = Object.keys(fromFile).filter((name) => flags[name as Name] !== undefined);
  if (twice.length > 0) {
    throw new ConfigInvalid(
      `The following directives are specified both as a flag and in the configuration file ${configFile}: ${twice.join(", ")}`,
      "Keep each in one place",
    );
  }
  return { act, config: configOf({ ...fromFile, ...fromEnv, ...flags }, configFile) };
}

function readEnvironment(env: Surroundings["env"]): Values {
  const found: Values = {};
  for (const [name, option] of Object.entries(options) as [Name, (typeof options)[Name]][]) {
    if (onlyFlags.has(name) && name !== "config-file") continue;
    const value = env[`SKEP_${name.toUpperCase().replaceAll("-", "_")}`];
    // SKEP_HOST is the client's: where to find a daemon, not where to listen.
    if (value === undefined || value === "" || name === "host") continue;
    if (option.type === "boolean") found[name] = value === "1" || value === "true";
    else found[name] = "multiple" in option ? value.split(",").map((part) => part.trim()) : value;
  }
  return found;
}

function readDirectives(file: string, content: string): Values {
  const at = `in the configuration file ${file}`;
  if (content.length > fileBytesMax) throw new ConfigInvalid(`The configuration file ${file} is larger than 1 MiB`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(content);
  } catch (error) {
    throw new ConfigInvalid(`The configuration file ${file} is not JSON: ${(error as Error).message}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new ConfigInvalid(`The configuration file ${file} is not a JSON object`);
  }
  const found: Values = {};
  const unknown: string[] = [];
  for (const [key, value] of Object.entries(parsed)) {
    const name = inFile[key] ?? (key as Name);
    const option = (options as Record<string, { type: string; multiple?: boolean } | undefined>)[name];
    if (option === undefined || onlyFlags.has(name)) {
      unknown.push(key);
      continue;
    }
    found[name] = directive(key, option, value, at);
  }
  if (unknown.length > 0) {
    throw new ConfigInvalid(
      `The following directives don't match any configuration option: ${unknown.join(", ")}, ${at}`,
    );
  }
  return found;
}

function directive(
  key: string,
  option: { readonly type: string; readonly multiple?: boolean },
  value: unknown,
  at: string,
): string | boolean | readonly string[] {
  const wrong = (wanted: string): ConfigInvalid => new ConfigInvalid(`"${key}" must be ${wanted}, ${at}`);
  if (option.type === "boolean") {
    if (typeof value !== "boolean") throw wrong("true or false");
    return value;
  }
  if (option.multiple !== true) {
    if (typeof value !== "string") throw wrong("a text");
    return value;
  }
  if (!Array.isArray(value)) throw wrong("a list");
  return value.map((item: unknown) => {
    if (typeof item === "string") return item;
    if (key !== "default-address-pools" || typeof item !== "object" || item === null) throw wrong("a list of texts");
    const { base, size } = item as { base?: unknown; size?: unknown };
    if (typeof base !== "string" || typeof size !== "number") throw wrong('a list of {"base", "size"}');
    return `base=${base},size=${size}`;
  });
}

const text = (values: Values, name: Name): string | undefined => {
  const value = values[name];
  return typeof value === "string" && value !== "" ? value : undefined;
};
const list = (values: Values, name: Name): readonly string[] => {
  const value = values[name];
  return Array.isArray(value) ? (value as string[]) : [];
};

function configOf(values: Values, configFile: string): DaemonConfig {
  const execRoot = absolute(values, "exec-root", "/run/skep");
  const hosts = list(values, "host").map(hostOf);
  const wantsTls = values.tls === true || values.tlsverify === true;
  const tcp = hosts.find((host) => host.startsWith("tcp://"));
  if (tcp !== undefined && !wantsTls) {
    throw new ConfigInvalid(
      `Cannot listen on ${tcp} without TLS: whoever reaches it would be root on this host`,
      "Add --tlsverify with --tlscacert, --tlscert and --tlskey, or reach the unix socket over ssh",
    );
  }
  const logLevel = logLevels.find((level) => level === (text(values, "log-level") ?? "info"));
  if (logLevel === undefined) throw new ConfigInvalid(`There is no log level "${text(values, "log-level") ?? ""}"`);
  const cgroupParent = text(values, "cgroup-parent") ?? "/skep";
  if (!/^(\/[A-Za-z0-9_.:-]+)+$/u.test(cgroupParent) || cgroupParent.split("/").includes("..")) {
    throw new ConfigInvalid(`--cgroup-parent "${cgroupParent}" is not a path below the root of the hierarchy`);
  }
  return {
    dataRoot: absolute(values, "data-root", "/var/lib/skep"),
    execRoot,
    hosts: hosts.length > 0 ? hosts : [`unix://${execRoot}/skep.sock`],
    group: text(values, "group") ?? "skep",
    pidFile: text(values, "pidfile"),
    labels: Object.fromEntries(list(values, "label").map(labelOf)),
    genericResources: list(values, "node-generic-resource").flatMap(resourcesOf),
    defaultAddressPools: list(values, "default-address-pool").map(poolOf),
    defaultAdvertiseAddr: text(values, "swarm-default-advertise-addr"),
    insecureRegistries: list(values, "insecure-registry"),
    registryMirrors: list(values, "registry-mirror").map(mirrorOf),
    logLevel,
    tls: wantsTls
      ? {
          ca: text(values, "tlscacert") ?? "/etc/skep/ca.pem",
          cert: text(values, "tlscert") ?? "/etc/skep/cert.pem",
          key: text(values, "tlskey") ?? "/etc/skep/key.pem",
        }
      : undefined,
    runtime: text(values, "runtime") ?? "builtin",
    cgroupParent,
    managerUser: text(values, "manager-user") ?? "skep",
    metricsAddr: text(values, "metrics-addr"),
    configFile,
  };
}

function absolute(values: Values, name: Name, otherwise: string): string {
  const path = text(values, name) ?? otherwise;
  if (!path.startsWith("/")) throw new ConfigInvalid(`--${name} "${path}" is not an absolute path`);
  return path.replace(/\/+$/u, "") || "/";
}

/** A unix socket's path is at most 107 bytes long (unix(7)). */
const socketPathMax = 107;

function hostOf(host: string): string {
  const path = /^unix:\/\/(\/.+)$/u.exec(host)?.[1];
  if (path !== undefined) {
    if (Buffer.byteLength(path) > socketPathMax)
      throw new ConfigInvalid(`The path of ${host} is too long for a socket`);
    return host;
  }
  if (/^tcp:\/\/(?:\[[0-9a-fA-F:]+\]|[^\s:/[\]]+):\d{1,5}$/u.test(host)) return host;
  throw new ConfigInvalid(`--host "${host}" is neither unix:///PATH nor tcp://HOST:PORT`);
}

function labelOf(label: string): [string, string] {
  const at = label.indexOf("=");
  if (at <= 0) throw new ConfigInvalid(`--label "${label}" is not KEY=VALUE`);
  return [label.slice(0, at), label.slice(at + 1)];
}

/** `gpu=2` is a count; `gpu=A,gpu=B` or two flags are names. */
function resourcesOf(resources: string): GenericResource[] {
  return resources.split(",").map((resource) => {
    const [, kind, value] = /^([A-Za-z0-9_.-]+)=([A-Za-z0-9_.:-]+)$/u.exec(resource.trim()) ?? [];
    if (kind === undefined || value === undefined) {
      throw new ConfigInvalid(`--node-generic-resource "${resource}" is not KIND=VALUE`);
    }
    return { kind, value: /^\d{1,15}$/u.test(value) ? Number(value) : value };
  });
}

function poolOf(pool: string): AddressPool {
  const parts = new Map(pool.split(",").map((part) => part.split("=", 2) as [string, string]));
  const base = parts.get("base") ?? "";
  const size = Number(parts.get("size"));
  if (!/^[0-9a-fA-F.:]+\/\d{1,3}$/u.test(base) || !Number.isInteger(size) || size < 1 || size > 128) {
    throw new ConfigInvalid(`--default-address-pool "${pool}" is not base=CIDR,size=BITS`);
  }
  return { base, size };
}

function mirrorOf(mirror: string): string {
  if (!URL.canParse(mirror) || !/^https?:$/u.test(new URL(mirror).protocol)) {
    throw new ConfigInvalid(`--registry-mirror "${mirror}" is not a URL`);
  }
  return mirror;
}

/** For `readConfig`, from the disk. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new ConfigInvalid(`Cannot read the configuration file ${path}: ${(error as Error).message}`);
  }
}
