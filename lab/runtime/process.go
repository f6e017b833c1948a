package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ExitStatus is how a process ended.
type ExitStatus struct {
	// Code as a shell sees it: 128 + Signal when a signal ended it.
	Code   int
	Signal unix.Signal
	At     time.Time
}

// Process is a process of the lab: a pause, a container's first process, or a
// command that was started in one of them.
type Process struct {
	pid   int
	pidfd int
	pty   *os.File

	// Stdin, Stdout and Stderr are the other ends of a command's pipes, where
	// it was asked for them.
	Stdin, Stdout, Stderr *os.File

	mu     sync.Mutex
	gone   bool // reaped; pidfd is closed
	status ExitStatus
	done   chan struct{}
}

// PID in the agent's own pid namespace.
func (p *Process) PID() int { return p.pid }

// PTY is the master side of the process's pseudo-terminal, or nil.
func (p *Process) PTY() *os.File { return p.pty }

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running says whether the process has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.gone
}

// Wait returns the exit code once the process has ended.
func (p *Process) Wait() int { return p.ExitStatus().Code }

// ExitStatus waits for the process's end.
func (p *Process) ExitStatus() ExitStatus {
	<-p.done
	return p.status
}

func (p *Process) ended(ws unix.WaitStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.status.At = time.Now()
	if ws.Signaled() {
		p.status.Signal, p.status.Code = ws.Signal(), 128+int(ws.Signal())
	} else {
		p.status.Code = ws.ExitStatus()
	}
}

// Signal sends a signal to the process alone. A process that has ended is no error.
func (p *Process) Signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot send %s: %w", unix.SignalName(sig), err)
	}
	return nil
}

// withPidfd calls f with the pidfd while it is sure to be open.
func (p *Process) withPidfd(f func(fd int) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return errors.New("the process has ended")
	}
	return f(p.pidfd)
}

