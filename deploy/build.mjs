/**
 * `npm run build`: bundles each program with its worker threads into build/, for installation. Development and tests run
 * the sources as they are.
 */
import { build } from "esbuild";
import { chmodSync, copyFileSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
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
};
/** CommonJS in one file, whose parts run when a command needs them; what starts it switches on the compile cache first. */
const command = { "skep-program": "cli/program.ts" };
const commandStart = { skep: "cli/installed.ts" };

mkdirSync(out, { recursive: true });
const entryPointsOf = (wanted) =>
  Object.entries(wanted)
    .filter(([, source]) => existsSync(join(root, source)))
    .map(([name, source]) => ({ in: join(root, source), out: name }));
/**
 * An import of a module of Node's reads all that it exports, and runs what stands behind it: `import "node:http"` loads the
 * whole of fetch and WebSocket, 7 MB of memory and 50 ms of processor. Taken as an object, only what is used is read.
 */
const nodeModulesAsObjects = {
  name: "node-modules-as-objects",
  setup({ onResolve, onLoad }) {
    // The filters are Go's, which have no flags.
    onResolve({ filter: /^node:/ }, ({ path, kind }) =>
      kind === "import-statement" ? { path, namespace: "node-module" } : undefined,
    );
    onLoad({ filter: /.*/, namespace: "node-module" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
      loader: "js",
    }));
  },
};

writeFileSync(join(out, "package.json"), '{ "type": "module" }\n');
const options = {
  outdir: out,
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node24",
  sourcemap: "linked",
  // Node keeps the text of a program in memory, and two bytes a character of it as soon as one is not ASCII: with comments
  // and white space skepd's took 13 MB of 105. Names stay, for stack traces. Licences go into files beside.
  minifyWhitespace: true,
  minifySyntax: true,
  charset: "ascii",
  legalComments: "external",
  // A native addon finds its binary beside its own files.
  external: ["classic-level"],
  plugins: [nodeModulesAsObjects],
  logLevel: "warning",
};
const entryPoints = entryPointsOf(programs);
const startEntryPoints = entryPointsOf(commandStart);
// Some packages still ask for modules by require().
const banner = {
  js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
};
await build({ ...options, entryPoints, banner });
await build({ ...options, entryPoints: entryPointsOf(command), format: "cjs", outExtension: { ".js": ".cjs" } });
await build({ ...options, entryPoints: startEntryPoints });
// Of builds before.
rmSync(join(out, "chunks"), { recursive: true, force: true });
for (const { out: name } of startEntryPoints) chmodSync(join(out, `${name}.js`), 0o755);
copyFileSync(join(root, "api", "skep-v1.yaml"), join(out, "skep-v1.yaml"));
// The daemon looks for the native programs beside itself.
for (const name of ["isolate", "archive", "init", "netplane"]) {
  const source = join(root, "native", "build", name);
  if (!existsSync(source)) continue;
  // By a rename, since one that runs cannot be written to (ETXTBSY): a daemon that was started from here goes on with its own.
  copyFileSync(source, join(out, `${name}.new`));
  renameSync(join(out, `${name}.new`), join(out, name));
}
console.log(`build: ${[...entryPoints, ...startEntryPoints].map(({ out: name }) => `build/${name}.js`).join(", ")}`);
