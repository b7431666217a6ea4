/**
 * `npm run build`: bundles each program with its worker threads into build/, for installation. Development and tests run
 * the sources as they are.
 */
import { build } from "esbuild";
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const out = join(root, "build");

/** By the name of the program in build/. Worker threads are found beside the program that starts them. */
const programs = {
  manager: "manager/main.ts",
  "wal-worker": "manager/raft/wal/wal-worker.ts",
  "snapshot-worker": "manager/raft/snapshot/snapshot-worker.ts",
  skepd: "daemon/main.ts",
  skep: "cli/main.ts",
};

mkdirSync(out, { recursive: true });
const entryPoints = Object.entries(programs)
  .filter(([, source]) => existsSync(join(root, source)))
  .map(([name, source]) => ({ in: join(root, source), out: name }));
writeFileSync(join(out, "package.json"), '{ "type": "module" }\n');
await build({
  entryPoints,
  outdir: out,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node24",
  sourcemap: "linked",
  // A native addon finds its binary beside its own files.
  external: ["classic-level"],
  // Some packages still ask for modules by require().
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
  logLevel: "warning",
});
// The daemon looks for the native programs beside itself.
for (const name of ["isolate", "archive", "init"]) {
  const source = join(root, "native", "build", name);
  if (existsSync(source)) copyFileSync(source, join(out, name));
}
console.log(`build: ${entryPoints.map(({ out: name }) => `build/${name}.js`).join(", ")}`);
