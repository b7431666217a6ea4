/**
 * Service addresses of one overlay on this node: `vips` sends a service's address to the chain of its number of tasks,
 * `be` holds the tasks in slots 0 to N-1. A task that leaves is replaced by the one of the last slot, so a change costs
 * the same with two tasks and with fifty thousand. Each family has a table and slots of its own. Source: network.md §3.
 */
import { invariant } from "../../../lib/pure/errors.ts";
import { balanceChain, type NetObject, type NftTableName, type TableObject } from "./objects.ts";

/** What differs between the families. */
export interface VipFamily {
  readonly table: NftTableName;
  readonly by: "ip daddr" | "ip6 daddr";
  readonly type: "ipv4_addr" | "ipv6_addr";
  /** Before the names of groups. */
  readonly group: string;
  /** Chains beside those that balance. */
  readonly more: string;
}

export const vips4: VipFamily = {
  table: { family: "ip", table: "skep" },
  by: "ip daddr",
  type: "ipv4_addr",
  group: "",
  more: "",
};
/** Not `skep`: that is the check of sources, which is there with or without service addresses. */
export const vips6: VipFamily = {
  table: { family: "ip6", table: "skepvip" },
  by: "ip6 daddr",
  type: "ipv6_addr",
  group: "6 ",
  // Without a task there is no route. Where IPv4's TCP ends with the router's word, IPv6's waits on (seen on Linux 6.18), and UDP
  // of neither hears of it: so that clients fail at once, they are refused.
  more: `chain gone {
type filter hook prerouting priority -99; policy accept;
ct state new fib daddr type unreachable meta l4proto tcp reject with tcp reset
ct state new fib daddr type unreachable reject with icmpv6 type port-unreachable
}
`,
};

/** Slots that `be` has keys for. */
const slotsMax = 65_536;
/**
 * Chains for so many tasks are there with the table: for a new rule the kernel looks at all that leads to chains, and so at
 * every service's address.
 */
const readyMax = 16;

/** @param gateway  the network's; a task that reaches itself sees it as source, since it would not answer its own address */
export function vipTableObject({ table, by, type, more }: VipFamily, gateway: string): TableObject {
  const source = by.replace("daddr", "saddr");
  const text = `map vips { type ${type} : verdict; }
map be { typeof ${by} . numgen random mod 65536 : ${by}; }
set self { type ${type} . ${type}; }
chain pre {
type nat hook prerouting priority -100; policy accept;
${by} vmap @vips
}
chain post {
type nat hook postrouting priority 100; policy accept;
${source} . ${by} @self snat to ${gateway}
}
${more}`;
  return {
    type: "table",
    ...table,
    text,
    sets: {
      vips: { key: [type], data: ["verdict"] },
      be: { key: [type, "integer"], data: [type] },
      self: { key: [type, type] },
    },
  };
}

interface Service {
  /** Empty: it has no address (dnsrr), or is not told yet. */
  vip: string;
  /** Tasks in the order of their slots. */
  readonly slots: { readonly taskId: string; address: string }[];
  readonly slotOf: Map<string, number>;
}

export class Vips {
  readonly #family: VipFamily;
  readonly #gateway: string;
  readonly #set: (group: string, objects: readonly NetObject[]) => void;
  readonly #services = new Map<string, Service>();
  /** How many services are balanced by each chain. */
  readonly #chains = new Map<number, number>();
  readonly #locals = new Map<string, string>();
  #withVip = 0;

  /** @param set  puts a group of objects in the overlay's namespace */
  constructor(family: VipFamily, gateway: string, set: (group: string, objects: readonly NetObject[]) => void) {
    this.#family = family;
    this.#gateway = gateway;
    this.#set = (group, objects) => set(`${family.group}${group}`, objects);
  }

  /** @param vip  empty: none any more */
  service(serviceId: string, vip: string): void {
    const service = this.#service(serviceId);
    if (service.vip === vip) return;
    this.#hide(serviceId, service);
    this.#count(Number(vip !== "") - Number(service.vip !== ""));
    service.vip = vip;
    this.#show(serviceId, service);
    this.#drop(serviceId, service);
  }

