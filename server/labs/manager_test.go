package labs_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/server/labs/labstest"
	"podlab/server/store"
	"podlab/web/view"
)

// world is a store and a host that outlive managers.
type world struct {
	t        *testing.T
	db       *store.DB
	launcher *labstest.Launcher
	limits   labs.Limits
	m        *labs.Manager
	owner    string
	users    int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "pl")
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, db: db, launcher: &labstest.Launcher{Dir: dir},
		limits: labs.Limits{PerUser: 3, PerHost: 10, Starting: 4, Waiting: 10, StartTimeout: 20 * time.Second},
	}
	w.owner = w.user()
	w.start()
	t.Cleanup(func() {
		w.m.Close()
		w.launcher.Close()
		db.Close()
		os.RemoveAll(dir)
	})
	return w
}

// user adds an account.
func (w *world) user() string {
	w.t.Helper()
	w.users++
	name := strings.Repeat("u", w.users)
	u, err := w.db.EnsureUser(w.t.Context(), class.User{ID: name, Class: "c", Role: view.RoleLearner, Name: name}, name)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.ID
}

// start makes a manager, as a new server does.
func (w *world) start() {
	w.t.Helper()
	w.m = labs.New(w.limits, w.db, w.launcher, labstest.Grader{}, labs.Hooks{}, slog.New(slog.DiscardHandler))
	if err := w.m.Recover(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// restart ends the manager and makes another.
func (w *world) restart() {
	w.m.Close()
	w.start()
}

func (w *world) request(name string) labs.Request {
	return labs.Request{Owner: w.owner, Name: name, Shape: lab.DefaultLab(), Manifests: "kind: Pod"}
}

func (w *world) create(name string) *labs.Lab {
	w.t.Helper()
	l, err := w.m.Create(w.t.Context(), w.request(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

func (w *world) ready(name string) *labs.Lab {
	w.t.Helper()
	l := w.create(name)
	w.await(l, "ready", func(s view.LabStatus) bool { return s.Phase == lab.PhaseReady })
	return l
}

// await waits for a status, following each change.
func (w *world) await(l *labs.Lab, what string, ok func(view.LabStatus) bool) view.LabStatus {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for {
		s, changed := l.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			w.t.Fatalf("lab %s: waited for %s, it is %+v", l.Name(), what, s)
		}
	}
}

func deleted(s view.LabStatus) bool { return s.Deleted }
func failed(s view.LabStatus) bool  { return s.Phase == lab.PhaseFailed }

func (w *world) stored() map[string]lab.Phase {
	w.t.Helper()
	all, err := w.db.Labs(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]lab.Phase{}
	for _, r := range all {
		out[r.Name] = r.Phase
	}
	return out
}

func codeOf(err error) lab.Code {
	if e, ok := errors.AsType[*lab.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestALabFromCreateToDelete(t *testing.T) {
	w := newWorld(t)
	l := w.ready("one")
	agent := w.launcher.Agent(l.ID())
	if c := agent.Config(); c.ID != l.ID() || c.Manifests != "kind: Pod" || len(c.Lab.Spec.Nodes) != 2 {
		t.Errorf("the agent was given %+v", c)
	}
	if got := w.stored()["one"]; got != lab.PhaseReady {
		t.Errorf("the store says %q", got)
	}
	if err := l.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(l, "deleted", deleted)
	if err := l.Delete(t.Context()); err != nil {
		t.Errorf("a second delete: %v", err)
	}
	if len(w.stored()) != 0 || len(w.launcher.Running()) != 0 {
		t.Errorf("left: store %v, host %v", w.stored(), w.launcher.Running())
	}
	if _, err := w.m.Get(l.ID()); codeOf(err) != lab.CodeNotFound {
		t.Errorf("Get after the end: %v", err)
	}
}

func TestLimitsAreHonest(t *testing.T) {
	w := newWorld(t)
	w.ready("one")
	if _, err := w.m.Create(t.Context(), w.request("one")); codeOf(err) != lab.CodeConflict {
		t.Errorf("the same name again: %v", err)
	}
	w.ready("two")
	w.ready("three")
	if _, err := w.m.Create(t.Context(), w.request("four")); codeOf(err) != lab.CodeLimit || !strings.Contains(err.Error(), "3 labs") {
		t.Errorf("a fourth lab: %v", err)
	}
	req := w.request("four")
	req.Unlimited = true
	if _, err := w.m.Create(t.Context(), req); err != nil {
		t.Errorf("an instructor's fourth lab: %v", err)
	}
}

func TestNoRoomIsAQueue(t *testing.T) {
	w := newWorld(t)
	w.limits.PerHost, w.limits.Waiting = 1, 2
	w.restart()
	first := w.ready("first")
	second, third := w.create("second"), w.create("third")
	for l, place := range map[*labs.Lab]int{second: 1, third: 2} {
		if s, _ := l.Status(); s.Queue != place || s.Phase != lab.PhaseCreating {
			t.Errorf("%s: %+v; want place %d", l.Name(), s, place)
		}
	}
	w.owner = w.user()
	if _, err := w.m.Create(t.Context(), w.request("fourth")); codeOf(err) != lab.CodeLimit || !strings.Contains(err.Error(), "2 wait") {
		t.Errorf("a full queue: %v", err)
	}
	if err := first.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(second, "ready", func(s view.LabStatus) bool { return s.Phase == lab.PhaseReady })
	w.await(third, "first place", func(s view.LabStatus) bool { return s.Queue == 1 })
	if err := third.Delete(t.Context()); err != nil { // one that never started
		t.Fatal(err)
	}
	w.await(third, "deleted", deleted)
}

func TestAFailedLabSaysWhyAndCanBeRestarted(t *testing.T) {
	w := newWorld(t)
	l, other := w.ready("one"), w.ready("other")
	w.launcher.Kill(l.ID(), "the agent ran out of memory")
	if s := w.await(l, "failed", failed); s.Reason != "the agent ran out of memory" {
		t.Errorf("reason %q", s.Reason)
	}
	if _, _, err := l.Agent(); codeOf(err) != lab.CodeUnavailable || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("Agent of a failed lab: %v", err)
	}
	if s, _ := other.Status(); s.Phase != lab.PhaseReady {
		t.Errorf("the neighbour is %+v", s)
	}
	if err := l.Restart(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if s := w.await(l, "ready again", func(s view.LabStatus) bool { return s.Phase == lab.PhaseReady }); s.Instance != 2 {
		t.Errorf("instance %d, want 2", s.Instance)
	}
	if err := l.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	w.await(l, "ready once more", func(s view.LabStatus) bool { return s.Phase == lab.PhaseReady && s.Instance == 3 })
}

func TestWhatCannotStartFails(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*world)
		says    string
	}{
		{"launcher refuses", func(w *world) {
			w.launcher.StartError = func(labs.Spec) error { return lab.Errorf(lab.CodeNotSupported, "no user namespaces here") }
		}, "no user namespaces here"},
		{"a defect stays in the log", func(w *world) {
			w.launcher.StartError = func(labs.Spec) error { return errors.New("/etc/secret: permission denied") }
		}, "the server's log says why"},
		{"unknown protocol", func(w *world) {
			w.launcher.Prepare = func(a *labstest.Agent) { a.Protocol = 99 }
		}, "protocol 99"},
		{"never ready", func(w *world) {
			w.launcher.Prepare = func(a *labstest.Agent) { a.Hold = true }
			w.limits.StartTimeout = 50 * time.Millisecond
		}, "not ready within 50ms"},
		{"agent says so", func(w *world) {
			w.launcher.Prepare = func(a *labstest.Agent) {
				a.Hold = true
				a.SetPhase(lab.PhaseFailed, "pod-a: image unknown")
			}
		}, "pod-a: image unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			tc.prepare(w)
			w.restart()
			l := w.create("one")
			if s := w.await(l, "failed", failed); !strings.Contains(s.Reason, tc.says) || strings.Contains(s.Reason, "secret") {
				t.Errorf("reason %q, want %q", s.Reason, tc.says)
			}
			if err := l.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.await(l, "deleted", deleted)
			if left := w.launcher.Running(); len(left) > 0 {
				t.Errorf("agents %v still run", left)
			}
		})
	}
}

func TestAServerThatEndsFinishesItsDeletes(t *testing.T) {
	w := newWorld(t)
	var all []*labs.Lab
	for _, name := range []string{"one", "two", "three"} {
		all = append(all, w.ready(name))
	}
	for _, l := range all {
		if err := l.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.m.Close()
	if len(w.launcher.Running()) != 0 || len(w.stored()) != 0 {
		t.Errorf("left when the server has ended: %v, %v", w.launcher.Running(), w.stored())
	}
}

func TestDeleteWhileCreating(t *testing.T) {
	w := newWorld(t)
	w.launcher.Prepare = func(a *labstest.Agent) { a.Hold = true }
	l := w.create("one")
	if err := l.Restart(t.Context(), false); codeOf(err) != lab.CodeConflict {
		t.Errorf("restart while creating: %v", err)
	}
	if err := l.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.await(l, "deleted", deleted)
	if len(w.launcher.Running()) != 0 || len(w.stored()) != 0 {
		t.Errorf("left: %v, %v", w.launcher.Running(), w.stored())
	}
}

func TestANewServerFindsTheLabs(t *testing.T) {
	w := newWorld(t)
	ready, dead, broken := w.ready("ready"), w.ready("dead"), w.ready("broken")
	w.launcher.Kill(broken.ID(), "broke")
	w.await(broken, "failed", failed)
	w.owner = w.user()
	w.launcher.Prepare = func(a *labstest.Agent) { a.Hold = true }
	w.create("half")
	w.m.Close()
	w.launcher.Kill(dead.ID(), "died alone")
	w.launcher.Prepare = nil
	w.start()

	byName := map[string]*labs.Lab{}
	for _, l := range w.m.List("") {
		byName[l.Name()] = l
	}
	if len(byName) != 3 || byName["half"] != nil {
		t.Fatalf("labs after the restart: %v; want ready, dead, broken", byName)
	}
	w.await(byName["dead"], "failed", failed)
	if s, _ := byName["broken"].Status(); s.Phase != lab.PhaseFailed || s.Reason != "broke" {
		t.Errorf("broken: %+v", s)
	}
	if err := byName["ready"].Await(t.Context()); err != nil {
		t.Fatal(err)
	}
	agent, _, err := byName["ready"].Agent()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := agent.Handshake(t.Context()); err != nil || h.ID != ready.ID() {
		t.Errorf("handshake %+v, %v", h, err)
	}
	if got := w.launcher.Running(); !slices.Equal(got, []string{ready.ID()}) {
		t.Errorf("running %v; want only %s", got, ready.ID())
	}
	if err := byName["broken"].Restart(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.await(byName["broken"], "ready", func(s view.LabStatus) bool { return s.Phase == lab.PhaseReady })
}

func TestChecksAreReportedAndRemembered(t *testing.T) {
	w := newWorld(t)
	req := w.request("ex")
	req.Exercise = "01-first"
	l, err := w.m.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	version, passed := 0, false
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for published := false; !passed; {
		_, changed := l.Status()
		var results []view.CheckResult
		results, version = l.Checks(version)
		for _, r := range results {
			passed = passed || r.Check == "a" && r.Status == view.CheckPass
		}
		if len(results) > 0 && !published {
			published = true
			w.launcher.Agent(l.ID()).Publish(lab.Event{Kind: lab.EventOp, Op: &lab.OpEvent{Command: "pass one/a"}})
		}
		if passed {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("check a did not turn green")
		}
	}
	w.m.Close() // what was reported is written by now
	p, err := w.db.Progress(t.Context(), w.owner)
	if err != nil || len(p) != 2 || !p[0].Passed || p[0].Check != "a" || p[1].Passed {
		t.Errorf("progress %+v, %v; want a passed, b not", p, err)
	}
}

func TestManyLabsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.limits.PerUser, w.limits.PerHost, w.limits.Waiting = 100, 100, 100
	w.restart()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			l, err := w.m.Create(t.Context(), w.request("lab"+strings.Repeat("x", i)))
			if err != nil {
				t.Error(err)
				return
			}
			if i%3 != 0 {
				if err := l.Await(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				if err := l.Delete(t.Context()); err != nil {
					t.Error(err)
				}
				w.await(l, "deleted", deleted)
			}
		})
	}
	wg.Wait()
	if n := len(w.m.List("")); n != 20 {
		t.Errorf("%d labs are left, want 20", n)
	}
}
