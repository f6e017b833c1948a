package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/gorilla/websocket"

	"podlab/lab"
)

// maxOutput is how much of a command's output Run keeps, in bytes.
const maxOutput = 1 << 20

// Run runs a command without a terminal, gives it input, and returns what it
// wrote to both outputs, as it came, with its exit code.
func (c *Client) Run(ctx context.Context, id string, target lab.Target, command []string, input string) (output string, exitCode int, err error) {
	conn, err := c.Exec(ctx, id, url.Values{"target": {string(target)}, "command": command, "stdin": {"true"}, "tty": {"false"}})
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// Frames of v5.channel.k8s.io: 0 is stdin, 255 closes a channel.
	for _, frame := range [][]byte{append([]byte{0}, input...), {255, 0}} {
		if err := conn.WriteMessage(websocket.BinaryMessage, frame); err != nil {
			return "", 0, fmt.Errorf("cannot send the command's input: %w", err)
		}
	}
	var out []byte
	for {
		_, frame, err := conn.ReadMessage()
		switch {
		case ctx.Err() != nil:
			return string(out), 0, context.Cause(ctx)
		case err != nil:
			if e, ok := errors.AsType[*websocket.CloseError](err); ok && e.Text != "" {
				return string(out), 0, errors.New(e.Text)
			}
			return string(out), 0, fmt.Errorf("the connection to the lab broke: %w", err)
		case len(frame) == 0:
		case frame[0] == 3:
			code, err := exitCodeOf(frame[1:])
			return string(out), code, err
		default:
			out = append(out, frame[1:min(len(frame), 1+maxOutput-len(out))]...)
		}
	}
}

// exitCodeOf reads the metav1.Status that ends a command.
func exitCodeOf(frame []byte) (int, error) {
	var status struct {
		Status, Message string
		Details         struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal(frame, &status); err != nil {
		return 0, fmt.Errorf("cannot read how the command ended: %w", err)
	}
	if status.Status == "Success" {
		return 0, nil
	}
	for _, cause := range status.Details.Causes {
		if code, err := strconv.Atoi(cause.Message); cause.Reason == "ExitCode" && err == nil {
			return code, nil
		}
	}
	return 0, errors.New(status.Message)
}
