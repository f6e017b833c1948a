package grade

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"podlab/exercises"
	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/web/view"
)

const twoChecks = `
title: {ko: 제목, en: title}
summary: {ko: 요약, en: summary}
covers: [P1]
minutes: 5
tasks:
- id: one
  title: {ko: 하나, en: one}
  checks:
  - id: listens
    title: {ko: 듣는다, en: listens}
    expr: listening(pod("web"), 80)
    want: {ko: 포트 80, en: port 80}
    saw: {ko: "소켓 ${size(pod('web').sockets)}", en: "${size(pod('web').sockets)} sockets"}
    on: [pod.set]
  - id: answers
    title: {ko: 답한다, en: answers}
    probes: {web: {from: pod-b, tcp: {addr: "{ip4 web}:80"}}}
    expr: probes.web.ok
    want: {ko: 연결, en: connects}
    saw: {ko: "${probes.web.error}", en: "${probes.web.error}"}
    on: [link.set]
`

func exercise(t *testing.T) *exercises.Exercise {
	t.Helper()
	text := []byte(`{{task "one"}}`)
	course, err := exercises.Load(fstest.MapFS{
		"01-one/exercise.yaml": {Data: []byte(twoChecks)},
		"01-one/lesson.ko.md":  {Data: text}, "01-one/lesson.en.md": {Data: text},
	})
	if err != nil {
		t.Fatal(err)
	}
	return course.Get("01-one")
}

// fakeAgent is a lab whose web server and reachability a test switches.
type fakeAgent struct {
	mu        sync.Mutex
	listening bool
	reachable bool
	slow      time.Duration // of requests with probes
	err       error
	requests  []string // "plain" and "probes", in order
	atOnce    int      // requests of one kind that run now
	most      int

	events chan agentapi.StreamMessage
	gone   chan struct{}
}

func newFake() *fakeAgent { return &fakeAgent{} }

func (f *fakeAgent) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeAgent) Facts(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error) {
	f.mu.Lock()
	kind, slow := "plain", time.Millisecond
	if len(req.Probes) > 0 {
		kind, slow = "probes", max(f.slow, slow)
	}
	f.requests = append(f.requests, kind)
	if kind == "probes" {
		f.atOnce++
		f.most = max(f.most, f.atOnce)
	}
	f.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == "probes" {
		f.atOnce--
	}
	if f.err != nil || ctx.Err() != nil {
		return lab.Facts{}, errors.Join(f.err, ctx.Err())
	}
	pod := lab.PodFacts{}
	if f.listening {
		pod.Sockets = []lab.Socket{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: 80}}
	}
	facts := lab.Facts{Pods: map[string]lab.PodFacts{"default/web": pod}, Probes: map[string]lab.ProbeResult{}}
	for id := range req.Probes {
		facts.Probes[id] = lab.ProbeResult{OK: f.reachable, Error: "connection refused"}
	}
	return facts, nil
}

func (f *fakeAgent) Subscribe(ctx context.Context, _ uint64) (func() (agentapi.StreamMessage, error), func(), error) {
	select {
	case <-f.gone:
		return nil, nil, errors.New("connection refused")
	default:
	}
	return func() (agentapi.StreamMessage, error) {
		select {
		case m := <-f.events:
			return m, nil
		case <-f.gone:
			return agentapi.StreamMessage{}, errors.New("ended")
		case <-ctx.Done():
			return agentapi.StreamMessage{}, ctx.Err()
		}
	}, func() {}, nil
}

func (f *fakeAgent) event(kind lab.EventKind) {
	f.events <- agentapi.StreamMessage{Event: &lab.Event{Seq: 1, Kind: kind}}
}

