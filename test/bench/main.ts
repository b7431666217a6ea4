/**
 * `npm run bench -- NAME [--rounds N] [--only P1,P3] [--quick]`: measures, beside its peer where there is one.
 * `scheduler` also takes a size of X3 of your own (--agents, --tasks) and writes a profile of the leader (--profile FILE).
 * Prints one JSON object a line when piped, a table on a terminal; ends with 1 when a gate is missed.
 */
import { parseArgs } from "node:util";

import { Report, type BenchOptions } from "./report.ts";

interface Bench {
  readonly about: string;
  readonly load: () => Promise<{ run(options: BenchOptions, report: Report): Promise<void> }>;
}

const benches: Readonly<Record<string, Bench>> = {
  raft: { about: "consensus and store: P1 to P11, beside etcd", load: () => import("./raft.ts") },
  netplane: { about: "netplane on the real kernel: K1 to K5, beside ip and nft", load: () => import("./netplane.ts") },
  net: { about: "overlay, service address and mesh: W1 to W4, beside host to host", load: () => import("./net.ts") },
  names: { about: "the resolver: N1 to N4", load: () => import("./names.ts") },
  start: { about: "container start, exec, monitors: S1 to S7, beside runc and crun", load: () => import("./start.ts") },
  service: {
    about: "services from create to gone, lost workers and leaders: V1 to V5, beside dockerd in swarm mode",
    load: () => import("./service.ts"),
  },
  scheduler: {
    about: "tasks onto nodes through store and consensus: X1 to X3",
    load: () => import("./scheduler.ts"),
  },
  idle: { about: "memory and processor at rest, start of the command line: I1 to I4", load: () => import("./idle.ts") },
};

const usage = `usage: npm run bench -- NAME [--rounds N] [--only P1,P3] [--quick]
       npm run bench -- scheduler --only X3 [--agents N] [--tasks N] [--profile FILE]
       npm run bench -- --list`;

async function main(): Promise<number> {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        rounds: { type: "string", default: "3" },
        only: { type: "string", default: "" },
        quick: { type: "boolean", default: false },
        agents: { type: "string", default: "5000" },
        tasks: { type: "string", default: "1000000" },
        profile: { type: "string", default: "" },
        list: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    console.error(`bench: ${(error as Error).message}\n${usage}`);
    return 2;
  }
  const { values, positionals } = parsed;
  if (values.help) {
    console.log(usage);
    return 0;
  }
  if (values.list) {
    for (const [name, { about }] of Object.entries(benches)) console.log(`${name}\t${about}`);
    return 0;
  }
  const [rounds, agents, tasks] = [values.rounds, values.agents, values.tasks].map(Number) as [number, number, number];
  const unknown = positionals.filter((name) => !Object.hasOwn(benches, name));
  if (positionals.length === 0 || unknown.length > 0 || ![rounds, agents, tasks].every(isCount)) {
    console.error(unknown.length > 0 ? `bench: there is no "${unknown[0]}"; see --list` : usage);
    return 2;
  }
  const only = new Set(values.only.split(",").filter((name) => name !== ""));
  const report = new Report(process.stdout.isTTY);
  for (const name of positionals) {
    const bench = await benches[name]!.load();
    await bench.run({ rounds, only, quick: values.quick, agents, tasks, profile: values.profile }, report);
  }
  report.end();
  return report.passed ? 0 : 1;
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}

process.exitCode = await main();
