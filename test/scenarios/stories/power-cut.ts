/**
 * K12: three managers on one disk image; the power fails for all of them at once. Stopped processes write nothing, so the
 * image then holds what was synced, and of the rest what the kernel happened to write: a copy of it is the disk after the cut.
 */
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { Counters } from "../../support/counters.ts";
import { ManagerCluster } from "../../support/manager-process.ts";
import { tell, tool } from "../../support/story.ts";

const rounds = Number(process.argv[2]);
tool("ip", "link", "set", "lo", "up");
const work = "/run/skep-power";
mkdirSync(work, { recursive: true });
tool("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", work);
const folder = join(work, "disk");
mkdirSync(folder);
let image = join(work, "disk-0.img");
tool("truncate", "-s", "700M", image);
tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image);
tool("mount", "-o", "loop", image, folder);

const cluster = await ManagerCluster.start({ managers: 3, args: ["--election-ms", "1000"], folder });
// The certificates are the operator's to keep; only what managers write is to be tried.
tool("sync", "-f", folder);
try {
  const counters = new Counters(cluster, 6);
  for (let round = 1; round <= rounds; round++) {
    await counters.progress(20 + 13 * (round % 5));
    const all = [...cluster.managers];
    for (const manager of all) manager.signal("SIGSTOP");
    const cut = join(work, `disk-${round}.img`);
    cpSync(image, cut);
    await Promise.all(all.map((manager) => manager.kill()));
    tool("umount", folder);
    rmSync(image);
    image = cut;
    // Mounting replays the journal of the file system, as after a real cut.
    tool("mount", "-o", "loop", image, folder);
    await Promise.all(all.map((manager) => cluster.restart(manager)));
    await counters.progress(6);
  }
  tell({ acknowledged: counters.total, repeated: counters.repeated, failures: await counters.stop() });
} finally {
  await cluster[Symbol.asyncDispose]();
  tool("umount", folder);
}
