// Package grade watches labs with an exercise and says, moments after the
// kernel or the lab's API changed, which checks pass.
//
// When a check is looked at again: when an event of a kind that its exercise
// names (`on`) arrives, as soon as the events are quiet for 5 ms or the first
// of them is 50 ms old; when the learner typed something (Touch); then 150 ms
// and 600 ms later, because a program that was just started needs a moment and
// the kernel has no event for a socket that begins to listen; then every 2 s
// while the lab was active within the last minute, else every 15 s.
//
// Checks without probes share one request for facts; each check with probes
// has its own, so that a slow probe holds up no other check. No check is ever
// evaluated twice at once, at most four requests of a lab are under way, and a
// check's evaluations take at most half of the time.
package grade

import (
	"context"
	"log/slog"
	"sync"

	"podlab/exercises"
	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/agentclient"
	"podlab/web/view"
)

// Agent is what the grader asks of a lab's agent.
type Agent interface {
	Facts(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error)
	// Subscribe opens the events after a number, or all with a snapshot first
	// where it is 0 or too old. next waits for a message.
	Subscribe(ctx context.Context, after uint64) (next func() (agentapi.StreamMessage, error), done func(), err error)
}

// Grader evaluates exercises' checks. It is safe for concurrent use.
type Grader struct {
	find func(id string) *exercises.Exercise
	log  *slog.Logger

	mu      sync.Mutex
	watches map[*agentclient.Client]map[*watch]struct{}
}

// New makes a Grader; find gives an exercise, or nil.
func New(find func(id string) *exercises.Exercise, log *slog.Logger) *Grader {
	return &Grader{find: find, log: log, watches: map[*agentclient.Client]map[*watch]struct{}{}}
}

// Watch evaluates the checks whenever an event may have changed them and
// reports the results that changed, all of them at first. It returns when ctx
// ends or the agent is gone; then every result is an error that says so.
func (g *Grader) Watch(ctx context.Context, exercise string, agent *agentclient.Client, report func([]view.CheckResult)) {
	e := g.find(exercise)
	if e == nil {
		g.log.Error("cannot watch a lab: no such exercise", "exercise", exercise)
		return
	}
	w := newWatch(e, client{agent}, report)
	g.mu.Lock()
	if g.watches[agent] == nil {
		g.watches[agent] = map[*watch]struct{}{}
	}
	g.watches[agent][w] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if delete(g.watches[agent], w); len(g.watches[agent]) == 0 {
			delete(g.watches, agent)
		}
	}()
	w.run(ctx)
}

// Touch says that a learner did something in the lab, such as typing in a
// terminal: its effect may have no event. It never blocks.
func (g *Grader) Touch(agent *agentclient.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.watches[agent] {
		w.touch()
	}
}

// client is an agentclient.Client as an Agent.
type client struct{ *agentclient.Client }

// Subscribe implements Agent.
func (c client) Subscribe(ctx context.Context, after uint64) (func() (agentapi.StreamMessage, error), func(), error) {
	var from *uint64
	if after > 0 {
		from = &after
	}
	events, err := c.Events(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	return events.Next, events.Close, nil
}
