package network_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/labtest"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/observe"
	"podlab/lab/plan"
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
