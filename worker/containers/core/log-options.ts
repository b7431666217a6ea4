/** Options of a container's log: what they may be, in the Engine's words, and what they mean. */
import type { HostConfig } from "./types.ts";

/** Of every driver. */
const common = ["mode", "max-buffer-size"];
const known: Readonly<Record<string, readonly string[]>> = {
  "json-file": ["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
  local: ["max-size", "max-file", "compress"],
};

/** `10m`, `1.5 GB`, bytes; undefined for what is none. */
export function logSize(text: string): number | undefined {
  const [, number, unit = ""] = /^([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?$/i.exec(text) ?? [];
  if (number === undefined) return undefined;
  return Math.round(Number(number) * 2 ** (10 * " kmgtp".indexOf(unit.toLowerCase() || " ")));
}

export function wrongLogOptions({ Type = "", Config }: NonNullable<HostConfig["LogConfig"]>): string | undefined {
  const driver = Type === "" ? "json-file" : Type;
  const options = Config ?? {};
  const allowed = known[driver];
  if (allowed === undefined) return undefined;
  for (const name of Object.keys(options)) {
    if (!allowed.includes(name) && !common.includes(name)) return `unknown log opt '${name}' for ${driver} log driver`;
  }
  const { "max-size": size, "max-file": files, mode = "" } = options;
  if (!["", "blocking", "non-blocking"].includes(mode)) return `logger: logging mode not supported: ${mode}`;
  if (options["max-buffer-size"] !== undefined && mode !== "non-blocking")
    return "logger: max-buffer-size option is only supported with 'mode=non-blocking'";
  if (size !== undefined) {
    const bytes = logSize(size);
    if (bytes === undefined) return `invalid size: '${size}'`;
    if (bytes <= 0) return "max-size must be a positive number";
  }
  if (files === undefined) return undefined;
  if (!/^[+-]?[0-9]{1,9}$/.test(files)) return `strconv.Atoi: parsing ${JSON.stringify(files)}: invalid syntax`;
  return Number(files) < 1 ? "max-file cannot be less than 1" : undefined;
}
