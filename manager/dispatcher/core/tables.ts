/**
 * All tables of the data plane, kept from the objects of the store. A change costs what it changes, whatever the number
 * of tasks and nodes: who reads a table is asked of the table.
 */
import { skep } from "../../../proto/index.ts";
import {
  endpointRecords,
  ingressEndpoint,
  ingressPorts,
  isLocal,
  isServing,
  meshKindOf,
  peerRecord,
  serviceRecords,
  type EndpointRecord,
  type MeshKind,
} from "./records.ts";
import { Table, type Withdrawal } from "./table.ts";

type Task = Readonly<skep.objects.Task>;
type Service = Readonly<skep.objects.Service>;
type Node = Readonly<skep.objects.Node>;
type Network = Readonly<skep.objects.Network>;

const { NodeState } = skep.objects;
const nobody: ReadonlySet<string> = new Set();

export class Tables {
  readonly peers = new Table("");
  readonly #networks = new Map<string, Table>();
  /** In which networks a task or a service has a record. */
  readonly #taskIn = new Map<string, ReadonlySet<string>>();
  readonly #serviceIn = new Map<string, ReadonlySet<string>>();
  /** Services with ports in the mesh. */
  readonly #published = new Set<string>();
  readonly #down = new Set<string>();
  /** Networks of each node's own: nothing is told of who is in them. */
  readonly #local = new Set<string>();
  readonly #changed = new Set<Table>();
  #ingress: string | undefined;
  #mesh: MeshKind = {};

  /** The network of the mesh; every node reads its table. */
  get ingress(): string | undefined {
    return this.#ingress;
  }

  table(networkId: string): Table {
    let table = this.#networks.get(networkId);
    if (table === undefined) {
      table = new Table(networkId);
      this.#networks.set(networkId, table);
    }
    return table;
  }

  /** Tables that have changed since this was last asked. */
  takeChanged(): readonly Table[] {
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  /** @returns whether its tasks have to be looked at again: it went down, or came back */
  setNode(id: string, node: Node | undefined): boolean {
    const wasDown = this.#down.has(id);
    const isDown = node?.status?.state === NodeState.NODE_DOWN;
    if (isDown) this.#down.add(id);
    else this.#down.delete(id);
    const peer = node === undefined ? undefined : peerRecord(node);
    this.#touch(this.peers, () =>
      peer === undefined
        ? this.peers.remove(id)
        : this.peers.put(id, { peer }, { removed: true, peer: { nodeId: id } }, false),
    );
    return wasDown !== isDown;
  }

  /** @returns whether the services and their tasks have to be looked at again: the mesh has another network, or none */
  setNetwork(id: string, network: Network | undefined): boolean {
    if (network !== undefined && isLocal(network)) this.#local.add(id);
    else this.#local.delete(id);
    const isIngress = network?.spec?.ingress === true && !network.pendingDelete;
    if (isIngress) {
      if (this.#ingress !== undefined) return false;
      this.#ingress = id;
      this.#mesh = meshKindOf(network);
      return true;
    }
    if (this.#ingress !== id) return false;
    this.#ingress = undefined;
    return true;
  }

  /** @returns whether its tasks have to be looked at again: it has ports in the mesh now, or has none any more */
  setService(id: string, service: Service | undefined): boolean {
    const all = service === undefined ? [] : serviceRecords(service, this.#ingress, this.#mesh);
    const records = all.filter(({ networkId }) => !this.#local.has(networkId ?? ""));
    const before = this.#serviceIn.get(id) ?? nobody;
    const now = new Set(records.map(({ networkId }) => networkId ?? ""));
    for (const record of records) {
      const networkId = record.networkId ?? "";
      const removal = { removed: true, serviceRecord: { networkId, serviceId: id } };
      const table = this.table(networkId);
      this.#touch(table, () => table.put(`service/${id}`, { serviceRecord: record }, removal, false));
    }
    this.#leave(before, now, `service/${id}`);
    if (now.size > 0) this.#serviceIn.set(id, now);
    else this.#serviceIn.delete(id);
    const wasPublished = this.#published.has(id);
    const isPublished = service !== undefined && ingressPorts(service).length > 0;
    if (isPublished) this.#published.add(id);
    else this.#published.delete(id);
    return wasPublished !== isPublished;
  }

  /** @returns what has to be heard of before the task may stop: it has been serving until now */
  setTask(id: string, task: Task | undefined): readonly Withdrawal[] {
    // Most tasks of a large cluster are in no network: nothing is to be made for them.
    const isIn = task !== undefined && (task.networksAttachments.length > 0 || this.#published.has(task.serviceId));
    if (!isIn && !this.#taskIn.has(id)) return [];
    const withdrawals: Withdrawal[] = [];
    const note = (withdrawal: Withdrawal | undefined): void => {
      if (withdrawal !== undefined) withdrawals.push(withdrawal);
    };
    const before = this.#taskIn.get(id) ?? nobody;
    const records = task === undefined ? [] : this.#recordsOf(task);
    const now = new Set(records.map(({ networkId }) => networkId ?? ""));
    for (const record of records) {
      const networkId = record.networkId ?? "";
      const removal = { removed: true, endpoint: { networkId, taskId: id } };
      const table = this.table(networkId);
      this.#touch(table, () => {
        const withdrawal = table.put(id, { endpoint: record }, removal, record.serving === true);
        note(withdrawal);
        return withdrawal;
      });
    }
    for (const withdrawal of this.#leave(before, now, id)) note(withdrawal);
    if (now.size > 0) this.#taskIn.set(id, now);
    else this.#taskIn.delete(id);
    return withdrawals;
  }

  /** Those that have records now: whoever has missed changes asks which of them are gone. */
  known(): { readonly tasks: string[]; readonly services: string[]; readonly nodes: string[] } {
    return { tasks: [...this.#taskIn.keys()], services: [...this.#serviceIn.keys()], nodes: [...this.peers.keys()] };
  }

  /** Services with ports in the mesh. */
  published(): Iterable<string> {
    return this.#published;
  }

  #recordsOf(task: Task): readonly EndpointRecord[] {
    const lost = this.#down.has(task.nodeId);
    const facts = { serving: isServing(task) && !lost, lost };
    const records = endpointRecords(task, facts);
    if (this.#ingress === undefined || !this.#published.has(task.serviceId)) return records;
    const ingress = ingressEndpoint(task, this.#ingress, facts);
    return ingress === undefined ? records : [...records, ingress];
  }

  #leave(before: ReadonlySet<string>, now: ReadonlySet<string>, key: string): readonly (Withdrawal | undefined)[] {
    const left: (Withdrawal | undefined)[] = [];
    for (const networkId of before) {
      if (now.has(networkId)) continue;
      const table = this.table(networkId);
      this.#touch(table, () => {
        const withdrawal = table.remove(key);
        left.push(withdrawal);
        return withdrawal;
      });
      if (table.size === 0 && table.readers.size === 0) this.#networks.delete(networkId);
    }
    return left;
  }

  #touch(table: Table, change: () => unknown): void {
    const { version } = table;
    change();
    if (table.version !== version) this.#changed.add(table);
  }
}
