/**
 * What managers do for each other and for the node's daemon: tell how they are, let a new one in, take one out, hand over.
 * Changes happen on the leader; another manager passes them on, one hop and no further.
 */
import type { RpcServer, UnaryMethod } from "../lib/rpc/index.ts";
import { messageCodec, skep } from "../proto/index.ts";
import type { LeaderCalls } from "./leader-calls.ts";
import type { MemberRecord, Raft } from "./raft/index.ts";

const { control } = skep;

function unary<Request, Response>(
  name: string,
  request: UnaryMethod<Request, Response>["request"],
  response: UnaryMethod<Request, Response>["response"],
): UnaryMethod<Request, Response> {
  return { kind: "unary", path: `/skep.control.Managers/${name}`, caller: "manager", request, response };
}

const change = messageCodec<skep.control.IChangeResponse>("ChangeResponse", control.ChangeResponse);

export const managersMethods = {
  status: unary(
    "Status",
    messageCodec<skep.control.IStatusRequest>("StatusRequest", control.StatusRequest),
    messageCodec<skep.control.IStatusResponse>("StatusResponse", control.StatusResponse),
  ),
  join: unary(
    "Join",
    messageCodec<skep.control.IJoinRequest>("JoinRequest", control.JoinRequest),
    messageCodec<skep.control.IJoinResponse>("JoinResponse", control.JoinResponse),
  ),
  remove: unary("Remove", messageCodec<skep.control.IRemoveRequest>("RemoveRequest", control.RemoveRequest), change),
  update: unary("Update", messageCodec<skep.control.IUpdateRequest>("UpdateRequest", control.UpdateRequest), change),
  setRole: unary("SetRole", messageCodec<skep.control.IRoleRequest>("RoleRequest", control.RoleRequest), change),
  transfer: unary(
    "Transfer",
    messageCodec<skep.control.ITransferRequest>("TransferRequest", control.TransferRequest),
    change,
  ),
  snapshot: unary(
    "Snapshot",
    messageCodec<skep.control.ISnapshotNowRequest>("SnapshotNowRequest", control.SnapshotNowRequest),
    change,
  ),
  rotateKey: unary(
    "RotateKey",
    messageCodec<skep.control.IRotateKeyRequest>("RotateKeyRequest", control.RotateKeyRequest),
    change,
  ),
};

/** What the service needs of the manager. */
export interface Office {
  readonly raft: Raft;
  status(): skep.control.IStatusResponse;
  /** The others know from then on what the member's program understands. */
  reportLevel(member: number, level: number, signal: AbortSignal): Promise<void>;
  forgetLevel(member: number, signal: AbortSignal): Promise<void>;
  readonly leader: LeaderCalls;
  /** Whether this node is to be that member. @throws MemberNotExpected */
  checkMember(nodeId: string, memberId: number): void;
}

export function serveManagers(server: RpcServer, office: Office): void {
  const { raft, leader } = office;

  const done: skep.control.IChangeResponse = {};

  server.unary(managersMethods.status, () => Promise.resolve(office.status()));

  server.unary(managersMethods.join, (request, context) => {
    // Only a manager may say for whom it asks; a new one speaks for itself, by its certificate.
    const self = context.peer?.identity;
    const asked =
      request.forwarded === true ? request : { ...request, memberId: self?.memberId ?? 0, nodeId: self?.nodeId ?? "" };
    return leader.run(managersMethods.join, asked, context, async (signal) => {
      const record: MemberRecord = {
        id: asked.memberId ?? 0,
        address: asked.address ?? "",
        nodeId: asked.nodeId ?? "",
        labels: {},
        autoPromote: true,
        featureLevel: asked.featureLevel ?? 0,
        dataIncarnation: asked.dataIncarnation ?? "",
      };
      office.checkMember(record.nodeId, record.id);
      await office.reportLevel(record.id, record.featureLevel, signal);
      if (asked.replaces) await raft.replace(asked.replaces, record, false, signal);
      else await raft.addLearner(record, signal);
      if (asked.replaces) await office.forgetLevel(asked.replaces, signal);
      return {};
    });
  });

  server.unary(managersMethods.remove, (request, context) =>
    leader.run(managersMethods.remove, request, context, async (signal) => {
      const id = request.memberId ?? 0;
      await raft.remove(id, request.force ?? false, signal);
      if (id !== raft.memberId) await office.forgetLevel(id, signal);
      return done;
    }),
  );

  server.unary(managersMethods.update, (request, context) =>
    leader.run(managersMethods.update, request, context, async (signal) => {
      await raft.updateAddress(request.memberId ?? 0, request.address ?? "", signal);
      return done;
    }),
  );

  server.unary(managersMethods.setRole, (request, context) =>
    leader.run(managersMethods.setRole, request, context, async (signal) => {
      const id = request.memberId ?? 0;
      if (request.voter === true) await raft.promote(id, signal);
      else await raft.demote(id, request.force ?? false, signal);
      return done;
    }),
  );

  server.unary(managersMethods.transfer, (request, context) =>
    leader.run(managersMethods.transfer, request, context, async () => {
      await raft.transfer(request.to || undefined);
      return done;
    }),
  );

  // These two concern the manager that is asked, whoever leads.
  server.unary(managersMethods.snapshot, () => {
    raft.takeSnapshot();
    return Promise.resolve(done);
  });
  server.unary(managersMethods.rotateKey, async (_request, context) => {
    await raft.rotateKey(context.signal);
    return done;
  });
}
