package fabric

import (
	"fmt"
	"net/netip"

	"podlab/lab"
	"podlab/lab/plan"
)

// Sizes of what VXLAN puts before a packet: outer IP, UDP, VXLAN and the inner
// Ethernet header, in bytes (RFC 7348 §5).
const (
	overheadIPv4 = 20 + 8 + 8 + 14
	overheadIPv6 = 40 + 8 + 8 + 14
)

// defaultPort is VXLAN's UDP port (RFC 7348 §8).
const defaultPort = 4789

// VXLAN joins the nodes by one VXLAN device each. Nothing is learned or
// flooded: every node knows, for every other node, the route to its pods, the
// MAC address of its device and the node address to send to, as flannel
// arranges it.
type VXLAN struct{}

// PodMTU is the underlay's MTU less the tunnel's headers.
func (VXLAN) PodMTU(spec lab.Spec) int {
	if len(spec.Nodes) > 0 {
		if vtep, ok := vtepOf(spec.Nodes[0]); ok && vtep.Is6() {
			return mtu(spec) - overheadIPv6
		}
	}
	return mtu(spec) - overheadIPv4
}

// DeviceName is the name of the VXLAN device of a VNI.
func DeviceName(vni uint32) string { return fmt.Sprintf("vxlan.%d", vni) }

// Node makes the node's device, its addresses (the network address of each of
// the node's pod ranges) and what it has to know of the other nodes.
func (v VXLAN) Node(spec lab.Spec, node lab.NodeSpec) []plan.Op {
	local, ok := vtepOf(node)
	if !ok {
		return nil
	}
	dev := DeviceName(spec.Overlay.VNI)
	port := spec.Overlay.Port
	if port == 0 {
		port = defaultPort
	}
	ops := []plan.Op{plan.AddVXLAN{
		Name: dev, VNI: spec.Overlay.VNI, Local: local, Port: port,
		Dev: Uplink, MTU: v.PodMTU(spec), MAC: deviceMAC(node),
	}}
	for _, cidr := range node.PodCIDRs {
		ops = append(ops, plan.AddAddr{Dev: dev, Prefix: hostPrefix(cidr)})
	}
	for _, other := range others(spec, node) {
		ops = append(ops, reach(dev, other)...)
	}
	return ops
}

// reach is what a node has to know to send to the pods of another: the tunnel
// end point of the other's device, and for each pod range the route and who
// its next hop is.
func reach(dev string, other lab.NodeSpec) []plan.Op {
	vtep, ok := vtepOf(other)
	if !ok {
		return nil
	}
	mac := deviceMAC(other)
	ops := []plan.Op{plan.AddFDB{MAC: mac, Dev: dev, Dst: vtep}}
	for _, cidr := range other.PodCIDRs {
		via := cidr.Masked().Addr()
		ops = append(ops,
			plan.AddNeigh{Addr: via, MAC: mac, Dev: dev},
			plan.AddRoute{Dst: cidr, Via: via, Dev: dev, OnLink: true})
	}
	return ops
}

// vtepOf is the node's tunnel end point: its IPv4 address, else its first.
func vtepOf(node lab.NodeSpec) (netip.Addr, bool) {
	for _, a := range node.Addresses {
		if a.Is4() {
			return a, true
		}
	}
	if len(node.Addresses) > 0 {
		return node.Addresses[0], true
	}
	return netip.Addr{}, false
}

// deviceMAC is the MAC address of the node's VXLAN device.
func deviceMAC(node lab.NodeSpec) string {
	if len(node.PodCIDRs) == 0 {
		return ""
	}
	return plan.MAC(node.PodCIDRs[0].Masked().Addr())
}

// hostPrefix is a range's network address alone.
func hostPrefix(cidr netip.Prefix) netip.Prefix {
	a := cidr.Masked().Addr()
	return netip.PrefixFrom(a, a.BitLen())
}
