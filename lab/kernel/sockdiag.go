package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"podlab/lab"
)

// Constants of linux/sock_diag.h, linux/inet_diag.h and linux/unix_diag.h.
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	diagV6Only       = 11 // INET_DIAG_SKV6ONLY
	unixDiagName     = 0  // UNIX_DIAG_NAME
	unixShowName     = 1  // UDIAG_SHOW_NAME
	stateListen      = 1 << 10
	stateClose       = 1 << 7 // of UDP: bound and not connected

	inetRequestLen = 56 // struct inet_diag_req_v2
	inetMessageLen = 72 // struct inet_diag_msg
	unixRequestLen = 24 // struct unix_diag_req
	unixMessageLen = 16 // struct unix_diag_msg

	maxSockets = 1024 // that are reported of one namespace
)

// ListeningSocket is a socket that waits for peers, with the inode number by
// which /proc/PID/fd names it.
type ListeningSocket struct {
	lab.Socket
	Inode uint64
}

// ListeningSockets reads what `ss -lntux` prints of the calling thread's
// network namespace, by NETLINK_SOCK_DIAG (sock_diag(7)). Call it where the
// thread is in the wanted namespace. At most 1024 are returned.
func ListeningSockets() ([]ListeningSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("cannot open a sock_diag socket: %w", err)
	}
	defer unix.Close(fd)
	d := &socketDump{fd: fd, buf: make([]byte, 32<<10)}
	for _, q := range []struct {
		proto            string
		family, protocol uint8
		states           uint32
	}{
		{"tcp", unix.AF_INET, unix.IPPROTO_TCP, stateListen},
		{"tcp6", unix.AF_INET6, unix.IPPROTO_TCP, stateListen},
		{"udp", unix.AF_INET, unix.IPPROTO_UDP, stateClose},
		{"udp6", unix.AF_INET6, unix.IPPROTO_UDP, stateClose},
	} {
		request := make([]byte, inetRequestLen)
		request[0], request[1] = q.family, q.protocol
		binary.NativeEndian.PutUint32(request[4:], q.states)
		if err := d.run(request, func(m []byte) { d.inet(q.proto, m) }); err != nil {
			return nil, fmt.Errorf("cannot list %s sockets: %w", q.proto, err)
		}
	}
	request := make([]byte, unixRequestLen)
	request[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[4:], stateListen)
	binary.NativeEndian.PutUint32(request[12:], unixShowName)
	if err := d.run(request, d.unix); err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the kernel has no unix_diag
		return nil, fmt.Errorf("cannot list Unix sockets: %w", err)
	}
	return d.sockets, nil
}

type socketDump struct {
	fd      int
	buf     []byte
	sockets []ListeningSocket
}

// run sends a dump request and hands each answer to each.
func (d *socketDump) run(request []byte, each func([]byte)) error {
	message := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(request))
	binary.NativeEndian.PutUint32(message[0:], uint32(unix.NLMSG_HDRLEN+len(request)))
	binary.NativeEndian.PutUint16(message[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(d.fd, append(message, request...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(d.fd, d.buf, 0)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return err
		}
		done, err := d.answers(d.buf[:n], each)
		if done || err != nil {
			return err
		}
	}
}

// answers walks the netlink messages of one datagram.
func (d *socketDump) answers(b []byte, each func([]byte)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return true, fmt.Errorf("a netlink message of %d bytes in %d", length, len(b))
		}
		payload := b[unix.NLMSG_HDRLEN:length]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(payload) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(payload)); errno != 0 {
					return true, unix.Errno(errno)
				}
			}
			return true, nil
		case sockDiagByFamily:
			if len(d.sockets) < maxSockets {
				each(payload)
			}
		}
		b = b[min(len(b), align4(length)):]
	}
	return false, nil
}

func (d *socketDump) inet(proto string, m []byte) {
	if len(m) < inetMessageLen {
		return
	}
	s := ListeningSocket{Inode: uint64(binary.NativeEndian.Uint32(m[68:]))}
	s.Proto, s.Port = proto, binary.BigEndian.Uint16(m[4:])
	if m[0] == unix.AF_INET {
		s.Addr = netip.AddrFrom4([4]byte(m[8:12]))
	} else {
		s.Addr = netip.AddrFrom16([16]byte(m[8:24]))
	}
	attributes(m[inetMessageLen:], func(kind uint16, value []byte) {
		if kind == diagV6Only && len(value) > 0 {
			s.V6Only = value[0] != 0
		}
	})
	d.sockets = append(d.sockets, s)
}

func (d *socketDump) unix(m []byte) {
	if len(m) < unixMessageLen {
		return
	}
	s := ListeningSocket{Inode: uint64(binary.NativeEndian.Uint32(m[4:]))}
	s.Proto = "unix"
	attributes(m[unixMessageLen:], func(kind uint16, value []byte) {
		if kind != unixDiagName || len(value) == 0 {
			return
		}
		if value[0] == 0 { // abstract, unix(7)
			s.Path = "@" + string(value[1:])
			return
		}
		for len(value) > 0 && value[len(value)-1] == 0 {
			value = value[:len(value)-1]
		}
		s.Path = string(value)
	})
	d.sockets = append(d.sockets, s)
}

// attributes walks netlink attributes.
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofNlAttr:length])
		b = b[min(len(b), align4(length)):]
	}
}

func align4(n int) int { return (n + 3) &^ 3 }
