/** Interim state machine until the store lands. */
import type { SnapshotSink, SnapshotSource, StateMachine } from "../../manager/raft/ports.ts";
import type { Command, Reply, Row } from "./machine.ts";

const text = new TextEncoder();
const plain = new TextDecoder();

interface State {
  rows: [string, Row][];
  sessions: [string, [number, Reply][]][];
}

export class SimMachine implements StateMachine {
  #rows = new Map<string, Row>();
  #sessions = new Map<string, Map<number, Reply>>();
  #index = 0;

  static encode(command: Command): Uint8Array {
    return text.encode(JSON.stringify(command));
  }

  apply(index: number, data: Uint8Array): Reply {
    this.#index = index;
    const command = JSON.parse(plain.decode(data)) as Command;
    let session = this.#sessions.get(command.session);
    if (session === undefined) this.#sessions.set(command.session, (session = new Map()));
    const known = session.get(command.seq);
    if (known !== undefined) return { ...known, repeated: true };
    const done = command.guards.every((guard) => (this.#rows.get(guard.id)?.version ?? 0) === guard.version);
    if (done) {
      for (const { id, value } of command.writes) {
        if (value === null) this.#rows.delete(id);
        else this.#rows.set(id, { id, value, version: index });
      }
    }
    const reply = { done, index, repeated: false };
    session.set(command.seq, reply);
    return reply;
  }

  rows(prefix: string): Row[] {
    return [...this.#rows.values()].filter((row) => row.id.startsWith(prefix));
  }

  snapshot(): SnapshotSource {
    const state: State = {
      rows: [...this.#rows],
      sessions: [...this.#sessions].map(([id, replies]) => [id, [...replies]]),
    };
    const bytes = text.encode(JSON.stringify(state));
    let at = 0;
    return {
      index: this.#index,
      next: (bytesMax) => {
        if (at >= bytes.length) return undefined;
        const chunk = bytes.subarray(at, at + bytesMax);
        at += chunk.length;
        return chunk;
      },
    };
  }

  restore(): SnapshotSink {
    const chunks: Uint8Array[] = [];
    return {
      write: (chunk) => void chunks.push(chunk),
      finish: (index) => {
        const state = JSON.parse(Buffer.concat(chunks).toString() || '{"rows":[],"sessions":[]}') as State;
        this.#rows = new Map(state.rows);
        this.#sessions = new Map(state.sessions.map(([id, replies]) => [id, new Map(replies)]));
        this.#index = index;
      },
    };
  }

  stateHash(): string {
    let hash = 0;
    for (const [id, row] of this.#rows) {
      const text = `${id}=${row.value}@${row.version}`;
      let h = 17;
      for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
      hash = (hash + h) | 0;
    }
    return (hash >>> 0).toString(16).padStart(16, "0");
  }
}
