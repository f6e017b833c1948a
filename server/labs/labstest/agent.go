package labstest

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Agent is a stand-in for the process inside a sandbox.
type Agent struct {
	// Hold keeps the phase at creating until SetPhase is called.
	Hold bool
	// Protocol to claim; 0 is the right one.
	Protocol int
	// Kube answers under /kube/, with the prefix taken off; nil answers with
	// what was asked.
	Kube http.Handler
	// Nonsense, if set, is all that the event stream says.
	Nonsense string
	// Facts to give.
	Facts lab.Facts

	config    agentapi.Config
	confirmed atomic.Bool
	started   time.Time
	closing   chan struct{}
	sockets   sync.WaitGroup

	mu        sync.Mutex
	phase     lab.Phase
	reason    string
	events    []lab.Event
	changed   chan struct{}
	terminals map[string]*terminal
	next      int
	applied   []string
}

// terminal echoes what is typed.
type terminal struct {
	info    agentapi.Terminal
	out     []byte
	changed chan struct{}
	cols    uint16
	rows    uint16
}

func newAgent(c agentapi.Config) *Agent {
	return &Agent{
		config: c, started: time.Now(), closing: make(chan struct{}), phase: lab.PhaseCreating,
		changed: make(chan struct{}), terminals: map[string]*terminal{},
	}
}

func (a *Agent) close() {
	a.mu.Lock()
	close(a.closing)
	a.mu.Unlock()
	a.sockets.Wait()
}

// Config that the agent was started with.
func (a *Agent) Config() agentapi.Config { return a.config }

// Confirmed reports whether the server has confirmed the handshake.
func (a *Agent) Confirmed() bool { return a.confirmed.Load() }

// SetPhase changes the phase, with an event.
func (a *Agent) SetPhase(p lab.Phase, reason string) {
	a.Publish(lab.Event{Kind: lab.EventPhase, Phase: &lab.PhaseEvent{Phase: p, Reason: reason}})
}

// Publish appends an event to the log.
func (a *Agent) Publish(e lab.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.Seq = uint64(len(a.events)) + 1
	e.Time = time.Now().UTC()
	if e.Phase != nil {
		a.phase, a.reason = e.Phase.Phase, e.Phase.Reason
	}
	a.events = append(a.events, e)
	close(a.changed)
	a.changed = make(chan struct{})
}

// Applied returns the texts that were applied.
func (a *Agent) Applied() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.applied)
}

// Size returns a terminal's last size.
func (a *Agent) Size(id string) (cols, rows uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.terminals[id]; t != nil {
		return t.cols, t.rows
	}
	return 0, 0
}

func (a *Agent) state() lab.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return lab.State{Seq: uint64(len(a.events)), Spec: a.config.Lab.Spec, Phase: a.phase, Reason: a.reason}
}

func (a *Agent) handler() http.Handler {
	if !a.Hold {
		a.SetPhase(lab.PhaseReady, "")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/handshake", a.handshake)
	mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.state()) })
	mux.HandleFunc("GET /v1/events", a.serveEvents)
	mux.HandleFunc("POST /v1/apply", a.apply)
	mux.HandleFunc("POST /v1/facts", func(w http.ResponseWriter, _ *http.Request) { reply(w, a.Facts) })
	mux.HandleFunc("GET /v1/terminals", a.listTerminals)
	mux.HandleFunc("POST /v1/terminals", a.openTerminal)
	mux.HandleFunc("DELETE /v1/terminals/{id}", a.deleteTerminal)
	mux.HandleFunc("GET /v1/terminals/{id}/attach", a.attach)
	mux.HandleFunc("GET /v1/exec", a.exec)
	kube := a.Kube
	if kube == nil {
		kube = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI())
		})
	}
	mux.Handle("/kube/", http.StripPrefix("/kube", kube))
	return mux
}

func (a *Agent) handshake(w http.ResponseWriter, _ *http.Request) {
	protocol := a.Protocol
	if protocol == 0 {
		protocol = agentapi.Protocol
	}
	s := a.state()
	reply(w, agentapi.Handshake{Protocol: protocol, Version: "test", ID: a.config.ID, StartedAt: a.started, Phase: s.Phase, Reason: s.Reason})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, e *lab.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(e)
}

func (a *Agent) apply(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	if strings.Contains(string(b), "wrongField") {
		fail(w, http.StatusBadRequest, &lab.Error{Code: lab.CodeInvalid, Field: "spec.wrongField", Message: "unknown field", Line: 3})
		return
	}
	a.mu.Lock()
	a.applied = append(a.applied, string(b))
	a.mu.Unlock()
	reply(w, agentapi.ApplyResult{Objects: []agentapi.AppliedObject{{Kind: "Pod", Namespace: "default", Name: "x", Action: "created"}}})
}

var upgrader websocket.Upgrader

// enter counts a WebSocket, unless the agent is ending.
func (a *Agent) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.closing:
		return false
	default:
	}
	a.sockets.Add(1)
	return true
}

