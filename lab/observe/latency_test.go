package observe_test

import (
	"testing"

	"podlab/lab"
	"podlab/lab/kernel"
	"podlab/lab/observe"
	"podlab/lab/plan"
)

// BenchmarkPrivilegedEvent is the time from a request to the kernel to its
// event at a reader of the log.
func BenchmarkPrivilegedEvent(b *testing.B) {
	h, err := kernel.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	log := newLog()
	w, err := observe.NewWatcher(observe.WatcherConfig{Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	w.Add(lab.Namespace{ID: blue, Kind: lab.NamespaceByHand, Name: "blue"}, h)
	if err := w.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
	sub := log.Subscribe(0)
	defer sub.Close()
	ops := []plan.Op{plan.LinkDown{Name: "lo"}, plan.LinkUp{Name: "lo"}}
	for i := 0; b.Loop(); i++ {
		if err := h.Apply(ops[(i+1)%2:][:1], nil, nil); err != nil {
			b.Fatal(err)
		}
		if _, err := sub.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := w.Settle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	w.Remove(blue)
	h.Close()
}
