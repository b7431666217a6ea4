/** Asks a cluster to be let in: the root by the token's digest first, then a certificate from managers under that root. */
import {
  Stranger,
  createRequest,
  digestOfRoot,
  generatePrivateKey,
  readCertificate,
  readJoinToken,
  type JoinToken,
} from "../../lib/pki/index.ts";
import { hostOf } from "../../lib/pure/address.ts";
import { ClusterError } from "../../lib/pure/errors.ts";
import { Channel } from "../../lib/rpc/index.ts";
import { sleep, type Clock } from "../../lib/runtime/index.ts";
import { caMethods } from "../../proto/ca-methods.ts";
import { skep } from "../../proto/index.ts";
import { JoinAddressMissing, JoinAnswerInvalid, JoinRootMismatch, JoinUnreachable } from "./errors.ts";
import { frameAddressIn, type IdentityFolder, type State, type SwarmSettings } from "./folder.ts";
import { SwarmIdentity } from "./identity.ts";

export interface JoinOptions {
  readonly folder: IdentityFolder;
  readonly clock: Clock;
  readonly settings: SwarmSettings;
  /** HOST:PORT of managers, asked one after the other. */
  readonly addresses: readonly string[];
  readonly token: string;
  readonly availability: "active" | "pause" | "drain";
  readonly description: skep.objects.NodeDescription.$Properties;
  /** How long to go on while no manager answers; 14 s unless said. */
  readonly patienceMs?: number;
}

const { NodeAvailability } = skep.objects;
const availabilities = {
  active: NodeAvailability.ACTIVE,
  pause: NodeAvailability.PAUSE,
  drain: NodeAvailability.DRAIN,
};
const callMs = 5000;
/** With the last call it is over before who asked gives up (20 s), so that the reason is told. */
const patienceMsDefault = 14_000;
/** Where nothing listens nothing will answer, unless a manager is just being started. */
const refusedPatienceMs = 3000;
const retryMs = 250;

/** Asking again elsewhere would be refused alike. */
const final = new Set([
  "JOIN_TOKEN_WRONG",
  "JOIN_TOKEN_INVALID",
  "JOIN_TOKEN_OF_ANOTHER_CLUSTER",
  "JOIN_TOO_OFTEN",
  "JOIN_REQUEST_INVALID",
  "DATA_PATH_FAMILY",
  "CERTIFICATE_REQUEST_INVALID",
  "NODE_REVOKED",
]);
/** This address will not change its mind; another one may be right. */
const finalHere = new Set(["JOIN_ROOT_MISMATCH", "JOIN_ANSWER_INVALID", "PEER_NOT_TRUSTED", "CERTIFICATE_INVALID"]);

/**
 * Resolves when this node has its certificate on disk; the role is the token's. A lost answer is asked for again with the
 * same key, and the cluster knows it for the same node.
 * @throws JoinTokenInvalid, JoinAddressMissing, JoinRootMismatch, JoinUnreachable, and what a manager answered
 *         (JOIN_TOKEN_WRONG, JOIN_TOKEN_OF_ANOTHER_CLUSTER, JOIN_TOO_OFTEN, ...), or the signal's reason
 */
export async function join(options: JoinOptions, signal: AbortSignal): Promise<SwarmIdentity> {
  const { folder, clock, addresses } = options;
  const token = readJoinToken(options.token);
  if (addresses.length === 0) throw new JoinAddressMissing();
  const privateKeyPem = await generatePrivateKey();
  const csr = await createRequest(privateKeyPem);
  const startedMs = clock.monotonicMs();
  const patienceMs = options.patienceMs ?? patienceMsDefault;
  for (;;) {
    let refused: unknown;
    let failed: Error | undefined;
    let silent = false;
    for (const address of addresses) {
      try {
        const answer = await ask(address, token, { csr, options }, signal);
        return enter(folder, options.settings, privateKeyPem, answer);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof ClusterError) || final.has(error.code)) throw error;
        if (finalHere.has(error.code)) refused ??= error;
        else {
          failed = error;
          silent ||= !error.message.includes("ECONNREFUSED");
        }
      }
    }
    if (failed === undefined) throw refused;
    const limitMs = silent ? patienceMs : Math.min(patienceMs, refusedPatienceMs);
    if (clock.monotonicMs() - startedMs >= limitMs) throw new JoinUnreachable(addresses, failed);
    await sleep(clock, retryMs, signal);
  }
}

