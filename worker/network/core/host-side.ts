/**
 * The host's namespace as a part of the model: this node and its peers, the mesh, and of each sandbox the veths that end
 * here and the ports that lead to it. It is made anew when the node itself changes; what must outlive that (which ports
 * this node may take, the local networks) is with its owner, `HostSide`.
 */
import { bridgeObjects, type BridgeNetwork } from "./bridges.ts";
import { addressOf, parseCidr } from "./cidr.ts";
import { isV6, parseCidr6, subnetText6 } from "./cidr6.ts";
import { gatewayOf, hostObjects, ownGateway, peerObjects } from "./host.ts";
import { bridgeObjects6, element6 } from "./host6.ts";
import { defaultBridgeName } from "./local-network.ts";
import { IngressMesh } from "./mesh.ts";
import { nodeOfGateway } from "../../../lib/pure/node-number.ts";
import type { ForgottenConnections } from "./namespace.ts";
import type { NetObject } from "./objects.ts";
import type { BridgeEndpoint, MakePart, Part, Placement, SandboxFacts, Self } from "./part.ts";
import { subnetText } from "./pools.ts";
import type { EndpointRecord, PeerRecord, ServiceRecord } from "./records.ts";
import { tunnelObjects } from "./tunnel.ts";
import type { TunnelKey } from "./tunnel-key.ts";
import { routedVeth, type RoutedVeth } from "./routed-veth.ts";
import { boundElements, connectionsOf, portElement, slotElement, SlotChains, type PortKey } from "./slots.ts";
import { macOfAddress } from "./cidr.ts";

/** Outer Ethernet, IPv4, UDP and VXLAN headers. */
const vxlanOverheadBytes = 50;
const linkMtu = 1500;
const hostPath = "";
const insideGroup = "host side";

export interface HostSideOptions {
  /** UDP port of VXLAN. */
  readonly dataPort: number;
  /** Whether IPv6 that is not ours is routed between foreign links, as it was before we came. */
  readonly forwardsForOthers6: boolean;
  /** As of now; a network is there before its first sandbox. */
  readonly bridge: (networkId: string) => BridgeNetwork | undefined;
  /** As of now; undefined: an encrypted mesh is closed here. */
  readonly tunnelKey: () => TunnelKey | undefined;
  /** As it was in the life before: so it is until services are told. */
  readonly wasMeshEncrypted: boolean;
}

/** Owns the part through its lives. */
export class HostSide {
  readonly #options: HostSideOptions;
  #open: ReadonlySet<string> = new Set();
  #forwardsForOthers = true;
  #isTold = false;
  #part: HostPart | undefined;

  constructor(options: HostSideOptions) {
    this.#options = options;
  }

  readonly make: MakePart = (self, placement) => {
    const { wasMeshEncrypted } = this.#options;
    this.#part = new HostPart(self, placement, {
      ...this.#options,
      forwardsForOthers: this.#forwardsForOthers,
      wasMeshEncrypted: wasMeshEncrypted && !this.#isTold,
    });
    this.#part.setOpen(this.#open);
    return this.#part;
  };

  /** Of this node; 0: in no swarm. */
  get number(): number {
    return this.#part?.number ?? 0;
  }

  /** Where this node's VXLAN frames come and go; empty: in no swarm. */
  get underlay(): string {
    return this.#part?.underlay ?? "";
  }

  /** Ports of the mesh that this node should take. */
  wantedPorts(): readonly PortKey[] {
    return this.#part?.wantedPorts() ?? [];
  }

  /** Those that it may take, by `portText`: the others are a process's of the host. */
  setOpen(open: ReadonlySet<string>): void {
    this.#open = open;
    this.#part?.setOpen(open);
  }

  /** This node says with another key from now on. */
  tunnelKeyChanged(): void {
    this.#part?.meshChanged();
  }

  /** All services are known from now on. */
  told(): void {
    this.#isTold = true;
    this.#part?.told();
  }

  get isMeshEncrypted(): boolean {
    return this.#part?.isMeshEncrypted === true;
  }

  /** Whether what is not ours is routed between foreign links. @param forwards  false: it was not before we came */
  setForwardsForOthers(forwards: boolean): void {
    if (forwards === this.#forwardsForOthers) return;
    this.#forwardsForOthers = forwards;
    this.#part?.setForwardsForOthers(forwards);
  }
}

