package runtime

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// loop waits on all descriptors of the runtime (pidfds and log pipes) with one
// goroutine. Handlers run on that goroutine, one at a time, and must not block.
type loop struct {
	ep   int
	wake int
	done chan struct{}

	scratch logScratch // for handlers

	mu       sync.Mutex
	handlers map[int32]func()
}

func newLoop() (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make an epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("cannot make an eventfd: %w", err)
	}
	l := &loop{ep: ep, wake: wake, done: make(chan struct{}), handlers: map[int32]func(){}}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}); err != nil {
		unix.Close(ep)
		unix.Close(wake)
		return nil, fmt.Errorf("cannot watch an eventfd: %w", err)
	}
	go l.run()
	return l, nil
}

// add calls f whenever fd can be read or has ended, until remove(fd).
func (l *loop) add(fd int, f func()) error {
	l.mu.Lock()
	l.handlers[int32(fd)] = f
	l.mu.Unlock()
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		l.mu.Lock()
		delete(l.handlers, int32(fd))
		l.mu.Unlock()
		return fmt.Errorf("cannot watch a descriptor: %w", err)
	}
	return nil
}

// remove ends the watch of fd and closes it.
func (l *loop) remove(fd int) {
	l.mu.Lock()
	delete(l.handlers, int32(fd))
	_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, fd, nil)
	unix.Close(fd)
	l.mu.Unlock()
}

func (l *loop) run() {
	defer close(l.done)
	var events [32]unix.EpollEvent
	for {
		n, err := unix.EpollWait(l.ep, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for i := range max(n, 0) {
			if events[i].Fd == int32(l.wake) {
				return
			}
			l.mu.Lock()
			f := l.handlers[events[i].Fd]
			l.mu.Unlock()
			if f != nil {
				f()
			}
		}
	}
}

// close ends the goroutine and waits for it.
func (l *loop) close() {
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-l.done
	unix.Close(l.ep)
	unix.Close(l.wake)
}
