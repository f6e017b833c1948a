package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/terminal"
)

// Sizes that the socket takes.
const (
	maxManifestBytes = 1 << 20
	maxRequestBytes  = 256 << 10
)

// parts are what the socket serves; the composition root fills them in.
type parts struct {
	handshake func() agentapi.Handshake
	state     func() lab.State
	events    eventSource
	apply     func(context.Context, []byte) (agentapi.ApplyResult, error)
	facts     func(context.Context, agentapi.FactsRequest) (lab.Facts, error)
	terminals *terminal.Manager
	exec      execStarter
	kube      http.Handler
	log       *slog.Logger
}

// socket is the agent's HTTP server on a Unix socket.
type socket struct {
	parts
	conns connections
}

// listen makes the socket file, which only the host's root and the lab's own
// root may connect to.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the former socket: %w", err)
	}
	// The name appears only once the socket listens, so that whoever waits for
	// the file may connect at once.
	temp := path + ".new"
	os.Remove(temp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", temp, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot place the socket at %s: %w", path, err)
	}
	return l, nil
}

// handler routes the protocol of agentapi.
func (s *socket) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/handshake", func(w http.ResponseWriter, r *http.Request) { reply(w, s.handshake()) })
	mux.HandleFunc("GET /v1/state", func(w http.ResponseWriter, r *http.Request) { reply(w, s.state()) })
	mux.HandleFunc("GET /v1/events", s.serveEvents)
	mux.HandleFunc("GET /v1/log", s.serveLog)
	mux.HandleFunc("POST /v1/apply", s.serveApply)
	mux.HandleFunc("POST /v1/facts", s.serveFacts)
	mux.HandleFunc("GET /v1/terminals", func(w http.ResponseWriter, r *http.Request) { reply(w, s.terminals.List()) })
	mux.HandleFunc("POST /v1/terminals", s.serveOpenTerminal)
	mux.HandleFunc("DELETE /v1/terminals/{id}", s.serveDeleteTerminal)
	mux.HandleFunc("GET /v1/terminals/{id}/attach", s.serveAttach)
	mux.HandleFunc("GET /v1/exec", s.serveExec)
	mux.Handle("/kube/", http.StripPrefix("/kube", s.kube))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, lab.Errorf(lab.CodeNotFound, "%s %s is not part of the agent's protocol %d", r.Method, r.URL.Path, agentapi.Protocol))
	})
	return mux
}

// run serves until ctx ends, then closes every connection.
func (s *socket) run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() {
		s.conns.closeAll()
		srv.Close()
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve the agent's socket: %w", err)
	}
	return nil
}

func (s *socket) serveApply(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifestBytes))
	if err != nil {
		fail(w, bodyError(err, maxManifestBytes))
		return
	}
	result, err := s.apply(r.Context(), body)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, result)
}

func (s *socket) serveFacts(w http.ResponseWriter, r *http.Request) {
	var req agentapi.FactsRequest
	if err := decode(w, r, &req); err != nil {
		fail(w, err)
		return
	}
	facts, err := s.facts(r.Context(), req)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, facts)
}

func (s *socket) serveOpenTerminal(w http.ResponseWriter, r *http.Request) {
	var req agentapi.TerminalRequest
	if err := decode(w, r, &req); err != nil {
		fail(w, err)
		return
	}
	t, err := s.terminals.Open(r.Context(), req)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, t.Info())
}

func (s *socket) serveDeleteTerminal(w http.ResponseWriter, r *http.Request) {
	if err := s.terminals.Delete(r.PathValue("id")); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// queryInt reads a non-negative number from the query; absent means 0.
func queryInt(r *http.Request, name string) (int64, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, &lab.Error{Code: lab.CodeInvalid, Field: name, Message: fmt.Sprintf("found %q, allowed is a whole number from 0 on", v)}
	}
	return n, nil
}

// decode reads a JSON body strictly into v.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bodyError(err, maxRequestBytes)
	}
	return nil
}

func bodyError(err error, limit int) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return lab.Errorf(lab.CodeInvalid, "the request is larger than %d KiB, the most allowed", limit>>10)
	}
	return lab.Errorf(lab.CodeInvalid, "cannot read the request: %v", err)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// fail answers with a lab.Error; any other error is a defect, whose details
// the server may see: it is the one that keeps them from learners.
func fail(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*lab.Error](err)
	if !ok {
		e = lab.Errorf(lab.CodeInternal, "%v", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(agentapi.Status(e.Code))
	json.NewEncoder(w).Encode(e)
}
