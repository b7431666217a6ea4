#!/usr/bin/env node
/** skep: the command line, from its sources. Installed, `installed.ts` starts it. */
import { main } from "./program.ts";

process.exit(await main(process.argv.slice(2)));
