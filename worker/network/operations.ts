/**
 * From wanted objects to what netplane is asked, and from its dumps back to objects. Order: what stands on another comes
 * after it on the way up and goes before it on the way down; elements change in one transaction in between.
 */
import { unreachable } from "../../lib/pure/errors.ts";
import type { ForgottenConnections, Namespace, ObjectChange } from "./core/namespace.ts";
import {
  objectKey,
  rankOf,
  sameObject,
  type ChainObject,
  type ElementObject,
  type LinkObject,
  type NetObject,
  type NftTableName,
  type TableObject,
  type TunnelPeerObject,
} from "./core/objects.ts";
import type { Dump, ElementSet, Link, NftFamily, Operation, Wireguard } from "./netplane-types.ts";

/** Operations that have to be done one batch after the other, since they are in different namespaces. */
export interface PlannedBatch {
  readonly namespace: string;
  readonly operations: readonly Operation[];
}

export interface Plan {
  readonly batches: readonly PlannedBatch[];
  /** Namespaces that lost a link because its other end was made anew: they have to be compared with the kernel. */
  readonly disturbed: readonly string[];
}

const mainTable = 254;
/** Of routes and rules that are ours. */
const ownProtocol = 200;
const aliasPrefix = "skep:";

export interface PlanOptions {
  /** Tables are taken away with all that is in them before they are defined: their sets have changed. */
  readonly recreate: boolean;
  /** Not all is known that is wanted: chains of an earlier life stay as they are, since elements lead to them. */
  readonly partial: boolean;
  /** Nothing is wanted of that namespace any more: it is about to be deleted, and the kernel deletes with it what leads there. */
  readonly isGoing: (path: string) => boolean;
}

/** @param changes  what the kernel is believed to have, and what it shall have */
export function planChanges(namespace: Namespace, changes: readonly ObjectChange[], options: PlanOptions): Plan {
  const isLeft = ({ before, after }: ObjectChange): boolean =>
    after === undefined &&
    before?.type === "link" &&
    isLeftToKernel(before) &&
    options.isGoing(before.how.peerNamespace);
  const renewed = renewedLinks(changes);
  const all = [...changes, ...dependents(namespace, changes, renewed)];
  const lostLinks = new Set([...renewed, ...droppedLinks(changes.filter((change) => !isLeft(change)))]);
  const up: { rank: number; operations: Operation[] }[] = [];
  const fromHost: Operation[] = [];
  const down: { rank: number; operations: Operation[] }[] = [];
  const disturbed: string[] = [];
  const nft = new NftChanges(namespace, options);
  for (const change of all) {
    const { before, after } = change;
    const object = after ?? before;
    if (object === undefined) continue;
    if (isLeft(change)) {
      down.push({ rank: rankOf(object), operations: [leaving(object)] });
    } else if (isNft(object)) {
      nft.add(before, after);
    } else if (after === undefined) {
      down.push({ rank: rankOf(object), operations: removal(object, lostLinks) });
    } else if (after.type === "link") {
      const old = before?.type === "link" && !renewed.has(after.name) ? before : undefined;
      if (renewed.has(after.name))
        up.push({ rank: -1, operations: [{ op: "link-delete", name: after.name, ignore: ["ENODEV"] }] });
      const { own, host } = linkOperations(namespace.path, old, after);
      up.push({ rank: rankOf(after), operations: own });
      fromHost.push(...host);
      if (renewed.has(after.name) && after.how.kind === "veth") disturbed.push(after.how.peerNamespace);
    } else if (!isNft(after)) {
      up.push({ rank: rankOf(after), operations: addition(after) });
    }
  }
  const sorted = (list: typeof up): Operation[] =>
    list.toSorted((a, b) => a.rank - b.rank).flatMap(({ operations }) => operations);
  const early = fromHost.length === 0 ? [] : sorted(up.filter(({ rank }) => rank <= 0));
  const late = sorted(fromHost.length === 0 ? up : up.filter(({ rank }) => rank > 0));
  const batches = [
    { namespace: namespace.path, operations: early },
    { namespace: "", operations: fromHost },
    {
      namespace: namespace.path,
      operations: [...late, ...nft.operations(), ...sorted(down.map((one) => ({ ...one, rank: -one.rank })))],
    },
  ].filter(({ operations }) => operations.length > 0);
  return { batches, disturbed };
}

