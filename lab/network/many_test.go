package network_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"podlab/lab"
	"podlab/lab/labtest"
	"podlab/lab/network"
)

// Many pods come and go at once: each has addresses of its own, all are shown,
// and all are gone in the end.
func TestPrivilegedManyAtOnce(t *testing.T) {
	n, log := start(t, lab.DefaultLab())
	const count = 24
	ref := func(i int) network.PodRef {
		name := fmt.Sprintf("pod-%d", i)
		return network.PodRef{Namespace: "default", Name: name, UID: name, Node: fmt.Sprintf("node%d", 1+i%2)}
	}
	pods := make([]network.PodNet, count)
	each(count, func(i int) {
		ns, err := n.NewPodNS(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if pods[i], err = n.AddPod(t.Context(), ref(i), ns, network.AddOptions{}); err != nil {
			t.Error(err)
		}
	})
	taken := map[netip.Addr]int{}
	for i, p := range pods {
		for _, ip := range p.IPs {
			if other, ok := taken[ip]; ok {
				t.Errorf("pods %d and %d have %s", other, i, ip)
			}
			taken[ip] = i
		}
	}
	labtest.WaitState(t, log, "all pods with both ends of their links", func(s lab.State) bool {
		joined := 0
		for i, p := range pods {
			host, _ := labtest.Link(s, lab.NamespaceID("node/"+ref(i).Node), p.HostLink)
			there, _ := labtest.Link(s, p.NS, p.Link)
			if host.Running && host.Peer != nil && there.Peer != nil && *host.Peer == (lab.LinkRef{Namespace: p.NS, Index: there.Index}) {
				joined++
			}
		}
		return joined == count
	})
	if t.Failed() {
		return
	}
	for _, i := range []int{1, 2, count - 1} {
		ping(t, n, pods[0].NS, pods[i].IPs[0])
	}
	each(count, func(i int) {
		if err := n.DelPod(t.Context(), ref(i), network.DelOptions{}); err != nil {
			t.Error(err)
		}
	})
	labtest.WaitState(t, log, "no pods", func(s lab.State) bool {
		left := 0
		for i, p := range pods {
			if _, ok := labtest.Link(s, lab.NamespaceID("node/"+ref(i).Node), p.HostLink); ok {
				left++
			}
		}
		return left == 0 && len(s.Namespaces) == 3
	})
}

// each runs f for 0 to n-1, all at once.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
