package labs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/agentclient"
	"podlab/web/view"
)

// Causes that end the work of a lab's goroutine.
var (
	errDeleted    = errors.New("the lab is being deleted")
	errRestarted  = errors.New("the lab is being restarted")
	errAgentEnded = errors.New("the lab's agent has ended")
)

// interrupted is what the store says of a lab while it restarts: should the
// server end then, the lab is not lost.
const interrupted = "the server ended while the lab was restarting"

// adoptTimeout bounds how long a running agent may take to answer a new server.
const adoptTimeout = 10 * time.Second

// spawnLocked runs f in the lab's goroutine, after what ran there before.
// m.mu is held.
func (l *Lab) spawnLocked(f func(context.Context)) {
	if l.m.closed {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithCancelCause(l.m.ctx)
	before, ended := l.ended, make(chan struct{})
	l.cancel, l.ended = cancel, ended
	l.m.wg.Go(func() {
		defer close(ended)
		defer cancel(nil)
		if before != nil {
			<-before
		}
		f(ctx)
	})
}

// interrupt ends the goroutine's work; whatever is spawned next comes after it.
func (l *Lab) interrupt(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel(cause)
	}
}

// save writes phase and reason to the store. Nothing is written after
// PhaseDeleting, so that a delete that was answered stays one.
func (l *Lab) save(ctx context.Context, phase lab.Phase, reason string) error {
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	if l.doomed {
		return errDeleted
	}
	r := l.record
	l.mu.Lock()
	r.Instance = l.status.Instance
	l.mu.Unlock()
	r.Phase, r.Reason = phase, reason
	if err := l.m.store.UpdateLab(ctx, r); err != nil {
		return err
	}
	l.doomed = phase == lab.PhaseDeleting
	return nil
}

// start is the life of one instance: boot, then follow until it ends.
func (l *Lab) start(ctx context.Context) {
	began := time.Now()
	err := l.boot(ctx)
	l.m.started()
	if err == nil {
		took := time.Since(began)
		l.m.log.Info("lab ready", "lab", l.record.ID, "exercise", l.record.Exercise, "took", took.String())
		if l.m.hooks.Ready != nil {
			l.m.hooks.Ready(took)
		}
	}
	l.follow(ctx, err)
}

// adopt is the life of an instance that a former server started.
func (l *Lab) adopt(ctx context.Context) {
	client, _, err := l.Agent()
	if err != nil {
		client = agentclient.New(l.sandbox.Dial)
	}
	l.follow(ctx, l.connect(ctx, client, adoptTimeout))
}

// boot starts the sandbox and returns when the lab is ready.
func (l *Lab) boot(ctx context.Context) error {
	phase, reason := lab.PhaseCreating, ""
	if s, _ := l.Status(); s.Instance > 1 {
		phase, reason = lab.PhaseFailed, interrupted
	}
	if err := l.save(ctx, phase, reason); err != nil {
		return err
	}
	began := time.Now()
	s, err := l.m.launcher.Start(ctx, Spec{ID: l.record.ID, Config: agentapi.Config{
		ID: l.record.ID, Lab: l.record.Shape, Manifests: l.record.Manifests,
	}})
	if err != nil {
		return fmt.Errorf("cannot start the sandbox: %w", err)
	}
	l.sandbox = s
	l.m.log.Debug("sandbox started", "lab", l.record.ID, "took", time.Since(began).String())
	return l.connect(ctx, agentclient.New(s.Dial), l.m.limits.StartTimeout)
}

// connect greets the agent and waits until its lab is ready. Streams may
// connect from the greeting on.
func (l *Lab) connect(ctx context.Context, client *agentclient.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, lab.Errorf(lab.CodeUnavailable, "it was not ready within %s", timeout))
	defer cancel()
	ctx, stop := untilDone(ctx, l.sandbox)
	defer stop()
	began := time.Now()
	h, err := client.AwaitHandshake(ctx)
	if err != nil {
		return err
	}
	l.m.log.Debug("agent answered", "lab", l.record.ID, "took", time.Since(began).String())
	if h.Protocol != agentapi.Protocol && h.Protocol != agentapi.Protocol-1 || h.ID != l.record.ID {
		return lab.Errorf(lab.CodeUnavailable, "its agent (podlab %.40q, protocol %d) is not one that this server (protocol %d) can speak with", h.Version, h.Protocol, agentapi.Protocol)
	}
	if now, _, _ := l.Agent(); now != client {
		l.update(func() { l.agent = client })
	}
	var confirmed error
	var wg sync.WaitGroup
	wg.Go(func() { confirmed = l.sandbox.Confirm(ctx) })
	err = awaitReady(ctx, client, h)
	wg.Wait()
	return errors.Join(err, confirmed)
}

