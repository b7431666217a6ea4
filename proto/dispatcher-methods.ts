/** The procedures of dispatcher.proto as both ends know them. Both ends read what a stranger may have sent. */
import type { BidiMethod, Codec } from "../lib/rpc/index.ts";
import { decodeStrictly, type Decodable, type DecodeLimits } from "./decode.ts";
import { encodeMessage, type Encodable } from "./encode.ts";
import { skep } from "./gen/skep.js";

const { dispatcher } = skep;

function codec<M>(type: Encodable<M> & Decodable<M>, limits: DecodeLimits): Codec<M> {
  return {
    encode: (message) => encodeMessage(type, message),
    decode: (bytes) => decodeStrictly(type, bytes, limits),
  };
}

/** What a node says is short; the longest is its description, or a status with the output of a health check. */
const fromAgent: DecodeLimits = { fieldsMax: 100_000, bytesMax: 64 * 1024 };
/** A config has up to 1000 KiB. */
const fromManager: DecodeLimits = { fieldsMax: 500_000, bytesMax: 2 * 1024 * 1024 };
/** One line of output is cut by whoever runs the container. */
const fromLogs: DecodeLimits = { fieldsMax: 100_000, bytesMax: 1024 * 1024 };

type AgentMessage = skep.dispatcher.AgentMessage.$Properties;
type ManagerMessage = skep.dispatcher.ManagerMessage.$Properties;
type LogUpload = skep.dispatcher.LogUpload.$Properties;
type LogControl = skep.dispatcher.LogControl.$Properties;

export const sessionMethod: BidiMethod<AgentMessage, ManagerMessage> = {
  kind: "bidi",
  path: "/skep.dispatcher.Dispatcher/Session",
  caller: "node",
  request: codec<AgentMessage>(dispatcher.AgentMessage, fromAgent),
  response: codec<ManagerMessage>(dispatcher.ManagerMessage, fromManager),
};

export const logsMethod: BidiMethod<LogUpload, LogControl> = {
  kind: "bidi",
  path: "/skep.dispatcher.Dispatcher/Logs",
  caller: "node",
  request: codec<LogUpload>(dispatcher.LogUpload, fromLogs),
  response: codec<LogControl>(dispatcher.LogControl, fromAgent),
};
