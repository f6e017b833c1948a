package lab

import (
	"net/netip"
	"time"
)

// State is what a lab's kernel and API have, as of event number Seq. A page
// starts from a State and applies the events after Seq.
type State struct {
	// Seq is the number of the last event that the state contains.
	Seq uint64 `json:"seq"`
	// Spec is the wanted shape, as applied.
	Spec Spec `json:"spec"`
	// Phase of the lab as its agent sees it.
	Phase Phase `json:"phase"`
	// Reason says why the phase is what it is, when failed.
	Reason string `json:"reason,omitempty"`
	// Namespaces are the network namespaces of the lab, the underlay first,
	// then nodes, pods and those made by hand.
	Namespaces []Namespace `json:"namespaces"`
	// Pods as the lab's Kubernetes API has them, ordered by namespace and name.
	Pods []Pod `json:"pods"`
}

// Phase of a lab.
type Phase string

// The phases of a lab.
const (
	PhaseCreating Phase = "creating"
	PhaseReady    Phase = "ready"    // default pods are ready
	PhaseFailed   Phase = "failed"   // the agent is gone; see the reason
	PhaseDeleting Phase = "deleting" // only the server says this
)

// NamespaceKind says what a network namespace is to the lab.
type NamespaceKind string

// The kinds of network namespaces.
const (
	NamespaceUnderlay NamespaceKind = "underlay"
	NamespaceNode     NamespaceKind = "node"
	NamespacePod      NamespaceKind = "pod"
	NamespaceByHand   NamespaceKind = "netns" // made by a learner with `ip netns add`
)

// NamespaceID names a network namespace for as long as it lives: "underlay",
// "node/node1", "pod/default/pod-a", "netns/node1/blue".
type NamespaceID string

// Namespace is a network namespace and what is in it.
type Namespace struct {
	ID   NamespaceID   `json:"id"`
	Kind NamespaceKind `json:"kind"`
	// Name for people: "node1", "pod-a", "blue".
	Name string `json:"name"`
	// Node that the namespace is on; empty for the underlay.
	Node string `json:"node,omitempty"`
	// Inode number of the namespace, as in /proc/PID/ns/net.
	Inode uint64 `json:"inode"`
	// Links ordered by index; routes and neighbours in the kernel's order.
	Links      []Link     `json:"links"`
	Routes     []Route    `json:"routes"`
	Neighbours []Neigh    `json:"neighbours"`
	FDB        []FDBEntry `json:"fdb"`
}

// Link is a network interface, as in `ip -d link` and `ip addr`.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Kind as iproute2 names it: "veth", "bridge", "vxlan", "loopback", "macvlan", "tun".
	Kind string `json:"kind"`
	MAC  string `json:"mac,omitempty"`
	// MTU in bytes.
	MTU int `json:"mtu"`
	// Up is the administrative state (IFF_UP), Running the operational one (IFF_RUNNING).
	Up      bool `json:"up"`
	Running bool `json:"running"`
	// Master is the index of the bridge that the link is a port of, or 0.
	Master int `json:"master,omitempty"`
	// Peer is the other end of a veth pair, where it is known.
	Peer  *LinkRef `json:"peer,omitempty"`
	Addrs []Addr   `json:"addrs"`
	VXLAN *VXLAN   `json:"vxlan,omitempty"`
}

// Addr is one address of a link.
type Addr struct {
	Prefix netip.Prefix `json:"prefix"`
	// Scope as iproute2 prints it: "global", "link", "host".
	Scope string `json:"scope"`
}

// LinkRef names a link anywhere in the lab.
type LinkRef struct {
	Namespace NamespaceID `json:"namespace"`
	Index     int         `json:"index"`
}

// VXLAN is what `ip -d link` prints of a VXLAN device.
type VXLAN struct {
	VNI   uint32     `json:"vni"`
	Port  uint16     `json:"port"`
	Local netip.Addr `json:"local"`
}

// Route is one line of `ip route` or `ip -6 route`.
type Route struct {
	// Dst is the destination; 0.0.0.0/0 and ::/0 are the default routes.
	Dst netip.Prefix `json:"dst"`
	// Gateway is the next hop; the zero Addr for an on-link route.
	Gateway netip.Addr `json:"gateway"`
	// Dev is the name of the outgoing link, empty for a blackhole and the like.
	Dev   string     `json:"dev,omitempty"`
	Src   netip.Addr `json:"src"`
	Table int        `json:"table"`
	// Protocol and Scope and Type as iproute2 names them: "kernel", "static",
	// "boot"; "link", "global"; "unicast", "blackhole", "unreachable".
	Protocol string `json:"protocol"`
	Scope    string `json:"scope"`
	Type     string `json:"type"`
	Metric   int    `json:"metric,omitempty"`
	// OnLink is RTNH_F_ONLINK: the gateway is taken as reachable on Dev.
	OnLink bool `json:"onlink,omitempty"`
}

// Neigh is one line of `ip neigh`.
type Neigh struct {
	Addr netip.Addr `json:"addr"`
	Dev  string     `json:"dev"`
	MAC  string     `json:"mac,omitempty"`
	// State as iproute2 prints it: "REACHABLE", "STALE", "PERMANENT", "FAILED", …
	State string `json:"state"`
}

// FDBEntry is one line of `bridge fdb`.
type FDBEntry struct {
	MAC string `json:"mac"`
	Dev string `json:"dev"`
	// Master is the bridge's name, empty for the device's own entries ("self").
	Master string `json:"master,omitempty"`
	// Dst is the VTEP that a VXLAN device sends this MAC to; else the zero Addr.
	Dst netip.Addr `json:"dst"`
	// State is "permanent", "reachable" or "stale".
	State string `json:"state"`
}

// Pod is a pod as the browser and the checks need it; the whole object is at
// the lab's Kubernetes API.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Node      string `json:"node,omitempty"`
	// Phase is the Kubernetes phase; Status is kubectl's STATUS column, such as
	// "Running", "ContainerCreating", "ErrImagePull", "Terminating".
	Phase  string       `json:"phase"`
	Status string       `json:"status"`
	Ready  bool         `json:"ready"`
	IPs    []netip.Addr `json:"ips"`
	// NetNS is the pod's network namespace, empty until it is made.
	NetNS      NamespaceID       `json:"netns,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Containers []Container       `json:"containers"`
	CreatedAt  time.Time         `json:"createdAt"`
}

// Container is one container of a pod.
type Container struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	// State is "waiting", "running" or "terminated"; Reason as in Kubernetes.
	State    string  `json:"state"`
	Reason   string  `json:"reason,omitempty"`
	Message  string  `json:"message,omitempty"`
	Ready    bool    `json:"ready"`
	Restarts int     `json:"restarts"`
	Init     bool    `json:"init,omitempty"`
	Ports    []int32 `json:"ports,omitempty"`
	// ExitCode of the last run, when terminated.
	ExitCode *int32 `json:"exitCode,omitempty"`
}
