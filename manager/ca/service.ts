/**
 * The authority's calls: tell the root, let a node in by its token, renew by the certificate in use. The leader issues,
 * because each certificate goes with a change of the node's object; another manager passes the request on, one hop.
 */
import {
  nodeIdOf,
  readCertified,
  readJoinToken,
  readRequestKey,
  readRoots,
  ReinstatementRefused,
  sameSecret,
  type NodeIdentity,
  type NodeRole as CertificateRole,
} from "../../lib/pki/index.ts";
import { hostOf } from "../../lib/pure/address.ts";
import type { ClusterError } from "../../lib/pure/errors.ts";
import { newMemberId, type RandomBytes } from "../../lib/pure/id.ts";
import type { CallContext, RpcServer, UnaryMethod } from "../../lib/rpc/index.ts";
import type { Clock, Logger } from "../../lib/runtime/index.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import { certificateRole, frameAddressOf, nodeLifeOf, skep, trustedRoots } from "../../proto/index.ts";
import { isRevoked, theCluster, type ClusterSchema, type Store, type Tx, type View } from "../store/index.ts";
import { WrongTokens } from "./core/index.ts";
import {
  CaNotReady,
  DataPathFamily,
  JoinRequestInvalid,
  JoinTokenOfAnotherCluster,
  JoinTokenWrong,
  JoinTooOften,
  NodeRevoked,
  NodeUnknown,
} from "./errors.ts";
import { Issuer, type Issued } from "./issuer.ts";

const { CertificateState, NodeAvailability, NodeRole, NodeState, Reachability } = skep.objects;
type Cluster = Readonly<skep.objects.Cluster>;
type Node = Readonly<skep.objects.Node>;

/** What the authority needs of the manager. */
export interface Leader {
  /** Acts here if this manager leads, or has the leader do it, one hop. @throws NO_LEADER */
  run<Request extends { forwarded?: boolean | null }, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    context: Pick<CallContext, "signal" | "timeoutMs">,
    act: (signal: AbortSignal) => Promise<Response>,
  ): Promise<Response>;
}

export interface AuthorityOptions {
  readonly store: Store<ClusterSchema>;
  readonly leader: Leader;
  readonly clock: Clock;
  readonly logger: Logger;
  /** For the ids of consensus members. */
  readonly random: RandomBytes;
}

/** Each costs a signature and a commit. */
const joinsAtOnceMax = 64;
/** The founder's certificate is recorded a moment after it was made; renewals are half a life apart. */
const sameCertificateMs = 60_000;
/** A cluster that was off for some months has its workers back, too. */
const graceMs = 365 * 86_400_000;
const descriptionBytesMax = 64 * 1024;
const addressBytesMax = 256;

export class AuthorityService {
  readonly #options: AuthorityOptions;
  readonly #issuer = new Issuer();
  readonly #wrongTokens = new WrongTokens();
  #joins = 0;

  constructor(options: AuthorityOptions) {
    this.#options = options;
  }

