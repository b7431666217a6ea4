/**
 * Places of containers in networks of the cluster: a node's own container (docker run) in an attachable network is a task
 * without a service, placed on that node by its own wish. The allocator gives it addresses, the node hears of it as of
 * any task, and it is forgotten when it has ended: there is no history of such a one.
 */
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import type { ClusterError } from "../../lib/pure/errors.ts";
import { carriesEncrypted, isEncryptedNetwork, parseAddress, skep } from "../../proto/index.ts";
import { inSlices, networkedTasks, type ClusterSchema, type Store, type Tx, type View } from "../store/index.ts";
import { BatchWriter } from "./batch-writer.ts";
import { isLocal } from "./core/index.ts";
import { AttachmentRefused } from "./errors.ts";

export interface AttachmentsOptions {
  readonly store: Store<ClusterSchema>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly newId: () => string;
}

/** Who asked. */
export interface Asker {
  readonly nodeId: string;
  readonly ended: boolean;
  /** Of requests that it has not read. */
  readonly answers: number;
  attachAnswer(answer: skep.dispatcher.AttachAnswer.$Properties): void;
}

/** A place that is not there yet: which request asked for it, and the reason that was told last. */
interface Asked {
  readonly asker: Asker;
  readonly number: number;
  told: string;
}

type Attach = skep.dispatcher.Attach.$Properties;
type Task = Readonly<skep.objects.Task>;
type Edit = "stop" | "remove";

const { TaskState } = skep.objects;

