/**
 * The ingress mesh of one node: published ports of services, on every node, to tasks anywhere. A port leads to a chain for
 * the number of its slots, which draws one; the map under it says whose gateway address that slot is. A task that comes or
 * goes touches its own slot, the last one and the port's entry, however many tasks there are.
 */
import type { EndpointRecord, ServicePort, ServiceRecord } from "./records.ts";
import {
  connectionsOf,
  portElement,
  portText,
  slotElement,
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

  constructor(groups: HostGroups, chains: SlotChains) {
    this.#groups = groups;
    this.#chains = chains;
  }

  /** Ports that services want of this node. */
  wantedPorts(): PortKey[] {
    return [...this.#services.values()].flatMap(({ ports }) => portsOfMesh(ports));
  }

  /** The ports that this node may take, by `portText`. Others stay with whoever has them. */
  setOpen(open: ReadonlySet<string>): void {
    const before = this.#open;
    this.#open = open;
    for (const [id, service] of this.#services) {
      const changed = meshPorts(service.ports).some((port) => {
        const text = portText(keyOf(port));
        return before.has(text) !== open.has(text);
      });
      if (changed) this.#setHead(id, service);
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
      this.#groups.forget(connectionsOf(before.gatewayAddress));
    } else if (after?.lost === true && before?.lost === false && after.gatewayAddress !== "") {
      this.#groups.forget({ ...connectionsOf(after.gatewayAddress), lost: true });
    }
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
    const gatewayAddress = this.#tasks.get(service.slots[slot] ?? "")?.gatewayAddress ?? "";
    this.#groups.set(
      slotGroup(serviceId, slot),
      meshPorts(service.ports).map((port) => slotElement(keyOf(port), slot, gatewayAddress, port.targetPort)),
    );
  }

  #setHead(serviceId: string, service: MeshService | undefined): void {
    const count = service?.slots.length ?? 0;
    const open =
      service === undefined ? [] : meshPorts(service.ports).filter((port) => this.#open.has(portText(keyOf(port))));
    for (const { protocol } of open) this.#chains.use(protocol, count);
    this.#groups.set(
      `ingress/${serviceId}`,
      open.map((port) => portElement(keyOf(port), count)),
    );
  }
}

const slotGroup = (serviceId: string, slot: number): string => `ingress/${serviceId}/${slot}`;

const meshPorts = (ports: readonly ServicePort[]): ServicePort[] =>
  ports.filter((port) => port.mode === "ingress" && port.publishedPort !== 0);

/** What a service wants of every node. */
export const portsOfMesh = (ports: readonly ServicePort[]): PortKey[] => meshPorts(ports).map(keyOf);

const keyOf = (port: ServicePort): PortKey => ({ protocol: port.protocol, port: port.publishedPort });