// dupPidfd returns a copy of the pidfd for the caller to close.
func (p *Process) dupPidfd() (int, error) {
	fd := -1
	err := p.withPidfd(func(pidfd int) (err error) {
		fd, err = unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// OpenNamespace opens a namespace of the process: "net", "mnt", "pid", "ipc", "uts".
func (p *Process) OpenNamespace(kind string) (*os.File, error) {
	var f *os.File
	err := p.withPidfd(func(int) (err error) { // the pid is ours as long as it is not reaped
		f, err = os.Open("/proc/" + strconv.Itoa(p.pid) + "/ns/" + kind)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open the %s namespace of process %d: %w", kind, p.pid, err)
	}
	return f, nil
}

// hangupGrace is how long a shell has to save its history after SIGHUP.
const hangupGrace = 200 * time.Millisecond

// Kill ends the process and all others of its session: first a hang-up, as
// when a terminal is closed, then SIGKILL. It returns when the process has ended.
func (p *Process) Kill() error {
	err := errors.Join(p.Signal(unix.SIGHUP), p.Signal(unix.SIGCONT))
	timer := time.NewTimer(hangupGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	err = errors.Join(err, killSession(p.pid, !p.Running()), p.Signal(unix.SIGKILL))
	<-p.done
	for _, f := range []*os.File{p.pty, p.Stdin, p.Stdout, p.Stderr} {
		if f != nil {
			if cerr := f.Close(); cerr != nil && !errors.Is(cerr, os.ErrClosed) {
				err = errors.Join(err, cerr)
			}
		}
	}
	return err
}

// killSession sends SIGKILL to every process of a session and waits until none
// is left (one may fork while it is looked at). As long as one of its processes
// lives, no new process gets the session's number; so if the leader is known to
// be gone and there is a process of that number, it is another session.
func killSession(sid int, leaderGone bool) error {
	for range 16 {
		pids, err := sessionPIDs(sid)
		if err != nil {
			return err
		}
		if len(pids) == 0 || leaderGone && slices.Contains(pids, sid) {
			return nil
		}
		for _, pid := range pids {
			if err := killAndWait(pid); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("processes of session %d do not end", sid)
}

// killWait bounds the wait for a killed process: one that is in the middle of
// a system call that cannot be interrupted takes its time.
const killWait = 2000 // milliseconds

func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("cannot kill process %d: %w", pid, err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, killWait)
		if !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
}

// sessionPIDs reads from /proc which live processes are of the session.
func sessionPIDs(sid int) ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// proc_pid_stat(5): pid (comm) state ppid pgrp session …
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) > 3 && f[0] != "Z" && f[0] != "X" && f[3] == strconv.Itoa(sid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// ExecSpec is a command to run in a container or node.
type ExecSpec struct {
	Args []string
	// Env is added to the place's own variables.
	Env []string
	// TTY gives it a pseudo-terminal of Cols by Rows (80 by 24 if zero);
	// otherwise the streams that are asked for are pipes, the others /dev/null.
	TTY                   bool
	Cols, Rows            uint16
	Stdin, Stdout, Stderr bool
	// Cwd is the working directory; empty is the place's own.
	Cwd string
}

// Exec runs a command in a running container or node, in all its namespaces,
// with its user and capabilities. The caller must Wait for or Kill the process.
func (r *Runtime) Exec(ctx context.Context, ref Ref, spec ExecSpec) (*Process, error) {
	if err := live(ctx); err != nil {
		return nil, err
	}
	if len(spec.Args) == 0 {
		return nil, errors.New("cannot run an empty command")
	}
	at, err := r.find(ref)
	if err != nil {
		return nil, err
	}
	pidfd, err := at.process.dupPidfd()
	if err != nil {
		return nil, fmt.Errorf("cannot enter %s: %w", ref, err)
	}
	defer unix.Close(pidfd)
	io, err := openStreams(spec)
	if err != nil {
		return nil, err
	}
	defer io.closeTheirs()
	s, err := r.spawner.spawn(request{pidns: 0, ops: execOps(at, spec, io), fds: append([]int{pidfd}, io.fds()...)})
	if err != nil {
		io.closeOurs()
		return nil, err
	}
	p, err := r.watch(s, nil)
	if err != nil {
		io.closeOurs()
		return nil, err
	}
	p.Stdin, p.Stdout, p.Stderr = io.ours[0], io.ours[1], io.ours[2]
	return p, nil
}

// String is "node node1" or "default/pod-a/app".
func (ref Ref) String() string {
	if ref.Node != "" {
		return "node " + ref.Node
	}
	return ref.Namespace + "/" + ref.Pod + "/" + ref.Container
}

func execOps(at place, spec ExecSpec, io streams) []op {
	ops := []op{setns(0, unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWNS)}
	env := append([]string(nil), at.env...)
	if spec.TTY {
		cols, rows := int64(spec.Cols), int64(spec.Rows)
		if cols == 0 || rows == 0 {
			cols, rows = 80, 24
		}
		ops = append(ops, op{code: opPTY, a: cols<<16 | rows})
		env = append(env, "TERM=xterm-256color")
	} else {
		ops = append(ops, op{code: opSetsid})
		ops = append(ops, io.ops(1)...)
	}
	cwd := at.cwd
	if spec.Cwd != "" {
		cwd = spec.Cwd
	}
	ops = append(ops, chdir(cwd, false))
	ops = append(ops, at.user.ops(at.caps, at.nnp)...)
	return append(ops, execve(spec.Args, mergeEnv(env, spec.Env)))
}

// mergeEnv appends more to env; the last of the same name stays.
func mergeEnv(env, more []string) []string {
	at := map[string]int{}
	var out []string
	for _, e := range append(append([]string(nil), env...), more...) {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

// streams are a command's pipes: our ends and theirs, by stdin, stdout, stderr.
type streams struct {
	ours   [3]*os.File
	theirs [3]int // -1 for none
}

func openStreams(spec ExecSpec) (streams, error) {
	s := streams{theirs: [3]int{-1, -1, -1}}
	if spec.TTY {
		return s, nil
	}
	for i, want := range []bool{spec.Stdin, spec.Stdout, spec.Stderr} {
		if !want {
			continue
		}
		var ends [2]int // read, write
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			s.closeTheirs()
			s.closeOurs()
			return streams{}, fmt.Errorf("cannot make a pipe: %w", err)
		}
		our, their := ends[0], ends[1]
		if i == 0 {
			our, their = their, our
		}
		s.theirs[i] = their // stays blocking: programs expect that of their streams
		_ = unix.SetNonblock(our, true)
		s.ours[i] = os.NewFile(uintptr(our), [...]string{"stdin", "stdout", "stderr"}[i])
	}
	return s, nil
}

// fds are the descriptors to pass, in order.
func (s streams) fds() []int {
	var fds []int
	for _, fd := range s.theirs {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// ops sets the descriptors 0 to 2; the passed ones begin at index first.
func (s streams) ops(first int) []op {
	var ops []op
	for i, fd := range s.theirs {
		switch {
		case fd >= 0:
			ops = append(ops, dup(first, i))
			first++
		case i == 0:
			ops = append(ops, openAs("/dev/null", unix.O_RDONLY, 0))
		default:
			ops = append(ops, openAs("/dev/null", unix.O_WRONLY, i))
		}
	}
	return ops
}

func (s streams) closeTheirs() {
	for _, fd := range s.theirs {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (s streams) closeOurs() {
	for _, f := range s.ours {
		if f != nil {
			f.Close()
		}
	}
}

// Resize tells the process's terminal its new size.
func (p *Process) Resize(cols, rows uint16) error {
	if p.pty == nil {
		return errors.New("the process has no terminal")
	}
	c, err := p.pty.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot resize: %w", err)
	}
	var rerr error
	err = c.Control(func(fd uintptr) {
		rerr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
	if err := errors.Join(err, rerr); err != nil {
		return fmt.Errorf("cannot resize: %w", err)
	}
	return nil
}
