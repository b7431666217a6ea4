/** Quiet test reporter: failures in full and at once, a line a file with its count and time, totals at the end. */
import { relative } from "node:path";
import { inspect } from "node:util";

export default async function* report(source) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for await (const { type, data } of source) {
    if (
      type === "test:fail" &&
      data.details?.type !== "suite" &&
      data.details?.error?.failureType !== "subtestsFailed"
    ) {
      counts.failed++;
      const error = data.details.error?.cause ?? data.details.error;
      yield `FAIL ${relative(process.cwd(), data.file ?? "")}:${data.line} ${data.name}\n${indent(inspect(error))}\n`;
    } else if (type === "test:pass" && data.details?.type !== "suite") {
      if (data.skip !== undefined) {
        counts.skipped++;
        yield `skip ${data.name}: ${data.skip === true || data.skip === "" ? "NO REASON GIVEN" : data.skip}\n`;
      } else counts.passed++;
      if (data.details.duration_ms > 5000)
        yield `slow ${(data.details.duration_ms / 1000).toFixed(1)} s: ${data.name}\n`;
    } else if (type === "test:stderr" && process.env.SKEP_TEST_STDERR) yield data.message;
  }
  yield `tests: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`;
}

const indent = (text) => text.replace(/^/gm, "    ");
