package network_test

import (
	"net/netip"
	"testing"

	"podlab/lab"
	"podlab/lab/plan"
)

// pod-a on node1 and pod-b on node2 reach each other in every shape of a lab.
//
//	pod-a --- cni0 :node1: eth0 --- underlay --- eth0 :node2: cni0 --- pod-b
func TestPrivilegedShapes(t *testing.T) {
	direct := lab.DefaultLab()
	direct.Spec.Overlay = lab.OverlaySpec{Kind: "none"}

	six := lab.DefaultLab()
	for i := range six.Spec.Nodes {
		n := &six.Spec.Nodes[i]
		n.Addresses, n.PodCIDRs = n.Addresses[1:], n.PodCIDRs[1:]
	}
	four := lab.DefaultLab()
	for i := range four.Spec.Nodes {
		n := &four.Spec.Nodes[i]
		n.Addresses, n.PodCIDRs = n.Addresses[:1], n.PodCIDRs[:1]
	}
	jumbo := lab.DefaultLab()
	jumbo.Spec.Underlay.MTU = 9000
	jumbo.Spec.Overlay.VNI, jumbo.Spec.Overlay.Port = 16777215, 8472
	third := lab.NodeSpec{
		Name:      "a-node-with-quite-a-long-name",
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.12")},
		PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")},
	}
	jumbo.Spec.Nodes = append(jumbo.Spec.Nodes, third)

	for name, l := range map[string]lab.Lab{"direct": direct, "ipv6": six, "ipv4": four, "jumbo": jumbo} {
		t.Run(name, func(t *testing.T) {
			n, _ := start(t, l)
			a, b := addPod(t, n, "pod-a", "node1"), addPod(t, n, "pod-b", "node2")
			if len(b.IPs) != len(l.Spec.Nodes[1].PodCIDRs) {
				t.Errorf("pod-b has %v for %v", b.IPs, l.Spec.Nodes[1].PodCIDRs)
			}
			for _, ip := range b.IPs {
				ping(t, n, a.NS, ip)
			}
			for _, ip := range a.Gateways {
				ping(t, n, b.NS, ip)
			}
			if name == "jumbo" {
				c := addPod(t, n, "pod-c", third.Name)
				ping(t, n, a.NS, c.IPs[0])
				ping(t, n, c.NS, b.IPs[0])
				ping(t, n, plan.NodeID("node1"), c.IPs[0])
			}
		})
	}
}
