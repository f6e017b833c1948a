package plan_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"podlab/lab"
	"podlab/lab/cni"
	"podlab/lab/fabric"
	"podlab/lab/plan"
)

var update = flag.Bool("update", false, "write what is planned to testdata")

// golden compares a plan, as the commands that it equals, with a file.
func golden(t *testing.T, name string, steps []plan.Step) {
	t.Helper()
	var got bytes.Buffer
	var ns lab.NamespaceID
	for _, s := range steps {
		if s.NS != ns {
			ns = s.NS
			fmt.Fprintf(&got, "# %s\n", ns)
		}
		fmt.Fprintln(&got, s.Op)
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the plan is not that of %s (go test -update writes it):\n%s", file, got.Bytes())
	}
}

func build(spec lab.Spec) []plan.Step {
	overlay := fabric.Overlays[spec.Overlay.Kind]
	return plan.Build(spec, fabric.Wire{}, cni.Bridge{MTU: overlay.PodMTU(spec)}, overlay)
}

func node(name, addr, cidr string) lab.NodeSpec {
	return lab.NodeSpec{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}}
}

func TestBuild(t *testing.T) {
	direct := lab.DefaultLab().Spec
	direct.Overlay = lab.OverlaySpec{Kind: "none"}

	three := lab.DefaultLab().Spec
	three.Nodes = []lab.NodeSpec{
		node("a-node-with-a-long-name", "192.168.1.10", "10.244.1.0/24"),
		node("underlay", "192.168.1.11", "10.244.2.0/24"),
		node("node3", "192.168.1.12", "10.244.3.0/24"),
	}
	three.Underlay.MTU = 9000
	three.Overlay = lab.OverlaySpec{Kind: "vxlan", VNI: 42}

	six := lab.DefaultLab().Spec
	six.Nodes = []lab.NodeSpec{
		node("node1", "fd00:192:168:1::10", "fd00:10:244:1::/64"),
		node("node2", "fd00:192:168:1::11", "fd00:10:244:2::/64"),
	}
	for name, spec := range map[string]lab.Spec{
		"default": lab.DefaultLab().Spec, "direct": direct, "three-nodes": three, "ipv6": six,
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, build(spec)) })
	}
}

func TestPod(t *testing.T) {
	spec := lab.DefaultLab().Spec
	pod := cni.Pod{
		Node: spec.Nodes[0], NS: plan.PodID("default", "pod-a"), Netns: "cni-1234", HostLink: cni.HostLinkName("default/pod-a/1234"),
		Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("fd00:10:244:1::10")},
	}
	flavour := cni.Bridge{MTU: 1450}
	steps := append(flavour.Interface(pod), flavour.Routes(pod)...)
	golden(t, "pod", steps)
}

// Every op can be taken back, and taken back twice it is the op itself.
func TestInverse(t *testing.T) {
	spec := lab.DefaultLab().Spec
	pod := cni.Pod{Node: spec.Nodes[0], NS: "pod/default/pod-a", Netns: "cni-1", HostLink: "veth1", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.10")}}
	steps := append(build(spec), cni.Bridge{MTU: 1450}.Interface(pod)...)
	steps = append(steps, cni.Bridge{MTU: 1450}.Routes(pod)...)
	for _, s := range steps {
		inverse := s.Op.Inverse()
		if inverse == nil || inverse.String() == s.Op.String() && fmt.Sprintf("%T", inverse) != "plan.Sysctl" {
			t.Errorf("%q is taken back by %v", s.Op, inverse)
			continue
		}
		if again := inverse.Inverse(); again != s.Op {
			t.Errorf("%q taken back twice is %q", s.Op, again)
		}
	}
}

func TestInverseCommands(t *testing.T) {
	addr, prefix := netip.MustParseAddr("10.0.0.2"), netip.MustParsePrefix("10.1.0.0/16")
	for op, want := range map[plan.Op]string{
		plan.AddNetns{Name: "blue"}:                                                              "ip netns del blue",
		plan.Sysctl{Key: "net.ipv4.ip_forward", Value: "1", Was: "0"}:                            "sysctl -w net.ipv4.ip_forward=0",
		plan.Sysctl{Key: "net.ipv4.ping_group_range", Value: "1", Was: "1 0"}:                    `sysctl -w net.ipv4.ping_group_range="1 0"`,
		plan.AddBridge{Name: "br0"}:                                                              "ip link del br0",
		plan.AddVeth{Name: "v0"}:                                                                 "ip link del v0",
		plan.AddVXLAN{Name: "vx0"}:                                                               "ip link del vx0",
		plan.LinkUp{Name: "lo"}:                                                                  "ip link set lo down",
		plan.Hairpin{Port: "v0", On: true}:                                                       "bridge link set dev v0 hairpin off",
		plan.AddAddr{Dev: "eth0", Prefix: prefix}:                                                "ip addr del 10.1.0.0/16 dev eth0",
		plan.AddRoute{Dst: prefix, Via: addr, Dev: "eth0", OnLink: true}:                         "ip route del 10.1.0.0/16 via 10.0.0.2 dev eth0 onlink",
		plan.AddNeigh{Addr: addr, MAC: "0a:58:00:00:00:01", Dev: "eth0"}:                         "ip neigh del 10.0.0.2 dev eth0",
		plan.AddFDB{MAC: "0a:58:00:00:00:01", Dev: "vx0", Dst: netip.MustParseAddr("192.0.2.1")}: "bridge fdb del 0a:58:00:00:00:01 dev vx0 dst 192.0.2.1 self",
	} {
		if got := op.Inverse().String(); got != want {
			t.Errorf("%q is taken back by %q, want %q", op, got, want)
		}
	}
}

func TestMAC(t *testing.T) {
	for addr, want := range map[string]string{"10.244.1.10": "0a:58:0a:f4:01:0a", "fd00:10:244:2::11": "0a:58:ff:44:00:03"} {
		if got := plan.MAC(netip.MustParseAddr(addr)); got != want {
			t.Errorf("MAC(%s) = %s, want %s", addr, got, want)
		}
	}
}
