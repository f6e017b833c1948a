package runtime

import (
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spawn holds spawn.c and, once `make generate` has run, its binary.
//
//go:embed spawn
var spawnFiles embed.FS

// spawnTimeout bounds how long a process may take from clone3 to execve: only
// a lab at its limits of memory or processes comes near it.
const spawnTimeout = 20 * time.Second

// spawner is the agent's end of the spawner process.
type spawner struct {
	proc *os.Process

	// caps are the capabilities that the sandbox has: no process gets others.
	caps uint64

	mu     sync.Mutex
	sock   int
	last   uint32
	server int // pid of the process that serves; it is ours to reap
}

// hello is the id of the answer that a serving process begins with.
const hello = ^uint32(0)

// startSpawner runs the embedded program; it unmounts the hidden folders in
// its own mount namespace, so that no process of the lab ever sees them.
func startSpawner(hidden []string) (*spawner, error) {
	exe, err := embeddedProgram("spawn")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make the spawner's socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "spawner")
	defer theirs.Close()
	// All three must be open: else passed descriptors would take their numbers.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("cannot start the spawner: %w", err)
	}
	defer null.Close()
	proc, err := os.StartProcess(procPath(exe), append([]string{"spawn", "serve"}, hidden...), &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, os.Stderr, theirs},
	})
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("cannot start the spawner: %w", err)
	}
	caps, err := ownCapabilities()
	if err != nil {
		return nil, errors.Join(err, proc.Kill())
	}
	timeout := unix.NsecToTimeval(int64(spawnTimeout))
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set the spawner's time limit: %w", err), proc.Kill())
	}
	s := &spawner{proc: proc, caps: caps, sock: pair[0]}
	if a, err := s.answer(); err != nil || a.id != hello {
		return nil, errors.Join(errors.New("the spawner did not start"), err, proc.Kill())
	}
	return s, nil
}

// ownCapabilities are this process's permitted ones (capget(2)).
func ownCapabilities() (uint64, error) {
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("cannot read this process's capabilities: %w", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

// bound takes what the sandbox does not have out of the capabilities of ops.
func (s *spawner) bound(ops []op) {
	for i := range ops {
		if o := &ops[i]; o.code == opCaps {
			if o.a != keep {
				o.a &= int64(s.caps)
			}
			if o.b != keep {
				o.b &= int64(s.caps)
			}
		}
	}
}

// embeddedProgram puts a program of spawn/bin into a sealed memory file.
func embeddedProgram(name string) (*os.File, error) {
	text, err := spawnFiles.ReadFile("spawn/bin/" + name)
	if err != nil {
		return nil, fmt.Errorf("this podlab was built without lab/runtime/spawn/bin/%s: run make generate, then build again", name)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("cannot make a memory file for %s: %w", name, err)
	}
	// A number that the child's own descriptors do not take: it runs the
	// program by this number after they are in their places.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 16)
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot make a memory file for %s: %w", name, err)
	}
	f := os.NewFile(uintptr(high), name)
	if _, err := f.Write(text); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot fill the memory file of %s: %w", name, err)
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot seal the memory file of %s: %w", name, err)
	}
	return f, nil
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// spawned is a process that the spawner has made and that runs its program.
type spawned struct {
	pid   int
	pidfd int
	// pty is the master side of its pseudo-terminal, or -1.
	pty int
}

// request is what a new process is to be.
type request struct {
	// flags of clone3(2), CLONE_NEW… only.
	flags uint64
	// pidns is the index in fds whose pid namespace the process is born in
	// (below it, with CLONE_NEWPID), or -1 for the agent's own.
	pidns int
	ops   []op
	fds   []int
}

// spawn makes a process and returns when its program runs, or says which step
// failed. The fds of the request stay the caller's; index 0 is the first.
func (s *spawner) spawn(r request) (spawned, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return spawned{}, fmt.Errorf("cannot make a status socket: %w", err)
	}
	defer unix.Close(pair[0])
	timeout := unix.NsecToTimeval(int64(spawnTimeout))
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(pair[1])
		return spawned{}, fmt.Errorf("cannot set a time limit: %w", err)
	}
	p, err := s.clone(r, pair[1])
	unix.Close(pair[1])
	if err != nil {
		return spawned{}, err
	}
	if err := s.await(pair[0], r.ops, &p); err != nil {
		p.abandon()
		return spawned{}, err
	}
	return p, nil
}

