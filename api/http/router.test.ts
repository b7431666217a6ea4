import assert from "node:assert/strict";
import { test } from "node:test";

import * as fc from "fast-check";

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

/** Plainly: of all routes that fit, the one whose first difference is a word, or else a parameter. */
function plainFind(routes: readonly string[], path: string): [string, Record<string, string>] | undefined {
  const split = (text: string): string[] => text.replace(/\/$/u, "").split("/").slice(1);
  const segments = split(path).map((segment) => decodeURIComponent(segment));
  const fits = routes.flatMap((route) => {
    const wanted = split(route);
    const rest = wanted.at(-1) === "*";
    if (rest ? segments.length < wanted.length : segments.length !== wanted.length) return [];
    const params: Record<string, string> = {};
    let order = "";
    for (const [at, want] of wanted.entries()) {
      const segment = segments[at] ?? "";
      if (want === "*") {
        params["*"] = segments.slice(at).join("/");
        order += "c";
      } else if (want.startsWith(":")) {
        if (segment === "") return [];
        params[want.slice(1)] = segment;
        order += "b";
      } else {
        if (segment !== want) return [];
        order += "a";
      }
    }
    return [{ route, params, order }];
  });
  const [best] = fits.sort((one, other) => (one.order < other.order ? -1 : 1));
  return best === undefined ? undefined : [best.route, best.params];
}

test("of any routes and any path it finds what a plain search through all of them finds", () => {
  const word = fc.constantFrom("a", "b", "json", "__proto__");
  const shape = fc
    .tuple(fc.array(fc.oneof(word, fc.constant(":")), { maxLength: 4 }), fc.boolean())
    .map(([parts, rest]) => [...parts, ...(rest ? ["*"] : [])]);
  const routes = fc
    .uniqueArray(shape, { selector: (parts) => parts.join("/"), maxLength: 12 })
    // A name for each place, so that two routes may not name one place alike.
    .map((shapes) =>
      shapes.map((parts, of) => `/${parts.map((part, at) => (part === ":" ? `:p${of}x${at}` : part)).join("/")}`),
    );
  const asked = fc
    .array(fc.constantFrom("a", "b", "json", "c", "", "%61", "a%2Fb", "__proto__", ":", "*", "."), { maxLength: 6 })
    .map((segments) => `/${segments.join("/")}`);
  fc.assert(
    fc.property(routes, asked, (paths, path) => {
      const tried = new Router<string>();
      for (const each of paths) tried.add(each, each);
      const found = tried.find(path);
      assert.deepEqual(found === undefined ? undefined : [found.value, { ...found.params }], plainFind(paths, path));
    }),
    { numRuns: 5000, seed: 16 },
  );
});
