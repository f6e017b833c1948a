package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
)

// ExitError is a command that ended with another status than 0.
type ExitError struct {
	Command []string
	Target  lab.Target
	Code    int
	Stderr  string
}

// Error names the command, the place and the end of what it wrote.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s in %s: exit status %d: %s", strings.Join(e.Command, " "), e.Target, e.Code, strings.TrimSpace(e.Stderr))
}

// Output runs a command in a place of a lab, without input or terminal, and
// returns what it wrote to its standard output; an ExitError when it fails.
func (c *Client) Output(ctx context.Context, id string, target lab.Target, command ...string) (string, error) {
	conn, err := c.Exec(ctx, id, url.Values{"target": {string(target)}, "command": command})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var stdout, stderr strings.Builder
	for {
		_, p, err := conn.ReadMessage()
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return "", fmt.Errorf("cannot run %s in %s: %w", command[0], target, err)
		}
		if len(p) == 0 {
			continue
		}
		// The channels of v5.channel.k8s.io.
		switch text := p[1:]; p[0] {
		case 1:
			stdout.Write(text)
		case 2:
			stderr.Write(text)
		case 3:
			var status metav1.Status
			if err := json.Unmarshal(text, &status); err != nil {
				return "", fmt.Errorf("cannot run %s in %s: the status %q cannot be read", command[0], target, text)
			}
			if status.Status == metav1.StatusSuccess {
				return stdout.String(), nil
			}
			e := &ExitError{Command: command, Target: target, Code: -1, Stderr: stderr.String()}
			if status.Details != nil && len(status.Details.Causes) > 0 {
				e.Code, _ = strconv.Atoi(status.Details.Causes[0].Message)
			}
			return stdout.String(), e
		}
	}
}
