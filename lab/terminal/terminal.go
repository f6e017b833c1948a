// Package terminal keeps a lab's shells: it starts them on pseudo-terminals,
// remembers a bounded part of what they wrote, and lets any number of readers
// attach, leave and come back at an offset. A shell lives as long as its
// process, whether or not anybody is attached, so that neither a closed
// browser nor a restarted server ends it; and nothing is ever typed into it
// that a reader did not send.
//
// The agent's socket is the only caller. All methods are safe for concurrent
// use.
package terminal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Limits of one lab's terminals.
const (
	// MaxLive shells may run at a time.
	MaxLive = 24
	// maxEnded terminals are remembered, so that a page that comes back can
	// still show what the shell's last words were.
	maxEnded = 8
	// maxSide bounds a terminal's columns and rows.
	maxSide = 1000
	// readChunk is the most that one Read returns.
	readChunk = 32 << 10
)

// Process is a shell on a pseudo-terminal.
type Process interface {
	// PTY is the master side.
	PTY() *os.File
	// Wait returns the exit code once the shell has ended.
	Wait() int
	// Kill ends the shell and all that it started.
	Kill() error
}

// Starter starts a shell in a place of the lab.
type Starter interface {
	StartShell(ctx context.Context, target lab.Target, cols, rows uint16) (Process, error)
}

// Manager holds the terminals of a lab.
type Manager struct {
	starter Starter
	publish func(lab.TerminalEvent)
	wg      sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	starting  int
	terminals []*Terminal // oldest first
}

// NewManager makes a Manager that tells publish of each start and end.
func NewManager(starter Starter, publish func(lab.TerminalEvent)) *Manager {
	return &Manager{starter: starter, publish: publish}
}

// Open starts a shell at the request's target.
func (m *Manager) Open(ctx context.Context, req agentapi.TerminalRequest) (*Terminal, error) {
	if _, err := req.Target.Parse(); err != nil {
		return nil, err
	}
	if req.Cols == 0 || req.Rows == 0 || req.Cols > maxSide || req.Rows > maxSide {
		return nil, lab.Errorf(lab.CodeInvalid, "terminal size %d×%d: columns and rows are 1 to %d", req.Cols, req.Rows, maxSide)
	}
	if err := m.reserve(); err != nil {
		return nil, err
	}
	p, err := m.starter.StartShell(ctx, req.Target, req.Cols, req.Rows)

	m.mu.Lock()
	m.starting--
	if err == nil && m.closed {
		err = lab.Errorf(lab.CodeUnavailable, "the lab is ending: no new terminal can be opened")
		_ = p.Kill()
	}
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	t := &Terminal{
		info:    agentapi.Terminal{ID: strings.ToLower(rand.Text()[:12]), Target: req.Target, StartedAt: time.Now().UTC()},
		process: p,
		changed: make(chan struct{}),
	}
	m.terminals = append(m.terminals, t)
	m.wg.Add(1)
	m.mu.Unlock()

	m.publish(lab.TerminalEvent{ID: t.info.ID, Target: string(req.Target)})
	go func() {
		defer m.wg.Done()
		t.pump()
		m.forgetOldest()
		info := t.Info()
		m.publish(lab.TerminalEvent{ID: info.ID, Target: string(info.Target), Ended: true, ExitCode: info.ExitCode})
	}()
	return t, nil
}

// reserve counts a shell that is about to start against MaxLive.
func (m *Manager) reserve() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := m.starting
	for _, t := range m.terminals {
		if !t.Info().Ended {
			live++
		}
	}
	if live >= MaxLive {
		return lab.Errorf(lab.CodeLimit, "%d terminals are open in this lab, the most allowed: close one first", live)
	}
	m.starting++
	return nil
}

// forgetOldest drops the oldest ended terminals beyond maxEnded.
func (m *Manager) forgetOldest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	ended := 0
	for i := len(m.terminals) - 1; i >= 0; i-- {
		if !m.terminals[i].Info().Ended {
			continue
		}
		if ended++; ended > maxEnded {
			m.terminals = slices.Delete(m.terminals, i, i+1)
		}
	}
}

