// Package netns makes and enters network namespaces. It is the only place of
// the project that calls unshare or setns; everything else names a namespace
// by an *NS.
//
// Each function that needs another namespace borrows an operating system
// thread for itself, and gives the thread back only when it is in its own
// namespace again; otherwise the thread ends. So a goroutine never finds
// itself in a namespace that it did not ask for. All functions may be called
// from any goroutine.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// self is the calling thread's own namespace. /proc/self would be the main
// thread's (proc_pid_thread_self(5)).
const self = "/proc/thread-self/ns/net"

// NS is a network namespace, kept alive by an open file until Close.
type NS struct {
	file  *os.File
	inode uint64
	close sync.Once
	err   error
}

// home is the namespace that the process was started in. It is opened on the
// first use and stays open: threads are always there between calls.
var home = sync.OnceValues(func() (*NS, error) { return Open(self) })

// Current returns the namespace of the process. The caller closes it.
func Current() (*NS, error) { return Open(self) }

// Open opens the namespace at path, such as /run/netns/blue or /proc/PID/ns/net.
func Open(path string) (*NS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open network namespace %s: %w", path, err)
	}
	return FromFile(os.NewFile(uintptr(fd), path))
}

// FromFile takes over an open file of a network namespace, and closes it if
// it is something else.
func FromFile(file *os.File) (*NS, error) {
	inode, err := inodeOf(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &NS{file: file, inode: inode}, nil
}

// inodeOf returns the inode number of a network namespace's file, and an
// error for any other file.
func inodeOf(file *os.File) (uint64, error) {
	// NS_GET_NSTYPE, ioctl_nsfs(2); any other file answers ENOTTY.
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("cannot use %s: not a network namespace", file.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("cannot stat %s: %w", file.Name(), err)
	}
	return st.Ino, nil
}

// New makes an empty namespace and runs inside, if not nil, in it before
// returning: what must be opened in the new namespace costs no setns there.
// It equals `ip netns add` without a name.
func New(inside func() error) (*NS, error) {
	var ns *NS
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		if ns, err = Open(self); err != nil || inside == nil {
			return err
		}
		return inside()
	})
	if err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, err
	}
	return ns, nil
}

// Do runs f with its thread in the namespace. What f opens stays in the
// namespace; goroutines that f starts do not run there.
func (ns *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("cannot enter network namespace %d: %w", ns.inode, err)
		}
		return f()
	})
}

// onThread runs f on a thread that f may move to another namespace. The
// thread goes back to work only if it could be moved home; else it ends with
// its goroutine.
func onThread(f func() error) error {
	start, err := home()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.New("cannot go on: the function in a network namespace did not return")
		// Also when f ends the goroutine, as a test's FailNow does.
		defer func() {
			if unix.Setns(int(start.file.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			done <- err
		}()
		err = f()
	}()
	return <-done
}

// Inode returns the namespace's inode number, as `ls -i /proc/PID/ns/net`
// shows it. Two namespaces are the same if and only if it is the same.
func (ns *NS) Inode() uint64 { return ns.inode }

// Fd returns the descriptor, valid until Close.
func (ns *NS) Fd() int { return int(ns.file.Fd()) }

// File returns the open file, to be handed to a process that enters the
// namespace. It stays the namespace's: the receiver must not close it.
func (ns *NS) File() *os.File { return ns.file }

// Dup returns an independent handle of the same namespace.
func (ns *NS) Dup() (*NS, error) {
	fd, err := unix.FcntlInt(ns.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate network namespace %d: %w", ns.inode, err)
	}
	return &NS{file: os.NewFile(uintptr(fd), ns.file.Name()), inode: ns.inode}, nil
}

// Close lets go of the namespace. The kernel removes it with all its links
// when no process, socket or other file holds it.
func (ns *NS) Close() error {
	ns.close.Do(func() { ns.err = ns.file.Close() })
	return ns.err
}

// Series makes n namespaces one after the other on one thread: nothing is
// faster, and `podlab bench` measures everything else beside it. Of each,
// before runs at home; then the namespace is made, and inside runs in it with
// its open file, which it has to close.
func Series(n int, before func(i int) error, inside func(i int, file int) error) error {
	return onThread(func() error {
		start, err := home()
		if err != nil {
			return err
		}
		for i := range n {
			if err := unix.Setns(int(start.file.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("cannot go home: %w", err)
			}
			if err := before(i); err != nil {
				return err
			}
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("cannot make a network namespace: %w", err)
			}
			fd, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("cannot open the new network namespace: %w", err)
			}
			if err := inside(i, fd); err != nil {
				return err
			}
		}
		return nil
	})
}
