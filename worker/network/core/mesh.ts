/**
 * The ingress mesh of one node: published ports of services, on every node, to tasks anywhere. A port leads to a chain for
 * the number of its slots, which draws one; the map under it says whose gateway address that slot is. A task that comes or
 * goes touches its own slot, the last one and the port's entry, however many tasks there are. With IPv6 there is all of it
 * once more, in the table of that family.
 */
import { gateway6Of } from "../../../lib/pure/node-number.ts";
import type { EndpointRecord, ServicePort, ServiceRecord } from "./records.ts";
import { allAddresses6, type HostPort } from "./port-claims.ts";
import {
  connectionsOf,
  portElement,
  portText,
  slotElement,
  type Family,
  type HostGroups,
  type PortKey,
  type SlotChains,
} from "./slots.ts";

interface MeshService {
  ports: readonly ServicePort[];
  /** Task ids by slot. */
  readonly slots: string[];
}

interface MeshTask {
  readonly serviceId: string;
  readonly gatewayAddress: string;
  readonly serving: boolean;
  readonly lost: boolean;
}

export class IngressMesh {
  readonly #groups: HostGroups;
  readonly #chains: SlotChains;
  readonly #services = new Map<string, MeshService>();
  readonly #tasks = new Map<string, MeshTask>();
  /** Tasks of services that are not known (yet). */
  readonly #waiting = new Map<string, Set<string>>();
  /** Ports whose socket this node could reserve; the others belong to a process of the host's. */
  #open: ReadonlySet<string> = new Set();
  #families: readonly Family[] = ["ip"];

  constructor(groups: HostGroups, chains: SlotChains) {
    this.#groups = groups;
    this.#chains = chains;
  }

