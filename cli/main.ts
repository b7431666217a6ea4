#!/usr/bin/env node
/**
 * skep: the command line. This file only switches on the compile cache, so that everything that follows is read from it
 * (docs/design/cli.md has the figures of a start).
 */
import { enableCompileCache } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";

// Not the default in /tmp: V8 trusts what it finds there, and others may write to it.
enableCompileCache(join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "skep"));
const { main } = await import("./program.ts");
process.exit(await main(process.argv.slice(2)));
