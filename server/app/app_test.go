package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/class"
	"podlab/server/labs/labstest"
	"podlab/web/view"
)

// course is one exercise.
type course struct{}

func (course) List() []view.ExerciseCard {
	return []view.ExerciseCard{{ID: "01-first", Title: view.Text{"ko": "첫 연습", "en": "First"}, Minutes: 5}}
}

func (course) Get(id string) (view.Exercise, bool) {
	if id != "01-first" {
		return view.Exercise{}, false
	}
	return view.Exercise{ID: id, Tasks: []view.Task{{ID: "one", Hints: 1, Checks: []view.Check{{ID: "a"}, {ID: "b"}}}}}, true
}

func (course) Setup(id string) (lab.Lab, string, bool) {
	return lab.DefaultLab(), "kind: Pod\n", id == "01-first"
}

func (course) Templates(string) []view.Template { return nil }

func (course) Hint(_, task string, n int) (view.Text, bool) {
	return view.Text{"en": "look closer"}, task == "one" && n == 1
}

// server is a running server with a fake launcher.
type server struct {
	t        testing.TB
	app      *app.App
	config   app.Config
	launcher *labstest.Launcher
	log      *bytes.Buffer
	out      *bytes.Buffer
	url      string
	stop     func()
}

// shortDir is a directory whose path leaves room for socket names.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newServer(t testing.TB, change func(*app.Config, *labstest.Launcher)) *server {
	t.Helper()
	s := &server{t: t, config: app.DefaultConfig(), launcher: &labstest.Launcher{Dir: shortDir(t)}}
	s.config.Addr, s.config.Data = "127.0.0.1:0", shortDir(t)
	if change != nil {
		change(&s.config, s.launcher)
	}
	t.Cleanup(s.launcher.Close)
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

// start starts a server process, as it were.
func (s *server) start() {
	s.t.Helper()
	s.log, s.out = &bytes.Buffer{}, &bytes.Buffer{}
	a, err := app.New(s.t.Context(), s.config, app.Parts{
		Launcher: s.launcher, Exercises: course{}, Grader: labstest.Grader{},
		Log: slog.New(slog.NewTextHandler(s.log, nil)), Out: s.out,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.app, s.url = a, a.URL()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("the server ended with %v", err)
		}
	}
}

// user is somebody with a cookie.
type user struct {
	*server
	cookie string
	id     string
}

// learner signs somebody in with the code of a class, made if need be.
func (s *server) learner(name string) *user {
	s.t.Helper()
	ctx := s.t.Context()
	classes, err := s.app.Accounts().Classes(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(classes) == 0 {
		c, err := s.app.Accounts().CreateClass(ctx, "수업 1")
		if err != nil {
			s.t.Fatal(err)
		}
		classes = []class.Class{c}
	}
	cookie, session, err := s.app.Accounts().SignIn(ctx, classes[0].Code, name, "127.0.0.1")
	if err != nil {
		s.t.Fatal(err)
	}
	return &user{s, cookie, session.User.ID}
}

func (s *server) instructor() *user {
	s.t.Helper()
	link, err := s.app.Accounts().NewInstructorLink(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	cookie, session, err := s.app.Accounts().UseLink(s.t.Context(), link, "127.0.0.1")
	if err != nil {
		s.t.Fatal(err)
	}
	return &user{s, cookie, session.User.ID}
}

func (s *server) nobody() *user { return &user{server: s} }

func (u *user) request(method, path, body string, header ...string) *http.Request {
	u.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.url+path, r)
	if err != nil {
		u.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if u.cookie != "" {
		req.AddCookie(&http.Cookie{Name: class.CookieName, Value: u.cookie})
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	return req
}

// do sends a request and returns status and body; redirects are not followed.
func (u *user) do(method, path, body string, header ...string) (int, string, http.Header) {
	u.t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	res, err := client.Do(u.request(method, path, body, header...))
	if err != nil {
		u.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// call is do that expects a status and reads JSON.
func (u *user) call(method, path, body string, want int, out any) {
	u.t.Helper()
	status, got, _ := u.do(method, path, body)
	if status != want {
		u.t.Fatalf("%s %s: %d %s; want %d", method, path, status, got, want)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(got), out); err != nil {
			u.t.Fatalf("%s %s: %v in %s", method, path, err, got)
		}
	}
}

// lab makes a lab that is ready.
func (u *user) lab(name string) api.Lab {
	u.t.Helper()
	var l api.Lab
	u.call("POST", "/api/v1/labs", `{"name":"`+name+`","wait":true}`, 201, &l)
	if l.Phase != lab.PhaseReady {
		u.t.Fatalf("lab %+v; want it ready", l)
	}
	return l
}

// socket opens a WebSocket.
func (u *user) socket(path string, header http.Header) (*websocket.Conn, *http.Response, error) {
	u.t.Helper()
	if header == nil {
		header = http.Header{}
	}
	if u.cookie != "" {
		header.Add("Cookie", class.CookieName+"="+u.cookie)
	}
	c, res, err := websocket.DefaultDialer.DialContext(u.t.Context(), "ws"+strings.TrimPrefix(u.url, "http")+path, header)
	if err == nil {
		u.t.Cleanup(func() { c.Close() })
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
	}
	return c, res, err
}

// next reads messages until one of the type wanted.
func next(t testing.TB, c *websocket.Conn, want view.MessageType) view.StreamMessage {
	t.Helper()
	for {
		var m view.StreamMessage
		if err := c.ReadJSON(&m); err != nil {
			t.Fatalf("while waiting for %s: %v", want, err)
		}
		if m.Type == want {
			return m
		}
	}
}

func TestALearnersWalk(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("김하늘")
	l := u.lab("walk")
	if !s.launcher.Agent(l.ID).Confirmed() {
		t.Error("the launcher was not told of the handshake")
	}

	c, _, err := u.socket("/api/v1/labs/"+l.ID+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := next(t, c, view.MessageHello); m.Hello.Lab.Phase != lab.PhaseReady {
		t.Errorf("hello %+v", m.Hello)
	}
	seq := next(t, c, view.MessageSnapshot).Snapshot.Seq
	s.launcher.Agent(l.ID).Publish(lab.Event{Kind: lab.EventOp, Op: &lab.OpEvent{Command: "ip link add <b>"}})
	if m := next(t, c, view.MessageEvent); m.Event.Seq != seq+1 || m.Event.Op.Command != "ip link add <b>" {
		t.Errorf("event %+v; want number %d", m.Event, seq+1)
	}

	var term struct{ ID string }
	u.call("POST", "/api/v1/labs/"+l.ID+"/terminals", `{"target":"pod-a","cols":80,"rows":24}`, 201, &term)
	tc, _, err := u.socket("/api/v1/labs/"+l.ID+"/terminals/"+term.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	tc.WriteMessage(websocket.BinaryMessage, []byte("한글 echo"))
	for got := ""; !strings.Contains(got, "한글 echo"); {
		kind, p, err := tc.ReadMessage()
		if err != nil {
			t.Fatalf("%v; so far %q", err, got)
		}
		if kind == websocket.BinaryMessage {
			got += string(p)
		}
	}

	u.call("DELETE", "/api/v1/labs/"+l.ID, "", 204, nil)
	for {
		if m := next(t, c, view.MessageLab); m.Lab.Deleted {
			break
		}
	}
	u.call("GET", "/api/v1/labs/"+l.ID, "", 404, nil)
	if running := s.launcher.Running(); len(running) > 0 {
		t.Errorf("agents %v still run", running)
	}
}
