import assert from "node:assert/strict";
import { test } from "node:test";
import { compileTemplate } from "./template.ts";
import { table } from "./list.ts";

const data = {
  ID: "abc",
  Spec: { Name: "web", Labels: { b: "2", a: "1" }, Empty: [], Count: 0 },
  Ports: [{ P: 80 }, { P: 81 }],
  Text: "a,b c",
};

const cases: readonly (readonly [template: string, output: string])[] = [
  ["{{.ID}}", "abc"],
  ["{{.Spec.Name}}-{{.spec.name}}", "web-web"],
  ["{{.Nothing}}", "<no value>"],
  ["{{json .Spec.Labels}}", '{"b":"2","a":"1"}'],
  ["{{.Spec.Labels}}", "map[a:1 b:2]"],
  ["{{range .Ports}}{{.P}} {{end}}", "80 81 "],
  ["{{range $i, $p := .Ports}}{{$i}}={{$p.P}};{{end}}", "0=80;1=81;"],
  ["{{range .Spec.Empty}}x{{else}}none{{end}}", "none"],
  ["{{if .Spec.Count}}yes{{else if .ID}}id{{else}}no{{end}}", "id"],
  ["{{with .Spec}}{{.Name}}{{end}}", "web"],
  ['{{upper .ID | printf "<%5s>"}}', "<  ABC>"],
  ["{{index .Ports 1 | json}}", '{"P":81}'],
  ["{{(index .Ports 0).P}}", "80"],
  ['{{index .Spec.Labels "a"}}', "1"],
  ['{{join (split .Text ",") "|"}}', "a|b c"],
  ["{{len .Ports}} {{title .Text}}", "2 A,b C"],
  ["{{- .ID -}}  x", "abcx"],
  ['{{if eq .ID "x" "abc"}}one{{end}}{{if not .ID}}two{{end}}', "one"],
  ["{{/* nothing */}}{{truncate .Text 3}}", "a,b"],
  ["{{$x := .ID}}{{$x}}{{$.ID}}", "abcabc"],
  ['{{"}}"}}', "}}"],
  ['{{index .Spec.Labels "none"}}|{{index .Spec "none"}}', "|<no value>"],
  ['{{printf "%.2s|%5.1s|%.1f" .ID .ID 1.2}}', "ab|    a|1.2"],
];

for (const [template, output] of cases) {
  test(`the template ${template} gives ${JSON.stringify(output)}`, () => {
    assert.equal(compileTemplate(template)(data), output);
  });
}

for (const template of ["{{", "{{.ID", "{{nosuch .ID}}", "{{if .ID}}", "{{end}}", "{{}}", "{{range}}{{end}}"]) {
  test(`the template ${template} is refused`, () => {
    assert.throws(() => compileTemplate(template)(data), /^CommandError: template parsing error: /);
  });
}

test("of a row every column is known, so that another name is refused and what is missing deeper is not", () => {
  const row = compileTemplate("{{.ID}} {{.Bogus}}", true);
  assert.throws(() => row(data), /can't evaluate field Bogus/);
  assert.equal(compileTemplate("{{.ID}} {{.Spec.Bogus}} {{$.Text}}", true)(data), "abc <no value> a,b c");
});

test("a table is aligned at 10 columns at least, with 3 blanks, and the last column is not filled", () => {
  assert.equal(table(["ID\tNAME", "a-long-identifier\tb"]), "ID                  NAME\na-long-identifier   b\n");
  assert.equal(table(["ID\tNAME"]), "ID        NAME\n");
});
