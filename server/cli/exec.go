package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/server/api"
	"podlab/server/client"
)

// Channels of v5.channel.k8s.io: the first byte of a frame.
const (
	channelStdin  = 0
	channelStdout = 1
	channelStderr = 2
	channelStatus = 3
	channelResize = 4
	channelClose  = 255
)

func execCommand(env *Env) *cobra.Command {
	var tty, noStdin bool
	c := &cobra.Command{
		Use: "exec NAME TARGET -- COMMAND [ARGUMENT...]", Short: "Run a command in a container or node of a lab",
		Long: `Run a command in a container or node of a lab. TARGET is POD, POD/CONTAINER,
NAMESPACE/POD/CONTAINER or node:NODE. The exit code is the command's. On a
terminal the command gets one too.`,
		Example: `  podlab lab exec try pod-a -- ping -c1 10.244.2.10
  podlab lab exec try node:node1 -- bash
  echo hello | podlab lab exec try pod-a/app -- cat`,
		Args: args(cobra.MinimumNArgs(3), "a lab, a target, and after -- a command"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, args []string) error {
			if _, err := lab.Target(args[0]).Parse(); err != nil {
				return usageError{err}
			}
			x := &execution{env: env, stdin: !noStdin}
			return x.run(ctx, c, l, args[0], args[1:], tty)
		}),
	}
	c.Flags().BoolVarP(&tty, "tty", "t", isTerminal(env.In) && isTerminalWriter(env.Out), "give the command a terminal; by default as standard input and output are")
	c.Flags().BoolVar(&noStdin, "no-stdin", false, "give the command no standard input")
	return c
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func isTerminalWriter(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f)
}

// execution is one command that runs.
type execution struct {
	env   *Env
	stdin bool
	conn  *websocket.Conn
	mu    sync.Mutex // one writer at a time
}

func (x *execution) run(ctx context.Context, c *client.Client, l api.Lab, target string, command []string, tty bool) error {
	q := url.Values{
		"target": {target}, "command": command,
		"stdin": {strconv.FormatBool(x.stdin)}, "tty": {strconv.FormatBool(tty)},
	}
	if tty && isTerminal(x.env.In) {
		if size, err := unix.IoctlGetWinsize(int(x.env.In.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
			q.Set("cols", strconv.Itoa(int(size.Col)))
			q.Set("rows", strconv.Itoa(int(size.Row)))
		}
	}
	conn, err := c.Exec(ctx, l.ID, q)
	if err != nil {
		return err
	}
	defer conn.Close()
	x.conn = conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if tty && isTerminal(x.env.In) {
		restore, err := rawMode(int(x.env.In.Fd()))
		if err != nil {
			return err
		}
		defer restore()
		defer x.followSize()()
	}
	if x.stdin {
		// Nobody waits for this goroutine: a read of standard input cannot be
		// interrupted, and the process ends with the command.
		go x.sendInput()
	}
	return x.receive(ctx)
}

func (x *execution) send(channel byte, p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.conn.WriteMessage(websocket.BinaryMessage, append([]byte{channel}, p...))
}

func (x *execution) sendInput() {
	buf := make([]byte, 16<<10)
	for {
		n, err := x.env.In.Read(buf)
		if n > 0 && x.send(channelStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = x.send(channelClose, []byte{channelStdin})
			return
		}
	}
}

// receive prints what comes until the command's end.
func (x *execution) receive(ctx context.Context) error {
	for {
		_, p, err := x.conn.ReadMessage()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			if e, ok := errors.AsType[*websocket.CloseError](err); ok && e.Text != "" {
				return errors.New(e.Text)
			}
			return fmt.Errorf("the connection to the lab broke: %w", err)
		case len(p) == 0:
			continue
		}
		switch p[0] {
		case channelStdout:
			_, err = x.env.Out.Write(p[1:])
		case channelStderr:
			_, err = x.env.Err.Write(p[1:])
		case channelStatus:
			return exitOf(p[1:])
		}
		if err != nil {
			return err
		}
	}
}

// exitOf reads the metav1.Status that ends a command.
func exitOf(p []byte) error {
	var status struct {
		Status, Reason, Message string
		Details                 struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal(p, &status); err != nil {
		return fmt.Errorf("cannot read how the command ended: %w", err)
	}
	if status.Status == "Success" {
		return nil
	}
	for _, cause := range status.Details.Causes {
		if code, err := strconv.Atoi(cause.Message); cause.Reason == "ExitCode" && err == nil {
			return exitError{code}
		}
	}
	return errors.New(status.Message)
}

// followSize tells the command each new size of the terminal.
func (x *execution) followSize() (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, unix.SIGWINCH)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-changes:
				size, err := unix.IoctlGetWinsize(int(x.env.In.Fd()), unix.TIOCGWINSZ)
				if err != nil {
					continue
				}
				b, _ := json.Marshal(map[string]uint16{"Width": size.Col, "Height": size.Row})
				_ = x.send(channelResize, b)
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(changes)
		close(done)
		wg.Wait()
	}
}

// rawMode hands every key to the command (termios(3), cfmakeraw).
func rawMode(fd int) (restore func(), err error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}
