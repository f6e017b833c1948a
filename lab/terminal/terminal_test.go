package terminal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// script is a Starter of shells that run one script on a real pseudo-terminal.
type script string

type shell struct {
	cmd *exec.Cmd
	pty *os.File
}

func (s script) StartShell(_ context.Context, _ lab.Target, cols, rows uint16) (Process, error) {
	cmd := exec.Command("/bin/sh", "-c", string(s))
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: cols, Rows: rows})
	if err != nil {
		return nil, err
	}
	return &shell{cmd, f}, nil
}

func (s *shell) PTY() *os.File { return s.pty }
func (s *shell) Wait() int     { s.cmd.Wait(); return s.cmd.ProcessState.ExitCode() }
func (s *shell) Kill() error   { return syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }

func open(t *testing.T, sh script) (*Manager, *Terminal, chan lab.TerminalEvent) {
	t.Helper()
	events := make(chan lab.TerminalEvent, 16)
	m := NewManager(sh, func(e lab.TerminalEvent) { events <- e })
	t.Cleanup(m.Close)
	term, err := m.Open(t.Context(), agentapi.TerminalRequest{Target: "pod-a", Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	<-events // started
	return m, term, events
}

// readUntil reads from offset until the output holds want, and returns all of
// it with the offset after it.
func readUntil(t *testing.T, term *Terminal, offset int64, want string) (string, int64) {
	t.Helper()
	var all []byte
	for !bytes.Contains(all, []byte(want)) {
		p, at, err := term.Read(t.Context(), offset)
		if err != nil {
			t.Fatalf("read: %v; so far %q", err, all)
		}
		all, offset = append(all, p...), at+int64(len(p))
	}
	return string(all), offset
}

func TestReaderComesBackWhereItLeft(t *testing.T) {
	_, term, events := open(t, `stty -echo; echo first; read x; echo "got $x"; exit 7`)
	_, offset := readUntil(t, term, 0, "first\r\n")
	if _, err := term.Write([]byte("word\n")); err != nil {
		t.Fatal(err)
	}
	got, end := readUntil(t, term, offset, "got word\r\n")
	if strings.Contains(got, "first") {
		t.Errorf("output after offset %d repeats what was read before: %q", offset, got)
	}
	if ev := <-events; !ev.Ended || ev.ExitCode != 7 {
		t.Errorf("end event %+v, want ended with code 7", ev)
	}
	if _, _, err := term.Read(t.Context(), end); !errors.Is(err, io.EOF) {
		t.Errorf("read after the end: %v, want io.EOF", err)
	}
	// A second reader from the start still sees it all, and nothing was typed again.
	again, _ := readUntil(t, term, 0, "got word\r\n")
	if strings.Count(again, "got") != 1 {
		t.Errorf("output %q, want one answer", again)
	}
}

func TestResizeReachesTheShell(t *testing.T) {
	_, term, _ := open(t, `trap 'stty size; exit' WINCH; echo go; while :; do read x; done`)
	readUntil(t, term, 0, "go")
	if err := term.Resize(132, 43); err != nil {
		t.Fatal(err)
	}
	readUntil(t, term, 0, "43 132")
	for _, size := range [][2]uint16{{0, 10}, {10, 0}, {maxSide + 1, 10}} {
		if err := term.Resize(size[0], size[1]); err == nil {
			t.Errorf("size %v was taken", size)
		}
	}
}

func TestScrollbackForgetsTheOldest(t *testing.T) {
	var s scrollback
	line := []byte("0123456789 한글 abcdef\r\n")
	var total int64
	for total < 4*ScrollbackBytes {
		s.write(line)
		total += int64(len(line))
	}
	if s.end() != total {
		t.Fatalf("end %d, want %d", s.end(), total)
	}
	p, at := s.from(0, 1<<30)
	if at == 0 || len(p) > ScrollbackBytes || len(p) < ScrollbackBytes/2 {
		t.Errorf("window of %d bytes at %d", len(p), at)
	}
	if !bytes.HasPrefix(p, []byte("0123")) {
		t.Errorf("the window starts inside a line: %q", p[:20])
	}
	if p, at := s.from(total+99, 10); len(p) != 0 || at != total {
		t.Errorf("a future offset gave %d bytes at %d, want none at the end %d", len(p), at, total)
	}
}

func TestLimits(t *testing.T) {
	m := NewManager(script("exec cat"), func(lab.TerminalEvent) {})
	defer m.Close()
	req := agentapi.TerminalRequest{Target: "pod-a", Cols: 80, Rows: 24}
	for range MaxLive {
		if _, err := m.Open(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	var e *lab.Error
	if _, err := m.Open(t.Context(), req); !errors.As(err, &e) || e.Code != lab.CodeLimit {
		t.Errorf("terminal %d: %v, want a limit error", MaxLive+1, err)
	}
	first := m.List()[0].ID
	if err := m.Delete(first); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(first); !errors.As(err, &e) || e.Code != lab.CodeNotFound {
		t.Errorf("deleted terminal: %v, want not found", err)
	}
	for _, bad := range []agentapi.TerminalRequest{{Target: "a//b", Cols: 1, Rows: 1}, {Target: "pod-a"}, {Target: "node:", Cols: 1, Rows: 1}} {
		if _, err := m.Open(t.Context(), bad); !errors.As(err, &e) || e.Code != lab.CodeInvalid {
			t.Errorf("%+v: %v, want invalid", bad, err)
		}
	}
}
