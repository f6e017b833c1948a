package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Deadlines of the agent's WebSockets. The peer is the server on the same
// machine: a ping that is not answered within pongWait means that it is gone.
const (
	writeWait  = 10 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = 25 * time.Second
	readLimit  = 256 << 10
)

// upgrader keeps gorilla's same-origin check: the server sends no Origin.
// Write buffers are pooled, since most sockets are idle most of the time.
var upgrader = websocket.Upgrader{ReadBufferSize: 4096, WriteBufferSize: 16 << 10, WriteBufferPool: &sync.Pool{}}

// connections are the open WebSockets, so that the end of the agent closes them.
type connections struct {
	mu  sync.Mutex
	all map[*wsConn]struct{}
}

func (c *connections) add(w *wsConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[*wsConn]struct{}{}
	}
	c.all[w] = struct{}{}
}

func (c *connections) remove(w *wsConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, w)
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.all {
		w.conn.Close()
	}
}

// wsConn is a WebSocket with one reader and serialised writers.
type wsConn struct {
	conn *websocket.Conn
	mu   sync.Mutex // one writer at a time
}

func (c *wsConn) write(kind int, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	return c.conn.WriteMessage(kind, p)
}

func (c *wsConn) writeJSON(v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.write(websocket.TextMessage, p)
}

// close says why and ends the connection.
func (c *wsConn) close(code int, reason string) {
	if len(reason) > 120 { // RFC 6455 §5.5: a control frame's payload is at most 125 bytes
		reason = reason[:120]
	}
	c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(writeWait))
}

// serveSocket upgrades the request and runs write in this goroutine, read (for
// each frame) in another, and pings. When any of them ends, all end. The
// WebSocket is closed with the error that write returned, io.EOF being the
// usual end.
func (s *socket) serveSocket(w http.ResponseWriter, r *http.Request, read func(kind int, p []byte) error, write func(context.Context, *wsConn) error) {
	raw, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	c := &wsConn{conn: raw}
	s.conns.add(c)
	defer s.conns.remove(c)
	ctx, cancel := context.WithCancelCause(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() { cancel(readLoop(c, read)) })
	wg.Go(func() { pingLoop(ctx, c) })

	err = write(ctx, c)
	switch cause := context.Cause(ctx); {
	case err == nil || errors.Is(err, io.EOF):
		c.close(websocket.CloseNormalClosure, "")
	case cause != nil: // the reader ended first: the peer is gone, or sent nonsense
		c.close(websocket.CloseUnsupportedData, cause.Error())
	default:
		c.close(websocket.CloseInternalServerErr, err.Error())
	}
	cancel(nil)
	raw.Close()
	wg.Wait()
}

func readLoop(c *wsConn, read func(kind int, p []byte) error) error {
	c.conn.SetReadLimit(readLimit)
	c.conn.SetReadDeadline(time.Now().Add(pongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		kind, p, err := c.conn.ReadMessage()
		if err != nil {
			return err
		}
		if err := read(kind, p); err != nil {
			return err
		}
	}
}

func pingLoop(ctx context.Context, c *wsConn) {
	tick := time.NewTicker(pingPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// noInput refuses frames on a socket that only sends.
func noInput(int, []byte) error {
	return lab.Errorf(lab.CodeInvalid, "this WebSocket takes no messages")
}

// serveAttach joins a reader to a terminal.
func (s *socket) serveAttach(w http.ResponseWriter, r *http.Request) {
	t, err := s.terminals.Get(r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	after, err := queryInt(r, "after")
	if err != nil {
		fail(w, err)
		return
	}
	read := func(kind int, p []byte) error {
		if kind == websocket.BinaryMessage {
			_, err := t.Write(p)
			return err
		}
		var ctl agentapi.TerminalControl
		if err := json.Unmarshal(p, &ctl); err != nil {
			return lab.Errorf(lab.CodeInvalid, "terminal control message is not JSON of {cols, rows}: %v", err)
		}
		return t.Resize(ctl.Cols, ctl.Rows)
	}
	s.serveSocket(w, r, read, func(ctx context.Context, c *wsConn) error {
		next, end := t.Start(after)
		if err := c.writeJSON(agentapi.TerminalControl{Offset: &next, End: &end}); err != nil {
			return err
		}
		for {
			p, at, err := t.Read(ctx, next)
			if errors.Is(err, io.EOF) {
				code := t.Info().ExitCode
				return c.writeJSON(agentapi.TerminalControl{Exit: &code})
			}
			if err != nil {
				return err
			}
			if at != next { // this reader was slower than the bounded scrollback
				if err := c.writeJSON(agentapi.TerminalControl{Offset: &at, End: &at}); err != nil {
					return err
				}
			}
			if err := c.write(websocket.BinaryMessage, p); err != nil {
				return err
			}
			next = at + int64(len(p))
		}
	})
}