/** Links that cannot become what is wanted of them, and are made anew. */
function renewedLinks(changes: readonly ObjectChange[]): Set<string> {
  const renewed = new Set<string>();
  for (const { before, after } of changes) {
    if (before?.type !== "link" || after?.type !== "link") continue;
    if (JSON.stringify(nature(before)) !== JSON.stringify(nature(after))) renewed.add(after.name);
  }
  return renewed;
}

/** What of a link cannot be changed. The far end of a veth is known only while we know who made it. */
function nature({ how }: LinkObject): unknown {
  switch (how.kind) {
    case "vxlan":
      return how;
    case "veth":
      return { kind: how.kind };
    case "existing":
    case "bridge":
    case "dummy":
    case "wireguard":
      return { kind: how.kind };
  }
}

/** Nobody has to wait until it is gone: deleting a link is what takes the kernel longest. */
const isLeftToKernel = (link: LinkObject): link is LinkObject & { how: { kind: "veth" } } =>
  link.how.kind === "veth" && link.how.isLeftToKernel === true;

/** It is nobody's from now on: what becomes of it is no difference from what is wanted, and no news. */
const leaving = (object: NetObject): Operation => ({
  op: "link-set",
  name: "name" in object ? object.name : "",
  alias: "",
  ignore: ["ENODEV"],
});

function droppedLinks(changes: readonly ObjectChange[]): string[] {
  return changes.flatMap(({ before, after }) => (before?.type === "link" && after === undefined ? [before.name] : []));
}

/**
 * With a link all goes that is on it, with its hardware address its neighbours, with a table's rules those of its chains, and
 * with a key the sessions of its peers: they are put there again.
 */
function dependents(
  namespace: Namespace,
  changes: readonly ObjectChange[],
  renewed: ReadonlySet<string>,
): ObjectChange[] {
  const defined = new Set(changes.flatMap(({ after }) => (after?.type === "table" ? [tableKey(after)] : [])));
  const rekeyed = new Set(
    changes.flatMap(({ before, after }) => (before !== undefined && after?.type === "wireguard" ? [after.link] : [])),
  );
  const readdressed = new Set(
    changes.flatMap(({ before, after }) =>
      before?.type === "link" && after?.type === "link" && after.mac !== "" && before.mac !== after.mac
        ? [after.name]
        : [],
    ),
  );
  if (renewed.size + defined.size + rekeyed.size + readdressed.size === 0) return [];
  const said = new Set(changes.map(({ key }) => key));
  // With an address the kernel takes away the routes that prefer it as source, whatever link they are on.
  const lost = new Set<string>();
  for (const object of renewed.size === 0 ? [] : namespace.objects()) {
    if (object.type === "address" && renewed.has(object.link)) lost.add(object.address.split("/", 1)[0] ?? "");
  }
  const again: ObjectChange[] = [];
  for (const object of namespace.objects()) {
    const key = objectKey(object);
    if (said.has(key)) continue;
    const on =
      object.type === "sysctl"
        ? [...renewed].some((link) => object.path.includes(`/${link}/`))
        : object.type === "chain" || object.type === "table"
          ? defined.has(tableKey(object))
          : renewed.has(linkOf(object)) ||
            (object.type === "route" && lost.has(object.source)) ||
            (object.type === "tunnel-peer" && rekeyed.has(object.link)) ||
            (object.type === "neighbour" && readdressed.has(object.link));
    if (on) again.push({ key, before: undefined, after: object });
  }
  return again;
}

const linkOf = (object: NetObject): string => ("link" in object ? object.link : "");

