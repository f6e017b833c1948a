package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
)

// dialAgent connects to the agent's side of a WebSocket.
type dialAgent func(ctx context.Context) (*websocket.Conn, error)

// checkFrame judges a frame of the browser's before it goes to the agent.
type checkFrame func(kind int, p []byte) error

// joined carries frames both ways between a browser and an agent.
type joined struct {
	mu    sync.Mutex // one writer to the agent at a time
	agent *websocket.Conn
	up    chan struct{} // closed when agent is set
	check checkFrame
}

// join makes a pair of functions for Hub.Serve.
func join(dial dialAgent, check checkFrame) (read func(int, []byte) error, f func(context.Context, *Conn) error) {
	j := &joined{up: make(chan struct{}), check: check}
	return j.toAgent, func(ctx context.Context, c *Conn) error { return j.toBrowser(ctx, c, dial) }
}

// toAgent passes on a frame of the browser's. Those that come before the agent
// has been reached wait.
func (j *joined) toAgent(kind int, p []byte) error {
	if err := j.check(kind, p); err != nil {
		return err
	}
	<-j.up
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.agent == nil {
		return errPeerGone // dialling failed; that error is the one to tell
	}
	j.agent.SetWriteDeadline(time.Now().Add(writeWait))
	// An agent that no longer listens has said why, or is about to: what it sent
	// last (an exit code, most often) is still to be passed on by toBrowser, which
	// ends the stream. So this is no error here.
	_ = j.agent.WriteMessage(kind, p)
	return nil
}

func (j *joined) toBrowser(ctx context.Context, c *Conn, dial dialAgent) error {
	agent, err := dial(ctx)
	if err != nil {
		close(j.up)
		return err
	}
	defer agent.Close()
	stop := context.AfterFunc(ctx, func() { agent.Close() })
	defer stop()
	j.mu.Lock()
	j.agent = agent
	j.mu.Unlock()
	close(j.up)
	for {
		kind, p, err := agent.ReadMessage()
		if err != nil {
			return endOf(ctx, err)
		}
		if err := c.Send(kind, p); err != nil {
			return err
		}
	}
}

// endOf says why the agent's side has ended.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*websocket.CloseError](err); ok {
		switch {
		case e.Code == websocket.CloseNormalClosure:
			return nil
		case e.Text != "":
			return &closing{websocket.CloseUnsupportedData, e.Text}
		}
	}
	return lab.Errorf(lab.CodeUnavailable, "the lab's agent has closed the stream")
}

// maxTerminalSide bounds columns and rows.
const maxTerminalSide = 1000

// terminalFrame allows bytes, and a size as {"cols": C, "rows": R}.
func terminalFrame(readOnly bool) checkFrame {
	return func(kind int, p []byte) error {
		if kind == websocket.BinaryMessage {
			if readOnly {
				return lab.Errorf(lab.CodeForbidden, "this is a learner's terminal: an instructor may look at it, not type")
			}
			return nil
		}
		var size struct {
			Cols *uint16 `json:"cols"`
			Rows *uint16 `json:"rows"`
		}
		d := json.NewDecoder(bytes.NewReader(p))
		d.DisallowUnknownFields()
		if err := d.Decode(&size); err != nil || size.Cols == nil || size.Rows == nil {
			return lab.Errorf(lab.CodeInvalid, `a text frame must be {"cols": C, "rows": R}; bytes go in binary frames`)
		}
		if *size.Cols < 1 || *size.Rows < 1 || *size.Cols > maxTerminalSide || *size.Rows > maxTerminalSide {
			return lab.Errorf(lab.CodeInvalid, "the size %d×%d is not within 1×1 and %d×%d", *size.Cols, *size.Rows, maxTerminalSide, maxTerminalSide)
		}
		if readOnly {
			return lab.Errorf(lab.CodeForbidden, "this is a learner's terminal: an instructor may not resize it")
		}
		return nil
	}
}

// Terminal joins a browser to a terminal. typed is called for each frame of
// bytes that was typed.
func Terminal(dial dialAgent, readOnly bool, typed func()) (read func(int, []byte) error, f func(context.Context, *Conn) error) {
	check := terminalFrame(readOnly)
	return join(dial, func(kind int, p []byte) error {
		err := check(kind, p)
		if err == nil && kind == websocket.BinaryMessage {
			typed()
		}
		return err
	})
}

// Exec joins the command line to a command that runs in a lab.
func Exec(dial dialAgent) (read func(int, []byte) error, f func(context.Context, *Conn) error) {
	return join(dial, func(kind int, p []byte) error {
		if kind != websocket.BinaryMessage || len(p) == 0 {
			return lab.Errorf(lab.CodeInvalid, "exec takes binary frames that start with a channel's byte")
		}
		switch p[0] {
		case 0, 4, 255:
			return nil
		}
		return lab.Errorf(lab.CodeInvalid, "exec frame on channel %d: allowed are 0 (standard input), 4 (size) and 255 (close)", p[0])
	})
}