// untilDone returns a context that also ends with the sandbox's agent.
func untilDone(parent context.Context, s Sandbox) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-s.Done():
			cancel(errAgentEnded)
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// awaitReady reads the agent's events until its phase is ready or failed.
func awaitReady(ctx context.Context, client *agentclient.Client, h agentapi.Handshake) error {
	phase, reason := h.Phase, h.Reason
	events, err := client.Events(ctx, nil)
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		switch phase {
		case lab.PhaseReady:
			return nil
		case lab.PhaseFailed:
			return lab.Errorf(lab.CodeUnavailable, "%.2000s", reason)
		}
		m, err := events.Next()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case m.Snapshot != nil:
			phase, reason = m.Snapshot.Phase, m.Snapshot.Reason
		case m.Event != nil && m.Event.Phase != nil:
			phase, reason = m.Event.Phase.Phase, m.Event.Phase.Reason
		}
	}
}

// follow lives as long as the instance. err is why it never became ready.
func (l *Lab) follow(ctx context.Context, err error) {
	if ctx.Err() != nil { // deleted, restarted or closing: another takes over
		l.dropAgent()
		return
	}
	if err != nil {
		l.fail(ctx, l.reasonOf(err))
		return
	}
	// Written first, told then: whoever has seen the lab ready finds it again
	// after a crash.
	if err := l.save(ctx, lab.PhaseReady, ""); err != nil && ctx.Err() == nil {
		l.m.log.Error("cannot save the lab's phase", "lab", l.record.ID, "error", err)
	}
	l.update(func() { l.status.Phase, l.status.Reason, l.status.Queue = lab.PhaseReady, "", 0 })
	client, _, _ := l.Agent()
	work, stop := untilDone(ctx, l.sandbox)
	var wg sync.WaitGroup
	if l.m.grader != nil && l.record.Exercise != "" {
		wg.Go(func() {
			l.m.grader.Watch(work, l.record.Exercise, client, func(r []view.CheckResult) { l.report(work, r) })
		})
	}
	<-work.Done()
	stop()
	wg.Wait()
	l.dropAgent()
	if ctx.Err() == nil {
		l.fail(ctx, l.reasonOf(errAgentEnded))
	}
}

// dropAgent ends all talk with the agent.
func (l *Lab) dropAgent() {
	l.mu.Lock()
	client := l.agent
	l.mu.Unlock()
	if client != nil {
		l.update(func() { l.agent = nil })
		client.Close()
	}
}

// reasonOf puts an error into words for people; the log has the rest.
func (l *Lab) reasonOf(err error) string {
	l.m.log.Warn("lab failed", "lab", l.record.ID, "error", err)
	if errors.Is(err, errAgentEnded) {
		if l.sandbox != nil && l.sandbox.Reason() != "" {
			return l.sandbox.Reason()
		}
		return "the lab's agent ended while the server was away"
	}
	if e, ok := errors.AsType[*lab.Error](err); ok && e.Code != lab.CodeInternal {
		return e.Error()
	}
	return "the lab could not be started; the server's log says why"
}

// fail ends an instance for a reason; its directory stays for a restart.
func (l *Lab) fail(ctx context.Context, reason string) {
	l.dropAgent()
	if l.m.hooks.Failed != nil {
		l.m.hooks.Failed()
	}
	if err := l.save(ctx, lab.PhaseFailed, reason); err != nil && ctx.Err() == nil {
		l.m.log.Error("cannot save the lab's phase", "lab", l.record.ID, "error", err)
	}
	l.update(func() { l.status.Phase, l.status.Reason, l.status.Queue = lab.PhaseFailed, reason, 0 })
	if l.end(ctx, Sandbox.Stop) {
		l.m.release(l)
	}
}