  serve(server: RpcServer): void {
    server.unary(caMethods.getRoot, () => {
      const certificate = theCluster(this.#options.store.current())?.rootCa?.certificate;
      return certificate ? Promise.resolve({ certificate }) : Promise.reject(new CaNotReady());
    });
    server.unary(caMethods.join, (request, context) => this.#join(request, context));
    server.unary(caMethods.renew, (request, context) => this.#renew(request, context));
    server.unary(caMethods.reinstate, (request, context) =>
      // Whoever passes it on, what it shows is looked at by who leads.
      this.#options.leader.run(caMethods.reinstate, request, context, (signal) => this.#reinstate(request, signal)),
    );
  }

  // ----------------------------------------------------------------------------------------------------------- joining

  #join(request: skep.ca.IJoinRequest, context: CallContext): Promise<skep.ca.IJoinResponse> {
    const fromManager = context.peer?.identity.role === "manager";
    // Only a manager may say for whom it asks.
    const forwarded = fromManager && request.forwarded === true;
    const caller = forwarded ? (request.forwardedFor ?? "").slice(0, addressBytesMax) : hostOf(context.address);
    const asked = { ...request, forwardedFor: caller, forwarded };
    return this.#options.leader.run(caMethods.join, asked, context, (signal) => this.#admit(request, caller, signal));
  }

  async #admit(request: skep.ca.IJoinRequest, caller: string, signal: AbortSignal): Promise<skep.ca.IJoinResponse> {
    const cluster = this.#cluster();
    const role = this.#checkToken(request.token ?? "", cluster, caller);
    if (this.#joins >= joinsAtOnceMax) throw new JoinTooOften(`${this.#joins} others are being admitted`, 1000);
    this.#joins++;
    try {
      return await this.#letIn(request, { cluster, role, caller }, signal);
    } finally {
      this.#joins--;
    }
  }

  /** @returns the role that the token gives */
  #checkToken(text: string, cluster: Cluster, caller: string): CertificateRole {
    const nowMs = this.#options.clock.monotonicMs();
    const waitMs = this.#wrongTokens.waitMs(caller, nowMs);
    if (waitMs > 0) throw new JoinTooOften("its address came with wrong join tokens too often", waitMs);
    const refuse = (error: ClusterError): never => {
      this.#wrongTokens.wrong(caller, nowMs);
      this.#options.logger.warn("refused a join token", { caller, code: error.code });
      throw error;
    };
    let token;
    try {
      token = readJoinToken(text);
    } catch (error) {
      return refuse(error as ClusterError);
    }
    if (token.rootDigest !== cluster.rootCa?.digest) return refuse(new JoinTokenOfAnotherCluster());
    const given = text.trim();
    // Both are compared always, so that the time tells nothing.
    const asManager = sameSecret(given, cluster.joinTokens?.manager ?? "");
    const asWorker = sameSecret(given, cluster.joinTokens?.worker ?? "");
    if (asManager) return "manager";
    return asWorker ? "worker" : refuse(new JoinTokenWrong());
  }

  /**
   * The node's id is that of its key: one that asks again because the answer was lost is the same node, and whoever takes
   * part in two clusters is two.
   */
  async #letIn(
    request: skep.ca.IJoinRequest,
    { cluster, role, caller }: { readonly cluster: Cluster; readonly role: CertificateRole; readonly caller: string },
    signal: AbortSignal,
  ): Promise<skep.ca.IJoinResponse> {
    checkRequest(request, role);
    const csr = request.csr ?? "";
    const nodeId = nodeIdOf(cluster.id, await readRequestKey(csr));
    const { store, random } = this.#options;
    if (isRevoked(store.current(), nodeId)) throw new NodeRevoked(nodeId);
    const known = store.current().get("node", nodeId);
    const identity: NodeIdentity =
      known === undefined
        ? { nodeId, clusterId: cluster.id, role, memberId: role === "manager" ? newMemberId(random) : undefined }
        : identityOf(cluster.id, known, random);
    const addr = request.addr ? hostOf(request.addr) : caller;
    if (known === undefined) checkDataPath(request, addr, store.current());
    const issued = await this.#issue(cluster, csr, identity);
    await store.update(
      (tx) => {
        const now = tx.get("node", nodeId);
        if (now === undefined) tx.create("node", newNode(request, identity, issued, addr));
        else certify(tx, now, identity, issued);
      },
      { actor: "ca", cause: `a ${role} joins`, signal },
    );
    this.#options.logger.info("admitted a node", { nodeId, role, caller });
    return {
      nodeId,
      clusterId: cluster.id,
      role: roleNumber(identity.role),
      certificate: issued.chain,
      root: issued.roots,
      managerAddrs: managerAddresses(store),
      memberId: identity.memberId ?? 0,
    };
  }

  // ---------------------------------------------------------------------------------------------------------- renewing

