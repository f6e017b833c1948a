package app_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/labs/labstest"
	"podlab/web/view"
)

func op(command string) lab.Event {
	return lab.Event{Kind: lab.EventOp, Op: &lab.OpEvent{Command: command}}
}

func (u *user) events(l api.Lab, query string) *websocket.Conn {
	u.t.Helper()
	c, _, err := u.socket("/api/v1/labs/"+l.ID+"/events"+query, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	return c
}

func TestTheStreamGoesOnWhereItBroke(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	agent := s.launcher.Agent(l.ID)
	c := u.events(l, "")
	last := next(t, c, view.MessageSnapshot).Snapshot.Seq
	c.Close()
	for i := range 3 {
		agent.Publish(op(fmt.Sprint("while away ", i)))
	}
	c = u.events(l, fmt.Sprintf("?after=%d&instance=1", last))
	for i := range 3 {
		if m := next(t, c, view.MessageEvent); m.Event.Seq != last+1+uint64(i) || m.Event.Op.Command != fmt.Sprint("while away ", i) {
			t.Errorf("event %+v; want number %d", m.Event, last+1+uint64(i))
		}
	}
	// An instance that is no more: the numbers mean nothing now.
	c = u.events(l, fmt.Sprintf("?after=%d&instance=7", last))
	next(t, c, view.MessageSnapshot)
	if status, body, _ := u.do("GET", "/api/v1/labs/"+l.ID+"/events?after=-1", "", "Upgrade", "websocket", "Connection", "Upgrade"); status != 422 || !strings.Contains(body, `"after"`) {
		t.Errorf("after=-1: %d %s", status, body)
	}
}

func TestTheStreamTellsOfFailureAndRestart(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	c := u.events(l, "")
	next(t, c, view.MessageSnapshot)
	s.launcher.Kill(l.ID, "the agent was killed")
	if m := next(t, c, view.MessageLab); m.Lab.Phase != lab.PhaseFailed || m.Lab.Reason != "the agent was killed" {
		t.Errorf("lab %+v", m.Lab)
	}
	u.call("POST", "/api/v1/labs/"+l.ID+"/restart", "", 202, nil)
	if m := next(t, c, view.MessageLab); m.Lab.Phase != lab.PhaseCreating || m.Lab.Instance != 2 {
		t.Errorf("lab %+v; want instance 2 being created", m.Lab)
	}
	if m := next(t, c, view.MessageSnapshot); m.Snapshot.Phase != lab.PhaseReady && m.Snapshot.Phase != lab.PhaseCreating {
		t.Errorf("snapshot %+v", m.Snapshot)
	}
}

func TestTheStreamOfALabThatWaits(t *testing.T) {
	s := newServer(t, func(c *app.Config, _ *labstest.Launcher) { c.Limits.PerHost = 1 })
	u := s.learner("owner")
	first := u.lab("first")
	var second api.Lab
	u.call("POST", "/api/v1/labs", `{"name":"second"}`, 201, &second)
	c := u.events(second, "")
	if m := next(t, c, view.MessageHello); m.Hello.Lab.Queue != 1 || m.Hello.Lab.Phase != lab.PhaseCreating {
		t.Errorf("hello %+v; want place 1", m.Hello.Lab)
	}
	u.call("DELETE", "/api/v1/labs/"+first.ID, "", 204, nil)
	next(t, c, view.MessageSnapshot)
}

func TestChecksComeOverTheStream(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.exerciseLab()
	c := u.events(l, "")
	status := map[string]view.CheckStatus{}
	for len(status) < 2 {
		for _, r := range next(t, c, view.MessageChecks).Checks {
			status[r.Check] = r.Status
		}
	}
	if status["a"] != view.CheckFail || status["b"] != view.CheckFail {
		t.Fatalf("checks %v", status)
	}
	s.launcher.Agent(l.ID).Publish(op("pass one/a"))
	if m := next(t, c, view.MessageChecks); len(m.Checks) != 1 || m.Checks[0].Check != "a" || m.Checks[0].Status != view.CheckPass {
		t.Errorf("checks %+v; want only a, green", m.Checks)
	}
	var progress []api.CheckProgress
	u.call("GET", "/api/v1/progress", "", 200, &progress)
	if len(progress) != 2 || !progress[0].Passed || progress[1].Passed {
		t.Errorf("progress %+v", progress)
	}
}

func TestSignOutClosesTheStreams(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	again := s.learner("owner") // the same person in another browser
	l := u.lab("one")
	mine, other := u.events(l, ""), again.events(l, "")
	next(t, mine, view.MessageSnapshot)
	next(t, other, view.MessageSnapshot)
	status, _, h := u.do("DELETE", "/api/v1/session", "")
	if status != 204 || !strings.Contains(h.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("sign-out: %d %v", status, h)
	}
	if e := closedWith(t, mine); e.Code != websocket.ClosePolicyViolation || e.Text != "signed out" {
		t.Errorf("closed with %v", e)
	}
	if status, _, _ := u.do("GET", "/api/v1/session", ""); status != 401 {
		t.Errorf("the cookie still works: %d", status)
	}
	s.launcher.Agent(l.ID).Publish(op("after"))
	if m := next(t, other, view.MessageEvent); m.Event.Op.Command != "after" {
		t.Errorf("the other browser got %+v", m)
	}
}

func TestLabsOutliveTheServer(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	c := u.events(l, "")
	next(t, c, view.MessageSnapshot)
	s.stop()
	if e := closedWith(t, c); e.Code != websocket.CloseServiceRestart || !strings.Contains(e.Text, "your lab goes on") {
		t.Errorf("closed with %v", e)
	}
	s.start()
	again := &user{s, u.cookie, u.id}
	var now api.Lab
	again.call("GET", "/api/v1/labs/"+l.ID, "", 200, &now)
	if now.Phase != lab.PhaseReady || now.Instance != 1 {
		t.Errorf("after the restart: %+v", now)
	}
	next(t, again.events(l, ""), view.MessageSnapshot)
	if strings.Contains(s.out.String(), "signin?link=") == false {
		t.Error("no fresh link was printed though none was used")
	}
}

func TestAWatchDoesNotHoldUpTheEnd(t *testing.T) {
	s := newServer(t, func(c *app.Config, l *labstest.Launcher) {
		c.ShutdownTimeout = time.Hour // so that waiting for it would show
		l.Prepare = func(a *labstest.Agent) {
			a.Kube = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "ADDED\n")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
		}
	})
	u := s.learner("owner")
	l := u.lab("one")
	res, err := http.DefaultClient.Do(u.request("GET", "/labs/"+l.ID+"/kube/api/v1/pods?watch=true", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n') // at once, while the watch goes on
	if err != nil || line != "ADDED\n" {
		t.Fatalf("the watch says %q, %v", line, err)
	}
	s.stop()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the watch ended as if it were whole")
	}
}

// BenchmarkEventToBrowser measures what the server adds between agent and browser.
func BenchmarkEventToBrowser(b *testing.B) {
	s := newServer(b, nil)
	u := s.learner("owner")
	l := u.lab("one")
	c := u.events(l, "")
	next(b, c, view.MessageSnapshot)
	agent := s.launcher.Agent(l.ID)
	var took []time.Duration
	for b.Loop() {
		agent.Publish(op("ip link set up"))
		m := next(b, c, view.MessageEvent)
		took = append(took, time.Since(m.Event.Time))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

func TestASlowBrowserHoldsUpNobodyElse(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	u.events(l, "") // never read
	quick := u.events(l, "")
	last := next(t, quick, view.MessageSnapshot).Snapshot.Seq
	big := strings.Repeat("x", 10<<10)
	agent := s.launcher.Agent(l.ID)
	for range 800 { // 8 MB, more than the buffers between
		agent.Publish(op(big))
	}
	for range 800 {
		last++
		if m := next(t, quick, view.MessageEvent); m.Event.Seq != last {
			t.Fatalf("event %d; want %d", m.Event.Seq, last)
		}
	}
}

func TestATerminalThatIsNotThere(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	c, _, err := u.socket("/api/v1/labs/"+l.ID+"/terminals/nope", nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := closedWith(t, c); !strings.Contains(e.Text, "nope") {
		t.Errorf("closed with %v; want what is not there", e)
	}
}

func TestAnAgentThatTalksNonsenseIsNotBelieved(t *testing.T) {
	s := newServer(t, func(_ *app.Config, l *labstest.Launcher) {
		l.Prepare = func(a *labstest.Agent) { a.Hold, a.Nonsense = true, `{"event":[1,2` }
	})
	u := s.learner("owner")
	var l api.Lab
	u.call("POST", "/api/v1/labs", `{"name":"one","wait":true}`, 201, &l)
	if l.Phase != lab.PhaseFailed {
		t.Errorf("a lab whose agent's first words cannot be read is %+v", l)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("one")
	next(t, u.events(l, ""), view.MessageSnapshot)
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ok", "/metrics": `podlab_labs{phase="ready"} 1`, "/api/v1/openapi.json": `"openapi":"3.1.0"`,
	} {
		if status, body, _ := s.nobody().do("GET", path, ""); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q: %.400s", path, status, want, body)
		}
	}
	_, body, _ := s.nobody().do("GET", "/metrics", "")
	for _, want := range []string{`podlab_websockets{kind="events"} 1`, "podlab_lab_ready_seconds_count 1", "podlab_stream_messages_total 1"} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	_, body, _ = s.nobody().do("GET", "/api/v1/openapi.json", "")
	for _, want := range []string{"/api/v1/labs/{id}/events", "/api/v1/labs/{id}/exec", "application/problem+json", "podlab_session"} {
		if !strings.Contains(body, want) {
			t.Errorf("the description lacks %q", want)
		}
	}
}
