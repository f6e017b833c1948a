package kernel_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"podlab/lab"
	"podlab/lab/kernel"
	"podlab/lab/labtest"
	"podlab/lab/plan"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func newHandle(t *testing.T) *kernel.Handle {
	t.Helper()
	labtest.Privileged(t)
	h, err := kernel.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// shell runs a line in the namespace and returns what it prints.
func shell(t *testing.T, h *kernel.Handle, line string) string {
	t.Helper()
	var out []byte
	err := h.NS().Do(func() (err error) {
		out, err = exec.Command("sh", "-c", line).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// pair are two namespaces by the ids "a" and "b".
func pair(t *testing.T) (a, b *kernel.Handle, peers kernel.Peers) {
	t.Helper()
	a, b = newHandle(t), newHandle(t)
	return a, b, func(id lab.NamespaceID) (*kernel.Handle, error) {
		if id == "b" {
			return b, nil
		}
		return a, nil
	}
}

// every are ops of each kind, in an order in which they can be done:
//
//	a: br0 (v0 is a port) --- v9 :b        a: vxlan.7 over br0
func every() []plan.Op {
	addr := netip.MustParseAddr
	prefix := netip.MustParsePrefix
	return []plan.Op{
		plan.Sysctl{Key: "net.ipv4.ip_forward", Value: "1", Was: "0"},
		plan.LinkUp{Name: "lo"},
		plan.AddBridge{Name: "br0", MTU: 1400, MAC: "0a:58:00:00:00:01"},
		plan.AddVeth{Name: "v0", MTU: 1400, Master: "br0", Peer: plan.VethPeer{Name: "v9", MAC: "0a:58:00:00:00:02", NS: "b", Netns: "b"}},
		plan.Hairpin{Port: "v0", On: true},
		plan.AddAddr{Dev: "br0", Prefix: prefix("10.1.0.1/24")},
		plan.AddAddr{Dev: "br0", Prefix: prefix("fd00:1::1/64")},
		plan.AddVXLAN{Name: "vxlan.7", VNI: 7, Local: addr("10.1.0.1"), Port: 4789, Dev: "br0", MTU: 1350, MAC: "0a:58:00:00:00:07"},
		plan.AddAddr{Dev: "vxlan.7", Prefix: prefix("10.2.0.0/32")},
		plan.AddFDB{MAC: "0a:58:00:00:00:08", Dev: "vxlan.7", Dst: addr("10.1.0.2")},
		plan.AddNeigh{Addr: addr("10.3.0.0"), MAC: "0a:58:00:00:00:08", Dev: "vxlan.7"},
		plan.AddRoute{Dst: prefix("10.3.0.0/24"), Via: addr("10.3.0.0"), Dev: "vxlan.7", OnLink: true},
		plan.AddRoute{Dst: prefix("fd00:3::/64"), Via: addr("fd00:1::2"), Dev: "br0"},
		plan.AddRoute{Dst: prefix("10.4.0.0/24"), Dev: "br0"},
	}
}

// looks are commands whose output together shows all that `every` does.
const looks = `ip -d -o link | grep -v "link/loopback" | tr -s ' ' | sed 's/gso_.*//; s/gro_.*//; s/_timer *[0-9.]*//g'; ip -o addr | grep -v fe80 | tr -s ' '; ip route; ip -6 route | grep -v fe80; ip neigh; bridge fdb show dev vxlan.7; cat /proc/sys/net/ipv4/ip_forward; bridge -d link show dev v0`

func TestPrivilegedOpsDoWhatTheyPrint(t *testing.T) {
	a, b, peers := pair(t)
	ops := every()
	done := 0
	if err := a.Apply(ops, peers, func(kernel.Done) { done++ }); err != nil {
		t.Fatal(err)
	}
	if done != len(ops) {
		t.Errorf("%d of %d ops are recorded", done, len(ops))
	}
	for where, wants := range map[*kernel.Handle][]string{
		a: {
			"br0: <", "mtu 1400", "link/ether 0a:58:00:00:00:01", "bridge forward_delay", "mcast_snooping 0",
			"v0@if", "master br0", "numtxqueues 1", "hairpin on",
			"inet 10.1.0.1/24 brd 10.1.0.255 scope global br0", "inet6 fd00:1::1/64 scope global",
			"vxlan id 7 local 10.1.0.1 dev br0", "dstport 4789 nolearning", "mtu 1350", "inet 10.2.0.0/32 scope global vxlan.7",
			"10.3.0.0/24 via 10.3.0.0 dev vxlan.7 onlink", "fd00:3::/64 via fd00:1::2 dev br0", "10.4.0.0/24 dev br0 scope link",
			"10.3.0.0 dev vxlan.7 lladdr 0a:58:00:00:00:08 PERMANENT",
			"0a:58:00:00:00:08 dst 10.1.0.2 self permanent",
		},
		b: {"v9@if", "link/ether 0a:58:00:00:00:02", "mtu 1400", "numtxqueues 1"},
	} {
		line := looks
		if where == b {
			line = "ip -d -o link"
		}
		got := shell(t, where, line)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("lacks %q in\n%s", want, got)
			}
		}
	}
}

// The commands that the ops print do the same as the ops.
func TestPrivilegedCommandsEqualOps(t *testing.T) {
	a, _, peers := pair(t)
	if err := a.Apply(every(), peers, nil); err != nil {
		t.Fatal(err)
	}
	byHand := newHandle(t)
	shell(t, byHand, "mkdir -p /run/netns && ip netns add b")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "b").Run() })
	for _, op := range every() {
		shell(t, byHand, op.String())
	}
	want, got := normal(shell(t, a, looks)), normal(shell(t, byHand, looks))
	if got != want {
		t.Errorf("by hand:\n%s\nby ops:\n%s", got, want)
	}
}

