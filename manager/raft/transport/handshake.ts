/** The hello of a stream and the answer to it, on both ends. */
import type { Certificate } from "../../../lib/pki/index.ts";
import type { ClusterError } from "../../../lib/pure/errors.ts";
import { RemoteError } from "../../../lib/rpc/index.ts";
import type { skep } from "../../../proto/index.ts";
import type { MemberId } from "../core/types.ts";
import { encodeHello } from "./codec.ts";
import {
  HandshakeExpected,
  PeerRemoved,
  PeerReplaced,
  PeerUnknown,
  ProtocolUnsupported,
  WrongCluster,
  WrongClusterIncarnation,
  WrongReceiver,
  WrongSender,
} from "./errors.ts";
import type { LocalMember, RemoteMember, Standing } from "./types.ts";

/** Raised only when older releases could not follow; what they need not understand goes into new fields. */
export const protocol = 1;

export function helloTo(local: LocalMember, to: MemberId): Uint8Array {
  return encodeHello({
    clusterId: local.clusterId,
    clusterIncarnation: local.clusterIncarnation,
    from: local.id,
    to,
    protocol,
    dataIncarnation: local.dataIncarnation,
    address: local.address,
  });
}

/**
 * Who opens the stream, if it may.
 * @param certificate  of the connection; what the hello says must fit it
 * @throws             one of the typed refusals, which is then the answer
 */
export function checkHello(
  hello: skep.raft.IHello,
  certificate: Certificate | undefined,
  local: LocalMember,
  standing: (peer: RemoteMember) => Standing,
): RemoteMember {
  const from = hello.from ?? 0;
  const clusterId = hello.clusterId ?? "";
  if (clusterId !== local.clusterId) throw new WrongCluster(clusterId, local.clusterId);
  const incarnation = hello.clusterIncarnation ?? 0;
  if (incarnation !== local.clusterIncarnation) {
    throw new WrongClusterIncarnation(incarnation, local.clusterIncarnation);
  }
  const identity = certificate?.identity;
  if (from === 0 || identity?.memberId !== from) throw new WrongSender(from, identity?.memberId);
  if (hello.to !== local.id) throw new WrongReceiver(hello.to ?? 0, local.id);
  // A newer peer steps down to the older end's protocol; there is no older one yet.
  if ((hello.protocol ?? 0) < protocol) throw new ProtocolUnsupported(hello.protocol ?? 0, protocol);
  const dataIncarnation = hello.dataIncarnation ?? "";
  if (!/^[0-9a-f]{32}$/.test(dataIncarnation)) throw new HandshakeExpected("its data folder has no incarnation");
  const address = hello.address ?? "";
  if (!isAddress(address)) throw new HandshakeExpected("it does not say where it is reached");
  const peer: RemoteMember = { id: from, nodeId: identity.nodeId, dataIncarnation, address };
  switch (standing(peer)) {
    case "member":
      return peer;
    case "removed":
      throw new PeerRemoved(from);
    case "replaced":
      throw new PeerReplaced(from);
    case "unknown":
      throw new PeerUnknown(from);
  }
}

/** HOST:PORT, of a length that a host name can have. */
export function isAddress(address: string): boolean {
  return /^(\[[0-9a-fA-F:.%a-z]{2,64}\]|[0-9A-Za-z._-]{1,253}):[0-9]{1,5}$/.test(address);
}

export function refusalOf(error: ClusterError, statement: Uint8Array | undefined): skep.raft.IRefused {
  return {
    code: error.code,
    message: error.message.slice(0, 1024),
    fix: error.fix?.slice(0, 1024) ?? "",
    ...(statement === undefined ? {} : { statement }),
  };
}

/** The reverse. A code of a newer release is carried as it is. */
export function errorOf(refused: skep.raft.IRefused): ClusterError {
  const code = /^[A-Z][A-Z0-9_]{0,63}$/.test(refused.code ?? "") ? (refused.code as string) : "RAFT_REFUSED";
  const message = (refused.message ?? "").slice(0, 1024);
  return new RemoteError(
    code,
    message === "" ? "Cannot talk to the member: refused" : message,
    refused.fix ?? undefined,
    undefined,
  );
}