  /** @param address  empty: the task is not to be given new connections any more */
  task(serviceId: string, taskId: string, address: string): void {
    const service = this.#service(serviceId);
    const { slots, slotOf } = service;
    const slot = slotOf.get(taskId);
    if (slot === undefined) {
      if (address !== "" && slots.length < slotsMax) {
        this.#release(service);
        slotOf.set(taskId, slots.length);
        slots.push({ taskId, address });
        this.#slot(serviceId, service, slots.length - 1);
        this.#balance(serviceId, service);
      }
    } else if (address !== "") {
      const place = slots[slot];
      invariant(place?.taskId === taskId, "a task is in its slot", { taskId, slot });
      if (place.address !== address) {
        place.address = address;
        this.#slot(serviceId, service, slot);
      }
    } else {
      this.#release(service);
      const last = slots.pop();
      invariant(last !== undefined, "who has a slot is in one", { taskId, slot });
      slotOf.delete(taskId);
      if (last.taskId !== taskId) {
        slots[slot] = last;
        slotOf.set(last.taskId, slot);
        this.#slot(serviceId, service, slot);
      }
      this.#slot(serviceId, service, slots.length);
      this.#balance(serviceId, service);
    }
    this.#drop(serviceId, service);
  }

  /** A sandbox of this node, which may meet itself behind a service's address. Empty: gone. */
  local(sandboxId: string, address: string): void {
    if (address === "") this.#locals.delete(sandboxId);
    else this.#locals.set(sandboxId, address);
    this.#self(sandboxId, address);
  }

  #self(sandboxId: string, address: string): void {
    const wanted = address !== "" && this.#withVip > 0;
    this.#set(
      `self ${sandboxId}`,
      wanted ? [{ type: "element", ...this.#family.table, set: "self", key: [address, address], value: [] }] : [],
    );
  }

  #service(serviceId: string): Service {
    let service = this.#services.get(serviceId);
    if (service === undefined) {
      service = { vip: "", slots: [], slotOf: new Map() };
      this.#services.set(serviceId, service);
    }
    return service;
  }

  #drop(serviceId: string, { vip, slots }: Service): void {
    if (vip === "" && slots.length === 0) this.#services.delete(serviceId);
  }

  /** The table tracks every connection of the network, which costs; so it is there only with a service's address. */
  #count(step: number): void {
    const had = this.#withVip > 0;
    this.#withVip += step;
    const has = this.#withVip > 0;
    if (had === has) return;
    this.#set("vips", has ? [vipTableObject(this.#family, this.#gateway)] : []);
    for (let tasks = 1; tasks <= readyMax; tasks += 1) this.#chain(tasks, has ? 1 : -1);
    for (const [sandboxId, address] of this.#locals) this.#self(sandboxId, address);
  }

  #slot(serviceId: string, { vip, slots }: Service, slot: number): void {
    const address = slots[slot]?.address;
    this.#set(
      `be ${serviceId} ${slot}`,
      vip === "" || address === undefined
        ? []
        : [{ type: "element", ...this.#family.table, set: "be", key: [vip, String(slot)], value: [address] }],
    );
  }

  #release({ vip, slots }: Service): void {
    if (vip !== "" && slots.length > 0) this.#chain(slots.length, -1);
  }

  #balance(serviceId: string, { vip, slots }: Service): void {
    const wanted = vip !== "" && slots.length > 0;
    if (wanted) this.#chain(slots.length, 1);
    this.#set(
      `vip ${serviceId}`,
      wanted
        ? [{ type: "element", ...this.#family.table, set: "vips", key: [vip], value: [`goto lb${slots.length}`] }]
        : [],
    );
  }

  #chain(tasks: number, step: number): void {
    const users = (this.#chains.get(tasks) ?? 0) + step;
    if (users === 0) this.#chains.delete(tasks);
    else this.#chains.set(tasks, users);
    const { table, by } = this.#family;
    this.#set(`lb${tasks}`, users === 0 ? [] : [balanceChain(table, `lb${tasks}`, { by, map: "be", slots: tasks })]);
  }

  #hide(serviceId: string, service: Service): void {
    this.#release(service);
    for (let slot = 0; slot < service.slots.length; slot += 1) this.#set(`be ${serviceId} ${slot}`, []);
    this.#set(`vip ${serviceId}`, []);
  }

  #show(serviceId: string, service: Service): void {
    for (let slot = 0; slot < service.slots.length; slot += 1) this.#slot(serviceId, service, slot);
    this.#balance(serviceId, service);
  }
}
