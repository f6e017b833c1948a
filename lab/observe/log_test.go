package observe_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/labtest"
	"podlab/lab/observe"
)

func TestMain(m *testing.M) { labtest.Main(m) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func newLog() *observe.Log {
	return observe.NewLog(lab.DefaultLab().Spec, func() time.Time { return noon })
}

func phase(reason string) lab.Event {
	return lab.Event{Kind: lab.EventPhase, Phase: &lab.PhaseEvent{Phase: lab.PhaseReady, Reason: reason}}
}

func TestLogNumbersAndKeepsOrder(t *testing.T) {
	log := newLog()
	sub := log.Subscribe(0)
	defer sub.Close()
	if sub.Snapshot == nil || sub.Snapshot.Seq != 0 || sub.Snapshot.Phase != lab.PhaseCreating {
		t.Fatalf("the first snapshot is %+v", sub.Snapshot)
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for k := range 50 {
				log.Publish(phase(fmt.Sprint(i, k)))
			}
		})
	}
	wg.Wait()
	var want uint64 = 1
	for want <= 500 {
		events, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Seq != want || !e.Time.Equal(noon) {
				t.Fatalf("event %d at %s, want %d at %s", e.Seq, e.Time, want, noon)
			}
			want++
		}
	}
	if s := log.State(); s.Seq != 500 || s.Phase != lab.PhaseReady {
		t.Errorf("the state is as of %d, phase %s", s.Seq, s.Phase)
	}
}

func TestLogGoesOnWhereAReaderWas(t *testing.T) {
	log := newLog()
	for i := range 10 {
		log.Publish(phase(fmt.Sprint(i)))
	}
	sub := log.Subscribe(7)
	defer sub.Close()
	if sub.Snapshot != nil {
		t.Errorf("a snapshot for a reader whose events are there")
	}
	events, err := sub.Next(t.Context())
	if err != nil || len(events) != 3 || events[0].Seq != 8 {
		t.Errorf("after 7: %v, %v", events, err)
	}
	// A number from the future is another log's.
	other := log.Subscribe(99)
	defer other.Close()
	if other.Snapshot == nil || other.Snapshot.Seq != 10 {
		t.Errorf("after 99: %+v, want a snapshot as of 10", other.Snapshot)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := other.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next without news: %v", err)
	}
}

func TestLogCutsOffASlowReader(t *testing.T) {
	log := newLog()
	sub := log.Subscribe(0)
	defer sub.Close()
	for range observe.Keep + 1 {
		log.Publish(phase(""))
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, observe.ErrSlow) {
		t.Errorf("Next: %v, want ErrSlow", err)
	}
	back := log.Subscribe(1)
	defer back.Close()
	// Event 2 is the oldest in memory.
	if events, err := back.Next(t.Context()); back.Snapshot != nil || err != nil || events[0].Seq != 2 {
		t.Errorf("after 1: snapshot %v, %v, %v", back.Snapshot, events, err)
	}
	if late := log.Subscribe(0); late.Snapshot == nil || late.Snapshot.Seq != observe.Keep+1 {
		t.Errorf("a new reader gets %+v", late.Snapshot)
	}
	old := log.Before(0, 3)
	if len(old) != 3 || old[2].Seq != observe.Keep+1 || old[0].Seq != observe.Keep-1 {
		t.Errorf("the last three: %v", old)
	}
	if all := log.Before(5, 100); len(all) != 3 || all[0].Seq != 2 || all[2].Seq != 4 {
		t.Errorf("before 5: %v", all)
	}
	if none := log.Before(2, 100); none == nil || len(none) != 0 {
		t.Errorf("before 2: %v, want an empty list", none)
	}
}

// The state is the sum of the events, and a snapshot stays what it was.
func TestStateIsTheSumOfEvents(t *testing.T) {
	log := newLog()
	const ns = lab.NamespaceID("node/node1")
	node := lab.Namespace{ID: ns, Kind: lab.NamespaceNode, Name: "node1", Node: "node1"}
	route := lab.Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Dev: "eth0", Table: 254, Type: "unicast", Scope: "link"}
	set := func(e lab.Event) { e.NS = ns; log.Publish(e) }

	set(lab.Event{Kind: lab.EventLinkSet, Link: &lab.Link{Index: 9, Name: "lost"}}) // before its namespace
	set(lab.Event{Kind: lab.EventNamespaceSet, NetNS: &node})
	set(lab.Event{Kind: lab.EventLinkSet, Link: &lab.Link{Index: 2, Name: "eth0"}})
	set(lab.Event{Kind: lab.EventLinkSet, Link: &lab.Link{Index: 1, Name: "lo"}})
	set(lab.Event{Kind: lab.EventRouteSet, Route: &route})
	log.Publish(lab.Event{Kind: lab.EventPodSet, Pod: &lab.Pod{Namespace: "default", Name: "b"}})
	log.Publish(lab.Event{Kind: lab.EventPodSet, Pod: &lab.Pod{Namespace: "default", Name: "a"}})
	before := log.State()

	changed := route
	changed.Src = netip.MustParseAddr("10.0.0.1")
	set(lab.Event{Kind: lab.EventRouteSet, Route: &changed})
	set(lab.Event{Kind: lab.EventLinkGone, Link: &lab.Link{Index: 2}})
	log.Publish(lab.Event{Kind: lab.EventPodGone, Pod: &lab.Pod{Namespace: "default", Name: "b"}})
	after := log.State()

	links, routes := before.Namespaces[0].Links, before.Namespaces[0].Routes
	if len(links) != 2 || links[0].Name != "lo" || len(routes) != 1 || routes[0] != route || len(before.Pods) != 2 || before.Pods[0].Name != "a" {
		t.Errorf("before: %+v", before)
	}
	links, routes = after.Namespaces[0].Links, after.Namespaces[0].Routes
	if len(links) != 1 || !reflect.DeepEqual(routes, []lab.Route{changed}) || len(after.Pods) != 1 || after.Seq != 10 {
		t.Errorf("after: %+v", after)
	}
	if ns := after.Namespaces[0]; ns.Neighbours == nil || ns.FDB == nil {
		t.Error("an empty list is null in JSON")
	}
	log.Publish(lab.Event{Kind: lab.EventNamespaceGone, NetNS: &node})
	if s := log.State(); len(s.Namespaces) != 0 {
		t.Errorf("the namespace is still there: %+v", s.Namespaces)
	}
}
