// Package labs is the lab manager: it creates labs when there is room, follows
// each through its life, finds them again after a restart of the server, and
// deletes them.
//
// Each lab has one goroutine (run.go) that alone starts and ends its sandbox;
// callers ask it through the lab's methods and watch its status. What is about
// to be done is in the store before it is done. A Manager and its Labs are
// safe for concurrent use; errors that a caller acts on are *lab.Error.
package labs

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"podlab/lab"
	"podlab/server/agentclient"
)

// Limits of a manager.
type Limits struct {
	// PerUser is the most labs one learner has; PerHost the most that run.
	PerUser, PerHost int
	// Starting is the most that start at the same time: the kernel makes
	// network namespaces one after the other anyway.
	Starting int
	// Waiting is the most labs that wait for room.
	Waiting int
	// StartTimeout bounds the time from start to ready.
	StartTimeout time.Duration
}

// Hooks tell what happens, for metrics. Fields may be nil.
type Hooks struct {
	// Ready is called with the time from create to ready.
	Ready func(time.Duration)
	// Failed is called when a lab fails.
	Failed func()
}

// Manager of all labs of this server.
type Manager struct {
	limits   Limits
	store    Store
	launcher Launcher
	grader   Grader // nil: no checks
	hooks    Hooks
	log      *slog.Logger

	ctx  context.Context // ends with Close
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	labs    map[string]*Lab
	queue   []*Lab // those that wait for room, first come first served
	holding int    // labs that hold a place on the host
	// starting counts those between start and ready.
	starting int
}

// errClosing is the cause when the server ends: labs live on.
var errClosing = errors.New("the server is going down")

// New makes a manager with no labs; Recover finds those of a former server.
func New(limits Limits, store Store, launcher Launcher, grader Grader, hooks Hooks, log *slog.Logger) *Manager {
	m := &Manager{
		limits: limits, store: store, launcher: launcher, grader: grader, hooks: hooks, log: log,
		labs: map[string]*Lab{},
	}
	m.ctx, m.stop = context.WithCancelCause(context.Background())
	return m
}

// Close waits until nobody follows a lab any more. The labs live on; those
// that were not ready yet are removed by the next server.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop(errClosing)
	m.wg.Wait()
}

// Recover brings store and host together after a restart. Labs that were
// ready are followed again; those whose agent ended meanwhile are failed;
// those that were half made or half deleted are removed from both.
func (m *Manager) Recover(ctx context.Context) error {
	records, err := m.store.Labs(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, r := range records {
		if kept(r) {
			keep[r.ID] = true
		}
	}
	found, err := m.launcher.Recover(ctx, keep)
	if err != nil {
		return fmt.Errorf("cannot find the labs of the former server: %w", err)
	}
	sandboxes := map[string]Sandbox{}
	for _, s := range found {
		sandboxes[s.ID()] = s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		if !kept(r) {
			if err := m.store.DeleteLab(ctx, r.ID); err != nil {
				return err
			}
			continue
		}
		m.adoptLocked(r, sandboxes[r.ID])
	}
	return nil
}

// kept reports whether a lab of a former server stays.
func kept(r Record) bool { return r.Phase == lab.PhaseReady || r.Phase == lab.PhaseFailed }

// adoptLocked takes up a lab of a former server; s is nil when nothing is left of it.
func (m *Manager) adoptLocked(r Record, s Sandbox) {
	l := newLab(m, r)
	m.labs[r.ID] = l
	l.sandbox = s
	ended := s == nil
	if s != nil {
		select {
		case <-s.Done():
			ended = true
		default:
		}
	}
	switch {
	case !ended:
		m.holding++
		l.holds = true
		if r.Phase == lab.PhaseReady {
			l.agent = agentclient.New(s.Dial) // may be asked at once; adopt looks whether it answers
		}
		l.spawnLocked(l.adopt)
	case r.Phase == lab.PhaseReady:
		l.spawnLocked(func(ctx context.Context) { l.fail(ctx, l.reasonOf(errAgentEnded)) })
	}
}

// Request is what a lab is made from.
type Request struct {
	Owner    string // user id
	Name     string
	Exercise string
	// Shape and Manifests as parsed; see ParseManifest.
	Shape     lab.Lab
	Manifests string
	// Unlimited: the instructor is not held to PerUser.
	Unlimited bool
}

// Create makes a lab and returns at once; its status tells how it goes.
func (m *Manager) Create(ctx context.Context, req Request) (*Lab, error) {
	r := Record{
		ID: newID(), Owner: req.Owner, Name: req.Name, Exercise: req.Exercise, Shape: req.Shape, Manifests: req.Manifests,
		Phase: lab.PhaseCreating, Instance: 1, CreatedAt: time.Now().UTC(),
	}
	l, err := m.admit(r, req.Unlimited)
	if err != nil {
		return nil, err
	}
	if err := m.store.AddLab(ctx, r); err != nil {
		m.forget(l)
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enqueueLocked(l)
	return l, nil
}

// admit checks the limits and enters the lab, so that two requests at once
// cannot both take the last place or the same name.
func (m *Manager) admit(r Record, unlimited bool) (*Lab, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, lab.Errorf(lab.CodeUnavailable, "the server is going down; try again in a moment")
	}
	mine := 0
	for _, l := range m.labs {
		if l.record.Owner != r.Owner {
			continue
		}
		mine++
		if l.record.Name == r.Name {
			return nil, &lab.Error{Code: lab.CodeConflict, Field: "name", Message: fmt.Sprintf("you have a lab named %q already; choose another name or delete it", r.Name)}
		}
	}
	if mine >= m.limits.PerUser && !unlimited {
		return nil, lab.Errorf(lab.CodeLimit, "you have %d labs, the most allowed here; delete one first", mine)
	}
	if len(m.queue) >= m.limits.Waiting {
		return nil, lab.Errorf(lab.CodeLimit, "there is no room: %d labs run and %d wait; try again later", m.holding, len(m.queue))
	}
	l := newLab(m, r)
	m.labs[r.ID] = l
	return l, nil
}

// enqueueLocked puts a lab at the end of the queue and moves the queue on.
func (m *Manager) enqueueLocked(l *Lab) {
	m.queue = append(m.queue, l)
	m.advanceLocked()
}

// advanceLocked starts as many waiting labs as there is room for and tells
// the others their place.
func (m *Manager) advanceLocked() {
	if m.closed {
		return
	}
	for len(m.queue) > 0 && m.starting < m.limits.Starting && (m.queue[0].holds || m.holding < m.limits.PerHost) {
		l := m.queue[0]
		m.queue = m.queue[1:]
		m.starting++
		if !l.holds {
			m.holding++
			l.holds = true
		}
		l.setPlace(0)
		l.spawnLocked(l.start)
	}
	full := m.holding >= m.limits.PerHost
	for i, l := range m.queue {
		place := 0
		if full && !l.holds {
			place = i + 1
		}
		l.setPlace(place)
	}
}

// started ends a lab's time among the starting.
func (m *Manager) started() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starting--
	m.advanceLocked()
}

