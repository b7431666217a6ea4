import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { Authority, createAuthority } from "../../lib/pki/index.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import { Random } from "../../lib/pure/prng.ts";
import { silentLogger, VirtualClock } from "../../lib/runtime/index.ts";
import { skep } from "../../proto/index.ts";
import { IdentityFolder, Renewer, found, type AskRenewal, type SwarmIdentity } from "./index.ts";

const { CertificateState, NodeRole } = skep.objects;
const base = mkdtempSync(join(tmpdir(), "skep-renewer-"));
after(() => rmSync(base, { recursive: true }));
const dayMs = 86_400_000;
let made = 0;

interface World {
  readonly clock: VirtualClock;
  readonly identity: SwarmIdentity;
  readonly renewer: Renewer;
  readonly asked: { readonly address: string; readonly atMs: number }[];
  /** Asked after the end of the certificate. */
  readonly reinstated: { readonly address: string; readonly atMs: number }[];
  reinstate: AskRenewal;
  readonly failures: string[];
  /** Issues what a manager would; may be made to fail. */
  answer: AskRenewal;
  readonly issue: (csr: string, role: "manager" | "worker") => Promise<skep.ca.IRenewResponse>;
  /** Lets everything run that is due, and what it wakes. */
  readonly pass: (ms: number) => Promise<void>;
}

async function world(addresses: readonly string[] = ["a", "b"]): Promise<World> {
  const clock = new VirtualClock();
  const founded = await found({
    folder: new IdentityFolder(join(base, String(made++))),
    clock,
    settings: { listenAddr: "0.0.0.0:2377", advertiseAddr: "192.0.2.1:2377", dataPathAddr: "" },
    spec: new Uint8Array(),
    defaultAddrPool: [],
    subnetSize: 24,
    dataPathPort: 4789,
    hostname: "h",
    availability: "active",
  });
  const { identity, bootstrap } = founded;
  const { clusterId, nodeId, memberId, rootCert, rootKey } = bootstrap;
  const authority = new Authority({ certificatePem: rootCert, privateKeyPem: rootKey });
  const asked: { address: string; atMs: number }[] = [];
  const reinstated: { address: string; atMs: number }[] = [];
  const failures: string[] = [];
  const issue: World["issue"] = async (csr, role) => {
    const named = { clusterId, nodeId, role, memberId: role === "manager" ? memberId : undefined };
    return { certificate: await authority.issue(csr, named, { nowMs: clock.wallMs() }), root: rootCert };
  };
  let settled: () => void = () => undefined;
  const state: World = {
    clock,
    identity,
    asked,
    reinstated,
    reinstate: () => Promise.reject(new Refused("RPC_UNAVAILABLE")),
    failures,
    issue,
    answer: (_address, { csr }) => issue(csr ?? "", "manager"),
    renewer: new Renewer({
      identity,
      clock,
      random: new Random(1),
      logger: silentLogger,
      addresses: () => addresses,
      onFailure: ({ code }) => failures.push(code),
      ask: async (address, request, signal) => {
        asked.push({ address, atMs: clock.monotonicMs() });
        try {
          return await state.answer(address, request, signal);
        } finally {
          settled();
        }
      },
      askAfterEnd: (address, request, signal) => {
        reinstated.push({ address, atMs: clock.monotonicMs() });
        return state.reinstate(address, request, signal);
      },
    }),
    pass: async (ms) => {
      const until = clock.monotonicMs() + ms;
      while (clock.monotonicMs() < until) {
        const before = asked.length;
        const answered = new Promise<void>((resolve) => {
          settled = resolve;
        });
        clock.advance(Math.min(600_000, until - clock.monotonicMs()));
        // Keys are made outside of the clock.
        await clock.run(0);
        if (waits()) await answered;
        if (asked.length > before) for (let turn = 0; turn < 5; turn++) await clock.run(0);
      }
    },
  };
  const waits = (): boolean => clock.pending === 0;
  return state;
}

