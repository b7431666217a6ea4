/**
 * Durations as Go prints and reads them ("1h2m3s", "500ms", "1.5h"), since every Docker flag, stack file and answer
 * uses that form. In the objects a duration is an integer of nanoseconds.
 */
import { ClusterError } from "./errors.ts";

export class DurationInvalid extends ClusterError {
  readonly code = "DURATION_INVALID";
  constructor(text: string, found: string) {
    super(`Cannot read duration ${JSON.stringify(text.slice(0, 64))}: ${found}`, {
      fix: 'Write a number with a unit, for example "300ms", "10s", "1h30m" (units: ns, us, ms, s, m, h)',
    });
  }
}

const unitNs: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["µs", 1_000n], // U+00B5 micro sign
  ["μs", 1_000n], // U+03BC Greek letter mu
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n],
]);

/** Go's time.Duration is an int64. */
const maxNs = 2n ** 63n - 1n;

/**
 * @param text     for example "1h2m3.5s", "-300ms" or "0"
 * @returns        nanoseconds, exactly
 * @throws         DurationInvalid
 */
export function parseDurationNs(text: string): bigint {
  const negative = text.startsWith("-");
  let rest = negative || text.startsWith("+") ? text.slice(1) : text;
  if (rest === "0") return 0n;
  if (rest === "") throw new DurationInvalid(text, "nothing to read");
  if (rest.length > 64) throw new DurationInvalid(text, "longer than 64 characters");
  let totalNs = 0n;
  while (rest !== "") {
    const part = /^(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)?/.exec(rest);
    const [matched = "", whole = "", fraction = "", unit] = part ?? [];
    if (whole === "" && fraction === "") throw new DurationInvalid(text, "a number is missing");
    if (unit === undefined) throw new DurationInvalid(text, "a unit is missing or unknown");
    const scale = unitNs.get(unit) ?? 0n;
    totalNs += BigInt(whole === "" ? "0" : whole) * scale;
    // What is below a nanosecond is cut, as Go does.
    if (fraction !== "") totalNs += (BigInt(fraction) * scale) / 10n ** BigInt(fraction.length);
    if (totalNs > maxNs) throw new DurationInvalid(text, "more than 292 years");
    rest = rest.slice(matched.length);
  }
  return negative ? -totalNs : totalNs;
}

/** As `parseDurationNs`, in (possibly fractional) milliseconds. */
export function parseDurationMs(text: string): number {
  return Number(parseDurationNs(text)) / 1e6;
}

/** Prints as Go's Duration.String: "1h2m3.5s", "1.5ms", "0s". */
export function formatDurationNs(ns: bigint | number): string {
  let left = typeof ns === "bigint" ? ns : BigInt(Math.round(ns));
  if (left === 0n) return "0s";
  const sign = left < 0n ? "-" : "";
  if (left < 0n) left = -left;
  if (left < 1_000n) return `${sign}${left}ns`;
  if (left < 1_000_000n) return `${sign}${decimal(left, 1_000n)}µs`;
  if (left < 1_000_000_000n) return `${sign}${decimal(left, 1_000_000n)}ms`;
  const hours = left / 3_600_000_000_000n;
  const minutes = (left / 60_000_000_000n) % 60n;
  const seconds = `${decimal(left % 60_000_000_000n, 1_000_000_000n)}s`;
  if (hours > 0n) return `${sign}${hours}h${minutes}m${seconds}`;
  return minutes > 0n ? `${sign}${minutes}m${seconds}` : sign + seconds;
}

export function formatDurationMs(ms: number): string {
  return formatDurationNs(ms * 1e6);
}

/** value / scale as a decimal without trailing zeros; scale is a power of ten. */
function decimal(value: bigint, scale: bigint): string {
  const fraction = (value % scale)
    .toString()
    .padStart(scale.toString().length - 1, "0")
    .replace(/0+$/, "");
  return fraction === "" ? `${value / scale}` : `${value / scale}.${fraction}`;
}
