package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
)

// Channels of the v5.channel.k8s.io sub-protocol: the first byte of a frame
// (k8s.io/apimachinery/pkg/util/remotecommand).
const (
	channelStdin  = 0
	channelStdout = 1
	channelStderr = 2
	channelStatus = 3
	channelResize = 4
	channelClose  = 255
)

// execSpec is a command to run in a place of the lab.
type execSpec struct {
	target     lab.Target
	command    []string
	stdin, tty bool
	cols, rows uint16
}

// execProcess is a command that runs. With a terminal, output is the
// pseudo-terminal's master side and errors is nil.
type execProcess interface {
	Input() io.WriteCloser
	Output() io.Reader
	Errors() io.Reader
	Resize(cols, rows uint16) error
	Wait() int
	Kill() error
}

// execStarter starts a command in a place of the lab.
type execStarter interface {
	StartExec(ctx context.Context, spec execSpec) (execProcess, error)
}

func parseExec(r *http.Request) (execSpec, error) {
	q := r.URL.Query()
	spec := execSpec{target: lab.Target(q.Get("target")), command: q["command"], stdin: q.Get("stdin") == "true", tty: q.Get("tty") == "true", cols: 80, rows: 24}
	if _, err := spec.target.Parse(); err != nil {
		return spec, err
	}
	if len(spec.command) == 0 {
		return spec, &lab.Error{Code: lab.CodeInvalid, Field: "command", Message: "none given: give the program and each argument as one command parameter"}
	}
	for name, side := range map[string]*uint16{"cols": &spec.cols, "rows": &spec.rows} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n == 0 {
			return spec, &lab.Error{Code: lab.CodeInvalid, Field: name, Message: fmt.Sprintf("found %q, allowed is 1 to 65535", v)}
		}
		*side = uint16(n)
	}
	return spec, nil
}

// serveExec runs a command and carries its streams as kubectl's exec does.
func (s *socket) serveExec(w http.ResponseWriter, r *http.Request) {
	spec, err := parseExec(r)
	if err != nil {
		fail(w, err)
		return
	}
	p, err := s.exec.StartExec(r.Context(), spec)
	if err != nil {
		fail(w, err)
		return
	}
	defer func() { _ = p.Kill() }()
	s.serveSocket(w, r, execInput(p), func(ctx context.Context, c *wsConn) error {
		// When the reader ends first, the peer is gone: the command goes with it,
		// and its outputs end.
		stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
		defer stop()
		var wg sync.WaitGroup
		wg.Go(func() { copyChannel(c, channelStdout, p.Output()) })
		if errs := p.Errors(); errs != nil {
			wg.Go(func() { copyChannel(c, channelStderr, errs) })
		}
		code := p.Wait()
		drain(&wg)
		_ = p.Kill() // what it left in the background may hold the outputs open
		wg.Wait()
		status, err := json.Marshal(exitStatus(code))
		if err != nil {
			return err
		}
		return c.write(websocket.BinaryMessage, append([]byte{channelStatus}, status...))
	})
}

// drainWait is how long the outputs of a command that has ended may stay open:
// something that it left in the background holds them.
const drainWait = 200 * time.Millisecond

// drain waits until the outputs were read to their end, at most drainWait.
func drain(outputs *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		outputs.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainWait):
	}
}

// execInput returns the reader of frames for a command.
func execInput(p execProcess) func(int, []byte) error {
	return func(kind int, frame []byte) error {
		if kind != websocket.BinaryMessage || len(frame) == 0 {
			return lab.Errorf(lab.CodeInvalid, "exec takes binary frames that start with a channel byte")
		}
		switch body := frame[1:]; frame[0] {
		case channelStdin:
			_, _ = p.Input().Write(body) // a command that no longer reads is no error of the peer's
			return nil
		case channelResize:
			var size struct{ Width, Height uint16 }
			if err := json.Unmarshal(body, &size); err != nil {
				return lab.Errorf(lab.CodeInvalid, "resize frame is not JSON of {Width, Height}: %v", err)
			}
			return p.Resize(size.Width, size.Height)
		case channelClose:
			if len(body) == 1 && body[0] == channelStdin {
				p.Input().Close()
			}
			return nil
		}
		return lab.Errorf(lab.CodeInvalid, "exec frame on channel %d: allowed are 0 (stdin), 4 (resize) and 255 (close)", frame[0])
	}
}

// copyChannel sends what r gives until its end; a pseudo-terminal ends with EIO.
func copyChannel(c *wsConn, channel byte, r io.Reader) {
	buf := make([]byte, 16<<10)
	buf[0] = channel
	for {
		n, err := r.Read(buf[1:])
		if n > 0 && c.write(websocket.BinaryMessage, buf[:n+1]) != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// exitStatus is the metav1.Status that ends an exec, as kubelet sends it.
func exitStatus(code int) metav1.Status {
	if code == 0 {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Reason:  "NonZeroExitCode",
		Message: fmt.Sprintf("command terminated with non-zero exit code: exit status %d", code),
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: strconv.Itoa(code)}}},
	}
}
