package cni_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"podlab/lab"
	"podlab/lab/cni"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestIPAMGivesTheLowestFree(t *testing.T) {
	m := cni.NewIPAM(prefixes("10.244.1.0/24", "fd00:10:244:1::/64"))
	for _, step := range []struct {
		key, release string
		wanted       []netip.Addr
		want         []netip.Addr
	}{
		{key: "a", want: addrs("10.244.1.10", "fd00:10:244:1::10")},
		{key: "b", want: addrs("10.244.1.11", "fd00:10:244:1::11")},
		{key: "a", want: addrs("10.244.1.10", "fd00:10:244:1::10")}, // has them already
		{key: "c", wanted: addrs("10.244.1.12"), want: addrs("10.244.1.12", "fd00:10:244:1::12")},
		{key: "d", wanted: addrs("fd00:10:244:1::77"), want: addrs("10.244.1.13", "fd00:10:244:1::77")},
		{key: "e", release: "a", want: addrs("10.244.1.10", "fd00:10:244:1::10")},
		{key: "f", wanted: addrs("10.244.1.2"), want: addrs("10.244.1.2", "fd00:10:244:1::13")},
	} {
		m.Release(step.release)
		got, err := m.Allocate(step.key, step.wanted)
		if err != nil || !slices.Equal(got, step.want) {
			t.Errorf("%s wants %v: got %v, %v, want %v", step.key, step.wanted, got, err, step.want)
		}
	}
	if got := m.Release("nobody"); len(got) != 0 {
		t.Errorf("nobody had %v", got)
	}
}

func TestIPAMRefuses(t *testing.T) {
	m := cni.NewIPAM(prefixes("10.244.1.0/24", "fd00:10:244:1::/64"))
	if _, err := m.Allocate("a", nil); err != nil {
		t.Fatal(err)
	}
	for wanted, code := range map[string]lab.Code{
		"10.244.2.10": lab.CodeInvalid, "10.244.1.0": lab.CodeInvalid, "10.244.1.1": lab.CodeInvalid,
		"10.244.1.255": lab.CodeInvalid, "fd00:10:244:1::1": lab.CodeInvalid, "10.244.1.10": lab.CodeConflict,
	} {
		_, err := m.Allocate("b", addrs(wanted))
		var e *lab.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v, want %s", wanted, err, code)
		}
	}
	if _, err := m.Allocate("b", addrs("10.244.1.20", "10.244.1.21")); err == nil {
		t.Error("two addresses of one range are given")
	}
	// The failures took nothing.
	if got, err := m.Allocate("b", nil); err != nil || got[0] != addrs("10.244.1.11")[0] {
		t.Errorf("after failures: %v, %v", got, err)
	}
}

func TestIPAMEndsAtTheRange(t *testing.T) {
	for _, tt := range []struct {
		cidr  string
		first string
		count int
	}{
		{"10.0.0.0/28", "10.0.0.10", 5},
		{"10.0.0.0/29", "10.0.0.2", 5},
		{"10.0.0.0/30", "10.0.0.2", 1},
	} {
		m := cni.NewIPAM(prefixes(tt.cidr))
		for i := range tt.count {
			got, err := m.Allocate(fmt.Sprint(i), nil)
			if err != nil {
				t.Fatalf("%s: pod %d: %v", tt.cidr, i, err)
			}
			if i == 0 && got[0].String() != tt.first {
				t.Errorf("%s: first %s, want %s", tt.cidr, got[0], tt.first)
			}
		}
		var e *lab.Error
		if _, err := m.Allocate("one too many", nil); !errors.As(err, &e) || e.Code != lab.CodeLimit {
			t.Errorf("%s: %v after %d pods, want %s", tt.cidr, err, tt.count, lab.CodeLimit)
		}
	}
}

func TestHostLinkName(t *testing.T) {
	a, b := cni.HostLinkName("default/pod-a/1"), cni.HostLinkName("default/pod-a/2")
	if a == b || a != cni.HostLinkName("default/pod-a/1") || len(a) > 15 {
		t.Errorf("names %q and %q", a, b)
	}
}
