// Package client talks to a podlab server's API, over HTTP or over the local
// socket of the same host. The command line and the benchmarks use it. A
// Client is safe for concurrent use; what the server refuses is a *lab.Error.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/server/problem"
	"podlab/web/view"
)

// maxAnswer bounds what is read, in bytes.
const maxAnswer = 64 << 20

// Client of one server.
type Client struct {
	base  *url.URL
	token string
	http  http.Client
	ws    websocket.Dialer
}

// New makes a client of the server at an http or https URL, or at the path of
// its local socket. token may be empty there.
func New(server, token string) (*Client, error) {
	c := &Client{token: token}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	c.http.Transport = transport
	c.ws = websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 15 * time.Second}
	if strings.HasPrefix(server, "/") {
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", server)
		}
		transport.Proxy, transport.DialContext = nil, dial
		c.ws.Proxy, c.ws.NetDialContext = nil, dial
		c.base = &url.URL{Scheme: "http", Host: "localhost"}
		return c, nil
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server %q: http://HOST, https://HOST or the path of a socket is wanted", server)
	}
	c.base = &url.URL{Scheme: u.Scheme, Host: u.Host}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) header() http.Header {
	h := http.Header{}
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
	return h
}

// do sends one request; in is JSON unless it is []byte, and out nil, JSON or
// *[]byte.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	u := *c.base
	u.Path, u.RawQuery = "/api/v1"+path, query.Encode()
	header := c.header()
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case []byte:
		header.Set("Content-Type", "application/yaml")
		body = bytes.NewReader(in)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		header.Set("Content-Type", "application/json")
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	req.Header = header
	res, err := c.http.Do(req)
	if err != nil {
		return unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return errorOf(res)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		return err
	default:
		return json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out)
	}
}

func unreachable(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("cannot reach the server: %w", err)
}

// errorOf reads a problem.
func errorOf(res *http.Response) error {
	var p problem.Problem
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Code == "" {
		return fmt.Errorf("the server answered %s", res.Status)
	}
	return &lab.Error{Code: p.Code, Message: p.Detail, Field: p.Field, Line: p.Line, Column: p.Column}
}

// dial opens a WebSocket.
func (c *Client) dial(ctx context.Context, path string, query url.Values) (*websocket.Conn, error) {
	u := *c.base
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	u.Path, u.RawQuery = "/api/v1"+path, query.Encode()
	conn, res, err := c.ws.DialContext(ctx, u.String(), c.header())
	switch {
	case err == nil:
		return conn, nil
	case res != nil:
		return nil, errorOf(res)
	}
	return nil, unreachable(err)
}

// Labs lists labs; all: those of everybody.
func (c *Client) Labs(ctx context.Context, all bool) ([]api.Lab, error) {
	var out []api.Lab
	err := c.do(ctx, http.MethodGet, "/labs", url.Values{"all": {strconv.FormatBool(all)}}, nil, &out)
	return out, err
}

// CreateLab makes a lab.
func (c *Client) CreateLab(ctx context.Context, in api.NewLab) (api.Lab, error) {
	var out api.Lab
	err := c.do(ctx, http.MethodPost, "/labs", nil, in, &out)
	return out, err
}

// Lab shows a lab.
func (c *Client) Lab(ctx context.Context, id string) (api.Lab, error) {
	var out api.Lab
	err := c.do(ctx, http.MethodGet, labPath(id), nil, nil, &out)
	return out, err
}

// DeleteLab deletes a lab.
func (c *Client) DeleteLab(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, labPath(id), nil, nil, nil)
}

// RestartLab starts a lab again.
func (c *Client) RestartLab(ctx context.Context, id string, fresh bool) (api.Lab, error) {
	var out api.Lab
	err := c.do(ctx, http.MethodPost, labPath(id)+"/restart", nil, map[string]bool{"fresh": fresh}, &out)
	return out, err
}

