/**
 * The kinds of a cluster and the keys by which rooms look them up.
 * Numbers stand in the log and in snapshots: never reuse one. A changed unique key needs a higher feature level, since every
 * member judges it; the others are each member's own, and cost every change of an object: there are only those that a room
 * asks for.
 */
import {
  decodeSharing,
  encodeBriefly,
  encodeMessage,
  encodeSharing,
  sharedFrom,
  skep,
  type Encodable,
  type SharedField,
} from "../../proto/index.ts";
import type { Codec, IndexSchema, Meta, TableSchema } from "./core/schema.ts";

/** What protobufjs generates for a message. */
interface MessageType<Out, In> extends Encodable<In> {
  decode(bytes: Uint8Array): Out;
}

function codec<
  Out extends { id: string; meta?: skep.objects.Meta.$Properties | null },
  In extends { id?: string | null; meta?: skep.objects.Meta.$Properties | null },
>(message: MessageType<Out, In>, shared?: ReadonlyMap<number, SharedField>): Codec<Out, In> {
  return {
    encode: (object) => encodeMessage(message, { ...object, id: undefined, meta: undefined }),
    encodeBriefly: (object) => {
      const body = { ...object, id: undefined, meta: undefined };
      return shared === undefined ? encodeBriefly(message, body) : encodeSharing(message, shared, body);
    },
    decode: (bytes: Uint8Array, id: string, meta: Meta) => {
      const object = shared === undefined ? message.decode(bytes) : decodeSharing(message, shared, bytes);
      object.id = id;
      object.meta = meta;
      return object;
    },
  };
}

const emptyList: never[] = [];
const emptyMap: Record<string, string> = {};
Object.freeze(emptyList);
Object.freeze(emptyMap);

/** Most lists of a task are empty: there may be a million, and to freeze each takes longer than to read the task. */
function shareEmpty(task: skep.objects.Task): skep.objects.Task {
  if (task.assignedGenericResources.length === 0) task.assignedGenericResources = emptyList;
  if (task.networksAttachments.length === 0) task.networksAttachments = emptyList;
  if (task.volumes.length === 0) task.volumes = emptyList;
  if (Object.keys(task.labels).length === 0) task.labels = emptyMap;
  return task;
}

type Keys<Keyed> = IndexSchema<Keyed>["keys"];

/** First the indexes in which a key has one object, then those in which it may have many. */
function table<Out, In, Unique extends string, Multi extends string, Keyed = Out>(
  number: number,
  codec: Codec<Out, In>,
  unique: Readonly<Record<Unique, Keys<Keyed>>>,
  multi: Readonly<Record<Multi, Keys<Keyed>>>,
  more: Pick<TableSchema<Out, In, Unique | Multi, Keyed>, "skim" | "copy" | "isCompact" | "commonFrom"> = {},
): TableSchema<Out, In, Unique | Multi, Keyed> {
  const found: Record<string, IndexSchema<Keyed>> = {};
  for (const [name, keys] of Object.entries<Keys<Keyed>>(unique)) found[name] = { unique: true, keys };
  for (const [name, keys] of Object.entries<Keys<Keyed>>(multi)) found[name] = { unique: false, keys };
  const indexes = found as Record<Unique | Multi, IndexSchema<Keyed>>;
  return { number, codec, indexes, sinceLevel: 1, ...more };
}

/** Empty text is how protobuf says "none". */
const text = (value: string | null | undefined): string | undefined =>
  value === null || value === undefined || value === "" ? undefined : value;

const texts = (values: readonly (string | null | undefined)[]): readonly string[] => {
  if (values.length === 0) return none;
  const found: string[] = [];
  for (const value of values) if (value !== null && value !== undefined && value !== "") found.push(value);
  return found;
};

const none: readonly string[] = [];

type TaskSpec = skep.objects.TaskSpec.$Properties | null | undefined;

const secretsOf = (spec: TaskSpec): readonly string[] =>
  texts((spec?.containerSpec?.secrets ?? []).map((reference) => reference.secretId));
const configsOf = (spec: TaskSpec): readonly string[] =>
  texts([
    ...(spec?.containerSpec?.configs ?? []).map((reference) => reference.configId),
    spec?.containerSpec?.privileges?.credentialSpec?.config,
  ]);
const networksOf = (spec: TaskSpec): readonly string[] =>
  texts((spec?.networks ?? []).map((network) => network.target));

type TaskKeys = skep.store.TaskKeys;

const pending: number = skep.objects.TaskState.PENDING;
const waits = (state: number): string | undefined => (state <= pending ? String(state) : undefined);

/** What the tasks of a service have in common. Whoever edits a task replaces these as a whole, if at all. */
const sharedByTasks: ReadonlyMap<number, SharedField> = new Map<number, SharedField>([
  [15, { name: "serviceAnnotations", type: skep.objects.Annotations }],
  [16, { name: "endpoint", type: skep.objects.Endpoint }],
  // Last, so that what is the task's own lies in one piece before it.
  [5, { name: "spec", type: skep.objects.TaskSpec }],
]);
const { objects } = skep;

