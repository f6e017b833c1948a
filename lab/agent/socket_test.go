package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/terminal"
)

// hostShell starts shells and commands on this machine, in place of a lab's.
type hostShell struct{}

type hostTerminal struct {
	cmd *exec.Cmd
	pty *os.File
}

func (hostShell) StartShell(_ context.Context, target lab.Target, cols, rows uint16) (terminal.Process, error) {
	if target == "gone" {
		return nil, lab.Errorf(lab.CodeNotFound, "pod default/gone is not in this lab")
	}
	cmd := exec.Command("/bin/sh", "-c", "stty -echo; echo ready; exec cat")
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: cols, Rows: rows})
	return &hostTerminal{cmd, f}, err
}
func (t *hostTerminal) PTY() *os.File { return t.pty }
func (t *hostTerminal) Wait() int     { t.cmd.Wait(); return t.cmd.ProcessState.ExitCode() }
func (t *hostTerminal) Kill() error   { return syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL) }

type hostCommand struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out, err io.Reader
}

func (hostShell) StartExec(_ context.Context, spec execSpec) (execProcess, error) {
	cmd := exec.Command(spec.command[0], spec.command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, _ := cmd.StdinPipe()
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	cmd.Stdout, cmd.Stderr = outW, errW
	err := cmd.Start()
	outW.Close()
	errW.Close()
	return &hostCommand{cmd, in, outR, errR}, err
}
func (c *hostCommand) Input() io.WriteCloser       { return c.in }
func (c *hostCommand) Output() io.Reader           { return c.out }
func (c *hostCommand) Errors() io.Reader           { return c.err }
func (c *hostCommand) Resize(uint16, uint16) error { return nil }
func (c *hostCommand) Wait() int                   { state, _ := c.cmd.Process.Wait(); return state.ExitCode() }
func (c *hostCommand) Kill() error                 { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }

// eventLog is a log whose events the test sends.
// One who comes back after an event gets those of later.
type eventLog struct{ events, later chan []lab.Event }

func (l eventLog) Subscribe(after uint64) (*lab.State, subscription, error) {
	if after > 0 {
		return nil, eventLog{events: l.later}, nil
	}
	return &lab.State{Seq: 41, Phase: lab.PhaseReady}, l, nil
}
func (l eventLog) Next(ctx context.Context) ([]lab.Event, error) {
	select {
	case e, ok := <-l.events:
		if !ok {
			return nil, errors.New("this subscriber fell behind")
		}
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (eventLog) Close() {}
func (eventLog) Before(seq uint64, limit int) []lab.Event {
	var past []lab.Event
	for n := uint64(1); n < seq && len(past) < limit; n++ {
		past = append(past, lab.Event{Seq: n})
	}
	return past
}

// start serves a socket in a temporary folder and returns a client of it.
func start(t *testing.T, events eventLog) (*http.Client, *websocket.Dialer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), agentapi.Socket)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	terms := terminal.NewManager(hostShell{}, func(lab.TerminalEvent) {})
	s := &socket{parts: parts{
		handshake: func() agentapi.Handshake { return agentapi.Handshake{Protocol: agentapi.Protocol, ID: "x"} },
		state:     func() lab.State { return lab.State{Seq: 41} },
		events:    events,
		apply: func(_ context.Context, body []byte) (agentapi.ApplyResult, error) {
			return agentapi.ApplyResult{Objects: []agentapi.AppliedObject{{Name: string(body)}}}, nil
		},
		facts: func(_ context.Context, r agentapi.FactsRequest) (lab.Facts, error) {
			return lab.Facts{}, errors.New("the reason of a defect")
		},
		terminals: terms,
		exec:      hostShell{},
		kube:      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }),
		log:       slog.New(slog.DiscardHandler),
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		terms.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}, &websocket.Dialer{NetDialContext: dial}
}

