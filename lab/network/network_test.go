package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/cni"
	"podlab/lab/labtest"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/observe"
	"podlab/lab/plan"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// start builds the network of a lab in a fresh underlay.
func start(t *testing.T, l lab.Lab) (*network.Network, *observe.Log) {
	t.Helper()
	labtest.Privileged(t)
	underlay, err := netns.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { underlay.Close() })
	log := observe.NewLog(l.Spec, time.Now)
	n, err := network.New(network.Config{Spec: l.Spec, Underlay: underlay, Log: log, Warm: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	labtest.WaitState(t, log, "the underlay's links to run", func(s lab.State) bool {
		underlay, ok := labtest.Namespace(s, plan.Underlay)
		return ok && !slices.ContainsFunc(underlay.Links, func(l lab.Link) bool { return l.Up && !l.Running })
	})
	return n, log
}

func addPod(t *testing.T, n *network.Network, name, node string) network.PodNet {
	t.Helper()
	ns, err := n.NewPodNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ref := network.PodRef{Namespace: "default", Name: name, UID: "uid-" + name, Node: node}
	p, err := n.AddPod(t.Context(), ref, ns, network.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.WaitRunning(ctx, ref); err != nil {
		t.Fatal(err)
	}
	return p
}

// ping sends one echo request from a namespace and fails without an answer.
func ping(t *testing.T, n *network.Network, from lab.NamespaceID, to netip.Addr) {
	t.Helper()
	err := n.NS(from).Do(func() error {
		out, err := exec.Command("ping", "-n", "-c", "1", "-W", "2", to.String()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s cannot ping %s: %v", from, to, err)
	}
}

//	     underlay
//	    /        \
//	 node1      node2
//	 cni0        cni0        vxlan.1 <-> vxlan.1
//	/    \         |
//
// pod-a  pod-c    pod-b
func TestPrivilegedDefaultLab(t *testing.T) {
	n, _ := start(t, lab.DefaultLab())
	a, c, b := addPod(t, n, "pod-a", "node1"), addPod(t, n, "pod-c", "node1"), addPod(t, n, "pod-b", "node2")
	if want := netip.MustParseAddr("10.244.1.10"); a.IPs[0] != want {
		t.Errorf("pod-a has %v, want %v first", a.IPs, want)
	}
	for _, to := range []network.PodNet{c, b} {
		for _, ip := range to.IPs {
			ping(t, n, a.NS, ip)
		}
	}
	for _, ip := range lab.DefaultLab().Spec.Nodes[1].Addresses {
		ping(t, n, plan.NodeID("node1"), ip)
	}
}

// node1's cni0 --- veth… --- eth0 of pod-a: the kernel's tables, both ends of
// the link joined.
func TestPrivilegedStateShowsTheLab(t *testing.T) {
	n, log := start(t, lab.DefaultLab())
	a := addPod(t, n, "pod-a", "node1")
	if err := n.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := plan.NodeID("node1")
	s := labtest.WaitState(t, log, "pod-a's link with both ends", func(s lab.State) bool {
		host, ok := labtest.Link(s, node, a.HostLink)
		return ok && host.Peer != nil && host.Running
	})
	host, _ := labtest.Link(s, node, a.HostLink)
	eth0, ok := labtest.Link(s, a.NS, "eth0")
	if !ok || *host.Peer != (lab.LinkRef{Namespace: a.NS, Index: eth0.Index}) {
		t.Errorf("the host end's peer is %+v, want eth0 (%d) of %s", host.Peer, eth0.Index, a.NS)
	}
	if eth0.Peer == nil || *eth0.Peer != (lab.LinkRef{Namespace: node, Index: host.Index}) {
		t.Errorf("eth0's peer is %+v, want %s (%d) of %s", eth0.Peer, a.HostLink, host.Index, node)
	}
	if eth0.MTU != 1450 || !eth0.Up || eth0.MAC != "0a:58:0a:f4:01:0a" {
		t.Errorf("eth0 is %+v", eth0)
	}
	if want := netip.MustParsePrefix("10.244.1.10/24"); len(eth0.Addrs) < 2 || eth0.Addrs[0].Prefix != want {
		t.Errorf("eth0 has %v, want %s first", eth0.Addrs, want)
	}
	bridge, _ := labtest.Link(s, node, "cni0")
	if host.Master != bridge.Index || bridge.Index == 0 {
		t.Errorf("%s has master %d, want cni0, %d", a.HostLink, host.Master, bridge.Index)
	}
	vxlan, _ := labtest.Link(s, node, "vxlan.1")
	want := lab.VXLAN{VNI: 1, Port: 4789, Local: netip.MustParseAddr("192.168.1.10")}
	if vxlan.VXLAN == nil || *vxlan.VXLAN != want {
		t.Errorf("vxlan.1 is %+v, want %+v", vxlan.VXLAN, want)
	}
	ns, _ := labtest.Namespace(s, node)
	route := lab.Route{Dst: netip.MustParsePrefix("10.244.2.0/24"), Gateway: netip.MustParseAddr("10.244.2.0"), Dev: "vxlan.1", Table: 254, Protocol: "boot", Scope: "global", Type: "unicast", OnLink: true}
	if !slices.Contains(ns.Routes, route) {
		t.Errorf("node1 lacks %+v in %+v", route, ns.Routes)
	}
	fdb := lab.FDBEntry{MAC: "0a:58:0a:f4:02:00", Dev: "vxlan.1", Dst: netip.MustParseAddr("192.168.1.11"), State: "permanent"}
	if !slices.Contains(ns.FDB, fdb) {
		t.Errorf("node1 lacks %+v in %+v", fdb, ns.FDB)
	}
	if s.Namespaces[0].ID != plan.Underlay || len(s.Namespaces) != 4 {
		t.Errorf("%d namespaces, the first %s; want 4, the underlay first", len(s.Namespaces), s.Namespaces[0].ID)
	}
}

// When a pod goes, its namespace, its addresses and, once no process holds
// the namespace, the host's end of its link go, too; its address is free.
func TestPrivilegedDelPod(t *testing.T) {
	n, log := start(t, lab.DefaultLab())
	a := addPod(t, n, "pod-a", "node1")
	node := plan.NodeID("node1")
	labtest.WaitState(t, log, "pod-a's link", func(s lab.State) bool {
		_, ok := labtest.Link(s, node, a.HostLink)
		return ok
	})
	var steps []int
	ref := network.PodRef{Namespace: "default", Name: "pod-a", UID: "uid-pod-a", Node: "node1"}
	err := n.DelPod(t.Context(), ref, network.DelOptions{Step: func(e lab.StepEvent) { steps = append(steps, e.Number) }})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{4, 5, 6, 7}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	labtest.WaitState(t, log, "the end of pod-a's network", func(s lab.State) bool {
		_, link := labtest.Link(s, node, a.HostLink)
		_, ns := labtest.Namespace(s, a.NS)
		return !link && !ns
	})
	again := addPod(t, n, "pod-x", "node1")
	if !slices.Equal(again.IPs, a.IPs) {
		t.Errorf("the next pod has %v, want pod-a's %v again", again.IPs, a.IPs)
	}
	if err := n.DelPod(t.Context(), ref, network.DelOptions{}); err != nil {
		t.Errorf("to delete a pod twice: %v", err)
	}
}

// What fails leaves nothing: no link on the node, no address taken, and the
// namespace as it was.
func TestPrivilegedFailedPodLeavesNothing(t *testing.T) {
	n, log := start(t, lab.DefaultLab())
	ns, err := n.NewPodNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ref := network.PodRef{Namespace: "default", Name: "pod-a", UID: "1", Node: "node1"}
	// The link's name is taken, so that the kernel refuses it after the
	// addresses were allocated.
	command(t, n, plan.NodeID("node1"), "ip", "link", "add", cni.HostLinkName("default/pod-a/1"), "type", "bridge")
	if _, err := n.AddPod(t.Context(), ref, ns, network.AddOptions{}); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("AddPod: %v, want EEXIST", err)
	}
	command(t, n, plan.NodeID("node1"), "ip", "link", "del", cni.HostLinkName("default/pod-a/1"))
	p, err := n.AddPod(t.Context(), ref, ns, network.AddOptions{})
	if err != nil {
		t.Fatalf("the same again: %v", err)
	}
	if want := netip.MustParseAddr("10.244.1.10"); p.IPs[0] != want {
		t.Errorf("the pod has %s, want %s", p.IPs[0], want)
	}
	wrong := network.PodRef{Namespace: "default", Name: "pod-b", UID: "2", Node: "node1"}
	ns, err = n.NewPodNS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"10.244.2.10", "10.244.1.1", "10.244.1.10"} {
		_, err := n.AddPod(t.Context(), wrong, ns, network.AddOptions{IPs: []netip.Addr{netip.MustParseAddr(bad)}})
		var e *lab.Error
		if !errors.As(err, &e) {
			t.Errorf("AddPod with %s: %v, want a lab.Error", bad, err)
		}
	}
	if err := n.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := labtest.Namespace(log.State(), "pod/default/pod-b"); ok {
		t.Error("pod-b is shown")
	}
}

// A namespace that a learner makes on a node is shown with its links, also
// with the far end of one of them on the node; and goes when it is deleted.
//
//	node1: blue0 --- eth7 :blue
func TestPrivilegedByHand(t *testing.T) {
	n, log := start(t, lab.DefaultLab())
	if err := n.WatchNode("node1", "/proc/self"); err != nil {
		t.Fatal(err)
	}
	node, blue := plan.NodeID("node1"), plan.ByHandID("node1", "blue")
	command(t, n, node, "ip", "netns", "add", "blue")
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "blue").Run() })
	command(t, n, node, "ip", "link", "add", "blue0", "type", "veth", "peer", "name", "eth7", "netns", "blue")
	labtest.WaitState(t, log, "blue and its link", func(s lab.State) bool {
		here, _ := labtest.Link(s, node, "blue0")
		there, ok := labtest.Link(s, blue, "eth7")
		return ok && here.Peer != nil && there.Peer != nil &&
			*here.Peer == lab.LinkRef{Namespace: blue, Index: there.Index} &&
			*there.Peer == lab.LinkRef{Namespace: node, Index: here.Index}
	})
	command(t, n, node, "ip", "-n", "blue", "addr", "add", "10.9.9.9/24", "dev", "eth7")
	labtest.WaitState(t, log, "blue's address", func(s lab.State) bool {
		l, _ := labtest.Link(s, blue, "eth7")
		return slices.Contains(l.Addrs, lab.Addr{Prefix: netip.MustParsePrefix("10.9.9.9/24"), Scope: "global"})
	})
	command(t, n, node, "ip", "netns", "del", "blue")
	labtest.WaitState(t, log, "the end of blue", func(s lab.State) bool {
		_, ns := labtest.Namespace(s, blue)
		_, link := labtest.Link(s, node, "blue0")
		return !ns && !link
	})
}

// command runs a command in a namespace of the lab.
func command(t *testing.T, n *network.Network, in lab.NamespaceID, name string, args ...string) {
	t.Helper()
	err := n.NS(in).Do(func() error {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %s %v: %v", in, name, args, err)
	}
}
