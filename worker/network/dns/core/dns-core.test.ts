import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { Random } from "../../../../lib/pure/prng.ts";
import type { Asker, EndpointRecord, ServiceRecord } from "../../contract.ts";
import { answer } from "./answer.ts";
import { Frames, framed } from "./frames.ts";
import { answersQuery, forwardedQuery, nameData, passedReply, readQuery, writeReply, type Query } from "./message.ts";
import { NameTable, type AskerEntry } from "./name-table.ts";

const type = { A: 1, PTR: 12, MX: 15, AAAA: 28, ANY: 255 };

/** A query as a client sends it. */
function packet(
  name: string | readonly Uint8Array[],
  kind = type.A,
  options: { opt?: number; id?: number } = {},
): Buffer {
  const labels =
    typeof name === "string" ? (name === "" ? [] : name.split(".").map((text) => Buffer.from(text))) : name;
  const encoded = labels.flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const header = Buffer.alloc(12);
  header.writeUInt16BE(options.id ?? 0x1234, 0);
  header[2] = 1;
  header.writeUInt16BE(1, 4);
  const tail = Buffer.from([0, kind >> 8, kind & 0xff, 0, 1]);
  if (options.opt === undefined) return Buffer.concat([header, ...encoded, tail]);
  header.writeUInt16BE(1, 10);
  const opt = Buffer.from([0, 0, 41, options.opt >> 8, options.opt & 0xff, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...encoded, tail, opt]);
}

function queryOf(bytes: Uint8Array): Query {
  const reading = readQuery(bytes);
  assert.ok(reading.kind === "query");
  return reading.query;
}

const asker = (known: Readonly<Record<string, readonly string[]>>, more: Partial<Asker> = {}): Asker => ({
  id: "c1",
  forwards: true,
  dns: [],
  addresses: (name) => known[name],
  nameOf: () => undefined,
  ...more,
});

const random = new Random(1);

test("readQuery() gives the name in small letters, the type, and what the client takes by UDP", () => {
  const query = queryOf(packet("Tasks.WEB.Example", type.AAAA, { opt: 4096 }));
  assert.equal(query.question.name, "tasks.web.example");
  assert.equal(query.question.type, type.AAAA);
  assert.equal(query.udpBytesMax, 4096);
  assert.equal(queryOf(packet("web")).udpBytesMax, 512);
  assert.equal(queryOf(packet("web", type.A, { opt: 100 })).udpBytesMax, 512);
});

test("readQuery() keeps a label with a dot apart from two labels", () => {
  assert.equal(queryOf(packet([Buffer.from("tasks.web")])).question.name, "tasks\\.web");
  assert.equal(queryOf(packet([Buffer.from([0xff, 0x20, 0x5c])])).question.name, "\\255\\032\\\\");
  assert.equal(queryOf(packet("")).question.name, "");
});

test("readQuery() leaves replies and shreds alone, and refuses what it cannot read with the right code", () => {
  const reply = packet("web");
  reply[2] = 0x81;
  assert.equal(readQuery(reply).kind, "ignored");
  assert.equal(readQuery(packet("web").subarray(0, 11)).kind, "ignored");
  const code = (change: (bytes: Buffer) => void, bytes = packet("web", type.A, { opt: 512 })): unknown => {
    change(bytes);
    const reading = readQuery(bytes);
    return reading.kind === "refused" ? reading.code : reading.kind;
  };
  assert.equal(
    code((bytes) => (bytes[2] = 0x28)),
    4,
    "an update is not implemented",
  );
  assert.equal(
    code((bytes) => bytes.writeUInt16BE(2, 4)),
    1,
    "two questions",
  );
  assert.equal(
    code((bytes) => bytes.writeUInt16BE(0, 4)),
    1,
    "no question",
  );
  assert.equal(
    code((bytes) => bytes.writeUInt16BE(9, 10)),
    1,
    "too many records",
  );
  assert.equal(
    code((bytes) => bytes.writeUInt16BE(2, 10)),
    1,
    "fewer records than told",
  );
  assert.equal(
    code((bytes) => (bytes[12] = 0xc0)),
    1,
    "a pointer in the question",
  );
  assert.equal(
    code((bytes) => (bytes[12] = 64)),
    1,
    "a label of 64",
  );
  assert.equal(
    code((bytes) => (bytes[12 + 4 + 1 + 4 + 6] = 1)),
    16,
    "EDNS version 1",
  );
  assert.equal(
    code(() => undefined),
    "query",
  );
});

