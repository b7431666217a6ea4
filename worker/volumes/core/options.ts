/** What a local volume may be asked for: its name, and the mount options of Docker's `local` driver. Pure. */

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
const nameMax = 255;

/** Why a text is no name of a volume, in the Engine's words; undefined when it is one. */
export function wrongVolumeName(name: string): string | undefined {
  if (name.length === 1) return "volume name is too short, names should be at least two alphanumeric characters";
  if (namePattern.test(name) && name.length <= nameMax) return undefined;
  return `"${name.slice(0, nameMax)}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`;
}

/** What to mount on a volume's directory before it is used (mount(8)). */
export interface VolumeMount {
  readonly type: string;
  readonly device: string;
  /** Comma separated; empty: the defaults. */
  readonly options: string;
}

export type OptionsReading =
  | { readonly ok: true; /** Undefined: a plain directory. */ readonly mount: VolumeMount | undefined }
  | { readonly ok: false; readonly why: string };

export function readVolumeOptions(options: Readonly<Record<string, string>>): OptionsReading {
  for (const [key, value] of Object.entries(options)) {
    if (!["type", "o", "device", "size"].includes(key)) return { ok: false, why: `invalid option: "${key}"` };
    if (/[\0\n]/.test(value)) return { ok: false, why: `invalid value of option "${key}"` };
  }
  const { type = "", device = "", o = "", size = "" } = options;
  if (size !== "") return { ok: false, why: "quota size requested but no quota support" };
  if (type === "" && device === "" && o === "") return { ok: true, mount: undefined };
  if (device === "") return { ok: false, why: 'missing required option: "device"' };
  if (type === "") return { ok: false, why: 'missing required option: "type"' };
  return { ok: true, mount: { type, device, options: o } };
}

/** A line of fstab(5); white space and backslashes in fields are octal escapes. */
export function fstabLine(mount: VolumeMount, target: string): string {
  const escape = (text: string): string =>
    text.replace(/[\s\\#]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`);
  const options = mount.options === "" ? "defaults" : mount.options;
  return `${[mount.device, target, mount.type, options].map(escape).join(" ")} 0 0\n`;
}