  #renew(request: skep.ca.IRenewRequest, context: CallContext): Promise<skep.ca.IRenewResponse> {
    const peer = context.peer?.identity;
    if (peer === undefined) throw new CaNotReady();
    const forwarded = peer.role === "manager" && request.forwarded === true;
    const nodeId = forwarded ? (request.forwardedNodeId ?? "") : peer.nodeId;
    const asked = { ...request, forwardedNodeId: nodeId, forwarded };
    return this.#options.leader.run(caMethods.renew, asked, context, (signal) =>
      this.#issueAgain(nodeId, request.csr ?? "", signal),
    );
  }

  /**
   * For a node that was off when its certificate ended. It must be the last one that the node was given, so that a key that
   * was replaced, and may lie in some backup, opens nothing. A worker's must have ended in the last year; a manager has the
   * root's key on its disk, so that time would keep nobody out.
   */
  async #reinstate(request: skep.ca.IReinstateRequest, signal: AbortSignal): Promise<skep.ca.IRenewResponse> {
    if (this.#joins >= joinsAtOnceMax) throw new JoinTooOften(`${this.#joins} others are being admitted`, 1000);
    this.#joins++;
    try {
      const { store, clock, logger } = this.#options;
      const cluster = this.#cluster();
      const csr = request.csr ?? "";
      const shown = { csr, certificatePem: request.certificate ?? "", proof: request.proof ?? new Uint8Array() };
      const trust = { roots: readRoots(trustedRoots(cluster.rootCa)), clusterId: cluster.id };
      const { identity, notAfterMs } = readCertified(shown, trust);
      const { nodeId, role } = identity;
      const nowMs = clock.wallMs();
      if (nowMs <= notAfterMs)
        throw new ReinstatementRefused(
          "by the cluster's clock it has not ended",
          "Correct the clock of the node's host",
        );
      if (role === "worker" && nowMs > notAfterMs + graceMs)
        throw new ReinstatementRefused(`it ended at ${new Date(notAfterMs).toISOString()}, which is too long ago`);
      if (isRevoked(store.current(), nodeId)) throw new NodeRevoked(nodeId);
      const node = store.current().get("node", nodeId);
      if (node === undefined) throw new NodeUnknown(nodeId);
      if ((node.certificate?.expiresAtUs ?? 0) > (notAfterMs + sameCertificateMs) * 1000)
        throw new ReinstatementRefused("the node has been given a later certificate");
      const response = await this.#issueAgain(nodeId, csr, signal);
      logger.info("reinstated a node whose certificate had ended", { nodeId, endedAt: new Date(notAfterMs) });
      return response;
    } finally {
      this.#joins--;
    }
  }

  async #issueAgain(nodeId: string, csr: string, signal: AbortSignal): Promise<skep.ca.IRenewResponse> {
    const { store, random } = this.#options;
    const cluster = this.#cluster();
    if (isRevoked(store.current(), nodeId)) throw new NodeRevoked(nodeId);
    const node = store.current().get("node", nodeId);
    if (node === undefined) throw new NodeUnknown(nodeId);
    const identity = identityOf(cluster.id, node, random);
    const issued = await this.#issue(cluster, csr, identity);
    await store.update(
      (tx) => {
        const now = tx.get("node", nodeId);
        if (now === undefined) throw new NodeUnknown(nodeId);
        certify(tx, now, identity, issued);
      },
      { actor: "ca", cause: "a certificate is renewed", signal },
    );
    return {
      certificate: issued.chain,
      root: issued.roots,
      role: roleNumber(identity.role),
      memberId: identity.memberId ?? 0,
    };
  }

  // ------------------------------------------------------------------------------------------------------------ inside

  #cluster(): Cluster {
    const cluster = theCluster(this.#options.store.current());
    if (cluster === undefined) throw new CaNotReady();
    return cluster;
  }

  #issue(cluster: Cluster, csr: string, identity: NodeIdentity): Promise<Issued> {
    const nowMs = this.#options.clock.wallMs();
    return this.#issuer.issue(cluster.rootCa, csr, identity, { nowMs, lifeMs: nodeLifeOf(cluster.spec) });
  }
}

function checkRequest({ addr, description, availability }: skep.ca.IJoinRequest, role: CertificateRole): void {
  const address = addr ?? "";
  if (address.length > addressBytesMax || !/^$|^(\[[0-9a-f:.]+\]|[^\s:[\]]+):\d{1,5}$/iu.test(address))
    throw new JoinRequestInvalid("its address is not HOST:PORT");
  if (role === "manager" && address === "") throw new JoinRequestInvalid("a manager needs an address");
  if (skep.objects.NodeDescription.encode(description ?? {}).finish().length > descriptionBytesMax)
    throw new JoinRequestInvalid("its description is too long");
  if (availability != null && !(availability in NodeAvailability))
    throw new JoinRequestInvalid("its availability is unknown");
}

