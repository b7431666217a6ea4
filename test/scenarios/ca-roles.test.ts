/** Promotion, demotion and removal of managers: consensus, node objects and certificates change in step. */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { after, before, test } from "node:test";

import type { NodeRole as CertificateRole } from "../../lib/pki/index.ts";
import { managersMethods } from "../../manager/managers-service.ts";
import { removeNode } from "../../manager/store/index.ts";
import { skep } from "../../proto/index.ts";
import { Swarm, type SwarmNode } from "../support/swarm.ts";

const { NodeRole, Reachability } = skep.objects;

let swarm: Swarm;
before(async () => {
  swarm = await Swarm.found();
  const token = swarm.tokens().manager;
  await swarm.join("n2", { token });
  await swarm.join("n3", { token });
  await swarm.untilVoters(3);
});
after(() => swarm[Symbol.asyncDispose]());

async function wish(node: SwarmNode, role: skep.objects.NodeRole): Promise<void> {
  await swarm.update((tx) => {
    tx.edit("node", node.nodeId, (draft) => {
      draft.spec = skep.objects.NodeSpec.create({ ...draft.spec, role });
    });
  });
}

/** What the daemon does when it hears of its node: renew, and run a manager or not as the certificate says. */
async function follow(node: SwarmNode, role: CertificateRole): Promise<void> {
  const before = node.identity.memberId;
  node.renewer.start();
  const renewed = new Promise<void>((resolve) => {
    node.identity.onChange(() => {
      if (node.identity.role === role && node.identity.memberId !== before) resolve();
    });
  });
  await node.tell();
  await renewed;
  node.renewer.stop();
  if (role === "worker") await node.stopManager();
  rmSync(node.dataDir, { recursive: true, force: true });
  if (role === "manager") await swarm.startJoined(node);
}

const isWorker = (node: SwarmNode): Promise<void> =>
  swarm.until(
    `${node.name} is a worker`,
    (view) => view.get("node", node.nodeId)?.role === NodeRole.WORKER,
    swarm.managers().find((each) => each !== node),
  );

test("each manager's node says how consensus sees it: address, reachability, and who leads", async () => {
  const leader = await swarm.leader();
  await swarm.until("standings", (view) => {
    const standings = swarm.nodes.map(({ nodeId }) => view.get("node", nodeId)?.managerStatus);
    return (
      standings.every((status) => status?.reachability === Reachability.REACHABLE) &&
      standings.filter((status) => status?.leader === true).length === 1
    );
  });
  for (const node of swarm.nodes) {
    const status = leader.store.current().get("node", node.nodeId)?.managerStatus;
    assert.equal(status?.addr, node.address);
    assert.equal(status?.memberId, node.identity.memberId);
    assert.equal(status?.leader, node.manager === leader);
  }
});

test("a demoted manager leaves consensus, becomes a worker by certificate, and cannot come back with the old one", async () => {
  const leader = await swarm.leader();
  const demoted = swarm.nodes.find(({ manager }) => manager !== leader)!;
  const old = demoted.channel(swarm.nodes.find(({ manager }) => manager === leader)!.address);
  const oldMember = demoted.identity.memberId!;
  await wish(demoted, NodeRole.WORKER);
  await isWorker(demoted);
  assert.ok(!leader.raft.conf.voters.includes(oldMember));
  assert.equal(leader.store.current().get("node", demoted.nodeId)?.managerStatus, null);
  const call = { timeoutMs: 30_000, signal: AbortSignal.timeout(30_000) };
  const request = { address: demoted.address, dataIncarnation: "0".repeat(32), featureLevel: 1 };
  await assert.rejects(old.call(managersMethods.join, request, call), { code: "MEMBER_NOT_EXPECTED" });
  await follow(demoted, "worker");
  assert.equal(demoted.identity.role, "worker");
  assert.equal(demoted.identity.memberId, undefined);
  await swarm.untilVoters(2);

  await wish(demoted, NodeRole.MANAGER);
  await follow(demoted, "manager");
  assert.notEqual(demoted.identity.memberId, oldMember, "a member that left never comes back");
  await swarm.untilVoters(3);
});

test("a leader that is demoted hands over, and the next one takes it out", async () => {
  const leader = await swarm.leader();
  const demoted = swarm.nodes.find(({ manager }) => manager === leader)!;
  await wish(demoted, NodeRole.WORKER);
  await isWorker(demoted);
  await follow(demoted, "worker");
  assert.notEqual(await swarm.leader(), leader);
  await swarm.untilVoters(2);
  await wish(demoted, NodeRole.MANAGER);
  await follow(demoted, "manager");
  await swarm.untilVoters(3);
});

test("nobody is demoted while the rest would be without a quorum; it happens when they are back", async () => {
  const leader = await swarm.leader();
  const [lost, demoted] = swarm.nodes.filter(({ manager }) => manager !== leader) as [SwarmNode, SwarmNode];
  await lost.stopManager();
  await swarm.until("one is lost", (view) => {
    return view.get("node", lost.nodeId)?.managerStatus?.reachability === Reachability.UNREACHABLE;
  });
  const refused = swarm.logs.length;
  await wish(demoted, NodeRole.WORKER);
  await swarm.logged("cannot leave consensus yet", refused);
  const line = swarm.logs.slice(refused).find(({ message }) => message.includes("cannot leave consensus yet"));
  assert.equal(line?.facts["code"], "RAFT_QUORUM_AT_RISK");
  assert.equal(leader.store.current().get("node", demoted.nodeId)?.role, NodeRole.MANAGER);
  assert.equal(leader.raft.conf.voters.length, 3);
  await lost.startManager({ kind: "resume" });
  await isWorker(demoted);
  await follow(demoted, "worker");
  await swarm.untilVoters(2);
});

test("the member of a manager that was removed by force leaves consensus, and the last manager stays", async () => {
  const leader = await swarm.leader();
  const removed = swarm.managers().find(({ manager }) => manager !== leader)!;
  const last = swarm.managers().find(({ manager }) => manager === leader)!;
  await swarm.update((tx) => removeNode(tx, removed.nodeId));
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (leader.raft.conf.voters.length === 1) resolve();
    };
    leader.raft.onMembers(look);
    look();
  });
  await removed.stopManager();
  const refused = swarm.logs.length;
  await wish(last, NodeRole.WORKER);
  await swarm.logged("cannot leave consensus yet", refused);
  assert.equal(leader.store.current().get("node", last.nodeId)?.role, NodeRole.MANAGER);
  assert.deepEqual(leader.raft.conf.voters, [last.identity.memberId]);
});
