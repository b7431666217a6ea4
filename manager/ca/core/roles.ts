/**
 * What is to be done so that consensus members and node objects agree. Facts in, steps out.
 *
 * Demotion goes in an order that no crash can turn around: first the member leaves consensus, then the node object says
 * that the node is a worker, then the node's next certificate does. Promotion is the reverse, and its first step is the
 * node's: it asks for a certificate, and the authority writes role and member id when it issues one.
 */
import { skep } from "../../../proto/index.ts";

const { NodeRole, Reachability } = skep.objects;
type Status = skep.objects.ManagerStatus.$Properties;

export interface MemberFacts {
  readonly id: number;
  readonly nodeId: string;
  readonly address: string;
  readonly leader: boolean;
  readonly reachable: boolean;
}

export interface ManagerNode {
  readonly id: string;
  /** What it is wished to be. */
  readonly wish: skep.objects.NodeRole;
  readonly status: Status | null | undefined;
}

export interface RoleFacts {
  /** Nodes whose role is that of a manager by now. */
  readonly managers: readonly ManagerNode[];
  /** Of consensus, as its leader knows them. */
  readonly members: readonly MemberFacts[];
  readonly self: number;
  readonly wasRemoved: (memberId: number) => boolean;
}

export type RoleStep =
  /** Out of consensus: its node is to be a worker, was removed, or is another member by now. */
  | { readonly kind: "remove"; readonly memberId: number; readonly nodeId: string; readonly why: string }
  /** The member to take out is this leader: another leads first, and does it. */
  | { readonly kind: "handOver"; readonly memberId: number; readonly nodeId: string; readonly why: string }
  /** It is no member any more: its node object becomes that of a worker, or of a manager yet to come. */
  | { readonly kind: "left"; readonly nodeId: string; readonly again: boolean }
  | { readonly kind: "standing"; readonly nodeId: string; readonly status: Status };

/** At most one step that changes consensus, and that last: members leave one at a time. */
export function reconcileRoles(facts: RoleFacts): RoleStep[] {
  const { managers, members, self, wasRemoved } = facts;
  const nodes = new Map(managers.map((node) => [node.id, node]));
  const steps: RoleStep[] = [];
  for (const node of managers) {
    const memberId = node.status?.memberId ?? 0;
    const member = members.find(({ id }) => id === memberId);
    if (member === undefined && node.wish === NodeRole.WORKER) {
      steps.push({ kind: "left", nodeId: node.id, again: false });
    } else if (member === undefined && wasRemoved(memberId)) {
      steps.push({ kind: "left", nodeId: node.id, again: true });
    } else {
      const status = statusOf(node.status, member);
      if (!sameStatus(node.status, status)) steps.push({ kind: "standing", nodeId: node.id, status });
    }
  }
  const leaving = members
    .map((member) => ({ member, why: whyLeave(member, nodes.get(member.nodeId)) }))
    .filter(({ why }) => why !== undefined)
    // Itself last: a new leader would only have to learn what is left to do.
    .sort((a, b) => Number(a.member.id === self) - Number(b.member.id === self) || a.member.id - b.member.id);
  const [first] = leaving;
  if (first?.why !== undefined) {
    const { id: memberId, nodeId } = first.member;
    steps.push({ kind: memberId === self ? "handOver" : "remove", memberId, nodeId, why: first.why });
  }
  return steps;
}

function whyLeave(member: MemberFacts, node: ManagerNode | undefined): string | undefined {
  if (node === undefined) return "its node was removed";
  if (node.status?.memberId !== member.id) return "its node is another member by now";
  return node.wish === NodeRole.WORKER ? "its node is demoted" : undefined;
}

function statusOf(known: Status | null | undefined, member: MemberFacts | undefined): Status {
  const memberId = known?.memberId ?? 0;
  if (member === undefined) {
    // Certified, and not let in yet.
    return { memberId, addr: known?.addr ?? "", leader: false, reachability: Reachability.REACHABILITY_UNKNOWN };
  }
  const { address, leader, reachable } = member;
  const reachability = reachable ? Reachability.REACHABLE : Reachability.UNREACHABLE;
  return { memberId, addr: address, leader, reachability };
}

function sameStatus(a: Status | null | undefined, b: Status): boolean {
  return (
    a != null &&
    (a.leader ?? false) === b.leader &&
    (a.reachability ?? 0) === b.reachability &&
    (a.addr ?? "") === b.addr &&
    (a.memberId ?? 0) === b.memberId
  );
}