// Apply applies documents.
func (c *Client) Apply(ctx context.Context, id string, documents []byte) (agentapi.ApplyResult, error) {
	var out agentapi.ApplyResult
	err := c.do(ctx, http.MethodPost, labPath(id)+"/apply", nil, documents, &out)
	return out, err
}

// Facts reads facts.
func (c *Client) Facts(ctx context.Context, id string, req agentapi.FactsRequest) (lab.Facts, error) {
	var out lab.Facts
	if req.Probes == nil {
		req.Probes = map[string]lab.Probe{}
	}
	err := c.do(ctx, http.MethodPost, labPath(id)+"/facts", nil, req, &out)
	return out, err
}

// State reads the lab's state.
func (c *Client) State(ctx context.Context, id string) (lab.State, error) {
	var out lab.State
	err := c.do(ctx, http.MethodGet, labPath(id)+"/state", nil, nil, &out)
	return out, err
}

// Kubeconfig makes a kubeconfig. publicURL is filled in where the server does
// not know its own address, as on the local socket.
func (c *Client) Kubeconfig(ctx context.Context, id string) ([]byte, error) {
	var out []byte
	err := c.do(ctx, http.MethodGet, labPath(id)+"/kubeconfig", nil, nil, &out)
	return out, err
}

// OpenTerminal starts a shell.
func (c *Client) OpenTerminal(ctx context.Context, id string, req agentapi.TerminalRequest) (agentapi.Terminal, error) {
	var out agentapi.Terminal
	err := c.do(ctx, http.MethodPost, labPath(id)+"/terminals", nil, req, &out)
	return out, err
}

// Attach joins a terminal.
func (c *Client) Attach(ctx context.Context, id, terminal string) (*websocket.Conn, error) {
	return c.dial(ctx, labPath(id)+"/terminals/"+url.PathEscape(terminal), nil)
}

// Exec runs a command, with the frames of v5.channel.k8s.io.
func (c *Client) Exec(ctx context.Context, id string, query url.Values) (*websocket.Conn, error) {
	return c.dial(ctx, labPath(id)+"/exec", query)
}

// Events follows a lab; read view.StreamMessage from it.
func (c *Client) Events(ctx context.Context, id string) (*websocket.Conn, error) {
	return c.dial(ctx, labPath(id)+"/events", nil)
}

// Await follows a lab until it is ready, or says why it will not be. waiting,
// if not nil, is told each place in the queue.
func (c *Client) Await(ctx context.Context, id string, waiting func(place int)) error {
	conn, err := c.Events(ctx, id)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	for {
		var m view.StreamMessage
		if err := conn.ReadJSON(&m); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("cannot follow the lab: %w", err)
		}
		s := m.Lab
		if m.Hello != nil {
			s = &m.Hello.Lab
		}
		switch {
		case s == nil:
		case s.Phase == lab.PhaseReady:
			return nil
		case s.Phase == lab.PhaseFailed:
			return lab.Errorf(lab.CodeUnavailable, "the lab has failed: %s", s.Reason)
		case s.Phase == lab.PhaseDeleting || s.Deleted:
			return lab.Errorf(lab.CodeNotFound, "the lab was deleted")
		case s.Queue > 0 && waiting != nil:
			waiting(s.Queue)
		}
	}
}

// InstructorLink makes a new sign-in link.
func (c *Client) InstructorLink(ctx context.Context) (string, error) {
	var out api.InstructorLink
	err := c.do(ctx, http.MethodPost, "/instructor-link", nil, nil, &out)
	return out.URL, err
}

// Exercises lists the exercises.
func (c *Client) Exercises(ctx context.Context) ([]api.Exercise, error) {
	var out []api.Exercise
	err := c.do(ctx, http.MethodGet, "/exercises", nil, nil, &out)
	return out, err
}

func labPath(id string) string { return "/labs/" + url.PathEscape(id) }