func TestWrongInputGetsAClearError(t *testing.T) {
	c, _ := start(t, eventLog{})
	big := `{"target":"` + strings.Repeat("a", maxRequestBytes) + `"}`
	for _, tc := range []struct {
		name, method, path, body string
		code                     lab.Code
		says                     string
	}{
		{"unknown path", "GET", "/v2/state", "", lab.CodeNotFound, "protocol"},
		{"broken JSON", "POST", "/v1/terminals", "{", lab.CodeInvalid, "cannot read"},
		{"unknown field", "POST", "/v1/terminals", `{"shell":"zsh"}`, lab.CodeInvalid, "shell"},
		{"wrong type", "POST", "/v1/terminals", `{"cols":"wide"}`, lab.CodeInvalid, "cols"},
		{"too large", "POST", "/v1/terminals", big, lab.CodeInvalid, "larger than"},
		{"large manifest", "POST", "/v1/apply", strings.Repeat("#", maxManifestBytes+1), lab.CodeInvalid, "1024 KiB"},
		{"no such pod", "POST", "/v1/terminals", `{"target":"gone","cols":80,"rows":24}`, lab.CodeNotFound, "default/gone"},
		{"no such terminal", "DELETE", "/v1/terminals/nope", "", lab.CodeNotFound, "nope"},
		{"negative offset", "GET", "/v1/events?after=-1", "", lab.CodeInvalid, "-1"},
		{"no command", "GET", "/v1/exec?target=pod-a", "", lab.CodeInvalid, "command"},
		{"bad size", "GET", "/v1/exec?target=pod-a&command=true&cols=0", "", lab.CodeInvalid, "65535"},
		{"a defect", "POST", "/v1/facts", `{}`, lab.CodeInternal, "reason"},
	} {
		req, _ := http.NewRequest(tc.method, "http://agent"+tc.path, strings.NewReader(tc.body))
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		var e lab.Error
		if err := json.NewDecoder(res.Body).Decode(&e); err != nil {
			t.Errorf("%s: answer is no lab.Error: %v", tc.name, err)
		}
		res.Body.Close()
		if e.Code != tc.code || !strings.Contains(e.Error(), tc.says) || res.StatusCode != agentapi.Status(tc.code) {
			t.Errorf("%s: status %d, %+v; want %s that says %q", tc.name, res.StatusCode, e, tc.code, tc.says)
		}
	}
}