/** @throws DataPathFamily */
function checkDataPath({ description }: skep.ca.IJoinRequest, addr: string, view: View<ClusterSchema>): void {
  const theirs = frameAddressOf({ description: description ?? null, status: { addr } });
  const ours = frameAddressOfCluster(view);
  if (theirs === undefined || ours === undefined) return;
  if (theirs.includes(":") !== ours.includes(":")) throw new DataPathFamily(ours, theirs);
}

/**
 * Where the frames of a node of the cluster go, that others may be compared with: of one that carries networks, a manager if
 * there is one; as long as there is none, of the manager that is advertised there.
 */
function frameAddressOfCluster(view: View<ClusterSchema>): string | undefined {
  const managers = [...view.find("node", "role", String(NodeRole.MANAGER))].sort((a, b) => a.number - b.number);
  const address = (node: Node | undefined): string | undefined =>
    node === undefined ? undefined : frameAddressOf(node);
  const carries = (node: Node): boolean => node.description?.network != null && address(node) !== undefined;
  const found = managers.find(carries) ?? [...view.list("node")].find(carries);
  return address(found ?? managers.find((node) => address(node) !== undefined));
}

function newNode(
  request: skep.ca.IJoinRequest,
  identity: NodeIdentity,
  issued: Issued,
  addr: string,
): skep.objects.Node.$Properties & { id: string } {
  const role = roleNumber(identity.role);
  return {
    id: identity.nodeId,
    spec: { role, availability: request.availability ?? NodeAvailability.ACTIVE },
    role,
    description: request.description ?? {},
    status: { state: NodeState.NODE_UNKNOWN, addr },
    certificate: certificateRecord(role, issued),
    ...(identity.memberId === undefined
      ? {}
      : {
          managerStatus: {
            memberId: identity.memberId,
            addr: request.addr ?? "",
            reachability: Reachability.REACHABILITY_UNKNOWN,
          },
        }),
  };
}

/**
 * What the node's certificate says from now on. Signing took a moment: what was issued must still be what the node is to
 * be, and of two requests of one node that ran side by side the second must not make another member of it.
 */
function certify(tx: Tx<ClusterSchema>, now: Node, identity: NodeIdentity, issued: Issued): void {
  if (roleNumber(identity.role) !== certificateRole(now)) throw new CaNotReady();
  const memberId = now.managerStatus?.memberId;
  if (memberId && identity.memberId !== undefined && memberId !== identity.memberId) throw new CaNotReady();
  tx.edit("node", now.id, (draft) => {
    draft.role = roleNumber(identity.role);
    draft.certificate = certificateRecord(draft.role, issued);
    if (identity.memberId !== undefined && draft.managerStatus?.memberId !== identity.memberId)
      draft.managerStatus = skep.objects.ManagerStatus.create({ memberId: identity.memberId });
  });
}

function certificateRecord(role: skep.objects.NodeRole, issued: Issued): skep.objects.NodeCertificate {
  return skep.objects.NodeCertificate.create({
    state: CertificateState.CERTIFICATE_ISSUED,
    role,
    expiresAtUs: issued.notAfterMs * 1000,
    issuer: issued.issuer,
  });
}

/** A manager keeps its member for as long as it is one; who becomes a manager again is a new member. */
function identityOf(clusterId: string, node: Node, random: RandomBytes): NodeIdentity {
  const nodeId = node.id;
  if (certificateRole(node) === NodeRole.WORKER) return { nodeId, clusterId, role: "worker", memberId: undefined };
  const memberId = node.managerStatus?.memberId || newMemberId(random);
  return { nodeId, clusterId, role: "manager", memberId };
}

function roleNumber(role: CertificateRole): skep.objects.NodeRole {
  return role === "manager" ? NodeRole.MANAGER : NodeRole.WORKER;
}

function managerAddresses(store: Store<ClusterSchema>): string[] {
  const managers = [...store.current().find("node", "role", String(NodeRole.MANAGER))];
  return managers.map((node) => node.managerStatus?.addr ?? "").filter((addr) => addr !== "");
}
