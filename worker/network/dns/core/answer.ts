/** What becomes of a query: an answer from the tables, a refusal, or the way to a server outside. */
import { formatAddress, parseAddress } from "../../../../proto/index.ts";
import type { Random } from "../../../../lib/pure/prng.ts";
import { nameData, recordType, replyCode, type Answer, type Query, type ReplyCode } from "./message.ts";
import type { Asker } from "./names.ts";

/**
 * Of every answer of ours. Addresses of tasks come and go, and a virtual address lasts only as long as its service: a
 * client that keeps an answer longer than this talks to nobody.
 */
export const ttlSeconds = 1;

export type Verdict =
  | { readonly kind: "reply"; readonly code: ReplyCode; readonly ours: boolean; readonly answers: readonly Answer[] }
  | { readonly kind: "forward" };

/**
 * @param asker   undefined: nobody of ours, who gets nothing
 * @param random  shuffles the addresses, so that clients which take the first one spread
 */
export function answer({ question }: Query, asker: Asker | undefined, random: Random): Verdict {
  if (asker === undefined || !question.isInternet) return refusal(replyCode.REFUSED);
  const { name, type } = question;
  const addresses = asker.addresses(name);
  if (addresses !== undefined) return reply(random.shuffle(addressAnswers(addresses, type)));
  const reversed = reversedAddress(name);
  if (reversed !== undefined) {
    const found = asker.nameOf(reversed);
    // An address of ours without a name: no server outside is told of it.
    if (found === "") return { kind: "reply", code: replyCode.NXDOMAIN, ours: true, answers: [] };
    const data = found === undefined ? undefined : nameData(found);
    const asked = type === recordType.PTR || type === recordType.ANY;
    if (data !== undefined) return reply(asked ? [{ type: recordType.PTR, ttlSeconds, data }] : []);
  }
  return asker.forwards ? { kind: "forward" } : refusal(replyCode.NXDOMAIN);
}

const refusal = (code: ReplyCode): Verdict => ({ kind: "reply", code, ours: false, answers: [] });
/** A name of ours that has no record of the type asked for is NOERROR without an answer, as AAAA of a v4 name is. */
const reply = (answers: readonly Answer[]): Verdict => ({
  kind: "reply",
  code: replyCode.NOERROR,
  ours: true,
  answers,
});

function addressAnswers(addresses: readonly string[], type: number): Answer[] {
  if (type !== recordType.A && type !== recordType.AAAA && type !== recordType.ANY) return [];
  return addresses.flatMap((text) => {
    const data = addressData(text);
    const own = data?.length === 4 ? recordType.A : recordType.AAAA;
    return data === undefined || (type !== own && type !== recordType.ANY) ? [] : [{ type: own, ttlSeconds, data }];
  });
}

function addressData(text: string): Uint8Array | undefined {
  const parsed = parseAddress(text);
  if (parsed === undefined) return undefined;
  const out = new Uint8Array(parsed.bits / 8);
  if (parsed.bits === 32) {
    for (const [place, part] of text.split(".").entries()) out[place] = Number(part);
    return out;
  }
  let { value } = parsed;
  for (let place = out.length - 1; place >= 0; place--, value >>= 8n) out[place] = Number(value & 0xffn);
  return out;
}

/** The address of which `D.C.B.A.in-addr.arpa` (RFC 1035 §3.5), or 32 digits and `ip6.arpa` (RFC 3596 §2.5), is the name. */
function reversedAddress(name: string): string | undefined {
  if (name.endsWith(".ip6.arpa")) {
    const digits = name.slice(0, -".ip6.arpa".length).split(".").toReversed();
    if (digits.length !== 32 || !digits.every((digit) => /^[0-9a-f]$/.test(digit))) return undefined;
    return formatAddress({ bits: 128, value: BigInt(`0x${digits.join("")}`) });
  }
  if (!name.endsWith(".in-addr.arpa")) return undefined;
  const text = name.slice(0, -".in-addr.arpa".length).split(".").toReversed().join(".");
  return parseAddress(text)?.bits === 32 ? text : undefined;
}
