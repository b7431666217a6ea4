/** Refuses the words in the last column of docs/glossary.md: a second word for the same thing. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const banned = readFileSync("docs/glossary.md", "utf8")
  .split("\n")
  .filter((line) => line.startsWith("|") && !line.startsWith("|--"))
  .map((line) => line.split("|").map((cell) => cell.trim()))
  .filter((cells) => cells[1] !== "term" && cells[3] !== "")
  .flatMap((cells) => cells[3].split(",").map((word) => ({ word: word.trim(), term: cells[1] })));

// The kernel and other programs have words of their own (mount propagation "slave", a pty "slave"); native/ and what
// talks to them are not ours to rename (a bridge's "master", in iproute2).
const exempt =
  /^(docs\/glossary\.md|deploy\/words\.mjs|native\/|worker\/|proto\/gen\/|test\/conformance\/|test\/support\/story\.ts|deploy\/quickstart\/hosts\.ts|LICENSE|package-lock\.json)/;
const files = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
  encoding: "utf8",
})
  .split("\0")
  .filter((file) => /\.(ts|mjs|md|proto)$/.test(file) && !exempt.test(file));

let found = 0;
for (const file of files) {
  let text;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") continue; // deleted, not yet committed
    throw error;
  }
  text.split("\n").forEach((line, at) => {
    for (const { word, term } of banned) {
      if (!new RegExp(`\\b${word}s?\\b`, "i").test(line)) continue;
      console.error(`${file}:${at + 1}: "${word}" is not our word: ${term} (docs/glossary.md)`);
      found++;
    }
  });
}
process.exitCode = found === 0 ? 0 : 1;
