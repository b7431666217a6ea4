import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";

import { JsonError, formatJson, parseJson } from "./json.ts";
import { Query } from "./query.ts";
import { splitVersion } from "./version.ts";

test("integers that a number would round are exact both ways", () => {
  const text = '{"a":9223372036854775807,"b":-9007199254740993,"c":1.5,"d":[12345678901234567890]}';
  assert.deepEqual(parseJson(text), {
    a: 9223372036854775807n,
    b: -9007199254740993n,
    c: 1.5,
    d: [12345678901234567890n],
  });
  assert.equal(formatJson(parseJson(text)), text);
});

test("the slow reader reads what the fast one does", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      fc.pre(!/\d{16}/.test(JSON.stringify(value))); // those differ on purpose
      // A number that is too long sends the whole text the slow way.
      const text = JSON.stringify({ value, long: 0 }).replace('"long":0}', '"long":1234567890123456789}');
      assert.deepEqual((parseJson(text) as { value: unknown }).value, JSON.parse(JSON.stringify(value)));
    }),
  );
});

test("what cannot be read is named in the words of Go", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", "got EOF while reading request body"],
    ["{bad", "invalid character 'b' looking for beginning of object key string"],
    ["notjson", "invalid character 'o' in literal null (expecting 'u')"],
    ['{"a" 1}', "invalid character '1' after object key"],
    ['{"a":1 "b"}', "invalid character '\"' after object key:value pair"],
    ["[1 2]", "invalid character '2' after array element"],
    ['"a\nb"', "invalid character '\\n' in string literal"],
    ['"\\x"', "invalid character 'x' in string escape code"],
    ["01", "invalid character '1' after top-level value"],
    ["-", "unexpected EOF"],
    ["1.x", "invalid character 'x' after decimal point in numeric literal"],
    ['{"a":', "unexpected EOF"],
  ];
  for (const [text, message] of cases) assert.throws(() => parseJson(text), { constructor: JsonError, message }, text);
  assert.throws(() => parseJson(`${"[".repeat(5000)}1234567890123456789${"]".repeat(5000)}`), JsonError);
});

test("no text makes the reader do anything but read or refuse it", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        parseJson(`${text}1234567890123456789`);
      } catch (error) {
        assert.ok(error instanceof JsonError, String(error));
      }
    }),
  );
});

test("booleans are Go's, and Python's", () => {
  const query = new Query("a=1&b=true&c=True&d=0&e=False&f=&g=none&h=no&i=x");
  const found = Array.from("abcdefghi").filter((name) => query.bool(name));
  assert.deepEqual(found, ["a", "b", "c", "i"]);
  assert.equal(query.bool("z", true), true);
});

test("filters come in two forms, and null is none", () => {
  const both = ['{"name":{"a":true,"b":true}}', '{"name":["a","b"]}'];
  for (const text of both) {
    assert.deepEqual([...new Query(`filters=${encodeURIComponent(text)}`).filters(["name"])], [["name", ["a", "b"]]]);
  }
  assert.equal(new Query("filters=").filters([]).size, 0);
  assert.equal(new Query("filters=null").filters([]).size, 0);
});

test("versions in paths are taken off, and only those that are served", () => {
  assert.deepEqual(splitVersion("/v1.41/services?x=1"), { path: "/services?x=1", minor: 41, refusal: undefined });
  assert.deepEqual(splitVersion("/services"), { path: "/services", minor: 50, refusal: undefined });
  assert.equal(splitVersion("/v1.41").path, "/");
  assert.equal(splitVersion("/volumes").path, "/volumes");
  for (const path of ["/v1.51/x", "/v1.23/x", "/v2.1/x", "/v0.9/x"]) {
    assert.equal(splitVersion(path).refusal?.code, "API_VERSION_UNSUPPORTED", path);
  }
});
