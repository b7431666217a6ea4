/**
 * What the kernel itself asks for the ways of `bench -- net`: the same links, namespaces and routes, made by ip(8) on two
 * hosts that know nothing of skep. No rule, no connection tracking, no address that is rewritten, no check of sources beyond
 * what the hosts have. What ours costs beyond these is ours.
 *   vxlan      from host to host over one VXLAN link each, and nothing else
 *   container  a container of h4, its namespace that routes, VXLAN, the like on h5
 *   entered    from a machine of the switch to a container of h5, which routes
 *   passed     the same through h4 and VXLAN, there and back
 */
import type { NetWorld } from "../conformance/network/world.ts";

const mtu = 1450;
/** h4 and h5 of the world. */
const numbers = [4, 5] as const;
const macOf = (number: number): string => `02:aa:00:00:00:0${number}`;
const routerMac = "02:aa:ff:ff:ff:01";
const containerMac = "02:aa:ff:ff:ff:02";
/** From here what goes through h4 comes, since the way back is chosen by it. */
const farSource = "10.97.0.100";

/** From where, to which address. */
export const bareWays = {
  vxlan: { from: "h4", address: "10.96.0.5" },
  container: { from: "bare4", address: "10.96.5.2" },
  entered: { from: "near", address: "10.96.6.2" },
  passed: { from: "near", address: "10.96.6.3" },
} as const;
/** Where somebody has to listen. */
export const bareServers = ["h5", "bare5"] as const;

/** @param world  with five hosts */
export function buildBare(world: NetWorld): void {
  for (const own of numbers) {
    const other = 9 - own;
    const host = `h${own}`;
    const router = `router${own}`;
    const container = `bare${own}`;
    world.add(router);
    world.add(container);
    for (const name of [router, container]) {
      world.sysctl(name, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0");
      world.sysctl(name, "net.ipv4.ip_early_demux=0");
    }
    world.sysctl(host, "net.ipv4.ip_forward=1");

    const tunnel = (link: string, vni: number): void => {
      const what = `type vxlan id ${vni} local 10.99.0.${own} dstport 4789 nolearning`;
      world.ip(host, `link add ${link} mtu ${mtu} address ${macOf(own)} ${what}`);
    };
    const far = (name: string, link: string, address: string): void => {
      world.ip(name, `link set ${link} up`);
      world.exec(name, [
        "bridge",
        ..."fdb add".split(" "),
        macOf(other),
        "dev",
        link,
        "self",
        "permanent",
        "dst",
        `10.99.0.${other}`,
      ]);
      world.ip(name, `neigh add ${address} lladdr ${macOf(other)} dev ${link} nud permanent`);
    };
    const veth = (from: string, link: string, to: string, inside: string): void => {
      const peer = `type veth peer name ${inside} netns ${world.namespace(to)} address ${containerMac} mtu ${mtu}`;
      world.ip(from, `link add ${link} mtu ${mtu} address ${routerMac} ${peer}`);
      world.ip(from, `link set ${link} up`);
      world.ip(to, `link set ${inside} up`);
    };

    tunnel("bare", 5001);
    world.ip(host, `addr add 10.96.0.${own}/24 dev bare`);
    far(host, "bare", `10.96.0.${other}`);

    tunnel("routed", 5002);
    world.ip(host, `link set routed netns ${world.namespace(router)}`);
    far(router, "routed", `169.254.0.${other}`);
    veth(router, "v", container, "eth0");
    world.ip(router, `neigh add 10.96.${own}.2 lladdr ${containerMac} dev v nud permanent`);
    world.ip(router, `route add 10.96.${own}.2/32 dev v`);
    world.ip(router, `route add 10.96.${other}.2/32 via 169.254.0.${other} dev routed onlink`);
    world.ip(container, `addr add 10.96.${own}.2/32 dev eth0`);
    world.ip(container, `neigh add 10.96.${own}.1 lladdr ${routerMac} dev eth0 nud permanent`);
    world.ip(container, `route add 10.96.${other}.2/32 via 10.96.${own}.1 dev eth0 onlink`);
  }

  // Into the container of h5, by itself and through h4.
  const peer = `type veth peer name gw0 netns ${world.namespace("bare5")} address ${containerMac} mtu ${mtu}`;
  world.ip("h5", `link add g mtu ${mtu} address ${routerMac} ${peer}`);
  world.ip("h5", "link set g up");
  world.ip("bare5", "link set gw0 up");
  world.ip("bare5", `neigh add 10.96.6.1 lladdr ${routerMac} dev gw0 nud permanent`);
  world.ip("bare5", "route add default via 10.96.6.1 dev gw0 onlink");
  for (const { address } of [bareWays.entered, bareWays.passed]) {
    world.ip("bare5", `addr add ${address}/32 dev gw0`);
    world.ip("h5", `neigh add ${address} lladdr ${containerMac} dev g nud permanent`);
    world.ip("h5", `route add ${address}/32 dev g`);
  }
  // Datagrams are answered from the address that they came to.
  const back = `via 10.96.6.1 dev gw0 onlink src ${bareWays.passed.address}`;
  world.ip("bare5", `route add ${farSource}/32 ${back}`);
  world.ip("h4", `route add ${bareWays.passed.address}/32 via 10.96.0.5 dev bare`);
  world.ip("h5", `route add ${farSource}/32 via 10.96.0.4 dev bare`);
  world.ip("h4", `route add ${farSource}/32 via 10.99.0.100`);
  world.ip("near", `addr add ${farSource}/32 dev lo`);
  world.ip("near", `route add ${bareWays.entered.address}/32 via 10.99.0.5`);
  world.ip("near", `route add ${bareWays.passed.address}/32 via 10.99.0.4 src ${farSource}`);
}