function linkOperations(
  path: string,
  before: LinkObject | undefined,
  after: LinkObject,
): { own: Operation[]; host: Operation[] } {
  const { name, how, owner, mac, mtu, master, linkLocal } = after;
  const settings = {
    up: true,
    ...(owner === "" ? {} : { alias: `${aliasPrefix}${owner}` }),
    // To be given its hardware address makes a link forget its neighbours, even if it has that one already.
    ...(mac === "" || before?.mac === mac ? {} : { mac }),
    ...(mtu === 0 ? {} : { mtu }),
    ...(master === "" ? {} : { master }),
    ...(linkLocal === undefined ? {} : { linkLocal }),
  };
  if (how.kind === "existing" && before === undefined) {
    // Who made it a moment ago gave it its address and MTU; where it is otherwise, that was found.
    const { mac: _mac, mtu: _mtu, ...rest } = settings;
    return { own: [{ op: "link-set", name, ...rest }], host: [] };
  }
  if (how.kind === "existing" || before !== undefined) {
    const unmaster = master === "" && before !== undefined && before.master !== "" ? { master: "" } : {};
    return { own: [{ op: "link-set", name, ...settings, ...unmaster }], host: [] };
  }
  switch (how.kind) {
    case "vxlan": {
      const { vni, local, port, lower } = how;
      const bound = lower === undefined ? {} : { link: lower };
      const add = { op: "link-add", name, kind: "vxlan", vni, local, port, ...bound } as const;
      if (path === "") return { own: [{ ...add, ...settings }], host: [] };
      // What a link cannot be made with where it is not made is set once it is there.
      const { up, alias, ...born } = settings;
      const set = { op: "link-set", name, up, ...(alias === undefined ? {} : { alias }) } as const;
      return { own: [set], host: [{ ...add, ...born, target: path }] };
    }
    case "veth": {
      const { peerNamespace, peerName, peerMac, peerMtu, mayBeLeft } = how;
      const peer = {
        name: peerName,
        namespace: peerNamespace,
        ...(peerMac === "" ? {} : { mac: peerMac }),
        ...(peerMtu === 0 ? {} : { mtu: peerMtu }),
      };
      const left = mayBeLeft === true ? [{ op: "link-delete", name, ignore: ["ENODEV"] } as const] : [];
      return { own: [...left, { op: "link-add", name, kind: "veth", peer, ...settings }], host: [] };
    }
    case "bridge":
    case "dummy":
    case "wireguard":
      return { own: [{ op: "link-add", name, kind: how.kind, ...settings }], host: [] };
  }
}

type NftObject = TableObject | ChainObject | ElementObject;
type PlainObject = Exclude<NetObject, LinkObject | NftObject>;

export const isNft = (object: NetObject): object is NftObject =>
  object.type === "table" || object.type === "chain" || object.type === "element";

function addition(object: PlainObject): Operation[] {
  switch (object.type) {
    case "sysctl":
      return [
        {
          op: "sysctl-write",
          name: object.path,
          value: object.value,
          ...(object.optional === true ? { ignore: ["ENOENT"] } : {}),
        },
      ];
    case "wireguard": {
      const { link, port, key } = object;
      return [{ op: "wireguard-set", link, listenPort: port, privateKey: key.privateKey }];
    }
    case "tunnel-peer": {
      const { link, publicKey, endpoint, port, allowed, keepaliveSeconds } = object;
      const peer = { op: "wireguard-peer-set", link, publicKey, endpoint, port, allowed: [allowed] } as const;
      // The kernel greets a peer when it begins to keep it alive: one whose session is of an old key hears of the new one.
      return [peer, { ...peer, keepaliveSeconds }];
    }
    case "address":
      return [{ op: "address-set", address: object.address, link: object.link, noPrefixRoute: true }];
    case "neighbour":
      return [{ op: "neighbour-set", address: object.address, mac: object.mac, link: object.link }];
    case "fdb":
      return [{ op: "fdb-set", mac: object.mac, link: object.link, destination: object.destination }];
    case "rule": {
      const { priority, mark, mask, table, family } = object;
      const of = family === undefined ? {} : { family };
      return [{ op: "rule-add", preference: priority, ...of, mark, mask, table, ignore: ["EEXIST"] }];
    }
    case "route": {
      const { destination, link, via, onlink, source, table, localMetric } = object;
      return [
        {
          op: "route-replace",
          destination,
          link,
          ...(via === "" ? {} : { via }),
          ...(onlink ? { onlink } : {}),
          ...(source === "" ? {} : { source }),
          ...(table === mainTable ? {} : { table }),
          ...localOf(localMetric),
        },
      ];
    }
  }
}

