/**
 * How the values of service flags are written: mounts, secrets, configs, networks, ports, and the like. Each function
 * reads one use of a flag, or throws an Error with the reason.
 */
import { resolve } from "node:path";
import type {
  ConfigReference,
  CredentialSpec,
  FileTarget,
  GenericResource,
  Mount,
  NetworkAttachment,
  PortConfig,
  SecretReference,
  Ulimit,
} from "../api/types.ts";
import { readBytes } from "../grammar/flags.ts";

/** One line of CSV: fields parted by commas, quoted with `"` where they hold one. */
export function csv(text: string): string[] {
  const fields: string[] = [];
  let at = 0;
  do {
    if (text.charAt(at) === '"') {
      const quoted = /^"((?:[^"]|"")*)"(?=,|$)/.exec(text.slice(at));
      if (quoted === null)
        throw new Error(`parse error on line 1, column ${at + 1}: extraneous or missing " in quoted-field`);
      fields.push((quoted[1] ?? "").replaceAll('""', '"'));
      at += quoted[0].length + 1;
    } else {
      const comma = text.indexOf(",", at);
      fields.push(text.slice(at, comma < 0 ? undefined : comma));
      at = comma < 0 ? text.length + 1 : comma + 1;
    }
  } while (at <= text.length);
  return fields;
}

/** `key=value`, the key in small letters. The value is undefined without a "=". */
function pair(field: string): [key: string, value: string | undefined] {
  const at = field.indexOf("=");
  return at < 0 ? [field.toLowerCase(), undefined] : [field.slice(0, at).toLowerCase(), field.slice(at + 1)];
}

export function split(text: string, separator = "="): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** `type=bind,source=/a,target=/b,readonly` */
export function mount(text: string): Mount {
  const mount: Mount = { Type: "volume" };
  const volume = (): NonNullable<Mount["VolumeOptions"]> => (mount.VolumeOptions ??= {});
  const driver = (): { Name?: string; Options?: Record<string, string> } => (volume().DriverConfig ??= { Name: "" });
  const bind = (): Record<string, unknown> => (mount.BindOptions ??= {});
  for (const field of csv(text)) {
    const [key, given] = pair(field);
    const value = given ?? "";
    if (
      given === undefined &&
      !["readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"].includes(key)
    ) {
      throw new Error(`invalid field '${field}' must be a key=value pair`);
    }
    switch (key) {
      case "type":
        mount.Type = value.toLowerCase();
        break;
      case "source":
      case "src":
        mount.Source = value.startsWith(".") ? resolve(value) : value;
        break;
      case "target":
      case "dst":
      case "destination":
        mount.Target = value;
        break;
      case "readonly":
      case "ro":
        mount.ReadOnly = flagValue(key, given);
        break;
      case "consistency":
        mount.Consistency = value.toLowerCase();
        break;
      case "bind-propagation":
        bind()["Propagation"] = value.toLowerCase();
        break;
      case "bind-nonrecursive":
        bind()["NonRecursive"] = flagValue(key, given);
        break;
      case "bind-create-src":
        bind()["CreateMountpoint"] = flagValue(key, given);
        break;
      case "bind-recursive":
        Object.assign(bind(), recursion(value, mount));
        break;
      case "volume-subpath":
        volume().Subpath = value;
        break;
      case "volume-nocopy":
        volume().NoCopy = flagValue(key, given);
        break;
      case "volume-label": {
        const [name, content = ""] = split(value);
        (volume().Labels ??= {})[name] = content;
        break;
      }
      case "volume-driver":
        driver().Name = value;
        break;
      case "volume-opt": {
        const [name, content = ""] = split(value);
        (driver().Options ??= {})[name] = content;
        break;
      }
      case "image-subpath":
        (mount.ImageOptions ??= {}).Subpath = value;
        break;
      case "tmpfs-size":
        (mount.TmpfsOptions ??= {}).SizeBytes = sized(key, value);
        break;
      case "tmpfs-mode":
        if (!/^[0-7]+$/.test(value)) throw new Error(`invalid value for ${key}: ${value}`);
        (mount.TmpfsOptions ??= {}).Mode = Number.parseInt(value, 8);
        break;
      default:
        throw new Error(`unexpected key '${key}' in '${field}'`);
    }
  }
  return checkedMount(mount);
}

