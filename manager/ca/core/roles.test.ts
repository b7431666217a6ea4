import assert from "node:assert/strict";
import { test } from "node:test";

import { skep } from "../../../proto/index.ts";
import { WrongTokens, reconcileRoles, type ManagerNode, type MemberFacts, type RoleFacts } from "./index.ts";

const { NodeRole, Reachability } = skep.objects;
const { MANAGER, WORKER } = NodeRole;

const member = (id: number, more: Partial<MemberFacts> = {}): MemberFacts => ({
  id,
  nodeId: `node${id}`,
  address: `192.0.2.${id}:2377`,
  leader: id === 1,
  reachable: true,
  ...more,
});

const node = (id: number, more: Partial<ManagerNode> = {}): ManagerNode => ({
  id: `node${id}`,
  wish: MANAGER,
  status: {
    memberId: id,
    addr: `192.0.2.${id}:2377`,
    leader: id === 1,
    reachability: Reachability.REACHABLE,
  },
  ...more,
});

const steps = (facts: Partial<RoleFacts>): ReturnType<typeof reconcileRoles> =>
  reconcileRoles({ managers: [], members: [], self: 1, wasRemoved: () => false, ...facts });

test("nothing is to be done while nodes and members agree", () => {
  assert.deepEqual(steps({ managers: [node(1), node(2)], members: [member(1), member(2)] }), []);
});

test("a demoted manager leaves consensus before its node object becomes a worker's", () => {
  const managers = [node(1), node(2, { wish: WORKER })];
  const first = steps({ managers, members: [member(1), member(2)] });
  assert.deepEqual(first, [{ kind: "remove", memberId: 2, nodeId: "node2", why: "its node is demoted" }]);
  const then = steps({ managers, members: [member(1)] });
  assert.deepEqual(then, [{ kind: "left", nodeId: "node2", again: false }]);
});

test("a leader that is demoted hands over; another removes it, and others leave before", () => {
  const managers = [node(1, { wish: WORKER }), node(2), node(3, { wish: WORKER })];
  const members = [member(1), member(2), member(3)];
  assert.equal(steps({ managers, members })[0]?.kind, "remove");
  const last = steps({ managers: managers.slice(0, 2), members: members.slice(0, 2) });
  assert.deepEqual(last, [{ kind: "handOver", memberId: 1, nodeId: "node1", why: "its node is demoted" }]);
});

test("the member of a node that was removed leaves, one at a time", () => {
  const found = steps({ managers: [node(1)], members: [member(1), member(2), member(3)] });
  assert.deepEqual(found, [{ kind: "remove", memberId: 2, nodeId: "node2", why: "its node was removed" }]);
});

test("a member that its node is no longer leaves, and the new one is awaited", () => {
  const managers = [node(1), node(2, { status: { memberId: 22 } })];
  const found = steps({ managers, members: [member(1), member(2)] });
  assert.deepEqual(
    found.map(({ kind }) => kind),
    ["remove"],
  );
});

test("a node that is wished back after its member left has to become another member", () => {
  const found = steps({ managers: [node(1), node(2)], members: [member(1)], wasRemoved: (id) => id === 2 });
  assert.deepEqual(found, [{ kind: "left", nodeId: "node2", again: true }]);
});

test("leader, reachability and address follow consensus; a manager not let in yet is unknown", () => {
  const managers = [node(1), node(2), node(3)];
  const members = [
    member(1, { leader: false }),
    member(2, { leader: true, reachable: false, address: "192.0.2.9:2377" }),
  ];
  assert.deepEqual(steps({ managers, members }), [
    {
      kind: "standing",
      nodeId: "node1",
      status: { memberId: 1, addr: "192.0.2.1:2377", leader: false, reachability: Reachability.REACHABLE },
    },
    {
      kind: "standing",
      nodeId: "node2",
      status: { memberId: 2, addr: "192.0.2.9:2377", leader: true, reachability: Reachability.UNREACHABLE },
    },
    {
      kind: "standing",
      nodeId: "node3",
      status: { memberId: 3, addr: "192.0.2.3:2377", leader: false, reachability: Reachability.REACHABILITY_UNKNOWN },
    },
  ]);
});

test("wrong tokens are counted per address, forgiven with time, and forgotten when there are too many", () => {
  const tokens = new WrongTokens();
  for (let times = 0; times < 8; times++) {
    assert.equal(tokens.waitMs("a", 0), 0);
    tokens.wrong("a", 0);
  }
  assert.equal(tokens.waitMs("a", 0), 5000);
  assert.equal(tokens.waitMs("b", 0), 0);
  assert.equal(tokens.waitMs("a", 5000), 0);
  assert.equal(tokens.waitMs("a", 2500), 2500);
  for (let address = 0; address < 5000; address++) tokens.wrong(String(address), 0);
  assert.equal(tokens.size, 1024);
  assert.equal(tokens.waitMs("a", 0), 0);
});
