/**
 * The wire format of DNS (RFC 1035 §4), as far as a resolver needs it that answers from a table and passes on the rest: it
 * reads the one question of a query and its OPT record (RFC 6891), and writes answers whose names point at the question.
 * Bytes come from containers and from servers: nothing is read outside the packet, and no pointer is followed.
 */
export const recordType = { A: 1, PTR: 12, AAAA: 28, OPT: 41, ANY: 255 } as const;
export const replyCode = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  /** Its upper bits go into the OPT record. */
  BADVERS: 16,
} as const;
export type ReplyCode = (typeof replyCode)[keyof typeof replyCode];

const headerBytes = 12;
const classInternet = 1;
const classAny = 255;
/** RFC 1035 §2.3.4, in the form of the wire. */
const nameBytesMax = 255;
/** Of a query: an OPT record and a signature, with room for what is to come. */
const additionalMax = 8;
/** What every client takes without EDNS (RFC 1035 §4.2.1). */
export const plainUdpBytes = 512;
/** What we send at most by UDP: passes each path of a container in one piece (dnsflagday.net/2020). */
const ownUdpBytesMax = 1232;
export const tcpBytesMax = 65_535;

export interface Question {
  /**
   * Lower case, labels joined by dots, without one at the end; the root is "". A dot or backslash within a label is
   * written `\.` and `\\`, and bytes that are no printable ASCII as `\DDD` (RFC 4343), so no two names look alike.
   */
  readonly name: string;
  readonly type: number;
  readonly isInternet: boolean;
}

export interface Query {
  readonly id: number;
  readonly question: Question;
  /** Where the question ends, from the packet's first byte. */
  readonly questionEnd: number;
  /** Where the last record ends: what is passed on ends here. */
  readonly end: number;
  /** The client's own largest reply by UDP. */
  readonly udpBytesMax: number;
  /** It sent an OPT record and gets one. */
  readonly hasOpt: boolean;
}

export type Reading =
  | { readonly kind: "query"; readonly query: Query }
  /** Answered with a code; `query` only where the question could be read. */
  | { readonly kind: "refused"; readonly code: ReplyCode; readonly query: Query | undefined }
  /** Too short, or a reply: an answer would help nobody, and two resolvers could answer each other for ever. */
  | { readonly kind: "ignored" };

export function readQuery(packet: Uint8Array): Reading {
  if (packet.length < headerBytes || (at(packet, 2) & 0x80) !== 0) return { kind: "ignored" };
  const refuse = (code: ReplyCode, query?: Query): Reading => ({ kind: "refused", code, query });
  if (((at(packet, 2) >> 3) & 0xf) !== 0) return refuse(replyCode.NOTIMP);
  const additional = uint16(packet, 10);
  const isOneQuestion = uint16(packet, 4) === 1 && uint16(packet, 6) === 0 && uint16(packet, 8) === 0;
  if (!isOneQuestion || additional > additionalMax) return refuse(replyCode.FORMERR);
  const name = readName(packet, headerBytes);
  if (name === undefined || name.end + 4 > packet.length) return refuse(replyCode.FORMERR);
  const questionEnd = name.end + 4;
  const kind = uint16(packet, name.end + 2);
  let query: Query = {
    id: uint16(packet, 0),
    question: {
      name: name.text,
      type: uint16(packet, name.end),
      isInternet: kind === classInternet || kind === classAny,
    },
    questionEnd,
    end: questionEnd,
    udpBytesMax: plainUdpBytes,
    hasOpt: false,
  };
  let badVersion = false;
  for (let count = 0; count < additional; count++) {
    const record = readRecord(packet, query.end);
    if (record === undefined) return refuse(replyCode.FORMERR, query);
    if (record.type === recordType.OPT) {
      if (query.hasOpt) return refuse(replyCode.FORMERR, query);
      query = { ...query, hasOpt: true, udpBytesMax: Math.max(plainUdpBytes, record.class) };
      badVersion = record.version !== 0;
    }
    query = { ...query, end: record.end };
  }
  return badVersion ? refuse(replyCode.BADVERS, query) : { kind: "query", query };
}

