// Package fabric plans what is between a lab's nodes: the underlay that their
// eth0 are in, and the overlay that carries pods' packets from node to node.
// It is pure: from what is wanted to Ops.
package fabric

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"

	"podlab/lab"
	"podlab/lab/plan"
)

// Bridge is the underlay's switch.
const Bridge = "underlay"

// Uplink is a node's link to the underlay, as the node calls it.
const Uplink = "eth0"

// linkNameLen is the most bytes in a link's name: IFNAMSIZ less the NUL, netdevice(7).
const linkNameLen = 15

// defaultMTU of the underlay, in bytes.
const defaultMTU = 1500

// Wire is one switched network for all nodes: a bridge.
type Wire struct{}

// Underlay makes the switch. The switch's own namespace has no part in the
// traffic, so it has no addresses, IPv6 link-local ones included.
func (Wire) Underlay(spec lab.Spec) []plan.Op {
	return []plan.Op{
		plan.Sysctl{Key: "net.ipv6.conf.default.disable_ipv6", Value: "1", Was: "0"},
		plan.AddBridge{Name: Bridge, MTU: mtu(spec)},
	}
}

// Birth makes a router of the node that believes what it is told and asks
// nobody: no router solicitations, no duplicate address detection, and the
// same reverse path rule whatever the host's is.
func (Wire) Birth(lab.Spec, lab.NodeSpec) []plan.Op {
	return []plan.Op{
		plan.Sysctl{Key: "net.ipv4.ip_forward", Value: "1", Was: "0"},
		plan.Sysctl{Key: "net.ipv6.conf.all.forwarding", Value: "1", Was: "0"},
		plan.Sysctl{Key: "net.ipv6.conf.default.accept_ra", Value: "0", Was: "1"},
		plan.Sysctl{Key: "net.ipv6.conf.default.accept_dad", Value: "0", Was: "1"},
		plan.Sysctl{Key: "net.ipv4.conf.all.rp_filter", Value: "0", Was: "0"},
		plan.Sysctl{Key: "net.ipv4.conf.default.rp_filter", Value: "0", Was: "0"},
	}
}

// Uplink plugs the node into the switch; the node's end is born in the node.
func (Wire) Uplink(spec lab.Spec, node lab.NodeSpec) []plan.Op {
	return []plan.Op{plan.AddVeth{
		Name: portName(node.Name), MTU: mtu(spec), Master: Bridge,
		Peer: plan.VethPeer{Name: Uplink, MAC: uplinkMAC(node), NS: plan.NodeID(node.Name), Netns: node.Name},
	}}
}

// Node gives the node its addresses.
func (Wire) Node(spec lab.Spec, node lab.NodeSpec) []plan.Op {
	ops := []plan.Op{plan.LinkUp{Name: "lo"}, plan.LinkUp{Name: Uplink}}
	for _, addr := range node.Addresses {
		ops = append(ops, plan.AddAddr{Dev: Uplink, Prefix: netip.PrefixFrom(addr, bits(spec, addr))})
	}
	return ops
}

// portName is the node's name where it can be a link's name beside the
// switch's, else a short digest of it.
func portName(node string) string {
	if len(node) <= linkNameLen && node != Bridge && node != "lo" {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return "node-" + hex.EncodeToString(sum[:4])
}

func uplinkMAC(node lab.NodeSpec) string {
	if len(node.Addresses) == 0 {
		return ""
	}
	return plan.MAC(node.Addresses[0])
}

// bits is the length of the underlay's range that has addr, or a host's own
// where none has.
func bits(spec lab.Spec, addr netip.Addr) int {
	for _, cidr := range spec.Underlay.CIDRs {
		if cidr.Contains(addr) {
			return cidr.Bits()
		}
	}
	return addr.BitLen()
}

func mtu(spec lab.Spec) int {
	if spec.Underlay.MTU != 0 {
		return spec.Underlay.MTU
	}
	return defaultMTU
}