// normal takes out of an output what is the kernel's to choose: indexes,
// random addresses.
func normal(s string) string {
	s = strings.ReplaceAll(s, "link-netns b", "link-netnsid 0") // by name, where /run/netns has it
	var lines []string
	for line := range strings.Lines(s) {
		var words []string
		for _, w := range strings.Fields(line) {
			if strings.Count(w, ":") == 5 && !strings.HasPrefix(w, "0a:58:") && w != "ff:ff:ff:ff:ff:ff" || strings.HasPrefix(w, "fe80:") {
				w = "RANDOM"
			}
			if strings.HasSuffix(w, ":") && strings.Trim(w, "0123456789:") == "" {
				w = "N:"
			}
			if i := strings.Index(w, "@if"); i >= 0 {
				w = w[:i] + "@ifN"
			}
			// Whether there is a carrier already is a matter of time.
			w = strings.NewReplacer("NO-CARRIER,", "", ",LOWER_UP", "", "DOWN", "STATE", "UNKNOWN", "STATE").Replace(w)
			if w == "UP" || w == "disabled" || w == "forwarding" {
				w = "STATE" // a bridge's port forwards once it has a carrier
			}
			if w != "linkdown" {
				words = append(words, w)
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "\n")
}

// Taken back in reverse, the ops leave the namespace as it was; and to take
// back what is gone is no failure.
func TestPrivilegedInverses(t *testing.T) {
	a, b, peers := pair(t)
	const all = "ip -o link; ip addr; ip route; ip -6 route; cat /proc/sys/net/ipv4/ip_forward"
	shell(t, a, "ip link set lo up; ip link set lo down") // leaves it its address
	before := shell(t, a, all)
	ops := every()
	if err := a.Apply(ops, peers, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for i := range ops {
			op := ops[len(ops)-1-i].Inverse()
			if err := a.Apply([]plan.Op{op}, peers, nil); err != nil {
				t.Errorf("%q: %v", op, err)
			}
		}
		if after := shell(t, a, all); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
	if got := shell(t, b, "ip -o link"); strings.Contains(got, "v9") {
		t.Errorf("the far end is left:\n%s", got)
	}
}

func TestPrivilegedErrorsNameTheOp(t *testing.T) {
	a, _, peers := pair(t)
	a.Name("node/node1")
	var failed []string
	bridge := plan.AddBridge{Name: "br0", MTU: 1500}
	err := a.Apply([]plan.Op{
		bridge,
		plan.AddAddr{Dev: "br0", Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		plan.AddAddr{Dev: "br0", Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		plan.LinkUp{Name: "lo"},
	}, peers, func(d kernel.Done) {
		if d.Err != nil {
			failed = append(failed, d.Op.String())
		}
	})
	if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), `node/node1: cannot run "ip addr add 10.0.0.1/24 brd + dev br0"`) {
		t.Errorf("error %v", err)
	}
	if len(failed) != 1 {
		t.Errorf("failed: %q, want the second address alone", failed)
	}
	if err := a.Apply([]plan.Op{plan.AddRoute{Dst: netip.MustParsePrefix("10.9.0.0/16"), Dev: "nowhere"}}, peers, nil); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a route out of a link that is not there: %v", err)
	}
	if err := a.Apply([]plan.Op{plan.Sysctl{Key: "net.no.such", Value: "1"}}, peers, nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a setting that is not there: %v", err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := a.Apply([]plan.Op{bridge}, peers, nil); err == nil {
		t.Error("a closed handle works")
	}
}

// A learner has taken the index that the handle would choose next.
func TestPrivilegedIndexTaken(t *testing.T) {
	a, b, peers := pair(t)
	if err := a.Apply([]plan.Op{plan.AddBridge{Name: "br0", MTU: 1500}}, peers, nil); err != nil {
		t.Fatal(err)
	}
	shell(t, a, "ip link add br1 type bridge") // the kernel's next index
	err := a.Apply([]plan.Op{
		plan.AddVeth{Name: "v0", MTU: 1500, Master: "br0", Peer: plan.VethPeer{Name: "eth0", NS: "b", Netns: "b"}},
		plan.Hairpin{Port: "v0", On: true},
	}, peers, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Apply([]plan.Op{
		plan.LinkUp{Name: "eth0"},
		plan.AddAddr{Dev: "eth0", Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		plan.AddBridge{Name: "br7", MTU: 1500},
		plan.AddAddr{Dev: "br7", Prefix: netip.MustParsePrefix("10.7.0.1/24")},
	}, peers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := shell(t, b, "ip -o -4 addr"); !strings.Contains(got, "eth0    inet 10.0.0.1/24") || !strings.Contains(got, "br7    inet 10.7.0.1/24") {
		t.Errorf("addresses:\n%s", got)
	}
}
