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
	// Before returns the last limit events before seq that are still in the log,
	// in order; seq 0 means the end.
	Before(seq uint64, limit int) []lab.Event
}

// maxLog is the most events of one look into the log.
const maxLog = 5000

// serveLog answers with events of the past.
func (s *socket) serveLog(w http.ResponseWriter, r *http.Request) {
	before, err := queryInt(r, "before")
	if err != nil {
		fail(w, err)
		return
	}
	limit, err := queryInt(r, "limit")
	if err != nil {
		fail(w, err)
		return
	}
	if limit == 0 || limit > maxLog {
		limit = maxLog
	}
	reply(w, append([]lab.Event{}, s.events.Before(uint64(before), int(limit))...))
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
