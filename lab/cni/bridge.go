// Package cni plans what is inside a node: how its pods are plugged in, and
// which addresses they get. The plans are pure; an IPAM remembers in memory
// which addresses are taken.
package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"podlab/lab"
	"podlab/lab/plan"
)

// PodLink is a pod's interface, as the pod calls it.
const PodLink = "eth0"

// bridgeName is the node's pod bridge in the flavour "bridge".
const bridgeName = "cni0"

// Pod is a pod to be plugged in.
type Pod struct {
	Node lab.NodeSpec
	// NS is the pod's network namespace; Netns its name on the node.
	NS    lab.NamespaceID
	Netns string
	// HostLink is the name of the node's end of the pod's link, see HostLinkName.
	HostLink string
	// Addrs are in the node's pod ranges, at most one for each family.
	Addrs []netip.Addr
}

// HostLinkName is the name of the node's end of the link of the pod with this
// key: the same key, the same name.
func HostLinkName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "veth" + hex.EncodeToString(sum[:4])
}

// Bridge is the flavour "bridge": the node has a bridge that is its pods'
// gateway, and every pod a veth pair whose host end is a port of it.
type Bridge struct {
	// MTU of the pods' links in bytes.
	MTU int
}

// Node makes the bridge with the first address of each of the node's pod
// ranges.
func (b Bridge) Node(_ lab.Spec, node lab.NodeSpec) []plan.Op {
	if len(node.PodCIDRs) == 0 {
		return nil
	}
	ops := []plan.Op{plan.AddBridge{Name: bridgeName, MTU: b.MTU, MAC: plan.MAC(Gateway(node.PodCIDRs[0]))}}
	for _, cidr := range node.PodCIDRs {
		ops = append(ops, plan.AddAddr{Dev: bridgeName, Prefix: netip.PrefixFrom(Gateway(cidr), cidr.Bits())})
	}
	return ops
}

// Birth is done in a pod's namespace while it is still empty and belongs to
// no pod: it asks nobody for IPv6 addresses, and talks to itself.
func (Bridge) Birth() ([]plan.Sysctl, []plan.Op) {
	return []plan.Sysctl{
		{Key: "net.ipv6.conf.default.accept_ra", Value: "0", Was: "1"},
		{Key: "net.ipv6.conf.default.accept_dad", Value: "0", Was: "1"},
	}, []plan.Op{plan.LinkUp{Name: "lo"}}
}

// Interface plugs the pod in: its link, the link's addresses.
func (b Bridge) Interface(p Pod) []plan.Step {
	node := plan.NodeID(p.Node.Name)
	var mac string
	if len(p.Addrs) > 0 {
		mac = plan.MAC(p.Addrs[0])
	}
	steps := []plan.Step{
		{NS: node, Op: plan.AddVeth{
			Name: p.HostLink, MTU: b.MTU, Master: bridgeName,
			Peer: plan.VethPeer{Name: PodLink, MAC: mac, NS: p.NS, Netns: p.Netns},
		}},
		{NS: node, Op: plan.Hairpin{Port: p.HostLink, On: true}},
		{NS: p.NS, Op: plan.LinkUp{Name: PodLink}},
	}
	for _, addr := range p.Addrs {
		if cidr, ok := rangeOf(p.Node, addr); ok {
			steps = append(steps, plan.Step{NS: p.NS, Op: plan.AddAddr{Dev: PodLink, Prefix: netip.PrefixFrom(addr, cidr.Bits())}})
		}
	}
	return steps
}

// Routes sends what is not for the pod's own range to the node.
func (Bridge) Routes(p Pod) []plan.Step {
	var steps []plan.Step
	for _, addr := range p.Addrs {
		cidr, ok := rangeOf(p.Node, addr)
		if !ok {
			continue
		}
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if addr.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		steps = append(steps, plan.Step{NS: p.NS, Op: plan.AddRoute{Dst: all, Via: Gateway(cidr), Dev: PodLink}})
	}
	return steps
}

// Gateway is the first address of a node's pod range.
func Gateway(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

// rangeOf is the node's pod range that has addr.
func rangeOf(node lab.NodeSpec, addr netip.Addr) (netip.Prefix, bool) {
	for _, cidr := range node.PodCIDRs {
		if cidr.Contains(addr) {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}
