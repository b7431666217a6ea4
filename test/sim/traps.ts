/**
 * While a simulation turn runs, real time, real chance and real scheduling throw: whatever the code under test asks of
 * them would make a seed impossible to replay. A Map or a Set iterates in the order of insertion, whatever its keys are,
 * so identity of objects cannot leak into the order of events; the doubled runs of 1 % of the seeds confirm that.
 */
import nodeCrypto from "node:crypto";

type Holder = Record<string, unknown>;

const forbidden: readonly (readonly [Holder, readonly string[]])[] = [
  [Date as unknown as Holder, ["now"]],
  [Math as unknown as Holder, ["random"]],
  [performance as unknown as Holder, ["now"]],
  [process as unknown as Holder, ["nextTick", "uptime"]],
  [globalThis, ["setTimeout", "setInterval", "setImmediate", "queueMicrotask", "fetch", "structuredClone"]],
  [globalThis.crypto as unknown as Holder, ["getRandomValues", "randomUUID"]],
  [nodeCrypto, ["randomBytes", "randomInt", "randomUUID", "randomFillSync"]],
];

/**
 * Runs `turn` with the traps set, and takes them away again whatever happens. Turns nest.
 * @param microtask  takes what is handed to queueMicrotask, to be run in virtual time
 */
export function withTraps<T>(turn: () => T, microtask: (task: () => void) => void): T {
  const RealDate = globalThis.Date;
  const undo: (() => void)[] = [];
  const trap = (holder: Holder, name: string, value: unknown): void => {
    const own = Object.getOwnPropertyDescriptor(holder, name);
    Object.defineProperty(holder, name, { value, configurable: true, writable: true });
    undo.push(() => {
      if (own === undefined) delete holder[name];
      else Object.defineProperty(holder, name, own);
    });
  };
  for (const [holder, names] of forbidden) {
    for (const name of names) {
      if (typeof holder[name] !== "function") continue;
      trap(holder, name, () => {
        throw new ForbiddenInSimulation(name);
      });
    }
  }
  trap(
    globalThis,
    "Date",
    new Proxy(RealDate, {
      construct(target, args: unknown[]) {
        if (args.length === 0) throw new ForbiddenInSimulation("new Date()");
        return Reflect.construct(target, args) as object;
      },
      apply() {
        throw new ForbiddenInSimulation("Date()");
      },
    }),
  );
  trap(globalThis, "queueMicrotask", microtask);
  try {
    return turn();
  } finally {
    for (const restore of undo.reverse()) restore();
  }
}

export class ForbiddenInSimulation extends Error {
  constructor(what: string) {
    super(`${what} was called inside a simulation turn: time and chance come as arguments`);
    this.name = new.target.name;
  }
}