function checkedMount(mount: Mount): Mount {
  if (mount.Type === "") throw new Error("type is required");
  if (mount.Target === undefined || mount.Target === "") throw new Error("target is required");
  const allowed: readonly (readonly [keyof Mount, string])[] = [
    ["VolumeOptions", "volume"],
    ["BindOptions", "bind"],
    ["TmpfsOptions", "tmpfs"],
    ["ImageOptions", "image"],
  ];
  for (const [options, type] of allowed) {
    if (mount[options] !== undefined && mount.Type !== type) {
      throw new Error(`cannot mix '${type}-*' options with mount type '${mount.Type ?? ""}'`);
    }
  }
  const driver = mount.VolumeOptions?.DriverConfig;
  // Options without a driver's name are for the engine's own.
  if (driver?.Name === "") delete driver.Name;
  return mount;
}

function recursion(value: string, mount: Mount): Record<string, unknown> {
  switch (value) {
    case "enabled":
      return {};
    case "disabled":
      return { NonRecursive: true };
    case "writable":
      return { ReadOnlyNonRecursive: true };
    case "readonly":
      if (mount.ReadOnly !== true)
        throw new Error("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction");
      return { ReadOnlyForceRecursive: true };
    default:
      throw new Error(
        `invalid value for bind-recursive: ${value} (must be "enabled", "disabled", "writable", or "readonly")`,
      );
  }
}

function flagValue(key: string, value: string | undefined): boolean {
  if (value === undefined || /^(1|true)$/.test(value)) return true;
  if (/^(0|false)$/.test(value)) return false;
  throw new Error(`invalid value for ${key}: ${value}`);
}

function sized(key: string, value: string): number {
  try {
    return readBytes(value);
  } catch {
    throw new Error(`invalid value for ${key}: ${value}`);
  }
}

/** `NAME` or `source=NAME,target=FILE,uid=0,gid=0,mode=0444` */
function file(text: string, what: "secret" | "config"): { name: string; file: FileTarget } {
  const fields = csv(text);
  const [only = ""] = fields;
  const target: FileTarget = { Name: "", UID: "0", GID: "0", Mode: 0o444 };
  if (fields.length === 1 && !only.includes("=")) {
    return { name: only, file: { ...target, Name: only } };
  }
  let name = "";
  for (const field of fields) {
    const [key, given] = pair(field);
    if (given === undefined) throw new Error(`invalid field '${field}' must be a key=value pair`);
    switch (key) {
      case "source":
      case "src":
        name = given;
        break;
      case "target":
        target.Name = given;
        break;
      case "uid":
        target.UID = given;
        break;
      case "gid":
        target.GID = given;
        break;
      case "mode":
        target.Mode = fileMode(given);
        break;
      default:
        throw new Error(`invalid field in ${what} request: ${key}`);
    }
  }
  if (name === "") throw new Error("source is required");
  return { name, file: { ...target, Name: target.Name === "" ? name : target.Name } };
}

