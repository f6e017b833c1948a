package agentclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Events is a subscription to an agent's event stream; one goroutine reads it.
type Events struct {
	conn *websocket.Conn
	stop func() bool
	once sync.Once
}

// RawMessage is a message of the stream whose content was not decoded.
type RawMessage struct {
	Snapshot json.RawMessage `json:"snapshot"`
	Event    json.RawMessage `json:"event"`
}

// Events subscribes; after, if not nil, is the last event already known. The
// stream ends with ctx.
func (c *Client) Events(ctx context.Context, after *uint64) (*Events, error) {
	q := url.Values{}
	if after != nil {
		q.Set("after", strconv.FormatUint(*after, 10))
	}
	conn, err := c.dialWS(ctx, "/v1/events", q)
	if err != nil {
		return nil, err
	}
	e := &Events{conn: conn}
	e.stop = context.AfterFunc(ctx, func() { conn.Close() })
	return e, nil
}

// NextRaw waits for the next message and checks no more than that it is JSON
// of the right outline.
func (e *Events) NextRaw() (RawMessage, error) {
	var m RawMessage
	b, err := e.read()
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("cannot read a message of the agent's events: %w", err)
	}
	if (m.Snapshot == nil) == (m.Event == nil) {
		return m, errors.New("cannot read a message of the agent's events: neither a snapshot nor an event")
	}
	return m, nil
}

// Next waits for the next message.
func (e *Events) Next() (agentapi.StreamMessage, error) {
	var m agentapi.StreamMessage
	b, err := e.read()
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("cannot read a message of the agent's events: %w", err)
	}
	return m, nil
}

// ErrBroke is the error of a stream that ended without a word: the agent is
// gone, or about to be.
var ErrBroke = lab.Errorf(lab.CodeUnavailable, "the lab's event stream broke")

func (e *Events) read() ([]byte, error) {
	_, b, err := e.conn.ReadMessage()
	closed, ok := errors.AsType[*websocket.CloseError](err)
	switch {
	case err == nil:
		return b, nil
	case ok && closed.Code != websocket.CloseAbnormalClosure && closed.Text != "":
		return nil, lab.Errorf(lab.CodeUnavailable, "the lab's event stream ended: %s", closed.Text)
	}
	return nil, ErrBroke
}

// Close ends the subscription. It may be called more than once.
func (e *Events) Close() {
	e.once.Do(func() {
		e.stop()
		e.conn.Close()
	})
}
