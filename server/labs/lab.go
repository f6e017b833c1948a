package labs

import (
	"context"
	"sync"
	"time"

	"podlab/lab"
	"podlab/server/agentclient"
	"podlab/web/view"
)

// Lab is one lab that the manager knows.
type Lab struct {
	m *Manager
	// record never changes; what does is in status.
	record Record

	// Guarded by m.mu:
	holds bool // a place on the host

	// sandbox belongs to the lab's goroutine.
	sandbox Sandbox

	saveMu sync.Mutex
	doomed bool // PhaseDeleting is in the store

	mu      sync.Mutex
	status  view.LabStatus
	agent   *agentclient.Client // nil while there is none to talk to
	checks  map[checkKey]checkState
	version int                     // of checks
	changed chan struct{}           // closed and replaced at each change
	cancel  context.CancelCauseFunc // ends the goroutine's work
	ended   chan struct{}           // closed when the goroutine has ended
}

type checkKey struct{ task, check string }

type checkState struct {
	result  view.CheckResult
	version int
}

func newLab(m *Manager, r Record) *Lab {
	return &Lab{
		m: m, record: r, changed: make(chan struct{}), checks: map[checkKey]checkState{},
		status: view.LabStatus{Phase: r.Phase, Reason: r.Reason, Instance: r.Instance},
	}
}

// ID of the lab.
func (l *Lab) ID() string { return l.record.ID }

// Owner is the user id of the lab's owner.
func (l *Lab) Owner() string { return l.record.Owner }

// Name that the owner gave.
func (l *Lab) Name() string { return l.record.Name }

// Exercise that the lab is for, or empty.
func (l *Lab) Exercise() string { return l.record.Exercise }

// CreatedAt is when the lab was asked for.
func (l *Lab) CreatedAt() time.Time { return l.record.CreatedAt }

// Status returns the lab's status and a channel that is closed when it, the
// agent or a check changes.
func (l *Lab) Status() (view.LabStatus, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status, l.changed
}

// Agent returns a client of the lab's agent and the instance that it belongs
// to, or CodeUnavailable with the reason why there is none.
func (l *Lab) Agent() (*agentclient.Client, int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.agent != nil {
		return l.agent, l.status.Instance, nil
	}
	if l.status.Phase == lab.PhaseFailed {
		return nil, 0, lab.Errorf(lab.CodeUnavailable, "the lab has failed: %s; restart it", l.status.Reason)
	}
	return nil, 0, lab.Errorf(lab.CodeUnavailable, "the lab is %s; try again when it is ready", l.status.Phase)
}

// Checks returns the results that changed after a version, in no order, and
// the version to ask with next. Version 0 gives all.
func (l *Lab) Checks(after int) ([]view.CheckResult, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []view.CheckResult
	for _, c := range l.checks {
		if c.version > after {
			out = append(out, c.result)
		}
	}
	return out, l.version
}

// Await waits until the lab is ready, or returns why it will not be.
func (l *Lab) Await(ctx context.Context) error {
	for {
		s, changed := l.Status()
		switch s.Phase {
		case lab.PhaseReady:
			return nil
		case lab.PhaseFailed:
			return lab.Errorf(lab.CodeUnavailable, "the lab has failed: %s", s.Reason)
		case lab.PhaseDeleting:
			return NotFound(l.record.ID)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// update changes what mu guards and tells all who watch.
func (l *Lab) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// setPlace tells the lab's place in the queue.
func (l *Lab) setPlace(place int) {
	l.mu.Lock()
	same := l.status.Queue == place
	l.mu.Unlock()
	if !same {
		l.update(func() { l.status.Queue = place })
	}
}

// report takes results of the grader. They are written first: who has seen a
// check green finds it green in the progress.
func (l *Lab) report(ctx context.Context, results []view.CheckResult) {
	if len(results) == 0 {
		return
	}
	if err := l.m.store.SaveChecks(ctx, l.record.Owner, l.record.Exercise, results); err != nil && ctx.Err() == nil {
		l.m.log.Error("cannot save progress", "lab", l.record.ID, "error", err)
	}
	l.update(func() {
		l.version++
		for _, r := range results {
			l.checks[checkKey{r.Task, r.Check}] = checkState{r, l.version}
		}
	})
}
