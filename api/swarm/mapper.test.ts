import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as fc from "fast-check";

import { shapes } from "../../proto/gen/shapes.js";
import { skep } from "../../proto/index.ts";
import { formatJson, type JsonObject } from "../http/index.ts";
import { parseJson } from "../http/json.ts";
import { dateOf, fromApi, toApi } from "./mapper.ts";

type Json = Readonly<Record<string, unknown>>;

/** Zero, empty and absent are one in protobuf. */
function bare(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? undefined : value.map((item) => bare(item) ?? {});
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value)
      .map(([key, item]) => [key, bare(item)] as const)
      .filter(([, item]) => item !== undefined);
    return entries.length === 0 ? undefined : Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }
  return value === 0 || value === "" || value === false || value === null ? undefined : value;
}

test("every spec that a real client sent comes back as it was", () => {
  const folder = join(import.meta.dirname, "../../test/conformance/api/recorded");
  let seen = 0;
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".json"))) {
    const { requests } = JSON.parse(readFileSync(join(folder, file), "utf8")) as { requests?: Json[] };
    for (const { method, path, body } of requests ?? []) {
      if (method !== "POST" || typeof body !== "object" || body === null) continue;
      const kind = /^\/(?:v1\.\d+\/)?(services|secrets|configs)\/(?:create|[^/]+\/update)/.exec(String(path))?.[1];
      if (kind === undefined || JSON.stringify(body).includes("…")) continue;
      const message = { services: "ServiceSpec", secrets: "SecretSpec", configs: "ConfigSpec" }[kind] ?? "";
      const { version: _query, ...sent } = body as JsonObject; // dockerode sends its query there too
      const object = fromApi(message, sent);
      const type = (
        skep.objects as unknown as Record<
          string,
          {
            encode(object: object): { finish(): Uint8Array };
            decode(bytes: Uint8Array): object;
          }
        >
      )[message]!;
      const back = toApi(message, type.decode(type.encode(object).finish()));
      // Words that were left empty come back as what they mean.
      const words =
        /"(Order|FailureAction|Mode|Protocol|PublishMode|Condition)":"(stop-first|pause|vip|tcp|ingress|any)"/g;
      const plain = (value: unknown): unknown => bare(JSON.parse(JSON.stringify(value).replaceAll(words, '"$1":""')));
      assert.deepEqual(plain(back), plain(sent), file);
      seen++;
    }
  }
  assert.ok(seen > 40, `${seen} specs`);
});

/** Messages of which one choice is made. */
const oneOf = new Set(["GenericResource", "ServiceMode", "TaskSpec", "ConfigReference"]);
const hidden = new Set(["ContainerSpec.pullOptions", "NetworkAttachmentConfig.addresses"]);

function arbitraryOf(message: string, depth: number): fc.Arbitrary<object> {
  const fields = Object.entries(shapes.messages[message] ?? {}).filter(([name]) => !hidden.has(`${message}.${name}`));
  const isChoice = ([, { optional, type }]: (typeof fields)[number]): boolean =>
    oneOf.has(message) && optional === true && shapes.messages[type] !== undefined;
  const free = fields.filter((field) => !isChoice(field));
  const record = fc.record(
    Object.fromEntries(
      free.map(([name, field]) => [
        name,
        depth > 4 && shapes.messages[field.type] !== undefined
          ? fc.constant(undefined)
          : fc.option(fieldArbitrary(field, depth), { nil: undefined }),
      ]),
    ),
  );
  const choices = fields.filter(isChoice);
  if (choices.length === 0 || depth > 4) return record;
  const choice = fc.oneof(
    ...choices.map(([name, field]) => valueArbitrary(field.type, depth).map((value) => ({ [name]: value }))),
  );
  return fc.tuple(record, choice).map(([base, one]) => ({ ...base, ...one }));
}

function fieldArbitrary(
  field: { readonly type: string; readonly rule?: string },
  depth: number,
): fc.Arbitrary<unknown> {
  const value = valueArbitrary(field.type, depth);
  if (field.rule === "repeated") return fc.array(value, { maxLength: 2 });
  if (field.rule === "map")
    return fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => key !== "__proto__"),
      value,
      { maxKeys: 2 },
    );
  return value;
}

