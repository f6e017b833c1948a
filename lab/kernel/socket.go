package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// socket is a route netlink socket. It belongs to the namespace that it was
// opened in for as long as it lives. It is not safe for concurrent use.
type socket struct {
	fd  int
	seq uint32
}

// openSocket opens a socket in the calling thread's namespace. The kernel
// handles a request inside sendmsg, so that the answer is there when it
// returns: blocking receives do not wait.
func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	s := &socket{fd: fd}
	// The kernel's own words for errors, and no copy of the request with each:
	// netlink(7). Kernels without them answer by number alone.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// A kernel that does not answer is a defect; do not wait for it for good.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot set a netlink socket's timeout: %w", err)
	}
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// answers are buffers larger than any datagram that the kernel sends for a
// request (netlink_dump: at most 32 KiB).
var answers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// kernelError is an answer to one message.
type kernelError struct {
	errno unix.Errno
	text  string // the kernel's explanation, or empty
}

func (e kernelError) Error() string {
	if e.text != "" {
		return e.errno.Error() + " (" + e.text + ")"
	}
	return e.errno.Error()
}

func (e kernelError) Unwrap() error { return e.errno }

// do sends the messages of a batch, whose sequence numbers run from first to
// last and of which only the last asks to be acknowledged, and returns the
// kernel's error for each that failed. The kernel goes on after a failed one.
func (s *socket) do(b *batch, first, last uint32) (map[uint32]error, error) {
	if err := s.send(b.buf); err != nil {
		return nil, err
	}
	var failed map[uint32]error
	buf := make([]byte, 4096)
	for {
		n, err := s.receive(buf)
		if err != nil {
			return failed, err
		}
		finished := false
		eachMessage(buf[:n], func(h unix.NlMsghdr, body []byte) {
			if h.Type != unix.NLMSG_ERROR || h.Seq < first || h.Seq > last {
				return
			}
			if err := answer(h, body); err != nil {
				if failed == nil {
					failed = map[uint32]error{}
				}
				failed[h.Seq] = err
			}
			finished = finished || h.Seq == last
		})
		if finished {
			return failed, nil
		}
	}
}

func (s *socket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot send to the kernel: %w", err)
		}
		return nil
	}
}

func (s *socket) receive(buf []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("cannot receive from the kernel: %w", err)
		}
		return n, nil
	}
}

// answer reads an NLMSG_ERROR; nil is an acknowledgement.
func answer(h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return kernelError{errno: unix.EBADMSG}
	}
	errno := -int32(order.Uint32(body))
	if errno == 0 {
		return nil
	}
	e := kernelError{errno: unix.Errno(errno)}
	// With NETLINK_CAP_ACK only the request's header is echoed, then come the
	// attributes of the extended acknowledgement.
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > 4+unix.SizeofNlMsghdr {
		eachAttr(body[4+unix.SizeofNlMsghdr:], func(kind uint16, value []byte) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.text = string(bytes.TrimRight(value, "\x00"))
			}
		})
	}
	return e
}

// dumpTries bounds how often a dump is begun again when the table changed
// under it.
const dumpTries = 5

// dump asks for a whole table and calls each with every message of it. It
// begins again with reset when the kernel says that the table changed
// meanwhile.
func (s *socket) dump(kind uint16, fixed []byte, reset func(), each func(kind uint16, body []byte)) error {
	var err error
	for range dumpTries {
		reset()
		if err = s.dumpOnce(kind, fixed, each); !errors.Is(err, errInterrupted) {
			return err
		}
	}
	return err
}

var errInterrupted = errors.New("cannot dump: the table kept changing")

func (s *socket) dumpOnce(kind uint16, fixed []byte, each func(kind uint16, body []byte)) error {
	s.seq++
	var b batch
	b.begin(kind, unix.NLM_F_DUMP, s.seq, fixed)
	b.end()
	if err := s.send(b.buf); err != nil {
		return err
	}
	buf := answers.Get().(*[32 << 10]byte)
	defer answers.Put(buf)
	var failure error
	for finished := false; !finished; {
		n, err := s.receive(buf[:])
		if err != nil {
			return err
		}
		eachMessage(buf[:n], func(h unix.NlMsghdr, body []byte) {
			switch {
			case h.Seq != s.seq:
				return
			case h.Type == unix.NLMSG_ERROR:
				failure, finished = answer(h, body), true
				return
			case h.Type == unix.NLMSG_DONE:
				finished = true
			default:
				each(h.Type, body)
			}
			if h.Flags&unix.NLM_F_DUMP_INTR != 0 && failure == nil {
				failure = errInterrupted
			}
		})
	}
	return failure
}

// query sends one request and returns the answer's body, of one message.
func (s *socket) query(kind uint16, fixed []byte, attrs func(*batch)) ([]byte, error) {
	s.seq++
	var b batch
	b.begin(kind, 0, s.seq, fixed)
	if attrs != nil {
		attrs(&b)
	}
	b.end()
	if err := s.send(b.buf); err != nil {
		return nil, err
	}
	buf := answers.Get().(*[32 << 10]byte)
	defer answers.Put(buf)
	var result []byte
	var failure error
	for finished := false; !finished; {
		n, err := s.receive(buf[:])
		if err != nil {
			return nil, err
		}
		eachMessage(buf[:n], func(h unix.NlMsghdr, body []byte) {
			if h.Seq != s.seq {
				return
			}
			finished = true
			if h.Type == unix.NLMSG_ERROR {
				failure = answer(h, body)
				return
			}
			result = bytes.Clone(body)
		})
	}
	return result, failure
}