test("readQuery() takes names of 255 bytes and refuses longer ones", () => {
  const label = Buffer.alloc(63, "a");
  assert.equal(readQuery(packet([label, label, label, Buffer.alloc(61, "a")])).kind, "query");
  assert.equal(readQuery(packet([label, label, label, Buffer.alloc(62, "a")])).kind, "refused");
});

test("answer() gives addresses, an empty answer for another type of a known name, and forwards the rest", () => {
  const known = asker({ web: ["10.0.1.5"], six: ["10.0.1.6", "fd00::6"], idle: [] });
  const asked = (name: string, kind: number): unknown => {
    const verdict = answer(queryOf(packet(name, kind)), known, random);
    return verdict.kind === "forward" ? "forward" : [verdict.code, verdict.answers.map(({ data }) => [...data])];
  };
  assert.deepEqual(asked("web", type.A), [0, [[10, 0, 1, 5]]]);
  assert.deepEqual(asked("web", type.AAAA), [0, []]);
  assert.deepEqual(asked("web", type.MX), [0, []]);
  assert.deepEqual(asked("idle", type.A), [0, []]);
  assert.deepEqual(asked("six", type.AAAA), [0, [[0xfd, ...Array.from({ length: 14 }, () => 0), 6]]]);
  assert.equal((asked("six", type.ANY) as [number, unknown[]])[1].length, 2);
  assert.equal(asked("example.com", type.A), "forward");
});

test("answer() refuses strangers and other classes, and says of foreign names on internal networks that there are none", () => {
  const code = (bytes: Uint8Array, who: Asker | undefined): unknown => {
    const verdict = answer(queryOf(bytes), who, random);
    return verdict.kind === "reply" ? verdict.code : verdict.kind;
  };
  assert.equal(code(packet("web"), undefined), 5);
  const chaos = packet("version.bind");
  chaos[chaos.length - 1] = 3;
  assert.equal(code(chaos, asker({})), 5);
  assert.equal(code(packet("example.com"), asker({}, { forwards: false })), 3);
  assert.equal(code(packet("example.com"), asker({})), "forward");
});

test("answer() names addresses of ours, and asks nobody outside for those without a name", () => {
  const names: Readonly<Record<string, string>> = { "10.0.1.5": "web.ov1", "10.0.1.6": "", "fd00:1::5": "web.ov1" };
  const who = asker({}, { nameOf: (address) => names[address] });
  const asked = (name: string): unknown => {
    const verdict = answer(queryOf(packet(name, type.PTR)), who, random);
    return verdict.kind === "forward" ? "forward" : [verdict.code, verdict.answers.map(({ data }) => data)];
  };
  assert.deepEqual(asked("5.1.0.10.in-addr.arpa"), [0, [nameData("web.ov1")]]);
  assert.deepEqual(asked("6.1.0.10.in-addr.arpa"), [3, []]);
  assert.equal(asked("7.1.0.10.in-addr.arpa"), "forward");
  assert.equal(asked("07.1.0.10.in-addr.arpa"), "forward");
  assert.equal(asked("1.0.10.in-addr.arpa"), "forward");
  const zeros = (count: number): string => "0.".repeat(count);
  assert.deepEqual(asked(`5.${zeros(23)}1.0.0.0.0.0.d.f.ip6.arpa`), [0, [nameData("web.ov1")]]);
  assert.equal(asked(`6.${zeros(23)}1.0.0.0.0.0.d.f.ip6.arpa`), "forward");
  assert.equal(asked(`5.${zeros(22)}1.0.0.0.0.0.d.f.ip6.arpa`), "forward", "of 31 digits");
});

