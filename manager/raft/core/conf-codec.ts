/**
 * The bytes of a configuration change inside its log entry. Its own small format, version 1, all numbers big-endian:
 *   version u8 | transition u8 | steps u16 | steps times (act u8, member u64) | context: the rest
 */
import { ConfChangeUnreadable } from "./errors.ts";
import type { ConfChange, ConfChangeStep } from "./types.ts";

const version = 1;
const headBytes = 4;
const stepBytes = 9;
const transitions = ["auto", "jointImplicit", "jointExplicit"] as const;
const acts = ["addVoter", "addLearner", "remove", "update"] as const;
/** More members than this never change at once. */
const stepsMax = 1000;

export function encodeConfChange(change: ConfChange): Uint8Array {
  if (change.steps.length > stepsMax)
    throw new ConfChangeUnreadable(`${change.steps.length} steps, at most ${stepsMax}`);
  const bytes = new Uint8Array(headBytes + change.steps.length * stepBytes + change.context.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, version);
  view.setUint8(1, transitions.indexOf(change.transition));
  view.setUint16(2, change.steps.length);
  change.steps.forEach(({ act, member }, at) => {
    view.setUint8(headBytes + at * stepBytes, acts.indexOf(act));
    view.setUint32(headBytes + at * stepBytes + 1, Math.floor(member / 2 ** 32));
    view.setUint32(headBytes + at * stepBytes + 5, member % 2 ** 32);
  });
  bytes.set(change.context, headBytes + change.steps.length * stepBytes);
  return bytes;
}

/** @throws ConfChangeUnreadable: such an entry must stop the node, since skipping it would let it diverge */
export function decodeConfChange(bytes: Uint8Array): ConfChange {
  if (bytes.byteLength < headBytes) throw new ConfChangeUnreadable(`${bytes.byteLength} bytes are too few`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint8(0) !== version) throw new ConfChangeUnreadable(`format ${view.getUint8(0)} is not known`);
  const transition = transitions[view.getUint8(1)];
  if (transition === undefined) throw new ConfChangeUnreadable(`transition ${view.getUint8(1)} is not known`);
  const count = view.getUint16(2);
  const contextAt = headBytes + count * stepBytes;
  if (count > stepsMax || contextAt > bytes.byteLength) throw new ConfChangeUnreadable(`${count} steps do not fit`);
  const steps: ConfChangeStep[] = [];
  for (let at = headBytes; at < contextAt; at += stepBytes) {
    const act = acts[view.getUint8(at)];
    if (act === undefined) throw new ConfChangeUnreadable(`act ${view.getUint8(at)} is not known`);
    const member = view.getUint32(at + 1) * 2 ** 32 + view.getUint32(at + 5);
    if (!Number.isSafeInteger(member)) throw new ConfChangeUnreadable("a member id of more than 53 bits");
    steps.push({ act, member });
  }
  return { transition, steps, context: bytes.slice(contextAt) };
}
