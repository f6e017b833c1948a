package labtest

import (
	"context"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/observe"
)

// patience is how long a test waits for an event before it fails.
const patience = 10 * time.Second

// WaitState waits until the lab's state is as want says, looking again at
// each event, and returns it. what names the wish in the failure.
func WaitState(t testing.TB, log *observe.Log, what string, want func(lab.State) bool) lab.State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sub := log.Subscribe(0)
	defer sub.Close()
	state := *sub.Snapshot
	for !want(state) {
		if _, err := sub.Next(ctx); err != nil {
			t.Fatalf("waited %s in vain for %s: %v; the state is %+v", patience, what, err, state)
		}
		state = log.State()
	}
	return state
}

// Namespace returns a namespace of a state by its id, and false if it is not there.
func Namespace(s lab.State, id lab.NamespaceID) (lab.Namespace, bool) {
	for _, ns := range s.Namespaces {
		if ns.ID == id {
			return ns, true
		}
	}
	return lab.Namespace{}, false
}

// Link returns a link of a namespace by name, and false if it is not there.
func Link(s lab.State, id lab.NamespaceID, name string) (lab.Link, bool) {
	ns, _ := Namespace(s, id)
	for _, l := range ns.Links {
		if l.Name == name {
			return l, true
		}
	}
	return lab.Link{}, false
}
