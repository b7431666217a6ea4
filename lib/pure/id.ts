/**
 * Object ids: 25 characters of base 36, as Swarm's. 17 random bytes (136 bits) are written as a number, reduced to 25
 * digits: 129 bits, so that two of 10^12 objects clash with a chance below 10^-15.
 */
const digits = 25;
const modulus = 36n ** BigInt(digits);
const idBytes = 17;

/** Fills the array with random bytes: the system's source in production, a seeded one in the simulator. */
export type RandomBytes = (bytes: Uint8Array) => void;

/** @returns a fresh id, `[0-9a-z]{25}` */
export function newId(random: RandomBytes): string {
  const bytes = new Uint8Array(idBytes);
  random(bytes);
  // Few large numbers: there are ten thousand ids a second to make.
  const value =
    (BigInt(number(bytes, 0, 6)) << 88n) | (BigInt(number(bytes, 6, 12)) << 40n) | BigInt(number(bytes, 12, 17));
  return (value % modulus).toString(36).padStart(digits, "0");
}

/** Of at most six bytes, the first one highest. */
function number(bytes: Uint8Array, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at++) value = value * 256 + (bytes[at] ?? 0);
  return value;
}

/** Whether a text from outside has the shape of an id. */
export function isId(text: string): boolean {
  return /^[0-9a-z]{25}$/.test(text);
}

/**
 * A member id: uniform in 1 .. 2^53-1, never reused (drawn, not counted). With 10,000 members ever made the chance of a
 * clash is below 10^-8, and admission checks it.
 */
export function newMemberId(random: RandomBytes): number {
  const bytes = new Uint8Array(7);
  for (;;) {
    random(bytes);
    let value = (bytes[0] ?? 0) & 0x1f;
    for (let at = 1; at < 7; at++) value = value * 256 + (bytes[at] ?? 0);
    if (value !== 0) return value;
  }
}
