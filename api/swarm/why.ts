/** /skep/v1: why a service, a task or a node is not as its spec says. */
import { skep } from "../../proto/index.ts";
import type { JsonObject, Route } from "../http/index.ts";
import { ObjectKind, type ControlClient } from "./client.ts";
import { dateOf } from "./mapper.ts";

const kinds = [
  ["services", ObjectKind.SERVICE],
  ["tasks", ObjectKind.TASK],
  ["nodes", ObjectKind.NODE],
] as const;

export function whyRoutes(control: ControlClient): readonly Route[] {
  return kinds.map(([word, kind]) => ({
    method: "GET",
    path: `/skep/v1/${word}/:id/why`,
    handle: async ({ params, query, signal }) => {
      const reply = await control.why({ kind, reference: params["id"] ?? "", stale: query.bool("stale") }, signal);
      return { json: whyToApi(reply) };
    },
  }));
}

const kindWord = (kind: skep.control.ObjectKind | null | undefined): string =>
  (skep.control.ObjectKind[kind ?? 0] ?? "").toLowerCase();

function whyToApi(reply: skep.control.IWhyReply): JsonObject {
  const findings = reply.findings ?? [];
  const miss = findings.find(({ reason }) => reason?.noSuitableNode != null);
  const fix = findings.find((finding) => (finding.fix ?? "") !== "")?.fix ?? "";
  return {
    kind: kindWord(reply.kind),
    id: reply.id ?? "",
    name: reply.name ?? "",
    settled: reply.settled ?? false,
    summary: reply.summary ?? "",
    causes: findings.map((finding) => ({
      code: finding.cause ?? "",
      text: finding.summary ?? "",
      fix: finding.fix ?? "",
      facts: { ...finding.facts },
      about: { kind: kindWord(finding.about), ids: finding.ids ?? [] },
      ...((finding.sinceUs ?? 0) === 0 ? {} : { since: dateOf(finding.sinceUs ?? 0) }),
    })),
    nearestMiss:
      miss === undefined || (miss.facts?.["nearest_miss"] ?? "") === ""
        ? null
        : {
            node: miss.facts?.["nearest_node"] ?? "",
            text: `${miss.facts?.["nearest_node"] ?? ""}: ${miss.facts?.["nearest_miss"] ?? ""}`,
          },
    fix,
    time: dateOf(reply.timeUs ?? 0),
  };
}