export interface Answer {
  readonly type: number;
  readonly ttlSeconds: number;
  readonly data: Uint8Array;
}

/**
 * A reply to what was asked, with the question as it came (clients compare it to the bit).
 * @param packet    the query's bytes
 * @param query     what was read of it; undefined: only its header, and the reply has no question
 * @param bytesMax  answers that find no room are left out, and the reply says so (TC)
 */
export function writeReply(
  packet: Uint8Array,
  query: Query | undefined,
  reply: { readonly code: ReplyCode; readonly ours: boolean; readonly answers: readonly Answer[] },
  bytesMax: number,
): Uint8Array {
  const questionEnd = query?.questionEnd ?? headerBytes;
  const optBytes = query?.hasOpt === true ? 11 : 0;
  let bytes = questionEnd + optBytes;
  let count = 0;
  for (const { data } of reply.answers) {
    if (bytes + 12 + data.length > bytesMax) break;
    bytes += 12 + data.length;
    count++;
  }
  const out = new Uint8Array(bytes);
  out.set(packet.subarray(0, questionEnd));
  const truncated = count < reply.answers.length;
  // QR, the client's opcode and RD; then RA and the code. Only what the table says is authoritative.
  out[2] = 0x80 | (at(packet, 2) & 0x79) | (reply.ours ? 0x04 : 0) | (truncated ? 0x02 : 0);
  out[3] = 0x80 | (reply.code & 0xf);
  for (const [place, value] of [query === undefined ? 0 : 1, count, 0, optBytes > 0 ? 1 : 0].entries()) {
    putUint16(out, 4 + 2 * place, value);
  }
  let end = questionEnd;
  for (const { type, ttlSeconds, data } of reply.answers.slice(0, count)) {
    putUint16(out, end, 0xc000 | headerBytes);
    putUint16(out, end + 2, type);
    putUint16(out, end + 4, classInternet);
    putUint16(out, end + 6, ttlSeconds >>> 16);
    putUint16(out, end + 8, ttlSeconds & 0xffff);
    putUint16(out, end + 10, data.length);
    out.set(data, end + 12);
    end += 12 + data.length;
  }
  if (optBytes > 0) {
    putUint16(out, end + 1, recordType.OPT);
    putUint16(out, end + 3, ownUdpBytesMax);
    out[end + 5] = reply.code >>> 4;
  }
  return out;
}

/** How long a reply of ours to this query may be. */
export function replyBytesMax(query: Query | undefined, byTcp: boolean): number {
  return byTcp ? tcpBytesMax : Math.min(query?.udpBytesMax ?? plainUdpBytes, ownUdpBytesMax);
}

/** What goes on to a server: the query without what may come behind its last record, under another id. */
export function forwardedQuery(packet: Uint8Array, query: Query, id: number): Uint8Array {
  const out = copyOf(packet, query.end);
  putUint16(out, 0, id);
  return out;
}

/** Whether a packet answers a query sent under this id: a stranger who guesses would have to guess all of it. */
export function answersQuery(reply: Uint8Array, sent: Uint8Array, query: Query): boolean {
  if (reply.length < query.questionEnd || (at(reply, 2) & 0x80) === 0) return false;
  if (uint16(reply, 0) !== uint16(sent, 0) || uint16(reply, 4) !== 1) return false;
  for (let place = headerBytes; place < query.questionEnd; place++) {
    // Some servers answer in small letters whatever they were asked.
    if (lower(at(reply, place)) !== lower(at(sent, place))) return false;
  }
  return true;
}

