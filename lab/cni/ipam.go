package cni

import (
	"net/netip"
	"sync"

	"podlab/lab"
)

// firstV4 and firstV6 are how far after a range's network address its first
// pod's address is: .10, and ::10 as it is written. What is below is left to
// the gateway and to learners.
const (
	firstV4 = 10
	firstV6 = 0x10
)

// IPAM hands out the addresses of one node's pods: the lowest free one of each
// range. It lives in memory and is rebuilt by asking again for what each
// running pod has. It is safe for concurrent use.
type IPAM struct {
	ranges []netip.Prefix

	mu    sync.Mutex
	taken map[netip.Addr]string   // address -> key of the pod
	byKey map[string][]netip.Addr // key of the pod -> addresses
}

// NewIPAM returns the IPAM of a node's pod ranges.
func NewIPAM(ranges []netip.Prefix) *IPAM {
	return &IPAM{ranges: ranges, taken: map[netip.Addr]string{}, byKey: map[string][]netip.Addr{}}
}

// Allocate gives the pod with this key one address of each range: the one
// among wanted that is in the range, else the lowest free one. A pod that has
// addresses already gets the same again. Nothing is taken when it fails.
func (m *IPAM) Allocate(key string, wanted []netip.Addr) ([]netip.Addr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.byKey[key]; ok {
		return have, nil
	}
	if err := m.check(wanted); err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(m.ranges))
	for _, cidr := range m.ranges {
		addr, err := m.pickLocked(cidr, wanted)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	for _, a := range addrs {
		m.taken[a] = key
	}
	m.byKey[key] = addrs
	return addrs, nil
}

// Release gives back what the pod with this key has, and returns it.
func (m *IPAM) Release(key string) []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	addrs := m.byKey[key]
	for _, a := range addrs {
		delete(m.taken, a)
	}
	delete(m.byKey, key)
	return addrs
}

// check refuses wanted addresses that no range has, or two of one range.
func (m *IPAM) check(wanted []netip.Addr) error {
	seen := map[netip.Prefix]netip.Addr{}
	for _, a := range wanted {
		cidr, ok := m.rangeOf(a)
		if !ok {
			return lab.Errorf(lab.CodeInvalid, "cannot give address %s: it is not in the node's pod ranges %v", a, m.ranges)
		}
		if other, twice := seen[cidr]; twice {
			return lab.Errorf(lab.CodeInvalid, "cannot give addresses %s and %s: a pod has one address of %s", other, a, cidr)
		}
		seen[cidr] = a
		if a == cidr.Masked().Addr() || a == Gateway(cidr) || a == broadcast(cidr) {
			return lab.Errorf(lab.CodeInvalid, "cannot give address %s: it is the network, gateway or broadcast address of %s", a, cidr)
		}
	}
	return nil
}

func (m *IPAM) rangeOf(a netip.Addr) (netip.Prefix, bool) {
	for _, cidr := range m.ranges {
		if cidr.Contains(a) {
			return cidr, true
		}
	}
	return netip.Prefix{}, false
}

func (m *IPAM) pickLocked(cidr netip.Prefix, wanted []netip.Addr) (netip.Addr, error) {
	for _, a := range wanted {
		if !cidr.Contains(a) {
			continue
		}
		if key, ok := m.taken[a]; ok {
			return a, lab.Errorf(lab.CodeConflict, "cannot give address %s: pod %s has it", a, key)
		}
		return a, nil
	}
	// At most len(taken)+1 addresses are looked at, however large the range.
	for a := first(cidr); cidr.Contains(a) && a != broadcast(cidr); a = a.Next() {
		if _, ok := m.taken[a]; !ok {
			return a, nil
		}
	}
	return netip.Addr{}, lab.Errorf(lab.CodeLimit, "cannot give an address: all of %s are taken", cidr)
}

// first is the first address of a range for pods; of a range too small for
// that, the one after the gateway.
func first(cidr netip.Prefix) netip.Addr {
	steps := firstV4
	if cidr.Addr().Is6() {
		steps = firstV6
	}
	a := cidr.Masked().Addr()
	for range steps {
		a = a.Next()
	}
	if !cidr.Contains(a) || a == broadcast(cidr) {
		return Gateway(cidr).Next()
	}
	return a
}

// broadcast is the last address of an IPv4 range, which is its broadcast
// address; IPv6 has none.
func broadcast(cidr netip.Prefix) netip.Addr {
	if cidr.Addr().Is6() {
		return netip.Addr{}
	}
	b := cidr.Masked().Addr().As4()
	for i := cidr.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
