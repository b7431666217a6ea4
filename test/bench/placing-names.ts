/** What a placing manager (placing-manager.ts) is asked for, and what it answers. */
export type PlacingOrder =
  | { readonly kind: "nodes"; readonly nodes: number; readonly ready: boolean }
  /** Waits until so many nodes are ready, at most so long. */
  | { readonly kind: "ready"; readonly nodes: number; readonly limitMs: number; readonly profile?: string }
  /** Services of so many replicas each, until all tasks have a node, or run; at most so long. */
  | {
      readonly kind: "place";
      readonly services: number;
      readonly replicas: number;
      readonly until: "assigned" | "running";
      readonly limitMs: number;
      /** A file for a profile of the process meanwhile. */
      readonly profile?: string;
    }
  | { readonly kind: "memory" };

export interface Placed {
  readonly tasks: number;
  /** With a node, and running, when it ended. */
  readonly assigned: number;
  readonly running: number;
  readonly assignedMs: number;
  readonly ms: number;
  /** From a task's creation to its node, and to its running, by the log's clock. */
  readonly assignP99Ms: number;
  readonly runP99Ms: number;
  /** Of a write of another caller, ten a second meanwhile. */
  readonly writeP50Ms: number;
  readonly writeP99Ms: number;
  readonly loopMaxMs: number;
  /** Processor time of the process meanwhile, all threads. */
  readonly cpuMs: number;
  /** Pauses for garbage: all of them, and those of the old generation. */
  readonly collected: { readonly allMs: number; readonly majors: number; readonly majorMaxMs: number };
  readonly rssBytes: number;
}

export const nodeName = (at: number): string => `node${String(at).padStart(21, "0")}`;