/** @param lostLinks  what was on them is gone with them */
function removal(object: PlainObject | LinkObject, lostLinks: ReadonlySet<string>): Operation[] {
  if (lostLinks.has(linkOf(object))) return [];
  switch (object.type) {
    case "link":
      return object.how.kind === "existing" ? [] : [{ op: "link-delete", name: object.name, ignore: ["ENODEV"] }];
    case "sysctl":
    case "wireguard": // its link goes with it
      return [];
    case "tunnel-peer":
      return [{ op: "wireguard-peer-delete", link: object.link, publicKey: object.publicKey, ignore: ["ENODEV"] }];
    case "address":
      return [
        { op: "address-delete", address: object.address, link: object.link, ignore: ["EADDRNOTAVAIL", "ENODEV"] },
      ];
    case "neighbour":
      return [{ op: "neighbour-delete", address: object.address, link: object.link, ignore: ["ENOENT", "ENODEV"] }];
    case "fdb": {
      const { mac, link, destination } = object;
      return [{ op: "fdb-delete", mac, link, destination, ignore: ["ENOENT", "ENODEV"] }];
    }
    case "rule": {
      const { priority, mark, mask, table, family } = object;
      const of = family === undefined ? {} : { family };
      return [{ op: "rule-delete", preference: priority, ...of, mark, mask, table, ignore: ["ENOENT"] }];
    }
    case "route": {
      const { destination, table, localMetric } = object;
      return [
        {
          op: "route-delete",
          destination,
          ...(table === mainTable ? {} : { table }),
          ...localOf(localMetric),
          ignore: ["ESRCH", "ENODEV"],
        },
      ];
    }
  }
}

const localOf = (metric: number | undefined): { type?: "local"; metric?: number } =>
  metric === undefined ? {} : { type: "local", metric };

/** Changes of tables, chains and elements of one namespace. */
class NftChanges {
  readonly #namespace: Namespace;
  /** Tables that are defined anew, by key, and those that go. */
  readonly #defined = new Map<string, TableObject>();
  readonly #dropped = new Map<string, TableObject>();
  readonly #chains: { readonly before: NetObject | undefined; readonly after: NetObject | undefined }[] = [];
  readonly #elements: { readonly before: ElementObject | undefined; readonly after: ElementObject | undefined }[] = [];

  readonly #how: InstallHow;

  constructor(namespace: Namespace, how: InstallHow) {
    this.#namespace = namespace;
    this.#how = how;
  }

