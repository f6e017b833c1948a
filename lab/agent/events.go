package agent

import (
	"context"
	"net/http"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// eventSource is the lab's log, with the state that it leads to.
type eventSource interface {
	// Subscribe returns a snapshot (nil when every event after `after` is still
	// in the log) and the events that follow.
	Subscribe(after uint64) (*lab.State, subscription, error)
}

// subscription yields events in order.
type subscription interface {
	// Next waits for events; it fails when this subscriber fell too far behind.
	Next(ctx context.Context) ([]lab.Event, error)
	Close()
}

// serveEvents streams the lab's log.
func (s *socket) serveEvents(w http.ResponseWriter, r *http.Request) {
	after, err := queryInt(r, "after")
	if err != nil {
		fail(w, err)
		return
	}
	snapshot, sub, err := s.events.Subscribe(uint64(after))
	if err != nil {
		fail(w, err)
		return
	}
	defer sub.Close()
	s.serveSocket(w, r, noInput, func(ctx context.Context, c *wsConn) error {
		if snapshot != nil {
			if err := c.writeJSON(agentapi.StreamMessage{Snapshot: snapshot}); err != nil {
				return err
			}
			snapshot = nil
		}
		for {
			events, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			for i := range events {
				if err := c.writeJSON(agentapi.StreamMessage{Event: &events[i]}); err != nil {
					return err
				}
			}
		}
	})
}
