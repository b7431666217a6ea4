/** The daemon that recovery.test.ts kills: it works on containers without end, and tells what it knows on standard output. */
import { Containers, DirectoryRootfs } from "../../../worker/containers/index.ts";
import { realClock, silentLogger } from "../../../lib/runtime/index.ts";
import { join } from "node:path";

import { isolate, native } from "./host.ts";

const [base = "", cgroupParent = "", runtime = "", seed = "1"] = process.argv.slice(2);
const containers = await Containers.open({
  dataDirectory: join(base, "data"),
  runDirectory: join(base, "run"),
  programs: { isolate, archive: join(native, "archive"), runtime },
  cgroupParent,
  rootfs: new DirectoryRootfs(join(base, "images"), join(native, "archive")),
  clock: realClock,
  logger: silentLogger,
  defaultStopSeconds: 1,
  restartAtBoot: false,
});
const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);
say({ ready: true });
let n = Number(seed) * 1000;
for (;;) {
  const lasting = ++n % 3 === 0;
  const removesItself = !lasting && n % 2 === 0;
  const container = await containers.create({
    name: `c-${n}`,
    config: {
      Image: "busybox",
      Cmd: lasting
        ? ["sh", "-c", "while :; do echo tick; sleep 0.05; done"]
        : ["sh", "-c", `echo ${n}; exit ${n % 100}`],
    },
    hostConfig: { NetworkMode: "none", AutoRemove: removesItself },
  });
  say({ created: container.id });
  if (removesItself) {
    const attachment = await container.attach({ stdin: false, stdout: true, stderr: true });
    const gone = container.wait("removed", AbortSignal.timeout(120_000));
    await container.start();
    let output = "";
    for await (const { bytes } of attachment.output()) output += bytes.toString();
    attachment[Symbol.dispose]();
    const { code } = await gone;
    if (output !== `${n}\n` || code !== n % 100) throw new Error(`${n} said ${output} and ended with ${code}`);
    say({ removed: container.id });
    continue;
  }
  const ended = container.wait("next-exit", AbortSignal.timeout(120_000));
  ended.catch(() => undefined);
  await container.start();
  say({ started: container.id, lasting });
  if (lasting) {
    if (n % 2 === 0) await container.remove({ force: true });
    else continue;
  } else {
    say({ ended: container.id, code: (await ended).code });
    await container.remove();
  }
  say({ removed: container.id });
}
