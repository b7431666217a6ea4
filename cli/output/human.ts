/** Times, sizes and ids as Docker's tables show them. */

/** Shortens an id to 12 characters, without a digest's algorithm. */
export function shortId(id: string): string {
  return id.replace(/^[a-z0-9]+:/, "").slice(0, 12);
}

/** What a terminal shows in one cell each, as near as tables need it. */
export const characters = (text: string): string[] => Array.from(text);

/** At most `length` columns, with an ellipsis. */
export function shorten(text: string, length: number): string {
  const cells = characters(text);
  if (cells.length <= length) return text;
  return length <= 1 ? cells.slice(0, length).join("") : `${cells.slice(0, length - 1).join("")}…`;
}

/** "About a minute", "3 hours", as go-units' HumanDuration. */
export function humanDuration(ms: number): string {
  const seconds = Math.trunc(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(ms / 3_600_000);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(ms / 3_600_000 / 24 / 365)} years`;
}

/** "3 minutes ago". @param time RFC 3339 */
export function ago(time: string, nowMs: number): string {
  return `${humanDuration(nowMs - Date.parse(time))} ago`;
}

/** Powers of 1,000: "12.3MB". */
export function decimalSize(bytes: number, precision = 3): string {
  return sized(bytes, 1000, ["B", "kB", "MB", "GB", "TB", "PB", "EB"], precision);
}

/** Powers of 1,024: "64MiB". */
export function binarySize(bytes: number): string {
  return sized(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4);
}

function sized(bytes: number, base: number, units: readonly string[], precision: number): string {
  let value = bytes;
  let at = 0;
  while (value >= base && at < units.length - 1) {
    value /= base;
    at++;
  }
  return Number(value.toPrecision(precision)).toString() + (units[at] ?? "");
}

/** "Running 3 minutes ago" needs the first letter large. */
export const capitalize = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** RFC 3339 as Go prints a time in `inspect --pretty`. */
export function goTime(time: string, zone: "utc" | "UTC" = "utc"): string {
  const [, date = "", clock = "", fraction = ""] = /^(\S{10})T(\d\d:\d\d:\d\d)(\.\d+)?Z$/.exec(time) ?? [];
  return date === "" ? time : `${date} ${clock}${fraction} +0000 ${zone}`;
}
