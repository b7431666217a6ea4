import assert from "node:assert/strict";
import { test } from "node:test";
import type { ClusterError } from "../../lib/pure/errors.ts";
import type { RpcStream, StreamEvents } from "../../lib/rpc/index.ts";
import { VirtualClock } from "../../lib/runtime/index.ts";
import type { skep } from "../../proto/index.ts";
import { AgentSession, type AgentChannel } from "./session.ts";

type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;
type AgentMessage = skep.dispatcher.AgentMessage.$Properties;

/** A session whose manager the test plays. */
class Played {
  readonly clock = new VirtualClock();
  readonly heard: ManagerMessage[] = [];
  /** When heartbeats were sent. */
  readonly beats: number[] = [];
  endedWith: ClusterError | undefined;
  readonly session: AgentSession;
  #events: StreamEvents<ManagerMessage> | undefined;
  readonly #startMs = this.clock.monotonicMs();

  constructor() {
    const stream = {
      closed: false,
      peer: undefined,
      write: ({ heartbeat }: AgentMessage) => {
        if (heartbeat != null) this.beats.push(this.nowMs);
        return true;
      },
      drained: () => Promise.resolve(),
      end: () => {},
      abort: (error: ClusterError | undefined) => (this.endedWith ??= error),
      pause: () => {},
      resume: () => {},
    };
    const channel = {
      open: (_method: unknown, events: StreamEvents<ManagerMessage>) => {
        this.#events = events;
        return stream as unknown as RpcStream<AgentMessage>;
      },
      [Symbol.dispose]: () => {},
    } as unknown as AgentChannel;
    this.session = new AgentSession({
      address: "m:1",
      channel,
      clock: this.clock,
      hello: {},
      handlers: {
        welcome: () => {},
        message: (message) => void this.heard.push(message),
        drained: () => {},
        goodbye: () => {},
      },
    });
  }

  get endedCode(): string | undefined {
    return this.endedWith?.code;
  }

  get nowMs(): number {
    return this.clock.monotonicMs() - this.#startMs;
  }

  say(message: ManagerMessage): void {
    this.#events?.message(message);
  }

  /** The manager is well: it answers every heartbeat. */
  answer(ms: number, ack: skep.dispatcher.HeartbeatAck.$Properties): void {
    for (const untilMs = this.nowMs + ms; this.nowMs < untilMs;) {
      const before = this.beats.length;
      this.clock.advance(100);
      if (this.beats.length > before) this.say({ heartbeatAck: ack });
    }
  }
}

const period = { seconds: 5, nanos: 0 };

test("who hears nothing asks after two seconds, and leaves a manager of which nothing is heard for four more", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: period } });
  played.clock.advance(1900);
  assert.deepEqual(played.beats, []);
  played.clock.advance(200);
  assert.deepEqual(played.beats, [2000]);
  played.clock.advance(3800);
  assert.equal(played.endedWith, undefined);
  played.clock.advance(200);
  assert.equal(played.endedCode, "SESSION_BROKEN");
  assert.equal(played.clock.pending, 0, "nothing is waited for any more");
});

test("whatever the manager says is an answer, and puts off the next question", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: { seconds: 60, nanos: 0 } } });
  for (let at = 0; at < 10; at++) {
    played.clock.advance(1500);
    played.say({ managers: { managers: [] } });
  }
  assert.deepEqual(played.beats, []);
  played.clock.advance(2000);
  assert.deepEqual(played.beats, [17_000]);
  played.clock.advance(3900);
  played.say({ managers: { managers: [] } });
  played.clock.advance(2000);
  assert.equal(played.beats.length, 2);
  assert.equal(played.endedWith, undefined);
});

test("a manager of thousands is asked as seldom as it says, and hears heartbeats in their time", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: period, quietMs: 20_000 } });
  played.answer(60_000, { period, quietMs: 20_000 });
  assert.equal(played.endedWith, undefined);
  assert.ok(played.beats.length >= 11 && played.beats.length <= 12, `${played.beats.length} heartbeats`);
  played.answer(10_000, { period, quietMs: 2000 });
  assert.ok(played.beats.length >= 14, `${played.beats.length}: more often again, when it says so`);
});

test("a manager of thousands has longer for its answer, until the second heartbeat after it", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: period, quietMs: 14_000 } });
  played.clock.advance(5000);
  assert.deepEqual(played.beats, [5000]);
  played.clock.advance(6900);
  assert.equal(played.endedWith, undefined, "4.2 s is a turn of such a manager");
  played.clock.advance(200);
  assert.equal(played.endedCode, "SESSION_BROKEN");
});

test("a manager that talks and answers no heartbeat is left, too", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: period } });
  for (let at = 0; at < 12; at++) {
    played.clock.advance(1500);
    played.say({ managers: { managers: [] } });
  }
  assert.equal(played.endedCode, "SESSION_BROKEN");
});

test("acknowledgements that travel with the answer to a heartbeat are heard", () => {
  const played = new Played();
  played.say({ welcome: { heartbeatPeriod: period } });
  played.say({ heartbeatAck: { period }, acks: [3, 4] });
  assert.deepEqual(played.heard, [{ heartbeatAck: { period }, acks: [3, 4] }]);
});