  /** Ports that services want of this node. */
  wantedPorts(): HostPort[] {
    return [...this.#services.values()].flatMap(({ ports }) => portsOfMesh(ports, this.#families.includes("ip6")));
  }

  /** Whether it carries IPv6; the table is there before, and goes after. */
  set6(has6: boolean): void {
    if (has6 === this.#families.includes("ip6")) return;
    this.#families = has6 ? ["ip", "ip6"] : ["ip"];
    for (const [id, service] of this.#services) {
      service.slots.forEach((_, slot) => this.#setSlot(id, service, slot));
      this.#setHead(id, service);
    }
  }

  /** The ports that this node may take, by `portText`. Others stay with whoever has them. */
  setOpen(open: ReadonlySet<string>): void {
    const before = this.#open;
    this.#open = open;
    for (const [id, service] of this.#services) {
      const changed = meshPorts(service.ports).some((port) =>
        this.#families.some((family) => {
          const text = portText(keyOf(port), family);
          return before.has(text) !== open.has(text);
        }),
      );
      if (!changed) continue;
      service.slots.forEach((_, slot) => this.#setSlot(id, service, slot));
      this.#setHead(id, service);
    }
  }

  setService(serviceId: string, record: ServiceRecord | undefined): void {
    const before = this.#services.get(serviceId);
    if (record === undefined) {
      if (before === undefined) return;
      before.slots.forEach((_, slot) => this.#groups.set(slotGroup(serviceId, slot), []));
      this.#setHead(serviceId, undefined);
      this.#services.delete(serviceId);
      if (before.slots.length > 0) this.#waiting.set(serviceId, new Set(before.slots));
      return;
    }
    const service = before ?? { ports: record.ports, slots: [...(this.#waiting.get(serviceId) ?? [])] };
    service.ports = record.ports;
    this.#waiting.delete(serviceId);
    this.#services.set(serviceId, service);
    service.slots.forEach((_, slot) => this.#setSlot(serviceId, service, slot));
    this.#setHead(serviceId, service);
  }

  setEndpoint(taskId: string, record: EndpointRecord | undefined): void {
    const before = this.#tasks.get(taskId);
    const after =
      record === undefined
        ? undefined
        : {
            serviceId: record.serviceId,
            gatewayAddress: record.gatewayAddress,
            serving: record.serving && record.gatewayAddress !== "",
            lost: record.lost === true,
          };
    if (before?.serving === true && (after?.serving !== true || after.serviceId !== before.serviceId)) {
      this.#leave(before.serviceId, taskId);
    }
    if (after === undefined) this.#tasks.delete(taskId);
    else this.#tasks.set(taskId, after);
    if (after?.serving === true) this.#enter(after.serviceId, taskId, before);
    // It has ended, or its address is another's from now on: what conntrack still sends there shall find another task.
    if (before !== undefined && before.gatewayAddress !== "" && before.gatewayAddress !== after?.gatewayAddress) {
      for (const address of this.#addressesOf(before)) this.#groups.forget(connectionsOf(address));
    } else if (after?.lost === true && before?.lost === false && after.gatewayAddress !== "") {
      for (const address of this.#addressesOf(after)) this.#groups.forget({ ...connectionsOf(address), lost: true });
    }
  }

  #addressesOf(task: MeshTask): string[] {
    return this.#families.map((family) => addressIn(family, task));
  }

  #enter(serviceId: string, taskId: string, before: MeshTask | undefined): void {
    const service = this.#services.get(serviceId);
    if (service === undefined) {
      const waiting = this.#waiting.get(serviceId) ?? new Set();
      this.#waiting.set(serviceId, waiting.add(taskId));
      return;
    }
    if (before?.serving === true && before.serviceId === serviceId) {
      if (before.gatewayAddress === this.#tasks.get(taskId)?.gatewayAddress) return;
      this.#setSlot(serviceId, service, service.slots.indexOf(taskId));
      return;
    }
    const count = service.slots.push(taskId);
    this.#setSlot(serviceId, service, count - 1);
    this.#setHead(serviceId, service);
  }

  /** The last slot's task takes the place of the one that leaves. */
  #leave(serviceId: string, taskId: string): void {
    const service = this.#services.get(serviceId);
    if (service === undefined) {
      const waiting = this.#waiting.get(serviceId);
      waiting?.delete(taskId);
      if (waiting?.size === 0) this.#waiting.delete(serviceId);
      return;
    }
    const slot = service.slots.indexOf(taskId);
    const last = service.slots.pop();
    if (slot < service.slots.length && last !== undefined) {
      service.slots[slot] = last;
      this.#setSlot(serviceId, service, slot);
    }
    this.#groups.set(slotGroup(serviceId, service.slots.length), []);
    this.#setHead(serviceId, service);
  }

  #setSlot(serviceId: string, service: MeshService, slot: number): void {
    const task = this.#tasks.get(service.slots[slot] ?? "");
    // A port that this node's mesh has not is somebody else's, whose slots are named alike.
    this.#groups.set(
      slotGroup(serviceId, slot),
      meshPorts(service.ports).flatMap((port) =>
        this.#families.flatMap((family) => {
          if (task === undefined || !this.#open.has(portText(keyOf(port), family))) return [];
          return [slotElement(keyOf(port), slot, addressIn(family, task), port.targetPort)];
        }),
      ),
    );
  }

  #setHead(serviceId: string, service: MeshService | undefined): void {
    const count = service?.slots.length ?? 0;
    const ports = service === undefined ? [] : meshPorts(service.ports).map(keyOf);
    const heads = this.#families.flatMap((family) => {
      const open = ports.filter((port) => this.#open.has(portText(port, family)));
      for (const { protocol } of open) this.#chains.use(protocol, count, family);
      return open.map((port) => portElement(port, count, family));
    });
    this.#groups.set(`ingress/${serviceId}`, heads);
  }
}

const addressIn = (family: Family, { gatewayAddress }: MeshTask): string =>
  family === "ip6" ? gateway6Of(gatewayAddress) : gatewayAddress;

const slotGroup = (serviceId: string, slot: number): string => `ingress/${serviceId}/${slot}`;

const meshPorts = (ports: readonly ServicePort[]): ServicePort[] =>
  ports.filter((port) => port.mode === "ingress" && port.publishedPort !== 0);

/** What a service wants of every node. @param has6  on IPv6 as well */
export const portsOfMesh = (ports: readonly ServicePort[], has6: boolean): HostPort[] =>
  meshPorts(ports).flatMap((port) =>
    (has6 ? ["", allAddresses6] : [""]).map((hostAddress) => ({ ...keyOf(port), hostAddress })),
  );

const keyOf = (port: ServicePort): PortKey => ({ protocol: port.protocol, port: port.publishedPort });