type PartOptions = HostSideOptions & { readonly forwardsForOthers: boolean };

class HostPart implements Part {
  readonly #self: Self;
  readonly #placement: Placement;
  readonly #options: PartOptions;
  readonly #chains: SlotChains;
  readonly #mesh: IngressMesh;
  /** Services of an encrypted mesh, and all nodes, by key: what they want of the mesh depends on the tunnel. */
  readonly #encrypted = new Map<string, ServiceRecord>();
  readonly #peers = new Map<string, PeerRecord>();
  #forwardsForOthers: boolean;
  #wasMeshEncrypted: boolean;
  /** Sandboxes on each local network. */
  readonly #onBridge = new Map<string, Set<string>>();

  constructor(self: Self, placement: Placement, options: PartOptions) {
    this.#self = self;
    this.#placement = placement;
    this.#options = options;
    const groups = {
      set: (group: string, objects: readonly NetObject[]) => placement.set(hostPath, group, objects),
      forget: (connections: ForgottenConnections) => placement.forget(hostPath, connections),
    };
    this.#chains = new SlotChains(groups);
    this.#mesh = new IngressMesh(groups, this.#chains);
    this.#forwardsForOthers = options.forwardsForOthers;
    this.#wasMeshEncrypted = options.wasMeshEncrypted;
    this.#host();
  }

  setForwardsForOthers(forwardsForOthers: boolean): void {
    this.#forwardsForOthers = forwardsForOthers;
    this.#host();
  }