/** A server could not answer, so another one may be asked: SERVFAIL, NOTIMP, REFUSED. */
export function isServerFailure(reply: Uint8Array): boolean {
  const code = at(reply, 3) & 0xf;
  return code === replyCode.SERVFAIL || code === replyCode.NOTIMP || code === replyCode.REFUSED;
}

/** A server's reply as the client gets it: under its own id, and cut to the question with TC where it is too long. */
export function passedReply(reply: Uint8Array, query: Query, bytesMax: number): Uint8Array {
  const fits = reply.length <= bytesMax;
  const out = copyOf(reply, fits ? reply.length : query.questionEnd);
  putUint16(out, 0, query.id);
  if (!fits) {
    out[2] = at(out, 2) | 0x02;
    for (const place of [6, 8, 10]) putUint16(out, place, 0);
  }
  return out;
}

/** Data of a PTR record. @param name  labels of letters, digits and the like, joined by dots; undefined: it cannot be said */
export function nameData(name: string): Uint8Array | undefined {
  const labels = name.split(".");
  const bytes = labels.reduce((sum, label) => sum + 1 + label.length, 1);
  if (bytes > nameBytesMax) return undefined;
  const out = new Uint8Array(bytes);
  let end = 0;
  for (const label of labels) {
    if (label.length < 1 || label.length > 63) return undefined;
    out[end++] = label.length;
    for (let place = 0; place < label.length; place++) {
      const code = label.charCodeAt(place);
      if (code < 0x21 || code > 0x7e) return undefined;
      out[end++] = code;
    }
  }
  return out;
}

/** Of a question: uncompressed, since nothing is before it that it could point to. */
function readName(packet: Uint8Array, start: number): { readonly text: string; readonly end: number } | undefined {
  const labels: string[] = [];
  for (let end = start; ;) {
    const length = packet[end];
    if (length === undefined || length > 63 || end - start + length + 1 > nameBytesMax) return undefined;
    if (length === 0) return { text: labels.join("."), end: end + 1 };
    if (end + 1 + length > packet.length) return undefined;
    labels.push(labelText(packet.subarray(end + 1, end + 1 + length)));
    end += 1 + length;
  }
}

function labelText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    if (byte === 0x2e || byte === 0x5c) text += `\\${String.fromCharCode(byte)}`;
    else if (byte > 0x20 && byte < 0x7f) text += String.fromCharCode(lower(byte));
    else text += `\\${String(byte).padStart(3, "0")}`;
  }
  return text;
}

interface AdditionalRecord {
  readonly type: number;
  /** Of an OPT record: the client's UDP size. */
  readonly class: number;
  /** Of an OPT record. */
  readonly version: number;
  readonly end: number;
}

/** The frame of a record; a name that is a pointer is stepped over. */
function readRecord(packet: Uint8Array, start: number): AdditionalRecord | undefined {
  const isPointer = (at(packet, start) & 0xc0) === 0xc0;
  const end = isPointer ? start + 2 : readName(packet, start)?.end;
  if (end === undefined || end + 10 > packet.length) return undefined;
  const dataEnd = end + 10 + uint16(packet, end + 8);
  if (dataEnd > packet.length) return undefined;
  return { type: uint16(packet, end), class: uint16(packet, end + 2), version: at(packet, end + 5), end: dataEnd };
}

/** Only read where the length was checked; 0 beyond the end. */
const at = (bytes: Uint8Array, place: number): number => bytes[place] ?? 0;
const uint16 = (bytes: Uint8Array, place: number): number => (at(bytes, place) << 8) | at(bytes, place + 1);
/** Also of a Buffer, whose own slice() is a view: what was received stays as it came, as others answer by it. */
const copyOf = (bytes: Uint8Array, end: number): Uint8Array => new Uint8Array(bytes.subarray(0, end));
const lower = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte);

function putUint16(bytes: Uint8Array, place: number, value: number): void {
  bytes[place] = value >>> 8;
  bytes[place + 1] = value & 0xff;
}
