/** The resolver as other people's clients see it: BIND's dig. */
import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { after, before, describe, test } from "node:test";

import { Random } from "../../../lib/pure/prng.ts";
import { realClock } from "../../../lib/runtime/index.ts";
import { NameTable, Resolver } from "../../../worker/network/dns/index.ts";
import { listenAt } from "../../../worker/network/testing/listen-at.ts";

const hasDig = spawnSync("dig", ["-v"]).status === 0;
const server = "127.0.1.55";
const asker = "127.0.2.55";
const otherAsker = "127.0.2.56";

describe("dig", { skip: hasDig ? false : "needs dig (bind9-dnsutils)", timeout: 120_000 }, () => {
  let resolver: Resolver;
  let port: number;
  const names = new NameTable();

  before(async () => {
    names.setNetwork({ id: "ov1", name: "blue", subnets: ["10.0.0.0/16"] });
    names.setNetwork({ id: "ov2", name: "red", subnets: ["10.2.0.0/24"] });
    const service = {
      networkId: "ov1",
      serviceId: "s1",
      name: "Web",
      aliases: ["www"],
      mode: "vip",
      ports: [],
    } as const;
    const endpoint = { networkId: "ov1", nodeId: "n", slot: 1, gatewayAddress: "", aliases: [], serving: true };
    names.replace(
      Array.from({ length: 500 }, (_, at) => ({
        ...endpoint,
        serviceId: "s1",
        taskId: `t${at}`,
        name: `web.${at + 1}.t${at}`,
        addresses: [`10.0.${at >> 8}.${at & 0xff}/16`],
      })),
      [
        { ...service, virtualIp: "10.0.9.1/16" },
        { ...service, networkId: "ov2", virtualIp: "10.2.0.9/24" },
      ],
    );
    const both = { id: "a", networks: ["ov1"], forwards: false, dns: [], links: new Map<string, string>() };
    names.setAsker({ ...both, addresses: [asker] });
    names.setAsker({ ...both, id: "b", addresses: [otherAsker], networks: ["ov2"] });
    resolver = new Resolver({ names, port: 0, clock: realClock, random: new Random("dig") });
    port = await listenAt(resolver, server);
  });
  after(() => resolver[Symbol.asyncDispose]());

  function dig(args: readonly string[], from = asker): Promise<string> {
    const all = [`@${server}`, "-p", String(port), "-b", from, "+tries=1", "+time=15", ...args];
    return new Promise((resolve, reject) => {
      execFile("dig", all, { timeout: 60_000 }, (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
    });
  }
  const short = async (args: readonly string[], from?: string): Promise<string[]> =>
    (await dig(["+short", ...args], from)).split("\n").filter((line) => line !== "");

  test("a service has its virtual address, by name, by alias, with the network's name, in any case", async () => {
    for (const name of ["web", "WEB", "www", "web.blue", "Web.Blue."])
      assert.deepEqual(await short([name]), ["10.0.9.1"], name);
    assert.deepEqual(await short(["web"], otherAsker), ["10.2.0.9"]);
    assert.deepEqual(await short(["web.3.t2"]), ["10.0.0.2"]);
  });

  test("the answer is authoritative, short-lived, and recursion is available", async () => {
    const text = await dig(["web"]);
    assert.match(text, /status: NOERROR/);
    assert.match(text, /flags: qr aa rd ra;/);
    assert.match(text, /^web\.\s+1\s+IN\s+A\s+10\.0\.9\.1$/m);
  });

  test("five hundred addresses come by TCP after a truncated answer, each time in another order", async () => {
    const [first, second] = [await short(["tasks.web"]), await short(["tasks.web"])];
    assert.equal(new Set(first).size, 500);
    assert.deepEqual(first.toSorted(), second.toSorted());
    assert.notDeepEqual(first, second);
    assert.match(await dig(["+ignore", "+bufsize=1232", "tasks.web"]), /flags: qr aa tc rd ra;/);
    assert.match(await dig(["+tcp", "+keepopen", "tasks.web"]), /ANSWER: 500/);
  });

  test("AAAA and MX of a known name are NOERROR without an answer; an unknown name is NXDOMAIN where nothing is forwarded", async () => {
    for (const type of ["AAAA", "MX", "HTTPS"])
      assert.match(await dig(["-t", type, "web"]), /status: NOERROR[\s\S]*ANSWER: 0/);
    assert.match(await dig(["example.com"]), /status: NXDOMAIN/);
    assert.match(await dig(["tasks.web"], otherAsker), /ANSWER: 0/);
    assert.match(await dig(["www.blue"], otherAsker), /status: NXDOMAIN/);
  });

  test("addresses are looked up in reverse", async () => {
    assert.deepEqual(await short(["-x", "10.0.0.2"]), ["web.3.t2.blue."]);
    assert.deepEqual(await short(["-x", "10.0.9.1"]), ["web.blue."]);
    assert.match(await dig(["-x", "10.0.77.7"]), /status: NXDOMAIN/);
    assert.match(await dig(["-x", "10.0.0.2"], otherAsker), /status: NXDOMAIN/);
  });

  test("strangers, other classes, updates and a later EDNS are refused in the right words", async () => {
    assert.match(await dig(["web"], "127.0.2.99"), /status: REFUSED/);
    assert.match(await dig(["-c", "CH", "-t", "TXT", "version.bind"]), /status: REFUSED/);
    assert.match(await dig(["+opcode=UPDATE", "web"]), /status: NOTIMP/);
    assert.match(await dig(["+edns=1", "+noednsnegotiation", "web"]), /status: BADVERS/);
    assert.match(await dig(["+noedns", "web"]), /status: NOERROR/);
    assert.match(await dig(["+cookie=0102030405060708", "+subnet=10.0.0.0/8", "web"]), /status: NOERROR/);
  });
});