  #host(): void {
    const { number, addr, underlayMtu } = this.#self;
    const { dataPort, tunnelKey } = this.#options;
    const mtu = underlayMtu - vxlanOverheadBytes;
    const forwardsForOthers = this.#forwardsForOthers;
    const mesh = this.#meshState;
    const key = tunnelKey();
    this.#set("host", hostObjects({ number, underlay: addr, dataPort, mtu, mesh, forwardsForOthers }));
    this.#set("mesh tunnel", mesh === "tunnel" && key !== undefined ? tunnelObjects(this.#self, key) : []);
  }

  get isMeshEncrypted(): boolean {
    return this.#encrypted.size > 0 || this.#wasMeshEncrypted;
  }

  told(): void {
    if (!this.#wasMeshEncrypted) return;
    this.#wasMeshEncrypted = false;
    if (this.#encrypted.size === 0) this.meshChanged();
  }

  get #meshState(): "open" | "tunnel" | "closed" {
    if (!this.isMeshEncrypted) return "open";
    return this.#self.number === 0 || this.#options.tunnelKey() === undefined ? "closed" : "tunnel";
  }

  /** It is encrypted from now on, or is not any more; or the tunnel that it needs has come or gone. */
  meshChanged(): void {
    this.#host();
    for (const key of this.#peers.keys()) this.#peer(key);
    const isClosed = this.#meshState === "closed";
    for (const [id, record] of this.#encrypted) this.#mesh.setService(id, isClosed ? undefined : record);
  }

  get number(): number {
    return this.#self.number;
  }

  get underlay(): string {
    return this.#self.addr;
  }

  wantedPorts(): readonly PortKey[] {
    return this.#mesh.wantedPorts();
  }

  setOpen(open: ReadonlySet<string>): void {
    this.#mesh.setOpen(open);
  }

  #set(group: string, objects: readonly NetObject[]): void {
    this.#placement.set(hostPath, group, objects);
  }

  peer(key: string, after: PeerRecord | undefined): void {
    if (after === undefined) this.#peers.delete(key);
    else this.#peers.set(key, after);
    this.#peer(key);
  }

  #peer(key: string): void {
    const peer = this.#peers.get(key);
    const { number } = this.#self;
    this.#set(`peer ${key}`, peer === undefined || number === 0 ? [] : peerObjects(peer, number, this.#meshState));
  }

  endpoint(key: string, after: EndpointRecord | undefined, before: EndpointRecord | undefined): void {
    // Endpoints of the ingress network have no address in it.
    if ((after ?? before)?.addresses.length === 0) this.#mesh.setEndpoint(key, after);
  }

  service(_key: string, after: ServiceRecord | undefined, before: ServiceRecord | undefined): void {
    // Only the ingress network's have ports.
    const ports = (after?.ports.length ?? 0) + (before?.ports.length ?? 0);
    const serviceId = (after ?? before)?.serviceId ?? "";
    if (ports === 0) return;
    const was = this.isMeshEncrypted;
    if (after?.encrypted === true && after.ports.length > 0) this.#encrypted.set(serviceId, after);
    else this.#encrypted.delete(serviceId);
    // The way is there before anything is led to it.
    if (was !== this.isMeshEncrypted) this.meshChanged();
    const isClosed = after?.encrypted === true && this.#meshState === "closed";
    this.#mesh.setService(serviceId, isClosed ? undefined : after);
  }

  sandbox(id: string, after: SandboxFacts | undefined, before: SandboxFacts | undefined): void {
    for (const { wish } of before?.bridges ?? []) this.#leaveBridge(wish.networkId, id, after);
    for (const { wish } of after?.bridges ?? []) this.#joinBridge(wish.networkId, id);
    const veths = after === undefined ? [] : this.#veths(after);
    this.#set(
      `sandbox ${id}`,
      veths.flatMap((veth) => routedVeth(veth).host),
    );
    const namespacePath = (after ?? before)?.namespacePath;
    if (namespacePath !== undefined) {
      this.#placement.set(
        namespacePath,
        insideGroup,
        veths.flatMap((veth) => routedVeth(veth).inside),
      );
    }
    this.#ports(id, after);
    for (const address of addressesOf(before)) {
      if (!addressesOf(after).includes(address)) this.#placement.forget(hostPath, connectionsOf(address));
    }
  }

  #joinBridge(networkId: string, sandboxId: string): void {
    const sandboxes = this.#onBridge.get(networkId);
    if (sandboxes !== undefined) {
      sandboxes.add(sandboxId);
      return;
    }
    const network = this.#options.bridge(networkId);
    if (network === undefined) return;
    this.#onBridge.set(networkId, new Set([sandboxId]));
    this.#set(`network ${networkId}`, [
      ...bridgeObjects(network),
      ...bridgeObjects6(network, this.#options.forwardsForOthers6),
    ]);
  }

  #leaveBridge(networkId: string, sandboxId: string, after: SandboxFacts | undefined): void {
    if (after?.bridges.some(({ wish }) => wish.networkId === networkId) === true) return;
    const sandboxes = this.#onBridge.get(networkId);
    sandboxes?.delete(sandboxId);
    if (sandboxes?.size !== 0) return;
    this.#onBridge.delete(networkId);
    this.#set(`network ${networkId}`, []);
  }

  #veths(facts: SandboxFacts): RoutedVeth[] {
    const { id, namespacePath: namespace, gatewayAddress } = facts;
    const veths: RoutedVeth[] = [];
    const isTold = isToldNames(facts, this.#options.bridge);
    if (gatewayAddress !== "") {
      const inSwarm = nodeOfGateway(gatewayAddress) !== undefined;
      veths.push({
        sandboxId: id,
        namespace,
        interfaceName: "gw0",
        kind: "gateway",
        address: gatewayAddress,
        subnet: "",
        gateway: inSwarm ? gatewayOf(this.#self.number) : ownGateway,
        mac: macOfAddress(gatewayAddress),
        mtu: inSwarm ? this.#self.underlayMtu - vxlanOverheadBytes : linkMtu,
        // Also for one that is isolated: answers to who came through the mesh go this way, and nothing else may.
        isDefaultRoute: true,
        leadsToHost: false,
        leadsToResolver: isTold,
        isIsolated: facts.internal,
      });
    }
    const outward = facts.bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    for (const [at, endpoint] of facts.bridges.entries()) {
      const isDefaultRoute = gatewayAddress === "" && endpoint === outward;
      const leadsToHost = gatewayAddress === "" && outward === undefined && at === 0;
      const leadsToResolver = isTold && (isDefaultRoute || leadsToHost);
      const veth = this.#bridgeVeth(facts, endpoint, { isDefaultRoute, leadsToHost, leadsToResolver });
      if (veth !== undefined) veths.push(veth);
    }
    return veths;
  }

  #bridgeVeth(
    facts: SandboxFacts,
    endpoint: BridgeEndpoint,
    routes: Pick<RoutedVeth, "isDefaultRoute" | "leadsToHost" | "leadsToResolver">,
  ): RoutedVeth | undefined {
    const network = this.#options.bridge(endpoint.wish.networkId);
    const cidr = parseCidr(endpoint.address);
    if (network === undefined || cidr === undefined) return undefined;
    return {
      sandboxId: facts.id,
      namespace: facts.namespacePath,
      interfaceName: endpoint.interfaceName,
      kind: "local",
      address: cidr.address,
      subnet: subnetText(cidr),
      gateway: endpoint.gateway,
      ...v6Of(endpoint),
      mac: endpoint.macAddress,
      mtu: network.mtu === 0 ? linkMtu : network.mtu,
      ...routes,
      isIsolated: network.internal,
    };
  }

  #ports(id: string, facts: SandboxFacts | undefined): void {
    const target = facts === undefined ? "" : this.#targetOf(facts);
    const ports = target === "" ? [] : (facts?.ports ?? []);
    for (const { protocol } of ports) this.#chains.use(protocol, 1);
    const outward6 = facts?.bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    const target6 = parseCidr6(outward6?.address6 ?? "")?.address ?? "";
    this.#set(
      `ports ${id}`,
      ports.flatMap(({ protocol, publishedPort, targetPort, hostAddress }) => {
        const key: PortKey = { protocol, port: publishedPort };
        if (isV6(hostAddress)) {
          const to =
            target6 === "" ? [] : [element6(`${protocol}to`, [String(publishedPort)], [target6, String(targetPort)])];
          return to;
        }
        if (hostAddress !== "") return boundElements(hostAddress, key, target, targetPort);
        return [slotElement(key, 0, target, targetPort), portElement(key, 1)];
      }),
    );
  }

  /** Where its ports lead: gw0, or the first network that is open to the outside. Empty: nowhere. */
  #targetOf({ gatewayAddress, internal, bridges }: SandboxFacts): string {
    if (gatewayAddress !== "") return internal ? "" : gatewayAddress;
    const outward = bridges.find(({ wish }) => this.#options.bridge(wish.networkId)?.internal === false);
    return outward === undefined ? "" : (addressOf(outward.address) ?? "");
  }
}

function v6Of({ address6, gateway6 }: BridgeEndpoint): Pick<RoutedVeth, "v6"> {
  const cidr = parseCidr6(address6 ?? "");
  if (cidr === undefined || gateway6 === undefined) return {};
  return { v6: { address: cidr.address, subnet: subnetText6(cidr), gateway: gateway6 } };
}

/** The node answers for names of overlays and of networks that users make; the network `bridge` never had names. */
export function isToldNames(
  { overlays, bridges }: Pick<SandboxFacts, "overlays" | "bridges">,
  bridge: HostSideOptions["bridge"],
): boolean {
  return overlays.length > 0 || bridges.some(({ wish }) => bridge(wish.networkId)?.name !== defaultBridgeName);
}

/** At which the host answers for it. */
function addressesOf(facts: SandboxFacts | undefined): string[] {
  if (facts === undefined) return [];
  const local = facts.bridges.flatMap(({ address, address6 }) => [
    addressOf(address) ?? "",
    parseCidr6(address6 ?? "")?.address ?? "",
  ]);
  return [facts.gatewayAddress, ...local].filter((address) => address !== "");
}
