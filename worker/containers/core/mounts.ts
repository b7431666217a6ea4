/** `Binds`, `Mounts`, `Tmpfs` and the image's volumes as one list of mounts. */
import type { HostConfig, ImageConfig, ContainerConfig, ResolvedMount } from "./types.ts";

/** A mount whose volume, if it is one, has no host path yet. */
export interface WantedMount extends Omit<ResolvedMount, "source"> {
  readonly source: string;
  /** Make a volume without a name. */
  readonly anonymous?: boolean;
  /** How its volume shall be if it has to be made. */
  readonly volume?: {
    readonly driver: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly options: Readonly<Record<string, string>>;
  };
}

export type MountPlan =
  { readonly ok: true; readonly mounts: readonly WantedMount[] } | { readonly ok: false; readonly why: string };

const propagations = new Set(["private", "rprivate", "shared", "rshared", "slave", "rslave"]);
const volumeName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}$/;

class Wrong extends Error {}

/** Lexical clean-up of an absolute path; nothing is looked up. */
export function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}

function destinationOf(path: string): string {
  if (!path.startsWith("/")) throw new Wrong(`invalid mount path: '${path}' mount path must be absolute`);
  if (path.includes("\0")) throw new Wrong("a mount path holds a NUL");
  const clean = cleanPath(path);
  if (clean === "/") throw new Wrong(`invalid mount path: '${path}': destination can't be '/'`);
  return clean;
}

/** `SOURCE:DESTINATION[:OPTIONS]`, `DESTINATION` alone for a volume without a name. */
function parseBind(text: string): WantedMount {
  const parts = text.split(":");
  if (parts.length > 3 || parts.some((part) => part === "")) throw new Wrong(`invalid volume specification: '${text}'`);
  if (parts.length === 1) return anonymous(parts[0] ?? "");
  const [source = "", destination = "", options = ""] = parts;
  let readOnly = false;
  let noCopy = false;
  let propagation = "rprivate";
  for (const option of options === "" ? [] : options.split(",")) {
    if (option === "ro") readOnly = true;
    else if (propagations.has(option)) propagation = option;
    else if (option === "nocopy") noCopy = true;
    // z and Z relabel for SELinux, cached and its kin change nothing here.
    else if (!["rw", "z", "Z", "cached", "delegated", "consistent"].includes(option)) {
      throw new Wrong(`invalid mode: ${option}`);
    }
  }
  if (source.startsWith("/")) {
    return {
      type: "bind",
      source: cleanPath(source),
      destination: destinationOf(destination),
      readOnly,
      propagation,
      recursive: true,
    };
  }
  if (!volumeName.test(source)) {
    throw new Wrong(
      `"${source}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`,
    );
  }
  return {
    type: "volume",
    name: source,
    source: "",
    destination: destinationOf(destination),
    readOnly,
    propagation,
    recursive: true,
    ...(noCopy ? { noCopy } : {}),
  };
}

function anonymous(destination: string): WantedMount {
  return {
    type: "volume",
    source: "",
    destination: destinationOf(destination),
    readOnly: false,
    propagation: "rprivate",
    recursive: true,
    anonymous: true,
  };
}

function parseMount(mount: NonNullable<HostConfig["Mounts"]>[number]): WantedMount {
  const destination = destinationOf(mount.Target);
  const readOnly = mount.ReadOnly ?? false;
  switch (mount.Type) {
    case "bind": {
      const source = mount.Source ?? "";
      const propagation = mount.BindOptions?.Propagation ?? "";
      if (!source.startsWith("/"))
        throw new Wrong('invalid mount config for type "bind": field Source must be an absolute path');
      if (propagation !== "" && !propagations.has(propagation))
        throw new Wrong(`invalid propagation mode: ${propagation}`);
      return {
        type: "bind",
        source: cleanPath(source),
        destination,
        readOnly,
        propagation: propagation === "" ? "rprivate" : propagation,
        recursive: mount.BindOptions?.NonRecursive !== true,
      };
    }
    case "volume": {
      const { NoCopy, Subpath, Labels, DriverConfig } = mount.VolumeOptions ?? {};
      if (Subpath !== undefined && Subpath !== "") throw new Wrong("a subpath of a volume cannot be mounted");
      const more = {
        volume: {
          driver: DriverConfig?.Name ?? "",
          labels: { ...Labels },
          options: { ...DriverConfig?.Options },
        },
        ...(NoCopy === true ? { noCopy: true } : {}),
      };
      if (mount.Source === undefined || mount.Source === "") return { ...anonymous(mount.Target), readOnly, ...more };
      if (!volumeName.test(mount.Source)) throw new Wrong(`invalid volume name: "${mount.Source}"`);
      return {
        type: "volume",
        name: mount.Source,
        source: "",
        destination,
        readOnly,
        propagation: "rprivate",
        recursive: true,
        ...more,
      };
    }
    case "tmpfs": {
      const { SizeBytes, Mode, Options } = mount.TmpfsOptions ?? {};
      const asked = (Options ?? []).map((words) => words.join("="));
      const unknown = asked.find((option) => option !== "exec" && option !== "noexec");
      if (unknown !== undefined) throw new Wrong(`invalid tmpfs option: ${unknown}`);
      const tmpfsOptions = [asked.includes("exec") ? "exec" : "noexec", "nosuid", "nodev"];
      if (SizeBytes !== undefined && SizeBytes > 0) tmpfsOptions.push(`size=${SizeBytes}`);
      tmpfsOptions.push(`mode=${(Mode ?? 0o1777).toString(8)}`);
      return {
        type: "tmpfs",
        source: "",
        destination,
        readOnly,
        propagation: "rprivate",
        recursive: true,
        tmpfsOptions,
      };
    }
    default:
      throw new Wrong(`mount type "${String(mount.Type)}" unknown`);
  }
}

function parseTmpfs(path: string, options: string): WantedMount {
  const chosen = options === "" ? [] : options.split(",");
  const readOnly = chosen.includes("ro");
  const tmpfsOptions = ["noexec", "nosuid", "nodev", ...chosen.filter((option) => option !== "ro" && option !== "rw")];
  return {
    type: "tmpfs",
    source: "",
    destination: destinationOf(path),
    readOnly,
    propagation: "rprivate",
    recursive: true,
    tmpfsOptions,
  };
}

/** Later ones of these win over the image's volumes at the same destination; two wishes of the user for one place are refused. */
export function planMounts(config: ContainerConfig, host: HostConfig, image: ImageConfig): MountPlan {
  try {
    const chosen = [
      ...(host.Binds ?? []).map(parseBind),
      ...(host.Mounts ?? []).map(parseMount),
      ...Object.entries(host.Tmpfs ?? {}).map(([path, options]) => parseTmpfs(path, options)),
    ];
    const taken = new Set<string>();
    for (const { destination } of chosen) {
      if (taken.has(destination)) throw new Wrong(`Duplicate mount point: ${destination}`);
      taken.add(destination);
    }
    const inherited = [...Object.keys(image.Volumes ?? {}), ...Object.keys(config.Volumes ?? {})]
      .map((path) => anonymous(path))
      .filter(({ destination }) => !taken.has(destination) && taken.add(destination));
    // Parents before children: a volume below another one is mounted into it.
    const depth = (mount: WantedMount): number => mount.destination.split("/").length;
    return { ok: true, mounts: [...chosen, ...inherited].sort((a, b) => depth(a) - depth(b)) };
  } catch (error) {
    if (error instanceof Wrong) return { ok: false, why: error.message };
    throw error;
  }
}
