// Package labstest stands in for sandboxes in tests of the server: a Launcher
// whose agents run in the test's own process and speak the real protocol over
// real Unix sockets, with a lab that a test makes do what it needs.
package labstest

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/labs"
)

// Launcher is a labs.Launcher without a kernel behind it. It may be given to a
// second manager, as a host outlives a server.
type Launcher struct {
	// Dir holds the sockets; keep it short.
	Dir string
	// Prepare, if set, is called with each agent before it listens.
	Prepare func(*Agent)
	// StartError, if set, may refuse a start.
	StartError func(labs.Spec) error

	mu    sync.Mutex
	boxes map[string]*sandbox
	// changed is closed and replaced when a sandbox comes or goes.
	changed chan struct{}
}

// Start starts an agent.
func (l *Launcher) Start(ctx context.Context, spec labs.Spec) (labs.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if l.StartError != nil {
		if err := l.StartError(spec); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(l.Dir, spec.ID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	s := &sandbox{l: l, dir: dir, Agent: newAgent(spec.Config), done: make(chan struct{}), gone: make(chan struct{})}
	if l.Prepare != nil {
		l.Prepare(s.Agent)
	}
	socket := filepath.Join(dir, agentapi.Socket)
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s.server = &http.Server{Handler: s.handler()}
	s.wg.Go(func() { _ = s.server.Serve(listener) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.boxes == nil {
		l.boxes = map[string]*sandbox{}
	}
	l.boxes[spec.ID] = s
	l.changedLocked()
	return s, nil
}

func (l *Launcher) changedLocked() {
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// Recover finds what Start left.
func (l *Launcher) Recover(ctx context.Context, keep map[string]bool) ([]labs.Sandbox, error) {
	l.mu.Lock()
	var found []labs.Sandbox
	var others []*sandbox
	for id, s := range l.boxes {
		if keep[id] {
			found = append(found, s)
		} else {
			others = append(others, s)
		}
	}
	l.mu.Unlock()
	for _, s := range others {
		if err := s.Remove(ctx); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// Discard removes a directory.
func (l *Launcher) Discard(_ context.Context, id string) error {
	return os.RemoveAll(filepath.Join(l.Dir, id))
}

// Agent returns the agent of a lab, or nil.
func (l *Launcher) Agent(id string) *Agent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.boxes[id]; s != nil {
		return s.Agent
	}
	return nil
}

// Kill ends a lab's agent, as a defect would.
func (l *Launcher) Kill(id, reason string) {
	l.mu.Lock()
	s := l.boxes[id]
	l.mu.Unlock()
	if s != nil {
		s.end(reason)
	}
}

// Running returns the ids of the agents that run.
func (l *Launcher) Running() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := []string{}
	for id := range l.boxes {
		ids = append(ids, id)
	}
	return ids
}

// Close ends all agents.
func (l *Launcher) Close() {
	l.mu.Lock()
	boxes := l.boxes
	l.mu.Unlock()
	for _, s := range boxes {
		s.end("the test is over")
	}
}

// sandbox is one agent with its directory.
type sandbox struct {
	*Agent
	l      *Launcher
	dir    string
	server *http.Server
	wg     sync.WaitGroup
	done   chan struct{}
	gone   chan struct{}

	once     sync.Once
	goneOnce sync.Once
	reason   string
}

func (s *sandbox) ID() string { return s.config.ID }

func (s *sandbox) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(s.dir, agentapi.Socket))
	if err != nil {
		return nil, lab.Errorf(lab.CodeUnavailable, "the agent's socket is not there: %v", err)
	}
	return conn, nil
}

func (s *sandbox) Confirm(context.Context) error {
	s.confirmed.Store(true)
	return nil
}

func (s *sandbox) Done() <-chan struct{} { return s.done }
func (s *sandbox) Gone() <-chan struct{} { return s.gone }
func (s *sandbox) Reason() string        { return s.reason }

func (s *sandbox) end(reason string) {
	s.once.Do(func() {
		s.reason = reason
		s.close()
		s.server.Close()
		s.wg.Wait()
		s.l.mu.Lock()
		if s.l.boxes[s.ID()] == s {
			delete(s.l.boxes, s.ID())
		}
		s.l.changedLocked()
		s.l.mu.Unlock()
		close(s.done)
	})
}

func (s *sandbox) Stop(context.Context) error {
	s.end("stopped")
	s.goneOnce.Do(func() { close(s.gone) })
	return nil
}

func (s *sandbox) Remove(context.Context) error {
	s.end("removed")
	err := os.RemoveAll(s.dir)
	s.goneOnce.Do(func() { close(s.gone) })
	return err
}
