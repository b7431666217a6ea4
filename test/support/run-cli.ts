/** Runs `skep` in this process, and the real `docker` CLI beside it. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable, Writable } from "node:stream";
import { main } from "../../cli/program.ts";

export interface Outcome {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

class Sink extends Writable {
  readonly #chunks: Buffer[] = [];
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(chunk);
    done();
  }
  get text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}

export interface RunOptions {
  readonly host: string;
  readonly stdin?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
}

export async function runSkep(words: readonly string[], { host, stdin, env = {} }: RunOptions): Promise<Outcome> {
  const home = mkdtempSync(join(tmpdir(), "skep-home-"));
  const [stdout, stderr] = [new Sink(), new Sink()];
  const input = stdin === undefined ? new PassThrough().end() : Readable.from([Buffer.from(stdin)]);
  try {
    const exit = await main(words, {
      env: { HOME: home, SKEP_HOST: host, ...env },
      stdin: input,
      stdout,
      stderr,
    });
    return { exit, stdout: stdout.text, stderr: stderr.text };
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

/** The real CLI, with the same environment. */
export function runDocker(words: readonly string[], { host, stdin, env = {} }: RunOptions): Promise<Outcome> {
  const home = mkdtempSync(join(tmpdir(), "docker-home-"));
  return new Promise<Outcome>((resolve, reject) => {
    const child = spawn("docker", words, {
      env: { PATH: process.env["PATH"], HOME: home, DOCKER_HOST: host, TZ: process.env["TZ"], ...env },
    });
    const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on("error", () => undefined); // It may end without reading.
    child.stdin.end(stdin ?? "");
    child.once("error", reject);
    child.once("close", (code) =>
      resolve({
        exit: code ?? -1,
        stdout: Buffer.concat(stdout).toString("utf8"),
        stderr: Buffer.concat(stderr).toString("utf8"),
      }),
    );
  }).finally(() => rmSync(home, { recursive: true, force: true }));
}
