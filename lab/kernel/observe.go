package kernel

import (
	"errors"
	"fmt"

	"podlab/lab/netns"

	"golang.org/x/sys/unix"
)

// Table is all that a namespace has.
type Table struct {
	Links  map[int]Link
	Addrs  []Addr
	Routes []Route
	Neighs []Neigh
	FDB    []FDBEntry
}

// Observe reads the namespace's whole tables, as `ip -d link`, `ip addr`,
// `ip route show table all`, `ip neigh` and `bridge fdb` do.
func (h *Handle) Observe() (Table, error) {
	var t Table
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sock == nil {
		return t, errClosed
	}
	var err error
	if t.Links, err = h.dumpLinks(); err != nil {
		return t, err
	}
	err = h.sock.dump(unix.RTM_GETADDR, ifaddrmsg(unix.AF_UNSPEC, 0, 0, 0, 0),
		func() { t.Addrs = nil },
		func(kind uint16, body []byte) {
			if c, ok := parse(kind, 0, body); ok && c.Addr != nil {
				t.Addrs = append(t.Addrs, *c.Addr)
			}
		})
	if err != nil {
		return t, fmt.Errorf("cannot read addresses: %w", err)
	}
	if t.Routes, err = h.dumpRoutes(); err != nil {
		return t, err
	}
	for _, fam := range []uint8{unix.AF_UNSPEC, unix.AF_BRIDGE} {
		if err := h.dumpNeighs(fam, &t); err != nil {
			return t, err
		}
	}
	return t, nil
}

// Routes reads the namespace's routes.
func (h *Handle) Routes() ([]Route, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sock == nil {
		return nil, errClosed
	}
	return h.dumpRoutes()
}

func (h *Handle) dumpLinks() (map[int]Link, error) {
	links := map[int]Link{}
	err := h.sock.dump(unix.RTM_GETLINK, ifinfomsg(unix.AF_UNSPEC, 0, 0, 0),
		func() { clear(links) },
		func(kind uint16, body []byte) {
			if c, ok := parse(kind, 0, body); ok && c.Link != nil {
				links[c.Link.Index] = *c.Link
			}
		})
	if err != nil {
		return nil, fmt.Errorf("cannot read links: %w", err)
	}
	return links, nil
}

func (h *Handle) dumpRoutes() ([]Route, error) {
	var routes []Route
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		before := len(routes)
		err := h.sock.dump(unix.RTM_GETROUTE, rtmsg(fam, 0, 0, 0, 0, 0),
			func() { routes = routes[:before] },
			func(kind uint16, body []byte) {
				if c, ok := parse(kind, 0, body); ok {
					routes = append(routes, c.Routes...)
				}
			})
		if err != nil {
			return nil, fmt.Errorf("cannot read routes: %w", err)
		}
	}
	return routes, nil
}

// dumpNeighs reads the neighbours of all families, or with AF_BRIDGE the
// forwarding tables, which the kernel asks an ifinfomsg for.
func (h *Handle) dumpNeighs(fam uint8, t *Table) error {
	fixed := ndmsg(fam, 0, 0, 0)
	if fam == unix.AF_BRIDGE {
		fixed = ifinfomsg(fam, 0, 0, 0)
	}
	err := h.sock.dump(unix.RTM_GETNEIGH, fixed,
		func() {
			if fam == unix.AF_BRIDGE {
				t.FDB = nil
			} else {
				t.Neighs = nil
			}
		},
		func(kind uint16, body []byte) {
			switch c, ok := parse(kind, 0, body); {
			case !ok:
			case c.Neigh != nil:
				t.Neighs = append(t.Neighs, *c.Neigh)
			case c.FDB != nil:
				t.FDB = append(t.FDB, *c.FDB)
			}
		})
	if err != nil {
		return fmt.Errorf("cannot read neighbours: %w", err)
	}
	return nil
}

// noNSID is the kernel's answer for a namespace that this one has no number
// for (NETNSA_NSID_NOT_ASSIGNED, linux/net_namespace.h).
const noNSID = -1

// Attributes of RTM_GETNSID, linux/net_namespace.h.
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// NSID returns what this namespace calls the other (`ip netns list-id`), and
// false when it has no number for it.
func (h *Handle) NSID(other *netns.NS) (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sock == nil {
		return 0, false
	}
	body, err := h.sock.query(unix.RTM_GETNSID, []byte{unix.AF_UNSPEC, 0, 0, 0}, func(b *batch) {
		b.u32(netnsaFD, uint32(other.Fd()))
	})
	id := noNSID
	if err == nil && len(body) > 4 {
		eachAttr(body[4:], func(kind uint16, v []byte) {
			if kind == netnsaNSID {
				id = int(int32(u32(v)))
			}
		})
	}
	return id, id != noNSID
}

// Monitor hears every change of a namespace's links, addresses, routes,
// neighbours and forwarding tables. It is not safe for concurrent use.
type Monitor struct{ fd int }

// monitorGroups are the RTNLGRP_ numbers that a Monitor hears, as bits.
const monitorGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// Monitor opens a monitor of the namespace.
func (h *Handle) Monitor() (*Monitor, error) {
	var m *Monitor
	err := h.ns.Do(func() (err error) {
		m, err = OpenMonitor()
		return err
	})
	return m, err
}

// OpenMonitor opens a monitor of the calling thread's namespace.
func OpenMonitor() (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: monitorGroups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot subscribe to the kernel's changes: %w", err)
	}
	return &Monitor{fd: fd}, nil
}

// Fd is readable when there are changes to Read.
func (m *Monitor) Fd() int { return m.fd }

// Close ends the monitor.
func (m *Monitor) Close() error { return unix.Close(m.fd) }

// Read calls f with each change that waits and does not block. It reports
// whether changes were lost: then the reader has to Observe again. buf is
// room for one datagram.
func (m *Monitor) Read(buf []byte, f func(Change)) (lost bool, err error) {
	for {
		n, _, err := unix.Recvfrom(m.fd, buf, 0)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return lost, nil
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			continue
		default:
			return lost, fmt.Errorf("cannot read the kernel's changes: %w", err)
		}
		eachMessage(buf[:n], func(h unix.NlMsghdr, body []byte) {
			if c, ok := parse(h.Type, h.Flags, body); ok {
				f(c)
			}
		})
	}
}