interface Answer {
  readonly certificatePem: string;
  readonly rootsPem: string;
  readonly managers: readonly string[];
}

async function ask(
  address: string,
  token: JoinToken,
  { csr, options }: { readonly csr: string; readonly options: JoinOptions },
  signal: AbortSignal,
): Promise<Answer> {
  const root = await askRoot(address, token, signal);
  const stranger = new Stranger(root);
  const channel = new Channel({ address, tls: stranger, expect: { role: "manager" } });
  try {
    const request: skep.ca.IJoinRequest = {
      token: options.token.trim(),
      csr,
      availability: availabilities[options.availability],
      addr: options.settings.advertiseAddr,
      description: describe(options),
    };
    const response = await channel.call(caMethods.join, request, { timeoutMs: callMs, signal });
    return check(response, address, token, stranger.clusterId);
  } finally {
    channel[Symbol.dispose]();
  }
}

/** Managers have to know before they let it in whether frames of the others can go to it. */
function describe({ description, settings }: JoinOptions): skep.objects.NodeDescription.$Properties {
  const dataPathAddr = frameAddressIn(settings);
  return dataPathAddr === hostOf(settings.advertiseAddr) ? description : { ...description, network: { dataPathAddr } };
}

/** Anybody may answer this; the digest tells whether it is the cluster's root. */
async function askRoot(address: string, token: JoinToken, signal: AbortSignal): Promise<string> {
  const channel = new Channel({ address, tls: new Stranger(undefined), expect: {} });
  try {
    const { certificate } = await channel.call(caMethods.getRoot, {}, { timeoutMs: callMs, signal });
    if (!certificate) throw new JoinAnswerInvalid(address, "it offers no root certificate");
    if (digestOfRoot(certificate) !== token.rootDigest) throw new JoinRootMismatch(address);
    return certificate;
  } finally {
    channel[Symbol.dispose]();
  }
}

function check(
  response: skep.ca.IJoinResponse,
  address: string,
  token: JoinToken,
  clusterId: string | undefined,
): Answer {
  const { certificate, root, nodeId, managerAddrs } = response;
  if (!certificate || !root) throw new JoinAnswerInvalid(address, "it sent no certificate");
  if (digestOfRoot(root) !== token.rootDigest) throw new JoinRootMismatch(address);
  const { identity } = readCertificate(certificate);
  if (identity.nodeId !== nodeId || identity.clusterId !== clusterId)
    throw new JoinAnswerInvalid(address, "the certificate names another node or cluster");
  return { certificatePem: certificate, rootsPem: root, managers: [...(managerAddrs ?? []), address] };
}

function enter(folder: IdentityFolder, settings: SwarmSettings, privateKeyPem: string, answer: Answer): SwarmIdentity {
  const { certificatePem, rootsPem } = answer;
  const { nodeId, clusterId } = readCertificate(certificatePem).identity;
  const managers = [...new Set(answer.managers)].map((addr) => ({ nodeId: "", addr }));
  const state: State = { format: 1, nodeId, clusterId, settings, managers };
  const material = { certificatePem, privateKeyPem, rootsPem };
  // In memory first: what does not fit together must not be on disk.
  const identity = new SwarmIdentity(folder, material, state, undefined);
  folder.wipe();
  folder.writeNew(material, undefined);
  folder.writeState(state);
  return identity;
}
