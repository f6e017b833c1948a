package grade

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"podlab/exercises"
	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/check"
	"podlab/web/view"
)

const (
	quiet       = 5 * time.Millisecond  // of events, before checks are evaluated
	bounded     = 50 * time.Millisecond // the longest that events can put it off
	soon, later = 150 * time.Millisecond, 600 * time.Millisecond
	activeEvery = 2 * time.Second
	activeFor   = time.Minute
	idleEvery   = 15 * time.Second
	requestTime = 20 * time.Second // of one request for facts; probes have their own limits
	parallel    = 4                // requests at once
	maxRest     = time.Second      // after an evaluation; else it rests as long as it took
	maxReopen   = 3                // event streams in a row that end without a message
)

// lane is checks that are evaluated from one request: all without probes, or
// one with its probes.
type lane struct {
	checks  []*graded
	probes  map[string]lab.Probe
	due     map[*graded]bool // those to evaluate next
	first   time.Time        // when the first of them became due by an event
	again   time.Time        // when to look again without an event
	rest    time.Time        // not before this
	running bool
}

// graded is a check and its latest result.
type graded struct {
	exercises.Check
	result view.CheckResult
}

// watch is one lab being watched. Its fields belong to run's goroutine.
type watch struct {
	agent   Agent
	report  func([]view.CheckResult)
	touched chan struct{}

	lanes     []*lane
	running   int
	lastEvent time.Time
	lastSeq   uint64
	results   chan outcome
}

// outcome is the end of a lane's request.
type outcome struct {
	lane  *lane
	due   map[*graded]bool
	facts lab.Facts
	err   error
	took  time.Duration
}

func newWatch(e *exercises.Exercise, agent Agent, report func([]view.CheckResult)) *watch {
	w := &watch{agent: agent, report: report, touched: make(chan struct{}, 1), results: make(chan outcome)}
	plain := &lane{due: map[*graded]bool{}}
	for _, task := range e.Tasks {
		for _, c := range task.Checks {
			g := &graded{Check: c, result: view.CheckResult{Task: task.ID, Check: c.ID, Status: view.CheckPending}}
			if len(c.Probes()) == 0 {
				plain.checks = append(plain.checks, g)
				continue
			}
			w.lanes = append(w.lanes, &lane{checks: []*graded{g}, probes: c.Probes(), due: map[*graded]bool{}})
		}
	}
	if len(plain.checks) > 0 {
		w.lanes = append([]*lane{plain}, w.lanes...)
	}
	return w
}

// touch never blocks; touches that come together count as one.
func (w *watch) touch() {
	select {
	case w.touched <- struct{}{}:
	default:
	}
}

// run watches until ctx ends or the agent is gone.
func (w *watch) run(ctx context.Context) {
	work, cancel := context.WithCancel(ctx)
	events := make(chan lab.Event)
	gone := make(chan struct{})
	var why error
	go func() {
		defer close(gone)
		why = w.follow(work, events)
	}()
	w.loop(work, events, gone)
	cancel()
	for w.running > 0 {
		<-w.results
		w.running--
	}
	<-gone
	if ctx.Err() == nil {
		w.lost(why)
	}
}

