/** The four streams of proto/raft.proto. The dialling end sends bytes that it has encoded itself. */
import { rawCodec, type BidiMethod, type Codec } from "../../../lib/rpc/index.ts";
import { decodeStrictly, skep, type Decodable, type DecodeLimits } from "../../../proto/index.ts";

const { Answer, SnapshotDown, ForwardDown } = skep.raft;

/** What the serving end says on each of them: at first "accepted" or "refused". */
export interface Down {
  readonly accepted?: skep.raft.IAccepted | null | undefined;
  readonly refused?: skep.raft.IRefused | null | undefined;
}

export type StreamMethod<D extends Down> = BidiMethod<Uint8Array, D>;

const smallLimits: DecodeLimits = { fieldsMax: 64, bytesMax: 16 * 1024 };

function answers<D extends Down>(
  type: Decodable<D> & { encode(message: D): { finish(): Uint8Array } },
  limits = smallLimits,
): Codec<D> {
  return {
    encode: (message) => type.encode(message).finish(),
    decode: (bytes) => decodeStrictly(type, bytes, limits),
  };
}

function method<D extends Down>(name: string, response: Codec<D>): StreamMethod<D> {
  const path = `/skep.raft.Raft/${name}`;
  return { kind: "bidi", direct: true, path, caller: "manager", request: rawCodec, response };
}

export const controlMethod: StreamMethod<skep.raft.IAnswer> = method("Control", answers<skep.raft.IAnswer>(Answer));
export const dataMethod: StreamMethod<skep.raft.IAnswer> = method("Data", answers<skep.raft.IAnswer>(Answer));
export const snapshotMethod: StreamMethod<skep.raft.ISnapshotDown> = method(
  "Snapshot",
  answers<skep.raft.ISnapshotDown>(SnapshotDown),
);
export const forwardMethod: StreamMethod<skep.raft.IForwardDown> = method(
  "Forward",
  // What the state machine answers travels here.
  answers<skep.raft.IForwardDown>(ForwardDown, { fieldsMax: 64, bytesMax: 4 * 1024 * 1024 }),
);

export const raftMethods = [controlMethod, dataMethod, snapshotMethod, forwardMethod];
