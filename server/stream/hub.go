// Package stream is the WebSockets between browsers (or the command line) and
// labs: the ordered event stream, terminals and exec. Each connection has one
// reader and one writer, deadlines and pings; each is registered in the Hub,
// so that the server's end, a sign-out and a lab's end close it with a reason.
// Nothing is buffered beyond a few frames: who reads slower than the lab's own
// bounded log is closed and comes back with ?after=.
package stream

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
)

// Deadlines and sizes. The peer may be on another continent, behind a phone.
const (
	writeWait  = 10 * time.Second
	pongWait   = 60 * time.Second
	pingPeriod = 25 * time.Second
	// readLimit is the largest frame that a browser may send: a pasted text
	// comes in pieces of 16 KiB.
	readLimit = 64 << 10
)

// upgrader checks no origin: package access has.
var upgrader = websocket.Upgrader{
	ReadBufferSize: 4 << 10, WriteBufferSize: 16 << 10, WriteBufferPool: &sync.Pool{},
	CheckOrigin: func(*http.Request) bool { return true },
	Error:       func(http.ResponseWriter, *http.Request, int, error) {}, // Accept answers
}

// Hub knows all open connections.
type Hub struct {
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	conns  map[*Conn]struct{}
	wg     sync.WaitGroup
}

// NewHub makes an empty Hub.
func NewHub(log *slog.Logger) *Hub {
	return &Hub{log: log, conns: map[*Conn]struct{}{}}
}

// Counts returns the number of connections by kind.
func (h *Hub) Counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int{"events": 0, "terminal": 0, "exec": 0}
	for c := range h.conns {
		out[c.kind]++
	}
	return out
}

// Close ends all connections, telling them to come back, and waits for their
// handlers.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	for c := range h.conns {
		c.end(websocket.CloseServiceRestart, "the server is going down; your lab goes on")
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// CloseSession ends the connections of a session that was signed out.
func (h *Hub) CloseSession(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if key != "" && c.session == key {
			c.end(websocket.ClosePolicyViolation, "signed out")
		}
	}
}

// Conn is one WebSocket to a browser. Send and Ping may be called by one
// goroutine, Read by another.
type Conn struct {
	ws      *websocket.Conn
	kind    string
	session string

	// ctx ends when the connection shall end; why is in its cause.
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// closing is a cause that names how to close.
type closing struct {
	code   int
	reason string
}

func (c *closing) Error() string { return c.reason }

// errPeerGone is the cause when the browser has closed the connection.
var errPeerGone = errors.New("the browser has closed the connection")

// end closes the connection soon, with a code and a reason. Only the first
// call counts.
func (c *Conn) end(code int, reason string) { c.cancel(&closing{code, reason}) }

// Serve upgrades a request and runs f. read is called for each frame of the
// browser's; what it returns ends the connection. When f returns, the
// connection is closed.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, kind, session string,
	read func(kind int, p []byte) error, f func(ctx context.Context, c *Conn) error) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return lab.Errorf(lab.CodeInvalid, "this address is a WebSocket; the request is no upgrade to one")
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return lab.Errorf(lab.CodeUnavailable, "the server is going down; try again in a moment")
	}
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return lab.Errorf(lab.CodeInvalid, "cannot make a WebSocket: %v", err)
	}
	defer ws.Close()
	c := &Conn{ws: ws, kind: kind, session: session}
	// Not the request's context: it does not end with a hijacked connection.
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(r.Context()))
	h.add(c)
	defer h.remove(c)

	var wg sync.WaitGroup
	wg.Go(func() { c.cancel(c.readAll(read)) })
	wg.Go(c.pingAll)
	err = f(c.ctx, c)
	c.cancel(err)
	c.sayGoodbye()
	ws.Close()
	wg.Wait()
	return nil
}

func (h *Hub) add(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = struct{}{}
	if h.closed {
		c.end(websocket.CloseServiceRestart, "the server is going down; your lab goes on")
	}
}

func (h *Hub) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

func (c *Conn) readAll(read func(int, []byte) error) error {
	c.ws.SetReadLimit(readLimit)
	c.ws.SetReadDeadline(time.Now().Add(pongWait))
	c.ws.SetPongHandler(func(string) error { return c.ws.SetReadDeadline(time.Now().Add(pongWait)) })
	for {
		kind, p, err := c.ws.ReadMessage()
		if err != nil {
			return errPeerGone
		}
		if err := read(kind, p); err != nil {
			return err
		}
	}
}

func (c *Conn) pingAll() {
	tick := time.NewTicker(pingPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return
			}
		case <-c.ctx.Done():
			return
		}
	}
}

// Send writes one frame.
func (c *Conn) Send(kind int, p []byte) error {
	c.ws.SetWriteDeadline(time.Now().Add(writeWait))
	if c.ws.WriteMessage(kind, p) != nil {
		return errPeerGone
	}
	return nil
}

// sayGoodbye tells the browser why the connection ends.
func (c *Conn) sayGoodbye() {
	code, reason := websocket.CloseNormalClosure, ""
	switch err := context.Cause(c.ctx); {
	case errors.Is(err, errPeerGone), errors.Is(err, context.Canceled), err == nil:
	default:
		code, reason = closeCode(err)
	}
	const most = 120 // RFC 6455 §5.5: a control frame's payload is at most 125 bytes
	for len(reason) > most {
		cut := most
		for cut > 0 && reason[cut]&0xc0 == 0x80 {
			cut--
		}
		reason = reason[:cut]
	}
	c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second))
}

// closeCode is the WebSocket's code and reason for an error.
func closeCode(err error) (int, string) {
	if e, ok := errors.AsType[*closing](err); ok {
		return e.code, e.reason
	}
	e, ok := errors.AsType[*lab.Error](err)
	if !ok {
		return websocket.CloseInternalServerErr, "something went wrong in the server"
	}
	switch e.Code {
	case lab.CodeInvalid:
		return websocket.CloseUnsupportedData, e.Error()
	case lab.CodeForbidden:
		return websocket.ClosePolicyViolation, e.Error()
	case lab.CodeUnavailable, lab.CodeLimit:
		return websocket.CloseTryAgainLater, e.Error()
	case lab.CodeNotFound:
		return websocket.CloseNormalClosure, e.Error()
	}
	return websocket.CloseInternalServerErr, e.Error()
}
