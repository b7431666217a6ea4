/** The scenarios of consensus, store and storage (sections A to M, and O where it runs in CI): each is a test that bears its id. */
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "../..");

/** How many each section has. */
const sections = { A: 6, B: 10, C: 16, D: 15, E: 17, F: 18, G: 13, H: 8, I: 7, J: 7, K: 14, L: 8, M: 7 } as const;
const ofSections = Object.entries(sections).flatMap(([section, last]) =>
  Array.from({ length: last }, (_, at) => `${section}${at + 1}`),
);
const catalogue = ofSections.concat("O1", "O2", "O3", "O5");

/** What the names of the tests in a file begin with: "D8", "O1, L1, L3", "B1-B9". */
function idsIn(file: string): string[] {
  const heads = readFileSync(file, "utf8").matchAll(/\b(?:test|scene)\(\s*["'`]([A-O]\d+[A-O\d, -]*)\b/gu);
  return [...heads].flatMap(([, head = ""]) =>
    head.split(/,\s*/u).flatMap((part) => {
      const [from = "", to] = part.trim().split("-");
      const [first, last] = [from, to ?? from].map((id) => Number(id.slice(1)));
      return Array.from({ length: (last ?? 0) - (first ?? 0) + 1 }, (_, at) => `${from[0]}${(first ?? 0) + at}`);
    }),
  );
}

test("every scenario of the catalogue is a named test", () => {
  const folders = ["manager/raft", "manager/store", "test/scenarios"];
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".test.ts"))
      .map((name) => join(root, folder, name)),
  );
  const named = new Set(files.flatMap(idsIn));
  assert.deepEqual(
    catalogue.filter((id) => !named.has(id)),
    [],
    "scenarios without a test",
  );
});