// end stops or removes the sandbox, if there is one, and waits until all of it
// is gone. It returns false when ctx ended first.
func (l *Lab) end(ctx context.Context, how func(Sandbox, context.Context) error) bool {
	s := l.sandbox
	if s == nil {
		return ctx.Err() == nil
	}
	if err := how(s, ctx); err != nil && ctx.Err() == nil {
		l.m.log.Error("cannot end the sandbox", "lab", l.record.ID, "error", err)
	}
	select {
	case <-s.Gone():
		l.sandbox = nil
		return true
	case <-ctx.Done():
		return false
	}
}

// Delete ends the lab and all that is in it. It returns once the intent is
// written; the rest follows within a second.
func (l *Lab) Delete(ctx context.Context) error {
	if s, _ := l.Status(); s.Phase == lab.PhaseDeleting {
		return nil
	}
	if err := l.save(ctx, lab.PhaseDeleting, ""); err != nil {
		return err
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.closed {
		return lab.Errorf(lab.CodeUnavailable, "the server is going down; the lab will be deleted when it is back")
	}
	if s, _ := l.Status(); s.Phase == lab.PhaseDeleting {
		return nil
	}
	l.m.unqueueLocked(l)
	l.update(func() { l.status.Phase, l.status.Reason, l.status.Queue = lab.PhaseDeleting, "", 0 })
	l.interrupt(errDeleted)
	l.spawnLocked(l.remove)
	return nil
}

// removeTimeout bounds a removal; one takes some tens of milliseconds.
const removeTimeout = 5 * time.Second

// remove is the end of a lab. A server that ends finishes it: nobody may be
// there to start the next one.
func (l *Lab) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	l.dropAgent()
	if l.sandbox == nil {
		if err := l.m.launcher.Discard(ctx, l.record.ID); err != nil && ctx.Err() == nil {
			l.m.log.Error("cannot remove the lab's directory", "lab", l.record.ID, "error", err)
		}
	}
	if !l.end(ctx, Sandbox.Remove) {
		return // the next server goes on
	}
	if err := l.m.store.DeleteLab(ctx, l.record.ID); err != nil {
		l.m.log.Error("cannot delete the lab from the store", "lab", l.record.ID, "error", err)
		return
	}
	l.m.forget(l)
	l.update(func() { l.status.Deleted = true })
}

// Restart starts the lab again: with its objects as they are in the journal,
// or, if fresh, from its manifests as at the beginning.
func (l *Lab) Restart(ctx context.Context, fresh bool) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	s, _ := l.Status()
	switch {
	case l.m.closed:
		return lab.Errorf(lab.CodeUnavailable, "the server is going down; try again in a moment")
	case s.Phase != lab.PhaseReady && s.Phase != lab.PhaseFailed:
		return lab.Errorf(lab.CodeConflict, "the lab is %s; it can be restarted when it is ready or failed", s.Phase)
	}
	l.update(func() {
		l.status.Phase, l.status.Reason = lab.PhaseCreating, ""
		l.status.Instance++
		clear(l.checks)
		l.version++
	})
	l.interrupt(errRestarted)
	l.spawnLocked(func(ctx context.Context) { l.again(ctx, fresh) })
	return nil
}

// again ends an instance and queues the next.
func (l *Lab) again(ctx context.Context, fresh bool) {
	l.dropAgent()
	if err := l.save(ctx, lab.PhaseFailed, interrupted); err != nil {
		if ctx.Err() == nil {
			l.fail(ctx, l.reasonOf(err))
		}
		return
	}
	how := Sandbox.Stop
	if fresh {
		how = Sandbox.Remove
		if l.sandbox == nil {
			if err := l.m.launcher.Discard(ctx, l.record.ID); err != nil && ctx.Err() == nil {
				l.m.log.Error("cannot remove the lab's directory", "lab", l.record.ID, "error", err)
			}
		}
	}
	if !l.end(ctx, how) {
		return
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.enqueueLocked(l)
}
