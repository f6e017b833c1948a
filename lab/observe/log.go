// Package observe sees what happens in a lab: the one ordered log of its
// events (Log), and the kernel's changes as they come (Watcher).
package observe

import (
	"context"
	"errors"
	"sync"
	"time"
	"unsafe"

	"podlab/lab"
)

// ErrSlow ends a subscription whose next event is no longer in the log. The
// subscriber subscribes again and starts from a snapshot.
var ErrSlow = errors.New("events were missed: the reader was too slow")

// How much the log has in memory, for readers that come back: so many events,
// of so many bytes together.
const (
	keep      = 4096
	keepBytes = 4 << 20
)

// Log is a lab's one ordered event log and the State that the events add up
// to. Publish never blocks; a reader that cannot keep up is cut off and not
// waited for. All methods are safe for concurrent use.
type Log struct {
	now func() time.Time

	mu    sync.Mutex
	state state
	ring  [keep]lab.Event // event Seq is at (Seq-1) % keep
	first uint64          // the oldest event in memory
	last  uint64
	bytes int // of the events in memory, about
	subs  map[*Subscription]struct{}
}

// NewLog returns an empty log for a lab with this wanted shape. now is the
// clock of the events' times.
func NewLog(spec lab.Spec, now func() time.Time) *Log {
	return &Log{now: now, state: newState(spec), first: 1, subs: map[*Subscription]struct{}{}}
}

// Publish gives the event its number and, unless it has one, its time, and
// adds it to the log. It returns the number.
func (l *Log) Publish(e lab.Event) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.publishLocked(e)
}

// PublishAll publishes events that no other comes between.
func (l *Log) PublishAll(events []lab.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.publishLocked(e)
	}
}

func (l *Log) publishLocked(e lab.Event) uint64 {
	l.last++
	e.Seq = l.last
	if e.Time.IsZero() {
		e.Time = l.now().UTC()
	}
	l.state.fold(e)
	l.bytes += size(e)
	for l.last-l.first >= keep || l.bytes > keepBytes && l.first < l.last {
		oldest := &l.ring[(l.first-1)%keep]
		l.bytes -= size(*oldest)
		*oldest = lab.Event{}
		l.first++
	}
	l.ring[(e.Seq-1)%keep] = e
	for s := range l.subs {
		s.wake()
	}
	return e.Seq
}

// State returns the state as of the last event.
func (l *Log) State() lab.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.snapshot(l.last)
}

// Before returns up to limit events that came before number seq and are still
// in memory, in order; seq 0 is the end of the log.
func (l *Log) Before(seq uint64, limit int) []lab.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq == 0 || seq > l.last+1 {
		seq = l.last + 1
	}
	first := l.first
	if limit >= 0 && seq > uint64(limit) {
		first = max(first, seq-uint64(limit))
	}
	events := []lab.Event{}
	for ; first < seq; first++ {
		events = append(events, l.ring[(first-1)%keep])
	}
	return events
}

// Subscription reads a log from some point on. One goroutine reads it.
type Subscription struct {
	// Snapshot is what to start from, or nil when the reader is to go on from
	// the event that it asked for.
	Snapshot *lab.State

	log   *Log
	next  uint64
	token chan struct{}
}

// Subscribe returns a subscription to the events after number after; when
// those are not all in memory, or after is 0, it starts with a snapshot. The
// caller closes it.
func (l *Log) Subscribe(after uint64) *Subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &Subscription{log: l, next: after + 1, token: make(chan struct{}, 1)}
	if after == 0 || after > l.last || s.next < l.first {
		snapshot := l.state.snapshot(l.last)
		s.Snapshot, s.next = &snapshot, l.last+1
	}
	l.subs[s] = struct{}{}
	return s
}

// maxRead bounds the events of one Next.
const maxRead = 256

// Next waits for events and returns them in order, at least one. It returns
// ErrSlow when the reader has fallen out of the log, and ctx's error.
func (s *Subscription) Next(ctx context.Context) ([]lab.Event, error) {
	for {
		events, err := s.read()
		if len(events) > 0 || err != nil {
			return events, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.token:
		}
	}
}

func (s *Subscription) read() ([]lab.Event, error) {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.next < l.first {
		return nil, ErrSlow
	}
	n := min(l.last+1-s.next, maxRead)
	if n == 0 {
		return nil, nil
	}
	events := make([]lab.Event, 0, n)
	for range n {
		events = append(events, l.ring[(s.next-1)%keep])
		s.next++
	}
	return events, nil
}

// size is about how many bytes an event takes in memory.
func size(e lab.Event) int {
	n := int(unsafe.Sizeof(e))
	switch {
	case e.Link != nil:
		n += int(unsafe.Sizeof(*e.Link)) + len(e.Link.Addrs)*int(unsafe.Sizeof(lab.Addr{}))
	case e.Op != nil:
		n += int(unsafe.Sizeof(*e.Op)) + len(e.Op.Command) + len(e.Op.Error)
	case e.Pod != nil:
		n += int(unsafe.Sizeof(*e.Pod)) + len(e.Pod.Containers)*2*int(unsafe.Sizeof(lab.Container{})) + len(e.Pod.Labels)*64
	case e.Step != nil:
		n += int(unsafe.Sizeof(*e.Step)) + len(e.Step.Detail) + len(e.Step.Error)
	case e.Kube != nil:
		n += int(unsafe.Sizeof(*e.Kube)) + len(e.Kube.Message)
	default:
		n += int(unsafe.Sizeof(lab.Route{}))
	}
	return n
}

func (s *Subscription) wake() {
	select {
	case s.token <- struct{}{}:
	default:
	}
}

// Close ends the subscription. It is idempotent.
func (s *Subscription) Close() {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	delete(s.log.subs, s)
}
