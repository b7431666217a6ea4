/**
 * The text of the OCI runtime specification, one test for each MUST. Ours has to pass them all. On demand (OCI_PEERS=1) the
 * peers run the same cases, and what they do is a table in build/oci-conformance.txt: a case that both peers fail deserves
 * a second look at the case.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";

import { config, oursOnly } from "./config.ts";
import { bareUnifiedTree, type Case, Lab, ours, peers, type Runtime, whyNot } from "./harness.ts";
import { lifecycle } from "./lifecycle.ts";
import { linux } from "./linux.ts";

const cases: readonly Case[] = [...lifecycle, ...config, ...linux];
const absent = whyNot();

/** undefined when it passes, else why it does not. */
async function judge(runtime: Runtime, one: Case): Promise<string | undefined> {
  const lab = new Lab(runtime);
  try {
    await one.run(lab);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.split("\n")[0] : String(error);
  } finally {
    await lab[Symbol.asyncDispose]();
  }
}

for (const one of [...cases, ...oursOnly]) {
  const reason = absent ?? one.skip?.();
  test(`OCI ${one.clause}: ${one.name}`, { skip: reason ?? false, timeout: 240_000 }, async () => {
    const lab = new Lab(ours);
    try {
      await one.run(lab);
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  });
}

// It says how the peers do, not how we do, and takes a minute.
const wanted = process.env["OCI_PEERS"] === "1";
test(
  "OCI: the same cases against the peers, as a table",
  { skip: absent ?? (wanted ? false : "on demand: OCI_PEERS=1"), timeout: 300_000 },
  async (context) => {
    const bare = await bareUnifiedTree();
    context.after(async () => await bare[Symbol.asyncDispose]());
    const present = peers.filter((peer) => existsSync(peer.path));
    const runnable = cases.filter((one) => one.skip?.() === undefined);
    const failures = new Map<string, Map<string, string>>();
    for (const peer of present) {
      for (const one of runnable) {
        const reason = await judge(peer, one);
        if (reason === undefined) continue;
        const key = `${one.clause}: ${one.name}`;
        failures.set(key, (failures.get(key) ?? new Map<string, string>()).set(peer.name, reason));
      }
    }
    const table = [
      `${"OCI conformance: what a peer fails".padEnd(110)} ${present.map((peer) => peer.name.padEnd(5)).join(" ")}`,
    ];
    for (const [key, by] of failures)
      table.push(
        `${key.slice(0, 110).padEnd(110)} ${present.map((peer) => (by.has(peer.name) ? "FAIL " : "ok   ")).join(" ")}`,
      );
    table.push(`${ours.name}: ${runnable.length} of ${runnable.length} when the tests above pass`);
    for (const peer of present) {
      const failed = [...failures.values()].filter((by) => by.has(peer.name)).length;
      table.push(`${peer.name}: ${runnable.length - failed} of ${runnable.length}`);
    }
    mkdirSync("build", { recursive: true });
    writeFileSync("build/oci-conformance.txt", `${table.join("\n")}\n`);
    for (const line of table.slice(-1 - present.length)) context.diagnostic(line);
    assert.ok(runnable.length > 150, "the suite lost its cases");
  },
);
