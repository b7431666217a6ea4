/** The remote procedures of Control as both ends know them: managers serve them, the API of a node and managers call them. */
import type { BidiMethod, UnaryMethod } from "../lib/rpc/index.ts";
import { skep } from "./gen/skep.js";
import { messageCodec } from "./encode.ts";

const { control } = skep;

type CodecOf<T> = UnaryMethod<T, unknown>["request"];

const caller = "manager";

function unary<Request, Response>(
  name: string,
  request: CodecOf<Request>,
  response: CodecOf<Response>,
): UnaryMethod<Request, Response> {
  return { kind: "unary", path: `/skep.control.Control/${name}`, caller, request, response };
}

function bidi<Request, Response>(
  name: string,
  request: CodecOf<Request>,
  response: CodecOf<Response>,
): BidiMethod<Request, Response> {
  return { kind: "bidi", path: `/skep.control.Control/${name}`, caller, request, response };
}

const object = messageCodec<skep.control.IObjectReply>("ObjectReply", control.ObjectReply);

export const controlMethods = {
  get: unary("Get", messageCodec<skep.control.IGetObjectRequest>("GetObjectRequest", control.GetObjectRequest), object),
  list: unary(
    "List",
    messageCodec<skep.control.IListObjectsRequest>("ListObjectsRequest", control.ListObjectsRequest),
    messageCodec<skep.control.IListObjectsReply>("ListObjectsReply", control.ListObjectsReply),
  ),
  create: unary(
    "Create",
    messageCodec<skep.control.ICreateObjectRequest>("CreateObjectRequest", control.CreateObjectRequest),
    object,
  ),
  update: unary(
    "Update",
    messageCodec<skep.control.IUpdateObjectRequest>("UpdateObjectRequest", control.UpdateObjectRequest),
    object,
  ),
  remove: unary(
    "Remove",
    messageCodec<skep.control.IRemoveObjectRequest>("RemoveObjectRequest", control.RemoveObjectRequest),
    messageCodec<skep.control.IRemoveObjectReply>("RemoveObjectReply", control.RemoveObjectReply),
  ),
  unlockKey: unary(
    "UnlockKey",
    messageCodec<skep.control.IUnlockKeyRequest>("UnlockKeyRequest", control.UnlockKeyRequest),
    messageCodec<skep.control.IUnlockKeyReply>("UnlockKeyReply", control.UnlockKeyReply),
  ),
  why: unary(
    "Why",
    messageCodec<skep.control.IWhyRequest>("WhyRequest", control.WhyRequest),
    messageCodec<skep.control.IWhyReply>("WhyReply", control.WhyReply),
  ),
  watch: bidi(
    "Watch",
    messageCodec<skep.control.IWatchObjectsRequest>("WatchObjectsRequest", control.WatchObjectsRequest),
    messageCodec<skep.control.IWatchObjectsEvent>("WatchObjectsEvent", control.WatchObjectsEvent),
  ),
  logs: bidi(
    "Logs",
    messageCodec<skep.control.ILogsRequest>("LogsRequest", control.LogsRequest),
    messageCodec<skep.control.ILogsMessage>("LogsMessage", control.LogsMessage),
  ),
};
