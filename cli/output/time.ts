/** Times on the command line: absolute, or how long ago. */
import { CommandError } from "../errors.ts";
import { parseDurationNs } from "../../lib/pure/duration.ts";

/**
 * @param text a duration ("42m": so long before now), seconds since 1970 with a fraction, or a date with or without a
 *             clock and zone
 * @param flag named in the refusal, where the reference names it
 * @returns    seconds since 1970, as the API's `since` and `until` want them
 */
export function sinceQuery(text: string, nowMs: number, flag?: "since" | "until"): string {
  if (/^\d+(\.\d{1,9})?$/.test(text)) return text;
  try {
    const ms = nowMs - Number(parseDurationNs(text)) / 1e6;
    return String(Math.trunc(ms / 1000));
  } catch {
    // Not a duration: a date then.
  }
  const hasZone = /(Z|[+-]\d\d:\d\d)$/.test(text);
  const ms = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(hasZone || !text.includes("T") ? text : text) : Number.NaN;
  if (Number.isNaN(ms)) {
    const what = flag === undefined ? "" : `invalid value for ${JSON.stringify(flag)}: `;
    throw new CommandError(`${what}failed to parse value as time or duration: ${JSON.stringify(text)}`);
  }
  return `${Math.trunc(ms / 1000)}.${String(ms % 1000).padStart(3, "0")}000000`;
}