/** As Go reads base 0: "0444" is octal, "292" decimal. */
function fileMode(text: string): number {
  const octal = /^0o?([0-7]+)$/i.exec(text);
  if (octal !== null) return Number.parseInt(octal[1] ?? "", 8);
  if (/^(0x[0-9a-f]+|\d+)$/i.test(text)) return Number(text);
  throw new Error(`invalid mode specified: strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
}

export function secret(text: string): SecretReference {
  const { name, file: File } = file(text, "secret");
  return { File, SecretName: name };
}

export function config(text: string): ConfigReference {
  const { name, file: File } = file(text, "config");
  return { File, ConfigName: name };
}

/** `NAME` or `name=NAME,alias=A,driver-opt=K=V`. The target is a name until it is looked up. */
export function network(text: string): NetworkAttachment {
  const fields = csv(text);
  if (fields.length === 1 && !text.includes("=")) return { Target: text };
  const found: NetworkAttachment = { Target: "" };
  for (const field of fields) {
    const [key, given] = pair(field);
    if (given === undefined || given === "") throw new Error(`invalid field ${field}`);
    const value = given.trim();
    switch (key) {
      case "name":
        found.Target = value;
        break;
      case "alias":
        (found.Aliases ??= []).push(value);
        break;
      case "driver-opt": {
        const [name, content] = split(value.toLowerCase());
        if (content === undefined) throw new Error("invalid key value pair format in driver options");
        (found.DriverOpts ??= {})[name] = content;
        break;
      }
      default:
        throw new Error(`invalid field key ${key}`);
    }
  }
  if (found.Target === "") throw new Error("network name/id is not specified");
  return found;
}

/** `8080:80/tcp`, `8000-8002:80-82`, or `published=8080,target=80,protocol=tcp,mode=host` */
export function ports(text: string): PortConfig[] {
  return text.includes("=") ? [longPort(text)] : shortPorts(text);
}

function longPort(text: string): PortConfig {
  const port: PortConfig = { Protocol: "tcp", TargetPort: 0, PublishMode: "ingress" };
  for (const field of csv(text)) {
    const [key, given] = pair(field);
    if (given === undefined || given === "") throw new Error(`invalid field: ${field}`);
    const value = given.toLowerCase();
    switch (key) {
      case "protocol":
        if (!["tcp", "udp", "sctp"].includes(value)) throw new Error(`invalid protocol value '${value}'`);
        port.Protocol = value;
        break;
      case "mode":
        if (!["ingress", "host"].includes(value))
          throw new Error(`invalid publish mode value (${value}): must be either 'ingress' or 'host'`);
        port.PublishMode = value;
        break;
      case "target":
        port.TargetPort = portNumber(key, value);
        break;
      case "published":
        port.PublishedPort = portNumber(key, value);
        break;
      default:
        throw new Error(`invalid field key: ${key}`);
    }
  }
  if (port.TargetPort === 0) throw new Error(`missing mandatory field 'target'`);
  const { Protocol, TargetPort, PublishedPort, PublishMode } = port;
  return {
    ...(Protocol === undefined ? {} : { Protocol }),
    ...(TargetPort === undefined ? {} : { TargetPort }),
    ...(PublishedPort === undefined || PublishedPort === 0 ? {} : { PublishedPort }),
    ...(PublishMode === undefined ? {} : { PublishMode }),
  };
}

function portNumber(key: string, text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65535) {
    throw new Error(
      `invalid ${key} port (${text}): value must be an integer: strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`,
    );
  }
  return Number(text);
}

function shortPorts(text: string): PortConfig[] {
  const [range, protocol = "tcp"] = split(text, "/");
  const parts = range.split(":");
  const container = parts.pop() ?? "";
  const host = parts.pop() ?? "";
  if (parts.join(":") !== "") throw new Error("hostip is not supported");
  if (!["tcp", "udp", "sctp"].includes(protocol.toLowerCase())) throw new Error(`invalid proto: ${protocol}`);
  const targets = portRange(container, "containerPort");
  const published = host === "" ? undefined : portRange(host, "hostPort");
  if (published !== undefined && published.length !== targets.length) {
    throw new Error("invalid ranges specified for container and host Ports: " + range);
  }
  return targets.map((TargetPort, at) => {
    const PublishedPort = published?.[at];
    return {
      Protocol: protocol.toLowerCase(),
      TargetPort,
      ...(PublishedPort === undefined ? {} : { PublishedPort }),
      PublishMode: "ingress",
    };
  });
}

/** "80" or "80-82" */
function portRange(text: string, what: string): number[] {
  const parts = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(parts?.[1]);
  const last = Number(parts?.[2] ?? parts?.[1]);
  if (parts === null || last > 65535 || first < (what === "hostPort" ? 0 : 1) || last < first) {
    throw new Error(`invalid ${what}: ${text}`);
  }
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

/** `spread=node.labels.zone` */
export function placementPreference(text: string): string {
  const [strategy, value] = split(text);
  if (value === undefined) throw new Error('placement preference must be of the format "<strategy>=<arg>"');
  if (strategy !== "spread") throw new Error(`unsupported placement preference ${strategy} (only spread is supported)`);
  return value;
}

/** `gpu=2`, or `gpu=UUID1` for a named one */
export function genericResource(text: string): GenericResource {
  const [Kind, value] = split(text);
  if (value === undefined || Kind === "" || value === "") {
    throw new Error(`incorrect term in generic-resource: ${text}: write KIND=AMOUNT`);
  }
  if (!/^\d+$/.test(value)) {
    throw new Error(`generic resources are requested by amount: ${text}`);
  }
  return { DiscreteResourceSpec: { Kind, Value: Number(value) } };
}

/** `nofile=1024` or `nofile=1024:2048` */
export function ulimit(text: string): Ulimit {
  const [Name, value] = split(text);
  if (value === undefined) throw new Error(`invalid ulimit argument: ${text}`);
  const [soft = "", hard = soft, more] = value.split(":");
  if (![soft, hard].every((one) => /^-?\d+$/.test(one)) || more !== undefined) {
    throw new Error(`too many limit value arguments or not a number - ${text}, use TYPE=SOFT[:HARD]`);
  }
  const [Soft, Hard] = [Number(soft), Number(hard)];
  if (Hard !== -1 && (Soft === -1 || Soft > Hard)) {
    throw new Error(`ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard}`);
  }
  return { Name, Hard, Soft };
}

/** `file://NAME`, `registry://KEY` or `config://NAME` (Windows only) */
export function credentialSpec(text: string): CredentialSpec {
  const found: CredentialSpec = { Config: "", File: "", Registry: "" };
  if (text === "") return found;
  const [scheme, value] = split(text, "://");
  if (scheme === "config") return { ...found, Config: value ?? "" };
  if (scheme === "file") return { ...found, File: value ?? "" };
  if (scheme === "registry") return { ...found, Registry: value ?? "" };
  throw new Error("invalid credential spec: value must be prefixed with 'config://', 'file://', or 'registry://'");
}

/** `host:ip`, kept as the specification has it: `ip host` */
export function hostMapping(text: string): string {
  const at = text.search(/[:=]/);
  const [host, ip] = at < 0 ? ["", ""] : [text.slice(0, at), text.slice(at + 1).replace(/^\[(.*)\]$/, "$1")];
  if (host === "" || ip === "") throw new Error(`bad format for add-host: ${JSON.stringify(text)}`);
  return `${ip} ${host}`;
}

/** A label or option: `key=value`, or `key` for an empty value. */
export function keyValues(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.map((one) => split(one)).map(([key, value]) => [key, value ?? ""]));
}

/** NET_ADMIN and CAP_NET_ADMIN are the same; ALL stays. */
export function capability(text: string): string {
  const name = text.trim().toUpperCase();
  return name === "ALL" || name === "RESET" || name.startsWith("CAP_") ? name : `CAP_${name}`;
}

/** A command line in one flag, cut as a shell cuts it. */
export function shellWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (quote === "'") {
      if (char === "'") quote = "";
      else word = (word ?? "") + char;
    } else if (char === "\\" && (quote === "" || '"\\$`'.includes(text.charAt(at + 1)))) {
      word = (word ?? "") + text.charAt(++at);
    } else if (quote === '"') {
      if (char === '"') quote = "";
      else word = (word ?? "") + char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + char;
  }
  if (quote !== "") throw new Error("EOF found when expecting closing quote");
  if (word !== undefined) words.push(word);
  return words;
}