test("answer() shuffles: each of four addresses comes first about as often", () => {
  const addresses = ["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"];
  const first = new Map<number, number>();
  for (let count = 0; count < 4000; count++) {
    const verdict = answer(queryOf(packet("web")), asker({ web: addresses }), random);
    assert.ok(verdict.kind === "reply" && verdict.answers.length === 4);
    const last = verdict.answers[0]?.data[3] ?? 0;
    first.set(last, (first.get(last) ?? 0) + 1);
  }
  for (const last of [1, 2, 3, 4]) assert.ok(Math.abs((first.get(last) ?? 0) - 1000) < 150, `${last}`);
});

test("writeReply() cuts what is too long and says so; what it keeps are whole answers", () => {
  const bytes = packet("tasks.web", type.A, { opt: 1232 });
  const query = queryOf(bytes);
  const answers = Array.from({ length: 500 }, (_, at) => ({
    type: 1,
    ttlSeconds: 1,
    data: Uint8Array.of(10, 0, at >> 8, at & 0xff),
  }));
  const cut = writeReply(bytes, query, { code: 0, ours: true, answers }, 1232);
  assert.ok(cut.length <= 1232 && cut.length > 1232 - 16);
  assert.equal((cut[2] ?? 0) & 0x02, 0x02);
  const whole = writeReply(bytes, query, { code: 0, ours: true, answers }, 65_535);
  assert.equal((whole[2] ?? 0) & 0x02, 0);
  assert.equal(Buffer.from(whole).readUInt16BE(6), 500);
  assert.equal(whole.length, query.questionEnd + 500 * 16 + 11);
});

test("passedReply() gives a server's reply the client's id, and cuts it to the question when it is too long", () => {
  const bytes = packet("example.com", type.A, { id: 7 });
  const query = queryOf(bytes);
  const sent = forwardedQuery(Buffer.concat([bytes, Buffer.from("rest")]), query, 9);
  assert.equal(sent.length, bytes.length);
  assert.equal(bytes.readUInt16BE(0), 7, "what the client sent stays as it came");
  const reply = Buffer.concat([sent, Buffer.alloc(600)]);
  reply[2] = 0x81;
  reply.writeUInt16BE(3, 6);
  assert.equal(answersQuery(reply, sent, query), true);
  const other = Buffer.from(reply);
  other.writeUInt16BE(8, 0);
  assert.equal(answersQuery(other, sent, query), false, "another id");
  other.writeUInt16BE(9, 0);
  other[13] = 0x7a;
  assert.equal(answersQuery(other, sent, query), false, "another name");
  assert.equal(answersQuery(sent, sent, query), false, "a query");
  const passed = passedReply(reply, query, 4096);
  assert.equal(Buffer.from(passed).readUInt16BE(0), 7);
  assert.equal(passed.length, reply.length);
  const cut = Buffer.from(passedReply(reply, query, 512));
  assert.equal(cut.length, query.questionEnd);
  assert.deepEqual([cut[2]! & 2, cut.readUInt16BE(6)], [2, 0]);
});

