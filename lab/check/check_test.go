package check

import (
	"net/netip"
	"strings"
	"testing"

	"podlab/lab"
)

func running(ns ...uint64) lab.ProcessFacts {
	return lab.ProcessFacts{Running: true, Namespaces: map[string]uint64{"net": ns[0], "mnt": ns[1]}, Args: []string{"nginx", "-g"}}
}

// threeContainers are the facts of a pod with a web server on the wildcard
// and an exporter on loopback, in one network namespace.
func threeContainers() lab.Facts {
	return lab.Facts{
		State: lab.State{Namespaces: []lab.Namespace{{ID: "pod/default/web", Inode: 7, Links: []lab.Link{{Index: 2, Name: "eth0", Peer: &lab.LinkRef{Namespace: "node/node1", Index: 9}}}}}},
		Pods: map[string]lab.PodFacts{"default/web": {
			Pod: lab.Pod{
				Name: "web", Namespace: "default", Ready: true,
				IPs:        []netip.Addr{netip.MustParseAddr("10.244.1.12"), netip.MustParseAddr("fd00::c")},
				Containers: []lab.Container{{Name: "app", State: "running"}, {Name: "metrics", State: "waiting", Reason: "CrashLoopBackOff", Restarts: 3}},
			},
			Containers: map[string]lab.ProcessFacts{"app": running(7, 1), "metrics": running(7, 2)},
			Sockets: []lab.Socket{
				{Proto: "tcp", Addr: netip.MustParseAddr("0.0.0.0"), Port: 80, Container: "app"},
				{Proto: "tcp6", Addr: netip.MustParseAddr("::"), Port: 9113, Container: "app"},
				{Proto: "tcp", Addr: netip.MustParseAddr("127.0.0.1"), Port: 9100, Container: "metrics"},
				{Proto: "udp", Addr: netip.MustParseAddr("0.0.0.0"), Port: 53},
			},
		}},
		Nodes:  map[string]lab.ProcessFacts{"node1": running(3, 4)},
		Probes: map[string]lab.ProbeResult{"get": {OK: true, Status: 200, Body: "hello", Answers: []string{"a", "b"}}},
	}
}

func TestExpressions(t *testing.T) {
	tests := []struct {
		expr string
		want Outcome
	}{
		{`listening(pod("web"), 80)`, Pass},
		{`listening(pod("default/web"), 81)`, Fail},
		{`listening(pod("web"), 53)`, Fail}, // UDP
		{`listens(pod("web"), "127.0.0.1", 9100)`, Pass},
		{`listens(pod("web"), "0.0.0.0", 9100)`, Fail},
		{`listens(pod("web"), "nonsense", 9100)`, Fail},
		{`reachableAt(pod("web"), "10.244.1.12", 80)`, Pass},
		{`reachableAt(pod("web"), "10.244.1.12", 9100)`, Fail},
		{`reachableAt(pod("web"), "10.244.1.12", 9113)`, Pass}, // :: takes IPv4
		{`reachableAt(pod("web"), "fd00::c", 80)`, Fail},
		{`owner(pod("web"), 9100) == "metrics"`, Pass},
		{`sharesNS(pod("web"), "net")`, Pass},
		{`sharesNS(pod("web"), "mnt")`, Fail},
		{`sharesNS(pod("web"), "nosuch")`, Fail},
		{`sameNS(pod("web").containers["app"], nodes["node1"], "net")`, Fail},
		{`state(pod("web"), "metrics").reason == "CrashLoopBackOff" && state(pod("web"), "metrics").restarts > 2`, Pass},
		{`state(pod("web"), "none").state == ""`, Pass},
		{`ip4(pod("web")).startsWith("10.244.1.") && ip6(pod("web")) == "fd00::c"`, Pass},
		{`inCIDR(ip4(pod("web")), "10.244.1.0/24")`, Pass},
		{`inCIDR("x", "10.244.1.0/24")`, Fail},
		{`listening(pod("gone"), 80)`, Fail},
		{`pods["default/web"].containers["app"].namespaces["net"] == 7`, Pass},
		{`pods.all(name, name.startsWith("default/"))`, Pass},
		{`probes.get.ok && probes["get"].status == 200 && probes.get.body.contains("ell") && size(probes.get.answers) == 2`, Pass},
		{`state.namespaces.exists(n, n.inode == 7 && n.links.exists(l, l.name == "eth0" && l.peer.index == 9 && !has(l.vxlan)))`, Pass},
		{`state.namespaces[3].inode == 7`, Fail},
		{`state.namespaces[0].links[0].vxlan.vni == 0`, Pass},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			spec := Spec{Expr: tt.expr}
			if strings.Contains(tt.expr, "probes") {
				spec.Probes = map[string]lab.Probe{"get": {From: "web", HTTP: &lab.HTTPProbe{URL: "http://127.0.0.1/"}}}
			}
			c, err := Compile(spec)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Eval(threeContainers()); got.Outcome != tt.want {
				t.Errorf("got %s (%s), want %s", got.Outcome, got.Got.EN, tt.want)
			}
			if got := c.Eval(lab.Facts{Probes: map[string]lab.ProbeResult{"get": {}}}); got.Outcome == Error {
				t.Errorf("on empty facts: error %s; not being there yet is a failure", got.Got.EN)
			}
		})
	}
}
