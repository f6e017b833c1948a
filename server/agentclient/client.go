// Package agentclient speaks package agentapi's protocol to one agent over the
// Unix socket in its lab's directory. It trusts nothing that it hears: answers
// are bounded in size.
//
// Callers are the lab manager, the API, the streams and the grader. A Client
// is safe for concurrent use; errors are *lab.Error where the agent gave one,
// and CodeUnavailable where it could not be reached.
package agentclient

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
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Bounds on what an agent may say.
const (
	maxAnswer = 16 << 20
	maxError  = 64 << 10
	maxFrame  = 16 << 20
)

// Client of one agent.
type Client struct {
	transport *http.Transport
	http      http.Client
	ws        websocket.Dialer
}

// New returns a client that reaches its agent by dial. While the agent's
// socket is not there yet, dial gives CodeUnavailable.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	c := &Client{}
	c.transport = &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConns:          4,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		DisableCompression:    true,
		ResponseHeaderTimeout: 0, // a watch or a log may wait for ever for its first byte
	}
	c.http = http.Client{Transport: c.transport}
	c.ws = websocket.Dialer{
		NetDialContext:   func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		HandshakeTimeout: 10 * time.Second,
		ReadBufferSize:   16 << 10,
		WriteBufferSize:  4 << 10,
	}
	return c
}

// Close drops idle connections; those in use end with their users.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Transport carries requests under /kube/ to the agent.
func (c *Client) Transport() http.RoundTripper { return c.transport }

// retryEvery is how often AwaitHandshake looks for the socket: creating a lab
// takes some hundred of these, each a few microseconds.
const retryEvery = 500 * time.Microsecond

// AwaitHandshake waits until the agent's socket is there and answers.
func (c *Client) AwaitHandshake(ctx context.Context) (agentapi.Handshake, error) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		h, err := c.Handshake(ctx)
		if err == nil || !notThereYet(err) {
			return h, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return h, context.Cause(ctx)
		}
	}
}

func notThereYet(err error) bool {
	e, ok := errors.AsType[*lab.Error](err)
	return ok && e.Code == lab.CodeUnavailable
}

// Handshake asks the agent who it is.
func (c *Client) Handshake(ctx context.Context) (agentapi.Handshake, error) {
	var h agentapi.Handshake
	err := c.do(ctx, http.MethodGet, "/v1/handshake", "", nil, &h)
	return h, err
}

// State reads the lab's state.
func (c *Client) State(ctx context.Context) (lab.State, error) {
	var s lab.State
	err := c.do(ctx, http.MethodGet, "/v1/state", "", nil, &s)
	return s, err
}

// Apply applies YAML or JSON documents, all or none.
func (c *Client) Apply(ctx context.Context, documents []byte) (agentapi.ApplyResult, error) {
	var r agentapi.ApplyResult
	err := c.do(ctx, http.MethodPost, "/v1/apply", "application/yaml", documents, &r)
	return r, err
}

// Facts reads facts and runs probes.
func (c *Client) Facts(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error) {
	var f lab.Facts
	err := c.doJSON(ctx, http.MethodPost, "/v1/facts", req, &f)
	return f, err
}

// Terminals lists the lab's shells.
func (c *Client) Terminals(ctx context.Context) ([]agentapi.Terminal, error) {
	var t []agentapi.Terminal
	err := c.do(ctx, http.MethodGet, "/v1/terminals", "", nil, &t)
	return t, err
}

// OpenTerminal starts a shell.
func (c *Client) OpenTerminal(ctx context.Context, req agentapi.TerminalRequest) (agentapi.Terminal, error) {
	var t agentapi.Terminal
	err := c.doJSON(ctx, http.MethodPost, "/v1/terminals", req, &t)
	return t, err
}

// DeleteTerminal ends a shell.
func (c *Client) DeleteTerminal(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/terminals/"+url.PathEscape(id), "", nil, nil)
}

// Attach joins a terminal; after, if not nil, is the offset to go on from.
func (c *Client) Attach(ctx context.Context, id string, after *int64) (*websocket.Conn, error) {
	q := url.Values{}
	if after != nil {
		q.Set("after", strconv.FormatInt(*after, 10))
	}
	return c.dialWS(ctx, "/v1/terminals/"+url.PathEscape(id)+"/attach", q)
}

// Exec runs a command; the query is that of agentapi's exec.
func (c *Client) Exec(ctx context.Context, query url.Values) (*websocket.Conn, error) {
	return c.dialWS(ctx, "/v1/exec", query)
}

func (c *Client) doJSON(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, method, path, "application/json", body, out)
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return errorOf(res)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("cannot read the agent's answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) dialWS(ctx context.Context, path string, q url.Values) (*websocket.Conn, error) {
	u := url.URL{Scheme: "ws", Host: "agent", Path: path, RawQuery: q.Encode()}
	conn, res, err := c.ws.DialContext(ctx, u.String(), nil)
	if err != nil {
		if res != nil {
			return nil, errorOf(res)
		}
		return nil, unreachable(ctx, err)
	}
	conn.SetReadLimit(maxFrame)
	return conn, nil
}

// errorOf reads the lab.Error of an answer.
func errorOf(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, maxError))
	var e lab.Error
	if err != nil || json.Unmarshal(b, &e) != nil || e.Code == "" {
		return fmt.Errorf("the agent answered %s with no reason that can be read", res.Status)
	}
	return &e
}

// unreachableError is a CodeUnavailable error that still tells why.
type unreachableError struct {
	lab  *lab.Error
	from error
}

func (e *unreachableError) Error() string   { return e.lab.Message + ": " + e.from.Error() }
func (e *unreachableError) Unwrap() []error { return []error{e.lab, e.from} }

func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &unreachableError{lab.Errorf(lab.CodeUnavailable, "the lab's agent does not answer"), err}
}

// Log reads events of the past: the last limit before a number, 0 meaning all.
func (c *Client) Log(ctx context.Context, before uint64, limit int) ([]lab.Event, error) {
	var events []lab.Event
	q := url.Values{"before": {strconv.FormatUint(before, 10)}, "limit": {strconv.Itoa(limit)}}
	err := c.do(ctx, http.MethodGet, "/v1/log?"+q.Encode(), "", nil, &events)
	return events, err
}
