/** A service that tells its name and who asks, and the loads and questions that tests put to it. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { imageArchive } from "../../deploy/quickstart/image.ts";
import type { LoadOutcome } from "../support/load.ts";

/** As servers should: told to end, it takes no new connection and finishes those that it has. */
const webScript = (address: string): string => `#!/bin/sh\nexec /bin/net-probe serve "$(hostname)" 80 ${address}\n`;

/** Static, since the shell's own wget needs libraries that the image has not. */
export function buildProbe(): Buffer {
  // One that is built already, where compiling takes long (test/vm).
  const built = process.env["NET_PROBE"];
  if (built !== undefined) return readFileSync(built);
  const folder = mkdtempSync(join(tmpdir(), "skep-probe-"));
  try {
    const source = join(import.meta.dirname, "../support/net-probe.c");
    execFileSync("cc", ["-O1", "-static", "-o", join(folder, "probe"), source]);
    return readFileSync(join(folder, "probe"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param address  at which it serves; "both": of IPv4 and of IPv6 */
export function webImage(name: string, probe: Buffer, address = "0.0.0.0"): Promise<Buffer> {
  return imageArchive({
    name,
    command: ["/bin/web"],
    labels: {},
    files: { "/bin/web": webScript(address), "/bin/net-probe": probe },
    platform: process.arch === "arm64" ? "arm64" : "amd64",
  });
}

/** Serving means answering, not having been started. */
export const healthcheck = {
  Test: ["CMD", "/bin/net-probe", "get", "127.0.0.1", "80"],
  Interval: 5_000_000_000,
  Timeout: 5_000_000_000,
  StartPeriod: 30_000_000_000,
  StartInterval: 100_000_000,
  Retries: 5,
};

/** Requests at a steady rate from within a namespace. */
export class Load {
  readonly #child;
  readonly #outcome: Promise<string>;
  readonly #ready: Promise<void>;

  /** @param namespace  a file of it */
  constructor(namespace: string, addresses: readonly string[], port: number, perSecond: number, seconds: number) {
    const script = join(import.meta.dirname, "../support/load.ts");
    const numbers = [port, perSecond, seconds].map(String);
    const command = [process.execPath, script, ...numbers, ...addresses];
    this.#child = spawn("nsenter", [`--net=${namespace}`, "--", ...command], { stdio: ["pipe", "pipe", "inherit"] });
    // It may have ended before it is told to.
    this.#child.stdin.on("error", () => undefined);
    let text = "";
    this.#ready = new Promise((resolve) => this.#child.stdout.once("data", () => resolve()));
    this.#child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    this.#outcome = new Promise((resolve) => this.#child.once("close", () => resolve(text)));
  }

  /** Resolves at the first answer, or when it has ended. */
  async ready(): Promise<void> {
    await Promise.race([this.#ready, this.#outcome]);
  }

  async end(): Promise<LoadOutcome> {
    this.#child.stdin.end();
    const line = (await this.#outcome).trim().split("\n").at(-1) ?? "";
    assert.match(line, /^\{/, "the load has no outcome");
    return JSON.parse(line) as LoadOutcome;
  }
}

/** From before something happens until after it. @returns what came of each, by name */
export async function whileAsked(
  loads: Readonly<Record<string, Load>>,
  act: () => Promise<void>,
): Promise<readonly (readonly [string, LoadOutcome])[]> {
  const outcomes: (readonly [string, LoadOutcome])[] = [];
  try {
    for (const load of Object.values(loads)) await load.ready();
    await act();
  } finally {
    for (const [name, load] of Object.entries(loads)) outcomes.push([name, await load.end()]);
  }
  return outcomes;
}

export interface Question {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
}

/** Long for who must answer on a busy machine; short for who must not: whoever does not is told so again by the kernel. */
export const patience = { forAnswersMs: 10_000, forSilenceMs: 500 } as const;

/**
 * Questions one after the other, by one program in that namespace.
 * @param waitMs     for each step of each
 * @returns          an answer each: `NAME peer=ADDRESS:PORT`, or `ERR what`
 */
export function askAll(
  namespace: string,
  probe: string,
  questions: readonly Question[],
  waitMs: number = patience.forAnswersMs,
): Promise<readonly string[]> {
  if (questions.length === 0) return Promise.resolve([]);
  const child = spawn("nsenter", [`--net=${namespace}`, "--", probe, "asks"], { stdio: ["pipe", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  // A namespace that is gone is told by the number of answers.
  child.stdin.on("error", () => undefined);
  child.stdin.end(
    questions.map(({ protocol, address, port }) => `${protocol} ${address} ${port} ${waitMs}\n`).join(""),
  );
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => {
      const answers = text.trim().split("\n");
      if (answers.length === questions.length) resolve(answers);
      else reject(new Error(`${answers.length} answers to ${questions.length} questions: ${text.slice(-300)}`));
    });
  });
}

/** Connections that stay open, each asked again and again. */
export class Held {
  readonly #child;
  #text = "";

  constructor(namespace: string, probe: string, words: readonly string[]) {
    const command = [`--net=${namespace}`, "--", probe, "hold", "-w", String(patience.forAnswersMs), ...words];
    this.#child = spawn("nsenter", command, { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdout.setEncoding("utf8").on("data", (chunk: string) => (this.#text += chunk));
    // It ends when its connection does; then there is nobody to be asked.
    this.#child.stdin.on("error", () => undefined);
  }

  /** Who answers. */
  async ask(): Promise<string> {
    const already = this.#text.length;
    const news = new Promise<void>((resolve) => {
      this.#child.stdout.once("data", () => resolve());
      this.#child.once("close", () => resolve());
    });
    this.#child.stdin.write("\n");
    await news;
    return this.#text.slice(already).trim();
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.stdin.end();
    await ended;
  }
}
