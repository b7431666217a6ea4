/** From what a person writes to one object: a whole id, else a whole name, else the beginning of one id only. */
import { skep } from "../../proto/index.ts";
import type { ClusterSchema, Out, View } from "../store/index.ts";
import { ObjectMissing, ReferenceAmbiguous } from "./core/errors.ts";

const { ObjectKind } = skep.control;

export type Kind = "cluster" | "node" | "service" | "task" | "network" | "secret" | "config" | "volume";
export type Found<K extends Kind> = K extends Kind ? Out<ClusterSchema, K> : never;
/** What all have. */
export interface AnyObject {
  readonly id: string;
  readonly meta?: { readonly version?: number | null } | null;
}
type ClusterView = View<ClusterSchema>;

const kinds: ReadonlyMap<skep.control.ObjectKind, Kind> = new Map([
  [ObjectKind.CLUSTER, "cluster"],
  [ObjectKind.NODE, "node"],
  [ObjectKind.SERVICE, "service"],
  [ObjectKind.TASK, "task"],
  [ObjectKind.NETWORK, "network"],
  [ObjectKind.SECRET, "secret"],
  [ObjectKind.CONFIG, "config"],
  [ObjectKind.VOLUME, "volume"],
]);

export const kindOf = (kind: skep.control.ObjectKind | null | undefined): Kind | undefined =>
  kinds.get(kind ?? ObjectKind.NO_KIND);
/** A service that is being taken down, or a network that waits for its last tasks, is gone for those who ask. */
export function isThere(object: object): boolean {
  return (object as { readonly pendingDelete?: boolean }).pendingDelete !== true;
}

/** @throws ObjectMissing, ReferenceAmbiguous */
export function find<K extends Kind>(view: ClusterView, kind: K, reference: string): Found<K> {
  if (kind === "cluster") {
    const cluster = theCluster(view);
    if (cluster === undefined) throw new ObjectMissing("cluster", reference === "" ? "default" : reference);
    return cluster as Found<K>;
  }
  const exact = view.get(kind, reference);
  if (exact !== undefined && isThere(exact)) return exact as Found<K>;
  const named = byName(view, kind, reference);
  if (named.length > 1) throw new ReferenceAmbiguous(kind, reference, named.length, "name");
  const [one] = named;
  if (one !== undefined) return one;
  const started = byPrefix(view, kind, reference);
  if (started.length > 1) throw new ReferenceAmbiguous(kind, reference, started.length, "ID prefix");
  const [only] = started;
  if (only === undefined) throw new ObjectMissing(kind, reference);
  return only;
}

export function theCluster(view: ClusterView): Found<"cluster"> | undefined {
  for (const cluster of view.list("cluster")) return cluster;
  return undefined;
}

function byName<K extends Kind>(view: ClusterView, kind: K, name: string): readonly Found<K>[] {
  if (name === "") return [];
  const found = new Map<string, object>();
  const add = (object: { readonly id: string } | undefined): void => {
    if (object !== undefined && isThere(object)) found.set(object.id, object);
  };
  switch (kind) {
    case "cluster":
      break;
    case "node":
      for (const node of view.find("node", "hostname", name)) add(node);
      for (const node of view.find("node", "name", name)) add(node);
      break;
    case "task": {
      // SERVICE.SLOT.ID
      const task = view.get("task", name.slice(name.lastIndexOf(".") + 1));
      if (task?.name === name) add(task);
      break;
    }
    case "service":
      for (const service of view.find("service", "name", name)) add(service);
      break;
    case "network":
      for (const network of view.find("network", "name", name)) add(network);
      break;
    case "secret":
      add(view.first("secret", "name", name));
      break;
    case "config":
      add(view.first("config", "name", name));
      break;
    case "volume":
      add(view.first("volume", "name", name));
      break;
  }
  return [...found.values()] as Found<K>[];
}

const matchesMax = 100;

function byPrefix<K extends Kind>(view: ClusterView, kind: K, prefix: string): readonly Found<K>[] {
  if (!/^[0-9a-z]{1,25}$/.test(prefix)) return [];
  const found: Found<K>[] = [];
  // "~" comes after every character of an id.
  for (const object of view.list(kind, { from: prefix, to: `${prefix}~` })) {
    if (isThere(object)) found.push(object as Found<K>);
    if (found.length >= matchesMax) break;
  }
  return found;
}
