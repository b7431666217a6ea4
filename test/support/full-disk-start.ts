/** For storage-space.test.ts: opens a member's storage on a disk that is full, and asks it to stop when it says so. */
import { Storage } from "../../manager/raft/storage.ts";
import { identity, nodeKek } from "./log-rig.ts";

const [folder = ""] = process.argv.slice(2);
const stop = new AbortController();
const told: string[] = [];
try {
  await Storage.open({
    folder,
    identity,
    kek: nodeKek,
    signal: stop.signal,
    onFull: ({ code }) => {
      told.push(code);
      stop.abort(new Error("asked to stop"));
    },
  });
  told.push("opened");
} catch (error) {
  told.push((error as Error).message);
}
console.log(JSON.stringify(told));