test("whatever a packet holds, reading it ends, and the reply repeats its question and has room", () => {
  const mutated = fc
    .tuple(
      fc.constantFrom(packet("web"), packet("a.b.c", type.A, { opt: 1232 }), packet("5.1.0.10.in-addr.arpa", type.PTR)),
      fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 6 }),
      fc.nat(80),
    )
    .map(([bytes, changes, end]) => {
      const out = Buffer.from(bytes);
      for (const [place, value] of changes) if (place < out.length) out[place] = value;
      return out.subarray(0, end < 40 ? out.length : end);
    });
  const who = asker({ web: ["10.0.1.5"], "a.b.c": ["10.0.1.6", "10.0.1.7"] }, { nameOf: () => "web.ov1" });
  fc.assert(
    fc.property(
      fc.oneof(mutated, fc.uint8Array({ maxLength: 600 })),
      fc.integer({ min: 512, max: 4096 }),
      (bytes, max) => {
        const reading = readQuery(bytes);
        if (reading.kind === "ignored") return;
        const verdict = reading.kind === "query" ? answer(reading.query, who, random) : undefined;
        if (verdict?.kind === "forward") return;
        const code = reading.kind === "refused" ? reading.code : (verdict?.code ?? 0);
        const reply = writeReply(bytes, reading.query, { code, ours: true, answers: verdict?.answers ?? [] }, max);
        assert.ok(reply.length <= Math.max(max, bytes.length));
        assert.equal(reply[0], bytes[0]);
        const end = reading.query?.questionEnd ?? 12;
        assert.deepEqual([...reply.subarray(12, end)], [...bytes.subarray(12, end)]);
      },
    ),
    { numRuns: 20_000 },
  );
});

test("Frames puts messages together however the stream is cut, and stops at one that is too long", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 8 }),
      fc.integer({ min: 1, max: 9 }),
      (messages, step) => {
        const stream = Buffer.concat(messages.map(framed));
        const frames = new Frames(40);
        const got: Uint8Array[] = [];
        for (let at = 0; at < stream.length; at += step) got.push(...frames.push(stream.subarray(at, at + step)));
        assert.deepEqual(
          got.map((one) => [...one]),
          messages.map((one) => [...one]),
        );
      },
    ),
  );
  const frames = new Frames(40);
  assert.deepEqual(frames.push(framed(new Uint8Array(41))), []);
  assert.equal(frames.broken, true);
});

// --------------------------------------------------------------------------------------------------------------- names

const endpoint = (networkId: string, taskId: string, more: Partial<EndpointRecord> = {}): EndpointRecord => ({
  networkId,
  taskId,
  serviceId: "s1",
  nodeId: "n1",
  name: `web.1.${taskId}`,
  slot: 1,
  addresses: [`10.0.1.${taskId.slice(1)}/24`],
  gatewayAddress: "",
  aliases: [],
  serving: true,
  ...more,
});
const service = (networkId: string, more: Partial<ServiceRecord> = {}): ServiceRecord => ({
  networkId,
  serviceId: "s1",
  name: "web",
  aliases: [],
  virtualIp: "10.0.1.100/24",
  mode: "vip",
  ports: [],
  ...more,
});
const sandbox = (more: Partial<AskerEntry> = {}): AskerEntry => ({
  id: "c1",
  addresses: ["100.64.4.2"],
  networks: ["ov1"],
  forwards: true,
  dns: [],
  links: new Map(),
  ...more,
});

function table(): NameTable {
  const names = new NameTable();
  names.setNetwork({ id: "ov1", name: "blue", subnets: ["10.0.1.0/24"] });
  names.setNetwork({ id: "ov2", name: "red", subnets: ["10.0.2.0/24"] });
  return names;
}

test("a service answers with its virtual address, and tasks.SERVICE with the tasks that serve", () => {
  const names = table();
  names.replace(
    [endpoint("ov1", "t11"), endpoint("ov1", "t12"), endpoint("ov1", "t13", { serving: false })],
    [service("ov1", { aliases: ["www"] })],
  );
  names.setAsker(sandbox());
  const who = names.asker("100.64.4.2");
  assert.deepEqual(who?.addresses("web"), ["10.0.1.100"]);
  assert.deepEqual(who?.addresses("www"), ["10.0.1.100"]);
  assert.deepEqual(who?.addresses("tasks.web"), ["10.0.1.11", "10.0.1.12"]);
  assert.deepEqual(who?.addresses("tasks.www"), ["10.0.1.11", "10.0.1.12"]);
  assert.deepEqual(who?.addresses("web.1.t11"), ["10.0.1.11"]);
  assert.deepEqual(who?.addresses("web.1.t13"), [], "known, but it does not serve");
  assert.deepEqual(who?.addresses("web.blue"), ["10.0.1.100"]);
  assert.deepEqual(who?.addresses("tasks.web.blue"), ["10.0.1.11", "10.0.1.12"]);
  assert.equal(who?.addresses("web.red"), undefined);
  assert.equal(who?.addresses("other"), undefined);
});

