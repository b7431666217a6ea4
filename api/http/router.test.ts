import assert from "node:assert/strict";
import { test } from "node:test";

import { Router } from "./router.ts";

const router = new Router<string>();
for (const path of ["/", "/images/json", "/images/*", "/nodes/:id", "/nodes/:node/update", "/nodes/all", "/:any/x/y"])
  router.add(path, path);

const find = (path: string): [string, Readonly<Record<string, string>>] | undefined => {
  const found = router.find(path);
  return found === undefined ? undefined : [found.value, found.params];
};

test("a word goes before a parameter, and a parameter before the rest", () => {
  assert.deepEqual(find("/images/json"), ["/images/json", {}]);
  assert.deepEqual(find("/images/a.b:5000/c/json"), ["/images/*", { "*": "a.b:5000/c/json" }]);
  assert.deepEqual(find("/nodes/all"), ["/nodes/all", {}]);
  assert.deepEqual(find("/nodes/all/update"), ["/nodes/:node/update", { node: "all" }]);
  assert.deepEqual(find("/nodes/x/y"), ["/:any/x/y", { any: "nodes" }]);
});

test("each route has the names of its own parameters", () => {
  assert.deepEqual(find("/nodes/n1"), ["/nodes/:id", { id: "n1" }]);
  assert.deepEqual(find("/nodes/n1/update"), ["/nodes/:node/update", { node: "n1" }]);
});

test("one slash at the end says nothing, and what is encoded is decoded, a slash within a segment too", () => {
  assert.deepEqual(find("/"), ["/", {}]);
  assert.deepEqual(find("/nodes/n1/"), ["/nodes/:id", { id: "n1" }]);
  assert.deepEqual(find("/node%73/a%2Fb%20c"), ["/nodes/:id", { id: "a/b c" }]);
  assert.throws(() => router.find("/nodes/%zz"), URIError);
});

test("what has no route is not found: other words, empty parameters, names without an end", () => {
  for (const path of ["/node", "/nodes", "/nodes//", "/nodes/a/b", "//nodes/a", `/nodes/${"x".repeat(5000)}`])
    assert.equal(find(path), undefined, path);
});