// run watches with a fake clock; the returned map holds the latest results.
func run(t *testing.T, f *fakeAgent, test func(w *watch, latest func(check string) view.CheckResult)) {
	e := exercise(t)
	synctest.Test(t, func(t *testing.T) {
		f.events, f.gone = make(chan agentapi.StreamMessage), make(chan struct{}) // of this bubble
		var mu sync.Mutex
		results := map[string]view.CheckResult{}
		w := newWatch(e, f, func(rs []view.CheckResult) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range rs {
				results[r.Check] = r
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.run(ctx)
		}()
		test(w, func(check string) view.CheckResult {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return results[check]
		})
		cancel()
		<-ended
	})
}

// pass advances the fake clock.
func pass(d time.Duration) { <-time.After(d) }

func TestFirstResults(t *testing.T) {
	run(t, newFake(), func(_ *watch, latest func(string) view.CheckResult) {
		pass(10 * time.Millisecond)
		for _, id := range []string{"listens", "answers"} {
			if r := latest(id); r.Status != view.CheckFail || r.Task != "one" || r.At.IsZero() || r.Got[view.English] == "" || r.Want[view.Korean] == "" {
				t.Errorf("%s: %+v", id, r)
			}
		}
	})
}

func TestGreenAndRedAgain(t *testing.T) {
	f := newFake()
	run(t, f, func(_ *watch, latest func(string) view.CheckResult) {
		pass(time.Second)
		for _, want := range []view.CheckStatus{view.CheckPass, view.CheckFail, view.CheckPass} {
			f.set(func() { f.listening = want == view.CheckPass })
			f.event("pod.set")
			pass(20 * time.Millisecond)
			if r := latest("listens"); r.Status != want {
				t.Fatalf("20 ms after the event: %s, want %s", r.Status, want)
			}
			pass(time.Second)
		}
	})
}

func TestOnlyChecksThatTheEventConcerns(t *testing.T) {
	f := newFake()
	run(t, f, func(_ *watch, latest func(string) view.CheckResult) {
		pass(20 * time.Minute) // idle
		f.set(func() { f.requests = nil })
		f.event("link.set")
		f.event("neigh.set")
		pass(20 * time.Millisecond)
		latest("answers")
		f.set(func() {
			if !slices.Equal(f.requests, []string{"probes"}) {
				t.Errorf("requests after link.set: %v", f.requests)
			}
		})
	})
}

func TestBurstIsOneEvaluationAndBounded(t *testing.T) {
	f := newFake()
	run(t, f, func(_ *watch, latest func(string) view.CheckResult) {
		pass(time.Second)
		f.set(func() { f.requests, f.listening = nil, true })
		for range 100 { // 100 events, 1 ms apart: never quiet for 5 ms
			f.event("pod.set")
			pass(time.Millisecond)
		}
		if r := latest("listens"); r.Status != view.CheckPass {
			t.Errorf("a burst put off the check: %s", r.Status)
		}
		f.set(func() {
			if n := len(f.requests); n < 1 || n > 4 {
				t.Errorf("%d requests for a burst of 100 events", n)
			}
		})
	})
}

func TestTouchSeesWhatHasNoEvent(t *testing.T) {
	f := newFake()
	run(t, f, func(w *watch, latest func(string) view.CheckResult) {
		pass(time.Hour)
		w.touch()
		pass(100 * time.Millisecond)
		f.set(func() { f.listening, f.reachable = true, true }) // the program took 100 ms to start
		pass(100 * time.Millisecond)
		for _, id := range []string{"listens", "answers"} {
			if r := latest(id); r.Status != view.CheckPass {
				t.Errorf("%s: %s", id, r.Status)
			}
		}
	})
}

func TestSlowProbeHoldsUpNothing(t *testing.T) {
	f := newFake()
	f.slow = 10 * time.Second
	run(t, f, func(w *watch, latest func(string) view.CheckResult) {
		pass(100 * time.Millisecond)
		f.set(func() { f.listening = true })
		f.event("pod.set")
		f.event("link.set")
		pass(20 * time.Millisecond)
		if r := latest("listens"); r.Status != view.CheckPass {
			t.Errorf("the slow probe held up a check without one: %s", r.Status)
		}
		pass(time.Minute)
		latest("answers")
		f.set(func() {
			if f.most != 1 {
				t.Errorf("%d evaluations of one check at once", f.most)
			}
		})
	})
}

func TestIdleLabCostsLittle(t *testing.T) {
	f := newFake()
	run(t, f, func(_ *watch, latest func(string) view.CheckResult) {
		pass(10 * time.Minute)
		f.set(func() { f.requests = nil })
		pass(10 * time.Minute)
		latest("listens")
		f.set(func() {
			if n := len(f.requests); n < 70 || n > 90 { // two lanes, every 15 s
				t.Errorf("%d requests in 10 idle minutes", n)
			}
		})
	})
}

func TestAgentThatFailsAndIsGone(t *testing.T) {
	f := newFake()
	run(t, f, func(_ *watch, latest func(string) view.CheckResult) {
		f.set(func() { f.err = errors.New("out of memory") })
		pass(time.Second)
		f.event("pod.set")
		pass(time.Second)
		if r := latest("listens"); r.Status != view.CheckError {
			t.Errorf("the agent gave no facts, and the check says %s", r.Status)
		}
		f.set(func() { f.err, f.listening, f.reachable = nil, true, true })
		f.event("pod.set")
		f.event("link.set")
		pass(time.Second)
		if r := latest("listens"); r.Status != view.CheckPass {
			t.Errorf("the agent recovered, and the check says %s", r.Status)
		}
		close(f.gone)
		for _, id := range []string{"listens", "answers"} {
			if r := latest(id); r.Status != view.CheckError {
				t.Errorf("%s says %s of an agent that is gone", id, r.Status)
			}
		}
	})
}
