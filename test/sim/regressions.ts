/** Runs that once found a bug, kept as they were drawn then; run in CI for ever. */
import { readFileSync, readdirSync } from "node:fs";
import type { SimOptions } from "./options.ts";

export interface Regression {
  readonly name: string;
  /** The promise that it broke. */
  readonly check: string;
  readonly options: SimOptions;
}

const folder = new URL("./regressions/", import.meta.url);

export function loadRegressions(): Regression[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .map((name) => JSON.parse(readFileSync(new URL(name, folder), "utf8")) as Regression);
}

export function regressionPath(check: string, seed: number): URL {
  return new URL(`${check.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}-${seed}.json`, folder);
}
