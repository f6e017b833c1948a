// A small lab for the tests:
//
//	node1 [pod-a]──cni0  vxlan.1 ~~~ vxlan.1  cni0──[pod-b] node2
//	       eth0 ─────────── underlay ─────────── eth0
import type { Event, Link, Namespace, Pod, State } from "../src/gen/lab.ts";
import type { StreamMessage } from "../src/gen/view.ts";

export const link = (index: number, name: string, kind: string, more: Partial<Link> = {}): Link => ({ index, name, kind, mtu: 1500, up: true, running: true, addrs: [], ...more });

const global = (prefix: string) => [{ prefix, scope: "global" }];

export function namespace(id: string, kind: Namespace["kind"], links: Link[], more: Partial<Namespace> = {}): Namespace {
  return { id, kind, name: id.split("/").pop()!, inode: 1000 + id.length, links, routes: [], neighbours: [], fdb: [], ...more };
}

export function pod(name: string, node: string, ip: string, more: Partial<Pod> = {}): Pod {
  return {
    namespace: "default",
    name,
    uid: name,
    node,
    phase: "Running",
    status: "Running",
    ready: true,
    ips: [ip],
    netns: `pod/default/${name}`,
    containers: [{ name: "app", image: "netshoot", state: "running", ready: true, restarts: 0 }],
    createdAt: "2026-01-01T00:00:00Z",
    ...more,
  };
}

function node(i: number): Namespace {
  const route = (dst: string, dev: string) => ({ dst, gateway: "", dev, src: "", table: 254, protocol: "kernel", scope: "link", type: "unicast" });
  const local = `192.168.1.1${i - 1}`;
  return namespace(
    `node/node${i}`,
    "node",
    [
      link(1, "lo", "loopback"),
      link(2, "eth0", "veth", { addrs: global(`${local}/24`), peer: { namespace: "underlay", index: 9 + i } }),
      link(3, "cni0", "bridge", { addrs: global(`10.244.${i}.1/24`) }),
      link(4, "vxlan.1", "vxlan", { vxlan: { vni: 1, port: 4789, local } }),
      link(5, `veth${i}`, "veth", { master: 3, peer: { namespace: `pod/default/pod-${i === 1 ? "a" : "b"}`, index: 2 } }),
    ],
    {
      node: `node${i}`,
      routes: [route(`10.244.${i}.0/24`, "cni0"), route(`10.244.${3 - i}.0/24`, "vxlan.1"), route("192.168.1.0/24", "eth0")],
      fdb: [{ mac: "0a:00:00:00:00:01", dev: "vxlan.1", dst: `192.168.1.1${2 - i}`, state: "permanent" }],
    },
  );
}

const podNS = (name: string, i: number) =>
  namespace(`pod/default/${name}`, "pod", [link(1, "lo", "loopback"), link(2, "eth0", "veth", { addrs: global(`10.244.${i}.10/24`), peer: { namespace: `node/node${i}`, index: 5 } })], { node: `node${i}` });

export function state(seq = 10): State {
  return {
    seq,
    spec: { nodes: [], underlay: { cidrs: ["192.168.1.0/24"] }, cni: "bridge", overlay: { kind: "vxlan" }, clusterDomain: "cluster.local", serviceCIDRs: [] },
    phase: "ready",
    namespaces: [
      namespace("underlay", "underlay", [link(2, "underlay", "bridge"), link(10, "to-node1", "veth", { master: 2 }), link(11, "to-node2", "veth", { master: 2 })]),
      node(1),
      node(2),
      podNS("pod-a", 1),
      podNS("pod-b", 2),
    ],
    pods: [pod("pod-a", "node1", "10.244.1.10"), pod("pod-b", "node2", "10.244.2.10")],
  };
}

export const hello = (instance = 1): StreamMessage => ({ type: "hello", hello: { version: "1", now: "2026-01-01T00:00:00Z", lab: { phase: "ready", instance } } });
export const snapshot = (s: State = state()): StreamMessage => ({ type: "snapshot", snapshot: s });
export const event = (seq: number, part: Partial<Event> & Pick<Event, "kind">): StreamMessage => ({ type: "event", event: { seq, time: "2026-01-01T00:00:01Z", ...part } });