// loop runs until ctx ends or the agent is gone.
func (w *watch) loop(ctx context.Context, events <-chan lab.Event, gone <-chan struct{}) {
	for {
		timer := time.NewTimer(w.startDue(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-gone:
			timer.Stop()
			return
		case e := <-events:
			w.happened(func(c *graded) bool { return e.Kind == "" || slices.Contains(c.On, e.Kind) })
			w.lastSeq = max(w.lastSeq, e.Seq)
		case <-w.touched:
			w.happened(func(*graded) bool { return true })
		case o := <-w.results:
			w.running--
			w.finished(o)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// follow reads the agent's events into events until the agent is gone. An
// event without a kind stands for "anything may have changed".
func (w *watch) follow(ctx context.Context, events chan<- lab.Event) error {
	send := func(e lab.Event) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	var seq uint64
	for empty := 0; empty < maxReopen; {
		next, done, err := w.agent.Subscribe(ctx, seq)
		if err != nil {
			return err
		}
		empty++
		for {
			m, err := next()
			if err != nil {
				break // cut off, for being slow or because the agent ended; Subscribe tells
			}
			empty = 0
			switch {
			case m.Snapshot != nil:
				seq = m.Snapshot.Seq
				send(lab.Event{Seq: seq})
			case m.Event != nil:
				seq = m.Event.Seq
				send(*m.Event)
			}
		}
		done()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.New("the lab's event stream ends again and again")
}

// happened marks the checks that something may have changed.
func (w *watch) happened(concerns func(*graded) bool) {
	now := time.Now()
	relevant := false
	for _, l := range w.lanes {
		for _, c := range l.checks {
			if !concerns(c) {
				continue
			}
			relevant = true
			if len(l.due) == 0 || l.first.IsZero() {
				l.first = now
			}
			l.due[c] = true
			l.again = now.Add(soon)
		}
	}
	if relevant {
		w.lastEvent = now
	}
}

// startDue starts every lane whose time has come and returns how long until
// the next one's.
func (w *watch) startDue(ctx context.Context) time.Duration {
	now := time.Now()
	next := now.Add(idleEvery)
	for _, l := range w.lanes {
		if l.running || w.running >= parallel {
			continue
		}
		at := l.startAt(w.lastEvent)
		if at.After(now) {
			if at.Before(next) {
				next = at
			}
			continue
		}
		w.start(ctx, l)
	}
	return next.Sub(now)
}

// startAt is when the lane is to be evaluated next.
func (l *lane) startAt(lastEvent time.Time) time.Time {
	at := l.again
	if len(l.due) > 0 {
		at = lastEvent.Add(quiet)
		if limit := l.first.Add(bounded); limit.Before(at) {
			at = limit
		}
	}
	if at.Before(l.rest) {
		at = l.rest
	}
	return at
}

func (w *watch) start(ctx context.Context, l *lane) {
	due := maps.Clone(l.due)
	if len(due) == 0 {
		for _, c := range l.checks {
			due[c] = true
		}
	}
	clear(l.due)
	l.first = time.Time{}
	l.running = true
	w.running++
	go func() {
		start := time.Now()
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		facts, err := w.agent.Facts(ctx, agentapi.FactsRequest{Probes: l.probes})
		w.results <- outcome{lane: l, due: due, facts: facts, err: err, took: time.Since(start)}
	}()
}

// finished evaluates the checks on the facts that came, reports what changed
// and plans when to look again.
func (w *watch) finished(o outcome) {
	now := time.Now()
	l := o.lane
	l.running = false
	l.rest = now.Add(min(o.took, maxRest))
	switch since := now.Sub(w.lastEvent); {
	case since < soon:
		l.again = w.lastEvent.Add(soon)
	case since < later:
		l.again = w.lastEvent.Add(later)
	case since < activeFor:
		l.again = now.Add(activeEvery)
	default:
		l.again = now.Add(idleEvery)
	}
	var changed []view.CheckResult
	for _, c := range l.checks {
		if !o.due[c] {
			continue
		}
		var r check.Result
		if o.err != nil {
			r = c.CouldNotRun(o.err.Error())
		} else {
			r = c.Eval(o.facts)
		}
		if c.update(r, o.facts.State.Seq, now) {
			changed = append(changed, c.result)
		}
	}
	if len(changed) > 0 {
		w.report(changed)
	}
}

// lost reports that no check can be evaluated any more.
func (w *watch) lost(err error) {
	var changed []view.CheckResult
	for _, l := range w.lanes {
		for _, c := range l.checks {
			if c.update(c.CouldNotRun("the lab does not answer: "+err.Error()), w.lastSeq, time.Now()) {
				changed = append(changed, c.result)
			}
		}
	}
	if len(changed) > 0 {
		w.report(changed)
	}
}

var statuses = map[check.Outcome]view.CheckStatus{
	check.Pass: view.CheckPass, check.Fail: view.CheckFail, check.Error: view.CheckError,
}

// update takes up a result and reports whether a reader would see a change.
func (g *graded) update(r check.Result, seq uint64, now time.Time) bool {
	old := g.result
	g.result.Status = statuses[r.Outcome]
	g.result.Want, g.result.Got, g.result.Seq = viewText(r.Want), viewText(r.Got), seq
	if g.result.Status != old.Status {
		g.result.At = now
	}
	return g.result.Status != old.Status || !maps.Equal(g.result.Got, old.Got) || !maps.Equal(g.result.Want, old.Want)
}

func viewText(t exercises.Text) view.Text {
	return view.Text{view.Korean: t.KO, view.English: t.EN}
}
