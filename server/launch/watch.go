package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Of the agent's log, tailBytes go into an Exit, looked for in crashBytes.
const (
	tailBytes  = 4 << 10
	crashBytes = 64 << 10
)

// Exit says how a sandbox's PID 1 ended.
type Exit struct {
	// Reason is one line for people.
	Reason string `json:"reason"`
	// OOM is set when the kernel killed in the sandbox for want of memory.
	OOM bool `json:"oom,omitempty"`
	// Log is the end of what the agent wrote; it comes from the lab, so escape it.
	Log string    `json:"log,omitempty"`
	At  time.Time `json:"at"`
}

// Watch returns a channel that gets one Exit, when PID 1 ends, and is then
// closed; it is closed without one when the sandbox is deleted or the Launcher
// closed.
func (l *Launcher) Watch(id string) (<-chan Exit, error) {
	sb, err := l.get(id)
	if err != nil {
		return nil, err
	}
	sb.mu.Lock()
	ended := sb.ended
	sb.mu.Unlock()
	c := make(chan Exit, 1)
	go func() {
		defer close(c)
		select {
		case <-ended:
			if s := sb.info(); s.Ended != nil {
				c <- *s.Ended
			}
		case <-sb.gone:
		case <-l.closing:
		}
	}()
	return c, nil
}

// watch waits for PID 1's end in the background.
func (l *Launcher) watch(sb *sandbox) {
	sb.mu.Lock()
	pidfd, init := sb.pidfd, sb.rec.Init
	sb.mu.Unlock()
	l.background.Go(func() {
		if err := await(pidfd); err != nil {
			return // closed: the sandbox is let go, not ended
		}
		status, known := init.zombieStatus()
		if s, ok := reap(pidfd); ok {
			status, known = s, true
		}
		e := Exit{Reason: "the agent ended"}
		if known {
			e.Reason = "the agent ended: " + describe(status)
		}
		l.noteEnd(sb, e)
		l.clearEnded(sb, pidfd)
	})
}

// clearEnded takes away what is left of a sandbox whose agent ended, unless
// somebody was quicker: stopped, deleted or restarted it.
func (l *Launcher) clearEnded(sb *sandbox, pidfd *os.File) {
	sb.op.Lock()
	defer sb.op.Unlock()
	sb.mu.Lock()
	same := sb.pidfd == pidfd && sb.rec.State == StateStopped
	sb.mu.Unlock()
	if !same {
		return
	}
	if err := l.clear(sb); err != nil {
		l.log.Error("cannot clear away a sandbox whose agent ended", "lab", sb.id, "error", err)
	}
}

// noteEnd completes the Exit from cgroups and log, records it and tells the
// watchers; the end of what is being deleted is no news.
func (l *Launcher) noteEnd(sb *sandbox, e Exit) {
	e.At = time.Now().UTC()
	for _, g := range sb.rec.Cgroups {
		if g.oomKills(agentGroup) > 0 {
			e.OOM = true
			e.Reason += fmt.Sprintf("; out of memory (the agent's limit is %d MiB)", sb.rec.Limits.AgentMemoryBytes>>20)
		} else if g.oomKills(workGroup) > 0 {
			e.OOM = true
			e.Reason += fmt.Sprintf("; the kernel has killed in the lab for want of memory (its limit is %d MiB)", sb.rec.Limits.MemoryBytes>>20)
		}
	}
	e.Log = lastWords(tail(filepath.Join(sb.dir, logFile), crashBytes))
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.rec.State != StateRunning {
		return
	}
	if sb.overfull {
		e.Reason += fmt.Sprintf("; the server ended it, as its directory held more than %d MiB or %d files", runBytes>>20, runFiles)
	}
	sb.exit, sb.rec.Exit, sb.rec.State, sb.rec.Init = e, e, StateStopped, processHandle{}
	if err := sb.rec.write(sb.dir); err != nil {
		l.log.Error("cannot record the end of an agent", "lab", sb.id, "error", err)
	}
	close(sb.ended)
	l.log.Info("a lab's agent ended", "lab", sb.id, "reason", e.Reason)
}

// MoveAgent takes PID 1 out of the group that bears the learner's limits. It
// is called after the handshake, when the agent has made its spawner.
func (l *Launcher) MoveAgent(id string) error {
	sb, err := l.get(id)
	if err != nil {
		return err
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	pidfd, err := sb.rec.Init.open()
	if err != nil {
		return fmt.Errorf("cannot move the agent of %s: %w", id, err)
	}
	defer pidfd.Close()
	for _, g := range sb.rec.Cgroups {
		if err := writeCgroup(g.agent(), "cgroup.procs", strconv.Itoa(sb.rec.Init.PID)); err != nil {
			return fmt.Errorf("cannot move the agent of %s to cgroup %s: %w", id, g.agent(), err)
		}
	}
	return nil
}

// lastWords cuts a log's end down to tailBytes: from where a Go program says
// why it crashes, as what follows are its goroutines; else the very end.
func lastWords(log string) string {
	crash := -1
	for _, mark := range []string{"panic: ", "fatal error: ", "SIGSEGV: ", "SIGABRT: ", "SIGQUIT: "} {
		if i := strings.LastIndex(log, mark); i > crash && (i == 0 || log[i-1] == '\n') {
			crash = i
		}
	}
	if crash < 0 {
		return strings.ToValidUTF8(log[max(0, len(log)-tailBytes):], "")
	}
	return strings.ToValidUTF8(log[crash:min(len(log), crash+tailBytes)], "")
}

// tail returns the last n bytes of a file, from the start of a line.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(0, st.Size()-n)
	b := make([]byte, st.Size()-from)
	m, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	s := string(b[:m])
	if _, rest, ok := strings.Cut(s, "\n"); ok && from > 0 {
		s = rest
	}
	return strings.TrimSpace(s)
}