// socket upgrades and runs f; the WebSocket is closed with the agent.
func (a *Agent) socket(w http.ResponseWriter, r *http.Request, f func(*websocket.Conn)) {
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	if !a.enter() {
		return
	}
	defer a.sockets.Done()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-a.closing:
			c.Close()
		case <-ended:
		}
	}()
	f(c)
}

func (a *Agent) serveEvents(w http.ResponseWriter, r *http.Request) {
	a.socket(w, r, func(c *websocket.Conn) {
		if a.Nonsense != "" {
			_ = c.WriteMessage(websocket.TextMessage, []byte(a.Nonsense))
			return
		}
		gone := drain(c)
		after, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		if err != nil || after > a.state().Seq {
			s := a.state()
			after = s.Seq
			if c.WriteJSON(agentapi.StreamMessage{Snapshot: &s}) != nil {
				return
			}
		}
		for {
			a.mu.Lock()
			news, changed := a.events[after:], a.changed
			a.mu.Unlock()
			for i := range news {
				if c.WriteJSON(agentapi.StreamMessage{Event: &news[i]}) != nil {
					return
				}
				after = news[i].Seq
			}
			select {
			case <-changed:
			case <-gone:
				return
			}
		}
	})
}

// drain reads until the peer is gone.
func drain(c *websocket.Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}()
	return gone
}

func (a *Agent) listTerminals(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []agentapi.Terminal{}
	for _, id := range slices.Sorted(maps.Keys(a.terminals)) {
		out = append(out, a.terminals[id].info)
	}
	reply(w, out)
}

func (a *Agent) openTerminal(w http.ResponseWriter, r *http.Request) {
	var req agentapi.TerminalRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, lab.Errorf(lab.CodeInvalid, "%v", err))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	t := &terminal{
		info: agentapi.Terminal{ID: "t" + strconv.Itoa(a.next), Target: req.Target, StartedAt: time.Now().UTC()},
		cols: req.Cols, rows: req.Rows, changed: make(chan struct{}), out: []byte("$ "),
	}
	a.terminals[t.info.ID] = t
	reply(w, t.info)
}

func (a *Agent) deleteTerminal(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.terminals[r.PathValue("id")]
	if t == nil {
		fail(w, http.StatusNotFound, lab.Errorf(lab.CodeNotFound, "there is no terminal %q", r.PathValue("id")))
		return
	}
	delete(a.terminals, t.info.ID)
	t.info.Ended = true
	close(t.changed)
	w.WriteHeader(http.StatusNoContent)
}

// attach echoes; a control frame sets the size.
func (a *Agent) attach(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	t := a.terminals[r.PathValue("id")]
	a.mu.Unlock()
	if t == nil {
		fail(w, http.StatusNotFound, lab.Errorf(lab.CodeNotFound, "there is no terminal %q", r.PathValue("id")))
		return
	}
	after, _ := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	a.socket(w, r, func(c *websocket.Conn) {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			a.typed(c, t)
		}()
		if c.WriteJSON(agentapi.TerminalControl{Offset: &after}) != nil {
			return
		}
		for {
			a.mu.Lock()
			news, changed, ended := slices.Clone(t.out[min(after, int64(len(t.out))):]), t.changed, t.info.Ended
			a.mu.Unlock()
			if len(news) > 0 && c.WriteMessage(websocket.BinaryMessage, news) != nil {
				return
			}
			after += int64(len(news))
			if ended {
				code := 0
				_ = c.WriteJSON(agentapi.TerminalControl{Exit: &code})
				return
			}
			select {
			case <-changed:
			case <-gone:
				return
			}
		}
	})
}

func (a *Agent) typed(c *websocket.Conn, t *terminal) {
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		a.mu.Lock()
		if kind == websocket.BinaryMessage {
			t.out = append(t.out, p...)
		} else {
			var ctl agentapi.TerminalControl
			if json.Unmarshal(p, &ctl) == nil {
				t.cols, t.rows = ctl.Cols, ctl.Rows
			}
		}
		if !t.info.Ended {
			close(t.changed)
			t.changed = make(chan struct{})
		}
		a.mu.Unlock()
	}
}

// exec echoes standard input to standard output and ends with the exit code
// that the last word of the command names.
func (a *Agent) exec(w http.ResponseWriter, r *http.Request) {
	command := r.URL.Query()["command"]
	a.socket(w, r, func(c *websocket.Conn) {
		for r.URL.Query().Get("stdin") == "true" {
			_, p, err := c.ReadMessage()
			if err != nil || len(p) == 0 || p[0] == 255 {
				break
			}
			if p[0] == 0 {
				_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{1}, p[1:]...))
			}
		}
		_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{2}, strings.Join(command, " ")...))
		status := map[string]any{"status": "Success"}
		if code := command[len(command)-1]; code != "0" {
			status = map[string]any{
				"status": "Failure", "reason": "NonZeroExitCode",
				"details": map[string]any{"causes": []map[string]string{{"reason": "ExitCode", "message": code}}},
			}
		}
		b, _ := json.Marshal(status)
		_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{3}, b...))
	})
}
