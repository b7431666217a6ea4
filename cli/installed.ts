#!/usr/bin/env node
/**
 * skep as it is installed: switches on the compile cache, so that everything that follows is read from it, and takes the
 * program as CommonJS, which costs less to load than modules do (docs/design/cli.md has the figures of a start).
 */
import type { main as Main } from "./program.ts";

const { createRequire, enableCompileCache } = process.getBuiltinModule("node:module");
const { homedir } = process.getBuiltinModule("node:os");
const path = process.getBuiltinModule("node:path");

// Not the default in /tmp: V8 trusts what it finds there, and others may write to it.
enableCompileCache(path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "skep"));
const { main } = createRequire(import.meta.url)("./skep-program.cjs") as { readonly main: typeof Main };
process.exit(await main(process.argv.slice(2)));