func TestEventsStartWithASnapshotUnlessAfterIsKnown(t *testing.T) {
	log := eventLog{make(chan []lab.Event, 1), make(chan []lab.Event, 1)}
	_, d := start(t, log)
	ws, _, err := d.Dial("ws://agent/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	var m agentapi.StreamMessage
	if err := ws.ReadJSON(&m); err != nil || m.Snapshot == nil || m.Snapshot.Seq != 41 {
		t.Fatalf("first message %+v, %v; want the snapshot at 41", m, err)
	}
	log.events <- []lab.Event{{Seq: 42, Kind: lab.EventPhase, Phase: &lab.PhaseEvent{Phase: lab.PhaseReady}}}
	m = agentapi.StreamMessage{}
	if err := ws.ReadJSON(&m); err != nil || m.Event == nil || m.Event.Seq != 42 {
		t.Fatalf("second message %+v, %v; want event 42", m, err)
	}

	again, _, err := d.Dial("ws://agent/v1/events?after=42", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	ws.Close()
	log.later <- []lab.Event{{Seq: 43}}
	m = agentapi.StreamMessage{}
	if err := again.ReadJSON(&m); err != nil || m.Event == nil || m.Event.Seq != 43 {
		t.Fatalf("after 42 came %+v, %v; want event 43 and no snapshot", m, err)
	}

	// A message on a socket that takes none ends it, with the reason.
	again.WriteMessage(websocket.TextMessage, []byte("hello"))
	_, _, err = again.ReadMessage()
	if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || !strings.Contains(ce.Text, "takes no messages") {
		t.Errorf("closed with %v, want the reason", err)
	}
}

func TestTerminalOverTheSocket(t *testing.T) {
	c, d := start(t, eventLog{})
	res, err := c.Post("http://agent/v1/terminals", "application/json", strings.NewReader(`{"target":"pod-a","cols":80,"rows":24}`))
	if err != nil {
		t.Fatal(err)
	}
	var term agentapi.Terminal
	if err := json.NewDecoder(res.Body).Decode(&term); err != nil || term.ID == "" {
		t.Fatal(term, err)
	}
	res.Body.Close()

	attach := func(after string) *websocket.Conn {
		ws, _, err := d.Dial("ws://agent/v1/terminals/"+term.ID+"/attach?after="+after, nil)
		if err != nil {
			t.Fatal(err)
		}
		return ws
	}
	read := func(ws *websocket.Conn, want string) {
		t.Helper()
		for got := ""; !strings.Contains(got, want); {
			kind, p, err := ws.ReadMessage()
			if err != nil {
				t.Fatalf("%v; so far %q, want %q", err, got, want)
			}
			if kind == websocket.BinaryMessage {
				got += string(p)
			}
		}
	}
	ws := attach("0")
	read(ws, "ready\r\n")
	ws.WriteMessage(websocket.BinaryMessage, []byte("한글 one\n"))
	read(ws, "한글 one\r\n")
	ws.Close()

	ws = attach("7") // after "ready\r\n"
	defer ws.Close()
	var ctl agentapi.TerminalControl
	if err := ws.ReadJSON(&ctl); err != nil || ctl.Offset == nil || *ctl.Offset != 7 || ctl.End == nil || *ctl.End != 7+int64(len("한글 one\r\n")) {
		t.Fatalf("first frame %+v, %v; want offset 7 and the end of what was written", ctl, err)
	}
	read(ws, "한글 one\r\n")
	ws.WriteJSON(agentapi.TerminalControl{Cols: 0, Rows: 5})
	_, _, err = ws.ReadMessage()
	if ce, ok := errors.AsType[*websocket.CloseError](err); !ok || !strings.Contains(ce.Text, "0×5") {
		t.Errorf("a size of 0×5 closed with %v, want the reason", err)
	}
}

func TestExecCarriesStreamsAndExitCode(t *testing.T) {
	_, d := start(t, eventLog{})
	q := url.Values{"target": {"node:node1"}, "stdin": {"true"}, "command": {"/bin/sh", "-c", "cat; echo bad >&2; exit 3"}}
	ws, _, err := d.Dial("ws://agent/v1/exec?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.WriteMessage(websocket.BinaryMessage, append([]byte{channelStdin}, "typed"...))
	ws.WriteMessage(websocket.BinaryMessage, []byte{channelClose, channelStdin})
	got := map[byte]string{}
	for got[channelStatus] == "" {
		_, p, err := ws.ReadMessage()
		if err != nil {
			t.Fatalf("%v; so far %q", err, got)
		}
		got[p[0]] += string(p[1:])
	}
	if got[channelStdout] != "typed" || got[channelStderr] != "bad\n" {
		t.Errorf("stdout %q, stderr %q", got[channelStdout], got[channelStderr])
	}
	var status metav1.Status
	if err := json.Unmarshal([]byte(got[channelStatus]), &status); err != nil || status.Details == nil || status.Details.Causes[0].Message != "3" {
		t.Errorf("status %s, want exit code 3", got[channelStatus])
	}
}

func TestLogGivesThePast(t *testing.T) {
	c, _ := start(t, eventLog{})
	for query, want := range map[string]int{"?before=4": 3, "?before=9&limit=2": 2, "": 0, "?before=99999999&limit=99999": maxLog} {
		res, err := c.Get("http://agent/v1/log" + query)
		if err != nil {
			t.Fatal(err)
		}
		var past []lab.Event
		err = json.NewDecoder(res.Body).Decode(&past)
		res.Body.Close()
		if err != nil || past == nil || len(past) != want {
			t.Errorf("log%s: %d events, %v; want %d", query, len(past), err, want)
		}
	}
}

func TestKubePathsLoseTheirPrefix(t *testing.T) {
	c, _ := start(t, eventLog{})
	res, err := c.Get("http://agent/kube/api/v1/pods")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if p, _ := io.ReadAll(res.Body); string(p) != "/api/v1/pods" {
		t.Errorf("the Kubernetes API saw %q", p)
	}
}
