/**
 * Fills the small file system it is given with a log, looks at its status, makes room and goes on.
 * Prints what it saw as JSON. Run by test/scenarios/storage-space.test.ts in a mount namespace of its own.
 */
import { randomBytes } from "node:crypto";
import { unlinkSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Storage, type StorageOptions } from "../../manager/raft/storage.ts";
import { identity, nodeKek } from "./log-rig.ts";

const folder = process.argv[2] ?? "";
const filler = `${folder}/filler`;
writeFileSync(filler, randomBytes(6 * 1024 * 1024));
const options: StorageOptions = {
  folder: `${folder}/data`,
  identity,
  kek: nodeKek,
  log: { segmentBytes: 1024 * 1024, aheadBytes: 65_536, ballastBytes: 1024 * 1024, lowBytes: 3 * 1024 * 1024 },
};
const storage = await Storage.open(options);
const total = 7_000;
let saved = 0;
const spaces: string[] = [];
const everything: Promise<void>[] = [];
for (let index = 1; index <= total; index++) {
  const entry = { index, term: 1, kind: "normal" as const, data: randomBytes(1_000) };
  everything.push(
    new Promise((resolve, reject) =>
      storage.log.save({ hardState: { term: 1, vote: 0, commit: 0 }, entries: [entry] }, (error) => {
        if (error === undefined) saved++;
        if (error === undefined) resolve();
        else reject(error);
      }),
    ),
  );
  if (index % 50 === 0) await Promise.race([everything.at(-1), sleep(100)]);
  const { space } = storage.status();
  if (space !== "ok" && spaces.at(-1) !== space && !(spaces.includes("full") && space === "low")) spaces.push(space);
}
for (let waitedMs = 0; storage.status().space !== "full" && waitedMs < 120_000; waitedMs += 10) await sleep(10);
if (spaces.at(-1) !== "full") spaces.push("full");
const stuckAt = saved;
await sleep(300);
const waitedWhileFull = saved === stuckAt && saved < total && storage.status().oldestPendingMs > 250;
unlinkSync(filler);
await Promise.all(everything);
const { space } = storage.status();
spaces.push(space === "full" ? "full" : "ok or low");
await storage[Symbol.asyncDispose]();
const again = await Storage.open(options);
const recovered = again.recovered.entries.length;
await again[Symbol.asyncDispose]();
process.stdout.write(JSON.stringify({ spaces, waitedWhileFull, saved, recovered }));
