import { MemoryLogGroup } from "../support/memory-log.ts";
import { replicatedLogConformance } from "./replicated-log.ts";

replicatedLogConformance("in-memory log", () => {
  const group = new MemoryLogGroup();
  const applied: { index: number; text: string }[] = [];
  const leader = group.join({
    apply: (index, data) => {
      const text = Buffer.from(data).toString();
      applied.push({ index, text });
      return `applied:${text}`;
    },
  });
  const follower = group.join({ apply: () => undefined });
  group.elect(leader);
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  return Promise.resolve({
    leader,
    follower,
    applied,
    settle,
    moveLeadership: () => {
      group.elect(follower);
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});