const wholeTasks = codec<skep.objects.Task, skep.objects.Task.$Properties>(objects.Task, sharedByTasks);
const taskCodec: typeof wholeTasks = {
  ...wholeTasks,
  decode: (bytes, id, meta) => shareEmpty(wholeTasks.decode(bytes, id, meta)),
};

/** The keys by which rooms look objects up, besides the id. Numbers (states, roles) are keys in decimal. */
export const clusterSchema = {
  cluster: table(
    1,
    codec<skep.objects.Cluster, skep.objects.Cluster.$Properties>(objects.Cluster),
    {
      name: (cluster) => text(cluster.spec?.name),
    },
    {},
  ),
  node: table(
    2,
    codec<skep.objects.Node, skep.objects.Node.$Properties>(objects.Node),
    {},
    {
      /** Names and host names may repeat: the id is what identifies a node. */
      name: (node) => text(node.spec?.name),
      hostname: (node) => text(node.description?.hostname),
      role: (node) => String(node.role),
      state: (node) => String(node.status?.state ?? 0),
      /** The consensus member that the node is. */
      member: (node) => (node.managerStatus?.memberId ? String(node.managerStatus.memberId) : undefined),
      /** Who holds a key for encrypted networks, in base 64. */
      tunnelKey: ({ description }) =>
        text(Buffer.from(description?.network?.wireguardPublicKey ?? []).toString("base64")),
    },
  ),
  service: table(
    3,
    codec<skep.objects.Service, skep.objects.Service.$Properties>(objects.Service),
    {
      /** Free for another one as soon as it is being taken down. */
      name: (service) => (service.pendingDelete ? undefined : text(service.spec?.name)),
    },
    {
      /** As the spec names them: a network's id, or its name. */
      network: (service) =>
        texts([
          ...networksOf(service.spec?.taskTemplate),
          ...(service.spec?.networks ?? []).map((network) => network.target),
        ]),
      secret: (service) => secretsOf(service.spec?.taskTemplate),
      config: (service) => configsOf(service.spec?.taskTemplate),
    },
  ),
  task: table(
    4,
    taskCodec,
    {},
    {
      service: (task: TaskKeys) => text(task.serviceId),
      node: (task: TaskKeys) => text(task.nodeId),
      /** Of those that wait for a node; nobody asks for the others by their state. */
      state: ({ status }: TaskKeys) => waits(status?.state ?? 0),
      network: (task: TaskKeys) => texts(task.networksAttachments.map((attachment) => attachment.networkId)),
    },
    {
      skim: (bytes) => skep.store.TaskKeys.decode(bytes),
      copy: (task) => skep.objects.Task.create(task as skep.objects.Task.$Properties),
      isCompact: true,
      commonFrom: (bytes) => sharedFrom(sharedByTasks, bytes),
    },
  ),
  network: table(
    5,
    codec<skep.objects.Network, skep.objects.Network.$Properties>(objects.Network),
    {
      name: (network) => (network.pendingDelete ? undefined : text(network.spec?.name)),
      /** Unique, so that no two networks can ever share a VXLAN, whatever the allocator believes. */
      vni: (network) => (network.vni === 0 ? undefined : String(network.vni)),
    },
    {},
  ),
  secret: table(
    6,
    codec<skep.objects.Secret, skep.objects.Secret.$Properties>(objects.Secret),
    {
      name: (secret) => text(secret.spec?.name),
    },
    {},
  ),
  config: table(
    7,
    codec<skep.objects.Config, skep.objects.Config.$Properties>(objects.Config),
    {
      name: (config) => text(config.spec?.name),
    },
    {},
  ),
  volume: table(
    8,
    codec<skep.objects.Volume, skep.objects.Volume.$Properties>(objects.Volume),
    {
      name: (volume) => text(volume.spec?.name),
    },
    {
      group: (volume) => text(volume.spec?.group),
      secret: (volume) => texts((volume.spec?.secrets ?? []).map((secret) => secret.secret)),
    },
  ),
  resource: table(
    9,
    codec<skep.objects.Resource, skep.objects.Resource.$Properties>(objects.Resource),
    {
      /** "kind/name". */
      name: (resource) =>
        text(resource.annotations?.name) === undefined ? undefined : `${resource.kind}/${resource.annotations?.name}`,
    },
    {
      kind: (resource) => text(resource.kind),
    },
  ),
  extension: table(
    10,
    codec<skep.objects.Extension, skep.objects.Extension.$Properties>(objects.Extension),
    {
      name: (extension) => text(extension.annotations?.name),
    },
    {},
  ),
};

export type ClusterSchema = typeof clusterSchema;