/** Of one node. */
const attachmentsMax = 4000;
/** Requests that a node may have under way: beyond, it gets no answer, and asks again with its next session. */
const answersMax = 1000;
const textMax = 255;
const aliasesMax = 64;
const addressesMax = 8;
const needsWireguard =
  "Run it on a node whose kernel has WireGuard (`modprobe wireguard` shows it), or in a network without `--opt encrypted`";

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #writer: BatchWriter<Edit>;
  readonly #asked = new Map<string, Asked>();
  #running = false;

  constructor(options: AttachmentsOptions) {
    this.#options = options;
    const { store, clock, logger } = options;
    this.#writer = new BatchWriter<Edit>({
      store,
      clock,
      logger,
      cause: "attachments of containers",
      entryMax: 200,
      apply: (tx, taskId, edit) => (edit === "stop" ? stop(tx, taskId) : remove(tx, taskId)),
      merge: (older, newer) => (older === "remove" ? older : newer),
      done: () => {},
    });
  }

  start(): void {
    this.#running = true;
  }

  *readView(view: View<ClusterSchema>): Generator<void, void> {
    yield* inSlices(networkedTasks(view), (task) => {
      this.taskChanged(task.id, task);
      if (isAttachment(task) && !view.has("node", task.nodeId)) this.#writer.add(task.id, "remove");
    });
  }

  stop(): void {
    this.#running = false;
    this.#writer.clear();
    this.#asked.clear();
  }

  /** What has ended is forgotten. */
  taskChanged(id: string, task: Task | undefined): void {
    if (!this.#running) return;
    this.#sayWhy(id, task);
    if (task === undefined || !isAttachment(task)) return;
    const state = task.status?.state ?? TaskState.NEW;
    const neverPlaced = state < TaskState.ASSIGNED && task.desiredState >= TaskState.SHUTDOWN;
    if (state > TaskState.RUNNING || neverPlaced) this.#writer.add(task.id, "remove");
  }

  nodeRemoved(nodeId: string): void {
    if (!this.#running) return;
    for (const task of attachmentsOf(this.#options.store.current(), nodeId)) this.#writer.add(task.id, "remove");
  }

  /** Answers when the task is committed, or why there is none. */
  attach(asker: Asker, request: Attach): void {
    if (asker.answers > answersMax) return;
    const { store, newId } = this.#options;
    const number = request.number ?? 0;
    const fresh = newId();
    const refuse = ({ code, message, fix }: ClusterError): void =>
      asker.attachAnswer({ number, code, message, fix: fix ?? "" });
    const act = (tx: Tx<ClusterSchema>): string => place(tx, fresh, asker.nodeId, request);
    try {
      // What cannot be is told at once, and costs the log nothing.
      check(store.current(), asker.nodeId, request);
      store.transact(act, { actor: `node ${asker.nodeId}`, cause: "a container is attached" }, (outcome) => {
        if (asker.ended) return;
        if (outcome.kind === "committed") {
          const taskId = outcome.result;
          asker.attachAnswer({ number, taskId });
          this.#asked.set(taskId, { asker, number, told: "" });
          this.#sayWhy(taskId, store.current().get("task", taskId));
        } else if (outcome.error instanceof AttachmentRefused) refuse(outcome.error);
        // Otherwise nobody knows: the same request finds what became of it.
        else asker.attachAnswer({ number, code: again });
      });
    } catch (error) {
      if (!(error instanceof AttachmentRefused)) throw error;
      refuse(error);
    }
  }

  /** Whoever waits for the place hears why, should it wait in vain. */
  #sayWhy(id: string, task: Task | undefined): void {
    const asked = this.#asked.get(id);
    if (asked === undefined) return;
    const { status } = task ?? {};
    if (task === undefined || (status?.state ?? TaskState.NEW) > TaskState.NEW || asked.asker.ended)
      return void this.#asked.delete(id);
    const found = status?.err ?? "";
    if (found === "" || found === asked.told) return;
    asked.told = found;
    const target = task.spec?.networks?.[0]?.target ?? "";
    const name = this.#options.store.current().get("network", target)?.spec?.name ?? target;
    const fix = status?.reason?.addressPoolFull == null ? askOtherwise : freeAddresses;
    const { message } = new AttachmentRefused(name, found.replace(/^Cannot [^:]*: /, ""));
    asked.asker.attachAnswer({ number: asked.number, code: waits, message, fix });
  }

  /** A node may only detach what is its own. */
  detach(nodeId: string, taskId: string): void {
    const task = this.#options.store.current().get("task", taskId);
    if (!this.#running || task === undefined || !isAttachment(task) || task.nodeId !== nodeId) return;
    if (task.desiredState < TaskState.REMOVE) this.#writer.add(taskId, "stop");
  }
}

/** The answer that says: ask again. */
const again = "ATTACH_AGAIN";
/** Comes after the answer: why the place is not there yet. Agents of earlier releases pass it over. */
const waits = "ATTACH_WAITS";
const freeAddresses = "Use a network with a larger subnet, or take containers and services off this one";
const askOtherwise =
  "Look at the network with `skep network inspect --verbose`, and ask for another address or for none";

export const isAttachment = ({ spec }: Task): boolean => spec?.networkAttachmentSpec != null;

function* attachmentsOf(view: View<ClusterSchema>, nodeId: string): IterableIterator<Task> {
  for (const task of view.find("task", "node", nodeId)) if (isAttachment(task)) yield task;
}

/** @throws AttachmentRefused */
function check(
  view: View<ClusterSchema>,
  nodeId: string,
  { containerId, name, network }: Attach,
): { readonly networkId: string; readonly known: Task | undefined } {
  const texts = [containerId, name, network?.target, ...(network?.aliases ?? []), ...(network?.addresses ?? [])];
  const target = network?.target ?? "";
  if ((containerId ?? "") === "" || target === "") throw new AttachmentRefused(target, "the request is not complete");
  if (texts.some((text) => (text ?? "").length > textMax)) throw new AttachmentRefused(target, "a name is too long");
  if ((network?.aliases ?? []).length > aliasesMax || (network?.addresses ?? []).length > addressesMax)
    throw new AttachmentRefused(target, "it asks for too many names or addresses");
  for (const address of network?.addresses ?? [])
    if (parseAddress(address) === undefined) throw new AttachmentRefused(target, `"${address}" is no address`);
  const found = view.get("network", target) ?? view.first("network", "name", target);
  if (found === undefined || found.pendingDelete) throw new AttachmentRefused(target, `network ${target} not found`);
  if (isLocal(found) || found.spec?.ingress === true || found.spec?.attachable !== true)
    throw new AttachmentRefused(target, "it is not attachable");
  // Its task would wait for ever, and nobody be told why.
  if (isEncryptedNetwork(found.spec) && !carriesEncrypted(view.get("node", nodeId) ?? {}))
    throw new AttachmentRefused(target, "it is encrypted, and this node has no WireGuard", needsWireguard);
  let count = 0;
  for (const task of attachmentsOf(view, nodeId)) {
    count++;
    const isSame =
      task.spec?.networkAttachmentSpec?.containerId === containerId && task.spec?.networks?.[0]?.target === found.id;
    const isWanted = task.desiredState < TaskState.SHUTDOWN && (task.status?.state ?? 0) <= TaskState.RUNNING;
    if (isSame && isWanted) return { networkId: found.id, known: task };
  }
  if (count >= attachmentsMax) throw new AttachmentRefused(target, `node ${nodeId} has ${count} attachments already`);
  return { networkId: found.id, known: undefined };
}

/** @returns the id of the task that is the container's place */
function place(tx: Tx<ClusterSchema>, id: string, nodeId: string, request: Attach): string {
  const { networkId, known } = check(tx, nodeId, request);
  const { containerId, name, network } = request;
  if (known !== undefined) {
    rename(tx, known, name ?? "", network?.aliases ?? []);
    return known.id;
  }
  // The network must not be removed in between.
  tx.guard("network", networkId);
  const { aliases, driverOpts, addresses } = network ?? {};
  tx.create("task", {
    id,
    name: name ?? "",
    nodeId,
    desiredState: TaskState.RUNNING,
    spec: {
      networkAttachmentSpec: { containerId: containerId ?? "" },
      networks: [
        { target: networkId, aliases: aliases ?? [], driverOpts: driverOpts ?? {}, addresses: addresses ?? [] },
      ],
    },
    status: { state: TaskState.NEW, timestampUs: tx.timeUs, message: "created" },
  });
  return id;
}

/** The container has other names by now. */
function rename(tx: Tx<ClusterSchema>, { id, name, networksAttachments }: Task, now: string, aliases: string[]): void {
  const isSame = networksAttachments.every((each) => (each.aliases ?? []).join("\n") === aliases.join("\n"));
  if (name === now && isSame) return;
  tx.edit("task", id, (draft) => {
    draft.name = now;
    draft.networksAttachments = networksAttachments.map((each) => ({ ...each, aliases: [...aliases] }));
  });
}

function stop(tx: Tx<ClusterSchema>, taskId: string): void {
  const task = tx.get("task", taskId);
  if (task === undefined || task.desiredState >= TaskState.REMOVE) return;
  tx.edit("task", taskId, (draft) => (draft.desiredState = TaskState.REMOVE));
}

function remove(tx: Tx<ClusterSchema>, taskId: string): void {
  if (tx.has("task", taskId)) tx.remove("task", taskId);
}
