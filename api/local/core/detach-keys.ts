/** The keys that leave a terminal without ending what runs in it: ctrl-p ctrl-q, or a client's own choice. Pure. */

export const defaultDetachKeys: readonly number[] = [16, 17];
const keysMax = 16;

/** `ctrl-p,ctrl-q`, `ctrl-@`, `a`; undefined for what is none. */
export function parseDetachKeys(text: string): readonly number[] | undefined {
  if (text === "") return defaultDetachKeys;
  const codes = text.split(",").map((key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1];
    if (control === undefined) return -1;
    return control === "@" ? 0 : control.toUpperCase().charCodeAt(0) - 64;
  });
  return codes.length > keysMax || codes.some((code) => code < 0 || code > 127) ? undefined : codes;
}

/** Passes input through and holds back what may be the beginning of the sequence. */
export class DetachScanner {
  readonly #keys: readonly number[];
  #matched = 0;

  constructor(keys: readonly number[]) {
    this.#keys = keys;
  }

  push(input: Uint8Array): { readonly pass: Uint8Array; readonly detached: boolean } {
    const pass: number[] = [];
    for (const byte of input) {
      if (byte === this.#keys[this.#matched]) {
        this.#matched++;
        if (this.#matched === this.#keys.length) return { pass: Uint8Array.from(pass), detached: true };
        continue;
      }
      // What was held back was input after all; the byte may begin the sequence anew.
      pass.push(...this.#keys.slice(0, this.#matched));
      this.#matched = byte === this.#keys[0] ? 1 : 0;
      if (this.#matched === 0) pass.push(byte);
    }
    return { pass: Uint8Array.from(pass), detached: false };
  }
}
