import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { expandTemplate, failTemplate, TemplateInvalid } from "./template.ts";

const data = {
  Service: { ID: "s1", Name: "web", Labels: { "com.x": "y", tier: "front" } },
  Node: { ID: "n1", Hostname: "bee", Platform: { OS: "linux", Architecture: "x86_64" } },
  Task: { ID: "t1", Name: "web.1.t1", Slot: "1" },
};
const expand = (text: string): string => expandTemplate("a test", text, data);

test("fields, indexes, pipes and functions give what Go's templates give", () => {
  const cases: [string, string][] = [
    ["plain", "plain"],
    ["{{.Service.Name}}-{{.Task.Slot}}", "web-1"],
    ["{{ .Node.Hostname }}", "bee"],
    ["{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"],
    ['{{index .Service.Labels "com.x"}}', "y"],
    ['[{{index .Service.Labels "none"}}]', "[]"],
    ["{{.Service.Labels.tier}}", "front"],
    ["{{.Service.Labels}}", "map[com.x:y tier:front]"],
    ['{{printf "%s.%v %q" .Task.ID 7 "x"}}', 't1.7 "x"'],
    ['{{.Task.Slot | printf "%s!"}}', "1!"],
    ['{{if eq .Task.Slot "1"}}first{{else}}other{{end}}', "first"],
    ['{{if eq .Task.Slot "2"}}a{{else if eq .Task.Slot "1"}}b{{else}}c{{end}}', "b"],
    ["{{with .Service}}{{.Name}} of {{$.Node.ID}}{{end}}", "web of n1"],
    ["{{range .Service.Labels}}<{{.}}>{{end}}", "<y><front>"],
    ["a {{- /* nothing to see */ -}} b", "ab"],
    ["a  {{- .Task.ID -}}  b", "at1b"],
    ['{{"}}"}}', "}}"],
    ["{{(index .Service.Labels `com.x`) | len}}", "1"],
    ['{{and true .Task.Slot}}{{or "" "z"}}{{not false}}', "1ztrue"],
  ];
  for (const [text, expected] of cases) assert.equal(expand(text), expected, text);
});

test("what is no template, or names what is not there, is refused with TEMPLATE_INVALID", () => {
  const wrong = [
    "{{",
    "{{.Service.Name",
    "{{.Nope}}",
    "{{.Service.Name.More}}",
    "{{nope}}",
    "{{end}}",
    "{{if true}}",
    "{{ }}",
    '{{template "x"}}',
    "{{$x := 1}}",
    "{{.Task.ID 1}}",
    "{{(.Task.ID}}",
    "{{.Task.ID)}}",
    "{{.constructor}}",
    "{{index .Service.Labels 1}}",
    "{{range .Task.ID}}{{end}}",
  ];
  for (const text of wrong) {
    assert.throws(
      () => expand(text),
      (error) => error instanceof TemplateInvalid && error.code === "TEMPLATE_INVALID",
      text,
    );
  }
});

test("a function that is handed in may fail the template in its own words", () => {
  const functions = { secret: (name: unknown) => failTemplate(`secret target ${String(name)} not found`) };
  assert.throws(
    () => expandTemplate("config app", '{{secret "x"}}', data, functions),
    /config app: secret target x not found/,
  );
});

test("any text either expands or is refused, and text without actions comes back as it is", () => {
  const pieces = fc.constantFrom(
    "{{",
    "}}",
    ".",
    "Service",
    "(",
    ")",
    "|",
    '"',
    "if",
    "end",
    "else",
    "range",
    " ",
    "-",
    "x",
    "$",
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 20 }), (parts) => {
      const text = parts.join("");
      try {
        expand(text);
      } catch (error) {
        assert.ok(error instanceof TemplateInvalid, String(error));
      }
      const plain = text.replaceAll("{{", "");
      assert.equal(expand(plain.replaceAll("{{", "")), plain.replaceAll("{{", ""));
    }),
    { numRuns: 2000 },
  );
});
