package lab

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestTheDefaultLabIsValid(t *testing.T) {
	if err := DefaultLab().Validate(); err != nil {
		t.Error(err)
	}
	if got := DefaultLab().WithDefaults(); got.Spec.Overlay != DefaultLab().Spec.Overlay {
		t.Errorf("defaults changed the overlay to %+v", got.Spec.Overlay)
	}
}

func TestDefaultsMakeAShortManifestWhole(t *testing.T) {
	l := Lab{APIVersion: APIVersion, Kind: KindLab, Spec: Spec{Nodes: []NodeSpec{{
		Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.20")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
	}}}}
	if err := l.WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestAWrongManifestNamesItsField(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tc := range []struct {
		field, says string
		change      func(*Lab)
	}{
		{"apiVersion", "podlab.io/v1", func(l *Lab) { l.APIVersion = "v2" }},
		{"kind", "Lab", func(l *Lab) { l.Kind = "Pod" }},
		{"metadata.name", "63", func(l *Lab) { l.Metadata.Name = "Big Name" }},
		{"spec.nodes", "0 nodes", func(l *Lab) { l.Spec.Nodes = nil }},
		{"spec.nodes", "17 nodes", func(l *Lab) { l.Spec.Nodes = make([]NodeSpec, 17) }},
		{"spec.nodes[1].name", "another", func(l *Lab) { l.Spec.Nodes[1].Name = "node1" }},
		{"spec.nodes[0].name", "a-z", func(l *Lab) { l.Spec.Nodes[0].Name = "../etc" }},
		{"spec.nodes[0].addresses", "empty", func(l *Lab) { l.Spec.Nodes[0].Addresses = nil }},
		{"spec.nodes[1].addresses[0]", "another node", func(l *Lab) { l.Spec.Nodes[1].Addresses[0] = l.Spec.Nodes[0].Addresses[0] }},
		{"spec.nodes[0].addresses[0]", "none of", func(l *Lab) { l.Spec.Nodes[0].Addresses[0] = netip.MustParseAddr("8.8.8.8") }},
		{"spec.nodes[0].addresses[1]", "second", func(l *Lab) { l.Spec.Nodes[0].Addresses[1] = netip.MustParseAddr("192.168.1.99") }},
		{"spec.nodes[0].addresses[0]", "invalid", func(l *Lab) { l.Spec.Nodes[0].Addresses[0] = netip.Addr{} }},
		{"spec.nodes[0].podCIDRs", "empty", func(l *Lab) { l.Spec.Nodes[0].PodCIDRs = nil }},
		{"spec.nodes[0].podCIDRs[0]", "too small", func(l *Lab) { l.Spec.Nodes[0].PodCIDRs[0] = prefix("10.244.1.0/30") }},
		{"spec.nodes[0].podCIDRs[0]", "10.244.1.0/24 is meant", func(l *Lab) { l.Spec.Nodes[0].PodCIDRs[0] = prefix("10.244.1.7/24") }},
		{"spec.nodes[1].podCIDRs[0]", "overlaps", func(l *Lab) { l.Spec.Nodes[1].PodCIDRs[0] = prefix("10.244.0.0/16") }},
		{"spec.nodes[0].podCIDRs[0]", "overlaps", func(l *Lab) { l.Spec.Nodes[0].PodCIDRs[0] = prefix("10.96.1.0/24") }},
		{"spec.underlay.cidrs[0]", "unicast", func(l *Lab) { l.Spec.Underlay.CIDRs[0] = prefix("127.0.0.0/8") }},
		{"spec.underlay.mtu", "1330", func(l *Lab) { l.Spec.Underlay.MTU = 100 }},
		{"spec.cni", "bridge", func(l *Lab) { l.Spec.CNI = "calico" }},
		{"spec.overlay.kind", "vxlan", func(l *Lab) { l.Spec.Overlay.Kind = "gre" }},
		{"spec.overlay.vni", "16777215", func(l *Lab) { l.Spec.Overlay.VNI = 1 << 24 }},
		{"spec.clusterDomain", "cluster.local", func(l *Lab) { l.Spec.ClusterDomain = "no domain" }},
		{"spec.serviceCIDRs[1]", "second", func(l *Lab) { l.Spec.ServiceCIDRs[1] = prefix("10.200.0.0/16") }},
	} {
		l := DefaultLab()
		tc.change(&l)
		err := l.Validate()
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != CodeInvalid || e.Field != tc.field || !strings.Contains(e.Message, tc.says) {
			t.Errorf("%v; want field %s and %q", err, tc.field, tc.says)
		}
	}
}