function valueArbitrary(type: string, depth: number): fc.Arbitrary<unknown> {
  const words = shapes.enums[type];
  if (words !== undefined) return fc.constantFrom(...Object.values(words));
  if (type === "Duration") {
    return fc.record({
      seconds: fc.integer({ min: 0, max: 9_000_000_000 }),
      nanos: fc.integer({ min: 0, max: 999_999_999 }),
    });
  }
  if (shapes.messages[type] !== undefined) return arbitraryOf(type, depth + 1);
  switch (type) {
    case "string":
      return fc.string();
    case "bool":
      return fc.boolean();
    case "bytes":
      return fc.uint8Array({ maxLength: 20 });
    case "double":
      return fc.double({ noNaN: true, noDefaultInfinity: true, min: 0 });
    case "int32":
      return fc.integer();
    case "uint32":
      return fc.nat();
    case "int64":
      return fc.maxSafeInteger();
    default:
      return fc.maxSafeNat();
  }
}

/** Absent it comes back as its default, on purpose. */
function withParallelism(object: object): object {
  const { updateConfig, rollbackConfig } = object as skep.objects.ServiceSpec.$Properties;
  return {
    ...object,
    ...(updateConfig == null ? {} : { updateConfig: { parallelism: 2, ...withoutUndefined(updateConfig) } }),
    ...(rollbackConfig == null ? {} : { rollbackConfig: { parallelism: 2, ...withoutUndefined(rollbackConfig) } }),
  };
}

const withoutUndefined = (object: object): object =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

for (const message of ["ServiceSpec", "SecretSpec", "ConfigSpec", "NodeSpec", "ClusterSpec"] as const) {
  test(`any ${message} goes to JSON text and back without loss`, () => {
    const type = skep.objects[message] as unknown as {
      encode(object: object): { finish(): Uint8Array };
      decode(bytes: Uint8Array): object;
    };
    fc.assert(
      fc.property(arbitraryOf(message, 0), (object) => {
        const stored = type.decode(type.encode(withParallelism(object)).finish());
        const text = formatJson(toApi(message, stored));
        const back = fromApi(message, parseJson(text) as JsonObject);
        assert.deepEqual(type.decode(type.encode(back).finish()), stored);
      }),
      { numRuns: 200 },
    );
  });
}

test("names are read whatever their case, and unknown ones are passed over", () => {
  assert.deepEqual(fromApi("SecretSpec", { name: "a", LABELS: { k: "v" }, Nonsense: 1, Data: "eA==" }), {
    name: "a",
    labels: { k: "v" },
    data: Buffer.from("x"),
  });
});

test("what is newer than the client's version is not looked at", () => {
  const body = { Ulimits: [{ Name: "nofile", Hard: 2, Soft: 1 }], OomScoreAdj: 5, Sysctls: { a: "b" } };
  assert.deepEqual(fromApi("ContainerSpec", body, 40), { sysctls: { a: "b" } });
  assert.deepEqual(Object.keys(fromApi("ContainerSpec", body, 45)), ["ulimits", "sysctls"]);
});

test("durations and dates are exact", () => {
  const ns = 2n ** 63n - 1n;
  const { stopGracePeriod } = fromApi("ContainerSpec", { StopGracePeriod: ns });
  assert.deepEqual(stopGracePeriod, { seconds: 9_223_372_036, nanos: 854_775_807 });
  assert.equal(formatJson(toApi("ContainerSpec", { stopGracePeriod })), '{"StopGracePeriod":9223372036854775807}');
  assert.equal(dateOf(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
  assert.equal(dateOf(0), "0001-01-01T00:00:00Z");
});

test("an update's zero words are written, since clients show them: pause and stop-first", () => {
  assert.deepEqual(toApi("UpdateConfig", skep.objects.UpdateConfig.decode(new Uint8Array(0))), {
    Parallelism: 1,
    FailureAction: "pause",
    MaxFailureRatio: 0,
    Order: "stop-first",
  });
});
