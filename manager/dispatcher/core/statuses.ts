/** What a node may say of a task, and what becomes of the task then. A state only grows, so it orders what is said. */
import { isTaskGateway } from "../../../lib/pure/node-number.ts";
import { skep } from "../../../proto/index.ts";

const { TaskState } = skep.objects;
type Task = Readonly<skep.objects.Task>;
type Node = Readonly<Pick<skep.objects.Node, "id" | "number">>;
type Status = skep.objects.TaskStatus.$Properties;

/** The states of the agent (features: task states); the others belong to managers. */
const agentStates: ReadonlySet<number> = new Set([
  TaskState.ACCEPTED,
  TaskState.PREPARING,
  TaskState.READY,
  TaskState.STARTING,
  TaskState.RUNNING,
  TaskState.COMPLETE,
  TaskState.SHUTDOWN,
  TaskState.FAILED,
  TaskState.REJECTED,
]);

/** A task goes on after this update; longer texts are cut. */
const textMax = 4096;
/** One of each family. */
const gatewaysMax = 2;

export function isAgentState(state: number): boolean {
  return agentStates.has(state);
}

/**
 * @param task    as the store has it; undefined: it is gone
 * @param node    of the certificate, as the store has it; undefined: it is gone
 * @returns       the status to write, or undefined when nothing is to be written: it is another node's task, or older
 *                than what is known
 */
export function accepted(task: Task | undefined, node: Node | undefined, status: Status): Status | undefined {
  if (task === undefined || node === undefined || task.nodeId !== node.id) return undefined;
  const state = status.state ?? TaskState.NEW;
  const known = task.status?.state ?? TaskState.NEW;
  if (!isAgentState(state) || state < known || known < TaskState.ASSIGNED) return undefined;
  // The end of a task is said once: a second word for it would only change the log.
  if (state === known && known > TaskState.RUNNING) return undefined;
  return {
    timestampUs: status.timestampUs ?? 0,
    state,
    message: cut(status.message),
    err: cut(status.err),
    containerStatus: status.containerStatus ?? null,
    portStatus: status.portStatus ?? null,
    reason: status.reason ?? null,
    appliedBy: node.id,
    networkStatus: networkStatus(node, status),
  };
}

/**
 * Published ports of every host lead to a gateway address, so a node may name addresses of its own block only: no other
 * node's, and none outside.
 */
function networkStatus({ number }: Node, { networkStatus }: Status): skep.objects.NetworkStatus.$Properties | null {
  const said = networkStatus?.gatewayAddresses ?? [];
  const own = said.filter((address) => isTaskGateway(number, address)).slice(0, gatewaysMax);
  return own.length === 0 ? null : { gatewayAddresses: own };
}

const cut = (text: string | null | undefined): string => (text ?? "").slice(0, textMax);
