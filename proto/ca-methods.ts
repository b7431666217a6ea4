/** The calls of ca.proto, for both ends. */
import type { UnaryMethod } from "../lib/rpc/index.ts";
import { messageCodec } from "./encode.ts";
import { skep } from "./gen/skep.js";

const { ca } = skep;
const path = (name: string): string => `/skep.ca.CertificateAuthority/${name}`;

export const caMethods = {
  /** Tells a public thing: whoever joins compares it with the digest in its token. */
  getRoot: {
    kind: "unary",
    path: path("GetRoot"),
    caller: "anyone",
    request: messageCodec<skep.ca.IGetRootRequest>("GetRootRequest", ca.GetRootRequest),
    response: messageCodec<skep.ca.IGetRootResponse>("GetRootResponse", ca.GetRootResponse),
  } satisfies UnaryMethod<skep.ca.IGetRootRequest, skep.ca.IGetRootResponse>,
  /** Authorised by the join token. */
  join: {
    kind: "unary",
    path: path("Join"),
    caller: "anyone",
    request: messageCodec<skep.ca.IJoinRequest>("JoinRequest", ca.JoinRequest),
    response: messageCodec<skep.ca.IJoinResponse>("JoinResponse", ca.JoinResponse),
  } satisfies UnaryMethod<skep.ca.IJoinRequest, skep.ca.IJoinResponse>,
  renew: {
    kind: "unary",
    path: path("Renew"),
    caller: "node",
    request: messageCodec<skep.ca.IRenewRequest>("RenewRequest", ca.RenewRequest),
    response: messageCodec<skep.ca.IRenewResponse>("RenewResponse", ca.RenewResponse),
  } satisfies UnaryMethod<skep.ca.IRenewRequest, skep.ca.IRenewResponse>,
  /** Authorised by the key of a certificate that has ended. */
  reinstate: {
    kind: "unary",
    path: path("Reinstate"),
    caller: "anyone",
    request: messageCodec<skep.ca.IReinstateRequest>("ReinstateRequest", ca.ReinstateRequest),
    response: messageCodec<skep.ca.IRenewResponse>("RenewResponse", ca.RenewResponse),
  } satisfies UnaryMethod<skep.ca.IReinstateRequest, skep.ca.IRenewResponse>,
} as const;
