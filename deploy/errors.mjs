/** Every error code in the sources stands in docs/errors.md, every row there exists in the sources, and a test knows it. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const files = execFileSync(
  "git",
  ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.ts", "native/**/*.c"],
  { encoding: "utf8" },
)
  .split("\0")
  .filter((file) => file !== "" && !file.startsWith("proto/gen/"));
const isTest = (file) => file.endsWith(".test.ts") || file.startsWith("test/") || file.startsWith("native/test/");

const inSources = new Map();
const classes = new Map();
let tests = "";
for (const file of files) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") continue; // deleted, not yet committed
    throw error;
  }
  if (isTest(file)) {
    tests += text;
    continue;
  }
  // Ours have at least two words; EFBIG and its like are the system's.
  for (const [, code] of text.matchAll(
    /\bcode(?:: string)?(?: =|:) "([A-Z]+_[A-Z0-9_]+|CONFLICT|BACKPRESSURE|INCOMPATIBLE)"/g,
  ))
    inSources.set(code, file);
  for (const [, name, code] of text.matchAll(
    /class (\w+) extends \w+ \{\s*(?:(?:readonly|override|declare) [^\n]*\n\s*)*?(?:override )?readonly code = "([A-Z0-9_]+)"/g,
  )) {
    classes.set(code, name);
  }
}
const documented = new Set(
  [...readFileSync("docs/errors.md", "utf8").matchAll(/^\| `([A-Z][A-Z0-9_]+)`/gm)].map(([, code]) => code),
);

const problems = [
  ...[...inSources]
    .filter(([code]) => !documented.has(code))
    .map(([code, file]) => `${file}: code ${code} is missing from docs/errors.md`),
  ...[...documented]
    .filter((code) => !inSources.has(code))
    .map((code) => `docs/errors.md: no source has the code ${code}`),
  ...[...inSources]
    .filter(
      ([code]) =>
        !new RegExp(`\\b${code}\\b`).test(tests) &&
        !(classes.has(code) && new RegExp(`\\b${classes.get(code)}\\b`).test(tests)),
    )
    .map(([code, file]) => `${file}: no test provokes ${code}`),
];
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;
