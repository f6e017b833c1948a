package lab

import (
	_ "embed"
	"net/netip"
)

// DefaultPods are the Kubernetes manifests of the default lab: pod-a and pod-c
// on node1, pod-b on node2.
//
//go:embed default.yaml
var DefaultPods string

// APIVersion and Kind of the manifest that describes a lab's nodes and
// networks. Pods and everything else of Kubernetes are ordinary Kubernetes
// manifests beside it.
const (
	APIVersion = "podlab.io/v1"
	KindLab    = "Lab"
)

// Lab is the wanted shape of a lab: `kind: Lab`.
type Lab struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names a lab.
type Metadata struct {
	Name string `json:"name"`
}

// Spec is what is wanted of a lab's network.
type Spec struct {
	// Nodes are the lab's machines, at least one.
	Nodes []NodeSpec `json:"nodes"`
	// Underlay is the lab's "physical" network that the nodes' eth0 are in.
	Underlay UnderlaySpec `json:"underlay"`
	// CNI is the flavour of pod networking in a node: "bridge".
	CNI string `json:"cni"`
	// Overlay carries pod traffic between nodes.
	Overlay OverlaySpec `json:"overlay"`
	// ClusterDomain is the DNS domain of the cluster, "cluster.local".
	ClusterDomain string `json:"clusterDomain"`
	// ServiceCIDRs are the ranges of Service addresses, one for each family.
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs"`
}

// NodeSpec is one wanted node.
type NodeSpec struct {
	Name string `json:"name"`
	// Addresses of eth0, in the underlay's ranges, at most one for each family.
	Addresses []netip.Addr `json:"addresses"`
	// PodCIDRs are the ranges of the node's pods, at most one for each family.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
}

// UnderlaySpec is the network between the nodes.
type UnderlaySpec struct {
	// CIDRs are its ranges, at most one for each family.
	CIDRs []netip.Prefix `json:"cidrs"`
	// MTU in bytes; 0 means 1500.
	MTU int `json:"mtu,omitempty"`
}

// OverlaySpec is the tunnel between the nodes.
type OverlaySpec struct {
	// Kind is "vxlan", or "none" where the nodes route pods' ranges directly.
	Kind string `json:"kind"`
	// VNI is the VXLAN network identifier, 1 to 16777215 (RFC 7348 §5).
	VNI uint32 `json:"vni,omitempty"`
	// Port is the UDP port, 4789 by default (RFC 7348 §8).
	Port uint16 `json:"port,omitempty"`
}

// DefaultLab is the course's own picture: two nodes, dual stack, bridge CNI,
// unicast VXLAN.
func DefaultLab() Lab {
	return Lab{
		APIVersion: APIVersion, Kind: KindLab,
		Metadata: Metadata{Name: "default"},
		Spec: Spec{
			Nodes: []NodeSpec{
				{
					Name:      "node1",
					Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fd00:192:168:1::10")},
					PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
				},
				{
					Name:      "node2",
					Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.11"), netip.MustParseAddr("fd00:192:168:1::11")},
					PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:10:244:2::/64")},
				},
			},
			Underlay:      UnderlaySpec{CIDRs: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd00:192:168:1::/64")}, MTU: 1500},
			CNI:           "bridge",
			Overlay:       OverlaySpec{Kind: "vxlan", VNI: 1, Port: 4789},
			ClusterDomain: "cluster.local",
			ServiceCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10:96::/112")},
		},
	}
}
