/** Bodies of requests, read to a bound in size and in time. */
import type { IncomingMessage } from "node:http";

import { BadRequest, BodyTooLarge, BodyTooSlow } from "./errors.ts";
import { JsonError, parseJson, type Json, type JsonObject } from "./json.ts";

export const jsonBytesMax = 4 * 1024 * 1024;
const bodyMsMax = 60_000;

/** @throws BadRequest, BodyTooLarge, BodyTooSlow */
export async function readJsonObject(request: IncomingMessage): Promise<JsonObject> {
  const value = await readJson(request);
  if (value === null) return {};
  if (typeof value !== "object" || Array.isArray(value)) {
    const kind = Array.isArray(value) ? "array" : typeof value === "boolean" ? "bool" : typeof value;
    throw new BadRequest(`invalid JSON: json: cannot unmarshal ${kind} into Go value of type object`);
  }
  return value as JsonObject;
}

/** Nothing at all counts as `{}`, whatever its type: clients send text/plain with an empty POST. */
export async function readJson(request: IncomingMessage): Promise<Json> {
  const length = request.headers["content-length"];
  const chunked = request.headers["transfer-encoding"] !== undefined;
  if (!chunked && (length === undefined || length === "0")) return {};
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json(?:\s*;|\s*$)/i.test(type)) {
    throw new BadRequest(
      `unsupported Content-Type header (${type.slice(0, 128)}): must be 'application/json'`,
      "Send the body with Content-Type: application/json",
    );
  }
  const text = await readText(request, jsonBytesMax);
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    if (error.message.endsWith("after top-level value")) throw new BadRequest("unexpected content after JSON");
    throw new BadRequest(`invalid JSON: ${error.message}`);
  }
}

/** @throws BodyTooLarge, BodyTooSlow, BadRequest when the client goes away in the middle */
export async function readText(request: IncomingMessage, bytesMax: number): Promise<string> {
  const declared = Number(request.headers["content-length"] ?? "0");
  if (declared > bytesMax) throw new BodyTooLarge(bytesMax);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const timer = setTimeout(() => finish(() => reject(new BodyTooSlow(bodyMsMax / 1000))), bodyMsMax);
    const onData = (chunk: Buffer): void => {
      bytes += chunk.length;
      if (bytes > bytesMax) finish(() => reject(new BodyTooLarge(bytesMax)));
      else chunks.push(chunk);
    };
    const onEnd = (): void => finish(() => resolve(Buffer.concat(chunks).toString("utf8")));
    const onGone = (): void => finish(() => reject(new BadRequest("unexpected EOF")));
    const finish = (act: () => void): void => {
      clearTimeout(timer);
      request.off("data", onData).off("end", onEnd).off("aborted", onGone).off("error", onGone).off("close", onGone);
      act();
    };
    request.on("data", onData).on("end", onEnd).on("aborted", onGone).on("error", onGone).on("close", onGone);
  });
}
