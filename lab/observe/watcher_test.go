package observe_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/kernel"
	"podlab/lab/labtest"
	"podlab/lab/observe"
	"podlab/lab/plan"
)

const blue = lab.NamespaceID("netns/node1/blue")

// watch watches one fresh namespace, blue.
func watch(t *testing.T) (*observe.Watcher, *observe.Log, *kernel.Handle) {
	t.Helper()
	labtest.Privileged(t)
	h, err := kernel.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	log := newLog()
	w, err := observe.NewWatcher(observe.WatcherConfig{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		h.Close()
	})
	w.Add(lab.Namespace{ID: blue, Kind: lab.NamespaceByHand, Name: "blue", Node: "node1"}, h)
	return w, log, h
}

// batch runs ip commands, one a line, in the namespace.
func batch(t *testing.T, h *kernel.Handle, lines string) {
	t.Helper()
	err := h.NS().Do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(lines)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("ip -batch: %v", err)
	}
}

// events returns those of a kind that came after number seq.
func events(log *observe.Log, seq uint64, kinds ...lab.EventKind) []lab.Event {
	return slices.DeleteFunc(log.Before(0, observe.Keep), func(e lab.Event) bool {
		return e.Seq <= seq || !slices.Contains(kinds, e.Kind)
	})
}

// a0 --- a1, both in blue. The kernel drops the route without saying so when
// a0 goes down.
func TestPrivilegedRoutesOfALinkThatGoesDown(t *testing.T) {
	_, log, h := watch(t)
	batch(t, h, `link add a0 type veth peer name a1
		link set a0 up
		link set a1 up
		addr add 10.1.0.1/24 dev a0
		route add 10.2.0.0/16 via 10.1.0.2
		route add 10.3.0.0/16 nexthop via 10.1.0.3 nexthop via 10.1.0.4`)
	routes := func(s lab.State) int {
		ns, _ := labtest.Namespace(s, blue)
		n := 0
		for _, r := range ns.Routes {
			if r.Dst.Addr().Is4() && r.Dev == "a0" {
				n++
			}
		}
		return n
	}
	s := labtest.WaitState(t, log, "four routes", func(s lab.State) bool { return routes(s) == 4 })
	here, _ := labtest.Link(s, blue, "a0")
	there, _ := labtest.Link(s, blue, "a1")
	if here.Peer == nil || there.Peer == nil || here.Peer.Index != there.Index || there.Peer.Index != here.Index {
		t.Errorf("the ends are %+v and %+v", here, there)
	}
	batch(t, h, "route replace 10.2.0.0/16 via 10.1.0.9")
	labtest.WaitState(t, log, "the other gateway alone", func(s lab.State) bool {
		ns, _ := labtest.Namespace(s, blue)
		var via []netip.Addr
		for _, r := range ns.Routes {
			if r.Dst == netip.MustParsePrefix("10.2.0.0/16") {
				via = append(via, r.Gateway)
			}
		}
		return slices.Equal(via, []netip.Addr{netip.MustParseAddr("10.1.0.9")})
	})
	batch(t, h, "link set a0 down")
	labtest.WaitState(t, log, "no routes", func(s lab.State) bool { return routes(s) == 0 })
	batch(t, h, "link del a1")
	labtest.WaitState(t, log, "no links but lo", func(s lab.State) bool {
		ns, ok := labtest.Namespace(s, blue)
		return ok && len(ns.Links) == 1
	})
}

// More changes than the socket holds: some are lost, and the state is right.
func TestPrivilegedLostChanges(t *testing.T) {
	w, log, h := watch(t)
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := w.Hold()
	var lines strings.Builder
	lines.WriteString("link add a0 type veth peer name a1\nlink set a0 up\n")
	const count = 300
	for i := range count {
		fmt.Fprintf(&lines, "addr add 10.%d.%d.1/32 dev a0\nroute add 11.%d.%d.0/24 dev a0\n", i/250, i%250, i/250, i%250)
	}
	batch(t, h, lines.String())
	release()
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	ns, _ := labtest.Namespace(log.State(), blue)
	routes := slices.DeleteFunc(slices.Clone(ns.Routes), func(r lab.Route) bool { return r.Protocol != "boot" })
	if len(routes) != count {
		t.Errorf("the state has %d routes, want %d", len(routes), count)
	}
	// All at once, and not one event for each.
	if n := len(events(log, 0, lab.EventLinkSet)); n > 20 {
		t.Errorf("%d events of links for one resync", n)
	}
}