test("with IPv6 a service has an address of each family, tasks.SERVICE those of the tasks, and each has its name", () => {
  const names = table();
  names.setNetwork({ id: "ov1", name: "blue", subnets: ["10.0.1.0/24", "fd00:b1::/64"] });
  const task = endpoint("ov1", "t11", { addresses: ["10.0.1.11/24", "fd00:b1::11/64"] });
  names.replace([task], [service("ov1", { virtualIp6: "fd00:b1::100/64" })]);
  names.setAsker(sandbox());
  const who = names.asker("100.64.4.2");
  assert.deepEqual(who?.addresses("web"), ["10.0.1.100", "fd00:b1::100"]);
  assert.deepEqual(who?.addresses("tasks.web"), ["10.0.1.11", "fd00:b1::11"]);
  assert.equal(who?.nameOf("fd00:b1::100"), "web.blue");
  assert.equal(who?.nameOf("fd00:b1::11"), "web.1.t11.blue");
  assert.equal(who?.nameOf("fd00:b1::77"), "");
  names.setService("ov1", "s1", service("ov1", { mode: "dnsrr", virtualIp: "" }));
  assert.deepEqual(who?.addresses("web"), ["10.0.1.11", "fd00:b1::11"]);
  assert.equal(who?.nameOf("fd00:b1::100"), "");
});

test("a service in mode dnsrr answers with its tasks, and with none when none serves", () => {
  const names = table();
  names.setService("ov1", "s1", service("ov1", { mode: "dnsrr", virtualIp: "" }));
  names.setEndpoint("ov1", "t11", endpoint("ov1", "t11"));
  names.setAsker(sandbox());
  const who = names.asker("100.64.4.2");
  assert.deepEqual(who?.addresses("web"), ["10.0.1.11"]);
  names.setEndpoint("ov1", "t11", endpoint("ov1", "t11", { serving: false }));
  assert.deepEqual(who?.addresses("web"), []);
  names.setService("ov1", "s1", undefined);
  assert.equal(who?.addresses("web"), undefined);
});

test("an asker sees names of its own networks only; the first network that knows a name wins", () => {
  const names = table();
  names.replace([], [service("ov1"), service("ov2", { virtualIp: "10.0.2.100/24" })]);
  names.setAsker(sandbox({ id: "both", addresses: ["100.64.4.3"], networks: ["ov2", "ov1"] }));
  names.setAsker(sandbox({ id: "none", addresses: ["100.64.4.4"], networks: [] }));
  assert.deepEqual(names.asker("100.64.4.3")?.addresses("web"), ["10.0.2.100"]);
  assert.deepEqual(names.asker("100.64.4.3")?.addresses("web.blue"), ["10.0.1.100"]);
  assert.equal(names.asker("100.64.4.4")?.addresses("web"), undefined);
  assert.equal(names.asker("100.64.4.9"), undefined);
});

test("addresses have names on the asker's networks; those of a subnet without a name have an empty one", () => {
  const names = table();
  names.replace([endpoint("ov1", "t11"), endpoint("ov1", "t12", { serving: false })], [service("ov1")]);
  names.setAsker(sandbox());
  names.setAsker(sandbox({ id: "other", addresses: ["100.64.4.3"], networks: ["ov2"] }));
  const who = names.asker("100.64.4.2");
  assert.equal(who?.nameOf("10.0.1.11"), "web.1.t11.blue");
  assert.equal(who?.nameOf("10.0.1.12"), "web.1.t12.blue");
  assert.equal(who?.nameOf("10.0.1.100"), "web.blue");
  assert.equal(who?.nameOf("10.0.1.77"), "");
  assert.equal(who?.nameOf("10.0.2.77"), undefined);
  assert.equal(names.asker("100.64.4.3")?.nameOf("10.0.1.11"), undefined);
});

