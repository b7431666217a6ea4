/**
 * Who reaches whom, and is seen as whom: every container, every host and a machine outside, to every task, by its own
 * address, its service's and the published port of each host, by TCP and UDP; and containers by names.
 */
import assert from "node:assert/strict";

import { gateway6Of } from "../../lib/pure/node-number.ts";
import type { Host } from "../../deploy/quickstart/hosts.ts";
import { namespaceOf, type NetworkRig, type Placed } from "./network-rig.ts";
import { patience, type Question } from "./web.ts";

const protocols = ["tcp", "udp"] as const;
const patienceMs = 60_000;

export interface Pairs {
  readonly rig: NetworkRig;
  readonly networkId: string;
  readonly networkName: string;
  /** One on each host, which answers with its name. */
  readonly everywhere: readonly Placed[];
  readonly portOf: (backend: Placed) => number;
}

interface Expected {
  readonly question: Question;
  /** How the answer begins; a pattern where it must not come. */
  readonly answer: string | RegExp;
}

const nobody = /^ERR/;

/** Resolves when a machine outside reaches each through every host. */
export async function untilEveryWayIsIn({ rig, everywhere, portOf }: Pairs): Promise<void> {
  const questions = rig.hosts.flatMap((entry) =>
    everywhere.flatMap((backend) =>
      protocols.map((protocol) => ({ protocol, address: entry.address, port: portOf(backend) })),
    ),
  );
  await rig.world.until("every way in", patienceMs, async () => {
    const answers = await rig.askAll(namespaceOf(rig.client), questions, patience.forSilenceMs);
    return answers.every((answer) => !answer.startsWith("ERR"));
  });
}

/** @returns how many answers were looked at, and those that are not as they ought to be, in words */
export async function wrongPairs(pairs: Pairs): Promise<{ readonly asked: number; readonly wrong: readonly string[] }> {
  const { rig, networkId, everywhere } = pairs;
  const gateways = new Map(rig.hosts.map((host) => [host, rig.gatewayOf(host, everywhere)]));
  const gateway = (host: Host): string => gateways.get(host) ?? assert.fail();
  /** What is seen of a gateway address by who is asked at another: addresses of IPv6 follow from those of IPv4. */
  const as = (gatewayAddress: string, asked: string): string =>
    asked.includes(":") ? gateway6Of(gatewayAddress) : gatewayAddress;
  const loopbacks = rig.hosts.some(({ address }) => address.includes(":")) ? ["127.0.0.1", "::1"] : ["127.0.0.1"];
  const addressOf = ({ addresses }: Placed): string => addresses.get(networkId) ?? assert.fail();
  const vipOf = ({ vips }: Placed): string => vips.get(networkId) ?? assert.fail();
  const [first] = everywhere as [Placed];
  const networkGateway = addressOf(first).replace(/\d+$/, "1");

  const answered = (backend: Placed, address: string, port: number, seen: string): Expected[] =>
    protocols.map((protocol) => ({
      question: { protocol, address, port },
      answer: `${backend.name} peer=${seen.includes(":") ? `[${seen}]` : seen}:`,
    }));
  const throughMesh = (seen: (entry: Host, backend: Placed) => string): Expected[] =>
    rig.hosts.flatMap((entry) =>
      everywhere.flatMap((backend) => answered(backend, entry.address, pairs.portOf(backend), seen(entry, backend))),
    );
  /** Overlays are their containers' alone. */
  const overlay = everywhere.flatMap((backend) =>
    [addressOf(backend), vipOf(backend)].flatMap((address) =>
      protocols.map((protocol): Expected => ({ question: { protocol, address, port: 80 }, answer: nobody })),
    ),
  );

  let asked = 0;
  async function holds(who: string, namespace: string, expected: readonly Expected[]): Promise<string[]> {
    const brief = expected.filter(({ answer }) => answer === nobody);
    const long = expected.filter(({ answer }) => answer !== nobody);
    const answers = await Promise.all([
      rig.askAll(
        namespace,
        brief.map(({ question }) => question),
        patience.forSilenceMs,
      ),
      rig.askAll(
        namespace,
        long.map(({ question }) => question),
      ),
    ]);
    asked += expected.length;
    return [...brief, ...long].flatMap(({ question: { protocol, address, port }, answer }, at) => {
      const told = answers.flat()[at] ?? "";
      const isRight = typeof answer === "string" ? told.startsWith(answer) : answer.test(told);
      return isRight ? [] : [`${who} to ${protocol} ${address}:${port}: ${told}, and not ${String(answer)}`];
    });
  }

  const wrong = await Promise.all([
    holds("client", namespaceOf(rig.client), [...throughMesh(() => rig.client.address), ...overlay]),
    ...rig.hosts.map((host) =>
      holds(host.name, namespaceOf(host), [
        // Seen on the host that it came from, by way of another, it would look like the host's own.
        ...throughMesh((entry, backend) =>
          backend.host === host && entry !== host ? as(gateway(entry), entry.address) : host.address,
        ),
        ...everywhere.flatMap((backend) =>
          loopbacks.flatMap((own) => answered(backend, own, pairs.portOf(backend), as(gateway(host), own))),
        ),
        ...overlay,
      ]),
    ),
    ...everywhere.map((asker) =>
      holds(asker.name, asker.namespace, [
        ...throughMesh((entry, backend) => {
          // A container has its gateway address on its own host, and is elsewhere seen as that host.
          if (entry === asker.host) return as(backend === asker ? gateway(entry) : asker.gateway, entry.address);
          return backend.host === asker.host ? as(gateway(entry), entry.address) : asker.host.address;
        }),
        // Who meets itself behind a service's address sees the network's gateway.
        ...everywhere.flatMap((backend) => [
          ...answered(backend, addressOf(backend), 80, addressOf(asker)),
          ...answered(backend, vipOf(backend), 80, backend === asker ? networkGateway : addressOf(asker)),
        ]),
      ]),
    ),
  ]);
  return { asked, wrong: wrong.flat() };
}

/** Resolves when each of these containers knows every other by its names. */
export async function untilNamesAreKnown({ rig, networkId, networkName, everywhere }: Pairs): Promise<void> {
  for (const asker of everywhere) {
    for (const { name, vips, addresses } of everywhere) {
      const wanted = [vips.get(networkId), addresses.get(networkId), vips.get(networkId)].join();
      await rig.world.until(`${asker.name} to know ${name}`, patienceMs, async () => {
        const names = [name, `tasks.${name}`, `${name}.${networkName}`];
        return (await Promise.all(names.map((one) => rig.lookUp(asker, one)))).join() === wanted;
      });
    }
  }
}
