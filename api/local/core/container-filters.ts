/** Which containers a list shows. Pure: what filters name is looked up before. */
import type { ContainerRecord } from "../../../worker/containers/core/types.ts";
import { labelsOf } from "./container-json.ts";
import { networksJson, type NetworkFacts } from "./network-json.ts";

export const containerFilterKeys = [
  "ancestor",
  "before",
  "expose",
  "exited",
  "health",
  "id",
  "is-task",
  "isolation",
  "label",
  "label!",
  "name",
  "network",
  "publish",
  "since",
  "status",
  "volume",
] as const;

const statuses = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const healths = ["none", "starting", "healthy", "unhealthy"];

/** The part of a Filters that is needed here. */
export interface FilterValues {
  values(key: string): readonly string[];
  has(key: string): boolean;
  some(key: string, fits: (value: string) => boolean): boolean;
  labels(labels: Readonly<Record<string, string>>): boolean;
}

/** The first value that is none of its key; undefined when all are. */
export function wrongContainerFilter(filters: FilterValues): string | undefined {
  const known: readonly (readonly [string, (value: string) => boolean])[] = [
    ["status", (value) => statuses.includes(value)],
    ["health", (value) => healths.includes(value)],
    ["exited", (value) => /^[0-9]{1,4}$/.test(value)],
    ["is-task", (value) => ["1", "0", "true", "false"].includes(value)],
  ];
  for (const [key, fits] of known) {
    const wrong = filters.values(key).find((value) => !fits(value));
    if (wrong !== undefined) return `invalid filter '${key}=${wrong.slice(0, 64)}'`;
  }
  return undefined;
}

export interface ContainerFilterFacts {
  /** Images that `ancestor` names: ids, and the references as given. */
  readonly ancestors: ReadonlySet<string>;
  /** Moments between which `before` and `since` leave room; exclusive. */
  readonly beforeMs: number;
  readonly sinceMs: number;
  readonly networks: (record: ContainerRecord) => NetworkFacts;
}

export function fitsContainerFilters(
  record: ContainerRecord,
  filters: FilterValues,
  facts: ContainerFilterFacts,
): boolean {
  const { config, state } = record;
  const networks = facts.networks(record);
  const on = Object.entries(networksJson(record, networks)).flatMap(([name, end]) => [
    name,
    (end as { NetworkID?: string }).NetworkID,
  ]);
  const published = (networks.sandbox?.ports ?? []).map(
    ({ publishedPort, protocol }) => `${publishedPort}/${protocol}`,
  );
  const isTask = "com.docker.swarm.task" in labelsOf(record);
  return (
    filters.some("id", (value) => matches(value, record.id)) &&
    filters.some("name", (value) => matches(value, record.name) || matches(value, `/${record.name}`)) &&
    filters.some("status", (value) => value === state.status) &&
    filters.some("health", (value) => value === state.health.status) &&
    filters.some("exited", (value) => state.exit?.code === Number(value) && state.status === "exited") &&
    filters.some("is-task", (value) => (value === "true" || value === "1") === isTask) &&
    filters.some("isolation", (value) => value === "default") &&
    filters.some("expose", (value) => anyPort(value, networks.exposed)) &&
    filters.some("publish", (value) => anyPort(value, published)) &&
    filters.some("network", (value) => on.includes(value)) &&
    filters.some("volume", (value) =>
      record.mounts.some(({ name, destination, source }) => [name, destination, source].includes(value)),
    ) &&
    (!filters.has("ancestor") || facts.ancestors.has(record.imageId) || facts.ancestors.has(config.Image ?? "")) &&
    record.createdAtMs < facts.beforeMs &&
    record.createdAtMs > facts.sinceMs &&
    filters.labels(labelsOf(record))
  );
}

/** @param wanted  `PORT`, `FIRST-LAST`, each with or without `/PROTOCOL` */
function anyPort(wanted: string, ports: readonly string[]): boolean {
  const [, low = "", high = low, protocol = "tcp"] = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(\w+))?$/.exec(wanted) ?? [];
  return ports.some((port) => {
    const number = Number.parseInt(port, 10);
    return port.endsWith(`/${protocol}`) && low !== "" && number >= Number(low) && number <= Number(high);
  });
}

/**
 * The Engine takes these as regular expressions. Those that could take for ever (groups, many repetitions) are taken as
 * plain text instead, and so is what is no expression.
 */
function matches(pattern: string, text: string): boolean {
  const harmless = /^[\w^$./|*+?[\]-]{1,256}$/.test(pattern) && (pattern.match(/[*+?]/g) ?? []).length <= 3;
  if (!harmless) return text.includes(pattern);
  try {
    return new RegExp(pattern).test(text);
  } catch {
    return text.includes(pattern); // no regular expression: plain text
  }
}