// Full reports whether a new lab would have to wait for room.
func (m *Manager) Full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holding >= m.limits.PerHost
}

// Get returns a lab by id, or CodeNotFound.
func (m *Manager) Get(id string) (*Lab, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.labs[id]; l != nil {
		return l, nil
	}
	return nil, NotFound(id)
}

// NotFound is the error for a lab that is not there, or not the caller's.
func NotFound(id string) error {
	if len(id) > 40 {
		id = id[:40] + "…"
	}
	return lab.Errorf(lab.CodeNotFound, "there is no lab %q", id)
}

// List returns the labs that belong to an owner, or all if owner is empty,
// oldest first.
func (m *Manager) List(owner string) []*Lab {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []*Lab{}
	for _, l := range m.labs {
		if owner == "" || l.record.Owner == owner {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *Lab) int {
		return cmp.Or(a.record.CreatedAt.Compare(b.record.CreatedAt), strings.Compare(a.record.ID, b.record.ID))
	})
	return out
}

// Phases counts the labs in each phase.
func (m *Manager) Phases() map[lab.Phase]int {
	out := map[lab.Phase]int{lab.PhaseCreating: 0, lab.PhaseReady: 0, lab.PhaseFailed: 0, lab.PhaseDeleting: 0}
	for _, l := range m.List("") {
		s, _ := l.Status()
		out[s.Phase]++
	}
	return out
}

// forget takes a lab out of everything.
func (m *Manager) forget(l *Lab) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.labs, l.record.ID)
	m.unqueueLocked(l)
	m.releaseLocked(l)
}

func (m *Manager) unqueueLocked(l *Lab) {
	m.queue = slices.DeleteFunc(m.queue, func(q *Lab) bool { return q == l })
}

// release gives back a lab's place on the host.
func (m *Manager) release(l *Lab) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.releaseLocked(l)
}

// releaseLocked gives back a lab's place on the host.
func (m *Manager) releaseLocked(l *Lab) {
	if l.holds {
		l.holds = false
		m.holding--
	}
	m.advanceLocked()
}

// idLetters of a lab's id, as base32 has them.
const idLetters = "abcdefghijklmnopqrstuvwxyz234567"

func newID() string {
	b := make([]byte, 10)
	rand.Read(b)
	for i := range b {
		b[i] = idLetters[b[i]&31]
	}
	return string(b)
}