// clone sends the request and takes the new process's pid and pidfd.
func (s *spawner) clone(r request, status int) (spawned, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound(r.ops)
	if err := s.ask(r, status); err != nil {
		return spawned{}, err
	}
	for {
		a, err := s.answer()
		if err != nil {
			return spawned{}, err
		}
		got := spawned{pid: a.pid, pidfd: a.pidfd, pty: -1}
		switch {
		case a.id == hello:
			// The one before was killed, perhaps with the request in its hands.
			// If not, the first answer will be a late one.
			if err := s.ask(r, status); err != nil {
				return spawned{}, err
			}
		case a.id != s.last && a.id != 0: // late, to a request that was given up
			if a.pid > 0 {
				got.abandon()
			}
		case a.pid < 0:
			if a.pidfd >= 0 {
				unix.Close(a.pidfd)
			}
			return spawned{}, &StepError{Step: a.step(), Errno: unix.Errno(-a.pid)}
		default:
			return got, nil
		}
	}
}

// ask sends a request under a new id.
func (s *spawner) ask(r request, status int) error {
	s.last++
	s.bound(r.ops)
	msg, err := encode(s.last, r.flags, r.pidns, r.ops)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(s.sock, msg, unix.UnixRights(append([]int{status}, r.fds...)...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("cannot ask the spawner: %w", err)
	}
	return nil
}

// answer is one of the spawner's.
type answer struct {
	id    uint32
	pid   int // or -errno
	where uint32
	pidfd int // or -1
}

// step says where it failed.
func (a answer) step() string {
	switch a.where {
	case 2:
		return "enter the pid namespace"
	case 3:
		return "clone"
	}
	return "read the request"
}

// answer reads one, and reaps what ended with it.
func (s *spawner) answer() (answer, error) {
	var b [16]byte
	n, fd, err := receive(s.sock, b[:])
	if err != nil {
		return answer{}, fmt.Errorf("no answer from the spawner: %w", err)
	}
	if n < len(b) {
		return answer{}, errors.New("the spawner has ended")
	}
	field := func(i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
	a := answer{id: field(0), pid: int(int32(field(1))), where: field(2), pidfd: fd}
	if helper := int32(field(3)); helper > 0 {
		reap(int(helper))
	}
	if a.id == hello {
		if s.server > 0 {
			reap(s.server)
		}
		s.server = a.pid
	}
	return a, nil
}

// await reads the status socket until the program runs.
func (s *spawner) await(sock int, ops []op, p *spawned) error {
	for {
		var status [8]byte
		n, fd, err := receive(sock, status[:])
		if err != nil {
			return fmt.Errorf("the process did not start within %v: %w", spawnTimeout, err)
		}
		if n == 0 {
			return nil
		}
		at := int32(binary.NativeEndian.Uint32(status[0:]))
		if at < 0 {
			p.pty = fd
			continue
		}
		e := &StepError{Step: "do an unknown step", Errno: unix.Errno(binary.NativeEndian.Uint32(status[4:]))}
		if int(at) < len(ops) {
			e.Step, e.exec = ops[at].String(), ops[at].code == opExec
		}
		return e
	}
}

// abandon kills and reaps a process that did not come to run.
func (p spawned) abandon() {
	_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	reap(p.pid)
	unix.Close(p.pidfd)
	if p.pty >= 0 {
		unix.Close(p.pty)
	}
}

// reap waits for a child that has ended or is about to.
func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// receive reads one message and the descriptor that came with it, or -1.
func receive(sock int, buf []byte) (int, int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, -1, err
		}
		fd := -1
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
				fd = fds[0]
			}
		}
		return n, fd, nil
	}
}

// close ends the spawner; processes that it made live on.
func (s *spawner) close() error {
	s.mu.Lock()
	err := unix.Close(s.sock)
	s.sock = -1
	s.mu.Unlock()
	_, werr := s.proc.Wait()
	reap(s.server)
	return errors.Join(err, werr)
}

// StepError is a step between clone3 and execve that failed.
type StepError struct {
	// Step in words, to stand after "cannot": `run "nginx"`.
	Step  string
	Errno unix.Errno
	exec  bool
}

// Error names the step and the kernel's answer.
func (e *StepError) Error() string { return fmt.Sprintf("cannot %s: %v", e.Step, e.Errno) }

// Unwrap gives the errno.
func (e *StepError) Unwrap() error { return e.Errno }

// IsExec says that all was prepared but the program itself could not be run:
// it is missing or may not be executed.
func (e *StepError) IsExec() bool { return e.exec }
