package app

import (
	"context"
	"errors"
	"net"
	"sync"

	"podlab/lab"
	"podlab/server/labs"
	"podlab/server/launch"
)

// Sandboxes makes package launch a labs.Launcher.
func Sandboxes(l *launch.Launcher, limits launch.Limits) labs.Launcher {
	return &sandboxes{l, limits}
}

type sandboxes struct {
	*launch.Launcher
	limits launch.Limits
}

// Start makes a sandbox, or starts a stopped one again.
func (s *sandboxes) Start(ctx context.Context, spec labs.Spec) (labs.Sandbox, error) {
	req := launch.Request{ID: spec.ID, Config: spec.Config, Limits: s.limits}
	_, err := s.Restart(ctx, req)
	if e, ok := errors.AsType[*lab.Error](err); ok && e.Code == lab.CodeNotFound {
		_, err = s.Create(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	return s.box(spec.ID)
}

// Recover finds the sandboxes and deletes those that are not to be kept.
func (s *sandboxes) Recover(ctx context.Context, keep map[string]bool) ([]labs.Sandbox, error) {
	all, err := s.Launcher.Recover(ctx)
	if err != nil {
		return nil, err
	}
	var found []labs.Sandbox
	for _, one := range all {
		if !keep[one.ID] {
			err = errors.Join(err, s.Delete(ctx, one.ID))
			continue
		}
		b, boxErr := s.box(one.ID)
		err = errors.Join(err, boxErr)
		found = append(found, b)
	}
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		if keep[one.ID] {
			continue
		}
		select {
		case <-s.Gone(one.ID):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return found, nil
}

// Discard removes what a stopped sandbox left.
func (s *sandboxes) Discard(ctx context.Context, id string) error {
	if err := s.Delete(ctx, id); err != nil {
		return err
	}
	select {
	case <-s.Gone(id):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sandboxes) box(id string) (*box, error) {
	exit, err := s.Watch(id)
	if err != nil {
		return nil, err
	}
	b := &box{l: s.Launcher, id: id, done: make(chan struct{}), gone: make(chan struct{})}
	go b.watch(exit) // ends with the sandbox, or with the launcher
	return b, nil
}

// box is one start of a sandbox.
type box struct {
	l    *launch.Launcher
	id   string
	done chan struct{}
	gone chan struct{}

	once sync.Once

	mu     sync.Mutex
	reason string
}

func (b *box) watch(exit <-chan launch.Exit) {
	if e, ok := <-exit; ok {
		b.mu.Lock()
		b.reason = e.Reason
		b.mu.Unlock()
	}
	close(b.done)
}

func (b *box) ID() string                                 { return b.id }
func (b *box) Dial(ctx context.Context) (net.Conn, error) { return b.l.Dial(ctx, b.id) }
func (b *box) Confirm(context.Context) error              { return b.l.MoveAgent(b.id) }
func (b *box) Done() <-chan struct{}                      { return b.done }
func (b *box) Gone() <-chan struct{}                      { return b.gone }

func (b *box) Reason() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reason
}

// Stop ends all that runs and keeps the directory.
func (b *box) Stop(ctx context.Context) error {
	err := b.l.Stop(ctx, b.id)
	if err == nil {
		b.once.Do(func() { close(b.gone) })
	}
	return err
}

// Remove deletes the sandbox.
func (b *box) Remove(ctx context.Context) error {
	gone := b.l.Gone(b.id)
	if err := b.l.Delete(ctx, b.id); err != nil {
		return err
	}
	go func() {
		<-gone
		b.once.Do(func() { close(b.gone) })
	}()
	return nil
}
