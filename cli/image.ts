/** `skep image`: the images of the daemon's node. */
import { createReadStream } from "node:fs";
import { jsonLines } from "./api/streams.ts";
import { CommandError } from "./errors.ts";
import { command, none } from "./grammar/command.ts";
import * as flag from "./grammar/flags.ts";
import { printProgress, type ProgressLine } from "./output/pull-progress.ts";

export const load = command({
  usage: "[OPTIONS]",
  args: none,
  flags: {
    input: flag.text("Read from a tar archive instead of standard input", { short: "i" }),
    platform: flag.list("Load these platforms only", { type: "strings" }),
    quiet: flag.quiet("Print what was loaded only"),
  },
  async run(session, flags) {
    const { stdin } = session;
    if (flags.input === undefined && stdin.isTTY === true) {
      throw new CommandError("requested load from stdin, but stdin is empty");
    }
    const upload = flags.input === undefined ? stdin : createReadStream(flags.input);
    const api = await session.api();
    const answer = await api.open("POST", "/images/load", {
      query: { quiet: flags.quiet === true || session.stdout.isTTY !== true ? 1 : 0 },
      upload,
    });
    await printProgress(session, jsonLines<ProgressLine>(answer), flags.quiet === true);
  },
});
