/** A container's streams on our own: standard input, the terminal's raw mode and size, keys that detach, signals. */
import type { Duplex } from "node:stream";
import type { Api } from "../api/client.ts";
import { copyOutput } from "../api/streams.ts";
import { CommandError } from "../errors.ts";
import type { Session } from "../session.ts";

export interface Attached {
  readonly stream: Duplex;
  /** The container has a terminal: one stream of bytes, no frames. */
  readonly tty: boolean;
  /** Whether our standard input goes to it. */
  readonly stdin: boolean;
  readonly detachKeys: string | undefined;
}

/** Copies until the container's output ends, or the keys were pressed. */
export async function converse(session: Session, attached: Attached): Promise<"ended" | "detached"> {
  const { stream, tty } = attached;
  // Opened by who reads it alone.
  const stdin = attached.stdin ? session.stdin : undefined;
  // A broken connection shows as an end of the output.
  stream.on("error", () => stream.destroy());
  let detached = (): void => undefined;
  const detaching = new Promise<"detached">((resolve) => {
    detached = () => resolve("detached");
  });
  const raw = tty && stdin?.isTTY === true;
  const keys = tty ? detachSequence(attached.detachKeys) : undefined;
  const forward = forwarder(stream, keys, detached);
  if (stdin === undefined) stream.end();
  else {
    if (raw) stdin.setRawMode?.(true);
    stdin.on("data", forward);
    stdin.once("end", () => stream.end());
    stdin.resume();
  }
  try {
    const output = copyOutput(stream, !tty, session).then(() => "ended" as const);
    const how = await Promise.race([output, detaching]);
    if (how === "detached") stream.destroy();
    return how;
  } finally {
    stdin?.off("data", forward);
    stdin?.pause();
    if (raw) stdin.setRawMode?.(false);
  }
}

/** Sends input on; holds back a beginning of the detach keys until it is clear that it is none. */
function forwarder(stream: Duplex, keys: Buffer | undefined, detached: () => void): (chunk: Buffer | string) => void {
  let matched = 0;
  return (chunk) => {
    const bytes = Buffer.from(chunk);
    if (keys === undefined) {
      stream.write(bytes);
      return;
    }
    const out: number[] = [];
    for (const byte of bytes) {
      if (byte === keys[matched]) {
        matched++;
        if (matched < keys.length) continue;
        detached();
        return;
      }
      out.push(...keys.subarray(0, matched), byte);
      matched = 0;
    }
    if (out.length > 0) stream.write(Buffer.from(out));
  };
}

/** "ctrl-p,ctrl-q" to bytes. */
function detachSequence(text = "ctrl-p,ctrl-q"): Buffer {
  const bytes = text.split(",").map((key) => {
    const control = /^ctrl-([a-z@[\\\]^_])$/.exec(key);
    if (control !== null) return (control[1] ?? "").toUpperCase().charCodeAt(0) & 0x1f;
    if (key.length === 1) return key.charCodeAt(0);
    throw new CommandError(`invalid detach keys (${text}): unknown character: '${key}'`);
  });
  return Buffer.from(bytes);
}

/** Tells the size of our terminal, now and whenever it changes. @returns ends it */
export function keepSize(session: Session, api: Api, path: string): () => void {
  const { stdout } = session;
  const tell = async (): Promise<void> => {
    const { rows, columns } = stdout;
    if (rows === undefined || columns === undefined) return;
    // The process may not run yet; then the next try counts.
    for (let tries = 0; tries < 10; tries++) {
      try {
        await api.post(`${path}/resize`, { query: { h: rows, w: columns } });
        return;
      } catch {
        await new Promise((resolve) => {
          setTimeout(resolve, 10 * (tries + 1)).unref();
        });
      }
    }
  };
  const onResize = (): void => void tell();
  onResize();
  stdout.on("resize", onResize);
  return () => stdout.off("resize", onResize);
}

const passedOn: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT"];

/** Signals to us go to the container instead. @param path of the container. @returns ends it */
export function passSignals(session: Session, api: Api, path: string): () => void {
  return session.onSignals(passedOn, (signal) => {
    // It may have ended already; its exit code tells then.
    api.post(`${path}/kill`, { query: { signal: signal.slice(3) } }).catch(() => undefined);
  });
}