// A neighbour that is asked for again and again stays what it is in the log.
func TestPrivilegedNeighbours(t *testing.T) {
	w, log, h := watch(t)
	batch(t, h, `link add a0 type veth peer name a1
		link set a0 up
		link set a1 up
		neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev a0 nud reachable`)
	neigh := func(s lab.State) (lab.Neigh, bool) {
		ns, _ := labtest.Namespace(s, blue)
		i := slices.IndexFunc(ns.Neighbours, func(n lab.Neigh) bool { return n.Addr == netip.MustParseAddr("10.1.0.2") })
		if i < 0 {
			return lab.Neigh{}, false
		}
		return ns.Neighbours[i], true
	}
	s := labtest.WaitState(t, log, "the neighbour", func(s lab.State) bool { _, ok := neigh(s); return ok })
	if n, _ := neigh(s); n != (lab.Neigh{Addr: netip.MustParseAddr("10.1.0.2"), Dev: "a0", MAC: "02:00:00:00:00:02", State: "REACHABLE"}) {
		t.Errorf("the neighbour is %+v", n)
	}
	for range 20 {
		batch(t, h, "neigh change 10.1.0.2 dev a0 nud delay\nneigh change 10.1.0.2 dev a0 nud probe\nneigh change 10.1.0.2 dev a0 nud reachable")
	}
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if churn := events(log, s.Seq, lab.EventNeighSet, lab.EventNeighGone); len(churn) != 0 {
		t.Errorf("%d events for a neighbour that stayed the same: %+v", len(churn), churn[0].Neigh)
	}
	batch(t, h, "neigh del 10.1.0.2 dev a0")
	labtest.WaitState(t, log, "no neighbour", func(s lab.State) bool { _, ok := neigh(s); return !ok })
}

// What does not change makes no events.
func TestPrivilegedNoFlood(t *testing.T) {
	w, log, h := watch(t)
	batch(t, h, "link add a0 type veth peer name a1\nlink set a0 up\nlink set a1 up")
	labtest.WaitState(t, log, "both ends with a carrier and an address", func(s lab.State) bool {
		a0, _ := labtest.Link(s, blue, "a0")
		a1, _ := labtest.Link(s, blue, "a1")
		return a0.Running && len(a0.Addrs) == 1 && a1.Running && len(a1.Addrs) == 1
	})
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	seq := log.State().Seq
	for range 20 {
		batch(t, h, "link set a0 up\nlink set a0 mtu 1500\nlink set a0 alias same\nlink set a0 alias other")
	}
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range events(log, seq, lab.EventLinkSet, lab.EventLinkGone) {
		t.Errorf("event %d: %+v", e.Seq, e.Link)
	}
}

// A learner who makes more than the agent keeps is shown a part; and when
// things go, what is left.
func TestPrivilegedLimits(t *testing.T) {
	w, log, h := watch(t)
	batch(t, h, "link add a0 type veth peer name a1\nlink set a0 up\nlink set a1 up")
	var add, del strings.Builder
	const count = 1200
	for i := range count {
		fmt.Fprintf(&add, "route add 11.%d.%d.0/24 dev a0\n", i/250, i%250)
		if i >= 10 {
			fmt.Fprintf(&del, "route del 11.%d.%d.0/24 dev a0\n", i/250, i%250)
		}
	}
	routes := func() int {
		t.Helper()
		if err := w.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		ns, _ := labtest.Namespace(log.State(), blue)
		return len(slices.DeleteFunc(slices.Clone(ns.Routes), func(r lab.Route) bool { return r.Protocol != "boot" }))
	}
	batch(t, h, add.String())
	if n := routes(); n < 900 || n > 1000 {
		t.Errorf("%d of %d routes are shown, want at most 1000", n, count)
	}
	batch(t, h, del.String())
	if n := routes(); n != 10 {
		t.Errorf("%d routes are shown, want the 10 that are left", n)
	}
}

// Changes without end make few events, and the last of them is told.
func TestPrivilegedFlood(t *testing.T) {
	w, log, h := watch(t)
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	seq := log.State().Seq
	ops := []plan.Op{plan.LinkUp{Name: "lo"}, plan.LinkDown{Name: "lo"}}
	start := time.Now()
	const count = 3001
	for i := range count {
		if err := h.Apply(ops[i%2:][:1], nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(start)
	labtest.WaitState(t, log, "lo up", func(s lab.State) bool {
		lo, _ := labtest.Link(s, blue, "lo")
		return lo.Up
	})
	if err := w.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One look in 10 ms, after the first 50, and this test's own.
	most := 50 + int(took/(10*time.Millisecond)) + 5
	if n := len(events(log, seq, lab.EventLinkSet)); n > most {
		t.Errorf("%d events for %d changes in %s, want at most %d", n, count, took, most)
	}
	lo, _ := labtest.Link(log.State(), blue, "lo")
	if !lo.Up {
		t.Error("lo is down in the state")
	}
}
