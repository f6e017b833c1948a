package stream

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/server/agentclient"
	"podlab/server/labs"
	"podlab/web/view"
)

// brokenWait is how long the lab manager may take to notice an agent's end.
const brokenWait = 2 * time.Second

// Stats counts; fields may be nil.
type Stats struct {
	// Forwarded is called for each event or snapshot sent to a browser.
	Forwarded func()
}

// Events follows one lab and sends all that happens, in order, as
// view.StreamMessage. after is the last event that the browser knows, of the
// instance given (0: of the present one).
func Events(ctx context.Context, c *Conn, l *labs.Lab, version string, after *uint64, instance int, stats Stats) error {
	s := &eventSender{conn: c, lab: l, after: after, instance: instance, stats: stats}
	status, _ := l.Status()
	if err := s.send(view.StreamMessage{Type: view.MessageHello, Hello: &view.Hello{Version: version, Now: time.Now().UTC(), Lab: status}}); err != nil {
		return err
	}
	s.status = status
	for {
		if err := s.follow(ctx); err != nil {
			return s.explain(ctx, err)
		}
	}
}

// eventSender is the one writer of a connection.
type eventSender struct {
	conn     *Conn
	lab      *labs.Lab
	stats    Stats
	status   view.LabStatus // as last sent
	checks   int            // version last sent
	after    *uint64
	instance int // that after belongs to
}

// follow sends what the server knows; while there is an agent, it sends what
// comes from there too, and returns when the agent's stream ends.
func (s *eventSender) follow(ctx context.Context) error {
	changed, err := s.sendOurs()
	if err != nil {
		return err
	}
	agent, instance, err := s.lab.Agent()
	if err != nil {
		return wait(ctx, changed)
	}
	if s.instance != 0 && s.instance != instance {
		s.after = nil // numbers start again with each instance
	}
	s.instance = instance
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := agent.Events(ctx, s.after)
	if err != nil {
		return s.broke(ctx, agent, err)
	}
	messages := make(chan agentclient.RawMessage, 16)
	var readErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(messages)
		readErr = pump(ctx, events, messages)
	})
	defer wg.Wait()
	defer events.Close()
	defer cancel()
	for {
		select {
		case m, open := <-messages:
			if !open && errors.Is(readErr, agentclient.ErrBroke) {
				return s.broke(ctx, agent, readErr)
			}
			if !open {
				return readErr
			}
			if err := s.forward(m); err != nil {
				return err
			}
		case <-changed:
			if changed, err = s.sendOurs(); err != nil {
				return err
			}
			if gone(s.lab, agent) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// broke is called when the agent no longer talks. Mostly it has ended, and the
// lab manager is about to say so; should it not, the browser comes back.
func (s *eventSender) broke(ctx context.Context, agent *agentclient.Client, err error) error {
	patience := time.NewTimer(brokenWait)
	defer patience.Stop()
	for {
		_, changed := s.lab.Status()
		if gone(s.lab, agent) {
			return nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump reads the agent's stream.
func pump(ctx context.Context, events *agentclient.Events, to chan<- agentclient.RawMessage) error {
	for {
		m, err := events.NextRaw()
		if err != nil {
			return err
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gone reports whether the lab no longer has this agent.
func gone(l *labs.Lab, agent *agentclient.Client) bool {
	now, _, _ := l.Agent()
	return now != agent
}

func wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sendOurs sends status and checks, if they changed, and returns the channel
// that tells of the next change.
func (s *eventSender) sendOurs() (<-chan struct{}, error) {
	status, changed := s.lab.Status()
	results, version := s.lab.Checks(s.checks)
	s.checks = version
	if status != s.status {
		s.status = status
		if err := s.send(view.StreamMessage{Type: view.MessageLab, Lab: &status}); err != nil {
			return nil, err
		}
	}
	if len(results) > 0 {
		if err := s.send(view.StreamMessage{Type: view.MessageChecks, Checks: results}); err != nil {
			return nil, err
		}
	}
	if status.Deleted {
		return nil, labs.NotFound(s.lab.ID())
	}
	return changed, nil
}

func (s *eventSender) send(m view.StreamMessage) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.conn.Send(websocket.TextMessage, b)
}

// forward passes the agent's message on as it stands; it was read as JSON.
func (s *eventSender) forward(m agentclient.RawMessage) error {
	kind, body := view.MessageEvent, m.Event
	if m.Snapshot != nil {
		kind, body = view.MessageSnapshot, m.Snapshot
	}
	var head struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return lab.Errorf(lab.CodeUnavailable, "the lab's agent sent an event that cannot be read")
	}
	s.after = &head.Seq
	b := make([]byte, 0, len(body)+40)
	b = append(b, `{"type":"`...)
	b = append(b, kind...)
	b = append(b, `","`...)
	b = append(b, kind...) // the field has the type's name
	b = append(b, `":`...)
	b = append(b, body...)
	b = append(b, '}')
	if s.stats.Forwarded != nil {
		s.stats.Forwarded()
	}
	return s.conn.Send(websocket.TextMessage, b)
}

// explain tells the browser the reason in a last message, where it is not the
// browser that ended the stream.
func (s *eventSender) explain(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*lab.Error](err); ok && ctx.Err() == nil && e.Code != lab.CodeNotFound {
		_ = s.send(view.StreamMessage{Type: view.MessageError, Error: e}) // the last word, if it is heard
	}
	return err
}
