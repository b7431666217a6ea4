/** A peer that keeps to nothing: dials a member and says what a test wants, with whatever certificate and hello. */
import type { TlsIdentity } from "../../lib/pki/index.ts";
import type { ClusterError } from "../../lib/pure/errors.ts";
import { Channel, rawCodec, type BidiMethod, type RpcStream } from "../../lib/rpc/index.ts";
import { skep } from "../../proto/index.ts";

export interface RawPeer extends Disposable {
  readonly stream: ReturnType<Channel["open"]> & RpcStream<Uint8Array>;
  readonly heard: Buffer[];
  /** How the stream ended. */
  readonly ended: Promise<ClusterError | undefined>;
  /** The next message that has not been looked at yet, as an Answer; undefined when the stream ends first. */
  answer(): Promise<skep.raft.Answer | undefined>;
}

export type RawStream = "Control" | "Data" | "Snapshot" | "Forward";

export function dialRaw(tls: TlsIdentity, address: string, kind: RawStream = "Control"): RawPeer {
  const method: BidiMethod<Uint8Array, Uint8Array> = {
    kind: "bidi",
    path: `/skep.raft.Raft/${kind}`,
    caller: "manager",
    request: rawCodec,
    response: rawCodec,
  };
  const channel = new Channel({ address, tls, expect: {} });
  const heard: Buffer[] = [];
  let looked = 0;
  let wake = (): void => {};
  const state = { over: false };
  let settle: (error: ClusterError | undefined) => void = () => {};
  const ended = new Promise<ClusterError | undefined>((resolve) => (settle = resolve));
  const stream = channel.open(method, {
    message: (bytes) => {
      heard.push(bytes as Buffer);
      wake();
    },
    closed: (error) => {
      state.over = true;
      settle(error);
      wake();
    },
  });
  return {
    stream,
    heard,
    ended,
    answer: async () => {
      while (heard.length === looked && !state.over) await new Promise<void>((resolve) => (wake = resolve));
      const next = heard[looked++];
      return next === undefined ? undefined : skep.raft.Answer.decode(next);
    },
    [Symbol.dispose]: () => {
      stream.abort(undefined);
      channel[Symbol.dispose]();
    },
  };
}

export function hello(from: number, to: number, overrides: skep.raft.IHello = {}): Uint8Array {
  return skep.raft.Frame.encode({
    hello: {
      clusterId: "c".repeat(25),
      clusterIncarnation: 1,
      from,
      to,
      protocol: 1,
      dataIncarnation: from.toString(16).padStart(32, "0"),
      address: "127.0.0.1:1",
      ...overrides,
    },
  }).finish();
}
