import type { MemberId } from "../../manager/raft/core/types.ts";
import { MemoryNetwork } from "../../manager/raft/transport/index.ts";
import { MemorySnapshots } from "../support/memory-snapshots.ts";
import { GrpcWorld, localMember } from "../support/transport-world.ts";
import { Heard, transportConformance, type Node, type World } from "./raft-transport.ts";

class MemoryWorld implements World {
  readonly #network = new MemoryNetwork({
    defer: (act) => void setImmediate(act),
    nowMs: () => performance.now(),
  });
  readonly #nodes: Node[] = [];

  async start(count: number): Promise<Node[]> {
    for (let id = 1; id <= count; id++) {
      const heard = new Heard();
      const snapshots = new MemorySnapshots();
      const transport = this.#network.attach(localMember(id, "c"), heard, snapshots);
      this.#nodes.push({ id, transport, heard, snapshots });
    }
    for (const { transport } of this.#nodes) transport.setMembers(this.#nodes.map(({ id }) => ({ id, address: "" })));
    await Promise.resolve();
    return this.#nodes;
  }

  reset(from: Node, to: Node): void {
    this.#network.reset(from.id, to.id);
  }

  cut(from: Node, to: Node): void {
    this.#network.cut(from.id, to.id);
  }

  heal(from: Node, to: Node): void {
    this.#network.heal(from.id, to.id);
  }

  async end(node: Node): Promise<void> {
    await node.transport[Symbol.asyncDispose]();
  }

  addressOf(_id: MemberId): string {
    return "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { transport } of this.#nodes) await transport[Symbol.asyncDispose]();
  }
}

transportConformance("memory transport", () => new MemoryWorld());
transportConformance("gRPC transport", () => new GrpcWorld());
