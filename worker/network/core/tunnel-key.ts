/** What a node says with in the tunnel. Its secret half is for the kernel alone: neither JSON nor a log shows it. */
export class TunnelKey {
  /** Base64. */
  readonly publicKey: string;
  readonly #privateKey: string;

  constructor(privateKey: string, publicKey: string) {
    this.#privateKey = privateKey;
    this.publicKey = publicKey;
  }

  /** Base64. */
  get privateKey(): string {
    return this.#privateKey;
  }
}

/** 32 bytes in base64, in its one spelling. */
export const isTunnelKey = (text: string): boolean => /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/u.test(text);
