package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// Bounds of a manifest.
const (
	maxNodes = 16
	// Pods need room for the addresses of a course's exercises, and IPv4's
	// prefix must hold a network, a gateway and a pod.
	maxPodBits4, maxPodBits6 = 29, 120
	minMTU, maxMTU           = 1330, 9000 // 1280 (RFC 8200 §5) and 50 of VXLAN; jumbo frames
	maxVNI                   = 1<<24 - 1  // RFC 7348 §5
)

// isLabel reports whether s is a DNS label as Kubernetes has them (RFC 1123).
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// isName reports whether s is labels with dots between.
func isName(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return len(s) <= 200
}

// WithDefaults fills in what a manifest may leave out.
func (l Lab) WithDefaults() Lab {
	d := DefaultLab()
	if l.Metadata.Name == "" {
		l.Metadata.Name = d.Metadata.Name
	}
	s := &l.Spec
	if len(s.Underlay.CIDRs) == 0 {
		s.Underlay.CIDRs = d.Spec.Underlay.CIDRs
	}
	if s.Underlay.MTU == 0 {
		s.Underlay.MTU = d.Spec.Underlay.MTU
	}
	if s.CNI == "" {
		s.CNI = d.Spec.CNI
	}
	if s.Overlay.Kind == "" {
		s.Overlay.Kind = d.Spec.Overlay.Kind
	}
	if s.Overlay.Kind == "vxlan" {
		if s.Overlay.VNI == 0 {
			s.Overlay.VNI = d.Spec.Overlay.VNI
		}
		if s.Overlay.Port == 0 {
			s.Overlay.Port = d.Spec.Overlay.Port
		}
	}
	if s.ClusterDomain == "" {
		s.ClusterDomain = d.Spec.ClusterDomain
	}
	if len(s.ServiceCIDRs) == 0 {
		s.ServiceCIDRs = d.Spec.ServiceCIDRs
	}
	return l
}

// Validate says the first thing that is wrong with a manifest, with its field,
// what was found and what is allowed. It expects WithDefaults.
func (l Lab) Validate() error {
	switch {
	case l.APIVersion != APIVersion:
		return invalid("apiVersion", "%q; %s is wanted", l.APIVersion, APIVersion)
	case l.Kind != KindLab:
		return invalid("kind", "%q; %s is wanted", l.Kind, KindLab)
	case !isLabel(l.Metadata.Name):
		return invalid("metadata.name", "%q; at most 63 of a-z, 0-9 and - are wanted", l.Metadata.Name)
	case len(l.Spec.Nodes) == 0 || len(l.Spec.Nodes) > maxNodes:
		return invalid("spec.nodes", "has %d nodes; 1 to %d are allowed", len(l.Spec.Nodes), maxNodes)
	}
	for _, check := range []func() error{l.Spec.checkNetwork, l.Spec.checkNodes, l.Spec.checkOverlaps} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func (s Spec) checkNetwork() error {
	if err := onePerFamily("spec.underlay.cidrs", s.Underlay.CIDRs); err != nil {
		return err
	}
	if err := onePerFamily("spec.serviceCIDRs", s.ServiceCIDRs); err != nil {
		return err
	}
	switch {
	case s.Underlay.MTU < minMTU || s.Underlay.MTU > maxMTU:
		return invalid("spec.underlay.mtu", "%d; %d to %d bytes are allowed", s.Underlay.MTU, minMTU, maxMTU)
	case s.CNI != "bridge":
		return invalid("spec.cni", "%q; bridge is allowed", s.CNI)
	case s.Overlay.Kind != "vxlan" && s.Overlay.Kind != "none":
		return invalid("spec.overlay.kind", "%q; vxlan and none are allowed", s.Overlay.Kind)
	case s.Overlay.Kind == "vxlan" && (s.Overlay.VNI == 0 || s.Overlay.VNI > maxVNI):
		return invalid("spec.overlay.vni", "%d; 1 to %d is allowed", s.Overlay.VNI, maxVNI)
	case !isName(s.ClusterDomain):
		return invalid("spec.clusterDomain", "%q; a DNS name such as cluster.local is wanted", s.ClusterDomain)
	}
	return nil
}

func (s Spec) checkNodes() error {
	names := map[string]bool{}
	addresses := map[netip.Addr]bool{}
	for i, n := range s.Nodes {
		at := fmt.Sprintf("spec.nodes[%d]", i)
		switch {
		case !isLabel(n.Name):
			return invalid(at+".name", "%q; at most 63 of a-z, 0-9 and - are wanted", n.Name)
		case names[n.Name]:
			return invalid(at+".name", "%q is another node's name too", n.Name)
		case len(n.Addresses) == 0:
			return invalid(at+".addresses", "is empty; one for each family of the underlay is wanted")
		}
		names[n.Name] = true
		families := map[bool]bool{}
		for j, a := range n.Addresses {
			field := fmt.Sprintf("%s.addresses[%d]", at, j)
			switch {
			case !a.IsValid() || a.Is4In6() || a.Zone() != "":
				return invalid(field, "%q; an IPv4 or IPv6 address is wanted", a)
			case families[a.Is4()]:
				return invalid(field, "%s is a second address of its family; one is allowed", a)
			case addresses[a]:
				return invalid(field, "%s is another node's address too", a)
			case !contains(s.Underlay.CIDRs, a):
				return invalid(field, "%s is in none of the underlay's ranges %v", a, s.Underlay.CIDRs)
			}
			families[a.Is4()], addresses[a] = true, true
		}
		if err := onePerFamily(at+".podCIDRs", n.PodCIDRs); err != nil {
			return err
		}
		for j, p := range n.PodCIDRs {
			if most := podBits(p); p.Bits() > most {
				return invalid(fmt.Sprintf("%s.podCIDRs[%d]", at, j), "%s is too small for pods; /%d or larger is wanted", p, most)
			}
		}
	}
	return nil
}

func podBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return maxPodBits4
	}
	return maxPodBits6
}

// onePerFamily checks ranges of which each family has one at most, and one at
// least is there.
func onePerFamily(field string, ranges []netip.Prefix) error {
	if len(ranges) == 0 {
		return invalid(field, "is empty; a range such as 10.244.1.0/24 is wanted")
	}
	seen := map[bool]bool{}
	for i, p := range ranges {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			return invalid(at, "is no range; one such as 10.244.1.0/24 is wanted")
		case p != p.Masked():
			return invalid(at, "%s has bits set beyond its length; %s is meant?", p, p.Masked())
		case p.Bits() == 0 || p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast():
			return invalid(at, "%s is not for unicast addresses in a lab", p)
		case seen[p.Addr().Is4()]:
			return invalid(at, "%s is a second range of its family; one is allowed", p)
		}
		seen[p.Addr().Is4()] = true
	}
	return nil
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	for _, p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// checkOverlaps sees to it that an address has one meaning.
func (s Spec) checkOverlaps() error {
	type named struct {
		field string
		p     netip.Prefix
	}
	var all []named
	add := func(field string, ranges []netip.Prefix) {
		for i, p := range ranges {
			all = append(all, named{fmt.Sprintf("%s[%d]", field, i), p})
		}
	}
	add("spec.underlay.cidrs", s.Underlay.CIDRs)
	add("spec.serviceCIDRs", s.ServiceCIDRs)
	for i, n := range s.Nodes {
		add(fmt.Sprintf("spec.nodes[%d].podCIDRs", i), n.PodCIDRs)
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if a.p.Overlaps(b.p) {
				return invalid(a.field, "%s overlaps with %s, which is %s", a.p, b.p, b.field)
			}
		}
	}
	return nil
}