class Refused extends ClusterError {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

test("a certificate is renewed between half and four fifths of its life, and again in the next one", async () => {
  const { clock, identity, renewer, asked, pass } = await world();
  const born = clock.monotonicMs();
  renewer.start();
  await pass(44 * dayMs);
  assert.equal(asked.length, 0);
  await pass(29 * dayMs);
  assert.equal(asked.length, 1);
  const ageMs = asked[0]!.atMs - born;
  assert.ok(ageMs >= 44.9 * dayMs && ageMs <= 72.1 * dayMs, String(ageMs / dayMs));
  assert.ok(identity.tls.certificate.notAfterMs > clock.wallMs() + 60 * dayMs);
  await pass(75 * dayMs);
  const nextMs = (asked[1]?.atMs ?? 0) - ageMs - born;
  assert.ok(nextMs >= 44.9 * dayMs && nextMs <= 72.1 * dayMs, String(nextMs / dayMs));
  renewer.stop();
  assert.equal(clock.pending, 0);
});

test("when a manager tells of another role it is asked for at once, at one address after the other", async () => {
  const state = await world();
  state.renewer.start();
  await state.pass(1000);
  state.answer = (address, { csr }) =>
    address === "a" ? Promise.reject(new Refused("RPC_UNAVAILABLE")) : state.issue(csr ?? "", "worker");
  const changed = new Promise<void>((resolve) => void state.identity.onChange(() => resolve()));
  state.renewer.heard({ node: { spec: { role: NodeRole.MANAGER }, role: NodeRole.MANAGER } });
  assert.equal(state.asked.length, 0, "nothing has changed");
  state.renewer.heard({ node: { spec: { role: NodeRole.WORKER }, role: NodeRole.MANAGER } });
  assert.equal(state.asked.length, 0, "its member has not left consensus yet");
  state.renewer.heard({ node: { spec: { role: NodeRole.WORKER }, role: NodeRole.WORKER } });
  await changed;
  assert.deepEqual(
    state.asked.map(({ address }) => address),
    ["a", "b"],
  );
  assert.equal(state.identity.role, "worker");
  state.renewer.stop();
});

test("a node that is told to renew for the next root does, and roots that do not vouch for it are not believed", async () => {
  const state = await world();
  state.renewer.start();
  const roots = state.identity.rootsPem;
  state.renewer.heard({ roots: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" });
  assert.equal(state.identity.rootsPem, roots);
  const changed = new Promise<void>((resolve) => void state.identity.onChange(() => resolve()));
  state.renewer.heard({
    node: {
      spec: { role: NodeRole.MANAGER },
      role: NodeRole.MANAGER,
      certificate: { state: CertificateState.CERTIFICATE_ROTATE },
    },
    roots,
  });
  await changed;
  assert.equal(state.asked.length, 1);
  state.renewer.stop();
});

test("an expired certificate is tried again, less and less often, and the reason says so", async () => {
  const state = await world(["a"]);
  state.answer = () => Promise.reject(new Refused("PEER_NOT_AUTHENTICATED"));
  state.clock.jumpWall(100 * dayMs);
  state.renewer.start();
  await state.pass(4 * 3_600_000);
  assert.ok(state.failures.length >= 3, String(state.failures.length));
  assert.ok(state.failures.every((code) => code === "CERTIFICATE_EXPIRED"));
  const times = state.asked.map(({ atMs }) => atMs);
  for (const [at, atMs] of times.entries()) if (at > 0) assert.ok(atMs - times[at - 1]! >= 5000);
  assert.ok(state.asked.length < 60, "it does not ask every few seconds");
  assert.equal(state.reinstated.length, state.asked.length, "each time it asks to be reinstated, too");
  state.renewer.stop();
});

test("a node whose certificate has ended is reinstated, and one that is refused says why and not that it expired", async () => {
  const state = await world(["a", "b"]);
  state.answer = () => Promise.reject(new Refused("PEER_NOT_AUTHENTICATED"));
  state.reinstate = (address, { csr }) =>
    address === "a" ? Promise.reject(new Refused("RPC_UNAVAILABLE")) : state.issue(csr ?? "", "manager");
  state.clock.jumpWall(100 * dayMs);
  const renewed = new Promise<void>((resolve) => void state.identity.onChange(() => resolve()));
  state.renewer.start();
  await state.pass(1000);
  await renewed;
  assert.ok(state.identity.tls.certificate.notAfterMs > state.clock.wallMs());
  state.renewer.stop();

  const refused = await world(["a", "b"]);
  refused.answer = () => Promise.reject(new Refused("PEER_NOT_AUTHENTICATED"));
  refused.reinstate = (address) =>
    Promise.reject(new Refused(address === "a" ? "REINSTATEMENT_REFUSED" : "RPC_UNAVAILABLE"));
  refused.clock.jumpWall(100 * dayMs);
  refused.renewer.start();
  await refused.pass(60_000);
  assert.equal(refused.failures[0], "REINSTATEMENT_REFUSED");
  refused.renewer.stop();
});

test("a node that was removed is told so, and one that knows no manager says that", async () => {
  const removed = await world(["a"]);
  removed.answer = () => Promise.reject(new Refused("NODE_REVOKED"));
  removed.renewer.start();
  removed.renewer.renewNow();
  await removed.pass(1000);
  assert.equal(removed.failures[0], "NODE_REVOKED");
  removed.renewer.stop();

  const alone = await world([]);
  const failed = new Promise<void>((resolve) => {
    const push = alone.failures.push.bind(alone.failures);
    alone.failures.push = (...codes) => {
      resolve();
      return push(...codes);
    };
  });
  alone.renewer.start();
  alone.renewer.renewNow();
  await failed;
  assert.equal(alone.failures[0], "NO_MANAGER_KNOWN");
  alone.renewer.stop();
});

test("roots that the disk refuses are trusted at once, and told and written when it takes them", async () => {
  const { clock, identity, renewer } = await world();
  const { certificatePem: other } = await createAuthority("c".repeat(25), clock.wallMs());
  const roots = `${identity.rootsPem}${other}`;
  const { folder } = identity;
  const written: string[] = [];
  let isFull = true;
  Object.assign(folder, {
    writeRoots: (text: string) => {
      if (isFull) throw new Error("ENOSPC");
      written.push(text);
    },
  });
  const told: string[] = [];
  identity.onChange((change) => told.push(change));
  renewer.start();
  renewer.heard({ roots });
  assert.equal(identity.rootsPem, roots);
  assert.deepEqual([written, told], [[], []]);
  isFull = false;
  clock.advance(1000);
  assert.deepEqual([written, told], [[roots], ["roots"]]);
  renewer.stop();
});