// List returns the terminals, oldest first.
func (m *Manager) List() []agentapi.Terminal {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]agentapi.Terminal, len(m.terminals))
	for i, t := range m.terminals {
		list[i] = t.Info()
	}
	return list
}

// Get returns a terminal by its id.
func (m *Manager) Get(id string) (*Terminal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.terminals {
		if t.info.ID == id {
			return t, nil
		}
	}
	return nil, lab.Errorf(lab.CodeNotFound, "terminal %q is not in this lab: it may have ended long ago; open a new one", id)
}

// Delete ends a terminal's shell and forgets it.
func (m *Manager) Delete(id string) error {
	t, err := m.Get(id)
	if err != nil {
		return err
	}
	_ = t.Kill()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.terminals = slices.DeleteFunc(m.terminals, func(o *Terminal) bool { return o == t })
	return nil
}

// Close ends all shells and waits until their readers are done.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	all := slices.Clone(m.terminals)
	m.mu.Unlock()
	for _, t := range all {
		_ = t.Kill()
	}
	m.wg.Wait()
}

// Terminal is one shell and what it wrote.
type Terminal struct {
	process Process

	mu      sync.Mutex
	info    agentapi.Terminal
	output  scrollback
	changed chan struct{} // closed and replaced at each write and at the end
}

// Info is the terminal as the protocol shows it.
func (t *Terminal) Info() agentapi.Terminal {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info
}

// pump moves the shell's output into the scrollback until the shell ends.
func (t *Terminal) pump() {
	pty := t.process.PTY()
	buf := make([]byte, 16<<10)
	for {
		n, err := pty.Read(buf)
		if n > 0 {
			t.mu.Lock()
			t.output.write(buf[:n])
			t.wakeLocked()
			t.mu.Unlock()
		}
		if err != nil {
			// EIO: every holder of the slave side is gone, the usual end (pty(7)).
			break
		}
	}
	code := t.process.Wait()
	_ = t.process.Kill() // what the shell left in the background
	t.mu.Lock()
	t.info.Ended, t.info.ExitCode = true, code
	t.wakeLocked()
	t.mu.Unlock()
	pty.Close()
}

func (t *Terminal) wakeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Read returns output from offset on, waiting until there is some. The second
// value is the offset of the first byte returned: greater than asked where the
// scrollback has lost bytes. It returns io.EOF once the shell has ended and
// all was read.
func (t *Terminal) Read(ctx context.Context, offset int64) ([]byte, int64, error) {
	for {
		t.mu.Lock()
		p, at := t.output.from(offset, readChunk)
		ended, changed := t.info.Ended, t.changed
		t.mu.Unlock()
		if len(p) > 0 {
			return p, at, nil
		}
		if ended {
			return nil, at, io.EOF
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, at, ctx.Err()
		}
	}
}

// Start is the offset that a reader who asks for `after` begins at, and the
// end of what was written so far: the bytes between are the past.
func (t *Terminal) Start(after int64) (start, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, start = t.output.from(after, 0)
	return start, t.output.end()
}

// Write types p into the shell.
func (t *Terminal) Write(p []byte) (int, error) {
	n, err := t.process.PTY().Write(p)
	if err != nil && (errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EIO)) {
		return n, lab.Errorf(lab.CodeUnavailable, "the shell has ended: open a new terminal")
	}
	return n, err
}

// Resize tells the shell the size of its screen (TIOCSWINSZ, ioctl_tty(2)).
func (t *Terminal) Resize(cols, rows uint16) error {
	if cols == 0 || rows == 0 || cols > maxSide || rows > maxSide {
		return lab.Errorf(lab.CodeInvalid, "terminal size %d×%d: columns and rows are 1 to %d", cols, rows, maxSide)
	}
	conn, err := t.process.PTY().SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot resize terminal: %w", err)
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
	if err = errors.Join(err, ioctlErr); err != nil {
		return fmt.Errorf("cannot resize terminal: %w", err)
	}
	return nil
}

// Kill ends the shell and all that it started; its output stays readable.
func (t *Terminal) Kill() error { return t.process.Kill() }
