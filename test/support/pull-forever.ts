/** A process to be killed: pulls an image and removes it again, a byte on standard output for each step of progress. */
import { Random } from "../../lib/pure/prng.ts";
import { realClock } from "../../lib/runtime/index.ts";
import { Images } from "../../worker/images/index.ts";

const [folder = "", archiveProgram = "", name = ""] = process.argv.slice(2);
const platform = { os: "linux", architecture: "amd64", variant: "" };
const images = await Images.open({ folder, archiveProgram, platform, clock: realClock, random: new Random(2) });
const step = (): void => void process.stdout.write(".");
for (;;) {
  await images.pull(name, { onProgress: step });
  step();
  await images.remove(name, { force: true });
  step();
}
