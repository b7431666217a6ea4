/** The remote procedures of proto/control.proto as both ends know them. */
import type { BidiMethod, UnaryMethod } from "../../lib/rpc/index.ts";
import { messageCodec, skep } from "../../proto/index.ts";

const { control } = skep;

type Request = skep.control.IKvRequest;
type Response = skep.control.IKvResponse;

function one(name: string): UnaryMethod<Request, Response> {
  return {
    kind: "unary",
    path: `/skep.control.Kv/${name}`,
    caller: "manager",
    request: messageCodec("KvRequest", control.KvRequest),
    response: messageCodec("KvResponse", control.KvResponse),
  };
}

/** All take and give the same messages; the name says what is expected inside. */
export const unaryMethods = ["Put", "Get", "Delete", "Cas", "Txn", "OpenSession"].map(one);

export const streamMethod: BidiMethod<skep.control.IKvRequests, skep.control.IKvResponses> = {
  kind: "bidi",
  path: "/skep.control.Kv/Stream",
  caller: "manager",
  request: messageCodec("KvRequests", control.KvRequests),
  response: messageCodec("KvResponses", control.KvResponses),
};

export const watchMethod: BidiMethod<skep.control.IWatchRequest, skep.control.IWatchEvent> = {
  kind: "bidi",
  path: "/skep.control.Kv/Watch",
  caller: "manager",
  request: messageCodec("WatchRequest", control.WatchRequest),
  response: messageCodec("WatchEvent", control.WatchEvent),
};

export const keysMethods = [...unaryMethods, streamMethod, watchMethod];