test("containers of this node are known by name, alias and short id, and by links to those that have them", () => {
  const names = table();
  names.setLocal("ov1", "c2", { addresses: ["10.0.1.9/24"], names: ["Db", "postgres", "0123456789ab"] });
  names.setEndpoint("ov1", "t5", endpoint("ov1", "t5", { serviceId: "", name: "tool", aliases: ["hammer"] }));
  names.setAsker(sandbox({ links: new Map([["store", "db"]]) }));
  names.setAsker(sandbox({ id: "c3", addresses: ["100.64.4.3"] }));
  const who = names.asker("100.64.4.2");
  for (const name of ["db", "postgres", "0123456789ab", "store", "db.blue"]) {
    assert.deepEqual(who?.addresses(name), ["10.0.1.9"], name);
  }
  assert.deepEqual(who?.addresses("hammer"), ["10.0.1.5"]);
  assert.equal(names.asker("100.64.4.3")?.addresses("store"), undefined);
  names.replace([], []);
  assert.equal(who?.addresses("hammer"), undefined);
  assert.deepEqual(who?.addresses("db"), ["10.0.1.9"], "managers do not tell of it");
  names.setLocal("ov1", "c2", undefined);
  assert.equal(who?.addresses("db"), undefined);
});

test("an asker's address can be taken over by another sandbox; the one that leaves does not take it along", () => {
  const names = table();
  names.setAsker(sandbox({ id: "old" }));
  names.setAsker(sandbox({ id: "new" }));
  names.removeAsker("old");
  assert.equal(names.asker("100.64.4.2")?.id, "new");
  names.removeAsker("new");
  assert.equal(names.asker("100.64.4.2"), undefined);
});

test("changes one after the other leave the table as telling it all at once does", () => {
  const id = fc.constantFrom("t1", "t2", "t3");
  const network = fc.constantFrom("ov1", "ov2");
  const endpointStep = fc.record({
    kind: fc.constant("endpoint" as const),
    network,
    id,
    record: fc.option(
      fc.record({
        name: fc.constantFrom("a", "b", "web"),
        serving: fc.boolean(),
        serviceId: fc.constantFrom("", "s1", "s2"),
      }),
      { nil: undefined },
    ),
  });
  const serviceStep = fc.record({
    kind: fc.constant("service" as const),
    network,
    id: fc.constantFrom("s1", "s2"),
    record: fc.option(
      fc.record({ name: fc.constantFrom("web", "b"), virtualIp: fc.constantFrom("", "10.0.1.100/24") }),
      { nil: undefined },
    ),
  });
  const looked = ["a", "b", "web", "tasks.web", "tasks.b", "web.blue", "b.red"];
  fc.assert(
    fc.property(fc.array(fc.oneof(endpointStep, serviceStep), { maxLength: 24 }), (steps) => {
      const stepwise = table();
      const endpoints = new Map<string, EndpointRecord>();
      const services = new Map<string, ServiceRecord>();
      for (const step of steps) {
        const key = `${step.network}/${step.id}`;
        if (step.kind === "endpoint") {
          const record = step.record && endpoint(step.network, step.id, step.record);
          stepwise.setEndpoint(step.network, step.id, record);
          if (record === undefined) endpoints.delete(key);
          else endpoints.set(key, record);
        } else {
          const record = step.record && service(step.network, { ...step.record, serviceId: step.id });
          stepwise.setService(step.network, step.id, record);
          if (record === undefined) services.delete(key);
          else services.set(key, record);
        }
      }
      const atOnce = table();
      atOnce.replace([...endpoints.values()], [...services.values()]);
      for (const names of [stepwise, atOnce]) names.setAsker(sandbox({ networks: ["ov1", "ov2"] }));
      const sorted = (names: NameTable, name: string): unknown =>
        names.asker("100.64.4.2")?.addresses(name)?.toSorted() ?? "unknown";
      for (const name of looked) assert.deepEqual(sorted(stepwise, name), sorted(atOnce, name), name);
    }),
  );
});
