package fabric

import (
	"net/netip"

	"podlab/lab"
	"podlab/lab/plan"
)

// Overlays are the kinds of `spec.overlay.kind`.
var Overlays = map[string]plan.Overlay{
	"vxlan": VXLAN{},
	"none":  None{},
}

// None is no tunnel: a node routes another node's pods to that node's own
// address, which works as long as they are neighbours on the underlay.
type None struct{}

// PodMTU is the underlay's.
func (None) PodMTU(spec lab.Spec) int { return mtu(spec) }

// Node routes each other node's pods.
func (None) Node(spec lab.Spec, node lab.NodeSpec) []plan.Op {
	var ops []plan.Op
	for _, other := range others(spec, node) {
		for _, cidr := range other.PodCIDRs {
			if via, ok := sameFamily(other.Addresses, cidr.Addr()); ok {
				ops = append(ops, plan.AddRoute{Dst: cidr, Via: via, Dev: Uplink})
			}
		}
	}
	return ops
}

// others are all nodes but this one.
func others(spec lab.Spec, node lab.NodeSpec) []lab.NodeSpec {
	var list []lab.NodeSpec
	for _, n := range spec.Nodes {
		if n.Name != node.Name {
			list = append(list, n)
		}
	}
	return list
}

// sameFamily returns the first address of the family of like.
func sameFamily(addrs []netip.Addr, like netip.Addr) (netip.Addr, bool) {
	for _, a := range addrs {
		if a.Is4() == like.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}
