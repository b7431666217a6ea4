/** Byte sizes as Docker reads them: "512", "64k", "1.5GiB". Units are powers of 1,024, with or without "B" or "iB". */
import { ClusterError } from "./errors.ts";

export class ByteSizeInvalid extends ClusterError {
  readonly code = "BYTE_SIZE_INVALID";
  constructor(text: string) {
    super(`Cannot read size ${JSON.stringify(text.slice(0, 64))}: not a number with an optional unit`, {
      fix: 'Write a number of bytes, or one with a unit: "64k", "512MiB", "2g"',
    });
  }
}

const exponents = "bkmgtp";

/**
 * @returns bytes, a whole number up to 2^53-1
 * @throws ByteSizeInvalid
 */
export function parseByteSize(text: string): number {
  const parts = /^(\d{1,16}(?:\.\d{1,9})?) ?([bkmgtp]?)(?:i?b)?$/.exec(text.trim().toLowerCase());
  if (parts === null) throw new ByteSizeInvalid(text);
  const [, number = "", unit = ""] = parts;
  const bytes = Math.floor(Number(number) * 1024 ** Math.max(0, exponents.indexOf(unit === "" ? "b" : unit)));
  if (!Number.isSafeInteger(bytes)) throw new ByteSizeInvalid(text);
  return bytes;
}

/** For people: "512 B", "1.5 KiB", "64 MiB". Three significant digits at most. */
export function formatByteSize(bytes: number): string {
  let value = bytes;
  let exponent = 0;
  while (value >= 1024 && exponent < exponents.length - 1) {
    value /= 1024;
    exponent++;
  }
  const unit = exponent === 0 ? "B" : `${exponents.charAt(exponent).toUpperCase()}iB`;
  return `${value >= 100 || exponent === 0 ? Math.round(value) : Number(value.toPrecision(3))} ${unit}`;
}