  add(before: NetObject | undefined, after: NetObject | undefined): void {
    const object = after ?? before;
    if (object?.type === "table") {
      if (after?.type === "table") this.#defined.set(tableKey(object), after);
      else this.#dropped.set(tableKey(object), object);
    } else if (object?.type === "chain") {
      this.#chains.push({ before, after });
    } else if (object?.type === "element") {
      this.#elements.push({
        before: before?.type === "element" ? before : undefined,
        after: after?.type === "element" ? after : undefined,
      });
    }
  }

  operations(): Operation[] {
    const installs = [...this.#defined.values()].map((table) => installText(table, this.#how));
    const made: string[] = [];
    const gone: string[] = [];
    const balanced: Operation[] = [];
    const emptied: Operation[] = [];
    for (const { before, after } of [...this.#chains, ...this.#emptied()]) {
      const chain = after ?? before;
      if (chain?.type !== "chain" || this.#dropped.has(tableKey(chain))) continue;
      const name = `${chain.family} ${chain.table} ${chain.chain}`;
      const { family, table, balance } = chain;
      // A table that is defined anew has its chains in the same transaction, so that none is empty for a moment.
      if (balance !== undefined && (family === "ip" || family === "ip6") && !this.#defined.has(tableKey(chain))) {
        if (after === undefined) emptied.push({ op: "chain-delete", family, table, chain: chain.chain });
        else balanced.push({ op: "balance", family, table, chain: chain.chain, ...balance });
      } else if (after === undefined) gone.push(`delete chain ${name}`);
      else
        made.push(`add chain ${name}`, `flush chain ${name}`, ...chain.rules.map((rule) => `add rule ${name} ${rule}`));
    }
    const dropped = [...this.#dropped.values()].map(({ family, table }) => `delete table ${family} ${table}`);
    const text = [...installs, ...made].join("\n");
    const after = [...gone, ...dropped].join("\n");
    return [
      ...(text === "" ? [] : [{ op: "ruleset", text: `${text}\n` } as const]),
      ...balanced,
      ...this.#elementOperations(),
      ...emptied,
      ...(after === "" ? [] : [{ op: "ruleset", text: `${after}\n` } as const]),
    ];
  }

  /** Rules of chains of their own, which go when their table's rules are defined anew. */
  #emptied(): { before: undefined; after: ChainObject }[] {
    if (this.#defined.size === 0 || this.#how.partial) return [];
    const said = new Set(this.#chains.flatMap(({ after }) => (after === undefined ? [] : [objectKey(after)])));
    const emptied: { before: undefined; after: ChainObject }[] = [];
    for (const object of this.#namespace.objects()) {
      if (object.type !== "chain" || !this.#defined.has(tableKey(object)) || said.has(objectKey(object))) continue;
      emptied.push({ before: undefined, after: object });
    }
    return emptied;
  }

  #elementOperations(): Operation[] {
    const bySet = new Map<string, { readonly set: ElementSet; readonly delete: string[]; readonly add: string[] }>();
    for (const { before, after } of this.#elements) {
      const element = after ?? before;
      if (element === undefined || this.#dropped.has(tableKey(element))) continue;
      const id = `${tableKey(element)} ${element.set}`;
      let change = bySet.get(id);
      if (change === undefined) {
        change = { set: elementSet(this.#namespace, element), delete: [], add: [] };
        bySet.set(id, change);
      }
      if (before !== undefined) change.delete.push(before.key.join(" . "));
      if (after !== undefined) change.add.push(elementText(after));
    }
    // Deletions of verdicts before, additions after all others: the transaction is checked in this order.
    const ordered = [...bySet.values()].sort((a, b) => Number(isVerdict(a.set)) - Number(isVerdict(b.set)));
    return ordered.map((change) => ({
      op: "elements",
      set: change.set,
      ...(change.delete.length > 0 ? { delete: change.delete, ignore: ["ENOENT"] } : {}),
      ...(change.add.length > 0 ? { add: change.add } : {}),
    }));
  }
}

const isVerdict = (set: ElementSet): boolean => set.data?.[0] === "verdict";

const tableKey = ({ family, table }: NftTableName): string => `table ${family} ${table}`;

/** Defines a table, or its rules anew over sets that stay as they are: connections and elements do not notice. */
function installText({ family, table, text, left }: TableObject, { recreate, partial }: InstallHow): string {
  const name = `${family} ${table}`;
  const definition = `table ${name} {\n${text}}`;
  if (recreate) return `add table ${name}\ndelete table ${name}\n${definition}`;
  if (!partial) return [`add table ${name}`, `flush table ${name}`, ...(left ?? []), definition].join("\n");
  // What an earlier version left goes on until all is known that takes its place.
  const chains = [...text.matchAll(/^\s*chain (\S+) \{/gm)].map(([, chain = ""]) => `flush chain ${name} ${chain}`);
  // The first makes the chains that are not there, so that all can be emptied; the second puts in their rules.
  return [definition, ...chains, definition].join("\n");
}

type InstallHow = Pick<PlanOptions, "recreate" | "partial">;

const elementText = ({ key, value }: ElementObject): string =>
  value.length === 0 ? key.join(" . ") : `${key.join(" . ")} : ${value.join(" . ")}`;

function elementSet(namespace: Namespace, { family, table, set }: ElementObject): ElementSet {
  const definition = namespace.get(tableKey({ family, table }));
  const fields = definition?.type === "table" ? definition.sets[set] : undefined;
  if (fields === undefined) return unreachable("an element of a set that no table defines", { family, table, set });
  const { key, data, interval } = fields;
  return {
    family: family satisfies NftFamily,
    table,
    name: set,
    key,
    ...(data === undefined ? {} : { data }),
    ...(interval === true ? { interval } : {}),
  };
}

/** Forgets connections of tasks that are gone; there may be none. */
export const forgetOperations = (forgotten: readonly ForgottenConnections[]): Operation[] =>
  forgotten.flatMap(({ destination, replySource, lost = false }) => {
    const all = {
      op: "connections-delete",
      ...(destination === "" ? {} : { originalDestination: destination }),
      replySource,
      ignore: ["ENOENT"],
    } as const;
    return lost ? [{ ...all, protocol: "udp" } as const, { ...all, unanswered: true }] : [all];
  });

// ------------------------------------------------------------------------------------------------- what the kernel has

/** Sets of tables that are wanted in this namespace. */
export function setsOf(namespace: Namespace): ElementSet[] {
  const sets: ElementSet[] = [];
  for (const object of namespace.objects()) {
    if (object.type !== "table") continue;
    for (const [name, { key, data, interval }] of Object.entries(object.sets)) {
      sets.push({
        family: object.family,
        table: object.table,
        name,
        key,
        ...(data === undefined ? {} : { data }),
        ...(interval === true ? { interval } : {}),
      });
    }
  }
  return sets;
}

export interface Found {
  /** Every link, whosever. */
  readonly links: readonly Link[];
  /** Ours at least. */
  readonly dump: Dump;
  /** WireGuard links that are wanted, by name; those that are not there are left out. */
  readonly tunnels: ReadonlyMap<string, Wireguard>;
  /** undefined: nobody but us has changed rules and elements, which are as they were told. */
  readonly rules: FoundRules | undefined;
}

/** Rules are not compared: they are defined again in place, which no connection notices. */
export interface FoundRules {
  /** Ours, of whatever life. */
  readonly tables: readonly NftTableName[];
  readonly elements: readonly { readonly set: ElementSet; readonly texts: readonly string[] }[];
  /** Those without a hook, `FAMILY TABLE CHAIN`. */
  readonly chains: ReadonlySet<string>;
}

/**
 * What has to change so that the kernel has what is wanted.
 * @param prune  also remove what is ours and not wanted
 */
export function compare(namespace: Namespace, found: Found, prune: boolean): ObjectChange[] {
  const have = foundObjects(found);
  const changes: ObjectChange[] = [];
  const ours = new Set(
    found.links.filter(({ alias }) => alias?.startsWith(aliasPrefix) === true).map(({ name }) => name),
  );
  for (const object of namespace.objects()) {
    const key = objectKey(object);
    const before = have.get(key);
    have.delete(key);
    switch (object.type) {
      case "sysctl":
        changes.push({ key, before: undefined, after: object });
        break;
      case "link": {
        const link = found.links.find(({ name }) => name === object.name);
        if (link === undefined) changes.push({ key, before: undefined, after: object });
        else if (!linkAgrees(object, link)) changes.push({ key, before: asFound(object, link), after: object });
        break;
      }
      case "table":
      case "chain":
        if (found.rules !== undefined) changes.push({ key, before: undefined, after: object });
        break;
      case "element":
        if (found.rules === undefined) break;
        if (before === undefined || !sameObject(before, object)) changes.push({ key, before, after: object });
        break;
      case "wireguard": {
        const tunnel = found.tunnels.get(object.link);
        const agrees =
          tunnel?.publicKey === object.key.publicKey && tunnel.listenPort === object.port && tunnel.mark === undefined;
        if (!agrees) changes.push({ key, before: undefined, after: object });
        break;
      }
      case "tunnel-peer":
        if (before?.type !== "tunnel-peer" || !peerAgrees(object, before)) changes.push({ key, before, after: object });
        break;
      case "address":
      case "neighbour":
      case "fdb":
      case "rule":
      case "route":
        if (before === undefined || !sameObject(before, object)) changes.push({ key, before, after: object });
        break;
    }
  }
  if (!prune) return changes;
  // What is wanted is what counts now; when the kernel was asked, a moment ago, it may have been more.
  for (const { family, table } of found.rules?.tables ?? []) {
    const key = tableKey({ family, table });
    const before: TableObject = { type: "table", family, table, text: "", sets: {} };
    if (namespace.get(key) === undefined) changes.push({ key, before, after: undefined });
  }
  for (const [key, before] of have) {
    // It goes with its table.
    if (before.type === "element" && namespace.get(tableKey(before)) === undefined) continue;
    // What something else made is its maker's to remove.
    if (before.type === "link" && before.how.kind === "existing") continue;
    if (before.type === "chain") {
      // Its table's text may have chains of its own.
      const table = namespace.get(tableKey(before));
      if (table?.type !== "table" || table.text.includes(`chain ${before.chain} {`)) continue;
    }
    const isOnLink = before.type === "address" || before.type === "neighbour" || before.type === "fdb";
    if (isOnLink && !ours.has(before.link)) continue;
    if (before.type === "address" && loopbacks.has(before.address)) continue;
    changes.push({ key, before, after: undefined });
  }
  return changes;
}

/** What the kernel gives lo when that is set up; it is in nobody's way. */
const loopbacks: ReadonlySet<string> = new Set(["127.0.0.1/8", "::1/128"]);

/** Where it is found may be elsewhere than where it was looked for: it follows who proves to be it. */
const peerAgrees = (wanted: TunnelPeerObject, { allowed, keepaliveSeconds, preshared }: TunnelPeerObject): boolean =>
  wanted.allowed === allowed && wanted.keepaliveSeconds === keepaliveSeconds && preshared === undefined;

function linkAgrees(wanted: LinkObject, { up, mac, mtu, master, alias, kind, vni, local, port, lower }: Link): boolean {
  const { how, owner } = wanted;
  if (how.kind !== "existing" && how.kind !== kind) return false;
  if (how.kind === "vxlan" && (vni !== how.vni || local !== how.local || (port ?? 4789) !== how.port)) return false;
  if (how.kind === "vxlan" && (how.lower === undefined) !== (lower === undefined)) return false;
  return (
    up &&
    (wanted.mac === "" || wanted.mac === mac) &&
    (wanted.mtu === 0 || wanted.mtu === mtu) &&
    wanted.master === (master ?? "") &&
    (owner === "" || alias === `${aliasPrefix}${owner}`)
  );
}

/** A link as it is, in the words of the one that is wanted in its place. */
function asFound(wanted: LinkObject, link: Link): LinkObject {
  const { kind, mac, mtu, master, vni, local, port, lower } = link;
  // The index of a link in another namespace: which it is shows in that it is there, since it takes this one with it.
  const wish = wanted.how.kind === "vxlan" ? wanted.how.lower : undefined;
  const bound = lower === undefined ? {} : { lower: wish ?? String(lower) };
  const how: LinkObject["how"] =
    wanted.how.kind === "existing"
      ? wanted.how
      : kind === "vxlan"
        ? { kind, vni: vni ?? 0, local: local ?? "", port: port ?? 4789, ...bound }
        : kind === "veth"
          ? { kind, peerNamespace: "", peerName: "", peerMac: "", peerMtu: 0 }
          : { kind: kind === "bridge" || kind === "wireguard" ? kind : "dummy" };
  return { ...wanted, how, mac: mac ?? "", mtu, master: master ?? "" };
}

function foundObjects({ links, dump, tunnels, rules }: Found): Map<string, NetObject> {
  const objects: NetObject[] = [];
  for (const { name, alias, kind, mtu } of links) {
    if (alias?.startsWith(aliasPrefix) !== true) continue;
    const made = ["vxlan", "veth", "bridge", "dummy", "wireguard"].includes(kind ?? "");
    // Only what was made in this namespace can be removed here; the far end of a veth has the name of an interface.
    const how: LinkObject["how"] = made && !/^(eth\d+|gw0|lo)$/.test(name) ? { kind: "dummy" } : { kind: "existing" };
    objects.push({ type: "link", name, how, owner: alias.slice(aliasPrefix.length), mac: "", mtu, master: "" });
  }
  for (const [link, tunnel] of tunnels) objects.push(...foundPeers(link, tunnel));
  for (const { address, link } of dump.addresses ?? []) {
    // Of the kernel's own making.
    if (!/^(fe80:|::1\/)/.test(address)) objects.push({ type: "address", link, address });
  }
  for (const { address, link, mac } of dump.neighbours ?? []) objects.push({ type: "neighbour", link, address, mac });
  for (const { mac, link, destination } of dump.fdb ?? []) objects.push({ type: "fdb", link, mac, destination });
  for (const { destination, type, link, via, onlink, source, table, metric, protocol } of dump.routes ?? []) {
    if ((protocol ?? ownProtocol) !== ownProtocol) continue;
    objects.push({
      type: "route",
      table: table ?? mainTable,
      destination,
      link: link ?? "",
      via: via ?? "",
      onlink: onlink ?? false,
      source: source ?? "",
      ...(type === "local" && metric !== undefined ? { localMetric: metric } : {}),
    });
  }
  for (const { preference, mark, mask, table, family, protocol } of dump.rules ?? []) {
    if ((protocol ?? ownProtocol) !== ownProtocol) continue;
    const of = family === undefined ? {} : { family };
    objects.push({ type: "rule", ...of, priority: preference, mark: mark ?? 0, mask: mask ?? 0xffffffff, table });
  }
  for (const { set, texts } of rules?.elements ?? []) {
    for (const text of texts) {
      const [key = "", value] = text.split(" : ");
      objects.push({
        type: "element",
        family: familyOf(set.family),
        table: set.table,
        set: set.name,
        key: key.split(" . "),
        value: value === undefined ? [] : value.split(" . "),
      });
    }
  }
  for (const name of rules?.chains ?? []) {
    const [family = "", table = "", chain = ""] = name.split(" ");
    objects.push({ type: "chain", family: familyOf(family), table, chain, rules: [] });
  }
  return new Map(objects.map((object) => [objectKey(object), object]));
}

/** A peer that the kernel tells in pieces is one. */
function foundPeers(link: string, { peers }: Wireguard): TunnelPeerObject[] {
  const found = new Map<string, TunnelPeerObject>();
  for (const { publicKey, endpoint, port, allowed, keepaliveSeconds, preshared } of peers) {
    const before = found.get(publicKey);
    const isPreshared = before?.preshared ?? preshared;
    found.set(publicKey, {
      type: "tunnel-peer",
      link,
      publicKey,
      endpoint: before?.endpoint ?? endpoint ?? "",
      port: before?.port ?? port ?? 0,
      allowed: [before?.allowed ?? "", ...allowed].filter((prefix) => prefix !== "").join(" "),
      keepaliveSeconds: before?.keepaliveSeconds ?? keepaliveSeconds ?? 0,
      ...(isPreshared === undefined ? {} : { preshared: isPreshared }),
    });
  }
  return [...found.values()];
}

const familyOf = (family: string): "ip" | "ip6" | "inet" | "netdev" =>
  family === "netdev" || family === "inet" || family === "ip6" ? family : "ip";

/** Chains without a hook in a table as nft prints it. */
export function targetChains({ family, table }: NftTableName, printed: string): string[] {
  const names: string[] = [];
  for (const [, name = "", body = ""] of printed.matchAll(/\n\s*chain (\S+) \{\n([^}]*)/g)) {
    if (!/\btype \S+ hook\b/.test(body)) names.push(`${family} ${table} ${name}`);
  }
  return names;
}
