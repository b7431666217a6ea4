/** Every recorded request of real clients about networks of a node: accepted as it was sent, answered as described, done in the kernel. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import type { Host } from "../../deploy/quickstart/hosts.ts";
import { imageArchive } from "../../deploy/quickstart/image.ts";
import { OpenApi } from "../support/openapi.ts";
import { readRecording, type RecordedRequest } from "../support/recorded.ts";
import { ask, hindrance, World } from "./world.ts";

const api = join(import.meta.dirname, "../conformance/api");
const description = new OpenApi(join(api, "data", "engine-api-v1.50.yaml"));

/** In this order: what one makes, the next ones need. */
const recordings = [
  "network-create-bridge",
  "network-create-bridge-dup",
  "network-create-bridge-overlap",
  "network-create-baddriver",
  "network-create-config-only",
  "network-create-ipv6",
  "network-connect",
  "network-disconnect",
  "network-rm-builtin",
  "network-rm-missing",
  "network-rm-force-missing",
  "network-inspect-missing",
  "network-ls",
  "network-ls-filter",
  "network-ls-badfilter",
  "network-prune",
  "container-run-attachable",
  "container-port",
  "container-port-one",
];

/** Where we answer otherwise on purpose: "FILE METHOD PATH", and why. */
const otherStatus: ReadonlyMap<string, number> = new Map([
  // Since API 1.44 a name is taken once; the engine that was recorded was older.
  ["network-create-bridge-dup POST /networks/create", 409],
]);

const plainPath = (path: string): string => path.replace(/^\/v1\.\d+/, "").split("?")[0] ?? "";

describe("recorded requests about networks of a node", { skip: hindrance, timeout: 180_000 }, () => {
  let world: World;
  let host: Host;

  before(async () => {
    world = await World.open("sknr", 1, 0);
    [host] = world.hosts as [Host];
    const platform = process.arch === "arm64" ? "arm64" : "amd64";
    const image = await imageArchive({ name: "bb:1", command: ["sleep", "1000"], labels: {}, files: {}, platform });
    assert.equal((await ask(host, "POST", "/images/load?quiet=1", image)).status, 200);
  });
  after(() => world.close());

  async function prepare(name: string): Promise<void> {
    if (name === "container-run-attachable") {
      await world.init(host);
      // The node has its number and its place among the tables a moment later.
      await world.until("the node is ready", 60_000, async () => {
        const [node] = await world.nodes(host);
        return node?.Status.State === "ready";
      });
    }
    if (name === "container-port") {
      const HostConfig = { PortBindings: { "80/tcp": [{ HostPort: "8080" }] } };
      const { body } = await ask<{ Id: string }>(host, "POST", "/containers/create?name=c1", {
        Image: "bb:1",
        HostConfig,
      });
      assert.equal((await ask(host, "POST", `/containers/${body.Id}/start`)).status, 204);
    }
  }

  for (const name of recordings) {
    const recording = readRecording(join(api, "recorded", `${name}.json`));
    test(`${name}: ${recording.command.slice(0, 100)}`, async () => {
      await prepare(name);
      const bound = new Map<string, string>();
      const fill = (text: string): string =>
        text.replaceAll(/\{\{(\w+?)(?::12)?\}\}/g, (_, key: string) => bound.get(key) ?? "f".repeat(64));
      const wanted = ({ path }: RecordedRequest): boolean => !/_ping$|\/wait$/.test(path);
      for (const request of recording.requests.filter(wanted)) {
        const query = new URLSearchParams(
          Object.entries(request.query ?? {}).map(([key, value]): [string, string] => [key, fill(String(value))]),
        ).toString();
        const plain = plainPath(request.path);
        const path = `${fill(plain)}${query === "" ? "" : `?${query}`}`;
        const body =
          request.body === undefined ? undefined : (JSON.parse(fill(JSON.stringify(request.body))) as unknown);
        const answer = await ask<{ Id?: string; message?: string }>(host, request.method, path, body);
        const where = `${request.method} ${path}: ${answer.status} ${(JSON.stringify(answer.body) ?? "").slice(0, 400)}`;
        const status = otherStatus.get(`${name} ${request.method} ${plain}`) ?? request.response?.status;
        assert.equal(answer.status, status, where);
        const shown = (request.response?.body as { Id?: string } | null | undefined)?.Id;
        const placeholder = /^\{\{(\w+)\}\}$/.exec(shown ?? "")?.[1];
        if (placeholder !== undefined && answer.body?.Id !== undefined) bound.set(placeholder, answer.body.Id);
        if (answer.status >= 400) assert.equal(typeof answer.body.message, "string", where);
        else if (answer.body !== undefined) {
          const wrong = description.judge(request.method, plain, answer.status, answer.body);
          assert.deepEqual(
            wrong.filter(
              (text) => !/"unevaluatedProperty":"(ID|Services)"|MemorySwappiness must be integer/.test(text),
            ),
            [],
            where,
          );
        }
      }
    });
  }
});
