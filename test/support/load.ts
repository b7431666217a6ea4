/**
 * Requests at a steady rate, each on a connection of its own, to several addresses in turn; ends when its input does or its
 * time is over. The rate is kept whatever the answers do. Run inside a namespace; the server is net-probe's `serve`.
 *
 * A busy machine may leave this program itself waiting for the processor. What it does late is not held against others: its
 * patience is counted in time in which it ran, and what is already there is taken before anybody is said not to have answered.
 * A request that could not even be sent, for want of something of its own, was not asked. Nothing else is excused.
 *
 *   node load.ts PORT PER-SECOND SECONDS-AT-MOST ADDRESS...
 *
 * Prints "ready" at the first answer and at the end one line of JSON, a LoadOutcome.
 */
import { writeFileSync } from "node:fs";
import { connect } from "node:net";

export interface LoadOutcome {
  readonly asked: number;
  readonly answered: number;
  /** Not sent, since this program had no port, descriptor or memory left. */
  readonly unsent: number;
  /** How long it was kept from running, and for how long at once at most. */
  readonly lateMs: number;
  readonly longestLateMs: number;
  /** Answered after more than 900 ms: something was sent twice. */
  readonly slow: number;
  /** Of asking. */
  readonly seconds: number;
  /** The first 25 and the last 25, each with its time in ms since the beginning. */
  readonly failures: readonly string[];
  /** When the last of those that failed was asked, in ms of the epoch; 0: none has failed. */
  readonly lastFailedMs: number;
  /** Who answered how often. */
  readonly by: Readonly<Record<string, number>>;
}

/** Of time in which this program runs. */
const patienceMs = 8000;
const tickMs = 5;
/** More between two ticks is somebody else's time. */
const tickMaxMs = 50;
const ownErrors = new Set(["EADDRNOTAVAIL", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]);
/** The first and the last ones. */
const toldMax = 50;
const [port, perSecond, seconds] = process.argv.slice(2, 5).map(Number) as [number, number, number];
const addresses = process.argv.slice(5);
const limit = perSecond * seconds;

let [asked, answered, unsent, slow, open] = [0, 0, 0, 0, 0];
let [ranMs, lateMs, longestLateMs] = [0, 0, 0];
let isOver = false;
let askedForMs = 0;
let lastFailedMs = 0;
const failures: string[] = [];
const by: Record<string, number> = {};
const startedMs = performance.now();
let tickedMs = startedMs;
/** In the order of asking. */
const waiting = new Set<{ readonly askedRanMs: number; readonly giveUp: () => void }>();

// Closed by us, each keeps its port for a minute: 500 a second to one address need more than there are by default.
writeFileSync("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");

function ask(address: string): void {
  asked += 1;
  open += 1;
  const askedMs = performance.now();
  const lateBeforeMs = lateMs;
  let isDone = false;
  let stage = "connect";
  const socket = connect({ host: address, port, noDelay: true });
  const end = (failure: string | undefined): void => {
    if (isDone) return;
    isDone = true;
    open -= 1;
    waiting.delete(mine);
    const tookMs = performance.now() - askedMs;
    if (failure === undefined) {
      answered += 1;
      if (tookMs > 900) slow += 1;
      if (answered === 1) console.log("ready");
      socket.end();
    } else {
      const at = `${Math.round(askedMs - startedMs)} ms, ${address}:${socket.localPort ?? "-"}`;
      lastFailedMs = Math.max(lastFailedMs, performance.timeOrigin + askedMs);
      if (failures.length === toldMax) failures.splice(toldMax / 2, 1);
      const ownMs = Math.round(lateMs - lateBeforeMs);
      failures.push(`${at}: ${stage}: ${failure} after ${Math.round(tookMs)} ms, of which this client waited ${ownMs}`);
      socket.destroy();
    }
    finish();
  };
  // What has come meanwhile is taken first.
  const mine = { askedRanMs: ranMs, giveUp: () => setImmediate(() => setImmediate(() => end("no answer"))) };
  waiting.add(mine);
  socket.once("connect", () => {
    stage = "answer";
    socket.write("?");
  });
  socket.once("data", (bytes: Buffer) => {
    const name = bytes.toString("latin1").split(" ")[0] ?? "";
    by[name] = (by[name] ?? 0) + 1;
    end(undefined);
  });
  socket.on("error", ({ message, code = "" }: NodeJS.ErrnoException) => {
    if (stage !== "connect" || !ownErrors.has(code)) {
      end(message);
      return;
    }
    isDone = true;
    waiting.delete(mine);
    asked -= 1;
    open -= 1;
    unsent += 1;
    finish();
  });
  socket.on("close", () => end("closed"));
}

function finish(): void {
  if (!isOver || open > 0) return;
  clearInterval(ticks);
  process.stdin.destroy();
  process.stdout.write(
    `${JSON.stringify({ asked, answered, unsent, lateMs, longestLateMs, slow, seconds: askedForMs / 1000, failures, lastFailedMs, by } satisfies LoadOutcome)}\n`,
    () => process.exit(0),
  );
}

function stop(): void {
  isOver = true;
  askedForMs = performance.now() - startedMs;
  finish();
}

const ticks = setInterval(() => {
  const passedMs = performance.now() - tickedMs;
  tickedMs += passedMs;
  ranMs += Math.min(passedMs, tickMaxMs);
  const overdueMs = Math.max(0, passedMs - tickMaxMs);
  lateMs += overdueMs;
  longestLateMs = Math.max(longestLateMs, overdueMs);
  for (const { askedRanMs, giveUp } of waiting) {
    if (ranMs - askedRanMs < patienceMs) break;
    giveUp();
  }
  if (isOver) return;
  // After a pause of this process what is due is not asked all at once, and never more than 400 are open.
  const due = Math.min(limit, Math.floor(((performance.now() - startedMs) / 1000) * perSecond));
  let burst = Math.min(Math.ceil(perSecond / 10), 400 - open);
  while (asked < due && burst > 0) {
    ask(addresses[asked % addresses.length] ?? "");
    burst -= 1;
  }
  if (performance.now() - startedMs > seconds * 1000) stop();
}, tickMs);
process.stdin.resume();
process.stdin.once("end", stop);
